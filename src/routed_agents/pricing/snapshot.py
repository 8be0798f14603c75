"""The snapshot of genai-prices, loaded when it is first asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, cast

from routed_agents.errors import ConfigurationError
from routed_agents.forking import Undivided
from routed_agents.pricing.book import project_prices
from routed_agents.pricing.cards import STANDARD, RateCard, speed_mode
from routed_agents.pricing.rates import Ladder, ladder_of, pico_of

SNAPSHOT_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "input_mtok": "input",
        "output_mtok": "output",
        "cache_read_mtok": "cache_read",
        "cache_write_mtok": "cache_write_5m",
        "cache_write_1h_mtok": "cache_write_1h",
    }
)
NOT_TEXT: Final = ("audio", "storage_searches")
"""Prices of things `Usage` either does not count or counts as `other`."""
SEARCHING: Final = re.compile(r"-search-(preview|api)$")
"""Models of OpenAI of which each call searches, for a fee that is not in the snapshot (0.2.3)."""


class Snapshot:
    """One model of genai-prices: its conditions on date and time of day are asked again for every moment."""

    def __init__(self, model: Any, provider: str, *, own: bool) -> None:
        self._model = model
        self._provider = provider
        self._own = own  # a model borrowed from another provider keeps its price but not its modes
        self._cards: dict[tuple[int, tuple[int, ...]], RateCard | None] = {}

    def at(self, moment: datetime | None) -> RateCard | None:
        moment = moment or datetime.now(UTC)
        standard = self._model.get_prices(moment)
        variants: Sequence[Any] = self._model.price_variants or () if self._own else ()
        active = tuple([index for index, each in enumerate(variants) if each.constraint is None or each.constraint.active(moment)])
        key = (id(standard), active)
        if key not in self._cards:
            try:
                self._cards[key] = self._card(standard, [variants[index] for index in active])
            except ConfigurationError:  # finer than a pico-dollar, or not a price per token
                self._cards[key] = None
        return self._cards[key]

    def _card(self, standard: Any, variants: Sequence[Any]) -> RateCard | None:
        from importlib.metadata import version

        listed = _price_keys(standard)
        if any(not _understood(key) for key in listed) or SEARCHING.search(self._model.id):
            return None
        modes = {STANDARD: self._rungs(listed)}
        for variant in variants:
            when: Mapping[str, str] = variant.when
            (key, value), *more = when.items()
            if not more and key in ("processing", "speed", "service_tier"):
                mode = speed_mode(value) if key == "speed" else value
                modes.setdefault(mode, self._rungs(listed | _price_keys(variant.prices)))
        searches, requests = listed.get("web_searches_kcount"), listed.get("requests_kcount")
        return RateCard(
            model=self._model.id,
            provider=self._provider,
            modes=MappingProxyType(modes),
            web_search=None if searches is None else pico_of(searches, 10**9, self._model.id),
            request=0 if requests is None else pico_of(requests, 10**9, self._model.id),
            source="genai-prices",
            version=version("genai-prices"),
        )

    def _rungs(self, listed: Mapping[str, Any]) -> Ladder:
        prices = {ours: listed[theirs] for theirs, ours in SNAPSHOT_KINDS.items() if theirs in listed}
        if "input" not in prices or "output" not in prices:
            raise ConfigurationError(f"{self._model.id} has no price per token")
        starts = sorted({tier.start for price in prices.values() for tier in getattr(price, "tiers", ())})

        def over(start: int) -> dict[str, Decimal]:
            return {kind: _tiered(price, start) for kind, price in prices.items()}

        return ladder_of(over(-1), [(start, over(start)) for start in starts], self._model.id)


def _price_keys(prices: Any) -> dict[str, Any]:
    return {key: value for key, value in cast("dict[str, Any]", vars(prices)).items() if value is not None}


def _understood(key: str) -> bool:
    return key in SNAPSHOT_KINDS or key in ("web_searches_kcount", "requests_kcount") or any(word in key for word in NOT_TEXT)


def _tiered(price: Any, start: int) -> Decimal:
    rate: Decimal = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if start >= tier.start:
            rate = tier.price
    return rate


def snapshot_prices(provider: str | None, name: str) -> Snapshot | None:
    """The model of genai-prices that a name certainly means; None when there is none."""
    from genai_prices.data_snapshot import get_snapshot

    ref = name.lower()
    try:
        seller, model = get_snapshot().find_provider_model(ref, None, provider, None)
    except LookupError:
        return None
    listed = project_prices().get(model.id)
    if seller.id in ("anthropic", "openai") and listed is not None and listed.provider == seller.id:
        return None  # the project's table knows this model and did not know this name of it: a looser match is a guess
    if not _certain(model.match, ref):
        return None
    return Snapshot(model, seller.id, own=any(model is each for each in seller.models))


_LOADING: Final = Undivided()
_begun: Final = threading.Event()


def load_aside() -> None:
    """Load genai-prices in a thread of its own, once."""
    if not _begun.is_set():
        _begun.set()
        with suppress(RuntimeError):  # no thread can be started
            threading.Thread(target=_load, name="routed-agents-prices", daemon=True).start()


def _load() -> None:
    with _LOADING, suppress(Exception):  # whoever needs it finds out as well
        snapshot_prices(None, "any")


TAIL: Final = re.compile(r"(-latest|[-@]\d{8}|-20\d\d-\d\d-\d\d)?(-v\d+)?(:\d+)?")
PART_OF_DATE: Final = re.compile(r"-20\d\d-?$")


def _certain(match: Any, ref: str) -> bool:
    """Whether a snapshot's pattern names this model and no relative of it: what it leaves open may only be a release."""
    for name in ("or_", "and_"):
        if (parts := getattr(match, name, None)) is not None:
            return any(_certain(part, ref) for part in cast("Sequence[Any]", parts))
    for name in ("starts_with", "contains", "ends_with"):
        if (piece := getattr(match, name, None)) is not None:
            piece = PART_OF_DATE.sub("", piece.lower())
            before, found, tail = ref.partition(piece)
            clean = before == "" or (name != "starts_with" and before[-1] in "./")
            return bool(found) and clean and TAIL.fullmatch(tail) is not None
    return bool(match.is_match(ref))
