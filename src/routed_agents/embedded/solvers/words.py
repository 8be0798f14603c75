"""Words, stems and sentences: what the solvers see when they look at a text."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?](?=[^\s])[^.!?\n]*)*(?:[.!?]+[\"'”’)]*|\n|$)")
_ENDINGS = ("ations", "ation", "ments", "ment", "ingly", "edly", "ings", "ing", "ies", "ied", "est", "ers", "ed", "es", "er", "ly", "s")
STOP = frozenset(
    """
    a about after all also am an and any are as at be been but by can could did do does for from get give had has have he her his
    how i if in into is it its just let like make may me my need of on one only or our out please shall she should so some tell
    than that the their them then there these they this to us use using was we were what when where which who why will with would
    you your something anything everything long much many ever really very
    """.split()  # noqa: SIM905
)


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A word without its ending, roughly."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


def words(text: str) -> list[str]:
    """All words, as written; names like `order_id` or `orderId` fall apart into theirs."""
    return _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))


def stems(text: str) -> set[str]:
    """Stems of the words that carry meaning."""
    return {stem(word) for word in words(text) if word.lower() not in STOP}


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order."""
    return [found.strip(" \t-*•") for found in _SENTENCE.findall(text) if re.search(r"\w", found)]


def shortened(text: str, most: int) -> str:
    """A text on one line, cut at a word once it is longer than this many characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def joined(pieces: list[str]) -> str:
    """`a, b and c`."""
    return pieces[0] if len(pieces) == 1 else f"{', '.join(pieces[:-1])} and {pieces[-1]}" if pieces else ""
