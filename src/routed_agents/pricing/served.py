"""The model that served a reply, and the provider's id of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from routed_agents.steps import field_of

SHORTEST: Final = 4
"""Characters of the shortest text that may have been strung together ("flex"); shorter ones are part of a name."""


def served_model_of(reply: object) -> str | None:
    """The model that really answered, as the reply names it."""
    own = getattr(reply, "__dict__", None)
    if own is not None and "usage_metadata" in own and isinstance(told := own.get("response_metadata"), dict):
        named = cast("dict[str, object]", told)
        found = named.get("model_name") or named.get("model") or named.get("model_id")
        return said_once(found) if isinstance(found, str) else None
    for place, names in _places(reply, ("model_name", "model", "model_id")):
        for name in names:
            if isinstance(found := field_of(place, name), str) and found:
                return found
    return None


def said_once(text: str) -> str:
    """A text that each of several choices of a stream tells, which LangChain strings together, as one of them told it."""
    length = (text + text).find(text, 1)
    return text[:length] if length >= SHORTEST else text


def response_id_of(reply: object) -> str | None:
    """The provider's id of the response; ids that LangChain makes up are left out."""
    for place, names in _places(reply, ("id",)):
        for name in names:
            if isinstance(found := field_of(place, name), str) and found and not found.startswith(("run-", "run--", "lc_")):
                return found
    return None


def _places(reply: object, names: tuple[str, ...]) -> list[tuple[object, tuple[str, ...]]]:
    """Where a reply may say something about itself, most telling first."""
    message = _message_in(reply)
    metadata = field_of(message, "response_metadata")
    places: list[tuple[object, tuple[str, ...]]] = [(metadata, names)]
    places.append((message, ("id",) if names == ("id",) else ("model",) if metadata is None else ()))
    places.append((field_of(reply, "llm_output"), names))
    return places


def _message_in(reply: object) -> object:
    generations = field_of(reply, "generations")
    while isinstance(generations, Sequence) and generations:
        first = cast("Sequence[object]", generations)[0]
        if not isinstance(first, Sequence):
            return field_of(first, "message")
        generations = cast("Sequence[object]", first)
    message = field_of(reply, "message")
    return reply if message is None or field_of(reply, "choices") is not None else message
