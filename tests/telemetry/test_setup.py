"""configure sets tracing up for those who have none, loses nothing silently and never holds anybody up."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from blockbuster import blockbuster_ctx
from google.protobuf.json_format import Parse
from langgraph.graph import START, MessagesState, StateGraph
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from rich.console import Console

from routed_agents import Router, RouterNode, Step, join
from routed_agents.errors import ConfigurationError
from routed_agents.integrations.langgraph import observed
from routed_agents.offline.traces import read_spans
from routed_agents.telemetry import names, setup
from routed_agents.telemetry.appending import Appended
from routed_agents.telemetry.setup import SHUTDOWN_S, WAITING, Handle, _at_exit, configure
from routed_agents.telemetry.trees import CostTree
from routed_agents.testing import ScriptedChatModel


@pytest.fixture(autouse=True)
def alone(no_provider: None) -> None:
    """As in a process where nobody has set a provider yet."""


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "trace.jsonl"


@pytest.fixture
def dead_end() -> Iterator[str]:
    """A backend that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def emit(count: int = 1, *, node: str = "triage", parent: trace.Span | None = None) -> None:
    """Steps as the router leaves them: a route span with one priced call below it."""
    tracer = trace.get_tracer(names.SCOPE)
    outer = trace.set_span_in_context(parent) if parent is not None else None
    for _ in range(count):
        route = tracer.start_span(f"route {node}", outer, attributes={names.STEP: "s", names.NODE: node, names.DECIDED_TIER: "cheap"})
        leaf = tracer.start_span(
            "chat m",
            trace.set_span_in_context(route),
            attributes={names.OPERATION: "chat", names.TIER: "cheap", names.OUTCOME: "accepted", names.COST_PICO: 10**9},
        )
        leaf.end()
        route.end()


def test_a_burst_of_ten_thousand_spans_arrives_whole(trace_file: Path) -> None:
    with configure(trace_file=trace_file) as handle:
        emit(5_000)
        assert handle.flush(30.0)
    assert (sum(1 for _ in read_spans(trace_file)), handle.dropped) == (10_000, 0)


def test_another_reader_finds_the_same_spans(trace_file: Path) -> None:
    with configure(trace_file=trace_file):
        emit(3)
    lines = [Parse(line, TracesData(), ignore_unknown_fields=False) for line in trace_file.read_text().splitlines()]
    spans = [span for line in lines for process in line.resource_spans for scope in process.scope_spans for span in scope.spans]
    ours = list(read_spans(trace_file))
    assert [(span.name, span.start_time_unix_nano) for span in spans] == [(span.name, span.start_ns) for span in ours]
    costs = [pair.value.int_value for span in spans for pair in span.attributes if pair.key == names.COST_PICO]
    assert costs == [10**9] * 3


def test_what_does_not_fit_the_queue_is_counted(trace_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = configure(trace_file=trace_file, queue_size=10)
    held = threading.Event()
    monkeypatch.setattr(handle._outputs[0], "_deliver", lambda batch: held.wait(10) and len(batch))
    emit(1_000)
    held.set()
    assert not handle.shutdown(5.0)
    assert handle.dropped == 2_000


@pytest.mark.parametrize("left", ["", '{"resourceSpans":[]}\n', '{"resourceSpans":[{"sco'])
def test_spans_begin_a_line_of_their_own_whatever_the_file_holds(left: str, trace_file: Path) -> None:
    trace_file.parent.mkdir()
    trace_file.write_text(left)
    with configure(trace_file=trace_file):
        emit()
    assert [span.name for span in read_spans(trace_file, on_trouble=lambda _: None)] == ["chat m", "route triage"]


class Filling:
    """A disk with little room left."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room, self.fileno = file, room, file.fileno

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written
        return int(written)


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_line_that_broke_off_costs_the_next_one_nothing(whose: str, tmp_path: Path) -> None:
    file, other = Appended(tmp_path / "t.jsonl"), Appended(tmp_path / "t.jsonl")
    disk = file._file
    file._file = Filling(disk, room=4)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        file.write('{"a": 1}\n')
    file._file = disk
    (file if whose == "its own" else other).write('{"b": 2}\n')
    file.close()
    other.close()
    assert (tmp_path / "t.jsonl").read_text() == '{"a"\n{"b": 2}\n'


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_processes_that_share_a_file_leave_whole_lines_and_no_empty_ones(tmp_path: Path) -> None:
    path, line = tmp_path / "t.jsonl", "x" * 500_000 + "\n"

    def writer() -> int:
        if child := os.fork():
            return child
        file = Appended(path)
        for _ in range(40):
            file.write(line)
        os._exit(0)

    children = [writer() for _ in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    with path.open() as written:
        assert [each == line for each in written] == [True] * 120


@pytest.mark.parametrize("how", ["moved", "removed", "moved with its folder"])
def test_a_file_that_is_moved_keeps_its_spans_and_the_next_ones_begin_a_new_file(
    how: str, trace_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with configure(trace_file=trace_file) as handle:
        emit()
        assert handle.flush()
        kept = trace_file.with_name("old.jsonl")
        if how == "removed":
            trace_file.unlink()
        elif how == "moved":
            trace_file.rename(kept)
        else:
            kept = trace_file.parent.rename(trace_file.parent.with_name("old")) / trace_file.name
        emit(2)
        assert (handle.flush(), handle.dropped) == (True, 0)
    assert sum(1 for _ in read_spans(trace_file)) == 4
    assert how == "removed" or sum(1 for _ in read_spans(kept)) == 2
    assert caplog.messages == [f"{trace_file} was moved or removed; what comes next is written to a new file there"]


def test_spans_for_which_no_new_file_can_be_begun_are_counted(trace_file: Path) -> None:
    handle = configure(trace_file=trace_file)
    trace_file.unlink()
    trace_file.mkdir()
    emit()
    assert (handle.flush(), handle.dropped) == (False, 2)
    handle.shutdown()


def test_a_failing_output_makes_flush_say_no(trace_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = configure(trace_file=trace_file)
    monkeypatch.setattr(handle._outputs[0], "_deliver", len)
    emit()
    assert (handle.flush(), handle.dropped) == (False, 2)
    handle.shutdown()


def test_a_provider_somebody_set_stays_untouched(trace_file: Path) -> None:
    theirs = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(theirs)
    handle = configure(trace_file=trace_file)
    assert (trace.get_tracer_provider(), handle.provider, handle.active) == (theirs, theirs, False)
    assert "already set (TracerProvider)" in handle.note
    assert not trace_file.exists()


def test_configuring_twice_adds_an_output(tmp_path: Path) -> None:
    first = configure(trace_file=tmp_path / "one.jsonl")
    second = configure(trace_file=tmp_path / "two.jsonl")
    emit()
    first.shutdown()
    emit()
    second.shutdown()
    assert [sum(1 for _ in read_spans(tmp_path / name)) for name in ("one.jsonl", "two.jsonl")] == [2, 4]


def test_a_cell_that_is_run_again_adds_nothing(trace_file: Path) -> None:
    shown: list[CostTree] = []
    handles = [configure(trace_file=trace_file, console=shown.append) for _ in range(3)]
    emit()
    for handle in handles:
        handle.shutdown()
    assert (sum(1 for _ in read_spans(trace_file)), len(shown)) == (2, 1)


def test_a_file_is_one_output_however_it_is_spelled(trace_file: Path) -> None:
    spelled = trace_file.parent / "x" / ".." / trace_file.name
    with configure(trace_file=trace_file), configure(trace_file=spelled):
        emit()
    assert sum(1 for _ in read_spans(trace_file)) == 2


def test_an_output_is_open_until_all_its_handles_are_shut_down(trace_file: Path) -> None:
    with configure(trace_file=trace_file):
        with configure(trace_file=trace_file):
            emit()
        assert sum(1 for _ in read_spans(trace_file)) == 2
        emit()
    with configure(trace_file=trace_file):
        emit()
    assert sum(1 for _ in read_spans(trace_file)) == 6


def test_a_dead_backend_holds_the_shutdown_up_for_as_long_as_allowed(dead_end: str) -> None:
    handle = configure(otlp_endpoint=dead_end)
    emit(100)
    began = time.monotonic()
    done = handle.shutdown(0.5)
    assert (done, handle.dropped) == (False, 200)
    assert time.monotonic() - began < 1.5


def test_dead_backends_hold_the_end_of_a_program_up_once_however_often_it_was_configured(dead_end: str, tmp_path: Path) -> None:
    handles = [configure(otlp_endpoint=dead_end, metrics_endpoint=dead_end) for _ in range(3)]
    alive = configure(trace_file=tmp_path / "trace.jsonl", metrics_file=tmp_path / "metrics.jsonl")
    emit()
    began = time.monotonic()
    _at_exit()
    took = time.monotonic() - began
    assert SHUTDOWN_S / 2 < took < 2 * SHUTDOWN_S
    assert ([handle.dropped for handle in handles], alive.dropped) == ([2, 2, 2], 0)
    assert len(list(read_spans(tmp_path / "trace.jsonl"))) == 2
    assert "routed_agents.dropped" in (tmp_path / "metrics.jsonl").read_text()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "routed_agents.telemetry.sending", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[otlp\]'"):
        configure(otlp_endpoint="http://localhost:4318")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for name in ("", "a\0b"):
        with pytest.raises(ConfigurationError, match=r"trace_file .* cannot be opened"):
            configure(trace_file=f"{tmp_path}/{name}")


def test_the_sampler_decides_what_is_written(trace_file: Path) -> None:
    with configure(trace_file=trace_file, sampler=ALWAYS_OFF):
        emit()
    assert trace_file.read_text() == ""


@pytest.mark.parametrize(
    ("name", "attributes", "given", "called"),
    [
        ("", "", {}, "routed-agents"),
        ("", "", {"service_name": "desk"}, "desk"),
        ("", "service.name=checkout", {}, "checkout"),
        ("", "service.name=checkout", {"service_name": "desk"}, "desk"),
        ("", "deployment.environment=test", {}, "routed-agents"),
        ("till", "service.name=checkout", {}, "till"),
        ("till", "service.name=checkout", {"service_name": "desk"}, "till"),
    ],
)
def test_the_service_is_named(
    trace_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, attributes: str, given: dict[str, str], called: str
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    with configure(trace_file=trace_file, **given):  # type: ignore[arg-type]
        emit()
    assert {span.resource["service.name"] for span in read_spans(trace_file)} == {called}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_writes_its_own_spans_and_none_of_the_parents(trace_file: Path) -> None:
    handle = configure(trace_file=trace_file)
    emit(node="parent")
    assert handle.flush()
    child = os.fork()
    if child == 0:
        emit(node="child")
        os._exit(0 if handle.flush(5.0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    handle.shutdown()
    assert sorted(span.name for span in read_spans(trace_file)) == ["chat m", "chat m", "route child", "route parent"]


# ---- the console ------------------------------------------------------------------------------------------------------


def shown() -> tuple[Handle, list[CostTree]]:
    trees: list[CostTree] = []
    return configure(console=trees.append), trees


def test_a_run_is_shown_when_its_root_ends() -> None:
    handle, trees = shown()
    with trace.get_tracer(names.SCOPE).start_as_current_span("run desk", attributes={names.GRAPH: "desk"}) as root:
        emit(2, parent=root)
        handle.flush()
        before = len(trees)
    handle.shutdown()
    assert (before, [(tree.title, tree.steps, tree.cost_pico) for tree in trees]) == (0, [("desk", 2, 2 * 10**9)])


async def test_runs_at_the_same_time_do_not_mix() -> None:
    handle, trees = shown()

    async def run(name: str, steps: int) -> None:
        with trace.get_tracer(names.SCOPE).start_as_current_span("run", attributes={names.GRAPH: name}):
            for _ in range(steps):
                emit()
                await asyncio.sleep(0)

    await asyncio.gather(*[run(f"g{number}", number) for number in range(1, 20)])
    handle.shutdown(10.0)
    assert {tree.title: tree.steps for tree in trees} == {f"g{number}": number for number in range(1, 20)}


def test_a_remote_parent_does_not_keep_a_run_from_being_shown() -> None:
    handle, trees = shown()
    remote = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1)))
    emit(parent=remote)
    handle.shutdown()
    assert len(trees) == 1


def test_a_router_nodes_decision_is_shown_with_the_call_another_node_makes() -> None:
    handle, trees = shown()
    router = Router()

    class State(MessagesState):
        routing: Annotated[dict[str, Any], join]

    builder = StateGraph(State)
    builder.add_node("router", RouterNode(router, to={"cheap": "quick", "strong": "deep"}), destinations=("quick", "deep"))
    for node, name in (("quick", "claude-haiku-5-5"), ("deep", "claude-opus-5-5")):
        model = ScriptedChatModel(model_name=name, provider="anthropic", replies="open")
        builder.add_node(node, lambda state, model=model: {"messages": [model.invoke("?"), model.invoke("!")]})
    builder.add_edge(START, "router")
    observed(builder.compile(), router).invoke({"messages": [("user", "Classify as open or closed: late")]})
    handle.shutdown()
    total = router.ledger.total().cost_pico
    assert (total > 0, [tree.cost_pico for tree in trees]) == (True, [total // 2] * 2)


@pytest.mark.parametrize("decisions", [1, 100])
def test_a_decision_without_a_call_is_shown_in_the_end(decisions: int) -> None:
    handle, trees = shown()
    for _ in range(decisions):
        with Router().step(Step.from_messages("Classify as open or closed: late", node="triage")):
            pass
    handle.flush()
    before = len(trees)
    handle.shutdown()
    assert (before, len(trees)) == (max(decisions - WAITING, 0), decisions)


def test_a_decision_without_a_call_is_shown_while_nothing_else_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "PATIENCE_S", 0.2)
    seen = threading.Event()
    handle = configure(console=lambda tree: seen.set())
    with Router().step(Step.from_messages("Classify as open or closed: late", node="triage")):
        pass
    handle.flush()
    assert (seen.is_set(), seen.wait(5)) == (False, True)
    handle.shutdown()


def test_a_stopped_step_is_shown_at_once() -> None:
    handle, trees = shown()
    trace.get_tracer(names.SCOPE).start_span("route reply", attributes={names.STEP: "s", names.ATTEMPTS: 0, names.STOPPED: "stalled"}).end()
    handle.flush()
    assert [tree.rows[0].tier for tree in trees] == [""]
    handle.shutdown()


@pytest.mark.parametrize("above", ["elsewhere", names.SCOPE])
def test_a_step_that_ends_after_the_span_above_it_is_shown_all_the_same(above: str) -> None:
    handle, trees = shown()
    with trace.get_tracer("elsewhere").start_as_current_span("request"):
        over = trace.get_tracer(above).start_span("handler")
        over.end()
        emit(parent=over)
    emit(parent=over)
    handle.shutdown()
    assert sum(tree.cost_pico for tree in trees) == 2 * 10**9


def test_ending_a_span_never_blocks_the_event_loop(trace_file: Path) -> None:
    printed: list[str] = []

    class Slow(Console):
        def print(self, *objects: object, **options: object) -> None:  # type: ignore[override]
            time.sleep(0.05)
            printed.append(str(objects[0]))

    handle = configure(trace_file=trace_file, console=Slow())

    async def steps() -> float:
        began = time.perf_counter()
        emit(20)
        return time.perf_counter() - began

    with blockbuster_ctx():
        took = asyncio.run(steps())
    assert handle.shutdown(10.0)
    assert (len(printed), took < 0.5) == (20, True)


def test_a_console_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(tree: CostTree) -> None:
        raise RuntimeError("no terminal")

    handle = configure(console=broken)
    emit(2)
    assert handle.shutdown()
    assert "could not be shown" in caplog.text


def test_runs_that_never_end_are_given_up_in_time(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routed_agents.telemetry.setup.Live.__init__.__kwdefaults__", {"spans": 100})
    handle, trees = shown()
    for _ in range(100):
        emit(parent=trace.get_tracer(names.SCOPE).start_span("never ends"))
    emit(node="last")
    handle.shutdown(10.0)
    assert [tree.rows[0].name for tree in trees] == ["last"]
    assert "is not shown" in caplog.text


def test_spans_are_there_after_a_program_that_just_ends(trace_file: Path) -> None:
    code = f"""
from opentelemetry import trace
from routed_agents.telemetry import configure
configure(trace_file={str(trace_file)!r})
trace.get_tracer("routed_agents").start_span("route x").end()
"""
    import subprocess

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)
    assert [span.name for span in read_spans(trace_file)] == ["route x"]
    assert json.loads(trace_file.read_text())["resourceSpans"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"queue_size": "big"}, "queue_size is 'big'; wanted a whole number above 0"),
        ({"queue_size": 0}, "queue_size is 0; wanted a whole number above 0"),
        ({"queue_size": True}, "queue_size is True; wanted a whole number above 0"),
        ({"sampler": "always_on"}, "sampler is 'always_on'; wanted a Sampler of the OpenTelemetry SDK, or None"),
        ({"console": "stderr"}, "console is 'stderr'; wanted True, a rich Console or a function that gets the cost tree"),
        ({"trace_file": 5}, "trace_file is 5; wanted a path"),
        ({"metrics_file": 5}, "metrics_file is 5; wanted a path"),
        ({"service_name": None}, "service_name is None; wanted a text"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_and_set_nothing_up(given: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(**{"trace_file": tmp_path / "trace.jsonl", **given})
    assert str(caught.value) == told
    assert (list(tmp_path.iterdir()), trace._TRACER_PROVIDER) == ([], None)


@pytest.mark.parametrize("name", ["otlp_endpoint", "metrics_endpoint"])
@pytest.mark.parametrize(("given", "seen"), [("localhost:6006", "localhost:6006"), ("me:secret@h", "h"), ("", "(empty)"), (5, "5")])
def test_an_endpoint_that_is_no_http_address_is_refused(name: str, given: Any, seen: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(**{name: given})
    assert str(caught.value) == f"endpoint {seen} is no HTTP address; wanted one like http://localhost:6006"


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]
)
def test_an_endpoint_of_the_environment_that_is_no_http_address_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "localhost:4318")
    with pytest.raises(ConfigurationError, match="endpoint localhost:4318 is no HTTP address"):
        configure()
