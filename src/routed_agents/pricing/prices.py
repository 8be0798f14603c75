"""Which rate card holds for a model: the user's own, the project's, that of genai-prices, or none."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from routed_agents.pricing.book import Schedule, own_prices, project_prices
from routed_agents.pricing.cards import RateCard
from routed_agents.pricing.cost import Cost
from routed_agents.pricing.names import RELEASE, provider_of, seller_of
from routed_agents.pricing.quotes import PriceSource, Quotes
from routed_agents.pricing.snapshot import load_aside, snapshot_prices
from routed_agents.pricing.usage import Usage
from routed_agents.tiers import card, hyphened, same_model

if TYPE_CHECKING:
    from routed_agents.tiers import Deployment, Tier

REMEMBERED: Final = 4096


class _Dated(Protocol):
    def at(self, moment: datetime | None) -> RateCard | None: ...


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

    >>> from datetime import UTC, datetime
    >>> mine = Prices({"my-model": {"input": "0.20", "output": "1.00"}})
    >>> mine.cost("my-model", Usage(input=1_000_000), at=datetime(2026, 11, 23, tzinfo=UTC))
    Decimal('0.200000000000')
    """

    def __init__(self, override: Mapping[str, Mapping[str, object]] | str | Path | None = None, *, snapshot: bool = True) -> None:
        self.misses: Counter[str] = Counter()
        self.warned: set[str] = set()  # of what; routers that share prices say it once
        self._snapshot = snapshot
        self._own = own_prices(override)
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
            deployment: where the call goes. The model it is priced as is the one that answers, unless the reply names another one that
                has a price; a name among the user's own prices that is no model's holds for whatever answers.
            served: the model its reply names; the deployment's own when not given.
            at: when the call was made (default: now).
        """
        if not deployment.priced_as:
            return self._named(deployment, served, at)
        other = served is not None and not deployment.is_of(served) and not self._agreed(deployment.priced_as)
        found = self._named(deployment, served, at) if other else None
        return found or self.card(deployment.priced_as, at=at)

    def _agreed(self, name: str) -> bool:
        """Whether a price of the user's own goes by a name that is no model's."""
        return card(name).provider is None and self._mine(name, None) is not None

    def _named(self, deployment: Deployment, served: str | None, at: datetime | None) -> RateCard | None:
        """The rate card of the model that a reply names, or that was asked for, as a deployment's provider sells it."""
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
        deployments = tuple(deployments)
        if self._snapshot and any(each.priced_as and not self._agreed(each.priced_as) for each in deployments):
            load_aside()  # for the price of another model that may answer there
        return tuple([each.price_key for each in deployments if self.sold(each) is None])

    def expect(self, model: str, provider: str | None = None) -> None:
        """Say that a model is about to be called: if its price takes loading genai-prices, that is done while the provider answers."""
        if self._snapshot and (model, provider) not in self._found and self._listed(model, provider) is None:
            load_aside()

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
        whole = snapshot_prices(seller, model) if provider is not None and name != model else None
        return whole or snapshot_prices(seller, name)  # a seller may list "perplexity/sonar" beside "sonar"

    def _listed(self, model: str, provider: str | None) -> Schedule | None:
        """A model's row among the user's own prices, or in the project's table."""
        if own := self._mine(model, provider):
            return own
        seller, name = provider_of(model, provider)
        name, listed = hyphened(name), project_prices()
        if seller in (None, "anthropic", "openai"):
            found = listed.get(name)
            if found is None and (release := RELEASE.search(name)) and release[0][0] == "-":
                found = listed.get(name[: release.start()])
                found = found if found is not None and found.any_date else None
            if found is not None and seller in (None, found.provider):
                return found
        return None

    def _mine(self, model: str, provider: str | None) -> Schedule | None:
        """The user's own row of a model, by any of its names, or one for all releases of it."""
        if not self._own.rows:
            return None
        seller, name = provider_of(model, provider)
        name = hyphened(name)
        if own := next((own for each in (f"{seller}:{name}", model, name) if (own := self._own.get(each))), None):
            return own
        name = RELEASE.sub("", name)
        return next((own for each in (f"{seller}:{name}", name) if (own := self._own.get(each)) and own.any_date), None)


class _Asked(Prices):
    """Prices that a source of the user's own knows."""

    def __init__(self, source: PriceSource) -> None:
        super().__init__(snapshot=False)
        self._source = source

    def _agreed(self, name: str) -> bool:
        return card(name).provider is None

    def _find(self, model: str, provider: str | None) -> _Dated:
        return Quotes(self._source, model)
