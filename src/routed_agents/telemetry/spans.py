"""Spans and metrics of steps and attempts; speaks the OpenTelemetry API only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from routed_agents.pricing import usd_of
from routed_agents.telemetry import names

if TYPE_CHECKING:
    from routed_agents.decisions import Decision
    from routed_agents.ledger import Entry
    from routed_agents.steps import Step
    from routed_agents.tiers import Deployment, Tier

log: Final = logging.getLogger("routed_agents")


class CallView(Protocol):
    """What telemetry reads of a routed call."""

    @property
    def step(self) -> Step: ...
    @property
    def thread(self) -> str | None: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def mode(self) -> str: ...
    @property
    def decision(self) -> Decision: ...
    @property
    def decision_ns(self) -> int: ...
    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def parent(self) -> object: ...


class AttemptView(Protocol):
    """What telemetry reads of an attempt when it begins."""

    @property
    def number(self) -> int: ...
    @property
    def row(self) -> Tier: ...
    @property
    def deployment(self) -> Deployment: ...


@dataclass(slots=True)
class RouteSpan:
    """An open route span and the context its attempts hang under. It is never made current: a stream's reader would inherit it."""

    span: Span
    context: Context


class Telemetry:
    """Writes spans and metrics for a router; whatever goes wrong in here never reaches the caller.

    Args:
        tracer_provider: the global one when not given.
        meter_provider: the global one when not given.
        labels: label keys that may appear in spans and metrics; values of others stay in the ledger.
        threads: put thread ids on spans, as `gen_ai.conversation.id`.
        evidence: put what guards saw on spans; it may quote a person.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        labels: Sequence[str] = (),
        threads: bool = True,
        evidence: bool = False,
        enabled: bool = True,
    ) -> None:
        self.labels = tuple(labels)
        self.threads = threads
        self.evidence = evidence
        self.enabled = enabled
        self._tracer = trace.get_tracer(names.SCOPE, names.SCHEMA_VERSION, tracer_provider)
        meter = metrics.get_meter(names.SCOPE, names.SCHEMA_VERSION, meter_provider)
        self._counters = {name: meter.create_counter(name, unit, text) for name, (unit, text) in names.COUNTERS.items()}
        self._histograms = {name: meter.create_histogram(name, unit, text) for name, (unit, text) in names.HISTOGRAMS.items()}

    @classmethod
    def off(cls) -> Telemetry:
        """No spans and no metrics; the ledger still keeps everything."""
        return cls(tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider(), enabled=False)

    def open_route(self, decision: Decision, call: CallView) -> RouteSpan | None:
        """Start the span of a step, with its decision; its attempts become its children."""
        if not self.enabled:
            return None
        try:
            node = call.step.node or "step"
            current = cast("Context", call.parent) if call.parent is not None else otel_context.get_current()
            span = self._tracer.start_span(
                f"route {node}", current, SpanKind.INTERNAL, {names.SPAN_KIND: "CHAIN", names.REQUEST_MODEL: decision.model or "none"}
            )
            if span.is_recording():
                span.set_attributes(self._route_attributes(decision, call))
            shared = {"task_class": decision.task_class, "tier": decision.tier or "stop", "mode": call.mode}
            self._counters["routed_agents.decisions"].add(1, shared, current)
            self._histograms["routed_agents.decision.duration"].record(call.decision_ns / 1e9, {}, current)
            return RouteSpan(span, trace.set_span_in_context(span, current))
        except Exception:
            log.exception("a route span could not be opened")
            return None

    def close_route(self, route: RouteSpan, call: CallView, error: BaseException | None) -> None:
        """End the span of a step, with the roll-ups of its attempts."""
        try:
            span = route.span
            if span.is_recording():
                entries = call.entries
                decision = call.decision
                costs = [entry.cost.total_pico for entry in entries if entry.cost is not None]
                baselines = [entry.baseline_pico for entry in entries if entry.baseline_pico is not None]
                attributes: dict[str, AttributeValue] = {names.ATTEMPTS: len(entries), names.DECIDED_TIER: decision.tier or "stop"}
                if entries:
                    attributes[names.TIER] = entries[-1].tier
                    attributes[names.OUTCOME] = entries[-1].outcome
                if len(entries) > 1:
                    attributes[names.REASONS] = list(decision.codes)
                if entries and len(costs) == len(entries):
                    attributes[names.ROLLUP_COST] = float(usd_of(sum(costs)))
                    if entries[-1].baseline_pico is not None:
                        attributes[names.ROLLUP_BASELINE] = float(usd_of(sum(baselines)))
                        attributes[names.ROLLUP_SAVING] = float(usd_of(sum(baselines) - sum(costs)))
                span.set_attributes(attributes)
                if error is not None:
                    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
                    if isinstance(error, Exception):
                        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.end()
        except Exception:
            log.exception("a route span could not be closed")

    def open_group(self, name: str, attributes: Mapping[str, AttributeValue], parent: object = None) -> RouteSpan | None:
        """Start a span that only holds others together: a graph's run, or a node in it."""
        if not self.enabled:
            return None
        try:
            context = cast("Context", parent) if parent is not None else otel_context.get_current()
            known = {key: value for key, value in attributes.items() if key != names.CONVERSATION or self.threads}
            told: dict[str, AttributeValue] = {names.SPAN_KIND: "CHAIN", names.SCHEMA: names.SCHEMA_VERSION, **known}
            span = self._tracer.start_span(name, context, SpanKind.INTERNAL, told)
            return RouteSpan(span, trace.set_span_in_context(span, context))
        except Exception:
            log.exception("the span of a graph could not be opened")
            return None

    def close_group(self, group: RouteSpan, error: BaseException | None = None) -> None:
        """End the span of a graph's run or of a node."""
        try:
            if error is not None:
                group.span.set_attribute(names.ERROR_TYPE, type(error).__name__)
                if isinstance(error, Exception):
                    group.span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            group.span.end()
        except Exception:
            log.exception("the span of a graph could not be closed")

    def open_attempt(
        self, route: RouteSpan | None, attempt: AttemptView, call: CallView, *, started_ns: int | None = None, parent: object = None
    ) -> Span | None:
        """Start the leaf span of one provider call."""
        if not self.enabled:
            return None
        try:
            deployment = attempt.deployment
            context = route.context if route is not None else cast("Context | None", parent)
            attributes: dict[str, AttributeValue] = {names.OPERATION: "chat", names.REQUEST_MODEL: deployment.model, names.SPAN_KIND: "LLM"}
            if deployment.provider:
                attributes[names.PROVIDER] = deployment.provider
            span = self._tracer.start_span(f"chat {deployment.model}", context, SpanKind.CLIENT, attributes, start_time=started_ns)
            if call.thread is not None and self.threads and span.is_recording():
                span.set_attribute(names.CONVERSATION, call.thread)
        except Exception:
            log.exception("a leaf span could not be opened")
            return None
        return span

    def close_attempt(
        self, span: object, entry: Entry, error: BaseException | None, *, followed: bool = False, repairs: Sequence[str] = ()
    ) -> None:
        """End the leaf span of one provider call, with its tokens and its cost, and count it."""
        if not self.enabled:
            return
        leaf = span if isinstance(span, Span) else None
        try:
            if leaf is not None and leaf.is_recording():
                if repairs:
                    leaf.set_attribute(names.REPAIRS, list(repairs))
                leaf.set_attributes(self._leaf_attributes(entry))
                if error is not None and isinstance(error, Exception):
                    leaf.set_status(Status(StatusCode.ERROR, entry.error or type(error).__name__))
            self._count(entry, trace.set_span_in_context(leaf) if leaf is not None else None, followed=followed)
        except Exception:
            log.exception("a leaf span could not be written")
        finally:
            if leaf is not None:
                leaf.end(end_time=entry.ended_ns)

    def end(self, span: object) -> None:
        """End a span nothing more is known about."""
        if isinstance(span, Span):
            span.end()

    def dropped(self, records: int) -> None:
        """Count records that could not be kept."""
        try:
            self._counters["routed_agents.dropped"].add(records)
        except Exception:
            log.exception("%d records were dropped, and that could not even be counted", records)

    def _route_attributes(self, decision: Decision, call: CallView) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {
            names.SCHEMA: names.SCHEMA_VERSION,
            names.STEP: call.step.id,
            names.MODE: call.mode,
            names.TASK_CLASS: decision.task_class,
            names.CONFIDENCE: decision.confidence,
            names.P_STRONG: decision.p_strong,
            names.DECIDED_TIER: decision.tier or "stop",
            names.REASONS: list(decision.codes),
            names.PINNED: decision.floored,
            names.UNSURE: decision.unsure,
            names.POLICY: decision.policy_hash,
            names.TOKENS_BOUND: decision.features.tokens,
            names.DECISION_US: call.decision_ns // 1000,
        }
        if decision.verdicts:
            attributes[names.REASON] = decision.verdicts[0].code
            attributes[names.RULE] = decision.verdicts[0].guard
        if decision.features.downstream is not None:
            attributes[names.DOWNSTREAM] = decision.features.downstream
        if decision.pin:
            attributes[names.PIN] = decision.pin
        if decision.stopped:
            attributes[names.STOPPED] = decision.stopped
        if decision.settlement.degraded:
            attributes[names.DEGRADED] = True
        if self.evidence:
            attributes[names.EVIDENCE] = [
                each for each in (*decision.classification.evidence, *(v.evidence for v in decision.verdicts)) if each
            ]
        self._context_attributes(attributes, call)
        return attributes

    def _context_attributes(self, attributes: dict[str, AttributeValue], call: CallView) -> None:
        if call.step.node:
            attributes[names.NODE] = call.step.node
        if call.step.run:
            attributes[names.RUN] = call.step.run
        if call.thread is not None and self.threads:
            attributes[names.CONVERSATION] = call.thread
        for key in self.labels:
            if key in call.labels:
                attributes[names.LABEL + key] = call.labels[key]

    def _leaf_attributes(self, entry: Entry) -> dict[str, AttributeValue]:
        usage = entry.usage
        model = entry.served_model or entry.model
        attributes: dict[str, AttributeValue] = {
            names.SCHEMA: names.SCHEMA_VERSION,
            names.STEP: entry.step_id,
            names.LLM_MODEL: model,
            names.ATTEMPT: entry.attempt,
            names.TIER: entry.tier,
            names.RANK: entry.rank,
            names.DECIDED_TIER: entry.decided_tier,
            names.TASK_CLASS: entry.task_class,
            names.PINNED: entry.pinned,
            names.OUTCOME: entry.outcome,
            names.MODE: entry.mode,
            names.POLICY: entry.policy_hash,
            names.SIMULATED: entry.simulated,
            names.USAGE_SOURCE: usage.source,
        }
        if entry.codes:
            attributes[names.REASON] = entry.codes[0]
            attributes[names.REASONS] = list(entry.codes)
        if entry.served_model:
            attributes[names.RESPONSE_MODEL] = entry.served_model
        if entry.provider:
            attributes[names.LLM_PROVIDER] = entry.provider
        if entry.deployment:
            attributes[names.DEPLOYMENT] = entry.deployment
        if entry.node:
            attributes[names.NODE] = entry.node
        if entry.error:
            attributes[names.ERROR_TYPE] = entry.error
        if entry.first_chunk_ns is not None:
            attributes[names.FIRST_CHUNK_S] = (entry.first_chunk_ns - entry.started_ns) / 1e9
        if usage.source != "missing":
            prompt = usage.prompt
            attributes |= {
                names.INPUT_TOKENS: prompt,
                names.OUTPUT_TOKENS: usage.output,
                names.LLM_PROMPT: prompt,
                names.LLM_COMPLETION: usage.output,
                names.LLM_TOTAL: prompt + usage.output,
            }
            if usage.cache_read:
                attributes[names.CACHE_READ_TOKENS] = attributes[names.LLM_CACHE_READ] = usage.cache_read
            if written := usage.cache_write_5m + usage.cache_write_1h:
                attributes[names.CACHE_WRITE_TOKENS] = attributes[names.LLM_CACHE_WRITE] = written
            if usage.reasoning:
                attributes[names.REASONING_TOKENS] = usage.reasoning
        for key in self.labels:
            if key in entry.labels:
                attributes[names.LABEL + key] = entry.labels[key]
        if entry.baseline_pico is not None:
            attributes[names.BASELINE_COST] = float(usd_of(entry.baseline_pico))
            attributes[names.BASELINE_PICO] = entry.baseline_pico
            attributes[names.BASELINE_MODEL] = entry.baseline_model or ""
        if entry.cost is not None:  # last, for the SDK drops the oldest attributes when there are too many
            total = float(entry.cost.usd)
            attributes |= {
                names.COST_CURRENCY: "USD",
                names.COST_SOURCE: "simulated" if entry.simulated else "local",
                names.PRICE_TABLE: entry.price_source or "",
                names.COST_PICO: entry.cost.total_pico,
                names.LLM_COST_PROMPT: float(usd_of(entry.cost.prompt_pico)),
                names.LLM_COST_COMPLETION: float(usd_of(entry.cost.completion_pico)),
                names.LLM_COST_TOTAL: total,
                names.USAGE_COST: total,
            }
        return attributes

    def _count(self, entry: Entry, context: Context | None, *, followed: bool) -> None:
        shared: dict[str, Any] = {"tier": entry.tier, "model": entry.model, "task_class": entry.task_class, "simulated": entry.simulated}
        for key in self.labels:
            if key in entry.labels:
                shared[key] = entry.labels[key]
        counters = self._counters
        usage = entry.usage
        if entry.cost is not None:
            counters["routed_agents.cost"].add(float(entry.cost.usd), shared, context)
            if entry.baseline_pico:
                counters["routed_agents.baseline"].add(float(usd_of(entry.baseline_pico)), shared, context)
        else:
            counters["routed_agents.unpriced"].add(1, shared, context)
        if usage.prompt:
            counters["routed_agents.tokens"].add(usage.prompt, {**shared, "kind": "prompt"}, context)
        if usage.output:
            counters["routed_agents.tokens"].add(usage.output, {**shared, "kind": "completion"}, context)
        if followed:
            reason = entry.error or (entry.codes[-1] if entry.codes else entry.outcome)
            counters["routed_agents.escalations"].add(1, {**shared, "reason": reason}, context)
        if entry.tier == "unrouted":
            counters["routed_agents.bypassing"].add(1, shared, context)
        if "check:served_model_below_floor" in entry.codes:
            counters["routed_agents.alarms"].add(1, shared, context)
        self._histograms["routed_agents.duration"].record((entry.ended_ns - entry.started_ns) / 1e9, shared, context)
        if entry.first_chunk_ns is not None:
            self._histograms["routed_agents.time_to_first_chunk"].record((entry.first_chunk_ns - entry.started_ns) / 1e9, shared, context)
