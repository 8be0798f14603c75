"""What a call's tokens cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anthropic.types as claude
import pytest
from anthropic.types import beta
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_anthropic import ChatAnthropic
from langchain_anthropic.chat_models import _create_usage_metadata
from langchain_core.language_models._utils import _update_message_content_to_blocks
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_openai.chat_models.base import _construct_lc_result_from_responses_api
from langchain_openai.chat_models.base import _create_usage_metadata as openai_metadata
from openai.types import chat, responses

from routed_agents.errors import ConfigurationError
from routed_agents.pricing import Cost, Prices, Usage, bare_name, response_id_of, served_model_of, usage_of
from routed_agents.pricing.book import project_prices
from routed_agents.tiers import Deployment

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PRICES = Prices()
PROJECT = Prices(snapshot=False)
ROWS = sorted({row["model"]: row["provider"] for rows in project_prices().rows.values() for row in rows}.items())


def usd(model: str, usage: Usage, at: datetime = NOW, prices: Prices = PROJECT) -> Decimal | None:
    return prices.cost(model, usage, at=at)


# ---- the article, the table, the snapshot


@pytest.mark.parametrize(
    ("model", "dollars"),
    [("claude-opus-4-7", "7.50"), ("claude-haiku-4-5", "1.50"), ("gpt-4o", "3.50"), ("gpt-4o-mini", "0.21")],
)
def test_the_articles_example_reproduces(model: str, dollars: str) -> None:
    assert usd(model, Usage(input=1_000_000, output=100_000)) == Decimal(dollars)


CONTEXTS = {
    "standard": ({}, {}),
    "batch": ({"batch": True}, {"processing": "batch"}),
    "fast speed": ({"speed": "fast"}, {"speed": "fast"}),
    "flex": ({"service_tier": "flex"}, {"service_tier": "flex"}),
    "priority": ({"service_tier": "priority"}, {"service_tier": "priority"}),
    "fast tier": ({"service_tier": "fast"}, {"service_tier": "fast"}),
}
COUNTS = st.one_of(
    st.integers(0, 2_000), st.integers(0, 300_000), st.sampled_from([0, 1, 100_000, 100_001, 200_000, 200_001, 272_000, 272_001])
)


@settings(max_examples=200, deadline=None)
@given(
    model=st.sampled_from(ROWS),
    context=st.sampled_from(sorted(CONTEXTS)),
    counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
    searches=st.integers(0, 3),
    at=st.sampled_from([datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC), NOW]),
)
def test_every_row_agrees_with_genai_prices_to_the_last_digit(
    model: tuple[str, str], context: str, counts: tuple[int, ...], searches: int, at: datetime
) -> None:
    name, provider = model
    ours, theirs = CONTEXTS[context]
    mode = context.removesuffix(" tier")
    if theirs:
        at = NOW  # genai-prices knows ways of being served since October 2026 only
    fresh, read, short, long, output = counts
    long = long if provider == "anthropic" else 0  # genai-prices does not know OpenAI's 12-hour writes
    usage = Usage(input=fresh, cache_read=read, cache_write_5m=short, cache_write_1h=long, output=output, web_searches=searches, **ours)
    card = PROJECT.card(name, at=at)
    assert card is not None
    if mode not in card.modes:
        assert card.cost(usage) is None
        return

    expected = calc_price(
        TheirUsage(
            input_tokens=usage.prompt,
            cache_read_tokens=read,
            cache_write_tokens=short + long,
            cache_write_1h_tokens=long,
            output_tokens=output,
            web_searches=searches,
        ),
        name,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context=theirs,
    )

    assert usd(name, usage, at) == expected.total_price


SNAPSHOT_MODELS = [
    ("claude-sonnet-4-5-20250929", None, None),
    ("claude-opus-4-6", None, None),
    ("us.anthropic.claude-opus-4-7-v1:0", None, "aws"),
    ("eu.anthropic.claude-haiku-5-5", None, "aws"),
    ("gpt-5.5", None, None),
    ("gemini-2.5-pro", None, None),
    ("deepseek-chat", None, None),
    ("llama-3.3-70b-versatile", "groq", "groq"),
]


@settings(max_examples=100, deadline=None)
@given(
    model=st.sampled_from(SNAPSHOT_MODELS),
    counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    at=st.sampled_from([datetime(2026, 2, 1, 3, tzinfo=UTC), NOW + timedelta(hours=17)]),
)
def test_models_of_the_snapshot_agree_with_it_to_the_last_digit(
    model: tuple[str, str | None, str | None], counts: tuple[int, ...], at: datetime
) -> None:
    name, ours, theirs = model
    fresh, read, written, output = counts
    usage = Usage(input=fresh, cache_read=read, cache_write_5m=written, output=output)
    expected = calc_price(
        TheirUsage(input_tokens=usage.prompt, cache_read_tokens=read, cache_write_tokens=written, output_tokens=output),
        name,
        provider_id=theirs,
        genai_request_timestamp=at,
    )
    cost = PRICES.price(name, usage, provider=ours, at=at)
    assert cost is not None
    assert cost.usd == expected.total_price


def test_the_table_was_checked_against_the_installed_snapshot() -> None:
    assert project_prices().source.startswith(f"genai-prices {version('genai-prices')},")


# ---- cliffs, caches, dates, ways of being served


@pytest.mark.parametrize(("tokens", "dollars"), [(100_000, "0.010"), (100_001, "0.0500005")])
def test_one_token_over_the_cliff_reprices_all_of_them(tokens: int, dollars: str) -> None:
    assert usd("claude-haiku-5-5", Usage(input=tokens)) == Decimal(dollars)


def test_cached_tokens_count_towards_the_cliff_and_output_pays_for_it() -> None:
    below = usd("claude-haiku-5-5", Usage(input=10, cache_read=99_990, output=1_000))
    above = usd("claude-haiku-5-5", Usage(input=10, cache_read=99_991, output=1_000))
    assert below == Decimal("0.0015009")
    assert above == 5 * Decimal("0.0015009") + Decimal("0.00000005")


def test_the_openai_cliff_doubles_input_and_raises_output_by_half() -> None:
    below, above = Usage(input=272_000, output=1_000), Usage(input=272_001, output=1_000)
    assert usd("gpt-6.1-sol", below) == Decimal("0.554")
    assert usd("gpt-6.1-sol", above) == Decimal("1.103004")


def test_each_retention_of_a_cache_write_has_its_own_price() -> None:
    cost = PROJECT.price("claude-opus-5-5", Usage(cache_write_5m=1_000_000, cache_write_1h=1_000_000), at=NOW)
    assert cost == Cost(cache_write=13 * 10**12)


@pytest.mark.parametrize(("day", "dollars"), [((2026, 2, 1), "1.80"), ((2026, 3, 12), "1.80"), ((2026, 3, 13), "0.90")])
def test_a_price_holds_from_its_day_on(day: tuple[int, int, int], dollars: str) -> None:
    assert usd("claude-sonnet-4-6", Usage(input=300_000), datetime(*day, 12, tzinfo=UTC)) == Decimal(dollars)


def test_the_day_of_a_price_is_a_day_in_utc() -> None:
    tokyo_morning = datetime(2026, 3, 13, 8, tzinfo=timezone(timedelta(hours=9)))
    assert usd("claude-sonnet-4-6", Usage(input=300_000), tokyo_morning) == Decimal("1.80")


def test_batch_halves_tokens_but_not_searches() -> None:
    usage = Usage(input=1_000_000, web_searches=100)
    assert usd("claude-haiku-4-5", usage) == Decimal(2)
    assert usd("claude-haiku-4-5", replace(usage, batch=True)) == Decimal("1.5")


def test_half_a_nano_dollar_is_not_rounded_away() -> None:
    assert usd("claude-haiku-5-5", Usage(cache_write_5m=1, batch=True)) == Decimal("0.0000000625")


def test_us_inference_costs_a_tenth_more_in_any_mode() -> None:
    assert usd("claude-opus-5-5", Usage(input=1_000_000, geo="us")) == Decimal("4.4")
    assert usd("claude-opus-5-5", Usage(input=1_000_000, geo="us", speed="fast")) == Decimal("8.8")
    assert usd("claude-haiku-5-5", Usage(cache_read=100_001, geo="us", batch=True)) == Decimal("100001") * Decimal("0.0275") / 10**6


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input=1, speed="fast"),
        Usage(input=1, speed="warp"),
        Usage(input=1, service_tier="priority"),
        Usage(input=1, service_tier="auto"),
        Usage(input=1, geo="mars"),
        Usage(input=1, other=1),
    ],
)
def test_a_way_of_being_served_without_a_price_is_unpriced(usage: Usage) -> None:
    assert usd("claude-opus-4-7", usage) is None


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input=1, speed="standard"),
        Usage(input=1, service_tier="standard"),
        Usage(input=1, service_tier="on_demand"),
        Usage(input=1, geo="global"),
    ],
)
def test_the_standard_way_spelled_out_costs_the_standard_price(usage: Usage) -> None:
    assert usd("claude-opus-4-7", usage) == Decimal("0.000005")


def test_two_surcharges_at_once_are_unpriced() -> None:
    assert usd("claude-opus-5-5", Usage(input=1, speed="fast", batch=True)) is None


def test_a_sum_of_differently_served_calls_is_unpriced() -> None:
    mixed = Usage(input=1) + Usage(input=1, speed="fast")
    assert mixed.input == 2
    assert usd("claude-opus-5-5", mixed) is None


def test_fast_mode_of_opus_4_8_ends_with_november() -> None:
    fast = Usage(input=1_000_000, speed="fast")
    assert usd("claude-opus-4-8", fast) == Decimal(10)
    assert usd("claude-opus-4-8", fast, datetime(2026, 11, 30, tzinfo=UTC)) is None


def test_dollars_are_exact_however_many() -> None:
    assert Cost(input=123_456_789_012_345_678_901_234_567_890_123).usd == Decimal("123456789012345678901.234567890123")


# ---- names


@pytest.mark.parametrize(
    ("name", "pico_per_token"),
    [
        ("claude-haiku-4-5-20251001", 1_000_000),
        ("anthropic:claude-opus-4-7", 5_000_000),
        ("anthropic/claude-opus-4-7", 5_000_000),
        ("openai:gpt-4o-2024-08-06", 2_500_000),
        ("gpt-4o-2024-05-13", 5_000_000),
        ("gpt-6-luna-2026-10-01", 100_000),
        ("us.anthropic.claude-opus-4-7-v1:0", 5_500_000),
        ("global.anthropic.claude-opus-4-7-v1:0", 5_000_000),
        ("bedrock_converse:us.anthropic.claude-opus-4-7-v1:0", 5_500_000),
        ("bedrock/eu.anthropic.claude-haiku-5-5", 110_000),
        ("claude-haiku-4-5@20251001", 1_000_000),
        ("vertex_ai/claude-opus-4-7", 5_000_000),
        ("azure/gpt-4o", 2_500_000),
        ("openrouter/anthropic/claude-opus-4.7", 5_000_000),
        ("claude-sonnet-4-20250514", 3_000_000),
    ],
)
def test_a_model_is_found_by_the_names_it_goes_by(name: str, pico_per_token: int) -> None:
    cost = PRICES.price(name, Usage(input=1), at=NOW)
    assert cost == Cost(input=pico_per_token)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "claude",
        "opus",
        "claude-opus-4-75",
        "claude-opus-4-7-turbo",
        "claude-opus-4-7-20261399",
        "gpt-4o-2025-01-01",
        "gpt-4o-mini-tuned",
        "ft:gpt-4o-2024-08-06:org::id",
        "my-claude-opus-4-7",
        "ollama:llama3",
        "groq:claude-opus-4-7",
        "openai:claude-opus-4-7",
        "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-7-v1:0",
        "notus.anthropic.claude-opus-4-7-turbo",
    ],
)
def test_a_name_that_is_not_certain_has_no_price(name: str) -> None:
    assert PRICES.card(name, at=NOW) is None


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("claude-haiku-5-5", f"prices.toml {project_prices().version}"),
        ("mistral-small-latest", f"genai-prices {version('genai-prices')}"),
    ],
)
def test_a_card_says_once_which_version_of_its_source_it_is_from(model: str, label: str) -> None:
    assert PRICES.card(model, at=NOW).label == label


def test_the_provider_says_whose_price_it_is() -> None:
    assert PRICES.card("claude-opus-4-7", provider="anthropic", at=NOW).provider == "anthropic"
    assert PRICES.card("us.anthropic.claude-opus-4-7-v1:0", provider="amazon_bedrock", at=NOW).provider == "aws"
    assert PRICES.card("claude-opus-4-7", provider="ollama", at=NOW) is None


@pytest.mark.parametrize(
    ("name", "model"), [("sonar", "sonar"), ("perplexity/sonar", "perplexity/sonar"), ("perplexity/sonar-pro", "sonar-pro")]
)
def test_a_sellers_own_name_for_a_model_comes_before_the_one_without_the_seller(name: str, model: str) -> None:
    assert PRICES.card(name, provider="perplexity", at=NOW).model == model


@pytest.mark.parametrize(
    ("deployment", "pico_per_token"),
    [
        ("openrouter:anthropic/claude-opus-4.7", 5_000_000),
        ("anthropic/claude-opus-4.7", 5_000_000),
        ("openai:anthropic/claude-opus-4.7", 5_000_000),
        ("groq:openai/gpt-oss-20b", 75_000),
        ("bedrock:claude-haiku-5-5", 110_000),
        ("litellm:gpt-4o", 2_500_000),
        ("openai:mistral-small-latest", 150_000),
        ("ollama:deepseek-r1", None),
        ("ollama:gpt-oss-20b", None),
        ("together:deepseek-chat", None),
    ],
)
def test_a_deployments_price_is_its_sellers_and_a_gateways_is_the_makers(deployment: str, pico_per_token: int | None) -> None:
    card = PRICES.sold(Deployment.parse(deployment), at=NOW)
    assert (card and card.prompt_rate) == pico_per_token


@pytest.mark.parametrize(
    ("asked", "served", "pico_per_token"),
    [
        ("bedrock:anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5", 1_100_000),
        ("openrouter:anthropic/claude-opus-4.7", "claude-opus-4-7", 5_000_000),
        ("openrouter:anthropic/claude-opus-4.7", "claude-haiku-4-5", None),
        ("openai:gpt-4o", "gpt-4o-2024-05-13", 5_000_000),
    ],
)
def test_a_name_that_its_seller_does_not_list_is_priced_as_the_form_of_it_that_was_asked_for(
    asked: str, served: str, pico_per_token: int | None
) -> None:
    card = PRICES.sold(Deployment.parse(asked), served, at=NOW)
    assert (card and card.prompt_rate) == pico_per_token


@pytest.mark.parametrize(
    ("priced_as", "served", "pico_per_token"),
    [
        ("claude-haiku-5-5", None, 100_000),
        ("claude-haiku-5-5", "fast", 100_000),
        ("claude-haiku-5-5", "claude-haiku-5-5-20261007", 100_000),
        ("claude-haiku-5-5", "a name of the gateway's own", 100_000),
        ("claude-haiku-5-5", "claude-opus-5-5", 4_000_000),
        ("claude-opus-5-5", "claude-haiku-5-5", 100_000),
        ("gpt-4.1-mini", "gpt-4.1", 2_000_000),
        ("as agreed", "claude-opus-5-5", 300_000),
    ],
)
def test_behind_an_alias_the_price_follows_another_model_that_answers(priced_as: str, served: str | None, pico_per_token: int) -> None:
    prices = Prices({"as agreed": {"input": "0.30", "output": 1}})
    card = prices.sold(Deployment(model="fast", provider="litellm", priced_as=priced_as), served, at=NOW)
    assert (card and card.prompt_rate) == pico_per_token


def test_a_borrowed_price_does_not_bring_its_owners_discounts() -> None:
    assert PRICES.price("azure/gpt-4.1", Usage(input=1), at=NOW) is not None
    assert PRICES.price("azure/gpt-4.1", Usage(input=1, batch=True), at=NOW) is None


@pytest.mark.parametrize("name", ["anthropic:claude-haiku-4-5-20251001", "claude-haiku-4-5@20251001", "anthropic/claude-haiku-4-5"])
def test_a_bare_name_has_neither_provider_nor_release(name: str) -> None:
    assert bare_name(name) == "claude-haiku-4-5"


def test_an_unknown_model_is_counted_and_not_free() -> None:
    prices = Prices(snapshot=False)
    assert prices.cost("nobody-1", Usage(input=1), at=NOW) is None
    assert prices.misses == {"nobody-1": 1}


def test_models_without_a_price_can_be_found_ahead_of_time() -> None:
    assert Prices(snapshot=False).prepare(map(Deployment.parse, ["claude-opus-5-5", "nobody-1"])) == ("nobody-1",)


# ---- own prices


def test_own_prices_come_before_the_table() -> None:
    prices = Prices({"claude-opus-4-7": {"input": 4, "output": "20", "cache_read": 0.4}}, snapshot=False)
    assert usd("anthropic:claude-opus-4-7", Usage(input=10**6, cache_read=10**6), prices=prices) == Decimal("4.4")


@pytest.mark.parametrize(
    ("row", "more", "asked", "served", "dollars"),
    [
        ("gpt-4o", {}, "openai:gpt-4o", "gpt-4o", "0.40"),
        ("gpt-4o", {}, "openai:gpt-4o", "gpt-4o-2024-08-06", "0.40"),
        ("gpt-4o", {}, "openai:gpt-4o-2024-05-13", "gpt-4o-2024-05-13", "5"),
        ("gpt-4o", {"any_date": True}, "openai:gpt-4o-2024-05-13", "gpt-4o-2024-05-13", "0.40"),
        ("gpt-4o", {}, "openai:gpt-4o", "gpt-4o-mini", "0.15"),
        ("gpt-4o", {}, "gpt-4o", "gpt-4o-2024-08-06", "0.40"),
        ("openai:gpt-4o", {}, "openai:gpt-4o", "gpt-4o-2024-08-06", "0.40"),
        ("openai:gpt-4o", {"any_date": True}, "openai:gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "0.40"),
        ("openai:gpt-4o", {}, "azure_openai:gpt-4o", "gpt-4o-2024-08-06", "2.50"),
        ("azure_openai:gpt-4o", {}, "azure_ai:gpt-4o", "gpt-4o-2024-08-06", "0.40"),
        ("litellm:gpt-4o", {}, "litellm:gpt-4o", "gpt-4o", "0.40"),
        ("ollama:llama3", {}, "ollama:llama3", "llama3", "0.40"),
        ("llama3", {}, "ollama:llama3", "llama3", "0.40"),
    ],
)
def test_own_prices_hold_for_the_model_asked_for_whatever_release_of_it_answers(
    row: str, more: dict[str, Any], asked: str, served: str, dollars: str
) -> None:
    card = Prices({row: {"input": "0.40", "output": "2", **more}}).sold(Deployment.parse(asked), served, at=NOW)
    assert card is not None
    assert card.prompt_rate == Decimal(dollars) * 10**6


@pytest.mark.parametrize("row", ["claude-opus-5-5", "claude-opus-5.5", "anthropic:claude-opus-5.5"])
@pytest.mark.parametrize("asked", ["anthropic/claude-opus-5.5", "anthropic:claude-opus-5-5"])
def test_own_prices_hold_for_a_model_however_its_version_is_spelled(row: str, asked: str) -> None:
    card = Prices({row: {"input": "0.40", "output": "2"}}).sold(Deployment.parse(asked), at=NOW)
    assert (card and card.prompt_rate) == 400_000


def test_a_row_for_the_release_comes_before_the_one_for_its_model() -> None:
    prices = Prices({"gpt-4o": {"input": 1, "output": 2}, "gpt-4o-2024-08-06": {"input": 3, "output": 4}})
    card = prices.sold(Deployment.parse("openai:gpt-4o"), "gpt-4o-2024-08-06", at=NOW)
    assert card is not None
    assert card.prompt_rate == 3 * 10**6


def test_a_cache_rate_not_given_costs_what_input_costs() -> None:
    prices = Prices({"mine": {"input": "1", "output": "2"}})
    assert usd("mine", Usage(cache_read=10**6, cache_write_1h=10**6), prices=prices) == Decimal(2)


def test_own_prices_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[price]]\nmodel = "mine"\ninput = 1\noutput = 2\ncliff = { over = 10, input = 2 }\nmodes = { batch = 0.5 }\n\n'
        '[[price]]\nmodel = "mine"\nfrom = 2026-12-01\ninput = 3\noutput = 4\n'
    )
    prices = Prices(path, snapshot=False)
    assert usd("mine", Usage(input=11, batch=True), prices=prices) == Decimal("0.000011")
    assert usd("mine", Usage(input=11), datetime(2026, 12, 1, tzinfo=UTC), prices=prices) == Decimal("0.000033")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input": 1}, '"output" is missing'),
        ({"input": 1, "output": "free"}, "\"output\" is 'free'"),
        ({"input": -1, "output": 1}, "a number of 0 or more"),
        ({"input": 1, "output": 1, "inputs": 1}, 'unknown key "inputs"'),
        ({"input": "0.0000001", "output": 1}, "finer than a pico-dollar"),
        ({"input": 1, "output": 1, "cliff": {"input": 2}}, '"cliff.over" is None'),
        ({"input": 1, "output": 1, "modes": {"batch": {"in": 1}}}, 'unknown rate "in"'),
    ],
)
def test_a_wrong_row_fails_when_it_is_loaded(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Prices({"mine": row})


ROW = '[[price]]\nmodel = "mine"\ninput = 1\noutput = 2\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{ROW}{ROW}from = "2026-01-01"\n', "\"from\" is '2026-01-01'; wanted a day"),
        (f"{ROW}{ROW}from = 2026-01-01T00:00:00Z\n", '"from" is datetime'),
        (f"{ROW}{ROW}", "two rows hold from the same day on"),
        (f'{ROW}also = "mine-latest"\n', "\"also\" is 'mine-latest'; wanted a list of names"),
        (f'{ROW}any_date = "no"\n', "\"any_date\" is 'no'; wanted true or false"),
        ('price = ["mine"]\n', r"has no \[\[price\]\] row"),
        ("[[price]]\ninput = 1\noutput = 2\n", 'a .* row has no "model"'),
    ],
)
def test_a_wrong_file_fails_when_it_is_loaded(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Prices(path)


@pytest.mark.parametrize(("prices", "said"), [({"mine": 5}, '"mine" is int; wanted a table'), (5, "prices are int; wanted a mapping")])
def test_what_are_no_prices_is_refused(prices: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Prices(prices)


def test_own_prices_may_have_other_names() -> None:
    prices = Prices({"mine": {"input": 1, "output": 2, "also": ["ours"]}}, snapshot=False)
    assert usd("ours", Usage(input=10**6), prices=prices) == Decimal(1)


def test_a_missing_file_fails_when_it_is_loaded() -> None:
    with pytest.raises(ConfigurationError, match=r"price file /nowhere/prices\.toml cannot be read: no such file or directory; give"):
        Prices("/nowhere/prices.toml")


# ---- speed


def test_a_known_model_never_imports_genai_prices() -> None:
    code = (
        "import sys, datetime\nfrom routed_agents.pricing import Prices, Usage\n"
        "assert Prices().price('anthropic:claude-opus-5-5', Usage(input=1)) is not None\n"
        "assert 'genai_prices' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=20)


def test_the_price_of_an_expected_model_is_loaded_in_the_background() -> None:
    code = (
        "import sys, threading\nfrom routed_agents.pricing import Prices\n"
        "prices = Prices()\n"
        "prices.expect('claude-opus-5-5', 'anthropic')\n"
        "Prices(snapshot=False).expect('nobody-1')\n"
        "assert threading.active_count() == 1\n"
        "prices.expect('gpt-4.1', 'openai'), prices.expect('gpt-4.1', 'openai')\n"
        "[loading] = [each for each in threading.enumerate() if each is not threading.main_thread()]\n"
        "loading.join()\n"
        "assert 'genai_prices.data_snapshot' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=20)


def test_pricing_a_call_takes_microseconds_and_loading_milliseconds() -> None:
    card, usage = PROJECT.card("claude-haiku-5-5", at=NOW), Usage(input=1_000, cache_read=90_000, output=300)
    assert card is not None
    best = min(_timed(lambda: [card.cost(usage) for _ in range(2_000)]) for _ in range(10)) / 2_000
    project_prices.cache_clear()
    loading = min(_timed(lambda: (project_prices.cache_clear(), project_prices())) for _ in range(5))
    assert best < 10e-6  # 1.6 us on the machine this was written on
    assert loading < 50e-3  # 6 ms


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# ---- what replies say

SPLIT = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}
RAW = {
    "input_tokens": 10,
    "output_tokens": 50,
    "cache_read_input_tokens": 200,
    "cache_creation_input_tokens": 100,
    "cache_creation": SPLIT,
    "output_tokens_details": {"thinking_tokens": 20},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    "service_tier": "standard",
    "speed": "fast",
    "inference_geo": "us",
}
READ = Usage(
    input=10,
    cache_read=200,
    cache_write_5m=30,
    cache_write_1h=70,
    output=50,
    reasoning=20,
    web_searches=2,
    service_tier="standard",
    speed="fast",
    geo="us",
)
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": RAW,
}


def test_an_anthropic_message_is_read_as_object_and_as_dict() -> None:
    message = claude.Message.model_validate(MESSAGE)
    assert usage_of(message) == usage_of(MESSAGE) == usage_of(message.usage) == usage_of(message.model_dump()) == READ
    assert (served_model_of(message), response_id_of(message)) == ("claude-opus-5-5", "msg_1")
    assert (served_model_of(MESSAGE), response_id_of(MESSAGE)) == ("claude-opus-5-5", "msg_1")


def test_anthropic_cache_writes_without_a_split_are_short() -> None:
    usage = claude.Usage(input_tokens=1, output_tokens=2, cache_creation_input_tokens=100)
    assert usage_of(usage) == Usage(input=1, output=2, cache_write_5m=100)


def test_anthropics_batch_tier_is_batch() -> None:
    usage = usage_of(claude.Usage(input_tokens=1, output_tokens=2, service_tier="batch"))
    assert usage == Usage(input=1, output=2, batch=True)


def test_compaction_is_added_and_another_models_share_is_unpriced() -> None:
    part = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    compacted = beta.BetaUsage.model_validate({"input_tokens": 1, "output_tokens": 2, "iterations": [part | {"type": "compaction"}]})
    advised = beta.BetaUsage.model_validate(
        {"input_tokens": 1, "output_tokens": 2, "iterations": [part | {"type": "advisor_message", "model": "claude-opus-5-5"}]}
    )
    assert usage_of(compacted) == Usage(input=6, output=9)
    assert usage_of(advised) == Usage(input=1, output=2, other=12)


@pytest.mark.parametrize(
    ("status", "written", "unknown"),
    [
        ({"type": "redeemed"}, 100, 100),
        ({"type": "redeemed"}, 0, 0),
        ({"type": "not_applied", "reason": "expired"}, 100, 0),
    ],
)
def test_cache_writes_under_a_redeemed_credit_are_unpriced(status: dict[str, str], written: int, unknown: int) -> None:
    told = beta.BetaUsage.model_validate(
        {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": written, "fallback_credit": {"status": status}}
    )
    assert usage_of(told) == usage_of(told.model_dump()) == Usage(input=1, output=2, cache_write_5m=written, other=unknown)


def test_langchain_prefers_anthropics_own_usage() -> None:
    raw = claude.Usage.model_validate(RAW)
    message = AIMessage(
        "hi",
        id="run-1",
        usage_metadata=_create_usage_metadata(raw),
        response_metadata={"id": "msg_1", "model_name": "claude-opus-5-5", "model_provider": "anthropic", "usage": raw.model_dump()},
    )
    assert usage_of(message) == READ
    assert (served_model_of(message), response_id_of(message)) == ("claude-opus-5-5", "msg_1")


def test_langchains_streamed_usage_is_disjoint_with_and_without_a_split() -> None:
    split = AIMessageChunk("", usage_metadata=_create_usage_metadata(claude.Usage.model_validate(RAW)))
    unsplit = AIMessageChunk("", usage_metadata=_create_usage_metadata(claude.Usage.model_validate(RAW | {"cache_creation": None})))
    expected = Usage(input=10, cache_read=200, cache_write_5m=30, cache_write_1h=70, output=50, reasoning=20)
    assert usage_of(split) == expected
    assert usage_of(unsplit) == replace(expected, cache_write_5m=100, cache_write_1h=0)


def test_chunks_add_up_to_the_usage_of_the_stream() -> None:
    chunks = [
        AIMessageChunk("a", response_metadata={"model_name": "claude-opus-5-5"}),
        AIMessageChunk("", usage_metadata=_create_usage_metadata(claude.Usage(input_tokens=3, output_tokens=4))),
    ]
    assert usage_of(chunks[0]) is None
    assert usage_of(chunks[0] + chunks[1]) == Usage(input=3, output=4)
    assert served_model_of(chunks[0] + chunks[1]) == "claude-opus-5-5"


@pytest.mark.parametrize("choices", [1, 2, 3])
def test_a_stream_of_several_choices_tells_its_model_and_tier_once(choices: int) -> None:
    end = {"model_provider": "openai", "model_name": "gpt-6-luna", "service_tier": "flex"}
    whole = AIMessageChunk("")
    for _ in range(choices):
        whole += AIMessageChunk("a", response_metadata=end)
    whole += AIMessageChunk("", usage_metadata=openai_metadata(COMPLETION["usage"], None))
    assert served_model_of(whole) == "gpt-6-luna"
    assert usage_of(whole) == replace(COMPLETED, service_tier="flex")


def test_an_answer_from_langchains_cache_costs_nothing() -> None:
    message = AIMessage("", usage_metadata={"input_tokens": 5, "output_tokens": 5, "total_tokens": 10, "total_cost": 0})  # type: ignore[typeddict-unknown-key]
    assert usage_of(message) == Usage()


COMPLETION: dict[str, Any] = {
    "id": "chatcmpl_1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-6-sol-2026-09-01",
    "service_tier": "priority",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}, "logprobs": None}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 40},
    },
}
COMPLETED = Usage(input=10, cache_read=60, cache_write_5m=30, output=50, reasoning=40, service_tier="priority")


def test_an_openai_completion_is_read_as_object_and_as_dict() -> None:
    completion = chat.ChatCompletion.model_validate(COMPLETION)
    assert usage_of(completion) == usage_of(COMPLETION) == COMPLETED
    assert (served_model_of(completion), response_id_of(completion)) == ("gpt-6-sol-2026-09-01", "chatcmpl_1")


def test_an_openai_response_keeps_retentions_apart_and_counts_searches() -> None:
    raw = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-6-sol",
        "service_tier": "flex",
        "output": [{"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {
                "cached_tokens": 60,
                "cache_write_tokens": 30,
                "cache_write_tokens_details": {"ttl_12h_tokens": 20, "ttl_30m_tokens": 10},
            },
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 40},
            "total_tokens": 150,
        },
    }
    expected = replace(COMPLETED, cache_write_5m=10, cache_write_1h=20, service_tier="flex", web_searches=1)
    assert usage_of(responses.Response.model_validate(raw)) == usage_of(raw) == expected


@pytest.mark.parametrize(
    ("told", "status", "searches"),
    [(3, "completed", 3), (0, "completed", 0), (None, "completed", 1), (None, "failed", 0)],
)
def test_the_searches_of_an_openai_response_are_those_it_says_are_billed(told: int | None, status: str, searches: int) -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": status, "action": {"type": "search", "query": "q"}}
    raw = {
        "object": "response",
        "output": [item],
        "usage": {"input_tokens": 100, "input_tokens_details": {}, "output_tokens": 50, "output_tokens_details": {}, "total_tokens": 150},
        "tool_usage": {"web_search": {"num_requests": told}} if told is not None else None,
    }
    assert usage_of(raw) == usage_of(responses.Response.model_construct(None, **raw)) == Usage(input=100, output=50, web_searches=searches)


@pytest.mark.parametrize("tier", ["priority", "flex", "default", None])
def test_langchains_openai_prefixes_are_undone(tier: str | None) -> None:
    message = AIMessage(
        "hi",
        usage_metadata=openai_metadata(COMPLETION["usage"], tier),
        response_metadata={"service_tier": tier, "model_name": "gpt-6-sol", "model_provider": "openai"},
    )
    assert usage_of(message) == replace(COMPLETED, service_tier=tier)


def test_the_tier_is_known_from_the_prefix_alone() -> None:
    assert usage_of(AIMessage("", usage_metadata=openai_metadata(COMPLETION["usage"], "flex"))) == replace(COMPLETED, service_tier="flex")


def test_audio_tokens_make_a_call_unpriced() -> None:
    usage = usage_of({"usage": COMPLETION["usage"] | {"prompt_tokens_details": {"audio_tokens": 5}}})
    assert usage is not None
    assert usd("gpt-6-sol", usage) is None


@pytest.mark.parametrize("kind", ["file_search_call", "code_interpreter_call", "image_generation_call"])
def test_a_hosted_tool_with_a_fee_makes_a_call_unpriced(kind: str) -> None:
    counted = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    told = {"model_name": "gpt-6-sol", "model_provider": "openai"}
    raw = {"object": "response", "output": [{"type": kind}], "usage": {**counted, "input_tokens_details": {}, "output_tokens_details": {}}}
    message = AIMessage([{"type": kind}], usage_metadata=counted, response_metadata=told)  # type: ignore[arg-type]
    v1 = AIMessage([{"type": "server_tool_call", "name": kind.removesuffix("_call"), "id": "1", "args": {}}], usage_metadata=counted)  # type: ignore[arg-type]
    assert [usage and (usage.other, usd("gpt-6-sol", usage)) for usage in map(usage_of, (raw, message, v1))] == [(1, None)] * 3


def in_container(*, name: str = "code_execution", caller: str = "direct", container: bool = True) -> dict[str, Any]:
    """A reply of Anthropic's in which code ran, and a search that code or the model itself asked for."""
    search = {"id": "srvtoolu_2", "name": "web_search", "input": {"query": "q"}, "caller": {"type": caller, "tool_id": "srvtoolu_1"}}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "container": {"id": "container_1", "expires_at": "2026-11-25T00:00:00Z"} if container else None,
        "content": [
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": name, "input": {"code": "1"}, "caller": {"type": "direct"}},
            {"type": "server_tool_use", **search},
            {"type": "text", "text": "2"},
        ],
        "usage": {"input_tokens": 100, "output_tokens": 50},
    }


@pytest.mark.parametrize("name", ["code_execution", "bash_code_execution", "text_editor_code_execution"])
@pytest.mark.parametrize(("caller", "runs"), [("direct", 1), ("code_execution_20260120", 0)])
@pytest.mark.parametrize("container", [True, False])
def test_code_in_anthropics_container_makes_a_call_unpriced_where_no_search_in_it_pays(
    name: str, caller: str, runs: int, container: bool
) -> None:
    raw = in_container(name=name, caller=caller, container=container)
    reply = claude.Message.model_validate(raw)
    message: Any = ChatAnthropic(model_name="claude-opus-5-5", api_key="x")._format_output(reply).generations[0].message  # type: ignore[arg-type]
    counted = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    streamed = AIMessage(raw["content"], usage_metadata=counted, response_metadata={"model_provider": "anthropic"})  # type: ignore[arg-type]
    v1 = _update_message_content_to_blocks(message, "v1")
    usages = [usage_of(each) for each in (raw, reply, message, streamed, v1)]
    assert [usage and (usage.other, usd("claude-opus-5-5", usage) is None) for usage in usages] == [(runs, runs == 1)] * 5


@pytest.mark.parametrize(
    "reply",
    [
        {**in_container(), "content": [{"type": "text", "text": "2"}]},
        {"content": [{"type": "bash_code_execution_tool_result", "tool_use_id": "1", "content": {}}], "usage": in_container()["usage"]},
        AIMessage(
            "2",
            usage_metadata={"input_tokens": 100, "output_tokens": 50, "total_tokens": 150},
            response_metadata={"model_provider": "anthropic", "container": {"id": "container_1"}},
        ),
    ],
)
def test_a_container_is_known_by_its_name_or_by_what_came_of_the_code(reply: object) -> None:
    usage = usage_of(reply)
    assert usage is not None
    assert (usage.other, usage.total) == (1, 150)


@pytest.mark.parametrize("version", ["responses/v1", "v1", "v0"])
@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="}, (1, 0)),
        ({"type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None}, (1, 0)),
        ({"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "1", "container_id": "c", "outputs": []}, (1, 0)),
        ({"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["a"]}, (1, 0)),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}, (0, 1)),
        ({"type": "web_search_call", "id": "ws_1", "status": "failed", "action": {"type": "search", "query": "q"}}, (0, 0)),
    ],
)
def test_hosted_tools_are_seen_in_every_form_that_langchain_gives_a_reply(
    item: dict[str, Any], told: tuple[int, int], version: str
) -> None:
    response = responses.Response.model_validate(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "gpt-6-sol",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 50,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 150,
            },
        }
    )
    message: Any = _construct_lc_result_from_responses_api(response, output_version=version).generations[0].message
    usage = usage_of(_update_message_content_to_blocks(message, "v1") if version == "v1" else message)
    assert usage is not None
    assert (usage.other, usage.web_searches) == told


@pytest.mark.parametrize("name", ["gpt-4o-search-preview", "gpt-5-search-api", "openrouter:openai/gpt-4o-mini-search-preview"])
def test_a_model_that_searches_in_every_call_for_a_fee_is_unpriced(name: str) -> None:
    assert PRICES.card(name, at=NOW) is None


def test_a_result_counts_each_prompt_once_however_many_choices_it_has() -> None:
    message = AIMessage("", usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
    choices = [ChatGeneration(message=message), ChatGeneration(message=message)]
    assert usage_of(LLMResult(generations=[choices, choices[:1]])) == Usage(input=6, output=8)


def test_a_result_without_messages_is_read_from_its_output() -> None:
    result = LLMResult(generations=[[]], llm_output={"token_usage": COMPLETION["usage"], "model_name": "gpt-6-sol"})
    assert usage_of(result) == replace(COMPLETED, service_tier=None)
    assert served_model_of(result) == "gpt-6-sol"


def test_a_prompt_smaller_than_its_caches_leaves_them_out_which_is_an_estimate() -> None:
    raw = {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 60}}}
    told = AIMessage(
        "", usage_metadata={"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "input_token_details": {"cache_read": 60}}
    )
    assert usage_of(raw) == usage_of(told) == Usage(input=5, cache_read=60, output=1, source="estimated")


@pytest.mark.parametrize(
    "writes",
    [
        {"cache_creation_input_tokens": 100},
        {"cache_creation_input_tokens": 100, "prompt_tokens_details": {"cached_tokens": 200, "cache_creation_tokens": 100}},
        {"prompt_tokens_details": {"cache_write_tokens": 100, "cache_creation_tokens": 100}},
        {"prompt_tokens_details": {"cache_creation_tokens": 100, "cache_creation_token_details": SPLIT}},
    ],
)
def test_a_gateways_words_for_cached_tokens_are_read_in_the_format_of_a_completion(writes: dict[str, Any]) -> None:
    raw = {"prompt_tokens": 310, "completion_tokens": 50, "total_tokens": 360, "cache_read_input_tokens": 200} | writes
    details = {"cached_tokens": 200} | writes.get("prompt_tokens_details", {})
    told = openai_metadata(raw | {"prompt_tokens_details": details}, None)
    message = AIMessage("", usage_metadata=told, response_metadata={"model_provider": "openai", "token_usage": raw})
    split = (30, 70) if "cache_creation_token_details" in details else (100, 0)
    expected = Usage(input=10, cache_read=200, cache_write_5m=split[0], cache_write_1h=split[1], output=50)
    assert usage_of({"usage": raw}) == usage_of(message) == expected


def test_a_gateways_completion_tells_how_claude_was_served() -> None:
    raw = {"prompt_tokens": 10, "completion_tokens": 50, "inference_geo": "us", "speed": "fast"}
    usage = usage_of({"usage": raw | {"server_tool_use": {"web_search_requests": 2}}})
    assert usage == Usage(input=10, output=50, web_searches=2, speed="fast", geo="us")


def test_a_split_beside_the_whole_of_cache_writes_is_counted_once() -> None:
    given = {"cache_read": 200, "cache_creation": 100} | SPLIT
    message = AIMessage(
        "",
        usage_metadata={"input_tokens": 310, "output_tokens": 50, "total_tokens": 360, "input_token_details": given},  # type: ignore[typeddict-item]
    )
    assert usage_of(message) == Usage(input=10, cache_read=200, cache_write_5m=30, cache_write_1h=70, output=50)


@pytest.mark.parametrize(("total", "source"), [(360, "reported"), (60, "estimated"), (0, "reported"), (None, "reported")])
def test_a_total_beside_anthropics_terms_leaves_them_their_meaning(total: int | None, source: Any) -> None:
    raw = RAW | {"total_tokens": total}
    message = AIMessage(
        "",
        usage_metadata=_create_usage_metadata(claude.Usage.model_validate(RAW)),
        response_metadata={"model_provider": "anthropic", "usage": raw},
    )
    assert usage_of({"usage": raw}) == usage_of(raw) == usage_of(message) == replace(READ, source=source)


def test_what_anthropics_terms_leave_out_the_total_tells() -> None:
    usage = usage_of({"usage": {"input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": 0, "total_tokens": 2105}})
    assert usage == Usage(input=100, output=2005, source="estimated")


def replies_counting(count: object) -> list[object]:
    """Replies of all kinds whose prompt has this count of tokens."""
    anthropic, plain = {"input_tokens": count, "output_tokens": 5}, {"prompt_tokens": count, "completion_tokens": 5}
    told = AIMessage("hi", usage_metadata={"input_tokens": 1, "output_tokens": 5, "total_tokens": 6})
    told.usage_metadata["input_tokens"] = count  # type: ignore[index, typeddict-item]
    known = AIMessage("hi", usage_metadata={"input_tokens": 7, "output_tokens": 5, "total_tokens": 12})
    result = ChatResult(generations=[ChatGeneration(message=told)])
    both = LLMResult(generations=[[ChatGeneration(message=known)], [ChatGeneration(message=told)]])
    return [{"usage": anthropic}, anthropic, {"usage": plain}, {"usage": {**anthropic, "total_tokens": 9}}, told, result, both]


@pytest.mark.parametrize("count", [-5, "10", 10.5, float("inf"), float("nan"), True, [10]])
def test_a_count_that_is_no_number_of_tokens_makes_the_usage_unknown(count: object) -> None:
    assert [usage_of(reply) for reply in replies_counting(count)] == [None] * 7


@pytest.mark.parametrize("usage", [{"prompt_tokens": 100}, {"input_tokens": 100}, {"input_tokens": 100, "output_tokens": None}])
def test_a_report_without_its_output_makes_the_usage_unknown(usage: dict[str, Any]) -> None:
    assert usage_of({"usage": usage}) is None


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 100, "completion_tokens": None, "total_tokens": 2100}, Usage(input=100, output=2000)),
        ({"prompt_tokens": 100, "total_tokens": 100}, Usage(input=100)),
        ({"output_tokens": 5, "total_tokens": 105}, Usage(input=100, output=5)),
        ({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 2105}, Usage(input=100, output=2005, source="estimated")),
        ({"input_tokens": 100, "output_tokens": 5, "total_tokens": 2105}, Usage(input=100, output=2005, source="estimated")),
        ({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 0}, Usage(input=100, output=5)),
    ],
)
def test_what_a_report_leaves_out_its_total_tells(usage: dict[str, Any], read: Usage) -> None:
    assert usage_of({"usage": usage}) == read


def test_what_langchain_leaves_out_its_total_tells() -> None:
    thought = AIMessage("hi", usage_metadata={"input_tokens": 100, "output_tokens": 5, "total_tokens": 2105})
    assert usage_of(thought) == Usage(input=100, output=2005, source="estimated")


def test_a_whole_number_with_a_point_is_a_count() -> None:
    assert [usage.input for usage in map(usage_of, replies_counting(10.0)) if usage] == [10] * 6 + [17]


def test_a_count_that_is_none_is_absent() -> None:
    assert usage_of({"usage": {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": None}}) == Usage(input=3, output=5)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "",
        "text",
        {},
        [],
        AIMessage("hi"),
        AIMessageChunk("hi"),
        {"usage": {"input_tokens": 0, "output_tokens": 0}},
        {"usage": None},
        object(),
    ],
)
def test_a_reply_that_reports_nothing_has_no_usage(reply: object) -> None:
    assert usage_of(reply) is None
    assert served_model_of(reply) is None
    assert response_id_of(reply) is None


def test_an_id_that_langchain_made_up_is_no_response_id() -> None:
    assert response_id_of(AIMessage("", id="run--abc")) is None
    assert response_id_of(AIMessage("", id="msg_1")) == "msg_1"


def test_usages_add_up_and_keep_the_weakest_source() -> None:
    total = Usage(input=1, output=2, reasoning=1) + Usage(cache_read=3, source="missing") + Usage(cache_write_1h=4, source="estimated")
    assert (total.prompt, total.total, total.source) == (8, 10, "missing")


class Scanty:
    """A price source of one's own, with a largest prompt, and at times with no price that can be one."""

    def __init__(self, *, of_a_call: Decimal | None = None) -> None:
        self.of_a_call = of_a_call

    def cost(self, model: str, usage: Usage, /, *, at: datetime) -> Decimal | None:
        if self.of_a_call is not None and usage.output:
            return self.of_a_call
        return None if usage.input > 200_000 else Decimal(usage.input + usage.output) / 10**6


def test_a_source_is_asked_for_no_more_than_a_model_takes() -> None:
    card = Prices.of(Scanty()).card("my-model")

    assert card is not None
    assert card.prompt_rate == 10**6
    assert (cost := card.cost(Usage(input=10, output=3))) is not None
    assert cost.total_pico == 13 * 10**6


@pytest.mark.parametrize(("priced_as", "asked"), [("claude-haiku-5-5", "claude-opus-5-5"), ("as agreed", "as agreed")])
def test_a_source_is_asked_for_another_model_behind_an_alias_but_not_behind_a_name_of_its_own(priced_as: str, asked: str) -> None:
    card = Prices.of(Scanty()).sold(Deployment(model="fast", priced_as=priced_as), "claude-opus-5-5", at=NOW)
    assert (card and card.model) == asked


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity"])
def test_what_cannot_be_a_price_is_none(amount: str) -> None:
    card = Prices.of(Scanty(of_a_call=Decimal(amount))).card("my-model")

    assert card is not None
    assert card.cost(Usage(input=10, output=3)) is None


@pytest.mark.parametrize("total", ["15", -1, 1.5])
def test_a_total_that_cannot_be_read_leaves_both_sides(total: object) -> None:
    usage = usage_of({"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": total}})

    assert usage is not None
    assert (usage.input, usage.output, usage.source) == (10, 5, "reported")
