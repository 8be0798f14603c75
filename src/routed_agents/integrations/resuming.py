"""Where a run began that may have taken up another: a kill, an interrupt or a failure ends a run, and not the turn it was in."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from routed_agents.integrations.answers import HEARD, Answer, answer_at, said, said_at, said_in
from routed_agents.integrations.channels import BRANCH_TO, lists_read
from routed_agents.integrations.per_run import PerRun
from routed_agents.integrations.position import Position
from routed_agents.router import Host
from routed_agents.state import ThreadState
from routed_agents.steps import Resumed, stamp_of

log: Final = logging.getLogger("routed_agents")
STARTING: Final = (BRANCH_TO, "__start__")
"""How channels begin that hold an input or start nodes, and are there only until it is done."""
SENT: Final = "__pregel_tasks"
"""The channel of `Send`; it stays when it is empty."""
JOIN: Final = "join:"
"""How channels begin that start a node when all of some others have run, `join:a+b:node`; they stay when they are empty."""
FIRST: Final = "0"
"""Sorts before every checkpoint's id."""
AFTER: Final = "~"
"""Makes of a checkpoint's id one that sorts between it and the next."""
LOOKED_BACK: Final = 500
"""Checkpoints walked back at most; what lies before them counts as another turn's."""
STAMPS_READ: Final = 200
"""Messages whose stamps are read, from the last one back."""

# A run without an input of its own continues the turn of the run before it, whose pins and stamps bear another run's id. Nothing around a
# node says so after the run's first superstep, so the saver is asked: the checkpoints behind this one, back to the one at which the input
# came in. It is asked once a run, and only where the thread remembers anything that could be of the same turn.
#
# A person's answer to an interrupt begins a turn of its own where its words have become a message, in the state or in what a step is given.
# An approval, and an answer that a node only acts on, begin none.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Where a run began.

    Attributes:
        resumed: as far as messages have shown it.
        answers: what was answered since then, and may have become a message that was not seen yet.
    """

    resumed: Resumed
    answers: tuple[Answer, ...] = ()

    def heard(self, messages: Collection[str]) -> _Found:
        """The same when messages with these texts were seen too."""
        spoken = max((answer.at for answer in self.answers if answer.is_in(messages)), default=None)
        if spoken is None:
            return self
        return _Found(resumed=replace(self.resumed, spoken=spoken), answers=tuple([each for each in self.answers if each.at > spoken]))


_UNKNOWN: Final = _Found(resumed=Resumed(begun="", spoken=""))
_KNOWN: Final = PerRun[_Found | None]()


def resumed(router: Host, position: Position, known: ThreadState | None, messages: Sequence[object]) -> Resumed | None:
    """Where the run of a step at this position began; None where nothing depends on it.

    Args:
        router: holds the pins and facts of the thread where nothing else does.
        position: the step's place in its graph.
        known: pins and facts of the thread; the router's where None.
        messages: what the step is given.
    """
    if not _matters(router, position, known, messages):
        return None
    found = _KNOWN.get(position, _UNKNOWN)
    if found is not _UNKNOWN:
        return _heard(position, found, messages)
    walk = _Walk(position)
    try:
        while walk.next is not None:
            walk.take(position.checkpointer.get_tuple(walk.next))
    except Exception:
        _unread(position)
    return _heard(position, _KNOWN.put(position, walk.end()), messages)


async def aresumed(router: Host, position: Position, known: ThreadState | None, messages: Sequence[object]) -> Resumed | None:
    """`resumed` without blocking the event loop."""
    if not _matters(router, position, known, messages):
        return None
    found = _KNOWN.get(position, _UNKNOWN)
    if found is not _UNKNOWN:
        return _heard(position, found, messages)
    walk = _Walk(position)
    try:
        while walk.next is not None:
            walk.take(await position.checkpointer.aget_tuple(walk.next))
    except Exception:
        _unread(position)
    return _heard(position, _KNOWN.put(position, walk.end()), messages)


def _heard(position: Position, found: _Found | None, messages: Sequence[object]) -> Resumed | None:
    """Where the run began for a step that is given these messages; what they show holds for the run's later steps too."""
    if found is None:
        return None
    # the saver may not have the checkpoint yet that an answer became a message in; the running graph has
    heard = found.heard(said(messages[-HEARD:]) | said_in(lists_read(position.read))) if found.answers else found
    if heard is not found:
        _KNOWN.put(position, heard)
    return heard.resumed


def _matters(router: Host, position: Position, known: ThreadState | None, messages: Sequence[object]) -> bool:
    if position.checkpointer is None or position.at is None or position.thread is None or position.going is None:
        return False
    found = _KNOWN.get(position, _UNKNOWN)
    if found is not _UNKNOWN:
        return found is not None
    if position.fresh:
        _KNOWN.put(position, None)
        return False
    held = known or router.state_of(position.thread)
    if any(pin.scope == "turn" and pin.run != position.run for pin in held.pins) or any(turn.run != position.run for turn in held.turns):
        return True
    return any(_pinned_elsewhere(stamp, position) for message in messages[-STAMPS_READ:] if (stamp := stamp_of(message)) is not None)


def _pinned_elsewhere(stamp: Mapping[str, object], position: Position) -> bool:
    return stamp.get("pin") is not None and stamp.get("run") != position.run


class _Walk:
    """A walk from the checkpoint of a step back to where its run began.

    Attributes:
        next: what to ask the saver for; None at the end of the way.
    """

    def __init__(self, position: Position) -> None:
        self._begun: str | None = None
        self._spoken: str | None = None
        self._answers: list[Answer] = []
        self._said: frozenset[str] | None = None
        self._thread = position.thread
        self._left = LOOKED_BACK
        self._own = True
        self.next: Any = self._config(position.at)

    def _config(self, checkpoint: str | None) -> Any:
        own = {"checkpoint_id": checkpoint} if checkpoint is not None else {}
        return {"configurable": {"thread_id": self._thread, "checkpoint_ns": "", **own}}

    def take(self, found: Any) -> None:
        """Look at a checkpoint the saver has, if it has it."""
        self.next = None
        if found is None:
            if self._own:  # not written yet, for the saver writes while the graph runs; what it has got was there before
                self._own, self.next = False, self._config(None)
            return
        checkpoint = str(found.checkpoint["id"])
        ended = not self._own and not _has_work_left(found)
        if ended and self._begun is None:
            return  # nothing was left to take up, so the run has an input of its own
        if ended:
            self._begun = checkpoint + AFTER
            return
        self._own = False
        self._listen(found)
        self._begun = checkpoint
        self._left -= 1
        if cast("Mapping[str, Any]", found.metadata).get("source") == "input" or not self._left:
            return
        self.next = found.parent_config
        if self.next is None:
            self._begun = FIRST

    def _listen(self, found: Any) -> None:
        """Note what was answered at a checkpoint, back to the last answer that is a message by now."""
        if self._said is None:
            self._said = said_at(found)
        if self._spoken is None and (answer := answer_at(found)) is not None:
            if answer.is_in(self._said):
                self._spoken = answer.at
            else:
                self._answers.append(answer)

    def end(self) -> _Found | None:
        """What was found, as far as the way went."""
        if self._begun is None:
            return None
        return _Found(resumed=Resumed(begun=self._begun, spoken=self._spoken or self._begun), answers=tuple(self._answers))


def _has_work_left(found: Any) -> bool:
    """Whether a run stopped short at this checkpoint."""
    values = cast("Mapping[str, Any]", found.checkpoint.get("channel_values") or {})
    return bool(found.pending_writes) or any(_starts_a_node(name, value) for name, value in values.items())


def _starts_a_node(channel: str, value: Any) -> bool:
    if channel.startswith(JOIN):
        names = channel.removeprefix(JOIN).rpartition(":")[0]
        seen = cast("Collection[str]", value[0] if isinstance(value, tuple | list) else value)
        return bool(seen) and len("+".join(seen)) == len(names)
    return bool(value) if channel == SENT else channel.startswith(STARTING)


def _unread(position: Position) -> None:
    log.exception(
        "the graph's checkpoints cannot be read; if this run takes up another, pins of the turn it was in may be missing on thread %s",
        position.thread,
    )
