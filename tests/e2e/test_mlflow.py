"""A second opinion: what a real MLflow server shows for each span, trace and session. Outside CI: `make mlflow`."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from priced_calls import OTHER, STANDARD, bench_for
from servers import LOOPBACK, ask, free_port, listening, python_of, running

from routed_agents.ledger import Entry
from routed_agents.telemetry import names

pytestmark = pytest.mark.e2e

NEAR = 1e-9
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "NO_PROXY": "127.0.0.1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlflow:
    """A running MLflow server."""

    url: str
    python: Path
    listening: set[str]

    def experiment(self, name: str) -> str:
        return str(ask(f"{self.url}/api/2.0/mlflow/experiments/create", {"name": name})["experiment_id"])

    def traces(self, experiment: str) -> list[dict[str, Any]]:
        argv = [self.python, Path(__file__).with_name("mlflow_traces.py"), self.url, experiment]
        done = subprocess.run(list(map(str, argv)), env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Calls of every kind: the ledger's entries, and what MLflow shows of them, by case."""

    entries: dict[str, list[Entry]]
    leaves: dict[tuple[str, int], float | None]
    traces: dict[str, list[float | None]]
    priced_parents: list[str]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    if os.environ.get("MLFLOW_TEST") != "1":
        pytest.skip("a second opinion, outside CI: `make mlflow` runs it")
    python, folder, port = python_of("mlflow"), tmp_path_factory.mktemp("mlflow"), free_port()
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", folder / "artifacts"]
    url = f"http://127.0.0.1:{port}"
    argv = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1, *store]
    with running(argv, ready=f"{url}/health", folder=folder, environ=QUIET, within_s=240) as process:
        yield Mlflow(url=url, python=python, listening=listening(process))


def read(mlflow: Mlflow, name: str, tiers: str) -> Cases:
    experiment = mlflow.experiment(name)
    entries: dict[str, list[Entry]] = {}
    headers = {"x-mlflow-experiment-id": experiment}
    with bench_for(f"{mlflow.url}/v1/traces", resource={"service.name": name}, headers=headers, tiers=tiers) as run:
        for case in (*STANDARD, *OTHER):
            entries[case.__name__] = run(case)
    leaves: dict[tuple[str, int], float | None] = {}
    traces: dict[str, list[float | None]] = defaultdict(list)
    parents: list[str] = []
    for trace in mlflow.traces(experiment):
        cost = json.loads(trace["metadata"].get("mlflow.trace.cost", "{}")).get("total_cost")
        traces[trace["metadata"]["mlflow.trace.session"]].append(cost)
        for span in trace["spans"]:
            shown = (span["attributes"].get("mlflow.llm.cost") or {}).get("total_cost")
            if names.ATTEMPT in span["attributes"]:
                leaves[span["attributes"][names.STEP], span["attributes"][names.ATTEMPT]] = shown
            elif shown:
                parents.append(span["name"])
    return Cases(entries=entries, leaves=leaves, traces=dict(traces), priced_parents=parents)


@pytest.fixture(scope="module")
def cases(mlflow: Mlflow) -> Cases:
    return read(mlflow, "models MLflow has prices for", "claude-2026-05")


@pytest.fixture(scope="module")
def todays(mlflow: Mlflow) -> Cases:
    return read(mlflow, "today's models", "embedded")


def usd(entries: list[Entry]) -> float:
    return sum(entry.cost.total_pico for entry in entries if entry.cost is not None) / 1e12


def near(shown: float | None, cost: float) -> bool:
    return abs((shown or 0.0) - cost) <= NEAR


def test_mlflow_listens_on_this_machine_only(mlflow):
    assert mlflow.listening
    assert mlflow.listening <= LOOPBACK


@pytest.mark.parametrize("case", [case.__name__ for case in STANDARD if case.__name__ != "over_the_cliff"])
def test_a_call_at_standard_speed_costs_the_same_in_span_trace_and_session(cases, case):
    entries = cases.entries[case]
    shown = [cases.leaves[entry.step_id, entry.attempt] for entry in entries]
    assert usd(entries) > 0
    assert [near(cost, usd([entry])) for cost, entry in zip(shown, entries, strict=True)] == [True] * len(entries), shown
    assert near(sum(filter(None, cases.traces[case])), usd(entries)), cases.traces[case]


def test_no_parent_is_priced_so_nothing_is_counted_twice(cases):
    assert cases.priced_parents == []
    assert len(cases.leaves) == sum(map(len, cases.entries.values()))


@pytest.mark.parametrize(
    ("case", "does"),
    {
        "long_cache": "prices one-hour cache writes like five-minute ones",
        "batch": "knows no batch discount",
        "searching": "knows no fee for a web search",
        "unknown_tier": "prices a service tier it doesn't know at standard speed; we say unpriced",
        "price_of_our_own": "has list prices",
    }.items(),
)
def test_where_mlflow_cannot_know_it_shows_the_standard_price_of_the_tokens(cases, case, does):
    (entry,) = cases.entries[case]
    usage = entry.usage
    written = usage.cache_write_5m + usage.cache_write_1h
    standard = (usage.input + usage.cache_read * 0.10 + written * 1.25 + usage.output * 5) / 1e6  # Claude Haiku 4.5's list price
    assert near(cases.leaves[entry.step_id, entry.attempt], standard), does


@pytest.mark.parametrize("case", ["unknown_model", "name_within_a_name"])
def test_an_unknown_model_has_no_cost(cases, case):
    (entry,) = cases.entries[case]
    assert (entry.cost, cases.leaves[entry.step_id, entry.attempt]) == (None, None)


def test_a_model_newer_than_mlflows_catalogue_has_no_cost_there(todays):
    """Claude Haiku 5.5 is missing in MLflow 3.17.2; the attribute `mlflow.llm.cost` is what it reads before its own prices."""
    (entry,) = todays.entries["plain"]
    assert usd([entry]) > 0
    assert todays.leaves[entry.step_id, entry.attempt] is None
