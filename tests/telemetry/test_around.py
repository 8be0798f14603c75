"""While a provider is called our leaf is current and others keep still; the reader of a stream and the owner of a model see none of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from langchain_anthropic import ChatAnthropic
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from routed_agents import RoutedChatModel, Router, Telemetry
from routed_agents.telemetry.around import SUPPRESS, areading, context_for, reading
from routed_agents.telemetry.detection import Emission

Seen = list[tuple[int, bool]]


@pytest.fixture
def leaf() -> trace.Span:
    return TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("chat m")


def now() -> tuple[int, bool]:
    """The current span, and whether others keep still."""
    return trace.get_current_span().get_span_context().span_id, bool(otel_context.get_value(SUPPRESS))


def test_a_stream_is_read_within_the_leaf_and_handed_out_without_it(leaf: trace.Span) -> None:
    inside: Seen = []

    def chunks() -> Iterator[int]:
        try:
            for number in range(3):
                inside.append(now())
                yield number
        finally:
            inside.append(now())

    outside: Seen = []
    for number in reading(chunks(), context_for(leaf, Emission(suppress=True))):
        outside.append(now())
        if number == 1:
            break
    own = leaf.get_span_context().span_id
    assert (set(inside), set(outside), now()) == ({(own, True)}, {(0, False)}, (0, False))


async def test_an_asynchronous_stream_is_read_the_same_way(leaf: trace.Span) -> None:
    inside: Seen = []

    async def chunks() -> AsyncIterator[int]:
        for number in range(3):
            inside.append(now())
            yield number

    outside = [now() async for _ in areading(chunks(), context_for(leaf, Emission()))]
    own = leaf.get_span_context().span_id
    assert (set(inside), set(outside)) == ({(own, False)}, {(0, False)})


def test_an_error_in_a_stream_leaves_no_context_behind(leaf: trace.Span) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ConnectionError

    with pytest.raises(ConnectionError):
        list(reading(broken(), context_for(leaf, Emission(suppress=True))))
    assert now() == (0, False)


@pytest.mark.parametrize(("emit", "enabled"), [("auto", False), ("full", False), ("decision_only", True), ("off", True)])
def test_the_sdks_span_is_off_where_ours_is_counted_and_the_users_model_is_left_as_it_was(
    emit: str, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_OPEN_TELEMETRY", raising=False)
    given = ChatAnthropic(model="claude-haiku-5-5", api_key="simulated")
    strong = ChatAnthropic(model="claude-opus-5-5", api_key="simulated")
    routed = RoutedChatModel(cheap=given, strong=strong, router=Router(telemetry=Telemetry(emit=emit)))  # type: ignore[arg-type]
    used = routed.models.get(routed.router.policy.tiers[0].deployments[0])
    clients = (used._client, used._async_client, given._client)
    assert [client.open_telemetry["traces"]["enabled"] for client in clients] == [enabled, enabled, True]
