"""Zones are the places of a step where a word weighs differently: the instruction's opening is not a payload's middle."""

from __future__ import annotations

import re
import string
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from routed_agents.features import Features
from routed_agents.words import words_of

OPENING: Final = 25
"""Words at the start of the person's own text that are read as instruction."""
CLOSING: Final = 15
"""Words at its end."""
LEADING: Final = 60
"""Words at the start of the system prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """A step's words by place, and what its shape says.

    The instruction zones hold whole runs of words, in order, so that pairs can be read; the bulk zones hold what is only weighed by its
    share. Where segments of the message read like an instruction they are `told`, and the rest is `body`. Where none does (a bare
    question, a story with a sum in it, a cry for help) the message's `opening` and `closing` speak. Each of these has a twin for steps
    with a system prompt (`told_under`, …): below one, the person's message is often nothing but material.

    Attributes:
        instruction: zone name and words.
        bulk: zone name and words.
        signs: names of what is true of the step's shape.
    """

    instruction: tuple[tuple[str, tuple[str, ...]], ...]
    bulk: tuple[tuple[str, tuple[str, ...]], ...]
    signs: tuple[str, ...]


INSTRUCTION_ZONES: Final = ("system", "told", "opening", "closing", "told_under", "opening_under", "closing_under")
BULK_ZONES: Final = ("system_rest", "body", "body_under", "rest", "rest_under", "before", "tools")
TOLD: Final = 60
"""Words of segments that read like an instruction."""
EDGE: Final = 4
"""Segments at the start and at the end of a message that may be its instruction."""


Words = tuple[str, ...]


def as_typed(words: Words) -> Words:
    """The words as they are."""
    return words


def zones_of(features: Features, segment_weights: Mapping[str, int], mend: Callable[[Words], Words] = as_typed) -> Zones:
    """Read a step's words place by place.

    Args:
        features: the step.
        segment_weights: how much each word speaks for its segment being an instruction.
        mend: puts right what was mistyped in an instruction.
    """
    own, quoted = hard_split(without_asides(features.asked))
    own = own.strip()
    system, asked = words_of(hard_split(features.system)[0]), words_of(own)
    under = "_under" if system else ""
    instruction: list[tuple[str, tuple[str, ...]]] = []
    bulk: list[tuple[str, tuple[str, ...]]] = []
    if system:
        instruction.append(("system", mend(system[:LEADING])))
        if len(system) > LEADING:
            bulk.append(("system_rest", system[LEADING:]))
    said, told, rest = (own, mend(asked), ()) if quoted and len(asked) <= TOLD else _told(own, segment_weights, under, mend)
    if told:
        instruction.append((f"told{under}", told))
        if rest:
            bulk.append((f"rest{under}", rest))
    else:
        told = asked
        instruction.append((f"opening{under}", mend(asked[:OPENING])))
        if len(asked) > OPENING:
            instruction.append((f"closing{under}", mend(asked[max(OPENING, len(asked) - CLOSING) :])))
            if len(asked) > OPENING + CLOSING:
                bulk.append((f"body{under}", asked[OPENING:-CLOSING]))
    if features.before:
        bulk.append(("before", words_of("\n".join(features.before))))
    if features.tools:
        bulk.append(("tools", words_of(CAMEL.sub(" ", " ".join(features.tools)))))
    signs = _signs(features, said or own, told, len(asked), len(system), quoted)
    return Zones(instruction=tuple(instruction), bulk=tuple(bulk), signs=tuple(signs))


def split(features: Features, segment_weights: Mapping[str, int], mend: Callable[[Words], Words] = as_typed) -> tuple[str, str]:
    """The message's instruction and its material, as `zones_of` takes them, for a person to read."""
    own, quoted = hard_split(without_asides(features.asked))
    own = own.strip()
    if quoted and len(words_of(own)) <= TOLD:
        return own, quoted
    told, _, rest = _told(own, segment_weights, "_under" if features.system else "", mend)
    if not told:
        return own, quoted
    segments = segments_of(own)
    material = " ".join([segment for segment in segments if segment not in told]) if rest else ""
    return told, "\n".join([part for part in (material, quoted) if part])


BREAKS: Final = (". ", "? ", "! ", ": ")
DASHES: Final = (" - ", " -- ", " | ", " => ", " — ", " – ")
WIDE_BREAKS: Final = ("。", "！", "？", "：")
"""Where a segment ends, besides the end of a line. Told by plain replacement, some ten times quicker than by a pattern."""
HEAD_READ: Final = 1_200
TAIL_READ: Final = 800
"""Characters of a message that are cut into segments, at its start and its end."""


def segments_of(text: str) -> list[str]:
    """A message's lines, sentences and the parts round colons and dashes; of a long message those of its start and end only."""
    if len(text) > HEAD_READ + TAIL_READ:
        head, tail = _cut(text[:HEAD_READ]), _cut(text[-TAIL_READ:])
        return [*head[:-1], *tail[1:]] if len(head) > 1 and len(tail) > 1 else [*head, *tail]
    return _cut(text)


def _cut(text: str) -> list[str]:
    for mark in BREAKS:
        if mark in text:
            text = text.replace(mark, f"{mark[0]}\n")
    for mark in DASHES:
        if mark in text:
            text = text.replace(mark, "\n")
    if not text.isascii():
        for mark in WIDE_BREAKS:
            text = text.replace(mark, f"{mark}\n")
    return [segment for line in text.split("\n") if (segment := line.strip())]


def segment_names(segment: str, place: int, count: int, under: str) -> tuple[tuple[str, ...], str]:
    """The words of a segment and the name of its place and form, as its weights are kept."""
    words = words_of(segment)
    where = "only" if count == 1 else "first" if place == 0 else "last" if place == count - 1 else "edge"
    end = segment[-1]
    form = "colon" if end in ":：" else "question" if end in "?？" else "stop" if end in ".!。！" else "open"
    return words, f"={where}{under} {form} {bisect(_SEGMENT_LENGTHS, len(words))}"


_SEGMENT_LENGTHS: Final = (2, 5, 10, 20, 40)
SEGMENT_SHARE: Final = 8


def _told(own: str, weights: Mapping[str, int], under: str, mend: Callable[[Words], Words]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The segments that read like an instruction, as text and as words, and the others' words; nothing is told where none does."""
    segments = segments_of(own)
    count = len(segments)
    said: list[str] = []
    told: list[str] = []
    rest: list[str] = []
    weight = weights.get
    for place, segment in enumerate(segments):
        if EDGE <= place < count - EDGE:
            rest += words_of(segment)
            continue
        words, form = segment_names(segment, place, count, under)
        words = mend(words)
        score = weight(form, 0) + SEGMENT_SHARE * sum(map(weight, {*words}, repeat(0))) // (len(words) + SEGMENT_SHARE // 2)
        if score > 0 and len(told) < TOLD:
            said.append(segment)
            told += words
        else:
            rest += words
    return "\n".join(said), tuple(told[:TOLD]), tuple(rest)


CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")

_FENCE: Final = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_TAGGED: Final = re.compile(
    r"<(?!instruct|task|role|rule|goal|step|format|output|system|prompt|question|query|objective|guideline|request|policy|persona|identity"
    r"|constraint|requirement|criteria|thinking)([a-zA-Z][\w-]{1,40})(?:\s[^>]{0,200})?>.*?(?:</\1>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_TRIPLE: Final = re.compile(
    r"\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|^[ \t]*-{3,}[ \t]*\n.*?(?:^[ \t]*-{3,}\s*$|\Z)", re.DOTALL | re.MULTILINE
)
_QUOTED: Final = re.compile(r"^\s{0,3}>.*$", re.MULTILINE)
_LONG_QUOTE: Final = re.compile(r"\"(?:[^\"\s]+\s+){8,}[^\"]*\"")
_HINTS: Final = ("`", "<", ">", '"', "~~~", "---", "'''")


def hard_split(text: str) -> tuple[str, str]:
    """Part a message into its author's words and what stands between unmistakable marks: fences, tags, rules, quotation marks.

    Material under a mere label (`Text: …`) stays, for an instruction may follow it. A message that is nothing but material keeps it.
    """
    for mark in _HINTS:
        if mark in text:
            break
    else:
        return text, ""
    own, quoted = text, list[str]()
    for pattern in (_FENCE, _TAGGED, _TRIPLE, _QUOTED, _LONG_QUOTE):
        found = [match[0] for match in pattern.finditer(own)]
        if found:
            quoted += found
            own = pattern.sub("\n", own)
    return (own, "\n".join(quoted)) if own.strip() else (text, "")


_EASY = r"(?:simple|easy|trivial|routine|cheap|basic|quick|straightforward|minor|low[- ](?:priority|complexity|stakes))"
_WORK = r"(?:task|request|question|step|job|query|ticket|case|one|matter|issue|prompt|message)"
_SMALL = r"(?:cheap(?:er|est)?|small(?:er|est)?|light(?:er|weight)?|fast(?:er)?|weak(?:er)?|mini)"
_ASIDE_WORDS: Final = frozenset(
    [
        "easy",
        "simple",
        "trivial",
        "routine",
        "basic",
        "quick",
        "straightforward",
        "minor",
        "cheap",
        "cheaper",
        "cheapest",
        "haiku",
        "opus",
        "model",
        "classification",
        "router",
        "routing",
        "ignore",
        "disregard",
        "formatting",
        "labelling",
        "labeling",
        "extraction",
        "summarization",
        "summarisation",
        "lookup",
        "tier",
        "task",
        "task_class",
        "system",
        "router",
        "admin",
        "downgrade",
        "complexity",
    ]
)
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
    """The text without sentences that talk the work down: they say nothing about it, and whoever writes a payload may write them."""
    if _ASIDE_WORDS.isdisjoint(words_of(text)):
        return text
    kept, done = list[str](), 0
    for found in _ASIDE.finditer(text):
        if found.start() < done:
            continue
        begin = _begin(text, done, found.start())
        end = _STOP.search(text, found.end())
        kept.append(text[done:begin].rstrip(" \t"))
        done = (end.start() if end[0] == "\n" else end.end()) if end else len(text)
    left = _SETTING.sub("", "".join([*kept, text[done:]]))
    return left if left.strip() else text


def _begin(text: str, least: int, place: int) -> int:
    """Where the sentence round a place begins; one set into another's middle begins at its capital letter."""
    begin = max(max(text.rfind(mark, least, place) for mark in ".!?\n") + 1, least)
    if text[place].isupper():
        return place
    before = [match.start() for match in _CAPITAL.finditer(text, begin, place)]
    return before[-1] if before and len(text[before[-1] : place].split()) <= NEAR else begin


NEAR: Final = 8
"""Words between a sentence's capital letter and its talk of how easy the work is."""
_CAPITAL: Final = re.compile(r"(?<!\S)[A-Z]")
_SETTING: Final = re.compile(
    r"[ \t]*\[/?(?:system|router|admin|developer)\][^\[\n]*(?:\[/(?:system|router|admin|developer)\])?"
    r"|[{(<\[]?[ \t]*[\"']?\b(?:tier|task_class|route_to|routing|model_tier|complexity)[\"']?[ \t]*[:=][ \t]*[\"']?\w+[\"']?"
    r"(?:[ \t]*,[ \t]*[\"']?\w+[\"']?[ \t]*[:=][ \t]*[\"']?\w+[\"']?)*(?:[ \t]*[})>\]])?",
    re.IGNORECASE,
)
"""Settings of a router, written into a text."""


# ---- shape ------------------------------------------------------------------------------------------------------------

_BLANK: Final = b" \n\t"
_PLAIN: Final = f"{string.ascii_letters}{string.digits} \n\t.,'".encode()
_SELF: Final = frozenset(
    [
        "i",
        "im",
        "ive",
        "id",
        "ill",
        "me",
        "my",
        "mine",
        "myself",
        "we",
        "our",
        "us",
        "ich",
        "mir",
        "mein",
        "meine",
        "je",
        "moi",
        "mon",
        "ma",
        "yo",
        "mi",
    ]
)
_OPTIONS: Final = ("\nB.", "\nB)", "\nB:", "\n(B", "\nb)", "\n2.", "\n2)", "\n- B", " B) ", "(B)", "(b)", " b) ")


_WIDE: Final = re.compile("[\u2e80-\u9fff\uac00-\ud7af]")


def _steps(name: str, bounds: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return bounds, tuple(f"{name}:{number}" for number in range(len(bounds) + 1))


_LENGTH = _steps("words", (4, 9, 21, 61, 201))
_TOLD = _steps("told", (4, 9, 21))
_REST = _steps("rest", (8, 25, 80))
_SYSTEM = _steps("system", (1, 15, 60, 200))
_TURNS = _steps("turns", (2, 4, 7, 13))
_TURNS_UNDER = _steps("turns_under", (2, 4, 7, 13))
_TOOLS = _steps("tools", (1, 2, 5))
_TOKENS = _steps("tokens", (50_001,))
_LINES = _steps("lines", (1, 3, 10))
_NUMBERS = _steps("numbers", (1, 2, 3, 6))
_MARKS = _steps("marks", (2, 5, 10, 20))
_SELVES = _steps("self", (1, 2, 4))


def _signs(features: Features, own: str, told: tuple[str, ...], length: int, system: int, quoted: str) -> list[str]:
    near, first = own[:1500], told[:80]
    bounds, names = _TURNS_UNDER if system else _TURNS
    signs = [
        names[bisect(bounds, features.message_count)],
        _SYSTEM[1][bisect(_SYSTEM[0], system)],
        _TOOLS[1][bisect(_TOOLS[0], len(features.tools))],
        _TOKENS[1][bisect(_TOKENS[0], features.tokens)],
        _TOLD[1][bisect(_TOLD[0], len(told))]
        if len(told) < length  # beside material, neither its length nor its lines are a sign
        else f"{_LENGTH[1][bisect(_LENGTH[0], length)]} {_LINES[1][bisect(_LINES[0], near.count(chr(10)))]}",
        _NUMBERS[1][bisect(_NUMBERS[0], f" {' '.join(first)}".count(" 0"))],
        _MARKS[1][bisect(_MARKS[0], _density(near))],
        _SELVES[1][bisect(_SELVES[0], len(_SELF.intersection(first)))],
    ]
    end = own.rstrip()[-1:]
    if end in "?？":
        signs.append("ends:?")
    elif end == ":":
        signs.append("ends::")
    if "?" in near:
        signs.append("asks")
    if len(told) < length:
        signs.append(_REST[1][bisect(_REST[0], length - len(told))])
    if quoted:  # that it is there tells something; what it says is nobody's instruction
        signs.append("quotes")
    if features.output_schema:
        signs.append("schema")
    if not near.isascii() and _WIDE.search(near):
        signs.append("wide_script")
    for mark in _OPTIONS:
        if mark in near:
            signs.append("options")
            break
    return signs


def _density(text: str) -> int:
    """Percent of a text's characters that are neither letters, digits nor the commonest stops; code has more of it than prose."""
    seen = text.encode("ascii", "ignore").translate(None, _BLANK)
    return 100 * len(seen.translate(None, _PLAIN)) // (len(seen) or 1)
