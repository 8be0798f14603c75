"""The corpus is read, grown and fitted alike every time, and the shipped weights are of this corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from routed_agents.classify import shipped
from routed_agents.errors import ConfigurationError
from routed_agents.offline.corpus import Corpus
from routed_agents.offline.neighbours import read
from routed_agents.offline.training import clusters_of, digest_of, train
from routed_agents.taxonomy import Taxonomy

PLACE = Path(__file__).parents[2] / "corpus"
CORPUS = Corpus.load(PLACE)


def test_every_class_has_hundreds_of_skeletons() -> None:
    counts = {row.key: sum(each.task_class == row.key for each in CORPUS.skeletons) for row in Taxonomy.default()}

    assert min(counts.values()) >= 150


def test_sameness_is_rare() -> None:
    pairs = CORPUS.near_duplicates()

    assert len(pairs) / len(CORPUS.skeletons) < 0.01


def test_the_same_seed_grows_the_same_steps() -> None:
    few = Corpus(CORPUS.skeletons[:40], CORPUS.slots)

    assert [each.step.to_record() for each in few.examples(each=3)] == [each.step.to_record() for each in few.examples(each=3)]


def test_the_shipped_weights_are_of_this_corpus() -> None:
    assert shipped().facts["corpus"] == digest_of(PLACE), "corpus/ has changed: run make train"


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("multi_turn.dora.toml", "knowledge_qa.cleo.toml", "code_format.cleo.toml", "slots", "words"):
        (tmp_path / name).symlink_to(PLACE / name)
    clusters = clusters_of(tmp_path / "words" / "clusters.toml")
    neighbours = read(tmp_path / "words" / "neighbours.toml")
    first, second = (train(tmp_path, clusters, neighbours, each=1, say=lambda line: None).data for _ in range(2))

    assert first == second


def test_a_wrong_skeleton_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.me.toml").write_text("[[skeleton]]\nclass = 'extraction'\nask = 'Get {{nothing}}'\n")

    with pytest.raises(ConfigurationError, match=r"bad\.me\.toml skeleton 1: no slot 'nothing'"):
        Corpus.load(tmp_path)
