"""Reads what an SDK is about to send as a step, whichever of the providers' formats it is in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, cast

from routed_agents.errors import ConfigurationError, StepError
from routed_agents.steps import NOTHING, STAMP, Step, content_of, field_of, role_of, tool_calls_of

Api = Literal["messages", "chat", "responses", "completions"]
Body = Mapping[str, Any]
FREE: Final = ("auto", "none", None, False)
CACHE: Final = "cache_control"
PICTURES: Final = ("image", "image_url", "input_image")
CALLS: Final = ("function_call", "custom_tool_call")
UNSET: Final = frozenset({"Omit", "NotGiven"})
"""What the SDKs call an argument nobody gave."""
NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a caller says about its calls besides what is sent; none of it reaches the provider.

    Attributes:
        thread: the conversation or job, whose pins and facts hold.
        labels: attribution for ledger and spans (tenant, team, …).
        task_class: the class of the step, when its author knows it.
        node: names the caller, as a graph names its nodes.
        tier: no lower and no higher tier than this one, unless something demands a higher.
        run: the run the call belongs to.
        downstream: model steps that hang on this one's answer.
        deadline_s: seconds the caller can wait.
        metadata: flags that floors of the policy file ask for.
    """

    thread: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    task_class: str | None = None
    node: str | None = None
    tier: str | None = None
    run: str | None = None
    downstream: int | None = None
    deadline_s: float | None = None
    metadata: Mapping[str, object] = field(default_factory=lambda: NOTHING)

    def with_(self, given: object) -> About:
        """The same with some of it said anew; labels and metadata are added to.

        Raises:
            ConfigurationError: it isn't a mapping, a key of it is unknown, or what stands there is none.
        """
        known = [each.name for each in fields(About)]
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"routed_agents is {type(given).__name__}; wanted a mapping with some of {', '.join(known)}")
        said = dict(cast("Mapping[str, Any]", given))
        if unknown := [str(key) for key in said if key not in known]:
            raise ConfigurationError(f"routed_agents has no {', '.join(unknown)}; known keys: {', '.join(known)}")
        for key in ("labels", "metadata"):
            if key in said:
                if not isinstance(said[key], Mapping):
                    raise ConfigurationError(f"routed_agents[{key!r}] is {type(said[key]).__name__}; wanted a mapping")
                said[key] = {**getattr(self, key), **said[key]}
        for key in ("task_class", "node", "tier"):
            if not isinstance(said.get(key), (str, NoneType)):
                raise ConfigurationError(f"routed_agents[{key!r}] is {type(said[key]).__name__}; wanted its name as text")
        return replace(self, **said)


def given_only(body: Body) -> dict[str, Any]:
    """The arguments that were given, with every iterable that can be read only once made a list."""
    kept = {name: value for name, value in body.items() if type(value).__name__ not in UNSET}
    for name in ("messages", "input", "tools", "system"):
        value = kept.get(name)
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes, list, tuple, Mapping)):
            kept[name] = list(cast("Iterable[Any]", value))
    return kept


def as_sent(body: Body, options: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """A request's arguments with `extra_body` over them, as the SDK sends them, and the options without it.

    A model in there stays apart (`other_model`): Azure's client makes its path of the one among the arguments.
    """
    extra = options.get("extra_json")
    if not isinstance(extra, Mapping):
        return given_only(body), options
    over = dict(cast("Mapping[str, Any]", extra))
    apart = {"extra_json": {"model": over.pop("model")}} if "model" in over else {}
    rest = {name: value for name, value in options.items() if name != "extra_json"}
    return given_only({**body, **over}), {**rest, **apart}


def other_model(options: Mapping[str, Any]) -> object:
    """The model `extra_body` puts over the one among the arguments; None where it doesn't."""
    return field_of(options.get("extra_json"), "model")


def step_of(api: Api, body: Body, about: About) -> Step:
    """The step behind a request.

    Raises:
        StepError: there is nothing in it for a model to answer.
    """
    messages, system = _conversation(api, body)
    metadata: Mapping[str, object] = about.metadata
    if about.tier is not None:
        metadata = {**metadata, STAMP: {"tier": about.tier}}
    return Step.from_messages(
        messages,
        system=system or None,
        tools=body.get("tools") or (),
        task_class=about.task_class,
        node=about.node,
        output_schema=_schema(api, body),
        downstream=about.downstream,
        deadline_s=about.deadline_s,
        metadata=metadata,
        run=about.run,
    )


def with_caching(body: dict[str, Any], ttl: Literal["5m", "1h"] | None, *, on_block: bool = False) -> None:
    """Ask Anthropic to cache the prompt of a call in a tool loop, which repeats it whole; where the caller set marks nothing is added.

    Args:
        body: the arguments of the request.
        ttl: how long to keep it; nothing is asked where None.
        on_block: mark the last block in place of the request, which Bedrock and Vertex refuse.
    """
    messages = cast("Sequence[Any]", body.get("messages") or ())
    if ttl is None or CACHE in body or not messages or _role(messages[-1]) != "tool":
        return
    parts: list[Any] = [*messages, *(body.get("tools") or ())]
    parts += [{"content": body.get("system")}]
    if any(field_of(block, CACHE) for part in parts for block in (part, *_blocks(part))):
        return
    mark = {"type": "ephemeral", **({"ttl": ttl} if ttl != "5m" else {})}
    body |= {"messages": _marked(messages, mark)} if on_block else {CACHE: mark}


def _marked(messages: Sequence[Any], mark: Mapping[str, str]) -> Sequence[Any]:
    """The messages with a mark on their last block, or as they are: results of calls that code made, not the model, take none."""
    last, blocks = messages[-1], _blocks(messages[-1])
    callers = [field_of(field_of(block, "caller"), "type") for message in messages for block in _blocks(message)]
    by_model = all(caller in (None, "direct") for caller in callers)
    if not by_model or not isinstance(last, Mapping) or not blocks or not isinstance(blocks[-1], Mapping):
        return messages
    block = {**cast("Mapping[str, Any]", blocks[-1]), CACHE: mark}
    return [*messages[:-1], {**cast("Mapping[str, Any]", last), "content": [*blocks[:-1], block]}]


def _blocks(part: object) -> Sequence[object]:
    content = field_of(part, "content")
    return cast("Sequence[object]", content) if isinstance(content, (list, tuple)) else ()


def _role(message: object) -> str:
    try:
        return role_of(message)
    except StepError:
        return "ai"


def demands_tool(body: Body) -> bool:
    """Whether the caller wants a tool call and nothing else."""
    choice: Any = body.get("tool_choice")
    if not isinstance(choice, Mapping):
        return choice not in FREE
    asked = cast("Mapping[str, object]", choice)
    kind = asked.get("type")
    if kind == "allowed_tools":
        kind = asked.get("mode") or field_of(asked.get("allowed_tools"), "mode")
    return kind not in FREE


def shows_pictures(step: Step) -> bool:
    """Whether anybody sends pictures in this step."""
    for message in step.messages:
        content = content_of(message)
        if isinstance(content, (list, tuple)) and any(field_of(block, "type") in PICTURES for block in cast("Sequence[object]", content)):
            return True
    return False


def tool_schemas(body: Body) -> dict[str, Mapping[str, Any]]:
    """The JSON Schemas of the tools' arguments, by name; of tools that the provider runs or that take free text there are none."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in cast("Sequence[object]", body.get("tools") or ()):
        function = field_of(tool, "function") or tool
        schema = field_of(function, "input_schema") or field_of(function, "parameters")
        if isinstance(name := field_of(function, "name"), str) and isinstance(schema, Mapping):
            found[name] = cast("Mapping[str, Any]", schema)
    return found


def loop_of(step: Step) -> str | None:
    """Names the tool loop a step goes on with, by its first tool call since the turn began; None at the beginning of a turn.

    Bare messages carry no decisions, but the ids of their tool calls are the provider's own and come back with every step of the loop.
    """
    first: str | None = None
    for message in reversed(step.messages):
        role = _role(message)
        if role == "human":
            break
        calls = tool_calls_of(message) if role == "ai" else ()
        first = (calls[0].id or first) if calls else first
    return loop_named(first)


def first_call_of(api: Api, reply: object) -> str | None:
    """The id of a reply's first tool call, as the next step's history will hold it."""
    if api == "responses":
        items = cast("Sequence[object]", field_of(reply, "output") or ())
        return next((str(field_of(item, "call_id")) for item in items if field_of(item, "type") in CALLS), None)
    if api == "chat":
        choices = cast("Sequence[object]", field_of(reply, "choices") or ())
        reply = field_of(choices[0], "message") if choices else None
    calls = tool_calls_of(reply)
    return calls[0].id if calls else None


def loop_named(call_id: str | None) -> str | None:
    """The key under which pins of a tool loop are kept where no thread is given."""
    return f"loop:{call_id}" if call_id else None


def _conversation(api: Api, body: Body) -> tuple[Sequence[object] | str, str]:
    if api == "messages":
        return body.get("messages") or (), _words(body.get("system"))
    if api == "chat":
        return body.get("messages") or (), ""
    if api == "completions":
        prompt = body.get("prompt")
        return prompt if isinstance(prompt, str) else "\n".join([str(each) for each in prompt or ()]), ""
    said = body.get("input")
    items = said if isinstance(said, str) else [_message(item) for item in said or ()]
    return items, _words(body.get("instructions"))


def _words(system: object) -> str:
    if isinstance(system, str):
        return system
    blocks = cast("Sequence[object]", system) if isinstance(system, (list, tuple)) else ()
    return "\n".join([text for block in blocks if isinstance(text := field_of(block, "text"), str)])


def _message(item: object) -> object:
    """An item of OpenAI's Responses API as a message."""
    kind = field_of(item, "type") or "message"
    if kind == "message":
        role = field_of(item, "role")
        return {"role": role if isinstance(role, str) else "assistant", "content": field_of(item, "content")}
    if kind in CALLS:
        arguments = field_of(item, "arguments") or field_of(item, "input") or ""
        call = {"name": field_of(item, "name"), "arguments": arguments, "id": field_of(item, "call_id")}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if isinstance(kind, str) and kind.endswith("_output"):
        return {"role": "tool", "content": field_of(item, "output"), "tool_call_id": field_of(item, "call_id")}
    return {"role": "assistant", "content": _words(field_of(item, "summary")) or [item]}


def _schema(api: Api, body: Body) -> Mapping[str, object] | None:
    """The JSON Schema the reply has to satisfy."""
    if api == "messages":
        wanted = field_of(body.get("output_config"), "format")
    elif api == "chat":
        wanted = body.get("response_format")
        wanted = field_of(wanted, "json_schema") if field_of(wanted, "type") == "json_schema" else None
    else:
        wanted = field_of(body.get("text"), "format")
    schema = field_of(wanted, "schema") if wanted is not None else None
    return cast("Mapping[str, object]", schema) if isinstance(schema, Mapping) else None
