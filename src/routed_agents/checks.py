"""Checks look at a reply and may reject it, so that the step goes one tier up."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, TypedDict, Unpack, cast, runtime_checkable

from routed_agents.complaints import complain
from routed_agents.errors import ConfigurationError
from routed_agents.steps import Step, ToolCall, field_of, text_of, tool_calls_of

log: Final = logging.getLogger("routed_agents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's answer in the few words the checks need, whatever SDK it came from.

    Attributes:
        text: what it says.
        tool_calls: the tools it asks for.
        unreadable_calls: tool calls whose arguments are not JSON.
        stop_reason: why it ended, in the provider's word.
        refused: the provider says the model declined.
        asked_model: the model that was asked.
        served_model: the model that says it answered.
        served_rank: its rank, as far as the tiers know it.
        obligation: the lowest rank that may answer this step.
        forced_tools: the caller demanded a tool call, so words alone are no answer.
        validated: whether the caller's own parser took the structured output; None when nobody parsed it.
        logprob: mean log probability of its tokens, where the provider was asked for them.
        tool_schemas: the JSON Schemas of the offered tools' arguments, by name, as far as they are known.
        opinions: what judges that were asked about it said, by judge.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    unreadable_calls: tuple[str, ...] = ()
    stop_reason: str | None = None
    refused: bool = False
    asked_model: str = ""
    served_model: str | None = None
    served_rank: int | None = None
    obligation: int = 0
    forced_tools: bool = False
    validated: bool | None = None
    logprob: float | None = None
    tool_schemas: Mapping[str, Mapping[str, Any]] | None = None
    opinions: Mapping[object, str] | None = None


class Known(TypedDict, total=False):
    """The parts of a `Reply` that its caller knows and the reply itself doesn't say."""

    asked_model: str
    served_model: str | None
    served_rank: int | None
    obligation: int
    forced_tools: bool
    validated: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a reply is not good enough.

    Attributes:
        code: recorded.
        evidence: for a person; may quote content.
        alarm: somebody should know, for a promise was about to be broken.

    Raises:
        ConfigurationError: a part is of a wrong type, or the code is empty.
    """

    check: str
    code: str
    evidence: str = ""
    alarm: bool = False

    def __post_init__(self) -> None:
        texts = cast("tuple[object, ...]", (self.check, self.code, self.evidence))
        if not all(isinstance(text, str) for text in texts) or not self.code or not isinstance(cast("object", self.alarm), bool):
            kinds = ", ".join(f"{name} {type(getattr(self, name)).__name__}" for name in ("check", "code", "evidence", "alarm"))
            raise ConfigurationError(
                f"a rejection has {kinds}{'' if self.code else ', and no code'}; "
                'wanted texts and True or False, like Rejection(check="my_check", code="too_short")'
            )


@runtime_checkable
class Check(Protocol):
    """A rule about replies: pure, like a guard."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Rejects a reply the provider marks as declined."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        return Rejection(check="refusal", code="refusal", evidence=reply.stop_reason or "refused") if reply.refused else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """Rejects a reply that hit the output limit: its end is missing."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        if reply.stop_reason in ("max_tokens", "length", "model_context_window_exceeded", "max_output_tokens"):
            return Rejection(check="truncation", code="truncated", evidence=f"stopped by {reply.stop_reason}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """Rejects a reply without words or tool calls."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        if reply.text.strip() or reply.tool_calls or reply.unreadable_calls or reply.refused or reply.stop_reason == "pause_turn":
            return None
        return Rejection(check="empty", code="empty", evidence="no words and no tool call")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidToolCall:
    """Rejects a call of a tool that was not offered, or one whose arguments are not JSON or don't fit the tool's schema."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        if reply.unreadable_calls:
            return Rejection(check="invalid_tool_call", code="unreadable_arguments", evidence=", ".join(reply.unreadable_calls))
        if reply.forced_tools and not reply.tool_calls and not reply.refused:
            return Rejection(check="invalid_tool_call", code="no_tool_call", evidence="a tool call was demanded")
        unknown = [call.name for call in reply.tool_calls if step.tools and call.name not in step.tools]
        if unknown:
            return Rejection(check="invalid_tool_call", code="unknown_tool", evidence=", ".join(unknown))
        schemas = reply.tool_schemas or {}
        for call in reply.tool_calls if schemas else ():
            schema = schemas.get(call.name)
            wrong = mismatch(json.loads(call.arguments), schema, where=call.name) if schema else ""
            if wrong:
                return Rejection(check="invalid_tool_call", code="arguments_mismatch", evidence=wrong)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaMismatch:
    """Rejects structured output that its own schema rules out; looks at the tool call that carries it, else at the text as JSON."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        schema = step.output_schema
        if schema is None or reply.refused or reply.validated is True:
            return None
        if reply.validated is False:
            return Rejection(check="schema_mismatch", code="schema_mismatch", evidence="the caller's parser rejected it")
        title = schema.get("title")
        carrier = next((call for call in reply.tool_calls if call.name == title), None)
        if carrier is None and reply.tool_calls:
            return None  # it calls other tools first; the structured answer comes later
        try:
            value = json.loads(carrier.arguments if carrier else reply.text)
        except ValueError:
            evidence = "not JSON" if reply.text.strip() or carrier else "no structured output"
            return Rejection(check="schema_mismatch", code="schema_mismatch", evidence=evidence)
        wrong = mismatch(value, schema)
        return Rejection(check="schema_mismatch", code="schema_mismatch", evidence=wrong) if wrong else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Rejects the reply of a lower model to a floored or pinned step: an inner fallback or a gateway swapped it unseen."""

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        if not reply.obligation or reply.served_model is None or reply.served_rank is None or reply.served_rank >= reply.obligation:
            return None
        evidence = f"{reply.served_model} answered for {reply.asked_model}"
        return Rejection(check="served_model", code="served_model_below_floor", evidence=evidence, alarm=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowLogprob:
    """Rejects a reply whose words the model itself found unlikely; only where the provider tells (OpenAI, with `logprobs=True`).

    Not among the defaults: what is low differs by model and task, so set the limit from replies of your own.

    Attributes:
        limit: the least mean log probability of a token, in nats.
    """

    limit: float = -1.0

    def __call__(self, step: Step, reply: Reply, /) -> Rejection | None:
        if reply.logprob is None or reply.logprob >= self.limit:
            return None
        return Rejection(check="low_logprob", code="low_logprob", evidence=f"{reply.logprob:.2f} on average, under {self.limit:g}")


DEFAULT: Final[tuple[Check, ...]] = (ServedModel(), Refusal(), Truncation(), Empty(), InvalidToolCall(), SchemaMismatch())
BY_NAME: Final[Mapping[str, type[Any]]] = {
    "served_model": ServedModel,
    "refusal": Refusal,
    "truncation": Truncation,
    "empty": Empty,
    "invalid_tool_call": InvalidToolCall,
    "schema_mismatch": SchemaMismatch,
    "low_logprob": LowLogprob,
}


def reply_of(raw: object, **known: Unpack[Known]) -> Reply:
    """Read a reply of the Anthropic or OpenAI SDK, a LangChain message, or a dict of the same shape.

    Args:
        raw: the reply.
        known: what the caller knows besides: which model was asked and served, and the rank that may answer.
    """
    own = getattr(raw, "__dict__", None)
    if own is not None and "usage_metadata" in own and type(own.get("content")) is str and not own.get("tool_calls"):
        return _from_message(own, known)
    output = field_of(raw, "output")
    if isinstance(output, list) and field_of(raw, "object") == "response":
        return _from_responses(raw, cast("list[object]", output), known)
    choices = field_of(raw, "choices")
    if isinstance(choices, Sequence) and choices:
        return _from_openai(cast("Sequence[object]", choices)[0], known)
    metadata = field_of(raw, "response_metadata")
    told: Mapping[str, object] = cast("Mapping[str, object]", metadata) if isinstance(metadata, Mapping) else MappingProxyType({})
    reason = field_of(raw, "stop_reason") or _reason(told)
    refusal = _refusal(field_of(raw, "additional_kwargs"), field_of(raw, "content"))
    return Reply(
        text=text_of(raw) or refusal,
        tool_calls=tuple([call for call in tool_calls_of(raw) if "__unreadable__" not in call.arguments]),
        unreadable_calls=tuple(dict.fromkeys([*_invalid(raw), *_torn(raw)])),
        stop_reason=reason if isinstance(reason, str) else None,
        refused=reason in ("refusal", "content_filter") or bool(refusal),
        logprob=_logprob(told.get("logprobs")),
        **known,
    )


def _logprob(told: object) -> float | None:
    """The mean over a reply's tokens of OpenAI's log probabilities."""
    tokens = field_of(told, "content") if told else None
    if not isinstance(tokens, Sequence) or not tokens:
        return None
    found = [value for token in cast("Sequence[object]", tokens) if isinstance(value := field_of(token, "logprob"), (int, float))]
    return sum(found) / len(found) if found else None


def _reason(told: Mapping[str, object]) -> object:
    """Why a LangChain message ended; one of the Responses API says so only where it is incomplete."""
    reason = told.get("stop_reason") or told.get("finish_reason")
    return reason or (field_of(details, "reason") if (details := told.get("incomplete_details")) else None)


def _refusal(extra: object, content: object) -> str:
    """The words of a refusal, where a provider sets them apart."""
    refusal = field_of(extra, "refusal") if extra else None
    if isinstance(refusal, str):
        return refusal
    if not isinstance(content, list):
        return ""
    blocks = cast("list[object]", content)
    inner = [field_of(block, "value") if field_of(block, "type") == "non_standard" else block for block in blocks]
    return "".join([text for block in inner if isinstance(text := field_of(block, "refusal"), str)])


def _invalid(raw: object) -> list[str]:
    broken = field_of(raw, "invalid_tool_calls")
    return [str(field_of(call, "name")) for call in cast("Sequence[object]", broken)] if isinstance(broken, Sequence) else []


def _torn(raw: object) -> list[str]:
    """Tools of a streamed reply whose arguments are not JSON: adding chunks mends `{"a": ` to `{}`, which nobody said."""
    chunks = field_of(raw, "tool_call_chunks")
    found: list[str] = []
    for chunk in cast("Sequence[object]", chunks) if isinstance(chunks, Sequence) else ():
        arguments = field_of(chunk, "args")
        if isinstance(arguments, str) and arguments:
            try:
                json.loads(arguments)
            except ValueError:
                found.append(str(field_of(chunk, "name")))
    return found


def inspect(checks: Sequence[Check], step: Step, reply: Reply, *, quoting: bool = False) -> Rejection | None:
    """The first rejection, alarms before others; a check that fails itself lets the reply pass, for it is our trouble.

    Args:
        checks: the rules.
        step: the call.
        reply: its answer.
        quoting: the log may say what a failing check said, which may quote the reply.
    """
    found: list[Rejection] = []
    for check in checks:
        try:
            rejection: object = check(step, reply)
        except ConfigurationError as wrong:
            log.error("check %s failed, and the reply is judged without it: %s", _name_of(check), wrong)
            continue
        except Exception as trouble:
            complain(f"check {_name_of(check)} failed; the reply is judged without it", trouble, quoting=quoting)
            continue
        if isinstance(rejection, Rejection):
            found.append(rejection)
        elif rejection is not None:
            log.error("check %s gave a %s; wanted a Rejection or None", _name_of(check), type(rejection).__name__)
    return min(found, key=lambda rejection: not rejection.alarm, default=None)


def _name_of(check: Check) -> str:
    return str(getattr(check, "__name__", type(check).__name__))


def mismatch(value: object, schema: Mapping[str, Any], *, root: Mapping[str, Any] | None = None, where: str = "reply") -> str:
    """What a JSON value lacks to fit a schema, in words; empty when it fits.

    Understands type, enum, const, required, properties, additionalProperties = false, items, anyOf, oneOf, allOf and $ref, which is what
    structured output uses; keywords beyond these are not judged.
    """
    root = schema if root is None else root
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target: Any = root
        for part in reference.removeprefix("#/").split("/"):
            target = cast("Mapping[str, Any]", target).get(part, {}) if isinstance(target, Mapping) else {}
        return mismatch(value, cast("Mapping[str, Any]", target), root=root, where=where)
    for branch in cast("Sequence[Mapping[str, Any]]", schema.get("allOf", ())):
        if wrong := mismatch(value, branch, root=root, where=where):
            return wrong
    branches = cast("Sequence[Mapping[str, Any]]", schema.get("anyOf") or schema.get("oneOf") or ())
    if branches and all(mismatch(value, branch, root=root, where=where) for branch in branches):
        return f"{where} fits none of the allowed forms"
    if "const" in schema and value != schema["const"]:
        return f"{where} is {value!r}, not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {value!r}, not one of {', '.join(map(str, schema['enum']))}"
    kinds: Any = schema.get("type")
    if kinds is not None:
        allowed = [kinds] if isinstance(kinds, str) else list(kinds)
        if not any(_is(value, kind) for kind in allowed):
            return f"{where} is {type(value).__name__}, not {' or '.join(allowed)}"
    if isinstance(value, Mapping):
        return _object_mismatch(cast("Mapping[str, object]", value), schema, root, where)
    if isinstance(value, list) and isinstance(items := schema.get("items"), Mapping):
        wrongs = (
            mismatch(each, cast("Mapping[str, Any]", items), root=root, where=f"{where}[{index}]")
            for index, each in enumerate(cast("list[object]", value))
        )
        return next((wrong for wrong in wrongs if wrong), "")
    return ""


def _object_mismatch(value: Mapping[str, object], schema: Mapping[str, Any], root: Mapping[str, Any], where: str) -> str:
    missing = [key for key in schema.get("required", ()) if key not in value]
    if missing:
        return f"{where} lacks {', '.join(missing)}"
    properties = cast("Mapping[str, Mapping[str, Any]]", schema.get("properties", {}))
    if schema.get("additionalProperties") is False and (extra := [key for key in value if key not in properties]):
        return f"{where} has the unknown key {extra[0]}"
    wrongs = (mismatch(value[key], inner, root=root, where=f"{where}.{key}") for key, inner in properties.items() if key in value)
    return next((wrong for wrong in wrongs if wrong), "")


def _is(value: object, kind: str) -> bool:
    if kind == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    types: Mapping[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return kind not in types or isinstance(value, types[kind])


def _from_message(own: Mapping[str, Any], known: Known) -> Reply:
    """A LangChain message that only speaks, the common case."""
    told: Mapping[str, Any] = own.get("response_metadata") or {}
    extra: Mapping[str, Any] = own.get("additional_kwargs") or {}
    reason, refusal = told.get("stop_reason") or _reason(told), extra.get("refusal")
    broken = own.get("invalid_tool_calls")
    return Reply(
        text=own["content"] or refusal or "",
        unreadable_calls=tuple([str(field_of(call, "name")) for call in broken]) if broken else (),
        stop_reason=reason if isinstance(reason, str) else None,
        refused=reason in ("refusal", "content_filter") or bool(refusal),
        logprob=_logprob(logprobs) if (logprobs := told.get("logprobs")) else None,
        **known,
    )


def _from_responses(raw: object, output: Sequence[object], known: Known) -> Reply:
    """A reply of OpenAI's Responses API: messages and function calls side by side."""
    said = [
        block
        for item in output
        if field_of(item, "type") == "message"
        for block in cast("Sequence[object]", field_of(item, "content") or ())
    ]
    refusals = [text for block in said if isinstance(text := field_of(block, "refusal"), str)]
    calls = tool_calls_of({"tool_calls": [item for item in output if field_of(item, "type") in ("function_call", "custom_tool_call")]})
    details = field_of(raw, "incomplete_details")
    reason = field_of(details, "reason") if details is not None else None
    return Reply(
        text="\n".join([text for block in said if isinstance(text := field_of(block, "text"), str)] + refusals),
        tool_calls=tuple(call for call in calls if "__unreadable__" not in call.arguments),
        unreadable_calls=tuple(call.name for call in calls if "__unreadable__" in call.arguments),
        stop_reason=reason if isinstance(reason, str) else None,
        refused=bool(refusals) or reason == "content_filter",
        **known,
    )


def _from_openai(choice: object, known: Known) -> Reply:
    message, reason = field_of(choice, "message"), field_of(choice, "finish_reason")
    refusal = field_of(message, "refusal")
    calls = tool_calls_of(message)
    return Reply(
        text=text_of(message) or (refusal if isinstance(refusal, str) else ""),
        tool_calls=tuple(call for call in calls if "__unreadable__" not in call.arguments),
        unreadable_calls=tuple(call.name for call in calls if "__unreadable__" in call.arguments),
        stop_reason=reason if isinstance(reason, str) else None,
        refused=bool(refusal) or reason == "content_filter",
        logprob=_logprob(field_of(choice, "logprobs")),
        **known,
    )
