"""Exporters that send by OTLP over HTTP, and hear what a backend refused of a request that it took: the SDK's do not read its answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Final, cast

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

log: Final = logging.getLogger("routed_agents")
CREDENTIALS: Final = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_{}CREDENTIAL_PROVIDER"
"""Names a session of the user's for the SDK to send by; what is refused then is not heard of."""


class Answers:
    """What a backend says to the requests of an exporter.

    Args:
        signal: `TRACES` or `METRICS`.
        form: the message of its answers.
        what: what it may refuse, as it names it there.

    Attributes:
        session: the session to send by; None where the environment names one.
        refused: how much the last request that it took was short of.
    """

    def __init__(self, signal: str, form: type[Any], what: str) -> None:
        self.refused = 0
        self._form, self._what = form, what
        self.session: requests.Session | None = None
        if not any(os.environ.get(CREDENTIALS.format(which)) for which in ("", f"{signal}_")):
            self.session = requests.Session()
            self.session.hooks["response"].append(self._hear)

    def _hear(self, answer: requests.Response, **_: object) -> None:
        if answer.status_code != 200 or "protobuf" not in answer.headers.get("Content-Type", ""):
            return
        try:
            told = self._form.FromString(answer.content)
        except DecodeError:
            return
        self.refused = max(getattr(told.partial_success, f"rejected_{self._what}"), 0)
        if self.refused:  # why may hold what the spans hold
            log.error("a backend refused %d %s of a request that it took", self.refused, self._what.replace("_", " "))


class SpanSender(OTLPSpanExporter):
    """Sends spans.

    Attributes:
        refused: how many of the last batch the backend refused, though it took the batch.
    """

    def __init__(self, endpoint: str) -> None:
        self._answers = Answers("TRACES", ExportTraceServiceResponse, "spans")
        super().__init__(endpoint=endpoint, session=self._answers.session)

    @property
    def refused(self) -> int:
        return self._answers.refused

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._answers.refused = 0
        return super().export(spans)


class MetricSender(OTLPMetricExporter):
    """Sends metrics; what the backend refused in part has failed."""

    def __init__(self, endpoint: str) -> None:
        self._answers = Answers("METRICS", ExportMetricsServiceResponse, "data_points")
        super().__init__(endpoint=endpoint, session=self._answers.session)

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any) -> MetricExportResult:
        self._answers.refused = 0
        done = cast("Any", super()).export(metrics_data, timeout_millis, **kwargs)
        return MetricExportResult.FAILURE if self._answers.refused else done
