"""Histories and parameters of a routed client pass a provider that refuses what the real ones refuse, whichever model reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from routed_agents import Policy, decision_of, embedded
from routed_agents.features import extract
from routed_agents.integrations.clients import routed_anthropic, routed_openai
from routed_agents.integrations.sdk_histories import Writers
from routed_agents.integrations.sdk_requests import About, step_of, tool_schemas, with_caching
from routed_agents.telemetry import names
from routed_agents.tiers import Tiers

from .conftest import FLAWLESS, Books
from .sdk_clients import ASK, HAIKU, OPUS

WEATHER = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "name": "get_weather", "description": "Get the weather of a city.", "parameters": WEATHER["input_schema"]}
KIEL = {"role": "user", "content": "What is the weather in Kiel?"}


@pytest.fixture(scope="module")
def served() -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS, strict=True) as running:
        yield running


@pytest.fixture
def claude(provider: embedded.Provider) -> Iterator[tuple[anthropic.Anthropic, Books]]:
    books = Books(Policy.default(tiers="claude"))
    with routed_anthropic(anthropic.Anthropic(max_retries=0), books.router) as client:
        yield client, books


@pytest.fixture
def gpt(provider: embedded.Provider) -> Iterator[tuple[openai.OpenAI, Books]]:
    books = Books(Policy.default(tiers="gpt"))
    with routed_openai(openai.OpenAI(max_retries=0), books.router) as client:
        yield client, books


def answered(client: Any, history: list[Any], tier: str, *, stream: bool = False, model: str = "auto", **sent: Any) -> str:
    """One turn of a tool loop on one tier; the history grows, and the last decision's tier comes back."""
    said = {"routed_agents": {"tier": tier}} if model == "auto" else {}
    while True:
        given: dict[str, Any] = {"model": model, "max_tokens": 4096, "tools": [WEATHER], "messages": history, **said, **sent}
        if stream:
            with client.messages.stream(**given) as running:
                reply = running.get_final_message()
            found = decision_of(running)
        else:
            reply = client.messages.create(**given)
            found = decision_of(reply)
        history.append({"role": "assistant", "content": reply.content})
        calls = [block for block in reply.content if block.type == "tool_use"]
        if not calls:
            return found["tier"] if found else ""
        history.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "12"} for call in calls]})


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_of_another_model_are_left_out_and_its_own_stay(stream, claude, provider):
    client, books = claude
    history: list[Any] = [KIEL]
    tiers = [answered(client, history, "strong", stream=stream)]
    for tier in ("cheap", "strong"):
        history.append(ASK[0])
        tiers.append(answered(client, history, tier, stream=stream))
    assert tiers == ["strong", "cheap", "strong"]
    thoughts = [_thoughts(request.body) for request in provider.requests]
    models = [request.model for request in provider.requests]
    assert models == [OPUS, OPUS, HAIKU, OPUS]
    assert thoughts[1] > 0  # in its own loop
    assert thoughts[2] == 0  # for the other model
    assert thoughts[3] > thoughts[1]  # and back with the one whose they are
    assert "thinking_history" in next(
        leaf.attributes[names.REPAIRS] for leaf in books.leaves if leaf.attributes[names.REQUEST_MODEL] == HAIKU
    )
    assert any(block.type in ("thinking", "redacted_thinking") for block in history[1]["content"])  # the caller's own stays whole


def test_thoughts_of_a_watched_model_are_known_too(claude, provider):
    client, _ = claude
    history: list[Any] = [KIEL]
    answered(client, history, "", model=OPUS)
    history.append(ASK[0])
    assert answered(client, history, "cheap") == "cheap"
    assert _thoughts(provider.requests[-1].body) == 0


@pytest.mark.parametrize("model", ["auto", "claude-opus-4-5"])
def test_a_stream_left_after_its_tool_call_has_told_whose_its_thoughts_are(model, provider):
    old = {"cheap": "anthropic:claude-haiku-4-5", "strong": "anthropic:claude-opus-4-5"}
    sent: dict[str, Any] = {"max_tokens": 4000, "tools": [WEATHER], "thinking": {"type": "enabled", "budget_tokens": 1024}}
    said = {"routed_agents": {"tier": "strong"}} if model == "auto" else {}
    with routed_anthropic(anthropic.Anthropic(max_retries=0), Policy.default(tiers=Tiers.of(old))) as client:
        with client.messages.stream(model=model, messages=[KIEL], **sent, **said) as stream:
            blocks = [event.content_block for event, _ in zip(_ended(stream), range(2), strict=False)]
        result = {"type": "tool_result", "tool_use_id": blocks[1].id, "content": "12"}
        client.messages.create(
            model="auto", messages=[KIEL, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}], **sent
        )
    assert [block.type for block in blocks] == ["thinking", "tool_use"]
    assert {request.status for request in provider.requests} == {200}


def _ended(stream: Any) -> Iterator[Any]:
    return (event for event in stream if event.type == "content_block_stop")


def test_a_thought_left_before_it_was_signed_is_nobodys():
    writers = Writers()
    writers.note("messages", {"content": [{"type": "thinking", "thinking": "Let me", "signature": ""}]}, OPUS)
    unsigned = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": ""}, {"type": "text", "text": "a"}]}
    body = {"messages": [KIEL, unsigned, KIEL]}
    writers.fitted("messages", body, OPUS)
    assert _thoughts(body) == 0


def test_thoughts_of_nobody_known_stay_in_an_open_loop_and_go_after_it():
    thought = {"type": "thinking", "thinking": "", "signature": "abc"}
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    loop = [KIEL, {"role": "assistant", "content": [thought, call]}]
    loop.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]})
    going, over = {"messages": loop}, {"messages": [*loop, {"role": "assistant", "content": "done"}, ASK[0]]}
    assert (Writers().fitted("messages", going, OPUS), Writers().fitted("messages", over, OPUS)) == ((), ("thinking_history",))
    assert (_thoughts(going), _thoughts(over)) == (1, 0)


def test_a_loop_that_goes_on_without_its_thoughts_goes_on_without_a_thinking_budget():
    writers = Writers()
    thought = {"type": "thinking", "thinking": "", "signature": "abc"}
    writers.note("messages", {"content": [thought]}, OPUS)
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]}
    body: dict[str, Any] = {"messages": [KIEL, {"role": "assistant", "content": [thought, call]}, result]}
    body["thinking"] = {"type": "enabled", "budget_tokens": 2000}
    assert writers.fitted("messages", body, "claude-haiku-4-5") == ("thinking_history", "thinking")
    assert "thinking" not in body


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_items_of_another_model_are_left_out_with_the_ids_that_ask_for_them(stream, gpt, provider):
    client, _ = gpt
    history: list[Any] = [KIEL]

    def turn(tier: str) -> None:
        while True:
            given: dict[str, Any] = {"model": "auto", "input": history, "tools": [TOOL], "routed_agents": {"tier": tier}}
            if stream:
                with client.responses.stream(**given) as running:
                    reply = running.get_final_response()
            else:
                reply = client.responses.create(**given)
            history.extend(reply.output)
            calls = [item for item in reply.output if item.type == "function_call"]
            if not calls:
                return
            history.extend({"type": "function_call_output", "call_id": call.call_id, "output": "12"} for call in calls)

    turn("strong")
    for tier in ("cheap", "strong"):
        history.append(ASK[0])
        turn(tier)
    assert len({request.model for request in provider.requests}) == 2
    assert {request.status for request in provider.requests} == {200}


def test_stop_sequences_and_thinking_pass_in_the_apis_own_words(claude, provider):
    client, _ = claude
    sent: dict[str, Any] = {"max_tokens": 4096, "messages": ASK, "stop_sequences": ["END"], "extra_body": {"temperature": 0.1}}
    sent["thinking"] = {"type": "adaptive"}
    sent["output_config"] = {"effort": "low"}
    for tier in ("cheap", "strong"):
        client.messages.create(model="auto", **sent, routed_agents={"tier": tier})
    assert [request.body["stop_sequences"] for request in provider.requests] == [["END"], ["END"]]
    assert [request.status for request in provider.requests] == [200, 200]


def test_openai_parameters_pass_on_every_tier(gpt, provider):
    client, _ = gpt
    for tier in ("cheap", "strong"):
        said = {"routed_agents": {"tier": tier}}
        client.chat.completions.create(
            model="auto", messages=ASK, temperature=0.1, stop=["END"], reasoning_effort="high", max_completion_tokens=500, user="u1", **said
        )
        client.responses.create(
            model="auto", input=ASK, temperature=0.1, reasoning={"effort": "high"}, max_output_tokens=500, store=False, **said
        )
    assert {request.status for request in provider.requests} == {200}
    assert [request.body.get("max_completion_tokens", request.body.get("max_output_tokens")) for request in provider.requests] == [500] * 4


def test_the_schemas_of_a_tools_arguments_are_read_from_each_format():
    assert tool_schemas({"tools": [WEATHER, {"type": "web_search_20250305", "name": "web_search"}]}) == {
        "get_weather": WEATHER["input_schema"]
    }
    assert (
        tool_schemas({"tools": [TOOL]})
        == tool_schemas({"tools": [{"type": "function", "function": TOOL}]})
        == {"get_weather": TOOL["parameters"]}
    )


def test_the_prompt_of_a_tool_loop_is_cached_unless_the_caller_says_how(claude, provider):
    client, _ = claude
    marked = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    for more in ({}, {"system": marked}, {"model": OPUS}):
        answered(client, [KIEL], "strong", **more)
    found = [request.body.get("cache_control") for request in provider.requests]
    assert found == [None, {"type": "ephemeral"}, None, None, None, None]


LOOP = [
    KIEL,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Kiel"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "12"}]},
]
CLOUDS: dict[str, tuple[Callable[[httpx2.Client], Any], dict[str, str]]] = {
    "bedrock": (
        lambda http: anthropic.AnthropicBedrock(api_key="k", aws_region="us-east-1", http_client=http, max_retries=0),
        {"cheap": f"bedrock:anthropic.{HAIKU}", "strong": f"bedrock:anthropic.{OPUS}"},
    ),
    "vertex": (
        lambda http: anthropic.AnthropicVertex(access_token="k", project_id="p", region="us-east5", http_client=http, max_retries=0),
        {"cheap": f"google_vertexai:{HAIKU}", "strong": f"google_vertexai:{OPUS}"},
    ),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_on_bedrock_and_vertex_a_tool_loops_last_block_is_marked_and_not_the_request(cloud):
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        said = {"id": "msg_1", "type": "message", "role": "assistant", "model": HAIKU, "content": [{"type": "text", "text": "12 degrees"}]}
        return httpx2.Response(200, json={**said, "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 2}})

    make, tiers = CLOUDS[cloud]
    with make(httpx2.Client(transport=httpx2.MockTransport(answer))) as sdk:
        client = routed_anthropic(sdk, Books(Policy.default(tiers=Tiers.of(tiers))).router)
        client.messages.create(model="auto", max_tokens=64, messages=LOOP, tools=[WEATHER])
    assert "cache_control" not in sent[0]
    assert sent[0]["messages"] == [
        *LOOP[:2],
        {"role": "user", "content": [{**LOOP[2]["content"][0], "cache_control": {"type": "ephemeral"}}]},
    ]
    assert "cache_control" not in LOOP[2]["content"][0]


def test_results_of_calls_that_code_made_are_not_marked():
    call = {**LOOP[1]["content"][0], "caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}}
    body: dict[str, Any] = {"messages": [KIEL, {"role": "assistant", "content": [call]}, LOOP[2]]}
    with_caching(body, "5m", on_block=True)
    assert "cache_control" not in json.dumps(body)


def _thoughts(body: Any) -> int:
    blocks = [block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]]
    return sum(block["type"] in ("thinking", "redacted_thinking") for block in blocks)


LONG = "word " * 20_000


@pytest.mark.parametrize(
    "item",
    [
        {"type": "mcp_call", "id": "m", "name": "look", "server_label": "s", "arguments": "{}", "output": LONG},
        {"type": "file_search_call", "id": "f", "queries": ["q"], "status": "completed", "results": [{"file_id": "1", "text": LONG}]},
        {
            "type": "shell_call_output",
            "call_id": "c",
            "output": [{"stdout": LONG, "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
        {"type": "function_call_output", "call_id": "c", "output": LONG},
    ],
    ids=lambda item: item["type"],
)
def test_what_a_provider_ran_itself_counts_in_a_history_of_items(item: dict[str, Any]) -> None:
    step = step_of("responses", {"input": [KIEL, item, KIEL]}, About())

    assert extract(step).tokens > 20_000
