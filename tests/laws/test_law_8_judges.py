"""Law 8 for judges: what one says may settle what the local classifier left open, and takes back no floor and no pin."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from judged import Wary, judged_policies, sayings
from worlds import conditions, height, several, steps, with_guards

from routed_agents.features import extract
from routed_agents.guards import TOP, Conditions, Verdict
from routed_agents.judged_classes import DOUBTS
from routed_agents.policy import Policy
from routed_agents.questions import Opinion
from routed_agents.state import Pin, ThreadState
from routed_agents.steps import Step

FREE = ThreadState()
OPEN = Step.from_messages("Go on", id="s")
"""A step whose class is anybody's guess."""
HELD = [FREE, *(ThreadState(frozenset({Pin(scope="thread", tier=f"tier{rank}")})) for rank in range(1, 4))]


@given(policy=judged_policies, step=steps, opinion=sayings, said=several, now=conditions)
def test_no_opinion_goes_below_a_floor_of_the_local_reading(
    policy: Policy, step: Step, opinion: Opinion, said: list[Verdict], now: Conditions
) -> None:
    policy = with_guards(policy, said)
    for state in HELD:
        local = policy.decide(step, state, now)
        floors = [verdict.floor for verdict in local.verdicts if (verdict.guard, verdict.code) not in DOUBTS]
        pinned = [policy.tiers.rank_of_pin(pin.tier) for pin in local.pins]

        heard = policy.decide(step, state, replace(now, opinion=opinion))

        assert heard.settlement.obligation >= min(max([0, *floors, *pinned]), policy.tiers.top)
        assert set(local.state.facts) <= set(heard.state.facts)
        assert heard.to_record() == policy.decide(step, state, replace(now, opinion=opinion)).to_record()


@given(policy=judged_policies, opinion=sayings)
def test_what_a_guard_said_of_the_local_class_stays(policy: Policy, opinion: Opinion) -> None:
    policy = policy.replace(guards=[Wary(policy.classifier.classify(extract(OPEN)).task_class)])
    local = policy.decide(OPEN)

    heard = policy.decide(OPEN, conditions=Conditions(opinion=opinion))

    assert heard.settlement.obligation >= min(1, policy.tiers.top)
    assert local.state.facts <= heard.state.facts == {f"seen {local.task_class}"}


@given(policy=judged_policies, step=steps, opinion=sayings)
def test_a_declared_class_is_not_for_a_judge_to_name(policy: Policy, step: Step, opinion: Opinion) -> None:
    declared = replace(step, task_class=step.task_class or "code_generation")

    assert policy.decide(declared, conditions=Conditions(opinion=opinion)).to_record() == policy.decide(declared).to_record()


@given(policy=judged_policies, step=steps, opinion=sayings)
def test_deciding_again_with_the_result_as_pin_gives_the_same_tier(policy: Policy, step: Step, opinion: Opinion) -> None:
    heard = Conditions(opinion=opinion)
    first = policy.decide(step, conditions=heard)
    if first.tier is None:
        return
    pinned = ThreadState(frozenset({Pin(scope="thread", tier=first.tier)}))

    assert height(policy.decide(step, pinned, heard)) == height(first)


@given(policy=judged_policies, step=steps, opinion=sayings, said=several)
def test_one_more_guard_makes_no_judged_step_cheaper(policy: Policy, step: Step, opinion: Opinion, said: list[Verdict]) -> None:
    more = with_guards(policy, [replace(verdict, cap=None, hard=False) for verdict in said])
    heard = Conditions(opinion=opinion)

    assert height(more.decide(step, conditions=heard)) >= height(policy.decide(step, conditions=heard))
    assert policy.tiers.top < TOP
