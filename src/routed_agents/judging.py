"""A judge's call: asked off the event loop, within its time, and on the books with its own span and entry.

Whatever goes wrong in here is counted and told, and never breaks the call it is about.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar, cast

from routed_agents.asking import Asking, Heard, Nonsense, in_event_loop
from routed_agents.care import Care
from routed_agents.decisions import Decision
from routed_agents.failures import failure_of, refused, unbilled
from routed_agents.features import upper_tokens
from routed_agents.health import Health
from routed_agents.ledger import Entry, Ledger, Outcome
from routed_agents.policy import Mode, Policy
from routed_agents.pricing import Cost, Usage, served_model_of, usage_of
from routed_agents.questions import Question
from routed_agents.steps import Step, field_of
from routed_agents.telemetry import LeafSpan, MadeBy, RouteSpan, Telemetry
from routed_agents.telemetry.around import within
from routed_agents.tiers import Deployment, Tier

log: Final = logging.getLogger("routed_agents")
T = TypeVar("T")
JUDGE: Final = "judge"
"""Stands for the tier in the entries and spans of judges' calls, and for what a judge does in the books."""
SIMULATED_IDS: Final = ("msg_sim_", "chatcmpl-sim-", "resp_sim_")
"""Replies with such an id come from the embedded provider, so their cost is simulated."""


class Books(Protocol):
    """What is asked of a router."""

    @property
    def policy(self) -> Policy: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def telemetry(self) -> Telemetry: ...
    @property
    def health(self) -> Health: ...
    @property
    def care(self) -> Care: ...
    @property
    def asking(self) -> Asking: ...
    def price(self, deployment: Deployment, model: str, usage: Usage) -> tuple[Cost | None, str | None]: ...
    def warn_once(self, message: str, hint: Callable[[], str] | None = None) -> None: ...


class About(Protocol):
    """What is asked of the routed call a judge is asked about."""

    @property
    def router(self) -> Books: ...
    @property
    def step(self) -> Step: ...
    @property
    def thread(self) -> str | None: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def key(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def span(self) -> RouteSpan | None: ...
    @property
    def asides(self) -> list[Entry]: ...


class Consultation:
    """One judge asked about one call.

    Args:
        about: the call.
        decision: as it stands.
        model: who is asked.
        timeout_s: how long to wait.
        question: makes the question; what it raises is our trouble.
        read: makes sense of an answer, or raises ValueError.
        attempt: the number of the attempt whose reply is judged; 0 before the first.
    """

    __slots__ = (
        "_about",
        "_attempt",
        "_decision",
        "_deployment",
        "_future",
        "_own",
        "_question",
        "_read",
        "_since_ns",
        "_span",
        "_started_ns",
        "_timeout_s",
    )

    def __init__(
        self,
        about: About,
        *,
        decision: Decision,
        model: str,
        timeout_s: float,
        question: Callable[[], Question],
        read: Callable[[Mapping[str, Any]], T],
        attempt: int = 0,
    ) -> None:
        self._about = about
        self._decision = decision
        self._deployment = deployment_of(model)
        self._timeout_s = timeout_s
        self._question: Callable[[], Question] | Question = question
        self._read: Callable[[Mapping[str, Any]], Any] = read
        self._attempt = attempt
        self._future: Future[Heard] | None = None
        self._own = False
        self._span: LeafSpan | None = None
        self._started_ns = self._since_ns = 0

    def ask(self) -> tuple[Any, str]:
        """What the judge says, or why it says nothing. Waits, so in an event loop nothing is asked."""
        if in_event_loop():
            self._about.router.warn_once(
                "a judge was not asked, for waiting would hold up the event loop; use `async with router.step(…)` "
                "and `await attempt.consult(reply)` before `attempt.record(reply)`"
            )
            return self._without("event_loop")
        said = self._begin()
        if self._future is None:
            return said
        try:
            heard = Asking.wait(self._future, self._timeout_s)
        except BaseException as error:
            self._finish(Heard(error=error))
            raise
        return self._finish(heard)

    async def aask(self) -> tuple[Any, str]:
        """`ask` without holding up the event loop."""
        said = self._begin()
        if self._future is None:
            return said
        try:
            heard = await Asking.await_(self._future, self._timeout_s)
        except BaseException as error:
            self._finish(Heard(error=error))
            raise
        return self._finish(heard)

    @property
    def _asked(self) -> Question:
        assert isinstance(self._question, Question)
        return self._question

    def _begin(self) -> tuple[Any, str]:
        """Start the call or join one; what is known already, or why nobody is asked, where there is none."""
        about, deployment = self._about, self._deployment
        router = about.router
        try:
            question = self._question = self._question if isinstance(self._question, Question) else self._question()
            known = router.asking.known(question, deployment.name)
            if known is not None:
                router.telemetry.judged(deployment.model, "remembered")
                return self._read(known), ""
            if router.health.rests(deployment.name, f"{JUDGE}:{deployment.name}"):
                return self._without("resting")
            started = router.asking.start(question, deployment, self._timeout_s, opened=self._opened, read=self._read)
            if started is None:
                return self._without("busy")
            self._future, self._own = started
        except Exception:
            log.exception("judge %s cannot be asked about step %s", deployment.name, about.step.id)
            router.telemetry.unmade(self._span)
            return self._without("failed")
        return None, ""

    def _opened(self) -> AbstractContextManager[None]:
        """Open the call's span; what the call is made in."""
        about, deployment = self._about, self._deployment
        self._started_ns, self._since_ns = time.time_ns(), time.perf_counter_ns()
        context = about.span.context if about.span is not None else None
        place = _Place(number=self._attempt, row=Tier(name=JUDGE, rank=0, deployments=(deployment,)), deployment=deployment)
        span = self._span = about.router.telemetry.open_attempt(None, place, self._view(self._asked), parent=context)
        return within(span.context if span is not None else None)

    def _without(self, trouble: str) -> tuple[None, str]:
        self._about.router.telemetry.judged(self._deployment.model, "failed", trouble)
        return None, trouble

    def _finish(self, heard: Heard) -> tuple[Any, str]:
        """Read the answer and write the call down, unless it is another step's."""
        value, error = None, heard.error
        if heard.answer is not None:
            try:
                value = self._read(heard.answer)
            except Exception as wrong:
                error = Nonsense(str(wrong))
        trouble = "" if error is None else _named(error)
        if not self._own:
            self._about.router.telemetry.judged(self._deployment.model, _outcome(error) if trouble else "remembered", trouble)
            return value, trouble
        try:
            self._learn(heard, error)
            self._write(heard, value, error, trouble)
        except Exception:
            log.exception("a judge's call about step %s could not be written down", self._about.step.id)
            self._about.router.telemetry.dropped(1)
            self._about.router.telemetry.end(self._span)
        return value, trouble

    def _learn(self, heard: Heard, error: BaseException | None) -> None:
        """What this call says about the next ones."""
        router, name = self._about.router, self._deployment.name
        if isinstance(error, Exception) and (failure := failure_of(error)) is not None:
            # under a name of its own: a judge has seconds only, and that it took longer is nothing against the tier's deployment
            router.care.failed(f"{JUDGE}:{name}", failure, None)
            if failure.trouble == "rate_limit":
                router.care.failed(name, failure, None)
        elif heard.reply is not None:
            router.care.answered(f"{JUDGE}:{name}", None)

    def _write(self, heard: Heard, value: object, error: BaseException | None, trouble: str) -> None:
        about, router, decision, deployment = self._about, self._about.router, self._decision, self._deployment
        usage = self._usage(heard, error)
        served = served_model_of(heard.reply) if heard.reply is not None else None
        cost, source = (None, None) if usage.source == "missing" else router.price(deployment, served or deployment.model, usage)
        if usage == Usage() if heard.reply is not None else error is not None and unbilled(error):
            cost = Cost()
        entry = Entry(
            step_id=about.step.id,
            attempt=self._attempt,
            kind=JUDGE,
            run=about.step.run,
            thread=about.thread,
            lineage=about.key or None,
            node=about.step.node,
            labels=about.labels,
            task_class=decision.task_class,
            tier=JUDGE,
            rank=0,
            pinned=False,
            model=deployment.model,
            served_model=served,
            provider=deployment.provider,
            deployment=deployment.name,
            usage=usage,
            cost=cost,
            codes=() if value is None else (f"{JUDGE}:{_told(value)}",),
            outcome=_outcome(error),
            error=trouble or None,
            simulated=deployment.simulated or simulated(heard.reply) or router.asking.simulated(deployment),
            mode=about.mode,
            decided_tier=decision.tier or "stop",
            policy_hash=decision.policy_hash,
            price_source=source,
            started_ns=self._started_ns,
            ended_ns=self._started_ns + time.perf_counter_ns() - self._since_ns,  # the clock may be set back meanwhile
        )
        about.asides.append(entry)
        router.ledger.append(entry)
        router.telemetry.close_attempt(self._span, entry, error, reply=heard.reply)
        router.telemetry.judged(deployment.model, entry.outcome, trouble or _told(value))

    def _usage(self, heard: Heard, error: BaseException | None) -> Usage:
        """What the call used: as reported; nothing where it was refused; the prompt at least where nobody waited for the end."""
        reported = usage_of(heard.reply) if heard.reply is not None else None
        if reported is not None:
            return reported
        if error is not None and refused(error):
            return Usage()
        trouble = _named(error) if error is not None else ""
        if heard.reply is None and trouble not in ("timeout", "connection") and isinstance(error, Exception):
            return Usage(source="missing")
        text = f"{self._asked.system}\n{self._asked.text}\n{json.dumps(self._asked.schema)}"
        return Usage(input=upper_tokens(len(text), text[:400]), output=0, source="estimated")

    def _view(self, question: Question) -> _View:
        about = self._about
        return _View(
            step=Step(id=about.step.id, messages=(question.text,), system=question.system, node=about.step.node),
            thread=about.thread,
            labels=about.labels,
            mode=about.mode,
            decision=self._decision,
            made_by=about.router.asking.made_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A judge's call as telemetry sees an attempt."""

    number: int
    row: Tier
    deployment: Deployment
    watched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A judge's call as telemetry sees a routed call: its messages are the question's, not the step's."""

    step: Step
    thread: str | None
    labels: Mapping[str, str]
    mode: str
    decision: Decision
    made_by: MadeBy
    decision_ns: int = 0
    entries: Sequence[Entry] = ()
    asides: Sequence[Entry] = ()
    parent: object = None


def simulated(reply: object) -> bool:
    """Whether a reply comes from the embedded provider."""
    found = field_of(reply, "id")
    if isinstance(found, str) and found.startswith(SIMULATED_IDS):
        return True
    metadata = field_of(reply, "response_metadata")
    inner = cast("Mapping[str, object]", metadata).get("id") if isinstance(metadata, Mapping) else None
    return isinstance(inner, str) and inner.startswith(SIMULATED_IDS)


@lru_cache(maxsize=64)
def deployment_of(model: str) -> Deployment:
    """The deployment a judge's model names."""
    return Deployment.parse(model)


def _outcome(error: BaseException | None) -> Outcome:
    """What became of a call: whoever stops waiting without an error of the call's own has abandoned it."""
    if error is None:
        return "accepted"
    return "failed" if isinstance(error, Exception) else "abandoned"


def _named(error: BaseException) -> str:
    """An error as a code."""
    if isinstance(error, Nonsense):
        return "nonsense"
    failure = failure_of(error)
    return failure.trouble if failure is not None else type(error).__name__


def _told(value: object) -> str:
    """What a judge said, as a code."""
    return str(getattr(value, "task_class", value) or "unsure")
