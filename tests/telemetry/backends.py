"""Backends on loopback: one that takes spans, and those that refuse, keep silent, answer late or cannot."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


class Backend(ThreadingHTTPServer):
    """Takes OTLP over HTTP with connections kept open, and counts every span it gets by id; or says how much it refused of each request."""

    daemon_threads = True

    def __init__(self, *, status: int = 200, delay_s: float = 0.0, refused: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.delay_s = delay_s
        self.refused = refused
        self.spans: Counter[bytes] = Counter()
        self.names: Counter[str] = Counter()
        self.attributes: list[dict[str, object]] = []
        self.metrics: dict[str, list[Any]] = {}
        self.paths: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no matter."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Backend = self.server  # type: ignore[assignment]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        server.paths.append(self.path)
        time.sleep(server.delay_s)
        if server.status == 200 and "metrics" in self.path:
            with server.lock:
                server.metrics = {  # cumulative: the last export tells all
                    metric.name: list(metric.sum.data_points or metric.histogram.data_points)
                    for process in ExportMetricsServiceRequest.FromString(body).resource_metrics
                    for scope in process.scope_metrics
                    for metric in scope.metrics
                }
        elif server.status == 200:
            told = ExportTraceServiceRequest.FromString(body)
            with server.lock:
                for process in told.resource_spans:
                    for scope in process.scope_spans:
                        for span in scope.spans:
                            server.spans[span.span_id] += 1
                            server.names[span.name] += 1
                            server.attributes.append({pair.key: pair.value for pair in span.attributes})
        answer = ExportMetricsServiceResponse() if "metrics" in self.path else ExportTraceServiceResponse()
        if server.refused:
            setattr(answer.partial_success, "rejected_data_points" if "metrics" in self.path else "rejected_spans", server.refused)
        said = answer.SerializeToString()
        self.send_response(server.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing for the terminal."""


@contextmanager
def backend(*, status: int = 200, delay_s: float = 0.0, refused: int = 0) -> Iterator[Backend]:
    server = Backend(status=status, delay_s=delay_s, refused=refused)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def refusing() -> Iterator[str]:
    """Nobody listens: a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def black_hole() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def resetting() -> Iterator[str]:
    """Accepts connections and breaks them off."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def hang_up() -> None:
            while not stop.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


@contextmanager
def slow() -> Iterator[str]:
    with backend(delay_s=3.0) as server:
        yield server.url


@contextmanager
def overloaded() -> Iterator[str]:
    with backend(status=503) as server:
        yield server.url
