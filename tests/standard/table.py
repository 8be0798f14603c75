"""Runs the standard suites and prints how many tests each subject passed, failed and skipped: `python -m tests.standard.table`."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

FAMILIES = ("bare", "fallbacks", "ChatRouter", "routed")


class Tally:
    """Counts the outcomes of each subject's tests; a failure is one whether or not it was expected."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.failed: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: Any) -> Any:
        report = yield
        subject = getattr(item.cls, "subject", None)
        if subject is None or not (report.when == "call" or report.failed or (report.when == "setup" and report.skipped)):
            return report
        expected = hasattr(report, "wasxfail")
        outcome = "failed" if report.failed or (expected and report.skipped) else report.outcome
        key = (subject.family, subject.label)
        self.counts[key][outcome] += 1
        if outcome == "failed":
            self.failed[key].add(item.originalname.removeprefix("test_"))
        return report

    def print(self, console: Console) -> None:
        table = Table(
            "subject", "model", "passed", "failed", "skipped", "what failed", title="langchain-tests on the embedded provider (simulated)"
        )
        for key in sorted(self.counts, key=lambda key: FAMILIES.index(key[0])):
            found = self.counts[key]
            numbers = (str(found[outcome]) for outcome in ("passed", "failed", "skipped"))
            table.add_row(*key, *numbers, ", ".join(sorted(self.failed[key])))
        console.print(table)


def main() -> int:
    """Print the table; the exit code is pytest's, so an unexpected outcome is told."""
    tally = Tally()
    code = pytest.main([str(Path(__file__).parent), "-q", "--no-header", "--no-summary", "-p", "no:cacheprovider"], plugins=[tally])
    tally.print(Console(width=200))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
