"""Tells which requests of the SDKs are steps, and where `model="auto"` is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from routed_agents.integrations.sdk_requests import Api, other_model
from routed_agents.steps import field_of

Family = Literal["anthropic", "openai"]


AUTO: Final = "auto"


NOT_ROUTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "beta.messages": "beta features are not known to work on every tier",
        "messages.batches": "a batch is answered later, so its replies cannot be judged or escalated",
        "with_raw_response": "an HTTP response is handed out before its reply can be judged",
        "with_streaming_response": "an HTTP response is handed out before its reply can be judged",
        "extra_body.model": "it would replace the model that was decided",
        "functions": "legacy function calls cannot be judged; give tools",
        "modalities": "a spoken reply cannot be judged",
        "previous_response_id": "the history lies with the provider, so the step cannot be read; send the whole input",
        "conversation": "the history lies with the provider, so the step cannot be read; send the whole input",
        "prompt": "a stored prompt lies with the provider, so the step cannot be read; send instructions and input",
        "background": "a background response is answered later, so it cannot be judged or escalated",
        "completions": "legacy completions have no messages to read a step from",
        "connect": "a connection has one model for many steps",
        "this endpoint": "it is not a step of a workflow",
    }
)
"""Where `model="auto"` is refused, and why."""


UNSEEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "responses.connect, realtime.connect, live.connect": "what is said over a WebSocket doesn't pass here",
        "batches (openai)": "requests and results are files",
        "client.request": "a finished request goes out as it is; make it with a method of the client, or with client.post",
        "responses.retrieve": "fetches a reply that was paid for before",
        "embeddings, images, audio, videos, moderations, …": "no steps of a workflow",
    }
)
"""What is neither routed nor watched, and why."""


WATCHED: Final[Mapping[Family, Mapping[str, Api]]] = MappingProxyType(
    {
        "anthropic": MappingProxyType({"/v1/messages": "messages"}),
        "openai": MappingProxyType({"/chat/completions": "chat", "/responses": "responses", "/completions": "completions"}),
    }
)
"""The endpoints whose calls are steps, and the format each speaks."""


UNROUTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/v1/messages/batches": "messages.batches",
        "/completions": "completions",
    }
)


COUNTING: Final = "/v1/messages/count_tokens"


RAW_HEADER: Final = "x-stainless-raw-response"


def is_auto(model: object) -> bool:
    return isinstance(model, str) and (model == AUTO or model.startswith(f"{AUTO}:"))


def asked_in(body: Mapping[str, Any]) -> str | None:
    """The `auto` a request asks for, wherever it stands in it."""
    requests = body.get("requests")
    params = [field_of(each, "params") for each in cast("list[object]", requests)] if isinstance(requests, list) else []
    places = (body, body.get("session"), *params)
    return next((cast("str", model) for place in places if place is not None and is_auto(model := field_of(place, "model"))), None)


def is_beta(cast_to: object) -> bool:
    """Whether a request is made through the `beta` resources of an SDK, as the type of its reply tells."""
    return ".beta" in str(getattr(cast_to, "__module__", ""))


def refusal_in(path: str, body: Mapping[str, Any], options: Mapping[str, Any], *, api: Api | None, beta: bool) -> str | None:
    """Where a request asks for routing in vain, by its name in `NOT_ROUTED`."""
    if path in UNROUTED:
        return UNROUTED[path]
    if beta:
        return "beta.messages" if path in (*WATCHED["anthropic"], COUNTING) else "this endpoint"
    if other_model(options) is not None:
        return "extra_body.model"
    if api is None:
        return "this endpoint"
    if raw := raw_mode(options):
        return "with_streaming_response" if raw == "stream" else "with_raw_response"
    if "audio" in (body.get("modalities") or ()):
        return "modalities"
    names = (
        ("functions",) if api == "chat" else ("previous_response_id", "conversation", "prompt", "background") if api == "responses" else ()
    )
    return next((name for name in names if body.get(name)), None)


def raw_mode(options: Mapping[str, Any]) -> str | None:
    """How the caller wants the HTTP response, if at all: "raw", "true" or "stream"."""
    headers = options.get("headers")
    if not isinstance(headers, Mapping):
        return None
    given = cast("Mapping[str, object]", headers)
    return next((str(value) for name, value in given.items() if name.lower() == RAW_HEADER), None)
