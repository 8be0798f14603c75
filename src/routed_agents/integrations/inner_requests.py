"""What middlewares inside a routed call make of its request, looked at when the model is about to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from threading import Lock
from typing import Any, Final, cast

from langchain.agents.middleware.types import ModelRequest
from langchain_core.messages import BaseMessage
from typing_extensions import override

CONVERT: Final = "_convert_input"
"""Where a chat model of langchain-core (1.7.2) makes messages of what it was given, before anybody is told of the call."""
FORMS: Final = "_routed_forms"

Messages = Sequence[BaseMessage]


class Outgrown(BaseException):
    """The call about to be made needs a higher tier; no middleware's `except Exception` may take it for the model's error."""


class _Followed(ModelRequest[Any]):
    """A request that notes what is made of it with `override`."""

    @override
    def override(self, **changes: Any) -> ModelRequest[Any]:
        changed = super().override(**changes)
        if (forms := vars(self).get(FORMS)) is not None:
            vars(changed)[FORMS] = forms
            forms.append(changed)
        return changed


class InnerRequests:
    """Follows one attempt's request to the model, and has every form of it decided that is not the one the attempt was made for.

    Args:
        request: what the attempt hands to the middlewares inside, with a model of its own.
        decide: takes a form of the request and the messages that are sent; true where the attempt may not be made in that form.
    """

    def __init__(self, request: ModelRequest[Any], decide: Callable[[ModelRequest[Any], Messages], bool]) -> None:
        self._decide = decide
        self._lock = Lock()
        self._asked = False
        self._outgrown = False
        self._messages: Messages = _sent(request)
        self._tools: Sequence[Any] = request.tools
        self._forms: list[ModelRequest[Any]] = []
        self.request = self._follow(request)

    @property
    def tools(self) -> Sequence[Any]:
        """The tools of the newest call; where it was made of a model of somebody else's, those of the newest form."""
        return self._tools if self._asked else self._forms[-1].tools

    @property
    def last(self) -> ModelRequest[Any] | None:
        """The newest form, where no call of the attempt's model was made of any; else None."""
        return None if self._asked else self._forms[-1]

    def _follow(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        given = {each.name: getattr(request, each.name) for each in fields(request)}
        self._look_at(request.model)
        followed = _Followed(**given)
        vars(followed)[FORMS] = self._forms
        self._forms.append(followed)
        return followed

    def _look_at(self, model: Any) -> None:
        """Have a chat model's messages looked at before each call of it, and of copies made of it."""
        convert = getattr(model, CONVERT, None)
        if convert is None:
            return

        def converted(given: Any) -> Any:
            prompt = convert(given)
            self._look(prompt.to_messages())
            return prompt

        vars(model)[CONVERT] = converted

    def _look(self, messages: Messages) -> None:
        form = next((each for each in reversed(self._forms) if _same(_sent(each), messages)), self._forms[-1])
        with self._lock:
            self._asked = True
            if not self._outgrown and _same(messages, self._messages) and _same(form.tools, self._tools):
                return
            self._messages, self._tools = messages, form.tools
            self._outgrown = self._decide(form, messages) or self._outgrown
            if self._outgrown:
                raise Outgrown


def _sent(request: ModelRequest[Any]) -> Messages:
    """The messages that a request is sent with."""
    system = request.system_message
    return [system, *request.messages] if system else cast("Messages", request.messages)


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))
