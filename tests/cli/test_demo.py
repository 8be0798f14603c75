from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def demo(*argv: str, where: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "routed_agents", "demo", *argv], capture_output=True, text=True, cwd=where, timeout=60, check=False
    )


def test_demo_shows_trees_tables_and_equal_sums_and_starts_afresh_the_second_time(tmp_path):
    out = tmp_path / "out"
    ran = demo("--limit", "1", "--out", str(out))
    assert (ran.returncode, ran.stderr) == (0, "")
    wanted = ["support_desk · desk-001", "agent_chain · buy-01", "Kept strong", "Cost by tier", "equal to the pico", "no money was spent"]
    assert [each for each in (*wanted, str(out / "trace.jsonl"), str(out / "ledger.db")) if each not in ran.stdout] == []
    document = json.loads(demo("--graph", "agent_chain", "--limit", "1", "--out", str(out), "--json").stdout)
    assert (document["simulated"], document["sums_equal"], document["ended"]) == (True, True, 1)


def test_demo_without_a_key_for_the_real_provider_is_one_line(cli, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    code, out, err = cli("demo", "--provider", "anthropic")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_demo_into_a_file_is_one_line(cli, tmp_path):
    (tmp_path / "out").write_text("x")
    code, _, err = cli("demo", "--out", tmp_path / "out")
    assert (code, "is a file; name a folder" in err) == (2, True)


def test_demo_touches_no_ledger_and_no_trace_it_did_not_write(cli, tmp_path):
    for name in ("ledger.db", "trace.jsonl"):
        (tmp_path / name).write_text("precious")
        code, _, err = cli("demo", "--limit", "1", "--out", tmp_path)
        assert (code, err.count("\n"), f"holds a {name} that no demo" in err) == (2, 1, True)
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()
