"""Sets up metrics for people who have no meter provider."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from opentelemetry import metrics
from opentelemetry.metrics._internal import _ProxyMeterProvider  # pyright: ignore[reportPrivateUsage]
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from routed_agents.errors import ConfigurationError, ExtraMissing
from routed_agents.forking import renew_in_children
from routed_agents.telemetry.appending import MetricFile, place_of
from routed_agents.telemetry.endpoints import public
from routed_agents.telemetry.providers import meters

log: Final = logging.getLogger("routed_agents")
_MADE: Final[weakref.WeakKeyDictionary[MeterProvider, list[MetricOutput]]] = weakref.WeakKeyDictionary()
"""The providers made here, each with its outputs."""


class MetricOutput:
    """Collects what was counted now and then, and hands it to an exporter on a thread of its own; counting never waits for it.

    How often, OTEL_METRIC_EXPORT_INTERVAL says, in milliseconds; once a minute when it does not.

    Args:
        make: gives the exporter; once more in a forked child, which must not talk on its parent's connection.
        to: where it exports to.

    Attributes:
        closed: it takes no more.
    """

    def __init__(self, make: Callable[[], MetricExporter], *, to: object = None) -> None:
        self.to, self.closed = to, False
        self._exporter = _Renewed(make)
        self.reader = PeriodicExportingMetricReader(self._exporter)
        renew_in_children(self)

    def renew(self) -> None:
        """Export on a connection of one's own and count from zero, in a forked child: its parent tells its own sums."""
        consumer = getattr(self.reader._collect, "__self__", None)  # pyright: ignore[reportPrivateUsage]
        storage = getattr(consumer, "_reader_storages", {}).get(self.reader)
        getattr(storage, "_instrument_view_instrument_matches", {}).clear()  # no lock: a thread of the parent may have held it
        self._exporter.renew()

    def flush(self, timeout_s: float) -> bool:
        """Deliver what was counted so far; False when that did not work, or not in time."""
        return _in_time([lambda: self.reader.force_flush(timeout_s * 1000)], timeout_s) and not self.failed

    def close(self, timeout_s: float) -> None:
        """Deliver a last time and stop; a backend may hold this up for longer than asked for."""
        self.closed = True
        cast("Any", self.reader).shutdown(timeout_s * 1000)

    @property
    def failed(self) -> bool:
        """What was counted did not get through the last time."""
        return self._exporter.failed


class _Renewed(MetricExporter):
    """An exporter that knows whether it got through, and is made anew in a forked child."""

    def __init__(self, make: Callable[[], MetricExporter]) -> None:
        self._make, self.failed = make, False
        self._inner: Any = make()
        super().__init__(preferred_temporality=self._inner._preferred_temporality, preferred_aggregation=self._inner._preferred_aggregation)

    def renew(self) -> None:
        """Talk on a connection of one's own, in a forked child."""
        try:
            self._inner = self._make()
        except Exception as trouble:
            log.error("metrics of a forked process cannot be delivered: %s", type(trouble).__name__)

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any) -> MetricExportResult:
        self.failed = True  # until it is known not to be
        result: MetricExportResult = self._inner.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        self.failed = result is not MetricExportResult.SUCCESS
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return bool(self._inner.force_flush(timeout_millis))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._inner.shutdown(timeout_millis, **kwargs)


def taken() -> str:
    """Who has set a meter provider already, by its type; empty while nobody but us has."""
    current = meters()
    ours = isinstance(current, _ProxyMeterProvider) or (isinstance(current, MeterProvider) and current in _MADE)
    return "" if ours else type(current).__name__


def set_up(file: str | Path | None, endpoint: str | None, resource: Callable[[], Resource]) -> list[MetricOutput]:
    """Have metrics go to this file and this address; the provider is made and set by the first call, and later ones add what is new.

    Raises:
        ConfigurationError: the file cannot be opened, or the extra for the endpoint is missing.
    """
    wanted: list[tuple[object, Callable[[], MetricExporter]]] = []
    if endpoint is not None:
        wanted.append((endpoint, lambda: _otlp(endpoint)))
    if file is not None:
        path = place_of(file, "metrics_file")
        wanted.append((path, lambda: _file(path)))
    provider = meters()
    mine = _MADE.get(provider, []) if isinstance(provider, MeterProvider) else []
    known = {output.to: output for output in mine if not output.closed}
    outputs = [known.get(to) or MetricOutput(make, to=to) for to, make in wanted]
    new = [output for output in outputs if output not in mine]
    if isinstance(provider, MeterProvider):
        for output in new:
            provider.add_metric_reader(output.reader)
        mine += new
    elif new:
        provider = MeterProvider([output.reader for output in new], resource=resource(), shutdown_on_exit=False)
        _MADE[provider] = new
        metrics.set_meter_provider(provider)
    return outputs


def closed(outputs: Sequence[MetricOutput], timeout_s: float) -> bool:
    """Close these, all at once, within the time whatever the backends do; whether all of it got through."""
    return _in_time([partial(output.close, timeout_s) for output in outputs], timeout_s) and not any(output.failed for output in outputs)


def _file(path: Path) -> MetricExporter:
    try:
        return MetricFile(path)
    except OSError as error:
        raise ConfigurationError(f"metrics_file {path} cannot be opened: {error}; wanted a path that can be written") from error


def _otlp(endpoint: str) -> MetricExporter:
    try:
        from routed_agents.telemetry.sending import MetricSender
    except ImportError as error:
        raise ExtraMissing(f"metrics_endpoint {public(endpoint)} needs an exporter that isn't installed", "otlp") from error
    return MetricSender(endpoint)


def _in_time(acts: Sequence[Callable[[], object]], timeout_s: float) -> bool:
    """Whether all were done in time and without an error; what is late goes on, on threads that hold no exit up."""
    done: list[bool] = []

    def acting(act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as trouble:
            log.error("metrics could not be delivered: %s", type(trouble).__name__)
        else:
            done.append(True)

    threads = [threading.Thread(target=acting, args=(act,), name="routed-agents-metrics", daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return len(done) == len(acts)
