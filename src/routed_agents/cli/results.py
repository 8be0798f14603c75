"""The file of result lines: what an earlier run left there, and who may write to it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO, cast

from routed_agents.cli.files import naming, replacing
from routed_agents.errors import ConfigurationError

if TYPE_CHECKING:
    from routed_agents.cli.runner import Result

NONE: Final[Mapping[str, bool]] = MappingProxyType({})
STARTS: Final = re.compile(rb'\{"id": "(?:[^"\\]|\\.)*"?')
GOES_ON: Final = b', "thread": '
"""How a result line begins, so that one torn by a crash is told from somebody's text."""


class Results:
    """Where result lines go; each is on its way to the disk before the next one is written.

    Attributes:
        done: the inputs that ended without error in an earlier run, by id, and whether they were stopped.
    """

    def __init__(self, file: TextIO, done: Mapping[str, bool] = NONE) -> None:
        self.file = file
        self.done = done

    def write(self, result: Result) -> None:
        self.file.write(f"{json.dumps(result.to_record())}\n")
        self.file.flush()


@contextmanager
def results(path: str | None, standard: TextIO, *, restart: bool) -> Generator[Results]:
    """Standard output where no path is given, or a file that no other run writes to meanwhile; what is no regular file is only written to.

    The results of inputs that ended without error stay in the file; failed ones and a torn last line are dropped.

    Raises:
        ConfigurationError: another run is writing there, or the file holds something else than results, so it is not touched.
    """
    if path is None:
        yield Results(standard)
        return
    place = Path(path)
    if place.exists() and not place.is_file():
        with naming(path), place.open("w", encoding="utf-8") as stream:
            yield Results(stream)
        return
    file, done = _held(place.resolve()), NONE
    try:
        if restart:
            file.truncate(0)
        else:
            file, done = _taken_up(file, place.resolve())
        with naming(path), io.TextIOWrapper(file, encoding="utf-8") as text:
            yield Results(text, done)
    finally:
        file.close()


def _held(path: Path) -> BinaryIO:
    """The file, made when it is not there, and locked as long as it is open."""
    while True:
        file = path.open("a+b")
        try:
            _lock(file)
        except BlockingIOError:
            file.close()
            raise ConfigurationError(f"another run is writing to {path}; wait for its end, or name another --output") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # a run that just ended had put another file in its place


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # nothing like it on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def _taken_up(file: BinaryIO, path: Path) -> tuple[BinaryIO, Mapping[str, bool]]:
    """The file with nothing in it but the results to keep, and whose these are."""
    done, dropped, whole = _looked_through(file, path)
    if not dropped:
        file.write(b"" if whole else b"\n")
        return file, done
    file.seek(0)
    with replacing(path) as new:
        for number, line in enumerate(file, start=1):
            if number not in dropped:
                new.write(line if line.endswith(b"\n") else line + b"\n")
        new.flush()
        taken = _held(Path(new.name))  # before it is to be found at the path
    file.close()
    return taken, done


def _looked_through(file: BinaryIO, path: Path) -> tuple[Mapping[str, bool], frozenset[int], bool]:
    """Whose results are kept, the numbers of the lines to drop, and whether the last line has its end."""
    done, dropped, whole = dict[str, bool](), set[int](), True
    file.seek(0)
    for number, line in enumerate(file, start=1):
        whole = line.endswith(b"\n")
        record = _read(line)
        if _is_result(record):
            if record["error"] is None:
                done[record["id"]] = record.get("stopped") is not None
            else:
                dropped.add(number)
        elif record is None and not whole and (number > 1 or _torn(line)):
            dropped.add(number)
        else:
            what = f"{path}, line {number}, is no result of run"
            raise ConfigurationError(f"{what}; name another --output, or use --restart to overwrite it")
    return done, frozenset(dropped), whole


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_result(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    found = cast("dict[str, object]", record)
    return isinstance(found.get("id"), str) and "error" in found and "bill" in found


def _torn(line: bytes) -> bool:
    head = STARTS.match(line)
    rest = line[head.end() :] if head else b""
    return head is not None and (GOES_ON.startswith(rest) or rest.startswith(GOES_ON))
