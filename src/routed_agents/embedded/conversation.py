"""A conversation is what both wire formats are read into, and a reply is what both are written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from routed_agents.embedded.json_fields import JsonObject
from routed_agents.embedded.models import Model

Choice = Literal["auto", "any", "tool", "none"]
Stop = Literal["end", "tool", "length", "stop_sequence", "refusal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Something said in words."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture or file: it costs tokens but nobody looks at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool the model wants called, or has had called."""

    id: str
    name: str
    arguments: JsonObject = field(hash=False)
    raw_arguments: str | None = None  # sent instead of the arguments where a fault garbles them


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool call gave back."""

    call_id: str
    text: str
    failed: bool = False


Part = Text | Image | ToolCall | ToolResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message, with its parts in order."""

    role: Literal["user", "assistant", "system"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All that was said in words."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool on offer."""

    name: str
    description: str
    schema: JsonObject = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Everything a solver may look at."""

    model: Model
    system: str
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Choice = "auto"
    forced_tool: str = ""
    parallel_calls: bool = True
    schema: JsonObject | None = field(default=None, hash=False)
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the simulated model says, before it is put on a wire."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    stop: Stop = "end"
    stop_sequence: str | None = None
    served_model: str | None = None  # a gateway that quietly answers with another model
    thinking: str | None = None  # strict mode only; empty where it is left out of the reply
    signature: str = ""
    redacted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call, each counted once."""

    uncached: int
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0

    @property
    def prompt(self) -> int:
        """All input tokens, cached or not."""
        return self.uncached + self.cache_read + self.cache_write_5m + self.cache_write_1h
