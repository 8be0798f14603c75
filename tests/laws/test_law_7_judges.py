"""Law 7 for judges: one that was asked and says nothing usable counts as unsure, and unsure is a floor at the top."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from judged import judged_policies, silences
from worlds import conditions, height, several, steps, with_guards

from routed_agents.guards import Conditions, Verdict
from routed_agents.policy import Policy
from routed_agents.questions import Opinion
from routed_agents.steps import Step


@given(policy=judged_policies, step=steps, silence=silences, said=several, now=conditions)
def test_a_silent_judge_is_a_floor_at_the_top_and_is_named(
    policy: Policy, step: Step, silence: Opinion, said: list[Verdict], now: Conditions
) -> None:
    policy = with_guards(policy, said)
    local = policy.decide(step, conditions=now)

    decision = policy.decide(step, conditions=replace(now, opinion=silence))

    if policy.hears(local):
        assert (decision.settlement.obligation, decision.unsure) == (policy.tiers.top, True)
        assert {"judge_failed", "judge_unsure"} & set(decision.codes)
    else:
        assert decision.to_record() == local.to_record()
    assert height(decision) >= height(local)
