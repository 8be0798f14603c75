"""A structured answer comes as the bare model gives it, whatever form its schema has, on each tier and in each way of calling."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.tools import tool
from pydantic import BaseModel

from routed_agents import RoutedChatModel, RouterMiddleware
from routed_agents.embedded import Fault

from .conftest import HAIKU, HARD, OPUS

CHEAP: Any = {"metadata": {"task_class": "classification"}}
ASK = "Extract it: Anna, maths 5, art 4"
FIELDS = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
FUNCTION = {"name": "mood", "description": "The mood.", "parameters": FIELDS}


class Mood(BaseModel):
    """How somebody feels."""

    mood: str


class Row(BaseModel):
    """One row."""

    key: str
    value: Any


class Scores(BaseModel):
    """Scores by subject."""

    name: str
    scores: dict[str, float]


class Place(BaseModel):
    """A place in a list."""

    place: tuple[int, str]


SAID = {
    "anthropic tool": {"name": "mood", "description": "The mood.", "input_schema": FIELDS},
    "openai function": FUNCTION,
    "openai tool": {"type": "function", "function": FUNCTION},
    "plain": {"title": "mood", "description": "The mood.", **FIELDS},
}
UNCARRIED = {
    "list of types": {"title": "mood", "description": "The mood.", "type": "object", "properties": {"mood": {"type": ["string", "null"]}}},
    "untyped": {"title": "mood", "description": "The mood.", "type": "object", "properties": {"mood": {}}},
    "any": Row,
    "map": Scores,
    "tuple": Place,
}


@tool
def search(query: str) -> str:
    """Search the shop."""
    return query


@pytest.fixture
def pair(books, real):
    return RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router)


# ---- schemas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"method": "function_calling"}], ids=["default", "function_calling"])
@pytest.mark.parametrize("schema", SAID.values(), ids=SAID)
def test_a_schema_given_as_a_tool_is_answered_on_the_strong_tier(schema, options, pair, books, provider):
    found = pair.with_structured_output(schema, **options).invoke(ASK, HARD)
    assert (found.keys(), books.story) == ({"mood"}, [("strong", "accepted")])
    assert provider.requests[0].body["output_config"]["format"]["schema"]["properties"].keys() == {"mood"}


def test_a_schema_given_as_a_tool_fails_over_to_the_strong_tier(pair, books, provider):
    provider.faults.add(Fault("overloaded", model=HAIKU))
    found = pair.with_structured_output(SAID["openai tool"]).invoke(ASK, CHEAP)
    assert (found.keys(), books.story) == ({"mood"}, [("cheap", "failed"), ("strong", "accepted")])


@pytest.mark.filterwarnings("ignore:You are attempting to use structured output")
@pytest.mark.parametrize("options", [{}, {"method": "function_calling"}], ids=["default", "function_calling"])
@pytest.mark.parametrize("schema", UNCARRIED.values(), ids=UNCARRIED)
def test_a_schema_that_only_a_tool_can_carry_goes_as_one_as_on_the_bare_model(schema, options, pair, real, provider):
    def sent(model: Any, *config: Any) -> tuple[str, Any]:
        provider.reset()
        try:
            answer = repr(model.with_structured_output(schema, **options).invoke(ASK, *config))
        except ValueError as error:  # the simulated model knows no tuples
            answer = str(error)
        return answer, provider.requests[0].body["tools"]

    assert sent(pair, HARD) == sent(real(OPUS))


@pytest.mark.filterwarnings("ignore:You are attempting to use structured output")
def test_a_tool_that_carries_a_schema_is_not_demanded_where_the_call_makes_the_model_think(books, real, provider):
    model = RoutedChatModel(cheap=real("claude-haiku-4-5"), strong=real(OPUS), router=books.router).with_structured_output(Scores)
    model.bind(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048).invoke(ASK, CHEAP)
    assert provider.requests[0].body["tool_choice"] == {"type": "auto"}


# ---- agents -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [[], [search]], ids=["alone", "with a tool"])
@pytest.mark.parametrize("schema", [Row, Row | Scores], ids=["any", "one of two"])
def test_an_agents_answer_that_only_a_tool_can_carry_is_offered_as_one(schema, tools, books, real, provider):
    middleware = [RouterMiddleware(books.router, cheap=real(HAIKU))]
    found = create_agent(real(OPUS), tools, response_format=ToolStrategy(schema), middleware=middleware).invoke(
        {"messages": [("human", "Extract key and value from: a=5")]}, HARD
    )
    assert (type(found["structured_response"]), set(books.story)) == (Row, {("strong", "accepted")})
    assert provider.requests[0].body["tool_choice"] == {"type": "auto"}
