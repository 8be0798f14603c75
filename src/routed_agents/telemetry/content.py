"""Messages as span attributes, each text through the user's redaction hook; nothing is written without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, cast

from routed_agents.steps import CUSTOM_CALLS, content_of, field_of, role_of, text_of

Redaction = Callable[[str], str | None]
"""Gets a text somebody wrote, and gives what may be recorded of it; None for nothing."""
ROLES: Final = {"human": "user", "ai": "assistant"}
CALLS: Final = ("function_call", *CUSTOM_CALLS)
"""Items of OpenAI's Responses API that call a tool."""


def messages_attribute(messages: Iterable[object], redact: Redaction) -> str | None:
    """Messages in the conventions' JSON; None when the hook lets nothing through."""
    told = [shaped for message in messages if (shaped := _shaped(message, redact)) is not None]
    return json.dumps(told, ensure_ascii=False) if told else None


def reply_attribute(reply: object, redact: Redaction) -> str | None:
    """What a reply says and calls, a provider's response or a message, in the conventions' JSON."""
    return messages_attribute(_answers(reply), redact)


def instructions_attribute(system: str, redact: Redaction) -> str | None:
    """A system prompt that stands beside the messages, in the conventions' JSON."""
    text = redact(system)
    return json.dumps([{"type": "text", "content": text}], ensure_ascii=False) if text else None


def tools_attribute(tools: Iterable[str], redact: Redaction) -> str | None:
    """The names of the bound tools, in the conventions' JSON; what else defines them is not known."""
    told = [{"type": "function", "name": name} for name in redacted(tools, redact)]
    return json.dumps(told, ensure_ascii=False) if told else None


def redacted(texts: Iterable[str], redact: Redaction | None) -> list[str]:
    """What may be recorded of these texts."""
    kept = [text if redact is None else redact(text) for text in texts]
    return [text for text in kept if text]


def json_text(arguments: object) -> str:
    """What a tool was called with, as JSON; a text stays as it is."""
    return arguments if isinstance(arguments, str) else _json(arguments)


def _json(value: object) -> str:
    """The value as JSON, or as Python writes it where JSON cannot: keys that are no text, a list that holds itself."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _shaped(message: object, redact: Redaction) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = []
    text = redact(text_of(message))
    if text:
        parts.append({"type": "text", "content": text})
    for call in _calls(message):
        called = field_of(call, "function") or field_of(call, "custom") or call
        given = next((value for key in ("args", "arguments", "input") if (value := field_of(called, key)) is not None), None)
        arguments = redact(json_text(given))
        parts.append({"type": "tool_call", "name": str(field_of(called, "name") or ""), **({"arguments": arguments} if arguments else {})})
    if not parts:
        return None
    role = role_of(message) or "assistant"
    return {"role": ROLES.get(role, role), "parts": parts}


def _calls(message: object) -> Iterable[object]:
    """The calls of a message, beside its content or among its blocks."""
    if calls := field_of(message, "tool_calls"):
        return cast("Iterable[object]", calls)
    content = content_of(message)
    blocks = cast("Sequence[object]", content) if isinstance(content, (list, tuple)) else ()
    return [block for block in blocks if field_of(block, "type") == "tool_use"]


def _answers(reply: object) -> Iterator[object]:
    """The messages of a provider's response; any other reply is one itself."""
    choices, output = field_of(reply, "choices"), field_of(reply, "output")
    if isinstance(choices, (list, tuple)):
        yield from [field_of(choice, "message") for choice in cast("Sequence[object]", choices)]
    elif isinstance(output, (list, tuple)) and field_of(reply, "object") == "response":
        for item in cast("Sequence[object]", output):
            kind = field_of(item, "type")
            if kind == "message":
                yield item
            elif kind in CALLS:
                yield {"role": "assistant", "tool_calls": [item]}
    else:
        yield reply
