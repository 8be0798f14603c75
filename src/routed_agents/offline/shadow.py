"""What routing would save, reckoned from what ran in shadow mode."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from routed_agents.economics import baseline, tokenizer_factor
from routed_agents.ledger import Entry, Ledger
from routed_agents.offline.report import COST, STEPS, UNPRICED_CALLS, Column, Table, titled
from routed_agents.pricing import Prices
from routed_agents.tiers import Tiers

WOULD_COST = Column(key="would_cost_usd", name="would cost", form="usd")
WOULD_SAVE = Column(key="would_save_usd", name="would save", form="usd")
SHARE = Column(key="share", name="share", form="share")
NOTES = (
    "would cost: the same tokens, cached alike, at the price of the tier that was decided, as its tokenizer counts them",
    "replies that would have been rejected and asked for again higher up are not reckoned in; unpriced calls are in neither sum",
)


def would_save(ledger: Ledger, tiers: Tiers, *, prices: Prices | None = None) -> Table:
    """What the steps of shadow mode cost, by the tier that was decided for them, and what they would cost there.

    Args:
        ledger: where they are recorded.
        tiers: the models of the decided tiers.
        prices: what those cost; the usual prices when not given.
    """
    known = prices if prices is not None else Prices()
    rows, whole = dict[str, _Row](), _Row()
    for entry in ledger.entries(mode="shadow", kind="attempt"):
        would = _would_cost(entry, tiers, known)
        for row in (rows.setdefault(entry.decided_tier, _Row()), whole):
            row.add(entry, would)
    title, simulated = titled("What shadow mode would save", ledger.total(mode="shadow"))
    decided = Column(key="decided", name="decided", form="text")
    return Table(
        title=title,
        columns=(decided, STEPS, COST, WOULD_COST, WOULD_SAVE, SHARE, UNPRICED_CALLS),
        rows=tuple([(_spelled(name, tiers), *rows[name].values()) for name in sorted(rows)]),
        total=("total", *whole.values()),
        notes=NOTES if rows else (),
        simulated=simulated,
    )


@dataclass(slots=True)
class _Row:
    steps: int = 0
    cost: int = 0
    would: int = 0
    unpriced: int = 0

    def add(self, entry: Entry, would: int | None) -> None:
        self.steps += entry.outcome == "accepted"
        if entry.cost is None or would is None:
            self.unpriced += 1
            return
        self.cost += entry.cost.total_pico
        self.would += would

    def values(self) -> tuple[int, int, int, int, float | None, int]:
        saved = self.cost - self.would
        return self.steps, self.cost, self.would, saved, saved / self.cost if self.cost else None, self.unpriced


def _would_cost(entry: Entry, tiers: Tiers, prices: Prices) -> int | None:
    """What a call would have cost on the tier that was decided; None when that is not known."""
    if entry.decided_tier == entry.tier:
        return entry.cost.total_pico if entry.cost is not None else None
    tier = next((each for each in tiers if each.name == entry.decided_tier), None)
    if tier is None:
        return None
    deployment = tier.deployments[0]
    card = prices.sold(deployment, at=datetime.fromtimestamp(entry.started_ns / 1e9, UTC))
    found = baseline(entry.usage, card=card, factor=tokenizer_factor(entry.model, deployment.price_key))
    return found.total_pico if found is not None else None


def _spelled(name: str, tiers: Tiers) -> str:
    models = [each.model for each in tiers if each.name == name]
    return f"{name} ({models[0]})" if models else name
