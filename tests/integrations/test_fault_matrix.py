"""Every fault, on both wires, in every way of calling, on a cheap and on a pinned step: the right answer, exact books, no leaked word."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.tools import tool

from routed_agents import Policy, RoutedChatModel, StepStopped, embedded
from routed_agents.embedded import Fault
from routed_agents.embedded.faults import EFFECTS
from routed_agents.telemetry import names
from routed_agents.tiers import Deployment, Tiers

from .conftest import FLAWLESS, HARD, LOOP, Books, whole

CHEAP = {"metadata": {"task_class": "classification"}}
"""The config of a call that may be cheap."""
TELL = "Tell me about the French Revolution"
ORDER = "Where is my order A-10423?"
WIRES = {
    "anthropic": ("claude-haiku-4-5", "claude-opus-4-7", {"max_tokens": 512}),
    "chat": ("gpt-4o-mini", "gpt-4o", {"stream_usage": True}),
    "responses": ("gpt-4o-mini", "gpt-4o", {"stream_usage": True, "use_responses_api": True}),
}
HTTP, HANGING, SMALL = ("rate_limit", "overloaded", "server_error"), ("timeout",), ("refusal", "empty_reply")
CLIENT_TIMEOUT_S, HELD_S = 0.4, 0.9


@tool
def get_order(order_id: str) -> str:
    """Look up an order."""
    return "shipped"


@pytest.fixture(scope="module")
def served() -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS, strict=True) as running:
        yield running


@dataclass(frozen=True)
class Seen:
    """What came back to the caller."""

    message: Any = None
    error: BaseException | None = None
    chunks: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        shown = (chunk if isinstance(chunk, str) else chunk.text for chunk in self.chunks)
        return self.message.text if self.message is not None else "".join(shown)


def invoke(model: Any, asked: str, config: Any) -> Seen:
    try:
        return Seen(message=model.invoke(asked, config))
    except Exception as error:
        return Seen(error=error)


def ainvoke(model: Any, asked: str, config: Any) -> Seen:
    async def run() -> Seen:
        try:
            return Seen(message=await model.ainvoke(asked, config))
        except Exception as error:
            return Seen(error=error)

    return LOOP.run_until_complete(run())


def stream(model: Any, asked: str, config: Any) -> Seen:
    chunks: list[Any] = []
    try:
        for chunk in model.stream(asked, config):
            chunks.append(chunk)  # noqa: PERF402 what came before an error counts
    except Exception as error:
        return Seen(error=error, chunks=tuple(chunks))
    return Seen(message=whole(chunks), chunks=tuple(chunks))


def astream(model: Any, asked: str, config: Any) -> Seen:
    async def run() -> Seen:
        chunks: list[Any] = []
        try:
            async for chunk in model.astream(asked, config):
                chunks.append(chunk)  # noqa: PERF401 what came before an error counts
        except Exception as error:
            return Seen(error=error, chunks=tuple(chunks))
        return Seen(message=whole(chunks), chunks=tuple(chunks))

    return LOOP.run_until_complete(run())


def event_stream(model: Any, asked: str, config: Any) -> Seen:
    words: list[str] = []
    try:
        events = model.stream_events(asked, config, version="v3")
        for word in events.text:
            words.append(word)  # noqa: PERF402 what came before an error counts
        return Seen(message=events.output, chunks=tuple(words))
    except Exception as error:
        return Seen(error=error, chunks=tuple(words))


def event_astream(model: Any, asked: str, config: Any) -> Seen:
    async def run() -> Seen:
        words: list[str] = []
        try:
            events = await model.astream_events(asked, config, version="v3")
            async for word in events.text:
                words.append(word)  # noqa: PERF401 what came before an error counts
            return Seen(message=await events.output, chunks=tuple(words))
        except Exception as error:
            return Seen(error=error, chunks=tuple(words))

    return LOOP.run_until_complete(run())


WAYS: dict[str, Callable[[Any, str, Any], Seen]] = {
    "invoke": invoke,
    "ainvoke": ainvoke,
    "stream": stream,
    "astream": astream,
    "event_stream": event_stream,
    "event_astream": event_astream,
}
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


class World:
    """A routed model over one wire, with one or two deployments of the strong tier, and its books."""

    def __init__(self, wire: str, *, strong: int = 1, buffer: bool = False, timeout: float = 20.0) -> None:
        cheap, top, options = WIRES[wire]
        provider = "anthropic" if wire == "anthropic" else "openai"
        several = [Deployment(model=top, provider=provider, name=f"strong-{number}") for number in range(strong)]
        tiers = Tiers.of({"cheap": Deployment(model=cheap, provider=provider, name="cheap-0"), "strong": several})
        self.cheap, self.top = cheap, top
        self.books = Books(Policy.default(tiers=tiers))
        options = {**options, "max_retries": 0, "timeout": timeout}
        self.model = RoutedChatModel(router=self.books.router, options=options, buffer=buffer)

    def check(self, provider: embedded.Provider, *, reached: int | None = None) -> None:
        """The laws of the books: spans closed, one entry and leaf per attempt, sums exact, no attempt below its floor."""
        entries, leaves, routes = self.books.entries, self.books.leaves, self.books.routes
        assert len(leaves) == len(entries) == len(provider.requests if reached is None else range(reached))
        assert len(routes) == 1
        assert [entry.attempt for entry in entries] == list(range(1, len(entries) + 1))
        spent = sum(leaf.attributes.get(names.COST_PICO, 0) for leaf in leaves)
        assert spent == sum(entry.cost.total_pico for entry in entries if entry.cost is not None)
        assert all((names.COST_PICO in leaf.attributes) == (entry.cost is not None) for leaf, entry in zip(leaves, entries, strict=True))
        assert all(leaf.parent is not None and leaf.parent.span_id == routes[0].context.span_id for leaf in leaves)


def planned(kind: str, model: str, *, times: int = 1) -> Fault:
    after = {"timeout": HELD_S, "slow_loris": 0.002}.get(kind)
    return Fault(kind, model=model, after_s=after, times=times)


def limit_of(kind: str) -> float:
    return CLIENT_TIMEOUT_S if kind == "timeout" else 20.0


# ---- a cheap step escalates, or goes up --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", [*HTTP, *HANGING])
def test_a_cheap_step_that_fails_goes_up_and_is_answered(kind, wire, way, provider):
    world = World(wire, timeout=limit_of(kind))
    provider.faults.add(planned(kind, world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    assert (seen.error, world.books.story) == (None, [("cheap", "failed"), ("strong", "accepted")])
    assert "French Revolution" in seen.text
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", SMALL)
def test_a_poor_cheap_reply_without_a_word_escalates(kind, wire, way, provider):
    world = World(wire)
    provider.faults.add(planned(kind, world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    assert (seen.error, world.books.story) == (None, [("cheap", "rejected"), ("strong", "accepted")])
    assert "French Revolution" in seen.text
    world.check(provider)


@pytest.mark.parametrize("buffer", [False, True], ids=["open", "buffered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_truncated_cheap_reply_escalates_unless_its_words_were_shown(wire, way, buffer, provider):
    world = World(wire, buffer=buffer)
    provider.faults.add(planned("max_tokens", world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    shown = "stream" in way and not buffer
    assert world.books.story == ([("cheap", "accepted")] if shown else [("cheap", "rejected"), ("strong", "accepted")])
    assert seen.text.endswith("conversation.") == (not shown)
    assert seen.text.count("You asked") == 1  # nothing of the draft before the answer
    world.check(provider)


@pytest.mark.parametrize("buffer", [False, True], ids=["open", "buffered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_malformed_call_escalates_unless_it_was_shown(wire, way, buffer, provider):
    world = World(wire, buffer=buffer)
    provider.faults.add(planned("malformed_tool_call", world.cheap))
    seen = WAYS[way](world.model.bind_tools([get_order]), ORDER, CHEAP)
    shown = "stream" in way and not buffer
    assert world.books.story == ([("cheap", "accepted")] if shown else [("cheap", "rejected"), ("strong", "accepted")])
    if not shown:
        assert (seen.message.invalid_tool_calls, seen.message.tool_calls[0]["args"]) == ([], {"order_id": "A-10423"})
    world.check(provider)


@pytest.mark.parametrize("buffer", [False, True], ids=["open", "buffered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_cut_reply_goes_up_unless_its_words_were_shown(wire, way, buffer, provider):
    world = World(wire, buffer=buffer)
    provider.faults.add(planned("cut_stream", world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    shown = "stream" in way and not buffer
    if shown:
        assert seen.error is not None
        assert world.books.story == [("cheap", "failed")]
        assert seen.text
        assert world.books.entries[0].usage.source == "estimated"
    else:
        assert (seen.error, world.books.story) == (None, [("cheap", "failed"), ("strong", "accepted")])
        assert seen.text.count("You asked") == 1
    world.check(provider)


@pytest.mark.parametrize("buffer", [False, True], ids=["open", "buffered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_an_error_in_the_middle_of_a_reply_goes_up_unless_its_words_were_shown(wire, way, buffer, provider):
    world = World(wire, buffer=buffer)
    provider.faults.add(planned("stream_error", world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    if "stream" in way and not buffer:
        assert seen.error is not None
        assert seen.text
        assert world.books.story == [("cheap", "failed")]
        assert world.books.entries[0].usage.source == "estimated"
    else:
        assert (seen.error, world.books.story) == (None, [("cheap", "failed"), ("strong", "accepted")])
        assert seen.text.count("You asked") == 1
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_pinned_steps_buffered_stream_that_breaks_goes_to_its_rank(wire, way, provider):
    world = World(wire, strong=2, buffer=True)
    provider.faults.add(planned("stream_error", world.top))
    seen = WAYS[way](world.model, TELL, HARD)
    assert (seen.error, world.books.story) == (None, [("strong", "failed"), ("strong", "accepted")])
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_slow_reply_is_a_reply(wire, way, provider):
    world = World(wire)
    provider.faults.add(planned("slow_loris", world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    assert (seen.error, world.books.story) == (None, [("cheap", "accepted")])
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_another_models_reply_to_a_cheap_step_stands_and_is_unpriced(wire, way, provider):
    world = World(wire)
    provider.faults.add(planned("wrong_model", world.cheap))
    seen = WAYS[way](world.model, TELL, CHEAP)
    assert (seen.error, world.books.story) == (None, [("cheap", "accepted")])
    assert (world.books.entries[0].served_model, world.books.entries[0].cost) == ("another-model-sim", None)
    world.check(provider)


def test_the_matrix_knows_every_fault():
    shaped = {"max_tokens", "malformed_tool_call", "cut_stream", "stream_error", "slow_loris", "wrong_model"}
    assert set(EFFECTS) == {*HTTP, *HANGING, *SMALL} | shaped


# ---- a pinned step stays on its rank -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", [*HTTP, *HANGING])
def test_a_pinned_step_goes_to_another_deployment_of_its_rank(kind, wire, way, provider):
    world = World(wire, strong=2, timeout=limit_of(kind))
    provider.faults.add(planned(kind, world.top))
    seen = WAYS[way](world.model, TELL, HARD)
    assert (seen.error, world.books.story) == (None, [("strong", "failed"), ("strong", "accepted")])
    assert [entry.deployment for entry in world.books.entries] == ["strong-0", "strong-1"]
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", [*HTTP, *HANGING, "cut_stream"])
def test_a_pinned_step_with_nobody_left_ends_in_the_providers_error(kind, wire, way, provider):
    world = World(wire, timeout=limit_of(kind))
    provider.faults.add(planned(kind, world.top, times=3))
    seen = WAYS[way](world.model, TELL, HARD)
    assert seen.error is not None
    assert not isinstance(seen.error, StepStopped)
    assert world.books.story == [("strong", "failed")]
    assert any("must not go below tier strong" in note for note in getattr(seen.error, "__notes__", ()))
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", [*SMALL, "max_tokens"])
def test_a_poor_reply_of_the_top_tier_is_given_and_noted(kind, wire, way, provider):
    world = World(wire, strong=2)
    provider.faults.add(planned(kind, world.top))
    seen = WAYS[way](world.model, TELL, HARD)
    code = {"refusal": "check:refusal", "empty_reply": "check:empty", "max_tokens": "check:truncated"}[kind]
    assert (seen.error, world.books.story) == (None, [("strong", "accepted")])
    assert code in world.books.entries[0].codes
    world.check(provider)


def shown_before_known(wire: str, way: str, *, buffer: bool) -> bool:
    """OpenAI's formats say who answers only at a stream's end (in LangChain), when an open stream has shown its words."""
    return wire != "anthropic" and "stream" in way and not buffer


@pytest.mark.parametrize("buffer", [False, True], ids=["open", "buffered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_lower_models_reply_to_a_pinned_step_is_replaced_by_its_rank_or_refused(wire, way, buffer, provider):
    world = World(wire, strong=2, buffer=buffer)
    provider.faults.add(Fault("wrong_model", model=world.top, served=world.cheap))
    seen = WAYS[way](world.model, TELL, HARD)
    if shown_before_known(wire, way, buffer=buffer):
        assert isinstance(seen.error, StepStopped)
        assert world.books.story == [("strong", "rejected")]
    else:
        assert (seen.error, world.books.story) == (None, [("strong", "rejected"), ("strong", "accepted")])
        assert seen.text.count("You asked") == 1
    assert "check:served_model_below_floor" in world.books.entries[0].codes
    world.check(provider)


@pytest.mark.parametrize("buffer", [False, True], ids=["open", "buffered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_lower_models_reply_to_a_pinned_step_stops_it_when_nobody_is_left(wire, way, buffer, provider):
    world = World(wire, buffer=buffer)
    provider.faults.add(Fault("wrong_model", model=world.top, served=world.cheap))
    seen = WAYS[way](world.model, TELL, HARD)
    assert isinstance(seen.error, StepStopped)
    assert world.books.story == [("strong", "rejected")]
    assert (seen.text == "") == (not shown_before_known(wire, way, buffer=buffer))
    world.check(provider)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", ["slow_loris", "malformed_tool_call"])
def test_a_pinned_step_takes_what_the_top_tier_gives(kind, wire, way, provider):
    world = World(wire)
    provider.faults.add(planned(kind, world.top))
    asked = world.model.bind_tools([get_order]) if kind == "malformed_tool_call" else world.model
    seen = WAYS[way](asked, ORDER, HARD)
    assert (seen.error, world.books.story) == (None, [("strong", "accepted")])
    world.check(provider)


# ---- given up by the caller --------------------------------------------------------------------------------------------


def left(world: World, tier: str, provider: embedded.Provider) -> None:
    """The books of a call its caller gave up: closed, and with the tokens that were spent."""
    [entry] = world.books.entries
    assert (entry.tier, entry.outcome, entry.usage.source) == (tier, "abandoned", "estimated")
    assert entry.usage.prompt > 0
    assert entry.cost is not None
    world.check(provider)


STEPS = {"cheap": CHEAP, "strong": HARD}


@pytest.mark.parametrize("tier", STEPS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_a_stream_its_reader_leaves_is_booked(end, wire, tier, provider):
    world = World(wire)
    chunks = world.model.stream(TELL, STEPS[tier])
    next(chunks)
    if end == "closed":
        chunks.close()
    del chunks
    gc.collect()
    left(world, tier, provider)


@pytest.mark.parametrize("tier", STEPS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_an_async_stream_its_reader_leaves_is_booked(end, wire, tier, provider):
    world = World(wire)

    async def run() -> None:
        chunks = world.model.astream(TELL, STEPS[tier])
        await anext(chunks)
        if end == "closed":
            await chunks.aclose()
        del chunks
        gc.collect()
        await asyncio.sleep(0.05)  # the loop closes a dropped generator in a task of its own

    LOOP.run_until_complete(run())
    left(world, tier, provider)


@pytest.mark.parametrize("tier", STEPS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("way", ["ainvoke", "astream"])
def test_a_cancelled_task_is_booked(way, wire, tier, provider):
    world = World(wire)
    model = world.cheap if tier == "cheap" else world.top
    provider.faults.add(Fault("slow_loris", model=model, after_s=0.1))

    async def drain() -> None:
        async for _ in world.model.astream(TELL, STEPS[tier]):
            pass

    async def run() -> None:
        call = world.model.ainvoke(TELL, STEPS[tier]) if way == "ainvoke" else drain()
        task = asyncio.create_task(call)
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    LOOP.run_until_complete(run())
    left(world, tier, provider)


def test_a_cancelled_step_never_tries_another_deployment(provider):
    world = World("anthropic", strong=2)
    provider.faults.add(Fault("timeout", model=world.top, after_s=0.5))

    async def run() -> None:
        task = asyncio.create_task(world.model.ainvoke(TELL, HARD))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    LOOP.run_until_complete(run())
    [entry] = world.books.entries
    assert (entry.deployment, entry.outcome, entry.usage.source) == ("strong-0", "abandoned", "estimated")
