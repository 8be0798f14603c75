"""The real OpenAI SDK talks to the embedded provider."""

from __future__ import annotations

import asyncio
import json

import httpx2
import openai
import pytest

from routed_agents import embedded

MINI, LUNA = "gpt-4o-mini", "gpt-6-luna"
ASK = [{"role": "user", "content": "What is 3 plus 4 times 2?"}]
MAIL = [{"role": "user", "content": "My parcel A-10423 never arrived."}]
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": ["billing", "shipping", "other"]}, "order_id": {"type": "string"}},
    "required": ["topic", "order_id"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "record_ticket", "description": "Record a ticket.", "parameters": SCHEMA}}
FOUND = {"topic": "shipping", "order_id": "A-10423"}


def test_a_completion_is_answered_and_labelled_simulated(gpt):
    raw = gpt.chat.completions.with_raw_response.create(model=MINI, messages=ASK)
    reply = raw.parse()
    assert reply.choices[0].message.content == "3 + 4 * 2 = 11"
    assert reply.id.startswith("chatcmpl-sim-")
    assert raw.headers["x-routed-agents-simulated"] == "true"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_reports_usage_only_when_asked(gpt):
    silent = list(gpt.chat.completions.create(model=MINI, messages=ASK, stream=True))
    asked = list(gpt.chat.completions.create(model=MINI, messages=ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in silent) == "3 + 4 * 2 = 11"
    assert all(chunk.usage is None for chunk in silent)
    assert asked[-1].choices == []
    assert asked[-1].usage.prompt_tokens > 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "record_ticket"}}])
def test_a_forced_tool_is_called_with_arguments_from_the_text(gpt, choice):
    reply = gpt.chat.completions.create(model=MINI, messages=MAIL, tools=[TOOL], tool_choice=choice)
    assert reply.choices[0].finish_reason == "tool_calls"
    assert json.loads(reply.choices[0].message.tool_calls[0].function.arguments) == FOUND


def test_a_json_schema_response_format_is_obeyed(gpt):
    wanted = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA, "strict": True}}
    reply = gpt.chat.completions.create(model=MINI, messages=MAIL, response_format=wanted)
    assert json.loads(reply.choices[0].message.content) == FOUND


def test_json_object_needs_the_word_json(gpt):
    asked = [{"role": "user", "content": "Answer in JSON: what is 1 + 1?"}]
    reply = gpt.chat.completions.create(model=MINI, messages=asked, response_format={"type": "json_object"})
    assert isinstance(json.loads(reply.choices[0].message.content), dict)
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
        gpt.chat.completions.create(model=MINI, messages=ASK, response_format={"type": "json_object"})


def test_max_tokens_ends_with_length(gpt):
    reply = gpt.chat.completions.create(model=MINI, messages=[{"role": "user", "content": "Plan a trip"}], max_completion_tokens=4)
    assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 4)


def test_a_long_prompt_sent_twice_is_read_from_cache_in_steps_of_128(gpt):
    messages = [{"role": "system", "content": "Rules of the house: be kind. " * 400}, *ASK]
    first, second = (gpt.chat.completions.create(model=MINI, messages=messages).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens >= 1024
    assert second.prompt_tokens_details.cached_tokens % 128 == 0
    assert second.prompt_tokens == first.prompt_tokens


def test_newer_models_report_cache_writes(gpt):
    messages = [{"role": "system", "content": "Rules of the house: be kind. " * 400}, *ASK]
    first, second = (gpt.chat.completions.create(model=LUNA, messages=messages).usage.prompt_tokens_details for _ in range(2))
    assert first.cache_write_tokens > 1024
    assert second.cache_write_tokens < 256


def test_errors_have_the_openai_shape(gpt):
    with pytest.raises(openai.NotFoundError) as caught:
        gpt.chat.completions.create(model="gpt-nobody", messages=ASK)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.chat.completions.create(model=MINI, messages=[{"role": "user", "content": "word " * 200_000}])
    assert caught.value.code == "context_length_exceeded"


def test_a_missing_key_is_refused(provider):
    reply = httpx2.post(f"{provider.openai_url}/chat/completions", json={"model": MINI, "messages": ASK})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_tool_message_needs_a_call(gpt):
    with pytest.raises(openai.BadRequestError, match="must be a response to a preceeding message"):
        gpt.chat.completions.create(model=MINI, messages=[*ASK, {"role": "tool", "tool_call_id": "x", "content": "1"}])


def test_models_are_listed(gpt):
    assert {"gpt-4o", "gpt-4o-mini", "gpt-6-luna", "gpt-6.1-sol"} <= {model.id for model in gpt.models.list()}


def test_the_responses_api_answers_and_streams(gpt):
    assert gpt.responses.create(model=LUNA, input="What is 3 plus 4 times 2?").output_text == "3 + 4 * 2 = 11"
    with gpt.responses.stream(model=LUNA, input="What is 3 plus 4 times 2?") as stream:
        assert stream.get_final_response().output_text == "3 + 4 * 2 = 11"


async def test_fifty_concurrent_calls_are_all_answered(provider: embedded.Provider):
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        sums = [client.chat.completions.create(model=MINI, messages=[{"role": "user", "content": f"{n} + 1 ="}]) for n in range(50)]
        replies = await asyncio.gather(*sums)
    assert [reply.choices[0].message.content for reply in replies] == [f"{n} + 1 = {n + 1}" for n in range(50)]
