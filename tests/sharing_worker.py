"""A worker of a multi-process test: makes a step that must be strong for each line it reads, and prints the deployments it tried."""

from __future__ import annotations

import json
import sys

import anthropic

from routed_agents import Ledger, Policy, Router, Step, Telemetry
from routed_agents.health import Health
from routed_agents.health_store import RedisHealthStore, SqliteHealthStore
from routed_agents.tiers import Tiers

TIERS = Tiers.of({"cheap": "anthropic:claude-haiku-5-5", "strong": ["anthropic:claude-opus-5-5", "anthropic:claude-opus-5"]})


def store_at(place: str) -> object:
    if not place:
        return None
    if place.startswith("redis://"):
        import redis

        return RedisHealthStore(redis.Redis.from_url(place, socket_timeout=2))
    return SqliteHealthStore(place)


def main(place: str) -> None:
    health = Health(store=store_at(place))
    router = Router(Policy.default(tiers=TIERS), ledger=Ledger.memory(), telemetry=Telemetry.off(), health=health)
    client = anthropic.Anthropic(max_retries=0)
    print(json.dumps("ready"), flush=True)  # noqa: T201
    for _ in sys.stdin:
        tried: list[str] = []
        with router.step(Step.from_messages("Plan and act", task_class="agentic_chain")) as call:
            for attempt in call.attempts():
                with attempt:
                    tried.append(attempt.deployment.name)
                    said = [{"role": "user", "content": "Plan and act"}]
                    attempt.record(client.messages.create(model=attempt.model, max_tokens=16, messages=said))
        print(json.dumps(tried), flush=True)  # noqa: T201


main(sys.argv[1])
