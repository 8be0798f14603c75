"""The OpenAI chat completions format: what a request must look like, and how a reply, a stream or an error is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

from routed_agents.embedded.bad_requests import invalid, not_found
from routed_agents.embedded.conversation import Choice, Conversation, Image, Part, Text, Tool, ToolCall, ToolResult, Turn, Usage
from routed_agents.embedded.faults import Failure
from routed_agents.embedded.json_fields import JsonObject, as_object, compact, flag, integer, items, member, objects, parse, strings, text
from routed_agents.embedded.models import Catalogue, Model
from routed_agents.embedded.tokens import count_tokens, scaled
from routed_agents.embedded.wire import Answer, Prompt

ANY_OBJECT: JsonObject = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
_FINISH = {"end": "stop", "tool": "tool_calls", "length": "length", "stop_sequence": "stop", "refusal": "content_filter"}
REFUSAL = "I'm sorry, I can't help with that. (simulated refusal)"
PIECE = 24  # characters per streamed delta


def read(body: JsonObject, catalogue: Catalogue) -> Prompt:
    """Checks a request as the real API does and reads it into a conversation."""
    model = find_model(body, catalogue)
    messages = items(body, "messages")
    if not messages:
        raise invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.", param="messages"
        )
    check_sampling(body, model)
    tools = tuple(_tool(index, tool) for index, tool in enumerate(objects(body, "tools")))
    choice, forced = tool_choice(body, tools)
    turns = tuple(_turn(index, as_object(message)) for index, message in enumerate(messages))
    check_tool_results(turns)
    schema = _schema(body, turns)
    canonical = compact([body.get("tools"), schema]) if tools or schema else ""
    conversation = Conversation(
        model=model,
        system="\n".join(turn.text for turn in turns if turn.role == "system"),
        turns=tuple(turn for turn in turns if turn.role != "system"),
        tools=tools,
        tool_choice=choice,
        forced_tool=forced,
        parallel_calls=flag(body, "parallel_tool_calls", default=True),
        schema=schema,
        max_tokens=integer(body, "max_completion_tokens") or integer(body, "max_tokens") or model.max_output,
        stop=tuple(strings(body, "stop")) or ((text(body, "stop"),) if text(body, "stop") else ()),
    )
    return prompt(conversation, canonical, objects(body, "messages"), catalogue)


def prompt(conversation: Conversation, canonical: str, messages: list[JsonObject], catalogue: Catalogue) -> Prompt:
    """The checked conversation with its text for the automatic cache."""
    model = conversation.model
    pictures: list[str] = []
    lines = [canonical, *(_line(message, pictures) for message in messages)]
    whole, extra = "\n".join(lines), len(messages) * 3 + len(pictures) * catalogue.image_tokens
    tokens = scaled(count_tokens(whole) + extra, model.tokenizer_factor)
    if tokens > model.window:
        raise invalid(
            f"This model's maximum context length is {model.window} tokens. However, your messages resulted in {tokens} tokens. "
            "Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    return Prompt(conversation=conversation, tokens=tokens, measure=lambda cache, key: cache.automatic(model, key, whole, extra))


def find_model(body: JsonObject, catalogue: Catalogue) -> Model:
    """The row of the model asked for."""
    name = text(body, "model")
    if not name:
        raise invalid("you must provide a model parameter")
    model = catalogue.find(name, "openai")
    if model is None:
        raise not_found(f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found")
    return model


def check_sampling(body: JsonObject, model: Model) -> None:
    """Refuses sampling parameters where the model does not take them."""
    for name in ("temperature", "top_p"):
        if not model.sampling and body.get(name) not in (None, 1, 1.0):
            message = f"Unsupported value: '{name}' does not support {body[name]} with this model. Only the default (1) value is supported."
            raise invalid(message, param=name, code="unsupported_value")


def _tool(index: int, tool: JsonObject) -> Tool:
    function = member(tool, "function")
    if text(tool, "type") != "function" or not text(function, "name"):
        raise invalid(
            f"Missing required parameter: 'tools[{index}].function'.", param=f"tools[{index}].function", code="missing_required_parameter"
        )
    return Tool(name=text(function, "name"), description=text(function, "description"), schema=member(function, "parameters"))


def tool_choice(body: JsonObject, tools: tuple[Tool, ...]) -> tuple[Choice, str]:
    """Which tools may or must be called."""
    choice = body.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return cast("Choice", choice or "auto"), ""
    if not tools:
        raise invalid("Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if choice == "required":
        return "any", ""
    name = text(member(as_object(choice), "function"), "name") or text(as_object(choice), "name")
    if name not in {tool.name for tool in tools}:
        raise invalid(f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
    return "tool", name


def _turn(index: int, message: JsonObject) -> Turn:
    role = text(message, "role")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise invalid(
            f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
            param=f"messages[{index}].role",
            code="invalid_value",
        )
    if role == "tool":
        said = "\n".join(part.text for part in content_parts(message) if isinstance(part, Text))
        return Turn(role="user", parts=(ToolResult(call_id=text(message, "tool_call_id"), text=said),))
    calls = [_call(index, call) for call in objects(message, "tool_calls")]
    if message.get("content") is None and not calls and role != "assistant":
        raise invalid("Invalid value for 'content': expected a string, got null.", param=f"messages[{index}].content")
    parts: tuple[Part, ...] = (*content_parts(message), *calls)
    if role in ("system", "developer"):
        return Turn(role="system", parts=parts)
    return Turn(role="assistant" if role == "assistant" else "user", parts=parts)


def content_parts(message: JsonObject) -> Iterator[Part]:
    """The words and pictures of a message, in either OpenAI format."""
    content = message.get("content")
    if isinstance(content, str):
        yield Text(text=content)
    for part in objects(message, "content"):
        kind = text(part, "type")
        if kind in ("text", "input_text", "output_text", "refusal"):
            yield Text(text=text(part, "text") or text(part, "refusal"))
        else:
            yield Image()


def _call(index: int, call: JsonObject) -> ToolCall:
    function = member(call, "function")
    return ToolCall(id=text(call, "id"), name=text(function, "name"), arguments=arguments(function, f"messages[{index}].tool_calls"))


def arguments(function: JsonObject, param: str) -> JsonObject:
    """The arguments of an earlier call, which travel as text."""
    try:
        return as_object(parse(text(function, "arguments", "{}") or "{}"))
    except ValueError:
        raise invalid(f"Invalid JSON in '{param}.function.arguments'.", param=param) from None


def check_tool_results(turns: tuple[Turn, ...]) -> None:
    """Every result must answer a call made just before, and every call must be answered."""
    open_calls: set[str] = set()
    for index, turn in enumerate(turns):
        results = [part.call_id for part in turn.parts if isinstance(part, ToolResult)]
        for call_id in results:
            if call_id not in open_calls:
                raise invalid(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                    param=f"messages[{index}].role",
                )
            open_calls.discard(call_id)
        calls = {part.id for part in turn.parts if isinstance(part, ToolCall)}
        if open_calls and not results and not calls:
            break
        open_calls |= calls
    if open_calls:
        raise invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
            f"The following tool_call_ids did not have response messages: {', '.join(sorted(open_calls))}",
            param="messages",
        )


def _schema(body: JsonObject, turns: tuple[Turn, ...]) -> JsonObject | None:
    wanted = member(body, "response_format")
    match text(wanted, "type"):
        case "json_schema":
            return member(member(wanted, "json_schema"), "schema")
        case "json_object":
            if not any("json" in turn.text.lower() for turn in turns):
                raise invalid(
                    "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                    param="messages",
                )
            return ANY_OBJECT
        case _:
            return None


def _line(message: JsonObject, pictures: list[str]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        said = content
    else:
        pieces: list[str] = []
        for part in objects(message, "content"):
            if "image" in text(part, "type") or "file" in text(part, "type"):
                digest = hashlib.blake2b(compact(part).encode(), digest_size=8).hexdigest()
                pictures.append(digest)
                pieces.append(f"[{digest}]")
            else:
                pieces.append(text(part, "text"))
        said = "\n".join(pieces)
    rest = {key: value for key, value in message.items() if key not in ("content", "role", "id", "tool_call_id", "call_id", "name")}
    return f"{text(message, 'role')}: {said}{compact(rest) if rest else ''}"


def usage_fields(answer_usage: Usage, *, reports_writes: bool) -> JsonObject:
    """Usage in OpenAI's words: `prompt_tokens` includes whatever was cached."""
    details: JsonObject = {"cached_tokens": answer_usage.cache_read, "audio_tokens": 0}
    if reports_writes:
        details["cache_write_tokens"] = answer_usage.cache_write_5m
    return {
        "prompt_tokens": answer_usage.prompt,
        "completion_tokens": answer_usage.output,
        "total_tokens": answer_usage.prompt + answer_usage.output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _usage(answer: Answer) -> JsonObject:
    return usage_fields(answer.usage, reports_writes=answer.reports_cache_writes)


def _head(answer: Answer, kind: str) -> JsonObject:
    return {
        "id": f"chatcmpl-sim-{answer.serial}",
        "object": kind,
        "created": answer.created,
        "model": answer.reply.served_model or answer.model_id,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def write(answer: Answer) -> JsonObject:
    """The body of a reply that is not streamed."""
    reply = answer.reply
    message: JsonObject = {"role": "assistant", "content": reply.text or None, "refusal": None, "annotations": []}
    if reply.stop == "refusal":
        message["refusal"] = REFUSAL
    elif not reply.calls:
        message["content"] = reply.text
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.raw_arguments or json.dumps(call.arguments)},
            }
            for call in reply.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[reply.stop]}
    count = max(1, integer(answer.body, "n", 1))
    choices = [{**choice, "index": index} for index in range(count)]
    return {**_head(answer, "chat.completion"), "choices": choices, "usage": _usage(answer)}


def stream(answer: Answer) -> Iterator[bytes]:
    """A reply as server-sent events, one at a time."""
    reply = answer.reply
    head = _head(answer, "chat.completion.chunk")
    with_usage = flag(member(answer.body, "stream_options"), "include_usage")

    def chunk(delta: JsonObject, finish: str | None = None) -> bytes:
        usage: JsonObject = {"usage": None} if with_usage else {}
        return _event({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], **usage})

    yield chunk({"role": "assistant", "content": None if reply.calls and not reply.text else "", "refusal": None})
    if reply.stop == "refusal":
        yield chunk({"refusal": REFUSAL})
    for start in range(0, len(reply.text), PIECE):
        yield chunk({"content": reply.text[start : start + PIECE]})
    for index, call in enumerate(reply.calls):
        yield chunk({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}]})
        said = call.raw_arguments or json.dumps(call.arguments)
        for start in range(0, len(said), PIECE):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": said[start : start + PIECE]}}]})
    yield chunk({}, _FINISH[reply.stop])
    if with_usage:
        yield _event({**head, "choices": [], "usage": _usage(answer)})
    yield b"data: [DONE]\n\n"


def _event(fields: JsonObject) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


def error(failure: Failure, request_id: str) -> JsonObject:
    """The body of an error."""
    fields = {"message": failure.message, "type": failure.openai_type, "param": failure.param, "code": failure.openai_code}
    return {"error": fields}


def stream_error(failure: Failure, request_id: str) -> bytes:
    """The event of an error in the middle of a stream."""
    return _event(error(failure, request_id))


def model_info(model: Model) -> JsonObject:
    """One entry of the model list."""
    created = int(datetime(model.released.year, model.released.month, model.released.day, tzinfo=UTC).timestamp())
    return {"id": model.id, "object": "model", "created": created, "owned_by": "simulated"}


def model_list(catalogue: Catalogue) -> JsonObject:
    """The body of GET /v1/models."""
    return {"object": "list", "data": [model_info(model) for model in catalogue.models.values() if model.provider == "openai"]}
