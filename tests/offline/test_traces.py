"""Recorded traces are read as they were written, whatever state the file is in."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from routed_agents.errors import ConfigurationError
from routed_agents.ledger import Ledger
from routed_agents.offline.traces import Trouble, group, read_spans, runs
from routed_agents.telemetry.runs import SpanRecord, run_of


def line(*spans: dict[str, Any], scope: str = "routed_agents") -> str:
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": scope}, "spans": list(spans)}]}]}) + "\n"


def span(name: str, *, trace: str = "t", parent: str | None = None, start: int = 0, **more: Any) -> dict[str, Any]:
    given = {"parentSpanId": parent} if parent else {}
    return {
        "traceId": trace,
        "spanId": name,
        "name": name,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 1),
        **given,
        **more,
    }


def test_values_of_every_kind_are_decoded(tmp_path: Path) -> None:
    values = {
        "int": {"intValue": "9007199254740993"},
        "double": {"doubleValue": 0.1},
        "nan": {"doubleValue": "Infinity"},
        "bool": {"boolValue": False},
        "list": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "2"}]}},
        "map": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}},
        "bytes": {"bytesValue": "aGk="},
        "none": {},
    }
    file = tmp_path / "t.jsonl"
    file.write_text(line(span("a", attributes=[{"key": key, "value": value} for key, value in values.items()])))
    (record,) = read_spans(file)
    assert dict(record.attributes) == {
        "int": 9007199254740993,
        "double": 0.1,
        "nan": float("inf"),
        "bool": False,
        "list": ("a", 2),
        "map": {"k": "v"},
        "bytes": b"hi",
        "none": None,
    }


def test_enums_are_read_as_numbers_and_as_names(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(
        line(
            span("a", kind=3, status={"code": 2, "message": "m"}), span("b", kind="SPAN_KIND_CLIENT", status={"code": "STATUS_CODE_ERROR"})
        )
    )
    assert [(each.kind, each.status) for each in read_spans(file)] == [("client", "error")] * 2


def test_a_torn_last_line_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    file, troubles = tmp_path / "t.jsonl", list[Trouble]()
    file.write_text(line(span("a")) + line(span("b"))[:-20])
    assert [each.span_id for each in read_spans(file, on_trouble=troubles.append)] == ["a"]
    assert [(each.line, each.torn, str(each).startswith(f"{file}, line 2: torn last line")) for each in troubles] == [(2, True, True)]


def test_a_broken_line_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    file, troubles = tmp_path / "t.jsonl", list[Trouble]()
    file.write_text(line(span("a")) + "{oops\n\n[]\n" + line(span("b")))
    assert [each.span_id for each in read_spans(file, on_trouble=troubles.append)] == ["a", "b"]
    assert [(each.line, each.torn) for each in troubles] == [(2, False), (4, False)]


def test_a_line_nested_too_deeply_is_passed_over(tmp_path: Path) -> None:
    file, troubles = tmp_path / "t.jsonl", list[Trouble]()
    file.write_text(line(span("a")) + "[" * 100_000 + "\n" + line(span("b")))
    assert [each.span_id for each in read_spans(file, on_trouble=troubles.append)] == ["a", "b"]
    assert [each.line for each in troubles] == [2]


def test_a_cut_gzip_gives_what_is_whole(tmp_path: Path) -> None:
    file, troubles = tmp_path / "t.jsonl.gz", list[Trouble]()
    noise = "".join(f"{number * 7919 % 100_003:x}" for number in range(20_000))
    whole = gzip.compress((line(span("a")) + line(span("b", other=noise)) + line(span("c", other=noise[::-1]))).encode())
    file.write_bytes(whole[: len(whole) * 2 // 3])
    assert [each.span_id for each in read_spans(file, on_trouble=troubles.append)][:1] == ["a"]
    assert [each.torn for each in troubles] == [True]


def test_a_whole_gzip_is_read_like_a_plain_file(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl.gz"
    file.write_bytes(gzip.compress(line(span("a")).encode()))
    assert [each.span_id for each in read_spans(file)] == ["a"]


def test_a_file_that_is_no_trace_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    file.write_text("tier,cost\ncheap,1\n")
    with pytest.raises(ConfigurationError, match="holds no trace"):
        list(read_spans(file, on_trouble=lambda trouble: None))


def test_an_empty_file_has_no_runs(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    assert list(runs(tmp_path / "t.jsonl")) == []


def test_interleaved_runs_come_apart(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    leaves = [line(span(f"{trace}{number}", trace=trace, parent=trace, start=number)) for number in range(3) for trace in "xy"]
    file.write_text("".join(leaves) + line(span("y", trace="y")) + line(span("x", trace="x")))
    found = {run.trace_id: [child.span.span_id for child in run.roots[0].children] for run in runs(file)}
    assert found == {"x": ["x0", "x1", "x2"], "y": ["y0", "y1", "y2"]}


def record(span_id: str, parent: str | None = None, *, trace: str = "t", root: bool = False) -> SpanRecord:
    return SpanRecord(trace_id=trace, span_id=span_id, parent_id=parent, is_root=root, name=span_id, start_ns=0, end_ns=1)


def test_a_span_that_ends_after_its_root_still_finds_its_run() -> None:
    (run,) = group([record("root", root=True), record("late", "root")])
    assert [each.span_id for each in run.walk()] == ["root", "late"]


def test_a_run_without_its_root_is_marked_unfinished() -> None:
    (run,) = group([record("leaf", "root")])
    assert (run.complete, run.roots[0].span.span_id) == (False, "leaf")


def test_a_span_written_twice_counts_once() -> None:
    (run,) = group([record("a", root=True), record("a", root=True)])
    assert len(list(run.walk())) == 1


def test_a_trace_ten_thousand_spans_deep_is_no_problem() -> None:
    spans = [record("0", root=True), *[record(str(number), str(number - 1)) for number in range(1, 10_000)]]
    assert sum(1 for _ in run_of(spans).walk()) == 10_000


def test_spans_whose_parents_go_round_in_a_ring_are_all_in_the_tree() -> None:
    run = run_of([record("top", root=True), record("a", "c"), record("b", "a"), record("c", "b"), record("d", "c")])
    assert [each.span.span_id for each in run.roots] == ["top", "a"]
    assert [each.span_id for each in run.walk()] == ["top", "a", "b", "c", "d"]


def test_a_remote_parent_makes_a_root(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(line(span("a", parent="elsewhere", flags=0x300), span("b", trace="u", parent="here", flags=0x100)))
    assert {each.span_id: each.is_root for each in read_spans(file)} == {"a": True, "b": False}


def test_memory_holds_the_open_runs_and_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    padding = [{"key": "p", "value": {"stringValue": "x" * 1000}}]
    with file.open("w") as out:
        for number in range(5_000):
            out.write(line(span(f"{number}", trace=f"t{number}", attributes=padding)))
    tracemalloc.start()
    count = sum(1 for _ in runs(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (count, peak < file.stat().st_size / 5) == (5_000, True)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (b"oops\n", "not JSON: expecting value at column 1"),
        (b"{\xff}\n", "not UTF-8: byte 0xff at column 2"),
        (b'{"resourceMetrics": []}\n', "no OTLP trace: resourceSpans is missing"),
        (line(span(None)).encode(), "no OTLP trace: spanId is null"),
        (line(span("b") | {"name": 5}).encode(), "no OTLP trace: name is 5"),
        (line(span("b", start=2**63)).encode(), "no OTLP trace: a number has more than 64 bits"),
        (
            line(span("b", attributes=[{"key": "n", "value": {"intValue": "9" * 30}}])).encode(),
            "no OTLP trace: a number has more than 64 bits",
        ),
    ],
)
def test_why_a_line_is_passed_over_is_said_in_words(written: bytes, reason: str, tmp_path: Path) -> None:
    file, troubles = tmp_path / "t.jsonl", list[Trouble]()
    file.write_bytes(line(span("a")).encode() + written)
    assert [each.span_id for each in read_spans(file, on_trouble=troubles.append)] == ["a"]
    assert [each.reason for each in troubles] == [reason]


def test_a_ledger_is_no_trace(tmp_path: Path) -> None:
    with Ledger(tmp_path / "costs.db"):
        pass
    with pytest.raises(ConfigurationError, match="is a SQLite file, as a ledger is, and no trace; see routed-agents report"):
        list(read_spans(tmp_path / "costs.db"))
