"""A store is a place where entries are written, with a queue in front of it and a count of what did not get there."""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Final, cast

from routed_agents.forking import when_over
from routed_agents.ledger.columns import INSERT, row_of
from routed_agents.ledger.entries import Entry

log: Final = logging.getLogger("routed_agents.ledger")
ROW_ERRORS: Final = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, ValueError, OverflowError)
OPEN: Final[set[Store]] = set()
"""Those that may still have something to write, for the end of the program and for forked children."""


class Store:
    """The queue in front of a place to write, and the count of what did not get there."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.lost: int = 0
        self.told: Callable[[int], object] = lambda lost: None
        """Hears how many entries were lost, whenever some are."""
        self.closed = False
        self.counting = threading.RLock()  # what is collected in the midst of it may count too
        OPEN.add(self)

    def put(self, entry: Entry) -> None:
        if self.closed:
            self.lose(1, "the ledger is closed")
        else:
            self.queue.put(entry)

    def lose(self, count: int, why: object) -> None:
        with self.counting:
            self.lost += count
            total = self.lost
        log.warning("ledger: %d entries lost (%d in all): %s", count, total, why)
        self.told(count)

    def rows(self, entries: Iterable[object]) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for entry in entries:
            try:
                rows.append(cast("tuple[object, ...]", entry) if isinstance(entry, tuple) else row_of(cast("Entry", entry)))
            except Exception as error:  # whatever is in it, one bad entry must not take the others with it
                self.lose(1, f"an entry cannot be stored: {error}")
        return rows

    def insert(self, connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """Write rows in one transaction; raises when the file cannot be written."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            try:
                connection.executemany(INSERT, rows)
            except ROW_ERRORS:  # one of them cannot be stored: find out which, keep the others
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                for row in rows:
                    try:
                        connection.execute(INSERT, row)
                    except ROW_ERRORS as error:
                        self.lose(1, f"an entry cannot be stored: {error}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def flush(self, timeout_s: float) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        """Write what is left without making anybody wait; called when the ledger has been dropped unclosed."""
        raise NotImplementedError

    def close(self, timeout_s: float) -> None:
        raise NotImplementedError

    def after_fork(self) -> None:
        self.counting = threading.RLock()  # what is collected in the midst of it may count too

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        raise NotImplementedError
        yield


def drain(source: queue.SimpleQueue[object]) -> list[object]:
    """What is in a queue now."""
    items: list[object] = []
    while True:
        try:
            items.append(source.get_nowait())
        except queue.Empty:
            return items


def _after_fork() -> None:
    for store in list(OPEN):
        store.after_fork()


def _at_exit() -> None:
    for store in list(OPEN):
        store.close(5.0)


when_over(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
