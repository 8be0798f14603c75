"""Times graphs and agents with routing in them against the same without, over real HTTP to a provider that answers at once."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from benchmarks.measure import Comparison, compare
from benchmarks.provider import beside
from benchmarks.routers import everything, quiet
from routed_agents import Router, RouterMiddleware, RouterNode, join
from routed_agents.integrations.langgraph import observed, watch

CHEAP, STRONG = "claude-haiku-5-5", "claude-opus-5-5"
NOTE = "one call of each case in turn; the provider runs in a process of its own and is simulated: it answers at once"
NODE_NOTE = f"{NOTE}; a node that only goes on is LangGraph's own cost of one more step"
AGENT_NOTE = f"{NOTE}; a middleware that only swaps is LangChain's own cost of that"
TO = {"cheap": "quick", "strong": "deep"}
ASKED = (
    "Classify the ticket as open or closed: the parcel with order {} is late",
    "Is this review positive or negative? Review {}: The boots came on Monday and they fit well.",
    "Extract the order number from this line: order {} was sent to Graz on Monday.",
    "Summarise in one sentence: meeting {} moved the launch to March, because the supplier of the lamps is late.",
    "Rewrite politely: send me invoice {} now.",
    "Which language is this, German or English? Die Rechnung {} ist bezahlt.",
    "Find out why the nightly job {} fails since Tuesday, step by step, and say what has to be changed in which order.",
    "Compare the offers of three suppliers for {} lamps and argue which one we should take in the long run.",
)
"""Short steps of a service desk, most of them for the cheap tier; the number keeps any two from being the same."""
ORDERS = (
    "Look up order {} and tell me where its parcel is now.",
    "Look up order {}, then track its parcel: where is it now?",
    "A customer asks about order {}. Look up the order and tell her where the parcel is.",
)
DESK = "You look after the orders of a shop. Look things up before you answer."


class Routed(MessagesState):
    """Messages, and the channel a router node keeps pins and facts in."""

    routing: Annotated[dict[str, Any], join]


@tool
def look_up_order(order: str) -> str:
    """Look up an order by its number: its state, its parcel number and the day it was sent."""
    return f'{{"order": "{order}", "state": "sent", "parcel": "P-{order}", "sent": "Monday"}}'


@tool
def track_parcel(parcel: str) -> str:
    """Track a parcel by its parcel number: where it is now."""
    return f'{{"parcel": "{parcel}", "place": "the depot in Graz"}}'


class Swap(AgentMiddleware[Any, Any, Any]):
    """A middleware that swaps the model and nothing else: what LangChain itself takes for that."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request.override(model=self._model))


def run(*, rounds: int = 30) -> list[Comparison]:
    """A router node before a node, a middleware in an agent, and a watched graph; each beside LangGraph's own share of it."""
    with tempfile.TemporaryDirectory() as place, beside() as url:
        options: dict[str, Any] = {"base_url": url, "api_key": "none", "max_retries": 0}
        cheap, strong = ChatAnthropic(model=CHEAP, **options), ChatAnthropic(model=STRONG, **options)
        routed_fully, close = everything(Path(place) / "on")
        try:
            return [
                _node(cheap, strong, routed_fully, rounds),
                _agent(cheap, strong, routed_fully, rounds),
                _watched(strong, routed_fully, rounds),
            ]
        finally:
            close()


def _node(cheap: Any, strong: Any, routed_fully: Router, rounds: int) -> Comparison:
    def routed(router: Router) -> Any:
        node = RouterNode(router, to=TO)
        return _behind(node, cheap, strong, Routed, destinations=node.destinations)

    def by_edge(router: Router) -> Any:
        node = RouterNode(router, to=TO)
        builder = StateGraph(Routed)
        builder.add_node("quick", _calling(cheap))
        builder.add_node("deep", _calling(strong))
        builder.add_conditional_edges(START, node.edge, [*node.destinations])
        return builder.compile()

    idle = _behind(lambda _: Command(goto="deep"), cheap, strong, MessagesState, destinations=("deep",))
    seen = quiet()
    cases = {
        "node": _asking(_one(strong)),
        "node that only goes on + node": _asking(idle),
        "router node + node": _asking(routed(quiet())),
        "router node + node, observed": _asking(observed(routed(seen), seen)),
        "the same, everything on": _asking(observed(routed(routed_fully), routed_fully)),
        "router as an edge + node": _asking(by_edge(quiet())),
    }
    return compare("graph, a router node before the node", cases, rounds=rounds * 8, calls=1, warmup=10, note=NODE_NOTE)


def _agent(cheap: Any, strong: Any, routed_fully: Router, rounds: int) -> Comparison:
    def agent(*middleware: Any) -> Callable[[], object]:
        return _asking(create_agent(strong, [look_up_order, track_parcel], system_prompt=DESK, middleware=middleware), ORDERS, messages=6)

    cases = {
        "create_agent": agent(),
        "middleware that only swaps": agent(Swap(strong)),
        "RouterMiddleware": agent(RouterMiddleware(quiet(), cheap=cheap)),
        "RouterMiddleware, no exporter set": agent(RouterMiddleware(cheap=cheap)),
        "RouterMiddleware, everything on": agent(RouterMiddleware(routed_fully, cheap=cheap)),
    }
    return compare("agent, three model calls and two tool calls", cases, rounds=rounds * 4, calls=1, warmup=5, note=AGENT_NOTE)


def _watched(strong: Any, routed_fully: Router, rounds: int) -> Comparison:
    cases = {
        "two nodes": _asking(_chain(strong)),
        "watched": _asking(watch(_chain(strong), quiet())),
        "watched, everything on": _asking(watch(_chain(strong), routed_fully)),
    }
    return compare("watched graph, two model calls", cases, rounds=rounds * 4, calls=1, warmup=5, note=NOTE)


def _one(model: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("deep", _calling(model))
    builder.add_edge(START, "deep")
    return builder.compile()


def _behind(first: Any, cheap: Any, strong: Any, schema: Any, *, destinations: Sequence[str]) -> Any:
    builder = StateGraph(schema)
    builder.add_node("router", first, destinations=tuple(destinations))
    builder.add_node("quick", _calling(cheap))
    builder.add_node("deep", _calling(strong))
    builder.add_edge(START, "router")
    return builder.compile()


def _chain(model: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("first", _calling(model))
    builder.add_node("second", _calling(model))
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    return builder.compile()


def _calling(model: Any) -> Callable[[Any], dict[str, Any]]:
    return lambda state: {"messages": [model.invoke(state["messages"][:1])]}


def _asking(graph: Any, texts: Sequence[str] = ASKED, *, messages: int | None = None) -> Callable[[], object]:
    """Runs the graph on the next text; `messages` are what every case has to end with, so that none makes fewer calls."""
    numbers = itertools.count(1000)

    def ask() -> object:
        number = next(numbers)
        result = graph.invoke({"messages": [("user", texts[number % len(texts)].format(number))]})
        if messages is not None and len(result["messages"]) != messages:
            raise RuntimeError(f"{len(result['messages'])} messages; wanted {messages}, as every case makes the same calls")
        return result

    return ask
