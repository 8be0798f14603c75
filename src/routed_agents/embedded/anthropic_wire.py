"""The Anthropic Messages format: what a request must look like, and how a reply, a stream or an error is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import cast

from routed_agents.embedded.bad_requests import invalid, not_found
from routed_agents.embedded.conversation import Choice, Conversation, Image, Part, Reply, Text, Tool, ToolCall, ToolResult, Turn, Usage
from routed_agents.embedded.faults import Failure
from routed_agents.embedded.json_fields import (
    JsonObject,
    as_object,
    compact,
    flag,
    integer,
    items,
    member,
    objects,
    strings,
    text,
)
from routed_agents.embedded.models import Catalogue, Model
from routed_agents.embedded.prompt_cache import FIVE_MINUTES, ONE_HOUR, Block
from routed_agents.embedded.tokens import count_tokens, scaled
from routed_agents.embedded.wire import Answer, Prompt

_PER_MESSAGE, _PER_PROMPT = 3, 4  # tokens for the role marks around messages
_PAGE = 66_000  # characters of base64: some 50 kB of PDF
_TEXT_OF_PAGE = 850  # tokens beside its picture: 2,350 in all, as measured for a page of text in 2026-10
_STOP_REASONS = {"end": "end_turn", "tool": "tool_use", "length": "max_tokens", "stop_sequence": "stop_sequence", "refusal": "refusal"}
_REFUSAL = {"type": "refusal", "category": "general_harms", "explanation": "Simulated refusal."}
_PIECE = 24  # characters per streamed delta


def read(body: JsonObject, catalogue: Catalogue, *, counting: bool = False) -> Prompt:
    """Checks a request as the real API does and reads it into a conversation."""
    model = _model(body, catalogue)
    max_tokens = model.max_output if counting else _max_tokens(body, model)
    if not counting:
        _check_parameters(body, model)
    tools = _tools(body)
    choice, forced, parallel = _tool_choice(body, model, tools)
    turns = tuple(_turn(index, message, model) for index, message in enumerate(_messages(body)))
    _check_tool_results(turns)
    if turns[-1].role == "assistant" and not model.prefill and not counting:
        raise invalid("This model does not support assistant message prefill. The conversation must end with a user message.")
    blocks = tuple(_blocks(body, catalogue.image_tokens))
    _check_breakpoints(blocks)
    tokens = scaled(sum(block.tokens for block in blocks), model.tokenizer_factor)
    if tokens > model.window:
        raise invalid(f"prompt is too long: {tokens} tokens > {model.window} maximum")
    conversation = Conversation(
        model=model,
        system=_system_text(body),
        turns=turns,
        tools=tools,
        tool_choice=choice,
        forced_tool=forced,
        parallel_calls=parallel,
        schema=_schema(body),
        max_tokens=max_tokens,
        stop=tuple(strings(body, "stop_sequences")),
    )
    return Prompt(conversation=conversation, tokens=tokens, measure=lambda cache, key: cache.explicit(model, key, blocks))


def _model(body: JsonObject, catalogue: Catalogue) -> Model:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model: Field required")
    model = catalogue.find(name, "anthropic")
    if model is None:
        raise not_found(f"model: {name}")
    return model


def _max_tokens(body: JsonObject, model: Model) -> int:
    if "max_tokens" not in body:
        raise invalid("max_tokens: Field required")
    limit = integer(body, "max_tokens")
    if limit < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    if limit > model.max_output:
        raise invalid(f"max_tokens: {limit} > {model.max_output}, which is the maximum allowed number of output tokens for {model.id}")
    return limit


def _check_parameters(body: JsonObject, model: Model) -> None:
    if not model.sampling:
        for name in ("temperature", "top_p", "top_k"):
            if body.get(name) is not None:
                raise invalid(f"`{name}` is not supported for this model.")
    thinking = member(body, "thinking")
    kind = text(thinking, "type")
    if kind == "enabled" and model.thinking not in ("budget", "both"):
        raise invalid('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and "output_config.effort".')
    if kind == "enabled" and integer(thinking, "budget_tokens") >= integer(body, "max_tokens"):
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if kind == "disabled" and model.thinking == "always":
        raise invalid('"thinking.type.disabled" is not supported for this model: thinking is always on.')
    if kind in ("enabled", "adaptive") and text(member(body, "tool_choice"), "type") in ("any", "tool"):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")


def _messages(body: JsonObject) -> list[JsonObject]:
    if "messages" not in body:
        raise invalid("messages: Field required")
    messages = items(body, "messages")
    if not messages:
        raise invalid("messages: at least one message is required")
    return [as_object(message) for message in messages]


def _tools(body: JsonObject) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for index, tool in enumerate(objects(body, "tools")):
        kind = text(tool, "type", "custom")
        if "name" not in tool:
            raise invalid(f"tools.{index}.name: Field required" if kind == "custom" else f"tools.{index}: unknown tool type {kind!r}")
        if kind == "custom" and not isinstance(tool.get("input_schema"), dict):
            raise invalid(f"tools.{index}.custom.input_schema: Field required")
        tools.append(Tool(name=text(tool, "name"), description=text(tool, "description"), schema=member(tool, "input_schema")))
    if len({tool.name for tool in tools}) < len(tools):
        raise invalid("tools: Tool names must be unique.")
    return tuple(tools)


def _tool_choice(body: JsonObject, model: Model, tools: tuple[Tool, ...]) -> tuple[Choice, str, bool]:
    choice = member(body, "tool_choice")
    kind = text(choice, "type", "auto")
    if kind not in ("auto", "any", "tool", "none"):
        raise invalid(f"tool_choice: Input tag {kind!r} does not match any of the expected tags: 'auto', 'any', 'tool', 'none'")
    if kind in ("any", "tool"):
        if not tools:
            raise invalid("tool_choice: tool_choice may only be specified while providing tools.")
        if not model.forced_tool_choice:
            raise invalid(f"tool_choice: type {kind!r} is not supported for {model.id}. Use 'auto' or 'none'.")
    name = text(choice, "name")
    if kind == "tool" and name not in {tool.name for tool in tools}:
        raise invalid(f"tool_choice: Tool {name!r} not found in provided tools")
    return kind, name, not flag(choice, "disable_parallel_tool_use")


def _schema(body: JsonObject) -> JsonObject | None:
    wanted = member(member(body, "output_config"), "format") or member(body, "output_format")
    return member(wanted, "schema") if text(wanted, "type") == "json_schema" else None


def _system_text(body: JsonObject) -> str:
    system = body.get("system")
    if isinstance(system, str):
        return system
    return "\n".join(text(block, "text") for block in objects(body, "system"))


def _turn(index: int, message: JsonObject, model: Model) -> Turn:
    role = message.get("role")
    if role == "system" and model.mid_system:
        return Turn(role="system", parts=tuple(_parts(index, message)))
    if role not in ("user", "assistant"):
        raise invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")
    return Turn(role="assistant" if role == "assistant" else "user", parts=tuple(_parts(index, message)))


def _parts(index: int, message: JsonObject) -> Iterator[Part]:
    content = message.get("content")
    if isinstance(content, str):
        if not content and message.get("role") == "user":
            raise invalid(f"messages.{index}: user messages must have non-empty content")
        yield Text(text=content)
        return
    if not isinstance(content, list):
        raise invalid(f"messages.{index}.content: Field required")
    if not content and message.get("role") == "user":
        raise invalid(f"messages.{index}: user messages must have non-empty content")
    for position, block in enumerate(objects(message, "content")):
        match text(block, "type"):
            case "text":
                if not text(block, "text"):
                    raise invalid("messages: text content blocks must be non-empty")
                yield Text(text=text(block, "text"))
            case "image" | "document" | "container_upload":
                shown = _shown_text(member(block, "source"))
                yield Image() if shown is None else Text(text=shown)
            case "tool_use":
                yield ToolCall(id=text(block, "id"), name=text(block, "name"), arguments=member(block, "input"))
            case "tool_result":
                yield ToolResult(call_id=text(block, "tool_use_id"), text=_result_text(block), failed=flag(block, "is_error"))
            case "thinking" | "redacted_thinking" | "search_result":
                continue
            case kind:
                raise invalid(
                    f"messages.{index}.content.{position}: Input tag {kind!r} found using 'type' does not match any of the expected tags"
                )


def _shown_text(source: JsonObject) -> str | None:
    """The text of a document that lies open."""
    match text(source, "type"):
        case "text":
            return text(source, "data")
        case "content":
            return _result_text(source)
        case _:
            return None


def _result_text(block: JsonObject) -> str:
    content = block.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(text(part, "text") for part in objects(block, "content"))


def _check_tool_results(turns: tuple[Turn, ...]) -> None:
    asked: list[str] = []
    for _, run in groupby(enumerate(turns), key=lambda numbered: numbered[1].role):  # neighbours of one role count as one message
        numbered = list(run)
        index = numbered[0][0]
        parts = [part for _, turn in numbered for part in turn.parts]
        answered = [part.call_id for part in parts if isinstance(part, ToolResult)]
        for call_id in answered:
            if call_id not in asked:
                raise invalid(
                    f"messages.{index}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each `tool_result` "
                    "block must have a corresponding `tool_use` block in the previous message."
                )
        missing = [call_id for call_id in asked if call_id not in answered]
        if missing:
            raise invalid(
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}. "
                "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
            )
        asked = [part.id for part in parts if isinstance(part, ToolCall)]


def _blocks(body: JsonObject, image_tokens: int) -> Iterator[Block]:
    for tool in objects(body, "tools"):
        yield _block("tool", tool, image_tokens)
    system = body.get("system")
    for block in [{"type": "text", "text": system}] if isinstance(system, str) and system else objects(body, "system"):
        yield _block("system", cast("JsonObject", block), image_tokens)
    # A changed tool choice or thinking setting invalidates the messages but not the tools and the system prompt.
    setting = compact([body.get("tool_choice"), body.get("thinking")])
    automatic = member(body, "cache_control")
    messages = objects(body, "messages")
    for index, message in enumerate(messages):
        content = message.get("content")
        parts: list[JsonObject] = [{"type": "text", "text": content}] if isinstance(content, str) else objects(message, "content")
        for position, part in enumerate(parts):
            last = index == len(messages) - 1 and position == len(parts) - 1
            marked = {**part, "cache_control": automatic} if last and automatic and "cache_control" not in part else part
            extra = (_PER_MESSAGE if position == 0 else 0) + (_PER_PROMPT if index == position == 0 else 0)
            yield _block(f"{text(message, 'role')}{setting if index == position == 0 else ''}", marked, image_tokens, extra)


def _block(where: str, part: JsonObject, image_tokens: int, extra: int = 0) -> Block:
    control = member(part, "cache_control")
    ttl = None if not control else ONE_HOUR if text(control, "ttl") == "1h" else FIVE_MINUTES
    if text(part, "type") == "text":
        said = text(part, "text")
        return Block(content=f"{where}\0{said}", tokens=count_tokens(said) + extra, ttl_s=ttl)
    content = compact({key: value for key, value in part.items() if key != "cache_control"})
    return Block(content=f"{where}\0{content}", tokens=_block_tokens(part, content, image_tokens) + extra, ttl_s=ttl)


def _block_tokens(part: JsonObject, content: str, image_tokens: int) -> int:
    match text(part, "type"):
        case "image":
            return image_tokens
        case "document":
            return _document_tokens(part, image_tokens)
        case "tool_use":
            return count_tokens(compact(part.get("input"))) + count_tokens(text(part, "name")) + 8
        case "tool_result":
            brought = [inner for inner in objects(part, "content") if text(inner, "type") in ("image", "document")]
            return count_tokens(_result_text(part)) + sum(_block_tokens(inner, "", image_tokens) for inner in brought) + 8
        case _:
            return count_tokens(content)


def _document_tokens(document: JsonObject, image_tokens: int) -> int:
    """The text of a document that lies open; of a file, a picture and a thousand tokens of text for each page."""
    source = member(document, "source")
    shown = _shown_text(source)
    if shown is None:
        return (-(-len(text(source, "data")) // _PAGE) or 1) * (image_tokens + _TEXT_OF_PAGE)
    pictures = sum(1 for inner in objects(source, "content") if text(inner, "type") == "image")
    return count_tokens(shown) + pictures * image_tokens


def _check_breakpoints(blocks: tuple[Block, ...]) -> None:
    marks = [block.ttl_s for block in blocks if block.ttl_s is not None]
    if len(marks) > 4:
        raise invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    if any(later > earlier for earlier, later in pairwise(marks)):
        raise invalid("cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block.")


def usage_fields(usage: Usage) -> JsonObject:
    """Usage in Anthropic's words: `input_tokens` leaves out whatever was cached."""
    return {
        "input_tokens": usage.uncached,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write_5m, "ephemeral_1h_input_tokens": usage.cache_write_1h},
        "output_tokens": usage.output,
        "service_tier": "standard",
    }


def write(answer: Answer) -> JsonObject:
    """The body of a reply that is not streamed."""
    reply = answer.reply
    content: list[object] = [*thoughts(reply)]
    content += [{"type": "text", "text": reply.text}] if reply.text else []
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in reply.calls]
    return {
        "id": f"msg_sim_{answer.serial}",
        "type": "message",
        "role": "assistant",
        "model": reply.served_model or answer.model_id,
        "content": content,
        "stop_reason": _STOP_REASONS[reply.stop],
        "stop_sequence": reply.stop_sequence,
        "stop_details": _REFUSAL if reply.stop == "refusal" else None,
        "usage": usage_fields(answer.usage),
    }


def thoughts(reply: Reply) -> Iterator[JsonObject]:
    """The thinking blocks of a reply."""
    if reply.thinking is not None:
        yield {"type": "thinking", "thinking": reply.thinking, "signature": reply.signature}
    if reply.redacted is not None:
        yield {"type": "redacted_thinking", "data": reply.redacted}


def stream(answer: Answer) -> Iterator[bytes]:
    """A reply as server-sent events, one at a time."""
    reply, usage, whole = answer.reply, answer.usage, write(answer)
    started = {**usage_fields(usage), "output_tokens": 1}
    opening: JsonObject = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None, "usage": started}
    yield _event("message_start", {"message": opening})
    yield _event("ping", {})
    index = 0
    for block in thoughts(reply):
        thinks = block["type"] == "thinking"
        yield _event(
            "content_block_start", {"index": index, "content_block": {**block, "thinking": "", "signature": ""} if thinks else block}
        )
        for piece in _pieces(text(block, "thinking")):
            yield _event("content_block_delta", {"index": index, "delta": {"type": "thinking_delta", "thinking": piece}})
        if thinks:
            yield _event("content_block_delta", {"index": index, "delta": {"type": "signature_delta", "signature": reply.signature}})
        yield _event("content_block_stop", {"index": index})
        index += 1
    if reply.text:
        yield _event("content_block_start", {"index": index, "content_block": {"type": "text", "text": ""}})
        for piece in _pieces(reply.text):
            yield _event("content_block_delta", {"index": index, "delta": {"type": "text_delta", "text": piece}})
        yield _event("content_block_stop", {"index": index})
        index += 1
    for call in reply.calls:
        opened: JsonObject = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield _event("content_block_start", {"index": index, "content_block": opened})
        for piece in ["", *_pieces(call.raw_arguments or json.dumps(call.arguments))]:
            yield _event("content_block_delta", {"index": index, "delta": {"type": "input_json_delta", "partial_json": piece}})
        yield _event("content_block_stop", {"index": index})
        index += 1
    ending: JsonObject = {"stop_reason": whole["stop_reason"], "stop_sequence": reply.stop_sequence, "stop_details": whole["stop_details"]}
    totals = {key: value for key, value in usage_fields(usage).items() if key not in ("cache_creation", "service_tier")}
    yield _event("message_delta", {"delta": ending, "usage": totals})
    yield _event("message_stop", {})


def _pieces(text_: str) -> Iterator[str]:
    for start in range(0, len(text_), _PIECE):
        yield text_[start : start + _PIECE]


def _event(name: str, fields: JsonObject) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def error(failure: Failure, request_id: str) -> JsonObject:
    """The body of an error."""
    return {"type": "error", "error": {"type": failure.anthropic_type, "message": failure.message}, "request_id": request_id}


def stream_error(failure: Failure, request_id: str) -> bytes:
    """The event of an error in the middle of a stream."""
    return _event("error", error(failure, request_id))


def model_info(model: Model) -> JsonObject:
    """One entry of the model list."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": f"{model.name} (simulated)",
        "created_at": f"{model.released.isoformat()}T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": model.window,
        "max_tokens": model.max_output,
    }


def model_list(catalogue: Catalogue) -> JsonObject:
    """The body of GET /v1/models."""
    data = [model_info(model) for model in catalogue.models.values() if model.provider == "anthropic"]
    return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
