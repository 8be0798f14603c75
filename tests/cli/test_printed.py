"""What came with a file neither steers the terminal it is printed on nor looks like a line of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from routed_agents import Ledger, Policy, Router, Step, Telemetry

from .conftest import said

STEERING = "x\x1b[2J\n  total  $0.00"


@pytest.fixture
def files(tmp_path: Path, lines) -> dict[str, str]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(tmp_path / "t.jsonl")))
    with Ledger(tmp_path / "l.db") as ledger:
        router = Router(Policy.default(), ledger=ledger, telemetry=Telemetry(tracer_provider=provider))
        with router.step(Step.from_messages("late", node=STEERING, task_class="classification"), labels={"tenant": STEERING}) as call:
            for attempt in call.attempts():
                with attempt:
                    attempt.record({"model": attempt.model, "content": "ok", "usage": {"input_tokens": 400, "output_tokens": 12}})
    provider.shutdown()
    (tmp_path / "p.toml").write_text('on_stop = "x\\u001b[2J\\n  total  $0.00"\n')
    cases = lines(said("Plan it", id=STEERING, expect="cheap", task_class="agentic_chain"))
    return {"trace": str(tmp_path / "t.jsonl"), "ledger": str(tmp_path / "l.db"), "policy": str(tmp_path / "p.toml"), "cases": cases}


@pytest.mark.parametrize(
    "argv",
    [
        ["report", "{ledger}", "--by", "label:tenant"],
        ["policy", "show", "{policy}"],
        ["policy", "test", "{cases}", "--require", "accuracy >= 1"],
        ["trace", "tree", "{trace}"],
        ["trace", "top", "{trace}"],
        ["trace", "sql", "{trace}", "SELECT node FROM spans"],
        ["trace", "sql", "{trace}", "SELECT * FROM spans WHERE attempt = 1"],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_what_came_with_a_file_is_spelled_out(argv: list[str], cli, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    _, out, err = cli(*[each.format(**files) for each in argv])
    assert ("\x1b" in out + err, "x\\x1b[2J" in out) == (False, True)
    assert not [line for line in out.splitlines() if line.lstrip().startswith("total  $0.00")]
