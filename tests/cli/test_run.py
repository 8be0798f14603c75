from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from routed_agents.cli.graphs import LoadedGraph
from routed_agents.cli.run import Summary
from routed_agents.cli.runner import AHEAD, Input, Result, run_inputs
from routed_agents.ledger.bill import Bill

from .conftest import ECHO, ROUTED, ids, parsed, said

COMMAND = [sys.executable, "-m", "routed_agents"]


def read(path: Path) -> list[dict[str, object]]:
    return parsed(path.read_text(encoding="utf-8"))


def test_every_input_gives_one_result_line(cli, lines, echo, tmp_path):
    out = tmp_path / "out.jsonl"
    path = lines(said("hi", id="a", thread="t1"), {"steps": [{"role": "user", "content": "yo"}]}, said("hi", id="a"), name="in.jsonl.gz")
    code, _, err = cli("run", echo, "--input", path, "--output", out)
    rows = {row["id"]: row for row in read(out)}
    unnamed = next(name for name in rows if name.startswith("input-"))
    assert (code, sorted(rows)) == (0, ["a", "a#2", unnamed])
    assert (rows["a"]["thread"], rows["a"]["reply"], rows["a"]["error"], rows[unnamed]["reply"]) == ("t1", "echo hi", None, "echo yo")
    assert "3 inputs ended" in err


def test_results_go_to_standard_output_without_an_output_file(cli, lines, echo):
    code, out, _ = cli("run", echo, "--input", lines(said("hi", id="a"), said("yo", id="b")), "--limit", "1")
    assert (code, ids(parsed(out))) == (0, ["a"])


@pytest.mark.parametrize("to_file", [True, False])
def test_what_a_graph_prints_is_not_on_standard_output(to_file, cli, lines, tmp_path):
    graph, out = tmp_path / "chatty.py", ["--output", tmp_path / "out.jsonl"] if to_file else []
    told = ECHO.replace('    text = state["messages"]', '    print("a node prints")\n    text = state["messages"]')
    graph.write_text(f"{told}\nprint('a module prints')\ngraph = builder.compile()\n")
    code, said_out, err = cli("run", graph, "--input", lines(said("hi", id="a")), "--json", *out)
    assert (code, len(parsed(said_out))) == (0, 1)
    assert ("a node prints" in err, "a module prints" in err) == (True, True)


@pytest.mark.parametrize("argv", [["run", "{graph}", "--input", "{input}"], ["doctor", "{graph}", "--json"]])
def test_what_a_graph_and_its_processes_print_is_not_on_standard_output(argv, lines, tmp_path):
    graph = tmp_path / "shell.py"
    told = ECHO.replace(
        '    text = state["messages"]', '    print("a node prints")\n    os.system("echo a process prints")\n    text = state["messages"]'
    )
    graph.write_text(f"{told}\ngraph = builder.compile()\n")
    argv = [each.format(graph=graph, input=lines(said("hi", id="a"))) for each in argv]
    ran = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=60, check=False)
    assert len(parsed(ran.stdout)) == 1
    assert ("a node prints" in ran.stderr, "a process prints" in ran.stderr) == (True, True)


def test_failures_are_listed_at_the_end_and_the_rest_is_done(cli, lines, echo, tmp_path):
    path = lines(said("fine", id="good"), *[said("explode", id=f"bad{number}") for number in range(12)])
    code, _, err = cli("run", echo, "--input", path, "--output", tmp_path / "out.jsonl")
    assert code == 1
    assert "bad0: ValueError: boom second line" in err
    assert "and 2 more failed or stopped" in err
    assert "13 inputs ended, 12 failed" in err


def test_bad_input_lines_are_named_and_the_rest_runs(cli, lines, echo, tmp_path):
    out = tmp_path / "out.jsonl"
    wrong = [said("hi", system=[{"type": "text", "text": "Answer in French."}]), said("hi", metadata="x")]
    path = lines(b"not json\n", {"id": "empty", "messages": []}, b"\xff\n", *wrong, said("hi", id="a"))
    code, _, err = cli("run", echo, "--input", path, "--output", out)
    assert (code, ids(read(out))) == (1, ["a"])
    assert [f"line {number}" in err for number in range(1, 7)] == [True, True, True, True, True, False]


def test_run_again_skips_what_ended_well_and_repeats_what_failed(cli, lines, tmp_path, monkeypatch):
    log, out, graph = tmp_path / "log", tmp_path / "out.jsonl", tmp_path / "echo.py"
    monkeypatch.setenv("ECHO_LOG", str(log))
    graph.write_text(f"{ECHO}\ngraph = builder.compile()\n")
    path = lines(said("one", id="a"), said("explode", id="b"))
    assert cli("run", graph, "--input", path, "--output", out)[0] == 1
    with out.open("a") as file:
        file.write('{"id": "c", "thr')  # torn by a crash
    path = lines(said("one", id="a"), said("two", id="b"), said("three", id="c"))
    code, _, err = cli("run", graph, "--input", path, "--output", out)
    assert (code, sorted(ids(read(out)))) == (0, ["a", "b", "c"])
    assert sorted(log.read_text().split()) == ["explode", "one", "three", "two"]
    assert "1 skipped" in err
    assert cli("run", graph, "--input", path, "--output", out, "--restart")[0] == 0
    assert len(log.read_text().split()) == 7


def test_an_input_that_was_stopped_is_told_of_as_long_as_it_is_skipped(cli, lines, tmp_path):
    graph, out = tmp_path / "asking.py", tmp_path / "out.jsonl"
    told = ECHO.replace('    text = state["messages"]', '    interrupt("who answers?")\n    text = state["messages"]')
    graph.write_text(f"from langgraph.types import interrupt\nfrom langgraph.checkpoint.memory import InMemorySaver\n{told}\n{SAVED}")
    argv = ["run", graph, "--input", lines(said("hi", id="a")), "--output", out]
    assert "1 inputs ended, 1 stopped;" in cli(*argv)[2]
    code, _, err = cli(*argv)
    assert (code, "0 inputs ended, 1 skipped, 1 of them stopped before; --restart runs all again" in err) == (1, True)


SAVED = "graph = builder.compile(checkpointer=InMemorySaver())\n"


def test_output_that_holds_something_else_is_not_touched(cli, lines, echo, tmp_path):
    out = tmp_path / "precious.jsonl"
    out.write_text('{"id": 1}\nprecious\n')
    code, _, err = cli("run", echo, "--input", lines(said("hi")), "--output", out)
    assert (code, out.read_text(), list(tmp_path.glob("*.tmp"))) == (2, '{"id": 1}\nprecious\n', [])
    assert "line 1, is no result of run" in err


def test_inputs_of_a_thread_follow_one_another_while_other_threads_go_on(cli, lines, tmp_path, monkeypatch):
    graph, out = tmp_path / "saved.py", tmp_path / "out.jsonl"
    replied = ECHO.replace('f"echo {text}"', "f\"echo {text} after {len(state['messages']) - 1}\"")
    graph.write_text(f"from langgraph.checkpoint.memory import InMemorySaver\n{replied}\n{SAVED}")
    monkeypatch.setenv("ECHO_SLEEP", "0.3")
    path = lines(*[said(f"{thread}{turn}", id=f"{thread}{turn}", thread=thread) for thread in "ab" for turn in range(3)])
    assert cli("run", graph, "--input", path, "--output", out)[0] == 0
    replies = [row["reply"] for row in read(out)]
    assert {str(reply)[5:] for reply in replies[:2]} == {"a0 after 0", "b0 after 0"}
    assert {str(reply)[5:] for reply in replies[2:4]} == {"a1 after 2", "b1 after 2"}
    assert {str(reply)[5:] for reply in replies[4:]} == {"a2 after 4", "b2 after 4"}


def test_a_thread_of_many_inputs_is_not_held_in_memory_whole():
    async def answered(*_: object) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"messages": []}

    read_before, ended = list[int](), list[str]()

    def inputs() -> Iterator[Input]:
        for number in range(2 * AHEAD):
            read_before.append(number - len(ended))
            yield Input(id=f"i{number}", line=number, record=said("hi", thread="t"))

    loaded = LoadedGraph(name="g", graph=SimpleNamespace(ainvoke=answered), router=None)
    asyncio.run(run_inputs(loaded, inputs(), lambda result: ended.append(result.id), concurrency=4))
    assert ended == [f"i{number}" for number in range(2 * AHEAD)]
    assert max(read_before) <= AHEAD + 1


@pytest.mark.parametrize(
    ("waiting", "again", "wanted"),
    [
        ([], "hi", "hi, thought after 1"),
        ([], "hi, mended", "hi, thought after 1, hi, mended, thought after 3"),
        (["answer"], "hi", "hi, thought after 1, hi, thought after 3"),
    ],
)
def test_an_input_that_broke_off_is_taken_up_where_the_saver_has_it(waiting, again, wanted):
    down = True

    async def think(state: MessagesState) -> dict[str, object]:
        return {"messages": [AIMessage(f"thought after {len(state['messages'])}")]}

    async def answer(state: MessagesState) -> dict[str, object]:
        if down:
            raise ValueError("down")
        return {"messages": [AIMessage(", ".join(message.text for message in state["messages"]))]}

    builder = StateGraph(MessagesState).add_sequence([think, answer])
    builder.add_edge(START, "think")
    graph = builder.compile(InMemorySaver(), interrupt_after=waiting)
    loaded, results = LoadedGraph(name="g", graph=graph, router=None), list[Result]()
    for text in ("hi", again):
        given = Input(id="a", line=1, record=said(text))
        asyncio.run(run_inputs(loaded, [given], results.append, concurrency=1))
        down = False
    assert [(result.error, result.reply) for result in results] == [("ValueError: down", None), (None, wanted)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_broken_off_run_goes_on_where_it_stopped(how, cli, lines, echo, tmp_path, monkeypatch):
    log, out = tmp_path / "log", tmp_path / "out.jsonl"
    path = lines(*[said(f"text{number}", id=f"s{number}") for number in range(12)])
    argv = ["run", echo, "--input", path, "--output", str(out), "--concurrency", "2"]
    env = {**os.environ, "ECHO_LOG": str(log), "ECHO_SLEEP": "0.7"}
    with subprocess.Popen([*COMMAND, *argv], stderr=subprocess.PIPE, text=True, env=env) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (out.exists() and out.read_text().count("\n") >= 2):
            time.sleep(0.02)
        process.send_signal(how)
        code = process.wait(20)
        assert process.stderr is not None
        err = process.stderr.read()
    assert "Traceback" not in err
    if how != signal.SIGKILL:
        assert code == 128 + how
        assert "run the same command again to go on" in err
    before = ids(read(out))
    assert 2 <= len(before) < 12
    monkeypatch.setenv("ECHO_LOG", str(log))
    assert cli(*argv)[0] == 0
    assert ids(read(out))[: len(before)] == before
    assert sorted(ids(read(out))) == sorted(f"s{number}" for number in range(12))
    again = log.read_text().split()[len(before) :]
    assert not {str(name).replace("s", "text") for name in before} & set(again[2:])


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ("", "{file}", "has no `graph`; expose a compiled LangGraph graph as `graph`"),
        (f"{ECHO}\nflow = builder.compile()", "{file}", "it has flow: name one, like"),
        (f"{ECHO}\nmodel = 'claude'", "{file}", "it has builder: name one, like"),
        ("graph = 5", "{file}", "wanted a compiled LangGraph graph"),
        ("import nowhere_to_be_found", "{file}", "cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "{file}", "cannot be imported: SystemExit: 3"),
        ("def graph():\n    raise SystemExit(3)", "{file}", "cannot be imported: SystemExit: 3"),
        ("def graph(:", "{file}", "cannot be imported: SyntaxError"),
        ("def graph():\n    raise KeyError('x')", "{file}", "cannot be imported: KeyError"),
        ("", "nothing.py", "nothing.py does not exist"),
        ("", "no_such_module:graph", "neither a file nor a module"),
        ("", "{folder}", "is a directory"),
    ],
)
def test_graph_that_cannot_be_had_is_one_line(source, target, wanted, cli, lines, tmp_path):
    path = tmp_path / "some_graph.py"
    path.write_text(source)
    code, _, err = cli("run", target.format(file=path, folder=tmp_path), "--input", lines(said("hi")))
    assert (code, err.count("\n")) == (2, 1)
    assert wanted in err


@pytest.mark.parametrize(
    "ending",
    [
        "flow = builder",
        "def flow():\n    return builder.compile()",
        "async def flow(config):\n    return builder",
    ],
)
def test_builder_and_factories_are_graphs_too(ending, cli, lines, tmp_path):
    path = tmp_path / "made.py"
    path.write_text(f"{ECHO}\n{ending}\n")
    code, out, _ = cli("run", f"{path}:flow", "--input", lines(said("hi", id="a")))
    assert (code, parsed(out)[0]["reply"]) == (0, "echo hi")


def test_a_module_in_the_working_directory_is_found(cli, lines, tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text(f"{ECHO}\ngraph = builder.compile()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    code, out, _ = cli("run", "beside_me", "--input", lines(said("hi", id="a")))
    assert (code, parsed(out)[0]["reply"]) == (0, "echo hi")


def test_missing_key_is_said_before_anything_runs(cli, lines, tmp_path, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    graph = tmp_path / "touches.py"
    graph.write_text(f"open({str(tmp_path / 'touched')!r}, 'w').close()")
    code, _, err = cli("run", graph, "--input", lines(said("hi")), "--provider", "anthropic")
    assert (code, err.count("\n"), (tmp_path / "touched").exists()) == (2, 1, False)
    assert "ANTHROPIC_API_KEY is not set; --provider anthropic needs it" in err


def test_closed_port_is_said_before_anything_runs(cli, lines, routed, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{port}")
    code, _, err = cli("run", routed, "--input", lines(said("hi")), "--provider", "anthropic")
    assert (code, err.count("\n")) == (2, 1)
    assert f"nothing answers at http://127.0.0.1:{port} (ANTHROPIC_BASE_URL)" in err


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--input", "nothing.jsonl"], "input file nothing.jsonl does not exist"),
        (["--input", "{input}", "--output", "no/where/out.jsonl"], "the folder of --output no/where/out.jsonl does not exist"),
        (["--input", "."], "input file . is a directory"),
        (["--input", "{input}", "--policy", "{policy}"], 'unknown tier "opus"'),
        (["--input", "{input}", "--trace", "{pretty}"], "holds something else than a trace; name another file"),
        (["--input", "{input}", "--trace", "{policy}"], "holds something else than a trace; name another file"),
    ],
)
def test_wrong_file_is_one_line(argv, wanted, cli, lines, echo, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[[floor]]\ntier = "opus"\n')
    pretty = tmp_path / "pretty.json"
    pretty.write_text('{\n  "name": "mine"\n}\n')
    path = lines(said("hi"))
    code, _, err = cli("run", echo, *[each.format(input=path, policy=policy, pretty=pretty) for each in argv])
    assert (code, err.count("\n"), wanted in err) == (2, 1, True)


def test_a_node_that_ends_the_program_is_one_line(cli, lines, tmp_path):
    graph = tmp_path / "leaving.py"
    graph.write_text(f"{ECHO.replace('raise ValueError', 'raise SystemExit')}\ngraph = builder.compile()\n")
    code, _, err = cli("run", graph, "--input", lines(said("explode")))
    assert (code, err.count("\n"), "ended the program (SystemExit: boom" in err) == (2, 1, True)


def test_input_may_be_a_pipe(cli, echo, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_text(json.dumps(said("hi", id="a"))), daemon=True).start()
    code, out, _ = cli("run", echo, "--input", pipe)
    assert (code, ids(parsed(out))) == (0, ["a"])


def test_routed_run_leaves_bill_ledger_and_trace_that_agree(lines, routed, tmp_path, cli):
    ledger, trace, out = tmp_path / "costs.db", tmp_path / "trace.jsonl", tmp_path / "out.jsonl"
    easy = said("Classify the sentiment as positive or negative: lovely", id="easy", metadata={"tenant": "acme"})
    hard = said("I lost my husband and I can't cope. Please answer me.", id="hard")
    argv = ["run", routed, "--input", lines(easy, hard), "--output", str(out), "--ledger", str(ledger), "--trace", str(trace)]
    env = {key: value for key, value in os.environ.items() if key != "ANTHROPIC_API_KEY"}
    ran = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, env=env, timeout=60, check=False)
    assert (ran.returncode, "(simulated)" in ran.stderr) == (0, True), ran.stderr
    rows = {str(row["id"]): row for row in read(out)}
    bills = {name: row["bill"] for name, row in rows.items()}
    assert (bills["easy"]["cheap"], bills["hard"]["cheap"], bills["hard"]["simulated"]) == (1, 0, True)
    trees = parsed(cli("trace", "tree", trace, "--json")[1])
    report = json.loads(cli("report", ledger, "--by", "tier", "--by", "label:tenant", "--json")[1])
    spent = sum(bill["cost_pico"] for bill in bills.values())
    assert sum(int(tree["cost_pico"]) for tree in trees) == spent > 0
    assert float(report["tables"][0]["total"]["cost_usd"]) == pytest.approx(spent / 1e12)
    assert "acme" in [row["tenant"] for row in report["tables"][1]["rows"]]
    assert "hard" in cli("trace", "tree", trace, "--input", "hard")[1]
    assert "Cost by tier (simulated)" in cli("report", ledger)[1]
    step = next(row["step"] for row in map(json.loads, _steps(ledger)) if row["tier"] == "strong")
    code, told, _ = cli("why", step, "--trace", trace, "--ledger", ledger)
    assert code == 0
    assert f"step {step}, as traced in" in told
    assert f"step {step}, as recorded in" in told
    assert "empathy" in told


def test_a_torn_trace_costs_the_next_run_nothing(lines, routed, tmp_path, cli):
    trace = tmp_path / "trace.jsonl"
    for number in range(2):
        argv = ["run", routed, "--input", lines(said("hi", id=f"run-{number}")), "--trace", str(trace)]
        subprocess.run([*COMMAND, *argv], capture_output=True, timeout=60, check=True)
        if number == 0:
            os.truncate(trace, trace.stat().st_size - 200)  # as a kill or a full disk leaves it
    code, out, err = cli("trace", "tree", trace, "--json")
    assert (code, [tree["input_id"] for tree in parsed(out)], "line 1" in err) == (1, ["run-1"], True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to be had")
def test_spans_that_found_no_room_are_said_to_be_lost(lines, routed):
    argv = ["run", routed, "--input", lines(said("hi", id="a")), "--trace", "/dev/full"]
    ran = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "/dev/full: 3 spans could not be written" in ran.stderr, "Traceback" in ran.stderr) == (1, True, False)


def test_a_terminated_run_leaves_a_trace_of_every_input_that_ended(lines, routed, tmp_path, cli):
    trace, out, kept = tmp_path / "trace.jsonl", tmp_path / "out.jsonl", tmp_path / "kept"
    kept.mkdir()
    path = lines(*[said("Classify the sentiment as positive or negative: lovely", id=f"s{number}") for number in range(400)])
    argv = ["run", routed, "--input", path, "--output", str(out), "--trace", str(trace)]
    with subprocess.Popen([*COMMAND, *argv], stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(kept)}) as process:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and not (out.exists() and out.read_text().count("\n") >= 20):
            time.sleep(0.01)
        process.terminate()
        code = process.wait(20)
    traced = {tree["input_id"] for tree in parsed(cli("trace", "tree", trace, "--json")[1])}
    assert (code, set(ids(read(out))) - traced, list(kept.iterdir())) == (143, set(), [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_a_graph_forked_ends_by_sigterm(cli, lines, tmp_path):
    graph, out = tmp_path / "forking.py", tmp_path / "out.jsonl"
    forked = """    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    time.sleep(0.5)
    child.terminate()
    child.join(20)
    text = str(child.exitcode)
"""
    told = ECHO.replace('    text = state["messages"][-1].content\n', forked)
    graph.write_text(f"import multiprocessing, time\n{told}\ngraph = builder.compile()\n")
    assert cli("run", graph, "--input", lines(said("hi", id="a")), "--output", out)[0] == 0
    assert read(out)[0]["reply"] == "echo -15"


def test_a_ledger_that_somebody_else_holds_costs_no_result(lines, tmp_path):
    graph, ledger, out = tmp_path / "held.py", tmp_path / "costs.db", tmp_path / "out.jsonl"
    held = ROUTED.replace(
        '    return {"messages": [await model.ainvoke(state["messages"])]}',
        """    if not holder.in_transaction:
        holder.execute("BEGIN IMMEDIATE")
        threading.Thread(target=let_go).start()
    reply = await model.ainvoke(state["messages"])
    if "cuckoo" in state["messages"][-1].content:
        raise ValueError("after the call")
    return {"messages": [reply]}""",
    ).replace("compile()", "compile(checkpointer=InMemorySaver())")
    around = f"""
import os, pathlib, sqlite3, threading, time
import routed_agents.ledger.ledger
from langgraph.checkpoint.memory import InMemorySaver

routed_agents.ledger.ledger.WAIT_S = 0.2

def let_go():
    while pathlib.Path({str(out)!r}).read_text().count("\\n") < 3:
        time.sleep(0.05)
    holder.rollback()
{held}
holder = sqlite3.connect(os.environ["ROUTED_AGENTS_LEDGER"], isolation_level=None, check_same_thread=False)
"""
    graph.write_text(around)
    path = lines(*[said(f"Is '{word}' rude? Answer yes or no.", id=word, thread="t") for word in ("x", "y", "cuckoo")])
    argv = ["run", str(graph), "--input", path, "--output", str(out), "--ledger", str(ledger)]
    ran = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=60, check=False)
    rows = {row["id"]: row for row in read(out)}
    bills = [rows[word]["bill"] for word in ("x", "y", "cuckoo")]
    assert (ran.returncode, "3 inputs ended, 1 failed" in ran.stderr, len(_steps(ledger))) == (1, True, 3)
    assert [(bill["steps"], bill["cost_pico"] > 0, bill["unpriced"]) for bill in bills] == [(1, True, 1), (1, True, 1), (0, False, 1)]


def test_half_a_character_in_an_id_costs_neither_bill_nor_entries(lines, routed, tmp_path):
    ledger, trace, out = tmp_path / "costs.db", tmp_path / "trace.jsonl", tmp_path / "out.jsonl"
    argv = ["run", routed, "--input", lines(said("Classify the sentiment as positive or negative: lovely", id="cut \ud801"))]
    env = {key: value for key, value in os.environ.items() if key != "ANTHROPIC_API_KEY"}
    argv += ["--output", str(out), "--ledger", str(ledger), "--trace", str(trace)]
    ran = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, env=env, timeout=60, check=False)
    (row,) = read(out)
    assert (ran.returncode, row["error"], row["bill"]["steps"], len(_steps(ledger)), "lost" in ran.stderr) == (0, None, 1, 1, False)


def _steps(ledger: Path) -> list[str]:
    from routed_agents.ledger import Ledger

    with Ledger.sqlite(ledger) as opened:
        return [json.dumps({"step": entry.step_id, "tier": entry.tier}) for entry in opened.entries()]


def test_environment_is_as_before_after_a_run(cli, lines, echo, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "mine")
    before = dict(os.environ)
    cli("run", echo, "--input", lines(said("hi")))
    assert dict(os.environ) == before


def test_the_summary_of_a_run_counts_what_is_estimated(capsys):
    summary = Summary()
    summary.add(Result(id="a", thread="t", line=1, seconds=0.0, bill=Bill(cost_pico=10**9, steps=2, estimated=2, output_unknown=1)))
    summary.show(Namespace(json=False, output=None))

    assert (summary.to_record()["estimated"], summary.to_record()["output_unknown"]) == (2, 1)
    assert "at least $0.0010 (2 estimated)" in capsys.readouterr().err
