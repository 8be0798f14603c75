"""Recorded runs of agents, replayed step by step: which rules would have objected, and when."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from routed_agents.errors import StepError
from routed_agents.guards import Verdict
from routed_agents.policy import Policy
from routed_agents.sizes import length_of
from routed_agents.state import EMPTY, ThreadState
from routed_agents.steps import STAMP, Step

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A recorded run: its messages in the form steps are made of, and which of them a model wrote.

    Attributes:
        id: names the run.
        category: its kind, as recorded.
        messages: role, content, tool calls and the status of tool results.
        model_steps: places of the messages a model wrote after being given something.
        mistake: place of the message annotated as the decisive error, where there is one.
        tools: names of the tools that were called.
        one_turn: a single task was given, so all of it is one run of a graph; else each message of the person opens a turn.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    model_steps: tuple[int, ...]
    mistake: int | None = None
    tools: tuple[str, ...] = ()
    one_turn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a policy would have decided for each model step of a run.

    Attributes:
        trajectory: the run.
        objections: by model step, the codes of each guard that held the step up.
        strong: by model step, whether it would have gone to the top tier (or been stopped), pins included.
        stopped: by model step, the code of a stop.
        characters: by model step, the length of its prompt.
    """

    trajectory: Trajectory
    objections: tuple[Mapping[str, tuple[str, ...]], ...]
    strong: tuple[bool, ...]
    stopped: tuple[str | None, ...]
    characters: tuple[int, ...] = field(default=())

    def first(self, guards: Iterable[str] | None = None) -> int | None:
        """The first model step at which one of these guards objects, of all when None; None where none does."""
        wanted = None if guards is None else set(guards)
        for place, said in enumerate(self.objections):
            if said and (wanted is None or wanted & said.keys()):
                return place
        return None

    @property
    def mistaken(self) -> int | None:
        """The model step that holds the annotated mistake; None where it lies before the first one, or there is none."""
        mistake = self.trajectory.mistake
        return None if mistake is None else next((at for at, place in enumerate(self.trajectory.model_steps) if place == mistake), None)


def read_trajectory(row: Mapping[str, Any]) -> Trajectory:
    """Read a recorded run: `steps` are messages with `role` and `content`, and with `mistake_step` where the error is annotated.

    Two forms are known. Conversations with an assistant have the roles system, user, assistant and tool. Group chats of agents have an
    agent's name in `role` or `name`: their first message is the task, terminals are tools, everybody else is a model. What agents ask of
    others is read as a tool call: code in a fence, a click, words typed, an order to another agent. A terminal's or tool's result that
    says it failed is one that failed.

    Raises:
        StepError: the row has no steps.
    """
    steps: object = row.get("steps")
    if not isinstance(steps, list) or not steps:
        seen = "empty" if steps == [] else type(row.get("steps")).__name__
        raise StepError(f'"steps" is {seen}; wanted a list of {{"role", "content"}} objects, as in a recorded run')
    given = cast("Sequence[Message]", steps)
    group = "mistake_step" in row or any("name" in step for step in given)
    messages = tuple([_of_group(step, at) if group else _of_assistant(step) for at, step in enumerate(given)])
    told = {call["name"]: None for message in messages for call in message.get("tool_calls", ())}
    mistake = row.get("mistake_step")
    return Trajectory(
        id=str(row.get("id", "")),
        category=str(row.get("category", "")),
        messages=messages,
        model_steps=tuple([at for at, message in enumerate(messages) if at and message["role"] == "assistant"]),
        mistake=mistake if isinstance(mistake, int) else None,
        tools=tuple(told),
        one_turn=group,
    )


FAILED: Final = re.compile(
    r"\s*(?:error\b|exitcode: (?!0\b)\d+|the script ran, then exited with unix exit code: (?!0\b)\d+)", re.IGNORECASE
)
"""How tools and terminals say that they failed."""
FENCE: Final = re.compile(r"```(?:python|sh|bash)[^\n]*\n(.*?)```", re.DOTALL)
ACTED: Final = re.compile(r"I (?:clicked|typed|input|visited)\b[^\n]*")
ORDER: Final = re.compile(r"Orchestrator \(-> (.+)\)")


def _of_assistant(step: Message) -> Message:
    """A message of a conversation; tool results are recorded without a status."""
    role = str(step.get("role", "user"))
    if role == "tool":
        return {"role": "tool", "content": _content(step), "status": _status(_content(step))}
    return {"role": role, "content": _content(step), **({"tool_calls": step["tool_calls"]} if step.get("tool_calls") else {})}


def _of_group(step: Message, at: int) -> Message:
    """A message of a group chat of agents."""
    role, author, content = str(step.get("role", "")), str(step.get("name") or step.get("role") or ""), _content(step)
    if at == 0 or role == "human":
        return {"role": "user", "content": content}
    if author.replace("_", "").lower() == "computerterminal":
        return {"role": "tool", "content": content, "status": _status(content)}
    if role == "Orchestrator (termination condition)":
        return {"role": "tool", "content": content, "status": "success"}
    calls = [{"name": "run", "args": {"code": code}} for code in FENCE.findall(content)]
    if order := ORDER.fullmatch(role):
        calls.append({"name": order[1], "args": {"order": content}})
    elif acted := ACTED.match(content):
        calls.append({"name": author, "args": {"act": acted[0]}})
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}


def _content(step: Message) -> str:
    content = step.get("content")
    return content if isinstance(content, str) else "" if content is None else str(content)


def _status(content: str) -> str:
    return "error" if FAILED.match(content) else "success"


def replay(trajectory: Trajectory, policy: Policy, *, hindsight: bool = False) -> Replayed:
    """Decide every model step of a run on the history it was given, with the stamps and pins of the decisions before it.

    Args:
        trajectory: the run.
        policy: the rules.
        hindsight: tell each step how many model steps followed it, which nobody knew then; without it `downstream` is unknown.
    """
    history: list[Message] = []
    objections: list[Mapping[str, tuple[str, ...]]] = []
    strong: list[bool] = []
    stopped: list[str | None] = []
    characters: list[int] = []
    state: ThreadState = EMPTY
    steps, written, run = set(trajectory.model_steps), 0, trajectory.id if trajectory.one_turn else None
    for at, message in enumerate(trajectory.messages):
        if at not in steps:
            history.append({**message, "id": f"m{at}"})
            written += length_of(message)
            continue
        left = len(steps) - len(strong) - 1
        step = Step.from_messages(
            tuple(history),
            tools=trajectory.tools,
            node="agent",
            run=run,
            downstream=left if hindsight else None,
            id=f"{trajectory.id}:{at}",
        )
        decision = policy.decide(step, state)
        state = state.join(decision.state)
        objections.append(_by_guard(decision.verdicts))
        strong.append(decision.rank is None or decision.rank == policy.tiers.top)
        stopped.append(decision.stopped)
        characters.append(written)
        tier = decision.tier or policy.tiers[policy.tiers.top].name
        stamp = {"v": 1, "run": run, "tier": tier, "pin": decision.pin, "codes": list(decision.codes)}
        history.append({**message, "id": f"m{at}", "response_metadata": {STAMP: stamp}})
        written += length_of(message)
    return Replayed(
        trajectory=trajectory,
        objections=tuple(objections),
        strong=tuple(strong),
        stopped=tuple(stopped),
        characters=tuple(characters),
    )


def _by_guard(verdicts: Iterable[Verdict]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for verdict in verdicts:
        if verdict.floor > 0 or verdict.stop:
            found[verdict.guard] = (*found.get(verdict.guard, ()), verdict.code)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinning:
    """One way to send a run up from some model step on: where it starts in each run, None where it never does."""

    name: str
    starts: tuple[int | None, ...]

    def share(self, runs: Sequence[Replayed]) -> float:
        """Share of all model steps that are strong."""
        up = sum(len(run.strong) - start for run, start in zip(runs, self.starts, strict=True) if start is not None)
        return up / max(sum(len(run.strong) for run in runs), 1)

    def caught(self, runs: Sequence[Replayed]) -> tuple[bool, ...]:
        """By run, whether the step of the mistake was strong."""
        return tuple(
            [start is not None and run.mistaken is not None and start <= run.mistaken for run, start in zip(runs, self.starts, strict=True)]
        )


def pinning(name: str, runs: Sequence[Replayed], guards: Iterable[str] | None = None) -> Pinning:
    """Strong from the first objection of these guards on, of any guard when None."""
    return Pinning(name=name, starts=tuple([run.first(guards) for run in runs]))


def by_length(runs: Sequence[Replayed], share: float) -> Pinning:
    """Strong from the first prompt of a length on, the length chosen so that the share of strong steps comes closest."""
    lengths = sorted({length for run in runs for length in run.characters})
    best = Pinning(name="length", starts=tuple([None for _ in runs]))
    low, high = 0, len(lengths)
    while low < high:  # the share falls as the length grows
        middle = (low + high) // 2
        found = _from_length(runs, lengths[middle])
        if abs(found.share(runs) - share) < abs(best.share(runs) - share):
            best = found
        if found.share(runs) > share:
            low = middle + 1
        else:
            high = middle
    return best


def _from_length(runs: Sequence[Replayed], length: int) -> Pinning:
    starts = [next((at for at, size in enumerate(run.characters) if size >= length), None) for run in runs]
    return Pinning(name="length", starts=tuple(starts))


def at_random(runs: Sequence[Replayed], share: float) -> tuple[float, ...]:
    """By run, the chance that a pin set at random is there at the mistake: every step has the same chance to set one.

    The chance is chosen so that the expected share of strong steps is the given one; nothing is drawn.
    """
    total = sum(len(run.strong) for run in runs)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        expected = sum(1 - (1 - middle) ** (at + 1) for run in runs for at in range(len(run.strong)))
        low, high = (low, middle) if expected > share * total else (middle, high)
    return tuple([0.0 if run.mistaken is None else 1 - (1 - high) ** (run.mistaken + 1) for run in runs])


def located(runs: Iterable[Replayed]) -> Iterator[Replayed]:
    """The runs whose annotated mistake is a model step we can decide."""
    return (run for run in runs if run.mistaken is not None)
