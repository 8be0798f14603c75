"""Recorded runs, read and replayed."""

from __future__ import annotations

from typing import Any

import pytest

from routed_agents.errors import StepError
from routed_agents.offline.trajectories import Pinning, Replayed, at_random, by_length, located, pinning, read_trajectory, replay
from routed_agents.policy import Policy

POLICY = Policy.default()
CODE = "```python\nprint(1)\n```"


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def group(*steps: dict[str, Any], mistake: int = 1) -> dict[str, Any]:
    task = said("assistant", "Classify the sentiment of the reviews as positive or negative", name="Manager")
    return {"id": "r", "category": "made up", "mistake_step": mistake, "steps": [task, *steps]}


FAILING = [
    said("user", f"{CODE} {at}", name="Coder") if at % 2 else said("user", "exitcode: 1 (execution failed)", name="Computer_terminal")
    for at in range(1, 9)
]


def test_a_group_chat_has_a_task_models_and_a_terminal() -> None:
    read = read_trajectory(group(*FAILING[:4], said("Orchestrator (-> Surfer)", "look"), said("Surfer", "I clicked 'x'.\nA page")))

    assert [message["role"] for message in read.messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant", "assistant"]
    assert (read.model_steps, read.tools, read.one_turn) == ((1, 3, 5, 6), ("run", "Surfer"), True)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("exitcode: 1 (execution failed)", "error"),
        ("exitcode: 0 (execution succeeded)", "success"),
        ("Error: no such flight", "error"),
        ("The script ran, then exited with Unix exit code: 2", "error"),
        ("The script ran, then exited with Unix exit code: 0", "success"),
        ("[]", "success"),
    ],
)
def test_a_result_that_says_it_failed_failed(content: str, status: str) -> None:
    read = read_trajectory({"steps": [said("user", "a"), said("assistant", ""), said("tool", content)]})

    assert read.messages[2]["status"] == status


@pytest.mark.parametrize("row", [{}, {"steps": []}, {"steps": "text"}])
def test_a_row_without_steps_is_one_clear_line(row: dict[str, Any]) -> None:
    with pytest.raises(StepError, match='"steps" is'):
        read_trajectory(row)


def test_a_stall_is_found_at_its_step_and_pins_what_follows() -> None:
    other = [said("user", f"```python\nprint({at})\n```", name="Coder") for at in range(3)]
    terminal = FAILING[1]
    run = replay(read_trajectory(group(other[0], terminal, other[1], terminal, other[2], said("user", "done", name="Coder"))), POLICY)

    assert (run.first(["stall"]), run.objections[2], run.strong) == (2, {"stall": ("tool_errors",)}, (False, False, True, True))


def test_the_same_call_over_and_over_stops() -> None:
    run = replay(read_trajectory(group(*[said("user", CODE, name="Coder")] * 9)), POLICY)

    assert (run.first(["stall"]), run.stopped[:7]) == (3, (None, None, None, None, None, None, "stalled"))


def test_what_followed_is_known_in_hindsight_only() -> None:
    row = group(*[said("user", f"part {at}", name="Coder") for at in range(4)])
    row["steps"][0]["content"] = "Write a Python function that merges overlapping intervals and returns them sorted."

    with_hindsight, without = (replay(read_trajectory(row), POLICY, hindsight=known) for known in (True, False))

    assert (with_hindsight.first(["compounding"]), without.first(["compounding"])) == (0, None)


def run(*, length: int, mistake: int | None, start: int | None) -> Replayed:
    """A run whose guard objects at one step."""
    row = group(*[said("user", "x" * 10, name="Coder")] * length, mistake=-1 if mistake is None else mistake + 1)
    done = replay(read_trajectory(row), POLICY.replace(guards=[]))
    told = tuple([{"made_up": ("code",)} if at == start else {} for at in range(length)])
    return Replayed(trajectory=done.trajectory, objections=told, strong=done.strong, stopped=done.stopped, characters=done.characters)


RUNS = [run(length=4, mistake=2, start=1), run(length=4, mistake=2, start=3), run(length=2, mistake=0, start=None)]


def test_a_mistake_is_caught_by_what_is_strong_at_or_before_it() -> None:
    way = pinning("made up", RUNS, ["made_up"])

    assert (way.starts, way.share(RUNS), way.caught(RUNS)) == ((1, 3, None), 0.4, (True, False, False))


def test_a_run_whose_mistake_is_before_any_model_step_is_left_out() -> None:
    assert [each.mistaken for each in located([*RUNS, run(length=2, mistake=None, start=0)])] == [2, 2, 0]


def test_chance_pins_as_many_steps_and_no_more() -> None:
    chances = at_random(RUNS, 0.4)

    assert (chances[0] == chances[1] > chances[2] > 0, at_random(RUNS, 0.0)[0] < 1e-9, at_random(RUNS, 1.0)[2] > 0.999) == (
        True,
        True,
        True,
    )


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 1.0])
def test_length_pins_as_many_steps_as_it_can(share: float) -> None:
    assert by_length(RUNS, share).share(RUNS) == pytest.approx(share, abs=0.21)


def test_a_way_that_never_pins_has_no_share() -> None:
    assert Pinning(name="never", starts=(None, None, None)).share(RUNS) == 0.0
