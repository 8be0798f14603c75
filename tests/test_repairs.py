"""Repairs make a call fit a model and name what they did; nothing goes unseen."""

from __future__ import annotations

from typing import Any

import pytest

from routed_agents.repairs import Own, lacking, limits, repaired, server_tools, structured_method, unusable
from routed_agents.tiers import ModelCard, Tiers, card

HAIKU45, HAIKU, OPUS47, OPUS5, OPUS = "claude-haiku-4-5", "claude-haiku-5-5", "claude-opus-4-7", "claude-opus-5", "claude-opus-5-5"
MINI, LUNA, SOL = "gpt-4o-mini", "gpt-6-luna", "gpt-6.1-sol"
BUDGET = {"type": "enabled", "budget_tokens": 2048}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("model", "given", "kept", "changed"),
    [
        (HAIKU45, {"temperature": 0.2, "top_k": 5}, {"temperature": 0.2, "top_k": 5}, ()),
        (OPUS47, {"temperature": 0.2, "top_p": 0.9}, {}, ("temperature", "top_p")),
        (MINI, {"temperature": 0.2, "top_k": 5}, {"temperature": 0.2}, ("top_k",)),
        (HAIKU45, {"seed": 7, "frequency_penalty": 0.1}, {}, ("frequency_penalty", "seed")),
        (LUNA, {"frequency_penalty": 0.1, "stop": ["x"]}, {}, ("frequency_penalty", "stop")),
        (MINI, {"stop": ["a", "b", "c", "d", "e"]}, {"stop": ["a", "b", "c", "d"]}, ("stop",)),
        (MINI, {"stop_sequences": ["a"]}, {"stop": ["a"]}, ()),
        (HAIKU45, {"stop": [" ", "a"]}, {"stop": ["a"]}, ("stop",)),
        (HAIKU45, {"max_tokens": 100_000}, {"max_tokens": 64_000}, ("max_tokens",)),
        (HAIKU45, {"max_completion_tokens": 50}, {"max_tokens": 50}, ("max_completion_tokens",)),
        (HAIKU, {"reasoning_effort": "high"}, {}, ("reasoning_effort",)),
        (OPUS, {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}, ("reasoning_effort",)),
        (SOL, {"effort": "max"}, {"reasoning_effort": "high"}, ("reasoning_effort",)),
        (OPUS, {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}, ("reasoning",)),
        (LUNA, {"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}, ("output_config",)),
        (HAIKU45, {"thinking": BUDGET}, {"thinking": BUDGET}, ()),
        (OPUS, {"thinking": BUDGET}, {"thinking": {"type": "adaptive"}}, ("thinking",)),
        (OPUS, {"thinking": {"type": "disabled"}}, {}, ("thinking",)),
        (HAIKU45, {"thinking": {"type": "adaptive"}}, {}, ("thinking",)),
        (HAIKU, {"thinking": {"type": "adaptive"}}, {}, ("thinking",)),
        (LUNA, {"thinking": BUDGET}, {}, ("thinking",)),
        (HAIKU45, {"thinking": BUDGET, "max_tokens": 1000}, {"max_tokens": 1000}, ("thinking",)),
        (HAIKU45, {"thinking": BUDGET, "temperature": 0.2}, {"thinking": BUDGET}, ("temperature",)),
        (OPUS, {"tool_choice": "any"}, {"tool_choice": "auto"}, ("tool_choice",)),
        (HAIKU45, {"thinking": BUDGET, "tool_choice": "any"}, {"thinking": BUDGET, "tool_choice": "auto"}, ("tool_choice",)),
        (OPUS47, {"reasoning_effort": "high", "tool_choice": "any"}, {"reasoning_effort": "high", "tool_choice": "auto"}, ("tool_choice",)),
        (MINI, {"cache_control": {"type": "ephemeral"}}, {}, ("cache_control",)),
        ("brand-new-model", {"temperature": 0.2, "thinking": BUDGET, "top_k": 5}, {"temperature": 0.2, "thinking": BUDGET, "top_k": 5}, ()),
    ],
)
def test_parameters_are_fitted_and_what_changed_is_named(model, given, kept, changed):
    fits, names = repaired(given, card(model))
    assert (fits, sorted(names)) == (kept, sorted(changed))


def test_the_callers_parameters_are_left_alone():
    given: dict[str, Any] = {"temperature": 0.2, "thinking": BUDGET, "output_config": {"effort": "xhigh"}}
    repaired(given, card(LUNA))
    assert given == {"temperature": 0.2, "thinking": BUDGET, "output_config": {"effort": "xhigh"}}


@pytest.mark.parametrize("model", [HAIKU45, HAIKU, OPUS47, OPUS5, OPUS, MINI, LUNA, SOL])
def test_repairing_what_was_repaired_changes_nothing(model):
    given = {"temperature": 0.2, "reasoning_effort": "max", "thinking": BUDGET, "tool_choice": "any", "stop": ["x"], "max_tokens": 200_000}
    once, _ = repaired(given, card(model))
    assert repaired(once, card(model)) == (once, ())


def test_a_models_own_temperature_gives_way_to_the_calls_thinking():
    fits, changed = repaired({"thinking": BUDGET}, card(HAIKU45), own=Own(sampling=("temperature",)))
    assert (fits, changed) == ({"thinking": BUDGET, "temperature": None}, ("temperature",))


@pytest.mark.parametrize(
    ("model", "wanted", "thinks", "method"),
    [
        (HAIKU45, None, False, None),
        (OPUS, None, False, "json_schema"),
        (HAIKU45, None, True, "json_schema"),
        (HAIKU, "json_schema", False, "function_calling"),
        (HAIKU45, "json_mode", False, "json_schema"),
        (MINI, None, True, None),
        (MINI, "json_mode", False, None),
        (OPUS, "function_calling", False, "json_schema"),
    ],
)
def test_structured_output_takes_a_way_that_works(model, wanted, thinks, method):
    assert structured_method(wanted, card(model), thinks=thinks) == method


@pytest.mark.parametrize(
    ("wanted", "method"), [(None, None), ("function_calling", None), ("json_schema", None), ("json_mode", "function_calling")]
)
def test_a_schema_that_only_a_tool_can_carry_stays_one(wanted, method):
    assert structured_method(wanted, card(OPUS), carried=False) == method


@pytest.mark.parametrize(
    ("tool", "provider", "foreign"),
    [
        (SEARCH, "openai", ("web_search_20250305",)),
        (SEARCH, "anthropic", ()),
        ({"type": "code_execution_20260521", "name": "code_execution"}, "azure_openai", ("code_execution_20260521",)),
        ({"type": "web_search"}, "anthropic", ("web_search",)),
        ({"type": "web_search_preview_2025_03_11"}, "openai", ()),
        ({"type": "function", "function": {"name": "x"}}, "anthropic", ()),
        ({"name": "x", "input_schema": {}}, "openai", ()),
        (SEARCH, "some-gateway", ()),
    ],
)
def test_a_tool_only_another_provider_runs_is_known(tool, provider, foreign):
    assert server_tools([tool], provider) == foreign


def test_a_tier_without_what_the_step_needs_is_named_with_what_it_lacks():
    tiers = Tiers.of({"cheap": f"openai:{MINI}", "strong": f"anthropic:{OPUS}"})
    assert unusable(tiers, tools=[SEARCH]) == {"cheap": "tool web_search_20250305"}


def test_pictures_and_schemas_are_lacking_where_the_card_says_so():
    blind = ModelCard(name="blind", images=False, structured_output=False)
    assert lacking(blind, images=True, schema=True) == "images, structured output"
    assert lacking(card(OPUS), images=True, schema=True) == ""


def test_the_stricter_of_card_and_profile_holds():
    profile = {"temperature": False, "max_output_tokens": 100, "structured_output": False, "reasoning_effort_levels": ["low"]}
    seen = limits(card(HAIKU45), profile)
    assert (seen.sampling, seen.max_output, seen.structured_output, seen.efforts) == (False, 100, False, ())
    assert limits(ModelCard(name="new"), profile).efforts == ("low",)
    assert limits(card(OPUS), {"tool_choice": True, "temperature": True}).forced_tool_choice is False
