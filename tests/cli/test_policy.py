from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from routed_agents.policy import Policy

from .conftest import said

EASY = "Classify the sentiment as positive or negative: lovely"


def test_check_says_ok_or_the_one_error_line(cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('stance = "frugal"\n')
    code, out, err = cli("policy", "check", path)
    assert (code, err) == (0, "")
    assert "is in order: frugal" in out
    path.write_text('[[floor]]\ntier = "opus"\n')
    code, out, err = cli("policy", "check", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert 'unknown tier "opus"' in err
    assert "line 2, [[floor]]; known tiers: cheap, strong." in err


def test_check_names_malformed_toml_by_line_and_column(cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("stance = \n")
    code, out, _ = cli("policy", "check", path, "--json")
    assert code == 1
    assert "line 1, column 10, is not TOML" in json.loads(out)["error"]


def test_check_tells_of_models_without_a_price(cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('[tiers]\ncheap = "our-own-model"\nstrong = "anthropic:claude-opus-5-5"\n')
    code, _, err = cli("policy", "check", path)
    assert (code, 'no price is known for "our-own-model"' in err) == (0, True)


@pytest.mark.parametrize(
    ("cheap", "wanted"),
    [
        ("anthropic:claude-opus-5-5", 'tier "cheap" (claude-opus-5-5) is dearer than tier "strong" (claude-haiku-5-5): are they swapped?'),
        ("anthropic:claude-haiku-5-5", 'tiers "cheap" and "strong" are the same model'),
    ],
)
def test_check_tells_of_tiers_in_no_order(cheap, wanted, cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(f'[tiers]\ncheap = "{cheap}"\nstrong = "anthropic:claude-haiku-5-5"\n')
    code, _, err = cli("policy", "check", path)
    assert (code, err.count("\n"), wanted in err) == (0, 1, True)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[tiers]\ncheap = "anthropic:"\nstrong = "x"\n', '"anthropic:" names no model in {file}, line 2, [tiers]'),
        ('[checks.judge]\nmodel = ""\ntask_classes = ["classification"]\n', 'model is "" in {file}, line 2, [checks.judge]; wanted'),
        (f"x = {'1' * 5000}\n", "{file} holds a number that cannot be read"),
    ],
)
def test_what_names_no_model_and_what_is_no_number_is_named_with_its_place(text, wanted, cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    code, _, err = cli("policy", "check", path)
    assert (code, err.count("\n"), wanted.format(file=path) in err) == (1, 1, True)


def test_show_takes_one_policy(cli):
    code, _, err = cli("policy", "show", "a.toml", "--policy", "b.toml")
    assert (code, err.count("\n"), "name one of them" in err) == (2, 1, True)


def test_shown_toml_is_a_policy_file_with_the_same_hash(cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(cli("policy", "show", "--stance", "conservative", "--toml")[1])
    shown = json.loads(cli("policy", "show", path, "--json")[1])
    assert shown["policy_hash"] == Policy.default(stance="conservative").hash


def test_show_names_tiers_dispositions_thresholds_guards_and_hash(cli):
    out = cli("policy", "show")[1]
    for wanted in (Policy.default().hash, "claude-opus-5-5", "escalate_often", "strong from p_strong 0.5", "LongContext", "trusted"):
        assert wanted in out


def test_schema_is_json_schema(cli):
    assert json.loads(cli("policy", "schema")[1])["$schema"].startswith("https://json-schema.org/")


def case(name: str, expect: str, *, strong: bool, kind: str | None = None) -> dict[str, object]:
    return said(EASY, id=name, expect=expect, kind=kind, task_class="agentic_chain" if strong else None)


def test_a_promise_of_99_percent_needs_299_cases_without_a_miss(cli, lines):
    few = lines(*[case(f"s{number}", "strong", strong=True, kind="distress") for number in range(298)], name="few.jsonl")
    code, out, _ = cli("policy", "test", few, "--require", "distress recall >= 0.99 @95%")
    assert (code, "this promise needs 299 cases; there are 298" in out) == (1, True)
    many = lines(*[case(f"s{number}", "strong", strong=True, kind="distress") for number in range(299)])
    code, out, _ = cli("policy", "test", many, "--require", "distress recall >= 0.99 @95%")
    assert (code, "met      distress recall >= 0.99 @95%: 299 of 299" in out) == (0, True)


def test_cases_have_the_same_hash_however_they_come(cli, lines, tmp_path, monkeypatch):
    cases = [case("a", "strong", strong=True), case("b", "cheap", strong=False)]
    plain, packed = lines(*cases), lines(*cases, name="in.jsonl.gz")
    raw = Path(plain).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(raw))))
    seen = {json.loads(cli("policy", "test", each, "--json")[1])["cases_hash"] for each in (plain, packed, "-", piped(tmp_path, raw))}
    assert seen == {hashlib.blake2b(raw, digest_size=8).hexdigest()}


@pytest.mark.parametrize(
    ("text", "code", "wanted"),
    [
        ('stance = "Frugal"\n', 1, '"Frugal"'),
        ('[[floor]]\ntier = "strong"\nlabel = {tenat = "a"}\n', 0, 'Did you mean "tenant"?'),
    ],
)
def test_check_says_the_same_of_a_pipe_as_of_a_file(text, code, wanted, cli, tmp_path):
    (tmp_path / "policy.toml").write_text(text)
    for path in (tmp_path / "policy.toml", piped(tmp_path, text.encode())):
        found, _, err = cli("policy", "check", path)
        assert (found, wanted in err) == (code, True)


def piped(folder: Path, content: bytes) -> str:
    """A named pipe that somebody writes this to, once."""
    path = folder / "pipe"
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
    return str(path)


def test_misses_are_listed_with_line_and_reason(cli, lines):
    path = lines(case("ok", "strong", strong=True), case("lost", "strong", strong=False), case("dear", "cheap", strong=True))
    code, out, _ = cli("policy", "test", path, "--require", "recall >= 50%", "--require", "accuracy >= 0.9", "--require", "precision>=0.5")
    assert code == 1
    assert "met      recall >= 50%: 1 of 2" in out
    assert "NOT MET  accuracy >= 0.9: 1 of 3" in out
    assert "missed lost (line 2): went cheap, wanted strong; classification" in out
    assert "missed dear (line 3): went strong, wanted cheap; agentic_chain" in out


def test_without_a_requirement_only_a_strong_step_sent_cheap_counts(cli, lines):
    assert cli("policy", "test", lines(case("dear", "cheap", strong=True), case("ok", "strong", strong=True)))[0] == 0
    assert cli("policy", "test", lines(case("lost", "strong", strong=False)))[0] == 1


@pytest.mark.parametrize(
    ("require", "wanted"),
    [
        ("recal >= 0.9", "cannot be read; wanted [kind]"),
        ("recall > 0.9", "cannot be read"),
        ("recall >= 99", "wanted a share from 0 to 1"),
        ("recall >= 0.9 @100%", "less than 100"),
        ("recall >= 0.9.9", "holds a number that cannot be read"),
        ("greif recall >= 0.9", 'no case is of kind "greif"; known kinds: grief'),
    ],
)
def test_requirement_that_cannot_be_meant_is_one_line(require, wanted, cli, lines):
    code, _, err = cli("policy", "test", lines(case("a", "strong", strong=True, kind="grief")), "--require", require)
    assert (code, err.count("\n"), wanted in err) == (2, 1, True)


def test_case_without_expect_is_named_by_line(cli, lines):
    code, _, err = cli("policy", "test", lines(case("a", "strong", strong=True), said("x"), said("x", expect="opus")))
    assert code == 1
    assert 'line 2: "expect" is null; wanted "cheap" or "strong"' in err
    assert 'line 3: "expect" is "opus"' in err


def test_check_doubts_what_can_hardly_be_meant(cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('on_stop = "rais"\n[expiry]\ndistres = 20\n')
    code, _, err = cli("policy", "check", path)
    assert (code, err.count("Did you mean"), err.count("\n")) == (0, 2, 2)
    assert len(json.loads(cli("policy", "check", path, "--json")[1])["doubts"]) == 2


def test_what_the_environment_names_is_shown_and_decides(cli, lines, tmp_path, monkeypatch):
    path = tmp_path / "policy.toml"
    path.write_text('stance = "frugal"\n[[floor]]\ntier = "strong"\nnode = "reply"\n')
    monkeypatch.setenv("ROUTED_AGENTS_POLICY", str(path))
    monkeypatch.setenv("ROUTED_AGENTS_MODE", "shadow")
    shown = json.loads(cli("policy", "show", "--json")[1])
    assert (shown["policy_hash"], shown["mode"]) == (Policy.load(path).hash, "shadow")
    assert json.loads(cli("decide", lines(said(EASY, id="s", node="reply")))[1])["policy_hash"] == shown["policy_hash"]
    assert json.loads(cli("policy", "show", "--tiers", "gpt", "--json")[1])["stance"] == "balanced"


def test_a_mistyped_expectation_is_named(cli, lines):
    _, _, err = cli("policy", "test", lines(case("a", "strong", strong=True), said("x", expct="strong")))
    assert 'line 2: "expct": did you mean "expect"?' in err


@pytest.mark.parametrize("claim", ["accuracy >= 0.999", "accuracy >= 99.9%", "accuracy >= .999"])
def test_a_share_that_is_just_reached_is_met_however_it_is_written(claim, cli, lines):
    cases = lines(*[case(f"c{number}", "strong" if number == 0 else "cheap", strong=False) for number in range(1000)])
    code, out, _ = cli("policy", "test", cases, "--require", claim)
    assert (code, f"met      {claim}: 999 of 1000, 99.900 %" in out) == (0, True)


@pytest.mark.parametrize(("right", "share"), [(57, "57.000 %"), (29, "29.000 %"), (100, "100.000 %")])
def test_a_share_is_printed_as_it_was_counted(right, share, cli, lines):
    cases = lines(*[case(f"c{number}", "cheap" if number < right else "strong", strong=False) for number in range(100)])
    assert f"accuracy: {right} of 100, {share}\n" in cli("policy", "test", cases)[1]


def test_shown_floors_say_where_they_hold(cli, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('[[floor]]\ntier = "strong"\nnode = "reply"\nlabel = { tenant = "bolt" }\ncode = "contract"\npin = "thread"\n')
    assert '  strong     where node = "reply" and tenant = "bolt"; code contract, pinned for the thread\n' in cli("policy", "show", path)[1]


def test_shown_classes_say_from_where_the_middle_tier_serves(cli):
    out = cli("policy", "show", "--tiers", "claude-2026-11-three")[1]
    assert re.search(r"knowledge_qa +partial +strong from p_strong 0\.\d+, mid from 0\.\d+", out)
    assert not re.search(r" route .*mid from", out)


def test_shown_classes_go_to_the_top_tier_by_its_own_name(cli, tmp_path):
    path = tmp_path / "policy.toml"
    models = {"cheap": "claude-haiku-5-5", "strong": "claude-sonnet-5-5", "max": "claude-opus-5-5"}
    path.write_text("[tiers]\n" + "".join(f'{name} = "anthropic:{model}"\n' for name, model in models.items()))
    out = cli("policy", "show", path)[1]
    assert re.search(r"agentic_chain +escalate +always max\n", out)
    assert re.search(r"knowledge_qa +partial +max from p_strong 0\.\d+, strong from 0\.\d+\n", out)
