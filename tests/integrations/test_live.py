"""Somebody reads along while a node's model is asked: words of a rejected draft never reach them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from routed_agents import RouterMiddleware

from .conftest import EASY, HAIKU, OPUS, Books, scripted

GO: Any = {"messages": [HumanMessage(EASY)]}
CUT_OFF = AIMessage("it was a", response_metadata={"stop_reason": "max_tokens"})
WHOLE = "it was a lovely day"
BAD_CALL = AIMessage("", tool_calls=[{"name": "look", "args": {"unknown": 1}, "id": "bad"}])
GOOD_CALL = AIMessage("", tool_calls=[{"name": "look", "args": {"query": "x"}, "id": "good"}])
ESCALATED = [("cheap", "rejected"), ("strong", "accepted")]
VERSIONS = ["v1", "v2"]
WAYS = ["invoke", "ainvoke", "stream", "astream", "agent", "async agent"]


@tool
def look(query: str) -> str:
    """Look something up."""
    return query


class City(BaseModel):
    name: str


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


def graph_of(books: Books, way: str, *, buffer: bool, cheap: Any = CUT_OFF, strong: Any = WHOLE, tools: Any = (), **more: Any) -> Any:
    if way.endswith("agent"):
        middleware = RouterMiddleware(books.router, cheap=scripted(HAIKU, cheap), buffer=buffer)
        return create_agent(scripted(OPUS, strong), tools, middleware=[middleware])
    model = books.model(cheap=cheap, strong=strong, buffer=buffer, **more)
    model = model.bind_tools(tools) if tools else model
    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", node_of(model, way))
    builder.add_edge(START, "ask")
    return builder.compile()


async def read(graph: Any, way: str) -> str:
    """All words that reach who reads the graph's messages."""
    if way.startswith("a") and way != "agent":
        return "".join([chunk.text async for chunk, _ in graph.astream(GO, stream_mode="messages") if chunk.type != "human"])
    return "".join([chunk.text for chunk, _ in graph.stream(GO, stream_mode="messages") if chunk.type != "human"])


async def events_of(runnable: Any, version: Any, given: Any = GO) -> list[str]:
    """What the events of models tell: when they start and end, and each piece of their words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainDeprecationWarning)  # v1 is still read
        events = [each async for each in runnable.astream_events(given, version=version) if each["event"].startswith("on_chat_model")]
    return [
        f"stream {each['data']['chunk'].text}" if each["event"].endswith("stream") else each["event"].removeprefix("on_chat_model_")
        for each in events
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_a_rejected_draft_is_not_seen_and_the_step_goes_up(way, books):
    assert await read(graph_of(books, way, buffer=True), way) == WHOLE
    assert books.story == ESCALATED


@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_a_good_reply_is_told_once(way, books):
    assert await read(graph_of(books, way, buffer=True, cheap="fine"), way) == "fine"
    assert books.story == [("cheap", "accepted")]


@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_a_good_reply_comes_in_pieces_once_it_stands(way, books):
    told = [chunk async for chunk, _ in graph_of(books, way, buffer=True, cheap="well done").astream(GO, stream_mode="messages")]
    assert [chunk.text for chunk in told if chunk.type == "AIMessageChunk"] == ["well", " done", ""]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_structured_reply_is_shown_once_it_stands(asynchronous, books):
    called = AIMessage("", tool_calls=[{"name": "City", "args": {"name": "Rome"}, "id": "1"}])
    model = books.model(cheap=called).with_structured_output(City)

    def ask(state: Any) -> Any:
        return {"messages": [str(model.invoke(state["messages"]))]}

    async def aask(state: Any) -> Any:
        return {"messages": [str(await model.ainvoke(state["messages"]))]}

    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", aask if asynchronous else ask)
    builder.add_edge(START, "ask")
    told = [chunk async for chunk, _ in builder.compile().astream(GO, stream_mode="messages")]
    shown = [call["args"] for chunk in told for call in getattr(chunk, "tool_call_chunks", ())]
    assert (shown, books.story) == (['{"name": "Rome"}'], [("cheap", "accepted")])


@pytest.mark.parametrize("way", WAYS)
async def test_without_one_words_that_were_seen_stand(way, books):
    assert await read(graph_of(books, way, buffer=False), way) == "it was a"
    assert books.story == [("cheap", "accepted")]
    assert "check:truncated" in books.entries[0].codes


@pytest.mark.parametrize(("buffer", "seen", "story"), [(False, ["bad"], [("cheap", "accepted")]), (True, ["good"], ESCALATED)])
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_tool_call_that_was_seen_stands_as_words_do(way, buffer, seen, story, books):
    graph = graph_of(books, way, buffer=buffer, cheap=BAD_CALL, strong=GOOD_CALL, tools=[look], task_class="rag_lookup")
    told = [chunk async for chunk, _ in graph.astream(GO, stream_mode="messages")]
    assert [call["id"] for chunk in told for call in getattr(chunk, "tool_call_chunks", ())] == seen
    assert books.story == story


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol on Pregel:langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize(("buffer", "seen", "story"), [(False, ["bad"], [("cheap", "accepted")]), (True, ["good"], ESCALATED)])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_tool_call_that_was_seen_in_v3_events_stands_as_words_do(way, buffer, seen, story, books):
    graph = graph_of(books, way, buffer=buffer, cheap=BAD_CALL, strong=GOOD_CALL, tools=[look], task_class="rag_lookup")
    events = [event["params"]["data"][0] async for event in await graph.astream_events(GO, version="v3") if event["method"] == "messages"]
    blocks = [event["content"] for event in events if event.get("event") == "content-block-finish"]
    assert [block["id"] for block in blocks if block["type"] == "tool_call"] == seen
    assert books.story == story


async def test_a_tool_call_of_an_agent_that_was_seen_stands(books):
    middleware = RouterMiddleware(books.router, cheap=scripted(HAIKU, [BAD_CALL, "sorry"]))
    agent = create_agent(scripted(OPUS, WHOLE), [look], middleware=[middleware])
    [first, *_] = [chunk async for chunk, _ in agent.astream(GO, stream_mode="messages") if getattr(chunk, "tool_call_chunks", ())]
    assert (first.tool_call_chunks[0]["id"], books.story[0]) == ("bad", ("cheap", "accepted"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tools", [[], [look]])
@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_no_event_tells_of_a_rejected_draft(way, tools, version, books):
    told = await events_of(graph_of(books, way, buffer=True, tools=tools), version)
    assert told == ["start", *[f"stream {word}" for word in ("it", " was", " a", " lovely", " day", "")], "end"]
    assert books.story == ESCALATED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", WAYS)
async def test_with_a_buffer_events_tell_of_a_good_reply_once_it_stands(version, way, books):
    told = await events_of(graph_of(books, way, buffer=True, cheap="well done"), version)
    assert told == ["start", "stream well", "stream  done", "stream ", "end"]
    assert books.story == [("cheap", "accepted")]


@pytest.mark.parametrize("version", VERSIONS)
async def test_with_a_buffer_the_models_own_events_tell_of_what_stands(version, books):
    told = await events_of(books.model(cheap=CUT_OFF, strong=WHOLE, buffer=True), version, [HumanMessage(EASY)])
    assert "".join(each.removeprefix("stream ") for each in told if each.startswith("stream")) == WHOLE
    assert books.story == ESCALATED


@pytest.mark.parametrize("tools", [(), (look,)], ids=["plain", "tools"])
async def test_with_a_buffer_who_listens_beside_a_reader_hears_a_call_once(tools, books):
    usage, model = UsageMetadataCallbackHandler(), books.model(cheap="well done", strong=WHOLE, buffer=True)
    asked = (model.bind_tools([*tools]) if tools else model).astream_events([HumanMessage(EASY)], {"callbacks": [usage]}, version="v2")
    told = [event["event"] async for event in asked]

    assert (told.count("on_chat_model_start"), told.count("on_chat_model_end")) == (1, 1)
    assert sum(each["total_tokens"] for each in usage.usage_metadata.values()) == sum(entry.usage.total for entry in books.entries)


async def test_a_parsed_answer_that_is_rejected_is_in_no_event(books):
    model = books.model(cheap="no city", strong='{"name": "Rome"}').with_structured_output(City, method="json_mode")
    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", RunnableLambda(lambda state: {"messages": [str(model.invoke(state["messages"]))]}))
    builder.add_edge(START, "ask")
    told = await events_of(builder.compile(), "v2")
    assert (books.story, "".join(told).count("city"), told.count("start")) == (ESCALATED, 0, 1)


async def test_of_calls_that_an_inner_middleware_repeats_events_tell_once_the_reply_stands(books):
    class Twice(AgentMiddleware[Any, Any, Any]):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            await handler(request)
            return await handler(request)

    middleware = [RouterMiddleware(books.router, cheap=scripted(HAIKU, CUT_OFF), buffer=True), Twice()]
    told = await events_of(create_agent(scripted(OPUS, WHOLE), [], middleware=middleware), "v2")
    assert (told.count("start"), told.count("end"), told.count("stream  lovely")) == (2, 2, 2)


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
