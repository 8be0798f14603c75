"""The ledger in memory."""

from __future__ import annotations

import itertools
import logging
import queue
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from routed_agents.errors import LedgerError
from routed_agents.forking import Undivided
from routed_agents.ledger.columns import SCHEMA
from routed_agents.ledger.entries import Entry
from routed_agents.ledger.store import OPEN, Store, drain

log: Final = logging.getLogger("routed_agents.ledger")
MANY: Final = 100_000
"""Entries from which it is a program that goes on, and its memory with it."""


class Memory(Store):
    """Entries in a database in memory, written when somebody wants to read it."""

    def __init__(self) -> None:
        super().__init__()
        self._using = Undivided()
        self._connection: sqlite3.Connection | None = None
        self._number = itertools.count(1)

    def put(self, entry: Entry) -> None:
        super().put(entry)
        if next(self._number) == MANY:
            log.warning(
                'a ledger in memory has %d entries, and keeps about 1 kB of memory for each; name a file: Ledger.sqlite("costs.db")', MANY
            )

    def flush(self, timeout_s: float) -> bool:
        with self._using:
            batch = drain(self.queue)
            if batch and not self.closed:
                self.insert(self._database(), self.rows(batch))
        return True

    def stop(self) -> None:
        self.close(0)

    def close(self, timeout_s: float) -> None:
        with self._using:
            self.closed = True
            if self._connection is not None:
                self._connection.close()
        OPEN.discard(self)

    def after_fork(self) -> None:
        super().after_fork()
        self.queue = queue.SimpleQueue()
        _FORKED.append(self._connection)
        self._connection = None

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        with self._using:
            if self.closed:
                raise LedgerError("the ledger in memory is closed and gone; read it before closing it")
            yield self._database()

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            for statement in SCHEMA:
                self._connection.execute(statement)
        return self._connection


_FORKED: Final[list[object]] = []
"""Connections that a child has of its parent; to close one would wait for the thread that was in it when the parent forked."""
