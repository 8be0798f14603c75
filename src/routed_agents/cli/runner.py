"""Runs a graph over inputs, several at a time, and hands each result over as it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from opentelemetry.trace import Status, StatusCode

from routed_agents.cli.conversation import messages_of
from routed_agents.cli.graphs import LoadedGraph
from routed_agents.errors import LedgerError, StepStopped
from routed_agents.ledger import Bill, cost_of
from routed_agents.steps import carried_stamp, field_of, role_of, storable, text_of
from routed_agents.telemetry import names
from routed_agents.telemetry.providers import tracers

MOST_WORDS: Final = 400
"""Characters of an error that a result line keeps."""
INPUT: Final = "routed_agents_input"
"""Where a saver has which input a thread's checkpoints are of, in their metadata."""
AHEAD: Final = 1_000
"""Inputs that may wait for one of their thread, so that others are read and go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One line of an input file."""

    id: str
    line: int
    record: Mapping[str, Any]

    @property
    def thread(self) -> str:
        return str(self.record.get("thread") or self.id)

    @property
    def digest(self) -> str:
        """Tells it from every other input, also of another file."""
        said = json.dumps([self.id, self.record], sort_keys=True, default=str)
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one input.

    Attributes:
        reply: the text of the last message, when it is the model's.
        stopped: why a step was not made, or that the graph waits for a person.
        error: what went wrong, in one line.
    """

    id: str
    thread: str
    line: int
    reply: str | None = None
    stopped: str | None = None
    error: str | None = None
    bill: Bill
    seconds: float

    def to_record(self) -> dict[str, Any]:
        bill = self.bill
        cheap = sum(count for tier, count in bill.tiers.items() if tier not in bill.top)
        return {
            "id": self.id,
            "thread": self.thread,
            "reply": self.reply,
            "stopped": self.stopped,
            "error": self.error,
            "bill": {
                "cost_usd": f"{bill.cost:f}",
                "cost_pico": bill.cost_pico,
                "baseline_usd": f"{bill.baseline:f}" if bill.baseline is not None else None,
                "baseline_pico": bill.baseline_pico if bill.compared else None,
                "steps": bill.steps,
                "cheap": cheap,
                "unpriced": bill.unpriced,
                "estimated": bill.estimated,
                "output_unknown": bill.output_unknown,
                "simulated": bill.simulated,
            },
            "seconds": round(self.seconds, 3),
        }


async def run_inputs(loaded: LoadedGraph, inputs: Iterable[Input], ended: Callable[[Result], None], *, concurrency: int) -> None:
    """Run every input; `ended` gets each result at once, in the order they end.

    Inputs of one thread are run one after another, in their order, and those of other threads go on side by side. Memory holds the
    inputs under way, and no more than `AHEAD` that wait for one before them.
    """
    going: dict[asyncio.Task[None], str] = {}
    behind: dict[str, deque[Input]] = {}  # what waits, by each thread under way

    async def one(given: Input) -> None:
        ended(await run_one(loaded, given))

    def start(given: Input) -> None:
        going[asyncio.create_task(one(given))] = given.thread

    async def go_on() -> None:
        done, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a result that cannot be written ends the run
            thread = going.pop(task)
            if behind[thread]:
                start(behind[thread].popleft())
            else:
                del behind[thread]

    try:
        for given in inputs:
            if given.thread in behind:
                behind[given.thread].append(given)
            else:
                behind[given.thread] = deque()
                start(given)
            while len(going) >= concurrency or sum(map(len, behind.values())) >= AHEAD:
                await go_on()
        while going:
            await go_on()
    finally:
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


async def run_one(loaded: LoadedGraph, given: Input) -> Result:
    """Run one input under its root span; whatever goes wrong in it is its result."""
    run = uuid.uuid4().hex
    metadata: object = given.record.get("metadata")
    own: Mapping[str, Any] = cast("Mapping[str, Any]", metadata) if isinstance(metadata, Mapping) else {}
    noted = {**own, "run_id": run, INPUT: given.digest}
    config = {"configurable": {"thread_id": given.thread}, "metadata": noted, "run_name": given.id}
    attributes = {names.GRAPH: loaded.name, names.INPUT_ID: storable(given.id), names.SPAN_KIND: "CHAIN"}
    tracer = tracers().get_tracer(names.SCOPE, names.SCHEMA_VERSION)
    began = time.perf_counter()
    state: object = None
    stopped: str | None = None
    error: str | None = None
    with tracer.start_as_current_span(
        f"run {loaded.name}", attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            state = await loaded.graph.ainvoke(await _asked(loaded.graph, given, config), config)
        except StepStopped as stop:
            stopped = _short(str(stop))
        except Exception as trouble:
            error = _short(f"{type(trouble).__name__}: {trouble}")
            span.set_attribute(names.ERROR_TYPE, type(trouble).__name__)
            span.set_status(Status(StatusCode.ERROR, type(trouble).__name__))
    if stopped is None and field_of(state, "__interrupt__"):
        stopped = "the graph waits for a person (interrupt)"
    return Result(
        id=given.id,
        thread=given.thread,
        line=given.line,
        reply=_reply(state),
        stopped=stopped,
        error=error,
        bill=await asyncio.to_thread(_bill, loaded, state, run),
        seconds=time.perf_counter() - began,
    )


async def _asked(graph: Any, given: Input, config: Mapping[str, Any]) -> object:
    """What the graph is given: the messages, or nothing where the thread stands amid this very input, so that it goes on from there. A
    graph that is to wait at some of its nodes may be waiting, which nothing tells from having broken off.
    """
    if hasattr(getattr(graph, "checkpointer", None), "aget_tuple"):
        found = await graph.aget_state(config)
        if found.next and field_of(found.metadata, INPUT) == given.digest and not _waits(graph):
            return None
    return {"messages": messages_of(given.record)}


def _waits(graph: Any) -> bool:
    """Whether it, or a graph in it, was compiled to wait before or after some of its nodes."""
    graphs = [graph, *[each for _, each in graph.get_subgraphs(recurse=True)]]
    return any(getattr(each, name, ()) for each in graphs for name in ("interrupt_before_nodes", "interrupt_after_nodes"))


def _bill(loaded: LoadedGraph, state: object, run: str) -> Bill:
    """The run's steps from the ledger; from the stamps on its messages where the graph keeps no ledger we know, or one that cannot be
    read now. What it holds may have cost more then, so one call is unpriced.
    """
    told = cost_of(_own(state, run))
    if loaded.router is None:
        return told
    try:
        found = cost_of(None, ledger=loaded.router.ledger, run=run)
    except LedgerError:
        return replace(told, unpriced=told.unpriced + 1)
    return found if found.steps else told


def _own(state: object, run: str) -> object:
    """The messages of a state without the replies that other runs of its thread left there."""
    messages = field_of(state, "messages")
    if not isinstance(messages, list):
        return state
    return [each for each in cast("list[object]", messages) if (carried_stamp(each) or {}).get("run") in (None, run)]


def _reply(state: object) -> str | None:
    messages = field_of(state, "messages")
    last: object = cast("list[object]", messages)[-1] if isinstance(messages, list) and messages else None
    return text_of(last) if last is not None and role_of(last) == "ai" else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}…"
