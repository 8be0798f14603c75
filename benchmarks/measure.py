"""Measures calls side by side, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one case took.

    Attributes:
        median_us: median over the rounds of a call's mean time.
        low_us: a tenth of the rounds were faster.
        high_us: a tenth were slower.
        ratio: median over the rounds of this case's time over the first case's in the same round.
        ratio_low: a tenth of the rounds had less.
        ratio_high: a tenth had more.
    """

    name: str
    median_us: float
    low_us: float
    high_us: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Cases measured together; ratios are against the first."""

    title: str
    figures: tuple[Figure, ...]
    rounds: int
    calls: int
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        figures = [{name: getattr(figure, name) for name in Figure.__slots__} for figure in self.figures]
        return {"title": self.title, "rounds": self.rounds, "calls": self.calls, "note": self.note, "figures": figures}

    def table(self) -> Table:
        """The figures for rich to print."""
        lines = [
            f"{self.rounds} interleaved rounds of {self.calls} calls; ranges leave out the outer tenths",
            *([self.note] if self.note else []),
        ]
        table = Table(title=self.title, caption="\n".join(lines), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("case", no_wrap=True)
        for head in ("us a call", "range", "ratio", "range"):
            table.add_column(head, justify="right", no_wrap=True)
        for figure in self.figures:
            table.add_row(
                figure.name,
                f"{figure.median_us:,.0f}",
                f"{figure.low_us:,.0f}–{figure.high_us:,.0f}",
                f"{figure.ratio:.2f}",
                f"{figure.ratio_low:.2f}–{figure.ratio_high:.2f}",
            )
        return table


def compare(
    title: str, cases: Mapping[str, Callable[[], object]], *, rounds: int = 30, calls: int = 50, warmup: int = 20, note: str = ""
) -> Comparison:
    """Time cases against each other: every round runs each of them, in an order of its own."""
    order = list(cases)
    for case in cases.values():
        for _ in range(warmup):
            case()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    shuffle = random.Random(0).shuffle
    gc.collect()
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            taken[name].append(_time(cases[name], calls))
    first = taken[next(iter(cases))]
    figures: list[Figure] = []
    for name, times in taken.items():
        ratios = [mine / other for mine, other in zip(times, first, strict=True)]
        (low, high), (ratio_low, ratio_high) = _range(times), _range(ratios)
        figures.append(
            Figure(
                name=name,
                median_us=statistics.median(times),
                low_us=low,
                high_us=high,
                ratio=statistics.median(ratios),
                ratio_low=ratio_low,
                ratio_high=ratio_high,
            )
        )
    return Comparison(title=title, figures=tuple(figures), rounds=rounds, calls=calls, note=note)


def _time(case: Callable[[], object], calls: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(calls):
        case()
    return (time.perf_counter_ns() - began) / calls / 1000


def _range(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    cut = len(ordered) // 10
    return ordered[cut], ordered[-1 - cut]
