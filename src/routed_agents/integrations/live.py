"""Readers who see a reply while it is made, though the call is no stream: a graph read with `stream_mode="messages"`, or its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.language_models import BaseChatModel
from typing_extensions import override

from routed_agents.router import Attempt

NOSTREAM: Final = "nostream"
"""LangGraph's tag of a model whose words stay out of `stream_mode="messages"`."""
Model = TypeVar("Model", bound=BaseChatModel)

# A rejected draft's words must not reach a reader, and words that have reached one cannot be taken back. So where somebody reads along, a
# reply counts as the step's once its first word is out, as in a stream; with `buffer` a reply that may still be rejected is told whole.


class Shown(BaseCallbackHandler):
    """Commits an attempt to its reply once a word of it is out."""

    run_inline = True

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if token:
            self._attempt.commit()

    @override
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        delta = cast("Mapping[str, Any]", event).get("delta") if isinstance(event, Mapping) else None
        if isinstance(delta, Mapping) and cast("Mapping[str, Any]", delta).get("text"):
            self._attempt.commit()


def read_along(callbacks: Callbacks, tags: Sequence[str] | None) -> bool:
    """Whether somebody hears the words of a call as they come."""
    return any(hasattr(handler, "tap_output_iter") for handler in handlers_of(callbacks)) and NOSTREAM not in (tags or ())


def kept_quiet(model: Model) -> Model:
    """The model, its words told only when it is done."""
    return model.model_copy(update={"tags": [*(model.tags or ()), NOSTREAM]})


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
