"""Zones are weighed anew by what they told about steps of authors left out, and that goes into the weights themselves."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from routed_agents.errors import ConfigurationError
from routed_agents.offline import stacking
from routed_agents.offline.training import folds_of

NAMES = ["before|word", "instruction|word", "pairs~1 2", "sign|bias", "stems|wor", "told@cluster", "told^word", "told_under~12"]
CLASSES = 3


def _guess(logits: np.ndarray) -> np.ndarray:
    parts = np.exp(logits - logits.max(axis=1, keepdims=True))
    return parts / parts.sum(axis=1, keepdims=True)


def test_what_zones_say_adds_up_to_the_logits() -> None:
    rng = np.random.default_rng(0)
    matrix, weights = csr_matrix(rng.random((5, len(NAMES)))), rng.normal(size=(len(NAMES), CLASSES))
    said = stacking.by_zone(matrix, NAMES, weights)

    assert said.shape == (5, len(stacking.ZONES), CLASSES)
    assert np.allclose(said.sum(axis=1), matrix @ weights)
    assert np.allclose(said[:, stacking.ZONES.index("told")], matrix[:, [5, 6]] @ weights[[5, 6]])


def test_the_weights_say_at_once_what_stacking_says_in_two_steps() -> None:
    rng = np.random.default_rng(1)
    matrix, weights = rng.random((6, len(NAMES))), rng.normal(size=(len(NAMES), CLASSES))
    matrix = csr_matrix(np.where(np.arange(len(NAMES)) == NAMES.index(stacking.BIAS), 1.0, matrix))
    added = rng.normal(size=(len(stacking.ZONES) * CLASSES + 1, CLASSES))

    anew = stacking.folded(NAMES, weights, added)

    assert np.allclose(matrix @ anew, stacking.logits_of(stacking.by_zone(matrix, NAMES, weights), added))


def test_a_zone_that_misleads_is_weighed_down_and_one_that_is_too_timid_up() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(CLASSES, size=400)
    target = np.eye(CLASSES)[truth]
    said = np.zeros((400, len(stacking.ZONES), CLASSES))
    liar, timid = stacking.ZONES.index("before"), stacking.ZONES.index("told")
    said[:, liar] = 2.0 * np.eye(CLASSES)[rng.integers(CLASSES, size=400)]
    said[:, timid] = 0.5 * target

    logits = stacking.logits_of(said, stacking.learnt(said, target, np.full(400, 1 / 400), _guess))

    assert np.mean(said.sum(axis=1).argmax(axis=1) == truth) < 0.6
    assert np.mean(logits.argmax(axis=1) == truth) > 0.95


def test_authors_are_left_out_whole() -> None:
    authors = ["ann"] * 7 + ["bob"] * 5 + ["cy"] * 4 + ["di"] * 3 + ["ed"] * 2 + ["flo"]
    folds = folds_of(authors)

    assert {author: {fold for name, fold in zip(authors, folds, strict=True) if name == author} for author in authors} == {
        "ann": {0}, "bob": {1}, "cy": {2}, "di": {3}, "ed": {3}, "flo": {2},
    }  # fmt: skip


def test_too_few_authors_are_told() -> None:
    with pytest.raises(ConfigurationError, match=r"the corpus has 3 authors; .* needs 4"):
        folds_of(["ann", "bob", "cy"])
