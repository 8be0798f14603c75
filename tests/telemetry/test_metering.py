"""configure sets metrics up for those who have none; what they say is what the ledger says, and no backend holds an exit up."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider

from routed_agents import Policy, Router, Step
from routed_agents.errors import ConfigurationError
from routed_agents.ledger import Ledger
from routed_agents.telemetry import Telemetry, configure
from routed_agents.telemetry.endpoints import metrics_asked_by, whole

from . import backends


@pytest.fixture(autouse=True)
def alone(no_provider: None) -> None:
    """As in a process where nobody has set a provider yet."""


def work(router: Router | None = None, *, steps: int = 3) -> Router:
    router = router or Router(Policy.default(), ledger=Ledger.memory())
    for _ in range(steps):
        with router.step(Step.from_messages("x", task_class="classification")) as call:
            for attempt in call.attempts():
                with attempt:
                    usage = {"input_tokens": 30, "output_tokens": 5}
                    attempt.record({"model": attempt.model, "role": "assistant", "content": "yes", "usage": usage})
    return router


def spent(router: Router) -> float:
    return float(sum(entry.cost.usd for entry in router.ledger.entries() if entry.cost is not None))


def points(file: Path, name: str) -> list[dict[str, Any]]:
    """The data points of a counter in the last export of a file."""
    told = json.loads(file.read_text().splitlines()[-1])
    scopes = [scope for process in told["resourceMetrics"] for scope in process["scopeMetrics"]]
    return [point for scope in scopes for metric in scope["metrics"] if metric["name"] == name for point in metric["sum"]["dataPoints"]]


def told_cost(file: Path) -> float:
    return sum(point["asDouble"] for point in points(file, "routed_agents.cost"))


def test_a_file_says_what_the_ledger_says(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "metrics.jsonl"
    with configure(metrics_file=file, service_name="desk") as handle:
        router = work()
        assert (handle.active, handle.flush()) == (True, True)
        work(router)
    assert told_cost(file) == pytest.approx(spent(router), abs=1e-12)
    resource = json.loads(file.read_text().splitlines()[-1])["resourceMetrics"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "desk"}} in resource


def test_a_file_that_is_moved_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with configure(metrics_file=file) as handle:
        router = work()
        assert handle.flush()
        file.rename(tmp_path / "old.jsonl")
        work(router)
    assert told_cost(file) == pytest.approx(spent(router), abs=1e-12)


def test_metrics_alone_leave_the_tracer_provider_to_others(tmp_path: Path) -> None:
    theirs = trace.get_tracer_provider()
    with configure(metrics_file=tmp_path / "m.jsonl") as handle:
        assert (trace.get_tracer_provider(), handle.provider, handle.note) == (theirs, theirs, "")


def test_an_endpoint_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with backends.backend() as up:
        handle = configure(metrics_endpoint=up.url)
        router = work()
        assert handle.shutdown()
    assert sum(point.as_double for point in up.metrics["routed_agents.cost"]) == pytest.approx(spent(router), abs=1e-12)


@pytest.mark.parametrize(("exporter", "told"), [(None, True), ("otlp", True), ("none", False)])
def test_the_standard_variables_send_spans_and_metrics(monkeypatch: pytest.MonkeyPatch, exporter: str | None, told: bool) -> None:
    with backends.backend() as up:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", up.url)
        if exporter is not None:
            monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
        handle = configure()
        work()
        assert handle.shutdown()
    assert (sum(up.spans.values()), "routed_agents.cost" in up.metrics) == (6, told)


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, "http://h:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://h/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o"}, "http://h/x"),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, "http://localhost:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "http://h/v1/metrics"),
    ],
)
def test_where_the_variables_send_metrics(env: dict[str, str], wanted: str | None) -> None:
    assert metrics_asked_by(env) == wanted


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_METRICS_EXPORTER": "prometheus"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://h:4317", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
    ],
)
def test_what_is_not_here_is_said(env: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="known here"):
        metrics_asked_by(env)


def test_a_meter_provider_somebody_set_stays_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = MeterProvider(shutdown_on_exit=False)
    metrics.set_meter_provider(theirs)
    handle = configure(metrics_file=tmp_path / "m.jsonl")
    assert (metrics.get_meter_provider(), handle.active, (tmp_path / "m.jsonl").exists()) == (theirs, False, False)
    assert "meter provider is already set (MeterProvider)" in handle.note
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")  # for them to hear
    assert configure().note.startswith("no output was asked for")


def test_configuring_twice_adds_an_output(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = configure(metrics_file=one)
    second = configure(metrics_file=two)
    router = work()
    first.shutdown()
    before = spent(router)
    work(router)
    second.shutdown()
    assert [told_cost(one), told_cost(two)] == pytest.approx([before, spent(router)], abs=1e-12)


def test_a_file_that_is_named_again_gets_its_metrics_once(tmp_path: Path) -> None:
    with configure(metrics_file=tmp_path / "m.jsonl") as first, configure(metrics_file=tmp_path / "m.jsonl") as again:
        router = work()
        assert first._metrics == again._metrics
    assert told_cost(tmp_path / "m.jsonl") == pytest.approx(spent(router), abs=1e-12)


def test_routers_without_a_meter_provider_leave_nothing_behind_and_count_once_there_is_one(tmp_path: Path) -> None:
    routers = [Router(Policy.default(), ledger=Ledger.memory()) for _ in range(5)]
    assert len(metrics_internal._PROXY_METER_PROVIDER._meters) == 1
    with configure(metrics_file=tmp_path / "m.jsonl"):
        routers.append(Router(Policy.default(), ledger=Ledger.memory()))
        for router in routers:
            work(router)
    assert told_cost(tmp_path / "m.jsonl") == pytest.approx(sum(spent(router) for router in routers), abs=1e-12)


def test_backends_that_never_answer_hold_an_exit_up_for_as_long_as_allowed() -> None:
    with backends.black_hole() as url:
        handle = configure(otlp_endpoint=url, metrics_endpoint=url)
        work()
        began = time.monotonic()
        assert not handle.shutdown(1.0)
        assert time.monotonic() - began < 2.0


def test_a_refusing_backend_is_told_of_by_flush_and_shutdown() -> None:
    with backends.backend(status=400) as up:
        handle = configure(metrics_endpoint=up.url)
        work()
        assert (handle.flush(), handle.shutdown()) == (False, False)


def test_what_a_backend_refused_of_a_request_it_took_is_told_of_by_flush_and_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    with backends.backend(refused=4) as full:
        handle = configure(metrics_endpoint=full.url)
        work()
        assert (handle.flush(), handle.shutdown()) == (False, False)
    assert caplog.messages[0] == "a backend refused 4 data points of a request that it took"


def test_spans_dropped_at_the_end_are_in_the_last_metrics(tmp_path: Path) -> None:
    with backends.black_hole() as url:
        handle = configure(otlp_endpoint=url, metrics_file=tmp_path / "m.jsonl")
        work()
        handle.shutdown(1.0)
    assert [int(point["asInt"]) for point in points(tmp_path / "m.jsonl", "routed_agents.dropped")] == [6]


def test_lost_ledger_entries_are_in_the_metrics_once_whoever_shares_the_ledger(tmp_path: Path) -> None:
    file, path = tmp_path / "m.jsonl", tmp_path / "costs.db"
    ledger = Ledger(path, backlog=5, busy_s=0.05)
    with configure(metrics_file=file), closing(sqlite3.connect(path, isolation_level=None)) as other:
        routers = [Router(ledger=ledger), Router(ledger=ledger), Router(ledger=ledger, telemetry=Telemetry.off())]
        other.execute("BEGIN IMMEDIATE")
        for router in routers:
            work(router, steps=5)
        assert not ledger.flush(0.3)
        other.execute("ROLLBACK")
        ledger.close()
        work(routers[0], steps=2)
    assert (ledger.lost, sum(int(point["asInt"]) for point in points(file, "routed_agents.dropped"))) == (12, 12)


def test_a_missing_extra_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    monkeypatch.delitem(sys.modules, "routed_agents.telemetry.sending", raising=False)
    with pytest.raises(ConfigurationError, match=r"metrics_endpoint http://h/v1/metrics needs .* pip install '\.\[otlp\]'"):
        configure(metrics_endpoint="http://me:secret@h")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for name in ("", "a\0b"):
        with pytest.raises(ConfigurationError, match=r"metrics_file .* cannot be opened"):
            configure(metrics_file=f"{tmp_path}/{name}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_on_a_connection_of_its_own() -> None:
    with backends.backend() as up:
        handle = configure(metrics_endpoint=up.url)
        router = work()
        assert handle.flush()
        child = os.fork()
        if child == 0:
            work(router)
            os._exit(0 if handle.flush(10.0) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert handle.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_counts_from_zero(tmp_path: Path) -> None:
    handle = configure(metrics_file=tmp_path / "m.jsonl")
    router = work(steps=5)
    child = os.fork()
    if child == 0:
        work(router, steps=3)
        os._exit(0 if handle.flush(10.0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [int(point["asInt"]) for point in points(tmp_path / "m.jsonl", "routed_agents.decisions")] == [3]
    handle.shutdown()
    assert [int(point["asInt"]) for point in points(tmp_path / "m.jsonl", "routed_agents.decisions")] == [5]


def test_metrics_are_there_after_a_program_that_just_ends(tmp_path: Path) -> None:
    code = (
        "from routed_agents import Router, Step\nfrom routed_agents.telemetry import configure\n"
        f"configure(metrics_file={str(tmp_path / 'm.jsonl')!r})\n"
        "with Router().step(Step.from_messages('x', task_class='classification')):\n    pass\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [int(point["asInt"]) for point in points(tmp_path / "m.jsonl", "routed_agents.decisions")] == [1]


@pytest.mark.parametrize("given", ["http://h:1", "http://h:1/", "http://h:1/v1/metrics", "http://h:1/v1/metrics/"])
@pytest.mark.parametrize("query", ["", "?token=a/b"])
def test_a_path_is_added_once_and_before_the_query(given: str, query: str) -> None:
    assert whole(given + query, "metrics") == f"http://h:1/v1/metrics{query}"


@pytest.mark.parametrize(
    ("signal", "handed"), [("TRACES", "/ingest/otlp"), ("TRACES", "/v1/traces?token=abc"), ("METRICS", "/ingest/metrics")]
)
def test_the_address_of_one_signal_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, signal: str, handed: str) -> None:
    with backends.backend() as up:
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", up.url + handed)
        handle = configure()
        work()
        handle.shutdown()
    assert set(up.paths) == {handed}
