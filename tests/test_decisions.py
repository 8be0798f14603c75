"""Decisions: how objections settle on a tier, and how that reads."""

from __future__ import annotations

from textwrap import dedent

import pytest

from routed_agents.decisions import Settlement, settle, widest
from routed_agents.guards import TOP, Conditions, Verdict
from routed_agents.policy import Policy
from routed_agents.state import thread_facts
from routed_agents.steps import Step


def floor(rank: int) -> Verdict:
    return Verdict(guard="floor", code="floor", floor=rank)


def cap(rank: int, *, hard: bool = False) -> Verdict:
    return Verdict(guard="cap", code="cap", cap=rank, hard=hard)


STOP = Verdict(guard="stop", code="stall", stop=True)
ALL = (0, 1, 2)


@pytest.mark.parametrize(
    ("proposed", "verdicts", "pinned", "eligible", "rank", "why"),
    [
        (0, [], 0, ALL, 0, None),
        (2, [], 0, ALL, 2, None),
        (0, [floor(1)], 0, ALL, 1, None),
        (0, [floor(1), floor(TOP)], 0, ALL, 2, None),
        (0, [], 2, ALL, 2, None),
        (2, [cap(1)], 0, ALL, 1, None),
        (2, [cap(1), cap(0)], 0, ALL, 0, None),
        (2, [cap(0), floor(1)], 0, ALL, 1, None),
        (2, [cap(0)], 1, ALL, 1, None),
        (2, [cap(1, hard=True)], 0, ALL, 1, None),
        (0, [cap(0, hard=True), floor(1)], 0, ALL, None, "hard_cap_below_floor"),
        (0, [cap(0, hard=True)], 1, ALL, None, "hard_cap_below_floor"),
        (0, [], 0, (1, 2), 1, None),
        (2, [], 0, (0, 1), 1, None),
        (0, [floor(2)], 0, (0, 1), None, "no_eligible_tier"),
        (0, [], 2, (0, 1), None, "no_eligible_tier"),
        (0, [], 0, (), None, "no_eligible_tier"),
        (0, [cap(0, hard=True)], 0, (1, 2), None, "no_eligible_tier"),
        (0, [STOP], 0, ALL, None, "stall"),
        (0, [STOP, floor(2), cap(0)], 1, ALL, None, "stall"),
    ],
)
def test_settling(
    proposed: int, verdicts: list[Verdict], pinned: int, eligible: tuple[int, ...], rank: int | None, why: str | None
) -> None:
    settled = settle(proposed=proposed, verdicts=verdicts, pinned=pinned, eligible=eligible, top=2)

    assert (settled.rank, settled.why) == (rank, why)


def test_a_proposal_nobody_can_serve_is_met_as_well_as_can_be_and_says_so() -> None:
    assert settle(proposed=2, verdicts=[], pinned=0, eligible=[0, 1], top=2) == Settlement(
        rank=1, want=2, obligation=0, proposed=2, degraded=True
    )


@pytest.mark.parametrize(
    ("scopes", "longest"), [([], None), ([None], None), (["turn", None], "turn"), (["turn", "thread", "lineage"], "thread")]
)
def test_the_widest_scope_holds(scopes: list[str | None], longest: str | None) -> None:
    assert widest(scopes) == longest  # type: ignore[arg-type]


def test_facts_alone_object_to_nothing() -> None:
    assert Verdict(guard="g", code="c", facts=("distress",)).objects is False


POLICY = Policy.default(tiers="claude-2026-11-three")
REPLY = Step.from_messages("Reply to the customer:\n```\nMy husband died, please cancel.\n```", id="s7", task_class="multi_turn")


def test_a_decision_explains_itself() -> None:
    decision = POLICY.decide(REPLY, thread_facts(["distress"]))

    assert decision.explain() == dedent(f"""\
        step s7: strong (claude-opus-5-5)
          class      multi_turn, confidence 1.00, p_strong {decision.p_strong:.2f} (declared)
          size       up to 44 tokens (estimated), 1 messages
          proposed   {POLICY.tiers[decision.settlement.proposed].name}; wanted strong; floor or pin at strong
          evidence   declared multi_turn
          guard      empathy: floor strong, notes distress; loss: "my husband died"
          policy     {POLICY.hash}""")


def test_a_stop_explains_itself() -> None:
    decision = POLICY.decide(REPLY, None, Conditions(unavailable=frozenset({"strong"})))

    assert decision.explain().splitlines()[0] == "step s7: stopped: no eligible tier"


def test_a_cap_above_every_tier_is_explained_too() -> None:
    from dataclasses import replace

    decision = POLICY.decide(REPLY)

    assert "cap strong" in replace(decision, verdicts=(cap(9),)).explain()


def test_the_record_is_the_one_the_design_names() -> None:
    decision = POLICY.decide(REPLY)

    assert decision.to_record() == {
        "id": "s7",
        "task_class": "multi_turn",
        "confidence": 1.0,
        "p_strong": round(decision.p_strong, 4),
        "tier": "strong",
        "rank": 2,
        "model": "claude-opus-5-5",
        "unsure": False,
        "pin": "turn",
        "reasons": [{"guard": "empathy", "code": "empathy", "floor": 2, "cap": None, "hard": False}],
        "policy_hash": POLICY.hash,
    }


def test_evidence_is_recorded_only_when_asked_for() -> None:
    decision = POLICY.decide(REPLY)

    assert ["husband" in str(decision.to_record(evidence=wanted)) for wanted in (False, True)] == [False, True]


def test_a_stop_is_in_the_record() -> None:
    record = POLICY.decide(REPLY, None, Conditions(unavailable=frozenset({"strong"}))).to_record()

    assert (record["tier"], record["rank"], record["model"], record["stop"]) == (None, None, None, "no_eligible_tier")
