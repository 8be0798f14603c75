"""Pins and facts outlive a step: what a thread remembers so that a tier never falls where it must not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

from routed_agents.errors import StateError

Scope = Literal["turn", "lineage", "thread"]
SCOPES: Final[tuple[Scope, ...]] = ("turn", "lineage", "thread")
VERSION: Final = 1
PINS_KEPT: Final = 256
"""Turn pins remembered per lineage, the last confirmed: how many runs of one thread may be going on at once."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pin:
    """A floor that outlives its step.

    Attributes:
        scope: how long it holds: the turn, the lineage, or the whole thread.
        tier: the tier's *name*, so that a policy with other ranks still understands it.
        key: the lineage it belongs to; empty for a thread pin.
        turn: the turn it belongs to; empty unless the scope is `turn`.
        run: the graph run it belongs to, when known; it holds in the whole run, even where a summary has replaced the turn's messages.
        seq: seconds since 1970 when it was last confirmed, so that the oldest turns can be forgotten.
        code: why.
    """

    scope: Scope
    tier: str
    key: str = ""
    turn: str = ""
    run: str = ""
    seq: int = 0
    code: str = ""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """The pins and facts of one thread. Joining two states is commutative, associative and idempotent."""

    pins: frozenset[Pin] = field(default_factory=frozenset[Pin])
    facts: frozenset[str] = field(default_factory=frozenset[str])

    def join(self, other: ThreadState) -> ThreadState:
        """Everything either state knows."""
        if (not other.pins and not other.facts) or other == self:
            return self
        return ThreadState(_recent(self.pins | other.pins), self.facts | other.facts)

    def pinned(self, *, key: str, turn: str | None, run: str | None = None) -> tuple[Pin, ...]:
        """The pins that hold for a step of this lineage in this turn, in a stable order."""
        return tuple(sorted([pin for pin in self.pins if _holds(pin, key, turn, run)])) if self.pins else ()

    def of_thread(self) -> ThreadState:
        """What holds in the whole thread: its thread pins and facts."""
        pins = frozenset(pin for pin in self.pins if pin.scope == "thread")
        return ThreadState(pins, self.facts) if pins or self.facts else EMPTY

    def released(self, *, scope: Scope, key: str = "") -> ThreadState:
        """The state without the pins of one scope (and key); an explicit act of the user, never of a rule."""
        return ThreadState(frozenset(pin for pin in self.pins if not (pin.scope == scope and pin.key == key)), self.facts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON in one normal form, so that equal states are equal documents."""
        ordered = sorted(self.pins) if len(self.pins) > 1 else self.pins
        return {"v": VERSION, "pins": [dict(_row(pin)) for pin in ordered], "facts": sorted(self.facts)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> ThreadState:
        """Read what `to_json` wrote; None and an empty mapping are the empty state.

        Raises:
            StateError: the document is not routing state, or was written by a newer version.
        """
        if not document:
            return EMPTY
        if not hasattr(document, "get"):
            raise StateError(f'routing state is a {type(document).__name__}; wanted {{"v", "pins", "facts"}} as written by routed-agents')
        if document.get("v", VERSION) != VERSION:
            raise StateError(
                f"routing state has version {document.get('v')!r}; this release reads version {VERSION}; upgrade routed-agents"
            )
        try:
            pins = frozenset([_pin(row) for row in document.get("pins", ())])
            facts = frozenset([str(fact) for fact in document.get("facts", ())])
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise StateError(
                f'routing state cannot be read ({error}); wanted {{"v", "pins", "facts"}} as written by routed-agents'
            ) from None
        return cls(_recent(pins), facts)


EMPTY: Final = ThreadState()


def join(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> dict[str, Any]:
    """The reducer of the `routing` channel: joins two states kept as plain JSON.

    Put it last in the annotation: `routing: Annotated[dict, join]`.
    """
    return ThreadState.from_json(left).join(ThreadState.from_json(right)).to_json()


def lineage_key(*, node: str | None, namespace: str = "", branch: bool = False) -> str:
    """The key of a lineage inside its thread: the names in the namespace and the node.

    `namespace` is LangGraph's checkpoint namespace, `sub:<id>|inner:<id>`; its last segment is the node's own. Ids are kept only of
    enclosing tool branches and, with `branch`, of a node started by `Send`, because those run side by side; an ordinary node gets a
    new id every time it runs. A bare number counts the calls of one graph within one node, and is no name.
    """
    segments = [segment.partition(":") for segment in namespace.split("|") if segment and not segment.isdigit()]
    outer = [f"{name}:{task}" if name in BRANCHING else name for name, _, task in segments[:-1]]
    last, _, task = segments[-1] if segments else ("", "", "")
    own = node or last
    return "/".join([*outer, f"{own}:{task}" if branch and task else own])


BRANCHING: Final = frozenset({"tools"})
"""Nodes that LangGraph starts once per tool call: their ids tell parallel branches apart."""


def thread_facts(names: Iterable[str]) -> ThreadState:
    """A state that holds only these facts, ready to be joined."""
    return ThreadState(facts=frozenset(names))


def _holds(pin: Pin, key: str, turn: str | None, run: str | None) -> bool:
    if pin.scope == "thread":
        return True
    if pin.key != key:
        return False
    return pin.scope == "lineage" or (turn is not None and pin.turn == turn) or (run is not None and pin.run == run)


def _recent(pins: frozenset[Pin]) -> frozenset[Pin]:
    """One pin of each kind, as last confirmed, and the latest turn pins of each lineage.

    Taking the latest of equals and then the largest few of a union is associative and idempotent, so joins in any order agree.
    """
    if len(pins) < 2:
        return pins
    latest: dict[tuple[str, ...], Pin] = {}
    for pin in pins:
        kind = (pin.scope, pin.tier, pin.key, pin.turn, pin.run, pin.code)
        known = latest.get(kind)
        if known is None or known.seq < pin.seq:
            latest[kind] = pin
    if len(latest) > PINS_KEPT:
        by_key: dict[str, list[Pin]] = {}
        for pin in latest.values():
            if pin.scope == "turn":
                by_key.setdefault(pin.key, []).append(pin)
        kept = {pin for turns in by_key.values() for pin in sorted(turns, key=lambda pin: (pin.seq, pin))[-PINS_KEPT:]}
        return frozenset(pin for pin in latest.values() if pin.scope != "turn" or pin in kept)
    return pins if len(latest) == len(pins) else frozenset(latest.values())


def _pin(row: Mapping[str, Any]) -> Pin:
    scope = row["scope"]
    if scope not in SCOPES:
        raise KeyError(f"unknown scope {scope!r}")
    get = row.get
    return _made(
        scope, str(row["tier"]), str(get("key", "")), str(get("turn", "")), str(get("run", "")), int(get("seq", 0)), str(get("code", ""))
    )


@lru_cache(maxsize=1024)
def _made(scope: Scope, tier: str, key: str, turn: str, run: str, seq: int, code: str) -> Pin:
    """A pin of these parts; a graph's reducer reads the same few over and over, and making one anew takes 2 us."""
    return Pin(scope=scope, tier=tier, key=key, turn=turn, run=run, seq=seq, code=code)


@lru_cache(maxsize=1024)
def _row(pin: Pin) -> tuple[tuple[str, Any], ...]:
    """A pin's parts as they are written down; empty ones are left out."""
    return tuple([(name, value) for name in Pin.__slots__ if (value := getattr(pin, name))])


class StateStore(Protocol):
    """Keeps pins and facts of threads that have no graph channel for them."""

    def load(self, thread: str, /) -> ThreadState: ...

    def add(self, thread: str, state: ThreadState, /) -> None:
        """Join a state to what the thread has."""
        ...


class MemoryStateStore:
    """The state of the latest threads, in this process."""

    def __init__(self, *, threads: int = 10_000) -> None:
        self._threads = threads
        self._states: OrderedDict[str, ThreadState] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, thread: str, /) -> ThreadState:
        """What is known of the thread; the empty state for a new one."""
        return self._states.get(thread, EMPTY)

    def add(self, thread: str, state: ThreadState, /) -> None:
        """Join a state to the thread's."""
        with self._lock:
            self._states[thread] = self._states.get(thread, EMPTY).join(state)
            self._states.move_to_end(thread)
            while len(self._states) > self._threads:
                self._states.popitem(last=False)
