"""`trace` and the page of `report` on the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from routed_agents import Ledger, Policy, Router, Step, Telemetry

QUERY = "SELECT sum(cost) AS cost, count(*) - count(cost) AS unpriced FROM spans WHERE attempt = 1"
Cli = Callable[..., tuple[int, str, str]]
EXPORT = Path(__file__).parents[1] / "offline" / "exports" / "genai.jsonl"


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    calls = [("classification", ""), ("agentic_chain", ""), ("classification", "unknown-model")]
    steps = [(Step.from_messages("late", node=f"n{number}", task_class=task), model) for number, (task, model) in enumerate(calls)]
    return made(tmp_path, *steps)


def made(tmp_path: Path, *steps: tuple[Step, str]) -> tuple[Path, Path]:
    """Trace and ledger of steps of one thread, each answered by a model; by that of its tier where none is named."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(tmp_path / "t.jsonl")))
    with Ledger(tmp_path / "l.db") as ledger:
        router = Router(Policy.default(), ledger=ledger, telemetry=Telemetry(tracer_provider=provider, labels=("thread",)))
        for step, model in steps:
            with router.step(step, thread="t-1") as call:
                for attempt in call.attempts():
                    with attempt:
                        usage = {"input_tokens": 400, "output_tokens": 12}
                        attempt.record({"model": model or attempt.model, "content": "ok", "stop_reason": "end_turn", "usage": usage})
    provider.shutdown()
    return tmp_path / "t.jsonl", tmp_path / "l.db"


def test_sql_gives_exact_money_and_null_for_unpriced(cli: Cli, recorded: tuple[Path, Path]) -> None:
    trace, place = recorded
    code, out, _ = cli("trace", "sql", trace, QUERY, "--json")
    with Ledger.sqlite(place) as ledger:
        total = ledger.total()
    row = json.loads(out)
    assert (code, Decimal(row["cost"]), row["unpriced"]) == (0, total.cost, total.unpriced)


def test_sql_passes_over_a_torn_line_and_says_so(cli: Cli, recorded: tuple[Path, Path]) -> None:
    trace, _ = recorded
    with trace.open("a") as file:
        file.write('{"resourceSpans": [{"res')
    code, out, err = cli("trace", "sql", trace, "SELECT count(*) AS n FROM spans", "--json")
    assert (code, json.loads(out), "passed over" in err) == (1, {"n": 6}, True)


def test_sql_reads_nothing_but_the_file(cli: Cli, recorded: tuple[Path, Path]) -> None:
    code, _, err = cli("trace", "sql", recorded[0], "SELECT * FROM read_text('/etc/hostname')")
    assert (code, "the query is refused" in err) == (2, True)


def test_sql_without_duckdb_says_what_to_install(cli: Cli, recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    code, _, err = cli("trace", "sql", recorded[0], "SELECT 1")
    assert (code, err.count("\n"), "pip install '.[report]'" in err) == (2, 1, True)


def test_sql_prints_all_columns_as_json_also_of_one_name(cli: Cli) -> None:
    assert cli("trace", "sql", EXPORT, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a", "--json")[1] == '{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}\n'


def test_top_lists_the_dearest_first(cli: Cli, recorded: tuple[Path, Path]) -> None:
    code, out, _ = cli("trace", "top", recorded[0], "--json")
    rows = json.loads(out)["rows"]
    assert (code, rows[0]["step"], rows[-1]["cost_usd"]) == (0, "n1", None)
    assert "unpriced" in cli("trace", "top", recorded[0])[1]
    assert json.loads(cli("trace", "top", recorded[0], "--by", "threads", "--json")[1])["rows"][0]["steps"] == 3


def test_read_writes_records_that_decide_reads(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("trace", "read", EXPORT, "--output", tmp_path / "steps.jsonl")
    assert (code, "1 model calls, 1 step records" in err) == (0, True)
    code, out, _ = cli("decide", tmp_path / "steps.jsonl")
    assert (code, json.loads(out)["id"]) == (0, "619983acb8e38ee0")


def test_read_leaves_its_output_alone_where_there_is_nothing_to_write(cli: Cli, recorded: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text("of yesterday\n")
    code, _, err = cli("trace", "read", recorded[0], "--output", tmp_path / "steps.jsonl")
    assert (code, "steps.jsonl was not written" in err, (tmp_path / "steps.jsonl").read_text()) == (1, True, "of yesterday\n")


def test_an_empty_ledger_is_said_to_be_empty(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "l.db").touch()
    code, _, err = cli("report", tmp_path / "l.db")
    assert (code, "l.db is empty; name a file" in err) == (2, True)


def test_a_ledger_is_read_where_nothing_can_be_written(
    cli: Cli, recorded: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = recorded[1]
    before = (place.read_bytes(), sorted(os.listdir(tmp_path)))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cli("report", place, "--by", "tier")[0] == 0
    assert cli("why", "nobody", "--ledger", place)[0] == 1
    assert (place.read_bytes(), sorted(os.listdir(tmp_path))) == before
    code, out, _ = cli("report", place, "--html", tmp_path / "page.html", "--json")
    assert (code, json.loads(out)["entries"]) == (0, 3)


def test_what_is_not_yet_in_a_ledgers_file_is_read_too(cli: Cli, recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Ledger(recorded[1]) as ledger:
        ledger.append(replace(next(ledger.entries()), step_id="new"))
        ledger.flush()
        tables = json.loads(cli("report", recorded[1], "--by", "tier", "--json")[1])["tables"]
    assert tables[0]["total"]["steps"] == 4


def test_sql_prints_json_also_where_a_number_is_none(cli: Cli) -> None:
    pytest.importorskip("duckdb")
    query = "SELECT 'nan'::DOUBLE AS a, ['-inf'::DOUBLE, 1] AS b"
    assert cli("trace", "sql", EXPORT, query, "--json")[1] == '{"a": "NaN", "b": ["-Infinity", 1.0]}\n'


def test_top_of_nothing_is_one_line_and_no_table(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    code, out, err = cli("trace", "top", tmp_path / "t.jsonl")
    assert (code, out, "holds no routed step" in err) == (1, "", True)


@pytest.mark.parametrize("columns", [5, 20, 40, 79])
def test_a_narrow_terminal_loses_no_number(columns: int, cli: Cli, recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    trace, place = recorded
    for argv, wanted in ((["trace", "top", trace], ("cost", "saving")), (["report", place, "--by", "tier"], ("all-strong", "saved"))):
        lines = cli(*argv)[1].splitlines()
        header = next(number for number, line in enumerate(lines) if wanted[0] in line)
        assert wanted[1] in lines[header]
        assert len({len(line) for line in lines[header : header + 4]}) == 1


def test_a_reader_of_trees_that_goes_away_is_no_error(recorded: tuple[Path, Path]) -> None:
    argv = [sys.executable, "-m", "routed_agents", "trace", "tree", str(recorded[0])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(20)) == (b"", 0)


def test_records_that_are_read_are_ascii_whatever_is_in_them(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(EXPORT.read_text().replace("Where is my", "\\ud800 Où est ma"), encoding="utf-8")
    assert cli("trace", "read", tmp_path / "e.jsonl", "--output", tmp_path / "steps.jsonl")[0] == 0
    found = (tmp_path / "steps.jsonl").read_bytes()
    assert (found.isascii(), b"\\ud800 O\\u00f9 est ma" in found, found.decode()) == (
        True,
        True,
        cli("trace", "read", tmp_path / "e.jsonl")[1],
    )


def test_send_to_nobody_counts_the_failures(cli: Cli) -> None:
    code, out, err = cli("trace", "send", EXPORT, "--endpoint", "http://127.0.0.1:9", "--json")
    assert (code, json.loads(out)["failed"], "does not answer" in err) == (1, 2, True)


def test_a_page_of_ledger_and_trace_counts_each_call_once(cli: Cli, recorded: tuple[Path, Path], tmp_path: Path) -> None:
    trace, place = recorded
    (tmp_path / "o.jsonl").write_text('{"thread": "t-1", "solved": true}\n')
    page = tmp_path / "r.html"
    code, out, _ = cli("report", place, "--trace", trace, "--outcomes", tmp_path / "o.jsonl", "--html", page, "--json")
    assert (code, json.loads(out)["entries"], page.read_text()[:15]) == (0, 3, "<!doctype html>")


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["report"], "needs a LEDGER"),
        (["report", "--html", "x.html"], "needs something to read"),
        (["report", "--trace", "none.jsonl", "--html", "x.html"], "does not exist"),
        (["report", "--trace", "none.jsonl", "--html", "no/such/x.html"], "cannot be written"),
        (["report", "--html", "x.html", "--trace", "t", "--by", "tier"], "--by is for tables"),
        (["trace", "sql", "none.jsonl", "SELECT 1"], "does not exist"),
        (["trace", "read", "none.jsonl"], "does not exist"),
        (["trace", "read", "."], ". is a directory"),
        (["trace", "tree", "."], "trace file . is a directory"),
        (["report", "."], "ledger . is a directory"),
        (["report", os.devnull], "is no regular file"),
        (["trace", "sql", str(Path(__file__).with_name("conftest.py")), "SELECT 1"], "holds no trace"),
        (["trace", "sql", str(EXPORT), " "], "the query is empty"),
        (["trace", "send", str(EXPORT), "--endpoint", "http://[::1"], "is no HTTP address"),
    ],
)
def test_misuse_is_one_line(cli: Cli, argv: list[str], wanted: str) -> None:
    code, _, err = cli(*argv)
    assert (code, err.count("\n"), wanted in err) == (2, 1, True)


def test_a_row_of_more_columns_than_fit_goes_downwards(cli: Cli, recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli("trace", "sql", recorded[0], "SELECT * FROM spans WHERE attempt = 1 LIMIT 1")
    assert (code, out.count("\n\n")) == (0, 1)
    assert re.search(r"^node +n0$", out, re.MULTILINE)


def test_why_finds_the_step_that_top_and_tree_list(cli: Cli, recorded: tuple[Path, Path]) -> None:
    trace, place = recorded
    rows = json.loads(cli("trace", "top", trace, "--json")[1])["rows"]
    drawn = {json.loads(line)["rows"][0]["step"] for line in cli("trace", "tree", trace, "--json")[1].splitlines()}
    for begun in [row["id"] for row in rows]:
        found = json.loads(cli("why", begun, "--trace", trace, "--ledger", place, "--json")[1])
        assert found["step"] in drawn
        assert {"trace", "ledger"} <= set(found)


def test_why_tells_of_a_pin_that_an_earlier_step_left(cli: Cli, tmp_path: Path) -> None:
    work = "Fix the race condition in this code."
    first, second = Step.from_messages(work), Step.from_messages(work, task_class="classification", id="held")
    trace, place = made(tmp_path, (first, ""), (second, ""))
    assert cli("why", "held", "--trace", trace)[1].count("reasons    pinned before") == 1
    assert cli("why", "held", "--ledger", place)[1].count("reasons    pinned before") == 1


def test_what_a_guard_only_notes_is_no_reason(cli: Cli, tmp_path: Path) -> None:
    step = Step.from_messages("Extract the names.\n\n<mail>My husband died and I cannot cope.</mail>", task_class="extraction", id="noted")
    trace, place = made(tmp_path, (step, ""))
    told = [cli("why", "noted", *where)[1] for where in (("--trace", trace), ("--ledger", place))]
    assert [text.count("reasons    nothing objected to the proposal") for text in told] == [1, 1]


def test_a_label_that_nobody_has_is_said_to_have_no_entry(cli: Cli, recorded: tuple[Path, Path]) -> None:
    assert 'no entry has a label "tennant"' in cli("report", recorded[1], "--by", "label:tennant")[2]
    assert "or label:tenant if it is a label" in cli("report", recorded[1], "--by", "tenant")[2]
