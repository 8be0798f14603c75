"""A shop's support desk: cheap where a customer asks, strong where a customer suffers, a person where no model may answer.

triage sorts the message, extract reads order details out of it, lookup finds help articles, and the router decides which model writes
the reply. A distressed or threatening customer is answered by the strong tier or by a human, never by the cheap one.

    routed-agents run graphs/support_desk.py --input graphs/support_desk.jsonl
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, Field

from routed_agents import RoutedChatModel, Router, RouterNode, Step, join
from routed_agents.failures import failure_of
from routed_agents.integrations.langgraph import facts, observed
from routed_agents.integrations.models import Models

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
plain = Models(router.policy, {}, {"max_tokens": 1024})
ARTICLES: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name("faq.toml").read_text(encoding="utf-8"))["article"]

DESK = "You are a support agent of Fernweh Outfitters, a mail-order shop. Write a reply to the customer from the notes you are given."
ORDER = re.compile(r"\bA-\d{4,6}\b")


class Triage(BaseModel):
    """How a customer's message is sorted."""

    topic: Literal["billing", "shipping", "returns", "account", "product", "other"] = Field(description="what the message is about")
    mood: Literal["calm", "annoyed", "distressed", "threatening"] = Field(description="how the customer feels")


class Order(BaseModel):
    """What a customer's message says about an order."""

    order_id: str | None = Field(default=None, description="the order number, like A-10423")
    email: str | None = Field(default=None, description="the customer's e-mail address")


class Desk(MessagesState):
    """The state of one conversation; `routing` keeps pins and facts."""

    routing: Annotated[dict[str, Any], join]
    triage: dict[str, Any]
    order: dict[str, Any]
    notes: str


def triage(state: Desk) -> dict[str, Any]:
    """Sort the message; a label about an unhappy customer is cheap work, and the thread remembers it."""
    sorter = model.with_structured_output(Triage)
    asked = [SystemMessage("Classify the customer's message by topic and mood."), HumanMessage(f"<message>\n{asked_by(state)}\n</message>")]
    found = sorter.invoke(asked)
    unhappy = found.mood in ("distressed", "threatening")
    return {"triage": found.model_dump(), "routing": facts("distress") if unhappy else facts()}


def extract(state: Desk) -> dict[str, Any]:
    """Read the order details."""
    reader = model.with_structured_output(Order)
    asked = [SystemMessage("Extract the order number and e-mail address."), HumanMessage(f"<message>\n{asked_by(state)}\n</message>")]
    return {"order": reader.invoke(asked).model_dump(exclude_none=True)}


def lookup(state: Desk) -> dict[str, Any]:
    """Find the help articles that fit best, and note what they say on the question."""
    articles = "\n".join(f'<article title="{article["title"]}">{article["body"]}</article>' for article in best_articles(asked_by(state)))
    asked = [
        SystemMessage("Answer the question from the help articles, and say so when they do not answer it."),
        HumanMessage(f"<articles>\n{articles}\n</articles>\n\nQuestion: {asked_by(state)}"),
    ]
    return {"notes": str(model.invoke(asked).text)}


def reply_step(state: Desk) -> Step:
    """What the next node is about to do, for the router to decide on."""
    return Step.from_messages(conversation(state), system=DESK, task_class="rag_lookup", node="reply")


def quick_reply(state: Desk) -> dict[str, Any]:
    """Answer with the cheap tier's plain model; the observer prices it."""
    return {"messages": [reply(state, "cheap")]}


def careful_reply(state: Desk) -> Command[Literal["handoff", "__end__"]]:
    """Answer with the strong tier's plain model; when the provider is down, a person takes over, never the cheap model."""
    try:
        return Command(goto=END, update={"messages": [reply(state, "strong")]})
    except Exception as error:
        if failure_of(error) is None:
            raise
        return Command(goto="handoff")


def handoff(state: Desk) -> dict[str, Any]:
    """Hand the conversation to a person; no model is called."""
    topic = state.get("triage", {}).get("topic", "other")
    return {
        "messages": [AIMessage(f"I am passing you on to a colleague ({topic}), who will write to you personally today.", name="handoff")]
    }


def reply(state: Desk, tier: str) -> AIMessage:
    chat = plain.get(router.policy.tiers.named(tier).deployments[0])
    order = ", ".join(f"{key} {value}" for key, value in state.get("order", {}).items()) or "none named"
    return chat.invoke([SystemMessage(f"{DESK}\n\nNotes from the help articles: {state['notes']}\nOrder: {order}"), *conversation(state)])


def conversation(state: Desk) -> list[BaseMessage]:
    """The messages without the caller's system prompt: the desk has its own."""
    return [message for message in state["messages"] if message.type != "system"]


def asked_by(state: Desk) -> str:
    """The customer's latest words."""
    return next((str(message.text) for message in reversed(state["messages"]) if message.type == "human"), "")


def best_articles(question: str, count: int = 3) -> list[dict[str, str]]:
    """The articles that share most words with the question, rare words counting more."""
    words = set(re.findall(r"\w{4,}", question.lower()))
    texts = [set(re.findall(r"\w{4,}", f"{article['title']} {article['body']}".lower())) for article in ARTICLES]

    def fit(text: set[str]) -> float:
        return sum(1 / sum(word in other for other in texts) for word in words & text)

    return sorted(ARTICLES, key=lambda article: -fit(texts[ARTICLES.index(article)]))[:count]


def after_triage(state: Desk) -> Literal["extract", "lookup"]:
    """Order details are read only where there are some."""
    return "extract" if ORDER.search(asked_by(state)) else "lookup"


to_reply = RouterNode(router, to={"cheap": "quick_reply", "strong": "careful_reply", "human": "handoff"}, select=reply_step)

builder = StateGraph(Desk)
builder.add_node("triage", triage, metadata={"task_class": "classification"})
builder.add_node("extract", extract, metadata={"task_class": "extraction"})
builder.add_node("lookup", lookup, metadata={"task_class": "rag_lookup"})
builder.add_node("router", to_reply, destinations=to_reply.destinations)
builder.add_node("quick_reply", quick_reply)
builder.add_node("careful_reply", careful_reply)
builder.add_node("handoff", handoff)
builder.add_edge(START, "triage")
builder.add_conditional_edges("triage", after_triage)
builder.add_edge("extract", "lookup")
builder.add_edge("lookup", "router")
builder.add_edge("quick_reply", END)
builder.add_edge("handoff", END)

graph = observed(builder.compile(), router)
