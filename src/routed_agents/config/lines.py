"""Tells on which line of a TOML document each key stands, which tomllib does not."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Final

Path = tuple[str | int, ...]

BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
KEY: Final = re.compile(r'[ \t]*("(?:\\.|[^"\\])*"|\'[^\']*\'|[A-Za-z0-9_-]+)[ \t]*')
TEXT: Final = re.compile(r'"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!\')|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
PLAIN: Final = re.compile(r"[^\n,\]}#]*")


def lines_of(text: str) -> Mapping[Path, int]:
    """The line of every key, table and list item, by its path, counted from 1.

    The text must be a document that tomllib accepts.

    >>> lines_of('stance = "frugal"\\n[[floor]]\\ntier = "strong"')[("floor", 0, "tier")]
    3
    """
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}
        self.line_at = (0, 1)

    def read(self) -> Mapping[Path, int]:
        table: Path = ()
        while True:
            self.skip()
            if self.at >= len(self.text):
                return self.found
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        several = self.text.startswith("[[", self.at)
        line = self.line()
        self.at += 2 if several else 1
        trail: list[str | int] = []
        names = self.key()
        for number, name in enumerate(names):
            trail.append(name)
            path = tuple(trail)
            self.found.setdefault(path, line)
            if several and number == len(names) - 1:
                self.counts[path] = self.counts.get(path, -1) + 1
            if path in self.counts:
                trail.append(self.counts[path])
                self.found.setdefault(tuple(trail), line)
        self.at += 2 if several else 1
        return tuple(trail)

    def pair(self, table: Path) -> None:
        line = self.line()
        path = table
        for name in self.key():
            path = (*path, name)
            self.found.setdefault(path, line)
        self.at += 1  # the equals sign
        self.value(path)

    def key(self) -> list[str]:
        names: list[str] = []
        while match := KEY.match(self.text, self.at):
            raw = match.group(1)
            names.append(str(tomllib.loads(f"k = {raw}")["k"]) if raw[0] in "\"'" else raw)
            self.at = match.end()
            if not self.text.startswith(".", self.at):
                break
            self.at += 1
        return names

    def value(self, path: Path) -> None:
        self.skip()
        opening = self.text[self.at : self.at + 1]
        if opening == "[":
            self.items(path)
        elif opening == "{":
            self.inline(path)
        else:
            pattern = TEXT if opening in ('"', "'") else PLAIN
            match = pattern.match(self.text, self.at)
            self.at = max(match.end() if match else 0, self.at + 1)

    def items(self, path: Path) -> None:
        self.at += 1
        number = 0
        while True:
            self.skip()
            if self.text[self.at : self.at + 1] in ("]", ""):
                break
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self.found.setdefault((*path, number), self.line())
            self.value((*path, number))
            number += 1
        self.at += 1

    def inline(self, path: Path) -> None:
        self.at += 1
        while True:
            self.skip()
            if self.text[self.at : self.at + 1] in ("}", ""):
                break
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self.pair(path)
        self.at += 1

    def skip(self) -> None:
        match = BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def line(self) -> int:
        start, line = self.line_at
        self.line_at = (self.at, line + self.text.count("\n", start, self.at))
        return self.line_at[1]
