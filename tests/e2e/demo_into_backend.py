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


async def run(limit: int) -> list[str]:
    """Every graph, one after the other; what went wrong."""
    folder = graphs_folder(GRAPHS)

    troubles: list[str] = []

    def ended(result: Result) -> None:
        if result.error:
            troubles.append(f"{result.id}: {result.error}")

    for name in GRAPHS:
        loaded = await load_graph(str(folder / f"{name}.py"))
        inputs = read_inputs(str(folder / f"{name}.jsonl"), Complaints(f"{name}.jsonl"))
        await run_inputs(loaded, islice(inputs, limit), ended, concurrency=4)
        if loaded.router is not None:
            await asyncio.to_thread(loaded.router.ledger.close)
    return troubles


def main(endpoint: str, ledger: str, limit: str = "20") -> str | None:
    """What went wrong, for `sys.exit`; None when all went well."""
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded"), ledger=Path(ledger)):
        handle = configure(otlp_endpoint=endpoint)
        troubles = asyncio.run(run(int(limit)))
        handle.flush(30.0)
        handle.shutdown(timeout_s=5.0)
    if handle.dropped:
        troubles.append(f"{handle.dropped} spans did not reach {endpoint}")
    return "\n".join(troubles) or None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
