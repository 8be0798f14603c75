"""Recorded runs of agents, replayed where the reference data is: what each guard would have seen, and when."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from benchmarks import trajectories
from rich.console import Console

from routed_agents import Policy

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def outcomes(reference_data: Path) -> Path:
    folder = reference_data / "outcomes"
    if not (folder / trajectories.FAILURES).is_file():
        pytest.skip(f"no recorded runs at {folder}")
    return folder


@pytest.fixture(scope="module")
def printed(outcomes: Path) -> tuple[dict[str, dict[str, Any]], str]:
    page = io.StringIO()
    return trajectories.main(outcomes, Console(file=page, width=170)), page.getvalue()


def test_every_run_is_read_and_replayed(outcomes: Path) -> None:
    service, failures = (trajectories.runs_of(outcomes / name, Policy.default()) for name in (trajectories.SERVICE, trajectories.FAILURES))

    assert (len(service), sum(len(run.strong) for run in service)) == (100, 1_268)
    assert (len(failures), all(run.strong for run in failures)) == (95, True)


def test_no_tier_falls_within_a_recorded_run(outcomes: Path) -> None:
    for run in trajectories.runs_of(outcomes / trajectories.FAILURES, Policy.default()):
        assert list(run.strong) == sorted(run.strong)


def test_every_way_stands_beside_chance_and_length_at_its_own_share(printed: tuple[dict[str, dict[str, Any]], str]) -> None:
    found, page = printed

    assert {"stall", "agentic_chain", "compounding, told the rest", "all, as shipped"} <= found.keys()
    for name, row in found.items():
        for key in ("over_share", "over_random", "over_length"):
            mean, low, high = row[key]
            assert low <= mean <= high, (name, key)
    assert all(head in page for head in ("over share", "over random pin", "over length", "Algorithm-Generated", "Hand-Crafted"))


def test_what_stands_beside_a_way_has_its_share_of_strong_steps(printed: tuple[dict[str, dict[str, Any]], str]) -> None:
    assert {name: row["length_share"] for name, row in printed[0].items() if abs(row["length_share"] - row["share"]) > 0.02} == {}


def test_stalls_are_found_in_failed_runs_and_hardly_ever_elsewhere(outcomes: Path) -> None:
    service, failures = (trajectories.runs_of(outcomes / name, Policy.default()) for name in (trajectories.SERVICE, trajectories.FAILURES))

    stalled = [sum(run.first(["stall"]) is not None for run in runs) for runs in (service, failures)]

    assert (stalled[0] <= 5, stalled[1] >= 10) == (True, True)
