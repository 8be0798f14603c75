"""Spans and metrics as a real SDK sees them: tokens and cost on leaves only, cost last, unknown prices absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanKind, StatusCode

from routed_agents.errors import ConfigurationError, StepStopped
from routed_agents.guards import Conditions
from routed_agents.policy import Policy
from routed_agents.pricing import Prices
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import RouteSpan, Telemetry, names

PRICES = Prices()
SECRET = "my husband died"
COST_NAMES = ("gen_ai.usage.cost", "llm.cost.total", "llm.cost.prompt", "llm.cost.completion", "routed_agents.cost.pico_usd")


class Overloaded(Exception):
    status_code = 529


@dataclass
class Lab:
    """A router with a real SDK behind it."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    router: Router

    @property
    def routes(self) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("route ")]

    @property
    def leaves(self) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("chat ")]

    def counted(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        data = self.reader.get_metrics_data()
        found = (
            [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics] if data else []
        )
        return [
            (getattr(point, "value", None) or getattr(point, "count", 0), dict(point.attributes))
            for metric in found
            if metric.name == name
            for point in metric.data.data_points
        ]

    def call(
        self,
        *script: str,
        model: str | None = None,
        conditions: Conditions | None = None,
        task_class: str = "multi_turn",
        text: str = "hello",
    ) -> None:
        step = Step.from_messages(text, task_class=task_class, node="reply", run="r", id="s1")
        labels = {"tenant": "acme", "team": "blue"}
        outcomes = iter(script)
        with self.router.step(step, thread="t1", labels=labels, conditions=conditions) as call:
            for attempt in call.attempts():
                outcome = next(outcomes, "end_turn")
                with attempt:
                    if outcome == "fail":
                        raise Overloaded
                    attempt.first_chunk()
                    usage = {"input_tokens": 300, "output_tokens": 50, "cache_read_input_tokens": 400, "cache_creation_input_tokens": 200}
                    content = [{"type": "text", "text": "yes"}]
                    attempt.record(
                        {"model": model or attempt.model, "role": "assistant", "content": content, "stop_reason": outcome, "usage": usage}
                    )


def lab_with(**settings: Any) -> Lab:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    spans, meters = TracerProvider(), MeterProvider([reader])
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer_provider=spans, meter_provider=meters, **settings)
    return Lab(exporter, reader, Router(Policy.default(), prices=PRICES, telemetry=telemetry))


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = lab_with(labels=("tenant", "thread"))
    yield made
    made.reader.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_step_leaves_a_route_span_with_a_leaf_below_it(lab: Lab) -> None:
    lab.call()

    (route,), (leaf,) = lab.routes, lab.leaves
    assert [(span.name, span.kind) for span in (route, leaf)] == [
        ("route reply", SpanKind.INTERNAL),
        ("chat claude-haiku-5-5", SpanKind.CLIENT),
    ]
    assert (leaf.parent and leaf.parent.span_id) == (route.context and route.context.span_id)


def test_a_leaf_carries_model_tokens_and_cost_under_every_standard_name(lab: Lab) -> None:
    lab.call()

    leaf = attributes(lab.leaves[0])
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-haiku-5-5",
        "gen_ai.response.model": "claude-haiku-5-5",
        "gen_ai.conversation.id": "t1",
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.cache_creation.input_tokens": 200,
        "openinference.span.kind": "LLM",
        "llm.model_name": "claude-haiku-5-5",
        "llm.provider": "anthropic",
        "llm.token_count.prompt": 900,
        "llm.token_count.completion": 50,
        "llm.token_count.total": 950,
        "llm.token_count.prompt_details.cache_read": 400,
        "llm.token_count.prompt_details.cache_write": 200,
        "routed_agents.decision.tier": "cheap",
        "routed_agents.decision.task_class": "multi_turn",
        "routed_agents.decision.pinned": False,
        "routed_agents.cost.currency": "USD",
        "routed_agents.cost.source": "local",
    }
    assert {key: leaf.get(key) for key in expected} == expected


def test_every_cost_name_tells_the_ledgers_figure(lab: Lab) -> None:
    lab.call()

    (entry,), leaf = list(lab.router.ledger.entries()), attributes(lab.leaves[0])
    assert entry.cost is not None
    total, prompt, completion = float(entry.cost.usd), entry.cost.prompt_pico / 1e12, entry.cost.completion_pico / 1e12
    assert [leaf[name] for name in COST_NAMES] == [total, total, prompt, completion, entry.cost.total_pico]


KNOWN_BY = ("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.provider.name", "openinference.span.kind", "llm.model_name")


def test_what_a_leaf_is_known_and_priced_by_stands_after_everything_the_sdk_might_drop(lab: Lab) -> None:
    lab.call()

    names = list(attributes(lab.leaves[0]))
    cost, known, tokens = ([names.index(name) for name in group] for group in (COST_NAMES, KNOWN_BY, ("llm.token_count.total",)))
    assert min(cost) > max(known) > min(known) > max(tokens) > names.index("routed_agents.outcome") > names.index("routed_agents.schema")


@pytest.mark.parametrize("limits", [{"max_span_attributes": 20}, {"max_span_attributes": 32}, {}])
def test_a_leaf_keeps_its_cost_and_what_it_is_known_by_where_attributes_are_limited(limits: dict[str, int]) -> None:
    keys = [f"l{number}" for number in range(100)]
    exporter, provider = InMemorySpanExporter(), TracerProvider(span_limits=SpanLimits(**limits), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    router = Router(prices=PRICES, telemetry=Telemetry(tracer_provider=provider, labels=keys))
    step = Step.from_messages("hello", task_class="classification")
    with router.step(step, labels=dict.fromkeys(keys, "x")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record({"model": attempt.model, "content": "yes", "usage": {"input_tokens": 9, "output_tokens": 3}})

    leaf = attributes(exporter.get_finished_spans()[0])
    assert [name for name in (*COST_NAMES, *KNOWN_BY, "gen_ai.usage.input_tokens") if name not in leaf] == []


def test_an_unknown_price_leaves_no_cost_attribute_and_is_counted(lab: Lab) -> None:
    lab.call(model="nobody-knows-1")

    assert [name for name in attributes(lab.leaves[0]) if name in COST_NAMES or name.startswith("routed_agents.cost")] == []
    assert [(value, point["reason"]) for value, point in lab.counted("routed_agents.unpriced")] == [(1, "price")]


def test_a_call_whose_usage_nobody_knows_is_counted_as_that(lab: Lab) -> None:
    step = Step.from_messages("hello", task_class="multi_turn")
    with suppress(TypeError), lab.router.step(step) as call:
        for attempt in call.attempts():
            with attempt:
                raise TypeError("unexpected keyword argument")
    assert [(value, point["reason"]) for value, point in lab.counted("routed_agents.unpriced")] == [(1, "usage")]


def test_a_route_span_is_a_chain_with_one_gen_ai_attribute_and_no_tokens_or_standard_cost(lab: Lab) -> None:
    lab.call()

    route = attributes(lab.routes[0])
    assert route["openinference.span.kind"] == "CHAIN"
    assert [name for name in route if name.startswith("gen_ai.") and name != "gen_ai.conversation.id"] == ["gen_ai.request.model"]
    assert [name for name in route if name.startswith("llm.") or name in COST_NAMES] == []


def test_a_route_span_says_what_was_decided_and_rolls_up(lab: Lab) -> None:
    lab.call("max_tokens")

    route = attributes(lab.routes[0])
    total = sum(attributes(leaf)["gen_ai.usage.cost"] for leaf in lab.leaves)
    wanted = {
        "schema": "1",
        "decision.task_class": "multi_turn",
        "decision.tier": "strong",
        "attempts": 2,
        "tier": "strong",
        "node": "reply",
        "run": "r",
    }
    assert {key: route.get(f"routed_agents.{key}") for key in wanted} == wanted
    assert (route["routed_agents.policy.hash"], route["routed_agents.outcome"]) == (lab.router.policy.hash, "accepted")
    assert route["routed_agents.rollup.cost"] == pytest.approx(total)
    assert route["routed_agents.rollup.saving"] == pytest.approx(route["routed_agents.rollup.baseline"] - total)


def test_attempts_are_sisters_and_a_failed_one_says_so(lab: Lab) -> None:
    lab.call("fail", conditions=None)

    first, second = lab.leaves
    assert (first.parent and first.parent.span_id) == (second.parent and second.parent.span_id)
    assert (first.status.status_code, attributes(first)["error.type"], attributes(first)["routed_agents.outcome"]) == (
        StatusCode.ERROR,
        "overloaded",
        "failed",
    )


def test_a_stop_leaves_a_route_span_and_no_leaf(lab: Lab) -> None:
    with pytest.raises(StepStopped):
        lab.call(task_class="agentic_chain", conditions=Conditions(unavailable=frozenset({"strong"})))

    assert (lab.leaves, attributes(lab.routes[0])["routed_agents.decision.stopped"]) == ([], "no_eligible_tier")


def test_only_allowed_labels_appear(lab: Lab) -> None:
    lab.call()

    labels = {name: value for span in (*lab.routes, *lab.leaves) for name, value in attributes(span).items() if ".label." in name}
    assert labels == {"routed_agents.label.tenant": "acme"}


def test_a_label_with_a_name_of_ours_takes_nothings_place_in_the_metrics() -> None:
    keys = ("tenant", *sorted(names.DIMENSIONS))
    made = lab_with(labels=keys)
    made.router = made.router.replace(policy=made.router.policy.replace(labels=keys))
    with made.router.step(Step.from_messages("x", task_class="multi_turn"), labels=dict.fromkeys(keys, "gold")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record({"model": attempt.model, "content": "yes", "usage": {"input_tokens": 300, "output_tokens": 50}})

    (told,) = [told for _, told in made.counted("routed_agents.tokens") if told["kind"] == "prompt"]
    own = {"tier": "cheap", "model": "claude-haiku-5-5", "task_class": "multi_turn", "simulated": False, "kind": "prompt"}
    assert told == {**own, "tenant": "gold", **{f"routed_agents.label.{name}": "gold" for name in names.DIMENSIONS}}


@pytest.mark.parametrize(("evidence", "quoted"), [(False, False), (True, True)])
def test_what_a_guard_saw_is_on_spans_only_when_asked_for(evidence: bool, quoted: bool) -> None:
    made = lab_with(evidence=evidence)

    made.call(text=SECRET)

    assert (SECRET in str([attributes(span) for span in made.exporter.get_finished_spans()])) is quoted
    made.reader.shutdown()


def test_a_thread_id_stays_off_the_spans_unless_allowed() -> None:
    made = lab_with()

    made.call()

    assert "t1" not in [value for span in made.exporter.get_finished_spans() for value in attributes(span).values()]
    made.reader.shutdown()


def test_no_span_is_current_while_the_callers_code_runs(lab: Lab) -> None:
    from opentelemetry import trace

    with lab.router.step(Step.from_messages("x", task_class="multi_turn")) as call:
        next(call.attempts())
        assert not trace.get_current_span().get_span_context().is_valid


def test_counters_agree_with_the_ledger(lab: Lab) -> None:
    lab.call("max_tokens")

    total = lab.router.ledger.total()
    assert sum(value for value, _ in lab.counted("routed_agents.cost")) == pytest.approx(float(total.cost))
    assert sum(value for value, _ in lab.counted("routed_agents.baseline")) == pytest.approx(float(total.baseline))
    assert sum(value for value, _ in lab.counted("routed_agents.tokens")) == total.tokens


@pytest.mark.parametrize(
    ("name", "script", "count"),
    [
        ("routed_agents.decisions", (), 1),
        ("routed_agents.escalations", (), 0),
        ("routed_agents.escalations", ("max_tokens",), 1),
        ("routed_agents.escalations", ("fail",), 1),
        ("routed_agents.unpriced", (), 0),
        ("routed_agents.duration", (), 1),
        ("routed_agents.time_to_first_chunk", ("max_tokens",), 2),
        ("routed_agents.decision.duration", (), 1),
    ],
)
def test_what_is_counted(lab: Lab, name: str, script: tuple[str, ...], count: int) -> None:
    lab.call(*script)

    assert sum(value for value, _ in lab.counted(name)) == count


def test_a_failover_is_counted_with_its_trouble(lab: Lab) -> None:
    lab.call("fail")

    assert [shared["reason"] for _, shared in lab.counted("routed_agents.escalations")] == ["overloaded"]


def test_a_swapped_model_rings_the_alarm(lab: Lab) -> None:
    with pytest.raises(StepStopped):
        lab.call(model="claude-haiku-5-5", task_class="agentic_chain")

    assert [value for value, _ in lab.counted("routed_agents.alarms")] == [1]


def test_a_watched_call_outside_the_tiers_counts_as_bypassing(lab: Lab) -> None:
    lab.router.watch(
        model="gpt-4o", reply={"model": "gpt-4o", "content": "x", "usage": {"prompt_tokens": 5, "completion_tokens": 1}}, started_ns=1
    )

    assert [value for value, _ in lab.counted("routed_agents.bypassing")] == [1]


def test_telemetry_that_is_off_leaves_nothing_but_the_ledger() -> None:
    made = lab_with(enabled=False)

    made.call()

    assert (made.exporter.get_finished_spans(), made.router.ledger.total().attempts) == ((), 1)
    made.reader.shutdown()


def test_every_text_on_spans_and_metrics_can_be_encoded() -> None:
    """One lone surrogate would take the other spans of its batch with it."""
    lab = lab_with(labels=("tenant", "thread"), evidence=True, capture=lambda text: text)
    cut = "cut\ud83d"
    step = Step.from_messages(f"Is this rude? {cut}", node=cut, run=cut, id=cut)
    with lab.router.step(step, thread=cut, labels={"tenant": cut}) as call:
        for attempt in call.attempts():
            with attempt:
                usage = {"input_tokens": 3, "output_tokens": 5}
                attempt.record({"id": cut, "model": attempt.model, "content": [{"type": "text", "text": cut}], "usage": usage})
    tool = lab.router.telemetry.open_tool(cut, call_id=cut, arguments=cut)
    assert tool is not None
    lab.router.telemetry.close_tool(tool, {"content": cut})
    data = lab.reader.get_metrics_data()
    assert data is not None
    told = [(span.name, dict(span.attributes or {})) for span in lab.exporter.get_finished_spans()]
    text = str([*told, data.to_json()])
    assert len(told) == 3
    assert ("\\ud83d" in text, "\ufffd" in text) == (False, True)
    lab.reader.shutdown()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"labels": "tenant"}, "labels is 'tenant'; wanted a list of label keys, like [\"tenant\"]"),
        ({"labels": [5]}, 'labels is [5]; wanted a list of label keys, like ["tenant"]'),
        ({"labels": 5}, 'labels is 5; wanted a list of label keys, like ["tenant"]'),
        ({"capture": True}, "capture is True; wanted a function that gives what of a text may be recorded, or None"),
        ({"tracer_provider": "x"}, "tracer_provider is 'x'; wanted an OpenTelemetry provider with get_tracer, or None for the global one"),
        ({"meter_provider": "x"}, "meter_provider is 'x'; wanted an OpenTelemetry provider with get_meter, or None for the global one"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Telemetry(**settings)
    assert str(caught.value) == told


class Refusing(SpanProcessor):
    """A span processor that breaks when a span ends."""

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("the processor is broken")


def test_a_processor_that_breaks_when_a_span_ends_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Refusing())
    telemetry = Telemetry(tracer_provider=provider, emit="full")
    with Router(prices=PRICES, telemetry=telemetry).step(Step.from_messages("hello", task_class="classification")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record({"content": "", "stop_reason": "end_turn"} if attempt.number == 1 else {"content": "yes"})
        for attempt in call.attempts():
            with attempt:
                attempt.unmade()

    assert [entry.outcome for entry in call.entries] == ["rejected", "accepted"]
    assert "a leaf span could not be ended: RuntimeError at test_telemetry_spans.py" in caplog.text


def test_an_event_that_cannot_be_added_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Closed(NonRecordingSpan):
        def add_event(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("closed")

    Telemetry().rests(RouteSpan(Closed(INVALID_SPAN_CONTEXT), Context()), "eu", "overloaded")

    assert "an event could not be added" in caplog.text
