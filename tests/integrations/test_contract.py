"""A routed chat model keeps the rest of LangChain's contract for chat models: what is configured on it, traced, cached, limited, copied."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.tracers.schemas import Run
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from routed_agents import Policy, RoutedChatModel, Router, cost_of, decision_of
from routed_agents.embedded import Fault
from routed_agents.errors import ConfigurationError
from routed_agents.integrations.models import QUIET
from routed_agents.steps import STAMP
from routed_agents.testing import ScriptedChatModel

from .conftest import EASY, HAIKU, HARD, OPUS, Books, Listener, scripted, whole

LUNA, SOL = "gpt-6-luna", "gpt-6.1-sol"
TIERS: dict[str, tuple[dict[str, Any], str]] = {"cheap": ({"metadata": {"task_class": "classification"}}, HAIKU), "strong": (HARD, OPUS)}
"""For each tier, the config of a call it answers, and its model."""
BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


@tool
def search(query: str) -> str:
    """Search the shop."""
    return f"{query}: 2 in stock"


@pytest.fixture
def pair(books: Books, real: Callable[..., Any]) -> RoutedChatModel:
    """A routed model over the provider's Haiku and Opus."""
    return RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router)


def without_stamp(message: Any) -> dict[str, Any]:
    """All a message says, but for its ids and the decision."""
    told = message.model_dump(exclude={"id"})
    told["response_metadata"] = {key: value for key, value in told["response_metadata"].items() if key not in (STAMP, "id", "request_id")}
    return told


def models_in(runs: list[Run]) -> list[tuple[str, str]]:
    """Kind and real model of the runs, with all below them, that are model calls."""
    found = [("llm", run.extra["metadata"]["ls_model_name"]) for run in runs if run.run_type in ("llm", "chat_model")]
    return found + [each for run in runs for each in models_in(run.child_runs)]


# ---- what it says of itself ---------------------------------------------------------------------------------------------

PROFILE = "RoutedChatModel._resolve_model_profile returns None"


@pytest.mark.parametrize("names", [(HAIKU, OPUS), (HAIKU, SOL), (LUNA, OPUS)], ids="+".join)
def test_the_profile_promises_what_every_tier_can_do(names, books, real):
    cheap, strong = (real(name) for name in names)
    profile = RoutedChatModel(cheap=cheap, strong=strong, router=books.router).profile
    assert profile["max_input_tokens"] == min(cheap.profile["max_input_tokens"], strong.profile["max_input_tokens"])
    flags = [key for key, value in strong.profile.items() if isinstance(value, bool) and key in cheap.profile]
    assert {key: profile[key] for key in flags} == {key: cheap.profile[key] and strong.profile[key] for key in flags}
    assert set(profile) <= set(cheap.profile) & set(strong.profile)


def test_the_profile_says_no_more_than_both_tiers_about_levels_of_effort(books, real):
    models = {"cheap": real(OPUS), "strong": real(LUNA)}
    profile = RoutedChatModel(**models, router=books.router).profile
    both = [level for level in models["cheap"].profile["reasoning_effort_levels"] if level != "none"]
    assert (profile.get("reasoning_effort_levels", both), "name" in profile) == (both, False)


def test_the_profile_is_known_where_the_tiers_are_named_by_strings(provider):
    profile = RoutedChatModel(cheap=f"anthropic:{HAIKU}", strong=f"anthropic:{OPUS}").profile
    assert (profile["max_input_tokens"], profile["structured_output"]) == (1_000_000, False)


def test_a_profile_that_is_given_stands(books, real):
    assert RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), profile={"max_input_tokens": 7}).profile == {"max_input_tokens": 7}


def test_a_tier_without_a_profile_leaves_none(books):
    assert books.model().profile is None


@pytest.mark.parametrize(("strong", "provider_name"), [(OPUS, "anthropic"), (SOL, "openai")])
def test_tracing_parameters_name_the_strong_tiers_provider_and_model(strong, provider_name, books, real):
    found = RoutedChatModel(cheap=real(HAIKU), strong=real(strong), router=books.router)._get_ls_params()
    assert found == {"ls_provider": provider_name, "ls_model_name": strong, "ls_model_type": "chat"}


def test_tokens_are_counted_by_the_strong_tier(pair, real, provider):
    messages = [HumanMessage("How many tokens is this?")]
    counted = pair.get_num_tokens_from_messages(messages)
    assert counted == real(OPUS).get_num_tokens_from_messages(messages) > 0
    assert pair.get_num_tokens_from_messages(messages, tools=[search]) > counted


def test_messages_are_trimmed_with_it_as_the_counter(pair):
    history = [HumanMessage("one " * 50), AIMessage("two " * 50), HumanMessage("three")]
    kept = trim_messages(history, max_tokens=60, token_counter=pair, strategy="last", start_on="human")
    assert [message.text for message in kept] == ["three"]
    assert count_tokens_approximately(kept) < 60


def test_it_is_left_out_of_serialised_runs_without_its_tiers(pair):
    collected = RunCollectorCallbackHandler()
    (RunnableLambda(lambda text: text) | pair).invoke(EASY, {"callbacks": [collected]})
    assert (RoutedChatModel.is_lc_serializable(), collected.traced_runs[0].error) == (False, None)


# ---- traces -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
def test_a_call_is_one_run_that_looks_like_the_real_models_own(tier, pair, real):
    config, name = TIERS[tier]
    runs: list[Run] = []
    for model in (pair, real(name)):
        collected = RunCollectorCallbackHandler()
        model.invoke(EASY, {**config, "callbacks": [collected], "run_name": "asked", "tags": ["shop"]})
        runs += collected.traced_runs
    routed, bare = runs
    assert (routed.name, routed.run_type, routed.tags, routed.child_runs) == (bare.name, bare.run_type, bare.tags, [])
    assert (routed.inputs, routed.serialized) == (bare.inputs, bare.serialized)
    assert routed.extra["invocation_params"] == bare.extra["invocation_params"]
    ours = {"routed_agents_tier": tier, QUIET: True}
    assert {**bare.extra["metadata"], **config["metadata"], **ours} == {**routed.extra["metadata"], QUIET: True}


@pytest.mark.parametrize("tier", TIERS)
async def test_an_async_call_is_one_run_too(tier, pair):
    config, name = TIERS[tier]
    collected = RunCollectorCallbackHandler()
    await pair.ainvoke(EASY, {**config, "callbacks": [collected]})
    assert models_in(collected.traced_runs) == [("llm", name)]


def test_each_attempt_is_a_run_of_its_own_below_the_same_parent(pair, provider):
    provider.faults.add(Fault("refusal", model=HAIKU))
    collected = RunCollectorCallbackHandler()
    (ChatPromptTemplate.from_messages([("human", "{question}")]) | pair | StrOutputParser()).invoke(
        {"question": EASY}, {"callbacks": [collected]}
    )
    [chain] = collected.traced_runs
    assert models_in([chain]) == [("llm", HAIKU), ("llm", OPUS)]
    assert {run.parent_run_id for run in chain.child_runs} == {chain.id}


def test_a_failed_attempt_is_a_failed_run(pair, provider):
    provider.faults.add(Fault("overloaded", model=HAIKU, times=9))
    listener = Listener()
    pair.invoke(EASY, {"callbacks": [listener]})
    assert ([run["ls_model_name"] for run in listener.started], listener.failed, listener.ended) == ([HAIKU, OPUS], 1, 1)


def test_a_call_in_a_graph_is_one_run_below_its_node(pair):
    builder = StateGraph(MessagesState)
    builder.add_node("say", lambda state: {"messages": [pair.invoke(state["messages"])]})
    builder.add_edge(START, "say")
    collected = RunCollectorCallbackHandler()
    builder.compile().invoke({"messages": [HumanMessage(EASY)]}, {"callbacks": [collected]})
    [graph] = collected.traced_runs
    assert [(node.name, models_in([node])) for node in graph.child_runs] == [("say", [("llm", HAIKU)])]


@pytest.mark.parametrize("item", ["run_id", "tags", "metadata", "run_name"])
def test_what_the_config_says_of_the_run_reaches_it(item, pair):
    wanted = {"run_id": "01890a5d-ac96-774b-bcce-b302099a8057", "tags": ["shop"], "metadata": {"order": 7}, "run_name": "asked"}[item]
    collected = RunCollectorCallbackHandler()
    pair.invoke(EASY, {item: wanted, "callbacks": [collected]})
    [run] = collected.traced_runs
    found = {"run_id": str(run.id), "tags": run.tags, "metadata": {"order": run.extra["metadata"].get("order")}, "run_name": run.name}[item]
    assert found == wanted


CONSTRUCTED = "RoutedChatModel takes callbacks, tags and metadata like any chat model, and never looks at them"


def test_callbacks_given_to_the_model_hear_its_calls(books):
    listener = Listener()
    books.model(callbacks=[listener]).invoke(EASY)
    assert (len(listener.started), listener.ended) == (1, 1)


def test_tags_given_to_the_model_are_on_its_runs_and_label_its_calls(books):
    collected = RunCollectorCallbackHandler()
    books.model(tags=["team:care"]).invoke(EASY, {"callbacks": [collected], "tags": ["shop"]})
    assert (set(collected.traced_runs[0].tags), dict(books.entries[0].labels)) == ({"team:care", "shop"}, {"team": "care"})


def test_metadata_given_to_the_model_is_on_its_runs_and_labels_its_calls(books):
    collected = RunCollectorCallbackHandler()
    books.model(metadata={"tenant": "acme", "order": 7}).invoke(EASY, {"callbacks": [collected]})
    assert (collected.traced_runs[0].extra["metadata"].get("order"), dict(books.entries[0].labels)) == (7, {"tenant": "acme"})


# ---- streams and events -------------------------------------------------------------------------------------------------

STAMP_LAST = "the chunk with the stamp comes after the one that says it is the last"


@pytest.mark.parametrize("tier", TIERS)
def test_a_stream_has_the_bare_models_chunks_with_the_stamp_on_the_last(tier, pair, real):
    config, name = TIERS[tier]
    routed, bare = list(pair.stream(EASY, config)), list(real(name).stream(EASY))
    assert [without_stamp(chunk) for chunk in routed] == [without_stamp(chunk) for chunk in bare]
    assert [STAMP in chunk.response_metadata for chunk in routed] == [False] * (len(bare) - 1) + [True]


@pytest.mark.parametrize("tier", TIERS)
def test_the_sum_of_a_stream_is_the_bare_models(tier, pair, real):
    config, name = TIERS[tier]
    assert without_stamp(whole(list(pair.stream(EASY, config)))) == without_stamp(whole(list(real(name).stream(EASY))))


async def test_events_come_in_the_bare_models_order(pair, real):
    told = [[(event["event"], event["name"]) async for event in model.astream_events(EASY, version="v2")] for model in (pair, real(HAIKU))]
    assert told[0] == told[1]


class Talkative(ScriptedChatModel):
    """A model that says something more after its last chunk: usage, as some gateways do, or that its line broke."""

    more: Any = None

    def _chunks(self, message: AIMessage) -> Iterator[ChatGenerationChunk]:
        yield from super()._chunks(message)
        if isinstance(self.more, BaseException):
            raise self.more
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=self.more))


def talkative(more: Any) -> Talkative:
    return Talkative(model_name=HAIKU, provider="anthropic", replies="yes", usage={"input_tokens": 100, "output_tokens": 1}, more=more)


async def fill(chunks: list[Any], stream: Any) -> None:
    """Keep what a stream gives, sync or async, until it ends or breaks."""
    if not hasattr(stream, "__aiter__"):
        chunks.extend(stream)
        return
    async for chunk in stream:
        chunks += [chunk]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_usage_told_after_the_last_chunk_is_in_the_books(asynchronous, books):
    model = books.model(cheap=talkative({"input_tokens": 0, "output_tokens": 40, "total_tokens": 40}))
    chunks = [chunk async for chunk in model.astream(EASY)] if asynchronous else list(model.stream(EASY))
    (entry,) = books.entries
    assert (whole(chunks).text, entry.usage.input, entry.usage.output, entry.outcome) == ("yes", 100, 41, "accepted")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_line_that_breaks_after_the_last_chunk_leaves_the_reply_paid_and_accepted(asynchronous, books):
    model = books.model(cheap=talkative(ConnectionError("reset")))
    chunks: list[Any] = []
    with pytest.raises(ConnectionError, match="reset"):
        await fill(chunks, model.astream(EASY) if asynchronous else model.stream(EASY))
    assert (whole(chunks).text, books.story, len(books.leaves)) == ("yes", [("cheap", "accepted")], 1)
    assert decision_of(whole(chunks))["cost_pico"] == books.entries[0].cost.total_pico


@BETA
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("tools", [[], [search]], ids=["plain", "tools"])
def test_v3_events_are_the_bare_models_with_the_stamp_on_the_output(tools, tier, pair, real, books):
    config, name = TIERS[tier]
    asked = "Search the shop for boots" if tools else EASY
    streams = [(model.bind_tools(tools) if tools else model).stream_events(asked, config, version="v3") for model in (pair, real(name))]
    routed, bare = ([shape(event) for event in stream] for stream in streams)
    output = streams[0].output
    assert (isinstance(streams[0], ChatModelStream), routed) == (True, bare)
    assert [call["args"] for call in output.tool_calls] == [call["args"] for call in streams[1].output.tool_calls]
    assert (output.text, decision_of(output)["tier"], books.story) == (streams[1].output.text, tier, [(tier, "accepted")])


@BETA
@pytest.mark.parametrize("tier", TIERS)
async def test_async_v3_events_are_the_bare_models_with_the_stamp_on_the_output(tier, pair, real, books):
    config, name = TIERS[tier]
    streams = [await model.astream_events(EASY, config, version="v3") for model in (pair, real(name))]
    routed, bare = [[shape(event) async for event in stream] for stream in streams]
    output = await streams[0].output
    assert (isinstance(streams[0], AsyncChatModelStream), routed) == (True, bare)
    assert (decision_of(output)["tier"], books.story) == (tier, [(tier, "accepted")])


def shape(event: Any) -> tuple[Any, ...]:
    """What kind of v3 event it is, and of which block."""
    return (event["event"], event.get("index"), (event.get("content") or event.get("delta") or {}).get("type"))


@BETA
def test_v3_events_are_one_run_and_fail_over_before_the_first_word(pair, provider, books):
    provider.faults.add(Fault("overloaded", model=HAIKU, times=9))
    listener = Listener()
    assert pair.stream_events(EASY, {"callbacks": [listener]}, version="v3").output.text == "positive"
    assert ([run["ls_model_name"] for run in listener.started], listener.ended) == ([HAIKU, OPUS], 1)
    assert books.story == [("cheap", "failed"), ("strong", "accepted")]


@BETA
def test_v3_events_surface_the_providers_error_where_nothing_is_left(pair, provider, books):
    provider.faults.add(Fault("overloaded", model=OPUS, times=9))
    with pytest.raises(Exception, match="verloaded"):
        list(pair.stream_events(EASY, HARD, version="v3"))
    assert books.story == [("strong", "failed")]


@pytest.mark.parametrize("by", ["config", "model_copy"])
def test_a_model_tagged_nostream_stays_out_of_a_graphs_messages(by, pair):
    quiet = pair.with_config(tags=["nostream"]) if by == "config" else pair.model_copy(update={"tags": ["nostream"]})
    builder = StateGraph(MessagesState)
    builder.add_node("draft", lambda state: {"messages": []} if quiet.invoke(state["messages"]) else None)
    builder.add_node("say", lambda state: {"messages": [pair.invoke(state["messages"])]})
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "say")
    parts = list(builder.compile().stream({"messages": [HumanMessage(EASY)]}, stream_mode="messages"))
    assert {metadata["langgraph_node"] for _, metadata in parts} == {"say"}


# ---- caches and limits --------------------------------------------------------------------------------------------------


@pytest.fixture
def everywhere():
    """A cache for every chat model of the process."""
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


def test_the_global_cache_answers_each_tier_from_its_own_entry(pair, provider, everywhere):
    replies = [pair.invoke(EASY, config) for config in ({}, HARD, {}, HARD)]
    assert [served.model for served in provider.requests] == [HAIKU, OPUS]
    assert [decision_of(reply)["tier"] for reply in replies] == ["cheap", "strong"] * 2
    assert [cost_of(reply).cost_pico > 0 for reply in replies] == [True, True, False, False]


async def test_the_global_cache_works_in_async_calls(pair, provider, everywhere):
    replies = [await pair.ainvoke(EASY) for _ in range(2)]
    assert (len(provider.requests), cost_of(replies[1]).cost_pico) == (1, 0)


def test_what_is_cached_holds_no_stamp(pair, real, everywhere):
    pair.invoke(EASY)
    assert STAMP not in real(HAIKU).invoke(EASY).response_metadata


class Turnstile(BaseRateLimiter):
    """Counts those who pass."""

    def __init__(self) -> None:
        self.passed = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.passed += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


async def test_a_tiers_rate_limiter_is_asked_once_for_each_call(books, real):
    gate = Turnstile()
    model = RoutedChatModel(cheap=real(HAIKU, rate_limiter=gate), strong=real(OPUS), router=books.router)
    model.invoke(EASY)
    await model.ainvoke(EASY)
    list(model.stream(EASY))
    assert gate.passed == 3


async def test_a_rate_limiter_of_the_routed_model_is_handed_on(books, real):
    gate, own = Turnstile(), Turnstile()
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS, rate_limiter=own), router=books.router, rate_limiter=gate)
    model.invoke(EASY)
    await model.ainvoke(EASY)
    model.invoke(EASY, HARD)
    assert (gate.passed, own.passed) == (2, 1)


def test_a_cache_of_the_routed_model_is_handed_on(books, real, provider):
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router, cache=InMemoryCache())
    replies = [model.invoke(EASY) for _ in range(2)]
    assert (len(provider.requests), replies[0].text == replies[1].text, cost_of(replies[1]).cost_pico) == (1, True, 0)


@pytest.mark.parametrize(
    ("name", "value"), [("disable_streaming", True), ("output_version", "v1"), ("custom_get_token_ids", lambda text: [len(text)])]
)
def test_other_settings_of_the_routed_model_are_handed_on_where_a_tier_has_none(name, value, books, real):
    model = RoutedChatModel(cheap=real(HAIKU), strong=real(OPUS), router=books.router, **{name: value})
    assert [getattr(model.models.get(tier.deployments[0]), name) for tier in model.router.policy.tiers] == [value, value]


# ---- a model named for one call -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, HARD], ids=["cheap", "strong"])
def test_a_model_named_for_one_call_cannot_go_past_the_router(config, pair, provider):
    with pytest.raises(ConfigurationError, match=r"model=.*metadata"):
        pair.invoke(EASY, config, model="claude-haiku-4-5")
    assert provider.requests == []


# ---- among other runnables ----------------------------------------------------------------------------------------------


async def test_a_batch_gives_each_item_its_own_config(pair, provider):
    configs = [{}, HARD, {}]
    for replies in (pair.batch([EASY] * 3, configs), await pair.abatch([EASY] * 3, configs)):
        assert [decision_of(reply)["model"] for reply in replies] == [HAIKU, OPUS, HAIKU]
    assert len(provider.requests) == 6


async def test_a_batch_keeps_failures_in_their_place(pair, provider):
    provider.faults.add(Fault("overloaded", model=OPUS, times=9))
    for replies in (
        pair.batch([EASY] * 2, [{}, HARD], return_exceptions=True),
        await pair.abatch([EASY] * 2, [{}, HARD], return_exceptions=True),
    ):
        assert [isinstance(reply, Exception) for reply in replies] == [False, True]


def test_a_batch_as_completed_comes_with_its_places(pair):
    assert sorted(place for place, _ in pair.batch_as_completed([EASY] * 3, [{}, HARD, {}])) == [0, 1, 2]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda model: model.with_retry(stop_after_attempt=2),
        lambda model: model.with_fallbacks([ScriptedChatModel(replies="from elsewhere")]),
        lambda model: model.with_config(tags=["shop"], run_name="asked"),
        lambda model: model.bind(stop=["!"]),
        lambda model: model.with_listeners(on_start=lambda run: None),
        lambda model: model.with_types(output_type=AIMessage),
    ],
    ids=["with_retry", "with_fallbacks", "with_config", "bind", "with_listeners", "with_types"],
)
async def test_it_answers_through_what_every_runnable_can_be_wrapped_in(wrapped, pair, books):
    model = wrapped(pair)
    replies = [model.invoke(EASY), await model.ainvoke(EASY), model.batch([EASY])[0]]
    replies += [whole(list(model.stream(EASY))), whole([chunk async for chunk in model.astream(EASY)])]
    assert ([reply.text for reply in replies], books.story) == (["positive"] * 5, [("cheap", "accepted")] * 5)


def test_tools_bound_behind_retries_and_fallbacks_reach_the_model(pair, provider):
    for model in (pair.bind_tools([search]).with_retry(), pair.with_fallbacks([pair.model_copy()]).bind_tools([search])):
        assert model.invoke("Search the shop for boots").tool_calls[0]["name"] == "search"
    assert [served.body["tools"][0]["name"] for served in provider.requests] == ["search", "search"]


def test_stop_words_bound_with_tools_reach_the_model(pair, provider):
    pair.bind_tools([search]).bind(stop=["!"]).invoke(EASY)
    assert provider.requests[0].body["stop_sequences"] == ["!"]


@pytest.mark.parametrize("ask", ["text", "messages", "tuples", "dicts", "prompt"])
def test_it_takes_every_form_of_input_a_chat_model_takes(ask, pair, real, provider):
    asked: dict[str, Any] = {
        "text": EASY,
        "messages": [HumanMessage(EASY)],
        "tuples": [("system", "Be brief."), ("human", EASY)],
        "dicts": [{"role": "user", "content": EASY}],
        "prompt": ChatPromptTemplate.from_messages([("human", "{it}")]).invoke({"it": EASY}),
    }
    pair.invoke(asked[ask])
    real(HAIKU).invoke(asked[ask])
    routed, bare = (served.body for served in provider.requests)
    assert routed == bare


@pytest.mark.parametrize("ask", [7, None, {"messages": []}])
def test_what_is_no_input_for_a_chat_model_is_refused_as_by_one(ask, pair, real, books):
    for model in (pair, real(HAIKU)):
        with pytest.raises(ValueError, match="Invalid input type"):
            model.invoke(ask)
    assert books.entries == []


class Old(BaseModelV1):
    """How somebody feels."""

    mood: str


class Mood(BaseModel):
    """How somebody feels."""

    mood: str


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tier", ["cheap", "strong"])
def test_a_schema_of_pydantic_1_works_where_it_does_on_the_bare_model(tier, pair):
    found = pair.with_structured_output(Old).invoke("Classify the mood: I am so happy with these boots!", TIERS[tier][0])
    assert isinstance(found, Old)


# ---- copies -------------------------------------------------------------------------------------------------------------


def test_a_copy_with_another_class_goes_elsewhere_and_leaves_the_first_alone(pair, books):
    other = pair.model_copy(update={"task_class": "agentic_chain"})
    assert [decision_of(model.invoke(EASY))["tier"] for model in (other, pair)] == ["strong", "cheap"]


def test_a_deep_copy_of_bound_tools_still_binds_late(pair, provider):
    copy.deepcopy(pair.bind_tools([search])).invoke(EASY, HARD)
    assert (provider.requests[0].model, provider.requests[0].body["tools"][0]["name"]) == (OPUS, "search")


def test_two_models_over_one_router_share_its_books(books):
    first, second = books.model(), RoutedChatModel(cheap=scripted(HAIKU, "a"), strong=scripted(OPUS, "b"), router=books.router)
    first.invoke(EASY)
    second.invoke(EASY, HARD)
    assert books.story == [("cheap", "accepted"), ("strong", "accepted")]


def test_a_model_made_of_a_policy_alone_keeps_books_of_its_own(provider):
    model = RoutedChatModel(router=Policy.default(tiers="embedded"))
    assert (isinstance(model.router, Router), cost_of(model.invoke(EASY)).steps) == (True, 1)
