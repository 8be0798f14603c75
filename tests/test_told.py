"""What of a message is its author's instruction is told by words, by how segments open, and by their neighbours."""

from __future__ import annotations

import pytest

from routed_agents.classify import shipped
from routed_agents.segments import END, LINE, PARAGRAPH, SENTENCE, edges, lines_of, segments_of
from routed_agents.told import COARSE, FINE, SURELY, Telling, openings_of, scores_of, seen_together, told_in
from routed_agents.words import runs_of

OWN = {f"+own {place}": 40 * place - 460 for place in range(len(FINE) + 1)}
"""A segment that by itself reads like an instruction is one."""


def none(words: tuple[str, ...]) -> dict[str, str]:
    del words
    return {}


def told(text: str, weights: dict[str, int]) -> str:
    return told_in(text, Telling({**OWN, **weights}, {}), False, none)[0]


def together(scores: list[int], text: str) -> list[set[str]]:
    segments, breaks = segments_of(text)
    return [{*names} for names in seen_together(scores, edges(len(segments)), breaks, lines_of(breaks))]


def test_words_tell() -> None:
    assert told("Label\nRiver", {"label": 90, "river": -90}) == "Label"
    assert told("River\nRiver", {"label": 90, "river": -90}) == ""


def test_what_only_may_be_an_instruction_is_not_told() -> None:
    weights = {f"+own {place}": SURELY for place in range(len(FINE) + 1)}

    assert told("Label", weights) == ""
    assert told("Label", {name: weight + 1 for name, weight in weights.items()}) == "Label"


def test_a_word_weighs_what_its_neighbourhood_does_besides() -> None:
    weights = Telling({"label": 90, "~7": 30, "^~7": 5, "^tag": 2}, {"label": 7, "tag": 7})

    assert (weights["label"], weights["tag"], weights["^tag"], weights["river"], weights["^river"]) == (120, 30, 7, 0, 0)
    assert weights["^tag river"] == 0


def test_a_segment_is_known_by_how_it_opens() -> None:
    assert openings_of(("give", "the", "date")) == ("^give", "^give the")
    assert openings_of(("give",)) == ("^give",)
    assert openings_of(()) == ()
    assert told("give it\nit give", {"^give": 40}) == "give it"
    assert told("give it\ngive up", {"^give it": 40}) == "give it"


def test_the_words_of_a_longer_segment_weigh_less_each() -> None:
    runs = runs_of(["label", "label " + " ".join(f"w{number}" for number in range(11))])

    assert scores_of(runs, [(), ()], (0, 1), Telling({"label": 90}, {})) == [8 * 90 // 5, 8 * 90 // 16]


def test_a_segment_goes_with_its_neighbours() -> None:
    """By itself the second one says nothing."""
    after_an_instruction = {f"+before {SENTENCE} {len(COARSE)}": 120}

    assert told("Label. Gnarf", {"label": 120, "gnarf": -1}) == "Label."
    assert told("Label. Gnarf", {"label": 120, "gnarf": -1, **after_an_instruction}) == "Label.\nGnarf"
    assert told("Label\n\nGnarf", {"label": 120, "gnarf": -1, **after_an_instruction}) == "Label"


def test_segments_are_seen_among_the_others() -> None:
    first, second, third = together([200, -200, 0], "One. Two\n\nThree")

    assert {f"+own {len(FINE)}", f"+before {END} 12", f"+after {SENTENCE} 0", "+line 0", "+most 3 5", "+count 2"} <= first
    assert {"+own 0", f"+before {SENTENCE} {len(COARSE)}", f"+after {PARAGRAPH} 6", f"+line {len(COARSE)}", "+most 5 0"} <= second
    assert {f"+before {PARAGRAPH} 0", f"+after {END} 12", "+line 12", "+most 5 3"} <= third


def test_a_lonely_segment_has_no_others() -> None:
    (only,) = together([10], "One")

    assert not [name for name in only if name.startswith(("+most", "+others"))]
    assert f"+after {END} 12" in only


def test_of_two_that_read_alike_each_is_the_others_best() -> None:
    first, second = together([50, 50], "One\nTwo")

    assert "+most 4 4" in first
    assert "+most 4 4" in second
    assert f"+before {LINE} 8" in second


def test_segments_beyond_a_gap_are_no_neighbours() -> None:
    text = "\n".join(f"line {number}" for number in range(30))
    found = together([0] * 16, text)

    assert f"+after {LINE} 12" in found[7]
    assert f"+before {LINE} 12" in found[8]


@pytest.mark.parametrize(
    "text",
    [
        "{0}\n\nWhat does she want? One word.",
        "What does she want? One word.\n\n{0}",
        "Which of refund, delay or praise is this?\n{0}",
        "{0}\n---\nExtract the order number as JSON.",
        "Family of the item: lamp, table, chair?  {0}",
    ],
)
def test_a_plain_instruction_beside_a_mail_is_found(text: str) -> None:
    mail = "Hello, I ordered a lamp in May and it never came. I called twice. Nobody could tell me where it is. I am tired of waiting."
    said, words, rest, _ = told_in(text.format(mail), shipped().segments, False, none)

    assert "called" in rest
    assert "called" not in words
    assert said
