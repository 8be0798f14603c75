"""What a step writes into a running graph's channels, which stands only if its node ends."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from typing_extensions import override

from routed_agents.integrations.channels import CHANNEL, READ
from routed_agents.state import ThreadState, join

log: Final = logging.getLogger("routed_agents")
SEND: Final = "__pregel_send"
ERROR: Final = "__error__"
HANDLED: Final = "__error_source_node__"
"""Written after the error of a node that has an error handler."""
NOTHING: Final = ("__no_writes__", None)
_LOCK: Final = threading.Lock()


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
        if node is None:
            send([*update.items()])
            return
        with _LOCK:
            for channel, value in update.items():
                earlier = next((write for write in node if isinstance(write, NodeWrite) and write.to(channel)), None)
                if earlier is None or not earlier.add(value):
                    send([NodeWrite(channel, value, node)])
    except Exception:
        log.warning('the graph\'s "routing" channel cannot be written; the pin holds in this process only', exc_info=True)


class NodeWrite(list[Any]):
    """A write made while its node runs, which stands only if the node ends: a channel and a value.

    LangGraph saves what a failed node had written, and takes a node that has written for a finished one: a run that takes up the failed
    one would leave the node out, without a word (langgraph 1.2, `pregel/_task_status.py`). So beside a node's error this is that error
    once more, of which one is kept. Where an error handler goes on in the node's place, the node has ended and the write stands.

    A node makes one write to `routing`, however many calls it makes and whatever it returns itself: streams of updates would show
    several as a list. So pins are joined into the write that is there, and into the node's own once that is made.

    A list, for LangGraph's serializer knows lists by their kind and tuples by their class.

    Args:
        channel: its name.
        value: what is written.
        node: all that the node has written, to which LangGraph adds its end.
    """

    __slots__ = ("_merged", "_node")

    def __init__(self, channel: str, value: Any, node: deque[Any]) -> None:
        super().__init__((channel, value))
        self._node = node
        self._merged = False

    def to(self, channel: str) -> bool:
        """Whether this is what the node writes into the channel."""
        return super().__getitem__(0) == channel

    def add(self, value: Any) -> bool:
        """Join more pins and facts into it, where it holds such and the node has not ended."""
        if not self.to(CHANNEL) or self._merged:
            return False
        self[1] = join(super().__getitem__(1), value)
        return True

    def _now(self) -> tuple[Any, ...]:
        error: tuple[Any, ...] | None = None
        for write in self._node:
            if type(write) is tuple:
                channel, *_ = ended = cast("tuple[Any, ...]", write)
                error = ended if channel == ERROR else None if channel == HANDLED else error
        if error is not None:
            return error
        if not self._merged and self.to(CHANNEL):
            self._merge()
        return NOTHING if self._merged else tuple(super().__iter__())

    def _merge(self) -> None:
        """Become part of the node's own write, if it has made one."""
        for place, write in enumerate(self._node):
            if type(write) is tuple:
                channel, value = cast("tuple[Any, Any]", write)
                if channel == CHANNEL and isinstance(value, Mapping):
                    self._node[place] = (CHANNEL, join(cast("Mapping[str, Any]", value), super().__getitem__(1)))
                    self._merged = True
                    return

    @override
    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    @override
    def __getitem__(self, index: Any) -> Any:
        return self._now()[index]


def _writes_of(configurable: Mapping[str, Any]) -> deque[Any] | None:
    """What the node of this config has written so far; None where LangGraph keeps it otherwise than we know."""
    for given in getattr(configurable.get(READ), "args", ()):
        found = getattr(given, "writes", None)
        if isinstance(found, deque):
            return cast("deque[Any]", found)
    return None
