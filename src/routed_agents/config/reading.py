"""Reads a policy file into the parts of a policy."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import ValidationError

from routed_agents import checks, guards, judged_replies
from routed_agents.config.lines import lines_of
from routed_agents.config.mistakes import Mistakes, Place, closest, malformed, place_of, shown
from routed_agents.config.sections import (
    ClassifierSection,
    DeploymentSection,
    File,
    FloorSection,
    RowSection,
    RulesSection,
    ThresholdsSection,
    TiersSection,
)
from routed_agents.errors import PolicyError
from routed_agents.guards import DISTRESS, PolicyFloor
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.taxonomy import TaskClass, Taxonomy
from routed_agents.tiers import PROVIDERS, ROLES, Deployment, Tiers, provider_meant

Rule = TypeVar("Rule")
STOPS: Final = ("raise", "end", "interrupt")
"""What a stop may become, beside the name of a node."""


def read_policy(path: str | Path) -> dict[str, Any]:
    """Read a policy file into the arguments of `Policy`.

    Raises:
        PolicyError: the file cannot be read, or says something that cannot be meant; one line with the file, the line in it, what was
            seen, what is known and what to do.
    """
    path = Path(path)
    return _Reading(path, _text(path)).arguments()


def policy_doubts(path: str | Path) -> list[str]:
    """What a policy file in order says that can hardly be meant, each in one line with its place and what to do.

    Raises:
        PolicyError: the file is not in order.
    """
    path = Path(path)
    return list(_Reading(path, _text(path)).doubts())


def read_with_doubts(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Both of one reading, as a pipe allows.

    Raises:
        PolicyError: as `read_policy`.
    """
    path = Path(path)
    reading = _Reading(path, _text(path))
    return reading.arguments(), list(reading.doubts())


def mistake_in(text: str) -> str | None:
    """What is wrong with the text of a policy file, in one line; None where it is in order."""
    try:
        _Reading(Path("this file"), text).arguments()
    except PolicyError as error:
        return str(error)
    return None


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


class _Reading(Mistakes):
    """One file on its way from text to the parts of a policy."""

    def __init__(self, path: Path, text: str) -> None:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(malformed(path, text, str(error))) from None
        except ValueError as error:  # a number of more digits than Python reads
            raise PolicyError(f"{path} holds a number that cannot be read: {str(error).partition(';')[0]}; write a smaller one") from None
        except RecursionError:
            raise PolicyError(f"{path} nests its values too deeply to be a policy; see routed-agents policy schema") from None
        super().__init__(path, document, lines_of(text))

    def file(self) -> File:
        try:
            return File.model_validate(self.document)
        except ValidationError as error:
            found = error.errors(include_url=False)
            first = min(found, key=lambda each: (self.line(place_of(each["loc"], self.lines)), each["type"] != "extra_forbidden"))
            self.explain(first)

    def arguments(self) -> dict[str, Any]:
        file = self.file()
        tiers = self.tiers(file.tiers)
        taxonomy = self.taxonomy(file.taxonomy)
        self.on_stop(file.on_stop)
        return {
            "tiers": tiers,
            "taxonomy": taxonomy,
            **self.classifier(file.classifier),
            "guards": self.guards(file),
            "floors": tuple([self.floor(row, number, tiers, taxonomy) for number, row in enumerate(file.floor)]),
            "checks": self.checks(file, tiers, taxonomy),
            "stance": file.stance,
            "mode": file.mode,
            "thresholds": self.thresholds(file.thresholds, taxonomy),
            "expiry": file.expiry,
            "labels": tuple(file.labels),
            "trusted": tuple(file.trusted),
            "on_stop": file.on_stop,
            "capture_evidence": file.capture_evidence,
        }

    def tiers(self, given: TiersSection) -> Tiers:
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
        tiers = Tiers.of({role: [self.deployment(each, ("tiers", role)) for each in self.several(roles[role], role)] for role in order})
        if len(order) == 1:
            wanted = 'Give at least two, like cheap = "anthropic:claude-haiku-5-5" and strong = "anthropic:claude-opus-5-5".'
            self.fail(f'tier "{order[0]}" is the only one, so nothing is left to escalate to', ("tiers", order[0]), wanted)
        return tiers

    def several(self, given: Sequence[DeploymentSection], role: str) -> Sequence[DeploymentSection]:
        if not given:
            self.fail(f'tier "{role}" has no model', ("tiers", role), 'Give at least one, like "anthropic:claude-opus-5-5".')
        names = [each.name or each.model for each in given]
        if twice := next((name for name in names if names.count(name) > 1), None):
            self.fail(f'tier "{role}" names deployment "{twice}" twice', ("tiers", role), "Tell them apart with name.")
        return given

    def deployment(self, given: DeploymentSection, place: Place) -> Deployment:
        if given.provider is None and (meant := provider_meant(given.model)):
            self.fail(f'unknown provider "{given.model.partition(":")[0]}" of model "{given.model}"', place, f'Did you mean "{meant}"?')
        if given.model != given.model.strip():
            self.fail(f'model "{given.model}" begins or ends with a blank', place, "Remove it.")
        self.named(given.model, place)
        if given.provider is not None:
            name = given.name or given.model
            return Deployment(model=given.model, provider=given.provider, priced_as=given.priced_as, name=name, simulated=given.simulated)
        return Deployment.parse(given.model, priced_as=given.priced_as, name=given.name, simulated=given.simulated)

    def named(self, model: str, place: Place) -> str:
        """A model that is more than a provider's name."""
        prefix, colon, name = model.partition(":")
        if not (name if colon and prefix in PROVIDERS else model).strip():
            self.fail(f'"{model}" names no model', place, "wanted one like anthropic:claude-haiku-5-5.")
        return model

    def taxonomy(self, given: Mapping[str, RowSection]) -> Taxonomy:
        shipped = Taxonomy.default()
        changed: dict[str, TaskClass] = {}
        for name, row in given.items():
            key = self.task_class(name, place := ("taxonomy", name), shipped)
            if key in changed:
                self.fail(f'"{key}" has two rows', place, "Keep one.")
            changed[key] = replace(shipped.rows[key], **row.model_dump(exclude_none=True))
        return replace(shipped, rows={**shipped.rows, **changed}) if given else shipped

    def task_class(self, name: str | int, place: Place, taxonomy: Taxonomy) -> str:
        row = taxonomy.find(name)
        if row is None:
            meant = closest(str(name), taxonomy.rows)
            todo = f'Did you mean "{meant}"?' if meant else "Use one of these, or its number."
            self.fail(f"unknown task class {shown(name)}", place, f"known classes: {', '.join(taxonomy.rows)}. {todo}")
        return row.key

    def thresholds(self, given: ThresholdsSection, taxonomy: Taxonomy) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, share in given.p_strong.items():
            place = ("thresholds", "p_strong", name)
            key = self.task_class(name, place, taxonomy)
            disposition = taxonomy.row(key).disposition
            if disposition == "escalate":
                what = f'the threshold of "{key}" is never read: the class always escalates'
                self.fail(what, place, f"Remove it, or change [taxonomy.{key}] disposition.")
            if key in found:
                self.fail(f'"{key}" has two thresholds', place, "Keep one.")
            found[key] = share
        return found

    def guards(self, file: File) -> tuple[guards.Guard, ...]:
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
        return _applied(guards.DEFAULT, guards.BY_NAME, settings, file.guards.disable)

    def classifier(self, given: ClassifierSection) -> dict[str, Any]:
        judge = given.judge
        if judge is None:
            return {}
        return {
            "classifier": JudgedClassifier(
                self.named(judge.model, ("classifier", "judge", "model")), above=judge.above, timeout_s=judge.timeout_s
            )
        }

    def checks(self, file: File, tiers: Tiers, taxonomy: Taxonomy) -> tuple[checks.Check, ...]:
        settings = self.settings("checks", file.checks)
        if (judge := settings.get("judge")) is not None:
            settings["judge"] = {**judge, "task_classes": self.judged(judge, tiers, taxonomy)}
        return _applied(checks.DEFAULT, judged_replies.KNOWN, settings, file.checks.disable)

    def judged(self, judge: Mapping[str, Any], tiers: Tiers, taxonomy: Taxonomy) -> tuple[str, ...]:
        """The classes a judge of replies is for, by key."""
        place = ("checks", "judge")
        self.named(judge["model"], (*place, "model"))
        for name in judge.get("tiers", ()):
            if name not in tiers.names[:-1]:
                known = f"tiers below the top: {', '.join(tiers.names[:-1])}. Use one of these"
                self.fail(f'no reply of tier "{name}" can be judged', (*place, "tiers"), f"{known}, or leave tiers out for all of them.")
        return tuple([self.task_class(name, (*place, "task_classes"), taxonomy) for name in judge["task_classes"]])

    def settings(self, section: str, given: RulesSection) -> dict[str, dict[str, Any]]:
        dumped = cast("dict[str, object]", given.model_dump(exclude_unset=True, exclude={"disable"}))
        found = {name: cast("dict[str, Any]", row) for name, row in dumped.items() if row is not None}
        if both := [name for name in found if name in given.disable]:
            self.fail(f'"{both[0]}" is disabled and has settings', (section, both[0]), "Remove one of the two.")
        return found

    def floor(self, given: FloorSection, number: int, tiers: Tiers, taxonomy: Taxonomy) -> PolicyFloor:
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
        meant = next((word for word in STOPS if given not in STOPS and sorted(given.lower()) == sorted(word)), None)
        if meant:
            todo = f'known: {", ".join(STOPS)}, or the name of a graph node. Did you mean "{meant}"?'
            self.fail(f'on_stop is "{given}"', ("on_stop",), todo)

    def doubts(self) -> Iterator[str]:
        file = self.file()
        if file.on_stop not in STOPS and (meant := closest(file.on_stop, STOPS)):
            yield self.said(f'on_stop "{file.on_stop}" is taken for a graph node', ("on_stop",), f'Did you mean "{meant}"?')
        lapsing = (DISTRESS, *[row.code for row in file.floor if row.pin in ("lineage", "thread")])
        for name in file.expiry:
            if name not in lapsing and (meant := closest(name, lapsing)):
                what = f'no fact or pin of this policy is named "{name}"'
                yield self.said(what, ("expiry", name), f'Did you mean "{meant}"?')
        for number, row in enumerate(file.floor):
            yield from self.floor_doubts(row, number, file.labels)

    def floor_doubts(self, row: FloorSection, number: int, labels: Sequence[str]) -> Iterator[str]:
        for name in row.label:
            if name not in labels:
                meant = closest(name, labels)
                todo = f'Did you mean "{meant}"?' if meant else "Add it there, or make it metadata."
                yield self.said(f'"{name}" is none of the labels ({", ".join(labels)})', ("floor", number, "label", name), todo)
        if row.node is None and row.task_class is None and not row.metadata and not row.label:
            what = f'a floor at "{row.tier}" for every step, without node, task_class, label or metadata,'
            yield self.said(what, ("floor", number), "Say for which steps it is, if not for all.")


def _applied(
    default: Sequence[Rule], known: Mapping[str, type[Any]], settings: Mapping[str, Mapping[str, Any]], disabled: Sequence[str]
) -> tuple[Rule, ...]:
    """The default rules in their order, less the disabled ones, with their settings, and those that are on only where they are set."""
    names = {rule: name for name, rule in known.items()}
    kept = [(rule, names.get(type(rule), "")) for rule in default if names.get(type(rule)) not in disabled]
    added = [name for name in settings if known[name] not in {type(rule) for rule in default}]
    return (
        *[cast("Rule", replace(cast("Any", rule), **settings[name])) if name in settings else rule for rule, name in kept],
        *[cast("Rule", known[name](**settings[name])) for name in added],
    )
