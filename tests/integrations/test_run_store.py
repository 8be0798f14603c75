"""The run's LangGraph store: what a step does where it fails, and what long threads leave in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite.aio import AsyncSqliteStore

from .conftest import EASY, Books

GRIEF = "My mother died last week and I cannot cope with this bill. Please write me a short reply."
REPLY = "Write a short friendly reply to the customer: thanks for waiting."
THREAD = {"configurable": {"thread_id": "t"}}


class Unsteady(InMemoryStore):
    """A store that refuses so many batches of operations, or all where it is below 0."""

    refusals = 0

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        self._refuse()
        return super().batch(ops)

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        self._refuse()
        return await super().abatch(ops)

    def _refuse(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("the store is down")


def desk(books: Books, store: Any, *, way: str = "sync") -> Any:
    """A graph without a `routing` channel, whose node is given the person's last words only."""
    model = books.model()

    def reply(state: Any) -> Any:
        return {"messages": [model.invoke([HumanMessage(state["messages"][-1].text)])]}

    async def areply(state: Any) -> Any:
        return {"messages": [await model.ainvoke([HumanMessage(state["messages"][-1].text)])]}

    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("reply", reply if way == "sync" else areply)
    builder.add_edge(START, "reply")
    builder.add_edge("reply", END)
    return builder.compile(store=store)


async def say(graph: Any, text: str, way: str = "sync") -> None:
    given: Any = {"messages": [HumanMessage(text)]}
    await graph.ainvoke(given, THREAD) if way == "async" else graph.invoke(given, THREAD)


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_step_is_unsure_where_the_store_cannot_be_read(books, way):
    graph = desk(books, store := Unsteady(), way=way)
    await say(graph, GRIEF, way)
    store.refusals = -1
    await say(graph, REPLY, way)
    assert [(entry.tier, entry.codes) for entry in books.entries][-1] == ("strong", ("state_unread",))


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_what_the_store_could_not_take_holds_in_this_process(books, way):
    graph = desk(books, store := Unsteady(), way=way)
    store.refusals = -1
    await say(graph, GRIEF, way)
    store.refusals = 0
    await say(graph, REPLY, way)
    assert [(entry.tier, entry.codes) for entry in books.entries][-1] == ("strong", ("empathy",))


async def test_a_store_that_fails_for_a_moment_is_asked_again(books):
    graph = desk(books, store := Unsteady())
    await say(graph, EASY)
    store.refusals = 2
    await say(graph, EASY)
    assert books.story == [("cheap", "accepted"), ("cheap", "accepted")]


async def test_a_blocking_call_that_an_asynchronous_store_refuses_is_unsure(books):
    model = books.model()

    async def reply(state: Any) -> Any:
        return {"messages": [model.invoke([HumanMessage(EASY)])]}

    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    async with AsyncSqliteStore.from_conn_string(":memory:") as store:
        await store.setup()
        await say(builder.compile(store=store), EASY, "async")
    assert [entry.codes for entry in books.entries] == [("state_unread",)]
