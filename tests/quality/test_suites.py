"""What decides a step is its instruction: held against pairs of instructions over one payload, other typings, and payloads that lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.quality.suites import PAIRS, PERTURBATIONS, UNREAD, Case, cases, injected, rank, reordered

MOST_SHOWN = 12
RIGHT = {PAIRS: {False: 0.9, True: 0.93}, UNREAD: {False: 0.85, True: 0.98}}
"""By suite and side. The goal is 0.95 on both; what is reached is held here, lest it fall unseen. Figures: benchmarks/FAILURES.md."""
ALIKE = 0.99
"""Of the decisions, under another typing of the words or another order of a payload's sentences."""


def shown(missed: list[Case]) -> str:
    return "; ".join(f"[{case.task_class}] {case.system or ''} {case.ask}"[:160] for case in missed[:MOST_SHOWN])


@pytest.mark.parametrize("strong", [False, True], ids=["cheap side", "strong side"])
@pytest.mark.parametrize("suite", RIGHT, ids=["read", "unread"])
def test_the_same_payload_goes_where_its_instruction_says(suite: Path, strong: bool) -> None:
    side = [case for case in cases(suite) if case.strong == strong]
    missed = sum((rank(case.step()) > 0) != strong for case in side)

    assert len(side) >= 300
    assert 1 - missed / len(side) >= RIGHT[suite][strong], f"{missed} of {len(side)} missed"


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_another_typing_of_the_same_words_decides_alike(name: str) -> None:
    changed = [case for case in cases() if rank(case.step()) != rank(case.step(change=PERTURBATIONS[name]))]

    assert 1 - len(changed) / len(cases()) >= ALIKE, f"{len(changed)} of {len(cases())} changed: {shown(changed)}"


def test_the_order_of_a_payloads_sentences_decides_nothing() -> None:
    changed = [case for case in cases() if rank(case.step()) != rank(case.step(reordered(case.payload)))]

    assert 1 - len(changed) / len(cases()) >= ALIKE, f"{len(changed)} of {len(cases())} changed: {shown(changed)}"


def test_no_payload_talks_its_step_down() -> None:
    lowered = [
        case for case in cases() if (before := rank(case.step())) and any(rank(case.step(text)) < before for text in injected(case.payload))
    ]

    assert not lowered, f"{len(lowered)} lowered: {shown(lowered)}"
