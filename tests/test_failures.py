"""Failures: provider trouble is told from bugs, refusals and cancelled calls."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import anthropic
import httpx
import langchain_openai
import openai
import pytest
import redis
import requests
from langchain_core import exceptions as langchain
from openai.types.responses import ResponseError

from routed_agents.failures import Failure, failure_of, failure_told, refused, unbilled

REQUEST = httpx.Request("POST", "https://example.invalid/v1")
STATUSES = {
    400: None,
    401: "denied",
    403: "denied",
    404: "model_not_found",
    408: "timeout",
    409: None,
    413: "context_overflow",
    422: None,
    429: "rate_limit",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "timeout",
    529: "overloaded",
}


def sdk_error(sdk: Any, status: int, message: str = "no", **headers: str) -> Exception:
    """The SDK's own exception for a status, as its client makes it."""
    client = {anthropic: anthropic.Anthropic, openai: openai.OpenAI}[sdk](api_key="k")
    response = httpx.Response(status, request=REQUEST, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with client:
        return client._make_status_error(message, body=None, response=response)


@pytest.mark.parametrize("sdk", [anthropic, openai], ids=["anthropic", "openai"])
@pytest.mark.parametrize(("status", "trouble"), STATUSES.items())
def test_each_status_of_the_sdks(sdk: Any, status: int, trouble: str | None) -> None:
    failure = failure_of(sdk_error(sdk, status))

    assert (failure.trouble if failure else None) == trouble


def hiding(error: Exception, cause: BaseException) -> Exception:
    """An error as it is when it was raised in place of another."""
    error.__context__ = cause
    return error


OWN = [
    BrokenPipeError("the browser went away"),
    ConnectionResetError("the browser went away"),
    TimeoutError("my own deadline"),
    hiding(TimeoutError(), asyncio.CancelledError()),
    hiding(redis.ConnectionError("my own Redis"), ConnectionRefusedError()),
    redis.TimeoutError("my own Redis"),
]


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (anthropic.APITimeoutError(request=REQUEST), "timeout"),
        (openai.APITimeoutError(request=REQUEST), "timeout"),
        (anthropic.APIConnectionError(request=REQUEST), "connection"),
        (openai.APIConnectionError(request=REQUEST), "connection"),
        (httpx.ReadTimeout("late"), "timeout"),
        (httpx.ConnectError("refused"), "connection"),
        (hiding(ConnectionError("is it running?"), httpx.ConnectError("refused")), "connection"),
        (langchain_openai.StreamChunkTimeoutError(120.0), "timeout"),
        (requests.ConnectionError("reset"), "connection"),
        (langchain.ModelRateLimitError("x"), "rate_limit"),
        (langchain.ModelTimeoutError("x"), "timeout"),
        (langchain.ModelConnectionError("x"), "connection"),
        (langchain.ModelAPIError("x"), "server_error"),
        (langchain.ModelAuthenticationError("x"), "denied"),
        (langchain.ModelPermissionDeniedError("x"), "denied"),
        (langchain.ModelNotFoundError("x"), "model_not_found"),
        (langchain.ContextOverflowError("x"), "context_overflow"),
    ],
    ids=lambda value: type(value).__module__.split(".")[0] + "." + type(value).__name__ if isinstance(value, Exception) else value,
)
def test_each_typed_error(error: Exception, trouble: str) -> None:
    failure = failure_of(error)

    assert failure is not None
    assert failure.trouble == trouble


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bug"),
        KeyError("k"),
        *OWN,
        langchain.OutputParserException("no JSON"),
        langchain.ModelInvalidRequestError("bad request"),
        RuntimeError("prompt is too long, says my own code"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_provider_trouble_is_left_alone(error: BaseException) -> None:
    assert failure_of(error) is None


@pytest.mark.parametrize(
    "message", ["prompt is too long: 213000 tokens", "maximum context length is 128000 tokens", "context_length_exceeded"]
)
@pytest.mark.parametrize("sdk", [anthropic, openai], ids=["anthropic", "openai"])
def test_a_prompt_that_is_too_long_is_told_from_other_bad_requests(sdk: Any, message: str) -> None:
    failure = failure_of(sdk_error(sdk, 400, message))

    assert failure is not None
    assert failure.trouble == "context_overflow"


DATES = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2026", "Wed, 21 Oct 99999999999 07:28:00 GMT")
ODD_PAUSES = [({"retry_after": text}, None) for text in ("nan", "inf", "1e400", "-5", *DATES)]


PAUSES = [
    ({"retry_after": "7"}, 7.0),
    ({"retry_after_ms": "7500"}, 7.5),
    ({"retry_after_ms": "7500", "retry_after": "60"}, 7.5),
    ({"retry_after_ms": "soon", "retry_after": "60"}, 60.0),
    ({"retry_after": "soon"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("header", "seconds"), [*PAUSES, *ODD_PAUSES])
def test_how_long_the_provider_asks_to_wait(header: dict[str, str], seconds: float | None) -> None:
    failure = failure_of(sdk_error(anthropic, 429, **header))

    assert failure is not None
    assert failure.retry_after_s == seconds


def test_the_provider_may_ask_to_wait_until_a_date() -> None:
    failure = failure_of(sdk_error(anthropic, 429, retry_after=formatdate(time.time() + 60, usegmt=True)))

    assert failure is not None
    assert failure.retry_after_s == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("error", "unbilled"),
    [
        (sdk_error(anthropic, 529), True),
        (sdk_error(openai, 429), True),
        (sdk_error(openai, 504), False),
        (anthropic.APITimeoutError(request=REQUEST), False),
        (hiding(anthropic.APIConnectionError(request=REQUEST), httpx.ConnectError("refused")), True),
        *[(error, False) for error in OWN],
    ],
    ids=["overloaded", "rate limit", "gateway timeout", "no answer", "never reached", *map(repr, OWN)],
)
def test_only_a_refused_call_is_known_to_cost_nothing(error: Exception, unbilled: bool) -> None:
    assert refused(error) is unbilled


@pytest.mark.parametrize("sdk", [anthropic, openai], ids=["anthropic", "openai"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_request_that_is_turned_down_costs_nothing_whatever_its_model_costs(sdk: Any, status: int) -> None:
    assert unbilled(sdk_error(sdk, status)) == (status in (400, 401, 403, 404, 413, 422))


def test_a_prompt_that_azures_filter_has_read_may_cost_something() -> None:
    error: Any = sdk_error(openai, 400)
    error.code = "content_filter"
    assert (refused(error), unbilled(error)) == (False, False)


@pytest.mark.parametrize(
    ("code", "trouble"),
    [("server_error", "server_error"), ("rate_limit_exceeded", "rate_limit"), (None, "server_error"), ("invalid_prompt", None)],
)
def test_a_response_that_failed_tells_of_trouble_unless_the_request_is_at_fault(code: str | None, trouble: Any) -> None:
    reply = {"object": "response", "status": "failed", "error": {"code": code, "message": "no"}}
    assert failure_told(reply) == (Failure(trouble=trouble) if trouble is not None else None)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("code", "trouble"), [("server_error", "server_error"), ("rate_limit_exceeded", "rate_limit"), ("invalid_prompt", None)]
)
def test_langchains_error_for_a_response_that_failed_tells_the_same(code: Any, trouble: Any, streamed: bool) -> None:
    told = ResponseError(code=code, message="no")
    assert failure_of(ValueError(str(told) if streamed else told)) == (Failure(trouble=trouble) if trouble is not None else None)


@pytest.mark.parametrize(
    ("code", "trouble"), [(429, "rate_limit"), (502, "server_error"), (503, "server_error"), (400, None), ("server_error", "server_error")]
)
def test_a_gateways_error_under_http_200_is_known_by_its_code(code: object, trouble: Any) -> None:
    failure = failure_of(ValueError({"code": code, "message": "upstream"}))
    assert (failure and failure.trouble) == trouble


@pytest.mark.parametrize("reply", [None, "no", {"object": "response", "status": "completed"}, {"status": "failed"}])
def test_an_answer_tells_of_no_trouble(reply: object) -> None:
    assert failure_told(reply) is None
