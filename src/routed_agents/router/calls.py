"""A routed call is one step on its way: a decision, and the attempts it takes."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, cast

from routed_agents.checks import Rejection
from routed_agents.decisions import Decision, words
from routed_agents.errors import ConfigurationError, StepStopped
from routed_agents.failures import Failure
from routed_agents.guards import STALLED, Conditions
from routed_agents.judging import Consultation
from routed_agents.ledger import Entry
from routed_agents.policy import Mode
from routed_agents.pricing import Usage
from routed_agents.questions import Opinion
from routed_agents.router.attempts import Attempt, Host
from routed_agents.state import ThreadState, lineage_key
from routed_agents.steps import Resumed, Step, carried_stamp
from routed_agents.telemetry import MadeBy, RouteSpan
from routed_agents.tiers import Deployment, Tier

NOTHING_SPECIAL: Final = Conditions()
QUOTED: Final = 60
"""Characters of a caller's text that a warning quotes."""
UNKNOWN_TIER: Final = Tier(name="unrouted", rank=0, deployments=(Deployment(model=""),))
"""Stands for the tier of a watched call whose model is in none of the policy's tiers."""


class RoutedCall:
    """One step on its way: a decision, the attempts it takes, and their record.

    An integration sets `handed_off` where somebody takes over from a stop, `pauses` to what is raised to go on later, which is no error,
    and `stopped_before` to the code of a stop that the same step came to before, where it must come to it again. `decided_by` is whose
    decision a watched call follows; None where nobody decided it. `decided_for` is the graph node it led to, in which the call is made.

    >>> from routed_agents import Router
    >>> router = Router()
    >>> with router.step(Step.from_messages("Classify the sentiment as positive or negative: lovely")) as call:
    ...     call.decision.tier
    'cheap'
    """

    def __init__(
        self,
        *,
        router: Host,
        step: Step,
        thread: str | None,
        labels: Mapping[str, str],
        key: str,
        state: ThreadState | None,
        memory: str | None,
        conditions: Conditions,
        forced_tools: bool,
        tool_schemas: Callable[[], Mapping[str, Mapping[str, Any]]] | None = None,
        parent: object = None,
        made_by: MadeBy = "caller",
        namespace: str = "",
    ) -> None:
        self.router = router
        self.step = step
        self.thread = thread
        self.labels = labels
        self.key = key
        self._namespace = namespace
        self.conditions = conditions
        self.forced_tools = forced_tools
        self.tool_schemas = tool_schemas
        self.parent = parent
        self.handed_off = False
        self.pauses: tuple[type[BaseException], ...] = ()
        self.stopped_before = ""
        self.made_by: MadeBy = made_by
        self.entries: list[Entry] = []
        self.asides: list[Entry] = []
        self.reply: object = None
        self.alarms: list[Rejection] = []
        self.decision: Decision = cast("Decision", None)
        self.decided_by: Host | None = None
        self.decided_for: str | None = None
        self.decision_ns = 0
        self._given_state = state
        self._memory = memory if memory is not None else thread
        self._span: RouteSpan | None = None
        self._history: list[str] = []
        self._consulted = False

    def hold(self, state: ThreadState | None, *, resumed: Resumed | None = None) -> None:
        """Give the pins and facts of the thread after all, before the step is entered; the store's hold where None is given."""
        self._given_state = state
        if resumed is not None:
            self.step = replace(self.step, resumed=resumed)

    async def consult(self) -> None:
        """Have the classifier's judge asked, where it may change the decision, without holding up the event loop; before entering.

        `async with` does it by itself. Nothing happens where the policy names no judge.
        """
        if (consultation := self._consultation()) is None:
            return
        try:
            self._hear(*await consultation.aask())
        except BaseException as error:
            self._close(error)
            raise

    def _consultation(self) -> Consultation | None:
        """The question whose answer could change the decision, if there is one."""
        policy, taxonomy = self.router.policy, self.router.policy.taxonomy
        judge = policy.judge
        if judge is None or self._consulted or self.mode == "off" or self.conditions.opinion is not None:
            return None
        self._consulted = True
        decision = self.decision = policy.decide(self.step, self._known(), self.conditions, key=self.key)
        if not policy.hears(decision):
            return None
        self._span = self.router.telemetry.begin_route(decision, self)
        return Consultation(
            self,
            decision=decision,
            model=judge.model,
            timeout_s=judge.timeout_s,
            question=lambda: judge.question(decision.features, taxonomy),
            read=lambda answer: judge.opinion(answer, taxonomy),
        )

    def _hear(self, opinion: Opinion | None, trouble: str) -> None:
        self.conditions = replace(self.conditions, opinion=opinion if opinion is not None else Opinion(trouble=trouble))

    def _known(self) -> ThreadState:
        """Pins and facts of the thread, the caller's and the store's."""
        state = self.router.state_of(self._memory)
        if self._given_state is not None:
            state = self._given_state.join(state)
        if state.pins and self._namespace:  # others went on beside it when it was begun, perhaps in another process
            state = state.lent(self.key, lineage_key(node=self.step.node, namespace=self._namespace, branch=True))
        return state

    def __enter__(self) -> RoutedCall:
        router = self.router
        if router.policy.judge is not None and (consultation := self._consultation()) is not None:
            try:
                self._hear(*consultation.ask())
            except BaseException as error:
                self._close(error)
                raise
        began = time.perf_counter_ns()
        state = self._known()
        if not self.conditions.now_s:
            self.conditions = replace(self.conditions, now_s=int(time.time())) if self.conditions is not NOTHING_SPECIAL else _now()
        self.decision = self._decide(state)
        self.decision_ns = time.perf_counter_ns() - began
        if self.decision.unsure:
            self._name_unknown()
        router.remember(self._memory, self.decision.state)
        self._span = router.telemetry.open_route(self.decision, self, self._span)
        return self

    def _name_unknown(self) -> None:
        """Say once what was asked for that nobody knows: such a step goes to the top, whatever was meant."""
        features, policy = self.decision.features, self.router.policy
        codes = {verdict.code for verdict in self.decision.verdicts}
        if "declared_class_unknown" in codes:
            self._warn_of("task_class", str(features.declared), "declared for a step", tuple(policy.taxonomy.rows))
        if "forced_tier_unknown" in codes:
            wanted = f'wanted "routed_agents": {{"tier": "{policy.tiers.names[-1]}"}}'
            self._warn_of("tier", str(features.forced), f"asked for by a step's metadata ({wanted})", policy.tiers.names)

    def _warn_of(self, what: str, given: str, where: str, known: Sequence[str]) -> None:
        message = f'unknown {what} "{_quoted(given)}" {where}, which goes to the top as unsure'
        self.router.warn_once(message, lambda: _hint(given, known))

    def _decide(self, state: ThreadState) -> Decision:
        """Decide, leaving resting deployments alone; where nothing else may answer they are asked after all."""
        policy, plain = self.router.policy, self.conditions
        if resting := self.router.care.resting():
            self.conditions = replace(plain, unavailable=plain.unavailable | resting)
            decision = policy.decide(self.step, state, self.conditions, key=self.key)
            if not decision.stopped:
                return decision
            self.conditions = plain
        return policy.decide(self.step, state, plain, key=self.key)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(error)

    async def __aenter__(self) -> RoutedCall:
        if self.router.policy.judge is not None:
            await self.consult()
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(error)

    @property
    def mode(self) -> Mode:
        return self.router.policy.mode

    @property
    def acting_rank(self) -> int:
        """The rank the attempt is made on: the decided one when the policy is enforced, else the top."""
        if self.mode == "enforce":
            return cast("int", self.decision.rank)
        return self.router.policy.tiers.top

    @property
    def span(self) -> RouteSpan | None:
        """The open route span, for integrations that make it current round their own calls."""
        return self._span

    def attempts(self) -> Generator[Attempt]:
        """The attempts to make, one at a time: the first, and another after a rejected reply or provider trouble.

        Raises:
            StepStopped: the policy says that the step must not be made, or no tier that may answer is left.
        """
        tier, deployment = self._begin()
        number = 1
        while True:
            attempt = Attempt(call=self, number=number, tier=tier, deployment=deployment)
            yield attempt
            if attempt.outcome is None or not attempt.entered:
                raise ConfigurationError(
                    "an attempt was not used; wanted `with attempt: attempt.record(reply)` for each of call.attempts()"
                )
            if attempt.withdrawn:
                tier, deployment = self._begin()
                continue
            number += 1
            if attempt.follow_up is None:
                if attempt.alarmed:
                    raise self._stopped("served_model_below_floor")
                return
            tier, deployment = attempt.follow_up

    def _begin(self) -> tuple[Tier, Deployment]:
        """Where the decision has the step made."""
        if self.mode == "enforce" and self.decision.stopped:
            raise self._stopped(self.decision.stopped)
        if self.mode == "enforce" and self.stopped_before:
            raise self._stopped(self.stopped_before)
        tier = self.router.policy.tiers[self.acting_rank]
        return tier, self._first_up(tier) or tier.deployments[0]

    def decide_again(self, step: Step, *, unusable: Mapping[str, str] | None = None) -> None:
        """Decide the step anew in the form in which it is sent; that may only raise it.

        Args:
            step: the step in that form.
            unusable: tiers that lack something the form needs besides, with what they lack.
        """
        began, router = time.perf_counter_ns(), self.router
        self.step = step
        if unusable:
            self.conditions = replace(self.conditions, unusable={**self.conditions.unusable, **unusable})
        decision = router.policy.decide_again(self.decision, step, self.conditions)
        if decision.stopped and (resting := router.care.resting()):  # where nothing else may answer they are asked after all
            self.conditions = replace(self.conditions, unavailable=self.conditions.unavailable - resting)
            decision = router.policy.decide_again(self.decision, step, self.conditions)
        self.decision = decision
        self.decision_ns += time.perf_counter_ns() - began
        router.remember(self._memory, decision.state)
        router.telemetry.decided_again(self._span, decision, self)

    def plan_after(
        self, attempt: Attempt, *, failure: Failure | None = None, rejection: Rejection | None = None
    ) -> tuple[Tier, Deployment] | None:
        """Where to go after a failed or rejected attempt: another deployment of its rank, or upward; None when nothing is left."""
        self._leave_alone({attempt.key})
        if self.mode != "enforce":
            up = self._first_up(attempt.row) if failure is not None or (rejection is not None and rejection.alarm) else None
            return (attempt.row, up) if up is not None else None
        if rejection is not None and rejection.alarm:
            up = self._first_up(attempt.row)
            return (attempt.row, up) if up is not None else None
        policy = self.router.policy
        if failure is not None:
            if failure.trouble != "context_overflow" and (up := self._first_up(attempt.row)) is not None:
                return attempt.row, up
            self._leave_alone(policy.tiers.keys(attempt.row))
            again = policy.resettle(self.decision, self.conditions)
        elif attempt.row.rank >= policy.tiers.top:
            return None
        else:
            again = policy.resettle(self.decision, self.conditions, at_least=attempt.row.rank + 1)
        if again.rank is None or (rejection is not None and again.rank <= attempt.row.rank):
            return None
        self.decision = again
        self.router.remember(self._memory, again.state)
        tier = policy.tiers[again.rank]
        up = self._first_up(tier)
        return (tier, up) if up is not None else None

    def stamp(self) -> dict[str, Any]:
        """What the reply carries under `response_metadata["routed_agents"]`: plain JSON, no content.

        The tier is the decided one, so that a policy in shadow pins as it would when enforced.
        """
        decision, tiers = self.decision, self.router.policy.tiers
        last = self.entries[-1] if self.entries else None
        made = (*self.entries, *self.asides)
        costs = [entry.cost for entry in made]
        known = [cost.total_pico for cost in costs if cost is not None]
        return {
            "v": 1,
            "step": self.step.id,
            "run": self.step.run,
            "at": self.step.at,
            "node": self.step.node,
            "task_class": decision.task_class,
            "tier": decision.tier,
            "rank": decision.rank,
            "top": last is not None and last.rank == tiers.top,
            "model": last.model if last else decision.model,
            "pin": decision.pin,
            "unsure": decision.unsure,
            "codes": list(decision.codes),
            "policy_hash": decision.policy_hash,
            "mode": self.mode,
            "attempts": len(self.entries),
            "rejected": self.rejected,
            "cost_pico": sum(known) if len(known) == len(costs) else None,
            "priced_pico": sum(known),
            "unpriced": len(costs) - len(known),
            "estimated": sum(entry.estimated for entry in made),
            "output_unknown": sum(entry.output_unknown for entry in made),
            "baseline_pico": last.baseline_pico if last is not None else None,
            "simulated": any(entry.simulated for entry in made),
        }

    @property
    def rejected(self) -> list[str]:
        """Codes of the answers the checks turned down; an alarm is the provider's doing, and no answer failed."""
        alarms = {alarm.code for alarm in self.alarms}
        codes = [code.removeprefix("check:") for entry in self.entries for code in entry.codes if code.startswith("check:")]
        return [code for code in codes if code not in alarms]

    def record_watched(
        self,
        *,
        decision: Decision | None,
        decided_by: Host | None,
        decided_for: str | None,
        model: str,
        tier: Tier | None,
        deployment: Deployment,
        reply: object,
        usage: Usage | None,
        started_ns: int,
        first_chunk_ns: int | None,
        error: BaseException | None,
        parent: object,
    ) -> Entry:
        """One entry and one leaf span for a call that is only watched."""
        if decision is not None:
            self.decision, self.decided_by, self.decided_for = decision, decided_by or self.router, decided_for or self.step.node
        elif self.step.messages:
            self.decision = self.router.policy.decide(self.step, self.router.state_of(self.thread), key=self.key)
        attempt = Attempt(call=self, number=1, tier=tier or UNKNOWN_TIER, deployment=deployment, watched=True)
        attempt.first_chunk_ns = first_chunk_ns
        attempt.settle_watched(reply=reply, usage=usage, started_ns=started_ns, error=error, parent=parent)
        return self.entries[-1]

    def stopped_message(self, code: str) -> str:
        """The stop in one line: what was seen, what was wanted, what to do."""
        decision, tiers = self.decision, self.router.policy.tiers
        floor = tiers[decision.settlement.obligation].name
        reasons = (
            ", ".join(words(each) for each in decision.codes)
            or ", ".join(words(pin.code or pin.scope) for pin in decision.pins)
            or "no reason"
        )
        tried = f"; tried: {'; '.join(self._history)}" if self._history else ""
        if code == STALLED:  # its evidence is counts, which quote nobody
            counts = next((verdict.evidence for verdict in decision.verdicts if verdict.code == code), "")
            return (
                f"step {self.step.id} ({decision.task_class}) stopped, {words(code)}: {counts}{tried}. "
                "Look at what the workflow is stuck on, or set on_stop to hand the step off"
            )
        return (
            f"step {self.step.id} ({decision.task_class}) stopped, {words(code)}: it must not go below tier {floor} ({reasons}){tried}. "
            "Make a deployment of that tier available, or set on_stop to hand the step off"
        )

    def note(self, line: str) -> None:
        """Add to the history of attempts that a stop shows."""
        self._history.append(line)

    def rests(self, deployment: str, why: str) -> None:
        """Note that a deployment is left alone from now on, in the history and on the span."""
        self.note(f"{deployment}: rests")
        self.router.telemetry.rests(self._span, deployment, why)

    @property
    def history(self) -> tuple[str, ...]:
        return tuple(self._history)

    def _stopped(self, code: str) -> StepStopped:
        return StepStopped(self.stopped_message(code), decision=self.decision, attempts=self.history)

    def _leave_alone(self, keys: Set[str]) -> None:
        self.conditions = replace(self.conditions, unavailable=self.conditions.unavailable | keys)

    def _first_up(self, tier: Tier) -> Deployment | None:
        usable = self.router.policy.deployments(tier, self.decision.features, self.conditions)
        return usable[0] if usable else None

    def _close(self, error: BaseException | None) -> None:
        if self._span is not None:
            if isinstance(error, self.pauses) or (self.handed_off and isinstance(error, StepStopped)):
                error = None  # somebody takes over, so nothing went wrong; the span of a stopped step says that it stopped
            self.router.telemetry.close_route(self._span, self, error)
            self._span = None


def _now() -> Conditions:
    return _conditions_at(int(time.time()))


@lru_cache(maxsize=2)
def _conditions_at(second: int) -> Conditions:
    """Nothing special but the time; the same value for all steps of a second."""
    return Conditions(now_s=second)


def _quoted(text: str) -> str:
    """The beginning of a text, on one line."""
    return repr(text[:QUOTED])[1:-1] + ("…" if len(text) > QUOTED else "")


def _hint(given: str, known: Sequence[str]) -> str:
    """What an unknown name may mean; a long text is no mistyped name, and comparing it takes long."""
    meant = difflib.get_close_matches(given, known, n=1) if len(given) <= QUOTED else []
    return f'; did you mean "{meant[0]}"?' if meant else f"; known: {', '.join(known)}"


def decision_of(message: object) -> dict[str, Any] | None:
    """The decision a routed reply carries, or None for any other message.

    Reads LangChain messages, replies of the routed SDK clients, final ones of `stream` too, and their streams once they have been read.
    """
    stamp = carried_stamp(message)
    return dict(stamp) if stamp is not None else None
