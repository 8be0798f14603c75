"""Fitting makes one call right for one LangChain chat model: its parameters, its way to structured output and the history it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, signature
from itertools import takewhile
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from routed_agents.errors import ConfigurationError
from routed_agents.repairs import PLAIN, SAMPLING, Own, dialect_of, forces_tools, lacking, limits, repaired, structured_method, thinking_in
from routed_agents.tiers import Deployment, ModelCard, card, dialects, same_model

THINKING: Final = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
CALLS: Final = frozenset({"tool_use", "tool_call", "tool_call_chunk", "function_call", "invalid_tool_call", "input_json_delta"})
"""Blocks that repeat a message's `tool_calls`."""
PICTURES: Final = frozenset({"image", "image_url", "input_image"})
ANTHROPIC_BLOCKS: Final = frozenset({"thinking", "redacted_thinking", "tool_use", "server_tool_use", "web_search_tool_result"})
OPENAI_BLOCKS: Final = frozenset({"function_call", "refusal", "web_search_call", "code_interpreter_call"})
OPENAI_EXTRAS: Final = frozenset({"reasoning", "tool_outputs", "__openai_function_call_ids__"})
"""Where langchain-openai keeps ids of items that only the model that made them may get back."""
PARALLEL: Final = "parallel_tool_calls"
"""What `bind_tools` of some chat models takes."""
OPENING: Final = "(The conversation begins with your message.)"
"""Stands before an assistant message that opens a conversation, for a provider that wants a user message first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One call as a model takes it.

    Attributes:
        model: the chat model, or a copy with a setting of its own left out.
        kwargs: the parameters of the call.
        options: those of `bind_tools` or `with_structured_output`.
        messages: the history to send; None when it goes as it is.
        changed: what was changed, by name, for the span.
    """

    model: Any
    kwargs: dict[str, Any]
    options: dict[str, Any]
    messages: list[BaseMessage] | None
    changed: tuple[str, ...]


def fitted(
    model: Any,
    deployment: Deployment,
    messages: Sequence[BaseMessage],
    *,
    kwargs: Mapping[str, Any],
    method: str = "",
    options: Mapping[str, Any] | None = None,
    tools: Iterable[object] = (),
    carried: bool = True,
) -> Fit:
    """Fit a call to the model that gets it.

    Args:
        model: the chat model of the deployment.
        deployment: what it is and who serves it.
        messages: the history; never changed, copies are made of what does not fit.
        kwargs: parameters of the call.
        method: `bind_tools` or `with_structured_output`, when one of them is due.
        options: its options.
        tools: the tools to bind.
        carried: a provider's own structured output can carry the schema.

    Raises:
        ConfigurationError: the call asks for what no repair can give on this model; nothing was sent.
    """
    fields = cast("Mapping[str, Any]", getattr(model, "__dict__", {}))  # a missing attribute costs pydantic 5 us, a field here 50 ns
    takes = limits(card(deployment.price_key), fields.get("profile"))
    provider = deployment.provider or takes.provider
    given = dict(options) if options else {}
    _refuse_lacking(deployment, takes, provider, messages, [*tools, *(kwargs.get("tools") or ())], {**kwargs, **given})
    own = _own(fields)
    responses = dialect_of(provider) == "openai" and _goes_by_responses(model, kwargs, bound=method == "bind_tools", tools=tools)
    fits, changed = repaired(kwargs, takes, provider=provider, own=own, responses=responses)
    thinks = thinking_in(fits, takes, own, provider=provider)
    bound, more = repaired(given, takes, provider=provider, own=own, thinks=thinks, responses=responses)
    changed = (*changed, *more)
    if PARALLEL in bound and method == "bind_tools" and not _takes_parallel(model.__class__):
        del bound[PARALLEL]
        changed = (*changed, PARALLEL)
    if method == "with_structured_output":
        way = structured_method(given.get("method"), takes, provider=provider, thinks=thinks, carried=carried)
        if way is not None:
            bound["method"] = way
            changed = (*changed, "structured_output_method")
        if dialect_of(provider) == "anthropic" and bound.get("method") != "json_schema" and not forces_tools(takes, thinks=thinks):
            fits.setdefault("tool_choice", {"type": "auto"})  # some of its clients would demand the schema's tool
    history, names = fitted_history(messages, takes, provider, responses=responses)
    changed = (*changed, *names)
    if _thinks_with_budget(fits, own) and (_resumes_unthought(history or messages) or _budget_too_large(fits, own)):
        fits.pop("thinking", None)
        if own.thinking is not None:  # it would win over the call's
            model = model.model_copy(update={"thinking": None})
        changed = (*changed, "thinking")
    return Fit(model=model, kwargs=fits, options=bound, messages=history, changed=tuple(dict.fromkeys(changed)))


def fitted_history(
    messages: Sequence[BaseMessage], takes: ModelCard, provider: str | None, *, responses: bool = False
) -> tuple[list[BaseMessage] | None, tuple[str, ...]]:
    """A history as a model can read it, or None when it can as it is; and what was changed, by name.

    Only copies are changed, always in the same way, so a history that grows keeps its beginning and the prompt cache stays warm. What
    the same model wrote stays untouched. Of another model's messages the words and tool calls stay; its thinking, which only it can
    read, and items that only its provider can resolve, go.
    """
    dialect = dialect_of(provider)
    names: dict[str, None] = {}
    written = [_readable(message, takes, dialect, names) for message in messages]
    if dialect == "openai" and not responses:
        written = _with_pictures_apart(written, names)
    written = _with_system_in_place(written, takes, dialect, names)
    if dialect == "anthropic" and (first := next((m for m in written if m.type != "system"), None)) is not None and first.type == "ai":
        written.insert(written.index(first), HumanMessage(OPENING))
        names["first_message"] = None
    return (written, tuple(names)) if names else (None, ())


def _readable(message: BaseMessage, takes: ModelCard, dialect: str | None, names: dict[str, None]) -> BaseMessage:
    kind = message.type
    if kind in ("ai", "AIMessageChunk"):
        return _answer(cast("AIMessage", message), takes, dialect, names)
    if kind == "tool":
        return _with_short_id(cast("ToolMessage", message), dialect, names)
    return message


def _answer(message: AIMessage, takes: ModelCard, dialect: str | None, names: dict[str, None]) -> AIMessage:
    """An assistant message in words its reader understands."""
    plain = type(message.content) is str and message.content and not message.tool_calls and not message.additional_kwargs
    if plain and (dialect != "anthropic" or not str(message.content).isspace()):
        return message
    told = message.response_metadata
    writer = told.get("model_name") or told.get("model")
    maker = dialect_of(told.get("model_provider")) or _maker(message.content)
    same = not isinstance(writer, str) or same_model(writer, takes.name)
    update: dict[str, Any] = {}
    content: Any = message.content
    if isinstance(content, list):
        blocks = cast("list[Any]", content)
        foreign = maker is not None and dialect is not None and maker != dialect
        if foreign or (dialect == "openai" and not same):
            content = _portable(blocks, names, whole=not foreign)
        else:
            content = _without_blanks(blocks if same else _without_thinking(blocks, names), names)
        if content is not blocks:
            update["content"] = content
    elif dialect == "anthropic" and content and not content.strip() and not message.tool_calls:
        update["content"] = ""  # LangChain leaves an empty message out; words of blanks are refused
        names["blank_text"] = None
    if (not same or maker != dialect) and message.additional_kwargs.keys() & OPENAI_EXTRAS:
        update["additional_kwargs"] = {key: value for key, value in message.additional_kwargs.items() if key not in OPENAI_EXTRAS}
        names["thinking_history"] = None
    if dialect == "openai" and not same and isinstance(told.get("id"), str):  # langchain-openai looks for a stored response by it
        update["response_metadata"] = {key: value for key, value in told.items() if key != "id"}
    if message.tool_calls and any(_is_long(call["id"], dialect) for call in message.tool_calls):
        update["tool_calls"] = [{**call, "id": _short(call["id"], dialect)} for call in message.tool_calls]
        names["tool_call_id"] = None
    return message.model_copy(update=update) if update else message


def _portable(blocks: list[Any], names: dict[str, None], *, whole: bool) -> Any:
    """The words among blocks another model wrote; its tool calls go along as the message's own.

    Blocks that hold nothing but words and calls are left to LangChain's own converter, unless `whole` asks for their ids to go too.
    """
    kept: list[Any] = []
    lost = False
    for block in blocks:
        kind = _kind(block)
        if isinstance(block, str):
            lost = True
            if block.strip():
                kept.append({"type": "text", "text": block})
        elif kind in ("text", "output_text", "refusal"):
            said = block.get("refusal" if kind == "refusal" else "text") or ""
            lost = lost or kind != "text"
            if said.strip():
                kept.append({"type": "text", "text": said})
        elif kind in THINKING:
            lost, names["thinking_history"] = True, None
        elif kind not in CALLS and kind is not None:
            lost, names["foreign_blocks"] = True, None
    if not lost and not whole:
        return blocks
    names.setdefault("content_form", None)
    return kept or ""


def _without_thinking(blocks: list[Any], names: dict[str, None]) -> Any:
    """Blocks of a sibling model without its thinking, whose signatures only it accepts."""
    kept = [block for block in blocks if _kind(block) not in THINKING]
    if len(kept) == len(blocks):
        return blocks
    names["thinking_history"] = None
    return kept or ""


def _without_blanks(content: Any, names: dict[str, None]) -> Any:
    """Content without the empty string a stream of blocks may begin with (a chunk of "" and one of blocks add up to that)."""
    if isinstance(content, str) or all(not isinstance(block, str) or block.strip() for block in content):
        return content
    names["blank_text"] = None
    return [block for block in content if not isinstance(block, str) or block.strip()] or ""


def _maker(content: object) -> str | None:
    """Whose blocks a message holds that does not say who made it."""
    if isinstance(content, str):
        return None
    kinds = {_kind(block) for block in cast("Sequence[Any]", content)}
    if kinds & ANTHROPIC_BLOCKS:
        return "anthropic"
    return "openai" if kinds & OPENAI_BLOCKS else None


def _with_short_id(message: ToolMessage, dialect: str | None, names: dict[str, None]) -> ToolMessage:
    if not _is_long(message.tool_call_id, dialect):
        return message
    names["tool_call_id"] = None
    return message.model_copy(update={"tool_call_id": _short(message.tool_call_id, dialect)})


def _is_long(given: str | None, dialect: str | None) -> bool:
    known = dialects().get(dialect or "")
    return given is not None and known is not None and known.longest_call_id is not None and len(given) > known.longest_call_id


def _short(given: str | None, dialect: str | None) -> str | None:
    """The same short id for the same long one, in every message and in every call."""
    return f"call_{hashlib.sha256(given.encode()).hexdigest()[:24]}" if given is not None and _is_long(given, dialect) else given


def _with_pictures_apart(messages: list[BaseMessage], names: dict[str, None]) -> list[BaseMessage]:
    """Pictures of tool results in a user message behind the results, for models that take them from users only."""
    found: list[BaseMessage] = []
    pictures: list[Any] = []
    for message in messages:
        if message.type != "tool":
            if pictures:
                found.append(HumanMessage(pictures))
                pictures = []
            found.append(message)
            continue
        blocks = cast("list[Any]", message.content) if isinstance(message.content, list) else []
        shown = [block for block in blocks if _kind(block) in PICTURES]
        if not shown:
            found.append(message)
            continue
        names["tool_images"] = None
        rest = [block for block in blocks if block not in shown]
        pictures += [{"type": "text", "text": f"Shown by tool call {cast('ToolMessage', message).tool_call_id}:"}, *shown]
        found.append(message.model_copy(update={"content": rest or "(see the picture below)"}))
    return [*found, HumanMessage(pictures)] if pictures else found


def _with_system_in_place(messages: list[BaseMessage], takes: ModelCard, dialect: str | None, names: dict[str, None]) -> list[BaseMessage]:
    """System messages where a model takes them: behind tool results, never between a call and its result.

    An Anthropic model that takes none in the middle gets them as a user's words, marked; LangChain would move them to the front, which
    rewrites the beginning of the prompt, or raise.
    """
    if not any(message.type == "system" for message in messages[1:]):
        return messages
    found: list[BaseMessage] = []
    waiting: list[BaseMessage] = []
    for index, message in enumerate(messages):
        if message.type == "system" and found and any(each.type != "system" for each in found):
            if _next_kind(messages, index) == "tool":
                waiting.append(message)
                names["system_message"] = None
                continue
            found.append(message)
            continue
        if waiting and message.type != "tool":
            found += waiting
            waiting = []
        found.append(message)
    found += waiting
    if dialect != "anthropic":
        return found
    return [_placed(found, index, takes, names) for index in range(len(found))]


def _placed(messages: list[BaseMessage], index: int, takes: ModelCard, names: dict[str, None]) -> BaseMessage:
    message = messages[index]
    before = next((each.type for each in reversed(messages[:index]) if each.type != "system"), None)
    if message.type != "system" or before is None:
        return message
    if takes.mid_system and before in ("human", "tool") and _next_kind(messages, index) in ("ai", "AIMessageChunk", None):
        return message
    names["system_message"] = None
    return HumanMessage(f"<system>\n{cast('SystemMessage', message).text}\n</system>")


def _next_kind(messages: Sequence[BaseMessage], index: int) -> str | None:
    return next((each.type for each in messages[index + 1 :] if each.type != "system"), None)


def _refuse_lacking(
    deployment: Deployment,
    takes: ModelCard,
    provider: str | None,
    messages: Sequence[BaseMessage],
    tools: Sequence[object],
    parameters: Mapping[str, Any],
) -> None:
    if not tools and takes.images and takes.structured_output:
        return
    pictures = not takes.images and any(shows_pictures(message) for message in messages)
    schema = not takes.structured_output and wants_schema(parameters)
    missing = lacking(takes, provider=provider, tools=tools, images=pictures, schema=schema)
    if missing:
        wanted = "give that tier a model that has it, or force the tier that does"
        raise ConfigurationError(f'"{deployment.model}" ({provider}) cannot do what the call asks for: {missing}; {wanted}')


def shows_pictures(message: BaseMessage) -> bool:
    content: Any = message.content
    return not isinstance(content, str) and any(_kind(block) in PICTURES for block in content)


def _kind(block: Any) -> Any:
    """What a block is; LangChain's v1 form keeps a provider's own blocks, redacted thinking among them, in a wrapping."""
    if not isinstance(block, dict):
        return None
    held = cast("dict[str, Any]", block)
    inner: Any = held.get("value") if held.get("type") == "non_standard" else None
    return cast("dict[str, Any]", inner).get("type") if isinstance(inner, dict) else held.get("type")


def wants_schema(parameters: Mapping[str, Any]) -> bool:
    config: Any = parameters.get("output_config")
    return bool(parameters.get("response_format")) or (
        isinstance(config, Mapping) and bool(cast("Mapping[str, Any]", config).get("format"))
    )


@lru_cache(maxsize=256)
def _takes_parallel(kind: type) -> bool:
    """Whether `bind_tools` of such chat models takes `parallel_tool_calls`, by name or among what else it takes; reading it takes 10 us."""
    bind = getattr(kind, "bind_tools", None)
    if bind is None:
        return True  # a model that is made later takes whatever it is asked
    taken = signature(bind).parameters
    return PARALLEL in taken or any(each.kind is Parameter.VAR_KEYWORD for each in taken.values())


def _own(fields: Mapping[str, Any]) -> Own:
    thinking, effort, limit = fields.get("thinking"), fields.get("reasoning_effort"), fields.get("max_tokens")
    sampling = tuple([name for name in SAMPLING if fields.get(name) not in (None, 1, 1.0)])
    if thinking is None and effort is None and limit is None and not sampling:
        return PLAIN
    return Own(
        thinking=cast("Mapping[str, Any]", thinking) if isinstance(thinking, Mapping) else None,
        effort=effort if isinstance(effort, str) else None,
        max_tokens=limit if isinstance(limit, int) else None,
        sampling=sampling,
    )


def _goes_by_responses(model: Any, kwargs: Mapping[str, Any], *, bound: bool, tools: Iterable[object]) -> bool:
    """Whether ChatOpenAI will send this call in the Responses format; it decides by the model, its settings and the tools."""
    ask = getattr(model, "_use_responses_api", None)
    if ask is None:
        return False
    typed = [cast("dict[str, Any]", tool) if isinstance(tool, dict) and "type" in tool else {"type": "function"} for tool in tools if bound]
    return bool(ask({**kwargs, **({"tools": typed} if typed else {})}))


def _thinks_with_budget(kwargs: Mapping[str, Any], own: Own) -> bool:
    setting: Any = own.thinking if own.thinking is not None else kwargs.get("thinking")
    return isinstance(setting, Mapping) and cast("Mapping[str, Any]", setting).get("type") == "enabled"


def _budget_too_large(kwargs: Mapping[str, Any], own: Own) -> bool:
    """The model's own thinking budget leaves no room in this call's output limit."""
    limit = kwargs.get("max_tokens", own.max_tokens)
    budget = (own.thinking or {}).get("budget_tokens")
    return isinstance(limit, int) and isinstance(budget, int) and budget >= limit


def _resumes_unthought(messages: Sequence[BaseMessage]) -> bool:
    """A tool loop goes on whose last assistant message has no thinking in front: with a thinking budget Anthropic refuses that."""
    answers = ("ai", "AIMessageChunk")
    since = list(takewhile(lambda each: each.type not in answers, reversed(messages)))
    if all(each.type != "tool" for each in since):
        return False
    last = next((each for each in reversed(messages) if each.type in answers), None)
    content: Any = last.content if last is not None else ""
    return not isinstance(content, list) or not content or _kind(content[0]) not in THINKING
