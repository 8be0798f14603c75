"""`demo`: the main job, over real HTTP: which steps stayed strong and why, what each cost, and where it is written down."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routed_agents.cli import FOUND, OK, say
from routed_agents.cli.arguments import add_output, number
from routed_agents.cli.files import naming
from routed_agents.cli.records import Complaints
from routed_agents.cli.run import Summary, add_provider, read_inputs
from routed_agents.errors import ConfigurationError

if TYPE_CHECKING:
    from routed_agents.cli.printer import Printer
    from routed_agents.cli.runner import Result
    from routed_agents.ledger import Ledger
    from routed_agents.telemetry.setup import Handle
    from routed_agents.telemetry.trees import CostTree

GRAPHS: Final = ("support_desk", "agent_chain")
"""Shown when none is named."""
MORE: Final = ("coding_agent", "document_desk", "graded_rag", "supervisor", "plan_and_execute")
"""Shown by name."""
SIMULATED: Final = "answers and costs are simulated: the embedded provider on this machine stands in for the models, and no money was spent"

WRITTEN: Final = ("trace.jsonl", "ledger.db", "ledger.db-wal", "ledger.db-shm")
MARK: Final = ".routed-agents-demo"
OUT: Final = "out/demo"
"""The demo's own folder, whatever wrote it."""
"""Says that these files in a folder are a demo's."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Runs the example graphs over their inputs, and shows what each step cost, what stayed strong and why."
    parser.add_argument("--graph", choices=(*GRAPHS, *MORE), help=f"only this one (else {' and '.join(GRAPHS)})")
    add_provider(parser)
    parser.add_argument("--out", default=OUT, metavar="DIR", help=f"where trace and ledger go ({OUT})")
    parser.add_argument("--limit", type=number(1), metavar="N", help="only the first N inputs of each graph")
    parser.add_argument("--concurrency", type=number(1), default=4, metavar="N", help="inputs under way at a time (4)")
    add_output(parser)
    parser.set_defaults(act=demo)


def demo(args: argparse.Namespace) -> int:
    folder = graphs_folder([args.graph] if args.graph else GRAPHS)
    if args.provider == "anthropic":
        import os

        from routed_agents.cli.workspace import check_anthropic

        check_anthropic(os.environ)
    from routed_agents.cli.printer import Printer
    from routed_agents.cli.workspace import workspace
    from routed_agents.ledger import Ledger
    from routed_agents.policy import Policy
    from routed_agents.telemetry.setup import configure

    out = _emptied(Path(args.out))
    trace_file, ledger_file = out / "trace.jsonl", out / "ledger.db"
    policy = Policy.default(tiers="embedded" if args.provider == "embedded" else "claude")
    console = None if args.json else Printer()
    if console is not None:
        if args.provider == "embedded":
            console.print(f"{SIMULATED[:1].upper()}{SIMULATED[1:]}.", style="bold yellow", soft_wrap=True)
        console.print(f"Policy {policy.hash}: {', '.join(f'{tier.name} {tier.model}' for tier in policy.tiers)}\n")
    summary = Summary()
    with workspace(provider=args.provider, policy=policy, ledger=ledger_file):
        handle = configure(trace_file=trace_file, console=_live(console))
        try:
            asyncio.run(_run(args, folder, summary, handle))
        finally:
            handle.shutdown(timeout_s=5.0)
    with Ledger.sqlite(ledger_file) as ledger:
        sums = sums_of(ledger, trace_file)
        if console is None:
            _print_json(args, summary, ledger, sums, trace_file, ledger_file)
        else:
            _print(console, args, summary, ledger, sums, trace_file, ledger_file)
    return FOUND if summary.failures or len(set(sums.values())) > 1 else OK


async def _run(args: argparse.Namespace, folder: Path, summary: Summary, handle: Handle) -> None:
    from routed_agents.cli.graphs import load_graph
    from routed_agents.cli.runner import run_inputs

    def ended(result: Result) -> None:
        summary.add(result)

    # One event loop for all graphs: the SDKs' HTTP clients belong to the loop they were first used in.
    for name in [args.graph] if args.graph else GRAPHS:
        loaded = await load_graph(str(folder / f"{name}.py"))
        inputs = read_inputs(str(folder / f"{name}.jsonl"), Complaints(f"{name}.jsonl"))
        await run_inputs(loaded, islice(inputs, args.limit), ended, concurrency=args.concurrency)
        await asyncio.to_thread(handle.flush)
        if loaded.router is not None:
            await asyncio.to_thread(loaded.router.ledger.close)


def graphs_folder(needed: list[str] | tuple[str, ...]) -> Path:
    """Where the example graphs are: below the working directory or beside the package's own source.

    Raises:
        ConfigurationError: they are in neither place.
    """
    source = Path(__file__).resolve().parents[3]
    places = [Path.cwd() / "graphs", Path.cwd(), source / "graphs"]
    for place in places:
        if all((place / f"{name}{ending}").is_file() for name in needed for ending in (".py", ".jsonl")):
            return place
    wanted = ", ".join(f"graphs/{name}.py" for name in needed)
    raise ConfigurationError(f"{wanted} not found below {Path.cwd()}; run the demo in a checkout of the repository, where the examples are")


def sums_of(ledger: Ledger, trace_file: Path) -> dict[str, int]:
    """The same money counted three ways, in pico-dollars: leaf spans, ledger, and the rows of the table."""
    from routed_agents.offline.report import cost_table
    from routed_agents.offline.traces import read_spans
    from routed_agents.telemetry import names

    table = cost_table(ledger)
    cost = next(index for index, column in enumerate(table.columns) if column.key == "cost_usd")
    return {
        "leaf_spans": sum(int(span.attributes.get(names.COST_PICO, 0)) for span in read_spans(trace_file)),
        "ledger": ledger.total().cost_pico,
        "table": sum(int(row[cost] or 0) for row in table.rows),
    }


def _print(
    console: Printer, args: argparse.Namespace, summary: Summary, ledger: Ledger, sums: dict[str, int], trace_file: Path, ledger_file: Path
) -> None:
    from routed_agents.offline import report
    from routed_agents.pricing import usd_of

    for table in (report.kept_strong(ledger), report.by_class(ledger), report.by_guard(ledger), report.cost_table(ledger)):
        console.table(table)
    spans, kept, rows = sums["leaf_spans"], sums["ledger"], sums["table"]
    equal = spans == kept == rows
    verdict = "[green]equal[/]" if equal else "[bold red]NOT EQUAL[/]"
    counted = f"leaf spans ${usd_of(spans):f}, ledger ${usd_of(kept):f}, table ${usd_of(rows):f}"
    console.print(f"Check: {counted}: {verdict} to the pico-dollar.", soft_wrap=True)
    console.print(f"Trace   {trace_file}   (routed-agents trace tree {trace_file})", markup=False, soft_wrap=True)
    console.print(f"Ledger  {ledger_file}   (routed-agents report {ledger_file})", markup=False, soft_wrap=True)
    if args.provider == "embedded":
        console.print(f"Once more: {SIMULATED}.", style="bold yellow", soft_wrap=True)
    for name, trouble in summary.failed:
        say(f"{name}: {trouble}")


def _print_json(
    args: argparse.Namespace, summary: Summary, ledger: Ledger, sums: dict[str, int], trace_file: Path, ledger_file: Path
) -> None:
    from routed_agents.offline import report

    document: dict[str, Any] = {
        "simulated": args.provider == "embedded",
        "note": SIMULATED if args.provider == "embedded" else "",
        **summary.to_record(),
        "kept_strong": report.kept_strong(ledger).to_json(),
        "by_class": report.by_class(ledger).to_json(),
        "by_guard": report.by_guard(ledger).to_json(),
        "cost": report.cost_table(ledger).to_json(),
        "sums_pico": sums,
        "sums_equal": len(set(sums.values())) == 1,
        "trace": str(trace_file),
        "ledger": str(ledger_file),
        "failures": [{"id": name, "error": trouble} for name, trouble in summary.failed],
    }
    print(json.dumps(document))


def _emptied(out: Path) -> Path:
    """The output folder without an earlier demo's files, so that this demo's sums are its own; nobody else's are touched."""
    mark = out / MARK
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"--out {out} is a file; name a folder") from None
    found = [name for name in WRITTEN if (out / name).exists()]
    if found and not mark.is_file() and out != Path(OUT):
        raise ConfigurationError(f"--out {out} holds a {found[0]} that no demo is known to have written; name another folder, or move it")
    for name in found:
        (out / name).unlink()
    with naming(mark):
        mark.write_text("The demo wrote trace.jsonl and ledger.db in this folder, and the next one replaces them.\n", encoding="utf-8")
    return out


ALIKE: Final = 3
"""Runs of a graph drawn in full before those that went the same way are shown in one line each."""


def _live(console: Printer | None) -> Any:
    """Prints each finished run at once: as a tree, or in a line when runs of its graph with the same tiers were drawn before."""
    if console is None:
        return False
    from routed_agents.telemetry.trees import dollars

    drawn: Counter[tuple[str, tuple[str, ...]]] = Counter()

    def show(tree: CostTree) -> None:
        kind = (tree.title, tuple(sorted([tier for tier, _ in tree.tiers])))
        drawn[kind] += 1
        if drawn[kind] <= ALIKE:
            console.print(tree)
            console.print()
            return
        tiers = ", ".join([f"{count} {tier}" for tier, count in tree.tiers])
        console.print(f"{tree.title} · {tree.input_id}  {tiers}  {dollars(tree.cost_pico)}", style="dim", soft_wrap=True)

    return show
