"""Graph runs killed with SIGKILL at every point and taken up by a new process: the decisions are those of a run that was left alone.

Real processes kill themselves, and others go on from the saver's checkpoints. Each test prints how often; KILL_EVERY=1 kills at every
point there is, else at some of them in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

PROGRAM = Path(__file__).parent / "killed_runs.py"
KILLED = -9
_threads = count()


@dataclass
class Story:
    """What the book of a thread says: the calls its providers saw, in order, and how it ended."""

    lines: list[dict[str, Any]]
    killed_at: str = ""

    @property
    def outcome(self) -> dict[str, Any]:
        return self.lines[-1]["outcome"]

    @property
    def points(self) -> int:
        return int(self.lines[-1]["points"])

    @property
    def lowered(self) -> list[Any]:
        """Calls that were made on the strong tier, and then again on the cheap one; an input no saver had got begins a turn anew."""
        strong: set[str] = set()
        found: list[Any] = []
        for line in self.lines:
            if line.get("given"):
                strong.clear()
            if "call" not in line:
                continue
            name = json.dumps(line["call"])
            if line["tier"] == "strong":
                strong.add(name)
            elif name in strong:
                found.append(line["call"])
        return found


@dataclass
class Runs:
    """Runs jobs, each in a process of its own."""

    folder: Path
    address: str | None
    make: Callable[[dict[str, Any]], int]

    def story(self, *kills: dict[str, Any], **job: Any) -> Story:
        """A thread that is killed at each of these points, and then left alone."""
        thread = f"t{next(_threads)}"
        given = {
            "saver": "sqlite" if self.address is None else "postgres",
            "at": self.address or str(self.folder / f"{thread}.db"),
            "book": str(self.folder / f"{thread}.jsonl"),
            "thread": thread,
            "store": False,
            "async": False,
            "durability": "async",
            "late_s": 0.0,
            **job,
        }
        ends = [self.make({**given, **kill}) for kill in (*kills, {})]
        assert ends == [KILLED] * len(kills) + [0]
        lines = [json.loads(line) for line in Path(given["book"]).read_text().splitlines()]
        reached = [line["point"] for line in lines if line["pid"] == lines[0]["pid"] and "point" in line]
        return Story(lines, reached[-1] if kills else "")


@contextmanager
def forking() -> Generator[Callable[[dict[str, Any]], int]]:
    """Makes processes that have imported everything already."""
    with subprocess.Popen([sys.executable, str(PROGRAM), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def make(job: dict[str, Any]) -> int:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps(job) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield make


def starting(job: dict[str, Any]) -> int:
    """Starts a new interpreter, with LangGraph's strict serializer; it must not complain."""
    strict = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    command = [sys.executable, str(PROGRAM)]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False, timeout=120, env=strict)
    assert "unregistered" not in done.stderr.lower()
    return done.returncode


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str | None:
    """Where the checkpoints go: a file for each thread, or a PostgreSQL server."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_address")


@pytest.fixture(scope="module")
def runs(address: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with forking() as make:
        yield Runs(tmp_path_factory.mktemp("killed"), address, make)


def some(points: int, every: int) -> range:
    """Points to be killed at: each with KILL_EVERY=1, else one in so many."""
    return range(1, points + 1, int(os.environ.get("KILL_EVERY") or every))


@pytest.mark.parametrize(
    ("job", "every"),
    [
        ({"durability": "sync"}, 6),
        ({"durability": "async"}, 10),
        ({"durability": "sync", "store": True}, 25),
        ({"durability": "async", "store": True, "late_s": 0.02}, 30),
        ({"durability": "async", "async": True}, 15),
    ],
    ids=["sync", "background", "with a store", "saved late", "async"],
)
def test_a_run_killed_anywhere_decides_as_one_left_alone(runs: Runs, job: dict[str, Any], every: int) -> None:
    alone = runs.story(graph="desk", **job)
    stories = [runs.story({"kill_at": point}, graph="desk", **job) for point in some(alone.points, every)]

    print(f"\n{len(stories)} kills among {alone.points} points, {job}")  # noqa: T201
    assert [(story.killed_at, story.outcome) for story in stories if story.outcome != alone.outcome] == []
    assert [(story.killed_at, story.lowered) for story in stories if story.lowered] == []


def test_the_run_left_alone_has_pins_of_every_kind(runs: Runs) -> None:
    """What the other tests compare with is worth comparing: the critic's and the summary's steps are held by their turn alone."""
    made = runs.story(graph="desk").outcome["made"]

    assert made == sorted(
        [
            *["listen: cheap", "plan: strong", "act: strong strong", "summarized", "act: strong strong", "deep"],
            *["listen: cheap", "plan: cheap", "act: cheap cheap", "summarized", "act: cheap cheap", "quick"],
            *["branchb: strong strong", "branchb: cheap cheap", *["brancha: cheap cheap", "branchc: cheap cheap"] * 2],
            *["reduce: cheap", "answer: strong"] * 2,
        ]
    )


@pytest.mark.parametrize("late_s", [0.0, 0.02], ids=["saved at once", "saved late"])
@pytest.mark.parametrize("way", [False, True], ids=["sync", "async"])
def test_an_answer_turned_down_before_the_kill_keeps_its_step_up(runs: Runs, way: bool, late_s: float) -> None:
    """The pin of the node that was cut off comes from the run's store, for the graph's own state has lost it, and maybe the checkpoint."""
    job = {"graph": "rejected", "store": True, "async": way, "late_s": late_s}
    stories = [runs.story({"kill_at": point}, **job) for point in some(runs.story(**job).points, 2)]

    print(f"\n{len(stories)} kills, {job}")  # noqa: T201
    assert [(story.killed_at, story.lowered) for story in stories if story.lowered] == []


def test_a_run_killed_again_and_again_decides_as_one_left_alone(runs: Runs) -> None:
    alone = runs.story(graph="desk")
    stories = [runs.story(*[{"kill_at": step}] * 6, graph="desk") for step in (31, 43)]

    assert [(story.killed_at, story.outcome) for story in stories if story.outcome != alone.outcome] == []


def test_a_new_interpreter_goes_on_as_a_fork_does_and_reads_strictly(runs: Runs) -> None:
    fresh = Runs(runs.folder, runs.address, starting)
    where = ["critic ran", "branch was answered"]
    stories = [fresh.story({"kill_in": each}, graph="desk") for each in where]

    assert [story.outcome for story in stories] == [runs.story(graph="desk").outcome] * len(where)
