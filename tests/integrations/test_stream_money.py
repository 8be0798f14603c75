"""What streams and broken calls are booked at: to the cent where the provider says so, and never less than what was seen of them."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, wrap_model_call
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.exceptions import ModelConnectionError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

from routed_agents import CostObserver, Policy, RoutedChatModel, RouterMiddleware
from routed_agents.integrations.capture import Capture
from routed_agents.integrations.sdk_streams import gathering, usage_so_far
from routed_agents.integrations.telling import Telling
from routed_agents.pricing import Usage, usage_of
from routed_agents.testing import ScriptedChatModel
from routed_agents.tiers import Tiers

from .conftest import EASY, HAIKU, LOOP, OPUS, Books

BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
PREGEL_BETA = pytest.mark.filterwarnings("ignore:The v3 streaming protocol on Pregel:langchain_core._api.LangChainBetaWarning")
CHEAP: Any = {"metadata": {"task_class": "classification"}}
WORDS = "word word word word word word word word "
SEARCHED = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
COUNTED = {
    "input_tokens": 100,
    "output_tokens": 50,
    "cache_creation_input_tokens": 3000,
    "cache_read_input_tokens": 2000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
    "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 0},
    "service_tier": "standard",
}
TOLD_AT_THE_END = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "server_tool_use")
TOOL = {"name": "write", "description": "Writes.", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}
USES_TOOL = {"type": "tool_use", "id": "toolu_1", "name": "write", "input": {}}
ARGUMENTS = [{"type": "input_json_delta", "partial_json": WORDS} for _ in range(200)]
THINKS = {"type": "thinking", "thinking": "", "signature": ""}
THOUGHTS = [{"type": "thinking_delta", "thinking": WORDS} for _ in range(200)]
SAYS = {"type": "text", "text": ""}
SAID = [{"type": "text_delta", "text": word} for word in ("Hello ", "there")]


class Anthropic(ThreadingHTTPServer):
    """Answers every message with the same blocks and usage.

    Attributes:
        breaks_after: how many events of a stream come before its connection breaks; all where it is None.
        left: it breaks only when this is set.
        together: streams wait for each other once they have begun.
        in_turn: what the next streams report, where they differ.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.usage: dict[str, Any] = COUNTED
        self.blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [(SAYS, SAID)]
        self.breaks_after: int | None = None
        self.left = threading.Event()
        self.together: threading.Barrier | None = None
        self.in_turn: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def events(self, model: str) -> Iterator[dict[str, Any]]:
        usage = self.in_turn.pop(0) if self.in_turn else self.usage
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None}
        started = {**usage, "output_tokens": 1, "server_tool_use": None}
        yield {"type": "message_start", "message": {**head, "stop_sequence": None, "usage": started}}
        for index, (block, deltas) in enumerate(self.blocks):
            yield {"type": "content_block_start", "index": index, "content_block": block}
            yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
            yield {"type": "content_block_stop", "index": index}
        ended = {name: usage.get(name) for name in TOLD_AT_THE_END}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": ended}
        yield {"type": "message_stop"}


class Answering(BaseHTTPRequestHandler):
    server: Anthropic

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        events: list[bytes] = []
        if asked.get("stream"):
            told = self.server.events(asked["model"])
            events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told]
            data = b"".join(events).decode()
        else:
            head = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
            said = [{"type": "text", "text": "Hello there"}]
            data = json.dumps({**head, "content": said, "stop_reason": "end_turn", "usage": self.server.usage})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.send_header("content-length", str(len(data.encode())))
        self.end_headers()
        if self.server.together is not None and events:
            self.wfile.write(events.pop(0))
            self.wfile.flush()
            self.server.together.wait(5)
        if self.server.breaks_after is not None and events:
            self.wfile.write(b"".join(events[: self.server.breaks_after]))
            self.wfile.flush()
            self.server.left.wait(5)
        else:
            self.wfile.write(b"".join(events) or data.encode())


@pytest.fixture(scope="module")
def serving() -> Iterator[Anthropic]:
    with Anthropic() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def claude(serving: Anthropic) -> Anthropic:
    """The module's server, answering as at first."""
    serving.usage, serving.blocks, serving.breaks_after, serving.together = COUNTED, [(SAYS, SAID)], None, None
    serving.left.set()
    return serving


def routed(books: Books, claude: Anthropic, **more: Any) -> RoutedChatModel:
    cheap, strong = (ChatAnthropic(model=name, base_url=claude.url, api_key="x", max_tokens=256, max_retries=0) for name in (HAIKU, OPUS))
    return RoutedChatModel(cheap=cheap, strong=strong, router=books.router, **more)


async def _all(stream: Any) -> list[Any]:
    return [each async for each in stream]


async def _v3(model: Any) -> None:
    async for _ in await model.astream_events(EASY, CHEAP, version="v3"):
        pass


STREAMS: dict[str, Callable[[Any], object]] = {
    "stream": lambda model: list(model.stream(EASY, CHEAP)),
    "astream": lambda model: LOOP.run_until_complete(_all(model.astream(EASY, CHEAP))),
    "v3": lambda model: LOOP.run_until_complete(_v3(model)),
    "bound": lambda model: list(model.bind_tools([TOOL]).stream(EASY, CHEAP)),
}


@BETA
@pytest.mark.parametrize("told", [{}, {"service_tier": "priority"}, {"inference_geo": "us"}, {"speed": "fast"}], ids=str)
@pytest.mark.parametrize("how", STREAMS)
def test_a_stream_of_claude_is_booked_like_the_whole_reply(how: str, told: dict[str, Any], claude: Anthropic) -> None:
    claude.usage = {**COUNTED, **told}
    invoked, streamed = Books(Policy.default()), Books(Policy.default())
    routed(invoked, claude).invoke(EASY, CHEAP)
    STREAMS[how](routed(streamed, claude))
    (wanted,), (entry,) = invoked.entries, streamed.entries
    assert (entry.usage, entry.cost) == (wanted.usage, wanted.cost)


LONG_LIFE = {"prompt_cache_options": {"ttl": "12h"}}


@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize("watched", [False, True], ids=["routed", "watched"])
@pytest.mark.parametrize(
    ("asked", "short", "long"), [(LONG_LIFE, 0, 3000), ({}, 3000, 0), ({"prompt_cache_options": {"ttl": "30m"}}, 3000, 0)]
)
def test_what_openai_is_asked_to_keep_for_12_hours_is_booked_so(
    asked: dict[str, Any], short: int, long: int, watched: bool, how: str, books: Books
) -> None:
    counted = {"input_tokens": 4000, "output_tokens": 5, "total_tokens": 4005, "input_token_details": {"cache_creation": 3000}}
    told = {"model_name": "gpt-6-luna", "model_provider": "openai"}
    plain = ScriptedChatModel(
        model_name="gpt-6-luna",
        provider="openai",
        replies=lambda _: AIMessage("yes", usage_metadata=counted, response_metadata=told),
    )
    model: Any = plain if watched else RoutedChatModel(cheap=plain, strong=plain, router=books.router)
    config = {**CHEAP, "callbacks": [CostObserver(books.router)] if watched else []}
    model.invoke(EASY, config, **asked) if how == "invoke" else list(model.stream(EASY, config, **asked))
    (entry,) = books.entries
    assert (entry.usage.cache_write_5m, entry.usage.cache_write_1h, entry.usage.source) == (short, long, "reported")


LONG = SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
SHORT = SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
WROTE_LONG = {**COUNTED, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 3000}}
WROTE_SHORT = {**COUNTED, "cache_creation": {"ephemeral_5m_input_tokens": 3000, "ephemeral_1h_input_tokens": 0}}


@pytest.mark.parametrize(
    ("asked", "system", "told"),
    [
        ({}, LONG, WROTE_LONG),
        ({}, SHORT, WROTE_SHORT),
        ({"inference_geo": "us"}, SHORT, {**WROTE_SHORT, "inference_geo": "us"}),
        ({"model_kwargs": {"speed": "fast"}}, LONG, {**WROTE_LONG, "speed": "fast"}),
    ],
)
def test_a_watched_stream_of_claude_is_booked_as_it_was_asked_for(
    asked: dict[str, Any], system: SystemMessage, told: dict[str, Any], claude: Anthropic
) -> None:
    claude.usage = {**told, "server_tool_use": None}
    model = ChatAnthropic(model=OPUS, base_url=claude.url, api_key="x", max_tokens=256, max_retries=0, **asked)
    prompt, invoked, streamed = [system, HumanMessage(EASY)], Books(Policy.default()), Books(Policy.default())
    model.invoke(prompt, {"callbacks": [CostObserver(invoked.router)]})
    list(model.stream(prompt, {"callbacks": [CostObserver(streamed.router)]}))
    (wanted,), (entry,) = invoked.entries, streamed.entries
    assert (entry.cost, entry.usage.source, wanted.usage.source) == (wanted.cost, "estimated", "reported")


GO: Any = {"messages": [HumanMessage(EASY)]}


def graph_of(model: Any) -> Any:
    async def ask(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", RunnableLambda(lambda state: {"messages": [model.invoke(state["messages"])]}, afunc=ask))
    builder.add_edge(START, "ask")
    return builder.compile()


def models_of(claude: Anthropic, **more: Any) -> list[Any]:
    return [ChatAnthropic(model=name, base_url=claude.url, api_key="x", max_tokens=256, max_retries=0, **more) for name in (HAIKU, OPUS)]


def node_of(books: Books, cheap: Any, strong: Any, **more: Any) -> Any:
    return graph_of(RoutedChatModel(cheap=cheap, strong=strong, router=books.router, **more))


def agent_of(books: Books, cheap: Any, strong: Any, *inner: Any, **more: Any) -> Any:
    return create_agent(strong, [], middleware=[RouterMiddleware(books.router, cheap=cheap, **more), *inner])


GIVES_UP = ModelRetryMiddleware(max_retries=0, on_failure="error")
AGENTS: dict[str, Callable[..., Any]] = {
    "agent": agent_of,
    "agent with an inner middleware": lambda books, *models: agent_of(
        books, *models, ModelRetryMiddleware(max_retries=0, on_failure="error")
    ),
    "agent with a buffer": lambda books, *models: agent_of(books, *models, buffer=True),
}
GRAPHS: dict[str, Callable[..., Any]] = {
    "graph": node_of,
    "graph with a buffer": lambda books, *models: node_of(books, *models, buffer=True),
    **AGENTS,
}


def read(graph: Any) -> None:
    for _ in graph.stream(GO, CHEAP, stream_mode="messages"):
        pass


async def _aread(graph: Any) -> None:
    async for _ in graph.astream(GO, CHEAP, stream_mode="messages"):
        pass


async def _read_v3(graph: Any) -> None:
    async for _ in await graph.astream_events(GO, CHEAP, version="v3"):
        pass


READINGS: dict[str, Callable[[Any], object]] = {
    "messages": read,
    "async messages": lambda graph: LOOP.run_until_complete(_aread(graph)),
    "v3": lambda graph: LOOP.run_until_complete(_read_v3(graph)),
}


@PREGEL_BETA
@BETA
@pytest.mark.parametrize("told", [{}, {"service_tier": "priority"}, {"inference_geo": "us"}], ids=str)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("way", GRAPHS)
def test_who_reads_along_changes_no_price(way: str, reading: str, told: dict[str, Any], claude: Anthropic) -> None:
    claude.usage = {**COUNTED, **told}
    invoked, read_along = Books(Policy.default()), Books(Policy.default())
    models = models_of(claude)
    LOOP.run_until_complete(GRAPHS[way](invoked, *models).ainvoke(GO, CHEAP))
    READINGS[reading](GRAPHS[way](read_along, *models))
    (wanted,), (entry,) = invoked.entries, read_along.entries
    assert (entry.usage, entry.cost, entry.usage.source) == (wanted.usage, wanted.cost, "reported")


def test_calls_made_at_once_of_one_request_are_each_booked_as_their_own_stream_tells(claude: Anthropic, books: Books) -> None:
    @wrap_model_call
    async def two_at_once(request: Any, handler: Any) -> Any:
        return (await asyncio.gather(handler(request), handler(request)))[0]

    claude.together, claude.in_turn = threading.Barrier(2), [{**COUNTED, "inference_geo": "us"}, {**COUNTED, "speed": "fast"}]
    LOOP.run_until_complete(_aread(agent_of(books, *models_of(claude), two_at_once)))
    assert {(entry.usage.geo, entry.usage.speed, entry.usage.source) for entry in (*books.entries,)} == {
        ("us", None, "reported"),
        (None, "fast", "reported"),
    }


def test_a_stream_of_a_model_nobody_chose_is_an_estimate(claude: Anthropic, books: Books) -> None:
    down = ScriptedChatModel(model_name=HAIKU, provider="anthropic", replies=[ModelConnectionError("down")])
    fallback, strong = models_of(claude)
    read(agent_of(books, down, strong, ModelFallbackMiddleware(fallback)))
    assert [(entry.outcome, entry.usage.source) for entry in books.entries][-1] == ("accepted", "estimated")


OF_OPENAI = Policy.default(tiers=Tiers.of({"cheap": "openai:gpt-6-luna", "strong": "openai:gpt-6.1-sol"}))


@pytest.mark.parametrize("how", ["graph", "agent"])
def test_what_openai_is_asked_to_keep_for_12_hours_is_booked_so_in_graphs(how: str) -> None:
    counted = {"input_tokens": 4000, "output_tokens": 5, "total_tokens": 4005, "input_token_details": {"cache_creation": 3000}}

    class Keeping(ScriptedChatModel):
        model_kwargs: dict[str, Any] = LONG_LIFE

    books, reply = Books(OF_OPENAI), AIMessage("yes", usage_metadata=counted)
    graph = GRAPHS[how](books, *[Keeping(model_name=name, provider="openai", replies=[reply]) for name in ("gpt-6-luna", "gpt-6.1-sol")])
    graph.invoke(GO, CHEAP)
    read(graph)
    assert [(entry.usage.cache_write_1h, entry.usage.source) for entry in books.entries] == [(3000, "reported")] * 2


LONG_STORY = (SAYS, [{"type": "text_delta", "text": WORDS} for _ in range(100)])


@PREGEL_BETA
@BETA
@pytest.mark.parametrize("reading", ["async messages", "v3"])
@pytest.mark.parametrize("way", ["graph", *AGENTS])
def test_a_graphs_stream_that_is_left_is_booked_with_the_words_seen(way: str, reading: str, claude: Anthropic, books: Books) -> None:
    claude.blocks, claude.breaks_after = [LONG_STORY], 60
    claude.left.clear()

    async def left() -> None:
        seen = asyncio.ensure_future({"async messages": _aread, "v3": _read_v3}[reading](GRAPHS[way](books, *models_of(claude))))
        await asyncio.wait([seen], timeout=0.5)
        seen.cancel()
        await asyncio.wait([seen])
        claude.left.set()

    LOOP.run_until_complete(left())
    (entry,) = books.entries
    used = entry.usage
    assert (entry.outcome, used.source, used.input, used.cache_write_1h, used.output > 400) == ("abandoned", "estimated", 100, 2000, True)


@pytest.mark.parametrize("way", GRAPHS)
def test_a_graphs_stream_whose_connection_breaks_is_booked_with_the_words_seen(way: str, claude: Anthropic, books: Books) -> None:
    claude.blocks, claude.breaks_after = [LONG_STORY], 60
    with pytest.raises(Exception, match="peer closed connection"):
        read(GRAPHS[way](books, *models_of(claude)))
    booked = {(entry.outcome, entry.usage.source, entry.usage.cache_write_1h, entry.usage.output > 400) for entry in books.entries}
    assert booked == {("failed", "estimated", 2000, True)}


def test_a_call_that_streams_within_and_breaks_is_booked_with_the_words_seen(claude: Anthropic, books: Books) -> None:
    claude.blocks, claude.breaks_after = [LONG_STORY], 60
    cheap, strong = models_of(claude, streaming=True)
    with pytest.raises(Exception, match="peer closed connection"):
        RoutedChatModel(cheap=cheap, strong=strong, router=books.router).invoke(EASY, {"metadata": {"routed_agents": {"tier": "strong"}}})
    assert [(entry.usage.source, entry.usage.input, entry.usage.output > 400) for entry in books.entries] == [("estimated", 100, True)]


@pytest.mark.parametrize("way", ["graph", "agent"])
def test_a_stream_that_breaks_before_its_first_word_is_an_estimate(way: str, claude: Anthropic, books: Books) -> None:
    claude.breaks_after = 1
    with pytest.raises(Exception, match="peer closed connection"):
        read(GRAPHS[way](books, *models_of(claude)))
    assert {(entry.usage.source, entry.usage.input) for entry in books.entries} == {("estimated", 100)}


@pytest.mark.parametrize("way", ["graph", "agent"])
def test_a_stream_that_breaks_after_its_usage_has_come_is_booked_as_reported(way: str, claude: Anthropic, books: Books) -> None:
    claude.breaks_after = 6
    with pytest.raises(Exception, match="peer closed connection"):
        read(GRAPHS[way](books, *models_of(claude)))
    assert [(entry.usage.source, entry.usage.output, entry.usage.web_searches) for entry in books.entries] == [("reported", 50, 3)]


ASKED: dict[str, Callable[..., object]] = {
    "stream": lambda books, *models: list(RoutedChatModel(cheap=models[0], strong=models[1], router=books.router).stream(EASY, CHEAP)),
    "graph": lambda books, *models: read(node_of(books, *models)),
    "agent": lambda books, *models: read(agent_of(books, *models)),
}


def gpt(provider: Any, **options: Any) -> list[ChatOpenAI]:
    """The two tiers' models, at an address of one's own: LangChain asks for no usage there."""
    own = {"base_url": provider.openai_url, "api_key": "x", "max_retries": 0, **options}
    models = [ChatOpenAI(model=name, **own) for name in ("gpt-6-luna", "gpt-6.1-sol")]
    assert [model.stream_usage for model in models] == [options.get("stream_usage")] * 2
    return models


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
@pytest.mark.parametrize("how", ASKED)
def test_a_gateway_is_asked_for_the_usage_of_what_it_streams(how: str, responses: bool, provider: Any) -> None:
    books = Books(OF_OPENAI)
    ASKED[how](books, *gpt(provider, use_responses_api=responses))
    assert [(entry.outcome, entry.usage.source) for entry in books.entries] == [("accepted", "reported")]


@pytest.mark.parametrize("how", ASKED)
def test_a_gateway_that_cannot_tell_is_not_asked(how: str, provider: Any) -> None:
    books = Books(OF_OPENAI)
    ASKED[how](books, *gpt(provider, stream_usage=False))
    assert [(entry.outcome, entry.usage.source) for entry in books.entries] == [("accepted", "estimated")]


def test_a_held_back_stream_of_claude_is_booked_like_the_whole_reply(claude: Anthropic, books: Books) -> None:
    list(routed(books, claude, buffer=True).stream(EASY, CHEAP))
    (entry,) = books.entries
    assert (entry.usage.cache_write_1h, entry.usage.web_searches, entry.cost.total_pico) == (2000, 3, 30_580_000_000)


def test_a_call_that_streams_within_is_booked_like_the_whole_reply(claude: Anthropic, books: Books) -> None:
    cheap = ChatAnthropic(model=HAIKU, base_url=claude.url, api_key="x", max_tokens=256, streaming=True)
    RoutedChatModel(cheap=cheap, strong=ChatAnthropic(model=OPUS, api_key="x"), router=books.router).invoke(EASY, CHEAP)
    (entry,) = books.entries
    assert (entry.usage.cache_write_1h, entry.usage.web_searches) == (2000, 3)


def test_a_streamed_tool_loop_pays_for_the_retention_it_asked_for(provider: Any) -> None:
    calls = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "boots"}, "id": "toolu_1"}])
    prompt = [SystemMessage("The shop sells boots. " * 2500), HumanMessage(EASY), calls, ToolMessage("none", tool_call_id="toolu_1")]
    costs = []
    for call in (lambda model: model.invoke(prompt, CHEAP), lambda model: list(model.stream(prompt, CHEAP))):
        provider.reset()
        books = Books()
        cheap, strong = (ChatAnthropic(model=name, max_tokens=256) for name in (HAIKU, OPUS))
        call(RoutedChatModel(cheap=cheap, strong=strong, router=books.router, prompt_cache="1h"))
        costs.append((books.entries[0].usage.cache_write_1h > 0, books.entries[0].cost.cache_write))
    assert costs[0] == costs[1] == (True, costs[0][1])


def leave(stream: Any, after: int) -> None:
    for number, _ in enumerate(stream):
        if number >= after:
            break
    stream.close()


def test_a_stream_left_amid_a_tools_arguments_is_booked_with_them(claude: Anthropic, books: Books) -> None:
    claude.blocks = [(USES_TOOL, ARGUMENTS)]
    leave(routed(books, claude).bind_tools([TOOL]).stream(EASY, CHEAP), 150)
    (entry,) = books.entries
    assert (entry.outcome, entry.usage.source, entry.usage.input, entry.usage.output > 1200) == ("abandoned", "estimated", 100, True)


def test_a_stream_left_after_thinking_is_booked_with_it(claude: Anthropic, books: Books) -> None:
    claude.blocks = [(THINKS, THOUGHTS), (SAYS, SAID)]
    leave(routed(books, claude).stream(EASY, CHEAP), 0)
    (entry,) = books.entries
    assert (entry.outcome, entry.usage.source, entry.usage.output > 1600) == ("abandoned", "estimated", True)


@BETA
def test_v3_events_left_after_thinking_are_booked_with_it(claude: Anthropic, books: Books) -> None:
    claude.blocks = [(THINKS, THOUGHTS), (SAYS, SAID)]
    stream = routed(books, claude).stream_events(EASY, CHEAP, version="v3")
    for event in stream:
        if "Hello" in str(event):
            break
    del stream, event
    gc.collect()  # nothing closes such a stream but its end or this
    (entry,) = books.entries
    assert (entry.outcome, entry.usage.input, entry.usage.output > 1600) == ("abandoned", 100, True)


def test_a_stream_left_after_a_search_is_booked_with_it(claude: Anthropic, books: Books) -> None:
    claude.blocks = [(SEARCHED, []), (SAYS, SAID)]
    leave(routed(books, claude).bind_tools([{"type": "web_search_20250305", "name": "web_search"}]).stream(EASY, CHEAP), 2)
    assert [(entry.outcome, entry.usage.web_searches) for entry in books.entries] == [("abandoned", 1)]


def test_a_parsed_stream_that_is_left_is_booked_with_what_was_parsed(provider: Any, books: Books) -> None:
    schema = {"title": "Story", "description": "s", "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    cheap, strong = (ChatOpenAI(model=name, stream_usage=True) for name in ("gpt-6-luna", "gpt-6.1-sol"))
    model = RoutedChatModel(cheap=cheap, strong=strong, router=books.router).with_structured_output(schema, method="json_schema")
    stream = model.stream("Extract the text: " + "lovely boots and rain " * 30, CHEAP)
    assert any(len(str(part)) > 20 for part in stream)
    stream.close()
    (entry,) = books.entries
    assert (entry.outcome, entry.usage.output > 5) == ("abandoned", True)


class Raising(BaseCallbackHandler):
    """Ends a call with its own error: a budget that is used up, say."""

    raise_error = True

    def __init__(self, at: str) -> None:
        self.at = at

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        if self.at == "token":
            raise KeyError(self.at)

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        if self.at == "end":
            raise KeyError(self.at)


@pytest.mark.parametrize("given", [lambda handler: [handler], lambda handler: CallbackManager([handler])], ids=["list", "manager"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
def test_an_answer_that_a_handler_keeps_back_is_paid_for(given: Any, asynchronous: bool, provider: Any, books: Books) -> None:
    model = RoutedChatModel(cheap=ChatOpenAI(model="gpt-6-luna"), strong=ChatOpenAI(model="gpt-6.1-sol"), router=books.router)
    config = {**CHEAP, "callbacks": given(Raising("end"))}
    with pytest.raises(KeyError):
        LOOP.run_until_complete(model.ainvoke(EASY, config)) if asynchronous else model.invoke(EASY, config)
    (entry,) = books.entries
    assert (entry.outcome, entry.error, entry.usage.source, entry.cost.total_pico > 0) == ("failed", "KeyError", "reported", True)


def test_an_answer_that_the_tiers_own_handler_keeps_back_is_paid_for(provider: Any, books: Books) -> None:
    cheap = ChatOpenAI(model="gpt-6-luna", callbacks=[Raising("end")])
    with pytest.raises(KeyError):
        RoutedChatModel(cheap=cheap, strong=ChatOpenAI(model="gpt-6.1-sol"), router=books.router).invoke(EASY, CHEAP)
    assert [(entry.outcome, entry.usage.source) for entry in books.entries] == [("failed", "reported")]


def test_a_stream_that_a_handler_ends_is_booked_with_what_came(claude: Anthropic, books: Books) -> None:
    with pytest.raises(KeyError):
        list(routed(books, claude).stream(EASY, {**CHEAP, "callbacks": [Raising("token")]}))
    (entry,) = books.entries
    assert (entry.outcome, entry.usage.input, entry.usage.cache_write_1h, entry.cost.total_pico > 0) == ("failed", 100, 2000, True)


def test_no_handler_is_added_where_none_raises(books: Books) -> None:
    seen: list[Any] = []

    class Seeing(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            seen.append(True)

    class Counted(ScriptedChatModel):
        def _generate(self, *given: Any, run_manager: Any = None, **more: Any) -> Any:
            seen.append([type(each).__name__ for each in run_manager.handlers])
            return super()._generate(*given, run_manager=run_manager, **more)

    model = books.model(cheap=Counted(model_name=HAIKU, replies="yes", provider="anthropic"))
    model.invoke(EASY, {**CHEAP, "callbacks": [Seeing()]})
    assert seen == [True, ["Seeing"]]


@pytest.mark.parametrize(
    ("blocks", "searches"),
    [
        ([{"type": "server_tool_call", "name": "web_search", "id": "1", "args": {"query": "boots"}}], 1),
        ([{"type": "server_tool_call", "name": "web_search", "id": "1", "args": {"type": "open_page"}}], 0),
        (
            [
                {"type": "server_tool_call", "name": "web_search", "id": "1", "args": {"query": "boots"}},
                {"type": "server_tool_result", "tool_call_id": "1", "status": "error"},
            ],
            0,
        ),
    ],
)
def test_searches_in_langchains_v1_form_are_counted(blocks: list[Any], searches: int) -> None:
    message = AIMessage(blocks, usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})
    assert usage_of(message) == Usage(input=3, output=2, web_searches=searches)


SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "boots"}}
IMAGE = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "x"}


def begun(tier: str, *items: dict[str, Any], text: str = WORDS) -> Any:
    """A stream of the Responses API that has no end."""
    gathered = gathering("responses", {})
    head = {"id": "resp_1", "model": "gpt-6-luna", "service_tier": tier}
    gathered.add(SimpleNamespace(type="response.created", response=head))
    for index, item in enumerate(items):
        gathered.add(SimpleNamespace(type="response.output_item.done", output_index=index, item=item))
    if text:
        gathered.add(SimpleNamespace(type="response.output_text.delta", delta=text))
    return gathered


@pytest.mark.parametrize("text", [WORDS, ""], ids=["words", "no words"])
@pytest.mark.parametrize(
    ("items", "searches", "others"), [([SEARCH, {**SEARCH, "id": "ws_2"}], 2, 0), ([IMAGE], 0, 1), ([SEARCH, IMAGE], 1, 1)]
)
def test_a_response_that_breaks_off_is_booked_with_the_tools_that_were_seen(
    items: list[dict[str, Any]], searches: int, others: int, text: str
) -> None:
    used = usage_so_far(begun("auto", *items, text=text), 100)
    assert used is not None
    assert (used.input, used.web_searches, used.other, used.source) == (100, searches, others, "estimated")


@pytest.mark.parametrize(("told", "tier"), [("priority", "priority"), ("flex", "flex"), ("auto", None)])
def test_a_response_that_breaks_off_has_the_service_tier_it_was_begun_with(told: str, tier: str | None) -> None:
    used = usage_so_far(begun(told), 100)
    assert used is not None
    assert (used.service_tier, used.source) == (tier, "estimated")


def test_a_completion_that_breaks_off_has_the_service_tier_its_chunks_tell() -> None:
    gathered = gathering("chat", {})
    delta = SimpleNamespace(index=0, delta={"content": WORDS}, finish_reason=None)
    gathered.add(SimpleNamespace(id="chatcmpl_1", model="gpt-6-luna", service_tier="priority", usage=None, choices=[delta]))
    used = usage_so_far(gathered, 100)
    assert used is not None
    assert (used.input, used.output > 8, used.service_tier, used.source) == (100, True, "priority", "estimated")


@pytest.mark.parametrize("text", [WORDS, ""], ids=["words", "no words"])
def test_a_message_that_breaks_off_is_booked_with_the_tools_that_were_seen(text: str) -> None:
    used = Telling().so_far(AIMessageChunk(content=[SEARCH, IMAGE, {"type": "text", "text": text}]), text, 100)
    assert used is not None
    assert (used.input, used.web_searches, used.other, used.source) == (100, 1, 1, "estimated")


def test_a_message_without_a_word_or_tool_has_no_usage_to_estimate() -> None:
    assert Telling().so_far(AIMessageChunk(content=""), "", 100) is None


def test_chunks_that_do_not_fit_together_leave_their_words() -> None:
    capture = Capture()
    for number, kept in enumerate(["text", 1]):
        message = AIMessageChunk(content=f"word {number} ", additional_kwargs={"kept": kept})
        capture.on_llm_new_token("", chunk=ChatGenerationChunk(message=message))
    came = capture.so_far()
    assert came is not None
    assert came.text == "word 0 word 1 "
