"""Dialects add the attributes a backend reads our cost from, on a copy of each span on its way to that backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.util.types import AttributeValue

from routed_agents.errors import ConfigurationError
from routed_agents.telemetry import names

Added = dict[str, AttributeValue]
Evidence = Literal["run", "source", "docs", "untested", "none"]


@dataclass(frozen=True, slots=True)
class Bill:
    """The money and tokens on a counted leaf span."""

    total: float
    prompt: float
    completion: float
    input: int
    output: int
    cache_read: int
    cache_write: int
    simulated: bool

    @classmethod
    def on(cls, attributes: Mapping[str, Any]) -> Bill | None:
        """What a span of ours says it cost; None for one that is not counted or has no price."""
        if names.USAGE_COST not in attributes:
            return None
        return cls(
            total=attributes[names.USAGE_COST],
            prompt=attributes.get(names.LLM_COST_PROMPT, 0.0),
            completion=attributes.get(names.LLM_COST_COMPLETION, 0.0),
            input=attributes.get(names.INPUT_TOKENS, 0),
            output=attributes.get(names.OUTPUT_TOKENS, 0),
            cache_read=attributes.get(names.CACHE_READ_TOKENS, 0),
            cache_write=attributes.get(names.CACHE_WRITE_TOKENS, 0),
            simulated=attributes.get(names.SIMULATED) is True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one backend reads beyond the core set.

    Attributes:
        adds: the attributes for a leaf that is priced and counted.
        says: what they are.
        spans, metrics: how far the backend's own reading of each is known: `run` here, from its `source`, from its `docs`, `untested`,
            or that it reads `none`.
    """

    name: str
    backend: str
    adds: Callable[[Bill], Added]
    says: str
    spans: Evidence
    metrics: Evidence
    remark: str


def _mlflow(bill: Bill) -> Added:
    return {"mlflow.llm.cost": _json(input_cost=bill.prompt, output_cost=bill.completion, total_cost=bill.total)}


def _langfuse(bill: Bill) -> Added:
    return {"langfuse.observation.cost_details": _json(input=bill.prompt, output=bill.completion, total=bill.total)}


def _sentry(bill: Bill) -> Added:
    return {
        "gen_ai.cost.input_tokens": bill.prompt,
        "gen_ai.cost.output_tokens": bill.completion,
        "gen_ai.cost.total_tokens": bill.total,
    }


def _logfire(bill: Bill) -> Added:
    return {"operation.cost": bill.total}


def _langsmith(bill: Bill) -> Added:
    usage: dict[str, Any] = {"input_tokens": bill.input, "output_tokens": bill.output, "total_tokens": bill.input + bill.output}
    if details := {name: count for name, count in (("cache_read", bill.cache_read), ("cache_creation", bill.cache_write)) if count}:
        usage["input_token_details"] = details
    usage |= {"input_cost": bill.prompt, "output_cost": bill.completion, "total_cost": bill.total}
    return {"langsmith.span.kind": "llm", "langsmith.usage_metadata": _json(**usage)}


def _datadog(bill: Bill) -> Added:
    del bill
    return {}


def _litellm(bill: Bill) -> Added:
    return {"litellm.cost.input": bill.prompt, "litellm.cost.output": bill.completion, "litellm.cost.total": bill.total}


def _proposal(bill: Bill) -> Added:
    return {"gen_ai.usage.cost.amount": bill.total, "gen_ai.usage.cost.currency": "USD", "gen_ai.usage.cost.source": "local"}


DIALECTS: Final = {
    each.name: each
    for each in (
        Dialect(
            name="mlflow",
            backend="MLflow 3.18",
            adds=_mlflow,
            says="`mlflow.llm.cost`",
            spans="run",
            metrics="none",
            remark="without it MLflow prices the tokens itself, by the response's model",
        ),
        Dialect(
            name="langfuse",
            backend="Langfuse 5",
            adds=_langfuse,
            says="`langfuse.observation.cost_details`",
            spans="docs",
            metrics="none",
            remark="its first choice, before `gen_ai.usage.cost` and `llm.cost.total`, which the core set holds",
        ),
        Dialect(
            name="sentry",
            backend="Sentry",
            adds=_sentry,
            says="`gen_ai.cost.{input,output,total}_tokens`",
            spans="docs",
            metrics="none",
            remark="the names say tokens and the values are USD",
        ),
        Dialect(
            name="logfire",
            backend="Pydantic Logfire",
            adds=_logfire,
            says="`operation.cost`",
            spans="source",
            metrics="untested",
            remark="its metric of the same name is not written; use `routed_agents.cost`",
        ),
        Dialect(
            name="langsmith",
            backend="LangSmith",
            adds=_langsmith,
            says="`langsmith.usage_metadata`, `langsmith.span.kind`",
            spans="untested",
            metrics="none",
            remark="`total_cost` in the usage is known from other people's code only",
        ),
        Dialect(
            name="datadog",
            backend="Datadog",
            adds=_datadog,
            says="nothing",
            spans="none",
            metrics="untested",
            remark="it takes the core set's `gen_ai.*` over OTLP and estimates cost itself; no attribute was found that it reads cost from",
        ),
        Dialect(
            name="litellm",
            backend="readers of LiteLLM's spans",
            adds=_litellm,
            says="`litellm.cost.{input,output,total}`",
            spans="source",
            metrics="none",
            remark="as LiteLLM's second version of its spans writes them",
        ),
        Dialect(
            name="semconv-proposal",
            backend="the conventions' open proposal, PR #443",
            adds=_proposal,
            says="`gen_ai.usage.cost.{amount,currency,source}`",
            spans="docs",
            metrics="untested",
            remark="never together with Langfuse, which counts unknown `gen_ai.usage.*` numbers as usage",
        ),
    )
}


class DialectExporter(SpanExporter):
    """Sends spans on with the attributes of some dialects added to copies of ours; whoever else sees the spans sees them as they were.

        provider.add_span_processor(BatchSpanProcessor(DialectExporter(OTLPSpanExporter(), "langfuse")))

    Args:
        exporter: where the spans go.
        dialects: names of dialects.

    Raises:
        ConfigurationError: a dialect is unknown, or two of them do harm together.
    """

    def __init__(self, exporter: SpanExporter, *dialects: str) -> None:
        self._exporter = exporter
        self._dialects = chosen(dialects)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([told(span, self._dialects) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def chosen(wanted: Iterable[str]) -> tuple[Dialect, ...]:
    """Dialects by name.

    Raises:
        ConfigurationError: one is unknown, or two of them do harm together.
    """
    asked = [wanted] if isinstance(wanted, str) else list(dict.fromkeys(wanted))
    if unknown := [name for name in asked if name not in DIALECTS]:
        raise ConfigurationError(f"unknown dialect {', '.join(unknown)}; known dialects: {', '.join(DIALECTS)}")
    if {"langfuse", "semconv-proposal"} <= set(asked):
        raise ConfigurationError(
            "dialects langfuse and semconv-proposal do harm together: Langfuse counts gen_ai.usage.cost.amount as tokens; "
            "give each its own endpoint"
        )
    return tuple([DIALECTS[name] for name in asked])


def told(span: ReadableSpan, dialects: Iterable[Dialect]) -> ReadableSpan:
    """The span, or a copy of it that speaks these dialects too; attributes it has already stay."""
    scope = span.instrumentation_scope
    bill = Bill.on(span.attributes or {}) if scope is not None and scope.name == names.SCOPE else None
    if bill is None:
        return span
    added: Added = {}
    for dialect in dialects:
        added |= dialect.adds(bill)
    own = cast("Mapping[str, AttributeValue]", span.attributes)
    new = {name: value for name, value in added.items() if name not in own}
    return _copy(span, {**own, **new}) if new else span


def _copy(span: ReadableSpan, attributes: Mapping[str, AttributeValue]) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _json(**values: object) -> str:
    return json.dumps(values)
