"""Pins and facts in PostgreSQL, where LangGraph keeps checkpoints and stores: forks, time travel, releases, lapses, agents as tools."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from routed_agents import Ledger, Policy, RoutedChatModel, Router, RouterMiddleware, join
from routed_agents.integrations.langgraph import facts, release
from routed_agents.telemetry import Telemetry
from routed_agents.testing import ScriptedChatModel

pytestmark = pytest.mark.e2e

HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"
GRIEF = "Reply to me: my mother died last week and I cannot cope."
ASKED = [
    f"Reply to the customer: {question}, according to the help center article?"
    for question in ("how long does delivery take", "which cards are taken", "where is the shop", "who repairs a scratched lens")
]
"""Questions that a person reads the answer of; nobody asks the same twice, for that is a signal of its own."""
FAQ, CARDS, SHOP, LENS = ASKED


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


class Works:
    """A desk whose router is a new one whenever it is asked for: nothing but the database remembers."""

    def __init__(self, saver: Any, store: Any, policy: Policy | None = None) -> None:
        self.saver, self.store, self.policy = saver, store, policy
        self.ledger = Ledger.memory()
        self.config: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}

    @property
    def router(self) -> Router:
        return Router(self.policy, ledger=self.ledger, telemetry=Telemetry.off())

    @property
    def tiers(self) -> list[str]:
        return [entry.tier for entry in self.ledger.entries()]

    def scripted(self, name: str, says: Any = "done") -> ScriptedChatModel:
        return ScriptedChatModel(model_name=name, replies=says, provider="anthropic")

    def graph(self, listen: Any = lambda state: {}) -> Any:
        model = RoutedChatModel(cheap=self.scripted(HAIKU), strong=self.scripted(OPUS), router=self.router)
        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("listen", listen)
        builder.add_node("reply", lambda state: {"messages": [model.invoke(state["messages"])]})
        for start, end in ((START, "listen"), ("listen", "reply"), ("reply", END)):
            builder.add_edge(start, end)
        return builder.compile(checkpointer=self.saver, store=self.store)

    def ask(self, text: str, graph: Any = None) -> str:
        """Ask in a graph of its own; the tier of the answer."""
        (graph or self.graph()).invoke({"messages": [HumanMessage(text)]}, self.config)
        return self.tiers[-1]


@pytest.fixture
def database(postgres_address: str) -> Iterator[tuple[Any, Any]]:
    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.store.postgres import PostgresStore

    with PostgresSaver.from_conn_string(postgres_address) as saver, PostgresStore.from_conn_string(postgres_address) as store:
        saver.setup()
        store.setup()
        yield saver, store


def test_a_thread_remembers_until_it_is_released_and_again_afterwards(database):
    works = Works(*database)
    before = [works.ask(text) for text in (FAQ, GRIEF, CARDS)]
    works.graph().update_state(works.config, {"routing": release("distress")})
    assert (before, works.ask(SHOP), works.ask(GRIEF), works.ask(LENS)) == (["cheap", "strong", "strong"], "cheap", "strong", "strong")


def test_a_node_releases_what_another_noted(database):
    works = Works(*database)
    said = zip(ASKED, (facts("distress"), release("distress")), strict=False)
    told = [works.ask(text, works.graph(lambda state, noted=noted: {"routing": noted})) for text, noted in said]
    assert [*told, works.ask(SHOP)] == ["strong", "cheap", "cheap"]


def test_a_fact_lapses_after_its_turns(database):
    works = Works(*database, Policy.default().replace(expiry={"distress": 2}))
    assert [works.ask(text) for text in (GRIEF, FAQ, CARDS, SHOP, GRIEF, LENS)] == [
        "strong",
        "strong",
        "strong",
        "cheap",
        "strong",
        "strong",
    ]


def test_a_fork_takes_the_channel_as_it_stood(database):
    works = Works(*database)
    works.ask(FAQ)
    calm = works.graph().get_state(works.config).config
    works.ask(GRIEF)
    strong = works.ask(CARDS)
    works.graph().invoke({"messages": [HumanMessage(SHOP)]}, calm)
    forked = works.graph().get_state(works.config).values["routing"]
    assert (strong, works.tiers[-1], forked.get("facts", [])) == ("strong", "cheap", [])


def test_a_replayed_checkpoint_gives_the_decision_it_gave(database):
    works = Works(*database)
    graph = works.graph(lambda state: {"routing": facts("distress")})
    works.ask(FAQ, graph)
    works.graph().update_state(works.config, {"routing": release("distress")})
    before = next(state for state in graph.get_state_history(works.config) if state.next == ("reply",))
    for _ in range(2):
        graph.invoke(None, before.config)
    assert works.tiers == ["strong"] * 3


def test_an_agent_used_as_a_tool_knows_what_the_store_knows_and_that_it_is_over(database):
    works = Works(*database)

    def agent(says: Any, *tools: Any) -> Any:
        routed = RouterMiddleware(works.router, cheap=works.scripted(HAIKU, says))
        return create_agent(works.scripted(OPUS, says), tools, middleware=[routed])

    @tool
    def ask_helper(n: int) -> str:
        """Ask the helper."""
        return str(agent("done").invoke({"messages": [HumanMessage(FAQ)]})["messages"][-1].text)

    def says(messages: Any) -> AIMessage:
        done = isinstance(messages[-1], ToolMessage)
        return AIMessage("done") if done else AIMessage("", tool_calls=[{"name": "ask_helper", "args": {"n": 1}, "id": uuid.uuid4().hex}])

    def desk(noted: Any) -> Any:
        sort = RoutedChatModel(cheap=works.scripted(HAIKU), strong=works.scripted(OPUS), router=works.router)
        builder: StateGraph[Any] = StateGraph(Desk)
        builder.add_node("listen", lambda state: noted)
        builder.add_node("sort", lambda state: {"messages": [sort.invoke("Label this ticket as returns or shipping: has it left?")]})
        builder.add_node("boss", agent(says, ask_helper))
        for start, end in ((START, "listen"), ("listen", "sort"), ("sort", "boss"), ("boss", END)):
            builder.add_edge(start, end)
        return builder.compile(checkpointer=works.saver, store=works.store)

    found: list[list[str]] = []
    for noted in ({}, {"routing": facts("distress")}, {"routing": release("distress")}):
        before = len(works.tiers)
        works.ask("Label this ticket as returns or shipping: where do I send it?", desk(noted))
        found.append(works.tiers[before:])
    assert found == [["cheap"] * 4, ["cheap", "cheap", "strong", "cheap"], ["cheap"] * 4]  # sort, boss, helper, boss
