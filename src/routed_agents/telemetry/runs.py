"""Runs are recorded spans put together to trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from routed_agents.telemetry import names

Status = Literal["unset", "ok", "error"]
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    """One recorded span.

    Attributes:
        parent_id: None for the first span of a trace.
        is_root: nothing in this process is above it: it has no parent, or one in another process.
        scope: the instrumentation that made it; "routed_agents" for ours.
        attributes: decoded; arrays are tuples.
        resource: attributes of the process.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    is_root: bool = False
    name: str
    kind: str = "internal"
    scope: str = ""
    start_ns: int
    end_ns: int
    status: Status = "unset"
    message: str = ""
    attributes: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    resource: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    @property
    def ours(self) -> bool:
        """It was made by routed-agents."""
        return self.scope == names.SCOPE

    @property
    def is_leaf(self) -> bool:
        """It tells of one model call, and was made by routed-agents."""
        return self.ours and self.attributes.get(names.OPERATION, names.EXECUTE_TOOL) != names.EXECUTE_TOOL

    @property
    def model(self) -> str:
        """A leaf's model, by whichever name the leaf may tell it."""
        found = (self.attributes.get(name) for name in (names.LLM_MODEL, names.REQUEST_MODEL, names.MODEL))
        return next((each for each in found if isinstance(each, str) and each), "")

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """A leaf's tokens, in and out, likewise; None where they are not known."""
        pairs = ((names.INPUT_TOKENS, names.TOKENS_INPUT), (names.OUTPUT_TOKENS, names.TOKENS_OUTPUT))
        sent, received = (self.attributes.get(counted, self.attributes.get(told)) for counted, told in pairs)
        return sent if isinstance(sent, int) else None, received if isinstance(received, int) else None

    @property
    def estimated(self) -> bool:
        """A leaf's cost is that of estimated tokens."""
        return self.attributes.get(names.USAGE_SOURCE) == "estimated" and isinstance(self.attributes.get(names.COST_PICO), int)

    @property
    def output_unknown(self) -> bool:
        """Likewise, of its prompt alone, so that the cost is a lower bound."""
        return self.estimated and self.tokens[1] == 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes of all reasons of its decision."""
        codes = self.attributes.get(names.REASONS)
        return tuple([str(code) for code in cast("tuple[object, ...]", codes)]) if isinstance(codes, tuple) else ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A span and the spans under it, in the order they began."""

    span: SpanRecord
    children: tuple[Branch, ...] = ()

    def walk(self) -> Iterator[SpanRecord]:
        """This span and everything under it, parents first."""
        waiting: list[Branch] = [self]
        while waiting:
            branch = waiting.pop()
            yield branch.span
            waiting.extend(reversed(branch.children))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All spans of one trace, as trees.

    Attributes:
        roots: the spans whose parent was not recorded here, in the order they began.
        complete: a root span is among them; without one the run was still going, or its process died.
    """

    trace_id: str
    roots: tuple[Branch, ...]
    complete: bool = True

    def walk(self) -> Iterator[SpanRecord]:
        """Every span, parents first."""
        for root in self.roots:
            yield from root.walk()


def run_of(spans: Iterable[SpanRecord]) -> Run:
    """The trees that these spans of one trace make. Where parents go round in a ring, the span that began first is taken as its root."""
    ordered = sorted(spans, key=lambda span: (span.start_ns, span.end_ns, span.span_id))
    known = {span.span_id for span in ordered}
    below: dict[str | None, list[SpanRecord]] = {}
    for span in ordered:
        inside = span.parent_id in known and span.parent_id != span.span_id
        below.setdefault(span.parent_id if inside else None, []).append(span)
    trees = [_under(root, below) for root in below.get(None, ())]
    if sum(map(len, trees)) < len(ordered):
        trees += _rings(ordered, below, {span.span_id for tree in trees for span in tree})
    roots = tuple([_branch(tree, below) for tree in trees])
    return Run(trace_id=ordered[0].trace_id, roots=roots, complete=any(span.is_root for span in ordered))


def _under(root: SpanRecord, below: Mapping[str | None, Sequence[SpanRecord]]) -> list[SpanRecord]:
    """A span and everything under it."""
    order = [root]
    for span in order:  # grows while it is walked: parents first, without recursion
        order.extend(below.get(span.span_id, ()))
    return order


def _rings(ordered: Sequence[SpanRecord], below: Mapping[str | None, list[SpanRecord]], held: set[str]) -> Iterator[list[SpanRecord]]:
    """The spans that no root holds, each ring of them cut open where it began."""
    for span in ordered:
        if span.span_id not in held:
            below[span.parent_id].remove(span)
            tree = _under(span, below)
            held.update(each.span_id for each in tree)
            yield tree


def _branch(order: Sequence[SpanRecord], below: Mapping[str | None, Sequence[SpanRecord]]) -> Branch:
    """The tree of a span and everything under it, given parents first."""
    built: dict[str, Branch] = {}
    for span in reversed(order):
        children = tuple([built[child.span_id] for child in below.get(span.span_id, ())])
        built[span.span_id] = Branch(span=span, children=children)
    return built[order[0].span_id]
