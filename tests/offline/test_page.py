"""The page holds what it should, asks for nothing, and keeps text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tests.offline.test_calls import file_of
from tests.offline.test_report import entry

from routed_agents.offline.calls import Calls
from routed_agents.offline.page import NAME_LENGTH, embedded, page
from routed_agents.pricing import Usage

ATTACK = "<script>alert(1)</script>"


def made(tmp_path: Path, *kept: object, **more: Any) -> tuple[str, dict[str, Any]]:
    with Calls() as calls:
        calls.add_ledger(file_of(tmp_path / "l.db", *kept))
        whole = page(calls, **more)
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', whole, re.S)
    assert data is not None
    return whole, json.loads(data[1])


def test_a_script_in_any_name_stays_text(tmp_path: Path) -> None:
    hostile = entry("a", node=ATTACK, thread=f"{ATTACK}</title>", task_class=ATTACK, codes=(ATTACK,), run="<!--<script>", model=ATTACK)
    whole, data = made(tmp_path, hostile, title=f"</title>{ATTACK}{{{{DATA}}}}")
    assert whole.lower().count("<script") == 2
    assert ATTACK not in whole
    assert (data["chains"][0]["name"], data["steps"][0]["node"], data["cube"]["names"]["node"]) == (f"{ATTACK}</title>", ATTACK, [ATTACK])


def test_json_cannot_end_its_element_or_break_a_line() -> None:
    text = embedded({"x": "</script><!-- & \u2028\u2029 \ud800"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["x"].startswith("</script><!-- & \u2028\u2029")


def test_it_asks_for_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    whole, _ = made(tmp_path, entry("a"))
    assert not re.findall(r"""(?:src|href|action)="(?!data:)|url\(|@import|fetch\(|XMLHttpRequest|innerHTML""", whole)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', whole)
    script = re.search(r"</script>\n<script>(.*?)</script>", whole, re.S)
    assert policy is not None
    assert script is not None
    assert "default-src 'none'" in policy[1]
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() in policy[1]


def test_headline_sums_are_exact_beyond_what_javascript_counts(tmp_path: Path) -> None:
    _, data = made(tmp_path, *[entry(f"s{n}", cost=9 * 10**18 + 1, baseline=None) for n in range(2)])
    assert data["totals"]["words"]["cost"] == "$18,000,000.00"


def test_unpriced_is_never_nothing(tmp_path: Path) -> None:
    whole, data = made(tmp_path, entry("a", cost=None, baseline=None))
    assert (data["steps"][0]["cost"], data["steps"][0]["unpriced"], data["chains"][0]["saving"]) == (None, 1, None)
    assert "cost unpriced" in whole


def test_a_call_that_was_cut_off_makes_the_cost_a_lower_bound(tmp_path: Path) -> None:
    lost = entry("a", usage=Usage(input=9, source="estimated"), baseline=None, outcome="abandoned")
    whole, data = made(tmp_path, lost, entry("b", usage=Usage(input=9, output=4, source="estimated"), baseline=None))
    assert [(row["estimated"], row["output_unknown"]) for row in data["steps"]] == [(1, 1), (1, 0)]
    assert (data["totals"]["estimated"], data["totals"]["output_unknown"]) == (2, 1)
    assert "cost at least $0.0020 (2 estimated)" in whole


def test_simulated_is_said(tmp_path: Path) -> None:
    whole, data = made(tmp_path, entry("a", simulated=True))
    assert (data["totals"]["simulated"], data["steps"][0]["simulated"], "(simulated)" in whole) == (1, True, True)


def test_only_the_dearest_are_in_it(tmp_path: Path) -> None:
    _, data = made(tmp_path, *[entry(f"s{n}", thread=f"t{n}", cost=n) for n in range(20)], chains=3, steps=5)
    assert [row["name"] for row in data["chains"]] == ["t19", "t18", "t17"]
    assert [row["cost"] for row in data["steps"]] == [19, 18, 17, 16, 15]
    assert data["totals"]["steps"] == 20


def test_a_chain_holds_its_calls_in_order(tmp_path: Path) -> None:
    lost = entry("a", outcome="rejected", baseline=None, codes=("check:json_schema",), thread="t", run="r")
    _, data = made(
        tmp_path, lost, entry("a", "strong", attempt=2, thread="t", run="r"), entry("b", thread="t", run="r2", started_ns=5, ended_ns=6)
    )
    (chain,) = data["chains"]
    assert [[step["id"] for step in run["steps"]] for run in chain["runs"]] == [["a"], ["b"]]
    tried = chain["runs"][0]["steps"][0]["tried"]
    assert [(call["tier"], call["outcome"], call["why"]) for call in tried] == [
        ("cheap", "rejected", "json schema"),
        ("strong", "accepted", ""),
    ]


def test_long_names_are_cut(tmp_path: Path) -> None:
    _, data = made(tmp_path, entry("a", node="x" * 9_999))
    assert len(data["steps"][0]["node"]) == NAME_LENGTH


def test_an_empty_ledger_makes_a_page(tmp_path: Path) -> None:
    whole, data = made(tmp_path)
    assert (data["totals"]["steps"], data["chains"], "0 steps" in whole) == (0, [], True)
