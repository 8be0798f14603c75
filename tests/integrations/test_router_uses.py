"""Every way a router node is used: node, edge, annotation, in branches, subgraphs and typed states, and with models beside it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from routed_agents import RouterNode, decision_of, join
from routed_agents.errors import ConfigurationError
from routed_agents.state import ThreadState
from routed_agents.telemetry import names

from .conftest import EASY, HARD, Books

TO = {"cheap": "quick", "strong": "deep"}
GRIEF = "Reply to me: my mother died and I cannot cope."


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]
    decision: dict[str, Any]


class Typed(TypedDict):
    messages: Annotated[list[Any], operator.add]
    routing: Annotated[dict[str, Any], join]


class Modelled(BaseModel):
    messages: Annotated[list[Any], operator.add] = Field(default_factory=list)
    routing: Annotated[dict[str, Any], join] = Field(default_factory=dict)


@dataclass
class Classed:
    messages: Annotated[list[Any], operator.add] = field(default_factory=list)
    routing: Annotated[dict[str, Any], join] = field(default_factory=dict)


SCHEMAS = [Desk, Typed, Modelled, Classed]


def asked(text: str = EASY) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def says(word: str) -> Any:
    return lambda state: {"messages": [AIMessage(word)]}


def graph_of(node: RouterNode, schema: Any = Desk, *, edge: bool = False, more: tuple[str, ...] = (), **compiled: Any) -> Any:
    """The router as a node before, or as the edge behind, nodes that say their own name."""
    builder: StateGraph[Any] = StateGraph(schema)
    for name in ("quick", "deep", *more):
        builder.add_node(name, says(name))
    if edge:
        builder.add_node("begin", lambda state: {})
        builder.add_conditional_edges("begin", node.edge, [*node.destinations])
        builder.add_edge(START, "begin")
    else:
        builder.add_node("router", node, destinations=node.destinations)
        builder.add_edge(START, "router")
    return builder.compile(**compiled)


def went_to(result: Any) -> str:
    return result["messages"][-1].text


async def run(graph: Any, given: Any, config: Any, how: str) -> Any:
    return await graph.ainvoke(given, config) if how == "async" else graph.invoke(given, config)


# ---- node and edge, in every kind of state ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("edge", [False, True], ids=["node", "edge"])
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
async def test_it_goes_where_the_step_belongs_and_pins_it(schema, edge, how, books):
    graph = graph_of(RouterNode(books.router, to=TO), schema, edge=edge)
    found = [await run(graph, asked(), config, how) for config in ({}, HARD)]
    assert [went_to(result) for result in found] == ["quick", "deep"]
    assert [[pin["key"] for pin in result["routing"].get("pins", ())] for result in found] == [[], ["deep"]]


def test_it_is_drawn_with_the_nodes_it_may_go_to(books):
    drawn = graph_of(RouterNode(books.router, to=TO)).get_graph()
    assert {edge.target for edge in drawn.edges if edge.source == "router"} == {"quick", "deep"}


def test_the_messages_of_a_typed_state_may_have_another_key(books):
    class Talk(BaseModel):
        talk: list[Any] = Field(default_factory=list)
        messages: Annotated[list[Any], operator.add] = Field(default_factory=list)
        routing: Annotated[dict[str, Any], join] = Field(default_factory=dict)

    graph = graph_of(RouterNode(books.router, to=TO, messages_key="talk"), Talk)
    assert went_to(graph.invoke({"talk": [HumanMessage(EASY)]}, HARD)) == "deep"


def test_a_state_without_messages_says_what_its_step_is(books):
    class Claim(TypedDict):
        document: str
        messages: Annotated[list[Any], operator.add]
        routing: Annotated[dict[str, Any], join]

    node = RouterNode(books.router, to=TO, select=lambda state: f"Extract the date as JSON: {state['document']}")
    assert went_to(graph_of(node, Claim).invoke({"document": "4 May 2026", "messages": []})) == "quick"


# ---- annotating -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_without_nodes_to_go_to_it_only_annotates(how, books):
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("note", RouterNode(books.router, decision_key="decision"))
    builder.add_node("reply", says("replied"))
    builder.add_edge(START, "note")
    builder.add_edge("note", "reply")
    result = await run(builder.compile(), asked(GRIEF), {}, how)
    assert (went_to(result), result["routing"]["facts"], result["decision"]["tier"]) == ("replied", ["distress"], "strong")
    assert [route.name for route in books.routes] == ["route note"]


def test_the_decision_is_noted_on_the_way_too(books):
    for edge in (False, True):
        result = graph_of(RouterNode(books.router, to=TO, decision_key="decision"), edge=edge).invoke(asked(), HARD)
        assert (went_to(result), result["decision"]["task_class"]) == ("deep", "agentic_chain")


def test_a_state_without_a_place_for_the_decision_says_so(books):
    with pytest.raises(ConfigurationError, match='no "verdict" for the decision'):
        graph_of(RouterNode(books.router, to=TO, decision_key="verdict")).invoke(asked())


def test_an_annotating_node_is_no_edge(books):
    with pytest.raises(ConfigurationError, match="serves as an edge only where it knows nodes to go to"):
        RouterNode(books.router).edge(asked())


# ---- branches -------------------------------------------------------------------------------------------------------------


class Work(Desk):
    text: str


def fanned(node: Any, books: Books, *, texts: list[str], action: Any) -> Any:
    builder: StateGraph[Any] = StateGraph(Work)
    builder.add_node("begin", lambda state: {})
    builder.add_node("router", node, destinations=node.destinations)
    builder.add_node("quick", action)
    builder.add_node("deep", action)
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", lambda state: [Send("router", {"text": text}) for text in texts], ["router"])
    return builder.compile()


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_in_a_branch_it_sends_the_branchs_own_state_on(how, books):
    node = RouterNode(books.router, to=TO, select=lambda state: state["text"])
    texts = [EASY, GRIEF, EASY.replace("lovely", "awful")]
    graph = fanned(node, books, texts=texts, action=lambda state: {"messages": [AIMessage(state["text"])]})
    result = await run(graph, {"messages": []}, {}, how)
    assert sorted(message.text for message in result["messages"]) == sorted(texts)
    assert [route.attributes[names.DECIDED_TIER] for route in books.routes].count("strong") == 1


def test_branches_are_apart_and_leave_no_pin(books):
    node = RouterNode(books.router, to=TO, select=lambda state: state["text"])
    result = fanned(node, books, texts=[GRIEF, EASY], action=lambda state: {}).invoke({"messages": []})
    assert sorted(route.attributes[names.DECIDED_TIER] for route in books.routes) == ["cheap", "strong"]
    assert (result["routing"]["pins"], result["routing"]["facts"]) == ([], ["distress"])


def test_an_edge_in_a_branch_sends_its_state_on_too(books):
    node = RouterNode(books.router, to=TO, select=lambda state: state["text"])
    builder: StateGraph[Any] = StateGraph(Work)
    builder.add_node("begin", lambda state: {})
    builder.add_node("read", lambda state: {"text": state["text"]})
    for name in TO.values():
        builder.add_node(name, lambda state: {"messages": [AIMessage(state["text"])]})
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", lambda state: [Send("read", {"text": EASY})], ["read"])
    builder.add_conditional_edges("read", node.edge, [*node.destinations])
    assert went_to(builder.compile().invoke({"messages": []})) == EASY


# ---- subgraphs --------------------------------------------------------------------------------------------------------------


def nested(inner: Any, **nodes: Any) -> Any:
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("sub", inner, destinations=tuple(nodes))
    builder.add_edge(START, "sub")
    for name, node in nodes.items():
        builder.add_node(name, node)
    return builder.compile()


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_it_may_go_to_a_node_of_the_graph_around_it(how, books):
    inner: StateGraph[Any] = StateGraph(Desk)
    inner.add_node("router", RouterNode(books.router, to=TO, graph=Command.PARENT))
    inner.add_edge(START, "router")
    outer = nested(inner.compile(), quick=says("quick"), deep=says("deep"))
    found = [await run(outer, asked(), config, how) for config in ({}, HARD)]
    assert [went_to(result) for result in found] == ["quick", "deep"]
    assert [pin["key"] for pin in found[1]["routing"]["pins"]] == ["deep"]


def test_a_subgraphs_pins_are_its_own(books):
    inner = graph_of(RouterNode(books.router, to=TO))
    result = nested(inner, after=says("after")).invoke(asked(), HARD)
    assert [pin["key"] for pin in result["routing"]["pins"]] == ["sub/deep"]


# ---- with models in the same graph --------------------------------------------------------------------------------------------


def with_models(books: Books, node: RouterNode, calls: Any = None) -> Any:
    """A router in front of two nodes that call one routed model each, and back to it until three replies are there."""
    model = books.model()
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("router", node, destinations=node.destinations)
    for name in TO.values():
        builder.add_node(name, calls or (lambda state: {"messages": [model.invoke(state["messages"])]}))
        builder.add_conditional_edges(name, lambda state: "router" if len(state["messages"]) < 4 else END, ["router", END])
    builder.add_edge(START, "router")
    return builder.compile()


def tiers_by_node(books: Books) -> list[tuple[str, str]]:
    return [(route.attributes[names.NODE], route.attributes[names.DECIDED_TIER]) for route in books.routes]


def test_a_model_behind_the_router_holds_to_what_the_router_pinned(books):
    """The router knows more, here the class; the model behind it, which would choose the cheap tier, is pinned by it."""
    result = with_models(books, RouterNode(books.router, to=TO, task_class="agentic_chain")).invoke(asked())
    assert tiers_by_node(books) == [("router", "strong"), ("deep", "strong")] * 3
    assert all(decision_of(message)["tier"] == "strong" for message in result["messages"][1:])


def test_the_router_holds_to_what_a_model_behind_it_pinned(books):
    """The model knows more, here by its call's own class, and its reply stays out of the messages; the router goes up after it."""
    model = books.model(task_class="agentic_chain")

    def calls(state: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(model.invoke(state["messages"]).text)]}

    with_models(books, RouterNode(books.router, to=TO), calls).invoke(asked())
    assert tiers_by_node(books)[:4] == [("router", "cheap"), ("quick", "strong"), ("router", "strong"), ("deep", "strong")]


def test_both_are_free_on_an_easy_turn(books):
    with_models(books, RouterNode(books.router, to=TO)).invoke(asked())
    assert {tier for _, tier in tiers_by_node(books)} == {"cheap"}


def test_the_next_turn_is_free_for_both(books):
    from langgraph.checkpoint.memory import InMemorySaver

    model = books.model()
    builder: StateGraph[Any] = StateGraph(Desk)
    node = RouterNode(books.router, to=TO)
    builder.add_node("router", node, destinations=node.destinations)
    for name in TO.values():
        builder.add_node(name, lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "router")
    graph = builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    graph.invoke(asked(), {**config, **HARD})
    state = graph.invoke(asked(), config)
    assert tiers_by_node(books) == [("router", "strong"), ("deep", "strong"), ("router", "cheap"), ("quick", "cheap")]
    assert ThreadState.from_json(state["routing"]).pins
