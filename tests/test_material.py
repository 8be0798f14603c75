"""What a mark parts from its author's words, and what it leaves to them."""

from __future__ import annotations

from time import perf_counter

import pytest

from routed_agents import Policy, Step
from routed_agents.material import hard_split, unlabelled

ASK = "Find the race and mend both files."


@pytest.mark.parametrize(
    "text",
    [
        f"We keep a List<Order> in pool.py. {ASK}",
        f"The page has a <div> that flickers. {ASK}",
        f"Order <BP-2231>: it is late. {ASK}",
        f"<user_query>{ASK}</user_query>\nReturn JSON.",
        f"Two parts.\n---\nfirst\n---\nsecond\n---\n{ASK}",
    ],
)
def test_words_behind_a_mark_that_marks_nothing_are_the_authors(text: str) -> None:
    assert ASK in hard_split(text)[0]


@pytest.mark.parametrize(
    "material",
    [
        "<document>\nzebra",
        "<customer_mail>\nzebra\n</customer_mail>",
        "---\nzebra",
        "---\nzebra\n---",
        "<one>lion</one> <two>zebra</two>",
        "```\nzebra",
    ],
)
def test_marked_material_is_parted_also_where_its_end_is_cut_off(material: str) -> None:
    own, quoted = hard_split(f"Label this:\n{material}")
    assert ("zebra" in own, "zebra" in quoted) == (False, True)


QUOTE = "my screen broke on monday and i would like a new one"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        (f'Label "{QUOTE}" now', "Label now"),
        (f'Label "My screen is 15" wide, and {QUOTE}." now', "Label now"),
        (f'Label "One is 15" wide, one 27" wide, {QUOTE}" now', "Label now"),
        ('Is it "spam" or "no spam at all"?', 'Is it "spam" or "no spam at all"?'),
        (f'Rename "v2" and then {QUOTE} as "v3".', f'Rename "v2" and then {QUOTE} as "v3".'),
        (f'My 15" screen flickers, {QUOTE}, 27" wide.', f'My 15" screen flickers, {QUOTE}, 27" wide.'),
    ],
)
def test_a_quotation_of_nine_words_is_material_and_a_title_is_not(text: str, own: str) -> None:
    assert hard_split(text)[0].split() == own.split()


@pytest.mark.parametrize("piece", ["<br> ", "<a1>", "\u300c", '"a ', "<b ", "```x", '1" a ', "\n> x", "-" * 9, " "])
def test_marks_are_found_in_time_that_grows_with_the_text(piece: str) -> None:
    text = f'Fix "it". {piece * 50_000}'
    start = perf_counter()

    hard_split(text)

    assert perf_counter() - start < 5  # a second look from every mark would take a minute


def test_two_pairs_of_rules_are_two_materials() -> None:
    own, quoted = hard_split("Compare:\n---\nlion\n---\nwith\n---\nzebra\n---\nOne word.")
    assert own.split() == ["Compare:", "with", "One", "word."]
    assert "lion" in quoted
    assert "zebra" in quoted


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Context: parcels wait a week.\nAnd more.\n\nQuestion: where is it?", ["Question:", "where", "is", "it?"]),
        ("Name: Ann\nEmail: ann@x.example\nWhere is it?", ["Name:", "Ann", "Where", "is", "it?"]),
        ("Label this.\nText: lions\n\nand zebras", ["Label", "this."]),
    ],
)
def test_a_label_ends_where_a_persons_words_begin(text: str, spoken: list[str]) -> None:
    assert unlabelled(text)[0].split() == spoken


@pytest.mark.parametrize(("message", "tier"), [("ამანათი სად არის?", "strong"), ("Where can I collect it?", "cheap")])
def test_a_system_prompt_says_nothing_about_a_message_in_a_language_nobody_knows(message: str, tier: str) -> None:
    system = "Answer the question with the retrieved context only, in one sentence.\n\nContext: Parcels wait at the depot for a week."
    assert Policy.default().decide(Step.from_messages(message, system=system)).tier == tier
