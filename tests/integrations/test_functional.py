"""The functional API: a `@task` called again is a lineage as a node is, and calls side by side are branches as `Send`'s are."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt

from routed_agents import Policy
from routed_agents.integrations import side_by_side

from .conftest import EASY, LOOP, Books
from .test_situations import Desk

PLAN = "Plan the migration in several steps and carry it out, using tools."
THREAD: Any = {"configurable": {"thread_id": "t"}}


def one_by_one(books: Books, store: Any = None) -> Any:
    """A workflow that waits for each call of its task before it makes the next."""
    model = books.model()

    @task
    def ask(text: str) -> str:
        return str(model.invoke(text).text)

    @entrypoint(checkpointer=InMemorySaver(), store=store)
    def flow(texts: list[str]) -> list[str]:
        return [ask(text).result() for text in texts]

    return flow.invoke


def one_by_one_async(books: Books, store: Any = None) -> Any:
    model = books.model()

    @task
    async def ask(text: str) -> str:
        return str((await model.ainvoke(text)).text)

    @entrypoint(checkpointer=InMemorySaver(), store=store)
    async def flow(texts: list[str]) -> list[str]:
        return [await ask(text) for text in texts]

    return lambda texts, config: LOOP.run_until_complete(flow.ainvoke(texts, config))


@pytest.mark.parametrize("store", [None, InMemoryStore()], ids=["router", "store"])
def test_calls_side_by_side_keep_their_turn_in_a_new_process(store: Any, books: Books) -> None:
    """There a call that is taken up alone has none beside it any more."""
    model = books.model(cheap=AIMessage("it was a", response_metadata={"stop_reason": "max_tokens"}), strong="whole")
    met = threading.Barrier(3)

    @task
    def ask(text: str, wait: bool) -> str:
        if not taken_up:
            met.wait(20)
        answer = str(model.invoke(text).text)
        if wait:
            interrupt("?")
        return answer

    @entrypoint(checkpointer=InMemorySaver(), store=store)
    def flow(texts: list[str]) -> list[str]:
        return [future.result() for future in [ask(text, text.endswith("1")) for text in texts]]

    taken_up: list[bool] = []
    flow.invoke([f"{EASY} {number}" for number in range(3)], THREAD)
    taken_up.append(True)
    side_by_side._BESIDE.clear()  # pyright: ignore[reportPrivateUsage]
    flow.invoke(Command(resume="go on"), THREAD)

    assert books.story[-1:] == [("strong", "accepted")]
    assert len(books.story) == 7


class Texts(Desk):
    texts: list[str]


def one_by_one_in_a_node(books: Books, store: Any = None) -> Any:
    model = books.model()

    @task
    def ask(text: str) -> str:
        return str(model.invoke(text).text)

    def node(state: Any) -> dict[str, Any]:
        return {"messages": [("ai", ask(text).result()) for text in state["texts"]]}

    builder: StateGraph[Any] = StateGraph(Texts)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=InMemorySaver(), store=store)
    return lambda texts, config: graph.invoke({"texts": texts}, config)


def at_once(books: Books, calls: int) -> Any:
    """A workflow that makes all its calls before it waits for one; none ends before each has had its answer."""
    answered = threading.Barrier(calls, timeout=10)

    @task
    def ask(text: str) -> str:
        answer = books.model().invoke(text)
        answered.wait()
        return str(answer.text)

    @entrypoint(checkpointer=InMemorySaver())
    def flow(texts: list[str]) -> list[str]:
        begun = [ask(text) for text in texts]
        return [call.result() for call in begun]

    return flow.invoke


WAYS = pytest.mark.parametrize("way", [one_by_one, one_by_one_async, one_by_one_in_a_node])
STORES = pytest.mark.parametrize("store", [lambda: None, InMemoryStore], ids=["process", "store"])


def lineage_pins(tmp_path: Path) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text('[[floor]]\ntier = "strong"\npin = "lineage"\nmetadata = { vip = true }\n')
    return Policy.load(path)


def tiers(books: Books) -> list[str]:
    return [entry.tier for entry in books.entries]


@STORES
@WAYS
def test_a_task_called_again_in_its_turn_never_falls(books, way, store):
    run = way(books, store())
    run([PLAN, EASY], THREAD)
    run([f"{EASY} too", f"{EASY} again"], THREAD)
    assert tiers(books) == ["strong", "strong", "cheap", "cheap"]


@STORES
@WAYS
def test_a_lineage_pin_of_a_task_holds_in_the_next_turn(tmp_path, way, store):
    books = Books(lineage_pins(tmp_path))
    run = way(books, store())
    config = {"configurable": {"thread_id": f"{way.__name__}"}}
    run([EASY], {**config, "metadata": {"vip": True}})
    run([f"{EASY} too"], config)
    assert tiers(books) == ["strong", "strong"]


def test_tasks_called_one_by_one_leave_one_lineage(books):
    run = one_by_one(books)
    for number in range(20):
        run([f"{PLAN} {number}", EASY], THREAD)
    assert {entry.lineage for entry in books.entries} == {"flow/ask"}


def test_calls_at_once_are_branches(books):
    at_once(books, 4)([PLAN, EASY, EASY, EASY], THREAD)
    assert sorted(tiers(books)) == ["cheap", "cheap", "cheap", "strong"]


def test_a_call_that_waits_for_a_person_stays_the_branch_it_was(books):
    """Its siblings have ended when it is run again; what its lost attempt pinned still holds."""
    declared = {PLAN: ["agentic_chain", "classification"]}
    others = threading.Event()

    @task
    def ask(text: str) -> str:
        answer = books.model(task_class=declared.get(text, ["classification"]).pop(0)).invoke(text)
        if text == PLAN:
            others.wait(10)
            interrupt("go on?")
        others.set()
        return str(answer.text)

    @entrypoint(checkpointer=InMemorySaver())
    def flow(texts: list[str]) -> list[str]:
        calls = [ask(text) for text in texts]
        return [call.result() for call in calls]

    flow.invoke([EASY, PLAN], THREAD)
    flow.invoke(Command(resume=True), THREAD)
    assert sorted(tiers(books)) == ["cheap", "strong", "strong"]
