"""Caching: marked in tool loops on Anthropic, never over the caller's own marks, and off by one switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from routed_agents import RoutedChatModel, RouterMiddleware, embedded
from routed_agents.integrations.caching import with_caching

from .conftest import Books

HAIKU, OPUS, MINI = "claude-haiku-5-5", "claude-opus-5-5", "gpt-4o-mini"
RULES = SystemMessage("You look orders up and answer in one line. " * 120)
CALL = AIMessage("", tool_calls=[{"name": "get_order", "args": {"order_id": "A-1"}, "id": "toolu_1"}])
LOOP = [RULES, HumanMessage("Where is my order A-1?"), CALL, ToolMessage("shipped", tool_call_id="toolu_1")]
CHEAP = {"metadata": {"task_class": "classification"}}


@tool
def get_order(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id}: shipped"


def marks(provider: embedded.Provider) -> list[Any]:
    return [served.body.get("cache_control") for served in provider.requests]


def test_a_call_in_a_tool_loop_is_marked_and_a_first_call_is_not(books: Books, real: Callable[..., Any], provider: Any) -> None:
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router).bind_tools([get_order])
    model.invoke(LOOP[:2], CHEAP)
    model.invoke(LOOP, CHEAP)
    model.invoke(LOOP, CHEAP)

    assert marks(provider) == [None, {"type": "ephemeral"}, {"type": "ephemeral"}]
    first, second, third = [entry.usage for entry in books.entries]
    assert (first.cache_write_5m, second.cache_write_5m > 500, third.cache_read) == (0, True, second.cache_write_5m)
    assert third.cache_write_5m == 0


@pytest.mark.parametrize(("ttl", "mark"), [("1h", {"type": "ephemeral", "ttl": "1h"}), (None, None)])
def test_one_switch_sets_how_long_or_turns_it_off(ttl: Any, mark: Any, books: Books, real: Callable[..., Any], provider: Any) -> None:
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router, prompt_cache=ttl)
    model.bind_tools([get_order]).invoke(LOOP, CHEAP)

    assert marks(provider) == [mark]


def test_marks_of_the_callers_own_are_left_alone() -> None:
    marked = [SystemMessage([{"type": "text", "text": "rules", "cache_control": {"type": "ephemeral"}}]), *LOOP[1:]]

    assert with_caching({}, "5m", marked) == {}
    assert with_caching({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "5m", LOOP) == {
        "cache_control": {"type": "ephemeral", "ttl": "1h"}
    }


def test_a_tier_of_another_provider_is_not_asked(books: Books, real: Callable[..., Any], provider: Any) -> None:
    RoutedChatModel(cheap=real(MINI), strong=real(OPUS), router=books.router).bind_tools([get_order]).invoke(LOOP, CHEAP)

    assert marks(provider) == [None]


def test_an_agents_loop_is_marked_by_the_middleware(books: Books, real: Callable[..., Any], provider: Any) -> None:
    agent = create_agent(real(OPUS), [get_order], middleware=[RouterMiddleware(cheap=real(HAIKU))])
    agent.invoke({"messages": [HumanMessage("Where is my order A-10423?")]})

    assert marks(provider)[:2] == [None, {"type": "ephemeral"}]
