"""Somebody reads along while a node's model is asked: words of a rejected draft never reach them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from routed_agents import RouterMiddleware

from .conftest import EASY, HAIKU, OPUS, Books, scripted

GO: Any = {"messages": [HumanMessage(EASY)]}
CUT_OFF = AIMessage("it was a", response_metadata={"stop_reason": "max_tokens"})
WHOLE = "it was a lovely day"
ESCALATED = [("cheap", "rejected"), ("strong", "accepted")]
WAYS = ["invoke", "ainvoke", "stream", "astream", "agent", "async agent"]


def node_of(model: Any, way: str) -> Any:
    def invoked(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def awaited(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def streamed(state: Any) -> Any:
        first, *others = model.stream(state["messages"])
        return {"messages": [first + others]}

    async def astreamed(state: Any) -> Any:
        first, *others = [chunk async for chunk in model.astream(state["messages"])]
        return {"messages": [first + others]}

    return {"invoke": invoked, "ainvoke": awaited, "stream": streamed, "astream": astreamed}[way]


def graph_of(books: Books, way: str, *, buffer: bool, cheap: Any = CUT_OFF, **more: Any) -> Any:
    if way.endswith("agent"):
        middleware = RouterMiddleware(books.router, cheap=scripted(HAIKU, cheap), buffer=buffer)
        return create_agent(scripted(OPUS, WHOLE), [], middleware=[middleware])
    model = books.model(cheap=cheap, strong=WHOLE, buffer=buffer, **more)
    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", node_of(model, way))
    builder.add_edge(START, "ask")
    return builder.compile()


async def read(graph: Any, way: str) -> str:
    """All words that reach who reads the graph's messages."""
    if way.startswith("a") and way != "agent":
        return "".join([chunk.text async for chunk, _ in graph.astream(GO, stream_mode="messages") if chunk.type != "human"])
    return "".join([chunk.text for chunk, _ in graph.stream(GO, stream_mode="messages") if chunk.type != "human"])


@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_a_rejected_draft_is_not_seen_and_the_step_goes_up(way, books):
    assert await read(graph_of(books, way, buffer=True), way) == WHOLE
    assert books.story == ESCALATED


@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_a_good_reply_is_told_once(way, books):
    assert await read(graph_of(books, way, buffer=True, cheap="fine"), way) == "fine"
    assert books.story == [("cheap", "accepted")]


@pytest.mark.parametrize("way", WAYS)
async def test_without_one_words_that_were_seen_stand(way, books):
    assert await read(graph_of(books, way, buffer=False), way) == "it was a"
    assert books.story == [("cheap", "accepted")]
    assert "check:truncated" in books.entries[0].codes


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_where_nobody_reads_along_the_step_goes_up(way, buffer, books):
    if way in ("stream", "astream") and not buffer:
        pytest.skip("the node itself reads along")
    await graph_of(books, way, buffer=buffer).ainvoke(GO) if way.startswith("a") else graph_of(books, way, buffer=buffer).invoke(GO)
    assert books.story == ESCALATED


async def test_a_model_that_is_kept_out_of_the_messages_is_seen_by_nobody(books):
    quiet = graph_of(books, "invoke", buffer=False, tags=["nostream"])
    assert WHOLE in await read(quiet, "invoke")
    assert books.story == ESCALATED


async def test_an_empty_draft_has_no_words_to_stand_by(books):
    assert await read(graph_of(books, "invoke", buffer=False, cheap=""), "invoke") == WHOLE
    assert books.story == ESCALATED
