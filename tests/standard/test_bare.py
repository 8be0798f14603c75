"""The tiers' own models: what a routed model is measured against."""

from __future__ import annotations

from .subjects import bare
from .suites import suites

globals().update(suites(bare()))
