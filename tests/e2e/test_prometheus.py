"""What a real Prometheus scrapes adds up to the ledger, whatever becomes of the traces; rules and dashboard work on what it scraped."""

from __future__ import annotations

import json
import random
import re
import subprocess
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from servers import DASHBOARDS, LOOPBACK, ask, free_port, listening, prometheus_program, running, wait_for

from routed_agents import Policy, Router, Step
from routed_agents.ledger import Entry
from routed_agents.telemetry import Telemetry
from routed_agents.telemetry.setup import Output

pytestmark = pytest.mark.e2e

RULES = DASHBOARDS / "prometheus" / "rules.yml"
NEAR = 1e-9
STEPS = 2_000
SAMPLED = 0.1
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: desk
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Overloaded(Exception):
    status_code = 529


def test_the_rules_are_rules():
    done = subprocess.run([prometheus_program("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_rings_when_it_should_and_only_then():
    tests = RULES.with_name("rules_test.yml")
    done = subprocess.run([prometheus_program("promtool"), "test", "rules", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_rings():
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    ringing = re.findall(r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:\n", RULES.with_name("rules_test.yml").read_text())
    assert set(ringing) == alerts


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """A Prometheus that has scraped everything a router counted."""

    router: Router
    url: str
    sent: int
    dropped: int
    listening: set[str]

    @property
    def entries(self) -> list[Entry]:
        return list(self.router.ledger.entries())

    def ask(self, promql: str) -> list[dict[str, Any]]:
        answer = ask(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': promql})}")
        assert answer["status"] == "success", answer
        result = answer["data"]["result"]
        return result if answer["data"]["resultType"] == "vector" else [{"metric": {}, "value": result}]

    def values(self, promql: str, label: str) -> dict[str, float]:
        return {row["metric"][label]: float(row["value"][1]) for row in self.ask(promql)}

    def value(self, promql: str) -> float:
        (row,) = self.ask(promql)
        return float(row["value"][1])


def work(router: Router, steps: int) -> None:
    """Steps of every kind, as a service makes them: cached, failed, rejected, unpriced, and kept strong."""
    chance = random.Random(7)
    for number in range(steps):
        task_class = chance.choice(["classification", "extraction", "rag_lookup", "agentic_chain"])
        step = Step.from_messages(f"Question {number}", task_class=task_class, node="reply")
        trouble = chance.choices(["none", "overloaded", "max_tokens", "unpriced"], [90, 3, 5, 2])[0]
        with router.step(step, thread=f"t{number % 50}") as call:
            for attempt in call.attempts():
                with attempt:
                    first = attempt.number == 1
                    if first and trouble == "overloaded" and attempt.tier == "cheap":
                        raise Overloaded
                    usage = {"input_tokens": chance.randrange(50, 4_000), "output_tokens": chance.randrange(1, 900)}
                    usage |= {"cache_read_input_tokens": chance.choice([0, 0, 8_000]), "service_tier": "standard"}
                    usage |= {"cache_creation_input_tokens": chance.choice([0, 0, 0, 3_000])}
                    cut = first and trouble == "max_tokens" and attempt.tier == "cheap"
                    model = "nobody-knows-1" if trouble == "unpriced" and attempt.tier == "cheap" else attempt.model
                    content = [{"type": "text", "text": "yes"}]
                    reply = {"id": "msg_1", "model": model, "role": "assistant", "content": content, "usage": usage}
                    attempt.record({**reply, "stop_reason": "max_tokens" if cut else "end_turn"})


@pytest.fixture(scope="module", params=["10 % of the traces", "no trace backend"])
def scraped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    exporters = pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra `dev`")
    from prometheus_client import CollectorRegistry, start_http_server

    program, folder = prometheus_program("prometheus"), tmp_path_factory.mktemp("prometheus")
    sent: list[int] = []
    if request.param == "no trace backend":
        dead = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{free_port()}/v1/traces", timeout=1)
        output, sampler = (
            Output(lambda batch: 0 if dead.export(batch).name == "SUCCESS" else len(batch), finish=dead.shutdown, size=500),
            None,
        )
    else:
        output, sampler = Output(lambda batch: sent.append(len(batch)) or 0, size=50_000), TraceIdRatioBased(SAMPLED)
    registry = CollectorRegistry()
    tracing = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracing.add_span_processor(output)
    metering = MeterProvider([exporters.PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)
    # the preset with the models' own names, so that the cost counts as real: no model is called here
    router = Router(Policy.default(tiers="claude-2026-11"), telemetry=Telemetry(tracer_provider=tracing, meter_provider=metering))
    page, thread = start_http_server(free_port(), addr="127.0.0.1", registry=registry)
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(rules=json.dumps(str(RULES)), port=page.server_port))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    try:
        with running(argv, ready=f"{url}/-/ready", folder=folder, within_s=60) as process:
            work(router, STEPS // 2)
            made = Scraped(router=router, url=url, sent=0, dropped=0, listening=listening(process))
            wait_for(lambda: made.ask("count(routed_agents_decisions_total)"), 20)
            work(router, STEPS // 2)
            wait_for(lambda: made.ask(f"sum(routed_agents_decisions_total) == {STEPS}"), 20)
            output.close(2.0)
            yield Scraped(router=router, url=url, sent=sum(sent), dropped=output.dropped, listening=made.listening)
    finally:
        page.shutdown()
        page.server_close()
        thread.join()
        metering.shutdown()
        tracing.shutdown()


def test_prometheus_listens_on_this_machine_only(scraped):
    assert scraped.listening
    assert scraped.listening <= LOOPBACK


def test_few_traces_or_none_got_through(scraped):
    spans = len(scraped.entries) + STEPS
    if scraped.dropped:
        assert (scraped.sent, scraped.dropped) == (0, spans)
    else:
        assert 0.05 * spans < scraped.sent < 0.15 * spans


def test_what_prometheus_adds_up_is_what_the_ledger_says(scraped):
    total = scraped.router.ledger.total()
    assert total.cost_pico > 0
    assert abs(scraped.value("sum(routed_agents_cost_USD_total)") - total.cost_pico / 1e12) <= NEAR
    assert abs(scraped.value("sum(routed_agents_baseline_USD_total)") - priced_baseline(scraped.entries)) <= NEAR
    assert scraped.value("sum(routed_agents_tokens_total)") == total.tokens


def priced_baseline(entries: list[Entry]) -> float:
    return sum(entry.baseline_pico or 0 for entry in entries if entry.cost is not None) / 1e12


LABELS: dict[str, Callable[[Entry], str]] = {
    "tier": lambda entry: entry.tier,
    "model": lambda entry: entry.model,
    "task_class": lambda entry: entry.task_class,
}


@pytest.mark.parametrize("label", LABELS)
def test_each_group_costs_what_the_ledger_says(scraped, label):
    groups: Counter[str] = Counter()
    for entry in scraped.entries:
        if entry.cost is not None:
            groups[LABELS[label](entry)] += entry.cost.total_pico
    found = scraped.values(f"sum by ({label}) (routed_agents_cost_USD_total)", label)
    assert found.keys() == groups.keys()
    assert {name: cost for name, cost in groups.items() if abs(found[name] - cost / 1e12) > NEAR} == {}


def test_what_is_counted_is_in_the_ledger(scraped):
    entries = scraped.entries
    followed = Counter(entry.error or "check:truncated" for entry in entries if entry.outcome in ("failed", "rejected"))
    assert scraped.values("sum by (reason) (routed_agents_escalations_total)", "reason") == followed
    assert scraped.value("sum(routed_agents_unpriced_total)") == sum(entry.cost is None for entry in entries) > 0
    assert scraped.value("sum(routed_agents_duration_seconds_count)") == len(entries)
    assert scraped.value("sum(routed_agents_decision_duration_seconds_count)") == STEPS


def test_the_alert_for_unpriced_calls_rings_in_prometheus_itself(scraped):
    def ringing() -> set[str]:
        return {
            alert["labels"]["alertname"] for alert in ask(f"{scraped.url}/api/v1/alerts")["data"]["alerts"] if alert["state"] == "firing"
        }

    wait_for(lambda: "RoutedAgentsUnpricedCalls" in ringing(), 20, lambda: str(ringing()))
    broken = [
        rule["name"] for group in ask(f"{scraped.url}/api/v1/rules")["data"]["groups"] for rule in group["rules"] if rule["health"] == "err"
    ]
    assert broken == []


def panel_queries() -> list[Any]:
    panels = json.loads((DASHBOARDS / "grafana.json").read_text())["panels"]
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}") for panel in panels for target in panel.get("targets", ())
    ]


IDLE = ("time_to_first_chunk", "sum by (reason)", "ratio1d")
"""Queries of which this traffic leaves nothing to show: it has no streams, and no escalation rate yet."""


@pytest.mark.parametrize("expr", panel_queries())
def test_every_panel_of_the_dashboard_shows_something(scraped, expr):
    filled = expr.replace("$__rate_interval", "30s").replace("$__range", "1h").replace("$job", "desk").replace("$simulated", ".*")
    assert "$" not in filled
    if not any(word in expr for word in IDLE):
        wait_for(lambda: scraped.ask(filled), 15, lambda: filled)
    scraped.ask(filled)


def test_a_decision_of_under_a_millisecond_is_not_shown_as_seconds(scraped):
    filled = 'histogram_quantile(0.5, sum by (le) (routed_agents_decision_duration_seconds_bucket{job="desk"}))'
    assert scraped.value(filled) < 0.01
