"""Reads other tools' exports of model calls into step records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, cast

from routed_agents.errors import ConfigurationError
from routed_agents.offline.lines import lines, opened
from routed_agents.offline.traces import spans_of
from routed_agents.telemetry import names

Format = Literal["otlp", "phoenix", "langfuse", "langsmith"]
OnTrouble = Callable[[int, str], None]

FORMATS: Final[tuple[Format, ...]] = ("otlp", "phoenix", "langfuse", "langsmith")
"""otlp: JSON lines with gen_ai, OpenInference or Langfuse attributes; phoenix: spans of its REST API; langfuse: observations
of its API; langsmith: runs as its client dumps them. Shapes as of openinference-instrumentation-langchain 0.1.80,
opentelemetry-instrumentation-genai-langchain 1.3b0, opentelemetry-instrumentation-langchain 0.62.4, arize-phoenix 20.26,
langfuse 5.0.4 and langsmith 0.15.0."""
CALLS: Final = ("chat", "text_completion", "generate_content")


@dataclass(slots=True)
class Found:
    """What reading came upon.

    Attributes:
        calls: model calls seen.
        empty: of these, calls whose messages were not captured, which leave nothing to decide on.
        other: records that are no model call.
    """

    calls: int = 0
    empty: int = 0
    other: int = 0


def read_export(
    path: str | Path, *, format: Format | Literal["auto"] = "auto", found: Found | None = None, on_trouble: OnTrouble | None = None
) -> Iterator[dict[str, Any]]:
    """The model calls of an export as step records, in the order of the file.

    JSON lines are streamed; a file that is one JSON document, or whose first line is none, is held in memory.

    Args:
        path: plain or gzipped.
        format: "auto" looks at each record.
        found: counts what was seen.
        on_trouble: is given the line and what is wrong with each record that cannot be read.

    Raises:
        ConfigurationError: the file holds no JSON.
    """
    found = found if found is not None else Found()
    for line, record in _records(Path(path), on_trouble or (lambda _, __: None)):
        kind = _kind(record) if format == "auto" else format
        try:
            for call in READERS[kind](record) if kind else ():
                _count(found, call)
                if call.get("messages"):
                    yield call
            if kind is None:
                found.other += 1
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            if on_trouble is not None:
                on_trouble(line, f"not a record of {kind}: {type(error).__name__}: {error}")


def _count(found: Found, call: Mapping[str, Any]) -> None:
    if not call:
        found.other += 1
        return
    found.calls += 1
    found.empty += not call.get("messages")


# ---- files ------------------------------------------------------------------------------------------------------------


def _records(path: Path, on_trouble: OnTrouble) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with opened(path) as file:
        numbered = lines(file)
        begun: list[tuple[int, bytes, Exception | None]] = []
        for each in numbered:
            begun.append(each)
            if each[1].strip():
                break
        if not begun or not isinstance(_document(begun[-1][1]), Exception):
            yield from _each(chain(begun, numbered), on_trouble)
        else:  # one document over several lines, or a line that is none
            yield from _whole(path, [*begun, *numbered], on_trouble)


def _whole(
    path: Path, read: Sequence[tuple[int, bytes, Exception | None]], on_trouble: OnTrouble
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    document = _document(b"".join([line for _, line, _ in read]))
    if not isinstance(document, Exception):
        yield from _parts(1, document)
        return
    if not any(isinstance(_document(line), Mapping) for _, line, _ in read):
        why = next((broken for _, _, broken in read if broken is not None), document)
        raise ConfigurationError(f"{path} is neither JSON lines nor one JSON document: {why}; name another file") from why
    yield from _each(read, on_trouble)


def _each(read: Iterable[tuple[int, bytes, Exception | None]], on_trouble: OnTrouble) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line, broken in read:
        if broken is not None:
            on_trouble(number, f"the file breaks off: {broken}")
        elif line.strip():
            document = _document(line)
            if isinstance(document, Exception):
                on_trouble(number, f"not JSON: {document}")
            else:
                yield from _parts(number, document)


def _document(text: bytes) -> object:
    """What JSON says, or why it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def _parts(line: int, document: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The records in a document: itself, its `data` as an API pages them, or its elements."""
    inside = _mapping(document).get("data", document)
    for record in _list(cast("object", inside)) if isinstance(inside, list) else [inside]:
        yield line, _mapping(record)


def _kind(record: Mapping[str, Any]) -> Format | None:
    if "resourceSpans" in record:
        return "otlp"
    if "span_kind" in record and "context" in record:
        return "phoenix"
    if "run_type" in record:
        return "langsmith"
    if "type" in record and ("traceId" in record or "trace_id" in record):
        return "langfuse"
    return None


# ---- formats ----------------------------------------------------------------------------------------------------------


def _otlp(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for span in spans_of(record):
        yield _from_attributes(span.span_id, span.attributes)


def _phoenix(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield _from_attributes(record["context"]["span_id"], {names.SPAN_KIND: record["span_kind"], **record.get("attributes", {})})


def _langfuse(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if str(record["type"]).upper() != "GENERATION":
        yield {}
        return
    about = _mapping(_decoded(record.get("metadata")))
    usage = _mapping(record.get("usageDetails", record.get("usage_details")))
    model = record.get("model", record.get("providedModelName"))
    session = record.get("sessionId", record.get("session_id"))
    yield _record(str(record["id"]), _decoded(record.get("input")), about=about, tokens=usage.get("input"), model=model, thread=session)


def _langsmith(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if record["run_type"] not in ("llm", "chat_model"):
        yield {}
        return
    extra = _mapping(record.get("extra"))
    about, asked = _mapping(extra.get("metadata")), _mapping(extra.get("invocation_params"))
    inputs = _mapping(record.get("inputs"))
    usage = _usage_of_run(_mapping(record.get("outputs")))
    tools = asked.get("tools") or inputs.get("tools")
    given = inputs.get("messages")
    given = given if given is not None else inputs.get("prompts")
    yield _record(str(record["id"]), given, about=about, tokens=usage, model=about.get("ls_model_name") or asked.get("model"), tools=tools)


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]]] = {
    "otlp": _otlp,
    "phoenix": _phoenix,
    "langfuse": _langfuse,
    "langsmith": _langsmith,
}


def _usage_of_run(outputs: Mapping[str, Any]) -> object:
    for batch in _list(outputs.get("generations")):
        for made in _list(batch):
            message = _mapping(_mapping(made).get("message"))
            usage = _mapping(_mapping(message.get("kwargs", message)).get("usage_metadata"))
            if usage:
                return usage.get("input_tokens")
    return _mapping(outputs.get("usage_metadata")).get("input_tokens")


# ---- spans ------------------------------------------------------------------------------------------------------------


def _from_attributes(span_id: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a leaf span; empty for a span that is no model call."""
    langfuse = str(found.get("langfuse.observation.type", "")).lower() == "generation"
    if found.get(names.OPERATION) not in CALLS and found.get(names.SPAN_KIND) != "LLM" and not langfuse:
        return {}
    given = next(
        (
            value
            for value in (
                _decoded(found.get("gen_ai.input.messages")),
                _indexed(found, "llm.input_messages"),
                _decoded(found.get("langfuse.observation.input")) if langfuse else None,
            )
            if value
        ),
        None,
    )
    tools = _decoded(found.get("gen_ai.tool.definitions")) or [
        _mapping(_decoded(_mapping(each).get("tool.json_schema"))) for each in _indexed(found, "llm.tools")
    ]
    tokens = found.get(names.INPUT_TOKENS, found.get(names.LLM_PROMPT))
    model = next(
        (found[name] for name in (names.LLM_MODEL, names.REQUEST_MODEL, "langfuse.observation.model.name") if found.get(name)), None
    )
    return _record(
        span_id,
        given,
        system=_decoded(found.get("gen_ai.system_instructions")),
        about=_about(found),
        tokens=tokens,
        model=model,
        tools=tools,
        thread=found.get(names.CONVERSATION, found.get("session.id")),
        task_class=found.get(names.TASK_CLASS) if found.get(names.DECLARED) is True and names.CALL_KIND not in found else None,
        node=found.get(names.NODE),
    )


PREFIXES: Final = ("metadata.", "traceloop.association.properties.", "langfuse.observation.metadata.")


def _about(found: Mapping[str, Any]) -> dict[str, Any]:
    """LangChain's metadata, which each tool keeps in its own place."""
    about = dict(_mapping(_decoded(found.get("metadata"))))
    for key, value in found.items():
        for prefix in PREFIXES:
            if key.startswith(prefix):
                about.setdefault(key.removeprefix(prefix), _decoded(value))
    return about


def _indexed(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Attributes like `llm.input_messages.0.message.role` as a list of what stands below each number."""
    groups: dict[int, dict[str, Any]] = {}
    for key, value in found.items():
        if key.startswith(f"{name}."):
            number, _, rest = key[len(name) + 1 :].partition(".")
            if number.isdigit():
                groups.setdefault(int(number), {})[rest] = value
    return [groups[number] for number in sorted(groups)]


# ---- records ----------------------------------------------------------------------------------------------------------


def _record(
    id: str,
    given: object,
    *,
    system: object = None,
    about: Mapping[str, Any],
    tokens: object = None,
    model: object = None,
    tools: object = None,
    thread: object = None,
    task_class: object = None,
    node: object = None,
) -> dict[str, Any]:
    definitions = [_mapping(each) for each in _list(tools)]
    messages: list[dict[str, Any]] = []
    for message in _messages(given):
        content = message.get("content")
        if message["role"] == "tool" and isinstance(content, Mapping) and "function" in content:
            definitions.append(_mapping(cast("object", content)))  # Langfuse's handler puts the tools behind the messages
        else:
            messages.append(message)
    record: dict[str, Any] = {"id": id, "system": _text(system) or None, "messages": messages}
    called = [name for each in definitions if (name := _mapping(each.get("function")).get("name", each.get("name")))]
    record["tools"] = list(dict.fromkeys([str(name) for name in called]))
    optional: dict[str, object] = {
        "approx_tokens": tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else None,
        "node": node or about.get("langgraph_node"),
        "task_class": task_class,
    }
    known = {"recorded_model": model, "thread": thread or about.get("thread_id")}
    facts = {key: str(value) for key, value in known.items() if value}
    return record | {key: value for key, value in optional.items() if value} | ({"metadata": facts} if facts else {})


ROLES: Final = {"human": "user", "ai": "assistant", "function": "tool", "developer": "system", "model": "assistant"}
OF_CLASS: Final = {
    "SystemMessage": "system",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "ToolMessage": "tool",
    "FunctionMessage": "tool",
}


def _messages(given: object) -> Iterator[dict[str, Any]]:
    """Messages in any of the shapes that exports hold, as those of a step record."""
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    if isinstance(given, Mapping):
        inside = _mapping(cast("object", given))
        yield from _messages(inside.get("messages", [inside] if "role" in inside or "type" in inside else None))
        return
    for each in _list(given):
        if isinstance(each, list):  # LangChain takes batches; a step is one
            yield from _messages(cast("object", each))
            return
        yield from _message(each)


def _message(each: object) -> Iterator[dict[str, Any]]:
    if isinstance(each, str):
        yield {"role": "user", "content": each}
        return
    raw = _mapping(each)
    if "lc" in raw:  # LangChain's own serialization
        kind = str(raw["id"][-1]).removesuffix("Chunk")
        raw = {"role": OF_CLASS.get(kind, kind), **_mapping(raw.get("kwargs"))}
    elif any(key.startswith("message.") for key in raw):
        raw = _openinference(raw)
    if "parts" in raw:
        yield from _parted(raw)
        return
    role = str(raw.get("role") or raw.get("type") or "")
    message: dict[str, Any] = {"role": ROLES.get(role, role), "content": raw.get("content") if raw.get("content") is not None else ""}
    for key in ("tool_calls", "tool_call_id", "name"):
        if raw.get(key):
            message[key] = raw[key]
    if not message["role"]:
        raise ValueError("a message without a role")
    yield message


def _parted(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message of the GenAI conventions; results of tools become messages of their own, as step records have them."""
    role = ROLES.get(str(raw["role"]), str(raw["role"]))
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for each in _list(raw["parts"]):
        part = _mapping(each)
        kind = part.get("type")
        if kind == "tool_call":
            calls.append({"name": part.get("name"), "args": _decoded(part.get("arguments")), "id": part.get("id")})
        elif kind == "tool_call_response":
            answer = part.get("response", part.get("result"))
            results.append({"role": "tool", "content": _text(answer), "tool_call_id": part.get("id")})
        elif isinstance(part.get("content"), str):
            texts.append(part["content"])
    if texts or calls or not results:
        yield {"role": role, "content": "\n".join(texts), **({"tool_calls": calls} if calls else {})}
    yield from results


def _openinference(raw: Mapping[str, Any]) -> dict[str, Any]:
    parts = [text for each in _indexed(raw, "message.contents") if isinstance(text := each.get("message_content.text"), str)]
    calls = [
        {
            "name": each.get("tool_call.function.name"),
            "args": _decoded(each.get("tool_call.function.arguments")),
            "id": each.get("tool_call.id"),
        }
        for each in _indexed(raw, "message.tool_calls")
    ]
    return {
        "role": raw.get("message.role"),
        "content": raw.get("message.content") or "\n".join(parts),
        "tool_calls": calls,
        "tool_call_id": raw.get("message.tool_call_id"),
        "name": raw.get("message.name"),
    }


def _text(value: object) -> str:
    """The words of a string, of parts, or of anything else as JSON."""
    value = _decoded(value) if isinstance(value, str) and value[:1] == "[" else value
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(_mapping(each).get("content"), str) for each in _list(cast("object", value))):
        return "\n".join([_mapping(each)["content"] for each in _list(cast("object", value))])
    return json.dumps(value, ensure_ascii=False, default=str)


def _decoded(value: object) -> Any:
    """What JSON in a string says; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{", '"'):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()
