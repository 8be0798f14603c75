"""Features are what is measured on a step before anything is decided."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from operator import attrgetter, itemgetter
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple, cast

from routed_agents.confirmations import is_confirmation
from routed_agents.material import hard_split, unlabelled, without_asides
from routed_agents.sizes import block_length, length_of
from routed_agents.speech import SILENCE, Speech, heard_before, known_role, leading_rules
from routed_agents.state import PLACED
from routed_agents.steps import (
    NOTHING,
    STAMP,
    Resumed,
    Role,
    Step,
    ToolCall,
    beside_results,
    content_of,
    field_of,
    reported_tokens,
    said_and_shown,
    stamp_of,
    summarizes,
    text_of,
    tool_calls_of,
    tool_failed,
)
from routed_agents.words import plain

HEAD: Final = 3_000
"""Characters read from the start of a system prompt and of a last message."""
TAIL: Final = 1_500
"""Characters read from their end."""
MARKED: Final = 160_000
"""Characters of a message that are looked through for marks, half at its start and half at its end; a longer one is a long context."""
SAMPLE: Final = 400
"""Characters looked at to tell how densely a text is tokenized."""
SAMPLES: Final = 6
"""Messages sampled for it, or a few more."""
PER_MESSAGE: Final = 12
"""Tokens of framing added for each message."""
TOOL_TOKENS: Final = 120
"""Tokens assumed for the definition of one bound tool, of which a step knows the name."""

TokenSource = Literal["declared", "reported", "estimated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What an earlier routed reply in the same turn says about itself; it can raise a tier, never lower one.

    Attributes:
        tier: the tier that was decided.
        rejected: attempts of its step whose answers the checks turned down.
        repeated: tool calls it made that equal the newest call of the turn.
        failed: results of its tool calls that belong to the streak of failures at the end of the history.
    """

    tier: str
    scope: str = "turn"
    code: str = ""
    rejected: int = 0
    repeated: int = 0
    failed: int = 0


class Glimpse(NamedTuple):
    """The beginning of a message."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Everything the rules may look at.

    Attributes:
        tokens: the prompt's size, an upper bound unless its source is `declared` or its tools' definitions are long (`TOOL_TOKENS`).
        declared: the task class its author gave.
        declared_in: `call` when given with the call itself, `metadata` when it came along in metadata.
        forced: the tier asked for under `metadata["routed_agents"]["tier"]`.
        instruction: what the step is asked to do: the author's and the last person's own words.
        own: what the person asks, without material between unmistakable marks and without talk meant for a router: the last human message,
            with those right before it; of a mere confirmation, the request before it and the offer that it confirms.
        spoken: a person's own words in it: what stands under a mere label (`Text: …`) is left out as well, and so is an offer.
        latest: the same of the last human message alone.
        earlier: persons' own words in human messages before those, and what programs said beside tool results, newest first.
        quoted: the words of the material; they may be a person's, yet they are not the instruction.
        marked: some of it stands between marks (fences, tags, rules, quotation marks).
        system: the system prompts' own words, and behind them those of later ones and of programs that speak beside tool results.
        before: what was said just before it, newest first, a little of each message.
        open_loop: the last messages are tool results the model has yet to act on.
        loop_length: model replies since the turn began.
        tool_errors: failed tool results at the end of the history, counted back without a gap.
        repeats: times the newest tool call was made before in this turn, with equal arguments.
        message_count: messages of the conversation, without system prompts at its start.
        downstream: model steps that hang on the step's answer, when known.
        in_loop: its node is part of a loop, so nobody can say how many do.
        turn: names the turn, from the message that opened it: by its id, else by its words and place.
        run: the graph run that makes the call, when known.
        at: the graph's checkpoint the step is decided at, when known.
        since: the checkpoint from which on everything was decided in this turn, where the run may have taken up another.
        stamps: what earlier replies of this turn were stamped with.
        flags: metadata that policy-file floors may ask for.
    """

    tokens: int
    tokens_source: TokenSource
    declared: str | None = None
    declared_in: Literal["call", "metadata"] | None = None
    forced: str | None = None
    node: str | None = None
    instruction: str = ""
    system: str = ""
    own: str = ""
    before: tuple[Glimpse, ...] = ()
    spoken: str = ""
    latest: str = ""
    earlier: tuple[str, ...] = ()
    quoted: str = ""
    marked: bool = False
    last_role: str = "human"
    message_count: int = 1
    tools: tuple[str, ...] = ()
    output_schema: bool = False
    open_loop: bool = False
    loop_length: int = 0
    tool_errors: int = 0
    repeats: int = 0
    downstream: int | None = None
    in_loop: bool = False
    deadline_s: float | None = None
    turn: str = ""
    run: str | None = None
    at: str | None = None
    since: str | None = None
    stamps: tuple[Stamp, ...] = ()
    flags: Mapping[str, object]


def extract(step: Step) -> Features:
    """Measure a step. The history before the turn is never walked; of long messages only head and tail are read: of what a person says
    those of their own words and those of the material."""
    messages = step.messages
    leading, rules = leading_rules(messages)
    turn = _turn(step, leading)
    tokens, source = _tokens(step)
    heard = _heard(step, turn, leading, rules)
    forced, declared_here = _own_metadata(step.metadata)
    declared = step.task_class or declared_here
    return Features(
        tokens=tokens,
        tokens_source=source,
        declared=declared,
        declared_in=None if declared is None else "call" if step.task_class else "metadata",
        forced=forced,
        node=step.node,
        instruction=f"{heard.system}\n{heard.spoken}" if heard.system else heard.spoken,
        system=heard.system,
        own=heard.own,
        before=_before(messages, turn.asked) if len(messages) > 1 else (),
        spoken=heard.spoken,
        latest=heard.latest,
        earlier=heard.earlier,
        quoted=heard.quoted,
        marked=heard.marked,
        last_role=turn.last_role,
        message_count=len(messages) - leading or 1,
        tools=step.tools,
        output_schema=step.output_schema is not None,
        open_loop=turn.open_loop,
        loop_length=turn.replies,
        tool_errors=turn.errors,
        repeats=turn.repeats,
        downstream=step.downstream,
        in_loop=step.in_loop,
        deadline_s=step.deadline_s,
        turn=turn.name,
        run=step.run,
        at=step.at,
        since=turn.since,
        stamps=turn.stamps,
        flags=step.metadata,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """The words of a step's features, by who said them and where."""

    system: str
    own: str = ""
    spoken: str = ""
    latest: str = ""
    earlier: tuple[str, ...] = ()
    quoted: str = ""
    marked: bool = False


def _heard(step: Step, turn: _Turn, leading: int, rules: Sequence[str]) -> _Heard:
    messages = step.messages
    before = SILENCE if turn.asked is None else heard_before(messages, turn.asked, leading)
    system = _system([step.system or "", *rules, *before.rules, *turn.rules[::-1], *turn.added[::-1]])
    if turn.asked is None:  # nobody has spoken, so the rules are what is asked
        own, quoted, spoken, labelled = _parts(system)
        return _Heard(system="", own=own, spoken=spoken, quoted=_both(quoted, labelled), marked=bool(quoted))
    said, shown = said_and_shown(messages[turn.asked])
    latest, apart = said, False
    if before.together:
        said, shown, apart = _joined(before.together, said, shown)
    confirming = is_confirmation(said) and bool(before.earlier or before.offered is not None)
    if confirming:
        said = _confirmed(before, said)
    own, quoted, spoken, labelled = _parted(said)
    if confirming and before.offered is not None:
        offer = plain(text_of(before.offered)[-GLIMPSE:])
        own = f"{own}\n{_parts(offer)[0]}"
    if shown:
        quoted = _both(quoted, window(plain(shown)))
    earlier = (*(before.together[::-1] if apart else ()), *before.earlier)
    return _Heard(
        system=system,
        own=own,
        spoken=spoken,
        latest=spoken if latest is said else _spoken(latest),
        earlier=(*map(_spoken, turn.added), *[_spoken(said_and_shown(message)[0]) for message in earlier], *map(_spoken, before.added)),
        quoted=_both(quoted, labelled),
        marked=bool(quoted),
    )


def _system(rules: Sequence[str]) -> str:
    """The system prompts as one, in order, each once."""
    if len(rules) == 1:
        return window(plain(rules[0]))
    return "\n".join([window(plain(each)) for each in dict.fromkeys(rules) if each])


def _joined(together: Sequence[object], said: str, shown: str) -> tuple[str, str, bool]:
    """Human messages in a row as one, if they are short together and the last doesn't say again what another said; and whether not."""
    parts = [said_and_shown(message) for message in together]
    if any(each == said for each, _ in parts) or sum([len(each) for each, _ in parts]) + len(said) > HEAD + TAIL:
        return said, shown, True
    return "\n".join([*[each for each, _ in parts if each], said]), _both(*[each for _, each in parts], shown), False


def _confirmed(before: Speech, said: str) -> str:
    """A confirmation, behind the request it goes back to."""
    for message in before.earlier:
        request, _ = said_and_shown(message)
        if not is_confirmation(request):
            return f"{request}\n{said}"
    return said


def _spoken(said: str) -> str:
    """A person's own words in what was said."""
    return _parted(said)[2]


def _both(*texts: str) -> str:
    return "\n".join([text for text in texts if text])


def _parted(said: str) -> tuple[str, str, str, str]:
    """A message's own words and its marked material; of its own words those spoken and those under a label."""
    if len(said) <= HEAD + TAIL:
        return _parts(plain(said))
    own, marked = _cut(said if len(said) <= MARKED else f"{said[: MARKED // 2]}\n{said[-MARKED // 2 :]}")
    own, quoted, spoken, labelled = _parts(own)
    return own, _both(marked, quoted), spoken, labelled


@lru_cache(maxsize=16)
def _cut(said: str) -> tuple[str, str]:
    """A long message's own words and its marked material, head and tail of each; cut first, material would lose its opening mark."""
    own, marked = hard_split(plain(said))
    return window(own), window(marked)


@lru_cache(maxsize=512)  # a tool loop asks about the same messages at every step
def _parts(text: str) -> tuple[str, str, str, str]:
    own, quoted = hard_split(text)
    left = without_asides(own)
    own = left if left or quoted else own  # a message that is nothing but talk meant for a router keeps it
    return own, quoted, *unlabelled(own)


def window(text: str) -> str:
    """Head and tail of a long text; a short one whole."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"


LOOKED_BACK: Final = 8
"""Messages before the last human one that are looked at for what the conversation is about."""
GLIMPSE: Final = 300
"""Characters read of each."""


def _before(messages: Sequence[object], asked: int | None) -> tuple[Glimpse, ...]:
    """The beginnings of what persons and models said before, newest first; the message that asks is not among them, nor is what tools
    gave, for that is material."""
    found: list[Glimpse] = []
    for place in range(len(messages) - 1, max(-1, len(messages) - LOOKED_BACK - 3), -1):
        if place == asked:
            continue
        message = messages[place]
        content = content_of(message)
        text = content if type(content) is str else text_of(message)
        if text and (role := known_role(message)) in {"human", "ai"}:
            found.append(Glimpse(role, plain(text[: 2 * GLIMPSE])[:GLIMPSE]))
            if len(found) == LOOKED_BACK:
                break
    return tuple(found)


ADDED: Final = 6
"""Texts that programs and system prompts added to a turn which are read, the newest; most of them are the same reminder."""
LOOSE: Final = f"{string.ascii_letters}{string.whitespace}.,'".encode()
"""Deletes what prose is made of; what stays is dense."""


def upper_tokens(characters: int, sample: str) -> int:
    """Tokens that many characters make at most, judged by a sample of the text.

    Characters over four undercount JSON by about 41 %, logs by 48 % and Chinese or Japanese by 60 to 78 %, and tokenizers since 2026
    count up to 30 % more. So the divisor falls with the share of characters that are neither letters nor blanks, and text beyond Latin
    scripts counts 1.4 tokens a character.
    """
    if not characters:
        return 0
    size = len(sample) or 1
    if sample.isascii():
        dense = len(sample.encode().translate(None, LOOSE))
        per_hundred = 33 + (42 * min(dense * 4, size)) // size  # prose about 3 characters a token, JSON and logs about 1.3
    else:
        wide = sum(1 for character in sample if character >= "\u2e80")
        per_hundred = 45 + (95 * wide) // size
    return -(-characters * per_hundred // 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    name: str
    last_role: Role
    open_loop: bool
    asked: int | None
    added: tuple[str, ...]
    rules: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    replies: int
    errors: int
    repeats: int
    since: str | None


def _turn(step: Step, leading: int) -> _Turn:
    """Walk back to the message that opened the turn, and no further.

    A turn opens at a human message after the last stamped reply. A reply stamped by this very run before it, or by one that it takes up,
    means that the human message was written by a node, so the turn goes on further back; only where the run is known is it looked for
    beyond.
    """
    messages, run = step.messages, step.run
    opened: int | None = None
    asked: int | None = None
    added: list[str] = []
    rules: list[str] = []
    stamped: list[tuple[Mapping[str, object], tuple[ToolCall, ...], int]] = []
    calls: list[ToolCall] = []
    replies, errors, counted, failing, growing = 0, 0, 0, True, True
    last_role: Role = "human"
    open_loop = False
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        role = known_role(message)
        if position == len(messages) - 1:
            last_role = role
        if role == "human":
            asked = position if asked is None else asked
            opened = position if growing else opened
        elif role == "ai":
            stamp = stamp_of(message)
            if opened is not None:
                growing = stamp is not None and _goes_on(stamp, step, messages[opened])
                if run is None:
                    break
                if not growing:
                    continue
            made = tool_calls_of(message)
            if stamp is not None:
                stamped.append((stamp, made, errors - counted))
            counted = errors
            replies += 1
            calls += made
        elif opened is None:
            if role == "tool" and failing:
                failing = tool_failed(message)
                errors += failing
            open_loop = open_loop or (role == "tool" and not replies)
            if role == "system":
                rules.append(text_of(message))
            elif words := beside_results(message):
                added.append(words)
    name = _name(messages, opened, leading)
    opened = opened or 0
    return _Turn(
        name=name,
        last_role=last_role,
        open_loop=open_loop,
        asked=asked,
        added=tuple(dict.fromkeys(added))[:ADDED],
        rules=tuple(rules[:ADDED]),
        stamps=tuple([_read(stamp, _equal(made, calls), failed) for stamp, made, failed in stamped]),
        replies=replies,
        errors=errors,
        repeats=_equal(calls[1:], calls),
        since=_since(step.resumed, messages[opened]),
    )


def _goes_on(stamp: Mapping[str, object], step: Step, opener: object) -> bool:
    """Whether a reply was decided by the step's own run, or by one it takes up, so that the human message after it is a node's."""
    if step.run is not None and stamp.get("run") == step.run:
        return True
    since, at = _since(step.resumed, opener), stamp.get("at")
    return since is not None and isinstance(at, str) and at >= since


def _since(resumed: Resumed | None, opener: object) -> str | None:
    """The checkpoint at which a turn began that a run has taken up. Whoever answered an interrupt has begun a turn of their own where
    their words became a message; a summary is nobody's words."""
    if resumed is None:
        return None
    return resumed.begun if summarizes(opener) else resumed.spoken


def _equal(made: Sequence[ToolCall], calls: Sequence[ToolCall]) -> int:
    """How many of these calls ask for the same as the first of those."""
    return sum((call.name, call.arguments) == (calls[0].name, calls[0].arguments) for call in made)


def _read(stamp: Mapping[str, object], repeated: int, failed: int) -> Stamp:
    tier, scope, code, rejected = stamp.get("tier"), stamp.get("pin"), stamp.get("codes"), stamp.get("rejected")
    first = cast("Sequence[object]", code)[0] if isinstance(code, (list, tuple)) and code else ""
    return Stamp(
        tier=str(tier),
        scope=scope if isinstance(scope, str) else "turn",
        code=str(first),
        rejected=len(cast("Sequence[object]", rejected)) if isinstance(rejected, (list, tuple)) else 0,
        repeated=repeated,
        failed=failed,
    )


def _name(messages: Sequence[object], opened: int | None, leading: int) -> str:
    """The turn's name: from the id of the message that opened it, else from its words and its place behind the system prompts."""
    opener = messages[opened or 0]
    own = field_of(opener, "id")
    name = own if isinstance(own, str) and own else ""
    if opened is None:  # cut off with the history before it
        return f"{PLACED}{name or _digest(opener)}"
    return name or f"{_digest(opener)}{PLACED}{opened - leading}"


def _digest(message: object) -> str:
    text = text_of(message)
    return hashlib.blake2b(f"{len(text)}:{text[:500]}{text[-500:]}".encode(errors="replace"), digest_size=8).hexdigest()


def _tokens(step: Step) -> tuple[int, TokenSource]:
    """The last reply's own count is exact up to that reply; only what came after it has to be estimated, from above.

    A count too small for the text before it belongs to another prompt (a worker's answer passed on, or a forgery) and is not believed;
    nor is a declared one that is too small for the text that is there.
    """
    messages = _sent(step)
    if step.tokens is not None and _believable(step.tokens, messages):
        return step.tokens, "declared"
    known, start = 0, 0
    last = len(messages) - 1
    for position in range(last, max(-1, last - COUNTED_WITHIN), -1) if _may_report(messages[-COUNTED_WITHIN:]) else ():
        message = messages[position]
        known_fields = _fields(message)
        if "usage_metadata" not in known_fields and "usage" not in known_fields:
            continue
        if (counted := reported_tokens(message)) is None or known_role(message) != "ai":
            continue
        if _believable(counted, messages[: position + 1]):
            known, start = counted, position + 1
        break
    rest = messages[start:]
    files: list[int] = []
    sizes = _sizes(rest, files)
    total = sum(sizes)
    framing = PER_MESSAGE * len(sizes)
    if not start:
        framing += TOOL_TOKENS * len(step.tools)
        if step.output_schema is not None:
            schema = str(step.output_schema)
            framing += upper_tokens(len(schema), schema[:SAMPLE])
    return known + framing + sum(files) + upper_tokens(
        total, "".join([text for text, _ in _sampled(rest, sizes)])
    ), "reported" if start else "estimated"


def _sent(step: Step) -> tuple[object, ...]:
    """All messages of the prompt, a system prompt that stands beside them first; in their form, for messages of one form are sized fast."""
    if not step.system:
        return step.messages
    prompt = {"role": "system", "content": step.system}
    return prompt if type(step.messages[0]) is dict else SimpleNamespace(**prompt), *step.messages


def _may_report(messages: Sequence[Any]) -> bool:
    """Whether any of these messages could hold a count; plain dicts without one are told in C."""
    if {*map(type, messages)} != {dict}:
        return True
    return any(map(HAS_KEY, messages, repeat("usage_metadata"))) or any(map(HAS_KEY, messages, repeat("usage")))


HAS_KEY: Final[Callable[[Any, str], bool]] = cast("Any", dict).__contains__
COUNTED_WITHIN: Final = 24
"""Messages looked through, from the last one back, for a reply with a count; without one the whole history is estimated."""
SPARSEST: Final = 7
"""More characters than any of today's tokenizers puts into one token on average; English prose has about 4.5."""
SPARSEST_WIDE: Final = 2
"""The same of Chinese and Japanese, which have 1.6 at most by the undercount that `upper_tokens` tells."""
SPARSEST_HANGUL: Final = 3
SPARSEST_OTHER: Final = 5
"""The same of Korean and of other scripts than Latin. In OpenAI's own sentences, chosen to show its o200k at its best ("Hello GPT-4o",
2024-05), Korean has about 2 characters a token, Arabic and Hindi under 3 and Russian about 3.3; half as much again is allowed for."""
_HANGUL: Final = re.compile("[\uac00-\ud7a3]")
_WIDE: Final = re.compile("[\u2e80-\uabff\uf900-\ufaff\U00020000-\U0003134f]")
_OTHER: Final = re.compile("[\u0370-\u1dff]")


def least_tokens(characters: int, sample: str) -> int:
    """Tokens that many characters make at least, judged by a sample of the text."""
    if sample.isascii():
        return characters // SPARSEST
    hangul, wide, other = (len(letters.findall(sample)) for letters in (_HANGUL, _WIDE, _OTHER))
    latin, whole = len(sample) - hangul - wide - other, SPARSEST * SPARSEST_WIDE * SPARSEST_HANGUL * SPARSEST_OTHER
    parts = (latin, SPARSEST), (hangul, SPARSEST_HANGUL), (wide, SPARSEST_WIDE), (other, SPARSEST_OTHER)
    return characters * sum([count * whole // sparsest for count, sparsest in parts]) // (whole * len(sample))


def _believable(tokens: int, messages: Sequence[object]) -> bool:
    """Whether these messages may be no more tokens than that; of long histories a sample is looked at."""
    sizes = _lengths(messages)
    total = sum(sizes)
    if tokens * SPARSEST < total:
        return False
    sampled = _sampled(messages, sizes)
    if "".join([text for text, _ in sampled]).isascii():
        return True
    looked_at = sum([size for _, size in sampled]) or 1
    return tokens >= sum([least_tokens(size, text) for text, size in sampled]) * total // looked_at


def _lengths(messages: Sequence[object]) -> list[int]:
    """A lower bound of the characters of each message; counted in C where all are of one kind, 0.1 us each."""
    readers: tuple[Callable[[Any], Any], ...] = (itemgetter("content"), attrgetter("content"))
    for content in readers:
        try:
            texts = [content(message) for message in cast("Sequence[Any]", messages)]
        except (KeyError, TypeError, AttributeError):
            continue
        return list(map(len, texts)) if set(map(type, texts)) == {str} else list(map(block_length, texts))
    return list(map(length_of, messages))


def _sizes(messages: Sequence[object], files: list[int]) -> list[int]:
    """`length_of` each, quicker for messages that only speak: without a reported count the whole history passes here."""
    given: Sequence[Any] = messages
    if {*map(type, given)} == {dict} and not any(any(map(HAS_KEY, given, repeat(key))) for key in CALLS):
        try:  # plain dicts that only speak: counted in C
            contents: list[Any] = list(map(itemgetter("content"), given))
        except KeyError:
            contents = [None]
        if {*map(type, contents)} == {str}:
            return list(map(len, contents))
    fields: list[Any] = [message if message.__class__ is dict else getattr(message, "__dict__", NOTHING) for message in given]
    return [
        len(content)
        if type(content := known.get("content")) is str and not known.get("tool_calls") and not known.get("function_call")
        else length_of(message, files)
        for known, message in zip(fields, messages, strict=True)
    ]


CALLS: Final = ("tool_calls", "function_call")
"""Where a message keeps what it calls."""


def _fields(message: Any) -> Any:
    """The keys of a dict or the attributes of an object, as they lie there."""
    if type(message) is dict:
        return cast("Any", message)
    return getattr(message, "__dict__", NOTHING)


def _sampled(messages: Sequence[object], sizes: Sequence[int]) -> list[tuple[str, int]]:
    """Parts of the largest message, the last one and some between, each with the size of its message."""
    count = len(messages)
    places: Sequence[int] = range(count)
    if count > SAMPLES:
        places = sorted({*range(count - 1, -1, -(count // (SAMPLES - 1))), sizes.index(max(sizes))})
    parts: list[tuple[str, int]] = []
    for place in places:
        content = content_of(messages[place])
        text = content if isinstance(content, str) else text_of(messages[place])
        part = text if len(text) <= SAMPLE else text[: SAMPLE // 2] + text[len(text) // 2 : len(text) // 2 + SAMPLE // 2]
        parts.append((part, sizes[place]))
    return parts


def _own_metadata(metadata: Mapping[str, object]) -> tuple[str | None, str | None]:
    """The forced tier and the declared class; a wish nobody understands is kept as one, for it must not be dropped unseen."""
    declared = metadata.get("task_class")
    own = metadata.get(STAMP)
    if own is None:
        return None, declared if isinstance(declared, str) else None
    asked: object = own
    if isinstance(own, Mapping):
        given = cast("Mapping[str, object]", own)
        asked = given.get("tier", given or None)
    return None if asked is None else str(asked), declared if isinstance(declared, str) else None
