from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from routed_agents.cli.conversation import NO_RESULT, messages_of
from routed_agents.errors import StepError

DATA = Path(os.environ.get("REFERENCE_DATA") or Path(__file__).parents[3] / "shared" / "data")
TAU = DATA / "outcomes" / "tau_airline_gpt4o_trajectories.jsonl.gz"


def call(name: str, arguments: str = "{}", **more: object) -> dict[str, object]:
    return {"name": name, "arguments": arguments, **more}


def unpaired(messages: list[BaseMessage]) -> list[str]:
    """What a provider would refuse: each call must be answered once, by the messages right after it."""
    wrong: list[str] = []
    waiting: set[str] = set()
    for number, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                wrong.append(f"message {number}: a result nobody waits for")
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            wrong.append(f"message {number}: {len(waiting)} calls still wait")
        waiting = {str(each["id"]) for each in message.tool_calls} if isinstance(message, AIMessage) else set()
    return wrong + (["the end: calls still wait"] if waiting else [])


def test_calls_and_results_without_ids_are_paired_in_order():
    record = {
        "steps": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "tool_calls": [call("a", '{"x": 1}'), call("b")]},
            {"role": "tool", "content": "first"},
            {"role": "tool", "content": "second"},
        ]
    }
    messages = messages_of(record)
    assert [(each["name"], each["args"]) for each in messages[1].tool_calls] == [("a", {"x": 1}), ("b", {})]
    assert [message.name for message in messages[2:]] == ["a", "b"]
    assert unpaired(messages) == []


def test_results_with_a_name_answer_the_call_of_that_name():
    record = {
        "messages": [
            {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "name": "b", "content": "of b"},
            {"role": "tool", "name": "a", "content": "of a"},
        ]
    }
    assert [(message.name, message.content) for message in messages_of(record)[1:]] == [("b", "of b"), ("a", "of a")]


def test_recorded_ids_stay():
    record = {
        "messages": [
            {"role": "assistant", "content": "", "tool_calls": [call("a", id="x1")]},
            {"role": "tool", "content": "r", "tool_call_id": "x1"},
        ]
    }
    assert messages_of(record)[1].tool_call_id == "x1"


@pytest.mark.parametrize(
    "before",
    [
        [],
        [{"role": "user", "content": "go"}],
        [{"role": "assistant", "content": "said"}],
        [{"role": "assistant", "content": "", "tool_calls": [call("a")]}, {"role": "tool", "content": "r"}],
    ],
)
def test_result_nobody_asked_for_gets_a_call_of_its_own(before):
    messages = messages_of({"messages": [*before, {"role": "tool", "content": "orphan"}]})
    assert (messages[-1].content, unpaired(messages)) == ("orphan", [])


def test_blocks_of_calls_and_results_are_paired_by_their_ids_and_words_beside_them_come_after():
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    asked = [{"type": "tool_use", "id": name, "name": "look", "input": {"at": name}} for name in ("c1", "c2")]
    record = {
        "messages": [
            {"role": "user", "content": "What is there?"},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, *asked]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c2", "content": [picture]},
                    {"type": "tool_result", "tool_use_id": "c1", "content": "boom", "is_error": True},
                    {"type": "text", "text": "Now summarize."},
                ],
            },
        ]
    }
    _, reply, *results, last = messages = messages_of(record)
    assert (reply.text, [(each["id"], each["args"]) for each in reply.tool_calls]) == (
        "I look.",
        [("c1", {"at": "c1"}), ("c2", {"at": "c2"})],
    )
    assert [(each.tool_call_id, each.content, each.status) for each in results] == [("c2", [picture], "success"), ("c1", "boom", "error")]
    assert (last.type, last.text, unpaired(messages)) == ("human", "Now summarize.", [])


def test_words_beside_one_result_wait_for_the_results_that_come_in_messages_of_their_own():
    asked = [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in ("c1", "c2")]
    record = {
        "messages": [
            {"role": "assistant", "content": asked},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "one"}, {"type": "text", "text": "said"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c2", "content": "two"}]},
        ]
    }

    _, first, second, last = messages = messages_of(record)

    assert [(each.tool_call_id, each.content) for each in (first, second)] == [("c1", "one"), ("c2", "two")]
    assert (last.type, last.text, unpaired(messages)) == ("human", "said", [])


@pytest.mark.parametrize(
    ("asked", "args"),
    [
        ({"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]}, {"__arg1": "SELECT 1"}),
        ({"tool_calls": [{"id": "c", "type": "function", "function": call("sql", '{"q": 1}')}]}, {"q": 1}),
        ({"function_call": call("sql", '{"q": 1}')}, {"q": 1}),
    ],
)
def test_every_form_of_a_call_keeps_its_tool_and_what_it_is_given(asked, args):
    messages = messages_of({"messages": [{"role": "assistant", "content": None, **asked}, {"role": "tool", "name": "sql", "content": "1"}]})
    assert [(each["name"], each["args"]) for each in messages[0].tool_calls] == [("sql", args)]
    assert unpaired(messages) == []


def test_call_nobody_answered_gets_a_result_that_says_so():
    record = {"messages": [{"role": "assistant", "content": "", "tool_calls": [call("a")]}, {"role": "user", "content": "and?"}]}
    messages = messages_of(record)
    assert (messages[1].content, messages[1].status, unpaired(messages)) == (NO_RESULT, "error", [])


@pytest.mark.parametrize("arguments", ["not json", "[1]", "", "5", "null"])
def test_arguments_that_are_no_object_are_kept_in_one(arguments):
    record = {"messages": [{"role": "assistant", "content": "", "tool_calls": [call("a", arguments)]}]}
    assert isinstance(messages_of(record)[0].tool_calls[0]["args"], dict)


@pytest.mark.parametrize("record", [{}, {"messages": []}, {"messages": "hi"}, {"messages": ["hi"]}, {"messages": [{"role": "martian"}]}])
def test_record_without_readable_messages_is_refused(record):
    with pytest.raises(StepError):
        messages_of(record)


@pytest.mark.skipif(not TAU.exists(), reason=f"{TAU} is not here")
def test_recorded_airline_trajectories_become_histories_a_provider_accepts():
    with gzip.open(TAU, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    wrong = {record["id"]: found for record in records if (found := unpaired(messages_of(record)))}
    assert records
    assert wrong == {}
    words = sum(len(step["content"] or "") for record in records for step in record["steps"])
    kept = sum(len(str(message.content)) for record in records for message in messages_of(record) if message.content != NO_RESULT)
    assert kept == words
