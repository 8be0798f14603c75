"""What routing would save, reckoned from what ran in shadow mode."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from routed_agents.economics import baseline, tokenizer_factor
from routed_agents.ledger import Entry, Ledger
from routed_agents.offline.report import COST, DOUBTS, STEPS, Column, Table, estimates, titled
from routed_agents.policy import Policy
from routed_agents.pricing import Prices
from routed_agents.tiers import Tier

WOULD_COST = Column(key="would_cost_usd", name="would cost", form="usd")
WOULD_SAVE = Column(key="would_save_usd", name="would save", form="usd")
SHARE = Column(key="share", name="share", form="share")
NOTES = (
    "would cost: the same tokens, cached alike, priced as the cost is on the model that was decided, as its tokenizer counts them",
    "replies that would have been rejected and asked for again higher up are not reckoned in; unpriced calls are in neither sum",
)


def would_save(ledger: Ledger, policy: Policy, *, prices: Prices | None = None) -> Table:
    """What the steps of shadow mode cost, by the tier that was decided for them, and what they would cost there.

    The ledger's entries say so themselves, at the prices of the router that decided. Those that an older release wrote don't: what they
    would cost is an estimate, and the table says so. A step that would have been stopped would have cost nothing.

    Args:
        ledger: where they are recorded.
        policy: whose tiers' models are taken for the decided ones, where entries don't name them.
        prices: what those cost; the usual prices when not given.
    """
    known = prices if prices is not None else Prices()
    rows, whole, guessed = dict[tuple[str, str], _Row](), _Row(), _Guessed()
    for entry in ledger.entries(mode="shadow", kind="attempt"):
        model, would = entry.decided_model, entry.decided_pico
        if model is None and (tier := _tier_of(entry, policy)) is not None:
            model, would = tier.model, _estimate(entry, tier, known)
            guessed.add(entry)
        elif model is None and entry.decided_tier == "stop":
            would = 0  # the call would not have been made
        for row in (rows.setdefault((entry.decided_tier, model or ""), _Row()), whole):
            row.add(entry, would)
    total = ledger.total(mode="shadow", kind="attempt")
    title, simulated = titled("What shadow mode would save", total)
    decided = Column(key="decided", name="decided", form="text")
    return Table(
        title=title,
        columns=(decided, STEPS, COST, WOULD_COST, WOULD_SAVE, SHARE, *DOUBTS),
        rows=tuple([(f"{tier} ({model})" if model else tier, *row.values()) for (tier, model), row in sorted(rows.items())]),
        total=("total", *whole.values()),
        notes=(*NOTES, *estimates(total), *guessed.notes(policy)) if rows else (),
        simulated=simulated,
    )


@dataclass(slots=True)
class _Row:
    steps: int = 0
    cost: int = 0
    would: int = 0
    unpriced: int = 0
    estimated: int = 0
    output_unknown: int = 0

    def add(self, entry: Entry, would: int | None) -> None:
        self.steps += entry.outcome in ("accepted", "watched")
        if entry.cost is None or would is None:
            self.unpriced += 1
            return
        self.cost += entry.cost.total_pico
        self.estimated += entry.estimated
        self.output_unknown += entry.output_unknown
        self.would += would

    def values(self) -> tuple[int, int, int, int, float | None, int, int, int]:
        saved = self.cost - self.would
        share = saved / self.cost if self.cost else None
        return self.steps, self.cost, self.would, saved, share, self.unpriced, self.estimated, self.output_unknown


@dataclass(slots=True)
class _Guessed:
    """The entries whose figure is an estimate, and the policies that decided them."""

    calls: int = 0
    policies: set[str] = field(default_factory=set[str])

    def add(self, entry: Entry) -> None:
        self.calls += 1
        self.policies.add(entry.policy_hash)

    def notes(self, policy: Policy) -> tuple[str, ...]:
        if not self.calls:
            return ()
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        note = f"of {calls} an older release wrote down, what they would cost is an estimate by policy {policy.hash}"
        others = sorted(self.policies - {policy.hash})
        return (f"{note}, but {', '.join(others)} decided: give that one with --policy" if others else note,)


def _tier_of(entry: Entry, policy: Policy) -> Tier | None:
    """The tier that was decided, by its name."""
    return next((each for each in policy.tiers if each.name == entry.decided_tier), None)


def _estimate(entry: Entry, tier: Tier, prices: Prices) -> int | None:
    """What a call would have cost on a tier; None when that is not known."""
    if entry.decided_tier == entry.tier:
        return entry.cost.total_pico if entry.cost is not None else None
    deployment = tier.deployments[0]
    card = prices.sold(deployment, at=datetime.fromtimestamp(entry.started_ns / 1e9, UTC))
    found = baseline(entry.usage, card=card, factor=tokenizer_factor(entry.model, deployment.price_key))
    return found.total_pico if found is not None else None
