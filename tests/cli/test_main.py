from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import said

COMMAND = [sys.executable, "-m", "routed_agents"]


def test_help_starts_quickly_and_loads_no_framework():
    heavy = "{'pydantic', 'rich', 'langchain_core', 'opentelemetry', 'asyncio'}"
    code = f"import sys; from routed_agents.cli import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - began < 1.0  # 0.08 s on a free machine


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["decied", "x"], 'Did you mean "decide"?'),
        (["decide"], "required: FILE"),
        (["decide", "x", "--stance", "cheap"], "invalid choice: 'cheap'"),
        (["run", "x.py", "--input", "y", "--concurrency", "0"], "no whole number from 1 up"),
        (["decide", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["decide", "."], ". is a directory"),
        (["decide", "-", "--tiers", "claud"], "known presets"),
        (["decide", "-", "--policy", "nothing.toml"], "does not exist"),
        (["why", "s1"], "give --trace FILE"),
        (["why", "s1", "--ledger", "nothing.db"], "nothing.db does not exist"),
        (["trace", "tree", "nothing.jsonl"], "does not exist"),
        (["report", "nothing.db"], "does not exist"),
        (["policy", "check", "nothing.toml"], "does not exist"),
    ],
)
def test_misuse_is_one_line_and_exit_2(argv, wanted, cli):
    code, out, err = cli(*argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert wanted in err


def test_reader_that_goes_away_is_no_error(lines):
    path = lines(*[{"id": f"s{number}", "messages": [{"role": "user", "content": "hello"}]} for number in range(3000)])
    with subprocess.Popen([*COMMAND, "decide", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(20)) == (b"", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to be had")
@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["run", "{graph}", "--input", "{input}", "--output", "/dev/full"], "/dev/full"),
        (["decide", "{input}"], "standard output or a temporary file"),
    ],
)
def test_a_full_disk_is_told_with_what_was_to_be_written(argv, named, lines, echo):
    given = [each.format(graph=echo, input=lines(said("hi"))) for each in argv]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([*COMMAND, *given], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=env)
    assert (ran.returncode, ran.stderr) == (2, f"routed-agents: {named}: no space left on device\n")
