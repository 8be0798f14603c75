"""Prompt caching for the calls of a tool loop, which repeat their whole prompt every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from langchain_core.messages import BaseMessage

from routed_agents.errors import ConfigurationError

KEY: Final = "cache_control"
Ttl = Literal["5m", "1h"]


def check_ttl(ttl: object) -> None:
    """Refuse a time that Anthropic keeps no prompt for.

    Raises:
        ConfigurationError: it is neither "5m" nor "1h", nor None.
    """
    if ttl not in (None, "5m", "1h"):
        raise ConfigurationError(f'prompt_cache is {ttl!r}; wanted "5m", "1h" or None')


def with_caching(kwargs: dict[str, Any], ttl: Ttl, messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """The parameters of a call, asking Anthropic to cache its prompt when it is one of a tool loop.

    A call that answers tool results sends all that was sent before it once more, so reading it costs a tenth and writing it a quarter
    more than plain input (5 minutes; Anthropic's price list, 2026-11). A first call is not marked, for nobody knows that another one
    follows. Where the caller set marks nothing is added; tiers of other providers drop the parameter, and cache by themselves.
    """
    if not messages or messages[-1].type != "tool" or KEY in kwargs or _marked(messages):
        return kwargs
    return {**kwargs, KEY: {"type": "ephemeral", **({"ttl": ttl} if ttl != "5m" else {})}}


def _marked(messages: Sequence[BaseMessage]) -> bool:
    """Whether the caller set a mark in any content block."""
    return any(
        isinstance(block, Mapping) and KEY in block
        for message in messages
        if isinstance(message.content, list)
        for block in message.content
    )
