"""Law 6: the same step, state, conditions and policy hash give the same decision in any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from worlds import CLASSES, POLICIES, TEXTS, Says, conditions, policies, steps

from routed_agents.classify import Classification
from routed_agents.features import Features
from routed_agents.guards import BILLION, Assessment, Conditions, Verdict, _power
from routed_agents.policy import Policy
from routed_agents.state import Pin, ThreadState
from routed_agents.steps import Step
from routed_agents.tiers import Deployment, Tiers

WORDS = (
    "refund",
    "classify",
    "extract",
    "debug",
    "translate",
    "summarize",
    "my husband died",
    "solve",
    "the equation",
    "```code```",
    "JSON",
    "please",
    "agent",
    "绝望",
    "reply to the customer",
)


@dataclass(frozen=True)
class Wordy:
    """A guard with settings whose own order is not fixed."""

    words: frozenset[str] = frozenset(WORDS)

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        return Verdict(guard="wordy", code="wordy", floor=1) if len(self.words & set(seen.features.spoken.split())) > 1 else None


class Listed(BaseModel):
    """Settings of somebody who validates them."""

    words: set[str]


class Kind(Enum):
    ANY = frozenset(WORDS)


@dataclass(frozen=True)
class Grouped:
    """A guard whose setting holds sets within."""

    groups: Any = ((frozenset(WORDS), Wordy()), {"any": Wordy(frozenset(WORDS[:9]))}, Listed(words=set(WORDS)), Kind.ANY)

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        return None


def records(count: int = 1_000) -> list[Any]:
    """Decisions on steps from a seeded generator, as plain JSON, with their state and explanation."""
    random, made = Random(5), []
    for number in range(count):
        policy = random.choice(POLICIES).replace(stance=random.choice(("frugal", "balanced", "conservative")))
        texts = [" ".join(random.choices(WORDS, k=random.randrange(1, 9))) for _ in range(random.randrange(1, 4))]
        step = Step.from_messages(
            [*texts, random.choice((*TEXTS, *texts * 5))],
            id=f"s{number}",
            node=random.choice(("a", "b")),
            tools=random.choice(((), ("look",))),
        )
        pins = frozenset(
            Pin(scope="lineage", tier=f"tier{random.randrange(5)}", key=random.choice("abc")) for _ in range(random.randrange(3))
        )
        state = ThreadState(pins, frozenset(random.sample(("distress", "vip"), random.randrange(3))))
        now = Conditions(unavailable=frozenset(random.sample(("tier0", "tier1", "model-2", "model-3"), random.randrange(3))))
        decision = policy.decide(step, state, now)
        made.append([decision.to_record(evidence=True), decision.explain(), decision.state.to_json(), decision.key])
    made.append([POLICIES[1].replace(guards=[rule]).hash for rule in (Wordy(), Grouped(), Says(None))])
    return made


def elsewhere(seed: str) -> list[Any]:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def here() -> list[Any]:
    return json.loads(json.dumps(records()))


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_a_thousand_decisions_are_the_same_in_another_process(here: list[Any], seed: str) -> None:
    there = elsewhere(seed)

    assert there[:-1] == here[:-1]


def test_a_rules_settings_hash_alike_in_every_process() -> None:
    assert elsewhere("1")[-1] == elsewhere("4242")[-1]


@given(policy=policies, step=steps, now=conditions, facts=st.sets(st.sampled_from(("distress", "vip"))), pinned=st.integers(0, 4))
def test_a_decision_survives_the_json_of_its_state_and_step(
    policy: Policy, step: Step, now: Conditions, facts: set[str], pinned: int
) -> None:
    state = ThreadState(frozenset({Pin(scope="thread", tier=f"tier{pinned}")}), frozenset(facts))
    read_step, read_state = (
        Step.from_record(json.loads(json.dumps(step.to_record()))),
        ThreadState.from_json(json.loads(json.dumps(state.to_json()))),
    )

    again = policy.decide(read_step, read_state, now)

    assert again.to_record(evidence=True) == policy.decide(step, state, now).to_record(evidence=True)


@given(policy=policies, step=steps, now=conditions)
def test_deciding_twice_gives_equal_decisions(policy: Policy, step: Step, now: Conditions) -> None:
    assert policy.replace().decide(step, None, now) == policy.decide(step, None, now)


@given(percent=st.integers(0, 100), exponent=st.integers(0, 60))
def test_a_share_to_a_power_is_made_of_integers(percent: int, exponent: int) -> None:
    made, exact = _power(percent, exponent), BILLION * percent**exponent // 100**exponent

    assert (type(made), exact - 200 <= made <= exact) == (int, True)


def test_the_order_of_keys_means_nothing() -> None:
    forward = {"tenant": "acme", "floor": 2, "task_class": "summarization"}
    backward = dict(reversed(forward.items()))

    ranks = {POLICIES[2].decide(Step.from_messages("x", metadata=each, id="s")).explain() for each in (forward, backward)}

    assert len(ranks) == 1


@dataclass(frozen=True)
class Always:
    """A classifier with a setting."""

    task_class: str

    def classify(self, features: Features, /) -> Classification:
        return Classification(task_class=self.task_class, confidence=0.9, p_strong=0.1)


def test_policies_whose_classifiers_differ_have_different_hashes() -> None:
    hashes = {POLICIES[1].replace(classifier=Always(key)).hash for key in CLASSES}

    assert len(hashes) == len(CLASSES)


def test_policies_whose_deployments_are_named_otherwise_have_different_hashes() -> None:
    hashes = {Policy(tiers=Tiers.of({"only": Deployment(model="m", name=name)})).hash for name in ("eu", "us")}

    assert len(hashes) == 2


if __name__ == "__main__":
    sys.stdout.write(json.dumps(records()))
