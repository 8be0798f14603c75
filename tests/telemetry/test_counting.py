"""Counting tells whose spans a backend counts, how often, and what only repeats."""

from __future__ import annotations

from typing import Any

import pytest

from routed_agents.telemetry.counting import tally
from routed_agents.telemetry.runs import SpanRecord


def span(scope: str, **attributes: Any) -> SpanRecord:
    told = {name.replace("__", "."): value for name, value in attributes.items()}
    return SpanRecord(trace_id="t", span_id="s", name="x", scope=scope, start_ns=0, end_ns=1, attributes=told)


OURS = span("routed_agents", gen_ai__usage__input_tokens=3, gen_ai__usage__cost=0.1)
DECISION = span("routed_agents", routed_agents__cost__pico_usd=5, routed_agents__tokens__input=3)
SDK = span("com.anthropic.sdk.python", gen_ai__usage__input_tokens=3)
AGENT = span("opentelemetry.instrumentation.genai.langchain", gen_ai__usage__input_tokens=3, gen_ai__operation__name="invoke_agent")


@pytest.mark.parametrize(
    ("spans", "counted", "once", "priced", "repeated"),
    [
        ([OURS], {"routed_agents": 1}, True, 1, 0),
        ([DECISION, SDK], {"anthropic-sdk": 1}, True, 0, 0),
        ([OURS, SDK], {"routed_agents": 1, "anthropic-sdk": 1}, False, 1, 0),
        ([DECISION], {}, False, 0, 0),
        ([OURS, AGENT], {"routed_agents": 1}, True, 1, 1),
    ],
)
def test_who_counts_a_call(spans: list[SpanRecord], counted: dict[str, int], once: bool, priced: int, repeated: int) -> None:
    found = tally(spans, 1)
    assert (found.counted, found.once, found.priced, found.repeated) == (counted, once, priced, repeated)
