"""Summaries keep the sentences that say most, in their order."""

from __future__ import annotations

import re
from collections import Counter

from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import sentences, shortened, stems

ASKED = r"\bsummar|\btl;?dr|\bcondense|\bshorten|\brecap\b|\bboil\b.{1,20}\bdown\b|\bkey points\b|\bmain points\b|\bin brief\b"
_GREETING = re.compile(
    r"^(?:hi|hello|dear|hey|good (?:morning|afternoon|evening)|best|kind regards|regards|thanks|thank you|cheers|yours)\b", re.IGNORECASE
)
_COUNTS = {"one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def lead(text: str, most: int) -> list[str]:
    """The first sentence and the most telling others, in their order."""
    found = [
        sentence for sentence in sentences(text) if len(sentence) > 12 and not (_GREETING.match(sentence) and len(sentence) < 50)
    ] or sentences(text)
    common = Counter(word for sentence in found for word in stems(sentence))
    ranked = sorted(
        range(len(found)),
        key=lambda index: (index != 0, -sum(common[word] for word in stems(found[index])) / (6 + len(stems(found[index])))),
    )
    return [shortened(found[index], 220) for index in sorted(ranked[:most])]


def answer(brief: Brief) -> str | None:
    """A summary as long as asked for, or None where none is asked for."""
    if not brief.asks(ASKED):
        return None
    text = "\n\n".join(text for _, text in brief.documents) if brief.documents and brief.material == brief.request else brief.material
    wanted = re.search(
        r"\b(?:in|as|to|with|exactly|most|give)?\s*(\d+|one|a single|two|three|four|five)\s+(?:short |key |brief )?(sentence|bullet|point|line)",  # noqa: E501
        brief.orders,
        re.IGNORECASE,
    )
    count = (_COUNTS.get(wanted[1].lower()) or int(wanted[1])) if wanted else 1 + brief.strength
    chosen = lead(text, max(1, min(count, 12)))
    bulleted = wanted[2].lower() in ("bullet", "point") if wanted else "bullet" in brief.orders.lower()
    return "\n".join(f"- {sentence}" for sentence in chosen) if bulleted else " ".join(chosen)


def short(brief: Brief) -> str:
    """A summary in one or two sentences, asked for or not."""
    return " ".join(lead(brief.material, 1 if brief.strength == 1 else 2)) or shortened(brief.material, 160)
