"""Calls from ledgers and traces add up to the ledger, each counted once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.report import entries
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.offline.test_report import entry

from routed_agents import Ledger, Policy, Router, Step, Telemetry
from routed_agents.errors import ConfigurationError
from routed_agents.offline.calls import DIMENSIONS, OTHERS, Calls
from routed_agents.offline.page import page
from routed_agents.pricing import Cost, Usage


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "costs.db"
    with Ledger(path) as ledger:
        for each in entries(600):
            ledger.append(each)
    return path


@pytest.fixture
def calls() -> Iterator[Calls]:
    with Calls() as made:
        yield made


def file_of(path: Path, *kept: object) -> Path:
    with Ledger(path) as ledger:
        for each in kept:
            ledger.append(each)  # type: ignore[arg-type]
    return path


def test_totals_are_the_ledgers(many: Path, calls: Calls) -> None:
    calls.add_ledger(many)
    found = calls.totals()
    with Ledger.sqlite(many) as ledger:
        total = ledger.total()
    assert (found["steps"], found["attempts"], found["unpriced"], found["cost"], found["baseline"], found["saving"], found["tokens"]) == (
        total.steps,
        total.attempts,
        total.unpriced,
        total.cost_pico,
        total.baseline_pico,
        total.saving_pico,
        total.tokens,
    )


def test_sums_beyond_64_bits_are_exact(tmp_path: Path, calls: Calls) -> None:
    dear = [entry(f"s{n // 3}", attempt=n % 3 + 1, thread="t", cost=4 * 10**18 + 1, baseline=8 * 10**18) for n in range(6)]
    calls.add_ledger(file_of(tmp_path / "l.db", *dear, entry("s9", thread="u", cost=2, baseline=3)))
    [first, second] = calls.dearest_chains(2)
    [step, *_] = calls.dearest_steps(3)
    threads, totals = calls.thread_costs(), calls.totals()
    assert (first["cost"], first["saving"], second["cost"], step["cost"]) == (24 * 10**18 + 6, 24 * 10**18 - 6, 2, 12 * 10**18 + 3)
    assert (totals["cost"], totals["saving"]) == (24 * 10**18 + 8, 24 * 10**18 - 5)
    assert threads == {"threads": 2, "mean": 12 * 10**18 + 4, "median": 2, "high": 2}
    assert page(calls)


def test_cells_add_up_to_the_totals_and_to_each_group(many: Path, calls: Calls) -> None:
    calls.add_ledger(many)
    cube, totals = calls.cube(), calls.totals()
    for name in ("steps", "attempts", "entries", "unpriced", "tokens", "cost", "baseline", "saving"):
        assert sum(getattr(cell, name) for cell in cube.cells) == totals[name], name
    with Ledger.sqlite(many) as ledger:
        tiers = {name: sums.cost_pico for name, sums in ledger.totals("tier").items()}
    at = DIMENSIONS.index("tier")
    assert {name: sum(c.cost for c in cube.cells if c.values[at] == place) for place, name in enumerate(cube.names["tier"])} == tiers


def test_few_cells_are_had_by_longer_stretches(many: Path, calls: Calls) -> None:
    calls.add_ledger(many)
    fine, coarse = calls.cube(), calls.cube(most=40)
    assert (len(coarse.cells) <= 40 < len(fine.cells), coarse.width_ns > fine.width_ns) == (True, True)
    assert sum(cell.cost for cell in coarse.cells) == sum(cell.cost for cell in fine.cells)


def test_the_cheapest_of_too_many_nodes_are_put_together(tmp_path: Path, calls: Calls) -> None:
    calls.add_ledger(file_of(tmp_path / "l.db", *[entry(f"s{n}", node=f"n{n:02}", cost=(100 - n) * 10**9) for n in range(40)]))
    cube = calls.cube()
    assert (cube.names["node"][0], cube.names["node"][-1], cube.folded["node"]) == ("n00", OTHERS, 16)


def test_a_sum_beyond_64_bits_is_exact(tmp_path: Path, calls: Calls) -> None:
    huge = 9 * 10**18
    calls.add_ledger(file_of(tmp_path / "l.db", *[entry(f"s{n}", cost=huge + 1, baseline=huge) for n in range(3)]))
    assert calls.totals()["cost"] == 3 * (huge + 1)
    assert sum(cell.cost for cell in calls.cube().cells) == 3 * (huge + 1)


def test_an_unpriced_call_is_in_no_sum_and_its_step_in_no_saving(tmp_path: Path, calls: Calls) -> None:
    calls.add_ledger(file_of(tmp_path / "l.db", entry("a"), entry("b", cost=None)))
    totals = calls.totals()
    assert (totals["cost"], totals["unpriced"], totals["saving"], totals["compared"]) == (10**9, 1, 4 * 10**9, 1)
    assert calls.dearest_steps(2)[1]["cost"] is None


def test_a_call_that_was_cut_off_is_counted_and_its_step_in_no_saving(tmp_path: Path, calls: Calls) -> None:
    lost = entry("b", outcome="failed", baseline=None, usage=Usage(input=9, source="estimated"), thread="t")
    guessed = entry("a", usage=Usage(input=9, output=4, source="estimated"), thread="u")
    calls.add_ledger(file_of(tmp_path / "l.db", guessed, lost, entry("b", "strong", attempt=2, thread="t")))
    with Ledger.sqlite(tmp_path / "l.db") as ledger:
        total = ledger.total()
    found, threads = calls.totals(), calls.thread_costs()
    wanted = (2, 1, 4 * 10**9)
    assert (found["estimated"], found["output_unknown"], found["saving"]) == wanted
    assert (total.estimated, total.output_unknown, total.saving_pico) == wanted
    assert sum(each.output_unknown for each in calls.cube().cells) == 1
    assert [(row["chain"], row["estimated"], row["output_unknown"]) for row in calls.dearest_chains(2)] == [("t", 1, 1), ("u", 1, 0)]
    assert (threads or {})["threads"] == 1


def test_escalations_say_where_to_and_why(tmp_path: Path, calls: Calls) -> None:
    rejected = entry("c", outcome="rejected", baseline=None, codes=("check:empty",), node="n")
    failed = entry("d", outcome="failed", baseline=None, error="OverloadedError", node="n")
    again = [entry(step, "strong", attempt=2, codes=("escalated",), node="n") for step in "cd"]
    calls.add_ledger(file_of(tmp_path / "l.db", rejected, failed, *again, entry("e", outcome="failed", error="Gone")))
    found = [(row["tier"], row["next_tier"], row["why"], row["times"], row["cost"]) for row in calls.escalations(9)]
    assert found == [("cheap", "strong", "OverloadedError", 1, 10**9), ("cheap", "strong", "check:empty", 1, 10**9)]


def test_a_call_that_is_in_the_ledger_and_in_the_trace_counts_once(tmp_path: Path, calls: Calls) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(tmp_path / "t.jsonl")))
    usage = {"input_tokens": 400, "output_tokens": 12}
    with Ledger(tmp_path / "l.db") as ledger:
        router = Router(Policy.default(), ledger=ledger, telemetry=Telemetry(tracer_provider=provider, labels=("thread",)))
        for _ in range(3):
            with router.step(Step.from_messages("late", node="triage", task_class="classification"), thread="t") as call:
                for attempt in call.attempts():
                    with attempt:
                        attempt.record({"model": attempt.model, "content": "ok", "stop_reason": "end_turn", "usage": usage})
    provider.shutdown()
    with Calls() as traced:
        traced.add_trace(tmp_path / "t.jsonl")
        traced.add_trace(tmp_path / "t.jsonl")
        alone = traced.totals()
    calls.add_ledger(tmp_path / "l.db")
    recorded = calls.totals()
    calls.add_trace(tmp_path / "t.jsonl")
    both = calls.totals()
    assert recorded["steps"] == 3
    assert both == recorded
    assert {**alone, "started": 0} == {**recorded, "started": 0}


def test_cost_of_solved_tasks_counts_the_failed_ones_too(tmp_path: Path, calls: Calls) -> None:
    calls.add_ledger(file_of(tmp_path / "l.db", *[entry(name, thread=name) for name in "abc"]))
    assert calls.solved() is None
    calls.add_outcomes([("a", True), ("b", False), ("elsewhere", True)])
    found = calls.solved()
    assert found is not None
    assert (found["known"], found["solved"], found["cost"]) == (2, 1, 2 * 10**9)


def test_what_threads_cost(tmp_path: Path, calls: Calls) -> None:
    kept = [entry(f"s{n}", thread=f"t{n}", cost=n * 10**9) for n in range(1, 11)]
    calls.add_ledger(file_of(tmp_path / "l.db", *kept, entry("u", thread="t-unpriced", cost=None)))
    assert calls.thread_costs() == {"threads": 10, "mean": 5_500_000_000, "median": 5 * 10**9, "high": 9 * 10**9}


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "x.db").write_text("no ledger at all, and longer than a header " * 9)
    with pytest.raises(ConfigurationError, match=r"x\.db cannot be read as a ledger"):
        calls.add_ledger(tmp_path / "x.db")


def test_nothing_adds_up_to_nothing(calls: Calls) -> None:
    assert (calls.totals()["cost"], calls.cube().cells, calls.dearest_chains(3), calls.thread_costs()) == (0, (), [], None)


def test_a_chain_is_a_thread_else_a_run_else_the_step(tmp_path: Path, calls: Calls) -> None:
    kept = (entry("a", thread="t", run="r", cost=3), entry("b", run="r2", cost=2), entry("c", cost=Cost(input=1).total_pico))
    calls.add_ledger(file_of(tmp_path / "l.db", *kept))
    assert [(row["kind"], row["chain"]) for row in calls.dearest_chains(9)] == [("thread", "t"), ("run", "r2"), ("step", "c")]
