"""What a step would have cost on another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache

from routed_agents.pricing import Cost, RateCard, Usage, bare_name
from routed_agents.tiers import card


def baseline(usage: Usage, *, card: RateCard | None, factor: Fraction | None) -> Cost | None:
    """What the same step costs on another model; None when a price or a tokenizer is unknown.

    The figure is nominal: the same text counted by the other model's tokenizer, answered at the same length, with the same
    share read from and written to the cache, served the same way (batch, speed, region). A model that was never asked
    would have had its own cache, and would have said something else.

    Args:
        usage: the tokens that were spent.
        card: the rates of the model to compare with, usually the top tier's; None when unknown.
        factor: tokens it counts for each of the model that spent them, see `factor_between`; None when unknown.
    """
    return None if card is None or factor is None else card.cost(converted(usage, factor))


def saving(cost: Cost | None, baseline: Cost | None) -> int | None:
    """Pico-dollars kept against the baseline, negative when the step cost more; None when either is unknown."""
    return None if cost is None or baseline is None else baseline.total_pico - cost.total_pico


def factor_between(from_model: str, to_model: str, factors: Mapping[str, Fraction | str | int]) -> Fraction | None:
    """How many tokens `to_model` counts for each of `from_model`; None when it is not known."""
    if from_model == to_model or bare_name(from_model) == bare_name(to_model):
        return Fraction(1)
    before = factors.get(from_model, factors.get(bare_name(from_model)))
    after = factors.get(to_model, factors.get(bare_name(to_model)))
    return None if before is None or after is None else Fraction(after) / Fraction(before)


@cache
def tokenizer_factor(model: str, other: str) -> Fraction | None:
    """How many tokens the other model counts for each of this one's, by their cards; None when it is not known."""
    return factor_between(model, other, {name: factor for name in (model, other) if (factor := card(name).tokenizer) is not None})


def converted(usage: Usage, factor: Fraction) -> Usage:
    """The same text counted by another tokenizer, each kind rounded half up."""
    if factor == 1:
        return usage
    return replace(
        usage,
        input=_times(usage.input, factor),
        cache_read=_times(usage.cache_read, factor),
        cache_write_5m=_times(usage.cache_write_5m, factor),
        cache_write_1h=_times(usage.cache_write_1h, factor),
        output=_times(usage.output, factor),
        reasoning=_times(usage.reasoning, factor),
    )


def _times(count: int, factor: Fraction) -> int:
    return (2 * count * factor.numerator + factor.denominator) // (2 * factor.denominator)
