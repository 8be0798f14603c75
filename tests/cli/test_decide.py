from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from routed_agents.ledger import Ledger
from routed_agents.policy import Policy
from routed_agents.router import Router
from routed_agents.steps import Step

from .conftest import ids, parsed, said

EASY = "Classify the sentiment as positive or negative: lovely"


def test_each_step_record_gives_one_decision_record_in_order(cli, lines):
    path = lines(said(EASY, id="a"), said("Plan", id="b", task_class="agentic_chain"), said(EASY, id="c", whatever={"unknown": "keys"}))
    code, out, err = cli("decide", path)
    rows = parsed(out)
    assert (code, err, ids(rows), [row["tier"] for row in rows]) == (0, "", ["a", "b", "c"], ["cheap", "strong", "cheap"])
    assert rows[0] == Policy.default().decide(Step.from_record(said(EASY, id="a"))).to_record()


def test_same_file_gives_the_same_bytes_also_without_ids(cli, lines):
    path = lines(said(EASY), said("hello"))
    assert cli("decide", path) == cli("decide", path)


def test_gzip_and_standard_input_read_like_a_plain_file(cli, lines, monkeypatch):
    records = [said(EASY, id="a"), said("hi", id="b")]
    plain = cli("decide", lines(*records))
    packed = lines(*records, name="in.jsonl.gz")
    assert cli("decide", packed) == plain
    for raw in (Path(packed).read_bytes(), b"".join(json.dumps(each).encode() + b"\n" for each in records)):
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(raw)))
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli("decide", "-") == plain


def test_bad_lines_are_named_and_the_rest_is_decided(cli, lines):
    path = lines(
        said(EASY, id="good"),
        b'{"messages": [{"role": "user", "content": "caf\xe9"}]}\n',
        b"not json\n",
        b"\n",
        {"id": "empty", "messages": []},
        {"id": "martian", "messages": [{"role": "martian", "content": "x"}]},
        [1, 2],
        {"id": "none"},
        {"id": "odd", "messages": ["hello"]},
        b"[" * 100_000 + b"\n",
        {"id": "mute", "messages": [{"role": "user", "text": EASY}]},
        said(EASY, id="typo", task_clas="classification"),
        {"steps": [{"role": "user", "content": "a trajectory"}], "id": "steps"},
    )
    code, out, err = cli("decide", path)
    assert (code, ids(parsed(out))) == (1, ["good", "steps"])
    found = [line.split("line ", 1)[1] for line in err.splitlines()]
    wanted = ["2: not UTF-8: byte 0xe9", "3: not JSON", "5: messages is empty", "6: a message has the role 'martian'", "7: a list"]
    wanted += ["8:", "9:", "10:", '11: message 1 has no "content"', '12: "task_clas": did you mean "task_class"?']
    assert [line[: len(start)] for line, start in zip(found, wanted, strict=True)] == wanted


def test_json_over_several_lines_is_said_once(cli, lines):
    path = lines(json.dumps([said(EASY, id="a"), said("hi", id="b")], indent=2).encode())
    code, out, err = cli("decide", path)
    assert (code, out, err.count("\n"), "line 1: JSON over several lines; wanted JSON lines" in err) == (1, "", 1, True)


@pytest.mark.parametrize(("closed", "wanted"), [("stdin", "standard input is closed"), ("stdout", "standard output is closed")])
def test_a_closed_stream_is_one_line(closed, wanted, cli, monkeypatch):
    monkeypatch.setattr(sys, closed, None)
    code, _, err = cli("decide", "-")
    assert (code, err.count("\n"), wanted in err) == (2, 1, True)


def test_control_characters_of_a_step_reach_no_terminal(cli, lines):
    path = lines(said(EASY, id="a\x1b[31m"))
    for argv in (["decide", path, "--explain"], ["why", "a\x1b[31m", "--steps", path], ["why", "b\x1b[31m", "--steps", path]):
        _, out, err = cli(*argv)
        assert ("\x1b" in out + err, "\\x1b[31m" in out + err) == (False, True)


def test_five_megabyte_message_is_decided(cli, lines):
    code, out, err = cli("decide", lines(said("word " * 1_000_000, id="long")))
    row = parsed(out)[0]
    assert (code, err, row["tier"]) == (0, "", "strong")
    assert "long_context" in [reason["code"] for reason in row["reasons"]]


def test_gzip_that_breaks_off_keeps_what_could_be_read(cli, lines, tmp_path):
    whole = Path(lines(*[said(EASY, id=f"s{number}") for number in range(2000)], name="whole.jsonl.gz")).read_bytes()
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(whole[: len(whole) // 2])
    code, out, err = cli("decide", torn)
    assert code == 1
    assert out.startswith('{"id": "s0"')
    assert "the file breaks off" in err


def test_many_bad_lines_are_counted_not_all_shown(cli, lines):
    code, _, err = cli("decide", lines(*[b"{\n"] * 250))
    assert (code, err.count("\n")) == (1, 101)
    assert err.endswith("150 more lines cannot be read\n")


def test_explain_is_for_people_and_json_keeps_it_in_a_record(cli, lines):
    path = lines(said(EASY, id="a"))
    assert "step a: cheap" in cli("decide", path, "--explain")[1]
    assert "step a: cheap" in parsed(cli("decide", path, "--explain", "--json")[1])[0]["explanation"]


def test_lone_surrogate_in_a_record_does_not_end_the_run(cli, lines):
    odd = b'{"id": "\\ud800", "messages": [{"role": "user", "content": "\\ud800 hi"}]}\n'
    code, out, _ = cli("decide", lines(odd, said("hi", id="b")), "--explain")
    assert code == 0
    assert "step b" in out


@pytest.mark.parametrize(("stance", "tier"), [("frugal", "cheap"), ("conservative", "strong")])
def test_stance_on_the_command_line_wins_over_the_file(stance, tier, cli, lines, tmp_path):
    policy = tmp_path / "p.toml"
    policy.write_text('stance = "balanced"\n')
    path = lines(said("Why did the Roman Empire fall?", id="a", task_class="knowledge_qa"))
    assert parsed(cli("decide", path, "--policy", policy, "--stance", stance)[1])[0]["tier"] == tier


def test_why_decides_a_recorded_step_again_and_says_when_it_is_not_there(cli, lines):
    path = lines(said("hi", id="a"), said(EASY, id="b"))
    code, out, _ = cli("why", "b", "--steps", path)
    assert (code, "classification" in out) == (0, True)
    assert cli("why", "zzz", "--steps", path)[0] == 1


def test_why_takes_the_beginning_of_an_id_that_no_other_step_has(cli, lines):
    path = lines(said(EASY, id="b1a"), said("hi", id="b1"), said("hi", id="b2"))
    assert json.loads(cli("why", "b1a", "--steps", path, "--json")[1])["step"] == "b1a"
    assert json.loads(cli("why", "b1", "--steps", path, "--json")[1])["step"] == "b1"
    assert json.loads(cli("why", "b2…", "--steps", path, "--json")[1])["step"] == "b2"
    code, _, err = cli("why", "b", "--steps", path)
    assert (code, "3 steps in" in err, "such as b1a and b1; give more of the id" in err) == (2, True, True)


def test_why_says_of_a_call_that_was_cut_off_that_it_cost_at_least_its_prompt(cli, tmp_path):
    ledger = Ledger.sqlite(tmp_path / "costs.db")
    call = Router("claude", ledger=ledger).step(Step.from_messages([("user", "Hello " * 9_000)]))

    with pytest.raises(TimeoutError):
        cut_off(call)
    ledger.close()
    told = cli("why", call.entries[0].step_id, "--ledger", tmp_path / "costs.db")[1]

    assert told.count("at least $") == 2
    assert " estimated, " in told


def cut_off(call):
    with call:
        for attempt in call.attempts():
            with attempt:
                raise TimeoutError
