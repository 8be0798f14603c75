"""Nothing a person wrote or is known by leaves with spans, metrics, errors or logs, unless it was asked for."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents.errors import ConfigurationError
from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry, names
from routed_agents.telemetry.setup import Output

PROMPT, REPLY, KEY = "my husband died of grief", "we are so sorry", "sk-ant-0123456789"
THREAD, TENANT, PERSON = "thread-4711", "acme", "person-7"


class Room:
    """A router with an SDK of its own, and all that it gave away."""

    def __init__(self, **settings: Any) -> None:
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        telemetry = Telemetry(tracer_provider=traces, meter_provider=meters, **settings)
        self.router = Router(Policy.default(), ledger=Ledger.memory(), telemetry=telemetry)

    def step(self, *, fail: bool = False) -> None:
        step = Step.from_messages([{"role": "user", "content": PROMPT}], task_class="customer_reply", node="reply")
        with self.router.step(step, thread=THREAD, labels={"tenant": TENANT, "person": PERSON}) as call:
            for attempt in call.attempts():
                with attempt:
                    if fail:
                        raise ValueError(f"the key {KEY} may not see {PROMPT!r}")
                    usage = {"input_tokens": 9, "output_tokens": 3}
                    attempt.record({"model": attempt.model, "role": "assistant", "content": REPLY, "usage": usage})

    @property
    def told_by_spans(self) -> str:
        return "\n".join(span.to_json() for span in self.spans.get_finished_spans())

    @property
    def told_by_metrics(self) -> str:
        data = self.reader.get_metrics_data()
        self.reader.shutdown()
        return data.to_json() if data is not None else ""

    def leaf(self) -> dict[str, Any]:
        return dict(next(span for span in self.spans.get_finished_spans() if span.name.startswith("chat ")).attributes or {})


def found(text: str) -> list[str]:
    return [secret for secret in (PROMPT, REPLY, KEY, THREAD, TENANT, PERSON) if secret in text]


@pytest.mark.parametrize("fail", [False, True])
def test_by_default_nothing_personal_leaves(fail: bool, caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    if fail:
        with pytest.raises(ValueError, match="may not see"):
            room.step(fail=True)
    else:
        room.step()
    assert len(room.spans.get_finished_spans()) == 2
    assert found(room.told_by_spans + room.told_by_metrics + caplog.text) == []


def test_the_allow_list_lets_labels_onto_spans_and_metrics_and_threads_onto_spans_only() -> None:
    room = Room(labels=("thread", "tenant"))
    room.step()
    assert (found(room.told_by_spans), found(room.told_by_metrics)) == ([THREAD, TENANT], [TENANT])


def test_the_allow_list_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTED_AGENTS_SPAN_LABELS", "thread, person")
    room = Room()
    room.step()
    assert found(room.told_by_spans) == [THREAD, PERSON]


def test_a_redaction_hook_lets_content_through_as_it_sees_fit() -> None:
    room = Room(capture=lambda text: text.replace("husband", "[…]"))
    room.step()
    leaf = room.leaf()
    assert json.loads(leaf[names.INPUT_MESSAGES]) == [{"role": "user", "parts": [{"type": "text", "content": "my […] died of grief"}]}]
    assert json.loads(leaf[names.OUTPUT_MESSAGES]) == [{"role": "assistant", "parts": [{"type": "text", "content": REPLY}]}]


USED: Any = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
CALLED = {"type": "tool_call", "name": "look", "arguments": '{"at": 1}'}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", "stop_sequence": None, "usage": USED}
COMPLETION = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
RESPONSE = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
}
FUNCTION = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
REPLIES = {
    "anthropic": Message.model_validate(
        {**MESSAGE, "content": [{"type": "text", "text": REPLY}, {"type": "tool_use", "id": "1", "name": "look", "input": {"at": 1}}]}
    ),
    "chat": ChatCompletion.model_validate(
        {
            **COMPLETION,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY, "tool_calls": [FUNCTION]}}
            ],
        }
    ),
    "responses": Response.model_validate(
        {
            **RESPONSE,
            "output": [
                {"id": "rs", "type": "reasoning", "summary": []},
                {
                    "id": "m",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": REPLY, "annotations": []}],
                },
                {"id": "f", "call_id": "1", "type": "function_call", "name": "look", "arguments": '{"at": 1}'},
            ],
        }
    ),
}


@pytest.mark.parametrize("reply", REPLIES)
def test_what_an_sdks_reply_says_and_calls_is_captured(reply: str) -> None:
    room = Room(capture=lambda text: text)
    with room.router.step(Step.from_messages(PROMPT, task_class="customer_reply")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(REPLIES[reply])
    told = json.loads(room.leaf()[names.OUTPUT_MESSAGES])

    assert [each["role"] for each in told] == ["assistant"] * len(told)
    assert [part for each in told for part in each["parts"]] == [{"type": "text", "content": REPLY}, CALLED]


def test_a_system_prompt_beside_the_messages_and_the_names_of_tools_go_through_the_hook_too() -> None:
    room = Room(capture=lambda text: text.replace("husband", "[…]"))
    step = Step.from_messages("hello", system=PROMPT, tools=["look", "husband_of"], task_class="customer_reply")
    with room.router.step(step) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(REPLIES["anthropic"])
    leaf = room.leaf()

    assert json.loads(leaf[names.SYSTEM_INSTRUCTIONS]) == [{"type": "text", "content": "my […] died of grief"}]
    assert [each["name"] for each in json.loads(leaf[names.TOOL_DEFINITIONS])] == ["look", "[…]_of"]


def test_a_hook_is_not_asked_about_a_system_prompt_that_is_not_there() -> None:
    room = Room(capture=lambda text: "[redacted]")
    with room.router.step(Step.from_messages("hello", task_class="customer_reply")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(REPLIES["anthropic"])

    assert names.SYSTEM_INSTRUCTIONS not in room.leaf()


def test_evidence_goes_through_the_hook_too() -> None:
    seen: list[str] = []
    room = Room(evidence=True, capture=seen.append)  # lets nothing through
    room.step()
    evidence = [dict(span.attributes or {}).get(names.EVIDENCE) for span in room.spans.get_finished_spans()]
    assert (len(seen) > 2, [each for each in evidence if each]) == (True, [])
    assert found(room.told_by_spans) == []


def test_a_hook_that_breaks_keeps_the_content_and_the_call_goes_through(caplog: pytest.LogCaptureFixture) -> None:
    def broken(text: str) -> str:
        raise ValueError(f"cannot redact {text}")

    room = Room(capture=broken)
    room.step()
    assert found(room.told_by_spans + caplog.text) == []
    assert room.router.ledger.total().attempts == 1
    assert names.USAGE_COST in room.leaf()


class Redacted:
    """What a redaction library gives in place of a text."""

    text = "[…]"


@pytest.mark.parametrize("given", [Redacted(), b"[...]", 5, ["[...]"]])
def test_a_hook_that_gives_no_text_keeps_the_content_and_the_leaf_its_cost(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    room = Room(capture=lambda _: given, evidence=True)
    room.step()
    assert found(room.told_by_spans) == []
    assert names.USAGE_COST in room.leaf()
    assert f"the redaction hook gave {type(given).__name__} where text or None is wanted, so a text was left out" in caplog.text


class Waiting:
    async def __call__(self, text: str) -> str:
        return text


@pytest.mark.parametrize("hook", [Waiting().__call__, Waiting()])
def test_a_hook_that_would_have_to_be_awaited_is_refused(hook: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^capture is an async function, .*; wanted a function that gives what of a text"):
        Telemetry(capture=hook)


RING: list[Any] = []
RING.append(RING)


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError(PROMPT)


@pytest.mark.parametrize(
    ("args", "told"), [({("a", 1): 2}, "{('a', 1): 2}"), ({"ring": RING}, "{'ring': [[...]]}"), ({"x": Unspeakable()}, None)]
)
def test_arguments_that_json_cannot_say_cost_no_leaf_its_tokens_and_cost(args: Any, told: str | None) -> None:
    room = Room(capture=lambda text: text)
    called = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "look", "args": args, "type": "tool_call"}]}
    messages = [{"role": "user", "content": "go on"}, called, {"role": "tool", "tool_call_id": "1", "content": "ok"}]
    with room.router.step(Step.from_messages(messages, task_class="customer_reply")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record({**called, "model": attempt.model, "content": REPLY, "usage": {"input_tokens": 9, "output_tokens": 3}})
    tool = room.router.telemetry.open_tool("look", arguments=args)
    assert tool is not None
    room.router.telemetry.close_tool(tool, REPLY)
    leaf, span = room.leaf(), dict(room.spans.get_finished_spans()[-1].attributes or {})
    said = [
        each["parts"][-1].get("arguments")
        for key in (names.INPUT_MESSAGES, names.OUTPUT_MESSAGES)
        for each in json.loads(leaf.get(key, "[]"))
    ]
    assert names.USAGE_COST in leaf
    assert (span.get(names.TOOL_ARGUMENTS), span[names.TOOL_RESULT]) == (told, REPLY)
    assert [each for each in said if each] == ([told, told] if told else [])


def test_an_exporter_that_quotes_spans_in_its_error_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            raise ValueError(f"{PROMPT} {KEY}")

    output = Output(lambda batch: 0 if Broken().export(batch) is SpanExportResult.SUCCESS else len(batch))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(output)
    with caplog.at_level(logging.DEBUG):
        provider.get_tracer("x").start_span("y").end()
        assert not output.flush(5.0)
    output.close(1.0)
    assert (found(caplog.text), output.dropped) == ([], 1)
