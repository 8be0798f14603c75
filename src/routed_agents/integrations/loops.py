"""Which run of a graph a call is made in, and how that run began, as LangGraph's loop tells that runs it."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from routed_agents.steps import new_id

CALL: Final = "__pregel_call"
"""With what a node calls a task: it knows the futures of the superstep, and the loop."""
RUNS_KEPT: Final = 10_000
"""Runs that may be going on at once in this process and are still told apart."""
_RUNS: Final[OrderedDict[int, tuple[Callable[[], object], str]]] = OrderedDict()
_LOCK: Final = threading.Lock()


def called_with(configurable: Mapping[str, Any], name: str) -> Any:
    """One of the things with which the node of this config calls a task; None where LangGraph keeps it otherwise than we know."""
    call = configurable.get(CALL)
    return call.keywords.get(name) if isinstance(call, partial) else None


def loop_of(configurable: Mapping[str, Any]) -> Any:
    """The loop of the outermost graph; None outside a graph."""
    loop = _running(configurable)
    while getattr(loop, "is_nested", False):
        loop = _running(loop.config["configurable"])
    return loop


def nodes_of(configurable: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The node of this config and those that its graph is in, innermost first.

    Of each what it is configured with, or the `@task` that it calls, and the config of the graph that has it.
    """
    loop = _running(configurable)
    while hasattr(loop, "config"):
        yield configurable, loop.config
        if not loop.is_nested:
            return
        configurable = loop.config["configurable"]
        loop = _running(configurable)


def _running(configurable: Mapping[str, Any]) -> Any:
    """The loop of the graph that the node of this config is in; None where LangGraph keeps it otherwise than we know."""
    return getattr(called_with(configurable, "schedule_task"), "__self__", None)


def is_fresh(loop: Any) -> bool | None:
    """Whether the run began with an input of its own, and takes up no other; None where that can't be told."""
    given = getattr(loop, "input", None)
    return True if given is not None and not hasattr(given, "goto") else None


def name_of(run: object) -> str:
    """A name for what is the same object in all of a run, and in no other."""
    known = _RUNS.get(id(run))
    if known is not None and known[0]() is run:
        return known[1]
    with _LOCK:
        known = _RUNS.get(id(run))
        if known is None or known[0]() is not run:
            _RUNS.pop(id(run), None)  # of one that is gone
            known = _RUNS[id(run)] = (_reference(run), new_id())
        while len(_RUNS) > RUNS_KEPT:
            _RUNS.popitem(last=False)
    return known[1]


def _reference(run: object) -> Callable[[], object]:
    try:
        return weakref.ref(run)
    except TypeError:
        return lambda: run
