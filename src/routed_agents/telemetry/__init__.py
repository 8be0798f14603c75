"""Telemetry leaves a span for every step and every attempt, with its true cost, through the OpenTelemetry API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routed_agents.telemetry.detection import MadeBy
from routed_agents.telemetry.spans import LeafSpan, RouteSpan, Telemetry

if TYPE_CHECKING:
    from routed_agents.telemetry.setup import configure

__all__ = ["LeafSpan", "MadeBy", "RouteSpan", "Telemetry", "configure"]


def __getattr__(name: str) -> object:
    if name == "configure":  # needs the SDK, which only those who call it should load
        from routed_agents.telemetry.setup import configure

        return configure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
