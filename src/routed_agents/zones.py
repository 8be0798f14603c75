"""Zones are the places of a step where a word weighs differently: the instruction's opening is not a payload's middle."""

from __future__ import annotations

import re
import string
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from routed_agents.features import Features
from routed_agents.material import hard_split
from routed_agents.segments import segments_of
from routed_agents.told import TOLD, Slips, Telling, Words, leads_of, told_in
from routed_agents.words import runs_of, words_of

OPENING: Final = 25
"""Words at the start of the person's own text that are read as instruction."""
CLOSING: Final = 15
"""Words at its end."""
LEADING: Final = 120
"""Words at the start of the system prompt."""
NEAREST: Final = 4
"""Messages before the last one that are weighed together, as what the conversation is about."""
OPENED_AT_MOST: Final = 12
"""Segments of a system prompt, or of a short message beside marked material, whose first words are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """A step's words by place, and what its shape says.

    The instruction zones hold whole runs of words, in order, so that pairs can be read; the bulk zones hold what is only weighed by its
    share. Where segments of the message read like an instruction they are `told`, and the rest is `body`. Where none does (a bare
    question, a story with a sum in it, a cry for help) the message's `opening` and `closing` speak. Each of these has a twin for steps
    with a system prompt (`told_under`, …): below one, the person's message is often nothing but material.

    Attributes:
        instruction: zone name and words.
        leads: the words that an instruction zone's segments open with, by zone.
        bulk: zone name and words.
        echoes: earlier messages, each with the name of how it is heard: who said it, and how much the last message says itself.
        signs: names of what is true of the step's shape.
    """

    instruction: tuple[tuple[str, Words], ...]
    leads: tuple[tuple[str, Words], ...]
    bulk: tuple[tuple[str, Words], ...]
    echoes: tuple[tuple[str, str], ...] = ()
    signs: tuple[str, ...]


INSTRUCTION_ZONES: Final = ("system", "told", "opening", "closing", "told_under", "opening_under", "closing_under")
LED_ZONES: Final = ("system", "told", "opening", "told_under", "opening_under")
"""Those whose segments are opened; a closing goes on from an opening."""
BULK_ZONES: Final = ("system_rest", "body", "body_under", "rest", "rest_under", "before", "tools")


def none_mistyped(words: Words) -> Mapping[str, str]:
    """Takes the words as they are."""
    del words
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a step's texts say by themselves, wherever in a conversation they stand; the dearest part of its zones.

    Attributes:
        instruction: zone name and words.
        leads: zone name and words.
        bulk: zone name and words.
        said: the segments that read like an instruction, else the whole message.
        told: their words.
        asked: words of the message.
        system: words of the system prompt.
    """

    instruction: tuple[tuple[str, Words], ...]
    leads: tuple[tuple[str, Words], ...]
    bulk: tuple[tuple[str, Words], ...]
    said: str
    told: Words
    asked: int
    system: int


def read(own: str, system_prompt: str, marked: bool, segment_weights: Telling, slips: Slips = none_mistyped) -> Reading:
    """Read the message and the system prompt place by place.

    Args:
        own: what the person asks, without marked material.
        system_prompt: the system prompt's own words.
        marked: material was taken out of the message.
        segment_weights: how much each word speaks for its segment being an instruction.
        slips: tells what was mistyped in an instruction.
    """
    own = own.strip()
    system, asked = words_of(hard_split(system_prompt)[0]), words_of(own)
    under = "_under" if system else ""
    instruction: list[tuple[str, Words]] = []
    leads: list[tuple[str, Words]] = []
    bulk: list[tuple[str, Words]] = []
    if system:
        instruction.append(("system", _mended(system[:LEADING], slips)))
        leads.append(("system", _mended(_opened(hard_split(system_prompt)[0]), slips)))
        if len(system) > LEADING:
            bulk.append(("system_rest", system[LEADING:]))
    said, told, rest, opened = (
        (own, _mended(asked, slips), (), _mended(_opened(own), slips))
        if marked and len(asked) <= TOLD
        else told_in(own, segment_weights, bool(system), slips)
    )
    leads.append((f"{'told' if told else 'opening'}{under}", opened))
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
    return Reading(
        instruction=tuple(instruction),
        leads=tuple(leads),
        bulk=tuple(bulk),
        said=said or own,
        told=told,
        asked=len(asked),
        system=len(system),
    )


@lru_cache(maxsize=32)
def _opened(text: str) -> Words:
    """The words that a text's first segments open with; a workflow's steps share their system prompts, so the last few are kept."""
    return leads_of(runs_of(segments_of(text)[0][:OPENED_AT_MOST]))


def placed(reading: Reading, features: Features) -> tuple[list[tuple[str, Words]], list[str]]:
    """What the conversation around a step's texts says: bulk zones and signs of the step's shape."""
    around: list[tuple[str, Words]] = []
    if features.before:
        around.append(("before", words_of("\n".join([message.text for message in features.before[:NEAREST]]))))
    if features.tools:
        around.append(("tools", words_of(CAMEL.sub(" ", " ".join(features.tools)))))
    return around, _signs(features, reading.said, reading.told, reading.asked, reading.system)


def _echoes(few: str) -> dict[str, tuple[str, str]]:
    return {role: (f"last {word} {few}", f"earlier {word} {few}") for role, word in (("human", "asked"), ("ai", "answered"))}


_FEW: Final = (4, 9, 21)
"""Words of the last message below which the earlier ones are heard in another way."""
_HEARD: Final = tuple(map(_echoes, ("beside under 4 words", "beside under 9 words", "beside under 21 words", "beside more words")))
ECHOES: Final = tuple(name for heard in _HEARD for names in heard.values() for name in names)
"""The ways in which an earlier message is heard."""


def echoes_of(features: Features, asked: int) -> tuple[tuple[str, str], ...]:
    """Earlier messages of the conversation, by how they are heard: "the same for Friday" asks for what was asked before.

    Args:
        features: the step.
        asked: words of its last message.
    """
    if not features.before:
        return ()
    heard = _HEARD[bisect(_FEW, asked)]
    spoke: set[str] = set()
    found: list[tuple[str, str]] = []
    for role, text in features.before:
        if names := heard.get(role):
            found.append((names[role in spoke], text))
            spoke.add(role)
    return tuple(found)


def zones_of(features: Features, segment_weights: Telling, slips: Slips = none_mistyped) -> Zones:
    """Read a step's words place by place.

    Args:
        features: the step.
        segment_weights: how much each word speaks for its segment being an instruction.
        slips: tells what was mistyped in an instruction.
    """
    reading = read(features.own, features.system, features.marked, segment_weights, slips)
    around, signs = placed(reading, features)
    return Zones(
        instruction=reading.instruction,
        leads=reading.leads,
        bulk=(*reading.bulk, *around),
        echoes=echoes_of(features, reading.asked),
        signs=tuple(signs),
    )


def split(features: Features, segment_weights: Telling, slips: Slips = none_mistyped) -> tuple[str, str]:
    """The message's instruction and its material, as `zones_of` takes them, for a person to read."""
    own, quoted = features.own.strip(), features.quoted if features.marked else ""
    if quoted and len(words_of(own)) <= TOLD:
        return own, quoted
    told, _, rest, _ = told_in(own, segment_weights, bool(words_of(features.system)), slips)
    if not told:
        return own, quoted
    segments, _ = segments_of(own)
    material = " ".join([segment for segment in segments if segment not in told]) if rest else ""
    return told, "\n".join([part for part in (material, quoted) if part])


def _mended(words: Words, slips: Slips) -> Words:
    mistyped = slips(words)
    return tuple([mistyped.get(word, word) for word in words]) if mistyped else words


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
    if end in "?？؟":
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
