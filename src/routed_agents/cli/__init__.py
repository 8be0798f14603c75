"""The command line: finds the command, runs it, and turns its errors into one line and an exit code."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from routed_agents.printable import harmless

COMMANDS: Final = {
    "demo": "run two graphs on the embedded provider and show what each step cost and why",
    "run": "run a graph over a file of inputs",
    "decide": "step records in, decision records out",
    "why": "show one recorded step's decision",
    "policy": "check, show and test a policy; print its schema",
    "report": "tables of what a ledger holds, or a page of it",
    "trace": "show, query or send what a trace file holds; read other exports",
    "doctor": "check that cost is counted once, and which model calls bypass the policy",
}
"""Each command is a module of this package with `add(parser)`, which names the function to run; only the one asked for is loaded."""

OK: Final = 0
FOUND: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when all is well, 1 when something was found, 2 when it was misused."""
    given = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        say("standard output is closed; wanted somewhere to write, such as a file or > /dev/null")
        return MISUSED
    args = None
    try:
        args = _parser(given).parse_args(given)
        code: int = args.act(args)
        sys.stdout.flush()
    except SystemExit as leaving:
        if args is None:
            return leaving.code if isinstance(leaving.code, int) else MISUSED
        say(f"the code that was run ended the program (SystemExit: {leaving.code}); wanted a graph that returns")
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _silence()
        return OK
    except Exception as error:
        if "--traceback" in given:
            raise
        say(_line(error))
        if _found_no_room(error):
            _silence()
        return MISUSED
    return code


def say(line: str) -> None:
    """One line for the person at the terminal; never mixed into the output."""
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]
        print(f"routed-agents: {harmless(' '.join(line.split()))}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(given: Sequence[str]) -> Parser:
    parser = Parser(prog="routed-agents", description="Decides for each step which model tier may do it, and records what it cost.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    wanted = next((each for each in given if not each.startswith("-")), None)
    if wanted is not None and wanted not in COMMANDS:
        meant = difflib.get_close_matches(wanted, COMMANDS, n=1)
        parser.error(f'unknown command "{wanted}"; known: {", ".join(COMMANDS)}' + (f'. Did you mean "{meant[0]}"?' if meant else ""))
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[:1].upper()}{purpose[1:]}.")
        if name == wanted:
            import_module(f"routed_agents.cli.{name}").add(command)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("routed-agents")
        except PackageNotFoundError:
            found = "not installed, run from its source"
        print(f"routed-agents {found}")
        parser.exit(OK)


def _line(error: Exception) -> str:
    from routed_agents.errors import RoutedAgentsError

    if isinstance(error, RoutedAgentsError):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        place = "standard output or a temporary file" if _found_no_room(error) else error.filename
        return f"{place}: {reason[:1].lower()}{reason[1:]}" if place is not None else reason
    return f"this should not have happened: {type(error).__name__}: {error}; run again with --traceback and report it"


def _found_no_room(error: Exception) -> bool:
    """Whether a write did to something without a name."""
    from routed_agents.cli.files import NO_ROOM

    return isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None


def _silence() -> None:
    """Nobody reads on, or there is no room: keep the interpreter from complaining when it flushes at the end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
