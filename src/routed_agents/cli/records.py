"""Reads step records from a file or from standard input, one line at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast

from routed_agents.cli.files import there
from routed_agents.errors import ConfigurationError, StepError
from routed_agents.offline.lines import ahead, lines, opened, unpacked
from routed_agents.steps import Step

OnTrouble = Callable[[int, str], None]
"""Is given the number of a line that cannot be read, and why."""
EXAMPLE: Final = '{"id": "s1", "messages": [{"role": "user", "content": "Classify as open or closed: it came late"}]}'
RECORDS: Final = (
    f"A step record is a JSON object on a line: {EXAMPLE}. It may also have system, tools, task_class, node, metadata, approx_tokens, "
    "output_schema, downstream, in_loop and deadline_s; docs/records.md says what each is."
)
"""What `--help` says of step records."""
LINES: Final = "wanted JSON lines, one object on each; `jq -c .` puts one there, `jq -c '.[]'` each of a list"


def read_records(
    source: str, on_trouble: OnTrouble, *, on_line: Callable[[bytes], object] = lambda _: None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file, with their line numbers; memory holds one line.

    Args:
        source: a path, plain or gzipped, or `-` for standard input.
        on_trouble: told of each line that is no object; the rest is still read.
        on_line: is given each line as it stands there, unpacked.

    Raises:
        ConfigurationError: the file cannot be opened.
    """
    with _opened(source) as file:
        for number, line, broken in lines(file):
            if broken is not None:
                on_trouble(number, f"the file breaks off: {broken}")
                return
            on_line(line)
            if number == 1 and line.strip() in (b"{", b"[") and ahead(file)[:1] in (b" ", b"\t"):
                on_trouble(number, f"JSON over several lines; {LINES}")
                return
            if not line.strip():
                continue
            try:
                record: object = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                on_trouble(number, f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}")
            except json.JSONDecodeError as error:
                on_trouble(number, f"not JSON: {error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}")
            except (ValueError, RecursionError) as error:
                on_trouble(number, f"not JSON that can be read: {error}")
            else:
                if isinstance(record, dict):
                    yield number, cast("dict[str, Any]", record)
                else:
                    on_trouble(number, f'a {type(record).__name__}; wanted an object with "messages"')


def read_steps(
    source: str, on_trouble: OnTrouble, *, on_line: Callable[[bytes], object] = lambda _: None
) -> Iterator[tuple[int, Step, Mapping[str, Any]]]:
    """The steps of a file of step records, each with its line number and its record. A step without an id is named by its line."""
    for number, record in read_records(source, on_trouble, on_line=on_line):
        if record.get("id") is None:
            record["id"] = f"line-{number}"
        try:
            step = Step.from_record(record)
        except StepError as error:
            on_trouble(number, str(error))
        except (TypeError, ValueError, AttributeError) as error:
            on_trouble(number, f"not a step record: {type(error).__name__}: {error}")
        else:
            yield number, step, record


@contextmanager
def _opened(source: str) -> Generator[BinaryIO]:
    if source == "-":
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise ConfigurationError("standard input is closed; name a file, or pipe something in")
        with unpacked(cast("BinaryIO", sys.stdin.buffer)) as plain:
            yield plain
        return
    with opened(there(source, "", "name a JSONL file of step records, or - for standard input")) as file:
        yield file


class Complaints:
    """Says on standard error which lines cannot be read, and counts them."""

    MOST: Final = 100

    def __init__(self, source: str) -> None:
        self.source = "standard input" if source == "-" else source
        self.count = 0

    def __call__(self, number: int, reason: str) -> None:
        from routed_agents.cli import say

        self.count += 1
        if self.count <= self.MOST:
            say(f"{self.source}, line {number}: {reason}")

    def close(self) -> None:
        """Say how many were kept quiet."""
        from routed_agents.cli import say

        if self.count > self.MOST:
            say(f"{self.source}: {self.count - self.MOST} more lines cannot be read")
