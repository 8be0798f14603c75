"""The ledger: where every model call's entry goes, and what is asked of them all."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Unpack

from routed_agents.errors import ConfigurationError, LedgerError
from routed_agents.ledger.columns import entry_of, selected
from routed_agents.ledger.entries import Entry
from routed_agents.ledger.filters import Where, conditions
from routed_agents.ledger.memory import Memory
from routed_agents.ledger.reader import ReadOnly
from routed_agents.ledger.store import Store
from routed_agents.ledger.sums import GROUPS, NONE, Totals, sums_by, totals_of
from routed_agents.ledger.writer import File
from routed_agents.steps import storable

WAIT_S: Final = 10.0
"""Seconds that a flush and a reader wait for entries to be written."""


class Ledger:
    """Keeps the entries of model calls and adds them up.

    Appending only puts the entry in a queue: it never touches a disk, waits or raises, from any thread or event loop. A
    ledger in a file is written by a thread of its own, so that a record is on disk soon after, and at the latest when the
    ledger is flushed, closed, or the program ends, or a worker of multiprocessing does. Several processes may share one file; one
    that ends by `os._exit` or a signal, as the workers of a `Pool` do that is left by its `with` block, has to flush first. A file
    that is moved keeps what was written to it, and the next entry begins a new one in its place. A forked process writes its own
    entries and not what its parent had queued; its ledger in memory starts empty.

    Args:
        path: where the file is; None keeps the entries in memory.
        backlog: how many entries to hold while the file cannot be written, beside up to 2,000 that it is being tried with; beyond it
            the oldest are dropped and counted.
        busy_s: how long one attempt to write or read waits for another process.
        read_only: nothing is written, so the file may be where nothing can be; what is appended counts as lost.

    Attributes:
        place: the file it is in; None in memory.
    """

    def __init__(self, path: str | Path | None, *, backlog: int = 100_000, busy_s: float = 5.0, read_only: bool = False) -> None:
        self.place = Path(path).absolute() if path is not None else None
        if self.place is None:
            self._store: Store = Memory()
        elif read_only:
            self._store = ReadOnly(self.place, busy_s)
        else:
            self._store = File(self.place, backlog, busy_s)
        self._dropped = weakref.finalize(self, self._store.stop)
        self._dropped.atexit = False

    @classmethod
    def memory(cls) -> Ledger:
        """A ledger that lives as long as the process, and grows by about 1 kB with each entry."""
        return cls(None)

    @classmethod
    def sqlite(cls, path: str | Path, *, read_only: bool = False) -> Ledger:
        """A ledger in a SQLite file, made when it is not there, unless it is only to be read.

        Raises:
            LedgerError: the file cannot be opened, is no ledger, or was written by a newer release.
        """
        return cls(path, read_only=read_only)

    @classmethod
    def open(cls, place: str | Path) -> Ledger:
        """A ledger by path or URL: "costs.db", "sqlite:///costs.db" or "memory:".

        Raises:
            LedgerError: nothing here can open such a place.
        """
        path = _path_of(place)
        return cls.memory() if path is None else cls.sqlite(path)

    @classmethod
    def shared(cls, place: str | Path) -> Ledger:
        """The ledger of this process that was opened so at the same place and is not closed; else `open`. One in memory is nobody else's.

        Raises:
            LedgerError: nothing here can open such a place.
        """
        path = _path_of(place)
        if path is None:
            return cls.memory()
        found = _SHARED.get(path.absolute())
        if found is None or found.closed:
            found = _SHARED[path.absolute()] = cls.sqlite(path)
        return found

    @property
    def closed(self) -> bool:
        """Whether it has let go of its file."""
        return self._store.closed

    @property
    def lost(self) -> int:
        """Entries that could not be written and are gone."""
        return self._store.lost

    @property
    def steps(self) -> int:
        """How many different steps have been recorded."""
        return self.total().steps

    def append(self, entry: Entry) -> None:
        """Record a call; returns at once and never raises."""
        self._store.put(entry)

    def tell_lost(self, hear: Callable[[int], object]) -> None:
        """Have a function, in place of the one before, hear how many entries were lost whenever some are; on any thread, so it must not
        wait or raise. A router has its telemetry hear of them."""
        self._store.told = hear

    def flush(self, timeout_s: float = WAIT_S) -> bool:
        """Wait until everything appended so far is written; False when it is not within the time."""
        return self._store.flush(timeout_s)

    def close(self, timeout_s: float = WAIT_S) -> None:
        """Write what is left and let go of the file; entries appended later count as lost."""
        self._dropped.detach()
        self._store.close(timeout_s)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def entries(self, **where: Unpack[Where]) -> Iterator[Entry]:
        """The recorded entries in the order they were written, streamed.

        Raises:
            LedgerError: the file cannot be read, or what was appended cannot be written to it.
        """
        self._catch_up()
        clause, values = conditions(where)
        with self._store.reading() as connection:
            names = selected({name for (name,) in connection.execute("SELECT name FROM pragma_table_info('entries')")})
            last = connection.execute("SELECT MAX(seq) FROM entries").fetchone()[0] or 0
        seen = 0
        while True:
            # Page by page, so that an iterator somebody drops leaves no open connection behind.
            with self._store.reading() as connection:
                page = connection.execute(
                    f"SELECT seq, {names} FROM entries WHERE seq > ? AND seq <= ? AND {clause} ORDER BY seq LIMIT 1000",
                    (seen, last, *values),
                ).fetchall()
            for _, *row in page:
                yield entry_of(row)
            if len(page) < 1000:
                return
            seen = page[-1][0]

    def total(self, **where: Unpack[Where]) -> Totals:
        """All entries that fit, added up.

        Raises:
            LedgerError: the file cannot be read, or what was appended cannot be written to it.
        """
        return self._sums("NULL", (), where).get(NONE, Totals())

    def totals(self, by: str, **where: Unpack[Where]) -> dict[str, Totals]:
        """Entries added up by task_class, tier, model, node, thread, outcome, ..., or "label:tenant" for a label.

        Costs and baselines of the groups add up to the total; a step with attempts in several groups counts in each.

        Raises:
            LedgerError: the file cannot be read, or what was appended cannot be written to it.
        """
        name, found, label = by.partition(":")
        if found and name == "label":
            return self._sums("(SELECT value FROM json_each(labels) WHERE key = ?)", (storable(label),), where)
        if by not in GROUPS:
            raise ConfigurationError(f'totals by "{by}"; known: {", ".join(GROUPS)}, label:NAME; use one of these')
        return self._sums(by, (), where)

    def _catch_up(self) -> None:
        """Have everything written that was appended; a sum without it would be too small."""
        if not self.flush(WAIT_S) and not self._store.closed:
            raise LedgerError(f"the ledger has entries that could not be written within {WAIT_S:g} s; read it when its file can be written")

    def _sums(self, group: str, arguments: tuple[object, ...], where: Where) -> dict[str, Totals]:
        self._catch_up()
        clause, values = conditions(where)
        with self._store.reading() as connection:
            rows = connection.execute(sums_by(group, clause), (*values, *arguments)).fetchall()
        return {str(row[0]): totals_of(row[1:]) for row in rows}


_SHARED: Final[weakref.WeakValueDictionary[Path, Ledger]] = weakref.WeakValueDictionary()


def _path_of(place: str | Path) -> Path | None:
    """The file a place names; None for memory."""
    text = str(place)
    if text in ("memory:", ":memory:", "memory://"):
        return None
    scheme, found, rest = text.partition("://")
    if not found and not text.startswith("sqlite:"):
        return Path(place)
    path = rest.removeprefix("/")
    if scheme != "sqlite" or not path:
        raise LedgerError(f'ledger "{text}" cannot be opened; known places: a path, sqlite:///costs.db, memory:; use one of these')
    return None if path == ":memory:" else Path(path)
