"""Pins and facts outlive a step: what a thread remembers so that a tier never falls where it must not."""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

from routed_agents.errors import StateError
from routed_agents.forking import Undivided

log: Final = logging.getLogger("routed_agents")
Scope = Literal["turn", "lineage", "thread"]
SCOPES: Final[tuple[Scope, ...]] = ("turn", "lineage", "thread")
VERSION: Final = 1
PINS_KEPT: Final = 256
"""Turn pins remembered per lineage, the last confirmed: how many conversations of one thread may be going on at once outside of graphs."""
RUNS_KEPT: Final = 32
"""Graph runs remembered with pins in a lineage, or in a node's branches, the latest; and of others all that may be going on still."""
YOUNG_S: Final = 3_600
"""A run's pin that is no older than its lineage's last by more may be of a run that goes on. Each run counts a second at least."""
YOUNG_KEPT: Final = 4_096
"""Young pins of a lineage, or of a node's branches, that are kept: more runs and branches of one thread than can go on at once."""
CHANNEL_PINS: Final = 32
"""Turn pins of a lineage that a graph's own state keeps, the last confirmed: each checkpoint holds them all."""
CHANNEL_RUNS: Final = 4
"""Runs with pins in a lineage that a graph's own state keeps, the latest: runs side by side never meet in it, so most of them are over."""
TURNS_KEPT: Final = 32
"""Turns remembered by name, the latest: how many runs of one thread may be going on at once and still count as one turn each."""
PLACED: Final = "@"
"""Parts a turn's name, where messages have no ids, into what opened it and its place; stands in front where that is not in view."""
MICRO: Final = 1_000_000
UNDATED: Final = 1
"""When a fact was noted that says nothing about it: before any release."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pin:
    """A floor that outlives its step.

    Attributes:
        scope: how long it holds: the turn, the lineage, or the whole thread.
        tier: the tier's *name*, so that a policy with other ranks still understands it.
        key: the lineage it belongs to; empty for a thread pin.
        turn: the turn it belongs to; empty unless the scope is `turn`.
        run: the graph run it belongs to, when known; it holds in the whole run, even where a summary has replaced the turn's messages.
        seq: seconds since 1970 when it was last confirmed, so that the oldest turns can be forgotten and older pins released. A turn pin's
            is later than what was known of its lineage's other runs, whatever the clocks say.
        code: why; a lineage or thread pin is released, and lapses, by this name.
        at: the graph checkpoint it was confirmed at, so that a run that takes up another knows its turn; empty unless the scope is `turn`.
        number: the turn of the thread it was confirmed in, where turns are counted.
    """

    scope: Scope
    tier: str
    key: str = ""
    turn: str = ""
    run: str = ""
    seq: int = 0
    code: str = ""
    at: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mark:
    """When a name was last noted and last released; a fact holds that was noted after it was last released.

    Attributes:
        name: a fact, or the code of lineage and thread pins.
        noted: microseconds since 1970; 0 for what is no fact.
        released: microseconds since 1970; 0 where it never was. What was noted or pinned up to then holds no longer.
        number: the turn of the thread it was noted in, where turns are counted.
    """

    name: str
    noted: int = 0
    released: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Turn:
    """A turn of the thread, counted for pins and facts that lapse after some.

    Attributes:
        number: 1 for the first that was counted.
        name: from the message that opened it.
        run: the graph run it belongs to, when known.
        at: the graph checkpoint at which it was first seen.
    """

    number: int
    name: str
    run: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """The pins and facts of one thread. Joining two states is commutative, associative and idempotent.

    Attributes:
        pins: floors that hold.
        facts: what is true of the thread.
        marks: when facts were noted, and what was released; a fact without a mark has no date.
        turns: the latest turns, where they are counted.
        unread: where these are kept could not be read, so there may be more; never written down.
    """

    pins: frozenset[Pin] = field(default_factory=frozenset[Pin])
    facts: frozenset[str] = field(default_factory=frozenset[str])
    marks: frozenset[Mark] = field(default_factory=frozenset[Mark])
    turns: frozenset[Turn] = field(default_factory=frozenset[Turn])
    unread: bool = False

    def join(self, other: ThreadState) -> ThreadState:
        """Everything either state knows, less what either knows to be released."""
        if not other or other == self:
            return self
        return _joined(self, other)

    def __bool__(self) -> bool:
        return bool(self.pins or self.facts or self.marks or self.turns or self.unread)

    def pinned(
        self, *, key: str, turn: str | None, run: str | None = None, since: str | None = None, going_on: bool = False
    ) -> tuple[Pin, ...]:
        """The pins that hold for a step of this lineage in this turn, in a stable order.

        Args:
            key: the lineage.
            turn: the turn, as its opening message names it.
            run: the graph run.
            since: the checkpoint at which the turn began that the run has taken up.
            going_on: the turn cannot be a new one, for a tool's result is its last message.
        """
        if not self.pins:
            return ()
        held = [pin for pin in self.pins if _holds(pin, key, turn, run, since)]
        if going_on and turn and run is None:
            held += [pin for pin in self._shortened(key, turn) if pin not in held]
        return tuple(sorted(held))

    def _shortened(self, key: str, turn: str) -> list[Pin]:
        """The pins of a turn in a history that was shortened since: of the one opened alike, else, where that is cut off, of the latest."""
        pins = [pin for pin in self.pins if pin.scope == "turn" and pin.key == key]
        if not turn.startswith(PLACED):
            return [pin for pin in pins if _opened_alike(pin.turn, turn)]
        latest = max((pin.seq for pin in pins), default=0)
        return [pin for pin in pins if pin.seq == latest]

    def lent(self, key: str, other: str) -> ThreadState:
        """The same, and what holds for another lineage holds for this one, too."""
        moved = frozenset([replace(pin, key=key) for pin in self.pins if pin.key == other])
        return self.join(ThreadState(moved)) if moved else self

    def of_thread(self) -> ThreadState:
        """What holds in the whole thread: its thread pins and facts, and what is known of them."""
        pins = frozenset(pin for pin in self.pins if pin.scope == "thread")
        found = ThreadState(pins, self.facts, self.marks, self.turns, self.unread)
        return found or EMPTY

    def lasting(self) -> ThreadState:
        """The same without what ends with its turn or branch; nothing where no pin or fact is left, or may be."""
        pins = frozenset(pin for pin in self.pins if pin.scope != "turn" and not in_branch(pin.key))
        return replace(self, pins=pins) if pins or self.facts or self.unread else EMPTY

    def mark_of(self, name: str) -> Mark:
        """When a fact was noted, or pins of this code were released; no date where nothing is known."""
        return next((mark for mark in self.marks if mark.name == name), Mark(name=name, noted=UNDATED if name in self.facts else 0))

    def turn_of(self, *, name: str, run: str | None, since: str | None, going_on: bool = False) -> Turn | None:
        """The counted turn that a step belongs to, if it has been counted; one that goes on may be known from before it was shortened."""
        found = [
            turn
            for turn in self.turns
            if (run is not None and turn.run == run) or (name and turn.name == name) or (since is not None and turn.at >= since)
        ]
        if not found and going_on and run is None:
            found = [turn for turn in self.turns if name.startswith(PLACED) or _opened_alike(turn.name, name)]
        return max(found, default=None)

    @property
    def latest_turn(self) -> int:
        """The number of the latest turn that was counted; 0 before the first."""
        return max((turn.number for turn in self.turns), default=0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON in one normal form, so that equal states are equal documents."""
        ordered = sorted(self.pins) if len(self.pins) > 1 else self.pins
        document: dict[str, Any] = {"v": VERSION, "pins": [dict(_row(pin)) for pin in ordered], "facts": sorted(self.facts)}
        if self.marks:
            document["marks"] = [dict(_row(mark)) for mark in sorted(self.marks)]
        if self.turns:
            document["turns"] = [dict(_row(turn)) for turn in sorted(self.turns)]
        return document

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
            facts = frozenset([str(fact) for fact in _several(document.get("facts", ()))])
            marks = frozenset([_mark(row) for row in document.get("marks", ())])
            turns = frozenset([_turn(row) for row in document.get("turns", ())])
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise StateError(
                f'routing state cannot be read ({error}); wanted {{"v", "pins", "facts"}} as written by routed-agents'
            ) from None
        if marks or turns:
            return _joined(EMPTY, cls(pins, facts, marks, turns))
        return cls(_recent(pins), facts)


EMPTY: Final = ThreadState()
UNREAD: Final = ThreadState(unread=True)
"""What is known of a thread whose pins and facts could not be read."""


def join(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> dict[str, Any]:
    """The reducer of the `routing` channel: joins two states kept as plain JSON.

    Put it last in the annotation: `routing: Annotated[dict, join]`. Of turn pins it keeps those of a lineage's latest runs.
    """
    joined = ThreadState.from_json(left).join(ThreadState.from_json(right))
    pins = _recent(joined.pins, most=CHANNEL_PINS, runs=CHANNEL_RUNS, side_by_side=False)
    return (joined if pins is joined.pins else replace(joined, pins=pins)).to_json()


def join_all(states: Iterable[ThreadState]) -> ThreadState:
    """These states joined at once; one after another takes time by the square of their number."""
    parts = [*states]
    pins = frozenset[Pin]().union(*[state.pins for state in parts])
    facts = frozenset[str]().union(*[state.facts for state in parts])
    marks = frozenset[Mark]().union(*[state.marks for state in parts])
    turns = frozenset[Turn]().union(*[state.turns for state in parts])
    return _joined(EMPTY, ThreadState(pins, facts, marks, turns, any(state.unread for state in parts)))


def lineage_key(*, node: str | None, namespace: str = "", branch: bool = False) -> str:
    """The key of a lineage inside its thread: the names in the namespace and the node.

    `namespace` is LangGraph's checkpoint namespace, `sub:<id>|inner:<id>`; its last segment is the node's own. Ids are kept only of
    enclosing tool branches and, with `branch`, of a node started by `Send` or called beside others, because those run side by side; an
    ordinary node gets a new id every time it runs. A bare number counts the calls of one graph within one node, and is no name.
    """
    segments = [segment.partition(":") for segment in namespace.split("|") if segment and not segment.isdigit()]
    outer = [f"{name}{BRANCH}{task}" if name in BRANCHING else name for name, _, task in segments[:-1]]
    last, _, task = segments[-1] if segments else ("", "", "")
    own = node or last
    return "/".join([*outer, f"{own}{BRANCH}{task}" if branch and task else own])


@lru_cache(maxsize=1024)
def names_of(key: str) -> str:
    """A lineage's key without the ids of branches."""
    return _BRANCHES.sub("", key)


@lru_cache(maxsize=1024)
def in_branch(key: str) -> bool:
    """Whether a lineage is in a branch, whose id never comes again."""
    return _BRANCHES.search(key) is not None


BRANCH: Final = ":"
"""Stands in a lineage's key before the id of a branch."""
_BRANCHES: Final = re.compile(f"{BRANCH}[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}(?=/|$)")
"""The ids of branches, as LangGraph gives them; a name may have the same sign in it."""
BRANCHING: Final = frozenset({"tools"})
"""Nodes that LangGraph starts once per tool call: their ids tell parallel branches apart."""


def thread_facts(names: Iterable[str]) -> ThreadState:
    """A state that holds only these facts, noted now and ready to be joined."""
    now = _now()
    return _joined(EMPTY, ThreadState(marks=frozenset(Mark(name=name, noted=now) for name in names)))


def release_of(names: Iterable[str]) -> ThreadState:
    """A state that releases facts, and lineage and thread pins by their code, ready to be joined.

    What was noted or pinned before now holds no longer; what is noted later does. Turn pins end with their turn and are not touched, so a
    release within a turn doesn't lower it. A state that comes later and knows of neither changes nothing.

    Raises:
        StateError: no name was given.
    """
    now = _now()
    marks = frozenset(Mark(name=name, released=now) for name in names)
    if not marks:
        raise StateError('nothing was named to be released; wanted facts or codes of pins, like "distress"')
    return ThreadState(marks=marks)


def _now() -> int:
    return time.time_ns() // 1_000


def _holds(pin: Pin, key: str, turn: str | None, run: str | None, since: str | None) -> bool:
    if pin.scope == "thread":
        return True
    if pin.key != key:
        return False
    if pin.scope == "lineage" or (turn is not None and pin.turn == turn) or (run is not None and pin.run == run):
        return True
    return since is not None and pin.at >= since


def _opened_alike(known: str, seen: str) -> bool:
    """Whether a turn known by this name is the one seen now, in a history that can only have lost messages before it."""
    (words, _, place), (known_words, _, known_place) = seen.rpartition(PLACED), known.rpartition(PLACED)
    return bool(words) and words == known_words and place.isdecimal() and known_place.isdecimal() and int(known_place) >= int(place)


def _joined(left: ThreadState, right: ThreadState) -> ThreadState:
    """Both states in one normal form.

    What is known of a name is the latest of each kind, and a release strikes out what is no later than itself: a maximum, and a filter
    that only ever grows with it, so joins in any order agree.
    """
    pins, turns, unread = left.pins | right.pins, left.turns | right.turns, left.unread or right.unread
    if turns:
        turns = _latest_turns(turns)
    if not left.marks and not right.marks:
        return ThreadState(_recent(pins), left.facts | right.facts, frozenset(), turns, unread)
    known: dict[str, Mark] = {}
    for mark in (*left.marks, *right.marks, *(Mark(name=name, noted=UNDATED) for name in left.facts | right.facts)):
        known[mark.name] = _latest(known[mark.name], mark) if mark.name in known else mark
    struck = {mark.name: mark.released for mark in known.values() if mark.released}
    if struck:
        pins = frozenset(pin for pin in pins if pin.scope == "turn" or pin.seq * MICRO > struck.get(pin.code, -1))
    facts = frozenset(mark.name for mark in known.values() if mark.noted > mark.released)
    dated = frozenset(mark for mark in known.values() if mark.noted > UNDATED or mark.released or mark.number)
    return ThreadState(_recent(pins), facts, dated, turns, unread)


def _latest(one: Mark, other: Mark) -> Mark:
    return Mark(
        name=one.name,
        noted=max(one.noted, other.noted),
        released=max(one.released, other.released),
        number=max(one.number, other.number),
    )


def _latest_turns(turns: frozenset[Turn]) -> frozenset[Turn]:
    """The latest turns, each as it was last counted."""
    latest: dict[tuple[str, str], Turn] = {}
    for turn in turns:
        known = latest.get((turn.name, turn.run))
        if known is None or known < turn:
            latest[turn.name, turn.run] = turn
    return frozenset(sorted(latest.values())[-TURNS_KEPT:])


def _recent(pins: frozenset[Pin], *, most: int | None = None, runs: int | None = None, side_by_side: bool = True) -> frozenset[Pin]:
    """One pin of each kind, as last confirmed; the latest turn pins of a lineage's latest runs; those in branches of a node's latest runs;
    and the last ones of every run that may be going on.

    Taking the latest of equals and then the largest few of a union is associative and idempotent, so joins in any order agree; and so is
    taking what is no older than the last pin of the least of the latest few runs, or than the last of all by so much.

    Args:
        pins: all there are.
        most: turn pins of a lineage that are kept; `PINS_KEPT` when not given.
        runs: runs of a lineage, or of a node's branches, whose pins are kept; `RUNS_KEPT` when not given.
        side_by_side: runs beside the latest may be going on, and keep their pins.
    """
    most, runs = most or PINS_KEPT, runs or RUNS_KEPT
    if len(pins) < 2:
        return pins
    latest: dict[tuple[str, ...], Pin] = {}
    for pin in pins:
        kind = kind_of(pin)
        known = latest.get(kind)
        if known is None or _confirmed(known) < _confirmed(pin):
            latest[kind] = pin
    if len(latest) <= min(most, runs):
        return pins if len(latest) == len(pins) else frozenset(latest.values())
    kept: list[Pin] = []
    by_key: dict[str, list[Pin]] = {}
    branches: dict[str, list[Pin]] = {}
    for pin in latest.values():
        if in_branch(pin.key) and (pin.run or pin.scope == "lineage"):
            branches.setdefault(names_of(pin.key), []).append(pin)
        elif pin.scope == "turn":
            by_key.setdefault(pin.key, []).append(pin)
        else:
            kept.append(pin)
    for turns in by_key.values():
        kept += sorted(_of_latest(runs, turns), key=_by_age)[-most:]
    for branched in branches.values():
        kept += _of_latest(runs, branched)
    if side_by_side and len(kept) < len(latest):
        for together in (*by_key.values(), *branches.values()):
            kept += _going_on(together)
    found = frozenset(kept)
    return pins if len(found) == len(pins) else found


def _of_latest(runs: int, pins: list[Pin]) -> list[Pin]:
    """Of the pins in a lineage, or in the branches of a node, those no older than the last ones of so many runs."""
    last: dict[str, int] = {}
    for pin in pins:
        if pin.run:
            last[pin.run] = max(pin.seq, last.get(pin.run, 0))
    if len(last) < runs:
        return pins
    since = sorted(last.values())[-runs]
    return [pin for pin in pins if pin.seq >= since]


def _going_on(pins: list[Pin]) -> list[Pin]:
    """Of the pins in a lineage, or in the branches of a node, the last one to each tier of every run that may be going on."""
    since = max(pin.seq for pin in pins) - YOUNG_S
    last: dict[tuple[str, ...], Pin] = {}
    for pin in pins:
        of_run = pin.scope, pin.tier, pin.key, pin.run
        if pin.seq >= since and (pin.run or pin.scope == "lineage") and (of_run not in last or _by_age(last[of_run]) < _by_age(pin)):
            last[of_run] = pin
    return sorted(last.values(), key=_by_age)[-YOUNG_KEPT:]


def _by_age(pin: Pin) -> tuple[int, Pin]:
    return pin.seq, pin


def kind_of(pin: Pin) -> tuple[str, ...]:
    """The pin without when it was confirmed."""
    return pin.scope, pin.tier, pin.key, pin.turn, pin.run, pin.code


def _confirmed(pin: Pin) -> tuple[int, str, int]:
    return pin.seq, pin.at, pin.number


def _several(given: Any) -> Any:
    if isinstance(given, (str, bytes, dict)):
        raise TypeError('"facts" is no list')
    return given


def _mark(row: Mapping[str, Any]) -> Mark:
    noted, released, number = (int(row.get(name, 0)) for name in ("noted", "released", "number"))
    return Mark(name=str(row["name"]), noted=noted, released=released, number=number)


def _turn(row: Mapping[str, Any]) -> Turn:
    return Turn(number=int(row["number"]), name=str(row.get("name", "")), run=str(row.get("run", "")), at=str(row.get("at", "")))


def _pin(row: Mapping[str, Any]) -> Pin:
    scope = row["scope"]
    if scope not in SCOPES:
        raise KeyError(f"unknown scope {scope!r}")
    get = row.get
    return _made(
        scope,
        str(row["tier"]),
        str(get("key", "")),
        str(get("turn", "")),
        str(get("run", "")),
        int(get("seq", 0)),
        str(get("code", "")),
        str(get("at", "")),
        int(get("number", 0)),
    )


@lru_cache(maxsize=1024)
def _made(scope: Scope, tier: str, key: str, turn: str, run: str, seq: int, code: str, at: str, number: int) -> Pin:
    """A pin of these parts; a graph's reducer reads the same few over and over, and making one anew takes 2 us."""
    return Pin(scope=scope, tier=tier, key=key, turn=turn, run=run, seq=seq, code=code, at=at, number=number)


@lru_cache(maxsize=1024)
def _row(thing: Pin | Mark | Turn) -> tuple[tuple[str, Any], ...]:
    """Its parts as they are written down; empty ones are left out."""
    return tuple([(name, value) for name in type(thing).__slots__ if (value := getattr(thing, name))])


class StateStore(Protocol):
    """Keeps pins and facts of threads that have no graph channel for them."""

    def load(self, thread: str, /) -> ThreadState: ...

    def add(self, thread: str, state: ThreadState, /) -> None:
        """Join a state to what the thread has."""
        ...


class MemoryStateStore:
    """The state of the latest threads, in this process.

    Pins of turns that are long over go first; facts, and lineage and thread pins, are kept of more threads. A thread of which something
    was given up that may hold is unread from then on, so that its steps are unsure and go to the top.

    Args:
        threads: threads of which all is kept, the latest; up to ten times as many while their turns may go on.
        lasting: threads besides, of which facts, and lineage and thread pins, are kept, the latest.
    """

    def __init__(self, *, threads: int = 10_000, lasting: int = 100_000) -> None:
        self._most, self._most_lasting = threads, lasting
        self._states: dict[str, ThreadState] = {}
        self._whole: OrderedDict[str, None] = OrderedDict()
        self._lasting: OrderedDict[str, None] = OrderedDict()
        self._forgotten: set[int] = set()
        self._look_at = 0  # in seconds since 1970: whether turns still go on is not asked at every step
        self._lock = Undivided()

    @property
    def forgotten(self) -> int:
        """Threads of which something was given up that may hold."""
        return len(self._forgotten)

    def load(self, thread: str, /) -> ThreadState:
        """What is known of the thread, which is one of the latest again; the empty state for a new one, unread for a forgotten one."""
        if thread not in self._states and hash(thread) not in self._forgotten:
            return EMPTY
        with self._lock:
            for order in (self._whole, self._lasting):
                if thread in order:
                    order.move_to_end(thread)
            state = self._states.get(thread, EMPTY)
            return state.join(UNREAD) if hash(thread) in self._forgotten else state

    def add(self, thread: str, state: ThreadState, /) -> None:
        """Join a state to the thread's."""
        with self._lock:
            before = self.forgotten
            self._states[thread] = self._states.get(thread, EMPTY).join(state)
            self._lasting.pop(thread, None)
            self._whole[thread] = None
            self._whole.move_to_end(thread)
            self._make_room()
            now = self.forgotten
        if len(str(now)) > len(str(before)) or now > before == 0:
            log.warning("threads whose pins and facts were too many for this process's memory: %d; their steps count as unsure", now)

    def _make_room(self) -> None:
        now = int(time.time())
        while len(self._whole) > self._most and (now >= self._look_at or len(self._whole) > self._most * 10):
            thread = next(iter(self._whole))
            state = self._states[thread]
            lasting = state.lasting()
            going_on = any(pin.seq >= now - YOUNG_S for pin in state.pins - lasting.pins)
            if going_on and len(self._whole) <= self._most * 10:
                self._look_at = now + 1
                break
            del self._whole[thread]
            self._states[thread], self._lasting[thread] = lasting, None
            if going_on:
                self._forgotten.add(hash(thread))
            if not lasting:
                del self._states[thread], self._lasting[thread]
        while len(self._lasting) > self._most_lasting:
            thread, _ = self._lasting.popitem(last=False)
            self._forgotten.add(hash(thread))
            del self._states[thread]
