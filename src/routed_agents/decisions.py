"""A decision is the tier a step gets, settled from everything that objects to a cheaper one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from routed_agents.classify import Classification
from routed_agents.features import Features
from routed_agents.guards import Verdict
from routed_agents.state import EMPTY, Pin, Scope, ThreadState
from routed_agents.tiers import Tiers

WIDEST: Final[Mapping[str | None, int]] = {None: 0, "turn": 1, "lineage": 2, "thread": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The outcome of settling: a rank, or none when the step must stop.

    Attributes:
        rank: the tier to use; None stops the step before a token is spent.
        want: the lowest rank that satisfies everyone, before eligibility.
        obligation: the highest floor or pin; nothing may go below it.
        proposed: what the taxonomy and the stance asked for.
        degraded: a mere proposal could not be met, so the highest eligible rank below it serves.
        why: the code of the stop, when there is one.
    """

    rank: int | None
    want: int
    obligation: int
    proposed: int
    degraded: bool = False
    why: str | None = None


def settle(*, proposed: int, verdicts: Iterable[Verdict], pinned: int, eligible: Iterable[int], top: int) -> Settlement:
    """Settle on a rank: `want = max(floor, pin, min(cap, proposed))`, then the lowest eligible rank that is at least `want`.

    A soft cap lowers the proposal only. A hard cap below a floor or pin stops the step, and so does a floor or pin that no eligible
    rank reaches; a proposal that none reaches takes the highest eligible rank that still satisfies floor and pin.

    Args:
        proposed: the rank the taxonomy and the stance ask for.
        verdicts: what the guards say, in any order and number.
        pinned: the rank of the strictest pin; 0 without one.
        eligible: ranks that are up, large enough and able.
        top: the highest rank there is; floors above it mean it.
    """
    floor, cap, hard, stop = 0, top, top, None
    for verdict in verdicts:
        floor = max(floor, min(verdict.floor, top))
        if verdict.cap is not None:
            cap = min(cap, verdict.cap)
            hard = min(hard, verdict.cap) if verdict.hard else hard
        if verdict.stop:
            stop = min(stop, verdict.code) if stop else verdict.code
    obligation = max(floor, min(pinned, top))
    want = max(obligation, min(cap, proposed))
    rank, why, degraded = None, stop, False
    if why is None and hard < obligation:
        why = "hard_cap_below_floor"
    if why is None:
        usable = [each for each in eligible if each <= hard]
        reaching = [each for each in usable if each >= want]
        if reaching:
            rank = min(reaching)
        elif usable and max(usable) >= obligation:
            rank, degraded = max(usable), True
        else:
            why = "no_eligible_tier"
    return Settlement(rank=rank, want=want, obligation=obligation, proposed=proposed, degraded=degraded, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided for one step, and why; can be printed, stored and replayed.

    Attributes:
        tier: the tier's name; None when the step stops.
        rank: its position; None when the step stops.
        model: the model of its first deployment; None when the step stops.
        pin: how long the choice holds at least; None when the step stays free.
        unsure: nobody could tell what kind of step this is, so it went to the top.
        stopped: the code of the stop, if any.
        verdicts: what the guards said, strictest first.
        pins: the pins that held for the step.
        policy_hash: the policy that decided.
        known: the pins and facts of the thread it was decided with.
        state: the pins and facts it leaves.
    """

    id: str
    task_class: str
    confidence: float
    p_strong: float
    tier: str | None
    rank: int | None
    model: str | None
    unsure: bool
    pin: Scope | None
    stopped: str | None
    verdicts: tuple[Verdict, ...]
    pins: tuple[Pin, ...]
    settlement: Settlement
    features: Features
    classification: Classification
    tiers: Tiers
    policy_hash: str
    key: str = ""
    known: ThreadState = EMPTY
    state: ThreadState = EMPTY

    @property
    def codes(self) -> tuple[str, ...]:
        """The reason codes that hold the step up or down, strictest first, without repeats."""
        return tuple(dict.fromkeys(verdict.code for verdict in self.verdicts if verdict.objects))

    @property
    def reasons(self) -> tuple[dict[str, Any], ...]:
        """The guards' verdicts as they are recorded; evidence may quote a person and stays out."""
        return tuple(
            {
                "guard": verdict.guard,
                "code": verdict.code,
                "floor": min(verdict.floor, self.tiers.top),
                "cap": verdict.cap,
                "hard": verdict.hard,
            }
            for verdict in self.verdicts
        )

    @property
    def floored(self) -> bool:
        """Nothing cheaper may answer this step."""
        return self.settlement.obligation > 0

    def to_record(self, *, evidence: bool = False) -> dict[str, Any]:
        """The decision record; `evidence` adds what the guards saw, which may quote a person."""
        record: dict[str, Any] = {
            "id": self.id,
            "task_class": self.task_class,
            "confidence": round(self.confidence, 4),
            "p_strong": round(self.p_strong, 4),
            "tier": self.tier,
            "rank": self.rank,
            "model": self.model,
            "unsure": self.unsure,
            "pin": self.pin,
            "reasons": list(self.reasons),
            "policy_hash": self.policy_hash,
        }
        if self.stopped:
            record["stop"] = self.stopped
        if self.classification.judged:
            record["judged"] = True
        if evidence:
            record["evidence"] = [*self.classification.evidence, *(v.evidence for v in self.verdicts if v.evidence)]
        return record

    def explain(self) -> str:
        """The decision in words, for a person; may quote the step."""
        settled = self.settlement
        head = f"{self.tier} ({self.model})" if self.tier else f"stopped: {words(self.stopped or '')}"
        lines = [
            f"step {self.id}: {head}",
            f"  class      {self.task_class}, confidence {self.confidence:.2f}, p_strong {self.p_strong:.2f}"
            + (" (declared)" if self.classification.declared else " (judged)" if self.classification.judged else "")
            + (" (unsure: floor at the top)" if self.unsure else ""),
            f"  size       up to {self.features.tokens:,} tokens ({self.features.tokens_source}), {self.features.message_count} messages",
            f"  proposed   {self.tiers[settled.proposed].name}; wanted {self.tiers[settled.want].name}"
            + (f"; floor or pin at {self.tiers[settled.obligation].name}" if settled.obligation else ""),
        ]
        lines += [f"  evidence   {each}" for each in self.classification.evidence]
        for verdict in self.verdicts:
            effects = ["stop"] if verdict.stop else []
            effects += [f"floor {self.tiers[min(verdict.floor, self.tiers.top)].name}"] if verdict.floor else []
            if verdict.cap is not None:
                effects.append(f"{'hard ' if verdict.hard else ''}cap {self.tiers[min(verdict.cap, self.tiers.top)].name}")
            effects += [f"notes {fact}" for fact in verdict.facts]
            lines.append(f"  guard      {verdict.guard}: {', '.join(effects)}; {verdict.evidence or words(verdict.code)}")
        lines += [f"  pin        {pin.scope} pin at {pin.tier} ({words(pin.code) or 'earlier step'})" for pin in self.pins]
        lines.append(f"  policy     {self.policy_hash}")
        return "\n".join(lines)


def words(code: str) -> str:
    """A reason code as words: `long_context` becomes "long context"."""
    return code.replace("_", " ")


def widest(scopes: Iterable[Scope | None]) -> Scope | None:
    """The scope that holds longest."""
    return max(scopes, key=WIDEST.__getitem__, default=None)
