"""The model calls that middlewares inside a routed one make of a single request: retries, repeats, fallbacks, or none at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from routed_agents.integrations.observer import claiming, message_of
from routed_agents.pricing import usage_of
from routed_agents.router import Attempt

ALONE: Final = ("_execute_model_sync", "_execute_model_async")
"""What `create_agent` calls the function that asks the model; a handler of another name is a middleware's."""


@dataclass(slots=True)
class _Made:
    """A call of the model that an attempt was given."""

    started_ns: int
    message: BaseMessage | None = None
    error: BaseException | None = None


class InnerCalls(BaseCallbackHandler):
    """Hears every call of the model that an attempt was given, and tells which of them is the attempt's own."""

    run_inline = True

    def __init__(self) -> None:
        self._open: dict[UUID, _Made] = {}
        self._made: list[_Made] = []

    @override
    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        made = self._open[run_id] = _Made(time.time_ns())
        self._made.append(made)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        if (made := self._open.pop(run_id, None)) is not None:
            made.message = message_of(response)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if (made := self._open.pop(run_id, None)) is not None:
            made.error = error

    @contextmanager
    def hearing(self, attempt: Attempt) -> Generator[Callable[[BaseMessage | None], None]]:
        """Within, the request is made and its reply handed over; an observer's books don't show it again."""
        found: list[BaseMessage | None] = []
        with claiming(lambda: found[0] if found else None):
            try:
                yield found.append
            except BaseException:
                self._book(attempt, own=self._made[-1] if self._made else None)  # the last call's error is the attempt's
                raise
        self._answered(attempt, found[0])

    def _answered(self, attempt: Attempt, reply: BaseMessage | None) -> None:
        """The reply of one of the calls, of a model nobody chose here, or of no model."""
        own = self._of(reply)
        self._book(attempt, own=own)
        if own is not None:
            attempt.record(reply, usage=usage_of(reply) or usage_of(own.message))
        elif reply is not None and by_a_model(reply):
            attempt.record(reply)
        else:
            attempt.unmade()

    def _of(self, reply: BaseMessage | None) -> _Made | None:
        """The call that led to the reply; the last good one where a middleware has put it in other words under another id."""
        if reply is None:
            return None
        good = [(made, made.message) for made in self._made if made.message is not None]
        same = [made for made, message in good if message is reply or (reply.id and message.id == reply.id)]
        if same:
            return same[-1]
        return good[-1][0] if good and not by_a_model(reply) else None

    def _book(self, attempt: Attempt, own: _Made | None) -> None:
        for made in self._made:
            if made is not own:
                attempt.also(reply=made.message, started_ns=made.started_ns, error=made.error)


def inner_calls_of(handler: object) -> InnerCalls | None:
    """What hears the calls, where there is a middleware that might make another number of them than one."""
    return None if getattr(handler, "__name__", "") in ALONE else InnerCalls()


def by_a_model(reply: BaseMessage) -> bool:
    """Whether a message is a model's: it says how much it took, or which model it is from."""
    told: Mapping[str, Any] = reply.response_metadata
    return usage_of(reply) is not None or any(told.get(name) for name in ("model_name", "model", "model_id"))
