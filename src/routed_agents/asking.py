"""Puts a question to a model within its time, and remembers the answer."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, runtime_checkable

from routed_agents.errors import ConfigurationError
from routed_agents.forking import renew_in_children
from routed_agents.questions import Question, answer_in
from routed_agents.tiers import Deployment

log: Final = logging.getLogger("routed_agents")
AT_ONCE: Final = 32
"""Questions under way at a time; one more is not asked, for a judge must never be what everybody waits for."""
KEPT: Final = 4_096
"""Answers remembered."""


@runtime_checkable
class Asker(Protocol):
    """Makes the call behind a question. It runs in a thread of its own, so it may wait; it should give up after `timeout_s` by itself."""

    def ask(self, question: Question, deployment: Deployment, /, *, timeout_s: float) -> object:
        """The reply, as the SDK or LangChain gives it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came of a question.

    Attributes:
        reply: what the asker gave, None where nothing came back.
        answer: the answer in it, None where there is none.
        error: what went wrong while it was asked.
    """

    reply: object = None
    answer: Mapping[str, Any] | None = None
    error: BaseException | None = None


class Asking:
    """Asks models through an asker, each question within its time, and keeps the latest answers. Shared by all calls of a router.

    Equal questions are asked once, also where they come at the same time.

    Args:
        asker: makes the calls; through the providers' own SDKs when not given.
        at_once: questions under way at a time, those that nobody waits for any more included.
        kept: answers remembered; the least recently used goes first.
        sdk_spans: leave the SDKs' own spans on, where they are the ones that are counted.
    """

    def __init__(self, asker: Asker | None = None, *, at_once: int = AT_ONCE, kept: int = KEPT, sdk_spans: bool = False) -> None:
        self._asker = asker
        self._sdk_spans = sdk_spans
        self._at_once = at_once
        self._kept = kept
        self._answers: OrderedDict[tuple[str, str], Mapping[str, Any]] = OrderedDict()
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin afresh: the questions under way in a parent process never end in its child."""
        self._free = threading.BoundedSemaphore(self._at_once)
        self._under_way: dict[tuple[str, str], Future[Heard]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, given: Asker | Asking | None, *, sdk_spans: bool = False) -> Asking:
        """The asking itself, or one through the given asker."""
        return given if isinstance(given, Asking) else cls(given, sdk_spans=sdk_spans)

    @property
    def made_by(self) -> Literal["judge", "langchain"]:
        """Who makes the calls, for telling which other instrumentation sees them: the asker itself, unless it says so."""
        return "langchain" if getattr(self._asker, "made_by", "") == "langchain" else "judge"

    def simulated(self, deployment: Deployment) -> bool:
        """Whether the asker knows that nobody real answers there."""
        told = getattr(self._asker, "simulated", None)
        return told is not None and bool(told(deployment))

    def prepare(self, deployments: Iterable[Deployment]) -> None:
        """Have the asker build its clients now, so that no question waits for an import.

        Raises:
            ConfigurationError: the asker cannot ask one of them at all.
        """
        for deployment in deployments:
            prepare = getattr(self._through(), "prepare", None)
            if prepare is None:
                return
            try:
                prepare(deployment)
            except ConfigurationError:
                raise
            except Exception:
                log.exception('judge "%s" cannot be asked yet; until it can, it counts as failing', deployment.name)

    def known(self, question: Question, model: str) -> Mapping[str, Any] | None:
        """The answer this model gave to an equal question."""
        place = (model, question.key)
        with self._lock:
            found = self._answers.get(place)
            if found is not None:
                self._answers.move_to_end(place)
        return found

    def start(
        self,
        question: Question,
        deployment: Deployment,
        timeout_s: float,
        *,
        opened: Callable[[], AbstractContextManager[object]],
        read: Callable[[Mapping[str, Any]], object],
    ) -> tuple[Future[Heard], bool] | None:
        """Begin to ask, or join those who wait for an equal question; None where too many questions are under way.

        Args:
            question: what to ask.
            deployment: whom.
            timeout_s: how long the asker should wait.
            opened: called where a call is made; what it gives is entered in the thread that makes it.
            read: raises what makes no sense as an answer, which is then not remembered.

        Returns:
            What will be heard, and whether the call is the caller's own, to be written down.
        """
        place = (deployment.name, question.key)
        free = self._free
        with self._lock:
            if (joined := self._under_way.get(place)) is not None:
                return joined, False
            if (known := self._answers.get(place)) is not None:  # since the caller looked
                return _done(Heard(answer=known)), False
            if not free.acquire(blocking=False):
                return None
            future = self._under_way[place] = Future[Heard]()
        future.set_running_or_notify_cancel()  # whoever stops waiting must not stop it for the others

        def end(heard: Heard) -> None:
            self._remember(place, heard, read)
            free.release()
            future.set_result(heard)

        try:
            within = opened()
            # a daemon, unlike a pool's threads: a provider that never ends its reply must not keep the program from ending
            threading.Thread(
                target=lambda: end(self._heard(question, deployment, timeout_s, within)), name="routed-agents-judge", daemon=True
            ).start()
        except BaseException as error:
            end(Heard(error=error))
            raise
        return future, True

    @staticmethod
    def wait(future: Future[Heard], timeout_s: float) -> Heard:
        """Wait for what comes of a question, no longer than the time there is."""
        try:
            return future.result(timeout_s)
        except TimeoutError:
            return Heard(error=JudgeTimeoutError(f"no answer within {timeout_s} s"))
        except Exception as error:
            return Heard(error=error)

    @staticmethod
    async def await_(future: Future[Heard], timeout_s: float) -> Heard:
        """`wait` without holding up the event loop."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            return Heard(error=JudgeTimeoutError(f"no answer within {timeout_s} s"))
        except Exception as error:
            return Heard(error=error)

    def _heard(self, question: Question, deployment: Deployment, timeout_s: float, within: AbstractContextManager[object]) -> Heard:
        try:
            with within:
                reply = self._through().ask(question, deployment, timeout_s=timeout_s)
        except BaseException as error:
            return Heard(error=error)
        try:
            return Heard(reply=reply, answer=answer_in(reply, question.name))
        except Exception as error:
            return Heard(reply=reply, error=Nonsense(f"{type(error).__name__}: {error}"))

    def _remember(self, place: tuple[str, str], heard: Heard, read: Callable[[Mapping[str, Any]], object]) -> None:
        """Let the next equal question find the answer, if it makes sense, and else be asked."""
        answer = heard.answer
        try:
            if answer is not None:
                read(answer)
        except Exception:
            answer = None
        with self._lock:
            self._under_way.pop(place, None)
            if answer is not None:
                self._answers[place] = answer
                if len(self._answers) > self._kept:
                    self._answers.popitem(last=False)

    def _through(self) -> Asker:
        asker = self._asker
        if asker is None:
            # the SDKs belong to the edge, which nothing below it imports; a policy file that names a judge should work all the same
            from importlib import import_module

            asker = self._asker = import_module("routed_agents.integrations.asking").SdkAsker(sdk_spans=self._sdk_spans)
        return asker


def _done(heard: Heard) -> Future[Heard]:
    future = Future[Heard]()
    future.set_result(heard)
    return future


class JudgeTimeoutError(TimeoutError):
    """A judge's time was up before its answer came."""


class Nonsense(ValueError):
    """A model that was asked answered with something nobody can use."""


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread, so that waiting here would hold up all its tasks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
