"""A structured answer comes as the bare model gives it, whatever form its schema has, on each tier and in each way of calling."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from routed_agents import RoutedChatModel, RouterMiddleware, decision_of
from routed_agents.embedded import Fault

from .conftest import HAIKU, HARD, OPUS, scripted, whole

CHEAP: Any = {"metadata": {"task_class": "classification"}}
ASK = "Extract it: Anna, maths 5, art 4"
FIELDS = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
FUNCTION = {"name": "mood", "description": "The mood.", "parameters": FIELDS}


class Mood(BaseModel):
    """How somebody feels."""

    mood: str


class Feeling(TypedDict):
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


def called(name: str = "Mood", **arguments: Any) -> AIMessage:
    """A reply that calls a tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "call_1"}])


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


# ---- streams ------------------------------------------------------------------------------------------------------------


def joined(chunks: list[Any]) -> dict[str, Any]:
    return {key: value for chunk in chunks for key, value in chunk.items()}


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize(("config", "tier"), [(CHEAP, "cheap"), (HARD, "strong")], ids=["cheap", "strong"])
async def test_a_stream_with_the_raw_message_is_judged_and_stamped_as_a_whole_answer_is(config, tier, buffer, books, real):
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router, buffer=buffer)
    asked = model.with_structured_output(Mood, include_raw=True)
    for found in (joined(list(asked.stream(ASK, config))), joined([chunk async for chunk in asked.astream(ASK, config)])):
        assert (type(found["parsed"]), found["parsing_error"], decision_of(found["raw"])["tier"]) == (Mood, None, tier)
    assert (books.story, books.entries[0].codes) == ([(tier, "accepted")] * 2, () if tier == "cheap" else ("agentic_chain",))


def test_a_streamed_answer_beside_which_the_message_stands_is_asked_again_where_the_parser_rejects_it(books):
    asked = books.model(called(mood=["no", "text"]), called(mood="calm")).with_structured_output(Mood, include_raw=True)
    found = joined(list(asked.stream(ASK, CHEAP)))
    assert (found["parsed"], decision_of(found["raw"])["tier"]) == (Mood(mood="calm"), "strong")
    assert books.story == [("cheap", "rejected"), ("strong", "accepted")]


def test_what_comes_of_a_stream_with_the_raw_message_adds_up_as_the_bare_models_does(books):
    asked = [
        each.with_structured_output(Mood, include_raw=True)
        for each in (books.model(called(mood="calm")), scripted(HAIKU, called(mood="calm")))
    ]
    routed, bare = (whole(list(each.stream(ASK, CHEAP))) for each in asked)
    assert (routed.keys(), routed["parsed"], type(routed["raw"])) == (bare.keys(), bare["parsed"], type(bare["raw"]))


# ---- json mode, and tools beside a schema -------------------------------------------------------------------------------

UNNAMED = {"none": None, "untitled": FIELDS, "response format": {"type": "json_schema", "json_schema": {"name": "mood", "schema": FIELDS}}}


@pytest.mark.parametrize("schema", UNNAMED.values(), ids=UNNAMED)
def test_json_mode_needs_no_schema_and_no_name(schema, books, real):
    model = RoutedChatModel(cheap=real("gpt-6-luna"), strong=real("gpt-6.1-sol"), router=books.router)
    routed, bare = (each.with_structured_output(schema, method="json_mode") for each in (model, real("gpt-6-luna")))
    assert (routed.invoke(f"{ASK}. Answer in JSON.", CHEAP), books.story) == (
        bare.invoke(f"{ASK}. Answer in JSON."),
        [("cheap", "accepted")],
    )


@pytest.mark.parametrize("method", [None, "function_calling", "json_schema"])
def test_another_method_wants_a_schema_with_a_name(method, pair):
    with pytest.raises(ValueError, match="top-level 'title' key"):
        pair.with_structured_output(FIELDS, method=method)


@pytest.mark.parametrize("include_raw", [False, True])
def test_a_call_of_a_tool_beside_the_schema_is_accepted(include_raw, books, real):
    model = RoutedChatModel(cheap=real("gpt-6-luna"), strong=real("gpt-6.1-sol"), router=books.router)
    options = {"method": "json_schema", "tools": [search], "include_raw": include_raw}
    found = model.with_structured_output(Mood, **options).invoke("Search for boots", CHEAP)
    assert (books.story, books.entries[0].codes) == ([("cheap", "accepted")], ())
    assert not include_raw or ([call["name"] for call in found["raw"].tool_calls], found["parsed"]) == (["search"], None)


def test_its_output_is_described_as_the_bare_models_is(pair, real):
    described = [model.with_structured_output(Mood, method="json_schema").get_output_jsonschema() for model in (pair, real(HAIKU))]
    assert described[0] == described[1]


@pytest.mark.parametrize(
    ("schema", "include_raw", "title"),
    [
        (Mood, False, "Mood"),
        (Mood, True, "RoutedChatModelOutput"),
        (SAID["plain"], False, "RoutedChatModelOutput"),
        (Feeling, False, "RoutedChatModelOutput"),
    ],
    ids=["a class", "with the message", "a dict", "a typed dict"],
)
def test_its_output_is_described_as_a_message_in_no_case(schema, include_raw, title, pair):
    described = pair.with_structured_output(schema, include_raw=include_raw).get_output_jsonschema()
    assert (described["title"], "oneOf" in described) == (title, False)
