"""Turn and lineage pins of a graph that runs in a node of another one, whose own channel may not outlast the visit."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from routed_agents import Policy, RouterMiddleware, Verdict, join
from routed_agents.guards import named

from .conftest import EASY, HAIKU, OPUS, Books, scripted

PLAN = "Plan the migration in several steps and carry it out, using tools."


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


@named("vip", version="1")
def vip(seen: Any) -> Verdict | None:
    return Verdict(guard="vip", code="vip", floor=1, pin="lineage") if "VIP" in seen.features.spoken else None


class Visits:
    """A graph whose node `work` visits another graph, once for each prompt of a turn."""

    def __init__(self, kind: str, store: Any, way: str = "edge") -> None:
        self.books = Books(Policy.default().replace(guards=[*Policy.default().guards, vip]))
        self.prompts: list[str] = []
        self.way = way
        builder: StateGraph[Any] = StateGraph(Desk)
        if way == "called":
            inner = self.inner(kind)
            builder.add_node(
                "work", lambda state: {"messages": inner.invoke({"messages": [HumanMessage(self.prompts.pop(0))]})["messages"]}
            )
        else:
            builder.add_node("work", self.inner(kind), destinations=("work", END))
        builder.add_edge(START, "work")
        if way != "parent":
            builder.add_conditional_edges("work", lambda state: "work" if self.prompts else END, ["work", END])
        self.graph = builder.compile(checkpointer=InMemorySaver(), store=store)

    def inner(self, kind: str) -> Any:
        if kind == "agent":
            return create_agent(
                scripted(OPUS, "s"), [], middleware=[RouterMiddleware(self.books.router, cheap=scripted(HAIKU, "c"))], name="agent"
            )
        model = self.books.model()

        def ask(state: Any) -> Any:
            answer = model.invoke(state["messages"] if self.way == "called" else self.prompts.pop(0))
            update = {"messages": [AIMessage(answer.text)]}
            if self.way == "parent":
                return Command(graph=Command.PARENT, goto="work" if self.prompts else END, update=update)
            return update

        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("ask", ask)
        builder.add_edge(START, "ask")
        return builder.compile()

    def turn(self, *prompts: str, thread: str = "t") -> list[str]:
        before = len(self.books.entries)
        self.prompts = [*prompts]
        self.graph.invoke({"messages": [HumanMessage("go")]}, {"configurable": {"thread_id": thread}})
        return [entry.tier for entry in self.books.entries[before:]]


WAYS = [("agent", "called"), ("graph", "called"), ("graph", "edge"), ("graph", "parent")]


@pytest.mark.parametrize("stored", [False, True], ids=["router", "store"])
@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_turn_pin_holds_when_the_node_is_visited_again(kind, way, stored):
    visits = Visits(kind, InMemoryStore() if stored else None, way)
    assert visits.turn(PLAN, EASY) == ["strong", "strong"]
    assert visits.turn(f"{EASY} too", f"{EASY} as well") == ["cheap", "cheap"]
    assert visits.turn(EASY, thread="other") == ["cheap"]


@pytest.mark.parametrize("stored", [False, True], ids=["router", "store"])
@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_lineage_pin_holds_in_the_next_turn(kind, way, stored):
    visits = Visits(kind, InMemoryStore() if stored else None, way)
    assert visits.turn(f"VIP: {EASY}") == ["strong"]
    assert visits.turn(EASY) == ["strong"]
    assert visits.turn(EASY, thread="other") == ["cheap"]


def test_a_long_thread_keeps_a_bounded_number_of_pins():
    store = InMemoryStore()
    visits = Visits("agent", store, "called")
    for _ in range(80):
        visits.turn(PLAN)
    kept = [item for item in store.search(("routed_agents",), limit=10_000) if "lineages" in item.namespace]
    assert 10 < len(kept) <= 64
