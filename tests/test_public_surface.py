"""The public surface: its names, and that importing it loads no framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

import routed_agents

NAMES = [
    "Bill", "Classification", "Conditions", "CostObserver", "Decision", "Ledger", "Policy", "PolicyError", "Prices", "RoutedAgentsError",
    "RoutedChatModel", "Router", "RouterMiddleware", "RouterNode", "Step", "StepStopped", "Telemetry", "ThreadState", "Usage", "Verdict",
    "cost_of", "decision_of", "join", "routed_anthropic", "routed_openai", "watch",
]  # fmt: skip
FRAMEWORKS = ("langchain_core", "langchain", "langgraph", "anthropic", "openai", "pydantic", "opentelemetry.sdk", "numpy", "rich")
LOADED = f"print([name for name in {FRAMEWORKS} if name in sys.modules])"


def loaded_by(code: str) -> str:
    script = "\n".join(["import sys", f"sys.path[:] = {sys.path!r}", code, LOADED])
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_the_public_names() -> None:
    assert sorted(routed_agents.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_says_what_it_is_for(name: str) -> None:
    assert getattr(routed_agents, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        routed_agents.Nonsense


def test_listing_the_package_shows_the_public_names() -> None:
    assert dir(routed_agents) == NAMES


@pytest.mark.parametrize(
    "code",
    [
        "import routed_agents",
        "from routed_agents import Policy, Step; Policy.default().decide(Step.from_messages('hello'))",
        "from routed_agents import Ledger; Ledger.memory().total()",
        "from routed_agents import Router, Step\nwith Router().step(Step.from_messages('hello')): pass",
    ],
    ids=["import", "decide", "ledger", "router"],
)
def test_the_core_loads_no_framework(code: str) -> None:
    assert loaded_by(code) == "[]"


WITHOUT_LANGCHAIN = """
sys.modules['langchain'] = None
try:
    from routed_agents import RouterMiddleware
except ImportError as error:
    print(error)
"""


def test_a_name_whose_extra_is_missing_says_what_to_install() -> None:
    wanted = "RouterMiddleware needs langchain, which is not installed; add the extra agents: pip install '.[agents]'"
    assert loaded_by(WITHOUT_LANGCHAIN).startswith(wanted)
