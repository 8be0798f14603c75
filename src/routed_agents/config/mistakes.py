"""Says what is wrong with a policy file, in one line."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from routed_agents.config.sections import DeploymentSection, File
from routed_agents.errors import PolicyError

Place = tuple[str | int, ...]


class Mistakes:
    """Knows where things stand in one file, and raises its mistakes."""

    def __init__(self, path: Path, document: Mapping[str, Any], lines: Mapping[Place, int]) -> None:
        self.path = path
        self.document = document
        self.lines = lines

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing round it that the file does say."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def said(self, what: str, place: Place, todo: str) -> str:
        """What is wrong, where, and what to do, in one line."""
        section = _section(place)
        where = f"{self.path}, line {self.line(place)}{', ' + section if section else ''}"
        return on_one_line(f"{what} in {where}{'. ' if todo[:1].isupper() else '; '}{todo}")

    def fail(self, what: str, place: Place, todo: str) -> NoReturn:
        raise PolicyError(self.said(what, place, todo))

    def explain(self, error: ErrorDetails) -> NoReturn:
        """Say one of pydantic's findings in our words."""
        place = place_of(error["loc"], self.lines)
        key, kind, seen = place[-1] if place else "", error["type"], error["input"]
        if kind == "extra_forbidden":
            self.unknown_key(place)
        if kind == "missing":
            self.fail(f'"{key}" is missing', place, f"Add it, like {key} = {_REQUIRED.get(str(key), '…')}.")
        if kind == "literal_error":
            known = _words(str(error.get("ctx", {}).get("expected", "")))
            what = _NOUNS.get(str(place[0]) if isinstance(key, int) or place[-1] == "disable" else str(key), str(key))
            meant = closest(seen, known) if isinstance(seen, str) else None
            todo = f'Did you mean "{meant}"?' if meant else "Use one of these."
            self.fail(f"unknown {what} {shown(seen)}", place, f"known: {', '.join(known)}. {todo}")
        if place == ("floor",) and isinstance(seen, dict):
            self.fail("floor is a single table", place, "Floors are a list: write [[floor]], with two brackets.")
        name = f"item {key + 1} of {place[-2]}" if isinstance(key, int) else str(key)
        if place[0] == "tiers" and kind.startswith("model_"):
            self.fail(f"{name} is {shown(seen)}", place, 'wanted a model, like "anthropic:claude-opus-5-5".')
        self.fail(f"{name} is {shown(seen)}", place, _wanted(error, seen))

    def unknown_key(self, place: Place) -> NoReturn:
        key = str(place[-1])
        known = _known_keys(place[:-1])
        if len(place) == 1 and isinstance(self.document.get(key), (dict, list)) and key not in known:
            sections = [name for name in known if name in _SECTIONS]
            meant = closest(key, sections)
            self.fail(
                f"unknown section [{key}]",
                place,
                f"known sections: {', '.join(sections)}. " + (f"Did you mean [{meant}]?" if meant else "Use one of these or remove it."),
            )
        meant = closest(key, known)
        home = next((f"[{section}]" for section in ("thresholds", "tiers") if key in _known_keys((section,))), None)
        home = "the top of the file, above every section" if home is None and key in _known_keys(()) else home
        todo = f'Did you mean "{meant}"?' if meant else f"It belongs to {home}." if home else "Use one of these or remove it."
        if place[0] == "floor" and not meant:
            todo = f"A fact of the step goes into metadata = {{ {key} = … }}."
        self.fail(f'unknown key "{key}"', place, f"known keys: {', '.join(known) or 'none, it has no settings'}. {todo}")


def on_one_line(text: str) -> str:
    """A text with its line ends and control characters spelled out."""
    return "".join([each if each.isprintable() else repr(each)[1:-1] for each in text])


_NOUNS: Final = {"guards": "guard", "checks": "check", "trusted": "trusted key"}
_REQUIRED: Final = {"tier": '"strong"', "model": '"anthropic:claude-opus-5-5"', "task_classes": '["extraction"]'}
"""Keys that must be given, each with an example."""
_SECTIONS: Final = ("tiers", "floor", "thresholds", "expiry", "classifier", "guards", "checks", "taxonomy")


def malformed(path: Path, text: str, problem: str) -> str:
    match = re.search(r"^(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)$", problem, re.DOTALL)
    what = match.group(1) if match else problem
    line = int(match.group(2)) if match and match.group(2) else text.count("\n") + 1
    column = int(match.group(3)) if match and match.group(3) else len(text) - text.rfind("\n")
    lines = text.split("\n")
    words = lines[line - 1].strip()[:60] if line <= len(lines) else ""
    at = f", at: {words}" if words else ""
    return f"{path}, line {line}, column {column}, is not TOML: {what[:1].lower()}{what[1:]}{at}; put this line right"


def place_of(loc: tuple[int | str, ...], lines: Mapping[Place, int]) -> Place:
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
    model: Any = File
    for part in place:
        if isinstance(part, int):
            continue
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(part)
            model = _section_of(field.annotation) if field is not None else DeploymentSection
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
    "tuple_": "a list",
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
    if kind == "greater_than":
        return f"wanted more than {ctx.get('gt'):g}."
    if kind.startswith("int_") and isinstance(seen, float) and 0 < seen < 1:
        return f"wanted a whole number, in percent: {round(seen * 100)}."
    if kind.endswith("too_short") and (example := _REQUIRED.get(str(error["loc"][-1]))):
        return f"wanted {'some text' if kind.startswith('string') else 'at least one'}, like {example}."
    if kind == "string_too_short":
        return "wanted some text; name it or remove the key."
    what = next((words for start, words in _KINDS.items() if kind.startswith(start)), "another value")
    if kind.startswith(("list_", "tuple_")) and isinstance(seen, str):
        what = f'a list, like ["{seen}"]'
    return f"wanted {what}; see routed-agents policy schema."


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value}"
    if isinstance(value, str):
        return f'"{value[:60]}"'
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list" if value else "an empty list"
    return f"{type(value).__name__} {value}"


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


def closest(given: str, known: Iterable[str]) -> str | None:
    low = given.lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(low, list(known), n=1, cutoff=0.75)
    return close[0] if close and close[0] != given else None
