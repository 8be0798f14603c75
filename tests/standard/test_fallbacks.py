"""LangChain's own fallbacks over each pair, in the same suites."""

from __future__ import annotations

from .subjects import fallbacks
from .suites import suites

globals().update(suites(fallbacks()))
