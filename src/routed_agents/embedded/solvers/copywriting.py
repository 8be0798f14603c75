"""Marketing copy: a short text in a friendly voice, made of nothing but the facts in the prompt."""

from __future__ import annotations

import re

from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import sentences

ASKED = r"\b(?:marketing (?:text|copy)|advert(?:isement)?|slogan|teaser|product (?:text|description)|newsletter)\b"
_FIGURES = re.compile(r"\bsold\b|\bup from\b|\bdown from\b")


def answer(brief: Brief) -> str | None:
    """A text for each thing there are facts about, or None where none is asked for or there are no facts."""
    if not brief.documents or not re.search(ASKED, brief.system or brief.instruction, re.IGNORECASE):
        return None
    return " ".join(_praise(title, facts, brief.strength) for title, facts in brief.documents[:2])


def _praise(title: str, facts: str, strength: int) -> str:
    told = [sentence for sentence in sentences(facts) if not _FIGURES.search(sentence)][: 1 + strength]
    return f"Meet the {title}! {' '.join(told)}" if title else " ".join(told)
