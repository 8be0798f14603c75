"""Law 3, where pins end: a release and a lapse are joined like everything else, and neither lowers a turn that is going on."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from worlds import FLOORS, POLICIES, STOPPED, TEXTS, height, quiet_router

from routed_agents.guards import Assessment, Conditions, Verdict, named
from routed_agents.policy import Policy
from routed_agents.state import EMPTY, Mark, Pin, ThreadState, release_of, thread_facts
from routed_agents.steps import Step

SECOND = 1_000_000


@named("kept", version="1")
def kept(seen: Assessment) -> Verdict | None:
    """Pins what the step's metadata asks for, and notes the fact of the same name."""
    scope: Any = seen.features.flags.get("keep")
    return Verdict(guard="kept", code="vip", floor=3, pin=scope, facts=("vip",)) if scope is not None else None


def with_expiry(**turns: int) -> Policy:
    return POLICY.replace(expiry=turns)


POLICY = POLICIES[3].replace(guards=[*POLICIES[3].guards, kept], floors=FLOORS)
NAMES = ("distress", "vip")
states = st.builds(
    lambda pins, facts, marks: EMPTY.join(ThreadState(frozenset(pins), frozenset(facts), frozenset(marks))),
    st.lists(
        st.sampled_from(
            [
                Pin(
                    scope=scope,
                    tier="tier3",
                    key="plan" if scope != "thread" else "",
                    turn="h" if scope == "turn" else "",
                    seq=seq,
                    code=code,
                )
                for scope, seq, code in product(("turn", "lineage", "thread"), (0, 1, 5), (*NAMES, "other"))
            ]
        ),
        max_size=5,
    ),
    st.sets(st.sampled_from((*NAMES, "other"))),
    st.lists(
        st.sampled_from(
            [Mark(name=name, noted=noted * SECOND, released=over * SECOND) for name, noted, over in product(NAMES, (0, 1, 5), (0, 2))]
        ),
        max_size=3,
    ),
)


def released(name: str, at: int) -> ThreadState:
    return ThreadState(marks=frozenset({Mark(name=name, released=at * SECOND)}))


@given(state=states, name=st.sampled_from(NAMES), at=st.integers(6, 9))
def test_a_release_strikes_out_the_name_and_nothing_else(state: ThreadState, name: str, at: int) -> None:
    after = state.join(released(name, at))

    assert after.facts == state.facts - {name}
    assert after.pins == {pin for pin in state.pins if pin.scope == "turn" or pin.code != name}


@given(state=states, name=st.sampled_from(NAMES), at=st.integers(1, 9))
def test_a_release_comes_back_with_nothing_that_was_known_before(state: ThreadState, name: str, at: int) -> None:
    after = state.join(released(name, at))

    assert after.join(state) == after == after.join(released(name, at)) == state.join(after)
    assert ThreadState.from_json(json.loads(json.dumps(after.to_json()))) == after


@given(state=states, name=st.sampled_from(NAMES), at=st.integers(6, 9), scope=st.sampled_from(("lineage", "thread")))
def test_what_is_noted_later_holds_in_any_order(state: ThreadState, name: str, at: int, scope: Any) -> None:
    later = ThreadState(
        frozenset({Pin(scope=scope, tier="tier3", seq=at + 1, code=name)}), marks=frozenset({Mark(name=name, noted=(at + 1) * SECOND)})
    )

    for joined in (state.join(released(name, at)).join(later), later.join(state).join(released(name, at)), released(name, at).join(later)):
        assert name in joined.facts
        assert later.pins <= joined.pins


@given(state=states, scope=st.sampled_from(("turn", "lineage", "thread")), at=st.integers(1, 9), clock=st.integers(0, 12))
def test_a_step_that_knows_of_a_release_and_objects_again_is_heard(state: ThreadState, scope: Any, at: int, clock: int) -> None:
    """Whatever its clock says: it may be behind that of whoever released."""
    known = state.join(released("vip", at))
    step = Step.from_messages("Classify it", node="plan", metadata={"keep": scope}, id="s")

    left = known.join(POLICY.decide(step, known, Conditions(now_s=clock)).state)

    assert "vip" in left.facts
    assert scope == "turn" or any(pin.scope == scope and pin.code == "vip" for pin in left.pins)


@given(names=st.sets(st.sampled_from(NAMES), min_size=1))
def test_what_a_node_notes_and_releases_holds_in_the_order_it_was_said(names: set[str]) -> None:
    noted, over, again = thread_facts(names), release_of(names), thread_facts(names)

    assert noted.join(over).facts == frozenset()
    assert over.join(again).facts == names == again.join(noted).join(over).facts


steps = st.sampled_from(
    [
        ("step", node, {"keep": scope} if scope else {"floor": floor})
        for node, scope, floor in product(("plan", "reply"), (None, None, "turn", "lineage", "thread"), (0, 1, 2))
    ]
)
events = st.lists(st.one_of(steps, steps, st.sampled_from([("human",), ("release", "vip"), ("release", "distress")])), max_size=10)


@given(events=events, turns=st.sampled_from((None, 0, 1, 2)))
@example(events=[("step", "plan", {"keep": "lineage"}), ("release", "vip"), ("step", "plan", {})], turns=None)
@example(
    events=[("step", "plan", {"keep": "thread"}), ("human",), ("step", "plan", {}), ("release", "vip"), ("step", "plan", {})], turns=None
)
def test_neither_a_release_nor_a_lapse_lowers_a_turn(events: list[Any], turns: int | None) -> None:
    """The history's stamps are lost, so the pins alone must hold what the turn's own steps had."""
    router, turn, clock = quiet_router(POLICY if turns is None else with_expiry(vip=turns)), 0, 100
    highest: dict[str, int] = {}
    for event in events:
        clock += 1
        if event[0] == "human":
            turn, highest = turn + 1, {}
        elif event[0] == "release":
            router.remember("t", released(event[1], clock))
        else:
            _, node, metadata = event
            asked = {"role": "user", "content": "Sort the list", "id": f"h{turn}"}
            step = Step.from_messages([asked], node=node, task_class="classification", metadata=metadata, run=f"r{turn}")
            with router.step(step, thread="t", conditions=Conditions(now_s=clock)) as call:
                rank = height(call.decision)
            assert rank >= highest.get(node, 0)
            highest[node] = max(highest.get(node, 0), rank if rank != STOPPED else 0)


def asks(turn: int, *, node: str = "reply", noted: bool = False, run: bool = True) -> Step:
    asked = {"role": "user", "content": "When do you open?", "id": f"h{turn}"}
    metadata = {"keep": "thread"} if noted else {}
    return Step.from_messages(
        [asked], node=node, task_class="classification", metadata=metadata, run=f"r{turn}" if run else None, at=f"{turn:04}", id="s"
    )


@given(turns=st.integers(0, 4), later=st.integers(1, 6), steps=st.integers(1, 3), runs=st.booleans())
def test_a_pin_and_a_fact_lapse_after_so_many_turns(turns: int, later: int, steps: int, runs: bool) -> None:
    """However many steps a turn has, and in however many nodes."""
    policy = with_expiry(vip=turns)
    state = policy.decide(asks(0, noted=True, run=runs)).state
    for turn in range(1, later + 1):
        for number in range(steps):
            decision = policy.decide(asks(turn, node=f"node{number}", run=runs), state)
            state = state.join(decision.state)

            assert any(pin.code == "vip" for pin in decision.pins) == (turn <= turns)
            assert decision.rank == (3 if turn <= turns else 0)


@given(turns=st.integers(0, 3), again=st.integers(1, 5))
def test_what_is_noted_again_begins_to_lapse_again(turns: int, again: int) -> None:
    policy, state = with_expiry(vip=turns), EMPTY
    for turn in range(again + turns + 2):
        decision = policy.decide(asks(turn, noted=turn <= again), state)
        state = state.join(decision.state)

        assert decision.rank == (3 if turn <= again + turns else 0)


@given(turns=st.integers(0, 3), waits=st.integers(0, 3))
def test_a_fact_that_nobody_dated_lapses_from_the_first_step_that_knows_it(turns: int, waits: int) -> None:
    policy, state = with_expiry(distress=turns), EMPTY
    for turn in range(waits):
        state = state.join(policy.decide(asks(turn), state).state)
    state = state.join(ThreadState(facts=frozenset({"distress"})))
    held: list[bool] = []
    for turn in range(waits, waits + turns + 3):
        asked = Step.from_messages([{"role": "user", "content": "When do you open?", "id": f"h{turn}"}], task_class="multi_turn")
        decision = policy.decide(asked, state)
        state = state.join(decision.state)
        held.append(decision.rank == 3)

    assert held == [at <= turns for at in range(turns + 3)]


@given(branches=st.integers(2, 5), turns=st.integers(0, 2))
def test_steps_side_by_side_count_one_turn(branches: int, turns: int) -> None:
    policy = with_expiry(vip=turns)
    state = policy.decide(asks(0, noted=True)).state
    for turn in range(1, turns + 2):
        beside = [policy.decide(asks(turn, node=f"branch{number}"), state) for number in range(branches)]
        for decision in beside:
            state = state.join(decision.state)

        assert {decision.rank for decision in beside} == {3 if turn <= turns else 0}


@given(turns=st.integers(0, 3), text=st.sampled_from(TEXTS))
def test_a_policy_without_expiry_counts_nothing(turns: int, text: str) -> None:
    state = POLICY.decide(asks(0, noted=True)).state
    for turn in range(1, turns + 1):
        state = state.join(POLICY.decide(Step.from_messages([{"role": "user", "content": text, "id": f"h{turn}"}]), state).state)

    assert state.turns == frozenset()
    assert any(pin.code == "vip" for pin in state.pins)
