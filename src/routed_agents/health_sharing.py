"""Keeps what rests here in step with what rests in other processes, without anybody's call waiting for it."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, Protocol, runtime_checkable

from routed_agents.forking import Undivided

log: Final = logging.getLogger("routed_agents")
POLL_S: Final = 0.25
"""Seconds between two looks into the store: how long another process's rest may stay unknown."""
FIRST_LOOK_S: Final = 0.5
"""Seconds a new process waits at most for what the others say, so that it knows at once; where that takes longer, it hears of it later."""
BACKLOG: Final = 1_000
"""Rests to tell at most while the store cannot be written; the oldest are forgotten first, as they are over first."""
STALE_S: Final = 300.0
"""Seconds after which a change that could not be told is not worth telling: the rest that it is about is over."""
LINGER_S: Final = 10.0
"""Seconds a rest stays in a store when its time is over: for so long those who were told may wait for the first to probe."""
GRACE_S: Final = (0.5, 2.0)
"""Seconds, drawn between these, that a process rests longer than the one that found out, so that not all of them probe at once."""
LONGEST_S: Final = 240.0
"""Seconds a rest lasts at most."""
FARTHEST_S: Final = LONGEST_S + GRACE_S[1]
"""Seconds from now beyond which no rest can end: a clock was wrong."""
NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


@runtime_checkable
class HealthStore(Protocol):
    """Where processes tell each other which deployments rest. Called from one thread of ours at a time, so it may wait."""

    def rests(self) -> Mapping[str, float]:
        """The deployments that rest, by name, and until when, in seconds since 1970; kept for `LINGER_S` after that, unless cleared."""
        ...

    def rest(self, deployment: str, until_s: float, /) -> None:
        """Note a rest; of several for one deployment the longest holds, except one that ends more than `FARTHEST_S` from now."""
        ...

    def clear(self, deployment: str, until_s: float, /) -> None:
        """Forget a deployment's rest until then: it answered again. A longer one, which another process found out, stays."""
        ...


class SharedRests:
    """What other processes say, read and written by a thread of its own.

    Only making it waits, and `FIRST_LOOK_S` at most. Reading it never does: it is what the thread last saw. Where the store cannot be
    reached that is said once, what was seen stays until its time is over, and each process goes by what it finds out itself.

    Args:
        store: where it is told.
        poll_s: seconds between two looks.
    """

    def __init__(self, store: HealthStore, *, poll_s: float = POLL_S) -> None:
        self._store = store
        self._poll_s = poll_s
        self._told: Mapping[str, float] = NOTHING
        self._changes: deque[tuple[Literal["rest", "clear"], str, float, float]] = deque(maxlen=BACKLOG)
        self.grace_s = GRACE_S[1]
        self._troubled = False
        self._exchanging = Undivided()
        self._begin()
        _SHARING.add(self)
        self._looked.wait(FIRST_LOOK_S)

    def told(self) -> Mapping[str, float]:
        """Until when each deployment rests, in seconds since 1970, as last seen."""
        return self._told

    def rest(self, deployment: str, until_s: float) -> None:
        """Tell the others that a deployment rests."""
        self._tell("rest", deployment, until_s)

    def clear(self, deployment: str, until_s: float) -> None:
        """Tell the others that a deployment which rested until then answered again."""
        self._told = MappingProxyType({name: until for name, until in self._told.items() if name != deployment or until > until_s})
        self._tell("clear", deployment, until_s)

    def _tell(self, what: Literal["rest", "clear"], deployment: str, until_s: float) -> None:
        self._changes.append((what, deployment, until_s, time.monotonic()))
        self._wake.set()

    def _begin(self) -> None:
        """Start this process's thread, with events and a waiting time of its own; a forked child inherits none of them."""
        self.grace_s = random.Random().uniform(*GRACE_S)
        self._wake, self._looked = threading.Event(), threading.Event()
        threading.Thread(target=_keep_in_step, args=(weakref.ref(self), self._wake), name="routed-agents-health", daemon=True).start()

    def _exchange(self) -> None:
        """Write what is new here and read what is new there."""
        try:
            with self._exchanging:
                try:
                    self._write()
                finally:  # who may only read hears of the others all the same
                    self._told = MappingProxyType({name: float(until) for name, until in self._store.rests().items()})
        except Exception as trouble:
            if not self._troubled:
                log.warning(
                    "what rests cannot be shared with other processes (%s: %s); each finds out by itself", type(trouble).__name__, trouble
                )
            self._troubled = True
        else:
            self._troubled = False
        self._looked.set()

    def _write(self) -> None:
        while self._changes:
            what, deployment, until_s, noted_s = change = self._changes.popleft()
            if time.monotonic() - noted_s > STALE_S:
                continue  # also where the store refuses just this one, which must not hold up the others for good
            try:
                (self._store.rest if what == "rest" else self._store.clear)(deployment, until_s)
            except BaseException:
                self._changes.appendleft(change)
                raise


def _keep_in_step(shared: weakref.ref[SharedRests], wake: threading.Event) -> None:
    """The thread's work, for as long as somebody else holds what it works for."""
    while (here := shared()) is not None:
        wake.clear()
        here._exchange()  # pyright: ignore[reportPrivateUsage]
        poll_s = here._poll_s  # pyright: ignore[reportPrivateUsage]
        del here
        wake.wait(poll_s)


_SHARING: Final[weakref.WeakSet[SharedRests]] = weakref.WeakSet()
"""Who shares in this process."""


def _begin_again() -> None:
    for shared in _SHARING:
        shared._begin()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_again)
