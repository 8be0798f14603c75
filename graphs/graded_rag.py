"""Answers from a text collection, with graders: many cheap verdicts around one answer that is as strong as its question.

Each passage found is graded in a branch of its own (`Send`), cheaply; when nothing fits, the question is rewritten and the search made
again; the answer is graded too. A loop alone is no reason to pay for a strong model, so graders and rewriter declare their class at
their nodes. The answer's class is known only at run time, from a cheap verdict on the question, so the node picks among models that each
declare their class: a look-up stays cheap, a question that takes calculating or weighing goes strong.

    routed-agents run graphs/graded_rag.py --input graphs/graded_rag.jsonl
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send
from pydantic import BaseModel, Field

from routed_agents import RoutedChatModel, Router, join
from routed_agents.integrations.langgraph import observed

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
answering = {
    "lookup": RoutedChatModel(router=router, task_class="rag_lookup", options={"max_tokens": 1024}),
    "reasoning": RoutedChatModel(router=router, task_class="math_reasoning", options={"max_tokens": 2048}),
}
NOTES: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name("huts.toml").read_text(encoding="utf-8"))["note"]
FOUND = 3
"""Passages looked at in each search."""
MOST_SEARCHES = 2
"""Searches after which the graph answers with what it has, or says that it has nothing."""
SILENT = "Our notes do not answer this. Please ask the association's office."


class Question(BaseModel):
    """What a question takes."""

    takes: Literal["lookup", "reasoning"] = Field(
        description="lookup: a fact that stands in the notes; reasoning: calculate, work out, prove, derive, altogether, compare, weigh"
    )


class Relevance(BaseModel):
    """Whether a passage helps."""

    relevant: bool = Field(description="the passage helps to answer the question")


class Support(BaseModel):
    """Whether an answer holds."""

    grounded: bool = Field(description="everything the answer claims stands in the passages")


def gathered(before: list[tuple[int, str]], more: list[tuple[int, str]] | None) -> list[tuple[int, str]]:
    """Adds what a branch found; None begins anew, for the next question on the thread."""
    return [] if more is None else [*before, *more]


class Ask(MessagesState):
    """One question; `grades` collects what the branches found, each with the search it belongs to."""

    routing: Annotated[dict[str, Any], join]
    takes: Literal["lookup", "reasoning"]
    query: str
    searches: int
    passages: list[dict[str, str]]
    grades: Annotated[list[tuple[int, str]], gathered]
    draft: str
    grounded: bool


class Branch(TypedDict):
    """What one grading branch is given."""

    question: str
    search: int
    passage: dict[str, str]


def sort(state: Ask) -> dict[str, Any]:
    """Say what the question takes; this decides the class of its answer."""
    asked = [SystemMessage("Classify the question by what it takes."), HumanMessage(f"<text>\n{question_of(state)}\n</text>")]
    takes = model.with_structured_output(Question).invoke(asked).takes
    return {"takes": takes, "query": "", "searches": 0, "grades": None, "grounded": False}


def retrieve(state: Ask) -> dict[str, Any]:
    """The passages that fit best; no model is called."""
    query = state.get("query") or question_of(state)
    return {"query": query, "passages": ranked(query)[:FOUND], "searches": state.get("searches", 0) + 1}


def grade(branch: Branch) -> dict[str, Any]:
    """Judge one passage."""
    asked = [
        SystemMessage("Grade whether the passage is relevant to the question."),
        HumanMessage(f"{shown(branch['passage'])}\n\nQuestion: {branch['question']}"),
    ]
    verdict = model.with_structured_output(Relevance).invoke(asked)
    return {"grades": [(branch["search"], branch["passage"]["title"])] if verdict.relevant else []}


def rewrite(state: Ask) -> dict[str, Any]:
    """Say the question in the words a note might use."""
    asked = [
        SystemMessage("Rewrite the question as a search query: its key words and their synonyms, on one line."),
        HumanMessage(f"Question: {question_of(state)}"),
    ]
    return {"query": str(model.invoke(asked).text)}


def generate(state: Ask) -> dict[str, Any]:
    """Answer from the passages that were found relevant."""
    passages = "\n".join(shown(passage) for passage in relevant(state))
    asked = [
        SystemMessage("Answer the question from the passages, and say so when they do not answer it."),
        HumanMessage(f"<passages>\n{passages}\n</passages>\n\nQuestion: {question_of(state)}"),
    ]
    return {"draft": str(answering[state["takes"]].invoke(asked).text)}


def check(state: Ask) -> dict[str, Any]:
    """Judge the answer: does it say only what the passages say?"""
    passages = "\n".join(shown(passage) for passage in relevant(state))
    asked = [
        SystemMessage("Grade whether the answer is grounded in the passages."),
        HumanMessage(f"<passages>\n{passages}\n</passages>\n\n<answer>\n{state['draft']}\n</answer>"),
    ]
    return {"grounded": model.with_structured_output(Support).invoke(asked).grounded}


def reply(state: Ask) -> dict[str, Any]:
    """Give the answer that passed, or say that there is none; no model is called."""
    return {"messages": [AIMessage(state["draft"] if state.get("grounded") else SILENT)]}


def to_graders(state: Ask) -> list[Send]:
    """A branch for each passage."""
    question = question_of(state)
    return [Send("grade", {"question": question, "search": state["searches"], "passage": passage}) for passage in state["passages"]]


def after_grades(state: Ask) -> Literal["generate", "rewrite", "reply"]:
    """Answer from what is relevant; search once more where nothing is."""
    if relevant(state):
        return "generate"
    return "rewrite" if state["searches"] < MOST_SEARCHES else "reply"


def after_check(state: Ask) -> Literal["rewrite", "reply"]:
    """An answer that is not grounded gets one more search."""
    return "reply" if state["grounded"] or state["searches"] >= MOST_SEARCHES else "rewrite"


def collect(state: Ask) -> dict[str, Any]:
    """Where the branches meet."""
    return {}


def question_of(state: Ask) -> str:
    """The latest question."""
    return next((str(message.text) for message in reversed(state["messages"]) if message.type == "human"), "")


def relevant(state: Ask) -> list[dict[str, str]]:
    """The passages of the latest search that a grader let through."""
    titles = {title for search, title in state.get("grades", []) if search == state["searches"]}
    return [passage for passage in state["passages"] if passage["title"] in titles]


def shown(passage: dict[str, str]) -> str:
    return f'<passage title="{passage["title"]}">{passage["text"]}</passage>'


def ranked(query: str) -> list[dict[str, str]]:
    """All notes, those that fit the query best first (BM25)."""
    return sorted(NOTES, key=lambda note: -fit(words(query), COUNTS[note["title"]]))


def fit(asked: list[str], count: Counter[str], k: float = 1.4, b: float = 0.7) -> float:
    long = sum(count.values()) / AVERAGE
    return sum(RARITY.get(word, 0.0) * count[word] * (k + 1) / (count[word] + k * (1 - b + b * long)) for word in set(asked))


def words(text: str) -> list[str]:
    """Words of three letters or more, without a plural's ending."""
    return [word.removesuffix("s") for word in re.findall(r"[a-z]{3,}", text.lower())]


COUNTS = {note["title"]: Counter(words(f"{note['title']} {note['title']} {note['text']}")) for note in NOTES}
AVERAGE = sum(sum(count.values()) for count in COUNTS.values()) / len(COUNTS)
RARITY = {
    word: math.log(1 + (len(NOTES) - spread + 0.5) / (spread + 0.5))
    for word, spread in Counter(word for count in COUNTS.values() for word in count).items()
}

builder = StateGraph(Ask)
builder.add_node("sort", sort, metadata={"task_class": "classification"})
builder.add_node("retrieve", retrieve)
builder.add_node("grade", grade, metadata={"task_class": "classification"})
builder.add_node("collect", collect)
builder.add_node("rewrite", rewrite, metadata={"task_class": "extraction"})
builder.add_node("generate", generate)
builder.add_node("check", check, metadata={"task_class": "classification"})
builder.add_node("reply", reply)
builder.add_edge(START, "sort")
builder.add_edge("sort", "retrieve")
builder.add_conditional_edges("retrieve", to_graders, ["grade"])
builder.add_edge("grade", "collect")
builder.add_conditional_edges("collect", after_grades)
builder.add_edge("rewrite", "retrieve")
builder.add_edge("generate", "check")
builder.add_conditional_edges("check", after_check)
builder.add_edge("reply", END)

graph = observed(builder.compile(), router)
