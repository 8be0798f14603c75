"""Two hundred branches with mixed verdicts: whatever the order they end in, the state they leave is the same."""

from __future__ import annotations

import asyncio
import json
import operator
import random
from functools import reduce
from typing import Annotated, Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from routed_agents import Conditions, Policy, Step, join

from .conftest import Books

BRANCHES, SEEDS = 200, 200
MIXED = ("classification", "empathy_escalation", "extraction", "agentic_chain", "summarization", "debug_refactor")
SORROW = "My husband died last week and nobody answers my letters"


class State(TypedDict):
    answers: Annotated[list[str], operator.add]
    routing: Annotated[dict[str, Any], join]


def verdicts() -> list[dict[str, Any]]:
    """The state each branch adds, as its step's decision leaves it."""
    policy = Policy.default()
    found: list[dict[str, Any]] = []
    for number in range(BRANCHES):
        step = Step.from_messages(f"{SORROW} {number}" if number % 7 == 0 else f"job {number}", task_class=MIXED[number % len(MIXED)])
        found.append(policy.decide(step, conditions=Conditions(now_s=1_000 + number), key=f"work:{number}").state.to_json())
    return found


def test_the_joined_state_is_the_same_for_every_order_and_grouping() -> None:
    left = verdicts()
    expected = json.dumps(reduce(join, left, {}), sort_keys=True)
    assert json.loads(expected)["facts"] == ["distress"]

    for seed in range(SEEDS):
        dice = random.Random(seed)
        waiting = [*left, *dice.sample(left, 20)]  # some are delivered twice
        dice.shuffle(waiting)
        while len(waiting) > 1:  # any two that are there may be joined next, a group with a group too
            one = waiting.pop(dice.randrange(len(waiting)))
            waiting.append(join(one, waiting.pop(dice.randrange(len(waiting)))))
        assert json.dumps(waiting[0], sort_keys=True) == expected, seed


@pytest.mark.parametrize("seed", range(3))
async def test_branches_of_a_real_graph_end_in_any_order(seed: int, books: Books) -> None:
    dice = random.Random(seed)
    pauses = [dice.randrange(12) for _ in range(BRANCHES)]
    model = books.model()

    async def work(job: dict[str, Any]) -> dict[str, Any]:
        for _ in range(pauses[job["number"]]):
            await asyncio.sleep(0)
        reply = await model.ainvoke(job["text"], {"metadata": {"task_class": job["task_class"]}})
        return {"answers": [f"{job['number']} {reply.text}"]}

    builder = StateGraph(State)
    builder.add_node("work", work)
    jobs = [{"number": number, "text": f"job {number}", "task_class": MIXED[number % len(MIXED)]} for number in range(BRANCHES)]
    builder.add_conditional_edges(START, lambda _: [Send("work", job) for job in jobs], ["work"])
    builder.add_edge("work", END)
    done = await builder.compile().ainvoke({"answers": [], "routing": {}}, {"configurable": {"thread_id": "t"}})

    assert sorted(int(answer.split()[0]) for answer in done["answers"]) == list(range(BRANCHES))
    tiers = {int(answer.split()[0]): answer.split()[1] for answer in done["answers"]}
    strong = {number for number, job in enumerate(jobs) if job["task_class"] in ("empathy_escalation", "agentic_chain", "debug_refactor")}
    assert {number for number, word in tiers.items() if word == "no"} == strong
    assert len(books.entries) == BRANCHES
