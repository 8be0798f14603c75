"""A stopped step is handed off: to an error, the end, a person, or a node; by a router node, a routed model and the middleware."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from routed_agents import Policy, RouterMiddleware, RouterNode, StepStopped, Verdict, decision_of, join, watch
from routed_agents.guards import named
from routed_agents.telemetry import names

from .conftest import HAIKU, OPUS, Books, scripted

FORBIDDEN = {"messages": [HumanMessage("Classify this forbidden text as positive or negative")]}
THREAD = {"configurable": {"thread_id": "t"}}
WAYS = ["invoke", "ainvoke", "stream", "astream"]


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


@named("never", version="1")
def never(seen: Any) -> Verdict | None:
    return Verdict(guard="never", code="forbidden", stop=True) if "forbidden" in seen.features.spoken else None


def books_with(on_stop: str) -> Books:
    policy = Policy.default()
    return Books(policy.replace(guards=[*policy.guards, never], on_stop=on_stop))


def says(word: str) -> Any:
    return lambda state: {"messages": [AIMessage(word)]}


def calling(model: Any, way: str) -> Any:
    """A node that calls a model in this way."""

    async def awaited(state: Any) -> dict[str, Any]:
        if way == "ainvoke":
            return {"messages": [await model.ainvoke(state["messages"])]}
        return {"messages": [await _sum(model.astream(state["messages"]))]}

    def called(state: Any) -> dict[str, Any]:
        if way == "invoke":
            return {"messages": [model.invoke(state["messages"])]}
        first, *rest = model.stream(state["messages"])
        for chunk in rest:
            first += chunk
        return {"messages": [first]}

    return awaited if way.startswith("a") else called


async def _sum(stream: Any) -> Any:
    total = None
    async for chunk in stream:
        total = chunk if total is None else total + chunk
    return total


def desk(action: Any, *, wrapped: Any = None, schema: Any = Desk, **compiled: Any) -> Any:
    """A graph: draft, which may be a graph of its own, and a person beside it."""
    builder: StateGraph[Any] = StateGraph(schema)
    builder.add_node("draft", action)
    builder.add_node("handoff", says("a person takes over"))
    builder.add_edge(START, "draft")
    return (wrapped(builder) if wrapped else builder).compile(**compiled)


async def run(graph: Any, given: Any, way: str, config: Any = None) -> Any:
    return await graph.ainvoke(given, config) if way.startswith("a") else graph.invoke(given, config)


def texts(result: Any) -> list[str]:
    return [message.text for message in result["messages"][1:]]


def calm(books: Books) -> bool:
    """No span says that anything went wrong, and no token was spent."""
    return not books.entries and all(span.status.is_ok and names.ERROR_TYPE not in span.attributes for span in books.named(""))


# ---- a routed model in a node ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_a_models_stop_raises_by_default(way):
    books = books_with("raise")
    with pytest.raises(StepStopped, match="forbidden"):
        await run(desk(calling(books.model(), way)), FORBIDDEN, way)


@pytest.mark.parametrize("way", WAYS)
async def test_a_models_stop_goes_to_the_node(way):
    books = books_with("handoff")
    result = await run(desk(calling(books.model(), way)), FORBIDDEN, way)
    assert (texts(result), calm(books), books.routes[0].attributes[names.STOPPED]) == (["a person takes over"], True, "forbidden")


@pytest.mark.parametrize("way", WAYS)
async def test_a_models_stop_ends_the_graph(way):
    books = books_with("end")
    assert (texts(await run(desk(calling(books.model(), way)), FORBIDDEN, way)), calm(books)) == ([], True)


@pytest.mark.parametrize("way", WAYS)
async def test_a_models_stop_waits_for_a_person_whose_answer_is_the_reply(way):
    books = books_with("interrupt")
    graph = desk(calling(books.model(), way), checkpointer=InMemorySaver())
    told = (await run(graph, FORBIDDEN, way, THREAD))["__interrupt__"][0].value
    result = await run(graph, Command(resume="I am so sorry. I have settled it."), way, THREAD)
    assert (told["stopped"], json.loads(json.dumps(told)) == told) == ("forbidden", True)
    assert (texts(result), decision_of(result["messages"][-1])["stopped"]) == (["I am so sorry. I have settled it."], "forbidden")
    assert calm(books)


def test_a_person_may_answer_with_a_whole_message():
    books = books_with("interrupt")
    graph = desk(calling(books.model(), "invoke"), checkpointer=InMemorySaver())
    graph.invoke(FORBIDDEN, THREAD)
    assert graph.invoke(Command(resume=AIMessage("mine", name="Ada")), THREAD)["messages"][-1].name == "Ada"


def test_resuming_without_an_answer_raises_the_stop():
    books = books_with("interrupt")
    graph = desk(calling(books.model(), "invoke"), checkpointer=InMemorySaver())
    graph.invoke(FORBIDDEN, THREAD)
    with pytest.raises(StepStopped):
        graph.invoke(Command(resume=True), THREAD)


def test_a_structured_answer_is_not_a_persons_text():
    class Label(BaseModel):
        label: str

    books = books_with("interrupt")
    model = books.model().with_structured_output(Label)
    graph = desk(lambda state: {"messages": [AIMessage(model.invoke(state["messages"]).label)]}, checkpointer=InMemorySaver())
    assert "__interrupt__" in graph.invoke(FORBIDDEN, THREAD)
    with pytest.raises(StepStopped):
        graph.invoke(Command(resume="positive"), THREAD)


@pytest.mark.parametrize("on_stop", ["end", "interrupt", "handoff"])
def test_outside_a_graph_a_stop_can_only_be_raised(on_stop):
    with pytest.raises(StepStopped):
        books_with(on_stop).model().invoke(FORBIDDEN["messages"])


def test_a_node_nobody_has_is_told():
    books = books_with("nobody")
    with pytest.raises(StepStopped) as caught:
        desk(calling(books.model(), "invoke")).invoke(FORBIDDEN)
    assert any('on_stop names the node "nobody"' in note for note in caught.value.__notes__)


def test_a_state_without_a_routing_channel_can_be_left_too():
    books = books_with("handoff")
    assert texts(desk(calling(books.model(), "invoke"), schema=MessagesState).invoke(FORBIDDEN)) == ["a person takes over"]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_subgraphs_stop_finds_the_node_around_it(way, watched):
    books = books_with("handoff")
    inner: StateGraph[Any] = StateGraph(Desk)
    inner.add_node("ask", calling(books.model(), way))
    inner.add_edge(START, "ask")
    graph = desk(inner.compile(), wrapped=(lambda builder: watch(builder, books.router)) if watched else None)
    assert (texts(await run(graph, FORBIDDEN, way)), calm(books)) == (["a person takes over"], True)


@pytest.mark.parametrize("watched", [False, True])
def test_two_graphs_in_the_stop_still_finds_it(watched):
    books = books_with("handoff")
    inner: StateGraph[Any] = StateGraph(Desk)
    inner.add_node("ask", calling(books.model(), "invoke"))
    inner.add_edge(START, "ask")
    middle: StateGraph[Any] = StateGraph(Desk)
    middle.add_node("inner", inner.compile())
    middle.add_edge(START, "inner")
    graph = desk(middle.compile(), wrapped=(lambda builder: watch(builder, books.router)) if watched else None)
    assert texts(graph.invoke(FORBIDDEN)) == ["a person takes over"]


# ---- the functional API -----------------------------------------------------------------------------------------------------


class Work:
    """Ways of the functional API to make a step, and what was done with a reply afterwards."""

    def __init__(self, on_stop: str, way: str) -> None:
        self.books = books_with(on_stop)
        model = self.books.model()
        self.after: list[Any] = []

        if way == "ainvoke":

            @task
            async def ask(messages: Any) -> Any:
                return await model.ainvoke(messages)

            @task
            async def delegate(messages: Any) -> Any:
                return await ask(messages)

            @entrypoint()
            async def flow(messages: Any) -> Any:
                self.after.append(await ask(messages))

            @entrypoint()
            async def direct(messages: Any) -> Any:
                return await model.ainvoke(messages)

            def node(action: Any) -> Any:
                async def act(state: Any) -> Any:
                    self.after.append(await action(state["messages"]))

                return act

        else:

            @task
            def ask(messages: Any) -> Any:
                return model.invoke(messages)

            @task
            def delegate(messages: Any) -> Any:
                return ask(messages).result()

            @entrypoint()
            def flow(messages: Any) -> Any:
                self.after.append(ask(messages).result())

            @entrypoint()
            def direct(messages: Any) -> Any:
                return model.invoke(messages)

            def node(action: Any) -> Any:
                return lambda state: self.after.append(action(state["messages"]))

        waited = way == "invoke"
        started = {"flow": getattr(flow, way), "direct": getattr(direct, way)}
        called = {"ask": (lambda given: ask(given).result()) if waited else ask}
        called["delegate"] = (lambda given: delegate(given).result()) if waited else delegate
        self.workflows = {"in a task": flow, "directly": direct}
        self.nodes = {
            "in a task": node(called["ask"]),
            "in a task of a task": node(called["delegate"]),
            "in a workflow": node(started["direct"]),
            "in a task of a workflow": node(started["flow"]),
        }


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("place", ["in a task", "directly"])
@pytest.mark.parametrize("on_stop", ["end", "handoff"])
async def test_a_workflow_has_nobody_to_hand_off_to(on_stop, place, way):
    work = Work(on_stop, way)
    with pytest.raises(StepStopped) as caught:
        await run(work.workflows[place], FORBIDDEN["messages"], way, THREAD)
    assert any(note.startswith("on_stop ") for note in caught.value.__notes__)
    assert not work.after


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["no saver", "saver"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("place", ["in a task", "in a task of a task", "in a workflow", "in a task of a workflow"])
@pytest.mark.parametrize(("on_stop", "said"), [("end", []), ("handoff", ["a person takes over"])])
async def test_a_stop_in_a_nodes_task_or_workflow_leaves_the_node(on_stop, said, place, way, saver):
    work = Work(on_stop, way)
    config = {"configurable": {"thread_id": f"{on_stop}, {place}, {way}"}}
    result = await run(desk(work.nodes[place], checkpointer=saver), FORBIDDEN, way, config)
    assert (texts(result), work.after, calm(work.books)) == (said, [], True)


def test_a_stop_in_a_task_leaves_the_node_of_a_graph_in_a_node():
    work = Work("end", "invoke")
    inner = desk(work.nodes["in a task"])

    def twice(state: Any) -> Any:
        inner.invoke(FORBIDDEN)
        inner.invoke(FORBIDDEN)
        return {"messages": [AIMessage("both ended")]}

    assert (texts(desk(twice).invoke(FORBIDDEN)), work.after) == (["both ended"], [])


def test_in_shadow_nothing_stops():
    policy = Policy.default()
    books = Books(policy.replace(guards=[*policy.guards, never], on_stop="handoff", mode="shadow"))
    assert texts(desk(calling(books.model(), "invoke")).invoke(FORBIDDEN)) == ["no"]


# ---- a router node ------------------------------------------------------------------------------------------------------------


def routed(node: RouterNode, *, edge: bool = False, **compiled: Any) -> Any:
    builder: StateGraph[Any] = StateGraph(Desk)
    for name in ("quick", "deep", "handoff"):
        builder.add_node(name, says(name))
    if edge:
        builder.add_node("begin", lambda state: {})
        builder.add_conditional_edges("begin", node.edge, [*node.destinations])
        builder.add_edge(START, "begin")
    else:
        builder.add_node("router", node, destinations=node.destinations)
        builder.add_edge(START, "router")
    return builder.compile(**compiled)


TO = {"cheap": "quick", "strong": "deep"}


@pytest.mark.parametrize("edge", [False, True], ids=["node", "edge"])
@pytest.mark.parametrize(
    ("on_stop", "to", "expected"), [("end", TO, []), ("handoff", TO, ["handoff"]), ("raise", {**TO, "human": "handoff"}, ["handoff"])]
)
def test_a_routers_stop_is_handed_off(on_stop, to, expected, edge):
    books = books_with(on_stop)
    assert (texts(routed(RouterNode(books.router, to=to), edge=edge).invoke(FORBIDDEN)), calm(books)) == (expected, True)


@pytest.mark.parametrize("edge", [False, True], ids=["node", "edge"])
async def test_a_routers_stop_waits_for_a_person(edge):
    books = books_with("interrupt")
    graph = routed(RouterNode(books.router, to=TO), edge=edge, checkpointer=InMemorySaver())
    first = await graph.ainvoke(FORBIDDEN, THREAD)
    assert first["__interrupt__"][0].value["stopped"] == "forbidden"
    assert (texts(await graph.ainvoke(Command(resume="noted"), THREAD)), calm(books)) == ([], True)


def test_an_annotating_routers_stop_is_handed_off_too():
    books = books_with("handoff")
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("note", RouterNode(books.router))
    builder.add_node("handoff", says("a person takes over"))
    builder.add_edge(START, "note")
    assert texts(builder.compile().invoke(FORBIDDEN)) == ["a person takes over"]


# ---- the middleware -------------------------------------------------------------------------------------------------------------


def agent_of(books: Books, **more: Any) -> Any:
    middleware = RouterMiddleware(books.router, cheap=scripted(HAIKU, "yes"))
    return create_agent(scripted(OPUS, "no"), [], middleware=[middleware], **more)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agents_stop_raises_by_default(way):
    with pytest.raises(StepStopped):
        await run(agent_of(books_with("raise")), FORBIDDEN, way)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agents_stop_ends_it_with_a_word_to_whoever_reads_on(way):
    books = books_with("end")
    result = await run(agent_of(books), FORBIDDEN, way)
    assert (texts(result), decision_of(result["messages"][-1])["stopped"], calm(books)) == (
        ["This step was stopped and is handed to a person."],
        "forbidden",
        True,
    )


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agents_stop_waits_for_a_person_whose_answer_is_the_reply(way):
    books = books_with("interrupt")
    agent = agent_of(books, checkpointer=InMemorySaver())
    assert (await run(agent, FORBIDDEN, way, THREAD))["__interrupt__"][0].value["stopped"] == "forbidden"
    assert (texts(await run(agent, Command(resume="I have settled it."), way, THREAD)), calm(books)) == (["I have settled it."], True)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agents_stop_goes_to_a_node_of_the_graph_it_is_in(way):
    books = books_with("handoff")
    assert (texts(await run(desk(agent_of(books)), FORBIDDEN, way)), calm(books)) == (["a person takes over"], True)


def test_an_agent_of_its_own_has_no_node_to_go_to():
    with pytest.raises(StepStopped):
        agent_of(books_with("handoff")).invoke(FORBIDDEN)


def test_a_static_edge_is_followed_all_the_same():
    """LangGraph adds a command's goto to a node's static edges; whoever wants the graph to end gives a node that may stop none."""
    books = books_with("end")
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("draft", calling(books.model(), "invoke"))
    builder.add_node("file", says("filed"))
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "file")
    builder.add_edge("file", END)
    assert texts(builder.compile().invoke(FORBIDDEN)) == ["filed"]
