"""A conversation may change its model at any point the laws allow: what one wrote, another provider's strict API takes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from routed_agents import RoutedChatModel, decision_of, embedded
from routed_agents.telemetry import names

from .conftest import FLAWLESS, LOOP, Books, whole

CONVERSATIONS, SEED = 200, 20261124
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PAIRS = {
    "claude+gpt": (("claude-haiku-4-5", "gpt-6.1-sol"), ("claude-haiku-5-5", "gpt-4o"), ("claude-haiku-4-5", "gpt-6-sol")),
    "gpt+claude": (("gpt-6-luna", "claude-opus-5-5"), ("gpt-4o-mini", "claude-opus-4-7"), ("gpt-4o-mini", "claude-haiku-4-5")),
    "claude+claude": (
        ("claude-haiku-5-5", "claude-opus-5-5"),
        ("claude-haiku-4-5", "claude-sonnet-4-6"),
        ("claude-haiku-4-5", "claude-opus-5"),
    ),
    "gpt+gpt": (("gpt-6-luna", "gpt-6.1-sol"), ("gpt-4o-mini", "gpt-6-sol")),
}
OWN: Mapping[str, tuple[dict[str, Any], ...]] = {
    "claude-haiku-4-5": ({}, {"thinking": {"type": "enabled", "budget_tokens": 1500}}, {"temperature": 0.3}),
    "claude-haiku-5-5": ({},),
    "claude-sonnet-4-6": ({}, {"reasoning_effort": "high"}, {"thinking": {"type": "adaptive"}}),
    "claude-opus-4-7": ({}, {"reasoning_effort": "high"}, {"thinking": {"type": "adaptive"}}),
    "claude-opus-5": ({}, {"thinking": {"type": "adaptive"}, "output_version": "v1"}),
    "claude-opus-5-5": ({}, {"thinking": {"type": "adaptive"}}, {"reasoning_effort": "low"}, {"output_version": "v1"}),
    "gpt-4o": ({}, {"temperature": 0.3}),
    "gpt-4o-mini": ({}, {"temperature": 0.3}, {"use_responses_api": True}),
    "gpt-6-luna": ({}, {"use_responses_api": True}, {"use_responses_api": True, "output_version": "v1"}),
    "gpt-6-sol": ({}, {"reasoning_effort": "low"}, {"use_responses_api": True, "output_version": "responses/v1"}),
    "gpt-6.1-sol": ({}, {"use_responses_api": True, "output_version": "v1"}),
}
"""Settings each model takes when it is built; what a call adds comes on top."""


class Mood(BaseModel):
    """How somebody feels."""

    mood: str


@tool
def get_order(order_id: str) -> str:
    """Look up an order."""
    return '{"status": "shipped", "carrier": "DHL"}'


@tool
def search_articles(query: str) -> str:
    """Search the help articles."""
    return '[{"title": "Returns", "text": "You may return goods within 30 days."}]'


TOOLS = {each.name: each for each in (get_order, search_articles)}
ASKS = (
    "Where is my order A-10423?",
    "How long may I return goods?",
    "Classify the sentiment as positive or negative: lovely boots. Answer in json.",
    "Summarize in one sentence: the depot is closed on Mondays and nobody answers the phone.",
    "What is 17% of 240 plus 12?",
)


@pytest.fixture(scope="module")
def served() -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS, strict=True) as running:
        yield running


@pytest.fixture(scope="module")
def chat_models() -> dict[tuple[str, int], Any]:
    return {}


@dataclass
class Talk:
    """One conversation as it grows, and what was seen on its way."""

    draw: random.Random
    model: Any
    messages: list[Any] = field(default_factory=list)
    tiers: list[str] = field(default_factory=list)

    def maybe(self, share: float) -> bool:
        return self.draw.random() < share

    def open(self) -> None:
        if self.maybe(0.6):
            self.messages.append(SystemMessage("You are a support agent. Answer briefly."))
        if self.maybe(0.2):
            self.messages.append(AIMessage("Hello, how can I help?"))
        if self.maybe(0.2):  # an earlier life elsewhere, with an id no API here would give
            call_id = f"functions.get_order:{'x' * 40}"
            call = {"name": "get_order", "args": {"order_id": "A-1"}, "id": call_id}
            self.messages += [HumanMessage("And A-1?"), AIMessage("", tool_calls=[call]), ToolMessage("gone", tool_call_id=call_id)]
            self.messages.append(AIMessage("It is gone."))

    def turn(self) -> None:
        if len(self.messages) > 1 and self.maybe(0.25):
            self.messages.append(SystemMessage("The customer is a returning one."))
        asked = self.draw.choice(ASKS)
        self.messages.append(HumanMessage([{"type": "text", "text": asked}, self.picture()] if self.maybe(0.3) else asked))
        if self.maybe(0.25):
            self.messages.append(SystemMessage("From now on, be brief."))
        if self.maybe(0.2):
            self.structured()
            return
        offered = list(TOOLS.values()) if self.maybe(0.7) else []
        for number in range(4):
            reply = self.ask(offered, forced=number == 0 and self.maybe(0.25))
            self.messages.append(reply)
            self.tiers.append(decision_of(reply)["tier"])
            if not reply.tool_calls:
                return
            for place, call in enumerate(reply.tool_calls):
                if place == 0 and self.maybe(0.1):
                    self.messages.append(SystemMessage("The archive is slow today."))
                result = TOOLS[call["name"]].invoke(call["args"])
                shown = [{"type": "text", "text": result}, self.picture()] if self.maybe(0.2) else result
                self.messages.append(ToolMessage(shown, tool_call_id=call["id"]))
            if self.maybe(0.15):
                self.messages.append(SystemMessage("Mind the customer's patience."))
        self.messages.append(AIMessage("I have to stop here."))

    def picture(self) -> dict[str, Any]:
        url = f"data:image/png;base64,{PIXEL}"
        return self.draw.choice([
            {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        ])  # fmt: skip

    def parameters(self) -> dict[str, Any]:
        choices: list[tuple[str, Any]] = [
            ("temperature", 0.2),
            ("top_p", 0.9),
            ("top_k", 20),
            ("max_tokens", self.draw.choice([1_000, 3_000, 120_000, 200_000])),
            ("reasoning_effort", self.draw.choice(["none", "minimal", "low", "medium", "high", "xhigh", "max"])),
            ("effort", self.draw.choice(["low", "xhigh"])),
            ("stop", self.draw.choice([["###"], ["\n\n\n###"], ["a1", "b2", "c3", "d4", "e5"], [" "]])),
            ("frequency_penalty", 0.1),
            ("seed", 7),
            ("cache_control", {"type": "ephemeral"}),
            (
                "thinking",
                self.draw.choice(
                    [
                        {"type": "enabled", "budget_tokens": 1024},
                        {"type": "enabled", "budget_tokens": 2048},
                        {"type": "adaptive"},
                        {"type": "disabled"},
                    ]
                ),
            ),
        ]
        return {name: value for name, value in choices if self.maybe(0.18)}

    def config(self) -> dict[str, Any]:
        forced = self.draw.choice([None, None, "strong", "cheap"])
        return {"metadata": {"routed_agents": {"tier": forced}}} if forced else {}

    def ask(self, offered: list[Any], *, forced: bool) -> Any:
        options: dict[str, Any] = {}
        if offered and forced:
            options["tool_choice"] = self.draw.choice(["any", "get_order"])
        if offered and self.maybe(0.2):
            options["parallel_tool_calls"] = False
        asked = self.model.bind_tools(offered, **options) if offered else self.model
        kwargs, config = self.parameters(), self.config()
        before = [message.model_dump() for message in self.messages]
        reply = self.answer(asked, config, kwargs)
        assert [message.model_dump() for message in self.messages] == before  # only copies are fitted
        return reply

    def answer(self, asked: Any, config: Any, kwargs: dict[str, Any]) -> Any:
        match self.draw.choice(["invoke", "stream", "ainvoke", "astream"]):
            case "invoke":
                return asked.invoke(self.messages, config, **kwargs)
            case "stream":
                return whole(list(asked.stream(self.messages, config, **kwargs)))
            case "ainvoke":
                return LOOP.run_until_complete(asked.ainvoke(self.messages, config, **kwargs))
            case _:
                return LOOP.run_until_complete(_astreamed(asked, self.messages, config, kwargs))

    def structured(self) -> None:
        method = self.draw.choice([None, "json_schema", "function_calling", "json_mode"])
        asked = self.model.with_structured_output(Mood, include_raw=True, **({"method": method} if method else {}))
        self.messages.append(HumanMessage("What is the mood? Answer as json with the key mood."))
        found = asked.invoke(self.messages, self.config(), **self.parameters())
        self.messages.append(AIMessage(f"The mood is {found['parsed'].mood if found['parsed'] else 'unknown'}."))


async def _astreamed(asked: Any, messages: list[Any], config: Any, kwargs: dict[str, Any]) -> Any:
    return whole([chunk async for chunk in asked.astream(messages, config, **kwargs)])


def built(name: str, draw: random.Random, known: dict[tuple[str, int], Any]) -> Any:
    """A chat model of its provider's own package, with one of its own settings."""
    number = draw.randrange(len(OWN[name]))
    if (name, number) not in known:
        own = OWN[name][number]
        known[name, number] = (
            ChatAnthropic(model=name, max_retries=0, **{"max_tokens": 4096, **own})
            if name.startswith("claude")
            else ChatOpenAI(model=name, max_retries=0, stream_usage=True, **own)
        )
    return known[name, number]


def talk(number: int, kind: str, books: Books, known: dict[tuple[str, int], Any]) -> Talk:
    """One seeded conversation of three turns."""
    draw = random.Random(f"{SEED}:{number}")
    cheap, strong = draw.choice(PAIRS[kind])
    going = Talk(draw, RoutedChatModel(cheap=built(cheap, draw, known), strong=built(strong, draw, known), router=books.router))
    going.open()
    for _ in range(3):
        going.turn()
    return going


KINDS = tuple(PAIRS)
EXPECTED = {
    *("cheap", "strong"),
    *("temperature", "top_p", "top_k", "thinking", "reasoning_effort", "stop", "frequency_penalty", "cache_control"),
    *("system_message", "thinking_history"),
}
"""Tiers and repairs that each share of twenty conversations must have met, else it proved little."""


# langchain-anthropic warns of redacted thinking in a stream whose request did not ask for thinking, from models that always think
@pytest.mark.filterwarnings("ignore:Received unexpected tool content block:UserWarning")
@pytest.mark.parametrize("part", range(10))
def test_generated_conversations_cross_models_without_a_refusal(part, provider, chat_models):
    seen = Counter[str]()
    for number in range(part, CONVERSATIONS, 10):
        books = Books()
        provider.reset()
        try:
            going = talk(number, KINDS[number // 10 % len(KINDS)], books, chat_models)
        except Exception as error:
            raise AssertionError(f"conversation {number}: {provider.requests[-1].body if provider.requests else ''}") from error
        refused = [(served.status, served.body) for served in provider.requests if served.status >= 400]
        assert not refused, f"conversation {number}"
        seen.update(going.tiers)
        for leaf in books.leaves:
            seen.update(leaf.attributes.get(names.REPAIRS, ()))
    assert seen.keys() >= EXPECTED
