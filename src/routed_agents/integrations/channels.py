"""What a running graph's channels hold for a step, and what the step writes into them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from typing_extensions import override

from routed_agents.errors import StateError
from routed_agents.state import ThreadState

log: Final = logging.getLogger("routed_agents")
CHANNEL: Final = "routing"
"""The state key under which a graph keeps pins and facts."""
READ: Final = "__pregel_read"
SEND: Final = "__pregel_send"
ERROR: Final = "__error__"
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


def channel_state(configurable: Mapping[str, Any]) -> ThreadState | None:
    """Pins and facts in the running graph's `routing` channel; None when it has no such channel."""
    read = configurable.get(READ)
    if read is None:
        return None
    try:
        return ThreadState.from_json(read(CHANNEL))
    except KeyError as error:
        if isinstance(error, StateError):
            log.warning("%s; the step is decided without it", error)
        return None
    except Exception:
        log.warning('the graph\'s "routing" channel cannot be read; the step is decided without it', exc_info=True)
        return None


def send_state(config: Mapping[str, Any], state: ThreadState) -> None:
    """Join pins and facts into the running graph's `routing` channel, together with the node's own writes."""
    if state:
        send_update(config, {CHANNEL: state.to_json()})


def send_update(config: Mapping[str, Any], update: Mapping[str, Any]) -> None:
    """Write into the running graph's channels, together with the node's own writes and only with them."""
    configurable = cast("Mapping[str, Any]", config.get("configurable") or {})
    send = configurable.get(SEND)
    if send is None:
        return
    node = _writes_of(configurable)
    try:
        send([item if node is None else NodeWrite(item, node) for item in update.items()])
    except Exception:
        log.warning('the graph\'s "routing" channel cannot be written; the pin holds in this process only', exc_info=True)


class NodeWrite(list[Any]):
    """A write made while its node runs, which stands only if the node ends well: a channel and a value.

    LangGraph saves what a failed node had written, and takes a node that has written for a finished one: a run that takes up the failed
    one would leave the node out, without a word (langgraph 1.2, `pregel/_task_status.py`). So beside a node's error this is that error
    once more, of which one is kept. A list, for LangGraph's serializer knows lists by their kind and tuples by their class.
    """

    __slots__ = ("_node",)

    def __init__(self, item: Iterable[Any], node: deque[Any]) -> None:
        super().__init__(item)
        self._node = node

    def _now(self) -> Iterable[Any]:
        for write in reversed(self._node):
            if type(write) is tuple and cast("tuple[Any, ...]", write)[0] == ERROR:
                return cast("tuple[Any, ...]", write)
        return tuple(super().__iter__())

    @override
    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    @override
    def __getitem__(self, index: Any) -> Any:
        return tuple(self._now())[index]


def _writes_of(configurable: Mapping[str, Any]) -> deque[Any] | None:
    """What the node of this config has written so far; None where LangGraph keeps it otherwise than we know."""
    for given in getattr(configurable.get(READ), "args", ()):
        found = getattr(given, "writes", None)
        if isinstance(found, deque):
            return cast("deque[Any]", found)
    return None
