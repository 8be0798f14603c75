"""How loud earlier messages of a conversation are heard is learnt from steps whose authors were left out."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# scipy's sparse matrices carry no types

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from routed_agents.linear import LOUDEST, STEPS, said_anywhere, weight_of
from routed_agents.offline.descent import descend
from routed_agents.words import words_of
from routed_agents.zones import ECHOES

if TYPE_CHECKING:
    from routed_agents.offline.descent import Array

Echoes = Sequence[tuple[str, str]]

PENALTY: Final = 1e-5
"""L2 on the loudness, per unit of sample weight; only a start for echoes that hardly occur."""
ROUNDS: Final = 300
PLACES: Final = {name: place for place, name in enumerate(ECHOES)}


def said_by(
    echoes: Sequence[Echoes],
    names: Sequence[str],
    weights: Array,
    clusters: Mapping[str, Sequence[str]],
    neighbours: Mapping[str, int],
) -> Array:
    """What each step's earlier messages say, at full loudness: steps by `ECHOES` by columns of the weights.

    Args:
        echoes: of each step, see `Zones`.
        names: of the features.
        weights: a row for each name.
        clusters: for each word, the hand-made clusters it is in.
        neighbours: for each word, its neighbourhood.
    """
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    heard: dict[str, Array] = {}
    found = np.zeros((len(echoes), len(ECHOES), weights.shape[1]))
    for number, step in enumerate(echoes):
        for name, text in step:
            if text not in heard:
                words = words_of(text)
                places = sorted([index[each] for each in said_anywhere(words, clusters, neighbours) if each in index])
                heard[text] = weights[places].sum(axis=0) * weight_of(len({*words})) / STEPS
            found[number, PLACES[name]] += heard[text]
    return found


def loudness(said: Array, logits: Array, target: Array, share: Array, guess: Callable[[Array], Array]) -> dict[str, int]:
    """How loud each echo is best heard, in parts of `LOUDEST`; what is best not heard is left out.

    Args:
        said: steps by `ECHOES` by classes, by weights that were fitted without the steps' authors.
        logits: what the steps themselves say, by the same.
        target: what the guess should be, a row for each step.
        share: how much each step counts; together 1.
        guess: makes shares of logits.
    """
    import numpy as np

    heard = np.flatnonzero(np.abs(said).sum(axis=(1, 2)))
    said, logits, target, share = said[heard], logits[heard], target[heard], share[heard]
    reach = (said.max(axis=2) - said.min(axis=2)) / 2  # bounds how a class's logit departs from the mean
    curvature = (reach * (share * reach.sum(axis=1))[:, None]).sum(axis=0) + PENALTY

    def slope(loud: Array, number: int) -> Array:
        del number
        off = (guess(logits + np.einsum("sec,e->sc", said, loud)) - target) * share[:, None]
        return np.einsum("sec,sc->e", said, off) + PENALTY * loud

    found = descend(slope, np.zeros(len(ECHOES)), curvature, ROUNDS)
    return {name: part for name, loud in zip(ECHOES, found, strict=True) if (part := round(float(loud) * LOUDEST)) > 0}


def echoed(said: Array, loud: Mapping[str, int]) -> Array:
    """What the echoes say at their loudness: steps by columns.

    Args:
        said: steps by `ECHOES` by columns.
        loud: what `loudness` found.
    """
    import numpy as np

    return np.einsum("sec,e->sc", said, np.array([loud.get(name, 0) / LOUDEST for name in ECHOES]))
