"""Runs the demo graphs over their inputs with spans going to a backend: ENDPOINT LEDGER [INPUTS PER GRAPH]."""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from pathlib import Path

from routed_agents.cli.demo import GRAPHS, graphs_folder
from routed_agents.cli.graphs import load_graph
from routed_agents.cli.records import Complaints
from routed_agents.cli.run import read_inputs
from routed_agents.cli.runner import Result, run_inputs
from routed_agents.cli.workspace import workspace
from routed_agents.policy import Policy
from routed_agents.telemetry import configure


async def run(limit: int) -> None:
    """Every graph, one after the other."""
    folder = graphs_folder(GRAPHS)

    def ended(result: Result) -> None:
        print(result.id, result.thread, result.bill.cost_pico, result.error or result.stopped or "ok", sep="\t", flush=True)

    for name in GRAPHS:
        loaded = await load_graph(str(folder / f"{name}.py"))
        inputs = read_inputs(str(folder / f"{name}.jsonl"), Complaints(f"{name}.jsonl"))
        await run_inputs(loaded, islice(inputs, limit), ended, concurrency=4)
        if loaded.router is not None:
            await asyncio.to_thread(loaded.router.ledger.close)


def main(endpoint: str, ledger: str, limit: str = "20") -> int:
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded"), ledger=Path(ledger)):
        handle = configure(otlp_endpoint=endpoint)
        asyncio.run(run(int(limit)))
        handle.flush(30.0)
        handle.shutdown(timeout_s=5.0)
    print("dropped", handle.dropped, sep="\t")
    return 1 if handle.dropped else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
