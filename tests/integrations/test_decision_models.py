"""The policy as a decision model of langchain-core 1.8, alone and in the stock middleware."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from routed_agents import Classification, Policy, Step, StepStopped
from routed_agents.errors import ConfigurationError, PolicyError
from routed_agents.guards import Verdict, named
from routed_agents.testing import ScriptedChatModel

from .conftest import EASY, HAIKU, OPUS

PLAN = "Plan the migration in several steps and carry it out, using tools."
GRIEF = "Reply to me: my mother died last week and I cannot cope."
TIERS = ("cheap", "strong")
HAS_THEM = importlib.util.find_spec("langchain_core.decisions") is not None
needs_them = pytest.mark.skipif(not HAS_THEM, reason="langchain_core.decisions comes with langchain-core 1.8")

if HAS_THEM:
    from langchain_core.decisions import Choice, Noul

    from routed_agents.integrations.decision_models import PolicyDecisionModel


@pytest.mark.skipif(HAS_THEM, reason="langchain-core has decision models")
def test_an_older_langchain_core_is_told_in_one_line():
    with pytest.raises(ImportError, match=r"decision models come with langchain-core 1\.8"):
        __import__("routed_agents.integrations.decision_models")


def ask(state: Any, among: Any = TIERS, **options: Any) -> Any:
    config = options.pop("config", None)
    question = Choice(instructions="Which?", criteria=dict.fromkeys(among))
    return PolicyDecisionModel(options.pop("policy", None), **options).invoke({"state": state, "questions": {"q": question}}, config)


@needs_them
@pytest.mark.parametrize(
    ("state", "tier"),
    [
        (EASY, "cheap"),
        (PLAN, "strong"),
        (HumanMessage(GRIEF), "strong"),
        ([SystemMessage("You sort tickets."), HumanMessage(EASY)], "cheap"),
        ({"messages": [HumanMessage(PLAN)]}, "strong"),
        ({"task": PLAN, "order": 7}, "strong"),
    ],
)
def test_the_tier_is_the_policys(state, tier):
    answer = ask(state).choices["q"]
    assert (answer.choice, round(sum(answer.probabilities.values()), 9), set(answer.probabilities)) == (tier, 1.0, {"cheap", "strong"})


@needs_them
def test_a_rule_leaves_no_doubt_and_a_proposal_its_own():
    held, proposed = ask(PLAN).choices["q"], ask(EASY).choices["q"]
    local = Policy.default().decide(Step.from_messages(EASY))
    assert held.probabilities == {"cheap": 0.0, "strong": 1.0}
    assert (proposed.probabilities["strong"], proposed.confidence) == (local.p_strong, local.confidence)


@needs_them
def test_the_answer_names_who_gave_it():
    response = ask(EASY)
    assert (response.model, response.usage) == (f"policy {Policy.default().hash}", None)


@needs_them
def test_labels_of_ones_own_and_some_of_the_tiers():
    labels = {"fast": "cheap", "powerful": "strong"}
    assert [ask(text, labels, labels=labels).choices["q"].choice for text in (EASY, PLAN)] == ["fast", "powerful"]


@needs_them
def test_some_of_the_tiers_may_be_asked_about_but_never_without_the_top():
    three = Policy.default(tiers="claude-2026-11-three")
    assert [ask(PLAN, among, policy=three).choices["q"].choice for among in (["cheap", "strong"], ["mid", "strong", "cheap"])] == [
        "strong"
    ] * 2
    with pytest.raises(PolicyError, match='the top tier "strong"'):
        ask(PLAN, ["cheap", "mid"], policy=three)


@needs_them
def test_a_class_is_the_likeliest_of_those_asked_about():
    keys = [row.key for row in Policy.default().taxonomy]
    every, few = ask(EASY, keys).choices["q"], ask(EASY, ["code_generation", "math_reasoning"]).choices["q"]
    assert (every.choice, round(sum(every.probabilities.values()), 9)) == ("classification", 1.0)
    assert every.confidence == pytest.approx(Policy.default().decide(Step.from_messages(EASY)).confidence, abs=1e-6)
    assert few.choice in few.probabilities
    assert few.confidence < 0.1


@needs_them
def test_a_classifier_that_knows_one_class_only_is_believed_in_it():
    class One:
        name, version = "one", "1"

        def classify(self, features: Any) -> Classification:
            return Classification(task_class="extraction", confidence=0.9, p_strong=0.1)

    policy = Policy.default().replace(classifier=One())
    found = ask("x", ["extraction", "math_reasoning"], policy=policy).choices["q"]
    other = ask("x", ["code_format", "math_reasoning"], policy=policy).choices["q"]
    assert (found.choice, found.confidence, other.probabilities, other.confidence) == (
        "extraction", 0.9, {"code_format": 0.5, "math_reasoning": 0.5}, 0.0,
    )  # fmt: skip


@needs_them
def test_a_declared_class_and_a_forced_tier_of_the_run_count():
    assert ask(EASY, config={"metadata": {"task_class": "agentic_chain"}}).choices["q"].choice == "strong"
    assert ask(EASY, config={"metadata": {"routed_agents": {"tier": "strong"}}}).choices["q"].choice == "strong"


@needs_them
@pytest.mark.parametrize(
    ("question", "seen"),
    [
        (lambda: Noul(instructions="Is it urgent?"), "a noul"),
        (lambda: Choice(instructions="Who?", criteria={"billing": None, "sales": None}), 'label "billing"'),
        (lambda: Choice(instructions="Which?", criteria={"cheap": None, "extraction": None}), "tiers beside task classes"),
    ],
)
def test_what_the_policy_cannot_answer_is_one_line(question, seen):
    with pytest.raises(
        ConfigurationError, match=f'question "q" has {seen}, which the policy cannot answer; wanted a choice among its tiers'
    ):
        PolicyDecisionModel().invoke({"state": EASY, "questions": {"q": question()}})


@needs_them
def test_a_label_for_a_tier_there_is_not_is_an_error():
    with pytest.raises(PolicyError, match="opus"):
        PolicyDecisionModel(labels={"powerful": "opus"})


@needs_them
def test_a_step_that_must_not_be_made_is_stopped():
    @named("never", version="1")
    def never(seen: Any) -> Verdict | None:
        return Verdict(guard="never", code="never", floor=1, stop=True)

    with pytest.raises(StepStopped, match="stopped, never"):
        ask(EASY, policy=Policy.default().replace(guards=[never]))


@needs_them
@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.filterwarnings("ignore:The middleware `ModelRouterMiddleware` is in beta")
async def test_the_stock_middleware_routes_by_it(way):
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware

    models = {name: ScriptedChatModel(model_name=model, replies=name) for name, model in (("cheap", HAIKU), ("strong", OPUS))}
    choices = {name: ModelChoice(model=model, criteria=name) for name, model in models.items()}
    agent = create_agent(
        models["strong"], [], middleware=[ModelRouterMiddleware(choices=choices, instructions="", classifier=PolicyDecisionModel())]
    )
    said: list[str] = []
    for text in (EASY, PLAN, GRIEF):
        given = {"messages": [HumanMessage(text)]}
        result = await agent.ainvoke(given) if way == "async" else agent.invoke(given)
        said.append(result["messages"][-1].text)
    assert said == ["cheap", "strong", "strong"]
