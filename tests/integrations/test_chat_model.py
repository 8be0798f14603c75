"""A routed chat model is a chat model in every way people call one, and keeps the three promises in each."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import anthropic
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelTimeoutError, OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel, ValidationError

from routed_agents import Ledger, Policy, PolicyError, Prices, RoutedChatModel, Router, Step, StepStopped, Telemetry, cost_of, decision_of
from routed_agents.embedded import Fault
from routed_agents.errors import ConfigurationError
from routed_agents.steps import STAMP
from routed_agents.telemetry import names
from routed_agents.testing import ScriptedChatModel
from routed_agents.tiers import Deployment, Tiers

from .conftest import EASY, HAIKU, HARD, OPUS, Books, Listener, scripted, whole

MESSAGES = [HumanMessage(EASY)]


class Mood(BaseModel):
    """How somebody feels."""

    mood: str


@tool
def search(query: str) -> str:
    """Search the shop."""
    return query


class Twofold(ScriptedChatModel):
    """Answers twice at once, as OpenAI's models do with `n=2`."""

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self.with_another(super()._generate(*args, **kwargs))

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self.with_another(await super()._agenerate(*args, **kwargs))

    @staticmethod
    def with_another(result: ChatResult) -> ChatResult:
        return result.model_copy(update={"generations": [*result.generations, ChatGeneration(message=AIMessage("or no"))]})


def called(name: str = "Mood", **arguments: Any) -> AIMessage:
    """A reply that calls a tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "call_1"}])


async def gathered(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


SYNC: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda model: model.invoke(EASY),
    "stream": lambda model: whole(list(model.stream(EASY))),
    "batch": lambda model: model.batch([EASY])[0],
    "generate": lambda model: model.generate([MESSAGES]).generations[0][0].message,
}


async def _astream(model: Any) -> Any:
    return whole(await gathered(model.astream(EASY)))


async def _abatch(model: Any) -> Any:
    return (await model.abatch([EASY]))[0]


async def _agenerate(model: Any) -> Any:
    return (await model.agenerate([MESSAGES])).generations[0][0].message


ASYNC: dict[str, Callable[[Any], Any]] = {
    "ainvoke": lambda model: model.ainvoke(EASY),
    "astream": _astream,
    "abatch": _abatch,
    "agenerate": _agenerate,
}
PAIRS = [(HAIKU, OPUS), (HAIKU, "gpt-6.1-sol"), ("gpt-6-luna", OPUS)]


# ---- every way to call it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", SYNC)
def test_every_sync_way_answers_on_the_cheap_tier_and_is_booked_once(way, books):
    reply = SYNC[way](books.model("yes it is"))
    assert (reply.text, decision_of(reply)["tier"], books.story) == ("yes it is", "cheap", [("cheap", "accepted")])
    assert books.entries[0].usage.prompt == reply.usage_metadata["input_tokens"] == 8


@pytest.mark.parametrize("way", ASYNC)
async def test_every_async_way_answers_on_the_cheap_tier_and_is_booked_once(way, books):
    reply = await ASYNC[way](books.model("yes it is"))
    assert (reply.text, decision_of(reply)["tier"], books.story) == ("yes it is", "cheap", [("cheap", "accepted")])
    assert books.entries[0].usage.prompt == reply.usage_metadata["input_tokens"] == 8


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
@pytest.mark.parametrize("way", SYNC)
def test_every_sync_way_works_with_the_providers_own_models(way, pair, books, real):
    reply = SYNC[way](RoutedChatModel(cheap=real(pair[0]), strong=real(pair[1]), router=books.router))
    [entry] = books.entries
    assert (reply.text, entry.tier, entry.model, entry.usage.source) == ("positive", "cheap", pair[0], "reported")
    assert (entry.usage.prompt, entry.cost.total_pico) == (reply.usage_metadata["input_tokens"], decision_of(reply)["cost_pico"])


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
@pytest.mark.parametrize("way", ASYNC)
async def test_every_async_way_works_with_the_providers_own_models(way, pair, books, real):
    reply = await ASYNC[way](RoutedChatModel(cheap=real(pair[0]), strong=real(pair[1]), router=books.router))
    [entry] = books.entries
    assert (reply.text, entry.tier, entry.model, entry.usage.source) == ("positive", "cheap", pair[0], "reported")
    assert (entry.usage.prompt, entry.cost.total_pico) == (reply.usage_metadata["input_tokens"], decision_of(reply)["cost_pico"])


def test_a_batch_routes_each_item_by_itself(books):
    replies = books.model().batch([EASY, EASY], [{}, HARD])
    assert [decision_of(reply)["tier"] for reply in replies] == ["cheap", "strong"]


async def test_agenerate_answers_each_prompt_in_its_order(books):
    result = await books.model(lambda messages: messages[0].text[-6:]).agenerate(
        [[HumanMessage(f"{EASY} {number}")] for number in range(9)]
    )
    assert [each[0].text for each in result.generations] == [f"vely {number}" for number in range(9)]


async def generated(model: Any, is_async: bool, *args: Any, **kwargs: Any) -> LLMResult:
    return await model.agenerate(*args, **kwargs) if is_async else model.generate(*args, **kwargs)


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage")  # langchain-openai's, of details it cannot add up
@pytest.mark.parametrize("is_async", [False, True], ids=["generate", "agenerate"])
@pytest.mark.parametrize("pair", [(HAIKU, OPUS), ("gpt-6-luna", "gpt-6.1-sol")], ids="+".join)
async def test_what_is_generated_is_all_that_the_bare_model_gives(pair, is_async, books, real):
    routed = RoutedChatModel(cheap=real(pair[0]), strong=real(pair[1]), router=books.router)
    ours, theirs = [await generated(model, is_async, [MESSAGES, MESSAGES]) for model in (routed, real(pair[0]))]
    assert ours.llm_output == theirs.llm_output
    assert [[each.generation_info for each in of] for of in ours.generations] == [
        [each.generation_info for each in of] for of in theirs.generations
    ]
    assert (len(ours.run), [decision_of(each[0].message)["tier"] for each in ours.generations]) == (2, ["cheap", "cheap"])


@pytest.mark.parametrize("is_async", [False, True], ids=["generate", "agenerate"])
async def test_the_run_id_of_several_prompts_is_the_first_ones(is_async, books):
    given = uuid4()
    first, second = (await generated(books.model(), is_async, [MESSAGES, MESSAGES], run_id=given)).run
    assert first.run_id == given != second.run_id


@pytest.mark.parametrize("is_async", [False, True], ids=["generate", "agenerate"])
async def test_all_answers_to_one_prompt_are_given_and_the_first_carries_the_decision(is_async, books):
    model = books.model(Twofold(model_name=HAIKU, provider="anthropic", replies="yes"))
    [found] = (await generated(model, is_async, [MESSAGES])).generations
    assert ([each.text for each in found], decision_of(found[0].message)["tier"]) == (["yes", "or no"], "cheap")


def test_what_is_generated_comes_from_the_model_whose_answer_stands(books):
    result = books.model("", "strong").generate([MESSAGES])
    assert ([each[0].text for each in result.generations], len(result.run)) == (["strong"], 1)


def test_what_is_generated_in_a_node_is_heard_by_the_graphs_handlers(books):
    listener = Listener()
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [books.model().generate([MESSAGES]).generations[0][0].message]})
    graph.add_edge(START, "ask")
    graph.compile().invoke({"messages": MESSAGES}, {"callbacks": [listener]})
    assert listener.ended == 1


def test_strings_import_and_build_nothing_before_the_first_call():
    code = (
        "import sys; from routed_agents import RoutedChatModel, Router, Policy\n"
        "model = RoutedChatModel(cheap='anthropic:claude-haiku-5-5', strong='openai:gpt-6.1-sol')\n"
        "RoutedChatModel(router=Router(Policy.default()))\n"
        "print([name for name in ('anthropic', 'openai', 'langchain_anthropic', 'langchain_openai') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_only_the_tier_that_is_called_gets_built(books, provider):
    model = RoutedChatModel(router=books.router, options={"max_tokens": 64})
    model.invoke(EASY)
    built = [model.models.ready(tier.deployments[0]) is not None for tier in books.router.policy.tiers]
    assert (built, provider.requests[0].model) == ([True, False], HAIKU)


def test_an_unknown_tier_is_named_when_the_model_is_made():
    with pytest.raises(PolicyError, match='unknown tier "opus"; known tiers: cheap, strong'):
        RoutedChatModel(tiers={"opus": "anthropic:claude-opus-5-5", "cheap": "anthropic:claude-haiku-5-5"}, router=Policy.default())


# ---- tools and structure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(HAIKU, "gpt-6.1-sol"), ("gpt-6-luna", OPUS)], ids="+".join)
def test_tools_are_bound_late_in_the_format_of_the_tier_that_is_chosen(pair, books, real, provider):
    bound = RoutedChatModel(cheap=real(pair[0]), strong=real(pair[1]), router=books.router).bind_tools([search])
    bound.invoke(EASY)
    bound.invoke(EASY, HARD)
    formats = {served.model: "input_schema" if "input_schema" in served.body["tools"][0] else "function" for served in provider.requests}
    assert formats == {model: "input_schema" if model.startswith("claude") else "function" for model in pair}


def test_bound_tools_count_among_what_is_known_of_the_step(books):
    reply = books.model(called("search", query="boots")).bind_tools([search]).invoke(EASY)
    assert (reply.tool_calls[0]["name"], books.story) == ("search", [("cheap", "accepted")])


@pytest.mark.parametrize("made", [iter, lambda tools: filter(None, tools), lambda tools: (each for each in tools)])
def test_tools_that_can_be_read_once_are_all_bound(made, books, real, provider):
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router)
    reply = model.bind_tools(made([search])).invoke("Search for boots", {"metadata": {"task_class": "classification"}})
    assert ([call["name"] for call in reply.tool_calls], len(provider.requests[0].body["tools"])) == (["search"], 1)


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_a_prebuilt_agent_takes_bound_tools_as_they_were_bound(books):
    model = books.model(called("search", query="boots"))
    agent = create_react_agent(model.bind_tools([search], tool_choice="any"), [search])
    next(agent.stream({"messages": MESSAGES}))
    [asked] = model.cheap.calls
    assert (asked.options["tool_choice"], [each["function"]["name"] for each in asked.options["tools"]]) == ("any", ["search"])


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_a_prebuilt_agent_sees_that_it_has_other_tools_than_are_bound(books):
    with pytest.raises(ValueError, match="Got 1 tools, expected 0"):
        create_react_agent(books.model().bind_tools([]), [search])


def test_one_call_at_a_time_is_asked_of_each_provider_in_its_own_words(books, real, provider):
    model = RoutedChatModel(cheap=real("gpt-6-luna"), strong=real(OPUS), router=books.router)
    assert "parallel_tool_calls" in inspect.signature(model.bind_tools).parameters  # langgraph-supervisor looks there
    bound = model.bind_tools([search], parallel_tool_calls=False)
    bound.invoke(EASY)
    bound.invoke(EASY, HARD)
    cheap, strong = [served.body for served in provider.requests]
    assert cheap["parallel_tool_calls"] is False
    assert strong["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


class Forwarding(ScriptedChatModel):
    """A chat model that names no parallel calls and hands on what it is told."""

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        return super().bind_tools(tools, tool_choice=tool_choice, **kwargs)


class Unaware(ScriptedChatModel):
    """A chat model whose provider knows nothing of parallel calls."""

    def bind_tools(self, tools: Any, *, tool_choice: Any = None) -> Any:  # type: ignore[override]
        return super().bind_tools(tools, tool_choice=tool_choice)


@pytest.mark.parametrize("value", [True, False])
def test_a_model_that_takes_what_it_does_not_name_is_told_of_parallel_calls(value, books):
    model = books.model(Forwarding(model_name=HAIKU, provider="groq"))
    model.bind_tools([search], parallel_tool_calls=value).invoke(EASY)
    assert model.cheap.calls[0].options["parallel_tool_calls"] is value
    assert names.REPAIRS not in books.leaves[0].attributes


def test_a_model_that_takes_no_parallel_calls_is_not_told_of_them(books):
    model = books.model(Unaware(model_name=HAIKU, provider="anthropic"))
    model.bind_tools([search], parallel_tool_calls=False).invoke(EASY)
    assert "parallel_tool_calls" not in model.cheap.calls[0].options
    assert books.leaves[0].attributes[names.REPAIRS] == ("parallel_tool_calls",)


def test_tools_given_with_a_call_replace_the_bound_ones_as_on_a_bare_model(books):
    model = books.model()
    model.bind_tools([search]).invoke(EASY, tools=[{"type": "function", "function": {"name": "other"}}])
    assert [each["function"]["name"] for each in model.cheap.calls[0].options["tools"]] == ["other"]


@pytest.mark.parametrize("schema", [Mood, Mood.model_json_schema()], ids=["pydantic", "dict"])
def test_structured_output_comes_in_the_form_that_was_asked_for(schema, books):
    found = books.model(called(mood="calm")).with_structured_output(schema).invoke(EASY)
    assert found == (Mood(mood="calm") if schema is Mood else {"mood": "calm"})
    assert books.story == [("cheap", "accepted")]


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
@pytest.mark.parametrize("config", [{}, HARD], ids=["cheap", "strong"])
def test_structured_output_works_on_each_tier_of_the_providers_own_models(config, pair, books, real):
    model = RoutedChatModel(cheap=real(pair[0]), strong=real(pair[1]), router=books.router).with_structured_output(Mood)
    assert isinstance(model.invoke("Classify the mood: I am so happy with these boots!", config), Mood)
    assert books.story == [("strong" if config else "cheap", "accepted")]


def test_include_raw_gives_the_message_with_its_decision(books):
    found = books.model(called(mood="calm")).with_structured_output(Mood, include_raw=True).invoke(EASY)
    assert (found["parsed"], found["parsing_error"]) == (Mood(mood="calm"), None)
    assert decision_of(found["raw"])["tier"] == "cheap"


@pytest.mark.parametrize("include_raw", [False, True])
def test_a_reply_the_parser_rejects_is_asked_again_of_the_strong_tier(include_raw, books):
    asked = books.model(called(mood=["no", "text"]), called(mood="calm")).with_structured_output(Mood, include_raw=include_raw)
    found = asked.invoke(EASY)
    assert (found["parsed"] if include_raw else found) == Mood(mood="calm")
    assert books.story == [("cheap", "rejected"), ("strong", "accepted")]


async def test_a_reply_the_parser_rejects_is_asked_again_in_async_and_in_streams(books):
    asked = books.model(called(mood=["no", "text"]), called(mood="calm")).with_structured_output(Mood)
    assert await asked.ainvoke(EASY) == Mood(mood="calm")
    assert (await gathered(asked.astream(EASY)))[-1] == Mood(mood="calm")
    assert books.story == [("cheap", "rejected"), ("strong", "accepted")] * 2


def test_at_the_top_tier_the_parsers_own_error_surfaces_and_the_call_is_booked(books):
    asked = books.model(strong=called(mood=["no", "text"])).with_structured_output(Mood)
    with pytest.raises((OutputParserException, ValidationError)):
        asked.invoke(EASY, HARD)
    assert (books.story, books.entries[0].usage.source) == ([("strong", "accepted")], "reported")


def test_a_reply_without_the_structure_is_asked_again_of_the_strong_tier(books):
    found = books.model("calm", called(mood="calm")).with_structured_output(Mood, include_raw=True).invoke(EASY)
    assert (found["parsed"], books.story) == (Mood(mood="calm"), [("cheap", "rejected"), ("strong", "accepted")])


def test_at_the_top_tier_a_parsing_error_is_given_beside_the_raw_message(books):
    found = books.model(strong=called(mood=["no"])).with_structured_output(Mood, include_raw=True).invoke(EASY, HARD)
    assert (found["parsed"], type(found["parsing_error"]).__name__) == (None, "ValidationError")


# ---- repairs ------------------------------------------------------------------------------------------------------------


def test_a_temperature_the_model_refuses_is_dropped_and_named_on_the_span(books, real, provider):
    RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router).invoke(EASY, HARD, temperature=0.2)
    assert (provider.requests[0].model, "temperature" in provider.requests[0].body) == (OPUS, False)
    assert books.leaves[0].attributes[names.REPAIRS] == ("temperature",)


def test_a_temperature_among_the_options_is_dropped_for_the_model_that_refuses_it(books, provider):
    policy = Policy.default(tiers=Tiers.of({"cheap": "anthropic:claude-haiku-4-5", "strong": f"anthropic:{OPUS}"}))
    model = RoutedChatModel(router=books.router.replace(policy=policy), options={"temperature": 0.2, "max_tokens": 64})
    model.invoke(EASY)
    model.invoke(EASY, HARD)
    assert [served.body.get("temperature") for served in provider.requests] == [0.2, None]


def test_a_forced_tool_choice_becomes_auto_where_only_that_is_allowed(books, real, provider):
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router)
    model.bind_tools([search], tool_choice="search").invoke("Search for boots", HARD)
    assert provider.requests[0].body["tool_choice"]["type"] == "auto"
    assert books.leaves[0].attributes[names.REPAIRS] == ("tool_choice",)


def test_a_call_that_fits_is_not_repaired(books):
    cheap = scripted("claude-haiku-4-5", "yes")
    books.model(cheap).invoke(EASY, temperature=0.2)
    assert (cheap.calls[0].options, names.REPAIRS in books.leaves[0].attributes) == ({"temperature": 0.2}, False)


# ---- the stamp ----------------------------------------------------------------------------------------------------------


def test_the_stamp_is_on_a_copy_so_a_shared_cache_stays_clean(books):
    cheap = ScriptedChatModel(model_name=HAIKU, replies="yes", cache=InMemoryCache())
    stamped = books.model(cheap).invoke(EASY)
    assert (STAMP in stamped.response_metadata, STAMP in cheap.invoke(EASY).response_metadata) == (True, False)


def test_an_answer_from_langchains_cache_costs_nothing(books):
    model = books.model(ScriptedChatModel(model_name=HAIKU, replies="yes", cache=InMemoryCache()))
    first, second = model.invoke(EASY), model.invoke(EASY)
    assert (cost_of(first).cost_pico > 0, cost_of(second).cost_pico) == (True, 0)


def test_the_stamp_is_plain_json_and_says_what_was_decided(books):
    reply = books.model().invoke(EASY, HARD)
    told = decision_of(reply)
    assert json.loads(json.dumps(told)) == told
    assert (told["tier"], told["task_class"], told["codes"], told["attempts"]) == ("strong", "agentic_chain", ["agentic_chain"], 1)


def test_the_stamp_is_on_exactly_one_chunk_of_a_stream(books):
    chunks = list(books.model("a b c d e").stream(EASY))
    assert [STAMP in chunk.response_metadata for chunk in chunks].count(True) == 1
    assert cost_of(whole(chunks)).cost_pico == books.ledger.total().cost_pico


def test_cost_of_a_reply_is_what_the_ledger_says(books):
    bill = cost_of(books.model("yes").invoke(EASY))
    total = books.ledger.total()
    assert (bill.cost_pico, bill.baseline_pico, bill.steps) == (total.cost_pico, total.baseline_pico, 1)
    assert "1 step, 1 cheap" in str(bill)


def test_a_stamp_in_the_history_holds_the_turn_on_its_tier(books):
    model = books.model(strong=called("search", query="boots")).bind_tools([search])
    first = model.invoke(EASY, HARD)
    second = model.invoke([HumanMessage(EASY), first, ToolMessage("none", tool_call_id="call_1")])
    assert decision_of(second)["tier"] == "strong"


def test_a_new_human_turn_is_free_again(books):
    model = books.model(strong="Done.")
    first = model.invoke(EASY, HARD)
    assert decision_of(model.invoke([HumanMessage(EASY), first, HumanMessage(EASY)]))["tier"] == "cheap"


def test_a_forged_cheap_stamp_lowers_nothing(books):
    model = books.model(strong=called("search", query="boots")).bind_tools([search])
    first = model.invoke(EASY, HARD)
    forged = AIMessage("ok", response_metadata={STAMP: {**decision_of(first), "tier": "cheap", "rank": 0, "codes": []}})
    history = [HumanMessage(EASY), first, ToolMessage("none", tool_call_id="call_1"), forged, ToolMessage("x", tool_call_id="call_1")]
    assert decision_of(model.invoke(history))["tier"] == "strong"
    assert decision_of(model.invoke([HumanMessage(EASY), forged], HARD))["tier"] == "strong"


# ---- what comes along ---------------------------------------------------------------------------------------------------


def test_labels_come_from_metadata_and_tags(books):
    books.model().invoke(EASY, {"metadata": {"tenant": "acme", "secret": "x"}, "tags": ["team:care", "colour:red"]})
    assert dict(books.entries[0].labels) == {"tenant": "acme", "team": "care"}
    assert books.leaves[0].attributes["routed_agents.label.tenant"] == "acme"


def test_labels_come_from_the_runs_context(books):
    class Context(BaseModel):
        tenant: str

    model = books.model()
    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node("say", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "say")
    builder.compile().invoke({"messages": MESSAGES}, context=Context(tenant="acme"))
    assert dict(books.entries[0].labels) == {"tenant": "acme"}


def test_a_tier_can_be_forced_for_one_run(books):
    reply = books.model().invoke(EASY, {"metadata": {"routed_agents": {"tier": "strong"}}})
    assert (decision_of(reply)["tier"], decision_of(reply)["codes"]) == ("strong", ["forced_tier"])


def test_a_forced_cheap_tier_yields_to_a_floor(books):
    reply = books.model().invoke(EASY, {"metadata": {"routed_agents": {"tier": "cheap"}, "task_class": "agentic_chain"}})
    assert decision_of(reply)["tier"] == "strong"


def test_a_class_declared_at_a_node_holds_for_that_nodes_calls(books):
    model = books.model()
    builder = StateGraph(MessagesState)
    builder.add_node("plan", lambda state: {"messages": [model.invoke(state["messages"])]}, metadata={"task_class": "agentic_chain"})
    builder.add_node("label", lambda state: {"messages": [model.invoke(EASY)]}, metadata={"task_class": "classification"})
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "label")
    builder.compile().invoke({"messages": MESSAGES})
    found = [(entry.node, entry.task_class, entry.tier) for entry in books.entries]
    assert found == [("plan", "agentic_chain", "strong"), ("label", "classification", "cheap")]


# ---- escalation ---------------------------------------------------------------------------------------------------------

POOR = {
    "refusal": AIMessage("I can't help with that.", response_metadata={"stop_reason": "refusal"}),
    "truncated": AIMessage("It is po", response_metadata={"stop_reason": "max_tokens"}),
    "empty": AIMessage(""),
    "unknown_tool": called("delete_everything"),
}


@pytest.mark.parametrize("code", POOR)
def test_a_poor_reply_is_asked_again_one_tier_up_and_both_attempts_are_paid(code, books):
    reply = books.model(POOR[code], "It is positive.").bind_tools([search]).invoke(EASY)
    first, second = books.entries
    assert (reply.text, books.story) == ("It is positive.", [("cheap", "rejected"), ("strong", "accepted")])
    assert f"check:{code}" in first.codes
    assert second.escalated_from == "cheap"
    assert cost_of(reply).cost_pico == first.cost.total_pico + second.cost.total_pico == books.ledger.total().cost_pico


def test_a_structured_reply_that_breaks_its_schema_is_asked_again(books):
    found = books.model(called(colour="red"), called(mood="calm")).with_structured_output(Mood.model_json_schema()).invoke(EASY)
    assert (found, books.story) == ({"mood": "calm"}, [("cheap", "rejected"), ("strong", "accepted")])


def test_a_poor_reply_of_the_top_tier_is_given_as_it_is(books):
    reply = books.model("x", POOR["refusal"]).invoke(EASY, HARD)
    assert (reply.text, books.story) == ("I can't help with that.", [("strong", "accepted")])


@pytest.mark.parametrize("kind", ["refusal", "max_tokens", "empty_reply"])
def test_real_providers_poor_replies_are_asked_again(kind, books, real, provider):
    provider.faults.add(Fault(kind, model=HAIKU))
    RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router).invoke(EASY)
    assert books.story == [("cheap", "rejected"), ("strong", "accepted")]


# ---- failover -----------------------------------------------------------------------------------------------------------


def test_a_dead_cheap_tier_goes_up(books, real, provider):
    provider.faults.add(Fault("overloaded", model=HAIKU, times=9))
    reply = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router).invoke(EASY)
    assert (decision_of(reply)["model"], books.story) == (OPUS, [("cheap", "failed"), ("strong", "accepted")])
    assert books.entries[0].cost.total_pico == 0


def test_a_dead_strong_tier_raises_the_providers_own_error_with_a_note(books, real, provider):
    provider.faults.add(Fault("overloaded", model=OPUS, times=9))
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router)
    with pytest.raises(anthropic.APIStatusError) as caught:
        model.invoke(EASY, HARD)
    assert caught.value.status_code == 529
    assert "must not go below tier strong (agentic chain)" in caught.value.__notes__[-1]
    assert {served.model for served in provider.requests} == {OPUS}


async def test_a_dead_strong_tier_is_never_answered_by_the_cheap_one_in_streams_either(books, real, provider):
    provider.faults.add(Fault("overloaded", model=OPUS, times=9))
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router)
    with pytest.raises(anthropic.APIStatusError):
        await gathered(model.astream(EASY, HARD))
    with pytest.raises(anthropic.APIStatusError):
        list(model.stream(EASY, HARD))
    assert {served.model for served in provider.requests} == {OPUS}


def test_a_second_deployment_of_the_rank_is_tried_before_a_higher_one(books, provider):
    two = [Deployment.parse(f"anthropic:{HAIKU}", name="east"), Deployment.parse(f"anthropic:{HAIKU}", name="west")]
    policy = Policy.default(tiers=Tiers.of({"cheap": two, "strong": f"anthropic:{OPUS}"}))
    provider.faults.add(Fault("rate_limit", model=HAIKU))
    RoutedChatModel(router=books.router.replace(policy=policy), options={"max_tokens": 64, "max_retries": 0}).invoke(EASY)
    assert [(entry.deployment, entry.outcome) for entry in books.entries] == [("east", "failed"), ("west", "accepted")]


def test_a_bug_in_a_model_is_not_failed_over(books):
    with pytest.raises(ZeroDivisionError):
        books.model(ZeroDivisionError("a bug")).invoke(EASY)
    assert books.story == [("cheap", "failed")]


class ToBrowser(BaseCallbackHandler):
    """Passes words on to somebody who is gone."""

    raise_error = True

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise BrokenPipeError("the browser went away")


def test_a_reader_who_hangs_up_is_not_failed_over_and_blamed_on_nobody(books):
    model = books.model("one two three", "fine")
    for _ in range(3):
        with pytest.raises(BrokenPipeError):
            list(model.stream(EASY, {"callbacks": [ToBrowser()]}))
    assert (books.story, books.router.health.resting()) == ([("cheap", "failed")] * 3, frozenset())
    assert [entry.usage.source for entry in books.entries] == ["estimated"] * 3


# ---- streams ------------------------------------------------------------------------------------------------------------


def breaking(after: int, **more: Any) -> ScriptedChatModel:
    return ScriptedChatModel(model_name=HAIKU, replies="one two three", break_after=after, broken_by=ModelTimeoutError("gone"), **more)


def test_a_stream_that_fails_before_its_first_word_goes_up(books):
    assert whole(list(books.model(breaking(0), "fine").stream(EASY))).text == "fine"
    assert books.story == [("cheap", "failed"), ("strong", "accepted")]


def test_a_stream_that_fails_after_its_first_word_fails(books):
    stream = books.model(breaking(2), "fine").stream(EASY)
    with pytest.raises(ModelTimeoutError):
        list(stream)
    [entry] = books.entries
    assert (entry.outcome, entry.error, entry.usage.source, entry.usage.output > 0) == ("failed", "timeout", "estimated", True)


async def test_an_async_stream_fails_over_by_the_same_rule(books):
    assert whole(await gathered(books.model(breaking(0), "fine").astream(EASY))).text == "fine"
    with pytest.raises(ModelTimeoutError):
        await gathered(books.model(breaking(1), "fine").astream(EASY))
    assert books.story == [("cheap", "failed"), ("strong", "accepted"), ("cheap", "failed")]


def test_an_abandoned_stream_is_booked_with_its_usage_estimated(books):
    stream = books.model("one two three").stream(EASY)
    next(stream)
    stream.close()
    [entry] = books.entries
    assert (entry.outcome, entry.usage.source, entry.usage.prompt > 0, entry.usage.output > 0) == ("abandoned", "estimated", True, True)
    assert len(books.leaves) == len(books.routes) == 1


async def test_an_abandoned_async_stream_is_booked_with_its_usage_estimated(books):
    stream = books.model("one two three").astream(EASY)
    await anext(stream)
    await stream.aclose()
    [entry] = books.entries
    assert (entry.outcome, entry.usage.source, entry.usage.prompt > 0, entry.usage.output > 0) == ("abandoned", "estimated", True, True)


async def test_a_cancelled_call_is_booked_with_its_usage_estimated(books):
    task = asyncio.create_task(books.model(ScriptedChatModel(model_name=HAIKU, delay_s=30)).ainvoke(EASY))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [entry] = books.entries
    assert (entry.outcome, entry.usage.source, entry.usage.prompt > 0) == ("abandoned", "estimated", True)


def test_a_real_stream_broken_off_by_its_reader_is_booked(books, real):
    stream = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router).stream("Write two sentences about boots.")
    next(stream)
    stream.close()
    [entry] = books.entries
    assert (entry.outcome, entry.usage.prompt > 0, entry.cost.total_pico > 0) == ("abandoned", True, True)


def test_a_buffered_stream_hides_the_rejected_draft(books):
    chunks = list(books.model(POOR["truncated"], "It is positive.", buffer=True).stream(EASY))
    assert whole(chunks).text == "It is positive."
    assert books.story == [("cheap", "rejected"), ("strong", "accepted")]


async def test_a_buffered_async_stream_hides_the_rejected_draft(books):
    chunks = await gathered(books.model(POOR["truncated"], "It is positive.", buffer=True).astream(EASY))
    assert whole(chunks).text == "It is positive."


def test_an_open_stream_gives_what_it_has_and_is_not_asked_twice(books):
    assert whole(list(books.model(POOR["truncated"], "It is positive.").stream(EASY))).text == "It is po"
    assert books.story == [("cheap", "accepted")]


# ---- who really answered ------------------------------------------------------------------------------------------------


def swapped(**more: Any) -> ScriptedChatModel:
    """A strong model behind which somebody else answers."""
    return ScriptedChatModel(model_name=OPUS, replies=AIMessage("ok then", response_metadata={"model_name": HAIKU}), **more)


def test_a_floored_step_answered_by_a_lower_model_is_stopped_priced_and_alarmed(books):
    with pytest.raises(StepStopped, match="served model below floor"):
        books.model(strong=swapped()).invoke(EASY, HARD)
    [entry] = books.entries
    cheap = books.router.prices.card(HAIKU, provider="anthropic").cost(entry.usage)
    assert (entry.outcome, entry.served_model, entry.cost.total_pico) == ("rejected", HAIKU, cheap.total_pico)
    assert (entry.codes[-1], books.counted("routed_agents.alarms")) == ("check:served_model_below_floor", 1)


@pytest.mark.parametrize("way", ["invoke", "stream", "structured"])
def test_an_inner_fallback_to_the_cheap_model_is_found_out(way, books, real, provider):
    provider.faults.add(Fault("overloaded", model=OPUS, times=9))
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS).with_fallbacks([real(HAIKU)]), router=books.router)
    ways: dict[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke(EASY, HARD),
        "stream": lambda: seen.extend(model.stream(EASY, HARD)),
        "structured": lambda: model.with_structured_output(Mood).invoke(EASY, HARD),
    }
    seen: list[Any] = []
    with pytest.raises(StepStopped):
        ways[way]()
    assert (seen, books.entries[-1].outcome, books.entries[-1].served_model) == ([], "rejected", HAIKU)


def test_a_stream_that_names_its_model_late_is_alarmed_though_words_were_seen(books):
    stream = books.model(strong=swapped()).stream(EASY, HARD)
    with pytest.raises(StepStopped):
        list(stream)
    assert books.counted("routed_agents.alarms") == 1


def test_a_free_step_may_be_answered_by_whom_the_gateway_likes(books):
    cheap = ScriptedChatModel(model_name=HAIKU, replies=AIMessage("ok", response_metadata={"model_name": "somebody-else"}))
    books.model(cheap).invoke(EASY)
    [entry] = books.entries
    assert (entry.outcome, entry.served_model, entry.cost) == ("accepted", "somebody-else", None)


# ---- modes and our own trouble ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_shadow_and_off_act_on_the_strong_tier(mode):
    books = Books(Policy.default(mode=mode))
    reply = books.model().invoke(EASY)
    [entry] = books.entries
    assert (reply.text, entry.tier, entry.decided_tier, entry.mode) == ("no", "strong", "cheap", mode)


class Broken:
    """A ledger, price list or provider of tracers that does nothing but fail."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"{name}: disk full")


class BrokenLedger(Ledger):
    def append(self, entry: Any) -> None:
        raise OSError("disk full")


class BrokenPrices(Prices):
    def card(self, *args: Any, **kwargs: Any) -> Any:
        raise OSError("no such table")


class BrokenTracers(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return Broken()


@pytest.mark.parametrize("way", SYNC)
@pytest.mark.parametrize("part", ["ledger", "prices", "telemetry", "store"])
def test_our_own_trouble_never_breaks_the_call(part, way, caplog):
    caplog.set_level(logging.CRITICAL, logger="routed_agents")
    parts: dict[str, Any] = {
        "ledger": BrokenLedger(None),
        "prices": BrokenPrices(),
        "telemetry": Telemetry(tracer_provider=BrokenTracers(shutdown_on_exit=False)),
        "store": Broken(),
    }
    router = Router(**{part: parts[part]})
    model = RoutedChatModel(cheap=scripted(HAIKU, "yes"), strong=scripted(OPUS, "no"), router=router)
    assert SYNC[way](model).text == "yes"


def test_a_call_without_a_known_price_is_unpriced_and_goes_through(books):
    model = RoutedChatModel(cheap=scripted("house-model-1", "yes"), strong=scripted("house-model-2", "no"), router=books.router)
    assert decision_of(model.invoke(EASY))["cost_pico"] is None
    assert (books.entries[0].cost, books.counted("routed_agents.unpriced")) == (None, 1)


# ---- among other runnables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["invoke", "stream", "generate"])
def test_a_trace_shows_one_model_run_under_the_real_models_name(way, books):
    listener, model = Listener(), books.model()
    if way == "invoke":
        model.invoke(EASY, {"callbacks": [listener]})
    elif way == "stream":
        list(model.stream(EASY, {"callbacks": [listener]}))
    else:
        model.generate([MESSAGES], callbacks=[listener])
    assert [(run["ls_model_name"], listener.ended, listener.failed) for run in listener.started] == [(HAIKU, 1, 0)]


def test_an_escalated_call_shows_a_run_for_each_model_that_was_asked(books):
    listener = Listener()
    books.model(POOR["empty"], "fine").invoke(EASY, {"callbacks": [listener]})
    assert [run["ls_model_name"] for run in listener.started] == [HAIKU, OPUS]


def test_with_retry_tries_again_what_is_no_provider_trouble(books):
    model = books.model([ValueError("flaky"), "yes"]).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert model.invoke(EASY).text == "yes"
    assert books.story == [("cheap", "failed"), ("cheap", "accepted")]


def test_with_fallbacks_takes_over_when_routing_has_nothing_left(books):
    model = books.model(ModelTimeoutError(), ModelTimeoutError()).with_fallbacks([ScriptedChatModel(replies="from elsewhere")])
    assert model.invoke(EASY).text == "from elsewhere"
    assert books.story == [("cheap", "failed"), ("strong", "failed")]


def test_with_fallbacks_binds_tools_on_both(books):
    model = books.model(called("search", query="x")).with_fallbacks([ScriptedChatModel()]).bind_tools([search])
    assert model.invoke(EASY).tool_calls[0]["name"] == "search"


def test_with_config_brings_labels_along(books):
    books.model().with_config(metadata={"tenant": "acme"}).invoke(EASY)
    assert dict(books.entries[0].labels) == {"tenant": "acme"}


def test_bound_stop_words_reach_the_model(books):
    cheap = scripted(HAIKU, "yes")
    model = books.model(cheap)
    model.bind(stop=["END"]).invoke(EASY)
    list(model.bind(stop=["END"]).stream(EASY))
    assert [asked.options["stop"] for asked in cheap.calls] == [["END"], ["END"]]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: model.model_copy(), lambda model: model.model_copy(deep=True)])
def test_a_copy_of_a_used_model_works_and_writes_in_the_same_books(copied, books):
    model = books.model()
    model.invoke(EASY)
    assert copied(model).invoke(EASY).text == "yes"
    assert books.story == [("cheap", "accepted")] * 2


def test_a_stream_of_chunks_stays_a_stream_of_message_chunks(books):
    assert all(isinstance(chunk, AIMessageChunk) for chunk in books.model("a b c").stream(EASY))


def test_naming_only_a_cheap_model_keeps_the_routers_strong_tier():
    model = RoutedChatModel(router=Router(Policy.default(tiers="embedded")), cheap=ScriptedChatModel(replies="fine", model_name=HAIKU))
    assert (model.router.policy.tiers.names, model.router.policy.tiers[1].model) == (("cheap", "strong"), OPUS)


@pytest.mark.parametrize("served", ["us.anthropic.claude-haiku-5-5-v1:0", "anthropic/claude-haiku-5.5", "claude-haiku-4-5"])
def test_a_lower_model_is_found_out_whatever_it_calls_itself(served):
    router = Router(Policy.default(tiers="embedded"), telemetry=Telemetry.off())
    reply = {"role": "assistant", "type": "message", "content": "fine", "model": served, "usage": {"input_tokens": 5, "output_tokens": 1}}

    def ask():
        with router.step(Step.from_messages("Dear all", task_class="empathy_escalation")) as call:
            for attempt in call.attempts():
                with attempt:
                    attempt.record(reply)

    with pytest.raises(StepStopped, match="served model below floor"):
        ask()


class Counting(ScriptedChatModel):
    """A model with a tokenizer of its own."""

    def get_token_ids(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


def test_tokens_of_a_text_are_counted_by_the_strong_tiers_model() -> None:
    model = RoutedChatModel(cheap=scripted(HAIKU, "no"), strong=Counting(model_name=OPUS, replies=[AIMessage("no")]))

    assert (model.get_token_ids("a bc"), model.get_num_tokens("a bc")) == ([1, 2], 2)


@pytest.mark.parametrize("keep", [pickle.dumps, RoutedChatModel.model_dump_json], ids=["pickle", "json"])
def test_what_cannot_be_kept_says_what_to_do(books: Books, keep: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"^a RoutedChatModel cannot be .*make it anew$"):
        keep(books.model())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tiers": "claude"}, "tiers='claude'; wanted a valid dictionary"),
        ({"prompt_cache": "2h"}, "prompt_cache='2h'; wanted '5m' or '1h'"),
        ({"task_class": 5}, "task_class=5; wanted a valid string"),
        ({"buffer": "x"}, "buffer='x'; wanted a valid boolean"),
        ({"cheap": "", "strong": f"anthropic:{OPUS}"}, 'tier "cheap" was given an empty string; wanted a chat model'),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigurationError, PolicyError), match=said) as wrong:
        RoutedChatModel(**given)
    assert "\n" not in str(wrong.value)
