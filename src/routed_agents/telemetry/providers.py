"""The global providers of tracers and meters, also where the environment names one that cannot be loaded."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.metrics import _internal as metrics_internal

from routed_agents.complaints import complain

_STAND_IN: Final = trace.ProxyTracerProvider()
_LOST: Final[set[str]] = set()
"""Variables whose provider could not be loaded. The API would look for it again, and log it with its trace, at every question."""


def tracers() -> trace.TracerProvider:
    """The global tracer provider; where none can be loaded a stand-in, which hears of one that is set later."""
    if OTEL_PYTHON_TRACER_PROVIDER not in _LOST:
        try:
            return trace.get_tracer_provider()
        except Exception as trouble:
            _lost(OTEL_PYTHON_TRACER_PROVIDER, "spans", trouble)
    return trace._TRACER_PROVIDER or _STAND_IN  # pyright: ignore[reportPrivateUsage]


def meters() -> metrics.MeterProvider:
    """The global meter provider; where none can be loaded the API's stand-in, which hears of one that is set later."""
    if OTEL_PYTHON_METER_PROVIDER not in _LOST:
        try:
            return metrics.get_meter_provider()
        except Exception as trouble:
            _lost(OTEL_PYTHON_METER_PROVIDER, "metrics", trouble)
    return metrics_internal._METER_PROVIDER or metrics_internal._PROXY_METER_PROVIDER  # pyright: ignore[reportPrivateUsage]


def _lost(variable: str, what: str, trouble: Exception) -> None:
    _LOST.add(variable)
    complain(f"the provider that {variable} names could not be loaded, so {what} go nowhere until another one is set", trouble)
