"""Failures tell provider trouble, which another deployment may not have, from everything else."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Final, Literal

from routed_agents.steps import field_of

Trouble = Literal["rate_limit", "overloaded", "server_error", "timeout", "connection", "context_overflow", "model_not_found", "denied"]

BY_STATUS: Final[dict[int, Trouble]] = {
    401: "denied",
    402: "denied",
    403: "denied",
    404: "model_not_found",
    408: "timeout",
    413: "context_overflow",
    429: "rate_limit",
    504: "timeout",
    529: "overloaded",
}
BY_NAME: Final[dict[str, Trouble]] = {
    "APITimeoutError": "timeout",
    "ModelTimeoutError": "timeout",
    "StreamChunkTimeoutError": "timeout",
    "JudgeTimeoutError": "timeout",
    "ReadTimeout": "timeout",
    "ConnectTimeout": "timeout",
    "APIConnectionError": "connection",
    "ModelConnectionError": "connection",
    "ConnectError": "connection",
    "RemoteProtocolError": "connection",
    "RemoteDisconnected": "connection",
    "ReadError": "connection",
    "ModelRateLimitError": "rate_limit",
    "ModelAPIError": "server_error",
    "ModelAuthenticationError": "denied",
    "ModelPermissionDeniedError": "denied",
    "ModelNotFoundError": "model_not_found",
    "ContextOverflowError": "context_overflow",
}
BY_COMMON_NAME: Final[dict[str, Trouble]] = {"TimeoutError": "timeout", "ConnectionError": "connection"}
"""Names that a user's own errors have too: a browser that hangs up, a deadline, a Redis that is gone."""
HTTP_CLIENTS: Final = frozenset({"aiohttp", "botocore", "requests", "urllib3"})
"""Packages whose errors of a common name are about the provider."""
BY_TYPE: Final[dict[str, Trouble]] = {
    "overloaded_error": "overloaded",
    "overloaded": "overloaded",
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "api_error": "server_error",
    "server_error": "server_error",
    "timeout_error": "timeout",
}
"""What providers call their troubles in error events."""
FILTERED: Final = "content_filter"
"""Azure's code under status 400 for a prompt that its filter read and turned down, which it charges for."""
MAY_BE_BILLED: Final = frozenset({408, 409, 429})
"""Statuses of requests that a provider may have begun to work on."""
UNCONNECTED: Final = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror"})
RESPONSE_ERROR: Final = re.compile(r"ResponseError\(code='(\w+)'")
"""How the openai SDK writes the error of a failed response."""
TOO_LONG: Final = ("prompt is too long", "maximum context length", "context_length_exceeded", "context window")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What kind of provider trouble an exception is.

    Attributes:
        trouble: the kind.
        status: the HTTP status, when there was one.
        retry_after_s: how long the provider asks to wait.
    """

    trouble: Trouble
    status: int | None = None
    retry_after_s: float | None = None


def refused(error: BaseException) -> bool:
    """Whether no token can have been billed: the provider answered with an error, or was never reached. A time-out may have cost some."""
    status = field_of(error, "status_code")
    if isinstance(status, int):
        return status >= 400 and BY_STATUS.get(status) != "timeout" and field_of(error, "code") != FILTERED
    behind = [error, *_behind(error)]
    return any(type(each).__name__ in UNCONNECTED for each in behind) and any(_typed(each) is not None for each in behind)


def unbilled(error: BaseException) -> bool:
    """Whether a refused call costs nothing whatever its model costs: the request itself was turned down, before a token was read."""
    status = field_of(error, "status_code")
    return refused(error) and isinstance(status, int) and status < 500 and status not in MAY_BE_BILLED


def failure_of(error: BaseException) -> Failure | None:
    """The provider trouble behind an exception of LangChain or an SDK; None for a bug, a cancelled call or a user's own error."""
    if not isinstance(error, Exception):
        return None
    if type(error).__name__ == "OutputParserException":
        return None
    status = field_of(error, "status_code")
    code = status if isinstance(status, int) else None
    trouble: Trouble | None = BY_STATUS.get(code) if code is not None else None
    if code is not None and code >= 500 and trouble is None:
        trouble = "server_error"
    if trouble is None:
        trouble = _named(error)
    if trouble is None and (code is None or code < 400):
        trouble = _midstream(error)
    if (code == 400 or code is None) and any(phrase in str(error).lower() for phrase in TOO_LONG):
        trouble = trouble or _overflow(code)
    if trouble is None:
        return None
    return Failure(trouble=trouble, status=code, retry_after_s=_retry_after(error))


def _named(error: BaseException) -> Trouble | None:
    """The trouble an error's type tells of; Python's own connection and time-out errors tell of it where a client's is behind them."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return next((found for each in (error, *_behind(error)) if (found := _typed(each)) is not None), None)
    return _typed(error)


def _typed(error: BaseException) -> Trouble | None:
    """The trouble that the type of an error of a provider's client stands for."""
    known = BY_NAME | BY_COMMON_NAME if type(error).__module__.partition(".")[0] in HTTP_CLIENTS else BY_NAME
    return next((known[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in known), None)


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The errors that led to this one, latest first."""
    seen = {id(error)}
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def failure_told(reply: object) -> Failure | None:
    """The provider trouble a reply tells of in place of an answer, as OpenAI's Responses API does under HTTP 200; None for an answer."""
    if field_of(reply, "object") != "response" or field_of(reply, "status") != "failed":
        return None
    code = field_of(field_of(reply, "error"), "code")
    trouble = BY_TYPE.get(code) if isinstance(code, str) else "server_error"
    return Failure(trouble=trouble) if trouble is not None else None


def _midstream(error: Exception) -> Trouble | None:
    """The trouble an error event in the middle of a stream tells of: its connection began well, so it has no status of its own."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "APIError" in names or "APIStatusError" in names:
        body = field_of(error, "body")
        said = field_of(field_of(body, "error") or body, "type") or field_of(error, "type") or field_of(error, "code")
        return BY_TYPE.get(said, "server_error") if isinstance(said, str) else "server_error"
    return _coded(error) if type(error) is ValueError else None


def _coded(error: ValueError) -> Trouble | None:
    """The trouble in a bare ValueError of langchain-openai.

    It is raised with the error of a failed response or of a gateway's completion, with that error as text where it was streamed, and with
    "code: message" for an error event.
    """
    told: object = error.args[0] if error.args else None
    code = field_of(told, "code")
    if isinstance(code, int):
        return BY_STATUS.get(code) or ("server_error" if code >= 500 else None)
    if not isinstance(code, str):
        written = RESPONSE_ERROR.match(str(told))
        code = written[1] if written is not None else str(told).partition(":")[0].strip()
    return BY_TYPE.get(code)


def _overflow(status: int | None) -> Trouble | None:
    return "context_overflow" if status == 400 else None


def _retry_after(error: Exception) -> float | None:
    """How long the provider asks to wait, in the forms that the SDKs read, by the same precedence: milliseconds, seconds, a date."""
    get = getattr(field_of(field_of(error, "response"), "headers"), "get", None)
    if get is None:
        return None
    milliseconds, text = _number(get("retry-after-ms")), get("retry-after")
    asked = milliseconds / 1000 if milliseconds is not None else _number(text)
    if asked is None:
        asked = _seconds_until(text)
    return asked if asked is not None and 0 <= asked < math.inf else None


def _number(text: object) -> float | None:
    try:
        return float(text) if isinstance(text, (str, int, float)) else None
    except (ValueError, OverflowError):
        return None


def _seconds_until(text: object) -> float | None:
    """The seconds from now to an HTTP date."""
    try:
        date = parsedate_tz(text) if isinstance(text, str) else None
        return mktime_tz(date) - time.time() if date is not None else None
    except (ValueError, OverflowError):
        return None
