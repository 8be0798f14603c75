"""`trace`: what a trace file holds, as trees, lists and SQL; where else it may go; and what other tools' exports hold."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from routed_agents.cli import FOUND, OK, Parser, say
from routed_agents.cli.arguments import add_output, add_traceback, number
from routed_agents.cli.files import TRACE, apart, replacing, there
from routed_agents.cli.plain_json import json_line, plain
from routed_agents.printable import one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from routed_agents.offline.traces import Trouble

FORMATS: Final = ("auto", "otlp", "phoenix", "langfuse", "langsmith")
ROWS: Final = 200
"""Rows of an answer that are drawn for a person."""
NARROWEST: Final = 7
"""Characters a column needs at least, with the gap to the next, to stand beside others."""


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, act: Callable[[argparse.Namespace], int], help: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=text)
        added.add_argument("file", metavar="FILE", help="OTLP JSON lines, as run --trace writes them")
        added.set_defaults(act=act)
        return added

    drawn = verb("tree", tree, "cost tree of each run", "Draws the cost tree of each run in a trace file.")
    drawn.add_argument("--input", metavar="ID", help="only the runs on this input")
    drawn.add_argument("--limit", type=number(1), metavar="N", help="only the first N runs")
    drawn.add_argument("--width", type=number(20), metavar="COLUMNS", help="of the drawing; the terminal's when not given")
    add_output(drawn, json="print one JSON object for each run")

    dearest = verb("top", top, "dearest steps or threads", "Lists the steps, or the threads, that cost most, dearest first.")
    dearest.add_argument("--by", choices=("steps", "threads"), default="steps", help="what to list (steps)")
    dearest.add_argument("--limit", type=number(1), default=10, metavar="N", help="how many (10)")
    dearest.add_argument("--width", type=number(20), metavar="COLUMNS", help="of the table; the terminal's when not given")
    add_output(dearest)

    text = (
        "Asks a trace file in SQL: the view `spans` has one row a span, with columns trace_id, span_id, parent_id, name, kind, scope, "
        "service, started, ended, seconds, status, node, task_class, tier, decided_tier, model, request_model, provider, thread, step, "
        "outcome, reason, error, mode, graph, attempt, input_tokens, output_tokens, cached_tokens, cost, baseline, pinned, simulated and "
        "attributes. Cost and baseline are dollars as exact decimals, NULL where unpriced. Needs the extra `report`."
    )
    asked = verb("sql", sql, "ask in SQL", text)
    asked.add_argument("query", metavar="SQL", help="such as 'SELECT tier, sum(cost) FROM spans GROUP BY tier'")
    add_output(asked, json="print one JSON object for each row, all of them; columns of one name are numbered")

    text = (
        "Sends a trace file to a backend that takes OTLP over HTTP, with its own ids and times. Headers, such as a key, come from "
        "OTEL_EXPORTER_OTLP_HEADERS (name=value,name=value). Needs the extra `otlp`."
    )
    sent = verb("send", send, "send to a backend", text)
    sent.add_argument("--endpoint", required=True, metavar="URL", help="such as http://localhost:6006; /v1/traces is added")
    sent.add_argument("--timeout", type=number(1), default=10, metavar="SECONDS", help="of one request (10)")
    add_output(sent)

    text = (
        "Reads the model calls in another tool's export and writes step records, JSONL, for `decide`. Read are OTLP JSON lines with "
        "gen_ai, OpenInference or Langfuse attributes, spans of Phoenix's REST API, observations of Langfuse's API, and LangSmith runs. "
        "Calls whose messages were not captured are counted and left out."
    )
    taken = verb("read", read, "step records from another tool's export", text)
    taken.add_argument("--format", choices=FORMATS, default="auto", help="of the export (auto)")
    taken.add_argument("--output", metavar="OUT", help="step records, JSONL; standard output when not given")
    add_traceback(taken)


def _there(path: str) -> Path:
    return there(path, "trace file", TRACE)


class _Told:
    """Says what could not be read, and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, trouble: Trouble) -> None:
        self.count += 1
        say(str(trouble))


def tree(args: argparse.Namespace) -> int:
    from routed_agents.offline.traces import runs
    from routed_agents.telemetry.trees import cost_trees

    _there(args.file)
    troubles = _Told()
    found = (each for each in cost_trees(runs(args.file, on_trouble=troubles)) if args.input in (None, each.input_id))
    console = None
    if not args.json:
        from routed_agents.cli.printer import Printer

        console = Printer(width=args.width)
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
    return FOUND if troubles.count or not shown else OK


def top(args: argparse.Namespace) -> int:
    from routed_agents.offline.calls import Calls
    from routed_agents.offline.report import chain_table, step_table

    _there(args.file)
    troubles = _Told()
    with Calls() as calls:
        calls.add_trace(args.file, on_trouble=troubles)
        table = step_table(calls, args.limit) if args.by == "steps" else chain_table(calls, args.limit)
    if not table.rows:
        say(f"{args.file} holds no routed step")
    if args.json:
        print(json.dumps(table.to_json()))
    elif table.rows:
        from routed_agents.cli.printer import Printer

        Printer(width=args.width).table(table)
    return FOUND if troubles.count or not table.rows else OK


def sql(args: argparse.Namespace) -> int:
    from routed_agents.offline.sql import Spans, Unreadable

    there(args.file, "trace file", TRACE, regular=True)
    try:
        with Spans(args.file) as spans:
            _answer(args, *spans.ask(args.query))
    except Unreadable as error:
        say(f"{args.file}: what is no JSON is passed over ({str(error).splitlines()[0]})")
        with Spans(args.file, skip=True) as spans:
            _answer(args, *spans.ask(args.query))
        return FOUND
    return OK


def _answer(args: argparse.Namespace, columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    if args.json:
        keys = _told_apart(columns)
        for row in rows:
            sys.stdout.write(f"{json_line(dict(zip(keys, row, strict=True)))}\n")
        return
    from routed_agents.cli.printer import Printer

    shown, printer = list(islice(rows, ROWS)), Printer()
    if len(columns) * NARROWEST > printer.width:
        for row in shown:
            printer.print(_downwards(columns, row), soft_wrap=True)
    else:
        printer.print(_across(columns, shown))
    if left := sum(1 for _ in rows):
        say(f"and {left:,} more rows; add LIMIT, or --json for all")


def _told_apart(columns: Sequence[str]) -> list[str]:
    """The names of the columns, with a number behind one that stands there before, as DuckDB names those of a table."""
    keys: list[str] = []
    for name in columns:
        numbered = (f"{name}_{number}" for number in count(1))
        keys.append(name if name not in keys else next(each for each in numbered if each not in keys and each not in columns))
    return keys


def _across(columns: Sequence[str], shown: Sequence[Sequence[Any]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    numeric = [any(isinstance(row[index], (int, float, Decimal)) for row in shown) for index in range(len(columns))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(Text(one_line(name)), justify="right" if right else "left", overflow="fold" if right else "ellipsis")
    for row in shown:
        table.add_row(*[Text(_text(value), style="dim" if value is None else "") for value in row])
    return table


def _downwards(columns: Sequence[str], row: Sequence[Any]) -> Text:
    """A row of more columns than stand beside each other, a line for each that holds something."""
    from rich.text import Text

    columns = [one_line(name) for name in columns]
    width = max(len(name) for name in columns)
    held = [(name, value) for name, value in zip(columns, row, strict=True) if value is not None]
    return Text("".join([f"{name:{width}}  {_text(value)}\n" for name, value in held]))


def _text(value: object) -> str:
    return "–" if value is None else one_line(str(plain(value)))


def send(args: argparse.Namespace) -> int:
    from routed_agents.cli.progress import progress
    from routed_agents.offline.sending import send_trace

    _there(args.file)
    troubles = _Told()
    with progress("sending", None) as advance:
        sent = send_trace(args.file, args.endpoint, timeout_s=args.timeout, advance=advance, on_trouble=troubles)
    if sent.why:
        say(sent.why)
    if args.json:
        print(json.dumps({**asdict(sent), "spans": sent.spans, "troubles": troubles.count}))
    else:
        rest = [f"{many:,} {word}" for many, word in ((sent.rejected, "rejected by it"), (sent.failed, "failed")) if many]
        print(", ".join([f"{sent.delivered:,} of {sent.spans:,} spans delivered", *rest]))
    return FOUND if sent.failed or sent.rejected or troubles.count else OK


def read(args: argparse.Namespace) -> int:
    from routed_agents.cli.records import Complaints
    from routed_agents.offline.exports import Found, read_export

    there(args.file, "", "name an export")
    apart([("--output", args.output)], [("FILE", args.file)])
    complaints, found, written = Complaints(args.file), Found(), 0
    records = read_export(args.file, format=args.format, found=found, on_trouble=complaints)
    if (first := next(records, None)) is not None:  # else OUT stands as it is
        with _output(args.output) as out:
            for record in chain([first], records):
                written += 1
                out.write(f"{json.dumps(record)}\n")
    complaints.close()
    left = [
        f"{found.empty} without captured messages left out" if found.empty else "",
        f"{found.other} other records" if found.other else "",
        f"{args.output} was not written" if args.output and not written else "",
    ]
    say(f"{args.file}: {found.calls} model calls, {written} step records" + "".join([f"; {each}" for each in left if each]))
    return FOUND if complaints.count or not written else OK


@contextmanager
def _output(path: str | None) -> Generator[TextIO]:
    """Standard output, or a file that is there once it is whole."""
    if path is None:
        yield sys.stdout
        return
    with replacing(Path(path)) as file, io.TextIOWrapper(file, encoding="utf-8", write_through=True) as text:
        yield text
