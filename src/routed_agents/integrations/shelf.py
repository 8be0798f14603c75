"""The shelf keeps a thread's pins and facts beside the graph's state, where a step has no channel or a private one."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from routed_agents.complaints import tell_once
from routed_agents.integrations import lost_tasks
from routed_agents.integrations.position import Position
from routed_agents.router import Host
from routed_agents.state import (
    EMPTY,
    TURNS_KEPT,
    UNREAD,
    Mark,
    MemoryStateStore,
    Pin,
    ThreadState,
    in_branch,
    join_all,
    kind_of,
    lineage_key,
    release_of,
)

log: Final = logging.getLogger("routed_agents")
ROOT: Final = "routed_agents"
NESTED: Final = "nested"
LINEAGES: Final = "lineages"
RUNS_APART: Final = 32
"""Slots for the turn pins of one lineage, taken by run: about how many runs of one thread may be going on at once and keep theirs."""
TASK: Final = "task"
PLACE: Final = "place"
PAGE: Final = 1_000
"""Items asked for at once."""
SWEPT: Final = 32
"""Items without use that a step takes away at most."""
PATIENCE_S: Final = 0.1
"""A store that took longer to fail is not tried again."""
IN_MEMORY: Final = ("InMemorySaver", "MemorySaver")
"""LangGraph's savers that end with the process."""
TASK_MINUTES: Final = 7 * 24 * 60.0
"""How long pins of a turn, a branch or an unfinished node are kept, in stores that can forget; what else is kept is never forgotten."""
Names = tuple[str, ...]
Write = tuple[Names, str, dict[str, Any], dict[str, Any]]
"""An item's place, key and value, and with which options it is put there."""

# A graph's channel wins where there is one. What it cannot hold is kept here: thread pins and facts, so that an agent used as a tool, whose
# channel is its own, knows them and its findings come back; turn and lineage pins of a graph in a node, whose channel may end with it, or
# be left behind by a command to the graph around it; the pins of a node that has not finished, whose writes LangGraph drops; and everything
# of a step in a graph without the channel. It is the run's LangGraph store, else the router's. One item per pin or fact: putting it again
# changes nothing, so writers need no lock.


def load(router: Host, position: Position) -> ThreadState | None:
    """What holds for a step at this position; None where the router's own store knows everything."""
    if position.hidden:
        tell_once(position.hidden)
    store = _store(position)
    if store is None:
        return _from_router(router, position)
    tries = _Tries()
    while tries.left:
        with tries:
            items = [item for names in _read_from(position) for item in _search(store, names)]
            found, outlived = _joined(position, items)
            with suppress(Exception):  # a later step takes them away
                for item in outlived:
                    store.delete(item.namespace, item.key)
            lost = lost_tasks.known(position)
            if lost is None:
                search = lost_tasks.Search(position, _placed(store.search(_tasks(position), limit=lost_tasks.LOOKED_AT)))
                while search.next is not None:
                    search.take(position.checkpointer.get_tuple(search.next))
                lost = search.end()
            return found.join(lost).join(_unwritten(router, position))
    return _unread(router, position, tries)


async def aload(router: Host, position: Position) -> ThreadState | None:
    """`load` without blocking the event loop."""
    if position.hidden:
        tell_once(position.hidden)
    store = _store(position)
    if store is None:
        return _from_router(router, position)
    tries = _Tries()
    while tries.left:
        with tries:
            items = [item for names in _read_from(position) for item in await _asearch(store, names)]
            found, outlived = _joined(position, items)
            with suppress(Exception):  # a later step takes them away
                for item in outlived:
                    await store.adelete(item.namespace, item.key)
            lost = lost_tasks.known(position)
            if lost is None:
                search = lost_tasks.Search(position, _placed(await store.asearch(_tasks(position), limit=lost_tasks.LOOKED_AT)))
                while search.next is not None:
                    search.take(await position.checkpointer.aget_tuple(search.next))
                lost = search.end()
            return found.join(lost).join(_unwritten(router, position))
    return _unread(router, position, tries)


def keep(router: Host, position: Position, state: ThreadState) -> None:
    """Put what a step found where later steps can reach it."""
    store = _store(position)
    if store is None:
        _to_router(router, position, state)
        return
    tries = _Tries()
    while tries.left:
        with tries:
            for names, key, value, options in _writes(store, position, state):
                store.put(names, key, value, index=False, **options)
            return
    _write_beside(router, position, state, tries)


async def akeep(router: Host, position: Position, state: ThreadState) -> None:
    """`keep` without blocking the event loop."""
    store = _store(position)
    if store is None:
        _to_router(router, position, state)
        return
    tries = _Tries()
    while tries.left:
        with tries:
            for names, key, value, options in _writes(store, position, state):
                await store.aput(names, key, value, index=False, **options)
            return
    _write_beside(router, position, state, tries)


def release(store: Any, thread: str, names: Iterable[str]) -> None:
    """Say in a LangGraph store that facts, and lineage and thread pins of these codes, are over on a thread.

    Raises:
        StateError: no name was given.
    """
    for place, key, value, options in _released(store, thread, names):
        store.put(place, key, value, index=False, **options)


async def arelease(store: Any, thread: str, names: Iterable[str]) -> None:
    """`release` without blocking the event loop."""
    for place, key, value, options in _released(store, thread, names):
        await store.aput(place, key, value, index=False, **options)


class _Tries:
    """Tries of something that may fail for a moment, as a search in LangGraph's `InMemoryStore` does where another thread puts something.

    Attributes:
        left: how many there may still be; none once one took its time to fail.
        error: why the last one failed.
    """

    def __init__(self) -> None:
        self.left = 3
        self.error: Exception | None = None
        self._until = time.monotonic() + PATIENCE_S

    def __enter__(self) -> None:
        self.left -= 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = error
        if time.monotonic() > self._until:
            self.left = 0
        return True


def _search(store: Any, names: Names) -> list[Any]:
    """All items under these names: which come first differs from store to store."""
    found: list[Any] = []
    while len(found) % PAGE == 0 and (page := store.search(names, limit=PAGE, offset=len(found))):
        found += page
    return found


async def _asearch(store: Any, names: Names) -> list[Any]:
    """`_search` without blocking the event loop."""
    found: list[Any] = []
    while len(found) % PAGE == 0 and (page := await store.asearch(names, limit=PAGE, offset=len(found))):
        found += page
    return found


def _store(position: Position) -> Any:
    return position.store if position.thread is not None else None


def _read_from(position: Position) -> Iterable[Names]:
    thread = _label(position.thread)
    if position.state is None or position.nested:
        yield (ROOT, thread, "thread")
    yield (ROOT, thread, NESTED)
    yield _lineage(position) if position.state is None or position.nested else (*_tasks(position), _digest(position.task))
    if position.state is None and position.place and not position.branch:  # others may have gone on beside it when it was begun
        yield _lineage(replace(position, branch=True))


def _lineage(position: Position) -> Names:
    """Under which the turn and lineage pins of a step lie: its lineage's own, or those of a graph in a node."""
    key = lineage_key(node=position.node, namespace=position.namespace, branch=position.branch)
    return (ROOT, _label(position.thread), LINEAGES, _digest(key if position.state is None else position.path))


def _tasks(position: Position) -> Names:
    """Under which the pins of the thread's unfinished nodes lie, each node's under its own name."""
    return (ROOT, _label(position.thread), TASK)


def _writes(store: Any, position: Position, state: ThreadState) -> Iterable[Write]:
    thread, wide = _label(position.thread), _of_thread(position, state)
    lasting, passing = _for(None, store), _for(TASK_MINUTES, store)
    for each in _items(wide):
        yield (ROOT, thread, "thread"), *each, lasting
    if position.state is None:
        for pin in state.pins - wide.pins:
            yield _lineage(position), *_kept_apart(pin), passing if pin.scope == "turn" or in_branch(pin.key) else lasting
    if position.nested:
        for each in _items(wide):
            yield (ROOT, thread, NESTED), *each, lasting
        for pin in _new_pins(position, state):
            yield _lineage(position), *_item(ThreadState(frozenset({pin})), *_slot_of(pin)), passing if pin.scope == "turn" else lasting
    if position.state is not None:
        for each in _items(state):
            key, value = each
            yield (*_tasks(position), _digest(position.task)), key, {**value, PLACE: position.place}, passing


def _released(store: Any, thread: str, names: Iterable[str]) -> Iterable[Write]:
    """Where every step of the thread looks, apart from what steps put there of releases they know of, which may be older."""
    for mark in release_of(names).marks:
        yield (ROOT, _label(str(thread)), NESTED), *_item(ThreadState(marks=frozenset({mark})), "over", mark.name), _for(None, store)


def _for(minutes: float | None, store: Any) -> dict[str, Any]:
    """The option that keeps an item so long, or for good, in a store that can forget."""
    return {"ttl": minutes} if getattr(store, "supports_ttl", False) else {}


def _of_thread(position: Position, state: ThreadState) -> ThreadState:
    """What a step found for the whole thread, with what its channel holds: a node may have noted or released it that makes no step."""
    return state.of_thread() if position.state is None else state.of_thread().join(position.state.of_thread())


def _items(state: ThreadState) -> Iterable[tuple[str, dict[str, Any]]]:
    """One item for each pin, fact, date and turn; what is confirmed again takes its own place."""
    for pin in state.pins:
        yield _kept_apart(pin)
    dated = {mark.name: mark for mark in state.marks}
    for fact in state.facts - {name for name, mark in dated.items() if mark.noted}:
        yield _item(ThreadState(facts=frozenset({fact})), "fact", fact)
    for name, mark in dated.items():
        if mark.noted:
            yield _item(ThreadState(marks=frozenset({replace(mark, released=0)})), "noted", name)
        if mark.released:
            yield _item(ThreadState(marks=frozenset({Mark(name=name, released=mark.released)})), "released", name)
    for turn in state.turns:
        yield _item(ThreadState(turns=frozenset({turn})), "turn", turn.name, turn.run)


def _kept_apart(pin: Pin) -> tuple[str, dict[str, Any]]:
    """A pin's own item."""
    return _item(ThreadState(frozenset({pin})), "pin", *kind_of(pin))


def _new_pins(position: Position, state: ThreadState) -> list[Pin]:
    """Turn and lineage pins that a step has found, where a channel has the others."""
    if position.state is None:
        return []
    return [pin for pin in state.pins - position.state.pins if pin.scope != "thread"]


def _alone(position: Position, pin: Pin) -> bool:
    """Whether no other turn's pin is ever put in this turn pin's place."""
    return pin.scope == "turn" and position.state is None


def _slot_of(pin: Pin) -> tuple[str, ...]:
    """Where a lineage's pin is put: a later turn's in the place of an earlier one's."""
    apart = str(zlib.crc32(pin.run.encode()) % RUNS_APART) if pin.scope == "turn" else ""
    return "pin", pin.scope, pin.tier, pin.key, pin.code, apart


def _item(state: ThreadState, *names: str) -> tuple[str, dict[str, Any]]:
    return _digest(json.dumps(names)), state.to_json()


def _joined(position: Position, items: Sequence[Any]) -> tuple[ThreadState, list[Any]]:
    """What a position's channel and these items hold, and some of the items that joining leaves without use.

    Those are of turns, turn pins and pins in branches that have dropped out, for as many later ones as a thread keeps stand beside them.
    An item that the pins of several runs take in turn stays.
    """
    states = [ThreadState.from_json(item.value) for item in items]
    found = (position.state or position.left or EMPTY).join(position.around).join(join_all(states))
    if len(items) <= TURNS_KEPT:
        return found, []
    pins, turns = {kind_of(pin) for pin in found.pins}, {(turn.name, turn.run) for turn in found.turns}
    outlived = [
        item
        for item, state in zip(items, states, strict=True)
        if any(kind_of(pin) not in pins and (in_branch(pin.key) or _alone(position, pin)) for pin in state.pins)
        or any((turn.name, turn.run) not in turns for turn in state.turns)
    ]
    return found, outlived[:SWEPT]


def _placed(items: Iterable[Any]) -> Iterable[tuple[Pin, str]]:
    for item in items:
        yield from [(pin, str(item.value.get(PLACE, ""))) for pin in ThreadState.from_json(item.value).pins]


def _from_router(router: Host, position: Position) -> ThreadState | None:
    if position.state is None:
        found = (position.left or EMPTY).join(position.around)
        return found.join(router.state_of(position.thread)) if found else None
    if position.thread is None:
        return position.state.join(position.around)
    if not position.nested:
        return position.state.join(position.around).join(router.state_of(f"{NESTED}:{position.thread}"))
    found = position.state.join(position.around).join(router.state_of(position.thread).of_thread())
    return found.join(router.state_of(_lineages(position)))


def _unwritten(router: Host, position: Position) -> ThreadState:
    """What the run's store could not take, and the router's has."""
    found = _from_router(router, position)
    return found if found is not None else router.state_of(position.thread)


def _to_router(router: Host, position: Position, state: ThreadState) -> None:
    if position.state is None and position.store is None and state.lasting():
        _tell_of_memory(router, position)
    if position.thread is None:
        return
    wide = _of_thread(position, state)
    if wide and (position.hidden or (position.nested and position.state is not None)):
        router.remember(f"{NESTED}:{position.thread}", wide)
    if position.state is None:
        return  # without a channel the routed call keeps everything else itself
    if wide:
        router.remember(position.thread, wide)
    if position.nested and (pins := _new_pins(position, state)):
        router.remember(_lineages(position), ThreadState(frozenset(pins)))


def _tell_of_memory(router: Host, position: Position) -> None:
    """Say once that threads outlive this process, where what was found of one does not."""
    saver = type(position.checkpointer).__name__
    if position.checkpointer is not None and saver not in IN_MEMORY and isinstance(router.store, MemoryStateStore):
        tell_once(
            f"a graph keeps its threads with {saver}, and their pins and facts in this process's memory: another process or a restart "
            "does not know them; add routing: Annotated[dict, join] to its state, or compile it with a store"
        )


def _lineages(position: Position) -> str:
    return f"{LINEAGES}:{position.path}:{position.thread}"


def _label(thread: str | None) -> str:
    """A thread's name as LangGraph's stores allow it: without a point, and not empty."""
    return _digest(thread or "")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _unread(router: Host, position: Position, tries: _Tries) -> ThreadState:
    log.error("the graph's store cannot be read; a step of thread %s counts as unsure", position.thread, exc_info=tries.error)
    return UNREAD.join(_unwritten(router, position))


def _write_beside(router: Host, position: Position, state: ThreadState, tries: _Tries) -> None:
    log.error("the graph's store cannot be written; the router's keeps pins and facts of thread %s", position.thread, exc_info=tries.error)
    if position.state is None:
        router.remember(position.thread, state)
    _to_router(router, position, state)
