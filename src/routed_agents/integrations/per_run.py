"""What is found out once in each run of a graph and remembered for its later steps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Generic, TypeVar

from routed_agents.integrations.loops import RUNS_KEPT
from routed_agents.integrations.position import Position

Found = TypeVar("Found")


class PerRun(Generic[Found]):
    """Findings of the latest runs, in this process; an agent inside a run is known by its thread as well."""

    def __init__(self) -> None:
        self._known: Final[OrderedDict[tuple[str | None, str | None], Found]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def get(self, position: Position, missing: Found) -> Found:
        """What was found in the run of this position; `missing` where nothing was."""
        return self._known.get((position.going, position.thread), missing)

    def put(self, position: Position, found: Found) -> Found:
        with self._lock:
            self._known[position.going, position.thread] = found
            while len(self._known) > RUNS_KEPT:
                self._known.popitem(last=False)
        return found
