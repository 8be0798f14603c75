"""What else wraps several chat models into one: LangChain's fallbacks and langchain-model-router, in the same suites."""

from __future__ import annotations

from .subjects import chat_routers, fallbacks
from .suites import suites

globals().update(suites([*fallbacks(), *chat_routers()]))
