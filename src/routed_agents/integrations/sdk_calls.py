"""One call of an SDK on its way: read as a step, posted once or several times, judged and written down."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from opentelemetry import context as otel_context

from routed_agents.errors import StepError
from routed_agents.guards import Conditions
from routed_agents.integrations import shelf
from routed_agents.integrations.node_writes import send_state
from routed_agents.integrations.resuming import aresumed, resumed
from routed_agents.integrations.sdk_histories import Writers
from routed_agents.integrations.sdk_places import Place
from routed_agents.integrations.sdk_requests import (
    About,
    Api,
    demands_tool,
    first_call_of,
    loop_named,
    loop_of,
    shows_pictures,
    step_of,
    tool_schemas,
)
from routed_agents.integrations.sdk_streams import Gathering, gathering, only_usage, reply_so_far, usage_so_far
from routed_agents.integrations.sdk_surface import raw_mode
from routed_agents.pricing import usage_of
from routed_agents.repairs import dialect_of, repaired, unusable
from routed_agents.router import Attempt, RoutedCall, Router
from routed_agents.state import lineage_key
from routed_agents.steps import STAMP, Step, field_of
from routed_agents.telemetry import MadeBy
from routed_agents.telemetry.around import within
from routed_agents.tiers import Deployment, card, dialects

log: Final = logging.getLogger("routed_agents")
KEY: Final = "idempotency-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request at the point where the SDK posts it."""

    path: str
    api: Api
    model: str
    body: Mapping[str, Any]
    options: Mapping[str, Any]
    rest: Mapping[str, Any]
    default_headers: Callable[[], Mapping[str, object]]
    """What the client sends with every request."""
    place: Place
    router: Router
    writers: Writers
    streamed: bool
    provider: str | None
    """Who is called, where the client tells."""
    quiet_usage: bool
    """The caller did not ask for a stream's usage; we did."""
    made_by: MadeBy

    @property
    def about(self) -> About:
        return self.place.about

    @property
    def raw(self) -> str | None:
        return raw_mode(self.options)

    def posted(self) -> dict[str, Any]:
        """What to post for a watched call: the caller's own request."""
        return {**self.rest, "body": self.body, "options": self.options if self.raw else self.plain_options()}

    def plain_options(self) -> dict[str, Any]:
        """The options without the parser that runs on the reply, so that a reply it rejects is seen too."""
        return {name: value for name, value in self.options.items() if name != "post_parser"}

    def parsed(self, reply: Any) -> Any:
        """What the SDK's own parser makes of a reply."""
        parser = self.options.get("post_parser")
        return reply if parser is None else parser(reply)


class Going:
    """One routed call while it goes on."""

    __slots__ = ("_error", "_heard", "_loop", "_position", "_reply", "call", "closed", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.closed = False
        step, position = step_of(request.api, request.body, request.about), request.place.position
        self._position = position
        self._loop = loop_of(step) if request.about.thread is None else None
        self._heard: tuple[Callable[[], Any], str] | None = None
        self._reply: Any = None
        self._error: Exception | None = None
        if position is not None:
            step = replace(step, at=position.at, in_loop=position.in_loop)
        self.call: RoutedCall = request.router.step(
            step,
            thread=request.about.thread,
            labels=request.place.labels(request.router.policy.labels),
            namespace=position.namespace if position is not None else "",
            branch=position is not None and position.branch,
            state=position.state if position is not None else None,
            memory=(position.memory if position is not None else None) or self._loop,
            conditions=_conditions(request, step),
            forced_tools=demands_tool(request.body),
            tool_schemas=lambda: tool_schemas(request.body),
            parent=position.parent if position is not None else None,
            made_by=request.made_by,
        )

    def __enter__(self) -> Going:
        if self._position is not None:
            known = shelf.load(self.call.router, self._position)
            self.call.hold(known, resumed=resumed(self.call.router, self._position, known, self.call.step.messages))
        self.call.__enter__()
        self.keep()
        return self

    async def __aenter__(self) -> Going:
        if self._position is not None:
            known = await shelf.aload(self.call.router, self._position)
            self.call.hold(known, resumed=await aresumed(self.call.router, self._position, known, self.call.step.messages))
        if self.call.router.policy.judge is not None:
            await self.call.consult()
        self.call.__enter__()
        await self.akeep()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._position is not None and self._position.state is not None:
            found = self.call.decision.state
            send_state(self.request.place.config, found.of_thread() if self._position.branch else found)
        self.remember()
        self.call.__exit__(*exception)
        self.closed = True

    async def __aexit__(self, *exception: Any) -> None:
        self.__exit__(*exception)

    def keep(self) -> None:
        """Put what was found where the run's other steps find it, before the provider is asked."""
        if self._position is not None:
            shelf.keep(self.call.router, self._position, self.call.decision.state)

    async def akeep(self) -> None:
        """`keep` without blocking the event loop."""
        if self._position is not None:
            await shelf.akeep(self.call.router, self._position, self.call.decision.state)

    @property
    def prompt(self) -> int:
        """The upper bound of the prompt's tokens."""
        return self.call.decision.features.tokens

    def sent(self, attempt: Attempt) -> dict[str, Any]:
        """What to post for an attempt: the tier's model, and parameters it takes."""
        request = self.request
        body, changed = fitted(request.api, request.body, attempt.deployment)
        changed = (*changed, *request.writers.fitted(request.api, body, attempt.model))
        options = request.plain_options()
        if attempt.number > 1:
            options |= headers_of(attempt.number, options, request.default_headers())
        if changed:
            attempt.repaired(changed)
        return {**request.rest, "body": body, "options": options}

    def take(self, attempt: Attempt, raw: Any) -> None:
        """Record a reply, parsed by the SDK where the caller asked for that; what the parser rejects was paid for all the same."""
        self.hear(attempt, lambda: raw)
        attempt.record(raw, validated=self._parse(raw))

    async def consult(self, attempt: Attempt, raw: Any) -> None:
        """Have judges asked about a reply before it is taken."""
        await attempt.consult(raw, validated=self._parse(raw))

    def _parse(self, raw: Any) -> bool | None:
        """Whether the SDK's parser takes a reply; None where there is nothing to parse."""
        self._error = None
        try:
            self._reply = self.request.parsed(raw)
        except Exception as error:
            self._reply, self._error = raw, error
        wanted = self.call.step.output_schema is not None
        return False if self._error is not None else True if wanted and self._reply is not raw else None

    def result(self) -> Any:
        """What the caller gets: the SDK's reply with the decision on it, or the error of the SDK's own parser."""
        if self._error is not None:
            raise self._error
        return stamped(self._reply, self.call.stamp())

    def hear(self, attempt: Attempt, reply: Callable[[], Any]) -> None:
        """Take note of where an attempt's reply can be had, as far as it has come."""
        self._heard = (reply, attempt.model)

    def remember(self) -> None:
        """Keep what the next steps have to know: who thought what, and, without a thread, the pins of a tool loop that begins here.

        A stream may be left, or stay open, once its tool call is there, so this is asked for at every part that such a step would send.
        """
        call, request = self.call, self.request
        if self._heard is None:
            return
        said, model = self._heard
        try:
            reply = said()
            request.writers.note(request.api, reply, model)
            first = first_call_of(request.api, reply) if call.thread is None and self._loop is None else None
        except Exception:
            log.exception("the reply of step %s cannot be read; its pins and thoughts end here", call.step.id)
            return
        if first is not None:
            call.router.remember(loop_named(first), call.decision.state)


class Watching:
    """One watched call while it goes on: whatever goes wrong in here never reaches the caller."""

    __slots__ = ("_first_ns", "_parent", "_request", "_started_ns", "_step")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._started_ns = time.time_ns()
        self._first_ns: int | None = None
        position = request.place.position
        self._parent = (position.parent if position is not None else None) or otel_context.get_current()
        self._step: Step | None = None
        request.router.expect(request.model, request.provider)
        try:
            self._step = step_of(request.api, request.body, request.about)
        except StepError:
            pass  # the provider will say what is wrong with it
        except Exception:
            log.exception("a watched call cannot be read; it is priced without its class")

    def first_chunk(self) -> None:
        """Note that the first event of a stream has come."""
        if self._first_ns is None:
            self._first_ns = time.time_ns()

    def remember(self, reply: Any) -> None:
        """Keep who thought what is there of a reply."""
        try:
            self._request.writers.note(self._request.api, reply, self._request.model)
        except Exception:
            log.exception("a watched reply of %s cannot be read; its thoughts are of nobody known", self._request.model)

    def note(self, reply: Any, error: BaseException | None = None, *, gathered: Gathering | None = None) -> None:
        """Write the call down."""
        request = self._request
        self.remember(reply)
        try:
            usage = None
            if gathered is not None and not gathered.counted:
                usage = usage_so_far(gathered, request.router.decide(self._step).features.tokens if self._step is not None else 0)
            request.router.watch(
                model=request.model,
                provider=request.provider,
                reply=reply,
                usage=usage,
                step=self._step,
                thread=request.about.thread,
                labels=request.place.labels(request.router.policy.labels),
                key=lineage_key(node=request.about.node),
                started_ns=self._started_ns,
                first_chunk_ns=self._first_ns,
                error=error,
                parent=self._parent,
                made_by=request.made_by,
            )
        except Exception:
            log.exception("a watched call of %s could not be written down", request.model)
            request.router.telemetry.dropped(1)


class WatchedPassing:
    """Events of a watched stream on their way to the caller; those that close the reply wait until all of its usage is read."""

    __slots__ = ("_gathered", "_request", "_watching", "tail")

    def __init__(self, request: Request, watching: Watching) -> None:
        self._request = request
        self._watching = watching
        self._gathered = gathering(request.api, request.body)
        self.tail: list[Any] = []

    def take(self, event: Any) -> list[Any]:
        """Take an event from the provider; give out what may be shown."""
        self._watching.first_chunk()
        try:
            self._gathered.add(event)
            if self._gathered.tells(event):
                self._watching.remember(self._gathered.reply())
        except Exception:
            log.exception("an event of a watched stream cannot be read; its usage may be missing")
        if self._request.quiet_usage and only_usage(event):
            return []
        if self._gathered.ended:
            self.tail.append(event)
            return []
        return [event]

    def note(self, error: BaseException | None = None) -> None:
        """Write the call down."""
        self._watching.note(reply_so_far(self._gathered), error, gathered=self._gathered)


class BatchResults:
    """One batch's results, each written down the first time it is read through this client."""

    def __init__(self, router: Router, path: str, known: dict[str, int], provider: str | None) -> None:
        self._router = router
        self._provider = provider
        self._known = known
        self._path = path
        self._read = 0

    def note(self, result: Any, said: About) -> None:
        """Write a result down; those of requests that failed cost nothing."""
        self._read += 1
        if self._read <= self._known.get(self._path, 0):
            return
        self._known[self._path] = self._read
        message = field_of(field_of(result, "result"), "message")
        if message is None:
            return
        try:
            usage = usage_of(message)
            self._router.watch(
                model=str(field_of(message, "model")),
                provider=self._provider,
                reply=message,
                usage=None if usage is None else replace(usage, batch=True),
                thread=said.thread,
                labels=said.labels or None,
                key=lineage_key(node=said.node),
                started_ns=time.time_ns(),
                parent=otel_context.get_current(),
                made_by="client_quiet",  # the SDK's span of the results tells no tokens
            )
        except Exception:
            log.exception("a result of a batch could not be written down")
            self._router.telemetry.dropped(1)


def _conditions(request: Request, step: Step) -> Conditions | None:
    """Which tiers lack what the request asks for: a step whose tier cannot do it goes up."""
    lacking = unusable(
        request.router.policy.tiers,
        tools=request.body.get("tools") or (),
        images=shows_pictures(step),
        schema=step.output_schema is not None,
    )
    return Conditions(unusable=lacking) if lacking else None


def fitted(api: Api, body: Mapping[str, Any], deployment: Deployment) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request's body for one deployment: its model, and parameters it takes; with the names of those that were changed.

    Repairs speak LangChain's names, which differ for Anthropic.
    """
    family = "anthropic" if api == "messages" else "openai"
    foreign = dialect_of(deployment.provider) in dialects()  # a gateway takes the words of its client, whoever answers behind it
    sent, changed = repaired(
        body, card(deployment.price_key), provider=family if foreign else deployment.provider, responses=api == "responses"
    )
    if api == "messages":
        if isinstance(sent.get("tool_choice"), str):
            sent["tool_choice"] = {"type": sent["tool_choice"]}
        if "stop" in sent:
            sent["stop_sequences"] = sent.pop("stop")
    sent["model"] = deployment.model
    return sent, changed


def headers_of(number: int, options: Mapping[str, Any], defaults: Mapping[str, object]) -> dict[str, Any]:
    """The headers of a further attempt, whose body is another, so that the caller's `Idempotency-Key` would make it a false repetition."""
    given = cast("Mapping[str, object]", options.get("headers") or {})
    keys = [value for headers in (given, defaults) for name, value in headers.items() if name.lower() == KEY]
    if not keys or not isinstance(keys[0], str):
        return {}
    others = {name: value for name, value in given.items() if name.lower() != KEY}
    return {"headers": {**others, KEY: f"{keys[0]}-{number}"}}


def stamped(reply: Any, stamp: dict[str, Any]) -> Any:
    """A copy of a reply that carries the decision, beside the provider's own fields; what is no SDK model stays as it is."""
    copy = getattr(reply, "model_copy", None)
    return copy(update={STAMP: stamp}) if copy is not None else reply


def readable(request: Request, reply: Any) -> Any:
    """The reply behind an HTTP response that was read already; None where it wasn't."""
    if request.raw is None:
        return reply
    try:
        return json.loads(reply.http_response.content)
    except Exception:
        return None  # its reader will read it, and we don't see what


def current(attempt: Attempt) -> Any:
    """Make the leaf span current while the provider is called, so that its own spans hang below ours; never round a stream."""
    return within(attempt.context)
