"""A watched graph tells what hangs on each step, and leaves a span for each run and node."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Annotated, Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import SpanProcessor
from pydantic import BaseModel, Field

from routed_agents import Policy, RoutedChatModel, RouterMiddleware, RouterNode, join, watch
from routed_agents.errors import ConfigurationError
from routed_agents.guards import Compounding
from routed_agents.integrations import observer
from routed_agents.integrations.langgraph import observed
from routed_agents.integrations.plan import Outlook
from routed_agents.integrations.watching import GraphWatch, watch_of
from routed_agents.telemetry import around, names

from .conftest import EASY, HAIKU, HARD, OPUS, Books, scripted

TO = {"cheap": "quick", "strong": "deep"}


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


def asked(text: str = EASY) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def calls(model: Any, times: int = 1) -> Any:
    """A node that calls a model so many times, and says the last answer."""
    return lambda state: {"messages": [model.invoke(state["messages"][:1]) for _ in range(times)][-1:]}


def chain_of(schema: Any = Desk, **nodes: Any) -> StateGraph[Any]:
    """A graph whose nodes follow one another."""
    builder: StateGraph[Any] = StateGraph(schema)
    for name, node in nodes.items():
        action, steps = node if isinstance(node, tuple) else (node, None)
        builder.add_node(name, action, metadata=None if steps is None else {"model_steps": steps})
    for start, end in zip([START, *nodes], [*nodes, END], strict=True):
        builder.add_edge(start, end)
    return builder


def silent(state: Any) -> dict[str, Any]:
    return {}


def steps_behind(graph: Any, *paths: str) -> list[int | None]:
    return [watch_of(graph).outlook(path).steps for path in paths]


# ---- what hangs on a node ---------------------------------------------------------------------------------------------


def test_declared_steps_add_up_along_the_edges():
    graph = watch(chain_of(triage=(silent, 1), draft=(silent, 3), send=(silent, 0), check=(silent, 1))).compile()
    assert steps_behind(graph, "triage", "draft", "send", "check") == [4, 1, 1, 0]


def test_nodes_that_both_follow_all_count_and_a_meeting_point_counts_once():
    builder = chain_of(a=(silent, 1), b=(silent, 2), d=(silent, 4))
    builder.add_node("c", silent, metadata={"model_steps": 8})
    builder.add_edge("a", "c")
    builder.add_edge("c", "d")
    assert steps_behind(watch(builder).compile(), "a", "b", "c", "d") == [14, 4, 4, 0]


def test_of_a_choice_the_way_with_most_steps_counts():
    builder = chain_of(triage=(silent, 1))
    builder.edges.clear()
    builder.add_edge(START, "triage")
    for name, steps in (("short", 1), ("long", 2), ("reply", 1)):
        builder.add_node(name, silent, metadata={"model_steps": steps})
    builder.add_conditional_edges("triage", lambda state: "short", ["short", "long", END])
    builder.add_edge("long", "reply")
    assert steps_behind(watch(builder).compile(), "triage", "short", "long") == [3, 0, 1]


def test_a_nodes_command_is_a_choice_too():
    def triage(state: Any) -> Command[Literal["reply", "__end__"]]:
        return Command(goto="reply")

    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("triage", triage)
    builder.add_node("reply", silent, metadata={"model_steps": 2})
    builder.add_edge(START, "triage")
    assert steps_behind(watch(builder).compile(), "triage") == [2]


def test_a_cycle_has_no_number_and_says_so():
    builder = chain_of(plan=(silent, 1), agent=(silent, 1), tools=(silent, 0), reply=(silent, 1))
    builder.add_conditional_edges("tools", lambda state: "reply", ["agent", "reply"])
    found = [watch_of(watch(builder).compile()).outlook(name) for name in ("plan", "agent", "tools", "reply")]
    assert found == [
        Outlook(steps=None, loops=("agent",)),
        Outlook(steps=None, in_loop=True),
        Outlook(steps=None, in_loop=True),
        Outlook(steps=0),
    ]


def test_a_node_nobody_knows_may_make_steps():
    graph = watch(chain_of(a=(silent, 1), b=silent, c=(silent, 1))).compile()
    assert watch_of(graph).outlook("a") == Outlook(steps=None, may=("b",))
    assert watch_of(graph).model_steps() == {"a": (1, "declared"), "b": (None, "may"), "c": (1, "declared")}


def test_a_subgraphs_nodes_have_what_follows_inside_and_outside():
    inner = chain_of(find=(silent, 1), rank=(silent, 1)).compile()
    graph = watch(chain_of(sub=(inner, 2), reply=(silent, 1))).compile()
    assert steps_behind(graph, "sub|find", "sub|rank", "sub", "reply") == [2, 1, 1, 0]


def test_a_subgraph_in_a_cycle_is_in_the_loop_throughout():
    inner = chain_of(find=(silent, 1)).compile()
    builder = chain_of(sub=(inner, 1), check=(silent, 1))
    builder.add_conditional_edges("check", lambda state: END, ["sub", END])
    assert watch_of(watch(builder).compile()).outlook("sub|find").in_loop


@pytest.mark.parametrize("steps", [-1, True, "two", 1.5])
def test_a_declaration_that_cannot_be_meant_is_one_line(steps):
    with pytest.raises(ConfigurationError, match=r'node "a" declares model_steps .*; wanted a number of model calls'):
        watch(chain_of(a=(silent, steps)).compile())


def test_what_is_no_graph_is_one_line():
    with pytest.raises(ConfigurationError, match="watch was given a str; wanted a StateGraph or a compiled graph"):
        watch("graph.py")
    with pytest.raises(ConfigurationError, match="the graph is not watched"):
        watch_of(chain_of(a=silent).compile())


# ---- what was seen ------------------------------------------------------------------------------------------------------


def test_steps_are_learnt_from_a_run(books):
    model = books.model()
    graph = watch(chain_of(triage=calls(model), draft=calls(model, 2), file=silent, reply=calls(model)), books.router).compile()
    before = steps_behind(graph, "triage")
    graph.invoke(asked())
    assert (before, steps_behind(graph, "triage", "draft", "file")) == ([None], [3, 1, 1])
    assert watch_of(graph).model_steps()["draft"] == (2, "observed")


async def test_steps_are_learnt_in_async_runs_too(books):
    model = books.model()

    async def draft(state: Any) -> dict[str, Any]:
        found = await asyncio.gather(*(model.ainvoke(state["messages"][:1]) for _ in range(3)))
        return {"messages": found[-1:]}

    graph = watch(chain_of(triage=calls(model), draft=draft), books.router).compile()
    await graph.ainvoke(asked())
    assert steps_behind(graph, "triage", "draft") == [3, 0]


def test_a_step_that_took_two_attempts_is_one_step():
    books = Books()
    refusing = AIMessage("I can't help.", response_metadata={"stop_reason": "refusal"})
    model = RoutedChatModel(cheap=scripted(HAIKU, [refusing]), strong=scripted(OPUS, "positive"), router=books.router)
    graph = watch(chain_of(triage=calls(model)), books.router).compile()
    graph.invoke(asked())
    assert (books.story, watch_of(graph).model_steps()["triage"]) == ([("cheap", "rejected"), ("strong", "accepted")], (1, "observed"))


def test_a_failed_node_teaches_nothing(books):
    model = books.model()

    def draft(state: Any) -> Any:
        model.invoke(state["messages"])
        raise ValueError("no")

    graph = watch(chain_of(draft=draft), books.router).compile()
    with pytest.raises(ValueError, match="no"):
        graph.invoke(asked())
    assert watch_of(graph).model_steps()["draft"] == (None, "may")


def test_what_was_seen_outlives_the_process_and_belongs_to_the_graph(books, tmp_path):
    kept, model = tmp_path / "kept" / "steps.json", books.model()
    graph = watch(chain_of(triage=calls(model), reply=calls(model, 2)), books.router, remember=kept).compile()
    graph.invoke(asked())
    again = watch(chain_of(triage=calls(model), reply=calls(model, 2)), books.router, remember=kept).compile()
    other = watch(chain_of(triage=silent, reply=calls(model, 2)), books.router, remember=kept).compile()
    assert (steps_behind(again, "triage"), steps_behind(other, "triage")) == ([2], [None])
    document = json.loads(kept.read_text())
    assert document == {"v": 1, "graphs": {watch_of(graph).hash: {"reply": [1, 2], "triage": [1, 1]}}}


async def test_it_is_kept_off_the_event_loop(books, tmp_path, monkeypatch):
    import threading

    from routed_agents.integrations.watching import Seen

    threads: list[Any] = []
    save = Seen.save
    monkeypatch.setattr(Seen, "save", lambda self: (threads.append(threading.current_thread()), save(self)))
    kept = tmp_path / "steps.json"
    await watch(chain_of(a=calls(books.model())), books.router, remember=kept).compile().ainvoke(asked())
    while not kept.exists():
        await asyncio.sleep(0.01)
    assert threads != [threading.main_thread()]


def test_a_file_that_cannot_be_read_is_told_and_written_anew(books, tmp_path, caplog):
    kept = tmp_path / "steps.json"
    kept.write_text("{")
    graph = watch(chain_of(a=calls(books.model())), books.router, remember=kept).compile()
    graph.invoke(asked())
    assert "cannot be read" in caplog.text
    assert json.loads(kept.read_text())["graphs"]


def test_a_file_that_cannot_be_written_breaks_no_run(books, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    graph = watch(chain_of(a=calls(books.model())), books.router, remember=tmp_path / "file" / "steps.json").compile()
    assert graph.invoke(asked())["messages"][-1].text == "yes"
    assert "cannot be" in caplog.text


# ---- where it reaches -----------------------------------------------------------------------------------------------


def test_a_routed_models_step_knows_what_hangs_on_it(books):
    model = books.model()
    graph = watch(chain_of(triage=(calls(model), 1), draft=(calls(model), 2), reply=(calls(model), 1)), books.router).compile()
    graph.invoke(asked())
    assert [route.attributes[names.DOWNSTREAM] for route in books.routes] == [3, 1, 0]


def test_an_unwatched_graphs_step_knows_nothing_of_it(books):
    chain_of(triage=(calls(books.model()), 1)).compile().invoke(asked())
    assert names.DOWNSTREAM not in books.routes[0].attributes


def test_a_router_node_and_the_model_behind_it_know_the_same(books):
    model = books.model()
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("router", RouterNode(books.router, to=TO))
    for name in ("quick", "deep"):
        builder.add_node(name, calls(model), metadata={"model_steps": 1})
        builder.add_edge(name, "reply")
    builder.add_node("reply", calls(model), metadata={"model_steps": 1})
    builder.add_edge(START, "router")
    graph = watch(builder, books.router).compile()
    graph.invoke(asked(), HARD)
    assert [(route.attributes[names.NODE], route.attributes[names.DOWNSTREAM]) for route in books.routes] == [
        ("router", 1),
        ("deep", 1),
        ("reply", 0),
    ]
    assert steps_behind(graph, "router") == [2]


def test_a_guard_reads_it(books):
    from routed_agents import Verdict
    from routed_agents.guards import named

    @named("compounding", version="1")
    def many(seen: Any) -> Verdict | None:
        return Verdict(guard="compounding", code="compounding", floor=1) if (seen.features.downstream or 0) > 2 else None

    policy = Policy.default()
    books = Books(policy.replace(guards=[*policy.guards, many]))
    model = books.model()
    graph = watch(chain_of(triage=(calls(model), 1), draft=(calls(model), 3)), books.router).compile()
    graph.invoke(asked())
    assert [tier for tier, _ in books.story] == ["strong", "cheap"]


def loop_of(ask: Any, **more: Any) -> StateGraph[Any]:
    """A node that goes back to itself once, and one behind it."""
    builder: StateGraph[Any] = StateGraph(Desk)
    for name, node in {"ask": ask, **more}.items():
        builder.add_node(name, node, metadata={"model_steps": 1, "task_class": "code_generation"})
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", lambda state: "ask" if len(state["messages"]) < 3 else "reply", ["ask", "reply"])
    return builder


def test_a_step_in_a_loop_knows_it_and_its_span_says_so(books):
    model = books.model()
    watch(loop_of(calls(model), reply=calls(model)), books.router).compile().invoke(asked())
    told = [
        (route.attributes[names.NODE], route.attributes.get(names.IN_LOOP), route.attributes.get(names.DOWNSTREAM))
        for route in books.routes
    ]
    assert told == [("ask", True, None), ("ask", True, None), ("reply", None, 0)]


@pytest.mark.parametrize("with_tools", [True, False])
def test_an_agent_is_a_loop_where_it_has_tools(with_tools, books):
    def look(n: int) -> str:
        """Look it up."""
        return "found"

    tools = [look] if with_tools else []
    agent = create_agent(scripted(OPUS, "done"), tools, middleware=[RouterMiddleware(books.router, cheap=scripted(HAIKU, "done"))])
    watch(agent, books.router).invoke(asked())
    assert [names.IN_LOOP in route.attributes for route in books.routes] == [with_tools]


def test_what_to_reckon_with_in_a_loop_is_the_policys():
    policy = Policy.default()
    guards = [Compounding(in_loop=1) if isinstance(guard, Compounding) else guard for guard in policy.guards]
    found = []
    for each in (policy, policy.replace(guards=guards)):
        books = Books(each)
        node = RouterNode(books.router, to={"cheap": "quick", "strong": "deep"}, task_class="code_generation")
        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("router", node, destinations=node.destinations)
        for name in ("quick", "deep"):
            builder.add_node(name, lambda state, name=name: {"messages": [AIMessage(name)]}, metadata={"model_steps": 1})
            builder.add_conditional_edges(name, lambda state: END, ["router", END])
        builder.add_edge(START, "router")
        result = watch(builder, books.router).compile().invoke({"messages": [HumanMessage("Write a function that adds two numbers.")]})
        found.append((result["messages"][-1].text, books.routes[0].attributes[names.IN_LOOP]))
    assert found == [("quick", True), ("deep", True)]


# ---- spans ----------------------------------------------------------------------------------------------------------


def tree_of(books: Books) -> dict[str, str | None]:
    """The parent of every span, by name."""
    spans = {span.context.span_id: span for span in books.spans.get_finished_spans()}
    return {span.name: spans[span.parent.span_id].name if span.parent else None for span in spans.values()}


EXPECTED = {
    f"chat {HAIKU}": "route triage",
    "route triage": "node triage",
    "node triage": "graph desk",
    "node file": "graph desk",
    "graph desk": None,
}


def test_a_run_is_a_tree_of_spans(books):
    graph = watch(chain_of(triage=calls(books.model()), file=silent), books.router).compile(name="desk")
    graph.invoke(asked(), {"configurable": {"thread_id": "t"}})
    (root,) = books.named("graph ")
    assert (tree_of(books), root.attributes[names.CONVERSATION]) == (EXPECTED, "t")


async def test_an_async_run_is_the_same_tree_and_leaves_no_span_current(books):
    model = books.model()

    async def triage(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = watch(chain_of(triage=triage, file=silent), books.router).compile(name="desk")
    async for _ in graph.astream(asked()):
        assert not trace.get_current_span().is_recording()
    assert tree_of(books) == EXPECTED


def test_a_plain_models_call_is_priced_once_and_hangs_under_its_node(books):
    graph = watch(chain_of(triage=calls(scripted(HAIKU, "yes"))), books.router).compile(name="desk")
    graph.invoke(asked())
    assert (books.story, tree_of(books)[f"chat {HAIKU}"]) == ([("cheap", "watched")], "node triage")


def within(tracer: Any, model: Any) -> Any:
    """A node that calls a model within a span of the user's."""

    def node(state: Any) -> dict[str, Any]:
        with tracer.start_as_current_span("mine"):
            return {"messages": [model.invoke(state["messages"])]}

    return node


def test_a_span_of_the_users_stays_between_where_the_run_is_in_its_trace(books):
    tracer = books.router.telemetry._tracer
    graph = watch(chain_of(triage=within(tracer, books.model())), books.router).compile()
    with tracer.start_as_current_span("request"):
        graph.invoke(asked())
    assert tree_of(books)["route triage"] == "mine"


@pytest.mark.parametrize("routed", [True, False])
def test_a_span_of_the_users_with_a_trace_of_its_own_takes_no_step_out_of_the_runs(routed, books):
    model, tracer = books.model() if routed else scripted(HAIKU, "yes"), books.router.telemetry._tracer
    watch(chain_of(triage=within(tracer, model)), books.router).compile(name="desk").invoke(asked())
    (theirs,) = books.named("mine")
    (step,) = books.routes or books.leaves
    assert (tree_of(books)[step.name], tree_of(books)["node triage"]) == ("node triage", "graph desk")
    assert [link.context.span_id for link in step.links] == [theirs.context.span_id]


@pytest.mark.parametrize("outer", ["request", None])
def test_a_span_of_the_users_before_the_first_node_takes_no_node_out_of_the_run(outer, books):
    tracer, model = books.router.telemetry._tracer, books.model()

    def choose(state: Any) -> str:
        within(tracer, model)(state)
        return "file"

    builder = StateGraph(MessagesState).add_node("file", silent).add_conditional_edges(START, choose, ["file"])
    with tracer.start_as_current_span(outer) if outer else nullcontext():
        watch(builder, books.router).compile(name="desk").invoke(asked())
    tree = tree_of(books)
    assert (tree["graph desk"], tree["node file"], tree["mine"]) == (outer, "graph desk", outer)


def test_baggage_set_in_a_node_is_on_its_steps(books):
    model, found = books.model(), {}

    class Baggage(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            found[span.name] = baggage.get_baggage("case", parent_context)

    def triage(state: Any) -> dict[str, Any]:
        with around.within(baggage.set_baggage("case", "4711")):
            return {"messages": [model.invoke(state["messages"])]}

    books.router.telemetry._own.add_span_processor(Baggage())
    watch(chain_of(triage=triage), books.router).compile().invoke(asked())
    assert (found["node triage"], found["route triage"], found[f"chat {HAIKU}"]) == (None, "4711", "4711")


def test_a_watched_graph_in_a_watched_graph_is_watched_once(books):
    inner = watch(chain_of(find=calls(scripted(HAIKU, "yes"))), books.router).compile(name="inner")
    outer = watch(chain_of(sub=inner, reply=silent), books.router).compile(name="outer")
    outer.invoke(asked())
    tree = tree_of(books)
    assert (len(books.entries), tree["node find"], tree["node sub"], "graph inner" in tree) == (1, "node sub", "graph outer", False)
    assert (watch_of(inner)._spans, watch_of(inner)._parents) == ({}, {})
    assert watch_of(outer).model_steps() == {"sub": (1, "observed"), "sub|find": (1, "observed"), "reply": (0, "observed")}


def test_a_failed_run_says_so_on_its_spans(books):
    def broken(state: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        watch(chain_of(a=broken), books.router).compile(name="desk").invoke(asked())
    assert [(span.name, span.attributes[names.ERROR_TYPE]) for span in books.named("")] == [
        ("node a", "ValueError"),
        ("graph desk", "ValueError"),
    ]


def test_an_interrupt_is_no_error(books):
    from langgraph.types import interrupt

    graph = watch(chain_of(a=lambda state: interrupt("wait") and {}), books.router).compile(name="desk", checkpointer=InMemorySaver())
    graph.invoke(asked(), {"configurable": {"thread_id": "t"}})
    assert [(span.name, span.status.is_ok) for span in books.named("")] == [("node a", True), ("graph desk", True)]


def test_branches_of_a_send_each_have_their_span(books):
    model = books.model()
    builder = chain_of(begin=silent)
    builder.edges.clear()
    builder.add_edge(START, "begin")
    builder.add_node("work", lambda state: {"messages": [model.invoke(state["text"])]})
    builder.add_conditional_edges("begin", lambda state: [Send("work", {"text": EASY})] * 3, ["work"])
    graph = watch(builder, books.router).compile()
    graph.invoke(asked())
    assert (len(books.named("node work")), len({span.parent.span_id for span in books.routes})) == (3, 3)
    assert watch_of(graph).model_steps()["work"] == (1, "observed")


def test_nothing_is_left_behind_by_a_run(books):
    graph = watch(chain_of(a=calls(books.model())), books.router).compile()
    graph.invoke(asked())
    for _ in graph.stream(asked()):
        break
    seen = watch_of(graph)
    assert [seen._parents, seen._spans, seen._nodes, seen._roots, seen._owners, seen._open, seen._expected, seen._decided] == [
        {},
        {},
        {},
        {},
        {},
        {},
        {},
        {},
    ]


class Quota(BaseCallbackHandler):
    """Refuses a run at its start, as a quota may."""

    raise_error = True

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("quota used up")


@pytest.mark.parametrize("wrap", [watch, observed])
def test_runs_that_are_refused_at_their_start_do_not_pile_up(wrap, books, monkeypatch):
    monkeypatch.setattr(observer, "RUNS_OPEN", 5)
    monkeypatch.setattr(GraphWatch, "_owners", {})
    graph = wrap(chain_of(a=calls(books.model())).compile(), books.router)
    for _ in range(20):
        with pytest.raises(RuntimeError, match="quota used up"):
            graph.invoke(asked(), {"callbacks": [Quota()]})
    seen = graph.config["callbacks"][0]
    assert (len(seen._parents), len(GraphWatch._owners), books.named("")) == (5, 5 if wrap is watch else 0, [])


# ---- what it leaves alone ---------------------------------------------------------------------------------------------


class Typed(BaseModel):
    messages: list[Any] = Field(default_factory=list)
    routing: Annotated[dict[str, Any], join] = Field(default_factory=dict)


@pytest.mark.parametrize("given", ["builder", "compiled"])
def test_a_watched_graph_does_what_the_unwatched_one_does(given, books):
    builder = chain_of(Typed, a=lambda state: {"messages": [*state.messages, "seen"]})
    graph = watch(builder, books.router).compile() if given == "builder" else watch(builder.compile(), books.router)
    plain = builder.compile()
    assert (graph.invoke({"messages": ["x"]}), graph.get_graph().to_json()) == (
        plain.invoke({"messages": ["x"]}),
        plain.get_graph().to_json(),
    )
    with pytest.raises(ConfigurationError):
        watch_of(plain)


class Count(BaseModel):
    count: int = 0


@pytest.mark.parametrize("wrap", [watch, observed])
def test_a_watched_graph_gives_the_states_own_class(wrap, books):
    plain = chain_of(Count, a=lambda state: {"count": state.count + 1}).compile()
    graph = wrap(plain, books.router)
    assert graph.invoke({"count": 0}, version="v2").value == Count(count=1)
    assert vars(graph) | {"config": None} == vars(plain) | {"config": None}


def test_the_users_own_callbacks_and_config_are_kept(books):
    from .conftest import Listener

    listener = Listener()
    graph = watch(chain_of(a=calls(books.model())).compile().with_config(tags=["mine"]), books.router)
    graph.invoke(asked(), {"callbacks": [listener], "metadata": {"tenant": "acme"}})
    assert (listener.ended, graph.config["tags"], books.entries[0].labels) == (1, ["mine"], {"tenant": "acme"})


def test_with_telemetry_off_it_still_counts():
    from routed_agents import Router, Telemetry

    router = Router(telemetry=Telemetry.off())
    model = RoutedChatModel(cheap=scripted(HAIKU, "yes"), strong=scripted(OPUS, "no"), router=router)
    graph = watch(chain_of(a=calls(model), b=calls(model)), router).compile()
    graph.invoke(asked())
    assert steps_behind(graph, "a", "b") == [1, 0]


def test_a_watched_builder_goes_on_being_built(books):
    builder = watch(chain_of(a=(silent, 1)), books.router)
    builder.add_node("b", silent, metadata={"model_steps": 2})
    builder.add_edge("a", "b")
    assert (isinstance(builder, StateGraph), steps_behind(builder.compile(), "a")) == (True, [2])


def test_a_graph_of_the_functional_api_has_spans_and_no_edges(books):
    from langgraph.func import entrypoint, task

    model = books.model()

    @task
    def label(text: str) -> str:
        return str(model.invoke(text).text)

    @entrypoint()
    def flow(text: str) -> str:
        return label(text).result()

    graph = watch(flow, books.router)
    assert graph.invoke(EASY) == "yes"
    tree = tree_of(books)
    assert (tree["route label"], tree["node flow"]) == ("node flow", "graph LangGraph")
    assert watch_of(graph).model_steps() == {"flow": (1, "observed")}
