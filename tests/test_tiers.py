"""Tiers: named slots, the models behind them, and which ids mean one model."""

from __future__ import annotations

import pytest

from routed_agents.errors import PolicyError
from routed_agents.tiers import Deployment, Tiers, card, same_model

THREE = Tiers.preset_named("claude-2026-11-three")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", True),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("anthropic:claude-opus-5", "claude-opus-5", True),
        ("openrouter/anthropic/claude-opus-5", "claude-opus-5", True),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5-20251001", True),
        ("google_anthropic_vertex:claude-haiku-4-5@20251001", "claude-haiku-4-5", True),
        ("us-gov.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("claude-opus-5", "claude-opus-5-5", False),
        ("claude-opus-4-7", "claude-opus-4-8", False),
        ("ft:gpt-4o", "gpt-4o", False),
    ],
)
def test_ids_of_one_model(one: str, other: str, same: bool) -> None:
    assert same_model(one, other) is same


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("claude", ["claude-haiku-5-5", "claude-opus-5-5"]),
        ("claude-2026-11", ["claude-haiku-5-5", "claude-opus-5-5"]),
        ("claude-2026-05", ["claude-haiku-4-5", "claude-opus-4-7"]),
        ("claude-2026-11-three", ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"]),
        ("gpt", ["gpt-6-luna", "gpt-6.1-sol"]),
        ("gpt-4o", ["gpt-4o-mini", "gpt-4o"]),
        ("embedded", ["claude-haiku-5-5", "claude-opus-5-5"]),
    ],
)
def test_a_preset_has_its_models_cheapest_first(name: str, models: list[str]) -> None:
    assert [tier.model for tier in Tiers.preset_named(name)] == models


def test_a_bare_preset_name_keeps_its_date() -> None:
    assert Tiers.preset_named("claude").preset == "claude-2026-11"


@pytest.mark.parametrize("name", ["claud", "claude-2025", "", "gpt-4o-2024"])
def test_an_unknown_preset_lists_the_known_ones(name: str) -> None:
    with pytest.raises(PolicyError, match="known presets: claude-2026-05"):
        Tiers.preset_named(name)


def test_only_the_embedded_preset_is_simulated() -> None:
    simulated = [each.simulated for name in ("claude", "embedded") for tier in Tiers.preset_named(name) for each in tier.deployments]

    assert simulated == [False, False, True, True]


@pytest.mark.parametrize(
    ("model", "rank"),
    [
        ("claude-haiku-5-5", 0),
        ("claude-haiku-5-5-20261007", 0),
        ("claude-sonnet-5-5", 1),
        ("claude-opus-5-5", 2),
        ("claude-opus-5", None),
        ("llama", None),
    ],
)
def test_the_rank_of_the_model_that_answered(model: str, rank: int | None) -> None:
    assert THREE.rank_of_model(model) == rank


def test_a_gateways_name_ranks_as_the_model_it_is_priced_as() -> None:
    tiers = Tiers.of({"cheap": "claude-haiku-5-5", "strong": Deployment(model="prod-large", priced_as="claude-opus-5-5")})

    assert [tiers.rank_of_model(name) for name in ("prod-large", "claude-opus-5-5")] == [1, 1]


@pytest.mark.parametrize(("name", "rank"), [("cheap", 0), ("mid", 1), ("strong", 2), ("nobody knows", 2), ("", 2)])
def test_a_pin_this_policy_does_not_know_counts_as_the_top(name: str, rank: int) -> None:
    assert THREE.rank_of_pin(name) == rank


def test_narrowing_counts_ranks_anew_and_keeps_the_order() -> None:
    assert [(tier.name, tier.rank) for tier in THREE.narrowed(["strong", "cheap"])] == [("cheap", 0), ("strong", 1)]


@pytest.mark.parametrize("ask", [lambda: THREE.named("opus"), lambda: THREE.narrowed(["cheap", "opus"])])
def test_an_unknown_tier_lists_the_known_ones(ask: object) -> None:
    with pytest.raises(PolicyError, match='unknown tier "opus"; known tiers: cheap, mid, strong'):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize("roles", [{}, {"cheap": []}])
def test_a_tier_without_a_model_is_an_error(roles: dict[str, list[str]]) -> None:
    with pytest.raises(PolicyError, match=r"give at least one|wanted at least one"):
        Tiers.of(roles)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "provider", "model"),
    [
        ("anthropic:claude-opus-5-5", "anthropic", "claude-opus-5-5"),
        ("claude-opus-5-5", "anthropic", "claude-opus-5-5"),
        ("ft:gpt-4o:acme", None, "ft:gpt-4o:acme"),
        ("my-model", None, "my-model"),
        ("bedrock:arn:aws:x", "bedrock", "arn:aws:x"),
    ],
)
def test_a_deployment_is_read_from_one_word(text: str, provider: str | None, model: str) -> None:
    read = Deployment.parse(text)

    assert (read.provider, read.model) == (provider, model)


def test_an_unknown_models_card_refuses_nothing() -> None:
    seen = card("brand-new-model")

    assert (seen.window, seen.sampling, seen.forced_tool_choice, seen.tools) == (None, True, True, True)


@pytest.mark.parametrize("model", ["claude-haiku-4-5@20251001", "us-gov.anthropic.claude-haiku-4-5-20251001-v1:0"])
def test_a_sellers_own_id_has_the_card_of_its_model(model: str) -> None:
    assert card(model) == card("claude-haiku-4-5")
