"""The router: attempts and their order, labels, modes, and that our own trouble never breaks a call."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.exceptions import ModelTimeoutError
from langchain_core.messages import AIMessage
from opentelemetry import metrics, trace

from routed_agents.economics import tokenizer_factor
from routed_agents.errors import ConfigurationError, LedgerError, PolicyError, StepError, StepStopped
from routed_agents.guards import Conditions, PolicyFloor, Verdict, named
from routed_agents.ledger import Ledger, cost_of
from routed_agents.policy import Policy
from routed_agents.pricing import Cost, Prices, Usage
from routed_agents.router import RoutedCall, Router, decision_of, labels_from_context, labels_from_tags
from routed_agents.state import EMPTY, MemoryStateStore, ThreadState, thread_facts
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry
from routed_agents.testing import check_price_source
from routed_agents.tiers import Deployment, Tier, Tiers

PRICES = Prices()
TWO_PLACES = Tiers.of(
    {
        "cheap": ["anthropic:claude-haiku-5-5", "bedrock:claude-haiku-5-5"],
        "mid": "anthropic:claude-sonnet-5-5",
        "strong": ["anthropic:claude-opus-5-5", "bedrock:claude-opus-5-5"],
    }
)
POLICY = Policy(tiers=TWO_PLACES)
HAIKU, HAIKU_B, SONNET, OPUS, OPUS_B = [each.name for tier in TWO_PLACES for each in tier.deployments]


class ProviderError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code


def router(policy: Policy = POLICY, **parts: Any) -> Router:
    return Router(policy, **{"prices": PRICES, "telemetry": Telemetry.off(), **parts})


def reply(model: str, *, stop: str = "end_turn", text: str = "yes") -> dict[str, Any]:
    content = [{"type": "text", "text": text}] if text else []
    return {
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        "usage": {"input_tokens": 100, "output_tokens": 10},
    }


@pytest.mark.parametrize("given", ["hi", 5, None])
def test_what_is_no_step_is_named(given: Any) -> None:
    for take in (router().step, POLICY.decide):
        with pytest.raises(StepError, match=f"step is {type(given).__name__}; wanted a Step"):
            take(given)


def test_labels_that_are_no_mapping_are_named() -> None:
    with pytest.raises(ConfigurationError, match="labels is str; wanted a mapping"):
        router().step(Step.from_messages("hi"), labels="x")  # pyright: ignore[reportArgumentType]


def step(task_class: str = "classification", **more: Any) -> Step:
    return Step.from_messages("x", task_class=task_class, **more)


def run(call: RoutedCall, *script: Any) -> list[str]:
    """Make the attempts, one entry of the script each: a status to fail with, words to answer with, or a reply; then answer well."""
    made: list[str] = []
    outcomes = iter(script)
    with call:
        for attempt in call.attempts():
            made.append(attempt.deployment.name)
            with attempt:
                match next(outcomes, "end_turn"):
                    case int(status):
                        raise ProviderError(status)
                    case BaseException() as error:
                        raise error
                    case str(stop):
                        attempt.record(reply(attempt.model, stop=stop))
                    case answer:
                        attempt.record(answer)
    return made


def outcomes(call: RoutedCall) -> list[str]:
    return [entry.outcome for entry in call.entries]


# ---- the way of the attempts


@pytest.mark.parametrize(
    ("task_class", "script", "made"),
    [
        ("classification", (), [HAIKU]),
        ("classification", ("max_tokens",), [HAIKU, SONNET]),
        ("classification", ("max_tokens", "refusal"), [HAIKU, SONNET, OPUS]),
        ("classification", ("max_tokens", "max_tokens", "max_tokens"), [HAIKU, SONNET, OPUS]),
        ("classification", (529,), [HAIKU, HAIKU_B]),
        ("classification", (429, 503), [HAIKU, HAIKU_B, SONNET]),
        ("classification", (529, 529, 529), [HAIKU, HAIKU_B, SONNET, OPUS]),
        ("classification", (529, "max_tokens", 529), [HAIKU, HAIKU_B, SONNET, OPUS]),
        ("classification", (413,), [HAIKU, SONNET]),
        ("agentic_chain", (), [OPUS]),
        ("agentic_chain", ("max_tokens",), [OPUS]),
        ("agentic_chain", (529,), [OPUS, OPUS_B]),
    ],
)
def test_where_the_attempts_go(task_class: str, script: tuple[Any, ...], made: list[str]) -> None:
    assert run(router().step(step(task_class)), *script) == made


def test_a_rejected_reply_is_noted_and_the_better_one_handed_out() -> None:
    call = router().step(step())

    run(call, "max_tokens")

    assert (outcomes(call), call.entries[1].escalated_from, call.decision.tier) == (["rejected", "accepted"], "cheap", "mid")


def test_at_the_top_a_poor_reply_stands() -> None:
    call = router().step(step("agentic_chain"))

    run(call, "max_tokens")

    assert (outcomes(call), "check:truncated" in call.entries[0].codes) == (["accepted"], True)


def test_an_escalation_pins_the_turn_of_its_thread() -> None:
    seen = router()
    messages = [{"role": "user", "content": "x", "id": "h"}]

    run(seen.step(Step.from_messages(messages, task_class="classification"), thread="t"), "max_tokens")

    assert seen.decide(Step.from_messages(messages, task_class="classification"), thread="t").tier == "mid"


def test_when_every_place_of_a_floored_step_is_down_the_providers_error_surfaces_with_our_note() -> None:
    call = router().step(step("agentic_chain"))

    with pytest.raises(ProviderError) as error:
        run(call, 529, 529)

    assert (outcomes(call), "must not go below tier strong" in error.value.__notes__[0]) == (["failed", "failed"], True)


def test_the_callers_own_error_passes_through_untouched() -> None:
    call = router().step(step())

    with pytest.raises(ZeroDivisionError) as error:
        run(call, ZeroDivisionError("mine"))

    assert (outcomes(call), getattr(error.value, "__notes__", [])) == (["failed"], [])


def test_a_cancelled_call_is_abandoned_and_kept_in_the_books() -> None:
    call = router().step(step(tokens=50))

    with pytest.raises(asyncio.CancelledError):
        run(call, asyncio.CancelledError())

    assert (outcomes(call), call.entries[0].usage) == (["abandoned"], Usage(input=50, source="estimated"))


def test_an_attempt_nobody_used_is_an_error() -> None:
    with router().step(step()) as call, pytest.raises(ConfigurationError, match="with attempt"):
        for _ in call.attempts():
            pass


async def test_the_same_way_with_async() -> None:
    async with router().step(step()) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(reply(attempt.model))

    assert outcomes(call) == ["accepted"]


def test_once_words_have_reached_the_reader_no_other_attempt_follows() -> None:
    with router().step(step()) as call:
        attempts = call.attempts()
        with suppress(ProviderError), next(attempts) as attempt:
            attempt.commit()
            raise ProviderError(529)

    assert (next(attempts, None), outcomes(call)) == (None, ["failed"])


# ---- a lower model that answered after all


def test_a_floored_step_answered_by_a_lower_model_tries_another_place() -> None:
    assert run(router().step(step("agentic_chain")), reply("claude-haiku-5-5")) == [OPUS, OPUS_B]


def test_a_floored_step_that_only_lower_models_answer_stops_with_an_alarm() -> None:
    call = router().step(step("agentic_chain"))

    with pytest.raises(StepStopped, match="served model below floor"):
        run(call, reply("claude-haiku-5-5"), reply("claude-sonnet-5-5"))

    assert (outcomes(call), len(call.alarms)) == (["rejected", "rejected"], 2)


@pytest.mark.parametrize("strong", ["openrouter:anthropic/claude-opus-4.7", "together:meta-llama/Llama-3.3-70B-Instruct-Turbo"])
@pytest.mark.parametrize("served", ["gpt-4o-mini", "openai/gpt-4o-mini"])
def test_a_floored_step_that_a_gateway_gives_a_cheaper_foreign_model_stops(strong: str, served: str) -> None:
    call = router(Policy(tiers=Tiers.of({"cheap": HAIKU, "strong": strong})), prices=Prices()).step(step("agentic_chain"))

    with pytest.raises(StepStopped, match="served model below floor"):
        run(call, reply(served))

    assert (outcomes(call), len(call.alarms)) == (["rejected"], 1)


@pytest.mark.parametrize("served", ["claude-opus-5-5-20260922", "a model of nobody's"])
def test_the_own_model_under_a_dated_id_or_an_unknown_one_raises_no_alarm(served: str) -> None:
    assert run(router().step(step("agentic_chain")), reply(served)) == [OPUS]


def test_the_price_follows_the_model_that_answered() -> None:
    call = router().step(step())

    run(call, reply("claude-opus-5-5"))

    assert call.entries[0].cost == PRICES.price("claude-opus-5-5", Usage(input=100, output=10))


# ---- stops and modes


@named("never", version="1")
def never(seen: object) -> Verdict:
    return Verdict(guard="never", code="stall", stop=True)


def test_a_stop_says_what_was_seen_wanted_and_to_do() -> None:
    call = router().step(step("agentic_chain", id="s9"), conditions=Conditions(unavailable=frozenset({"strong"})))

    with pytest.raises(StepStopped) as stop:
        run(call)

    assert str(stop.value) == (
        "step s9 (agentic_chain) stopped, no eligible tier: it must not go below tier strong (agentic chain). "
        "Make a deployment of that tier available, or set on_stop to hand the step off"
    )


@pytest.mark.parametrize("mode", ["shadow", "off"])
@pytest.mark.parametrize("guards", [POLICY.guards, (never,)], ids=["shipped", "stop"])
def test_shadow_and_off_act_on_the_top_and_never_stop(mode: str, guards: Any) -> None:
    assert run(router(POLICY.replace(mode=mode, guards=guards)).step(step())) == [OPUS]


def test_shadow_records_what_would_have_been() -> None:
    call = router(POLICY.replace(mode="shadow")).step(step())

    run(call)

    assert (call.entries[0].tier, call.entries[0].decided_tier, call.entries[0].mode, call.stamp()["tier"]) == (
        "strong",
        "cheap",
        "shadow",
        "cheap",
    )


def test_shadow_fails_over_but_never_escalates() -> None:
    shadow = router(POLICY.replace(mode="shadow"))

    assert [run(shadow.step(step()), 529), run(shadow.step(step()), "max_tokens")] == [[OPUS, OPUS_B], [OPUS]]


# ---- thread, labels, stamps


def test_pins_and_facts_are_kept_per_thread() -> None:
    seen = router()
    run(seen.step(Step.from_messages("my husband died", task_class="multi_turn"), thread="a"))

    assert [seen.decide(step("rag_lookup"), thread=thread).tier for thread in ("a", "b", None)] == ["strong", "cheap", "cheap"]


def test_a_given_state_counts_beside_the_stores() -> None:
    with router().step(step("rag_lookup"), state=ThreadState(facts=frozenset({"distress"}))) as call:
        assert call.decision.tier == "strong"


def test_deciding_alone_leaves_no_trace() -> None:
    seen = router()

    seen.decide(Step.from_messages("my husband died", task_class="multi_turn"), thread="t")

    assert (seen.state_of("t"), seen.ledger.total().attempts) == (EMPTY, 0)


def test_labels_come_from_metadata_and_from_the_call_which_wins() -> None:
    call = router().step(step(metadata={"tenant": "acme", "team": 7, "secret": "x", "agent": ["no"]}), labels={"tenant": "globex"})

    run(call)

    assert dict(call.entries[0].labels) == {"tenant": "globex", "team": "7"}


@pytest.mark.parametrize(
    ("metadata", "labels", "floored"),
    [
        ({"tenant": "basic"}, {"tenant": "vip"}, True),
        ({"tenant": "vip"}, {"tenant": "basic"}, True),
        ({"tenant": "basic"}, {"tenant": "plain"}, False),
        ({"tenant": "vip"}, {"team": "blue"}, True),
        ({"vulnerable": True}, {"vulnerable": "no"}, True),
        ({"case": 7}, {"case": "7"}, True),
    ],
)
def test_a_floor_sees_the_label_beside_the_metadata(metadata: dict[str, Any], labels: dict[str, str], floored: bool) -> None:
    asked = (("tenant", "vip"),) if "tenant" in metadata else tuple(metadata.items())
    policy = POLICY.replace(floors=[PolicyFloor(tier="strong", metadata=asked)])

    with router(policy).step(step(metadata=metadata), labels=labels) as call:
        assert (call.decision.tier == "strong") is floored


def test_a_label_is_no_wish_for_a_tier() -> None:
    with router().step(step("debug_refactor", metadata={"routed_agents": {"tier": "strong"}}), labels={"routed_agents": "cheap"}) as call:
        assert call.decision.tier == "strong"


def test_labels_from_tags_need_an_allowed_key_and_a_value() -> None:
    assert labels_from_tags(("tenant",), ["tenant:acme", "seq:step:1", "tenant", "tenant:"]) == {"tenant": "acme"}


@pytest.mark.parametrize(
    "context", [{"tenant": "acme", "x": 1}, type("Context", (), {"tenant": "acme"})(), {"tenant": "acme", "team": None}]
)
def test_labels_from_a_runs_context(context: object) -> None:
    assert labels_from_context(("tenant", "team"), context) == {"tenant": "acme"}


class Tenant(Enum):
    ACME = "acme"


TEXT: Any = Enum("Text", {"VIP": "vip"}, type=str)
LABELS = [(Tenant.ACME, "acme"), (TEXT.VIP, "vip"), (True, "True"), (3, "3"), (UUID(int=1), str(UUID(int=1)))]


@pytest.mark.parametrize(("value", "text"), LABELS)
def test_a_label_is_what_its_value_says_wherever_it_was_given(value: Any, text: str) -> None:
    given = router().step(step(), labels={"tenant": value})
    metadata = router().step(step(metadata={"tenant": value}))

    assert (given.labels, metadata.labels, labels_from_context(("tenant",), {"tenant": value})) == ({"tenant": text},) * 3


def test_a_decision_without_a_call_sees_labels_too() -> None:
    policy = POLICY.replace(floors=[PolicyFloor(tier="strong", metadata=(("team", "legal"),))])

    assert router(policy).decide(step(), labels={"team": "legal"}).tier == "strong"


def test_a_run_without_a_context_has_no_labels() -> None:
    assert labels_from_context(("tenant",), None) == {}


def test_a_stamp_is_plain_and_holds_decision_and_cost() -> None:
    call = router().step(step(id="s1", node="triage", run="r"), thread="t")
    run(call, "max_tokens")

    stamp = call.stamp()

    cost = sum(entry.cost.total_pico for entry in call.entries if entry.cost)
    wanted = {
        "step": "s1",
        "run": "r",
        "node": "triage",
        "tier": "mid",
        "pin": "turn",
        "attempts": 2,
        "cost_pico": cost,
        "codes": ["escalated"],
    }
    assert {key: stamp[key] for key in wanted} == wanted


def test_the_cost_of_a_stamped_message_is_its_steps() -> None:
    call = router().step(step(), thread="t")
    run(call, "max_tokens")
    message = AIMessage("yes", response_metadata={"routed_agents": call.stamp()})

    assert cost_of([message]).cost_pico == cost_of(None, ledger=call.router.ledger, thread="t").cost_pico > 0


def test_the_decision_of_a_message() -> None:
    assert [decision_of(AIMessage("x", response_metadata={"routed_agents": {"tier": "cheap"}})), decision_of(AIMessage("x"))] == [
        {"tier": "cheap"},
        None,
    ]


def test_a_clock_that_is_set_back_leaves_a_call_as_long_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time_ns()
    with router().step(Step.from_messages("x", task_class="classification")) as call:
        for attempt in call.attempts():
            with attempt:
                monkeypatch.setattr(time, "time_ns", lambda: began - 5 * 10**9)
                attempt.first_chunk()
                attempt.record(reply(attempt.model))

    (entry,) = call.entries
    assert began <= entry.started_ns <= (entry.first_chunk_ns or 0) <= entry.ended_ns < began + 5 * 10**9


# ---- watched calls


def test_a_watched_call_takes_no_time_below_nothing_where_the_clock_is_set_back() -> None:
    later = time.time_ns() + 5 * 10**9
    entry = router().watch(model="gpt-4o", reply=reply("gpt-4o"), started_ns=later, first_chunk_ns=later - 4 * 10**9)

    assert later == entry.started_ns <= (entry.first_chunk_ns or 0) <= entry.ended_ns < later + 10**9


@pytest.mark.parametrize(("model", "tier"), [("claude-opus-5-5", "strong"), ("claude-haiku-5-5-20261007", "cheap"), ("gpt-4o", "unrouted")])
def test_a_watched_call_is_priced_and_not_routed(model: str, tier: str) -> None:
    entry = router().watch(model=model, reply=reply(model), started_ns=1)

    assert (entry.tier, entry.outcome, entry.mode, entry.cost) == (
        tier,
        "watched",
        "watch",
        PRICES.price(model, Usage(input=100, output=10)),
    )


# ---- a router from what is at hand


@pytest.mark.parametrize("given", [POLICY, None])
def test_a_router_of_a_policy_or_nothing(given: Policy | None) -> None:
    assert Router.of(given).policy.hash == (given or Policy.default()).hash


def test_a_router_of_a_router_is_itself() -> None:
    seen = router()

    assert Router.of(seen) is seen


@pytest.mark.parametrize("named", ["{}", "sqlite:///{}"])
def test_a_router_from_the_environment(named: str, tmp_path: Path) -> None:
    place = tmp_path / "costs.db"

    environ = {"ROUTED_AGENTS_POLICY": "gpt-4o", "ROUTED_AGENTS_MODE": "shadow", "ROUTED_AGENTS_LEDGER": named.format(place)}
    made = Router.from_env(environ)
    made.ledger.close()

    assert (made.policy.tiers.preset, made.policy.mode, place.exists()) == ("gpt-4o", "shadow", True)


@pytest.mark.parametrize(
    ("environ", "error", "message"),
    [
        ({"ROUTED_AGENTS_MODE": "on"}, ConfigurationError, "ROUTED_AGENTS_MODE is 'on'; known modes: enforce, shadow, off"),
        ({"ROUTED_AGENTS_POLICY": "nobody"}, PolicyError, "known presets"),
        ({"ROUTED_AGENTS_POLICY": "/nowhere/policy.toml"}, PolicyError, "policy.toml"),
        ({"ROUTED_AGENTS_LEDGER": "postgres://here/costs"}, LedgerError, "known places: a path, sqlite:///costs.db, memory:"),
    ],
)
def test_a_wrong_environment_fails_at_once(environ: dict[str, str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Router.from_env(environ)


def test_a_variable_that_nothing_reads_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"ROUTED_AGENTS_MOD": "shadow", "ROUTED_AGENTS_COLOUR": "1", "OTHER": "1"}
    for _ in range(2):
        Router.from_env(environ)

    (said,) = caplog.messages
    assert 'sets ROUTED_AGENTS_COLOUR, ROUTED_AGENTS_MOD (did you mean "ROUTED_AGENTS_MODE"?), which nothing reads; known:' in said


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"task_class": "clasification"},
            'unknown task_class "clasification" declared for a step, which goes to the top as unsure; did you',
        ),
        ({"routed_agents": {"tier": "storng"}}, 'unknown tier "storng" asked for by a step\'s metadata'),
        (
            {"routed_agents": {"teir": "mid"}},
            'metadata (wanted "routed_agents": {"tier": "strong"}), which goes to the top as unsure; known: cheap,',
        ),
    ],
)
def test_what_metadata_asks_for_and_nobody_knows_is_named_once(
    metadata: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = router()
    for _ in range(2):
        with made.step(Step.from_messages("Is it rude?", metadata=metadata)) as call:
            assert call.decision.tier == "strong"

    (said,) = caplog.messages
    assert message in said


@pytest.mark.parametrize("metadata", [{"task_class": "no\nclass " * 20_000}, {"routed_agents": {"tier": "no\ntier " * 20_000}}])
def test_a_long_text_in_place_of_a_name_is_quoted_in_part_and_on_one_line(
    metadata: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with router().step(Step.from_messages("Is it rude?", metadata=metadata)) as call:
        assert call.decision.tier == "strong"

    (said,) = caplog.messages
    assert (len(said) < 500, "\n" in said, '"no\\n' in said, '…"' in said) == (True, False, True, True)


def test_what_a_warning_hints_at_is_worked_out_only_when_it_is_said() -> None:
    made, asked = router(), iter(["; first"])
    for _ in range(2):
        made.warn_once("a name is unknown", lambda: next(asked))


def test_the_environment_may_keep_the_ledger_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (Router.from_env({"ROUTED_AGENTS_LEDGER": "memory:"}).ledger.steps, list(tmp_path.iterdir())) == (0, [])


def test_replacing_a_part_keeps_the_rest() -> None:
    seen = router()

    changed = seen.replace(policy=Policy.default())

    assert (changed.ledger is seen.ledger, changed.store is seen.store, changed.policy.hash) == (True, True, Policy.default().hash)


def test_replacing_an_unknown_part_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="unknown part of a router: colour; known parts: policy, ledger"):
        router().replace(colour=1)


def test_a_model_without_a_price_is_said_once_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    made = router(Policy(tiers=Tiers.of({"only": "nobody-1"})), prices=Prices())
    made.replace(policy=made.policy.replace(stance="frugal"))

    assert [record.getMessage() for record in caplog.records if "nobody-1" in record.getMessage()] == [
        'no price is known for model "nobody-1": its calls are recorded as unpriced; give one in a price file'
    ]


def test_tiers_that_another_seller_serves_have_a_price_and_a_baseline(caplog: pytest.LogCaptureFixture) -> None:
    tiers = Tiers.of({"cheap": "openrouter:anthropic/claude-haiku-4.5", "strong": "openrouter:anthropic/claude-opus-4.7"})
    call = router(Policy(tiers=tiers), prices=Prices()).step(step())

    run(call, reply("anthropic/claude-haiku-4.5"))

    [entry] = call.entries
    assert (entry.cost, entry.baseline_pico, caplog.records) == (Cost(input=10**8, output=5 * 10**7), 975_000_000, [])


class OneCent:
    """Knows one model's price: a cent per token sent, two per token received."""

    def cost(self, model: str, usage: Usage, /, *, at: datetime) -> Decimal | None:
        return Decimal("0.01") * (usage.prompt + 2 * usage.output) if model == "mine" else None


def test_a_price_source_of_ones_own_prices_the_calls(caplog: pytest.LogCaptureFixture) -> None:
    check_price_source(OneCent(), known="mine")
    call = router(Policy(tiers=Tiers.of({"cheap": "mine", "strong": "nobody-1"})), prices=OneCent()).step(step())

    run(call, reply("mine"))

    [entry] = call.entries
    assert (entry.cost, entry.baseline_pico, entry.price_source) == (Cost(input=10**12, output=2 * 10**11), None, "OneCent")
    assert [record.getMessage() for record in caplog.records] == [
        'no price is known for model "nobody-1": its calls are recorded as unpriced; give one in a price file'
    ]


# ---- our own trouble


class BrokenLedger(Ledger):
    def append(self, entry: Any) -> None:
        raise OSError("disk")


class BrokenStore:
    def load(self, thread: str, /) -> ThreadState:
        raise OSError("down")

    def add(self, thread: str, state: ThreadState, /) -> None:
        raise OSError("down")


class BrokenPrices(Prices):
    def card(self, *args: Any, **named: Any) -> Any:
        raise OSError("no table")


class BrokenTracer(trace.NoOpTracer):
    def start_span(self, *args: Any, **named: Any) -> Any:
        raise RuntimeError("no spans today")


class BrokenTracers(trace.TracerProvider):
    def get_tracer(self, *args: Any, **named: Any) -> trace.Tracer:
        return BrokenTracer()


class BrokenCounter(metrics.NoOpCounter):
    def add(self, *args: Any, **named: Any) -> None:
        raise RuntimeError("no counting today")


class BrokenMeter(metrics.NoOpMeter):
    def create_counter(self, *args: Any, **named: Any) -> metrics.Counter:
        return BrokenCounter("broken")


class BrokenMeters(metrics.MeterProvider):
    def get_meter(self, *args: Any, **named: Any) -> metrics.Meter:
        return BrokenMeter("broken")


@pytest.mark.parametrize(
    "parts",
    [
        {"ledger": BrokenLedger(None)},
        {"store": BrokenStore()},
        {"prices": BrokenPrices()},
        {"telemetry": Telemetry(tracer_provider=BrokenTracers())},
        {"telemetry": Telemetry(meter_provider=BrokenMeters())},
        {"ledger": BrokenLedger(None), "telemetry": Telemetry(meter_provider=BrokenMeters())},
    ],
    ids=["ledger", "store", "prices", "tracer", "meter", "ledger and meter"],
)
def test_our_own_trouble_never_breaks_the_call_and_is_heard(parts: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    call = router(**parts).step(Step.from_messages("my husband died", task_class="multi_turn"), thread="t")

    made = run(call, 529)

    assert (made, outcomes(call)) == ([OPUS, OPUS_B], ["failed", "accepted"])
    assert any(record.levelno >= logging.ERROR for record in caplog.records)


def test_a_store_that_cannot_be_read_leaves_its_steps_unsure() -> None:
    call = router(store=BrokenStore()).step(step(), thread="t")

    run(call)

    assert (call.decision.tier, call.decision.unsure, call.decision.codes) == ("strong", True, ("state_unread",))


def test_what_a_store_could_not_take_holds_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = router(store=(store := MemoryStateStore()))
    monkeypatch.setattr(store, "add", BrokenStore().add)

    seen.remember("t", thread_facts(["distress"]))

    assert [each.state_of("t").facts for each in (seen, seen.replace(policy=seen.policy), seen.replace(store=MemoryStateStore()))] == [
        {"distress"},
        {"distress"},
        set[str](),
    ]


def test_broken_prices_make_an_unpriced_record_and_not_a_lost_one() -> None:
    seen = router(prices=BrokenPrices())

    run(seen.step(step()))

    assert (seen.ledger.total().attempts, seen.ledger.total().unpriced) == (1, 1)


def test_broken_prices_leave_a_reply_of_a_foreign_model_judged(caplog: pytest.LogCaptureFixture) -> None:
    call = router(prices=BrokenPrices()).step(step())

    assert run(call, reply("gpt-4o-mini", stop="refusal")) == [HAIKU, SONNET]
    assert "nobody knows whether it is a lower model" in caplog.text


def test_a_call_that_reports_no_usage_is_estimated_and_says_so() -> None:
    call = router().step(step(tokens=40))

    run(call, {"role": "assistant", "content": "yes"})

    assert call.entries[0].usage.source == "estimated"


def test_a_call_that_was_cut_off_is_booked_with_its_prompt_as_a_lower_bound_and_without_a_baseline() -> None:
    seen = router()
    call = seen.step(step(tokens=40))

    with pytest.raises(TimeoutError):
        run(call, TimeoutError())

    total, [entry] = seen.ledger.total(), call.entries
    assert (entry.usage, entry.cost is not None, entry.baseline_pico) == (Usage(input=40, source="estimated"), True, None)
    assert (total.unpriced, total.estimated, total.output_unknown) == (0, 1, 1)


def test_a_step_with_an_attempt_that_was_cut_off_says_so_on_its_stamp() -> None:
    call = router().step(step(tokens=40))

    run(call, ModelTimeoutError("late"))

    stamp = call.stamp()
    assert (stamp["unpriced"], stamp["estimated"], stamp["output_unknown"]) == (0, 1, 1)
    assert str(cost_of(AIMessage("yes", response_metadata={"routed_agents": stamp}))).startswith("at least ")


@pytest.mark.parametrize(
    "said",
    [
        {"content": "word " * 2000},
        {
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "w", "arguments": f'{{"a": "{"word " * 2000}"}}'}}],
        },
    ],
    ids=["words", "tool call"],
)
def test_a_completion_that_leaves_out_its_output_is_estimated_from_what_it_says(said: dict[str, Any]) -> None:
    call = router().step(step())
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **said}}

    run(call, {"object": "chat.completion", "model": "claude-haiku-5-5", "choices": [choice], "usage": {"prompt_tokens": 100}})

    usage = call.entries[0].usage
    assert (usage.source, usage.output >= 2000, usage.input > 0) == ("estimated", True, True)


def test_a_floor_sees_labels_given_outright() -> None:
    policy = Policy.default(tiers="embedded").replace(floors=[PolicyFloor(tier="strong", metadata=(("team", "legal"),))])

    step = Step.from_messages("Classify: lovely", task_class="classification")

    with Router(policy, telemetry=Telemetry.off()).step(step, labels={"team": "legal"}) as call:
        tier = call.decision.tier

    assert tier == "strong"


def test_a_usage_report_nobody_can_read_never_breaks_the_call() -> None:
    router = Router(Policy.default(tiers="embedded"), telemetry=Telemetry.off())
    reply = {"role": "assistant", "content": "fine", "type": "message", "usage": {"input_tokens": 5, "output_tokens": "many"}}

    with router.step(Step.from_messages("Classify: lovely", task_class="classification")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(reply)

    assert (call.reply, router.ledger.steps) == (reply, 1)


def test_swapped_tiers_are_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    Router(Policy.default(tiers=Tiers.of({"cheap": "anthropic:claude-opus-5-5", "strong": "anthropic:claude-haiku-5-5"})))

    assert 'tier "cheap" (claude-opus-5-5) is dearer than tier "strong"' in caplog.text


@pytest.mark.parametrize(("status", "unpriced"), [(404, 0), (401, 0), (429, 1), (529, 1)])
def test_a_request_that_is_turned_down_is_free_though_its_model_has_no_price(status: int, unpriced: int) -> None:
    policy = Policy(tiers=Tiers.of({"cheap": "nobody-1", "strong": "anthropic:claude-opus-5-5"}))
    seen = router(policy)
    call = seen.step(step())
    assert run(call, status) == ["nobody-1", "anthropic:claude-opus-5-5"]

    total, answer = seen.ledger.total(), call.entries[-1]
    assert (total.unpriced, total.cost_pico) == (unpriced, answer.cost and answer.cost.total_pico)
    bill = cost_of(AIMessage("yes", response_metadata={"routed_agents": call.stamp()}))
    assert (bill.unpriced, bill.cost_pico) == (total.unpriced, total.cost_pico)


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_an_entry_says_what_the_call_would_have_cost_on_the_decided_model(mode: Any) -> None:
    own = {HAIKU.partition(":")[2]: {"input": "2", "output": "4"}, OPUS.partition(":")[2]: {"input": "10", "output": "20"}}
    call = router(POLICY.replace(mode=mode), prices=Prices(own)).step(step())
    run(call)
    [entry] = call.entries
    assert entry.cost is not None
    spent = {"enforce": 100 * 2 + 10 * 4, "shadow": 100 * 10 + 10 * 20}
    assert (entry.decided_model, entry.cost.total_pico) == ("claude-haiku-5-5", spent[mode] * 10**6)
    assert entry.decided_pico == (spent["enforce"] * 10**6 if mode == "enforce" else on_haiku(own))


def on_haiku(own: Any) -> int:
    factor = tokenizer_factor("claude-opus-5-5", "claude-haiku-5-5")
    assert factor is not None
    return round(100 * factor) * 2 * 10**6 + round(10 * factor) * 4 * 10**6


@pytest.mark.parametrize(("tier", "top"), [("cheap", False), ("strong", False), ("max", True)])
def test_an_entry_says_whether_the_top_tier_was_called(tier: str, top: bool) -> None:
    tiers = Tiers.of({"cheap": HAIKU, "strong": "anthropic:claude-sonnet-5-5", "max": OPUS})
    call = router(Policy(tiers=tiers)).step(step(metadata={"routed_agents": {"tier": tier}}))
    run(call)
    assert [(each.tier, each.top, each.kept_strong) for each in call.entries] == [(tier, top, top)]


def test_what_a_stopped_step_would_have_cost_nobody_knows() -> None:
    call = router(POLICY.replace(guards=[*POLICY.guards, never], mode="shadow")).step(step())
    run(call)
    assert [(each.decided_tier, each.decided_model, each.decided_pico) for each in call.entries] == [("stop", None, None)]


def test_a_decided_model_without_a_price_is_unpriced() -> None:
    policy = Policy(tiers=Tiers.of({"cheap": "nobody-1", "strong": "anthropic:claude-opus-5-5"}), mode="shadow")
    call = router(policy).step(step())
    run(call)
    assert [(each.decided_model, each.decided_pico) for each in call.entries] == [("nobody-1", None)]


def test_a_call_the_provider_refuses_costs_nothing_and_is_not_unpriced() -> None:
    class BadRequest(Exception):
        status_code = 400

    router = Router(Policy.default(tiers="embedded"), telemetry=Telemetry.off())

    def ask() -> None:
        with router.step(Step.from_messages("Classify: lovely", task_class="classification")) as call:
            for attempt in call.attempts():
                with attempt:
                    raise BadRequest

    with pytest.raises(BadRequest):
        ask()

    total = router.ledger.total()
    assert (total.cost_pico, total.unpriced, total.attempts) == (0, 0, 1)


def test_an_answer_from_langchains_cache_costs_nothing_whatever_its_model_costs() -> None:
    told: Any = {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10, "total_cost": 0}
    call = router(Policy(tiers=Tiers.of({"cheap": "nobody-1", "strong": "nobody-2"}))).step(step())

    run(call, AIMessage("yes", usage_metadata=told))

    assert [(entry.cost, entry.baseline_pico, entry.price_source) for entry in call.entries] == [(Cost(), 0, None)]


def test_a_wish_for_a_tier_nobody_understands_goes_to_the_top() -> None:
    step = Step.from_messages("Classify: lovely", task_class="classification", metadata={"routed_agents": {"teir": "strong"}})

    decision = Policy.default().decide(step)

    assert (decision.tier, decision.codes) == ("strong", ("forced_tier_unknown",))


# ---- what a router is made of


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"ledger": "costs.db"}, 'ledger is a str; wanted a ledger, like Ledger.sqlite("costs.db")'),
        ({"prices": {}}, 'prices is a dict; wanted prices, like Prices("prices.toml") or Prices({"my-model": {…}})'),
        ({"telemetry": True}, "telemetry is a bool; wanted Telemetry(), or Telemetry.off() for none"),
        ({"store": 5}, "store is an int; wanted a state store with load and add, like MemoryStateStore()"),
        ({"health": 5}, "health is an int; wanted Health()"),
        ({"asker": 5}, "asker is an int; wanted an asker with ask, or none for the providers' own SDKs"),
        ({"policy": 5}, 'policy is an int; wanted a Policy, the path of a policy file, or a preset of tiers like "claude"'),
    ],
)
def test_a_part_that_cannot_do_its_work_is_refused(parts: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Router(**parts)
    assert str(caught.value) == told


def test_a_router_takes_a_policys_file_or_preset(tmp_path: Path) -> None:
    for path in (tmp_path / "policy.toml", tmp_path / "without-ending"):
        path.write_text('stance = "frugal"')
        assert {Router(path).policy.hash, Router(str(path)).policy.hash, Router.of(str(path)).policy.hash} == {Policy.load(path).hash}
    assert {Router("gpt-4o").policy.hash, Router.of("gpt-4o").policy.hash} == {Policy.default(tiers="gpt-4o").hash}


@pytest.mark.parametrize("taking", [Router, Router.of])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nowhere.toml", "policy file nowhere.toml does not exist; check the path, or write one: routed-agents policy show --toml"),
        ("no/where", "policy file no/where does not exist; check the path, or write one: routed-agents policy show --toml"),
        ("nowhere", r"unknown tier preset 'nowhere'; known presets: .*\bgpt-4o, .*; nor is there a policy file of that name"),
        ('stance = "frugal"\n' * 20, r"unknown tier preset '(stance = \"frugal\"\\n)+'; .*; nor is there a policy file of that name"),
    ],
)
def test_a_policy_that_is_nowhere_is_missed_in_one_line(taking: Any, given: str, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        taking(given)
    assert re.fullmatch(told, str(caught.value))


def test_a_name_that_is_a_file_and_a_preset_is_refused_and_a_path_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("claude").write_text('stance = "conservative"')
    with pytest.raises(PolicyError, match=r"'claude' is a tier preset and the name of a file here; say '\./claude' for the file, or"):
        Router.of("claude")
    assert {Router(name).policy.stance for name in ("./claude", Path("claude"))} == {"conservative"}


def test_what_is_no_router_is_refused_wherever_one_is_taken() -> None:
    with pytest.raises(ConfigurationError, match="router is an int; wanted a Router, a Policy or the path of a policy file"):
        Router.of(5)  # type: ignore[arg-type]


def test_parts_of_ones_own_need_the_methods_only() -> None:
    class Kept:
        def __init__(self) -> None:
            self.entries: list[object] = []

        def append(self, entry: object) -> None:
            self.entries.append(entry)

    kept = Kept()
    router = Router(ledger=kept, store=BrokenStore(), telemetry=Telemetry.off())  # type: ignore[arg-type]
    with router.step(Step.from_messages("hello")) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(AIMessage("hello"))
    assert len(kept.entries) == 1


# ---- what goes wrong once the reply is there


class Unsaved(ModelTimeoutError):
    """The caller's own trouble, of a kind that providers have too."""


def unsaved(call: RoutedCall, stop: str = "end_turn") -> None:
    """Make the attempts; the caller has trouble with the first reply."""
    with call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(reply(attempt.model, stop=stop))
                raise Unsaved


@pytest.mark.parametrize("task_class", ["classification", "debug_refactor"])
def test_an_error_after_an_accepted_reply_is_the_callers(task_class: str) -> None:
    seen = router()
    call = seen.step(step(task_class))
    with pytest.raises(Unsaved):
        unsaved(call)

    assert (outcomes(call), call.entries[0].error) == (["accepted"], None)
    assert seen.health.resting() == frozenset()


def test_an_error_after_a_rejected_reply_is_the_callers() -> None:
    call = router().step(step())
    with pytest.raises(Unsaved):
        unsaved(call, "max_tokens")

    assert outcomes(call) == ["rejected"]


def passed_on(call: RoutedCall, error: Exception, *, committed: bool) -> None:
    """Make the attempts; the caller has trouble while the first stream is read."""
    with call:
        for attempt in call.attempts():
            with attempt:
                if committed:
                    attempt.commit()
                raise error


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("error", [BrokenPipeError("the browser went away"), TimeoutError("my own deadline")], ids=["hang-up", "deadline"])
def test_the_callers_own_trouble_while_a_stream_is_read_is_no_failover_and_no_rest(error: Exception, committed: bool) -> None:
    seen = router()
    for _ in range(3):
        with pytest.raises(type(error)):
            passed_on(seen.step(step()), error, committed=committed)

    assert [(entry.tier, entry.outcome, entry.usage.source) for entry in seen.ledger.entries()] == [("cheap", "failed", "estimated")] * 3
    assert seen.health.resting() == frozenset()


def test_an_attempt_that_is_recorded_without_with_is_an_error() -> None:
    with router().step(step()) as call:
        attempts = call.attempts()
        attempt = next(attempts)
        attempt.record(reply(attempt.model))

        with pytest.raises(ConfigurationError, match="an attempt was not used; wanted `with attempt"):
            next(attempts)


def test_schemas_that_cannot_be_had_lose_no_reply(caplog: pytest.LogCaptureFixture) -> None:
    def schemas() -> Any:
        raise KeyError("zebra-4711")

    answer = {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}], "stop_reason": "tool_use"}
    call = router().step(step(), tool_schemas=schemas)

    run(call, answer)

    assert outcomes(call) == ["accepted"]
    assert "KeyError at test_router.py" in caplog.text
    assert "zebra" not in caplog.text


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_read_passes_through() -> None:
    call = router().step(step())
    with pytest.raises(Mute):
        run(call, Mute())

    assert (outcomes(call), call.entries[0].error) == (["failed"], "Mute")


def test_prices_that_fail_now_and_then_keep_no_router_from_being_made() -> None:
    class Failing:
        asked = 0

        def cost(self, model: str, usage: Usage, /, *, at: datetime) -> Decimal:
            self.asked += 1
            if self.asked % 3 == 0:
                raise TimeoutError("the price service")
            return Decimal(1)

    source = Failing()
    for _ in range(5):
        Router(prices=source, telemetry=Telemetry.off())

    assert source.asked >= 3


@pytest.mark.parametrize(
    ("own", "called"),
    [
        (Deployment(model="my-haiku", provider="litellm", priced_as="claude-haiku-5-5"), "openai"),
        (Deployment(model="my-haiku", provider="azure_openai", priced_as="claude-haiku-5-5"), "openai"),
        (Deployment(model="my-haiku", priced_as="claude-haiku-5-5"), "anthropic"),
        (Deployment(model="my-haiku", simulated=True), "openai"),
    ],
)
def test_a_watched_call_is_priced_as_its_tiers_deployment_says(own: Deployment, called: str) -> None:
    strong = Deployment(model="claude-opus-5-5", provider="anthropic")
    tiers = Tiers((Tier(name="cheap", rank=0, deployments=(own,)), Tier(name="strong", rank=1, deployments=(strong,))))
    router = Router(Policy.default().replace(tiers=tiers), telemetry=Telemetry.off())
    entry = router.watch(model="my-haiku", provider=called, reply=None, usage=Usage(input=1000), started_ns=1)

    assert (entry.tier, entry.simulated, entry.cost is None) == ("cheap", own.simulated, own.priced_as is None)
