"""Sends a recorded trace file to a backend that takes OTLP over HTTP."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

from routed_agents.errors import ExtraMissing
from routed_agents.offline.traces import Trouble, documents, warn
from routed_agents.telemetry.endpoints import whole

RETRIED: Final = (429, 502, 503, 504)
"""What OTLP calls a failure that may pass."""
TRIES: Final = 4
LONGEST_PAUSE_S: Final = 20.0
GIVE_UP: Final = 3
"""Exports in a row that nobody answered before a backend counts as gone."""
HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


@dataclass(slots=True)
class Sent:
    """How many spans went where.

    Attributes:
        rejected: the backend took the request and said it did not keep these.
        failed: these did not get through.
        why: the first reason.
    """

    delivered: int = 0
    rejected: int = 0
    failed: int = 0
    why: str = ""

    @property
    def spans(self) -> int:
        """All of them."""
        return self.delivered + self.rejected + self.failed


def send_trace(
    path: str | Path,
    endpoint: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
    advance: Callable[[int], object] = lambda _: None,
    on_trouble: Callable[[Trouble], None] = warn,
    sleep: Callable[[float], object] = time.sleep,
) -> Sent:
    """Replay a trace file with its own ids and times, one request for each export in it. A backend that keys spans by id takes it twice.

    Args:
        path: OTLP JSON lines, plain or gzipped.
        endpoint: such as http://localhost:6006; `/v1/traces` is added where it is missing.
        headers: sent along, besides those of OTEL_EXPORTER_OTLP_HEADERS.
        advance: is given the number of spans of each export that is done with.

    Raises:
        ConfigurationError: the endpoint is no HTTP address, the extra `otlp` is missing, or the file holds no trace.
    """
    url = traces_url(endpoint)
    told = {**headers_of(os.environ), **(headers or {}), "Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    _protobuf()
    sent, silent = Sent(), 0
    for document in documents(path, on_trouble=on_trouble):
        spans = sum(1 for _ in _spans(document))
        if silent >= GIVE_UP:
            sent.failed += spans
        else:
            try:
                kept, rejected, why = _post(url, request_of(document), told, timeout_s, sleep)
                silent = 0
            except OSError as error:  # nobody answers, which the next export will not change
                kept, rejected, why, silent = False, 0, f"{endpoint} does not answer: {getattr(error, 'reason', error)}", silent + 1
            except (ValueError, http.client.HTTPException) as error:
                kept, rejected, why = False, 0, f"{type(error).__name__}: {error}"
            rejected = min(rejected, spans)
            sent.rejected += rejected
            sent.delivered += spans - rejected if kept else 0
            sent.failed += 0 if kept else spans
            sent.why = sent.why or why
        advance(spans)
    return sent


def traces_url(endpoint: str) -> str:
    """Where spans go.

    Raises:
        ConfigurationError: it is no HTTP address.
    """
    return whole(endpoint, "traces")


def headers_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The headers of the standard variables: `name=value,name=value`, URL-encoded."""
    pairs = [pair.partition("=") for name in HEADERS for pair in environ.get(name, "").split(",")]
    return {unquote(key.strip()): unquote(value.strip()) for key, found, value in pairs if found and key.strip()}


def request_of(document: Mapping[str, Any]) -> bytes:
    """An OTLP JSON document as OTLP protobuf: the same ids, times and attributes.

    Raises:
        ConfigurationError: the extra `otlp` is missing.
        ValueError: it is no OTLP.
    """
    _protobuf()
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    copied = json.loads(json.dumps(document))
    for span in _spans(copied):
        for holder in (span, *span.get("links", ())):
            for key in ("traceId", "spanId", "parentSpanId"):
                if holder.get(key):  # hex in OTLP's JSON, base64 in protobuf's
                    holder[key] = base64.b64encode(bytes.fromhex(holder[key])).decode()
    return ParseDict(copied, ExportTraceServiceRequest(), ignore_unknown_fields=True).SerializeToString()


def _protobuf() -> None:
    if any(find_spec(name) is None for name in ("google.protobuf", "opentelemetry.proto")):
        raise ExtraMissing("trace send needs an exporter that isn't installed", "otlp")


def _post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, sleep: Callable[[float], object]) -> tuple[bool, int, str]:
    """Whether the request was taken, how many spans were not kept, and why."""
    packed, pause = gzip.compress(body, 1), 0.5
    for attempt in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, packed, dict(headers)), timeout=timeout_s) as answer:
                return True, *_partial(answer.read(1 << 20))
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in RETRIED or attempt == TRIES:
                    return False, 0, f"{url} answers {error.code} {error.reason}"
                pause = _pause(error.headers.get("Retry-After"), pause)
        sleep(pause)
        pause *= 2
    raise AssertionError


def _pause(asked: str | None, usual: float) -> float:
    try:
        return min(max(float(asked or usual), 0), LONGEST_PAUSE_S)
    except ValueError:
        return usual


def _partial(body: bytes) -> tuple[int, str]:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partly = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return 0, ""  # some backends answer JSON or nothing
    return int(partly.rejected_spans), str(partly.error_message)


def _spans(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for process in cast("Iterable[dict[str, Any]]", document.get("resourceSpans", ())):
        for part in process.get("scopeSpans", ()):
            yield from part.get("spans", ())
