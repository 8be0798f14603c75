"""A bad request is one the real API would refuse; it is raised with the error the caller would have got."""

from __future__ import annotations

from routed_agents.embedded.faults import Failure


class BadRequest(Exception):
    """Ends a request with an error reply; never leaves the server."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def invalid(message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> BadRequest:
    """A 400 with the message the real API would give."""
    kind = "request_too_large" if status == 413 else "invalid_request_error"
    failure = Failure(
        status=status, message=message, anthropic_type=kind, openai_type="invalid_request_error", openai_code=code, param=param
    )
    return BadRequest(failure)


def not_found(message: str, *, code: str | None = None) -> BadRequest:
    """A 404 for a model or a route that does not exist."""
    failure = Failure(status=404, message=message, anthropic_type="not_found_error", openai_type="invalid_request_error", openai_code=code)
    return BadRequest(failure)


def unauthenticated(message: str) -> BadRequest:
    """A 401 for a request without a key."""
    failure = Failure(
        status=401,
        message=message,
        anthropic_type="authentication_error",
        openai_type="invalid_request_error",
        openai_code="invalid_api_key",
    )
    return BadRequest(failure)
