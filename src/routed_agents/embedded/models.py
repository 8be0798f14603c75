"""Model rows say how large, how fast and how fallible each simulated model is; the rows live in models.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

from routed_agents.embedded.json_fields import JsonObject, flag, integer, member, number, objects, strings, text
from routed_agents.errors import ConfigurationError

_DATED = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long a model family lets its caller wait."""

    first_token_s: float
    tokens_per_s: float
    source: str
    as_of: str

    def total_s(self, output_tokens: int) -> float:
        """Seconds until a reply of this length is complete."""
        return self.first_token_s + output_tokens / self.tokens_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One simulated model: its limits, its habits and what its API refuses."""

    id: str
    name: str
    provider: str
    released: date
    latency: Latency
    window: int
    max_output: int
    min_cacheable: int
    tokenizer_factor: float
    error_rate: float
    strength: int
    thinking: str
    sampling: bool
    forced_tool_choice: bool
    prefill: bool
    mid_system: bool
    reports_cache_writes: bool
    efforts: tuple[str, ...] = ()
    structured_output: bool = True
    images: bool = True
    reasoning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All model rows, found by id or dated id."""

    models: Mapping[str, Model]
    image_tokens: int
    source: str
    as_of: str

    def find(self, model_id: str, provider: str) -> Model | None:
        """The row behind an id such as `claude-haiku-4-5-20251001`, or None as for a model that does not exist."""
        row = self.models.get(model_id) or self.models.get(_DATED.sub("", model_id))
        return row if row is not None and row.provider == provider else None

    def with_error_rates(self, rates: Mapping[str, float]) -> Catalogue:
        """The same rows with some error rates replaced, for tests that need a flawless or a hopeless model."""
        changed = dict(self.models)
        for model_id, rate in rates.items():
            known = _DATED.sub("", model_id)
            if known not in changed:
                raise ConfigurationError(f"unknown model {model_id!r} in error_rates; known models: {', '.join(sorted(changed))}.")
            if not 0 <= rate <= 1:
                raise ConfigurationError(f"error rate {rate!r} for {model_id!r}; wanted a share between 0 and 1.")
            changed[known] = replace(changed[known], error_rate=rate)
        return replace(self, models=changed)


def _model(row: JsonObject, latencies: Mapping[str, Latency]) -> Model:
    released = row["released"]
    assert isinstance(released, date)
    return Model(
        id=text(row, "id"),
        name=text(row, "name"),
        provider=text(row, "provider"),
        released=released,
        latency=latencies[text(row, "family")],
        window=integer(row, "window"),
        max_output=integer(row, "max_output"),
        min_cacheable=integer(row, "min_cacheable"),
        tokenizer_factor=number(row, "tokenizer_factor"),
        error_rate=number(row, "error_rate"),
        strength=integer(row, "strength"),
        thinking=text(row, "thinking"),
        sampling=flag(row, "sampling", default=True),
        forced_tool_choice=flag(row, "forced_tool_choice", default=True),
        prefill=flag(row, "prefill"),
        mid_system=flag(row, "mid_system"),
        reports_cache_writes=flag(row, "reports_cache_writes"),
        efforts=tuple(strings(row, "efforts")),
        structured_output=flag(row, "structured_output", default=True),
        images=flag(row, "images", default=True),
        reasoning=flag(row, "reasoning"),
    )


def _latency(row: JsonObject) -> Latency:
    return Latency(
        first_token_s=number(row, "first_token_s"),
        tokens_per_s=number(row, "tokens_per_s"),
        source=text(row, "source"),
        as_of=text(row, "as_of"),
    )


@cache
def load() -> Catalogue:
    """Reads models.toml once."""
    data: JsonObject = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
    latencies = {family: _latency(member(member(data, "latency"), family)) for family in member(data, "latency")}
    rows = [_model(row, latencies) for row in objects(data, "model")]
    return Catalogue(
        models={row.id: row for row in rows},
        image_tokens=integer(member(data, "image"), "tokens"),
        source=text(data, "source"),
        as_of=text(data, "as_of"),
    )
