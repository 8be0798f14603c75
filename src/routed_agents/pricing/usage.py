"""The tokens of one call, in kinds that do not overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

UsageSource = Literal["reported", "estimated", "missing"]

SOURCES: Final[tuple[UsageSource, ...]] = ("reported", "estimated", "missing")
MIXED: Final = "mixed"
"""Stands for a speed, tier or region in a sum of calls that differ in it; no card prices it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one call, in kinds that do not overlap, and what else changes their price.

    Providers report totals in which kinds contain each other, each in its own way; `usage_of` sorts them out. A sum of
    usages is for counting: a cliff is decided call by call, so price the calls and add the costs.

    Attributes:
        input: prompt tokens neither read from nor written to a cache.
        cache_read: prompt tokens read from a cache.
        cache_write_5m: prompt tokens written with the provider's short retention (Anthropic 5 minutes, OpenAI 30).
        cache_write_1h: prompt tokens written with its long retention (Anthropic 1 hour, OpenAI 12).
        output: reply tokens, reasoning included.
        reasoning: how many of `output` were reasoning; for information.
        other: what no card here prices: tokens (audio, another model's share of the call, cache writes under a redeemed credit) and calls
            of hosted tools with a fee of their own (file search, image generation, code run in a container); any make the call unpriced.
        web_searches: searches the provider ran.
        source: whether the provider said so, somebody estimated it, or nothing is known.
        speed: "fast" and the like, as reported.
        service_tier: "flex", "priority" and the like, as reported.
        geo: the region of inference, as reported.
        batch: whether the call went through a batch interface.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    other: int = 0
    web_searches: int = 0
    source: UsageSource = "reported"
    speed: str | None = None
    service_tier: str | None = None
    geo: str | None = None
    batch: bool = False

    @property
    def prompt(self) -> int:
        """All tokens sent, which is what a cliff looks at."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def total(self) -> int:
        """All tokens, sent and received."""
        return self.prompt + self.output

    @property
    def output_unknown(self) -> bool:
        """Whether it is an estimate of the prompt alone, as of a call that was cut off before an answer; more may have been billed."""
        return self.source == "estimated" and not self.output

    def at_least(self, output: int) -> Usage:
        """The usage of a reply whose end did not come: as reported, its output no less than what was seen of it, which is an estimate."""
        return replace(self, output=max(self.output, output), source="estimated")

    def kept_long(self) -> Usage:
        """The same tokens, all that were written to a cache written with the long retention."""
        return replace(self, cache_write_5m=0, cache_write_1h=self.cache_write_5m + self.cache_write_1h)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write_5m=self.cache_write_5m + other.cache_write_5m,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            other=self.other + other.other,
            web_searches=self.web_searches + other.web_searches,
            source=SOURCES[max(SOURCES.index(self.source), SOURCES.index(other.source))],
            speed=self.speed if self.speed == other.speed else MIXED,
            service_tier=self.service_tier if (self.service_tier, self.batch) == (other.service_tier, other.batch) else MIXED,
            geo=self.geo if self.geo == other.geo else MIXED,
            batch=self.batch and other.batch,
        )
