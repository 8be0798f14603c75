"""Told is what of a message reads like its author's instruction; the rest is material, which its words and its form tell apart."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Final

from routed_agents.segments import END, edges, forms_of, lines_of, segments_of
from routed_agents.words import runs_of

Words = tuple[str, ...]
Slips = Callable[[Words], Mapping[str, str]]
"""Tells which of some words were mistyped, and what was meant."""

TOLD: Final = 120
"""Words of segments that read like an instruction."""
OPENED: Final = 3
"""Segments whose first words are read where none is told."""
SHARE: Final = 8
"""The words of a longer segment weigh less each; half of this and more words, and they weigh `SHARE` together."""
SURELY: Final = 32
"""A logit; what only may be an instruction is read with the whole message, as one that has no material is."""
REMEMBERED: Final = 20_000
"""Words whose weight is kept."""


class Telling(dict[str, int]):
    """How much words and forms speak for a segment being an instruction, in 1/32 logits.

    A word, and `^` with the word that opens a segment, weighs besides what its neighbourhood does (`~12`, `^~12`). Added up when a word
    is first met, so each is looked up once.

    Args:
        own: weights by name.
        neighbours: the neighbourhood of a word.
    """

    def __init__(self, own: Mapping[str, int], neighbours: Mapping[str, int]) -> None:
        super().__init__()
        self.own = own
        self._neighbours = neighbours

    def __missing__(self, name: str) -> int:
        lead, word = ("^", name[1:]) if name.startswith("^") else ("", name)
        weight = self.own.get(name, 0)
        if (place := self._neighbours.get(word)) is not None:
            weight += self.own.get(f"{lead}~{place}", 0)
        if len(self) >= REMEMBERED:
            self.clear()
        self[name] = weight
        return weight


def told_in(own: str, weights: Telling, under: bool, slips: Slips) -> tuple[str, Words, Words, Words]:
    """The segments that read like an instruction, as text and as words, the others' words, and the words that open what is told; nothing
    is told where no segment reads so, and then the message's first segments are opened.

    Args:
        own: the message without marked material.
        weights: how much each word and each form speaks for an instruction.
        under: there is a system prompt.
        slips: tells what was mistyped.
    """
    segments, breaks = segments_of(own)
    runs = runs_of(segments)
    places = edges(len(segments))
    mistyped = slips(tuple(chain.from_iterable([runs[place] for place in places])))
    if mistyped:
        runs = [tuple([mistyped.get(word, word) for word in run]) for run in runs]
    lines = lines_of(breaks)
    scores = scores_of(runs, forms_of(segments, breaks, lines, [len(run) for run in runs], under), places, weights)
    weight = weights.own.get
    said: list[str] = []
    told: list[str] = []
    instructive: list[int] = []
    for place, names in zip(places, seen_together(scores, places, breaks, lines), strict=True):
        if sum(map(weight, names, repeat(0))) > SURELY and len(told) < TOLD:
            instructive.append(place)
            said.append(segments[place])
            told += runs[place]
    rest = chain.from_iterable([run for place, run in enumerate(runs) if place not in instructive])
    leads = leads_of([runs[place] for place in instructive] or runs[:OPENED])
    return "\n".join(said), tuple(told[:TOLD]), tuple(rest), leads


def leads_of(runs: Iterable[Words]) -> Words:
    """The words that segments open with: an instruction's verb stands there more often than anywhere else."""
    return tuple([run[0] for run in runs if run])


# ---- a segment by itself ----------------------------------------------------------------------------------------------


def openings_of(run: Words) -> tuple[str, ...]:
    """Names of how a segment opens: its first word, and its first two."""
    return (f"^{run[0]}", f"^{run[0]} {run[1]}") if len(run) > 1 else (f"^{run[0]}",) if run else ()


def scores_of(runs: Sequence[Words], forms: Sequence[Sequence[str]], places: Sequence[int], weights: Telling) -> list[int]:
    """How much each segment's words, opening and form speak for an instruction, by themselves, in 1/32 logits.

    Args:
        runs: the words of all of a message's segments.
        forms: of the segments at the edges, as `forms_of` names them.
        places: of these.
        weights: see `Telling`.
    """
    weight, own = weights.__getitem__, weights.own.get
    scores: list[int] = []
    for place, names in zip(places, forms, strict=True):
        run = runs[place]
        score = SHARE * sum(map(weight, {*run})) // (len(run) + SHARE // 2) + sum(map(own, names, repeat(0)))
        if run:
            first, *pair = openings_of(run)
            score += weight(first) + sum(map(own, pair, repeat(0)))
        scores.append(score)
    return scores


# ---- segments together ------------------------------------------------------------------------------------------------


FINE: Final = tuple(range(-160, 161, 16))
COARSE: Final = (-160, -96, -64, -32, -16, 0, 16, 32, 64, 96, 160)
MANY: Final = (2, 3, 4, 6, 9, 13)
"""Bounds of a score, finely and coarsely, and of the number of segments."""
_NONE: Final = len(COARSE) + 1
"""Stands for a neighbour that is not there."""
_BETWEEN: Final = tuple(tuple(range(_NONE + 1)) for _ in range(END + 1))
_OWN: Final = tuple(f"+own {score}" for score in range(len(FINE) + 1))
_BEFORE: Final = tuple(tuple(f"+before {kind} {score}" for score in scores) for kind, scores in enumerate(_BETWEEN))
_AFTER: Final = tuple(tuple(f"+after {kind} {score}" for score in scores) for kind, scores in enumerate(_BETWEEN))
_MOST: Final = tuple(tuple(f"+most {most} {score}" for score in range(_NONE // 2 + 1)) for most in range(_NONE // 2 + 1))
_LINE: Final = tuple(f"+line {score}" for score in range(_NONE + 1))
_OTHERS: Final = tuple(f"+others {score}" for score in range(len(FINE) + 1))
_COUNT: Final = tuple(f"+count {number}" for number in range(len(MANY) + 1))


def seen_together(
    scores: Sequence[int], places: Sequence[int], breaks: Sequence[int], lines: Sequence[tuple[int, int]]
) -> list[tuple[str, ...]]:
    """Names of how each segment's score stands among the others': an instruction's neighbours are mostly instruction, and where another
    segment reads much more like one, this is seldom one.

    Args:
        scores: of the segments at the edges.
        places: of these.
        breaks: the break before each segment of the message.
        lines: where the line of each starts and ends.
    """
    count = len(scores)
    number, total = _COUNT[bisect(MANY, len(breaks))], sum(scores)
    coarse = [bisect(COARSE, score) for score in scores]
    best = max(scores, default=0)
    second = sorted(scores)[-2] if count > 1 else 0
    in_line: dict[int, tuple[int, int]] = {}
    for place, score in zip(places, scores, strict=True):
        added, members = in_line.get(lines[place][0], (0, 0))
        in_line[lines[place][0]] = added + score, members + 1
    found: list[tuple[str, ...]] = []
    for at, (place, score) in enumerate(zip(places, scores, strict=True)):
        added, members = in_line[lines[place][0]]
        names = (
            _OWN[bisect(FINE, score)],
            _BEFORE[breaks[place] if place else END][coarse[at - 1] if at and places[at - 1] == place - 1 else _NONE],
            _AFTER[breaks[place + 1] if place + 1 < len(breaks) else END][
                coarse[at + 1] if at + 1 < count and places[at + 1] == place + 1 else _NONE
            ],
            _LINE[bisect(COARSE, (added - score) // (members - 1)) if members > 1 else _NONE],
            number,
        )
        if count > 1:
            most = second if score == best else best
            names += (_MOST[bisect(COARSE, most) // 2][coarse[at] // 2], _OTHERS[bisect(FINE, (total - score) // (count - 1))])
        found.append(names)
    return found
