"""A judge of classes over real HTTP, asked through both SDKs, before every way of making a call."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Annotated, Any

import anthropic
import openai
import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langgraph.graph import END, START, MessagesState, StateGraph

from routed_agents import (
    Ledger,
    Policy,
    RoutedChatModel,
    Router,
    RouterMiddleware,
    RouterNode,
    Step,
    cost_of,
    embedded,
    join,
    routed_anthropic,
    routed_openai,
)
from routed_agents.classify import Classification
from routed_agents.embedded import Fault
from routed_agents.features import Features
from routed_agents.health import Health
from routed_agents.integrations.asking import ModelAsker, anthropic_request, openai_request
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.pricing import Prices
from routed_agents.questions import Question
from routed_agents.telemetry import names
from routed_agents.tiers import Tiers

from .conftest import HAIKU, LOOP, OPUS, Books

EASIER = "Give the gist of what Tolstoy meant by all that"
"""The local classifier takes it for code and proposes the strong tier; the embedded judge takes it for a summary."""
HARDER = "Figure out what they want"
"""The local classifier takes it for an easy question; the embedded judge for a hard one."""
SURE = "Classify the sentiment as positive or negative: lovely"
LUNA = "gpt-6-luna"
JUDGES = [f"anthropic:{HAIKU}", f"openai:{LUNA}", "openai:gpt-4o-mini", "anthropic:claude-haiku-4-5", f"anthropic:{OPUS}"]
PRICES = Prices()
ONE = [{"role": "user", "content": EASIER}]


class Local:
    """A local classifier of the caller's own, whose answers no training changes."""

    name, version = "local", "1"

    def classify(self, features: Features, /) -> Classification:
        if features.declared is not None:
            return Classification(task_class=features.declared, confidence=1.0, p_strong=0.5, declared=True)
        known = {"gist": ("code_generation", 0.99), "Figure": ("knowledge_qa", 0.25), "widow": ("empathy_escalation", 0.9)}
        task_class, p_strong = next((said for word, said in known.items() if word in features.own), ("classification", 0.01))
        return Classification(task_class=task_class, confidence=0.9, p_strong=p_strong)


LOCAL = Policy.default().replace(classifier=Local())


def judged(model: str = f"anthropic:{HAIKU}", tiers: str | Tiers = "claude", **settings: Any) -> Policy:
    return Policy.default(tiers=tiers).replace(classifier=JudgedClassifier(model, inner=Local(), **settings))


def decided(router: Router, asked: str) -> Any:
    with router.step(Step.from_messages(asked)) as call:
        return call.decision


async def entered(router: Router, asked: str) -> Any:
    async with router.step(Step.from_messages(asked)) as call:
        return call.decision


def at_once(router: Router, asked: list[str]) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*(entered(router, each) for each in asked))

    return LOOP.run_until_complete(run())


def questions(provider: embedded.Provider) -> list[Any]:
    return [request for request in provider.requests if "Sort the call." in str(request.body)]


# ---- what is asked, and what comes of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", JUDGES)
@pytest.mark.parametrize(("asked", "before", "after"), [(EASIER, "strong", "cheap"), (HARDER, "cheap", "strong")])
def test_its_opinion_settles_what_is_left_open(model: str, asked: str, before: str, after: str, provider: embedded.Provider) -> None:
    books = Books(judged(model))

    decision = decided(books.router, asked)

    assert (LOCAL.decide(Step.from_messages(asked)).tier, decision.tier) == (before, after)
    assert (decision.classification.judged, decision.to_record()["judged"], len(questions(provider))) == (True, True, 1)


@pytest.mark.parametrize("model", JUDGES)
def test_its_call_is_priced_to_the_last_digit_and_hangs_under_the_step(model: str, provider: embedded.Provider) -> None:
    books = Books(judged(model))

    decided(books.router, EASIER)

    (entry,), (asked,), (leaf,), (route,) = books.entries, questions(provider), books.leaves, books.routes
    assert (entry.kind, entry.tier, entry.outcome, entry.codes) == ("judge", "judge", "accepted", ("judge:summarization",))
    assert (entry.usage.input, entry.usage.output) == (asked.usage.uncached, asked.usage.output)
    assert entry.cost == PRICES.card(entry.model).cost(entry.usage)
    assert (leaf.attributes[names.COST_PICO], leaf.attributes[names.CALL_KIND]) == (entry.cost.total_pico, "judge")
    assert (leaf.parent.span_id, route.attributes[names.DECIDED_TIER]) == (route.context.span_id, "cheap")


def test_its_call_is_as_long_as_it_was_where_the_clock_is_set_back(provider: embedded.Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    books, backwards = Books(judged()), itertools.count(time.time_ns(), -(10**10))
    monkeypatch.setattr(time, "time_ns", lambda: next(backwards))

    decided(books.router, EASIER)

    (entry,) = books.entries
    assert 0 < entry.ended_ns - entry.started_ns < 10**10


def by_middleware(router: Router) -> Any:
    agent = create_agent(ChatAnthropic(model=OPUS, max_tokens=64), [], middleware=[RouterMiddleware(router)])
    return agent.invoke({"messages": [("user", EASIER)]})["messages"][-1]


async def by_middleware_async(router: Router) -> Any:
    agent = create_agent(ChatAnthropic(model=OPUS, max_tokens=64), [], middleware=[RouterMiddleware(router)])
    return (await agent.ainvoke({"messages": [("user", EASIER)]}))["messages"][-1]


async def by_client_async(router: Router) -> Any:
    async with anthropic.AsyncAnthropic() as client:
        return await routed_anthropic(client, router).messages.create(model="auto", max_tokens=64, messages=ONE)


async def by_stream_async(router: Router) -> Any:
    async with (
        anthropic.AsyncAnthropic() as client,
        routed_anthropic(client, router).messages.stream(model="auto", max_tokens=64, messages=ONE) as stream,
    ):
        return await stream.get_final_message()


async def by_step_async(router: Router) -> Any:
    async with anthropic.AsyncAnthropic() as client, router.step(Step.from_messages(EASIER)) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(await client.messages.create(model=attempt.model, max_tokens=64, messages=ONE))
    return call.reply


async def by_astream(router: Router) -> Any:
    return [chunk async for chunk in RoutedChatModel(router=router, options={"max_tokens": 64}).astream(EASIER)][-1]


WAYS = {
    "invoke": lambda router: RoutedChatModel(router=router, options={"max_tokens": 64}).invoke(EASIER),
    "ainvoke": lambda router: RoutedChatModel(router=router, options={"max_tokens": 64}).ainvoke(EASIER),
    "astream": by_astream,
    "middleware": by_middleware,
    "async middleware": by_middleware_async,
    "client": lambda router: routed_anthropic(anthropic.Anthropic(), router).messages.create(model="auto", max_tokens=64, messages=ONE),
    "async client": by_client_async,
    "async stream": by_stream_async,
    "async step": by_step_async,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_calling_asks_first(way: str, provider: embedded.Provider) -> None:
    books = Books(judged())

    reply = WAYS[way](books.router)
    if asyncio.iscoroutine(reply):
        reply = LOOP.run_until_complete(reply)

    assert [(entry.kind, entry.tier, entry.outcome) for entry in books.entries] == [
        ("judge", "judge", "accepted"),
        ("attempt", "cheap", "accepted"),
    ]
    total = books.ledger.total()
    assert (total.steps, total.attempts, total.cost_pico) == (1, 1, sum(entry.cost.total_pico for entry in books.entries))
    if way not in ("async step", "async stream"):  # there the reply itself carries no stamp
        assert cost_of(reply).cost_pico == total.cost_pico


def test_openai_tiers_are_judged_as_well(provider: embedded.Provider) -> None:
    books = Books(judged(f"openai:{LUNA}", Tiers.of({"cheap": f"openai:{LUNA}", "strong": "openai:gpt-6.1-sol"})))

    routed_openai(openai.OpenAI(), books.router).responses.create(model="auto", input=EASIER)

    assert [(entry.kind, entry.model) for entry in books.entries] == [("judge", LUNA), ("attempt", LUNA)]


class Routing(MessagesState):
    routing: Annotated[dict, join]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_router_node_asks_before_it_goes(asynchronous: bool, provider: embedded.Provider) -> None:
    books = Books(judged())
    node = RouterNode(books.router, to={"cheap": "quick", "strong": "deep"})
    went: list[str] = []
    builder = StateGraph(Routing)
    builder.add_node("router", node, destinations=node.destinations)
    for name in ("quick", "deep"):
        builder.add_node(name, lambda state, name=name: went.append(name))
        builder.add_edge(name, END)
    builder.add_edge(START, "router")
    graph, given = builder.compile(), {"messages": [("user", EASIER)]}

    if asynchronous:
        LOOP.run_until_complete(graph.ainvoke(given))
    else:
        graph.invoke(given)

    assert (went, [entry.kind for entry in books.entries]) == (["quick"], ["judge"])


# ---- where nobody is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Step.from_messages(SURE),
        Step.from_messages(EASIER, task_class="knowledge_qa"),
        Step.from_messages(EASIER, metadata={"routed_agents": {"tier": "strong"}}),
        Step.from_messages("Reply to the widow whose husband died in our care"),
        Step.from_messages(f"{EASIER}: {'word ' * 60_000}"),
    ],
    ids=["sure", "declared", "forced strong", "always escalates", "long context"],
)
def test_nobody_is_asked_where_it_would_change_nothing(step: Step, provider: embedded.Provider) -> None:
    books = Books(judged())

    with books.router.step(step):
        pass

    assert (books.entries, provider.requests) == ([], [])


def test_a_pinned_turn_is_not_asked_about(provider: embedded.Provider) -> None:
    books = Books(judged())
    with books.router.step(Step.from_messages("x", task_class="agentic_chain", node="n"), thread="t"):
        pass
    turn = [{"role": "user", "content": EASIER}]
    with books.router.step(Step.from_messages(turn, metadata={"routed_agents": {"tier": "strong"}}, node="n"), thread="t"):
        pass

    with books.router.step(Step.from_messages(turn, node="n"), thread="t") as call:
        pass

    assert (call.decision.tier, provider.requests) == ("strong", [])


def test_equal_instructions_are_asked_about_once_whatever_the_material(provider: embedded.Provider) -> None:
    books = Books(judged(above=0.0))

    tiers = [decided(books.router, f'{EASIER}\n"""{matter}"""').tier for matter in ("War and Peace", "Anna Karenina", "Resurrection")]

    assert (tiers, len(questions(provider)), len(books.entries)) == (["cheap"] * 3, 1, 1)
    assert books.counted("routed_agents.judgements") == 3


def test_only_so_many_answers_are_remembered(provider: embedded.Provider) -> None:
    from routed_agents.asking import Asking

    router = Router(judged(), ledger=Ledger.memory(), asker=Asking(kept=2))

    for subject in ("Tolstoy", "Musil", "Woolf", "Tolstoy", "Tolstoy"):
        decided(router, f"Give the gist of what {subject} meant by all that")

    assert len(questions(provider)) == 4


def test_equal_questions_at_the_same_time_are_asked_once(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=0.4))

    decisions = at_once(books.router, [f"{EASIER}\n<mail>\nOrder {number} was late.\n</mail>" for number in range(100)])

    assert {(decision.tier, decision.codes) for decision in decisions} == {("cheap", ())}
    assert (len(questions(provider)), len(books.entries), len(books.leaves)) == (1, 1, 1)
    assert books.counted("routed_agents.judgements") == 100


def test_a_question_that_fails_fails_for_all_who_wait_and_is_asked_again_by_the_next(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("overloaded", model=HAIKU, after_s=0.3))

    waited = {(decision.tier, decision.codes) for decision in at_once(books.router, [EASIER] * 5)}

    assert (waited, decided(books.router, EASIER).tier) == ({("strong", ("judge_failed",))}, "cheap")
    assert [entry.outcome for entry in books.entries] == ["failed", "accepted"]


def test_who_asked_may_leave_and_the_others_hear_the_answer(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=0.4))

    async def run() -> Any:
        first = asyncio.ensure_future(entered(books.router, EASIER))
        while not questions(provider):
            await asyncio.sleep(0.01)
        second = asyncio.ensure_future(entered(books.router, EASIER))
        await asyncio.sleep(0.05)
        first.cancel()
        return await second

    assert LOOP.run_until_complete(run()).tier == "cheap"
    assert ([entry.outcome for entry in books.entries], len(questions(provider))) == (["abandoned"], 1)


def test_shadow_asks_and_off_does_not(provider: embedded.Provider) -> None:
    told = {}
    for mode in ("shadow", "off"):
        books = Books(judged().replace(mode=mode))
        reply = RoutedChatModel(router=books.router, options={"max_tokens": 64}).invoke(EASIER)
        told[mode] = ([entry.kind for entry in books.entries], reply.response_metadata["routed_agents"]["tier"])

    assert told == {"shadow": (["judge", "attempt"], "cheap"), "off": (["attempt"], "strong")}


# ---- a judge that fails -----------------------------------------------------------------------------------------------

FAULTS = {
    "overloaded": Fault("overloaded", model=HAIKU),
    "rate_limit": Fault("rate_limit", model=HAIKU, retry_after_s=30),
    "timeout": Fault("timeout", model=HAIKU, after_s=1.5),
    "nonsense": Fault("malformed_tool_call", model=HAIKU),
    "refusal": Fault("refusal", model=HAIKU),
    "slow_loris": Fault("slow_loris", model=HAIKU, after_s=0.3),
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_judge_that_fails_counts_as_unsure(fault: str, asynchronous: bool, provider: embedded.Provider) -> None:
    books = Books(judged(timeout_s=0.5))
    provider.faults.add(FAULTS[fault])

    async def run() -> Any:
        async with books.router.step(Step.from_messages(HARDER)) as call:
            return call.decision

    began = time.monotonic()
    decision = LOOP.run_until_complete(run()) if asynchronous else decided(books.router, HARDER)
    took_s = time.monotonic() - began

    (entry,) = books.entries
    assert (decision.tier, decision.unsure, decision.codes, entry.outcome) == ("strong", True, ("judge_failed",), "failed")
    assert (took_s < 1.4, books.counted("routed_agents.judgements"), len(books.leaves), len(books.routes)) == (True, 1, 1, 1)


def test_a_judge_that_took_too_long_is_booked_as_simulated_where_it_is_and_with_all_that_was_sent(provider: embedded.Provider) -> None:
    answered, slow = Books(judged()), Books(judged(timeout_s=0.3))
    decided(answered.router, HARDER)
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=0.6))

    decided(slow.router, HARDER)

    (reported,), (entry,) = answered.entries, slow.entries
    assert (entry.error, entry.usage.source, entry.simulated) == ("timeout", "estimated", True)
    assert entry.usage.input >= reported.usage.input


def test_a_judge_that_is_down_is_not_waited_for_again(provider: embedded.Provider) -> None:
    books = Books(judged(timeout_s=0.3))
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=0.6, times=5))

    took = []
    for number in range(5):
        began = time.monotonic()
        decision = decided(books.router, f"Figure out what they want, number {number}")
        took.append(time.monotonic() - began)
        assert (decision.tier, decision.codes) == ("strong", ("judge_failed",))

    assert (len(questions(provider)), max(took[3:]) < 0.2) == (3, True)


def test_too_many_questions_at_once_are_not_asked(provider: embedded.Provider) -> None:
    from routed_agents.asking import Asking

    books = Books(judged(timeout_s=2.0))
    router = books.router.replace(asker=Asking(at_once=2))
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=0.4, times=2))

    decisions = at_once(router, [f"{EASIER}, in chapter {number}" for number in range(6)])

    assert sorted(decision.codes for decision in decisions) == [(), (), *[("judge_failed",)] * 4]
    assert len(questions(provider)) == 2


def test_a_thread_that_cannot_start_costs_no_later_question(provider: embedded.Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    from routed_agents.asking import Asking

    books = Books(judged())
    router = books.router.replace(asker=Asking(at_once=1))
    with monkeypatch.context() as full:
        full.setattr("threading.Thread.start", no_thread)
        assert decided(router, EASIER).codes == ("judge_failed",)

    assert decided(router, EASIER).tier == "cheap"
    assert (len(books.named("attempt, no call made")), len(books.leaves), len(books.entries)) == (1, 1, 1)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_cancelled_step_closes_its_span_and_books_the_judge(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=1.0))

    async def run() -> None:
        async def enter() -> None:
            async with books.router.step(Step.from_messages(EASIER)):
                pytest.fail("it was cancelled")

        task = asyncio.ensure_future(enter())
        while not questions(provider):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    LOOP.run_until_complete(run())

    (entry,), (route,) = books.entries, books.routes
    assert (entry.outcome, entry.usage.source, route.attributes[names.ERROR_TYPE]) == ("abandoned", "estimated", "CancelledError")


def test_the_event_loop_runs_on_while_a_judge_thinks(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("timeout", model=HAIKU, after_s=0.5))

    async def run() -> float:
        async def enter() -> None:
            async with books.router.step(Step.from_messages(EASIER)):
                pass

        task, longest, last = asyncio.ensure_future(enter()), 0.0, time.monotonic()
        while not task.done():
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        await task
        return longest

    assert LOOP.run_until_complete(run()) < 0.25


def test_entered_without_async_in_an_event_loop_it_asks_nobody_and_goes_up(
    provider: embedded.Provider, caplog: pytest.LogCaptureFixture
) -> None:
    books = Books(judged())

    async def run() -> Any:
        return decided(books.router, HARDER)

    decision = LOOP.run_until_complete(run())

    assert (decision.tier, decision.codes, provider.requests) == ("strong", ("judge_failed",), [])
    assert "use `async with router.step(…)`" in caplog.text


# ---- who asks ---------------------------------------------------------------------------------------------------------


def test_a_chat_model_may_be_asked(provider: embedded.Provider) -> None:
    name = "bedrock:anthropic.claude-haiku-4-5-20251001-v1:0"
    asker = ModelAsker({name: ChatAnthropic(model="claude-haiku-4-5", max_tokens=200, max_retries=0)})
    router = Router(judged(name), ledger=Ledger.memory(), asker=asker)

    assert decided(router, EASIER).tier == "cheap"
    assert [(entry.outcome, entry.cost is not None) for entry in router.ledger.entries()] == [("accepted", True)]


class Ailing(Health):
    """A health that is itself in trouble."""

    def answered(self, deployment: str, *, begun: int | None = None) -> None:
        raise RuntimeError("out of order")


def test_a_judges_call_is_booked_whatever_goes_wrong_in_the_health(provider: embedded.Provider) -> None:
    router = Books(judged()).router.replace(health=Ailing())

    assert decided(router, EASIER).tier == "cheap"
    assert [entry.kind for entry in router.ledger.entries()] == ["judge"]


ASKED = Question(name="sort_call", system="s", text="t", schema={"type": "object", "properties": {}})


def test_who_takes_no_forced_tool_is_asked_in_a_schema_with_room_to_think() -> None:
    plain, thinking = anthropic_request(ASKED, HAIKU), anthropic_request(ASKED, OPUS)

    assert (plain["tool_choice"], "output_config" in plain) == ({"type": "tool", "name": "sort_call"}, False)
    assert (thinking["output_config"]["format"]["type"], "tools" in thinking) == ("json_schema", False)
    assert thinking["max_tokens"] > plain["max_tokens"] == 300


def test_reasoning_models_are_asked_not_to_reason() -> None:
    assert openai_request(ASKED, LUNA)["reasoning_effort"] == "none"
    assert "reasoning_effort" not in openai_request(ASKED, "gpt-4o-mini")
