"""Where the environment names a provider that cannot be loaded, routers work without spans and metrics, and it is said once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents.offline.traces import read_spans
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import configure, providers

REPLY = {"model": "claude-haiku-5-5", "content": [{"type": "text", "text": "yes"}], "usage": {"input_tokens": 30, "output_tokens": 5}}


@pytest.fixture(autouse=True)
def not_installed(no_provider: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in an image whose environment names a distribution's providers that are not in it."""
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "nobodys")
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "nobodys")
    yield
    providers._LOST.clear()


def stepped(router: Router) -> int:
    with router.step(Step.from_messages("x", task_class="classification", node="n")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(REPLY)
    return router.ledger.total().attempts


def test_a_router_works_and_each_provider_is_missed_once(caplog: pytest.LogCaptureFixture) -> None:
    assert [stepped(Router(Policy.default())) for _ in range(3)] == [1, 1, 1]
    told = [record.message for record in caplog.records if record.name == "routed_agents"]
    assert [line.partition(":")[0] for line in told] == [
        "the provider that OTEL_PYTHON_TRACER_PROVIDER names could not be loaded, so spans go nowhere until another one is set",
        "the provider that OTEL_PYTHON_METER_PROVIDER names could not be loaded, so metrics go nowhere until another one is set",
    ]


def test_providers_that_are_set_later_hear_of_a_router_made_before() -> None:
    router, spans, reader = Router(Policy.default()), InMemorySpanExporter(), InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    stepped(router)
    assert [span.name for span in spans.get_finished_spans()] == ["chat claude-haiku-5-5", "route n"]
    assert "routed_agents.cost" in str(reader.get_metrics_data())
    assert (providers.tracers(), providers.meters()) == (provider, metrics.get_meter_provider())


def test_configure_sets_up_its_own(tmp_path: Path) -> None:
    with configure(trace_file=tmp_path / "trace.jsonl", metrics_file=tmp_path / "metrics.jsonl") as handle:
        stepped(Router(Policy.default()))
        assert handle.active
    assert [span.name for span in read_spans(tmp_path / "trace.jsonl")] == ["chat claude-haiku-5-5", "route n"]
    assert "routed_agents.cost" in (tmp_path / "metrics.jsonl").read_text()
