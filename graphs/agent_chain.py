"""A purchasing agent: a planner and a tool loop that stay strong together, and a short report that need not.

Errors compound along a chain, so planning and acting are declared `agentic_chain` and pinned. The report is a step of its own, with a
prompt of its own, so it is free to be cheap.

    routed-agents run graphs/agent_chain.py --input graphs/agent_chain.jsonl
"""

from __future__ import annotations

import ast
import json
import operator
import tomllib
from decimal import Decimal, DivisionByZero, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from routed_agents import RoutedChatModel, Router, join
from routed_agents.integrations.langgraph import observed

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
OFFERS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8"))["offer"]
MOST_CALLS = 12
"""Model calls after which the agent gives up: a loop on the strong tier is dear."""


class Purchase(MessagesState):
    """The state of one purchase; `routing` keeps pins and facts."""

    routing: Annotated[dict[str, Any], join]
    plan: str
    report: str


@tool
def find_offers(item: str) -> str:
    """Find what suppliers offer for an item, as a JSON list of supplier and unit_price, cheapest first."""
    wanted = item.lower().rstrip("s")
    found = [offer for offer in OFFERS if wanted in offer["item"].lower() or offer["item"].lower().rstrip("s") in wanted]
    if not found:
        raise ValueError(f"no supplier has {item!r}")
    cheapest = sorted(found, key=lambda offer: Decimal(offer["unit_price"]))
    return json.dumps([{"supplier": offer["supplier"], "item": offer["item"], "unit_price": offer["unit_price"]} for offer in cheapest])


@tool
def check_stock(supplier: str, item: str) -> int:
    """Check how many units of an item a supplier has."""
    wanted = item.lower().rstrip("s")
    return sum(offer["stock"] for offer in OFFERS if offer["supplier"].lower() == supplier.lower() and wanted in offer["item"].lower())


@tool
def calculate(expression: str) -> str:
    """Calculate an arithmetic expression such as (3 * 23.75 + 2 * 8.40) * 1.19, exactly."""
    return f"{_value(ast.parse(expression, mode='eval').body):f}"


TOOLS = [find_offers, check_stock, calculate]
OPERATORS: dict[type[ast.operator], Any] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _value(node: ast.expr) -> Decimal:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return Decimal(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        try:
            return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
        except (DivisionByZero, InvalidOperation) as error:
            raise ValueError(f"cannot be calculated: {ast.unparse(node)}") from error
    raise ValueError(f"only numbers and + - * / can be calculated, not {ast.unparse(node)}")


def plan(state: Purchase) -> dict[str, Any]:
    """Break the order down into steps."""
    asked = [SystemMessage("You plan purchases. Break the order down into numbered steps, using the tools at hand."), *state["messages"]]
    return {"plan": str(model.invoke(asked).text)}


def act(state: Purchase) -> dict[str, Any]:
    """Take the next step of the plan: call tools, or answer."""
    system = f"You are a purchasing agent. Use the tools to carry out the plan, then answer with the total.\n\nPlan:\n{state['plan']}"
    return {"messages": [model.bind_tools(TOOLS).invoke([SystemMessage(system), *state["messages"]])]}


def report(state: Purchase) -> dict[str, Any]:
    """Sum the purchase up for the person who approves it."""
    results = "\n".join(f"{message.name}: {message.text}" for message in state["messages"] if isinstance(message, ToolMessage))
    answer = state["messages"][-1].text
    asked = [
        SystemMessage("Summarize the purchase in one or two sentences for the person who approves it."),
        HumanMessage(f"<document>\n{answer}\n{results}\n</document>"),
    ]
    return {"report": str(model.invoke(asked).text)}


def next_node(state: Purchase) -> Literal["tools", "report", "__end__"]:
    """Tools while the agent asks for them; an end when it goes on too long."""
    last = state["messages"][-1]
    calls = sum(isinstance(message, AIMessage) for message in state["messages"])
    if isinstance(last, AIMessage) and last.tool_calls:
        return "tools" if calls < MOST_CALLS else END
    return "report"


builder = StateGraph(Purchase)
builder.add_node("plan", plan, metadata={"task_class": "agentic_chain"})
builder.add_node("act", act, metadata={"task_class": "agentic_chain"})
builder.add_node("tools", ToolNode(TOOLS, handle_tool_errors=True))
builder.add_node("report", report, metadata={"task_class": "summarization"})
builder.add_edge(START, "plan")
builder.add_edge("plan", "act")
builder.add_conditional_edges("act", next_node)
builder.add_edge("tools", "act")
builder.add_edge("report", END)

graph = observed(builder.compile(), router)
