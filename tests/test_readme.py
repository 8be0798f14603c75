"""What the README shows runs as it stands, each block by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from routed_agents import Ledger, embedded, join

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def alone() -> Iterator[Callable[..., str]]:
    """Runs code as a program of its own, against the embedded provider; gives what it printed."""
    with embedded.serve() as provider:
        env = {**os.environ, **provider.environ, "NO_PROXY": "127.0.0.1", "ROUTED_AGENTS_POLICY": "embedded"}

        def run(folder: Path, *code: str) -> str:
            script = folder / "shown.py"
            script.write_text("\n".join(code), encoding="utf-8")
            ran = subprocess.run([sys.executable, script], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        yield run


NODE, MODEL, CLIENT, CONFIGURE = blocks("python")
CLIENTS = README.parent / "docs" / "clients.md"
ASKED = {"messages": [("user", "Is 'Go away!' rude? Answer yes or no.")]}


@pytest.mark.parametrize("shown", [MODEL, CLIENT, CONFIGURE, *blocks("python", CLIENTS)])
def test_a_python_block_runs_by_itself(shown: str, alone: Callable[..., str], tmp_path: Path) -> None:
    assert alone(tmp_path, shown) == ("cheap\n" if "print(" in shown else "")


def test_the_router_node_shown_routes_prices_and_takes_ten_lines(alone: Callable[..., str], tmp_path: Path) -> None:
    bill = "print(cost_of(ledger=router.ledger, thread='t1'))"
    printed = alone(
        tmp_path, NODE, "from routed_agents import cost_of", f"graph.invoke({ASKED}, {{'configurable': {{'thread_id': 't1'}}}})", bill
    )
    written = [line for line in NODE.splitlines() if line and "import" not in line]
    assert re.fullmatch(r"\$0\.\d+; all-strong \$0\.\d+; 1 step, 1 cheap \(simulated\)\n", printed), printed
    assert len(written) == 10


def test_the_three_added_lines_route_an_agent(alone: Callable[..., str], tmp_path: Path) -> None:
    (diff,) = blocks("diff")
    printed = alone(tmp_path, *[line[2:] for line in diff.splitlines()])
    assert re.fullmatch(r"\$0\.\d+; all-strong \$0\.\d+; 1 step, 1 cheap \(simulated\)\n", printed), printed
    assert sum(line.startswith("+") for line in diff.splitlines()) == 3


def test_the_demo_prints_the_tree_shown(tmp_path: Path) -> None:
    (shown,) = [each for each in blocks("text") if "desk-020" in each]
    argv = [sys.executable, "-m", "routed_agents", "demo", "--graph", "support_desk", "--limit", "20", "--out", str(tmp_path)]
    env = {**os.environ, "COLUMNS": "80"}
    ran = subprocess.run(argv, cwd=README.parent, env=env, capture_output=True, text=True, timeout=120, check=False)
    _, title, rest = ran.stdout.partition("support_desk · desk-020 (simulated)")
    assert _timeless(title + rest.partition("\n\n")[0]) == _timeless(shown)


def _timeless(tree: str) -> list[str]:
    """Its lines, without how long the run took."""
    title, *rest = [line.rstrip() for line in tree.strip().splitlines()]
    return [title.rpartition(" · ")[0], *rest]


PINS = README.parent / "docs" / "pins.md"


def test_the_release_and_the_lapses_shown_work(tmp_path: Path) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.store.memory import InMemoryStore

    from routed_agents import Policy
    from routed_agents.integrations.langgraph import facts

    class State(MessagesState):
        routing: Annotated[dict[str, Any], join]

    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("listen", lambda state: {"routing": facts("distress")})
    builder.add_edge(START, "listen")
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    graph.invoke({"messages": []}, config)
    noted = graph.get_state(config).values["routing"]["facts"]
    names: dict[str, Any] = {"graph": graph, "config": config}
    exec(blocks("python", PINS)[0], names)
    exec(blocks("python", PINS)[1], {"store": (store := InMemoryStore())})
    (shown,) = blocks("toml", PINS)
    path = tmp_path / "policy.toml"
    path.write_text(shown, encoding="utf-8")

    assert (noted, graph.get_state(config).values["routing"]["facts"]) == (["distress"], [])
    assert names["close_case"]({})["routing"]["marks"][0]["name"] == "distress"
    assert [item.value["marks"][0]["name"] for item in store.search(("routed_agents",))] == ["distress"]
    assert Policy.load(path).expiry == {"distress": 20, "legal": 0}


POLICY = README.parent / "docs" / "policy.md"


def test_the_guard_shown_raises_a_step() -> None:
    from routed_agents import Step

    (shown,) = blocks("python", POLICY)
    exec(shown, names := dict[str, Any]())
    decision = names["policy"].decide(Step.from_messages("Classify the sentiment: this contract is lovely", task_class="classification"))
    assert (decision.tier, decision.codes) == ("strong", ("contract",))


SERVING = README.parent / "docs" / "serving.md"
SERVED = """
import anthropic, os
from routed_agents import routed_anthropic

async def serve():
    client = routed_anthropic(anthropic.Anthropic(), router)
    async with lifespan(None):
        client.messages.create(model="auto", max_tokens=99, messages=[{"role": "user", "content": "Say hello."}])

asyncio.run(serve())
os._exit(0)
"""


def test_the_service_shown_closes_its_books(alone: Callable[..., str], tmp_path: Path) -> None:
    lifespan, flush, spent, _ = blocks("python", SERVING)
    alone(tmp_path, lifespan, SERVED)
    assert (tmp_path / "trace.jsonl").read_text().count('"chat claude') == 1
    with Ledger.sqlite(tmp_path / "costs.db", read_only=True) as ledger:
        assert ledger.total().attempts == 1
    assert alone(tmp_path, lifespan, "handle = configure(trace_file='trace.jsonl')", spent, flush) == "$0.00 0\n"


def test_the_policies_shown_for_a_service_load(tmp_path: Path) -> None:
    from routed_agents import Policy

    path = tmp_path / "policy.toml"
    path.write_text("".join(blocks("toml", SERVING)), encoding="utf-8")
    policy = Policy.load(path)
    assert (policy.labels, policy.trusted) == (("tenant", "user"), ())


JUDGES = README.parent / "docs" / "judges.md"


def test_the_judges_shown_load(tmp_path: Path) -> None:
    from routed_agents import Policy

    (shown,) = blocks("toml", JUDGES)
    path = tmp_path / "policy.toml"
    path.write_text(shown, encoding="utf-8")
    assert Policy.load(path).judge_models == ("anthropic:claude-haiku-5-5", "openai:gpt-6-luna")


def test_the_count_of_questions_shown_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from routed_agents import Step

    asked = ("Classify: lovely", "Make it better", "Work on this")
    (shown,) = blocks("python", JUDGES)
    exec(shown, {"steps": [Step.from_messages(text) for text in asked]})
    assert re.fullmatch(r"asked about [1-3] of 3 steps; [0-3] of those go strong now\n", capsys.readouterr().out)


def test_the_policy_shown_loads(tmp_path: Path) -> None:
    from routed_agents import Policy

    (shown,) = blocks("toml")
    path = tmp_path / "policy.toml"
    path.write_text(shown, encoding="utf-8")
    assert Policy.load(path).floors[0].metadata == (("vulnerable", True),)
