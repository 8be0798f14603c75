"""A running graph's channels: their names, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

CHANNEL: Final = "routing"
"""The state key under which a graph keeps pins and facts."""
READ: Final = "__pregel_read"
BRANCH_TO: Final = "branch:to:"
"""LangGraph's channel that starts a node; a graph has one for each of its nodes."""


def has_channel(config: Mapping[str, Any], name: str) -> bool:
    """Whether the running graph has such a channel."""
    read = cast("Mapping[str, Any]", config.get("configurable") or {}).get(READ)
    if read is None:
        return False
    try:
        read(name)
    except KeyError:
        return False
    return True


def has_node(config: Mapping[str, Any], node: str) -> bool:
    """Whether the running graph has a node of this name."""
    return has_channel(config, f"{BRANCH_TO}{node}")


def channel_of(configurable: Mapping[str, Any]) -> Any:
    """The running graph's `routing` channel; None without one, and where LangGraph keeps its channels otherwise than we know."""
    for given in getattr(configurable.get(READ), "args", ()):
        if isinstance(given, Mapping) and CHANNEL in given:
            return cast("Mapping[str, Any]", given)[CHANNEL]
    return None


def lists_read(read: Any) -> Iterator[list[object]]:
    """The lists in a running graph's channels as its superstep began; none where LangGraph keeps them otherwise than we know.

    Args:
        read: what the run's config has for reading them.
    """
    for given in getattr(read, "args", ()):
        if isinstance(given, Mapping):
            for channel in cast("Mapping[str, Any]", given).values():
                if getattr(channel, "is_available", bool)() and isinstance(value := channel.get(), list):
                    yield cast("list[object]", value)
