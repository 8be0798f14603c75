"""`report`: tables of what a ledger holds."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Final

from routed_agents.cli import OK
from routed_agents.cli.arguments import add_output
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
}
USUAL: Final = ("tier", "class", "reason")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ledger", metavar="LEDGER", help="ledger, SQLite")
    known = f"{', '.join(TABLES)} or label:NAME; may be repeated; {', '.join(USUAL)} when not given"
    parser.add_argument("--by", action="append", metavar="TABLE", help=known)
    add_output(parser)
    parser.set_defaults(act=report)


@contextmanager
def opened(path: str) -> Generator[Ledger]:
    """A ledger to read; a path without one is an error and stays as it is.

    Raises:
        ConfigurationError: there is no such file.
    """
    from routed_agents.ledger import Ledger

    place = Path(path.removeprefix("sqlite:///"))
    if not place.is_file() or not place.stat().st_size:
        raise ConfigurationError(f"ledger {path} does not exist; name a file that Ledger.sqlite or run --ledger wrote")
    with Ledger.sqlite(place) as ledger:
        yield ledger


def report(args: argparse.Namespace) -> int:
    with opened(args.ledger) as ledger:
        show([table_of(ledger, name) for name in args.by or USUAL], json=args.json)
    return OK


def table_of(ledger: Ledger, name: str) -> Table:
    """A table by its name on the command line.

    Raises:
        ConfigurationError: there is no such table.
    """
    from routed_agents.offline import report as tables

    kind, _, label = name.partition(":")
    if kind == "label" and label:
        return tables.by_label(ledger, label)
    if name not in TABLES:
        raise ConfigurationError(f'unknown table "{name}"; known: {", ".join(TABLES)}, label:NAME; use one of these')
    return getattr(tables, TABLES[name])(ledger)


def show(tables: Sequence[Table], *, json: bool) -> None:
    """Print tables, as one JSON document or for people."""
    if json:
        print(dumps({"tables": [table.to_json() for table in tables]}))
        return
    from rich.console import Console

    from routed_agents.offline.report import render

    console = Console(highlight=False)
    for table in tables:
        console.print(render(table))
