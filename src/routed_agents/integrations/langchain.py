"""A LangChain chat model that routes each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, cast
from uuid import UUID

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult, LLMResult, RunInfo
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs, var_child_runnable_config
from langchain_core.utils.pydantic import is_pydantic_v1_subclass
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from routed_agents.errors import ConfigurationError, RoutedAgentsError
from routed_agents.integrations.caching import with_caching
from routed_agents.integrations.events import Event, PassingEvents, astream_of, stream_of
from routed_agents.integrations.fitting import wants_schema
from routed_agents.integrations.going import ANSWER_FAILURES, Generated, Going
from routed_agents.integrations.labels import labels_at
from routed_agents.integrations.late import LATE, Late, ToolNames, demands_tool, known_schema, name_of_tool, reachable
from routed_agents.integrations.models import Models, policy_for
from routed_agents.integrations.passing import Passing
from routed_agents.integrations.position import IN_NODE, RUNTIME, THREAD, position_of
from routed_agents.integrations.stopping import can_hand_off
from routed_agents.router import Attempt, Router
from routed_agents.schemas import carried
from routed_agents.steps import Step
from routed_agents.telemetry.around import areading, reading, within
from routed_agents.tiers import Tiers

OF_A_TIER: Final = ("cache", "rate_limiter", "disable_streaming", "output_version", "custom_get_token_ids")
"""What any chat model takes, but only the one that makes the call can heed: it is handed on to the tiers' models that have none."""


NOT_KEPT: Final = "for its router holds a ledger and connections; keep its models' names or its policy file, and make it anew"


class RoutedChatModel(BaseChatModel):
    """A chat model that sends each call to the cheapest tier that may do it.

    It delegates the whole call to the chosen tier's own chat model, so a trace shows that model's run under its real name, once. In a
    thread that a node starts itself it knows the node, and with it floors and facts, by the context or config handed on to that thread.

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
            once a word or tool call of it has been seen, by the reader of a stream, of events or of a graph with `stream_mode="messages"`.
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
        router = Router.of(self.router) if self.router is not None else Router.from_env(policy=lambda: policy_for(given))
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

    def bind_tools(  # type: ignore[override]
        self, tools: Sequence[Any], *, tool_choice: Any = None, parallel_tool_calls: bool | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools; they are put into the provider's own format once the tier is chosen.

        Args:
            tools: what the model may call.
            tool_choice: which of them it must call.
            parallel_tool_calls: whether it may call several at once; named, for langgraph-supervisor asks no other model for one at a time.
            kwargs: what else the tiers' own `bind_tools` take.
        """
        named = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        options = {**kwargs, **{name: value for name, value in named.items() if value is not None}}
        subject = list(tools)
        names = tuple(name_of_tool(tool) for tool in subject)
        late = Late(method="bind_tools", subject=subject, options=options, tools=names)
        return self.bind(tools=ToolNames({"type": "function", "function": {"name": name}} for name in names), **{LATE: late})

    @override
    def with_structured_output(self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:  # type: ignore[override]
        """Answer in this schema, by the method that suits the tier that is chosen; `method="json_mode"` needs none."""
        known = known_schema(schema, kwargs.get("method"))
        old = isinstance(schema, type) and is_pydantic_v1_subclass(schema)
        late = Late(
            method="with_structured_output",
            subject=schema,
            options={**kwargs, "include_raw": include_raw},
            schema=known,
            carried=known is not None and not old and carried(known),
        )
        parsed: Any = schema if isinstance(schema, type) and issubclass(schema, BaseModel) and not include_raw else Any
        return cast("Runnable[LanguageModelInput, Any]", self.bind(**{LATE: late}).with_types(output_type=parsed))

    @override
    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Any:
        return self._invoked(self._open(input, config, kwargs), stop)

    def _invoked(self, going: Going, stop: list[str] | None) -> Any:
        with going:
            for attempt in going.call.attempts():
                with attempt:
                    target = going.target(self._ready(attempt, going), attempt, stop)
                    with within(attempt.context):
                        call = partial(target.runnable.invoke, going.prompt, target.config, **target.kwargs)
                        going.take(attempt, _or_failure(going, attempt, call))
                going.tell()
            return going.result()
        return going.instead()

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Any:
        return await self._ainvoked(self._open(input, config, kwargs), stop)

    async def _ainvoked(self, going: Going, stop: list[str] | None) -> Any:
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
                await going.atell()
            return going.result()
        return going.instead()

    @override
    def stream(  # type: ignore[override]
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        with self._open(input, config, kwargs) as going:
            for attempt in going.call.attempts():
                passing = Passing(attempt, going, hold=self.buffer or going.waits)
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
                                going.tell()
                                yield from passing.rest()
                    except ANSWER_FAILURES as error:
                        passing.failed(error)
                    finally:
                        passing.ended()
                    passing.record()
                going.tell()
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
                passing = Passing(attempt, going, hold=self.buffer or going.waits)
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
                                await going.atell()
                                for ready in passing.rest():
                                    yield ready
                    except ANSWER_FAILURES as error:
                        passing.failed(error)
                    finally:
                        passing.ended()
                    await passing.consult()
                    passing.record()
                await going.atell()
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
                passing = PassingEvents(attempt, going.call, going.taking(attempt), going.used, going.used_so_far, hold=self.buffer)
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
                going.tell()
                yield from passing.rest()
            return
        going.refuse_instead()

    async def _aevents(
        self, input: LanguageModelInput, config: RunnableConfig | None, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncIterator[Event]:
        async with self._open(input, config, kwargs) as going:
            for attempt in going.call.attempts():
                passing = PassingEvents(attempt, going.call, going.taking(attempt), going.used, going.used_so_far, hold=self.buffer)
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
                await going.atell()
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

    def _generated(self, prompt: list[BaseMessage], config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]) -> Generated:
        going = self._open(prompt, config, {**kwargs}, generating=True)
        return going.generated(self._invoked(going, stop))

    async def _agenerated(
        self, prompt: list[BaseMessage], config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Generated:
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

    def _ready(self, attempt: Attempt, going: Going) -> BaseChatModel:
        """The attempt's chat model, once what the attempt before it has pinned is kept."""
        if attempt.number > 1:
            going.keep()
        return self.models.get(attempt.deployment)

    async def _aready(self, attempt: Attempt, going: Going) -> BaseChatModel:
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

    def _open(self, input: LanguageModelInput, config: RunnableConfig | None, kwargs: dict[str, Any], *, generating: bool = False) -> Going:
        if "model" in kwargs:
            raise ConfigurationError(
                f"RoutedChatModel was asked for model={kwargs['model']!r}, but the router chooses the model; "
                'to force a tier, call it with metadata {"routed_agents": {"tier": "strong"}}'
            )
        config = self._configured(_with_inherited(ensure_config(config)))
        prompt = self._convert_input(input)
        messages = prompt.to_messages()
        late: Late | None = kwargs.pop(LATE, None)
        if isinstance(kwargs.get("tools"), ToolNames):
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
        call = router.step(
            step,
            thread=position.thread,
            labels=labels_at(position, config, router.policy.labels),
            namespace=position.namespace,
            branch=position.branch,
            state=position.state,
            memory=position.memory,
            forced_tools=late is not None and late.method == "bind_tools" and demands_tool(late.options.get("tool_choice")),
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
        return Going(
            call=call,
            prompt=prompt,
            config=config,
            late=late,
            kwargs=kwargs,
            position=position,
            buffer=self.buffer,
            generating=generating,
        )


def _told(error: ValidationError) -> ConfigurationError:
    """The first of pydantic's objections, in one line."""
    first = error.errors(include_url=False)[0]
    name, wanted = ".".join(map(str, first["loc"])), first["msg"].replace("Input should be", "wanted")
    return ConfigurationError(f"RoutedChatModel was given {name}={repr(first['input'])[:60]}; {wanted}")


def _refuse_parsed(kwargs: Mapping[str, Any]) -> None:
    """Parsed output has no events, as little as on a bare model."""
    late: Late | None = kwargs.get(LATE)
    if late is not None and late.method == "with_structured_output":
        raise NotImplementedError("structured output has no v3 event stream; use stream or invoke, or stream_events without the schema")


def _with_inherited(config: RunnableConfig) -> RunnableConfig:
    """The config of a call with what it inherits from the node it is made in.

    What is given with a call replaces the inherited for LangChain, and with it the node, its pins and its graph would be lost; what callers
    configured themselves stays replaced. A call that is given a thread of its own has the run's context, and nothing of the run's thread.
    """
    ambient = var_child_runnable_config.get()
    if not ambient:
        return config
    given = config.get("configurable") or {}
    inherited: RunnableConfig = {**config, "metadata": {**(ambient.get("metadata") or {}), **(config.get("metadata") or {})}}
    if RUNTIME in given:
        return inherited
    configurable = ambient.get("configurable") or {}
    names = IN_NODE if given.get(THREAD) in (None, configurable.get(THREAD)) else RUNTIME
    return {**inherited, "configurable": {**{name: value for name, value in configurable.items() if name.startswith(names)}, **given}}


def _or_failure(going: Going, attempt: Attempt, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ANSWER_FAILURES as error:
        going.broken(attempt)
        return going.parse_failure(error)
    except BaseException:
        going.broken(attempt)
        raise


def _configs(
    count: int, callbacks: Callbacks, tags: list[str] | None, metadata: dict[str, Any] | None, run_name: str | None, run_id: UUID | None
) -> list[RunnableConfig]:
    """A config for each of several prompts; a run id is the first one's, for each has a run of its own."""
    given = {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
    config = cast("RunnableConfig", {key: value for key, value in given.items() if value is not None})
    return [config if run_id is None or index else {**config, "run_id": run_id} for index in range(count)]


def _result(several: Sequence[Generated]) -> LLMResult:
    """What came of several prompts, as one model would give it; figures of two models are added up as the first one's are."""
    added = next((each.added for each in several if each.added is not None), None)
    runs = [RunInfo(run_id=each.run_id) for each in several if each.run_id is not None]
    return LLMResult(
        generations=[list(each.generations) for each in several],
        llm_output=added([each.told for each in several]) if added is not None else None,
        run=runs if runs and len(runs) == len(several) else None,
    )
