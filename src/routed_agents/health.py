"""Health remembers which deployments are in trouble, so that other calls need not find out again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from routed_agents.errors import ConfigurationError
from routed_agents.failures import Failure, Trouble
from routed_agents.forking import Undivided
from routed_agents.health_sharing import HealthStore, SharedRests

FAILURES: Final = 3
"""Failures in a row from which a deployment rests; a rate limit or a denied key makes it rest at once."""
REST_S: Final = 15.0
"""Seconds it rests the first time; each further rest is twice as long."""
LONGEST_S: Final = 240.0
DOUBLINGS: Final = 32
"""Rests in a row after which the next is no longer anyway."""
AT_ONCE: Final[frozenset[Trouble]] = frozenset({"rate_limit", "denied", "model_not_found"})
NOT_ITS_FAULT: Final[frozenset[Trouble]] = frozenset({"context_overflow"})
SHARED: Final[frozenset[Trouble]] = frozenset({"rate_limit", "overloaded", "server_error"})
"""Troubles of the provider's, which it has for every process; others may be one machine's or one key's own."""
NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class _State:
    failures: int = 0
    rests: int = 0
    since: int = 0  # which of all rests its present one is
    until_s: float = 0.0
    probed_until_s: float = 0.0


class Health:
    """A circuit breaker for each deployment, shared by all calls of a router.

    A deployment that failed several times in a row, or said how long to stay away, rests. While it rests, calls go to another of its
    rank or upward; when the time is over the first call that is made to it probes it, and the rest follow once that call was answered. A
    resting deployment is still called where nothing else may answer: the provider says no, not our guess. What becomes of a call begun
    before the rest neither ends nor lengthens it.

    Shared by the threads and tasks of one process. With a store, other processes are told of the rests a provider asked for (429, 529,
    5xx) and rest that deployment too, a little longer: whoever found out probes first, and tells the others when it was answered. What
    may be one process's own trouble (a connection, a key) is not passed on. No call waits for the store; where it fails, processes find
    out by themselves.

    Args:
        failures: failures in a row before a rest.
        rest_s: seconds of the first rest; a provider's own `retry-after` wins.
        clock: seconds, for tests.
        store: where processes tell each other; nobody is told when not given.

    Raises:
        ConfigurationError: a number or the store cannot be meant.
    """

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        rest_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
        store: HealthStore | None = None,
    ) -> None:
        _check(failures, rest_s, store)
        self._failures = failures
        self._rest_s = rest_s
        self._clock = clock
        self._lock = Undivided()
        self._states: dict[str, _State] = {}
        self._begun = 0
        self._shared = SharedRests(store) if store is not None else None

    def resting(self) -> frozenset[str]:
        """The deployments to leave alone now, by name: those that rest, and those that another call is probing."""
        told = NOBODY if self._shared is None else self._told()
        if not self._states:
            return told
        now = self._clock()
        with self._lock:
            found = [name for name, state in self._states.items() if now < state.until_s or now < state.probed_until_s]
        if told:  # where this process found out itself, it goes by that: it is the one that probes
            found += [name for name in told if (own := self._states.get(name)) is None or not own.rests]
        return frozenset(found)

    def rests(self, *names: str) -> bool:
        """Whether one of these rests now; nobody becomes a probe by asking."""
        now, states = self._clock(), self._states
        own = any(state.rests and now < state.until_s for name in names if (state := states.get(name)) is not None)
        return own or not self._told().isdisjoint(names)

    def begin(self, deployment: str) -> int:
        """Note that a call is made to a deployment now; the first after its rest is the probe.

        Returns:
            How many rests have begun so far, for `failed` and `answered`.
        """
        if (state := self._states.get(deployment)) is not None and state.rests:
            with self._lock:
                now = self._clock()
                if now >= state.until_s and now >= state.probed_until_s:
                    state.probed_until_s = now + self._rest_s  # longer than that nobody waits for a probe that doesn't come back
        return self._begun

    def failed(self, deployment: str, failure: Failure, *, begun: int | None = None) -> bool:
        """Note provider trouble; true when the deployment rests from now on.

        Args:
            deployment: who was called.
            failure: the trouble.
            begun: what `begin` gave; a call that doesn't say, and fails during a rest, counts as begun before it.
        """
        if failure.trouble in NOT_ITS_FAULT:
            return False
        with self._lock:
            state = self._states.setdefault(deployment, _State())
            if self._is_older(state, begun):
                return False
            state.failures += 1
            state.probed_until_s = 0.0
            if state.failures < self._failures and not state.rests and failure.trouble not in AT_ONCE:
                return False
            asked = failure.retry_after_s
            pause = asked if asked is not None and asked >= 0 else self._rest_s * 2 ** min(state.rests, DOUBLINGS)
            pause = min(pause, LONGEST_S)
            self._begun += 1
            state.rests += 1
            state.since = self._begun
            state.until_s = self._clock() + pause
        if self._shared is not None and failure.trouble in SHARED:
            self._shared.rest(deployment, time.time() + pause)
        return True

    def answered(self, deployment: str, *, begun: int | None = None) -> None:
        """Note an answer: all is well again, unless the call was begun before the rest.

        Args:
            deployment: who answered.
            begun: what `begin` gave; a call that doesn't say, and is answered during a rest, counts as begun before it.
        """
        if deployment not in self._states:
            return
        with self._lock:
            state = self._states.get(deployment)
            if state is None or self._is_older(state, begun):
                return
            del self._states[deployment]
        if self._shared is not None and state.rests:
            self._shared.clear(deployment)

    def _is_older(self, state: _State, begun: int | None) -> bool:
        """Whether a call was begun before the rest, and so has nothing to say about it."""
        return begun < state.since if begun is not None else self._clock() < state.until_s

    def _told(self) -> frozenset[str]:
        """What other processes say rests; no longer than any rest may last, whatever their clocks say."""
        if self._shared is None or not (told := self._shared.told()):
            return NOBODY
        now, grace = time.time(), self._shared.grace_s
        return frozenset([name for name, until in told.items() if now < until + grace and until - now <= LONGEST_S + grace])


def _check(failures: object, rest_s: object, store: object) -> None:
    if type(failures) is not int or failures < 1:
        raise ConfigurationError(f"failures is {failures!r}; wanted a whole number above 0")
    if isinstance(rest_s, bool) or not isinstance(rest_s, (int, float)) or not 0 < rest_s < math.inf:
        raise ConfigurationError(f"rest_s is {rest_s!r}; wanted seconds above 0")
    if store is not None and not all(callable(getattr(store, method, None)) for method in ("rests", "rest", "clear")):
        raise ConfigurationError(f'store is of type {type(store).__name__}; wanted a health store, like SqliteHealthStore("rests.db")')
