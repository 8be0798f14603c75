"""Law 1: order and repetition of guards change nothing; only a cap makes a step cheaper, and no cap beats a floor or pin."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from worlds import STOPPED, conditions, eligible, height, policies, ranks, several, steps, uncapped, with_guards

from routed_agents.decisions import settle
from routed_agents.guards import Conditions, Verdict
from routed_agents.policy import Policy
from routed_agents.steps import Step


@given(proposed=ranks, said=several, pinned=ranks, eligible=eligible, seed=st.integers(0, 9))
def test_settling_ignores_order_and_repetition(
    proposed: int, said: list[Verdict], pinned: int, eligible: frozenset[int], seed: int
) -> None:
    shuffled = Random(seed).sample([*said, *said], 2 * len(said))

    again = settle(proposed=proposed, verdicts=shuffled, pinned=pinned, eligible=sorted(eligible, reverse=True), top=3)

    assert again == settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)


@given(proposed=ranks, said=several, more=uncapped, pinned=ranks, eligible=eligible)
def test_one_more_verdict_without_a_cap_is_never_cheaper(
    proposed: int, said: list[Verdict], more: Verdict, pinned: int, eligible: frozenset[int]
) -> None:
    before = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)

    after = settle(proposed=proposed, verdicts=[*said, more], pinned=pinned, eligible=eligible, top=3)

    assert height(after) >= height(before)


@given(proposed=ranks, said=several, pinned=ranks, eligible=eligible)
def test_no_cap_beats_a_floor_or_pin(proposed: int, said: list[Verdict], pinned: int, eligible: frozenset[int]) -> None:
    owed = max([pinned, *(min(verdict.floor, 3) for verdict in said)])

    settled = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)

    assert height(settled) >= owed


@given(proposed=ranks, said=several, pinned=ranks, eligible=eligible)
def test_no_hard_cap_is_exceeded(proposed: int, said: list[Verdict], pinned: int, eligible: frozenset[int]) -> None:
    limit = min([3, *(verdict.cap for verdict in said if verdict.hard and verdict.cap is not None)])

    settled = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)

    assert height(settled) <= limit or height(settled) == STOPPED


@given(policy=policies, step=steps, now=conditions, said=several, seed=st.integers(0, 9))
def test_deciding_ignores_order_and_repetition_of_guards(
    policy: Policy, step: Step, now: Conditions, said: list[Verdict], seed: int
) -> None:
    policy = with_guards(policy, said)
    shuffled = policy.replace(guards=Random(seed).sample([*policy.guards, *policy.guards], 2 * len(policy.guards)))

    again = shuffled.decide(step, None, now)

    assert again == policy.decide(step, None, now)


@given(policy=policies, step=steps, now=conditions, said=several, more=uncapped)
def test_one_more_guard_without_a_cap_is_never_cheaper(
    policy: Policy, step: Step, now: Conditions, said: list[Verdict], more: Verdict
) -> None:
    before = with_guards(policy, said).decide(step, None, now)

    after = with_guards(policy, [*said, more]).decide(step, None, now)

    assert height(after) >= height(before)


def test_verdicts_that_differ_only_in_hardness_pin_or_facts_keep_one_order() -> None:
    alike = [
        Verdict(guard="g", code="c", floor=1, cap=1, hard=hard, pin=pin, facts=facts)
        for hard in (True, False)
        for pin in (None, "turn")
        for facts in ((), ("a",))
    ]
    policy = Policy.default()

    backwards = with_guards(policy, alike[::-1]).decide(Step.from_messages("hello", id="s"))

    assert backwards.verdicts == with_guards(policy, alike).decide(Step.from_messages("hello", id="s")).verdicts
