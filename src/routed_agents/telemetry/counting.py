"""Says of exported spans which of them a backend counts for a model call, and whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from routed_agents.telemetry import names
from routed_agents.telemetry.detection import SOURCES
from routed_agents.telemetry.runs import SpanRecord

TOKENS: Final = ("gen_ai.usage.", "llm.token_count.", "llm.usage.", "gen_ai.client.token.")
MONEY: Final = ("llm.cost.", "gen_ai.cost.", "operation.cost", names.USAGE_COST)
ROLLED_UP: Final = ("invoke_agent", "invoke_workflow", "execute_tool")
"""Operations whose usage repeats what the inferences below them used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How some model calls were counted.

    Attributes:
        calls: model calls made.
        counted: spans with tokens or cost, by whose they are.
        priced: how many of those carry a cost.
        repeated: spans above the calls that repeat their tokens; some backends count them once more.
    """

    calls: int
    counted: Counter[str]
    priced: int
    repeated: int

    @property
    def once(self) -> bool:
        return self.counted.total() == self.calls

    @property
    def who(self) -> str:
        return " and ".join(title_of(key) for key in self.counted) or "nobody"


def tally(spans: Iterable[SpanRecord], calls: int) -> Tally:
    """How these spans count that many model calls."""
    counted: Counter[str] = Counter()
    priced = repeated = 0
    for span in spans:
        if not any(name.startswith((*TOKENS, *MONEY)) for name in span.attributes):
            continue
        if span.attributes.get(names.OPERATION) in ROLLED_UP:
            repeated += 1
            continue
        counted[owner_of(span)] += 1
        priced += any(name.startswith(MONEY) for name in span.attributes)
    return Tally(calls=calls, counted=counted, priced=priced, repeated=repeated)


def owner_of(span: SpanRecord) -> str:
    """Whose span it is: `routed_agents`, the key of a known source, or its scope."""
    if span.ours:
        return names.SCOPE
    return next((source.key for source in SOURCES if span.scope.startswith(source.scope)), span.scope or "unknown")


def title_of(key: str) -> str:
    """A source's name for people."""
    return next((source.title for source in SOURCES if source.key == key), "routed-agents" if key == names.SCOPE else key)
