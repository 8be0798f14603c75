"""Writes a policy as the file that gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, Final, Protocol, cast

from routed_agents import checks, guards, judged_replies
from routed_agents.classify import LinearClassifier
from routed_agents.config.mistakes import on_one_line
from routed_agents.config.reading import mistake_in
from routed_agents.errors import PolicyError
from routed_agents.guards import PolicyFloor
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.taxonomy import TaskClass, Taxonomy
from routed_agents.tiers import Deployment, Tiers

CHANGEABLE: Final = ("disposition", "p_cheap", "p_strong", "strong_share", "person_facing")
"""What a policy file may change in a row of the taxonomy."""


class Written(Protocol):
    """What is written of a policy."""

    @property
    def stance(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def on_stop(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def trusted(self) -> Sequence[str]: ...
    @property
    def capture_evidence(self) -> bool: ...
    @property
    def tiers(self) -> Tiers: ...
    @property
    def floors(self) -> Sequence[PolicyFloor]: ...
    @property
    def thresholds(self) -> Mapping[str, float]: ...
    @property
    def expiry(self) -> Mapping[str, int]: ...
    @property
    def guards(self) -> Sequence[object]: ...
    @property
    def checks(self) -> Sequence[object]: ...
    @property
    def taxonomy(self) -> Taxonomy: ...
    @property
    def classifier(self) -> object: ...


def policy_to_toml(policy: Written) -> str:
    """The policy as a file; reading it gives an equal hash, unless it holds parts that a file cannot name, which are comments then.

    Where a file must not say what the policy is, as with a single tier, its heading says why it does not load.
    """
    notes: list[str] = []
    lines = [
        f"stance = {_toml(policy.stance)}",
        f"mode = {_toml(policy.mode)}",
        f"on_stop = {_toml(policy.on_stop)}",
        f"labels = {_toml(policy.labels)}",
        f"trusted = {_toml(policy.trusted)}",
        f"capture_evidence = {_toml(policy.capture_evidence)}",
        "",
        *_tiers_lines(policy.tiers, notes),
    ]
    for floor in policy.floors:
        lines += _floor_lines(floor, policy.tiers, notes)
    if policy.thresholds:
        lines += ["", "[thresholds.p_strong]", *[f"{_key(key)} = {_toml(float(value))}" for key, value in policy.thresholds.items()]]
    if policy.expiry:
        lines += ["", "[expiry]", *[f"{_key(name)} = {_toml(turns)}" for name, turns in policy.expiry.items()]]
    lines += _classifier_lines(policy.classifier, notes)
    lines += _rule_lines("guards", policy.guards, guards.DEFAULT, guards.BY_NAME, notes)
    lines += _rule_lines("checks", policy.checks, checks.DEFAULT, judged_replies.KNOWN, notes)
    lines += _row_lines(policy.taxonomy, notes)
    if policy.tiers.preset is not None and policy.tiers != _preset(policy.tiers.preset):
        notes.append(f"that its tiers are some of preset {policy.tiers.preset}")
    named = str(getattr(policy, "hash", ""))  # a cached property, which fits no protocol
    heading = [f"# policy {named}", *[f"# a file cannot hold this part; add it in Python: {on_one_line(note)}" for note in notes]]
    if mistake := mistake_in("\n".join([*heading, "#", *lines])):
        heading.append(f"# this file does not load: {mistake}")
    return "\n".join([*heading, *lines]) + "\n"


def _tiers_lines(tiers: Tiers, notes: list[str]) -> list[str]:
    if tiers.preset is not None and tiers == _preset(tiers.preset):
        return ["[tiers]", f"preset = {_toml(tiers.preset)}"]
    rows: list[str] = []
    for tier in tiers:
        several: list[str] = []
        for each in tier.deployments:
            given = {key.name: value for key in fields(each) if (value := getattr(each, key.name))}
            short = each.name if Deployment.parse(each.name) == each else None
            several.append(_toml(short or given))
            if short is None and _read_back(each) != each:
                notes.append(f"that deployment {each.model} of tier {tier.name} has no {'provider' if each.name else 'name'}")
        rows.append(f"{_key(tier.name)} = {several[0] if len(several) == 1 else '[' + ', '.join(several) + ']'}")
    return ["[tiers]", *rows]


@cache
def _preset(name: str) -> Tiers | None:
    try:
        return Tiers.preset_named(name)
    except PolicyError:
        return None


def _read_back(written: Deployment) -> Deployment:
    """What a file makes of a deployment that is written part by part."""
    if written.provider:
        return replace(written, name=written.name or written.model)
    return Deployment.parse(written.model, priced_as=written.priced_as, name=written.name, simulated=written.simulated)


def _floor_lines(floor: PolicyFloor, tiers: Tiers, notes: list[str]) -> list[str]:
    items = {each.name: getattr(floor, each.name) for each in fields(floor) if getattr(floor, each.name) != each.default}
    metadata: dict[str, object] = {}
    label: dict[str, object] = {}
    for key, asked in floor.metadata:  # a file may ask for a key twice, once in each
        (label if key in metadata else metadata)[key] = asked
    if len(metadata) + len(label) < len(floor.metadata) or (tiers.named(floor.tier).rank == 0 and tiers.top):
        notes.append(f"floor {guards.identity(floor)}")
        return []
    items |= {name: asked for name, asked in (("metadata", metadata), ("label", label)) if asked}
    return ["", "[[floor]]", *[f"{key} = {_toml(value)}" for key, value in items.items()]]


def _classifier_lines(classifier: object, notes: list[str]) -> list[str]:
    lines: list[str] = []
    if isinstance(classifier, JudgedClassifier):
        given = {"model": classifier.model, "above": float(classifier.above), "timeout_s": float(classifier.timeout_s)}
        lines = ["", "[classifier.judge]", *[f"{key} = {_toml(value)}" for key, value in given.items()]]
        classifier = classifier.inner
    if not isinstance(classifier, LinearClassifier):
        notes.append(f"classifier {getattr(classifier, 'name', type(classifier).__qualname__)}")
    return lines


def _rule_lines(
    section: str, rules: Sequence[object], default: Sequence[object], known: Mapping[str, type[Any]], notes: list[str]
) -> list[str]:
    names = {rule: name for name, rule in known.items()}
    given: dict[str, object] = {}
    left = [rule for rule in rules if type(rule) not in names or given.setdefault(names[type(rule)], rule) != rule]
    notes += [f"{section.removesuffix('s')} {guards.identity(rule)}" for rule in left]
    disabled = [names[type(rule)] for rule in default if names[type(rule)] not in given]
    lines = ["", f"[{section}]", f"disable = {_toml(disabled)}"] if disabled else []
    for name, rule in given.items():
        standard = next((each for each in default if type(each) is type(rule)), None)
        changed = [each.name for each in fields(cast("Any", rule)) if getattr(rule, each.name) != getattr(standard, each.name, None)]
        if changed:
            lines += ["", f"[{section}.{name}]", *[f"{key} = {_toml(getattr(rule, key))}" for key in changed]]
    return lines


def _row_lines(taxonomy: Taxonomy, notes: list[str]) -> list[str]:
    lines: list[str] = []
    shipped = Taxonomy.default()
    notes += [f"task class {key}" for key in taxonomy.rows if key not in shipped.rows]
    notes += [f"without task class {key}" for key in shipped.rows if key not in taxonomy.rows]
    for key, row in taxonomy.rows.items():
        standard = shipped.rows.get(key)
        if standard is None or row == standard:
            continue
        changed = [each.name for each in fields(TaskClass) if getattr(row, each.name) != getattr(standard, each.name)]
        writable = [name for name in changed if name in CHANGEABLE and getattr(row, name) is not None]
        notes += [f"{name} of task class {key}" for name in changed if name not in writable]
        lines += ["", f"[taxonomy.{_key(key)}]", *[f"{name} = {_toml(getattr(row, name))}" for name in writable]]
    return lines


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
        return '"' + "".join(escapes.get(each, each if each >= " " and each != "\x7f" else f"\\u{ord(each):04x}") for each in value) + '"'
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value).items()
        return "{ " + ", ".join(f"{_key(key)} = {_toml(each)}" for key, each in pairs) + " }"
    return "[" + ", ".join(_toml(each) for each in cast("Sequence[object]", value)) + "]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
