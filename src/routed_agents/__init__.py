"""Decides for each step of a workflow which model tier may do it, and writes down what it truly cost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routed_agents.classify import Classification
    from routed_agents.decisions import Decision
    from routed_agents.errors import PolicyError, RoutedAgentsError, StepStopped
    from routed_agents.guards import Conditions, Verdict
    from routed_agents.integrations.agents import RouterMiddleware
    from routed_agents.integrations.clients import routed_anthropic, routed_openai
    from routed_agents.integrations.langchain import RoutedChatModel
    from routed_agents.integrations.langgraph import RouterNode
    from routed_agents.integrations.observer import CostObserver
    from routed_agents.integrations.watching import watch
    from routed_agents.ledger import Bill, Ledger, cost_of
    from routed_agents.policy import Policy
    from routed_agents.pricing import Prices, Usage
    from routed_agents.router import Router, decision_of
    from routed_agents.state import ThreadState, join
    from routed_agents.steps import Step
    from routed_agents.telemetry import Telemetry

_HOMES = {
    "Bill": "ledger",
    "Classification": "classify",
    "Conditions": "guards",
    "CostObserver": "integrations.observer",
    "Decision": "decisions",
    "Ledger": "ledger",
    "Policy": "policy",
    "PolicyError": "errors",
    "Prices": "pricing",
    "RoutedAgentsError": "errors",
    "RoutedChatModel": "integrations.langchain",
    "Router": "router",
    "RouterMiddleware": "integrations.agents",
    "RouterNode": "integrations.langgraph",
    "Step": "steps",
    "StepStopped": "errors",
    "Telemetry": "telemetry",
    "ThreadState": "state",
    "Usage": "pricing",
    "Verdict": "guards",
    "cost_of": "ledger",
    "decision_of": "router",
    "join": "state",
    "routed_anthropic": "integrations.clients",
    "routed_openai": "integrations.clients",
    "watch": "integrations.watching",
}

__all__ = [
    "Bill",
    "Classification",
    "Conditions",
    "CostObserver",
    "Decision",
    "Ledger",
    "Policy",
    "PolicyError",
    "Prices",
    "RoutedAgentsError",
    "RoutedChatModel",
    "Router",
    "RouterMiddleware",
    "RouterNode",
    "Step",
    "StepStopped",
    "Telemetry",
    "ThreadState",
    "Usage",
    "Verdict",
    "cost_of",
    "decision_of",
    "join",
    "routed_anthropic",
    "routed_openai",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Load a name's module when it is first asked for, so that the import itself costs nothing and loads no framework."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_home_of(name), name)
    globals()[name] = found
    return found


def _home_of(name: str) -> Any:
    try:
        return import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as missing:
        if name != "RouterMiddleware" or (missing.name or "").partition(".")[0] != "langchain":
            raise
    from routed_agents.errors import ExtraMissing

    raise ExtraMissing(f"{name} needs langchain, which is not installed", "agents")


def __dir__() -> list[str]:
    return sorted(__all__)
