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
from routed_agents.integrations import shelf
from routed_agents.integrations.channels import CHANNEL, READ, has_channel
from routed_agents.integrations.labels import labels_at
from routed_agents.integrations.node_writes import send_update
from routed_agents.integrations.observer import CostObserver, heard_by
from routed_agents.integrations.position import Position, position_of
from routed_agents.integrations.reducers import trouble_with
from routed_agents.integrations.resuming import aresumed, resumed
from routed_agents.integrations.stopping import told
from routed_agents.integrations.watching import watch
from routed_agents.policy import Policy
from routed_agents.router import RoutedCall, Router
from routed_agents.state import EMPTY, ThreadState, join, lineage_key, release_of, thread_facts
from routed_agents.steps import Step, field_of

HUMAN: Final = "human"
"""The key of `to` that a stopped step goes to: a person, not a model."""

__all__ = ["HUMAN", "RouterNode", "arelease_in", "facts", "join", "observed", "release", "release_in", "watch"]


class RouterNode(Runnable[Any, Any]):
    """Decides the step a graph is about to make, and goes to the node of its tier.

    Add it like any node; the graph's state needs a `routing` channel that keeps pins and facts:

        class State(MessagesState):
            routing: Annotated[dict, join]

        builder.add_node("router", RouterNode(router, to={"cheap": "quick", "strong": "deep", "human": "handoff"}))

    The step it decides is the one made in the node it goes to: they share a lineage, so a routed model in there agrees with it. In a
    branch started by `Send` it sends the branch's own state on, for by name the next node would get the graph's. Static edges from it
    are followed besides, as from any node that returns a `Command`; give it none.

    Args:
        router: a router, a policy or the path of a policy file.
        to: the node for each tier of the policy; a tier left out narrows the policy. `human` names the node for a step that stops.
            Without it the node only annotates: pins, facts and the decision go into the state, and the graph's edges lead on.
        task_class: the class of the step, when the graph's author knows it.
        system: the system prompt of the nodes behind it, so that the instruction is known here.
        tools: the tools they bind.
        messages_key: the state key that holds the messages.
        select: reads the step out of the state, for states without messages: a string, messages, or a whole `Step`.
        decision_key: a state key that gets the decision's record.
        graph: whose nodes `to` names: this graph's, or with `Command.PARENT` those of the graph around it.

    Raises:
        PolicyError: `to` names a tier that the policy doesn't have.
        ConfigurationError: `to` is no mapping from tiers to names of nodes.
    """

    decides_only: Final = True
    """It makes no model call of its own."""

    def __init__(
        self,
        router: Router | Policy | str | None = None,
        *,
        to: Mapping[str, str] | None = None,
        task_class: str | None = None,
        system: str | None = None,
        tools: Sequence[object] = (),
        messages_key: str = "messages",
        select: Callable[[Any], Step | str | Sequence[object]] | None = None,
        decision_key: str | None = None,
        graph: str | None = None,
    ) -> None:
        if to is not None and not to:
            raise ConfigurationError('RouterNode was given no node to go to; wanted to={"cheap": "…", "strong": "…"}, or no `to` at all')
        _check_nodes(to)
        given = Router.of(router)
        policy = given.policy
        if to is not None and tuple(tiers := [name for name in to if name != HUMAN]) != policy.tiers.names:
            policy = policy.narrowed(tiers)
        self.router = given if policy is given.policy else given.replace(policy=policy)
        self.to = dict(to or {})
        self._task_class = policy.taxonomy.row(task_class).key if task_class is not None else None
        self._system = system
        self._tools = tuple(tools)
        self._messages_key = messages_key
        self._select = select
        self._decision_key = decision_key
        self._graph = graph

    @property
    def destinations(self) -> tuple[str, ...]:
        """The nodes it may go to, for `add_node(..., destinations=...)` and conditional edges."""
        if self._graph is not None:
            return ()
        return tuple(dict.fromkeys([*self.to.values(), *([] if HUMAN in self.to or not self._stop_at else [self._stop_at])]))

    @property
    def _stop_at(self) -> str:
        """Where a stopped step goes that no node of `to` takes; empty when it is raised."""
        choice = self.router.policy.on_stop
        return {"raise": "", "end": END, "interrupt": END}.get(choice, choice)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Command[Any] | dict[str, Any]:
        config = _whole(config)
        position = self._position(config)
        call = self._call(input, config, position)
        known = shelf.load(self.router, position)
        call.hold(self._held(position, known), resumed=resumed(self.router, position, known, call.step.messages))
        decided = self._decided(call, input, config, position)
        shelf.keep(self.router, position, call.decision.state)
        return self._command(*decided)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Command[Any] | dict[str, Any]:
        config = _whole(config)
        position = self._position(config)
        call = self._call(input, config, position)
        known = await shelf.aload(self.router, position)
        call.hold(self._held(position, known), resumed=await aresumed(self.router, position, known, call.step.messages))
        if self.router.policy.judge is not None:
            await call.consult()
        decided = self._decided(call, input, config, position)
        await shelf.akeep(self.router, position, call.decision.state)
        return self._command(*decided)

    def edge(self, state: Any) -> Hashable | Send:
        """The next node's name, for a conditional edge: `add_conditional_edges("triage", node.edge, [*node.destinations])`."""
        if not self.to:
            raise ConfigurationError('RouterNode serves as an edge only where it knows nodes to go to; wanted to={"cheap": "…", …}')
        config = ensure_config()
        position = self._position(config)
        call = self._call(state, config, position)
        known = shelf.load(self.router, position)
        call.hold(self._held(position, known), resumed=resumed(self.router, position, known, call.step.messages))
        update, goto = self._decided(call, state, config, position, edge=True)
        shelf.keep(self.router, position, call.decision.state)
        send_update(cast("Mapping[str, Any]", config), update)
        return cast("Hashable", goto)

    def decide(self, state: Any, config: RunnableConfig | None = None) -> Decision:
        """Decide without going anywhere; nothing is recorded."""
        config = ensure_config(config)
        position = position_of(cast("Mapping[str, Any]", config))
        step, labels = self._step(state, config, position), self._labels(config, position)
        if position.state is None:
            held = (position.left or EMPTY).join(position.around)
            return self.router.decide(step, labels=labels, namespace=position.namespace, state=held)
        known = shelf.load(self.router, position)
        step = replace(step, resumed=resumed(self.router, position, known, step.messages))
        return self.router.decide(step, labels=labels, namespace=position.namespace, state=self._held(position, known))

    def _command(self, update: dict[str, Any], goto: str | Send | None) -> Command[Any] | dict[str, Any]:
        return update if goto is None else Command(goto=cast("Any", goto), update=update, graph=self._graph)

    def _position(self, config: RunnableConfig) -> Position:
        position = position_of(cast("Mapping[str, Any]", config))
        if position.state is None:
            raise StateError(_no_channel(config))
        if self._decision_key is not None and not has_channel(cast("Mapping[str, Any]", config), self._decision_key):
            raise ConfigurationError(
                f'the graph\'s state has no "{self._decision_key}" for the decision; add it, or name another decision_key='
            )
        return position

    def _decided(
        self, call: RoutedCall, state: Any, config: RunnableConfig, position: Position, *, edge: bool = False
    ) -> tuple[dict[str, Any], str | Send | None]:
        """What goes into the graph's state, and the node that comes next; None where the node only annotates."""
        with call:
            decision = call.decision
            if not decision.stopped or call.mode != "enforce":
                goto = self.to[self.router.policy.tiers[call.acting_rank].name] if self.to else None
                if goto is not None:
                    _announce(config, goto, decision, self.router, call, up=self._runs_out(edge=edge))
                return self._update(decision, position, goto), self._sent(goto, state, position)
            if HUMAN not in self.to and not self._stop_at:
                raise StepStopped(call.stopped_message(decision.stopped), decision=decision)
        if HUMAN not in self.to and self.router.policy.on_stop == "interrupt":
            stop = StepStopped(call.stopped_message(decision.stopped), decision=decision)
            interrupt(told(stop, call))
        goto = self.to.get(HUMAN) or self._stop_at
        return self._update(decision, position, None), self._sent(goto, state, position)

    def _runs_out(self, *, edge: bool) -> int:
        """How far out the run of the graph with the nodes it goes to is: an edge runs inside a node, and so does an inner graph."""
        return 3 if self._graph is not None else 2 if edge else 1

    def _update(self, decision: Decision, position: Position, goto: str | None) -> dict[str, Any]:
        state = decision.state.of_thread() if position.branch else decision.state
        if state.pins and goto is not None:
            key = lineage_key(node=None, namespace=self._beside(position, goto))
            state = replace(state, pins=frozenset([replace(pin, key=key) if pin.key == decision.key else pin for pin in state.pins]))
        return {CHANNEL: state.to_json(), **({self._decision_key: decision.to_record()} if self._decision_key is not None else {})}

    def _held(self, position: Position, known: ThreadState | None) -> ThreadState:
        """The pins and facts that hold here: what holds for a node it goes to holds for the step that is decided for it."""
        state = known or EMPTY
        if not state.pins:
            return state
        own = lineage_key(node=position.node, namespace=position.namespace, branch=position.branch)
        keys = {lineage_key(node=None, namespace=self._beside(position, node)) for node in self._models}
        lent = frozenset([replace(pin, key=own) for pin in state.pins if pin.key and pin.key in keys])
        return state.join(ThreadState(lent)) if lent else state

    def _beside(self, position: Position, node: str) -> str:
        return position.beside(node, up=0 if self._graph is None else 1)

    @property
    def _models(self) -> tuple[str, ...]:
        return tuple([node for tier, node in self.to.items() if tier != HUMAN])

    def _downstream(self, position: Position) -> int | None:
        """Model steps that hang on the step that is decided: those behind the node that makes it; of several the fewest."""
        if position.watcher is None:
            return None
        if not self.to:
            return position.downstream
        found = [position.watcher.downstream(self._beside(position, node)) for node in self._models]
        known = [each for each in found if each is not None]
        return min(known) if len(known) == len(found) else None

    def _in_loop(self, position: Position) -> bool:
        """Whether the step that is decided is part of a loop, wherever it is made."""
        if position.watcher is None or not self.to:
            return position.in_loop
        return any(position.watcher.in_loop(self._beside(position, node)) for node in self._models)

    def _sent(self, goto: str | None, state: Any, position: Position) -> str | Send | None:
        if goto is None or goto == END or not position.branch:
            return goto
        return Send(goto, state)

    def _call(self, state: Any, config: RunnableConfig, position: Position) -> RoutedCall:
        return self.router.step(
            self._step(state, config, position),
            thread=position.thread,
            labels=self._labels(config, position),
            namespace=position.namespace,
            branch=position.branch,
            memory=position.memory,
            parent=position.parent,
        )

    def _labels(self, config: RunnableConfig, position: Position) -> dict[str, str]:
        return labels_at(position, cast("Mapping[str, Any]", config), self.router.policy.labels)

    def _step(self, state: Any, config: RunnableConfig, position: Position) -> Step:
        chosen = self._select(state) if self._select is not None else field_of(state, self._messages_key)
        metadata = cast("Mapping[str, object]", config.get("metadata") or {})
        if isinstance(chosen, Step):
            return replace(
                chosen,
                node=chosen.node or position.node,
                run=chosen.run or position.run,
                at=chosen.at or position.at,
                metadata={**metadata, **chosen.metadata},
                task_class=chosen.task_class or self._task_class,
                downstream=chosen.downstream if chosen.downstream is not None else self._downstream(position),
                in_loop=chosen.in_loop or self._in_loop(position),
            )
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
            at=position.at,
            downstream=self._downstream(position),
            in_loop=self._in_loop(position),
        )


def _check_nodes(to: object) -> None:
    wanted = 'wanted to={"cheap": "…", "strong": "…"} with the names of nodes'
    if to is not None and not isinstance(to, Mapping):
        raise ConfigurationError(f"RouterNode was given to={to!r}; {wanted}")
    for tier, node in cast("Mapping[object, object]", to or {}).items():
        if not isinstance(node, str) or not node:
            raise ConfigurationError(f'RouterNode was given {node!r} as the node for tier "{tier}"; {wanted}')


def observed(graph: Any, router: Router | Policy | str | None = None) -> Any:
    """The compiled graph with an observer that prices the calls of plain models in its nodes.

    Args:
        graph: a compiled graph; a builder is compiled first.
        router: the router whose ledger and spans the calls go to.
    """
    compiled = graph.compile() if hasattr(graph, "compile") else graph
    return heard_by(CostObserver(router), compiled)


def facts(*names: str) -> dict[str, Any]:
    """A node's return value for the `routing` channel that notes facts about the thread: `{"routing": facts("distress")}`."""
    return thread_facts(names).to_json()


def release(*names: str) -> dict[str, Any]:
    """A node's return value for the `routing` channel that says something is over: `{"routing": release("distress")}`.

    A person says so from outside: `graph.update_state(config, {"routing": release("distress")})`. From then on the thread is free of what
    was noted before; what is noted later holds again. Whatever order parallel branches end in, and however often it is written, the state
    is the same.

    Turn pins end with their turn and are not released, so a reply of the turn that is going on doesn't come from a lower tier. Nothing but
    this channel releases: no message, stamp, metadata or tool result does. So keep the channel out of the graph's input where strangers
    choose the input.

    Args:
        names: facts, and codes of lineage and thread pins (`codes` of a decision, `code` in the channel).

    Raises:
        StateError: no name was given.
    """
    return release_of(names).to_json()


def release_in(store: Any, thread: str, *names: str) -> None:
    """Say in a graph's LangGraph store what `release` says in its channel: `release_in(store, "thread-1", "distress")`.

    For graphs without a `routing` channel, whose pins and facts are in the store they were compiled with; every process that shares it
    knows.

    Args:
        store: the graph's store.
        thread: the thread's id.
        names: facts, and codes of lineage and thread pins.

    Raises:
        StateError: no name was given.
    """
    shelf.release(store, thread, names)


async def arelease_in(store: Any, thread: str, *names: str) -> None:
    """`release_in` for asynchronous stores."""
    await shelf.arelease(store, thread, names)


def _whole(config: RunnableConfig | None) -> RunnableConfig:
    """The config with what is inherited from the node that runs; LangGraph gives its nodes a whole one, and merging takes 10 us."""
    return config if config is not None and READ in config.get("configurable", {}) else ensure_config(config)


def _announce(config: RunnableConfig, node: str, decision: Decision, router: Router, call: RoutedCall, *, up: int) -> None:
    """Tell an observer of this run what was decided for the node that comes next, whose graph is so many runs further out."""
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return
    context = call.span.context if call.span is not None else None
    for handler in callbacks.handlers:
        if isinstance(handler, CostObserver):
            handler.expect(callbacks.parent_run_id, node, decision, router, context, up=up)


def _no_channel(config: RunnableConfig) -> str:
    configurable = cast("Mapping[str, Any]", config.get("configurable") or {})
    if (trouble := trouble_with(configurable)) is not None:
        return trouble
    if configurable.get(READ) is None:
        return "RouterNode was called outside a graph; add it with builder.add_node, or decide a step with router.decide"
    return (
        'the graph\'s state has no "routing" key, so pins would be lost; wanted `routing: Annotated[dict, join]` in the state schema '
        "(from routed_agents import join)"
    )
