"""Errors come whole out of another process: they can be pickled and copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from routed_agents.errors import ConfigurationError, ExtraMissing, LedgerError, PolicyError, StateError, StepStopped

WHOLE = [
    *[kind("a line") for kind in (ConfigurationError, LedgerError, PolicyError, StateError)],
    ExtraMissing("a model needs a package", "agents"),
    StepStopped("a line", attempts=("cheap: failed",)),
]


def pickled(error: Exception) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("error", WHOLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
def test_an_error_that_is_pickled_or_copied_says_the_same(again: Callable[[Exception], Exception], error: Exception) -> None:
    made = again(error)

    assert (type(made), str(made), vars(made)) == (type(error), str(error), vars(error))


def test_a_missing_extra_says_what_to_install() -> None:
    wanted = "a model needs a package; add the extra agents: pip install '.[agents]' in a checkout of routed-agents"

    assert str(ExtraMissing("a model needs a package", "agents")) == wanted
