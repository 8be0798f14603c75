"""Health remembers which deployments are in trouble, so that other calls need not find out again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from routed_agents.errors import ConfigurationError
from routed_agents.failures import Failure, Trouble
from routed_agents.forking import Undivided
from routed_agents.health_sharing import FARTHEST_S, LINGER_S, LONGEST_S, NOTHING, HealthStore, SharedRests

FAILURES: Final = 3
"""Failures in a row from which a deployment rests; a rate limit or a denied key makes it rest at once."""
REST_S: Final = 15.0
"""Seconds it rests the first time; each further rest is twice as long."""
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
    ends_s: float = 0.0  # when its present rest ends for everybody, in seconds since 1970
    told: bool = False  # another process found that out


class Health:
    """A circuit breaker for each deployment, shared by all calls of a router.

    A deployment that failed several times in a row, or said how long to stay away, rests. While it rests, calls go to another of its
    rank or upward; when the time is over the first call that is made to it probes it, and the rest follow once that call was answered. A
    resting deployment is still called where nothing else may answer: the provider says no, not our guess. What becomes of a call begun
    before the rest neither ends nor lengthens it.

    Shared by the threads and tasks of one process. With a store, other processes are told of the rests a provider asked for (429, 529,
    5xx) and rest that deployment too, a little longer: whoever found out probes first, and tells the others when it was answered; where
    it doesn't, the first call of each of them is a probe. What may be one process's own trouble (a connection, a key) is not passed on.
    No call waits for the store, and making this half a second at most; where the store fails, processes find out by themselves.

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
        self._heard: Mapping[str, float] = NOTHING

    def resting(self) -> frozenset[str]:
        """The deployments to leave alone now, by name: those that rest, and those that another call is probing."""
        self._hear()
        if not self._states:
            return NOBODY
        now = self._clock()
        with self._lock:
            return frozenset([name for name, state in self._states.items() if now < state.until_s or now < state.probed_until_s])

    def rests(self, *names: str) -> bool:
        """Whether one of these rests now; nobody becomes a probe by asking."""
        self._hear()
        now, states = self._clock(), self._states
        return any(state.rests and now < state.until_s for name in names if (state := states.get(name)) is not None)

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
            state.ends_s, state.told = time.time() + pause, False
        if self._shared is not None and failure.trouble in SHARED:
            self._shared.rest(deployment, state.ends_s)
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
            self._shared.clear(deployment, state.ends_s)

    def _is_older(self, state: _State, begun: int | None) -> bool:
        """Whether a call was begun before the rest, and so has nothing to say about it."""
        return begun < state.since if begun is not None else self._clock() < state.until_s

    def _hear(self) -> None:
        """Take in what other processes say, where it is new."""
        if self._shared is None or (told := self._shared.told()) is self._heard:
            return
        with self._lock:
            self._heard = told
            for name in [name for name, state in self._states.items() if name not in told and self._is_taken_back(state)]:
                del self._states[name]
            for name, until_s in told.items():
                self._rest_as_told(name, until_s, self._shared.grace_s)

    def _rest_as_told(self, deployment: str, until_s: float, grace_s: float) -> None:
        """Rest a deployment as another process says, but no longer than any rest may last, whatever their clocks say.

        One whose rest was over lately only waits for its probe.
        """
        state, left_s = self._states.get(deployment), until_s + grace_s - time.time()
        if not -LINGER_S < left_s <= FARTHEST_S + grace_s:
            return
        if state is not None and state.rests and (not state.told or state.ends_s == until_s):
            return  # where this process found out itself, it goes by that: it is the one that probes
        self._begun += 1
        self._states[deployment] = _State(rests=1, since=self._begun, until_s=self._clock() + left_s, ends_s=until_s, told=True)

    def _is_taken_back(self, state: _State) -> bool:
        """Whether a rest that nobody tells of any more was ended by an answer, or is over for so long that no probe is needed."""
        return state.told and (time.time() < state.ends_s + LINGER_S or self._clock() > state.until_s + LONGEST_S)


def _check(failures: object, rest_s: object, store: object) -> None:
    if type(failures) is not int or failures < 1:
        raise ConfigurationError(f"failures is {failures!r}; wanted a whole number above 0")
    if isinstance(rest_s, bool) or not isinstance(rest_s, (int, float)) or not 0 < rest_s < math.inf:
        raise ConfigurationError(f"rest_s is {rest_s!r}; wanted seconds above 0")
    if store is not None and not all(callable(getattr(store, method, None)) for method in ("rests", "rest", "clear")):
        raise ConfigurationError(f'store is of type {type(store).__name__}; wanted a health store, like SqliteHealthStore("rests.db")')
