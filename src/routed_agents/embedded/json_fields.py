"""Parsed JSON is read field by field through these accessors, which check the type and never raise."""

from __future__ import annotations

import json
from typing import cast

JsonObject = dict[str, object]


def as_object(value: object) -> JsonObject:
    """The value if it is a JSON object, else an empty one."""
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def member(holder: JsonObject, key: str) -> JsonObject:
    """The object under a key, or an empty one."""
    return as_object(holder.get(key))


def items(holder: JsonObject, key: str) -> list[object]:
    """The array under a key, or an empty one."""
    return as_list(holder.get(key))


def objects(holder: JsonObject, key: str) -> list[JsonObject]:
    """The objects of the array under a key; anything else in it is left out."""
    return [cast("JsonObject", value) for value in items(holder, key) if isinstance(value, dict)]


def strings(holder: JsonObject, key: str) -> list[str]:
    """The strings of the array under a key; anything else in it is left out."""
    return [value for value in items(holder, key) if isinstance(value, str)]


def text(holder: JsonObject, key: str, default: str = "") -> str:
    """The string under a key, or the default."""
    value = holder.get(key)
    return value if isinstance(value, str) else default


def integer(holder: JsonObject, key: str, default: int = 0) -> int:
    """The whole number under a key, or the default; true is not a number."""
    value = holder.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def number(holder: JsonObject, key: str, default: float = 0.0) -> float:
    """The number under a key, or the default; true is not a number."""
    value = holder.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def flag(holder: JsonObject, key: str, *, default: bool = False) -> bool:
    """The boolean under a key, or the default."""
    value = holder.get(key)
    return value if isinstance(value, bool) else default


def parse(source: str | bytes) -> object:
    """The JSON value in a text; raises ValueError for anything else."""
    return cast("object", json.loads(source))


def compact(value: object) -> str:
    """One canonical line of JSON: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
