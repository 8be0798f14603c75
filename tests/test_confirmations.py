"""Confirmations: messages that say nothing but yes, or go on."""

from __future__ import annotations

import pytest

from routed_agents.confirmations import is_confirmation


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "Yes please.", "OK!", "do it", "go ahead", "continue", "next", "sure, go on", "yes, do all of them"),
        *("ja", "Mach weiter", "ja, bitte", "weiter", "oui", "vas-y", "D'accord, continue", "sí", "dale", "sim", "va bene, procedi"),
        *("是", "好的", "继续", "はい", "お願いします", "네", "да", "давай, продолжай", "نعم", "हाँ", "evet", "tak", "👍", "…", ""),
    ],
)
def test_a_confirmation_is_known_in_many_languages(text: str) -> None:
    assert is_confirmation(text)


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "thanks",
        "please",
        "that",
        "yes, but shorter",
        "continue the proof",
        "next week",
        "do it in Rust",
        "1",
        "是什么",
        "nein",
        "yes " * 6,
    ],
)
def test_what_says_more_or_something_else_is_none(text: str) -> None:
    assert not is_confirmation(text)
