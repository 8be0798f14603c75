"""Law 2: asking for more never gives less, deciding again settles nothing new, and losing a tier never lowers what is floored."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st
from worlds import conditions, eligible, height, policies, ranks, several, steps, with_guards

from routed_agents.decisions import settle
from routed_agents.guards import Conditions, Verdict
from routed_agents.policy import Policy
from routed_agents.state import ThreadState
from routed_agents.steps import Step


@given(proposed=ranks, said=several, pinned=ranks, eligible=eligible, more=st.tuples(ranks, ranks, ranks))
def test_raising_proposal_floor_or_pin_never_lowers(
    proposed: int, said: list[Verdict], pinned: int, eligible: frozenset[int], more: tuple[int, int, int]
) -> None:
    before = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)
    floored = [*said, Verdict(guard="more", code="more", floor=more[1])]

    after = settle(proposed=max(proposed, more[0]), verdicts=floored, pinned=max(pinned, more[2]), eligible=eligible, top=3)

    assert height(after) >= height(before)


@given(proposed=ranks, said=several, pinned=ranks, eligible=eligible)
def test_settling_again_with_the_result_as_pin_gives_the_result(
    proposed: int, said: list[Verdict], pinned: int, eligible: frozenset[int]
) -> None:
    first = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)

    again = settle(proposed=proposed, verdicts=said, pinned=max(pinned, first.rank or 0), eligible=eligible, top=3)

    assert again.rank == first.rank


@given(proposed=ranks, said=several, pinned=ranks, eligible=eligible, lost=ranks)
def test_losing_a_tier_never_lowers_what_is_floored_or_pinned(
    proposed: int, said: list[Verdict], pinned: int, eligible: frozenset[int], lost: int
) -> None:
    before = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible, top=3)

    after = settle(proposed=proposed, verdicts=said, pinned=pinned, eligible=eligible - {lost}, top=3)

    assert height(after) >= min(height(before), before.obligation)
    assert before.want > before.obligation or before.obligation == 0 or height(after) >= height(before)


@given(proposed=ranks, said=several, eligible=eligible, next_proposed=ranks, next_said=several, next_eligible=eligible)
def test_a_result_that_became_a_pin_holds_for_whatever_comes_next(
    proposed: int,
    said: list[Verdict],
    eligible: frozenset[int],
    next_proposed: int,
    next_said: list[Verdict],
    next_eligible: frozenset[int],
) -> None:
    rank = settle(proposed=proposed, verdicts=said, pinned=0, eligible=eligible, top=3).rank or 0

    after = settle(proposed=next_proposed, verdicts=next_said, pinned=rank, eligible=next_eligible, top=3)

    assert height(after) >= rank


@given(policy=policies, step=steps, now=conditions, said=several)
def test_deciding_again_with_the_decisions_own_pin_gives_the_same_tier(
    policy: Policy, step: Step, now: Conditions, said: list[Verdict]
) -> None:
    policy = with_guards(policy, said)
    first = policy.decide(step, None, now)

    again = policy.decide(step, ThreadState(first.state.pins), now)

    assert again.tier == first.tier


@given(policy=policies, step=steps, said=several, lost=ranks, floor=st.sampled_from((1, 2, 3)))
def test_an_outage_never_sends_a_decision_below_its_floor(policy: Policy, step: Step, said: list[Verdict], lost: int, floor: int) -> None:
    policy = with_guards(policy, [*said, Verdict(guard="floor", code="floor", floor=floor)])

    after = policy.decide(step, None, Conditions(unavailable=frozenset({f"tier{lost}"})))

    assert height(after) >= min(floor, policy.tiers.top)


@given(policy=policies, step=steps, said=several, now=conditions, at_least=ranks)
def test_settling_the_same_step_again_never_goes_below_what_was_asked(
    policy: Policy, step: Step, said: list[Verdict], now: Conditions, at_least: int
) -> None:
    at_least = min(at_least, policy.tiers.top)
    policy = with_guards(policy, said)
    decision = policy.decide(step)

    again = policy.resettle(decision, replace(now, deadline_s=None), at_least=at_least)

    assert height(again) >= max(at_least, decision.settlement.obligation)


@given(policy=policies, step=steps, sent=steps, now=conditions, said=several)
def test_deciding_a_step_again_in_another_form_never_lowers_it(
    policy: Policy, step: Step, sent: Step, now: Conditions, said: list[Verdict]
) -> None:
    policy = with_guards(policy, said)
    first = policy.decide(step, None, now)
    assume(not first.stopped)

    again = policy.decide_again(first, sent, now)

    assert height(again) >= height(first)
    assert again.settlement.obligation >= first.settlement.obligation
    assert first.state.pins <= again.state.pins
    assert first.state.facts <= again.state.facts
