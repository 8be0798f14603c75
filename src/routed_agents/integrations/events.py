"""Event streams (LangChain's v3) of a routed call: each attempt's own events, passed on once they may be shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage

from routed_agents.pricing import Usage, usage_of
from routed_agents.router import Attempt, RoutedCall
from routed_agents.steps import STAMP

Event = Mapping[str, Any]
FINISH: Final = "message-finish"


class PassingEvents:
    """Events of one attempt on their way to the caller, held back until there is something to show and it may be shown.

    Args:
        attempt: the attempt they are of.
        call: the step it is made for.
        record: takes the whole message once it is there.
        used: gives the usage that the provider's own events tell of a message.
        so_far: gives the usage of a message that breaks off, with all that was written of it.
        hold: keep all of them until the reply has been judged.
    """

    __slots__ = (
        "_attempt", "_call", "_finish", "_held", "_hold", "_open", "_record", "_seen", "_start", "_used", "_used_so_far", "_written",
        "refused", "stands",
    )  # fmt: skip

    def __init__(
        self,
        attempt: Attempt,
        call: RoutedCall,
        record: Callable[[AIMessage | None], None],
        used: Callable[[AIMessage], Usage | None],
        so_far: Callable[[AIMessage, str], Usage | None],
        *,
        hold: bool,
    ) -> None:
        self._attempt = attempt
        self._call = call
        self._record = record
        self._used = used
        self._used_so_far = so_far
        self._hold = hold
        self._held: list[Event] = []
        self._finish: Event | None = None
        self._start: Event = {}
        self._seen: list[str] = []
        self._written: list[str] = []
        self._open = False
        self.refused = False
        self.stands = False

    def take(self, event: Event) -> Iterator[Event]:
        """Take an event from the model; give out what may be shown. The last one waits for the judgement, which it carries."""
        self._attempt.first_chunk()
        kind = event.get("event")
        if kind == FINISH:
            self._finish = event
            return
        if kind == "message-start":
            self._start = event.get("metadata") or {}
        words = shown_by(event)
        self._seen.append(words)
        self._written.append(written_in(event))
        if self._open:
            yield event
            return
        self._held.append(event)
        if self._hold or not words:
            return
        if self._attempt.served_below_floor(self._so_far()):
            self.refused = True
            return
        self._open = True
        self._attempt.commit()
        held, self._held = self._held, []
        yield from held

    def ended(self) -> None:
        """The stream is over, or was broken off: keep what it has used at least."""
        if self._attempt.outcome is not None:
            return
        if self._finish is not None and (reported := self._used(self._so_far()) or _usage_at(self._finish)) is not None:
            self._attempt.partial(reported)
            return
        if (used := self._used_so_far(self._so_far(), "".join(self._written))) is not None:
            self._attempt.partial(used)

    def record(self, message: AIMessage | None) -> None:
        """The whole is there, or as much as was taken of a refused one: have it judged."""
        self._record(self._so_far() if self.refused else message)
        self.stands = self._attempt.follow_up is None and not self._attempt.alarmed

    def _so_far(self) -> AIMessage:
        return AIMessage("".join(self._seen), response_metadata={"model_name": self._start.get("model")})

    def rest(self) -> Iterator[Event]:
        """What was held back, and the end with the decision in it; to be given out when the attempt is over, if its reply stands."""
        if self.stands:
            yield from self._held
            if self._finish is not None:
                yield {**self._finish, "metadata": {**(self._finish.get("metadata") or {}), STAMP: self._call.stamp()}}


def shown_by(event: Event) -> str:
    """What of an event a reader would see: words of text, a tool's name, its arguments."""
    part = _part(event)
    return str(part.get("text") or part.get("args") or part.get("name") or "")


def written_in(event: Event) -> str:
    """What of an event is paid for: what a reader would see, and what the model said to itself."""
    return f"{_part(event).get('reasoning') or ''}{shown_by(event)}"


def _part(event: Event) -> Event:
    kind = event.get("event")
    if kind == "content-block-delta":
        return event.get("delta") or {}
    return event.get("content") or {} if kind == "content-block-start" else {}


def _usage_at(finish: Event) -> Usage | None:
    """The usage that the last event of a stream reports."""
    return usage_of({"usage_metadata": finish.get("usage"), "response_metadata": finish.get("metadata")})


def stream_of(events: Iterator[Event]) -> ChatModelStream:
    """A stream that is pulled by its reader, one event at a time."""
    stream = ChatModelStream()

    def pump() -> bool:
        try:
            stream.dispatch(next(events))
            if stream.done:  # nobody will pull again, so the call is closed now
                for _ in events:
                    pass
        except StopIteration:
            if not stream.done:
                stream.fail(RuntimeError("the model ended its stream without a message"))
            return False
        except BaseException as error:
            stream.fail(error)
            return False
        return True

    stream.bind_pump(pump)
    return stream


def astream_of(events: AsyncIterator[Event]) -> AsyncChatModelStream:
    """A stream that a task of its own fills, begun when somebody first looks at it."""
    stream = AsyncChatModelStream()

    async def produce() -> None:
        try:
            async for event in events:
                stream.dispatch(event)
            if not stream.done:
                stream.fail(RuntimeError("the model ended its stream without a message"))
        except asyncio.CancelledError as error:
            stream.fail(error)
            raise
        except BaseException as error:
            stream.fail(error)

    async def start() -> None:
        if stream._producer_task is None:  # pyright: ignore[reportPrivateUsage]
            stream._producer_task = asyncio.get_running_loop().create_task(produce())  # pyright: ignore[reportPrivateUsage]

    stream.set_start(start)
    return stream
