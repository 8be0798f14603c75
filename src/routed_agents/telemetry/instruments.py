"""The counters and histograms that steps and calls are counted with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from opentelemetry import metrics

from routed_agents.telemetry import names
from routed_agents.telemetry.providers import meters


@dataclass(frozen=True, slots=True)
class Instruments:
    """Our instruments of one meter provider, by name."""

    counters: Mapping[str, metrics.Counter]
    histograms: Mapping[str, metrics.Histogram]


def instruments_of(provider: metrics.MeterProvider | None) -> Instruments:
    """The instruments of a provider; those of the global one are shared, for the API's stand-in keeps all that were ever made."""
    return _made(provider) if provider is not None else _shared(meters())


def _made(provider: metrics.MeterProvider) -> Instruments:
    meter = provider.get_meter(names.SCOPE, names.SCHEMA_VERSION)
    return Instruments(
        {each.name: meter.create_counter(each.name, each.unit, each.says) for each in names.COUNTERS.values()},
        {
            each.name: meter.create_histogram(each.name, each.unit, each.says, explicit_bucket_boundaries_advisory=each.buckets)
            for each in names.HISTOGRAMS.values()
        },
    )


_shared = lru_cache(maxsize=1)(_made)
