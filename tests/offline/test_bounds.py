from __future__ import annotations

import pytest

from routed_agents.errors import ConfigurationError
from routed_agents.offline.bounds import cases_needed, lower_bound, upper_bound


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "bound"),
    [
        (300, 300, 0.95, 0.990064),  # 0.05 ** (1 / 300)
        (95, 100, 0.975, 0.887165),  # R: binom.test(95, 100)$conf.int[1]
        (8, 10, 0.975, 0.443905),
        (1, 10, 0.975, 0.002529),
        (0, 10, 0.95, 0.0),
        (1, 1, 0.95, 0.05),
    ],
)
def test_lower_bound_is_clopper_and_pearsons(successes, trials, confidence, bound):
    assert lower_bound(successes, trials, confidence=confidence) == pytest.approx(bound, abs=1e-6)


def test_upper_bound_of_no_success_is_the_rule_of_three():
    assert upper_bound(0, 300) == pytest.approx(3 / 300, rel=0.01)


@pytest.mark.parametrize(("share", "misses", "needed"), [(0.99, 0, 299), (0.99, 1, 473), (0.999, 0, 2995), (0.5, 0, 5)])
def test_needed_cases_are_the_fewest_that_prove_the_share(share, misses, needed):
    assert cases_needed(share, misses=misses) == needed
    assert lower_bound(needed - misses, needed) >= share > lower_bound(needed - 1 - misses, needed - 1)


def test_certainty_needs_more_cases_than_there_are():
    assert cases_needed(1.0) is None


def test_bound_never_promises_more_than_was_seen_and_grows_with_cases():
    bounds = [lower_bound(9 * many, 10 * many) for many in (1, 10, 100, 10_000)]
    assert bounds == sorted(bounds)
    assert all(bound < 0.9 for bound in bounds)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence"), [(2, 1, 0.95), (0, 0, 0.95), (-1, 5, 0.95), (1, 1, 1.0), (1, 1, float("nan"))]
)
def test_senseless_counts_are_refused(successes, trials, confidence):
    with pytest.raises(ConfigurationError):
        lower_bound(successes, trials, confidence=confidence)
