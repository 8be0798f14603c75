"""Turns recorded messages into LangChain messages a provider accepts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from routed_agents.errors import StepError
from routed_agents.steps import CUSTOM_CALLS, RESULT, content_of, field_of, role_of, text_of, tool_failed

NO_RESULT = "no result was recorded"
CALL = "tool_use"
"""What Anthropic calls the block of a tool call."""
FREE_TEXT = "__arg1"
"""Where LangChain keeps the input of a tool that takes free text."""


def messages_of(record: Mapping[str, Any]) -> list[BaseMessage]:
    """The messages of a step record or a recorded trajectory, in LangChain's, OpenAI's or Anthropic's form, with tool calls and results
    that fit together.

    Records often have no call ids: results answer the calls before them by name where they have one, else in order, and get made-up
    ids. A result nobody asked for gets a call of its own, in the assistant message before it; a call nobody answered gets a result
    that says so. What a person says beside results comes after them. So no recorded word is lost, and every provider accepts the history.

    Raises:
        StepError: there is no message, or one cannot be read.
    """
    raw: object = record.get("messages", record.get("steps"))
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        raise StepError('the record has no messages; wanted "messages": [{"role", "content"}, ...] with at least one')
    pairing = _Pairing()
    if isinstance(system := record.get("system"), str) and system:
        pairing.add({"role": "system", "content": system})
    for message in cast("Sequence[object]", raw):
        if not isinstance(message, Mapping):
            raise StepError(f'a message is {type(message).__name__}; wanted an object with "role" and "content"')
        pairing.add(cast("Mapping[str, Any]", message))
    return pairing.finish()


class _Pairing:
    """The conversation so far, and the calls whose results have not come yet."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []
        self.open: list[dict[str, Any]] = []
        self.beside: list[HumanMessage] = []
        self.made = 0

    def add(self, message: Mapping[str, Any]) -> None:
        role = role_of(message)
        if role == "tool":
            self.results(message)
            return
        self.give_up()
        said = content_of(message)
        content = cast("Any", said if isinstance(said, (str, list)) else "")
        if role == "system":
            self.messages.append(SystemMessage(content))
        elif role == "human":
            self.messages.append(HumanMessage(content))
        else:
            calls = [self.call(each) for each in _asked(message)]
            self.open = list(calls)
            self.messages.append(AIMessage(_parted(content, CALL)[1], tool_calls=calls))

    def results(self, message: Mapping[str, Any]) -> None:
        """The results that a message brings, each in a message of its own; what is said beside them waits until all are there."""
        found, beside = _parted(content_of(message), RESULT)
        if not found:
            self.result(message)
            return
        for block in found:
            self.result({**block, "tool_call_id": block.get("tool_use_id")})
        if beside:
            self.beside.append(HumanMessage(beside))

    def result(self, message: Mapping[str, Any]) -> None:
        given, name = field_of(message, "tool_call_id"), field_of(message, "name")
        found = next((call for call in self.open if call["id"] == given), None)
        if found is None and not given:
            found = next((call for call in self.open if name and call["name"] == name), None) or next(iter(self.open), None)
        if found is None:
            found = self.unasked(str(name or "unknown_tool"), given if isinstance(given, str) else None)
        else:
            self.open.remove(found)
        status = "error" if tool_failed(message) else "success"
        self.messages.append(ToolMessage(_shown(message), tool_call_id=found["id"], name=found["name"], status=status))

    def unasked(self, name: str, given: str | None) -> dict[str, Any]:
        """A call for a result that has none: in the assistant message before it, or in a new one."""
        call: dict[str, Any] = {"name": name, "args": {}, "id": given or self.made_up(), "type": "tool_call"}
        position = len(self.messages) - 1
        while position >= 0 and isinstance(self.messages[position], ToolMessage):
            position -= 1
        before = self.messages[position] if position >= 0 else None
        if isinstance(before, AIMessage):
            self.messages[position] = AIMessage(cast("Any", before.content), tool_calls=[*before.tool_calls, call])
        else:
            self.messages.append(AIMessage("", tool_calls=[call]))
        return call

    def call(self, raw: object) -> dict[str, Any]:
        custom = field_of(raw, "type") in CUSTOM_CALLS
        inner = field_of(raw, "custom" if custom else "function") or raw
        arguments: Any = next((value for key in ("args", "arguments", "input") if (value := field_of(inner, key)) is not None), None)
        if custom:
            arguments = {FREE_TEXT: arguments}
        elif isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError:
                arguments = {"unreadable": arguments}
        given, name = field_of(raw, "id"), field_of(inner, "name")
        taken = cast("object", arguments or {}) if arguments is None or isinstance(arguments, dict) else {"value": arguments}
        return {
            "name": name if isinstance(name, str) and name else "unknown_tool",
            "args": taken,
            "id": given if isinstance(given, str) and given else self.made_up(),
            "type": "tool_call",
        }

    def made_up(self) -> str:
        self.made += 1
        return f"call_{self.made:04d}"

    def give_up(self) -> None:
        """Nobody will answer the open calls any more, so what was said beside results comes now."""
        for call in self.open:
            self.messages.append(ToolMessage(NO_RESULT, tool_call_id=call["id"], name=call["name"], status="error"))
        self.messages += self.beside
        self.open, self.beside = [], []

    def finish(self) -> list[BaseMessage]:
        self.give_up()
        return self.messages


def _asked(message: Mapping[str, Any]) -> Iterable[object]:
    """The calls of a model's message: LangChain's and OpenAI's, else Anthropic's blocks, else the one of OpenAI's older form."""
    calls, older = message.get("tool_calls"), message.get("function_call")
    if isinstance(calls, list) and calls:
        return cast("list[object]", calls)
    return _parted(content_of(message), CALL)[0] or ([older] if older else [])


def _parted(content: object, kind: str) -> tuple[list[dict[str, Any]], Any]:
    """The blocks of a kind, and the content without them."""
    if not isinstance(content, list):
        return [], content
    blocks = cast("list[Any]", content)
    found = [block for block in blocks if field_of(block, "type") == kind]
    return found, [block for block in blocks if field_of(block, "type") != kind] or ""


def _shown(message: Mapping[str, Any]) -> Any:
    """What a result says; its blocks where there are others than words."""
    content = content_of(message)
    worded = not isinstance(content, list) or all(field_of(block, "type") == "text" for block in cast("list[object]", content))
    return text_of(message) if worded else cast("Any", content)
