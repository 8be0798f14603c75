"""End-to-end tests run when asked for: `pytest -m e2e`, or with RUN_E2E=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import postgres

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip this folder unless it was asked for; the default run stays quick and needs nothing but Python."""
    if "e2e" in str(config.getoption("markexpr")) or os.environ.get("RUN_E2E") == "1":
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="end to end: run with `pytest -m e2e` or RUN_E2E=1"))


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of reference data, beside the checkout or named in REFERENCE_DATA."""
    data = Path(os.environ.get("REFERENCE_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        pytest.skip(f"no reference data at {data}; name the data's folder in REFERENCE_DATA")
    return data


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """The address of a PostgreSQL server's database; the server is of this run's own."""
    pytest.importorskip("langgraph.checkpoint.postgres", reason="no langgraph-checkpoint-postgres: install the dev extra")
    pytest.importorskip("psycopg", reason="no psycopg: install the postgres extra")
    with postgres() as found:
        yield found
