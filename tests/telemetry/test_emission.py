"""How much a leaf says follows from whoever else is active; counters are whole whatever is sampled; the environment is heard."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from routed_agents.errors import ConfigurationError
from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry, configure, names
from routed_agents.telemetry.detection import INSTRUMENTORS, SDK, active, emission_for, langsmith_exports, sdk_traces
from routed_agents.telemetry.endpoints import asked_by

REPLY = {"model": "claude-haiku-5-5", "content": [{"type": "text", "text": "yes"}], "usage": {"input_tokens": 30, "output_tokens": 5}}


class Room:
    def __init__(self, *, emit: Any = "auto", sampler: Any = None) -> None:
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.traces = traces = TracerProvider(shutdown_on_exit=False, sampler=sampler)
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        meters = MeterProvider([self.reader], shutdown_on_exit=False, exemplar_filter=TraceBasedExemplarFilter())
        self.router = Router(
            Policy.default(), ledger=Ledger.memory(), telemetry=Telemetry(tracer_provider=traces, meter_provider=meters, emit=emit)
        )

    def step(self) -> None:
        with self.router.step(Step.from_messages("x", task_class="classification", node="n")) as call:
            for attempt in call.attempts():
                with attempt:
                    attempt.record(REPLY)

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


def instrumented(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """As if the instrumentor of this key were loaded and on."""
    source = next(each for each in INSTRUMENTORS if each.key == key)
    module = ModuleType(source.module)
    on = type("Instrumentor", (), {"_is_instrumented_by_opentelemetry": True})
    setattr(module, source.instrumentor, type("Class", (), {"_instance": on()}))
    monkeypatch.setitem(sys.modules, source.module, module)


@pytest.mark.parametrize(("emit", "spans"), [("full", 2), ("decision_only", 2), ("off", 0), ("auto", 2)])
def test_what_is_off_leaves_metrics_and_ledger(emit: str, spans: int) -> None:
    room = Room(emit=emit)
    room.step()
    assert len(room.spans.get_finished_spans()) == spans
    assert sum(point.value for point in room.points("routed_agents.cost")) == pytest.approx(float(room.router.ledger.total().cost))


def test_an_unknown_emit_is_named() -> None:
    with pytest.raises(ConfigurationError, match="known: auto, full, decision_only, off"):
        Telemetry(emit="most")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("active_key", "provider", "made_by", "watched", "counted_by", "suppress", "nested"),
    [
        ("openinference", "anthropic", "langchain", False, "", True, False),
        ("openinference", "anthropic", "langchain", True, "openinference", False, False),
        ("openinference", "anthropic", "caller", False, "", False, False),
        ("genai-langchain", "anthropic", "langchain", False, "genai-langchain", False, False),
        ("genai-anthropic", "anthropic", "langchain", False, "", False, True),
        ("genai-anthropic", "anthropic", "client", False, "genai-anthropic", False, False),
        ("genai-anthropic", "anthropic", "client_quiet", False, "genai-anthropic", False, False),
        ("genai-anthropic", "anthropic", "caller", False, "genai-anthropic", False, False),
        ("genai-anthropic", "openai", "caller", False, "", False, False),
        ("openinference-openai", "openai", "langchain", False, "", True, False),
        ("traceloop-anthropic", "anthropic", "langchain", True, "traceloop-anthropic", False, False),
    ],
)
def test_who_is_counted(
    monkeypatch: pytest.MonkeyPatch,
    active_key: str,
    provider: str,
    made_by: Any,
    watched: bool,
    counted_by: str,
    suppress: bool,
    nested: bool,
) -> None:
    instrumented(monkeypatch, active_key)
    found = emission_for(provider, made_by=made_by, watched=watched)
    assert (found.counted_by, found.suppress, found.nested) == (counted_by, suppress, nested)
    assert active_key in [source.key for source in active()]


@pytest.mark.parametrize(
    ("env", "exports"),
    [
        ({}, False),
        ({"LANGSMITH_TRACING": "true"}, False),
        ({"LANGSMITH_TRACING": "true", "LANGSMITH_OTEL_ENABLED": "true"}, True),
        ({"LANGSMITH_TRACING": "true", "LANGSMITH_TRACING_MODE": "hybrid"}, True),
        ({"LANGSMITH_TRACING": "true", "LANGSMITH_TRACING_MODE": "langsmith", "LANGSMITH_OTEL_ENABLED": "true"}, False),
        ({"LANGSMITH_OTEL_ENABLED": "true"}, False),
    ],
)
def test_langsmith_counts_where_it_sends_through_opentelemetry(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], exports: bool) -> None:
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGSMITH_OTEL_ENABLED", "LANGSMITH_TRACING_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert langsmith_exports() is exports
    assert emission_for("openai", made_by="langchain", watched=False).full is not exports


@pytest.mark.parametrize(("switch", "traces"), [("false", False), ("FALSE", False), ("", True), ("true", True)])
def test_the_sdks_own_span_counts_once_a_provider_is_set(monkeypatch: pytest.MonkeyPatch, switch: str, traces: bool) -> None:
    import anthropic

    assert anthropic
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", switch)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert not sdk_traces()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
    assert sdk_traces() is traces
    loud, quiet = ("langchain", "client"), ("langchain_quiet", "client_quiet")
    counted = {made_by: emission_for("anthropic", made_by=made_by, watched=True).counted_by for made_by in (*loud, *quiet)}
    assert counted == dict.fromkeys(loud, SDK.key if traces else "") | dict.fromkeys(quiet, "")


@pytest.mark.parametrize("made_by", ["caller", "langchain"])
def test_the_sdks_span_counts_only_where_ours_go_too(monkeypatch: pytest.MonkeyPatch, made_by: Any) -> None:
    import anthropic

    assert anthropic
    monkeypatch.delenv("ANTHROPIC_OPEN_TELEMETRY", raising=False)
    everybodys, stand_in = TracerProvider(shutdown_on_exit=False), trace.ProxyTracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", everybodys)
    mine = TracerProvider(shutdown_on_exit=False)
    counted = [emission_for("anthropic", made_by=made_by, watched=True, own=own).counted_by for own in (None, everybodys, stand_in, mine)]
    assert counted == [SDK.key, SDK.key, SDK.key, ""]


def test_a_call_is_counted_where_our_spans_go_beside_another_global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    import anthropic

    from routed_agents import embedded

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
    room = Room()
    with embedded.serve() as served:
        for name, value in served.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ANTHROPIC_OPEN_TELEMETRY")
        with room.router.step(Step.from_messages("x", task_class="classification", node="n")) as call, anthropic.Anthropic() as client:
            for attempt in call.attempts():
                with attempt:
                    asked: Any = [{"role": "user", "content": "x"}]
                    attempt.record(client.messages.create(model=attempt.model, max_tokens=16, messages=asked))
    leaf = room.spans.get_finished_spans()[0]
    assert (leaf.name, names.USAGE_COST in (leaf.attributes or {})) == ("chat claude-haiku-5-5", True)


def test_counters_are_whole_when_a_tenth_of_the_traces_is_kept() -> None:
    room = Room(sampler=ParentBasedTraceIdRatio(0.1))
    for _ in range(300):
        room.step()
    kept = [span for span in room.spans.get_finished_spans() if span.name.startswith("chat ")]
    total = float(room.router.ledger.total().cost)
    assert 0 < len(kept) < 100
    assert sum(point.value for point in room.points("routed_agents.cost")) == pytest.approx(total)


def test_a_histogram_and_a_counter_name_a_trace_that_was_kept() -> None:
    room = Room()
    room.step()
    leaf = next(span for span in room.spans.get_finished_spans() if span.name.startswith("chat "))
    data = room.reader.get_metrics_data()
    assert data is not None
    named = {
        metric.name: {exemplar.span_id for point in metric.data.data_points for exemplar in point.exemplars}
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    wanted = ("routed_agents.duration", "gen_ai.client.operation.duration", "gen_ai.client.token.usage", "routed_agents.cost")
    assert {name: named[name] for name in wanted} == {name: {leaf.context.span_id} for name in wanted}


def test_durations_have_boundaries_in_seconds() -> None:
    room = Room()
    room.step()
    assert tuple(room.points("routed_agents.duration")[0].explicit_bounds) == names.SECONDS


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, (None, False)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318/"}, ("http://h:4318/v1/traces", False)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o"}, ("http://h/x", False)),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, (None, False)),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, (None, True)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ("http://localhost:4318/v1/traces", True)),
    ],
)
def test_the_standard_variables_are_heard(env: dict[str, str], wanted: tuple[str | None, bool]) -> None:
    assert asked_by(env) == wanted


@pytest.mark.parametrize(
    "env",
    [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
)
def test_what_is_not_here_is_said(env: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="known here"):
        asked_by(env)


def test_configure_without_outputs_sets_nothing_up(monkeypatch: pytest.MonkeyPatch, no_provider: None) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    handle = configure()
    assert (handle.active, trace._TRACER_PROVIDER) == (False, None)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert "OTEL_SDK_DISABLED" in configure(console=True).note


def test_a_dialect_reaches_the_endpoint(monkeypatch: pytest.MonkeyPatch, no_provider: None) -> None:
    from .backends import backend

    with backend() as up:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", up.url)
        handle = configure(dialects=["logfire"])
        room = Router(Policy.default(), ledger=Ledger.memory())
        with room.step(Step.from_messages("x", task_class="classification")) as call:
            for attempt in call.attempts():
                with attempt:
                    attempt.record(REPLY)
        assert handle.shutdown()
    assert sum("operation.cost" in attributes for attributes in up.attributes) == 1


@pytest.mark.parametrize(("plain", "name"), [(True, "chat claude-haiku-5-5"), (False, "attempt claude-haiku-5-5")])
def test_a_reply_that_is_no_object_of_the_sdk_was_not_counted_by_the_sdk(monkeypatch: pytest.MonkeyPatch, plain: bool, name: str) -> None:
    from anthropic.types import Message

    monkeypatch.delenv("ANTHROPIC_OPEN_TELEMETRY", raising=False)
    room = Room()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", room.traces)
    reply = Message.model_validate({"id": "m", "type": "message", "role": "assistant", **REPLY})
    with room.router.step(Step.from_messages("x", task_class="classification", node="n")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(REPLY if plain else reply)
    leaf = room.spans.get_finished_spans()[0]
    assert (leaf.name, names.USAGE_COST in (leaf.attributes or {})) == (name, plain)
