"""Hands a stopped step off to whoever takes over: a person, a node, or the end of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, BaseMessage

from routed_agents.errors import StepStopped
from routed_agents.integrations.channels import CHANNEL, has_node
from routed_agents.integrations.loops import nodes_of
from routed_agents.integrations.position import Position
from routed_agents.integrations.stopped_before import CALL, Visit
from routed_agents.router import RoutedCall
from routed_agents.steps import STAMP

KEPT: Final = ("raise", "end", "interrupt")
"""Values of `on_stop` that name no node."""
NAMESPACE: Final = "checkpoint_ns"
HANDED_OFF: Final = "This step was stopped and is handed to a person."
"""What stands for the reply of a stopped step, where an agent needs one to end."""


def can_hand_off(on_stop: str, position: Position) -> bool:
    """Whether a stopped step may become something else than an error: outside a graph there is nobody to take over."""
    return on_stop != "raise" and position.node is not None


def hand_off(stop: StepStopped, call: RoutedCall, position: Position, config: Mapping[str, Any], visit: Visit | None) -> BaseMessage:
    """Do what `on_stop` says with a stopped step inside a node.

    `interrupt` pauses the graph; when it is resumed with a text or a message, a person has answered, and that stands for the reply: also
    where the step could be made by then, for the node is run again and its questions are told apart by their order alone. `end`
    and a node's name leave the node at once, as a `Command` would, also out of a `@task`: what a static edge leads to still runs. A node
    is looked for in this graph first, then in those around it. A workflow of the functional API has no nodes, and ends with what it
    returns: `end` ends the graph around it.

    Raises:
        StepStopped: `on_stop` is "raise", there is no such node or no graph to end, or on resuming nobody gave an answer, or gave it to
            another question.
    """
    on_stop = call.router.policy.on_stop
    if not can_hand_off(on_stop, position):
        raise stop
    if on_stop == "interrupt":
        return _answer_of(stop, call, visit)
    from langgraph.errors import ParentCommand
    from langgraph.graph import END
    from langgraph.types import Command

    target = None if on_stop == "end" else on_stop
    graph = _graph_with(target, config)
    if graph is None:
        wanted = (
            f'names the node "{target}", which neither this graph nor one around it has'
            if target
            else 'is "end", but no graph is here to end'
        )
        stop.add_note(f"on_stop {wanted}")
        raise stop
    update = {CHANNEL: call.decision.state.to_json()} if position.state is not None else {}
    raise ParentCommand(Command(graph=graph, goto=target or END, update=update)) from None


def told(stop: StepStopped, call: RoutedCall) -> dict[str, Any]:
    """What an interrupt tells the person who takes over; plain JSON."""
    return {"stopped": _code(call), "message": str(stop), "decision": call.decision.to_record()}


def stopped_stamp(call: RoutedCall) -> dict[str, Any]:
    """The stamp of a reply that stands for a stopped step's."""
    return {**call.stamp(), "stopped": _code(call)}


def _code(call: RoutedCall) -> str:
    return call.decision.stopped or call.stopped_before or (call.alarms[-1].code if call.alarms else "stopped")


def _answer_of(stop: StepStopped, call: RoutedCall, visit: Visit | None) -> BaseMessage:
    from langgraph.types import interrupt

    question, asked = told(stop, call), True
    if visit is not None:
        asked = visit.before is not None
        question[CALL] = visit.stopped(_code(call)).to_json()
    try:
        answer: object = interrupt(question)
    except RuntimeError:  # the call was made in a thread that lost the run's context
        raise stop from None
    if not asked:
        stop.add_note("routed-agents: the answer at hand was given to another question of this node; put the step into a node of its own")
        raise stop
    if isinstance(answer, BaseMessage):
        return answer
    if not isinstance(answer, str):
        raise stop
    return AIMessage(content=answer, response_metadata={STAMP: stopped_stamp(call)})


def _graph_with(target: str | None, config: Mapping[str, Any]) -> str | None:
    """The name LangGraph knows the nearest graph by that has this node, or any: the namespace of the node in it that the step is in.

    A `@task` is no node and has a namespace within its caller's; a workflow of the functional API has no nodes.
    """
    for node, graph in nodes_of(cast("Mapping[str, Any]", config.get("configurable") or {})):
        above, below = (str(each.get(NAMESPACE) or "") for each in (graph["configurable"], node))
        own = below.split("|")[: above.count("|") + 2 if above else 1]
        if has_node({"configurable": node}, target or own[-1].partition(":")[0]):
            return "|".join(own)
    return None
