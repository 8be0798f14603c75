"""Classifiers name the task class of a step and say how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from operator import mul
from typing import Final, Protocol, runtime_checkable

from routed_agents.features import Features
from routed_agents.linear import LinearModel, load
from routed_agents.zones import Reading, echoes_of, placed, read, split, zones_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What kind of step this is.

    Attributes:
        task_class: a key of the taxonomy.
        confidence: 0 to 1, how sure the classifier is of the class.
        p_strong: 0 to 1, the chance that the step needs the strong tier.
        declared: its author said so, so nothing was guessed.
        judged: a model that was asked said so.
        evidence: what spoke for it, for a person; may quote content.
    """

    task_class: str
    confidence: float
    p_strong: float
    declared: bool = False
    judged: bool = False
    evidence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.evidence is None:  # pyright: ignore[reportUnnecessaryComparison]  a classifier of somebody's own may have none
            object.__setattr__(self, "evidence", ())


@runtime_checkable
class Classifier(Protocol):
    """Names the class of a step from its features; pure, so that a decision can be replayed."""

    def classify(self, features: Features, /) -> Classification: ...


MILLION: Final = 1_000_000
SURE: Final = 800_000
"""Confidence from which nobody asks whether the words were known at all."""
SHORT: Final = 20_000
"""Tokens up to which a step is no long-context synthesis, whatever its words: the class is one of size."""
ANSWERING: Final = frozenset({"rag_lookup", "knowledge_qa", "multi_turn"})
"""Classes whose message is what is answered; a system prompt in a known language says nothing about one in another."""
READINGS: Final = 128
"""Messages with their system prompts whose reading is kept: a tool loop asks about the same ones again at every step."""
FAMILIAR: Final = 25
"""Percent of the instruction's words that must be known, or what the others say is no evidence."""
NEED: Final[Mapping[str, tuple[int, int]]] = {
    "multi_turn": (0, 100), "knowledge_qa": (0, 100), "code_generation": (90, 10), "math_reasoning": (90, 10),
    "debug_refactor": (100, 0), "long_context": (100, 0), "agentic_chain": (100, 0), "empathy_escalation": (100, 0),
}  # fmt: skip
"""Percent of each class that needs the strong tier: a share that always does, and one that does as far as the step is hard.

A step of a class not named here needs it in no case: whatever is dangerous about it is another class. The taxonomy's dispositions and
the policy's thresholds decide what is made of it.
"""


class LinearClassifier:
    """The shipped classifier: a linear model over the words of the instruction, by place, and the step's shape.

    The declared class wins. Otherwise the words of system prompt, opening and closing are added up with weights learnt from the
    project's own corpus (`make train`), in whole numbers, so every platform gets the same sum. Material between unmistakable marks
    (fences, tags, quotation marks) is not read, so what it says can neither lower nor raise the step; a quotation of up to eight words
    is a title or a label and is read. Where nothing is read nothing is sure.

    Args:
        model: other weights; the shipped ones when not given.
    """

    name: Final = "linear"

    def __init__(self, model: LinearModel | None = None) -> None:
        self.model = model if model is not None else shipped()
        self._always = [NEED.get(key, (0, 0))[0] for key in self.model.classes]
        self._lighter = [int(always < 50) for always in self._always]
        self._if_hard = [NEED.get(key, (0, 0))[1] for key in self.model.classes]
        self._synthesis = self.model.classes.index("long_context")
        self._readings: dict[tuple[str, str, bool], tuple[Reading, int]] = {}

    def __reduce__(self) -> tuple[type[LinearClassifier], tuple[LinearModel, ...]]:
        return LinearClassifier, () if self.model is shipped() else (self.model,)  # a spawned process has the shipped weights

    @property
    def version(self) -> str:
        """The digest of the weights, so that it enters the policy's hash."""
        return self.model.digest

    def classify(self, features: Features, /) -> Classification:
        """Name the class: where p_strong is below one half, the most probable of those that seldom need the strong tier."""
        model = self.model
        if features.declared is not None:
            return self._declared(features)
        reading, parts, hardness = self._parts(features)
        total = sum(parts)
        need = sum(map(mul, parts, self._always)) * MILLION + sum(map(mul, parts, self._if_hard)) * model.share_of(hardness)
        p_strong = need // (100 * total)
        standing = parts if p_strong * 2 >= MILLION else list(map(mul, parts, self._lighter))
        most = max(standing)
        task_class = model.classes[standing.index(most)]
        confidence = most * MILLION // total
        read = reading.asked or reading.system
        if not read or ((confidence < SURE or task_class in ANSWERING) and self._foreign(reading)):
            confidence = 0
        return Classification(
            task_class=task_class,
            confidence=confidence / MILLION,
            p_strong=p_strong / MILLION,
        )

    def shares(self, features: Features) -> dict[str, float]:
        """How probable each class is; together 1."""
        if features.declared is not None:
            return {str(features.declared): 1.0}
        _, parts, _ = self._parts(features)
        total = sum(parts)
        return {name: part / total for name, part in zip(self.model.classes, parts, strict=True)}

    def _parts(self, features: Features) -> tuple[Reading, list[int], int]:
        model = self.model
        reading, added = self._read(features.own, features.system, features.marked)
        around, signs = placed(reading, features)
        said = added + model.weighed(around) + model.echoed(echoes_of(features, reading.asked))
        parts, hardness = model.parts_of(said + model.signed(signs))
        if features.tokens <= SHORT:
            parts[self._synthesis] = 0
        return reading, parts, hardness

    def _read(self, own: str, system: str, marked: bool) -> tuple[Reading, int]:
        """What a message and its system prompt say by themselves, and the sum of its weights."""
        key = own, system, marked
        found = self._readings.get(key)
        if found is None:
            model = self.model
            reading = read(own, system, marked, model.segments, model.mistyped)
            if len(self._readings) >= READINGS:
                self._readings.clear()
            found = self._readings[key] = reading, model.instructed(reading.instruction, reading.leads) + model.weighed(reading.bulk)
        return found

    def explain(self, features: Features, task_class: str) -> list[tuple[str, str, float]]:
        """What speaks most for a class: zone, words and weight in logits. Quotes the step."""
        return self.model.evidence(zones_of(features, self.model.segments, self.model.mistyped), task_class)

    def read(self, features: Features) -> list[tuple[str, str]]:
        """What was read as instruction and what as material, for an explanation; quotes the step."""
        instruction, material = split(features, self.model.segments, self.model.mistyped)
        found = [("system", features.system)] if features.system else []
        return [*found, ("told", instruction), *([("material", material)] if material else [])]

    def _declared(self, features: Features) -> Classification:
        """The author's class; only how hard the step is within it is still to be told."""
        task_class = str(features.declared)
        always, if_hard = NEED.get(task_class, (0, 0))
        need = always * MILLION
        if if_hard:
            _, _, hardness = self._parts(features)
            need += if_hard * self.model.share_of(hardness)
        return Classification(
            task_class=task_class,
            confidence=1.0,
            p_strong=need // 100 / MILLION,
            declared=True,
            evidence=(f"declared {task_class}",),
        )

    def _foreign(self, reading: Reading) -> bool:
        """Most of the words are unknown: another language, or no language at all."""
        known, words = self.model.known([(zone, said) for zone, said in reading.instruction if zone != "system"] or reading.instruction)
        return words * FAMILIAR > known * 100

    def threshold_for(self, task_class: str, share: float) -> float | None:
        """The p_strong that this share of a class's steps reach or exceed, as measured on the corpus's held-out steps."""
        spread = self.model.facts.get("spread", {}).get(task_class)
        return None if not spread else float(spread[round((1 - share) * (len(spread) - 1))])


@cache
def shipped() -> LinearModel:
    """The weights that come with the package."""
    return load(files("routed_agents").joinpath("weights.bin").read_bytes())
