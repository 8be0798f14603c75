"""Tiers are named slots for models, ordered from cheap to strong."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal

from routed_agents.errors import PolicyError

Thinking = Literal["none", "budget", "adaptive", "always", "any"]
ROLES = ("cheap", "mid", "strong")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a model can take: its window and the parameters it refuses.

    Attributes:
        window: most prompt tokens it accepts; None when unknown, which counts as large enough.
        max_output: most tokens it writes.
        tokenizer: tokens for the same text, relative to Claude Haiku 4.5; None when nobody knows.
        sampling: accepts temperature, top_p and top_k.
        forced_tool_choice: accepts a tool choice other than auto and none.
        thinking: how its thinking is controlled; "any" when nobody knows, so that nothing is taken away.
        efforts: the effort levels it takes; None when unknown, empty when it has none.
        structured_output: answers in a schema without calling a tool for it.
        mid_system: takes system messages in the middle of a conversation.
        images: looks at pictures.
        reasoning: a reasoning model of OpenAI, which takes neither stop sequences nor penalties, log probabilities or several choices.
        first_token_s: seconds to its first token, best observed; None when nobody measured it.
    """

    name: str
    provider: str | None = None
    window: int | None = None
    max_output: int | None = None
    tokenizer: Fraction | None = None
    sampling: bool = True
    forced_tool_choice: bool = True
    tools: bool = True
    thinking: Thinking = "any"
    efforts: tuple[str, ...] | None = None
    structured_output: bool = True
    mid_system: bool = False
    images: bool = True
    reasoning: bool = False
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One place where a tier's model runs.

    Attributes:
        model: the model id that is sent.
        provider: who serves it (`anthropic`, `openai`, …); None when unknown.
        priced_as: the model whose price applies, for ARNs, gateways and fine-tunes; another model that answers has its own.
        name: tells deployments of one tier apart; one that stands elsewhere too says less clearly what is unavailable, and nothing else.
        simulated: answers and costs are not real.
    """

    model: str
    provider: str | None = None
    priced_as: str | None = None
    name: str = ""
    simulated: bool = False

    @classmethod
    def parse(cls, text: str, *, priced_as: str | None = None, name: str = "", simulated: bool = False) -> Deployment:
        """Read `"anthropic:claude-opus-5-5"` or a bare model id."""
        provider, colon, model = text.partition(":")
        if not colon or provider not in PROVIDERS:
            provider, model = "", text
        known = provider or card(model).provider
        return cls(model=model, provider=known, priced_as=priced_as, name=name or text, simulated=simulated)

    @property
    def price_key(self) -> str:
        return self.priced_as or self.model

    def is_of(self, model: str) -> bool:
        """Whether a model that answered is the one that runs here; dated ids count as their family."""
        return same_model(self.model, model) or (self.priced_as is not None and same_model(self.priced_as, model))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A slot with a role, a rank and the deployments behind it, all of the same rank."""

    name: str
    rank: int
    deployments: tuple[Deployment, ...]

    @property
    def model(self) -> str:
        return self.deployments[0].model


@dataclass(frozen=True, slots=True)
class Tiers:
    """The tiers of a policy, cheapest first."""

    rows: tuple[Tier, ...]
    preset: str | None = None
    _keys: dict[tuple[str, Deployment], str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", _keys_of(self.rows))

    @classmethod
    def preset_named(cls, name: str) -> Tiers:
        """A shipped set: `claude-2026-11`, `claude` (its newest), `gpt-4o`, `embedded`, …

        Raises:
            PolicyError: there is no such preset; the message lists the known ones.
        """
        presets: Mapping[str, Mapping[str, Any]] = _shipped()["presets"]
        key = name if name in presets else _newest(name, presets)
        if key is None:
            raise PolicyError(f"unknown tier preset {name!r}; known presets: {', '.join(presets)}")
        row = presets[key]
        simulated = bool(row.get("simulated", False))
        roles = {role: Deployment.parse(str(row[role]), simulated=simulated) for role in ROLES if role in row}
        return cls.of(roles, preset=key)

    @classmethod
    def of(cls, roles: Mapping[str, Deployment | str | Iterable[Deployment | str]], *, preset: str | None = None) -> Tiers:
        """Tiers from role to model(s), given cheapest first.

        Raises:
            PolicyError: no tier is given, or one has no model.
        """
        rows: list[Tier] = []
        for rank, (name, given) in enumerate(roles.items()):
            several = (given,) if isinstance(given, (str, Deployment)) else tuple(given)
            if not several:
                raise PolicyError(f'tier "{name}" has no model; give at least one, like "anthropic:claude-opus-5-5"')
            parsed = tuple(Deployment.parse(each) if isinstance(each, str) else each for each in several)
            rows.append(Tier(name=name, rank=rank, deployments=parsed))
        if not rows:
            raise PolicyError('no tier is given; wanted at least one, like cheap = "anthropic:claude-haiku-5-5"')
        return cls(rows=tuple(rows), preset=preset)

    @property
    def top(self) -> int:
        return len(self.rows) - 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tier.name for tier in self.rows)

    def __iter__(self) -> Iterator[Tier]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rank: int) -> Tier:
        return self.rows[rank]

    def named(self, name: str) -> Tier:
        """The tier with this name.

        Raises:
            PolicyError: there is none; the message lists the known ones.
        """
        for tier in self.rows:
            if tier.name == name:
                return tier
        raise PolicyError(f'unknown tier "{name}"; known tiers: {", ".join(self.names)}. Use one of these or add it under [tiers].')

    def key(self, tier: Tier, deployment: Deployment) -> str:
        """What names this deployment and nothing else in these tiers: its own name, else its model, else its place."""
        return self._keys.get((tier.name, deployment)) or deployment.name or deployment.model

    def keys(self, tier: Tier) -> frozenset[str]:
        """What names the deployments of a tier and nothing else."""
        return frozenset([self.key(tier, each) for each in tier.deployments])

    def has_key(self, key: str) -> bool:
        """Whether it names one deployment and nothing else."""
        return key in self._keys.values()

    def rank_of_pin(self, name: str) -> int:
        """The rank a stored tier name stands for; a name this policy doesn't know counts as the top, so a pin never falls."""
        return next((tier.rank for tier in self.rows if tier.name == name), self.top)

    def rank_of_model(self, model: str) -> int | None:
        """The rank of a model that answered; dated ids count as their family; None for a foreign model."""
        for tier in self.rows:
            if any(each.is_of(model) for each in tier.deployments):
                return tier.rank
        return None

    def is_below(self, model: str, floor: str) -> bool:
        """Whether a model is one of these tiers', and of none as high as that one."""
        ranks = [tier.rank for tier in self.rows if any(each.is_of(model) for each in tier.deployments)]
        return bool(ranks) and floor in self.names and max(ranks) < self.named(floor).rank

    def narrowed(self, names: Iterable[str]) -> Tiers:
        """Only the named tiers, ranks counted anew.

        Raises:
            PolicyError: a name is unknown, or the top tier is left out: whatever must be strong would go to a lower one.
        """
        wanted = [self.named(name).name for name in names]
        if self.rows[-1].name not in wanted:
            top = self.rows[-1]
            raise PolicyError(f'the top tier "{top.name}" ({top.model}) is left out; name it too: steps that must be strong go there')
        rows = [tier for tier in self.rows if tier.name in wanted]
        return Tiers(rows=tuple(replace(tier, rank=rank) for rank, tier in enumerate(rows)), preset=self.preset)


def _keys_of(rows: Iterable[Tier]) -> dict[tuple[str, Deployment], str]:
    """A key for each deployment, in which no tier, no model and no other deployment can be meant."""
    rows = tuple(rows)
    places = [(tier.name, index, each) for tier in rows for index, each in enumerate(dict.fromkeys(tier.deployments))]
    said = Counter([tier.name for tier in rows])
    for _, _, each in places:
        said.update({each.name, each.model} - {""})
    keys: dict[tuple[str, Deployment], str] = {}
    taken = set(said)
    for name, index, each in places:
        key = each.name or each.model
        if said[key] > 1:
            key = f"{name}/{key}#{index}"
            while key in taken:
                key += "#"
            taken.add(key)
        keys[name, each] = key
    return keys


SIMULATED_URLS: set[str] = set()
"""Where embedded providers of this process answer now."""
SIMULATED: Final = "ROUTED_AGENTS_SIMULATED"
"""The variable that says where one of another process does, as its `environ` has it."""
PROVIDERS = frozenset(
    {
        "anthropic", "openai", "bedrock", "bedrock_converse", "anthropic_bedrock", "google_vertexai", "google_anthropic_vertex",
        "google_genai", "azure_openai", "azure_ai", "mistralai", "groq", "together", "fireworks", "openrouter", "litellm", "ollama",
        "deepseek", "xai",
    }
)  # fmt: skip
"""Prefixes that `init_chat_model` understands; anything else before a colon is part of the model id."""


def is_simulated_url(url: str) -> bool:
    """Whether an embedded provider answers there, so that replies and their costs are simulated."""
    url = url.rstrip("/")
    return url in SIMULATED_URLS or url in os.environ.get(SIMULATED, "").split()


def provider_meant(model: str) -> str | None:
    """The provider that a mistyped prefix of a model must mean; None where it is a known one, or part of the model id."""
    prefix, colon, _ = model.partition(":")
    if not colon or prefix in PROVIDERS:
        return None
    return next(iter(difflib.get_close_matches(prefix.lower().replace("-", "_"), sorted(PROVIDERS), n=1, cutoff=0.85)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What only one provider understands.

    Attributes:
        only: parameters that no other provider's client takes.
        renamed: the name it has for another provider's parameter.
        not_reasoning: parameters its reasoning models refuse.
        not_responses: parameters that its second format (OpenAI's Responses) lacks.
        longest_call_id: most characters of a tool call's id; None when there is no limit.
    """

    only: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    not_reasoning: frozenset[str] = frozenset()
    not_responses: frozenset[str] = frozenset()
    longest_call_id: int | None = None


@cache
def dialects() -> Mapping[str, Dialect]:
    """The providers whose parameters are known, by name."""
    rows: Mapping[str, Mapping[str, Any]] = _shipped()["dialects"]
    return {
        name: Dialect(
            only=frozenset(row["only"]),
            renamed=dict(row["renamed"]),
            not_reasoning=frozenset(row.get("not_reasoning", ())),
            not_responses=frozenset(row.get("not_responses", ())),
            longest_call_id=row.get("longest_call_id"),
        )
        for name, row in rows.items()
    }


BEDROCK_PREFIX = re.compile(r"^(?:[a-z-]+\.)?anthropic\.")
BEDROCK_VERSION = re.compile(r"-v\d+(?::\d+)?$")
VERSION_DOT = re.compile(r"(?<=\d)\.(?=\d)")
RELEASE = re.compile(r"(?<=.)(?:[-@]\d{8}|-\d{4}-\d{2}-\d{2})$")


@cache
def card(model: str) -> ModelCard:
    """What is known about a model; an unknown one gets a card that refuses nothing."""
    rows: Mapping[str, Mapping[str, Any]] = _shipped()["models"]
    key = next((row for row in rows if same_model(row, model)), None)
    if key is None:
        return ModelCard(name=model)
    row: dict[str, Any] = {name: tuple(value) if name == "efforts" else value for name, value in rows[key].items() if name != "tokenizer"}
    return ModelCard(name=key, tokenizer=Fraction(str(rows[key]["tokenizer"])), **row)


@lru_cache(maxsize=1024)
def same_model(name: str, other: str) -> bool:
    """Whether two ids mean one model: equal, or one is the other with a date, version or provider affix."""
    a, b = _plain(name), _plain(other)
    return a == b or _undated(a) == _undated(b)


def _plain(name: str) -> str:
    """The model's own name, without gateways and providers before it."""
    name = name.rpartition("/")[2].lower()
    head, colon, tail = name.partition(":")
    name = tail if colon and head in PROVIDERS else name
    name = BEDROCK_PREFIX.sub("", BEDROCK_VERSION.sub("", name))
    return hyphened(name)


def hyphened(name: str) -> str:
    """A model's name as its maker spells it: OpenRouter's "claude-opus-5.5" is "claude-opus-5-5"."""
    return VERSION_DOT.sub("-", name) if name.startswith("claude") else name


def _undated(name: str) -> str:
    return RELEASE.sub("", name)


def _newest(name: str, presets: Mapping[str, object]) -> str | None:
    dated = [key for key in presets if key.startswith(f"{name}-20") and len(key) == len(name) + 8]
    return max(dated, default=None)


@cache
def _shipped() -> dict[str, Any]:
    return tomllib.loads(files("routed_agents").joinpath("tiers.toml").read_text(encoding="utf-8"))
