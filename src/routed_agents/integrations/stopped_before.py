"""A node that was interrupted is run again from its start: a person's answer belongs to the step that was stopped, and to no other."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.runnables.config import ensure_config

from routed_agents.integrations.loops import RUNS_KEPT
from routed_agents.integrations.position import CHECKPOINTS, Position
from routed_agents.router import RoutedCall
from routed_agents.steps import text_of

log: Final = logging.getLogger("routed_agents")
SCRATCHPAD: Final = "__pregel_scratchpad"
TASK_ID: Final = "__pregel_task_id"
INTERRUPT: Final = "__interrupt__"
CALL: Final = "call"

# LangGraph gives a node's answers out by the order in which it asks. So a step that was stopped, and whose question was asked, asks again
# when the node is run again, whether or not its model would answer by now: else the answer would go to the node's next question. And a step
# that stops for the first time takes no answer, for it can only be another question's.


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A step of a node that was stopped and asked a person.

    Attributes:
        number: how many routed calls the node had begun with it.
        digest: of what it was asked.
        alone: the node makes its calls one after the other, so that the number alone tells which one it is.
        code: why it was stopped.
    """

    number: int
    digest: str
    alone: bool
    code: str

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "digest": self.digest, "alone": self.alone}


class Visit:
    """A routed call in one execution of its node.

    Attributes:
        before: the stop that the same call came to in an earlier execution, if it did.
    """

    def __init__(self, execution: _Execution, digest: str) -> None:
        execution.begun += 1
        execution.open += 1
        execution.alone = execution.alone and execution.open == 1
        self._execution = execution
        self._number = execution.begun
        self._digest = digest
        self.before: Stop | None = None

    def look_up(self, stops: Iterable[Stop]) -> None:
        """Find this call among those that were stopped."""
        found = [stop for stop in stops if stop.digest == self._digest or (stop.alone and stop.number == self._number)]
        self.before = next((stop for stop in found if stop.number == self._number), found[0] if found else None)

    def stopped(self, code: str) -> Stop:
        """Remember that the call was stopped."""
        if self.before is not None:
            return self.before
        stop = Stop(number=self._number, digest=self._digest, alone=self._execution.alone, code=code)
        with _LOCK:
            _STOPS[self._execution.key] = (*_STOPS.get(self._execution.key, ()), stop)
            while len(_STOPS) > RUNS_KEPT:
                _STOPS.popitem(last=False)
        return stop

    def over(self) -> None:
        """The call is over."""
        self._execution.open -= 1


@dataclass(slots=True)
class _Execution:
    """One run of a node from its start."""

    scratchpad: object
    key: tuple[str | None, str]
    begun: int = 0
    open: int = 0
    alone: bool = True


_STOPS: Final[OrderedDict[tuple[str | None, str], tuple[Stop, ...]]] = OrderedDict()
_EXECUTIONS: Final[OrderedDict[int, _Execution]] = OrderedDict()
_LOCK: Final = threading.Lock()


def visit(call: RoutedCall, position: Position) -> Visit | None:
    """The call as its node makes it; a call that was stopped in an earlier execution comes to that stop again.

    Only for a policy whose stops ask a person.
    """
    configurable = _configurable()
    found = _visit(call, position, configurable)
    if found is not None and found.before is None and (asked := _asked_saver(position, configurable)) is not None:
        try:
            found.look_up(_stops_in(position.checkpointer.get_tuple(asked), configurable))
        except Exception:
            _unread(position)
    return _come_to_it_again(call, found)


async def avisit(call: RoutedCall, position: Position) -> Visit | None:
    """`visit` without blocking the event loop."""
    configurable = _configurable()
    found = _visit(call, position, configurable)
    if found is not None and found.before is None and (asked := _asked_saver(position, configurable)) is not None:
        try:
            found.look_up(_stops_in(await position.checkpointer.aget_tuple(asked), configurable))
        except Exception:
            _unread(position)
    return _come_to_it_again(call, found)


def _come_to_it_again(call: RoutedCall, found: Visit | None) -> Visit | None:
    if found is not None and found.before is not None:
        call.stopped_before = found.before.code
    return found


def _configurable() -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", ensure_config().get("configurable") or {})


def _visit(call: RoutedCall, position: Position, configurable: Mapping[str, Any]) -> Visit | None:
    scratchpad = configurable.get(SCRATCHPAD)
    if scratchpad is None or position.node is None:
        return None
    key = position.thread, str(configurable.get(TASK_ID))
    with _LOCK:
        execution = _EXECUTIONS.get(id(scratchpad))
        if execution is None or execution.scratchpad is not scratchpad:
            execution = _EXECUTIONS[id(scratchpad)] = _Execution(scratchpad, key)
            while len(_EXECUTIONS) > RUNS_KEPT:
                _EXECUTIONS.popitem(last=False)
        found = Visit(execution, _digest(call))
    found.look_up(_STOPS.get(key, ()))
    return found


def _digest(call: RoutedCall) -> str:
    messages = call.step.messages
    return hashlib.blake2b(text_of(messages[-1]).encode("utf-8", "replace") if messages else b"", digest_size=8).hexdigest()


def _asked_saver(position: Position, configurable: Mapping[str, Any]) -> Any:
    """What to ask the saver for, in a process that takes up a node another one has left; None where it can know nothing."""
    scratchpad = cast("Any", configurable.get(SCRATCHPAD))
    if position.checkpointer is None or (position.thread, str(configurable.get(TASK_ID))) in _STOPS:
        return None
    if not scratchpad.resume and scratchpad.get_null_resume(False) is None:
        return None
    graph = "|".join(position.namespace.split("|")[:-1])
    known = cast("Mapping[str, Any]", configurable.get(CHECKPOINTS) or {}).get(graph)
    own = {"checkpoint_id": known} if known is not None else {}
    return {"configurable": {"thread_id": position.thread, "checkpoint_ns": graph, **own}}


def _stops_in(found: Any, configurable: Mapping[str, Any]) -> list[Stop]:
    """The stop that the node's last question was about; a saver keeps no earlier ones."""
    task = str(configurable.get(TASK_ID))
    stops: list[Stop] = []
    for owner, channel, value in (found.pending_writes or ()) if found is not None else ():
        if channel == INTERRUPT and owner == task:
            for each in cast("Iterable[object]", value if isinstance(value, (list, tuple)) else (value,)):
                told = cast("object", getattr(each, "value", None))
                if isinstance(told, dict) and isinstance(mark := cast("dict[str, Any]", told).get(CALL), dict):
                    stops.append(Stop(code=str(cast("dict[str, Any]", told).get("stopped") or "stopped"), **cast("dict[str, Any]", mark)))
    return stops


def _unread(position: Position) -> None:
    log.exception(
        "the graph's checkpoints cannot be read; an answer to a stopped step of node %s may be refused on thread %s",
        position.node,
        position.thread,
    )
