"""Middlewares inside the routed call may ask the model more than once, another one, or none: each call made is booked, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_core.exceptions import ModelConnectionError
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from routed_agents import RouterMiddleware, StepStopped, cost_of, decision_of, watch

from .conftest import EASY, HAIKU, HARD, OPUS, Books, scripted

GO: dict[str, Any] = {"messages": [HumanMessage("go")]}


@wrap_model_call
async def atwice(request: Any, handler: Any) -> Any:
    await handler(request)
    return await handler(request)


@wrap_model_call
def twice(request: Any, handler: Any) -> Any:
    handler(request)
    return handler(request)


@wrap_model_call
def reworded(request: Any, handler: Any) -> Any:
    handler(request)
    return AIMessage("in other words")


@wrap_model_call
def unasked(request: Any, handler: Any) -> Any:
    return AIMessage("known already")


@wrap_model_call
def swallowed(request: Any, handler: Any) -> Any:
    try:
        return handler(request)
    except ModelConnectionError:
        return AIMessage("sorry")


@wrap_model_call
def approved(request: Any, handler: Any) -> Any:
    return handler(request) if interrupt("may I ask the model?") == "yes" else AIMessage("declined")


@wrap_model_call
def refused(request: Any, handler: Any) -> Any:
    raise PermissionError("no calls left")


class Settings(BaseModel):
    """An answer that no provider's own structured output carries."""

    values: dict[str, Any]


def retried(**options: Any) -> Any:
    return ModelRetryMiddleware(max_retries=3, initial_delay=0.01, **options)


def asked(inner: Any, strong: Any, *, watched: bool = False, invoke: bool = True) -> tuple[Books, Any]:
    books = Books()
    middleware = [RouterMiddleware(books.router, cheap=scripted(HAIKU, "cheap")), inner]
    agent: Any = create_agent(scripted(OPUS, strong), [], middleware=middleware)
    agent = watch(agent, books.router) if watched else agent
    return books, agent.invoke(GO, HARD)["messages"][-1] if invoke else agent


DOWN = ModelConnectionError("down")
CASES: dict[str, tuple[Any, Any, list[str], str]] = {
    "a reply asked for twice": (twice, ["first " * 50, "second"], ["abandoned", "accepted"], "second"),
    "retries": (retried(), [DOWN, DOWN, "ok"], ["failed", "failed", "accepted"], "ok"),
    "retries that give up": (retried(on_failure="continue"), [DOWN], ["failed"] * 4, "Model call failed"),
    "an error swallowed": (swallowed, [DOWN], ["failed"], "sorry"),
    "a reply reworded": (reworded, ["long " * 50], ["accepted"], "in other words"),
    "no call": (unasked, ["never"], [], "known already"),
    "a fallback": (ModelFallbackMiddleware(scripted(OPUS, "fallback")), [DOWN], ["failed", "accepted"], "fallback"),
}


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_each_call_is_booked_once(case, watched):
    inner, strong, outcomes, text = CASES[case]
    books, reply = asked(inner, strong, watched=watched)
    assert [entry.outcome for entry in books.entries] == outcomes
    assert reply.text.startswith(text)
    assert len(books.leaves) == len(outcomes)
    assert all(span.end_time for span in books.named(""))
    assert decision_of(reply)["tier"] == "strong"


def test_a_reply_nobody_used_costs_what_it_cost():
    books, reply = asked(twice, ["first " * 50, "second"])
    assert [entry.usage.output for entry in books.entries] == [50, 1]
    assert cost_of(reply).cost_pico == sum(entry.cost.total_pico for entry in books.entries)
    assert [entry.baseline_pico is None for entry in books.entries] == [True, False]


def test_a_reworded_reply_has_the_usage_of_the_call_it_is_from():
    books, _ = asked(reworded, ["long " * 50])
    assert [(entry.usage.output, entry.usage.source) for entry in books.entries] == [(50, "reported")]


def test_a_retry_that_gives_up_raises_and_books_every_call():
    books, agent = asked(retried(on_failure="error"), [DOWN], invoke=False)
    with pytest.raises(ModelConnectionError):
        agent.invoke(GO, HARD)
    assert [entry.outcome for entry in books.entries] == ["failed"] * 4


def test_a_fallback_below_the_floor_is_turned_down_and_booked_once():
    books, agent = asked(ModelFallbackMiddleware(scripted(HAIKU, "lower")), [DOWN], watched=True, invoke=False)
    with pytest.raises(StepStopped):
        agent.invoke(GO, HARD)
    assert [(entry.outcome, entry.served_model) for entry in books.entries if entry.outcome != "failed"] == [("rejected", HAIKU)]


async def test_an_async_agent_books_alike():
    books, agent = asked(atwice, ["first", "second"], invoke=False)
    await agent.ainvoke(GO, HARD)
    assert [entry.outcome for entry in books.entries] == ["abandoned", "accepted"]


def test_failures_that_were_retried_say_what_they_were():
    books, _ = asked(retried(), [DOWN, DOWN, DOWN, "ok"])
    assert [entry.error for entry in books.entries] == ["connection", "connection", "connection", None]


def test_a_pause_before_any_call_is_no_call_and_no_error():
    books = Books()
    middleware = [RouterMiddleware(books.router, cheap=scripted(HAIKU, "cheap")), approved]
    agent: Any = create_agent(scripted(OPUS, "strong"), [], middleware=middleware, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    agent.invoke({"messages": [HumanMessage(EASY)]}, config)
    assert (books.entries, {span.status.is_ok or span.status.is_unset for span in books.named("")}) == ([], {True})

    agent.invoke(Command(resume="yes"), config)
    bill = cost_of(ledger=books.ledger, thread="t")
    assert (books.story, bill.steps, bill.unpriced) == ([("cheap", "accepted")], 1, 0)


def test_a_refusal_before_any_call_is_the_steps_error_and_books_nothing():
    books, agent = asked(refused, ["never"], invoke=False)
    with pytest.raises(PermissionError):
        agent.invoke(GO, HARD)
    assert (books.entries, [span.status.is_ok for span in books.routes], books.leaves) == ([], [False], [])


def test_a_structured_answer_asked_for_twice_is_booked_twice():
    books, reply = Books(), AIMessage("", tool_calls=[{"name": "Settings", "args": {"values": {}}, "id": "1"}])
    middleware = [RouterMiddleware(books.router, cheap=scripted(HAIKU, reply)), twice]
    create_agent(scripted(OPUS, reply), [], middleware=middleware, response_format=ToolStrategy(Settings)).invoke(GO, HARD)
    assert books.story == [("strong", "abandoned"), ("strong", "accepted")]
