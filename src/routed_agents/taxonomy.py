"""The task taxonomy: fourteen kinds of step and what may be done with each."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from routed_agents.errors import PolicyError

Disposition = Literal["route", "partial", "escalate_often", "escalate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClass:
    """One row of the taxonomy; percentages are whole numbers so that every platform adds them up alike.

    Attributes:
        number: 1 to 14, the row in the source's table.
        key: the name used in records, spans and policies.
        disposition: what may be done with the class.
        savings: the source's estimated saving, percent (low, high).
        strong_share: percent of the class sent strong at 95 % quality, where a source gives one.
        p_cheap: assumed success rate of the cheap tier, percent; None where nobody knows, and then nothing is made of it.
        p_strong: assumed success rate of the strong tier, percent; None as before.
        person_facing: the person who asked reads the answer.
    """

    number: int
    key: str
    title: str
    disposition: Disposition
    savings: tuple[int, int]
    quality_delta: str
    p_cheap: int | None = None
    p_strong: int | None = None
    strong_share: int | None = None
    person_facing: bool = False


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """The rows, by key; immutable, and part of the policy's hash."""

    rows: Mapping[str, TaskClass]
    source: str
    as_of: str

    @classmethod
    def default(cls) -> Taxonomy:
        """The seed article's fourteen classes."""
        return _shipped()

    @classmethod
    def from_toml(cls, document: Mapping[str, Any]) -> Taxonomy:
        """Read the form of `taxonomy.toml`.

        Raises:
            PolicyError: a row lacks a key or names an unknown disposition.
        """
        rows: dict[str, TaskClass] = {}
        for row in document.get("class", []):
            try:
                values: dict[str, Any] = {**row, "savings": tuple(row.get("savings", ()))}
                parsed = TaskClass(**values)
            except TypeError as error:
                raise PolicyError(f"[[class]] {row.get('key', row)!r} cannot be read: {error}; see taxonomy.toml for the keys") from None
            if parsed.disposition not in ("route", "partial", "escalate_often", "escalate"):
                known = "route, partial, escalate_often, escalate"
                raise PolicyError(f"[[class]] {parsed.key!r} has the disposition {parsed.disposition!r}; known: {known}")
            rows[parsed.key] = parsed
        return cls(rows=rows, source=str(document.get("source", "")), as_of=str(document.get("as_of", "")))

    def row(self, name: str | int) -> TaskClass:
        """The row with this key or number.

        Raises:
            PolicyError: there is no such row; the message lists the known ones.
        """
        found = self.find(name)
        if found is None:
            raise PolicyError(f"unknown task class {name!r}; known classes: {', '.join(self.rows)}. Use one of these, or its number.")
        return found

    def find(self, name: str | int) -> TaskClass | None:
        """The row with this key or number, or None."""
        if isinstance(name, str) and not (name.isascii() and name.isdigit()):
            return self.rows.get(name)
        number = int(name) if isinstance(name, str) else name
        return next((row for row in self.rows.values() if row.number == number), None)

    def __iter__(self) -> Iterator[TaskClass]:
        return iter(self.rows.values())


@cache
def _shipped() -> Taxonomy:
    return Taxonomy.from_toml(tomllib.loads(files("routed_agents").joinpath("taxonomy.toml").read_text(encoding="utf-8")))
