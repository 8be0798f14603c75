"""How an entry lies in a row of a table."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from types import MappingProxyType
from typing import Any, Final

from routed_agents.ledger.entries import COST_FIELDS, ENTRY_FIELDS, USAGE_FIELDS, Entry
from routed_agents.pricing import Cost, Usage
from routed_agents.steps import storable

SCHEMA_VERSION: Final = 3
ADDED: Final = {2: ("decided_model", "decided_pico"), 3: ("top",)}
"""The columns that each version of the schema added to those before."""
COUNTS: Final = tuple(name for name in USAGE_FIELDS if name not in ("source", "speed", "service_tier", "geo", "batch"))
PLAIN: Final = tuple(name for name in ENTRY_FIELDS if name not in ("usage", "cost", "labels", "codes"))
INTEGERS: Final = frozenset({"attempt", "rank", "pinned", "simulated", "batch", "top"})
COLUMNS: Final = (
    *PLAIN,
    "labels",
    "codes",
    *USAGE_FIELDS,
    "cost_pico",
    *[f"cost_{name}" for name in COST_FIELDS],
)
MAX_INTEGER: Final = 2**63 - 1


def _type_of(column: str) -> str:
    whole = column in INTEGERS or column in COUNTS or column.endswith(("_pico", "_ns")) or column.startswith("cost_")
    return "INTEGER" if whole else "TEXT"


SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS ledger_schema (version INTEGER NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS entries (seq INTEGER PRIMARY KEY, {', '.join(f'{name} {_type_of(name)}' for name in COLUMNS)})",
    "CREATE INDEX IF NOT EXISTS entries_by_step ON entries (step_id)",
    "CREATE INDEX IF NOT EXISTS entries_by_thread ON entries (thread)",
    "CREATE INDEX IF NOT EXISTS entries_by_run ON entries (run)",
)
INSERT: Final = f"INSERT INTO entries ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def additions(version: int) -> tuple[str, ...]:
    """The statements that give a table of an older version the columns it lacks."""
    lacking = [name for since, added in ADDED.items() if since > version for name in added]
    return tuple([f"ALTER TABLE entries ADD COLUMN {name} {_type_of(name)}" for name in lacking])


def selected(present: Container[str]) -> str:
    """The columns to select for `entry_of`; NULL stands for those that a table of an older version lacks."""
    return ", ".join([name if name in present else f"NULL AS {name}" for name in COLUMNS])


def row_of(entry: Entry) -> tuple[object, ...]:
    """An entry's cells, in the order of the columns; raises when one cannot be stored."""
    cost = entry.cost
    row = (
        *[getattr(entry, name) for name in PLAIN],
        json.dumps({storable(str(name)): storable(str(value)) for name, value in entry.labels.items()}, ensure_ascii=False),
        json.dumps(list(entry.codes), ensure_ascii=False),
        *[getattr(entry.usage, name) for name in USAGE_FIELDS],
        None if cost is None else cost.total_pico,
        *[None if cost is None else getattr(cost, name) for name in COST_FIELDS],
    )
    return tuple([None if value is None else _cell(name, value) for name, value in zip(COLUMNS, row, strict=True)])


def _cell(name: str, value: object) -> int | str:
    """A value as its column takes it: a thread's number or UUID is written as text, like a label's."""
    if _type_of(name) == "TEXT":
        return storable(str(value))
    if not isinstance(value, int):
        raise TypeError(f"{name} is {type(value).__name__}")
    if abs(value) > MAX_INTEGER:
        raise ValueError(f"{name} is larger than a ledger can hold")
    return value


def entry_of(row: Sequence[Any]) -> Entry:
    """The entry that `row_of` made the cells of."""
    stored = dict(zip(COLUMNS, row, strict=True))
    values: dict[str, Any] = {name: stored[name] for name in PLAIN}
    values["pinned"], values["simulated"] = bool(stored["pinned"]), bool(stored["simulated"])
    values["top"] = None if stored["top"] is None else bool(stored["top"])
    values["labels"] = MappingProxyType(json.loads(stored["labels"]))
    values["codes"] = tuple(json.loads(stored["codes"]))
    stored["batch"] = bool(stored["batch"])
    values["usage"] = Usage(**{name: stored[name] for name in USAGE_FIELDS})
    priced = stored["cost_pico"] is not None
    values["cost"] = Cost(**{name: stored[f"cost_{name}"] for name in COST_FIELDS}) if priced else None
    return Entry(**values)
