"""What the tokens of a call cost, to the last digit, or that nobody knows."""

from __future__ import annotations

import math
import re
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from routed_agents.errors import ConfigurationError
from routed_agents.forking import Undivided
from routed_agents.steps import field_of
from routed_agents.tiers import same_model

if TYPE_CHECKING:
    from routed_agents.tiers import Deployment, Tier

UsageSource = Literal["reported", "estimated", "missing"]

SOURCES: Final[tuple[UsageSource, ...]] = ("reported", "estimated", "missing")
KINDS: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
PICO_PER_USD_MTOK: Final = 10**6
"""1 USD per million tokens is a million pico-dollars per token."""

STANDARD: Final = "standard"
MIXED: Final = "mixed"
"""Stands for a speed, tier or region in a sum of calls that differ in it; no card prices it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one call, in kinds that do not overlap, and what else changes their price.

    Providers report totals in which kinds contain each other, each in its own way; `usage_of` sorts them out. A sum of
    usages is for counting: a cliff is decided call by call, so price the calls and add the costs.

    Attributes:
        input: prompt tokens neither read from nor written to a cache.
        cache_read: prompt tokens read from a cache.
        cache_write_5m: prompt tokens written with the provider's short retention (Anthropic 5 minutes, OpenAI 30).
        cache_write_1h: prompt tokens written with its long retention (Anthropic 1 hour, OpenAI 12).
        output: reply tokens, reasoning included.
        reasoning: how many of `output` were reasoning; for information.
        other: what no card here prices: tokens (audio, another model's share of the call) and calls of hosted tools with a fee of their
            own (file search, code interpreter, image generation); any make the call unpriced.
        web_searches: searches the provider ran.
        source: whether the provider said so, somebody estimated it, or nothing is known.
        speed: "fast" and the like, as reported.
        service_tier: "flex", "priority" and the like, as reported.
        geo: the region of inference, as reported.
        batch: whether the call went through a batch interface.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    other: int = 0
    web_searches: int = 0
    source: UsageSource = "reported"
    speed: str | None = None
    service_tier: str | None = None
    geo: str | None = None
    batch: bool = False

    @property
    def prompt(self) -> int:
        """All tokens sent, which is what a cliff looks at."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def total(self) -> int:
        """All tokens, sent and received."""
        return self.prompt + self.output

    def at_least(self, output: int) -> Usage:
        """The usage of a reply that was broken off: as reported, its output no less than what was seen of it, which is an estimate."""
        return self if self.output >= output else replace(self, output=output, source="estimated")

    def kept_long(self) -> Usage:
        """The same tokens, all that were written to a cache written with the long retention."""
        return replace(self, cache_write_5m=0, cache_write_1h=self.cache_write_5m + self.cache_write_1h)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write_5m=self.cache_write_5m + other.cache_write_5m,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            other=self.other + other.other,
            web_searches=self.web_searches + other.web_searches,
            source=SOURCES[max(SOURCES.index(self.source), SOURCES.index(other.source))],
            speed=self.speed if self.speed == other.speed else MIXED,
            service_tier=self.service_tier if (self.service_tier, self.batch) == (other.service_tier, other.batch) else MIXED,
            geo=self.geo if self.geo == other.geo else MIXED,
            batch=self.batch and other.batch,
        )


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Cost:
    """What a call cost, in pico-dollars by kind."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    fees: int = 0

    def __init__(self, *, input: int = 0, cache_read: int = 0, cache_write: int = 0, output: int = 0, fees: int = 0) -> None:
        # The __init__ of a frozen dataclass takes 1.9 us, most of pricing a call; filling the slots directly takes 0.9.
        _set_input(self, input)
        _set_cache_read(self, cache_read)
        _set_cache_write(self, cache_write)
        _set_output(self, output)
        _set_fees(self, fees)

    @property
    def prompt_pico(self) -> int:
        """What the tokens sent cost."""
        return self.input + self.cache_read + self.cache_write

    @property
    def completion_pico(self) -> int:
        """What the tokens received cost."""
        return self.output

    @property
    def total_pico(self) -> int:
        """Everything, fees included."""
        return self.input + self.cache_read + self.cache_write + self.output + self.fees

    @property
    def usd(self) -> Decimal:
        """Everything in dollars, exactly."""
        return usd_of(self.total_pico)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write=self.cache_write + other.cache_write,
            output=self.output + other.output,
            fees=self.fees + other.fees,
        )


_set_input, _set_cache_read, _set_cache_write, _set_output, _set_fees = [
    cast("Callable[[Cost, int], None]", vars(Cost)[name].__set__) for name in ("input", "cache_read", "cache_write", "output", "fees")
]


def usd_of(pico: int) -> Decimal:
    """Pico-dollars in dollars, exactly, whatever the decimal context."""
    return Decimal(f"{pico}e-12")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-dollars per token, by kind, for prompts of more than `over` tokens."""

    over: int = -1
    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int

    def times(self, factor: Fraction) -> Rates:
        """The same rates times a factor; fails where that is no whole number of pico-dollars."""
        scaled = {kind: _whole(getattr(self, kind) * factor) for kind in KINDS}
        return Rates(over=self.over, **scaled)


Ladder = tuple[Rates, ...]
"""Rates by prompt size, smallest threshold first; the last one the prompt is over prices all its tokens."""

STANDARD_SPEEDS: Final = frozenset({None, STANDARD})
STANDARD_TIERS: Final = frozenset({None, STANDARD, "default", "on_demand"})
"""What Anthropic, OpenAI and Groq call it."""
STANDARD_GEOS: Final = frozenset({None, "global", "not_available"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """The price of one model at one time, compiled so that pricing a call is a handful of multiplications.

    Attributes:
        modes: a ladder for each way of being served ("standard", "batch", "priority", "fast speed"); the first is always there.
        geo: the factor on token rates for each region that has one.
        web_search: pico-dollars per search; None where searching has no known price.
        request: pico-dollars per call.
        label: source and version in one, as entries and spans carry it.
    """

    model: str
    provider: str
    modes: Mapping[str, Ladder]
    geo: Mapping[str, Fraction] = field(default_factory=lambda: MappingProxyType({}))
    web_search: int | None = None
    request: int = 0
    source: str
    as_of: date | None = None
    version: str
    label: str = field(default="", init=False, compare=False)
    _compiled: dict[tuple[str | None, str | None, str | None, bool], Ladder] = field(
        default_factory=dict[tuple[str | None, str | None, str | None, bool], Ladder], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", f"{self.source} {self.version}".strip())

    def cost(self, usage: Usage, /) -> Cost | None:
        """What these tokens cost; None when the card has no price for the way they were served."""
        key = (usage.speed, usage.service_tier, usage.geo, usage.batch)
        ladder = self._compiled.get(key) or self._compile(key)
        if ladder is None or usage.other:
            return None
        rates = ladder[0]
        if len(ladder) > 1:
            prompt = usage.prompt
            for step in ladder:
                if prompt > step.over:
                    rates = step
        fees = self.request
        if usage.web_searches:
            if self.web_search is None:
                return None
            fees += usage.web_searches * self.web_search
        return Cost(
            input=usage.input * rates.input,
            cache_read=usage.cache_read * rates.cache_read,
            cache_write=usage.cache_write_5m * rates.cache_write_5m + usage.cache_write_1h * rates.cache_write_1h,
            output=usage.output * rates.output,
            fees=fees,
        )

    @property
    def prompt_rate(self) -> int:
        """Pico-dollars per token of a short prompt, by which models are compared."""
        return self.modes[STANDARD][0].input

    def _compile(self, key: tuple[str | None, str | None, str | None, bool]) -> Ladder | None:
        speed, tier, geo, batch = key
        named: set[str] = {"batch"} if batch else set()
        if speed is not None and speed not in STANDARD_SPEEDS:
            named.add(_speed_mode(speed))
        if tier is not None and tier not in STANDARD_TIERS:
            named.add(tier)
        if len(named) > 1:  # batch and fast at once is sold by nobody we know of
            return None
        ladder = self.modes.get(next(iter(named), STANDARD))
        if ladder is None:
            return None
        if geo not in STANDARD_GEOS:
            factor = self.geo.get(geo or "")
            if factor is None:
                return None
            ladder = tuple([rates.times(factor) for rates in ladder])
        self._compiled[key] = ladder
        return ladder


def _speed_mode(speed: str) -> str:
    return f"{speed} speed"


class PriceSource(Protocol):
    """Anything that can say what a call costs: `Router(prices=…)` asks it in place of `Prices`."""

    def cost(self, model: str, usage: Usage, /, *, at: datetime) -> Decimal | None:
        """The cost in dollars, or None when it is not known."""
        ...


class _Dated(Protocol):
    def at(self, moment: datetime | None) -> RateCard | None: ...


PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anthropic": "anthropic",
        "openai": "openai",
        "azure": "azure",
        "azure_openai": "azure",
        "azure_ai": "azure",
        "azure.ai.openai": "azure",
        "azure.ai.inference": "azure",
        "aws": "aws",
        "bedrock": "aws",
        "bedrock_converse": "aws",
        "amazon_bedrock": "aws",
        "anthropic_bedrock": "aws",
        "aws.bedrock": "aws",
        "google": "google",
        "google_genai": "google",
        "google_vertexai": "google",
        "google_anthropic_vertex": "google",
        "vertex_ai": "google",
        "gemini": "google",
        "gcp.vertex_ai": "google",
        "gcp.gemini": "google",
        "gcp.gen_ai": "google",
        "openrouter": "openrouter",
        "groq": "groq",
        "mistral": "mistral",
        "mistralai": "mistral",
        "mistral_ai": "mistral",
        "deepseek": "deepseek",
        "xai": "x-ai",
        "x_ai": "x-ai",
        "together": "together",
        "together_ai": "together",
        "fireworks": "fireworks",
        "fireworks_ai": "fireworks",
        "cohere": "cohere",
        "perplexity": "perplexity",
        "ollama": "ollama",
    }
)
"""Names that LangChain, OpenTelemetry and LiteLLM give a provider, and ours, which is that of genai-prices."""

RELEASE: Final = re.compile(r"[-@](20\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])|20\d\d-(0[1-9]|1[0-2])-([0-2]\d|3[01]))$")
BEDROCK: Final = re.compile(r"^([a-z-]+\.)?(anthropic|amazon|meta|mistral|cohere|deepseek|openai)\.")
REMEMBERED: Final = 4096


def provider_of(model: str, provider: str | None = None) -> tuple[str | None, str]:
    """Split a model reference into its provider, as far as the name or the caller tells, and its id there."""
    if provider is not None:
        known = PROVIDERS.get(provider.lower(), provider.lower())
        head, _, rest = model.partition(":" if ":" in model.partition("/")[0] else "/")
        return known, rest if rest and PROVIDERS.get(head.lower()) == known else model
    for mark in (":", "/"):
        head, found, rest = model.partition(mark)
        if found and rest and head.lower() in PROVIDERS:
            return PROVIDERS[head.lower()], rest
    if BEDROCK.match(model):
        return "aws", model
    if model.startswith("claude-") and "@" in model:
        return "google", model
    return None, model


def seller_of(provider: str | None) -> str | None:
    """A provider by the name its prices go by; None for a gateway, which passes on those of others, and where nothing is known."""
    return PROVIDERS.get((provider or "").lower())


def bare_name(model: str) -> str:
    """A model's own name, without provider or release date: "anthropic:claude-haiku-4-5-20251001" is "claude-haiku-4-5".

    For looking up facts about a model, never its price: a dated release may cost something else.
    """
    return RELEASE.sub("", provider_of(model)[1])


class Prices:
    """Knows what calls cost: the user's own prices first, then the project's table, then the snapshot of genai-prices.

    genai-prices costs a second or two and 100 MB to import, so it is asked only about models the first two do not have;
    `prepare` does that ahead of time, and `expect` in the background. A model, or a way of serving it, without a certain price
    is unpriced: None, and counted in `misses`.

    Args:
        override: own prices, as a mapping from model name to a row, or the path of a TOML file of `[[price]]` rows like
            the project's `prices.toml`; USD per million tokens. A name with its provider (`"openai:gpt-4o"`) holds for that
            provider alone. The price of a model that was asked for holds where the reply names a dated release of it; with
            `any_date` it holds for releases asked for by name, too.
        snapshot: whether genai-prices may be asked.

    >>> mine = Prices({"my-model": {"input": "0.20", "output": "1.00"}})
    >>> mine.cost("my-model", Usage(input=1_000_000), at=datetime(2026, 11, 23, tzinfo=UTC))
    Decimal('0.200000000000')
    """

    def __init__(self, override: Mapping[str, Mapping[str, object]] | str | Path | None = None, *, snapshot: bool = True) -> None:
        self.misses: Counter[str] = Counter()
        self.warned: set[str] = set()  # of what; routers that share prices say it once
        self._snapshot = snapshot
        self._own = _own_prices(override)
        self._found: dict[tuple[str, str | None], _Dated | None] = {}
        self._counting = threading.Lock()

    @classmethod
    def of(cls, given: Prices | PriceSource | None) -> Prices:
        """The prices themselves, those that a source of one's own knows, or the usual ones."""
        if given is None:
            return cls()
        return given if isinstance(given, Prices) else _Asked(given)

    def cost(self, model: str, usage: Usage, /, *, at: datetime) -> Decimal | None:
        """What a call cost in dollars; None when it is unpriced."""
        cost = self.price(model, usage, at=at)
        return None if cost is None else cost.usd

    def price(self, model: str, usage: Usage, *, at: datetime | None = None, provider: str | None = None) -> Cost | None:
        """What a call cost by kind; None when it is unpriced, which is counted."""
        card = self.card(model, provider=provider, at=at)
        cost = None if card is None else card.cost(usage)
        if cost is None:
            with self._counting:
                self.misses[model] += 1
        return cost

    def card(self, model: str, *, provider: str | None = None, at: datetime | None = None) -> RateCard | None:
        """The rate card of a model at a moment (default: now); None when there is none."""
        key = (model, provider)
        try:
            dated = self._found[key]
        except KeyError:
            dated = self._find(model, provider)
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            self._found[key] = dated
        return None if dated is None else dated.at(at)

    def sold(self, deployment: Deployment, served: str | None = None, *, at: datetime | None = None) -> RateCard | None:
        """The rate card of the model a deployment answers with, as its provider sells it; None when there is none.

        Args:
            deployment: where the call goes.
            served: the model its reply names; the deployment's own when not given.
            at: when the call was made (default: now).
        """
        if deployment.priced_as:
            return self.card(deployment.priced_as, at=at)
        seller, names = deployment.provider, self._names(deployment, served)
        for name in names:
            if (found := self.card(name, provider=seller, at=at)) is not None:
                return found
        if seller_of(seller) in (None, "anthropic", "openai"):  # gateways, and those who speak in the format of these two
            return self.card(names[0], at=at)
        return None

    def _names(self, deployment: Deployment, served: str | None) -> list[str]:
        """The names to price a reply by: the one it gives, and, where that is a form of it, the one asked for."""
        asked, seller = deployment.model, deployment.provider
        if served is None or served == asked or not same_model(served, asked):
            return [served or asked]
        own_alone = self._mine(asked, seller) is not None and self._mine(served, seller) is None
        return [asked, served] if own_alone else [served, asked]

    def prepare(self, deployments: Iterable[Deployment]) -> tuple[str, ...]:
        """Look the deployments' models up now, so that no call waits for it; returns those without a price."""
        return tuple([each.price_key for each in deployments if self.sold(each) is None])

    def expect(self, model: str, provider: str | None = None) -> None:
        """Say that a model is about to be called: if its price takes loading genai-prices, that is done while the provider answers."""
        if self._snapshot and (model, provider) not in self._found and self._listed(model, provider) is None:
            _load_aside()

    def swapped(self, tiers: Iterable[Tier]) -> list[tuple[Tier, Tier]]:
        """Neighbouring tiers of which the lower is the dearer one, by their price per prompt token."""
        found: list[tuple[Tier, Tier]] = []
        for below, above in pairwise(tiers):
            lower, upper = (self.sold(tier.deployments[0]) for tier in (below, above))
            if lower is not None and upper is not None and lower.prompt_rate > upper.prompt_rate:
                found.append((below, above))
        return found

    def _find(self, model: str, provider: str | None) -> _Dated | None:
        if (found := self._listed(model, provider)) is not None:
            return found
        seller, name = provider_of(model, provider)
        if not self._snapshot or not name.isprintable() or name.startswith("arn:"):  # an ARN names a profile, not a model
            return None
        return _snapshot_prices(seller, name)

    def _listed(self, model: str, provider: str | None) -> _Schedule | None:
        """A model's row among the user's own prices, or in the project's table."""
        if own := self._mine(model, provider):
            return own
        seller, name = provider_of(model, provider)
        listed = _project_prices()
        if seller in (None, "anthropic", "openai"):
            found = listed.get(name)
            if found is None and (release := RELEASE.search(name)) and release[0][0] == "-":
                found = listed.get(name[: release.start()])
                found = found if found is not None and found.any_date else None
            if found is not None and seller in (None, found.provider):
                return found
        return None

    def _mine(self, model: str, provider: str | None) -> _Schedule | None:
        """The user's own row of a model, by any of its names, or one for all releases of it."""
        if not self._own.rows:
            return None
        seller, name = provider_of(model, provider)
        if own := next((own for each in (f"{seller}:{name}", model, name) if (own := self._own.get(each))), None):
            return own
        name = RELEASE.sub("", name)
        return next((own for each in (f"{seller}:{name}", name) if (own := self._own.get(each)) and own.any_date), None)


class _Asked(Prices):
    """Prices that a source of the user's own knows."""

    def __init__(self, source: PriceSource) -> None:
        super().__init__(snapshot=False)
        self._source = source

    def _find(self, model: str, provider: str | None) -> _Dated:
        return _Quotes(self._source, model)


@dataclass(frozen=True, slots=True)
class _Quotes:
    """What a source says of one model, asked for every call."""

    source: PriceSource
    model: str

    def at(self, moment: datetime | None) -> RateCard | None:
        moment = moment or datetime.now(UTC)
        asked = self.pico(Usage(input=ASKED_FOR), moment)
        if asked is None:
            return None
        name = type(self.source).__name__
        return _Quote(model=self.model, provider="", modes={}, source=name, version="", quotes=self, moment=moment, asked=asked)

    def pico(self, usage: Usage, moment: datetime) -> int | None:
        """What the source asks in whole pico-dollars; None where it names no price, or none that can be one."""
        usd = self.source.cost(self.model, usage, at=moment)
        return None if usd is None or not math.isfinite(usd) or usd < 0 else round(Fraction(usd) * 10**12)


ASKED_FOR: Final = 1_000
"""Prompt tokens by whose price a source is asked whether it knows a model: so few that every model takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quote(RateCard):
    """The price of one model at one time, which a source is asked for."""

    quotes: _Quotes
    moment: datetime
    asked: int

    @property
    def prompt_rate(self) -> int:
        return round(Fraction(self.asked, ASKED_FOR))

    def cost(self, usage: Usage, /) -> Cost | None:
        whole = self.quotes.pico(usage, self.moment)
        if whole is None:
            return None
        prompt = self.quotes.pico(replace(usage, output=0, reasoning=0), self.moment)
        return Cost(fees=whole) if prompt is None or prompt > whole else Cost(input=prompt, output=whole - prompt)


# ---- rows and cards ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Schedule:
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
class _Book:
    """A price file's header, with its rows by model, compiled when first asked for."""

    where: str
    version: str
    as_of: date | None
    source: str
    rows: Mapping[str, tuple[Mapping[str, Any], ...]]
    compiled: dict[str, _Schedule] = field(default_factory=dict[str, _Schedule])

    def get(self, name: str) -> _Schedule | None:
        if (done := self.compiled.get(name)) is not None or name not in self.rows:
            return done
        rows = sorted(self.rows[name], key=lambda row: row.get("from") or date.min)
        cards = tuple([(row.get("from") or date.min, self._card(name, row)) for row in rows])
        if len({start for start, _ in cards}) < len(cards):
            raise ConfigurationError(f'{self.where}, {name}: two rows hold from the same day on; give each a "from" of its own')
        schedule = _Schedule(str(rows[0].get("provider") or ""), bool(rows[0].get("any_date")), cards)
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
        standard = _ladder(given, cliffs, where)
        modes = {STANDARD: standard}
        speeds = {_speed_mode(speed): how for speed, how in _table(row.get("speeds", {}), where, "speeds").items()}
        for mode, how in {**_table(row.get("modes", {}), where, "modes"), **speeds}.items():
            if isinstance(how, Mapping):
                rates = dict(cast("Mapping[str, Any]", how))
                own_cliff = [_cliff(rates.pop("cliff"), where)] if "cliff" in rates else []
                modes[mode] = _ladder(given | {kind: _decimal(rate, where, kind) for kind, rate in rates.items()}, own_cliff, where)
            else:
                modes[mode] = tuple([_scaled(rates, Fraction(_decimal(how, where, mode)), where) for rates in standard])
        geo = {region: Fraction(_decimal(factor, where, region)) for region, factor in _table(row.get("geo", {}), where, "geo").items()}
        for factor in geo.values():
            for ladder in modes.values():
                for rates in ladder:
                    _scaled(rates, factor, where)
        return RateCard(
            model=name,
            provider=str(row.get("provider") or ""),
            modes=MappingProxyType(modes),
            geo=MappingProxyType(geo),
            web_search=_pico(_decimal(row["web_search"], where, "web_search"), 10**9, where) if "web_search" in row else None,
            source=f"{self.where} {self.version}",
            as_of=self.as_of,
            version=self.version,
        )


ROW_KEYS: Final = ("model", "provider", "from", "any_date", "also", *KINDS, "web_search", "cliff", "modes", "speeds", "geo")


@cache
def _project_prices() -> _Book:
    return _book(files("routed_agents").joinpath("prices.toml").read_text("utf-8"), "prices.toml")


def _own_prices(override: Mapping[str, Mapping[str, object]] | str | Path | None) -> _Book:
    if override is None:
        return _Book("", "", None, "", {})
    if isinstance(override, Mapping):
        book = _Book("own prices", "", None, "", _by_name(override.items(), "own prices"))
    else:
        if not isinstance(cast("object", override), (str, Path)):
            raise ConfigurationError(
                f"prices are {type(override).__name__}; wanted a mapping of models to rows, or the path of a TOML file"
            )
        try:
            text = Path(override).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"price file {override} cannot be read: {error}; give the path of a TOML file") from error
        book = _book(text, str(override))
    book.check()
    return replace(book, rows={_own_name(name): rows for name, rows in book.rows.items()} | dict(book.rows))


def _own_name(name: str) -> str:
    """An own row's name with its provider's as prices go by: "azure_openai:gpt-4o" is "azure:gpt-4o"."""
    provider, colon, model = name.partition(":")
    return f"{PROVIDERS.get(provider.lower(), provider)}:{model}" if colon else name


def _book(text: str, where: str) -> _Book:
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not TOML: {error}") from error
    listed = data.get("price")
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in cast("list[object]", listed)):
        raise ConfigurationError(f"{where} has no [[price]] row; wanted one for each model")
    rows = _by_name([(row.get("model"), row) for row in cast("list[dict[str, Any]]", listed)], where)
    return _Book(where, str(data.get("version", "")), data.get("as_of"), str(data.get("source", "")), rows)


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


def _ladder(given: Mapping[str, Decimal], cliffs: Iterable[tuple[int, Mapping[str, Decimal]]], where: str) -> Ladder:
    steps = [(-1, given), *[(over, {**given, **rates}) for over, rates in sorted(cliffs, key=lambda cliff: cliff[0])]]
    return tuple([_rates(over, rates, where) for over, rates in steps])


def _rates(over: int, given: Mapping[str, Decimal], where: str) -> Rates:
    unknown = [kind for kind in given if kind not in KINDS]
    if unknown:
        raise ConfigurationError(f'{where}: unknown rate "{unknown[0]}"; known rates: {", ".join(KINDS)}')
    pico = {kind: _pico(rate, PICO_PER_USD_MTOK, where) for kind, rate in given.items()}
    short = pico.get("cache_write_5m", pico["input"])
    return Rates(
        over=over,
        input=pico["input"],
        cache_read=pico.get("cache_read", pico["input"]),
        cache_write_5m=short,
        cache_write_1h=pico.get("cache_write_1h", short),
        output=pico["output"],
    )


def _scaled(rates: Rates, factor: Fraction, where: str) -> Rates:
    try:
        return rates.times(factor)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _pico(rate: Decimal, per_usd: int, where: str) -> int:
    try:
        return _whole(Fraction(rate) * per_usd)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise ValueError(f"a rate of {float(value)} pico-dollars is finer than a pico-dollar; round it where it is written")
    return value.numerator


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


# ---- genai-prices -----------------------------------------------------------------------------------------------------

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


class _Snapshot:
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
        listed = _price_keys(standard)
        if any(not _understood(key) for key in listed) or SEARCHING.search(self._model.id):
            return None
        modes = {STANDARD: self._rungs(listed)}
        for variant in variants:
            when: Mapping[str, str] = variant.when
            (key, value), *more = when.items()
            if not more and key in ("processing", "speed", "service_tier"):
                mode = _speed_mode(value) if key == "speed" else value
                modes.setdefault(mode, self._rungs(listed | _price_keys(variant.prices)))
        searches, requests = listed.get("web_searches_kcount"), listed.get("requests_kcount")
        number = version("genai-prices")
        return RateCard(
            model=self._model.id,
            provider=self._provider,
            modes=MappingProxyType(modes),
            web_search=None if searches is None else _pico(searches, 10**9, self._model.id),
            request=0 if requests is None else _pico(requests, 10**9, self._model.id),
            source=f"genai-prices {number}",
            version=number,
        )

    def _rungs(self, listed: Mapping[str, Any]) -> Ladder:
        prices = {ours: listed[theirs] for theirs, ours in SNAPSHOT_KINDS.items() if theirs in listed}
        if "input" not in prices or "output" not in prices:
            raise ConfigurationError(f"{self._model.id} has no price per token")
        starts = sorted({tier.start for price in prices.values() for tier in getattr(price, "tiers", ())})

        def over(start: int) -> dict[str, Decimal]:
            return {kind: _tiered(price, start) for kind, price in prices.items()}

        return _ladder(over(-1), [(start, over(start)) for start in starts], self._model.id)


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


def _snapshot_prices(provider: str | None, name: str) -> _Snapshot | None:
    from genai_prices.data_snapshot import get_snapshot

    ref = name.lower()
    try:
        seller, model = get_snapshot().find_provider_model(ref, None, provider, None)
    except LookupError:
        return None
    listed = _project_prices().get(model.id)
    if seller.id in ("anthropic", "openai") and listed is not None and listed.provider == seller.id:
        return None  # the project's table knows this model and did not know this name of it: a looser match is a guess
    if not _certain(model.match, ref):
        return None
    return _Snapshot(model, seller.id, own=any(model is each for each in seller.models))


_LOADING: Final = Undivided()
_begun: Final = threading.Event()


def _load_aside() -> None:
    """Load genai-prices in a thread of its own, once."""
    if not _begun.is_set():
        _begun.set()
        with suppress(RuntimeError):  # no thread can be started
            threading.Thread(target=_load, name="routed-agents-prices", daemon=True).start()


def _load() -> None:
    with _LOADING, suppress(Exception):  # whoever needs it finds out as well
        _snapshot_prices(None, "any")


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


# ---- what a reply says ------------------------------------------------------------------------------------------------


def usage_of(reply: object) -> Usage | None:
    """The tokens a reply reports, whichever SDK or framework it comes from; None when it reports nothing, or a count that is none.

    Reads Anthropic messages, OpenAI chat completions and responses, LangChain messages, chunks and results, as objects or
    as dicts, and their usage objects themselves.
    """
    try:
        return _usage_in(reply)
    except _NoCount:
        return None


def _usage_in(reply: object) -> Usage | None:
    if reply is None or isinstance(reply, (str, bytes, int, float)):
        return None
    own = getattr(reply, "__dict__", None)
    if own is not None and "usage_metadata" in own:  # a LangChain message, the common case: nothing else needs to be asked
        counted = own["usage_metadata"]
        if counted is not None:
            return _from_langchain(reply, counted, own.get("response_metadata"))
    generations = field_of(reply, "generations")
    if isinstance(generations, Sequence) and generations:
        return _usage_of_result(reply, cast("Sequence[object]", generations))
    if (message := field_of(reply, "message")) is not None and (_has(message, "usage_metadata") or _has(message, "usage")):
        reply = message
    metadata = field_of(reply, "response_metadata")
    counted = field_of(reply, "usage_metadata")
    if isinstance(counted, Mapping):
        return _from_langchain(reply, cast("Mapping[str, object]", counted), metadata)
    raw = field_of(metadata, "usage") or field_of(metadata, "token_usage") or field_of(reply, "usage")
    if raw is None and (_has(reply, "input_tokens") or _has(reply, "prompt_tokens")):
        raw = reply
    return None if raw is None else _known(_from_raw(reply, raw))


def served_model_of(reply: object) -> str | None:
    """The model that really answered, as the reply names it."""
    own = getattr(reply, "__dict__", None)
    if own is not None and "usage_metadata" in own and isinstance(told := own.get("response_metadata"), dict):
        named = cast("dict[str, object]", told)
        found = named.get("model_name") or named.get("model") or named.get("model_id")
        return found if isinstance(found, str) else None
    for place, names in _places(reply, ("model_name", "model", "model_id")):
        for name in names:
            if isinstance(found := field_of(place, name), str) and found:
                return found
    return None


def response_id_of(reply: object) -> str | None:
    """The provider's id of the response; ids that LangChain makes up are left out."""
    for place, names in _places(reply, ("id",)):
        for name in names:
            if isinstance(found := field_of(place, name), str) and found and not found.startswith(("run-", "run--", "lc_")):
                return found
    return None


def _places(reply: object, names: tuple[str, ...]) -> list[tuple[object, tuple[str, ...]]]:
    """Where a reply may say something about itself, most telling first."""
    message = _message_in(reply)
    metadata = field_of(message, "response_metadata")
    places: list[tuple[object, tuple[str, ...]]] = [(metadata, names)]
    places.append((message, ("id",) if names == ("id",) else ("model",) if metadata is None else ()))
    places.append((field_of(reply, "llm_output"), names))
    return places


def _message_in(reply: object) -> object:
    generations = field_of(reply, "generations")
    while isinstance(generations, Sequence) and generations:
        first = cast("Sequence[object]", generations)[0]
        if not isinstance(first, Sequence):
            return field_of(first, "message")
        generations = cast("Sequence[object]", first)
    message = field_of(reply, "message")
    return reply if message is None or field_of(reply, "choices") is not None else message


def _usage_of_result(result: object, generations: Sequence[object]) -> Usage | None:
    if isinstance(generations[0], Sequence):  # LLMResult: choices by prompt; every choice carries its call's whole usage
        prompts = [each[0] for each in cast("Sequence[Sequence[object]]", generations) if each]
    else:
        prompts = [generations[0]]
    found = [usage for prompt in prompts if (usage := _usage_in(field_of(prompt, "message"))) is not None]
    if found:
        total = found[0]
        for usage in found[1:]:
            total += usage
        return total
    output = field_of(result, "llm_output")
    raw = field_of(output, "usage") or field_of(output, "token_usage")
    return _known(_from_raw(output, raw)) if raw else None


PLAIN_COUNTS: Final = frozenset({"input_tokens", "output_tokens", "total_tokens"})
BILLED_APART: Final = frozenset({"usage", "service_tier"})
"""Keys of a reply's metadata that may say more about its price than the counts do."""


def _from_langchain(message: object, counted: Mapping[str, object], metadata: object) -> Usage | None:
    if counted.get("total_cost") == 0 and "total_cost" in counted:  # langchain-core's mark of an answer from its own cache
        return Usage()
    told = cast("Mapping[str, object]", metadata) if isinstance(metadata, dict) else None
    if told is not None and not BILLED_APART.intersection(told) and counted.keys() <= PLAIN_COUNTS:
        prompt, output = counted.get("input_tokens"), counted.get("output_tokens")  # nothing but two counts: nothing else to look for
        if type(prompt) is int and type(output) is int and prompt >= 0 and output >= 0 and (prompt or output):
            content = field_of(message, "content")
            if type(content) is str and counted.get("total_tokens") in (None, prompt + output):
                return Usage(input=prompt, output=output)
    metadata = cast("object", metadata)
    raw = field_of(metadata, "usage")
    anthropic = field_of(metadata, "model_provider") == "anthropic" or _has(raw, "cache_read_input_tokens")
    if anthropic and _has(raw, "input_tokens") and not _has(raw, "total_tokens"):
        return _known(_from_anthropic(raw))  # knows retention, speed and region, which usage_metadata has lost
    given, taken = field_of(counted, "input_token_details"), field_of(counted, "output_token_details")
    tier = _text(field_of(metadata, "service_tier"))
    prefix = next((each for each in ("priority", "flex") if field_of(given, each) is not None or _has(given, f"{each}_cache_read")), None)
    mark = f"{prefix}_" if prefix else ""
    long = _count(given, "ephemeral_1h_input_tokens")
    short = _count(given, "ephemeral_5m_input_tokens") + _count(given, f"{mark}cache_creation")
    return _known(
        _disjoint(
            prompt=_told(counted, "input_tokens"),
            cache_read=_count(given, f"{mark}cache_read"),
            short=short,
            long=long,
            output=_told(counted, "output_tokens"),
            total=_total_of(counted),
            reasoning=_count(taken, f"{mark}reasoning"),
            other=_count(given, "audio") + _count(taken, "audio") + (0 if anthropic else _fees(field_of(message, "content"))),
            searches=_searches(field_of(message, "content")),
            tier=tier or prefix,
        )
    )


def _from_raw(reply: object, raw: object) -> Usage:
    tier = _text(field_of(reply, "service_tier")) or _text(field_of(raw, "service_tier"))
    if _has(raw, "prompt_tokens"):
        given, taken = field_of(raw, "prompt_tokens_details"), field_of(raw, "completion_tokens_details")
        return _disjoint(
            prompt=_told(raw, "prompt_tokens"),
            cache_read=_count(given, "cached_tokens"),
            short=_count(given, "cache_write_tokens"),
            output=_told(raw, "completion_tokens"),
            total=_total_of(raw),
            reasoning=_count(taken, "reasoning_tokens"),
            other=_count(given, "audio_tokens") + _count(taken, "audio_tokens"),
            tier=tier,
        )
    if _has(raw, "input_tokens_details") or _has(raw, "input_token_details") or _has(raw, "total_tokens"):
        given, taken = field_of(raw, "input_tokens_details"), field_of(raw, "output_tokens_details")
        if given is None and taken is None and isinstance(raw, Mapping):
            return _from_langchain(None, cast("Mapping[str, object]", raw), None) or Usage()
        long = _count(field_of(given, "cache_write_tokens_details"), "ttl_12h_tokens")
        return _disjoint(
            prompt=_told(raw, "input_tokens"),
            cache_read=_count(given, "cached_tokens"),
            short=_count(given, "cache_write_tokens") - long,
            long=long,
            output=_told(raw, "output_tokens"),
            total=_total_of(raw),
            reasoning=_count(taken, "reasoning_tokens"),
            other=_fees(field_of(reply, "output")),
            searches=_searches(field_of(reply, "output")),
            tier=tier,
        )
    usage = _from_anthropic(raw)
    if not _has(raw, "server_tool_use") and (searches := _searches(field_of(reply, "content"))):  # a stream tells their number at its end
        return replace(usage, web_searches=searches)
    return usage


def _from_anthropic(raw: object) -> Usage:
    tier = _text(field_of(raw, "service_tier"))
    if not _has(raw, "output_tokens"):
        raise _NoCount("output_tokens")
    usage = _anthropic_part(raw)
    other = 0
    iterations = field_of(raw, "iterations")
    for part in cast("Sequence[object]", iterations) if isinstance(iterations, Sequence) else ():
        kind = field_of(part, "type")
        if kind == "compaction":  # billed, but not in the totals
            usage += _anthropic_part(part)
        elif kind in ("advisor_message", "fallback_message"):  # another model's tokens at another model's price
            other += _anthropic_part(part).total
    return Usage(
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=usage.output,
        reasoning=_count(field_of(raw, "output_tokens_details"), "thinking_tokens"),
        other=other,
        web_searches=_count(field_of(raw, "server_tool_use"), "web_search_requests"),
        source="reported" if _has(raw, "input_tokens") else "estimated",
        speed=_text(field_of(raw, "speed")),
        service_tier=None if tier == "batch" else tier,
        geo=_text(field_of(raw, "inference_geo")),
        batch=tier == "batch",
    )


def _anthropic_part(raw: object) -> Usage:
    written, split = _count(raw, "cache_creation_input_tokens"), field_of(raw, "cache_creation")
    long = _count(split, "ephemeral_1h_input_tokens")
    short = _count(split, "ephemeral_5m_input_tokens")
    return Usage(
        input=_count(raw, "input_tokens"),
        cache_read=_count(raw, "cache_read_input_tokens"),
        cache_write_5m=max(short, written - long),
        cache_write_1h=long,
        output=_count(raw, "output_tokens"),
    )


def _disjoint(
    *,
    prompt: int | None,
    cache_read: int,
    short: int,
    output: int | None,
    total: int | None,
    reasoning: int,
    long: int = 0,
    other: int = 0,
    searches: int = 0,
    tier: str | None = None,
) -> Usage:
    prompt, output = _completed(prompt, output, total)
    rest = prompt - cache_read - short - long
    unsaid = max((total or 0) - prompt - output, 0) if rest >= 0 else 0  # Gemini's thoughts, in OpenAI's format
    return Usage(
        input=max(rest, 0),
        cache_read=cache_read,
        cache_write_5m=max(short, 0),
        cache_write_1h=long,
        output=output + unsaid,
        reasoning=reasoning,
        other=other,
        web_searches=searches,
        source="reported" if rest >= 0 and short >= 0 and not unsaid else "estimated",  # a gateway whose total leaves out its caches
        service_tier=None if tier == "batch" else tier,
        batch=tier == "batch",
    )


def _completed(prompt: int | None, output: int | None, total: int | None) -> tuple[int, int]:
    """Both sides of a report, of which the total tells the one that is missing."""
    if prompt is not None and output is not None:
        return prompt, output
    known = prompt if prompt is not None else output
    if known is None or total is None:
        raise _NoCount("a side of the call")
    rest = max(total - known, 0)
    return (known, rest) if output is None else (rest, known)


def _known(usage: Usage) -> Usage | None:
    """No reply has zero tokens on both sides: such a report is a gateway's way of saying nothing."""
    return usage if usage.total or usage.other else None


def _searches(blocks: object) -> int:
    """Web searches among a reply's blocks: OpenAI's calls, Anthropic's results that are no error, and LangChain's v1 form of both."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        return 0
    count = 0
    called: set[object] = set()
    for block in cast("Sequence[object]", blocks):
        kind = field_of(block, "type")
        if kind == "web_search_call":
            count += field_of(field_of(block, "action"), "type") in (None, "search")
        elif kind == "web_search_tool_result":
            count += isinstance(field_of(block, "content"), list)
        elif kind == "server_tool_call" and field_of(block, "name") == "web_search":
            if field_of(field_of(block, "args"), "type") in (None, "search"):
                called.add(field_of(block, "id"))
        elif kind == "server_tool_result" and field_of(block, "status") == "error":
            called.discard(field_of(block, "tool_call_id"))
    return count + len(called)


FEES: Final = frozenset({"file_search_call", "code_interpreter_call", "image_generation_call"})
"""Items of a reply for which OpenAI takes more than their tokens."""


def _fees(blocks: object) -> int:
    """Calls of OpenAI's hosted tools with a fee of their own among a reply's blocks; LangChain's v1 form leaves out "call"."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        return 0
    found = [(field_of(block, "type"), field_of(block, "name")) for block in cast("Sequence[object]", blocks)]
    return sum(kind in FEES or (kind == "server_tool_call" and f"{name}_call" in FEES) for kind, name in found)


def _has(thing: object, name: str) -> bool:
    return field_of(thing, name) is not None


class _NoCount(ValueError):
    """What stands in place of a number of tokens is no such number, so nobody knows what the call used."""


def _count(thing: object, name: str) -> int:
    return _told(thing, name) or 0


def _total_of(thing: object) -> int | None:
    """The total of a report; one that cannot be read is as good as none, for both sides may be told."""
    with suppress(_NoCount):
        return _told(thing, "total_tokens")
    return None


def _told(thing: object, name: str) -> int | None:
    value = field_of(thing, name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # as some write whole numbers in JSON
        value = int(value)
    if isinstance(value, int) and value >= 0 and not isinstance(value, bool):
        return value
    raise _NoCount(name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
