"""Phrase tables find many short patterns in a text, looking only where a word could start one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Generic, TypeVar

Tag = TypeVar("Tag")
WORD: Final = re.compile(r"\w+")
LETTERS: Final = 4
"""Letters of a word that select a bucket of patterns."""


class PhraseTable(Generic[Tag]):
    """Finds phrases at word starts, case-insensitively.

    A single alternation of hundreds of phrases is tried at every character; here a word's first letters select the few that could match,
    which is some twenty times quicker on prose. Of several phrases that start at one word, the first in the table is reported. Each
    phrase is a regular expression in lower case that starts with a literal word or a group of them. Phrases in scripts without blanks
    are plain substrings.

    Args:
        rules: pairs of a tag and a phrase.
    """

    def __init__(self, rules: Iterable[tuple[Tag, str]]) -> None:
        self._buckets: dict[str, list[tuple[Tag, str]]] = {}
        self._compiled: dict[str, tuple[re.Pattern[str], list[Tag]]] = {}
        self._substrings: list[tuple[Tag, str]] = []
        for tag, phrase in rules:
            if ord(phrase[0]) >= 0x2E80:
                self._substrings.append((tag, phrase))
                continue
            for prefix, whole in _expanded(phrase):
                self._buckets.setdefault(prefix, []).append((tag, whole))

    def find(self, text: str) -> Iterator[tuple[Tag, int, str]]:
        """Each phrase found, with its tag, where it starts and the words it matched."""
        low, starts = _words(text)
        buckets = self._buckets
        for bucket, start in starts:
            if bucket in buckets:
                pattern, tags = self._pattern(bucket)
                if match := pattern.match(low, start):
                    yield tags[(match.lastindex or 1) - 1], start, match[0]
        if self._substrings and not low.isascii():
            for tag, phrase in self._substrings:
                if (start := low.find(phrase)) >= 0:
                    yield tag, start, phrase

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


@cache
def lexicon() -> dict[str, Any]:
    """The shipped phrases: `lexicon.toml`."""
    return tomllib.loads(files("routed_agents").joinpath("lexicon.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=16)
def _words(text: str) -> tuple[str, list[tuple[str, int]]]:
    """The text in lower case, and the first letters and place of each word; kept, because several tables read the same text in turn."""
    low = text.lower()
    return low, [(word[0][:LETTERS], word.start()) for word in WORD.finditer(low)]


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
