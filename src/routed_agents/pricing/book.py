"""Price books: the project's table and the user's own prices, compiled into rate cards."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from routed_agents.errors import ConfigurationError
from routed_agents.pricing.cards import STANDARD, RateCard, speed_mode
from routed_agents.pricing.names import PROVIDERS
from routed_agents.pricing.rates import KINDS, ladder_of, pico_of, scaled
from routed_agents.tiers import hyphened


@dataclass(frozen=True, slots=True)
class Schedule:
    """The cards of one model, oldest first, each from its day on."""

    provider: str
    any_date: bool
    cards: tuple[tuple[date, RateCard], ...]

    def at(self, moment: datetime | None) -> RateCard:
        if len(self.cards) == 1:
            return self.cards[0][1]
        day = _utc_day(moment)
        chosen = self.cards[0][1]
        for start, card in self.cards:
            if day >= start:
                chosen = card
        return chosen


@dataclass(frozen=True, slots=True)
class Book:
    """A price file's header, with its rows by model, compiled when first asked for."""

    where: str
    version: str
    as_of: date | None
    source: str
    rows: Mapping[str, tuple[Mapping[str, Any], ...]]
    compiled: dict[str, Schedule] = field(default_factory=dict[str, Schedule])

    def get(self, name: str) -> Schedule | None:
        if (done := self.compiled.get(name)) is not None or name not in self.rows:
            return done
        rows = sorted(self.rows[name], key=lambda row: row.get("from") or date.min)
        cards = tuple([(row.get("from") or date.min, self._card(name, row)) for row in rows])
        if len({start for start, _ in cards}) < len(cards):
            raise ConfigurationError(f'{self.where}, {name}: two rows hold from the same day on; give each a "from" of its own')
        schedule = Schedule(str(rows[0].get("provider") or ""), bool(rows[0].get("any_date")), cards)
        self.compiled[name] = schedule
        return schedule

    def check(self) -> None:
        for name in self.rows:
            self.get(name)

    def _card(self, name: str, row: Mapping[str, Any]) -> RateCard:
        where = f"{self.where}, {name}"
        unknown = [key for key in row if key not in ROW_KEYS]
        if unknown:
            raise ConfigurationError(f'{where}: unknown key "{unknown[0]}"; known keys: {", ".join(ROW_KEYS)}')
        given = {kind: _decimal(row[kind], where, kind) for kind in KINDS if kind in row}
        for kind in ("input", "output"):
            if kind not in given:
                raise ConfigurationError(f'{where}: "{kind}" is missing; wanted USD per million tokens')
        cliffs = [_cliff(row["cliff"], where)] if "cliff" in row else []
        standard = ladder_of(given, cliffs, where)
        modes = {STANDARD: standard}
        speeds = {speed_mode(speed): how for speed, how in _table(row.get("speeds", {}), where, "speeds").items()}
        for mode, how in {**_table(row.get("modes", {}), where, "modes"), **speeds}.items():
            if isinstance(how, Mapping):
                rates = dict(cast("Mapping[str, Any]", how))
                own_cliff = [_cliff(rates.pop("cliff"), where)] if "cliff" in rates else []
                modes[mode] = ladder_of(given | {kind: _decimal(rate, where, kind) for kind, rate in rates.items()}, own_cliff, where)
            else:
                modes[mode] = tuple([scaled(rates, Fraction(_decimal(how, where, mode)), where) for rates in standard])
        geo = {region: Fraction(_decimal(factor, where, region)) for region, factor in _table(row.get("geo", {}), where, "geo").items()}
        for factor in geo.values():
            for ladder in modes.values():
                for rates in ladder:
                    scaled(rates, factor, where)
        return RateCard(
            model=name,
            provider=str(row.get("provider") or ""),
            modes=MappingProxyType(modes),
            geo=MappingProxyType(geo),
            web_search=pico_of(_decimal(row["web_search"], where, "web_search"), 10**9, where) if "web_search" in row else None,
            source=self.where,
            as_of=self.as_of,
            version=self.version,
        )


ROW_KEYS: Final = ("model", "provider", "from", "any_date", "also", *KINDS, "web_search", "cliff", "modes", "speeds", "geo")


@cache
def project_prices() -> Book:
    """The project's table, read once."""
    return _book(files("routed_agents").joinpath("prices.toml").read_text("utf-8"), "prices.toml")


def own_prices(override: Mapping[str, Mapping[str, object]] | str | Path | None) -> Book:
    """The user's own prices, every row checked.

    Raises:
        ConfigurationError: the file cannot be read, or a row says what cannot be.
    """
    if override is None:
        return Book("", "", None, "", {})
    if isinstance(override, Mapping):
        book = Book("own prices", "", None, "", _by_name(override.items(), "own prices"))
    else:
        if not isinstance(cast("object", override), (str, Path)):
            raise ConfigurationError(
                f"prices are {type(override).__name__}; wanted a mapping of models to rows, or the path of a TOML file"
            )
        try:
            text = Path(override).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
            reason = f"{why[:1].lower()}{why[1:]}"
            raise ConfigurationError(f"price file {override} cannot be read: {reason}; give the path of a TOML file") from error
        book = _book(text, str(override))
    book.check()
    return replace(book, rows={_own_name(name): rows for name, rows in book.rows.items()} | dict(book.rows))


def _own_name(name: str) -> str:
    """An own row's name with its provider's as prices go by: "azure_openai:gpt-4o" is "azure:gpt-4o"; and as its maker spells it."""
    provider, colon, model = name.partition(":")
    return f"{PROVIDERS.get(provider.lower(), provider)}:{hyphened(model)}" if colon else hyphened(name)


def _book(text: str, where: str) -> Book:
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not TOML: {error}") from error
    listed = data.get("price")
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in cast("list[object]", listed)):
        raise ConfigurationError(f"{where} has no [[price]] row; wanted one for each model")
    rows = _by_name([(row.get("model"), row) for row in cast("list[dict[str, Any]]", listed)], where)
    return Book(where, str(data.get("version", "")), data.get("as_of"), str(data.get("source", "")), rows)


def _by_name(listed: Iterable[tuple[object, object]], where: str) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Rows by each name of their model.

    Raises:
        ConfigurationError: a row is none, has no name, or says of itself what cannot be.
    """
    rows: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for name, given in listed:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f'{where}: a [[price]] row has no "model"; name the model it prices')
        row = _table(given, where, name)
        also, start, any_date = row.get("also", ()), row.get("from"), row.get("any_date", False)
        if not isinstance(also, (list, tuple)) or not all(isinstance(each, str) for each in cast("Sequence[object]", also)):
            raise ConfigurationError(f'{where}, {name}: "also" is {also!r}; wanted a list of names')
        if start is not None and type(start) is not date:
            raise ConfigurationError(f'{where}, {name}: "from" is {start!r}; wanted a day, like 2026-11-23, without quotes')
        if not isinstance(any_date, bool):
            raise ConfigurationError(f'{where}, {name}: "any_date" is {any_date!r}; wanted true or false')
        for alias in dict.fromkeys((name, *cast("Sequence[str]", also))):
            rows[alias] = (*rows.get(alias, ()), row)
    return rows


def _table(value: object, where: str, key: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f'{where}: "{key}" is {type(value).__name__}; wanted a table')
    return cast("Mapping[str, object]", value)


def _cliff(value: object, where: str) -> tuple[int, dict[str, Decimal]]:
    table = dict(_table(value, where, "cliff"))
    over = table.pop("over", None)
    if not isinstance(over, int) or isinstance(over, bool) or over < 0:
        raise ConfigurationError(f'{where}: "cliff.over" is {over!r}; wanted a number of tokens')
    return over, {kind: _decimal(rate, where, f"cliff.{kind}") for kind, rate in table.items()}


def _decimal(value: object, where: str, key: str) -> Decimal:
    try:
        number = Decimal(str(value)) if isinstance(value, (Decimal, int, float, str)) and not isinstance(value, bool) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number < 0:
        raise ConfigurationError(f'{where}: "{key}" is {value!r}; wanted a number of 0 or more')
    return number


def _utc_day(moment: datetime | None) -> date:
    if moment is None:
        return datetime.now(UTC).date()
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
