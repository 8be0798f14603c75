"""A supervisor with three workers: who reads the supervisor's words is held to its tier for the turn, who gets a prompt of its own is free.

The supervisor is declared `agentic_chain`, so it stays strong and its replies are stamped. Analyst and reviewer are given the one history
in `messages`: they extend it, so its pin holds for them too, though nobody declared anything at their nodes. The copywriter is given a
short prompt of its own and may be cheap.

    routed-agents run graphs/supervisor.py --input graphs/supervisor.jsonl
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, Field

from routed_agents import RoutedChatModel, Router, join
from routed_agents.integrations.langgraph import observed

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
RANGE: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name("range.toml").read_text(encoding="utf-8"))["product"]
MOST_TASKS = 6
"""Tasks handed out before the supervisor has to stop."""

LEAD = """You lead a team that prepares texts for a shop. Decide which member acts next, or finish when the request is met.
- analyst: figures, sales, prices, facts about the goods
- copywriter: write a text, advert, slogan, newsletter, teaser, product description
- reviewer: check, review, proofread, verify, correct"""


class Next(BaseModel):
    """Who acts next."""

    next: Literal["analyst", "copywriter", "reviewer", "finish"] = Field(description="the member who acts next")
    task: str = Field(description="what the member has to do, in a sentence")


class Team(MessagesState):
    """What all of them read and write."""

    routing: Annotated[dict[str, Any], join]


def supervisor(state: Team) -> Command[Literal["analyst", "copywriter", "reviewer", "__end__"]]:
    """Hand the next task to a member; its reply joins the history, and its stamp with it."""
    chooser = model.with_structured_output(Next, method="json_schema", include_raw=True)
    chosen = chooser.invoke([SystemMessage(LEAD), *state["messages"], HumanMessage("Which member acts next, and with what task?")])
    if chosen["parsing_error"] is not None:
        raise chosen["parsing_error"]
    order: Next = chosen["parsed"]
    if order.next == "finish" or handed_out(state) >= MOST_TASKS:
        return Command(goto="__end__")
    task = HumanMessage(f"Task for the {order.next}: {order.task}", name="supervisor")
    return Command(goto=order.next, update={"messages": [chosen["raw"], task]})


def analyst(state: Team) -> Command[Literal["supervisor"]]:
    """Say what the figures say; reads the whole history, so the supervisor's pin holds here."""
    system = SystemMessage(f"You are the analyst. Answer the task from the facts below only.\n\n{facts_about(asked(state))}")
    return report("analyst", model.invoke([system, *state["messages"]]))


def copywriter(state: Team) -> Command[Literal["supervisor"]]:
    """Write the text, from a prompt of its own: no history, so no pin."""
    prompt = [
        SystemMessage("Write a short marketing text in a friendly voice, with nothing in it but the facts."),
        HumanMessage(f"{facts_about(asked(state))}\n\nTask: {asked(state)}"),
    ]
    return report("copywriter", model.invoke(prompt))


def reviewer(state: Team) -> Command[Literal["supervisor"]]:
    """Check the text against the facts; reads the whole history, so the supervisor's pin holds here."""
    system = SystemMessage(
        "You are the reviewer. Check every claim of the copywriter's text against the facts, and say which hold and which do not."
        f"\n\n{facts_about(asked(state))}"
    )
    return report("reviewer", model.invoke([system, *state["messages"]]))


def report(name: str, reply: AIMessage) -> Command[Literal["supervisor"]]:
    """A member's reply, signed, back to the supervisor."""
    return Command(goto="supervisor", update={"messages": [reply.model_copy(update={"name": name})]})


def asked(state: Team) -> str:
    """What the team was asked for last, by a person and not by the supervisor."""
    return next((str(each.text) for each in reversed(state["messages"]) if each.type == "human" and each.name != "supervisor"), "")


def handed_out(state: Team) -> int:
    """Tasks since a person last spoke."""
    own = [each.name == "supervisor" for each in state["messages"] if each.type == "human"]
    return own[::-1].index(False) if False in own else len(own)


def facts_about(request: str) -> str:
    """What the shop knows of the goods the request names; of all goods where it names none."""
    low = request.lower()
    named = [product for product in RANGE if any(word in low for word in re.findall(r"[a-z]{5,}", product["name"].lower()))]
    rows = "\n".join(f'<fact title="{product["name"]}">{product["facts"]}</fact>' for product in named or RANGE)
    return f"<facts>\n{rows}\n</facts>"


builder = StateGraph(Team)
builder.add_node("supervisor", supervisor, metadata={"task_class": "agentic_chain"})
builder.add_node("analyst", analyst)
builder.add_node("copywriter", copywriter, metadata={"task_class": "marketing_copy"})
builder.add_node("reviewer", reviewer)
builder.add_edge(START, "supervisor")

graph = observed(builder.compile(), router)
