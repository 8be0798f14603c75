"""The model calls made of a single request: one, or what middlewares inside a routed one make of it, and what each of them used."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from routed_agents.integrations.capture import Capture
from routed_agents.integrations.observer import claiming
from routed_agents.integrations.telling import Telling, usage_unheard, words_of
from routed_agents.pricing import Usage, usage_of
from routed_agents.router import Attempt
from routed_agents.router.reading import failure_behind

ALONE: Final = ("_execute_model_sync", "_execute_model_async")
"""What `create_agent` calls the function that asks the model; a handler of another name is a middleware's."""


@dataclass(slots=True, eq=False)
class _Made:
    """A call of the model that an attempt was given."""

    started_ns: int
    telling: Telling
    came: Capture = field(default_factory=Capture)
    error: BaseException | None = None

    @property
    def message(self) -> BaseMessage | None:
        return self.came.message

    def used(self, prompt: int) -> Usage | None:
        """Its usage, as far as it came; None where its message tells as much, or nothing came.

        Args:
            prompt: the upper bound of the prompt's tokens.
        """
        if self.message is not None:
            return self.telling.usage(self.message)
        message = self.came.so_far()
        return self.telling.so_far(message, words_of(message) if message is not None else "", prompt)


_CALLING: Final[ContextVar[_Made | None]] = ContextVar("routed_agents_calling", default=None)
"""The call under way here: several may be made at once, and the events of a stream don't say which of them it is."""


class InnerCalls(BaseCallbackHandler):
    """Hears every call of the model that an attempt was given, and tells which of them is the attempt's own.

    Args:
        asked: the calls' parameters, those that count most first.
        prompt: the upper bound of their prompt's tokens.
    """

    run_inline = True

    def __init__(self, asked: Sequence[Mapping[str, Any]], prompt: int) -> None:
        self._asked = asked
        self._prompt = prompt
        self._open: dict[UUID, _Made] = {}
        self._made: list[_Made] = []

    def hear(self, event: Any) -> None:
        """Take an event of the stream of the call under way."""
        if (made := _CALLING.get()) is not None and made in self._made:
            made.telling.hear(event)

    @override
    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        made = self._open[run_id] = _Made(time.time_ns(), Telling(self._asked))
        self._made.append(made)
        _CALLING.set(made)

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if (made := self._open.get(run_id)) is not None:
            made.came.on_llm_new_token(token, **kwargs)

    @override
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if (made := self._open.get(run_id)) is not None:
            made.came.on_stream_event(event)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        if (made := self._open.pop(run_id, None)) is not None:
            made.came.on_llm_end(response, run_id=run_id)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if (made := self._open.pop(run_id, None)) is not None:
            made.error = error

    @contextmanager
    def hearing(self, attempt: Attempt) -> Generator[Callable[[BaseMessage | None], None]]:
        """Within, the request is made and its reply handed over; an observer's books don't show it again.

        What ends the calls of an attempt that is withdrawn goes no further.
        """
        found: list[BaseMessage | None] = []
        with claiming(lambda: found[0] if found else None):
            try:
                yield found.append
            except BaseException as error:
                if attempt.withdrawn:
                    self._book(attempt, own=None)
                    return
                if not self._made and failure_behind(error) is None:
                    attempt.unmade()
                own = self._made[-1] if self._made else None  # the last call's error is the attempt's
                self._book(attempt, own=own)
                if own is not None and (used := own.used(self._prompt) or usage_of(own.message)) is not None:
                    attempt.partial(used, reply=own.message)
                raise
        if attempt.withdrawn:
            self._book(attempt, own=None)
        else:
            self._answered(attempt, found[0])

    def used(self, reply: BaseMessage | None) -> Usage | None:
        """The usage of the call that led to a reply; None where the reply tells as much."""
        if (own := self._of(reply)) is None:
            return None
        return own.used(self._prompt) or usage_of(reply) or usage_of(own.message)

    def _answered(self, attempt: Attempt, reply: BaseMessage | None) -> None:
        """The reply of one of the calls, of a model nobody chose here, or of no model."""
        own = self._of(reply)
        self._book(attempt, own=own)
        if own is not None:
            attempt.record(reply, usage=self.used(reply))
        elif reply is not None and by_a_model(reply):
            attempt.record(reply, usage=usage_unheard(reply))
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
                attempt.also(reply=made.message, usage=made.used(self._prompt), started_ns=made.started_ns, error=made.error)


def alone(handler: object) -> bool:
    """Whether a handler asks the model once; a middleware might make another number of calls."""
    return getattr(handler, "__name__", "") in ALONE


def by_a_model(reply: BaseMessage) -> bool:
    """Whether a message is a model's: it says how much it took, or which model it is from."""
    told: Mapping[str, Any] = reply.response_metadata
    return usage_of(reply) is not None or any(told.get(name) for name in ("model_name", "model", "model_id"))
