"""LangChain's own agents run on a routed model as they do on the bare model of the tier that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.types import Command
from pydantic import BaseModel

from routed_agents import RoutedChatModel, decision_of

from .conftest import HAIKU, OPUS, Books, scripted

BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
MODELS = {"cheap": HAIKU, "strong": OPUS}
CLASSES = {"cheap": "classification", "strong": "agentic_chain"}
LOOK = "Search the shop for boots"
FEEL = "Classify the mood: I am so happy with these boots!"
LONG = "The boots came on Monday and they fit well. " * 40
THREAD: Any = {"configurable": {"thread_id": "t"}}


@tool
def search(query: str) -> str:
    """Search the shop."""
    get_stream_writer()({"looking_for": query})
    return f"{query}: 2 in stock"


class Mood(BaseModel):
    """How somebody feels."""

    mood: Literal["positive", "negative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The same agent twice: on a routed model and on the bare model of the tier that answers."""

    routed: Any
    bare: Any
    tier: str
    books: Books

    def both(self, run: Callable[[Any], Any], **options: Any) -> tuple[Any, Any]:
        """What a run of each gives; options that are functions are given the model."""
        return tuple(run(agent_on(model, options)) for model in (self.routed, self.bare))

    async def both_async(self, run: Callable[[Any], Any], **options: Any) -> tuple[Any, Any]:
        return tuple([await run(agent_on(model, options)) for model in (self.routed, self.bare)])

    @property
    def all_routed(self) -> bool:
        """Every call of the routed agent was made on this tier, and there was one."""
        return set(self.books.story) == {(self.tier, "accepted")}


def agent_on(model: Any, options: dict[str, Any]) -> Any:
    made = {name: option(model) if callable(option) and not isinstance(option, type) else option for name, option in options.items()}
    return create_agent(model, **{"tools": [search], **made})


@pytest.fixture(params=["cheap", "strong"])
def sides(request: pytest.FixtureRequest, books: Books, real: Callable[..., Any]) -> Sides:
    tier = request.param
    routed = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router, task_class=CLASSES[tier])
    return Sides(routed=routed, bare=real(MODELS[tier]), tier=tier, books=books)


def asked(text: str = LOOK) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def told(messages: Sequence[BaseMessage]) -> list[tuple[Any, ...]]:
    """All that messages say, but for their ids and the decision."""
    return [
        (message.type, message.text, getattr(message, "status", None), [(call["name"], call["args"]) for call in calls(message)])
        for message in messages
    ]


def calls(message: BaseMessage) -> Sequence[Any]:
    return message.tool_calls if isinstance(message, AIMessage) else ()


def kinds(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.type for message in messages]


# ---- tools and structure ------------------------------------------------------------------------------------------------


def test_a_tool_loop_takes_the_same_course(sides):
    routed, bare = sides.both(lambda agent: agent.invoke(asked())["messages"])
    assert told(routed) == told(bare)
    assert (kinds(routed), sides.all_routed) == (["human", "ai", "tool", "ai"], True)


async def test_an_async_tool_loop_takes_the_same_course(sides):
    routed, bare = await sides.both_async(lambda agent: agent.ainvoke(asked()))
    assert told(routed["messages"]) == told(bare["messages"])
    assert (len(routed["messages"]), sides.all_routed) == (4, True)


def test_only_the_stamp_is_added_to_what_a_reply_says_of_itself(sides):
    routed, bare = sides.both(lambda agent: agent.invoke(asked())["messages"][-1])
    added = set(routed.response_metadata) - set(bare.response_metadata)
    assert (added, decision_of(routed)["tier"], routed.usage_metadata) == ({"routed_agents"}, sides.tier, bare.usage_metadata)
    assert routed.response_metadata["model_name"] == bare.response_metadata["model_name"] == MODELS[sides.tier]


def test_a_system_prompt_reaches_the_provider_alike(sides, provider):
    sides.both(lambda agent: agent.invoke(asked()), system_prompt="You sell boots.")
    half = len(provider.requests) // 2
    routed, bare = ([served.body["system"] for served in part] for part in (provider.requests[:half], provider.requests[half:]))
    assert routed == bare != []


STRATEGIES = {"auto": Mood, "provider": ProviderStrategy(Mood), "tool": ToolStrategy(Mood)}
WAYS = [("cheap", "auto"), ("cheap", "tool"), ("strong", "auto"), ("strong", "tool"), ("strong", "provider")]
"""Haiku has no way of its own to answer in a schema."""


@pytest.mark.parametrize("tools", [[], [search]], ids=["alone", "with tools"])
@pytest.mark.parametrize(("sides", "wanted"), WAYS, indirect=["sides"])
def test_a_structured_answer_comes_in_whichever_way_is_asked_for(wanted, tools, sides):
    agent = create_agent(sides.routed, tools, response_format=STRATEGIES[wanted])
    result = agent.invoke(asked(FEEL))
    assert (result["structured_response"], sides.all_routed) == (Mood(mood="positive"), True)


@pytest.mark.parametrize(("sides", "wanted"), [("cheap", "auto"), ("cheap", "tool"), ("strong", "provider")], indirect=["sides"])
def test_a_structured_answer_takes_the_bare_models_course(wanted, sides):
    """Only where a bare model has one: a bare Opus is sent a forced tool choice by the tool's way, and refuses it."""
    routed, bare = sides.both(lambda agent: agent.invoke(asked(FEEL)), tools=[], response_format=STRATEGIES[wanted])
    assert told(routed["messages"]) == told(bare["messages"])
    assert routed["structured_response"] == bare["structured_response"]


def test_the_providers_way_works_on_a_cheap_tier_that_has_it(books, real, provider):
    model = RoutedChatModel(cheap=real("gpt-6-luna"), strong=real(OPUS), router=books.router, task_class="classification")
    results = [create_agent(each, [], response_format=ProviderStrategy(Mood)).invoke(asked(FEEL)) for each in (model, real("gpt-6-luna"))]
    assert [result["structured_response"] for result in results] == [Mood(mood="positive")] * 2
    assert told(results[0]["messages"]) == told(results[1]["messages"])
    assert books.story == [("cheap", "accepted")]


def test_the_providers_way_goes_to_the_tier_that_has_it(books, real):
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router, task_class="classification")
    result = create_agent(model, [], response_format=ProviderStrategy(Mood)).invoke(asked(FEEL))
    assert (result["structured_response"], books.story) == (Mood(mood="positive"), [("strong", "accepted")])


def test_auto_takes_the_providers_way_only_where_every_tier_has_it(books, real, provider):
    for names in ((HAIKU, OPUS), ("gpt-6-luna", OPUS)):
        model = RoutedChatModel(cheap=real(names[0]), strong=real(names[1]), router=books.router, task_class="agentic_chain")
        create_agent(model, [], response_format=Mood).invoke(asked(FEEL))
    ways = ["provider" if "output_config" in served.body else "tool" for served in provider.requests]
    assert ways == ["tool", "provider"]


# ---- LangChain's own middleware -----------------------------------------------------------------------------------------


def summaries(model: Any, **options: Any) -> list[Any]:
    return [SummarizationMiddleware(model, **{"trigger": ("messages", 4), "keep": ("messages", 1), **options})]


def long_talk(agent: Any) -> dict[str, Any]:
    turns = [HumanMessage(LONG), AIMessage("I see."), HumanMessage(LONG), AIMessage("I see."), HumanMessage(LOOK)]
    return agent.invoke({"messages": turns})


def test_summarization_summarises_alike(sides):
    routed, bare = sides.both(long_talk, middleware=summaries)
    assert told(routed["messages"]) == told(bare["messages"])
    assert ("summary" in routed["messages"][0].text, sides.all_routed) == (True, True)


def test_summarization_by_reported_tokens_knows_whose_they_are(sides):
    def talk(agent: Any) -> Any:
        agent.invoke(asked(LONG), THREAD)
        return agent.invoke(asked(LONG), THREAD)["messages"]

    options = {"trigger": ("tokens", 700), "keep": ("messages", 1)}
    routed, bare = sides.both(talk, middleware=lambda model: summaries(model, **options), checkpointer=lambda model: InMemorySaver())
    assert told(routed) == told(bare)


def test_summarization_by_a_share_of_the_window_works(sides):
    routed, bare = sides.both(long_talk, middleware=lambda model: summaries(model, trigger=("fraction", 0.0005), keep=("fraction", 0.0002)))
    assert told(routed["messages"]) == told(bare["messages"])


def test_a_limit_of_model_calls_ends_the_run_at_the_same_call(sides):
    limit = ModelCallLimitMiddleware(run_limit=1)
    routed, bare = sides.both(lambda agent: agent.invoke(asked())["messages"], middleware=[limit])
    assert told(routed) == told(bare)
    assert ("limit" in routed[-1].text, len(sides.books.entries)) == (True, 1)


def test_a_limit_of_tool_calls_holds_in_the_next_run_alike(sides):
    def twice(agent: Any) -> Any:
        agent.invoke(asked(), THREAD)
        return agent.invoke(asked("Search the shop for scarves"), THREAD)["messages"]

    limit = ToolCallLimitMiddleware(thread_limit=1)
    routed, bare = sides.both(twice, middleware=[limit], checkpointer=lambda model: InMemorySaver())
    assert told(routed) == told(bare)
    assert [message.status for message in routed if message.type == "tool"] == ["success", "error"]


def test_a_model_call_limit_over_a_thread_holds_in_the_next_run(sides):
    def twice(agent: Any) -> Any:
        agent.invoke(asked(), THREAD)
        return agent.invoke(asked(), THREAD)["messages"]

    limit = ModelCallLimitMiddleware(thread_limit=3)
    routed, bare = sides.both(twice, middleware=[limit], checkpointer=lambda model: InMemorySaver())
    assert told(routed) == told(bare)
    assert "limit" in routed[-1].text


@pytest.mark.parametrize(
    "decision",
    [
        {"type": "approve"},
        {"type": "edit", "edited_action": {"name": "search", "args": {"query": "scarves"}}},
        {"type": "reject", "message": "Not today."},
    ],
    ids=lambda decision: decision["type"],
)
def test_a_person_is_asked_and_answered_alike(decision, sides):
    def ask_and_answer(agent: Any) -> Any:
        stopped = agent.invoke(asked(), THREAD)
        request = stopped["__interrupt__"][0].value
        return request, agent.invoke(Command(resume={"decisions": [decision]}), THREAD)["messages"]

    middleware = [HumanInTheLoopMiddleware(interrupt_on={"search": True})]
    routed, bare = sides.both(ask_and_answer, middleware=middleware, checkpointer=lambda model: InMemorySaver())
    assert (routed[0], told(routed[1])) == (bare[0], told(bare[1]))
    assert sides.all_routed


@pytest.mark.parametrize("strategy", ["redact", "mask", "hash"])
def test_pii_is_kept_from_the_provider_alike(strategy, sides, provider):
    text = "Write to jo@example.com about boots"
    routed, bare = sides.both(
        lambda agent: agent.invoke(asked(text))["messages"], tools=[], middleware=[PIIMiddleware("email", strategy=strategy)]
    )
    assert told(routed) == told(bare)
    assert not any("jo@example.com" in str(served.body) for served in provider.requests)


def writes_todos_first(messages: Sequence[BaseMessage]) -> AIMessage:
    """Writes its list, then answers."""
    todos = [{"content": "Find boots", "status": "in_progress"}, {"content": "Pay", "status": "pending"}]
    call = {"name": "write_todos", "args": {"todos": todos}, "id": "c1"}
    return AIMessage("Done.") if messages[-1].type == "tool" else AIMessage("", tool_calls=[call])


@pytest.mark.parametrize("tier", MODELS)
def test_a_todo_list_is_kept_alike(tier, books):
    bare = scripted(MODELS[tier], writes_todos_first)
    routed = books.model(**{tier: scripted(MODELS[tier], writes_todos_first)}, task_class=CLASSES[tier])
    results = [create_agent(model, [search], middleware=[TodoListMiddleware()]).invoke(asked()) for model in (routed, bare)]
    assert told(results[0]["messages"]) == told(results[1]["messages"])
    assert [len(result["todos"]) for result in results] == [2, 2]
    assert books.story == [(tier, "accepted")] * 2


# ---- streaming ----------------------------------------------------------------------------------------------------------


def shape_of(mode: str, part: Any) -> Any:
    """What a streamed part says, but for ids, the decision and what a token carries with it."""
    if mode == "values":
        return told(part["messages"])
    if mode == "updates":
        return {node: told((update or {}).get("messages", [])) for node, update in part.items()}
    if mode == "messages":
        message, metadata = part
        return (
            type(message).__name__,
            message.text,
            metadata["langgraph_node"],
            metadata["ls_model_name"] if message.type != "tool" else "",
        )
    return part


MODES = ["values", "updates", "messages", "custom"]


@pytest.mark.parametrize("mode", MODES)
def test_a_streaming_mode_gives_the_same_parts(mode, sides):
    routed, bare = sides.both(lambda agent: [shape_of(mode, part) for part in agent.stream(asked(), stream_mode=mode)])
    assert routed == bare != []
    assert sides.all_routed


async def test_all_streaming_modes_together_give_the_same_parts_in_async(sides):
    async def parts(agent: Any) -> Any:
        return [(mode, shape_of(mode, part)) async for mode, part in agent.astream(asked(), stream_mode=MODES)]

    routed, bare = await sides.both_async(parts)
    assert routed == bare
    assert {mode for mode, _ in routed} == set(MODES)


async def test_v2_events_are_the_same(sides):
    async def events(agent: Any) -> Any:
        return [(event["event"], event["name"]) async for event in agent.astream_events(asked(), version="v2")]

    routed, bare = await sides.both_async(events)
    assert routed == bare


def v3_shape(event: Any) -> Any:
    """Which channel a v3 event is on, and of what kind it is there."""
    data = event["params"]["data"]
    kind = data[0] if event["method"] == "messages" and isinstance(data, tuple) else data
    return (event["method"], len(event["params"]["namespace"]), kind.get("event") if isinstance(kind, dict) else None)


@BETA
def test_v3_events_are_the_same(sides):
    routed, bare = sides.both(lambda agent: [v3_shape(event) for event in agent.stream_events(asked(), version="v3")])
    assert routed == bare
    assert "message-finish" in {kind for _, _, kind in routed}


@BETA
async def test_async_v3_events_are_the_same(sides):
    async def events(agent: Any) -> Any:
        return [v3_shape(event) async for event in await agent.astream_events(asked(), version="v3")]

    routed, bare = await sides.both_async(events)
    assert routed == bare


@BETA
def test_a_v3_runs_messages_and_output_are_the_same(sides):
    def read(agent: Any) -> Any:
        run = agent.stream_events(asked(), version="v3")
        streamed = [(str(message.text), [call["args"] for call in message.tool_calls.get()]) for message in run.messages]
        return streamed, told(run.output["messages"])

    routed, bare = sides.both(read)
    assert routed == bare
    assert (len(routed[0]), sides.all_routed) == (2, True)
