"""Each dialect adds what its backend reads cost from, to copies, and to counted leaves only; the golden files show whole spans."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents.errors import ConfigurationError
from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry, names
from routed_agents.telemetry.dialects import DIALECTS, DialectExporter
from routed_agents.telemetry.page import page

GOLDEN = Path(__file__).parent / "golden"
PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
VARIES = {names.DECISION_US, names.POLICY, names.CONFIDENCE, names.P_STRONG, names.PRICE_TABLE, names.TOKENS_BOUND, names.FIRST_CHUNK_S}
USAGE = {"input_tokens": 300, "output_tokens": 50, "cache_read_input_tokens": 400, "cache_creation_input_tokens": 200}


def exported(*dialects: str, model: str | None = None, emit: Any = "full") -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """What a backend behind the dialects gets of one escalated step, and what everybody else sees."""
    backend, others = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(DialectExporter(backend, *dialects)))
    provider.add_span_processor(SimpleSpanProcessor(others))
    telemetry = Telemetry(tracer_provider=provider, emit=emit, labels=("thread", "tenant"))
    router = Router(Policy.default(tiers="claude-2026-11"), ledger=Ledger.memory(), telemetry=telemetry)
    endings = iter(("max_tokens", "end_turn"))
    step = Step.from_messages("a secret", task_class="multi_turn", node="reply", run="r1", id="s1")
    with router.step(step, thread="t1", labels={"tenant": "acme", "person": "p7"}) as call:
        for attempt in call.attempts():
            with attempt:
                reply = {"role": "assistant", "content": [{"type": "text", "text": "yes"}], "stop_reason": next(endings), "usage": USAGE}
                attempt.record({"model": model or attempt.model, **reply})
    return list(backend.get_finished_spans()), list(others.get_finished_spans())


def plain(span: ReadableSpan) -> dict[str, Any]:
    """A span as it is kept in a golden file: without ids, times and what changes with policy and price table."""
    attributes = {name: "…" if name in VARIES else value for name, value in sorted((span.attributes or {}).items())}
    return {
        "name": span.name,
        "kind": span.kind.name,
        "status": span.status.status_code.name,
        "attributes": attributes,
        "events": [{"name": event.name, "attributes": dict(event.attributes or {})} for event in span.events],
        "links": [dict(link.attributes or {}) for link in span.links],
    }


@pytest.mark.parametrize("name", ["core", "decision_only", *DIALECTS])
def test_what_a_dialect_exports_is_what_was_reviewed(name: str) -> None:
    chosen = () if name in ("core", "decision_only") else (name,)
    seen = [plain(span) for span in exported(*chosen, emit="decision_only" if name == "decision_only" else "full")[0]]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(json.dumps(seen)) == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_changes_nothing_others_see(name: str) -> None:
    _, others = exported(name)
    assert [plain(span) for span in others] == [plain(span) for span in exported()[1]]


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_adds_nothing_where_no_cost_is_counted(name: str) -> None:
    for options in ({"model": "nobody-knows-1"}, {"emit": "decision_only"}):
        ours, others = exported(name, **options)
        assert [dict(span.attributes or {}) for span in ours] == [dict(span.attributes or {}) for span in others]


def test_a_dialect_says_the_money_of_the_core_set() -> None:
    spans, _ = exported("mlflow", "langfuse", "sentry", "logfire", "langsmith", "litellm")
    for leaf in [dict(span.attributes or {}) for span in spans if span.name.startswith("chat ")]:
        total = leaf["gen_ai.usage.cost"]
        assert json.loads(leaf["mlflow.llm.cost"])["total_cost"] == total
        assert json.loads(leaf["langfuse.observation.cost_details"])["total"] == total
        assert json.loads(leaf["langsmith.usage_metadata"])["total_cost"] == total
        assert (leaf["gen_ai.cost.total_tokens"], leaf["operation.cost"], leaf["litellm.cost.total"]) == (total, total, total)


def test_somebody_elses_span_is_sent_on_as_it_is() -> None:
    backend, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(DialectExporter(backend, "mlflow")))
    provider.get_tracer("theirs").start_span("chat", attributes={"gen_ai.usage.cost": 1.0}).end()
    assert dict(backend.get_finished_spans()[0].attributes or {}) == {"gen_ai.usage.cost": 1.0}


@pytest.mark.parametrize(
    ("wanted", "told"), [(("nobody",), "known dialects: mlflow"), (("langfuse", "semconv-proposal"), "do harm together")]
)
def test_a_wrong_dialect_is_named(wanted: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        DialectExporter(InMemorySpanExporter(), *wanted)


def test_the_documentation_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m routed_agents.telemetry.page docs/telemetry.md"


def test_every_attribute_we_write_is_in_the_table() -> None:
    for emit in ("full", "decision_only"):
        written = {name for span in exported(emit=emit)[1] for name in span.attributes or {}}
        assert {name for name in written if not name.startswith(names.LABEL)} <= set(names.ATTRIBUTES)


def test_what_is_counted_stands_on_no_span_of_a_decision_only_step() -> None:
    written = {name for span in exported(emit="decision_only")[1] for name in span.attributes or {}}
    assert written & names.COUNTED == set()
