"""What judges cost and said, in trees, tables, calls and `why`: counted once, and never taken for an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents import Ledger, Policy, Router, Step, Telemetry, cost_of
from routed_agents.classify import Classification
from routed_agents.cli import main
from routed_agents.features import Features
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.judged_replies import Judge
from routed_agents.offline.calls import Calls
from routed_agents.offline.report import by_guard, cost_table, kept_strong
from routed_agents.questions import Question
from routed_agents.telemetry import names
from routed_agents.telemetry.runs import run_of
from routed_agents.telemetry.setup import record_of
from routed_agents.telemetry.trees import CostTree, cost_tree, plain
from routed_agents.tiers import Deployment

HAIKU, SONNET = "anthropic:claude-haiku-5-5", "anthropic:claude-sonnet-5-5"


class Doubtful:
    """A local classifier that is never sure."""

    name, version = "doubtful", "1"

    def classify(self, features: Features, /) -> Classification:
        return Classification(task_class="knowledge_qa", confidence=0.9, p_strong=0.9)


class Court:
    """Says of every step that it is a summary, and of every reply that it is wrong."""

    def ask(self, question: Question, deployment: Deployment, /, *, timeout_s: float) -> object:
        said: Mapping[str, Any] = {"verdict": "wrong"}
        if question.name == "sort_call":
            said = {"task_class": "summarization", "p_strong": 5, "confidence": 90}
        return reply(deployment.model, [{"type": "tool_use", "id": "1", "name": question.name, "input": said}], 900)


def reply(model: str, content: object, sent: int = 400) -> dict[str, Any]:
    usage = {"input_tokens": sent, "output_tokens": 12, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {"id": "msg_1", "model": model, "content": content, "stop_reason": "end_turn", "usage": usage}


class Desk:
    """Runs a judged step through a real router with a real SDK; its trace and its ledger are files."""

    def __init__(self, folder: Path) -> None:
        self.costs, self.trace = folder / "costs.db", folder / "trace.jsonl"
        self.spans = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        for exporter in (self.spans, FileSpanExporter(self.trace)):
            provider.add_span_processor(SimpleSpanProcessor(exporter))
        policy = Policy.default()
        policy = policy.replace(
            classifier=JudgedClassifier(HAIKU, inner=Doubtful()),
            checks=[*policy.checks, Judge(model=SONNET, task_classes=("summarization",))],
        )
        with Ledger(self.costs) as ledger:
            router = Router(policy, ledger=ledger, telemetry=Telemetry(tracer_provider=provider), asker=Court())
            with router.step(Step.from_messages("Go on", id="s1", node="digest"), thread="t") as call:
                for attempt in call.attempts():
                    with attempt:
                        attempt.record(reply(attempt.model, f"try {attempt.number}"))
            self.stamp = call.stamp()
            ledger.flush()
            self.total = ledger.total()
        provider.shutdown()

    def tree(self) -> CostTree:
        found = cost_tree(run_of([record_of(span) for span in self.spans.get_finished_spans()]))
        assert found is not None
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_step_was_judged_before_and_after(desk: Desk) -> None:
    with Ledger.sqlite(desk.costs) as ledger:
        told = [(entry.tier, entry.kind, entry.attempt, entry.codes) for entry in ledger.entries()]

    assert told == [
        ("judge", "judge", 0, ("judge:summarization",)),
        ("judge", "judge", 1, ("judge:wrong",)),
        ("cheap", "attempt", 1, ("check:judged_wrong",)),
        ("strong", "attempt", 2, ("escalated",)),
    ]


def test_the_tree_shows_judges_beside_the_attempts_and_adds_their_cost(desk: Desk) -> None:
    tree = desk.tree()
    (step,) = tree.rows

    assert [(row.name, row.tier, row.mark, row.why) for row in step.below] == [
        ("judge", "judge", "", "summarization"),
        ("try 1", "cheap", "rejected", "judged wrong"),
        ("judge", "judge", "", "wrong"),
        ("try 2", "strong", "", ""),
    ]
    assert (tree.cost_pico, tree.saving_pico, step.tier) == (desk.total.cost_pico, desk.total.saving_pico, "strong")
    assert "judge" in plain(tree)


def test_stamp_ledger_and_bill_agree(desk: Desk) -> None:
    with Ledger.sqlite(desk.costs) as ledger:
        bill = cost_of(ledger=ledger, thread="t")

    assert (desk.stamp["cost_pico"], bill.cost_pico, bill.steps, dict(bill.tiers)) == (
        desk.total.cost_pico,
        desk.total.cost_pico,
        1,
        {"strong": 1},
    )


def test_tables_keep_what_judges_said_out_of_the_reasons(desk: Desk) -> None:
    with Ledger.sqlite(desk.costs) as ledger:
        reasons = [row["reason"] for row in by_guard(ledger).to_json()["rows"]]
        strong = kept_strong(ledger).to_json()["rows"]
        tiers = {row["tier"]: row["attempts"] for row in cost_table(ledger).to_json()["rows"]}

    assert (sorted(reasons), [row["steps"] for row in strong]) == (["check: judged wrong", "escalated"], [1])
    assert tiers == {"cheap": 1, "judge": 0, "strong": 1}


@pytest.mark.parametrize("first", ["ledger", "trace"])
def test_calls_from_ledger_and_trace_are_counted_once(first: str, desk: Desk) -> None:
    with Calls() as calls:
        if first == "ledger":
            calls.add_ledger(desk.costs)
        calls.add_trace(desk.trace)
        found = calls.totals()

    assert (found["entries"], found["attempts"], found["steps"], found["cost"]) == (4, 2, 1, desk.total.cost_pico)


def test_why_tells_judges_from_attempts(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for source in ("--ledger", "--trace"):
        path = desk.costs if source == "--ledger" else desk.trace
        main(["why", "s1", source, str(path)])
        told = capsys.readouterr().out
        assert ("judge 0" in told, "judge 1" in told, "attempt 1" in told, "attempt 2" in told) == (True,) * 4, told


def test_each_call_is_one_counted_leaf(desk: Desk) -> None:
    leaves = [span for span in desk.spans.get_finished_spans() if names.COST_PICO in span.attributes]

    assert [span.attributes.get(names.CALL_KIND, "attempt") for span in leaves] == ["judge", "judge", "attempt", "attempt"]
    assert sum(span.attributes[names.COST_PICO] for span in leaves) == desk.total.cost_pico
