"""What the events of a ChatAnthropic stream tell about its price: its chunks leave out retention, speed, service tier and region."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any, Final, cast

from langchain_core.messages import AIMessageChunk, BaseMessage

from routed_agents.pricing import Usage, usage_of
from routed_agents.steps import content_of, field_of

CHUNKS: Final = "_make_message_chunk_from_anthropic_event"
"""Where langchain-anthropic (1.7.7) turns each event of a stream into a chunk."""
CLIENTS: Final = ("_client", "_async_client")


class Telling:
    """Listens to the events of one call's stream, if it becomes one; a call that is not streamed tells nothing here."""

    __slots__ = ("_usage",)

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}

    def heard_by(self, model: Any) -> Any:
        """A copy of the chat model, for this call, whose stream is listened to; the model itself where it has no such events."""
        if not _tells(model.__class__):
            return model
        for name in CLIENTS:
            if name not in vars(model):
                getattr(model, name, None)  # made now, to be shared by all copies
        listening = copy(model)
        make = getattr(model, CHUNKS)

        def chunk_of(event: Any, *args: Any, **kwargs: Any) -> Any:
            self._hear(event)
            return make(event, *args, **kwargs)

        vars(listening)[CHUNKS] = chunk_of
        return listening

    def usage(self, message: object = None) -> Usage | None:
        """The usage that was told so far; None when nothing was.

        Args:
            message: what came of the reply, whose searches count where the end of the stream did not come.
        """
        return usage_of({"usage": self._usage, "content": content_of(message)}) if self._usage else None

    def _hear(self, event: Any) -> None:
        if event.type == "message_start":
            self._usage = _plain(field_of(event.message, "usage"))
        elif event.type == "message_delta":
            self._usage.update({name: value for name, value in _plain(event.usage).items() if value is not None})


def words_of(message: BaseMessage) -> str:
    """Everything a model wrote in a message, or in as much of it as came: words, thinking, tools' names and arguments."""
    pieces = [str(message.text)]
    if isinstance(message, AIMessageChunk):
        pieces += [f"{call.get('name') or ''}{call.get('args') or ''}" for call in message.tool_call_chunks]
    pieces.append(str(message.additional_kwargs.get("reasoning_content") or ""))
    content: Any = message.content
    pieces += [_unseen(cast("dict[str, Any]", block)) for block in content if isinstance(block, dict)]
    return "".join(pieces)


def _unseen(block: dict[str, Any]) -> str:
    """What a block holds besides text and the message's own tool calls: thinking, and what a provider's tool is given."""
    pieces = [str(block.get(name) or "") for name in ("thinking", "reasoning")]
    pieces += [str(field_of(part, "text") or "") for part in block.get("summary") or ()]
    if str(block.get("type")).startswith("server_tool"):
        pieces += [str(block.get(name) or "") for name in ("partial_json", "args")]
    return "".join(pieces)


@cache
def _tells(kind: type) -> bool:
    return hasattr(kind, CHUNKS)


def _plain(usage: Any) -> dict[str, Any]:
    if usage is None:
        return {}
    return dict(cast("Mapping[str, Any]", usage)) if isinstance(usage, Mapping) else usage.model_dump(warnings=False)
