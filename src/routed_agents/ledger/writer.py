"""The ledger in a file, with the thread that writes it."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from routed_agents.errors import LedgerError
from routed_agents.forking import Undivided
from routed_agents.ledger.entries import Entry
from routed_agents.ledger.files import connect, identity, prepare
from routed_agents.ledger.store import OPEN, Store, drain

log: Final = logging.getLogger("routed_agents.ledger")


class File(Store):
    """A SQLite file and the thread that writes to it."""

    BATCH: Final = 2000

    def __init__(self, path: Path, backlog: int, busy_s: float) -> None:
        prepare(path, busy_s)
        super().__init__()
        self.path = path
        self.backlog = backlog
        self.busy_s = busy_s
        self.file = identity(path)
        self.waiting: deque[object] = deque()
        """Entries, oldest first; as rows, once it was tried to write them."""
        self.dropped = 0
        self.failing = False
        self.give_up_at = float("inf")
        self._writing = Undivided()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self.closed:
                self._thread = threading.Thread(target=self._write_all, name=f"ledger {self.path.name}", daemon=True)
                self._thread.start()

    def put(self, entry: Entry) -> None:
        if self.closed:
            super().put(entry)
            return
        self.waiting.append(entry)
        if self.queue.empty():
            self.queue.put(WAKE)
        if self.failing:
            self._shed()
        if self._thread is None:  # a forked child has the queue but not the thread
            try:
                self._start()
            except RuntimeError as error:
                self.lose(1, error)

    def flush(self, timeout_s: float) -> bool:
        if self.closed:
            return self.lost == 0
        self._start()
        done = threading.Event()
        self.queue.put(done)
        return done.wait(timeout_s)

    def stop(self) -> None:
        self.closed = True
        self.give_up_at = time.monotonic() + self.busy_s
        self.queue.put(None)

    def close(self, timeout_s: float) -> None:
        self.closed = True
        self.give_up_at = time.monotonic() + timeout_s
        self.queue.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s + self.busy_s)
        OPEN.discard(self)

    def after_fork(self) -> None:
        # The parent's thread still writes what was queued before; the child starts afresh, with a connection of its own.
        super().after_fork()
        self.queue = queue.SimpleQueue()
        self.waiting = deque()
        self.dropped = 0
        self.failing = False
        self._starting = threading.Lock()
        self._thread = None

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        try:
            with closing(connect(self.path, self.busy_s)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise LedgerError(f"ledger {self.path} cannot be read: {error}") from error

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        flushes: list[threading.Event] = []
        pause, stopping = 0.0, False
        while not stopping or (self.waiting and time.monotonic() < self.give_up_at):
            items = self._take(pause)
            stopping = stopping or None in items
            flushes += [item for item in items if isinstance(item, threading.Event)]
            due = len(self.waiting)
            try:
                if connection is not None and self._moved():
                    self._leave(connection)
                    connection = None
                while due > 0 and self.waiting:
                    with self._writing:
                        connection = connection or self._opened()
                        due -= self._write_some(connection)
            except Exception as error:  # a thread that dies here would take every later entry with it
                if connection is not None:
                    self._leave(connection)
                    connection = None
                pause = min(2 * pause, 2.0) or 0.05
                self._keep(error)
                continue
            pause, self.failing = 0.0, False
            self._tell()
            while flushes:
                flushes.pop().set()
        if connection is not None:
            self._leave(connection)
        self._tell()
        if self.waiting:
            self.lose(len(self.waiting), f"{self.path} could not be written before the end")
        OPEN.discard(self)

    def _moved(self) -> bool:
        """Whether the file that was opened is no longer where it was."""
        return identity(self.path) != self.file

    def _opened(self) -> sqlite3.Connection:
        """A connection to the file; to a new one where it was moved or removed."""
        if self._moved():
            prepare(self.path, self.busy_s)
            self.file = identity(self.path)
        return connect(self.path, self.busy_s)

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Close a connection. SQLite itself would leave what was written last to a file beside the old place, if the file was moved."""
        try:
            with self._writing, closing(connection):
                if self._moved():
                    log.warning("ledger: %s was moved or removed; what comes next is written to a new file there", self.path)
                    end = time.monotonic() + self.busy_s
                    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:  # another process is in it
                        if time.monotonic() > end:
                            raise sqlite3.OperationalError("somebody reads it")
                        time.sleep(0.02)
        except (sqlite3.Error, OSError) as error:
            log.warning("ledger: what was written last to %s before it was moved may be missing there: %s", self.path, error)

    def _write_some(self, connection: sqlite3.Connection) -> int:
        """Write the oldest entries; what cannot be written goes back to where it waited. Gives how many are done with."""
        taken = _popped(self.waiting, min(self.BATCH, max(self.backlog, 1)))
        rows = self.rows(taken)
        try:
            self.insert(connection, rows)
        except BaseException:
            self.waiting.extendleft(reversed(rows))
            raise
        return len(taken)

    def _take(self, pause: float) -> list[object]:
        """What is in the queue. Waits for something to come or, after a failed write, for the pause to pass."""
        if pause:
            time.sleep(min(pause, max(self.give_up_at - time.monotonic(), 0)))
            return drain(self.queue)
        return [self.queue.get(), *drain(self.queue)]

    def _shed(self) -> None:
        """Drop the oldest entries that are too many, without a word for each: this may be an event loop's thread."""
        with self.counting:
            excess = len(_popped(self.waiting, len(self.waiting) - self.backlog))
            self.lost += excess
            self.dropped += excess

    def _keep(self, error: Exception) -> None:
        if not self.failing:
            self.failing = True
            log.warning("ledger: %s cannot be written, entries are kept and retried: %s", self.path, error)
        self._shed()
        self._tell()

    def _tell(self) -> None:
        """Say how many entries were dropped since it was last said."""
        with self.counting:
            dropped, self.dropped = self.dropped, 0
        if dropped:
            log.warning("ledger: %d entries lost (%d in all): more than %d waited for %s", dropped, self.lost, self.backlog, self.path)
            self.told(dropped)


WAKE: Final = "entries wait"
"""Goes into the queue of a file's ledger where its thread would not look for entries."""


def _popped(source: deque[object], most: int) -> list[object]:
    """The first of them, no longer among them; other threads may pop too."""
    items: list[object] = []
    while len(items) < most:
        try:
            items.append(source.popleft())
        except IndexError:
            break
    return items
