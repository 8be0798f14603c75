"""Segments are cut at lines and sentences, and have forms."""

from __future__ import annotations

import pytest

from routed_agents.segments import EDGE, END, LINE, PARAGRAPH, PART, SENTENCE, edges, forms_of, lines_of, segments_of


@pytest.mark.parametrize(
    ("text", "segments", "breaks"),
    [
        ("One. Two", ["One.", "Two"], [PARAGRAPH, SENTENCE]),
        ("One\nTwo\n\nThree", ["One", "Two", "Three"], [PARAGRAPH, LINE, PARAGRAPH]),
        ("One\n \t\nTwo", ["One", "Two"], [PARAGRAPH, PARAGRAPH]),
        ("Label: good - bad?  Sure! Go", ["Label:", "good", "bad?", "Sure!", "Go"], [PARAGRAPH, PART, PART, SENTENCE, SENTENCE]),
        ("Ends. \nNext", ["Ends.", "Next"], [PARAGRAPH, LINE]),
        ("要約：これ。次", ["要約：", "これ。", "次"], [PARAGRAPH, PART, SENTENCE]),
        ("लिखें। फिर", ["लिखें।", "फिर"], [PARAGRAPH, SENTENCE]),
        ("ماذا؟ ثم", ["ماذا؟", "ثم"], [PARAGRAPH, SENTENCE]),
        ("", [], []),
        ("\1 odd", ["odd"], [PARAGRAPH]),
    ],
)
def test_where_a_message_is_cut(text: str, segments: list[str], breaks: list[int]) -> None:
    assert segments_of(text) == (segments, breaks)


def test_of_a_long_message_only_start_and_end_are_cut() -> None:
    segments, breaks = segments_of("First. " + "x" * 5_000 + ". Middle. " + "y" * 5_000 + ". Last")

    assert segments == ["First.", "Last"]
    assert breaks == [PARAGRAPH, SENTENCE]


def test_only_segments_at_the_edges_may_instruct() -> None:
    assert list(edges(3)) == [0, 1, 2]
    assert list(edges(2 * EDGE + 5)) == [*range(EDGE), *range(EDGE + 5, 2 * EDGE + 5)]


def test_forms_tell_place_line_and_paragraph() -> None:
    segments, breaks = segments_of("Label this.\n\nIt rained. We went home.")
    first, second, third = forms_of(segments, breaks, lines_of(breaks), [2, 2, 3], True)

    assert first[0].startswith("=first_under stop")
    assert f"=between first {END} {PARAGRAPH}" in first
    assert f"=between edge {PARAGRAPH} {SENTENCE}" in second
    assert f"=between last {SENTENCE} {END}" in third
    assert first[4].startswith("=line first")
    assert second[4] == third[4]
    assert second[4].startswith("=line last")
