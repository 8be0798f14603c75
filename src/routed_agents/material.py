"""Material is what a message carries besides its author's own words: quoted mail, documents, code, and talk meant for a router."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from routed_agents.words import words_of

Spans = list[tuple[int, int]]
"""Where pieces of a text start and end, in order."""
_TAG: Final = (
    r"<(?!instruct|task|role|rule|goal|step|format|output|system|prompt|question|query|objective|guideline|request|policy|persona|identity"
    r"|constraint|requirement|criteria|thinking|user_(?:query|question|request|prompt|task))([a-zA-Z][\w-]{1,40})(?:\s[^>]{0,200})?>"
)
_OPENING_TAG: Final = re.compile(_TAG, re.IGNORECASE)
_CLOSING_TAG: Final = re.compile(r"</([a-zA-Z][\w-]{1,40})>")
_OPENED: Final = re.compile(rf"\n[ \t]*{_TAG}[ \t]*\n", re.IGNORECASE)
"""A tag on a line of its own that nothing closes, as in a text whose end is cut off; `List<Order>` in a sentence is none."""
_RULE: Final = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)
_QUOTED: Final = re.compile(r"^\s{0,3}>.*$", re.MULTILINE)
_INCHES: Final = r"(?<=\d)\"(?=\s[^\"]*[\w.,;!?)]\")"
"""A mark behind a number, if the next one closes a quotation: `"My screen is 15" wide."`"""
_LONG_QUOTE: Final = re.compile(rf"\"(?:(?:[^\"\s]|{_INCHES})++\s++){{8,}}+(?:[^\"]|{_INCHES})*+\"")
"""A shorter one is a title or a label, and part of what is said."""
_CORNER: Final = re.compile("[\u300c-\u300f]")
_CORNERED_LEAST: Final = 16
"""Characters between corner brackets that are no title or label."""


def _between(mark: str) -> Callable[[str], Spans]:
    """Finds what stands between two equal marks, or between one and the text's end."""
    marks = re.compile(mark)

    def find(text: str) -> Spans:
        spans: Spans = []
        opened: re.Match[str] | None = None
        for found in marks.finditer(text):
            if opened is None:
                opened = found
            elif found[0] == opened[0]:
                spans.append((opened.start(), found.end()))
                opened = None
        return spans if opened is None else [*spans, (opened.start(), len(text))]

    return find


def _tagged(text: str) -> Spans:
    """What stands between a tag and the next one that closes it; all closing tags are known before, so a text is gone through once."""
    closing: dict[str, list[int]] = {}
    for found in _CLOSING_TAG.finditer(text):
        closing.setdefault(found[1].lower(), []).append(found.start())
    spans: Spans = []
    place = 0
    while closing and (tag := _OPENING_TAG.search(text, place)):
        ends = closing.get(tag[1].lower(), ())
        at = bisect_left(ends, tag.end())
        place = tag.start() + 1
        if at < len(ends):
            place = ends[at] + len(tag[1]) + 3
            spans.append((tag.start(), place))
    return spans


def _opened(text: str) -> Spans:
    found = _OPENED.search(f"\n{text}")
    return [(found.start(), len(text))] if found else []


def _quoted(text: str) -> Spans:
    return [found.span() for found in _QUOTED.finditer(text)]


def _long_quotes(text: str) -> Spans:
    """What stands between quotation marks. Behind a letter a mark has mostly closed a quotation, and talk for a router that was put in
    there does not make a long one of what follows."""
    found = [match.span() for match in _LONG_QUOTE.finditer(text)]
    return [
        (start, end)
        for start, end in found
        if not (start and text[start - 1].isalnum()) or _LONG_QUOTE.fullmatch(without_asides(text[start:end]))
    ]


def _cornered(text: str) -> Spans:
    spans: Spans = []
    opened: int | None = None
    for found in _CORNER.finditer(text):
        if found[0] in "\u300c\u300e":
            opened = found.start() if opened is None else opened
        elif opened is not None:
            if found.start() - opened > _CORNERED_LEAST:
                spans.append((opened, found.end()))
            opened = None
    return spans


_MARKS: Final = (
    (_between("```|~~~"), ("```", "~~~")),
    (_tagged, ("</",)),
    (_opened, ("<",)),
    (_between("\"\"\"|'''"), ('"""', "'''")),
    (_quoted, ("\n>", "\n >", "\n  >", "\n   >")),
    (_long_quotes, ('"',)),
    (_cornered, ("\u300c", "\u300e")),
)
"""What finds material, each with what must stand in a text for it to be worth trying."""
_ANY_MARK: Final = ('"', "<", ">", "---", "```", "~~~", "'''", "\u300c", "\u300e")
"""Without one of these no pattern is worth trying, as with most short messages."""
LABELLED: Final = re.compile(
    r"^(?:text|input|document|e-?mail|message|review|article|transcript|ticket|customer(?: message)?|code|data|passage|content|context)"
    r"\s*:[ \t]*(?:\S+@\S+[ \t]*$|(?:\n|(?=\S)).*?(?=^(?:question|query|request|task|instructions?|user|human)[ \t]*:|\Z))",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
"""What stands under a label, up to one that a person's words stand under; an address is no text."""


def hard_split(text: str) -> tuple[str, str]:
    """Part a message into its author's words and what stands between unmistakable marks: fences, tags, rules, quotation marks round nine
    words and more. In time that grows with the text's length, whatever stands in it.

    Material under a mere label (`Text: …`) stays, for an instruction may follow it. A message that is nothing but material keeps it.
    """
    for mark in _ANY_MARK:
        if mark in text:
            break
    else:
        return text, ""
    own, quoted = text, list[str]()
    if '"' in text:
        own = _SETTING.sub(_unquoted, text)
    for find, hints in _MARKS:
        for hint in hints:
            if hint in own or (find is _quoted and own.lstrip(" ").startswith(">")):
                break
        else:
            continue
        if spans := find(own):
            quoted += [own[start:end] for start, end in spans]
            own = _without(own, spans)
    if "---" in own:
        own, ruled = _without_ruled(own)
        quoted += ruled
    return (own, "\n".join(quoted)) if quoted and own.strip() else (text, "")


def _unquoted(setting: re.Match[str]) -> str:
    """A setting of a router's without the marks that would open or close a quotation of the text it was put into."""
    return setting[0].replace('"', "'")


def _without(text: str, spans: Spans) -> str:
    """The text with a line end in place of each span."""
    starts, ends = zip(*spans, strict=True)
    return "\n".join([text[end:start] for end, start in zip((0, *ends), (*starts, len(text)), strict=True)])


def _without_ruled(text: str) -> tuple[str, list[str]]:
    """The text without what stands between two rules, or below a single one; an odd number of more parts sections, whosever they are."""
    rules = [(match.start(), match.end()) for match in _RULE.finditer(text)]
    if not rules or (len(rules) > 1 and len(rules) % 2):
        return text, []
    ends = rules[1::2] or [(len(text), len(text))]
    spans = [(start, end) for (start, _), (_, end) in zip(rules[::2], ends, strict=True)]
    return _without(text, spans), [text[start:end] for start, end in spans]


def unlabelled(own: str) -> tuple[str, str]:
    """Part an author's words into those spoken and those under a label (`Text: …`), which may be somebody else's."""
    if ":" not in own or (found := LABELLED.search(own)) is None:
        return own, ""
    spoken = f"{own[: found.start()]}\n{own[found.end() :]}"
    return (spoken, found[0]) if spoken.strip() else (own, "")


_EASY = r"(?:simple|easy|trivial|routine|cheap|basic|quick|straightforward|minor|low[- ](?:priority|complexity|stakes))"
_WORK = r"(?:task|request|question|step|job|query|ticket|case|one|matter|issue|prompt|message)"
_SMALL = r"(?:cheap(?:er|est)?|small(?:er|est)?|light(?:er|weight)?|fast(?:er)?|weak(?:er)?|mini)"
_EASY_WORDS: Final = frozenset(["simple", "easy", "trivial", "routine", "cheap", "basic", "quick", "straightforward", "minor", "low"])
_SMALL_WORDS: Final = frozenset(
    [
        "cheap",
        "cheaper",
        "cheapest",
        "small",
        "smaller",
        "smallest",
        "light",
        "lighter",
        "lightweight",
        "fast",
        "faster",
        "weak",
        "weaker",
        "mini",
    ]
)
_STRONG_WORDS: Final = frozenset(["strong", "opus", "expensive", "big", "large", "powerful", "flagship"])
_MODEL_WORDS: Final = frozenset(["model", "tier", "llm"])
_KIND_WORDS: Final = frozenset(
    ["classification", "labelling", "labeling", "extraction", "summarization", "summarisation", "formatting", "lookup", "look"]
)
_TELLTALES: Final = (
    (
        _EASY_WORDS,
        frozenset(["task", "request", "question", "step", "job", "query", "ticket", "case", "one", "matter", "issue", "prompt", "message"]),
    ),
    (_EASY_WORDS, frozenset(["treat", "handle", "mark", "tag", "consider", "process"]) | _KIND_WORDS),
    (frozenset(["haiku", "cheapest"]), frozenset(["use", "using", "send", "route", "give", "need", "needs", "take", "takes"])),
    (_SMALL_WORDS, _MODEL_WORDS),
    (_STRONG_WORDS, _MODEL_WORDS),
    (
        frozenset(["ignore", "disregard", "forget"]),
        frozenset(["instruction", "instructions", "rule", "rules", "prompt", "prompts", "text"]),
    ),
    (frozenset(["just", "only", "simply", "merely"]), _KIND_WORDS),
    (frozenset(["tier", "routing", "complexity"]),) * 2,
    (frozenset(["task"]), frozenset(["class"])),
    (frozenset(["route"]), frozenset(["to"])),
)
"""Of the two sets of each row a text must have a word, or no pattern below can match; tells most texts quickly."""
_BRACKETED: Final = frozenset(["system", "router", "admin", "developer"])
_TELLING: Final = _BRACKETED.union(*(words for pair in _TELLTALES for words in pair))
"""All of these words; a text that has none of them is told at once."""
_ASIDE: Final = re.compile(
    r"\b(?:"
    rf"(?:this|it|that|the (?:above|following|rest)|everything)(?: \w+)?(?:'s| is| was)(?: just| only| really| merely| but)?(?: an?)?"
    rf" (?:very |quite |really |fairly )?{_EASY}(?: \w+){{0,3}} {_WORK}"
    rf"|(?:this|it|that) (?:simple|easy|trivial|routine) {_WORK}"
    rf"|(?:use|using|send|route|give|needs?|takes?)(?: \w+){{0,4}} (?:to |with )?(?:the |an? )?"
    rf"(?:{_SMALL}(?: \w+)? (?:model|tier|llm)|haiku|cheapest)"
    rf"|(?:treat|handle|mark|tag|consider|process)(?: \w+){{0,2}} as (?:an? )?(?:very |just )?{_EASY}"
    r"|(?:no|not|don't|do not|without)(?: \w+){0,4} (?:the )?(?:strong|opus|expensive|big|large|powerful|flagship)"
    r"(?: \w+)? (?:model|tier|llm)"
    r"|(?:ignore|disregard|forget)(?: \w+){0,3} (?:previous|prior|above|earlier|other)(?: \w+){0,2} (?:instructions?|rules?|prompts?|text)"
    r"|(?:just|only|simply|merely) (?:an? )?(?:simple )?(?:classification|labell?ing|extraction|summari[sz]ation|formatting|lookup|look-up)"
    r" (?:task|request|step|job)"
    rf"|an? {_EASY} (?:classification|labell?ing|extraction|summari[sz]ation|formatting|lookup|look-up)(?: task| request| step| job)?"
    r")\b",
    re.IGNORECASE,
)
"""Sentences about how easy the work is, or which model should do it."""
_STOP: Final = re.compile(r"[.!?\n]")


def without_asides(text: str) -> str:
    """The text without sentences that talk the work down, for they say nothing about it; empty where it is nothing else."""
    seen = _TELLING.intersection(words_of(text))
    for one, other in _TELLTALES if seen else ():
        if not (one.isdisjoint(seen) or other.isdisjoint(seen)):
            break
    else:
        if "[" not in text or _BRACKETED.isdisjoint(seen):
            return text
    kept, done = list[str](), 0
    for found in _ASIDE.finditer(text):
        if found.start() < done:
            continue
        begin = _begin(text, done, _own_start(text, found))
        end = _STOP.search(text, found.end())
        kept.append(text[done:begin].rstrip(" \t"))
        done = (end.start() if end[0] == "\n" else end.end()) if end else len(text)
        while begin and text[begin - 1] in OPENING and text[done : done + 1] == " ":
            done += 1  # what follows a mark begins where the talk began
    left = "".join([*kept, text[done:]])
    for found in reversed([*_SETTING.finditer(left)]):
        before, after = left[: found.start()], left[found.end() :]
        left = before + (after.lstrip(" ") if before and before[-1] in OPENING else after)
    return left if left.strip() else ""


def _own_start(text: str, found: re.Match[str]) -> int:
    """Where the talk itself begins: `why not No need for …` is two sentences that somebody put together."""
    for inner in _CAPITAL.finditer(text, found.start() + 1, found.end()):
        if _ASIDE.match(text, inner.start()):
            return inner.start()
    return found.start()


def _begin(text: str, least: int, place: int) -> int:
    """Where the sentence round a place begins, behind an opening quotation mark; one set into another's middle begins at its capital."""
    begin = max(max(text.rfind(mark, least, place) for mark in ".!?\n") + 1, least)
    while begin < place and (text[begin] in OPENING or text[begin] == " "):
        begin += 1
    if text[place].isupper():
        return place
    before = [match.start() for match in _CAPITAL.finditer(text, begin, place)]
    return before[-1] if before and len(text[before[-1] : place].split()) <= NEAR else begin


OPENING: Final = "\"'(<["
"""Marks that may stand before a sentence's first word; they belong to what they open."""
NEAR: Final = 8
"""Words between a sentence's capital letter and its talk of how easy the work is."""
_CAPITAL: Final = re.compile(r"(?<!\S)[A-Z]")
_KEYS: Final = "(?:tier|task_class|route_to|routing|model_tier|complexity)"
_VALUE: Final = r"(?:\"\w+\"|'\w+'|\w+)"
_SETTING: Final = re.compile(
    r"(?:(?<![ \t])[ \t]++)?\[/?(?:system|router|admin|developer)\][^\[\n]*(?:\[/(?:system|router|admin|developer)\])?"
    rf"|(?:[{{(<\[][ \t]*+|(?<![ \t])[ \t]++)?(?:\"{_KEYS}\"|'{_KEYS}'|\b{_KEYS})[ \t]*[:=][ \t]*{_VALUE}"
    rf"(?:[ \t]*,[ \t]*[\"']?\w+[\"']?[ \t]*[:=][ \t]*{_VALUE})*(?:[ \t]*[}})>\]])?",
    re.IGNORECASE,
)
"""Settings of a router, written into a text. A run of blanks is tried at its start alone; a long one would take the square of its time."""
