"""A linear model in whole numbers: the weights of all classes lie in one long integer, so one addition adds them all."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, repeat
from math import isqrt
from pathlib import Path
from typing import Any, Final, cast

from routed_agents.errors import ConfigurationError
from routed_agents.told import Telling
from routed_agents.words import words_of
from routed_agents.zones import BULK_ZONES, INSTRUCTION_ZONES, LED_ZONES, Zones

LANES: Final = 16
"""Numbers in a packed weight: 14 classes, one for hardness, and a count of the features added."""
OFFSET: Final = 128
"""Added to each weight so that none is negative; the count tells how often to take it off again."""
STEPS: Final = 8
"""Zones are weighed in eighths."""
FULL: Final = 20
"""Words of an instruction zone that weigh fully. Those of a longer one weigh less each, all together as the root of their number: they say
the same again more often than they add to it."""
SHARE: Final = 32
"""Words of a bulk zone that weigh as much as one instruction word together; a longer zone weighs no more."""
SCALE: Final = 32
"""Units in a logit."""
STEM: Final = 5
"""Letters of an unknown word that may still be known."""
SLIPPED: Final = 5
"""Letters of a word from which a slip of the finger in it is put right; a lost letter leaves one fewer."""
TELLING: Final = 16
"""Weight, in 1/32, from which a word is worth recognising under a slip."""
REMEMBERED: Final = 20_000
"""Words whose meaning or weight is kept."""
SHARED: Final = "instruction"
"""The table that all instruction zones share."""
SEGMENTS: Final = "segments"
"""The table of single weights that tell an instruction from material."""
NEAR: Final = "near"
"""Prefix of the tables that weigh neighbourhoods of words, one for each instruction zone and one for all of them."""
PAIRS: Final = f"{NEAR} pairs"
"""The table that weighs two neighbourhoods whose words stand side by side."""
LEADS: Final = "leads"
"""Prefix of the tables that weigh words which open a segment, one for each zone and one for all of them. In these tables a name that begins
with `NEIGHBOURHOOD` is that of a neighbourhood."""
NEIGHBOURHOOD: Final = "~"
LOUDEST: Final = 64
"""Parts of an instruction's weight in which it is told how loud an earlier message is heard."""
ECHOED: Final = 512
"""Earlier messages whose weights are kept: a conversation's messages come again with every step of it."""
MAGIC: Final = b"RAWT4\n"

BYTES: Final = 3
"""Of a lane in memory. A step's instruction zones hold some 240 words and their pairs, and fill an eighth of it at most."""
_LANES: Final = struct.Struct(f"<{LANES}I")
_WIDTH: Final = LANES * BYTES
Table = Mapping[str, int]
Buffer = bytes | memoryview


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Weights by zone and word.

    Attributes:
        classes: keys of the taxonomy, in the order of the lanes.
        tables: packed weights by zone and feature: words, pairs of words, and for `stems` beginnings of words.
        neighbours: the neighbourhood of a word, under whose name in the `near` tables it weighs besides.
        signs: packed weights of what a step's shape says; `bias` is among them.
        loudness: by the name of an echo, how loud it is heard, in parts of `LOUDEST`.
        powers: e to the minus n/32 in parts of 2**30, after calibration; so nobody's floating-point library has a say.
        digest: names the weights.
        facts: what the training wrote about itself.
    """

    classes: tuple[str, ...]
    tables: Mapping[str, Table]
    neighbours: Mapping[str, int]
    signs: Table
    loudness: Mapping[str, int]
    powers: tuple[int, ...]
    digest: str
    facts: Mapping[str, Any]

    @cached_property
    def segments(self) -> Telling:
        """How much words and forms speak for a segment being an instruction."""
        return Telling(self.tables[SEGMENTS], self.neighbours)

    def parts(self, zones: Zones) -> tuple[list[int], int]:
        """What the words say: each class's part of the whole, not yet divided, and the logit of hardness in 1/32."""
        said = self.instructed(zones.instruction, zones.leads) + self.weighed(zones.bulk) + self.echoed(zones.echoes)
        return self.parts_of(said + self.signed(zones.signs))

    def parts_of(self, added: int) -> tuple[list[int], int]:
        """The same, of weights that were added up before."""
        lanes = _lanes(added)
        count, base = len(self.classes), OFFSET * lanes[-1]
        top, powers, last = max(lanes[:count]), self.powers, len(self.powers) - 1
        # a part beyond the table's end is as good as nothing
        return [powers[less] if (less := (top - lane) // STEPS) < last else powers[last] for lane in lanes[:count]], (
            lanes[count] - base
        ) // STEPS

    def mistyped(self, words: tuple[str, ...]) -> dict[str, str]:
        """Words with a single slip in them (a letter lost, doubled, swapped or mistaken), and which telling word was meant."""
        unknown = {*words}.difference(self.tables[SHARED]).difference(self.neighbours)  # both at once would walk through all neighbours
        return {word: meant for word in unknown if len(word) >= SLIPPED - 1 and (meant := self._meant(word)) != word}

    def _meant(self, word: str) -> str:
        found = self._seen.get(word)
        if found is None:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            found = self._seen[word] = self._looked_up(word)
        return found

    @cached_property
    def _seen(self) -> dict[str, str]:
        """Unknown words met lately, and what they were taken for."""
        return {}

    def _looked_up(self, word: str) -> str:
        slips, known = self._slips, self.tables[SHARED]
        if word in slips:
            return slips[word]
        for place in range(1, len(word)):
            shorter = word[:place] + word[place + 1 :]
            if shorter in slips:
                return slips[shorter]
            if shorter in known and len(shorter) >= SLIPPED:
                return shorter
        return word

    @cached_property
    def _slips(self) -> dict[str, str]:
        """Telling words with one letter left out, and which word it was; the first letter is seldom the one."""
        found: dict[str, str] = {}
        for word in sorted(self.tables[SHARED]):
            if len(word) >= SLIPPED and word.isascii() and word.isalpha() and (self._tells(word) or word in self.segments.own):
                for place in range(1, len(word)):
                    found.setdefault(word[:place] + word[place + 1 :], word)
        return {short: word for short, word in found.items() if short not in self.tables[SHARED]}

    def _tells(self, word: str) -> bool:
        packed = self.tables[SHARED][word]
        return bool(packed) and any(abs(lane - OFFSET) >= TELLING for lane in _lanes(packed)[: len(self.classes)])

    def known(self, zones: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[int, int]:
        """How many of the instruction's different words have a weight, and how many there are."""
        words = {*chain.from_iterable([run for _, run in zones])}
        return len(words) - len(words.difference(self.tables[SHARED])), len(words)

    def share_of(self, logit: int) -> int:
        """A single logit as a probability, in parts of a million."""
        powers = self.powers
        part = powers[min(abs(logit), len(powers) - 1)]
        share = 1_000_000 * powers[0] // (powers[0] + part)
        return share if logit >= 0 else 1_000_000 - share

    def signed(self, signs: Iterable[str]) -> int:
        """The weights of a step's shape, and the bias, added up."""
        return STEPS * (self.signs["bias"] + sum(map(self.signs.get, signs, repeat(0))))

    def instructed(self, zones: Iterable[tuple[str, tuple[str, ...]]], leads: Iterable[tuple[str, tuple[str, ...]]]) -> int:
        """The weights of instruction zones, and of the words their segments open with, added up."""
        added = 0
        for zone, words in zones:
            weight, part = self._said(words, self._whole[zone], self.tables[zone])
            added += weight * part
        for zone, words in leads:
            added += STEPS * sum(map(self._leading[zone].__getitem__, {*words}))
        return added

    def _said(self, words: Sequence[str], whole: _Words, own: Table) -> tuple[int, int]:
        """How much each different word of a run weighs, in eighths, and the weights of all of them and of their pairs, added up.

        Args:
            words: the run.
            whole: what its words weigh where it stands.
            own: what its pairs weigh there, besides what they weigh everywhere.
        """
        shared, seen = self.tables[SHARED], {*words}
        part = sum(map(whole.__getitem__, seen))
        # a pair that any zone has stands in the shared table, so one look is enough for most
        if pairs := list(filter(shared.__contains__, {*map(" ".join, pairwise(words))})):
            part += sum(map(shared.__getitem__, pairs)) + sum(filter(None, map(own.get, pairs)))
        part += sum(filter(None, map(self._beside.get, {*pairwise(map(self.neighbours.get, words))})))
        return weight_of(len(seen)), part

    def echoed(self, echoes: Iterable[tuple[str, str]]) -> int:
        """The weights of earlier messages, added up: each weighs as an instruction would anywhere, as loud as it is heard."""
        added, heard = 0, self._heard
        for name, text in echoes:
            loudness = self.loudness.get(name)
            if not loudness:
                continue
            if (said := heard.get(text)) is None:
                if len(heard) >= ECHOED:
                    heard.clear()
                said = heard[text] = self._said(words_of(text), self._whole[SHARED], {})
            added += loud(said[0], loudness) * said[1]
        return added

    @cached_property
    def _heard(self) -> dict[str, tuple[int, int]]:
        """Earlier messages met lately, and what they say."""
        return {}

    @cached_property
    def _beside(self) -> dict[tuple[int | None, int | None], int]:
        """What two neighbourhoods weigh side by side."""
        return {(int(one), int(other)): weight for name, weight in self.tables[PAIRS].items() for one, _, other in [name.partition(" ")]}

    @cached_property
    def _leading(self) -> dict[str, _Words]:
        """What a word weighs that opens a segment, by zone."""
        shared = self.tables[f"{LEADS} {SHARED}"]
        found: dict[str, _Words] = {}
        for zone in LED_ZONES:
            own = self.tables[f"{LEADS} {zone}"]
            places = {name for name in {*own, *shared} if name.startswith(NEIGHBOURHOOD)}
            near: dict[int | None, int] = {int(name[1:]): own.get(name, 0) + shared.get(name, 0) for name in places}
            found[zone] = _Words((own, shared, {}), near, self.neighbours)
        return found

    @cached_property
    def _whole(self) -> dict[str, _Words]:
        """What a word weighs altogether, by instruction zone, and wherever else it stands."""
        shared = self.tables[f"{NEAR} {SHARED}"]
        found: dict[str, _Words] = {}
        for zone in INSTRUCTION_ZONES:
            own = self.tables[f"{NEAR} {zone}"]
            near: dict[int | None, int] = {int(name): own.get(name, 0) + shared.get(name, 0) for name in {*own, *shared}}
            found[zone] = _Words((self.tables[zone], self.tables[SHARED], self.tables["stems"]), near, self.neighbours)
        common: dict[int | None, int] = {int(name): weight for name, weight in shared.items()}
        found[SHARED] = _Words(({}, self.tables[SHARED], self.tables["stems"]), common, self.neighbours)
        return found

    def weighed(self, zones: Iterable[tuple[str, tuple[str, ...]]]) -> int:
        """The weights of bulk zones, added up, each by its share."""
        added, tables = 0, self.tables
        for zone, words in zones:
            seen = {*words}
            weight = STEPS * SHARE // (SHARE + len(seen))
            if weight:
                added += weight * sum(filter(None, map(tables[zone].get, seen)))
        return added

    def evidence(self, zones: Zones, task_class: str, most: int = 6) -> list[tuple[str, str, float]]:
        """The features that speak most for a class: zone, word and weight in logits."""
        lane = self.classes.index(task_class)
        found: list[tuple[int, str, str]] = []
        for zone, words in zones.instruction:
            share = weight_of(len({*words}))
            for name in {*words, *map(" ".join, pairwise(words))}:
                weight = self._weight(zone, name, lane) + self._weight(SHARED, name, lane)
                if (place := self.neighbours.get(name)) is not None:
                    weight += sum(self._weight(f"{NEAR} {table}", str(place), lane) for table in (zone, SHARED))
                one, _, other = name.partition(" ")
                weight += _lane(self._beside.get((self.neighbours.get(one), self.neighbours.get(other)), 0), lane)
                if weight > 0:
                    found.append((weight * share, zone, name))
        for name, text in zones.echoes:
            words = words_of(text)
            share = loud(weight_of(len({*words})), self.loudness.get(name, 0))
            for said in {*words, *map(" ".join, pairwise(words))} if share else ():
                weight = self._weight(SHARED, said, lane)
                if (place := self.neighbours.get(said)) is not None:
                    weight += self._weight(f"{NEAR} {SHARED}", str(place), lane)
                if weight > 0:
                    found.append((weight * share, name, said))
        for zone, words in zones.leads:
            own, shared = f"{LEADS} {zone}", f"{LEADS} {SHARED}"
            for word in {*words}:
                names = [word] if (place := self.neighbours.get(word)) is None else [word, f"{NEIGHBOURHOOD}{place}"]
                weight = sum([self._weight(table, name, lane) for table in (own, shared) for name in names])
                if weight > 0:
                    found.append((weight * STEPS, f"{zone} opens", word))
        for zone, words in zones.bulk:
            seen = {*words}
            share = STEPS * SHARE // (SHARE + len(seen))
            found += [(weight * share, zone, name) for name in seen if (weight := self._weight(zone, name, lane)) > 0]
        found += [(weight * STEPS, "shape", name) for name in zones.signs if (weight := _lane(self.signs.get(name, 0), lane)) > 0]
        found.sort(key=lambda row: (-row[0], row[1], row[2]))
        return [(zone, name, weight / STEPS / SCALE) for weight, zone, name in found[:most]]

    def _weight(self, zone: str, name: str, lane: int) -> int:
        return _lane(self.tables[zone].get(name, 0), lane)


class _Words(dict[str, int]):
    """What words weigh in a zone: their own weight there, what all zones share, their neighbourhood's, and that of their beginning if
    they are unknown. Added up when a word is first met, so each is looked up once.

    Args:
        tables: the zone's, the shared one, and that of beginnings.
        near: weights of neighbourhoods.
        neighbours: the neighbourhood of a word.
    """

    def __init__(self, tables: tuple[Table, Table, Table], near: Mapping[int | None, int], neighbours: Mapping[str, int]) -> None:
        super().__init__()
        self._tables = tables
        self._near = near
        self._neighbours = neighbours

    def __missing__(self, word: str) -> int:
        own, shared, stems = self._tables
        weight = shared.get(word)
        if weight is None:
            weight = stems.get(word[:STEM], 0) if len(word) > STEM else 0
        weight += own.get(word, 0) + self._near.get(self._neighbours.get(word), 0)
        if len(self) >= REMEMBERED:
            self.clear()
        self[word] = weight
        return weight


def weight_of(words: int) -> int:
    """The weight, in eighths, of each of so many different words in an instruction zone.

    >>> [weight_of(words) for words in (1, 20, 30, 80)]
    [8, 8, 7, 4]
    """
    return (isqrt(4 * STEPS * STEPS * FULL // words) + 1) // 2 if words > FULL else STEPS


def loud(weight: int, loudness: int) -> int:
    """A weight in eighths, as loud as it is heard.

    >>> loud(8, LOUDEST), loud(8, 20)
    (8, 3)
    """
    return (weight * loudness + LOUDEST // 2) // LOUDEST


def names_of(zones: Zones, clusters: Mapping[str, Sequence[str]], neighbours: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    """Every feature a step has, by its full name, with its value, as training counts them; `LinearModel.parts` sums the very same, and
    its echoes.

    Names are `zone|word`, `zone|two words`, `zone^lead`, `zone^~neighbourhood`, `zone@cluster`, `zone~neighbourhood`,
    `pairs~two neighbourhoods`, `stems|begin`, `sign|name`.
    """
    yield "sign|bias", 1.0
    for sign in zones.signs:
        yield f"sign|{sign}", 1.0
    for zone, words in zones.instruction:
        value = weight_of(len({*words})) / STEPS
        for name in _run(zone, words, clusters, neighbours):
            yield name, value
        for name in said_anywhere(words, clusters, neighbours):
            yield name, value
    for zone, words in zones.leads:
        for word in {*words}:
            names = (word,) if (place := neighbours.get(word)) is None else (word, f"{NEIGHBOURHOOD}{place}")
            for name in names:
                yield f"{zone}^{name}", 1.0
                yield f"{SHARED}^{name}", 1.0
    for zone, words in zones.bulk:
        seen = {*words}
        value = (STEPS * SHARE // (SHARE + len(seen))) / STEPS
        if not value:
            continue
        for word in seen:
            yield f"{zone}|{word}", value
            for cluster in clusters.get(word, ()):
                yield f"{zone}@{cluster}", value


def said_anywhere(words: Sequence[str], clusters: Mapping[str, Sequence[str]], neighbours: Mapping[str, int]) -> Iterator[str]:
    """The features a run of instruction's words has wherever it stands; an echo has no others."""
    yield from _run(SHARED, words, clusters, neighbours)
    for word in {*words}:
        if len(word) > STEM:
            yield f"stems|{word[:STEM]}"
    for one, other in {*pairwise(map(neighbours.get, words))}:
        if one is not None and other is not None:
            yield f"pairs~{one} {other}"


def _run(zone: str, words: Sequence[str], clusters: Mapping[str, Sequence[str]], neighbours: Mapping[str, int]) -> Iterator[str]:
    """The features a run of instruction's words has in a zone."""
    for name in {*words, *map(" ".join, {*pairwise(words)})}:
        yield f"{zone}|{name}"
    for word in {*words}:
        if (place := neighbours.get(word)) is not None:
            yield f"{zone}~{place}"
        for cluster in clusters.get(word, ()):
            yield f"{zone}@{cluster}"


def _lane(packed: int, lane: int) -> int:
    return _lanes(packed)[lane] - OFFSET if packed else 0


def _lanes(packed: int) -> tuple[int, ...]:
    narrow, wide = packed.to_bytes(_WIDTH, "little"), bytearray(4 * LANES)
    for place in range(BYTES):
        wide[place::4] = narrow[place::BYTES]
    return _LANES.unpack(wide)


# ---- the file ---------------------------------------------------------------------------------------------------------


TABLES: Final = (
    *INSTRUCTION_ZONES,
    *BULK_ZONES,
    SHARED,
    *(f"{NEAR} {zone}" for zone in (*INSTRUCTION_ZONES, SHARED)),
    PAIRS,
    *(f"{LEADS} {zone}" for zone in (*LED_ZONES, SHARED)),
    "stems",
    "sign",
    SEGMENTS,
)


def dump(
    *,
    classes: Sequence[str],
    weights: Mapping[str, Mapping[str, Sequence[int]]],
    neighbours: Mapping[str, int],
    loudness: Mapping[str, int],
    powers: Sequence[int],
    facts: Mapping[str, Any],
) -> bytes:
    """The weights as a file: a line of JSON, then each zone's words, then their weights, a byte each. It is not compressed: a wheel is,
    and whoever reads it should not wait for that.

    Args:
        classes: the order of the lanes.
        weights: by zone and name, one whole number from -127 to 127 for each class and one for hardness; for `segments` a single one.
        neighbours: the number of each word's neighbourhood, below 65,536.
        loudness: of echoes, in parts of `LOUDEST`.
        powers: the softmax table.
        facts: what the training wants to say about itself; plain JSON.
    """
    zones = sorted(weights)
    parts: list[bytes] = []
    sizes: list[tuple[str, int, int]] = []
    for zone in zones:
        names = sorted(weights[zone])
        text = "\n".join(names).encode()
        body = b"".join([bytes([weights[zone][name][0] + OFFSET]) if zone == SEGMENTS else _bytes(weights[zone][name]) for name in names])
        parts += [text, body]
        sizes.append((zone, len(names), len(text)))
    words = sorted(neighbours)
    text = "\n".join(words).encode()
    parts += [text, struct.pack(f"<{len(words)}H", *(neighbours[word] for word in words))]
    sizes_of = {"zones": sizes, "powers": len(powers), "neighbours": (len(words), len(text))}
    head = {"classes": list(classes), "facts": facts, "loudness": dict(loudness), **sizes_of}
    table = struct.pack(f"<{len(powers)}I", *powers)
    return MAGIC + json.dumps(head, sort_keys=True, ensure_ascii=False).encode() + b"\n" + table + b"".join(parts)


def _bytes(row: Sequence[int]) -> bytes:
    padded = [*row, *([0] * (LANES - 1 - len(row)))]
    return bytes([number + OFFSET for number in padded] + [1])


def load(source: bytes | Path) -> LinearModel:
    """Read what `dump` wrote.

    Raises:
        ConfigurationError: it is no such file.
    """
    data = source.read_bytes() if isinstance(source, Path) else source
    if not data.startswith(MAGIC):
        raise ConfigurationError("the classifier's weights cannot be read: wrong first bytes; reinstall the package, or run make train")
    end = data.index(b"\n", len(MAGIC))
    head = json.loads(data[len(MAGIC) : end])
    rest = memoryview(data)[end + 1 :]
    place = 4 * head["powers"]
    powers = struct.unpack(f"<{head['powers']}I", rest[:place])
    packed: dict[str, tuple[int, memoryview, memoryview]] = {}
    for zone, count, length in head["zones"]:
        end = place + length + count * (1 if zone == SEGMENTS else LANES)
        packed[zone] = count, rest[place : place + length], rest[place + length : end]
        place = end
    count, length = head["neighbours"]
    words = _lines(rest[place : place + length]) if count else []
    places = struct.unpack(f"<{count}H", rest[place + length :])
    tables = Tables(packed)
    return LinearModel(
        classes=tuple(head["classes"]),
        signs=tables["sign"],
        neighbours=dict(zip(words, places, strict=True)),
        tables=tables,
        loudness=head["loudness"],
        powers=powers,
        digest=hashlib.blake2b(data, digest_size=8).hexdigest(),
        facts=head["facts"],
    )


class Tables(dict[str, dict[str, int]]):
    """Tables of weights by zone, each unpacked when it is first asked for: many a workflow never meets half of the zones.

    Args:
        packed: of each zone the number of its words, the words, and their weights as the file has them.
    """

    def __init__(self, packed: Mapping[str, tuple[int, Buffer, Buffer]]) -> None:
        super().__init__()
        self._packed = packed

    def __missing__(self, zone: str) -> dict[str, int]:
        if zone not in TABLES:
            raise KeyError(zone)
        count, names, rows = self._packed.get(zone, (0, b"", b""))
        weights = [number - OFFSET for number in rows] if zone == SEGMENTS else _packed(rows, count)
        found = self[zone] = dict(zip(_lines(names), weights, strict=True)) if count else {}
        return found


def _lines(text: Buffer) -> list[str]:
    return str(text, "utf-8").split("\n")


def _packed(data: Buffer, count: int) -> Iterable[int]:
    wide = bytearray(BYTES * len(data))
    wide[0::BYTES] = data
    rows: Iterator[bytes] = chain.from_iterable(struct.iter_unpack(f"{_WIDTH}s", wide))
    return map(int.from_bytes, rows, cast("Any", repeat("little", count)))
