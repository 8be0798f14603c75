"""What a policy file may say: its sections, their keys and the values those take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from routed_agents import guards, judged_classes, judged_replies
from routed_agents.questions import LONGEST_S
from routed_agents.state import Scope
from routed_agents.taxonomy import Disposition

Stance = Literal["frugal", "balanced", "conservative"]
Mode = Literal["enforce", "shadow", "off"]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Text = Annotated[str, Field(min_length=1)]
Scalar = str | int | float | bool


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class DeploymentSection(Section):
    """One place where a tier's model runs."""

    model: Text = Field(description="model id that is sent, with or without its provider, like anthropic:claude-opus-5-5")
    provider: Text | None = None
    priced_as: Text | None = Field(default=None, description="model whose price applies, for ARNs, gateways and fine-tunes")
    name: str = Field(default="", description="tells deployments of one tier apart")
    simulated: bool = Field(default=False, description="answers and costs are not real")


def _deployments(given: object) -> object:
    several: Sequence[object] = cast("list[object]", given) if isinstance(given, list) else [given]
    return [{"model": each} if isinstance(each, str) else each for each in several]


Several = Annotated[list[Text | DeploymentSection], Field(min_length=1)]
Deployments = Annotated[list[DeploymentSection], BeforeValidator(_deployments, json_schema_input_type=Text | DeploymentSection | Several)]


class TiersSection(BaseModel):
    """A preset, or roles and their models from cheap to strong."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        json_schema_extra={"oneOf": [{"required": ["preset"], "maxProperties": 1}, {"properties": {"preset": False}, "minProperties": 2}]},
    )
    __pydantic_extra__: dict[str, Deployments] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    preset: Text | None = Field(default=None, description="a shipped set of tiers, like claude")


class FloorSection(Section):
    """An unconditional floor: all that is given must hold; no classifier decides."""

    tier: Text = Field(description="no cheaper than this tier")
    node: Text | None = Field(
        default=None, description="graph node that decides the step: the one that makes the call, or the RouterNode before it"
    )
    task_class: str | int | None = Field(default=None, description="key or number of a task class")
    metadata: dict[str, Scalar] = Field(default_factory=dict, description="metadata the step must carry, like vulnerable = true")
    label: dict[str, Scalar] = Field(default_factory=dict, description='labels the step must carry, like team = "legal"')
    code: Text = Field(default="policy_floor", description="reason code to record")
    pin: Scope | None = Field(default=None, description="how long the floor outlives its step")


class ThresholdsSection(Section):
    long_context: Annotated[int, Field(ge=1)] | None = Field(default=None, description="prompt tokens above which a step goes strong")
    unsure: Share | None = Field(default=None, description="confidence under which a step goes strong")
    p_strong: dict[str, Share] = Field(default_factory=dict, description="by task class: p_strong from which a step is proposed strong")


class RowSection(Section):
    """Changes one row of the task taxonomy."""

    disposition: Disposition | None = None
    p_cheap: Percent | None = None
    p_strong: Percent | None = None
    strong_share: Percent | None = None
    person_facing: bool | None = None


def _settings(name: str, rule: type[Any]) -> type[Section]:
    """A section for the settings of one rule, from the fields of its dataclass; their metadata are limits as pydantic names them."""
    hints = get_type_hints(rule)
    entries: dict[str, Any] = {}
    for each in fields(rule):
        kind = hints[each.name]
        wanted: Any = kind
        if kind in (int, float) and not each.metadata:  # a figure that stands below 0, as a log probability does, may only go further down
            wanted = Annotated[kind, Field(le=0) if isinstance(each.default, (int, float)) and each.default < 0 else Field(ge=0)]
        elif kind == int | None:
            wanted = Annotated[int | None, Field(ge=0)]
        elif kind == tuple[str, ...]:
            wanted = Annotated[tuple[Text, ...], Field(strict=False)]  # TOML has lists only
        if each.metadata:
            wanted = Annotated[wanted, Field(**each.metadata)]
        entries[each.name] = (wanted, ... if each.default is MISSING else each.default)
    return create_model(name, __base__=Section, __doc__=(rule.__doc__ or "").split("\n")[0], **entries)


class ClassJudgeSection(Section):
    """A small model that is asked for the class of steps that the words leave open."""

    model: Text = Field(description="who is asked, like anthropic:claude-haiku-5-5")
    above: Share = Field(default=judged_classes.ABOVE, description="local p_strong from which it is asked")
    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S)] = Field(
        default=judged_classes.TIMEOUT_S, description="seconds to wait for its answer"
    )


class ClassifierSection(Section):
    judge: ClassJudgeSection | None = None


class RulesSection(Section):
    disable: list[str] = []


def _rules(section: str, known: Mapping[str, type[Any]]) -> type[RulesSection]:
    """A section that switches rules off by name and sets those that have settings."""
    names = Literal[tuple(known)]  # pyright: ignore[reportInvalidTypeArguments]
    entries: dict[str, Any] = {"disable": (list[names], Field(default_factory=list, description=f"{section} to leave out"))}
    for name, rule in known.items():
        if is_dataclass(rule) and fields(rule):
            entries[name] = (_settings(name, rule) | None, None)
    return create_model(section, __base__=RulesSection, **entries)


if TYPE_CHECKING:
    GuardsSection = RulesSection
    ChecksSection = RulesSection
else:  # built from the rules themselves, so that a new guard touches one file
    GuardsSection = _rules("guards", guards.BY_NAME)
    ChecksSection = _rules("checks", judged_replies.KNOWN)


class File(Section):
    """The rules by which routed-agents decides which model tier a step gets."""

    stance: Stance = Field(default="balanced", description="how the two middle dispositions are proposed")
    mode: Mode = Field(default="enforce", description="act on decisions, only record them, or leave them out")
    on_stop: Text = Field(default="raise", description="raise, end, interrupt, or the graph node that takes over a stopped step")
    labels: list[Text] = Field(default_factory=lambda: ["tenant", "agent", "team"], description="metadata keys that become labels")
    trusted: list[Literal["task_class", "routed_agents"]] = Field(
        default_factory=lambda: ["task_class", "routed_agents"], description="metadata keys that may also lower a tier"
    )
    capture_evidence: bool = Field(default=False, description="record what guards saw, which may quote a person")
    tiers: TiersSection = Field(default_factory=lambda: TiersSection(preset="claude"))
    floor: list[FloorSection] = Field(default_factory=list[FloorSection])
    thresholds: ThresholdsSection = Field(default_factory=ThresholdsSection)
    expiry: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="by name of a fact, or code of a lineage or thread pin: turns after which it lapses"
    )
    classifier: ClassifierSection = Field(default_factory=ClassifierSection)
    guards: GuardsSection = Field(default_factory=GuardsSection)
    checks: ChecksSection = Field(default_factory=ChecksSection)
    taxonomy: dict[str, RowSection] = Field(default_factory=dict, description="changes to rows of the task taxonomy, by key")


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors and for reviews."""
    schema = File.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "routed-agents policy"}
