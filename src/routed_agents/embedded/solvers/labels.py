"""Classification: one of the labels a prompt lists is chosen for the material."""

from __future__ import annotations

import re

from routed_agents.embedded.solvers import lexicon
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.schema import told, without_labels

_ASKED = r"\bclassif|\blabel|\bcategor|\bone of\b|\broute\b|\btriage|\bwhich of\b|\bdecide\b|\byes or no\b|\bonly\b|\bexactly\b|\bsingle word\b|\bone word\b|\bgrade\b|\bjudge\b|\bsentiment\b|\bpass\b.{1,8}\bfail\b"  # noqa: E501
_LABEL = r"[\"'`*]{0,2}[A-Za-z][\w-]*(?:[ /][A-Za-z][\w-]*)?[\"'`*]{0,2}"
_BETWEEN = r"\s*(?:,\s*(?:or|and)\s+|,|\||;|/|\s+or\s+|\s+and\s+|\n[-*]?)\s*"
_LISTED = re.compile(
    r"(?:one of(?: (?:these|the following))?(?: \w+)?|labels?(?: are)?|categor(?:y|ies)(?: are)?|classes|options(?: are)?|choose(?: from| between)?|"  # noqa: E501
    rf"either|\bas|\binto|\bin|with(?: only| exactly| one of| either| one word| a single word)*|say|output|return(?: only)?|reply(?: only)?|answer(?: only)?|respond(?: only)?)\s*[:=(\[{{]*\s*((?:{_LABEL}{_BETWEEN})+{_LABEL})",  # noqa: E501
    re.IGNORECASE,
)  # fmt: skip
_BULLETS = re.compile(r"^\s*[-*•]\s*[\"'`*]*([A-Za-z][\w-]*(?: [A-Za-z][\w-]*)?)[\"'`*]*\s*(?:$|(?:[:–=(]|\s-\s)[^\n]*$)", re.MULTILINE)


def listed(orders: str) -> list[str]:
    """The labels instructions offer, in order."""
    bullets = [found[1].strip() for found in _BULLETS.finditer(orders) if len(found[1].split()) <= 2]
    found = [
        [clean for piece in re.split(_BETWEEN, match[1]) if (clean := re.sub(r"^(?:or|and|either)\s+", "", piece.strip(" \"'`*.)]}")))]
        for match in _LISTED.finditer(orders)
    ]
    best = max(found, key=len, default=list[str]())
    return list(dict.fromkeys(bullets if len(bullets) >= max(2, len(best)) else best))


def answer(brief: Brief, *, mistaken: bool = False) -> str | None:
    """The label for the material, alone, or None where the prompt does not ask for one."""
    if not brief.asks(_ASKED):
        return None
    labels = listed(brief.instruction) or listed(brief.system)
    if len(labels) < 2 or len(labels) > 40:
        return None
    meanings = told(labels, brief.orders)
    material = without_labels(brief.material, labels)
    chosen = lexicon.choose({label: meanings.get(label, "") for label in labels}, material)
    return next(label for label in reversed(labels) if label != chosen) if mistaken else chosen
