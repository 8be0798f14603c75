"""langchain-model-router over each pair, in the same suites; nothing where it is not installed."""

from __future__ import annotations

from .subjects import chat_routers
from .suites import suites

globals().update(suites(chat_routers()))
