"""The embedded provider in a process of its own, so that what it computes is not done under the caller's interpreter lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from routed_agents import embedded

RATES = {"claude-haiku-5-5": 0.0, "claude-opus-5-5": 0.0}
"""No seeded mistakes: every case gets the same answers, and so makes the same calls."""


@contextmanager
def beside() -> Generator[str]:
    """An embedded provider with no latency for as long as the block lasts; gives its Anthropic URL."""
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.provider"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout is None or not (url := child.stdout.readline().strip()):
            raise RuntimeError("the embedded provider did not start in a process of its own")
        yield url
    finally:
        if child.stdin is not None:
            child.stdin.close()  # it serves until nobody is there any more
        child.wait(timeout=10)


if __name__ == "__main__":
    with embedded.serve(error_rates=RATES) as provider:
        print(provider.anthropic_url, flush=True)
        sys.stdin.read()
