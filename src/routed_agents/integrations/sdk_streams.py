"""Gathers the events of a raw SDK stream into the reply they make, and knows when it begins to show and when it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from routed_agents.complaints import complain
from routed_agents.features import upper_tokens
from routed_agents.integrations.sdk_requests import Api, Body
from routed_agents.pricing import Usage, usage_of
from routed_agents.router import Attempt
from routed_agents.steps import field_of


class Gathering(Protocol):
    """A stream's reply as far as it has come.

    Attributes:
        ended: nothing that a reader sees comes any more, only what closes the reply.
        text: the words so far.
        counted: the usage of the whole has come, not only what is known at its beginning.
    """

    ended: bool
    text: str
    counted: bool

    def add(self, event: Any) -> None:
        """Take the next event."""
        ...

    def shows(self, event: Any) -> bool:
        """Whether an event holds anything a reader would see."""
        ...

    def tells(self, event: Any) -> bool:
        """Whether an event brings something that the next step may send back and that has to be known by then: a tool call or a thought."""
        ...

    def reply(self) -> Any:
        """The reply so far, in the shape of one that was not streamed."""
        ...

    def counts(self, prompt: int, output: int) -> dict[str, Any]:
        """Tokens in the words of the format's own reports."""
        ...


class MessagesGathering:
    """Events of Anthropic's Messages API."""

    def __init__(self) -> None:
        self.ended = False
        self.text = ""
        self.counted = False
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}

    def add(self, event: Any) -> None:
        kind = field_of(event, "type")
        if kind == "message_start":
            message = field_of(event, "message")
            self._head = {name: field_of(message, name) for name in ("id", "type", "role", "model")}
            self._usage = _plain(field_of(message, "usage"))
        elif kind == "content_block_start":
            block = _plain(field_of(event, "content_block"))
            self._blocks[event.index] = {**block, "input": ""} if "input" in block else block
        elif kind == "content_block_delta":
            self._add_delta(self._blocks.setdefault(event.index, {"type": "text"}), event.delta)
        elif kind == "message_delta":
            self._head.update({name: field_of(event.delta, name) for name in ("stop_reason", "container")})
            used = {name: value for name, value in _plain(field_of(event, "usage")).items() if value is not None}
            self._usage.update(used)
            self.counted = "output_tokens" in used
            self.ended = True

    def shows(self, event: Any) -> bool:
        kind = field_of(event, "type")
        if kind == "content_block_start":
            return field_of(event.content_block, "type") not in ("text", "thinking")
        return kind == "content_block_delta" and field_of(event.delta, "type") != "signature_delta"

    def tells(self, event: Any) -> bool:
        return field_of(event, "type") == "content_block_stop" and self._blocks.get(event.index, {}).get("type") != "text"

    def reply(self) -> Any:
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        broken = [{"name": block.get("name")} for block in blocks if block.get("type") == "tool_use" and not _is_json(block.get("input"))]
        return {**self._head, "content": blocks, "usage": self._usage, "invalid_tool_calls": broken}

    def counts(self, prompt: int, output: int) -> dict[str, Any]:
        return {"input_tokens": prompt, "output_tokens": output}

    def _add_delta(self, block: dict[str, Any], delta: Any) -> None:
        for name, key in (("text", "text"), ("partial_json", "input"), ("thinking", "thinking"), ("signature", "signature")):
            piece = field_of(delta, name)
            if isinstance(piece, str):
                block[key] = f"{block.get(key) or ''}{piece}"
                self.text += piece if name != "signature" else ""


class ChatGathering:
    """Chunks of OpenAI's chat completions; of several choices the first is judged."""

    def __init__(self, choices: int = 1) -> None:
        self.ended = False
        self.text = ""
        self.counted = False
        self._wanted = choices
        self._finished: dict[int, str] = {}
        self._head: dict[str, Any] = {}
        self._usage: object = None
        self._said = {"content": "", "refusal": ""}
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, event: Any) -> None:
        for name in ("id", "model", "service_tier"):
            if (value := field_of(event, name)) is not None:
                self._head[name] = value
        used = field_of(event, "usage")
        self._usage = used or self._usage
        for choice in event.choices or ():
            if (reason := field_of(choice, "finish_reason")) is not None:
                self._finished[choice.index] = str(reason)
            self._add_delta(choice.index, field_of(choice, "delta"))
        self.ended = len(self._finished) >= self._wanted
        whole = self.ended or not event.choices
        self.counted = self.counted or (whole and field_of(used, "completion_tokens") is not None)

    def shows(self, event: Any) -> bool:
        names = ("content", "refusal", "tool_calls", "reasoning_content", "reasoning", "audio")
        return any(field_of(field_of(choice, "delta"), name) for choice in event.choices or () for name in names)

    def tells(self, event: Any) -> bool:
        calls = [cast("Any", field_of(field_of(choice, "delta"), "tool_calls") or ()) for choice in event.choices or ()]
        return any(field_of(part, "id") for parts in calls for part in parts)

    def reply(self) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": self._said["content"] or None, "refusal": self._said["refusal"] or None}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        choice = {"index": 0, "message": message, "finish_reason": self._finished.get(0)}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    def counts(self, prompt: int, output: int) -> dict[str, Any]:
        return {"prompt_tokens": prompt, "completion_tokens": output}

    def _add_delta(self, index: int, delta: Any) -> None:
        for name in ("content", "refusal"):
            if isinstance(piece := field_of(delta, name), str):
                self.text += piece
                if index == 0:
                    self._said[name] += piece
        for part in cast("list[Any]", field_of(delta, "tool_calls") or ()):
            function = field_of(part, "function")
            self.text += str(field_of(function, "arguments") or "")
            if index == 0:
                call = self._calls.setdefault(part.index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
                call["id"] = field_of(part, "id") or call["id"]
                for name in ("name", "arguments"):
                    call["function"][name] += field_of(function, name) or ""


class CompletionsGathering(ChatGathering):
    """Chunks of OpenAI's legacy completions, which hold text and no messages."""

    def shows(self, event: Any) -> bool:
        return any(field_of(choice, "text") for choice in event.choices or ())

    def _add_delta(self, index: int, delta: Any) -> None:
        """There are no deltas here."""

    def add(self, event: Any) -> None:
        super().add(event)
        for choice in event.choices or ():
            self.text += str(field_of(choice, "text") or "")


class ResponsesGathering:
    """Events of OpenAI's Responses API, whose last one holds the whole reply."""

    def __init__(self) -> None:
        self.ended = False
        self.text = ""
        self.counted = False
        self._whole: Any = None
        self._head: dict[str, Any] = {}
        self._items: dict[int, Any] = {}
        self._error: Any = None

    def add(self, event: Any) -> None:
        kind = str(field_of(event, "type"))
        if kind in LAST_RESPONSES:
            self._whole = event.response
            self.ended = self.counted = True
        elif (response := field_of(event, "response")) is not None:
            self._head = {name: field_of(response, name) for name in ("id", "model")}
            if (tier := field_of(response, "service_tier")) != UNDECIDED:
                self._head["service_tier"] = tier
        elif kind == "error":
            self._error = event
        elif kind in ITEMS:
            self._items[event.output_index] = event.item
        elif kind.endswith(".delta") and isinstance(piece := field_of(event, "delta"), str):
            self.text += piece

    def shows(self, event: Any) -> bool:
        kind = str(field_of(event, "type"))
        return kind.endswith(".delta") or (kind == "response.output_item.added" and field_of(event.item, "type") not in QUIET_ITEMS)

    def tells(self, event: Any) -> bool:
        return field_of(event, "type") in ITEMS and field_of(event.item, "type") != "message"

    def reply(self) -> Any:
        if self._whole is not None:
            return self._whole
        said = {"type": "message", "content": [{"type": "output_text", "text": self.text}]}
        items = [self._items[index] for index in sorted(self._items) if field_of(self._items[index], "type") != "message"]
        failed = {"status": "failed", "error": {"code": field_of(self._error, "code")}} if self._error is not None else {}
        return {**self._head, **failed, "object": "response", "output": [*items, said] if self.text else items}

    def counts(self, prompt: int, output: int) -> dict[str, Any]:
        return {"input_tokens": prompt, "input_tokens_details": {}, "output_tokens": output}


LAST_RESPONSES: Final = ("response.completed", "response.incomplete", "response.failed")
ITEMS: Final = ("response.output_item.added", "response.output_item.done")
UNDECIDED: Final = "auto"
"""The service tier of a response before its end, where none was asked for."""
QUIET_ITEMS: Final = ("message", "reasoning")


def gathering(api: Api, body: Body) -> Gathering:
    """A new, empty gathering for a stream of this format."""
    if api == "messages":
        return MessagesGathering()
    if api == "responses":
        return ResponsesGathering()
    choices = body.get("n")
    kind = ChatGathering if api == "chat" else CompletionsGathering
    return kind(choices if isinstance(choices, int) else 1)


def reply_so_far(gathered: Gathering) -> Any:
    """The reply as far as it has come; None where that cannot be told, which is no reason to break the stream."""
    try:
        return gathered.reply()
    except Exception as trouble:
        complain("what a stream said cannot be read; its reply is not judged", trouble)
        return None


def usage_so_far(gathered: Gathering, prompt: int) -> Usage | None:
    """What a stream has used: as it reports at its end, else at least what was seen of it, words and tools; None when nothing came.

    Args:
        gathered: what came.
        prompt: the upper bound of the prompt's tokens, for streams that report theirs at the end only.
    """
    reply, bound = reply_so_far(gathered), upper_tokens(len(gathered.text), gathered.text[:400])
    try:
        if (reported := usage_of(reply)) is not None:
            return reported if gathered.counted else reported.at_least(bound)
        seen = usage_of({**cast("dict[str, Any]", reply), "usage": gathered.counts(prompt, bound)}) if isinstance(reply, dict) else None
    except Exception as trouble:
        complain("the usage a stream reports cannot be read; it is estimated", trouble)
        seen = None
    if seen is not None and (bound or seen.web_searches or seen.other):
        return seen.at_least(bound)
    return Usage(input=prompt, output=bound, source="estimated") if bound else None


class Passing:
    """Events of one attempt on their way to the caller: held back until there is something to show and it may be shown.

    The events that close a reply are held until the stream is over, so that a caller who stops at one of them has read all of its usage.
    """

    __slots__ = ("_attempt", "_gathered", "_held", "_hold", "_open", "_quiet_usage", "_remember", "_used", "refused")

    def __init__(self, attempt: Attempt, gathered: Gathering, *, hold: bool, quiet_usage: bool, remember: Callable[[], None]) -> None:
        self._attempt = attempt
        self._gathered = gathered
        self._hold = hold
        self._quiet_usage = quiet_usage
        self._held: list[Any] = []
        self._open = False
        self._remember = remember
        self._used: Usage | None = None
        self.refused = False

    def take(self, event: Any) -> list[Any]:
        """Take an event from the provider; give out what may be shown. One that cannot be read is shown as it came."""
        gathered = self._gathered
        self._attempt.first_chunk()
        try:
            gathered.add(event)
            if gathered.tells(event):
                self._remember()
        except Exception as trouble:
            complain("an event of a stream cannot be read; its reply is judged without it", trouble)
        if self._quiet_usage and only_usage(event):
            return []
        if self._open and not gathered.ended:
            return [event]
        self._held.append(event)
        if self._hold or self._open or gathered.ended or not _shows(gathered, event):
            return []
        if self._attempt.served_below_floor(reply_so_far(gathered)):
            self.refused = True
            return []
        self._open = True
        self._attempt.commit()
        held, self._held = self._held, []
        return held

    def ended(self, prompt: int) -> None:
        """The stream is over, or was broken off: keep what it has used."""
        self._used = usage_so_far(self._gathered, prompt)
        if self._attempt.outcome is None and self._used is not None:
            self._attempt.partial(self._used)

    async def consult(self) -> None:
        """Have judges asked about the whole before it is recorded."""
        if not self.refused:
            await self._attempt.consult(reply_so_far(self._gathered), usage=self._used)

    def finish(self) -> list[Any]:
        """Record the whole; give out what was held back, if it stands."""
        self._attempt.record(reply_so_far(self._gathered), usage=self._used)
        held, self._held = self._held, []
        return held if self._attempt.follow_up is None and not self._attempt.alarmed else []


def _shows(gathered: Gathering, event: Any) -> bool:
    try:
        return gathered.shows(event)
    except Exception:
        return True  # it could not be read either, which was told


def only_usage(event: Any) -> bool:
    """Whether a chat chunk holds nothing but the usage that was asked for."""
    return field_of(event, "usage") is not None and not field_of(event, "choices")


def _plain(thing: Any) -> dict[str, Any]:
    if thing is None:
        return {}
    return dict(cast("Mapping[str, Any]", thing)) if isinstance(thing, Mapping) else thing.model_dump(warnings=False)


def _is_json(text: object) -> bool:
    try:
        json.loads(str(text or "{}"))
    except ValueError:
        return False
    return True
