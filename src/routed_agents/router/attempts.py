"""An attempt is one provider call made for a step: its reply is judged, and its entry and span written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Protocol

from opentelemetry.context import Context

from routed_agents.checks import Rejection, Reply, inspect, reply_of
from routed_agents.complaints import complain
from routed_agents.decisions import words
from routed_agents.economics import baseline, tokenizer_factor
from routed_agents.failures import Failure, refused, unbilled
from routed_agents.features import upper_tokens
from routed_agents.judged_replies import Judge
from routed_agents.judging import About, Books, Consultation, simulated
from routed_agents.ledger import Entry, Outcome
from routed_agents.pricing import Cost, Prices, Usage, served_model_of
from routed_agents.router.reading import failure_behind, failure_in, usage_in, words_in
from routed_agents.state import StateStore, ThreadState
from routed_agents.steps import Step
from routed_agents.telemetry import LeafSpan
from routed_agents.telemetry.spans import CallView
from routed_agents.tiers import Deployment, Tier, same_model

log: Final = logging.getLogger("routed_agents")
CUT_OFF: Final = frozenset(
    {"timeout", "connection", "TimeoutError", "BrokenPipeError", "ConnectionAbortedError", "ConnectionResetError", "ConnectionError"}
)
"""What ends a call that was sent: the provider's trouble, the caller's own deadline, or whoever its words are passed on to and hangs up."""


class Host(Books, Protocol):
    """What is asked of the router that a call was opened by."""

    @property
    def prices(self) -> Prices: ...
    @property
    def store(self) -> StateStore: ...
    def state_of(self, thread: str | None) -> ThreadState: ...
    def remember(self, thread: str | None, state: ThreadState) -> None: ...


class Call(About, CallView, Protocol):
    """What is asked of the call that an attempt is made for."""

    reply: object

    @property
    def router(self) -> Host: ...
    @property
    def decided_by(self) -> Host | None: ...
    @property
    def decided_for(self) -> str | None: ...
    @property
    def entries(self) -> list[Entry]: ...
    @property
    def alarms(self) -> list[Rejection]: ...
    @property
    def forced_tools(self) -> bool: ...
    @property
    def tool_schemas(self) -> Callable[[], Mapping[str, Mapping[str, Any]]] | None: ...
    def plan_after(
        self, attempt: Attempt, *, failure: Failure | None = None, rejection: Rejection | None = None
    ) -> tuple[Tier, Deployment] | None: ...
    def note(self, line: str) -> None: ...
    def rests(self, deployment: str, why: str) -> None: ...
    @property
    def acting_rank(self) -> int: ...
    def decide_again(self, step: Step, *, unusable: Mapping[str, str] | None = None) -> None: ...
    def stopped_message(self, code: str) -> str: ...


class Attempt:
    """One provider call made for a step; use it with `with`, and give it the reply with `record`.

    Attributes:
        row: the tier it is made on; `tier` is that tier's name.
        model: the model id to send.
        deployment: where to send it.
        key: names the deployment and nothing else in the policy's tiers.
        number: 1 for the first attempt of the step.
        outcome: what became of it, once it is over.
        rejection: why its reply was not good enough, if it was not.
        follow_up: tier and deployment of the next attempt, if there will be one.
        withdrawn: it was not made, for what was to be sent needs a higher tier; the step begins anew there.
        simulated: the integration knows that nobody real answers.
    """

    __slots__ = (
        "_begun", "_call", "_committed", "_decision", "_opinions", "_reply", "_served", "_settled", "_since_ns", "_span", "_started_ns",
        "_unbilled", "_unmade", "_usage", "_watched", "alarmed", "deployment", "error", "first_chunk_ns", "follow_up", "key", "number",
        "outcome", "rejection", "repairs", "row", "simulated", "withdrawn",
    )  # fmt: skip

    def __init__(self, *, call: Call, number: int, tier: Tier, deployment: Deployment, watched: bool = False) -> None:
        self._call = call
        self.number = number
        self.row = tier
        self.deployment = deployment
        self.key = call.router.policy.tiers.key(tier, deployment)
        self.outcome: Outcome | None = None
        self.rejection: Rejection | None = None
        self.follow_up: tuple[Tier, Deployment] | None = None
        self.alarmed = False
        self.withdrawn = False
        self.error: str | None = None
        self.first_chunk_ns: int | None = None
        self.repairs: tuple[str, ...] = ()
        self.simulated = False
        self._watched = watched
        self._usage: Usage | None = None
        self._reply: object = None
        self._started_ns = self._since_ns = 0
        self._begun: int | None = None
        self._span: LeafSpan | None = None
        self._decision = call.decision
        self._committed = False
        self._served: str | None = None
        self._opinions: dict[object, str] | None = None
        self._settled: Entry | None = None
        self._unmade = False
        self._unbilled = False

    @property
    def tier(self) -> str:
        return self.row.name

    @property
    def model(self) -> str:
        return self.deployment.model

    @property
    def may_rise(self) -> bool:
        """A reply to it may be rejected in favour of a higher tier's."""
        return self._call.mode == "enforce" and self.row.rank < self._call.router.policy.tiers.top

    @property
    def watched(self) -> bool:
        """Somebody else made the call, and chose the model."""
        return self._watched

    @property
    def accepted(self) -> bool:
        """The reply stands; true as soon as it is recorded."""
        return self.outcome == "accepted"

    @property
    def entered(self) -> bool:
        """It was used with `with`, without which nothing is booked."""
        return self._started_ns > 0

    @property
    def context(self) -> Context | None:
        """The context to call the provider in: the leaf span is current, and others who would count the call keep still."""
        return self._span.context if self._span is not None else None

    def first_chunk(self) -> None:
        """Note that the first chunk of a stream has come."""
        if self.first_chunk_ns is None:
            self.first_chunk_ns = self._now_ns()

    def repaired(self, names: Iterable[str]) -> None:
        """Note which parameters were changed to fit the model."""
        self.repairs = tuple(dict.fromkeys((*self.repairs, *names)))

    def commit(self) -> None:
        """Words of the reply have reached the caller, so no other attempt may follow."""
        self._committed = True

    def served_below_floor(self, beginning: object) -> bool:
        """Whether the beginning of a stream already shows that a lower model answers a floored step; look before committing."""
        rejection = self._judge(beginning, only_alarms=True)
        return rejection is not None

    @property
    def judged(self) -> bool:
        """Judges may be asked about the reply, so asynchronous code has to `consult` before it records."""
        return bool(self._call.router.policy.judges)

    async def consult(self, reply: object, *, usage: Usage | None = None, validated: bool | None = None) -> None:
        """Have the policy's judges asked about a reply that every other check is content with, before it is recorded.

        For asynchronous code, whose event loop `record` must not hold up. Nothing happens where nobody is to be asked.

        Args:
            reply: what `record` will be given.
            usage: likewise.
            validated: likewise.
        """
        self._take(reply, usage)  # who is cancelled meanwhile has paid for it all the same
        for judge, consultation in self._consultations(reply, validated):
            self._said(judge, *await consultation.aask())

    def partial(self, usage: Usage, *, reply: object = None) -> None:
        """Note what a call whose reply may never be recorded has used so far, and the reply where it is known."""
        self._usage = usage
        self._reply = reply if reply is not None else self._reply

    def record(self, reply: object, *, usage: Usage | None = None, check: bool = True, validated: bool | None = None) -> object:
        """Take the reply, judge it, and hand it back; one that tells of provider trouble is a failed attempt.

        Args:
            reply: what the SDK or LangChain returned.
            usage: its usage, when the reply does not hold it.
            check: run the policy's checks on it.
            validated: whether the caller's own parser took its structured output; None when there is none.
        """
        call = self._call
        self._take(reply, usage)
        call.reply = reply
        if (failure := failure_in(reply)) is not None:
            self.outcome, self.error = "failed", failure.trouble
            call.note(f"{self.model} ({self.deployment.name}): {words(self.error)}")
            self._go_on(failure)
            return reply
        call.router.care.answered(self.key, self._begun)
        if check and self._opinions is None and call.router.policy.judges:
            for judge, consultation in self._consultations(reply, validated):
                self._said(judge, *consultation.ask())
        rejection = self._judge(reply, validated=validated) if check else None
        self.rejection = rejection
        if rejection is None:
            self.outcome = "accepted"
            return reply
        if rejection.alarm:
            self.alarmed = True
            call.alarms.append(rejection)
        self.follow_up = None if self._committed else call.plan_after(self, rejection=rejection)
        self.outcome = "rejected" if self.follow_up is not None or rejection.alarm else "accepted"
        call.note(f"{self.model}: rejected, {words(rejection.code)}")
        return reply

    def unmade(self) -> None:
        """No call was made after all, for somebody on the way had an answer; nothing is booked."""
        self.outcome, self._unmade = "accepted", True

    def decide_again(self, step: Step, *, unusable: Mapping[str, str] | None = None) -> bool:
        """Have the step decided in the form in which it is about to be sent; true when this attempt is withdrawn, for it may not be made.

        Args:
            step: the step in that form.
            unusable: tiers that lack something the form needs besides, with what they lack.
        """
        call = self._call
        call.decide_again(step, unusable=unusable)
        self._decision = call.decision
        if call.mode == "enforce" and (call.decision.stopped or call.acting_rank > self.row.rank):
            self.outcome, self._unmade, self.withdrawn = "abandoned", True, True
        return self.withdrawn

    def also(self, *, reply: object, usage: Usage | None = None, started_ns: int, error: BaseException | None) -> None:
        """Book another call that the same request led to: somebody on the way made it again, and this one's answer was not used.

        `usage` is given where the reply doesn't hold it.
        """
        other = Attempt(call=self._call, number=self.number, tier=self.row, deployment=self.deployment)
        other.simulated = self.simulated
        other._begun = self._begun
        other.settle_other(reply=reply, usage=usage, started_ns=started_ns, error=error)

    def settle(self) -> None:
        """Work out a recorded attempt's entry before its block ends, for a stream whose last words carry what it cost."""
        try:
            self._settled = self._entry(final=self.follow_up is None)
        except Exception:
            return  # it will be tried again, and told, when the block ends
        self._call.entries.append(self._settled)

    def __enter__(self) -> Attempt:
        self._start(time.time_ns())
        self._begun = self._call.router.care.begin(self.key)
        self._span = self._call.router.telemetry.open_attempt(self._call.span, self, self._call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        handled = False
        if self.outcome is not None:
            error = None  # the reply is there: what goes wrong with it is the caller's, and a stream may be left at its last words
        if error is not None:
            handled = self._failed(error)
        elif self.outcome is None:
            self.outcome = "abandoned"
        if self._unmade:
            self._call.router.telemetry.unmade(self._span, self._call.span)
        else:
            self._write(error)
        return handled

    def settle_watched(self, *, reply: object, usage: Usage | None, started_ns: int, error: BaseException | None, parent: object) -> None:
        """Write the entry of a call that was only watched."""
        self._start(started_ns)
        self._reply = reply
        self._usage = usage if usage is not None else usage_in(reply) if reply is not None else None
        self.outcome = "failed" if error is not None and isinstance(error, Exception) else "abandoned" if error is not None else "watched"
        self.error = type(error).__name__ if error is not None else None
        if error is not None:
            self._note_refusal(error)
        if error is None and (failure := failure_in(reply)) is not None:
            self.outcome, self.error = "failed", failure.trouble
        self._span = self._call.router.telemetry.open_attempt(None, self, self._call, started_ns=started_ns, parent=parent)
        self._write(error)

    def settle_other(self, *, reply: object, usage: Usage | None, started_ns: int, error: BaseException | None) -> None:
        """Write the entry of a call whose answer was not used."""
        call, failure = self._call, failure_behind(error) if error is not None else None
        self._start(started_ns)
        self._reply = reply
        self._usage = usage if usage is not None else usage_in(reply) if reply is not None else None
        if error is not None:
            self._note_refusal(error)
        self.outcome = "failed" if isinstance(error, Exception) else "abandoned"
        if error is not None:
            self.error = failure.trouble if failure is not None else type(error).__name__
        if error is None:
            call.router.care.answered(self.key, self._begun)
        elif failure is not None and call.router.care.failed(self.key, failure, self._begun):
            call.rests(self.deployment.name, failure.trouble)
        context = call.span.context if call.span is not None else None
        self._span = call.router.telemetry.open_attempt(None, self, call, started_ns=started_ns, parent=context)
        self._write(error, aside=True)

    def _start(self, started_ns: int) -> None:
        """Note when the call began. What follows is dated by the time that has passed since: the clock may be set back meanwhile."""
        self._started_ns = started_ns
        self._since_ns = time.perf_counter_ns() - max(time.time_ns() - started_ns, 0)
        if self.first_chunk_ns is not None:
            self.first_chunk_ns = min(max(self.first_chunk_ns, started_ns), self._now_ns())

    def _now_ns(self) -> int:
        return self._started_ns + time.perf_counter_ns() - self._since_ns

    def _take(self, reply: object, usage: Usage | None) -> None:
        self._reply = reply
        self._usage = usage if usage is not None else usage_in(reply) or self._usage

    def _consultations(self, reply: object, validated: bool | None) -> Generator[tuple[Judge, Consultation]]:
        """The judges to ask about a reply, one at a time, until one of them rejects it.

        Nobody is asked where a rejection would lead nowhere (on the top tier, outside enforce mode, after words have reached the caller)
        and where another check rejects the reply anyway.
        """
        call, policy = self._call, self._call.router.policy
        self._opinions = {}
        if call.mode != "enforce" or self._committed or self.row.rank >= policy.tiers.top:
            return
        due = [judge for judge in policy.judges if judge.wants(call.step, task_class=self._decision.task_class, tier=self.tier)]
        if (
            not due
            or failure_in(reply) is not None
            or self._judge(reply, validated=validated) is not None
            or (read := self._read(reply, validated)) is None
        ):
            return
        for judge in due:
            yield (
                judge,
                Consultation(
                    call,
                    decision=self._decision,
                    model=judge.model,
                    timeout_s=judge.timeout_s,
                    question=lambda judge=judge: judge.question(call.step, read),
                    read=judge.verdict,
                    attempt=self.number,
                ),
            )
            if judge(call.step, replace(read, opinions=self._opinions)) is not None:
                return

    def _said(self, judge: Judge, verdict: str | None, trouble: str) -> None:
        """Note what a judge said; one that said nothing has no say."""
        if not trouble and verdict is not None and self._opinions is not None:
            self._opinions[judge] = verdict

    def _judge(self, reply: object, *, validated: bool | None = None, only_alarms: bool = False) -> Rejection | None:
        call = self._call
        read = self._read(reply, validated)
        if read is None:
            return None
        policy = call.router.policy
        found = inspect(policy.checks, call.step, read, quoting=policy.capture_evidence)
        return found if found is not None and (found.alarm or not only_alarms) else None

    def _read(self, reply: object, validated: bool | None) -> Reply | None:
        """A reply as the checks see it; None where it cannot be read."""
        call = self._call
        try:
            served = self._served = served_model_of(reply)
            read = reply_of(
                reply,
                asked_model=self.model,
                served_model=served,
                served_rank=None if served is None else self._served_rank(served),
                obligation=call.decision.settlement.obligation if call.mode == "enforce" else 0,
                forced_tools=call.forced_tools,
                validated=validated,
            )
        except Exception as trouble:
            self._complain(f"a reply of step {call.step.id} cannot be read; it is not judged", trouble)
            return None
        if read.tool_calls and call.tool_schemas is not None:
            try:
                read = replace(read, tool_schemas=call.tool_schemas())
            except Exception as trouble:
                self._complain(f"the tools' schemas of step {call.step.id} cannot be had; its tool calls are judged without them", trouble)
        return replace(read, opinions=self._opinions) if self._opinions else read

    def _complain(self, what: str, trouble: Exception) -> None:
        complain(what, trouble, quoting=self._call.router.policy.capture_evidence)

    def _served_rank(self, served: str) -> int | None:
        tiers, prices = self._call.router.policy.tiers, self._call.router.prices
        rank = tiers.rank_of_model(served)
        own = tiers.rank_of_model(self.model)
        if rank is None and not same_model(served, self.model):
            # a name of no tier: a model that costs less than the one asked for counts as a lower one
            try:
                lower = prices.card(served, provider=self.deployment.provider) or prices.card(served)
                asked = prices.sold(self.deployment) or prices.card(self.deployment.price_key)
            except Exception as trouble:
                self._complain(f'the price of "{served}" cannot be read; nobody knows whether it is a lower model', trouble)
                return None
            if lower is not None and asked is not None and lower.prompt_rate < asked.prompt_rate:
                return max(self.row.rank - 1, 0)
        # a model may serve several tiers; the one asked for counts
        return self.row.rank if rank == own else rank

    def _failed(self, error: BaseException) -> bool:
        """Note the error; true when another attempt follows, so that it need not surface."""
        self.outcome = "failed" if isinstance(error, Exception) else "abandoned"
        failure = failure_behind(error)
        self.error = failure.trouble if failure is not None else type(error).__name__
        self._call.note(f"{self.model} ({self.deployment.name}): {words(self.error)}")
        self._note_refusal(error)
        if failure is None:
            return False
        self._go_on(failure)
        if self.follow_up is None and self._call.decision.floored and self._call.mode == "enforce":
            error.add_note(f"routed-agents: {self._call.stopped_message('no_eligible_tier')}")
        return self.follow_up is not None

    def _note_refusal(self, error: BaseException) -> None:
        """Note that a call which ended so used nothing, where nothing can have been used; not where words had come before."""
        if self._usage is None and refused(error):
            self._usage = Usage()
            self._unbilled = unbilled(error) and self.first_chunk_ns is None

    def _look_for_a_lower_model(self) -> None:
        """Sound the alarm where a lower model answered than the step, decided for this node before, may go to.

        Its answer is used already, so nothing is rejected; whoever built the graph has to know.
        """
        call, decider = self._call, self._call.decided_by
        if decider is None or decider.policy.mode != "enforce" or not (obligation := self._decision.settlement.obligation):
            return
        floor = decider.policy.tiers[min(obligation, decider.policy.tiers.top)].name
        answered = served_model_of(self._reply) if self._reply is not None else None
        if not any(tiers.is_below(answered or self.model, floor) for tiers in (call.router.policy.tiers, decider.policy.tiers)):
            return
        self.alarmed = True
        self.rejection = Rejection(check="served_model", code="served_model_below_floor", alarm=True)
        call.router.warn_once(
            f'node "{call.decided_for}": {answered or self.model} answered a step that must not go below tier {floor}; '
            f"have the node call a model of that tier, or name another node for it in `to`"
        )

    def _go_on(self, failure: Failure) -> None:
        """Tell of a deployment's trouble, and plan where the step goes on, unless words of this attempt have reached the caller."""
        if self._call.router.care.failed(self.key, failure, self._begun):
            self._call.rests(self.deployment.name, failure.trouble)
        if failure.trouble in ("denied", "model_not_found"):
            self._call.router.warn_once(
                f'"{self.model}" of tier {self.row.name}: {words(failure.trouble)} ({failure.status}); mend its key or name'
            )
        if not self._committed:
            self.follow_up = self._call.plan_after(self, failure=failure)

    def _write(self, error: BaseException | None, *, aside: bool = False) -> None:
        """Entry, span and metrics; whatever goes wrong here is our trouble and never the caller's."""
        call, telemetry = self._call, self._call.router.telemetry
        if (entry := self._settled) is not None:
            call.entries.pop()
        try:
            if self.outcome == "watched":
                self._look_for_a_lower_model()
            if entry is None or entry.usage != self._usage:  # more was told after the last words
                entry = self._entry(final=not aside and self.follow_up is None)
        except Exception as trouble:
            self._complain(f"an attempt of step {call.step.id} could not be written down", trouble)
            telemetry.dropped(1)
            telemetry.end(self._span)
            return
        (call.asides if aside else call.entries).append(entry)
        try:
            call.router.ledger.append(entry)
        except Exception as trouble:
            self._complain(f"an attempt of step {call.step.id} could not be put into the ledger", trouble)
            telemetry.dropped(1)
        telemetry.close_attempt(self._span, entry, error, followed=self.follow_up is not None, repairs=self.repairs, reply=self._reply)
        self._span = None

    def _entry(self, *, final: bool) -> Entry:
        """What is booked; the baseline is set beside the step's final attempt."""
        call, router, decision = self._call, self._call.router, self._decision
        usage = self._usage
        if usage is None:
            usage = self._estimate()
        served = self._served or (served_model_of(self._reply) if self._reply is not None else None)
        model = served or self.model
        cost, source = self._cost(model, usage)
        tiers = router.policy.tiers
        top = tiers[tiers.top]
        decider = call.decided_by or router
        chosen = next((tier for tier in decider.policy.tiers if tier.name == decision.tier), None) if decision else None
        return Entry(
            step_id=call.step.id,
            attempt=self.number,
            run=call.step.run,
            thread=call.thread,
            lineage=call.key or None,
            node=call.step.node,
            labels=call.labels,
            task_class=decision.task_class if decision else "unknown",
            tier=self.row.name,
            rank=self.row.rank,
            pinned=bool(decision and decision.floored),
            model=self.model,
            served_model=served,
            provider=self.deployment.provider,
            deployment=self.deployment.name or None,
            usage=usage,
            cost=cost,
            baseline_pico=self._cost_on(top, usage, cost, model) if final and not self.alarmed and not usage.output_unknown else None,
            baseline_model=top.model,
            codes=(*(decision.codes if decision else ()), *((f"check:{self.rejection.code}",) if self.rejection else ())),
            outcome=self.outcome or "abandoned",
            error=self.error,
            simulated=self.deployment.simulated or self.simulated or simulated(self._reply),
            mode="watch" if self._watched and call.decided_by is None else decider.policy.mode,
            decided_tier=(decision.tier or "stop") if decision else self.row.name,
            decided_model=chosen.model if chosen is not None else None,
            decided_pico=self._cost_on(chosen, usage, cost, model) if chosen is not None else None,
            top=self.row.name == top.name,
            policy_hash=router.policy.hash,
            price_source=source,
            started_ns=self._started_ns,
            ended_ns=self._now_ns(),
            first_chunk_ns=self.first_chunk_ns,
            decision_ns=call.decision_ns or None,
            escalated_from=previous.tier
            if (previous := call.entries[-1] if call.entries else None) and previous.outcome == "rejected"
            else None,
        )

    def _cost(self, model: str, usage: Usage) -> tuple[Cost | None, str | None]:
        """What the call cost, and where its price is from; what a provider bills nobody for needs no price."""
        if self._free(usage):
            return Cost(), None
        return self._call.router.price(self.deployment, model, usage) if usage.source != "missing" else (None, None)

    def _free(self, usage: Usage) -> bool:
        """Whether nobody is billed: the request was turned down, or the answer came from LangChain's cache."""
        return self._unbilled or (self._reply is not None and usage == Usage())

    def _cost_on(self, tier: Tier, usage: Usage, cost: Cost | None, model: str) -> int | None:
        """What the same tokens would have cost on a tier; nominal, at this router's prices and with the same cache behaviour."""
        if usage.source == "missing":
            return None
        other = tier.deployments[0]
        if cost is not None and (self._free(usage) or (self.row.name == tier.name and model == other.model)):
            return cost.total_pico
        try:
            found = baseline(usage, card=self._call.router.prices.sold(other), factor=tokenizer_factor(model, other.price_key))
        except Exception:
            log.exception('what "%s" would have cost on tier %s cannot be computed', model, tier.name)
            return None
        return found.total_pico if found is not None else None

    def _estimate(self) -> Usage:
        """What a call that reported nothing used: prompt and reply by our upper bound when they were sent, else unknown."""
        decision = self._decision
        sent = self.outcome in ("abandoned", "accepted", "rejected") or self.error in CUT_OFF or self._committed
        if not sent or not decision:
            return Usage(source="missing")
        text = words_in(self._reply) if self._reply is not None else ""
        return Usage(input=decision.features.tokens, output=upper_tokens(len(text), text[:400]), source="estimated")
