"""Pins and facts of a graph that runs in a node of another one: its own channel may not outlast the visit, and the thread's is outside."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send

from routed_agents import Policy, RouterMiddleware, Verdict, complaints, join
from routed_agents.guards import named
from routed_agents.integrations.langgraph import facts, release

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


ASK = "What time do you open?"
"""Cheap, unless the thread is in distress."""


class Case:
    """A graph whose node `reply` makes its step in another graph, with a state of its own."""

    def __init__(self, kind: str, *, store: Any = None, policy: Policy | None = None, intake: Any = None, outer: Any = Desk) -> None:
        self.saver, self.store, self.kind, self.policy = InMemorySaver(), store, kind, policy
        self.intake = intake or (lambda state: {})
        self.outer = outer
        self.ask = ASK
        self.restart()

    def restart(self) -> None:
        """A new process: all that is left is the saver, and the store."""
        self.books = Books(self.policy)
        builder: StateGraph[Any] = StateGraph(self.outer)
        builder.add_node("intake", self.intake)
        builder.add_node("reply", self.reply())
        builder.add_edge(START, "intake")
        builder.add_edge("intake", "reply")
        self.graph = builder.compile(checkpointer=self.saver, store=self.store)

    def reply(self) -> Any:
        model = self.books.model()
        if self.kind == "entrypoint":

            @entrypoint()
            def flow(question: str) -> str:
                return model.invoke([HumanMessage(question)]).text

            return lambda state: {"messages": [AIMessage(flow.invoke(self.ask))]}
        if self.kind == "agent":
            inner: Any = create_agent(scripted(OPUS, "s"), [], middleware=[RouterMiddleware(self.books.router, cheap=scripted(HAIKU, "c"))])
        else:
            builder: StateGraph[Any] = StateGraph(Desk if self.kind == "with a channel" else MessagesState)
            builder.add_node("say", lambda state: {"messages": [model.invoke([HumanMessage(self.ask)])]})
            builder.add_edge(START, "say")
            inner = builder.compile()
        if self.kind == "a node":
            return inner
        threads = {"of its own thread": "another", "given the thread": "t"}
        own = {"configurable": {"thread_id": threads[self.kind]}} if self.kind in threads else None
        return lambda state: {"messages": [AIMessage(inner.invoke({"messages": [HumanMessage(self.ask)]}, own)["messages"][-1].text)]}

    def turn(self, words: str = "and?", *, thread: str = "t", **config: Any) -> str:
        """The tier of the reply."""
        self.graph.invoke({"messages": [HumanMessage(words)]}, {"configurable": {"thread_id": thread}, **config})
        return self.books.entries[-1].tier

    def update(self, routing: Any) -> None:
        self.graph.update_state({"configurable": {"thread_id": "t"}}, {"routing": routing}, as_node="reply")


INNER = ["a node", "with a channel", "without a channel", "agent", "entrypoint"]


def note_distress(state: Any) -> Any:
    return {"routing": facts("distress")} if "desperate" in state["messages"][-1].text else {}


@pytest.mark.parametrize("stored", [False, True], ids=["router", "store"])
@pytest.mark.parametrize("kind", INNER)
def test_a_fact_that_a_node_notes_holds_in_the_graphs_inside(kind, stored):
    case = Case(kind, store=InMemoryStore() if stored else None, intake=note_distress)
    assert case.turn("I am desperate.") == "strong"
    case.restart()
    assert case.turn() == "strong"
    assert case.turn(thread="other") == "cheap"


@pytest.mark.parametrize("kind", INNER)
def test_a_fact_that_a_person_notes_holds_in_the_graphs_inside_until_it_is_released(kind):
    case = Case(kind)
    assert case.turn() == "cheap"
    case.update(facts("distress"))
    assert case.turn() == "strong"
    case.update(release("distress"))
    case.ask = f"{ASK} On Sundays, too?"
    assert case.turn() == "cheap"


@pytest.mark.parametrize("kind", INNER)
def test_a_thread_pin_in_the_checkpoints_holds_in_the_graphs_inside(kind, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('[[floor]]\ntier = "strong"\nmetadata = { legal = true }\npin = "thread"\ncode = "legal"\n', "utf-8")
    case = Case(kind, policy=Policy.load(path))
    case.update({"v": 1, "pins": [{"scope": "thread", "tier": "strong", "code": "legal", "seq": 1}], "facts": []})
    assert case.turn() == "strong"


def test_a_graph_in_a_node_with_a_thread_of_its_own_has_no_fact_of_the_other():
    case = Case("of its own thread", intake=note_distress)
    assert case.turn("I am desperate.") == "cheap"


@pytest.mark.parametrize("stored", [False, True], ids=["router", "store"])
def test_a_graph_in_a_node_that_is_given_the_threads_own_id_is_unsure_and_the_log_says_why(stored, caplog, monkeypatch):
    monkeypatch.setattr(complaints, "_TOLD", set())
    case = Case("given the thread", store=InMemoryStore() if stored else None, intake=note_distress)
    assert case.turn("I am desperate.") == "strong"
    assert case.books.entries[-1].codes == ("state_unread",)
    [told] = [record.getMessage() for record in caplog.records]
    assert 'node "reply"' in told
    assert "call it without a thread_id" in told


def test_a_fact_holds_in_the_graphs_inside_where_there_is_no_thread():
    case = Case("agent", intake=note_distress)
    case.saver = None
    case.restart()
    case.graph.invoke({"messages": [HumanMessage("I am desperate.")]})
    assert case.books.entries[-1].tier == "strong"


async def test_a_fact_holds_in_the_branches_of_a_graph_inside():
    books = Books()
    model = books.model()

    async def say(state: Any) -> Any:
        await model.ainvoke([HumanMessage(ASK)])
        return {}

    inner: StateGraph[Any] = StateGraph(MessagesState)
    inner.add_node("say", say)
    inner.add_conditional_edges(START, lambda state: [Send("say", state), Send("say", state)], ["say"])
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("work", inner.compile())
    builder.add_conditional_edges(START, lambda state: [Send("work", state), Send("work", state)], ["work"])
    given = {"messages": [HumanMessage("go")], "routing": facts("distress")}
    await builder.compile().ainvoke(given, {"configurable": {"thread_id": "t"}})
    assert [entry.tier for entry in books.entries] == ["strong"] * 4


class Own(MessagesState):
    routing: str


def test_a_routing_key_of_ones_own_around_is_left_alone(caplog):
    case = Case("agent", outer=Own)
    case.graph.invoke({"messages": [HumanMessage("hi")], "routing": "mine"}, {"configurable": {"thread_id": "t"}})
    assert case.books.entries[-1].tier == "cheap"
    assert not caplog.records
