"""Where in a graph a model call is made, as its run-time configuration tells."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from routed_agents.errors import StateError
from routed_agents.state import ThreadState

CHANNEL: Final = "routing"
"""The state key under which a graph keeps pins and facts."""
READ: Final = "__pregel_read"
SEND: Final = "__pregel_send"
RUNTIME: Final = "__pregel_runtime"
PUSH: Final = "__pregel_push"
log: Final = logging.getLogger("routed_agents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A call's place in its graph; all None outside one.

    Attributes:
        node: the node's name.
        namespace: the checkpoint namespace, `sub:<id>|node:<id>`; its last id is unique to this execution of the node.
        branch: the node was started by `Send`.
        thread: the conversation, when the caller configured one.
        run: the run's id, when the caller configured one.
        state: what the graph's `routing` channel holds; None without such a channel.
        context: the run's context object.
    """

    node: str | None = None
    namespace: str = ""
    branch: bool = False
    thread: str | None = None
    run: str | None = None
    state: ThreadState | None = None
    context: object = None


def position_of(config: Mapping[str, Any]) -> Position:
    """Read a call's position from its config; never fails, for a call outside a graph has none."""
    metadata = cast("Mapping[str, Any]", config.get("metadata") or {})
    configurable = cast("Mapping[str, Any]", config.get("configurable") or {})
    thread = configurable.get("thread_id", metadata.get("thread_id"))
    run = metadata.get("run_id")
    if "langgraph_node" not in metadata:
        return Position(thread=None if thread is None else str(thread), run=None if run is None else str(run))
    path = cast("Sequence[object]", metadata.get("langgraph_path") or ())
    return Position(
        node=str(metadata["langgraph_node"]),
        namespace=str(metadata.get("langgraph_checkpoint_ns") or ""),
        branch=bool(path) and path[0] == PUSH,
        thread=None if thread is None else str(thread),
        run=None if run is None else str(run),
        state=channel_state(configurable),
        context=getattr(configurable.get(RUNTIME), "context", None),
    )


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
    if not state.pins and not state.facts:
        return
    send = cast("Mapping[str, Any]", config.get("configurable") or {}).get(SEND)
    if send is None:
        return
    try:
        send([(CHANNEL, state.to_json())])
    except Exception:
        log.warning('the graph\'s "routing" channel cannot be written; the pin holds in this process only', exc_info=True)
