"""What calls are booked at that somebody reads along with, in a graph or an agent: as much as calls that nobody hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

from routed_agents import Policy, RoutedChatModel, RouterMiddleware
from routed_agents.tiers import Tiers

from .conftest import EASY, Books

GO: Any = {"messages": [HumanMessage(EASY)]}
CHEAP: Any = {"metadata": {"task_class": "classification"}}
OF_OPENAI = Policy.default(tiers=Tiers.of({"cheap": "openai:gpt-6-luna", "strong": "openai:gpt-6.1-sol"}))


def graph_of(model: Any) -> Any:
    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "ask")
    return builder.compile()


def read(graph: Any) -> None:
    for _ in graph.stream(GO, CHEAP, stream_mode="messages"):
        pass


def gpt(provider: Any, **options: Any) -> list[ChatOpenAI]:
    """The two tiers' models, at an address of one's own: LangChain asks for no usage there."""
    own = {"base_url": provider.openai_url, "api_key": "x", "max_retries": 0, **options}
    models = [ChatOpenAI(model=name, **own) for name in ("gpt-6-luna", "gpt-6.1-sol")]
    assert [model.stream_usage for model in models] == [options.get("stream_usage")] * 2
    return models


def routed(books: Books, cheap: Any, strong: Any) -> RoutedChatModel:
    return RoutedChatModel(cheap=cheap, strong=strong, router=books.router)


def agent_of(books: Books, cheap: Any, strong: Any) -> Any:
    return create_agent(strong, [], middleware=[RouterMiddleware(books.router, cheap=cheap)])


READ: dict[str, Callable[[Books, Any, Any], object]] = {
    "stream": lambda books, *models: list(routed(books, *models).stream(EASY, CHEAP)),
    "graph": lambda books, *models: read(graph_of(routed(books, *models))),
    "agent": lambda books, *models: read(agent_of(books, *models)),
}


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
@pytest.mark.parametrize("how", READ)
def test_a_gateway_is_asked_for_the_usage_of_what_it_streams(how: str, responses: bool, provider: Any) -> None:
    books = Books(OF_OPENAI)
    READ[how](books, *gpt(provider, use_responses_api=responses))
    assert [(entry.outcome, entry.usage.source) for entry in books.entries] == [("accepted", "reported")]


@pytest.mark.parametrize("how", READ)
def test_a_gateway_that_cannot_tell_is_not_asked(how: str, provider: Any) -> None:
    books = Books(OF_OPENAI)
    READ[how](books, *gpt(provider, stream_usage=False))
    assert [(entry.outcome, entry.usage.source) for entry in books.entries] == [("accepted", "estimated")]
