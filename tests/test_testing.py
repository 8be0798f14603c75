"""The scripted model behaves like a provider's, and each kit finds what it is there to find."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import pytest
from langchain_core.exceptions import ModelConnectionError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from routed_agents import checks, guards
from routed_agents.checks import Rejection, Reply
from routed_agents.classify import Classification, LinearClassifier
from routed_agents.features import Features
from routed_agents.guards import TOP, Assessment, Verdict, named
from routed_agents.pricing import Prices, Usage
from routed_agents.state import EMPTY, MemoryStateStore, ThreadState
from routed_agents.steps import Step
from routed_agents.testing import ScriptedChatModel, check_check, check_classifier, check_guard, check_price_source, check_state_store


def search(city: str) -> str:
    """Look a city up."""
    return city


CALL = AIMessage(content="", tool_calls=[{"name": "search", "args": {"city": "Rome"}, "id": "1"}])


def test_replies_come_in_order_and_the_last_is_repeated() -> None:
    model = ScriptedChatModel(replies=["one", "two"])
    assert [model.invoke("?").content for _ in range(3)] == ["one", "two", "two"]


def test_an_error_in_the_script_is_raised_once() -> None:
    model = ScriptedChatModel(replies=[TimeoutError("busy"), "ok"])
    with pytest.raises(TimeoutError, match="busy"):
        model.invoke("?")
    assert model.invoke("?").content == "ok"


def test_a_function_answers_from_the_messages() -> None:
    model = ScriptedChatModel(replies=lambda messages: messages[-1].text.upper())
    assert model.invoke("hello").content == "HELLO"


def test_a_reply_names_its_model_and_what_it_used() -> None:
    reply = ScriptedChatModel(model_name="claude-haiku-5-5", usage={"input_tokens": 7, "output_tokens": 3}).invoke("?")
    assert (reply.response_metadata["model_name"], reply.usage_metadata) == (
        "claude-haiku-5-5",
        {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
    )


def test_empty_usage_is_none_at_all() -> None:
    assert ScriptedChatModel(usage={}).invoke("?").usage_metadata is None


async def _all_ways(model: ScriptedChatModel) -> list[BaseMessage]:
    streamed, astreamed = list(model.stream("?")), [chunk async for chunk in model.astream("?")]
    return [model.invoke("?"), await model.ainvoke("?"), sum(streamed[1:], streamed[0]), sum(astreamed[1:], astreamed[0])]


async def test_streams_add_up_to_the_whole_reply() -> None:
    replies = await _all_ways(ScriptedChatModel(replies="a b  c", model_name="m", usage={"input_tokens": 2, "output_tokens": 3}))
    assert {reply.text for reply in replies} == {"a b  c"}
    assert {str(reply.usage_metadata) for reply in replies if isinstance(reply, AIMessage)} == {str(replies[0].usage_metadata)}
    assert {reply.response_metadata["model_name"] for reply in replies} == {"m"}


async def test_tool_calls_come_whole_through_every_door() -> None:
    replies = await _all_ways(ScriptedChatModel(replies=CALL))
    assert {str(reply.tool_calls[0]["args"]) for reply in replies if isinstance(reply, AIMessage)} == {"{'city': 'Rome'}"}


def test_a_stream_breaks_off_where_it_is_told_to() -> None:
    stream = ScriptedChatModel(replies="a b c d", break_after=2).stream("?")
    assert [next(stream).text, next(stream).text] == ["a", " b"]
    with pytest.raises(ModelConnectionError):
        next(stream)


def test_bound_tools_show_in_its_calls() -> None:
    model = ScriptedChatModel(replies=CALL)
    model.bind_tools([search], tool_choice="any").invoke([HumanMessage("?")])
    assert [tool["function"]["name"] for tool in model.calls[0].options["tools"]] == ["search"]


def test_structured_output_reads_a_scripted_tool_call() -> None:
    schema = {"title": "search", "description": "Look a city up.", "type": "object", "properties": {"city": {"type": "string"}}}
    assert ScriptedChatModel(replies=CALL).with_structured_output(schema).invoke("?") == {"city": "Rome"}


async def test_a_hundred_at_once_get_a_reply_each() -> None:
    model = ScriptedChatModel(replies=[str(number) for number in range(100)], delay_s=0.001)
    replies = await asyncio.gather(*[model.ainvoke("?") for _ in range(100)])
    assert len({reply.content for reply in replies}) == 100


# ---- the kits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", guards.DEFAULT, ids=lambda guard: type(guard).__name__)
def test_our_own_guards_pass(guard: guards.Guard) -> None:
    check_guard(guard)


@pytest.mark.parametrize("check", checks.DEFAULT, ids=lambda check: type(check).__name__)
def test_our_own_checks_pass(check: checks.Check) -> None:
    check_check(check)


def test_our_own_classifier_prices_and_store_pass() -> None:
    check_classifier(LinearClassifier())
    check_price_source(Prices(snapshot=False), known="claude-haiku-4-5")
    check_state_store(MemoryStateStore)


def _says(verdict: object) -> guards.Guard:
    return named("mine", version="1")(lambda seen: verdict)  # type: ignore[arg-type, return-value]


@dataclass
class Moody:
    """Objects every other time."""

    asked: list[int] = field(default_factory=list, repr=False)

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        self.asked.append(1)
        return Verdict(guard="moody", code="mood", floor=1) if len(self.asked) % 2 else None


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (lambda seen: None, "no name and version"),
        (Moody(), "must be pure"),
        (_says("strong"), "wanted a Verdict or None"),
        (_says(Verdict(guard="mine", code="", floor=1)), "without a code"),
        (_says(Verdict(guard="mine", code="x", floor=-1)), "wanted a rank"),
        (_says(Verdict(guard="mine", code="x", floor=TOP, pin="forever")), "known scopes"),  # type: ignore[arg-type]
        (named("mine", version="1")(lambda seen: 1 / 0), "must answer, whatever"),  # type: ignore[arg-type, return-value]
    ],
)
def test_an_unfit_guard_is_told_why(guard: guards.Guard, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_guard(guard)


@dataclass(frozen=True)
class Fixed:
    """A classifier that always says the same."""

    says: Classification

    def classify(self, features: Features, /) -> Classification:
        return self.says


@pytest.mark.parametrize(
    ("says", "said"),
    [
        (Classification(task_class="poetry", confidence=1, p_strong=0), "known: "),
        (Classification(task_class="extraction", confidence=float("nan"), p_strong=0), "confidence nan"),
        (Classification(task_class="extraction", confidence=1, p_strong=2), "p_strong 2"),
    ],
)
def test_an_unfit_classifier_is_told_why(says: Classification, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_classifier(Fixed(says))


def test_a_check_that_fails_on_an_odd_reply_is_told_so() -> None:
    @dataclass(frozen=True)
    class Shouting:
        def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
            return Rejection(check="shouting", code="shouting") if reply.text[0].isupper() else None

    with pytest.raises(AssertionError, match="raised IndexError"):
        check_check(Shouting())


@pytest.mark.parametrize(
    ("answer", "said"), [(Decimal(0), "more than nothing"), (0.01, "wanted a Decimal"), (Decimal("0.01"), "doesn't exist")]
)
def test_an_unfit_price_source_is_told_why(answer: object, said: str) -> None:
    class Flat:
        def cost(self, model: str, usage: Usage, /, *, at: datetime) -> Decimal | None:
            return answer  # type: ignore[return-value]

    with pytest.raises(AssertionError, match=said):
        check_price_source(Flat(), known="mine")


def test_a_store_that_overwrites_is_told_so() -> None:
    class Last:
        def __init__(self) -> None:
            self.states: dict[str, ThreadState] = {}

        def load(self, thread: str, /) -> ThreadState:
            return self.states.get(thread, EMPTY)

        def add(self, thread: str, state: ThreadState, /) -> None:
            self.states[thread] = state

    with pytest.raises(AssertionError, match="after adding forth"):
        check_state_store(Last)
