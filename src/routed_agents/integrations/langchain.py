"""A LangChain chat model that routes each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, Callbacks
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult, RunInfo
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs, var_child_runnable_config
from langchain_core.runnables.utils import AddableDict, add
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_pydantic_v1_subclass
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from routed_agents.errors import ConfigurationError, RoutedAgentsError, StepStopped
from routed_agents.features import upper_tokens
from routed_agents.guards import Conditions
from routed_agents.integrations import shelf
from routed_agents.integrations.caching import with_caching
from routed_agents.integrations.channels import send_state
from routed_agents.integrations.events import Event, PassingEvents, astream_of, stream_of
from routed_agents.integrations.fitting import fitted, shows_pictures, wants_schema
from routed_agents.integrations.live import Shown, handlers_of, kept_quiet, read_along, with_handler
from routed_agents.integrations.models import Models, is_simulated, policy_for
from routed_agents.integrations.observer import AGAIN, MARK, message_of
from routed_agents.integrations.position import Position, position_of
from routed_agents.integrations.resuming import aresumed, resumed
from routed_agents.integrations.stopped_before import Visit, avisit, visit
from routed_agents.integrations.stopping import can_hand_off, hand_off
from routed_agents.integrations.telling import Telling, words_of
from routed_agents.policy import Policy
from routed_agents.pricing import Usage, usage_of
from routed_agents.repairs import unusable
from routed_agents.router import NOTHING_SPECIAL, Attempt, RoutedCall, Router, labels_from_context, labels_from_tags
from routed_agents.schemas import carried
from routed_agents.steps import STAMP, Step, tool_name
from routed_agents.telemetry.around import areading, reading, within
from routed_agents.tiers import Tiers

LATE: Final = "_routed_late"
"""The bound argument that carries `bind_tools` and `with_structured_output` until the tier is known."""
OF_A_TIER: Final = ("cache", "rate_limiter", "disable_streaming", "output_version", "custom_get_token_ids")
"""What any chat model takes, but only the one that makes the call can heed: it is handed on to the tiers' models that have none."""
AS_A_TOOL: Final = frozenset({"input_schema", "parameters", "function", "toolSpec"})
"""What tells a tool from a plain JSON Schema."""
ANSWER_FAILURES: Final = (OutputParserException, ValidationError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A call on the chat model put off until the tier is chosen, because each provider wants its own format."""

    method: str
    subject: Any
    options: Mapping[str, Any]
    tools: tuple[str, ...] = ()
    schema: Mapping[str, object] | None = None
    carried: bool = True
    """A provider's own structured output can carry the schema."""

    @property
    def served(self) -> bool:
        """Some of the tools are run by the provider, so another provider's tier cannot take the call."""
        return self.method == "bind_tools" and any(isinstance(tool, dict) and "type" in tool for tool in self.subject)

    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """The JSON Schemas of the tools' arguments, by name."""
        return schemas_of(self.subject)


NOT_KEPT: Final = "for its router holds a ledger and connections; keep its models' names or its policy file, and make it anew"


class RoutedChatModel(BaseChatModel):
    """A chat model that sends each call to the cheapest tier that may do it.

    It delegates the whole call to the chosen tier's own chat model, so a trace shows that model's run under its real name, once.

    >>> model = RoutedChatModel(cheap="anthropic:claude-haiku-5-5", strong="anthropic:claude-opus-5-5")
    >>> model.router.policy.tiers.names
    ('cheap', 'strong')

    Args:
        cheap: chat model or string such as `"anthropic:claude-haiku-5-5"` for the cheap tier; strings are built when first needed.
        mid: the tier between, if any.
        strong: the strong tier.
        tiers: chat models or strings by tier name, in place of the three above.
        router: a router, a policy or the path of a policy file; its tiers apply where none are given here.
        task_class: the class of every call made through this model, when its author knows it.
        node: names the caller outside a graph.
        buffer: hold a stream back until its end, so that a rejected reply is never seen and can be escalated. Without it a reply stands
            once a word of it has been seen, by the reader of a stream or of a graph that is read with `stream_mode="messages"`.
        prompt_cache: how long Anthropic keeps the prompt of a tool loop, "5m" or "1h"; None marks nothing.
        options: constructor options for models built from strings; each model gets those it takes.

    Raises:
        PolicyError: a tier is unknown or only one is given.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    cheap: Any = None
    mid: Any = None
    strong: Any = None
    tiers: dict[str, Any] = Field(default_factory=dict)
    router: Any = None
    task_class: str | None = None
    node: str | None = None
    buffer: bool = False
    prompt_cache: Literal["5m", "1h"] | None = "5m"
    options: dict[str, Any] = Field(default_factory=dict)
    models: Any = Field(default=None, exclude=True, repr=False)
    """The chat models behind the tiers, filled in here; a plain field, for reading a private one takes pydantic 2 us."""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:  # pydantic wraps every ValueError, and a PolicyError is one
            unknown = [str(each["loc"][0]) for each in error.errors() if each["type"] == "extra_forbidden"]
            if unknown:
                wanted = (
                    "cheap, mid, strong, tiers, router, task_class, node, buffer, prompt_cache, options and what every chat model takes"
                )
                told = f"RoutedChatModel has no {', '.join(unknown)}; known: {wanted}. Parameters of the tiers' models go into options"
                raise ConfigurationError(told) from None
            found = [(each.get("ctx") or {}).get("error") for each in error.errors()]
            raise next((each for each in found if isinstance(each, RoutedAgentsError)), _told(error)) from None
        if self.profile is None:
            vars(self).pop("profile")  # found out when first asked for: it takes building the models

    def __getattr__(self, name: str) -> Any:
        if name == "profile" and (models := vars(self).get("models")) is not None:
            found = vars(self)["profile"] = models.profile()
            return found
        return super().__getattr__(name)  # type: ignore[misc]

    @override
    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        given = {**{role: model for role in ("cheap", "mid", "strong") if (model := getattr(self, role)) is not None}, **self.tiers}
        router = Router.of(self.router if self.router is not None else policy_for(given))
        unknown = [router.policy.tiers.named(name) for name in given]
        del unknown  # naming them is the check
        handed_on = {name: value for name in OF_A_TIER if name in self.model_fields_set and (value := getattr(self, name)) is not None}
        self.models = Models(router.policy, given, self.options, handed_on, sdk_spans=router.telemetry.keeps_sdk_spans)
        if self.models.policy is not router.policy:
            router = router.replace(policy=self.models.policy)
        self.router = router
        if self.task_class is not None:
            router.policy.taxonomy.row(self.task_class)

    @property
    @override
    def _llm_type(self) -> str:
        return "routed-chat"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return {"policy": self.router.policy.hash, "tiers": [tier.model for tier in self.router.policy.tiers]}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        tiers: Tiers = self.router.policy.tiers
        top = tiers[tiers.top].deployments[0]
        return {"ls_provider": top.provider or "routed", "ls_model_name": kwargs.get("model") or top.model, "ls_model_type": "chat"}

    @override
    def _resolve_model_profile(self) -> Any:
        return None  # found out when first asked for, see __getattr__

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:  # type: ignore[override]
        """Bind tools; they are put into the provider's own format once the tier is chosen."""
        options = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        subject = list(tools)
        names = tuple(_tool_name(tool) for tool in subject)
        late = Late(method="bind_tools", subject=subject, options=options, tools=names)
        return self.bind(tools=_Shown({"type": "function", "function": {"name": name}} for name in names), **{LATE: late})

    @override
    def with_structured_output(self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:  # type: ignore[override]
        """Answer in this schema, by the method that suits the tier that is chosen; `method="json_mode"` needs none."""
        known = _known_schema(schema, kwargs.get("method"))
        old = isinstance(schema, type) and is_pydantic_v1_subclass(schema)
        late = Late(
            method="with_structured_output",
            subject=schema,
            options={**kwargs, "include_raw": include_raw},
            schema=known,
            carried=known is not None and not old and carried(known),
        )
        return cast("Runnable[LanguageModelInput, Any]", self.bind(**{LATE: late}))

    @override
    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Any:
        return self._invoked(self._open(input, config, kwargs), stop)

    def _invoked(self, going: _Going, stop: list[str] | None) -> Any:
        with going:
            for attempt in going.call.attempts():
                with attempt:
                    target = going.target(self._ready(attempt, going), attempt, stop)
                    with within(attempt.context):
                        call = partial(target.runnable.invoke, going.prompt, target.config, **target.kwargs)
                        going.take(attempt, _or_failure(going, attempt, call))
            return going.result()
        return going.instead()

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Any:
        return await self._ainvoked(self._open(input, config, kwargs), stop)

    async def _ainvoked(self, going: _Going, stop: list[str] | None) -> Any:
        async with going:
            for attempt in going.call.attempts():
                with attempt:
                    target = going.target(await self._aready(attempt, going), attempt, stop)
                    with within(attempt.context):
                        try:
                            answer = await target.runnable.ainvoke(going.prompt, target.config, **target.kwargs)
                        except ANSWER_FAILURES as error:
                            going.broken(attempt)
                            answer = going.parse_failure(error)
                        except BaseException:
                            going.broken(attempt)
                            raise
                    if attempt.judged:
                        await going.consult(attempt, answer)
                    going.take(attempt, answer)
            return going.result()
        return going.instead()

    @override
    def stream(  # type: ignore[override]
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        with self._open(input, config, kwargs) as going:
            for attempt in going.call.attempts():
                passing = _Passing(attempt, going, hold=self.buffer or going.waits)
                with attempt:
                    target = going.target(self._ready(attempt, going), attempt, stop, streaming=True)
                    try:
                        for chunk in reading(target.runnable.stream(going.prompt, target.config, **target.kwargs), attempt.context):
                            yield from passing.take(chunk)
                            if passing.refused:
                                break
                            if passing.whole:  # while the model's run is open: what carries the decision is one of its chunks
                                passing.record()
                                attempt.settle()
                                yield from passing.rest()
                    except ANSWER_FAILURES as error:
                        passing.failed(error)
                    finally:
                        passing.ended()
                    passing.record()
                yield from passing.rest()
            yield from going.last_words()
            return
        yield going.instead(chunk=True)

    @override
    async def astream(  # type: ignore[override]
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async with self._open(input, config, kwargs) as going:
            for attempt in going.call.attempts():
                passing = _Passing(attempt, going, hold=self.buffer or going.waits)
                with attempt:
                    target = going.target(await self._aready(attempt, going), attempt, stop, streaming=True)
                    try:
                        async for chunk in areading(target.runnable.astream(going.prompt, target.config, **target.kwargs), attempt.context):
                            for ready in passing.take(chunk):
                                yield ready
                            if passing.refused:
                                break
                            if passing.whole:
                                await passing.consult()
                                passing.record()
                                attempt.settle()
                                for ready in passing.rest():
                                    yield ready
                    except ANSWER_FAILURES as error:
                        passing.failed(error)
                    finally:
                        passing.ended()
                    await passing.consult()
                    passing.record()
                for ready in passing.rest():
                    yield ready
            for ready in going.last_words():
                yield ready
            return
        yield going.instead(chunk=True)

    @override
    def _chat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> ChatModelStream:
        _refuse_parsed(kwargs)
        return stream_of(self._events(input, config, stop, kwargs))

    @override
    async def _achat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> AsyncChatModelStream:
        _refuse_parsed(kwargs)
        return astream_of(self._aevents(input, config, stop, kwargs))

    def _events(
        self, input: LanguageModelInput, config: RunnableConfig | None, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator[Event]:
        with self._open(input, config, kwargs) as going:
            for attempt in going.call.attempts():
                passing = PassingEvents(attempt, going.call, going.taking(attempt), going.used, hold=self.buffer)
                with attempt:
                    target = going.target(self._ready(attempt, going), attempt, stop, streaming=True)
                    with within(attempt.context):
                        stream = target.runnable.stream_events(going.prompt, target.config, version="v3", **target.kwargs)
                    try:
                        for event in reading(stream, attempt.context):
                            yield from passing.take(event)
                            if passing.refused:
                                break
                    finally:
                        passing.ended()
                    passing.record(stream.output_message)
                yield from passing.rest()
            return
        going.refuse_instead()

    async def _aevents(
        self, input: LanguageModelInput, config: RunnableConfig | None, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncIterator[Event]:
        async with self._open(input, config, kwargs) as going:
            for attempt in going.call.attempts():
                passing = PassingEvents(attempt, going.call, going.taking(attempt), going.used, hold=self.buffer)
                with attempt:
                    target = going.target(await self._aready(attempt, going), attempt, stop, streaming=True)
                    with within(attempt.context):
                        stream = await target.runnable.astream_events(going.prompt, target.config, version="v3", **target.kwargs)
                    try:
                        async for event in areading(stream, attempt.context):
                            for ready in passing.take(event):
                                yield ready
                            if passing.refused:
                                break
                    finally:
                        passing.ended()
                        await stream.aclose()
                    if attempt.judged and not passing.refused:
                        await attempt.consult(stream.output_message)
                    passing.record(stream.output_message)
                for ready in passing.rest():
                    yield ready
            return
        going.refuse_instead()

    @override
    def generate(  # type: ignore[override]
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        configs = _configs(len(messages), callbacks, tags, metadata, run_name, run_id)
        return _result([self._generated(each, config, stop, kwargs) for each, config in zip(messages, configs, strict=True)])

    @override
    async def agenerate(  # type: ignore[override]
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        configs = _configs(len(messages), callbacks, tags, metadata, run_name, run_id)
        several = (self._agenerated(each, config, stop, kwargs) for each, config in zip(messages, configs, strict=True))
        return _result(await asyncio.gather(*several))

    def _generated(self, prompt: list[BaseMessage], config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]) -> _Generated:
        going = self._open(prompt, config, {**kwargs}, generating=True)
        return going.generated(self._invoked(going, stop))

    async def _agenerated(
        self, prompt: list[BaseMessage], config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> _Generated:
        going = self._open(prompt, config, {**kwargs}, generating=True)
        return going.generated(await self._ainvoked(going, stop))

    @override
    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("RoutedChatModel delegates whole calls; use invoke, stream, generate or their async forms")

    @override
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens as the strong tier counts them, which is never fewer than the cheap one does for these families."""
        tiers: Tiers = self.router.policy.tiers
        return self.models.get(tiers[tiers.top].deployments[0]).get_num_tokens_from_messages(messages, tools=tools)

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text as the strong tier counts them."""
        tiers: Tiers = self.router.policy.tiers
        return self.models.get(tiers[tiers.top].deployments[0]).get_token_ids(text)

    @override
    def get_num_tokens(self, text: str) -> int:
        """How many they are; some models only count."""
        tiers: Tiers = self.router.policy.tiers
        return self.models.get(tiers[tiers.top].deployments[0]).get_num_tokens(text)

    @override
    def __getstate__(self) -> dict[Any, Any]:
        raise TypeError(f"a RoutedChatModel cannot be pickled, {NOT_KEPT}")

    @override
    def model_dump_json(self, *args: Any, **kwargs: Any) -> str:
        raise TypeError(f"a RoutedChatModel cannot be written as JSON, {NOT_KEPT}")

    def _ready(self, attempt: Attempt, going: _Going) -> BaseChatModel:
        """The attempt's chat model, once what the attempt before it has pinned is kept."""
        if attempt.number > 1:
            going.keep()
        return self.models.get(attempt.deployment)

    async def _aready(self, attempt: Attempt, going: _Going) -> BaseChatModel:
        """`_ready` for an event loop; building a model imports and reads files, which it must not wait for."""
        if attempt.number > 1:
            await going.akeep()
        found = self.models.ready(attempt.deployment)
        return found if found is not None else await asyncio.to_thread(self.models.get, attempt.deployment)

    def _configured(self, config: RunnableConfig) -> RunnableConfig:
        """The call's config, with what was configured on this model."""
        own = {key: value for key, value in (self.metadata or {}).items() if key != "lc_versions"}  # LangChain's own entry
        if not own and not self.tags and not self.callbacks:
            return config
        return merge_configs({"callbacks": self.callbacks, "tags": self.tags or [], "metadata": own}, config)

    def _open(
        self, input: LanguageModelInput, config: RunnableConfig | None, kwargs: dict[str, Any], *, generating: bool = False
    ) -> _Going:
        if "model" in kwargs:
            raise ConfigurationError(
                f"RoutedChatModel was asked for model={kwargs['model']!r}, but the router chooses the model; "
                'to force a tier, call it with metadata {"routed_agents": {"tier": "strong"}}'
            )
        config = self._configured(_with_inherited(ensure_config(config)))
        prompt = self._convert_input(input)
        messages = prompt.to_messages()
        late: Late | None = kwargs.pop(LATE, None)
        if isinstance(kwargs.get("tools"), _Shown):
            del kwargs["tools"]
        position = position_of(cast("Mapping[str, Any]", config))
        metadata = config.get("metadata") or {}
        step = Step.from_messages(
            messages,
            tools=late.tools if late is not None and late.method == "bind_tools" else kwargs.get("tools") or (),
            task_class=self.task_class,
            node=position.node or self.node,
            output_schema=late.schema if late is not None else None,
            metadata=metadata,
            run=position.run,
            at=position.at,
            downstream=position.downstream,
            in_loop=position.in_loop,
        )
        router: Router = self.router
        by_schema = wants_schema(kwargs if late is None else {**kwargs, **late.options})
        labels = _labels(router.policy, config, position)
        call = router.step(
            step,
            thread=position.thread,
            labels=labels,
            namespace=position.namespace,
            branch=position.branch,
            state=position.state,
            memory=position.memory,
            forced_tools=late is not None and late.method == "bind_tools" and _demands_tool(late.options.get("tool_choice")),
            tool_schemas=late.schemas if late is not None and late.method == "bind_tools" else None,
            conditions=reachable(
                router.policy.tiers, late.subject if late is not None and late.served else (), schema=by_schema, messages=messages
            ),
            parent=position.parent,
            made_by="langchain",
        )
        call.handed_off = can_hand_off(router.policy.on_stop, position)
        if self.prompt_cache is not None:
            kwargs = with_caching(kwargs, self.prompt_cache, messages)
        return _Going(
            call=call,
            prompt=prompt,
            config=config,
            late=late,
            kwargs=kwargs,
            position=position,
            buffer=self.buffer,
            generating=generating,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What to call for one attempt, and how."""

    runnable: Any
    config: RunnableConfig
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generated:
    """What came of one prompt: its generations, and how the model that gave them adds up what it told beside them."""

    generations: list[ChatGeneration]
    told: dict[str, Any] | None = None
    added: Callable[[list[dict[str, Any] | None]], dict[str, Any]] | None = None
    run_id: UUID | None = None


def _told(error: ValidationError) -> ConfigurationError:
    """The first of pydantic's objections, in one line."""
    first = error.errors(include_url=False)[0]
    name, wanted = ".".join(map(str, first["loc"])), first["msg"].replace("Input should be", "wanted")
    return ConfigurationError(f"RoutedChatModel was given {name}={repr(first['input'])[:60]}; {wanted}")


class _Going:
    """One routed call while it goes on: its messages, its settings and the answer so far."""

    __slots__ = (
        "_answer", "_buffer", "_capture", "_config", "_error", "_generating", "_kwargs", "_late", "_model", "_position", "_stop",
        "_telling", "_told", "_visit", "call", "prompt",
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
        self._capture: _Capture | None = None
        self._telling = Telling()
        self._told = False

    def __enter__(self) -> _Going:
        known = shelf.load(self.call.router, self._position)
        self.call.hold(known, resumed=resumed(self.call.router, self._position, known, self.call.step.messages))
        if self.call.router.policy.on_stop == "interrupt":
            self._visit = visit(self.call, self._position)
        self.call.__enter__()
        self.keep()
        return self

    async def __aenter__(self) -> _Going:
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
            send_state(cast("Mapping[str, Any]", self._config), self.call.decision.state)
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

    def target(self, model: BaseChatModel, attempt: Attempt, stop: list[str] | None, *, streaming: bool = False) -> _Target:
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
        self._telling = Telling()
        tiered = self._telling.heard_by(kept_quiet(fit.model) if hidden else fit.model)
        runnable: Any = tiered if late is None else getattr(tiered, late.method)(_subject(late, fit.options), **fit.options)
        if fit.messages is not None or attempt.number > 1:
            self.prompt = ChatPromptValue(messages=fit.messages if fit.messages is not None else list(messages))
        if fit.changed:
            attempt.repaired(fit.changed)
        attempt.simulated = is_simulated(model)
        if streaming and getattr(model, "stream_usage", True) is None:
            kwargs.setdefault("stream_usage", True)
        config: RunnableConfig = {**self._config, "metadata": {**(self._config.get("metadata") or {}), MARK: attempt.tier}}
        if attempt.number > 1:
            config.pop("run_id", None)
            config["metadata"] = {**(config.get("metadata") or {}), AGAIN: True}
        self.reset()
        self._capture, self._model = None, model
        if self.structured or self._generating or _may_raise(config.get("callbacks"), getattr(model, "callbacks", None)):
            self._capture = _Capture()
            config["callbacks"] = with_handler(config.get("callbacks"), self._capture)
        if along and not hidden and not streaming:
            config["callbacks"] = with_handler(config.get("callbacks"), Shown(attempt))
        return _Target(runnable=runnable, config=config, kwargs=kwargs)

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
        if capture is not None and capture.chunks:
            seen = capture.so_far()
        message = seen if isinstance(seen, BaseMessage) else None
        text = words_of(message) if message is not None else ""
        bound = upper_tokens(len(text), text[:400])
        reported = self.used(message) or (usage_of(message) if message is not None else None)
        if reported is not None:
            attempt.partial(reported.at_least(bound))
        elif bound:
            attempt.partial(Usage(input=self.call.decision.features.tokens, output=bound, source="estimated"))

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
        return bool(beside and calls) and {call["name"] for call in calls} <= {_tool_name(tool) for tool in beside}

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

    def generated(self, answer: Any) -> _Generated:
        """All that the model gave, with the answer as its first generation."""
        heard = self._capture.result if self._capture is not None else None
        if self._capture is None or heard is None:  # a person's answer, not a model's
            return _Generated(generations=[ChatGeneration(message=answer)])
        first, *others = cast("list[ChatGeneration]", heard.generations[0])
        return _Generated(
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


class _Passing:
    """Chunks of one attempt on their way to the caller: held back until there is something to show and it may be shown."""

    __slots__ = ("_attempt", "_going", "_held", "_hold", "_open", "_stands", "_taken", "refused", "whole")

    def __init__(self, attempt: Attempt, going: _Going, *, hold: bool) -> None:
        self._attempt = attempt
        self._going = going
        self._hold = hold
        self._held: list[Any] = []
        self._taken: list[Any] = []
        self._open = False
        self._stands = False
        self.refused = False
        self.whole = False

    def take(self, chunk: Any) -> Sequence[Any]:
        """Take a chunk from the model; give out what may be shown."""
        self._taken.append(chunk)
        self.whole = _is_last(chunk)
        if self._open and not self._held and not self.whole:
            return (chunk,)
        self._attempt.first_chunk()
        self._held.append(chunk)
        if self._open or self._hold or not _shows(chunk):
            return ()
        if isinstance(beginning := self._sum(), AIMessageChunk) and self._attempt.served_below_floor(beginning):
            self.refused = True
            return ()
        self._open = True
        self._attempt.commit()
        held, self._held = self._held, []
        if _is_last(held[-1]):
            self._held.append(held.pop())
        return held

    def _sum(self) -> Any:
        """What came so far in one piece: chunks of a message added up at once, for adding each in turn takes longer every time."""
        taken = self._taken
        if len(taken) > 1:
            first, *others = taken
            self._taken = [first + others if all(type(chunk) is AIMessageChunk for chunk in taken) else self._going.parsed_of(taken)]
        return self._taken[0] if self._taken else None

    def failed(self, error: BaseException) -> None:
        """A parser gave up on the stream."""
        self._going.parse_failure(error)

    def ended(self) -> None:
        """The stream is over, or was broken off: keep what it has used."""
        if self._attempt.outcome is None:
            self._going.broken(self._attempt, self._sum())

    async def consult(self) -> None:
        """Have judges asked about the whole before it is recorded."""
        if self._attempt.judged and not self.refused and self._attempt.outcome is None:
            await self._going.consult(self._attempt, self._sum())

    def record(self) -> None:
        """The whole is there: have it judged, once; what still comes after its last chunk counts."""
        if self._attempt.outcome is not None:
            if len(self._taken) > 1 and (used := self._going.used(whole := self._sum()) or usage_of(whole)) is not None:
                self._attempt.partial(used)
            return
        self._going.take(self._attempt, self._sum())
        self._stands = self._attempt.follow_up is None and not self._attempt.alarmed
        if not self._stands:
            self._going.reset()

    def rest(self) -> list[Any]:
        """What was held back, if the reply stands; given out after the attempt, which a reader who leaves now leaves accepted."""
        held, self._held = self._held, []
        if self._stands and held and _is_last(held[-1]):
            held[-1] = self._going.final(held[-1])
        return self._going.told(held) if self._stands else []


class _Capture(BaseCallbackHandler):
    """Keeps the message a model gave before a parser took it, or a handler that raises kept it back."""

    run_inline = True

    def __init__(self) -> None:
        self.message: BaseMessage | None = None
        self.result: LLMResult | None = None
        self.run_id: UUID | None = None
        self.chunks: list[AIMessageChunk] = []

    def so_far(self) -> AIMessageChunk:
        """What came of a stream, in one piece."""
        first, *others = self.chunks
        self.chunks = [first + others if others else first]
        return self.chunks[0]

    @override
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        if type(message := getattr(chunk, "message", None)) is AIMessageChunk:
            self.chunks.append(message)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self.message, self.result, self.run_id = message_of(response), response, run_id


def schemas_of(tools: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """The JSON Schemas of tools' arguments, by name; of tools that a provider runs there are none."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        try:
            function = convert_to_openai_tool(tool)["function"]
        except (KeyError, TypeError, ValueError):
            continue
        found[str(function["name"])] = function.get("parameters", {})
    return found


def _known_schema(schema: Any, method: object) -> dict[str, Any] | None:
    """A schema in plain words; None where JSON mode is asked for without one, or with one that has no name."""
    try:
        function = convert_to_openai_tool(schema)["function"]
    except ValueError:
        if method == "json_mode":
            return None
        raise
    return {**function.get("parameters", {}), "title": function["name"]}


def _subject(late: Late, options: Mapping[str, Any]) -> Any:
    """What is bound; a schema given as a tool becomes a plain one where a provider's own structured output takes it."""
    if options.get("method") != "json_schema" or not isinstance(cast("object", late.subject), dict):
        return late.subject
    given = cast("dict[str, Any]", late.subject)
    return convert_to_json_schema(given) if AS_A_TOOL & given.keys() else given


def reachable(tiers: Tiers, tools: Sequence[Any], *, schema: bool = False, messages: Sequence[BaseMessage] = ()) -> Conditions:
    """Which tiers can run these tools, answer in a schema and see the messages' pictures: a step whose tier cannot goes up."""
    images = any(shows_pictures(message) for message in messages if type(message.content) is list)
    if not schema and not images and not any(isinstance(tool, dict) for tool in tools):
        return NOTHING_SPECIAL
    return Conditions(unusable=unusable(tiers, tools=tools, images=images, schema=schema))


class _Shown(list[dict[str, Any]]):
    """Bound tools by name, for LangGraph, which looks whether a model has any; the tools themselves are bound late."""


def _refuse_parsed(kwargs: Mapping[str, Any]) -> None:
    """Parsed output has no events, as little as on a bare model."""
    late: Late | None = kwargs.get(LATE)
    if late is not None and late.method == "with_structured_output":
        raise NotImplementedError("structured output has no v3 event stream; use stream or invoke, or stream_events without the schema")


def _tool_name(tool: Any) -> str:
    if isinstance(tool, (str, dict)):
        return tool_name(cast("object", tool))
    name = getattr(tool, "name", None)
    if isinstance(name, str):
        return name
    return str(convert_to_openai_tool(tool)["function"]["name"])


def _demands_tool(choice: object) -> bool:
    kind = cast("Mapping[str, Any]", choice).get("type") if isinstance(choice, Mapping) else choice
    return kind not in ("auto", "none", None, False)


def _with_inherited(config: RunnableConfig) -> RunnableConfig:
    """The config of a call with what it inherits from the node it is made in.

    Metadata given with a call replaces the inherited for LangChain, and with it the node and its pins would be lost.
    """
    ambient = var_child_runnable_config.get()
    inherited = ambient.get("metadata") if ambient is not None else None
    if not inherited:
        return config
    return {**config, "metadata": {**inherited, **(config.get("metadata") or {})}}


def _labels(policy: Policy, config: RunnableConfig, position: Position) -> dict[str, str]:
    tags = config.get("tags")
    found = labels_from_tags(policy.labels, tags) if tags else {}
    return {**labels_from_context(policy.labels, position.context), **found} if position.context is not None else found


def _or_failure(going: _Going, attempt: Attempt, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ANSWER_FAILURES as error:
        going.broken(attempt)
        return going.parse_failure(error)
    except BaseException:
        going.broken(attempt)
        raise


def stamped(message: BaseMessage, stamp: dict[str, Any]) -> BaseMessage:
    """A copy that carries the decision: the original may sit in a cache that others share."""
    return message.model_copy(update={"response_metadata": {**message.response_metadata, STAMP: stamp}})


def _shows(chunk: Any) -> bool:
    """Whether a chunk holds anything a reader would see."""
    if not isinstance(chunk, AIMessageChunk):
        return True
    return bool(chunk.text) or bool(chunk.tool_call_chunks)


def _is_last(chunk: Any) -> bool:
    """Whether a chunk says it is the last of its message, or is a whole message."""
    return isinstance(chunk, BaseMessage) and (not isinstance(chunk, AIMessageChunk) or chunk.chunk_position == "last")


def _raw_stamped(answer: dict[str, Any], stamp: dict[str, Any]) -> dict[str, Any]:
    """A structured answer given with `include_raw`, its message stamped; one without stays as it is."""
    raw = answer.get("raw")
    return type(answer)({**answer, "raw": stamped(raw, stamp)}) if isinstance(raw, BaseMessage) else answer


def _configs(
    count: int, callbacks: Callbacks, tags: list[str] | None, metadata: dict[str, Any] | None, run_name: str | None, run_id: UUID | None
) -> list[RunnableConfig]:
    """A config for each of several prompts; a run id is the first one's, for each has a run of its own."""
    given = {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
    config = cast("RunnableConfig", {key: value for key, value in given.items() if value is not None})
    return [config if run_id is None or index else {**config, "run_id": run_id} for index in range(count)]


def _may_raise(*given: Callbacks) -> bool:
    """Whether a handler among these ends the call with its own error, which keeps the answer from everybody who is told after it."""
    return any(handler.raise_error for callbacks in given if callbacks for handler in handlers_of(callbacks))


def _result(several: Sequence[_Generated]) -> LLMResult:
    """What came of several prompts, as one model would give it; figures of two models are added up as the first one's are."""
    added = next((each.added for each in several if each.added is not None), None)
    runs = [RunInfo(run_id=each.run_id) for each in several if each.run_id is not None]
    return LLMResult(
        generations=[list(each.generations) for each in several],
        llm_output=added([each.told for each in several]) if added is not None else None,
        run=runs if runs and len(runs) == len(several) else None,
    )
