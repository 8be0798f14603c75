"""What is found out once in each run of a graph and remembered for its later steps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Generic, TypeVar

from routed_agents.integrations.position import RUNS_KEPT, Position

Found = TypeVar("Found")


class PerRun(Generic[Found]):
    """Findings of the latest runs, in this process; a run is known by its control object, and an agent inside it by its thread as well."""

    def __init__(self) -> None:
        self._known: Final[OrderedDict[tuple[int, str | None], tuple[object, Found]]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def get(self, position: Position, missing: Found) -> Found:
        """What was found in the run of this position; `missing` where nothing was."""
        known = self._known.get((id(position.control), position.thread))
        return known[1] if known is not None and known[0] is position.control else missing

    def put(self, position: Position, found: Found) -> Found:
        with self._lock:
            self._known[id(position.control), position.thread] = (position.control, found)
            while len(self._known) > RUNS_KEPT:
                self._known.popitem(last=False)
        return found
