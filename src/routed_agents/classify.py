"""Classifiers name the task class of a step and say how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from routed_agents.features import Features
from routed_agents.phrases import PhraseTable, lexicon


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What kind of step this is.

    Attributes:
        task_class: a key of the taxonomy.
        confidence: 0 to 1, how sure the classifier is of the class.
        p_strong: 0 to 1, the chance that the step needs the strong tier.
        declared: its author said so, so nothing was guessed.
        evidence: what spoke for it, for a person; may quote content.
    """

    task_class: str
    confidence: float
    p_strong: float
    declared: bool = False
    evidence: tuple[str, ...] = ()


@runtime_checkable
class Classifier(Protocol):
    """Names the class of a step from its features; pure, so that a decision can be replayed."""

    def classify(self, features: Features, /) -> Classification: ...


BASE_STRONG: Final[Mapping[str, int]] = {
    "classification": 3, "extraction": 4, "rag_lookup": 6, "marketing_copy": 8, "code_format": 4, "summarization": 10, "multi_turn": 14,
    "knowledge_qa": 45, "code_generation": 60, "math_reasoning": 65, "debug_refactor": 90, "long_context": 95, "agentic_chain": 92,
    "empathy_escalation": 95,
}  # fmt: skip
"""Percent of each class that needs the strong tier before the text says more: the taxonomy's shares where a source gives one."""

OPENING: Final = 240
"""Characters at the start of the system prompt and of the person's words; what stands there says most, and counts twice."""


class RuleClassifier:
    """A first classifier of readable rules: weighted phrases, counted in integers, so every platform gets the same sum.

    The declared class wins. Otherwise each class collects the weights of the phrases found in the *instruction*, those at its
    opening twice; structure only tips the scales.
    """

    name: Final = "rules"
    version: Final = "1"

    def classify(self, features: Features, /) -> Classification:
        """Name the class; see the class's docstring for how."""
        if features.declared is not None:
            base = BASE_STRONG.get(features.declared, 50)
            return Classification(
                task_class=features.declared,
                confidence=1.0,
                p_strong=base / 100,
                declared=True,
                evidence=(f"declared {features.declared}",),
            )
        scores, found = self._scores(features)
        if not scores:
            return Classification(task_class=self._default(features), confidence=0.3, p_strong=0.5, evidence=("no phrase of any class",))
        best = min(scores, key=lambda key: (-scores[key], key))
        top, total = scores[best], sum(scores.values())
        second = max([score for key, score in scores.items() if key != best], default=0)
        confidence = min(99, 30 + 4 * (top - second) + 2 * min(top, 12))
        weights = {key: score * score for key, score in scores.items()}
        p_strong = sum([BASE_STRONG[key] * weight for key, weight in weights.items()]) * 1000 // sum(weights.values())
        return Classification(
            task_class=best,
            confidence=confidence / 100,
            p_strong=p_strong / 100_000,
            evidence=(f"{best} {top} of {total}", *found[best][:4]),
        )

    @staticmethod
    def _default(features: Features) -> str:
        return "multi_turn" if features.message_count > 2 else "knowledge_qa"

    @staticmethod
    def _scores(features: Features) -> tuple[dict[str, int], dict[str, list[str]]]:
        scores: dict[str, int] = {}
        found: dict[str, list[str]] = {}
        for part in (features.system, features.spoken):
            for key, weight, match in _phrases(part):
                scores[key] = scores.get(key, 0) + weight
                found.setdefault(key, []).append(match)
        tips: dict[str, int] = {}
        if features.tools and "agentic_chain" in scores:
            tips["agentic_chain"] = 3
        if features.output_schema:
            tips |= {"extraction": 2, "classification": 2}
        if features.message_count > 2:
            tips["multi_turn"] = 3
        if features.tokens > 50_000:
            tips["long_context"] = 6
        if features.payload:
            for key in ("rag_lookup", "summarization", "extraction"):
                if key in scores:
                    tips[key] = tips.get(key, 0) + 1
        for key, weight in tips.items():
            scores[key] = scores.get(key, 0) + weight
            found.setdefault(key, []).append("structure")
        return scores, found


def _phrases(text: str) -> list[tuple[str, int, str]]:
    """Each phrase rule once per text: a repeated word says nothing new."""
    hits: dict[tuple[str, int], tuple[int, str]] = {}
    if not text:
        return []
    for rule, start, shown in PHRASES.find(text):
        if rule not in hits:
            hits[rule] = (rule[1] * 2 if start < OPENING else rule[1], shown[:40])
    return [(key, weight, shown) for (key, _), (weight, shown) in hits.items()]


PHRASES: Final = PhraseTable([((row["key"], row["weight"]), phrase) for row in lexicon()["class"] for phrase in row["any"]])
