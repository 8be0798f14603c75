"""Measures decisions on labelled steps from sources the classifier was never fitted to."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from routed_agents import Policy, Step
from routed_agents.classify import shipped
from routed_agents.offline.bounds import lower_bound, upper_bound
from routed_agents.policy import Stance

if TYPE_CHECKING:
    from tests.quality.suites import Case

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
    confidence: float
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
                confidence=decision.confidence,
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
    return sum(abs(sum(each.p_strong for each in part) - sum(each.wanted == "strong" for each in part)) for part in boxes.values()) / max(
        len(known), 1
    )


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


def page(data: Path, place: Path) -> None:
    """Write what goes wrong, by class and source, and the misses of our own suite; of the reference data only names and figures."""
    from tests.quality import suites

    judged = judge(rows_of(data), stance="conservative")
    figures = summary(judged)
    lines = [
        "# What the classifier gets wrong",
        "",
        f"Policy `{Policy.default(stance='conservative').hash}`, weights `{shipped().digest}`, stance `conservative`, classes undeclared.",
        "Written by `make failures`; intervals are exact (Clopper and Pearson, 95 %). The reference steps come from public sources the",
        "weights never saw; their texts are not shown here.",
        "",
        "| measure | figure |",
        "|---|---|",
        *[f"| {name} | {value:.3f} |" for name, value in figures.items()],
        "",
        "## Reference steps by class and source",
        "",
        "| class | source | rows | class right | strong kept strong | cheap kept cheap |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[int, str, str], list[Judged]] = defaultdict(list)
    for each in judged:
        groups[(each.row["class_no"], each.row["task_class"], each.source)].append(each)
    for (_, name, source), part in sorted(groups.items()):
        strong = [each for each in part if each.wanted == "strong"]
        cheap = [each for each in part if each.wanted == "cheap"]
        right = share(part, lambda each: each.task_class == each.row["task_class"])
        row = [name, source, str(len(part)), right, share(strong, lambda each: each.strong), share(cheap, lambda each: not each.strong)]
        lines.append(f"| {' | '.join(row)} |")
    lines += [
        "",
        "## Pairs of instructions over one payload, read by nobody",
        "",
        "Written by three authors who saw neither the corpus nor the classifier; which of them are missed is not looked at.",
        "",
        *_sides(suites.cases(suites.UNREAD)),
        "",
        "## Pairs of instructions over one payload, laconic on purpose",
        "",
        "Their misses were read while the corpus grew, and some of its authors were told what kind of thing was missed, so these figures",
        "flatter.",
        "",
        *_sides(suites.cases()),
    ]
    misses = [
        f"- {case.task_class}, sent {'cheap' if case.strong else 'strong'}: {_one_line(case)[:170]}"
        for case in suites.cases()
        if not _right(case)
    ]
    lines += ["", f"The {len(misses)} misses of the latter:", "", *misses, ""]
    place.write_text("\n".join(lines), encoding="utf-8")


def _sides(cases: Iterable[Case]) -> list[str]:
    """A table of how many of each side went the right way, by language."""
    sides: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for case in cases:
        side, right = "strong" if case.strong else "cheap", _right(case)
        for language in ("all", _language(case.ask + (case.system or ""))):
            sides[side, language].append(right)
    found = ["| side | language | pairs | right |", "|---|---|---|---|"]
    for (side, language), right in sorted(sides.items()):
        low, high = (bound(sum(right), len(right), confidence=0.975) for bound in (lower_bound, upper_bound))
        found.append(f"| {side} | {language} | {len(right)} | {sum(right) / len(right):.3f} ({low:.2f}–{high:.2f}) |")
    return found


def _right(case: Case) -> bool:
    from tests.quality import suites

    return (suites.rank(case.step()) > 0) == case.strong


def _one_line(case: Case) -> str:
    return " ".join(f"{case.system or ''} {case.ask}".split()).replace("|", "/")


def _language(text: str) -> str:
    """A rough guess for a table: the script, and a few words no other of these languages has."""
    if any("\u3040" <= character <= "\u30ff" for character in text):
        return "Japanese"
    if any("\u4e00" <= character <= "\u9fff" for character in text):
        return "Chinese"
    words = {*text.lower().split()}
    for language, marks in {
        "German": {"der", "die", "das", "und", "ist", "diese", "bitte", "antworte", "eine"},
        "French": {"le", "les", "des", "est", "une", "réponds", "pour", "dans", "ce"},
        "Spanish": {"el", "los", "una", "del", "por", "responde", "con", "mensaje:"},
    }.items():
        if len(words & marks) >= 2:
            return language
    return "English"


def picture(data: Path, place: Path) -> None:
    """Draw the reliability of p_strong and the risk–coverage curve of the class; needs matplotlib."""
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    judged = judge(rows_of(data), stance="conservative")
    known = [each for each in judged if each.wanted in ("cheap", "strong") and each.row["approx_tokens"] <= LONG]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    points = [[each for each in known if number / 10 <= each.p_strong < (number + 1) / 10 + (number == 9)] for number in range(10)]
    told = [sum(each.p_strong for each in part) / len(part) for part in points if part]
    true = [sum(each.wanted == "strong" for each in part) / len(part) for part in points if part]
    left.plot([0, 1], [0, 1], color="grey", linewidth=1)
    left.plot(told, true, marker="o")
    for part, x, y in zip([part for part in points if part], told, true, strict=True):
        left.annotate(str(len(part)), (x, y), textcoords="offset points", xytext=(6, -10), fontsize=8)
    left.set(
        title=f"p_strong: expected calibration error {calibration_error(known):.3f}", xlabel="told", ylabel="share that must go strong"
    )
    ordered = sorted(judged, key=lambda each: -each.confidence)
    wrong, risks = 0, []
    for number, each in enumerate(ordered, start=1):
        wrong += each.task_class != each.row["task_class"]
        risks.append(wrong / number)
    right.plot([number / len(ordered) for number in range(1, len(ordered) + 1)], risks)
    right.set(
        title="risk and coverage of the class",
        xlabel="share of steps classified, surest first",
        ylabel="share of them wrong",
        ylim=(0, None),
    )
    figure.tight_layout()
    figure.savefig(place, dpi=110)


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
