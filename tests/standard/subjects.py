"""What the standard suites are run over: each subject makes a chat model from the parameters any chat model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import RunnableWithFallbacks
from langchain_openai import ChatOpenAI

from routed_agents import Ledger, Policy, RoutedChatModel, Router, Telemetry

try:
    from langchain_model_router import ChatRouter
except ImportError:  # it comes with the extra "bench"
    ChatRouter = None

HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"
LUNA, SOL = "gpt-6-luna", "gpt-6.1-sol"
PAIRS: Final = ((HAIKU, OPUS), (HAIKU, SOL), (LUNA, OPUS))
OLDER: Final = {HAIKU: "claude-haiku-4-5", OPUS: "claude-opus-4-7", LUNA: "gpt-4o-mini", SOL: "gpt-4o"}
"""A model of the same provider to ask for by `model=`."""
CLASSES: Final = {"cheap": "classification", "strong": "agentic_chain"}
"""The task class to declare so that a tier answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Stands where the suites want a chat model's class.

    Attributes:
        family: what the table calls this kind of subject.
        label: names it among its kind.
        kind: the class whose contract is tested.
        make: makes one, from any chat model's parameters.
        answers: the provider's model that has to answer, in every test.
        override: the model to ask for by `model=`, where that is a thing to do.
        steps_in: the model that answers where the first one fails.
    """

    family: str
    label: str
    kind: Any
    make: Callable[..., Any]
    answers: str
    override: str | None = None
    steps_in: str | None = None

    def __call__(self, **params: Any) -> Any:
        return self.make(**params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kind, name)

    @property
    def name(self) -> str:
        return f"{self.family} {self.label}"


def plain(model: str, **params: Any) -> Any:
    """A provider's own chat model."""
    if model.startswith("claude"):
        return ChatAnthropic(model=model, **params)
    return ChatOpenAI(model=model, stream_usage=True, **params)


def bare() -> list[Subject]:
    """Each tier's model by itself."""

    def subject(model: str) -> Subject:
        kind = ChatAnthropic if model.startswith("claude") else ChatOpenAI

        def make(**params: Any) -> Any:
            return plain(model, **params)

        return Subject(family="bare", label=model, kind=kind, make=make, answers=model, override=OLDER[model])

    return [subject(model) for model in (HAIKU, OPUS, LUNA, SOL)]


def routed() -> list[Subject]:
    """A routed model over each pair, once with a class that goes cheap and once with one that must be strong."""

    def subject(pair: tuple[str, str], tier: str) -> Subject:
        names = {
            role: f"{'anthropic' if model.startswith('claude') else 'openai'}:{model}" for role, model in zip(CLASSES, pair, strict=True)
        }

        def make(**params: Any) -> RoutedChatModel:
            router = Router(Policy.default(tiers="embedded"), ledger=Ledger.memory(), telemetry=Telemetry.off())
            return RoutedChatModel(**names, router=router, task_class=CLASSES[tier], options=params)

        answers = pair[list(CLASSES).index(tier)]
        return Subject(family="routed", label=f"{'+'.join(pair)}, {tier}", kind=RoutedChatModel, make=make, answers=answers)

    return [subject(pair, tier) for pair in PAIRS for tier in CLASSES]


def fallbacks() -> list[Subject]:
    """LangChain's `with_fallbacks` over each pair; without a failure the first answers."""

    def subject(pair: tuple[str, str]) -> Subject:
        def make(**params: Any) -> Any:
            return plain(pair[0], **params).with_fallbacks([plain(pair[1], **params)])

        return Subject(
            family="fallbacks",
            label="+".join(pair),
            kind=RunnableWithFallbacks,
            make=make,
            answers=pair[0],
            override=OLDER[pair[0]],
            steps_in=pair[1],
        )

    return [subject(pair) for pair in PAIRS]


def chat_routers() -> list[Subject]:
    """langchain-model-router's `ChatRouter` over each pair, with either as its default route; none where it is not installed."""

    def subject(pair: tuple[str, str], tier: str) -> Subject:
        def make(**params: Any) -> Any:
            routes = {role: plain(model, **params) for role, model in zip(CLASSES, pair, strict=True)}
            return ChatRouter(routes=routes, default_route=tier)

        answers = pair[list(CLASSES).index(tier)]
        return Subject(
            family="ChatRouter", label=f"{'+'.join(pair)}, {tier}", kind=ChatRouter, make=make, answers=answers, override=OLDER[answers]
        )

    return [subject(pair, tier) for pair in PAIRS for tier in CLASSES] if ChatRouter is not None else []
