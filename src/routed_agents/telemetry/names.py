"""Every span attribute and metric we write, by name, in one place."""

from __future__ import annotations

from typing import Final

SCOPE: Final = "routed_agents"
SCHEMA_VERSION: Final = "1"

# OpenTelemetry GenAI conventions (development), read 2026-11-23
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
CONVERSATION: Final = "gen_ai.conversation.id"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
USAGE_COST: Final = "gen_ai.usage.cost"
ERROR_TYPE: Final = "error.type"

# OpenInference, which Phoenix reads
SPAN_KIND: Final = "openinference.span.kind"
LLM_MODEL: Final = "llm.model_name"
LLM_PROVIDER: Final = "llm.provider"
LLM_PROMPT: Final = "llm.token_count.prompt"
LLM_COMPLETION: Final = "llm.token_count.completion"
LLM_TOTAL: Final = "llm.token_count.total"
LLM_CACHE_READ: Final = "llm.token_count.prompt_details.cache_read"
LLM_CACHE_WRITE: Final = "llm.token_count.prompt_details.cache_write"
LLM_COST_TOTAL: Final = "llm.cost.total"
LLM_COST_PROMPT: Final = "llm.cost.prompt"
LLM_COST_COMPLETION: Final = "llm.cost.completion"

# ours
SCHEMA: Final = "routed_agents.schema"
STEP: Final = "routed_agents.step.id"
NODE: Final = "routed_agents.node"
THREAD: Final = "routed_agents.thread"
RUN: Final = "routed_agents.run"
TASK_CLASS: Final = "routed_agents.decision.task_class"
CONFIDENCE: Final = "routed_agents.decision.confidence"
P_STRONG: Final = "routed_agents.decision.p_strong"
DECIDED_TIER: Final = "routed_agents.decision.tier"
REASON: Final = "routed_agents.decision.reason"
REASONS: Final = "routed_agents.decision.reasons"
RULE: Final = "routed_agents.decision.rule"
PINNED: Final = "routed_agents.decision.pinned"
PIN: Final = "routed_agents.decision.pin"
UNSURE: Final = "routed_agents.decision.unsure"
STOPPED: Final = "routed_agents.decision.stopped"
DEGRADED: Final = "routed_agents.decision.degraded"
DECISION_US: Final = "routed_agents.decision.duration_us"
EVIDENCE: Final = "routed_agents.decision.evidence"
POLICY: Final = "routed_agents.policy.hash"
MODE: Final = "routed_agents.mode"
TOKENS_BOUND: Final = "routed_agents.tokens.upper_bound"
TIER: Final = "routed_agents.tier"
RANK: Final = "routed_agents.rank"
ATTEMPT: Final = "routed_agents.attempt"
ATTEMPTS: Final = "routed_agents.attempts"
OUTCOME: Final = "routed_agents.outcome"
DEPLOYMENT: Final = "routed_agents.deployment"
SIMULATED: Final = "routed_agents.simulated"
USAGE_SOURCE: Final = "routed_agents.usage.source"
REPAIRS: Final = "routed_agents.repairs"
LABEL: Final = "routed_agents.label."
FIRST_CHUNK_S: Final = "routed_agents.first_chunk_s"
COST_PICO: Final = "routed_agents.cost.pico_usd"
COST_CURRENCY: Final = "routed_agents.cost.currency"
COST_SOURCE: Final = "routed_agents.cost.source"
PRICE_TABLE: Final = "routed_agents.cost.price_table_version"
BASELINE_COST: Final = "routed_agents.baseline.cost"
BASELINE_PICO: Final = "routed_agents.baseline.pico_usd"
BASELINE_MODEL: Final = "routed_agents.baseline.model"
ROLLUP_COST: Final = "routed_agents.rollup.cost"
ROLLUP_BASELINE: Final = "routed_agents.rollup.baseline"
ROLLUP_SAVING: Final = "routed_agents.rollup.saving"
GRAPH: Final = "routed_agents.graph"
DOWNSTREAM: Final = "routed_agents.downstream"
IN_LOOP: Final = "routed_agents.in_loop"
INPUT_ID: Final = "routed_agents.input.id"

# metrics: name -> (unit, what it counts)
COUNTERS: Final = {
    "routed_agents.cost": ("USD", "what model calls cost"),
    "routed_agents.baseline": ("USD", "what the same calls would have cost on the top tier, at list price"),
    "routed_agents.tokens": ("{token}", "tokens by kind"),
    "routed_agents.decisions": ("{decision}", "steps decided"),
    "routed_agents.escalations": ("{step}", "attempts followed by another one"),
    "routed_agents.unpriced": ("{call}", "calls without a known price"),
    "routed_agents.bypassing": ("{call}", "watched calls to a model no policy chose"),
    "routed_agents.alarms": ("{call}", "floored steps that a lower model answered"),
    "routed_agents.dropped": ("{record}", "records that could not be kept"),
}
HISTOGRAMS: Final = {
    "routed_agents.duration": ("s", "duration of model calls"),
    "routed_agents.time_to_first_chunk": ("s", "time to the first chunk of a stream"),
    "routed_agents.decision.duration": ("s", "time to decide a step"),
}
