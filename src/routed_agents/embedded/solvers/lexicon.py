"""The lexicon tells how strongly a text speaks for an idea; its rows live in lexicon.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from routed_agents.embedded.json_fields import JsonObject, member, strings
from routed_agents.embedded.solvers.words import STOP, stem, words

_CLEAR, _FAINT = 3.0, 1.0
_NEGATED = re.compile(r"\b(?:not|never|no|isn't|aren't|wasn't|don't|doesn't|without)\s+(?:\w+\s+)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Ideas with their cues, kinds of verbs, words that are kin, and synonyms."""

    ideas: Mapping[str, tuple[tuple[str, float], ...]]
    defaults: tuple[str, ...]
    reading: frozenset[str]
    acting: frozenset[str]
    kin: Mapping[str, frozenset[str]]
    synonyms: Mapping[str, tuple[str, ...]]


@cache
def load() -> Lexicon:
    """Reads lexicon.toml once."""
    data: JsonObject = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))
    ideas: dict[str, tuple[tuple[str, float], ...]] = {}
    for name in member(data, "idea"):
        row = member(member(data, "idea"), name)
        cues = (*((cue, _CLEAR) for cue in strings(row, "clear")), *((cue, _FAINT) for cue in strings(row, "faint")))
        ideas[name] = cues
        for other in strings(row, "also"):
            ideas.setdefault(other, cues)
    verbs, kin, synonyms = member(data, "verbs"), member(data, "kin"), member(data, "synonyms")
    return Lexicon(
        ideas=ideas,
        defaults=tuple(strings(member(data, "default"), "labels")),
        reading=frozenset(strings(verbs, "read")),
        acting=frozenset(strings(verbs, "act")),
        kin={stem(name): frozenset(stem(word) for word in strings(kin, name)) for name in kin},
        synonyms={stem(name): tuple(strings(synonyms, name)) for name in synonyms},
    )


def akin(asked: set[str]) -> set[str]:
    """Stems of the words a text may use for these, beyond these themselves."""
    synonyms = load().synonyms
    return {stem(near) for word in asked for near in synonyms.get(word, ())} - asked


def weight(label: str, description: str, text: str) -> float:
    """How strongly a text speaks for a label, by the lexicon, by the label's own words and by its description."""
    folded = f" {text.lower().replace('’', chr(39))} "
    score = sum(worth * min(2, _hits(pattern, folded)) for cue, pattern, worth in _patterns(label) if cue in folded)
    for word in words(description):
        if len(word) > 3 and word.lower() not in STOP and re.search(rf"\b{re.escape(stem(word))}", folded):
            score += 1.5
    return score


@lru_cache(maxsize=2_000)
def _patterns(label: str) -> tuple[tuple[str, re.Pattern[str], float], ...]:
    ideas = load().ideas
    name = label.lower().strip()
    cues: dict[str, float] = dict(ideas.get(name, ()))
    for word in words(label):
        lowered = word.lower()
        if lowered != name:
            cues.update((cue, worth / 2) for cue, worth in ideas.get(lowered, ()) if cue not in cues)
        if len(lowered) > 2 and lowered not in STOP:
            cues[stem(lowered)] = max(2.0, cues.get(stem(lowered), 0))
    return tuple((cue, re.compile((r"(?<!\w)" if cue[0].isalnum() else "") + re.escape(cue)), worth) for cue, worth in cues.items())


def _hits(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for found in pattern.finditer(text) if not _NEGATED.search(text[max(0, found.start() - 24) : found.start()]))


def choose(labels: Mapping[str, str], text: str) -> str:
    """The label a text speaks for most; a label that means "nothing special" where it speaks for none."""
    scores = {label: weight(label, description, text) for label, description in labels.items()}
    best = max(scores.values())
    usual = next((label for label in labels if label.lower() in load().defaults), None)
    # One faint cue, such as "still", does not make a calm mail an annoyed one; for "other" it is all there may be.
    if best < (2 if usual is not None and usual.lower() in load().ideas else 1):
        return next(iter(labels)) if usual is None else usual
    return next(label for label, score in scores.items() if score == best)
