"""The classifier: a declared class first, then the instruction's words by place, never the mood of a payload."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from routed_agents.classify import NEED, Classification, LinearClassifier, shipped
from routed_agents.features import extract
from routed_agents.policy import Policy
from routed_agents.steps import Step
from routed_agents.taxonomy import Taxonomy

CLASSIFIER = LinearClassifier()


def classify(text: Any, **more: Any) -> Classification:
    return CLASSIFIER.classify(extract(Step.from_messages(text, **more)))


@pytest.mark.parametrize(
    ("text", "task_class"),
    [
        ("Classify the sentiment as positive or negative: lovely", "classification"),
        ("Extract all names and dates as JSON:\n```\nBob met Al\n```", "extraction"),
        ("Answer using only the context.\n\nContext: We open at nine and close at six.\n\nQuestion: when do you open?", "rag_lookup"),
        ("Write a catchy tagline for a bakery", "marketing_copy"),
        ("Format this code with black:\n```\nx=1\n```", "code_format"),
        ("Summarize the report in two sentences", "summarization"),
        (["Hi, how are you?", ("ai", "Great! Did you see the game?"), "haha yes, me too! Thanks, and see you tomorrow then"], "multi_turn"),
        ("What is the capital of Peru?", "knowledge_qa"),
        ("Write a function in Python that sorts a list", "code_generation"),
        ("Solve the equation step by step: 2x+3=9", "math_reasoning"),
        ("Debug the traceback and fix the failing test", "debug_refactor"),
        ("Reply with empathy to the upset customer", "empathy_escalation"),
        ("Klassifiziere die Mail: Beschwerde, Lob oder Frage?", "classification"),
        ("Fasse den Text zusammen", "summarization"),
        ("请总结以下文章", "summarization"),
    ],
)
def test_each_class_is_known_by_its_words(text: Any, task_class: str) -> None:
    assert classify(text).task_class == task_class


def test_a_chain_is_known_by_its_agents_system_prompt() -> None:
    found = classify(
        "thanks, go ahead", system="You are an autonomous agent. Break the task into steps and call one tool at a time until done."
    )

    assert found.task_class == "agentic_chain"


def test_synthesis_is_known_by_its_words_and_size() -> None:
    assert classify("Synthesize all the reports below across documents", tokens=90_000).task_class == "long_context"


@pytest.mark.parametrize("key", [row.key for row in Taxonomy.default()])
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


@pytest.mark.parametrize("text", ["qvzzwk plvghx jrwtzq", "សូមសង្ខេបអត្ថបទនេះ", "ይህን ጽሑፍ አሳጥር"])
def test_words_nobody_knows_are_no_evidence(text: str) -> None:
    assert classify(text).confidence == 0


def test_the_words_found_are_the_evidence() -> None:
    features = extract(Step.from_messages("Summarize the report"))

    assert "summarize" in [word for _, word, _ in CLASSIFIER.explain(features, "summarization")]


def test_p_strong_follows_the_class() -> None:
    assert classify("Classify the text as spam or not").p_strong < 0.3
    assert classify("Fix the race condition in this module").p_strong > 0.7


def test_where_p_strong_is_below_one_half_the_class_is_one_that_seldom_needs_the_strong_tier() -> None:
    words = [
        "classify",
        "extract",
        "summarize",
        "answer",
        "explain",
        "compute",
        "fix",
        "plan",
        "reply",
        "customer",
        "code",
        "text",
        "steps",
    ]
    contested = 0
    for pair in permutations(words, 2):
        features = extract(Step.from_messages(" ".join(pair)))
        found, shares = CLASSIFIER.classify(features), CLASSIFIER.shares(features)
        most = max(shares, key=shares.__getitem__)
        if found.p_strong < 0.5:
            assert NEED.get(found.task_class, (0, 0))[0] < 50
            contested += most != found.task_class
        else:
            assert found.task_class == most
    assert contested > 0


def test_every_class_that_may_need_the_strong_tier_is_named() -> None:
    dispositions = {row.key: row.disposition for row in Taxonomy.default()}

    assert set(NEED) == {key for key, disposition in dispositions.items() if disposition != "route"}


def test_the_weights_know_all_classes() -> None:
    assert shipped().classes == tuple(row.key for row in Taxonomy.default())


@pytest.mark.parametrize("text", ["x", "Summarize " * 500, "Classify; summarize; debug; solve; write a function; extract", "", "🙂"])
def test_confidence_and_p_strong_are_shares(text: str) -> None:
    found = classify(text)

    assert 0 <= found.p_strong <= 1
    assert 0 <= found.confidence <= 1


def test_a_class_without_evidence_is_told_like_any_other() -> None:
    class Mute:
        name, version = "mute", "1"

        def classify(self, features: object, /) -> Classification:
            return Classification(task_class="extraction", confidence=1.0, p_strong=0.0, evidence=None)  # type: ignore[arg-type]

    decision = Policy.default().replace(classifier=Mute()).decide(Step.from_messages("x"))

    assert (decision.tier, "class      extraction" in decision.explain(), decision.to_record(evidence=True)["evidence"]) == (
        "cheap",
        True,
        [],
    )


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


@pytest.mark.parametrize("text", ["", "…", [{"role": "user", "content": [IMAGE]}], [{"role": "assistant", "content": "Dear"}]])
def test_where_nothing_is_read_nothing_is_sure(text: Any) -> None:
    assert (classify(text).confidence, classify(text, system="Extract all names as JSON.").confidence > 0.2) == (0, True)


def test_a_lone_system_message_is_the_instruction() -> None:
    task = "Debug the traceback and fix the failing test"

    assert classify([{"role": "system", "content": task}]).task_class == classify(task).task_class
