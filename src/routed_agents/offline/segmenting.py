"""Segmenting is learnt where the corpus says which words of a message are its author's and which are material."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# scipy's sparse matrices carry no types

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from routed_agents.linear import SCALE
from routed_agents.material import hard_split
from routed_agents.offline.corpus import OPEN, SHUT, UNMARKED, Example
from routed_agents.offline.descent import descend, logistic, met
from routed_agents.segments import edges, forms_of, lines_of, segments_of
from routed_agents.told import SHARE, Telling, Words, openings_of, scores_of, seen_together
from routed_agents.words import runs_of

if TYPE_CHECKING:
    from routed_agents.offline.descent import Array

EACH: Final = 3
"""Steps grown from each skeleton."""
PENALTY: Final = 1e-4
"""L2 on the weights, per unit of sample weight."""
PENALTY_TOGETHER: Final = 1e-5
ROUNDS: Final = 250
ROUNDS_TOGETHER: Final = 600
SEEN_IN: Final = 3
"""Skeletons a word must occur in."""
MOST: Final = 127
HALVES: Final = 2
"""How segments stand together is learnt from scores of words that were learnt from other skeletons."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A message whose material is known.

    Attributes:
        skeleton: the name of its skeleton.
        runs: the words of each segment.
        breaks: the break before each.
        ours: whether each is instruction.
        forms: names of the forms of the segments at the edges.
    """

    skeleton: str
    runs: Sequence[Words]
    breaks: Sequence[int]
    ours: Sequence[bool]
    forms: Sequence[Sequence[str]]

    @cached_property
    def places(self) -> Sequence[int]:
        """The segments that may be the instruction."""
        return edges(len(self.runs))

    @cached_property
    def truth(self) -> list[float]:
        """Whether each of these is one."""
        return [float(self.ours[place]) for place in self.places]

    def alone(self, clusters: Mapping[str, Sequence[str]], neighbours: Mapping[str, int]) -> list[dict[str, float]]:
        """What each of them says by itself, by name; `scores_of` sums the very same."""
        rows: list[dict[str, float]] = []
        for place, forms in zip(self.places, self.forms, strict=True):
            run = self.runs[place]
            row: dict[str, float] = defaultdict(float, dict.fromkeys((*forms, *openings_of(run)), 1.0))
            if run and (near := neighbours.get(run[0])) is not None:
                row[f"^~{near}"] = 1.0
            value = SHARE / (len(run) + SHARE // 2)
            for word in {*run}:
                row[word] += value
                if (near := neighbours.get(word)) is not None:
                    row[f"~{near}"] += value
                for cluster in clusters.get(word, ()):
                    row[f"@{cluster}"] += value
            rows.append(row)
        return rows

    def together(self, weights: Telling) -> list[dict[str, float]]:
        """How each of them stands among the others, by name."""
        scores = scores_of(self.runs, self.forms, self.places, weights)
        return [dict.fromkeys(names, 1.0) for names in seen_together(scores, self.places, self.breaks, lines_of(self.breaks))]


def segment_weights(examples: Iterable[Example], clusters: Mapping[str, Sequence[str]], neighbours: Mapping[str, int]) -> Telling:
    """How much each word, opening and form speaks for an instruction, and each way to stand among other segments: in whole numbers.

    Args:
        examples: steps; those are learnt from of which the corpus says what is material.
        clusters: for each word, the hand-made clusters it is in.
        neighbours: for each word, its neighbourhood.
    """
    marked = [each for example in examples if example.marked and (each := _marked(example)).places]
    rows = [each.alone(clusters, neighbours) for each in marked]
    halves = [hashlib.blake2b(each.skeleton.encode(), digest_size=4).digest()[0] % HALVES for each in marked]
    together: list[list[dict[str, float]]] = [[] for _ in marked]
    for half in range(HALVES):
        learn = [number for number, own in enumerate(halves) if own != half]
        part = Telling(_alone([marked[number] for number in learn], [rows[number] for number in learn], clusters), neighbours)
        for number, own in enumerate(halves):
            if own == half:
                together[number] = marked[number].together(part)
    names = sorted({name for each in together for row in each for name in row})
    found = _fitted(marked, together, names, PENALTY_TOGETHER, ROUNDS_TOGETHER)
    return Telling({**_alone(marked, rows, clusters), **{name: whole for name in names if (whole := _whole(found[name]))}}, neighbours)


def _alone(
    marked: Sequence[Marked], rows: Sequence[Sequence[Mapping[str, float]]], clusters: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Weights of what segments say by themselves, clusters folded into the words they belong to."""
    seen: dict[str, set[str]] = defaultdict(set)
    for each, own in zip(marked, rows, strict=True):
        for row in own:
            for name in row:
                seen[name].add(each.skeleton)
    names = sorted(name for name, where in seen.items() if len(where) >= (1 if name[0] in "=@" else SEEN_IN))
    found = _fitted(marked, rows, names, PENALTY, ROUNDS)
    known = {name for name in names if name[0] != "@"} | set(clusters)
    whole = {
        name: _whole(found.get(name, 0.0) + sum(found.get(f"@{each}", 0.0) for each in clusters.get(name, ()))) for name in sorted(known)
    }
    return {name: weight for name, weight in whole.items() if weight}


def _fitted(
    marked: Sequence[Marked], rows: Sequence[Sequence[Mapping[str, float]]], names: Sequence[str], penalty: float, rounds: int
) -> dict[str, float]:
    """A logistic of instruction over names; every message weighs the same, however many segments it has."""
    import numpy as np
    from scipy.sparse import csr_matrix

    index = {name: place for place, name in enumerate(names)}
    data: list[float] = []
    places: list[int] = []
    starts = [0]
    for row in (row for own in rows for row in own):
        for name, value in row.items():
            if (place := index.get(name)) is not None:
                places.append(place)
                data.append(value)
        starts.append(len(data))
    matrix = csr_matrix((np.array(data), np.array(places, dtype=np.int32), np.array(starts)), shape=(len(starts) - 1, len(names)))
    target = np.array([truth for each in marked for truth in each.truth])
    share = np.array([1.0 / len(each.places) / len(marked) for each in marked for _ in each.places])

    def slope(weights: Array, number: int) -> Array:
        del number
        return matrix.T @ ((logistic(matrix @ weights) - target) * share) + penalty * weights

    fitted = descend(slope, np.zeros(len(names)), met(matrix, share) / 4 + penalty, rounds)
    return {name: float(weight) for name, weight in zip(names, fitted, strict=True)}


def _whole(weight: float) -> int:
    return max(-MOST, min(MOST, round(weight * SCALE)))


def _marked(example: Example) -> Marked:
    texts: list[str] = []
    breaks: list[int] = []
    ours: list[bool] = []
    inside = 0
    for segment, kind in zip(*segments_of(hard_split(example.marked)[0].strip()), strict=True):
        own = 0
        for character in segment:
            inside += (character == OPEN) - (character == SHUT)
            own += not inside
        if clean := segment.translate(UNMARKED).strip():
            texts.append(clean)
            breaks.append(kind)
            ours.append(own * 2 > len(segment))
    runs = runs_of(texts)
    forms = forms_of(texts, breaks, lines_of(breaks), [len(run) for run in runs], bool(example.step.system)) if texts else ()
    return Marked(skeleton=example.skeleton.name, runs=runs, breaks=breaks, ours=ours, forms=forms)
