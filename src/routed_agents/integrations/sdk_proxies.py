"""An SDK client seen through a router: everything is the SDK's own, up to the point where a request is posted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Final, Literal, cast

from routed_agents.errors import ConfigurationError
from routed_agents.integrations.sdk_calls import BatchResults, Going, Request, WatchedPassing, Watching, current, fitted, readable
from routed_agents.integrations.sdk_histories import Writers
from routed_agents.integrations.sdk_places import place_of
from routed_agents.integrations.sdk_requests import About, Api, as_sent, other_model, with_caching
from routed_agents.integrations.sdk_stand_ins import OPENED, AsyncStream, Now, SyncStream, stand_in, telling
from routed_agents.integrations.sdk_streams import Passing, gathering
from routed_agents.integrations.sdk_surface import COUNTING, NOT_ROUTED, WATCHED, Family, asked_in, is_auto, is_beta, raw_mode, refusal_in
from routed_agents.router import Attempt, Router
from routed_agents.steps import field_of
from routed_agents.tiers import is_simulated_url

OF_SPANS: Final = ("span_name", "span_route", "span_attributes")
"""Options of the anthropic SDK without which it makes no span."""


TAKES_ABOUT: Final = frozenset({"create", "stream", "parse", "count_tokens"})


COPIES: Final = frozenset({"copy", "with_options", "with_middleware"})


RAW: Final = frozenset({"with_raw_response", "with_streaming_response"})
"""Ways to the methods of a resource; made over the routed one, they take `routed_agents={…}` too."""


OWN: Final = ("__weakref__", "_desk", "_known", "_said", "_sdk")
"""What a proxy has itself; everything else is the client's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What all copies of one routed client share."""

    family: Family
    router: Router
    named: Mapping[str, Router] = field(default_factory=dict[str, Router])
    provider: str | None = None
    """Who is called, where the client's class or the caller tells."""
    buffer: bool = False
    sdk_span: bool = True
    ask_usage: bool = False
    prompt_cache: Literal["5m", "1h"] | None = None
    marks_blocks: bool = False
    """Marks for the prompt cache stand on blocks."""
    writers: Writers = field(default_factory=Writers)
    batches: dict[str, int] = field(default_factory=dict[str, int])
    """How many results of each batch are written down already."""

    def router_for(self, model: str) -> Router:
        """The router behind `auto` or `auto:name`.

        Raises:
            ConfigurationError: there is no policy of that name.
        """
        _, colon, name = model.partition(":")
        if not colon:
            return self.router
        if name not in self.named:
            known = f"known: {', '.join(self.named)}" if self.named else "none is named"
            raise ConfigurationError(f'model="{model}" asks for the policy "{name}"; {known}; give it to routed_{self.family}(named={{…}})')
        return self.named[name]


class Proxy:
    """An SDK client seen through a router; sync and async differ only in how they post and get."""

    __slots__ = OWN
    _sdk: Any
    _desk: Desk
    _said: About
    _known: dict[str, Any]

    def __init__(self, sdk: Any, desk: Desk, said: About) -> None:
        set_own = object.__setattr__
        set_own(self, "_sdk", sdk)
        set_own(self, "_desk", desk)
        set_own(self, "_said", said)
        set_own(self, "_known", {})

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  so that isinstance holds where a framework asks
        return cast("Any", type(self._sdk))

    def __copy__(self) -> Proxy:
        return self.copy()  # the SDK's own: a shallow one would share resources that post past the router

    def __getattr__(self, name: str) -> Any:
        if name in OWN:  # one made without `__init__`, by pickle or deepcopy
            raise AttributeError(f"a routed client without {name} cannot be used")
        known: dict[str, Any] = self._known
        if name in known:
            return known[name]
        found = getattr(self._sdk, name)
        if name in COPIES:
            return self._copying(found)
        if getattr(found, "_client", None) is self._sdk:
            made = type(found)(self)
            known[name] = found = _Resource(made, self) if hasattr(made, "_post") else made
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        self._known.clear()
        setattr(self._sdk, name, value)

    def __delattr__(self, name: str) -> None:
        self._known.clear()
        delattr(self._sdk, name)

    def __dir__(self) -> list[str]:
        return dir(self._sdk)

    def __repr__(self) -> str:
        return f"routed_{self._desk.family}({self._sdk!r})"

    def saying(self, given: object) -> Proxy:
        """The same client, for calls of which this is true as well."""
        return type(self)(self._sdk, self._desk, self._said.with_(given))

    def _copying(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(copy)
        def copied(*args: Any, **kwargs: Any) -> Any:
            return type(self)(copy(*args, **kwargs), self._desk, self._said)

        return copied

    def _read(self, path: str, given: dict[str, Any]) -> Request | None:
        """The request if it is a step, its model as the caller named it; None when it is nothing to us.

        Raises:
            ConfigurationError: it asks for routing where there is none.
        """
        sent = given.get("body")
        if not isinstance(sent, Mapping):
            return None
        body, options = as_sent(cast("Mapping[str, Any]", sent), cast("Mapping[str, Any]", given.get("options") or {}))
        given |= {"body": body, "options": options}
        desk, other = self._desk, other_model(options)
        model = body.get("model") if other is None else other
        place, beta = path.partition("?")[0], is_beta(given.get("cast_to"))
        api = WATCHED[desk.family].get(place)
        asked = asked_in(body) or asked_in({"model": other})
        if asked is not None:
            if place == COUNTING and not beta and other is None:
                tiers = desk.router_for(asked).policy.tiers
                given["body"], _ = fitted("messages", body, tiers[tiers.top].deployments[0])
                return None
            if why := refusal_in(place, body, options, api=api, beta=beta):
                raise ConfigurationError(f'model="{asked}" is not routed through {why}: {NOT_ROUTED[why]}; name a model there')
        elif api is None or not isinstance(model, str):
            return None
        if not desk.sdk_span:
            options = {name: value for name, value in options.items() if name not in OF_SPANS}
        streamed = bool(given.get("stream")) and raw_mode(options) is None
        quiet = streamed and api == "chat" and desk.ask_usage and not field_of(body.get("stream_options"), "include_usage")
        if quiet:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        if asked is not None and api == "messages":
            with_caching(body, desk.prompt_cache, on_block=desk.marks_blocks)
        given["options"] = options
        return Request(
            path=path,
            api=cast("Api", api),
            model=cast("str", model),
            body=body,
            options=options,
            rest={name: value for name, value in given.items() if name not in ("body", "options")},
            default_headers=lambda: self._sdk.default_headers,
            place=place_of(self._said),
            router=desk.router if asked is None else desk.router_for(asked),
            writers=desk.writers,
            streamed=streamed,
            provider=desk.provider,
            quiet_usage=quiet,
            made_by="client" if desk.sdk_span and desk.family == "anthropic" else "client_quiet",
        )

    def _passing(self, going: Going, attempt: Attempt) -> Passing:
        request = going.request
        gathered = gathering(request.api, request.body)
        going.hear(attempt, gathered.reply)
        return Passing(attempt, gathered, hold=self._desk.buffer, quiet_usage=request.quiet_usage, remember=going.remember)

    def _is_simulated(self) -> bool:
        return is_simulated_url(str(self._sdk.base_url))


class SyncProxy(Proxy):
    """A sync client."""

    __slots__ = ()

    def __enter__(self) -> SyncProxy:
        self._sdk.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._sdk.__exit__(*exception)

    def post(self, path: str, **given: Any) -> Any:
        """What every method of the SDK's resources ends in."""
        request = self._read(path, given)
        if request is None:
            return self._sdk.post(path, **given)
        if is_auto(request.model):
            return self._streamed(request) if request.streamed else self._called(request)
        return self._watched(request)

    def get(self, path: str, **given: Any) -> Any:
        """Fetches; the results of a batch are watched as they are read."""
        found = self._sdk.get(path, **given)
        results = results_of(self._desk, path, given)
        if results is None:
            return found
        return stand_in(found, SyncStream)(each_noted(results, found, self._said), Now(inner=found))

    def _called(self, request: Request) -> Any:
        going = Going(request)
        with going:
            for attempt in going.call.attempts():
                with attempt:
                    attempt.simulated = self._is_simulated()
                    if attempt.number > 1:
                        going.keep()
                    with current(attempt):
                        raw = self._sdk.post(request.path, **going.sent(attempt))
                    going.take(attempt, raw)
        return going.result()

    def _streamed(self, request: Request) -> Any:
        now = Now()
        events = self._flow(request, now)
        next(events)
        return stand_in(now.inner, SyncStream)(events, now)

    def _flow(self, request: Request, now: Now) -> Iterator[Any]:
        going = now.going = Going(request)
        tail: list[Any] = []
        with going:
            for attempt in going.call.attempts():
                if now.left:
                    break
                with attempt:
                    attempt.simulated = self._is_simulated()
                    if attempt.number > 1:
                        going.keep()
                    with current(attempt):
                        now.inner = raw = self._sdk.post(request.path, **going.sent(attempt))
                    passing = self._passing(going, attempt)
                    try:
                        with now.reading():
                            yield OPENED
                            for event in raw:
                                yield from passing.take(event)
                                if passing.refused or now.left:
                                    break
                    finally:
                        passing.ended(going.prompt)
                        raw.close()
                    if now.left:
                        break
                    tail = passing.finish()
        now.end()
        yield from tail

    def _watched(self, request: Request) -> Any:
        watching = Watching(request)
        try:
            raw = self._sdk.post(request.path, **request.posted())
        except BaseException as error:
            watching.note(None, error)
            raise
        if request.streamed:
            now = Now(inner=raw)
            events = self._watched_flow(request, now, watching)
            next(events)
            return stand_in(raw, SyncStream)(events, now)
        watching.note(readable(request, raw))
        return raw if request.raw else request.parsed(raw)

    def _watched_flow(self, request: Request, now: Now, watching: Watching) -> Iterator[Any]:
        passing, raw = WatchedPassing(request, watching), now.inner
        try:
            yield OPENED
            for event in raw:
                yield from passing.take(event)
        except BaseException as error:
            passing.note(now.ended_by(error))
            raise
        finally:
            raw.close()
        passing.note(now.ended_by(None))
        yield from passing.tail


class AsyncProxy(Proxy):
    """An async client."""

    __slots__ = ()

    async def __aenter__(self) -> AsyncProxy:
        await self._sdk.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._sdk.__aexit__(*exception)

    async def post(self, path: str, **given: Any) -> Any:
        """What every method of the SDK's resources ends in."""
        request = self._read(path, given)
        if request is None:
            return await self._sdk.post(path, **given)
        if is_auto(request.model):
            return await (self._streamed(request) if request.streamed else self._called(request))
        return await self._watched(request)

    async def get(self, path: str, **given: Any) -> Any:
        """Fetches; the results of a batch are watched as they are read."""
        found = await self._sdk.get(path, **given)
        results = results_of(self._desk, path, given)
        if results is None:
            return found
        return stand_in(found, AsyncStream)(each_noted_async(results, found, self._said), Now(inner=found))

    async def _called(self, request: Request) -> Any:
        going = Going(request)
        async with going:
            for attempt in going.call.attempts():
                with attempt:
                    attempt.simulated = self._is_simulated()
                    if attempt.number > 1:
                        await going.akeep()
                    with current(attempt):
                        raw = await self._sdk.post(request.path, **going.sent(attempt))
                    if attempt.judged:
                        await going.consult(attempt, raw)
                    going.take(attempt, raw)
        return going.result()

    async def _streamed(self, request: Request) -> Any:
        now = Now()
        events = self._flow(request, now)
        await anext(events)
        return stand_in(now.inner, AsyncStream)(events, now)

    async def _flow(self, request: Request, now: Now) -> AsyncIterator[Any]:
        going = now.going = Going(request)
        tail: list[Any] = []
        async with going:
            for attempt in going.call.attempts():
                if now.left:
                    break
                with attempt:
                    attempt.simulated = self._is_simulated()
                    if attempt.number > 1:
                        await going.akeep()
                    with current(attempt):
                        now.inner = raw = await self._sdk.post(request.path, **going.sent(attempt))
                    passing = self._passing(going, attempt)
                    try:
                        with now.reading():
                            yield OPENED
                            async for event in raw:
                                for ready in passing.take(event):
                                    yield ready
                                if passing.refused or now.left:
                                    break
                    finally:
                        passing.ended(going.prompt)
                        await raw.close()
                    if now.left:
                        break
                    if attempt.judged:
                        await passing.consult()
                    tail = passing.finish()
        now.end()
        for ready in tail:
            yield ready

    async def _watched(self, request: Request) -> Any:
        watching = Watching(request)
        try:
            raw = await self._sdk.post(request.path, **request.posted())
        except BaseException as error:
            watching.note(None, error)
            raise
        if request.streamed:
            now = Now(inner=raw)
            events = self._watched_flow(request, now, watching)
            await anext(events)
            return stand_in(raw, AsyncStream)(events, now)
        watching.note(readable(request, raw))
        return raw if request.raw else request.parsed(raw)

    async def _watched_flow(self, request: Request, now: Now, watching: Watching) -> AsyncIterator[Any]:
        passing, raw = WatchedPassing(request, watching), now.inner
        try:
            yield OPENED
            async for event in raw:
                for ready in passing.take(event):
                    yield ready
        except BaseException as error:
            passing.note(now.ended_by(error))
            raise
        finally:
            await raw.close()
        passing.note(now.ended_by(None))
        for ready in passing.tail:
            yield ready


class _Resource:
    """A resource of the SDK over a routed client; its methods also take `routed_agents={…}`. It can be patched, as the SDK's own can."""

    def __init__(self, inner: Any, proxy: Proxy) -> None:
        self._inner = inner
        self._proxy = proxy

    def __getattr__(self, name: str) -> Any:
        if name in ("_inner", "_proxy"):
            raise AttributeError(name)
        found = getattr(self._inner, name)
        if name in RAW:
            return type(found)(self)
        if getattr(found, "_client", None) is self._proxy and hasattr(found, "_post"):
            self.__dict__[name] = found = _Resource(found, self._proxy)
            return found
        if name == "connect":
            return _connecting(found)
        return self._asking(name, found) if name in TAKES_ABOUT and callable(found) else found

    def __dir__(self) -> list[str]:
        return dir(self._inner)

    def __repr__(self) -> str:
        return f"routed {self._inner!r}"

    def _asking(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def about(said: object) -> Callable[..., Any]:
            return method if said is None else getattr(type(self._inner)(self._proxy.saying(said)), name)

        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def awaited(*args: Any, routed_agents: object = None, **kwargs: Any) -> Any:
                return await about(routed_agents)(*args, **kwargs)

            return awaited

        @functools.wraps(method)
        def asked(*args: Any, routed_agents: object = None, **kwargs: Any) -> Any:
            made = about(routed_agents)(*args, **kwargs)
            return telling(made) if name == "stream" else made

        if inspect.ismethod(method) and (within := getattr(method, "__wrapped__", None)) is not None:
            asked.__wrapped__ = MethodType(within, method.__self__)  # where tracers look for a coroutine function
        return asked


def results_of(desk: Desk, path: str, given: Mapping[str, Any]) -> BatchResults | None:
    raw = raw_mode(cast("Mapping[str, Any]", given.get("options") or {}))
    if desk.family != "anthropic" or raw is not None or "/messages/batches/" not in path:
        return None
    return BatchResults(desk.router, path, desk.batches, desk.provider) if path.partition("?")[0].endswith("/results") else None


def each_noted(results: BatchResults, found: Any, said: About) -> Iterator[Any]:
    try:
        for result in found:
            results.note(result, said)
            yield result
    finally:
        found.close()


async def each_noted_async(results: BatchResults, found: Any, said: About) -> AsyncIterator[Any]:
    try:
        async for result in found:
            results.note(result, said)
            yield result
    finally:
        await found.close()


def _connecting(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def connected(*args: Any, **kwargs: Any) -> Any:
        if is_auto(model := kwargs.get("model")):
            raise ConfigurationError(f'model="{model}" is not routed through connect: {NOT_ROUTED["connect"]}; name a model there')
        return connect(*args, **kwargs)

    return connected
