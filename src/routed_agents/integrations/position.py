"""Where in a graph a model call is made, as its run-time configuration tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol, cast

from routed_agents.integrations.cached_nodes import tell_of_cache
from routed_agents.integrations.channels import READ
from routed_agents.integrations.graph_states import channel_state, left_state, thread_state
from routed_agents.integrations.loops import is_fresh, loop_of, name_of, nodes_of
from routed_agents.integrations.side_by_side import is_beside_others
from routed_agents.state import EMPTY, UNREAD, ThreadState, join_all

RUNTIME: Final = "__pregel_runtime"
CHECKPOINTER: Final = "__pregel_checkpointer"
RESUMING: Final = "__pregel_resuming"
CHECKPOINTS: Final = "checkpoint_map"
PUSH: Final = "__pregel_push"
THREAD: Final = "thread_id"
IN_NODE: Final = ("__pregel_", "checkpoint_", THREAD)
"""How the names begin of what LangGraph configures a node with."""


class Watcher(Protocol):
    """Knows the graphs of a run: what hangs on each node, and under which span its steps belong."""

    def downstream(self, namespace: str) -> int | None: ...

    def in_loop(self, namespace: str) -> bool: ...

    def span_context(self, run: object) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A call's place in its graph; all None outside one.

    Attributes:
        node: the node's name.
        namespace: the checkpoint namespace, `sub:<id>|node:<id>`; its last id is unique to this execution of the node.
        branch: the node runs beside others of its name, started by `Send` or as calls of a `@task`.
        place: which of its superstep's branches or calls it is, as LangGraph counts them; the same when the superstep is run again.
        thread: the conversation, when the caller configured one.
        run: the run's id: the caller's, else one we give it; a graph run inside another's node belongs to that run.
        state: what the graph's `routing` channel holds; None without such a channel.
        around: thread pins and facts that the graphs around hold, as far as they run in the same thread.
        left: what stands in a `routing` key that keeps no pins and facts.
        hidden: what keeps the graphs around out of the call's sight, so that their pins and facts can't be read; empty when nothing does.
        context: the run's context object.
        downstream: model steps that hang on this node's answers, where the graph is watched and it can be told.
        in_loop: the node, or one around it, is in a cycle of its watched graph, so no number can be told.
        parent: the span context that the node's steps belong under, in a watched graph.
        watcher: what watches the graph, if anything does.
        store: the run's LangGraph store, if it has one.
        at: the outermost graph's checkpoint at which the node runs.
        checkpointer: the run's LangGraph saver, if it has one.
        fresh: the run has begun with an input of its own; None where that can't be told from here.
        going: names the run in this process; one that takes up another has a name of its own, whatever id the caller gave them.
        read: reads the running graph's channels.
    """

    node: str | None = None
    namespace: str = ""
    branch: bool = False
    place: str = ""
    thread: str | None = None
    run: str | None = None
    state: ThreadState | None = None
    around: ThreadState = EMPTY
    left: ThreadState | None = None
    hidden: str = ""
    context: object = None
    downstream: int | None = None
    in_loop: bool = False
    parent: object = None
    watcher: Watcher | None = None
    store: Any = None
    at: str | None = None
    checkpointer: Any = None
    fresh: bool | None = None
    going: str | None = None
    read: Any = None

    @property
    def nested(self) -> bool:
        """The graph runs inside a node of another one."""
        return "|" in self.namespace

    @property
    def task(self) -> str:
        """The outermost node's execution, with the names of what runs inside it: a run taken up again gives inner ones new ids."""
        outer, *inner = self.namespace.split("|")
        return "|".join([outer, *(segment.partition(":")[0] for segment in inner if not segment.isdigit())])

    @property
    def path(self) -> str:
        """The names of the nodes that the call is in, outermost first; the same in every run."""
        return "|".join([segment.partition(":")[0] for segment in self.namespace.split("|") if not segment.isdigit()])

    @property
    def memory(self) -> str | None:
        """The router's store key for what a graph's own channel loses when a node fails: the task, which a retry runs again."""
        return f"task:{self.task}" if self.state is not None or self.store is not None else None

    def beside(self, node: str, *, up: int = 0) -> str:
        """The namespace of another node of this graph, or with `up` of one that many graphs further out; its last id is left open."""
        segments = self.namespace.split("|")
        outer = [segment for segment in segments[: len(segments) - 1] if not segment.isdigit()]
        return "|".join([*outer[: len(outer) - up], node])


def position_of(config: Mapping[str, Any]) -> Position:
    """Read a call's position from its config; never fails, for a call outside a graph has none."""
    metadata = cast("Mapping[str, Any]", config.get("metadata") or {})
    configurable = cast("Mapping[str, Any]", config.get("configurable") or {})
    thread = _thread_of(config)
    run = metadata.get("run_id")
    if "langgraph_node" not in metadata:
        return Position(thread=thread, run=None if run is None else str(run))
    path = cast("Sequence[object]", metadata.get("langgraph_path") or ())
    node, namespace = str(metadata["langgraph_node"]), str(metadata.get("langgraph_checkpoint_ns") or "")
    pushed = bool(path) and path[0] == PUSH
    callbacks = config.get("callbacks")
    watcher = _watcher(callbacks)
    runtime = configurable.get(RUNTIME)
    loop = loop_of(configurable)
    going = _going(loop, runtime)
    tell_of_cache(configurable)
    state = channel_state(configurable)
    at = cast("Mapping[str, Any]", configurable.get(CHECKPOINTS) or {}).get("")
    around, hidden = _held_around(configurable, thread), _hidden(configurable, node, loop, thread)
    return Position(
        node=node,
        namespace=namespace,
        branch=pushed and (not _is_call(path) or is_beside_others(configurable, node, namespace)),
        place=_place(path) if pushed else "",
        thread=thread,
        run=str(run) if run is not None else getattr(getattr(runtime, "execution_info", None), "run_id", None) or going,
        state=state,
        around=around.join(UNREAD) if hidden else around,
        left=left_state(configurable) if state is None else None,
        hidden=hidden,
        context=getattr(runtime, "context", None),
        store=getattr(runtime, "store", None),
        downstream=watcher.downstream(namespace) if watcher is not None else None,
        in_loop=watcher is not None and watcher.in_loop(namespace),
        parent=watcher.span_context(getattr(callbacks, "parent_run_id", None)) if watcher is not None else None,
        watcher=watcher,
        at=None if at is None else str(at),
        checkpointer=configurable.get(CHECKPOINTER) or None,
        fresh=True if configurable.get(RESUMING) is False else is_fresh(loop),
        going=going,
        read=configurable.get(READ),
    )


def _thread_of(config: Mapping[str, Any]) -> str | None:
    metadata, configurable = (cast("Mapping[str, Any]", config.get(name) or {}) for name in ("metadata", "configurable"))
    thread = configurable.get(THREAD, metadata.get(THREAD))
    return None if thread is None else str(thread)


def _held_around(configurable: Mapping[str, Any], thread: str | None) -> ThreadState:
    """Thread pins and facts in the graphs around; where a graph was invoked with a thread of its own, theirs are another's."""
    held = [thread_state(node) for node, graph in islice(nodes_of(configurable), 1, None) if _thread_of(graph) == thread]
    return join_all(held) if held else EMPTY


def _hidden(configurable: Mapping[str, Any], node: str, loop: Any, thread: str | None) -> str:
    """What keeps the graphs around a call in a node out of its sight; a graph that has a thread of its own is meant to see no other."""
    if RUNTIME not in configurable:
        return (
            f'a chain in node "{node}" is given `configurable` of its own, which hides the pins, facts and context of its graph, so its '
            "steps count as unsure; hand the node's config on: chain.with_config(configurable=...).invoke(input, config)"
        )
    begun_with = cast("Mapping[str, Any]", getattr(loop, "config", None) or {})
    around = cast("Mapping[str, Any]", begun_with.get("metadata") or {})
    if "langgraph_node" not in around or not thread == _thread_of(begun_with) == str(around.get(THREAD)):
        return ""
    return (
        f'a graph is called in node "{around["langgraph_node"]}" with the id of the thread it is in, which hides the pins and facts of the '
        "graph around it, so its steps count as unsure; call it without a thread_id, and it is in that thread"
    )


def _is_call(path: Sequence[object]) -> bool:
    """A call of a `@task` has the path of its caller in its own, a branch of `Send` a number."""
    return len(path) > 2 and isinstance(path[1], tuple)


def _place(path: Sequence[object]) -> str:
    return str(path[1:3] if _is_call(path) else path[1]) if len(path) > 1 else ""


def _going(loop: object, runtime: object) -> str | None:
    """A run is known by its loop, else by the control object that LangGraph gives it and everything in it: a caller may share one."""
    run = loop if loop is not None else getattr(runtime, "control", None)
    return None if run is None else name_of(run)


def _watcher(callbacks: object) -> Watcher | None:
    """The watcher of a run, told by its shape: frameworks are known elsewhere."""
    handlers = cast("Any", callbacks) if isinstance(callbacks, list) else getattr(callbacks, "handlers", ())
    for handler in cast("Sequence[object]", handlers):
        if getattr(handler, "watches_graphs", False):
            return cast("Watcher", handler)
    return None
