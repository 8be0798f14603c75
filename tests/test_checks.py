"""Checks: each one rejects, each one lets pass; and replies of every SDK are read alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anthropic.types as claude
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from openai.types import chat, responses

from routed_agents.checks import (
    DEFAULT,
    Empty,
    InvalidToolCall,
    LowLogprob,
    Refusal,
    Rejection,
    Reply,
    SchemaMismatch,
    ServedModel,
    Truncation,
    inspect,
    mismatch,
    reply_of,
)
from routed_agents.errors import ConfigurationError
from routed_agents.steps import Step, ToolCall

STEP = Step.from_messages("x", tools=["look"])
ANSWER = {"title": "Answer", "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
STRUCTURED = Step.from_messages("x", tools=["look"], output_schema=ANSWER)
LOOK = ToolCall(name="look", arguments="{}")


def code(check: Any, reply: Reply, step: Step = STEP) -> str | None:
    found = check(step, reply)
    return found.code if found is not None else None


@pytest.mark.parametrize(
    ("check", "bad", "rejected"),
    [
        (Refusal(), Reply(refused=True), "refusal"),
        (Truncation(), Reply(text="x", stop_reason="max_tokens"), "truncated"),
        (Truncation(), Reply(text="x", stop_reason="length"), "truncated"),
        (Truncation(), Reply(text="x", stop_reason="max_output_tokens"), "truncated"),
        (Truncation(), Reply(text="x", stop_reason="model_context_window_exceeded"), "truncated"),
        (Empty(), Reply(), "empty"),
        (Empty(), Reply(text=" \n"), "empty"),
        (InvalidToolCall(), Reply(unreadable_calls=("look",)), "unreadable_arguments"),
        (InvalidToolCall(), Reply(tool_calls=(ToolCall(name="fly", arguments="{}"),)), "unknown_tool"),
        (InvalidToolCall(), Reply(text="no", forced_tools=True), "no_tool_call"),
        (ServedModel(), Reply(obligation=1, served_model="haiku", served_rank=0), "served_model_below_floor"),
    ],
)
def test_a_bad_reply_is_rejected(check: Any, bad: Reply, rejected: str) -> None:
    assert code(check, bad) == rejected


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (Refusal(), Reply(text="I'd rather not, but here it is")),
        (Truncation(), Reply(text="x", stop_reason="end_turn")),
        (Truncation(), Reply(text="x")),
        (Empty(), Reply(text="x")),
        (Empty(), Reply(tool_calls=(LOOK,))),
        (Empty(), Reply(refused=True)),
        (Empty(), Reply(stop_reason="pause_turn")),
        (InvalidToolCall(), Reply(tool_calls=(LOOK,))),
        (InvalidToolCall(), Reply(text="words")),
        (InvalidToolCall(), Reply(tool_calls=(LOOK,), forced_tools=True)),
        (ServedModel(), Reply(obligation=1, served_model="opus", served_rank=1)),
        (ServedModel(), Reply(obligation=0, served_model="haiku", served_rank=0)),
        (ServedModel(), Reply(obligation=1, served_model="unheard of", served_rank=None)),
    ],
)
def test_a_good_reply_passes(check: Any, good: Reply) -> None:
    assert code(check, good) is None


def test_a_step_without_tools_judges_no_tool_names() -> None:
    assert code(InvalidToolCall(), Reply(tool_calls=(LOOK,)), Step.from_messages("x")) is None


def carrier(arguments: str) -> Reply:
    return Reply(tool_calls=(ToolCall(name="Answer", arguments=arguments),))


@pytest.mark.parametrize(
    ("reply", "rejected"),
    [
        (Reply(text='{"n": 3}'), None),
        (carrier('{"n": 3}'), None),
        (Reply(tool_calls=(LOOK,)), None),
        (Reply(tool_calls=(LOOK, LOOK)), None),
        (Reply(refused=True), None),
        (Reply(text="whatever", validated=True), None),
        (Reply(text='{"n": "three"}'), "schema_mismatch"),
        (carrier("{}"), "schema_mismatch"),
        (Reply(text="three"), "schema_mismatch"),
        (Reply(), "schema_mismatch"),
        (Reply(text='{"n": 3}', validated=False), "schema_mismatch"),
    ],
)
def test_structured_output_is_held_against_its_schema(reply: Reply, rejected: str | None) -> None:
    assert code(SchemaMismatch(), reply, STRUCTURED) == rejected


def test_without_a_schema_nothing_mismatches() -> None:
    assert code(SchemaMismatch(), Reply(text="three"), STEP) is None


REFERRED = {"$defs": {"leaf": {"type": "object", "required": ["v"]}}, "type": "array", "items": {"$ref": "#/$defs/leaf"}}


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        ({"n": 1}, ANSWER, ""),
        ({"n": 1.0}, ANSWER, ""),
        ({}, ANSWER, "reply lacks n"),
        ({"n": True}, ANSWER, "reply.n is bool, not integer"),
        ({"n": 1.5}, ANSWER, "reply.n is float, not integer"),
        ({"n": 1, "m": 2}, ANSWER, "reply has the unknown key m"),
        ([], ANSWER, "reply is list, not object"),
        (None, {"type": ["string", "null"]}, ""),
        (3, {"type": ["string", "null"]}, "reply is int, not string or null"),
        (True, {"type": "number"}, "reply is bool, not number"),
        ("b", {"enum": ["a", "b"]}, ""),
        ("c", {"enum": ["a", "b"]}, "reply is 'c', not one of a, b"),
        ("c", {"const": "a"}, "reply is 'c', not 'a'"),
        (3, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, ""),
        (None, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "reply fits none of the allowed forms"),
        (None, {"oneOf": [{"type": "string"}]}, "reply fits none of the allowed forms"),
        ({"n": "x"}, {"allOf": [ANSWER, {"type": "object"}]}, "reply.n is str, not integer"),
        ([{"v": 1}, {}], REFERRED, "reply[1] lacks v"),
        ([1, "2"], {"type": "array", "items": {"type": "integer"}}, "reply[1] is str, not integer"),
        ("x", {"type": "string", "minLength": 5}, ""),
        ("x", {}, ""),
    ],
)
def test_what_a_value_lacks_is_said_in_words(value: object, schema: dict[str, Any], wrong: str) -> None:
    assert mismatch(value, schema) == wrong


# ---- replies of every SDK

USAGE = {"input_tokens": 3, "output_tokens": 2}


def anthropic_reply(stop: str, *blocks: dict[str, Any]) -> claude.Message:
    return claude.Message.model_validate(
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-5-5",
            "content": list(blocks),
            "stop_reason": stop,
            "usage": USAGE,
        }
    )


def openai_reply(finish: str, **message: Any) -> chat.ChatCompletion:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": None, **message}}
    return chat.ChatCompletion.model_validate(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "gpt-4o", "choices": [choice]}
    )


def response(*output: dict[str, Any], **more: Any) -> responses.Response:
    return responses.Response.model_validate(
        {
            "id": "r",
            "object": "response",
            "created_at": 0,
            "model": "gpt-6-luna",
            "output": list(output),
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            **more,
        }
    )


def openai_call(arguments: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "look", "arguments": arguments}}


TEXT = {"type": "text", "text": "yes"}
SAID = {
    "id": "o",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "yes", "annotations": []}],
}
CALLED = ToolCall(name="look", arguments='{"q": 1}', id="c1")


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (anthropic_reply("end_turn", TEXT), Reply(text="yes", stop_reason="end_turn")),
        (
            anthropic_reply("tool_use", {"type": "tool_use", "id": "c1", "name": "look", "input": {"q": 1}}),
            Reply(tool_calls=(CALLED,), stop_reason="tool_use"),
        ),
        (anthropic_reply("refusal"), Reply(stop_reason="refusal", refused=True)),
        (anthropic_reply("end_turn", TEXT).model_dump(), Reply(text="yes", stop_reason="end_turn")),
        (openai_reply("stop", content="yes"), Reply(text="yes", stop_reason="stop")),
        (openai_reply("tool_calls", tool_calls=[openai_call('{"q":1}')]), Reply(tool_calls=(CALLED,), stop_reason="tool_calls")),
        (openai_reply("tool_calls", tool_calls=[openai_call("{oh")]), Reply(unreadable_calls=("look",), stop_reason="tool_calls")),
        (openai_reply("stop", refusal="no"), Reply(text="no", stop_reason="stop", refused=True)),
        (openai_reply("content_filter", content="x"), Reply(text="x", stop_reason="content_filter", refused=True)),
        (openai_reply("length", content="x").model_dump(), Reply(text="x", stop_reason="length")),
        (response(SAID), Reply(text="yes")),
        (response(SAID, incomplete_details={"reason": "max_output_tokens"}), Reply(text="yes", stop_reason="max_output_tokens")),
        (AIMessage("yes", response_metadata={"stop_reason": "end_turn"}), Reply(text="yes", stop_reason="end_turn")),
        (AIMessage("yes", response_metadata={"finish_reason": "length"}), Reply(text="yes", stop_reason="length")),
        (AIMessage("", tool_calls=[{"name": "look", "args": {"q": 1}, "id": "c1"}]), Reply(tool_calls=(CALLED,))),
        (AIMessage("", invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": "e"}]), Reply(unreadable_calls=("look",))),
        (AIMessage("", additional_kwargs={"refusal": "no"}), Reply(text="no", refused=True)),
        (AIMessage([TEXT]), Reply(text="yes")),
        ({"role": "assistant", "content": "yes"}, Reply(text="yes")),
    ],
)
def test_replies_of_every_sdk_are_read_alike(raw: object, read: Reply) -> None:
    assert reply_of(raw) == read


# ---- all together


def test_an_alarm_comes_before_every_other_rejection() -> None:
    swapped = Reply(obligation=1, served_rank=0, served_model="haiku", stop_reason="max_tokens")

    found = inspect([Truncation(), Empty(), ServedModel()], STEP, swapped)

    assert found is not None
    assert (found.alarm, found.code) == (True, "served_model_below_floor")


def broken(step: Step, reply: Reply) -> Rejection | None:
    raise ZeroDivisionError


def talkative(step: Step, reply: Reply) -> Any:
    return "bad"


@pytest.mark.parametrize("check", [broken, talkative])
def test_a_check_that_fails_lets_the_reply_pass(check: Any) -> None:
    assert inspect([check], STEP, Reply(text="x")) is None


def test_a_good_reply_passes_every_shipped_check() -> None:
    assert inspect(DEFAULT, STEP, Reply(text="yes", stop_reason="end_turn")) is None


def test_arguments_that_do_not_fit_the_tools_schema_are_rejected() -> None:
    call = {"name": "get_order", "args": {}, "id": "1"}
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
    read = replace(reply_of({"content": "", "tool_calls": [call]}), tool_schemas={"get_order": schema})

    found = InvalidToolCall()(Step.from_messages("go", tools=["get_order"]), read)

    assert found is not None
    assert (found.code, found.evidence) == ("arguments_mismatch", "get_order lacks order_id")


def test_a_streamed_call_that_adding_chunks_mended_is_read_as_it_came() -> None:
    whole = AIMessageChunk("", tool_call_chunks=[{"name": "get_order", "args": '{"order', "id": "1", "index": 0}])

    assert reply_of(whole).unreadable_calls == ("get_order",)


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("half a", response_metadata={"incomplete_details": {"reason": "max_output_tokens"}}),
        AIMessage("half a", response_metadata={"stop_reason": "max_tokens"}),
    ],
)
def test_a_reply_cut_off_is_truncated_on_every_wire(message: AIMessage) -> None:
    assert Truncation()(STEP, reply_of(message)) is not None


def test_a_refusal_in_a_block_is_a_refusal() -> None:
    assert reply_of(AIMessage([{"type": "refusal", "refusal": "I can't help with that."}])).refused


@pytest.mark.parametrize(("logprobs", "rejected"), [([-0.1, -0.2], False), ([-3.0, -0.5], True), (None, False)])
def test_words_the_model_itself_found_unlikely_are_rejected(logprobs: list[float] | None, rejected: bool) -> None:
    told = {"logprobs": {"content": [{"token": "x", "logprob": each} for each in logprobs]}} if logprobs else {}

    assert (LowLogprob(limit=-1.0)(STEP, reply_of(AIMessage("fine", response_metadata=told))) is not None) is rejected


def test_a_call_of_a_tool_that_takes_free_text_is_a_tool_call():
    item = {"type": "custom_tool_call", "call_id": "c1", "name": "run_sql", "input": "select 1"}
    chat = {"id": "c1", "type": "custom", "custom": {"name": "run_sql", "input": "select 1"}}
    for raw in (
        {"object": "response", "output": [item]},
        {"choices": [{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [chat]}}]},
    ):
        reply = reply_of(raw)
        assert [(call.name, call.arguments) for call in reply.tool_calls] == [("run_sql", '"select 1"')]
        assert not reply.unreadable_calls


@pytest.mark.parametrize("odd", [{"code": None}, {"code": 404}, {"code": ""}, {"evidence": None}, {"check": 5}, {"alarm": "yes"}])
def test_a_rejection_of_wrong_parts_is_named(odd: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a rejection has check") as seen:
        Rejection(**{"check": "mine", "code": "short", **odd})

    assert "\n" not in str(seen.value)


def quoting(step: Step, reply: Reply, /) -> Rejection | None:
    raise ValueError(f"cannot read {reply.text}")


def quoting_inside(step: Step, reply: Reply, /) -> Any:
    return f"bad: {reply.text}"


@pytest.mark.parametrize("check", [quoting, quoting_inside])
def test_a_check_in_trouble_is_told_without_the_words_of_the_reply(check: Any, caplog: pytest.LogCaptureFixture) -> None:
    inspect([check], STEP, Reply(text="zebra-4711"))

    assert len(caplog.records) == 1
    assert check.__name__ in caplog.text
    assert "zebra" not in caplog.text


def test_where_evidence_is_captured_the_log_may_quote(caplog: pytest.LogCaptureFixture) -> None:
    inspect([quoting], STEP, Reply(text="zebra-4711"), quoting=True)

    assert "zebra" in caplog.text


def test_a_check_that_makes_an_impossible_rejection_is_told_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    def impossible(step: Step, reply: Reply, /) -> Rejection | None:
        return Rejection(check="mine", code=None)  # pyright: ignore[reportArgumentType]

    assert inspect([impossible], STEP, Reply()) is None
    assert "check impossible failed" in caplog.text
    assert "code NoneType" in caplog.text
