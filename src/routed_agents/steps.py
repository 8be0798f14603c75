"""A step is one model call a workflow is about to make."""

from __future__ import annotations

import difflib
import json
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from numbers import Number
from types import MappingProxyType
from typing import Any, Final, Literal, cast
from uuid import UUID

from routed_agents.errors import StepError

Role = Literal["system", "human", "ai", "tool"]

STAMP: Final = "routed_agents"
"""The key of `response_metadata` under which a routed reply keeps its decision."""

ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "system": "system",
        "developer": "system",
        "user": "human",
        "human": "human",
        "HumanMessageChunk": "human",
        "assistant": "ai",
        "ai": "ai",
        "AIMessageChunk": "ai",
        "model": "ai",
        "tool": "tool",
        "function": "tool",
        "ToolMessageChunk": "tool",
        "FunctionMessageChunk": "tool",
        "SystemMessageChunk": "system",
        "remove": "system",
    }
)
Kind = Literal["picture", "recording", "file"]
FILES: Final[Mapping[object, Kind]] = MappingProxyType(
    {
        "image": "picture",
        "image_url": "picture",
        "input_image": "picture",
        "audio": "recording",
        "input_audio": "recording",
        "video": "recording",
        "document": "file",
        "file": "file",
        "input_file": "file",
        "text-plain": "file",
        "media": "file",
        "container_upload": "file",
    }
)
"""Blocks that bring a file, in every provider's words."""
MATERIAL: Final = ("document", "search_result", "text-plain", "file")
"""Blocks whose words are shown to the model, and are nobody's instruction."""
USAGE: Final = ("input_tokens", "output_tokens", "total_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Where a reply says how many tokens were counted for it."""
SUMMARY: Final = "summarization"
"""What LangChain calls the source of a message that stands for those it has summed up."""
RESULT: Final = "tool_result"
"""What Anthropic calls the block of a tool's result."""


class _Nothing(Mapping[str, object]):
    """A mapping that is and stays empty. Unlike a mapping proxy it can be pickled and copied, and comes back as itself."""

    __slots__ = ()

    def __getitem__(self, name: str) -> object:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def get(self, name: str, default: Any = None) -> Any:
        return default

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where a run began that takes up what a kill, an interrupt or a failure cut off, as the ids of its graph's checkpoints.

    Attributes:
        begun: the checkpoint at which the input came in.
        spoken: the one at which a person last came in, with the input or with an answer to an interrupt that became a message.
    """

    begun: str
    spoken: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call a reply asks for; `arguments` is canonical JSON, so two equal calls compare equal."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is about to be sent to a model, whatever framework it comes from.

    `messages` keeps the caller's own objects (dicts, LangChain messages, `(role, text)` pairs or plain strings) and reads
    them only where needed, so a long history costs nothing until it is looked at. Build one with `from_messages` or
    `from_record`.

    Attributes:
        id: names the step in decisions, spans and the ledger.
        messages: the history, oldest first; the last one is what the model answers.
        system: the system prompt when it is not the first message.
        tools: names of the tools bound to the call.
        task_class: the class its author declared, if any.
        tokens: the true prompt size in tokens, when the caller knows it; less than the text there can make is not believed.
        node: the graph node that makes the call.
        output_schema: the JSON Schema the reply must satisfy, if any.
        downstream: model steps that hang on this one's answer, when known.
        in_loop: its node is part of a loop, so nobody can say how many hang on it.
        deadline_s: seconds the caller can wait for the answer.
        metadata: the caller's own facts (labels, flags, a forced tier under `routed_agents`).
        run: the graph run that makes the call, when known; a run's own messages never start a new turn.
        at: the graph's checkpoint the step is decided at, when known; the ids of later ones sort after those of earlier ones.
        resumed: where its run began, when the run may have taken up another; what was decided since then is of the same turn.
    """

    id: str
    messages: tuple[object, ...]
    system: str | None = None
    tools: tuple[str, ...] = ()
    task_class: str | None = None
    tokens: int | None = None
    node: str | None = None
    output_schema: Mapping[str, object] | None = None
    downstream: int | None = None
    in_loop: bool = False
    deadline_s: float | None = None
    metadata: Mapping[str, object] = field(default_factory=lambda: NOTHING)
    run: str | None = None
    at: str | None = None
    resumed: Resumed | None = None

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[object] | str,
        *,
        system: str | None = None,
        tools: Sequence[object] = (),
        task_class: str | None = None,
        tokens: int | None = None,
        node: str | None = None,
        output_schema: Mapping[str, object] | None = None,
        downstream: int | None = None,
        in_loop: bool = False,
        deadline_s: float | None = None,
        metadata: Mapping[str, object] | None = None,
        run: str | None = None,
        at: str | None = None,
        id: str | None = None,
    ) -> Step:
        """Describe a call from its messages and whatever else is known about it.

        Raises:
            StepError: there is no message, the first or last has a role nobody knows or says nothing that can be read, or another argument
                is none.
        """
        wanted = "a list of messages, or one text; put a single message into a list"
        given = (messages,) if isinstance(messages, str) else _listed("messages", messages, wanted)
        if not given:
            raise StepError("messages is empty; wanted at least one message for the model to answer; pass the history that would be sent")
        _check_said(given[-1], role_of(given[-1]))
        if len(given) > 1:
            _check_said(given[0], role_of(given[0]))
        if tokens is not None:
            _check_number("tokens", tokens, int)
        if downstream is not None:
            _check_number("downstream", downstream, int)
        if deadline_s is not None:
            _check_number("deadline_s", deadline_s, (int, float), least=-math.inf)  # it may have passed
        if metadata is not None:
            _check_kind("metadata", metadata, Mapping, "a mapping")
        if output_schema is not None:
            _check_kind("output_schema", output_schema, Mapping, "a JSON Schema as a mapping")
        return cls(
            id=id or new_id(),
            messages=given,
            system=system,
            tools=tuple([tool_name(tool) for tool in _listed("tools", tools, "a list of names, schemas, functions or tool objects")]),
            task_class=task_class,
            tokens=tokens,
            node=node,
            output_schema=output_schema,
            downstream=downstream,
            in_loop=in_loop,
            deadline_s=deadline_s,
            metadata=metadata if metadata is not None else NOTHING,
            run=run,
            at=at,
        )

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Step:
        """Read a step record (`messages`, optional `system`, `tools`, `task_class`, `approx_tokens`, `node`, `metadata` and the other keys
        that `to_record` writes).

        A recorded trajectory that calls its messages `steps` is read as well.

        Raises:
            StepError: a key is missing or has the wrong type; the message names the key.
        """
        for key in record:
            if (meant := _near_miss(key)) is not None and meant not in record:
                raise StepError(f'"{key}": did you mean "{meant}"?')
        raw = record.get("messages", record.get("steps"))
        if not isinstance(raw, Sequence) or isinstance(raw, (str, bytes)):
            raise StepError(f'"messages" is {_kind(raw)}; wanted a list of {{"role", "content"}} objects')
        messages = cast("Sequence[object]", raw)
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping):
                raise StepError(f'message {number} is {_kind(message)}; wanted an object with "role" and "content"')
            _check_recorded(cast("Mapping[str, object]", message), number)
        size = _optional(record, "approx_tokens", int)
        if size is not None:
            _check_number('"approx_tokens"', size, int)
        graph: Mapping[str, object] = _optional(record, "graph_run", Mapping) or {}
        begun, spoken = _optional(graph, "begun", str), _optional(graph, "spoken", str)
        step = cls.from_messages(
            messages,
            system=_optional(record, "system", str),
            tools=_optional(record, "tools", (list, tuple)) or (),
            task_class=_optional(record, "task_class", str),
            tokens=size,
            node=_optional(record, "node", str),
            output_schema=_optional(record, "output_schema", Mapping),
            downstream=_optional(record, "downstream", int),
            in_loop=_optional(record, "in_loop", bool) or False,
            deadline_s=_optional(record, "deadline_s", (int, float)),
            metadata=_optional(record, "metadata", Mapping),
            run=_optional(graph, "run", str),
            at=_optional(graph, "at", str),
            id=str(record["id"]) if record.get("id") is not None else None,
        )
        return step if begun is None or spoken is None else replace(step, resumed=Resumed(begun=begun, spoken=spoken))

    def to_record(self) -> dict[str, object]:
        """The step as plain JSON, for replay: all that a decision hangs on; holds the content of the messages."""
        record: dict[str, object] = {
            "id": self.id,
            "system": self.system,
            "messages": [plain_message(message) for message in self.messages],
            "tools": list(self.tools),
        }
        optional: dict[str, object] = {
            "task_class": self.task_class,
            "approx_tokens": self.tokens,
            "node": self.node,
            "output_schema": plain_value(self.output_schema),
            "downstream": self.downstream,
            "deadline_s": self.deadline_s,
            "in_loop": self.in_loop or None,
            "metadata": plain_value(self.metadata) or None,
            "graph_run": self._graph_run(),
        }
        return record | {key: value for key, value in optional.items() if value is not None}

    def _graph_run(self) -> dict[str, str] | None:
        """Where in which run of a graph the step is made, as a record holds it."""
        begun, spoken = (self.resumed.begun, self.resumed.spoken) if self.resumed is not None else (None, None)
        known = {"run": self.run, "at": self.at, "begun": begun, "spoken": spoken}
        return {key: value for key, value in known.items() if value is not None} or None


def new_id() -> str:
    """A name nothing else has: 32 hexadecimal digits.

    Drawn in this process: asking the system for each lets go of the interpreter, and where other threads are busy it comes back 0.2 ms
    later.
    """
    return f"{_IDS.getrandbits(128):032x}"


_IDS: Final = random.Random()
"""Seeded by the system, and anew in a forked child; nobody else's `random.seed` reaches it."""
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_IDS.seed)


def role_of(message: object) -> Role:
    """Who wrote a message, for dicts, LangChain messages, `(role, text)` pairs and plain strings.

    Anthropic sends tool results as a user message; it counts as a tool's, whatever a program says beside them. A LangChain `ChatMessage`
    with a role of its own counts as a model's: it must not look like new human input, which would open a turn and let pins go.

    Raises:
        StepError: nobody knows the role.
    """
    name: object
    kind = type(message)
    if kind is str:
        return "human"
    if kind is tuple:
        name = message[0]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]
    elif kind is dict:
        plain: dict[str, object] = message  # pyright: ignore[reportAssignmentType]
        name = plain.get("role") or plain.get("type")
    else:
        known: Mapping[str, object] = getattr(message, "__dict__", NOTHING)
        name = known.get("type") or field_of(message, "type") or field_of(message, "role")
        if name in ("chat", "ChatMessageChunk"):
            return ROLES.get(str(field_of(message, "role")), "ai")
        if name == "message":  # what Anthropic's and OpenAI's replies are; who wrote them is the role
            name = field_of(message, "role")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise StepError(f"a message has the role {name!r}; known roles: system, user, assistant, tool")
    if role == "human" and isinstance(content := content_of(message), (list, tuple)) and _brings_results(cast("Sequence[object]", content)):
        return "tool"
    return role


def text_of(message: object) -> str:
    """The words of a message; blocks of other kinds (images, tool calls) are left out."""
    content = content_of(message)
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(_texts(cast("Sequence[object]", content)))
    return ""


def storable(text: str) -> str:
    """The text as every encoding and database takes it: half a character, as a cut-off emoji leaves, and a NUL become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def said_and_shown(message: object) -> tuple[str, str]:
    """The words of a message in two: what its author says, and what the documents say that are shown along with it."""
    content = content_of(message)
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, Sequence):
        return "", ""
    blocks = cast("Sequence[object]", content)
    return "\n".join(_texts(blocks, shown=False)), "\n".join(_texts(blocks, shown=True))


def beside_results(message: object) -> str:
    """What is said beside the tool results of a message, as agent loops append reminders; empty where a message brings no results."""
    content = content_of(message)
    if isinstance(content, str) or not isinstance(content, Sequence) or not _brings_results(blocks := cast("Sequence[object]", content)):
        return ""
    return "\n".join(_texts([block for block in blocks if field_of(block, "type") != RESULT], shown=False))


def content_of(message: object) -> object:
    """The raw content of a message: a string or a list of blocks."""
    if type(message) is dict:
        return cast("dict[str, object]", message).get("content")
    known: Mapping[str, object] | None = getattr(message, "__dict__", None)
    if known is not None and "content" in known:  # `field_of` would find it too, later; this runs 40 times a step
        return known["content"]
    if isinstance(message, str):
        return message
    if isinstance(message, tuple):
        pair = cast("tuple[object, ...]", message)
        return pair[1] if len(pair) > 1 else ""
    return field_of(message, "content")


def tool_calls_of(message: object) -> tuple[ToolCall, ...]:
    """The tool calls a reply asks for, in LangChain's, OpenAI's (also its former `function_call`) or Anthropic's form."""
    calls = field_of(message, "tool_calls") or ((call,) if (call := field_of(message, "function_call")) else None)
    found = list(_calls(cast("Sequence[object]", calls))) if isinstance(calls, Sequence) and not isinstance(calls, str) else []
    if not found and isinstance(content := field_of(message, "content"), Sequence) and not isinstance(content, str):
        blocks = [block for block in cast("Sequence[object]", content) if field_of(block, "type") == "tool_use"]
        found = list(_calls(blocks))
    return tuple(found)


def tool_failed(message: object) -> bool:
    """Whether a tool result says that its tool failed."""
    if field_of(message, "status") == "error" or field_of(message, "is_error") is True:
        return True
    content = content_of(message)
    return isinstance(content, list) and any(field_of(block, "is_error") is True for block in cast("list[object]", content))


def stamp_of(message: object) -> Mapping[str, object] | None:
    """The decision a routed reply carries, if it carries one."""
    metadata = field_of(message, "response_metadata")
    if not metadata or not isinstance(metadata, Mapping):
        return None
    stamp = cast("Mapping[str, object]", metadata).get(STAMP)
    return cast("Mapping[str, object]", stamp) if isinstance(stamp, Mapping) else None


def carried_stamp(reply: object) -> Mapping[str, object] | None:
    """The decision a reply brings its caller: a LangChain message's, or that of a routed SDK client's reply or stream."""
    stamp: object = stamp_of(reply)
    if stamp is None:
        stamp = field_of(reply, STAMP) or field_of(field_of(reply, "_raw_stream"), STAMP)
    return cast("Mapping[str, object]", stamp) if isinstance(stamp, Mapping) else None


def reported_tokens(message: object) -> int | None:
    """Prompt plus reply tokens the provider counted for a reply: exact for all messages up to and including it."""
    usage = field_of(message, "usage_metadata") or field_of(message, "usage")
    if not usage:
        return None
    prompt, reply = field_of(usage, "input_tokens"), field_of(usage, "output_tokens")
    if not isinstance(prompt, int) or not isinstance(reply, int) or prompt < 0 or reply < 0:
        return None
    total = field_of(usage, "total_tokens")
    if isinstance(total, int):
        return max(total, prompt + reply)
    caches = [field_of(usage, key) for key in ("cache_creation_input_tokens", "cache_read_input_tokens")]
    return prompt + reply + sum(count for count in caches if isinstance(count, int))


def tool_name(tool: object) -> str:
    """The name of a tool given as a name, a schema of any provider, a function or an object."""
    if isinstance(tool, str):
        return tool
    function = field_of(tool, "function") or field_of(tool, "custom") or tool
    name = field_of(function, "name") or field_of(function, "__name__") or field_of(function, "title") or field_of(function, "type")
    return name if isinstance(name, str) else type(tool).__name__


def plain_message(message: object) -> dict[str, object]:
    """A message as the `{"role", "content"}` object of a step record, with all that decisions hang on."""
    names = {"human": "user", "ai": "assistant"}
    role = role_of(message)
    plain: dict[str, object] = {"role": names.get(role, role), "content": _plain_content(message)}
    if calls := tool_calls_of(message):
        plain["tool_calls"] = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in calls]
    for key in ("tool_call_id", "name", "id"):
        if isinstance(given := field_of(message, key), str) and given:
            plain[key] = given
    if field_of(message, "status") == "error" or field_of(message, "is_error") is True:
        plain["is_error"] = True
    if (stamp := stamp_of(message)) is not None:
        plain["response_metadata"] = {STAMP: plain_value(stamp)}
    if reported_tokens(message) is not None:
        usage = field_of(message, "usage_metadata") or field_of(message, "usage")
        plain["usage"] = {key: count for key in USAGE if isinstance(count := field_of(usage, key), int)}
    if summarizes(message):
        plain["additional_kwargs"] = {"lc_source": SUMMARY}
    return plain


def _plain_content(message: object) -> object:
    """The text of a message, or its blocks where they are more than text; calls stand beside them."""
    content = content_of(message)
    if not isinstance(content, (list, tuple)):
        return text_of(message)
    blocks = cast("Sequence[object]", content)
    if not field_of(message, "tool_calls"):
        blocks = [block for block in blocks if field_of(block, "type") != "tool_use"]
    if all(isinstance(block, str) or field_of(block, "type") == "text" for block in blocks):
        return "\n".join(_texts(blocks))
    return [plain_value(block) for block in blocks]


def plain_value(value: object) -> object:
    """A value as JSON can hold it: sets in order, models of an SDK as their fields, what it has no form for as text."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if callable(dump := getattr(value, "model_dump", None)):
        value = dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain_value(each) for key, each in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(each) for each in cast("Sequence[object]", value)]
    if isinstance(value, (set, frozenset)):
        return [plain_value(each) for each in sorted(cast("Iterable[object]", value), key=repr)]
    return str(value)


def summarizes(message: object) -> bool:
    """Whether a message stands for those that a summary has replaced."""
    return field_of(field_of(message, "additional_kwargs"), "lc_source") == SUMMARY


def field_of(thing: object, name: str) -> object:
    """A key of a mapping or an attribute of an object; None where it has neither.

    Asking a pydantic object for an attribute it lacks takes it 4 us to say no, so what a class never has is remembered.
    """
    kind = type(thing)
    if kind is dict:
        plain: dict[str, object] = thing  # pyright: ignore[reportAssignmentType]  a cast costs 60 ns, and this runs 70 times a step
        return plain.get(name)
    known = getattr(thing, "__dict__", None)
    if known is not None and name in known:
        return known[name]
    lacking = (kind, name)
    if lacking in _LACKING:
        extra = getattr(thing, "__pydantic_extra__", None) if _LACKING[lacking] else None
        return extra.get(name) if extra else None
    if isinstance(thing, Mapping):
        return cast("Mapping[str, object]", thing).get(name)
    if not hasattr(kind, name) and hasattr(kind, "__pydantic_fields__"):
        _LACKING[lacking] = "__pydantic_extra__" in dir(kind)
    return getattr(thing, name, None)


def label_text(value: object) -> str | None:
    """What a label with this value says; None for what makes no label: only text, numbers, true, false, UUIDs and enums of them do."""
    plain = cast("object", value.value) if isinstance(value, Enum) else value
    return str(plain) if isinstance(plain, (str, int, float, UUID, Number)) else None


class Said(dict[str, Any]):
    """Labels or metadata in which a key has the value of one source, with all that any source says of it.

    Args:
        values: one value for each key.
        of: by key, the values of all sources.
    """

    __slots__ = ("of",)

    def __init__(self, values: Mapping[str, object], of: Mapping[str, tuple[object, ...]]) -> None:
        super().__init__(values)
        self.of = of


def said_of(given: Mapping[str, object], key: str) -> tuple[object, ...]:
    """All that is said of a key in labels or metadata."""
    known = given.of.get(key) if isinstance(given, Said) else None
    return known if known is not None else (given.get(key),)


_LACKING: Final[dict[tuple[type, str], bool]] = {}
"""Pydantic classes and names they have no attribute for, with whether an instance may carry it as an extra."""


def _brings_results(blocks: Sequence[object]) -> bool:
    return any(field_of(block, "type") == RESULT for block in blocks)


def document_text(block: object) -> object:
    """What stands in the open in a document of Anthropic's: a string, blocks, or None where the document comes as a file."""
    source = field_of(block, "source")
    if source is None or isinstance(source, str):
        return None
    key = {"text": "data", "content": "content"}.get(str(field_of(source, "type")))
    return field_of(source, key) if key else None


def _texts(blocks: Sequence[object], *, shown: bool | None = None) -> Iterator[str]:
    """The words of blocks: those of material alone, all but those, or every one."""
    for block in blocks:
        if isinstance(block, str):
            if not shown:
                yield block
            continue
        material = field_of(block, "type") in MATERIAL
        if shown is not None and shown is not material:
            continue
        if isinstance(text := field_of(block, "text"), str):
            yield text
            continue
        inner = field_of(block, "content")
        if inner is None and material:
            inner = document_text(block)
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, (list, tuple)):
            yield from _texts(cast("Sequence[object]", inner))


CUSTOM_CALLS: Final = ("custom", "custom_tool_call")
"""What OpenAI calls a call of a tool that takes free text, in chat and in responses."""


def _calls(calls: Sequence[object]) -> Iterator[ToolCall]:
    for call in calls:
        custom = field_of(call, "type") in CUSTOM_CALLS  # its input is free text, not JSON
        function = field_of(call, "custom" if custom else "function") or call
        arguments = next((value for key in ("args", "arguments", "input") if (value := field_of(function, key)) is not None), "{}")
        if isinstance(arguments, str) and not custom:
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError:
                arguments = {"__unreadable__": arguments}
        name, call_id = field_of(function, "name"), field_of(call, "id")
        yield ToolCall(
            name=name if isinstance(name, str) else "",
            arguments=json.dumps(arguments, sort_keys=True, default=str, ensure_ascii=False),
            id=call_id if isinstance(call_id, str) else None,
        )


def check_step(step: object) -> None:
    """Refuse what is no step.

    Raises:
        StepError: it is something else.
    """
    _check_kind("step", step, Step, "a Step, as Step.from_messages makes one")


def _check_kind(name: str, value: object, kind: type, wanted: str) -> None:
    if not isinstance(value, kind):
        raise StepError(f"{name} is {type(value).__name__}; wanted {wanted}")


def _listed(name: str, given: object, wanted: str) -> tuple[object, ...]:
    """The parts of what is given as any iterable; a text, a mapping or a message is none."""
    if isinstance(given, (list, tuple)):
        return tuple(cast("Sequence[object]", given))
    single = isinstance(given, (str, bytes, Mapping)) or field_of(given, "content") is not None
    if single or not isinstance(given, Iterable):
        raise StepError(f"{name} is {type(cast('object', given)).__name__}; wanted {wanted}")
    return tuple(cast("Iterable[object]", given))


def _check_said(message: object, role: Role, name: str = "a message") -> None:
    """Refuse a message that would be taken as saying nothing, because what it says stands elsewhere or is of no kind that is read."""
    content = content_of(message)
    if isinstance(content, str):
        return
    if content is None:
        if isinstance(message, Mapping) and (role in ("system", "human") or (role == "tool" and "content" not in message)):
            raise StepError(f'{name} has no "content"; wanted its text, or a list of blocks')
    elif isinstance(content, (bytes, Mapping)) or not isinstance(content, Iterable):
        raise StepError(f'"content" of {name} is {_kind(cast("object", content))}; wanted its text, or a list of blocks')


ANSWERS: Final = ("content", "tool_calls", "function_call", "refusal", "audio")
"""What a model's recorded message may say; one of them has to be there."""


def _check_recorded(message: Mapping[str, object], number: int) -> None:
    """Refuse a message of a record that would be counted or read as less than it says."""
    name = f"message {number}"
    role = role_of(message)
    _check_said(message, role, name)
    if role == "ai" and not any(key in message for key in ANSWERS):
        raise StepError(f'{name} has neither "content" nor "tool_calls"; wanted one of them')
    content, calls = message.get("content"), message.get("tool_calls")
    for where, listed, kinds in (("content", content, (str, Mapping)), ("tool_calls", calls, (Mapping,))):
        if listed is None or (where == "content" and isinstance(listed, str)):
            continue
        if not isinstance(listed, (list, tuple)):
            raise StepError(f'"{where}" of {name} is {_kind(listed)}; wanted a list')
        if wrong := [part for part in cast("Sequence[object]", listed) if not isinstance(part, kinds)]:
            raise StepError(f'"{where}" of {name} holds {_kind(wrong[0])}; wanted objects')


KEYS: Final = (
    *("messages", "system", "tools", "task_class", "approx_tokens", "node"),
    *("output_schema", "downstream", "deadline_s", "metadata", "in_loop", "graph_run"),
)
"""What is read in a step record, beside its id; other keys are the record's own."""


@lru_cache(maxsize=256)  # records of a file have the same keys
def _near_miss(key: object) -> str | None:
    """The key that a mistyped one most likely means."""
    if not isinstance(key, str) or key in KEYS:
        return None
    close = difflib.get_close_matches(key.lower().replace("-", "_"), KEYS, n=1, cutoff=0.86)
    return close[0] if close else None


def _check_number(name: str, value: object, kind: type | tuple[type, ...], *, least: float = 0) -> None:
    wanted = "a number that is not negative" if least == 0 else "a number"
    if not isinstance(value, kind) or isinstance(value, bool):
        raise StepError(f"{name} is {_kind(value)}; wanted {wanted}")
    if not cast("float", value) >= least:
        raise StepError(f"{name} is {value}; wanted {wanted}")


KINDS: Final[Mapping[Any, str]] = MappingProxyType(
    {Mapping: "an object", (list, tuple): "a list", str: "text", int: "a whole number", (int, float): "a number", bool: "true or false"}
)
"""What the parts of a record are called in JSON."""


def _optional(record: Mapping[str, object], key: str, kind: Any) -> Any:
    value = record.get(key)
    if value is None or (isinstance(value, kind) and isinstance(value, bool) is (kind is bool)):
        return value
    raise StepError(f'"{key}" is {_kind(value)}; wanted {KINDS[kind]}')


def _kind(value: object) -> str:
    return "missing" if value is None else type(value).__name__
