"""What LangChain's messages leave out of a call's price: how a ChatAnthropic stream was served, how long OpenAI keeps its cache writes.

The events of the stream tell the first; where nobody could listen to them, and for the second, the request says what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any, Final, cast

from langchain_core.messages import AIMessageChunk, BaseMessage

from routed_agents.features import upper_tokens
from routed_agents.integrations.caching import KEY
from routed_agents.pricing import Usage, usage_of
from routed_agents.steps import content_of, field_of

CHUNKS: Final = "_make_message_chunk_from_anthropic_event"
"""Where langchain-anthropic (1.7.7) turns each event of a stream into a chunk."""
CLIENTS: Final = ("_client", "_async_client")
ENDS: Final = ("stop_reason", "finish_reason", "status")
"""Where the last chunks of a stream say why it ended."""
TYPES: Final = ("anthropic-chat", "anthropic-bedrock-chat", "anthropic-chat-vertexai")
"""What LangChain calls chat models with such chunks."""


class Telling:
    """Listens to the events of one call's stream, if it becomes one; a call that is not streamed tells nothing here.

    Args:
        asked: the call's parameters, those that count most first.
    """

    __slots__ = ("_asked", "_usage", "_whole")

    def __init__(self, asked: Sequence[Mapping[str, Any]] = ()) -> None:
        self._asked = asked
        self._usage: dict[str, Any] = {}
        self._whole = False

    def usage(self, message: object = None) -> Usage | None:
        """The usage that was told so far, or asked to be kept long; None where the message tells as much.

        Args:
            message: what came of the reply, whose searches count where the end of the stream did not come, and whose runs of code do.
        """
        if self._usage:
            container = field_of(field_of(message, "response_metadata"), "container")
            return usage_of({"usage": self._usage, "content": content_of(message), "container": container})
        return _kept_long(message, self._asked)

    def so_far(self, message: BaseMessage | None, words: str, prompt: int) -> Usage | None:
        """The usage of a reply that breaks off: as reported, where its end was not told at least what was seen; None where nothing came.

        Args:
            message: what came of the reply.
            words: all that was written in it.
            prompt: the upper bound of the prompt's tokens, for streams that report theirs at the end only.
        """
        reported = self.usage(message) or usage_of(message)
        if reported is not None and self._whole:
            return reported
        return usage_of_part(reported, message, words, prompt)

    def hear(self, event: Any) -> None:
        """Take an event of the stream."""
        if event.type == "message_start":
            self._usage, self._whole = _plain(field_of(event.message, "usage")), False
        elif event.type == "message_delta":
            told = {name: value for name, value in _plain(event.usage).items() if value is not None}
            self._usage.update(told)
            self._whole = "output_tokens" in told


def usage_of_part(reported: Usage | None, message: BaseMessage | None, words: str, prompt: int) -> Usage | None:
    """The usage of a reply that breaks off: as reported, at least what was seen where it doesn't say why it ended; None where nothing came.

    Args:
        reported: what its part of the message reports.
        message: what came of it.
        words: all that was written in it.
        prompt: the upper bound of the prompt's tokens, for streams that report theirs at the end only.
    """
    bound = upper_tokens(len(words), words[:400])
    if reported is not None:
        return reported if _ended(message) else reported.at_least(bound)
    if message is None:
        return Usage(input=prompt, output=bound, source="estimated") if bound else None
    counted = {"input_tokens": prompt, "output_tokens": bound, "total_tokens": prompt + bound}
    used = usage_of(message.model_copy(update={"usage_metadata": counted}))
    return used.at_least(bound) if used is not None and (bound or used.web_searches or used.other) else None


def heard_by(model: Any, hear: Callable[[Any], None]) -> Any:
    """A copy of the chat model, whose streams' events are told to `hear`; the model itself where it has no such events."""
    if not _tells(model.__class__):
        return model
    for name in CLIENTS:
        if name not in vars(model):
            getattr(model, name, None)  # made now, to be shared by all copies
    listening = copy(model)
    make = getattr(model, CHUNKS)

    def chunk_of(event: Any, *args: Any, **kwargs: Any) -> Any:
        hear(event)
        return make(event, *args, **kwargs)

    vars(listening)[CHUNKS] = chunk_of
    return listening


def asked_of(model: Any, kwargs: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The parameters of a call of a chat model, those that count most first."""
    fields = cast("dict[str, Any]", vars(model))
    return kwargs, fields.get("model_kwargs") or {}, fields


def usage_as_asked(message: BaseMessage, messages: Sequence[BaseMessage], asked: Sequence[Mapping[str, Any]]) -> Usage | None:
    """The usage of a call whose message alone is known, served the way it was asked for; None where the message tells as much.

    For a ChatAnthropic stream it is an estimate: who asked for nothing may have been served otherwise, and writes to the cache are taken
    for the longest retention asked for.

    Args:
        message: what came of the stream.
        messages: the prompt.
        asked: the call's parameters, those that count most first.
    """
    if _asked("_type", asked) not in TYPES or message.response_metadata.get("usage") is not None:
        return _kept_long(message, asked)
    usage = usage_of(message)
    if usage is None or not usage.total:
        return None
    if usage.cache_write_5m and any(mark.get("ttl") == "1h" for mark in _marks([*[each.content for each in messages], *asked])):
        usage = usage.kept_long()
    return replace(usage, speed=_asked("speed", asked), geo=_asked("inference_geo", asked), source="estimated")


def usage_unheard(message: BaseMessage) -> Usage | None:
    """The usage of a ChatAnthropic stream that nobody listened to, an estimate for nobody knows how it was served; None elsewhere."""
    told = message.response_metadata
    if told.get("model_provider") != "anthropic" or told.get("usage") is not None:
        return None
    usage = usage_of(message)
    return replace(usage, source="estimated") if usage is not None and usage.total else None


def _kept_long(message: object, asked: Sequence[Mapping[str, Any]]) -> Usage | None:
    """The usage of a call to OpenAI that asked for the long retention, which holds for all it writes to the cache; None for any other."""
    options = next((options for each in asked if (options := each.get("prompt_cache_options")) is not None), None)
    usage = usage_of(message) if field_of(options, "ttl") == "12h" else None
    return usage.kept_long() if usage is not None else None


def _ended(message: BaseMessage | None) -> bool:
    """Whether a message says why it ended, so that what it reports is of the whole."""
    return message is not None and any(message.response_metadata.get(name) for name in ENDS)


def _asked(name: str, asked: Sequence[Mapping[str, Any]]) -> str | None:
    return next((value for each in asked if isinstance(value := each.get(name), str)), None)


def _marks(thing: object) -> Iterator[Mapping[str, Any]]:
    """The marks of what is to be cached, at any depth."""
    if isinstance(thing, Mapping):
        found = cast("Mapping[str, Any]", thing)
        if isinstance(mark := found.get(KEY), Mapping):
            yield cast("Mapping[str, Any]", mark)
        thing = list(found.values())
    if isinstance(thing, list):
        for each in cast("list[object]", thing):
            yield from _marks(each)


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
