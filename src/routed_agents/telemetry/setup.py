"""Sets up an OpenTelemetry SDK for people who have none."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

from routed_agents.errors import ConfigurationError, ExtraMissing
from routed_agents.forking import when_over
from routed_agents.telemetry import metering, names
from routed_agents.telemetry.appending import SpanFile, place_of
from routed_agents.telemetry.dialects import Dialect, chosen, told
from routed_agents.telemetry.endpoints import asked_by, metrics_asked_by, public, whole
from routed_agents.telemetry.instruments import instruments_of
from routed_agents.telemetry.metering import MetricOutput
from routed_agents.telemetry.providers import tracers
from routed_agents.telemetry.runs import Branch, Run, SpanRecord, Status, run_of
from routed_agents.telemetry.trees import CostTree, cost_tree

if TYPE_CHECKING:
    from rich.console import Console

    from routed_agents.telemetry.sending import SpanSender

QUEUE: Final = 50_000
"""Ended spans that may wait to be written. The SDK's 2,048 lost 3,072 of a burst of 5,000."""
BATCH: Final = 512
GATHER_S: Final = 0.2
"""How long the first span of a batch waits for others."""
SHUTDOWN_S: Final = 1.8
"""How long the end of a program may wait for its outputs; with what closing them takes it stays under 2 s. The SDK's takes 30 s."""
LIVE_SPANS: Final = 20_000
"""Spans of unfinished runs that are held for the console; beyond it the oldest run is given up."""
WAITING: Final = 64
"""Decisions that are held for the console until the call they were made for has ended."""
PATIENCE_S: Final = 10.0
"""How long each of them is; a call that takes longer is shown by itself, and a decision that no call follows is not kept back for good."""
DEFAULT_SERVICE: Final = "routed-agents"
UNNAMED: Final = "unknown_service"
"""How the SDK begins the name of a service that nobody named."""
DROPPED: Final = "routed_agents.dropped"
Each = TypeVar("Each")
Deliver = Callable[[Sequence[ReadableSpan]], int]
"""Takes a batch; gives how many of it could not be delivered."""

log: Final = logging.getLogger("routed_agents")


def configure(
    *,
    trace_file: str | Path | None = None,
    console: Callable[[CostTree], object] | Console | bool = False,
    otlp_endpoint: str | None = None,
    metrics_file: str | Path | None = None,
    metrics_endpoint: str | None = None,
    dialects: Sequence[str] = (),
    service_name: str = DEFAULT_SERVICE,
    sampler: Sampler | None = None,
    queue_size: int = QUEUE,
) -> Handle:
    """Set up tracing and metrics for this process. A provider that is already set stays as it is, and the handle says so.

    Asked for no output, it goes by the standard variables: OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, which are used as they are, with OTEL_TRACES_EXPORTER to say `otlp`, `console` or `none`, and
    OTEL_METRICS_EXPORTER to say `otlp` or `none`. OTEL_SDK_DISABLED turns all of it off; headers, sampler, service name, resource
    attributes and how often metrics are sent (OTEL_METRIC_EXPORT_INTERVAL, in milliseconds; a minute) are the SDK's to read.

    Calling it again adds outputs to the providers it made, as a notebook's cell does that is run again: one that is there already (the
    same file, address or console) stays as it is, and is open until every handle to it is shut down. Service name and sampler stay the
    first call's. What is left to write when the program ends is written then, for two seconds at most.

    Args:
        trace_file: where to append spans as OTLP JSON lines; `offline.traces` and DuckDB read them. Where a file was moved or removed, what
            comes next begins a new one.
        console: print the cost tree of each finished run: True for stderr, a rich console, or a function that gets the tree.
        otlp_endpoint: a collector or backend that takes spans by OTLP over HTTP, such as http://localhost:4318; needs the extra `otlp`.
        metrics_file: where to append metrics as OTLP JSON lines.
        metrics_endpoint: one that takes metrics; backends for traces alone, such as Phoenix, do not.
        dialects: add the attributes these backends read cost from (see `telemetry.dialects`); the core set when not given.
        service_name: what the process is called in traces and metrics, unless OTEL_SERVICE_NAME says otherwise; when not given,
            `service.name` in OTEL_RESOURCE_ATTRIBUTES counts too.
        sampler: which traces are kept; all when not given.
        queue_size: ended spans that may wait for each output; more are dropped and counted.

    Raises:
        ConfigurationError: an argument cannot be meant, a file cannot be opened, an endpoint is no HTTP address or its extra is missing, a
            dialect is unknown, or the environment asks for an exporter or a protocol that is not here.
    """
    speaks = chosen(dialects)
    _check(
        trace_file=trace_file,
        metrics_file=metrics_file,
        console=console,
        service_name=service_name,
        sampler=sampler,
        queue_size=queue_size,
    )
    if otlp_endpoint is not None:
        otlp_endpoint = whole(otlp_endpoint, "traces")
    if metrics_endpoint is not None:
        metrics_endpoint = whole(metrics_endpoint, "metrics")
    current = tracers()
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Handle(provider=current, outputs=(), note="OTEL_SDK_DISABLED is true: nothing was set up")
    mine = current if isinstance(current, TracerProvider) and current in _MADE else None
    theirs = "" if mine is not None or isinstance(current, trace.ProxyTracerProvider) else type(current).__name__
    counting = metering.taken()
    spans, counts = bool(trace_file or otlp_endpoint or console), bool(metrics_file or metrics_endpoint)
    by_environment = not spans and not counts
    if by_environment and not theirs:
        otlp_endpoint, console = asked_by(os.environ)
    if by_environment and not counting:
        metrics_endpoint = metrics_asked_by(os.environ)
    notes = list[str]()
    if theirs and (spans or by_environment):
        notes.append(f"a tracer provider is already set ({theirs}): spans go where it sends them, and configure added nothing")
    if counting and counts:
        notes.append(f"a meter provider is already set ({counting}): metrics go where it sends them, and configure added nothing")
    for note in notes:
        log.warning("%s", note)

    resource = partial(_resource, service_name)
    outputs = [] if theirs else _outputs(trace_file, console, otlp_endpoint, queue_size, speaks, known=_MADE.get(mine, ()) if mine else ())
    counted = [] if counting else metering.set_up(metrics_file, metrics_endpoint, resource)
    if outputs:
        if mine is None:
            mine = TracerProvider(resource=resource(), sampler=sampler, shutdown_on_exit=False)
            _MADE[mine] = []
            trace.set_tracer_provider(mine)
        for output in outputs:
            if output not in _MADE[mine]:
                _MADE[mine].append(output)
                mine.add_span_processor(output)
    elif not counted and not notes:
        notes.append("no output was asked for, by argument or OTEL_EXPORTER_OTLP_ENDPOINT: spans go nowhere")
    return Handle(provider=mine or current, outputs=outputs, metrics=counted, note="; ".join(notes))


_MADE: Final[weakref.WeakKeyDictionary[TracerProvider, list[Output]]] = weakref.WeakKeyDictionary()
"""The providers made here, each with its outputs."""


def _resource(service_name: str) -> Resource:
    """What the environment says of this process; and its name, unless OTEL_SERVICE_NAME or, where nobody chose one, its attributes do."""
    said = Resource.create()
    if os.environ.get(OTEL_SERVICE_NAME):
        return said
    if service_name == DEFAULT_SERVICE and not str(said.attributes[SERVICE_NAME]).startswith(UNNAMED):
        return said
    return said.merge(Resource({SERVICE_NAME: service_name}))


def sent(endpoint: str, spans: Sequence[ReadableSpan], *, timeout_s: float = SHUTDOWN_S) -> int:
    """Send spans to this OTLP address now; returns how many did not get there in time.

    Raises:
        ConfigurationError: the extra for the endpoint is missing.
    """
    output = _output(lambda: _otlp(endpoint), len(spans) + 1, ())
    for span in spans:
        output.on_end(span)
    output.close(timeout_s)
    return output.dropped


class Handle:
    """What `configure` set up; flush it where spans must be on disk, and shut it down at the end or leave that to the exit.

    Attributes:
        provider: the tracer provider in force.
        active: spans and metrics go to the outputs asked for.
        note: why they do not, when somebody else had set a provider.
    """

    def __init__(
        self, *, provider: trace.TracerProvider, outputs: Sequence[Output], metrics: Sequence[MetricOutput] = (), note: str = ""
    ) -> None:
        self.provider = provider
        self.active = not note
        self.note = note
        self._outputs = tuple(outputs)
        self._metrics = tuple(metrics)
        if outputs or metrics:
            _OPEN.append(self)

    @property
    def dropped(self) -> int:
        """Spans that did not reach an output they should have reached."""
        return sum(output.dropped for output in self._outputs)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until every span ended so far, and what was counted, has reached its outputs; False when some has not, in time or at all."""
        end = time.monotonic() + timeout_s
        done = [output.flush(max(end - time.monotonic(), 0)) for output in (*self._outputs, *self._metrics)]
        return all(done)

    def shutdown(self, timeout_s: float = SHUTDOWN_S) -> bool:
        """Flush the outputs, and close those no other handle has, within the time whatever the backends do; False when spans or counts
        were left."""
        return _shut_down([self], timeout_s)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()


_OPEN: Final[list[Handle]] = []
"""What is shut down when the program ends: all at once, for each may have a backend that keeps it waiting."""


def _shut_down(handles: Sequence[Handle], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    _OPEN[:] = [handle for handle in _OPEN if handle not in handles]
    outputs, shared = _parted(handles, lambda handle: handle._outputs)  # pyright: ignore[reportPrivateUsage]
    counted, counted_on = _parted(handles, lambda handle: handle._metrics)  # pyright: ignore[reportPrivateUsage]
    for output in outputs:
        output.stop()
    kept = timeout_s / 4 if counted or counted_on else 0.0  # for the metrics, which come last, for they tell which spans were dropped
    done = [output.close(max(end - kept - time.monotonic(), 0)) for output in outputs]
    done += [output.flush(max(end - kept - time.monotonic(), 0)) for output in shared]
    done += [output.flush(max(end - time.monotonic(), 0)) for output in counted_on]
    return metering.closed(counted, max(end - time.monotonic(), 0)) and all(done)


def _parted(handles: Sequence[Handle], of: Callable[[Handle], Sequence[Each]]) -> tuple[list[Each], list[Each]]:
    """The outputs of handles, each once: those that no open handle has besides, and the others."""
    outputs = dict.fromkeys([output for handle in handles for output in of(handle)])
    elsewhere = {output for handle in _OPEN for output in of(handle)}
    return [output for output in outputs if output not in elsewhere], [output for output in outputs if output in elsewhere]


def _at_exit() -> None:
    _shut_down(list(_OPEN), SHUTDOWN_S)


when_over(_at_exit)


class Output(SpanProcessor):
    """Hands ended spans to a thread that delivers them; ending a span never waits, on whatever thread or event loop.

    The SDK's own batch processor cannot say what it dropped, flushes without bound and reports success, and takes 30 s to
    shut down when a backend is dead.

    Args:
        deliver: takes a batch on the thread; gives how many of it could not be delivered.
        finish: called when no more batches come.
        renew: gives another `deliver` and `finish` to a forked child, which must not talk on its parent's connections.
        sampled_only: leave out spans that are recorded, but not sampled.
        due: seconds after which `deliver` is called even if no span has ended; None for never.
        to: where it delivers to.
    """

    def __init__(
        self,
        deliver: Deliver,
        *,
        finish: Callable[[], object] = lambda: None,
        renew: Callable[[], tuple[Deliver, Callable[[], object]]] | None = None,
        size: int = QUEUE,
        gather_s: float = GATHER_S,
        sampled_only: bool = True,
        due: Callable[[], float | None] = lambda: None,
        to: object = None,
    ) -> None:
        self.to = to
        self._due = due
        self._deliver = deliver
        self._finish = finish
        self._renew = renew
        self._lost = instruments_of(None).counters[DROPPED]
        self._size = size
        self._gather_s = gather_s
        self._sampled_only = sampled_only
        self._start()
        if hasattr(os, "register_at_fork"):
            restart = weakref.WeakMethod(self._after_fork)
            os.register_at_fork(after_in_child=lambda: (again := restart()) and again())

    def _after_fork(self) -> None:
        if not self._stopping:
            if self._renew is not None:
                self._deliver, self._finish = self._renew()
            self._start()  # the thread stayed in the parent, which also delivers what was queued

    def _start(self) -> None:
        self.dropped = self._told = self._in_hand = 0
        self._queue: queue.SimpleQueue[ReadableSpan | threading.Event | None] = queue.SimpleQueue()
        self._counting = threading.Lock()
        self._stopping = self._giving_up = False
        self._thread = threading.Thread(target=self._work, name="routed-agents-spans", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """It takes no more spans."""
        return self._stopping

    def on_end(self, span: ReadableSpan) -> None:
        """Take an ended span."""
        if self._stopping or (self._sampled_only and not (span.context and span.context.trace_flags.sampled)):
            return
        if self._queue.qsize() >= self._size:
            self._drop(1)
        else:
            self._queue.put(span)

    def flush(self, timeout_s: float) -> bool:
        """Wait for what is queued; False when some of it did not get through."""
        if self._stopping:
            return not self._thread.is_alive() and not self.dropped
        before, reached = self.dropped, threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout_s) and self.dropped == before

    def stop(self) -> None:
        """Take no more spans, and let the thread end when it has delivered what it has."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)

    def close(self, timeout_s: float) -> bool:
        """Stop, and wait for the thread; what it could not deliver in time counts as dropped."""
        self.stop()
        self._thread.join(timeout_s)
        left = sum(isinstance(item, ReadableSpan) for item in _drained(self._queue))
        if not self._thread.is_alive():
            self._drop(left)
            self._tell()
            return not self.dropped
        with self._counting:
            self._giving_up = True
            left, self._in_hand = left + self._in_hand, 0
        self._drop(left)
        self._tell()
        # An exporter may sit in a request or in a retry; closing it from here can wait as long as that.
        threading.Thread(target=self._finish, daemon=True).start()
        return False

    def shutdown(self) -> None:
        """What the SDK calls when the provider is shut down."""
        self.close(SHUTDOWN_S)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """What the SDK calls when the provider is flushed."""
        return self.flush(timeout_millis / 1000)

    def _drop(self, spans: int) -> None:
        with self._counting:
            self.dropped += spans

    def _tell(self) -> None:
        """Put what was dropped into the metrics; by the thread, for it costs as much as a span."""
        with self._counting:
            lost, self._told = self.dropped - self._told, self.dropped
        if lost:
            try:
                self._lost.add(lost, {"what": "spans"})
            except Exception:
                log.error("%d spans were dropped, and that could not be put into the metrics", lost)

    def _work(self) -> None:
        # a backend's client may be instrumented, and must not make spans out of sending spans
        otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))  # pyright: ignore[reportPrivateUsage]
        going = True
        while going and not self._giving_up:
            batch, marks, going = self._gather()
            self._in_hand = len(batch)
            try:
                lost = self._deliver(batch) if batch or self._due() == 0 else 0
            except Exception as trouble:  # its text may hold what the spans hold
                log.error("%d spans could not be delivered: %s", len(batch), type(trouble).__name__)
                lost = len(batch)
            with self._counting:
                lost, self._in_hand = min(lost, self._in_hand), 0  # nothing is in hand any more once `close` gave up
            self._drop(lost)
            self._tell()
            for mark in marks:
                mark.set()
        if not self._giving_up:
            self._finish()

    def _gather(self) -> tuple[list[ReadableSpan], list[threading.Event], bool]:
        """The next batch, who waits for it, and whether more may come."""
        batch, marks = list[ReadableSpan](), list[threading.Event]()
        end: float | None = None
        while len(batch) < BATCH:
            try:
                item = self._queue.get(timeout=self._due() if end is None else max(end - time.monotonic(), 0))
            except queue.Empty:
                break
            if item is None:
                return batch, marks, False
            if isinstance(item, threading.Event):
                marks.append(item)
                break
            batch.append(item)
            end = end or time.monotonic() + self._gather_s
        return batch, marks, True


def _drained(source: queue.SimpleQueue[ReadableSpan | threading.Event | None]) -> list[object]:
    items: list[object] = []
    while True:
        try:
            items.append(source.get_nowait())
        except queue.Empty:
            return items


def _outputs(
    trace_file: str | Path | None,
    console: Callable[[CostTree], object] | Console | bool,
    endpoint: str | None,
    size: int,
    dialects: Sequence[Dialect],
    *,
    known: Sequence[Output],
) -> list[Output]:
    """The outputs asked for; of those that are known and open the known ones."""
    wanted: list[tuple[object, Callable[[], Output]]] = []
    if endpoint is not None:
        wanted.append((endpoint, lambda: _output(lambda: _otlp(endpoint), size, dialects, to=endpoint)))
    if trace_file is not None:
        path = place_of(trace_file, "trace_file")
        wanted.append((path, lambda: _output(lambda: _file(path), size, dialects, to=path)))
    if console:
        wanted.append((_screen(console), lambda: _live(console, size)))
    return [next((each for each in known if each.to == to and not each.stopped), None) or make() for to, make in wanted]


def _screen(console: Callable[[CostTree], object] | Console | bool) -> object:
    """Where a console writes: consoles made anew for one file are one."""
    return getattr(console, "file", console)


def _live(console: Callable[[CostTree], object] | Console | bool, size: int) -> Output:
    live = Live(_printer(console))
    return Output(live.take, finish=live.close, size=size, gather_s=0.0, sampled_only=False, due=live.due, to=_screen(console))


def _output(make: Callable[[], SpanFile | SpanSender], size: int, dialects: Sequence[Dialect], *, to: object = None) -> Output:
    def connected() -> tuple[Deliver, Callable[[], object]]:
        exporter = make()

        def deliver(batch: Sequence[ReadableSpan]) -> int:
            spans = [told(span, dialects) for span in batch] if dialects else batch
            return exporter.refused if exporter.export(spans) is SpanExportResult.SUCCESS else len(batch)

        return deliver, exporter.shutdown

    deliver, finish = connected()
    return Output(deliver, finish=finish, renew=connected, size=size, to=to)


def _file(path: Path) -> SpanFile:
    try:
        return SpanFile(path)
    except OSError as error:
        raise ConfigurationError(f"trace_file {path} cannot be opened: {error}; wanted a path that can be written") from error


def _otlp(endpoint: str) -> SpanSender:
    try:
        from routed_agents.telemetry.sending import SpanSender
    except ImportError as error:
        raise ExtraMissing(f"otlp_endpoint {public(endpoint)} needs an exporter that isn't installed", "otlp") from error
    return SpanSender(endpoint)


def _is_path(given: object) -> bool:
    return given is None or isinstance(given, (str, os.PathLike))


def _shows(given: object) -> bool:
    return not given or given is True or callable(given) or callable(getattr(given, "print", None))


FITS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = MappingProxyType(
    {
        "trace_file": (_is_path, "a path"),
        "metrics_file": (_is_path, "a path"),
        "console": (_shows, "True, a rich Console or a function that gets the cost tree"),
        "service_name": (lambda given: isinstance(given, str), "a text"),
        "sampler": (lambda given: given is None or isinstance(given, Sampler), "a Sampler of the OpenTelemetry SDK, or None"),
        "queue_size": (lambda given: type(given) is int and given > 0, "a whole number above 0"),
    }
)
"""What each argument of `configure` must be."""


def _check(**arguments: object) -> None:
    for name, given in arguments.items():
        fits, wanted = FITS[name]
        if not fits(given):
            raise ConfigurationError(f"{name} is {given!r}; wanted {wanted}")


def _printer(console: Callable[[CostTree], object] | Console | bool) -> Callable[[CostTree], object]:
    if console is True:
        from rich.console import Console as RichConsole

        return RichConsole(stderr=True).print
    if hasattr(console, "print"):
        return cast("Console", console).print
    return cast("Callable[[CostTree], object]", console)


class Live:
    """Collects spans until a run's root ends, and shows its cost tree then; belongs to one thread.

    A parent ends after its children, so a foreign span is kept only when one of ours hangs below it. What ends later than the span above
    it, as a stream may, is shown by itself; a decision whose call another node makes is shown with that call, if it ends in time.
    """

    def __init__(self, show: Callable[[CostTree], object], *, spans: int = LIVE_SPANS) -> None:
        self._show = show
        self._most = spans
        self._held = 0
        self._runs: OrderedDict[str, dict[str, SpanRecord]] = OrderedDict()
        self._parents: dict[str, set[str | None]] = {}
        self._decisions: OrderedDict[str | None, tuple[SpanRecord, float]] = OrderedDict()
        self._gone: OrderedDict[str | None, None] = OrderedDict()

    def take(self, batch: Sequence[ReadableSpan]) -> int:
        """Take spans in the order they ended; none is lost on the way."""
        for span in batch:
            record = record_of(span)
            if not self._kept(record):
                self._let_go(record)
            elif (top := self._top(record)) is not None:
                self._finish(top)
            if self._held > self._most:
                oldest, held = next(iter(self._runs.items()))
                self._forget(oldest, held)
                log.warning("more than %d spans of unfinished runs: the cost tree of trace %s is not shown", self._most, oldest)
        while self.due() == 0:
            self._finish(self._longest_waiting())
        return 0

    def due(self) -> float | None:
        """Seconds until a decision that is still without a call is shown; None while there is none."""
        _, since = next(iter(self._decisions.values()), (None, None))
        return None if since is None else max(since + PATIENCE_S - time.monotonic(), 0)

    def close(self) -> None:
        """Show the decisions that are still without a call."""
        while self._decisions:
            self._finish(self._longest_waiting())

    def _longest_waiting(self) -> SpanRecord:
        _, (decision, _) = self._decisions.popitem(last=False)
        return decision

    def _kept(self, record: SpanRecord) -> bool:
        parents = self._parents.get(record.trace_id, ())
        if not record.ours and record.span_id not in parents:
            return False
        self._runs.setdefault(record.trace_id, {})[record.span_id] = record
        self._parents.setdefault(record.trace_id, set()).add(record.parent_id)
        self._held += 1
        return True

    def _let_go(self, record: SpanRecord) -> None:
        self._gone[record.span_id] = None
        if len(self._gone) > self._most:
            self._gone.popitem(last=False)

    def _top(self, record: SpanRecord) -> SpanRecord | None:
        """The top of the tree that is whole with this span, if one is."""
        if (called := self._decisions.pop(record.parent_id, None)) is not None:
            return called[0]
        if not record.is_root and record.parent_id not in self._gone:
            return None
        if not _awaits_call(record):
            return record
        self._decisions[record.span_id] = (record, time.monotonic())
        return self._longest_waiting() if len(self._decisions) > WAITING else None

    def _finish(self, root: SpanRecord) -> None:
        held = self._runs.get(root.trace_id, {})
        under = next((branch for branch in run_of(held.values()).roots if branch.span.span_id == root.span_id), None) if held else None
        if under is None:
            return
        for span in under.walk():
            del held[span.span_id]
            self._let_go(span)
            self._held -= 1
        if not held:
            self._forget(root.trace_id, held)
        self._print(under)

    def _forget(self, trace_id: str, held: dict[str, SpanRecord]) -> None:
        self._held -= len(held)
        del self._runs[trace_id], self._parents[trace_id]

    def _print(self, under: Branch) -> None:
        try:
            tree = cost_tree(Run(trace_id=under.span.trace_id, roots=(under,)))
            if tree is not None:
                self._show(tree)
        except Exception as trouble:
            log.error("the cost tree of a run could not be shown: %s", type(trouble).__name__)


def _awaits_call(record: SpanRecord) -> bool:
    """Whether it is a decision that somebody else makes the call for, as a router node's is."""
    found = record.attributes
    return found.get(names.ATTEMPTS) == 0 and names.STOPPED not in found and names.ERROR_TYPE not in found


def record_of(span: ReadableSpan) -> SpanRecord:
    """A span of this process in the form a trace file gives it."""
    own = span.get_span_context()
    parent = span.parent
    return SpanRecord(
        trace_id=f"{own.trace_id:032x}" if own else "",
        span_id=f"{own.span_id:016x}" if own else "",
        parent_id=f"{parent.span_id:016x}" if parent else None,
        is_root=parent is None or parent.is_remote,
        name=span.name,
        kind=span.kind.name.lower(),
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        status=cast("Status", span.status.status_code.name.lower()),
        message=span.status.description or "",
        attributes=MappingProxyType(dict(span.attributes or {})),
        resource=MappingProxyType(dict(span.resource.attributes)),
    )
