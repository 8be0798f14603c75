"""Middlewares inside the routed call make another request of it: that one is decided, and its tools are known."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware, dynamic_prompt, wrap_model_call
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.store.memory import InMemoryStore

from routed_agents import Policy, RouterMiddleware, StepStopped, decision_of
from routed_agents.guards import Verdict, named

from .conftest import EASY, HAIKU, OPUS, Books, Listener, scripted

DOCUMENTS = "The pump holds water. " * 15_000
"""Some 60,000 tokens."""
GO: dict[str, Any] = {"messages": [HumanMessage("Where is the pump's manual?")]}
SAD = HumanMessage("Reply to the customer: my mother died yesterday and I am desperate")


@tool
def base(x: int) -> str:
    """Base."""
    return "1"


@tool
def extra(y: int) -> str:
    """Extra."""
    return "extra result"


@dynamic_prompt
def documents(request: Any) -> str:
    return f"Answer from the documents:\n{DOCUMENTS}"


class Files(AgentMiddleware[Any, Any, Any]):
    """Puts files before the conversation."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(messages=[HumanMessage(DOCUMENTS), *request.messages]))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(messages=[HumanMessage(DOCUMENTS), *request.messages]))


class Dynamic(AgentMiddleware[Any, Any, Any]):
    """Registers a tool at run time."""

    def __init__(self, *, model: Any = None) -> None:
        super().__init__()
        self._model = {"model": model} if model is not None else {}

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[*request.tools, extra], **self._model))

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tool=extra) if request.tool_call["name"] == "extra" else request)


@wrap_model_call
def copied(request: Any, handler: Any) -> Any:
    return handler(request.override(model=request.model.model_copy(update={"tags": ["mine"]})))


@wrap_model_call
def short_then_long(request: Any, handler: Any) -> Any:
    handler(request)
    return handler(request.override(messages=[HumanMessage(DOCUMENTS), *request.messages]))


@wrap_model_call
def saddened(request: Any, handler: Any) -> Any:
    return handler(request.override(messages=[SAD]))


@wrap_model_call
def softened(request: Any, handler: Any) -> Any:
    return handler(request.override(messages=[HumanMessage(EASY)]))


def calls_extra(messages: Any) -> Any:
    called = AIMessage("", tool_calls=[{"name": "extra", "args": {"y": 1}, "id": "1"}])
    return "done" if isinstance(messages[-1], ToolMessage) else called


def agent_of(books: Books, *inner: Any, cheap: Any = "yes", strong: Any = "yes", tools: Any = (), last: bool = False, **more: Any) -> Any:
    ours = RouterMiddleware(books.router, cheap=scripted(HAIKU, cheap))
    middleware = [*inner, ours] if last else [ours, *inner]
    return create_agent(scripted(OPUS, strong), [*tools], middleware=middleware, **more)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("inner", [documents, Files()])
def test_what_is_put_into_the_request_is_decided_in_any_order(inner, last, books):
    agent_of(books, inner, last=last).invoke(GO)
    assert [(entry.tier, entry.attempt, entry.codes) for entry in books.entries] == [("strong", 1, ("long_context",))]


async def test_an_async_request_is_decided_alike(books):
    await agent_of(books, Files()).ainvoke(GO)
    assert books.story == [("strong", "accepted")]


@pytest.mark.parametrize("between", [copied, ModelRetryMiddleware(max_retries=3, initial_delay=0)])
def test_a_middleware_between_lets_the_decision_through(between, books):
    agent_of(books, documents, between).invoke(GO)
    assert books.story == [("strong", "accepted")]


def test_the_cheap_model_is_never_asked_and_nobody_hears_of_it(books):
    cheap, listener = scripted(HAIKU, "yes"), Listener()
    reply = agent_of(books, documents, cheap=cheap).invoke(GO, {"callbacks": [listener]})["messages"][-1]
    assert (cheap.calls, len(listener.started), listener.failed) == ([], 1, 0)
    assert {name: decision_of(reply)[name] for name in ("tier", "pin", "codes", "attempts")} == {
        "tier": "strong",
        "pin": "turn",
        "codes": ["long_context"],
        "attempts": 1,
    }


def test_the_route_span_tells_what_was_decided_in_the_end(books):
    agent_of(books, documents).invoke(GO)
    [route] = books.routes
    assert route.attributes["routed_agents.decision.tier"] == "strong"
    assert route.attributes["routed_agents.attempts"] == 1
    assert (len(books.leaves), route.events, route.status.is_ok or route.status.is_unset) == (1, (), True)


def test_a_call_made_before_the_step_went_up_is_booked(books):
    agent_of(books, short_then_long).invoke(GO)
    assert books.story == [("cheap", "abandoned"), ("strong", "abandoned"), ("strong", "accepted")]


def test_a_request_made_easier_stays_where_it_was(books):
    agent_of(books, softened).invoke({"messages": [SAD]})
    assert books.story == [("strong", "accepted")]


def test_a_request_that_nobody_changes_is_decided_once(books):
    seen: list[int] = []

    @named("counted", version="1")
    def counted(step: Any, /) -> Verdict | None:
        seen.append(1)
        return None

    books = Books(Policy.default().replace(guards=[counted]))
    agent_of(books, copied).invoke(GO)
    assert len(seen) == 1


def test_a_step_stops_where_what_is_sent_must_not_be(books):
    @named("stop_long", version="1")
    def stop_long(seen: Any, /) -> Verdict | None:
        return Verdict(guard="mine", code="too_long", stop=True) if seen.features.tokens > 50_000 else None

    cheap, books = scripted(HAIKU, "yes"), Books(Policy.default().replace(guards=[stop_long]))
    with pytest.raises(StepStopped, match="too long"):
        agent_of(books, documents, cheap=cheap).invoke(GO)
    assert (cheap.calls, books.entries) == ([], [])


def test_a_fact_that_is_sent_holds_in_the_thread(books):
    store = InMemoryStore()
    agent_of(books, saddened, store=store).invoke(GO, {"configurable": {"thread_id": "t"}})
    agent_of(books, store=store).invoke(
        {"messages": [HumanMessage("Reply to the customer: it is on its way")]}, {"configurable": {"thread_id": "t"}}
    )
    assert [tier for tier, _ in books.story] == ["strong", "strong"]


def test_a_policy_in_shadow_records_what_it_would_have_decided():
    books = Books(Policy.default().replace(mode="shadow"))
    agent_of(books, documents).invoke(GO)
    assert [(entry.tier, entry.decided_tier, entry.codes) for entry in books.entries] == [("strong", "strong", ("long_context",))]


@pytest.mark.parametrize("last", [False, True])
def test_a_tool_registered_at_run_time_is_known(last, books):
    agent_of(books, Dynamic(), cheap=calls_extra, strong=calls_extra, tools=[base], last=last).invoke({"messages": [HumanMessage(EASY)]})
    assert books.story == [("cheap", "accepted"), ("cheap", "accepted")]


def test_a_tool_offered_to_somebody_elses_model_is_known(books):
    inner: BaseChatModel = scripted(HAIKU, calls_extra)
    agent_of(books, Dynamic(model=inner), tools=[base]).invoke({"messages": [HumanMessage(EASY)]})
    assert [outcome for _, outcome in books.story] == ["accepted", "accepted"]


def test_a_tool_with_another_schema_at_run_time_is_held_to_that(books):
    @tool("base")
    def other(name: str) -> str:
        """Other."""
        return name

    @wrap_model_call
    def replaced(request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[other]))

    called = AIMessage("", tool_calls=[{"name": "base", "args": {"name": "x"}, "id": "1"}])
    agent_of(books, replaced, cheap=[called, "done"], tools=[base]).invoke({"messages": [HumanMessage(EASY)]})
    assert books.story[0] == ("cheap", "accepted")


def test_a_tool_that_was_taken_away_is_unknown(books):
    @wrap_model_call
    def bare(request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[base]))

    agent_of(books, bare, cheap=[calls_extra([AIMessage("")])], strong="done", tools=[base, extra]).invoke(
        {"messages": [HumanMessage(EASY)]}
    )
    assert books.story == [("cheap", "rejected"), ("strong", "accepted")]
