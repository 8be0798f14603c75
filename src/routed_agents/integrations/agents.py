"""A middleware of `create_agent` that sends each model call to the cheapest tier that may do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, NotRequired, cast

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import AgentState, ExtendedModelResponse, ModelRequest, ModelResponse, PrivateStateAttr
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableSerializable
from langchain_core.runnables.config import ensure_config
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command
from typing_extensions import override

from routed_agents.errors import ConfigurationError, StateError, StepStopped
from routed_agents.integrations import shelf
from routed_agents.integrations.caching import Ttl, check_ttl, with_caching
from routed_agents.integrations.channels import CHANNEL
from routed_agents.integrations.fitting import fitted
from routed_agents.integrations.going import stamped
from routed_agents.integrations.inner_calls import InnerCalls, alone
from routed_agents.integrations.inner_requests import InnerRequests
from routed_agents.integrations.labels import labels_at
from routed_agents.integrations.late import name_of_tool, reachable, schemas_of
from routed_agents.integrations.live import Shown, Withheld, read_along, streams_within, with_handler
from routed_agents.integrations.models import Models, deployment_of, is_simulated
from routed_agents.integrations.observer import AGAIN, MARK
from routed_agents.integrations.outer_fallbacks import OuterFallbacks
from routed_agents.integrations.position import Position, position_of
from routed_agents.integrations.resuming import aresumed, resumed
from routed_agents.integrations.stopped_before import Visit, avisit, visit
from routed_agents.integrations.stopping import HANDED_OFF, can_hand_off, hand_off, stopped_stamp
from routed_agents.integrations.telling import Telling, asked_of, heard_by
from routed_agents.policy import Policy
from routed_agents.pricing import Usage
from routed_agents.router import Attempt, RoutedCall, Router
from routed_agents.schemas import carried
from routed_agents.state import ThreadState, join
from routed_agents.steps import STAMP, Step, field_of, text_of, tool_name
from routed_agents.telemetry.around import within
from routed_agents.tiers import Deployment, Tiers, card, same_model

STRONG: Final = "strong"
OFFERS: Final = "bind_tools"
"""The method that a model has of its own which only offers tools; a copy of the model needs another."""
AGENTS_KEPT: Final = 64
"""Agents of one middleware whose models are remembered."""
TOOLS_KEPT: Final = 1_024
"""Tools of one middleware whose schemas are remembered."""
WRITTEN: Final = ("v", "pins", "facts", "marks", "turns")
"""The names in a routing state, of which what is written there has some."""


def joined(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> dict[str, Any]:
    """`join` for the key of an agent, which takes the place of a key of that name that a middleware listed before has.

    Raises:
        StateError: what is written are no pins and facts, but the other middleware's.
    """
    if right and not (isinstance(cast("object", right), Mapping) and any(name in right for name in WRITTEN)):
        raise StateError(
            f"the key \"{CHANNEL}\" of an agent's state is RouterMiddleware's, which takes no {type(right).__name__} of somebody else; "
            "list RouterMiddleware before the middleware that has such a key, and it leaves it alone, or name that key otherwise"
        )
    return join(left, right)


class RoutingState(AgentState[Any]):
    """An agent's state with the channel that keeps pins and facts; private, so it stays out of inputs and outputs."""

    routing: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, joined]]


class RouterMiddleware(AgentMiddleware[RoutingState, Any, Any]):
    """Routes an agent's model calls: its own model is the strong tier, and `cheap` does what it may.

        agent = create_agent("anthropic:claude-opus-5-5", tools, middleware=[RouterMiddleware(cheap="anthropic:claude-haiku-5-5")])

    List it first, so that it is the outermost middleware: what the others bind then fits the model that was chosen, and where one of them
    has a key `routing` of its own in the agent's state, it keeps it. Where middlewares inside change the request, the step is decided
    again when the model is about to be asked, which may only raise it; they then run anew for the higher tier. Without a router it goes by
    what the environment says at an agent's first call. A middleware around that asks another model for a step that failed gets the step's
    error again, where that model may not answer it.

    Args:
        router: a router, a policy or the path of a policy file; its top tier must be the agent's own model.
        cheap: chat model or string for the cheap tier; the policy's own when not given.
        prompt_cache: how long Anthropic keeps the prompt of a tool loop, "5m" or "1h"; None marks nothing.
        buffer: tell whoever reads along (`stream_mode="messages"`, events) a reply that may yet be rejected only when it stands. Without
            it a reply stands once a word or tool call of it has been seen.

    Raises:
        ConfigurationError: an argument or the environment is of no use; at the first call, when the agent's model is not the router's top
            tier.
        PolicyError: `cheap` is no model, or the policy file cannot be used.
        LedgerError: there can be no ledger where the environment names one.
    """

    state_schema = RoutingState

    def __init__(
        self, router: Router | Policy | str | None = None, *, cheap: Any = None, prompt_cache: Ttl | None = "5m", buffer: bool = False
    ) -> None:
        super().__init__()
        check_ttl(prompt_cache)
        if cheap is not None:
            _check_cheap(cheap)
        self._given = Router.of(router) if router is not None else None
        if self._given is None:
            Router.from_env()  # reading it is the check; it may yet be set before the first call
        self._fallbacks = OuterFallbacks(fixed=self._given is not None)
        self._cheap = cheap
        self._prompt_cache: Ttl | None = prompt_cache
        self._buffer = buffer
        self._built: dict[int, tuple[Any, Router, Models]] = {}  # by the model itself: two of one name may have other keys and limits
        self._schemas: dict[
            int, tuple[Any, Any, dict[str, Mapping[str, Any]]]
        ] = {}  # by the tool itself, and what it says of its arguments

    @override
    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> Any:
        self._fallbacks.check(request.model)
        router, models = self._for(request.model)
        call, position, config = self._open(router, request)
        along = read_along(config.get("callbacks"), config.get("tags"))
        known = shelf.load(router, position)
        call.hold(known, resumed=resumed(router, position, known, request.messages))
        seen = visit(call, position) if router.policy.on_stop == "interrupt" else None
        try:
            with call:
                response: ModelResponse[Any] | None = None
                kept = call.decision.state
                shelf.keep(router, position, kept)
                for attempt in call.attempts():
                    withheld = Withheld(attempt, hidden=along and self._buffer and attempt.may_rise)
                    with attempt:
                        tiered = _tiered(request, models, attempt, self._prompt_cache)
                        inner = _calls_of(tiered, handler, call, config)
                        asked = _heard(tiered, attempt, inner, along=along, hidden=withheld.hidden)
                        sent = None if alone(handler) else self._followed(asked, call, attempt)
                        if inner is None:
                            with within(attempt.context), withheld.around():
                                response = handler(asked)
                            attempt.record(_reply(response), usage=_used(tiered, response))
                        else:
                            with inner.hearing(attempt) as heard, within(attempt.context), withheld.around():
                                response = handler(asked if sent is None else sent.request)
                                _offered(call, sent)
                                heard(_reply(response))
                    withheld.tell()
                    if call.decision.state is not kept:
                        kept = call.decision.state
                        shelf.keep(router, position, kept)
                return _answered(response, call, position.state)
        except Exception as error:
            self._fallbacks.note(error, request.model, call, router)
            if not isinstance(error, StepStopped):
                raise
            return _instead(error, call, position, seen)
        finally:
            if seen is not None:
                seen.over()

    @override
    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Any:
        self._fallbacks.check(request.model)
        router, models = self._for(request.model)
        call, position, config = self._open(router, request)
        along = read_along(config.get("callbacks"), config.get("tags"))
        known = await shelf.aload(router, position)
        call.hold(known, resumed=await aresumed(router, position, known, request.messages))
        seen = await avisit(call, position) if router.policy.on_stop == "interrupt" else None
        try:
            async with call:
                response: ModelResponse[Any] | None = None
                kept = call.decision.state
                await shelf.akeep(router, position, kept)
                for attempt in call.attempts():
                    withheld = Withheld(attempt, hidden=along and self._buffer and attempt.may_rise)
                    with attempt:
                        tiered = _tiered(request, models, attempt, self._prompt_cache)
                        inner = _calls_of(tiered, handler, call, config)
                        asked = _heard(tiered, attempt, inner, along=along, hidden=withheld.hidden)
                        sent = None if alone(handler) else self._followed(asked, call, attempt)
                        if inner is None:
                            with within(attempt.context), withheld.around():
                                response = await handler(asked)
                            if attempt.judged:
                                await attempt.consult(_reply(response), usage=_used(tiered, response))
                            attempt.record(_reply(response), usage=_used(tiered, response))
                        else:
                            with inner.hearing(attempt) as heard, within(attempt.context), withheld.around():
                                response = await handler(asked if sent is None else sent.request)
                                _offered(call, sent)
                                if attempt.judged:
                                    await attempt.consult(_reply(response), usage=inner.used(_reply(response)))
                                heard(_reply(response))
                    await withheld.atell()
                    if call.decision.state is not kept:
                        kept = call.decision.state
                        await shelf.akeep(router, position, kept)
                return _answered(response, call, position.state)
        except Exception as error:
            self._fallbacks.note(error, request.model, call, router)
            if not isinstance(error, StepStopped):
                raise
            return _instead(error, call, position, seen)
        finally:
            if seen is not None:
                seen.over()

    def _for(self, model: Any) -> tuple[Router, Models]:
        """The router and models for an agent with this model; built once for each."""
        found = self._built.get(id(model))
        if found is None:
            router, models = self._build(model)
            if len(self._built) >= AGENTS_KEPT:
                self._built.pop(next(iter(self._built)))
            found = self._built[id(model)] = (model, router, models)
        return found[1], found[2]

    def _build(self, model: Any) -> tuple[Router, Models]:
        own = deployment_of(model, STRONG)
        router = self._given if self._given is not None else Router.from_env(policy=lambda: self._pair(own))
        top = router.policy.tiers[router.policy.tiers.top]
        if not any(same_model(each.model, own.model) for each in top.deployments):
            raise ConfigurationError(
                f'the agent\'s own model is "{own.model}", but the router\'s top tier is "{top.model}"; '
                "give the agent that model, or the router a policy whose top tier is the agent's"
            )
        given = {top.name: model, **({router.policy.tiers[0].name: self._cheap} if self._cheap is not None else {})}
        models = Models(router.policy, given, {}, sdk_spans=router.telemetry.keeps_sdk_spans)
        return (router if models.policy is router.policy else router.replace(policy=models.policy)), models

    def _pair(self, own: Deployment) -> Policy:
        """The default policy over the cheap model and the agent's own."""
        cheap = self._cheap if self._cheap is not None else _cheaper_sibling(own.provider)
        return Policy.default(tiers=Tiers.of({"cheap": deployment_of(cheap, "cheap"), STRONG: own}))

    def _open(self, router: Router, request: ModelRequest[Any]) -> tuple[RoutedCall, Position, Mapping[str, Any]]:
        """The call, where it is made, and the config it is made with."""
        config = cast("Mapping[str, Any]", ensure_config())
        position = position_of(config)
        step = Step.from_messages(
            request.messages,
            system=text_of(request.system_message) if request.system_message is not None else None,
            tools=_tools_of(request),
            node=position.node,
            metadata=cast("Mapping[str, object]", config.get("metadata") or {}),
            run=position.run,
            at=position.at,
            downstream=position.downstream,
            in_loop=position.in_loop,
        )
        call = router.step(
            step,
            thread=position.thread,
            labels=labels_at(position, config, router.policy.labels),
            namespace=position.namespace,
            branch=position.branch,
            state=position.state,
            memory=position.memory,
            tool_schemas=lambda: self._schemas_of(request.tools),
            conditions=reachable(
                router.policy.tiers, request.tools, schema=isinstance(request.response_format, ProviderStrategy), messages=request.messages
            ),
            parent=position.parent,
            made_by="langchain",
        )
        call.handed_off = can_hand_off(router.policy.on_stop, position)
        call.pauses = (GraphBubbleUp,)
        return call, position, config

    def _followed(self, request: ModelRequest[Any], call: RoutedCall, attempt: Attempt) -> InnerRequests:
        """The request for middlewares inside, decided again in whatever form they have it sent."""
        sent = InnerRequests(request, lambda form, messages: _decided_again(form, messages, call, attempt, made_for=request))
        call.tool_schemas = lambda: self._schemas_of(sent.tools)
        return sent

    def _schemas_of(self, tools: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
        """The schemas of tools' arguments; pydantic takes 30 us to write one, so those of an agent's own tools are kept."""
        found: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            if isinstance(tool, dict):
                found |= schemas_of([tool])
                continue
            kept = self._schemas.get(id(tool))
            if kept is None or kept[0] is not tool or kept[1] is not tool.args_schema:
                if len(self._schemas) >= TOOLS_KEPT:
                    self._schemas.clear()
                kept = self._schemas[id(tool)] = (tool, tool.args_schema, schemas_of([tool]))
            found |= kept[2]
        return found


def _tiered(request: ModelRequest[Any], models: Models, attempt: Attempt, cache: Ttl | None) -> ModelRequest[Any]:
    """The request for the attempt's model, its settings repaired."""
    model, limits = models.get(attempt.deployment), card(attempt.deployment.price_key)
    history = [request.system_message, *request.messages] if request.system_message is not None else list(request.messages)
    fit = fitted(
        model,
        attempt.deployment,
        history,
        kwargs=with_caching(request.model_settings, cache, history) if cache is not None else request.model_settings,
        method="bind_tools",
        options={"tool_choice": request.tool_choice} if request.tool_choice is not None else {},
        tools=request.tools,
    )
    changed, choice = fit.changed, fit.options.get("tool_choice")
    answer_as: Any = request.response_format
    refused = not limits.forced_tool_choice and isinstance(cast("object", answer_as), ToolStrategy)  # LangChain demands its tool
    if refused:
        specs = _answer_specs(answer_as)
        if len(specs) == 1 and carried(specs[0].json_schema):
            answer_as = ProviderStrategy[Any](schema=answer_as.schema)
        changed = (*changed, "response_format")
    if changed:
        attempt.repaired(changed)
    attempt.simulated = is_simulated(model)
    told: dict[str, Any] = {}
    if fit.messages is not None:
        leading = fit.messages[0] if fit.messages and fit.messages[0].type == "system" else None
        told = {"system_message": leading, "messages": fit.messages[1:] if leading is not None else fit.messages}
    mark: dict[str, Any] = {MARK: attempt.tier, **({AGAIN: True} if attempt.number > 1 else {})}
    marked = fit.model.model_copy(update={"metadata": {**(fit.model.metadata or {}), **mark}})
    if refused and answer_as is request.response_format:
        _offer(marked)
    return request.override(model=marked, model_settings=fit.kwargs, tool_choice=choice, response_format=answer_as, **told)


def _decided_again(
    form: ModelRequest[Any], messages: Sequence[BaseMessage], call: RoutedCall, attempt: Attempt, *, made_for: ModelRequest[Any]
) -> bool:
    """Whether an attempt made for one form of a request may not be made in another, with these messages."""
    leading = messages[0] if messages and messages[0].type == "system" else None
    said = messages[1:] if leading is not None else messages
    if not said:
        return False
    schema = isinstance(form.response_format, ProviderStrategy) and form.response_format is not made_for.response_format
    return attempt.decide_again(
        replace(call.step, messages=said, system=text_of(leading) if leading is not None else None, tools=_tools_of(form)),
        unusable=reachable(call.router.policy.tiers, form.tools, schema=schema, messages=messages).unusable,
    )


def _offered(call: RoutedCall, sent: InnerRequests | None) -> None:
    """Take the tools of a call made of somebody else's model, which a middleware inside has put in the place of the attempt's."""
    if sent is not None and (form := sent.last) is not None:
        call.step = replace(call.step, tools=_tools_of(form))


def _tools_of(request: ModelRequest[Any]) -> tuple[str, ...]:
    """The names of the tools that a request offers, those that may carry a structured answer among them."""
    specs = _answer_specs(request.response_format)
    return (*[name_of_tool(tool) for tool in request.tools], *[tool_name(spec.name) for spec in specs])


def _calls_of(request: ModelRequest[Any], handler: object, call: RoutedCall, config: Mapping[str, Any]) -> InnerCalls | None:
    """What hears the calls made of a request; None where its reply tells all there is to know, for it is asked once and in one piece."""
    plain = isinstance(cast("object", request.model), BaseChatModel)  # what is made of one by `bind` and the like carries no mark
    if plain and alone(handler) and not streams_within(request.model, config.get("callbacks"), request.model_settings):
        return None
    return InnerCalls(asked_of(request.model, request.model_settings), call.decision.features.tokens)


def _used(request: ModelRequest[Any], response: Any) -> Usage | None:
    """The usage of a reply in one piece; None where it tells as much itself."""
    return Telling(asked_of(request.model, request.model_settings)).usage(_reply(response))


def _heard(request: ModelRequest[Any], attempt: Attempt, inner: InnerCalls | None, *, along: bool, hidden: bool) -> ModelRequest[Any]:
    """The request, its model heard by whoever has to know of its calls or words."""
    if inner is None and not along:
        return request
    model = heard_by(request.model, inner.hear) if inner is not None else request.model
    callbacks = model.callbacks
    for handler in (inner, Shown(attempt) if along and not hidden else None):
        callbacks = with_handler(callbacks, handler) if handler is not None else callbacks
    model = model.model_copy(update={"callbacks": callbacks})
    if OFFERS in vars(model):
        _offer(model)
    return request.override(model=model)


def _offer(model: Any) -> None:
    """Have a model's tools offered where LangChain demands one of them for a structured answer."""
    bind: Callable[..., Any] = type(model).bind_tools  # pyright: ignore
    vars(model)[OFFERS] = lambda tools, *, tool_choice=None, **more: bind(model, tools, tool_choice="auto", **more)  # pyright: ignore


def _answer_specs(wanted: object) -> list[Any]:
    """The tools that may carry a structured answer: LangChain binds them later, where a model answers by calling one."""
    strategy = ToolStrategy[Any](schema=cast("AutoStrategy[Any]", wanted).schema) if isinstance(wanted, AutoStrategy) else wanted
    return list(cast("ToolStrategy[Any]", strategy).schema_specs) if isinstance(strategy, ToolStrategy) else []


def _reply(response: ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]) -> BaseMessage | None:
    if isinstance(response, AIMessage):
        return response
    inner = response.model_response if isinstance(response, ExtendedModelResponse) else response
    return next((message for message in inner.result if isinstance(message, AIMessage)), None)


def _answered(response: Any, call: RoutedCall, held: ThreadState | None) -> Any:
    """The response with its reply stamped, and the pins and facts for the agent's state, where it can hold them and does not yet."""
    stamp = call.stamp()
    command: object = None
    inner: ModelResponse[Any] = response
    if isinstance(response, ExtendedModelResponse):
        extended = cast("ExtendedModelResponse[Any]", response)
        inner, command = extended.model_response, extended.command
    elif isinstance(response, AIMessage):
        inner = ModelResponse(result=[response])
    result = [stamped(message, stamp) if isinstance(message, AIMessage) else message for message in inner.result]
    answer = replace(inner, result=result)
    if command is None and (held is None or call.decision.state == held):
        return answer
    if held is None:
        return ExtendedModelResponse(model_response=answer, command=cast("Any", command))
    ours = call.decision.state.to_json()
    update = field_of(command, "update")
    theirs = dict(cast("Mapping[str, Any]", update)) if isinstance(update, Mapping) else {}
    theirs[CHANNEL] = join(theirs[CHANNEL], ours) if CHANNEL in theirs else ours
    return ExtendedModelResponse(model_response=answer, command=Command(update=theirs))


def _instead(stop: StepStopped, call: RoutedCall, position: Position, seen: Visit | None) -> ExtendedModelResponse[Any]:
    """What stands for the reply of a stopped step, where `on_stop` has somebody take over; else the stop is raised.

    An agent ends at a reply without tool calls, as it does at LangChain's own call limits.
    """
    if stop.decision is not call.decision or not call.handed_off:  # another step's, or nobody takes over
        raise stop
    if call.router.policy.on_stop == "end":
        answer: BaseMessage = AIMessage(content=HANDED_OFF, response_metadata={STAMP: stopped_stamp(call)})
    else:
        config = cast("Mapping[str, Any]", ensure_config())
        answer = hand_off(stop, call, position, config, seen)
    update = {CHANNEL: call.decision.state.to_json()} if position.state is not None else {}
    return ExtendedModelResponse(model_response=ModelResponse(result=[answer]), command=Command(update=update))


def _check_cheap(model: Any) -> None:
    """Refuse what is no model for the cheap tier.

    Raises:
        ConfigurationError: it is made of a chat model, by `bind`, `with_config` or the like, and LangChain would take it apart.
        PolicyError: it names no model.
    """
    deployment_of(model, "cheap")  # reading it is the check
    if isinstance(model, RunnableSerializable) and not isinstance(model, BaseChatModel):
        wanted = "the chat model itself, or a string; give its settings to the chat model"
        raise ConfigurationError(f"cheap is made of a chat model ({type(cast('object', model)).__name__}); wanted {wanted}")


def _cheaper_sibling(provider: str | None) -> str:
    """The cheap model of a provider's newest preset."""
    preset = {"anthropic": "claude", "openai": "gpt"}.get(provider or "")
    if preset is None:
        raise ConfigurationError(
            f'no cheap model is known for provider "{provider}"; give one: RouterMiddleware(cheap="anthropic:claude-haiku-5-5")'
        )
    return Tiers.preset_named(preset)[0].deployments[0].name
