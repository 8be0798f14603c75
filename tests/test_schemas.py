"""A schema is carried where nothing of what it allows is lost on the way to schema-bound decoding."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from anthropic import transform_schema
from pydantic import BaseModel, RootModel

from routed_agents.schemas import carried

TEXT = {"type": "string"}


def with_field(field: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": field}}


class Leaf(BaseModel):
    v: Literal["a", "b"]
    w: Literal[1, 2] = 1


class Tree(BaseModel):
    v: str
    kids: list[Tree] = []


class Pair(BaseModel):
    left: Leaf | None = None
    right: Leaf
    some: list[Leaf | int]
    nothing: None = None


@pytest.mark.parametrize(
    "field",
    [
        TEXT,
        {"type": "integer", "minimum": 3},
        {"type": "string", "pattern": "^A"},
        {"enum": ["a", 1, None]},
        {"const": True},
        {"anyOf": [TEXT, {"type": "null"}]},
        {"oneOf": [TEXT, {"type": "integer"}]},
        {"type": "array", "items": TEXT, "maxItems": 9},
        {"type": "object", "properties": {}, "additionalProperties": False},
    ],
)
def test_what_the_sdk_can_say_is_carried(field):
    transform_schema(with_field(field))
    assert carried(with_field(field))


@pytest.mark.parametrize(
    "field",
    [
        {},
        True,
        {"title": "X"},
        {"type": ["string", "null"]},
        {"anyOf": [TEXT, {}]},
        {"type": "array", "items": [TEXT, TEXT]},
    ],
)
def test_what_the_sdk_raises_for_is_not_carried(field):
    with pytest.raises((ValueError, AssertionError, TypeError)):
        transform_schema(with_field(field))
    assert not carried(with_field(field))


@pytest.mark.parametrize(
    "field",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": True},
        {"type": "object", "properties": {"a": TEXT}, "patternProperties": {"^x": TEXT}},
        {"type": "object", "properties": {"a": TEXT}, "anyOf": [with_field(TEXT)]},
        {"type": "array"},
        {"type": "array", "prefixItems": [TEXT, {"type": "integer"}], "minItems": 2, "maxItems": 2},
        {"type": "object", "enum": [{"a": 1}]},
        {"type": "array", "const": ["a"]},
        {"$ref": "#/definitions/Leaf"},
    ],
)
def test_what_the_sdk_changes_unsaid_is_not_carried(field):
    assert not carried(with_field(field))


@pytest.mark.parametrize(("model", "is_carried"), [(Leaf, True), (Pair, True), (Tree, False), (RootModel[list[int]], True)])
def test_definitions_are_read_and_recursion_is_not_carried(model, is_carried):
    assert carried(model.model_json_schema()) is is_carried
