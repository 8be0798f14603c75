from __future__ import annotations

import json
import socket
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from routed_agents.cli.doctor import _endings, _warnings_in_one_line
from routed_agents.cli.lifecycle import ending_of
from routed_agents.policy import Policy
from routed_agents.tiers import Deployment, Tiers

PLAIN = """
from langchain_anthropic import ChatAnthropic
from langgraph.graph import END, START, MessagesState, StateGraph
from routed_agents import Router
from routed_agents.integrations.langgraph import observed

router = Router.from_env()
model = ChatAnthropic(model="claude-opus-5-5", max_tokens=64)

async def answer(state):
    return {"messages": [await model.ainvoke(state["messages"])]}

builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
graph = builder.compile()
watched = observed(graph, router)
"""
UNPRICED = 'stance = "balanced"\n\n[tiers]\ncheap = "anthropic:nobody-knows-1"\nstrong = "anthropic:claude-opus-5-5"\n'


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process where nobody has set a provider or an endpoint yet."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    path = tmp_path / "plain_graph.py"
    path.write_text(PLAIN)
    return str(path)


def diagnosed(cli: Any, *argv: object) -> tuple[int, dict[str, list[str]]]:
    """Exit code, and what was said by code."""
    code, out, _ = cli("doctor", *argv, "--json")
    found: dict[str, list[str]] = {}
    for finding in json.loads(out)["findings"]:
        found.setdefault(finding["code"], []).append(f"{finding['says']} → {finding['do']}")
    return code, found


def test_a_sound_set_up_is_called_sound(cli, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    code, found = diagnosed(cli)
    assert (code, len(found["counted_once"]), "counted_twice" in found) == (0, 3, False)
    assert all("by routed-agents" in said for said in found["counted_once"])


def test_the_sdks_own_span_is_named_where_it_is_the_one_counted(cli, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_OPEN_TELEMETRY", raising=False)
    code, found = diagnosed(cli)
    assert (code, len(found["counted_once"])) == (0, 2)
    assert "anthropic SDK's own span" in found["counted_by_others"][0]
    assert "ANTHROPIC_OPEN_TELEMETRY=false" in found["counted_by_others"][0]


@pytest.mark.parametrize(("name", "books"), [("graph", "in no ledger"), ("watched", "priced by an observer")])
def test_calls_that_bypass_the_policy_are_named(cli, plain, name, books):
    code, found = diagnosed(cli, f"{plain}:{name}")
    assert code == 1
    assert "claude-opus-5-5 in node answer" in found["bypassing"][0]
    assert books in found["bypassing"][0]


def test_a_routed_graph_is_all_routed(cli, routed):
    code, found = diagnosed(cli, routed)
    assert (code, list(found)[:2]) == (0, ["counted_once", "all_routed"])


def test_a_missing_price_is_named(cli, echo, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(UNPRICED)
    code, found = diagnosed(cli, echo, "--policy", policy)
    assert (code, "nobody-knows-1" in found["price_missing"][0]) == (1, True)


def test_swapped_tiers_are_wrong(cli, echo, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[tiers]\ncheap = "anthropic:claude-opus-5-5"\nstrong = "anthropic:claude-haiku-5-5"\n')
    code, found = diagnosed(cli, echo, "--policy", policy)
    assert (code, "are they swapped?" in found["tiers_swapped"][0]) == (1, True)


def test_traceback_shows_the_error_of_a_call(cli, echo, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("from echo_graph import builder\ngraph = builder.compile()\n")
    assert "run with --traceback" in diagnosed(cli, broken, "--input", "explode")[1]["graph_failed"][0]
    with pytest.raises(ValueError, match="boom"):
        cli("doctor", broken, "--input", "explode", "--traceback")
    with pytest.raises((TypeError, UserWarning), match="nope"):
        cli("doctor", "--option", "nope=1", "--traceback")


def test_a_librarys_warning_is_one_line(capsys):
    with pytest.MonkeyPatch.context() as patch, _warnings_in_one_line():
        patch.setattr(warnings, "filters", [])
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "routed-agents: two lines\n"


@pytest.mark.parametrize(
    ("model", "today", "level", "told"),
    [
        ("anthropic:claude-sonnet-4-5", date(2026, 9, 1), "note", "tier cheap: claude-sonnet-4-5 retires on 2026-11-30 (anthropic "),
        ("anthropic:claude-sonnet-4-5", date(2026, 11, 1), "bad", "retires on 2026-11-30"),
        ("anthropic:claude-sonnet-4-5-20250929", date(2026, 11, 30), "bad", "was retired on 2026-11-30"),
        ("openai:gpt-4-turbo", date(2026, 11, 1), "note", "is called deprecated, without a date (langchain-openai "),
        ("google_genai:gemini-2.0-flash-lite", date(2026, 11, 1), "note", "is called deprecated, without a date (genai-prices "),
    ],
)
def test_a_model_that_retires_is_named_with_its_source(model, today, level, told):
    policy = Policy.default(tiers=Tiers.of({"cheap": model, "strong": "anthropic:claude-opus-5-5"}))
    (finding,) = _endings(policy, today)
    assert (finding.level, finding.code, told in finding.says) == (level, "retiring", True)


@pytest.mark.parametrize("preset", ["claude", "gpt"])
def test_todays_presets_retire_nothing(preset):
    assert list(_endings(Policy.default(tiers=preset), date(2026, 11, 23))) == []


def test_the_sdks_dates_are_all_understood():
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    endings = [ending_of(Deployment.parse(f"anthropic:{model}")) for model in DEPRECATED_MODELS]
    assert [model for model, ending in zip(DEPRECATED_MODELS, endings, strict=True) if ending is None or ending.on is None] == []


def test_a_parameter_a_tier_does_not_take_is_named(cli):
    code, found = diagnosed(cli, "--option", "temperature=0.2")
    assert code == 0
    assert "temperature" in found["parameter_changed"][0]


def test_a_silent_backend_is_found_within_two_seconds(cli, routed, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        code, found = diagnosed(cli, routed)
    assert (code, "2 of 2 spans did not reach" in found["exporter_silent"][0]) == (1, True)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--option", "temperature"], "is no NAME=VALUE"),
        (["--with", "openinference-openai"], "pip install openinference-instrumentation-openai"),
        (["--with", "nobody"], "invalid choice: 'nobody'"),
        (["nothing.py"], "nothing.py"),
    ],
)
def test_misuse_is_one_line_and_exit_2(argv, wanted, cli):
    code, out, err = cli("doctor", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert wanted in err


def test_people_read_marks_and_what_to_do(cli, plain):
    code, out, _ = cli("doctor", plain)
    assert code == 1
    assert "BAD" in out
    assert "→ use RoutedChatModel there" in out
    assert "simulated" in out


NODES = """
from typing import Annotated
from langchain_anthropic import ChatAnthropic
from langgraph.graph import END, START, MessagesState, StateGraph
from routed_agents import Router, RouterNode, join, watch

class State(MessagesState):
    routing: Annotated[dict, join]

router = Router.from_env()
model = ChatAnthropic(model="claude-opus-5-5", max_tokens=64)

async def answer(state):
    return {"messages": [await model.ainvoke(state["messages"])]}

builder = StateGraph(State)
builder.add_node("router", RouterNode(router, to={"cheap": "quick", "strong": "deep"}))
builder.add_node("quick", answer)
builder.add_node("deep", answer)
builder.add_edge(START, "router")
graph = watch(builder.compile(), router)
"""


def test_floors_for_nodes_that_decide_nothing_are_named(cli, tmp_path):
    (graph := tmp_path / "nodes_graph.py").write_text(NODES)
    (policy := tmp_path / "policy.toml").write_text(
        "".join(f'[[floor]]\ntier = "strong"\nnode = "{node}"\n' for node in ("quick", "replies", "depe"))
    )
    _, found = diagnosed(cli, graph, "--policy", policy)
    assert found["floor_behind_router"] == [
        'a floor is for node "quick", but the RouterNode "router" decides whether its step goes there → name node = "router" in the floor'
    ]
    known = "which nodes_graph does not have; its nodes: router, quick, deep"
    assert found["floor_without_node"] == [
        f'a floor is for node "replies", {known} → name a node of the graph, unless the floor is for another graph',
        f'a floor is for node "depe", {known} → did you mean "deep"?',
    ]


def test_floors_for_nodes_that_decide_are_not_named(cli, tmp_path):
    (graph := tmp_path / "floored_graph.py").write_text(NODES)
    (policy := tmp_path / "policy.toml").write_text(
        "".join(f'[[floor]]\ntier = "strong"\nnode = "{node}"\n' for node in ("router", "deep"))
    )
    _, found = diagnosed(cli, graph, "--policy", policy)
    assert [code for code in found if code.startswith("floor")] == []


def test_what_a_policy_can_hardly_mean_is_a_note(cli, echo, tmp_path):
    (policy := tmp_path / "policy.toml").write_text('[[floor]]\ntier = "strong"\nlabel = { tennant = "bolt" }\n')
    code, found = diagnosed(cli, echo, "--policy", policy)
    assert (code, 'Did you mean "tenant"?' in found["policy_doubtful"][0]) == (0, True)


def test_facts_that_a_router_had_no_room_for_are_named(cli, plain):
    forgetful = "Router(store=MemoryStateStore(threads=0, lasting=1))"
    kept = "from routed_agents.state import MemoryStateStore, thread_facts\n"
    Path(plain).write_text(
        kept
        + PLAIN.replace("Router.from_env()", forgetful)
        + "for thread in ('a', 'b', 'c'):\n    router.store.add(thread, thread_facts(['distress']))\n"
    )
    _, found = diagnosed(cli, plain)
    assert "given up pins and facts of 2 threads" in found["state_forgotten"][0]
