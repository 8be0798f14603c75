"""Routers as they are measured: one that writes no telemetry, and one that writes all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from opentelemetry.exporter.otlp.json.file import FileMetricExporter, FileSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from routed_agents import Ledger, Policy, Router, Telemetry


def quiet() -> Router:
    """No spans, no metrics, the ledger in memory."""
    return Router(Policy.default(), ledger=Ledger.memory(), telemetry=Telemetry.off())


def everything(place: Path) -> tuple[Router, Callable[[], None]]:
    """A batch span processor to a JSON file, metrics and a SQLite ledger in a new folder; and what closes them."""
    place.mkdir()
    tracing, ledger = TracerProvider(shutdown_on_exit=False), Ledger.sqlite(place / "ledger.db")
    tracing.add_span_processor(BatchSpanProcessor(FileSpanExporter(place / "trace.jsonl"), max_queue_size=50_000))
    metering = MeterProvider([PeriodicExportingMetricReader(FileMetricExporter(place / "metrics.jsonl"))], shutdown_on_exit=False)

    def close() -> None:
        tracing.shutdown()
        metering.shutdown()
        ledger.close()

    return Router(Policy.default(), ledger=ledger, telemetry=Telemetry(tracer_provider=tracing, meter_provider=metering)), close
