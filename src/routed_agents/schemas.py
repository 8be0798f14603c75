"""Which JSON Schemas a provider's own structured output can carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

BRANCHES: Final = ("anyOf", "oneOf", "allOf")
PRIMITIVE: Final = (str, int, float, bool, type(None))


def carried(schema: Mapping[str, Any]) -> bool:
    """Whether schema-bound decoding leaves a model every answer a schema allows.

    What `transform_schema` of the anthropic SDK cannot say it leaves out or raises for: it closes every object, so that a map has no
    entries; it forgets the places of a tuple; it knows no value of any type and no list of types. The API takes no recursion. Limits of
    numbers, lengths and patterns become words in a description, and that will do.
    """
    return _carried(schema, schema.get("$defs") or {}, {})


def _carried(schema: object, defined: Mapping[str, object], known: dict[str, bool]) -> bool:
    if not isinstance(schema, Mapping):  # true and false are schemas too, and so was a list of items
        return False
    given = cast("Mapping[str, Any]", schema)
    if "$ref" in given:
        return _reference(str(given["$ref"]).removeprefix("#/$defs/"), defined, known)
    if _is_literal(given):
        return True
    for word in BRANCHES:
        if isinstance(branches := given.get(word), list):
            return "properties" not in given and all(_carried(each, defined, known) for each in cast("list[object]", branches))
    kind = given.get("type")
    if kind == "array":
        return "prefixItems" not in given and _carried(given.get("items"), defined, known)
    return _object(given, defined, known) if kind == "object" else isinstance(kind, str)


def _reference(name: str, defined: Mapping[str, object], known: dict[str, bool]) -> bool:
    """What a definition says, read once; one that is met again while it is being read holds itself."""
    if name not in known:
        known[name] = False
        known[name] = name in defined and _carried(defined[name], defined, known)
    return known[name]


def _is_literal(given: Mapping[str, Any]) -> bool:
    if "const" in given:
        return isinstance(given["const"], PRIMITIVE)
    values: list[object] = given.get("enum") or []
    return bool(values) and all(isinstance(value, PRIMITIVE) for value in values)


def _object(given: Mapping[str, Any], defined: Mapping[str, object], known: dict[str, bool]) -> bool:
    fields = given.get("properties")
    if not isinstance(fields, Mapping) or given.get("additionalProperties", False) is not False or "patternProperties" in given:
        return False
    return all(_carried(each, defined, known) for each in cast("Mapping[str, object]", fields).values())
