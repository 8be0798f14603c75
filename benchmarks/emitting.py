"""Times the spans and metrics of a step against the same ones written by hand against OpenTelemetry's SDK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from benchmarks.measure import Comparison, compare
from routed_agents import Ledger, Policy, Router, Step, Telemetry
from routed_agents.decisions import Decision
from routed_agents.ledger import Entry
from routed_agents.router import Attempt, RoutedCall
from routed_agents.telemetry import names

PLAIN = {"input_tokens": 400, "output_tokens": 12}
CACHED = {**PLAIN, "cache_read_input_tokens": 2_000, "cache_creation_input_tokens": 300}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A step that was made, to be told again.

    Attributes:
        tries: each attempt with the decision it was made under, its entry, and its reply.
    """

    title: str
    call: RoutedCall
    tries: Sequence[tuple[Attempt, Decision, Entry, object]]


def steps() -> list[Made]:
    """A step as most are; one on a cached prompt that a rule holds strong; and one whose reply is rejected, so that it goes up."""
    return [
        _made("a cheap step", "classification", [("ok", PLAIN)]),
        _made("a pinned step on a cached prompt", "agentic_chain", [("ok", CACHED)]),
        _made("a step that goes up", "extraction", [("", PLAIN), ("ok", PLAIN)]),
    ]


def _made(title: str, task_class: str, replies: Sequence[tuple[str, dict[str, int]]]) -> Made:
    router = Router(Policy.default(), ledger=Ledger.memory(), telemetry=Telemetry.off())
    step = Step.from_messages("Is the parcel late? Answer yes or no.", node="triage", task_class=task_class)
    tries: list[tuple[Attempt, Decision, Entry, object]] = []
    given = iter(replies)
    with router.step(step, thread="t-1") as call:
        for attempt in call.attempts():
            text, usage = next(given)
            reply = {"id": "msg_1", "model": attempt.model, "content": text, "stop_reason": "end_turn", "usage": usage}
            decision = call.decision
            with attempt:
                attempt.record(reply)
            tries.append((attempt, decision, call.entries[-1], reply))
    return Made(title=title, call=call, tries=tries)


def ours(made: Made, tracing: TracerProvider, metering: MeterProvider) -> Callable[[], object]:
    """The step told through `Telemetry`, in the router's order."""
    telemetry, call = Telemetry(tracer_provider=tracing, meter_provider=metering), made.call
    entries, last = call.entries, len(made.tries)

    def told() -> None:
        entries.clear()
        call.decision = made.tries[0][1]
        route = telemetry.open_route(call.decision, call)
        for number, (attempt, decision, entry, reply) in enumerate(made.tries, start=1):
            call.decision = decision
            leaf = telemetry.open_attempt(route, attempt, call)
            assert leaf is not None
            _ = leaf.context  # what the provider is called in
            entries.append(entry)
            telemetry.close_attempt(leaf, entry, None, followed=number < last, repairs=attempt.repairs, reply=reply)
        assert route is not None
        telemetry.close_route(route, call, None)

    return told


class ByHand:
    """The same spans and measurements as somebody would write them who has one application, one set-up and no options."""

    def __init__(self, made: Made, tracing: TracerProvider, metering: MeterProvider) -> None:
        self.made = made
        self.tracer = tracing.get_tracer("routed_agents", "1")
        meter = metering.get_meter("routed_agents", "1")
        counters = {name: meter.create_counter(name, each.unit, each.says) for name, each in names.COUNTERS.items()}
        histograms = {
            name: meter.create_histogram(name, each.unit, each.says, explicit_bucket_boundaries_advisory=each.buckets)
            for name, each in names.HISTOGRAMS.items()
        }
        self.decisions, self.deciding = counters["routed_agents.decisions"], histograms["routed_agents.decision.duration"]
        self.cost, self.baseline = counters["routed_agents.cost"], counters["routed_agents.baseline"]
        self.unpriced, self.tokens = counters["routed_agents.unpriced"], counters["routed_agents.tokens"]
        self.escalations, self.rejections = counters["routed_agents.escalations"], counters["routed_agents.rejections"]
        self.duration, self.first_chunk = histograms["routed_agents.duration"], histograms["routed_agents.time_to_first_chunk"]
        self.standard_duration = histograms["gen_ai.client.operation.duration"]
        self.standard_tokens = histograms["gen_ai.client.token.usage"]

    def __call__(self) -> None:
        made, above = self.made, otel_context.get_current()
        route = self.open(made.tries[0][1], made.call, above)
        inside = trace.set_span_in_context(route, above)
        before: tuple[Entry, SpanContext] | None = None
        for number, (attempt, _, entry, reply) in enumerate(made.tries, start=1):
            links: list[Link] = []
            if before is not None:
                lost, why = before[0], _why(before[0])
                tiers = {"routed_agents.from.tier": lost.tier, "routed_agents.to.tier": attempt.row.name, "routed_agents.why": why}
                route.add_event("routed_agents.escalation" if attempt.row.rank > lost.rank else "routed_agents.failover", tiers)
                links.append(Link(before[1], {"routed_agents.why": why}))
            start: dict[str, Any] = {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": attempt.deployment.model,
                "openinference.span.kind": "LLM",
                "gen_ai.provider.name": attempt.deployment.provider or "",
            }
            if made.call.decision.classification.declared:
                start["routed_agents.decision.declared"] = True
            leaf = self.tracer.start_span(f"chat {attempt.deployment.model}", inside, SpanKind.CLIENT, start, links)
            current = trace.set_span_in_context(leaf)  # the provider is called here
            _describe(leaf, entry, reply)
            self.count(entry, current, followed=number < len(made.tries))
            leaf.end(end_time=entry.ended_ns)
            before = entry, leaf.get_span_context()
        self.close(route, made.tries[-1][1], [each[2] for each in made.tries])

    def open(self, decision: Decision, call: RoutedCall, above: Context) -> Span:
        attributes: dict[str, Any] = {
            "openinference.span.kind": "CHAIN",
            "gen_ai.request.model": decision.model or "none",
            "routed_agents.schema": "1",
            "routed_agents.step.id": call.step.id,
            "routed_agents.mode": call.mode,
            "routed_agents.decision.task_class": decision.task_class,
            "routed_agents.decision.confidence": decision.confidence,
            "routed_agents.decision.p_strong": decision.p_strong,
            "routed_agents.decision.tier": decision.tier or "stop",
            "routed_agents.decision.reasons": decision.codes,
            "routed_agents.decision.pinned": decision.floored,
            "routed_agents.decision.unsure": decision.unsure,
            "routed_agents.policy.hash": decision.policy_hash,
            "routed_agents.tokens.upper_bound": decision.features.tokens,
            "routed_agents.decision.duration_us": call.decision_ns // 1000,
            "routed_agents.node": call.step.node or "",
        }
        if decision.verdicts:
            attributes["routed_agents.decision.reason"] = decision.verdicts[0].code
            attributes["routed_agents.decision.rule"] = decision.verdicts[0].guard
        if decision.classification.declared:
            attributes["routed_agents.decision.declared"] = True
        if decision.pin:
            attributes["routed_agents.decision.pin"] = decision.pin
        if decision.stopped:
            attributes["routed_agents.decision.stopped"] = decision.stopped
        if decision.settlement.degraded:
            attributes["routed_agents.decision.degraded"] = True
        route = self.tracer.start_span(f"route {call.step.node}", above, SpanKind.INTERNAL, attributes)
        self.decisions.add(1, {"task_class": decision.task_class, "tier": decision.tier or "stop", "mode": call.mode}, above)
        self.deciding.record(call.decision_ns / 1e9, {}, above)
        return route

    def count(self, entry: Entry, current: Context, *, followed: bool) -> None:
        shared = {"tier": entry.tier, "model": entry.model, "task_class": entry.task_class, "simulated": entry.simulated}
        prompt, output = entry.usage.prompt, entry.usage.output
        if entry.cost is not None:
            self.cost.add(entry.cost.total_pico / 10**12, shared, current)
            if entry.baseline_pico:
                self.baseline.add(entry.baseline_pico / 10**12, shared, current)
        else:
            self.unpriced.add(1, shared, current)
        if prompt:
            self.tokens.add(prompt, {**shared, "kind": "prompt"}, current)
        if output:
            self.tokens.add(output, {**shared, "kind": "completion"}, current)
        if followed:
            self.escalations.add(1, {**shared, "reason": _why(entry)}, current)
        if entry.outcome == "rejected":
            self.rejections.add(1, {**shared, "reason": _why(entry)}, current)
        seconds = (entry.ended_ns - entry.started_ns) / 1e9
        self.duration.record(seconds, shared, current)
        if entry.first_chunk_ns is not None:
            self.first_chunk.record((entry.first_chunk_ns - entry.started_ns) / 1e9, shared, current)
        standard = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": entry.provider or "unknown",
            "gen_ai.request.model": entry.model,
            "gen_ai.response.model": entry.served_model or entry.model,
        }
        self.standard_duration.record(seconds, {**standard, "error.type": entry.error} if entry.error else standard, current)
        if prompt:
            self.standard_tokens.record(prompt, {**standard, "gen_ai.token.type": "input"}, current)
        if output:
            self.standard_tokens.record(output, {**standard, "gen_ai.token.type": "output"}, current)

    def close(self, route: Span, decision: Decision, entries: Sequence[Entry]) -> None:
        last = entries[-1]
        told: dict[str, Any] = {
            "routed_agents.attempts": len(entries),
            "routed_agents.decision.tier": decision.tier or "stop",
            "routed_agents.tier": last.tier,
            "routed_agents.outcome": last.outcome,
        }
        if len(entries) > 1:
            told["routed_agents.decision.reasons"] = decision.codes
        costs = [entry.cost.total_pico for entry in entries if entry.cost is not None]
        if len(costs) == len(entries):
            told["routed_agents.rollup.cost"] = sum(costs) / 10**12
            if last.baseline_pico is not None:
                told["routed_agents.rollup.baseline"] = last.baseline_pico / 10**12
                told["routed_agents.rollup.saving"] = (last.baseline_pico - sum(costs)) / 10**12
        route.set_attributes(told)
        route.end()


def _why(entry: Entry) -> str:
    return entry.error or next((code for code in entry.codes if code.startswith("check:")), entry.outcome)


def _describe(leaf: Span, entry: Entry, reply: Any) -> None:
    usage, model = entry.usage, entry.served_model or entry.model
    prompt, output = usage.prompt, usage.output
    attributes: dict[str, Any] = {
        "gen_ai.response.id": reply["id"],
        "routed_agents.schema": "1",
        "routed_agents.step.id": entry.step_id,
        "llm.model_name": model,
        "routed_agents.attempt": entry.attempt,
        "routed_agents.tier": entry.tier,
        "routed_agents.rank": entry.rank,
        "routed_agents.decision.tier": entry.decided_tier,
        "routed_agents.decision.task_class": entry.task_class,
        "routed_agents.decision.pinned": entry.pinned,
        "routed_agents.outcome": entry.outcome,
        "routed_agents.mode": entry.mode,
        "routed_agents.policy.hash": entry.policy_hash,
        "routed_agents.simulated": entry.simulated,
        "routed_agents.usage.source": usage.source,
        "llm.provider": entry.provider or "",
        "routed_agents.deployment": entry.deployment or "",
        "routed_agents.node": entry.node or "",
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": output,
        "llm.token_count.prompt": prompt,
        "llm.token_count.completion": output,
        "llm.token_count.total": prompt + output,
    }
    if entry.codes:
        attributes["routed_agents.decision.reason"] = entry.codes[0]
        attributes["routed_agents.decision.reasons"] = entry.codes
    if entry.served_model:
        attributes["gen_ai.response.model"] = entry.served_model
    if entry.error:
        attributes["error.type"] = entry.error
    if entry.first_chunk_ns is not None:
        attributes["routed_agents.first_chunk_s"] = (entry.first_chunk_ns - entry.started_ns) / 1e9
    if usage.cache_read:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read
        attributes["llm.token_count.prompt_details.cache_read"] = usage.cache_read
    if written := usage.cache_write_5m + usage.cache_write_1h:
        attributes["gen_ai.usage.cache_creation.input_tokens"] = written
        attributes["llm.token_count.prompt_details.cache_write"] = written
    if usage.reasoning:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning
    if entry.baseline_pico is not None:
        attributes["routed_agents.baseline.cost"] = entry.baseline_pico / 10**12
        attributes["routed_agents.baseline.pico_usd"] = entry.baseline_pico
        attributes["routed_agents.baseline.model"] = entry.baseline_model or ""
    if entry.cost is not None:
        total = entry.cost.total_pico / 10**12
        attributes["routed_agents.cost.currency"] = "USD"
        attributes["routed_agents.cost.source"] = "simulated" if entry.simulated else "local"
        attributes["routed_agents.cost.price_table_version"] = entry.price_source or ""
        attributes["routed_agents.cost.pico_usd"] = entry.cost.total_pico
        attributes["llm.cost.prompt"] = entry.cost.prompt_pico / 10**12
        attributes["llm.cost.completion"] = entry.cost.completion_pico / 10**12
        attributes["llm.cost.total"] = total
        attributes["gen_ai.usage.cost"] = total
    leaf.set_attributes(attributes)
    if entry.outcome == "rejected":
        leaf.add_event("routed_agents.rejection", {"routed_agents.why": _why(entry)})
    if entry.error:
        leaf.set_status(Status(StatusCode.ERROR, entry.error))


class _Nowhere(SpanExporter):
    """Takes spans and drops them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def shape(emit: Callable[[Made, TracerProvider, MeterProvider], Callable[[], object]], made: Made) -> tuple[object, object]:
    """The spans and metric points that one telling leaves, without ids and times."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing, metering = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    emit(made, tracing, metering)()
    spans = exporter.get_finished_spans()
    ids = {span.context.span_id: number for number, span in enumerate(spans)}
    told = [
        (
            span.name,
            span.kind,
            dict(span.attributes or {}),
            ids.get(span.parent.span_id) if span.parent else None,
            [(event.name, dict(event.attributes or {})) for event in span.events],
            [(ids.get(link.context.span_id), dict(link.attributes or {})) for link in span.links],
            span.status.status_code,
            span.status.description,
        )
        for span in spans
    ]
    data = reader.get_metrics_data()
    points = [
        (metric.name, metric.unit, sorted(point.attributes.items()), getattr(point, "value", None), getattr(point, "sum", None))
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    tracing.shutdown()
    metering.shutdown()
    return told, sorted(points, key=repr)


def run(*, rounds: int = 30) -> list[Comparison]:
    """Each kind of step, by hand and by us, through a batch span processor whose exporter drops everything."""
    return [_compared(made, rounds) for made in steps()]


def _compared(made: Made, rounds: int) -> Comparison:
    if shape(ByHand, made) != shape(ours, made):
        raise AssertionError(f"{made.title}: the spans or the metrics by hand are others than ours")
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(BatchSpanProcessor(_Nowhere(), max_queue_size=50_000))
    metering = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    cases = {"by hand": ByHand(made, tracing, metering), "ours": ours(made, tracing, metering)}
    try:
        note = "the same spans and metrics from both; batch span processor, the exporter drops them"
        return compare(f"emitting: {made.title}", cases, rounds=rounds * 4, calls=50, warmup=200, note=note)
    finally:
        tracing.shutdown()
        metering.shutdown()
