"""A router opens calls for steps and holds what they share: policy, prices, ledger, telemetry and state."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from routed_agents.asking import Asker, Asking
from routed_agents.care import Care
from routed_agents.decisions import Decision
from routed_agents.environment import LEDGER, policy_in
from routed_agents.errors import ConfigurationError
from routed_agents.guards import Conditions
from routed_agents.health import Health
from routed_agents.judging import deployment_of
from routed_agents.ledger import Entry, Ledger
from routed_agents.policy import Policy
from routed_agents.pricing import Cost, Prices, PriceSource, Usage, seller_of
from routed_agents.router.calls import NOTHING_SPECIAL, RoutedCall
from routed_agents.router.labels import labelled, labels_of
from routed_agents.router.parts import check_part, described
from routed_agents.state import EMPTY, UNREAD, MemoryStateStore, StateStore, ThreadState, lineage_key, release_of
from routed_agents.steps import Step, check_step, new_id
from routed_agents.telemetry import MadeBy, Telemetry
from routed_agents.tiers import Deployment, Tier

log: Final = logging.getLogger("routed_agents")
WARNINGS: Final = 1_000
"""Different warnings of one router; what they quote may come from outside and must not fill the memory."""

_THREADS: Final = MemoryStateStore()
"""Pins and facts of this process's threads, for the routers that integrations make."""


class Router:
    """Policy, prices, ledger and telemetry in one: what every integration holds.

    Args:
        policy: the rules: a policy, the path of a policy file, or a preset of tiers like "claude"; the default policy when not given.
        ledger: where entries go; kept in memory when not given.
        prices: what tokens cost, `Prices` or a `PriceSource` of your own; the project's table and genai-prices when not given.
        telemetry: spans and metrics, through whatever OpenTelemetry providers are set; `Telemetry.off()` for none.
        store: where pins and facts live for threads without a graph channel; a memory of its own when not given.
        health: which deployments are in trouble; a breaker of its own when not given.
        asker: who asks the models that a policy's judges name; the providers' own SDKs when not given.

    Raises:
        ConfigurationError: one of them is something else.
        PolicyError: the policy file or preset cannot be used.
    """

    def __init__(
        self,
        policy: Policy | str | Path | None = None,
        *,
        ledger: Ledger | None = None,
        prices: Prices | PriceSource | None = None,
        telemetry: Telemetry | None = None,
        store: StateStore | None = None,
        health: Health | None = None,
        asker: Asker | Asking | None = None,
    ) -> None:
        if isinstance(policy, (str, Path)):
            policy = Policy.named(policy)
        if policy is not None and not isinstance(cast("object", policy), Policy):
            wanted = 'wanted a Policy, the path of a policy file, or a preset of tiers like "claude"'
            raise ConfigurationError(f"policy is {described(policy)}; {wanted}")
        for name, part in (("ledger", ledger), ("prices", prices), ("telemetry", telemetry), ("store", store), ("health", health)):
            check_part(name, part)
        if not isinstance(asker, Asking):
            check_part("asker", asker)
        self.policy = policy if policy is not None else Policy.default()
        self.ledger = ledger if ledger is not None else Ledger.memory()
        self.prices = Prices.of(prices)
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self.store = store if store is not None else MemoryStateStore()
        self._unwritten = MemoryStateStore()
        self.health = health if health is not None else Health()
        self.care = Care(self.health, self.policy.tiers)
        self.asking = Asking.of(asker, sdk_spans=self.telemetry.keeps_sdk_spans)
        self._warned: set[str] = set()
        if isinstance(cast("object", self.ledger), Ledger) and self.telemetry.enabled:
            self.ledger.tell_lost(self.telemetry.dropped)
        self._prepare_prices()
        if judges := self.policy.judge_models:
            self.asking.prepare([deployment_of(model) for model in judges])

    @classmethod
    def of(cls, given: Router | Policy | str | Path | None) -> Router:
        """A router from whatever an integration was handed: a router, what a router takes for its policy, or nothing, which is `from_env`.

        Those that are made here and by `from_env` know the same threads in one process, so that each knows what another heard of one.

        Raises:
            ConfigurationError: it was handed something else.
            PolicyError: the policy file or preset cannot be used.
        """
        if given is None:
            return cls.from_env()
        if isinstance(given, Router):
            return given
        if not isinstance(cast("object", given), (Policy, str, Path)):
            raise ConfigurationError(f"router is {described(given)}; wanted a Router, a Policy or the path of a policy file")
        return cls(given, store=_THREADS)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, policy: Callable[[], Policy] = Policy.default) -> Router:
        """A router from `ROUTED_AGENTS_POLICY` (a policy file or a tier preset), `_MODE` and `_LEDGER` (as for `Ledger.open`).

        Integrations that are handed no router go by it, so shadow mode can be switched on without touching code. Routers of one process
        that name the same ledger share it, and all of them know the same threads. Other variables of that prefix are named in one warning.

        Args:
            environ: where the variables are; the process's environment when not given.
            policy: makes the policy where the environment names none.

        Raises:
            ConfigurationError: a variable names a mode that doesn't exist.
            PolicyError: the policy file or preset cannot be used.
            LedgerError: there can be no ledger at that place.
        """
        env = os.environ if environ is None else environ
        found, ledger = policy_in(env, default=policy), env.get(LEDGER)
        return cls(found, ledger=Ledger.shared(ledger) if ledger else None, store=_THREADS)

    def replace(self, **changes: Any) -> Router:
        """A router with another policy, ledger, prices, telemetry, store, health or asker; the rest is shared."""
        parts: dict[str, Any] = {
            "policy": self.policy,
            "ledger": self.ledger,
            "prices": self.prices,
            "telemetry": self.telemetry,
            "store": self.store,
            "health": self.health,
            "asker": self.asking,
        }
        if unknown := [name for name in changes if name not in parts]:
            raise ConfigurationError(f"unknown part of a router: {', '.join(unknown)}; known parts: {', '.join(parts)}")
        router = Router(**{**parts, **changes})
        if router.store is self.store:
            router._unwritten = self._unwritten
        return router

    def __deepcopy__(self, memo: object) -> Router:
        return self  # a copied model or graph goes on writing in the same books

    def step(
        self,
        step: Step,
        *,
        thread: str | None = None,
        labels: Mapping[str, str] | None = None,
        namespace: str = "",
        branch: bool = False,
        lineage: str | None = None,
        state: ThreadState | None = None,
        memory: str | None = None,
        conditions: Conditions | None = None,
        forced_tools: bool = False,
        tool_schemas: Callable[[], Mapping[str, Mapping[str, Any]]] | None = None,
        parent: object = None,
        made_by: MadeBy = "caller",
    ) -> RoutedCall:
        """Open a step; use it with `with` or `async with`, and make its attempts inside.

        Args:
            step: the call about to be made.
            thread: the conversation or job it belongs to; pins and facts are kept per thread.
            labels: attribution that goes to spans and ledger, over the labels found in the step's metadata.
            namespace: LangGraph's checkpoint namespace of the caller.
            branch: the caller's node runs beside others of its name, as one started by `Send` does.
            lineage: names the lineage outright, in place of namespace and node.
            state: pins and facts of the thread, where the caller keeps them (a graph channel); else the store's.
            memory: the store's key for this call, the thread when not given. A caller with its own state names what outlives a lost
                write, as the task of a graph node does when the node is retried.
            conditions: what changes with the moment.
            forced_tools: the caller demands a tool call.
            tool_schemas: gives the JSON Schemas of the tools' arguments by name; asked when a reply calls one.
            parent: the OpenTelemetry context its span belongs under; the current one when not given.
            made_by: an integration that makes the call within `attempt.context`, where other instrumentation keeps still.

        Raises:
            StepError: `step` is none.
            ConfigurationError: `labels` is no mapping.
        """
        check_step(step)
        key = lineage if lineage is not None else lineage_key(node=step.node, namespace=namespace, branch=branch)
        step = labelled(step, labels)
        return RoutedCall(
            router=self,
            step=step,
            thread=thread,
            labels=labels_of(self.policy.labels, step.metadata, labels),
            key=key,
            namespace=namespace if lineage is None and not branch else "",
            state=state,
            memory=memory,
            conditions=conditions or NOTHING_SPECIAL,
            forced_tools=forced_tools,
            tool_schemas=tool_schemas,
            parent=parent,
            made_by=made_by,
        )

    def decide(
        self,
        step: Step,
        *,
        thread: str | None = None,
        labels: Mapping[str, str] | None = None,
        namespace: str = "",
        state: ThreadState | None = None,
    ) -> Decision:
        """Decide a step without making it: nothing is recorded, pinned or spent."""
        held = state if state is not None else self.state_of(thread)
        return self.policy.decide(labelled(step, labels), held, key=lineage_key(node=step.node, namespace=namespace))

    def state_of(self, thread: str | None) -> ThreadState:
        """Pins and facts of a thread: the store's, and those it could not take; one that cannot be read leaves its steps unsure."""
        if thread is None:
            return EMPTY
        beside = self._unwritten.load(thread)
        try:
            return self.store.load(thread).join(beside)
        except Exception:
            log.exception("the state store cannot be read; steps of thread %s count as unsure until it can", thread)
            return UNREAD.join(beside)

    def remember(self, thread: str | None, state: ThreadState) -> None:
        """Add pins and facts to a thread."""
        if thread is None or state is EMPTY:
            return
        try:
            self.store.add(thread, state)
        except Exception:
            log.exception("the state store cannot be written; pins and facts of thread %s hold in this process only", thread)
            self._unwritten.add(thread, state)

    def release(self, thread: str, *names: str) -> None:
        """Say that something is over on a thread: facts, and lineage and thread pins by their code, as they stand now.

        For threads whose pins this router's store keeps. A graph with a `routing` channel is told through the channel,
        `graph.update_state(config, {"routing": release("distress")})`, and one without it that has a LangGraph store through the store,
        `release_in(store, thread, "distress")`.

        Raises:
            StateError: no name was given.
        """
        self.remember(thread, release_of(names))

    def watch(
        self,
        *,
        model: str,
        reply: object,
        provider: str | None = None,
        usage: Usage | None = None,
        step: Step | None = None,
        decision: Decision | None = None,
        decided_by: Router | None = None,
        decided_for: str | None = None,
        thread: str | None = None,
        labels: Mapping[str, str] | None = None,
        key: str = "",
        started_ns: int,
        first_chunk_ns: int | None = None,
        error: BaseException | None = None,
        parent: object = None,
        made_by: MadeBy = "caller",
    ) -> Entry:
        """Record a call somebody else made and chose the model of: it is priced, never routed.

        `usage` is given where the reply doesn't hold it, as after a stream that was broken off, and `provider` where it is known who
        was called, by LangChain's name or ours. `decision` is what was decided for the call before it was made, `decided_by` the router
        that did, where it is another one, and `decided_for` the graph node that the decision led to.
        """
        rank = self.policy.tiers.rank_of_model(model)
        tier = self.policy.tiers[rank] if rank is not None else None
        watched = RoutedCall(
            router=self,
            step=step if step is not None else Step(id=decision.id if decision else new_id(), messages=()),
            thread=thread,
            labels=labels_of(self.policy.labels, step.metadata if step else {}, labels),
            key=key,
            state=None,
            memory=None,
            conditions=NOTHING_SPECIAL,
            forced_tools=False,
            made_by=made_by,
        )
        return watched.record_watched(
            decision=decision,
            decided_by=decided_by,
            decided_for=decided_for,
            model=model,
            tier=tier,
            deployment=_called(tier, model, provider),
            reply=reply,
            usage=usage,
            started_ns=started_ns,
            first_chunk_ns=first_chunk_ns,
            error=error,
            parent=parent,
        )

    def expect(self, model: str, provider: str | None = None) -> None:
        """Say that a call is about to be made that will be watched, so that its record waits for no price."""
        try:
            self.prices.expect(model, provider)
        except Exception:
            log.exception('the price of "%s" cannot be looked up', model)

    def warn_once(self, message: str, hint: Callable[[], str] | None = None) -> None:
        """Say once what will go wrong at every step; a mistake in the set-up must not hide behind failover.

        `hint` is what is said behind the message; it is worked out only when it is said.
        """
        if message not in self._warned and len(self._warned) < WARNINGS:
            self._warned.add(message)
            log.warning("%s%s", message, hint() if hint is not None else "")

    def price(self, deployment: Deployment, model: str, usage: Usage) -> tuple[Cost | None, str | None]:
        """The cost of a call at the price of the model that answered, and where that price is from."""
        try:
            return self._price(deployment, model, usage)
        except Exception:
            log.exception('the price of "%s" cannot be read; the call is recorded as unpriced', deployment.priced_as or model)
            return None, None

    def _price(self, deployment: Deployment, model: str, usage: Usage) -> tuple[Cost | None, str | None]:
        found = self.prices.sold(deployment, model)
        cost = found.cost(usage) if found is not None else None
        if found is None or cost is None:
            self.prices.misses[deployment.priced_as or model] += 1
            return None, None
        return cost, found.label

    def _prepare_prices(self) -> None:
        """Look up the tiers' prices now, so that no call waits for the table to load."""
        deployments = [each for tier in self.policy.tiers for each in tier.deployments]
        deployments += [deployment_of(judge) for judge in self.policy.judge_models]
        try:
            missing = self.prices.prepare(deployments)
            self._warn_of_order()
            self._warn_of_judges()
        except Exception:
            log.exception("prices cannot be read; calls are recorded as unpriced")
            return
        for model in missing:
            self._warn(f'no price is known for model "{model}": its calls are recorded as unpriced; give one in a price file')

    def _warn(self, text: str) -> None:
        """Say it once for all routers that share these prices: one with a narrowed policy has the trouble of the one it was made from."""
        if text not in self.prices.warned:
            self.prices.warned.add(text)
            log.warning("%s", text)

    def _warn_of_order(self) -> None:
        """A lower tier that is dearer than a higher one is a mistake nobody should find on the bill."""
        for below, above in self.prices.swapped(self.policy.tiers):
            self._warn(f'tier "{below.name}" ({below.model}) is dearer than tier "{above.name}" ({above.model}); are they swapped?')

    def _warn_of_judges(self) -> None:
        """A judge that is as dear as the strong tier costs more than it can save."""
        tiers = self.policy.tiers
        top = self.prices.sold(tiers[tiers.top].deployments[0])
        for judge in self.policy.judge_models:
            found = self.prices.sold(deployment_of(judge))
            if top is not None and found is not None and found.prompt_rate >= top.prompt_rate:
                self._warn(f'judge "{judge}" is as dear as the strong tier: judging costs more than it can save; name a small model')


def _called(tier: Tier | None, model: str, provider: str | None) -> Deployment:
    """Where a watched call went: to a deployment of its tier, or to another seller of that model."""
    seller, all_of_it = seller_of(provider), tier.deployments if tier is not None else ()
    own = [each for each in all_of_it if each.priced_as or each.simulated or seller is None or seller_of(each.provider) in (None, seller)]
    if own:  # LangChain names the class that speaks to it: behind a gateway's address that is not who sells
        return next((each for each in own if each.model == model), own[0])
    return Deployment(model=model, provider=provider) if seller is not None else Deployment.parse(model)
