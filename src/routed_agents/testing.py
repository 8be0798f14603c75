"""What a test of your own rules or graphs needs: a scripted chat model, and a set of checks for each shape you may implement."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import ModelConnectionError
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, PrivateAttr

from routed_agents.checks import Check, Rejection, Reply
from routed_agents.classify import Classifier
from routed_agents.features import Features, extract
from routed_agents.guards import Assessment, Conditions, Guard, Verdict
from routed_agents.health_sharing import HealthStore
from routed_agents.policy import Policy
from routed_agents.pricing import PriceSource, Usage
from routed_agents.state import EMPTY, SCOPES, Pin, StateStore, ThreadState, release_of
from routed_agents.steps import Step, ToolCall
from routed_agents.taxonomy import Taxonomy

Scripted = str | AIMessage | BaseException | Callable[[Sequence[BaseMessage]], "str | AIMessage"]
"""A reply of a scripted model: its text, a whole message, an error to raise, or a function of what was asked."""

T = TypeVar("T")

# ---- the scripted model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call a scripted model got: its messages and keyword arguments (bound tools, stop, …)."""

    messages: tuple[BaseMessage, ...]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


class ScriptedChatModel(BaseChatModel):
    """A chat model that says what a test wants it to say; the last reply is repeated.

    Attributes:
        replies: in order: texts, messages (with tool calls, say), errors to raise, or functions of the messages.
        model_name: what the reply calls its model, so that it is priced and ranked.
        usage: the tokens every reply reports; counted from the words when not given, and reported by none when empty.
        provider: what traces call its provider.
        break_after: raise `broken_by` after so many chunks of a stream.
        delay_s: how long each call takes.

    >>> from langchain_core.exceptions import ModelTimeoutError
    >>> model = ScriptedChatModel(replies=[ModelTimeoutError("busy"), "Hello."], model_name="claude-haiku-5-5")
    >>> model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke("Hi").content
    'Hello.'
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    replies: Any = "ok"
    model_name: str = "scripted"
    usage: Mapping[str, Any] | None = None
    provider: str = "scripted"
    break_after: int | None = None
    broken_by: Any = None
    delay_s: float = 0.0
    _asked: list[Asked] = PrivateAttr(default_factory=list[Asked])
    _numbers: Iterator[int] = PrivateAttr(default_factory=itertools.count)

    @property
    def calls(self) -> list[Asked]:
        """What it was asked, in order."""
        return list(self._asked)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider=self.provider, ls_model_name=self.model_name, ls_model_type="chat")

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, parallel_tool_calls: bool | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools in OpenAI's form; what is bound shows in `calls`."""
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        named = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        chosen = {name: value for name, value in named.items() if value is not None}
        return cast("Runnable[LanguageModelInput, AIMessage]", self.bind(tools=formatted, **chosen, **kwargs))

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        if self.delay_s:
            time.sleep(self.delay_s)
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, stop, kwargs))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(self.delay_s)
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, stop, kwargs))])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        if self.delay_s:
            time.sleep(self.delay_s)
        for chunk in self._chunks(self._reply(messages, stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        await asyncio.sleep(self.delay_s)
        for chunk in self._chunks(self._reply(messages, stop, kwargs)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
            await asyncio.sleep(0)

    def _reply(self, messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]) -> AIMessage:
        number = next(self._numbers)
        self._asked.append(Asked(messages=tuple(messages), options={**options, **({"stop": stop} if stop else {})}))
        script: Any = self.replies
        replies: list[Any] = [*script] if isinstance(script, (list, tuple)) else [script]
        reply = replies[min(number, len(replies) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        if callable(reply):
            reply = reply(messages)
        message = AIMessage(content=reply) if isinstance(reply, str) else cast("AIMessage", reply).model_copy(deep=True)
        message.response_metadata = {
            "model_name": self.model_name,
            "model_provider": self.provider,
            "stop_reason": "tool_use" if message.tool_calls else "end_turn",
            **message.response_metadata,
        }
        if message.usage_metadata is None:
            message.usage_metadata = self._usage(messages, message)
        return message

    def _usage(self, messages: Sequence[BaseMessage], reply: AIMessage) -> UsageMetadata | None:
        if self.usage is None:
            sent, received = sum(len(message.text.split()) for message in messages), len(reply.text.split())
            return UsageMetadata(input_tokens=sent, output_tokens=received, total_tokens=sent + received)
        if not self.usage:
            return None
        total = self.usage.get("input_tokens", 0) + self.usage.get("output_tokens", 0)
        return cast("UsageMetadata", {"input_tokens": 0, "output_tokens": 0, "total_tokens": total, **self.usage})

    def _chunks(self, message: AIMessage) -> Iterator[ChatGenerationChunk]:
        """The reply word by word, then its tool calls, then what it used."""
        words = message.text.split(" ")
        pieces = [AIMessageChunk(content=word if number == 0 else f" {word}") for number, word in enumerate(words) if word or number]
        for index, call in enumerate(message.tool_calls):
            arguments = json.dumps(call["args"])
            called = tool_call_chunk(name=call["name"], args=arguments, id=call["id"], index=index)
            pieces.append(AIMessageChunk(content="", tool_call_chunks=[called]))
        last = AIMessageChunk(
            content="", usage_metadata=message.usage_metadata, response_metadata=dict(message.response_metadata), chunk_position="last"
        )
        for number, piece in enumerate([*pieces, last]):
            if self.break_after is not None and number >= self.break_after:
                raise self.broken_by if self.broken_by is not None else ModelConnectionError("the stream broke off")
            yield ChatGenerationChunk(message=piece)


# ---- the shapes -------------------------------------------------------------------------------------------------------

SAMPLE_STEPS: Final[tuple[Step, ...]] = (
    Step.from_messages("Classify the sentiment as positive or negative: lovely", id="short"),
    Step.from_messages("", id="empty"),
    Step.from_messages("🙂 ¿Qué? 要約してください", id="scripts", node="reply"),
    Step.from_messages([{"role": "user", "content": "word " * 60_000}], id="long"),
    Step.from_messages(
        [
            {"role": "system", "content": "You reply to customers."},
            {"role": "user", "content": "My mother died last week and I cannot cope with this bill."},
        ],
        id="distress",
        tools=["refund"],
        metadata={"tenant": "acme"},
    ),
    Step.from_messages(
        [
            {"role": "user", "content": "Find the cheapest flight and book it."},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "search", "args": {"to": "Rome"}}]},
            {"role": "tool", "content": "error: timeout", "tool_call_id": "1", "status": "error"},
        ],
        id="loop",
        tools=["search", "book"],
        downstream=4,
        deadline_s=2.0,
    ),
)
"""Steps of many kinds, for trying a rule on."""

SAMPLE_REPLIES: Final[tuple[Reply, ...]] = (
    Reply(text="Positive.", stop_reason="end_turn"),
    Reply(),
    Reply(text="I can't help with that.", stop_reason="refusal", refused=True),
    Reply(text="half a sent", stop_reason="max_tokens"),
    Reply(tool_calls=(ToolCall(name="search", arguments='{"to": "Rome"}', id="1"),), stop_reason="tool_use"),
    Reply(unreadable_calls=("search",)),
    Reply(text="ok", asked_model="strong-model", served_model="cheap-model", served_rank=0, obligation=1),
)
"""Replies of many kinds, for trying a check on."""


def check_guard(guard: Guard, *, policy: Policy | None = None) -> None:
    """Assert that a guard is fit to be in a policy: it answers in verdicts, alike every time, and never makes a step cheaper unseen.

    Args:
        guard: the rule.
        policy: the policy it will join; the default one when not given.

    Raises:
        AssertionError: it is not, in one line that says why.
    """
    name = _name(guard)
    without = policy if policy is not None else Policy.default()
    try:
        joined = without.replace(guards=[*without.guards, guard])
        again = without.replace(guards=[guard, *without.guards])
    except Exception as error:
        raise AssertionError(f"guard {name} cannot be put in a policy: {error}") from error
    _hold(
        joined.hash == again.hash,
        f"guard {name} gives another policy hash when it stands elsewhere; its repr or name must not depend on order",
    )
    for seen in _assessments(without):
        verdict, second = _asked(f"guard {name}", guard, seen), _asked(f"guard {name}", guard, seen)
        _hold(verdict == second, f"guard {name} gave two answers to one question: {verdict!r}, then {second!r}; it must be pure")
        if verdict is not None:
            _check_verdict(name, verdict)
    for step in SAMPLE_STEPS:
        before, after = without.decide(step), joined.decide(step)
        _hold(
            after.verdicts == again.decide(step).verdicts, f"guard {name} decides step {step.id} differently by its place among the guards"
        )
        capped = any(verdict.cap is not None for verdict in after.verdicts)
        cheaper = after.rank is not None and before.rank is not None and after.rank < before.rank
        _hold(not cheaper or capped, f"guard {name} made step {step.id} cheaper without a cap")


def check_classifier(classifier: Classifier, *, taxonomy: Taxonomy | None = None) -> None:
    """Assert that a classifier names classes of the taxonomy, with shares from 0 to 1, alike every time, whatever it is given.

    Raises:
        AssertionError: it does not, in one line that says why.
    """
    name = _name(classifier)
    known = taxonomy if taxonomy is not None else Taxonomy.default()
    for step in SAMPLE_STEPS:
        features = extract(step)
        found, again = (
            _asked(f"classifier {name}", classifier.classify, features),
            _asked(f"classifier {name}", classifier.classify, features),
        )
        _hold(found == again, f"classifier {name} gave two answers to one question: {found!r}, then {again!r}; it must be pure")
        row = known.find(found.task_class)
        _hold(
            row is not None,
            f"classifier {name} named class {found.task_class!r} for step {step.id}; known: {', '.join(row.key for row in known)}",
        )
        for share in ("confidence", "p_strong"):
            value = getattr(found, share)
            sound = isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1
            _hold(sound, f"classifier {name} gave {share} {value!r} for step {step.id}; wanted a number from 0 to 1")


def check_check(check: Check) -> None:
    """Assert that a check answers in rejections, alike every time, whatever the reply.

    Raises:
        AssertionError: it does not, in one line that says why.
    """
    name = _name(check)
    policy = Policy.default()
    try:
        policy.replace(checks=[check])
    except Exception as error:
        raise AssertionError(f"check {name} cannot be put in a policy: {error}") from error
    for step in SAMPLE_STEPS:
        for reply in SAMPLE_REPLIES:
            found = cast("object", _asked(f"check {name}", check, step, reply))
            again = cast("object", _asked(f"check {name}", check, step, reply))
            _hold(found == again, f"check {name} gave two answers to one question: {found!r}, then {again!r}; it must be pure")
            if found is not None:
                _hold(isinstance(found, Rejection), f"check {name} gave {found!r}; wanted a Rejection or None")
                assert isinstance(found, Rejection)
                _hold(bool(found.code), f"check {name} rejects without a code; give one, it is what gets recorded")


def check_price_source(source: PriceSource, *, known: str) -> None:
    """Assert that a price source gives dollars it is sure of, and None for what it does not know.

    Args:
        source: the prices.
        known: a model it has a price for.

    Raises:
        AssertionError: it does not, in one line that says why.
    """
    name, at = _name(source), datetime(2026, 11, 23, tzinfo=UTC)
    ask: Callable[[str, Usage], Decimal | None] = lambda model, usage: _asked(  # noqa: E731
        f"price source {name}", lambda: source.cost(model, usage, at=at)
    )
    one, two = ask(known, Usage(input=1000, output=100)), ask(known, Usage(input=2000, output=200))
    _hold(isinstance(one, Decimal), f"price source {name} gave {one!r} for {known}; wanted a Decimal")
    assert one is not None
    _hold(one > 0, f"price source {name} gave {one} for 1,100 tokens of {known}; wanted more than nothing")
    _hold(two is not None and two >= one, f"price source {name} gave {two} for twice the tokens that cost {one}")
    nothing = ask(known, Usage())
    _hold(nothing is not None and nothing >= 0, f"price source {name} gave {nothing} for no tokens of {known}; wanted 0 or a fee")
    unknown = ask("no-such-model-exists", Usage(input=1000))
    _hold(unknown is None, f"price source {name} gave {unknown} for a model that doesn't exist; wanted None, which is recorded as unpriced")


def check_state_store(factory: Callable[[], StateStore]) -> None:
    """Assert that a state store joins what it is given, keeps threads apart, and loses nothing to concurrency.

    Args:
        factory: makes a store; threads that were never used in it must be empty.

    Raises:
        AssertionError: it does not, in one line that says why.
    """
    store = factory()
    name, mark = _name(store), f"check-{time.time_ns()}"
    pin = Pin(scope="lineage", tier="strong", key="reply", code="empathy")
    one, two = ThreadState(frozenset({pin})), ThreadState(facts=frozenset({"distress"}))
    over = release_of(["distress"])
    load: Callable[[str], ThreadState] = lambda thread: _asked(f"state store {name}", store.load, f"{mark}-{thread}")  # noqa: E731
    add: Callable[[str, ThreadState], None] = lambda thread, state: _asked(f"state store {name}", store.add, f"{mark}-{thread}", state)  # noqa: E731
    _hold(load("new") == EMPTY, f"state store {name} knows something of a thread nobody wrote to; wanted the empty state")
    for thread, states in (("forth", (one, two)), ("back", (two, one)), ("twice", (one, two, one, two))):
        for state in states:
            add(thread, state)
        _hold(load(thread) == one.join(two), f"state store {name} has {load(thread)!r} after adding {thread}; wanted {one.join(two)!r}")
    for thread, states in (("over", (two, over)), ("known to be over", (over, two))):
        for state in states:
            add(thread, state)
        _hold(not load(thread).facts, f"state store {name} has a fact after it was released; keep all that ThreadState.to_json writes")
    _hold(load("new") == EMPTY, f"state store {name} mixes up threads")
    facts = [f"fact-{number}" for number in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(add, "busy", ThreadState(facts=frozenset({fact}))) for fact in facts]:
            done.result()
    lost = set(facts) - load("busy").facts
    _hold(
        not lost, f"state store {name} lost {len(lost)} of {len(facts)} facts that were added at once; join where it is stored, in one step"
    )


def check_health_store(factory: Callable[[], HealthStore]) -> None:
    """Assert that a store of rests tells them to all who have it, keeps the longest, ends no longer one, and loses none to concurrency.

    Args:
        factory: opens the store; what one of them is told, the others must tell.

    Raises:
        AssertionError: it does not, in one line that says why.
    """
    store, other = factory(), factory()
    name, mark, now = _name(store), f"check-{time.time_ns()}", time.time()

    def rests(of: HealthStore) -> dict[str, float]:
        told = _asked(f"health store {name}", of.rests)
        return {deployment.removeprefix(f"{mark}-"): until for deployment, until in told.items() if deployment.startswith(mark)}

    def told(of: HealthStore, wanted: Mapping[str, float], what: str) -> None:
        found = rests(of)
        close = found.keys() == wanted.keys() and all(abs(found[key] - wanted[key]) < 0.01 for key in wanted)
        _hold(close, f"health store {name} tells {found!r} after {what}; wanted {dict(wanted)!r}")

    told(store, {}, "nothing was noted")
    for until in (now + 60, now + 30):
        _asked(f"health store {name}", store.rest, f"{mark}-one", until)
    told(other, {"one": now + 60}, "two rests of one deployment, of which the longer holds")
    for until in (now + 3_600, now + 60):
        _asked(f"health store {name}", other.rest, f"{mark}-far", until)
    told(store, {"one": now + 60, "far": now + 60}, "a rest that ends farther from now than any can, and one that doesn't")
    _asked(f"health store {name}", other.clear, f"{mark}-far", now + 60)
    _asked(f"health store {name}", other.rest, f"{mark}-over", now - 1)
    told(store, {"one": now + 60, "over": now - 1}, "one whose time was just over, which it keeps a while")
    _asked(f"health store {name}", store.clear, f"{mark}-one", now + 30)
    told(other, {"one": now + 60, "over": now - 1}, "a shorter rest was cleared, which leaves the longer one")
    for deployment in ("one", "over", "never"):
        _asked(f"health store {name}", other.clear, f"{mark}-{deployment}", now + 60)
    told(store, {}, "all were cleared")
    many = [f"{mark}-many-{number}" for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(_asked, f"health store {name}", factory().rest, deployment, now + 5) for deployment in many]:
            done.result()
    _hold(len(rests(store)) == len(many), f"health store {name} lost {len(many) - len(rests(store))} of {len(many)} rests noted at once")
    for deployment in many:
        store.clear(deployment, now + 5)


def _check_verdict(name: str, verdict: object) -> None:
    _hold(isinstance(verdict, Verdict), f"guard {name} gave {verdict!r}; wanted a Verdict or None")
    assert isinstance(verdict, Verdict)
    _hold(bool(verdict.code), f"guard {name} objects without a code; give one, it is what gets recorded")
    for field_name in ("floor", "cap"):
        value = getattr(verdict, field_name)
        sound = (value is None and field_name == "cap") or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
        _hold(sound, f"guard {name} gave {field_name} {value!r}; wanted a rank, 0 or more")
    _hold(verdict.pin is None or verdict.pin in SCOPES, f"guard {name} pins for {verdict.pin!r}; known scopes: {', '.join(SCOPES)}")


def _assessments(policy: Policy) -> Iterator[Assessment]:
    top = policy.tiers.top
    for step in SAMPLE_STEPS:
        features: Features = extract(step)
        classification = policy.classifier.classify(features)
        row = policy.taxonomy.row(classification.task_class)
        for conditions in (Conditions(), Conditions(unavailable=frozenset({policy.tiers[top].name}), deadline_s=1.0)):
            for facts in (frozenset[str](), frozenset({"distress"})):
                yield Assessment(
                    features=features,
                    classification=classification,
                    row=row,
                    tiers=policy.tiers,
                    pins=(),
                    facts=facts,
                    conditions=conditions,
                    proposed=0,
                )


def _asked(who: str, rule: Callable[..., T], *args: object) -> T:
    try:
        return rule(*args)
    except Exception as error:
        raise AssertionError(f"{who} raised {type(error).__name__}: {error}; it must answer, whatever it is given") from error


def _name(thing: object) -> str:
    found = getattr(thing, "name", None)
    return found if isinstance(found, str) else getattr(thing, "__qualname__", type(thing).__qualname__)


def _hold(claim: bool, otherwise: str) -> None:
    if not claim:
        raise AssertionError(otherwise)
