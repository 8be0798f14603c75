"""Strict mode refuses, per model, what the real APIs are documented to refuse; without it nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from routed_agents import embedded
from routed_agents.embedded import Fault, models

FLAWLESS = dict.fromkeys(models.load().models, 0.0)
HAIKU45, HAIKU, SONNET46, OPUS47, OPUS5, OPUS = (
    "claude-haiku-4-5",
    "claude-haiku-5-5",
    "claude-sonnet-4-6",
    "claude-opus-4-7",
    "claude-opus-5",
    "claude-opus-5-5",
)
MINI, LUNA, O3 = "gpt-4o-mini", "gpt-6-luna", "o3-mini"
ASK = [{"role": "user", "content": "What is 3 plus 4?"}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
TOOL = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": TOOL["input_schema"]}}
SCHEMA = {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}}
ODD = "functions.look:0"
BUDGET = {"type": "enabled", "budget_tokens": 1024}
CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}]}


@pytest.fixture(scope="module")
def strict() -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS, strict=True) as running:
        yield running


@pytest.fixture(scope="module")
def claude(strict) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=strict.anthropic_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gpt(strict) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=strict.openai_url, api_key="k", max_retries=0) as client:
        yield client


def ask(client: anthropic.Anthropic, model: str, **more: Any) -> Any:
    return client.messages.create(**{"model": model, "max_tokens": 4096, "messages": ASK, **more})


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def said(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "sampling": (OPUS47, {"extra_body": {"temperature": 0.2}}, "temperature"),
    "top_k": (HAIKU, {"extra_body": {"top_k": 5}}, "top_k"),
    "temperature with thinking": (HAIKU45, {"thinking": BUDGET, "extra_body": {"temperature": 0.2}}, "may only be set to 1"),
    "top_k with thinking": (HAIKU45, {"thinking": BUDGET, "extra_body": {"top_k": 5}}, "must be unset"),
    "budget on adaptive": (OPUS5, {"thinking": BUDGET}, "thinking.type.enabled"),
    "adaptive on budget": (HAIKU45, {"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported"),
    "disabled where always": (OPUS, {"thinking": {"type": "disabled"}}, "always on"),
    "disabled at high effort": (OPUS5, {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, "output_config.effort"),
    "small budget": (HAIKU45, {"thinking": {"type": "enabled", "budget_tokens": 500}}, "greater than or equal to 1024"),
    "budget over the limit": (HAIKU45, {"thinking": {"type": "enabled", "budget_tokens": 4096}}, "must be greater than"),
    "unknown effort": (SONNET46, {"output_config": {"effort": "xhigh"}}, "Supported levels: low, medium, high, max"),
    "effort where none": (HAIKU, {"output_config": {"effort": "low"}}, "not supported"),
    "schema": (HAIKU, {"output_config": SCHEMA}, "structured outputs are not supported"),
    "forced tool": (OPUS, {"tools": [TOOL], "tool_choice": {"type": "any"}}, "is not supported"),
    "forced tool with thinking": (HAIKU45, {"tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": BUDGET}, "forces tool use"),
    "output limit": (HAIKU45, {"max_tokens": 64_001, "timeout": 600}, "maximum allowed number"),
    "unknown parameter": (HAIKU, {"extra_body": {"seed": 1}}, "seed: Extra inputs are not permitted"),
    "blank stop": (HAIKU, {"stop_sequences": [" "]}, "non-whitespace"),
    "assistant first": (HAIKU, {"messages": [said(words("Hello")), *ASK]}, 'must use the "user" role'),
    "system in the middle": (
        OPUS47,
        {"messages": [*ASK, {"role": "system", "content": "Be brief."}]},
        "Input should be 'user' or 'assistant'",
    ),
    "system out of place": (
        OPUS,
        {"messages": [*ASK, said(words("7")), {"role": "system", "content": "Be brief."}, *ASK]},
        "must follow a user message",
    ),
    "call without result": (HAIKU, {"messages": [*ASK, CALL, *ASK], "tools": [TOOL]}, "without `tool_result`"),
    "result without call": (HAIKU, {"messages": [*ASK, said(words("7")), RESULT]}, "unexpected `tool_use_id`"),
    "words before a result": (
        HAIKU,
        {"messages": [*ASK, CALL, user(words("hm"), *RESULT["content"])], "tools": [TOOL]},
        "before any other content",
    ),
    "odd id": (
        HAIKU,
        {"messages": [*ASK, said({**CALL["content"][0], "id": ODD}), user({**RESULT["content"][0], "tool_use_id": ODD})], "tools": [TOOL]},
        "match pattern",
    ),
    "empty words": (HAIKU, {"messages": [user(words(""))]}, "non-empty"),
    "blank words": (HAIKU, {"messages": [user(words(" \n"))]}, "non-whitespace"),
    "blank message": (HAIKU, {"messages": [*ASK, {"role": "assistant", "content": "\n"}, *ASK]}, "non-empty content"),
    "foreign field": (HAIKU, {"messages": [user({**words("hi"), "index": 0})]}, "messages.0.content.0.text.index: Extra inputs"),
    "foreign block": (HAIKU, {"messages": [*ASK, said({"type": "refusal", "refusal": "no"}), *ASK]}, "does not match"),
    "bad picture": (HAIKU, {"messages": [user({**IMAGE, "source": {**IMAGE["source"], "media_type": "image/tiff"}})]}, "media_type"),
    "thinking nobody made": (
        HAIKU45,
        {"messages": [*ASK, said({"type": "thinking", "thinking": "hm", "signature": "abc"}, words("7")), *ASK]},
        "Invalid `signature`",
    ),
    "budget in a loop that began without": (
        HAIKU45,
        {"messages": [*ASK, CALL, RESULT], "tools": [TOOL], "thinking": BUDGET},
        "must start with a thinking block",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anthropics_restrictions_are_kept(case, claude):
    model, more, told = REFUSED[case]
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(claude, model, **more)
    assert told in caught.value.body["error"]["message"]


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "sampling": (HAIKU45, {"extra_body": {"temperature": 0.2, "top_k": 5}}),
    "a budget": (HAIKU45, {"thinking": BUDGET}),
    "both kinds": (SONNET46, {"thinking": BUDGET}),
    "adaptive": (SONNET46, {"thinking": {"type": "adaptive"}}),
    "effort": (OPUS, {"output_config": {"effort": "xhigh"}}),
    "schema": (OPUS, {"output_config": SCHEMA}),
    "forced tool": (HAIKU, {"tools": [TOOL], "tool_choice": {"type": "any"}}),
    "picture": (HAIKU, {"messages": [user(words("What is this?"), IMAGE)]}),
    "system in the middle": (HAIKU, {"messages": [*ASK, {"role": "system", "content": "Be brief."}]}),
    "result, then words": (HAIKU, {"messages": [*ASK, CALL, user(*RESULT["content"], words("hm"))], "tools": [TOOL]}),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_a_model_takes_is_answered(case, claude):
    model, more = TAKEN[case]
    assert ask(claude, model, **more).content


def test_thinking_is_taken_again_by_its_own_model_only(claude):
    reply = ask(claude, OPUS5, thinking={"type": "adaptive"})
    history = [*ASK, {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in reply.content]}, *ASK]
    for block in history[1]["content"]:
        block.pop("citations", None)
    assert reply.content[0].type == "thinking"
    assert ask(claude, OPUS5, messages=history).content
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        ask(claude, OPUS47, messages=history)


@pytest.mark.parametrize(("model", "more", "kinds"), [(HAIKU45, {}, ["text"]), (OPUS, {}, ["thinking", "text"])])
def test_a_model_thinks_when_asked_or_always(model, more, kinds, claude):
    content = ask(claude, model, **more).content
    assert [block.type for block in content if block.type != "redacted_thinking"] == kinds


def test_streamed_thinking_adds_up_to_the_whole(claude):
    with claude.messages.stream(model=SONNET46, max_tokens=4096, messages=ASK, thinking=BUDGET) as stream:
        final = stream.get_final_message()
    assert final.content[0].thinking.startswith("(simulated reasoning")
    assert final.content[0].signature.startswith(f"sim.{SONNET46}.")
    assert final.content[-1].text == "3 + 4 = 7"


CHAT_REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "max_tokens": (LUNA, {"max_tokens": 50}, "Use 'max_completion_tokens' instead"),
    "both limits": (MINI, {"max_tokens": 50, "max_completion_tokens": 50}, "at the same time"),
    "output limit": (MINI, {"max_tokens": 20_000}, "at most 16384"),
    "stop": (LUNA, {"stop": ["x"]}, "'stop' is not supported"),
    "five stops": (MINI, {"stop": list("abcde")}, "maximum length 4"),
    "temperature": (LUNA, {"temperature": 0.2}, "'temperature' does not support"),
    "penalty": (LUNA, {"frequency_penalty": 0.1}, "'frequency_penalty' is not supported"),
    "effort where none": (MINI, {"reasoning_effort": "low"}, "Unrecognized request argument"),
    "unknown effort": (LUNA, {"reasoning_effort": "minimal"}, "Supported values are: 'none', 'low'"),
    "unknown parameter": (MINI, {"extra_body": {"top_k": 3}}, "Unrecognized request argument supplied: top_k"),
    "result without call": (MINI, {"messages": [*ASK, {"role": "tool", "tool_call_id": "c", "content": "1"}]}, "must be a response to"),
    "thinking block": (MINI, {"messages": [*ASK, said({"type": "thinking", "thinking": "hm"}), *ASK]}, "Invalid value: 'thinking'"),
    "picture in a tool's result": (
        MINI,
        {
            "tools": [FUNCTION],
            "messages": [
                *ASK,
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},  # noqa: E501
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]},  # noqa: E501
            ],
        },
        "only allowed for messages with role 'user'",
    ),
    "long id": (
        MINI,
        {
            "tools": [FUNCTION],
            "messages": [
                *ASK,
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c" * 41, "type": "function", "function": {"name": "look", "arguments": "{}"}}]},  # noqa: E501
                {"role": "tool", "tool_call_id": "c" * 41, "content": "1"},
            ],
        },
        "maximum length 40",
    ),
    "picture where none": (O3, {"messages": [user({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})]}, "image_url is only"),  # noqa: E501
    "extra field": (MINI, {"messages": [user({**words("hi"), "index": 0})]}, "Unknown parameter: 'messages[0].content[0].index'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAT_REFUSED)
def test_openais_restrictions_are_kept(case, gpt):
    model, more, told = CHAT_REFUSED[case]
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.chat.completions.create(**{"model": model, "messages": ASK, **more})
    assert told in caught.value.body["message"]


RESPONSES_REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown parameter": (MINI, {"extra_body": {"stop": ["x"]}}, "Unknown parameter: 'stop'"),
    "reasoning where none": (MINI, {"reasoning": {"effort": "low"}}, "reasoning.effort"),
    "foreign item id": (MINI, {"input": [{"role": "assistant", "type": "message", "id": "run-1", "content": [{"type": "output_text", "text": "a"}]}, *ASK]}, "begins with 'msg'"),  # noqa: E501
    "foreign block": (MINI, {"input": [*ASK, {"role": "assistant", "type": "message", "content": [{"type": "thinking", "thinking": "a"}]}, *ASK]}, "Invalid value: 'thinking'"),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("case", RESPONSES_REFUSED)
def test_the_responses_formats_restrictions_are_kept(case, gpt):
    model, more, told = RESPONSES_REFUSED[case]
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.responses.create(**{"model": model, "input": ASK, **more})
    assert told in caught.value.body["message"]


def test_reasoning_items_are_taken_again_by_their_own_model_only(gpt):
    first = gpt.responses.create(model=LUNA, input=ASK)
    history = [*ASK, *[item.model_dump(exclude_none=True) for item in first.output], *ASK]
    assert [item.type for item in first.output] == ["reasoning", "message"]
    assert gpt.responses.create(model=LUNA, input=history).output_text
    with pytest.raises(openai.NotFoundError, match="not found for this model"):
        gpt.responses.create(model="gpt-6-sol", input=history)


def test_every_refusal_says_that_it_is_simulated(claude, strict):
    with pytest.raises(anthropic.BadRequestError, match=r"\(simulated\)"):
        ask(claude, HAIKU, output_config={"effort": "low"})


def test_without_strict_mode_there_is_no_thinking_and_effort_is_free():
    with (
        embedded.serve(error_rates=FLAWLESS) as lenient,
        anthropic.Anthropic(base_url=lenient.anthropic_url, api_key="k", max_retries=0) as client,
    ):
        assert [block.type for block in ask(client, HAIKU, output_config={"effort": "low"}).content] == ["text"]
        assert [block.type for block in ask(client, OPUS).content] == ["text"]


def test_profiles_of_langchain_and_the_rows_agree():
    from langchain_anthropic.data._profiles import _PROFILES as CLAUDES
    from langchain_openai.data._profiles import _PROFILES as GPTS

    for row in models.load().models.values():
        profile = (CLAUDES if row.provider == "anthropic" else GPTS).get(row.id)
        if profile is None or row.id == "claude-fable-5-2":
            continue
        assert row.images == profile.get("image_inputs", True), row.id
        assert row.structured_output == profile.get("structured_output", True), row.id
        if row.provider == "anthropic":
            assert row.sampling == profile.get("temperature", True), row.id
            assert row.mid_system == profile.get("mid_conversation_system_messages", False), row.id
            assert list(row.efforts) == profile.get("reasoning_effort_levels", []), row.id
        else:
            assert row.reasoning == profile.get("reasoning_output", False), row.id


def test_a_gateway_may_be_told_whose_answer_it_serves(strict, claude):
    strict.faults.add(Fault("wrong_model", served=HAIKU))
    assert ask(claude, HAIKU45).model == HAIKU
