"""Zones are the places of a step where a word weighs differently: the instruction's opening is not a payload's middle."""

from __future__ import annotations

import re
import string
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final

from routed_agents.features import Features
from routed_agents.material import hard_split
from routed_agents.words import runs_of, words_of

OPENING: Final = 25
"""Words at the start of the person's own text that are read as instruction."""
CLOSING: Final = 15
"""Words at its end."""
LEADING: Final = 60
"""Words at the start of the system prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """A step's words by place, and what its shape says.

    The instruction zones hold whole runs of words, in order, so that pairs can be read; the bulk zones hold what is only weighed by its
    share. Where segments of the message read like an instruction they are `told`, and the rest is `body`. Where none does (a bare
    question, a story with a sum in it, a cry for help) the message's `opening` and `closing` speak. Each of these has a twin for steps
    with a system prompt (`told_under`, …): below one, the person's message is often nothing but material.

    Attributes:
        instruction: zone name and words.
        bulk: zone name and words.
        signs: names of what is true of the step's shape.
    """

    instruction: tuple[tuple[str, tuple[str, ...]], ...]
    bulk: tuple[tuple[str, tuple[str, ...]], ...]
    signs: tuple[str, ...]


INSTRUCTION_ZONES: Final = ("system", "told", "opening", "closing", "told_under", "opening_under", "closing_under")
BULK_ZONES: Final = ("system_rest", "body", "body_under", "rest", "rest_under", "before", "tools")
TOLD: Final = 60
"""Words of segments that read like an instruction."""
EDGE: Final = 4
"""Segments at the start and at the end of a message that may be its instruction."""


Words = tuple[str, ...]


Slips = Callable[[Words], Mapping[str, str]]
"""Tells which of some words were mistyped, and what was meant."""


def none_mistyped(words: Words) -> Mapping[str, str]:
    """Takes the words as they are."""
    del words
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a step's texts say by themselves, wherever in a conversation they stand; the dearest part of its zones.

    Attributes:
        instruction: zone name and words.
        bulk: zone name and words.
        said: the segments that read like an instruction, else the whole message.
        told: their words.
        asked: words of the message.
        system: words of the system prompt.
    """

    instruction: tuple[tuple[str, Words], ...]
    bulk: tuple[tuple[str, Words], ...]
    said: str
    told: Words
    asked: int
    system: int


def read(own: str, system_prompt: str, marked: bool, segment_weights: Mapping[str, int], slips: Slips = none_mistyped) -> Reading:
    """Read the message and the system prompt place by place.

    Args:
        own: the last human message without marked material.
        system_prompt: the system prompt's own words.
        marked: material was taken out of the message.
        segment_weights: how much each word speaks for its segment being an instruction.
        slips: tells what was mistyped in an instruction.
    """
    own = own.strip()
    system, asked = words_of(hard_split(system_prompt)[0]), words_of(own)
    under = "_under" if system else ""
    instruction: list[tuple[str, Words]] = []
    bulk: list[tuple[str, Words]] = []
    if system:
        instruction.append(("system", _mended(system[:LEADING], slips)))
        if len(system) > LEADING:
            bulk.append(("system_rest", system[LEADING:]))
    said, told, rest = (own, _mended(asked, slips), ()) if marked and len(asked) <= TOLD else _told(own, segment_weights, under, slips)
    if told:
        instruction.append((f"told{under}", told))
        if rest:
            bulk.append((f"rest{under}", rest))
    else:
        told = asked
        instruction.append((f"opening{under}", _mended(asked[:OPENING], slips)))
        if len(asked) > OPENING:
            instruction.append((f"closing{under}", _mended(asked[max(OPENING, len(asked) - CLOSING) :], slips)))
            if len(asked) > OPENING + CLOSING:
                bulk.append((f"body{under}", asked[OPENING:-CLOSING]))
    return Reading(instruction=tuple(instruction), bulk=tuple(bulk), said=said or own, told=told, asked=len(asked), system=len(system))


def placed(reading: Reading, features: Features) -> tuple[list[tuple[str, Words]], list[str]]:
    """What the conversation around a step's texts says: bulk zones and signs of the step's shape."""
    around: list[tuple[str, Words]] = []
    if features.before:
        around.append(("before", words_of("\n".join(features.before))))
    if features.tools:
        around.append(("tools", words_of(CAMEL.sub(" ", " ".join(features.tools)))))
    return around, _signs(features, reading.said, reading.told, reading.asked, reading.system)


def zones_of(features: Features, segment_weights: Mapping[str, int], slips: Slips = none_mistyped) -> Zones:
    """Read a step's words place by place.

    Args:
        features: the step.
        segment_weights: how much each word speaks for its segment being an instruction.
        slips: tells what was mistyped in an instruction.
    """
    reading = read(features.own, features.system, features.marked, segment_weights, slips)
    around, signs = placed(reading, features)
    return Zones(instruction=reading.instruction, bulk=(*reading.bulk, *around), signs=tuple(signs))


def split(features: Features, segment_weights: Mapping[str, int], slips: Slips = none_mistyped) -> tuple[str, str]:
    """The message's instruction and its material, as `zones_of` takes them, for a person to read."""
    own, quoted = features.own.strip(), features.quoted if features.marked else ""
    if quoted and len(words_of(own)) <= TOLD:
        return own, quoted
    told, _, rest = _told(own, segment_weights, "_under" if features.system else "", slips)
    if not told:
        return own, quoted
    segments = segments_of(own)
    material = " ".join([segment for segment in segments if segment not in told]) if rest else ""
    return told, "\n".join([part for part in (material, quoted) if part])


BREAKS: Final = (". ", "? ", "! ", ": ")
DASHES: Final = (" - ", " -- ", " | ", " => ", " — ", " – ")
WIDE_BREAKS: Final = ("。", "！", "？", "：")
"""Where a segment ends, besides the end of a line. Told by plain replacement, some ten times quicker than by a pattern."""
HEAD_READ: Final = 1_200
TAIL_READ: Final = 800
"""Characters of a message that are cut into segments, at its start and its end."""


def segments_of(text: str) -> list[str]:
    """A message's lines, sentences and the parts round colons and dashes; of a long message those of its start and end only."""
    if len(text) > HEAD_READ + TAIL_READ:
        head, tail = _cut(text[:HEAD_READ]), _cut(text[-TAIL_READ:])
        return [*head[:-1], *tail[1:]] if len(head) > 1 and len(tail) > 1 else [*head, *tail]
    return _cut(text)


def _cut(text: str) -> list[str]:
    for mark in BREAKS:
        if mark in text:
            text = text.replace(mark, f"{mark[0]}\n")
    for mark in DASHES:
        if mark in text:
            text = text.replace(mark, "\n")
    if not text.isascii():
        for mark in WIDE_BREAKS:
            text = text.replace(mark, f"{mark}\n")
    return [segment for line in text.split("\n") if (segment := line.strip())]


def segment_names(segment: str, place: int, count: int, under: str) -> tuple[Words, str]:
    """The words of a segment and the name of its place and form, as its weights are kept."""
    words = words_of(segment)
    return words, _form(segment, place, count, under, len(words))


def _form(segment: str, place: int, count: int, under: str, length: int) -> str:
    where = "only" if count == 1 else "first" if place == 0 else "last" if place == count - 1 else "edge"
    return _FORMS[where, under, _ENDS.get(segment[-1], "open"), bisect(_SEGMENT_LENGTHS, length)]


_SEGMENT_LENGTHS: Final = (2, 5, 10, 20, 40)
_ENDS: Final = {":": "colon", "：": "colon", "?": "question", "？": "question", **dict.fromkeys(".!。！", "stop")}
_FORMS: Final = {
    (where, under, end, size): f"={where}{under} {end} {size}"
    for where in ("only", "first", "last", "edge")
    for under in ("", "_under")
    for end in ("colon", "question", "stop", "open")
    for size in range(len(_SEGMENT_LENGTHS) + 1)
}
SEGMENT_SHARE: Final = 8


def _mended(words: Words, slips: Slips) -> Words:
    mistyped = slips(words)
    return tuple([mistyped.get(word, word) for word in words]) if mistyped else words


def _told(own: str, weights: Mapping[str, int], under: str, slips: Slips) -> tuple[str, Words, Words]:
    """The segments that read like an instruction, as text and as words, and the others' words; nothing is told where none does."""
    segments = segments_of(own)
    count = len(segments)
    said: list[str] = []
    told: list[str] = []
    rest: list[str] = []
    weight = weights.get
    runs = runs_of(segments)
    edges = runs if count <= 2 * EDGE else [*runs[:EDGE], *runs[-EDGE:]]
    mistyped = slips(tuple(chain.from_iterable(edges)))
    for place, words in enumerate(runs):
        if not EDGE <= place < count - EDGE and len(told) < TOLD:
            meant = tuple([mistyped.get(word, word) for word in words]) if mistyped else words
            score = weight(_form(segments[place], place, count, under, len(words)), 0)
            score += SEGMENT_SHARE * sum(map(weight, {*meant}, repeat(0))) // (len(words) + SEGMENT_SHARE // 2)
            if score > 0:
                said.append(segments[place])
                told += meant
                continue
        rest += words
    return "\n".join(said), tuple(told[:TOLD]), tuple(rest)


CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")

# ---- shape ------------------------------------------------------------------------------------------------------------

_BLANK: Final = b" \n\t"
_PLAIN: Final = f"{string.ascii_letters}{string.digits} \n\t.,'".encode()
_SELF: Final = frozenset(
    [
        "i",
        "im",
        "ive",
        "id",
        "ill",
        "me",
        "my",
        "mine",
        "myself",
        "we",
        "our",
        "us",
        "ich",
        "mir",
        "mein",
        "meine",
        "je",
        "moi",
        "mon",
        "ma",
        "yo",
        "mi",
    ]
)
_OPTIONS: Final = ("\nB.", "\nB)", "\nB:", "\n(B", "\nb)", "\n2.", "\n2)", "\n- B", " B) ", "(B)", "(b)", " b) ")


_WIDE: Final = re.compile("[\u2e80-\u9fff\uac00-\ud7af]")


def _steps(name: str, bounds: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return bounds, tuple(f"{name}:{number}" for number in range(len(bounds) + 1))


_LENGTH = _steps("words", (4, 9, 21, 61, 201))
_TOLD = _steps("told", (4, 9, 21))
_REST = _steps("rest", (8, 25, 80))
_SYSTEM = _steps("system", (1, 15, 60, 200))
_TURNS = _steps("turns", (2, 4, 7, 13))
_TURNS_UNDER = _steps("turns_under", (2, 4, 7, 13))
_TOOLS = _steps("tools", (1, 2, 5))
_TOKENS = _steps("tokens", (50_001,))
_LINES = _steps("lines", (1, 3, 10))
_NUMBERS = _steps("numbers", (1, 2, 3, 6))
_MARKS = _steps("marks", (2, 5, 10, 20))
_SELVES = _steps("self", (1, 2, 4))


def _signs(features: Features, own: str, told: tuple[str, ...], length: int, system: int) -> list[str]:
    near, first = own[:1500], told[:80]
    bounds, names = _TURNS_UNDER if system else _TURNS
    signs = [
        names[bisect(bounds, features.message_count)],
        _SYSTEM[1][bisect(_SYSTEM[0], system)],
        _TOOLS[1][bisect(_TOOLS[0], len(features.tools))],
        _TOKENS[1][bisect(_TOKENS[0], features.tokens)],
        _TOLD[1][bisect(_TOLD[0], len(told))]
        if len(told) < length  # beside material, neither its length nor its lines are a sign
        else f"{_LENGTH[1][bisect(_LENGTH[0], length)]} {_LINES[1][bisect(_LINES[0], near.count(chr(10)))]}",
        _NUMBERS[1][bisect(_NUMBERS[0], f" {' '.join(first)}".count(" 0"))],
        _MARKS[1][bisect(_MARKS[0], _density(near))],
        _SELVES[1][bisect(_SELVES[0], len(_SELF.intersection(first)))],
    ]
    end = own.rstrip()[-1:]
    if end in "?？":
        signs.append("ends:?")
    elif end == ":":
        signs.append("ends::")
    if "?" in near:
        signs.append("asks")
    if len(told) < length:
        signs.append(_REST[1][bisect(_REST[0], length - len(told))])
    if features.marked:  # that it is there tells something; what it says is nobody's instruction
        signs.append("quotes")
    if features.output_schema:
        signs.append("schema")
    if not near.isascii() and _WIDE.search(near):
        signs.append("wide_script")
    if "B" in near or "b)" in near or "\n2" in near:  # one of these is in every mark of an option
        for mark in _OPTIONS:
            if mark in near:
                signs.append("options")
                break
    return signs


def _density(text: str) -> int:
    """Percent of a text's characters that are neither letters, digits nor the commonest stops; code has more of it than prose."""
    seen = text.encode("ascii", "ignore").translate(None, _BLANK)
    return 100 * len(seen.translate(None, _PLAIN)) // (len(seen) or 1)
