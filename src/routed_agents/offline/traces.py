"""Reads recorded traces."""

from __future__ import annotations

import base64
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from routed_agents.errors import ConfigurationError
from routed_agents.offline.lines import BOM, lines, opened
from routed_agents.telemetry.runs import NOTHING, Run, SpanRecord, Status, run_of

Value = str | int | float | bool | bytes | None | tuple["Value", ...] | Mapping[str, "Value"]

KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: Final[tuple[Status, ...]] = ("unset", "ok", "error")
HAS_IS_REMOTE: Final = 0x100
IS_REMOTE: Final = 0x200
"""Bits of a span's flags that say whether its parent is in another process."""
SETTLING: Final = 64
"""Finished traces held back, so that a span that ends after its root still finds its run."""
OPEN_TRACES: Final = 4_096
"""Traces without a root that are held; a crashed process leaves such traces, and they must not pile up."""

SQLITE: Final = b"SQLite format 3\0"
"""How a SQLite file begins."""

log: Final = logging.getLogger("routed_agents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something in a trace file that could not be read and was passed over.

    Attributes:
        line: its line; the one after the last when the file breaks off.
        torn: it is the end of a file that broke off in the middle of a write.
    """

    path: Path
    line: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {'torn last line' if self.torn else 'passed over'}, {self.reason}"


def warn(trouble: Trouble) -> None:
    """Tell the log what was passed over."""
    log.warning("%s", trouble)


def read_spans(path: str | Path, *, on_trouble: Callable[[Trouble], None] = warn) -> Iterator[SpanRecord]:
    """The spans of an OTLP JSON file, one export a line, in the order they were written; streamed.

    Args:
        path: plain or gzipped.
        on_trouble: is given each line that cannot be read; `list.append` collects and so counts them.

    Raises:
        ConfigurationError: the file has lines, and none of them is a trace.
    """
    for _, spans in _read(path, on_trouble):
        yield from spans


def documents(path: str | Path, *, on_trouble: Callable[[Trouble], None] = warn) -> Iterator[dict[str, Any]]:
    """The exports of an OTLP JSON file as they stand there; streamed.

    Raises:
        ConfigurationError: the file has lines, and none of them is a trace.
    """
    for document, _ in _read(path, on_trouble):
        yield document


def _read(path: str | Path, on_trouble: Callable[[Trouble], None]) -> Iterator[tuple[dict[str, Any], list[SpanRecord]]]:
    path = Path(path)
    readable, troubles = 0, 0
    with opened(path) as file:
        for number, line, broken in lines(file):
            if broken is None and not line.strip():
                continue
            if number == 1 and line.startswith(SQLITE):
                raise ConfigurationError(
                    f"{path} is a SQLite file, as a ledger is, and no trace; see routed-agents report, or name another file"
                )
            found = broken or _exported(line)
            if isinstance(found, Exception):
                troubles += 1
                torn = not line.endswith(b"\n")
                on_trouble(Trouble(path=path, line=number, reason=_why(found), torn=torn))
            else:
                readable += 1
                yield found
    if troubles and not readable:
        raise ConfigurationError(f"{path} holds no trace; wanted OTLP JSON lines as configure(trace_file=...) writes; name another file")


def _exported(line: bytes) -> tuple[dict[str, Any], list[SpanRecord]] | Exception:
    """The export on a line and its spans, or why there is none."""
    try:
        document = json.loads(line.removeprefix(BOM).decode("utf-8", "surrogatepass"))
        return document, list(spans_of(document))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        return error


class _Malformed(ValueError):
    """A part of a span is not what OTLP has there."""


def _why(error: Exception) -> str:
    """Why a line cannot be read, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at column {error.start + 1}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}"
    if isinstance(error, KeyError):
        return f"no OTLP trace: {error.args[0]} is missing"
    if isinstance(error, _Malformed):
        return f"no OTLP trace: {error}"
    return f"{type(error).__name__}: {error}"


def runs(path: str | Path, *, on_trouble: Callable[[Trouble], None] = warn) -> Iterator[Run]:
    """The runs of a trace file, about in the order they ended. Memory holds the runs that overlap, not the file."""
    return group(read_spans(path, on_trouble=on_trouble))


def group(spans: Iterable[SpanRecord]) -> Iterator[Run]:
    """Put spans together to runs, each as soon as its root and the stragglers behind it have come."""
    waiting: OrderedDict[str, dict[str, SpanRecord]] = OrderedDict()
    settling: OrderedDict[str, None] = OrderedDict()
    for span in spans:
        waiting.setdefault(span.trace_id, {}).setdefault(span.span_id, span)  # a file written twice has every span twice
        if span.is_root:
            settling[span.trace_id] = None
            settling.move_to_end(span.trace_id)
        if len(settling) > SETTLING:
            done, _ = settling.popitem(last=False)
            yield run_of(waiting.pop(done).values())
        if len(waiting) - len(settling) > OPEN_TRACES:
            oldest = next(trace for trace in waiting if trace not in settling)
            yield run_of(waiting.pop(oldest).values())
    for trace in [*settling, *(trace for trace in waiting if trace not in settling)]:
        yield run_of(waiting[trace].values())


def spans_of(document: Mapping[str, Any]) -> Iterator[SpanRecord]:
    """The spans of one OTLP JSON document.

    Raises:
        KeyError: it is none, for want of this key.
        ValueError, TypeError, AttributeError, OverflowError: it is none, for what stands there.
    """
    if "resourceSpans" not in document:
        raise KeyError("resourceSpans")
    for process in document["resourceSpans"]:
        resource = _attributes(process.get("resource", NOTHING).get("attributes", ()))
        for part in process.get("scopeSpans", ()):
            scope = _text(part.get("scope", NOTHING), "name")
            for span in part.get("spans", ()):
                yield _span(span, scope, resource)


def _span(span: Mapping[str, Any], scope: str, resource: Mapping[str, Any]) -> SpanRecord:
    parent = _text(span, "parentSpanId") or None
    flags = int(span.get("flags", 0))
    status = span.get("status", NOTHING)
    return SpanRecord(
        trace_id=_id(span, "traceId"),
        span_id=_id(span, "spanId"),
        parent_id=parent,
        is_root=parent is None or bool(flags & HAS_IS_REMOTE and flags & IS_REMOTE),
        name=_text(span, "name"),
        kind=_named(span.get("kind", 0), KINDS, "SPAN_KIND_"),
        scope=scope,
        start_ns=_whole(span.get("startTimeUnixNano", 0)),
        end_ns=_whole(span.get("endTimeUnixNano", 0)),
        status=cast("Status", _named(status.get("code", 0), STATUSES, "STATUS_CODE_")),
        message=_text(status, "message"),
        attributes=_attributes(span.get("attributes", ())),
        resource=resource,
    )


def _id(span: Mapping[str, Any], key: str) -> str:
    if not isinstance(found := span[key], str) or not found:
        raise _Malformed(f"{key} is {json.dumps(found)[:40]}")
    return found


def _text(holder: Mapping[str, Any], key: str) -> str:
    if not isinstance(found := holder.get(key) or "", str):
        raise _Malformed(f"{key} is {json.dumps(found)[:40]}")
    return found


def _whole(value: Any) -> int:
    number = int(value)  # a string, since JSON numbers cannot hold 64 bits
    if not -(2**63) <= number < 2**63:
        raise _Malformed("a number has more than 64 bits")
    return number


def _named(value: int | str, known: Sequence[str], prefix: str) -> str:
    """An enum of protobuf's JSON form, which may be its number or its name."""
    if isinstance(value, str) and not value.isdigit():
        return value.removeprefix(prefix).lower()
    number = int(value)
    return known[number] if 0 <= number < len(known) else known[0]


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return MappingProxyType({pair["key"]: _value(pair.get("value", NOTHING)) for pair in pairs})


def _value(value: Mapping[str, Any]) -> Value:
    for kind, raw in value.items():
        match kind:
            case "intValue":
                return _whole(raw)
            case "doubleValue":
                return float(raw)  # "NaN" and "Infinity" are strings
            case "arrayValue":
                return tuple([_value(each) for each in raw.get("values", ())])
            case "kvlistValue":
                return _attributes(raw.get("values", ()))
            case "bytesValue":
                return base64.b64decode(raw)
            case _:
                return raw
    return None
