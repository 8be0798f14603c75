"""Chunks of a stream on their way to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage

from routed_agents.integrations.going import Going
from routed_agents.pricing import usage_of
from routed_agents.router import Attempt


class Passing:
    """Chunks of one attempt on their way to the caller: held back until there is something to show and it may be shown."""

    __slots__ = ("_attempt", "_going", "_held", "_hold", "_open", "_stands", "_taken", "refused", "whole")

    def __init__(self, attempt: Attempt, going: Going, *, hold: bool) -> None:
        self._attempt = attempt
        self._going = going
        self._hold = hold
        self._held: list[Any] = []
        self._taken: list[Any] = []
        self._open = False
        self._stands = False
        self.refused = False
        self.whole = False

    def take(self, chunk: Any) -> Sequence[Any]:
        """Take a chunk from the model; give out what may be shown."""
        self._taken.append(chunk)
        self.whole = _is_last(chunk)
        if self._open and not self._held and not self.whole:
            return (chunk,)
        self._attempt.first_chunk()
        self._held.append(chunk)
        if self._open or self._hold or not _shows(chunk):
            return ()
        if isinstance(beginning := self._sum(), AIMessageChunk) and self._attempt.served_below_floor(beginning):
            self.refused = True
            return ()
        self._open = True
        self._attempt.commit()
        held, self._held = self._held, []
        if _is_last(held[-1]):
            self._held.append(held.pop())
        return held

    def _sum(self) -> Any:
        """What came so far in one piece: chunks of a message added up at once, for adding each in turn takes longer every time."""
        taken = self._taken
        if len(taken) > 1:
            first, *others = taken
            self._taken = [first + others if all(type(chunk) is AIMessageChunk for chunk in taken) else self._going.parsed_of(taken)]
        return self._taken[0] if self._taken else None

    def failed(self, error: BaseException) -> None:
        """A parser gave up on the stream."""
        self._going.parse_failure(error)

    def ended(self) -> None:
        """The stream is over, or was broken off: keep what it has used."""
        if self._attempt.outcome is None:
            self._going.broken(self._attempt, self._sum())

    async def consult(self) -> None:
        """Have judges asked about the whole before it is recorded."""
        if self._attempt.judged and not self.refused and self._attempt.outcome is None:
            await self._going.consult(self._attempt, self._sum())

    def record(self) -> None:
        """The whole is there: have it judged, once; what still comes after its last chunk counts."""
        if self._attempt.outcome is not None:
            if len(self._taken) > 1 and (used := self._going.used(whole := self._sum()) or usage_of(whole)) is not None:
                self._attempt.partial(used)
            return
        self._going.take(self._attempt, self._sum())
        self._stands = self._attempt.follow_up is None and not self._attempt.alarmed
        if not self._stands:
            self._going.reset()

    def rest(self) -> list[Any]:
        """What was held back, if the reply stands; given out after the attempt, which a reader who leaves now leaves accepted."""
        held, self._held = self._held, []
        if self._stands and held and _is_last(held[-1]):
            held[-1] = self._going.final(held[-1])
        return self._going.told(held) if self._stands else []


def _shows(chunk: Any) -> bool:
    """Whether a chunk holds anything a reader would see."""
    if not isinstance(chunk, AIMessageChunk):
        return True
    return bool(chunk.text) or bool(chunk.tool_call_chunks)


def _is_last(chunk: Any) -> bool:
    """Whether a chunk says it is the last of its message, or is a whole message."""
    return isinstance(chunk, BaseMessage) and (not isinstance(chunk, AIMessageChunk) or chunk.chunk_position == "last")
