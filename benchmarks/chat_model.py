"""Times a routed chat model's invoke against the bare model and against what people use in its place."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, compare
from benchmarks.routers import everything, quiet
from routed_agents import RoutedChatModel, embedded
from routed_agents.testing import ScriptedChatModel

CHEAP, STRONG = "claude-haiku-5-5", "claude-opus-5-5"
ASK = "Classify ticket {} as open or closed: the parcel is late"
CHUNKS = 20
USAGE = {"input_tokens": 40, "output_tokens": 5}


def run(*, rounds: int = 30) -> list[Comparison]:
    """A fake model, where our own share shows; then the real SDK over loopback HTTP, where it should not."""
    with tempfile.TemporaryDirectory() as place:
        return [_fake(Path(place), rounds), _streamed(rounds), _awaited(rounds), _real(Path(place), rounds)]


def _fake(place: Path, rounds: int) -> Comparison:
    bare, strong = _scripted(CHEAP), _scripted(STRONG)
    routed_fully, close = everything(place / "fake")
    cases = {
        "bare fake model": _asking(bare),
        "RunnableWithFallbacks": _asking(bare.with_fallbacks([strong])),
        "routed, no telemetry": _asking(RoutedChatModel(cheap=bare, strong=strong, router=quiet())),
        "routed, everything on": _asking(RoutedChatModel(cheap=bare, strong=strong, router=routed_fully)),
        **({"langchain-model-router": _asking(peer)} if (peer := _model_router(bare, strong)) is not None else {}),
    }
    try:
        return compare(
            "invoke, fake model",
            cases,
            rounds=rounds * 40,
            calls=1,
            note="one call of each case in turn, so that none finds the caches warmer; everything on: batch span processor to a JSON file, "
            "metrics, SQLite ledger",
        )
    finally:
        close()


def _streamed(rounds: int) -> Comparison:
    words = " ".join(["word"] * CHUNKS)
    bare, strong = _scripted(CHEAP, words), _scripted(STRONG, words)
    routed = RoutedChatModel(cheap=bare, strong=strong, router=quiet())

    def reading(model: Any) -> Callable[[], object]:
        numbers = itertools.count()
        return lambda: [*model.stream(ASK.format(next(numbers)))]

    cases = {"bare fake model": reading(bare), "RunnableWithFallbacks": reading(bare.with_fallbacks([strong])), "routed": reading(routed)}
    return compare(f"stream, fake model, {CHUNKS} chunks, no telemetry", cases, rounds=rounds * 10, calls=1)


def _awaited(rounds: int) -> Comparison:
    bare, strong = _scripted(CHEAP), _scripted(STRONG)
    routed = RoutedChatModel(cheap=bare, strong=strong, router=quiet())
    loop = asyncio.new_event_loop()

    def awaiting(model: Any) -> Callable[[], object]:
        numbers = itertools.count()
        return lambda: loop.run_until_complete(model.ainvoke(ASK.format(next(numbers))))

    cases = {
        "bare fake model": awaiting(bare),
        "RunnableWithFallbacks": awaiting(bare.with_fallbacks([strong])),
        "routed": awaiting(routed),
    }
    try:
        return compare("ainvoke, fake model, no telemetry", cases, rounds=rounds * 20, calls=1)
    finally:
        loop.close()


def _model_router(cheap: Any, strong: Any) -> Any:
    """langchain-model-router over the same two models, where it is installed."""
    try:
        from langchain_model_router import ChatRouter, HeuristicStrategy  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return ChatRouter(routes={"small": cheap, "big": strong}, default_route="small", strategy=HeuristicStrategy("small", "big"))


def _real(place: Path, rounds: int) -> Comparison:
    from langchain_anthropic import ChatAnthropic

    routed_fully, close = everything(place / "real")
    with embedded.serve() as provider:
        options: dict[str, Any] = {"base_url": provider.anthropic_url, "api_key": "none", "max_retries": 0}
        bare, strong = ChatAnthropic(model=CHEAP, **options), ChatAnthropic(model=STRONG, **options)
        cases = {
            "bare ChatAnthropic": _asking(bare),
            "RunnableWithFallbacks": _asking(bare.with_fallbacks([strong])),
            "routed, no telemetry": _asking(RoutedChatModel(cheap=bare, strong=strong, router=quiet())),
            "routed, everything on": _asking(RoutedChatModel(cheap=bare, strong=strong, router=routed_fully)),
        }
        try:
            return compare(
                "invoke, ChatAnthropic on the embedded provider",
                cases,
                rounds=rounds * 8,
                calls=1,
                warmup=5,
                note="simulated: it answers at once",
            )
        finally:
            close()


def _scripted(name: str, reply: str = "open") -> ScriptedChatModel:
    return ScriptedChatModel(replies=reply, model_name=name, usage=USAGE, provider="anthropic")


def _asking(model: Any) -> Callable[[], object]:
    numbers = itertools.count()
    return lambda: model.invoke(ASK.format(next(numbers)))
