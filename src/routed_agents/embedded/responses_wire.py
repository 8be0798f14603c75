"""The OpenAI responses format, which LangChain uses for GPT-6 models with tools: the same conversation in other words."""

from __future__ import annotations

import json
from collections.abc import Iterator

from routed_agents.embedded import openai_wire
from routed_agents.embedded.bad_requests import invalid
from routed_agents.embedded.conversation import Conversation, Part, Text, Tool, ToolCall, ToolResult, Turn
from routed_agents.embedded.faults import Failure
from routed_agents.embedded.json_fields import JsonObject, compact, flag, integer, member, objects, text
from routed_agents.embedded.models import Catalogue
from routed_agents.embedded.wire import Answer, Prompt


def read(body: JsonObject, catalogue: Catalogue) -> Prompt:
    """Checks a request and reads it into a conversation; everything has to be in it, nothing is stored between calls."""
    model = openai_wire.find_model(body, catalogue)
    openai_wire.check_sampling(body, model)
    if body.get("previous_response_id"):
        raise invalid(
            "previous_response_id: the embedded provider stores no responses; send the whole input.", param="previous_response_id"
        )
    said = body.get("input")
    entries: list[JsonObject] = [{"role": "user", "content": said}] if isinstance(said, str) else objects(body, "input")
    if not entries:
        raise invalid("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    tools = tuple(_tool(index, tool) for index, tool in enumerate(objects(body, "tools")))
    choice, forced = openai_wire.tool_choice(body, tools)
    turns = tuple(_turn(index, entry) for index, entry in enumerate(entries) if text(entry, "type", "message") != "reasoning")
    openai_wire.check_tool_results(turns)
    wanted = member(member(body, "text"), "format")
    kind = text(wanted, "type")
    schema = member(wanted, "schema") if kind == "json_schema" else openai_wire.ANY_OBJECT if kind == "json_object" else None
    instructions = text(body, "instructions")
    conversation = Conversation(
        model=model,
        system="\n".join(part for part in (instructions, *(turn.text for turn in turns if turn.role == "system")) if part),
        turns=tuple(turn for turn in turns if turn.role != "system"),
        tools=tools,
        tool_choice=choice,
        forced_tool=forced,
        parallel_calls=flag(body, "parallel_tool_calls", default=True),
        schema=schema,
        max_tokens=integer(body, "max_output_tokens") or model.max_output,
    )
    canonical = f"{compact([body.get('tools'), schema])}{instructions}"
    return openai_wire.prompt(conversation, canonical, entries, catalogue)


def _tool(index: int, tool: JsonObject) -> Tool:
    if text(tool, "type") != "function" or not text(tool, "name"):
        message = f"Missing required parameter: 'tools[{index}].name'; the embedded provider has no built-in tools."
        raise invalid(message, param=f"tools[{index}].name", code="missing_required_parameter")
    return Tool(name=text(tool, "name"), description=text(tool, "description"), schema=member(tool, "parameters"))


def _turn(index: int, entry: JsonObject) -> Turn:
    match text(entry, "type", "message"):
        case "function_call":
            arguments = openai_wire.arguments(entry, f"input[{index}]")
            return Turn(role="assistant", parts=(ToolCall(id=text(entry, "call_id"), name=text(entry, "name"), arguments=arguments),))
        case "function_call_output":
            output = text(entry, "output") or "\n".join(text(part, "text") for part in objects(entry, "output"))
            return Turn(role="user", parts=(ToolResult(call_id=text(entry, "call_id"), text=output),))
        case "message":
            parts: tuple[Part, ...] = tuple(openai_wire.content_parts(entry)) or (Text(text=""),)
            role = text(entry, "role")
            if role in ("system", "developer"):
                return Turn(role="system", parts=parts)
            return Turn(role="assistant" if role == "assistant" else "user", parts=parts)
        case kind:
            raise invalid(f"Invalid value: '{kind}' for 'input[{index}].type'.", param=f"input[{index}].type", code="invalid_value")


def _output(answer: Answer, status: str = "completed") -> list[JsonObject]:
    reply, output = answer.reply, list[JsonObject]()
    refused = reply.stop == "refusal"
    mark = ""
    if reply.thinking is not None:
        mark = "r"
        summary: list[object] = [{"type": "summary_text", "text": reply.thinking}]
        output.append({"type": "reasoning", "id": f"rs_sim_{reply.signature}{answer.serial}", "summary": summary})
    if reply.text or refused or not reply.calls:
        content: JsonObject = (
            {"type": "refusal", "refusal": openai_wire.REFUSAL}
            if refused
            else {"type": "output_text", "text": reply.text, "annotations": []}
        )
        output.append({"type": "message", "id": f"msg_sim_{answer.serial}", "role": "assistant", "status": status, "content": [content]})
    for index, call in enumerate(reply.calls):
        said = call.raw_arguments or json.dumps(call.arguments)
        identity = {"type": "function_call", "id": f"fc_sim_{mark}{answer.serial}{index}", "call_id": call.id}
        output.append({**identity, "name": call.name, "arguments": said, "status": status})
    return output


def write(answer: Answer) -> JsonObject:
    """The body of a reply that is not streamed."""
    cut = answer.reply.stop == "length"
    usage = answer.usage
    details: JsonObject = {"cached_tokens": usage.cache_read}
    if answer.reports_cache_writes:
        details["cache_write_tokens"] = usage.cache_write_5m
    return {
        **_head(answer),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": _output(answer, "incomplete" if cut else "completed"),
        "usage": {
            "input_tokens": usage.prompt,
            "input_tokens_details": details,
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.output,
        },
    }


def _head(answer: Answer) -> JsonObject:
    return {
        "id": f"resp_sim_{answer.serial}",
        "object": "response",
        "created_at": answer.created,
        "model": answer.reply.served_model or answer.model_id,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": answer.body.get("instructions"),
        "metadata": {},
        "output": [],
        "parallel_tool_calls": flag(answer.body, "parallel_tool_calls", default=True),
        "tool_choice": answer.body.get("tool_choice", "auto"),
        "tools": answer.body.get("tools", []),
        "service_tier": "default",
        "usage": None,
    }


def stream(answer: Answer) -> Iterator[bytes]:
    """A reply as server-sent events, one at a time."""
    for number, (name, fields) in enumerate(_events(answer)):
        yield f"event: {name}\ndata: {json.dumps({'type': name, 'sequence_number': number, **fields})}\n\n".encode()


def _events(answer: Answer) -> Iterator[tuple[str, JsonObject]]:
    yield "response.created", {"response": _head(answer)}
    yield "response.in_progress", {"response": _head(answer)}
    for index, entry in enumerate(_output(answer)):
        place: JsonObject = {"output_index": index, "item_id": entry["id"]}
        if entry["type"] == "reasoning":
            yield "response.output_item.added", {"output_index": index, "item": {**entry, "summary": []}}
            part = objects(entry, "summary")[0]
            summed: JsonObject = {**place, "summary_index": 0}
            yield "response.reasoning_summary_part.added", {**summed, "part": {**part, "text": ""}}
            for piece in _pieces(text(part, "text")):
                yield "response.reasoning_summary_text.delta", {**summed, "delta": piece}
            yield "response.reasoning_summary_text.done", {**summed, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**summed, "part": part}
        elif entry["type"] == "function_call":
            yield "response.output_item.added", {"output_index": index, "item": {**entry, "arguments": "", "status": "in_progress"}}
            said = text(entry, "arguments")
            for piece in _pieces(said):
                yield "response.function_call_arguments.delta", {**place, "delta": piece}
            yield "response.function_call_arguments.done", {**place, "name": entry["name"], "arguments": said}
        else:
            part = objects(entry, "content")[0]
            field, kind = ("refusal", "refusal") if part["type"] == "refusal" else ("text", "output_text")
            inner: JsonObject = {**place, "content_index": 0}
            yield "response.output_item.added", {"output_index": index, "item": {**entry, "content": [], "status": "in_progress"}}
            yield "response.content_part.added", {**inner, "part": {**part, field: ""}}
            logged: JsonObject = {"logprobs": []} if kind == "output_text" else {}
            for piece in _pieces(text(part, field)):
                yield f"response.{kind}.delta", {**inner, "delta": piece, **logged}
            yield f"response.{kind}.done", {**inner, field: part[field], **logged}
            yield "response.content_part.done", {**inner, "part": part}
        yield "response.output_item.done", {"output_index": index, "item": entry}
    whole = write(answer)
    yield "response.incomplete" if whole["status"] == "incomplete" else "response.completed", {"response": whole}


def _pieces(said: str) -> Iterator[str]:
    for start in range(0, len(said), openai_wire.PIECE):
        yield said[start : start + openai_wire.PIECE]


def error(failure: Failure, request_id: str) -> JsonObject:
    """The body of an error."""
    return openai_wire.error(failure, request_id)


def stream_error(failure: Failure, request_id: str) -> bytes:
    """The event of an error in the middle of a stream."""
    fields = {"type": "error", "sequence_number": 0, "code": failure.openai_code, "message": failure.message, "param": failure.param}
    return f"event: error\ndata: {json.dumps(fields)}\n\n".encode()
