"""A config given with a call adds to what the node hands down, and never takes the node and its pins away."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langgraph.graph import END, START, MessagesState, StateGraph

from routed_agents import join
from routed_agents.integrations.langgraph import facts

from .conftest import Books


class State(MessagesState):
    routing: Annotated[dict[str, Any], join]


@pytest.mark.parametrize("given", [None, {"metadata": {"task_class": "rag_lookup"}}, {"metadata": {"tenant": "acme"}, "tags": ["mine"]}])
def test_metadata_of_ones_own_leaves_node_and_facts_in_place(given: Any, books: Books) -> None:
    model = books.model(task_class="rag_lookup")
    builder = StateGraph(State)
    builder.add_node("note", lambda state: {"routing": facts("distress")})
    builder.add_node("reply", lambda state: {"messages": [model.invoke(state["messages"], given)]})
    builder.add_edge(START, "note")
    builder.add_edge("note", "reply")
    builder.add_edge("reply", END)
    builder.compile().invoke({"messages": "What are your opening hours?"}, {"configurable": {"thread_id": "t"}})

    assert [(entry.node, entry.thread, entry.tier) for entry in books.entries] == [("reply", "t", "strong")]
