"""`why`: one recorded step's decision, from a trace, a ledger or the step itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from routed_agents.cli import FOUND, OK, say
from routed_agents.cli.arguments import add_output, add_policy, policy_of
from routed_agents.cli.files import TRACE, there
from routed_agents.cli.plain_json import json_line
from routed_agents.cli.records import Complaints, read_steps
from routed_agents.errors import ConfigurationError
from routed_agents.printable import harmless

if TYPE_CHECKING:
    from routed_agents.ledger import Entry
    from routed_agents.steps import Step
    from routed_agents.telemetry.runs import SpanRecord

Found = tuple[str, dict[str, Any], str, str]
"""Where a step was found, its record, the same in words, and its whole id."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "step",
        metavar="STEP_ID",
        help="or how it begins, if no other does: `trace top` lists it, and a reply has it as decision_of(reply)['step']",
    )
    parser.add_argument("--trace", metavar="FILE", help="trace file, OTLP JSON lines")
    parser.add_argument("--ledger", metavar="FILE", help="ledger, SQLite")
    parser.add_argument("--steps", metavar="FILE", help="step records; the step is decided again")
    parser.add_argument("--explain", action="store_true", help="with --steps: say why in words (always on, unless --json)")
    add_policy(parser)
    add_output(parser)
    parser.set_defaults(act=why)


def why(args: argparse.Namespace) -> int:
    if not (args.trace or args.ledger or args.steps):
        raise ConfigurationError("why needs a place to look: give --trace FILE, --ledger FILE or --steps FILE")
    args.step = args.step.rstrip("…")  # as a narrow table shows it
    found: list[Found] = []
    if args.trace:
        found += _from_trace(args.step, args.trace)
    if args.ledger:
        found += _from_ledger(args.step, args.ledger)
    if args.steps:
        found += _from_steps(args)
    if not found:
        say(f"no step {args.step} in {', '.join(each for each in (args.trace, args.ledger, args.steps) if each)}")
        return FOUND
    if args.json:
        print(json_line({"step": found[0][3], **{place: record for place, record, _, _ in found}}))
    else:
        print(harmless("\n\n".join(text for _, _, text, _ in found)))
    return OK


def _from_trace(step: str, path: str) -> Iterator[Found]:
    from routed_agents.offline.traces import read_spans
    from routed_agents.telemetry import names

    begun = [span for span in read_spans(there(path, "trace file", TRACE)) if str(span.attributes.get(names.STEP, "")).startswith(step)]
    if not begun:
        return
    step = _whole(step, [str(span.attributes[names.STEP]) for span in begun], path)
    spans = [span for span in begun if span.attributes[names.STEP] == step]
    leaves = sorted((span for span in spans if names.ATTEMPT in span.attributes), key=lambda span: span.start_ns)
    told = next((span for span in spans if names.CONFIDENCE in span.attributes), spans[-1])
    seen = told.attributes
    lines = [f"step {step}, as traced in {path}"]
    lines += _row("class", seen.get(names.TASK_CLASS), (names.CONFIDENCE, "confidence"), (names.P_STRONG, "p_strong"), among=seen)
    lines += _row(
        "decided", seen.get(names.DECIDED_TIER), (names.MODE, "mode"), (names.PIN, "pins the"), (names.STOPPED, "stopped"), among=seen
    )
    lines += [f"  reasons    {_reasons(told.reasons, pinned=seen.get(names.PINNED) is True)}"]
    lines += [f"  {leaf.attributes.get(names.CALL_KIND, 'attempt')} {leaf.attributes[names.ATTEMPT]}  {_attempt(leaf)}" for leaf in leaves]
    lines += [f"  policy     {seen.get(names.POLICY, 'unknown')}"]
    record = {"decision": dict(seen), "attempts": [dict(leaf.attributes) for leaf in leaves]}
    yield "trace", record, "\n".join(lines), step


def _reasons(codes: Iterable[str], *, pinned: bool) -> str:
    """What held a step where it was decided; a pin that an earlier step left has no code of this one's."""
    from routed_agents.decisions import words

    return ", ".join(words(code) for code in codes) or ("pinned before" if pinned else "nothing objected to the proposal")


def _row(label: str, value: object, *more: tuple[str, str], among: Mapping[str, Any]) -> list[str]:
    extras = [f"{name} {among[key]:.2f}" if isinstance(among[key], float) else f"{name} {among[key]}" for key, name in more if key in among]
    return [f"  {label:10} {', '.join([str(value), *extras])}"] if value is not None else []


def _attempt(leaf: SpanRecord) -> str:
    from routed_agents.telemetry import names

    seen = leaf.attributes
    pico = seen.get(names.COST_PICO)
    cost = _cost(pico if isinstance(pico, int) else None, leaf, simulated=bool(seen.get(names.SIMULATED)))
    parts = [str(seen.get(names.TIER)), leaf.model, str(seen.get(names.OUTCOME)), cost]
    sent, received = leaf.tokens
    if sent is not None:
        parts.append(f"{sent:,} tokens in, {received or 0:,} out")
    return ", ".join(parts)


def _from_ledger(step: str, path: str) -> Iterator[Found]:
    from routed_agents.cli.report import opened
    from routed_agents.telemetry.trees import dollars

    with opened(path) as ledger:
        entries = list(ledger.entries(step_id=step)) or [entry for entry in ledger.entries() if entry.step_id.startswith(step)]
    if not entries:
        return
    step = _whole(step, [entry.step_id for entry in entries], path)
    last = entries[-1]
    costs = [entry.cost.total_pico for entry in entries if entry.cost is not None]
    known = f"{'at least ' if any(entry.output_unknown for entry in entries) else ''}{dollars(sum(costs))}"
    known += f" + {len(entries) - len(costs)} unpriced" if len(costs) < len(entries) else ""
    lines = [
        f"step {step}, as recorded in {path}",
        f"  class      {last.task_class}",
        f"  decided    {last.decided_tier}, mode {last.mode}" + (", floor or pin held it" if last.pinned else ""),
        f"  reasons    {_reasons(last.codes, pinned=last.pinned)}",
        *[f"  {entry.kind} {entry.attempt}  {_told(entry)}" for entry in entries],
        f"  cost       {known}" + (f", all-strong {dollars(last.baseline_pico)}" if last.baseline_pico is not None else ""),
        f"  policy     {last.policy_hash}",
    ]
    yield "ledger", {"entries": [entry.to_record() for entry in entries]}, "\n".join(lines), step


def _told(entry: Entry) -> str:
    cost = _cost(entry.cost.total_pico if entry.cost is not None else None, entry, simulated=entry.simulated)
    tokens = f"{entry.usage.prompt:,} tokens in, {entry.usage.output:,} out"
    parts = [entry.tier, entry.served_model or entry.model, entry.outcome, cost, tokens]
    return ", ".join([*parts, *([entry.error] if entry.error else [])])


def _cost(pico: int | None, call: SpanRecord | Entry, *, simulated: bool) -> str:
    """What a call cost, and how far that is known."""
    from routed_agents.telemetry.trees import dollars

    cost = f"{'at least ' if call.output_unknown else ''}{dollars(pico)}" if pico is not None else "unpriced"
    return cost + (" estimated" if call.estimated else "") + (" simulated" if simulated else "")


def _from_steps(args: argparse.Namespace) -> Iterator[Found]:
    policy = policy_of(args)
    begun: dict[str, Step] = {}
    for _, step, _ in read_steps(args.steps, Complaints(args.steps)):
        if step.id.startswith(args.step):
            begun.setdefault(step.id, step)
    if begun:
        decision = policy.decide(begun[_whole(args.step, begun, args.steps)])
        yield "decision", decision.to_record(evidence=True), decision.explain(), decision.id


def _whole(begun: str, ids: Iterable[str], path: str) -> str:
    """The id that is meant: the one given, or the only one that begins so.

    Raises:
        ConfigurationError: several do.
    """
    several = list(dict.fromkeys(ids))
    if begun in several or len(several) == 1:
        return begun if begun in several else several[0]
    raise ConfigurationError(
        f"{len(several)} steps in {path} begin with {begun}, such as {several[0]} and {several[1]}; give more of the id"
    )
