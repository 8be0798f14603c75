"""Asks a trace file of a million spans through `trace sql`, and asks DuckDB the same by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, compare

SPANS = 1_000_000
SAMPLE = 2_048
"""Spans that are truly made and exported; the file is these over and over, with ids, times and costs of their own."""
BATCH = 512
PICO = Decimal(1).scaleb(-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to a trace file.

    Attributes:
        asked: of `trace sql`.
        typed: of DuckDB, over the file read into structs that hold just the fields it needs.
        paths: of DuckDB, with the same fields taken out of the text with JSON paths.
        plain: an answer by hand in the form of the other.
    """

    title: str
    asked: str
    typed: str
    paths: str
    plain: Callable[[tuple[Any, ...]], tuple[Any, ...]] = lambda row: row


VALUE = "STRUCT(stringValue VARCHAR, intValue VARCHAR)"
PAIRS = f'STRUCT("key" VARCHAR, "value" {VALUE})[]'


def _typed(span: str, *, process: str = "", part: str = "") -> str:
    """The spans of the file as structs of these fields."""
    shape = f"STRUCT({process}scopeSpans STRUCT({part}spans STRUCT({span})[])[])[]"
    resource, scope = ("process.resource AS resource, " if process else ""), ("part.scope AS scope, " if part else "")
    above = ("resource, " if process else "") + ("scope, " if part else "")
    return f"""
    WITH processes AS (SELECT unnest(resourceSpans) AS process FROM read_json('{{file}}', format = 'newline_delimited',
        columns = {{resourceSpans: '{shape}'}})),
    parts AS (SELECT {resource}unnest(process.scopeSpans) AS part FROM processes),
    spans AS (SELECT {"resource, " if process else ""}{scope}unnest(part.spans) AS span FROM parts),
    told AS (SELECT {above}span FROM spans),"""


def _of(name: str, kind: str, within: str = "span.attributes") -> str:
    return f'list_filter({within}, lambda a: a."key" = \'{name}\')[1]."value".{kind}'


def _at(name: str, kind: str) -> str:
    return f"span ->> ('$.attributes[' || (list_position(keys, '{name}') - 1) || '].value.{kind}')"


FLAT = """
    WITH spans AS (SELECT unnest(json_extract(json, '$.resourceSpans[*].scopeSpans[*].spans[*]')) AS span
        FROM read_json_objects('{file}', format = 'newline_delimited')),
    told AS (SELECT span, json_extract_string(span, '$.attributes[*].key') AS keys FROM spans),"""
BY_TIER = "SELECT tier, count(*), sum(CAST(pico AS BIGINT)) FROM found WHERE pico IS NOT NULL GROUP BY tier ORDER BY tier"
BY_MODEL = """SELECT model, task_class, count(*), sum(CAST(input AS BIGINT)), sum(CAST(output AS BIGINT)),
    max(CAST(ended AS BIGINT) - CAST(started AS BIGINT)) FROM found
    WHERE outcome = 'accepted' AND input IS NOT NULL GROUP BY ALL ORDER BY ALL"""
BY_SERVICE = "SELECT service, scope, kind, count(*) FROM found GROUP BY ALL ORDER BY ALL"

QUESTIONS = (
    Question(
        title="cost by tier",
        asked="SELECT tier, count(*), sum(cost) FROM spans WHERE cost IS NOT NULL GROUP BY tier ORDER BY tier",
        typed=f"""{_typed(f"attributes {PAIRS}")}
            found AS (SELECT {_of("routed_agents.tier", "stringValue")} AS tier,
                {_of("routed_agents.cost.pico_usd", "intValue")} AS pico FROM told) {BY_TIER}""",
        paths=f"""{FLAT}
            found AS (SELECT {_at("routed_agents.tier", "stringValue")} AS tier,
                {_at("routed_agents.cost.pico_usd", "intValue")} AS pico FROM told) {BY_TIER}""",
        plain=lambda row: (*row[:2], row[2] * PICO),
    ),
    Question(
        title="tokens and the longest call, by model and class",
        asked="SELECT model, task_class, count(*), sum(input_tokens), sum(output_tokens), max(seconds) FROM spans "
        "WHERE outcome = 'accepted' AND input_tokens IS NOT NULL GROUP BY ALL ORDER BY ALL",
        typed=f"""{_typed(f"startTimeUnixNano VARCHAR, endTimeUnixNano VARCHAR, attributes {PAIRS}")}
            found AS (SELECT {_of("llm.model_name", "stringValue")} AS model,
                {_of("routed_agents.decision.task_class", "stringValue")} AS task_class,
                {_of("routed_agents.outcome", "stringValue")} AS outcome, {_of("gen_ai.usage.input_tokens", "intValue")} AS input,
                {_of("gen_ai.usage.output_tokens", "intValue")} AS output,
                span.startTimeUnixNano AS started, span.endTimeUnixNano AS ended FROM told) {BY_MODEL}""",
        paths=f"""{FLAT}
            found AS (SELECT {_at("llm.model_name", "stringValue")} AS model,
                {_at("routed_agents.decision.task_class", "stringValue")} AS task_class,
                {_at("routed_agents.outcome", "stringValue")} AS outcome, {_at("gen_ai.usage.input_tokens", "intValue")} AS input,
                {_at("gen_ai.usage.output_tokens", "intValue")} AS output,
                span ->> '$.startTimeUnixNano' AS started, span ->> '$.endTimeUnixNano' AS ended FROM told) {BY_MODEL}""",
        plain=lambda row: (*row[:5], row[5] / 1e9),
    ),
    Question(
        title="spans by service, scope and kind",
        asked="SELECT service, scope, kind, count(*) FROM spans GROUP BY ALL ORDER BY ALL",
        typed=f"""{_typed("kind INTEGER", process=f"resource STRUCT(attributes {PAIRS}), ", part="scope STRUCT(name VARCHAR), ")}
            found AS (SELECT {_of("service.name", "stringValue", "resource.attributes")} AS service, scope.name AS scope,
                CASE span.kind WHEN 1 THEN 'internal' WHEN 3 THEN 'client' END AS kind FROM told) {BY_SERVICE}""",
        paths=f"""
            WITH scopes AS (SELECT list_transform(json_extract(json, '$.resourceSpans[*]'), lambda process: {{
                    service: list_filter(json_extract(process, '$.resource.attributes[*]'),
                        lambda a: a ->> '$.key' = 'service.name')[1] ->> '$.value.stringValue',
                    parts: list_transform(json_extract(process, '$.scopeSpans[*]'), lambda part: {{
                        scope: part ->> '$.scope.name', spans: json_extract(part, '$.spans[*]')}})}}) AS processes
                FROM read_json_objects('{{file}}', format = 'newline_delimited')),
            owned AS (SELECT unnest(flatten(list_transform(processes, lambda process: flatten(list_transform(process.parts,
                lambda part: list_transform(part.spans, lambda span: {{
                    service: process.service, scope: part.scope, span: span}})))))) AS o FROM scopes),
            spans AS (SELECT o.service AS service, o.scope AS scope, o.span AS span FROM owned),
            found AS (SELECT service, scope, CASE span ->> '$.kind' WHEN '1' THEN 'internal' WHEN '3' THEN 'client' END AS kind
                FROM spans) {BY_SERVICE}""",
    ),
)


def make_trace(path: Path, spans: int = SPANS) -> None:
    """A trace file with that many spans: some that the router's telemetry and the SDK's file exporter wrote, told again and again."""
    sample = path.with_suffix(".sample")
    _export(sample, min(SAMPLE, spans))
    documents = [json.loads(line) for line in sample.read_text().splitlines()]
    process = documents[0]["resourceSpans"][0]
    made = [span for each in documents for part in each["resourceSpans"][0]["scopeSpans"] for span in part["spans"]]
    begin, end = _parts({**process, "scopeSpans": [{**process["scopeSpans"][0], "spans": ["%"]}]})
    again = _again([_template(span) for span in made])
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, spans, BATCH):
            batch = ",".join(islice(again, min(BATCH, spans - start)))
            file.write(f"{begin}{batch}{end}\n")
    sample.unlink()


def _again(made: list[tuple[dict[str, Any], str]]) -> Iterator[str]:
    for number, (span, template) in enumerate(cycle(made)):
        turn = number // len(made)
        ids = {name: f"{turn:08x}{span[name][8:]}" for name in ("traceId", "spanId", "parentSpanId") if name in span}
        started = int(span["startTimeUnixNano"]) + turn * 10**9
        ended = started + int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) + turn % 7_919
        pico = span["pico"] + turn
        yield template % {**ids, "started": started, "ended": ended, "pico": pico, "usd": pico / 10**12}


def _template(span: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A span as text with places for what differs, and what stood there."""
    pico = 0
    draft = json.loads(json.dumps(span).replace("%", "%%"))
    draft |= {name: f"%({name})s" for name in ("traceId", "spanId", "parentSpanId") if name in span}
    draft |= {"startTimeUnixNano": "%(started)d", "endTimeUnixNano": "%(ended)d"}
    for pair in draft["attributes"]:
        if pair["key"] == "routed_agents.cost.pico_usd":
            pico, pair["value"] = int(pair["value"]["intValue"]), {"intValue": "%(pico)d"}
        elif pair["key"] in ("gen_ai.usage.cost", "llm.cost.total"):
            pair["value"] = {"doubleValue": "%(usd)r"}
    text = json.dumps(draft, separators=(",", ":")).replace('"%(usd)r"', "%(usd)r")
    return {**span, "pico": pico}, text


def _parts(process: dict[str, Any]) -> tuple[str, str]:
    begin, _, end = json.dumps({"resourceSpans": [process]}, separators=(",", ":")).partition('"%"')
    return begin, end


def _export(path: Path, spans: int) -> None:
    """Spans of steps of several kinds, half of them leaves."""
    from opentelemetry.exporter.otlp.json.file import FileSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from benchmarks.report import NODES
    from routed_agents import Ledger, Policy, Router, Step, Telemetry

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(FileSpanExporter(path), max_queue_size=2 * spans, max_export_batch_size=BATCH))
    with Ledger.memory() as ledger:
        router = Router(Policy.default(), ledger=ledger, telemetry=Telemetry(tracer_provider=provider))
        classes = ("classification", "extraction", "summarization", "agentic_chain")
        for number in range(spans // 2):
            step = Step.from_messages("late", node=[*NODES][number % len(NODES)], task_class=classes[number * 7 % len(classes)])
            usage = {"input_tokens": 400 + number % 977, "output_tokens": 12 + number % 83}
            with router.step(step) as call:
                for attempt in call.attempts():
                    with attempt:
                        attempt.record({"model": attempt.model, "content": "ok", "stop_reason": "end_turn", "usage": usage})
    provider.shutdown()


def peak_mb(file: Path, query: str) -> int:
    """The memory that `trace sql` takes, in an interpreter of its own; what it prints goes nowhere."""
    code = (
        "import sys; from routed_agents.cli import main; main(sys.argv[1:]); "
        "print([line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "trace", "sql", str(file), query, "--json"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return int(done.stderr.split()[-1]) // 1024


def compared(file: Path, question: Question, *, rounds: int, note: str) -> Comparison:
    """`trace sql` beside both ways by hand; all three must give the same answer."""
    import duckdb

    from routed_agents.offline.sql import Spans

    def by_hand(query: str) -> Callable[[], list[tuple[Any, ...]]]:
        def ask() -> list[tuple[Any, ...]]:
            with duckdb.connect() as connection:
                return [question.plain(row) for row in connection.execute(query.replace("{file}", str(file))).fetchall()]

        return ask

    def through_view() -> list[tuple[Any, ...]]:
        with Spans(file) as found:
            return [tuple(row) for row in found.ask(question.asked)[1]]

    cases = {
        "DuckDB by hand, JSON paths": by_hand(question.paths),
        "DuckDB by hand, typed columns": by_hand(question.typed),
        "trace sql": through_view,
    }
    answers = [case() for case in cases.values()]
    if not answers[0] or any(each != answers[0] for each in answers):
        raise AssertionError(f"{question.title}: the answers differ: {answers}")
    return compare(f"trace sql: {question.title}", cases, rounds=rounds, calls=1, warmup=0, note=note)


def run(*, rounds: int = 5, spans: int = SPANS) -> list[Comparison]:
    """Compare every question on one file, and print the memory that files of a tenth of the spans and of all of them take."""
    with tempfile.TemporaryDirectory() as folder:
        small, file = Path(folder) / "small.jsonl", Path(folder) / "trace.jsonl"
        began = time.perf_counter()
        make_trace(small, spans // 10)
        make_trace(file, spans)
        size = f"{spans:,} spans, {file.stat().st_size >> 20} MB"
        sys.stdout.write(f"{size} written in {time.perf_counter() - began:.0f} s\n")
        for query in (QUESTIONS[0].asked, "SELECT trace_id, name, started, cost FROM spans"):
            sys.stdout.write(f"peak MB at {spans // 10:,} and {spans:,} spans: {peak_mb(small, query)}, {peak_mb(file, query)} ({query})\n")
        sys.stdout.flush()
        return [compared(file, each, rounds=min(rounds, 5), note=f"{size}; the same answer from each") for each in QUESTIONS]
