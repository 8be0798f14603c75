"""Streams step records through `routed-agents decide` and looks whether its memory stays flat."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Final

from rich import box
from rich.console import Console
from rich.table import Table

from routed_agents.offline.corpus import Corpus

CORPUS: Final = Path(__file__).parent.parent / "corpus"
RECORDS: Final = 100_000
FEWER: Final = 10
"""The smaller run has so many times fewer records."""
FLAT_MB: Final = 16
"""Megabytes by which the larger run's peak may exceed the smaller one's: what an allocator's arenas and a few caches come to."""
CHILD: Final = """
import os, sys
from routed_agents.cli import main
code = main(sys.argv[1:])
used = os.times()
peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]  # not ru_maxrss, in which a child begins with its parent's
print(f"\\nmeasured {code or 0} {peak} {used.user + used.system}", file=sys.stderr)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What deciding so many records took.

    Attributes:
        records: step records in.
        decisions: decision records out.
        in_mb: size of what went in.
        peak_mb: most memory the process held at a time.
        cpu_s: processor seconds it used, starting up included.
        start_s: processor seconds of a run without records, which is what starting up takes.
    """

    records: int
    decisions: int
    in_mb: float
    peak_mb: float
    cpu_s: float
    start_s: float

    @property
    def per_s(self) -> float:
        """Records a second of processor time, without starting up; how long the records took to make doesn't count."""
        return self.records / (self.cpu_s - self.start_s)

    def to_json(self) -> dict[str, float]:
        """Plain JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"per_s": self.per_s}


def records(count: int) -> Iterator[bytes]:
    """Step records made from the corpus as they are read, each with words that no other has, so that nothing remembered hides."""
    corpus, dice = Corpus.load(CORPUS), random.Random(7)
    made = 0
    while True:
        for example in corpus.examples(each=2, seed=made):
            if made >= count:
                return
            record = example.step.to_record()
            messages: list[dict[str, object]] = record["messages"]  # type: ignore[assignment]
            word = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=9))
            messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']} ({word} {made:x})"}
            made += 1
            yield json.dumps({**record, "id": f"{made}"}).encode() + b"\n"


def measured(count: int, start_s: float = 0.0) -> Run:
    """Have a process of its own decide so many records, read from a pipe."""
    argv = [sys.executable, "-c", CHILD, "decide", "-"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        counting = _Lines(process.stdout)
        sent = 0
        for record in records(count):
            process.stdin.write(record)
            sent += len(record)
        process.stdin.close()
        decisions = counting.total()
        told = process.stderr.read().decode()
    code, peak, cpu = told.partition("\nmeasured ")[2].split()
    if process.returncode or code != "0":
        raise RuntimeError(f"decide ended with {process.returncode}, {code}: {told[-2000:]}")
    return Run(records=count, decisions=decisions, in_mb=sent / 2**20, peak_mb=int(peak) / 1024, cpu_s=float(cpu), start_s=start_s)


class _Lines:
    """Counts a pipe's lines while somebody else writes into the process at its other end."""

    def __init__(self, pipe: IO[bytes]) -> None:
        from threading import Thread

        self._count = 0
        self._pipe = pipe
        self._thread = Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for _ in self._pipe:
            self._count += 1

    def total(self) -> int:
        self._thread.join()
        return self._count


def run(count: int = RECORDS) -> list[Run]:
    """A tenth of the records, then all of them."""
    start_s = measured(0).cpu_s
    return [measured(count // FEWER, start_s), measured(count, start_s)]


def main(console: Console, count: int = RECORDS, out: Path | None = None) -> bool:
    """Print the figures, and write them where asked; whether memory stays flat."""
    runs = run(count)
    console.print(table(runs))
    if out is not None:
        out.write_text(json.dumps([each.to_json() for each in runs], indent=2) + "\n")
    return is_flat(runs)


def is_flat(runs: list[Run]) -> bool:
    """Whether every record was decided and the larger run needed no more memory than the smaller one."""
    return all(each.decisions == each.records for each in runs) and runs[-1].peak_mb - runs[0].peak_mb <= FLAT_MB


def table(runs: list[Run]) -> Table:
    """The figures for rich to print."""
    grown = runs[-1].peak_mb - runs[0].peak_mb
    caption = f"{grown:+.1f} MB at the peak for {runs[-1].records // runs[0].records} times the records; up to {FLAT_MB} MB counts as flat"
    title = "routed-agents decide, streaming"
    found = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for head in ("records", "decisions", "in MB", "peak MB", "CPU s", "records a CPU second"):
        found.add_column(head, justify="right", no_wrap=True)
    for each in runs:
        counts, sizes = (f"{each.records:,}", f"{each.decisions:,}"), (f"{each.in_mb:.1f}", f"{each.peak_mb:.1f}")
        found.add_row(*counts, *sizes, f"{each.cpu_s:.1f}", f"{each.per_s:,.0f}")
    return found
