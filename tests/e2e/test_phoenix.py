"""What a real Phoenix shows for each span, trace and session is what the ledger says, to a billionth of a dollar."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from priced_calls import OTHER, STANDARD, bench_for
from servers import DASHBOARDS, LOOPBACK, ROOT, ask, free_port, listening, python_of, running, wait_for

from routed_agents import Ledger
from routed_agents.ledger import Entry

pytestmark = pytest.mark.e2e

NEAR = 1e-9
"""US dollars by which two sums may differ: Phoenix adds floats."""
SPANS = """query ($name: String!, $after: String) { getProjectByName(name: $name) {
  costSummary { total { cost } } recordCount
  spans(first: 500, after: $after) { pageInfo { hasNextPage endCursor } edges { node {
    name spanKind spanId parentId attributes costSummary { total { cost } } trace { traceId costSummary { total { cost } } } } } }
  sessions(first: 1000) { edges { node { sessionId costSummary { total { cost } } } } } } }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What Phoenix shows of a project; a cost it does not show is None."""

    total: float | None
    spans: list[dict[str, Any]]
    traces: dict[str, float | None]
    sessions: dict[str, float | None]

    @property
    def leaves(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The spans of model calls by step and attempt."""
        return {(span["step"]["id"], span["attempt"]): span for span in self.spans if "attempt" in span}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phoenix:
    """A running Phoenix."""

    url: str
    listening: set[str]

    def shown(self, project: str, entries: Iterable[Entry], *, others: int) -> Shown:
        """What it shows once these calls and the other spans are there, and all calls with tokens are priced, a moment after they came."""
        calls = list(entries)
        priced = sum(entry.usage.total > 0 for entry in calls)
        found: list[Shown] = []

        def complete() -> bool:
            if (self._page(project) or {}).get("recordCount", 0) < len(calls) + others:
                return False
            found.append(self._read(project))
            return sum(span["priced"] for span in found[-1].spans) >= priced

        wait_for(complete, 60, lambda: f"{found and len(found[-1].spans)} spans of {len(calls) + others}, of {priced} to be priced")
        return found[-1]

    def _page(self, project: str, after: str | None = None) -> Any:
        answer = ask(f"{self.url}/graphql", {"query": SPANS, "variables": {"name": project, "after": after}})
        assert "errors" not in answer, answer["errors"]
        return answer["data"]["getProjectByName"]

    def _read(self, project: str) -> Shown:
        spans: list[dict[str, Any]] = []
        traces: dict[str, float | None] = {}
        page = self._page(project)
        while True:
            for edge in page["spans"]["edges"]:
                node = edge["node"]
                ours = json.loads(node["attributes"]).get("routed_agents", {})
                trace = node["trace"]["traceId"]
                spans.append(
                    {
                        **ours,
                        "name": node["name"],
                        "kind": node["spanKind"],
                        "trace": trace,
                        "usd": cost_in(node),
                        "priced": bool(node["costSummary"]),
                    }
                )
                traces[trace] = cost_in(node["trace"])
            if not page["spans"]["pageInfo"]["hasNextPage"]:
                break
            page = self._page(project, page["spans"]["pageInfo"]["endCursor"])
        sessions = {edge["node"]["sessionId"]: cost_in(edge["node"]) for edge in page["sessions"]["edges"]}
        return Shown(total=cost_in(page), spans=spans, traces=traces, sessions=sessions)


def cost_in(node: dict[str, Any]) -> float | None:
    return ((node["costSummary"] or {}).get("total") or {}).get("cost")


def usd(entries: Iterable[Entry]) -> float:
    """What priced entries cost."""
    return sum(entry.cost.total_pico for entry in entries if entry.cost is not None) / 1e12


def near(shown: float | None, cost: float) -> bool:
    """Whether Phoenix shows this cost; for nothing it may show nothing."""
    return abs((shown or 0.0) - cost) <= NEAR


def summed(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> dict[Any, float]:
    groups: dict[Any, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[key(entry)].append(entry)
    return {name: usd(group) for name, group in groups.items()}


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    python, folder = python_of("phoenix"), tmp_path_factory.mktemp("phoenix")
    port, grpc = free_port(), free_port()
    argv = [python, DASHBOARDS / "phoenix_on_loopback.py", "--port", port, "--grpc-port", grpc, "--folder", folder / "data"]
    url = f"http://127.0.0.1:{port}"
    with running(argv, ready=f"{url}/healthz", folder=folder, within_s=240) as process:
        yield Phoenix(url=url, listening=listening(process))


def test_phoenix_listens_on_this_machine_only(phoenix):
    assert phoenix.listening
    assert phoenix.listening <= LOOPBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The demo graphs, run with their spans going to Phoenix."""

    entries: list[Entry]
    runs: int
    shown: Shown


@pytest.fixture(scope="module")
def demo(phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    ledger = tmp_path_factory.mktemp("demo") / "costs.db"
    environ = {
        **os.environ,
        "OTEL_RESOURCE_ATTRIBUTES": "openinference.project.name=demo",
        "NO_PROXY": "127.0.0.1",
        "ROUTED_AGENTS_SPAN_LABELS": "thread",
    }
    argv = [sys.executable, Path(__file__).with_name("demo_into_backend.py"), phoenix.url, ledger]
    run = subprocess.run([str(each) for each in argv], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    with Ledger.sqlite(ledger) as kept:
        entries = list(kept.entries())
    runs = len({entry.run for entry in entries})
    steps = len({entry.step_id for entry in entries})
    return Demo(entries=entries, runs=runs, shown=phoenix.shown("demo", entries, others=steps + runs))


def test_every_call_of_the_demo_is_in_phoenix_once(demo):
    calls = {(entry.step_id, entry.attempt) for entry in demo.entries}
    assert len(calls) == len(demo.entries) > 100
    assert demo.shown.leaves.keys() == calls
    assert sum(span["kind"] == "llm" for span in demo.shown.spans) == len(calls)


def test_each_span_of_the_demo_costs_what_the_ledger_says(demo):
    leaves = demo.shown.leaves
    assert [entry for entry in demo.entries if not near(leaves[entry.step_id, entry.attempt]["usd"], usd([entry]))] == []


def test_each_trace_of_the_demo_costs_what_its_run_cost(demo):
    leaves = demo.shown.leaves
    by_trace = summed(demo.entries, lambda entry: leaves[entry.step_id, entry.attempt]["trace"])
    by_run = summed(demo.entries, lambda entry: entry.run)
    assert sorted(by_trace.values()) == sorted(by_run.values())
    assert {trace: cost for trace, cost in by_trace.items() if not near(demo.shown.traces[trace], cost)} == {}
    assert demo.shown.traces.keys() >= by_trace.keys()


def test_each_session_of_the_demo_costs_what_its_thread_cost(demo):
    by_thread = summed(demo.entries, lambda entry: entry.thread)
    assert demo.shown.sessions.keys() == by_thread.keys()
    assert {thread: cost for thread, cost in by_thread.items() if not near(demo.shown.sessions[thread], cost)} == {}


def test_the_project_costs_what_the_ledger_says_so_nothing_is_counted_twice(demo):
    assert near(demo.shown.total, usd(demo.entries))
    assert [span["name"] for span in demo.shown.spans if "attempt" not in span and span["usd"]] == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Calls of every kind, and what Phoenix shows of them."""

    entries: dict[str, list[Entry]]
    shown: Shown

    def leaves(self, case: str) -> list[tuple[Entry, dict[str, Any]]]:
        """Each call of a case in the ledger, with its span in Phoenix."""
        return [(entry, self.shown.leaves[entry.step_id, entry.attempt]) for entry in self.entries[case]]


@pytest.fixture(scope="module")
def cases(phoenix: Phoenix) -> Cases:
    entries: dict[str, list[Entry]] = {}
    with bench_for(f"{phoenix.url}/v1/traces", resource={"openinference.project.name": "cases"}) as run:
        for case in (*STANDARD, *STANDARD, *OTHER):  # a session of two traces each, where it matters
            entries[case.__name__] = run(case)
    calls = [entry for group in entries.values() for entry in group]
    traces = 2 * len(STANDARD) + len(OTHER)
    routes = {entry.step_id for entry in calls if entry.outcome != "watched"}
    return Cases(entries=entries, shown=phoenix.shown("cases", calls, others=traces + len(routes)))


@pytest.mark.parametrize("case", [case.__name__ for case in STANDARD])
def test_a_call_at_standard_speed_costs_the_same_in_span_trace_and_session(cases, case):
    leaves = cases.leaves(case)
    assert all(entry.cost is not None for entry, _ in leaves)
    assert [(entry.cost, leaf["usd"]) for entry, leaf in leaves if not near(leaf["usd"], usd([entry]))] == []
    traces = summed(cases.entries[case], lambda entry: cases.shown.leaves[entry.step_id, entry.attempt]["trace"])
    assert len(traces) == 2
    assert min(traces.values()) > 0
    assert {trace: cost for trace, cost in traces.items() if not near(cases.shown.traces[trace], cost)} == {}
    assert near(cases.shown.sessions[case], usd(cases.entries[case]))


def test_only_calls_are_priced_and_each_of_them_once(cases):
    calls = {(entry.step_id, entry.attempt) for group in cases.entries.values() for entry in group}
    assert cases.shown.leaves.keys() == calls
    assert sum(span["kind"] == "llm" for span in cases.shown.spans) == len(calls)
    assert [span["name"] for span in cases.shown.spans if "attempt" not in span and span["usd"]] == []


PHOENIX_ALONE = {
    "long_cache": "prices one-hour cache writes like five-minute ones",
    "batch": "knows no batch discount",
    "in_a_region": "knows no factor for a region of inference",
    "searching": "knows no fee for a web search",
    "unknown_tier": "prices a service tier it doesn't know at standard speed; we say unpriced",
    "unknown_model": "shows no cost, as we do",
    "name_within_a_name": "takes any model whose name contains a known one for that one; we say unpriced",
    "price_of_our_own": "has list prices, until it's told ours",
}


def test_all_other_cases_are_listed():
    assert list(PHOENIX_ALONE) == [case.__name__ for case in OTHER]


@pytest.mark.parametrize("case", PHOENIX_ALONE)
def test_where_phoenix_cannot_know_it_shows_the_standard_price_of_the_tokens(cases, case):
    ((entry, leaf),) = cases.leaves(case)
    shown, usage = leaf["usd"], entry.usage
    written = usage.cache_write_5m + usage.cache_write_1h
    standard = (usage.input * 0.10 + usage.cache_read * 0.01 + written * 0.125 + usage.output * 0.50) / 1e6  # Claude Haiku 5.5's list price
    if case == "unknown_model":
        assert (shown, entry.cost) == (None, None)
    else:
        assert near(shown, standard), PHOENIX_ALONE[case]
        assert entry.cost is None or not near(shown, usd([entry])), "Phoenix has caught up: move the case to STANDARD"


def test_an_attempt_the_provider_refused_costs_nothing_and_phoenix_shows_no_figure(cases):
    refused, leaf = cases.leaves("retried")[0]
    assert (refused.outcome, usd([refused]), leaf["usd"]) == ("failed", 0.0, None)
