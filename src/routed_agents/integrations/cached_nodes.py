"""A routed call in a node that LangGraph caches is told of, where the reply could come to a thread that it was not decided for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from routed_agents.complaints import kind_and_place, tell_once
from routed_agents.integrations.channels import CHANNEL
from routed_agents.integrations.loops import called_with

TASK_ID: Final = "__pregel_task_id"
_OTHER: Final = {"v": 1, "pins": [{"scope": "thread", "tier": "another", "code": "another"}], "facts": ["another"]}
"""Pins and facts that no thread has."""
KEYS_KEPT: Final = 1_000
"""Functions remembered that make keys, with what was found out of them."""
_KNOWN: Final[dict[tuple[object, ...], list[Any]]] = {}

# A hit of the cache runs nothing of a node, so nobody decides: what was kept under a key in which the thread's pins and facts have no part
# answers every thread.


def tell_of_cache(configurable: Mapping[str, Any]) -> None:
    """Say once that a node is cached under a key without `routing`, where this call is made in it or in a graph within it."""
    try:
        for loop, task in _around(configurable):
            if task.cache_key is not None and getattr(loop, "cache", None) is not None and not _knows_routing(loop, task):
                tell_once(
                    f'node "{task.name}" makes a routed call and is cached under a key without "{CHANNEL}": what one thread was answered '
                    f'would answer another, also one in distress; take cache_policy= from the node, or leave "{CHANNEL}" in its input and '
                    "its key"
                )
    except Exception as trouble:
        tell_once(f'whether a cached node has "{CHANNEL}" in its key cannot be told: {kind_and_place(trouble)}')


def _around(configurable: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The task a call is made in and those around it, each with its loop; none where LangGraph keeps them otherwise than we know."""
    loop: Any = getattr(called_with(configurable, "schedule_task"), "__self__", None)
    while loop is not None:
        task = getattr(loop, "tasks", {}).get(configurable.get(TASK_ID))
        if task is not None:
            yield loop, task
        if not getattr(loop, "is_nested", False):
            return
        configurable = loop.config["configurable"]
        loop = getattr(called_with(configurable, "schedule_task"), "__self__", None)


def _knows_routing(loop: Any, task: Any) -> bool:
    """Whether pins and facts have a part in a task's key; so they count where that cannot be told.

    It is found out once for each node and function that makes its keys, which may take its time, and is never called at each step.
    """
    given = task.input
    if isinstance(given, Mapping) and CHANNEL not in given:
        return False
    policy = getattr(loop.nodes.get(task.name), "cache_policy", None) or loop.cache_policy
    made_by = getattr(policy, "key_func", None)
    about = (task.name, id(made_by), type(cast("object", given)))
    known = _KNOWN.get(about)
    if known is None:
        if len(_KNOWN) >= KEYS_KEPT:
            _KNOWN.clear()
        mine = [made_by, True]
        known = _KNOWN.setdefault(about, mine)
        if known is mine:  # nobody else asks
            known[1] = _changes_with_routing(given, made_by, task.cache_key)
    return bool(known[1])


def _changes_with_routing(given: Any, made_by: Callable[[Any], str | bytes] | None, key: Any) -> bool:
    if isinstance(given, Mapping):
        other: Any = {**cast("Mapping[str, Any]", given), CHANNEL: _OTHER}
    elif not hasattr(given, CHANNEL):
        return False
    else:
        other = copy.copy(given)
        object.__setattr__(other, CHANNEL, _OTHER)
    if made_by is None or _is_default(made_by):
        return True
    from xxhash import xxh3_128_hexdigest  # LangGraph's own way to a key; where it goes another, that cannot be told

    said = made_by(other)
    return xxh3_128_hexdigest(said.encode() if isinstance(said, str) else said) != key.key


def _is_default(made_by: Any) -> bool:
    """Whether a key is of the whole input, as LangGraph makes it where nothing else is asked for."""
    return getattr(made_by, "__name__", "") == "default_cache_key" and str(getattr(made_by, "__module__", "")).startswith("langgraph.")
