"""Reports add up to the ledger, and say what they leave out."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from rich.console import Console

from routed_agents.ledger import Entry, Ledger
from routed_agents.offline.report import Table, by_class, by_guard, by_kind, by_label, by_model, cost_table, kept_strong, render
from routed_agents.pricing import Cost, Usage

CHEAP, STRONG = "claude-haiku-5-5", "claude-opus-5-5"


def entry(
    step: str, tier: str = "cheap", *, attempt: int = 1, cost: int | None = 10**9, baseline: int | None = 5 * 10**9, **more: object
) -> Entry:
    values: dict[str, object] = {
        "task_class": "extraction",
        "rank": int(tier == "strong"),
        "pinned": False,
        "model": STRONG if tier == "strong" else CHEAP,
        "usage": Usage(input=100, output=10),
        "cost": None if cost is None else Cost(input=cost),
        "baseline_pico": baseline,
        "baseline_model": STRONG,
        "outcome": "accepted",
        "decided_tier": tier,
        "policy_hash": "p",
        "started_ns": 0,
        "ended_ns": 1,
        **more,
    }
    return Entry(step_id=step, attempt=attempt, tier=tier, **values)  # type: ignore[arg-type]


def ledger(*entries: Entry) -> Ledger:
    made = Ledger.memory()
    for each in entries:
        made.append(each)
    return made


MIXED = (
    entry("a", labels={"tenant": "acme"}),
    entry("b", "strong", cost=5 * 10**9, codes=("empathy", "long_context"), node="reply", labels={"tenant": "acme"}),
    entry("c", outcome="rejected", baseline=None, codes=("check:empty",)),
    entry("c", "strong", attempt=2, cost=5 * 10**9, codes=("escalated",)),
)


def records(table: Table) -> dict[str, dict[str, object]]:
    rows = table.to_json()["rows"]
    return {next(iter(row.values())): row for row in rows}


def columns(table: Table, key: str) -> list[object]:
    index = [column.key for column in table.columns].index(key)
    return [row[index] for row in table.rows]


def test_rows_add_up_to_the_total() -> None:
    table = cost_table(ledger(*MIXED))
    assert table.total is not None
    for column, total in zip(table.columns, table.total, strict=True):
        if column.key in ("attempts", "tokens", "cost_usd", "baseline_usd", "saving_usd"):
            assert sum(value for value in columns(table, column.key) if isinstance(value, int)) == total, column.key


def test_a_tier_shows_cost_baseline_and_saving() -> None:
    assert records(cost_table(ledger(*MIXED)))["cheap"] == {
        "tier": "cheap",
        "steps": 2,
        "attempts": 2,
        "tokens": 220,
        "cost_usd": "0.002000000000",
        "unpriced": 0,
        "estimated": 0,
        "output_unknown": 0,
        "baseline_usd": "0.005000000000",
        "saving_usd": "0.003000000000",
        "saving_share": 0.6,
    }


def test_tiers_stand_in_their_order() -> None:
    assert columns(cost_table(ledger(entry("a", "strong"), entry("b"), entry("c", "mid"))), "tier") == ["cheap", "mid", "strong"]


def test_the_baseline_is_named() -> None:
    assert "on claude-opus-5-5, priced as the costs are" in cost_table(ledger(*MIXED)).notes[0]


def test_every_policys_baseline_is_named() -> None:
    table = cost_table(ledger(entry("a"), entry("b", policy_hash="q", baseline_model="gpt-6")))
    assert "on claude-opus-5-5, gpt-6" in table.notes[0]


def test_unpriced_is_never_nothing() -> None:
    table = cost_table(ledger(entry("a", cost=None)))
    assert columns(table, "cost_usd") == [None]
    assert "unpriced" in printed(table)
    assert "1 call of unknown cost is in no sum" in table.notes[1]


def test_a_partly_unpriced_cost_is_a_lower_bound() -> None:
    assert "≥$0.0010" in printed(cost_table(ledger(entry("a"), entry("b", cost=None))))


GUESSED = Usage(input=90, output=20, source="estimated")
CUT_OFF = Usage(input=90, source="estimated")


def test_estimated_calls_are_counted_in_every_table_and_said() -> None:
    kept = ledger(entry("a", codes=("pin",)), entry("b", "strong", usage=GUESSED, codes=("pin",)))
    for table in (cost_table(kept), by_class(kept), by_kind(kept), by_guard(kept), kept_strong(kept)):
        assert [(row["estimated"], row["output_unknown"]) for row in table.to_json()["rows"] if row["estimated"]] == [(1, 0)], table.title
    assert cost_table(kept).notes[-1] == "1 call is estimated"
    assert "≥" not in printed(cost_table(kept))


def test_a_sum_with_a_call_that_was_cut_off_is_a_lower_bound_and_says_so() -> None:
    table = cost_table(ledger(entry("a"), entry("b", usage=CUT_OFF, baseline=None, outcome="abandoned")))
    assert table.notes[-1] == (
        "1 call is estimated, 1 by the prompt alone (cut off before an answer): costs with one are lower bounds (≥); "
        "steps with one are in no saving"
    )
    assert "≥$0.0020" in printed(table)
    assert records(table)["cheap"]["output_unknown"] == 1


@pytest.mark.parametrize(
    ("simulated", "said"),
    [((True, True), "Cost by tier (simulated)"), ((True, False), "Cost by tier (1 calls simulated)"), ((False, False), "Cost by tier")],
)
def test_simulated_is_in_the_title(simulated: Iterable[bool], said: str) -> None:
    table = cost_table(ledger(*[entry(str(number), simulated=each) for number, each in enumerate(simulated)]))
    assert table.title == said


def test_labels_group_and_the_unlabelled_are_one_group() -> None:
    assert {name: row["steps"] for name, row in records(by_label(ledger(*MIXED), "tenant")).items()} == {"acme": 2, "(none)": 1}


def test_what_judges_cost_stands_beside_what_the_steps_cost() -> None:
    table = by_kind(ledger(*MIXED, entry("a", kind="judge", cost=10**8, baseline=None)))
    assert {name: (row["steps"], row["cost_usd"]) for name, row in records(table).items()} == {
        "attempt": (3, "0.012000000000"),
        "judge": (1, "0.000100000000"),
    }
    assert table.to_json()["total"]["cost_usd"] == "0.012100000000"


def test_classes_and_models_are_spelled_out() -> None:
    made = ledger(entry("a", task_class="agentic_chain"))
    assert (columns(by_class(made), "class"), columns(by_model(made), "model")) == (["agentic chain"], [CHEAP])


def test_a_step_with_several_reasons_counts_under_each() -> None:
    rows = records(by_guard(ledger(*MIXED)))
    assert {name: row["steps"] for name, row in rows.items()} == {"empathy": 1, "long context": 1, "escalated": 1, "check: empty": 1}


def test_a_step_with_several_attempts_counts_once_for_a_reason() -> None:
    tries = [entry("a", attempt=number, outcome="failed" if number < 3 else "accepted", codes=("empathy",)) for number in (1, 2, 3)]
    row = records(by_guard(ledger(*tries)))["empathy"]
    assert (row["steps"], row["cost_usd"]) == (1, "0.003000000000")


def test_kept_strong_says_which_steps_and_why() -> None:
    rows = [(row["step"], row["reason"], row["cost_usd"]) for row in kept_strong(ledger(*MIXED)).to_json()["rows"]]
    assert rows == [("extraction", "escalated", "0.005000000000"), ("reply", "empathy", "0.005000000000")]


def test_a_middle_tier_called_strong_is_not_kept_strong() -> None:
    made = ledger(
        entry("a", tier="strong", top=False, model="claude-sonnet-5-5", baseline_model="claude-opus-5-5"),
        entry("b", tier="max", top=True, model="claude-opus-5-5@eu", baseline_model="claude-opus-5-5", node="plan"),
    )
    assert columns(kept_strong(made), "step") == ["plan"]


def test_a_filter_reaches_every_part_of_a_table() -> None:
    table = cost_table(ledger(*MIXED), labels={"tenant": "acme"})
    assert table.total is not None
    assert table.total[:3] == ("total", 2, 2)


def test_json_holds_no_floats_of_money() -> None:
    document = json.loads(json.dumps(cost_table(ledger(*MIXED)).to_json()))
    assert {type(row[key]) for row in [*document["rows"], document["total"]] for key in row if key.endswith("_usd")} == {str}


def test_an_empty_ledger_gives_empty_tables() -> None:
    made = ledger()
    assert [table(made).rows for table in (cost_table, by_class, by_model, by_guard, kept_strong)] == [()] * 5


def printed(table: Table, width: int = 80) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(render(table))
    return captured.get()


@pytest.mark.parametrize("table", [cost_table, by_class, by_model, by_guard, kept_strong])
def test_numbers_are_whole_at_80_columns(table: object) -> None:
    made = ledger(
        *MIXED,
        entry(
            "big",
            "strong",
            cost=10**9,
            baseline=2 * 10**9,
            task_class="a_class_with_quite_a_long_name_of_its_own",
            usage=Usage(input=12_345_678),
        ),
    )
    cells = [cell for line in printed(table(made)).splitlines() for cell in line.split()]  # type: ignore[operator]
    assert not [cell for cell in cells if "…" in cell and cell[:1] in "$≥-0123456789"]
    assert all(len(line) <= 80 for line in printed(table(made)).splitlines())  # type: ignore[operator]


def test_amounts_of_a_hundred_dollars_are_shown_in_cents() -> None:
    assert "$250.00" in printed(cost_table(ledger(entry("a", cost=250 * 10**12))))
