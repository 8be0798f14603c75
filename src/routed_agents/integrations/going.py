"""One routed call while it goes on: what is asked of the chosen tier's model, and the answer so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.callbacks import Callbacks
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import AddableDict, add
from pydantic import BaseModel, ValidationError

from routed_agents.errors import StepStopped
from routed_agents.integrations import shelf
from routed_agents.integrations.capture import Capture
from routed_agents.integrations.fitting import fitted
from routed_agents.integrations.late import Late, name_of_tool, subject_of
from routed_agents.integrations.live import Shown, Withheld, handlers_of, read_along, streams_within, with_handler
from routed_agents.integrations.models import is_simulated
from routed_agents.integrations.node_writes import send_state
from routed_agents.integrations.observer import AGAIN, MARK
from routed_agents.integrations.position import Position
from routed_agents.integrations.resuming import aresumed, resumed
from routed_agents.integrations.stopped_before import Visit, avisit, visit
from routed_agents.integrations.stopping import hand_off
from routed_agents.integrations.telling import Telling, asked_of, heard_by, words_of
from routed_agents.pricing import Usage, usage_of
from routed_agents.router import Attempt, RoutedCall
from routed_agents.steps import STAMP

ANSWER_FAILURES: Final = (OutputParserException, ValidationError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to call for one attempt, and how."""

    runnable: Any
    config: RunnableConfig
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What came of one prompt: its generations, and how the model that gave them adds up what it told beside them."""

    generations: list[ChatGeneration]
    told: dict[str, Any] | None = None
    added: Callable[[list[dict[str, Any] | None]], dict[str, Any]] | None = None
    run_id: UUID | None = None


class Going:
    """One routed call while it goes on: its messages, its settings and the answer so far."""

    __slots__ = (
        "_answer", "_buffer", "_capture", "_config", "_error", "_generating", "_kwargs", "_late", "_model", "_position", "_stop",
        "_telling", "_told", "_visit", "_withheld", "call", "prompt",
    )  # fmt: skip

    def __init__(
        self,
        *,
        call: RoutedCall,
        prompt: PromptValue,
        config: RunnableConfig,
        late: Late | None,
        kwargs: dict[str, Any],
        position: Position,
        buffer: bool,
        generating: bool = False,
    ) -> None:
        self.call = call
        self.prompt = prompt
        self._generating = generating
        self._model: Any = None
        self._config = config
        self._late = late
        self._kwargs = kwargs
        self._position = position
        self._buffer = buffer
        self._stop: StepStopped | None = None
        self._visit: Visit | None = None
        self._answer: Any = None
        self._error: BaseException | None = None
        self._capture: Capture | None = None
        self._telling = Telling()
        self._told = False
        self._withheld: Withheld | None = None

    def __enter__(self) -> Going:
        known = shelf.load(self.call.router, self._position)
        self.call.hold(known, resumed=resumed(self.call.router, self._position, known, self.call.step.messages))
        if self.call.router.policy.on_stop == "interrupt":
            self._visit = visit(self.call, self._position)
        self.call.__enter__()
        self.keep()
        return self

    async def __aenter__(self) -> Going:
        known = await shelf.aload(self.call.router, self._position)
        self.call.hold(known, resumed=await aresumed(self.call.router, self._position, known, self.call.step.messages))
        if self.call.router.policy.on_stop == "interrupt":
            self._visit = await avisit(self.call, self._position)
        if self.call.router.policy.judge is not None:
            await self.call.consult()
        self.call.__enter__()
        await self.akeep()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        return self._close(kind, error, trace)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        return self._close(kind, error, trace)

    def keep(self) -> None:
        """Put what was found where it outlives this process, before the model is asked."""
        shelf.keep(self.call.router, self._position, self.call.decision.state)

    async def akeep(self) -> None:
        """`keep` without blocking the event loop."""
        await shelf.akeep(self.call.router, self._position, self.call.decision.state)

    def _close(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if self._position.state is not None:
            found = self.call.decision.state
            send_state(cast("Mapping[str, Any]", self._config), found.of_thread() if self._position.branch else found)
        self.call.__exit__(kind, error, trace)
        if self._visit is not None:
            self._visit.over()
        self._stop = error if isinstance(error, StepStopped) and self.call.handed_off else None
        return self._stop is not None

    def instead(self, *, chunk: bool = False) -> Any:
        """What stands for the reply of a stopped step; most ways of handing off leave the node, and nothing comes back."""
        stop = cast("StepStopped", self._stop)
        answer = hand_off(stop, self.call, self._position, cast("Mapping[str, Any]", self._config), self._visit)
        if self.structured:
            raise stop  # a person's answer is no parsed object
        if not chunk or isinstance(answer, AIMessageChunk):
            return answer
        return AIMessageChunk(content=answer.content, response_metadata=answer.response_metadata, id=answer.id)  # pyright: ignore

    def refuse_instead(self) -> None:
        """Hand a stopped step off where a person's answer has no way back."""
        self.instead()
        raise cast("StepStopped", self._stop)

    @property
    def structured(self) -> bool:
        return self._late is not None and self._late.method == "with_structured_output"

    @property
    def waits(self) -> bool:
        """A stream is held back whose chunks tell too little.

        Parsed objects don't say which model they are from, so a floored step's wait for the end, when the served model is known. With
        `include_raw` all comes at the end anyway, and the message has to carry the decision.
        """
        return self.structured and (self.call.decision.floored or self.with_raw)

    @property
    def with_raw(self) -> bool:
        """The message stands beside what was parsed of it."""
        return self._late is not None and bool(self._late.options.get("include_raw"))

    def target(self, model: BaseChatModel, attempt: Attempt, stop: list[str] | None, *, streaming: bool = False) -> Target:
        """The tier's model with tools bound and parameters repaired for it."""
        late, messages = self._late, cast("Sequence[BaseMessage]", self.call.step.messages)
        fit = fitted(
            model,
            attempt.deployment,
            messages,
            kwargs=self._kwargs if stop is None else {**self._kwargs, "stop": stop},
            method=late.method if late is not None else "",
            options=late.options if late is not None else None,
            tools=late.subject if late is not None and late.method == "bind_tools" else (),
            carried=late is None or late.carried,
        )
        kwargs = fit.kwargs
        along = read_along(self._config.get("callbacks"), self._config.get("tags"))
        hidden = along and (self._buffer or (self.structured and not streaming)) and attempt.may_rise
        self._telling = Telling(asked_of(fit.model, kwargs))
        tiered = heard_by(fit.model, self._telling.hear)
        runnable: Any = tiered if late is None else getattr(tiered, late.method)(subject_of(late, fit.options), **fit.options)
        if fit.messages is not None or attempt.number > 1:
            self.prompt = ChatPromptValue(messages=fit.messages if fit.messages is not None else list(messages))
        if fit.changed:
            attempt.repaired(fit.changed)
        attempt.simulated = is_simulated(model)
        config: RunnableConfig = {**self._config, "metadata": {**(self._config.get("metadata") or {}), MARK: attempt.tier}}
        if attempt.number > 1:
            config.pop("run_id", None)
            config["metadata"] = {**(config.get("metadata") or {}), AGAIN: True}
        self.reset()
        self._capture, self._model = None, model
        self._withheld = Withheld(attempt, hidden=hidden)
        if hidden:
            config["callbacks"] = self._withheld.kept_from(config.get("callbacks"))
        streamed = not streaming and streams_within(model, config.get("callbacks"), kwargs)
        if streamed or self.structured or self._generating or _may_raise(config.get("callbacks"), getattr(model, "callbacks", None)):
            self._capture = Capture()
            config["callbacks"] = with_handler(config.get("callbacks"), self._capture)
        if along and not hidden and not streaming:
            config["callbacks"] = with_handler(config.get("callbacks"), Shown(attempt))
        if hidden:  # a binding without takes the node's own as well
            heard, config["callbacks"] = config.get("callbacks"), []
            runnable = runnable.with_config(callbacks=heard)
        return Target(runnable=runnable, config=config, kwargs=kwargs)

    def tell(self) -> None:
        """Tell whoever reads along what was kept from them, if the attempt's reply stands."""
        if self._withheld is not None:
            self._withheld.tell()

    async def atell(self) -> None:
        """`tell` for an event loop."""
        if self._withheld is not None:
            await self._withheld.atell()

    def take(self, attempt: Attempt, answer: Any) -> None:
        """Record an answer: a message, or what a parser made of one."""
        self._answer = answer
        if not self.structured:
            attempt.record(answer, usage=self.used(answer))
            return
        raw, validated = self._judgeable(answer)
        attempt.record(raw, usage=self.used(raw), validated=validated)

    async def consult(self, attempt: Attempt, answer: Any) -> None:
        """Have judges asked about an answer before it is taken."""
        raw, validated = self._judgeable(answer) if self.structured else (answer, None)
        await attempt.consult(raw, usage=self.used(raw), validated=validated)

    def used(self, message: Any) -> Usage | None:
        """What the events of the attempt's stream tell of its usage, where they tell more than the message; None elsewhere."""
        return self._telling.usage(message)

    def broken(self, attempt: Attempt, seen: Any = None) -> None:
        """Note what an attempt whose answer does not get through has used: as reported, its reply at least what was seen of it."""
        capture = self._capture
        if capture is not None and (whole := capture.message) is not None:
            if (used := self.used(whole) or usage_of(whole)) is not None:
                attempt.partial(used, reply=whole)
            return
        came = capture.so_far() if capture is not None else None
        message = came or (seen if isinstance(seen, BaseMessage) else None)
        if (used := self.used_so_far(message, words_of(message) if message is not None else "")) is not None:
            attempt.partial(used)

    def used_so_far(self, message: BaseMessage | None, words: str) -> Usage | None:
        """The usage of a reply that breaks off, of which a message came and words; None where nothing came."""
        return self._telling.so_far(message, words, self.call.decision.features.tokens)

    def _judgeable(self, answer: Any) -> tuple[Any, bool | None]:
        """The message behind a parsed answer, and whether the parser took it."""
        raw = self._raw(answer)
        parsed: Any = cast("dict[str, Any]", answer or {}).get("parsed") if self.with_raw else answer
        if self._error is None and parsed is None and self._goes_on(raw):
            return raw, None
        if self._error is not None or parsed is None:
            return raw, False
        return raw, True if isinstance(parsed, BaseModel) else None  # a dict was parsed, but held against no schema

    def _goes_on(self, raw: Any) -> bool:
        """The reply calls tools that stand beside the schema: the structured answer comes later."""
        beside: Sequence[Any] = (self._late.options.get("tools") if self._late is not None else None) or ()
        calls: Sequence[Mapping[str, Any]] = getattr(raw, "tool_calls", None) or ()
        return bool(beside and calls) and {call["name"] for call in calls} <= {name_of_tool(tool) for tool in beside}

    def taking(self, attempt: Attempt) -> Callable[[AIMessage | None], None]:
        """`take` for one attempt."""
        return lambda message: self.take(attempt, message)

    def parse_failure(self, error: BaseException) -> None:
        """Keep the error of a parser: the model has answered, so the answer is judged before the error surfaces."""
        if not self.structured or self._capture is None or self._capture.message is None:
            raise error
        self._error = error

    def result(self) -> Any:
        """What the caller gets: the answer, stamped where it is a message."""
        if self._error is not None:
            raise self._error
        answer: Any = self._answer
        if isinstance(answer, BaseMessage):
            return stamped(answer, self.call.stamp())
        if self.structured and isinstance(answer, dict):
            return _raw_stamped(cast("dict[str, Any]", answer), self.call.stamp())
        return answer

    def generated(self, answer: Any) -> Generated:
        """All that the model gave, with the answer as its first generation."""
        heard = self._capture.result if self._capture is not None else None
        if self._capture is None or heard is None:  # a person's answer, not a model's
            return Generated(generations=[ChatGeneration(message=answer)])
        first, *others = cast("list[ChatGeneration]", heard.generations[0])
        return Generated(
            generations=[first.model_copy(update={"message": answer}), *others],
            told=heard.llm_output,
            added=self._model._combine_llm_outputs,
            run_id=self._capture.run_id,
        )

    def final(self, chunk: BaseMessage) -> BaseMessage:
        """The last chunk of a stream of messages, with the decision in it."""
        if self.structured or not self.call.entries:
            return chunk
        self._told = True
        return stamped(chunk, self.call.stamp())

    def parsed_of(self, chunks: Sequence[Any]) -> Any:
        """Parsed chunks in one piece: the last holds all that came before, but with `include_raw` each brings a key of its own."""
        return add([AddableDict(chunks[0]), *chunks[1:]]) if self.with_raw else chunks[-1]

    def told(self, chunks: list[Any]) -> list[Any]:
        """Chunks as the caller gets them: the message beside a parsed answer carries the decision."""
        if not (self.structured and self.with_raw):
            return chunks
        stamp = self.call.stamp()
        return [_raw_stamped(chunk, stamp) for chunk in chunks]

    def last_words(self) -> Iterator[Any]:
        """The end of a stream that has not said which chunk is its last: an empty one that carries the decision."""
        if self._error is not None:
            raise self._error
        if not self.structured and self.call.entries and not self._told:
            yield AIMessageChunk(content="", response_metadata={STAMP: self.call.stamp()}, chunk_position="last")

    def reset(self) -> None:
        """Forget the answer of an attempt that was rejected."""
        self._answer, self._error = None, None

    def _raw(self, answer: Any) -> Any:
        if self._capture is not None and self._capture.message is not None:
            return self._capture.message
        return cast("Mapping[str, Any]", answer).get("raw") if isinstance(answer, Mapping) else None


def stamped(message: BaseMessage, stamp: dict[str, Any]) -> BaseMessage:
    """A copy that carries the decision: the original may sit in a cache that others share."""
    return message.model_copy(update={"response_metadata": {**message.response_metadata, STAMP: stamp}})


def _raw_stamped(answer: dict[str, Any], stamp: dict[str, Any]) -> dict[str, Any]:
    """A structured answer given with `include_raw`, its message stamped; one without stays as it is."""
    raw = answer.get("raw")
    return type(answer)({**answer, "raw": stamped(raw, stamp)}) if isinstance(raw, BaseMessage) else answer


def _may_raise(*given: Callbacks) -> bool:
    """Whether a handler among these ends the call with its own error, which keeps the answer from everybody who is told after it."""
    return any(handler.raise_error for callbacks in given if callbacks for handler in handlers_of(callbacks))
