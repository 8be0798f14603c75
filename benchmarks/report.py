"""Makes a ledger of many steps, and times the page of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from routed_agents.ledger import Entry, Ledger
from routed_agents.pricing import Cost, Usage

STEPS = 100_000
START_NS = 1_790_000_000 * 10**9
NODES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "triage": ("classification", "cheap", ()),
    "extract": ("extraction", "cheap", ()),
    "lookup": ("rag_lookup", "cheap", ()),
    "summarize": ("summarization", "cheap", ()),
    "plan": ("agentic_chain", "strong", ("agentic_chain",)),
    "act": ("agentic_chain", "strong", ("agentic_chain",)),
    "careful_reply": ("customer_reply", "strong", ("empathy",)),
    "review": ("code_review", "strong", ("long_context", "unsure")),
}
MODELS = {"cheap": ("claude-haiku-5-5", 1), "strong": ("claude-opus-5-5", 5)}


def entries(steps: int = STEPS, *, days: int = 30, simulated: bool = True, seed: int = 0) -> Iterator[Entry]:
    """Calls of made-up support threads over some days: retries, escalations, and calls without a price among them."""
    draw = random.Random(seed)
    gap = days * 86_400 * 10**9 // steps
    for number in range(steps):
        node = draw.choices(list(NODES), (9, 5, 7, 4, 2, 3, 3, 1))[0]
        task_class, tier, codes = NODES[node]
        at = START_NS + number * gap + draw.randrange(gap)
        first = draw.random()
        common: dict[str, Any] = {"node": node, "task_class": task_class, "simulated": simulated, "thread": f"ticket-{number // 6:06}"}
        if first < 0.03 and tier == "cheap":
            lost = ("check:schema",) if first < 0.02 else ()
            outcome = "rejected" if lost else "failed"
            error = None if lost else "OverloadedError"
            yield _entry(draw, number, 1, "cheap", at, outcome=outcome, codes=lost, error=error, **common)
            yield _entry(draw, number, 2, "strong", at + 10**9, codes=("escalated", *lost), escalated_from="cheap", **common)
        else:
            yield _entry(draw, number, 1, tier, at, codes=codes, unpriced=first > 0.997, **common)


def _entry(draw: random.Random, number: int, attempt: int, tier: str, at: int, *, unpriced: bool = False, **more: Any) -> Entry:
    model, dollars_per_mtok = MODELS[tier]
    sent, received = int(draw.lognormvariate(6.8, 0.9)), int(draw.lognormvariate(4.6, 0.8))
    cost = Cost(input=sent * dollars_per_mtok * 10**6, output=received * 5 * dollars_per_mtok * 10**6)
    more.setdefault("outcome", "accepted")
    used = more["outcome"] == "accepted"
    return Entry(
        step_id=f"{number:032x}",
        attempt=attempt,
        tier=tier,
        rank=int(tier == "strong"),
        decided_tier=tier,
        pinned=False,
        model="house-model-7" if unpriced else model,
        usage=Usage(input=sent, output=received),
        cost=None if unpriced else cost,
        baseline_pico=(sent + 5 * received) * 5 * 10**6 if used and not unpriced else None,
        baseline_model=MODELS["strong"][0] if used and not unpriced else None,
        policy_hash="benchmark",
        started_ns=at,
        ended_ns=at + draw.randrange(2 * 10**8, 4 * 10**9),
        **more,
    )


def make_ledger(path: Path, steps: int = STEPS) -> None:
    """A ledger file with that many steps."""
    with Ledger(path, backlog=10 * steps) as ledger:
        for entry in entries(steps):
            ledger.append(entry)
        ledger.flush(300)


def page_figures(steps: int = STEPS) -> list[dict[str, Any]]:
    """Time, memory and size of the page of a tenth of the steps and of all of them, each in an interpreter of its own."""
    return [_page_of(count) for count in (steps // 10, steps)]


def _page_of(steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        ledger, out = Path(folder) / "costs.db", Path(folder) / "report.html"
        make_ledger(ledger, steps)
        began = time.perf_counter()
        # not ru_maxrss, in which a child begins with its parent's
        code = "import sys; from routed_agents.cli import main; main(sys.argv[1:]); print(open('/proc/self/status').read())"
        done = subprocess.run(
            [sys.executable, "-c", code, "report", str(ledger), "--html", str(out)], capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - began
        return {
            "steps": steps,
            "seconds": round(seconds, 2),
            "peak_mb": int(done.stdout.partition("VmHWM:")[2].split()[0]) // 1024,
            "page_kb": out.stat().st_size // 1024,
            "ledger_mb": ledger.stat().st_size >> 20,
        }


def run() -> None:
    """Print the figures of the page."""
    for row in page_figures():
        sys.stdout.write(f"page: {json.dumps(row)}\n")


if __name__ == "__main__":
    for row in page_figures(int(sys.argv[1]) if len(sys.argv) > 1 else STEPS):
        sys.stdout.write(f"{json.dumps(row)}\n")
