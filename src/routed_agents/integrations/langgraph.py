"""A LangGraph node that decides which node goes next, by the tier the step may use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langgraph.graph import END
from langgraph.types import Command, Send, interrupt
from typing_extensions import override

from routed_agents.decisions import Decision
from routed_agents.errors import ConfigurationError, StateError, StepStopped
from routed_agents.integrations.observer import CostObserver
from routed_agents.integrations.position import CHANNEL, READ, Position, position_of, send_state
from routed_agents.policy import Policy
from routed_agents.router import RoutedCall, Router
from routed_agents.state import ThreadState, join
from routed_agents.steps import Step, field_of

HUMAN: Final = "human"
"""The key of `to` that a stopped step goes to: a person, not a model."""

__all__ = ["HUMAN", "RouterNode", "facts", "join", "observed"]


class RouterNode(Runnable[Any, Any]):
    """Decides the step a graph is about to make, and goes to the node of its tier.

    Add it like any node; the graph's state needs a `routing` channel that keeps pins and facts:

        class State(MessagesState):
            routing: Annotated[dict, join]

        builder.add_node("router", RouterNode(router, to={"cheap": "quick", "strong": "deep", "human": "handoff"}))

    Args:
        router: a router, a policy or the path of a policy file.
        to: the node for each tier of the policy; a tier left out narrows the policy. `human` names the node for a step that stops.
        task_class: the class of the step, when the graph's author knows it.
        system: the system prompt of the nodes behind it, so that the instruction is known here.
        tools: the tools they bind.
        messages_key: the state key that holds the messages.
        select: reads the step out of the state, for states without messages: a string, messages, or a whole `Step`.

    Raises:
        PolicyError: `to` names a tier that the policy doesn't have.
    """

    def __init__(
        self,
        router: Router | Policy | str | None = None,
        *,
        to: Mapping[str, str],
        task_class: str | None = None,
        system: str | None = None,
        tools: Sequence[object] = (),
        messages_key: str = "messages",
        select: Callable[[Any], Step | str | Sequence[object]] | None = None,
    ) -> None:
        if not to:
            raise ConfigurationError('RouterNode was given no node to go to; wanted to={"cheap": "…", "strong": "…"}')
        given = Router.of(router)
        tiers = [name for name in to if name != HUMAN]
        policy = given.policy if tuple(tiers) == given.policy.tiers.names else given.policy.narrowed(tiers)
        self.router = given if policy is given.policy else given.replace(policy=policy)
        self.to = dict(to)
        self._task_class = policy.taxonomy.row(task_class).key if task_class is not None else None
        self._system = system
        self._tools = tuple(tools)
        self._messages_key = messages_key
        self._select = select

    @property
    def destinations(self) -> tuple[str, ...]:
        """The nodes it may go to, for `add_node(..., destinations=...)`, which draws them."""
        return tuple(dict.fromkeys(self.to.values()))

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Command[Any]:
        config = ensure_config(config)
        position = position_of(cast("Mapping[str, Any]", config))
        if position.state is None:
            raise StateError(_no_channel(config))
        call = self._call(self._step(input, config, position), position)
        with call:
            decision = call.decision
            if decision.stopped and call.mode == "enforce":
                return self._stopped(call, decision)
            tier = self.router.policy.tiers[call.acting_rank].name
            _announce(config, self.to[tier], decision, call)
            return Command(goto=self.to[tier], update={CHANNEL: decision.state.to_json()})

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Command[Any]:
        return self.invoke(input, config)  # deciding is pure and instant, so there is nothing to wait for

    def edge(self, state: Any) -> Hashable | Send:
        """The next node's name, for a conditional edge: `add_conditional_edges("triage", node.edge, [*node.destinations])`."""
        config = ensure_config()
        command = self.invoke(state, config)
        send_state(cast("Mapping[str, Any]", config), ThreadState.from_json(cast("dict[str, Any]", command.update)[CHANNEL]))
        return cast("Hashable", command.goto)

    def decide(self, state: Any, config: RunnableConfig | None = None) -> Decision:
        """Decide without going anywhere; nothing is recorded."""
        config = ensure_config(config)
        position = position_of(cast("Mapping[str, Any]", config))
        return self.router.decide(self._step(state, config, position), namespace=position.namespace, state=position.state)

    def _call(self, step: Step, position: Position) -> RoutedCall:
        return self.router.step(
            step,
            thread=position.thread,
            namespace=position.namespace,
            branch=position.branch,
            state=position.state,
            memory=f"task:{position.namespace}",
        )

    def _step(self, state: Any, config: RunnableConfig, position: Position) -> Step:
        chosen = self._select(state) if self._select is not None else field_of(state, self._messages_key)
        metadata = cast("Mapping[str, object]", config.get("metadata") or {})
        if isinstance(chosen, Step):
            known = {**metadata, **chosen.metadata}
            return replace(chosen, node=chosen.node or position.node, run=chosen.run or position.run, metadata=known)
        if chosen is None:
            raise ConfigurationError(
                f'the graph\'s state has no "{self._messages_key}"; name the key with messages_key=, or say what the step is with select='
            )
        return Step.from_messages(
            cast("Sequence[object] | str", chosen),
            system=self._system,
            tools=self._tools,
            task_class=self._task_class,
            node=position.node,
            metadata=metadata,
            run=position.run,
        )

    def _stopped(self, call: RoutedCall, decision: Decision) -> Command[Any]:
        message = call.stopped_message(decision.stopped or "")
        choice = self.router.policy.on_stop
        update = {CHANNEL: decision.state.to_json()}
        if HUMAN in self.to:
            return Command(goto=self.to[HUMAN], update=update)
        if choice == "end":
            return Command(goto=END, update=update)
        if choice == "interrupt":
            interrupt({"stopped": decision.stopped, "message": message, "decision": decision.to_record()})
            return Command(goto=END, update=update)
        if choice != "raise":
            return Command(goto=choice, update=update)
        raise StepStopped(message, decision=decision)


def observed(graph: Any, router: Router | Policy | str | None = None) -> Any:
    """The compiled graph with an observer that prices the calls of plain models in its nodes.

    Args:
        graph: a compiled graph; a builder is compiled first.
        router: the router whose ledger and spans the calls go to.
    """
    compiled = graph.compile() if hasattr(graph, "compile") else graph
    return compiled.with_config(callbacks=[CostObserver(router)])


def facts(*names: str) -> dict[str, Any]:
    """A node's return value for the `routing` channel that notes facts about the thread: `{"routing": facts("distress")}`."""
    return ThreadState(facts=frozenset(names)).to_json()


def _announce(config: RunnableConfig, node: str, decision: Decision, call: RoutedCall) -> None:
    """Tell an observer of this run what was decided for the node that comes next."""
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return
    for handler in callbacks.handlers:
        if isinstance(handler, CostObserver):
            handler.expect(callbacks.parent_run_id, node, decision, call.span.context if call.span is not None else None)


def _no_channel(config: RunnableConfig) -> str:
    inside = cast("Mapping[str, Any]", config.get("configurable") or {}).get(READ) is not None
    if not inside:
        return "RouterNode was called outside a graph; add it with builder.add_node, or decide a step with router.decide"
    return (
        'the graph\'s state has no "routing" key, so pins would be lost; wanted `routing: Annotated[dict, join]` in the state schema '
        "(from routed_agents import join)"
    )
