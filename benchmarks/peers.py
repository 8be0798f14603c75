"""Times our decision beside two routers from the registry, in one run, on steps that differ in every call."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import HumanMessage

from benchmarks.measure import Comparison, compare
from routed_agents import Policy, Step
from routed_agents.offline.corpus import Corpus
from routed_agents.steps import text_of
from routed_agents.testing import ScriptedChatModel

SHORT: Final = (140, 260)
"""Tokens of a short step, at about four characters a token."""
CORPUS: Final = Path(__file__).parents[1] / "corpus"
TURNS: Final = 200
SENTENCE: Final = (
    "The parcel left the depot on Tuesday and has not arrived at my house in the old town, and the courier says it was handed to a "
    "neighbour who is away. "
)
LONG: Final = SENTENCE * 15
"""Of each turn; all of them together are about 100,000 tokens."""


def run(*, rounds: int = 30) -> list[Comparison]:
    """A step of 200 tokens, and a short question at the end of 100,000."""
    numbers = itertools.count()
    loop = asyncio.new_event_loop()
    try:
        history = [{"role": ("user", "assistant")[number % 2], "content": LONG} for number in range(TURNS)]
        return [
            _compared("steps of about 200 tokens", loop, _short_steps().__next__, [], rounds * 10),
            _compared("100,000 tokens", loop, lambda: f"Ticket {next(numbers)}: and what about my other parcel?", history, rounds * 4),
        ]
    finally:
        loop.close()


def _short_steps() -> Iterator[str]:
    """Asks of the project's own corpus, a new one each time: a text that comes again would be found in our caches."""
    least, most = (4 * tokens for tokens in SHORT)
    texts = [text_of(each.step.messages[-1]) for each in Corpus.load(CORPUS).examples(each=1) if not each.step.system]
    found = sorted({text for text in texts if least <= len(text) <= most})
    random.Random(0).shuffle(found)
    return itertools.cycle(found)


def _compared(
    title: str, loop: asyncio.AbstractEventLoop, text: Callable[[], str], history: list[dict[str, str]], rounds: int
) -> Comparison:
    cases = {
        "nemo-switchyard": _switchyard(loop, text, history),
        "langchain-model-router": _model_router(text, history),
        "routed-agents": _ours(text, history),
    }
    return compare(
        f"decision, {title}",
        cases,
        rounds=rounds,
        calls=1,
        note="one call of each in turn; switchyard: stage router; model-router: heuristic, its fake model call included",
    )


def _ours(text: Callable[[], str], history: list[dict[str, str]]) -> Callable[[], object]:
    policy = Policy.default(stance="conservative")
    return lambda: policy.decide(Step.from_messages([*history, {"role": "user", "content": text()}]))


def _switchyard(loop: asyncio.AbstractEventLoop, text: Callable[[], str], history: list[dict[str, str]]) -> Callable[[], object]:
    from switchyard.libsy.algorithms import stage_router  # pyright: ignore[reportMissingImports]

    algorithm: Any = stage_router(picker="efficient_first", confidence_threshold=0.5)
    models = {"efficient": ["small"], "capable": ["big"], "any": ["big", "small"]}
    before = [_blocks(message) for message in history]

    async def pick(request: dict[str, object]) -> object:
        async for step in algorithm.run_stream(request, models):
            if hasattr(step, "outcome"):
                return step.outcome.selected_model_ids
        raise RuntimeError("no outcome")

    return lambda: loop.run_until_complete(pick({"model": "auto", "messages": [*before, _blocks({"role": "user", "content": text()})]}))


def _blocks(message: dict[str, str]) -> dict[str, object]:
    return {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}


def _model_router(text: Callable[[], str], history: list[dict[str, str]]) -> Callable[[], object]:
    from langchain_core.messages import AIMessage
    from langchain_model_router import ChatRouter, HeuristicStrategy  # pyright: ignore[reportMissingImports]

    fakes = {name: ScriptedChatModel(replies="x", model_name=name) for name in ("small", "big")}
    router = ChatRouter(routes=fakes, default_route="small", strategy=HeuristicStrategy("small", "big"))
    before = [(HumanMessage if message["role"] == "user" else AIMessage)(content=message["content"]) for message in history]
    return lambda: router.invoke([*before, HumanMessage(content=text())])


def cold_load_ms() -> tuple[float, float]:
    """How long a fresh interpreter takes to read the weights, and then for its first decision, in milliseconds: the least of five.

    The first decision unpacks the tables of the zones its step has, and compiles the patterns it tries.
    """
    code = (
        "import time; from importlib.resources import files; from routed_agents.linear import load; from routed_agents import Policy, Step;"
        "data = files('routed_agents').joinpath('weights.bin'); began = time.perf_counter(); load(data.read_bytes());"
        "print((time.perf_counter() - began) * 1000); policy = Policy.default();"
        "step = Step.from_messages([('system', 'You label tickets.'), ('user', 'Is this open or closed? The parcel is late.')]);"
        "began = time.perf_counter(); policy.decide(step); print((time.perf_counter() - began) * 1000)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
    return min(float(load) for load, _ in runs), min(float(first) for _, first in runs)
