"""Segments are a message's lines and sentences, and the forms they have."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from typing import Final

EDGE: Final = 8
"""Segments at the start and at the end of a message that may be its instruction."""
PARAGRAPH, LINE, SENTENCE, PART, END = range(5)
"""What comes before a segment: an empty line, the end of a line, that of a sentence, a colon or dash; or the message ends."""
_BREAKS: Final = ((". ", ".\n\1"), ("? ", "?\n\1"), ("! ", "!\n\1"), (": ", ":\n\2"))
_DASHES: Final = (" - ", " -- ", " | ", " => ", " — ", " – ")
_OTHER_BREAKS: Final = tuple((mark, f"{mark}\n{kind}") for mark, kind in [*zip("。！？।۔؟", "\1" * 6, strict=True), ("：", "\2")])
"""Where a segment ends, besides the end of a line. Told by plain replacement, some ten times quicker than by a pattern."""
_KINDS: Final = {"\1": SENTENCE, "\2": PART}
HEAD_READ: Final = 1_200
TAIL_READ: Final = 800
"""Characters of a message that are cut into segments, at its start and its end."""


def segments_of(text: str) -> tuple[list[str], list[int]]:
    """A message's segments, and the break before each; of a long message those of its start and end only.

    >>> segments_of("Label this: good or bad?\\n\\nIt rained. We went home.")
    (['Label this:', 'good or bad?', 'It rained.', 'We went home.'], [0, 3, 0, 2])
    """
    if len(text) <= HEAD_READ + TAIL_READ:
        return _cut(text)
    (head, before), (tail, after) = _cut(text[:HEAD_READ]), _cut(text[-TAIL_READ:])
    if len(head) > 1 and len(tail) > 1:  # the two in the middle are cut off
        del head[-1], before[-1], tail[0], after[0]
    return head + tail, before + after


def _cut(text: str) -> tuple[list[str], list[int]]:
    for mark, end in _BREAKS:
        if mark in text:
            text = text.replace(mark, end)
    for mark in _DASHES:
        if mark in text:
            text = text.replace(mark, "\n\2")
    if not text.isascii():
        for mark, end in _OTHER_BREAKS:
            text = text.replace(mark, end)
    segments: list[str] = []
    breaks: list[int] = []
    kind = PARAGRAPH
    for line in text.split("\n"):
        segment = line.strip()
        if not segment:
            kind = PARAGRAPH
        elif segment[0] not in _KINDS:
            segments.append(segment)
            breaks.append(kind)
            kind = LINE
        elif rest := segment[1:].lstrip():
            segments.append(rest)
            breaks.append(_KINDS[segment[0]] if kind else kind)
            kind = LINE
    return segments, breaks


def edges(count: int) -> Sequence[int]:
    """The places of the segments that may be the instruction."""
    return range(count) if count <= 2 * EDGE else (*range(EDGE), *range(count - EDGE, count))


def lines_of(breaks: Sequence[int]) -> list[tuple[int, int]]:
    """For each segment, where its line starts and ends."""
    return _spans(breaks, LINE)


def forms_of(
    segments: Sequence[str], breaks: Sequence[int], lines: Sequence[tuple[int, int]], lengths: Sequence[int], under: bool
) -> list[tuple[str, ...]]:
    """Names of the form of each segment at the edges: where it stands, how it ends, and how line and paragraph round it look.

    Args:
        segments: all of a message.
        breaks: the break before each.
        lines: where the line of each starts and ends.
        lengths: the words of each.
        under: there is a system prompt.
    """
    count, total = len(segments), sum(lengths)
    paragraphs = _spans(breaks, PARAGRAPH)
    size, number, whole = bisect(_TOTALS, total), bisect(_COUNTS, count), total or 1
    forms = _FORM[under]
    found: list[tuple[str, ...]] = []
    line = paragraph = ""
    line_seen = paragraph_seen = (-1, -1)
    for place in edges(count):
        where = "only" if count == 1 else "first" if not place else "last" if place == count - 1 else "edge"
        if lines[place] != line_seen:
            start, end = line_seen = lines[place]
            line = _LINE[_side(start, end, count)][bisect(_INSIDE, end - start)][bisect(_LINE_WORDS, sum(lengths[start:end]))]
        if paragraphs[place] != paragraph_seen:
            start, end = paragraph_seen = paragraphs[place]
            paragraph = _PARAGRAPH[_side(start, end, count)][bisect(_AROUND, end - start)]
        length = lengths[place]
        found.append(
            (
                forms[where][_ENDS.get(segments[place][-1], "open")][bisect(_LENGTHS, length)],
                _BETWEEN[where][breaks[place] if place else END][breaks[place + 1] if place + 1 < count else END],
                _AMONG[where][number],
                _SHARE[where][bisect(_SHARES, 100 * length // whole)][size],
                line,
                paragraph,
            )
        )
    return found


def _side(start: int, end: int, count: int) -> str:
    return ("all" if end == count else "first") if not start else "last" if end == count else "middle"


def _spans(breaks: Sequence[int], least: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    start = 0
    for end in range(1, len(breaks)):
        if breaks[end] <= least:
            found += [(start, end)] * (end - start)
            start = end
    return found + [(start, len(breaks))] * (len(breaks) - start)


_LENGTHS: Final = (2, 5, 10, 20, 40)
_TOTALS: Final = (12, 40, 120)
_COUNTS: Final = (2, 3, 5, 9, 17)
_SHARES: Final = (5, 15, 30, 50, 80)
_INSIDE: Final = (2, 3, 5)
_LINE_WORDS: Final = (6, 15, 40)
_AROUND: Final = (2, 3, 5, 9)
_ENDS: Final = {":": "colon", "：": "colon", "?": "question", "？": "question", **dict.fromkeys(".!。！", "stop")}


_WHERE: Final = ("only", "first", "last", "edge")
_SIDES: Final = ("all", "first", "last", "middle")
_FORM: Final = {
    under: {
        where: {
            end: [f"={where}{'_under' if under else ''} {end} {size}" for size in range(len(_LENGTHS) + 1)]
            for end in ("colon", "question", "stop", "open")
        }
        for where in _WHERE
    }
    for under in (False, True)
}
_BETWEEN: Final = {
    where: [[f"=between {where} {before} {after}" for after in range(END + 1)] for before in range(END + 1)] for where in _WHERE
}
_AMONG: Final = {where: [f"=among {where} {number}" for number in range(len(_COUNTS) + 1)] for where in _WHERE}
_SHARE: Final = {
    where: [[f"=share {where} {share} {size}" for size in range(len(_TOTALS) + 1)] for share in range(len(_SHARES) + 1)] for where in _WHERE
}
_LINE: Final = {
    side: [[f"=line {side} {inside} {words}" for words in range(len(_LINE_WORDS) + 1)] for inside in range(len(_INSIDE) + 1)]
    for side in _SIDES
}
_PARAGRAPH: Final = {side: [f"=paragraph {side} {around}" for around in range(len(_AROUND) + 1)] for side in _SIDES}
