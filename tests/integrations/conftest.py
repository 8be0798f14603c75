"""Books to look into after a call, and one embedded provider per module that answers without a mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_openai import ChatOpenAI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_asyncio import is_async_test

from routed_agents import Ledger, Policy, RoutedChatModel, Router, Telemetry, embedded
from routed_agents.embedded import models
from routed_agents.ledger import Entry
from routed_agents.testing import ScriptedChatModel

HERE = Path(__file__).parent
LOOP = asyncio.new_event_loop()
"""For tests that are no coroutines and make asynchronous calls: the providers' clients are cached, and a client cannot change loops."""
FLAWLESS = dict.fromkeys(models.load().models, 0.0)
HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"
EASY = "Classify the sentiment as positive or negative: lovely"
HARD = {"metadata": {"task_class": "agentic_chain"}}
"""The config of a call that must be strong."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop per module: the providers' clients are cached, and a client cannot change loops."""
    for item in items:
        if HERE in item.path.parents and is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(scope="session", autouse=True)
def loop() -> Iterator[None]:
    yield
    LOOP.run_until_complete(LOOP.shutdown_asyncgens())
    LOOP.close()


class Books:
    """A router with an SDK of its own, and what is written in its ledger, spans and metrics."""

    def __init__(self, policy: Policy | None = None, ledger: Any = None, prices: Any = None) -> None:
        self.spans = InMemorySpanExporter()
        self.metrics = InMemoryMetricReader()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        meters = MeterProvider([self.metrics], shutdown_on_exit=False)
        self.ledger: Ledger = ledger if ledger is not None else Ledger.memory()
        telemetry = Telemetry(tracer_provider=traces, meter_provider=meters, labels=("tenant", "thread"))
        self.router = Router(policy, ledger=self.ledger, telemetry=telemetry, prices=prices)

    def model(self, cheap: Any = "yes", strong: Any = "no", **more: Any) -> RoutedChatModel:
        """A routed model over two scripted ones; what is no chat model is what the scripted one replies."""
        return RoutedChatModel(cheap=scripted(HAIKU, cheap), strong=scripted(OPUS, strong), router=self.router, **more)

    @property
    def entries(self) -> list[Entry]:
        return list(self.ledger.entries())

    @property
    def story(self) -> list[tuple[str, str]]:
        """Tier and outcome of every attempt."""
        return [(entry.tier, entry.outcome) for entry in self.entries]

    def named(self, beginning: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name.startswith(beginning)]

    @property
    def leaves(self) -> list[ReadableSpan]:
        return self.named("chat ")

    @property
    def routes(self) -> list[ReadableSpan]:
        return self.named("route ")

    def counted(self, name: str) -> float:
        """What a counter has come to."""
        data = self.metrics.get_metrics_data()
        found = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
        return sum(point.value for metric in found if metric.name == name for point in metric.data.data_points)


def scripted(name: str, replies: Any) -> Any:
    """A scripted model of this name, unless a model is given."""
    if hasattr(replies, "invoke"):
        return replies
    return ScriptedChatModel(model_name=name, replies=replies, provider="anthropic")


class Listener(BaseCallbackHandler):
    """Hears every model run of a trace."""

    def __init__(self) -> None:
        self.started: list[Mapping[str, Any]] = []
        self.ended = 0
        self.failed = 0

    def on_chat_model_start(self, serialized: Any, messages: Any, *, metadata: Any = None, **kwargs: Any) -> None:
        self.started.append(metadata or {})

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended += 1

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.failed += 1


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture(scope="module")
def served() -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS) as running:
        yield running


@pytest.fixture
def provider(served: embedded.Provider, monkeypatch: pytest.MonkeyPatch) -> embedded.Provider:
    """The module's provider, with nothing left of the test before, where the SDKs look for theirs."""
    served.reset()
    values = {
        "ANTHROPIC_BASE_URL": served.anthropic_url,
        "ANTHROPIC_API_URL": served.anthropic_url,
        "ANTHROPIC_API_KEY": "simulated",
        "ANTHROPIC_OPEN_TELEMETRY": "false",
        "OPENAI_BASE_URL": served.openai_url,
        "OPENAI_API_BASE": served.openai_url,
        "OPENAI_API_KEY": "simulated",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return served


@pytest.fixture
def real(provider: embedded.Provider) -> Callable[..., Any]:
    """Makes a chat model of a provider's own package."""

    def make(name: str, **options: Any) -> Any:
        if name.startswith("claude"):
            return ChatAnthropic(model=name, max_retries=0, max_tokens=256, **options)
        return ChatOpenAI(model=name, max_retries=0, stream_usage=True, **options)

    return make


def whole(chunks: Sequence[Any]) -> Any:
    """The sum of a stream's chunks."""
    first, *rest = chunks
    for chunk in rest:
        first = first + chunk
    return first
