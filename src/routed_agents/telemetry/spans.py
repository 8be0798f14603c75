"""Spans and metrics of steps and attempts; speaks the OpenTelemetry API only."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast, get_args

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from routed_agents.complaints import complain
from routed_agents.errors import ConfigurationError
from routed_agents.steps import field_of, storable, text_of
from routed_agents.telemetry import names
from routed_agents.telemetry.around import beside, context_for
from routed_agents.telemetry.content import (
    Redaction,
    instructions_attribute,
    json_text,
    messages_attribute,
    redacted,
    reply_attribute,
    tools_attribute,
)
from routed_agents.telemetry.detection import FULL, SDK, Emission, MadeBy, emission_for, langchain_parent, tools_told
from routed_agents.telemetry.instruments import instruments_of
from routed_agents.telemetry.providers import tracers

if TYPE_CHECKING:
    from uuid import UUID

    from routed_agents.decisions import Decision
    from routed_agents.ledger import Entry
    from routed_agents.steps import Step
    from routed_agents.tiers import Deployment, Tier

log: Final = logging.getLogger("routed_agents")
Emit = Literal["auto", "full", "decision_only", "off"]
ALLOWED: Final = "ROUTED_AGENTS_SPAN_LABELS"
THREAD: Final = "thread"
"""On the allow-list, it lets thread ids onto spans; never onto metrics, where every thread would be a series of its own."""


HOOK: Final = "wanted a function that gives what of a text may be recorded, or None"
TOOL_ERROR: Final = "tool_error"
"""The error type of a tool that answered with an error in place of raising it."""


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
    def asides(self) -> Sequence[Entry]: ...
    @property
    def parent(self) -> object: ...
    @property
    def made_by(self) -> MadeBy: ...


class AttemptView(Protocol):
    """What telemetry reads of an attempt when it begins."""

    @property
    def number(self) -> int: ...
    @property
    def row(self) -> Tier: ...
    @property
    def deployment(self) -> Deployment: ...
    @property
    def watched(self) -> bool: ...


@dataclass(slots=True)
class RouteSpan:
    """An open route span and the context its attempts hang under. It is never made current: a stream's reader would inherit it."""

    span: Span
    context: Context
    last: SpanContext | None = None


@dataclass(frozen=True, slots=True)
class LeafSpan:
    """An open leaf span, and how it is written."""

    span: Span
    emission: Emission
    made_by: MadeBy = "caller"

    @property
    def context(self) -> Context:
        """The context to call the provider in: the leaf is current, and whoever would count the call again keeps still."""
        return context_for(self.span, self.emission)


class Telemetry:
    """Writes spans and metrics for a router; whatever goes wrong in here never reaches the caller.

    Args:
        tracer_provider: the global one when not given. With another one, the anthropic SDK's own spans, which go to the global one, are
            not counted, so ours are; instrumentations are taken to send where we do.
        meter_provider: the global one when not given.
        emit: `full` writes tokens and cost on our leaf spans; `decision_only` leaves them to somebody else's spans; `off` writes
            no spans, only metrics; `auto` finds out for each call whether somebody else's span is counted. What a client of yours is
            told cannot be seen from a step: use `full` where its own spans are off, or go to a provider of its own.
        labels: the allow-list: label keys that may appear in spans and metrics, and `thread` for the thread's id on spans. What is not
            on it stays in the ledger. `ROUTED_AGENTS_SPAN_LABELS` (comma-separated) when not given.
        threads: short for `thread` on the allow-list.
        evidence: put what guards saw on spans; it may quote a person, so it goes through the redaction hook where there is one.
        capture: a redaction hook; with one, messages are put on leaf spans as far as it lets them.

    Raises:
        ConfigurationError: `emit` is none of the four, or something else here cannot do its work.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        emit: Emit = "auto",
        labels: Sequence[str] | None = None,
        threads: bool | None = None,
        evidence: bool = False,
        capture: Redaction | None = None,
        enabled: bool = True,
    ) -> None:
        if emit not in get_args(Emit):
            raise ConfigurationError(f"emit is {emit!r}; known: {', '.join(get_args(Emit))}")
        if capture is not None and not callable(cast("object", capture)):
            raise ConfigurationError(f"capture is {capture!r}; {HOOK}")
        if iscoroutinefunction(capture) or iscoroutinefunction(getattr(capture, "__call__", None)):  # noqa: B004
            raise ConfigurationError(f"capture is an async function, {capture!r}; {HOOK}")
        for name, given, method in (("tracer_provider", tracer_provider, "get_tracer"), ("meter_provider", meter_provider, "get_meter")):
            if given is not None and not callable(getattr(given, method, None)):
                wanted = f"an OpenTelemetry provider with {method}, or None for the global one"
                raise ConfigurationError(f"{name} is {given!r}; wanted {wanted}")
        allowed = _keys(labels) if labels is not None else _listed(os.environ.get(ALLOWED, ""))
        self.emit: Emit = emit
        self.labels = tuple([key for key in allowed if key != THREAD])
        self._dimensions = [(key, names.LABEL + key if key in names.DIMENSIONS else key) for key in self.labels]
        self.threads = threads if threads is not None else THREAD in allowed
        self.evidence = evidence
        self.capture = _careful(capture) if capture is not None else None
        self.enabled = enabled
        self._own = tracer_provider
        spans = trace.NoOpTracerProvider() if emit == "off" else tracer_provider
        self._tracer = (spans if spans is not None else tracers()).get_tracer(names.SCOPE, names.SCHEMA_VERSION)
        instruments = instruments_of(meter_provider)
        self._counters, self._histograms = instruments.counters, instruments.histograms

    @classmethod
    def off(cls) -> Telemetry:
        """No spans and no metrics; the ledger still keeps everything."""
        return cls(tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider(), enabled=False)

    @property
    def keeps_sdk_spans(self) -> bool:
        """The spans that provider SDKs make by themselves stay on: they are the ones that are counted."""
        return self.enabled and self.emit in ("decision_only", "off")

    def begin_route(self, decision: Decision, call: CallView) -> RouteSpan | None:
        """Start the span of a step whose decision is not final yet, because a judge is asked first."""
        if not self.enabled:
            return None
        try:
            span, current = self._start_route(decision, call)
            return RouteSpan(span, trace.set_span_in_context(span, current))
        except Exception as trouble:
            complain("a route span could not be opened", trouble)
            return None

    def _start_route(self, decision: Decision, call: CallView) -> tuple[Span, Context]:
        node = call.step.node or "step"
        current = cast("Context", call.parent) if call.parent is not None else parent_context()
        known = {names.SPAN_KIND: "CHAIN", names.REQUEST_MODEL: decision.model or "none"}
        return self._tracer.start_span(storable(f"route {node}"), current, SpanKind.INTERNAL, known, beside(current)), current

    def open_route(self, decision: Decision, call: CallView, begun: RouteSpan | None = None) -> RouteSpan | None:
        """Start the span of a step, or take the one that was begun, with its decision; its attempts become its children."""
        if not self.enabled:
            return None
        try:
            span, current = self._start_route(decision, call) if begun is None else (begun.span, begun.context)
            if span.is_recording():
                span.set_attributes(self._route_attributes(decision, call))
                if begun is not None:
                    span.set_attribute(names.REQUEST_MODEL, decision.model or "none")
            shared = {"task_class": decision.task_class, "tier": decision.tier or "stop", "mode": call.mode}
            self._counters["routed_agents.decisions"].add(1, shared, current)
            self._histograms["routed_agents.decision.duration"].record(call.decision_ns / 1e9, {}, current)
            return begun if begun is not None else RouteSpan(span, trace.set_span_in_context(span, current))
        except Exception as trouble:
            complain("a route span could not be opened", trouble)
            return None

    def decided_again(self, route: RouteSpan | None, decision: Decision, call: CallView) -> None:
        """Tell on a step's span what was decided for the form in which it is sent."""
        if route is not None and route.span.is_recording():
            try:
                route.span.set_attributes({**self._route_attributes(decision, call), names.REQUEST_MODEL: decision.model or "none"})
            except Exception as trouble:
                complain("a decision could not be written on its route span", trouble)

    def close_route(self, route: RouteSpan, call: CallView, error: BaseException | None) -> None:
        """End the span of a step, with the roll-ups of its attempts."""
        try:
            span = route.span
            if span.is_recording():
                entries = call.entries
                decision = call.decision
                paid = [*entries, *call.asides] if call.asides else entries
                costs = [entry.cost.total_pico for entry in paid if entry.cost is not None]
                baselines = [entry.baseline_pico for entry in entries if entry.baseline_pico is not None]
                attributes: dict[str, AttributeValue] = {names.ATTEMPTS: len(entries), names.DECIDED_TIER: decision.tier or "stop"}
                if entries:
                    attributes[names.TIER] = entries[-1].tier
                    attributes[names.OUTCOME] = entries[-1].outcome
                if len(entries) > 1:
                    attributes[names.REASONS] = [storable(code) for code in decision.codes]
                if entries and len(costs) == len(paid):
                    attributes[names.ROLLUP_COST] = _usd(sum(costs))
                    if entries[-1].baseline_pico is not None:
                        attributes[names.ROLLUP_BASELINE] = _usd(sum(baselines))
                        if not any(entry.output_unknown for entry in paid):
                            attributes[names.ROLLUP_SAVING] = _usd(sum(baselines) - sum(costs))
                span.set_attributes(attributes)
                if error is not None:
                    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
                    if isinstance(error, Exception):
                        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.end()
        except Exception as trouble:
            complain("a route span could not be closed", trouble)

    def open_group(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue],
        parent: object = None,
        *,
        run: UUID | None = None,
        started_ns: int | None = None,
    ) -> RouteSpan | None:
        """Start a span that only holds others together: a graph's run, or a node in it.

        Args:
            parent: the context it hangs in; the current one when not given.
            run: its LangChain run, of which another instrumentation may have a span, too; then it hangs under that.
            started_ns: when it began, if not now.
        """
        if not self.enabled:
            return None
        try:
            context = cast("Context", parent) if parent is not None else parent_context(run)
            known = {key: value for key, value in attributes.items() if key != names.CONVERSATION or self.threads}
            told = _storable({names.SPAN_KIND: "CHAIN", names.SCHEMA: names.SCHEMA_VERSION, **known})
            span = self._tracer.start_span(storable(name), context, SpanKind.INTERNAL, told, beside(context), start_time=started_ns)
            return RouteSpan(span, trace.set_span_in_context(span, context))
        except Exception as trouble:
            complain("the span of a graph could not be opened", trouble)
            return None

    def close_group(self, group: RouteSpan, error: BaseException | None = None) -> None:
        """End the span of a graph's run or of a node."""
        try:
            if error is not None:
                group.span.set_attribute(names.ERROR_TYPE, type(error).__name__)
                if isinstance(error, Exception):
                    group.span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            group.span.end()
        except Exception as trouble:
            complain("the span of a graph could not be closed", trouble)

    def open_tool(
        self,
        name: str,
        *,
        call_id: str | None = None,
        arguments: object = None,
        attributes: Mapping[str, AttributeValue] = MappingProxyType({}),
        parent: object = None,
    ) -> RouteSpan | None:
        """Start the span of a tool's execution; None where somebody else makes one. What it was given is content."""
        if self.emit == "decision_only" or (self.emit == "auto" and tools_told()):
            return None
        told: dict[str, AttributeValue] = {
            names.SPAN_KIND: "TOOL",
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: name,
            names.LLM_TOOL: name,
            names.TOOL_TYPE: "function",
            **attributes,
        }
        if call_id:
            told[names.TOOL_CALL] = call_id
        tool = self.open_group(f"{names.EXECUTE_TOOL} {name}", told, parent)
        if tool is not None and arguments:
            self._reveal(tool.span, names.TOOL_ARGUMENTS, lambda hook: hook(json_text(arguments)))
        return tool

    def close_tool(self, tool: RouteSpan, result: object, error: BaseException | None = None) -> None:
        """End the span of a tool's execution, whose result is content."""
        self._reveal(tool.span, names.TOOL_RESULT, lambda hook: hook(answer) if (answer := text_of(result)) else None)
        try:
            if field_of(result, "status") == "error":  # the tool turned its error into an answer
                tool.span.set_attribute(names.ERROR_TYPE, TOOL_ERROR)
                tool.span.set_status(Status(StatusCode.ERROR, TOOL_ERROR))
        except Exception as trouble:
            complain("the result of a tool could not be written", trouble)
        self.close_group(tool, error)

    def open_attempt(
        self, route: RouteSpan | None, attempt: AttemptView, call: CallView, *, started_ns: int | None = None, parent: object = None
    ) -> LeafSpan | None:
        """Start the leaf span of one provider call, which may have begun earlier."""
        if not self.enabled:
            return None
        try:
            deployment = attempt.deployment
            emission = self._emission(deployment.provider, call.made_by, watched=attempt.watched)
            context = route.context if route is not None else cast("Context | None", parent)
            links = beside(context) if route is None else self._after(route, attempt, call) if route.last is not None else ()
            attributes = _known_by(deployment.model, deployment.provider, emission)
            if not attempt.watched and call.decision.classification.declared:
                attributes[names.DECLARED] = True
            if call.thread is not None and self.threads:
                attributes[names.CONVERSATION] = call.thread
            kind = SpanKind.CLIENT if emission.full else SpanKind.INTERNAL
            name = storable(f"{'chat' if emission.full else 'attempt'} {deployment.model}")
            span = self._tracer.start_span(name, context, kind, _storable(attributes), links, start_time=started_ns)
            if route is not None:
                route.last = span.get_span_context()
        except Exception as trouble:
            complain("a leaf span could not be opened", trouble)
            return None
        step = call.step
        if system := step.system:
            self._reveal(span, names.SYSTEM_INSTRUCTIONS, lambda hook: instructions_attribute(system, hook))
        self._reveal(span, names.INPUT_MESSAGES, lambda hook: messages_attribute(step.messages, hook))
        self._reveal(span, names.TOOL_DEFINITIONS, lambda hook: tools_attribute(step.tools, hook))
        return LeafSpan(span, emission, call.made_by)

    def close_attempt(
        self,
        span: object,
        entry: Entry,
        error: BaseException | None,
        *,
        followed: bool = False,
        repairs: Sequence[str] = (),
        reply: object = None,
    ) -> None:
        """End the leaf span of one provider call, with its tokens and its cost, and count it."""
        if not self.enabled:
            return
        leaf = span if isinstance(span, LeafSpan) else None
        try:
            emission = leaf.emission if leaf is not None else FULL
            plain = isinstance(reply, Mapping)
            if leaf is not None and leaf.made_by == "caller" and emission.counted_by == SDK.key and plain:
                emission = FULL  # the SDK gives objects, so it did not make this call
                leaf.span.update_name(storable(f"chat {entry.model}"))
            if leaf is not None and leaf.span.is_recording():
                self._write(leaf.span, emission, entry, repairs, reply)
            self._count(entry, trace.set_span_in_context(leaf.span) if leaf is not None else None, emission, followed=followed)
        except Exception as trouble:
            complain("a leaf span could not be written", trouble)
        finally:
            if leaf is not None:
                _end(leaf.span, entry.ended_ns)

    def note(self, route: RouteSpan | None, event: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Add an event to a step's route span: what a budget has to say."""
        if route is not None:
            try:
                route.span.add_event(event, attributes)
            except Exception as trouble:
                complain("an event could not be added to a route span", trouble)

    def rests(self, route: RouteSpan | None, deployment: str, why: str) -> None:
        """Tell on a step's route span that a deployment is left alone from now on."""
        self.note(route, names.BREAKER, {names.DEPLOYMENT: deployment, names.WHY: why})

    def judged(self, model: str, outcome: str, reason: str = "") -> None:
        """Count a question to a judge: `accepted`, `failed`, `abandoned`, or `remembered` where the answer was known."""
        if not self.enabled:
            return
        try:
            self._counters["routed_agents.judgements"].add(
                1, {"model": model, "outcome": outcome, **({"reason": reason} if reason else {})}
            )
        except Exception as trouble:
            complain("a question to a judge could not be counted", trouble)

    def unmade(self, span: object, route: RouteSpan | None = None) -> None:
        """End the span of an attempt that led to no call: there is nothing to count or to link to, neither here nor in a backend."""
        if route is not None:
            route.last = None
        if isinstance(span, LeafSpan):
            try:
                span.span.update_name("attempt, no call made")
                span.span.set_attributes({names.OPERATION: "route", names.SPAN_KIND: "CHAIN"})
            except Exception as trouble:
                complain("a leaf span could not be written", trouble)
            _end(span.span)

    def end(self, span: object) -> None:
        """End a span nothing more is known about."""
        if isinstance(span, LeafSpan):
            _end(span.span)

    def dropped(self, records: int) -> None:
        """Count records that could not be kept."""
        try:
            self._counters["routed_agents.dropped"].add(records)
        except Exception as trouble:
            complain(f"{records} records were dropped, and that could not even be counted", trouble)

    def _emission(self, provider: str | None, made_by: MadeBy, *, watched: bool) -> Emission:
        if self.emit == "auto":
            return emission_for(provider, made_by=made_by, watched=watched, own=self._own)
        return Emission(counted_by="others") if self.emit == "decision_only" else FULL

    def _after(self, route: RouteSpan, attempt: AttemptView, call: CallView) -> tuple[Link, ...]:
        """Tell the route span that another attempt follows, and link it to the one before."""
        before = call.entries[-1] if call.entries else None
        why = _why(before) if before is not None else ""
        tiers = {names.FROM_TIER: before.tier if before is not None else "", names.TO_TIER: attempt.row.name, names.WHY: why}
        higher = before is not None and attempt.row.rank > before.rank
        route.span.add_event(names.ESCALATION if higher else names.FAILOVER, tiers)
        return (Link(cast("SpanContext", route.last), {names.WHY: why}),)

    def _reveal(self, span: Span, name: str, words: Callable[[Redaction], str | None]) -> None:
        """Put content on a span as far as the hook lets it; where it cannot be read, the span stays without."""
        if self.capture is None or not span.is_recording():
            return
        try:
            if said := words(self.capture):
                span.set_attribute(name, storable(said))
        except Exception as trouble:
            complain("content could not be put on a span", trouble)

    def _write(self, span: Span, emission: Emission, entry: Entry, repairs: Sequence[str], reply: object) -> None:
        if repairs:
            span.set_attribute(names.REPAIRS, list(repairs))
        if reply is not None:
            self._reveal(span, names.OUTPUT_MESSAGES, lambda hook: reply_attribute(reply, hook))
        if (reply_id := _id_of(reply)) is not None:
            span.set_attribute(names.RESPONSE_ID, storable(reply_id))
        attributes = self._leaf_attributes(entry, emission)
        if not emission.full:
            attributes = _uncounted(attributes, entry, emission)
        span.set_attributes(_storable(attributes))
        if entry.outcome == "rejected":
            span.add_event(names.REJECTION, {names.WHY: _why(entry)})
        if entry.outcome == "failed":
            span.set_status(Status(StatusCode.ERROR, entry.error or ""))

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
        if decision.classification.declared:
            attributes[names.DECLARED] = True
        if decision.features.downstream is not None:
            attributes[names.DOWNSTREAM] = decision.features.downstream
        if decision.features.in_loop:
            attributes[names.IN_LOOP] = True
        if decision.pin:
            attributes[names.PIN] = decision.pin
        if decision.stopped:
            attributes[names.STOPPED] = decision.stopped
        if decision.settlement.degraded:
            attributes[names.DEGRADED] = True
        if self.evidence:
            seen = [each for each in (*decision.classification.evidence, *(v.evidence for v in decision.verdicts)) if each]
            attributes[names.EVIDENCE] = redacted(seen, self.capture)
        self._context_attributes(attributes, call)
        return _storable(attributes)

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

    def _leaf_attributes(self, entry: Entry, emission: Emission) -> dict[str, AttributeValue]:
        """What a leaf says of its call: what may be missed least comes last, for the SDK drops the oldest when there are too many."""
        usage = entry.usage
        attributes: dict[str, AttributeValue] = {
            names.SCHEMA: names.SCHEMA_VERSION,
            names.STEP: entry.step_id,
            names.POLICY: entry.policy_hash,
            names.MODE: entry.mode,
            names.PINNED: entry.pinned,
            names.DECIDED_TIER: entry.decided_tier,
            names.RANK: entry.rank,
            names.USAGE_SOURCE: usage.source,
            names.SIMULATED: entry.simulated,
            names.TASK_CLASS: entry.task_class,
            names.ATTEMPT: entry.attempt,
            names.TIER: entry.tier,
            names.OUTCOME: entry.outcome,
        }
        if entry.kind != "attempt":
            attributes[names.CALL_KIND] = entry.kind
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
        for key in self.labels:
            if key in entry.labels:
                attributes[names.LABEL + key] = entry.labels[key]
        if entry.baseline_pico is not None:
            attributes[names.BASELINE_COST] = _usd(entry.baseline_pico)
            attributes[names.BASELINE_PICO] = entry.baseline_pico
            attributes[names.BASELINE_MODEL] = entry.baseline_model or ""
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
        attributes[names.LLM_MODEL] = entry.served_model or entry.model
        attributes |= _known_by(entry.model, entry.provider, emission)
        if entry.cost is not None:
            total = _usd(entry.cost.total_pico)
            attributes |= {
                names.COST_CURRENCY: "USD",
                names.COST_SOURCE: "simulated" if entry.simulated else "local",
                names.PRICE_TABLE: entry.price_source or "",
                names.COST_PICO: entry.cost.total_pico,
                names.LLM_COST_PROMPT: _usd(entry.cost.prompt_pico),
                names.LLM_COST_COMPLETION: _usd(entry.cost.completion_pico),
                names.LLM_COST_TOTAL: total,
                names.USAGE_COST: total,
            }
        return attributes

    def _count(self, entry: Entry, context: Context | None, emission: Emission, *, followed: bool) -> None:
        shared: dict[str, Any] = {"tier": entry.tier, "model": entry.model, "task_class": entry.task_class, "simulated": entry.simulated}
        for key, name in self._dimensions:
            if key in entry.labels:
                shared[name] = storable(entry.labels[key])
        counters = self._counters
        usage = entry.usage
        if entry.cost is not None:
            counters["routed_agents.cost"].add(_usd(entry.cost.total_pico), shared, context)
            if entry.baseline_pico:
                counters["routed_agents.baseline"].add(_usd(entry.baseline_pico), shared, context)
        else:
            unknown = "usage" if usage.source == "missing" else "price"
            counters["routed_agents.unpriced"].add(1, {**shared, "reason": unknown}, context)
        if usage.prompt:
            counters["routed_agents.tokens"].add(usage.prompt, {**shared, "kind": "prompt"}, context)
        if usage.output:
            counters["routed_agents.tokens"].add(usage.output, {**shared, "kind": "completion"}, context)
        if followed:
            counters["routed_agents.escalations"].add(1, {**shared, "reason": _why(entry)}, context)
        if entry.outcome == "rejected":
            counters["routed_agents.rejections"].add(1, {**shared, "reason": _why(entry)}, context)
        if entry.tier == "unrouted":
            counters["routed_agents.bypassing"].add(1, shared, context)
        if entry.below_floor:
            counters["routed_agents.alarms"].add(1, shared, context)
        seconds = (entry.ended_ns - entry.started_ns) / 1e9
        self._histograms["routed_agents.duration"].record(seconds, shared, context)
        if entry.first_chunk_ns is not None:
            self._histograms["routed_agents.time_to_first_chunk"].record((entry.first_chunk_ns - entry.started_ns) / 1e9, shared, context)
        if emission.full:  # who makes the counted span also keeps the standard metrics
            self._measure(entry, seconds, context)

    def _measure(self, entry: Entry, seconds: float, context: Context | None) -> None:
        """The two metrics the GenAI conventions name."""
        shared: dict[str, AttributeValue] = {
            names.OPERATION: "chat",
            names.PROVIDER: entry.provider or "unknown",
            names.REQUEST_MODEL: entry.model,
            names.RESPONSE_MODEL: entry.served_model or entry.model,
        }
        failed = {names.ERROR_TYPE: entry.error} if entry.error else {}
        self._histograms["gen_ai.client.operation.duration"].record(seconds, {**shared, **failed}, context)
        for kind, tokens in (("input", entry.usage.prompt), ("output", entry.usage.output)):
            if tokens:
                self._histograms["gen_ai.client.token.usage"].record(tokens, {**shared, names.TOKEN_TYPE: kind}, context)


def _end(span: Span, ended_ns: int | None = None) -> None:
    """End a span, whatever those who are told of its end make of it."""
    try:
        span.end(end_time=ended_ns)
    except Exception as trouble:
        complain("a leaf span could not be ended", trouble)


def _storable(attributes: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Attributes whose texts an exporter can encode: one it cannot takes the other spans of its batch with it."""
    for name, value in attributes.items():
        if isinstance(value, str):
            if not value.isascii():
                attributes[name] = storable(value)
        elif isinstance(value, list):
            attributes[name] = [storable(each) for each in cast("list[str]", value)]
    return attributes


def _usd(pico: int) -> float:
    """Dollars for the standard names: the nearest float there is, as dividing whole numbers gives it."""
    return pico / 10**12


def _listed(text: str) -> tuple[str, ...]:
    return tuple([part for each in text.split(",") if (part := each.strip())])


def _keys(labels: object) -> tuple[str, ...]:
    keys = tuple(cast("Sequence[object]", labels)) if isinstance(labels, Iterable) and not isinstance(labels, str) else (None,)
    if not all(isinstance(key, str) for key in keys):
        raise ConfigurationError(f'labels is {labels!r}; wanted a list of label keys, like ["tenant"]')
    return cast("tuple[str, ...]", keys)


def _id_of(reply: object) -> str | None:
    """The provider's id of a reply; LangChain keeps it in the metadata where its own id is that of the run."""
    metadata = field_of(reply, "response_metadata")
    found = cast("Mapping[str, object]", metadata).get("id") if isinstance(metadata, Mapping) else field_of(reply, "id")
    return found if isinstance(found, str) else None


def _careful(redact: Redaction) -> Redaction:
    """A hook that lets nothing through when it breaks, or gives something else than text."""

    def told(text: str) -> str | None:
        try:
            said = redact(text)
        except Exception as trouble:
            complain("the redaction hook failed, so a text was left out", trouble)
            return None
        if said is None or isinstance(cast("object", said), str):
            return said
        log.error("the redaction hook gave %s where text or None is wanted, so a text was left out", type(said).__name__)
        return None

    return told


def _why(entry: Entry) -> str:
    """Why an attempt was not good enough, as a code."""
    return storable(entry.error or next((code for code in reversed(entry.codes) if code.startswith("check:")), entry.outcome))


def _known_by(model: str, provider: str | None, emission: Emission) -> dict[str, AttributeValue]:
    """What tells a leaf from other spans, and names its model."""
    if not emission.full:
        return {names.OPERATION: "route", names.SPAN_KIND: "CHAIN", names.MODEL: model}
    known: dict[str, AttributeValue] = {names.OPERATION: "chat", names.REQUEST_MODEL: model, names.SPAN_KIND: "LLM"}
    return {**known, names.PROVIDER: provider} if provider else known


def _uncounted(attributes: Mapping[str, AttributeValue], entry: Entry, emission: Emission) -> dict[str, AttributeValue]:
    """A leaf beside somebody else's span for the same call: nothing on it that a backend would count or price."""
    kept = {name: value for name, value in attributes.items() if name not in names.COUNTED and name != names.RESPONSE_MODEL}
    kept |= {names.EMIT: "decision_only", names.COUNTED_BY: emission.counted_by, names.MODEL: entry.served_model or entry.model}
    if entry.usage.source != "missing":
        kept |= {names.TOKENS_INPUT: entry.usage.prompt, names.TOKENS_OUTPUT: entry.usage.output}
    return kept


def parent_context(run: UUID | None = None) -> Context:
    """Where a span of ours hangs: under the current span, or under that of a LangChain run whose span is not made current."""
    current = otel_context.get_current()
    span = langchain_parent(run)
    if span is None:
        return current
    began, other = (getattr(each, "start_time", None) or 0 for each in (trace.get_current_span(current), span))
    return current if began > other else trace.set_span_in_context(span, current)
