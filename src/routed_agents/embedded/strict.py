"""Strict mode refuses what the real APIs are documented to refuse for a model; wording is ours and says that it is simulated."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from routed_agents.embedded.bad_requests import BadRequest, invalid, not_found
from routed_agents.embedded.conversation import Reply
from routed_agents.embedded.json_fields import JsonObject, as_object, compact, integer, items, member, number, objects, strings, text
from routed_agents.embedded.models import Model

_BLOCKS: Mapping[str, frozenset[str]] = MappingProxyType({
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "image": frozenset({"type", "source", "cache_control"}),
    "thinking": frozenset({"type", "thinking", "signature", "cache_control"}),
    "redacted_thinking": frozenset({"type", "data", "cache_control"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller", "toolset_name"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control", "toolset_name"}),
})  # fmt: skip
_MEDIA = ("image/jpeg", "image/png", "image/gif", "image/webp")
_ID, _NAME = re.compile(r"^[a-zA-Z0-9_-]+$"), re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_LEAST_BUDGET = 1024  # tokens, Anthropic's documented minimum of budget_tokens
_LONGEST_CALL_ID = {"chat": 40, "responses": 64}  # characters
_CHAT_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
    "system": ("text",),
    "developer": ("text",),
    "tool": ("text",),
})  # fmt: skip
_NOT_FOR_REASONING = ("stop", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias")


def check(path: str, body: JsonObject, model: Model) -> None:
    """Refuses a request its model's API would refuse, with a 4xx; a request that passes was already read by its wire."""
    for rule in _RULES[path]:
        rule(body, model)


def signature(model: Model, said: str) -> str:
    """What vouches for a thinking block: only the model that made it accepts it again."""
    return f"sim.{model.id}.{hashlib.blake2b(f'{model.id}{chr(0)}{said}'.encode(), digest_size=12).hexdigest()}"


def thoughtful(reply: Reply, body: JsonObject, model: Model, path: str) -> Reply:
    """The reply with the thinking its request asks for, or that its model cannot leave out."""
    seed = int(hashlib.blake2b(compact(body).encode("utf-8", "surrogatepass"), digest_size=2).hexdigest(), 16)
    thought = f"(simulated reasoning {seed:05d})"
    if path == "/v1/responses":
        effort = text(member(body, "reasoning"), "effort", "medium")
        return replace(reply, thinking=thought, signature=item_of(model)) if model.reasoning and effort != "none" else reply
    if model.provider != "anthropic" or model.thinking == "none":
        return reply
    wanted = member(body, "thinking")
    if text(wanted, "type") not in ("enabled", "adaptive") and model.thinking != "always":
        return reply
    omitted = text(wanted, "type") == "" or text(wanted, "display") == "omitted"
    thought = "" if omitted else thought
    redacted = signature(model, "redacted") if seed % 4 == 0 else None
    return replace(reply, thinking=thought, signature=signature(model, thought), redacted=redacted)


def item_of(model: Model) -> str:
    """The part of a reasoning item's id that says which model made it."""
    return hashlib.blake2b(model.id.encode(), digest_size=4).hexdigest()


@cache
def _known(route: str) -> frozenset[str]:
    data: JsonObject = tomllib.loads(Path(__file__).with_name("parameters.toml").read_text(encoding="utf-8"))
    return frozenset(strings(member(data, route), "names"))


def _refuse(message: str, *, param: str | None = None, code: str | None = None) -> BadRequest:
    return invalid(f"{message} (simulated)", param=param, code=code)


# ---- Anthropic ----------------------------------------------------------------------------------------------------------


def _fields(body: JsonObject, model: Model) -> None:
    for name in body:
        if name not in _known("messages"):
            raise _refuse(f"{name}: Extra inputs are not permitted")


def _thinking(body: JsonObject, model: Model) -> None:
    thinking = member(body, "thinking")
    kind = text(thinking, "type")
    if thinking and kind not in ("enabled", "adaptive", "disabled"):
        raise _refuse(f"thinking: Input tag {kind!r} does not match any of the expected tags: 'enabled', 'adaptive', 'disabled'")
    if kind == "adaptive" and model.thinking in ("budget", "none"):
        raise _refuse("adaptive thinking is not supported on this model")
    if kind == "enabled":
        budget = integer(thinking, "budget_tokens")
        if budget < _LEAST_BUDGET:
            raise _refuse(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_LEAST_BUDGET}")
        _check_resumed(body)
    if kind == "disabled" and model.id.startswith("claude-opus-5") and text(member(body, "output_config"), "effort") in ("xhigh", "max"):
        raise _refuse("thinking.type.disabled is not supported at this output_config.effort")
    if kind in ("enabled", "adaptive"):
        if body.get("temperature") not in (None, 1, 1.0):
            raise _refuse("`temperature` may only be set to 1 when thinking is enabled.")
        if body.get("top_k") is not None:
            raise _refuse("`top_k` must be unset when thinking is enabled.")
        if body.get("top_p") is not None and number(body, "top_p", 1.0) < 0.95:
            raise _refuse("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")


def _check_resumed(body: JsonObject) -> None:
    """With a thinking budget, the assistant turn that a tool result answers has to begin with its thinking."""
    turns = objects(body, "messages")
    if not turns or text(turns[-1], "role") != "user" or "tool_result" not in _kinds(turns[-1]):
        return
    last = max((index for index, turn in enumerate(turns) if text(turn, "role") == "assistant"), default=None)
    if last is None:
        return
    first = next(iter(_kinds(turns[last])), "text")
    if first not in ("thinking", "redacted_thinking"):
        raise _refuse(
            f"messages.{last}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When `thinking` is "
            "enabled, a final `assistant` message must start with a thinking block."
        )


def _output(body: JsonObject, model: Model) -> None:
    wanted = member(body, "output_config")
    effort = text(wanted, "effort")
    if effort and effort not in model.efforts:
        known = f" Supported levels: {', '.join(model.efforts)}." if model.efforts else ""
        raise _refuse(f"output_config.effort: {effort!r} is not supported for this model.{known}")
    if (member(wanted, "format") or member(body, "output_format")) and not model.structured_output:
        raise _refuse(f"output_config.format: structured outputs are not supported for {model.id}.")
    for index, mark in enumerate(strings(body, "stop_sequences")):
        if not mark.strip():
            raise _refuse(f"stop_sequences.{index}: each stop sequence must contain non-whitespace")


def _order(body: JsonObject, model: Model) -> None:
    turns = objects(body, "messages")
    roles = [text(turn, "role") for turn in turns]
    if next((role for role in roles if role != "system"), "user") != "user":
        raise _refuse('messages: first message must use the "user" role')
    for index, role in enumerate(roles):
        if role != "system":
            continue
        before, after = roles[index - 1] if index else "", roles[index + 1] if index + 1 < len(roles) else "assistant"
        if before not in ("user", "system") or after not in ("assistant", "system"):
            raise _refuse(
                f"messages.{index}.role: a system message must follow a user message and come last or before an assistant message"
            )
        if any(kind not in ("text", "tool_addition", "tool_removal") for kind in _kinds(turns[index])):
            raise _refuse(f"messages.{index}.content: system messages take text only")
    last = len(turns) - 1
    if roles[last] == "assistant" and _last_text(turns[last]) != _last_text(turns[last]).rstrip():
        raise _refuse("messages: final assistant content cannot end with trailing whitespace")


def _content(body: JsonObject, model: Model) -> None:
    turns, seen = objects(body, "messages"), set[str]()
    for index, turn in enumerate(turns):
        said = turn.get("content")
        role, final = text(turn, "role"), index == len(turns) - 1
        if (said in ("", []) or (isinstance(said, str) and not said.strip())) and not (role == "assistant" and final):
            raise _refuse(f"messages.{index}: all messages must have non-empty content except for the optional final assistant message")
        results_over = False
        for position, block in enumerate(objects(turn, "content")):
            where, kind = f"messages.{index}.content.{position}", text(block, "type")
            _check_block(where, kind, block, role, model)
            if kind == "tool_result":
                if results_over:
                    raise _refuse(f"{where}: `tool_result` blocks must come before any other content of the message")
            else:
                results_over = True
            if kind == "tool_use":
                if text(block, "id") in seen:
                    raise _refuse("messages: `tool_use` ids must be unique")
                seen.add(text(block, "id"))


def _check_block(where: str, kind: str, block: JsonObject, role: str, model: Model) -> None:
    extra = sorted(block.keys() - _BLOCKS[kind]) if kind in _BLOCKS else []
    if extra:
        raise _refuse(f"{where}.{kind}.{extra[0]}: Extra inputs are not permitted")
    match kind:
        case "text":
            if not text(block, "text").strip():
                raise _refuse("messages: text content blocks must contain non-whitespace text")
        case "thinking" | "redacted_thinking":
            if role != "assistant":
                raise _refuse(f"{where}: `{kind}` blocks belong to assistant messages")
            vouched = signature(model, text(block, "thinking") if kind == "thinking" else "redacted")
            if text(block, "signature" if kind == "thinking" else "data") != vouched:
                raise _refuse(f"{where}: Invalid `{'signature' if kind == 'thinking' else 'data'}` in `{kind}` block")
        case "tool_use":
            if role != "assistant" or not _ID.match(text(block, "id")) or not _NAME.match(text(block, "name")):
                raise _refuse(f"{where}.tool_use.id: String should match pattern '{_ID.pattern}'")
            if not isinstance(block.get("input"), dict):
                raise _refuse(f"{where}.tool_use.input: Input should be a valid dictionary")
        case "tool_result":
            if role != "user" or not _ID.match(text(block, "tool_use_id")):
                raise _refuse(f"{where}.tool_result.tool_use_id: String should match pattern '{_ID.pattern}'")
            for place, inner in enumerate(objects(block, "content")):
                _check_block(f"{where}.content.{place}", text(inner, "type"), inner, role, model)
        case "image":
            _check_image(where, block, role, model)
        case _:
            return


def _check_image(where: str, block: JsonObject, role: str, model: Model) -> None:
    if role != "user" or not model.images:
        raise _refuse(f"{where}: images are not supported {'for this model' if role == 'user' else 'in assistant messages'}")
    source = member(block, "source")
    match text(source, "type"):
        case "base64":
            if text(source, "media_type") not in _MEDIA or not text(source, "data"):
                raise _refuse(f"{where}.image.source.base64.media_type: Input should be {', '.join(_MEDIA)}")
        case "url" | "file":
            return
        case kind:
            raise _refuse(f"{where}.image.source: Input tag {kind!r} does not match any of the expected tags: 'base64', 'url', 'file'")


def _kinds(turn: JsonObject) -> list[str]:
    return [text(block, "type") for block in objects(turn, "content")] or ["text"]


def _last_text(turn: JsonObject) -> str:
    said = turn.get("content")
    if isinstance(said, str):
        return said
    blocks = objects(turn, "content")
    return text(blocks[-1], "text") if blocks and text(blocks[-1], "type") == "text" else ""


# ---- OpenAI, both formats -----------------------------------------------------------------------------------------------


def _chat_fields(body: JsonObject, model: Model) -> None:
    for name in body:
        if name not in _known("chat"):
            raise _refuse(f"Unrecognized request argument supplied: {name}")
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise _refuse(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", code="invalid_parameter_combination"
        )
    _check_limit("max_tokens" if "max_tokens" in body else "max_completion_tokens", body, model)
    if len(items(body, "stop")) > 4:
        raise _refuse(
            "Invalid 'stop': array too long. Expected an array with maximum length 4.", param="stop", code="array_above_max_length"
        )
    _check_effort("reasoning_effort", body, model)
    if not model.reasoning:
        return
    if "max_tokens" in body:
        raise _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
    for name in _NOT_FOR_REASONING:
        if body.get(name) not in (None, 0, False, [], {}):
            raise _unsupported(name)
    if integer(body, "n", 1) != 1:
        raise _unsupported("n")


def _chat_messages(body: JsonObject, model: Model) -> None:
    for index, message in enumerate(as_object(each) for each in items(body, "messages")):
        where, role = f"messages[{index}]", text(message, "role")
        content = message.get("content")
        if content == [] or (content is None and not (role == "assistant" and message.get("tool_calls"))):
            raise _refuse(f"Invalid '{where}.content': expected a string or a filled array.", param=f"{where}.content")
        for position, part in enumerate(objects(message, "content")):
            _check_part(f"{where}.content[{position}]", part, role, _CHAT_PARTS.get(role, ()), model)
        for place, call in enumerate(objects(message, "tool_calls")):
            _check_call_id(f"{where}.tool_calls[{place}].id", text(call, "id"), "chat")
        if role == "tool":
            _check_call_id(f"{where}.tool_call_id", text(message, "tool_call_id"), "chat")
        if extra := sorted(
            message.keys() - {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call", "annotations"}
        ):
            raise _refuse(f"Unknown parameter: '{where}.{extra[0]}'.", param=f"{where}.{extra[0]}", code="unknown_parameter")


def _responses_fields(body: JsonObject, model: Model) -> None:
    for name in body:
        if name not in _known("responses"):
            raise _refuse(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    _check_limit("max_output_tokens", body, model)
    wanted = member(body, "reasoning")
    if wanted and not model.reasoning:
        raise _unsupported("reasoning.effort")
    _check_effort("effort", wanted, model)


def _responses_input(body: JsonObject, model: Model) -> None:
    entries = objects(body, "input")
    made = {text(entry, "id") for entry in entries if text(entry, "type") == "reasoning"}
    for index, entry in enumerate(entries):
        where, kind = f"input[{index}]", text(entry, "type", "message")
        _check_call_id(f"{where}.call_id", text(entry, "call_id"), "responses")
        _check_item_id(where, kind, text(entry, "id"), made, model)
        output, role = kind == "message" and text(entry, "role") == "assistant", text(entry, "role", "tool")
        allowed = ("output_text", "refusal") if output else ("input_text", "input_image", "input_file")
        for position, part in enumerate([*objects(entry, "content"), *objects(entry, "output")] if kind != "reasoning" else []):
            _check_part(f"{where}.content[{position}]", part, role, allowed, model)


def _check_item_id(where: str, kind: str, given: str, made: Collection[str], model: Model) -> None:
    if kind == "reasoning":
        if not given.startswith(f"rs_sim_{item_of(model)}"):
            raise not_found(f"Item with id '{given}' not found for this model. (simulated)")
        return
    prefix = {"message": "msg_", "function_call": "fc_"}.get(kind, "")
    if given and not given.startswith(prefix):
        message = f"Invalid '{where}.id': '{given}'. Expected an ID that begins with '{prefix.removesuffix('_')}'."
        raise _refuse(message, param=f"{where}.id", code="invalid_value")
    needed = f"rs_sim_{item_of(model)}{given[8:28]}"
    if given.startswith("fc_sim_r") and needed not in made:
        raise _refuse(f"Item '{given}' of type '{kind}' was provided without its required 'reasoning' item: '{needed}'.", param="input")


def _check_part(where: str, part: JsonObject, role: str, allowed: Collection[str], model: Model) -> None:
    kind = text(part, "type")
    if "image" in kind and kind not in allowed:
        raise _refuse(
            f"Invalid '{where}'. Image URLs are only allowed for messages with role 'user', but this message with role '{role}' has one.",
            param=where,
            code="invalid_value",
        )
    if kind not in allowed:
        known = ", ".join(f"'{name}'" for name in allowed)
        raise _refuse(f"Invalid value: '{kind}'. Supported values are: {known}.", param=f"{where}.type", code="invalid_value")
    if "image" in kind:
        if not model.images:
            raise _refuse("Invalid content type. image_url is only supported by certain models.", param=where)
        url = text(part, "image_url") or text(member(part, "image_url"), "url")
        if not re.match(r"^(https?://|data:image/(jpeg|png|gif|webp);base64,.)", url):
            raise _refuse(f"Invalid '{where}.image_url'. Expected a URL or a base64-encoded image.", param=where, code="invalid_image_url")
    known_keys = {
        "type",
        "text",
        "image_url",
        "detail",
        "file",
        "input_audio",
        "refusal",
        "annotations",
        "prompt_cache_breakpoint",
        "logprobs",
    }
    if extra := sorted(part.keys() - known_keys - {"file_id", "file_data", "filename", "file_url"}):
        raise _refuse(f"Unknown parameter: '{where}.{extra[0]}'.", param=f"{where}.{extra[0]}", code="unknown_parameter")


def _check_call_id(where: str, given: str, wire: str) -> None:
    longest = _LONGEST_CALL_ID[wire]
    if len(given) > longest:
        message = (
            f"Invalid '{where}': string too long. Expected a string with maximum length {longest}, but got one of length {len(given)}."
        )
        raise _refuse(message, param=where, code="string_above_max_length")


def _check_limit(name: str, body: JsonObject, model: Model) -> None:
    if (limit := integer(body, name)) > model.max_output:
        raise _refuse(f"{name} is too large: {limit}. This model supports at most {model.max_output} completion tokens.", param=name)


def _check_effort(name: str, holder: JsonObject, model: Model) -> None:
    effort = text(holder, name)
    if not effort:
        return
    if not model.reasoning:
        raise _refuse(f"Unrecognized request argument supplied: {name}")
    if effort not in model.efforts:
        known = ", ".join(f"'{level}'" for level in model.efforts)
        message = f"Unsupported value: '{name}' does not support '{effort}' with this model. Supported values are: {known}."
        raise _refuse(message, param=name, code="unsupported_value")


def _unsupported(name: str, advice: str = "") -> BadRequest:
    message = f"Unsupported parameter: '{name}' is not supported with this model.{advice}"
    return _refuse(message, param=name, code="unsupported_parameter")


_RULES: Mapping[str, tuple[Callable[[JsonObject, Model], None], ...]] = MappingProxyType({
    "/v1/messages": (_fields, _thinking, _output, _order, _content),
    "/v1/chat/completions": (_chat_fields, _chat_messages),
    "/v1/responses": (_responses_fields, _responses_input),
})  # fmt: skip
