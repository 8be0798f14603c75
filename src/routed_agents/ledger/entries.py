"""One entry per model call: what it was, did and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Literal

from routed_agents.errors import LedgerError
from routed_agents.pricing import Cost, Usage

Kind = Literal["attempt", "judge", "check"]
Outcome = Literal["accepted", "rejected", "failed", "abandoned", "watched"]
Mode = Literal["enforce", "shadow", "off", "watch"]

RECORD_VERSION: Final = 3
"""Version 1 lacks what a step would have cost on the decided model, version 2 whether the tier is the top one."""
BELOW_FLOOR: Final = "check:served_model_below_floor"
"""The code of an answer that came from a lower model than the step may go to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one model call was, did and cost.

    A step's entries share its id. Its baseline stands on one of them, the attempt whose reply was used, so that both cost
    and baseline may simply be added up.

    Attributes:
        kind: an attempt at the step itself, or a call that judged or checked one.
        top: whether the tier is the policy's top one; None where nobody says, as in entries that an older release wrote.
        deployment: the deployment of the tier that was called.
        cost: None when the call is unpriced.
        baseline_pico: what the step would have cost on `baseline_model`; None except on the step's used attempt, and where no
            answer came, or one from a lower model than the step may go to, which saves nothing.
        cache_aware_saving_pico: the saving once moving between caches is counted, where it is known.
        codes: reason codes of the decision, most telling first.
        outcome: what became of the reply.
        error: the class of the error that ended the call.
        simulated: the answer came from the embedded provider, so the cost is not real money.
        mode: the policy's, of whoever decided the call; `watch` where nobody did.
        decided_tier: what the policy chose, also where a mode other than enforce acted on another tier.
        decided_model: the model of that tier; None for a stop, and in entries that an older release wrote.
        decided_pico: what the call would have cost on `decided_model`, reckoned as the baseline is; None where that has no price, and
            for a stop, which would have cost nothing.
        price_source: which price list the cost is from.
        decision_ns: how long deciding took.
        escalated_from: the tier of the attempt before, when its reply was rejected.
    """

    step_id: str
    attempt: int
    kind: Kind = "attempt"
    run: str | None = None
    thread: str | None = None
    lineage: str | None = None
    node: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    task_class: str
    tier: str
    rank: int
    pinned: bool
    model: str
    served_model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    usage: Usage
    cost: Cost | None
    baseline_pico: int | None = None
    baseline_model: str | None = None
    cache_aware_saving_pico: int | None = None
    codes: tuple[str, ...] = ()
    outcome: Outcome
    error: str | None = None
    simulated: bool = False
    mode: Mode = "enforce"
    decided_tier: str
    decided_model: str | None = None
    decided_pico: int | None = None
    top: bool | None = None
    policy_hash: str
    price_source: str | None = None
    started_ns: int
    ended_ns: int
    first_chunk_ns: int | None = None
    decision_ns: int | None = None
    escalated_from: str | None = None

    @property
    def below_floor(self) -> bool:
        """Whether a lower model answered than the step may go to."""
        return BELOW_FLOOR in self.codes

    @property
    def kept_strong(self) -> bool:
        """Whether the top tier was called, or its model; where nobody says which tier that is, the one named strong."""
        return self.model == self.baseline_model or (self.tier == "strong" if self.top is None else self.top)

    @property
    def estimated(self) -> bool:
        """Whether the cost is that of estimated tokens."""
        return self.cost is not None and self.usage.source == "estimated"

    @property
    def output_unknown(self) -> bool:
        """Whether the cost is that of the estimated prompt alone, and so a lower bound."""
        return self.cost is not None and self.usage.output_unknown

    def to_record(self) -> dict[str, object]:
        """The entry as plain JSON."""
        record: dict[str, object] = {"v": RECORD_VERSION}
        for name in ENTRY_FIELDS:
            record[name] = getattr(self, name)
        record["labels"] = dict(self.labels)
        record["codes"] = list(self.codes)
        record["usage"] = {name: getattr(self.usage, name) for name in USAGE_FIELDS}
        record["cost"] = None if self.cost is None else {name: getattr(self.cost, name) for name in COST_FIELDS}
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Entry:
        """Read what `to_record` wrote.

        Raises:
            LedgerError: the record is of a newer version, or a key is missing or unknown.
        """
        if record.get("v") not in range(1, RECORD_VERSION + 1):
            raise LedgerError(f"ledger record version {record.get('v')!r}; this release reads up to {RECORD_VERSION}; upgrade it")
        try:
            values = {key: value for key, value in record.items() if key != "v"}
            values["usage"] = Usage(**record["usage"])
            values["cost"] = None if record.get("cost") is None else Cost(**record["cost"])
            values["labels"] = MappingProxyType(dict(record.get("labels") or {}))
            values["codes"] = tuple(record.get("codes") or ())
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise LedgerError(f"a ledger record cannot be read: {error}; wanted the keys that Entry.to_record writes") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return Entry.from_record, (self.to_record(),)  # a mapping proxy does not pickle


ENTRY_FIELDS: Final = tuple(each.name for each in fields(Entry))
USAGE_FIELDS: Final = tuple(each.name for each in fields(Usage))
COST_FIELDS: Final = tuple(each.name for each in fields(Cost))
