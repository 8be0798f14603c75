"""Routed models, each pair once with the cheap tier answering and once with the strong one."""

from __future__ import annotations

from .subjects import routed
from .suites import suites

globals().update(suites(routed()))
