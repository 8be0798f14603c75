"""`run`: a graph over a file of inputs."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from routed_agents.cli import FOUND, INTERRUPTED, OK, say
from routed_agents.cli.arguments import add_output, add_policy, number, policy_of
from routed_agents.cli.files import apart, there
from routed_agents.cli.progress import progress
from routed_agents.cli.records import Complaints, read_records
from routed_agents.cli.streams import printing_aside
from routed_agents.errors import ConfigurationError

if TYPE_CHECKING:
    from routed_agents.cli.graphs import LoadedGraph
    from routed_agents.cli.results import Results
    from routed_agents.cli.runner import Input, Result
    from routed_agents.telemetry.setup import Handle

FAILURES_SHOWN: Final = 10


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs a graph over a file of inputs and writes one result line for each as it ends. "
        "A run that was broken off goes on where it stopped: inputs that already ended without error in OUT are skipped, "
        "and one that broke off halfway is taken up where the graph's saver has it. "
        "Exit code 1 as long as one of them, there or now, was stopped or waits for a person. "
        "What the graph prints goes to standard error."
    )
    parser.add_argument("graph", metavar="GRAPH", help="file.py, file.py:name or module:name; the name is `graph` when not given")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="inputs, JSONL, also gzipped: step records, whose messages go into the graph"
    )
    parser.add_argument("--output", metavar="OUT", help="results, JSONL; standard output when not given")
    parser.add_argument("--restart", action="store_true", help="forget what is in OUT and run every input")
    add_policy(parser, tiers="embedded, with --provider anthropic claude")
    parser.add_argument("--mode", choices=("enforce", "shadow", "off"), help="in place of the policy's own")
    add_provider(parser)
    parser.add_argument("--ledger", metavar="FILE", help="ledger to write to, SQLite")
    parser.add_argument("--trace", metavar="FILE", help="trace file to append to, OTLP JSON lines")
    parser.add_argument("--concurrency", type=number(1), default=4, metavar="N", help="inputs under way at a time (4)")
    parser.add_argument("--limit", type=number(0), metavar="N", help="only the first N inputs")
    add_output(parser, json="print the summary as JSON")
    parser.set_defaults(act=run)


def add_provider(parser: argparse.ArgumentParser) -> None:
    """`--provider`, for the commands that call models."""
    text = "embedded: simulated answers and costs, no key and no network; anthropic: the real one"
    parser.add_argument("--provider", choices=("embedded", "anthropic"), default="embedded", help=text)


def run(args: argparse.Namespace) -> int:
    from routed_agents.cli.graphs import load_graph
    from routed_agents.cli.results import results
    from routed_agents.cli.termination import CODE, Terminated, termination
    from routed_agents.cli.workspace import workspace

    policy = policy_of(args, tiers="embedded" if args.provider == "embedded" else "claude")
    _look_at_files(args)
    complaints = Complaints(args.input)
    summary = Summary()
    with termination() as sigterm, workspace(provider=args.provider, policy=policy, ledger=args.ledger, mode=args.mode):
        handle, traced = _tracing(args.trace), True
        try:
            with printing_aside() as standard, asyncio.Runner() as loop:
                loaded = loop.run(sigterm.ends(load_graph(args.graph)))
                with results(args.output, standard, restart=args.restart) as out:
                    loop.run(sigterm.ends(_run(args, loaded, summary, complaints, out)))
        except (KeyboardInterrupt, Terminated) as ending:
            how, code = ("terminated", CODE) if isinstance(ending, Terminated) else ("interrupted", INTERRUPTED)
            say(f"{how} after {summary.ended} inputs; run the same command again to go on" if args.output else how)
            return code
        finally:
            if handle is not None:
                traced = handle.shutdown(timeout_s=5.0)
    if handle is not None and not traced:
        say(f"{args.trace}: {handle.dropped} spans could not be written; the runs they belong to are not whole there")
    if summary.unwritten:
        say(f"{args.ledger or 'the ledger'}: not all entries could be written in time; what it adds up to may be too little")
    complaints.close()
    summary.show(args)
    stopped = summary.stops or summary.stopped_before
    return FOUND if complaints.count or summary.failures or stopped or not traced or summary.unwritten else OK


async def _run(args: argparse.Namespace, loaded: LoadedGraph, summary: Summary, complaints: Complaints, out: Results) -> None:
    from routed_agents.cli.runner import run_inputs

    if args.ledger and loaded.router is None:
        say(f"{args.graph} exposes no `router`, so {args.ledger} holds only what the graph itself writes there")
    with progress(loaded.name, None, shown=bool(args.output)) as advance, redirect_stdout(sys.stderr):  # above the bar, where one is

        def ended(result: Result) -> None:
            out.write(result)
            summary.add(result)
            advance(1)

        try:
            await run_inputs(loaded, _inputs(args, complaints, out.done, summary), ended, concurrency=args.concurrency)
        finally:
            if loaded.router is not None:
                ledger = loaded.router.ledger
                summary.unwritten = not await asyncio.to_thread(ledger.flush) or ledger.lost > 0


def read_inputs(source: str, complaints: Complaints) -> Iterator[Input]:
    """The inputs of a file; one without an id is named after its messages, and a repeated id gets a number."""
    from routed_agents.cli.runner import Input

    seen: dict[str, int] = {}
    for line, record in read_records(source, complaints):
        messages: object = record.get("messages", record.get("steps"))
        if not isinstance(messages, list) or not messages:
            complaints(line, 'no messages; wanted "messages" (or "steps"): a list with at least one {"role", "content"}')
            continue
        if (wrong := _of_another_type(record)) is not None:
            complaints(line, wrong)
            continue
        name = str(record["id"]) if record.get("id") is not None else _named_after(cast("list[object]", messages))
        yield Input(id=_unlike(seen, name), line=line, record=record)


def _of_another_type(record: Mapping[str, object]) -> str | None:
    """What stands beside the messages and cannot be given to the graph."""
    for key, kind, wanted in (("system", str, "text"), ("metadata", Mapping, "an object")):
        if (given := record.get(key)) is not None and not isinstance(given, kind):
            return f'"{key}" is {type(given).__name__}; wanted {wanted}'
    return None


def _unlike(seen: dict[str, int], name: str) -> str:
    """The name, with a number where an input before it has that name already; what is made up is a name like any other."""
    taken = name
    while taken in seen:
        seen[name] += 1
        taken = f"{name}#{seen[name]}"
    seen[taken] = 1
    return taken


def _named_after(messages: list[object]) -> str:
    """A name that stays when lines are put in before it, so that a resumed run takes up the same inputs."""
    return f"input-{hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=5).hexdigest()}"


def _inputs(args: argparse.Namespace, complaints: Complaints, done: Mapping[str, bool], summary: Summary) -> Iterator[Input]:
    for count, given in enumerate(read_inputs(args.input, complaints)):
        if args.limit is not None and count >= args.limit:
            return
        if given.id in done:
            summary.skipped += 1
            summary.stopped_before += done[given.id]
        else:
            yield given


def _look_at_files(args: argparse.Namespace) -> None:
    """Find out what cannot work before anything is started."""
    from routed_agents.cli.graphs import parted

    if args.input != "-":
        there(args.input, "input file", "name a JSONL file of inputs")
    for name in ("output", "ledger", "trace"):
        path = getattr(args, name)
        if path and not Path(path.removeprefix("sqlite:///")).absolute().parent.is_dir():
            raise ConfigurationError(f"the folder of --{name} {path} does not exist; make it, or name another file")
    if args.trace:
        from routed_agents.telemetry.appending import takes_spans

        if not takes_spans(Path(args.trace)):
            raise ConfigurationError(f"--trace {args.trace} holds something else than a trace; name another file")
    apart(
        [("--output", args.output), ("--trace", args.trace), ("--ledger", args.ledger)],
        [("--input", None if args.input == "-" else args.input), ("graph", parted(args.graph)[0]), ("--policy", args.policy)],
    )


def _tracing(path: str | None) -> Handle | None:
    if not path:
        return None
    from routed_agents.telemetry.setup import configure

    return configure(trace_file=path)


class Summary:
    """What a run adds up to."""

    def __init__(self) -> None:
        self.ended = 0
        self.skipped = 0
        self.stopped_before = 0
        self.cost_pico = 0
        self.baseline_pico = 0
        self.unpriced = 0
        self.estimated = 0
        self.output_unknown = 0
        self.steps = 0
        self.simulated = False
        self.failed: list[tuple[str, str]] = []
        self.failures = 0
        self.stops = 0
        self.unwritten = False

    def add(self, result: Result) -> None:
        bill = result.bill
        self.ended += 1
        self.cost_pico += bill.cost_pico
        self.baseline_pico += bill.baseline_pico
        self.unpriced += bill.unpriced
        self.estimated += bill.estimated
        self.output_unknown += bill.output_unknown
        self.steps += bill.steps
        self.simulated = self.simulated or bill.simulated
        self.stops += result.stopped is not None
        if result.error is not None:
            self.failures += 1
        trouble = result.error or (f"stopped: {result.stopped}" if result.stopped else None)
        if trouble is not None and len(self.failed) < FAILURES_SHOWN:
            self.failed.append((result.id, trouble))

    def to_record(self) -> dict[str, Any]:
        from routed_agents.pricing import usd_of

        return {
            "ended": self.ended,
            "skipped": self.skipped,
            "stopped_before": self.stopped_before,
            "failed": self.failures,
            "stopped": self.stops,
            "steps": self.steps,
            "cost_usd": f"{usd_of(self.cost_pico):f}",
            "baseline_usd": f"{usd_of(self.baseline_pico):f}",
            "unpriced": self.unpriced,
            "estimated": self.estimated,
            "output_unknown": self.output_unknown,
            "simulated": self.simulated,
        }

    def show(self, args: argparse.Namespace) -> None:
        from routed_agents.telemetry.trees import dollars

        for name, trouble in self.failed:
            say(f"{name}: {trouble}")
        rest = self.failures + self.stops - len(self.failed)
        if rest > 0:
            say(f"and {rest} more failed or stopped")
        if args.json:
            print(json.dumps(self.to_record()), file=sys.stdout if args.output else sys.stderr)
            return
        counts = [f"{self.ended} inputs ended"]
        more = {"failed": self.failures, "stopped": self.stops, "skipped": self.skipped}
        counts += [f"{count} {word}" for word, count in more.items() if count]
        counts += [f"{self.stopped_before} of them stopped before; --restart runs all again"] if self.stopped_before else []
        cost = f"{'at least ' if self.output_unknown else ''}{dollars(self.cost_pico)}"
        cost += f" ({self.estimated} estimated)" if self.estimated else ""
        cost += f" + {self.unpriced} unpriced" if self.unpriced else ""
        simulated = " (simulated)" if self.simulated else ""
        say(f"{', '.join(counts)}; {self.steps} steps, {cost}, all-strong {dollars(self.baseline_pico)}{simulated}")
