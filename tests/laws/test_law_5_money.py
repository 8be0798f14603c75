"""Law 5: what a step cost is the sum of its attempts, and every total is the sum of its steps, to the last pico-dollar."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from routed_agents.errors import StepStopped
from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.pricing import Prices, Usage
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry

PRICES = Prices()
POLICY = Policy.default(tiers="claude-2026-11-three")


class Overloaded(Exception):
    status_code = 529


@dataclass(frozen=True)
class Plan:
    """A step and what becomes of its attempts."""

    thread: str
    tenant: str
    task_class: str
    outcomes: tuple[tuple[str, int, int, int], ...]


@dataclass
class Till:
    """Adds up by hand what was told to the router."""

    total: int = 0
    by_thread: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    by_tenant: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    by_step: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def ring(self, step: str, plan: Plan, model: str, usage: Usage) -> None:
        cost = PRICES.price(model, usage)
        assert cost is not None
        self.total += cost.total_pico
        self.by_step[step] += cost.total_pico
        self.by_thread[plan.thread] += cost.total_pico
        self.by_tenant[plan.tenant] += cost.total_pico


def reply(model: str, spent: Usage, *, cut: bool = False) -> dict[str, Any]:
    """An answer as the Anthropic API gives it."""
    usage = {
        "input_tokens": spent.input,
        "output_tokens": spent.output,
        "cache_read_input_tokens": spent.cache_read,
        "cache_creation_input_tokens": 0,
    }
    content = [{"type": "text", "text": "yes"}]
    return {
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "usage": usage,
        "stop_reason": "max_tokens" if cut else "end_turn",
    }


def perform(router: Router, plan: Plan, till: Till, step_id: str) -> dict[str, Any]:
    step = Step.from_messages("Is it so?", task_class=plan.task_class, id=step_id, tokens=40)
    outcomes = iter(plan.outcomes)
    with router.step(step, thread=plan.thread, labels={"tenant": plan.tenant}, lineage=plan.thread) as call:
        with suppress(StepStopped, Overloaded, httpx.ReadTimeout, asyncio.CancelledError, KeyError):
            for attempt in call.attempts():
                what, sent, received, cached = next(outcomes, ("accepted", 1, 1, 0))
                spent = Usage(input=sent, output=received, cache_read=cached)
                with attempt:
                    if what in ("accepted", "rejected", "bug"):
                        till.ring(step_id, plan, attempt.model, spent)
                        attempt.record(reply(attempt.model, spent, cut=what == "rejected"))
                    if what == "abandoned":
                        till.ring(step_id, plan, attempt.model, spent)
                        attempt.partial(spent)
                        raise asyncio.CancelledError
                    if what == "timeout":  # billed or not, nobody told: the prompt counts, at its declared size
                        till.ring(step_id, plan, attempt.model, Usage(input=40, source="estimated"))
                        raise httpx.ReadTimeout("late")
                    if what == "bug":
                        raise KeyError("the caller's own")
                    if what == "failed":
                        raise Overloaded
        return call.stamp()


outcomes = st.tuples(
    st.sampled_from(("accepted", "rejected", "rejected", "failed", "timeout", "abandoned", "bug")),
    st.integers(1, 300_000),
    st.sampled_from((0, 1, 999, 5_000)),
    st.sampled_from((0, 7, 100_001)),
)
plans = st.builds(
    Plan,
    thread=st.sampled_from(("t1", "t2")),
    tenant=st.sampled_from(("acme", "globex")),
    task_class=st.sampled_from(("classification", "knowledge_qa", "code_generation", "agentic_chain")),
    outcomes=st.lists(outcomes, min_size=1, max_size=3).map(tuple),
)


def quiet(ledger: Ledger) -> Router:
    return Router(POLICY, ledger=ledger, prices=PRICES, telemetry=Telemetry.off())


@given(made=st.lists(plans, min_size=1, max_size=2))
def test_every_total_is_the_sum_of_its_attempts(made: list[Plan]) -> None:
    router, till = quiet(Ledger.memory()), Till()

    for number, plan in enumerate(made):
        perform(router, plan, till, f"s{number}")

    ledger = router.ledger
    assert ledger.total().cost_pico == till.total
    assert costs(ledger, "thread") == costs(ledger, "lineage") == {key: cost for key, cost in till.by_thread.items() if cost}
    assert costs(ledger, "label:tenant") == {key: cost for key, cost in till.by_tenant.items() if cost}
    assert {entry.step_id: 0 for entry in ledger.entries()} | sums(ledger) == {
        f"s{number}": till.by_step[f"s{number}"] for number in range(len(made))
    }


def costs(ledger: Ledger, by: str) -> dict[str, int]:
    return {key: each.cost_pico for key, each in ledger.totals(by).items() if each.cost_pico}


def sums(ledger: Ledger) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for entry in ledger.entries():
        found[entry.step_id] += entry.cost.total_pico if entry.cost else 0
    return found


@given(plan=plans, by=st.sampled_from(("tier", "model", "outcome", "task_class", "error", "rank")))
def test_stamp_and_every_grouping_tell_what_the_attempts_cost(plan: Plan, by: str) -> None:
    router, till = quiet(Ledger.memory()), Till()

    stamp = perform(router, plan, till, "s")

    assert stamp["cost_pico"] == till.total == sum(each.cost_pico for each in router.ledger.totals(by).values())
    assert sum(entry.baseline_pico is not None for entry in router.ledger.entries()) <= 1


def test_totals_hold_when_threads_run_in_parallel() -> None:
    random, router = Random(11), quiet(Ledger.memory())
    kinds = ("accepted", "rejected", "failed", "timeout", "abandoned")

    def plan(number: int) -> Plan:
        outcomes = tuple(
            (random.choice(kinds), random.randrange(300_000), random.randrange(5_000), random.choice((0, 7))) for _ in range(3)
        )
        return Plan(f"t{number % 5}", f"c{number % 3}", random.choice(("classification", "code_generation")), outcomes)

    made = [(plan(number), Till(), f"s{number}") for number in range(1_200)]

    with ThreadPoolExecutor(8) as pool:
        stamps = list(pool.map(lambda each: perform(router, *each), made))

    assert router.ledger.total().cost_pico == sum(till.total for _, till, _ in made) == sum(stamp["cost_pico"] for stamp in stamps)


def test_an_unpriced_call_is_counted_and_costs_unknown() -> None:
    router = Router(Policy.default(), prices=Prices({}, snapshot=False), telemetry=Telemetry.off())
    with router.step(Step.from_messages("hi", task_class="classification"), thread="t") as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record(reply("nobody-knows-this-1", Usage(input=5, output=5)))

    assert (call.stamp()["cost_pico"], router.ledger.total().unpriced) == (None, 1)
