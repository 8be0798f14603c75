"""What streams and broken calls are booked at: to the cent where the provider says so, and never less than what was seen of them."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from routed_agents import CostObserver, Policy, RoutedChatModel
from routed_agents.pricing import Usage, usage_of
from routed_agents.testing import ScriptedChatModel

from .conftest import EASY, HAIKU, LOOP, OPUS, Books

BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
CHEAP = {"metadata": {"task_class": "classification"}}
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
    """Answers every message with the same blocks and usage."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.usage: dict[str, Any] = COUNTED
        self.blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [(SAYS, SAID)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def events(self, model: str) -> Iterator[dict[str, Any]]:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None}
        started = {**self.usage, "output_tokens": 1, "server_tool_use": None}
        yield {"type": "message_start", "message": {**head, "stop_sequence": None, "usage": started}}
        for index, (block, deltas) in enumerate(self.blocks):
            yield {"type": "content_block_start", "index": index, "content_block": block}
            yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
            yield {"type": "content_block_stop", "index": index}
        ended = {name: self.usage.get(name) for name in TOLD_AT_THE_END}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": ended}
        yield {"type": "message_stop"}


class Answering(BaseHTTPRequestHandler):
    server: Anthropic

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked.get("stream"):
            data = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in self.server.events(asked["model"]))
        else:
            head = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
            said = [{"type": "text", "text": "Hello there"}]
            data = json.dumps({**head, "content": said, "stop_reason": "end_turn", "usage": self.server.usage})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.send_header("content-length", str(len(data.encode())))
        self.end_headers()
        self.wfile.write(data.encode())


@pytest.fixture(scope="module")
def serving() -> Iterator[Anthropic]:
    with Anthropic() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def claude(serving: Anthropic) -> Anthropic:
    """The module's server, answering as at first."""
    serving.usage, serving.blocks = COUNTED, [(SAYS, SAID)]
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
