"""Runs the benchmarks and prints their ratios: `python -m benchmarks [NAME ...] [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

os.environ.setdefault("ANTHROPIC_OPEN_TELEMETRY", "false")  # the SDK's own span would be measured as ours

from rich.console import Console

from benchmarks import authors, chat_model, decide, decide_stream, emitting, peers, quality, report, trace_sql, trajectories, turns
from benchmarks.measure import Comparison

BENCHMARKS = {
    "decide": lambda rounds: [decide.run(rounds=rounds)],
    "emitting": lambda rounds: emitting.run(rounds=rounds),
    "chat_model": lambda rounds: chat_model.run(rounds=rounds),
    "graphs": lambda rounds: import_module("benchmarks.graphs").run(rounds=rounds),  # LangGraph takes seconds to load
    "peers": lambda rounds: peers.run(rounds=rounds),
}


OTHERS = ("decide_stream", "trace_sql", "report", "quality", "authors", "turns", "trajectories")
"""Those that are named to be run: they take long, or want data."""


def main() -> None:
    parser = _parser()
    given = parser.parse_args()
    if "decide_stream" in given.names:
        flat = decide_stream.main(Console(), given.records, given.json)
        given.names.remove("decide_stream")
        if not flat or not given.names:
            sys.exit(0 if flat else 1)
    if "quality" in given.names:
        if given.data is None or not given.data.is_file():
            parser.error("quality needs labelled steps: --data FILE, like task_classes/dev.jsonl.gz of the reference data")
        quality.main(given.data, Console())
        if given.page:
            quality.page(given.data, given.page)
        if given.picture:
            quality.picture(given.data, given.picture)
        given.names.remove("quality")
        if not given.names:
            return
    if "authors" in given.names:
        authors.main(Console())
        given.names.remove("authors")
        if not given.names:
            return
    if "turns" in given.names:
        broken = turns.main(Console(), turns=given.turns, seed=given.seed).broken
        given.names.remove("turns")
        if broken or not given.names:
            sys.exit(1 if broken else 0)
    if "trajectories" in given.names:
        if given.data is None or not given.data.is_dir():
            parser.error("trajectories needs recorded runs: --data FOLDER, like outcomes/ of the reference data")
        trajectories.main(given.data, Console(), seed=given.seed)
        given.names.remove("trajectories")
        if not given.names:
            return
    if "report" in given.names:
        report.run()
        given.names.remove("report")
        if not given.names:
            return
    timed = {**BENCHMARKS, "trace_sql": lambda rounds: trace_sql.run(rounds=rounds, spans=given.spans)}
    if unknown := [name for name in given.names if name not in timed]:
        parser.error(f"unknown benchmark {', '.join(unknown)}; known: {', '.join([*BENCHMARKS, *OTHERS])}")
    console, done = Console(), list[Comparison]()
    for name in given.names or BENCHMARKS:
        for comparison in timed[name](given.rounds):
            console.print(comparison.table())
            done.append(comparison)
        if name == "peers":
            load, first = peers.cold_load_ms()
            console.print(f"weights read by a fresh interpreter in {load:.1f} ms; its first decision takes {first:.1f} ms")
    if given.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()}
        given.json.write_text(json.dumps({"machine": machine, "comparisons": [each.to_json() for each in done]}, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which: {', '.join(BENCHMARKS)}; {', '.join(OTHERS)}; those before the semicolon when none is",
    )
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="labelled steps for quality (gzipped JSONL); the folder of outcome data for trajectories"
    )
    parser.add_argument("--records", type=int, default=decide_stream.RECORDS, help="for decide_stream")
    parser.add_argument("--spans", type=int, default=trace_sql.SPANS, help="in the file of trace_sql")
    parser.add_argument("--turns", type=int, default=20_000, help="how many turns to simulate")
    parser.add_argument("--seed", type=int, default=7, help="of the simulation and of resampling")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--page", type=Path, metavar="FILE", help="with quality: write what goes wrong as Markdown")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="with quality: draw reliability and risk–coverage; needs the bench extra"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


if __name__ == "__main__":
    main()
