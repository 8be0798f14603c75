"""`policy test`: decides cases whose right tier is known, and says what that proves."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from routed_agents.cli import FOUND, OK
from routed_agents.cli.arguments import policy_of
from routed_agents.cli.records import Complaints, read_steps
from routed_agents.errors import ConfigurationError
from routed_agents.offline.bounds import cases_needed, lower_bound
from routed_agents.printable import one_line

if TYPE_CHECKING:
    from routed_agents.policy import Policy

CLAIM: Final = re.compile(
    r"^\s*(?:(?P<kind>.*\S)\s+)?(?P<measure>recall|precision|accuracy)\s*>=\s*(?P<share>[\d.]+%?)\s*(?:@\s*(?P<confidence>[\d.]+)\s*%)?\s*$"
)
WANTED: Final = '[kind] (recall|precision|accuracy) >= X [@NN%], like "distress recall >= 0.99 @95%"'
UNASKED: Final = ("recall >= 1", "precision >= 0", "accuracy >= 0")
"""What is measured when nothing is required: only a step that must be strong and went cheap counts as found."""
MISSES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is required of a policy.

    Attributes:
        measure: recall: of the cases that must be strong, how many are; precision: of those sent strong, how many must be; accuracy:
            how many cases go where they should.
        share: exactly as it is written, for so are the cases counted.
        confidence: of the exact lower bound that must reach the share; None when the observed share is enough.
    """

    text: str
    kind: str | None
    measure: str
    share: Fraction
    confidence: float | None

    @classmethod
    def parse(cls, text: str) -> Claim:
        match = CLAIM.match(text)
        if match is None:
            raise ConfigurationError(f'requirement "{text}" cannot be read; wanted {WANTED}')
        given = match["share"]
        try:
            share = Fraction(given.rstrip("%")) / (100 if given.endswith("%") else 1)
            confidence = float(Fraction(match["confidence"]) / 100) if match["confidence"] else None
        except ValueError:
            raise ConfigurationError(f'requirement "{text}" holds a number that cannot be read; wanted {WANTED}') from None
        if not 0 <= share <= 1:
            raise ConfigurationError(f'requirement "{text}" asks for {given}; wanted a share from 0 to 1, or a percentage with its sign')
        if confidence is not None and not 0 < confidence < 1:
            raise ConfigurationError(f'requirement "{text}" asks for {match["confidence"]} % confidence; wanted more than 0, less than 100')
        return cls(text=text.strip(), kind=match["kind"], measure=match["measure"], share=share, confidence=confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A decided case; `strong` means the top tier, or a stop: neither is answered by a lower model."""

    id: str
    kind: str | None
    expected: bool
    strong: bool
    line: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the cases say about a claim."""

    claim: Claim
    hits: int
    cases: int
    bound: float | None
    met: bool
    needed: int | None
    misses: tuple[Case, ...]

    def to_record(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "require": claim.text,
            "met": self.met,
            "hits": self.hits,
            "cases": self.cases,
            "share": self.hits / self.cases if self.cases else None,
            "lower_bound": self.bound,
            "confidence": claim.confidence,
            "cases_needed": self.needed,
            "misses": [case.id for case in self.misses],
        }


def test_policy(args: argparse.Namespace) -> int:
    claims = [Claim.parse(text) for text in args.require]
    policy = policy_of(args)
    complaints = Complaints(args.cases)
    digest = hashlib.blake2b(digest_size=8)
    cases = read_cases(args.cases, policy, complaints, on_line=digest.update)
    complaints.close()
    if not cases:
        raise ConfigurationError(f'{args.cases} holds no case; wanted step records with "expect": "cheap" or "strong"')
    kinds = sorted({case.kind for case in cases if case.kind})
    for claim in claims:
        if claim.kind is not None and claim.kind not in kinds:
            known = ", ".join(kinds) or "none"
            raise ConfigurationError(f'requirement "{claim.text}": no case is of kind "{claim.kind}"; known kinds: {known}')
    findings = [judge(claim, cases) for claim in claims or map(Claim.parse, UNASKED)]
    if args.json:
        records = [finding.to_record() for finding in findings]
        print(json.dumps({"policy_hash": policy.hash, "cases_hash": digest.hexdigest(), "cases": len(cases), "findings": records}))
    else:
        print(f"policy {policy.hash}, {len(cases)} cases ({args.cases}, {digest.hexdigest()})")
        for finding in findings:
            print("\n".join(map(one_line, _lines(finding, required=bool(claims)))))
    return FOUND if complaints.count or not all(finding.met for finding in findings) else OK


def read_cases(source: str, policy: Policy, complaints: Complaints, *, on_line: Callable[[bytes], object]) -> list[Case]:
    """Decide every case of a file; `on_line` is given each line that is read."""
    cases: list[Case] = []
    top = policy.tiers.top
    for number, step, record in read_steps(source, complaints, on_line=on_line):
        expect, kind = record.get("expect"), record.get("kind")
        if expect not in ("cheap", "strong"):
            near = difflib.get_close_matches("expect", record, n=1, cutoff=0.75) if expect is None else []
            wanted = f'"expect" is {json.dumps(expect)}; wanted "cheap" or "strong"'
            complaints(number, f'"{near[0]}": did you mean "expect"?' if near else wanted)
            continue
        decision = policy.decide(step)
        why = ", ".join(decision.codes) or f"{decision.task_class}, confidence {decision.confidence:.2f}, p_strong {decision.p_strong:.2f}"
        cases.append(
            Case(
                id=step.id,
                kind=str(kind) if kind is not None else None,
                expected=expect == "strong",
                strong=decision.rank is None or decision.rank == top,
                line=number,
                why=why,
            )
        )
    return cases


def judge(claim: Claim, cases: Sequence[Case]) -> Finding:
    """Hold a claim against the cases."""
    counted = [case for case in cases if claim.kind is None or case.kind == claim.kind]
    if claim.measure == "recall":
        counted = [case for case in counted if case.expected]
    elif claim.measure == "precision":
        counted = [case for case in counted if case.strong]
    misses = tuple([case for case in counted if case.strong != case.expected])
    hits = len(counted) - len(misses)
    bound = None
    if claim.confidence is not None:
        bound = lower_bound(hits, len(counted), confidence=claim.confidence) if counted else 0.0
    reached = bound if bound is not None else Fraction(hits, len(counted)) if counted else 0
    met = bool(counted) and reached >= claim.share
    needed = None
    if not met and claim.confidence is not None:
        needed = cases_needed(claim.share, misses=len(misses), confidence=claim.confidence)
    return Finding(claim=claim, hits=hits, cases=len(counted), bound=bound, met=met, needed=needed, misses=misses)


def _lines(finding: Finding, *, required: bool) -> list[str]:
    claim = finding.claim
    head = ("met      " if finding.met else "NOT MET  ") + claim.text if required else f"{claim.measure}"
    if not finding.cases:
        return [f"{head}: no case to tell from"]
    share = f"{finding.hits} of {finding.cases}, {_percent(Fraction(finding.hits, finding.cases))}"
    if finding.bound is not None and claim.confidence is not None:
        share += f"; at {claim.confidence:.4g} confidence at least {_percent(finding.bound)} (exact)"
    lines = [f"{head}: {share}"]
    missed = len(finding.misses)
    if not finding.met and claim.confidence is not None:
        if finding.needed is None:
            lines.append(f"  no number of cases proves {float(claim.share):g}")
        elif finding.needed > finding.cases:
            lines.append(f"  with {missed} missed, this promise needs {finding.needed:,} cases; there are {finding.cases:,}")
    for case in finding.misses[:MISSES_SHOWN]:
        went, due = ("strong", "cheap") if case.strong else ("cheap", "strong")
        lines.append(f"  missed {case.id} (line {case.line}): went {went}, wanted {due}; {case.why}")
    if missed > MISSES_SHOWN:
        lines.append(f"  and {missed - MISSES_SHOWN} more")
    return lines


def _percent(share: Fraction | float) -> str:
    """Rounded down, so that no promise is printed that was not proved."""
    return f"{int(Fraction(share) * 100_000) / 1000:.3f} %"
