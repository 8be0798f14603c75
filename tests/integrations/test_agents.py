"""`create_agent` with a router middleware: the agent's own model is the strong tier, and easy calls go to the cheap one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from routed_agents import Policy, RouterMiddleware, cost_of, decision_of, watch
from routed_agents.embedded import Fault
from routed_agents.errors import ConfigurationError, PolicyError, StateError
from routed_agents.telemetry import names
from routed_agents.testing import ScriptedChatModel

from .conftest import EASY, HAIKU, HARD, OPUS, Books, scripted


@tool
def search(query: str) -> str:
    """Search the shop."""
    return f"{query}: 2 in stock"


class Mood(BaseModel):
    """How somebody feels."""

    mood: str


LOOK = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "boots"}, "id": "c1"}])


def looks_first(messages: Sequence[BaseMessage]) -> AIMessage:
    """Calls a tool, then answers."""
    return AIMessage("2 in stock") if messages[-1].type == "tool" else LOOK


def agent_of(books: Books, cheap: Any = "cheap says", strong: Any = "strong says", tools: Any = (), **more: Any) -> Any:
    middleware = RouterMiddleware(books.router, cheap=scripted(HAIKU, cheap))
    return create_agent(scripted(OPUS, strong), list(tools), middleware=[middleware], **more)


def asked(text: str = EASY) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def tiers_of(result: Any) -> list[str]:
    return [decision_of(message)["tier"] for message in result["messages"] if message.type == "ai"]


@pytest.mark.parametrize(("config", "tier"), [({}, "cheap"), (HARD, "strong")])
def test_easy_calls_go_to_the_cheap_model_and_hard_ones_to_the_agents_own(config, tier, books):
    result = agent_of(books).invoke(asked(), config)
    assert (result["messages"][-1].text, tiers_of(result)) == (f"{tier} says", [tier])


@pytest.mark.parametrize(("config", "tier"), [({}, "cheap"), (HARD, "strong")])
async def test_async_agents_are_routed_alike(config, tier, books):
    result = await agent_of(books).ainvoke(asked(), config)
    assert (result["messages"][-1].text, tiers_of(result)) == (f"{tier} says", [tier])


def test_a_tool_loop_keeps_its_tier_within_the_turn_and_the_next_turn_is_free(books):
    agent = agent_of(books, cheap="cheap says", strong=looks_first, tools=[search], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    first = agent.invoke(asked("Plan a purchase of boots in several steps, using the tools, and carry it out."), config)
    second = agent.invoke(asked(), config)
    assert (tiers_of(first), tiers_of(second)) == (["strong", "strong"], ["strong", "strong", "cheap"])


def test_a_cheap_tool_loop_stays_cheap(books):
    result = agent_of(books, cheap=looks_first, tools=[search]).invoke(asked("Classify these boots as in stock or sold out"))
    assert tiers_of(result) == ["cheap", "cheap"]


def test_cost_of_a_result_is_what_the_ledger_says(books):
    result = agent_of(books, cheap=looks_first, tools=[search]).invoke(asked("Classify these boots as in stock or sold out"))
    bill, total = cost_of(result), books.ledger.total()
    assert (bill.cost_pico, bill.baseline_pico, bill.steps) == (total.cost_pico, total.baseline_pico, 2)
    assert "2 steps, 2 cheap" in str(bill)


def test_the_routing_channel_stays_out_of_the_result(books):
    assert set(agent_of(books).invoke(asked(), HARD)) == {"messages"}


@pytest.mark.parametrize(("config", "written"), [({}, False), (HARD, True)])
def test_a_step_writes_the_routing_channel_only_when_it_has_found_something(config, written, books):
    saver = InMemorySaver()
    config = {**config, "configurable": {"thread_id": "t"}}
    agent_of(books, checkpointer=saver).invoke(asked(), config)
    assert ("routing" in saver.get_tuple(config).checkpoint["channel_versions"]) is written


def test_a_tool_whose_arguments_change_is_held_to_the_new_ones(books):
    look = search.model_copy()
    agent, given = agent_of(books, cheap=looks_first, tools=[look]), asked("Classify these boots as in stock or sold out")
    before = agent.invoke(given)
    look.args_schema = Mood
    assert (tiers_of(before), tiers_of(agent.invoke(given))) == (["cheap", "cheap"], ["strong"])


def test_labels_come_from_metadata_and_from_the_context(books):
    class Context(BaseModel):
        team: str

    agent = agent_of(books, context_schema=Context)
    agent.invoke(asked(), {"metadata": {"tenant": "acme"}}, context=Context(team="care"))
    assert dict(books.entries[0].labels) == {"tenant": "acme", "team": "care"}


def test_a_tier_can_be_forced_for_one_run(books):
    assert tiers_of(agent_of(books).invoke(asked(), {"metadata": {"routed_agents": {"tier": "strong"}}})) == ["strong"]


def test_a_router_with_another_top_model_is_an_error_that_names_both(books):
    agent = create_agent(scripted("claude-opus-5", "x"), [], middleware=[RouterMiddleware(books.router)])
    with pytest.raises(ConfigurationError, match=f'own model is "claude-opus-5", but the router\'s top tier is "{OPUS}"'):
        agent.invoke(asked())


def test_without_a_router_the_agents_own_model_is_the_strong_tier():
    agent = create_agent(scripted(OPUS, "strong says"), [], middleware=[RouterMiddleware(cheap=scripted(HAIKU, "cheap says"))])
    assert [tiers_of(agent.invoke(asked(), config)) for config in ({}, HARD)] == [["cheap"], ["strong"]]


def test_strings_are_enough(provider):
    agent = create_agent(f"anthropic:{OPUS}", [], middleware=[RouterMiddleware(cheap=f"anthropic:{HAIKU}")])
    results = [agent.invoke(asked(), config) for config in ({}, HARD)]
    assert [tiers_of(result) for result in results] == [["cheap"], ["strong"]]
    assert [served.model for served in provider.requests] == [HAIKU, OPUS]


def test_the_cheap_sibling_is_known_for_a_known_provider(provider):
    create_agent(f"anthropic:{OPUS}", [], middleware=[RouterMiddleware()]).invoke(asked())
    assert [served.model for served in provider.requests] == [HAIKU]


def test_an_unknown_provider_has_to_name_its_cheap_model():
    agent = create_agent(ScriptedChatModel(model_name="house-model"), [], middleware=[RouterMiddleware()])
    with pytest.raises(ConfigurationError, match="no cheap model is known"):
        agent.invoke(asked())


@pytest.mark.parametrize("wanted", [Mood, ToolStrategy(Mood)], ids=["auto", "tool"])
@pytest.mark.parametrize(("config", "tier"), [({"metadata": {"task_class": "classification"}}, "cheap"), (HARD, "strong")])
def test_structured_answers_work_though_opus_refuses_a_forced_tool(config, tier, wanted, books, real):
    agent = create_agent(real(OPUS), [search], middleware=[RouterMiddleware(books.router, cheap=real(HAIKU))], response_format=wanted)
    result = agent.invoke(asked("Classify the mood: I am so happy with these boots!"), config)
    assert isinstance(result["structured_response"], Mood)
    assert set(books.story) == {(tier, "accepted")}


def test_a_structured_agent_with_tools_of_another_provider_works(books, real):
    policy = Policy.default(tiers="claude")
    router = books.router.replace(policy=policy)
    agent = create_agent(real(OPUS), [search], middleware=[RouterMiddleware(router, cheap=real("gpt-6-luna"))], response_format=Mood)
    result = agent.invoke(asked("Classify the mood: I am so happy with these boots!"))
    assert (isinstance(result["structured_response"], Mood), books.entries[0].model) == (True, "gpt-6-luna")


def test_a_poor_reply_is_asked_again_of_the_agents_own_model(books):
    result = agent_of(books, cheap="").invoke(asked())
    assert (result["messages"][-1].text, books.story) == ("strong says", [("cheap", "rejected"), ("strong", "accepted")])


def test_a_dead_cheap_model_goes_up(books, real, provider):
    provider.faults.add(Fault("overloaded", model=HAIKU, times=9))
    agent = create_agent(real(OPUS), [], middleware=[RouterMiddleware(books.router, cheap=real(HAIKU))])
    assert tiers_of(agent.invoke(asked())) == ["strong"]
    assert books.story == [("cheap", "failed"), ("strong", "accepted")]


def test_each_call_leaves_a_route_with_one_leaf(books):
    agent_of(books, cheap=looks_first, tools=[search]).invoke(asked("Classify these boots as in stock or sold out"))
    routes = {route.context.span_id for route in books.routes}
    assert (len(routes), {leaf.parent.span_id for leaf in books.leaves}) == (2, routes)
    assert {leaf.attributes[names.NODE] for leaf in books.leaves} == {"model"}


def test_an_agent_is_streamed_and_its_words_come_once(books):
    agent = agent_of(books, cheap="one two three")
    words = "".join(message.text for message, _ in agent.stream(asked(), stream_mode="messages") if message.type != "human")
    assert (words, books.story) == ("one two three", [("cheap", "accepted")])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt_cache": "2h"}, "prompt_cache is '2h'; wanted"),
        ({"cheap": ""}, 'tier "cheap" was given an empty string; wanted'),
        ({"cheap": 5}, 'tier "cheap" was given int; wanted'),
        ({"cheap": scripted(HAIKU, "yes").bind(stop=["x"])}, "wanted the chat model itself, or a string; give its settings"),
        ({"cheap": scripted(HAIKU, "yes").with_fallbacks([scripted(OPUS, "no")])}, "cheap is made of a chat model .RunnableWithFallbacks."),
        ({"cheap": scripted(HAIKU, "yes").configurable_fields(replies=ConfigurableField("said"))}, "cheap is made of a chat model"),
    ],
)
def test_a_wrong_argument_is_named_when_the_middleware_is_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigurationError, PolicyError), match=said):
        RouterMiddleware(**given)


@pytest.mark.parametrize(
    "made",
    [lambda own: own.bind(stop=["x"]), lambda own: own.with_config(tags=["a"]), lambda own: own.with_fallbacks([scripted(HAIKU, "other")])],
    ids=["bind", "with_config", "with_fallbacks"],
)
@pytest.mark.parametrize("tools", [[], [search]], ids=["plain", "tools"])
def test_what_is_made_of_the_agents_own_model_is_booked_once_in_a_watched_agent(made, tools, books):
    middleware = [RouterMiddleware(books.router, cheap=scripted(HAIKU, "yes"))]
    watch(create_agent(made(scripted(OPUS, "no")), tools, middleware=middleware), books.router).invoke(asked(), HARD)
    assert books.story == [("strong", "accepted")]


class Own(AgentState[Any]):
    routing: str


def test_a_state_key_of_ones_own_is_left_alone(books):
    result = agent_of(books, state_schema=Own).invoke({**asked(), "routing": "mine"}, HARD)
    assert (result["routing"], tiers_of(result)) == ("mine", ["strong"])


class Triage(AgentMiddleware[Any, Any, Any]):
    """A middleware with a state key of its own that is called as ours is."""

    state_schema = Own

    def __init__(self, written: Any) -> None:
        super().__init__()
        self.written = written

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"routing": self.written}


def with_triage(books: Books, written: Any, *, first: bool) -> Any:
    ours, theirs = RouterMiddleware(books.router, cheap=scripted(HAIKU, "yes")), Triage(written)
    return create_agent(scripted(OPUS, "no"), [], middleware=[ours, theirs] if first else [theirs, ours])


@pytest.mark.parametrize("written", ["sales", {"department": "sales"}])
def test_a_state_key_of_another_middlewares_own_is_left_alone_behind_ours(written, books):
    result = with_triage(books, written, first=True).invoke(asked())
    assert (result["routing"], tiers_of(result)) == (written, ["cheap"])


@pytest.mark.parametrize("written", ["sales", {"department": "sales"}])
def test_a_state_key_of_another_middlewares_own_before_ours_is_refused_in_one_line(written, books):
    with pytest.raises(StateError, match="list RouterMiddleware before the middleware that has such a key"):
        with_triage(books, written, first=False).invoke(asked())
