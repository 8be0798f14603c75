"""Repairs fit a call's parameters to the model that will get it, and say what they changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from routed_agents.tiers import ModelCard

SAMPLING: Final = ("temperature", "top_p", "top_k")
FREE: Final = ("auto", "none", None, False)


def repaired(parameters: Mapping[str, Any], card: ModelCard) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parameters a model takes, and the names of those that were dropped or changed.

    Sampling parameters go where a model refuses them; a forced tool choice becomes "auto" where only that is allowed; an output limit
    is cut to the model's own; a thinking setting the model does not know is dropped.
    """
    kept, changed = dict(parameters), list[str]()
    if not card.sampling:
        for name in SAMPLING:
            if kept.pop(name, None) is not None:
                changed.append(name)
    if not card.forced_tool_choice and _forces(kept.get("tool_choice")):
        kept["tool_choice"] = "auto"
        changed.append("tool_choice")
    limit = kept.get("max_tokens")
    if isinstance(limit, int) and card.max_output is not None and limit > card.max_output:
        kept["max_tokens"] = card.max_output
        changed.append("max_tokens")
    thinking: Any = kept.get("thinking")
    if isinstance(thinking, Mapping) and not _thinks(cast("Mapping[str, Any]", thinking), card):
        del kept["thinking"]
        changed.append("thinking")
    if card.thinking in ("none", "budget"):
        for name in ("effort", "reasoning_effort"):
            if kept.pop(name, None) is not None:
                changed.append(name)
    return kept, tuple(changed)


def _forces(choice: object) -> bool:
    kind = choice.get("type") if isinstance(choice, Mapping) else choice  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return kind not in FREE


def _thinks(thinking: Mapping[str, Any], card: ModelCard) -> bool:
    kind = thinking.get("type")
    if kind == "disabled":
        return card.thinking != "always"
    if kind == "enabled":
        return card.thinking == "budget"
    return card.thinking in ("adaptive", "always")
