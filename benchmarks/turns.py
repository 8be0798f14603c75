"""Simulates conversations in graphs and counts broken promises: tiers that fall within a turn, pins that are lost, pins that leak.

The policy, the router, the stamps, the state and the lineage keys are the shipped ones; people, graphs, model replies and token counts are
made up by a seeded generator, so no figure here says how good an answer is, and every cost is simulated at list price. What must hold is
worked out a second time, beside the code that is judged: by labels of lineages and a book of ranks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from routed_agents import Ledger, Policy, Router, Step
from routed_agents.errors import StepStopped
from routed_agents.guards import DISTRESS
from routed_agents.pricing import Prices, Usage
from routed_agents.state import EMPTY, MemoryStateStore, StateStore, ThreadState, join
from routed_agents.steps import Resumed
from routed_agents.telemetry import Telemetry

ASKED: Final = (
    ("classification", "Classify the sentiment of this review as positive or negative: quick delivery, nice colour."),
    ("classification", "Is this message spam, yes or no? You have won a bicycle."),
    ("extraction", "Extract the order number and the date from: order A-1044, placed on 3 May."),
    ("rag_lookup", "Using the help article, how long does a return take?"),
    ("rag_lookup", "According to the handbook, who approves travel?"),
    ("summarization", "Summarize the minutes of the meeting in two sentences."),
    ("marketing_copy", "Write a short slogan for a new thermos bottle."),
    ("multi_turn", "Thanks! And which colour would you take?"),
    ("multi_turn", "No, that's not what I asked."),
    ("knowledge_qa", "Why did the Hanseatic League decline?"),
    ("math_reasoning", "Solve step by step: a train leaves at 9:10 at 80 km/h, another at 9:40 at 110 km/h. When do they meet?"),
    ("code_generation", "Write a Python function that merges overlapping intervals."),
    ("debug_refactor", "Debug this traceback and fix the race in the worker pool."),
    ("empathy_escalation", "My husband died last week and I cannot cope with this invoice."),
    (None, "Plan the offsite: find a venue, compare prices, book it and tell everyone."),
    (None, "xyzzy plugh"),
)
"""What people ask for, and the class a graph's author would declare."""
COMMON: Final = (9, 5, 6, 9, 5, 6, 4, 9, 1, 3, 2, 3, 1, 1, 2, 1)
"""How often each of them comes."""
SHAPES: Final = ("chat", "agent", "rag", "supervisor", "fan_out", "subgraph", "agent_as_tool")
LONG: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A model call a graph is going to make.

    Attributes:
        lineage: our own name of its lineage, to judge by.
        shared: it extends the conversation; else it has a prompt of its own.
        calls: arguments of the tool call in its reply, if it makes one.
        failing: the tool fails.
        rejected: a cheap model's first answer will be empty.
        lost: attempts whose node was interrupted or failed afterwards, so that its writes are lost and it is run again.
    """

    node: str
    lineage: str
    text: str = ""
    task_class: str | None = None
    outer: str = ""
    branch: bool = False
    shared: bool = True
    calls: int | None = None
    failing: bool = False
    rejected: bool = False
    lost: int = 0
    task: int = 0
    own_state: bool = False


@dataclass(slots=True)
class Strategy:
    """What one way of choosing tiers came to."""

    name: str
    strong: int = 0
    calls: int = 0
    downgrades: int = 0
    cost_pico: int = 0
    warm: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])
    floors: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])


@dataclass(slots=True)
class Report:
    """What the simulation found; the four counts must be 0."""

    turns: int = 0
    steps: int = 0
    downgrades: int = 0
    lost_pins: int = 0
    leaked_to_threads: int = 0
    leaked_to_detached: int = 0
    misbilled_pico: int = 0
    stalled: int = 0
    events: dict[str, int] = field(default_factory=dict[str, int])
    strategies: dict[str, Strategy] = field(default_factory=dict[str, Strategy])

    @property
    def broken(self) -> int:
        """Promises that were broken."""
        return self.downgrades + self.lost_pins + self.leaked_to_threads + self.leaked_to_detached

    def share(self, name: str) -> float:
        """Share of strong calls of a strategy."""
        strategy = self.strategies[name]
        return strategy.strong / max(strategy.calls, 1)

    def seen(self, event: str) -> None:
        self.events[event] = self.events.get(event, 0) + 1


@dataclass(slots=True)
class Thread:
    """One conversation: its messages, its graph's channel if it has one, and the book of what must hold."""

    name: str
    shape: str
    channel: dict[str, Any] | None
    in_graph: bool
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ranks: list[tuple[int, int] | None] = field(default_factory=list[tuple[int, int] | None])  # of each message: run and rank it shows
    run: int = 0
    lives: int = 0
    checkpoints: int = 0
    begun: str = ""
    written: int = 0
    sticky: int = 0
    tokens: int = 400
    facts: set[str] = field(default_factory=set[str])
    floors: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    done: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    pinned: set[tuple[str, str, int]] = field(default_factory=set[tuple[str, str, int]])

    def say(self, message: dict[str, Any], shows: tuple[int, int] | None = None) -> None:
        self.written += 1
        self.messages.append({**message, "id": f"m{self.written}"})  # the same ids in every thread: a leak would find its target
        self.ranks.append(shows)
        self.tokens += 60

    @property
    def run_id(self) -> str | None:
        """The same names in every thread; a run that takes up another has a name of its own."""
        return f"run{self.run}.{self.lives}" if self.in_graph else None

    @property
    def at(self) -> str:
        """The checkpoint the thread has come to."""
        return f"{self.checkpoints:08}"

    def begin(self) -> None:
        """New input comes in."""
        self.run += 1
        self.lives = 0
        self.checkpoints += 1
        self.begun = self.at

    @property
    def shown(self) -> int:
        """The highest rank that replies of this turn still show."""
        return max((shows[1] for shows in self.ranks if shows is not None and shows[0] == self.run), default=0)


class Simulation:
    """Runs threads side by side, a turn of each in turn, on routers that are restarted now and then."""

    def __init__(self, policy: Policy, *, seed: int) -> None:
        self.policy = policy
        self.random = Random(seed)
        self.report = Report()
        self.prices = Prices()
        for name in ("routed", "all strong", "all cheap", "per-step flip", "sticky by thread"):
            self.report.strategies[name] = Strategy(name)
        self.router = self._router(MemoryStateStore())
        self.number = 0
        self.tasks = 0

    def _router(self, store: StateStore) -> Router:
        return Router(self.policy, ledger=Ledger.memory(), prices=self.prices, telemetry=Telemetry.off(), store=store)

    def run(self, turns: int) -> Report:
        """Simulate at least so many turns."""
        while self.report.turns < turns:
            beside = [self._thread() for _ in range(4)]
            for _ in range(self.random.randrange(2, 9)):
                for thread in beside:
                    self._turn(thread)
            self._settle_accounts()
        return self.report

    def _thread(self) -> Thread:
        self.number += 1
        shape = self.random.choice(SHAPES)
        in_graph = shape != "chat" or self.random.random() < 0.5
        channel = {} if in_graph and self.random.random() < 0.6 else None
        return Thread(name=f"t{self.number}", shape=shape, channel=channel, in_graph=in_graph)

    def _settle_accounts(self) -> None:
        """The ledger of our own strategy must say what the strategy's book says, whatever was restarted."""
        routed = self.report.strategies["routed"]
        self._billed = getattr(self, "_billed", 0) + self.router.ledger.total().cost_pico
        self.report.misbilled_pico = abs(self._billed - routed.cost_pico)
        self.router = self._router(MemoryStateStore())

    # ---- one turn

    def _turn(self, thread: Thread) -> None:
        self.report.turns += 1
        thread.begin()
        task_class, text = self.random.choices(ASKED, COMMON)[0]
        if thread.run > 1 and self.random.random() < 0.15:
            self._trim(thread, middle=False)
        if self.random.random() < 0.02:
            thread.tokens += LONG
            self.report.seen("long context")
        thread.say({"role": "user", "content": text})
        fan: list[dict[str, Any]] = []
        for planned in self._plan(thread, task_class, text):
            self._disturb(thread)
            went_on = self._attempts(thread, planned, fan)
            if not went_on:
                self.report.stalled += 1
                break
        if thread.channel is not None and fan:
            self.random.shuffle(fan)  # branches end in any order
            for update in fan:
                thread.channel = join(thread.channel, update)

    def _plan(self, thread: Thread, task_class: str | None, text: str) -> Iterator[Planned]:
        declared = task_class if self.random.random() < 0.5 else None
        shape, random = thread.shape, self.random
        if shape == "chat":
            yield self._planned("chat", "chat", task_class=declared)
        elif shape == "rag":
            for _ in range(random.randrange(1, 4)):
                yield self._planned("grade", "grade", task_class="classification", shared=False, text=f"Does the passage answer it? {text}")
            yield self._planned("generate", "generate", task_class=declared or "rag_lookup")
        elif shape == "supervisor":
            for _ in range(random.randrange(1, 4)):
                yield self._planned("supervisor", "supervisor", task_class=random.choice((None, "classification", declared)))
                worker = random.choice(("research", "write", "label"))
                own = worker == "label"
                yield self._planned(
                    worker,
                    f"team/{worker}",
                    outer="team:77",
                    shared=not own,
                    task_class="classification" if own else declared,
                    text="Label this ticket as bug or wish" if own else "",
                )
        elif shape == "fan_out":
            self.tasks += 1
            for branch in range(random.randrange(2, 6)):
                for _ in range(random.randrange(1, 3)):
                    yield replace(
                        self._planned(
                            "map",
                            f"map#{self.tasks}.{branch}",
                            shared=False,
                            task_class=random.choice(("summarization", "extraction", "code_generation", None)),
                            text=f"Summarize part {branch} of the report in one sentence",
                        ),
                        branch=True,
                        task=self.tasks * 10 + branch,
                    )
            yield self._planned("reduce", "reduce", task_class=declared or "summarization")
        elif shape == "agent_as_tool":
            yield from self._loop("model", "model", declared)
            self.tasks += 1
            tool = self.tasks
            for _ in range(random.randrange(1, 3)):
                asked = random.choice(("extraction", "knowledge_qa"))
                yield replace(
                    self._planned("model", f"child#{tool}", task_class=asked, shared=False, text="Look up the fare"),
                    outer=f"tools:{tool}",
                    own_state=True,
                )
            yield self._planned("model", "model", task_class=declared)
        else:
            outer = "inner:5" if shape == "subgraph" else ""
            yield from self._loop("act", f"{outer}act", declared, outer=outer)

    def _loop(self, node: str, lineage: str, declared: str | None, *, outer: str = "") -> Iterator[Planned]:
        """A tool loop; sometimes one that makes the same call again, or whose tools fail."""
        random = self.random
        rounds, stuck, failing = random.randrange(1, 5), random.random() < 0.05, random.random() < 0.06
        if stuck or failing:
            rounds += 6
        for at in range(rounds):
            yield replace(self._planned(node, lineage, task_class=declared, outer=outer), calls=0 if stuck else at, failing=failing)
        yield self._planned(node, lineage, task_class=declared, outer=outer)

    def _planned(self, node: str, lineage: str, **more: Any) -> Planned:
        lost = self.random.choices((0, 1, 2), (92, 7, 1))[0]
        return Planned(node=node, lineage=lineage, rejected=self.random.random() < 0.04, lost=lost, **more)

    # ---- what goes on around the steps

    def _disturb(self, thread: Thread) -> None:
        dice = self.random.random()
        if dice < 0.04:
            self._restart(thread)
        elif dice < 0.07 and thread.in_graph and len(thread.messages) > 3:
            self._trim(thread, middle=True)

    def _restart(self, thread: Thread) -> None:
        """A new process with the stored states of the threads: another run takes up the one that was cut off, from its checkpoint.

        Without a checkpoint the history comes back as bare text.
        """
        self.report.seen("restarts")
        if thread.channel is None:
            for message in thread.messages:
                message.pop("response_metadata", None)
            thread.ranks = [None] * len(thread.ranks)
        else:
            thread.channel = json.loads(json.dumps(thread.channel))
            thread.lives += 1
        store = MemoryStateStore()
        for name in (f"t{number}" for number in range(max(1, self.number - 3), self.number + 1)):
            store.add(name, ThreadState.from_json(json.loads(json.dumps(self.router.store.load(name).to_json()))))
        self.router = self._router(store).replace(ledger=self.router.ledger)

    def _trim(self, thread: Thread, *, middle: bool) -> None:
        """Messages are cut off; in the middle of a turn a summary written as a person's message takes the place of all but tool results."""
        self.report.seen("summaries in mid-turn" if middle else "trims between turns")
        if middle:
            thread.messages, thread.ranks = [], []
            summary = "Summary so far: the request is being worked on."
            thread.say({"role": "user", "content": summary, "additional_kwargs": {"lc_source": "summarization"}})
            thread.tokens = 300
        else:
            keep = self.random.randrange(0, 4)
            thread.messages, thread.ranks = thread.messages[-keep:] if keep else [], thread.ranks[-keep:] if keep else []
            while thread.messages and thread.messages[0]["role"] == "tool":
                del thread.messages[0], thread.ranks[0]
            thread.tokens = 300

    # ---- one step

    def _attempts(self, thread: Thread, planned: Planned, fan: list[dict[str, Any]]) -> bool:
        """Make a node's call, once more for every time its writes are lost; false when it was stopped."""
        self.tasks += 1
        task = planned.task or self.tasks
        for again in range(planned.lost + 1):
            if again:
                self.report.seen("interrupts and retries")
            if not self._call(thread, planned, task, fan, lost=again < planned.lost):
                return False
        return True

    def _call(self, thread: Thread, planned: Planned, task: int, fan: list[dict[str, Any]], *, lost: bool) -> bool:
        self.report.steps += 1
        messages = list(thread.messages) if planned.shared else [{"role": "user", "content": f"{planned.text} (case {thread.run})"}]
        tokens = thread.tokens if planned.shared else 300
        thread.checkpoints += 1
        step = Step.from_messages(
            messages,
            node=planned.node,
            task_class=planned.task_class,
            tokens=tokens,
            run=thread.run_id,
            at=thread.at if thread.channel is not None else None,
            tools=("look",),
        )
        step = replace(step, resumed=Resumed(begun=thread.begun, spoken=thread.begun) if thread.lives else None)
        namespace = "|".join([part for part in (planned.outer, f"{planned.node}:{task}") if part])
        with_channel = thread.channel is not None and not planned.own_state
        opened = self.router.step(
            step,
            thread=thread.name,
            namespace=namespace,
            branch=planned.branch,
            state=ThreadState.from_json(thread.channel) if with_channel else None,
            memory=f"task:{thread.name}:{namespace}" if with_channel else None,
        )
        place = (planned.lineage, thread.run)
        floor = max(thread.floors.get(place, 0), thread.shown if planned.shared else 0)
        served: list[int] = []
        reply: dict[str, Any] = {"role": "assistant", "content": "done"}
        if planned.calls is not None:
            reply["tool_calls"] = [{"name": "look", "args": {"at": planned.calls}, "id": f"c{task}"}]
        try:
            with opened as call:
                decided = call.decision
                for attempt in call.attempts():
                    with attempt:
                        served.append(attempt.row.rank)
                        empty = planned.rejected and attempt.row.rank == 0
                        usage = self._usage("routed", thread, planned, attempt.row.rank, tokens)
                        attempt.record({"role": "assistant", "content": ""} if empty else reply, usage=usage)
                stamp = json.loads(json.dumps(call.stamp()))
                final = call.decision
        except StepStopped:
            self._judge(thread, planned, decided.rank, decided.pins, floor, step)
            return False
        rank = served[-1]
        self._judge(thread, planned, decided.rank, decided.pins, floor, step)
        self._compare(thread, planned, step, rank, tokens)
        for name in {fact for each in (decided, final) for fact in each.state.facts}:
            if not lost and (thread.channel is None or with_channel):
                thread.facts.add(name)
        thread.floors[place] = max(thread.floors.get(place, 0), rank)
        thread.pinned |= {(pin.key, pin.tier, thread.run) for each in (decided, final) for pin in each.state.pins}
        if lost:
            return True
        thread.done[place] = max(thread.done.get(place, 0), rank)
        if with_channel:
            update = decided.state.join(final.state).to_json()
            if planned.branch:
                fan.append(update)
            else:
                thread.channel = join(thread.channel, update)
        if planned.shared:
            thread.say({**reply, "response_metadata": {"routed_agents": stamp}}, (thread.run, rank))
            if planned.calls is not None:
                status = "error" if planned.failing else "success"
                thread.say({"role": "tool", "content": "found", "tool_call_id": f"c{task}", "status": status})
        return True

    def _judge(self, thread: Thread, planned: Planned, rank: int | None, pins: Sequence[Any], floor: int, step: Step) -> None:
        """Hold a decision against the book; a stop is above everything."""
        place = (planned.lineage, thread.run)
        for pin in pins:
            ours = (pin.key, pin.tier, thread.run) in thread.pinned
            shown = planned.shared and self.policy.tiers.rank_of_pin(pin.tier) <= thread.shown
            if not ours and not shown:
                self.report.leaked_to_threads += 1
        if rank is None:
            return
        if rank < max(thread.done.get(place, 0), thread.shown if planned.shared else 0):
            self.report.downgrades += 1
        elif rank < floor:
            self.report.lost_pins += 1
        if (
            DISTRESS in thread.facts
            and not planned.own_state
            and self.policy.taxonomy.row(planned.task_class or "extraction").person_facing
        ):
            self.report.lost_pins += rank < self.policy.tiers.top
        if not planned.shared:
            alone = self.policy.decide(step, ThreadState(facts=frozenset(thread.facts) if not planned.own_state else frozenset()))
            if alone.rank is not None and rank > max(alone.rank, thread.floors.get(place, 0)):
                self.report.leaked_to_detached += 1

    def _compare(self, thread: Thread, planned: Planned, step: Step, rank: int, tokens: int) -> None:
        """The same call under the other ways of choosing; each pays for the answers that were rejected on the cheap tier."""
        history: list[dict[str, Any]] = [dict(each) for each in step.messages]  # type: ignore[call-overload]
        for message in history:
            message.pop("response_metadata", None)
        alone = self.policy.decide(replace(step, messages=tuple(history)), EMPTY).rank
        top = self.policy.tiers.top
        flip = top if alone is None else alone
        thread.sticky = max(thread.sticky, top if planned.rejected else flip)
        chosen = {"all strong": top, "all cheap": 0, "per-step flip": flip, "sticky by thread": thread.sticky}
        for name, given in chosen.items():
            self._usage(name, thread, planned, given, tokens)
            if planned.rejected and given == 0 and name != "all cheap":
                self._usage(name, thread, planned, top, tokens)
                chosen[name] = top
        for name, given in {"routed": rank, **chosen}.items():
            strategy = self.report.strategies[name]
            strategy.calls += 1
            strategy.strong += given == top
            place = (thread.name, planned.lineage, thread.run)
            strategy.downgrades += given < strategy.floors.get(place, 0)
            strategy.floors[place] = max(strategy.floors.get(place, 0), given)

    def _usage(self, name: str, thread: Thread, planned: Planned, rank: int, tokens: int) -> Usage:
        """The tokens of a call whose prompt is cached per model and history, and their cost on a strategy's bill."""
        strategy = self.report.strategies[name]
        place = (thread.name, "" if planned.shared else planned.lineage, rank)
        warm = min(strategy.warm.get(place, 0), tokens)
        usage = Usage(cache_read=warm, cache_write_5m=tokens - warm, output=80)
        deployment = self.policy.tiers[rank].deployments[0]
        cost, _ = self.router.price(deployment, deployment.model, usage)
        assert cost is not None
        strategy.cost_pico += cost.total_pico
        if len(strategy.warm) > 4_096:
            strategy.warm.clear()
        strategy.warm[place] = tokens
        return usage


def simulate(*, turns: int, seed: int = 7, tiers: str = "claude") -> Report:
    """Simulate so many turns, or a few more, of the default policy over these tiers."""
    return Simulation(Policy.default(tiers=tiers), seed=seed).run(turns)


def main(console: Console, *, turns: int, seed: int) -> Report:
    """Print what was found."""
    report = simulate(turns=turns, seed=seed)
    events = ", ".join(f"{count:,} {name}" for name, count in sorted(report.events.items()))
    promises = Table(title="promises", box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    promises.caption = f"{report.turns:,} turns, {report.steps:,} steps, seed {seed}; {events}; {report.stalled:,} loops stopped as stalled"
    promises.add_column("broken promises")
    promises.add_column("count", justify="right")
    for name, count in (
        ("downgrades within a turn", report.downgrades),
        ("lost pins and facts", report.lost_pins),
        ("pins leaked to another thread", report.leaked_to_threads),
        ("pins leaked to a detached step", report.leaked_to_detached),
        ("pico-dollars the ledger is off", report.misbilled_pico),
    ):
        promises.add_row(name, f"{count:,}")
    console.print(promises)
    table = Table(title="ways of choosing", box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.caption = "simulated token counts at list price, with a prompt cache per model and history; says nothing about quality"
    for head in ("way", "strong calls", "downgrades within a turn", "cost, simulated", "of all strong"):
        table.add_column(head, justify="left" if head == "way" else "right")
    whole = report.strategies["all strong"].cost_pico
    for name, strategy in report.strategies.items():
        share, dollars, ratio = report.share(name), strategy.cost_pico / 10**12, strategy.cost_pico / whole
        table.add_row(name, f"{share:.1%}", f"{strategy.downgrades:,}", f"${dollars:,.2f}", f"{ratio:.2f}")
    console.print(table)
    return report
