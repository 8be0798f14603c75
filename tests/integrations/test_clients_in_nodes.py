"""A routed SDK client in a graph's node: its calls know the thread, its facts, the run's floors and labels, and the node's span."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore

from routed_agents import Policy, join
from routed_agents.embedded import Provider
from routed_agents.integrations.clients import about
from routed_agents.integrations.langgraph import facts, watch

from .conftest import Books
from .sdk_clients import CLASSES, ROUTED, WAYS

KINDS = ("sync", "async")
ASK = [{"role": "user", "content": "What time do you open?"}]
GRIEF = [{"role": "user", "content": "My mother died yesterday and I am desperate."}]
THREAD: Any = {"configurable": {"thread_id": "t"}}
MADE: list[Any] = []


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]


@dataclass
class Context:
    tenant: str = "vip"


@pytest_asyncio.fixture(autouse=True)
async def hung_up(provider: Provider) -> AsyncIterator[None]:
    """Closes the clients of a test after it."""
    yield
    while MADE:
        closing = MADE.pop().close()
        if closing is not None:
            await closing


def client_of(books: Books, family: str = "anthropic", kind: str = "async") -> Any:
    sdk = CLASSES[family, kind](max_retries=0)
    MADE.append(sdk)
    return ROUTED[family](sdk, books.router)


def graph_of(schema: Any, *steps: Callable[[], Any], context: Any = None) -> StateGraph[Any]:
    """A graph whose nodes, one after the other, make these calls."""
    builder: StateGraph[Any] = StateGraph(schema, context_schema=context)
    before = START
    for number, step in enumerate(steps):

        async def node(state: Any, step: Callable[[], Any] = step) -> dict[str, Any]:
            await step()
            return {}

        builder.add_node(f"step{number}", node)
        builder.add_edge(before, f"step{number}")
        before = f"step{number}"
    return builder


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in WAYS for kind in KINDS])
async def test_a_fact_in_the_channel_holds_in_every_way_to_call_a_client(name: str, kind: str) -> None:
    way = WAYS[name]
    books = Books(way.policy)
    client = client_of(books, way.family, kind)
    graph = graph_of(Desk, lambda: way.run(client)).compile(checkpointer=InMemorySaver())
    await graph.ainvoke({"messages": "hi"}, THREAD)
    calm = len(books.entries)
    await graph.ainvoke({"messages": "hi", "routing": {"v": 1, "pins": [PIN], "facts": []}}, THREAD)

    assert [(entry.node, entry.thread, entry.tier) for entry in books.entries][calm - 1 :] == [
        ("step0", "t", "cheap"),
        ("step0", "t", "strong"),
    ]


PIN = {"scope": "thread", "tier": "strong", "code": "legal", "seq": 1}


def create(client: Any, messages: Any = ASK, **more: Any) -> Callable[[], Any]:
    return lambda: client.messages.create(**{"model": "auto", "max_tokens": 256, "messages": messages, **more})


async def test_a_fact_that_a_node_notes_holds_for_the_clients_call(books: Books) -> None:
    await graph_of(Desk, create(client_of(books))).compile().ainvoke({"messages": "hi", "routing": facts("distress")}, THREAD)

    assert [(entry.tier, entry.codes) for entry in books.entries] == [("strong", ("empathy",))]


@pytest.mark.parametrize(("schema", "stored"), [(Desk, False), (Desk, True), (MessagesState, False), (MessagesState, True)])
async def test_what_a_client_hears_holds_for_the_steps_after_it(schema: Any, stored: bool, books: Books) -> None:
    client, model = client_of(books), books.model()
    graph = graph_of(schema, create(client, GRIEF), create(client), lambda: model.ainvoke("What time do you open?"))
    found = await graph.compile(store=InMemoryStore() if stored else None).ainvoke({"messages": "hi"}, THREAD)

    assert [entry.tier for entry in books.entries] == ["strong"] * 3
    assert schema is MessagesState or found["routing"]["facts"] == ["distress"]


async def test_a_fact_from_another_process_comes_from_the_runs_store() -> None:
    store, before, after = InMemoryStore(), Books(), Books()
    await graph_of(MessagesState, create(client_of(before), GRIEF)).compile(store=store).ainvoke({"messages": "hi"}, THREAD)
    await graph_of(MessagesState, create(client_of(after))).compile(store=store).ainvoke({"messages": "hi"}, THREAD)

    assert [(entry.tier, entry.codes) for entry in after.entries] == [("strong", ("empathy",))]


async def test_a_client_with_a_thread_of_its_own_has_no_fact_of_the_runs(books: Books) -> None:
    client = about(client_of(books), thread="another")
    await graph_of(Desk, create(client)).compile().ainvoke({"messages": "hi", "routing": facts("distress")}, THREAD)

    assert [(entry.thread, entry.tier) for entry in books.entries] == [("another", "cheap")]


FLOORS = {"metadata": "metadata = { vulnerable = true }", "context": 'label = { tenant = "vip" }', "tag": 'label = { team = "legal" }'}


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("said", [{}, {"labels": {"tenant": "acme", "team": "sales"}}])
async def test_the_runs_floors_hold_for_a_client_whatever_labels_it_has(floor: str, said: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f'[[floor]]\ntier = "strong"\n{FLOORS[floor]}\n', "utf-8")
    books = Books(Policy.load(path))
    graph = graph_of(MessagesState, create(about(client_of(books), **said)), context=Context).compile()
    given = {"metadata": {"metadata": {"vulnerable": True}}, "tag": {"tags": ["team:legal"]}}.get(floor, {})
    await graph.ainvoke({"messages": "hi"}, {**THREAD, **given}, context=Context("vip" if floor == "context" else "other"))

    assert [(entry.tier, entry.codes) for entry in books.entries] == [("strong", ("policy_floor",))]


@pytest.mark.parametrize("model", ["auto", "claude-haiku-5-5"])
async def test_a_clients_call_is_written_down_with_its_node_thread_and_labels(model: str, books: Books) -> None:
    graph = graph_of(MessagesState, create(client_of(books), model=model)).compile()
    await graph.ainvoke({"messages": "hi"}, {**THREAD, "metadata": {"tenant": "acme"}, "tags": ["team:support"]})

    [entry] = books.entries
    assert (entry.node, entry.thread, dict(entry.labels)) == ("step0", "t", {"tenant": "acme", "team": "support"})


@pytest.mark.parametrize("model", ["auto", "claude-haiku-5-5"])
async def test_the_spans_of_a_clients_call_are_under_the_nodes_in_a_watched_graph(model: str, books: Books) -> None:
    graph = watch(graph_of(MessagesState, create(client_of(books), model=model)), books.router).compile()
    await graph.ainvoke({"messages": "hi"}, THREAD)

    spans = {span.context.span_id: span for span in books.spans.get_finished_spans()}
    [leaf] = books.leaves
    outermost = next(iter(books.routes), leaf)
    assert spans[outermost.parent.span_id].name.endswith("step0")
    assert outermost is leaf or spans[leaf.parent.span_id] is outermost


async def test_a_call_of_a_client_outside_a_node_is_as_before(books: Books) -> None:
    await create(client_of(books))()

    assert [(entry.node, entry.thread, entry.tier) for entry in books.entries] == [(None, None, "cheap")]
