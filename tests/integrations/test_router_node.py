"""A router node sends a graph to the node of the tier a step may use, and keeps pins and facts in the graph's state."""

from __future__ import annotations

import json
import operator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import CachePolicy, Command, Send
from typing_extensions import TypedDict

from routed_agents import Policy, PolicyError, RouterNode, Step, StepStopped, Verdict, decision_of, join
from routed_agents.errors import ConfigurationError, StateError
from routed_agents.guards import PolicyFloor, named
from routed_agents.integrations.langgraph import facts
from routed_agents.state import ThreadState
from routed_agents.telemetry import names

from .conftest import EASY, HARD, Books

TO = {"cheap": "quick", "strong": "deep"}
HELP = "Using the help center article, how long does delivery take?"


def asked(text: str = EASY) -> dict[str, Any]:
    """An input; a new one each time, for a message keeps the id it gets, and an id seen before replaces a message."""
    return {"messages": [HumanMessage(text)]}


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


def says(word: str) -> Any:
    return lambda state: {"messages": [AIMessage(word)]}


def graph_of(node: RouterNode, *, more: tuple[str, ...] = (), schema: Any = Desk, **compiled: Any) -> Any:
    """A router node before nodes that say their own name."""
    builder = StateGraph(schema)
    builder.add_node("router", node, destinations=("quick", "deep", *more))
    for name in ("quick", "deep", *more):
        builder.add_node(name, says(name))
    builder.add_edge(START, "router")
    return builder.compile(**compiled)


def went_to(result: Any) -> str:
    return result["messages"][-1].text


@named("never", version="1")
def never(seen: Any) -> Verdict | None:
    """A rule that stops whatever says so."""
    return Verdict(guard="never", code="forbidden", stop=True) if "forbidden" in seen.features.spoken else None


def stopping(on_stop: str = "raise") -> Policy:
    policy = Policy.default()
    return policy.replace(guards=[*policy.guards, never], on_stop=on_stop)


FORBIDDEN = {"messages": [HumanMessage("Classify this forbidden text as positive or negative")]}


# ---- where it goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "node"), [({}, "quick"), (HARD, "deep")])
def test_it_goes_to_the_node_of_the_tier_and_notes_the_pin(config, node, books):
    result = graph_of(RouterNode(books.router, to=TO)).invoke(asked(), config)
    assert (went_to(result), [pin["tier"] for pin in result["routing"]["pins"]]) == (node, ["strong"] if config else [])


async def test_it_goes_there_in_async_runs_too(books):
    result = await graph_of(RouterNode(books.router, to=TO)).ainvoke(asked(), HARD)
    assert went_to(result) == "deep"


def test_it_gives_a_command(books):
    seen: list[Any] = []
    node = RouterNode(books.router, to=TO)

    def spy(state: Desk) -> Any:
        seen.append(node.invoke(state))
        return seen[-1]

    builder = StateGraph(Desk)
    builder.add_node("router", spy, destinations=("quick", "deep"))
    builder.add_node("quick", says("quick"))
    builder.add_node("deep", says("deep"))
    builder.add_edge(START, "router")
    builder.compile().invoke(asked())
    assert seen == [Command(goto="quick", update={"routing": ThreadState().to_json()})]


def test_it_serves_as_a_conditional_edge(books):
    node = RouterNode(books.router, to=TO)
    builder = StateGraph(Desk)
    builder.add_node("begin", lambda state: {})
    builder.add_node("quick", says("quick"))
    builder.add_node("deep", says("deep"))
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", node.edge, [*node.destinations])
    results = [builder.compile().invoke(asked(), config) for config in ({}, HARD)]
    assert [went_to(result) for result in results] == ["quick", "deep"]
    assert [len(result["routing"].get("pins", ())) for result in results] == [0, 1]


def test_its_decision_leaves_a_route_span_and_spends_nothing(books):
    graph_of(RouterNode(books.router, to=TO)).invoke(asked())
    assert ([span.name for span in books.routes], books.leaves, books.entries) == (["route router"], [], [])


def test_a_tier_left_out_narrows_the_policy():
    books = Books(Policy.default(tiers="claude-2026-11-three"))
    node = RouterNode(books.router, to=TO)
    assert (node.router.policy.tiers.names, node.destinations) == (("cheap", "strong"), ("quick", "deep"))


def test_an_unknown_tier_is_an_error_at_once(books):
    with pytest.raises(PolicyError, match='unknown tier "opus"; known tiers: cheap, strong'):
        RouterNode(books.router, to={"cheap": "quick", "opus": "deep"})


def test_no_node_at_all_is_an_error_at_once(books):
    with pytest.raises(ConfigurationError, match="no node to go to"):
        RouterNode(books.router, to={})


def test_an_unknown_class_is_an_error_at_once(books):
    with pytest.raises(PolicyError, match="chit_chat"):
        RouterNode(books.router, to=TO, task_class="chit_chat")


# ---- what it reads ------------------------------------------------------------------------------------------------------


def test_a_graph_without_a_routing_key_is_one_line_that_says_what_to_add(books):
    with pytest.raises(StateError) as caught:
        graph_of(RouterNode(books.router, to=TO), schema=MessagesState).invoke(asked())
    told = str(caught.value)
    assert 'no "routing" key' in told
    assert "routing: Annotated[dict, join]" in told
    assert "\n" not in told


def test_outside_a_graph_it_says_so(books):
    with pytest.raises(StateError, match="outside a graph"):
        RouterNode(books.router, to=TO).invoke(asked())


def test_messages_may_have_another_key(books):
    class Talk(TypedDict):
        talk: Annotated[list[Any], operator.add]
        messages: Annotated[list[Any], operator.add]
        routing: Annotated[dict[str, Any], join]

    graph = graph_of(RouterNode(books.router, to=TO, messages_key="talk"), schema=Talk)
    assert went_to(graph.invoke({"talk": [HumanMessage(EASY)], "messages": []})) == "quick"


def test_a_missing_messages_key_says_how_to_name_it(books):
    with pytest.raises(ConfigurationError, match='no "talk"; name the key with messages_key='):
        graph_of(RouterNode(books.router, to=TO, messages_key="talk")).invoke(asked())


@pytest.mark.parametrize(
    ("select", "node"),
    [
        (lambda state: EASY, "quick"),
        (lambda state: state["messages"], "quick"),
        (lambda state: Step.from_messages(EASY, task_class="agentic_chain"), "deep"),
    ],
    ids=["text", "messages", "step"],
)
def test_a_step_may_be_selected_from_the_state(select, node, books):
    assert went_to(graph_of(RouterNode(books.router, to=TO, select=select)).invoke(asked())) == node


def test_a_selected_step_keeps_what_the_runs_config_says(books):
    policy = Policy.default().replace(floors=[PolicyFloor(tier="strong", metadata=(("vulnerable", True),))])
    node = RouterNode(books.router.replace(policy=policy), to=TO, select=lambda state: Step.from_messages(EASY, node="reply"))
    results = [graph_of(node).invoke(asked(), {"metadata": {"run_id": "r1", **more}}) for more in ({}, {"vulnerable": True})]
    assert [went_to(result) for result in results] == ["quick", "deep"]
    assert [(route.attributes[names.RUN], route.attributes[names.NODE]) for route in books.routes] == [("r1", "reply")] * 2


def test_its_decision_can_be_asked_for_without_going(books):
    node = RouterNode(books.router, to=TO)
    assert (node.decide(asked()).tier, node.decide(asked(), HARD).tier, books.routes) == ("cheap", "strong", [])


# ---- stops --------------------------------------------------------------------------------------------------------------


def test_a_stop_raises_by_default():
    with pytest.raises(StepStopped, match="forbidden") as caught:
        graph_of(RouterNode(stopping(), to=TO)).invoke(FORBIDDEN)
    assert caught.value.decision.stopped == "forbidden"


def test_a_stop_may_end_the_graph():
    assert went_to(graph_of(RouterNode(stopping("end"), to=TO)).invoke(FORBIDDEN)) == FORBIDDEN["messages"][0].text


def test_a_stop_may_go_to_a_node():
    assert went_to(graph_of(RouterNode(stopping("refuse"), to=TO), more=("refuse",)).invoke(FORBIDDEN)) == "refuse"


def test_a_stop_goes_to_a_person_where_one_is_named():
    node = RouterNode(stopping(), to={**TO, "human": "person"})
    assert went_to(graph_of(node, more=("person",)).invoke(FORBIDDEN)) == "person"


def test_a_stop_may_interrupt_and_ends_when_resumed():
    graph = graph_of(RouterNode(stopping("interrupt"), to=TO), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    told = graph.invoke(FORBIDDEN, config)["__interrupt__"][0].value
    resumed = graph.invoke(Command(resume="noted"), config)
    assert (told["stopped"], "must not go below" in told["message"]) == ("forbidden", True)
    assert (went_to(resumed), json.loads(json.dumps(told)) == told) == (FORBIDDEN["messages"][0].text, True)


def test_in_shadow_nothing_stops_and_the_strong_node_is_taken():
    assert went_to(graph_of(RouterNode(stopping().replace(mode="shadow"), to=TO)).invoke(FORBIDDEN)) == "deep"


# ---- what the state keeps -----------------------------------------------------------------------------------------------


def test_the_state_is_plain_json(books):
    result = graph_of(RouterNode(books.router, to=TO)).invoke(asked(), HARD)
    assert json.loads(json.dumps(result["routing"])) == result["routing"]
    assert ThreadState.from_json(result["routing"]).to_json() == result["routing"]


def test_facts_of_parallel_branches_are_joined_and_their_turn_pins_end_with_them(books):
    class Work(Desk):
        text: str

    model = books.model()
    builder = StateGraph(Work)
    builder.add_node("begin", lambda state: {})
    builder.add_node("work", lambda state: {"messages": [model.invoke(state["text"])]})
    builder.add_edge(START, "begin")
    texts = [
        "Plan the migration in several steps and carry it out, using tools.",
        "Reply to the customer: My mother died last week and I cannot cope.",
        EASY,
    ]
    builder.add_conditional_edges("begin", lambda state: [Send("work", {"text": text}) for text in texts], ["work"])
    result = builder.compile().invoke({"messages": []})
    strong = [message for message in result["messages"] if decision_of(message)["tier"] == "strong"]
    assert (len(strong), result["routing"]["pins"], result["routing"]["facts"]) == (2, [], ["distress"])


def test_a_fan_outs_router_sends_each_branch_where_it_belongs(books):
    class Work(Desk):
        text: str

    node = RouterNode(books.router, to=TO, select=lambda state: Step.from_messages(EASY, task_class=state["text"], node="router"))
    builder = StateGraph(Work)
    builder.add_node("begin", lambda state: {})
    builder.add_node("router", node, destinations=node.destinations)
    builder.add_node("quick", says("quick"))
    builder.add_node("deep", says("deep"))
    builder.add_edge(START, "begin")
    classes = ["classification", "agentic_chain", "classification"]
    builder.add_conditional_edges("begin", lambda state: [Send("router", {"text": each}) for each in classes], ["router"])
    result = builder.compile().invoke({"messages": []})
    assert {message.text for message in result["messages"]} == {"deep", "quick"}  # LangGraph starts a named node once a step


def test_a_subgraphs_distress_reaches_the_parent(books):
    inner = StateGraph(Desk)
    inner.add_node("listen", lambda state: {"routing": facts("distress")})
    inner.add_edge(START, "listen")
    builder = StateGraph(Desk)
    builder.add_node("sub", inner.compile())
    node = RouterNode(books.router, to=TO)
    builder.add_node("router", node, destinations=node.destinations)
    builder.add_node("quick", says("quick"))
    builder.add_node("deep", says("deep"))
    builder.add_edge(START, "sub")
    builder.add_edge("sub", "router")
    assert went_to(builder.compile().invoke(asked(HELP))) == "deep"


def test_a_router_works_inside_a_subgraph(books):
    inner = graph_of(RouterNode(books.router, to=TO))
    builder = StateGraph(Desk)
    builder.add_node("sub", inner)
    builder.add_edge(START, "sub")
    builder.add_edge("sub", END)
    result = builder.compile().invoke(asked(), HARD)
    assert (went_to(result), [pin["key"] for pin in result["routing"]["pins"]]) == ("deep", ["sub/deep"])


@pytest.mark.parametrize("strict", [False, True], ids=["msgpack", "strict"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_second_turn_is_free_again_and_distress_stays(kind, strict, books, tmp_path, monkeypatch):
    if strict:
        monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    config = {"configurable": {"thread_id": "t"}}
    node = RouterNode(books.router, to=TO)

    def story(saver: Any) -> list[str]:
        graph = graph_of(node, checkpointer=saver)
        found = [went_to(graph.invoke(asked(), {**config, **HARD}))]
        found.append(went_to(graph.invoke(asked(HELP), config)))
        found.append(went_to(graph.invoke(asked("Reply to me: my mother died and I cannot cope."), config)))
        found.append(went_to(graph.invoke(asked(HELP), config)))
        found.append(went_to(graph.invoke(asked(), config)))
        return found

    if kind == "memory":
        found = story(InMemorySaver())
    else:
        with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
            found = story(saver)
    assert found == ["deep", "quick", "deep", "deep", "quick"]


def test_another_process_finds_the_pins_in_the_checkpoint(tmp_path):
    config = {"configurable": {"thread_id": "t"}}
    for expected in ("deep", "deep"):
        with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
            graph = graph_of(RouterNode(Books().router, to=TO), checkpointer=saver)
            text = "Reply to me: my mother died and I cannot cope." if not graph.get_state(config).values else HELP
            assert went_to(graph.invoke(asked(text), config)) == expected


def test_a_node_without_a_way_to_the_top_tier_is_refused():
    with pytest.raises(PolicyError, match='the top tier "strong"'):
        RouterNode(Policy.default(tiers="embedded"), to={"cheap": "quick", "human": "handoff"})


@pytest.mark.parametrize("to", [{"cheap": 5, "strong": "deep"}, {"cheap": "", "strong": "deep"}, "quick", ["quick", "deep"]], ids=str)
def test_what_names_no_nodes_is_an_error(to: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^RouterNode was given .*; wanted to=.* with the names of nodes$"):
        RouterNode(Policy.default(), to=to)


def test_a_node_cache_finds_its_node_behind_a_routed_one_where_the_routing_is_left_out(books: Books) -> None:
    class Said(TypedDict, total=False):
        said: str

    class State(Said):
        routing: Annotated[dict[str, Any], join]

    model, ran = books.model(), list[str]()

    def slow(state: Said) -> dict[str, Any]:
        ran.append(state["said"])
        return {}

    builder = StateGraph(State)
    builder.add_node("ask", lambda state: {"said": model.invoke(EASY, HARD).text})
    builder.add_node("slow", slow, input_schema=Said, cache_policy=CachePolicy())
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "slow")
    graph = builder.compile(cache=InMemoryCache())
    for _ in range(3):
        graph.invoke({})

    assert len(ran) == 1
