"""One embedded provider per test, with models that make no mistakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anthropic
import openai
import pytest

from routed_agents import embedded
from routed_agents.embedded import models

FLAWLESS = dict.fromkeys(models.load().models, 0.0)


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> Iterator[embedded.Provider]:
    with embedded.serve(clock=clock, error_rates=FLAWLESS) as running:
        yield running


@pytest.fixture
def claude(provider: embedded.Provider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_claude(provider: embedded.Provider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(provider: embedded.Provider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
        yield client
