"""Coding: bugs are found by running tests and trying likely edits, untidy lines by asking a linter.

Nothing is executed here: the model asks for tools, and what they print tells it which of its edits was right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from routed_agents.embedded.conversation import Conversation, ToolCall
from routed_agents.embedded.json_fields import JsonObject, text
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.tool_use import Done, done
from routed_agents.embedded.solvers.words import joined

_FILE = re.compile(r"\b[\w/]+\.py\b")
_PASSED = re.compile(r"^OK\b", re.MULTILINE)
_FINDING = re.compile(r"^(\S+?\.py):(\d+):\s*(?:\d+:\s*)?(\w+)\s*(.*)$", re.MULTILINE)
_FRAME = re.compile(r'File "([^"]+\.py)", line (\d+)')
_ASSERTED = re.compile(r"self\.assert\w+\((?:not )?(\w+)\(")
_UNKNOWN = re.compile(r"name '(\w+)' is not defined|KeyError: '(\w+)'|has no attribute '(\w+)'")
_SWAPS = ((" > ", " >= "), (" < ", " <= "), (" and ", " or "), (" - ", " + "), (" + ", " - "), (" or ", " and "), (" == ", " != "))
_RANGE = re.compile(r"range\((?:([^(),]+), )?([^(),]+)\)")


def next_calls(conversation: Conversation, brief: Brief) -> tuple[ToolCall, ...] | None:
    """The calls to make now, none when the work is done; None where this is no work on code with such tools."""
    offered = {tool.name for tool in conversation.tools}
    if not {"read_file", "edit_file"} <= offered or not offered & {"run_tests", "lint"}:
        return None
    past = done(conversation)
    found = _tidying(brief, past) if "lint" in offered else _debugging(brief, past)
    return tuple(ToolCall(id="", name=name, arguments=arguments) for name, arguments in found)


def conclusion(conversation: Conversation) -> str | None:
    """What was done and whether it helped, or None where no code was worked on."""
    past = done(conversation)
    looked = [entry for entry in past if entry.call.name in ("run_tests", "lint")]
    if not looked:
        return None
    edits = [entry.call.arguments for entry in past if entry.call.name == "edit_file" and not entry.failed]
    if looked[-1].call.name == "lint":
        paths = joined(list(dict.fromkeys(text(entry.call.arguments, "path") for entry in looked)))
        left = [entry for entry in _latest(looked) if _FINDING.search(entry.text)]
        state = "the linter still complains" if left else "the linter is content"
        return f"Tidied {paths} with {len(edits)} {'edit' if len(edits) == 1 else 'edits'}; {state}." if edits else f"{paths}: {state}."
    if not _PASSED.search(looked[-1].text):
        return "I could not find the bug: the tests still fail."
    if not edits:
        return "The tests pass; there is nothing to mend."
    last = edits[-1]
    before, after = (" / ".join(line.strip() for line in text(last, key).splitlines()) for key in ("old", "new"))
    return f"Mended {text(last, 'path')}: “{before}” is now “{after}”, and the tests pass."


def _debugging(brief: Brief, past: list[Done]) -> list[tuple[str, JsonObject]]:
    runs = [entry for entry in past if entry.call.name == "run_tests"]
    if not runs:
        return [("run_tests", {"path": _test_of(brief)})]
    if past[-1].call.name == "edit_file":
        return [("run_tests", {"path": text(runs[-1].call.arguments, "path")})]
    if _PASSED.search(runs[-1].text):
        return []
    path = _suspect(runs[-1])
    reads = [entry for entry in past if entry.call.name == "read_file" and text(entry.call.arguments, "path") == path]
    if not reads:
        return [("read_file", {"path": path})]
    tried = [entry.call.arguments for entry in past if entry.call.name == "edit_file" and not entry.failed]
    made = {(text(edit, "old"), text(edit, "new")) for edit in tried}
    undone = {(new, old) for old, new in made}
    fresh = next((pair for pair in _candidates(reads[0].text, runs[0]) if pair not in made), None)
    if fresh is None:
        return []
    standing = [edit for edit in tried if (text(edit, "old"), text(edit, "new")) not in undone][-1:]
    back = [_edit(path, text(edit, "new"), text(edit, "old")) for edit in standing]
    return [*back, _edit(path, *fresh)]


def _test_of(brief: Brief) -> str:
    named = _FILE.findall(brief.request)
    return next((path for path in named if path.startswith("test_")), f"test_{named[0]}" if named else "tests.py")


def _suspect(run: Done) -> str:
    """The file where the failure comes from: the innermost that is no test, else the one the test is for."""
    own = [path for path, _ in _FRAME.findall(run.text) if not path.startswith("test_") and "/lib/" not in path and "/" not in path]
    return own[-1] if own else text(run.call.arguments, "path").removeprefix("test_")


def _candidates(source: str, run: Done) -> Iterator[tuple[str, str]]:
    """Edits that may mend the failure, likeliest first, each as the old and the new text."""
    lines = source.splitlines()
    unknown = _UNKNOWN.search(run.text)
    if unknown:
        name = next(group for group in unknown.groups() if group)
        known = [word for word in dict.fromkeys(re.findall(r"\w+", source)) if word != name]
        for near in difflib.get_close_matches(name, known, n=3, cutoff=0.6):
            yield from ((line, re.sub(rf"\b{name}\b", near, line)) for line in lines if re.search(rf"\b{name}\b", line))
    body = list(_body(lines, run))
    if "ZeroDivisionError" in run.text:
        for line in body:
            if found := re.search(r"/ len\((\w+)\)", line):
                indent = line[: len(line) - len(line.lstrip())]
                yield line, f"{indent}if not {found[1]}:\n{indent}    return 0\n{line}"
    if "None != " in run.text and body and not body[-1].lstrip().startswith("return"):
        line = body[-1]
        yield line, f"{line[: len(line) - len(line.lstrip())]}return {line.lstrip()}"
    for line in body:
        if found := _RANGE.search(line):
            longer = f"range({f'{found[1]}, ' if found[1] else ''}{found[2]} + 1)"
            yield line, line.replace(found[0], longer, 1)
    for old, new in _SWAPS:
        yield from ((line, line.replace(old, new, 1)) for line in reversed(body) if old in line)


def _body(lines: list[str], run: Done) -> Iterator[str]:
    """The lines of the function the failing test calls, without its docstring; of the whole file where that is not known."""
    called = _ASSERTED.search(run.text)
    inside = called is None
    for line in lines:
        if line.startswith("def "):
            inside = called is None or line.startswith(f"def {called[1]}(")
        elif inside and line.strip() and not line.lstrip().startswith(('"""', "#")):
            yield line


def _tidying(brief: Brief, past: list[Done]) -> list[tuple[str, JsonObject]]:
    paths = list(dict.fromkeys(_FILE.findall(brief.request)))
    linted = {text(entry.call.arguments, "path"): index for index, entry in enumerate(past) if entry.call.name == "lint"}
    edited = {text(entry.call.arguments, "path"): index for index, entry in enumerate(past) if entry.call.name == "edit_file"}
    stale = [path for path in paths if path not in linted or edited.get(path, -1) > linted[path]]
    if stale:
        return [("lint", {"path": path}) for path in stale]
    found = {path: _FINDING.findall(past[index].text) for path, index in linted.items()}
    unclean = [path for path in paths if found[path]]
    reads = {text(entry.call.arguments, "path"): entry.text for entry in past if entry.call.name == "read_file"}
    if unread := [path for path in unclean if path not in reads]:
        return [("read_file", {"path": path}) for path in unread]
    if any(path in edited for path in unclean):
        return []  # what one round of edits did not mend is left for a person
    return [_edit(path, *pair) for path in unclean for pair in _tidied(reads[path].splitlines(), found[path])]


def _tidied(lines: list[str], findings: list[tuple[str, str, str, str]]) -> Iterator[tuple[str, str]]:
    wanted: dict[int, list[str]] = {}
    for _, number, code, _ in findings:
        wanted.setdefault(int(number), []).append(code)
    for number, codes in wanted.items():
        if number > len(lines):
            continue
        old = lines[number - 1]
        if "F401" in codes:
            yield f"{old}\n", ""
            continue
        new = old.replace("== None", "is None").replace("!= None", "is not None") if "E711" in codes else old
        yield f"{old}\n", f"{new.rstrip()}\n"


def _edit(path: str, old: str, new: str) -> tuple[str, JsonObject]:
    return "edit_file", {"path": path, "old": old, "new": new}


def _latest(looked: list[Done]) -> list[Done]:
    """The last look at each file."""
    return list({text(entry.call.arguments, "path"): entry for entry in looked}.values())
