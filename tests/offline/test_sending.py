"""A trace file reaches a backend with its own ids and times, and what does not get through is counted."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from routed_agents.errors import ConfigurationError
from routed_agents.offline.sending import headers_of, send_trace, traces_url
from routed_agents.offline.traces import read_spans

FILE = Path(__file__).parent / "exports" / "openinference.jsonl"


class Backend:
    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], ExportTraceServiceRequest]] = []
        self.codes: list[int] = []
        self.rejects = 0
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                code = backend.codes.pop(0) if backend.codes else 200
                if code == 200:
                    backend.requests.append(
                        (
                            self.path,
                            {name.lower(): value for name, value in self.headers.items()},
                            ExportTraceServiceRequest.FromString(body),
                        )
                    )
                answer = ExportTraceServiceResponse()
                if backend.rejects:
                    answer.partial_success.rejected_spans, backend.rejects = backend.rejects, 0
                self.send_response(code)
                self.end_headers()
                self.wfile.write(answer.SerializeToString())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.close()


def test_ids_times_and_attributes_arrive_as_they_were(backend: Backend) -> None:
    sent = send_trace(FILE, backend.url, headers={"x-key": "k"})
    arrived = [span for _, _, request in backend.requests for r in request.resource_spans for s in r.scope_spans for span in s.spans]
    told = [
        (s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex() or None, s.start_time_unix_nano, s.end_time_unix_nano, len(s.attributes))
        for s in arrived
    ]
    assert told == [(s.trace_id, s.span_id, s.parent_id, s.start_ns, s.end_ns, len(s.attributes)) for s in read_spans(FILE)]
    assert (sent.delivered, sent.failed, backend.requests[0][0], backend.requests[0][1]["x-key"]) == (3, 0, "/v1/traces", "k")


def test_a_failure_that_may_pass_is_tried_again_and_another_counts(backend: Backend) -> None:
    backend.codes, pauses = [503, 200, 400], list[float]()
    sent = send_trace(FILE, backend.url, sleep=pauses.append)
    assert (sent.delivered, sent.failed, pauses, "400" in sent.why) == (2, 1, [0.5], True)


def test_spans_the_backend_did_not_keep_are_counted(backend: Backend) -> None:
    backend.rejects = 1
    sent = send_trace(FILE, backend.url)
    assert (sent.delivered, sent.rejected, sent.failed) == (2, 1, 0)


def test_a_dead_backend_costs_no_spans_unseen() -> None:
    sent = send_trace(FILE, "http://127.0.0.1:9")
    assert (sent.delivered, sent.failed, "does not answer" in sent.why) == (0, 3, True)


def test_headers_come_from_the_standard_variable() -> None:
    assert headers_of({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20abc, x=1"}) == {"authorization": "Basic abc", "x": "1"}


def test_the_path_is_added_once() -> None:
    assert traces_url("http://h:1/") == traces_url("http://h:1/v1/traces") == "http://h:1/v1/traces"
    with pytest.raises(ConfigurationError, match="no HTTP address"):
        traces_url("file:///etc/passwd")
