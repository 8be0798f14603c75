"""Guards look at what is known about a step and may object to a cheap tier."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MappingProxyType, SimpleNamespace
from typing import Any, Final, Protocol, cast, runtime_checkable

from routed_agents.classify import Classification
from routed_agents.errors import PolicyError
from routed_agents.features import GLIMPSE, Features
from routed_agents.phrases import PhraseTable, lexicon
from routed_agents.questions import Opinion
from routed_agents.state import SCOPES, Pin, Scope
from routed_agents.steps import label_text, said_of
from routed_agents.taxonomy import TaskClass
from routed_agents.tiers import Tiers, card

TOP: Final = 1_000_000
"""A floor no tier is above: the highest there is, however many there are."""

STALLED: Final = "stalled"
"""The code of the stop where the top tier gets nowhere."""

DISTRESS: Final = "distress"
"""The fact that a person in this thread is in distress, complains, threatens or mourns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A guard's objection to the proposed tier."""

    guard: str
    code: str  # "long_context"; recorded
    evidence: str = ""  # for a person; may quote content, so it is not recorded by default
    floor: int = 0  # no cheaper than this rank
    cap: int | None = None
    hard: bool = False  # a hard cap below a floor stops the step; a soft one yields
    pin: Scope | None = None
    stop: bool = False
    facts: tuple[str, ...] = ()  # true of the whole thread from now on

    @property
    def objects(self) -> bool:
        """It moves the tier, and doesn't only note a fact."""
        return self.floor > 0 or self.cap is not None or self.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What changes with the moment and comes into a decision from outside.

    Attributes:
        unavailable: names of tiers, deployments or models that cannot be called now; one that is both a tier's and a deployment's of that
            tier means the deployment.
        latency_s: seconds to the first token by model, as measured; the shipped figures stand in where it is silent.
        now_s: seconds since 1970; dates pins, and decides nothing.
        deadline_s: seconds left for this step; the step's own deadline counts too, the shorter one holds.
        unusable: tiers that lack something the step needs, with what they lack, as the integration knows it.
        opinion: what a judge that was asked says about the step; heard only by a policy whose classifier has a judge.
    """

    unavailable: frozenset[str] = frozenset()
    latency_s: Mapping[str, float] = field(default_factory=dict[str, float])
    now_s: int = 0
    deadline_s: float | None = None
    unusable: Mapping[str, str] = field(default_factory=dict[str, str])
    opinion: Opinion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """All that is known about a step when the guards look at it.

    Attributes:
        facts: what holds in the thread.
        told: names that the thread's state tells of, also where they hold no longer; the history has no say about these.
    """

    features: Features
    classification: Classification
    row: TaskClass
    tiers: Tiers
    pins: tuple[Pin, ...]
    facts: frozenset[str]
    conditions: Conditions
    proposed: int
    told: frozenset[str] = frozenset()

    @property
    def person_facing(self) -> bool:
        """The person who asked reads the answer."""
        return self.row.person_facing or bool(REPLY_TO_PERSON.first(self.features.spoken) or REPLY_TO_PERSON.first(self.features.system))

    @property
    def doubtful(self) -> bool:
        """Nobody said what the step is, and its words leave room for one that must go strong."""
        told = self.classification
        return not (told.declared or told.judged) and told.p_strong >= DOUBT


@runtime_checkable
class Guard(Protocol):
    """A rule: a pure function of what is known. Give a function a name and a version with `named`."""

    def __call__(self, seen: Assessment, /) -> Verdict | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A function guard with the name and version that make it hashable."""

    name: str
    version: str
    rule: Callable[[Assessment], Verdict | None] = field(compare=False)

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        return self.rule(seen)


def named(name: str, *, version: str) -> Callable[[Callable[[Assessment], Verdict | None]], Named]:
    """Make a plain function a guard: its name and version enter the policy's hash, so change the version with the rule."""
    return lambda rule: Named(name=name, version=version, rule=rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFloor:
    """An unconditional floor of the policy file: by node, label or metadata flag, with no classifier involved.

    All that is given must hold, by what any source says: metadata, the run's context, or a tag. A value of a step is compared by what it
    says, for a label may come as text: `vulnerable = true` asks for true or "true", and so does `"true"`; `level = 3` for 3, 3.0 or "3.0".

    Attributes:
        tier: no cheaper than this one.
        node: the node that decides the step.
        metadata: pairs of a key and its value; their order means nothing.
        task_class: the key of a class, or its number, for which a policy puts the key.
        code: the reason to record.
        pin: how long the floor outlives its step.

    Raises:
        PolicyError: a part is something else, so the floor would never hold.
    """

    tier: str
    node: str | None = None
    metadata: tuple[tuple[str, str | int | float | bool], ...] = ()
    task_class: str | int | None = None
    code: str = "policy_floor"
    pin: Scope | None = None

    def __post_init__(self) -> None:
        for name, fits, wanted in FLOOR_PARTS:
            value = getattr(self, name)
            if not fits(value):
                raise PolicyError(f"floor: {name} is {value!r}; wanted {wanted}")
        object.__setattr__(self, "metadata", tuple(sorted([(key, value) for key, value in self.metadata], key=_in_order)))

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        features = seen.features
        if self.node is not None and features.node != self.node:
            return None
        if self.task_class is not None and seen.row.key != self.task_class:
            return None
        if not all(any(_says(given, value) for given in said_of(features.flags, key)) for key, value in self.metadata):
            return None
        given = ", ".join([f"node {self.node}"] * bool(self.node) + [f"{key} = {value}" for key, value in self.metadata])
        return Verdict(guard="policy_floor", code=self.code, evidence=given, floor=seen.tiers.named(self.tier).rank, pin=self.pin)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_pairs(value: object) -> bool:
    if not isinstance(value, (tuple, list)):
        return False
    return all(map(_is_pair, cast("Sequence[Any]", value)))


def _is_pair(given: Any) -> bool:
    if not isinstance(given, (tuple, list)):
        return False
    pair = cast("Sequence[Any]", given)
    return len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], (str, int, float))


def _in_order(pair: tuple[str, object]) -> tuple[str, str]:
    return pair[0], _written(pair[1])


FLOOR_PARTS: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("tier", _is_text, "the name of a tier"),
    ("node", lambda value: value is None or _is_text(value), "the name of a node, or None"),
    ("metadata", _are_pairs, 'pairs of a key and a text, number, True or False, like (("vulnerable", True),)'),
    ("task_class", lambda value: value is None or _is_text(value) or type(value) is int, "the key or number of a task class, or None"),
    ("code", _is_text, "a reason code, like the default policy_floor"),
    ("pin", lambda value: value is None or value in SCOPES, f"one of {', '.join(SCOPES)}, or None"),
)
"""What each part of a floor must be, and how that is said."""
BOOLEANS: Final[Mapping[str, bool]] = MappingProxyType({"true": True, "false": False})
"""What a floor's text may mean beside itself: a floor can only raise, so it is read generously."""


def _says(given: object, asked: str | int | float | bool) -> bool:
    """Whether a step's value is the one a floor asks for, or its text."""
    asked = BOOLEANS.get(asked.lower(), asked) if isinstance(asked, str) else asked
    if given == asked:
        return True
    text = label_text(given)
    if text is None:
        return False
    if isinstance(asked, bool):
        return text.lower() == str(asked).lower()
    if isinstance(asked, str) and isinstance(given, str):
        return text == asked
    return text == str(asked) or _number(text) == _number(str(asked)) is not None


def _number(text: str) -> Decimal | None:
    """The number that a text is, if it is one."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedTier:
    """Holds a step on the tier its author asked for: a floor and a cap at once, so a higher floor still wins."""

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        forced = seen.features.forced
        if forced is None:
            return None
        known = next((tier.rank for tier in seen.tiers if tier.name == forced), None)
        if known is None:
            return Verdict(guard="forced_tier", code="forced_tier_unknown", evidence=f'no tier is named "{forced}"', floor=TOP)
        return Verdict(guard="forced_tier", code="forced_tier", evidence=f'"{forced}" was asked for', floor=known, cap=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongContext:
    """Escalates when the context is long enough for a small model to lose the thread.

    The limit is the seed article's ("long-context synthesis, over 50k tokens"); it is held against the upper bound of the estimate.
    A document counts as its text, a file as what it comes to at most, and one known by its id or address alone as the longest there is.
    """

    limit: int = 50_000
    synthesis: int = 20_000  # tokens from which an instruction to work across documents is enough

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        tokens = seen.features.tokens
        if tokens > self.synthesis and not seen.classification.declared and tokens <= self.limit:
            found = SYNTHESIS.first(seen.features.spoken) or SYNTHESIS.first(seen.features.system)
            if found:
                evidence = f'"{found}" over up to {tokens:,} tokens'
                return Verdict(guard="long_context", code="long_synthesis", evidence=evidence, floor=TOP, pin="turn")
        if tokens <= self.limit:
            return None
        return Verdict(
            guard="long_context", code="long_context", evidence=f"up to {tokens:,} tokens, over {self.limit:,}", floor=TOP, pin="turn"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgenticChain:
    """Escalates a step of a multi-step chain, where a wrong step corrupts all that follow.

    An open tool loop is no chain yet: real cheap steps call tools. Where one stalls, `Stall` objects.
    """

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        if seen.row.key != "agentic_chain":
            return None
        return Verdict(guard="agentic_chain", code="agentic_chain", evidence="a step of a multi-step chain", floor=TOP, pin="turn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compounding:
    """Escalates a step whose being cheap costs too much of what hangs on its answer.

    The loss is what the cheap tier takes from the chance that the whole workflow succeeds::

        loss = (p_strong - p_cheap) x remaining ** downstream

    p_strong and p_cheap are the success rates of this step's class in the taxonomy, `downstream` counts the model steps that hang on its
    answer, and each of those is taken to succeed at the rate `remaining`. The step escalates where the loss is above the tolerance.
    Silent where a rate is not known, where nothing hangs on the step, and where nobody can say how much does.

    In a loop nobody can: a step may be the last one, or have hundreds behind it. A loop alone is no evidence (graders and agents with tools
    go round in circles and are right to), and one that gets nowhere is `Stall`'s. So the guard is silent there as well, unless `in_loop`
    says how many steps to reckon with. With 1 the loss is the most it can be where any step hangs on this one, since each further one
    makes it smaller: classes with a gap over about five points then go strong in every loop, graders and triage stay cheap.

    Limits. The steps count as independent, which overstates the harm: failures cluster, and where the cheap tier fails on a hard input
    the rest would often have failed as well. The loss shrinks along a long chain, because a workflow that rarely succeeds has little to
    lose: this is no measure of work wasted. The classes of the remaining steps are not known here, so one rate stands for all of them.
    The rates are assumptions of the taxonomy (their source and date are in `taxonomy.toml`); measured ones belong into the policy file.

    Attributes:
        tolerance: percent points of the workflow's success that may be lost.
        remaining: percent of the steps that hang on this one that succeed; the taxonomy's median p_strong.
        in_loop: model steps to reckon with behind a step in a loop; None for silence.
    """

    tolerance: int = field(default=5, metadata={"ge": 0, "le": 100})
    remaining: int = field(default=94, metadata={"ge": 0, "le": 100})
    in_loop: int | None = None

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        cheap, strong, downstream = seen.row.p_cheap, seen.row.p_strong, seen.features.downstream
        if downstream is None and seen.features.in_loop:
            downstream = self.in_loop
        if cheap is None or strong is None or downstream is None or downstream < 1:
            return None
        loss = (strong - cheap) * _power(self.remaining, downstream)  # percent points, in billionths
        if loss <= self.tolerance * BILLION:
            return None
        evidence = (
            f"loss {loss // 10_000_000 / 100:.2f} percent points = ({strong} - {cheap}) x {self.remaining} % ^ {downstream}, "
            f"over {self.tolerance}"
        )
        return Verdict(guard="compounding", code="compounding", evidence=evidence, floor=TOP)


BILLION: Final = 1_000_000_000


def _power(percent: int, exponent: int) -> int:
    """A share to a power, in billionths, by integers alone: the same on every platform, and quick for any exponent."""
    result, factor = BILLION, min(percent, 100) * (BILLION // 100)
    while exponent:
        if exponent & 1:
            result = result * factor // BILLION
        factor = factor * factor // BILLION
        exponent >>= 1
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Escalates once, and pins the turn, where a step gets nowhere; and stops where the strong tier gets nowhere either.

    Signals are failures we know of: answers the checks rejected (as the turn's stamps say, or as `answer_failures` in the step's
    metadata declares), tool results that fail in a row, the same tool call again, and a person who repeats or corrects what they said.
    Provider trouble is none of them: it is failover. After `max_repeats` more of the same on the strong tier the step stops (code
    `stalled`), for a loop there is up to 40 times dearer. What a person says never stops a step, and neither does a reply without a
    stamp, whose tier nobody knows.

    Attributes:
        failures: rejected answers in a turn that are a signal.
        errors: failed tool results in a row that are one.
        repeats: times the same call was made before that are one.
        max_repeats: times a signal may go on at the strong tier before the step stops; at least 1.
    """

    failures: int = 1
    errors: int = 2
    repeats: int = 2
    max_repeats: int = 3

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        features = seen.features
        rejected = sum([stamp.rejected for stamp in features.stamps]) + _declared_failures(features)
        if rejected or features.tool_errors or features.repeats:
            verdict = self._known_failures(seen, rejected)
            if verdict is not None:
                return verdict
        if seen.row.key in LABELS or not features.before:
            return None
        if words := CORRECTIONS.first(features.latest[:CORRECTED_WITHIN].replace("’", "'")):
            return Verdict(guard="stall", code="user_corrects", evidence=f'"{words}"', floor=TOP, pin="turn")
        if _said_again(features):
            return Verdict(guard="stall", code="user_repeats", evidence="the same words as before", floor=TOP, pin="turn")
        return None

    def _known_failures(self, seen: Assessment, rejected: int) -> Verdict | None:
        features = seen.features
        strong = [stamp for stamp in features.stamps if seen.tiers.rank_of_pin(stamp.tier) >= seen.tiers.top]
        signals = (
            ("answer_failures", rejected, self.failures, sum(stamp.rejected for stamp in strong), f"{rejected} rejected answers"),
            (
                "tool_errors",
                features.tool_errors,
                self.errors,
                sum(stamp.failed for stamp in strong),
                f"{features.tool_errors} failed tool results in a row",
            ),
            (
                "repeated_tool_call",
                features.repeats,
                self.repeats,
                sum(stamp.repeated for stamp in strong),
                f"the same tool call {features.repeats + 1} times",
            ),
        )
        found = [signal for signal in signals if signal[1] >= max(signal[2], 1)]
        for _, count, limit, at_top, evidence in found:
            if min(count - limit, at_top) >= max(self.max_repeats, 1):
                return Verdict(guard="stall", code=STALLED, evidence=f"{evidence}, {at_top} at the top tier", floor=TOP, stop=True)
        if found:
            return Verdict(guard="stall", code=found[0][0], evidence=found[0][4], floor=TOP, pin="turn")
        return None


def _declared_failures(features: Features) -> int:
    """Answer failures the step's author declares, as a node does that tries again: a number, or true for one."""
    declared = features.flags.get("answer_failures")
    return max(int(declared), 0) if isinstance(declared, int) else 0


def _said_again(features: Features) -> bool:
    """Whether a person says what was said shortly before, word for word, if with a few words in front of it.

    Short messages ("go on, please") and long ones, of which only the beginning is known, don't count.
    """
    whole = [text for _, text in features.before[:SAID_AMONG] if len(text) < GLIMPSE]
    if not whole or features.quoted or len(features.latest) >= GLIMPSE or len(now := _letters(features.latest)) < SAID_AGAIN:
        return False
    for earlier in whole:
        before = _letters(earlier)
        if len(before) >= SAID_AGAIN and now.endswith(before) and len(now) - len(before) <= SAID_AGAIN:
            return True
    return False


def _letters(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Debugging:
    """Escalates debugging and refactoring the instruction asks for outright, where the classifier saw something lighter.

    Only an instruction counts (`fix the race`, `make the tests pass`), and only where the classifier does not rule it out: a label for a
    bug report, or its summary, names the same things.
    """

    least: float = 0.1

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        if seen.classification.declared or seen.classification.p_strong < self.least:
            return None
        found = DEBUGGING.first(seen.features.spoken) or DEBUGGING.first(seen.features.system)
        return Verdict(guard="debugging", code="debugging", evidence=f'"{found}"', floor=TOP) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Empathy:
    """Escalates the answer to a person in distress, and tells the thread.

    A label *about* an unhappy person is cheap work; the reply *to* that person is not. So the words alone only note the fact
    `distress`, and the fact raises every step whose answer a person reads, or may read for all that its words tell (`DOUBT`), in any node
    of the thread. Of a thread nobody keeps the state
    of, what persons said earlier in the history tells the same. Who writes in their own words that they want to die is not left to the
    cheap tier, whatever is asked besides.
    """

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        features = seen.features
        own = _own_words(features.spoken) if seen.row.key in DOCUMENT_CLASSES else features.spoken
        kind, found = distress_in(own)
        in_danger = kind == SELF_HARM and distress_in((_LABELLED if seen.row.key in LABELS else _SAID).sub(" ", own))[0] == SELF_HARM
        quoted_kind, quoted = ("", "") if found else distress_in(features.quoted)
        known = DISTRESS in seen.facts
        earlier_kind, earlier = ("", "") if found or known or DISTRESS in seen.told else _distress_in_any(features.earlier)
        if not (found or quoted or known or earlier):
            return None
        facing = seen.person_facing or seen.doubtful
        if quoted and ((facing and (seen.row.key not in DOCUMENT_CLASSES or _is_a_life(seen, quoted_kind))) or seen.row.key in LABELS):
            kind, found = quoted_kind, quoted
        elif earlier and facing:
            kind, found = earlier_kind, earlier
        facts = (DISTRESS,) if found else ()
        if in_danger or (facing and (found or known)):
            evidence = f'{kind}: "{found}"' if found else "the thread already holds a person in distress"
            return Verdict(guard="empathy", code="empathy", evidence=evidence, floor=TOP, pin="turn", facts=facts)
        if found:
            return Verdict(guard="empathy", code="distress_noted", evidence=f'{kind}: "{found}"', facts=facts)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LowConfidence:
    """Escalates when nobody can tell what kind of step this is: no class stands out, or the words are none the classifier knows."""

    limit: float = field(default=0.2, metadata={"ge": 0, "le": 1})

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        confidence = seen.classification.confidence
        if seen.classification.declared or confidence >= self.limit:
            return None
        return Verdict(guard="low_confidence", code="unsure", evidence=f"confidence {confidence:.2f}, under {self.limit:.2f}", floor=TOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Caps the tier at one that starts to answer in time; soft, so it yields to every floor and pin."""

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        given = [each for each in (seen.features.deadline_s, seen.conditions.deadline_s) if each is not None]
        if not given:
            return None
        left = min(given)
        in_time = [tier.rank for tier in seen.tiers if (wait := self._wait_s(tier.model, seen.conditions)) is None or wait <= left]
        cap = max(in_time, default=0)
        if cap >= seen.tiers.top:
            return None
        return Verdict(guard="deadline", code="deadline", evidence=f"{left:g} s left", cap=cap)

    @staticmethod
    def _wait_s(model: str, conditions: Conditions) -> float | None:
        return conditions.latency_s.get(model, card(model).first_token_s)


DEFAULT: Final[tuple[Guard, ...]] = (
    ForcedTier(),
    LongContext(),
    AgenticChain(),
    Compounding(),
    Stall(),
    Debugging(),
    Empathy(),
    LowConfidence(),
    Deadline(),
)
BY_NAME: Final[Mapping[str, type[Any]]] = {
    "forced_tier": ForcedTier,
    "long_context": LongContext,
    "agentic_chain": AgenticChain,
    "compounding": Compounding,
    "stall": Stall,
    "debugging": Debugging,
    "empathy": Empathy,
    "low_confidence": LowConfidence,
    "deadline": Deadline,
}


def identity(rule: object) -> str:
    """What stands for a rule in the policy's hash: its name, version and settings. A rule of one's own is named with its module.

    Raises:
        PolicyError: it is a bare function, which has neither, or a setting has no form that every process shares and no version speaks
            for it.
    """
    if isinstance(rule, Named):
        return f"{rule.name}@{rule.version}"
    if is_dataclass(rule) and not isinstance(rule, type):
        settings = ", ".join([f'"{name}": {_setting(rule, name)}' for name in sorted(_settings_of(rule))])
        return f"{_called(type(rule))}({{{settings}}})@{getattr(rule, 'version', 1)}"
    name, version = getattr(rule, "name", None), getattr(rule, "version", None)
    if isinstance(name, str) and version is not None:
        return f"{name}@{version}"
    shown = getattr(rule, "__qualname__", type(rule).__qualname__)
    raise PolicyError(
        f'rule {shown} has no name and version, so its decisions could not be replayed; wrap it: named("…", version="1")(rule)'
    )


def _settings_of(thing: Any) -> dict[str, object]:
    """The fields of a dataclass, less those that it neither shows nor compares, like a cache."""
    return {each.name: getattr(thing, each.name) for each in fields(thing) if each.compare or each.repr}


def _setting(rule: object, name: str) -> str:
    """A setting as every process writes it; where it cannot be written so, its type, if the rule has a version to speak for it."""
    value: object = getattr(rule, name)
    try:
        return _written(value)
    except (TypeError, ValueError) as error:
        if getattr(rule, "version", None) is not None:
            return json.dumps(_called(type(value)))
        todo = 'give the rule a version that changes with it, or wrap the rule: named("…", version="1")(rule)'
        raise PolicyError(f'setting "{name}" of rule {_called(type(rule))} is no plain value ({error}); {todo}') from None


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_canonical)


def _canonical(value: object) -> object:
    """Sets in order, functions by name, other values by their parts or in full, so that every process writes them alike.

    Raises:
        TypeError: nobody can tell what makes a value of its kind.
    """
    if isinstance(value, (set, frozenset)):
        return sorted(map(_written, cast("frozenset[object]", value)))
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, re.Pattern):
        pattern = cast("re.Pattern[str]", value)
        return [pattern.pattern, pattern.flags]
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)) and value.__module__ and not UNNAMED.search(value.__qualname__):
        return _called(value)
    parts = _parts_of(value)
    if parts is not None:
        return {_called(type(value)): parts}
    shown = repr(cast("object", value))
    if not _shows_all(value) or ADDRESS.search(shown):
        line = " ".join(shown.split())
        raise TypeError(line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}…")
    return shown


def _parts_of(value: Any) -> object:
    """What makes a value of its kind; None where that is not known."""
    if isinstance(value, Enum):
        return [value.name, cast("object", value.value)]
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        return _settings_of(value)
    if isinstance(value, SimpleNamespace):
        return vars(value)
    if hasattr(kind := cast("Any", type(value)), "__pydantic_fields__"):
        known = [{name: getattr(value, name) for name in kind.__pydantic_fields__}, value.__pydantic_extra__, value.__pydantic_private__]
        return [part for part in known if part]
    if kind.__module__ == "numpy" and hasattr(value, "tobytes") and value.dtype.kind in ARRAYS and not value.dtype.hasobject:
        return [value.dtype.descr, value.shape, hashlib.blake2b(value.tobytes()).hexdigest()]
    return None


def _shows_all(value: object) -> bool:
    """Whether the representation of a value tells it from all others."""
    return isinstance(value, (bytes, bytearray, complex, range)) or type(value).__module__.partition(".")[0] in EXACT


def _called(thing: type | FunctionType | BuiltinFunctionType) -> str:
    """The name of a class or function, with its module unless it is the package's own; a script's is the same in its worker processes."""
    module = "__main__" if thing.__module__ == "__mp_main__" else thing.__module__
    return thing.__qualname__ if module.partition(".")[0] == PACKAGE else f"{module}.{thing.__qualname__}"


PACKAGE: Final = __name__.partition(".")[0]
UNNAMED: Final = re.compile("<lambda>|<locals>")
"""Marks the name of a function that others may bear as well."""
ADDRESS: Final = re.compile(r"\bat 0x[0-9A-Fa-f]+")
"""Where an object is in the memory of this process."""
LONGEST_SHOWN: Final = 120
EXACT: Final = frozenset({"array", "datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
"""Modules of the standard library whose values represent themselves in full."""
ARRAYS: Final = frozenset("biufcmMSUV")
"""Kinds of numpy's numbers, times and texts whose bytes are all there is of them."""
REPLY_TO_PERSON: Final = PhraseTable([(None, phrase) for phrase in lexicon()["reply_to_person"]["any"]])
"""Instructions to answer somebody in person."""
PLEAS: Final = PhraseTable([(str(row["kind"]), phrase) for row in lexicon()["distress"] for phrase in row["any"]])
"""What people in distress say, by kind: loss, self-harm, exhaustion, threat, complaint."""
SELF_HARM: Final = "self_harm"
"""The kind that is heard before all others."""
_SAID: Final = re.compile(r"\"[^\"\n]{1,200}\"|(?<!\w)'(?:[^'\n]|(?<=\w)'(?=\w)){1,200}'(?!\w)|\u300c[^\u300d]{1,200}\u300d")
"""Words between quotation marks, however few, are not the person's own."""
_LABELLED: Final = re.compile(rf"{_SAID.pattern}|^\w[\w ]{{0,30}} ?:\s.*", re.MULTILINE | re.DOTALL)
"""Where a label is wanted, what follows a few words and a colon is what is to be labelled."""

DEBUGGING: Final = PhraseTable([(None, phrase) for row in lexicon()["debugging"] for phrase in row["any"]])
"""Instructions to find or mend a defect, or to rebuild code."""
SYNTHESIS: Final = PhraseTable([(None, phrase) for row in lexicon()["synthesis"] for phrase in row["any"]])
"""Instructions to work across documents."""
CORRECTIONS: Final = PhraseTable([(None, phrase) for row in lexicon()["correction"] for phrase in row["any"]])
"""What people say who were not understood, or who put right what they said."""
CORRECTED_WITHIN: Final = 160
"""Characters at the start of a message in which a correction is looked for; further in, people tell of other things."""
SAID_AGAIN: Final = 20
"""Letters from which saying the same again means something, and at most so many may come before it."""
SAID_AMONG: Final = 4
"""Messages before the last one among which the same is looked for."""
DOUBT: Final = 0.2
"""p_strong from which a step with a person in distress in it is taken for an answer to that person, unless somebody said what it is."""
LABELS: Final = frozenset({"classification", "extraction"})
"""Classes that label what a person said; a label about a correction is cheap work."""
DOCUMENT_CLASSES: Final = frozenset({"rag_lookup", "summarization", "knowledge_qa"})
"""Classes whose message may hold a whole document, which is not the person's own plea."""
OWN_WORDS: Final = 400
"""Characters at the start and at the end of a long message that are taken for the person's own."""


def _is_a_life(seen: Assessment, kind: str) -> bool:
    """A wish to die in marked material that an answer goes to: of a document it is seldom, and of a message in tags it is somebody's."""
    return kind == SELF_HARM and seen.row.key != "summarization"


def _own_words(text: str) -> str:
    return text if len(text) <= 2 * OWN_WORDS else f"{text[:OWN_WORDS]}\n{text[-OWN_WORDS:]}"


@lru_cache(maxsize=1024)  # what was said earlier is said earlier at every later step too
def _distress_in_earlier(text: str) -> tuple[str, str]:
    return distress_in(_own_words(text))


def _distress_in_any(texts: Iterable[str]) -> tuple[str, str]:
    return next((found for found in map(_distress_in_earlier, texts) if found[1]), ("", ""))


def distress_in(text: str) -> tuple[str, str]:
    """The kind and the words of a person's distress, mourning, complaint or threat; empty where there are none."""
    if not text:
        return "", ""
    first = "", ""
    for kind, _, match in PLEAS.find(text):
        if kind == SELF_HARM:
            return kind, match
        first = first if first[0] else (kind, match)
    return first
