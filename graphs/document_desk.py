"""A document desk: short papers are read cheaply, a year of diary goes strong because it is long, and nobody had to say so.

triage tells extraction from reading. What is to be read is shown to a `RouterNode` on a conditional edge (`decide`): it measures the step
that would come next and names its tier, so the same request about one page goes to `summarize`, and about a year of pages to `synthesize`.
Neither node declares a class: the call each makes is measured again, and recorded, by its own routed model.

    routed-agents run graphs/document_desk.py --input graphs/document_desk.jsonl
"""

from __future__ import annotations

import random
import re
import tomllib
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel, Field

from routed_agents import RoutedChatModel, Router, RouterNode, Step, join
from routed_agents.integrations.langgraph import observed

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
DIARY: dict[str, Any] = tomllib.loads(Path(__file__).with_name("site_diary.toml").read_text(encoding="utf-8"))
DIARY_OF = re.compile(r"\bdiary (?:of|for|from) (20\d\d)\b", re.IGNORECASE)
PAPER = re.compile(r"<document>.*</document>", re.DOTALL)

SHORT = "Summarize the document in two sentences for a colleague who has not read it."
LONG = "Read the whole diary and answer the question from its entries; name the days you rely on."


class Job(BaseModel):
    """What is to be done with a document."""

    job: Literal["read", "extract"] = Field(
        description="read: summarize, summary, gist, explain, why, what happened, point; "
        "extract: extract, fill in, pull out, list the fields, number, dates and amounts as data"
    )


class Fields(BaseModel):
    """What a paper says, as data."""

    reference: str | None = Field(default=None, description="the number of the paper, like IN-20417")
    date: str | None = Field(default=None, description="its date, in ISO form")
    amount: float | None = Field(default=None, description="the amount to be paid")
    email: str | None = Field(default=None, description="an e-mail address to answer to")
    subject: str = Field(description="what it is about, in a few words")


class Desk(MessagesState):
    """One request with its paper."""

    routing: Annotated[dict[str, Any], join]
    job: Literal["read", "extract"]


def triage(state: Desk) -> dict[str, Any]:
    """Tell extraction from reading, by the request alone; the paper is not needed for that."""
    asked = [SystemMessage("Classify the request by its job."), HumanMessage(f"<text>\n{request_of(state)}\n</text>")]
    return {"job": model.with_structured_output(Job).invoke(asked).job}


def extract(state: Desk) -> dict[str, Any]:
    """Read the fields out of a paper."""
    asked = [SystemMessage("Extract the fields of the document."), HumanMessage(paper_of(state))]
    found = model.with_structured_output(Fields).invoke(asked)
    return {"messages": [AIMessage(found.model_dump_json(exclude_none=True))]}


def reading(state: Desk) -> Step:
    """The step that comes next: the system prompt and the text that either node would send."""
    system, text = prompt(state)
    return Step.from_messages([text], system=str(system.text), node="read")


def summarize(state: Desk) -> dict[str, Any]:
    """Say what a short paper says."""
    return {"messages": [model.invoke(prompt(state))]}


def synthesize(state: Desk) -> dict[str, Any]:
    """Answer a question from many pages."""
    return {"messages": [model.invoke(prompt(state))]}


def prompt(state: Desk) -> list[Any]:
    """What is asked about the paper, or about the diary of a year."""
    if DIARY_OF.search(request_of(state)):
        return [SystemMessage(LONG), HumanMessage(f"<documents>\n{paper_of(state)}\n</documents>\n\nQuestion: {request_of(state)}")]
    return [SystemMessage(SHORT), HumanMessage(paper_of(state))]


def request_of(state: Desk) -> str:
    """What is wanted, without the paper."""
    return PAPER.sub("", _said(state)).strip()


def paper_of(state: Desk) -> str:
    """The paper that came along, or the diary of the year that is named."""
    if year := DIARY_OF.search(request_of(state)):
        return diary(int(year[1]))
    found = PAPER.search(_said(state))
    return found[0] if found else f"<document>\n{_said(state)}\n</document>"


def _said(state: Desk) -> str:
    return next((str(message.text) for message in reversed(state["messages"]) if message.type == "human"), "")


@cache
def diary(year: int) -> str:
    """A year of the invented building site, one entry a day; the same text each time."""
    drawn = random.Random(year)
    days = [date(year, 1, 1) + timedelta(days=number) for number in range(365)]
    return "\n".join(f'<entry title="{day:%d %B %Y}">{_entry(day, drawn)}</entry>' for day in days)


def _entry(day: date, drawn: random.Random) -> str:
    first, second = drawn.sample(DIARY["work"], 2)
    told = [f"Weather: {drawn.choice(DIARY['weather'])}. On site: {drawn.choice(DIARY['crew'])}.", first, second]
    told += [drawn.choice(DIARY["delivery"]), drawn.choice(DIARY["remark"]), DIARY["turning"].get(f"{day:%m-%d}", "")]
    return " ".join(told).strip()


to_reading = RouterNode(router, to={"cheap": "summarize", "strong": "synthesize"}, select=reading)


def after_triage(state: Desk) -> str:
    """Extraction, or what the router says of the reading."""
    return "extract" if state["job"] == "extract" else to_reading.to[to_reading.decide(state).tier]


builder = StateGraph(Desk)
builder.add_node("triage", triage, metadata={"task_class": "classification"})
builder.add_node("extract", extract, metadata={"task_class": "extraction"})
builder.add_node("summarize", summarize)
builder.add_node("synthesize", synthesize)
builder.add_edge(START, "triage")
builder.add_conditional_edges("triage", after_triage, ["extract", *to_reading.destinations])
builder.add_edge("extract", END)
builder.add_edge("summarize", END)
builder.add_edge("synthesize", END)

graph = observed(builder.compile(), router)
