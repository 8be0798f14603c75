"""The `routing` channel through everything a graph does with its state: joins, subgraphs, savers, forks, time travel, strict msgpack."""

from __future__ import annotations

import itertools
import json
import logging
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph, add_messages
from langgraph.store.memory import InMemoryStore
from langgraph.types import Send
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from routed_agents import RouterNode, complaints, join
from routed_agents.errors import StateError
from routed_agents.integrations.langgraph import facts
from routed_agents.state import CHANNEL_PINS, CHANNEL_RUNS, Mark, Pin, ThreadState, lineage_key

from .conftest import EASY, Books

PLAN = "Plan the migration in several steps and carry it out, using tools."
GRIEF = "Reply to me: my mother died last week and I cannot cope."
FAQ = "Reply to the customer: how long does delivery take, according to the help center article?"
THREAD = {"configurable": {"thread_id": "t"}}


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


class Typed(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    routing: Annotated[dict[str, Any], join]


class Modelled(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = Field(default_factory=list)
    routing: Annotated[dict[str, Any], join] = Field(default_factory=dict)


@dataclass
class Classed:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    routing: Annotated[dict[str, Any], join] = field(default_factory=dict)


SCHEMAS = [Desk, Typed, Modelled, Classed]


def asked(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def messages_of(state: Any) -> list[Any]:
    return state["messages"] if isinstance(state, dict) else state.messages


def chain_of(schema: Any = Desk, **nodes: Any) -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(schema)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for start, end in zip([START, *nodes], [*nodes, END], strict=True):
        builder.add_edge(start, end)
    return builder


def asks(books: Books) -> Any:
    model = books.model()
    return lambda state: {"messages": [model.invoke(messages_of(state))]}


def says(books: Books, text: str) -> Any:
    """A node with a prompt of its own."""
    model = books.model()
    return lambda state: {"messages": [model.invoke(text)]}


def tiers(books: Books) -> list[str]:
    return [entry.tier for entry in books.entries]


# ---- joining ------------------------------------------------------------------------------------------------------------


def test_a_node_that_returns_the_whole_state_changes_nothing(books):
    plain = chain_of(ask=asks(books), copy=lambda state: {"messages": []}).compile().invoke(asked(PLAN))
    copied = chain_of(ask=asks(Books()), copy=lambda state: {**state}).compile().invoke(asked(PLAN))
    assert [len(found["routing"]["pins"]) for found in (plain, copied)] == [1, 1]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_an_output_passed_back_as_input_changes_nothing(schema, books):
    graph = chain_of(schema, copy=lambda state: {}).compile()
    pin = Pin(scope="lineage", tier="strong", key="ask", code="empathy")
    known = ThreadState(frozenset({pin}), frozenset({"distress"})).to_json()
    given: Any = {"messages": [HumanMessage("hello")], "routing": known}
    for _ in range(3):
        given = graph.invoke(given)
    assert given["routing"] == known


def test_a_subgraph_that_shares_the_key_adds_nothing_twice(books):
    inner = chain_of(ask=asks(books)).compile()
    nodes = {"first": inner, "again": lambda state: {**state}, "second": lambda state: inner.invoke(state)}  # noqa: PLW0108
    result = chain_of(**nodes).compile().invoke(asked(PLAN))
    assert sorted(pin["key"] for pin in result["routing"]["pins"]) == ["first/ask", "second/ask"]
    assert result["routing"] == join(result["routing"], result["routing"])


def test_every_order_of_branches_gives_one_state():
    pins = [Pin(scope="turn", tier="strong", key=f"map:{n}", turn="m1", seq=n) for n in range(4)]
    parts = [ThreadState(frozenset({pin}), frozenset({f"fact {pin.seq}"})).to_json() for pin in pins]
    found = set()
    for order in itertools.permutations(parts):
        total: dict[str, Any] | None = None
        for part in (*order, *order):
            total = join(total, part)
        found.add(json.dumps(total))
    assert len(found) == 1


def test_branches_join_in_the_graph_whatever_finishes_first(books):
    class Work(Desk):
        n: int

    def work(state: Any) -> dict[str, Any]:
        pin = Pin(scope="lineage", tier="strong", key=f"work:{state['n']}")
        return {"routing": ThreadState(frozenset({pin}), frozenset({f"fact {state['n']}"})).to_json()}

    builder: StateGraph[Any] = StateGraph(Work)
    builder.add_node("begin", lambda state: {})
    builder.add_node("work", work)
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", lambda state: [Send("work", {"n": n}) for n in range(200)], ["work"])
    found = [builder.compile().invoke({"messages": []})["routing"] for _ in range(3)]
    assert (found[0] == found[1] == found[2], len(found[0]["pins"]), len(found[0]["facts"])) == (True, 200, 200)


@pytest.mark.parametrize(("runs", "kept"), [(0, CHANNEL_PINS), (1, CHANNEL_PINS), (CHANNEL_PINS * 2, CHANNEL_RUNS)])
def test_turn_pins_do_not_pile_up(runs, kept):
    state: dict[str, Any] | None = None
    for turn in range(CHANNEL_PINS * 2):
        pin = Pin(scope="turn", tier="strong", key="ask", turn=str(turn), run=str(turn % runs) if runs else "", seq=turn)
        state = join(state, ThreadState(frozenset({pin})).to_json())
    assert [pin.seq for pin in sorted(ThreadState.from_json(state).pins, key=lambda pin: pin.seq)] == [*range(CHANNEL_PINS * 2)][-kept:]


def test_a_long_conversation_leaves_a_channel_of_one_size(books):
    graph = chain_of(plan=says(books, PLAN), act=says(books, PLAN)).compile(checkpointer=InMemorySaver())
    sizes = [len(json.dumps(graph.invoke(asked(f"{number}"), THREAD)["routing"])) for number in range(CHANNEL_RUNS + 8)]
    assert max(sizes) < sizes[CHANNEL_RUNS] + 100


def test_an_unreadable_channel_is_told_and_the_step_is_made(books, caplog):
    class Later(MessagesState):
        routing: dict[str, Any]

    saver = InMemorySaver()
    chain_of(Later, ask=asks(books)).compile(checkpointer=saver).update_state(THREAD, {"routing": {"v": 99}}, as_node="ask")
    result = chain_of(Desk, ask=asks(books)).compile(checkpointer=saver).invoke(asked(EASY), THREAD)
    assert (result["messages"][-1].text, "version 99" in caplog.text) == ("yes", True)


# ---- reducers -----------------------------------------------------------------------------------------------------------


def joined_aloud(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    logging.getLogger("tests").info("joined")
    return join(left, right)


class Bare(MessagesState):
    routing: dict[str, Any]


class Commented(MessagesState):
    routing: Annotated[dict[str, Any], join, "pins and facts"]


class Merged(MessagesState):
    routing: Annotated[dict[str, Any], operator.or_]


class Aloud(MessagesState):
    routing: Annotated[dict[str, Any], joined_aloud]


@pytest.mark.parametrize(("schema", "seen"), [(Bare, "has no reducer"), (Commented, "has no reducer"), (Merged, "has the reducer or_")])
def test_a_key_that_keeps_nothing_is_told_once_and_left_alone(schema, seen, books, caplog, monkeypatch):
    monkeypatch.setattr(complaints, "_TOLD", set())
    graph = chain_of(schema, hear=says(books, GRIEF), reply=says(books, FAQ)).compile()
    result = graph.invoke({**asked(EASY), "routing": {"mine": 1}}, THREAD)
    told = [record.message for record in caplog.records]
    assert (tiers(books), result["routing"], len(told)) == (["strong", "strong"], {"mine": 1}, 1)
    assert (seen in told[0], "wanted `routing: Annotated[dict, join]`, with `join` last" in told[0]) == (True, True)


def test_each_graph_whose_key_keeps_nothing_is_told(books, caplog, monkeypatch):
    monkeypatch.setattr(complaints, "_TOLD", set())
    for node in ("hear", "reply"):
        chain_of(Bare, **{node: says(books, EASY)}).compile().invoke(asked(EASY))
    assert [('"hear"' in record.message, '"reply"' in record.message) for record in caplog.records] == [(True, False), (False, True)]


@pytest.mark.parametrize("schema", [Bare, Commented, Merged])
@pytest.mark.parametrize("stored", [False, True])
def test_a_fact_that_stands_in_a_key_that_keeps_nothing_still_holds(schema, stored, books):
    graph = chain_of(schema, reply=says(books, FAQ)).compile(checkpointer=InMemorySaver(), store=InMemoryStore() if stored else None)
    graph.update_state(THREAD, {"routing": facts("distress")}, as_node=START)
    graph.invoke(asked(EASY), THREAD)
    assert tiers(books) == ["strong"]


@pytest.mark.parametrize(
    ("schema", "stored", "words", "told"),
    [(MessagesState, False, GRIEF, 1), (MessagesState, False, EASY, 0), (MessagesState, True, GRIEF, 0), (Desk, False, GRIEF, 0)],
)
def test_a_fact_that_does_not_outlive_the_process_as_its_thread_does_is_told_once(schema, stored, words, told, books, caplog, monkeypatch):
    monkeypatch.setattr(complaints, "_TOLD", set())
    with SqliteSaver.from_conn_string(":memory:") as saver:
        store = InMemoryStore() if stored else None
        graph = chain_of(schema, hear=says(books, words), again=says(books, words)).compile(checkpointer=saver, store=store)
        graph.invoke(asked(EASY), THREAD)
    assert ["a graph keeps its threads with SqliteSaver" in message for message in caplog.messages] == [True] * told


@pytest.mark.parametrize("left", ["mine", {"facts": 3}, {"v": 2, "facts": ["distress"]}, {"pins": [{"scope": "mine"}]}])
def test_a_key_of_ones_own_is_no_trouble(left, books):
    result = chain_of(Bare, reply=says(books, FAQ)).compile().invoke({**asked(EASY), "routing": left})
    assert (tiers(books), result["routing"]) == (["cheap"], left)


def test_what_stands_in_a_key_that_keeps_nothing_releases_nothing(books):
    graph = chain_of(Bare, hear=says(books, GRIEF), reply=says(books, FAQ)).compile()
    graph.invoke({**asked(EASY), "routing": ThreadState(marks=frozenset({Mark(name="distress", released=2**62)})).to_json()}, THREAD)
    assert tiers(books) == ["strong", "strong"]


@pytest.mark.parametrize("schema", [Bare, Commented, Merged])
def test_a_router_node_refuses_a_key_that_keeps_nothing(schema, books):
    with pytest.raises(StateError, match=r"wanted `routing: Annotated\[dict, join\]`, with `join` last"):
        chain_of(schema, ask=RouterNode(books.router)).compile().invoke(asked(EASY))


def test_a_reducer_of_ones_own_that_joins_is_as_good(books):
    result = chain_of(Aloud, hear=says(books, GRIEF)).compile().invoke(asked(EASY))
    assert result["routing"]["facts"] == ["distress"]


def without_dates(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in join(left, right).items() if name != "marks"}


class Undated(MessagesState):
    routing: Annotated[dict[str, Any], without_dates]


def test_a_reducer_of_ones_own_may_forget_dates(books):
    result = chain_of(Undated, hear=says(books, GRIEF)).compile().invoke(asked(EASY))
    assert result["routing"]["facts"] == ["distress"]


JOINED: list[dict[str, Any]] = []


def noted_down(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    JOINED.append(right)
    return join(left, right)


class Noted(MessagesState):
    routing: Annotated[dict[str, Any], noted_down]


def test_a_reducer_of_ones_own_is_tried_out_once(books):
    graph = chain_of(Noted, hear=says(books, EASY), reply=says(books, EASY)).compile()
    for _ in range(2):
        graph.invoke(asked(EASY))
    assert [state["facts"] for state in JOINED if state["facts"]] == [["other"]]


# ---- keys ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "branch", "key"),
    [
        ("ask:1", False, "ask"),
        ("sub:1|ask:2", False, "sub/ask"),
        ("sub:1|1|ask:2", False, "sub/ask"),
        ("tools:1|ask:2", False, "tools:1/ask"),
        ("map:1", True, "map:1"),
        ("sub:1|map:2", True, "sub/map:2"),
    ],
)
def test_a_key_is_made_of_names_and_of_the_ids_of_branches(namespace, branch, key):
    assert lineage_key(node=None, namespace=namespace, branch=branch) == key


def test_a_subgraph_called_twice_in_one_node_is_one_lineage(books):
    inner = chain_of(ask=asks(books)).compile()

    def twice(state: Any) -> dict[str, Any]:
        inner.invoke(state)
        inner.invoke(state)
        return {}

    chain_of(sub=twice).compile().invoke(asked(EASY))
    assert [entry.lineage for entry in books.entries] == ["sub/ask"] * 2


# ---- savers -------------------------------------------------------------------------------------------------------------


@contextmanager
def saver_of(kind: str, folder: Path) -> Iterator[Any]:
    if kind == "memory":
        yield InMemorySaver()
    else:
        with SqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
            yield saver


@pytest.fixture(params=[False, True], ids=["msgpack", "strict"])
def strictness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """LangGraph's ordinary and its strict serializer; neither may complain about what the channel holds."""
    if request.param:
        from langgraph._internal import _serde
        from langgraph.checkpoint.serde import _msgpack

        for module in (_serde, _msgpack):  # the variable is read when LangGraph is imported, so setting it here would do nothing
            monkeypatch.setattr(module, "STRICT_MSGPACK_ENABLED", True)
    with caplog.at_level(logging.WARNING):
        yield
    assert "routing" not in caplog.text
    assert "unregistered" not in caplog.text.lower()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_the_channel_comes_back_as_it_was_put(schema, kind, strictness, books, tmp_path):
    with saver_of(kind, tmp_path) as saver:
        graph = chain_of(schema, ask=asks(books), reply=asks(books)).compile(checkpointer=saver)
        result = graph.invoke(asked(GRIEF), THREAD)
        kept = graph.get_state(THREAD).values["routing"]
    assert kept == result["routing"] == json.loads(json.dumps(kept))
    assert (kept["facts"], {pin["tier"] for pin in kept["pins"]}) == (["distress"], {"strong"})


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_thread_remembers_from_run_to_run(kind, strictness, books, tmp_path):
    with saver_of(kind, tmp_path) as saver:
        graph = chain_of(reply=asks(books)).compile(checkpointer=saver)
        for text in (FAQ, GRIEF, FAQ, EASY):
            graph.invoke(asked(text), THREAD)
        graph.invoke(asked(FAQ), {"configurable": {"thread_id": "other"}})
    assert tiers(books) == ["cheap", "strong", "strong", "cheap", "cheap"]


async def test_a_thread_remembers_in_async_runs(tmp_path):
    books = Books()
    model = books.model()

    async def reply(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        graph = chain_of(reply=reply).compile(checkpointer=saver)
        for text in (GRIEF, FAQ):
            await graph.ainvoke(asked(text), THREAD)
    assert tiers(books) == ["strong", "strong"]


def test_a_new_process_between_two_nodes_decides_alike(tmp_path):
    """The graph stops after its first node; another router, with nothing in memory, goes on from the file."""
    found: list[str] = []
    for given in (asked(PLAN), None):
        books = Books()
        with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
            builder = chain_of(first=asks(books), second=lambda state: {"messages": [AIMessage("so far")]}, first_again=asks(books))
            graph = builder.compile(checkpointer=saver, interrupt_after=["first"] if given else None)
            graph.invoke(given, THREAD)
        found += tiers(books)
    assert found == ["strong", "strong"]


def test_a_router_node_in_a_new_process_holds_to_the_pin(tmp_path):
    found: list[str] = []
    for given in (asked(GRIEF), asked(FAQ)):
        with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
            builder: StateGraph[Any] = StateGraph(Desk)
            node = RouterNode(Books().router, to={"cheap": "quick", "strong": "deep"})
            builder.add_node("router", node, destinations=node.destinations)
            for name in ("quick", "deep"):
                builder.add_node(name, lambda state, name=name: {"messages": [AIMessage(name)]})
            builder.add_edge(START, "router")
            found.append(builder.compile(checkpointer=saver).invoke(given, THREAD)["messages"][-1].text)
    assert found == ["deep", "deep"]


# ---- forks and time travel ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_fork_takes_the_channel_as_it_stood(kind, books, tmp_path):
    with saver_of(kind, tmp_path) as saver:
        graph = chain_of(
            listen=lambda state: {"routing": facts("distress")} if "died" in state["messages"][-1].text else {}, reply=asks(books)
        )
        graph = graph.compile(checkpointer=saver)
        graph.invoke(asked(FAQ), THREAD)
        calm = graph.get_state(THREAD).config
        graph.invoke(asked("Label this: my mother died"), THREAD)
        graph.invoke(asked("Which cards do you take?"), THREAD)
        graph.invoke(asked("Which cards do you take?"), calm)
        forked = graph.get_state(THREAD).values["routing"]
    assert (tiers(books)[0], tiers(books)[2:], forked.get("facts", [])) == ("cheap", ["strong", "cheap"], [])


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_replayed_checkpoint_gives_the_decision_it_gave(kind, books, tmp_path):
    with saver_of(kind, tmp_path) as saver:
        graph = chain_of(listen=lambda state: {"routing": facts("distress")}, reply=asks(books)).compile(checkpointer=saver)
        graph.invoke(asked(FAQ), THREAD)
        before = next(state for state in graph.get_state_history(THREAD) if state.next == ("reply",))
        for _ in range(3):
            graph.invoke(None, before.config)
    assert tiers(books) == ["strong"] * 4


def test_a_state_put_in_by_hand_is_joined(books):
    graph = chain_of(reply=asks(books)).compile(checkpointer=InMemorySaver())
    graph.invoke(asked(FAQ), THREAD)
    graph.update_state(THREAD, {"routing": facts("distress")})
    graph.invoke(asked(FAQ), THREAD)
    assert tiers(books) == ["cheap", "strong"]


def test_strict_mode_is_really_strict(monkeypatch):
    """An object in a channel comes back as a dict there, which is why this channel holds plain JSON."""
    from langgraph.checkpoint.serde import _msgpack
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    monkeypatch.setattr(_msgpack, "STRICT_MSGPACK_ENABLED", True)
    strict, plain = JsonPlusSerializer(), ThreadState(facts=frozenset({"distress"})).to_json()
    assert strict.loads_typed(strict.dumps_typed(plain)) == plain
    assert not isinstance(strict.loads_typed(strict.dumps_typed(Classed())), Classed)
