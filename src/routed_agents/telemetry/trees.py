"""Draws the cost tree of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from routed_agents.decisions import words
from routed_agents.pricing import rounded
from routed_agents.telemetry import names
from routed_agents.telemetry.runs import Branch, Run, SpanRecord

Kind = Literal["step", "watched", "attempt", "judge", "group"]

TIER_STYLES: Final = {"cheap": "green", "mid": "yellow", "strong": "magenta", "stop": "bold red", "unrouted": "yellow"}
CENT: Final = 10**10
"""In pico-dollars."""


def dollars(pico: int, *, places: int = 4) -> str:
    """An amount for people: `$0.0012`, and `<$0.0001` for what would read as nothing."""
    sign, amount = "-" if pico < 0 else "", rounded(pico, places)
    if pico and not amount:
        return f"{sign}<$0.{'1':0>{places}}"
    return f"{sign}${amount:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a cost tree.

    Attributes:
        kind: a routed step, a call that was only watched, one of several attempts at a step, a judge asked about one, or a graph or node
            that holds steps.
        cost_pico: what the priced calls cost; None when none is priced.
        unpriced: calls without a known price.
        baseline_pico: what the step would have cost on the top tier.
        mark: what became of an attempt; empty where nothing needs saying.
        why: what held the step where it went, in words.
        step: the id of the step.
    """

    kind: Kind
    name: str
    task_class: str = ""
    tier: str = ""
    model: str = ""
    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cost_pico: int | None = None
    unpriced: int = 0
    baseline_pico: int | None = None
    mark: str = ""
    why: str = ""
    step: str = ""
    below: tuple[Row, ...] = ()

    @property
    def saving_pico(self) -> int | None:
        """Baseline less cost, where both are fully known."""
        if self.unpriced or self.cost_pico is None or self.baseline_pico is None:
            return None
        return self.baseline_pico - self.cost_pico


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTree:
    """A run's steps and what they cost; print it with rich.

    Attributes:
        title: the graph that ran.
        input_id: which input it ran on.
        tiers: steps by the tier that answered.
        compared: steps whose cost and baseline are both fully known; `saving_pico` is over these.
        baselines: the models of the baseline.
        complete: the run came to an end.
    """

    title: str
    input_id: str = ""
    rows: tuple[Row, ...] = ()
    steps: int = 0
    tiers: tuple[tuple[str, int], ...] = ()
    cost_pico: int = 0
    unpriced: int = 0
    baseline_pico: int = 0
    saving_pico: int = 0
    compared: int = 0
    baselines: tuple[str, ...] = ()
    seconds: float = 0.0
    simulated: bool = False
    complete: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _Drawing(self, options).lines()


def cost_tree(run: Run) -> CostTree | None:
    """The cost tree of a run; None for a run without a step of ours."""
    spans = list(run.walk())
    rows = [row for root in run.roots for row in _rows(root)]
    steps = [row for row in _walk(rows) if row.kind in ("step", "watched")]
    if not steps:
        return None
    title, input_id = _title(run)
    if len(rows) == 1 and rows[0].kind == "group":
        rows = list(rows[0].below)
    compared = [saving for row in steps if (saving := row.saving_pico) is not None]
    tiers: dict[str, int] = {}
    for row in steps:
        tiers[row.tier] = tiers.get(row.tier, 0) + 1
    return CostTree(
        title=title,
        input_id=input_id,
        rows=tuple(rows),
        steps=len(steps),
        tiers=tuple(tiers.items()),
        cost_pico=sum(row.cost_pico or 0 for row in steps),
        unpriced=sum(row.unpriced for row in steps),
        baseline_pico=sum(row.baseline_pico or 0 for row in steps),
        saving_pico=sum(compared),
        compared=len(compared),
        baselines=tuple(sorted({model for span in spans if (model := _text(span, names.BASELINE_MODEL))})),
        seconds=(max(span.end_ns for span in spans) - min(span.start_ns for span in spans)) / 1e9,
        simulated=any(span.attributes.get(names.SIMULATED) is True for span in spans),
        complete=run.complete,
    )


def cost_trees(runs: Iterable[Run]) -> Iterator[CostTree]:
    """The cost trees of runs, one at a time; runs without a step of ours are left out."""
    for run in runs:
        if (tree := cost_tree(run)) is not None:
            yield tree


# ---- from spans to rows -----------------------------------------------------------------------------------------------


def _title(run: Run) -> tuple[str, str]:
    spans = list(run.walk())
    graph = next((name for span in spans if (name := _text(span, names.GRAPH))), "")
    input_id = next((name for span in spans if (name := _text(span, names.INPUT_ID))), "")
    thread = next((name for span in spans if (name := _text(span, names.CONVERSATION))), "")
    outermost = run.roots[0].span
    shown = graph or (outermost.name if _kind(outermost) == "group" else "single step" if len(run.roots) == 1 else "steps")
    return shown, input_id or thread


def _kind(span: SpanRecord) -> Kind | None:
    """What a span is to a cost tree; a leaf of ours counts as watched until its step claims it."""
    if not span.ours:
        return "group"
    if span.is_leaf:
        return "watched"
    return "step" if names.STEP in span.attributes or span.name.startswith("route ") else "group"


def _rows(root: Branch) -> list[Row]:
    """The rows of a branch; foreign spans stay only where a step of ours hangs below them."""
    order = [root]
    for branch in order:  # grows while it is walked: parents first, without recursion
        order.extend(branch.children)
    built: dict[int, list[Row]] = {}
    for branch in reversed(order):
        kind = _kind(branch.span)
        below = [row for child in branch.children for row in built.pop(id(child))]
        if kind == "step":
            built[id(branch)] = [_step(branch, below)]
        elif kind == "watched":
            built[id(branch)] = [_leaf(branch.span, "watched"), *below]
        elif below:
            built[id(branch)] = _group(branch, below)
        else:
            built[id(branch)] = []
    return built[id(root)]


def _group(branch: Branch, below: list[Row]) -> list[Row]:
    label = _text(branch.span, names.TOOL_NAME) or _text(branch.span, names.NODE) or branch.span.name
    own = {_text(child.span, names.NODE) for child in branch.children if _kind(child.span) == "step"}
    if branch.span.parent_id is not None and len(below) == 1 and label in (below[0].name, *own):
        return below  # a node's span round the one step it makes says nothing new
    return [Row(kind="group", name=label, below=tuple(below))]


def _step(branch: Branch, below: Sequence[Row]) -> Row:
    span = branch.span
    leaves = [child.span for child in branch.children if _kind(child.span) == "watched"]
    calls = [
        _leaf(leaf, "judge" if names.CALL_KIND in leaf.attributes else "attempt", number) for number, leaf in enumerate(leaves, start=1)
    ]
    attempts = [row for row in calls if row.kind == "attempt"]
    others = [row for row in below if row.kind != "watched"]
    last = attempts[-1] if attempts else None
    costs = [each.cost_pico for each in calls if each.cost_pico is not None]
    baselines = [each.baseline_pico for each in attempts if each.baseline_pico is not None]
    decided = _text(span, names.DECIDED_TIER)
    made_in = next((node for leaf in reversed(leaves) if names.CALL_KIND not in leaf.attributes and (node := _text(leaf, names.NODE))), "")
    made = found if isinstance(found := span.attributes.get(names.ATTEMPTS), int) else 0  # some may have left no span
    return Row(
        kind="step",
        name=made_in or _text(span, names.NODE) or span.name.removeprefix("route "),
        task_class=words(_text(span, names.TASK_CLASS)),
        tier=last.tier if last else decided,
        model=last.model if last else "",
        input=_added(each.input for each in calls),
        output=_added(each.output for each in calls),
        cached=_added(each.cached for each in calls),
        cost_pico=sum(costs) if costs else None,
        unpriced=len(calls) - len(costs) + max(made - len(attempts), 0),
        baseline_pico=sum(baselines) if baselines else None,
        mark=last.mark if last and len(attempts) == 1 else "",
        why=_why(span, attempts),
        step=_text(span, names.STEP),
        below=(*(calls if len(calls) > 1 else ()), *others),
    )


def _leaf(span: SpanRecord, kind: Kind, number: int = 1) -> Row:
    found = span.attributes
    cost, baseline = found.get(names.COST_PICO), found.get(names.BASELINE_PICO)
    outcome = _text(span, names.OUTCOME)
    tier = _text(span, names.TIER)
    mark = "" if outcome in ("accepted", "watched", "") else outcome
    trouble = _text(span, names.ERROR_TYPE)
    if not trouble and outcome in ("rejected", "watched"):
        reasons = [_text(span, names.REASON), *found.get(names.REASONS, ())]
        trouble = next((code.removeprefix("check:") for code in reasons if code.startswith("check:")), "")
    if trouble and outcome == "watched":
        mark, trouble = words(trouble), ""
    if kind == "judge" and not trouble:
        trouble = _text(span, names.REASON).removeprefix("judge:")
    if kind == "watched" and not trouble and not mark:
        trouble = "not routed" if tier == "unrouted" else "watched"
    return Row(
        kind=kind,
        name={"attempt": f"try {found.get(names.ATTEMPT, number)}", "judge": "judge"}.get(kind) or _text(span, names.NODE) or span.name,
        task_class="" if kind in ("attempt", "judge") or found.get(names.TASK_CLASS) == "unknown" else words(_text(span, names.TASK_CLASS)),
        tier=tier,
        model=span.model,
        input=span.tokens[0],
        output=span.tokens[1],
        cached=found.get(names.CACHE_READ_TOKENS),
        cost_pico=cost if isinstance(cost, int) else None,
        unpriced=0 if isinstance(cost, int) else 1,
        baseline_pico=baseline if isinstance(baseline, int) else None,
        mark=mark,
        why=words(trouble),
        step=_text(span, names.STEP),
    )


def _why(span: SpanRecord, attempts: Sequence[Row]) -> str:
    found = span.attributes
    decided, own, stop = _text(span, names.DECIDED_TIER), _text(span, names.TASK_CLASS), _text(span, names.STOPPED)
    acting = attempts[-1].tier if attempts else decided
    codes = [str(code) for code in found.get(names.REASONS, ())]
    reasons = ["by class" if code == own else words(code) for code in codes if code != "escalated"]
    if len(attempts) > 1 and attempts[0].tier != acting:
        reasons.append(f"after {attempts[-2].why or attempts[-2].mark}")
    if (mode := found.get(names.MODE)) in ("shadow", "off"):
        reasons.insert(0, f"{mode}, {'would be' if decided != acting else 'also'} {decided}")
    elif stop:
        reasons.insert(0, words(stop))
    elif not reasons and found.get(names.PINNED) is True:
        reasons.append("pinned before")
    elif not reasons and acting not in ("cheap", "") and isinstance(odds := found.get(names.P_STRONG), float):
        reasons.append(f"likely hard ({odds:.2f})")
    if found.get(names.DEGRADED) is True:
        reasons.insert(0, "nothing higher up")
    return ", ".join(reasons)


def _text(span: SpanRecord, name: str) -> str:
    found = span.attributes.get(name)
    return found if isinstance(found, str) else ""


def _added(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _walk(rows: Iterable[Row]) -> Iterator[Row]:
    waiting = list(rows)[::-1]
    while waiting:
        row = waiting.pop()
        yield row
        waiting.extend(reversed(row.below))


# ---- from rows to lines -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column of the drawing; `least` is how far it may shrink, and without one it keeps its width; `gap` is the space before it."""

    key: str
    head: str
    least: int | None = None
    right: bool = False
    gap: int = 2


STEP: Final = _Column(key="step", head="step", least=26)
CLASS: Final = _Column(key="class", head="class")
TIER: Final = _Column(key="tier", head="tier")
MODEL: Final = _Column(key="model", head="model", least=24)
INPUT: Final = _Column(key="in", head="in", right=True)
OUTPUT: Final = _Column(key="out", head="out", right=True)
CACHED: Final = _Column(key="cached", head="cached", right=True)
COST: Final = _Column(key="cost", head="cost", right=True)
SAVING: Final = _Column(key="saving", head="saving", right=True)
WHY: Final = _Column(key="why", head="why", least=18)
ABOUT: Final = _Column(key="about", head="class/reason", least=12)
SHORT_STEP: Final = replace(STEP, least=16)
SHORT_COST, SHORT_SAVING = [replace(column, key=f"short_{column.key}") for column in (COST, SAVING)]
SHORT: Final = (
    replace(INPUT, key="short_in"),
    replace(OUTPUT, key="short_out", gap=1),
    replace(CACHED, key="short_cached", head="cache", gap=1),
    SHORT_COST,
    SHORT_SAVING,
)
LAYOUTS: Final = (
    (STEP, CLASS, TIER, MODEL, INPUT, OUTPUT, CACHED, COST, SAVING, WHY),
    (STEP, CLASS, TIER, INPUT, OUTPUT, CACHED, COST, SAVING, WHY),
    (STEP, TIER, INPUT, OUTPUT, CACHED, COST, SAVING, ABOUT),
    (SHORT_STEP, TIER, *SHORT, ABOUT),
    (SHORT_STEP, TIER, SHORT_COST, SHORT_SAVING, ABOUT),
    (replace(STEP, least=8), TIER, SHORT_COST),
)
"""From the richest to the barest; the first that fits the width is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signs:
    fork: str = "├─ "
    last: str = "└─ "
    line: str = "│  "
    none: str = "–"
    more: str = "…"
    dot: str = " · "
    failed: str = "✗ "
    least: str = "≥"


ASCII: Final = _Signs(fork="|- ", last="`- ", line="|  ", none="-", more="~", dot=" | ", failed="x ", least=">=")


@dataclass(slots=True)
class _Drawing:
    """One tree at one width."""

    tree: CostTree
    options: ConsoleOptions
    signs: _Signs = field(init=False)
    places: int = field(init=False)
    shown: list[tuple[Row, dict[str, Text]]] = field(init=False)

    def __post_init__(self) -> None:
        self.signs = ASCII if self.options.ascii_only else _Signs()
        costs = [row.cost_pico for row in _walk(self.tree.rows) if row.cost_pico]
        self.places = 4 if min(costs, default=CENT) >= CENT // 100 else 5  # so that cheap steps don't all read as "<$0.0001"
        self.shown = [(row, self._cells(row, guide)) for row, guide in self._guided(self.tree.rows)]

    def lines(self) -> Iterator[Text]:
        width = self.options.max_width
        who, money = self._who(), list(self._money())
        if self._long([*who, *money]) > width and self._long(who) > width:
            del who[-1]  # how long it took is what one can do without
        for parts in [[*who, *money]] if self._long([*who, *money]) <= width else [who, money]:
            yield from self._flowing(parts, width)
        columns, widths = self._layout(width)
        heads = {column.key: Text(column.head, style="dim") for column in columns}
        yield self._line(columns, widths, heads)
        for _, cells in self.shown:
            yield self._line(columns, widths, cells)
        if MODEL not in columns and (legend := self._legend()):
            yield from self._flowing([Text(each, style="dim") for each in legend], width)

    def _who(self) -> list[Text]:
        tree = self.tree
        named = [Text(tree.title, style="bold"), *([Text(tree.input_id, style="bold cyan")] if tree.input_id else [])]
        if tree.simulated:
            named[-1] = named[-1].append(" (simulated)", style="not bold yellow")
        tiers = [f"{count} {tier}" for tier, count in tree.tiers if tier and len(tree.tiers) > 1]
        steps = Text(f"{tree.steps} step{'s' if tree.steps != 1 else ''}")
        if tiers:
            steps.append(f" ({', '.join(tiers)})", style="dim")
        end = [] if tree.complete else [Text("unfinished", style="yellow")]
        return [*named, steps, *end, Text(_took(tree.seconds), style="dim")]

    def _long(self, parts: Sequence[Text]) -> int:
        return sum(part.cell_len for part in parts) + len(self.signs.dot) * (len(parts) - 1)

    def _money(self) -> Iterator[Text]:
        tree = self.tree
        cost = Text(self._dollars(tree.cost_pico), style="bold")
        yield cost.append(f" + {tree.unpriced} unpriced", style="not bold yellow") if tree.unpriced else cost
        whole = tree.compared == tree.steps
        if tree.baseline_pico:
            strong = Text(f"all-strong {self._dollars(tree.baseline_pico)}")
            yield strong if whole else strong.append(f" ({tree.compared} of {tree.steps} steps)", style="dim")
        if tree.compared:
            share = f" ({tree.saving_pico / tree.baseline_pico:.0%})" if tree.baseline_pico and whole else ""
            saved = tree.saving_pico >= 0
            text = f"{'saved' if saved else 'extra'} {self._dollars(abs(tree.saving_pico))}{share}"
            yield Text(text, style="green" if saved else "red")

    def _dollars(self, pico: int) -> str:
        return dollars(pico, places=4 if abs(pico) >= CENT // 10 else self.places)

    def _flowing(self, parts: Iterable[Text], width: int) -> Iterator[Text]:
        """Parts with dots between, broken into lines only between parts."""
        line = Text()
        for part in parts:
            if line and line.cell_len + len(self.signs.dot) + part.cell_len > width:
                yield self._fitted(line, width)
                line = Text()
            line = Text.assemble(line, (self.signs.dot, "dim"), part) if line else part
        yield self._fitted(line, width)

    def _legend(self) -> list[str]:
        """Which model stands behind which tier, where there's no room for a column of models."""
        models: dict[str, dict[str, None]] = {}
        for row in _walk(self.tree.rows):
            if row.model and (row.kind in ("attempt", "judge") or not row.below):
                models.setdefault(row.tier, {})[row.model] = None
        return [f"{tier}: {', '.join(of)}" for tier, of in models.items() if tier != "unrouted"]

    def _guided(self, rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
        waiting = [(row, "", row is rows[-1]) for row in reversed(rows)]
        while waiting:
            row, before, last = waiting.pop()
            yield row, before + (self.signs.last if last else self.signs.fork)
            inside = before + ("   " if last else self.signs.line)
            waiting.extend([(child, inside, child is row.below[-1]) for child in reversed(row.below)])

    def _cells(self, row: Row, guide: str) -> dict[str, Text]:
        signs, quiet = self.signs, row.kind in ("attempt", "judge")
        name = Text(guide, style="dim")
        bad = row.mark or row.tier == "stop"
        if bad:
            name.append(signs.failed, style="not dim red")
        name.append(row.name, style="not dim cyan" if row.kind == "group" else "dim" if quiet else "not dim")
        if row.kind == "group":
            return {"step": name}
        tier = Text(signs.none if row.tier in ("unrouted", "") else row.tier, style=TIER_STYLES.get(row.tier, "blue"))
        why = Text(row.mark, style="red")
        if row.why:
            why.append(": " if row.mark else "")
            why.append(row.why, style="" if row.mark else "yellow" if row.tier == "unrouted" else "default")
        about = Text(row.why or row.mark, style="red") if row.mark else why
        if row.why in ("", "by class") and not row.mark:
            about = Text(row.task_class, style="dim")
        style = "dim" if quiet else ""
        saving = row.saving_pico
        colour = "dim" if not saving else "green" if saving > 0 else "red"
        return {
            "step": name,
            "class": Text(row.task_class, style=style),
            "tier": tier,
            "model": Text(row.model, style="dim"),
            "in": Text(self._count(row.input), style=style),
            "out": Text(self._count(row.output), style=style),
            "cached": Text(self._count(row.cached), style="dim"),
            "short_in": Text(self._short(row.input), style=style),
            "short_out": Text(self._short(row.output), style=style),
            "short_cached": Text(self._short(row.cached), style="dim"),
            "cost": Text(self._cost(row, self.places), style="yellow" if row.unpriced else style),
            "short_cost": Text(self._cost(row, 4), style="yellow" if row.unpriced else style),
            "saving": Text("" if quiet else self._saving(saving, self.places), style=colour),
            "short_saving": Text("" if quiet else self._saving(saving, 4), style=colour),
            "why": why,
            "about": about,
        }

    def _cost(self, row: Row, places: int) -> str:
        if row.cost_pico is None:
            return "unpriced" if row.unpriced else self.signs.none
        return f"{self.signs.least if row.unpriced else ''}{dollars(row.cost_pico, places=places)}"

    def _saving(self, saving: int | None, places: int) -> str:
        return dollars(saving, places=places).replace("-<", "<") if saving else self.signs.none

    def _count(self, count: int | None) -> str:
        return self.signs.none if count is None else f"{count:,}"

    def _short(self, count: int | None) -> str:
        if count is None or count < 1000:
            return self._count(count)
        return f"{count / 1000:.1f}k" if count < 99_950 else f"{count / 1000:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"

    def _layout(self, width: int) -> tuple[Sequence[_Column], dict[str, int]]:
        columns, natural = LAYOUTS[-1], dict[str, int]()
        for columns in LAYOUTS:
            natural = {column.key: self._natural(column) for column in columns}
            excess = sum(natural.values()) + sum(column.gap for column in columns[1:]) - width
            give = {column.key: max(natural[column.key] - column.least, 0) for column in columns if column.least is not None}
            if excess <= sum(give.values()):
                return columns, _shrunk(natural, give, excess)
        return columns, natural  # narrower than anything readable: the terminal crops it

    def _natural(self, column: _Column) -> int:
        drawn = [cells[column.key].cell_len for _, cells in self.shown if not self._spans(cells)]
        return max([len(column.head), *drawn])

    def _spans(self, cells: dict[str, Text]) -> bool:
        return len(cells) == 1  # a graph or node has a name only, which may run over the empty columns beside it

    def _line(self, columns: Sequence[_Column], widths: dict[str, int], cells: dict[str, Text]) -> Text:
        if self._spans(cells):
            return self._fitted(cells["step"], self.options.max_width)
        line = Text(no_wrap=True, overflow="crop", end="\n")
        for column in columns:
            if column is not columns[0]:
                line.append(" " * column.gap)
            cell = self._fitted(cells.get(column.key, Text()), widths[column.key])
            pad = " " * (widths[column.key] - cell.cell_len)
            line.append_text(Text.assemble(pad, cell) if column.right else Text.assemble(cell, pad))
        line.rstrip()
        return line

    def _fitted(self, text: Text, width: int) -> Text:
        if text.cell_len > width:
            text = text.copy()
            kept = set_cell_size(text.plain, max(width - 1, 0)).rstrip()
            text = text[: len(kept)]
            text.append(self.signs.more)
        text.no_wrap = True
        text.overflow = "crop"
        return text


def _shrunk(natural: dict[str, int], give: dict[str, int], excess: int) -> dict[str, int]:
    """Take the excess off the widest columns that can give, one cell at a time."""
    widths, left = dict(natural), dict(give)
    for _ in range(excess):
        widest = max((key for key in left if left[key]), key=lambda key: widths[key])
        widths[widest] -= 1
        left[widest] -= 1
    return widths


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def plain(tree: CostTree, *, width: int = 100) -> str:
    """The tree as text without colour."""
    console = Console(width=width, no_color=True, color_system=None, force_terminal=False, highlight=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(tree)
    return captured.get()
