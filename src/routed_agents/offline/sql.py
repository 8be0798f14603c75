"""Asks a trace file in SQL, through DuckDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routed_agents.errors import ConfigurationError
from routed_agents.telemetry import names

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VALUE: Final = "STRUCT(stringValue VARCHAR, intValue VARCHAR, doubleValue VARCHAR, boolValue BOOLEAN, arrayValue JSON, kvlistValue JSON)"
PAIRS: Final = f'STRUCT("key" VARCHAR, "value" {VALUE})[]'
SPAN: Final = (
    "STRUCT(traceId VARCHAR, spanId VARCHAR, parentSpanId VARCHAR, name VARCHAR, kind VARCHAR, startTimeUnixNano VARCHAR, "
    f"endTimeUnixNano VARCHAR, attributes {PAIRS}, status STRUCT(code VARCHAR, message VARCHAR))"
)
SHAPE: Final = f"STRUCT(resource STRUCT(attributes {PAIRS}), scopeSpans STRUCT(scope STRUCT(name VARCHAR), spans {SPAN}[])[])[]"
PLAIN: Final = (
    'v."value".stringValue, v."value".intValue, v."value".doubleValue, CAST(v."value".boolValue AS VARCHAR), '
    'CAST(v."value".arrayValue AS VARCHAR), CAST(v."value".kvlistValue AS VARCHAR)'
)
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
PICO: Final = "CAST('0.000000000001' AS DECIMAL(13, 12))"
DOLLARS: Final = "DECIMAL(38, 12)"
"""Pico-dollars are exact in it. A span without a price has NULL, which no sum takes for nothing."""


class Spans:
    """A trace file as the view `spans`. Close it, or use it as a context.

    One row a span: trace_id, span_id, parent_id, name, kind, scope, service, started, ended, seconds, status; what the columns
    of TEXTS, WHOLE and MONEY name; pinned, simulated; and `attributes`, a map of all of them as text. Nothing but the file
    can be read, and nothing written.

    Args:
        path: OTLP JSON lines, plain or gzipped.
        skip: pass over lines that are no JSON, such as the torn last one of a process that died.

    Raises:
        ConfigurationError: the extra `report` is missing, or the file cannot be read.
    """

    def __init__(self, path: str | Path, *, skip: bool = False) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise ConfigurationError(
                "trace sql needs DuckDB, which isn't installed; add it: pip install 'routed-agents[report]'"
            ) from error
        place = Path(path).absolute()
        if not place.is_file():
            raise ConfigurationError(f"trace file {path} does not exist; name one that run --trace or configure(trace_file=...) wrote")
        self._error: type[Exception] = duckdb.Error
        self._connection: DuckDBPyConnection = duckdb.connect(":memory:")
        self._connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET allowed_paths = [{_quoted(str(place))}]; SET enable_external_access = false")
        try:
            self._connection.execute(view(str(place), skip=skip))  # which already looks at the file
        except duckdb.Error as error:
            self._connection.close()
            raise self._refused(error) from error
        self._connection.execute("SET lock_configuration = true")

    def __enter__(self) -> Spans:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, query: str) -> tuple[tuple[str, ...], Iterator[Sequence[Any]]]:
        """The names of the columns, and the rows, streamed.

        Raises:
            ConfigurationError: DuckDB refuses the query; its message says why.
        """
        try:
            self._connection.execute(query)
            described = self._connection.description or []
            return tuple([str(column[0]) for column in described]), self._rows()
        except self._error as error:
            raise self._refused(error) from error

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
        return Unreadable(str(error)) if "alformed JSON" in str(error) else ConfigurationError(f"the query is refused: {error}")


class Unreadable(ConfigurationError):
    """A line of the file is no JSON."""


def view(path: str, *, skip: bool = False) -> str:
    """The statement that makes the view; only the columns that a query uses are worked out."""
    read = (
        f"SELECT unnest(resourceSpans) AS process FROM read_json({_quoted(path)}, format = 'newline_delimited', "
        f"columns = {{resourceSpans: {_quoted(SHAPE)}}}, ignore_errors = {'true' if skip else 'false'}, auto_detect = false)"
    )
    columns = [
        "span.traceId AS trace_id",
        "span.spanId AS span_id",
        "NULLIF(span.parentSpanId, '') AS parent_id",
        "span.name AS name",
        f"{_enum('span.kind', ('unspecified', 'internal', 'server', 'client', 'producer', 'consumer'), 'SPAN_KIND_')} AS kind",
        "scope",
        "service",
        "make_timestamp_ns(CAST(span.startTimeUnixNano AS BIGINT)) AS started",
        "make_timestamp_ns(CAST(span.endTimeUnixNano AS BIGINT)) AS ended",
        "(CAST(span.endTimeUnixNano AS BIGINT) - CAST(span.startTimeUnixNano AS BIGINT)) / 1e9 AS seconds",
        f"{_enum('span.status.code', ('unset', 'ok', 'error'), 'STATUS_CODE_')} AS status",
        *[f"{_attribute(name)} AS {column}" for column, name in TEXTS.items()],
        *[f"CAST({_attribute(name, 'intValue')} AS BIGINT) AS {column}" for column, name in WHOLE.items()],
        *[
            f"CAST(CAST({_attribute(name, 'intValue')} AS DECIMAL(25, 0)) * {PICO} AS {DOLLARS}) AS {column}"
            for column, name in MONEY.items()
        ],
        f"{_attribute(names.PINNED, 'boolValue')} AS pinned",
        f"{_attribute(names.SIMULATED, 'boolValue')} AS simulated",
        f'map_from_entries(list_transform(span.attributes, lambda v: {{k: v."key", v: COALESCE({PLAIN})}})) AS attributes',
    ]
    # Each level is unnested alone: a column beside an unnest is copied for every row of it, and a batch has hundreds of spans.
    return (
        f"CREATE VIEW spans AS WITH processes AS ({read}), "
        f"served AS (SELECT {_attribute('service.name', of='process.resource')} AS service, process.scopeSpans AS parts FROM processes), "
        "scopes AS (SELECT service, unnest(parts) AS part FROM served), "
        "named AS (SELECT service, part.scope.name AS scope, part.spans AS spans FROM scopes), "
        "each AS (SELECT service, scope, unnest(spans) AS span FROM named) "
        f"SELECT {', '.join(columns)} FROM each"
    )


def _attribute(name: str, kind: str = "stringValue", *, of: str = "span") -> str:
    # the one field a name's values have; looking through all of them takes four times as long
    return f'list_filter({of}.attributes, lambda v: v."key" = {_quoted(name)})[1]."value".{kind}'


def _enum(value: str, known: Sequence[str], prefix: str) -> str:
    cases = " ".join([f"WHEN '{number}' THEN '{name}'" for number, name in enumerate(known)])
    return f"CASE COALESCE({value}, '0') {cases} ELSE lower(replace({value}, '{prefix}', '')) END"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
