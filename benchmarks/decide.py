"""Times a decision on a short step against one on a conversation of 100,000 tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from benchmarks.measure import Comparison, compare
from routed_agents import Policy, Step

TURNS = 400
WORDS = 190
"""Of each message: with 400 turns of question and answer about 100,000 tokens."""


def run(*, rounds: int = 30) -> Comparison:
    """Decide steps with texts that differ in every call, so that nothing can be remembered."""
    policy, numbers = Policy.default(), itertools.count()
    messages, plain = _langchain(), _plain()

    def short() -> object:
        return policy.decide(Step.from_messages(f"Classify ticket {next(numbers)} as open or closed: the parcel is late"))

    def long(history: list[object], last: Callable[[str], object]) -> Callable[[], object]:
        def case() -> object:
            return policy.decide(Step.from_messages([*history, last(f"Ticket {next(numbers)}: and what about my other parcel?")]))

        return case

    cases = {
        "short step": short,
        "100k tokens, LangChain": long(list[object](messages), lambda text: HumanMessage(content=text)),
        "100k tokens, plain dicts": long(plain, lambda text: {"role": "user", "content": text}),
    }
    return compare("Policy.decide", cases, rounds=rounds, note="building the step included; the LangChain history reports its usage")


def _text(number: int) -> str:
    return " ".join([f"word{number}x{index}" for index in range(WORDS // 3)])


def _langchain() -> list[BaseMessage]:
    history: list[BaseMessage] = []
    for number in range(TURNS):
        sent = number * 2 * WORDS // 3
        usage = {"input_tokens": sent, "output_tokens": WORDS, "total_tokens": sent + WORDS}
        history += [HumanMessage(content=_text(2 * number)), AIMessage(content=_text(2 * number + 1), usage_metadata=usage)]
    return history


def _plain() -> list[object]:
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": next(roles), "content": _text(number)} for number in range(2 * TURNS)]
