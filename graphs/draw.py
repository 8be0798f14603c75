"""Writes each graph's drawing, made by the graph itself, into README.md: `python graphs/draw.py`, or `make drawings`."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from routed_agents.cli.graphs import load_graph
from routed_agents.cli.workspace import workspace
from routed_agents.policy import Policy

HERE = Path(__file__).parent
README = HERE / "README.md"
PLACE = re.compile(r"(<!-- drawing of (\w+) -->\n).*?(<!-- end of drawing -->)", re.DOTALL)


async def drawings() -> dict[str, str]:
    """The Mermaid text of every graph in langgraph.json; no model is called."""
    known: dict[str, str] = json.loads((HERE / "langgraph.json").read_text(encoding="utf-8"))["graphs"]
    found: dict[str, str] = {}
    with workspace(provider="embedded", policy=Policy.default(tiers="embedded")):
        for name, place in known.items():
            path, _, variable = place.partition(":")
            loaded = await load_graph(f"{HERE / path}:{variable}")
            found[name] = loaded.graph.get_graph().draw_mermaid().strip()
    return found


def redrawn(text: str, drawn: dict[str, str]) -> str:
    """The page with each drawing in its place."""
    return PLACE.sub(lambda place: f"{place[1]}```mermaid\n{drawn[place[2]]}\n```\n{place[3]}", text)


if __name__ == "__main__":
    README.write_text(redrawn(README.read_text(encoding="utf-8"), asyncio.run(drawings())), encoding="utf-8")
