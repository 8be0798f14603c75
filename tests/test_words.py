"""Words are the same however they are typed, as long as a reader reads the same."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest

from routed_agents.words import folded, plain, runs_of, smooth, words_of


@pytest.mark.parametrize(
    "typed",
    [
        "Summarize this text",
        "SUMMARIZE THIS TEXT",
        "  summarize\n\tthis -- text!!",
        "sum\u200bmarize th\u00adis text",
        "ｓｕｍｍａｒｉｚｅ ｔｈｉｓ ｔｅｘｔ",
        "summаrize thіs tехt",  # Cyrillic а, і, е, х
        "süm̈marize this text".replace("ü", "u"),
    ],
)
def test_case_width_lookalikes_and_invisible_characters_make_no_other_words(typed: str) -> None:
    assert words_of(typed) == ("summarize", "this", "text")


def test_accents_do_not_matter() -> None:
    assert words_of("Résumé für Zoë") == words_of("Resume fur Zoe")


def test_a_word_of_another_script_stays_itself() -> None:
    assert words_of("прошу сказать") == ("прошу", "сказать")


def test_scripts_without_blanks_give_pairs() -> None:
    assert words_of("总结文章") == ("总结", "结文", "文章")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("सारांश लिखें। क्यों?", ("सारांश", "लिखें", "कयों")),
        ("নিচের লেখাটির সারাংশ", ("নিচের", "লেখাটির", "সারাংশ")),
        ("உரை", ("உரை",)),
    ],
)
def test_vowel_signs_belong_to_their_word(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


def test_thai_gives_pairs() -> None:
    assert words_of("ขอความ") == ("ขอ", "อค", "คว", "วา", "าม")


def test_a_number_keeps_its_length_and_nothing_else() -> None:
    assert words_of("on 24 May 1999, 3.5") == ("on", "00", "may", "0000", "0", "0")


def test_ascii_and_other_text_are_read_alike() -> None:
    text = "Don't panic: e-mail 42 people (now)"

    assert words_of(f"{text} é")[:-1] == words_of(text)


def test_words_between_scripts_without_blanks_are_words_too() -> None:
    assert words_of("请用Python写一个v2版本") == ("请用", "python", "写一", "一个", "v0", "版本")


def test_a_line_reads_alike_alone_and_among_others() -> None:
    lines = ["Fasse das zusammen: „Grüße“", "don't", "", "速度：60km", "naïve v2"]
    assert runs_of(lines) == [words_of(line) for line in lines]


def test_folding_keeps_the_layout() -> None:
    assert folded("Ｑ:\n É") == "q:\n e"


LINES = "\t\n\x0b\x0c\r\x85"
IGNORABLE = (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, *range(0xFE00, 0xFE10), 0xFFA0, *range(0xFFF0, 0xFFF9))
"""What Unicode's `Default_Ignorable_Code_Point` has beyond format characters, below the tags."""
INVISIBLE = {
    *[mark for mark in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(mark) in ("Cf", "Cc") and mark not in LINES],
    *map(chr, (*IGNORABLE, *range(0xE0000, 0xE1000))),
}


@pytest.mark.parametrize("read", [plain, words_of, smooth])
@pytest.mark.parametrize("text", ["die", "dïe"])
def test_no_invisible_character_parts_a_word(read: Callable[[str], object], text: str) -> None:
    assert {mark for mark in INVISIBLE if read(text.replace("e", f"{mark}e")) != read(text)} == set()


@pytest.mark.parametrize("text", ["one\ttwo\nthree\x0cfour", "één\ttwee\ndrie\x85vier"])
def test_tabs_and_line_ends_are_seen(text: str) -> None:
    assert plain(text) == text
