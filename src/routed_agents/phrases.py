"""Phrase tables find many short patterns in a text, looking only where a word could start one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from itertools import chain
from typing import Any, Final, Generic, TypeVar

from routed_agents.words import DIGIT, folded, runs_of, smooth, spelled, words_of

Tag = TypeVar("Tag")
LETTERS: Final = 4
"""Letters of a word that select a bucket of patterns."""
MORE: Final = 8
"""Letters of a long word that tell whether a pattern is worth trying."""
ANYWHERE: Final = "\u0590"
"""From Hebrew on, scripts write no blanks, or put endings and prefixes on a word: a phrase may start inside one."""


class PhraseTable(Generic[Tag]):
    """Finds phrases at word starts, whatever the case, the accents and what stands between the words: line ends, markup, hyphens, emoji.

    A single alternation of hundreds of phrases is tried at every character; here a word's first letters select the few that could match,
    which is some twenty times quicker on prose. Of several phrases that start at one word, the first in the table is reported. Each
    phrase is a regular expression in lower case that starts with a literal word or a group of them. Phrases in scripts that part no words,
    or put endings and prefixes on them, start with a literal letter and are found anywhere.

    Args:
        rules: pairs of a tag and a phrase.
    """

    def __init__(self, rules: Iterable[tuple[Tag, str]]) -> None:
        self._buckets: dict[str, list[tuple[Tag, str]]] = {}
        self._compiled: dict[str, tuple[re.Pattern[str], list[Tag]]] = {}
        self._anywhere: list[tuple[Tag, str]] = []
        self._letters: set[str] = set()
        self._needed: dict[str, set[tuple[str, str]]] = {}
        for tag, written in rules:
            phrase = _smooth_phrase(written)
            if phrase[0] >= ANYWHERE:
                self._anywhere.append((tag, phrase))
                self._letters.add(phrase[0])
                continue
            starts = list(_expanded(phrase))
            for prefix, whole in starts:
                self._buckets.setdefault(prefix, []).append((tag, whole))
            for need in needed_by(phrase):
                _NEEDS.add(need)
                self._needed.setdefault(need, set()).update([(prefix, _first_word(prefix, whole)) for prefix, whole in starts])
        _MET.clear()
        needs_met.cache_clear()

    def find(self, text: str) -> Iterator[tuple[Tag, int, str]]:
        """Each phrase found, with its tag, where it starts and the words it matched, both in the smooth text."""
        low = smooth(text)
        buckets = self._worth_trying(text if text.isascii() == low.isascii() else low)
        if not buckets and (not self._anywhere or low.isascii()):
            return
        places: list[tuple[int, str]] = []
        for bucket in buckets:
            place = low.find(bucket)
            while place >= 0:
                if place == 0 or not low[place - 1].isalnum():
                    places.append((place, bucket))
                place = low.find(bucket, place + 1)
        for start, bucket in sorted(places):
            if len(bucket) < LETTERS and low[start + len(bucket) : start + len(bucket) + 1].isalnum():
                continue  # a short bucket stands for a whole word
            pattern, tags = self._pattern(bucket)
            if match := pattern.match(low, start):
                yield tags[(match.lastindex or 1) - 1], start, match[0]
        if self._anywhere and not low.isascii():
            letters = letters_of(low)
            for tag, phrase in () if self._letters.isdisjoint(letters) else self._anywhere:
                if phrase[0] in letters and (match := _compiled(phrase).search(low)):
                    yield tag, match.start(), match[0]

    def _worth_trying(self, text: str) -> set[str]:
        """The buckets of phrases whose start and rarest part both stand in the text."""
        needed = self._needed
        found: set[str] = set()
        for need in needs_met(text):
            if need in needed:
                beginnings = beginnings_of(text)
                found.update([bucket for bucket, plain in needed[need] if plain in beginnings])
        return found

    def first(self, text: str) -> str:
        """The first phrase found; empty where there is none."""
        return next((match for _, _, match in self.find(text)), "")

    def _pattern(self, bucket: str) -> tuple[re.Pattern[str], list[Tag]]:
        """The bucket's phrases as one pattern, each in a group of its own; the first in the table's order wins."""
        found = self._compiled.get(bucket)
        if found is None:
            rows = self._buckets[bucket]
            found = self._compiled[bucket] = (re.compile("|".join(f"({phrase})" for _, phrase in rows)), [tag for tag, _ in rows])
        return found


_NEEDS: Final[set[str]] = set()
"""What any table's phrases need, so that one look at a text serves all tables."""
_MET: Final[dict[str, tuple[str, ...]]] = {}
"""Words met lately, and the needs each of them meets; mostly none."""
REMEMBERED: Final = 20_000
"""Words kept there."""


@lru_cache(maxsize=32)
def needs_met(text: str) -> frozenset[str]:
    """Which of the needs of all tables a text meets."""
    words = _words_in(text)
    if new := words.difference(_MET):
        if len(_MET) > REMEMBERED:
            _MET.clear()
            new = words
        _MET.update([(word, tuple({word[:LETTERS], word[:MORE]} & _NEEDS)) for word in new])
    return frozenset(chain.from_iterable(filter(None, map(_MET.get, words))))


@lru_cache(maxsize=32)
def beginnings_of(text: str) -> frozenset[str]:
    """The first letters of the words of a text."""
    return frozenset([word[:LETTERS] for word in _words_in(text)])


@lru_cache(maxsize=32)
def letters_of(text: str) -> frozenset[str]:
    """The characters of a text."""
    return frozenset(text)


def _words_in(text: str) -> set[str]:
    """The words of a text, and the parts of those with an apostrophe: phrases start after one as well (`l'hôpital`)."""
    words = {*words_of(text)}
    if "'" not in text:
        return words
    parted = " ".join([run for run in text.split() if "'" in run]).replace("'", " ")
    return words.union(*runs_of([parted]))


def needed_by(phrase: str) -> set[str]:
    """Beginnings of words of which a text must have at least one, or the phrase cannot be in it.

    Taken from the rarest part of the pattern that must match: a word outside all groups, else a group's alternatives, else how the
    phrase starts. Saves looking closer at most texts.
    """
    if phrase.isascii() and phrase.isalpha() and len(phrase) > 1 and phrase not in COMMON:
        return {phrase[:MORE] if len(phrase) >= MORE else phrase[:LETTERS]}  # most alternatives are a word
    plain, groups = _outside_groups(phrase)
    whole = [word for word in _WHOLE.findall(plain) if word.replace("'", "") not in COMMON]
    if whole:
        rarest = max(whole, key=len).replace("'", "")
        return {rarest[:MORE] if len(rarest) >= MORE else rarest[:LETTERS]}
    for group in groups:
        found: set[str] = set()
        for option in _split(group):
            inner = needed_by(option) if re.match(r"[a-z(]", option) else set[str]()
            if not inner or inner & COMMON or "" in inner:
                break
            found |= inner
        else:
            return found
    return {_plainly(prefix) for prefix, _ in _expanded(phrase)}


_WHOLE: Final = re.compile(r"(?<![\w\\\x00\x01])(?:[a-z']{2,}(?![\w?*{\[(\x00\x01])|[a-z']{4,}(?=[\x00\x01]))")
"""A word that stands in every match, or enough of its beginning."""
COMMON: Final = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "are",
        "be",
        "been",
        "but",
        "by",
        "can",
        "cant",
        "do",
        "dont",
        "for",
        "from",
        "get",
        "got",
        "had",
        "has",
        "have",
        "he",
        "her",
        "him",
        "his",
        "i",
        "if",
        "im",
        "in",
        "is",
        "it",
        "its",
        "ive",
        "just",
        "like",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "one",
        "or",
        "our",
        "out",
        "she",
        "so",
        "some",
        "that",
        "the",
        "their",
        "them",
        "there",
        "they",
        "this",
        "to",
        "too",
        "up",
        "us",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "who",
        "will",
        "with",
        "would",
        "you",
        "your",
        "will",
        "shall",
        "take",
        "really",
        "want",
        "point",
        "reason",
        "more",
    ]
)
"""Words too common to tell a text by."""


def _first_word(prefix: str, phrase: str) -> str:
    """How the first word of a phrase begins, without the apostrophe that may be in it."""
    literal = re.match(r"[a-z]*'[a-z]*", phrase)
    return _plainly(literal[0] if literal else prefix)


@cache
def _plainly(beginning: str) -> str:
    """The beginning of a word as it is among a text's words."""
    return re.sub("[1-9]", DIGIT, folded(beginning).replace("'", ""))[:LETTERS]


@cache
def _compiled(phrase: str) -> re.Pattern[str]:
    """A phrase's pattern, compiled when a text first holds its first letter: most processes read few scripts."""
    return re.compile(phrase)


def _smooth_phrase(phrase: str) -> str:
    """The pattern as it is looked for in a smooth text: spelled plainly, blanks for hyphens."""
    return re.sub(r"(?<=\w)-(?=[?\w(])(?![^\[]*\])", " ", phrase if phrase.isascii() else spelled(phrase))


def _outside_groups(phrase: str) -> tuple[str, list[str]]:
    """A pattern without its groups (`\\0`) and open letters (`\\1`), and the insides of groups that match once and hold whole words."""
    plain, groups, depth, opened = "", list[str](), 0, 0
    for index, character in enumerate(phrase):
        if character == "(" and phrase[index - 1 : index] != "\\":
            if depth == 0:
                opened = index
            depth += 1
        elif character == ")" and phrase[index - 1 : index] != "\\":
            depth -= 1
            if depth == 0:
                plain += "\0"
                inside = phrase[opened + 1 : index]
                open_ended = phrase[index + 1 : index + 2] in ("?", "*", "{", "[") or phrase[index + 1 : index + 3] == r"\w"
                if inside.startswith("?:") and not open_ended and not phrase[opened - 1 : opened].isalnum():
                    groups.append(inside[2:])
        elif depth == 0:
            plain += character
    plain = re.sub(r"\\[Wbsd](?:[?*+]|\{[^}]*\})*", " ", plain)
    return re.sub(r"\[[^\]]*\](?:[?*+]|\{[^}]*\})*|\\w(?:[?*+]|\{[^}]*\})*", "\1", plain), groups


@cache
def lexicon() -> dict[str, Any]:
    """The shipped phrases: `lexicon.toml`."""
    return tomllib.loads(files("routed_agents").joinpath("lexicon.toml").read_text(encoding="utf-8"))


def _split(phrases: str) -> list[str]:
    """The alternatives of a pattern, parted at the bars outside every group."""
    parts, depth, current = list[str](), 0, ""
    for index, character in enumerate(phrases):
        escaped = index > 0 and phrases[index - 1] == "\\"
        if not escaped:
            depth += (character in "([") - (character in ")]")
        if character == "|" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part for part in [*parts, current] if part]


def _expanded(phrase: str) -> Iterator[tuple[str, str]]:
    """The phrase under each run of first letters it can start with."""
    plain = re.match(r"[^\W_]*", phrase)
    run = plain.group(0) if plain else ""
    rest = phrase[len(run) :]
    if rest[:1] in ("?", "*") and len(run) <= LETTERS:
        raise ValueError(f"phrase {phrase!r} makes a letter of its first word optional; write both forms")
    if len(run) >= LETTERS or not rest.startswith("(?:"):
        if not run or (len(run) < LETTERS and (rest.startswith("\\w") or (rest[1:2].isalnum() and rest[0] == "["))):
            raise ValueError(f"phrase {phrase!r} does not start with a whole word or {LETTERS} letters of one")
        yield run[:LETTERS], phrase
        return
    depth, end = 0, 0
    for index, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            end = index
            break
    options, after = _split(rest[3:end]), rest[end + 1 :]
    if after[:1] in ("{", "*", "+"):  # a repeated group starts with a blank in every phrase here, so the word before it is whole
        yield run, phrase
        return
    if after.startswith("?"):
        options, after = [*options, ""], after[1:]
    for option in options:
        yield from _expanded(run + option + after)
