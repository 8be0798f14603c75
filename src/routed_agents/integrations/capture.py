"""Keeps what a model gave, or as far as it came: a parser, a handler that raises or a reader who leaves keeps it from whoever asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from typing_extensions import override

from routed_agents.complaints import complain
from routed_agents.integrations.events import Event, written_in


class Capture(BaseCallbackHandler):
    """Hears one call.

    Attributes:
        message: what the model gave; None until it is whole.
        result: all it gave.
        run_id: the call's.
    """

    run_inline = True

    def __init__(self) -> None:
        self.message: BaseMessage | None = None
        self.result: LLMResult | None = None
        self.run_id: UUID | None = None
        self._chunks: list[AIMessageChunk] = []
        self._words: list[str] = []

    def so_far(self) -> BaseMessage | None:
        """The message, or what came of its stream in one piece; None where nothing came."""
        if self.message is not None:
            return self.message
        if not self._chunks:
            return AIMessageChunk(content="".join(self._words)) if self._words else None
        first, *others = self._chunks
        try:
            self._chunks = [first + others if others else first]
        except Exception as trouble:
            complain("the chunks of a stream do not fit together; its words alone are counted", trouble)
            self._chunks = [AIMessageChunk(content="".join(chunk.text for chunk in self._chunks))]
        return self._chunks[0]

    @override
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        if type(message := getattr(chunk, "message", None)) is AIMessageChunk:
            self._chunks.append(message)
        elif isinstance(token, str) and token:
            self._words.append(token)

    @override
    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, Mapping) and (words := written_in(cast("Event", event))):
            self._words.append(words)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self.message, self.result, self.run_id = message_of(response), response, run_id


def message_of(response: LLMResult) -> BaseMessage | None:
    """The first message of a result; a text completion's as one."""
    generation = response.generations[0][0] if response.generations and response.generations[0] else None
    if generation is None or isinstance(generation, ChatGeneration):
        return generation.message if generation is not None else None
    return AIMessage(generation.text, response_metadata={**(response.llm_output or {}), **(generation.generation_info or {})})
