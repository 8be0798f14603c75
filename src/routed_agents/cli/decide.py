"""`decide`: step records in, decision records out."""

from __future__ import annotations

import argparse
import json
import sys

from routed_agents.cli import FOUND, OK
from routed_agents.cli.arguments import add_output, add_policy, policy_of
from routed_agents.cli.progress import progress
from routed_agents.cli.records import RECORDS, Complaints, read_steps
from routed_agents.printable import harmless

EVERY = 500
"""Steps between two moves of the progress bar."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Step records in (JSONL, also gzipped), decision records out, one line each, in the same order. "
        "Each step is decided by itself: what a thread would remember from its earlier steps is not known here."
    )
    parser.epilog = RECORDS
    parser.add_argument("file", metavar="FILE", help="step records, or - for standard input")
    add_policy(parser)
    parser.add_argument("--explain", action="store_true", help="say why, in words; may quote the step")
    add_output(parser, json="print decision records also with --explain, with the words in them")
    parser.set_defaults(act=decide)


def decide(args: argparse.Namespace) -> int:
    policy = policy_of(args)
    complaints = Complaints(args.file)
    live = args.file == "-" or sys.stdout.isatty()
    done = 0
    with progress("steps", None, shown=not sys.stdout.isatty()) as advance:
        for number, step, _ in read_steps(args.file, complaints):
            try:
                decision = policy.decide(step)
            except Exception as error:  # one strange record must not take the others with it
                complaints(number, f"cannot be decided: {type(error).__name__}: {error}")
                continue
            if args.explain and not args.json:
                sys.stdout.write(f"{harmless(policy.explain(decision))}\n\n")
            else:
                record = decision.to_record(evidence=args.explain or policy.capture_evidence)
                if args.explain:
                    record["explanation"] = policy.explain(decision)
                sys.stdout.write(f"{json.dumps(record)}\n")
            if live:
                sys.stdout.flush()
            done += 1
            if done % EVERY == 0:
                advance(EVERY)
    complaints.close()
    return FOUND if complaints.count else OK
