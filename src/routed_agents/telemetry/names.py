"""Every span attribute, event and metric we write: declared once, with what it says and who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SCOPE: Final = "routed_agents"
SCHEMA_VERSION: Final = "1"

Kind = Literal["string", "strings", "int", "double", "boolean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One span attribute.

    Attributes:
        on: the spans it stands on: `run`, `node`, `tool`, `route`, `leaf`, `event`, `link`.
        counted: a backend may count it as tokens or money, so it stands on the one span that is counted for a model call.
        guarded: it may identify or quote somebody, so it is written only where the allow-list or the redaction hook lets it.
    """

    name: str
    on: tuple[str, ...]
    kind: Kind
    says: str
    counted: bool = False
    guarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One metric; buckets are a histogram's boundaries, in its unit."""

    name: str
    unit: str
    says: str
    buckets: tuple[float, ...] = ()


ATTRIBUTES: Final[dict[str, Attribute]] = {}
"""Every span attribute by name, in the order of the documentation."""


def _attribute(name: str, on: str, kind: Kind, says: str, *, counted: bool = False, guarded: bool = False) -> str:
    ATTRIBUTES[name] = Attribute(name=name, on=tuple(on.split()), kind=kind, says=says, counted=counted, guarded=guarded)
    return name


# OpenTelemetry GenAI conventions (development), read 2026-11-23
OPERATION: Final = _attribute(
    "gen_ai.operation.name", "tool leaf", "string", "`chat`; `route` on a leaf that only tells the decision; `execute_tool` on a tool"
)
PROVIDER: Final = _attribute("gen_ai.provider.name", "leaf", "string", "who serves the model")
REQUEST_MODEL: Final = _attribute("gen_ai.request.model", "route leaf", "string", "the real model asked for, never an alias")
RESPONSE_MODEL: Final = _attribute("gen_ai.response.model", "leaf", "string", "the model that says it answered")
RESPONSE_ID: Final = _attribute("gen_ai.response.id", "leaf", "string", "the provider's id of the reply")
CONVERSATION: Final = _attribute(
    "gen_ai.conversation.id", "run node tool route leaf", "string", "the thread; allowed as `thread`", guarded=True
)
SYSTEM_INSTRUCTIONS: Final = _attribute(
    "gen_ai.system_instructions",
    "leaf",
    "string",
    "JSON: the system prompt where it stands beside the messages; only through a redaction hook",
    guarded=True,
)
INPUT_MESSAGES: Final = _attribute("gen_ai.input.messages", "leaf", "string", "JSON; only through a redaction hook", guarded=True)
OUTPUT_MESSAGES: Final = _attribute("gen_ai.output.messages", "leaf", "string", "JSON; only through a redaction hook", guarded=True)
INPUT_TOKENS: Final = _attribute("gen_ai.usage.input_tokens", "leaf", "int", "prompt tokens, cached ones included", counted=True)
OUTPUT_TOKENS: Final = _attribute("gen_ai.usage.output_tokens", "leaf", "int", "tokens of the reply, reasoning included", counted=True)
CACHE_READ_TOKENS: Final = _attribute("gen_ai.usage.cache_read.input_tokens", "leaf", "int", "read from the cache", counted=True)
CACHE_WRITE_TOKENS: Final = _attribute(
    "gen_ai.usage.cache_creation.input_tokens", "leaf", "int", "prompt tokens written to the cache", counted=True
)
REASONING_TOKENS: Final = _attribute("gen_ai.usage.reasoning.output_tokens", "leaf", "int", "tokens the model thought with", counted=True)
TOOL_DEFINITIONS: Final = _attribute(
    "gen_ai.tool.definitions", "leaf", "string", "JSON: the names of the bound tools; only through a redaction hook", guarded=True
)
TOOL_NAME: Final = _attribute("gen_ai.tool.name", "tool", "string", "the tool")
TOOL_TYPE: Final = _attribute("gen_ai.tool.type", "tool", "string", "`function`: it runs in this process")
TOOL_CALL: Final = _attribute("gen_ai.tool.call.id", "tool", "string", "the id of the call it answers")
TOOL_ARGUMENTS: Final = _attribute("gen_ai.tool.call.arguments", "tool", "string", "JSON; only through a redaction hook", guarded=True)
TOOL_RESULT: Final = _attribute("gen_ai.tool.call.result", "tool", "string", "text; only through a redaction hook", guarded=True)
ERROR_TYPE: Final = _attribute("error.type", "run node tool route leaf", "string", "a code or an exception's name, never its text")

# OpenInference, which Phoenix reads
SPAN_KIND: Final = _attribute(
    "openinference.span.kind", "run node tool route leaf", "string", "`LLM` on a counted leaf, `TOOL` on a tool, else `CHAIN`"
)
LLM_TOOL: Final = _attribute("tool.name", "tool", "string", "as `gen_ai.tool.name`")
LLM_MODEL: Final = _attribute("llm.model_name", "leaf", "string", "the model the price is for", counted=True)
LLM_PROVIDER: Final = _attribute("llm.provider", "leaf", "string", "who serves it", counted=True)
LLM_PROMPT: Final = _attribute("llm.token_count.prompt", "leaf", "int", "as `gen_ai.usage.input_tokens`", counted=True)
LLM_COMPLETION: Final = _attribute("llm.token_count.completion", "leaf", "int", "as `gen_ai.usage.output_tokens`", counted=True)
LLM_TOTAL: Final = _attribute("llm.token_count.total", "leaf", "int", "their sum", counted=True)
LLM_CACHE_READ: Final = _attribute("llm.token_count.prompt_details.cache_read", "leaf", "int", "read from the cache", counted=True)
LLM_CACHE_WRITE: Final = _attribute("llm.token_count.prompt_details.cache_write", "leaf", "int", "written to the cache", counted=True)

# cost under its standard names: USD, from one computation, on the counted leaf only
LLM_COST_PROMPT: Final = _attribute("llm.cost.prompt", "leaf", "double", "USD of the prompt", counted=True)
LLM_COST_COMPLETION: Final = _attribute("llm.cost.completion", "leaf", "double", "USD of the reply", counted=True)
LLM_COST_TOTAL: Final = _attribute("llm.cost.total", "leaf", "double", "USD of the call", counted=True)
USAGE_COST: Final = _attribute("gen_ai.usage.cost", "leaf", "double", "USD of the call", counted=True)

# ours
SCHEMA: Final = _attribute("routed_agents.schema", "run node tool route leaf", "string", "version of these names")
STEP: Final = _attribute("routed_agents.step.id", "route leaf", "string", "the step")
NODE: Final = _attribute("routed_agents.node", "node tool route leaf", "string", "the graph's node")
THREAD: Final = "routed_agents.thread"
RUN: Final = _attribute("routed_agents.run", "run node tool route", "string", "the run's id, where the caller configured one")
EMIT: Final = _attribute("routed_agents.emit", "leaf", "string", "`decision_only` where another span is counted for this call")
COUNTED_BY: Final = _attribute("routed_agents.counted_by", "leaf", "string", "whose span that is")
TASK_CLASS: Final = _attribute("routed_agents.decision.task_class", "route leaf", "string", "the class of the task")
DECLARED: Final = _attribute("routed_agents.decision.declared", "route leaf", "boolean", "its author said so; absent where it was guessed")
CONFIDENCE: Final = _attribute("routed_agents.decision.confidence", "route", "double", "of the class")
P_STRONG: Final = _attribute("routed_agents.decision.p_strong", "route", "double", "how probably only the strong tier does it well")
DECIDED_TIER: Final = _attribute("routed_agents.decision.tier", "route leaf", "string", "the tier decided on, or `stop`")
REASON: Final = _attribute("routed_agents.decision.reason", "route leaf", "string", "code of the first reason")
REASONS: Final = _attribute("routed_agents.decision.reasons", "route leaf", "strings", "codes of all reasons")
RULE: Final = _attribute("routed_agents.decision.rule", "route", "string", "the guard that gave the first reason")
PINNED: Final = _attribute("routed_agents.decision.pinned", "route leaf", "boolean", "a rule said no cheaper than this")
PIN: Final = _attribute("routed_agents.decision.pin", "route", "string", "scope of the pin it leaves")
UNSURE: Final = _attribute("routed_agents.decision.unsure", "route", "boolean", "the classifier could not tell")
STOPPED: Final = _attribute("routed_agents.decision.stopped", "route", "string", "why the step must not be made")
DEGRADED: Final = _attribute("routed_agents.decision.degraded", "route", "boolean", "the tier wanted was not eligible")
DECISION_US: Final = _attribute("routed_agents.decision.duration_us", "route", "int", "microseconds to decide")
EVIDENCE: Final = _attribute("routed_agents.decision.evidence", "route", "strings", "what guards saw; content", guarded=True)
POLICY: Final = _attribute("routed_agents.policy.hash", "route leaf", "string", "the policy")
MODE: Final = _attribute("routed_agents.mode", "route leaf", "string", "`enforce`, `shadow`, `off`, or `watch` for a call nobody decided")
TOKENS_BOUND: Final = _attribute("routed_agents.tokens.upper_bound", "route", "int", "upper bound of the prompt's tokens")
TOKENS_INPUT: Final = _attribute("routed_agents.tokens.input", "leaf", "int", "prompt tokens, where the standard names may not stand")
TOKENS_OUTPUT: Final = _attribute("routed_agents.tokens.output", "leaf", "int", "tokens of the reply, likewise")
TIER: Final = _attribute("routed_agents.tier", "route leaf", "string", "the tier of the attempt; the last attempt's on the route")
RANK: Final = _attribute("routed_agents.rank", "leaf", "int", "its rank, 0 the cheapest")
MODEL: Final = _attribute("routed_agents.model", "leaf", "string", "the model, where the standard names may not stand")
ATTEMPT: Final = _attribute("routed_agents.attempt", "leaf", "int", "its number, from 1")
CALL_KIND: Final = _attribute("routed_agents.kind", "leaf", "string", "`judge` on a call that asked a judge; no other leaf has it")
ATTEMPTS: Final = _attribute("routed_agents.attempts", "route", "int", "attempts made")
OUTCOME: Final = _attribute(
    "routed_agents.outcome", "route leaf", "string", "`accepted`, `rejected`, `failed`, `abandoned` or `watched`; on a route the last one"
)
DEPLOYMENT: Final = _attribute("routed_agents.deployment", "leaf event", "string", "which of the tier's deployments")
SIMULATED: Final = _attribute("routed_agents.simulated", "leaf", "boolean", "answer and cost are not real")
USAGE_SOURCE: Final = _attribute("routed_agents.usage.source", "leaf", "string", "`reported`, `estimated` or `missing`")
REPAIRS: Final = _attribute("routed_agents.repairs", "leaf", "strings", "parameters changed to fit the model")
LABEL: Final = _attribute("routed_agents.label.", "route leaf", "string", "each label of the allow-list, after the point", guarded=True)
FIRST_CHUNK_S: Final = _attribute("routed_agents.first_chunk_s", "leaf", "double", "seconds to the first chunk of a stream")
COST_PICO: Final = _attribute("routed_agents.cost.pico_usd", "leaf", "int", "the cost exactly, in 10⁻¹² USD")
COST_CURRENCY: Final = _attribute("routed_agents.cost.currency", "leaf", "string", "`USD`")
COST_SOURCE: Final = _attribute("routed_agents.cost.source", "leaf", "string", "`local`, or `simulated`")
PRICE_TABLE: Final = _attribute("routed_agents.cost.price_table_version", "leaf", "string", "where the price is from")
BASELINE_COST: Final = _attribute(
    "routed_agents.baseline.cost", "leaf", "double", "USD of the same call on the top tier; absent after an alarm, and where no answer came"
)
BASELINE_PICO: Final = _attribute("routed_agents.baseline.pico_usd", "leaf", "int", "the same, exactly")
BASELINE_MODEL: Final = _attribute("routed_agents.baseline.model", "leaf", "string", "the top tier's model")
ROLLUP_COST: Final = _attribute("routed_agents.rollup.cost", "route", "double", "USD of all attempts; absent when one is unpriced")
ROLLUP_BASELINE: Final = _attribute("routed_agents.rollup.baseline", "route", "double", "USD of the step on the top tier")
ROLLUP_SAVING: Final = _attribute(
    "routed_agents.rollup.saving", "route", "double", "baseline less cost; absent when a call was cut off before an answer"
)
GRAPH: Final = _attribute("routed_agents.graph", "run", "string", "the graph's name")
DOWNSTREAM: Final = _attribute("routed_agents.downstream", "node route", "int", "model steps that hang on the answer, where known")
IN_LOOP: Final = _attribute("routed_agents.in_loop", "node route", "boolean", "the node is part of a loop, so no number can be given")
INPUT_ID: Final = _attribute("routed_agents.input.id", "run", "string", "the input's id")
FROM_TIER: Final = _attribute("routed_agents.from.tier", "event", "string", "the tier of the attempt before")
TO_TIER: Final = _attribute("routed_agents.to.tier", "event", "string", "the tier of the attempt that follows")
WHY: Final = _attribute("routed_agents.why", "event link", "string", "code of the check or trouble")

# span events
ESCALATION: Final = "routed_agents.escalation"
FAILOVER: Final = "routed_agents.failover"
REJECTION: Final = "routed_agents.rejection"
BREAKER: Final = "routed_agents.breaker"
BUDGET: Final = "routed_agents.budget_warning"
EVENTS: Final = {
    ESCALATION: "on the route span: another attempt follows, on a higher tier",
    FAILOVER: "on the route span: another attempt follows, on another deployment of the same rank",
    REJECTION: "on the leaf span: a check rejected the reply",
    BREAKER: "on the route span: a deployment failed so that it is left alone for a while",
    BUDGET: "on the route span: a budget runs out; for whoever calls `Telemetry.note`",
}

SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Boundaries the GenAI conventions advise for durations of model calls."""
TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""Boundaries they advise for tokens."""
DECIDING: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)

# metrics; what they count survives the sampling of traces
COUNTERS: Final = {
    each.name: each
    for each in (
        Instrument(name="routed_agents.cost", unit="USD", says="what model calls cost"),
        Instrument(
            name="routed_agents.baseline", unit="USD", says="what the same calls would have cost on the top tier, priced as the cost is"
        ),
        Instrument(name="routed_agents.tokens", unit="{token}", says="tokens by kind"),
        Instrument(name="routed_agents.decisions", unit="{decision}", says="steps decided"),
        Instrument(name="routed_agents.escalations", unit="{step}", says="attempts followed by another one"),
        Instrument(name="routed_agents.rejections", unit="{reply}", says="replies a check rejected"),
        Instrument(name="routed_agents.judgements", unit="{question}", says="judges asked, by what came of it: a failing one is `failed`"),
        Instrument(name="routed_agents.unpriced", unit="{call}", says="calls of unknown cost, by what is not known: `price` or `usage`"),
        Instrument(name="routed_agents.bypassing", unit="{call}", says="watched calls to a model no policy chose"),
        Instrument(name="routed_agents.alarms", unit="{call}", says="floored steps that a lower model answered"),
        Instrument(name="routed_agents.dropped", unit="{record}", says="records that could not be kept, and spans that could not be sent"),
    )
}
HISTOGRAMS: Final = {
    each.name: each
    for each in (
        Instrument(name="routed_agents.duration", unit="s", says="duration of model calls", buckets=SECONDS),
        Instrument(name="routed_agents.time_to_first_chunk", unit="s", says="time to the first chunk of a stream", buckets=SECONDS),
        Instrument(name="routed_agents.decision.duration", unit="s", says="time to decide a step", buckets=DECIDING),
        Instrument(
            name="gen_ai.client.operation.duration", unit="s", says="duration of model calls, by its standard name", buckets=SECONDS
        ),
        Instrument(name="gen_ai.client.token.usage", unit="{token}", says="tokens of a call, by its standard name", buckets=TOKENS),
    )
}
TOKEN_TYPE: Final = "gen_ai.token.type"
DIMENSIONS: Final = frozenset({"tier", "model", "task_class", "simulated", "kind", "reason"})
"""What the metrics of model calls are told apart by, beside labels; a label of such a name has there the name it has on spans."""

EXECUTE_TOOL: Final = "execute_tool"
"""The operation of a tool's span; every other operation is a leaf's."""

COUNTED: Final = frozenset(attribute.name for attribute in ATTRIBUTES.values() if attribute.counted)
"""What may stand on one span of a model call only."""
