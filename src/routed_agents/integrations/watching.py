"""Watching a graph: a span per run, node and tool, what its model steps cost, and how many of them hang on each node."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, cast
from uuid import UUID

from langgraph.errors import GraphBubbleUp
from opentelemetry import trace
from opentelemetry.util.types import AttributeValue
from typing_extensions import override

from routed_agents.errors import ConfigurationError
from routed_agents.integrations.observer import AGAIN, CostObserver, heard_by
from routed_agents.integrations.plan import SEPARATOR, Outlook, Plan, Source, plan_of
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import field_of
from routed_agents.telemetry import RouteSpan, names
from routed_agents.telemetry.around import under

log: Final = logging.getLogger("routed_agents")
VERSION: Final = 1
STEP_TAG: Final = "graph:step:"
HIDDEN: Final = "langsmith:hidden"


def watch(graph: Any, router: Router | Policy | str | None = None, *, remember: str | Path | None = None) -> Any:
    """Watch a graph: spans for its runs, nodes and tools, the cost of its model calls, and what hangs on each step.

        graph = watch(builder, router).compile(checkpointer=saver)
        graph = watch(compiled, router)

    No function of yours is changed: it goes by the graph's callbacks. A builder comes back as a builder whose `compile` gives a watched
    graph, a compiled graph as a watched copy. It takes the place of a `CostObserver`; plain models' calls are priced, and routed ones
    know how many model steps hang on their answer. A node's own steps are those it declares (`add_node(metadata={"model_steps": 1})`),
    else those seen in earlier runs of the same graph, else unknown. A graph watched inside a watched graph is left to the outer watch.

    Args:
        graph: a `StateGraph`, or a compiled graph.
        router: the router whose ledger and spans it writes to.
        remember: a JSON file that keeps what was seen of each node for the next process; this process's memory when not given.

    Raises:
        ConfigurationError: it is no graph, or a node declares a number of steps that can't be meant.
    """
    if hasattr(graph, "get_subgraphs"):
        return _watched(graph, Router.of(router), remember)
    if not hasattr(graph, "compile"):
        raise ConfigurationError(f"watch was given a {type(graph).__name__}; wanted a StateGraph or a compiled graph")
    builder, chosen = copy.copy(graph), Router.of(router)
    compile_it: Any = cast("Any", type(graph)).compile

    def compiled(*args: Any, **kwargs: Any) -> Any:
        return _watched(compile_it(builder, *args, **kwargs), chosen, remember)

    builder.compile = compiled
    return builder


def _watched(compiled: Any, router: Router, remember: str | Path | None) -> Any:
    return heard_by(GraphWatch(compiled, router, remember=remember), compiled)


def watch_of(graph: Any) -> GraphWatch:
    """The watch of a watched graph.

    Raises:
        ConfigurationError: nobody watches it.
    """
    config: Any = getattr(graph, "config", None) or {}
    callbacks: Any = config.get("callbacks") or ()
    found = next((each for each in getattr(callbacks, "handlers", callbacks) if isinstance(each, GraphWatch)), None)
    if found is None:
        raise ConfigurationError("the graph is not watched; wanted what watch(graph, router) gives")
    return found


class Seen:
    """Model steps seen of each node, by the graph's hash; kept in a small JSON file, where one is given."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, tuple[int, int]]] = self._read()
        self._unsaved: set[tuple[str, str]] = set()

    def steps(self, graph: str, path: str) -> int | None:
        """Model steps an execution of this node makes on average, rounded, but at least one when it ever made any."""
        runs, steps = self._counts.get(graph, {}).get(path, (0, 0))
        if not runs:
            return None
        return max(1, (2 * steps + runs) // (2 * runs)) if steps else 0

    def add(self, graph: str, path: str, steps: int) -> bool:
        """Note one execution of a node; whether that changes what is known of it."""
        with self._lock:
            before = self.steps(graph, path)
            runs, known = self._counts.setdefault(graph, {}).get(path, (0, 0))
            self._counts[graph][path] = (runs + 1, known + steps)
            if self.steps(graph, path) == before:
                return False  # nothing new was learnt, so nothing has to be written
            self._unsaved.add((graph, path))
            return True

    def save(self) -> None:
        """Add what is new to the file; a file that can't be written is our trouble."""
        if self.path is None:
            return
        try:
            with self._lock:
                if not self._unsaved:
                    return
                merged = self._read()
                for graph, path in self._unsaved:
                    merged.setdefault(graph, {})[path] = self._counts[graph][path]
                graphs = {graph: {path: list(pair) for path, pair in sorted(nodes.items())} for graph, nodes in sorted(merged.items())}
                text = json.dumps({"v": VERSION, "graphs": graphs}, indent=1)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.{threading.get_ident()}.new")
                draft.write_text(text)
                draft.replace(self.path)
                self._unsaved = set()
        except OSError:
            log.exception("%s cannot be written; what was seen of the graph's nodes holds in this process only", self.path)

    def _read(self) -> dict[str, dict[str, tuple[int, int]]]:
        if self.path is None:
            return {}
        try:
            document = json.loads(self.path.read_text())
            if document["v"] != VERSION:
                raise ValueError(f"version {document['v']}, this release reads {VERSION}")
            return {
                str(graph): {str(path): (int(runs), int(steps)) for path, (runs, steps) in nodes.items()}
                for graph, nodes in document["graphs"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s cannot be read (%s); the graph's nodes are watched anew", self.path, error)
            return {}


@dataclass(frozen=True, slots=True)
class _Untold:
    """An outermost run that has no span yet."""

    attributes: Mapping[str, AttributeValue]
    started_ns: int


class GraphWatch(CostObserver):
    """The callback handler that watches a graph; `watch` puts it there.

    Attributes:
        plan: the graph's nodes and edges.
        seen: what was seen of its nodes.
    """

    watches_graphs: ClassVar[bool] = True
    _owners: ClassVar[dict[UUID, GraphWatch]] = {}
    """Which watch every run under way belongs to: of two that hear it, the outer one."""

    def __init__(self, graph: Any, router: Router | Policy | str | None = None, *, remember: str | Path | None = None) -> None:
        super().__init__(router)
        self.plan: Plan = plan_of(graph)
        self.hash = self.plan.hash
        self.seen = Seen(remember)
        self._roots: dict[UUID, _Untold | None] = {}
        self._opening = threading.Lock()
        self._nodes: dict[UUID, tuple[str, list[int]]] = {}
        self._spans: dict[UUID, tuple[RouteSpan, trace.Span]] = {}
        self._outlooks: dict[str, Outlook] = {}

    def model_steps(self) -> dict[str, tuple[int | None, Source]]:
        """Model steps one execution of each node makes, and how that is known."""
        return {path: self._steps_of(path) for path in self.plan.paths()}

    def outlook(self, path: str) -> Outlook:
        """What hangs on the answers of the node at a path of names, `sub|inner`."""
        found = self._outlooks.get(path)
        if found is None:
            found = self._outlooks[path] = self.plan.outlook(path, lambda each: self._steps_of(each)[0])
        return found

    def downstream(self, namespace: str) -> int | None:
        """Model steps that hang on a step made at this checkpoint namespace; None in a loop and where nobody can tell."""
        return self.outlook(path_of(namespace)).steps

    def in_loop(self, namespace: str) -> bool:
        """Whether the node of this namespace, or one around it, is in a cycle."""
        return self.outlook(path_of(namespace)).in_loop

    def span_context(self, run: object) -> object:
        """The span context for a step made under this run: its node's, unless a span was opened since that the step belongs to."""
        for each in self._above(cast("UUID | None", run)):
            if self._roots.get(each) is not None:
                self._open_root(each)
            if each in self._spans:
                span, around = self._spans[each]
                return under(span.span, around)
        return None

    def _steps_of(self, path: str) -> tuple[int | None, Source]:
        node = self.plan.at(path)
        if node is not None and node.steps is not None:
            return node.steps, "declared"
        found = self.seen.steps(self.hash, path)
        return found, "may" if found is None else "observed"

    def _mine(self, run_id: UUID, parent_run_id: UUID | None) -> bool:
        """Take a run on, unless another watch has it."""
        owner = self._owners.get(parent_run_id) if parent_run_id is not None else None
        owner = owner or self._owners.setdefault(run_id, self)
        if owner is self:
            self._owners[run_id] = self
        return owner is self

    @override
    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self._mine(run_id, parent_run_id):
            return
        known: Mapping[str, Any] = metadata or {}
        outer = parent_run_id if parent_run_id in self._parents else None
        super().on_chain_start(serialized, inputs, run_id=run_id, parent_run_id=parent_run_id, metadata=metadata)
        if outer is None:
            self._roots[run_id] = _Untold({names.GRAPH: self.plan.name, **_run_of(known)}, time.time_ns())
            return
        if self._roots.get(outer) is not None:
            self._open_root(outer)
        if any(tag.startswith(STEP_TAG) for tag in tags or ()) and HIDDEN not in (tags or ()):
            path = path_of(str(known.get("langgraph_checkpoint_ns") or ""))
            node, outlook = path.rpartition(SEPARATOR)[2], self.outlook(path)
            self._nodes[run_id] = (path, [0])
            attributes: dict[str, Any] = {names.NODE: node, names.IN_LOOP: outlook.in_loop, **_run_of(known)}
            if outlook.steps is not None:
                attributes[names.DOWNSTREAM] = outlook.steps
            self._open_span(run_id, parent_run_id, f"node {node}", attributes)

    @override
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if self._owners.get(run_id) is not self:
            return
        if run_id in self._nodes:
            path, made = self._nodes[run_id]
            if self.seen.add(self.hash, path, made[0]):
                self._outlooks = {}
        self._ended(run_id, None)
        super().on_chain_end(outputs, run_id=run_id, **kwargs)

    @override
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if self._owners.get(run_id) is not self:
            return
        super().on_chain_error(error, run_id=run_id, **kwargs)
        self._ended(run_id, None if isinstance(error, GraphBubbleUp) else error)

    @override
    def _asked(self, serialized: Any, messages: Any, run_id: UUID, parent_run_id: UUID | None, **kwargs: Any) -> None:
        if parent_run_id is None or self._owners.get(parent_run_id) is not self:
            return
        if AGAIN not in (kwargs.get("metadata") or {}):
            for each in self._above(parent_run_id):
                if each in self._nodes:
                    self._nodes[each][1][0] += 1
        super()._asked(serialized, messages, run_id, parent_run_id, **kwargs)
        if run_id in self._open and (context := self.span_context(parent_run_id)) is not None:
            self._open[run_id].parent = context

    @override
    def _claim(self, run_id: UUID) -> None:
        self._bookers[run_id, self._books] = self  # under its node's span, where a plain observer knows none

    @override
    def on_tool_start(
        self,
        serialized: Any,
        input_str: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self._inside(run_id, parent_run_id):
            return
        super().on_tool_start(serialized, input_str, run_id=run_id, parent_run_id=parent_run_id)
        known: Mapping[str, Any] = metadata or {}
        node = known.get("langgraph_node")
        span = self.router.telemetry.open_tool(
            str(field_of(serialized, "name") or kwargs.get("name") or "unknown"),
            call_id=kwargs.get("tool_call_id"),
            arguments=inputs if inputs is not None else input_str,
            attributes={**({names.NODE: str(node)} if node else {}), **_run_of(known)},
            parent=self.span_context(parent_run_id),
        )
        self._hold(run_id, span)

    @override
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if self._owners.get(run_id) is self:
            self._tool_ended(run_id, output, None)
            super().on_tool_end(output, run_id=run_id, **kwargs)

    @override
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if self._owners.get(run_id) is self:
            super().on_tool_error(error, run_id=run_id, **kwargs)
            self._tool_ended(run_id, None, None if isinstance(error, GraphBubbleUp) else error)

    @override
    def on_retriever_start(self, serialized: Any, query: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        if self._inside(run_id, parent_run_id):
            super().on_retriever_start(serialized, query, run_id=run_id, parent_run_id=parent_run_id)

    @override
    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if self._owners.pop(run_id, None) is self:
            super().on_retriever_end(documents, run_id=run_id, **kwargs)

    @override
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if self._owners.pop(run_id, None) is self:
            super().on_retriever_error(error, run_id=run_id, **kwargs)

    def _inside(self, run_id: UUID, parent_run_id: UUID | None) -> bool:
        """Take on a run inside one of mine."""
        if parent_run_id is None or self._owners.get(parent_run_id) is not self:
            return False
        self._owners[run_id] = self
        return True

    def _tool_ended(self, run_id: UUID, output: Any, error: BaseException | None) -> None:
        self._owners.pop(run_id, None)
        if span := self._spans.pop(run_id, None):
            self.router.telemetry.close_tool(span[0], output, error)

    def _open_span(self, run_id: UUID, parent_run_id: UUID | None, name: str, attributes: Mapping[str, Any]) -> None:
        parent = self.span_context(parent_run_id) if parent_run_id is not None else None
        self._hold(run_id, self.router.telemetry.open_group(name, attributes, parent))

    def _open_root(self, run_id: UUID) -> None:
        """Open the span of an outermost run with the first run in it: other tracers have been told of it by then, and no node has begun."""
        with self._opening:
            if (untold := self._roots.get(run_id)) is None:
                return
            name = f"graph {self.plan.name}"
            self._hold(run_id, self.router.telemetry.open_group(name, untold.attributes, run=run_id, started_ns=untold.started_ns))
            self._roots[run_id] = None

    def _hold(self, run_id: UUID, span: RouteSpan | None) -> None:
        if span is not None:
            self._spans[run_id] = (span, trace.get_current_span())

    @override
    def _give_up(self, run_id: UUID) -> None:
        super()._give_up(run_id)
        self._over(run_id, None)

    def _ended(self, run_id: UUID, error: BaseException | None) -> None:
        if run_id in self._roots:
            self._open_root(run_id)
            self._over(run_id, error)
            self._save()
        else:
            self._over(run_id, error)

    def _over(self, run_id: UUID, error: BaseException | None) -> None:
        self._owners.pop(run_id, None)
        self._nodes.pop(run_id, None)
        self._roots.pop(run_id, None)
        if span := self._spans.pop(run_id, None):
            self.router.telemetry.close_group(span[0], error)

    def _save(self) -> None:
        if self.seen.path is None:
            return
        try:
            asyncio.get_running_loop().run_in_executor(None, self.seen.save)
        except RuntimeError:
            self.seen.save()


def path_of(namespace: str) -> str:
    """The names in a checkpoint namespace, `sub:<id>|inner:<id>`; LangGraph's counters of calls within one node are left out."""
    return SEPARATOR.join([each.partition(":")[0] for each in namespace.split("|") if each and not each.isdigit()])


def _run_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, Any] = {names.CONVERSATION: metadata.get("thread_id"), names.RUN: metadata.get("run_id")}
    return {key: str(value) for key, value in found.items() if value is not None}
