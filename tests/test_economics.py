"""What a step would have cost on another model."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routed_agents.economics import baseline, converted, factor_between, saving
from routed_agents.pricing import Cost, Prices, Usage

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PRICES = Prices(snapshot=False)
FACTORS = {"claude-haiku-4-5": "1.0", "claude-opus-4-7": "1.3", "claude-haiku-5-5": "1.3", "claude-opus-5-5": "1.3"}


def other(usage: Usage, cheap: str, strong: str) -> Cost | None:
    return baseline(usage, card=PRICES.card(strong, at=NOW), factor=factor_between(cheap, strong, FACTORS))


def test_a_finer_tokenizer_makes_the_same_text_dearer() -> None:
    cost = other(Usage(input=1_000_000, output=100_000), "claude-haiku-4-5", "claude-opus-4-7")
    assert cost is not None
    assert cost.usd == Decimal("9.75")


def test_the_baseline_of_the_top_tier_is_its_cost() -> None:
    usage = Usage(input=10, cache_read=20_000, cache_write_1h=30, output=40, batch=True, geo="us")
    assert other(usage, "anthropic:claude-opus-5-5", "claude-opus-5-5-20260922") == PRICES.price("claude-opus-5-5", usage, at=NOW)


def test_the_baseline_has_the_same_share_of_cache_reads() -> None:
    cost = other(Usage(cache_read=1_000_000), "claude-haiku-5-5", "claude-opus-5-5")
    assert cost == Cost(cache_read=200_000 * 1_000_000)


@pytest.mark.parametrize(("count", "becomes"), [(1, 1), (2, 3), (5, 7), (15, 20)])
def test_a_half_token_is_rounded_up(count: int, becomes: int) -> None:
    assert converted(Usage(input=count), Fraction("1.3")).input == becomes


@given(count=st.integers(0, 10**12))
def test_conversion_there_and_back_is_off_by_at_most_a_token(count: int) -> None:
    there = converted(Usage(input=count), Fraction("1.3"))
    assert abs(converted(there, 1 / Fraction("1.3")).input - count) <= 1


@pytest.mark.parametrize("strong", ["claude-opus-5", "nobody-1"])
def test_without_a_tokenizer_factor_or_a_price_there_is_no_baseline(strong: str) -> None:
    assert other(Usage(input=1), "claude-haiku-5-5", strong) is None


def test_a_mode_the_top_tier_does_not_sell_has_no_baseline() -> None:
    assert other(Usage(input=1, service_tier="flex"), "claude-haiku-5-5", "claude-opus-5-5") is None


def test_a_saving_needs_both_sides_and_may_be_a_loss() -> None:
    assert saving(Cost(input=5), Cost(input=3)) == -2
    assert saving(None, Cost(input=3)) is None
    assert saving(Cost(input=5), None) is None
