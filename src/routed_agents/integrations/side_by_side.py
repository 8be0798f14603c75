"""Calls of one `@task` that go on side by side are told from calls that follow each other."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from routed_agents.integrations.loops import called_with

CALLS_KEPT: Final = 10_000
"""Calls that may be going on at once in this process and stay what they were at first."""
_BESIDE: Final[OrderedDict[str, bool]] = OrderedDict()
_LOCK: Final = threading.Lock()

# LangGraph marks a task's call as it marks a branch of `Send`, whether the function waits for each before it makes the next or has several
# made at once. The first are one lineage, as the visits of a node are; the others are branches. The futures of the run's tasks, which
# LangGraph hands to each so that it can call more, tell which it is. What a call was at its first step it stays, also when its node is run
# again after the others have ended.


def is_beside_others(configurable: Mapping[str, Any], name: str, namespace: str) -> bool:
    """Whether other calls of the task go on beside this one; not where LangGraph keeps its futures otherwise than we know.

    Args:
        configurable: the call's own.
        name: the task's.
        namespace: the call's; ends in an id of its own.
    """
    known = _BESIDE.get(namespace)
    if known is not None:
        return known
    beside = any(
        task is not None and task.name == name and not future.done() and not namespace.endswith(task.id)
        for future, task in _futures(configurable)
    )
    with _LOCK:
        found = _BESIDE.setdefault(namespace, beside)
        while len(_BESIDE) > CALLS_KEPT:
            _BESIDE.popitem(last=False)
    return found


def _futures(configurable: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """What the run has started in this superstep, with its futures."""
    kept = called_with(configurable, "futures")
    futures = kept() if kept is not None else None
    return [*futures.items()] if isinstance(futures, dict) else []
