"""The bill of a result: what it cost, and what stayed on the top tier and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Final, cast

from routed_agents.errors import ConfigurationError
from routed_agents.ledger.entries import Entry
from routed_agents.ledger.filters import Where
from routed_agents.ledger.ledger import Ledger
from routed_agents.pricing import rounded, served_model_of, usage_of, usd_of
from routed_agents.steps import ROLES, carried_stamp, field_of

RESPONSES: Final = ("choices", "output", "generations")
"""Where providers and LangChain have the messages of a response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a result cost, what it would have cost on the top tier throughout, and what stayed there and why.

    Attributes:
        cost_pico: what the priced calls cost.
        baseline_pico: what the steps with a known baseline would have cost on the top tier.
        compared: how many steps that baseline covers.
        tiers: steps by the tier that answered.
        top: names of the tiers that are the top one.
        kept_strong: node or task class of each step on the top tier, and why, in words.
        unpriced: calls without a known price, which `cost_pico` leaves out.
        below_floor: steps that a lower model answered than they may go to; they have no baseline, for that is no saving.
        uncosted: replies that carry no cost, as those of plain models and the chunks a graph streams; it is in none of the sums.
        nothing: what to say where there is no step.
    """

    cost_pico: int = 0
    baseline_pico: int = 0
    compared: int = 0
    steps: int = 0
    tiers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    top: frozenset[str] = frozenset()
    kept_strong: tuple[tuple[str, str], ...] = ()
    simulated: bool = False
    unpriced: int = 0
    below_floor: int = 0
    uncosted: int = 0
    nothing: str = "no routed step found in this result; pass ledger= and thread="

    @property
    def cost(self) -> Decimal:
        """`cost_pico` in dollars."""
        return usd_of(self.cost_pico)

    @property
    def baseline(self) -> Decimal | None:
        """`baseline_pico` in dollars; None when no step has one."""
        return usd_of(self.baseline_pico) if self.compared else None

    def __str__(self) -> str:
        replies = "1 reply" if self.uncosted == 1 else f"{self.uncosted} replies"
        if not self.steps and self.uncosted:
            carry = "carries" if self.uncosted == 1 else "carry"
            return f"unknown: {replies} {carry} no cost; where it is routed or watched, pass ledger=router.ledger and thread="
        if not self.steps:
            return self.nothing
        unpriced = f" + {self.unpriced} unpriced" if self.unpriced else ""
        uncosted = f" + {replies} without a cost" if self.uncosted else ""
        parts = [f"{_dollars(self.cost_pico)}{unpriced}{uncosted}"]
        if self.compared:
            covered = "" if self.compared == self.steps else f" ({self.compared} of {self.steps} steps)"
            parts.append(f"all-strong {_dollars(self.baseline_pico)}{covered}")
        below = [f"{count} {tier}" for tier, count in self.tiers.items() if tier not in self.top]
        parts.append(", ".join([f"{self.steps} step{'s' if self.steps > 1 else ''}", *below]))
        if self.below_floor:
            parts.append(f"{self.below_floor} answered below the floor: no saving")
        if self.kept_strong:
            reasons = list(dict.fromkeys([f"{name} ({why})" if why else name for name, why in self.kept_strong]))
            more = [f"and {len(reasons) - 5} more"] if len(reasons) > 5 else []
            parts.append("kept strong: " + ", ".join(reasons[:5] + more))
        return "; ".join(parts) + (" (simulated)" if self.simulated else "")


@dataclass(slots=True)
class _Line:
    """One step of a bill."""

    name: str = ""
    tier: str = ""
    top: bool = False
    reason: str = ""
    cost: int = 0
    baseline: int | None = None
    unpriced: int = 0
    below_floor: bool = False
    simulated: bool = False


def cost_of(result: object = None, *, ledger: Ledger | None = None, thread: str | None = None, run: str | None = None) -> Bill:
    """What a result cost: a routed reply, a list of them or of messages, or a graph's state with `messages`.

    Every routed reply carries what its step cost, so all steps whose replies are among the messages are counted, once each
    and with all their attempts. Steps that left no message there are in the ledger: pass it with the thread or run. So are the calls of
    plain models in an observed or watched graph, whose replies carry no cost and are only counted here (`Bill.uncosted`):
    `cost_of(ledger=router.ledger, thread="t1")`.

    Raises:
        ConfigurationError: a ledger without a thread or run, or the other way round, or what is given is none.
        LedgerError: the ledger cannot be read, or does not have all entries yet.
    """
    if ledger is None:
        if thread is not None or run is not None:
            raise ConfigurationError("cost_of(thread=, run=) without a ledger; pass ledger= as well")
        return _bill(_stamped(result), uncosted=_uncosted(result))
    if not callable(getattr(ledger, "entries", None)):
        raise ConfigurationError(f'cost_of(ledger=) was given {ledger!r}; wanted a ledger, like Ledger.sqlite("costs.db", read_only=True)')
    if thread is None and run is None:
        raise ConfigurationError("cost_of(ledger=) without a thread or run; pass thread= or run=, or use ledger.total() for everything")
    where: Where = {}
    if thread is not None:
        where["thread"] = thread
    if run is not None:
        where["run"] = run
    sought = " and ".join([f'{name} "{value}"' for name, value in where.items()])
    return replace(_bill(_recorded(ledger.entries(**where))), nothing=f"no step of {sought} in this ledger")


def _bill(lines: Iterable[_Line], *, uncosted: int = 0) -> Bill:
    steps = list(lines)
    tiers: dict[str, int] = {}
    for line in steps:
        tiers[line.tier] = tiers.get(line.tier, 0) + 1
    return Bill(
        cost_pico=sum(line.cost for line in steps),
        baseline_pico=sum(line.baseline or 0 for line in steps),
        compared=sum(line.baseline is not None for line in steps),
        steps=len(steps),
        tiers=MappingProxyType(tiers),
        top=frozenset([line.tier for line in steps if line.top]),
        kept_strong=tuple([(line.name, line.reason) for line in steps if line.top]),
        simulated=any(line.simulated for line in steps),
        unpriced=sum(line.unpriced for line in steps),
        below_floor=sum(line.below_floor for line in steps),
        uncosted=uncosted,
    )


def _stamped(result: object) -> list[_Line]:
    lines: dict[str, _Line] = {}
    for stamp in _stamps(result):
        cost, baseline = _pico(stamp.get("cost_pico")), _pico(stamp.get("baseline_pico"))
        known, unpriced = _pico(stamp.get("priced_pico")), _pico(stamp.get("unpriced"))
        lines[str(stamp.get("step") or len(lines))] = _Line(
            name=str(stamp.get("node") or stamp.get("task_class") or "step"),
            tier=str(stamp.get("tier") or ""),
            top=stamp.get("top") is True,
            reason=_reason(stamp.get("codes"), stamp.get("mode"), stamp.get("tier")),
            cost=(known if cost is None else cost) or 0,
            baseline=baseline,
            unpriced=(unpriced or 1) if cost is None else 0,
            simulated=stamp.get("simulated") is True,
        )
    return list(lines.values())


def _stamps(result: object) -> Iterator[Mapping[str, object]]:
    for message in _said(result):
        if (stamp := carried_stamp(message)) is not None:
            yield stamp


def _uncosted(result: object) -> int:
    """Replies that tell their model or its tokens, and carry no stamp; a node's own words tell neither."""
    stamped: set[str] = set()
    plain: dict[str, None] = {}
    for number, message in enumerate(_said(result)):
        key = str(field_of(message, "id") or number)
        if carried_stamp(message) is not None:
            stamped.add(key)
        elif _is_reply(message) and (usage_of(message) is not None or served_model_of(message) is not None):
            plain[key] = None
    return sum(key not in stamped for key in plain)


def _said(result: object) -> Iterator[object]:
    """The messages of a result, without those that people and tools wrote."""
    messages = field_of(result, "messages")
    if messages is None:
        messages = result
    several = isinstance(messages, Sequence) and not isinstance(messages, (str, bytes))
    return (each for each in cast("Sequence[object]", messages if several else (messages,)) if not _by_another(each))


def _is_reply(result: object) -> bool:
    """Whether it is a model's message, or a provider's response; any other object may have a `model`, too."""
    names = (field_of(result, "type"), field_of(result, "role"))
    return any(isinstance(name, str) and name in ROLES for name in names) or any(field_of(result, name) for name in RESPONSES)


def _by_another(message: object) -> bool:
    """Whether somebody else than a model wrote it: a person or a tool may say anything."""
    names = (field_of(message, "type"), field_of(message, "role"))
    return any(isinstance(name, str) and ROLES.get(name, "ai") != "ai" for name in names)


def _pico(value: object) -> int | None:
    """A stamp's amount; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _recorded(entries: Iterable[Entry]) -> list[_Line]:
    lines: dict[str, _Line] = {}
    models: dict[str, set[str]] = {}
    for entry in entries:
        line = lines.setdefault(entry.step_id, _Line())
        line.simulated = line.simulated or entry.simulated
        line.unpriced += entry.cost is None
        line.below_floor = line.below_floor or (entry.below_floor and entry.outcome == "watched")
        line.cost += 0 if entry.cost is None else entry.cost.total_pico
        if entry.baseline_pico is not None:
            line.baseline = (line.baseline or 0) + entry.baseline_pico
        if entry.kind == "attempt":  # the last attempt is the one that answered
            line.name, line.tier = entry.node or entry.task_class, entry.tier
            line.reason = _reason(entry.codes, entry.mode, entry.decided_tier)
            if entry.model == entry.baseline_model:
                models.setdefault(entry.tier, set()).add(entry.model)
    for line in lines.values():
        line.top = line.tier == "strong" or line.tier in models
    return list(lines.values())


def _reason(codes: object, mode: object, decided: object) -> str:
    """Why a step went where it went; in shadow mode it went to the top whatever was decided."""
    if not isinstance(codes, Sequence) or isinstance(codes, str) or not codes:
        return f"shadow, decided {decided}" if mode == "shadow" else ""
    return str(cast("Sequence[object]", codes)[0]).replace("_", " ").replace(":", " ")


def _dollars(pico: int) -> str:
    """Cents from a dollar up, hundredths of a cent below, and two significant digits where those would read as nothing."""
    size = abs(pico)
    if size >= 10**12:
        places = 2
    elif size >= 10**8 or not pico:
        places = 4
    else:
        places = 14 - len(str(size))
    sign = "-" if pico < 0 else ""
    return f"{sign}${rounded(pico, places):f}"
