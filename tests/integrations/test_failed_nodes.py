"""What a routed call writes into its graph changes nothing of how LangGraph goes on: failed nodes run again, and each tells one update."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.errors import NodeTimeoutError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy

from routed_agents import RouterNode, join
from routed_agents.integrations.langgraph import facts

from .conftest import EASY, OPUS, Books, scripted

PLAN = "Plan the migration in several steps and carry it out, using tools."
THREAD: Any = {"configurable": {"thread_id": "t"}}
GO: Any = {"messages": [HumanMessage(PLAN)]}


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


class Crash(Exception):
    """What ends a node in the middle."""


class Nodes:
    """Nodes that ask a routed model, or a bare one, and fail afterwards until they are mended."""

    def __init__(self, *, bare: bool = False) -> None:
        self.books = Books()
        self.model: Any = scripted(OPUS, "no") if bare else self.books.model()
        self.broken = True
        self.ran: list[str] = []

    def good(self, state: Any) -> dict[str, Any]:
        self.ran.append("good")
        return {"messages": [self.model.invoke(PLAN)]}

    def bad(self, state: Any) -> dict[str, Any]:
        self.ran.append("bad")
        answer = self.model.invoke(state["messages"])
        if self.broken:
            time.sleep(0.1)  # LangGraph loses what a neighbour ends with after a failure has ended the run
            raise Crash
        return {"messages": [answer]}

    async def abad(self, state: Any) -> dict[str, Any]:
        self.ran.append("bad")
        answer = await self.model.ainvoke(state["messages"])
        if self.broken:
            raise Crash
        return {"messages": [answer]}

    def builder(self, *, bad: Any = None, beside: bool = True, **options: Any) -> StateGraph[Any]:
        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("bad", bad or self.bad, **options)
        builder.add_edge(START, "bad")
        if beside:
            builder.add_node("good", self.good)
            builder.add_edge(START, "good")
        builder.add_node("last", lambda state: self.ran.append("last") or {})
        builder.add_edge("bad", "last")
        return builder

    def twice(self, graph: Any, *, mended: bool = True) -> list[str]:
        """What runs when the cut-off run is taken up."""
        with suppress(Crash):
            graph.invoke(GO, THREAD)
        self.ran.clear()
        self.broken = not mended
        graph.invoke(None, THREAD)
        return self.ran

    async def atwice(self, graph: Any, failure: type[Exception] = Crash) -> list[str]:
        """What runs when the cut-off async run is taken up."""
        with pytest.raises(failure):
            await graph.ainvoke(GO, THREAD)
        self.ran.clear()
        self.broken = False
        await graph.ainvoke(None, THREAD)
        return self.ran


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
        return
    with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as made:
        yield made


def pins_of(graph: Any) -> list[tuple[str, str]]:
    routing = graph.get_state(THREAD).values.get("routing") or {"pins": []}
    return sorted((pin["key"], pin["tier"]) for pin in routing["pins"])


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("beside", [True, False])
def test_the_failed_node_runs_again_and_only_it(saver, bare, beside):
    nodes = Nodes(bare=bare)
    assert nodes.twice(nodes.builder(beside=beside).compile(checkpointer=saver)) == ["bad", "last"]


def test_its_pins_and_its_neighbours_are_in_the_channel_afterwards(saver):
    nodes = Nodes()
    graph = nodes.builder().compile(checkpointer=saver)
    nodes.twice(graph)
    assert pins_of(graph) == [("bad", "strong"), ("good", "strong")]


async def test_the_failed_node_runs_again_in_an_async_run(tmp_path):
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        nodes = Nodes()
        graph = nodes.builder(bad=nodes.abad, beside=False).compile(checkpointer=saver)
        assert await nodes.atwice(graph) == ["bad", "last"]


async def test_a_node_that_is_cancelled_for_its_neighbours_failure_runs_again():
    nodes = Nodes()

    async def slow(state: Any) -> dict[str, Any]:
        nodes.ran.append("slow")
        await nodes.model.ainvoke(PLAN)
        if nodes.broken:
            await asyncio.sleep(10)
        return {}

    async def bad(state: Any) -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return await nodes.abad(state)

    builder = nodes.builder(bad=bad, beside=False)
    builder.add_node("slow", slow)
    builder.add_edge(START, "slow")
    graph = builder.compile(checkpointer=InMemorySaver())
    assert sorted(await nodes.atwice(graph)) == ["bad", "last", "slow"]


async def test_a_node_that_runs_out_of_time_runs_again():
    nodes = Nodes()

    async def slow(state: Any) -> dict[str, Any]:
        nodes.ran.append("bad")
        await nodes.model.ainvoke(state["messages"])
        if nodes.broken:
            await asyncio.sleep(10)
        return {}

    graph = nodes.builder(bad=slow, beside=False, timeout=timedelta(seconds=0.3)).compile(checkpointer=InMemorySaver())
    assert await nodes.atwice(graph, NodeTimeoutError) == ["bad", "last"]
    assert pins_of(graph) == [("bad", "strong")]


def test_a_step_that_failed_in_an_outage_is_made_when_the_run_is_taken_up(saver):
    """The way out of an outage: nothing is answered by a lower tier, and nothing is left out afterwards."""
    down = True

    def strong(messages: Any) -> str:
        if down:
            raise ConnectionError("down")
        return "planned"

    books = Books()
    model = books.model(strong=strong)
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("plan", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "plan")
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(ConnectionError):
        graph.invoke(GO, THREAD)
    down = False
    assert graph.invoke(None, THREAD)["messages"][-1].text == "planned"


def test_a_failed_node_tells_no_update():
    nodes = Nodes()
    graph = nodes.builder(beside=False).compile(checkpointer=InMemorySaver())
    told: list[Any] = []
    with suppress(Crash):
        told.extend(graph.stream(GO, THREAD, stream_mode="updates"))
    assert told == []


def test_a_failed_node_of_a_subgraph_runs_again(saver):
    nodes = Nodes()
    outer: StateGraph[Any] = StateGraph(Desk)
    outer.add_node("sub", nodes.builder(beside=False).compile())
    outer.add_edge(START, "sub")
    assert nodes.twice(outer.compile(checkpointer=saver)) == ["bad", "last"]


def test_a_retry_leaves_one_write():
    nodes = Nodes()

    def mending(state: Any) -> dict[str, Any]:
        try:
            return nodes.bad(state)
        finally:
            nodes.broken = False

    graph = nodes.builder(bad=mending, beside=False, retry_policy=RetryPolicy(initial_interval=0.01, retry_on=Crash)).compile(
        checkpointer=InMemorySaver()
    )
    graph.invoke(GO, THREAD)
    assert pins_of(graph) == [("bad", "strong")]


def test_what_a_cached_node_wrote_comes_from_the_cache():
    nodes = Nodes()
    nodes.broken = False
    builder = nodes.builder(beside=False, cache_policy=CachePolicy(key_func=lambda state: "same"))
    graph = builder.compile(checkpointer=InMemorySaver(), cache=InMemoryCache())
    graph.invoke(GO, THREAD)
    other: Any = {"configurable": {"thread_id": "other"}}
    graph.invoke(GO, other)
    assert nodes.ran == ["bad", "last", "last"]
    assert [pin["key"] for pin in graph.get_state(other).values["routing"]["pins"]] == ["bad"]


def test_an_edge_that_fails_after_routing_is_decided_again(saver):
    nodes = Nodes()
    route = RouterNode(nodes.books.router, to={"cheap": END, "strong": "last"})

    def onward(state: Any) -> Any:
        nodes.ran.append("edge")
        goto = route.edge(state)
        if nodes.broken:
            raise Crash
        return goto

    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("first", lambda state: nodes.ran.append("first") or {})
    builder.add_node("last", lambda state: nodes.ran.append("last") or {})
    builder.add_edge(START, "first")
    builder.add_conditional_edges("first", onward, ["last", END])
    assert nodes.twice(builder.compile(checkpointer=saver))[-1] == "last"


def test_an_easy_step_is_cheap_as_ever(saver):
    nodes = Nodes()
    nodes.broken = False
    nodes.builder(beside=False).compile(checkpointer=saver).invoke({"messages": [HumanMessage(EASY)]}, THREAD)
    assert [entry.tier for entry in nodes.books.entries] == ["cheap"]


# ---- an error handler goes on in the node's place -------------------------------------------------------------------------


@pytest.mark.parametrize("store", [None, InMemoryStore()])
def test_what_a_handled_node_found_holds(store):
    """The handler sends the run back to the node, whose step of the same turn has an easy prompt this time."""
    nodes = Nodes()
    prompts = iter([PLAN, EASY])

    def work(state: Any) -> Command[Any]:
        first = not nodes.books.entries
        nodes.model.invoke(next(prompts))
        if first:
            raise Crash
        return Command(goto=END)

    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("work", work, error_handler=lambda state: Command(goto="work"), destinations=("work", END))
    builder.add_edge(START, "work")
    builder.compile(checkpointer=InMemorySaver(), store=store).invoke(GO, THREAD)
    assert [entry.tier for entry in nodes.books.entries] == ["strong", "strong"]


def test_a_handler_that_fails_is_run_again_and_the_node_is_not(saver):
    nodes = Nodes()

    def handler(state: Any) -> Command[Any]:
        nodes.ran.append("handler")
        if nodes.broken:
            raise Crash
        return Command(goto="last")

    def bad(state: Any) -> dict[str, Any]:
        nodes.ran.append("bad")
        nodes.model.invoke(state["messages"])
        raise ValueError

    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("bad", bad, error_handler=handler, destinations=("last",))
    builder.add_node("last", lambda state: nodes.ran.append("last") or {})
    builder.add_edge(START, "bad")
    graph = builder.compile(checkpointer=saver)
    assert nodes.twice(graph) == ["handler", "last"]
    assert pins_of(graph) == [("bad", "strong")]


# ---- one update for a node ------------------------------------------------------------------------------------------------


def noting(nodes: Nodes, *, gathered: bool) -> Any:
    def node(state: Any) -> dict[str, Any]:
        prompts = [PLAN, f"{PLAN} Now."]
        answers = nodes.model.batch(prompts) if gathered else [nodes.model.invoke(prompt) for prompt in prompts]
        return {"messages": answers[:1], "routing": facts("distress")}

    return node


@pytest.mark.parametrize("gathered", [False, True])
def test_a_node_tells_one_update_however_many_calls_it_makes(gathered):
    nodes = Nodes()
    graph = nodes.builder(bad=noting(nodes, gathered=gathered), beside=False).compile(checkpointer=InMemorySaver())
    (update,) = [chunk["bad"] for chunk in graph.stream(GO, THREAD, stream_mode="updates") if "bad" in chunk]
    assert (len(update["messages"]), len(update["routing"]["pins"]), update["routing"]["facts"]) == (1, 2, ["distress"])
    kept = graph.get_state(THREAD).values["routing"]
    assert (len(kept["pins"]), kept["facts"]) == (2, ["distress"])
