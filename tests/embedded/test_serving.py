"""Serving: what the embedded provider is started with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from routed_agents import RoutedChatModel, Router, embedded
from routed_agents.errors import ConfigurationError
from routed_agents.tiers import SIMULATED_URLS


@pytest.mark.parametrize(
    "given",
    [
        {"time_scale": "x"},
        {"time_scale": math.nan},
        {"time_scale": -1},
        {"faults": 5},
        {"clock": 5},
        {"seed": "x"},
        {"port": -1},
        {"port": 70_000},
        {"port": "x"},
    ],
    ids=str,
)
def test_an_argument_of_no_use_is_named_in_one_line(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ConfigurationError, match=f"^{name} is [^\n]*; wanted [^\n]*$"), embedded.serve(**given):
        pass


def test_a_port_in_use_is_named() -> None:
    with embedded.serve() as first:
        taken = int(first.anthropic_url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"port {taken} cannot be listened on"), embedded.serve(port=taken):
            pass


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A provider as another process sees it, which knows its variables only."""
    with embedded.serve() as provider:
        SIMULATED_URLS.clear()
        for name, value in provider.environ.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("preset", ["claude", "gpt"])
def test_streams_from_another_process_are_simulated(preset: str) -> None:
    router = Router(preset)
    list(RoutedChatModel(router=router).stream("Is 'Go away!' rude? Answer yes or no."))
    assert [entry.simulated for entry in router.ledger.entries()] == [True]
