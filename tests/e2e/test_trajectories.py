"""A hundred real conversations run through the support desk: all end, and ledger and trace tell the same story."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from routed_agents import Ledger
from routed_agents.ledger import Entry

pytestmark = pytest.mark.e2e

LEAVES = """
    WITH resources AS (SELECT unnest(resourceSpans, recursive := false) AS r FROM read_json($path, format = 'newline_delimited')),
    scopes AS (SELECT unnest(r.scopeSpans) AS s FROM resources),
    spans AS (SELECT s.scope.name AS scope, unnest(s.spans) AS span FROM scopes)
    SELECT scope, span.name, span.traceId, span.spanId, span.parentSpanId, to_json(span.attributes) AS attributes FROM spans
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run left behind."""

    results: list[dict[str, Any]]
    entries: list[Entry]
    total_pico: int
    spans: list[dict[str, Any]]

    def named(self, beginning: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"].startswith(beginning)]


def spans_in(path: Path) -> list[dict[str, Any]]:
    """The spans of an OTLP JSON trace, read by DuckDB, which knows nothing of us."""
    rows = duckdb.execute(LEAVES, {"path": str(path)}).fetchall()
    names = ("scope", "name", "trace", "id", "parent", "attributes")
    return [{**dict(zip(names, row, strict=True)), "attributes": plain(json.loads(row[5]))} for row in rows]


def plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """OTLP's key-value list as a dict; integers come as text there."""
    found: dict[str, Any] = {}
    for each in attributes:
        value = {kind: content for kind, content in each["value"].items() if content is not None}
        for kind, content in value.items():
            found[each["key"]] = int(content) if kind == "intValue" else content
    return found


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("REFERENCE_DATA") or root.parent / "shared" / "data")
    source = data / "outcomes" / "tau_airline_gpt4o_trajectories.jsonl.gz"
    if not source.is_file():
        pytest.skip(f"the reference trajectories are not at {source}; name the data's folder in REFERENCE_DATA")
    folder = tmp_path_factory.mktemp("trajectories")
    files = {name: folder / name for name in ("out.jsonl", "costs.db", "trace.jsonl")}
    argv = ["run", root / "graphs" / "support_desk.py", "--input", source, "--output", files["out.jsonl"]]
    argv += ["--ledger", files["costs.db"], "--trace", files["trace.jsonl"]]
    run = subprocess.run([sys.executable, "-m", "routed_agents", *map(str, argv)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    with Ledger.sqlite(files["costs.db"]) as ledger:
        entries, total = list(ledger.entries()), ledger.total().cost_pico
    results = [json.loads(line) for line in files["out.jsonl"].read_text(encoding="utf-8").splitlines()]
    return Outcome(results=results, entries=entries, total_pico=total, spans=spans_in(files["trace.jsonl"]))


def test_all_hundred_conversations_end(outcome):
    assert Counter((row["error"], row["stopped"]) for row in outcome.results) == {(None, None): 100}
    assert all(row["reply"] for row in outcome.results)


def test_every_step_has_a_decision_a_cost_and_a_span(outcome):
    assert all(entry.task_class and entry.decided_tier and entry.policy_hash for entry in outcome.entries)
    assert all(entry.cost is not None and entry.cost.total_pico > 0 and entry.simulated for entry in outcome.entries)
    assert len(outcome.named("chat ")) == len(outcome.entries) >= 300


def test_every_leaf_names_its_model_its_tokens_and_its_cost(outcome):
    wanted = ("gen_ai.request.model", "gen_ai.response.model", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    wanted += ("gen_ai.usage.cost", "llm.cost.total", "routed_agents.cost.pico_usd", "routed_agents.decision.task_class")
    assert [leaf for leaf in outcome.named("chat ") if not all(leaf["attributes"].get(name) for name in wanted)] == []


def test_every_leaf_hangs_below_a_route_of_its_own_run(outcome):
    routes = {route["id"]: route for route in outcome.named("route ")}
    roots = {root["trace"] for root in outcome.named("run ")}
    strays = [leaf for leaf in outcome.named("chat ") if leaf["parent"] not in routes or leaf["trace"] not in roots]
    assert (strays, len(roots)) == ([], 100)


def test_the_traces_leaves_the_ledger_and_the_results_add_up_to_the_same_picodollar(outcome):
    leaves = sum(leaf["attributes"]["routed_agents.cost.pico_usd"] for leaf in outcome.named("chat "))
    results = sum(row["bill"]["cost_pico"] for row in outcome.results)
    assert leaves == outcome.total_pico == results


def test_no_floored_step_was_answered_by_the_cheap_tier(outcome):
    assert [entry for entry in outcome.entries if entry.pinned and entry.tier == "cheap" and entry.outcome in ("accepted", "watched")] == []
