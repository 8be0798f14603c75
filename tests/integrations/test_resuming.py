"""Runs that take up another: what a crash, an interrupt or a restart cut off goes on in its turn, and only there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.runtime import RunControl
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, interrupt

from routed_agents import RouterNode, join

from .conftest import EASY, Books

PLAN = "Plan the migration in several steps and carry it out, using tools."
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]
    rounds: int


class Bare(MessagesState):
    rounds: int


class Crash(Exception):
    """What ends a run in the middle."""


def asked(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)], "rounds": 0}


def nothing(state: Any) -> dict[str, Any]:
    return {}


def criticized(state: Any) -> dict[str, Any]:
    """A node that writes a person's message of its own."""
    return {"messages": [HumanMessage(EASY)]}


def summed_up(state: Any) -> dict[str, Any]:
    """A node that puts a summary in the place of all messages, and with them of their stamps."""
    return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage(EASY, additional_kwargs={"lc_source": "summarization"})]}


def approved(state: Any) -> dict[str, Any]:
    interrupt("May I?")
    return {}


class Rig:
    """Runs a graph on one thread: a node asks, others do what they do, and it asks again. The router is a new one after every crash."""

    def __init__(self, saver: Any) -> None:
        self.saver = saver
        self.crashing = False
        self.books = Books()

    def crashes(self, state: Any) -> dict[str, Any]:
        if self.crashing:
            self.crashing = False
            raise Crash
        return {}

    def asks(self, state: Any) -> dict[str, Any]:
        return {"messages": [self.books.model().invoke(state["messages"])], "rounds": state["rounds"] + 1}

    async def aasks(self, state: Any) -> dict[str, Any]:
        return {"messages": [await self.books.model().ainvoke(state["messages"])], "rounds": state["rounds"] + 1}

    def graph(self, *between: Callable[[Any], Any], schema: Any = Desk, asks: Any = None) -> Any:
        nodes = {"wake": nothing, "ask": asks or self.asks, **{f"{number}": node for number, node in enumerate(between)}}
        builder: StateGraph[Any] = StateGraph(schema)
        for name, node in nodes.items():
            builder.add_node(name, node)
        builder.add_edge(START, "wake")
        builder.add_edge("wake", "ask")
        names = [name for name in nodes if name.isdigit()]
        builder.add_conditional_edges("ask", lambda state: names[0] if names and state["rounds"] == 1 else END, [*names[:1], END])
        for start, end in zip(names, [*names[1:], "ask"], strict=False):
            builder.add_edge(start, end)
        return builder.compile(checkpointer=self.saver)

    def run(self, graph: Any, *inputs: Any, **options: Any) -> list[str]:
        """The tiers of a turn that these inputs lead through, each in a process of its own."""
        tiers: list[str] = []
        for given in inputs:
            self.books = Books()
            with suppress(Crash):
                graph.invoke(given, THREAD, **options)
            tiers += [entry.tier for entry in self.books.entries]
        return tiers

    def crash(self) -> None:
        self.crashing = True


@pytest.fixture(params=["memory", "sqlite"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "memory":
        yield Rig(InMemorySaver())
        return
    with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        yield Rig(saver)


@pytest.mark.parametrize("written", [criticized, summed_up])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_crash_keeps_the_turn_whatever_a_node_writes_before_it(rig, written, durability):
    rig.crash()
    graph = rig.graph(written, rig.crashes, nothing)
    assert rig.run(graph, asked(PLAN), None, durability=durability) == ["strong", "strong"]


@pytest.mark.parametrize("written", [criticized, summed_up])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_crash_keeps_the_turn_whatever_a_node_writes_after_it(rig, written, durability):
    """The step comes long after the run was taken up, when nothing around a node says so any longer."""
    rig.crash()
    graph = rig.graph(rig.crashes, nothing, written, nothing)
    assert rig.run(graph, asked(PLAN), None, durability=durability) == ["strong", "strong"]


def test_without_a_channel_the_stamps_tell(rig):
    rig.crash()
    assert rig.run(rig.graph(criticized, rig.crashes, schema=Bare), asked(PLAN), None) == ["strong", "strong"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_the_next_turn_is_free(rig, durability):
    graph = rig.graph(criticized, nothing)
    tiers = [rig.run(graph, asked(text), durability=durability) for text in (PLAN, EASY, EASY)]
    assert tiers == [["strong", "strong"], ["cheap", "cheap"], ["cheap", "cheap"]]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_the_next_turn_is_free_also_where_it_is_cut_off(rig, durability):
    """Also before its first step: what is taken up there is the new turn, and not the one whose pins the thread still has."""
    rig.run(rig.graph(criticized, nothing), asked(PLAN), durability=durability)
    for nodes in ((rig.crashes, criticized), (criticized, rig.crashes, nothing)):
        rig.crash()
        assert rig.run(rig.graph(*nodes), asked(EASY), None, durability=durability) == ["cheap", "cheap"]
    rig.crash()
    early = rig.graph(criticized, asks=lambda state: {**rig.crashes(state), **rig.asks(state)})
    assert rig.run(early, asked(EASY), None, durability=durability) == ["cheap", "cheap"]


@pytest.mark.parametrize("nested", [False, True], ids=["graph", "nested"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_new_input_is_a_new_turn_also_where_the_last_run_waits_for_a_person(rig, durability, nested):
    inner: StateGraph[Any] = StateGraph(Desk)
    inner.add_node("inner", rig.asks)
    inner.add_edge(START, "inner")
    graph = rig.graph(approved, asks=inner.compile() if nested else None)
    tiers = [rig.run(graph, asked(text), durability=durability) for text in (PLAN, EASY)]
    assert tiers == [["strong"], ["cheap"]]


def test_runs_that_share_a_control_are_runs_of_their_own(rig):
    """A server drains all its runs with one."""
    drain = RunControl()
    graph = rig.graph(criticized, nothing)
    tiers = [rig.run(graph, asked(text), control=drain) for text in (PLAN, EASY, EASY)]
    assert tiers == [["strong", "strong"], ["cheap", "cheap"], ["cheap", "cheap"]]


def test_a_run_that_takes_up_another_keeps_its_turn_where_they_share_a_control(rig):
    drain = RunControl()
    rig.crash()
    graph = rig.graph(criticized, rig.crashes, nothing)
    assert rig.run(graph, asked(PLAN), None, control=drain) == ["strong", "strong"]


def test_an_approval_is_no_new_turn_also_where_a_summary_follows(rig):
    assert rig.run(rig.graph(approved, summed_up), asked(PLAN), Command(resume=True)) == ["strong", "strong"]


def test_a_persons_answer_is_a_new_turn_and_stays_one_after_a_crash(rig):
    rig.crash()
    graph = rig.graph(answered, rig.crashes, nothing)
    assert rig.run(graph, asked(PLAN), Command(resume=EASY), None) == ["strong", "cheap"]


def own_prompts(rig: Rig, *texts: str) -> Any:
    """A node that makes prompts of its own, another one each time it is visited."""
    return lambda state: {"messages": [("ai", rig.books.model().invoke(texts[state["rounds"]]).text)], "rounds": state["rounds"] + 1}


def answered(state: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage(interrupt("What else?"))]}


def asked_to_choose(state: Any) -> dict[str, Any]:
    interrupt({"choose": ["billing", "shipping"]})
    return {}


CHOICE = {"decisions": [{"type": "approve", "note": "billing"}]}


@pytest.mark.parametrize(
    ("between", "answer"),
    [(approved, True), (approved, "go on, please"), (approved, CHOICE), (asked_to_choose, "billing"), (answered, "yes")],
)
def test_an_approval_keeps_the_turn_of_a_node_with_prompts_of_its_own(rig, between, answer):
    graph = rig.graph(between, asks=own_prompts(rig, PLAN, f"{EASY} about billing"))
    assert rig.run(graph, asked("go"), Command(resume=answer)) == ["strong", "strong"]


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("quoting", ["the same words", "a sentence round them", "no word of them"])
def test_an_answer_that_became_a_message_frees_prompts_of_a_nodes_own(rig, quoting, durability):
    said = "Now only classify the tone of it, please"
    prompt = {"the same words": said, "a sentence round them": f"Classify the sentiment: {said}", "no word of them": EASY}[quoting]
    graph = rig.graph(answered, nothing, asks=own_prompts(rig, PLAN, prompt))
    assert rig.run(graph, asked("go"), Command(resume=said), durability=durability) == ["strong", "cheap"]


class Behind(InMemorySaver):
    """A saver that, while it is behind, does not have the newest checkpoint yet."""

    behind = False

    def get_tuple(self, config):
        found = super().get_tuple(config)
        if not self.behind or found is None:
            return found
        newest = super().get_tuple(THREAD)
        asked_for = config["configurable"].get("checkpoint_id")
        if found.checkpoint["id"] != newest.checkpoint["id"]:
            return found
        return None if asked_for else super().get_tuple(newest.parent_config)


def test_an_answer_became_a_message_in_a_checkpoint_that_is_not_written_yet():
    rig = Rig(Behind())
    ask = own_prompts(rig, PLAN, EASY)

    def asks(state):
        rig.saver.behind = state["rounds"] == 1
        return ask(state)

    graph = rig.graph(answered, asks=asks)
    assert rig.run(graph, asked("go"), Command(resume="Now only the tone of it")) == ["strong", "cheap"]


def test_an_approval_goes_on_in_the_turn_that_an_answer_began(rig):
    graph = rig.graph(answered, approved, nothing, asks=own_prompts(rig, PLAN, EASY))
    assert rig.run(graph, asked("go"), Command(resume="Only the tone of it now"), Command(resume=True)) == ["strong", "cheap"]


def test_words_that_were_there_before_the_answer_are_no_message_made_of_it(rig):
    graph = rig.graph(approved, asks=own_prompts(rig, PLAN, EASY))
    assert rig.run(graph, asked("Move our billing service"), Command(resume="Move our billing service")) == ["strong", "strong"]


async def test_an_async_run_that_takes_up_another_asks_its_saver(tmp_path):
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        rig = Rig(saver)
        rig.crash()
        graph = rig.graph(rig.crashes, criticized, nothing, asks=rig.aasks)
        tiers: list[str] = []
        for given in (asked(PLAN), None):
            rig.books = Books()
            with suppress(Crash):
                await graph.ainvoke(given, THREAD)
            tiers += [entry.tier for entry in rig.books.entries]
    assert tiers == ["strong", "strong"]


def test_a_router_node_in_a_run_taken_up_knows_its_turn(rig):
    def routed() -> Any:
        node = RouterNode(Books().router, to={"cheap": "quick", "strong": "deep"})
        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("plan", rig.asks)
        builder.add_node("stop", rig.crashes)
        builder.add_node("critic", criticized)
        builder.add_node("router", node, destinations=node.destinations)
        for name in ("quick", "deep"):
            builder.add_node(name, lambda state, name=name: {"messages": [("ai", name)]})
        for start, end in zip([START, "plan", "stop", "critic"], ["plan", "stop", "critic", "router"], strict=True):
            builder.add_edge(start, end)
        return builder.compile(checkpointer=rig.saver)

    rig.crash()
    rig.run(routed(), asked(PLAN), None)
    last = routed().get_state(THREAD).values["messages"][-1].text
    rig.run(routed(), asked(EASY))
    assert (last, routed().get_state(THREAD).values["messages"][-1].text) == ("deep", "quick")


def test_a_saver_that_cannot_be_read_is_told_and_the_step_is_made(caplog):
    class Broken(InMemorySaver):
        broken = False

        def get_tuple(self, config: Any) -> Any:
            if self.broken and "checkpoint_id" in config["configurable"]:
                raise OSError("disk gone")
            return super().get_tuple(config)

    rig = Rig(Broken())
    rig.crash()
    graph = rig.graph(rig.crashes, criticized, nothing)
    rig.run(graph, asked(PLAN))
    rig.saver.broken = True
    assert len(rig.run(graph, None)) == 1
    assert "checkpoints cannot be read" in caplog.text


@pytest.mark.parametrize("text", [EASY, PLAN], ids=["no pins", "pins"])
def test_a_run_with_an_input_of_its_own_never_asks_its_saver(text):
    class Counting(InMemorySaver):
        asked_for = 0

        def get_tuple(self, config: Any) -> Any:
            self.asked_for += "checkpoint_id" in config["configurable"]
            return super().get_tuple(config)

    rig = Rig(Counting())
    for _ in range(3):
        rig.run(rig.graph(criticized, nothing), asked(text))
    assert rig.saver.asked_for == 0


class Hurried(InMemorySaver):
    """Writes no checkpoint from a certain one on, as if the process had died with it still on its way."""

    last = 10_000

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] > self.last:
            return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}
        return super().put(config, checkpoint, metadata, new_versions)


class Cut:
    """A graph with a store whose asking node, or branches, find a hard step, crash, and have an easy one when they are run again."""

    def __init__(self, *parts: str) -> None:
        self.saver = Hurried()
        self.rig = Rig(self.saver)
        self.seen: set[str] = set()
        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("wake", nothing)
        builder.add_node("ask", self.asks)
        builder.add_edge(START, "wake")
        if parts:
            builder.add_conditional_edges("wake", lambda state: [Send("ask", {"messages": part}) for part in parts], ["ask"])
        else:
            builder.add_edge("wake", "ask")
        self.graph = builder.compile(checkpointer=self.saver, store=InMemoryStore())

    def asks(self, state: Any) -> dict[str, Any]:
        given = state["messages"]
        part = given if isinstance(given, str) else str(given[-1].text)
        hard = part not in self.seen and "easy" not in part
        self.seen.add(part)
        self.rig.books.model().invoke(PLAN if hard else EASY)
        if hard:
            raise Crash
        return {}

    def run(self, given: Any, config: Any = THREAD) -> list[str]:
        self.rig.books = Books()
        with suppress(Crash):
            self.graph.invoke(given, config)
        return sorted(entry.tier for entry in self.rig.books.entries)


@pytest.mark.parametrize("last", [-1, 0, 1])
def test_a_node_keeps_its_pin_also_where_its_checkpoint_was_never_written(last):
    """Of the checkpoints -1, 0 and 1 the first holds the input and the last starts the node."""
    cut = Cut()
    cut.saver.last = last
    first = cut.run(asked("go"))
    cut.saver.last = 10_000
    assert (first, cut.run(None)) == (["strong"], ["strong"])


@pytest.mark.parametrize("last", [0, 1])
def test_of_branches_the_one_keeps_its_pin_that_had_it(last):
    cut = Cut("easy one", "hard", "easy too")
    cut.saver.last = last
    cut.run(asked("go"))
    cut.saver.last = 10_000
    again = cut.run(None)
    assert again.count("strong") == 1


def test_a_run_from_an_earlier_checkpoint_knows_nothing_of_the_future_it_leaves():
    cut = Cut()
    cut.run(asked("go"))
    start = next(snapshot.config for snapshot in cut.graph.get_state_history(THREAD) if snapshot.metadata["step"] == 0)
    assert cut.run(None, start) == ["cheap"]


def test_an_input_no_checkpoint_has_got_begins_a_turn_when_it_is_given_again():
    cut = Cut()
    cut.saver.last = -2
    first = cut.run(asked("go"))
    cut.saver.last = 10_000
    assert (first, cut.run(asked("go"))) == (["strong"], ["cheap"])


class Late(InMemorySaver):
    """Has written nothing yet of what came after a certain checkpoint."""

    last = ""

    def get_tuple(self, config: Any) -> Any:
        if not self.last:
            return super().get_tuple(config)
        asked = config["configurable"].get("checkpoint_id") or self.last
        return super().get_tuple({"configurable": {**config["configurable"], "checkpoint_id": asked}}) if asked <= self.last else None


def test_the_next_turn_is_free_also_where_the_saver_is_late_and_branches_have_joined():
    """What the turn before has left in its last checkpoint looks like work: emptied branches, and joins that wait for nobody any more."""
    saver = Late()
    rig = Rig(saver)
    builder: StateGraph[Any] = StateGraph(Desk)
    for name in ("wake", "part", "left", "right", "never"):
        builder.add_node(name, nothing)
    builder.add_node("ask", rig.asks)
    builder.add_node("both", nothing)
    builder.add_node("all", nothing, defer=True)
    builder.add_edge(START, "wake")
    builder.add_edge("wake", "ask")
    builder.add_conditional_edges("ask", lambda state: [Send("part", {}), Send("part", {})], ["part", "never"])
    builder.add_edge("part", "left")
    builder.add_edge("part", "right")
    builder.add_edge(["left", "right"], "both")
    builder.add_edge(["left", "both"], "all")
    builder.add_edge(["left", "never"], END)
    graph = builder.compile(checkpointer=saver)
    first = rig.run(graph, asked(PLAN))
    saver.last = graph.get_state(THREAD).config["configurable"]["checkpoint_id"]
    assert (first, rig.run(graph, asked(EASY))) == (["strong"], ["cheap"])
