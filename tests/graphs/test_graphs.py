"""The example graphs run over their inputs on the embedded provider, and each step goes where its pattern says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from routed_agents import Policy, Step
from routed_agents.cli.conversation import messages_of
from routed_agents.cli.graphs import load_graph
from routed_agents.cli.runner import Input, Result, run_inputs
from routed_agents.cli.workspace import workspace

GRAPHS = Path(__file__).parents[2] / "graphs"
SIX = ("support_desk", "coding_agent", "document_desk", "graded_rag", "supervisor", "plan_and_execute")
HANDFUL = {
    "support_desk": ["desk-001", "desk-002", "desk-003", "desk-004"],
    "coding_agent": ["code-01", "code-02", "code-03", "code-07", "code-12"],
    "document_desk": ["doc-01", "doc-02", "doc-03", "doc-09", "doc-18"],
    "graded_rag": ["ask-01", "ask-07", "ask-08", "ask-10", "ask-15"],
    "supervisor": ["team-01", "team-02", "team-03", "team-04", "team-22"],
    "plan_and_execute": ["plan-01", "plan-08", "plan-12"],
    "agent_chain": ["buy-01", "buy-02"],
}
TIERS: dict[str, dict[str, set[str]]] = {
    "coding_agent": {"sort": {"cheap"}, "debug": {"strong"}, "tidy": {"cheap"}},
    "document_desk": {"triage": {"cheap"}, "extract": {"cheap"}, "summarize": {"cheap"}, "synthesize": {"strong"}},
    "graded_rag": {"sort": {"cheap"}, "grade": {"cheap"}, "check": {"cheap"}, "rewrite": {"cheap"}, "generate": {"cheap", "strong"}},
    "supervisor": {"supervisor": {"strong"}, "analyst": {"strong"}, "reviewer": {"strong"}, "copywriter": {"cheap"}},
    "plan_and_execute": {"plan": {"strong"}, "replan": {"strong"}, "model": {"cheap"}, "write": {"cheap"}},
    "agent_chain": {"plan": {"strong"}, "act": {"strong"}, "report": {"cheap"}},
}
"""The tiers of each node's steps over the handful; `model` is the node that `create_agent` makes for its model."""


@dataclass(slots=True)
class Ran:
    """What became of a graph's handful of inputs."""

    results: dict[str, Result] = field(default_factory=dict)
    tiers: dict[str, set[str]] = field(default_factory=dict)


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GRAPHS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@cache
def ran(name: str) -> Ran:
    """Runs the graph over its handful, once for all tests."""
    done = Ran()

    async def run() -> None:
        loaded = await load_graph(str(GRAPHS / f"{name}.py"))
        chosen = [
            Input(id=each["id"], line=number, record=each) for number, each in enumerate(records(name)) if each["id"] in HANDFUL[name]
        ]
        await run_inputs(loaded, chosen, lambda result: done.results.update({result.id: result}), concurrency=2)
        assert loaded.router is not None
        for entry in loaded.router.ledger.entries():
            done.tiers.setdefault(entry.node or "", set()).add(entry.tier)

    with workspace(provider="embedded", policy=Policy.default(tiers="embedded")):
        asyncio.run(run())
    return done


@pytest.fixture
def coding(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The coding agent's module, for its tools."""
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded")):
        yield imported("coding_agent")


def imported(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_tested", GRAPHS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SIX)
def test_a_graph_has_twenty_varied_inputs_that_can_be_read(name):
    rows = records(name)
    words = [" ".join(str(message["content"]) for message in row["messages"]) for row in rows]

    assert all(messages_of(row) for row in rows)
    assert len({row["id"] for row in rows}) == len({row["thread"] for row in rows}) == len(rows)
    assert len(set(words)) == len(rows) >= 20


@pytest.mark.parametrize("name", HANDFUL)
def test_a_graph_runs_without_an_error_and_answers(name):
    results = ran(name).results

    assert {key: (each.error, each.stopped) for key, each in results.items() if each.error or each.stopped} == {}
    assert sorted(results) == sorted(HANDFUL[name])
    assert all((each.reply or "").strip() for each in results.values())


@pytest.mark.parametrize("name", TIERS)
def test_each_step_goes_to_the_tier_its_pattern_says(name):
    assert ran(name).tiers == TIERS[name]


def test_langgraph_json_lists_every_graph_that_is_there():
    listed = json.loads((GRAPHS / "langgraph.json").read_text(encoding="utf-8"))["graphs"]
    files = {path.stem for path in GRAPHS.glob("*.py") if path.with_suffix(".jsonl").exists()}

    assert set(listed) == files == set(HANDFUL)
    assert all(place == f"./{name}.py:graph" for name, place in listed.items())


def test_the_drawings_in_the_readme_are_those_the_graphs_make():
    code = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1]); import draw; page = draw.README.read_text(encoding='utf-8');"
        "sys.exit(0 if draw.redrawn(page, asyncio.run(draw.drawings())) == page else 'run `make drawings`')"
    )
    checked = subprocess.run([sys.executable, "-c", code, str(GRAPHS)], capture_output=True, text=True, timeout=120, check=False)

    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_graph_has_a_paragraph_and_a_drawing():
    page = (GRAPHS / "README.md").read_text(encoding="utf-8")

    assert [name for name in HANDFUL if f"`{name}.py`" not in page or f"<!-- drawing of {name} -->\n```mermaid" not in page] == []


def test_planted_bugs_fail_their_tests_until_the_agent_has_mended_them():
    replies = {key: str(result.reply) for key, result in ran("coding_agent").results.items()}

    assert {key for key, reply in replies.items() if "and the tests pass" in reply} == {"code-01", "code-03", "code-07", "code-12"}
    assert all("linter is content" in reply for reply in replies.values())


def test_every_module_with_tests_in_the_repository_fails_them_as_shipped(coding):
    tested = [path for path in coding.REPOSITORY if path.startswith("test_")]
    outputs = {path: coding.run_tests.invoke({"path": path, "state": {}}) for path in tested}

    assert len(tested) == 8
    assert [path for path, output in outputs.items() if "FAILED" not in output] == []


def test_an_edit_must_fit_exactly_once_and_the_linter_sees_it(coding):
    before = coding.lint.invoke({"path": "mail.py", "state": {}})
    after = coding.lint.invoke({"path": "mail.py", "state": {"edits": [("mail.py", "import json\n", "")]}})

    assert ("F401 'json'" in before, "F401" in after, "E711" in after) == (True, False, True)


def test_the_right_passage_is_found_by_its_rare_words(coding):
    assert imported("graded_rag").ranked("defibrillator")[0]["title"] == "Emergency"


def test_the_diary_is_long_enough_to_need_the_strong_tier_and_always_the_same():
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded")):
        desk, again = imported("document_desk"), imported("document_desk")

    assert desk.diary(2025) == again.diary(2025) != desk.diary(2024)
    assert len(desk.diary(2025)) > 150_000


def test_a_worker_on_the_supervisors_history_is_strong_only_by_its_pin():
    task = "Task for the analyst: What are the sales figures of the Marmot stove?"
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded")):
        team = imported("supervisor")
    alone = team.router.decide(
        Step.from_messages(task, system=f"You are the analyst. Answer the task from the facts below only.\n\n{team.facts_about(task)}")
    )

    assert (alone.tier, ran("supervisor").tiers["analyst"]) == ("cheap", {"strong"})


@pytest.mark.parametrize(
    ("name", "first", "second", "wanted"),
    [
        ("coding_agent", "code-02", "code-01", "Mended fees.py"),
        ("document_desk", "doc-01", "doc-04", "RM-3391"),
        ("graded_rag", "ask-01", "ask-18", "token of 3 euros"),
        ("supervisor", "team-02", "team-03", "Meet the Kestrel tent!"),
        ("plan_and_execute", "plan-09", "plan-06", "goods lift"),
    ],
)
def test_the_next_question_on_a_thread_is_answered_by_itself(name, first, second, wanted):
    rows = {each["id"]: each for each in records(name)}
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded")):
        graph = imported(name).builder.compile(checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "one"}}
        for each in (first, second):
            state = graph.invoke({"messages": messages_of(rows[each])}, config)

    assert wanted in state["messages"][-1].text
