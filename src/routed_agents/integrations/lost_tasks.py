"""Turn pins of nodes that were cut off before the checkpoint they ran at was written: a saver may write while the graph runs on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from routed_agents.integrations.per_run import PerRun
from routed_agents.integrations.position import Position
from routed_agents.state import EMPTY, Pin, ThreadState, lineage_key, names_of

LOOKED_AT: Final = 300
"""The latest of a thread's pins in unfinished nodes that are looked at, once a run."""
Placed = tuple[Pin, str]
"""A pin, and the place of the branch that made it."""
_UNKNOWN: Final = frozenset[Placed]({(Pin(scope="turn", tier=""), "")})
_KNOWN: Final = PerRun[frozenset[Placed]]()

# A node's pins are kept beside the graph under the node's task, and a task's id hangs on its checkpoint's. Where that checkpoint was never
# written, the run that takes up this one goes on from an earlier one and gives the same node another id. The checkpoints a run could not
# write are its last, for they are written in order: so pins are looked through from the latest back, to the first whose checkpoint is
# there. A future that was left behind by going on from an earlier checkpoint is there, and stays out.


def known(position: Position) -> ThreadState | None:
    """What has been found in this run, or needs no search; None where one is due."""
    if position.checkpointer is None or position.at is None or position.going is None or position.state is None:
        return EMPTY
    found = _KNOWN.get(position, _UNKNOWN)
    if found is _UNKNOWN:
        if not position.fresh:
            return None
        found = _KNOWN.put(position, frozenset())
    return _as_own(position, found)


class Search:
    """Looks for the checkpoints of pins, and keeps the pins whose checkpoint was never written.

    Attributes:
        next: what to ask the saver for; None at the end.
    """

    def __init__(self, position: Position, pins: Iterable[Placed]) -> None:
        self._position = position
        self._found: set[Placed] = set()
        self._left: dict[str, list[Placed]] = {}
        for pin, place in pins:
            if pin.scope == "turn" and pin.at and pin.at != position.at:
                self._left.setdefault(pin.at, []).append((pin, place))
        self._at = max(self._left, default=None)

    @property
    def next(self) -> Any:
        if self._at is None:
            return None
        return {"configurable": {"thread_id": self._position.thread, "checkpoint_ns": "", "checkpoint_id": self._at}}

    def take(self, found: Any) -> None:
        """Look at what the saver has of the checkpoint it was asked for."""
        if found is None and self._at is not None:
            self._found.update(self._left.pop(self._at))
            self._at = max(self._left, default=None)
        else:
            self._at = None

    def end(self) -> ThreadState:
        """What the step at this position takes from it."""
        return _as_own(self._position, _KNOWN.put(self._position, frozenset(self._found)))


def _as_own(position: Position, found: frozenset[Placed]) -> ThreadState:
    """The pins, with this step's own key for those of the branch that had its place: it was given another id."""
    if not found:
        return EMPTY
    own = lineage_key(node=position.node, namespace=position.namespace, branch=position.branch)
    names = names_of(own)
    moved = [replace(pin, key=own) if place == position.place and names_of(pin.key) == names else pin for pin, place in found]
    return ThreadState(frozenset(moved))
