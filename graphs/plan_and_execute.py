"""Plan-and-execute research: a planner and re-planner that stay strong, and an executor whose small steps are routed one by one.

What the planner gets wrong nobody downstream can mend, so planning and re-planning are declared `agentic_chain`. The executor is an agent
of `create_agent` with `RouterMiddleware`, whose calls are of the class that its node declares. It is given one step of the plan and no
history, so the planner's pin does not reach it and looking things up stays cheap.

    routed-agents run graphs/plan_and_execute.py --input graphs/plan_and_execute.jsonl
"""

from __future__ import annotations

import ast
import operator
import re
import tomllib
from decimal import Decimal, DivisionByZero, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel, Field

from routed_agents import RoutedChatModel, Router, RouterMiddleware, join
from routed_agents.integrations.langgraph import observed
from routed_agents.integrations.models import Models

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
NOTES: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name("huts.toml").read_text(encoding="utf-8"))["note"]
MOST_STEPS = 8
"""Steps carried out before the answer is written from what is known."""


class Plan(BaseModel):
    """What is still to be done."""

    steps: list[str] = Field(description="the steps, in order, each one thing to find out; empty when everything is known")


def gathered(before: list[tuple[str, str]], more: list[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Adds a finding; None begins anew, for the next question on the thread."""
    return [] if more is None else [*before, *more]


class Research(MessagesState):
    """One question; `findings` holds each step done with its result."""

    routing: Annotated[dict[str, Any], join]
    plan: list[str]
    findings: Annotated[list[tuple[str, str]], gathered]


@tool
def search_notes(query: str) -> str:
    """Search the notes of the huts for words, and read the note that fits best."""
    asked = _words(query)
    texts = [_words(f"{note['title']} {note['text']}") for note in NOTES]
    titles = [_words(note["title"]) for note in NOTES]
    rarity = {word: 1 / max(1, sum(word in text for text in texts)) for word in asked}
    fits = [sum(rarity[word] * (3 if word in title else 1) for word in asked & text) for text, title in zip(texts, titles, strict=True)]
    best = max(range(len(NOTES)), key=fits.__getitem__)
    return NOTES[best]["text"] if fits[best] else "no note has any of these words"


@tool
def calculate(expression: str) -> str:
    """Calculate an arithmetic expression such as 4480 / 3200 - 1330 / 1900, exactly."""
    return f"{_value(ast.parse(expression, mode='eval').body):.4g}"


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", text.lower())}


OPERATORS: dict[type[ast.operator], Any] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _value(node: ast.expr) -> Decimal:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return Decimal(str(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        try:
            return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
        except (DivisionByZero, InvalidOperation) as error:
            raise ValueError(f"cannot be calculated: {ast.unparse(node)}") from error
    raise ValueError(f"only numbers and + - * / can be calculated, not {ast.unparse(node)}")


strongest = router.policy.tiers[router.policy.tiers.top].deployments[0]
executor = create_agent(
    Models(router.policy, {}, {"max_tokens": 1024}).get(strongest),
    [search_notes, calculate],
    system_prompt="You look one thing up in the notes of the huts with the tools, and answer in a sentence.",
    middleware=[RouterMiddleware(router)],
)


def plan(state: Research) -> dict[str, Any]:
    """Break the question into things to find out."""
    asked = [SystemMessage("You plan research. Break the question down into steps."), HumanMessage(f"Question: {question_of(state)}")]
    return {"plan": model.with_structured_output(Plan).invoke(asked).steps, "findings": None}


def execute(state: Research) -> dict[str, Any]:
    """Carry out the next step; the agent starts afresh, with nothing but the step."""
    step = state["plan"][0] if state["plan"] else question_of(state)
    done = executor.invoke({"messages": [HumanMessage(step)]})
    return {"findings": [(step, done["messages"][-1].text)]}


def replan(state: Research) -> dict[str, Any]:
    """Drop what is done, and change the rest where the findings ask for it."""
    rest = "\n".join(f"{number}. {step}" for number, step in enumerate(state["plan"][1:], 1))
    asked = [
        SystemMessage("You plan research. Given what was found, list the steps that still have to be done."),
        HumanMessage(f"Question: {question_of(state)}\n\n{found(state)}\n\n<remaining>\n{rest}\n</remaining>"),
    ]
    return {"plan": model.with_structured_output(Plan).invoke(asked).steps}


def write(state: Research) -> dict[str, Any]:
    """Write the answer from the findings."""
    asked = [
        SystemMessage("Summarize the findings in three sentences, as an answer to the question."),
        HumanMessage("<report>\n" + "\n".join(dict.fromkeys(result for _, result in state["findings"])) + "\n</report>"),
    ]
    return {"messages": [AIMessage(str(model.invoke(asked).text))]}


def after_replan(state: Research) -> Literal["execute", "write"]:
    """On with the plan, or to the answer."""
    return "execute" if state["plan"] and len(state["findings"]) < MOST_STEPS else "write"


def question_of(state: Research) -> str:
    """The latest question."""
    return next((str(message.text) for message in reversed(state["messages"]) if message.type == "human"), "")


def found(state: Research) -> str:
    results = "\n".join(f"- {step}: {result}" for step, result in state["findings"])
    return f"<findings>\n{results}\n</findings>"


builder = StateGraph(Research)
builder.add_node("plan", plan, metadata={"task_class": "agentic_chain"})
builder.add_node("execute", execute, metadata={"task_class": "rag_lookup"})
builder.add_node("replan", replan, metadata={"task_class": "agentic_chain"})
builder.add_node("write", write, metadata={"task_class": "summarization"})
builder.add_edge(START, "plan")
builder.add_edge("plan", "execute")
builder.add_edge("execute", "replan")
builder.add_conditional_edges("replan", after_replan)
builder.add_edge("write", END)

graph = observed(builder.compile(), router)
