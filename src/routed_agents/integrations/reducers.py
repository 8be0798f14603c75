"""Whether the reducer of a graph's `routing` key joins pins and facts, and what is said where it does not."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from routed_agents.integrations.channels import CHANNEL, channel_of
from routed_agents.integrations.loops import called_with
from routed_agents.state import Mark, Pin, ThreadState, join

NAMED: Final = 8
"""Nodes by which a graph is named."""
REDUCERS_KEPT: Final = 1_000
"""Reducers remembered with whether they join."""
_REDUCERS: Final[dict[int, tuple[object, bool]]] = {}
_ASKING: Final = threading.Lock()
_ONE, _OTHER = [
    ThreadState(frozenset({Pin(scope="thread", tier=name, code=name)}), frozenset({name}), frozenset({Mark(name=name, noted=2)}))
    for name in ("one", "other")
]


def trouble_with(configurable: Mapping[str, Any]) -> str | None:
    """Why the running graph's `routing` channel keeps no pins and facts: its reducer; None where it has a right one, or no such channel.

    LangGraph takes the last item of an annotation for the reducer, and where it is none keeps the last value that was written.
    """
    channel = channel_of(configurable)
    if channel is None:
        return None
    reducer = getattr(channel, "operator", None)
    if reducer is join or (reducer is not None and _joins(reducer)):
        return None
    seen = f"has the reducer {getattr(reducer, '__name__', reducer)}" if reducer is not None else "has no reducer"
    return (
        f'the key "{CHANNEL}" of {_graph_of(configurable)} {seen}, so it keeps no pins and facts; '
        f"wanted `{CHANNEL}: Annotated[dict, join]`, with `join` last (from routed_agents import join)"
    )


def _graph_of(configurable: Mapping[str, Any]) -> str:
    """The running graph, by its nodes."""
    nodes = getattr(getattr(called_with(configurable, "schedule_task"), "__self__", None), "nodes", ())
    names = [f'"{name}"' for name in nodes if name != "__start__"]
    return f"the state of the graph with {', '.join(names[:NAMED])}{', …' * (len(names) > NAMED)}" if names else "the graph's state"


def _joins(reducer: Any) -> bool:
    """Whether a reducer of somebody's own keeps the pins and facts of two states; it is asked once, and remembered."""
    known = _REDUCERS.get(id(reducer))
    if known is None:
        with _ASKING:
            known = _REDUCERS.get(id(reducer))
            if known is None:
                if len(_REDUCERS) >= REDUCERS_KEPT:
                    _REDUCERS.clear()
                known = _REDUCERS[id(reducer)] = (reducer, _keeps(reducer))  # it lives on here, so that no other has its id
    return known[1]


def _keeps(reducer: Any) -> bool:
    try:
        joined = ThreadState.from_json(reducer(_ONE.to_json(), _OTHER.to_json()))
    except Exception:
        return False
    return joined.pins >= _ONE.pins | _OTHER.pins and joined.facts >= _ONE.facts | _OTHER.facts
