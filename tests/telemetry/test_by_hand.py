"""What telemetry leaves of a step is what somebody would write by hand, who knows the names and has no options."""

from __future__ import annotations

import pytest
from benchmarks.emitting import ByHand, Made, ours, shape, steps
from hypothesis import given
from hypothesis import strategies as st

from routed_agents.pricing import usd_of
from routed_agents.telemetry.spans import _usd


@pytest.mark.parametrize("made", steps(), ids=lambda made: made.title)
def test_spans_and_metrics_are_those_written_by_hand(made: Made) -> None:
    assert shape(ours, made) == shape(ByHand, made)


@given(st.integers(min_value=-(10**24), max_value=10**24))
def test_a_standard_figure_is_the_float_nearest_to_the_exact_one(pico: int) -> None:
    assert _usd(pico) == float(usd_of(pico))
