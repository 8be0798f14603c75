"""A fork waits for a thread's work, not for a thread that hangs; the child begins afresh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BETWEEN = """
import os, threading, time
from routed_agents.forking import WAIT_S, Undivided
work, begun, done = Undivided(), threading.Event(), []
def thread():
    with work:
        begun.set()
        time.sleep({busy_s})
        done.append("done")
threading.Thread(target=thread, daemon=True).start()
begun.wait()
began = time.monotonic()
child = os.fork()
if not child:
    with work:
        os._exit(len(done))
waited = time.monotonic() - began
with work:
    pass
print(len(done), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), waited < 5)
"""
CROWD = """
import os, threading, time
from routed_agents.forking import WAIT_S, Undivided
work, done = Undivided(), []
def thread():
    while True:
        with work:
            time.sleep(0.2)
            done.append("done")
for _ in range(6):
    threading.Thread(target=thread, daemon=True).start()
time.sleep(0.1)
waits = []
for _ in range(4):
    began = time.monotonic()
    child = os.fork()
    if not child:
        with work:
            os._exit(0)
    waits.append(time.monotonic() - began)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
before = len(done)
time.sleep(0.7)
print(max(waits) < WAIT_S, len(done) > before)
"""
HANGING = """
import os, threading, time
from routed_agents.forking import WAIT_S, Undivided
hanging, busy, begun, done = [Undivided() for _ in range(8)], Undivided(), threading.Barrier(10), []
def thread(work, busy_s):
    with work:
        begun.wait()
        time.sleep(busy_s)
        done.append("done")
for each in hanging:
    threading.Thread(target=thread, args=(each, 8), daemon=True).start()
threading.Thread(target=thread, args=(busy, 0.3), daemon=True).start()
begun.wait()
began = time.monotonic()
child = os.fork()
if not child:
    os._exit(len(done))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - began < 2 * WAIT_S)
"""
STORES = """
import os, sys
from routed_agents import Ledger
sys.path.insert(0, {tests!r})
from test_ledger import entry
for number in range({times}):
    with Ledger.sqlite({path!r} + f"/{{number}}.db") as ledger:
        for each in range(50):
            ledger.append(entry(f"parent {{each}}"))
        child = os.fork()
        if not child:
            ledger.append(entry("child"))
            os._exit(0 if ledger.flush(20) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, number
        assert ledger.steps == 51, ledger.steps
print("whole")
"""
MEMORY = """
import os, signal, sys, threading
from routed_agents import Ledger
sys.path.insert(0, {tests!r})
from test_ledger import entry
ledger = Ledger.memory()
for number in range(3000):
    ledger.append(entry(f"parent {{number}}"))
def read():
    while True:
        ledger.total()
for _ in range(2):
    threading.Thread(target=read, daemon=True).start()
for number in range(40):
    ledger.append(entry(f"queued {{number}}"))
    child = os.fork()
    if not child:
        signal.alarm(10)
        ledger.append(entry("child"))
        os._exit(ledger.steps)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1, number
assert ledger.steps == 3040, ledger.steps
print("apart")
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout.strip() or done.stderr


def test_a_fork_waits_for_the_work_to_be_whole() -> None:
    assert run(BETWEEN.format(busy_s=0.3)) == "1 1 True"


def test_a_fork_does_not_wait_for_a_thread_that_hangs_and_the_child_does_not_either() -> None:
    assert run(BETWEEN.format(busy_s=8)) == "1 0 True"


def test_a_fork_waits_no_longer_for_many_threads_that_hang_and_still_for_the_one_that_does_not() -> None:
    assert run(HANGING) == "1 True"


def test_a_fork_goes_before_others_who_wait_for_the_work() -> None:
    assert run(CROWD) == "True True"


def test_a_child_forked_while_the_ledger_is_written_writes_too(tmp_path: Path) -> None:
    assert run(STORES.format(times=30, path=str(tmp_path), tests=str(Path(__file__).parent))) == "whole"


def test_a_child_forked_while_the_ledger_in_memory_is_read_starts_with_an_empty_one() -> None:
    assert run(MEMORY.format(tests=str(Path(__file__).parent))) == "apart"


LOCKS = """
import os, threading, time
from routed_agents.failures import Failure
from routed_agents.health import Health
from routed_agents.state import MemoryStateStore, thread_facts
health, store, entered = Health(), MemoryStateStore(), threading.Barrier(3)
def hold(lock):
    with lock:
        entered.wait()
        time.sleep(0.3)
for each in (health._lock, store._lock):
    threading.Thread(target=hold, args=(each,), daemon=True).start()
entered.wait()
child = os.fork()
if not child:
    health.failed("opus", Failure(trouble="rate_limit"))
    store.add("t", thread_facts(["distress"]))
    os._exit(0)
until = time.monotonic() + 10
while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
    time.sleep(0.01)
if ended == (0, 0):
    os.kill(child, 9)
print(ended[0] == child and os.waitstatus_to_exitcode(ended[1]))
"""


def test_a_child_can_use_the_health_and_the_states_that_a_thread_was_busy_with() -> None:
    assert run(LOCKS) == "0"


QUESTIONS = """
import os, threading, time
from contextlib import nullcontext
from routed_agents.asking import Asking
from routed_agents.questions import Question
from routed_agents.tiers import Deployment
asked = threading.Semaphore(0)
class Slow:
    def ask(self, question, deployment, /, *, timeout_s):
        asked.release()
        time.sleep(0.3)
        return {"content": [{"type": "tool_use", "id": "x", "name": question.name, "input": {}}]}
asking, judge = Asking(Slow(), at_once=2), Deployment.parse("anthropic:claude-haiku-5-5")
def start(text):
    return asking.start(Question(name="answer", system="", text=text, schema={}), judge, 5, opened=nullcontext, read=dict)
for text in ("first", "second"):
    start(text)
    asked.acquire()
child = os.fork()
if not child:
    started = [start(text) for text in ("first", "third")]
    os._exit(0 if all(each and each[1] and each[0].result(5).answer == {} for each in started) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_asks_its_own_questions_whatever_its_parent_was_asking() -> None:
    assert run(QUESTIONS) == "0"


CLIENTS = """
import os
from routed_agents import embedded
from routed_agents.integrations.asking import SdkAsker
from routed_agents.questions import Question, answer_in
from routed_agents.tiers import Deployment
judge = Deployment.parse("{model}")
schema = {{"type": "object", "properties": {{"number": {{"type": "integer"}}}}, "required": ["number"], "additionalProperties": False}}
def ask(text):
    question = Question(name="answer", system="", text=text, schema=schema)
    return answer_in(asker.ask(question, judge, timeout_s=5), "answer")
with embedded.serve(time_scale=0.0) as provider:
    os.environ.update(provider.environ)
    provider.faults.add(embedded.Fault("slow_loris", after_s=0.05, times=100))
    asker = SdkAsker()
    ask("parent")
    children = []
    for child in ("one", "other"):
        children.append(os.fork())
        if not children[-1]:
            for number in range(5):
                ask(f"{{child}} {{number}}")
            os._exit(0)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
    ask("parent again")
"""


@pytest.mark.parametrize("model", ["anthropic:claude-haiku-5-5", "openai:gpt-4o-mini"])
def test_children_ask_over_connections_of_their_own(model: str) -> None:
    assert run(CLIENTS.format(model=model)) == "[0, 0]"


WORKERS = """
import multiprocessing, sys
from routed_agents import Ledger, RoutedChatModel, Router
from routed_agents.offline.traces import read_spans
from routed_agents.telemetry import configure
from routed_agents.testing import ScriptedChatModel

handle = configure(trace_file="trace.jsonl")
router = Router("claude", ledger=Ledger.sqlite("costs.db"))
tiers = {"cheap": ScriptedChatModel(model_name="claude-haiku-5-5"), "strong": ScriptedChatModel(model_name="claude-opus-5-5")}
model = RoutedChatModel(router=router, **tiers)

def work():
    for _ in range(20):
        model.invoke("hi")

if __name__ == "__main__":
    workers = [multiprocessing.get_context(sys.argv[1]).Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(router.ledger.steps, sum(span.name.startswith("chat ") for span in read_spans("trace.jsonl")))
"""


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_a_worker_that_ends_has_written_all_entries_and_spans(tmp_path: Path, start: str) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = subprocess.run([sys.executable, "workers.py", start], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "40 40", done.stderr
