"""Keeps a fork from cutting a thread's work in two, and a worker's end from cutting it short.

A forked child has the memory of its parent's threads, but not the threads. A lock that one of them held just then, be it one inside SQLite
that Python never sees, is held in the child for good, and the child's first connection waits for it without end. And a worker of
`multiprocessing` leaves without doing what `atexit` was told.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

WAIT_S: Final = 1.0
"""Seconds a fork waits at most for all work under way: stores that hang must not hold up the process as well."""
TURN_S: Final = 0.01
"""Seconds it waits for one thread's work before it looks at the next, so that one that hangs takes no time from the others."""


class Undivided:
    """Work that a fork waits for, done by one thread at a time: `with` it. A fork in the midst of one's own work does not wait."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        while _FORK.by not in (None, threading.get_ident()):  # others who wait for the lock must not go before a fork
            self._lock.release()
            with _FORK.turn:
                pass
            self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def pause(self, wait_s: float) -> bool:
        """Wait until the work is whole, and keep it from beginning; false where it took too long."""
        return self._lock.acquire(timeout=wait_s)

    def go_on(self) -> None:
        """Let the work begin again, in the process that forked."""
        self._lock.release()

    def renew(self) -> None:
        """Begin afresh, in the child."""
        self._lock = threading.RLock()


class Renewable(Protocol):
    """What holds something that a forked child cannot share with its parent: a lock, a thread, a connection."""

    def renew(self) -> None:
        """Begin afresh, in the child."""
        ...


def renew_in_children(one: Renewable) -> None:
    """Have it begin afresh in every forked child, for as long as it lives."""
    _RENEWED.add(one)


def when_over(act: Callable[[], object]) -> None:
    """Have it done when the program ends, or the worker of `multiprocessing` that this is or becomes; it may be done twice."""
    atexit.register(act)
    _LAST.append(act)
    _mind_workers()


def _mind_workers() -> None:
    """Have `multiprocessing`, where it is in use, tell its workers what to do last: each forgets at its start what it was told before."""
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return
    if not _FORK.minded:
        util.register_after_fork(_FORK, _as_worker)
        _FORK.minded = True
    if sys.modules["multiprocessing.process"].parent_process() is not None:
        _as_worker(_FORK)


def _as_worker(_: object) -> None:
    util = sys.modules["multiprocessing.util"]
    for act in _LAST:
        util.Finalize(None, act, exitpriority=AFTER_ALL)


class _Fork:
    """The fork under way, if any; others wait for their turn.

    Attributes:
        minded: `multiprocessing` will tell its workers what to do last.
    """

    minded = False

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.by: int | None = None
        self.paused: list[Undivided] = []

    def before(self) -> None:
        self.turn.acquire()
        self.by = threading.get_ident()
        until = time.monotonic() + WAIT_S
        busy = self._pause(list(_ALL), until, turn_s=0.0)
        while busy and time.monotonic() < until:
            busy = self._pause(busy, until, turn_s=TURN_S)

    def _pause(self, busy: list[Undivided], until: float, *, turn_s: float) -> list[Undivided]:
        """Pause what can be paused; gives the rest."""
        rest: list[Undivided] = []
        for work in busy:
            wait_s = max(min(turn_s, until - time.monotonic()), 0.0)
            (self.paused if work.pause(wait_s) else rest).append(work)
        return rest

    def in_parent(self) -> None:
        while self.paused:
            self.paused.pop().go_on()
        self.by = None
        self.turn.release()

    def in_child(self) -> None:
        self.__init__()
        for one in [*_ALL, *_RENEWED]:
            one.renew()
        _mind_workers()


AFTER_ALL: Final = -100
"""After everything else that `multiprocessing` has to end in a worker, such as its queues."""
_LAST: Final[list[Callable[[], object]]] = []
_ALL: Final[weakref.WeakSet[Undivided]] = weakref.WeakSet()
_RENEWED: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()
_FORK: Final = _Fork()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_FORK.before, after_in_parent=_FORK.in_parent, after_in_child=_FORK.in_child)
