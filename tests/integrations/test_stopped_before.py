"""`on_stop = "interrupt"`: LangGraph gives answers out by order, and a node is run again; each answer stays with its own question."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from routed_agents import Policy, RouterMiddleware, StepStopped, decision_of, join
from routed_agents.integrations import stopped_before

from .conftest import HAIKU, OPUS, Books, scripted

PLAN = "Plan the migration in several steps and carry it out, using tools."
THREAD: Any = {"configurable": {"thread_id": "t"}}
GO: Any = {"messages": [HumanMessage(PLAN)]}
LOW = AIMessage("low", response_metadata={"model_name": HAIKU})
"""What a gateway that served a lower model answers: a pinned step stops at it."""


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


def books_of() -> Books:
    return Books(Policy.default().replace(on_stop="interrupt"))


def graph_of(node: Any, saver: Any = None) -> Any:
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("plan", node)
    builder.add_edge(START, "plan")
    return builder.compile(checkpointer=saver or InMemorySaver())


def question(result: Any) -> Any:
    (asked,) = result["__interrupt__"]
    return asked.value


class Planner:
    """A node that asks a routed model, and then a person of its own."""

    def __init__(self, *replies: Any, calls: int = 1, asks: bool = True) -> None:
        self.books = books_of()
        self.model = self.books.model(strong=list(replies))
        self.calls, self.asks = calls, asks
        self.heard: list[Any] = []

    def node(self, state: Any) -> dict[str, Any]:
        answers = [self.model.invoke(f"{PLAN} Part {number}.") for number in range(self.calls)]
        if self.asks:
            self.heard.append(interrupt({"approve": [answer.text for answer in answers]}))
        return {"messages": answers}

    async def anode(self, state: Any) -> dict[str, Any]:
        return {"messages": [await self.model.ainvoke(PLAN)]}


@pytest.fixture(params=["same process", "another process"])
def forgets(request: pytest.FixtureRequest) -> Any:
    """Called between runs: another process knows what the saver knows."""
    return stopped_before._STOPS.clear if request.param == "another process" else lambda: None


def test_a_persons_answer_stands_also_where_the_model_would_answer_by_now(forgets):
    planner = Planner(LOW, "strong", asks=False)
    graph = graph_of(planner.node)
    assert question(graph.invoke(GO, THREAD))["stopped"] == "served_model_below_floor"
    forgets()
    (reply,) = graph.invoke(Command(resume="mine"), THREAD)["messages"][1:]
    assert (reply.text, decision_of(reply)["stopped"]) == ("mine", "served_model_below_floor")


def test_the_answer_to_a_stop_is_not_taken_for_the_nodes_own(forgets):
    planner = Planner(LOW, "strong")
    graph = graph_of(planner.node)
    graph.invoke(GO, THREAD)
    forgets()
    assert question(graph.invoke(Command(resume="mine"), THREAD)) == {"approve": ["mine"]}
    assert planner.heard == []


def test_and_both_answers_reach_whom_they_are_for():
    planner = Planner(LOW, "strong")
    graph = graph_of(planner.node)
    graph.invoke(GO, THREAD)
    graph.invoke(Command(resume="mine"), THREAD)
    result = graph.invoke(Command(resume="approved"), THREAD)
    assert (planner.heard, result["messages"][-1].text) == (["approved"], "mine")


def test_a_stop_takes_no_answer_that_was_given_to_another_question(forgets):
    planner = Planner("strong", LOW)
    graph = graph_of(planner.node)
    assert question(graph.invoke(GO, THREAD)) == {"approve": ["strong"]}
    forgets()
    with pytest.raises(StepStopped) as caught:
        graph.invoke(Command(resume="yes"), THREAD)
    assert any("another question" in note for note in caught.value.__notes__)


def test_the_second_of_two_steps_gets_its_own_answer(forgets):
    planner = Planner("first", LOW, "first again", "second", calls=2, asks=False)
    graph = graph_of(planner.node)
    graph.invoke(GO, THREAD)
    forgets()
    result = graph.invoke(Command(resume="mine"), THREAD)
    assert [message.text for message in result["messages"][1:]] == ["first again", "mine"]


def test_of_steps_made_side_by_side_the_stopped_one_gets_the_answer(forgets):
    def strong(messages: Any) -> Any:
        return LOW if "Part 1" in messages[-1].text and down else f"done {messages[-1].text[-2:]}"

    down = True
    books = books_of()
    model = books.model(strong=strong)
    graph = graph_of(lambda state: {"messages": model.batch([f"{PLAN} Part {number}." for number in range(3)])})
    graph.invoke(GO, THREAD)
    down = False
    forgets()
    result = graph.invoke(Command(resume="mine"), THREAD)
    assert [message.text for message in result["messages"][1:]] == ["done 0.", "mine", "done 2."]


async def test_an_async_node_alike(forgets):
    planner = Planner(LOW, "strong")
    graph = graph_of(planner.anode)
    await graph.ainvoke(GO, THREAD)
    forgets()
    assert (await graph.ainvoke(Command(resume="mine"), THREAD))["messages"][-1].text == "mine"


def test_an_agent_alike(forgets):
    books = books_of()
    middleware = RouterMiddleware(books.router, cheap=scripted(HAIKU, "cheap"))
    agent = create_agent(scripted(OPUS, [LOW, "strong"]), [], middleware=[middleware], checkpointer=InMemorySaver())
    agent.invoke(GO, THREAD)
    forgets()
    assert agent.invoke(Command(resume="mine"), THREAD)["messages"][-1].text == "mine"


def test_a_node_of_a_subgraph_alike(tmp_path, forgets):
    planner = Planner(LOW, "strong")
    with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        inner: StateGraph[Any] = StateGraph(Desk)
        inner.add_node("ask", planner.node)
        inner.add_edge(START, "ask")
        graph = graph_of(inner.compile(), saver)
        graph.invoke(GO, THREAD)
        forgets()
        assert question(graph.invoke(Command(resume="mine"), THREAD)) == {"approve": ["mine"]}


def test_another_turn_of_the_node_is_free_of_it():
    planner = Planner(LOW, "strong", asks=False)
    graph = graph_of(planner.node)
    graph.invoke(GO, THREAD)
    graph.invoke(Command(resume="mine"), THREAD)
    assert graph.invoke({"messages": [HumanMessage(f"{PLAN} Again.")]}, THREAD)["messages"][-1].text == "strong"
