"""Stacking weighs each zone anew, by what its words told about steps of authors who were left out (Wolpert 1992)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportOptionalSubscript=false
# scipy's sparse matrices carry no types

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from routed_agents.linear import SHARED
from routed_agents.offline.descent import descend, met
from routed_agents.zones import BULK_ZONES, INSTRUCTION_ZONES

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from routed_agents.offline.descent import Array

ZONES: Final = (*INSTRUCTION_ZONES, *BULK_ZONES, SHARED, "stems", "pairs", "sign")
"""Where a feature's name says that it stands."""
BIAS: Final = "sign|bias"
PENALTY: Final = 3e-4
"""L2 on how much a zone is weighed anew, per unit of sample weight."""
ROUNDS: Final = 300
_MARK: Final = re.compile(r"[|^~@]")


def by_zone(matrix: csr_matrix, names: Sequence[str], weights: Array) -> Array:
    """What each zone of each step says: steps by zones by columns of the weights.

    Args:
        matrix: a row for each step, a column for each name.
        names: of the features.
        weights: a row for each name.
    """
    import numpy as np

    zones, columns = _zones_of(names), matrix.tocsc()
    return np.stack([columns[:, zones == place] @ weights[zones == place] for place in range(len(ZONES))], axis=1)


def learnt(said: Array, target: Array, share: Array, guess: Callable[[Array], Array]) -> Array:
    """What is to be added to the classes' logits for each unit that a zone says of a class, and at the end for every step: weights that
    were fitted to many authors are too sure of some zones and take some classes for each other where an author is new.

    Args:
        said: steps by zones by classes, by weights that were fitted without the steps' authors.
        target: what the guess should be, a row for each step.
        share: how much each step counts; together 1.
        guess: makes shares of logits.

    Returns:
        Zones times classes and one more, by classes.
    """
    import numpy as np
    from scipy.sparse import csr_matrix

    matrix, base = csr_matrix(_flat(said)), said.sum(axis=1)
    turned = matrix.T.tocsr()
    curvature = (met(abs(matrix), share) / 2)[:, None] + PENALTY

    def slope(added: Array, number: int) -> Array:
        del number
        return turned @ ((guess(base + matrix @ added) - target) * share[:, None]) + PENALTY * added

    return descend(slope, np.zeros((matrix.shape[1], target.shape[1])), curvature, ROUNDS)


def logits_of(said: Array, added: Array) -> Array:
    """The classes' logits of steps, each zone weighed anew.

    Args:
        said: steps by zones by classes.
        added: what `learnt` found.
    """
    return said.sum(axis=1) + _flat(said) @ added


def folded(names: Sequence[str], weights: Array, added: Array) -> Array:
    """The weights that give these logits at once.

    Args:
        names: of the features.
        weights: a row for each, a column for each class.
        added: what `learnt` found.
    """
    classes = weights.shape[1]
    zones, anew = _zones_of(names), weights.copy()
    for place in range(len(ZONES)):
        own = zones == place
        anew[own] += weights[own] @ added[place * classes : (place + 1) * classes]
    anew[names.index(BIAS)] += added[-1]
    return anew


def _zones_of(names: Sequence[str]) -> Array:
    import numpy as np

    places = {zone: place for place, zone in enumerate(ZONES)}
    return np.array([places[_MARK.split(name, 1)[0]] for name in names])


def _flat(said: Array) -> Array:
    import numpy as np

    return np.column_stack([said.reshape(len(said), -1), np.ones(len(said))])
