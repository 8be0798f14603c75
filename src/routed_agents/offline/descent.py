"""Descent finds the weights that tell best; written out here so that every machine takes the same steps."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# scipy's sparse matrices carry no types

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

    Array = np.ndarray[Any, np.dtype[np.float64]]


def descend(slope: Callable[[Array, int], Array], start: Array, curvature: Array | float, rounds: int) -> Array:
    """Nesterov's method; a step of one over the curvature contracts, so rounding errors die out instead of growing.

    Args:
        slope: the gradient at a place, in a round.
        start: where to begin.
        curvature: a bound on the second derivative, for all or along each axis.
        rounds: steps taken.
    """
    at, last = start, start
    for number in range(rounds):
        ahead = at + (number / (number + 3)) * (at - last)
        last, at = at, ahead - slope(ahead, number) / curvature
    return at


def logistic(logits: Array) -> Array:
    import numpy as np

    return 1.0 / (1.0 + np.exp(-logits))


def met(matrix: csr_matrix, share: Array) -> Array:
    """What each feature meets in the rows it stands in, itself included; half of it bounds a softmax's curvature, a quarter a logistic's,
    along every axis and all of them together."""
    import numpy as np

    return np.asarray(matrix.T @ (share * np.asarray(matrix.sum(axis=1)).ravel())).ravel()
