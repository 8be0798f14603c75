"""A middleware around the routed call may ask again with another model: a lower one never answers a step that must not be cheap."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.exceptions import ModelTimeoutError
from langchain_core.messages import HumanMessage

from routed_agents import RouterMiddleware, decision_of

from .conftest import EASY, HAIKU, HARD, OPUS, Books, scripted

SONNET = "claude-sonnet-5-5"
GO: dict[str, Any] = {"messages": [HumanMessage("go")]}
DOWN = ModelTimeoutError("opus is down")


def agent_of(books: Books | None, outer: Any, strong: Any = DOWN, cheap: Any = "cheap") -> Any:
    given = [books.router] if books is not None else []
    return create_agent(scripted(OPUS, strong), [], middleware=[outer, RouterMiddleware(*given, cheap=scripted(HAIKU, cheap))])


@pytest.mark.parametrize("lower", [HAIKU, "claude-haiku-4-5", SONNET])
@pytest.mark.parametrize("given", [False, True], ids=["own pair", "router"])
def test_a_lower_model_does_not_stand_in_for_a_step_that_must_be_strong(lower, given, books):
    other = scripted(lower, "lower")
    with pytest.raises(ModelTimeoutError, match="opus is down") as raised:
        agent_of(books if given else None, ModelFallbackMiddleware(other)).invoke(GO, HARD)
    assert (other.calls, f'"{lower}" may not stand in for "{OPUS}"' in "".join(raised.value.__notes__)) == ([], True)


async def test_an_async_agent_refuses_alike():
    with pytest.raises(ModelTimeoutError):
        await agent_of(None, ModelFallbackMiddleware(scripted(HAIKU, "lower"))).ainvoke(GO, HARD)


def test_a_model_as_high_stands_in():
    reply = agent_of(None, ModelFallbackMiddleware(scripted("gpt-5.5", "as high"))).invoke(GO, HARD)["messages"][-1]
    assert (reply.text, decision_of(reply)["tier"]) == ("as high", "strong")


def test_a_step_that_may_be_cheap_takes_whatever_stands_in():
    """Only the outage has moved its turn up."""
    agent = agent_of(None, ModelFallbackMiddleware(scripted(SONNET, "lower")), cheap=[DOWN, "cheap again"])
    assert agent.invoke({"messages": [HumanMessage(EASY)]})["messages"][-1].text == "lower"


def test_a_model_that_is_tried_again_is_no_fallback(books):
    retrying = ModelRetryMiddleware(max_retries=3, initial_delay=0)
    assert agent_of(books, retrying, strong=[DOWN, "strong"]).invoke(GO, HARD)["messages"][-1].text == "strong"
