"""Replays recorded runs of agents: when each guard would have sent them up, and whether that was before the decisive mistake."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from routed_agents import Policy
from routed_agents.offline.bounds import lower_bound, upper_bound
from routed_agents.offline.trajectories import Pinning, Replayed, at_random, by_length, located, pinning, read_trajectory, replay

SERVICE: Final = "tau_airline_gpt4o_trajectories.jsonl.gz"
FAILURES: Final = "whowhen_failures.jsonl.gz"
RESAMPLED: Final = 2_000


def runs_of(file: Path, policy: Policy, *, hindsight: bool = False) -> list[Replayed]:
    """Every recorded run of a file under a policy."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [replay(read_trajectory(json.loads(line)), policy, hindsight=hindsight) for line in lines]


def guards_in(runs: Sequence[Replayed]) -> list[str]:
    """The guards that object anywhere, by name."""
    return sorted({guard for run in runs for said in run.objections for guard in said})


def main(data: Path, console: Console, *, seed: int = 7) -> dict[str, dict[str, Any]]:
    """Print when each guard would have pinned, and how that compares with chance and length; returns the figures by guard."""
    policy = Policy.default()
    service, failures = (runs_of(data / name, policy) for name in (SERVICE, FAILURES))
    informed = runs_of(data / FAILURES, policy, hindsight=True)
    console.print(_when("tau airline, conversations with tools", service))
    console.print(_when("Who&When, failed runs of agent systems", failures))
    for kind in sorted({run.trajectory.category for run in failures}):
        some, told = ([run for run in runs if run.trajectory.category == kind] for runs in (failures, informed))
        console.print(_against(f"strong at or before the decisive mistake: {kind}", compare(some, told, seed=seed), some))
    found = compare(failures, informed, seed=seed)
    console.print(_against("strong at or before the decisive mistake: both", found, failures))
    console.print(NOTES)
    return found


def compare(failures: Sequence[Replayed], informed: Sequence[Replayed], *, seed: int) -> dict[str, dict[str, Any]]:
    """Each guard alone, and all of them, against a pin set at random and one set by length, at equal shares of strong steps."""
    runs, told = list(located(failures)), list(located(informed))
    ways = {name: (pinning(name, runs, [name]), runs) for name in guards_in(runs)}
    ways |= {
        f"stall: {code.replace('_', ' ')}": (_by_code(code, runs), runs)
        for code in sorted({code for run in runs for said in run.objections for code in said.get("stall", ())})
    }
    ways["compounding, told the rest"] = (pinning("compounding", told, ["compounding"]), told)
    ways["all, as shipped"] = (pinning("all", runs), runs)
    found: dict[str, dict[str, Any]] = {}
    for name, (way, given) in ways.items():
        share, caught = way.share(given), way.caught(given)
        length = by_length(given, share)
        chance, by_size = at_random(given, share), length.caught(given)
        found[name] = {
            "runs": len(given),
            "pinned": sum(start is not None for start in way.starts),
            "share": share,
            "caught": sum(caught),
            "random": sum(chance) / len(given),
            "length": sum(by_size) / len(given),
            "length_share": length.share(given),
            "over_share": _interval([hit - share for hit in caught], seed),
            "over_random": _interval([hit - other for hit, other in zip(caught, chance, strict=True)], seed),
            "over_length": _interval([hit - other for hit, other in zip(caught, by_size, strict=True)], seed),
        }
    return found


def _by_code(code: str, runs: Sequence[Replayed]) -> Pinning:
    starts = [next((at for at, said in enumerate(run.objections) if code in said.get("stall", ())), None) for run in runs]
    return Pinning(name=code, starts=tuple(starts))


def _interval(differences: Sequence[float], seed: int) -> tuple[float, float, float]:
    """A mean difference with its 95 % interval, by drawing runs again."""
    random, size = Random(seed), len(differences)
    means = sorted(sum(random.choices(differences, k=size)) / size for _ in range(RESAMPLED))
    return sum(differences) / size, means[RESAMPLED // 40], means[-1 - RESAMPLED // 40]


def _when(title: str, runs: Sequence[Replayed]) -> Table:
    steps = sum(len(run.strong) for run in runs)
    strong = sum(sum(run.strong) for run in runs)
    stops = Counter(code for run in runs for code in run.stopped if code)
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.caption = (
        f"{len(runs)} runs, {steps:,} model steps; as shipped {strong / steps:.1%} of them strong, pins included; stops: "
        f"{', '.join(f'{count} {code}' for code, count in stops.items()) or 'none'}"
    )
    for head in ("guard", "runs pinned", "first at model step, median", "range", "of all objections, code"):
        table.add_column(head, justify="left" if head in ("guard", "of all objections, code") else "right")
    for name in guards_in(runs):
        firsts = [first + 1 for run in runs if (first := run.first([name])) is not None]
        codes = Counter(code for run in runs for said in run.objections for code in said.get(name, ()))
        table.add_row(
            name,
            f"{len(firsts)} of {len(runs)}",
            f"{median(firsts):g}",
            f"{min(firsts)}–{max(firsts)}",
            ", ".join(f"{count} {code}" for code, count in codes.most_common(4)),
        )
    return table


NOTES: Final = """Each way is strong from its first objection to the end of the run. Beside it, at the same share of strong steps:
share: runs sent up whole by chance, which catch the share itself; random pin: every step has the same chance to start; length: from a
prompt length on. Intervals are 95 %, exact for shares and by drawing runs again for differences. The share of both kinds together flatters
whatever fires in short runs, so read the kinds apart. The recordings are of one model: that a stronger one would not have erred is not
shown. "Told the rest" knows in hindsight how many model steps followed."""


def _against(title: str, found: dict[str, dict[str, Any]], failures: Sequence[Replayed]) -> Table:
    known = next(iter(found.values()))["runs"]
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.caption = f"{known} failed runs; {len(failures) - known} more have their mistake before any model step, where nobody could route"
    for head in ("way", "pinned", "strong steps", "caught", "95 %", "over share", "over random pin", "over length"):
        table.add_column(head, justify="left" if head == "way" else "right", no_wrap=True)
    for name, row in found.items():
        caught, runs = row["caught"], row["runs"]
        low, high = lower_bound(caught, runs, confidence=0.975), upper_bound(caught, runs, confidence=0.975)
        table.add_row(
            name,
            str(row["pinned"]),
            f"{row['share']:.1%}",
            f"{caught / runs:.1%}",
            f"{low:.0%}–{high:.0%}",
            *["{:+.0%} ({:+.0%} to {:+.0%})".format(*row[key]) for key in ("over_share", "over_random", "over_length")],
        )
    return table
