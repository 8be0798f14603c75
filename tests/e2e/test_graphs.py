"""Every example graph runs over its whole input file by the command line, and its money adds up; run with -s to see the sums."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
GRAPHS = ("support_desk", "coding_agent", "document_desk", "graded_rag", "supervisor", "plan_and_execute", "agent_chain")


def demo(name: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "routed_agents", "demo", "--graph", name, "--out", str(out), *more]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)


@pytest.mark.parametrize("name", GRAPHS)
def test_all_inputs_end_without_failure_and_three_sums_are_equal(name, tmp_path):
    inputs = (ROOT / "graphs" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()

    ran = demo(name, tmp_path, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    document = json.loads(ran.stdout)
    print(f"{name}: {document['ended']} inputs, {document['sums_pico']}")  # noqa: T201

    assert (document["simulated"], document["failures"], document["ended"]) == (True, [], len(inputs))
    assert document["sums_equal"]
    assert len(set(document["sums_pico"].values())) == 1
    assert document["sums_pico"]["ledger"] > 0


@pytest.mark.parametrize("name", GRAPHS)
def test_a_person_sees_trees_and_tables(name, tmp_path):
    ran = demo(name, tmp_path, "--limit", "3")

    assert (ran.returncode, ran.stderr) == (0, "")
    wanted = [f"{name} · ", "all-strong $", "Cost by task class", "Cost by tier", "equal to the pico-dollar", "no money was spent"]
    assert [each for each in wanted if each not in ran.stdout] == []
    assert "NOT EQUAL" not in ran.stdout
