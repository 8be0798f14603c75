"""A policy holds every rule of routing as one immutable value, and decides."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

from routed_agents import checks as checks_module
from routed_agents import guards as guards_module
from routed_agents.checks import Check
from routed_agents.classify import Classification, Classifier, LinearClassifier
from routed_agents.decisions import Decision, Settlement, settle, widest
from routed_agents.errors import PolicyError, StepError
from routed_agents.features import Features, extract
from routed_agents.guards import TOP, Assessment, Conditions, Guard, PolicyFloor, Verdict, identity
from routed_agents.judged_classes import DOUBTS, JudgedClassifier
from routed_agents.judged_replies import KNOWN, Judge
from routed_agents.questions import Opinion
from routed_agents.state import EMPTY, MICRO, SCOPES, Mark, Pin, Scope, ThreadState, Turn, kind_of
from routed_agents.steps import Step, check_step
from routed_agents.taxonomy import TaskClass, Taxonomy
from routed_agents.tiers import Deployment, Tier, Tiers, card

Rule = TypeVar("Rule")
Stance = Literal["frugal", "balanced", "conservative"]
Mode = Literal["enforce", "shadow", "off"]
STANCES: Final[tuple[Stance, ...]] = ("frugal", "balanced", "conservative")
MODES: Final[tuple[Mode, ...]] = ("enforce", "shadow", "off")
LABELS: Final = ("tenant", "agent", "team")
"""Metadata keys that are labels where a policy names none."""
THRESHOLDS: Final[Mapping[Stance, Mapping[str, float]]] = {
    # p_strong from which a step is sent to the top tier. For `partial` and `escalate_often` classes this is where a class has no share
    # of its own in the taxonomy; for `route` classes it is the point from which nobody can be sure that the step is of its cheap class.
    "frugal": {"route": 0.65, "partial": 0.9, "escalate_often": 0.95},
    "balanced": {"route": 0.5, "partial": 0.5, "escalate_often": 0.95},
    "conservative": {"route": 0.5, "partial": 0.4, "escalate_often": 0.0},
}
SHARES: Final[Mapping[Stance, float]] = {"frugal": 0.5, "balanced": 1.0, "conservative": 1.2}
"""How the taxonomy's shares (conversation 14 %, knowledge 54 %, math 65 %: RouteLLM, at 95 % of the strong quality) are stretched."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Tiers, taxonomy, classifier, guards, checks and thresholds; equal policies have equal hashes and decide alike.

    Attributes:
        stance: how `partial` and `escalate_often` classes are proposed.
        mode: `enforce` acts on decisions; `shadow` decides, records and acts on the top tier; `off` acts on the top tier.
        guards: rules about steps; their order means nothing.
        floors: unconditional floors of the policy file.
        checks: rules about replies.
        thresholds: p_strong by class key, over the stance's own.
        labels: metadata keys that become labels of spans and ledger entries.
        expiry: turns of the thread after which a fact, or a lineage or thread pin, lapses, by the fact's name or the pin's code: with 0 it
            holds in the turn in which it was last noted, with 1 in the next one too. What is not named holds until it is released.
        trusted: metadata keys that may also lower a tier (`task_class`, `routed_agents`); everything else can only raise it.
        on_stop: what a stop becomes: `raise`, `end`, `interrupt`, or the name of a graph node. Outside a graph, in a thread that lost the
            run's context, where no graph around has a node to end at or the one that is named, it is raised; so it is after an interrupt
            that nobody answers.
        capture_evidence: record what guards saw, which may quote a person.
    """

    tiers: Tiers
    taxonomy: Taxonomy = field(default_factory=Taxonomy.default)
    classifier: Classifier = field(default_factory=LinearClassifier)
    guards: tuple[Guard, ...] = guards_module.DEFAULT
    floors: tuple[PolicyFloor, ...] = ()
    checks: tuple[Check, ...] = checks_module.DEFAULT
    stance: Stance = "balanced"
    mode: Mode = "enforce"
    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    expiry: Mapping[str, int] = field(default_factory=dict[str, int])
    labels: tuple[str, ...] = LABELS
    trusted: tuple[str, ...] = ("task_class", "routed_agents")
    on_stop: str = "raise"
    capture_evidence: bool = False

    def __post_init__(self) -> None:
        for name in ("guards", "floors", "checks", "labels", "trusted"):
            if _is_list(given := getattr(self, name)):
                object.__setattr__(self, name, tuple(given))
        self._check_kinds()
        if self.stance not in STANCES:
            raise PolicyError(f"unknown stance {self.stance!r}; known stances: {', '.join(STANCES)}")
        if self.mode not in MODES:
            raise PolicyError(f"unknown mode {self.mode!r}; known modes: {', '.join(MODES)}")
        object.__setattr__(self, "floors", tuple(map(self._held, self.floors)))
        object.__setattr__(self, "guards", tuple(map(self._held, self.guards)))
        object.__setattr__(self, "thresholds", self._by_key())
        for name, turns in self.expiry.items():
            if not _is_rank(turns):
                raise PolicyError(f'expiry of "{name}" is {turns!r}; wanted a number of turns, 0 or more')
        for judge in self.judges:
            self._can_judge(judge)
        self.hash  # noqa: B018  a rule that cannot be hashed fails here, not in the middle of a workflow

    def _check_kinds(self) -> None:
        """Hold every part against what it must be: a policy made in a program gets no less of a look than a policy file.

        Raises:
            PolicyError: a part is something else.
        """
        for name, fits, wanted in PARTS:
            value = getattr(self, name)
            if not fits(value):
                raise PolicyError(f"{name} is {_shortened(repr(value))}; wanted {wanted}")

    def _held(self, rule: Rule) -> Rule:
        """A rule as it is; of a floor, one whose tier and class are this policy's, by key.

        Raises:
            PolicyError: there is no such tier or class.
        """
        if not isinstance(rule, PolicyFloor):
            return rule
        self.tiers.named(rule.tier)
        if rule.task_class is None or (key := self.taxonomy.row(rule.task_class).key) == rule.task_class:
            return rule
        return replace(rule, task_class=key)

    def _by_key(self) -> dict[str, float]:
        """The thresholds by class key.

        Raises:
            PolicyError: one is no share, is never read, or stands beside another of its class.
        """
        found: dict[str, float] = {}
        for name, share in self.thresholds.items():
            row = self.taxonomy.row(name)
            if not _is_share(share):
                raise PolicyError(f'threshold of "{row.key}" is {share!r}; wanted a p_strong, from 0 to 1')
            if row.disposition == "escalate":
                raise PolicyError(f'the threshold of "{row.key}" is never read: the class always escalates; remove it')
            if row.key in found:
                raise PolicyError(f'"{row.key}" has two thresholds; keep one')
            found[row.key] = share
        return found

    @classmethod
    def default(cls, *, tiers: str | Tiers = "claude", stance: Stance = "balanced", mode: Mode = "enforce") -> Policy:
        """The shipped policy over a preset of tiers or your own."""
        return cls(tiers=Tiers.preset_named(tiers) if isinstance(tiers, str) else tiers, stance=stance, mode=mode)

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy file; a wrong one fails here, with its line, its key, what was seen and what is known.

        Raises:
            PolicyError: the file cannot be read or says something that cannot be meant.
        """
        if not isinstance(cast("object", path), (str, Path)):
            raise PolicyError(f"policy file is {_shortened(repr(path))}; wanted the path of a TOML file")
        from routed_agents.config import read_policy

        return cls(**read_policy(Path(path)))

    @classmethod
    def named(cls, name: str | Path) -> Policy:
        """The policy in a file, or the shipped one over a preset of tiers: "policy.toml", "claude".

        Raises:
            PolicyError: the file or the preset cannot be used, or the name is that of both.
        """
        path = Path(name)
        if isinstance(name, Path) or path.suffix == ".toml" or len(path.parts) > 1:
            return cls.load(path)
        is_file = os.path.isfile(name)  # a text that can be no path is no file; Path.is_file raises
        try:
            shipped = cls.default(tiers=name)
        except PolicyError as unknown:
            if is_file:
                return cls.load(path)
            raise PolicyError(f"{unknown}; nor is there a policy file of that name") from None
        if is_file:
            both = f"{name!r} is a tier preset and the name of a file here"
            raise PolicyError(f"{both}; say './{name}' for the file, or give Policy.default(tiers={name!r}) for the preset")
        return shipped

    def replace(self, **changes: Any) -> Policy:
        """A copy with some parts changed.

        Raises:
            PolicyError: a part doesn't exist, or the new value cannot be meant.
        """
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        if unknown := [name for name in changes if name not in known]:
            raise PolicyError(f"unknown part of a policy: {', '.join(unknown)}; known parts: {', '.join(known)}")
        return Policy(**{**known, **changes})

    def narrowed(self, names: Iterable[str]) -> Policy:
        """The policy over some of its tiers: floors at one left out rise to the next that is there, and no judge judges its replies.

        Raises:
            PolicyError: a name is unknown, or the top tier is left out.
        """
        tiers = self.tiers.narrowed(names)
        above = {
            tier.name: next(each.name for each in self.tiers if each.rank >= tier.rank and each.name in tiers.names) for tier in self.tiers
        }
        guards, floors = [
            [replace(rule, tier=above[rule.tier]) if isinstance(rule, PolicyFloor) else rule for rule in rules]
            for rules in (self.guards, self.floors)
        ]
        checks = [each for check in self.checks if (each := _kept(check, tiers)) is not None]
        return self.replace(tiers=tiers, guards=guards, floors=floors, checks=checks)

    @cached_property
    def hash(self) -> str:
        """Names the policy by what it decides: the same step, state, conditions and hash give the same decision anywhere.

        The mode and what happens after a stop don't enter: a policy watched in shadow is the one that is later enforced. Labels do where
        a rule may ask for them.
        """
        document = {
            "tiers": [
                [tier.name, [[each.name, each.model, each.provider, each.priced_as] for each in tier.deployments]] for tier in self.tiers
            ],
            "preset": self.tiers.preset,
            "taxonomy": [[getattr(row, each.name) for each in fields(TaskClass)] for row in self.taxonomy],
            "classifier": identity(self.classifier),
            "guards": sorted({identity(rule) for rule in (*self.guards, *self.floors)}),
            "checks": sorted({identity(rule) for rule in self.checks}),
            "stance": [self.stance, sorted(THRESHOLDS[self.stance].items()), SHARES[self.stance]],
            "thresholds": sorted([(key, float(value)) for key, value in self.thresholds.items()]),
            "trusted": sorted(self.trusted),
            **({"expiry": sorted(self.expiry.items())} if self.expiry else {}),
            **({"labels": labels} if (labels := self._labels_asked_for()) else {}),
        }
        return hashlib.blake2b(json.dumps(document, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()

    def _labels_asked_for(self) -> list[str]:
        """Where these labels and the shipped ones differ in what a rule may ask for: tags and a run's context tell it of labels only."""
        others = set(self.labels) ^ set(LABELS)
        rules = (*self.guards, *self.checks, getattr(self.classifier, "inner", self.classifier))
        floors = [rule for rule in self._rules if isinstance(rule, PolicyFloor)]
        if all(type(rule) in SHIPPED for rule in rules):
            others &= {key for floor in floors for key, _ in floor.metadata}
        return sorted(others)

    @cached_property
    def _rules(self) -> tuple[Guard, ...]:
        return (*self.floors, *self.guards)

    def decide(
        self,
        step: Step,
        state: ThreadState | None = None,
        conditions: Conditions | None = None,
        *,
        key: str | None = None,
    ) -> Decision:
        """Decide which tier a step gets. Pure: no clock, network or randomness; nothing here raises because of a rule.

        Args:
            step: the call about to be made.
            state: pins and facts of its thread.
            conditions: what changes with the moment.
            key: the lineage the step belongs to; its node when not given.
        """
        features, trouble = _measured(step)
        return self.decide_features(
            features,
            trouble=trouble,
            step_id=step.id,
            state=state or EMPTY,
            conditions=conditions or NOTHING_SPECIAL,
            key=key if key is not None else step.node or "",
        )

    def decide_features(
        self,
        features: Features,
        *,
        step_id: str,
        state: ThreadState,
        conditions: Conditions,
        key: str,
        trouble: Sequence[Verdict] = (),
        heard: Classification | None = None,
    ) -> Decision:
        """Decide from features already measured, as a replay does.

        Args:
            features: the step.
            step_id: names it.
            state: pins and facts of its thread.
            conditions: what changes with the moment.
            key: the lineage.
            trouble: verdicts that hold already, such as what went wrong while measuring.
            heard: the classification to go by, in place of the classifier's.
        """
        classification, more = self._classify(features) if heard is None else (heard, [])
        trouble = [*trouble, *more, *([STATE_UNREAD] if state.unread else [])]
        row = self.taxonomy.find(classification.task_class) or self._strictest
        held = self._unexpired(features, state)
        pins = self._pins(features, held, key)
        proposed = self._proposal(row, classification)
        seen = Assessment(
            features=features,
            classification=classification,
            row=row,
            tiers=self.tiers,
            pins=pins,
            facts=held.facts,
            told=frozenset([mark.name for mark in state.marks]) if state.marks else frozenset(),
            conditions=conditions,
            proposed=proposed,
        )
        verdicts = _unique([*trouble, *self._dispositions(row, classification), *self._ask(seen)])
        pinned = max((self.tiers.rank_of_pin(pin.tier) for pin in pins), default=0)
        settled = settle(
            proposed=proposed, verdicts=verdicts, pinned=pinned, eligible=self._eligible(features, conditions), top=self.tiers.top
        )
        decision = self._decision(seen, settled, verdicts, step_id=step_id, key=key, known=state)
        return decision if conditions.opinion is None else self._heard(decision, state, conditions)

    @cached_property
    def judge(self) -> JudgedClassifier | None:
        """The classifier that a model may be asked for, if it is one."""
        return self.classifier if isinstance(self.classifier, JudgedClassifier) else None

    @cached_property
    def judges(self) -> tuple[Judge, ...]:
        """The checks that ask a model about a reply."""
        return tuple([check for check in self.checks if isinstance(check, Judge)])

    @property
    def judge_models(self) -> tuple[str, ...]:
        """Every model that may be asked for an opinion, once each."""
        asked = [self.judge.model] if self.judge is not None else []
        return tuple(dict.fromkeys([*asked, *[judge.model for judge in self.judges]]))

    def hears(self, decision: Decision) -> bool:
        """Whether a judge's opinion could change this decision: the classifier has one and is in doubt, and nothing else holds the step."""
        judge = self.judge
        if judge is None or decision.stopped or not judge.doubts(decision.classification):
            return False
        pinned = max((self.tiers.rank_of_pin(pin.tier) for pin in decision.pins), default=0)
        floors = [verdict.floor for verdict in decision.verdicts if (verdict.guard, verdict.code) not in DOUBTS]
        return max(pinned, *floors, 0) < self.tiers.top

    def _heard(self, decision: Decision, state: ThreadState, conditions: Conditions) -> Decision:
        """The decision once a judge has been asked: its reading in place of the local one, under all floors of the local one."""
        opinion = conditions.opinion
        if opinion is None or not self.hears(decision):
            return decision
        carried = [verdict for verdict in decision.verdicts if (verdict.guard, verdict.code) not in DOUBTS]
        heard = self._opined(opinion)
        if heard is None:
            why = opinion.trouble or "it could not tell"
            carried.append(_unsure("judge", "judge_failed" if opinion.trouble else "judge_unsure", f"the judge was asked: {why}"))
            heard = decision.classification
        return self.decide_features(
            decision.features,
            step_id=decision.id,
            state=state,
            conditions=replace(conditions, opinion=None),
            key=decision.key,
            trouble=carried,
            heard=heard,
        )

    def _opined(self, opinion: Opinion) -> Classification | None:
        """An opinion as a classification; None where it is none."""
        known = self.taxonomy.find(opinion.task_class) if opinion.task_class and not opinion.trouble else None
        if known is None or not (_is_share(opinion.p_strong) and _is_share(opinion.confidence)):
            return None
        said = f"a judge said {known.key}, p_strong {opinion.p_strong:.2f}"
        return Classification(task_class=known.key, confidence=opinion.confidence, p_strong=opinion.p_strong, judged=True, evidence=(said,))

    def _can_judge(self, judge: Judge) -> None:
        """Hold a judge of replies against classes and tiers.

        Raises:
            PolicyError: it names one that there is not, or the top tier, above which nothing is.
        """
        for name in judge.task_classes:
            if self.taxonomy.row(name).key != name:
                raise PolicyError(f"judge of replies: task class {name!r}; wanted its key, {self.taxonomy.row(name).key!r}")
        for name in judge.tiers:
            if self.tiers.named(name).rank >= self.tiers.top:
                raise PolicyError(f'judge of replies: tier "{name}" is the top, above which no reply can be sent; name a lower tier')

    @cached_property
    def _strictest(self) -> TaskClass:
        """Stands for the class of a step nobody could classify."""
        rows = list(self.taxonomy)
        return next((row for row in rows if row.key == _UNKNOWN.task_class), max(rows, key=lambda row: _STRICTNESS.index(row.disposition)))

    def _classify(self, features: Features) -> tuple[Classification, list[Verdict]]:
        raised: list[Verdict] = []
        if features.declared is not None:
            row = self.taxonomy.find(features.declared)
            if row is None:
                known = f"unknown declared class {features.declared!r}"
                return _UNKNOWN, [_unsure("classifier", "declared_class_unknown", known)]
            if features.declared_in == "metadata" and "task_class" not in self.trusted:
                raised = self._outside(row, _redeclared(features, row.key))
                features = _redeclared(features, None)
            elif features.declared != row.key:
                features = _redeclared(features, row.key)
        try:
            return self._asked(features), raised
        except Exception as error:
            return _UNKNOWN, [*raised, _unsure("classifier", "classifier_failed", _told(error))]

    def _asked(self, features: Features) -> Classification:
        found = self.classifier.classify(features)
        if not (_is_share(found.confidence) and _is_share(found.p_strong)):
            raise ValueError(f"confidence {found.confidence!r}, p_strong {found.p_strong!r}; wanted numbers from 0 to 1")
        if not isinstance(found.task_class, str) or self.taxonomy.find(found.task_class) is None:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"no class is named {found.task_class!r}")
        return found

    def _outside(self, row: TaskClass, features: Features) -> list[Verdict]:
        """A class declared from outside the allow-list can raise the step, and nothing else: it becomes a floor where it asks for one."""
        try:
            floor = self._proposal(row, self._asked(features))
        except Exception:
            floor = TOP
        return [Verdict(guard="taxonomy", code=row.key, evidence="declared from outside", floor=floor)] if floor else []

    def _pins(self, features: Features, state: ThreadState, key: str) -> tuple[Pin, ...]:
        held = state.pinned(key=key, turn=features.turn or None, run=features.run, since=features.since, going_on=features.open_loop)
        if features.stamps:
            stamped = {Pin(scope="turn", tier=stamp.tier, key=key, turn=features.turn, code=stamp.code) for stamp in features.stamps}
            held = {*held, *stamped}
        if not held:
            return ()
        return tuple(sorted(pin for pin in held if self.tiers.rank_of_pin(pin.tier) > 0))

    def _proposal(self, row: TaskClass, classification: Classification) -> int:
        top = self.tiers.top
        if row.disposition == "escalate":
            return top
        if row.disposition == "route":
            return 0
        threshold = self.threshold(row)
        if classification.p_strong >= threshold:
            return top
        return min(1, top) if top > 1 and classification.p_strong * 2 >= threshold else 0

    def threshold(self, row: TaskClass) -> float:
        """p_strong from which a step of a class goes to the top tier.

        The policy's own figure; else, where the taxonomy says what share of the class needs the top tier and the classifier knows how
        its p_strong is spread within the class, the point that sends this share; else the stance's figure for the disposition.
        """
        found = self._thresholds.get(row.key)
        if found is None:
            found = self._thresholds[row.key] = self._found_threshold(row)
        return found

    @cached_property
    def _thresholds(self) -> dict[str, float]:
        return dict(self.thresholds)

    def _found_threshold(self, row: TaskClass) -> float:
        stance = THRESHOLDS[self.stance].get(row.disposition, 0.0)
        spread = getattr(self.classifier, "threshold_for", None)
        if row.strong_share is None or spread is None or row.disposition == "route" or not stance:
            return stance
        known: float | None = spread(row.key, min(1.0, row.strong_share / 100 * SHARES[self.stance]))
        return stance if known is None else known

    def _dispositions(self, row: TaskClass, classification: Classification) -> list[Verdict]:
        if row.disposition == "route" and not classification.declared and classification.p_strong >= (limit := self.threshold(row)):
            evidence = f"p_strong {classification.p_strong:.2f}, {limit:.2f} or more: it may be no {row.key}"
            return [_unsure("taxonomy", "unsure", evidence)]
        if row.disposition != "escalate":
            return []
        return [Verdict(guard="taxonomy", code=row.key, evidence=f'class {row.number}, "{row.title}", always escalates', floor=TOP)]

    def _ask(self, seen: Assessment) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for rule in self._rules:
            try:
                verdict = rule(seen)
            except Exception as error:
                name = str(getattr(rule, "name", type(rule).__name__))
                verdicts.append(_unsure(name, "guard_failed", f"{name}: {_told(error)}"))
                continue
            if verdict is None:
                continue
            if _sound(verdict):
                verdicts.append(verdict)
            else:
                name = str(getattr(rule, "name", type(rule).__name__))
                verdicts.append(_unsure(name, "guard_failed", f"{name} gave {_shown(verdict)}; wanted a Verdict or None"))
        if seen.features.forced is not None and "routed_agents" not in self.trusted:
            verdicts = [_uncapped(verdict) if verdict.guard == "forced_tier" else verdict for verdict in verdicts]
        return verdicts

    def _eligible(self, features: Features, conditions: Conditions) -> list[int]:
        if not conditions.unavailable and not conditions.unusable and features.tokens <= SMALLEST_WINDOW:
            return list(range(len(self.tiers)))
        return [tier.rank for tier in self.tiers if self._can_take(tier, features, conditions)]

    def _can_take(self, tier: Tier, features: Features, conditions: Conditions) -> bool:
        if tier.name in conditions.unusable or (tier.name in conditions.unavailable and not _names_one_of(tier)):
            return False
        return bool(self.deployments(tier, features, conditions))

    def deployments(self, tier: Tier, features: Features, conditions: Conditions) -> list[Deployment]:
        """The deployments of a tier that are up and whose window holds the step, in the policy's order."""
        if not conditions.unavailable and features.tokens <= SMALLEST_WINDOW:
            return list(tier.deployments)
        gone, key = conditions.unavailable, self.tiers.key
        up = [each for each in tier.deployments if each.name not in gone and each.model not in gone and key(tier, each) not in gone]
        fits = [each for each in up if (window := card(each.price_key).window) is None or features.tokens <= window]
        if fits or features.tokens_source == "declared" or tier.rank < self.tiers.top:
            return fits
        return up  # an estimate above every window is still sent to the top: the provider, not our guess, may say no

    def _unexpired(self, features: Features, state: ThreadState) -> ThreadState:
        """The state without what has lapsed in the turns since it was noted."""
        if not self.expiry or not state:
            return state
        now = self._turn(features, state).number

        def holds(name: str, noted: int) -> bool:
            return not noted or name not in self.expiry or now - noted <= self.expiry[name]

        pins = frozenset(pin for pin in state.pins if pin.scope == "turn" or holds(pin.code, pin.number))
        return replace(state, pins=pins, facts=frozenset(fact for fact in state.facts if holds(fact, state.mark_of(fact).number)))

    @staticmethod
    def _turn(features: Features, state: ThreadState) -> Turn:
        """The turn of a step, counted; a new one comes after all that are known."""
        found = state.turn_of(name=features.turn, run=features.run, since=features.since, going_on=features.open_loop)
        return found or Turn(number=state.latest_turn + 1, name=features.turn, run=features.run or "", at=features.at or "")

    def _counted(self, features: Features, left: ThreadState, known: ThreadState) -> ThreadState:
        """What a decision leaves, with the turn it was noted in; what is known and not yet counted lapses from this turn on."""
        if not self.expiry or known.unread:  # a turn whose number nobody knows is counted by the next step
            return left
        wide = [pin for pin in left.pins | known.pins if pin.scope != "turn" and pin.code in self.expiry]
        named = [fact for fact in left.facts | known.facts if fact in self.expiry]
        if not wide and not named:
            return left
        turn = self._turn(features, known)
        number = max(turn.number, known.latest_turn)
        pins = frozenset(replace(pin, number=number) for pin in wide if pin in left.pins or not pin.number)
        marks = [left.mark_of(fact) if fact in left.facts else known.mark_of(fact) for fact in named]
        marks = [replace(mark, number=number) for mark in marks if mark.name in left.facts or not mark.number]
        return left.join(ThreadState(pins, marks=frozenset(marks), turns=frozenset({turn})))

    def _decision(
        self, seen: Assessment, settled: Settlement, verdicts: tuple[Verdict, ...], *, step_id: str, key: str, known: ThreadState
    ) -> Decision:
        tier = self.tiers[settled.rank] if settled.rank is not None else None
        unsure = any(verdict.code in UNSURE for verdict in verdicts)
        scope: Scope | None = None
        if tier is not None and tier.rank:
            scope = widest(["turn", *(verdict.pin for verdict in verdicts if verdict.floor)])
        models = self.deployments(tier, seen.features, seen.conditions) if tier is not None else []
        pins = self._new_pins(seen, tier.name, verdicts, key, known) if tier is not None and scope is not None else NO_PINS
        facts = frozenset([fact for verdict in verdicts for fact in verdict.facts])
        left = ThreadState(pins, facts) if pins or facts else EMPTY
        if facts and (seen.conditions.now_s or known.marks):
            left = _dated(left, seen.conditions.now_s, known)
        return Decision(
            id=step_id,
            task_class=seen.row.key,
            confidence=seen.classification.confidence,
            p_strong=seen.classification.p_strong,
            tier=tier.name if tier else None,
            rank=settled.rank,
            model=models[0].model if models else tier.model if tier else None,
            unsure=unsure,
            pin=scope,
            stopped=settled.why,
            verdicts=verdicts,
            pins=seen.pins,
            settlement=settled,
            features=seen.features,
            classification=seen.classification,
            tiers=self.tiers,
            policy_hash=self.hash,
            key=key,
            known=known,
            state=self._counted(seen.features, left, known),
        )

    @staticmethod
    def _new_pins(seen: Assessment, tier: str, verdicts: Sequence[Verdict], key: str, known: ThreadState) -> frozenset[Pin]:
        """The turn's pin, and one for each verdict that asks for a longer one, by whose code it can be released."""
        features, now = seen.features, seen.conditions.now_s
        code = next((verdict.code for verdict in verdicts if verdict.floor), "")
        run = features.run or ""
        known_at = [pin.at for pin in seen.pins if kind_of(pin) == ("turn", tier, key, features.turn, run, code)]
        at = max(known_at, default="") or features.at or ""  # the first time is as good as the last, and leaves the state as it is
        later = [pin.seq + (pin.run != run) for pin in known.pins if pin.scope == "turn" and pin.key == key]
        of_turn = Pin(scope="turn", tier=tier, key=key, turn=features.turn, run=run, at=at, seq=max([now, *later]), code=code)
        longer = [
            Pin(
                scope=verdict.pin,
                tier=tier,
                key=key if verdict.pin == "lineage" else "",
                seq=_after(now, known.mark_of(verdict.code).released),
                code=verdict.code,
            )
            for verdict in verdicts
            if verdict.floor and verdict.pin is not None and verdict.pin != "turn"
        ]
        return frozenset({of_turn, *longer})

    def explain(self, decision: Decision) -> str:
        """A decision in words, with what the classifier read as instruction, what spoke most for the class, and the class's threshold.

        For a person: quotes the step.
        """
        row = self.taxonomy.row(decision.task_class)
        limit = "always at the top" if row.disposition == "escalate" else f"at the top from p_strong {self.threshold(row):.2f}"
        lines = [decision.explain(), f"  threshold  {row.key} ({row.disposition}, {self.stance}): {limit}"]
        read = getattr(self.classifier, "read", None)
        spoke = getattr(self.classifier, "explain", None)
        if read is not None:
            for name, text in read(decision.features):
                lines.append(f"  {name:<10} {_shortened(text)}")
        if spoke is not None and not decision.classification.declared:
            found = [f"{words} ({zone}, {weight:+.1f})" for zone, words, weight in spoke(decision.features, decision.task_class)]
            lines.append(f"  spoke      {'; '.join(found) or 'nothing'}")
        return "\n".join(lines)

    def decide_again(self, decision: Decision, step: Step, conditions: Conditions) -> Decision:
        """Decide a step that is sent in another form than it was decided in; whatever held before holds on.

        Args:
            decision: what was decided before.
            step: the step as it is sent.
            conditions: what changes with the moment.
        """
        features, trouble = _measured(step)
        again = self.decide_features(
            features,
            trouble=[*decision.verdicts, *trouble],
            step_id=decision.id,
            state=decision.known,
            conditions=conditions,
            key=decision.key,
        )
        proposed = max(decision.settlement.proposed, again.settlement.proposed)
        held = tuple(sorted({*decision.pins, *again.pins}))
        if (proposed, held) != (again.settlement.proposed, again.pins):
            again = self.resettle(replace(again, pins=held, settlement=replace(again.settlement, proposed=proposed)), conditions)
        rank = again.rank
        if rank is not None and decision.rank is not None and rank < decision.rank:
            settled = replace(again.settlement, rank=decision.rank)
            again = replace(again, tier=decision.tier, rank=decision.rank, model=decision.model, settlement=settled)
        return replace(again, state=decision.state.join(again.state))

    def resettle(self, decision: Decision, conditions: Conditions, *, at_least: int = 0, key: str | None = None) -> Decision:
        """Settle the same step again under other conditions, as after an outage; its verdicts and pins stay.

        Args:
            decision: what was decided before.
            conditions: what holds now.
            at_least: a rank that must not be undercut, as after a rejected reply.
            key: the lineage; the decision's own when not given.
        """
        verdicts = decision.verdicts
        if at_least:
            verdicts = _unique(
                [*verdicts, Verdict(guard="checks", code="escalated", evidence="a lower tier's reply was rejected", floor=at_least)]
            )
        classification = decision.classification
        row = self.taxonomy.row(decision.task_class)
        pinned = max((self.tiers.rank_of_pin(pin.tier) for pin in decision.pins), default=0)
        seen = Assessment(
            features=decision.features,
            classification=classification,
            row=row,
            tiers=self.tiers,
            pins=decision.pins,
            facts=decision.known.facts,
            conditions=conditions,
            proposed=decision.settlement.proposed,
        )
        eligible = self._eligible(decision.features, conditions)
        settled = settle(proposed=seen.proposed, verdicts=verdicts, pinned=pinned, eligible=eligible, top=self.tiers.top)
        return self._decision(
            seen, settled, verdicts, step_id=decision.id, key=key if key is not None else decision.key, known=decision.known
        )


SHIPPED: Final = frozenset({*guards_module.BY_NAME.values(), PolicyFloor, *KNOWN.values(), LinearClassifier})
"""Kinds of rules that ask for no label, or say which ones."""
SMALLEST_WINDOW: Final = 100_000
"""Prompts up to this size fit every model with a known window, so nothing has to be looked up."""
NOTHING_SPECIAL: Final = Conditions()
UNSURE: Final = frozenset(
    {
        *("unsure", "features_failed", "classifier_failed", "guard_failed", "declared_class_unknown", "forced_tier_unknown"),
        *("judge_failed", "judge_unsure", "state_unread"),
    }
)
"""Codes that mean nobody could tell; the decision is then `unsure`."""
_STRICTNESS: Final = ("route", "partial", "escalate_often", "escalate")
_UNKNOWN: Final = Classification(task_class="agentic_chain", confidence=0.0, p_strong=1.0, evidence=("unknown",))


SHOWN: Final = 160
"""Characters of a text shown in an explanation."""


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _told(error: Exception) -> str:
    """An error in words; only its type where the words themselves cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"a {type(value).__name__}"


def _kept(check: Check, tiers: Tiers) -> Check | None:
    """A check over fewer tiers; a judge of replies of none of them is left out."""
    if not isinstance(check, Judge) or not check.tiers:
        return check
    judged = tuple([name for name in check.tiers if name in tiers.names])
    return replace(check, tiers=judged) if judged else None


def _names_one_of(tier: Tier) -> bool:
    """Whether a tier's name may as well mean one of its deployments: then it means that one, for its siblings may answer."""
    return any(tier.name in (each.name, each.model) for each in tier.deployments)


def _unsure(guard: str, code: str, evidence: str) -> Verdict:
    return Verdict(guard=guard, code=code, evidence=evidence, floor=TOP)


def _measured(step: Step) -> tuple[Features, list[Verdict]]:
    """What is measured on a step; a message of a kind we cannot read is our trouble, and the step goes to the top."""
    try:
        return extract(step), []
    except StepError:
        raise
    except Exception as error:
        check_step(step)
        features = Features(tokens=step.tokens or 0, tokens_source="estimated", node=step.node, tools=step.tools, flags=step.metadata)
        return features, [_unsure("features", "features_failed", _told(error))]


STATE_UNREAD: Final = _unsure("state", "state_unread", "the thread's pins and facts could not be read")


def _uncapped(verdict: Verdict) -> Verdict:
    return Verdict(guard=verdict.guard, code=verdict.code, evidence=verdict.evidence, floor=verdict.floor)


def _unique(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Strictest first, repeats dropped, in an order that doesn't depend on the guards'."""
    if len(verdicts) < 2:
        return tuple(verdicts)
    return tuple(sorted(dict.fromkeys(verdicts), key=_strictness))


def _strictness(v: Verdict) -> tuple[Any, ...]:
    return (not v.stop, -v.floor, v.cap if v.cap is not None else TOP, v.guard, v.code, v.evidence, v.hard, v.pin or "", v.facts)


def _sound(verdict: Any) -> bool:
    """Whether a rule gave what it promised; a user's function may give anything."""
    if not isinstance(verdict, Verdict):
        return False
    facts: Any = verdict.facts
    stop: Any = verdict.stop
    hard: Any = verdict.hard
    if not isinstance(facts, tuple) or not isinstance(stop, bool) or not isinstance(hard, bool):
        return False
    texts: list[Any] = [verdict.guard, verdict.code, verdict.evidence, *verdict.facts]
    return (
        _is_rank(verdict.floor)
        and (verdict.cap is None or _is_rank(verdict.cap))
        and (verdict.pin is None or verdict.pin in SCOPES)
        and all(isinstance(text, str) for text in texts)
    )


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def _lists_texts(value: object) -> bool:
    return _is_list(value) and all(isinstance(each, str) and each for each in cast("Iterable[object]", value))


TRUSTED: Final = ("task_class", "routed_agents")
PARTS: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("tiers", lambda value: isinstance(value, Tiers), 'Tiers, like Tiers.preset_named("claude") or Tiers.of({"cheap": …, "strong": …})'),
    ("taxonomy", lambda value: isinstance(value, Taxonomy), "a Taxonomy, like Taxonomy.default()"),
    ("guards", _is_list, "a list of guards"),
    ("floors", lambda value: _is_list(value) and all(isinstance(each, PolicyFloor) for each in value), "a list of PolicyFloor"),
    ("checks", _is_list, "a list of checks"),
    ("thresholds", lambda value: isinstance(value, Mapping), "p_strong by task class"),
    ("expiry", lambda value: isinstance(value, Mapping), "turns by the name of a fact or the code of a pin"),
    ("labels", _lists_texts, 'a list of metadata keys, like ["tenant"]'),
    ("trusted", lambda value: _lists_texts(value) and set(value) <= set(TRUSTED), f"a list of these at most: {', '.join(TRUSTED)}"),
    ("on_stop", lambda value: isinstance(value, str) and bool(value), "raise, end, interrupt, or the name of a graph node"),
    ("capture_evidence", lambda value: isinstance(value, bool), "True or False"),
)
"""What each part must be, and how that is said."""


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _after(now_s: int, released: int) -> int:
    """When something is confirmed, in seconds: now, and after the release that its step knows of, whatever the clocks say."""
    return max(now_s, released // MICRO + 1) if released else now_s


def _dated(left: ThreadState, now_s: int, known: ThreadState) -> ThreadState:
    """What a decision leaves, its facts noted now and after the releases that it knows of."""
    marks = [Mark(name=fact, noted=max(now_s * MICRO, known.mark_of(fact).released + 1)) for fact in left.facts]
    return left.join(ThreadState(marks=frozenset(marks)))


NO_PINS: Final[frozenset[Pin]] = frozenset()


def _redeclared(features: Features, declared: str | None) -> Features:
    return replace(features, declared=declared, declared_in=features.declared_in if declared else None)
