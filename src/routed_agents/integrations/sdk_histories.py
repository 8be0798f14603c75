"""Fits a raw history to the model that reads it: the thinking another model signed, which only that one accepts, is left out."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from routed_agents.errors import StepError
from routed_agents.integrations.sdk_requests import CALLS, Api
from routed_agents.steps import field_of, role_of
from routed_agents.tiers import card, same_model

THINKING: Final = ("thinking", "redacted_thinking")
REMEMBERED: Final = 20_000
"""Marks of thoughts kept, the latest; 100 bytes each."""
NAME: Final = "thinking_history"
"""What the span calls the repair."""


class Writers:
    """Remembers which model signed which thought, in this process."""

    def __init__(self) -> None:
        self._models: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, api: Api, reply: object, model: str) -> None:
        """Remember the thoughts of a reply; one that nothing vouches for, as in a stream that was left in it, may be anybody's."""
        marks = [mark for block in _parts(api, reply) if (mark := _mark(block)) is not None and mark != UNVOUCHED]
        if not marks:
            return
        with self._lock:
            for mark in marks:
                self._models[mark] = model
            while len(self._models) > REMEMBERED:
                self._models.popitem(last=False)

    def fitted(self, api: Api, body: dict[str, Any], model: str) -> tuple[str, ...]:
        """Put the history a model can read into a request's body; the names of what was changed.

        Its own thoughts stay. Those of another model go, and so do those of nobody known before the current turn, where no provider needs
        them; in an open tool loop these stay, for its model may want them back.
        """
        if api == "messages":
            return self._fit_messages(body, model)
        return self._fit_items(body, model) if api == "responses" else ()

    def _fit_messages(self, body: dict[str, Any], model: str) -> tuple[str, ...]:
        given = cast("list[Any]", body.get("messages") or [])
        turn = _turn_of(given)
        found: list[Any] = []
        changed: list[str] = []
        for position, message in enumerate(given):
            content: Any = field_of(message, "content")
            if not isinstance(message, Mapping) or not isinstance(content, (list, tuple)):
                found.append(message)
                continue
            blocks = cast("Sequence[Any]", content)
            kept = [block for block in blocks if not self._is_foreign(block, model, open_turn=position > turn)]
            if len(kept) == len(blocks):
                found.append(message)
                continue
            changed.append(NAME)
            found.append({**cast("Mapping[str, Any]", message), "content": kept or [{"type": "text", "text": "(thought only)"}]})
        if changed:
            body["messages"] = found
        if field_of(body.get("thinking"), "type") == "enabled" and _resumes_unthought(found):
            del body["thinking"]
            changed.append("thinking")
        return tuple(dict.fromkeys(changed))

    def _fit_items(self, body: dict[str, Any], model: str) -> tuple[str, ...]:
        given: Any = body.get("input")
        if not isinstance(given, list):
            return ()
        items = cast("list[Any]", given)
        turn = _turn_of(items)
        found: list[Any] = []
        orphaned = changed = False
        for position, item in enumerate(items):
            kind = field_of(item, "type") or "message"
            if kind == "reasoning":
                orphaned = self._is_foreign(item, model, open_turn=position > turn)
                changed = changed or orphaned
                if not orphaned:
                    found.append(item)
            elif orphaned and (kind in CALLS or (kind == "message" and field_of(item, "role") == "assistant")):
                found.append({name: value for name, value in _plain(item).items() if name != "id"})  # an id asks for its reasoning item
            else:
                found.append(item)
        if changed:
            body["input"] = found
        return (NAME,) if changed else ()

    def _is_foreign(self, part: object, model: str, *, open_turn: bool) -> bool:
        mark = _mark(part)
        if mark is None:
            return False
        writer = self._models.get(mark)
        if writer is not None:
            return not same_model(writer, model)
        return not open_turn or (card(model).thinking == "none" and field_of(part, "type") in THINKING)


def _parts(api: Api, reply: object) -> Iterator[object]:
    if api in ("messages", "responses"):
        found = field_of(reply, "content" if api == "messages" else "output")
        yield from cast("Sequence[object]", found) if isinstance(found, (list, tuple)) else ()


def _mark(part: object) -> bytes | None:
    """What vouches for a thought; None for any other part."""
    kind = field_of(part, "type")
    if kind not in (*THINKING, "reasoning"):
        return None
    names = ("signature",) if kind == "thinking" else ("data",) if kind == "redacted_thinking" else ("encrypted_content", "id")
    vouched = next((value for name in names if isinstance(value := field_of(part, name), str) and value), "")
    return _digest(vouched)


def _digest(vouched: str) -> bytes:
    return hashlib.blake2b(vouched.encode(errors="replace"), digest_size=16).digest()


UNVOUCHED: Final = _digest("")
"""The mark of every thought that nothing vouches for."""


def _turn_of(messages: Sequence[Any]) -> int:
    """Where the last human input stands; -1 without one."""
    for position in range(len(messages) - 1, -1, -1):
        kind = field_of(messages[position], "type")
        if kind is not None and kind != "message":
            continue
        try:
            if role_of({"role": field_of(messages[position], "role"), "content": field_of(messages[position], "content")}) == "human":
                return position
        except StepError:
            continue
    return -1


def _resumes_unthought(messages: Sequence[Any]) -> bool:
    """A tool loop goes on whose last assistant message has no thought in front: with a thinking budget Anthropic refuses that."""
    if _turn_of(messages) == len(messages) - 1:
        return False
    last = next((message for message in reversed(messages) if field_of(message, "role") == "assistant"), None)
    content: Any = field_of(last, "content") if last is not None else None
    if last is None or last is messages[-1]:
        return False
    blocks = cast("Sequence[Any]", content) if isinstance(content, (list, tuple)) else ()
    return not blocks or field_of(blocks[0], "type") not in THINKING


def _plain(item: Any) -> dict[str, Any]:
    return dict(cast("Mapping[str, Any]", item)) if isinstance(item, Mapping) else item.model_dump(exclude_unset=True, mode="json")
