"""A wire is one API format as the server sees it: read a request, write a reply, a stream or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from routed_agents.embedded.conversation import Conversation, Reply, Usage
from routed_agents.embedded.faults import Failure
from routed_agents.embedded.json_fields import JsonObject
from routed_agents.embedded.models import Catalogue
from routed_agents.embedded.prompt_cache import PromptCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A request that passed all checks."""

    conversation: Conversation
    tokens: int
    measure: Callable[[PromptCache, str], Usage]  # asks the cache for this prompt, under an API key


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply with all a wire writes around it."""

    body: JsonObject  # the request
    model_id: str
    reply: Reply
    usage: Usage
    serial: str  # makes the ids of one answer
    reports_cache_writes: bool = False
    created: int


class Wire(Protocol):
    """One API format."""

    def read(self, body: JsonObject, catalogue: Catalogue) -> Prompt:
        """Checks a request and reads it."""
        ...

    def write(self, answer: Answer) -> JsonObject:
        """The body of an answer in one piece."""
        ...

    def stream(self, answer: Answer) -> Iterator[bytes]:
        """The server-sent events of an answer."""
        ...

    def stream_error(self, failure: Failure, request_id: str) -> bytes:
        """The event of an error in the middle of a stream."""
        ...

    def error(self, failure: Failure, request_id: str) -> JsonObject:
        """The body of an error."""
        ...
