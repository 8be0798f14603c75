"""A plan tells from a graph's edges how many model steps hang on each of its nodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Final, Literal, cast

from langgraph.graph import END, START

from routed_agents.errors import ConfigurationError

STEPS_KEY: Final = "model_steps"
"""The key of `add_node(metadata=…)` that declares how many model steps a node makes."""
SEPARATOR: Final = "|"
NONE: Final[frozenset[str]] = frozenset()
Source = Literal["declared", "observed", "may"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What hangs on the answers of a node.

    Attributes:
        steps: model steps behind it; None where it can't be told.
        in_loop: it is in a cycle, so no number can be told.
        may: nodes behind it that nobody has declared or seen, for functions are opaque.
        loops: nodes behind it that are in a cycle.
    """

    steps: int | None
    in_loop: bool = False
    may: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a graph, as far as its steps are concerned.

    Attributes:
        steps: the model steps one execution makes, as declared.
        always: nodes that follow in any case.
        choices: one set of alternatives for each branch or command, of which one follows.
        inner: the plan of the graph it is.
        code: stands for what it runs.
    """

    steps: int | None = None
    always: frozenset[str] = frozenset()
    choices: tuple[frozenset[str], ...] = ()
    inner: Plan | None = None
    code: str = ""

    @property
    def next(self) -> frozenset[str]:
        return self.always.union(*self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A graph's nodes and edges; two graphs of one shape and one code have one hash."""

    name: str
    nodes: Mapping[str, Node] = field(default_factory=dict[str, Node])

    @property
    def hash(self) -> str:
        return hashlib.blake2b(json.dumps(self._document(), sort_keys=True).encode(), digest_size=8).hexdigest()

    def _document(self) -> dict[str, Any]:
        return {
            name: [node.steps, sorted(node.always), sorted([sorted(each) for each in node.choices]), node.code]
            + ([node.inner._document()] if node.inner is not None else [])
            for name, node in self.nodes.items()
        }

    def at(self, path: str) -> Node | None:
        """The node at a path of names, `sub|inner`."""
        plan: Plan | None = self
        node: Node | None = None
        for name in path.split(SEPARATOR):
            node = plan.nodes.get(name) if plan is not None else None
            plan = node.inner if node is not None else None
        return node

    def paths(self, above: str = "") -> Iterable[str]:
        """Every node's path, outer ones first."""
        for name, node in self.nodes.items():
            path = f"{above}{SEPARATOR}{name}" if above else name
            yield path
            if node.inner is not None:
                yield from node.inner.paths(path)

    def outlook(self, path: str, steps: Callable[[str], int | None]) -> Outlook:
        """What hangs on the node at a path.

        Args:
            path: names, outer ones first.
            steps: model steps one execution of the node at a path makes; None when nobody knows.

        Of branches the one with most steps counts, nodes that follow in any case all count, each once; the tasks of a `Send` count as
        one. A node in a graph that is itself a node has what follows inside and what follows the outer node.
        """
        plan: Plan | None = self
        above, found = "", Outlook(steps=0)
        for name in path.split(SEPARATOR):
            if plan is None or name not in plan.nodes:
                return Outlook(steps=None, in_loop=found.in_loop, may=found.may, loops=found.loops)
            found = _sum(found, plan._own(name, above, steps))
            above = f"{above}{SEPARATOR}{name}" if above else name
            plan = plan.nodes[name].inner
        return found

    def _own(self, name: str, above: str, steps: Callable[[str], int | None]) -> Outlook:
        loops = self._loops()
        if name in loops:
            return Outlook(steps=None, in_loop=True)
        prefix = f"{above}{SEPARATOR}" if above else ""
        known: dict[str, int | None] = {each: steps(prefix + each) for each in self.nodes}
        reached = self._reach(name, known, loops, {})
        may = tuple(sorted([prefix + each for each in reached if known[each] is None]))
        behind = tuple(sorted([prefix + each for each in reached & loops if known[each] != 0]))
        if may or behind:
            return Outlook(steps=None, may=may, loops=behind)
        return Outlook(steps=sum(known[each] or 0 for each in reached))

    def _reach(self, name: str, known: Mapping[str, int | None], loops: frozenset[str], done: dict[str, frozenset[str]]) -> frozenset[str]:
        """The nodes that run after this one, taking of each choice the way with most steps, unknown ones before all."""
        if name in done:
            return done[name]
        done[name] = frozenset()  # stands while a cycle is walked; its nodes are in `loops` and get no number anyway
        node = self.nodes[name]

        def behind(each: str) -> frozenset[str]:
            return frozenset({each}) | self._reach(each, known, loops, done) if each in self.nodes else frozenset()

        def weight(way: frozenset[str]) -> tuple[bool, int, list[str]]:
            open_ended = any(known[each] is None or (each in loops and known[each] != 0) for each in way)
            return open_ended, sum(known[each] or 0 for each in way), sorted(way)

        reached = NONE.union(*(behind(each) for each in node.always))
        for choice in node.choices:
            reached |= max((behind(each) for each in sorted(choice)), key=weight, default=NONE)
        done[name] = reached
        return reached

    def _loops(self) -> frozenset[str]:
        """Nodes that can be reached from themselves."""
        found: set[str] = set()
        for name in self.nodes:
            seen: set[str] = set()
            waiting = list(self.nodes[name].next)
            while waiting:
                each = waiting.pop()
                if each in seen or each not in self.nodes:
                    continue
                seen.add(each)
                waiting.extend(self.nodes[each].next)
            if name in seen:
                found.add(name)
        return frozenset(found)


def _sum(outer: Outlook, inner: Outlook) -> Outlook:
    told = outer.steps is not None and inner.steps is not None
    return Outlook(
        steps=cast("int", outer.steps) + cast("int", inner.steps) if told else None,
        in_loop=outer.in_loop or inner.in_loop,
        may=(*outer.may, *inner.may),
        loops=(*outer.loops, *inner.loops),
    )


def plan_of(graph: Any, *, within: frozenset[int] = frozenset()) -> Plan:
    """The plan of a compiled graph; one without edges of its own (the functional API) has nodes only.

    Raises:
        ConfigurationError: a node declares a number of model steps that can't be meant.
    """
    builder = getattr(graph, "builder", None)
    nodes: dict[str, Node] = {}
    inner = {name: each for name, each in graph.get_subgraphs() if hasattr(each, "get_subgraphs") and hasattr(each, "nodes")}
    for name, pregel in graph.nodes.items():
        if name == START:
            continue
        spec = builder.nodes.get(name) if builder is not None else None
        always: set[str] = set()
        choices: list[frozenset[str]] = []
        if builder is not None:
            always = {end for start, end in builder.edges if start == name} | {
                end for starts, end in builder.waiting_edges if name in starts
            }
            choices = [frozenset(_ends(branch, builder)) for branch in builder.branches.get(name, {}).values()]
        ways = getattr(pregel.bound, "destinations", None) or getattr(spec, "ends", None) or ()
        if ways:
            choices.append(frozenset(ways))
        if handler := getattr(spec, "error_handler_node", None):
            choices.append(frozenset({handler, END}))
        below = inner.get(name)
        nodes[name] = Node(
            steps=_declared(name, pregel.metadata, pregel.bound),
            always=frozenset(always - {END}),
            choices=tuple(choices),
            inner=plan_of(below, within=within | {id(graph)}) if below is not None and id(below) not in within else None,
            code=_code_of(pregel.bound),
        )
    return Plan(name=str(graph.get_name()), nodes=nodes)


def _ends(branch: Any, builder: Any) -> Iterable[str]:
    """Where a conditional edge may go: as declared, else anywhere."""
    return branch.ends.values() if branch.ends else [*builder.nodes, END]


def _declared(name: str, metadata: Mapping[str, Any] | None, bound: object) -> int | None:
    given: Any = (metadata or {}).get(STEPS_KEY)
    if given is None:
        return 0 if getattr(bound, "decides_only", False) else None
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise ConfigurationError(f'node "{name}" declares {STEPS_KEY} {given!r}; wanted a number of model calls, 0 or more')
    return given


def _code_of(bound: Any) -> str:
    """Stands for the code a node runs, so that what was seen of an older version is not believed."""
    function = getattr(bound, "func", None) or getattr(bound, "afunc", None) or bound
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return str(getattr(function, "__qualname__", type(function).__qualname__))
    body = hashlib.blake2b(code.co_code + repr(code.co_names).encode(), digest_size=8).hexdigest()
    return f"{function.__qualname__}:{body}"
