"""Speech is who said what in a conversation: the person now, the person before, and those who set the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from routed_agents.errors import StepError
from routed_agents.steps import Role, beside_results, role_of, text_of

LEADING: Final = 8
"""Messages at the start among which system prompts are looked for."""
LISTENED_BACK: Final = 48
"""Messages before the last human one that are looked through for what was said earlier."""
REMEMBERED: Final = 6
"""Earlier human messages that are listened to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """Who said what before the message that asks.

    Attributes:
        together: human messages right before it, without a reply between, oldest first.
        earlier: human messages before those, newest first.
        added: what programs said beside tool results before it, newest first.
        rules: texts of system messages that came after the first human one, oldest first.
        offered: the reply that it answers.
    """

    together: tuple[object, ...] = ()
    earlier: tuple[object, ...] = ()
    added: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    offered: object | None = None


SILENCE: Final = Speech()


def heard_before(messages: Sequence[object], asked: int, leading: int) -> Speech:
    """Listen back from the message that asks, and not far.

    Args:
        messages: the history.
        asked: the place of the last human message.
        leading: how many messages at the start are system prompts.
    """
    if asked <= leading:
        return SILENCE
    together: list[object] = []
    earlier: list[object] = []
    added: list[str] = []
    rules: list[str] = []
    offered: object | None = None
    answered = False
    for message in reversed(messages[max(leading, asked - LISTENED_BACK) : asked]):
        role = known_role(message)
        if role == "human":
            (earlier if answered else together).append(message)
            if len(together) + len(earlier) == REMEMBERED:
                break
        elif role == "system":
            rules.append(text_of(message))
        else:
            answered = True
            if role == "tool":
                added += [words] if (words := beside_results(message)) else []
            elif offered is None and not earlier:
                offered = message
    return Speech(
        together=tuple(together[::-1]),
        earlier=tuple(earlier),
        added=tuple(added[:REMEMBERED]),
        rules=tuple(rules[::-1]),
        offered=None if together else offered,
    )


def leading_rules(messages: Sequence[object]) -> tuple[int, tuple[str, ...]]:
    """How many messages at the very start are system prompts, and the texts of all before the first human message."""
    texts: list[str] = []
    leading, unbroken = 0, True
    for message in messages[:LEADING]:
        role = known_role(message)
        if role == "human":
            break
        if role == "system":
            texts.append(text_of(message))
            leading += unbroken
        else:
            unbroken = False
    return leading, tuple(texts)


def known_role(message: object) -> Role:
    """The role; a message nobody understands counts as a model's, which never opens a turn."""
    try:
        return role_of(message)
    except StepError:
        return "ai"
