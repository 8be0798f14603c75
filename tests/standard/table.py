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
    """Counts the outcomes of each subject's tests."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.failed: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: Any) -> Any:
        report = yield
        subject = getattr(item.cls, "subject", None)
        if subject is None or not (report.when == "call" or report.failed or (report.when == "setup" and report.skipped)):
            return report
        key = (subject.family, subject.label)
        self.counts[key][report.outcome] += 1
        if report.failed:
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
    """Print the table; a failure is one whether or not it is expected, and the exit code tells only of suites that could not be run."""
    tally = Tally()
    how = ["-q", "--runxfail", "--tb=no", "--no-header", "--no-summary", "-p", "no:cacheprovider"]
    code = pytest.main([str(Path(__file__).parent), *how], plugins=[tally])
    tally.print(Console(width=200))
    return 0 if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(code)


if __name__ == "__main__":
    sys.exit(main())
