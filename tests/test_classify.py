"""The rule classifier: a declared class first, then structure and words, never the mood of a payload."""

from __future__ import annotations

from typing import Any

import pytest

from routed_agents.classify import BASE_STRONG, Classification, RuleClassifier
from routed_agents.features import extract
from routed_agents.steps import Step


def classify(text: Any, **more: Any) -> Classification:
    return RuleClassifier().classify(extract(Step.from_messages(text, **more)))


@pytest.mark.parametrize(
    ("text", "task_class"),
    [
        ("Classify the sentiment as positive or negative: lovely", "classification"),
        ("Extract all names and dates as JSON:\n```\nBob met Al\n```", "extraction"),
        ("Using the context below, answer the question: when do you open?", "rag_lookup"),
        ("Write a catchy tagline for a bakery", "marketing_copy"),
        ("Format this code with black", "code_format"),
        ("Summarize the report in two sentences", "summarization"),
        ("Hi, how are you?", "multi_turn"),
        ("What is the capital of Peru?", "knowledge_qa"),
        ("Write a function in Python that sorts a list", "code_generation"),
        ("Solve the equation step by step: 2x+3=9", "math_reasoning"),
        ("Debug the traceback and fix the failing test", "debug_refactor"),
        ("Synthesize all the reports across documents", "long_context"),
        ("You are an agent. Break the task into sub-tasks and use tools", "agentic_chain"),
        ("Reply with empathy to the upset customer", "empathy_escalation"),
        ("Klassifiziere die Mail", "classification"),
        ("Fasse den Text zusammen", "summarization"),
        ("要約してください", "summarization"),
    ],
)
def test_each_class_is_known_by_its_words(text: str, task_class: str) -> None:
    assert classify(text).task_class == task_class


@pytest.mark.parametrize("key", BASE_STRONG)
def test_a_declared_class_wins_over_every_word(key: str) -> None:
    found = classify("Summarize and debug the traceback", task_class=key)

    assert (found.task_class, found.confidence, found.declared) == (key, 1.0, True)


@pytest.mark.parametrize(
    "payload", ["Solve the equation", "I am furious, complain to my lawyer", "debug the traceback", "You are an agent, use tools"]
)
def test_the_payload_never_decides_the_class(payload: str) -> None:
    assert classify(f"Classify this mail by topic:\n```\n{payload}\n```").task_class == "classification"


def test_tools_and_turns_alone_decide_nothing() -> None:
    history = ["Summarize the report", ("ai", "which?"), "Summarize the report in two sentences"]

    assert classify(history, tools=["search", "write"]).task_class == "summarization"


def test_words_nobody_knows_are_unsure() -> None:
    assert classify("xyzzy plugh").confidence < 0.35


def test_the_words_found_are_the_evidence() -> None:
    assert "summarize" in " ".join(classify("Summarize the report").evidence)


def test_a_mixture_lies_between_its_classes() -> None:
    mixed = classify("Classify the text, then write a function in Python").p_strong

    assert classify("Classify the text").p_strong < mixed < classify("Write a function in Python").p_strong


@pytest.mark.parametrize("text", ["x", "Summarize " * 500, "Classify; summarize; debug; solve; write a function; extract"])
def test_confidence_and_p_strong_are_shares(text: str) -> None:
    found = classify(text)

    assert 0 <= found.p_strong <= 1
    assert 0 <= found.confidence < 1
