"""Adds a ledger up into tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Unpack

from routed_agents.decisions import words
from routed_agents.ledger import Entry, Ledger, Totals, Where
from routed_agents.pricing import usd_of
from routed_agents.printable import one_line
from routed_agents.telemetry.trees import TIER_STYLES, dollars

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from routed_agents.offline.calls import Calls

Form = Literal["text", "count", "usd", "share"]
Value = str | int | float | None
Key = TypeVar("Key")
UNPRICED: Final = "unpriced"
DOLLAR: Final = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in JSON.
        form: what its values are: text, a count, pico-dollars, or a share from 0 to 1.
    """

    key: str
    name: str
    form: Form = "count"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as plain values; `render` makes it something to print.

    Attributes:
        rows: values in the order of the columns; None where nothing is known, such as the cost of unpriced calls.
        total: the last row, which is not one more thing among the others.
        notes: what a reader has to know to read the numbers right.
        simulated: calls among them were answered by the embedded provider.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    total: tuple[Value, ...] | None = None
    notes: tuple[str, ...] = ()
    simulated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; money is a string of dollars, exactly, and None is unpriced."""
        return {
            "title": self.title,
            "simulated": self.simulated,
            "notes": list(self.notes),
            "rows": [self._record(row) for row in self.rows],
            "total": None if self.total is None else self._record(self.total),
        }

    def to_texts(self) -> dict[str, Any]:
        """What a page shows of it: heads, rows and total as the texts that `render` prints too."""
        shown = _visible(self.columns)
        rows = (*self.rows, *([self.total] if self.total is not None else []))
        return {
            "title": self.title,
            "heads": [self.columns[index].name for index in shown],
            "rows": [[_shown(self, index, row) for index in shown] for row in rows],
            "notes": list(self.notes),
        }

    def _record(self, row: Sequence[Value]) -> dict[str, Any]:
        pairs = zip(self.columns, row, strict=True)
        return {column.key: f"{usd_of(value):f}" if column.form == "usd" and isinstance(value, int) else value for column, value in pairs}


def cost_table(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """What each tier cost, and what its steps would have cost on the baseline model."""
    return _summed(ledger, "tier", "tier", "Cost by tier", where)


def by_class(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """What each task class cost."""
    return _summed(ledger, "task_class", "class", "Cost by task class", where, spell=words)


def by_model(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """What each model cost; the one that was asked, which a gateway may have swapped."""
    return _summed(ledger, "model", "model", "Cost by model", where)


def by_decided(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """What the steps cost by the tier the policy chose for them, whichever tier acted: in shadow mode, what could have gone cheap."""
    return _summed(ledger, "decided_tier", "decided", "Cost by decided tier", where)


def by_kind(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """What the attempts at the steps cost, and what the calls that judged or checked them did."""
    groups, total = ledger.totals("kind", **where), ledger.total(**where)
    rows = {name: (name, sums.steps, sums.tokens, _cost(sums), *_doubts(sums)) for name, sums in {**groups, "total": total}.items()}
    title, simulated = titled("Cost by kind of call", total)
    columns = (Column(key="kind", name="kind", form="text"), STEPS, Column(key="tokens", name="tokens"), COST, *DOUBTS)
    whole = rows.pop("total")
    return Table(title=title, columns=columns, total=whole, rows=tuple(rows.values()), notes=estimates(total), simulated=simulated)


def by_label(ledger: Ledger, key: str, **where: Unpack[Where]) -> Table:
    """What each value of a label cost, such as each tenant."""
    return _summed(ledger, f"label:{key}", key, f"Cost by {key}", where)


def by_guard(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """How many steps each reason moved, and what those steps cost."""
    tallies: dict[str, _Tally] = {}
    counted: dict[str, set[str]] = {}
    for entry in ledger.entries(**where):
        if entry.kind != "attempt":  # what a judge said is no reason of the policy's
            continue
        before = counted.get(entry.step_id, set())
        for code in dict.fromkeys(entry.codes):
            tally = tallies.setdefault(code, _Tally())
            tally.steps += code not in before
            tally.add(entry)
        # Only after a failed or rejected attempt another of the same step may come, and must not count it again.
        if entry.outcome in ("failed", "rejected"):
            counted[entry.step_id] = before | set(entry.codes)
        else:
            counted.pop(entry.step_id, None)
    rows = [(words(code).replace(":", ": "), tally.steps, tally.cost, *_doubts(tally)) for code, tally in _costliest(tallies)]
    title, simulated = titled("Steps by reason", ledger.total(**where))
    columns = (Column(key="reason", name="reason", form="text"), STEPS, COST, *DOUBTS)
    notes = ("a step with several reasons counts under each, so the rows do not add up",)
    return Table(title=title, columns=columns, rows=tuple(rows), notes=notes if rows else (), simulated=simulated)


def kept_strong(ledger: Ledger, **where: Unpack[Where]) -> Table:
    """Which steps were answered by the top tier, and why."""
    tallies: dict[tuple[str, str], _Tally] = {}
    for entry in ledger.entries(**where):
        if entry.kind != "attempt" or entry.outcome not in ("accepted", "watched") or not entry.kept_strong:
            continue
        why = words(entry.codes[0]).replace(":", ": ") if entry.codes else "pinned before" if entry.pinned else "proposed"
        tally = tallies.setdefault((entry.node or words(entry.task_class), why), _Tally())
        tally.steps += 1
        tally.add(entry)
    rows = [(name, why, tally.steps, tally.cost, *_doubts(tally)) for (name, why), tally in _costliest(tallies)]
    title, simulated = titled("Kept strong", ledger.total(**where))
    columns = (Column(key="step", name="step", form="text"), Column(key="reason", name="reason", form="text"), STEPS, COST, *DOUBTS)
    return Table(title=title, columns=columns, rows=tuple(rows), simulated=simulated)


def step_table(calls: Calls, limit: int) -> Table:
    """The steps that cost most, dearest first."""
    columns = (
        *[Column(key=key, name=key, form="text") for key in ("step", "class", "tier", "thread", "reason")],
        Column(key="tokens", name="tokens"),
        COST,
        *DOUBTS,
        Column(key="saving_usd", name="saving", form="usd"),
        Column(key="id", name="id", form="text"),
    )
    rows: list[tuple[Value, ...]] = []
    for step in calls.dearest_steps(limit):
        named = (step["node"], words(step["class"]), step["tier"], step["chain"], words(step["reason"]).replace(":", ": "))
        saving = step["baseline"] - step["cost"] if step["comparable"] else None
        doubts = [step[column.key] for column in DOUBTS]
        rows.append((*named, step["input"] + step["output"], step["cost"], *doubts, saving, step["step"][:SHORT_ID]))
    return _dearest(calls, "Dearest steps", columns, rows)


def chain_table(calls: Calls, limit: int) -> Table:
    """The threads that cost most, dearest first; calls without a thread count by their run."""
    columns = (
        Column(key="thread", name="thread", form="text"),
        STEPS,
        Column(key="again", name="tried again"),
        COST,
        *DOUBTS,
        Column(key="baseline_usd", name="all-strong", form="usd"),
        Column(key="saving_usd", name="saving", form="usd"),
    )
    rows = [
        (row["chain"], row["steps"], row["again"], row["cost"], *[row[column.key] for column in DOUBTS], row["baseline"], row["saving"])
        for row in calls.dearest_chains(limit)
    ]
    return _dearest(calls, "Dearest threads", columns, rows)


def _dearest(calls: Calls, title: str, columns: tuple[Column, ...], rows: Sequence[tuple[Value, ...]]) -> Table:
    totals = calls.totals()
    simulated = totals["simulated"]
    some = "simulated" if simulated >= totals["entries"] else f"{simulated:,} calls simulated"
    return Table(title=f"{title} ({some})" if simulated else title, columns=columns, rows=tuple(rows), simulated=bool(simulated))


SHORT_ID: Final = 8
"""Characters of a step's id that tell it apart; `why` takes as many."""
LEAST: Final = 6
"""Columns that are left of a name, however little room there is."""
GAP: Final = 2


def render(table: Table, width: int | None = None) -> RichTable:
    """The table for rich to print.

    Args:
        width: columns there are; names are cut to fit, numbers never, so it may come out wider. Print it with `crop=False` then.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        caption="\n".join(table.notes) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=table.total is not None,
        pad_edge=False,
        collapse_padding=True,
        min_width=min(len(table.title), 60),
    )
    shown = _visible(table.columns)
    widths = _widths(table, shown)
    if width is not None and sum(widths) + GAP * len(shown) > width:
        widths = _squeezed(widths, [table.columns[index].form == "text" for index in shown], width - GAP * len(shown))
        drawn.width = sum(widths) + GAP * len(shown)
    for index, needed in zip(shown, widths, strict=True):
        column = table.columns[index]
        footer = Text(_shown(table, index, table.total), style="bold") if table.total is not None else ""
        # numbers keep their width, names give
        if column.form == "text":
            drawn.add_column(column.name, footer=footer, no_wrap=True, overflow="ellipsis", max_width=needed)
        else:
            drawn.add_column(column.name, footer=footer, no_wrap=True, justify="right", min_width=needed)
    for row in table.rows:
        drawn.add_row(*[Text(_shown(table, index, row), style=_style(table.columns[index], row[index])) for index in shown])
    return drawn


def _visible(columns: Sequence[Column]) -> list[int]:
    """Where the columns are that are printed: the sign of a cost says what is in doubt, and notes and JSON how many calls are."""
    return [index for index, column in enumerate(columns) if column not in DOUBTS]


def _widths(table: Table, shown: Sequence[int]) -> list[int]:
    """What each column needs."""
    from rich.cells import cell_len

    rows = (*table.rows, *([table.total] if table.total else []))
    return [max(map(cell_len, [table.columns[index].name, *[_shown(table, index, row) for row in rows]])) for index in shown]


def _squeezed(widths: Sequence[int], gives: Sequence[bool], room: int) -> list[int]:
    """Widths that fit into the room: the widest of those that give are cut to one width, though not below the least."""
    most = max([width for width, can in zip(widths, gives, strict=True) if can], default=LEAST)
    while True:
        cut = [min(width, most) if can else width for width, can in zip(widths, gives, strict=True)]
        if sum(cut) <= room or most <= LEAST:
            return cut
        most -= 1


# ---- adding up --------------------------------------------------------------------------------------------------------

STEPS: Final = Column(key="steps", name="steps")
COST: Final = Column(key="cost_usd", name="cost", form="usd")
UNPRICED_CALLS: Final = Column(key="unpriced", name="unpriced")
ESTIMATED_CALLS: Final = Column(key="estimated", name="estimated")
OUTPUT_UNKNOWN_CALLS: Final = Column(key="output_unknown", name="output unknown")
DOUBTS: Final = (UNPRICED_CALLS, ESTIMATED_CALLS, OUTPUT_UNKNOWN_CALLS)
"""How far a cost can be relied on: the first and last make it a lower bound."""
SUMS: Final = (
    STEPS,
    Column(key="attempts", name="calls"),
    Column(key="tokens", name="tokens"),
    COST,
    *DOUBTS,
    Column(key="baseline_usd", name="all-strong", form="usd"),
    Column(key="saving_usd", name="saving", form="usd"),
    Column(key="saving_share", name="saved", form="share"),
)


@dataclass(slots=True)
class _Tally:
    steps: int = 0
    cost_pico: int = 0
    priced: int = 0
    unpriced: int = 0
    estimated: int = 0
    output_unknown: int = 0

    def add(self, entry: Entry) -> None:
        self.estimated += entry.estimated
        self.output_unknown += entry.output_unknown
        if entry.cost is None:
            self.unpriced += 1
        else:
            self.priced += 1
            self.cost_pico += entry.cost.total_pico

    @property
    def cost(self) -> int | None:
        return self.cost_pico if self.priced else None


def _costliest(tallies: Mapping[Key, _Tally]) -> Iterable[tuple[Key, _Tally]]:
    return sorted(tallies.items(), key=lambda item: (-item[1].cost_pico, -item[1].steps, str(item[0])))


def _summed(ledger: Ledger, by: str, name: str, title: str, where: Where, *, spell: Callable[[str], str] = str) -> Table:
    groups, total = ledger.totals(by, **where), ledger.total(**where)
    order = [*TIER_STYLES].index if by == "tier" else None
    ranked = sorted(
        groups.items(), key=lambda item: (order(item[0]) if order and item[0] in TIER_STYLES else 0, -item[1].cost_pico, item[0])
    )
    heading, simulated = titled(title, total)
    notes: list[str] = []
    if total.baseline_pico:
        models = ", ".join(_baselines(ledger, where))
        notes.append(f"all-strong: the same steps on {models}, priced as the costs are, with the same cache use")
    if total.below_floor:
        notes.append(f"{_calls(total.below_floor)} answered below the floor of their step: an alarm, and no saving")
    if total.unpriced:
        calls = f"{_calls(total.unpriced)} of unknown cost {'is' if total.unpriced == 1 else 'are'} in no sum"
        notes.append(f"{calls}; steps with one are in no saving, so shares are lower bounds")
    notes += [f"{note}; steps with one are in no saving" if total.output_unknown else note for note in estimates(total)]
    return Table(
        title=heading,
        columns=(Column(key=name, name=name, form="text"), *SUMS),
        rows=tuple([_row(spell(group), sums) for group, sums in ranked]),
        total=_row("total", total),
        notes=tuple(notes),
        simulated=simulated,
    )


def estimates(total: Totals) -> tuple[str, ...]:
    """What a reader has to know of the estimated calls in a sum."""
    if not total.estimated:
        return ()
    note = f"{_calls(total.estimated)} {'is' if total.estimated == 1 else 'are'} estimated"
    if total.output_unknown:
        note += f", {total.output_unknown:,} by the prompt alone (cut off before an answer): costs with one are lower bounds (≥)"
    return (note,)


def _doubts(sums: Totals | _Tally) -> tuple[int, int, int]:
    return sums.unpriced, sums.estimated, sums.output_unknown


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _row(name: str, sums: Totals) -> tuple[Value, ...]:
    baseline = sums.baseline_pico or None
    saving = None if baseline is None and not sums.saving_pico else sums.saving_pico
    return (
        name,
        sums.steps,
        sums.attempts,
        sums.tokens,
        _cost(sums),
        *_doubts(sums),
        baseline,
        saving,
        None if baseline is None or saving is None else round(saving / baseline, 4),
    )


def _cost(sums: Totals) -> int | None:
    return None if sums.unpriced and not sums.cost_pico else sums.cost_pico


def _baselines(ledger: Ledger, where: Where) -> list[str]:
    """The models of the baseline: a policy has one, so the first entry of each policy tells."""
    found: dict[str, None] = {}
    for policy in ledger.totals("policy_hash", **where):
        of_policy: Where = {**where, "policy_hash": policy}
        first = next((entry.baseline_model for entry in ledger.entries(**of_policy) if entry.baseline_model), None)
        if first is not None:
            found[first] = None
    return sorted(found)


def titled(title: str, total: Totals) -> tuple[str, bool]:
    """A table's title with what is simulated among its calls, and whether any is."""
    if not total.simulated:
        return title, False
    return f"{title} ({'simulated' if total.simulated >= total.attempts else f'{total.simulated:,} calls simulated'})", True


# ---- showing ----------------------------------------------------------------------------------------------------------


def _shown(table: Table, index: int, row: Sequence[Value]) -> str:
    column, value = table.columns[index], row[index]
    if value is None:
        return UNPRICED if column.key == "cost_usd" else "–"
    match column.form:
        case "usd" if column.key == "saving_usd" and not value:
            return "–"
        case "usd":
            partly = column.key == "cost_usd" and any(
                cell for other, cell in zip(table.columns, row, strict=True) if other in (UNPRICED_CALLS, OUTPUT_UNKNOWN_CALLS)
            )
            return ("≥" if partly else "") + dollars(int(value), places=_places(table, index))
        case "share":
            return f"{float(value):.0%}"
        case "count":
            return f"{value:,}"
        case _:
            return one_line(str(value))


def _places(table: Table, index: int) -> int:
    """Cents where the column is about dollars, more where it's about less."""
    amounts = [abs(row[index]) for row in table.rows if isinstance(row[index], int)]  # pyright: ignore[reportArgumentType]
    return 2 if max(amounts, default=0) >= 100 * DOLLAR else 4


def _style(column: Column, value: Value) -> str:
    if value is None:
        return "yellow" if column.key == "cost_usd" else "dim"
    if column.key == "tier":
        return TIER_STYLES.get(str(value), "")
    if column.key in ("saving_usd", "saving_share"):
        return "red" if float(value) < 0 else "green" if value else "dim"
    return ""
