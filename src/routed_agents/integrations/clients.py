"""The bare `anthropic` and `openai` clients, with `model="auto"` sent to the cheapest tier that may do the step.

    client = routed_anthropic(anthropic.Anthropic(), router)
    reply = client.messages.create(model="auto", max_tokens=1024, messages=[…])
    decision_of(reply)["tier"]

The client that comes back is the one that was given, seen through a proxy: its methods, arguments, types and errors are the SDK's own, and
nothing in the SDK is patched. The SDK's resources run over the proxy, which steps in at one place, where a finished request is posted.
`isinstance(client, anthropic.Anthropic)` holds; the resources (`client.messages`) are proxies too, and for them it doesn't.

- **Routed** with `model="auto"`: `messages.create` (streamed or not), `.stream`, `.parse`; `chat.completions.create`, `.stream`, `.parse`;
  `responses.create`, `.stream`, `.parse`; sync and async. `"auto:support"` takes the policy named `support` in `named={…}`.
- **Counted** with `model="auto"`: `messages.count_tokens`, by the strong tier's tokenizer, which counts no less than the cheap one's.
- **Watched**: the same calls with a model's own name, `beta.messages`, `completions`, and the results of a message batch as they are read.
  Their model is the caller's choice; they are priced and written down. `with_streaming_response` hides its usage: unpriced.
- **Refused** with `model="auto"`, in one line, before anything is sent (`NOT_ROUTED` says why): `beta.messages`, `messages.batches`,
  `with_raw_response`, `with_streaming_response`, a `model` in `extra_body`, legacy `functions`, audio replies, `previous_response_id`,
  `conversation`, stored prompts, background responses, legacy completions, realtime and live connections, and every other endpoint.
- **Unseen** (`UNSEEN` says why): neither routed nor watched.

Copies made by `with_options`, `copy` and `with_middleware` stay routed. What isn't for the provider (thread, labels, task class, node; see
`About`) goes into the keyword `routed_agents={…}` of `create`, `stream`, `parse` and `count_tokens`, or, typed and once for many calls,
into `about(client, thread=…)`. In a node of a graph, node, thread, floors, labels, pins and facts are the run's where the caller says
nothing else. Bare messages carry no decision back, so pins outlive a step by the thread, and without one through a tool
loop, by the ids of its tool calls.

Parameters are fitted to the tier that gets a call, and so is the history: thinking and reasoning items another model signed are left out
of what is sent, as far as this process knows who signed them. A tier that lacks what the request asks for (schemas, pictures) is passed
over, upward. The prompt of a routed tool loop is marked for Anthropic's cache unless the caller set marks (`prompt_cache`); on Bedrock and
Vertex the mark stands on its last block.

Every attempt is written down, whatever became of it. The SDK's own retries (`max_retries`) happen within one: the try that ended it is
booked, the tries before it are not. Those that were refused (429, 5xx) cost nothing; one that timed out or lost its connection may have
been billed, and stands in no book. With `max_retries=0` every try is an attempt: such a one is booked, its prompt estimated, and the next
goes to another deployment of the rank, or upward.

Copies share the health of their router, also those with a key of their own (`with_options(api_key=…)`): a rate limit of one key sends the
steps of all elsewhere. Keys that are to be told apart get a router each, over the same books: `router.replace(health=Health())`.

A reply carries its decision as `routed_agents`, plain JSON beside the provider's fields; `decision_of` reads it from a reply,
from a stream that has been read, and from the final reply that a stream's helper puts together (`get_final_message` and its like). It is
never sent back, and a forged one in a history lowers nothing.

The anthropic SDK makes a span of its own for a call, with the same tokens, which backends would price a second time: for calls that leave a
leaf span here it is left out, request by request, and ours is counted. `sdk_span=True` keeps it; through the global tracer provider it is
the one counted then, and ours tells the decision only.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, cast

from routed_agents.errors import ConfigurationError
from routed_agents.integrations.sdk_proxies import AsyncProxy, Desk, Proxy, SyncProxy
from routed_agents.integrations.sdk_requests import About
from routed_agents.integrations.sdk_surface import NOT_ROUTED, UNSEEN, Family
from routed_agents.policy import Policy
from routed_agents.pricing import seller_of
from routed_agents.router import Router
from routed_agents.tiers import Deployment, Tiers

__all__ = ["NOT_ROUTED", "UNSEEN", "About", "about", "routed_anthropic", "routed_openai"]

Client = TypeVar("Client")
Given = Router | Policy | str | Path | None


PRESETS: Final[Mapping[Family, str]] = MappingProxyType({"anthropic": "claude", "openai": "gpt"})


OTHER_HOSTS: Final = (
    ("Bedrock", ("bedrock", "bedrock_converse", "anthropic_bedrock")),
    ("AWS", ("bedrock", "bedrock_converse", "anthropic_bedrock")),
    ("Vertex", ("google_vertexai", "google_anthropic_vertex")),
    ("GoogleCloud", ("google_vertexai", "google_anthropic_vertex")),
    ("Foundry", ("azure_ai",)),
    ("Azure", ("azure_openai", "azure_ai")),
)
"""Client classes by a part of their name, and the providers they talk to besides their family's own."""


BLOCKS_ONLY: Final = frozenset({"bedrock", "bedrock_converse", "anthropic_bedrock", "google_vertexai", "google_anthropic_vertex"})
"""Providers that take marks for Anthropic's prompt cache on blocks alone."""


def routed_anthropic(
    client: Client,
    router: Given = None,
    *,
    named: Mapping[str, Given] | None = None,
    provider: str | Sequence[str] | None = None,
    buffer: bool = False,
    sdk_span: bool = False,
    prompt_cache: Literal["5m", "1h"] | None = "5m",
) -> Client:
    """An `anthropic.Anthropic` or `AsyncAnthropic` client that routes `model="auto"` and watches every other model.

    Args:
        client: the SDK's client; it stays as it is.
        router: a router, a policy or the path of a policy file; today's Claude pair when not given.
        named: further routers or policies, for `model="auto:name"`; policies share the router's ledger and telemetry.
        provider: who answers behind the client's address, where its class doesn't tell: tiers of these providers can be called.
        buffer: hold a stream back until its end, so that a rejected reply is never seen and can be escalated.
        prompt_cache: ask for the prompt of a routed tool loop to be kept this long, unless the caller set marks; None never does.
        sdk_span: keep the SDK's own OpenTelemetry span, which counts the call in place of ours; where the client has a tracer provider
            of its own both count it.

    Raises:
        ConfigurationError: this is no such client, or it cannot call one of the tiers.
        PolicyError: a policy file cannot be used.
    """
    return _routed("anthropic", client, router, named, provider, buffer=buffer, sdk_span=sdk_span, prompt_cache=prompt_cache)


def routed_openai(
    client: Client,
    router: Given = None,
    *,
    named: Mapping[str, Given] | None = None,
    provider: str | Sequence[str] | None = None,
    buffer: bool = False,
    ask_usage: bool = True,
) -> Client:
    """An `openai.OpenAI` or `AsyncOpenAI` client that routes `model="auto"` and watches every other model.

    Args:
        client: the SDK's client; it stays as it is.
        router: a router, a policy or the path of a policy file; today's GPT pair when not given.
        named: further routers or policies, for `model="auto:name"`; policies share the router's ledger and telemetry.
        provider: who answers behind the client's address, where its class doesn't tell: tiers of these providers can be called.
        buffer: hold a stream back until its end, so that a rejected reply is never seen and can be escalated.
        ask_usage: ask chat streams for their usage where the caller did not, and keep the extra chunk from the caller; False for
            gateways that refuse `stream_options`, whose streamed usage is then estimated.

    Raises:
        ConfigurationError: this is no such client, or it cannot call one of the tiers.
        PolicyError: a policy file cannot be used.
    """
    return _routed("openai", client, router, named, provider, buffer=buffer, ask_usage=ask_usage)


def about(client: Client, **said: Any) -> Client:
    """The same routed client, for calls of one thread, task class, node …: `about(client, thread="t1", labels={"tenant": "acme"})`.

    Args:
        client: a routed client.
        said: what is true of its calls, by the names of `About`; labels and metadata add to what was said before.

    Raises:
        ConfigurationError: the client isn't a routed one, or a name is unknown.
    """
    if not issubclass(type(client), Proxy):
        raise ConfigurationError(f"about was given {type(client).__name__}; wanted a client made by routed_anthropic or routed_openai")
    return cast("Client", cast("Proxy", client).saying(said))


def _routed(
    family: Family,
    client: Client,
    given: Given,
    named: Mapping[str, Given] | None,
    provider: str | Sequence[str] | None,
    **options: Any,
) -> Client:
    sdk: Any = object.__getattribute__(client, "_sdk") if issubclass(type(client), Proxy) else client
    if not any(kind.__module__.partition(".")[0] == family for kind in type(sdk).__mro__) or not hasattr(sdk, "post"):
        raise ConfigurationError(f"routed_{family} was given {type(sdk).__name__}; wanted a client of the {family} SDK")
    hosts = _hosts(sdk, provider)
    own = () if provider is not None else (family,)
    providers = frozenset({None, *own, *hosts})  # a deployment that names none is taken at its word
    main = Router.of(given) if given is not None else Router.from_env(policy=lambda: Policy.default(tiers=PRESETS[family]))
    others = {
        name: each if isinstance(each, Router) else main.replace(policy=each if isinstance(each, Policy) else Router.of(each).policy)
        for name, each in (named or {}).items()
    }
    desk = Desk(
        family=family,
        router=_reachable(main, family, providers),
        named={name: _reachable(each, family, providers) for name, each in others.items()},
        provider=hosts[0] if len({seller_of(each) for each in hosts}) == 1 else None,
        marks_blocks=not BLOCKS_ONLY.isdisjoint(providers),
        **options,
    )
    kind = AsyncProxy if inspect.iscoroutinefunction(cast("Any", type(sdk)).post) else SyncProxy
    return cast("Client", kind(sdk, desk, About()))


def _hosts(sdk: object, named: str | Sequence[str] | None) -> tuple[str, ...]:
    """The providers a client talks to, as the caller or its class names them; none where it is its family's own."""
    if named is not None:
        return (named,) if isinstance(named, str) else tuple(named)
    kind = type(sdk).__name__
    return next((names for part, names in OTHER_HOSTS if part in kind), ())


def _reachable(router: Router, family: Family, providers: frozenset[str | None]) -> Router:
    """The router with those deployments only that a client can call.

    Raises:
        ConfigurationError: a tier has none.
    """
    tiers = router.policy.tiers
    roles: dict[str, tuple[Deployment, ...]] = {
        tier.name: tuple([each for each in tier.deployments if each.provider in providers]) for tier in tiers
    }
    if foreign := [tier for tier in tiers if not roles[tier.name]]:
        which = ", ".join(f"{tier.name} ({tier.model} of {tier.deployments[0].provider})" for tier in foreign)
        here = " or ".join(sorted(each for each in providers if each is not None))
        raise ConfigurationError(
            f"routed_{family} cannot call tier {which}: this client talks to {here}; give a policy whose tiers are all there, "
            f'like Policy.default(tiers="{PRESETS[family]}"), or say who answers with provider='
        )
    if all(len(roles[tier.name]) == len(tier.deployments) for tier in tiers):
        return router
    return router.replace(policy=router.policy.replace(tiers=Tiers.of(roles, preset=tiers.preset)))
