"""The linear model adds what training counted, in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import pytest

from routed_agents.classify import shipped
from routed_agents.errors import ConfigurationError
from routed_agents.features import extract
from routed_agents.linear import SCALE, SHARED, STEPS, LinearModel, dump, load, loud, names_of, said_anywhere, weight_of
from routed_agents.steps import Step
from routed_agents.words import words_of
from routed_agents.zones import INSTRUCTION_ZONES, Zones, zones_of

CLASSES = [f"class{number}" for number in range(14)]
POWERS = [int(math.exp(-number / SCALE) * 2**30) for number in range(20 * SCALE)]


def row(**given: int) -> list[int]:
    return [given.get(name, 0) for name in (*CLASSES, "hard")]


WEIGHTS = {
    "sign": {"bias": row(class1=10), "asks": row(class2=5)},
    "instruction": {"label": row(class0=100), "label this": row(class0=-20), "the": row()},
    "opening": {"label": row(class0=27), "this": row(class3=-127)},
    "stems": {"summa": row(class5=64, hard=9)},
    "body": {"river": row(class4=80)},
    "near instruction": {"7": row(class6=50)},
    "near opening": {"7": row(class6=6, hard=3)},
    "near pairs": {"8 9": row(class7=33)},
    "leads instruction": {"label": row(class8=12)},
    "leads opening": {"label": row(class8=5, hard=2), "~7": row(class9=4)},
}
NEIGHBOURS = {"etiketteer": 7, "label": 8, "this": 9}
LOUD = {"last asked": 32}
MODEL = load(dump(classes=CLASSES, weights=WEIGHTS, neighbours=NEIGHBOURS, loudness=LOUD, powers=POWERS, facts={"note": 1}))


def zones(words: str, *, leads: str = "", bulk: str = "", echoes: tuple[tuple[str, str], ...] = (), signs: tuple[str, ...] = ()) -> Zones:
    return Zones(
        instruction=(("opening", tuple(words.split())),),
        leads=(("opening", tuple(leads.split())),),
        bulk=(("body", tuple(bulk.split())),) if bulk else (),
        echoes=echoes,
        signs=signs,
    )


def logits(found: Zones) -> list[int]:
    """Differences to the bias class, read back from the parts."""
    parts, _ = MODEL.parts(found)
    return [round(math.log(part / 2**30) * SCALE) for part in parts]


def test_weights_of_zone_shared_table_and_pairs_add_up() -> None:
    parts = logits(zones("label this"))

    assert parts[0] - parts[1] == 100 + 27 - 20 - 10


def test_an_unknown_word_speaks_through_its_beginning() -> None:
    parts, hardness = MODEL.parts(zones("summarizing the"))

    assert (parts.index(max(parts)), hardness) == (5, 9)


def test_an_unknown_word_speaks_through_its_neighbourhood() -> None:
    """By zone, and for all zones together; a word without one says nothing."""
    parts, hardness = MODEL.parts(zones("etiketteer the"))
    found = logits(zones("etiketteer the"))

    assert (parts.index(max(parts)), hardness, found[6] - found[1]) == (6, 3, 56 - 10)
    assert MODEL.parts(zones("the gnarf")) == MODEL.parts(zones("the"))


def test_neighbourhoods_side_by_side_weigh_together() -> None:
    """Whatever words stand for them, in this order and with nothing between."""
    near, apart, turned = (logits(zones(words)) for words in ("label this", "label the this", "this label"))

    assert (near[7] - near[1]) - (apart[7] - apart[1]) == 33
    assert turned == apart


def test_a_word_that_opens_a_segment_weighs_besides() -> None:
    """By zone, and for all zones together."""
    opened, plain = zones("label the", leads="label gnarf"), zones("label the")
    found, other = logits(opened), logits(plain)

    assert (found[8] - found[1]) - (other[8] - other[1]) == 17
    assert MODEL.parts(opened)[1] - MODEL.parts(plain)[1] == 2


def test_an_unknown_word_that_opens_a_segment_speaks_through_its_neighbourhood() -> None:
    found = logits(zones("the", leads="etiketteer"))

    assert found[9] - found[1] == 4 - 10


def test_an_earlier_message_weighs_as_an_instruction_does_anywhere_as_loud_as_it_is_heard() -> None:
    """Words, pairs, neighbourhoods and beginnings; nothing that only a zone gives, and nothing of messages that are not heard."""
    parts = logits(zones("the", echoes=(("last asked", "Label this!"), ("last answered", "summarizing"))))
    alone = MODEL.parts(zones("the"))

    assert [parts[place] - parts[1] + 10 for place in (0, 3, 7)] == pytest.approx([(100 - 20) / 2, 0, 33 / 2], abs=1)
    assert MODEL.parts(zones("the", echoes=(("last answered", "label"), ("unheard of", "label")))) == alone
    assert MODEL.parts(zones("the", echoes=(("last asked", "summarizing"),)))[1] == 9 // 2


def test_a_word_with_a_neighbourhood_was_not_mistyped() -> None:
    known = {"weights": {**WEIGHTS, "instruction": {**WEIGHTS["instruction"], "etiketten": row(class0=100)}}, "classes": CLASSES}
    told = load(dump(**known, neighbours={"etikeetten": 1}, loudness={}, powers=POWERS, facts={}))
    untold = load(dump(**known, neighbours={}, loudness={}, powers=POWERS, facts={}))

    assert untold.mistyped(("etikeetten",)) == {"etikeetten": "etiketten"}
    assert told.mistyped(("etikeetten",)) == {}


def test_a_word_counts_once_however_often_it_stands_there() -> None:
    assert MODEL.parts(zones("label the label"))[0] == MODEL.parts(zones("label the"))[0]


def test_a_bulk_zone_weighs_by_its_share() -> None:
    alone, among = logits(zones("the", bulk="river")), logits(zones("the", bulk="river " + " ".join(f"w{n}" for n in range(31))))

    assert (alone[4] - alone[1] + 10, among[4] - among[1] + 10) == (70, 40)  # 7/8 and 4/8 of 80


def test_signs_add_up() -> None:
    found = logits(zones("the", signs=("asks", "unheard_of")))

    assert found[2] - found[1] == 5 - 10


def test_training_counts_what_the_model_sums() -> None:
    """Every feature training counts for a real step, weighed by hand, gives the model's own sum."""
    model, step = (
        shipped(),
        Step.from_messages(["hm", ("ai", "yes"), "Classify the mood of: I waited for hours"], system="You label.", tools=["a_b"]),
    )
    found = zones_of(extract(step), model.segments)
    said = {*chain.from_iterable([run for _, run in found.instruction]), *chain.from_iterable([words_of(text) for _, text in found.echoes])}
    by_hand = [0.0] * 15
    for name, value in (*names_of(found, {}, model.neighbours), *_echoes_of(found, model)):
        zone, bar, rest = name.partition("|")
        if not bar and "^" in name:
            zone, _, rest = name.partition("^")
            zone = f"leads {zone}"
        elif not bar:
            zone, _, rest = name.partition("~")
            zone = f"near {zone}"
        table = model.signs if zone == "sign" else model.tables[zone]
        if zone == "stems" and any(word[:5] == rest and word in model.tables["instruction"] for word in said):
            continue  # known words carry their beginning's weight already
        if packed := table.get(rest):
            by_hand = [total + value * (((packed >> (24 * lane)) & 0xFFFFFF) - 128) for lane, total in enumerate(by_hand)]
    parts, hardness = model.parts(found)
    best = max(range(14), key=by_hand.__getitem__)

    assert parts.index(max(parts)) == best
    assert hardness == pytest.approx(by_hand[14], abs=1.5)


def _echoes_of(found: Zones, model: LinearModel) -> Iterator[tuple[str, float]]:
    for echo, text in found.echoes:
        words = words_of(text)
        for name in said_anywhere(words, {}, model.neighbours):
            yield name, loud(weight_of(len({*words})), model.loudness.get(echo, 0)) / STEPS


def test_evidence_names_zone_and_word() -> None:
    assert MODEL.evidence(zones("label this"), "class0")[0] == ("opening", "label", pytest.approx(127 / SCALE))
    assert MODEL.evidence(zones("the label this"), "class7")[0] == ("opening", "label this", pytest.approx(33 / SCALE))
    assert MODEL.evidence(zones("the", leads="label"), "class8")[0] == ("opening opens", "label", pytest.approx(17 / SCALE))
    assert MODEL.evidence(zones("the", leads="etiketteer"), "class9")[0] == ("opening opens", "etiketteer", pytest.approx(4 / SCALE))
    echo = MODEL.evidence(zones("the", echoes=(("last asked", "label"),)), "class0")[0]
    assert echo == ("last asked", "label", pytest.approx(50 / SCALE))
    assert MODEL.evidence(zones("etiketteer this"), "class6")[0] == ("opening", "etiketteer", pytest.approx(56 / SCALE))


def test_the_digest_changes_with_a_weight() -> None:
    weights = {**WEIGHTS, "body": {"river": row(class4=81)}}
    other = load(dump(classes=CLASSES, weights=weights, neighbours=NEIGHBOURS, loudness=LOUD, powers=POWERS, facts={"note": 1}))

    assert other.digest != MODEL.digest


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="make train"):
        load(b"not weights")


def test_the_shared_table_has_every_pair_of_a_zone() -> None:
    """It is asked first, and what it lacks is looked for nowhere else."""
    tables = shipped().tables

    for zone in INSTRUCTION_ZONES:
        assert {name for name in tables[zone] if " " in name} <= {*tables[SHARED]}
