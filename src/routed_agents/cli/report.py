"""`report`: tables of what a ledger holds, or a page of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Final

from routed_agents.cli import FOUND, OK, say
from routed_agents.cli.arguments import add_output, number, policy_of
from routed_agents.cli.files import TRACE, apart, replacing, there
from routed_agents.errors import ConfigurationError

if TYPE_CHECKING:
    from routed_agents.ledger import Ledger
    from routed_agents.offline.report import Table

TABLES: Final = {
    "tier": "cost_table",
    "decided": "by_decided",
    "class": "by_class",
    "model": "by_model",
    "reason": "by_guard",
    "kept": "kept_strong",
    "kind": "by_kind",
}
SHADOW: Final = "shadow"
"""The table that asks for the models of the policy as well."""
USUAL: Final = ("tier", "class", "reason")


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tables of what a ledger holds; with --html one self-contained page, from a ledger, from trace files, or from both."
    )
    parser.add_argument("ledger", metavar="LEDGER", nargs="?", help="ledger, SQLite")
    usual = f"{', '.join(USUAL)} when not given, after {SHADOW} where something ran so"
    known = f"{', '.join(TABLES)}, {SHADOW} or label:NAME; may be repeated; {usual}"
    parser.add_argument("--by", action="append", metavar="TABLE", help=known)
    parser.add_argument("--html", metavar="OUT", help="write a page there, which needs nothing else and asks for nothing")
    text = "with --html: calls from OTLP JSON lines, those that are not in the ledger already; may be repeated"
    parser.add_argument("--trace", metavar="FILE", action="append", default=[], help=text)
    text = 'with --html: JSONL with "thread" and "solved" (true or false), for the cost per solved task'
    parser.add_argument("--outcomes", metavar="FILE", help=text)
    parser.add_argument("--title", default="What the steps cost", help="with --html: heading of the page")
    parser.add_argument(
        "--chains", type=number(1), metavar="N", help="with --html: how many of the dearest threads are drawn as trees (30)"
    )
    parser.add_argument("--policy", metavar="FILE", help=f"for {SHADOW}: the policy that decided what an older release wrote down")
    parser.add_argument("--tiers", metavar="PRESET", help=f"for {SHADOW}: likewise its preset of tiers (claude)")
    add_output(parser)
    parser.set_defaults(act=report, stance=None)


@contextmanager
def opened(path: str) -> Generator[Ledger]:
    """A ledger to read; a path without one is an error and stays as it is.

    Raises:
        ConfigurationError: there is no such file, or nothing in it.
    """
    from routed_agents.ledger import Ledger

    wanted = "name a file that Ledger.sqlite or run --ledger wrote"
    place = there(path.removeprefix("sqlite:///"), "ledger", wanted, regular=True)
    if not place.stat().st_size:
        raise ConfigurationError(f"ledger {path} is empty; {wanted}")
    with Ledger.sqlite(place, read_only=True) as ledger:
        yield ledger


def report(args: argparse.Namespace) -> int:
    if args.html:
        return write_page(args)
    if args.ledger is None:
        raise ConfigurationError("report needs a LEDGER for tables; name one, or give --trace FILE and --html OUT for a page")
    if args.trace or args.outcomes:
        raise ConfigurationError("--trace and --outcomes are for a page; add --html OUT")
    with opened(args.ledger) as ledger:
        usual = (SHADOW, *USUAL) if not args.by and ledger.total(mode="shadow").steps else USUAL
        show([_would_save(ledger, args) if name == SHADOW else table_of(ledger, name) for name in args.by or usual], json=args.json)
    return OK


def _would_save(ledger: Ledger, args: argparse.Namespace) -> Table:
    from routed_agents.offline.shadow import would_save

    return would_save(ledger, policy_of(args))


def write_page(args: argparse.Namespace) -> int:
    """Write the page of a ledger and of trace files.

    Raises:
        ConfigurationError: there is nothing to read, or the page cannot be written.
    """
    from routed_agents.offline.calls import Calls
    from routed_agents.offline.page import CHAINS, page
    from routed_agents.offline.traces import Trouble

    out = Path(args.html)
    if args.by:
        raise ConfigurationError("--by is for tables, and a page shows all of them; leave out --by or --html")
    if args.ledger is None and not args.trace:
        raise ConfigurationError("--html needs something to read; name a LEDGER, or trace files with --trace")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigurationError(f"--html {out} cannot be written; name a file in a folder that exists")
    read = [("LEDGER", args.ledger), *[("--trace", name) for name in args.trace], ("--outcomes", args.outcomes)]
    apart([("--html", args.html)], read)
    troubles: list[str] = []

    def complain(trouble: Trouble | str) -> None:
        troubles.append(str(trouble))
        say(str(trouble))

    shadow: Table | None = None
    with Calls() as calls:
        if args.ledger is not None:
            with opened(args.ledger) as ledger:
                shadow = _would_save(ledger, args) if ledger.total(mode="shadow").steps else None
                calls.add_ledger(args.ledger.removeprefix("sqlite:///"))
        for name in args.trace:
            calls.add_trace(there(name, "trace file", TRACE), on_trouble=complain)
        if args.outcomes:
            calls.add_outcomes(_outcomes(args.outcomes, complain))
        whole = page(calls, title=args.title, shadow=shadow, chains=args.chains or CHAINS, troubles=len(troubles))
        totals = calls.totals()
    with replacing(out) as file:
        file.write(whole.encode())
    if args.json:
        print(dumps({"page": str(out), "bytes": len(whole.encode()), "troubles": len(troubles), **totals}))
    else:
        print(f"{out}: {totals['steps']:,} steps, {totals['entries']:,} calls, {len(whole.encode()) / 1024:,.0f} KB")
    return FOUND if troubles else OK


def _outcomes(path: str, complain: Callable[[str], None]) -> Iterator[tuple[str, bool]]:
    from routed_agents.cli.records import read_records

    for line, record in read_records(path, lambda number, reason: complain(f"{path}, line {number}: {reason}")):
        thread, solved = record.get("thread", record.get("id")), record.get("solved")
        if isinstance(thread, str) and isinstance(solved, bool):
            yield thread, solved
        else:
            complain(f'{path}, line {line}: wanted "thread" (a string) and "solved" (true or false)')


def table_of(ledger: Ledger, name: str) -> Table:
    """A table by its name on the command line.

    Raises:
        ConfigurationError: there is no such table.
    """
    from routed_agents.offline import report as tables

    kind, _, label = name.partition(":")
    if kind == "label" and label:
        if not any(label in entry.labels for entry in ledger.entries()):
            say(f'no entry has a label "{label}"; the policy\'s `labels` say which metadata becomes one')
        return tables.by_label(ledger, label)
    if name not in TABLES:
        known = f"{', '.join(TABLES)}, {SHADOW}, label:NAME"
        raise ConfigurationError(f'unknown table "{name}"; known: {known}; use one of these, or label:{name} if it is a label')
    return getattr(tables, TABLES[name])(ledger)


def show(tables: Sequence[Table], *, json: bool) -> None:
    """Print tables, as one JSON document or for people."""
    if json:
        print(dumps({"tables": [table.to_json() for table in tables]}))
        return
    from routed_agents.cli.printer import Printer

    printer = Printer()
    for table in tables:
        printer.table(table)
