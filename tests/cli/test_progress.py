from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ids, parsed, said

pty = pytest.importorskip("pty")

COMMAND = [sys.executable, "-m", "routed_agents"]
EXPORT = Path(__file__).parents[1] / "offline" / "exports" / "genai.jsonl"


@pytest.fixture(params=["file", "pipe"])
def watched(request, tmp_path):
    """Runs the command line with a terminal for standard error; gives exit code, standard output and what the terminal showed."""

    def call(*argv, **env):
        master, slave = pty.openpty()
        out = tmp_path / "stdout"
        with out.open("wb") as file:
            to = file if request.param == "file" else subprocess.PIPE
            process = subprocess.Popen([*COMMAND, *argv], stdin=subprocess.DEVNULL, stdout=to, stderr=slave, env={**os.environ, **env})
        os.close(slave)
        shown = b"".join(iter(lambda: _read(master), b""))
        os.close(master)
        piped, _ = process.communicate()
        return process.returncode, (piped or out.read_bytes()).decode(), shown.decode()

    return call


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # nobody holds its other end any more
        return b""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_decisions_go_where_standard_output_goes_while_a_person_watches(term, watched, lines):
    path = lines(*[said("Classify as open or closed: it came late", id=f"s{number}") for number in range(3)], b"not json\n")
    code, out, shown = watched("decide", path, TERM=term)
    assert (code, ids(parsed(out)), "policy_hash" in shown, "line 4" in shown) == (1, ["s0", "s1", "s2"], False, True)


def test_explanations_go_where_standard_output_goes_while_a_person_watches(watched, lines):
    code, out, shown = watched("decide", "--explain", lines(said("hello", id="a")), TERM="xterm")
    assert (code, "confidence" in out, "confidence" in shown) == (0, True, False)


def test_a_summary_of_a_run_goes_where_standard_output_goes_while_a_person_watches(watched, lines, tmp_path):
    graph, results = tmp_path / "loud.py", tmp_path / "out.jsonl"
    graph.write_text(LOUD)
    code, out, shown = watched("run", str(graph), "--input", lines(said("hi", id="a")), "--output", str(results), "--json", TERM="xterm")
    assert (code, [row["ended"] for row in parsed(out)], ids(parsed(results.read_text()))) == (0, [1], ["a"])
    assert "a line of the graph" in shown


def test_what_was_sent_goes_where_standard_output_goes_while_a_person_watches(watched):
    code, out, shown = watched("trace", "send", str(EXPORT), "--endpoint", "http://127.0.0.1:9", "--json", TERM="xterm")
    assert (code, [row["delivered"] for row in parsed(out)], "does not answer" in shown) == (1, [0], True)


LOUD = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

def answer(state):
    print("a line of the graph")
    return {"messages": [AIMessage("quiet")]}

builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile()
"""
