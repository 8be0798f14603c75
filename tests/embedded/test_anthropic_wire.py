"""The real Anthropic SDK talks to the embedded provider."""

from __future__ import annotations

import asyncio
import json
import time

import anthropic
import httpx2
import pytest

from routed_agents import Step, embedded
from routed_agents.features import extract

HAIKU, OPUS = "claude-haiku-4-5", "claude-opus-5-5"
ASK = [{"role": "user", "content": "What is 3 plus 4 times 2?"}]
TOOL = {
    "name": "record_ticket",
    "description": "Record a ticket.",
    "input_schema": {
        "type": "object",
        "properties": {"topic": {"enum": ["billing", "shipping", "other"]}, "order_id": {"type": "string"}},
        "required": ["topic", "order_id"],
    },
}
MAIL = [{"role": "user", "content": "My parcel A-10423 never arrived."}]


def refused(call, *, status: int = 400) -> str:
    with pytest.raises(anthropic.APIStatusError) as caught:
        call()
    assert caught.value.status_code == status
    return caught.value.body["error"]["message"]


def test_a_message_is_answered_and_labelled_simulated(claude):
    raw = claude.messages.with_raw_response.create(model=HAIKU, max_tokens=100, messages=ASK)
    message = raw.parse()
    assert message.content[0].text == "3 + 4 * 2 = 11"
    assert message.id.startswith("msg_sim_")
    assert raw.headers["x-routed-agents-simulated"] == "true"
    assert raw.headers["request-id"].startswith("req_sim_")


def test_usage_has_every_field_and_counts_the_prompt_once(claude):
    usage = claude.messages.create(model=HAIKU, max_tokens=100, messages=ASK).usage
    assert usage.input_tokens == claude.messages.count_tokens(model=HAIKU, messages=ASK).input_tokens
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (0, 0)
    assert usage.cache_creation.ephemeral_5m_input_tokens == usage.cache_creation.ephemeral_1h_input_tokens == 0
    assert usage.service_tier == "standard"
    assert usage.output_tokens > 0


@pytest.mark.parametrize(
    "source",
    [
        {"type": "text", "media_type": "text/plain", "data": "The notes say this. " * 2_000},
        {"type": "content", "content": "The notes say this. " * 2_000},
        {"type": "content", "content": [{"type": "text", "text": "The notes say this. " * 2_000}]},
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x" * 10},
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x" * 100_000},
        {"type": "url", "url": "https://example.com/a.pdf"},
    ],
)
def test_a_document_counts_no_more_than_a_step_thinks_at_most(claude, source):
    asked = [{"role": "user", "content": [{"type": "document", "source": source}, {"type": "text", "text": "Extract the date."}]}]
    counted = claude.messages.count_tokens(model=HAIKU, messages=asked).input_tokens
    assert 2_000 < counted < extract(Step.from_messages(asked)).tokens


def test_a_dated_id_resolves_and_an_unknown_one_is_not_found(claude):
    assert claude.messages.create(model=f"{HAIKU}-20251001", max_tokens=9, messages=ASK).model == f"{HAIKU}-20251001"
    assert (
        refused(lambda: claude.messages.create(model="claude-nobody-1", max_tokens=9, messages=ASK), status=404) == "model: claude-nobody-1"
    )


def test_newer_tokenizers_count_about_thirty_percent_more(claude):
    long = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 200}]
    old, new = (claude.messages.count_tokens(model=model, messages=long).input_tokens for model in (HAIKU, OPUS))
    assert new / old == pytest.approx(1.3, abs=0.01)


def test_a_stream_gives_the_same_text_and_usage_as_a_message(claude):
    whole = claude.messages.create(model=HAIKU, max_tokens=200, messages=[{"role": "user", "content": "Plan a trip to Rome"}])
    with claude.messages.stream(model=HAIKU, max_tokens=200, messages=[{"role": "user", "content": "Plan a trip to Rome"}]) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert (final.usage.input_tokens, final.usage.output_tokens) == (whole.usage.input_tokens, whole.usage.output_tokens)
    assert final.stop_reason == "end_turn"


def test_stream_events_come_in_the_documented_order(claude):
    kinds = [event.type for event in claude.messages.create(model=HAIKU, max_tokens=200, messages=ASK, stream=True)]
    assert [kind for kind in dict.fromkeys(kinds) if kind != "ping"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "record_ticket"}, {"type": "any"}])
def test_a_forced_tool_is_called_with_arguments_from_the_text(claude, choice):
    message = claude.messages.create(model=HAIKU, max_tokens=200, messages=MAIL, tools=[TOOL], tool_choice=choice)
    assert message.stop_reason == "tool_use"
    assert message.content[0].input == {"topic": "shipping", "order_id": "A-10423"}
    assert message.content[0].id.startswith("toolu_sim_")


def test_streamed_tool_input_adds_up(claude):
    choice = {"type": "any"}
    with claude.messages.stream(model=HAIKU, max_tokens=200, messages=MAIL, tools=[TOOL], tool_choice=choice) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == {"topic": "shipping", "order_id": "A-10423"}


def test_no_tool_is_called_when_the_choice_is_none(claude):
    message = claude.messages.create(model=HAIKU, max_tokens=200, messages=MAIL, tools=[TOOL], tool_choice={"type": "none"})
    assert message.stop_reason == "end_turn"


def test_a_json_schema_output_format_is_obeyed(claude):
    config = {"format": {"type": "json_schema", "schema": TOOL["input_schema"]}}
    message = claude.messages.create(model=HAIKU, max_tokens=200, messages=MAIL, output_config=config)
    assert json.loads(message.content[0].text) == {"topic": "shipping", "order_id": "A-10423"}


def test_max_tokens_cuts_the_answer_and_is_billed_exactly(claude):
    message = claude.messages.create(model=HAIKU, max_tokens=5, messages=[{"role": "user", "content": "Plan a trip to Rome"}])
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 5)


def test_a_stop_sequence_ends_the_answer(claude):
    message = claude.messages.create(model=HAIKU, max_tokens=50, messages=ASK, stop_sequences=[" = "])
    assert (message.stop_reason, message.stop_sequence, message.content[0].text) == ("stop_sequence", " = ", "3 + 4 * 2")


def test_images_are_accepted_and_cost_tokens(claude):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    content = [picture, {"type": "text", "text": "What is 1 + 1?"}]
    message = claude.messages.create(model=HAIKU, max_tokens=50, messages=[{"role": "user", "content": content}])
    assert message.usage.input_tokens > 1000


def test_system_may_be_text_or_blocks(claude):
    said = "Classify the review. Answer with one word: positive, negative or neutral."
    review = [{"role": "user", "content": "The lamp broke after a day. Awful."}]
    for system in (said, [{"type": "text", "text": said}]):
        assert claude.messages.create(model=HAIKU, max_tokens=50, system=system, messages=review).content[0].text == "negative"


def test_models_are_listed_with_their_windows(claude):
    windows = {model.id: model.max_input_tokens for model in claude.models.list()}
    assert windows[HAIKU] == 200_000
    assert claude.models.retrieve(OPUS).max_input_tokens == 1_000_000


def test_a_missing_key_is_an_authentication_error(provider):
    reply = httpx2.post(f"{provider.anthropic_url}/v1/messages", json={"model": HAIKU, "max_tokens": 5, "messages": ASK})
    assert reply.status_code == 401
    assert reply.json()["error"] == {"type": "authentication_error", "message": "x-api-key header is required"}


def test_an_unknown_route_is_not_found(provider):
    reply = httpx2.post(f"{provider.anthropic_url}/v1/nothing", json={}, headers={"x-api-key": "k"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": 100_000, "stream": True}, "max_tokens: 100000 > 64000"),
        ({"tool_choice": {"type": "tool", "name": "ghost"}, "tools": [TOOL]}, "tool_choice: Tool 'ghost' not found"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: user messages must have non-empty content"),
    ],
)
def test_an_invalid_request_is_refused_like_the_real_api_does(claude, change, said):
    assert refused(lambda: claude.messages.create(**{"model": HAIKU, "max_tokens": 10, "messages": ASK} | change)).startswith(said)


def test_a_missing_max_tokens_is_refused(provider):
    reply = httpx2.post(f"{provider.anthropic_url}/v1/messages", json={"model": HAIKU, "messages": ASK}, headers={"x-api-key": "k"})
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "max_tokens: Field required")


@pytest.mark.parametrize("model", [OPUS, "claude-sonnet-5-5", "claude-fable-5-1"])
def test_forcing_a_tool_on_a_model_that_does_not_take_it_is_refused(claude, model):
    call = lambda: claude.messages.create(model=model, max_tokens=10, messages=MAIL, tools=[TOOL], tool_choice={"type": "any"})  # noqa: E731
    assert "is not supported" in refused(call)


def test_sampling_parameters_are_refused_by_models_without_them(claude):
    call = lambda: claude.messages.create(model=OPUS, max_tokens=10, messages=ASK, extra_body={"temperature": 0})  # noqa: E731
    assert "temperature" in refused(call)


def test_a_tool_result_without_its_call_is_refused(claude):
    orphan = [*ASK, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_x", "content": "1"}]}]
    assert "unexpected `tool_use_id`" in refused(lambda: claude.messages.create(model=HAIKU, max_tokens=9, messages=orphan))


def test_a_call_without_its_result_is_refused(claude):
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_x", "name": "record_ticket", "input": {}}]}
    messages = [*ASK, call, *ASK]
    assert "without `tool_result`" in refused(lambda: claude.messages.create(model=HAIKU, max_tokens=9, messages=messages, tools=[TOOL]))


def test_five_megabytes_are_refused_quickly_as_too_long(claude):
    huge = [{"role": "user", "content": "lorem ipsum dolor sit amet " * 190_000}]
    started = time.perf_counter()
    said = refused(lambda: claude.messages.create(model=HAIKU, max_tokens=9, messages=huge))
    assert said.startswith("prompt is too long: ")
    assert said.endswith(" tokens > 200000 maximum")
    assert time.perf_counter() - started < 2.0


def test_one_megabyte_is_answered_by_a_model_that_can_hold_them(claude):
    long = [{"role": "user", "content": "Summarize this in one sentence:\n\n" + "The depot is closed on Mondays. " * 30_000}]
    started = time.perf_counter()
    message = claude.messages.create(model="claude-opus-5-5", max_tokens=100, messages=long)
    assert message.usage.input_tokens > 200_000
    assert time.perf_counter() - started < 5.0


def test_requests_are_recorded_with_model_tools_and_usage(provider, claude):
    claude.messages.create(model=HAIKU, max_tokens=200, messages=MAIL, tools=[TOOL])
    (seen,) = provider.requests
    assert (seen.model, seen.path, seen.stream, seen.tools, seen.status) == (HAIKU, "/v1/messages", False, ("record_ticket",), 200)
    assert seen.usage.output > 0
    assert seen.body["messages"] == MAIL
    provider.reset()
    assert provider.requests == []


async def test_fifty_concurrent_calls_are_all_answered(provider, async_claude):
    sums = [
        async_claude.messages.create(model=HAIKU, max_tokens=50, messages=[{"role": "user", "content": f"{n} + 1 ="}]) for n in range(50)
    ]
    replies = await asyncio.gather(*sums)
    assert [reply.content[0].text for reply in replies] == [f"{n} + 1 = {n + 1}" for n in range(50)]
    assert len(provider.requests) == 50


async def test_an_async_stream_works(async_claude):
    async with async_claude.messages.stream(model=HAIKU, max_tokens=50, messages=ASK) as stream:
        assert "".join([text async for text in stream.text_stream]) == "3 + 4 * 2 = 11"


def test_time_scale_brings_the_published_latency():
    with embedded.serve(time_scale=0.2) as slow, anthropic.Anthropic(base_url=slow.anthropic_url, api_key="k") as client:
        started = time.perf_counter()
        client.messages.create(model=HAIKU, max_tokens=50, messages=ASK)
        assert 0.12 <= time.perf_counter() - started < 1.0


def test_a_model_that_always_errs_still_fits_the_schema():
    with embedded.serve(error_rates={HAIKU: 1.0}) as wrong, anthropic.Anthropic(base_url=wrong.anthropic_url, api_key="k") as client:
        message = client.messages.create(model=HAIKU, max_tokens=200, messages=MAIL, tools=[TOOL], tool_choice={"type": "any"})
        assert message.content[0].input["topic"] in ("billing", "other")
        assert wrong.requests[0].mistaken


def test_mistakes_are_the_same_for_the_same_seed():
    def mistakes(seed: int) -> list[bool]:
        with (
            embedded.serve(seed=seed, error_rates={HAIKU: 0.3}) as one,
            anthropic.Anthropic(base_url=one.anthropic_url, api_key="k") as client,
        ):
            for number in range(30):
                client.messages.create(model=HAIKU, max_tokens=20, messages=[{"role": "user", "content": f"{number} + 1 ="}])
            return [seen.mistaken for seen in one.requests]

    first = mistakes(1)
    assert first == mistakes(1)
    assert first != mistakes(2)
    assert 2 < sum(first) < 18
