"""Planned trouble reaches exactly the requests it is meant for."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routed_agents.embedded import Fault, FaultPlan
from routed_agents.embedded.faults import EFFECTS
from routed_agents.errors import ConfigurationError

HAIKU, MINI = "claude-haiku-4-5", "gpt-4o-mini"
ASK = [{"role": "user", "content": "Plan a trip to Rome"}]
TOOL = {"name": "find_trip", "description": "Find a trip.", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def plain(client):
    return client.messages.create(model=HAIKU, max_tokens=200, messages=ASK)


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("rate_limit", anthropic.RateLimitError, 429),
        ("overloaded", anthropic.InternalServerError, 529),
        ("server_error", anthropic.InternalServerError, 500),
    ],
)
def test_http_errors_raise_the_sdk_error_and_pass(provider, claude, kind, error, status):
    provider.faults.add(Fault(kind))
    with pytest.raises(error) as caught:
        plain(claude)
    assert caught.value.status_code == status
    assert plain(claude).stop_reason == "end_turn"
    assert [(seen.status, seen.faults) for seen in provider.requests] == [(status, (kind,)), (200, ())]


def test_openai_meets_the_same_faults(provider, gpt):
    provider.faults.add(Fault("rate_limit", retry_after_s=7))
    with pytest.raises(openai.RateLimitError) as caught:
        gpt.chat.completions.create(model=MINI, messages=ASK)
    assert caught.value.response.headers["retry-after"] == "7"


def test_the_sdk_retries_through_a_passing_overload(provider):
    provider.faults.add(Fault("overloaded", times=2, retry_after_s=0.01))
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", max_retries=2) as client:
        assert plain(client).stop_reason == "end_turn"
    assert len(provider.requests) == 3


def test_a_fault_for_one_model_leaves_others_alone(provider, claude):
    provider.faults.add(Fault("overloaded", model="claude-opus-5-5"))
    assert plain(claude).stop_reason == "end_turn"
    assert len(provider.faults) == 1


def test_nth_and_times_choose_the_requests(provider, claude):
    provider.faults.add(Fault("max_tokens", nth=2, times=2))
    assert [plain(claude).stop_reason for _ in range(4)] == ["end_turn", "max_tokens", "max_tokens", "end_turn"]


def test_contains_chooses_by_what_is_said(provider, claude):
    provider.faults.add(Fault("refusal", contains="Paris"))
    assert plain(claude).stop_reason == "end_turn"
    message = claude.messages.create(model=HAIKU, max_tokens=20, messages=[{"role": "user", "content": "Plan a trip to Paris"}])
    assert (message.stop_reason, message.content, message.stop_details.type) == ("refusal", [], "refusal")


def test_an_openai_refusal_is_a_filtered_choice(provider, gpt):
    provider.faults.add(Fault("refusal"))
    choice = gpt.chat.completions.create(model=MINI, messages=ASK).choices[0]
    assert choice.finish_reason == "content_filter"
    assert choice.message.refusal


def test_a_timeout_is_felt_by_the_client_and_does_not_block_others(provider, claude):
    provider.faults.add(Fault("timeout", after_s=5))
    with pytest.raises(anthropic.APITimeoutError):
        plain(claude.with_options(timeout=0.2))
    started = time.perf_counter()
    plain(claude)
    assert time.perf_counter() - started < 1


def test_a_request_header_brings_a_fault_of_its_own(provider, claude):
    with pytest.raises(anthropic.RateLimitError) as caught:
        claude.messages.create(model=HAIKU, max_tokens=9, messages=ASK, extra_headers={"x-simulate-fault": "rate_limit;retry-after=2"})
    assert caught.value.response.headers["retry-after"] == "2"
    with pytest.raises(anthropic.BadRequestError, match="known kinds: rate_limit"):
        claude.messages.create(model=HAIKU, max_tokens=9, messages=ASK, extra_headers={"x-simulate-fault": "earthquake"})


def test_a_cut_stream_breaks_off(provider, claude):
    provider.faults.add(Fault("cut_stream"))
    with pytest.raises((anthropic.APIError, httpx2.HTTPError)), claude.messages.stream(model=HAIKU, max_tokens=200, messages=ASK) as stream:
        stream.get_final_message()
    assert plain(claude).stop_reason == "end_turn"


def test_smaller_troubles_change_the_reply(provider, claude):
    provider.faults.add(Fault("empty_reply"), Fault("wrong_model"), Fault("slow_loris", after_s=0.01))
    assert plain(claude).content == []
    assert plain(claude).model == "another-model-sim"
    assert plain(claude).stop_reason == "end_turn"


def test_a_malformed_tool_call_lacks_its_arguments(provider, claude, gpt):
    provider.faults.add(Fault("malformed_tool_call", times=2))
    forced = claude.messages.create(model=HAIKU, max_tokens=99, messages=ASK, tools=[TOOL], tool_choice={"type": "any"})
    assert forced.content[0].input == {}
    tool = {"type": "function", "function": {"name": "find_trip", "parameters": TOOL["input_schema"]}}
    call = gpt.chat.completions.create(model=MINI, messages=ASK, tools=[tool], tool_choice="required")
    assert call.choices[0].message.tool_calls[0].function.arguments == '{"unfinished": '


def test_faults_do_not_write_the_cache(provider, claude):
    blocks = [{"type": "text", "text": "Rules of the house. " * 2000, "cache_control": {"type": "ephemeral"}}]
    provider.faults.add(Fault("overloaded"))
    with pytest.raises(anthropic.InternalServerError):
        claude.messages.create(model=HAIKU, max_tokens=9, system=blocks, messages=ASK)
    assert claude.messages.create(model=HAIKU, max_tokens=9, system=blocks, messages=ASK).usage.cache_read_input_tokens == 0


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="known kinds: rate_limit, overloaded"):
        Fault("earthquake")


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 20))
def test_a_fault_fires_exactly_its_times(nth, times, asked):
    plan = FaultPlan([Fault("overloaded", nth=nth, times=times)])
    fired = [plan.take("m", {}) is not None for _ in range(asked)]
    assert fired == [nth <= number < nth + times for number in range(1, asked + 1)]


def test_threads_share_one_plan_fairly():
    plan = FaultPlan([Fault("overloaded", times=100)])
    with ThreadPoolExecutor(16) as pool:
        fired = sum(pool.map(lambda _: plan.take("m", {}) is not None, range(1_000)))
    assert fired == 100


def test_every_kind_can_be_planned():
    assert [Fault(kind).effect for kind in EFFECTS]
