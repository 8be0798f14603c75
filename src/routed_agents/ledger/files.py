"""SQLite files: made a ledger, found to be one, connected to."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from routed_agents.errors import LedgerError
from routed_agents.ledger.columns import SCHEMA, SCHEMA_VERSION, additions


def _address(path: Path) -> str:
    """What SQLite calls the file; its name need not be UTF-8.

    Raises:
        LedgerError: no file can have such a name; SQLite would open one whose name ends before the NUL.
    """
    name = os.fsencode(path.absolute())
    if b"\0" in name:
        raise LedgerError(f"ledger {str(path)!r} cannot be opened: there is a NUL in its path; wanted a path that can be written")
    return f"file:{quote(name)}"


def to_read(path: Path) -> str:
    """The address by which SQLite opens a file to read it; also one on a file system that cannot be written."""
    address = _address(path)
    if os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK):
        return f"{address}?mode=rw"  # which tidies up after itself, where another process died
    waiting = path.with_name(f"{path.name}-wal")
    return f"{address}?{'mode=ro' if waiting.exists() and waiting.stat().st_size else 'mode=ro&immutable=1'}"


def identity(path: Path) -> tuple[int, int] | None:
    """Tells one file from another at the same path; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path, busy_s: float, mode: Literal["rw", "rwc"] = "rw") -> sqlite3.Connection:
    """A connection to a file that is there, or to one made for it."""
    connection = sqlite3.connect(f"{_address(path)}?mode={mode}", uri=True, timeout=busy_s, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(path: Path, busy_s: float) -> None:
    """Make the file a ledger; one that an older release wrote gets the columns it lacks.

    Raises:
        LedgerError: it cannot be one.
    """
    _address(path)  # before anything is touched
    _clear_remains(path)
    end = time.monotonic() + busy_s
    while True:
        try:
            with closing(connect(path, busy_s, "rwc")) as connection:
                check(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA:
                    connection.execute(statement)
                found = connection.execute("SELECT MAX(version) FROM ledger_schema").fetchone()[0]
                if found is None:
                    connection.execute("INSERT INTO ledger_schema VALUES (?)", (SCHEMA_VERSION,))
                elif found < SCHEMA_VERSION:
                    for statement in additions(found):
                        connection.execute(statement)
                    connection.execute("UPDATE ledger_schema SET version = ?", (SCHEMA_VERSION,))
                connection.execute("COMMIT")
                return
        except sqlite3.OperationalError as error:
            # Switching to WAL does not wait for another process that is doing the same, whatever the timeout.
            if "locked" not in str(error) or time.monotonic() > end:
                raise LedgerError(f"ledger {path} cannot be opened: {error}; wanted a path that can be written") from error
            time.sleep(0.02)
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not a ledger: {error}; name another file") from error


def _clear_remains(path: Path) -> None:
    """Remove what a file that was moved or removed left beside its place: whoever still writes to it must not share that with a new one."""
    try:
        if not path.exists():
            for part in ("-wal", "-shm"):
                Path(f"{path}{part}").unlink(missing_ok=True)
    except OSError as error:
        raise LedgerError(f"ledger {path} cannot be opened: {error}; wanted a path that can be written") from error


def check(connection: sqlite3.Connection, path: Path, *, empty: bool = True) -> None:
    """Find out whether the file is a ledger this release knows, or, where that will do, empty.

    Raises:
        LedgerError: it is neither.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if empty and not tables:
        return
    if not {"ledger_schema", "entries"} <= tables:
        raise LedgerError(f"{path} is a database with other tables, not a ledger; name another file")
    found = connection.execute("SELECT MAX(version) FROM ledger_schema").fetchone()[0]
    if found is not None and found > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has ledger schema {found}; this release knows {SCHEMA_VERSION}; use the release that wrote it, or another file"
        )
