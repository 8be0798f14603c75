"""A judge of replies over real HTTP: what it finds wrong goes up, however the call was made, and its own calls are on the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic

from routed_agents import (
    Ledger,
    Policy,
    RoutedChatModel,
    Router,
    RouterMiddleware,
    Step,
    cost_of,
    embedded,
    routed_anthropic,
    routed_openai,
)
from routed_agents.embedded import Fault
from routed_agents.integrations.asking import ModelAsker
from routed_agents.judged_replies import Judge
from routed_agents.ledger import Entry
from routed_agents.pricing import Prices
from routed_agents.telemetry import names
from routed_agents.tiers import Tiers

from .conftest import EASY, FLAWLESS, HAIKU, LOOP, OPUS, Books

LUNA, SOL = "gpt-6-luna", "gpt-6.1-sol"
CLAUDE = Tiers.of({"cheap": f"anthropic:{HAIKU}", "strong": f"anthropic:{OPUS}"})
GPT = Tiers.of({"cheap": f"openai:{LUNA}", "strong": f"openai:{SOL}"})
BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
UP = [("cheap", "attempt", "rejected"), ("judge", "judge", "accepted"), ("strong", "attempt", "accepted")]
"""Tier, kind and outcome of each call for a cheap reply that was turned down."""
STANDS = [("cheap", "attempt", "accepted"), ("judge", "judge", "accepted")]
PRICES = Prices()


@pytest.fixture(scope="module")
def served() -> Iterator[embedded.Provider]:
    """The small models get everything wrong that is no judging; who judges is flawless."""
    with embedded.serve(error_rates={**FLAWLESS, HAIKU: 1.0, "gpt-4o-mini": 1.0}) as running:
        yield running


def judged(tiers: Tiers = CLAUDE, model: str = f"openai:{LUNA}", **settings: Any) -> Policy:
    policy = Policy.default(tiers=tiers)
    return policy.replace(checks=[*policy.checks, Judge(model=model, **{"task_classes": ("classification",), **settings})])


def wrong_gpt() -> Policy:
    """OpenAI tiers whose cheap model errs, judged by a model of Anthropic."""
    return judged(Tiers.of({"cheap": "openai:gpt-4o-mini", "strong": f"openai:{SOL}"}), "anthropic:claude-sonnet-4-6")


def story(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Each call by step order: the attempts, each followed by who judged it."""
    ordered = sorted(entries, key=lambda entry: (entry.attempt, entry.kind == "judge"))
    return [(entry.tier, entry.kind, entry.outcome) for entry in ordered]


# ---- every way of calling ---------------------------------------------------------------------------------------------


def messages_of(chunks: Sequence[Any]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def collected(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


@dataclass(frozen=True)
class Way:
    """One way to make a call, and what comes back as text."""

    name: str
    run: Callable[[Router], str | Awaitable[str]]
    policy: Callable[[], Policy] = judged


def by_step(router: Router) -> str:
    client = anthropic.Anthropic()
    with router.step(Step.from_messages(EASY)) as call:
        for attempt in call.attempts():
            with attempt:
                said = [{"role": "user", "content": EASY}]
                attempt.record(client.messages.create(model=attempt.model, max_tokens=64, messages=said))
    return call.reply.content[0].text


async def by_step_async(router: Router) -> str:
    async with anthropic.AsyncAnthropic() as client, router.step(Step.from_messages(EASY)) as call:
        for attempt in call.attempts():
            with attempt:
                said = [{"role": "user", "content": EASY}]
                reply = await client.messages.create(model=attempt.model, max_tokens=64, messages=said)
                await attempt.consult(reply)
                attempt.record(reply)
    return call.reply.content[0].text


def model(router: Router, **more: Any) -> RoutedChatModel:
    return RoutedChatModel(router=router, options={"max_tokens": 64, "max_retries": 0}, **more)


async def events(router: Router) -> str:
    stream = await model(router, buffer=True).astream_events(EASY, version="v3")
    return (await stream.output).text


def agent(router: Router) -> Any:
    strong = ChatAnthropic(model=OPUS, max_tokens=64)
    return create_agent(strong, [], middleware=[RouterMiddleware(router)])


ASKED = {"messages": [("user", EASY)]}


async def agent_async(router: Router) -> str:
    return (await agent(router).ainvoke(ASKED))["messages"][-1].text


def claude(router: Router, **more: Any) -> Any:
    return routed_anthropic(anthropic.Anthropic(), router, **more)


def claude_stream(router: Router) -> str:
    with claude(router, buffer=True).messages.stream(model="auto", max_tokens=64, messages=[{"role": "user", "content": EASY}]) as stream:
        return stream.get_final_text()


async def claude_async(router: Router) -> str:
    async with anthropic.AsyncAnthropic() as client:
        said = [{"role": "user", "content": EASY}]
        return (await routed_anthropic(client, router).messages.create(model="auto", max_tokens=64, messages=said)).content[0].text


async def claude_stream_async(router: Router) -> str:
    async with anthropic.AsyncAnthropic() as client:
        said = [{"role": "user", "content": EASY}]
        routed = routed_anthropic(client, router, buffer=True)
        async with routed.messages.stream(model="auto", max_tokens=64, messages=said) as stream:
            return await stream.get_final_text()


def gpt(router: Router) -> str:
    client = routed_openai(openai.OpenAI(), router)
    return client.chat.completions.create(model="auto", messages=[{"role": "user", "content": EASY}]).choices[0].message.content or ""


async def gpt_async(router: Router) -> str:
    async with openai.AsyncOpenAI() as client:
        return (await routed_openai(client, router).responses.create(model="auto", input=EASY)).output_text


WAYS = [
    Way("step", by_step),
    Way("async step", by_step_async),
    Way("invoke", lambda router: model(router).invoke(EASY).text),
    Way("stream", lambda router: messages_of(list(model(router, buffer=True).stream(EASY)))),
    Way("v3 stream", lambda router: model(router, buffer=True).stream_events(EASY, version="v3").output.text),
    Way("ainvoke", lambda router: then(model(router).ainvoke(EASY), lambda reply: reply.text)),
    Way("astream", lambda router: then(collected(model(router, buffer=True).astream(EASY)), messages_of)),
    Way("async v3 stream", events),
    Way("agent", lambda router: agent(router).invoke(ASKED)["messages"][-1].text),
    Way("async agent", agent_async),
    Way(
        "anthropic client",
        lambda router: (
            claude(router).messages.create(model="auto", max_tokens=64, messages=[{"role": "user", "content": EASY}]).content[0].text
        ),
    ),
    Way("anthropic stream", claude_stream),
    Way("async anthropic client", claude_async),
    Way("async anthropic stream", claude_stream_async),
    Way("openai client", gpt, wrong_gpt),
    Way("async openai client", gpt_async, wrong_gpt),
]


async def then(awaitable: Awaitable[Any], read: Callable[[Any], str]) -> str:
    return read(await awaitable)


def done(way: Way, router: Router) -> str:
    """Run a way; the asynchronous ones in the loop."""
    said = way.run(router)
    if isinstance(said, str):
        return said

    async def run() -> str:
        return await said

    return LOOP.run_until_complete(run())


@BETA
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_reply_the_judge_finds_wrong_goes_up(way: Way, provider: embedded.Provider) -> None:
    books = Books(way.policy())

    text = done(way, books.router)

    assert (text, story(books.entries)) == ("positive", UP)


@BETA
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_its_call_is_priced_to_the_last_digit_and_hangs_under_the_step(way: Way, provider: embedded.Provider) -> None:
    books = Books(way.policy())

    done(way, books.router)

    (entry,) = [entry for entry in books.entries if entry.kind == "judge"]
    (asked,) = [request for request in provider.requests if "judged" in str(request.body) or "judge_reply" in str(request.body)]
    (leaf,) = [leaf for leaf in books.leaves if leaf.attributes.get(names.CALL_KIND) == "judge"]
    (route,) = books.routes
    assert (entry.usage.input, entry.usage.output, entry.usage.source) == (asked.usage.uncached, asked.usage.output, "reported")
    assert (entry.cost, entry.simulated) == (PRICES.card(entry.model).cost(entry.usage), True)
    assert (leaf.attributes[names.COST_PICO], leaf.parent.span_id) == (entry.cost.total_pico, route.context.span_id)
    assert leaf.attributes[names.INPUT_TOKENS] == entry.usage.prompt


# ---- the bill ---------------------------------------------------------------------------------------------------------


def test_the_step_costs_its_attempts_and_its_judge(provider: embedded.Provider) -> None:
    books = Books(judged())

    reply = model(books.router).invoke(EASY)

    costs = [entry.cost.total_pico for entry in books.entries]
    (route,) = books.routes
    assert (len(costs), cost_of(reply).cost_pico, books.ledger.total().cost_pico) == (3, sum(costs), sum(costs))
    assert route.attributes[names.ROLLUP_COST] == pytest.approx(sum(costs) / 1e12)
    assert (books.ledger.total().attempts, books.ledger.total(kind="judge").cost_pico) == (2, sum(costs) - costs_of(books, "attempt"))


def costs_of(books: Books, kind: str) -> int:
    return sum(entry.cost.total_pico for entry in books.entries if entry.kind == kind)


def test_its_cost_comes_off_the_saving(provider: embedded.Provider) -> None:
    plain, costly = Books(Policy.default(tiers=GPT)), Books(judged(GPT, f"openai:{LUNA}"))

    for books in (plain, costly):
        model(books.router).invoke(EASY)

    assert costly.ledger.total().saving_pico == plain.ledger.total().saving_pico - costs_of(costly, "judge")


def test_a_rejection_pins_the_turn_and_its_reason_is_recorded(provider: embedded.Provider) -> None:
    books = Books(judged())

    reply = model(books.router).invoke(EASY)

    (rejected,) = [entry for entry in books.entries if entry.outcome == "rejected"]
    stamp = reply.response_metadata["routed_agents"]
    assert ("check:judged_wrong" in rejected.codes, stamp["rejected"], stamp["pin"]) == (True, ["judged_wrong"], "turn")


def test_an_equal_reply_to_an_equal_step_is_not_judged_twice(provider: embedded.Provider) -> None:
    books = Books(judged())
    routed = model(books.router)

    for _ in range(3):
        routed.invoke(EASY)

    assert (len([e for e in books.entries if e.kind == "judge"]), [e.tier for e in books.entries].count("strong")) == (1, 3)


# ---- where nobody is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "config"),
    [
        (judged, {"metadata": {"task_class": "agentic_chain"}}),
        (judged, {"metadata": {"routed_agents": {"tier": "strong"}}}),
        (lambda: judged(task_classes=("extraction",)), {}),
        (lambda: judged(share=1e-9), {}),
        (lambda: judged().replace(mode="shadow"), {}),
        (lambda: judged().replace(mode="off"), {}),
    ],
    ids=["a pinned step", "a forced tier", "another class", "not drawn", "shadow", "off"],
)
def test_nobody_is_asked_about(policy: Callable[[], Policy], config: Any, provider: embedded.Provider) -> None:
    books = Books(policy())

    model(books.router).invoke(EASY, config)

    assert [entry.kind for entry in books.entries] == ["attempt"]


def test_nobody_is_asked_about_words_a_reader_has_seen(provider: embedded.Provider) -> None:
    books = Books(judged())

    text = messages_of(list(model(books.router).stream(EASY)))

    assert (text, story(books.entries)) == ("negative", [("cheap", "attempt", "accepted")])


def test_nobody_is_asked_about_a_reply_another_check_rejects(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("refusal", model=HAIKU))

    model(books.router).invoke(EASY)

    assert story(books.entries) == [("cheap", "attempt", "rejected"), ("strong", "attempt", "accepted")]


def test_without_a_judge_nothing_is_asked(provider: embedded.Provider) -> None:
    books = Books(Policy.default(tiers=CLAUDE))

    model(books.router).invoke(EASY)

    assert (len(provider.requests), [entry.kind for entry in books.entries]) == (1, ["attempt"])


def test_the_drawn_share_is_the_same_in_every_run() -> None:
    judge = Judge(model="anthropic:x", task_classes=("classification",), share=0.25)

    drawn = [judge.wants(Step.from_messages("x", id=f"s{n}"), task_class="classification", tier="cheap") for n in range(4_000)]

    assert ([number for number in range(12) if drawn[number]], 900 < sum(drawn) < 1_100) == ([6, 10], True)


# ---- a judge that fails -----------------------------------------------------------------------------------------------

FAILURES = {
    "overloaded": (Fault("overloaded", model=LUNA), "overloaded", 0),
    "rate_limit": (Fault("rate_limit", model=LUNA, retry_after_s=60), "rate_limit", 0),
    "server_error": (Fault("server_error", model=LUNA), "server_error", 0),
    "timeout": (Fault("timeout", model=LUNA, after_s=1.5), "timeout", None),
    "nonsense": (Fault("max_tokens", model=LUNA), "nonsense", None),
    "silence": (Fault("empty_reply", model=LUNA), "nonsense", None),
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_judge_that_fails_is_counted_and_the_reply_stands(name: str, asynchronous: bool, provider: embedded.Provider) -> None:
    fault, error, cost = FAILURES[name]
    books = Books(judged(timeout_s=0.5))
    provider.faults.add(fault)
    routed = model(books.router)

    began = time.monotonic()
    reply = LOOP.run_until_complete(routed.ainvoke(EASY)) if asynchronous else routed.invoke(EASY)
    took_s = time.monotonic() - began

    (entry,) = [entry for entry in books.entries if entry.kind == "judge"]
    assert (reply.text, entry.outcome, entry.error) == ("negative", "failed", error)
    assert (entry.cost.total_pico == 0) is (cost == 0)
    assert (books.counted("routed_agents.judgements"), took_s < 1.4) == (1, True)
    assert story(books.entries) == [("cheap", "attempt", "accepted"), ("judge", "judge", "failed")]


def test_a_judge_in_trouble_rests_and_its_tier_does_not(provider: embedded.Provider) -> None:
    books = Books(judged(GPT))
    provider.faults.add(Fault("overloaded", model=LUNA, contains="judge_reply", times=3))
    routed = model(books.router)

    for number in range(5):
        routed.invoke(f"Classify ticket {number} as open or closed: the parcel is late")

    kinds = [(entry.kind, entry.outcome) for entry in books.entries]
    assert (kinds.count(("judge", "failed")), kinds.count(("judge", "accepted")), kinds.count(("attempt", "accepted"))) == (3, 0, 5)
    assert (books.counted("routed_agents.judgements"), {entry.tier for entry in books.entries}) == (5, {"cheap", "judge"})


def test_a_cancelled_call_leaves_the_judges_tokens_on_the_books(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("timeout", model=LUNA, after_s=1.0))

    async def run() -> None:
        task = asyncio.ensure_future(model(books.router).ainvoke(EASY))
        while not any(request.model == LUNA for request in provider.requests):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    LOOP.run_until_complete(run())

    by_kind = {entry.kind: (entry.outcome, entry.usage.source) for entry in books.entries}
    assert by_kind == {"judge": ("abandoned", "estimated"), "attempt": ("abandoned", "reported")}
    assert (len(books.leaves), len(books.routes)) == (2, 1)


def test_in_an_event_loop_recording_asks_nobody_and_says_so(provider: embedded.Provider, caplog: pytest.LogCaptureFixture) -> None:
    books = Books(judged())

    async def run() -> None:
        async with anthropic.AsyncAnthropic() as client, books.router.step(Step.from_messages(EASY)) as call:
            for attempt in call.attempts():
                with attempt:
                    said = [{"role": "user", "content": EASY}]
                    attempt.record(await client.messages.create(model=attempt.model, max_tokens=64, messages=said))

    LOOP.run_until_complete(run())

    assert (story(books.entries), "await attempt.consult(reply)" in caplog.text) == ([("cheap", "attempt", "accepted")], True)


def test_the_event_loop_runs_on_while_a_judge_thinks(provider: embedded.Provider) -> None:
    books = Books(judged())
    provider.faults.add(Fault("timeout", model=LUNA, after_s=0.5))

    async def run() -> tuple[float, str]:
        routed, pauses, last = model(books.router), [0.0], time.monotonic()
        await routed.ainvoke("Classify as open or closed: done", {"metadata": {"task_class": "extraction"}})  # builds the clients
        task = asyncio.ensure_future(routed.ainvoke(EASY))
        last = time.monotonic()
        while not task.done():
            await asyncio.sleep(0.005)
            now = time.monotonic()
            pauses.append(now - last)
            last = now
        return max(pauses), (await task).text

    longest_s, text = LOOP.run_until_complete(run())

    assert (text, longest_s < 0.3) == ("positive", True)


# ---- who asks ---------------------------------------------------------------------------------------------------------


def test_a_chat_model_may_be_asked_and_stays_out_of_the_trace(provider: embedded.Provider) -> None:
    from .conftest import Listener

    name = "bedrock:anthropic.claude-sonnet-4-6-v1:0"
    policy, listener = judged(model=name), Listener()
    asker = ModelAsker({name: ChatAnthropic(model="claude-sonnet-4-6", max_tokens=200, max_retries=0)})
    router = Router(policy, ledger=Ledger.memory(), asker=asker)

    reply = model(router).invoke(EASY, {"callbacks": [listener]})

    assert (reply.text, story(list(router.ledger.entries())), len(listener.started)) == ("positive", UP, 2)
    assert all(entry.cost is not None for entry in router.ledger.entries())


def test_a_judge_nobody_can_ask_is_told_when_the_router_is_made() -> None:
    with pytest.raises(ValueError, match=r'judge "bedrock:some-model" is of provider \'bedrock\'.*ModelAsker'):
        Router(judged(model="bedrock:some-model"))


def test_a_judge_as_dear_as_the_strong_tier_is_told(provider: embedded.Provider, caplog: pytest.LogCaptureFixture) -> None:
    Router(judged(model=f"anthropic:{OPUS}"), ledger=Ledger.memory())

    assert "costs more than it can save" in caplog.text
