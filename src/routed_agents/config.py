"""Reads a policy file, and names what is wrong with it in one line."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from routed_agents import checks, guards
from routed_agents.errors import PolicyError
from routed_agents.guards import PolicyFloor
from routed_agents.policy import Mode, Stance
from routed_agents.policy_text import policy_to_toml
from routed_agents.state import Scope
from routed_agents.taxonomy import Disposition, Taxonomy
from routed_agents.tiers import PROVIDERS, ROLES, Deployment, Tiers
from routed_agents.toml_lines import lines_of

__all__ = ["policy_schema", "policy_to_toml", "read_policy"]

Place = tuple[str | int, ...]
Rule = TypeVar("Rule")
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Text = Annotated[str, Field(min_length=1)]
Scalar = str | int | float | bool

# ---- what a file may say ----------------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Deployment(_Section):
    """One place where a tier's model runs."""

    model: Text = Field(description="model id that is sent, with or without its provider, like anthropic:claude-opus-5-5")
    provider: Text | None = None
    priced_as: Text | None = Field(default=None, description="model whose price applies, for ARNs, gateways and fine-tunes")
    name: str = Field(default="", description="tells deployments of one tier apart")
    simulated: bool = Field(default=False, description="answers and costs are not real")


def _deployments(given: object) -> object:
    several: Sequence[object] = cast("list[object]", given) if isinstance(given, list) else [given]
    return [{"model": each} if isinstance(each, str) else each for each in several]


_Deployments = Annotated[
    list[_Deployment], BeforeValidator(_deployments, json_schema_input_type=str | _Deployment | list[str | _Deployment])
]


class _Tiers(BaseModel):
    """A preset, or roles and their models from cheap to strong."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, _Deployments] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    preset: Text | None = Field(default=None, description="a shipped set of tiers, like claude")


class _Floor(_Section):
    """An unconditional floor: all that is given must hold; no classifier decides."""

    tier: Text = Field(description="no cheaper than this tier")
    node: Text | None = Field(default=None, description="graph node that makes the call")
    task_class: str | int | None = Field(default=None, description="key or number of a task class")
    metadata: dict[str, Scalar] = Field(default_factory=dict, description="metadata the step must carry, like vulnerable = true")
    label: dict[str, Scalar] = Field(default_factory=dict, description='labels the step must carry, like team = "legal"')
    code: Text = Field(default="policy_floor", description="reason code to record")
    pin: Scope | None = Field(default=None, description="how long the floor outlives its step")


class _Thresholds(_Section):
    long_context: Annotated[int, Field(ge=1)] | None = Field(default=None, description="prompt tokens above which a step goes strong")
    unsure: Share | None = Field(default=None, description="confidence under which a step goes strong")
    p_strong: dict[str, Share] = Field(default_factory=dict, description="by task class: p_strong from which a step is proposed strong")


class _Row(_Section):
    """Changes one row of the task taxonomy."""

    disposition: Disposition | None = None
    p_cheap: Percent | None = None
    p_strong: Percent | None = None
    strong_share: Percent | None = None
    person_facing: bool | None = None


def _settings(name: str, rule: type[Any]) -> type[_Section]:
    """A section for the settings of one rule, from the fields of its dataclass."""
    hints = get_type_hints(rule)
    entries: dict[str, Any] = {}
    for each in fields(rule):
        kind = hints[each.name]
        bounded = Annotated[kind, Field(ge=0)] if kind in (int, float) else kind
        entries[each.name] = (bounded, each.default)
    return create_model(name, __base__=_Section, __doc__=(rule.__doc__ or "").split("\n")[0], **entries)


class _Rules(_Section):
    disable: list[str] = []


def _rules(section: str, known: Mapping[str, type[Any]]) -> type[_Rules]:
    """A section that switches rules off by name and sets those that have settings."""
    names = Literal[tuple(known)]  # pyright: ignore[reportInvalidTypeArguments]
    entries: dict[str, Any] = {"disable": (list[names], Field(default_factory=list, description=f"{section} to leave out"))}
    for name, rule in known.items():
        if is_dataclass(rule) and fields(rule):
            entries[name] = (_settings(name, rule) | None, None)
    return create_model(section, __base__=_Rules, **entries)


if TYPE_CHECKING:
    _Guards = _Rules
    _Checks = _Rules
else:  # built from the rules themselves, so that a new guard touches one file
    _Guards = _rules("guards", guards.BY_NAME)
    _Checks = _rules("checks", checks.BY_NAME)


class _File(_Section):
    """The rules by which routed-agents decides which model tier a step gets."""

    stance: Stance = Field(default="balanced", description="how the two middle dispositions are proposed")
    mode: Mode = Field(default="enforce", description="act on decisions, only record them, or leave them out")
    on_stop: Text = Field(default="raise", description="raise, end, interrupt, or the graph node that takes over a stopped step")
    labels: list[Text] = Field(default_factory=lambda: ["tenant", "agent", "team"], description="metadata keys that become labels")
    trusted: list[Literal["task_class", "routed_agents"]] = Field(
        default_factory=lambda: ["task_class", "routed_agents"], description="metadata keys that may also lower a tier"
    )
    capture_evidence: bool = Field(default=False, description="record what guards saw, which may quote a person")
    tiers: _Tiers = Field(default_factory=lambda: _Tiers(preset="claude"))
    floor: list[_Floor] = Field(default_factory=list[_Floor])
    thresholds: _Thresholds = Field(default_factory=_Thresholds)
    guards: _Guards = Field(default_factory=_Guards)
    checks: _Checks = Field(default_factory=_Checks)
    taxonomy: dict[str, _Row] = Field(default_factory=dict, description="changes to rows of the task taxonomy, by key")


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors and for reviews."""
    schema = _File.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "routed-agents policy"}


# ---- reading ----------------------------------------------------------------------------------------------------------


def read_policy(path: str | Path) -> dict[str, Any]:
    """Read a policy file into the arguments of `Policy`.

    Raises:
        PolicyError: the file cannot be read, or says something that cannot be meant; one line with the file, the line in it, what was
            seen, what is known and what to do.
    """
    path = Path(path)
    return _Reading(path, _text(path)).arguments()


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PolicyError(f"policy file {path} does not exist; check the path, or write one: routed-agents policy show --toml") from None
    except IsADirectoryError:
        raise PolicyError(f"policy file {path} is a directory; name the file in it, like {path / 'policy.toml'}") from None
    except OSError as error:
        raise PolicyError(f"policy file {path} cannot be read: {error.strerror or error}; wanted a TOML file you may read") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{path}, line {line}, is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8") from None


class _Reading:
    """One file on its way from text to the parts of a policy."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        try:
            self.document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(_malformed(path, text, str(error))) from None
        except RecursionError:
            raise PolicyError(f"{path} nests its values too deeply to be a policy; see routed-agents policy schema") from None
        self.lines = lines_of(text)

    def arguments(self) -> dict[str, Any]:
        try:
            file = _File.model_validate(self.document)
        except ValidationError as error:
            found = error.errors(include_url=False)
            first = min(found, key=lambda each: (self.line(_place(each["loc"], self.lines)), each["type"] != "extra_forbidden"))
            self.explain(first)
        tiers = self.tiers(file.tiers)
        taxonomy = self.taxonomy(file.taxonomy)
        self.on_stop(file.on_stop)
        return {
            "tiers": tiers,
            "taxonomy": taxonomy,
            "guards": self.guards(file),
            "floors": tuple([self.floor(row, number, tiers, taxonomy) for number, row in enumerate(file.floor)]),
            "checks": self.checks(file),
            "stance": file.stance,
            "mode": file.mode,
            "thresholds": self.thresholds(file.thresholds, taxonomy),
            "labels": tuple(file.labels),
            "trusted": tuple(file.trusted),
            "on_stop": file.on_stop,
            "capture_evidence": file.capture_evidence,
        }

    def tiers(self, given: _Tiers) -> Tiers:
        roles = given.__pydantic_extra__ or {}
        if given.preset is not None and roles:
            role = next(iter(roles))
            self.fail(f'tier "{role}" stands beside a preset', ("tiers", role), "Give either preset or roles, not both.")
        if given.preset is not None:
            try:
                return Tiers.preset_named(given.preset)
            except PolicyError as error:
                seen, _, known = str(error).partition("; ")
                self.fail(seen.replace("'", '"'), ("tiers", "preset"), f"{known}. Use one of these, or give roles and models.")
        order = list(cast("Mapping[str, object]", self.document.get("tiers", {})))
        if not order:
            self.fail("no tier is given", ("tiers",), 'Give at least one, like cheap = "anthropic:claude-haiku-5-5", or preset = "claude".')
        known = [role for role in order if role in ROLES]
        for above, below in pairwise(known):
            if ROLES.index(above) > ROLES.index(below):
                self.fail(f'tier "{below}" stands below "{above}"', ("tiers", below), "Order the tiers from cheap to strong.")
        return Tiers.of({role: [self.deployment(each, ("tiers", role)) for each in self.several(roles[role], role)] for role in order})

    def several(self, given: Sequence[_Deployment], role: str) -> Sequence[_Deployment]:
        if not given:
            self.fail(f'tier "{role}" has no model', ("tiers", role), 'Give at least one, like "anthropic:claude-opus-5-5".')
        names = [each.name or each.model for each in given]
        if twice := next((name for name in names if names.count(name) > 1), None):
            self.fail(f'tier "{role}" names deployment "{twice}" twice', ("tiers", role), "Tell them apart with name.")
        return given

    def deployment(self, given: _Deployment, place: Place) -> Deployment:
        prefix, colon, _ = given.model.partition(":")
        if colon and prefix not in PROVIDERS and given.provider is None and (meant := _closest(prefix, PROVIDERS)):
            self.fail(f'unknown provider "{prefix}" of model "{given.model}"', place, f'Did you mean "{meant}"?')
        if given.model != given.model.strip():
            self.fail(f'model "{given.model}" begins or ends with a blank', place, "Remove it.")
        if given.provider is not None:
            name = given.name or given.model
            return Deployment(model=given.model, provider=given.provider, priced_as=given.priced_as, name=name, simulated=given.simulated)
        return Deployment.parse(given.model, priced_as=given.priced_as, name=given.name, simulated=given.simulated)

    def taxonomy(self, given: Mapping[str, _Row]) -> Taxonomy:
        shipped = Taxonomy.default()
        rows = dict(shipped.rows)
        for name, row in given.items():
            key = self.task_class(name, ("taxonomy", name), shipped)
            rows[key] = replace(rows[key], **row.model_dump(exclude_none=True))
        return replace(shipped, rows=rows) if given else shipped

    def task_class(self, name: str | int, place: Place, taxonomy: Taxonomy) -> str:
        row = taxonomy.find(name)
        if row is None:
            meant = _closest(str(name), taxonomy.rows)
            todo = f'Did you mean "{meant}"?' if meant else "Use one of these, or its number."
            self.fail(f"unknown task class {_shown(name)}", place, f"known classes: {', '.join(taxonomy.rows)}. {todo}")
        return row.key

    def thresholds(self, given: _Thresholds, taxonomy: Taxonomy) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, share in given.p_strong.items():
            place = ("thresholds", "p_strong", name)
            key = self.task_class(name, place, taxonomy)
            disposition = taxonomy.row(key).disposition
            if disposition in ("route", "escalate"):
                does = "always escalates" if disposition == "escalate" else "is always proposed cheap"
                what = f'the threshold of "{key}" is never read: the class {does}'
                self.fail(what, place, f"Remove it, or change [taxonomy.{key}] disposition.")
            if key in found:
                self.fail(f'"{key}" has two thresholds', place, "Keep one.")
            found[key] = share
        return found

    def guards(self, file: _File) -> tuple[guards.Guard, ...]:
        settings = self.settings("guards", file.guards)
        for key, guard in (("long_context", "long_context"), ("unsure", "low_confidence")):
            value = getattr(file.thresholds, key)
            if value is None:
                continue
            place = ("thresholds", key)
            if "limit" in settings.get(guard, {}):
                self.fail(f"{key} is given twice, here and as [guards.{guard}] limit", place, "Keep one.")
            if guard in file.guards.disable:
                self.fail(f'{key} is set, yet its guard "{guard}" is disabled', place, "Remove one of the two.")
            settings[guard] = {**settings.get(guard, {}), "limit": value}
        if (limit := settings.get("low_confidence", {}).get("limit", 0)) > 1:
            self.fail(f"limit is {limit:g}", ("guards", "low_confidence", "limit"), "wanted a number from 0 to 1.")
        return _applied(guards.DEFAULT, guards.BY_NAME, settings, file.guards.disable)

    def checks(self, file: _File) -> tuple[checks.Check, ...]:
        return _applied(checks.DEFAULT, checks.BY_NAME, self.settings("checks", file.checks), file.checks.disable)

    def settings(self, section: str, given: _Rules) -> dict[str, dict[str, Any]]:
        dumped: dict[str, dict[str, Any]] = given.model_dump(exclude_unset=True, exclude={"disable"})
        found = {name: row for name, row in dumped.items() if row}
        if both := [name for name in found if name in given.disable]:
            self.fail(f'"{both[0]}" is disabled and has settings', (section, both[0]), "Remove one of the two.")
        return found

    def floor(self, given: _Floor, number: int, tiers: Tiers, taxonomy: Taxonomy) -> PolicyFloor:
        place = ("floor", number)
        if given.tier not in tiers.names:
            known = f"known tiers: {', '.join(tiers.names)}. Use one of these or add it under [tiers]."
            self.fail(f'unknown tier "{given.tier}"', (*place, "tier"), known)
        if tiers.named(given.tier).rank == 0 and tiers.top:
            what = f'a floor at "{given.tier}" holds nothing: it is the lowest tier'
            self.fail(what, (*place, "tier"), f'Use "{tiers[tiers.top].name}" or remove it.')
        task_class = None if given.task_class is None else self.task_class(given.task_class, (*place, "task_class"), taxonomy)
        conditions = (*given.metadata.items(), *given.label.items())
        return PolicyFloor(tier=given.tier, node=given.node, metadata=conditions, task_class=task_class, code=given.code, pin=given.pin)

    def on_stop(self, given: str) -> None:
        known = ("raise", "end", "interrupt")
        meant = next((word for word in known if given not in known and sorted(given.lower()) == sorted(word)), None)
        if meant:
            todo = f'known: {", ".join(known)}, or the name of a graph node. Did you mean "{meant}"?'
            self.fail(f'on_stop is "{given}"', ("on_stop",), todo)

    # ---- saying what is wrong

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing round it that the file does say."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def fail(self, what: str, place: Place, todo: str) -> NoReturn:
        section = _section(place)
        where = f"{self.path}, line {self.line(place)}{', ' + section if section else ''}"
        raise PolicyError(f"{what} in {where}{'. ' if todo[:1].isupper() else '; '}{todo}")

    def explain(self, error: ErrorDetails) -> NoReturn:
        """Say one of pydantic's findings in our words."""
        place = _place(error["loc"], self.lines)
        key, kind, seen = place[-1] if place else "", error["type"], error["input"]
        if kind == "extra_forbidden":
            self.unknown_key(place)
        if kind == "missing":
            self.fail(f'"{key}" is missing', place, f"Add it, like {key} = {_REQUIRED.get(str(key), '…')}.")
        if kind == "literal_error":
            known = _words(str(error.get("ctx", {}).get("expected", "")))
            what = _NOUNS.get(str(place[0]) if isinstance(key, int) or place[-1] == "disable" else str(key), str(key))
            meant = _closest(seen, known) if isinstance(seen, str) else None
            todo = f'Did you mean "{meant}"?' if meant else "Use one of these."
            self.fail(f"unknown {what} {_shown(seen)}", place, f"known: {', '.join(known)}. {todo}")
        if place == ("floor",) and isinstance(seen, dict):
            self.fail("floor is a single table", place, "Floors are a list: write [[floor]], with two brackets.")
        name = f"item {key + 1} of {place[-2]}" if isinstance(key, int) else str(key)
        if place[0] == "tiers" and kind.startswith("model_"):
            self.fail(f"{name} is {_shown(seen)}", place, 'wanted a model, like "anthropic:claude-opus-5-5".')
        self.fail(f"{name} is {_shown(seen)}", place, _wanted(error, seen))

    def unknown_key(self, place: Place) -> NoReturn:
        key = str(place[-1])
        known = _known_keys(place[:-1])
        if len(place) == 1 and isinstance(self.document.get(key), (dict, list)) and key not in known:
            sections = [name for name in known if name in _SECTIONS]
            meant = _closest(key, sections)
            self.fail(
                f"unknown section [{key}]",
                place,
                f"known sections: {', '.join(sections)}. " + (f"Did you mean [{meant}]?" if meant else "Use one of these or remove it."),
            )
        meant = _closest(key, known)
        home = next((f"[{section}]" for section in ("thresholds", "tiers") if key in _known_keys((section,))), None)
        home = "the top of the file, above every section" if home is None and key in _known_keys(()) else home
        todo = f'Did you mean "{meant}"?' if meant else f"It belongs to {home}." if home else "Use one of these or remove it."
        if place[0] == "floor" and not meant:
            todo = f"A fact of the step goes into metadata = {{ {key} = … }}."
        self.fail(f'unknown key "{key}"', place, f"known keys: {', '.join(known) or 'none, it has no settings'}. {todo}")


_NOUNS: Final = {"guards": "guard", "checks": "check", "trusted": "trusted key"}
_REQUIRED: Final = {"tier": '"strong"', "model": '"anthropic:claude-opus-5-5"'}
"""Keys that must be given, each with an example."""
_SECTIONS: Final = ("tiers", "floor", "thresholds", "guards", "checks", "taxonomy")


def _malformed(path: Path, text: str, problem: str) -> str:
    match = re.search(r"^(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)$", problem, re.DOTALL)
    what = match.group(1) if match else problem
    line = int(match.group(2)) if match and match.group(2) else text.count("\n") + 1
    column = int(match.group(3)) if match and match.group(3) else len(text) - text.rfind("\n")
    lines = text.split("\n")
    shown = lines[line - 1].strip()[:60] if line <= len(lines) else ""
    at = f", at: {shown}" if shown else ""
    return f"{path}, line {line}, column {column}, is not TOML: {what[:1].lower()}{what[1:]}{at}; put this line right"


def _place(loc: tuple[int | str, ...], lines: Mapping[Place, int]) -> Place:
    """A location without the names that pydantic adds for unions, and without the list a lone deployment was put in."""
    place: Place = ()
    for part in loc:
        if (*place, part) in lines or part in _REQUIRED:
            place = (*place, part)
    return place


def _section(place: Place) -> str:
    names = [str(part) for part in place[:-1] if isinstance(part, str)]
    if place and place[0] == "floor":
        return "[[floor]]" + (f" {'.'.join(names[1:])}" if len(names) > 1 else "")
    last = place[-1] if place else ""
    if not names or (isinstance(last, int) and len(names) == 1):
        return ""
    return f"[{names[0]}] {names[-1]}" if isinstance(last, int) and len(names) > 1 else f"[{'.'.join(names)}]"


def _known_keys(place: Place) -> list[str]:
    """The keys that may stand in a section."""
    model: Any = _File
    for part in place:
        if isinstance(part, int):
            continue
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(part)
            model = _section_of(field.annotation) if field is not None else _Deployment
        # the rows of [taxonomy.NAME] all have one form, found when entering [taxonomy]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_of(annotation: object) -> object:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation
    if get_origin(annotation) in (list, dict, Union, types.UnionType, Annotated):
        found = [_section_of(each) for each in get_args(annotation)]
        return next((each for each in found if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return None


_KINDS: Final = {
    "int_": "a whole number",
    "float_": "a number",
    "string_": "text in quotes",
    "list_": "a list",
    "dict_": "a table",
    "model_": "a table of settings",
}


def _wanted(error: ErrorDetails, seen: object) -> str:
    kind, ctx = error["type"], error.get("ctx", {})
    numeric = kind.startswith(("int_", "float_"))
    if numeric and isinstance(seen, str):
        return f"wanted a {'whole ' if kind.startswith('int') else ''}number; write it without quotes."
    if kind.startswith("bool_"):
        return "wanted true or false" + (", without quotes." if isinstance(seen, str) else ".")
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"wanted at {'least' if kind[0] == 'g' else 'most'} {ctx.get('ge', ctx.get('le')):g}."
    if kind.startswith("int_") and isinstance(seen, float) and 0 < seen < 1:
        return f"wanted a whole number, in percent: {round(seen * 100)}."
    if kind == "string_too_short":
        return "wanted some text; name it or remove the key."
    what = next((words for start, words in _KINDS.items() if kind.startswith(start)), "another value")
    if kind.startswith("list_") and isinstance(seen, str):
        what = f'a list, like ["{seen}"]'
    return f"wanted {what}; see routed-agents policy schema."


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value}"
    if isinstance(value, str):
        return f'"{value[:60]}"'
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return f"{type(value).__name__} {value}"


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


def _closest(given: str, known: Iterable[str]) -> str | None:
    low = given.lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(low, list(known), n=1, cutoff=0.75)
    return close[0] if close and close[0] != given else None


def _applied(
    default: Sequence[Rule], known: Mapping[str, type[Any]], settings: Mapping[str, Mapping[str, Any]], disabled: Sequence[str]
) -> tuple[Rule, ...]:
    """The default rules in their order, less the disabled ones, with their settings."""
    names = {rule: name for name, rule in known.items()}
    kept = [(rule, names.get(type(rule), "")) for rule in default if names.get(type(rule)) not in disabled]
    return tuple([cast("Rule", replace(cast("Any", rule), **settings[name])) if name in settings else rule for rule, name in kept])
