"""Many runs at once: no span in a foreign run, no entry lost, nothing that blocks the event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents import Ledger, RoutedChatModel, Telemetry, join
from routed_agents.telemetry import names
from routed_agents.testing import ScriptedChatModel

from .conftest import HAIKU, OPUS, Books, scripted

ROOT = Path(__file__).parents[2]
AT_ONCE = 50


def desk_inputs(count: int) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (ROOT / "graphs" / "support_desk.jsonl").read_text(encoding="utf-8").splitlines()]
    return [rows[number % len(rows)] for number in range(count)]


def strays(spans: list[ReadableSpan]) -> list[str]:
    """Leaves that do not hang below a route and a root of their own run and thread."""
    by_id = {span.context.span_id: span for span in spans}
    roots = {span.context.trace_id: span for span in spans if span.name == "root"}
    found: list[str] = []
    for leaf in spans:
        if not leaf.name.startswith("chat "):
            continue
        route, root = by_id.get(leaf.parent.span_id), roots[leaf.context.trace_id]
        above = route
        while above is not None and above.parent is not None:
            above = by_id.get(above.parent.span_id)
        own = route is not None and route.name.startswith("route ") and above is root
        same = own and (route.attributes[names.RUN], leaf.attributes[names.CONVERSATION]) == (
            root.attributes["run"],
            root.attributes["thread"],
        )
        if not same:
            found.append(f"{leaf.name} {dict(leaf.attributes)}")
    return found


async def test_fifty_support_desks_at_once_mix_no_spans_and_lose_no_entry(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTED_AGENTS_POLICY", "embedded")
    monkeypatch.setenv("ROUTED_AGENTS_LEDGER", str(tmp_path / "costs.db"))
    spec = importlib.util.spec_from_file_location("support_desk_under_test", ROOT / "graphs" / "support_desk.py")
    desk = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, desk)
    spec.loader.exec_module(desk)
    exporter, traces = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    desk.router.telemetry = Telemetry(tracer_provider=traces, labels=("thread",))
    tracer = traces.get_tracer("test")

    async def one(number: int, row: dict[str, Any]) -> dict[str, Any]:
        thread, run = f"thread-{number}", f"run-{number}"
        config = {"configurable": {"thread_id": thread}, "metadata": {"run_id": run}}
        with tracer.start_as_current_span("root", attributes={"thread": thread, "run": run}):
            return await desk.graph.ainvoke({"messages": row["messages"]}, config)

    states = await asyncio.gather(*(one(number, row) for number, row in enumerate(desk_inputs(AT_ONCE))))
    spans = list(exporter.get_finished_spans())
    leaves = [span for span in spans if span.name.startswith("chat ")]
    entries = list(desk.router.ledger.entries())
    asked = [served for served in provider.requests if served.path == "/v1/messages"]
    assert (strays(spans), desk.router.ledger.lost) == ([], 0)
    assert len(leaves) == len(entries) == len(asked)
    assert sum(leaf.attributes[names.COST_PICO] for leaf in leaves) == desk.router.ledger.total().cost_pico
    assert {entry.thread.removeprefix("thread-") for entry in entries} == {(entry.run or "").removeprefix("run-") for entry in entries}
    unhappy = [state["triage"]["mood"] in ("distressed", "threatening") for state in states]
    assert [("distress" in state["routing"]["facts"]) >= sad for state, sad in zip(states, unhappy, strict=True)] == [True] * AT_ONCE
    desk.router.ledger.close()


class Fan(MessagesState):
    routing: Annotated[dict[str, Any], join]
    number: int


def fan_out(model: Any) -> Any:
    """Fifty branches, of which every fifth hears of a death, in async nodes."""

    async def work(state: Any) -> dict[str, Any]:
        sad = "Reply to the customer: my mother died and I cannot cope." if state["number"] % 5 == 0 else "Classify as open or closed: late"
        return {"messages": [await model.ainvoke([HumanMessage(f"{sad} ({state['number']})")])]}

    builder = StateGraph(Fan)
    builder.add_node("begin", lambda state: {})
    builder.add_node("work", work)
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", lambda state: [Send("work", {"number": number}) for number in range(AT_ONCE)], ["work"])
    return builder.compile()


async def test_a_fan_out_of_fifty_joins_facts_and_mixes_nothing(books):
    slow = [ScriptedChatModel(model_name=name, provider="anthropic", delay_s=0.02) for name in (HAIKU, OPUS)]
    graph = fan_out(RoutedChatModel(cheap=slow[0], strong=slow[1], router=books.router))
    tracer = books.router.telemetry._tracer

    async def one(number: int) -> dict[str, Any]:
        with tracer.start_as_current_span("root", attributes={"thread": f"t{number}", "run": f"r{number}"}):
            return await graph.ainvoke(
                {"messages": []}, {"configurable": {"thread_id": f"t{number}"}, "metadata": {"run_id": f"r{number}"}}
            )

    states = await asyncio.gather(*(one(number) for number in range(3)))
    assert strays(list(books.spans.get_finished_spans())) == []
    assert Counter(books.story) == {("cheap", "accepted"): 3 * 40, ("strong", "accepted"): 3 * 10}
    for state in states:
        assert (state["routing"]["pins"], state["routing"]["facts"]) == ([], ["distress"])


def test_threads_lose_no_entry_in_a_ledger_on_disk(tmp_path):
    with Ledger.sqlite(tmp_path / "costs.db") as ledger:
        books = Books(ledger=ledger)
        model = books.model(scripted(HAIKU, "yes"))
        model.batch([f"Classify as open or closed: {number}" for number in range(200)], {"max_concurrency": 16})
        assert (ledger.total().attempts, len({entry.step_id for entry in books.entries}), len(books.leaves)) == (200, 200, 200)


WATCHED = """
import asyncio, importlib.util, json, sys, time
from pathlib import Path
from blockbuster import BlockingError, blockbuster_ctx
from routed_agents.telemetry.setup import configure

root, trace, inputs = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

def load(name):
    spec = importlib.util.spec_from_file_location(name, root / "graphs" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def async_graph(router):
    from langgraph.graph import START, MessagesState, StateGraph
    from routed_agents import RoutedChatModel
    from routed_agents.integrations.langgraph import observed
    model = RoutedChatModel(router=router, options={"max_tokens": 256})

    async def say(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def stream(state):
        words = [chunk.text async for chunk in model.astream(state["messages"][:1])]
        return {"messages": [("ai", "".join(words))]}

    builder = StateGraph(MessagesState)
    builder.add_node("say", say)
    builder.add_node("stream", stream)
    builder.add_edge(START, "say")
    builder.add_edge("say", "stream")
    return observed(builder.compile(), router)

async def many(graph, rows):
    async def one(number, row):
        config = {"configurable": {"thread_id": str(number)}, "metadata": {"run_id": str(number)}}
        await graph.ainvoke({"messages": row["messages"]}, config)
    ended = await asyncio.gather(*(one(number, row) for number, row in enumerate(rows)), return_exceptions=True)
    return [f"{type(each).__name__}: {each}" for each in ended if each is not None]

async def asleep():
    try:
        time.sleep(0.001)
    except BlockingError:
        return True
    return False

handle = configure(trace_file=trace)
desk, chain = load("support_desk"), load("agent_chain")
graphs = {"support_desk": (desk.graph, desk.router), "agent_chain": (chain.graph, chain.router)}
graphs["async"] = async_graph(desk.router), desk.router
with blockbuster_ctx():
    report = {"watching": asyncio.run(asleep())}
for name, (graph, router) in graphs.items():
    before = router.ledger.total().attempts
    with blockbuster_ctx():
        errors = asyncio.run(many(graph, inputs[name]))
    report[name] = {"errors": errors, "attempts": router.ledger.total().attempts - before, "lost": router.ledger.lost}
report["flushed"], report["dropped"] = handle.flush(), handle.dropped
print(json.dumps(report))
"""


def test_nothing_blocks_the_event_loop_with_ledger_and_trace_on_disk(provider, tmp_path):
    buy = [json.loads(line) for line in (ROOT / "graphs" / "agent_chain.jsonl").read_text(encoding="utf-8").splitlines()]
    inputs = {"support_desk": desk_inputs(AT_ONCE), "agent_chain": (buy * 20)[:20], "async": desk_inputs(AT_ONCE)}
    (tmp_path / "watched.py").write_text(WATCHED, encoding="utf-8")
    env = {**os.environ, "ROUTED_AGENTS_POLICY": "embedded", "ROUTED_AGENTS_LEDGER": str(tmp_path / "costs.db")}
    argv = [sys.executable, str(tmp_path / "watched.py"), str(ROOT), str(tmp_path / "trace.jsonl"), json.dumps(inputs)]
    run = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    assert (run.returncode, "BlockingError" in run.stderr) == (0, False), run.stderr[-3000:]
    report = json.loads(run.stdout)
    assert [report[name]["errors"] for name in inputs] == [[], [], []]
    assert [report[name]["lost"] for name in inputs] == [0, 0, 0]
    assert (report["watching"], report["flushed"], report["dropped"]) == (True, True, 0)
    attempts = sum(report[name]["attempts"] for name in inputs)
    with Ledger.sqlite(tmp_path / "costs.db") as ledger:
        assert ledger.total().attempts == attempts == len([served for served in provider.requests if served.path == "/v1/messages"])
    spans = [
        span
        for line in (tmp_path / "trace.jsonl").read_text(encoding="utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sum(span["name"].startswith("chat ") for span in spans) == attempts
