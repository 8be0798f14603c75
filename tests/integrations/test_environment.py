"""What is handed no router goes by the environment, so that shadow mode is switched on without touching code."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from langchain.agents import create_agent
from langchain.chat_models.base import _BUILTIN_PROVIDERS, _attempt_infer_model_provider
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from routed_agents import Ledger, Policy, RoutedChatModel, Router, RouterMiddleware, cost_of, decision_of, embedded, routed_anthropic
from routed_agents.errors import ConfigurationError, LedgerError, PolicyError
from routed_agents.integrations.models import deployment_of
from routed_agents.state import thread_facts
from routed_agents.testing import ScriptedChatModel

ASKED = "Is this review positive or negative? One word. The boots came on Monday and they fit well."
STRONG = "claude-opus-5-5"


def scripted(name: str) -> ScriptedChatModel:
    return ScriptedChatModel(replies=[name] * 3, model_name=name)


def wrapped() -> tuple[Any, Any]:
    reply = RoutedChatModel(cheap=scripted("claude-haiku-5-5"), strong=scripted(STRONG)).invoke(ASKED)
    return reply, reply.content


def in_an_agent() -> tuple[Any, Any]:
    agent = create_agent(scripted(STRONG), [], middleware=[RouterMiddleware(cheap=scripted("claude-haiku-5-5"))])
    reply = agent.invoke({"messages": [HumanMessage(ASKED)]})["messages"][-1]
    return reply, reply.content


def by_a_client() -> tuple[Any, Any]:
    with embedded.serve() as provider:
        client = routed_anthropic(anthropic.Anthropic(base_url=provider.anthropic_url, api_key="none"))
        reply = client.messages.create(model="auto", max_tokens=64, messages=[{"role": "user", "content": ASKED}])
    return reply, reply.model


def recorded(place: Path) -> list[tuple[str, str, str]]:
    """What is in the ledger once the writer of whoever is gone by now has ended; that is soon."""
    end = time.monotonic() + 10
    with Ledger.open(place) as ledger:
        while not ledger.steps and time.monotonic() < end:
            time.sleep(0.02)
        return [(entry.mode, entry.decided_tier, entry.tier) for entry in ledger.entries()]


@pytest.mark.parametrize("ask", [wrapped, in_an_agent, by_a_client])
def test_shadow_mode_holds_where_no_router_is_given(
    ask: Callable[[], tuple[Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "costs.db"
    monkeypatch.setenv("ROUTED_AGENTS_MODE", "shadow")
    monkeypatch.setenv("ROUTED_AGENTS_LEDGER", str(place))
    reply, answered = ask()

    assert answered == STRONG
    assert decision_of(reply)["tier"] == "cheap"
    assert recorded(place) == [("shadow", "cheap", "strong")]


def test_a_router_that_is_given_goes_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTED_AGENTS_MODE", "shadow")
    reply = RoutedChatModel(cheap=scripted("claude-haiku-5-5"), strong=scripted(STRONG), router=Router()).invoke(ASKED)

    assert reply.content == "claude-haiku-5-5"


def test_a_mode_that_does_not_exist_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTED_AGENTS_MODE", "shade")

    with pytest.raises(ConfigurationError, match="ROUTED_AGENTS_MODE is 'shade'"):
        RoutedChatModel(cheap=scripted("claude-haiku-5-5"), strong=scripted(STRONG))


def test_routers_of_one_place_share_its_ledger(tmp_path: Path) -> None:
    environ = {"ROUTED_AGENTS_LEDGER": str(tmp_path / "costs.db")}
    one, other = Router.from_env(environ), Router.from_env(environ)

    assert one.ledger is other.ledger
    one.ledger.close()
    assert Router.from_env(environ).ledger is not one.ledger


ROUTERS: dict[str, Callable[[], Any]] = {"none": lambda: None, "policy": Policy.default, "preset": lambda: "claude"}


@pytest.mark.parametrize("given", ROUTERS)
def test_what_one_heard_of_a_thread_others_know_that_are_handed_no_router(given: str) -> None:
    pair = {"cheap": scripted("claude-haiku-5-5"), "strong": scripted(STRONG)}
    triage, model = (RoutedChatModel(**pair, router=ROUTERS[given]()) for _ in range(2))
    agent = create_agent(scripted(STRONG), [], middleware=[RouterMiddleware(ROUTERS[given](), cheap=scripted("claude-haiku-5-5"))])
    asked: list[Any] = [("system", "You answer customers."), ("user", "Hello, where is my parcel?")]

    def note(state: MessagesState) -> None:
        triage.invoke("My mother died yesterday and I am desperate, you cancelled her funeral flowers!")

    builder = StateGraph(MessagesState)
    builder.add_node("note", note)
    builder.add_node("agent", lambda state: {"messages": agent.invoke({"messages": asked})["messages"][-1]})
    builder.add_node("model", lambda state: {"messages": model.invoke(asked)})
    builder.add_edge(START, "note")
    builder.add_edge("note", "agent")
    builder.add_edge("agent", "model")
    found = builder.compile().invoke({"messages": "hi"}, {"configurable": {"thread_id": f"shared by {given}"}})

    assert [decision_of(message)["tier"] for message in found["messages"][-2:]] == ["strong", "strong"]


def test_a_router_that_was_made_by_hand_has_a_memory_of_its_own() -> None:
    one, other = Router(), Router()
    one.remember("a thread", thread_facts(["distress"]))

    assert not other.state_of("a thread").facts
    assert not Router.from_env().state_of("a thread").facts


def test_a_bill_in_shadow_mode_says_what_was_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTED_AGENTS_MODE", "shadow")
    reply, _ = wrapped()

    assert "shadow, decided cheap" in str(cost_of(reply))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("ROUTED_AGENTS_MODE", "shade", ConfigurationError),
        ("ROUTED_AGENTS_POLICY", "nowhere.toml", PolicyError),
        ("ROUTED_AGENTS_LEDGER", "nowhere/costs.db", LedgerError),
    ],
)
def test_a_middleware_is_not_made_where_the_environment_is_wrong(
    name: str, value: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)

    with pytest.raises(error):
        RouterMiddleware(cheap="anthropic:claude-haiku-5-5")


def test_a_middleware_goes_by_what_the_environment_says_at_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = create_agent(scripted(STRONG), [], middleware=[RouterMiddleware(cheap=scripted("claude-haiku-5-5"))])
    monkeypatch.setenv("ROUTED_AGENTS_POLICY", "claude")
    monkeypatch.setenv("ROUTED_AGENTS_MODE", "shadow")
    monkeypatch.setenv("ROUTED_AGENTS_LEDGER", str(tmp_path / "costs.db"))
    agent.invoke({"messages": [HumanMessage(ASKED)]})
    del agent

    assert recorded(tmp_path / "costs.db") == [("shadow", "cheap", "strong")]


@pytest.mark.parametrize("make", [lambda name: RouterMiddleware(cheap=name), lambda name: RoutedChatModel(cheap=name, strong=STRONG)])
def test_a_mistyped_provider_is_named_when_the_model_is_given(make: Callable[[str], object]) -> None:
    with pytest.raises(PolicyError, match=r'unknown provider "antropic" of model "antropic:claude-haiku-5-5", tier "cheap"\. Did you mean'):
        make("antropic:claude-haiku-5-5")


@pytest.mark.parametrize("name", ["mistral:7b", "mistral:latest", "Mistral:7b", "deepseek2:16b"])
def test_a_model_id_whose_provider_langchain_infers_is_not_taken_for_a_mistyped_provider(name: str) -> None:
    assert _attempt_infer_model_provider(name)
    assert deployment_of(name, "cheap").model == name


def test_no_provider_that_langchain_knows_is_taken_for_a_mistyped_one() -> None:
    names = [f"{provider}:some-model" for provider in _BUILTIN_PROVIDERS]

    assert [deployment_of(name, "cheap").name for name in names] == names
