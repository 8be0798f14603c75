"""Entries added up, to the last pico-dollar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from routed_agents.ledger.entries import BELOW_FLOOR
from routed_agents.pricing import usd_of

NONE: Final = "(none)"
"""Stands for an absent value among the keys of `Ledger.totals`; who is called so is counted among them."""
COUNTED: Final = ("steps", "attempts", "unpriced", "estimated", "output_unknown", "simulated", "below_floor")
SUMMED: Final = (
    "cost_pico",
    "baseline_pico",
    "saving_pico",
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
)
GROUPS: Final = (
    *("task_class", "tier", "decided_tier", "rank", "model", "served_model", "provider", "deployment", "node", "thread", "run", "lineage"),
    *("outcome", "kind", "mode", "policy_hash", "error", "source"),
)
BILLION: Final = 10**9
ESTIMATED: Final = "cost_pico IS NOT NULL AND source = 'estimated'"
OUTPUT_UNKNOWN: Final = f"{ESTIMATED} AND output = 0"
"""As `Entry.estimated` and `Entry.output_unknown` say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Entries added up.

    Attributes:
        steps: how many different steps.
        attempts: how many calls were made for them; judging and checking calls are not counted here, but cost.
        cost_pico: what the priced calls cost.
        unpriced: calls without a known price, which `cost_pico` leaves out.
        estimated: calls whose tokens were estimated, which are in all sums.
        output_unknown: those among them of which nothing but the prompt is known, as they were cut off: `cost_pico` is a lower bound.
        baseline_pico: what the steps would have cost on their baseline model, as far as known.
        saving_pico: baseline less cost, over the steps for which both are fully known.
        simulated: calls answered by the embedded provider.
        below_floor: answers a step was left with that came from a lower model than it may go to; they have no baseline.
    """

    steps: int = 0
    attempts: int = 0
    cost_pico: int = 0
    unpriced: int = 0
    estimated: int = 0
    output_unknown: int = 0
    baseline_pico: int = 0
    saving_pico: int = 0
    simulated: int = 0
    below_floor: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def cost(self) -> Decimal:
        """`cost_pico` in dollars."""
        return usd_of(self.cost_pico)

    @property
    def baseline(self) -> Decimal:
        """`baseline_pico` in dollars."""
        return usd_of(self.baseline_pico)

    @property
    def saving(self) -> Decimal:
        """`saving_pico` in dollars."""
        return usd_of(self.saving_pico)

    @property
    def tokens(self) -> int:
        """All tokens, sent and received."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h + self.output


def sums_by(group: str, clause: str) -> str:
    """The query that adds up the entries a clause picks, by an expression."""
    sums = ", ".join([_exact_sum(name) for name in SUMMED])
    return f"""
        WITH picked AS (SELECT * FROM entries WHERE {clause}),
        step AS (
            SELECT step_id, COUNT(*) = COUNT(cost_pico) AND COUNT(baseline_pico) > 0 AND NOT SUM({OUTPUT_UNKNOWN}) AS comparable
            FROM picked GROUP BY step_id
        ),
        compared AS (
            SELECT picked.*, COALESCE({group}, '{NONE}') AS grouped,
                CASE WHEN comparable THEN COALESCE(baseline_pico, 0) - cost_pico END AS saving_pico
            FROM picked JOIN step USING (step_id)
        )
        SELECT grouped, COUNT(DISTINCT step_id), SUM(kind = 'attempt'), COUNT(*) - COUNT(cost_pico), SUM({ESTIMATED}),
            SUM({OUTPUT_UNKNOWN}), SUM(simulated), SUM(outcome = 'watched' AND instr(codes, '"{BELOW_FLOOR}"') > 0), {sums}
        FROM compared GROUP BY grouped ORDER BY grouped != '{NONE}', grouped"""


def _exact_sum(column: str) -> str:
    """SQLite refuses a sum beyond 64 bits, 9.2 million dollars in pico-dollars; two halves put together in Python have no end."""
    return f"COALESCE(SUM({column} / {BILLION}), 0), COALESCE(SUM({column} % {BILLION}), 0)"


def totals_of(row: Sequence[int]) -> Totals:
    """A row that `sums_by` finds, without its group."""
    counts, halves = dict(zip(COUNTED, row, strict=False)), row[len(COUNTED) :]
    sums = {name: halves[2 * n] * BILLION + halves[2 * n + 1] for n, name in enumerate(SUMMED)}
    return Totals(**counts, **sums)
