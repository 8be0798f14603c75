"""Makes one self-contained HTML page of what model calls cost."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

from routed_agents.decisions import words
from routed_agents.offline.calls import Calls, Cube
from routed_agents.offline.report import DOUBTS, Table
from routed_agents.telemetry.trees import dollars

CHAINS: Final = 30
STEPS_OF_A_CHAIN: Final = 80
STEPS: Final = 200
ESCALATIONS: Final = 400
NAME_LENGTH: Final = 160
"""Longer names are cut: a label may hold a whole message."""
DOLLAR: Final = 10**12
DOUBTED: Final = tuple([column.key for column in DOUBTS])


def page(
    calls: Calls,
    *,
    title: str = "What the steps cost",
    shadow: Table | None = None,
    chains: int = CHAINS,
    steps: int = STEPS,
    troubles: int = 0,
    made: datetime | None = None,
) -> str:
    """The page as one string: aggregates of all calls, and the dearest chains and steps.

    It loads nothing: a content policy forbids every request, and allows only the script it came with. Every text in it that
    came from outside is text.

    Args:
        calls: what to show.
        shadow: what shadow mode would save, where something ran so.
        chains: how many of the dearest threads are shown with their cost trees.
        steps: how many of the dearest steps are listed.
        troubles: lines of the sources that could not be read; the page says so.
        made: when; now when not given.
    """
    data = page_data(calls, chains=chains, steps=steps)
    stamp = (made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    data |= {"made": stamp, "troubles": troubles, "shadow": shadow.to_texts() if shadow is not None else None}
    style, script = _part("page.css"), _part("page.js")
    slots = {
        "TITLE": html.escape(title),
        "POLICY": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "SUMMARY": html.escape(_summary(data["totals"])),
        "DATA": embedded(data),
    }
    whole, *parts = _part("page.html").split("{{")
    for part in parts:
        name, _, rest = part.partition("}}")
        whole += slots[name] + rest
    return whole


def page_data(calls: Calls, *, chains: int = CHAINS, steps: int = STEPS) -> dict[str, Any]:
    """What the page shows, as plain JSON; money is in whole pico-dollars."""
    totals = calls.totals()
    return {
        "totals": totals | {"words": _headline(totals)},
        "threads": calls.thread_costs(),
        "solved": calls.solved(),
        "cube": _cube(calls.cube()),
        "chains": [_chain(calls, row) for row in calls.dearest_chains(chains)],
        "steps": [_step(row) for row in calls.dearest_steps(steps)],
        "escalations": [_escalation(row) for row in calls.escalations(ESCALATIONS)],
    }


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode()


def _part(name: str) -> str:
    return files("routed_agents.offline").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _headline(totals: Mapping[str, Any]) -> dict[str, str]:
    """The exact sums, which a number of JavaScript cannot hold beyond 9,007 dollars."""
    return {name: dollars(totals[name], places=2 if abs(totals[name]) >= 100 * DOLLAR else 4) for name in ("cost", "baseline", "saving")}


def _summary(totals: Mapping[str, Any]) -> str:
    found = totals["words"]
    known = totals["entries"] > totals["unpriced"]
    least = "at least " if totals["output_unknown"] else ""
    parts = [f"{totals['steps']:,} steps", f"cost {least}{found['cost']}" if known else "cost unpriced"]
    if totals["estimated"]:
        parts[-1] += f" ({totals['estimated']:,} estimated)"
    if totals["unpriced"] and known:
        parts[-1] += f" + {totals['unpriced']:,} unpriced"
    if totals["baseline"]:
        parts += [f"all-strong {found['baseline']}", f"saved {found['saving']}"]
    return "; ".join(parts) + (" (simulated)" if totals["simulated"] else "")


def _cube(cube: Cube) -> dict[str, Any]:
    return {
        "start": cube.start_ns // 10**6,
        "width": cube.width_ns // 10**6,
        "buckets": cube.buckets,
        "names": {each: [_spelled(each, name) for name in found] for each, found in cube.names.items()},
        "folded": dict(cube.folded),
        "fields": ["bucket", "class", "tier", "node", "reason", *CELL_FIELDS],
        "cells": [[cell.bucket, *cell.values, *[getattr(cell, name) for name in CELL_FIELDS]] for cell in cube.cells],
    }


CELL_FIELDS: Final = ("steps", "attempts", "entries", *DOUBTED, "simulated", "tokens", "cost", "baseline", "saving")


def _chain(calls: Calls, row: Mapping[str, Any]) -> dict[str, Any]:
    steps = sorted(calls.dearest_steps(STEPS_OF_A_CHAIN, chain=row["chain"]), key=lambda step: step["started"])
    runs: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        runs.setdefault(step["run"] or "", []).append(_step(step))
    return {
        "name": _cut(row["chain"]),
        "kind": row["kind"],
        "steps": row["steps"],
        "again": row["again"],
        "started": row["started"] // 10**6,
        "seconds": (row["ended"] - row["started"]) / 1e9,
        "simulated": bool(row["simulated"]),
        "left_out": row["steps"] - len(steps),
        "runs": [{"name": _cut(name), "steps": found} for name, found in runs.items()],
        **_money(row),
    }


def _step(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": _cut(row["step"]),
        "chain": _cut(row["chain"]),
        "node": _spelled("node", row["node"]),
        "class": _spelled("class", row["class"]),
        "tier": _cut(row["tier"]),
        "model": _cut(row["model"]),
        "reason": _spelled("reason", row["reason"]),
        "outcome": row["outcome"],
        "input": row["input"],
        "output": row["output"],
        "cached": row["cached"],
        "started": row["started"] // 10**6,
        "seconds": (row["ended"] - row["started"]) / 1e9,
        "simulated": bool(row["simulated"]),
        "tried": [_call(call) for call in row["tried"]] if row["calls"] > 1 else [],
        **_money(row),
        "saving": row["baseline"] - row["cost"] if row["comparable"] else None,
    }


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    check = next((code for code in json.loads(call["codes"]) if str(code).startswith("check:")), "")
    why = call["error"] or (words(str(check)).removeprefix("check:") if call["outcome"] == "rejected" else "")
    return {
        "tier": _cut(call["tier"]),
        "model": _cut(call["model"]),
        "kind": call["kind"],
        "outcome": call["outcome"],
        "why": _cut(why),
        "cost": call["cost"],
        "estimated": call["estimated"],
        "output_unknown": call["output_unknown"],
    }


def _escalation(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "from": _cut(row["tier"]),
        "to": _cut(row["next_tier"]),
        "why": _spelled("reason", row["why"]),
        "class": _spelled("class", row["class"]),
        "node": _spelled("node", row["node"]),
        "times": row["times"],
        **{name: row[name] for name in DOUBTED},
        "cost": row["cost"],
        "entries": row["times"],
    }


def _money(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cost": row["cost"],
        **{name: row[name] for name in DOUBTED},
        "entries": row["calls"],
        "baseline": row["baseline"],
        "saving": row.get("saving"),
    }


def _spelled(dimension: str, name: object) -> str:
    text = _cut(name)
    if dimension == "reason":
        return words(text).replace(":", ": ", 1) if "://" not in text else text
    return words(text) if dimension == "class" else text


def _cut(text: object) -> str:
    whole = "" if text is None else str(text)
    return whole if len(whole) <= NAME_LENGTH else f"{whole[: NAME_LENGTH - 1]}…"
