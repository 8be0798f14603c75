"""Generated verdicts, tiers, steps and conditions for the laws; small ones, so that thousands are cheap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from hypothesis import strategies as st

from routed_agents.decisions import Decision, Settlement
from routed_agents.guards import TOP, Assessment, Conditions, PolicyFloor, Verdict
from routed_agents.policy import Policy
from routed_agents.pricing import Prices
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry
from routed_agents.tiers import Tiers

STOPPED = 99
"""Stands for a stop when ranks are compared: refusing is never cheaper than answering."""
TIERS = tuple(Tiers.of({f"tier{rank}": f"model-{rank}" for rank in range(count)}) for count in range(1, 5))
PRICES = Prices({f"model-{rank}": {"input": str(rank + 1), "output": "5"} for rank in range(4)}, snapshot=False)
POLICIES = tuple(Policy(tiers=tiers) for tiers in TIERS)
CLASSES = ("classification", "rag_lookup", "summarization", "multi_turn", "knowledge_qa", "code_generation", "agentic_chain")
TEXTS = (
    "Classify the sentiment as positive or negative: lovely",
    "Summarize the report in two sentences",
    "Write a function in Python that sorts a list",
    "Reply to the customer: my husband died and I am desperate",
    "Thank you, how are you?",
    "Debug the traceback in this repository",
    "xyzzy",
)


@dataclass(frozen=True)
class Says:
    """A guard that always says the same."""

    verdict: Verdict | None

    def __call__(self, seen: Assessment, /) -> Verdict | None:
        return self.verdict


def height(outcome: Settlement | Decision) -> int:
    """The rank, with a stop above them all."""
    return STOPPED if outcome.rank is None else outcome.rank


def _verdict(floor: int, cap: int | None, hard: bool, pin: str | None, stop: bool, facts: tuple[str, ...]) -> Verdict:
    code = f"floor {floor} cap {cap} {hard} {pin} {stop} {facts}"
    return Verdict(guard="generated", code=code, floor=floor, cap=cap, hard=hard and cap is not None, pin=pin, stop=stop, facts=facts)  # type: ignore[arg-type]


FLOORED = (0, 0, 1, 2, 3, TOP)
CAPPED = ((None, False), (None, False), *product((0, 1, 2, 3, 7), (False, True)))
PINNED = (None, "turn", "lineage", "thread")
FACTS = ((), (), ("distress",))
VERDICTS = tuple(
    _verdict(floor, cap, hard, pin, False, facts) for floor, (cap, hard), pin, facts in product(FLOORED, CAPPED, PINNED, FACTS)
)
STOPS = tuple(_verdict(floor, None, False, None, True, ()) for floor in FLOORED)


UNCAPPED = tuple(verdict for verdict in VERDICTS if verdict.cap is None)
_random = Random(0)
SAID = tuple(
    [
        [_random.choice(STOPS if _random.random() < 0.08 else VERDICTS) for _ in range(size)]
        for size in range(5)
        for _ in range(1 + 500 * size)
    ]
)

several = st.sampled_from(SAID)
"""Up to four verdicts, in lists prepared once: a single draw is what keeps thousands of examples cheap."""
uncapped = st.sampled_from((*UNCAPPED, *STOPS))
ranks = st.sampled_from(range(4))
eligible = st.sampled_from([frozenset(each) for size in range(5) for each in combinations(range(4), size)])
policies = st.sampled_from(POLICIES)
steps = st.sampled_from(
    [
        Step.from_messages(text, task_class=task_class, node=node, tokens=tokens, id="s")
        for text, task_class, node, tokens in product(TEXTS, (None, None, *CLASSES), (None, "plan", "reply"), (None, None, 10, 60_000))
    ]
)
conditions = st.sampled_from(
    [
        Conditions(unavailable=frozenset(f"tier{rank}" for rank in gone), deadline_s=deadline)
        for gone, deadline in product(((), (), (0,), (1,), (3,), (0, 1), (0, 1, 2, 3)), (None, None, 0.1, 5.0))
    ]
)
FLOORS = tuple(PolicyFloor(tier=f"tier{rank}", metadata=(("floor", rank),)) for rank in range(1, 4))
"""Floors a step asks for by metadata: `{"floor": 2}`."""


def quiet_router(policy: Policy) -> Router:
    return Router(policy, prices=PRICES, telemetry=QUIET)


QUIET = Telemetry.off()


def with_guards(policy: Policy, verdicts: list[Verdict], *, shipped: bool = True) -> Policy:
    return policy.replace(guards=[*(policy.guards if shipped else ()), *map(Says, verdicts)])
