"""Answers from articles quote the sentences that share most with the question, or say that the articles are silent."""

from __future__ import annotations

import math
import re
from collections import Counter

from routed_agents.embedded.solvers import lexicon
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import sentences, shortened, stems

_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b")
NOT_FOUND = "I could not find that in the articles."


def quotes(brief: Brief, question: str) -> list[tuple[str, str]]:
    """(title, sentence) pairs that bear on the question, best first; empty if none does."""
    pool = [(title, sentence) for title, text in brief.documents for sentence in sentences(text)]
    spread = Counter(word for title, sentence in pool for word in stems(f"{title} {sentence}"))
    asked = stems(question)
    akin = lexicon.akin(asked)
    names = stems(" ".join(_NAME.findall(question)))

    def worth(pair: tuple[str, str]) -> float:
        own, heading = stems(pair[1]), stems(pair[0])
        shared = sum(math.log(1 + len(pool) / spread[word]) * (2.5 if word in names else 1) for word in asked & own)
        near = sum(math.log(1 + len(pool) / spread[word]) for word in akin & own)
        return shared + 0.5 * near + 0.5 * sum(math.log(1 + len(pool) / spread[word]) for word in (asked & heading) - own)

    ranked = sorted(((worth(pair), pair) for pair in pool), key=lambda scored: -scored[0])
    if not ranked or not any(stems(pair[1]) & (asked | akin) for _, pair in ranked[:1]):
        return []
    best, shared = ranked[0][0], stems(ranked[0][1][1]) & (asked | akin)
    # One common word among several asked for is a coincidence; a third of the question, or a rare word, is an answer.
    if len(shared) < 0.34 * len(asked) and best < min(2.0, math.log(1 + len(pool)) * 0.8):
        return []
    return [pair for score, pair in ranked if score >= 0.6 * best]


def answer(brief: Brief) -> str | None:
    """An answer from the articles in the prompt, or None where there are none."""
    if not brief.documents:
        return None
    found = quotes(brief, brief.instruction or brief.material)[: 1 if brief.strength == 1 else 2]
    if not found:
        return NOT_FOUND
    parts = [f"{f'According to “{title}”' if title else 'The articles say'}: “{shortened(sentence, 240)}”" for title, sentence in found]
    return " ".join(parts)
