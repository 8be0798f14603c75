"""What a running graph's channels hold for a step, and what the step writes into them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from typing_extensions import override

from routed_agents.errors import StateError
from routed_agents.integrations.loops import called_with
from routed_agents.state import EMPTY, Mark, Pin, ThreadState, join

log: Final = logging.getLogger("routed_agents")
CHANNEL: Final = "routing"
"""The state key under which a graph keeps pins and facts."""
READ: Final = "__pregel_read"
SEND: Final = "__pregel_send"
ERROR: Final = "__error__"
HANDLED: Final = "__error_source_node__"
"""Written after the error of a node that has an error handler."""
NOTHING: Final = ("__no_writes__", None)
BRANCH_TO: Final = "branch:to:"
"""LangGraph's channel that starts a node; a graph has one for each of its nodes."""
_LOCK: Final = threading.Lock()
_TOLD: Final[set[str]] = set()
"""What was said of graphs that are not set up as their routed calls need it."""
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
    """Pins and facts in the running graph's `routing` channel; None when it has no such channel, or one that does not keep them."""
    read = configurable.get(READ)
    if read is None:
        return None
    if (trouble := trouble_with(configurable)) is not None:
        tell_once(trouble)
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


def left_state(configurable: Mapping[str, Any]) -> ThreadState | None:
    """Pins and facts that stand in a `routing` key which does not keep them, as of an earlier release; None without any.

    They may raise a step, so what the key says to be released or counted is not believed: it may be behind what is known elsewhere.
    """
    if _channel_of(configurable) is None:
        return None
    try:
        given = configurable[READ](CHANNEL)
        if not isinstance(given, Mapping) or not given:
            return None
        found = ThreadState.from_json(cast("Mapping[str, Any]", given))
    except Exception:
        return None  # a key of somebody's own
    marks = frozenset([replace(mark, released=0) for mark in found.marks if mark.name in found.facts])
    return ThreadState(found.pins, found.facts, marks) if found.pins or found.facts else None


def thread_state(configurable: Mapping[str, Any]) -> ThreadState:
    """Thread pins and facts that the graph of this node holds for what runs inside the node; a key of somebody's own holds none."""
    found = channel_state(configurable) if trouble_with(configurable) is None else left_state(configurable)
    return found.of_thread() if found is not None else EMPTY


def tell_once(message: str) -> None:
    """Say once in this process what is wrong with how a graph is set up: it will be at each of its steps."""
    if message not in _TOLD:
        _TOLD.add(message)
        log.warning("%s", message)


def trouble_with(configurable: Mapping[str, Any]) -> str | None:
    """Why the running graph's `routing` channel keeps no pins and facts: its reducer; None where it has a right one, or no such channel.

    LangGraph takes the last item of an annotation for the reducer, and where it is none keeps the last value that was written.
    """
    channel = _channel_of(configurable)
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


def _channel_of(configurable: Mapping[str, Any]) -> Any:
    """The running graph's `routing` channel; None without one, and where LangGraph keeps its channels otherwise than we know."""
    for given in getattr(configurable.get(READ), "args", ()):
        if isinstance(given, Mapping) and CHANNEL in given:
            return cast("Mapping[str, Any]", given)[CHANNEL]
    return None


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


def _writes_of(configurable: Mapping[str, Any]) -> deque[Any] | None:
    """What the node of this config has written so far; None where LangGraph keeps it otherwise than we know."""
    for given in getattr(configurable.get(READ), "args", ()):
        found = getattr(given, "writes", None)
        if isinstance(found, deque):
            return cast("deque[Any]", found)
    return None
