"""The taxonomy is the article's, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from routed_agents.errors import PolicyError
from routed_agents.taxonomy import Taxonomy

SHIPPED = Taxonomy.default()
ROW = {"number": 1, "key": "a", "title": "A", "disposition": "route", "savings": [1, 2], "quality_delta": "", "p_cheap": 9, "p_strong": 9}


def test_there_are_fourteen_rows_in_the_articles_order() -> None:
    assert [row.number for row in SHIPPED] == list(range(1, 15))


@pytest.mark.parametrize(
    ("disposition", "numbers"), [("route", range(1, 7)), ("partial", (7, 8)), ("escalate_often", (9, 10)), ("escalate", range(11, 15))]
)
def test_each_disposition_has_the_articles_rows(disposition: str, numbers: Any) -> None:
    assert [row.number for row in SHIPPED if row.disposition == disposition] == list(numbers)


def test_the_strong_tier_is_never_assumed_worse() -> None:
    assert all(row.p_cheap <= row.p_strong for row in SHIPPED)


@pytest.mark.parametrize("name", ["summarization", 6, "6"])
def test_a_row_is_found_by_key_or_number(name: str | int) -> None:
    assert SHIPPED.row(name).key == "summarization"


@pytest.mark.parametrize("name", ["poetry", 0, 15, "", "²", "-1"])
def test_an_unknown_row_lists_the_known_ones(name: str | int) -> None:
    with pytest.raises(PolicyError, match="known classes: classification, extraction"):
        SHIPPED.row(name)


@pytest.mark.parametrize("wrong", [{"disposition": "maybe"}, {"savings": 5}, {"colour": "red"}])
def test_a_wrong_row_is_an_error_that_names_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="'a'"):
        Taxonomy.from_toml({"class": [{**ROW, **wrong}]})


def test_a_row_that_lacks_a_key_is_an_error() -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        Taxonomy.from_toml({"class": [{"key": "a"}]})
