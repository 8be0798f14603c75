"""Readers who see a reply while it is made, though the call is no stream: a graph read with `stream_mode="messages"`, or its events."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from typing_extensions import override

from routed_agents.integrations.events import Event, shown_by
from routed_agents.router import Attempt

NOSTREAM: Final = "nostream"
"""LangGraph's tag of a model whose words stay out of `stream_mode="messages"`."""

# A rejected draft's words must not reach a reader, and words that have reached one cannot be taken back. So where somebody reads along, a
# reply counts as the step's once its first word or tool call is out, as in a stream; with `buffer` one that may still be rejected is told
# when it stands.


class Shown(BaseCallbackHandler):
    """Commits an attempt to its reply once a word of it, or of a tool call in it, is out."""

    run_inline = True

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **kwargs: Any) -> None:
        if token or getattr(getattr(chunk, "message", None), "tool_call_chunks", None):
            self._attempt.commit()

    @override
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if isinstance(event, Mapping) and shown_by(cast("Event", event)):
            self._attempt.commit()


class Withheld:
    """What readers would be told of an attempt, kept back until its reply stands.

    Args:
        attempt: the attempt they would hear of.
        hidden: there is something to keep back; all passes otherwise.
    """

    def __init__(self, attempt: Attempt, *, hidden: bool) -> None:
        self._attempt = attempt
        self.hidden = hidden
        self._kept: list[tuple[BaseCallbackHandler, str, tuple[Any, ...], dict[str, Any]]] = []

    def kept_from(self, callbacks: Callbacks) -> Callbacks:
        """The callbacks, with a stand-in for every reader."""
        if not self.hidden:
            return callbacks
        if not isinstance(callbacks, BaseCallbackManager):
            return self._stood_in(callbacks or ())
        copied = callbacks.copy()
        copied.handlers = self._stood_in(callbacks.handlers)
        copied.inheritable_handlers = self._stood_in(callbacks.inheritable_handlers)
        return copied

    @contextmanager
    def around(self) -> Generator[None]:
        """Within, readers of the node that runs are told nothing of the calls that inherit its callbacks."""
        if not self.hidden:
            yield
            return
        config = ensure_config()
        token = var_child_runnable_config.set({**config, "callbacks": self.kept_from(config.get("callbacks"))})
        try:
            yield
        finally:
            var_child_runnable_config.reset(token)

    def tell(self) -> None:
        """Tell the readers what was kept back so far, if the reply stands; nothing of any other."""
        for reader, event, given, named in self._due():
            handle_event([reader], event, None, *given, **named)

    async def atell(self) -> None:
        """`tell` for an event loop."""
        for reader, event, given, named in self._due():
            await ahandle_event([reader], event, None, *given, **named)

    def note(self, reader: BaseCallbackHandler, event: str, *given: Any, **named: Any) -> None:
        """Keep what a reader would be told."""
        self._kept.append((reader, event, given, named))

    def _due(self) -> list[tuple[BaseCallbackHandler, str, tuple[Any, ...], dict[str, Any]]]:
        kept, self._kept = self._kept, []
        return kept if self._attempt.accepted else []

    def _stood_in(self, handlers: Sequence[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
        return [cast("BaseCallbackHandler", _StandIn(each, self)) if _reads(each) else each for each in handlers]


class _StandIn:
    """Hears in a reader's place; it streams like one, so that the words come in pieces once they are told."""

    run_inline = True

    def __init__(self, reader: BaseCallbackHandler, withheld: Withheld) -> None:
        self._reader = reader
        self._withheld = withheld

    def __getattr__(self, name: str) -> Any:
        return partial(self._withheld.note, self._reader, name) if name.startswith("on_") else getattr(self._reader, name)

    def tap_output_iter(self, run_id: UUID, output: Any) -> Any:
        return output

    def tap_output_aiter(self, run_id: UUID, output: Any) -> Any:
        return output


def read_along(callbacks: Callbacks, tags: Sequence[str] | None) -> bool:
    """Whether somebody hears the words of a call as they come."""
    return any(_reads(handler) for handler in handlers_of(callbacks)) and NOSTREAM not in (tags or ())


def streams_within(model: Any, callbacks: Callbacks, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call that is no stream is made as one: somebody hears its words as they come, or it was asked for so."""
    if kwargs.get("stream") or getattr(model, "streaming", False):
        return True
    return any(_reads(handler) for heard in (callbacks, getattr(model, "callbacks", None)) if heard for handler in handlers_of(heard))


def _reads(handler: BaseCallbackHandler) -> bool:
    return hasattr(handler, "tap_output_iter")


def handlers_of(callbacks: Callbacks) -> Sequence[BaseCallbackHandler]:
    """Who hears a call with these callbacks."""
    return callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or ()


def with_handler(callbacks: Callbacks, handler: BaseCallbackHandler) -> Callbacks:
    """The callbacks with a handler before them, so that it is told even where one of them raises."""
    if callbacks is None:
        return [handler]
    if isinstance(callbacks, BaseCallbackManager):
        copied = callbacks.copy()
        copied.handlers.insert(0, handler)
        copied.inheritable_handlers.insert(0, handler)
        return copied
    return [handler, *callbacks]
