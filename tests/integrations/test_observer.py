"""An observer prices the model calls that nobody routed, and leaves the others alone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ModelConnectionError
from langchain_core.language_models import BaseLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableLambda
from langgraph.func import task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy

from routed_agents import CostObserver, Ledger, Policy, Router, RouterNode, cost_of, join, watch
from routed_agents.economics import tokenizer_factor
from routed_agents.integrations.langgraph import observed
from routed_agents.offline.report import cost_table
from routed_agents.offline.shadow import would_save
from routed_agents.telemetry import names
from routed_agents.testing import ScriptedChatModel

from .conftest import EASY, HAIKU, HARD, OPUS, Books, scripted

ASKED = {"messages": [HumanMessage(EASY)]}


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]
    decided: dict[str, Any]


def plain_graph(model: Any, *, how: str = "invoke") -> Any:
    """One node with a plain model."""

    def said(state: MessagesState) -> dict[str, Any]:
        if how == "stream":
            return {"messages": [AIMessage("".join(chunk.text for chunk in model.stream(state["messages"])))]}
        return {"messages": [model.invoke(state["messages"])]}

    async def asaid(state: MessagesState) -> dict[str, Any]:
        if how == "astream":
            return {"messages": [AIMessage("".join([chunk.text async for chunk in model.astream(state["messages"])]))]}
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("say", asaid if how.startswith("a") else said)
    builder.add_edge(START, "say")
    return builder.compile()


def routed_graph(books: Books, quick: Any, deep: Any) -> Any:
    """A router node before plain models."""
    return routed_to(books, asks(deep), quick=asks(quick))


def asks(*models: Any) -> Any:
    """A node that asks these models, one after the other, and answers as the first does."""

    def asked(state: MessagesState) -> dict[str, Any]:
        first, *_ = [model.invoke(state["messages"]) for model in models]
        return {"messages": [first]}

    return asked


def routed_to(books: Books, deep: Any, *, quick: Any = None, seen_by: Any = observed, **options: Any) -> Any:
    """A router node before two nodes."""
    builder = StateGraph(Desk)
    builder.add_node("router", RouterNode(books.router, to={"cheap": "quick", "strong": "deep"}), destinations=("quick", "deep"))
    builder.add_node("quick", quick or asks(scripted(HAIKU, "yes")))
    builder.add_node("deep", deep, **options)
    builder.add_edge(START, "router")
    builder.add_edge("quick", END)
    return seen_by(builder.compile(), books.router)


def around(graph: Any) -> Any:
    """A graph whose only node is this one."""
    builder = StateGraph(MessagesState)
    builder.add_node("inner", graph)
    builder.add_edge(START, "inner")
    return builder.compile()


def observer_of(graph: Any) -> CostObserver:
    return graph.config["callbacks"][0]


def holds_nothing(observer: CostObserver) -> bool:
    held = (observer._open, observer._parents, observer._expected, observer._decided, observer._counted_already)
    return not any(held) and observer not in observer._bookers.values()


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_plain_models_call_in_a_node_is_priced(how, books):
    graph = observed(plain_graph(scripted(HAIKU, "yes it is"), how=how), books.router)
    graph.invoke(ASKED, {"configurable": {"thread_id": "t1"}, "metadata": {"tenant": "acme", "run_id": "r1"}})
    [entry] = books.entries
    assert (entry.outcome, entry.mode, entry.tier, entry.node, entry.thread, entry.run) == ("watched", "watch", "cheap", "say", "t1", "r1")
    assert (entry.usage.source, entry.cost.total_pico > 0, dict(entry.labels)) == ("reported", True, {"tenant": "acme"})
    assert (entry.first_chunk_ns is not None) == (how == "stream")


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_plain_models_call_in_an_async_node_is_priced(how, books):
    await observed(plain_graph(scripted(HAIKU, "yes it is"), how=how), books.router).ainvoke(ASKED)
    [entry] = books.entries
    assert (entry.outcome, entry.node, entry.usage.source, entry.cost.total_pico > 0) == ("watched", "say", "reported", True)
    assert len(books.leaves) == 1


@pytest.mark.parametrize("name", [HAIKU, "gpt-6-luna"])
def test_the_providers_own_models_are_priced_by_what_they_report(name, books, real):
    observed(plain_graph(real(name)), books.router).invoke(ASKED)
    [entry] = books.entries
    assert (entry.model, entry.simulated, entry.usage.source, entry.cost.total_pico > 0) == (name, True, "reported", True)


def test_a_model_in_none_of_the_tiers_bypasses_the_policy_and_is_counted(books):
    observed(plain_graph(scripted("claude-sonnet-4-6", "yes")), books.router).invoke(ASKED)
    [entry] = books.entries
    assert (entry.tier, entry.cost.total_pico > 0, books.counted("routed_agents.bypassing")) == ("unrouted", True, 1)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "dollars"),
    [
        ("groq", "llama-3.3-70b-versatile", "unrouted", "0.59"),
        ("openrouter", "anthropic/claude-opus-5.5", "strong", "4"),
        ("azure", "gpt-4o", "unrouted", "2.50"),
        ("ollama", "mistral-nemo", "unrouted", None),
    ],
)
def test_a_plain_model_is_priced_as_its_provider_sells_it(provider, model, tier, dollars, books):
    counted = {"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000}
    said = AIMessage("yes", usage_metadata=counted, response_metadata={"model_name": model, "model_provider": provider})
    observed(plain_graph(ScriptedChatModel(model_name=model, provider=provider, replies=[said])), books.router).invoke(ASKED)
    [entry] = books.entries
    assert (entry.provider, entry.tier, entry.cost and entry.cost.usd) == (provider, tier, dollars and Decimal(dollars))


@pytest.mark.parametrize(("config", "tier"), [({}, "cheap"), (HARD, "strong")])
def test_calls_behind_a_router_node_stand_under_its_decision(config, tier, books):
    routed_graph(books, scripted(HAIKU, "yes"), scripted(OPUS, "no")).invoke(ASKED, {"configurable": {"thread_id": "t1"}, **config})
    [entry], [route], [leaf] = books.entries, books.routes, books.leaves
    assert (entry.tier, entry.decided_tier, entry.task_class) == (tier, tier, "agentic_chain" if config else "classification")
    assert (leaf.parent.span_id, leaf.attributes[names.TIER]) == (route.context.span_id, tier)


@pytest.mark.parametrize("mode", ["enforce", "shadow", "off"])
def test_calls_behind_a_router_node_have_its_mode(mode):
    books = Books(Policy.default(mode=mode))
    routed_graph(books, scripted(HAIKU, "yes"), scripted(OPUS, "no")).invoke(ASKED)
    [entry], [route], [leaf] = books.entries, books.routes, books.leaves
    assert entry.mode == route.attributes[names.MODE] == leaf.attributes[names.MODE] == mode


def test_what_shadow_would_save_behind_a_router_node_is_what_is_saved_when_enforced():
    shadow, enforced = Books(Policy.default(mode="shadow")), Books()
    for books in (shadow, enforced):
        graph = routed_graph(books, scripted(HAIKU, replied(HAIKU)), scripted(OPUS, replied(OPUS)))
        for config in ({}, HARD):
            graph.invoke(ASKED, config)
    table = would_save(shadow.ledger, Policy.default())
    [spent, would, *_] = table.total[2:4]
    assert (table.total[1], spent, would) == (2, shadow.ledger.total().cost_pico, enforced.ledger.total().cost_pico)


def replied(model: str) -> list[AIMessage]:
    """The same words, as a model's tokenizer counts them."""
    factor = tokenizer_factor(OPUS, model)
    used = {"input_tokens": round(1000 * factor), "output_tokens": round(100 * factor)}
    return [AIMessage("yes", usage_metadata={**used, "total_tokens": sum(used.values())}, response_metadata={"model_name": model})] * 2


def test_a_lower_model_behind_a_router_node_sets_off_an_alarm_and_saves_nothing(books, caplog):
    graph = routed_graph(books, scripted(HAIKU, "yes"), scripted(HAIKU, "no"))
    for thread in ("t1", "t2"):
        graph.invoke(ASKED, {"configurable": {"thread_id": thread}, **HARD})
    [told] = [line for line in caplog.messages if 'node "deep"' in line]
    assert told.startswith(f'node "deep": {HAIKU} answered a step that must not go below tier strong; have the node call')
    assert [(entry.tier, entry.outcome, entry.baseline_pico, entry.below_floor) for entry in books.entries] == [
        ("cheap", "watched", None, True)
    ] * 2
    assert books.counted("routed_agents.alarms") == 2
    assert "all-strong" not in str(cost_of(ledger=books.ledger, thread="t1"))
    assert "2 calls answered below the floor of their step" in cost_table(books.ledger).notes[0]
    assert all(leaf.attributes[names.REASONS][-1] == "check:served_model_below_floor" for leaf in books.leaves)


@pytest.mark.parametrize(
    ("mode", "config", "deep"),
    [
        ("enforce", {}, HAIKU),
        ("enforce", HARD, OPUS),
        ("enforce", HARD, "claude-opus-5-5-20261007"),
        ("enforce", HARD, "claude-sonnet-4-6"),
        ("shadow", HARD, HAIKU),
    ],
    ids=["no floor", "the floor's model", "a dated name of it", "a model of no tier", "nothing is enforced"],
)
def test_nothing_else_behind_a_router_node_sets_off_an_alarm(mode, config, deep, caplog):
    books = Books(Policy.default(mode=mode))
    routed_graph(books, scripted(HAIKU, "yes"), scripted(deep, "no")).invoke(ASKED, config)
    assert (books.entries[0].below_floor, books.counted("routed_agents.alarms")) == (False, 0)
    assert not [line for line in caplog.messages if "must not go below" in line]


def test_a_middle_model_that_the_node_does_not_name_is_a_lower_one(books):
    three = Books(Policy.default(tiers="claude-2026-11-three"))
    middle = three.router.policy.tiers.named("mid").model
    routed_graph(three, scripted(HAIKU, "yes"), scripted(middle, "no")).invoke(ASKED, HARD)
    assert [entry.below_floor for entry in three.entries] == [True]


def called_from_a_function(model: Any) -> Any:
    agent = create_agent(model, [])
    return lambda state: agent.invoke({"messages": state["messages"]})


def called_in_a_task(model: Any) -> Any:
    @task
    def asked(messages: Any) -> Any:
        return model.invoke(messages)

    return lambda state: {"messages": [asked(state["messages"]).result()]}


@pytest.mark.parametrize("seen_by", [observed, watch])
@pytest.mark.parametrize(
    "made",
    [lambda model: create_agent(model, []), plain_graph, called_from_a_function, called_in_a_task],
    ids=["an agent", "a graph", "an agent in a function", "a task"],
)
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_a_call_further_in_behind_a_router_node_stands_under_its_decision(mode, made, seen_by, caplog):
    books = Books(Policy.default(mode=mode))
    routed_to(books, made(scripted(HAIKU, "no")), seen_by=seen_by).invoke(ASKED, HARD)
    [entry], [route], [leaf] = books.entries, books.routes, books.leaves
    assert (entry.mode, entry.decided_tier, entry.below_floor) == (mode, "strong", mode == "enforce")
    assert leaf.parent.span_id == route.context.span_id
    assert any('node "deep": ' in line for line in caplog.messages) == (mode == "enforce")


def test_a_call_in_the_node_of_the_graph_around_that_a_router_node_goes_to_is_the_decided_step(books):
    inner = StateGraph(Desk)
    inner.add_node("router", RouterNode(books.router, to={"cheap": "deep", "strong": "deep"}, graph=Command.PARENT))
    inner.add_edge(START, "router")
    builder = StateGraph(Desk)
    builder.add_node("desk", inner.compile(), destinations=("deep",))
    builder.add_node("deep", asks(scripted(HAIKU, "no")))
    builder.add_edge(START, "desk")
    observed(builder.compile(), books.router).invoke(ASKED, HARD)
    assert [(entry.mode, entry.below_floor) for entry in books.entries] == [("enforce", True)]


def test_a_call_behind_two_router_nodes_is_the_inner_ones_step(books):
    inner = routed_to(books, asks(scripted(OPUS, "no"), scripted(HAIKU, "a title")))
    routed_to(books, inner).invoke(ASKED, HARD)
    assert [(entry.mode, entry.below_floor) for entry in books.entries] == [("enforce", False), ("watch", False)]
    assert books.leaves[0].parent.span_id == books.routes[1].context.span_id


def asked_anew(strong: Any, cheap: Any) -> Any:
    """A node that is visited again by an edge of its own, and then asks the cheap model."""

    def asked(state: Desk) -> Command[Any]:
        first = len(state["messages"]) == 1
        return Command(update={"messages": [(strong if first else cheap).invoke(state["messages"])]}, goto="deep" if first else END)

    return asked


@pytest.mark.parametrize("deep", [asks, asked_anew], ids=["in the node", "in a later visit"])
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_a_further_call_behind_a_router_node_is_a_step_of_its_own(mode, deep, caplog):
    books = Books(Policy.default(mode=mode))
    routed_to(books, deep(scripted(OPUS, replied(OPUS)), scripted(HAIKU, replied(HAIKU)))).invoke(ASKED, HARD)
    step, further = books.entries
    assert [(entry.mode, entry.below_floor, entry.baseline_pico) for entry in (step, further)] == [
        (mode, False, step.cost.total_pico),
        ("watch", False, step.cost.total_pico),
    ]
    assert (books.counted("routed_agents.alarms"), [line for line in caplog.messages if "must not go below" in line]) == (0, [])


def test_what_shadow_would_save_behind_a_router_node_is_reckoned_on_the_decided_step_only():
    books = Books(Policy.default(mode="shadow"))
    routed_to(books, asks(scripted(OPUS, replied(OPUS)), scripted(HAIKU, replied(HAIKU)))).invoke(ASKED, HARD)
    cost = books.ledger.total(mode="shadow").cost_pico
    assert would_save(books.ledger, Policy.default()).total[1:5] == (1, cost, cost, 0)


@pytest.mark.parametrize("retried_by", ["the model", "the graph"])
def test_the_first_answer_behind_a_router_node_is_the_decided_steps(retried_by, books):
    model = scripted(HAIKU, [ConnectionError("gone"), "no"])
    if retried_by == "the model":
        graph = routed_to(books, asks(model.with_retry(wait_exponential_jitter=False)))
    else:
        graph = routed_to(books, asks(model), retry_policy=RetryPolicy(initial_interval=0))
    graph.invoke(ASKED, HARD)
    assert [(entry.outcome, entry.below_floor) for entry in books.entries] == [("failed", False), ("watched", True)]


def test_a_failed_call_of_a_lower_model_answers_nobody(books):
    with pytest.raises(TimeoutError):
        routed_graph(books, scripted(HAIKU, "yes"), scripted(HAIKU, TimeoutError("gone"))).invoke(ASKED, HARD)
    assert [(entry.outcome, entry.below_floor) for entry in books.entries] == [("failed", False)]


def test_routed_calls_are_left_alone(books):
    model = books.model()
    observed(plain_graph(model), books.router).invoke(ASKED)
    assert books.story == [("cheap", "accepted")]


@pytest.mark.parametrize("outer", [observed, watch])
@pytest.mark.parametrize("inner", [observed, watch])
@pytest.mark.parametrize("reply", ["yes", TimeoutError("gone")])
def test_a_call_that_several_observers_hear_is_booked_once(reply, inner, outer, books):
    graph = outer(around(inner(plain_graph(scripted(HAIKU, reply)), books.router)), books.router)
    with contextlib.suppress(TimeoutError):
        graph.invoke(ASKED)
    assert (len(books.entries), len(books.leaves)) == (1, 1)
    assert holds_nothing(observer_of(graph))


@pytest.mark.parametrize(("inner", "outer"), [(observed, watch), (watch, observed)])
def test_of_an_observer_and_a_watch_the_watch_books_it_under_its_node(inner, outer, books):
    outer(around(inner(plain_graph(scripted(HAIKU, "yes")), books.router)), books.router).invoke(ASKED)
    [leaf], [node] = books.leaves, books.named("node say")
    assert leaf.parent.span_id == node.context.span_id


def test_a_routed_graph_in_an_observed_one_keeps_its_decisions(books):
    observed(around(routed_graph(books, scripted(HAIKU, "yes"), scripted(OPUS, "no"))), books.router).invoke(ASKED, HARD)
    [entry], [route], [leaf] = books.entries, books.routes, books.leaves
    assert (entry.decided_tier, leaf.parent.span_id) == ("strong", route.context.span_id)


def test_a_call_is_in_each_of_several_ledgers(books):
    other = Router(ledger=Ledger.memory())
    observed(around(observed(plain_graph(scripted(HAIKU, "yes")), other)), books.router).invoke(ASKED)
    assert len(books.entries) == len(list(other.ledger.entries())) == 1


def test_a_call_is_once_in_a_file_that_several_routers_open(tmp_path):
    inner, outer = (Router(ledger=Ledger.sqlite(tmp_path / "costs.db")) for _ in range(2))
    observed(around(observed(plain_graph(scripted(HAIKU, "yes")), inner)), outer).invoke(ASKED)
    assert inner.ledger.flush()
    assert len(list(outer.ledger.entries())) == 1


def test_an_observer_whose_call_never_ended_is_not_kept(books):
    observer = CostObserver(books.router)
    observer.on_chat_model_start({}, [[HumanMessage(EASY)]], run_id=uuid4())
    gone = weakref.ref(observer)
    del observer
    gc.collect()
    assert gone() is None


def test_a_failed_call_is_recorded_with_its_error(books):
    with pytest.raises(TimeoutError):
        observed(plain_graph(scripted(HAIKU, TimeoutError("gone"))), books.router).invoke(ASKED)
    assert [(entry.outcome, entry.error) for entry in books.entries] == [("failed", "TimeoutError")]


def test_a_stream_that_breaks_off_is_recorded(books):
    broken = ScriptedChatModel(model_name=HAIKU, replies="one two three", break_after=2)
    with pytest.raises(ModelConnectionError):
        observed(plain_graph(broken, how="stream"), books.router).invoke(ASKED)
    assert [(entry.outcome, entry.error) for entry in books.entries] == [("failed", "ModelConnectionError")]


def test_a_stream_its_reader_gives_up_is_recorded_as_abandoned(books):
    model = scripted(HAIKU, "one two three").with_config(callbacks=[CostObserver(books.router)])
    stream = model.stream(EASY)
    next(stream)
    stream.close()
    assert [entry.outcome for entry in books.entries] == ["abandoned"]


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_stream_that_breaks_off_is_booked_with_the_words_seen(how, books):
    broken = ScriptedChatModel(model_name=HAIKU, replies="one two three " * 200, break_after=300)
    graph = observed(plain_graph(broken, how=how), books.router)
    with pytest.raises(ModelConnectionError):
        list(graph.stream(ASKED, stream_mode="messages"))
    (entry,) = books.entries
    assert (entry.outcome, entry.usage.source, entry.usage.input > 0, entry.usage.output > 300) == ("failed", "estimated", True, True)


COUNTED = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


class Completing(BaseLLM):
    """A text completion model, which says with each request what all of its prompts took."""

    model_name: str = "gpt-3.5-turbo-instruct"
    counted: Any = COUNTED
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "openai"

    def _get_ls_params(self, *_: Any, **__: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": self.model_name, "ls_model_type": "llm"}

    def _generate(self, prompts: list[str], *_: Any, **__: Any) -> LLMResult:
        if self.fails:
            raise TimeoutError("gone")
        told = {"token_usage": self.counted, "model_name": self.model_name} if self.counted is not None else None
        return LLMResult(
            generations=[[Generation(text="yes", generation_info={"finish_reason": "stop"})] for _ in prompts], llm_output=told
        )

    def _stream(self, prompt: str, *_: Any, run_manager: Any = None, **__: Any) -> Any:
        for word in ["word "] * 300:
            chunk = GenerationChunk(text=word)
            run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        raise TimeoutError("gone")


COMPLETED: dict[str, Any] = {
    "observed": lambda llm, books: llm.invoke("hi", {"callbacks": [CostObserver(books.router)]}),
    "watched": lambda llm, books: completing_graph(llm, books).invoke(ASKED),
    "async": lambda llm, books: asyncio.run(completing_graph(llm, books).ainvoke(ASKED)),
    "three prompts": lambda llm, books: llm.batch(["one", "two", "three"], {"callbacks": [CostObserver(books.router)]}),
    "three at once": lambda llm, books: asyncio.run(llm.abatch(["one", "two", "three"], {"callbacks": [CostObserver(books.router)]})),
}


def completing_graph(llm: Any, books: Books) -> Any:
    builder = StateGraph(MessagesState)

    async def asay(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await llm.ainvoke("hi"))]}

    builder.add_node("say", RunnableLambda(lambda state: {"messages": [AIMessage(llm.invoke("hi"))]}, afunc=asay))
    builder.add_edge(START, "say")
    return watch(builder.compile(), books.router)


@pytest.mark.parametrize("how", COMPLETED)
def test_a_request_of_a_text_completion_model_is_booked_once(how, books):
    COMPLETED[how](Completing(), books)
    (entry,) = books.entries
    assert (entry.outcome, entry.served_model, entry.usage.source, entry.cost.usd) == (
        "watched",
        "gpt-3.5-turbo-instruct",
        "reported",
        Decimal("0.0017"),
    )
    assert [span.name for span in books.leaves] == ["chat gpt-3.5-turbo-instruct"]


@pytest.mark.parametrize("counted", [None, {}], ids=["no report", "an empty one"])
@pytest.mark.parametrize(("how", "calls"), [("observed", 1), ("three prompts", 3)])
def test_a_text_completion_that_reports_nothing_is_unpriced(how, calls, counted, books):
    COMPLETED[how](Completing(counted=counted), books)
    assert [(entry.outcome, entry.cost, entry.usage.source) for entry in books.entries] == [("watched", None, "missing")] * calls


def test_a_text_completion_that_fails_is_recorded_with_its_error(books):
    with pytest.raises(TimeoutError):
        COMPLETED["watched"](Completing(fails=True), books)
    assert [(entry.outcome, entry.error, entry.node) for entry in books.entries] == [("failed", "TimeoutError", "say")]


def test_a_text_completion_that_breaks_off_is_booked_with_the_words_seen(books):
    with pytest.raises(TimeoutError):
        list(Completing().stream("hi", {"callbacks": [CostObserver(books.router)]}))
    assert [(entry.outcome, entry.usage.source, entry.usage.output > 300) for entry in books.entries] == [("failed", "estimated", True)]


def test_nothing_is_kept_of_requests_with_several_prompts(books):
    observer = CostObserver(books.router)
    for _ in range(3):
        Completing().batch(["one", "two"], {"callbacks": [observer]})
    assert (len(books.entries), holds_nothing(observer)) == (3, True)


async def test_a_cancelled_call_is_recorded_as_abandoned_and_forgotten(books):
    graph = observed(plain_graph(ScriptedChatModel(model_name=HAIKU, delay_s=30), how="ainvoke"), books.router)
    task = asyncio.create_task(graph.ainvoke(ASKED))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [entry.outcome for entry in books.entries] == ["abandoned"]
    assert holds_nothing(observer_of(graph))


def test_nothing_is_kept_after_many_runs(books):
    graph = routed_graph(books, scripted(HAIKU, "yes"), scripted(OPUS, TimeoutError("gone")))
    for number in range(60):
        with contextlib.suppress(TimeoutError):
            if number % 3:
                graph.invoke(ASKED, HARD if number % 2 else {})
            else:
                stream = graph.stream(ASKED)
                next(stream)
                stream.close()
                del stream
    gc.collect()
    assert holds_nothing(observer_of(graph))
    assert len(books.entries) >= 40


def test_one_observer_serves_many_threads_at_once(books):
    graph = routed_graph(books, scripted(HAIKU, "yes"), scripted(OPUS, "no"))
    configs = [{"configurable": {"thread_id": str(number)}, **(HARD if number % 2 else {})} for number in range(30)]
    graph.batch([ASKED] * 30, configs)
    assert {entry.thread: entry.tier for entry in books.entries} == {
        str(number): "strong" if number % 2 else "cheap" for number in range(30)
    }
    assert holds_nothing(observer_of(graph))


@pytest.mark.parametrize("begins_with", ["triage", START])
def test_a_call_behind_a_conditional_edge_is_the_step_that_was_decided_there(books, begins_with):
    node = RouterNode(books.router, to={"cheap": "quick", "strong": "deep"}, decision_key="decided")
    builder = StateGraph(Desk)
    builder.add_node("quick", lambda state: {"messages": [scripted(HAIKU, "yes").invoke(state["messages"])]})
    builder.add_node("deep", lambda state: {"messages": [scripted(OPUS, "no").invoke(state["messages"])]})
    if begins_with != START:
        builder.add_node(begins_with, lambda state: {})
        builder.add_edge(START, begins_with)
    builder.add_conditional_edges(begins_with, node.edge, [*node.destinations])
    graph = observed(builder.compile(), books.router)

    decided = graph.invoke(ASKED, HARD)["decided"]

    (entry,) = books.entries
    assert (entry.step_id, entry.tier) == (decided["id"], "strong")
    assert holds_nothing(observer_of(graph))
