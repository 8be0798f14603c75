"""The corpus is read, grown and fitted alike every time, and the shipped weights are of this corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routed_agents.classify import shipped
from routed_agents.errors import ConfigurationError
from routed_agents.offline.corpus import OPEN, SHUT, Corpus, Skeleton
from routed_agents.offline.neighbours import read
from routed_agents.offline.training import clusters_of, digest_of, train, weighing
from routed_agents.steps import text_of
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


def test_material_comes_in_any_order_and_whole() -> None:
    """The sentences of prose in a slot are shuffled in some of the steps, but not in a skeleton's first; code keeps its order, and now and
    then loses its line ends."""
    story = "One came. Two went, sadly. Three stayed for the winter. Four?"
    code = "a = 1. \nb = 2. c = 3. d = 4. and then some more of it. And."
    nothing: dict[str, Any] = {"system": None, "turns": (), "tools": (), "tokens": None, "hard": None, "voice": "", "lang": "en"}
    skeletons = tuple(
        Skeleton(name=name, task_class="summarization", author="me", marked=f"{{{{{name}}}}}", **nothing) for name in ("story", "code")
    )
    grown = [each.step for each in Corpus(skeletons, {"story": [story], "code": [code]}).examples(each=30)]
    stories = [text_of(step.messages[-1]) for step in grown if step.id == "story"]

    assert stories[0] == story
    assert len({*stories}) > 3
    assert {tuple(sorted(text.split())) for text in stories} == {tuple(sorted(story.split()))}
    assert {text_of(step.messages[-1]) for step in grown if step.id == "code"} == {code, " ".join(code.split())}


def test_material_may_be_marked_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "contrast.me.toml").write_text("[[skeleton]]\nclass = 'extraction'\nask = 'Who? ⟦Ann came on <<Monday|Monday>>.⟧ Names!'\n")
    (skeleton,) = Corpus.load(tmp_path).skeletons
    (example,) = Corpus.load(tmp_path).examples(each=1)

    assert skeleton.ask == "Who? Ann came on <<Monday|Monday>>. Names!"
    assert text_of(example.step.messages[-1]) == "Who? Ann came on Monday. Names!"
    assert example.marked == f"Who? {OPEN}Ann came on Monday.{SHUT} Names!"


@pytest.mark.parametrize("ask", ["Who? ⟦Ann", "Who? Ann⟧", "⟦Who? ⟦Ann⟧⟧"])
def test_marks_of_material_come_in_pairs(tmp_path: Path, ask: str) -> None:
    (tmp_path / "contrast.me.toml").write_text(f"[[skeleton]]\nclass = 'extraction'\nask = '{ask}'\n")

    with pytest.raises(ConfigurationError, match=r"contrast.me.toml skeleton 1: a mark of material .* wanted pairs"):
        Corpus.load(tmp_path)


def test_the_shipped_weights_are_of_this_corpus() -> None:
    assert shipped().facts["corpus"] == digest_of(PLACE), "corpus/ has changed: run make train"


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in (
        "multi_turn.dora.toml",
        "knowledge_qa.cleo.toml",
        "code_format.cleo.toml",
        "rag_lookup.ben.toml",
        "math_reasoning.emil.toml",
        "slots",
        "words",
    ):
        (tmp_path / name).symlink_to(PLACE / name)
    clusters = clusters_of(tmp_path / "words" / "clusters.toml")
    neighbours = read(tmp_path / "words" / "neighbours.toml")
    first, second = (train(tmp_path, clusters, neighbours, each=1, say=lambda line: None).data for _ in range(2))

    assert first == second


def test_words_of_neighbourhoods_that_weigh_nothing_are_left_out() -> None:
    neighbours = {"sum": 1, "total": 1, "mail": 2, "letter": 3, "tree": 4}

    found = weighing(neighbours, {"near told": {"1": [9]}, "near pairs": {"1 3": [5]}, "told": {"4": [9]}}, ["word", "^~4"])

    assert found == {"sum": 1, "total": 1, "letter": 3, "tree": 4}


def test_a_wrong_skeleton_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.me.toml").write_text("[[skeleton]]\nclass = 'extraction'\nask = 'Get {{nothing}}'\n")

    with pytest.raises(ConfigurationError, match=r"bad\.me\.toml skeleton 1: no slot 'nothing'"):
        Corpus.load(tmp_path)
