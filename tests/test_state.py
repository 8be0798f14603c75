"""State: pins and facts of a thread, how long they hold, and where they are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routed_agents.errors import StateError
from routed_agents.state import EMPTY, PINS_KEPT, MemoryStateStore, Pin, ThreadState, join, lineage_key, thread_facts

TURN = Pin(scope="turn", tier="strong", key="plan", turn="h1", run="r1")
LINEAGE = Pin(scope="lineage", tier="strong", key="plan")
THREAD = Pin(scope="thread", tier="mid")
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
    ("scope", "key", "left"),
    [("turn", "plan", {LINEAGE, THREAD}), ("turn", "other", {TURN, LINEAGE, THREAD}), ("thread", "", {TURN, LINEAGE})],
)
def test_a_release_takes_the_pins_of_one_scope_and_key(scope: Any, key: str, left: set[Pin]) -> None:
    assert STATE.released(scope=scope, key=key) == ThreadState(frozenset(left), frozenset({"distress"}))


def test_only_so_many_pins_of_a_lineage_are_kept_the_latest_ones() -> None:
    many = [ThreadState(frozenset({Pin(scope="turn", tier="strong", key="plan", turn=f"t{at}", seq=at)})) for at in range(PINS_KEPT + 20)]
    state = EMPTY
    for each in many:
        state = state.join(each)

    assert sorted(pin.seq for pin in state.pins) == list(range(20, PINS_KEPT + 20))


def test_a_pin_confirmed_again_is_one_pin() -> None:
    old, new = (Pin(scope="turn", tier="strong", key="plan", turn="h", seq=at) for at in (1, 2))

    assert ThreadState(frozenset({old})).join(ThreadState(frozenset({new}))).pins == {new}


def test_lineage_and_thread_pins_are_never_forgotten() -> None:
    state = ThreadState(frozenset({LINEAGE, THREAD}))
    for at in range(PINS_KEPT + 20):
        state = state.join(ThreadState(frozenset({Pin(scope="turn", tier="strong", key="plan", turn=f"t{at}", seq=at)})))

    assert {LINEAGE, THREAD} <= state.pins


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
        {"pins": [None]},
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


def test_a_store_keeps_the_latest_threads() -> None:
    store = MemoryStateStore(threads=2)
    for thread in ("a", "b", "a", "c"):
        store.add(thread, thread_facts([thread]))

    assert [bool(store.load(thread).facts) for thread in ("a", "b", "c")] == [True, False, True]
