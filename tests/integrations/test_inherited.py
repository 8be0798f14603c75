"""A config given with a call adds to what the node hands down, and never takes the node and its pins away; threads inherit it, too."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore

from routed_agents import Policy, complaints, join
from routed_agents.integrations.langgraph import facts

from .conftest import Books


class State(MessagesState):
    routing: Annotated[dict[str, Any], join]


GIVEN = [
    None,
    {"metadata": {"task_class": "rag_lookup"}},
    {"metadata": {"tenant": "acme"}, "tags": ["mine"]},
    {"configurable": {"temperature": 0}},
    {"configurable": {"thread_id": "t"}},
]


@pytest.mark.parametrize("given", GIVEN)
def test_a_config_of_ones_own_leaves_node_and_facts_in_place(given: Any, books: Books) -> None:
    model = books.model(task_class="rag_lookup")
    builder = StateGraph(State)
    builder.add_node("note", lambda state: {"routing": facts("distress")})
    builder.add_node("reply", lambda state: {"messages": [model.invoke(state["messages"], given)]})
    builder.add_edge(START, "note")
    builder.add_edge("note", "reply")
    builder.add_edge("reply", END)
    builder.compile().invoke({"messages": "What are your opening hours?"}, {"configurable": {"thread_id": "t"}})

    assert [(entry.node, entry.thread, entry.tier) for entry in books.entries] == [("reply", "t", "strong")]


@dataclass
class Context:
    tenant: str = "vip"


@pytest.mark.parametrize("given", [{"configurable": {"temperature": 0}}, {"configurable": {"thread_id": "another"}}])
def test_a_config_of_ones_own_leaves_the_labels_of_the_runs_context_in_place(given: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[[floor]]\ntier = "strong"\nlabel = { tenant = "vip" }\n', "utf-8")
    books = Books(Policy.load(path))
    model = books.model(task_class="rag_lookup")
    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node("reply", lambda state: {"messages": [model.invoke(state["messages"], given)]})
    builder.add_edge(START, "reply")
    builder.compile().invoke({"messages": "What are your opening hours?"}, {"configurable": {"thread_id": "t"}}, context=Context())

    assert [(entry.tier, entry.labels["tenant"]) for entry in books.entries] == [("strong", "vip")]


def test_a_thread_of_its_own_that_a_call_is_given_has_no_fact_of_the_other(books: Books) -> None:
    model = books.model(task_class="rag_lookup")
    builder = StateGraph(State)
    builder.add_node("note", lambda state: {"routing": facts("distress")})
    builder.add_node("reply", lambda state: {"messages": [model.invoke(state["messages"], {"configurable": {"thread_id": "another"}})]})
    builder.add_edge(START, "note")
    builder.add_edge("note", "reply")
    builder.compile().invoke({"messages": "What are your opening hours?"}, {"configurable": {"thread_id": "t"}})

    assert [(entry.thread, entry.tier) for entry in books.entries] == [("another", "cheap")]


class Chain:
    """A graph whose node `reply` calls a chain that is configured on its own, then asks again by the model alone."""

    def __init__(self, *, handed_on: bool, said: str = "What are your opening hours?", store: Any = None) -> None:
        self.books = Books()
        model = self.books.model(task_class="rag_lookup")
        chain = (ChatPromptTemplate.from_messages([("user", said)]) | model).with_config(configurable={"session": "s"})
        builder = StateGraph(State)
        builder.add_node("reply", lambda state, config: {"messages": [chain.invoke({}, config if handed_on else None)]})
        builder.add_node("ask", lambda state: {"messages": [model.invoke("What are your opening hours?")]})
        builder.add_edge(START, "reply")
        builder.add_edge("reply", "ask")
        self.graph = builder.compile(store=store)

    def turn(self, **given: Any) -> list[tuple[str, tuple[str, ...]]]:
        self.graph.invoke({"messages": "Hello", **given}, {"configurable": {"thread_id": "t"}})
        return [(entry.tier, entry.codes) for entry in self.books.entries]


def test_a_chain_that_is_configured_on_its_own_is_unsure_in_a_node_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complaints, "_TOLD", set())
    chain = Chain(handed_on=False)

    assert chain.turn() == [("strong", ("state_unread",)), ("cheap", ())]
    chain.turn()
    [told] = [record.getMessage() for record in caplog.records]
    assert 'node "reply"' in told
    assert "chain.with_config(configurable=...).invoke(input, config)" in told


def test_a_chain_that_is_handed_the_nodes_config_knows_the_facts(caplog: pytest.LogCaptureFixture) -> None:
    assert Chain(handed_on=True).turn() == [("cheap", ()), ("cheap", ())]
    assert Chain(handed_on=True).turn(routing=facts("distress")) == [("strong", ("empathy",))] * 2
    assert not caplog.records


@pytest.mark.parametrize("stored", [False, True], ids=["router", "store"])
def test_what_a_chain_hears_that_is_configured_on_its_own_comes_back_to_the_graph(stored: bool) -> None:
    chain = Chain(handed_on=False, said="My mother died yesterday and I am desperate.", store=InMemoryStore() if stored else None)

    assert [codes for _, codes in chain.turn()] == [("empathy", "state_unread"), ("empathy",)]


HANDED_ON: dict[str, Callable[[ThreadPoolExecutor, Any, str, RunnableConfig], Any]] = {
    "config": lambda pool, model, text, config: pool.submit(model.invoke, text, config),
    "context": lambda pool, model, text, config: pool.submit(copy_context().run, model.invoke, text),
    "pool of LangChain's": lambda pool, model, text, config: pool.submit(model.invoke, text),
}
"""How docs/pins.md says to call a model in a thread that a node starts."""


@pytest.mark.parametrize("way", HANDED_ON)
def test_a_call_in_a_thread_of_the_nodes_own_keeps_node_and_facts_where_they_are_handed_on(way: str, books: Books) -> None:
    model = books.model(task_class="rag_lookup")

    def reply(state: State, config: RunnableConfig) -> dict[str, Any]:
        with (ContextThreadPoolExecutor if "pool" in way else ThreadPoolExecutor)(1) as pool:
            return {"messages": [HANDED_ON[way](pool, model, state["messages"][-1].text, config).result()]}

    builder = StateGraph(State)
    builder.add_node("note", lambda state: {"routing": facts("distress")})
    builder.add_node("reply", reply)
    builder.add_edge(START, "note")
    builder.add_edge("note", "reply")
    builder.compile().invoke({"messages": "What are your opening hours?"}, {"configurable": {"thread_id": "t"}})

    assert [(entry.node, entry.thread, entry.tier) for entry in books.entries] == [("reply", "t", "strong")]
