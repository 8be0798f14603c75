"""Grading: whether a passage bears on a question, and whether an answer says only what its sources say."""

from __future__ import annotations

import re

from routed_agents.embedded.solvers import lexicon
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import sentences, stems

_RELEVANT = re.compile(r"\b(relevant|relevance|helpful|useful|on topic)\b")
_GROUNDED = re.compile(r"\b(grounded|supported|faithful|hallucinat\w*)\b")
_FIGURE = re.compile(r"\d[\d,.:]*(?<=\d)")
_QUOTE = re.compile(r"“([^”]+)”")


def verdict(brief: Brief, named: str) -> bool | None:
    """The verdict a field of this name asks for, or None where it asks for none or there are no sources to judge by."""
    if not brief.documents:
        return None
    if _RELEVANT.search(named):
        return bears_on(brief)
    if (found := _GROUNDED.search(named)) is not None:
        return is_grounded(brief) != found[0].startswith("hallucinat")
    return None


def bears_on(brief: Brief) -> bool:
    """Whether the sources share enough with the question, in its own words or in words akin to them."""
    asked, said = stems(brief.instruction), stems(" ".join(f"{title} {text}" for title, text in brief.documents))
    shared = {word for word in asked if word in said or lexicon.akin({word}) & said}
    return len(shared) >= 2 and len(shared) >= 0.3 * len(asked)


def is_grounded(brief: Brief) -> bool:
    """Whether each sentence of the answer, or what it quotes, stands in the sources, with its figures."""
    sources = " ".join(f"{title} {text}" for title, text in brief.documents)
    said = stems(sources)
    if set(_FIGURE.findall(brief.material)) - set(_FIGURE.findall(sources)):
        return False
    claims = _QUOTE.findall(brief.material) or sentences(brief.material)
    return bool(claims) and all(len(stems(claim) & said) >= 0.85 * len(stems(claim)) for claim in claims)
