"""Asks a trace file in SQL, through DuckDB."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routed_agents.errors import ConfigurationError, ExtraMissing
from routed_agents.offline.lines import BOM, GZIP, ahead, lines, opened
from routed_agents.telemetry import names

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

UNOWNED: Final = (
    "each AS (SELECT json ->> '$.service' AS service, json ->> '$.scope' AS scope, "
    "unnest(json_extract(json, '$.resourceSpans[*].scopeSpans[*].spans[*]')) AS span FROM lines)"
)
"""The spans of the lines; scope and service are not worked out, and stand there to be seen in the plan of a query that uses them."""
OWNED: Final = (
    "scopes AS (SELECT list_transform(json_extract(json, '$.resourceSpans[*]'), lambda process: {"
    "service: list_filter(json_extract(process, '$.resource.attributes[*]'), lambda pair: pair ->> '$.key' = 'service.name')[1] "
    "->> '$.value.stringValue', "
    "parts: list_transform(json_extract(process, '$.scopeSpans[*]'), lambda part: {"
    "scope: part ->> '$.scope.name', spans: json_extract(part, '$.spans[*]')})}) AS processes FROM lines), "
    "owned AS (SELECT unnest(flatten(list_transform(processes, lambda process: flatten(list_transform(process.parts, lambda part: "
    "list_transform(part.spans, lambda span: {service: process.service, scope: part.scope, span: span})))))) AS one FROM scopes), "
    "each AS (SELECT one.service AS service, one.scope AS scope, one.span AS span FROM owned)"
)
"""The spans with scope and service. All levels are lists, with one unnest at the end: DuckDB unnests 2,048 rows at a time, and as many
resources can be gigabytes."""
ONCE: Final = "once AS (SELECT DISTINCT ON (span ->> '$.traceId', COALESCE(span ->> '$.spanId', CAST(uuid() AS VARCHAR))) * FROM each)"
"""Every span once, where a file was written twice; one without an id is nobody's copy."""
SPAN_IDS: Final = "json_extract_string(json, '$.resourceSpans[*].scopeSpans[*].spans[*].spanId')"
LONGEST: Final = 16 << 20
"""Bytes of the longest line that DuckDB takes unasked; it keeps twice as many for every thread."""
OWNERS: Final = re.compile(r"\b(scope|service)\b")
PAIR: Final = "lambda pair: {k: pair ->> '$.key', v: json_extract_string(pair, '$.value.*')[1]}"
TEXTS: Final = {
    "node": names.NODE,
    "task_class": names.TASK_CLASS,
    "tier": names.TIER,
    "decided_tier": names.DECIDED_TIER,
    "model": names.LLM_MODEL,
    "request_model": names.REQUEST_MODEL,
    "provider": names.PROVIDER,
    "thread": names.CONVERSATION,
    "step": names.STEP,
    "outcome": names.OUTCOME,
    "reason": names.REASON,
    "error": names.ERROR_TYPE,
    "mode": names.MODE,
    "graph": names.GRAPH,
}
WHOLE: Final = {
    "attempt": names.ATTEMPT,
    "input_tokens": names.INPUT_TOKENS,
    "output_tokens": names.OUTPUT_TOKENS,
    "cached_tokens": names.CACHE_READ_TOKENS,
}
MONEY: Final = {"cost": names.COST_PICO, "baseline": names.BASELINE_PICO}
FLAGS: Final = {"pinned": names.PINNED, "simulated": names.SIMULATED}
PICO: Final = "CAST('0.000000000001' AS DECIMAL(13, 12))"
DOLLARS: Final = "DECIMAL(38, 12)"
"""Pico-dollars are exact in it. A span without a price has NULL, which no sum takes for nothing."""


class Spans:
    """A trace file as the view `spans`. Use it as a context.

    One row a span, also where it stands in the file twice: trace_id, span_id, parent_id, name, kind, scope, service, started, ended,
    seconds, status; what the columns of TEXTS, WHOLE, MONEY and FLAGS name; and `attributes`, a map of all of them as text. Nothing but
    the file can be read, and nothing written.

    Args:
        path: OTLP JSON lines, plain or gzipped.
        skip: pass over lines that are no JSON, such as the torn last one of a process that died, and the cut end of a gzipped file.

    Raises:
        ConfigurationError: the extra `report` is missing, the file cannot be read, or it holds no trace.
    """

    def __init__(self, path: str | Path, *, skip: bool = False) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise ExtraMissing("trace sql needs DuckDB, which isn't installed", "report") from error
        place = Path(path).absolute()
        if not place.is_file():
            raise ConfigurationError(f"trace file {path} does not exist; name one that run --trace or configure(trace_file=...) wrote")
        if not _holds_trace(place):
            raise ConfigurationError(
                f"{path} holds no trace; wanted OTLP JSON lines as configure(trace_file=...) writes; name another file"
            )
        self._held = ExitStack()
        if _needs_copy(place, skip=skip):
            place = _copied(place, Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="routed-agents-"))))
        self._error: type[Exception] = duckdb.Error
        self._source = partial(source, str(place), skip=skip)
        self._view = partial(view, self._source())
        self._looked = False
        self._place = place
        self._connection: DuckDBPyConnection = self._held.enter_context(duckdb.connect(":memory:"))
        self._connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET allowed_paths = [{_quoted(str(place))}]; SET enable_external_access = false")
        try:
            self._connection.execute(self._view(owners=True))  # which already looks at the file
        except duckdb.Error as error:
            self._held.close()
            raise self._refused(error) from error
        self._connection.execute("SET lock_configuration = true")

    def __enter__(self) -> Spans:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def ask(self, query: str) -> tuple[tuple[str, ...], Iterator[Sequence[Any]]]:
        """The names of the columns, and the rows, streamed.

        Raises:
            ConfigurationError: DuckDB refuses the query; its message says why.
        """
        try:
            self._look()
            if not self._connection.extract_statements(query):
                raise ConfigurationError("the query is empty; ask something like 'SELECT tier, sum(cost) FROM spans GROUP BY tier'")
            self._connection.execute(self._view(owners=self._asks_for_owners(query)))
            self._connection.execute(query)
            described = self._connection.description or []
            return tuple([str(column[0]) for column in described]), self._rows()
        except self._error as error:
            raise self._refused(error) from error

    def _look(self) -> None:
        """Read the file once, before the first question: for a line that is no JSON or very long, and for spans that stand there twice."""
        if self._looked:
            return
        try:
            twice = self._any_twice()
        except self._error as error:
            if "maximum_object_size" not in str(error):
                raise
            self._source = partial(self._source, longest=_longest(self._place))
            twice = self._any_twice()
        self._view, self._looked = partial(view, self._source(), once=twice), True

    def _any_twice(self) -> bool:
        ids = f"SELECT unnest({SPAN_IDS}) AS id FROM {self._source()}"
        found = self._connection.execute(f"SELECT count(id) > count(DISTINCT hash(id)) FROM ({ids}) WHERE id IS NOT NULL").fetchone()
        return found is not None and bool(found[0])

    def _asks_for_owners(self, query: str) -> bool:
        """Whether a query uses the columns that name a span's scope and service; DuckDB's own plan for it tells."""
        try:
            statements = self._connection.extract_statements(query)
            if len(statements) != 1:
                return True
            self._connection.execute(self._view(owners=False))
            plan = self._connection.execute(f"EXPLAIN (FORMAT json) {statements[0].query}").fetchall()
        except self._error:
            return True  # nothing that has a plan, or nothing that DuckDB takes: it says so when it is asked
        return any(OWNERS.search(str(cell)) for row in plan for cell in row)

    def _rows(self) -> Iterator[Sequence[Any]]:
        while True:
            try:
                rows = self._connection.fetchmany(1_000)
            except self._error as error:
                raise self._refused(error) from error
            if not rows:
                return
            yield from rows

    def _refused(self, error: Exception) -> ConfigurationError:
        told = str(error)
        unreadable = "alformed JSON" in told or "gzip" in told.lower()
        return Unreadable(told) if unreadable else ConfigurationError(f"the query is refused: {told}")


class Unreadable(ConfigurationError):
    """A line of the file is no JSON, or the file is gzipped and cut."""


def _holds_trace(path: Path) -> bool:
    """Looks as far as the first export; an empty file is a trace without spans."""
    empty = True
    with opened(path) as file:
        for _, line, broken in lines(file):
            if b'"resourceSpans"' in line:
                return True
            empty = empty and broken is None and not line.strip()
    return empty


def _needs_copy(path: Path, *, skip: bool) -> bool:
    with path.open("rb") as file:
        packed = ahead(file) == GZIP
    with opened(path) as plain:
        return (skip and packed) or plain.read(len(BOM)) == BOM


def _copied(path: Path, folder: Path) -> Path:
    """A copy without what DuckDB cannot read: the byte order mark before the first line, or what comes after a gzipped file breaks off."""
    copied = folder / "trace.jsonl"
    with opened(path) as file, copied.open("wb") as plain:
        for number, line, _ in lines(file):
            plain.write(line.removeprefix(BOM) if number == 1 else line)
    return copied


def _longest(path: Path) -> int:
    """Bytes of the longest line, and no fewer than DuckDB takes unasked."""
    with opened(path) as file:
        return max(LONGEST, *[len(line) + 1 for _, line, _ in lines(file)])


def source(path: str, *, skip: bool = False, longest: int = LONGEST) -> str:
    """What reads the lines of a file.

    Args:
        path: of the file.
        skip: pass over lines that are no JSON.
        longest: bytes of the longest line.
    """
    with Path(path).open("rb") as file:
        packing = "gzip" if ahead(file) == GZIP else "uncompressed"
    return (
        f"read_json_objects({_quoted(path)}, format = 'newline_delimited', compression = '{packing}', "
        f"maximum_object_size = {longest}, ignore_errors = {'true' if skip else 'false'})"
    )


def view(source: str, *, owners: bool, once: bool = False) -> str:
    """The statement that makes the view; only the columns that a query uses are worked out.

    Everything is taken out of the text with JSON paths: to read a file's attributes into lists of structs first takes three times as
    long, however few of them a query uses.

    Args:
        source: what reads the lines.
        owners: work out the columns `scope` and `service`, which takes more than half as long again.
        once: leave out spans that stand there a second time, which takes memory for all of them.
    """
    attributes = {**TEXTS, **WHOLE, **MONEY, **FLAGS}
    found = [f"{_place(name)} AS {column}" for column, name in attributes.items()]
    columns = [
        "span ->> '$.traceId' AS trace_id",
        "span ->> '$.spanId' AS span_id",
        "NULLIF(span ->> '$.parentSpanId', '') AS parent_id",
        "span ->> '$.name' AS name",
        f"{_enum('$.kind', ('unspecified', 'internal', 'server', 'client', 'producer', 'consumer'), 'SPAN_KIND_')} AS kind",
        "scope",
        "service",
        "make_timestamp_ns(CAST(span ->> '$.startTimeUnixNano' AS BIGINT)) AS started",
        "make_timestamp_ns(CAST(span ->> '$.endTimeUnixNano' AS BIGINT)) AS ended",
        "(CAST(span ->> '$.endTimeUnixNano' AS BIGINT) - CAST(span ->> '$.startTimeUnixNano' AS BIGINT)) / 1e9 AS seconds",
        f"{_enum('$.status.code', ('unset', 'ok', 'error'), 'STATUS_CODE_')} AS status",
        *[f"{_attribute(column, name)} AS {column}" for column, name in TEXTS.items()],
        *[f"CAST({_attribute(column, name, 'intValue')} AS BIGINT) AS {column}" for column, name in WHOLE.items()],
        *[
            f"CAST(CAST({_attribute(column, name, 'intValue')} AS DECIMAL(25, 0)) * {PICO} AS {DOLLARS}) AS {column}"
            for column, name in MONEY.items()
        ],
        *[f"CAST({_attribute(column, name, 'boolValue')} AS BOOLEAN) AS {column}" for column, name in FLAGS.items()],
        f"map_from_entries(list_transform(json_extract(span, '$.attributes[*]'), {PAIR})) AS attributes",
    ]
    spans, counted = OWNED if owners else UNOWNED, f"{ONCE}, " if once else ""
    return (
        f"CREATE OR REPLACE VIEW spans AS WITH lines AS (SELECT json FROM {source}), {spans}, {counted}"
        f"keyed AS (SELECT *, json_extract_string(span, '$.attributes[*].key') AS keys FROM {'once' if once else 'each'}), "
        f"found AS (SELECT span, scope, service, {', '.join(found)} FROM keyed) "
        f"SELECT {', '.join(columns)} FROM found"
    )


def _place(name: str) -> str:
    """The attribute at the place that its name has among the names, as JSON."""
    return f"json_extract(span, '$.attributes[' || (list_position(keys, {_quoted(name)}) - 1) || ']')"


def _attribute(column: str, name: str, kind: str = "stringValue") -> str:
    """The value of what stands at an attribute's place; one without a name, which nobody should write, has shifted the places."""
    named, value = f"'$.key' = {_quoted(name)}", f"'$.value.{kind}'"
    sought = f"list_filter(json_extract(span, '$.attributes[*]'), lambda pair: pair ->> {named})[1]"
    return f"CASE WHEN {column} ->> {named} THEN {column} ->> {value} WHEN {column} IS NOT NULL THEN {sought} ->> {value} END"


def _enum(path: str, known: Sequence[str], prefix: str) -> str:
    value = f"COALESCE(span ->> '{path}', '0')"
    cases = " ".join([f"WHEN '{number}' THEN '{name}'" for number, name in enumerate(known)])
    return f"CASE {value} {cases} ELSE lower(replace({value}, '{prefix}', '')) END"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
