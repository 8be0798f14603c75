"""A backend that is dead, refusing, silent, slow or overloaded costs the caller nothing but the spans it lost, and those are counted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from langchain_core.runnables.config import ContextThreadPoolExecutor
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.util._once import Once

from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry, configure
from routed_agents.telemetry.setup import Handle

from . import backends

REPLY = {"model": "claude-haiku-5-5", "content": [{"type": "text", "text": "yes"}], "usage": {"input_tokens": 30, "output_tokens": 5}}
STEPS, ROUNDS = 200, 7
TOTAL = STEPS * ROUNDS
DOWN = [backends.refusing, backends.resetting, backends.black_hole, backends.slow, backends.overloaded]


@pytest.fixture(autouse=True)
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process where nobody has set a provider yet."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


def routed(provider: trace.TracerProvider | None = None) -> Router:
    return Router(Policy.default(), ledger=Ledger.memory(), telemetry=Telemetry(tracer_provider=provider))


def sending_to(url: str) -> tuple[Router, Handle]:
    """A router of its own whose spans go to this backend, by the output that `configure` sets up."""
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    handle = configure(otlp_endpoint=url)
    return routed(handle.provider), handle


def step(router: Router) -> None:
    with router.step(Step.from_messages("x", task_class="classification", node="n")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(REPLY)


def timed(router: Router) -> float:
    began = time.perf_counter()
    step(router)
    return time.perf_counter() - began


@pytest.mark.parametrize("down", DOWN, ids=lambda each: each.__name__)
def test_a_backend_that_is_down_delays_no_step_and_no_exit_and_loses_nothing_unseen(
    down: Callable[[], AbstractContextManager[str]],
) -> None:
    ratios: list[tuple[float, float]] = []
    with backends.backend() as up, down() as url:
        (fine, healthy), (hurt, dead) = sending_to(up.url), sending_to(url)
        for _ in range(ROUNDS):  # turn about, so that whatever else the machine does meets both alike
            both = [(timed(fine), timed(hurt)) for _ in range(STEPS)]
            good, bad = (sorted(each) for each in zip(*both, strict=True))
            ratios.append((bad[STEPS // 2] / good[STEPS // 2], bad[int(STEPS * 0.99)] / good[int(STEPS * 0.99)]))
        assert healthy.shutdown(10.0)
        assert (sum(up.spans.values()), max(up.spans.values())) == (2 * TOTAL, 1)
        began = time.monotonic()
        done = dead.shutdown()
        took = time.monotonic() - began
        arrived = 2 * TOTAL - dead.dropped  # a slow backend may have taken some before the end
        assert (done, hurt.ledger.total().attempts) == (False, TOTAL)
        assert arrived == 0 or (down is backends.slow and arrived < 2 * TOTAL)
        assert took < 5  # bounded at 2 s; the SDK's own takes 30
    p50, p99 = (sorted(each)[ROUNDS // 2] for each in zip(*ratios, strict=True))
    print(f"p50 {p50:.2f}, p99 {p99:.2f} of healthy; shutdown {took:.2f} s")  # noqa: T201
    assert p50 < 3  # a caller that waits for the backend takes a hundred times as long; the figure itself is printed, not asserted


def test_spans_that_a_backend_refused_of_a_request_it_took_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with backends.backend(refused=3) as full:
        router, handle = sending_to(full.url)
        for _ in range(2):
            step(router)
        assert (handle.flush(), handle.dropped, handle.shutdown()) == (False, 3, False)
    assert caplog.messages == ["a backend refused 3 spans of a request that it took"]


def test_a_backend_cannot_refuse_more_than_it_was_sent() -> None:
    with backends.backend(refused=10**9) as full:
        router, handle = sending_to(full.url)
        step(router)
        assert (handle.shutdown(), handle.dropped) == (False, 2)


def test_dropped_spans_are_in_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
    with backends.black_hole() as url:
        handle = configure(otlp_endpoint=url)
        step(routed())
        handle.shutdown(0.3)
    data = reader.get_metrics_data()
    assert data is not None
    found = [
        (point.value, dict(point.attributes))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "routed_agents.dropped"
        for point in metric.data.data_points
    ]
    assert found == [(2, {"what": "spans"})]
    reader.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_on_a_connection_of_its_own_and_nothing_arrives_twice() -> None:
    with backends.backend() as up:
        handle = configure(otlp_endpoint=up.url)
        router = routed()
        step(router)
        assert handle.flush()
        step(router)  # may still be queued when the child is born
        child = os.fork()
        if child == 0:
            for _ in range(20):
                step(router)
            os._exit(0 if handle.flush(10.0) else 1)
        for _ in range(20):
            step(router)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert handle.shutdown()
        assert (sum(up.spans.values()), max(up.spans.values())) == (2 * 42, 1)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ContextThreadPoolExecutor])
def test_in_a_thread_pool_every_leaf_keeps_its_route_and_the_route_its_parent_where_the_pool_carries_it(
    pool: type[ThreadPoolExecutor],
) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    router = Router(Policy.default(), ledger=Ledger.memory(), telemetry=Telemetry(tracer_provider=provider))
    with provider.get_tracer("app").start_as_current_span("outer") as outer, pool(4) as threads:
        list(threads.map(lambda _: step(router), range(40)))
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    routes = [span for span in spans.values() if span.name == "route n"]
    leaves = [span for span in spans.values() if span.name.startswith("chat ")]
    assert (len(routes), len(leaves), len({leaf.parent.span_id for leaf in leaves})) == (40, 40, 40)
    assert all(spans[leaf.parent.span_id].name == "route n" for leaf in leaves)
    parents = {route.parent.span_id if route.parent else None for route in routes}
    assert parents == ({outer.get_span_context().span_id} if pool is ContextThreadPoolExecutor else {None})
