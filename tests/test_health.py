"""Health: what rests, for how long, who probes, and that nobody is refused because of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from routed_agents import Conditions, Ledger, Policy, Router, Step, Telemetry
from routed_agents.errors import ConfigurationError
from routed_agents.failures import Failure
from routed_agents.health import LONGEST_S, Health
from routed_agents.health_store import RedisHealthStore
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


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"failures": "3"}, "failures is '3'; wanted a whole number above 0"),
        ({"failures": 0}, "failures is 0; wanted a whole number above 0"),
        ({"rest_s": "15"}, "rest_s is '15'; wanted seconds above 0"),
        ({"rest_s": float("nan")}, "rest_s is nan; wanted seconds above 0"),
        ({"rest_s": -5}, "rest_s is -5; wanted seconds above 0"),
        ({"store": "rests.db"}, 'store is of type str; wanted a health store, like SqliteHealthStore("rests.db")'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Health(**settings)
    assert str(caught.value) == told


class ForAwait:
    """As a client of `redis.asyncio`."""

    async def __aenter__(self) -> ForAwait:
        return self

    async def zrangebyscore(self, *_: object, **__: object) -> list[object]:
        return []


@pytest.mark.parametrize(("client", "kind"), [("redis://h", "builtins.str"), (ForAwait(), f"{__name__}.ForAwait")])
def test_a_redis_store_wants_a_client_that_answers_at_once(client: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisHealthStore(client)
    assert str(caught.value) == f'client is of type {kind}; wanted a redis.Redis, like redis.Redis.from_url("redis://…")'


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

    assert [health.resting(), health.resting()] == [frozenset(), frozenset()]  # asking is no probe
    begun = health.begin("s0")
    assert health.resting() == {"s0"}
    health.answered("s0", begun=begun)
    assert health.resting() == frozenset()


def test_a_probe_that_fails_doubles_the_rest(health: Health, clock: Clock) -> None:
    health.failed("s0", DOWN)
    health.failed("s0", DOWN)
    clock.now += 11
    health.failed("s0", DOWN, begun=health.begin("s0"))
    clock.now += 19

    assert "s0" in health.resting()


def test_a_probe_that_never_comes_back_gives_its_place_up(health: Health, clock: Clock) -> None:
    health.failed("s0", DOWN)
    health.failed("s0", DOWN)
    clock.now += 11
    health.begin("s0")
    clock.now += 9
    assert "s0" in health.resting()

    clock.now += 2
    assert "s0" not in health.resting()


def test_failures_without_end_rest_no_longer_than_the_longest(health: Health, clock: Clock) -> None:
    for _ in range(1_100):
        clock.now += LONGEST_S + 1
        health.failed("s0", DOWN)

    clock.now += LONGEST_S - 1
    assert "s0" in health.resting()
    clock.now += 2
    assert "s0" not in health.resting()


def test_calls_under_way_when_a_rest_begins_do_not_lengthen_it(health: Health, clock: Clock) -> None:
    begun = [health.begin("s0") for _ in range(8)]

    said = [health.failed("s0", DOWN, begun=each) for each in begun]

    assert said == [False, True, False, False, False, False, False, False]
    clock.now += 11
    assert "s0" not in health.resting()


def test_calls_that_do_not_say_when_they_began_do_not_lengthen_a_rest_either(health: Health, clock: Clock) -> None:
    for _ in range(8):
        health.failed("s0", DOWN)
    clock.now += 11

    assert "s0" not in health.resting()


def test_an_answer_to_a_call_begun_before_the_rest_does_not_end_it(health: Health) -> None:
    begun = health.begin("s0")
    health.failed("s0", Failure(trouble="rate_limit", retry_after_s=60), begun=health.begin("s0"))

    health.answered("s0", begun=begun)

    assert "s0" in health.resting()


def test_a_call_made_although_it_rests_ends_the_rest_with_its_answer(health: Health) -> None:
    health.failed("s0", Failure(trouble="rate_limit", retry_after_s=60))

    health.answered("s0", begun=health.begin("s0"))

    assert health.resting() == frozenset()


@pytest.mark.parametrize("asked", [float("nan"), -5.0, float("inf"), 1e300])
def test_a_pause_nobody_can_mean_is_a_rest_like_any(health: Health, clock: Clock, asked: float) -> None:
    health.failed("s0", Failure(trouble="rate_limit", retry_after_s=asked))
    clock.now += 9
    assert "s0" in health.resting()

    clock.now += LONGEST_S
    assert "s0" not in health.resting()


def test_a_step_that_calls_another_tier_is_no_probe(health: Health, clock: Clock) -> None:
    books = router(health, strong=1)
    health.failed("s0", Failure(trouble="rate_limit", retry_after_s=5))
    clock.now += 6

    assert deployments_tried(books, EASY) == ["c"]
    assert "s0" not in health.resting()


class Broken(Health):
    def resting(self) -> frozenset[str]:
        raise RuntimeError("out of order")

    def begin(self, deployment: str) -> int:
        raise RuntimeError("out of order")

    def failed(self, deployment: str, failure: Failure, *, begun: int | None = None) -> bool:
        raise OverflowError("out of order")

    def answered(self, deployment: str, *, begun: int | None = None) -> None:
        raise RuntimeError("out of order")


def test_what_goes_wrong_in_health_reaches_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    books = router(Broken())

    assert deployments_tried(books, HARD, "s0") == ["s0", "s1"]
    assert [entry.outcome for entry in books.ledger.entries()] == ["failed", "accepted"]
    assert all("health cannot tell who rests" in record.message for record in caplog.records)
    assert 1 <= len(caplog.records) <= 4  # once for each place


# ---- names ------------------------------------------------------------------------------------------------------------

OPUS = Deployment(model="claude-opus-5-5", provider="anthropic")
HAIKU = Deployment(model="claude-haiku-5-5", provider="anthropic")
NAMED_ALIKE = [
    {"cheap": replace(HAIKU, name="eu"), "strong": replace(OPUS, name="eu")},
    {"cheap": HAIKU, "strong": OPUS},
    {"cheap": replace(HAIKU, name="strong"), "strong": replace(OPUS, name="cheap")},
    {"cheap": replace(HAIKU, name="claude-opus-5-5"), "strong": OPUS},
]


def over(tiers: Tiers) -> Router:
    return Router(Policy.default(tiers=tiers), telemetry=Telemetry.off())


@pytest.mark.parametrize("roles", NAMED_ALIKE)
def test_a_rejected_reply_goes_up_whatever_the_deployments_are_called(roles: dict[str, Deployment]) -> None:
    books = over(Tiers.of(roles))
    with books.step(EASY) as call:
        for attempt in call.attempts():
            with attempt:
                attempt.record({"content": "" if attempt.tier == "cheap" else "fine", "stop_reason": "end_turn"})

    assert [(entry.tier, entry.outcome) for entry in books.ledger.entries()] == [("cheap", "rejected"), ("strong", "accepted")]


@pytest.mark.parametrize("roles", NAMED_ALIKE)
def test_a_rest_is_only_its_own_deployments_whatever_they_are_called(roles: dict[str, Deployment]) -> None:
    books = over(Tiers.of(roles))
    cheap, strong = books.policy.tiers
    books.care.failed(books.policy.tiers.key(cheap, cheap.deployments[0]), Failure(trouble="rate_limit", retry_after_s=60), None)

    with books.step(EASY) as call:
        assert (call.decision.tier, call.conditions.unavailable) == ("strong", books.policy.tiers.keys(cheap))
    assert books.policy.tiers.keys(strong).isdisjoint(books.care.resting())


@pytest.mark.parametrize("first", ["claude-opus-5-5", "anthropic:claude-opus-5-5", OPUS])
@pytest.mark.parametrize("second", ["bedrock-eu", "", "strong", "claude-opus-5-5"])
def test_a_sibling_answers_whatever_it_is_called(first: str | Deployment, second: str) -> None:
    sibling = Deployment(model="claude-opus-5-5", provider="bedrock", name=second)
    books = over(Tiers.of({"cheap": HAIKU, "strong": [first, sibling]}))
    tried: list[str | None] = []
    with books.step(HARD) as call:
        for attempt in call.attempts():
            with attempt:
                tried.append(attempt.deployment.provider)
                if attempt.deployment != sibling:
                    raise Overloaded
                attempt.record({"content": "fine", "stop_reason": "end_turn"})

    assert tried == ["anthropic", "bedrock"]


def test_a_name_of_a_tier_and_of_its_deployment_means_the_deployment() -> None:
    tiers = Tiers.of({"cheap": HAIKU, "strong": [replace(OPUS, name="strong"), replace(OPUS, name="strong-eu")]})
    policy, gone = Policy.default(tiers=tiers), Conditions(unavailable=frozenset({"strong"}))

    assert [policy.decide(step, None, gone).tier for step in (HARD, Step.from_messages("x", task_class="debug_refactor"))] == ["strong"] * 2
    assert policy.decide(HARD, None, Conditions(unavailable=frozenset({"strong", "strong-eu"}))).stopped == "no_eligible_tier"


def test_keys_are_the_deployments_names_where_these_are_plain() -> None:
    tiers = Tiers.of({"cheap": "anthropic:claude-haiku-5-5", "strong": ["claude-opus-5-5", Deployment(model="my-arn", name="eu")]})

    assert [tiers.key(tier, each) for tier in tiers for each in tier.deployments] == ["anthropic:claude-haiku-5-5", "claude-opus-5-5", "eu"]


@given(
    st.lists(
        st.lists(st.builds(Deployment, model=st.sampled_from("ab/#0"), name=st.sampled_from(["", *"ab/#0", "a/b#0"])), min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_every_deployment_has_a_key_of_its_own(given_rows: list[list[Deployment]]) -> None:
    tiers = Tiers.of(dict(zip(("a", "b", "a/b"), given_rows, strict=False)))
    places = [(tier, each) for tier in tiers for each in dict.fromkeys(tier.deployments)]
    keys = [tiers.key(*place) for place in places]

    assert len(set(keys)) == len(places)
    for key, (tier, own) in zip(keys, places, strict=True):
        policy = Policy.default(tiers=tiers)
        left = policy.deployments(tier, policy.decide(EASY).features, Conditions(unavailable=frozenset({key})))
        assert own not in left
        assert set(left) == set(tier.deployments) - {own}


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
