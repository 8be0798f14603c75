"""Health: what rests, for how long, who probes, and that nobody is refused because of it."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents import Ledger, Policy, Router, Step, Telemetry
from routed_agents.failures import Failure
from routed_agents.health import LONGEST_S, Health
from routed_agents.telemetry import names
from routed_agents.tiers import Deployment, Tiers

DOWN = Failure(trouble="overloaded", status=529)
EASY, HARD = (Step.from_messages("go", task_class=name) for name in ("classification", "empathy_escalation"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Overloaded(Exception):
    status_code = 529


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(failures=2, rest_s=10, clock=clock)


def router(health: Health, *, strong: int = 2) -> Router:
    tiers = Tiers.of(
        {
            "cheap": Deployment(model="claude-haiku-5-5", name="c"),
            "strong": [Deployment(model="claude-opus-5-5", name=f"s{n}") for n in range(strong)],
        }
    )
    return Router(Policy.default(tiers=tiers), ledger=Ledger.memory(), telemetry=Telemetry.off(), health=health)


def deployments_tried(books: Router, step: Step, *down: str) -> list[str]:
    tried: list[str] = []
    with books.step(step) as call:
        for attempt in call.attempts():
            with attempt:
                tried.append(attempt.deployment.name)
                if attempt.deployment.name in down:
                    raise Overloaded
                attempt.record({"content": "fine", "stop_reason": "end_turn"})
    return tried


def test_it_rests_after_failures_in_a_row_and_not_before(health: Health) -> None:
    assert [health.failed("s0", DOWN), health.resting(), health.failed("s0", DOWN), health.resting()] == [
        False, frozenset(), True, frozenset({"s0"}),
    ]  # fmt: skip


def test_an_answer_between_failures_makes_it_well(health: Health) -> None:
    health.failed("s0", DOWN)
    health.answered("s0")

    assert not health.failed("s0", DOWN)


@pytest.mark.parametrize("trouble", ["rate_limit", "denied", "model_not_found"])
def test_some_troubles_make_it_rest_at_once(health: Health, trouble: str) -> None:
    assert health.failed("s0", Failure(trouble=trouble))  # pyright: ignore[reportArgumentType]


def test_a_prompt_too_long_is_not_the_deployments_fault(health: Health) -> None:
    for _ in range(5):
        health.failed("s0", Failure(trouble="context_overflow", status=400))

    assert health.resting() == frozenset()


def test_the_providers_own_pause_is_kept_up_to_a_limit(health: Health, clock: Clock) -> None:
    health.failed("s0", Failure(trouble="rate_limit", retry_after_s=40))
    clock.now += 39
    assert "s0" in health.resting()
    clock.now += 2
    assert "s0" not in health.resting()

    health.failed("s0", Failure(trouble="rate_limit", retry_after_s=1e9))
    clock.now += LONGEST_S + 1
    assert "s0" not in health.resting()


def test_after_the_rest_one_call_probes_and_the_others_wait(health: Health, clock: Clock) -> None:
    health.failed("s0", DOWN)
    health.failed("s0", DOWN)
    clock.now += 11

    assert [health.resting(), health.resting()] == [frozenset(), frozenset({"s0"})]
    health.answered("s0")
    assert health.resting() == frozenset()


def test_a_probe_that_fails_doubles_the_rest(health: Health, clock: Clock) -> None:
    health.failed("s0", DOWN)
    health.failed("s0", DOWN)
    clock.now += 11
    health.resting()
    health.failed("s0", DOWN)
    clock.now += 19

    assert "s0" in health.resting()


def test_a_probe_that_never_comes_back_gives_its_place_up(health: Health, clock: Clock) -> None:
    health.failed("s0", DOWN)
    health.failed("s0", DOWN)
    clock.now += 11
    health.resting()
    clock.now += 30

    health.resting()
    assert "s0" not in health.resting()


def test_a_pinned_step_goes_to_its_rank_without_asking_the_resting_one(health: Health) -> None:
    books = router(health)

    assert deployments_tried(books, HARD, "s0") == ["s0", "s1"]
    assert deployments_tried(books, HARD, "s0") == ["s0", "s1"]
    assert deployments_tried(books, HARD, "s0") == ["s1"]


def test_a_cheap_step_goes_up_while_its_tier_rests(health: Health) -> None:
    books = router(health)
    deployments_tried(books, EASY, "c")
    deployments_tried(books, EASY, "c")

    assert deployments_tried(books, EASY) == ["s0"]


def test_where_nothing_else_may_answer_the_resting_one_is_asked(health: Health) -> None:
    books = router(health, strong=1)
    for _ in range(2):
        with pytest.raises(Overloaded):
            deployments_tried(books, HARD, "s0")

    assert "s0" in health.resting()
    assert deployments_tried(books, HARD) == ["s0"]
    assert "s0" not in health.resting()


def test_the_span_of_the_step_whose_call_begins_a_rest_says_so(health: Health) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    books = router(health).replace(telemetry=Telemetry(tracer_provider=provider))
    for _ in range(3):
        deployments_tried(books, HARD, "s0")

    told = [
        [dict(event.attributes or {}) for event in span.events if event.name == names.BREAKER]
        for span in exporter.get_finished_spans()
        if span.name.startswith("route")
    ]
    assert told == [[], [{names.DEPLOYMENT: "s0", names.WHY: "overloaded"}], []]
