"""Times a decision on a short step against one on a conversation of 100,000 tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from benchmarks.measure import Comparison, compare
from routed_agents import Policy, Step

TURNS = 100
SENTENCES = 30
"""Of each message, some 65 characters each: with 100 turns of question and answer about 100,000 tokens at 4 characters a token."""


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
    return " ".join([f"The parcel {number}-{index} left the depot on Tuesday and has not arrived." for index in range(SENTENCES)])


def _langchain() -> list[BaseMessage]:
    history: list[BaseMessage] = []
    sent = 0
    for number in range(TURNS):
        question, answer = _text(2 * number), _text(2 * number + 1)
        sent += len(question) // 4
        told = len(answer) // 4
        usage = {"input_tokens": sent, "output_tokens": told, "total_tokens": sent + told}
        history += [HumanMessage(content=question), AIMessage(content=answer, usage_metadata=usage)]
        sent += told
    return history


def _plain() -> list[object]:
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": next(roles), "content": _text(number)} for number in range(2 * TURNS)]
