"""Messages as span attributes, each text through the user's redaction hook; nothing is written without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from routed_agents.steps import field_of, role_of, text_of

Redaction = Callable[[str], str | None]
"""Gets a text somebody wrote, and gives what may be recorded of it; None for nothing."""
ROLES: Final = {"human": "user", "ai": "assistant"}


def messages_attribute(messages: Iterable[object], redact: Redaction) -> str | None:
    """Messages in the conventions' JSON; None when the hook lets nothing through."""
    told = [shaped for message in messages if (shaped := _shaped(message, redact)) is not None]
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
    for call in cast("Iterable[object]", field_of(message, "tool_calls") or ()):
        arguments = redact(_json(_arguments(call)))
        parts.append({"type": "tool_call", "name": str(field_of(call, "name") or ""), **({"arguments": arguments} if arguments else {})})
    if not parts:
        return None
    role = role_of(message) or "assistant"
    return {"role": ROLES.get(role, role), "parts": parts}


def _arguments(call: object) -> object:
    function = field_of(call, "function")
    if isinstance(function, Mapping):
        return cast("Mapping[str, object]", function).get("arguments")
    return field_of(call, "args")
