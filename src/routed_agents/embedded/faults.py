"""Faults are the ways a provider lets its callers down, and the plan says which request meets which."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from types import MappingProxyType

from routed_agents.embedded.conversation import Reply
from routed_agents.embedded.json_fields import JsonObject
from routed_agents.errors import ConfigurationError

HEADER = "x-simulate-fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An HTTP error in the words of both APIs."""

    status: int
    message: str
    anthropic_type: str
    openai_type: str
    openai_code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a kind of fault does to a request; a new kind is one row of these."""

    failure: Failure | None = None
    hold_s: float = 0.0  # wait this long before answering
    reshape: Callable[[Reply], Reply] | None = None
    cut: bool = False  # hang up in the middle of the reply
    drip_s: float = 0.0  # wait this long before every piece of the reply
    late: bool = False  # a stream begins well, and the failure comes in its middle; a reply in one piece fails at once


def _refuse(reply: Reply) -> Reply:
    return replace(reply, text="", calls=(), stop="refusal")


def _truncate(reply: Reply) -> Reply:
    return replace(reply, text=reply.text[: max(1, len(reply.text) // 3)], calls=(), stop="length")


def _empty(reply: Reply) -> Reply:
    return replace(reply, text="", calls=(), stop="end")


def _garble(reply: Reply) -> Reply:
    """Drops the arguments and, where a wire carries them as text, breaks the JSON."""
    empty: JsonObject = {}
    return replace(reply, calls=tuple(replace(call, arguments=empty, raw_arguments='{"unfinished": ') for call in reply.calls))


def _served_by(model: str, reply: Reply) -> Reply:
    return replace(reply, served_model=model)


EFFECTS: Mapping[str, Effect] = MappingProxyType({
    "rate_limit": Effect(
        failure=Failure(
            status=429,
            message="This request would exceed the rate limit for your organization (simulated).",
            anthropic_type="rate_limit_error",
            openai_type="requests",
            openai_code="rate_limit_exceeded",
            retry_after_s=0.0,
        )
    ),
    "overloaded": Effect(
        failure=Failure(status=529, message="Overloaded", anthropic_type="overloaded_error", openai_type="server_error", openai_code="overloaded")  # noqa: E501
    ),
    "server_error": Effect(
        failure=Failure(status=500, message="Internal server error", anthropic_type="api_error", openai_type="server_error")
    ),
    "stream_error": Effect(
        failure=Failure(status=529, message="Overloaded", anthropic_type="overloaded_error", openai_type="server_error", openai_code="overloaded"),  # noqa: E501
        late=True,
    ),
    "timeout": Effect(hold_s=30.0),
    "refusal": Effect(reshape=_refuse),
    "max_tokens": Effect(reshape=_truncate),
    "empty_reply": Effect(reshape=_empty),
    "malformed_tool_call": Effect(reshape=_garble),
    "wrong_model": Effect(reshape=partial(_served_by, "another-model-sim")),
    "cut_stream": Effect(cut=True),
    "slow_loris": Effect(drip_s=0.2),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble, and which requests it is for.

    Of the requests that match `model` and `contains`, it meets `times` in a row, beginning with the `nth`. `served` names the model that
    answers in place of the asked one (kind `wrong_model`).
    """

    kind: str
    _: KW_ONLY
    model: str | None = None
    nth: int | None = None
    times: int = 1
    contains: str | None = None
    after_s: float | None = None
    retry_after_s: float | None = None
    served: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in EFFECTS:
            raise ConfigurationError(f"unknown fault {self.kind!r}; known kinds: {', '.join(EFFECTS)}.")
        if self.served is not None and self.kind != "wrong_model":
            raise ConfigurationError(f"fault {self.kind!r}: served goes with the kind wrong_model only.")
        if self.times < 1 or (self.nth is not None and self.nth < 1):
            raise ConfigurationError(f"fault {self.kind!r}: nth and times count from 1, got nth={self.nth}, times={self.times}.")

    @property
    def effect(self) -> Effect:
        """The effect of this kind, with this fault's own waiting times."""
        effect = EFFECTS[self.kind]
        if effect.failure is not None and self.retry_after_s is not None:
            effect = replace(effect, failure=replace(effect.failure, retry_after_s=self.retry_after_s))
        if self.after_s is not None:
            effect = replace(effect, drip_s=self.after_s) if effect.drip_s else replace(effect, hold_s=self.after_s)
        if self.served is not None:
            effect = replace(effect, reshape=partial(_served_by, self.served))
        return effect

    def meets(self, model: str, body: object) -> bool:
        """Whether a request is one this fault looks at."""
        return (self.model is None or model == self.model or model.startswith(f"{self.model}-20")) and (
            self.contains is None or _says(body, self.contains)
        )


def from_header(value: str) -> Fault:
    """Reads `KIND[;retry-after=SECONDS][;after=SECONDS]` from a request header."""
    kind, *options = (piece.strip() for piece in value.split(";"))
    seconds: dict[str, float] = {}
    for option in options:
        name, _, amount = option.partition("=")
        try:
            seconds[name.strip()] = float(amount)
        except ValueError:
            raise ConfigurationError(f"{HEADER}: {option!r} is not NAME=SECONDS.") from None
    if unknown := seconds.keys() - {"retry-after", "after"}:
        raise ConfigurationError(f"{HEADER}: unknown option {sorted(unknown)[0]!r}; known options: retry-after, after.")
    return Fault(kind, after_s=seconds.get("after"), retry_after_s=seconds.get("retry-after"))


class FaultPlan:
    """The faults still to come, shared by all requests."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, int]] = [(fault, 0) for fault in faults]

    def add(self, *faults: Fault) -> None:
        """Plans more faults; they count requests from now on."""
        with self._lock:
            self._waiting.extend((fault, 0) for fault in faults)

    def clear(self) -> None:
        """Plans nothing any more."""
        with self._lock:
            self._waiting.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def take(self, model: str, body: object) -> Fault | None:
        """The first planned fault whose turn this request is; every fault the request matches counts it."""
        if not self._waiting:
            return None
        with self._lock:
            taken: Fault | None = None
            still: list[tuple[Fault, int]] = []
            for fault, seen in self._waiting:
                if taken is not None and fault.nth is None:
                    still.append((fault, seen))
                    continue
                if not fault.meets(model, body):
                    still.append((fault, seen))
                    continue
                first = fault.nth or 1
                count = seen + 1
                if count >= first and taken is None:
                    taken = fault
                if count < first + fault.times - 1:
                    still.append((fault, count))
            self._waiting = still
        return taken


def _says(value: object, wanted: str) -> bool:
    pending: list[object] = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            if wanted in current:
                return True
        elif isinstance(current, dict):
            pending.extend(current.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        elif isinstance(current, list):
            pending.extend(current)  # pyright: ignore[reportUnknownArgumentType]
    return False
