"""Policies with judges, and what judges may say, for the laws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from hypothesis import strategies as st
from worlds import CLASSES, POLICIES

from routed_agents.classify import Classification
from routed_agents.features import Features
from routed_agents.guards import Assessment, Verdict
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.questions import Opinion


class Local:
    """A local classifier that says the same of every step, unless its class is declared."""

    name = "local"

    def __init__(self, task_class: str, p_strong: float, confidence: float) -> None:
        self.said = Classification(task_class=task_class, p_strong=p_strong, confidence=confidence)
        self.version = repr(self.said)

    def classify(self, features: Features, /) -> Classification:
        if features.declared is None:
            return self.said
        return replace(self.said, task_class=features.declared, declared=True)


@dataclass(frozen=True)
class Wary:
    """A guard that wants more than the cheapest tier for one class, as it is read."""

    task_class: str

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        if seen.classification.task_class != self.task_class:
            return None
        return Verdict(guard="wary", code="wary", floor=1, facts=(f"seen {self.task_class}",))


judged_policies = st.sampled_from(
    [
        policy.replace(classifier=JudgedClassifier("judge-model", inner=Local(task_class, p_strong, confidence), above=0.2))
        for policy, task_class, p_strong, confidence in product(
            POLICIES, (*CLASSES, "debug_refactor", "empathy_escalation"), (0.1, 0.4, 0.97), (0.1, 0.9)
        )
    ]
)
sayings = st.sampled_from(
    [
        Opinion(task_class=task_class, p_strong=p_strong, confidence=confidence)
        for task_class, p_strong, confidence in product((*CLASSES, "debug_refactor"), (0.0, 0.4, 1.0), (0.05, 0.95))
    ]
)
silences = st.sampled_from(
    [
        *(Opinion(trouble=trouble) for trouble in ("timeout", "rate_limit", "nonsense", "busy", "event_loop")),
        Opinion(),
        Opinion(task_class="no_such_class", p_strong=0.0, confidence=1.0),
        Opinion(task_class="classification", p_strong=0.0, confidence=1.0, trouble="nonsense"),
        *(Opinion(task_class="classification", p_strong=wrong, confidence=0.9) for wrong in (float("nan"), -1.0, 2.0)),
    ]
)
