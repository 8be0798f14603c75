"""Query rewriting: a question becomes the words a text that answers it may use."""

from __future__ import annotations

import re

from routed_agents.embedded.solvers import lexicon
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import STOP, stem, words

ASKED = r"\b(?:rewrite|rephrase|reformulate|turn|expand)\b[^.\n]{0,40}\b(?:quer(?:y|ies)|search|keywords?)\b"


def answer(brief: Brief) -> str | None:
    """The question's key words and words akin to them, or None where no query is asked for."""
    if brief.documents or not re.search(ASKED, brief.orders, re.IGNORECASE):
        return None
    asked = re.sub(r"^\s*question:\s*", "", brief.instruction or brief.material, flags=re.IGNORECASE)
    own = [word.lower() for word in words(asked) if len(word) > 2 and word.lower() not in STOP]
    kin = lexicon.load().synonyms
    return " ".join(dict.fromkeys([*own, *(near for word in own for near in kin.get(stem(word), ()))]))
