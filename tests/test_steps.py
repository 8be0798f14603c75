"""Steps: every form in which a message may come."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from routed_agents.errors import StepError, StepStopped
from routed_agents.features import extract
from routed_agents.policy import Policy
from routed_agents.steps import (
    Resumed,
    Step,
    ToolCall,
    beside_results,
    new_id,
    reported_tokens,
    role_of,
    said_and_shown,
    stamp_of,
    storable,
    text_of,
    tool_calls_of,
    tool_failed,
    tool_name,
)

SAID = {"role": "user", "content": "hello"}


def block(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ("hello", "human"),
        (("user", "hello"), "human"),
        (("ai", "hello"), "ai"),
        ({"role": "developer", "content": "x"}, "system"),
        ({"role": "assistant", "content": "x"}, "ai"),
        ({"type": "message", "role": "assistant", "content": []}, "ai"),
        (SimpleNamespace(type="message", role="assistant", content=[]), "ai"),
        ({"role": "function", "content": "x"}, "tool"),
        (SystemMessage("x"), "system"),
        (HumanMessage("x"), "human"),
        (AIMessage("x"), "ai"),
        (AIMessageChunk("x"), "ai"),
        (ToolMessage("x", tool_call_id="1"), "tool"),
        (ChatMessage("x", role="assistant"), "ai"),
        (ChatMessage("x", role="user"), "human"),
    ],
)
def test_every_form_of_message_has_a_role(message: object, role: str) -> None:
    assert role_of(message) == role


def test_a_free_role_of_langchain_is_never_new_human_input() -> None:
    assert role_of(ChatMessage("x", role="critic")) == "ai"


def test_anthropics_tool_results_are_the_tools_and_not_the_persons() -> None:
    results = {"role": "user", "content": [block("tool_result", tool_use_id="1", content="42")]}

    assert role_of(results) == "tool"


@pytest.mark.parametrize("as_kind", [list, tuple])
def test_a_tool_result_with_a_programs_words_beside_it_is_the_tools(as_kind: Any) -> None:
    blocks = [block("tool_result", tool_use_id="1", content="42"), block("text", text="Reply with JSON."), block("image", url="x")]
    both = {"role": "user", "content": as_kind(blocks)}

    assert (role_of(both), beside_results(both)) == ("tool", "Reply with JSON.")


@pytest.mark.parametrize("message", ["said", {"role": "user", "content": [block("text", text="said")]}, ToolMessage("r", tool_call_id="1")])
def test_where_there_is_no_tool_result_nothing_is_beside_it(message: object) -> None:
    assert beside_results(message) == ""


@pytest.mark.parametrize("message", [{"role": "wizard", "content": "x"}, {"content": "x"}, ("wizard", "x"), 7, None])
def test_an_unknown_role_is_an_error_that_lists_the_known_ones(message: object) -> None:
    with pytest.raises(StepError, match="known roles: system, user, assistant, tool"):
        role_of(message)


@pytest.mark.parametrize("messages", [[], (), [{"role": "wizard"}]])
def test_a_step_needs_a_message_with_a_role(messages: list[object]) -> None:
    with pytest.raises(StepError):
        Step.from_messages(messages)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("hello", "hello"),
        (("user", "hello"), "hello"),
        (("user",), ""),
        ({"role": "user", "content": [block("text", text="a"), block("image_url", image_url="…"), "b"]}, "a\nb"),
        ({"role": "user", "content": [block("tool_result", content=[block("text", text="deep")])]}, "deep"),
        ({"role": "assistant", "content": None}, ""),
        (HumanMessage([{"type": "text", "text": "a"}]), "a"),
        ({"role": "user", "content": [block("document", source={"type": "text", "data": "shown"}), block("text", text="a")]}, "shown\na"),
    ],
)
def test_the_words_of_a_message(message: object, text: str) -> None:
    assert text_of(message) == text


@pytest.mark.parametrize(
    "shown",
    [
        block("document", source={"type": "text", "media_type": "text/plain", "data": "shown"}),
        block("document", source={"type": "content", "content": "shown"}),
        block("document", source={"type": "content", "content": [block("text", text="shown")]}),
        block("search_result", source="https://example.com", title="t", content=[block("text", text="shown")]),
        block("text-plain", text="shown", mime_type="text/plain"),
        block("file", source_type="text", text="shown"),
    ],
)
def test_what_a_message_shows_is_told_from_what_its_author_says(shown: dict[str, Any]) -> None:
    assert said_and_shown(HumanMessage([shown, block("text", text="said")])) == ("said", "shown")


CALL = ToolCall(name="look", arguments='{"at": 1, "q": "x"}', id="c1")


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("", tool_calls=[{"name": "look", "args": {"q": "x", "at": 1}, "id": "c1"}]),
        {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q":"x", "at":1}'}}]},
        {"content": [block("text", text="so"), block("tool_use", id="c1", name="look", input={"at": 1, "q": "x"})]},
    ],
    ids=["langchain", "openai", "anthropic"],
)
def test_one_tool_call_is_equal_in_every_providers_form(message: object) -> None:
    assert tool_calls_of(message) == (CALL,)


def test_a_function_call_is_a_tool_call() -> None:
    message = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"q":"x", "at":1}'}}

    assert tool_calls_of(message) == (replace(CALL, id=None),)


def test_a_text_is_no_list_of_tool_calls() -> None:
    assert tool_calls_of({"tool_calls": "nope"}) == ()


def test_arguments_that_are_no_json_are_marked() -> None:
    (call,) = tool_calls_of({"tool_calls": [{"function": {"name": "look", "arguments": "{oh"}}]})

    assert json.loads(call.arguments) == {"__unreadable__": "{oh"}


@pytest.mark.parametrize(
    ("message", "failed"),
    [
        (ToolMessage("no", tool_call_id="1", status="error"), True),
        (ToolMessage("yes", tool_call_id="1"), False),
        ({"role": "tool", "content": "no", "is_error": True}, True),
        ({"role": "user", "content": [block("tool_result", content="no", is_error=True)]}, True),
        ({"role": "user", "content": [block("tool_result", content="yes")]}, False),
    ],
)
def test_a_failed_tool_is_told_from_a_good_one(message: object, failed: bool) -> None:
    assert tool_failed(message) is failed


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (AIMessage("x", usage_metadata={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}), 15),
        ({"usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7}}, 122),
        ({"usage": {"input_tokens": -10, "output_tokens": 5}}, None),
        ({"usage": {"input_tokens": "10", "output_tokens": 5}}, None),
        ({"usage": None}, None),
        (AIMessage("x"), None),
    ],
)
def test_what_a_provider_counted(message: object, tokens: int | None) -> None:
    assert reported_tokens(message) == tokens


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return city


@pytest.mark.parametrize(
    "given",
    ["weather", {"name": "weather"}, {"type": "function", "function": {"name": "weather"}}, weather, weather.func, {"title": "weather"}],
)
def test_a_tool_is_known_by_its_name_in_every_form(given: object) -> None:
    assert tool_name(given) == "weather"


@pytest.mark.parametrize("metadata", [None, "text", {}, {"routed_agents": "strong"}, {"routed_agents": None}])
def test_what_is_no_stamp_is_not_read_as_one(metadata: object) -> None:
    assert stamp_of({"role": "assistant", "response_metadata": metadata}) is None


def test_a_step_survives_its_record() -> None:
    step = Step.from_messages(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        system="more", tools=["look"], task_class="extraction", tokens=9, node="n", output_schema={"type": "object"}, downstream=2,
        deadline_s=1.5, metadata={"tenant": "acme"}, id="s1",
    )  # fmt: skip

    assert Step.from_record(json.loads(json.dumps(step.to_record()))) == step


def test_a_record_of_langchain_messages_is_plain_json() -> None:
    step = Step.from_messages(
        [HumanMessage("u"), AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]), ToolMessage("r", tool_call_id="1")]
    )

    assert [message["role"] for message in json.loads(json.dumps(step.to_record()))["messages"]] == ["user", "assistant", "tool"]


def test_a_trajectory_that_calls_its_messages_steps_is_read() -> None:
    assert Step.from_record({"steps": [{"role": "user", "content": "u"}]}).messages[0] == {"role": "user", "content": "u"}


@pytest.mark.parametrize(
    "brought", [block("document", source={"type": "text", "data": "shown"}), block("image", url="https://example.com")]
)
def test_a_record_keeps_what_a_message_brings(brought: dict[str, Any]) -> None:
    step = Step.from_messages([HumanMessage([brought, block("text", text="said")])])

    assert extract(Step.from_record(step.to_record())) == extract(step)


def called(number: int) -> dict[str, Any]:
    return {"role": "assistant", "content": [block("tool_use", id=str(number), name="f", input={"a": number})]}


STAMPED = {"routed_agents": {"tier": "strong", "pin": "turn", "codes": ("because",), "run": "r", "at": "2", "rejected": ["cheap"]}}
FAILED = {"role": "user", "content": [block("tool_result", tool_use_id="1", content="no", is_error=True), block("text", text="Go on.")]}
COUNTED = {"input_tokens": 20_000, "output_tokens": 7, "cache_read_input_tokens": 5}
HISTORIES = {
    "a function call": [SAID, {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "x" * 9_000}}, SAID],
    "failed tools": [SAID, called(1), FAILED, called(2), FAILED],
    "failed tools of LangChain": [SAID, called(1), ToolMessage("no", tool_call_id="1", status="error")],
    "stamps": [HumanMessage("u", id="h"), AIMessage("", response_metadata=STAMPED, id="a"), ToolMessage("r", tool_call_id="1")],
    "thoughts": [SAID, {"role": "assistant", "content": [block("thinking", thinking="hm " * 9_000), block("text", text="ok")]}, SAID],
    "counts": [SAID, {"role": "assistant", "content": "ok", "usage": COUNTED}, SAID],
    "counts of LangChain": [SAID, AIMessage("", usage_metadata={"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}), SAID],
    "summaries": [
        HumanMessage("so far", additional_kwargs={"lc_source": "summarization"}, id="s"),
        AIMessage("", response_metadata=STAMPED),
    ],
}


@pytest.mark.parametrize("history", HISTORIES)
def test_a_record_keeps_what_decisions_hang_on(history: str) -> None:
    step = Step.from_messages(HISTORIES[history], in_loop=True, metadata={"flag": 1.5}, run="r", at="3")
    step = replace(step, resumed=Resumed(begun="1", spoken="2"))

    again, seen = extract(Step.from_record(json.loads(json.dumps(step.to_record())))), extract(step)

    assert replace(again, tokens=seen.tokens) == seen
    assert abs(again.tokens - seen.tokens) < 0.02 * seen.tokens + 60


def test_metadata_that_json_has_no_form_for_is_written_in_one() -> None:
    given = {"tags": {"b", "a"}, "pair": (1, None), "when": re.compile("x").flags, "kind": Kind(), "routed_agents": {"tier": "strong"}}

    assert json.loads(json.dumps(Step.from_messages("u", metadata=given).to_record()))["metadata"] == {
        "tags": ["a", "b"],
        "pair": [1, None],
        "when": 32,
        "kind": "a kind",
        "routed_agents": {"tier": "strong"},
    }


class Kind:
    def __str__(self) -> str:
        return "a kind"


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({}, '"messages" is missing'),
        ({"messages": "hello"}, '"messages" is str'),
        ({"messages": ["hello"]}, "message 1 is str"),
        ({"messages": [SAID, {"role": "wizard"}]}, "wizard"),
        ({"messages": [SAID], "approx_tokens": True}, '"approx_tokens" is bool; wanted a whole number'),
        ({"messages": [SAID], "approx_tokens": -5}, '"approx_tokens" is -5; wanted a number that is not negative'),
        ({"messages": [SAID], "metadata": []}, '"metadata" is list; wanted an object'),
        ({"messages": [SAID], "deadline_s": "1"}, '"deadline_s" is str; wanted a number'),
        ({"messages": [SAID], "in_loop": 1}, '"in_loop" is int; wanted true or false'),
        ({"messages": [SAID], "in_loop": "true"}, '"in_loop" is str; wanted true or false'),
        ({"messages": [SAID], "task_clas": "x"}, '"task_clas": did you mean "task_class"[?]'),
        ({"messages": [SAID, {"role": "user", "text": "x"}]}, 'message 2 has no "content"'),
        ({"messages": [{"role": "system", "content": None}, SAID]}, 'message 1 has no "content"'),
        ({"messages": [SAID, {"role": "tool", "output": "x"}]}, 'message 2 has no "content"'),
        ({"messages": [SAID, {"role": "assistant", "text": "x"}, SAID]}, 'message 2 has neither "content" nor "tool_calls"'),
        ({"messages": [{"role": "user", "content": 5}]}, '"content" of message 1 is int'),
        ({"messages": [{"role": "user", "content": {"text": "x"}}]}, '"content" of message 1 is dict'),
        ({"messages": [{"role": "user", "content": [5]}]}, '"content" of message 1 holds int'),
        ({"messages": [SAID, {"role": "assistant", "content": "", "tool_calls": "nope"}]}, '"tool_calls" of message 2 is str'),
        ({"messages": [SAID, {"role": "assistant", "content": "", "tool_calls": ["nope"]}]}, '"tool_calls" of message 2 holds str'),
    ],
)
def test_a_wrong_record_names_its_key(record: dict[str, Any], named: str) -> None:
    with pytest.raises(StepError, match=named.replace('"', '"')):
        Step.from_record(record)


def test_a_record_may_have_columns_of_its_own_and_calls_without_content() -> None:
    calling = {"role": "assistant", "tool_calls": [{"name": "look", "arguments": "{}"}]}
    record = {
        "messages": [SAID, calling, {"role": "tool", "content": None}],
        "source": "x",
        "label": 1,
        "note": "",
        "class_no": 3,
        "step": 4,
    }

    assert len(Step.from_record(record).messages) == 3


@pytest.mark.parametrize(
    ("messages", "more", "said"),
    [
        (5, {}, "messages is int"),
        (SAID, {}, "messages is dict"),
        (HumanMessage("hello"), {}, "messages is HumanMessage"),
        ([{"role": "user", "content": 5}], {}, '"content" of a message is int'),
        ([{"role": "user", "text": "hello"}], {}, 'a message has no "content"'),
        ([("user", 5)], {}, '"content" of a message is int'),
        ("hello", {"tokens": "x"}, "tokens is str"),
        ("hello", {"tokens": -5}, "tokens is -5; wanted a number that is not negative"),
        ("hello", {"downstream": 1.5}, "downstream is float"),
        ("hello", {"deadline_s": "x"}, "deadline_s is str; wanted a number"),
        ("hello", {"deadline_s": float("nan")}, "deadline_s is nan"),
        ("hello", {"metadata": "x"}, "metadata is str"),
        ("hello", {"output_schema": 5}, "output_schema is int"),
        ("hello", {"tools": "look"}, "tools is str"),
        ("hello", {"tools": 5}, "tools is int"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(messages: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(StepError, match=said) as wrong:
        Step.from_messages(messages, **more)
    assert "\n" not in str(wrong.value)


def test_a_step_may_be_given_by_any_iterable_and_a_deadline_may_have_passed() -> None:
    assert Step.from_messages(iter([SAID]), tools=iter(["look"]), deadline_s=-0.5).messages == (SAID,)  # pyright: ignore[reportArgumentType]


def test_ids_differ_whatever_others_do_to_the_random_module() -> None:
    random.seed(7)
    first = new_id()
    random.seed(7)
    assert new_id() != first
    assert re.fullmatch("[0-9a-f]{32}", first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
def test_a_forked_child_draws_other_ids() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32).decode() != new_id()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("plain", "plain"),
        ("größer 😀", "größer 😀"),
        ("n\0", "n\ufffd"),
        ("cut \ud83d", "cut \ufffd"),
        ("\ude00 cut", "\ufffd cut"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_a_storable_text_is_one_that_every_encoding_takes(text: str, stored: str) -> None:
    assert storable(text) == stored
    storable(text).encode()


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_step_and_its_decision_can_be_copied_and_pickled(again: Any) -> None:
    step = Step.from_messages("Fix the race in this code", task_class="debug_refactor")
    decision = Policy.default().decide(step)

    assert (again(step), again(decision)) == (step, decision)


def test_a_stop_keeps_its_decision_on_its_way_out_of_a_process_pool() -> None:
    decision = Policy.default().decide(Step.from_messages("x"))
    stop = pickle.loads(pickle.dumps(StepStopped("stopped", decision=decision, attempts=("tried",))))

    assert (str(stop), stop.decision, stop.attempts) == ("stopped", decision, ("tried",))


def test_the_metadata_that_was_not_given_stays_empty() -> None:
    metadata: Any = Step.from_messages("x").metadata

    with pytest.raises(TypeError):
        metadata["vip"] = True
    assert (metadata == {}, dict(metadata), metadata.get("vip", 3), bool(metadata), repr(metadata)) == (True, {}, 3, False, "{}")
    assert pickle.loads(pickle.dumps(metadata)) is copy.deepcopy(metadata) is metadata
