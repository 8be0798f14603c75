"""Puts the model calls of ledgers and trace files into one scratch database, so that any number of them is added up in little memory."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from routed_agents.errors import ConfigurationError
from routed_agents.ledger import to_read
from routed_agents.ledger.sums import ESTIMATED, OUTPUT_UNKNOWN
from routed_agents.offline.traces import Trouble, read_spans, warn
from routed_agents.telemetry import names
from routed_agents.telemetry.runs import SpanRecord

Dimension = Literal["class", "tier", "node", "reason"]

CHUNK: Final = 2_000
HALF: Final = 10**9
"""SQLite refuses a sum beyond 64 bits, 9.2 million dollars in pico-dollars, so sums are taken in two halves."""
SECOND: Final = 10**9
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
WIDTHS: Final = (
    *(SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, DAY),
    *(7 * DAY, 28 * DAY, 91 * DAY, 364 * DAY, 3640 * DAY),
)
"""How long a bar of a chart over time may be."""
MONDAY: Final = 4 * DAY
"""The first Monday after the epoch, where weeks begin."""
BUCKETS: Final = 48
CELLS: Final = 12_000
KEPT: Final[Mapping[Dimension, int]] = {"class": 20, "tier": 6, "node": 24, "reason": 20}
"""How many values of a dimension keep their name; the cheapest of more are put together."""

SCHEMA: Final = """
CREATE TABLE calls (
    seq INTEGER PRIMARY KEY, step TEXT, attempt INTEGER, kind TEXT, thread TEXT, run TEXT, node TEXT, class TEXT, tier TEXT,
    model TEXT, codes TEXT, reason TEXT, outcome TEXT, error TEXT, cost INTEGER, baseline INTEGER, baseline_model TEXT,
    cache_aware INTEGER, input INTEGER, output INTEGER, cached INTEGER, simulated INTEGER, started INTEGER, ended INTEGER,
    estimated INTEGER, output_unknown INTEGER
);
CREATE INDEX calls_by_step ON calls (step, attempt, ended);
CREATE TABLE outcomes (thread TEXT PRIMARY KEY, solved INTEGER);
"""
REASON: Final = "COALESCE(json_extract({codes}, '$[0]'), CASE WHEN {pinned} THEN 'pinned before' ELSE 'proposed' END)"
FROM_LEDGER: Final = f"""
INSERT INTO calls SELECT
    NULL, step_id, attempt, kind, thread, run, COALESCE(node, task_class), task_class, tier, COALESCE(served_model, model), codes,
    {REASON.format(codes="codes", pinned="pinned")}, outcome, error, cost_pico, baseline_pico, baseline_model, cache_aware_saving_pico,
    input + cache_read + cache_write_5m + cache_write_1h, output, cache_read, simulated, started_ns, ended_ns,
    {ESTIMATED}, {OUTPUT_UNKNOWN}
FROM ledger.entries ORDER BY seq
"""
FROM_SPAN: Final = f"""
INSERT INTO calls SELECT
    NULL, :step, :attempt, :kind, :thread, :run, :node, :class, :tier, :model, :codes,
    {REASON.format(codes=":codes", pinned=":pinned")}, :outcome, :error, :cost, :baseline, :baseline_model, NULL,
    :input, :output, :cached, :simulated, :started, :ended, :estimated, :output_unknown
WHERE NOT EXISTS (SELECT 1 FROM calls WHERE step = :step AND attempt = :attempt AND ended = :ended)
"""


def _halves(name: str, high: str, low: str) -> str:
    """A sum in two halves, which may be sorted by and added up again; NULL where nothing is added up."""
    return f"SUM({high}) + SUM({low}) / {HALF} AS {name}_high, SUM({low}) % {HALF} AS {name}_low"


COST: Final = _halves("cost", "cost_high", "cost_low")
BASELINE: Final = _halves("baseline", "baseline_high", "baseline_low")
SAVING: Final = _halves(
    "saving", "CASE WHEN comparable THEN baseline_high - cost_high END", "CASE WHEN comparable THEN baseline_low - cost_low END"
)
"""Sums over steps or chains, whose own sums are in halves."""
DEAREST: Final = "COALESCE(cost_high, 0) DESC, COALESCE(cost_low, 0) DESC"
STEPS: Final = f"""
CREATE TABLE steps AS SELECT
    step, COALESCE(MAX(CASE kind WHEN 'attempt' THEN seq END), MAX(seq)) AS answered, COALESCE(MAX(thread), MAX(run), step) AS chain,
    CASE WHEN MAX(thread) IS NOT NULL THEN 'thread' WHEN MAX(run) IS NOT NULL THEN 'run' ELSE 'step' END AS chain_kind,
    COUNT(*) AS calls, COUNT(*) - COUNT(cost) AS unpriced, SUM(estimated) AS estimated, SUM(output_unknown) AS output_unknown,
    {_halves("cost", f"cost / {HALF}", f"cost % {HALF}")}, {_halves("baseline", f"baseline / {HALF}", f"baseline % {HALF}")},
    COUNT(*) = COUNT(cost) AND COUNT(baseline) > 0 AND NOT SUM(output_unknown) AS comparable,
    SUM(kind = 'attempt') AS attempts, MIN(started) AS started, MAX(ended) AS ended,
    SUM(input) AS input, SUM(output) AS output, SUM(cached) AS cached, MAX(simulated) AS simulated
FROM calls GROUP BY step;
CREATE INDEX steps_by_step ON steps (step);
CREATE TABLE chains AS SELECT
    chain, MAX(chain_kind) AS kind, COUNT(*) AS steps, {COST}, {BASELINE}, {SAVING}, SUM(unpriced) AS unpriced, SUM(calls) AS calls,
    SUM(estimated) AS estimated, SUM(output_unknown) AS output_unknown, SUM(attempts > 1) AS again,
    MIN(started) AS started, MAX(ended) AS ended, MAX(simulated) AS simulated
FROM steps GROUP BY chain;
CREATE INDEX steps_by_chain ON steps (chain);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Calls that are alike in every dimension and began in the same stretch of time, added up.

    Attributes:
        bucket: which stretch, from 0.
        steps: steps whose answering call is here.
        entries: calls here, judging ones too.
        saving: baseline less cost, over the steps for which both are fully known.
    """

    bucket: int
    values: tuple[int, int, int, int]
    steps: int
    attempts: int
    entries: int
    unpriced: int
    estimated: int
    output_unknown: int
    simulated: int
    tokens: int
    cost: int
    baseline: int
    saving: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cube:
    """All calls by time and by each dimension; every view that filters and groups them can be had from it.

    Attributes:
        start_ns: where the first stretch begins.
        width_ns: how long each is.
        names: the values of each dimension; a cell names them by position.
        folded: how many further values of a dimension the last name stands for.
    """

    start_ns: int
    width_ns: int
    buckets: int
    names: Mapping[Dimension, tuple[str, ...]]
    folded: Mapping[Dimension, int]
    cells: tuple[Cell, ...]


DIMENSIONS: Final[tuple[Dimension, ...]] = ("class", "tier", "node", "reason")
OTHERS: Final = "(others)"


class Calls:
    """Model calls from ledgers and traces, each counted once. Close it, or use it as a context; it keeps its rows in a temporary file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="routed-agents-")
        self._db = sqlite3.connect(Path(self._folder.name) / "calls.db", isolation_level=None, uri=True)
        self._db.row_factory = sqlite3.Row
        # a file nobody will open again needs no journal
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", "cache_size = -2000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)
        self._counted = False

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._db.close()
        self._folder.cleanup()

    def add_ledger(self, path: str | Path) -> None:
        """Take every entry of a ledger file. Add ledgers before traces: they hold more of the same calls.

        Raises:
            ConfigurationError: the file is no ledger.
        """
        self._counted = False
        try:
            self._db.execute("ATTACH ? AS ledger", (to_read(Path(path)),))
            self._db.execute(FROM_LEDGER)
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path} cannot be read as a ledger: {error}; name a file that Ledger.sqlite wrote") from error
        finally:
            with suppress(sqlite3.Error):
                self._db.execute("DETACH ledger")

    def add_trace(self, path: str | Path, *, on_trouble: Callable[[Trouble], None] = warn) -> None:
        """Take the leaf spans of ours from an OTLP JSON file; a call that is already here, from a ledger or another file, is passed over.

        Raises:
            ConfigurationError: the file holds no trace.
        """
        self.add_spans(read_spans(path, on_trouble=on_trouble))

    def add_spans(self, spans: Iterable[SpanRecord]) -> None:
        """Take the leaf spans of ours among these."""
        self._counted = False
        leaves = (_row(span) for span in spans if span.is_leaf)
        self._db.execute("BEGIN")
        while rows := list(islice(leaves, CHUNK)):
            self._db.executemany(FROM_SPAN, rows)
        self._db.execute("COMMIT")

    def add_outcomes(self, outcomes: Iterable[tuple[str, bool]]) -> None:
        """Say which threads solved their task; the last word on a thread holds."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", outcomes)
        self._db.execute("COMMIT")

    # ---- adding up ----------------------------------------------------------------------------------------------------

    def totals(self) -> dict[str, Any]:
        """Everything added up; money in pico-dollars."""
        self._count()
        row = self._one(
            f"SELECT COUNT(*) AS entries, SUM(kind = 'attempt') AS attempts, COUNT(*) - COUNT(cost) AS unpriced,"
            " SUM(estimated) AS estimated, SUM(output_unknown) AS output_unknown, SUM(simulated) AS simulated,"
            f" SUM(input + output) AS tokens, MIN(started) AS started, MAX(ended) AS ended, COUNT(cache_aware) AS cache_aware_known,"
            f" {_sum('cost')}, {_sum('baseline')}, {_sum('cache_aware')} FROM calls"
        )
        steps = self._one(f"SELECT COUNT(*) AS steps, SUM(comparable) AS compared, {SAVING} FROM steps")
        chains = self._one("SELECT COUNT(*) AS chains, SUM(kind = 'thread') AS threads FROM chains")
        models = [name for (name,) in self._db.execute("SELECT DISTINCT baseline_model FROM calls WHERE baseline_model <> '' ORDER BY 1")]
        whole = _joined(row, "cost", "baseline", "cache_aware") | _joined(steps, "saving") | dict(chains)
        return {key: 0 if value is None else value for key, value in whole.items()} | {"baseline_models": models}

    def thread_costs(self) -> dict[str, int] | None:
        """What threads cost, in pico-dollars: how many are fully known, their mean, median, and what a tenth cost more than."""
        self._count()
        where = "FROM chains WHERE kind = 'thread' AND unpriced = 0 AND output_unknown = 0"
        row = self._one(f"SELECT COUNT(*) AS threads, {COST} {where}")
        found = _joined(row, "cost")
        if not found["threads"]:
            return None
        ranks = {"median": (found["threads"] - 1) // 2, "high": (found["threads"] - 1) * 9 // 10}
        picked = {
            name: _joined(
                self._db.execute(f"SELECT cost_high, cost_low {where} ORDER BY cost_high, cost_low LIMIT 1 OFFSET ?", (rank,)).fetchone(),
                "cost",
            )["cost"]
            for name, rank in ranks.items()
        }
        return {"threads": found["threads"], "mean": found["cost"] // found["threads"], **picked}

    def solved(self) -> dict[str, int] | None:
        """Threads whose outcome is known: how many, how many solved their task, and what all of them cost."""
        self._count()
        row = self._one(
            f"SELECT COUNT(*) AS known, SUM(solved) AS solved, SUM(unpriced) AS unpriced, SUM(output_unknown) AS output_unknown, {COST}"
            " FROM chains JOIN outcomes ON outcomes.thread = chains.chain WHERE kind = 'thread'"
        )
        return _joined(row, "cost") if row["known"] else None

    def cube(self, *, most: int = CELLS) -> Cube:
        """All calls by time and dimension, in stretches short enough to show something and few enough cells to send."""
        self._count()
        named: dict[Dimension, tuple[list[str], int]] = {each: self._names(each) for each in DIMENSIONS}
        self._db.execute("DROP TABLE IF EXISTS folds")
        self._db.execute(
            "CREATE TEMP TABLE folds (dimension TEXT, name TEXT, position INTEGER, PRIMARY KEY (dimension, name)) WITHOUT ROWID"
        )
        for dimension, (kept, _) in named.items():
            self._db.executemany("INSERT INTO folds VALUES (?, ?, ?)", [(dimension, name, place) for place, name in enumerate(kept)])
        first, last = self._db.execute("SELECT MIN(started), MAX(started) FROM calls").fetchone()
        first, last = first or 0, last or 0
        cells: list[Cell] = []
        start, width, count = 0, WIDTHS[-1], 1
        for width in WIDTHS:
            start = (first - MONDAY) // width * width + MONDAY if width > DAY else first // width * width
            count = (last - start) // width + 1
            if count > BUCKETS and width != WIDTHS[-1]:
                continue
            cells = list(self._cells(start, width, named))
            if len(cells) <= most:
                break
        return Cube(
            start_ns=start,
            width_ns=width,
            buckets=count,
            names={each: (*kept, *([OTHERS] if folded else [])) for each, (kept, folded) in named.items()},
            folded={each: folded for each, (_, folded) in named.items()},
            cells=tuple(cells),
        )

    def dearest_steps(self, limit: int, *, chain: str | None = None) -> list[dict[str, Any]]:
        """The steps that cost most, dearest first, each with its calls; an unpriced one comes where its priced calls put it."""
        self._count()
        where = "" if chain is None else "WHERE chain = ?"
        rows = self._db.execute(
            f"SELECT * FROM steps {where} ORDER BY {DEAREST}, started, step LIMIT ?",
            (*([chain] if chain is not None else []), limit),
        ).fetchall()
        return [self._with_calls(row) for row in rows]

    def dearest_chains(self, limit: int) -> list[dict[str, Any]]:
        """The threads that cost most, dearest first; what has no thread counts by its run, or alone."""
        self._count()
        rows = self._db.execute(f"SELECT * FROM chains ORDER BY {DEAREST}, steps DESC, chain LIMIT ?", (limit,))
        return [_joined(row, "cost", "baseline", "saving") for row in rows.fetchall()]

    def escalations(self, limit: int) -> list[dict[str, Any]]:
        """Attempts that were followed by another one, by where they went and why; with what the lost ones cost."""
        self._count()
        rows = self._db.execute(
            f"""
            WITH tried AS (
                SELECT calls.*, LEAD(calls.tier) OVER later AS next_tier, LEAD(calls.attempt) OVER later AS next_attempt
                FROM calls JOIN steps USING (step) WHERE kind = 'attempt' AND attempts > 1
                WINDOW later AS (PARTITION BY step ORDER BY seq)
            )
            SELECT tier, next_tier, class, node, COUNT(*) AS times, COUNT(*) - COUNT(cost) AS unpriced,
                SUM(estimated) AS estimated, SUM(output_unknown) AS output_unknown, {_sum("cost")},
                CASE outcome WHEN 'failed' THEN COALESCE(error, outcome) ELSE
                    COALESCE((SELECT value FROM json_each(codes) WHERE value LIKE 'check:%' LIMIT 1), outcome) END AS why
            FROM tried WHERE next_attempt > attempt AND outcome IN ('rejected', 'failed')
            GROUP BY tier, next_tier, class, node, why ORDER BY times DESC, why, class, node LIMIT ?""",
            (limit,),
        )
        return [_joined(row, "cost") for row in rows.fetchall()]

    def _with_calls(self, row: sqlite3.Row) -> dict[str, Any]:
        # a step id that its author uses again and again has no end of calls
        calls = self._db.execute("SELECT * FROM calls WHERE step = ? ORDER BY seq LIMIT 12", (row["step"],)).fetchall()
        answered = self._db.execute("SELECT * FROM calls WHERE seq = ?", (row["answered"],)).fetchone()
        return _joined(row, "cost", "baseline") | {
            "node": answered["node"],
            "class": answered["class"],
            "tier": answered["tier"],
            "model": answered["model"],
            "reason": answered["reason"],
            "outcome": answered["outcome"],
            "run": answered["run"],
            "tried": [dict(call) for call in calls],
        }

    def _count(self) -> None:
        if self._counted:
            return
        self._db.executescript(f"DROP TABLE IF EXISTS steps; DROP TABLE IF EXISTS chains; {STEPS}")
        self._counted = True

    def _names(self, dimension: Dimension) -> tuple[list[str], int]:
        """The dearest values, and how many more there are."""
        most = KEPT[dimension]
        rows = self._db.execute(
            f"SELECT {dimension} FROM calls GROUP BY {dimension} ORDER BY SUM(cost / {HALF}) DESC, COUNT(*) DESC, {dimension}"
        )
        found = [name for (name,) in rows.fetchmany(most)]
        return found, sum(1 for _ in rows)

    def _cells(self, start: int, width: int, named: Mapping[Dimension, tuple[list[str], int]]) -> Iterator[Cell]:
        joins = " ".join(
            [f"LEFT JOIN folds AS f{n} ON f{n}.dimension = '{each}' AND f{n}.name = calls.{each}" for n, each in enumerate(DIMENSIONS)]
        )
        places = ", ".join([f"COALESCE(f{n}.position, {len(named[each][0])}) AS d{n}" for n, each in enumerate(DIMENSIONS)])
        rows = self._db.execute(
            f"""
            SELECT (calls.started - ?) / ? AS bucket, {places}, SUM(calls.seq = steps.answered) AS steps, SUM(kind = 'attempt') AS attempts,
                COUNT(*) AS entries, COUNT(*) - COUNT(calls.cost) AS unpriced, SUM(calls.estimated) AS estimated,
                SUM(calls.output_unknown) AS output_unknown, SUM(calls.simulated) AS simulated,
                SUM(calls.input + calls.output) AS tokens, {_sum("calls.cost", "cost")}, {_sum("calls.baseline", "baseline")},
                {_sum("CASE WHEN comparable THEN COALESCE(calls.baseline, 0) - calls.cost END", "saving")}
            FROM calls JOIN steps USING (step) {joins} GROUP BY bucket, d0, d1, d2, d3""",
            (start, width),
        )
        for row in rows:
            found = _joined(row, "cost", "baseline", "saving")
            values = (found.pop("d0"), found.pop("d1"), found.pop("d2"), found.pop("d3"))
            yield Cell(values=values, **{key: 0 if value is None else value for key, value in found.items()})

    def _one(self, query: str) -> sqlite3.Row:
        row: sqlite3.Row = self._db.execute(query).fetchone()
        return row


def _sum(what: str, name: str | None = None) -> str:
    name = name or what
    return f"COALESCE(SUM(({what}) / {HALF}), 0) AS {name}_high, COALESCE(SUM(({what}) % {HALF}), 0) AS {name}_low"


def _joined(row: sqlite3.Row, *sums: str) -> dict[str, Any]:
    found = dict(row)
    for name in sums:
        high, low = found.pop(f"{name}_high"), found.pop(f"{name}_low")
        found[name] = None if high is None else high * HALF + low
    return found


def _row(span: SpanRecord) -> dict[str, object]:
    found = span.attributes
    task_class = _text(found, names.TASK_CLASS) or "(none)"
    return {
        "step": _text(found, names.STEP) or span.span_id,
        "attempt": 1 if (attempt := _whole(found, names.ATTEMPT)) is None else attempt,
        "kind": _text(found, names.CALL_KIND) or "attempt",
        "thread": _text(found, names.CONVERSATION),
        "run": span.trace_id,
        "node": _text(found, names.NODE) or task_class,
        "class": task_class,
        "tier": _text(found, names.TIER) or "(none)",
        "model": span.model,
        "codes": json.dumps(span.reasons),
        "pinned": found.get(names.PINNED) is True,
        "outcome": _text(found, names.OUTCOME) or "accepted",
        "error": _text(found, names.ERROR_TYPE),
        "cost": _whole(found, names.COST_PICO),
        "baseline": _whole(found, names.BASELINE_PICO),
        "baseline_model": _text(found, names.BASELINE_MODEL),
        "input": span.tokens[0] or 0,
        "output": span.tokens[1] or 0,
        "cached": _whole(found, names.CACHE_READ_TOKENS) or 0,
        "simulated": found.get(names.SIMULATED) is True,
        "started": span.start_ns,
        "ended": span.end_ns,
        "estimated": span.estimated,
        "output_unknown": span.output_unknown,
    }


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def _whole(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
