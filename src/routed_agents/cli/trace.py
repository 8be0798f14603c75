"""`trace`: what a trace file holds."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from routed_agents.cli import FOUND, OK, Parser, say
from routed_agents.cli.arguments import add_output, number
from routed_agents.errors import ConfigurationError


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    drawn = verbs.add_parser("tree", help="cost tree of each run", description="Draws the cost tree of each run in a trace file.")
    drawn.add_argument("file", metavar="FILE", help="OTLP JSON lines, as run --trace writes them")
    drawn.add_argument("--input", metavar="ID", help="only the runs on this input")
    drawn.add_argument("--limit", type=number(1), metavar="N", help="only the first N runs")
    drawn.add_argument("--width", type=number(20), metavar="COLUMNS", help="of the drawing; the terminal's when not given")
    add_output(drawn, json="print one JSON object for each run")
    drawn.set_defaults(act=tree)


def tree(args: argparse.Namespace) -> int:
    from routed_agents.offline.traces import Trouble, runs
    from routed_agents.telemetry.trees import cost_trees

    if not Path(args.file).is_file():
        raise ConfigurationError(f"trace file {args.file} does not exist; name one that run --trace or configure(trace_file=...) wrote")
    troubles: list[Trouble] = []

    def complain(trouble: Trouble) -> None:
        troubles.append(trouble)
        say(str(trouble))

    found = (each for each in cost_trees(runs(args.file, on_trouble=complain)) if args.input in (None, each.input_id))
    console = None
    if not args.json:
        from rich.console import Console

        console = Console(highlight=False, width=args.width)
    shown = 0
    for each in islice(found, args.limit):
        shown += 1
        if console is None:
            sys.stdout.write(f"{json.dumps(asdict(each), default=str)}\n")
        else:
            console.print(each)
            console.print()
    if not shown:
        say(f"{args.file} holds no run" + (f" on input {args.input}" if args.input else " with a routed step"))
    return FOUND if troubles or not shown else OK
