"""Decisions on labelled public steps, which the weights were never fitted to, stay as good as they were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.quality import calibration_error, cheap_recall, judge, macro_f1, rows_of, strong_recall

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def judged(reference_data: Path):
    file = reference_data / "task_classes" / "dev.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no labelled steps at {file.name} of the reference data")
    return judge(rows_of(file), stance="conservative")


@pytest.mark.parametrize(("most", "least"), [(None, 0.94), (50_000, 0.92)])
def test_steps_that_must_go_strong_do(judged, most, least) -> None:
    kept, total = strong_recall(judged, most=most)

    assert kept / total >= least


def test_cheap_steps_stay_cheap(judged) -> None:
    kept, total = cheap_recall(judged)

    assert kept / total >= 0.90


def test_classes_are_told_apart(judged) -> None:
    assert macro_f1(judged) >= 0.74


def test_p_strong_is_honest(judged) -> None:
    assert calibration_error([each for each in judged if each.row["approx_tokens"] <= 50_000]) <= 0.05
