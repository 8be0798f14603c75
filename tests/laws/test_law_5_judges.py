"""Law 5 for judges: what they cost is part of their step, in the stamp, in every total, and however they fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from judged import Local

from routed_agents.judged_classes import JudgedClassifier
from routed_agents.judged_replies import Judge
from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.pricing import Prices, Usage
from routed_agents.questions import Question
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry
from routed_agents.tiers import Deployment

PRICES = Prices()
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


class Overloaded(Exception):
    status_code = 529


@dataclass
class Court:
    """Answers judges' questions from a script, and adds up by hand what its answers cost."""

    script: list[tuple[str, int, int]]
    spent: int = 0
    asked: list[str] = field(default_factory=list)

    def ask(self, question: Question, deployment: Deployment, /, *, timeout_s: float) -> object:
        self.asked.append(question.name)
        what, sent, received = self.script.pop(0) if self.script else ("good", 1, 1)
        if what == "fails":
            raise Overloaded
        self.spent += cost(deployment.model, Usage(input=sent, output=received))
        said = {"verdict": what} if question.name == "judge_reply" else {"task_class": "summarization", "p_strong": 5, "confidence": 90}
        content = [{"type": "text", "text": "hm"}] if what == "nonsense" else [call(question.name, said)]
        return message(deployment.model, content, Usage(input=sent, output=received))


def call(name: str, said: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": "1", "name": name, "input": said}


def cost(model: str, usage: Usage) -> int:
    found = PRICES.price(model, usage)
    assert found is not None
    return found.total_pico


def message(model: str, content: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
    counted = {"input_tokens": usage.input, "output_tokens": usage.output}
    return {"type": "message", "role": "assistant", "model": model, "content": content, "usage": counted, "stop_reason": "end_turn"}


sayings = st.lists(
    st.tuples(st.sampled_from(("good", "wrong", "wrong", "unsure", "nonsense", "fails")), st.integers(1, 150_000), st.integers(0, 300)),
    max_size=4,
)


@settings(max_examples=150)
@given(script=sayings, spent=st.lists(st.tuples(st.integers(1, 150_000), st.integers(1, 900)), min_size=3, max_size=3))
def test_a_judged_step_costs_its_attempts_and_its_judges(script: list[tuple[str, int, int]], spent: list[tuple[int, int]]) -> None:
    court = Court(list(script))
    policy = Policy.default(tiers="claude-2026-11-three")
    judges = [Judge(model=f"anthropic:{HAIKU}", task_classes=("summarization",), rubric=rubric) for rubric in ("", "mind the sums")]
    policy = policy.replace(
        classifier=JudgedClassifier(f"anthropic:{SONNET}", inner=Local("code_generation", 0.97, 0.9)), checks=[*policy.checks, *judges]
    )
    router = Router(policy, ledger=Ledger.memory(), prices=PRICES, telemetry=Telemetry.off(), asker=court)
    by_hand, usages = 0, [Usage(input=sent, output=received) for sent, received in spent]

    with router.step(Step.from_messages("Give the gist of it"), thread="t", labels={"team": "x"}) as routed:
        for attempt, usage in zip(routed.attempts(), usages, strict=False):
            with attempt:
                by_hand += cost(attempt.model, usage)
                attempt.record(message(attempt.model, [{"type": "text", "text": f"try {attempt.number}"}], usage))

    total = router.ledger.total()
    assert total.cost_pico == routed.stamp()["cost_pico"] == by_hand + court.spent
    for by in ("thread", "label:team", "task_class", "tier", "kind", "node"):
        assert sum(each.cost_pico for each in router.ledger.totals(by).values()) == total.cost_pico
    assert total.saving_pico == total.baseline_pico - total.cost_pico
    assert (router.ledger.total(kind="judge").cost_pico, total.steps) == (court.spent, 1)
    assert sum(entry.kind == "judge" for entry in router.ledger.entries()) == len(court.asked)
