"""Words are what a text is made of once case, accents, look-alike letters and invisible characters are out of the way."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

DIGIT: Final = "0"
"""Stands for every digit, so a number's length is left of it and its value is not."""

_KEPT: Final = bytes(
    [
        ord(character.lower()) if character.isalpha() else ord(DIGIT) if character.isdigit() else ord(" ")
        for character in map(chr, range(128))
    ]
    + [ord(" ")] * 128
)
_BY_LINE: Final = bytes([ord("\n") if place == ord("\n") else kept for place, kept in enumerate(_KEPT)])

_LOOKALIKES: Final = str.maketrans(
    "авекмнорстухіјѕԁԛԝһӏɑɡɩοαεικνρτυχγηАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abekmhopctyxijsdqwhlagioaeiknptyxynABEKMHOPCTYXIJSABEZHIKMNOPTYX",
)
"""Cyrillic, Greek and phonetic letters that are drawn like Latin ones; applied only to words that mix them with Latin letters."""
_LOOKALIKE: Final = re.compile(f"[{''.join(map(chr, _LOOKALIKES))}]")
_LETTERS: Final = re.compile(r"[^\W_]+")
_WIDE_RANGES: Final = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u318e\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003134f"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u1000-\u103f\u1780-\u17d3"
)
_SIGNS: Final = "\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963" + "".join(
    [f"{chr(at)}-{chr(at + 0x03)}{chr(at + 0x3C)}-{chr(at + 0x57)}{chr(at + 0x62)}{chr(at + 0x63)}" for at in range(0x980, 0xE00, 0x80)]
)
"""Vowel signs of Indic scripts, which are no letters by Unicode's classes but part of a word."""
_RUNS: Final = re.compile(f"([{_WIDE_RANGES}]+)|((?:[^\\W_{_WIDE_RANGES}]|[{_SIGNS}])+)")
"""Letters of scripts without blanks, or those of a word."""
_CONTROLS: Final = bytes([*range(0x09), *range(0x0E, 0x20), 0x7F])
"""ASCII's invisible characters."""
_DROPPED: Final = b"'`" + _CONTROLS
"""Deleted inside words: `don't` and `dont` are one word."""
_INVISIBLE: Final = (
    "\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
"""What Unicode calls a format character or ignorable by default, and controls other than tab and line ends."""
_INVISIBLE_BEYOND: Final = re.compile(
    "[\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""The same among characters beyond four digits; ranges of these beside the others make a pattern four times slower."""


class _Forms(dict[str, str]):
    """The one form of quotation marks and apostrophes; invisible characters have none."""

    def __missing__(self, character: str) -> str:
        return _INVISIBLE_BEYOND.sub("", character) if character > "\uffff" else ""


_ONE_FORM: Final = _Forms(
    {
        **dict.fromkeys("\u2018\u2019\u201b\u02bc\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
    }
)
_ODD: Final = re.compile(f"[{_INVISIBLE}{''.join(_ONE_FORM)}\U00010000-\U0010ffff]")
_SPACED_QUOTE: Final = re.compile("\u00ab[ \u00a0\u202f]|[ \u00a0\u202f]\u00bb")
"""French quotation marks with the blank that stands inside them."""
_VALUES: Final = re.compile("[1-9]")
_BREAKS: Final = b"\t\x0b\x0c *_~`#-"
"""Blanks, markup and hyphens: whatever may stand between two words but a line end."""
_SMOOTHED: Final = bytes([ord(" ") if place in _BREAKS else ord(chr(place).lower()) for place in range(128)] + [ord(" ")] * 128)
_UNSMOOTHED: Final = b"\r" + _CONTROLS
_SYMBOLS: Final = re.compile("[\u00a0-\u00bf\u2000-\u2bff\u3000-\u3004\u3008-\u3020\ufe00-\ufe0f\U0001f000-\U0001faff]+")
"""Dashes, bullets, arrows, emoji: punctuation outside ASCII."""
_BREAK: Final = re.compile("[\t\x0b\x0c *_~`#-]+")
_LATIN: Final = {**_LOOKALIKES, **str.maketrans("łøđı", "lodi")}
"""Look-alike letters, and Latin letters that have no accent to remove."""
REMEMBERED: Final = 5_000
"""Characters of a text that is worth keeping."""
_FOREIGN: Final = re.compile(f"[^\0-\x7f{''.join(map(chr, _LATIN))}]")


@lru_cache(maxsize=32)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in order; several rules read the same text in turn, so the last few are kept.

    ASCII is read bytewise, some five times quicker than by a pattern. Other scripts are first normalised (NFKD, case folded, accents
    and invisible characters removed, look-alike letters in Latin words replaced); scripts without blanks give pairs of characters.

    >>> words_of("Don't panic: 42 towels")
    ('dont', 'panic', '00', 'towels')
    >>> words_of("Ｓｕｍｍａｒｉｚｅ this ré\u200bsumé")
    ('summarize', 'this', 'resume')
    """
    return tuple(_words(text))


def _words(text: str) -> list[str]:
    if not text.isascii():
        text = folded(text)
        if not text.isascii():
            return _other(text)
    return text.encode().translate(_KEPT, _DROPPED).decode().split()


def runs_of(lines: Sequence[str]) -> list[tuple[str, ...]]:
    """`words_of` each of several lines in one go."""
    if not lines:
        return []
    text = folded("\n".join(lines))
    if not text.isascii():
        return [tuple(_other(line)) for line in text.split("\n")]
    return [tuple(run.split()) for run in text.encode().translate(_BY_LINE, _DROPPED).decode().split("\n")]


def plain(text: str) -> str:
    """The text as a reader sees it: one form of each letter, quotation mark and line end, nothing invisible; case and accents stay.

    >>> plain("ｓｕｍ “this” nоw")
    'sum "this" now'
    >>> plain("« Bonjour »")
    '"Bonjour"'
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return _visible(text) if len(text) <= REMEMBERED else _visible.__wrapped__(text)
    if "\u00ab" in text:
        text = _SPACED_QUOTE.sub('"', text)
    text = unicodedata.normalize("NFKC", _ODD.sub(_one_form, text))  # translating would look up every character, ten times slower
    return _LETTERS.sub(_latin, text) if _LOOKALIKE.search(text) else text


@lru_cache(maxsize=512)  # a conversation's messages come again with every step of it
def _visible(text: str) -> str:
    """An ASCII text without controls."""
    seen = text.encode().translate(None, _CONTROLS)
    return text if len(seen) == len(text) else seen.decode()


def folded(text: str) -> str:
    """The plain text in lower case and without accents; layout stays."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", plain(text)).casefold()
    for mark in () if text.isascii() else filter(unicodedata.combining, {*text}):
        text = text.replace(mark, "")
    return text


def spelled(text: str) -> str:
    """The folded text without symbols, in plain Latin letters where nothing else is in it: words wholly in look-alike letters, `ł`.

    >>> spelled("Mój mąż zmarł 😢")
    'moj maz zmarl  '
    """
    text = folded(text)
    if not text.isascii():
        text = _SYMBOLS.sub(" ", text)
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)  # Korean syllables in one piece
    return text if _FOREIGN.search(text) else text.translate(_LATIN)


@lru_cache(maxsize=32)
def smooth(text: str) -> str:
    """The text as phrases are looked for in it: spelled plainly, one blank between words, whatever else stood there, and no line ends
    but those of paragraphs. Several rules read the same text in turn, so the last few are kept.

    >>> smooth("I **want** to\\nend-my  life.")
    'i want to end my life.'
    """
    if not text.isascii():
        text = spelled(text)
    text = text.encode().translate(_SMOOTHED, _UNSMOOTHED).decode() if text.isascii() else _BREAK.sub(" ", text.replace("\r", ""))
    if "\n" in text:
        parts = " ".join([" ".join(line.split()) for line in text.split("\n")]).split("  ")  # an empty line leaves two blanks
        return "\n".join([part.strip() for part in parts])
    return " ".join(text.split()) if "  " in text else text


def _one_form(found: re.Match[str]) -> str:
    return _ONE_FORM[found[0]]


def _latin(found: re.Match[str]) -> str:
    word = found[0]
    if word.isascii():
        return word
    latin = word.translate(_LOOKALIKES)
    return latin if max(latin) < "\u0370" and any("a" <= character <= "z" for character in word.lower()) else word


def _other(text: str) -> list[str]:
    """The words of a folded text that is not all ASCII."""
    words: list[str] = []
    for wide, word in _RUNS.findall(_VALUES.sub(DIGIT, text.replace("'", "").replace("`", ""))):
        if word:
            words.append(word)
        else:
            words += [wide[place : place + 2] for place in range(len(wide) - 1)] or [wide]
    return words
