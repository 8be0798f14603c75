"""The simulated models answer judges' questions, on both wires, with seeded mistakes."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest

from routed_agents import embedded
from routed_agents.checks import Reply
from routed_agents.embedded import models
from routed_agents.features import extract
from routed_agents.integrations.asking import anthropic_request, openai_request
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.judged_replies import Judge
from routed_agents.questions import Question, answer_in
from routed_agents.steps import Step
from routed_agents.taxonomy import Taxonomy

JUDGE = Judge(model="anthropic:claude-haiku-5-5", task_classes=("classification",))
MOOD = Step.from_messages("Classify the sentiment as positive or negative: lovely")
SUM = Step.from_messages("Calculate 12 * 12. Answer with the number.")


def sorting(text: str) -> Question:
    return JudgedClassifier("anthropic:claude-haiku-5-5").question(extract(Step.from_messages(text)), Taxonomy.default())


@pytest.mark.parametrize(
    ("text", "task_class"),
    [
        ("Summarize this: the parcel came late.", "summarization"),
        ("Extract the order number from the text below.", "extraction"),
        ("Refactor the module so that it has no global state", "debug_refactor"),
        ("zzz", "unsure"),
    ],
)
def test_both_wires_sort_a_call_by_its_instruction(text: str, task_class: str, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    question = sorting(text)
    said = claude.messages.create(**anthropic_request(question, "claude-haiku-5-5"))
    told = gpt.chat.completions.create(**openai_request(question, "gpt-6-luna"))

    answers = [answer_in(reply, question.name) for reply in (said, told)]

    assert [answer["task_class"] for answer in answers] == [task_class] * 2
    assert all(0 <= answer[share] <= 100 for answer in answers for share in ("p_strong", "confidence"))


@pytest.mark.parametrize(
    ("step", "reply", "verdict"),
    [
        (MOOD, "positive", "good"),
        (MOOD, "negative", "wrong"),
        (MOOD, "", "incomplete"),
        (SUM, "144", "good"),
        (SUM, "146", "wrong"),
        (MOOD, '{"mood": "positive"}', "unsure"),
    ],
)
def test_a_reply_is_held_against_what_the_judge_would_have_said(step: Step, reply: str, verdict: str, claude: anthropic.Anthropic) -> None:
    question = JUDGE.question(step, Reply(text=reply))
    said = claude.messages.create(**anthropic_request(question, "claude-haiku-4-5"))

    assert JUDGE.verdict(answer_in(said, question.name)) == verdict


def test_a_mistaken_judge_is_wrong_in_both() -> None:
    with (
        embedded.serve(error_rates={**dict.fromkeys(models.load().models, 0.0), "claude-haiku-5-5": 1.0}) as provider,
        anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as client,
    ):
        told = [
            answer_in(client.messages.create(**anthropic_request(question, "claude-haiku-5-5")), question.name)
            for question in (sorting("Summarize this: late."), JUDGE.question(MOOD, Reply(text="positive")))
        ]

    assert (told[0]["task_class"] != "summarization", told[1]) == (True, {"verdict": "wrong"})


def test_other_questions_are_not_taken_for_a_judges(gpt: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"verdict": {"type": "string", "enum": ["pass", "fail"]}}, "required": ["verdict"]}
    said = gpt.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Grade it: fine work."}],
        response_format={"type": "json_schema", "json_schema": {"name": "grade", "schema": schema}},
    )

    assert json.loads(said.choices[0].message.content or "")["verdict"] in ("pass", "fail")
