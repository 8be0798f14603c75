"""What shadow mode would save is reckoned from the tokens that were spent, at the price of the tier that was decided."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from routed_agents.economics import tokenizer_factor
from routed_agents.guards import Assessment, Guard, Verdict, named
from routed_agents.ledger import Ledger
from routed_agents.offline.shadow import would_save
from routed_agents.policy import Mode, Policy
from routed_agents.pricing import Prices, Usage
from routed_agents.router import Router
from routed_agents.steps import Step
from routed_agents.telemetry import Telemetry
from routed_agents.tiers import Deployment, Tiers

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
PRICES = Prices({OPUS: {"input": "10", "output": "50"}, HAIKU: {"input": "1", "output": "5"}})
CHEAP, STRONG = "classification", "agentic_chain"


def recorded(
    *classes: str,
    mode: Mode = "shadow",
    tiers: Tiers | str = "claude",
    guards: Sequence[Guard] | None = None,
    prices: Prices = PRICES,
    path: Path | None = None,
) -> Ledger:
    """A ledger of steps of 1,000 prompt and 100 reply tokens each."""
    ledger = Ledger.memory() if path is None else Ledger.sqlite(path)
    policy = Policy.default(mode=mode, tiers=tiers)
    router = Router(policy if guards is None else policy.replace(guards=guards), ledger=ledger, prices=prices, telemetry=Telemetry.off())
    usage: Any = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    for task_class in classes:
        with router.step(Step.from_messages("hello", task_class=task_class)) as call:
            for attempt in call.attempts():
                with attempt:
                    attempt.record(AIMessage("well done", usage_metadata=usage, response_metadata={"model_name": OPUS}))
    return ledger


def test_steps_that_could_have_gone_cheap_are_priced_there() -> None:
    table = would_save(recorded(CHEAP, CHEAP, STRONG), Policy.default())
    factor = tokenizer_factor(OPUS, HAIKU)
    assert factor is not None
    now, there = 15_000 * 10**6, round(1000 * factor) * 10**6 + round(100 * factor) * 5 * 10**6

    assert [row[:5] for row in table.rows] == [
        (f"cheap ({HAIKU})", 2, 2 * now, 2 * there, 2 * (now - there)),
        (f"strong ({OPUS})", 1, now, now, 0),
    ]
    assert table.total is not None
    assert table.total[1:5] == (3, 3 * now, 2 * there + now, 2 * (now - there))


def test_what_ran_in_another_mode_is_none_of_it() -> None:
    assert would_save(recorded(CHEAP, mode="enforce"), Policy.default()).rows == ()


NAMELESS = Tiers.of({"cheap": Deployment(model="a-model-of-ours"), "strong": Deployment(model=OPUS, provider="anthropic")})


def test_a_call_without_a_price_is_counted_and_in_no_sum() -> None:
    assert would_save(recorded(CHEAP, tiers=NAMELESS), Policy.default()).rows == (("cheap (a-model-of-ours)", 1, 0, 0, 0, None, 1, 0, 0),)


def test_a_call_that_was_cut_off_makes_the_cost_a_lower_bound() -> None:
    kept = Ledger.memory()
    for each in recorded(CHEAP).entries():
        kept.append(replace(each, usage=Usage(input=9, source="estimated"), outcome="abandoned"))

    table = would_save(kept, Policy.default())

    assert table.total is not None
    assert table.total[-3:] == (0, 1, 1)
    assert any(note.startswith("1 call is estimated, 1 by the prompt alone") for note in table.notes)


@pytest.mark.parametrize("rate", ["0.5", "1", "20"])
def test_models_and_prices_are_those_of_the_router_that_decided(rate: str) -> None:
    three = Tiers.preset_named("claude-2026-11-three")
    own = Prices({OPUS: {"input": "10", "output": "0"}, SONNET: {"input": rate, "output": "0"}})
    two = Tiers.of({"cheap": three.named("mid").deployments, "strong": three.named("strong").deployments})
    factor = tokenizer_factor(OPUS, SONNET)
    assert factor is not None

    table = would_save(recorded(CHEAP, tiers=two, prices=own), Policy.default())
    assert [row[:4] for row in table.rows] == [(f"cheap ({SONNET})", 1, 10_000 * 10**6, round(1000 * factor) * int(float(rate) * 10**6))]
    assert not any("estimate" in note for note in table.notes)


@named("halt", version="1")
def halt(seen: Assessment) -> Verdict | None:
    return Verdict(guard="halt", code="halt", stop=True) if seen.features.declared == CHEAP else None


@pytest.mark.parametrize("release", ["this", "an older"])
def test_a_step_that_would_be_stopped_costs_what_it_does_and_would_cost_nothing(release: str) -> None:
    policy = Policy.default().replace(guards=[halt])
    ledger = recorded(CHEAP, STRONG, guards=[halt])
    table = would_save(ledger if release == "this" else older(ledger), policy, prices=PRICES)
    cost = 15_000 * 10**6
    assert table.rows == (("stop", 1, cost, 0, cost, 1.0, 0, 0, 0), (f"strong ({OPUS})", 1, cost, cost, 0, 0.0, 0, 0, 0))
    assert table.total == ("total", 2, ledger.total().cost_pico, cost, cost, 0.5, 0, 0, 0)


def older(ledger: Ledger) -> Ledger:
    """The same, as an older release wrote it."""
    kept = Ledger.memory()
    for each in ledger.entries():
        kept.append(replace(each, decided_model=None, decided_pico=None))
    return kept


def test_what_an_older_release_wrote_is_estimated_by_the_policy_given_and_said_to_be() -> None:
    ledger = recorded(CHEAP, STRONG)
    table = would_save(older(ledger), Policy.default(), prices=PRICES)
    assert table.rows == would_save(ledger, Policy.default()).rows
    [note] = [note for note in table.notes if "estimate" in note]
    told = f"of 2 calls an older release wrote down, what they would cost is an estimate by policy {Policy.default().hash}"
    assert note == told


def test_an_estimate_by_another_policy_says_which_one_decided() -> None:
    table = would_save(older(recorded(CHEAP, tiers=NAMELESS)), Policy.default(), prices=PRICES)
    decided = Policy.default(tiers=NAMELESS).hash
    assert table.notes[-1].endswith(f"by policy {Policy.default().hash}, but {decided} decided: give that one with --policy")


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
def test_the_report_shows_it_where_something_ran_so(mode: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from routed_agents.cli import main

    recorded(CHEAP, mode=mode, path=tmp_path / "costs.db").close()
    assert main(["report", str(tmp_path / "costs.db")]) == 0
    assert ("would save" in capsys.readouterr().out) == (mode == "shadow")


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
def test_the_page_shows_it_where_something_ran_so(mode: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from routed_agents.cli import main

    out = tmp_path / "page.html"
    recorded(CHEAP, STRONG, mode=mode, path=tmp_path / "costs.db").close()
    assert main(["report", str(tmp_path / "costs.db"), "--html", str(out)]) == 0
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', out.read_text(encoding="utf-8"), re.DOTALL)
    assert data is not None
    shown = json.loads(data[1])["shadow"]
    assert main(["report", str(tmp_path / "costs.db"), "--by", "shadow"]) == 0
    printed = capsys.readouterr().out
    assert (shown is not None) == (mode == "shadow")
    assert all(text in printed for row in (shown or {"rows": []})["rows"] for text in row)
