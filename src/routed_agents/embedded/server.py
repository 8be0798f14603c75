"""The HTTP server: connections, routes, waiting times and what becomes of a fault on the way out."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any, cast

from routed_agents.embedded import anthropic_wire, openai_wire, responses_wire, solvers, strict
from routed_agents.embedded.bad_requests import BadRequest, invalid, not_found, unauthenticated
from routed_agents.embedded.conversation import Reply, Usage
from routed_agents.embedded.faults import HEADER, Effect, Failure, Fault, FaultPlan, from_header
from routed_agents.embedded.json_fields import JsonObject, flag, parse, text
from routed_agents.embedded.models import Catalogue, Latency
from routed_agents.embedded.prompt_cache import PromptCache
from routed_agents.embedded.reply_limits import limited
from routed_agents.embedded.wire import Answer, Prompt, Wire
from routed_agents.errors import ConfigurationError

_MOST_BYTES = 32 * 1024 * 1024
_KEPT_REQUESTS = 10_000
_WIRES: Mapping[str, Wire] = MappingProxyType({
    "/v1/messages": anthropic_wire,
    "/v1/chat/completions": openai_wire,
    "/v1/responses": responses_wire,
})  # fmt: skip
_COUNT_TOKENS, _MODELS = "/v1/messages/count_tokens", "/v1/models"
_NO_KEY = {
    "anthropic": "x-api-key header is required",
    "openai": "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What was asked in one request, and what became of it."""

    path: str
    model: str
    stream: bool
    status: int
    faults: tuple[str, ...] = ()
    usage: Usage | None = None
    tools: tuple[str, ...] = ()
    mistaken: bool = False  # the seeded error rate made this answer a wrong one
    at: float = 0.0
    body: JsonObject = field(hash=False)


class Desk:
    """Everything the connections share: rows, faults, cache, records."""

    def __init__(
        self,
        *,
        seed: int,
        time_scale: float,
        faults: FaultPlan,
        clock: Callable[[], float],
        catalogue: Catalogue,
        strict: bool = False,
    ) -> None:
        self.seed = seed
        self.strict = strict
        self.time_scale = time_scale
        self.faults = faults
        self.clock = clock
        self.catalogue = catalogue
        self.cache = PromptCache(clock)
        self.served: deque[Served] = deque(maxlen=_KEPT_REQUESTS)
        self.closing = threading.Event()

    def wait(self, seconds: float) -> None:
        """Waits, unless the server closes first."""
        if seconds > 0:
            self.closing.wait(seconds)


class Server(socketserver.TCPServer):
    """A loopback listener with one thread per connection; closing it ends all of them."""

    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, desk: Desk, port: int) -> None:
        self.desk = desk
        self._open: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.02,), name="embedded-provider", daemon=True)

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.socket.getsockname()[1])

    def start(self) -> None:
        """Accepts connections from now on."""
        self._accepting.start()

    def close(self) -> None:
        """Hangs up on everybody and returns when every thread has ended."""
        self.desk.closing.set()
        self.shutdown()
        self._accepting.join()
        self.server_close()
        with self._lock:
            waiting = list(self._open.items())
        for _, connection in waiting:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread, _ in waiting:
            thread.join(timeout=5)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hands a new connection to its own thread."""
        thread = threading.Thread(target=self._talk, args=(request, client_address), name="embedded-connection", daemon=True)
        with self._lock:
            self._open[thread] = request
        thread.start()

    def _talk(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the caller has hung up: nobody is left to tell
        finally:
            self.shutdown_request(request)
            with self._lock:
                self._open.pop(threading.current_thread(), None)


class _Connection(BaseHTTPRequestHandler):
    """Talks HTTP/1.1 with one caller."""

    protocol_version = "HTTP/1.1"
    raw_requestline: bytes  # set by the standard library, which does not declare it
    # Unbuffered small writes with Nagle's algorithm meet the caller's delayed ACK: 46 ms per call instead of 2 (measured).
    wbufsize = 65536
    disable_nagle_algorithm = True
    rbufsize = 65536

    @property
    def _desk(self) -> Desk:
        return cast("Server", self.server).desk

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the terminal quiet."""

    def parse_request(self) -> bool:
        """Reads the request line and the headers; the standard library's mail parser takes 0.2 ms for the same."""
        self.requestline = str(self.raw_requestline, "iso-8859-1").rstrip("\r\n")
        self.command, self.path, self.request_version = [*self.requestline.split(" "), "", "", ""][:3]
        self.close_connection = True
        if not self.request_version.startswith("HTTP/1."):
            self.request_version = "HTTP/1.1"
            self.send_error(400, "Bad request line")
            return False
        self._sent: dict[str, str] = {}
        for _ in range(200):
            line = self.rfile.readline(65537)
            if line in (b"\r\n", b"\n", b""):
                break
            name, _, value = str(line, "iso-8859-1").partition(":")
            self._sent[name.strip().lower()] = value.strip()
        self.close_connection = self._sent.get("connection", "").lower() == "close" or self.request_version == "HTTP/1.0"
        if self._sent.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        return True

    def do_GET(self) -> None:
        """Answers the model lists."""
        self._request_id = f"req_sim_{uuid.uuid4().hex[:20]}"
        wire = anthropic_wire if self._speaks_anthropic() else openai_wire
        try:
            self._check_key(wire)
            path = self.path.partition("?")[0]
            if path == _MODELS:
                self._send_json(200, wire.model_list(self._desk.catalogue))
                return
            name = path.removeprefix(f"{_MODELS}/")
            model = None if name == path else self._desk.catalogue.find(name, "anthropic" if wire is anthropic_wire else "openai")
            if model is None:
                raise not_found(f"Not found: GET {path}" if name == path else f"model: {name}")
            self._send_json(200, wire.model_info(model))
        except BadRequest as refused:
            self._send_failure(wire, refused.failure)

    def do_POST(self) -> None:
        """Answers everything that costs tokens."""
        self._request_id = f"req_sim_{uuid.uuid4().hex[:20]}"
        path = self.path.partition("?")[0]
        wire = _WIRES.get(path) or (anthropic_wire if self._speaks_anthropic() else openai_wire)
        body: JsonObject = {}
        try:
            body = self._body()
            self._check_key(wire)
            if path == _COUNT_TOKENS:
                self._send_json(200, {"input_tokens": anthropic_wire.read(body, self._desk.catalogue, counting=True).tokens})
            elif path in _WIRES:
                self._answer(wire, path, body)
            else:
                raise not_found(f"Not found: POST {path}. The embedded provider serves {', '.join([*_WIRES, _COUNT_TOKENS, _MODELS])}.")
        except BadRequest as refused:
            self._record(
                Served(path=path, model=text(body, "model"), stream=flag(body, "stream"), status=refused.failure.status, body=body)
            )
            self._send_failure(wire, refused.failure)
        except OSError:
            raise
        except Exception as bug:  # a reply the caller can read is worth more than a dead connection
            failure = Failure(
                status=500,
                message=f"embedded provider: {type(bug).__name__}: {bug}",
                anthropic_type="api_error",
                openai_type="server_error",
            )
            self._send_failure(wire, failure)

    def _answer(self, wire: Wire, path: str, body: JsonObject) -> None:
        desk = self._desk
        prompt = wire.read(body, desk.catalogue)
        model, stream = prompt.conversation.model, flag(body, "stream")
        if desk.strict:
            strict.check(path, body, model)
        fault = self._fault(text(body, "model"), body)
        effect = fault.effect if fault else Effect()
        asked = Served(
            path=path,
            model=text(body, "model"),
            stream=stream,
            status=effect.failure.status if effect.failure else 200,
            faults=(fault.kind,) if fault else (),
            tools=tuple(tool.name for tool in prompt.conversation.tools),
            body=body,
        )
        if effect.failure is not None and not (effect.late and stream):
            self._record(asked)
            desk.wait(effect.hold_s)
            self._send_failure(wire, effect.failure)
            return
        answer, mistaken = self._solve(wire, path, body, prompt, effect)
        self._record(replace(asked, usage=answer.usage, mistaken=mistaken))  # before the wait: who gives up has still asked
        desk.wait(effect.hold_s)
        if stream:
            events = list(wire.stream(answer))
            if effect.failure is not None:
                events = [*events[: len(events) // 2], wire.stream_error(effect.failure, self._request_id)]
            self._send_stream(events, effect, model.latency, answer.usage.output)
        else:
            desk.wait(desk.time_scale * model.latency.total_s(answer.usage.output))
            self._send_json(200, wire.write(answer), effect)

    def _solve(self, wire: Wire, path: str, body: JsonObject, prompt: Prompt, effect: Effect) -> tuple[Answer, bool]:
        desk, conversation = self._desk, prompt.conversation
        mistaken = solvers.is_mistaken(conversation, desk.seed)
        reply: Reply = solvers.solve(conversation, mistaken=mistaken)
        if desk.strict:
            reply = strict.thoughtful(reply, body, conversation.model, path)
        if effect.reshape is not None:
            reply = effect.reshape(reply)
        serial = uuid.uuid4().hex[:20]
        prefix = "toolu_sim" if wire is anthropic_wire else "call_sim"
        reply = replace(reply, calls=tuple(replace(call, id=f"{prefix}_{serial}{index}") for index, call in enumerate(reply.calls)))
        reply, output = limited(reply, conversation)
        usage = replace(prompt.measure(desk.cache, self._key()), output=output)
        answer = Answer(
            body=body,
            model_id=text(body, "model"),
            reply=reply,
            usage=usage,
            serial=serial,
            reports_cache_writes=conversation.model.reports_cache_writes,
            created=int(desk.clock()),
        )
        return answer, mistaken

    def _fault(self, model: str, body: JsonObject) -> Fault | None:
        wanted = self._sent.get(HEADER)
        if wanted is None:
            return self._desk.faults.take(model, body)
        try:
            return from_header(wanted)
        except ConfigurationError as wrong:
            raise invalid(str(wrong)) from None

    def _body(self) -> JsonObject:
        length = self._sent.get("content-length", "")
        if not length.isdigit():
            self.close_connection = True
            raise invalid("content-length: Field required", status=411)
        if int(length) > _MOST_BYTES:
            self.close_connection = True
            raise invalid("Request exceeds the maximum size", status=413)
        try:
            body = parse(self.rfile.read(int(length)))
        except ValueError as wrong:
            raise invalid(f"The request body is not valid JSON: {wrong}") from None
        if not isinstance(body, dict):
            raise invalid("The request body is not a JSON object.")
        return cast("JsonObject", body)

    def _speaks_anthropic(self) -> bool:
        return "anthropic-version" in self._sent or "x-api-key" in self._sent or self.path.startswith("/v1/messages")

    def _key(self) -> str:
        return self._sent.get("x-api-key") or self._sent.get("authorization", "").removeprefix("Bearer ").strip()

    def _check_key(self, wire: Wire) -> None:
        if not self._key():
            raise unauthenticated(_NO_KEY["anthropic" if wire is anthropic_wire else "openai"])

    def _record(self, served: Served) -> None:
        self._desk.served.append(replace(served, at=self._desk.clock()))

    def _send_failure(self, wire: Wire, failure: Failure) -> None:
        headers = {} if failure.retry_after_s is None else {"retry-after": f"{failure.retry_after_s:g}"}
        self._send_json(failure.status, wire.error(failure, self._request_id), headers=headers)

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        reset = datetime.fromtimestamp(self._desk.clock() + 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = {
            "server": "routed-agents-embedded",
            "x-routed-agents-simulated": "true",
            "request-id": self._request_id,
            "x-request-id": self._request_id,
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "0" if status == 429 else "3999",
            "anthropic-ratelimit-requests-reset": reset,
            "anthropic-ratelimit-tokens-limit": "4000000",
            "anthropic-ratelimit-tokens-remaining": "0" if status == 429 else "4000000",
            "anthropic-ratelimit-tokens-reset": reset,
            "x-ratelimit-limit-requests": "4000",
            "x-ratelimit-remaining-requests": "0" if status == 429 else "3999",
            **headers,
        }
        if self.close_connection:
            lines["connection"] = "close"
        return "".join(
            [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\n", *(f"{k}: {v}\r\n" for k, v in lines.items()), "\r\n"]
        ).encode()

    def _send_json(self, status: int, body: JsonObject, effect: Effect | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        sent = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
        self.wfile.write(self._head(status, sent))
        if effect is not None and (effect.cut or effect.drip_s):
            step = max(1, len(data) // 8)
            self._send_slowly([data[start : start + step] for start in range(0, len(data), step)], effect)
            return
        self.wfile.write(data)
        self.wfile.flush()

    def _send_stream(self, events: Iterable[bytes], effect: Effect, latency: Latency, output_tokens: int) -> None:
        pieces = list(events)
        scale = self._desk.time_scale
        self._desk.wait(scale * latency.first_token_s)
        self.wfile.write(
            self._head(
                200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "transfer-encoding": "chunked"}
            )
        )
        chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
        pause = scale * output_tokens / latency.tokens_per_s / len(pieces)
        if effect.cut or effect.drip_s or pause:
            self._send_slowly(chunks, effect, pause)
        else:
            self.wfile.write(b"".join(chunks))
        if not self.close_connection:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _send_slowly(self, pieces: list[bytes], effect: Effect, pause: float = 0.0) -> None:
        for piece in pieces[: len(pieces) // 2] if effect.cut else pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            self._desk.wait(max(pause, effect.drip_s))
        if effect.cut:
            self.close_connection = True
