"""Repairs fit a call's parameters to the model that will get it, and say what they changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, cast

from routed_agents.steps import field_of
from routed_agents.tiers import Dialect, ModelCard, Tiers, card, dialects

SAMPLING: Final = ("temperature", "top_p", "top_k")
LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
ALWAYS_CONCERNED: Final = (
    *SAMPLING,
    *LIMITS,
    "reasoning_effort",
    "effort",
    "output_config",
    "reasoning",
    "thinking",
    "tool_choice",
    "stop",
)
"""Parameters that are repaired for one model or another, whoever serves it."""
PLAIN_DIALECT: Final = Dialect()
FREE: Final = ("auto", "none", None, False)
LEVELS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
LEAST_BUDGET: Final = 1024
"""The smallest thinking budget Anthropic documents, in tokens."""
MOST_STOPS: Final = {"openai": 4}
KIN: Final = {
    "azure_openai": "openai",
    "azure": "openai",
    "anthropic_bedrock": "anthropic",
    "google_anthropic_vertex": "anthropic",
}
"""Providers that speak another's language."""
FUNCTION_TYPES: Final = ("function", "custom", None)
ANTHROPIC_TOOL: Final = re.compile(r"_\d{8}$|^mcp_toolset$")
"""Types of Anthropic's own tools end with an undivided date (web_search_20250305); OpenAI's have none or a divided one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a chat model was built with, which a call's parameters have to get along with.

    Attributes:
        thinking: its thinking setting.
        effort: its effort level.
        max_tokens: its output limit.
        sampling: the sampling parameters it sends.
    """

    thinking: Mapping[str, Any] | None = None
    effort: str | None = None
    max_tokens: int | None = None
    sampling: tuple[str, ...] = ()


PLAIN: Final = Own()


def limits(model: ModelCard, profile: Mapping[str, Any] | None) -> ModelCard:
    """The card of a model with what its LangChain profile adds; where the two disagree, the stricter one holds.

    Whether system messages keep their place is the profile's to say, for LangChain sends them by it.
    """
    if not profile:
        return model
    found: dict[str, Any] = {}
    for ours, theirs in (("sampling", "temperature"), ("forced_tool_choice", "tool_choice"), ("structured_output", "structured_output")):
        if profile.get(theirs) is False and getattr(model, ours):
            found[ours] = False
    if profile.get("image_inputs") is False and model.images:
        found["images"] = False
    most = profile.get("max_output_tokens")
    if isinstance(most, int) and (model.max_output is None or most < model.max_output):
        found["max_output"] = most
    levels = profile.get("reasoning_effort_levels")
    if model.efforts is None and isinstance(levels, (list, tuple)):
        found["efforts"] = tuple(cast("Iterable[str]", levels))
    in_place = bool(profile.get("mid_conversation_system_messages"))
    if model.mid_system and not in_place and model.provider == "anthropic":
        found["mid_system"] = False
    elif in_place and not model.mid_system:
        found["mid_system"] = True
    if model.window is None and profile.get("reasoning_output") is True and profile.get("temperature") is False:
        found["reasoning"] = True
    return replace(model, **found) if found else model


def dialect_of(provider: str | None) -> str | None:
    """Whose parameters a provider takes."""
    return KIN.get(provider, provider) if provider is not None else None


def repaired(
    parameters: Mapping[str, Any],
    model: ModelCard,
    *,
    provider: str | None = None,
    own: Own = PLAIN,
    thinks: bool = False,
    responses: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parameters a model takes, and the names of those that were dropped or changed.

    What only another provider understands goes, or gets this one's name for it; sampling parameters go where a model refuses them or
    thinks; an effort level the model lacks becomes its next higher one; a thinking setting of another kind is translated where that is
    safe, else dropped; a forced tool choice becomes "auto" where only that is allowed; limits are cut to the model's own.

    Args:
        parameters: the call's, in LangChain's names.
        model: what the model takes.
        provider: whose client gets them; the card's when not given.
        own: what the chat model was built with.
        thinks: another part of the call makes the model think.
        responses: it goes by OpenAI's Responses format.
    """
    dialect = dialect_of(provider or model.provider)
    if _concerned(dialect).isdisjoint(parameters):
        return dict(parameters), ()
    kept, changed = dict(parameters), list[str]()
    _translate(kept, changed, dialect)
    _drop(kept, changed, SAMPLING if not model.sampling else ())
    _drop(kept, changed, _not_taken(model, dialect, responses=responses))
    _fit_limits(kept, changed, model)
    _fit_effort(kept, changed, model)
    _fit_thinking(kept, changed, model, own)
    if thinks or thinking_in(kept, model, own, provider=dialect):
        _fit_to_thinking(kept, changed, model, own)
    if not model.forced_tool_choice and _forces(kept.get("tool_choice")):
        kept["tool_choice"] = "auto"
        changed.append("tool_choice")
    _fit_stops(kept, changed, dialect)
    return kept, tuple(dict.fromkeys(changed))


@cache
def _concerned(dialect: str | None) -> frozenset[str]:
    """The parameters that a repair may have anything to say about; most calls bring none of them."""
    known = dialects()
    mine = known.get(dialect or "", PLAIN_DIALECT)
    foreign = [other.only for name, other in known.items() if name != dialect]
    return frozenset(ALWAYS_CONCERNED).union(mine.renamed, mine.not_reasoning, mine.not_responses, *foreign)


def thinking_in(parameters: Mapping[str, Any], model: ModelCard, own: Own = PLAIN, *, provider: str | None = None) -> bool:
    """Whether a call makes the model think before it answers, in a way that rules out a forced tool call (Anthropic)."""
    if dialect_of(provider or model.provider) != "anthropic":
        return False
    setting = own.thinking if own.thinking is not None else parameters.get("thinking")
    if isinstance(setting, Mapping):
        return field_of(cast("object", setting), "type") in ("enabled", "adaptive")
    effort = parameters.get("reasoning_effort") or parameters.get("effort") or own.effort
    return bool(effort) and "xhigh" in (model.efforts or ())  # LangChain turns adaptive thinking on for these


def forces_tools(model: ModelCard, *, provider: str | None = None, thinks: bool = False) -> bool:
    """Whether a model can be made to call a tool; `thinks` says that the call makes it think, which rules that out (Anthropic)."""
    return model.forced_tool_choice and not (thinks and dialect_of(provider or model.provider) == "anthropic")


def structured_method(
    wanted: str | None, model: ModelCard, *, provider: str | None = None, thinks: bool = False, carried: bool = True
) -> str | None:
    """The method of structured output that works on a model; None where its own default or the wanted one does.

    Args:
        wanted: the method that was asked for.
        model: what the model takes.
        provider: who serves it; the card's when not given.
        thinks: the call makes the model think.
        carried: the provider's own structured output can carry the schema (`routed_agents.schemas`).
    """
    dialect = dialect_of(provider or model.provider)
    first = method = wanted or ("json_schema" if dialect == "openai" else "function_calling")
    if method == "json_mode" and dialect == "anthropic":
        method = "json_schema" if carried else "function_calling"
    if method == "json_schema" and not model.structured_output:
        method = "function_calling"
    if method == "function_calling" and carried and model.structured_output and not forces_tools(model, provider=provider, thinks=thinks):
        method = "json_schema"
    return method if method != first else None


def server_tools(tools: Iterable[object], provider: str | None) -> tuple[str, ...]:
    """The types among these tools that another provider would have to run: nobody else can, so such a tier must not get the call."""
    dialect = dialect_of(provider)
    if dialect not in dialects():
        return ()
    found: list[str] = []
    for tool in tools:
        kind: object = cast("Mapping[str, object]", tool).get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and kind not in FUNCTION_TYPES and (ANTHROPIC_TOOL.search(kind) is None) != (dialect == "openai"):
            found.append(kind)
    return tuple(dict.fromkeys(found))


def lacking(
    model: ModelCard, *, provider: str | None = None, tools: Iterable[object] = (), images: bool = False, schema: bool = False
) -> str:
    """What a step asks for that no repair can give on this model, in words; empty when nothing is missing.

    Args:
        model: what the model takes.
        provider: who serves it; the card's when not given.
        tools: the tools of the call, as they were bound.
        images: somebody sends pictures.
        schema: a schema-bound answer is demanded by parameter (`response_format`), not through `with_structured_output`.
    """
    foreign = server_tools(tools, provider or model.provider)
    missing = [f"tool {kind}" for kind in foreign]
    if images and not model.images:
        missing.append("images")
    if schema and not model.structured_output:
        missing.append("structured output")
    return ", ".join(missing)


def unusable(tiers: Tiers, *, tools: Iterable[object] = (), images: bool = False, schema: bool = False) -> dict[str, str]:
    """The tiers a step cannot be sent to, with what they lack: what `Conditions.unusable` takes."""
    asked = tuple(tools)
    found: dict[str, str] = {}
    for tier in tiers:
        for each in tier.deployments:
            missing = lacking(card(each.price_key), provider=each.provider, tools=asked, images=images, schema=schema)
            if missing:
                found.setdefault(tier.name, missing)
    return found


def _translate(kept: dict[str, Any], changed: list[str], dialect: str | None) -> None:
    """Give another provider's parameters this one's names, and drop those it has none for."""
    known = dialects()
    mine = known.get(dialect or "")
    if mine is None:
        return
    for theirs, ours in mine.renamed.items():
        if theirs in kept:
            value = kept.pop(theirs)
            kept.setdefault(ours, value)
            if theirs not in ("effort", "stop_sequences"):
                changed.append(theirs)
    if dialect == "openai" and isinstance(config := kept.get("output_config"), Mapping):
        _from_output_config(kept, cast("Mapping[str, Any]", config))
    if dialect == "anthropic" and isinstance(reasoning := kept.get("reasoning"), Mapping):
        effort = cast("Mapping[str, Any]", reasoning).get("effort")
        if effort is not None:
            kept.setdefault("reasoning_effort", effort)
    for name, other in known.items():
        if name != dialect:
            _drop(kept, changed, sorted(other.only & kept.keys()))


def _drop(kept: dict[str, Any], changed: list[str], parameters: Iterable[str]) -> None:
    changed += [name for name in parameters if kept.pop(name, None) is not None]


def _not_taken(model: ModelCard, dialect: str | None, *, responses: bool) -> list[str]:
    known = dialects().get(dialect or "")
    if known is None or not (model.reasoning or responses):
        return []
    return sorted((known.not_reasoning if model.reasoning else frozenset[str]()) | (known.not_responses if responses else frozenset[str]()))


def _from_output_config(kept: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Effort and schema out of Anthropic's `output_config`, in OpenAI's words."""
    if effort := config.get("effort"):
        kept.setdefault("reasoning_effort", effort)
    wanted = config.get("format")
    if isinstance(wanted, Mapping) and (schema := cast("Mapping[str, Any]", wanted).get("schema")):
        kept.setdefault("response_format", {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})


def _fit_limits(kept: dict[str, Any], changed: list[str], model: ModelCard) -> None:
    for name in LIMITS:
        limit = kept.get(name)
        if isinstance(limit, int) and model.max_output is not None and limit > model.max_output:
            kept[name] = model.max_output
            changed.append(name)


def _fit_effort(kept: dict[str, Any], changed: list[str], model: ModelCard) -> None:
    if model.efforts is None:
        return
    for name in ("reasoning_effort", "effort"):
        _fit_level(kept, name, name, changed, model.efforts)
    for holder in ("output_config", "reasoning"):
        if isinstance(config := kept.get(holder), Mapping) and "effort" in config:
            copied = dict(cast("Mapping[str, Any]", config))
            _fit_level(copied, "effort", "reasoning_effort", changed, model.efforts)
            kept[holder] = copied
            if not copied:
                del kept[holder]


def _fit_level(holder: dict[str, Any], key: str, name: str, changed: list[str], levels: tuple[str, ...]) -> None:
    wanted = holder.get(key)
    if wanted is None or wanted in levels:
        return
    changed.append(name)
    if not levels or wanted not in LEVELS:
        del holder[key]
        return
    higher = [level for level in LEVELS[LEVELS.index(wanted) :] if level in levels]
    holder[key] = higher[0] if higher else max(levels, key=LEVELS.index)


def _fit_thinking(kept: dict[str, Any], changed: list[str], model: ModelCard, own: Own) -> None:
    asked: Any = kept.get("thinking")
    if not isinstance(asked, Mapping):
        return
    thinking = cast("Mapping[str, Any]", asked)
    fitting = _thinking_for(thinking, model, _limit_of(kept, own))
    if fitting is None:
        del kept["thinking"]
        changed.append("thinking")
    elif fitting != thinking:
        kept["thinking"] = fitting
        changed.append("thinking")
    if thinking.get("type") == "disabled" and kept.get("reasoning_effort") in ("xhigh", "max"):
        kept["reasoning_effort"] = "high"  # claude-opus-5 takes no higher effort without thinking
        changed.append("reasoning_effort")


def _thinking_for(thinking: Mapping[str, Any], model: ModelCard, limit: int | None) -> Mapping[str, Any] | None:
    """The setting a model takes in place of this one; None when there is none that means the same."""
    kind, way = thinking.get("type"), model.thinking
    if way == "any":
        return thinking
    if kind == "disabled":
        return thinking if way in ("budget", "adaptive") else None
    if kind == "adaptive":
        return thinking if way in ("adaptive", "always") else None
    if kind != "enabled" or way == "none":
        return None
    if way != "budget":
        return {"type": "adaptive"}
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return None
    fitting = max(budget, LEAST_BUDGET)
    if limit is not None and fitting >= limit:
        fitting = limit // 2
    if fitting < LEAST_BUDGET:
        return None
    return thinking if fitting == budget else {**thinking, "budget_tokens": fitting}


def _fit_to_thinking(kept: dict[str, Any], changed: list[str], model: ModelCard, own: Own) -> None:
    """A model that thinks takes no forced tool choice, and the default sampling only."""
    if _forces(kept.get("tool_choice")):
        kept["tool_choice"] = "auto"
        changed.append("tool_choice")
    for name in SAMPLING:
        if kept.get(name) not in (None, 1, 1.0):
            del kept[name]
            changed.append(name)
        if name in own.sampling and kept.get("thinking") is not None:
            kept[name] = None  # over the model's own
            changed.append(name)


def _fit_stops(kept: dict[str, Any], changed: list[str], dialect: str | None) -> None:
    stop: Any = kept.get("stop")
    if stop is None:
        return
    marks = [stop] if isinstance(stop, str) else [str(each) for each in cast("Iterable[object]", stop)]
    fitting = [mark for mark in marks if mark.strip()] if dialect == "anthropic" else marks
    fitting = fitting[: MOST_STOPS.get(dialect or "", len(fitting))]
    if fitting != marks:
        changed.append("stop")
        del kept["stop"]
        if fitting:
            kept["stop"] = fitting


def _limit_of(kept: Mapping[str, Any], own: Own) -> int | None:
    limit = kept.get("max_tokens", own.max_tokens)
    return limit if isinstance(limit, int) else None


def _forces(choice: object) -> bool:
    kind = choice.get("type") if isinstance(choice, Mapping) else choice  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return kind not in FREE
