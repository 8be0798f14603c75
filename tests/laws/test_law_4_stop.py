"""Law 4: a stop spends no token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from worlds import POLICIES, conditions, policies, quiet_router, several, steps, with_guards

from routed_agents.errors import StepStopped
from routed_agents.guards import Conditions, Verdict
from routed_agents.policy import Policy
from routed_agents.steps import Step


class Overloaded(Exception):
    status_code = 529


HARD_CAP = Verdict(guard="g", code="c", floor=2, cap=0, hard=True)
NO_TIER = Verdict(guard="g", code="nothing is up")


@given(
    policy=policies,
    step=steps,
    now=conditions,
    said=several,
    cause=st.sampled_from((Verdict(guard="g", code="c", stop=True), HARD_CAP, NO_TIER)),
)
def test_a_stopped_step_yields_no_attempt(policy: Policy, step: Step, now: Conditions, said: list[Verdict], cause: Verdict) -> None:
    if cause is NO_TIER:
        now = Conditions(unavailable=frozenset(policy.tiers.names))
    with quiet_router(with_guards(policy, [*said, cause])).step(step, conditions=now) as call:
        assume(call.decision.stopped)

        with pytest.raises(StepStopped) as stop:
            next(call.attempts())

    assert (stop.value.decision, call.entries) == (call.decision, [])


def test_a_stop_leaves_nothing_in_the_ledger() -> None:
    router = quiet_router(with_guards(POLICIES[1], [Verdict(guard="g", code="c", stop=True)]))
    with pytest.raises(StepStopped), router.step(Step.from_messages("hi"), thread="t") as call:
        list(call.attempts())

    assert router.ledger.total().attempts == 0


@given(policy=policies, errors=st.booleans(), rejected=st.booleans())
def test_a_stalled_loop_on_the_top_tier_spends_nothing_more(policy: Policy, errors: bool, rejected: bool) -> None:
    router = quiet_router(policy)
    messages: list[Any] = ["look it up"]
    while len(messages) < 60:
        with router.step(Step.from_messages(messages, task_class="agentic_chain"), thread="t") as call:
            if call.decision.stopped:
                break
            stamp = {**call.stamp(), "rejected": ["empty"] if rejected else []}
        look = {"name": "look", "args": {"at": len(messages) if errors or rejected else 0}}
        messages.append({"role": "assistant", "tool_calls": [look], "response_metadata": {"routed_agents": stamp}})
        messages.append({"role": "tool", "content": "r", "status": "error" if errors else "success"})

    assert call.decision.stopped == "stalled"
    with pytest.raises(StepStopped, match=r"stopped, stalled: .* at the top tier\. Look at what the workflow is stuck on"):
        next(call.attempts())
    assert len(messages) <= 13


@given(policy=policies, step=steps, now=conditions, said=several)
def test_a_step_that_is_not_stopped_starts_on_its_tier(policy: Policy, step: Step, now: Conditions, said: list[Verdict]) -> None:
    with quiet_router(with_guards(policy, said)).step(step, conditions=now) as call:
        assume(not call.decision.stopped)

        attempt = next(call.attempts())

    assert attempt.row.rank == call.decision.rank >= call.decision.settlement.obligation


@given(policy=policies, step=steps, now=conditions, said=several, mode=st.sampled_from(("shadow", "off")))
def test_a_mode_that_only_watches_never_stops(policy: Policy, step: Step, now: Conditions, said: list[Verdict], mode: str) -> None:
    with quiet_router(with_guards(policy, said).replace(mode=mode)).step(step, conditions=now) as call:
        attempt = next(call.attempts())

    assert attempt.row.rank == policy.tiers.top


@pytest.mark.parametrize("gone", ["model-3", "tier3"])
def test_a_mode_that_only_watches_calls_even_where_its_model_is_down(gone: str) -> None:
    with quiet_router(POLICIES[3].replace(mode="shadow")).step(
        Step.from_messages("hi"), conditions=Conditions(unavailable=frozenset({gone}))
    ) as call:
        assert next(call.attempts(), None) is not None


@given(said=several, floor=st.integers(1, 3), gone=st.integers(0, 3))
def test_an_outage_in_the_middle_never_sends_a_floored_step_down(said: list[Verdict], floor: int, gone: int) -> None:
    floored = [*said, Verdict(guard="floor", code="floor", floor=floor)]
    used: list[int] = []
    with quiet_router(with_guards(POLICIES[3], floored)).step(
        Step.from_messages("hi"), conditions=Conditions(unavailable=frozenset({f"tier{gone}"}))
    ) as call:
        try:
            for attempt in call.attempts():
                with attempt:
                    used.append(attempt.row.rank)
                    raise Overloaded
        except (StepStopped, Overloaded):
            pass

    assert all(rank >= floor for rank in used)
    assert used == sorted(used)
