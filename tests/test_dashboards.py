"""Dashboard and rules name only what we write: every metric, label and recorded rule in them exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from routed_agents import Policy, Router, Step
from routed_agents.telemetry import Telemetry, names

FOLDER = Path(__file__).parents[1] / "dashboards"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
RULES = (FOLDER / "prometheus" / "rules.yml").read_text(encoding="utf-8")
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
METRIC = re.compile(r"\brouted_agents_\w+")
RECORDED = re.compile(r"\brouted_agents:[\w:]+")


@pytest.fixture(scope="module")
def page() -> str:
    """What the Prometheus exporter makes of every counter and histogram in the names table."""
    exporters = pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra `dev`")
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    provider = MeterProvider([exporters.PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)
    meter = provider.get_meter(names.SCOPE)
    for name, row in names.COUNTERS.items():
        meter.create_counter(name, unit_of(row)).add(1)
    for name, row in names.HISTOGRAMS.items():
        meter.create_histogram(name, unit_of(row)).record(1)
    text = generate_latest(registry).decode()
    provider.shutdown()
    return text


def unit_of(row: Any) -> str:
    return str(row[0] if isinstance(row, tuple) else row.unit)


def samples(page: str) -> set[str]:
    return set(re.findall(r"^(\w+)", page, re.MULTILINE))


def test_every_metric_in_the_dashboard_is_one_we_write(page):
    asked = [*QUERIES, *(each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")]
    assert {name for query in asked for name in METRIC.findall(query)} - samples(page) == set()


def test_every_metric_in_the_rules_is_one_we_write(page):
    expressions = "\n".join(line for line in RULES.splitlines() if not line.lstrip().startswith(("#", "- name:")))
    assert set(METRIC.findall(expressions)) - samples(page) == set()


def test_every_counter_is_on_the_dashboard(page):
    shown = {name for query in QUERIES for name in METRIC.findall(query)}
    counters = {name for name in samples(page) if name.startswith("routed_agents_") and name.endswith("_total")}
    assert counters - shown <= {"routed_agents_rejections_total", "routed_agents_judgements_total"}  # judges are off unless asked for


def test_every_recorded_rule_that_is_used_is_recorded():
    recorded = set(re.findall(r"record: (\S+)", RULES))
    assert recorded
    assert {name for text in (RULES, *QUERIES) for name in RECORDED.findall(text)} <= recorded


def test_every_label_that_is_used_is_one_the_metrics_have():
    exporters = pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra `dev`")
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    provider = MeterProvider([exporters.PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)
    router = Router(Policy.default(), telemetry=Telemetry(meter_provider=provider))
    with router.step(Step.from_messages("Hello", task_class="classification"), thread="t") as call:
        for attempt in call.attempts():
            with attempt:
                cut = "max_tokens" if attempt.number == 1 else "end_turn"
                usage = {"input_tokens": 10, "output_tokens": 5}
                content = [{"type": "text", "text": "yes"}]
                attempt.record({"model": attempt.model, "role": "assistant", "content": content, "stop_reason": cut, "usage": usage})
    written = set(re.findall(r"[{,](\w+)=", generate_latest(registry).decode())) | {"job", "le"}
    provider.shutdown()
    used = {label for text in (RULES, *QUERIES) for label in re.findall(r"[{,]\s*(\w+)[=!]", text)}
    grouped = {label.strip() for text in (RULES, *QUERIES) for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(",")}
    assert (used | grouped) - written == set()


def test_the_dashboard_can_be_imported():
    wanted = {"title": str, "uid": str, "schemaVersion": int, "panels": list, "templating": dict, "time": dict, "tags": list}
    assert {key for key, kind in wanted.items() if not isinstance(DASHBOARD.get(key), kind)} == set()
    assert DASHBOARD["id"] is None
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids)) > 15


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    drawn = [panel for panel in PANELS if panel["type"] != "row"]
    assert [panel["title"] for panel in drawn if not panel["description"] or not panel["targets"]] == []
    assert [panel["title"] for panel in drawn if any(each["datasource"] != chosen for each in (panel, *panel["targets"]))] == []


def test_every_variable_that_is_used_is_there():
    given = {each["name"] for each in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__range"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS))) == given


def test_no_panel_lies_on_another():
    places = [(panel["title"], panel["gridPos"]) for panel in PANELS]
    over = [(one, other) for (one, a), (other, b) in combinations(places, 2) if overlap(a, b)]
    assert over == []
    assert all(place["x"] + place["w"] <= 24 for _, place in places)


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not apart


ASK = """
import urllib.request

from routed_agents import Policy, Router, Step

with Router(Policy.default()).step(Step.from_messages("Hello"), thread="t") as call:
    pass
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{server.server_port}/metrics").read().decode())
"""


def test_the_set_up_in_the_readme_gives_prometheus_our_metrics():
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra `dev`")
    (shown,) = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    anywhere = shown.replace("start_http_server(9464", "server, _ = start_http_server(0")
    run = subprocess.run([sys.executable, "-c", anywhere + ASK], capture_output=True, text=True, check=False, timeout=60)
    assert "routed_agents_decisions_total{" in run.stdout, run.stderr


def test_the_readme_names_every_alert():
    alerts = re.findall(r"alert: (\w+)", RULES)
    assert re.findall(r"^\| (RoutedAgents\w+) \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE) == alerts
