"""State: pins and facts of a thread, how long they hold, and where they are kept."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from routed_agents.errors import StateError
from routed_agents.state import (
    EMPTY,
    PINS_KEPT,
    RUNS_KEPT,
    TURNS_KEPT,
    UNREAD,
    YOUNG_KEPT,
    YOUNG_S,
    MemoryStateStore,
    Pin,
    ThreadState,
    Turn,
    join,
    join_all,
    lineage_key,
    names_of,
    release_of,
    thread_facts,
)

TURN = Pin(scope="turn", tier="strong", key="plan", turn="h1", run="r1")
LINEAGE = Pin(scope="lineage", tier="strong", key="plan", code="legal")
THREAD = Pin(scope="thread", tier="mid", code="vip")
STATE = ThreadState(frozenset({TURN, LINEAGE, THREAD}), frozenset({"distress"}))


@pytest.mark.parametrize(
    ("key", "turn", "run", "held"),
    [
        ("plan", "h1", None, {TURN, LINEAGE, THREAD}),
        ("plan", "h2", None, {LINEAGE, THREAD}),
        ("plan", "h2", "r1", {TURN, LINEAGE, THREAD}),
        ("plan", None, None, {LINEAGE, THREAD}),
        ("label", "h1", "r1", {THREAD}),
    ],
)
def test_how_long_each_pin_holds(key: str, turn: str | None, run: str | None, held: set[Pin]) -> None:
    assert set(STATE.pinned(key=key, turn=turn, run=run)) == held


@pytest.mark.parametrize(
    ("node", "namespace", "branch", "key"),
    [
        ("plan", "", False, "plan"),
        (None, "", False, ""),
        ("plan", "plan:1", False, "plan"),
        (None, "agent:1|model:2", False, "agent/model"),
        ("model", "agent:1|model:2", False, "agent/model"),
        ("model", "tools:7|model:2", False, "tools:7/model"),
        ("grade", "grade:3", True, "grade:3"),
        ("grade", "outer:1|grade:3", True, "outer/grade:3"),
    ],
)
def test_a_lineage_is_named_by_nodes_and_by_the_ids_of_branches_only(node: str | None, namespace: str, branch: bool, key: str) -> None:
    assert lineage_key(node=node, namespace=namespace, branch=branch) == key


@pytest.mark.parametrize(
    ("names", "pins", "facts"),
    [
        (["distress"], {TURN, LINEAGE, THREAD}, set[str]()),
        (["legal"], {TURN, THREAD}, {"distress"}),
        (["vip", "distress"], {TURN, LINEAGE}, set[str]()),
        (["nobody"], {TURN, LINEAGE, THREAD}, {"distress"}),
    ],
)
def test_a_release_takes_facts_and_longer_pins_by_name(names: list[str], pins: set[Pin], facts: set[str]) -> None:
    after = STATE.join(release_of(names))

    assert (after.pins, after.facts) == (pins, facts)


def test_a_release_of_nothing_is_an_error() -> None:
    with pytest.raises(StateError, match="wanted facts or codes of pins"):
        release_of([])


def test_a_document_of_an_earlier_release_is_read() -> None:
    assert ThreadState.from_json({"v": 1, "pins": [], "facts": ["distress"]}) == ThreadState(facts=frozenset({"distress"}))


def test_only_the_latest_turns_are_kept() -> None:
    state = EMPTY
    for number in range(1, TURNS_KEPT + 9):
        state = state.join(ThreadState(turns=frozenset({Turn(number=number, name=f"h{number}")})))

    assert (len(state.turns), state.latest_turn) == (TURNS_KEPT, TURNS_KEPT + 8)


@pytest.mark.parametrize(
    ("name", "run", "since", "number"),
    [
        ("h1", "other", None, 1),
        ("other", "r2", None, 2),
        ("other", "other", "05", 2),
        ("other", "other", "06", None),
        ("h3", None, None, None),
    ],
)
def test_a_turn_is_known_by_its_message_its_run_and_what_it_takes_up(
    name: str, run: str | None, since: str | None, number: int | None
) -> None:
    state = ThreadState(turns=frozenset({Turn(number=1, name="h1", run="r1", at="01"), Turn(number=2, name="h2", run="r2", at="05")}))

    found = state.turn_of(name=name, run=run, since=since)

    assert (found.number if found else None) == number


@pytest.mark.parametrize(
    ("name", "going_on", "number"),
    [
        ("w@1", True, 1),
        ("w@2", True, 1),
        ("w@3", True, None),
        ("@v", True, 2),
        ("w@1", False, None),
        ("v@1", True, None),
        ("w", True, None),
    ],
)
def test_a_turn_that_goes_on_is_known_though_its_history_was_shortened(name: str, going_on: bool, number: int | None) -> None:
    state = ThreadState(turns=frozenset({Turn(number=1, name="w@2"), Turn(number=2, name="x@y")}))

    found = state.turn_of(name=name, run=None, since=None, going_on=going_on)

    assert (found.number if found else None) == number


def test_of_a_turn_whose_opening_is_cut_off_the_latest_pins_hold_while_it_goes_on() -> None:
    old, new = (Pin(scope="turn", tier="strong", key="plan", turn=f"w@{seq}", seq=seq) for seq in (1, 2))
    state = ThreadState(frozenset({old, new}))

    assert [state.pinned(key="plan", turn="@v", going_on=going_on) for going_on in (True, False)] == [(new,), ()]


def test_a_pin_holds_in_the_run_that_takes_up_its_own() -> None:
    pin = Pin(scope="turn", tier="strong", key="plan", turn="h1", run="r1", at="05")
    state = ThreadState(frozenset({pin}))

    assert [state.pinned(key="plan", turn="h2", run="r2", since=since) for since in (None, "04", "05", "06")] == [(), (pin,), (pin,), ()]


def test_only_so_many_pins_of_a_lineage_are_kept_the_latest_ones() -> None:
    many = [ThreadState(frozenset({Pin(scope="turn", tier="strong", key="plan", turn=f"t{at}", seq=at)})) for at in range(PINS_KEPT + 20)]
    state = EMPTY
    for each in many:
        state = state.join(each)

    assert sorted(pin.seq for pin in state.pins) == list(range(20, PINS_KEPT + 20))


def test_turn_pins_of_a_lineage_are_kept_for_the_latest_runs() -> None:
    pins = [
        Pin(scope="turn", tier="strong", key="plan", turn=turn, run=f"r{at}", seq=at * YOUNG_S * 2)
        for at in range(RUNS_KEPT + 20)
        for turn in "ab"
    ]

    kept = join_all(ThreadState(frozenset({pin})) for pin in pins).pins

    assert {pin.run for pin in kept} == {f"r{at}" for at in range(20, RUNS_KEPT + 20)}


@pytest.mark.parametrize("key", ["plan", f"map:{UUID(int=1)}"])
def test_the_last_pins_of_all_runs_that_may_be_going_on_are_kept(key):
    pins = [
        Pin(scope="turn", tier=tier, key=key, turn=f"{turn}", run=f"r{run}", seq=run * 10 + turn)
        for run in range(PINS_KEPT + 20)
        for tier, turn in (("mid", 0), ("strong", 1), ("strong", 2))
    ]
    kept = join_all(ThreadState(frozenset({pin})) for pin in pins).pins

    assert {(pin.run, pin.tier) for pin in kept} == {(pin.run, pin.tier) for pin in pins}


def test_of_runs_that_may_be_going_on_there_are_only_so_many():
    pins = [Pin(scope="turn", tier="strong", key="plan", run=f"r{run}", seq=1) for run in range(YOUNG_KEPT + 20)]

    assert len(join_all(ThreadState(frozenset({pin})) for pin in pins).pins) <= YOUNG_KEPT + PINS_KEPT


def test_a_pin_confirmed_again_is_one_pin() -> None:
    old, new = (Pin(scope="turn", tier="strong", key="plan", turn="h", seq=at) for at in (1, 2))

    assert ThreadState(frozenset({old})).join(ThreadState(frozenset({new}))).pins == {new}


def test_lineage_and_thread_pins_are_never_forgotten() -> None:
    state = ThreadState(frozenset({LINEAGE, THREAD}))
    for at in range(PINS_KEPT + 20):
        state = state.join(ThreadState(frozenset({Pin(scope="turn", tier="strong", key="plan", turn=f"t{at}", seq=at)})))

    assert {LINEAGE, THREAD} <= state.pins


def in_branches(runs: range, *, branches: int = 3) -> ThreadState:
    """A turn and a lineage pin in each branch of so many runs."""
    made = [(run, f"map:{UUID(int=run << 32 | branch)}") for run in runs for branch in range(branches)]
    pins = [Pin(scope="turn", tier="strong", key=key, turn=f"h{run}", run=f"r{run}", seq=run * YOUNG_S * 2) for run, key in made]
    return ThreadState(frozenset(pins + [Pin(scope="lineage", tier="strong", key=key, seq=run * YOUNG_S * 2) for run, key in made]))


def test_pins_in_branches_are_kept_for_the_latest_runs() -> None:
    state = EMPTY
    for run in range(RUNS_KEPT + 20):
        state = state.join(in_branches(range(run, run + 1)))

    assert state == in_branches(range(20, RUNS_KEPT + 20))


def test_a_name_with_the_sign_of_a_branch_in_it_is_no_branch() -> None:
    held = Pin(scope="lineage", tier="strong", key="support:reply", seq=0)
    later = [Pin(scope="turn", tier="strong", key="support:reply", turn=f"h{run}", run=f"r{run}", seq=run) for run in range(1, 99)]

    assert held in join_all(ThreadState(frozenset({pin})) for pin in [held, *later]).pins
    assert (names_of("support:reply"), names_of(f"g/map:{UUID(int=1)}/plan")) == ("support:reply", "g/map/plan")


def test_all_pins_in_the_branches_of_one_run_are_kept() -> None:
    state = in_branches(range(1), branches=2_000)

    assert join_all([state, in_branches(range(1, 2))]).pins >= state.pins


def test_lineages_that_are_named_like_branches_are_kept_outside_of_graphs() -> None:
    pins = [Pin(scope=scope, tier="strong", key=f"customer:{at}", turn="h", seq=at) for at in range(99) for scope in ("turn", "lineage")]

    assert join_all(ThreadState(frozenset({pin})) for pin in pins).pins == {*pins}


def test_states_joined_at_once_are_as_one_after_another() -> None:
    states = [STATE, release_of(["legal"]), thread_facts(["distress", "vip"]), UNREAD, EMPTY]

    assert join_all(states) == EMPTY.join(STATE).join(states[1]).join(states[2]).join(UNREAD)
    assert join_all([]) == EMPTY


def test_equal_states_are_equal_documents() -> None:
    again = ThreadState(frozenset({THREAD, LINEAGE, TURN}), frozenset({"distress"}))

    assert json.dumps(again.to_json()) == json.dumps(STATE.to_json())


@pytest.mark.parametrize("nothing", [None, {}])
def test_nothing_is_the_empty_state(nothing: dict[str, Any] | None) -> None:
    assert join(nothing, nothing) == EMPTY.to_json()


@pytest.mark.parametrize(
    "document",
    [
        {"v": 2},
        {"pins": [{"tier": "strong"}]},
        {"pins": [{"scope": "forever", "tier": "strong"}]},
        {"pins": [{"scope": "turn", "tier": "strong", "seq": "x"}]},
        {"pins": 3},
        {"facts": 3},
        {"facts": "distress"},
        {"facts": {"distress": True}},
        {"pins": [None]},
        {"marks": [{"noted": 3}]},
        {"turns": [{"name": "h"}]},
        [1],
        "state",
    ],
)
def test_what_is_no_routing_state_is_an_error(document: Any) -> None:
    with pytest.raises(StateError, match="routing state"):
        ThreadState.from_json(document)


def test_a_store_joins_what_it_is_given() -> None:
    store = MemoryStateStore()
    store.add("t", thread_facts(["a"]))
    store.add("t", thread_facts(["b"]))

    assert store.load("t").facts == {"a", "b"}


def test_a_store_knows_nothing_of_a_new_thread() -> None:
    assert MemoryStateStore().load("t") is EMPTY


def test_facts_and_lasting_pins_outlive_turn_pins() -> None:
    store = MemoryStateStore(threads=2)
    for thread in ("a", "b", "c", "d"):
        store.add(thread, STATE)

    assert [store.load(thread) for thread in ("a", "d")] == [ThreadState(STATE.pins - {TURN}, STATE.facts), STATE]


def test_pins_of_turns_that_are_over_make_room_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStateStore(threads=2)
    for thread in ("a", "b", "a", "c"):
        store.add(thread, ThreadState(frozenset({TURN})))

    assert ([bool(store.load(thread)) for thread in ("a", "b", "c")], store.forgotten, caplog.messages) == ([True, False, True], 0, [])


def test_pins_of_turns_that_may_go_on_are_kept_of_more_threads() -> None:
    store, young = MemoryStateStore(threads=1), ThreadState(frozenset({replace(TURN, seq=int(time.time()))}))
    for number in range(11):
        store.add(f"t{number}", young)

    assert [store.load(thread) for thread in ("t0", "t1", "t10")] == [UNREAD, young, young]


def test_a_thread_whose_facts_were_given_up_is_unread_and_told(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStateStore(threads=1, lasting=1)
    for thread in ("a", "b", "c", "d"):
        store.add(thread, thread_facts(["distress"]))

    store.add("a", ThreadState(frozenset({TURN})))

    assert [store.load(thread).unread for thread in ("a", "b", "c", "d", "new")] == [True, True, True, False, False]
    assert store.forgotten == 3
    assert caplog.messages == ["threads whose pins and facts were too many for this process's memory: 1; their steps count as unsure"]


def test_a_thread_that_could_not_be_read_stays_unread() -> None:
    store = MemoryStateStore(threads=1, lasting=1)
    for thread, state in (("a", UNREAD), ("b", thread_facts(["distress"])), ("c", STATE), ("d", STATE)):
        store.add(thread, state)

    assert store.load("a").unread


def test_a_thread_that_is_only_read_stays_one_of_the_latest() -> None:
    store = MemoryStateStore(threads=2)
    store.add("active", thread_facts(["distress"]))
    for number in range(5):
        store.load("active")
        store.add(f"other{number}", thread_facts(["seen"]))

    assert store.load("active").facts == {"distress"}
