"""Measures decisions on labelled steps from sources the classifier was never fitted to."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from routed_agents import Policy, Step
from routed_agents.offline.bounds import lower_bound, upper_bound
from routed_agents.policy import Stance

LONG: Final = 50_000
SHOWN: Final = ("id", "system", "messages", "approx_tokens", "tools")
"""Keys of a labelled row that the policy sees; its labels, source and variant it never does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A row and what was decided for it."""

    row: Mapping[str, Any]
    task_class: str
    strong: bool
    p_strong: float
    unsure: bool

    @property
    def wanted(self) -> str:
        return str(self.row["route"])

    @property
    def source(self) -> str:
        return str(self.row["source"]).partition(":")[0]


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Labelled step records, gzipped JSONL."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def judge(rows: Iterable[Mapping[str, Any]], *, stance: Stance, tools: bool = True) -> list[Judged]:
    """Decide every row by itself."""
    policy = Policy.default(stance=stance)
    found: list[Judged] = []
    for row in rows:
        record = {key: row[key] for key in SHOWN if row.get(key) is not None and (tools or key != "tools")}
        decision = policy.decide(Step.from_record(record))
        found.append(
            Judged(
                row=row,
                task_class=decision.task_class,
                strong=decision.rank != 0,
                p_strong=decision.p_strong,
                unsure=decision.unsure,
            )
        )
    return found


def share(judged: Sequence[Judged], right: Callable[[Judged], bool]) -> str:
    """A share with its exact 95 % interval."""
    if not judged:
        return "–"
    good, total = sum(map(right, judged)), len(judged)
    low, high = lower_bound(good, total, confidence=0.975), upper_bound(good, total, confidence=0.975)
    return f"{good / total:.3f} ({low:.2f}–{high:.2f})"


def strong_recall(judged: Iterable[Judged], *, most: int | None = None) -> tuple[int, int]:
    """How many steps that must go strong did, and how many there are; with `most`, only those of up to so many tokens."""
    strong = [each for each in judged if each.wanted == "strong" and (most is None or each.row["approx_tokens"] <= most)]
    return sum(each.strong for each in strong), len(strong)


def cheap_recall(judged: Iterable[Judged]) -> tuple[int, int]:
    """How many cheap steps stayed cheap."""
    cheap = [each for each in judged if each.wanted == "cheap"]
    return sum(not each.strong for each in cheap), len(cheap)


def macro_f1(judged: Sequence[Judged]) -> float:
    """Mean over the classes of the harmonic mean of precision and recall."""
    return sum(f1_by_class(judged).values()) / len({each.row["task_class"] for each in judged})


def f1_by_class(judged: Sequence[Judged]) -> dict[str, float]:
    """F1 of each class."""
    true, told, hit = Counter[str](), Counter[str](), Counter[str]()
    for each in judged:
        wanted = str(each.row["task_class"])
        true[wanted] += 1
        told[each.task_class] += 1
        hit[wanted] += wanted == each.task_class
    return {key: 2 * hit[key] / (true[key] + told[key]) for key in true}


def calibration_error(judged: Sequence[Judged], *, bins: int = 15) -> float:
    """Expected calibration error of `p_strong` over steps whose route is certain, in bins of equal width."""
    known = [each for each in judged if each.wanted in ("cheap", "strong")]
    boxes: dict[int, list[Judged]] = defaultdict(list)
    for each in known:
        boxes[min(int(each.p_strong * bins), bins - 1)].append(each)
    return sum(
        abs(sum(each.p_strong for each in part) - sum(each.wanted == "strong" for each in part)) for part in boxes.values()
    ) / max(len(known), 1)


def summary(judged: Sequence[Judged]) -> dict[str, float]:
    """The figures of the acceptance list."""
    (strong, all_strong), (short, all_short), (cheap, all_cheap) = (
        strong_recall(judged), strong_recall(judged, most=LONG), cheap_recall(judged),
    )  # fmt: skip
    return {
        "strong recall": strong / all_strong,
        "strong recall, up to 50k": short / all_short,
        "cheap recall": cheap / all_cheap,
        "macro-F1": macro_f1(judged),
        "calibration error": calibration_error([each for each in judged if each.row["approx_tokens"] <= LONG]),
    }


def main(data: Path, console: Console, *, details: bool = True) -> dict[str, dict[str, float]]:
    """Print every table; returns the summaries."""
    rows = rows_of(data)
    sets: dict[str, list[Judged]] = {
        "conservative": judge(rows, stance="conservative"),
        "conservative, tools hidden": judge(rows, stance="conservative", tools=False),
        "balanced": judge(rows, stance="balanced"),
        "frugal": judge(rows, stance="frugal"),
    }
    summaries = {name: summary(judged) for name, judged in sets.items()}
    head = _table("decisions", "set", *summaries["conservative"])
    for name, figures in summaries.items():
        head.add_row(name, *[f"{value:.3f}" for value in figures.values()])
    console.print(head)
    if details:
        judged = sets["conservative"]
        f1 = f1_by_class(judged)
        for title, key in (
            ("by class", lambda each: f"{each.row['class_no']:>2} {each.row['task_class']}"),
            ("by source", lambda each: f"{each.row['class_no']:>2} {each.source}"),
            ("by variant", None),
        ):
            console.print(_breakdown(title, judged, key, f1 if title == "by class" else {}))
        console.print(_confusion(judged))
        console.print(_balanced_shares(sets["balanced"]))
    return summaries


def _breakdown(title: str, judged: Sequence[Judged], key: Callable[[Judged], str] | None, f1: Mapping[str, float]) -> Table:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for each in judged:
        for name in [key(each)] if key else each.row["variant"] or ["(none)"]:
            groups[name].append(each)
    table = _table(title, "group", "rows", "class right", "strong kept strong", "cheap kept cheap", "unsure", *(["F1"] if f1 else []))
    for name in sorted(groups):
        part = groups[name]
        strong = [each for each in part if each.wanted == "strong"]
        cheap = [each for each in part if each.wanted == "cheap"]
        row = [
            name,
            str(len(part)),
            share(part, lambda each: each.task_class == each.row["task_class"]),
            share(strong, lambda each: each.strong),
            share(cheap, lambda each: not each.strong),
            f"{sum(each.unsure for each in part) / len(part):.2f}",
        ]
        table.add_row(*row, *([f"{f1[name[3:]]:.3f}"] if f1 else []))
    return table


def _confusion(judged: Sequence[Judged]) -> Table:
    counts = Counter((each.row["class_no"], each.row["task_class"], each.task_class) for each in judged)
    table = _table("taken for", "class", "most often taken for")
    for number, name in sorted({(number, name) for number, name, _ in counts}):
        others = sorted(((count, told) for (_, true, told), count in counts.items() if true == name and told != name), reverse=True)
        table.add_row(f"{number:>2} {name}", ", ".join(f"{told} {count}" for count, told in others[:5]))
    return table


def _balanced_shares(judged: Sequence[Judged]) -> Table:
    table = _table("balanced: share sent strong", "class", "rows", "share")
    groups: dict[str, list[Judged]] = defaultdict(list)
    for each in judged:
        groups[f"{each.row['class_no']:>2} {each.row['task_class']}"].append(each)
    for name in sorted(groups):
        table.add_row(name, str(len(groups[name])), f"{sum(each.strong for each in groups[name]) / len(groups[name]):.2f}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table
