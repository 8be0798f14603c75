"""Delegation: a supervisor hands each part of a request to the member whose work it is, and finishes when all have reported."""

from __future__ import annotations

import re

from routed_agents.embedded.conversation import Conversation, Text, Turn
from routed_agents.embedded.json_fields import JsonObject, as_object, items, member, parse, text
from routed_agents.embedded.solvers import lexicon
from routed_agents.embedded.solvers.schema import told
from routed_agents.embedded.solvers.words import shortened

_DONE = re.compile(r"^(?:finish(?:ed)?|done|end|stop|__end__)$", re.IGNORECASE)
_TASK = re.compile(r"\s*task\b[^:\n]{0,30}:", re.IGNORECASE)
_CLEAR = 1.5
"""What one word of a member's description counts in the request."""


def order(conversation: Conversation, *, mistaken: bool = False) -> JsonObject | None:
    """The answer to "who acts next" in the form the schema asks for, or None where it asks nothing of the kind."""
    properties = member(conversation.schema or {}, "properties")
    field = next((name for name, inner in properties.items() if _members(as_object(inner))), None)
    if field is None or any(text(as_object(inner), "type") != "string" for name, inner in properties.items() if name != field):
        return None
    options = _members(as_object(properties[field]))
    finish = next(option for option in options if _DONE.match(option))
    request, since = _request(conversation)
    called = _called(conversation.turns[since:], field)
    meanings = told(options, conversation.system)
    wanted = [option for option in options if option != finish and lexicon.weight(option, meanings.get(option, ""), request) >= _CLEAR] or [
        option for option in options if option != finish
    ][:1]
    left = [option for option in wanted if option not in called]
    chosen = (finish if mistaken and called else left[0]) if left else finish
    task = "Nothing is left to do." if chosen == finish else shortened(request, 300)
    return {name: chosen if name == field else task for name in properties}


def _members(inner: JsonObject) -> list[str]:
    options = [option for option in items(inner, "enum") if isinstance(option, str)]
    return options if len(options) > 2 and any(_DONE.match(option) for option in options) else []


def _request(conversation: Conversation) -> tuple[str, int]:
    """What a person asked for last, and in which turn: neither a task that was handed out nor the question who acts next."""
    said = [
        (part.text, number)
        for number, turn in enumerate(conversation.turns)
        for part in turn.parts
        if turn.role == "user" and isinstance(part, Text) and part.text.strip() and not _TASK.match(part.text)
    ]
    asked = said[:-1] or said
    return asked[-1] if asked else ("", 0)


def _called(turns: tuple[Turn, ...], field: str) -> list[str]:
    """The members that these replies chose."""
    found: list[str] = []
    for turn in turns:
        for piece in re.findall(r"\{[^{}]*\}", turn.text) if turn.role == "assistant" else ():
            try:
                found.append(text(as_object(parse(piece)), field))
            except ValueError:
                continue
    return [name for name in found if name]
