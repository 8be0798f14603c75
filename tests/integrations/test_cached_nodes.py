"""What LangGraph's node cache kept answers every thread with the same key; a routed call says so where pins and facts are in none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.types import CachePolicy, Send

from routed_agents import RouterNode, complaints, join
from routed_agents.integrations import cached_nodes

from .conftest import EASY, Books


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


@dataclass
class Classed:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    routing: Annotated[dict[str, Any], join] = field(default_factory=dict)


def words(state: Any) -> str:
    """A key of what was said, and nothing else."""
    return (state["messages"] if isinstance(state, dict) else state.messages)[-1].text


def said_and_known(state: Any) -> str:
    """A key with the facts of the thread in it."""
    known = state["routing"] if isinstance(state, dict) else state.routing
    return f"{words(state)} {known.get('facts')}"


def model(books: Books) -> Any:
    routed = books.model()
    return lambda state: {"messages": [routed.invoke(EASY)]}


def node(books: Books) -> Any:
    return RouterNode(books.router)


def subgraph(books: Books) -> Any:
    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("reply", model(books))
    builder.add_edge(START, "reply")
    return builder.compile()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "cached" in record.message]


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complaints, "_TOLD", set())
    monkeypatch.setattr(cached_nodes, "_KNOWN", {})


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 0),
        ({"cache_policy": CachePolicy()}, 0),
        ({"cache_policy": CachePolicy(key_func=said_and_known)}, 0),
        ({"cache_policy": CachePolicy(key_func=words)}, 1),
        ({"cache_policy": CachePolicy(), "input_schema": MessagesState}, 1),
    ],
)
@pytest.mark.parametrize("schema", [Desk, Classed])
@pytest.mark.parametrize("made", [model, node, subgraph])
def test_a_routed_call_in_a_node_cached_without_routing_is_told_once(
    made: Callable[[Books], Any], schema: Any, settings: Any, count: int, books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    builder: StateGraph[Any] = StateGraph(schema)
    builder.add_node("reply", made(books), **settings)
    builder.add_edge(START, "reply")
    graph = builder.compile(cache=InMemoryCache())
    for text in (EASY, f"{EASY}!"):
        graph.invoke({"messages": [HumanMessage(text)]})
    assert [message.partition(":")[0] for message in told(caplog)] == [
        'node "reply" makes a routed call and is cached under a key without "routing"'
    ] * count


@pytest.mark.parametrize("cache", [None, InMemoryCache()])
def test_a_cached_task_with_a_routed_call_is_told(cache: Any, books: Books, caplog: pytest.LogCaptureFixture) -> None:
    routed = books.model()

    @task(cache_policy=CachePolicy())
    def reply(text: str) -> str:
        return routed.invoke(text).text

    @entrypoint(cache=cache)
    def flow(text: str) -> str:
        return reply(text).result()

    flow.invoke(EASY)
    assert len(told(caplog)) == (cache is not None)


@pytest.mark.parametrize(("settings", "calls"), [({}, 2), ({"input_schema": MessagesState}, 1)])
def test_a_function_that_makes_keys_is_asked_once_more_at_most(settings: Any, calls: int, books: Books) -> None:
    routed, asked = books.model(), list[Any]()

    def key(state: Any) -> str:
        asked.append(state)
        return words(state)

    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node(
        "reply", lambda state: {"messages": [routed.invoke(EASY) for _ in range(10)]}, cache_policy=CachePolicy(key_func=key), **settings
    )
    builder.add_edge(START, "reply")
    builder.compile(cache=InMemoryCache()).invoke({"messages": [HumanMessage(EASY)]})
    assert len(asked) == calls


class Fixed(NamedTuple):
    text: str
    routing: tuple[str, ...] = ()


class Worked:
    """Makes its `routing` whenever it is asked."""

    @property
    def routing(self) -> dict[str, Any]:
        return {}


class Broken:
    """Cannot make its `routing`."""

    @property
    def routing(self) -> dict[str, Any]:
        raise RuntimeError("out of order")


def refused(state: Any) -> str:
    """A key that there is only for what LangGraph gives the node itself."""
    if isinstance(state, dict) and "another" in state["routing"].get("facts", ()):
        raise ValueError("who is that?")
    return "key"


@pytest.mark.parametrize("given", [Fixed(EASY), Worked(), Broken(), {"routing": {}}])
def test_an_input_that_cannot_be_looked_into_goes_its_way(given: Any, books: Books) -> None:
    routed = books.model()
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("reply", lambda state: {"messages": [routed.invoke(EASY)]}, cache_policy=CachePolicy(key_func=refused))
    builder.add_conditional_edges(START, lambda state: [Send("reply", given)], ["reply"])
    result = builder.compile(cache=InMemoryCache()).invoke({"messages": [HumanMessage(EASY)]})
    assert result["messages"][-1].text == "yes"
