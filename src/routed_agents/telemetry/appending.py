"""Files that lines are appended to, by several processes and one after another."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import IO, Any, Final, cast

from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.json.file import FileMetricExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from routed_agents.errors import ConfigurationError

log: Final = logging.getLogger("routed_agents")
EXPORT: Final = b'{"resourceSpans"'
"""How each line of a trace file begins."""


def takes_spans(path: Path) -> bool:
    """Whether it is a trace, also one that broke off, or there is nothing in it."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        begins = file.read(len(EXPORT))
    return EXPORT.startswith(begins)


def place_of(file: str | Path, name: str) -> Path:
    """Where a file is, links followed.

    Args:
        name: of the argument it was given as.

    Raises:
        ConfigurationError: no file can be there.
    """
    try:
        return Path(file).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL in it, or links that lead in a circle
        raise ConfigurationError(f"{name} {str(file)!r} cannot be opened: {error}; wanted a path that can be written") from error


class Appended:
    """A file to append lines to, made with its folder where it is not there; where it was moved or removed, the next line begins a new one.
    Processes may share it: each writes its lines whole, and where a write broke off, whosever it was, the next line begins anew.

    Raises:
        OSError: it cannot be opened, or written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)

    def write(self, line: str) -> int:
        """Append a line with its end, whole or, when that is an error, in part."""
        if not _is_at(self._path, self._file):
            self._begin_anew()
        with _alone(self._file):
            left = memoryview((b"\n" if _torn(self._path) else b"") + line.encode())
            while left:
                left = left[self._file.write(left) :]
        return len(line)

    def _begin_anew(self) -> None:
        before, self._file = self._file, _opened(self._path)
        before.close()
        log.warning("%s was moved or removed; what comes next is written to a new file there", self._path)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


def _opened(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab", buffering=0)


def _is_at(path: Path, file: FileIO) -> bool:
    """Whether it is this open file that is at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _alone(file: FileIO) -> Generator[None]:
    """Keep other processes from appending meanwhile, where the system can do that."""
    try:
        import fcntl
    except ImportError:  # nothing like it on Windows
        yield
        return
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def _torn(path: Path) -> bool:
    """Whether the last line has no end."""
    with suppress(OSError):  # what may be written to need not be readable
        if path.is_file():
            with path.open("rb") as file:
                return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
    return False


class SpanFile(SpanExporter):
    """Appends spans to a file, OTLP JSON, one export a line. The SDK's own logs a traceback for each that finds no room.

    Attributes:
        refused: how many of a batch it does not take.
    """

    refused: Final = 0

    def __init__(self, path: Path) -> None:
        self._file = Appended(path)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write them.

        Raises:
            OSError: they cannot be written.
        """
        self._file.write(f"{json.dumps(cast('object', encode_spans(spans).to_dict()), separators=(',', ':'))}\n")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


class MetricFile(FileMetricExporter):
    """Appends metrics to a file, OTLP JSON, one export a line."""

    def __init__(self, path: Path) -> None:
        self._file = Appended(path)
        super().__init__(stream=cast("IO[str]", self._file))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Close the file."""
        cast("Any", super()).shutdown(timeout_millis, **kwargs)
        self._file.close()
