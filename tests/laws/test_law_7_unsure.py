"""Law 7: a classifier or guard that fails counts as unsure, unsure is a floor at the top, and the decision says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import conditions, policies, several, steps, with_guards

from routed_agents.classify import Classification
from routed_agents.features import Features
from routed_agents.guards import Assessment, Conditions, Verdict, named
from routed_agents.policy import Policy
from routed_agents.state import EMPTY, UNREAD, ThreadState, thread_facts
from routed_agents.steps import Step

PLAIN = Step.from_messages("Classify the sentiment as positive or negative: lovely", id="s")
POLICY = Policy.default()


class Mute(Exception):
    """An error whose words cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unprintable:
    """A thing that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no picture")


ERRORS = (
    Mute(),
    ValueError("no"),
    TimeoutError("late"),
    KeyError("k"),
    ZeroDivisionError(),
    RecursionError(),
    AssertionError(),
    OSError("disk"),
    MemoryError(),
)
NO_SHARE = (float("nan"), float("inf"), -0.1, 1.1, -1, 2, 10**400, None, "0.9", [0.9], 1 + 2j)


@dataclass
class Broken:
    """A classifier that gives or raises whatever it is told."""

    gives: Any
    name = "broken"
    version = "1"

    def classify(self, features: Features, /) -> Any:
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives


def guard_that(gives: Any) -> Callable[[Assessment], Any]:
    @named("broken", version="1")
    def rule(seen: Assessment) -> Any:
        if isinstance(gives, BaseException):
            raise gives
        return gives

    return rule


def claims(confidence: Any = 0.9, p_strong: Any = 0.1, task_class: Any = "classification") -> Classification:
    return Classification(task_class=task_class, confidence=confidence, p_strong=p_strong)


broken_classifications = st.one_of(
    st.sampled_from(ERRORS),
    st.sampled_from((None, "classification", 7, [], {})),
    st.sampled_from(NO_SHARE).map(lambda share: claims(confidence=share)),
    st.sampled_from(NO_SHARE).map(lambda share: claims(p_strong=share)),
    st.sampled_from(("", "nonsense", "15", "0", "Classification")).map(lambda key: claims(task_class=key)),
    st.floats(max_value=-0.001).map(lambda share: claims(p_strong=share)),
    st.floats(min_value=1.001).map(lambda share: claims(confidence=share)),
)
broken_verdicts = st.one_of(
    st.sampled_from(ERRORS),
    st.sampled_from((-1, True, False, 1.0, float("nan"), "1", None, [1])).map(lambda floor: Verdict(guard="broken", code="c", floor=floor)),
    st.sampled_from((-1, True, 0.0, float("nan"), "0", [0])).map(lambda cap: Verdict(guard="broken", code="c", cap=cap)),
    st.integers(max_value=-1).map(lambda cap: Verdict(guard="broken", code="c", cap=cap)),
)


@given(policy=policies, step=steps, now=conditions, said=several, gives=broken_classifications)
def test_a_failing_classifier_is_a_floor_at_the_top(policy: Policy, step: Step, now: Conditions, said: list[Verdict], gives: Any) -> None:
    decision = with_guards(policy, said).replace(classifier=Broken(gives)).decide(step, None, now)

    assert decision.rank in (policy.tiers.top, None)
    assert decision.unsure
    assert "classifier_failed" in decision.codes


@given(policy=policies, step=steps, now=conditions, said=several, gives=broken_verdicts)
def test_a_failing_guard_is_a_floor_at_the_top(policy: Policy, step: Step, now: Conditions, said: list[Verdict], gives: Any) -> None:
    policy = with_guards(policy, said)

    decision = policy.replace(guards=[guard_that(gives), *policy.guards]).decide(step, None, now)

    assert decision.rank in (policy.tiers.top, None)
    assert decision.unsure
    assert "guard_failed" in decision.codes


@given(step=steps, confidence=st.floats(0, 0.199))
def test_a_class_nobody_is_sure_of_is_a_floor_at_the_top(step: Step, confidence: float) -> None:
    decision = POLICY.replace(classifier=Broken(claims(confidence=confidence))).decide(step)

    assert (decision.rank, decision.unsure, "unsure" in decision.codes) == (POLICY.tiers.top, True, True)


@given(key=st.text(max_size=6).filter(lambda key: POLICY.taxonomy.find(key) is None if not key.isdigit() else False))
def test_an_unknown_declared_class_is_a_floor_at_the_top(key: str) -> None:
    decision = POLICY.decide(Step.from_messages("hi", metadata={"task_class": key or "?"}))

    assert (decision.rank, decision.unsure) == (POLICY.tiers.top, True)


@pytest.mark.parametrize("key", ["²", "①", "99", "٣٣"])
def test_a_declared_class_that_only_looks_like_a_number_is_a_floor_at_the_top(key: str) -> None:
    assert POLICY.decide(Step.from_messages("hi", metadata={"task_class": key})).unsure


@pytest.mark.parametrize("key", [None, ["classification"], "²", {}, 3.7, b"classification"])
def test_a_class_of_the_wrong_type_is_a_failed_classifier(key: Any) -> None:
    decision = POLICY.replace(classifier=Broken(claims(task_class=key))).decide(PLAIN)

    assert (decision.rank, "classifier_failed" in decision.codes) == (POLICY.tiers.top, True)


@pytest.mark.parametrize("share", [True, False])
def test_a_boolean_is_no_share(share: bool) -> None:
    assert POLICY.replace(classifier=Broken(claims(confidence=share, p_strong=0.1))).decide(PLAIN).unsure


@pytest.mark.parametrize("gives", ["up", True, 3, [], {"floor": 1}, object()])
def test_a_guard_that_gives_no_verdict_at_all_has_failed(gives: Any) -> None:
    assert POLICY.replace(guards=[guard_that(gives)]).decide(PLAIN).codes == ("guard_failed",)


@pytest.mark.parametrize(
    "part",
    [{"pin": "forever"}, {"facts": ["x"]}, {"facts": None}, {"code": None}, {"stop": "no"}, {"pin": 3}, {"code": ["c"]}, {"hard": "no"}],
)
def test_a_verdict_with_a_wrong_part_is_a_failed_guard(part: dict[str, Any]) -> None:
    verdict = Verdict(**{"guard": "broken", "code": "c", "floor": 0, **part})

    decision = POLICY.replace(guards=[guard_that(verdict), guard_that_floors()]).decide(PLAIN)

    assert (decision.rank, decision.unsure, "guard_failed" in decision.codes) == (1, True, True)


def guard_that_floors() -> Any:
    return named("floors", version="1")(lambda seen: Verdict(guard="floors", code="floors", floor=1))


def test_a_guards_result_that_cannot_be_shown_counts_as_unsure() -> None:
    decision = POLICY.replace(guards=[guard_that(Unprintable())]).decide(PLAIN)

    assert (decision.rank, decision.unsure, decision.codes) == (POLICY.tiers.top, True, ("guard_failed",))


@pytest.mark.parametrize("known", [EMPTY, thread_facts(["seen"])])
@pytest.mark.parametrize("forth", [True, False])
def test_pins_and_facts_that_could_not_be_read_count_as_unsure(known: ThreadState, forth: bool) -> None:
    state = known.join(UNREAD) if forth else UNREAD.join(known)

    decision = POLICY.decide(PLAIN, state)

    assert (decision.rank, decision.unsure, decision.codes) == (POLICY.tiers.top, True, ("state_unread",))
    assert (decision.state.unread, "unread" in state.to_json()) == (False, False)
