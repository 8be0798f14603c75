"""What other tools exported becomes step records; the files here were recorded with the tools themselves, on one graph."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from routed_agents import Ledger, Policy, Router, Step, Telemetry
from routed_agents.errors import ConfigurationError
from routed_agents.offline.exports import Found, read_export
from routed_agents.offline.traces import read_spans

EXPORTS = Path(__file__).parent / "exports"
RECORDED = ("openinference", "traceloop", "genai", "langsmith", "langfuse_otlp")


def said(record: dict[str, Any]) -> list[tuple[str, str]]:
    step = Step.from_record(record)
    plain = step.to_record()["messages"]
    head = [("system", step.system)] if step.system else []
    return [*head, *[(message["role"], message["content"]) for message in plain]]  # type: ignore[index, union-attr, misc]


@pytest.mark.parametrize("name", RECORDED)
def test_the_same_call_is_the_same_step_whoever_recorded_it(name: str) -> None:
    found = Found()
    (record,) = read_export(EXPORTS / f"{name}.jsonl", found=found)
    assert said(record) == [
        ("system", "You answer for a parcel service."),
        ("user", "Where is my order 4711?"),
        ("assistant", ""),
        ("tool", "packed, leaves tomorrow"),
    ]
    (call,) = record["messages"][-2]["tool_calls"]
    assert (call["name"], call["args"], call["id"]) == ("order_status", {"order": "4711"}, "call_1")
    assert (record["tools"], record["metadata"]["thread"], found.calls, found.empty) == (["order_status"], "t-1", 1, 0)


def test_phoenix_spans_are_read_as_its_api_pages_them(tmp_path: Path) -> None:
    spans = [
        {
            "name": span.name,
            "context": {"trace_id": span.trace_id, "span_id": span.span_id},
            "span_kind": span.attributes.get("openinference.span.kind", "UNKNOWN"),
            "attributes": {key: value for key, value in span.attributes.items() if key != "openinference.span.kind"},
        }
        for span in read_spans(EXPORTS / "openinference.jsonl")
    ]
    (tmp_path / "phoenix.json").write_text(json.dumps({"next_cursor": None, "data": spans}, indent=1))
    (record,) = read_export(tmp_path / "phoenix.json")
    assert record == next(read_export(EXPORTS / "openinference.jsonl"))


def test_langfuse_observations_are_read_as_its_api_gives_them(tmp_path: Path) -> None:
    (span,) = [each for each in read_spans(EXPORTS / "langfuse_otlp.jsonl") if each.name == "House"]
    given = {"id": "o1", "traceId": "t", "startTime": "2026-11-24T00:00:00Z", "projectId": "p", "model": "claude-haiku-5-5"}
    observation = {
        **given,
        "type": "GENERATION",
        "input": json.loads(span.attributes["langfuse.observation.input"]),
        "usageDetails": {"input": 61},
    }
    lines = [observation, {**observation, "type": "SPAN"}]
    (tmp_path / "o.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    found = Found()
    (record,) = read_export(tmp_path / "o.jsonl", found=found)
    assert (len(record["messages"]), record["tools"], record["approx_tokens"], found.other) == (4, ["order_status"], 61, 1)


@pytest.mark.parametrize("declared", [None, "classification"])
def test_a_class_is_declared_where_its_author_declared_it_and_not_where_it_was_guessed(declared: str | None, tmp_path: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(tmp_path / "t.jsonl")))
    policy = Policy.default()
    router = Router(policy, ledger=Ledger.memory(), telemetry=Telemetry(tracer_provider=provider, capture=lambda text: text))
    with router.step(Step.from_messages("asdf qwer", task_class=declared)) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record({"model": attempt.model, "content": "ok", "usage": {"input_tokens": 4, "output_tokens": 1}})
    provider.shutdown()
    (record,) = read_export(tmp_path / "t.jsonl")
    replayed = policy.decide(Step.from_record(record))
    assert (record.get("task_class"), replayed.tier, replayed.unsure) == (declared, call.decision.tier, call.decision.unsure)


def test_a_call_without_captured_messages_is_counted_and_left_out(tmp_path: Path) -> None:
    attributes = [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}]
    span = {"traceId": "a" * 32, "spanId": "b" * 16, "attributes": attributes}
    (tmp_path / "t.jsonl").write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}) + "\n")
    found = Found()
    assert list(read_export(tmp_path / "t.jsonl", found=found)) == []
    assert (found.calls, found.empty) == (1, 1)


def test_a_broken_line_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text((EXPORTS / "genai.jsonl").read_text() + "{torn")
    troubles: list[int] = []
    assert len(list(read_export(tmp_path / "t.jsonl", on_trouble=lambda line, _: troubles.append(line)))) == 1
    assert troubles == [3]


def test_a_file_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigurationError, match="neither JSON lines nor one JSON document"):
        list(read_export(tmp_path / "x.csv"))


def test_a_broken_first_line_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{torn\n" + "[" * 100_000 + "\n" + (EXPORTS / "genai.jsonl").read_text())
    troubles: list[int] = []
    assert len(list(read_export(tmp_path / "t.jsonl", on_trouble=lambda line, _: troubles.append(line)))) == 1
    assert troubles == [1, 2]


def test_what_is_packed_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    plain = (EXPORTS / "genai.jsonl").read_bytes()
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.gz").write_bytes(plain)
    assert [len(list(read_export(tmp_path / name))) for name in ("packed.jsonl", "plain.gz")] == [1, 1]
    assert [len(list(read_spans(tmp_path / name))) for name in ("packed.jsonl", "plain.gz")] == [2, 2]


def test_a_cut_gzip_gives_what_is_whole(tmp_path: Path) -> None:
    line = (EXPORTS / "genai.jsonl").read_bytes()
    noise = b"".join([b"%x" % (number * 7919 % 100_003) for number in range(20_000)])
    whole = gzip.compress(line + b'{"x": "' + noise + b'"}\n')
    (tmp_path / "t.jsonl.gz").write_bytes(whole[: len(whole) * 2 // 3])
    troubles: list[str] = []
    assert len(list(read_export(tmp_path / "t.jsonl.gz", on_trouble=lambda _, why: troubles.append(why)))) == 1
    assert ["breaks off" in why for why in troubles] == [True]
