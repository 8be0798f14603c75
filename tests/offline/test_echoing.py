"""How loud earlier messages are heard is learnt from what they told about steps of authors who were left out."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np

from routed_agents.linear import LOUDEST
from routed_agents.offline import echoing
from routed_agents.zones import ECHOES

STEPS, CLASSES = 600, 4


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    parts = np.exp(logits)
    return parts / parts.sum(axis=1, keepdims=True)


def test_an_echo_says_what_its_words_weigh_wherever_they_stand() -> None:
    names = ["instruction|label", "instruction|label this", "opening|label", "pairs~7 8", "sign|bias", "stems|label", "instruction~7"]
    weights = np.diag(np.arange(1.0, len(names) + 1))

    said = echoing.said_by([(), ((ECHOES[2], "Label this"), (ECHOES[2], "this"))], names, weights, {}, {"label": 7, "this": 8})

    assert said.shape == (2, len(ECHOES), len(names))
    assert not said[0].any()
    assert said[1].sum(axis=0).tolist() == [1, 2, 0, 4, 0, 0, 7]
    assert said[1, 2].tolist() == said[1].sum(axis=0).tolist()


def test_what_tells_is_heard_as_loud_as_it_tells_and_what_misleads_is_not_heard() -> None:
    dice = np.random.default_rng(7)
    truth = dice.integers(CLASSES, size=STEPS)
    target = np.eye(CLASSES)[truth]
    said = np.zeros((STEPS, len(ECHOES), CLASSES))
    said[:, 0] = 3 * target + dice.normal(size=(STEPS, CLASSES))
    said[:, 1] = 3 * np.eye(CLASSES)[dice.permutation(truth)]
    said[:, 2] = -3 * target + dice.normal(size=(STEPS, CLASSES))

    found = echoing.loudness(said, np.zeros((STEPS, CLASSES)), target, np.full(STEPS, 1 / STEPS), softmax)

    assert found[ECHOES[0]] > LOUDEST // 2
    assert found.get(ECHOES[1], 0) < LOUDEST // 8
    assert ECHOES[2] not in found
    assert not {*ECHOES[3:]} & found.keys()
    assert np.allclose(echoing.echoed(said, {ECHOES[0]: LOUDEST // 2}), said[:, 0] / 2)
