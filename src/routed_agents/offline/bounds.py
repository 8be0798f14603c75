"""Exact bounds on a share that was counted, by Clopper and Pearson."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from routed_agents.errors import ConfigurationError

TINY: Final = 1e-300
MOST_CASES: Final = 10**9


def lower_bound(successes: int, trials: int, *, confidence: float = 0.95) -> float:
    """The smallest true share that the count doesn't rule out, one-sided and exact.

    >>> round(lower_bound(300, 300), 4)
    0.9901

    Raises:
        ConfigurationError: the counts or the confidence make no sense.
    """
    _checked(successes, trials, confidence)
    if successes == 0:
        return 0.0
    alpha = 1 - confidence
    if successes == trials:
        return math.exp(math.log(alpha) / trials)
    # P(at least `successes` of `trials`) grows with the share; the bound is where it reaches alpha
    return _bisect(lambda share: _beta(share, successes, trials - successes + 1), alpha)


def upper_bound(successes: int, trials: int, *, confidence: float = 0.95) -> float:
    """The largest true share that the count doesn't rule out, one-sided and exact."""
    return 1 - lower_bound(trials - successes, trials, confidence=confidence)


def cases_needed(share: Fraction | float, *, misses: int = 0, confidence: float = 0.95) -> int | None:
    """How many cases it takes, that many of them missed, to prove at least this share; None when no number does.

    >>> cases_needed(0.99)
    299
    """
    if not 0 <= share < 1:
        return None
    low, high = max(misses, 0), max(misses, 1)
    while lower_bound(high - misses, high, confidence=confidence) < share:
        low, high = high, high * 2
        if high > MOST_CASES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if lower_bound(middle - misses, middle, confidence=confidence) < share:
            low = middle
        else:
            high = middle
    return high


def _checked(successes: int, trials: int, confidence: float) -> None:
    if not 0 <= successes <= trials or trials == 0:
        raise ConfigurationError(f"{successes} of {trials} is no count; wanted at least one case, and no more successes than cases")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence is {confidence!r}; wanted a number between 0 and 1, like 0.95")


def _bisect(grows: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if grows(middle) < wanted:
            low = middle
        else:
            high = middle
    return low  # of the two neighbours the one that promises less


def _beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function: P(at least a of a+b-1 draws succeed), each with chance x."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Its continued fraction, by Lentz's method."""
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for step in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 / _apart(1 + step * d)
            c = _apart(1 + step / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _apart(value: float) -> float:
    return value if abs(value) > TINY else TINY
