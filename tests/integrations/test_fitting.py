"""A history another model wrote is sent in a form its reader takes, on copies, always in the same way."""

from __future__ import annotations

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from routed_agents import RoutedAgentsError, RoutedChatModel
from routed_agents.errors import ConfigurationError
from routed_agents.integrations.fitting import OPENING, fitted, fitted_history
from routed_agents.telemetry import names
from routed_agents.tiers import Deployment, card

from .conftest import EASY, HARD, Books

HAIKU45, OPUS47, OPUS, MINI, LUNA = "claude-haiku-4-5", "claude-opus-4-7", "claude-opus-5-5", "gpt-4o-mini", "gpt-6-luna"
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
PICTURE = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
LONG = "functions.look:" + "x" * 40


def by(model: str, provider: str, *blocks: dict | str, **more) -> AIMessage:
    told = {"model_name": model, "model_provider": provider}
    return AIMessage(list(blocks), response_metadata=told, **more)


def call(name: str = "look", id: str = "call_1") -> dict:
    return {"name": name, "args": {}, "id": id}


def sent(messages, model: str, **more):
    found, changed = fitted_history(messages, card(model), card(model).provider, **more)
    return (messages if found is None else found), changed


ASKED = HumanMessage("hi")
MINE = by(OPUS47, "anthropic", THOUGHT, {"type": "text", "text": "7"})


def test_a_models_own_thinking_is_kept():
    assert sent([ASKED, MINE, ASKED], OPUS47) == ([ASKED, MINE, ASKED], ())


@pytest.mark.parametrize("model", [OPUS, HAIKU45, MINI])
def test_another_models_thinking_goes_from_the_copy_that_is_sent(model):
    found, changed = sent([ASKED, MINE, ASKED], model)
    assert found[1].content == [{"type": "text", "text": "7"}]
    assert "thinking_history" in changed
    assert MINE.content[0] == THOUGHT


def test_redacted_thinking_goes_also_from_its_v1_wrapping():
    wrapped = {"type": "non_standard", "value": {"type": "redacted_thinking", "data": "x"}}
    found, _ = sent([ASKED, by(OPUS47, "anthropic", wrapped, {"type": "text", "text": "7"}), ASKED], OPUS)
    assert found[1].content == [{"type": "text", "text": "7"}]


def test_words_and_calls_alone_are_left_to_langchains_converter():
    spoken = by(OPUS47, "anthropic", {"type": "text", "text": "7"}, {"type": "tool_use", "id": "call_1", "name": "look", "input": {}})
    spoken.tool_calls.append(call())
    assert sent([ASKED, spoken, ToolMessage("1", tool_call_id="call_1")], MINI)[1] == ()


@pytest.mark.parametrize("model", [OPUS47, OPUS, MINI])
def test_the_empty_string_a_stream_may_begin_with_goes(model):
    found, _ = sent([ASKED, by(OPUS47, "anthropic", "", {"type": "text", "text": "7"}), ASKED], model)
    assert found[1].content == [{"type": "text", "text": "7"}]


def test_items_only_openai_resolves_stay_there():
    told = by(
        MINI, "openai", {"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}, {"type": "web_search_call", "id": "ws_1"}
    )
    found, changed = sent([ASKED, told], HAIKU45)
    assert [block["text"] for block in found[1].content] == ["a", "no"]
    assert "foreign_blocks" in changed


def test_items_of_another_openai_model_go_without_their_ids():
    kept = {"reasoning": {"id": "rs_1"}, "__openai_function_call_ids__": {"call_1": "fc_1"}}
    told = by(MINI, "openai", {"type": "text", "text": "a", "id": "msg_1"}, additional_kwargs=kept)
    found, _ = sent([ASKED, told], LUNA)
    assert (found[1].content, found[1].additional_kwargs) == ([{"type": "text", "text": "a"}], {})


def test_a_long_id_is_short_in_the_call_and_in_its_result():
    history = [ASKED, AIMessage("", tool_calls=[call(id=LONG)]), ToolMessage("1", tool_call_id=LONG)]
    found, changed = sent(history, MINI)
    assert found[1].tool_calls[0]["id"] == found[2].tool_call_id
    assert (len(found[2].tool_call_id), changed, history[2].tool_call_id) == (29, ("tool_call_id",), LONG)


def test_pictures_of_a_tool_come_from_the_user_where_only_users_may_show_any():
    history = [ASKED, AIMessage("", tool_calls=[call()]), ToolMessage([{"type": "text", "text": "here"}, PICTURE], tool_call_id="call_1")]
    found, changed = sent(history, MINI)
    assert (found[2].content, found[3].type, found[3].content[1], changed) == (
        [{"type": "text", "text": "here"}],
        "human",
        PICTURE,
        ("tool_images",),
    )
    assert sent(history, MINI, responses=True)[1] == sent(history, HAIKU45)[1] == ()


@pytest.mark.parametrize(
    ("model", "history", "kinds"),
    [
        (OPUS, ["s", "h", "s", "a", "h"], ["system", "human", "system", "ai", "human"]),
        (OPUS, ["s", "h", "a", "s", "h"], ["system", "human", "ai", "human", "human"]),
        (HAIKU45, ["s", "h", "s", "a", "h"], ["system", "human", "human", "ai", "human"]),
        (HAIKU45, ["s", "s", "h"], ["system", "system", "human"]),
        (HAIKU45, ["h", "c", "s", "t"], ["human", "ai", "tool", "human"]),
        (OPUS, ["h", "c", "s", "t"], ["human", "ai", "tool", "system"]),
        (MINI, ["h", "c", "s", "t"], ["human", "ai", "tool", "system"]),
        (MINI, ["h", "a", "s", "h"], ["human", "ai", "system", "human"]),
    ],
)
def test_system_messages_stand_where_the_model_takes_them(model, history, kinds):
    made = {
        "s": SystemMessage("Be brief."),
        "h": ASKED,
        "a": AIMessage("7"),
        "c": AIMessage("", tool_calls=[call()]),
        "t": ToolMessage("1", tool_call_id="call_1"),
    }
    assert [message.type for message in sent([made[each] for each in history], model)[0]] == kinds


def test_anthropic_gets_a_user_message_first():
    found, changed = sent([AIMessage("Hello!"), ASKED], HAIKU45)
    assert ([message.text for message in found], changed) == ([OPENING, "Hello!", "hi"], ("first_message",))


def test_a_longer_history_begins_as_the_shorter_one_did():
    history = [AIMessage("Hello!"), ASKED, MINE, ASKED, by(MINI, "openai", {"type": "refusal", "refusal": "no"}), ASKED]
    whole, _ = sent(history, OPUS)
    for end in range(2, len(history)):
        assert whole[: end + 1] == sent(history[:end], OPUS)[0]


def test_a_thinking_budget_is_left_out_where_the_tool_loop_began_without_thinking():
    model = ChatAnthropic(model=HAIKU45, api_key="k", max_tokens=4096, thinking={"type": "enabled", "budget_tokens": 2000})
    history = [ASKED, AIMessage("", tool_calls=[call()]), ToolMessage("1", tool_call_id="call_1")]
    fit = fitted(model, Deployment.parse(f"anthropic:{HAIKU45}"), history, kwargs={})
    assert (fit.model.thinking, fit.changed, model.thinking is not None) == (None, ("thinking",), True)


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize("config", [{}, HARD], ids=["cheap", "strong"])
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_server_tool_is_refused_before_a_token_is_spent_where_nobody_runs_it(way, config, books: Books, real, provider):
    bound = RoutedChatModel(cheap=real(MINI), strong=real("gpt-4o"), router=books.router).bind_tools([SEARCH])
    with pytest.raises(RoutedAgentsError):
        list(getattr(bound, way)(EASY, config))
    assert provider.requests == []


def test_the_refusal_says_what_is_lacking_and_where():
    with pytest.raises(
        ConfigurationError, match=r'"gpt-4o-mini" \(openai\) cannot do .*: tool web_search_20250305; give that tier a model'
    ):
        fitted(None, Deployment.parse(f"openai:{MINI}"), [ASKED], kwargs={}, method="bind_tools", tools=[SEARCH])


def test_a_server_tool_works_on_the_tier_that_has_it(books: Books, real, provider):
    RoutedChatModel(cheap=real(MINI), strong=real(OPUS), router=books.router).bind_tools([SEARCH]).invoke(EASY, HARD)
    assert [served.model for served in provider.requests] == [OPUS]


def test_a_server_tool_sends_the_step_up_to_the_tier_that_has_it(books: Books, real, provider):
    RoutedChatModel(cheap=real(MINI), strong=real(OPUS), router=books.router).bind_tools([SEARCH]).invoke(EASY)
    assert [served.model for served in provider.requests] == [OPUS]


def test_every_change_of_the_history_is_named_on_the_span(books: Books, real, provider):
    model = RoutedChatModel(cheap=real(HAIKU45), strong=real(MINI), router=books.router)
    model.invoke([AIMessage("Hello!"), HumanMessage(EASY), MINE, HumanMessage(EASY)], temperature=0.5, seed=3)
    assert set(books.leaves[0].attributes[names.REPAIRS]) == {"seed", "thinking_history", "first_message"}
