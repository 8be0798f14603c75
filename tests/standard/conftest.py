"""One strict embedded provider and one event loop per module, and the failures that are expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_asyncio import is_async_test

from routed_agents import embedded
from routed_agents.embedded import models

from .expected import expected_failure

HERE = Path(__file__).parent
FLAWLESS = dict.fromkeys(models.load().models, 0.0)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """The providers' clients are cached, and a client cannot change loops; failures are expected by subject and test."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        subject = getattr(getattr(item, "cls", None), "subject", None)
        reason = expected_failure(subject, item.originalname) if subject is not None else None
        if reason is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
        if is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)
        for advice in ("ignore::langchain_core._api.LangChainBetaWarning", "ignore::UserWarning"):
            item.add_marker(pytest.mark.filterwarnings(advice))  # given to whoever calls the providers' packages this way, routed or not


@pytest.fixture(scope="module")
def served() -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS, strict=True) as running:
        yield running


@pytest.fixture
def provider(served: embedded.Provider, monkeypatch: pytest.MonkeyPatch) -> embedded.Provider:
    """The module's provider, with nothing left of the test before, where the SDKs look for theirs."""
    served.reset()
    for name, value in served.environ.items():
        monkeypatch.setenv(name, value)
    return served


@pytest.fixture
def benchmark(benchmark: Any) -> Any:
    """Runs the suites' one timed test once: what making a model costs is measured in `benchmarks/`."""
    benchmark.disabled = True
    return benchmark
