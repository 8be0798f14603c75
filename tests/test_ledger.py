"""One entry per model call, kept and added up."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Context, Decimal, Inexact, Rounded, localcontext
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel

from routed_agents.errors import ConfigurationError, LedgerError
from routed_agents.ledger import NONE, Bill, Entry, Ledger, Totals, cost_of, memory
from routed_agents.pricing import Cost, Usage

DOLLAR = 10**12


def entry(step: str = "s1", *, cost: int | None = DOLLAR, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "step_id": step,
        "attempt": 1,
        "task_class": "classification",
        "tier": "cheap",
        "rank": 0,
        "pinned": False,
        "model": "claude-haiku-5-5",
        "usage": Usage(input=10, output=5),
        "cost": None if cost is None else Cost(input=cost),
        "outcome": "accepted",
        "decided_tier": "cheap",
        "policy_hash": "abc",
        "started_ns": 1,
        "ended_ns": 2,
    }
    return Entry(**values | changes)


FULL = entry(
    run="r",
    thread="t",
    lineage="l",
    node="n",
    labels={"tenant": "acme", 'quo"ted': "é"},
    served_model="claude-haiku-5-5-20261007",
    provider="anthropic",
    deployment="d",
    pinned=True,
    usage=Usage(input=1, cache_read=2, speed="fast", batch=True),
    cost=None,
    baseline_pico=9,
    baseline_model="claude-opus-5-5",
    cache_aware_saving_pico=-3,
    codes=("long_context", "pin"),
    error="TimeoutError",
    simulated=True,
    mode="shadow",
    decided_model="claude-haiku-5-5",
    decided_pico=7,
    top=False,
    price_source="prices.toml",
    first_chunk_ns=3,
    decision_ns=4,
    escalated_from="cheap",
)


OLDER = {1: ("decided_model", "decided_pico", "top"), 2: ("top",)}
"""What the versions before this one lack."""


def without(added: tuple[str, ...]) -> Entry:
    """An entry as an older release knew it."""
    return replace(FULL, **dict.fromkeys(added))


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.memory() if request.param == "memory" else Ledger.sqlite(tmp_path / "costs.db") as kept:
        yield kept


# ---- entries


def test_an_entry_survives_its_record_and_plain_json() -> None:
    assert Entry.from_record(json.loads(json.dumps(FULL.to_record()))) == FULL


def test_an_entry_survives_pickling_and_copying() -> None:
    assert pickle.loads(pickle.dumps(FULL)) == copy.deepcopy(FULL) == FULL


@pytest.mark.parametrize("change", [{"v": 4}, {"usage": {"inputs": 1}}, {"surprise": 1}])
def test_a_record_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        Entry.from_record(entry().to_record() | change)


@pytest.mark.parametrize(("version", "added"), OLDER.items())
def test_a_record_of_an_older_release_is_read(version: int, added: tuple[str, ...]) -> None:
    older = {key: value for key, value in FULL.to_record().items() if key not in added} | {"v": version}
    assert Entry.from_record(older) == without(added)


def test_entries_come_back_as_they_went_in(ledger: Ledger) -> None:
    entries = [FULL, entry("s2"), entry("s3", cost=None)]
    for each in entries:
        ledger.append(each)
    assert list(ledger.entries()) == entries


def test_entries_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    with Ledger.sqlite(tmp_path / "costs.db") as before:
        before.append(FULL)
    with Ledger.sqlite(tmp_path / "costs.db") as after:
        assert list(after.entries()) == [FULL]


@pytest.mark.parametrize(
    ("where", "steps"),
    [
        ({"thread": "t1"}, ["a", "b"]),
        ({"thread": None}, ["c"]),
        ({"thread": "t1", "tier": "strong"}, ["b"]),
        ({"tier": ["strong", "cheap"]}, ["a", "b", "c"]),
        ({"labels": {"tenant": "acme"}}, ["b"]),
        ({"since_ns": 2, "until_ns": 3}, ["b"]),
        ({"simulated": True}, ["c"]),
    ],
)
def test_entries_are_picked_by_every_condition_at_once(ledger: Ledger, where: Any, steps: list[str]) -> None:
    ledger.append(entry("a", thread="t1", started_ns=1))
    ledger.append(entry("b", thread="t1", started_ns=2, tier="strong", labels={"tenant": "acme"}))
    ledger.append(entry("c", started_ns=3, simulated=True))
    assert [each.step_id for each in ledger.entries(**where)] == steps


def test_a_filter_or_group_nobody_knows_is_named(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match='"tenant"; known filters: step_id'):
        list(ledger.entries(tenant="acme"))  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match='"tenant"; known: task_class'):
        ledger.totals("tenant")


def test_many_entries_are_streamed_and_a_dropped_iterator_leaves_nothing_open(ledger: Ledger) -> None:
    for number in range(2_500):
        ledger.append(entry(f"s{number}"))
    stream = ledger.entries()
    next(stream)
    del stream
    gc.collect()
    assert sum(1 for _ in ledger.entries()) == 2_500


# ---- sums


def test_a_step_costs_all_its_attempts_and_is_one_step(ledger: Ledger) -> None:
    ledger.append(entry("s1", cost=1, outcome="rejected"))
    ledger.append(entry("s1", cost=2, kind="judge"))
    ledger.append(entry("s1", cost=10, attempt=2, tier="strong", baseline_pico=10))
    assert ledger.total() == Totals(steps=1, attempts=2, cost_pico=13, baseline_pico=10, saving_pico=-3, input=30, output=15)


def test_an_unpriced_call_is_counted_and_its_step_claims_no_saving(ledger: Ledger) -> None:
    ledger.append(entry("s1", cost=1, baseline_pico=5))
    ledger.append(entry("s2", cost=None, baseline_pico=50))
    total = ledger.total()
    assert (total.cost_pico, total.unpriced, total.baseline_pico, total.saving_pico) == (1, 1, 55, 4)


def test_estimated_calls_are_counted_and_one_that_was_cut_off_leaves_its_step_without_a_saving(ledger: Ledger) -> None:
    ledger.append(entry("s1", cost=1, baseline_pico=5, usage=Usage(input=9, output=4, source="estimated")))
    ledger.append(entry("s2", cost=2, usage=Usage(input=9, source="estimated"), outcome="failed"))
    ledger.append(entry("s2", cost=3, baseline_pico=50, attempt=2))
    ledger.append(entry("s3", cost=None, usage=Usage(input=9, source="estimated"), outcome="failed"))
    total = ledger.total()
    assert (total.cost_pico, total.unpriced, total.estimated, total.output_unknown, total.saving_pico) == (6, 1, 2, 1, 4)


def test_groups_add_up_to_the_total(ledger: Ledger) -> None:
    ledger.append(entry("s1", cost=1, outcome="rejected", labels={"tenant": "acme"}))
    ledger.append(entry("s1", cost=10, tier="strong", baseline_pico=10, labels={"tenant": "acme"}))
    ledger.append(entry("s2", cost=2, baseline_pico=8))
    by_tier, by_tenant = ledger.totals("tier"), ledger.totals("label:tenant")
    assert {tier: each.saving_pico for tier, each in by_tier.items()} == {"cheap": 5, "strong": 0}
    assert sum(each.saving_pico for each in by_tier.values()) == ledger.total().saving_pico
    assert {tenant: each.steps for tenant, each in by_tenant.items()} == {NONE: 1, "acme": 1}


def test_a_label_that_reads_like_none_is_in_a_group_too(ledger: Ledger) -> None:
    for step, labels in {"s1": {"tenant": NONE}, "s2": {}, "s3": {"tenant": "acme"}}.items():
        ledger.append(entry(step, cost=1, labels=labels))
    assert {tenant: each.cost_pico for tenant, each in ledger.totals("label:tenant").items()} == {NONE: 2, "acme": 1}


def test_a_sum_may_pass_what_sqlite_can_hold(ledger: Ledger) -> None:
    million = 10**6 * DOLLAR
    for number in range(20):
        ledger.append(entry(f"s{number}", cost=million + number))
    assert ledger.total().cost_pico == 20 * million + 190
    assert ledger.total().cost == Decimal("20000000.000000000190")


@settings(max_examples=30, deadline=None)
@given(costs=st.lists(st.one_of(st.none(), st.integers(0, 2**62)), max_size=30), groups=st.integers(1, 4))
def test_whatever_is_appended_is_in_the_total_and_in_one_group(costs: list[int | None], groups: int) -> None:
    with Ledger.memory() as ledger:
        for number, cost in enumerate(costs):
            ledger.append(entry(f"s{number}", cost=cost, node=f"n{number % groups}"))
        total, parts = ledger.total(), ledger.totals("node").values()
        assert total.cost_pico == sum(cost or 0 for cost in costs) == sum(part.cost_pico for part in parts)
        assert total.steps == len(costs) == ledger.steps == sum(part.steps for part in parts)
        assert total.unpriced == costs.count(None)


# ---- appending


def test_eight_threads_lose_nothing(tmp_path: Path) -> None:
    with Ledger.sqlite(tmp_path / "costs.db") as ledger:
        threads = [threading.Thread(target=lambda n=n: [ledger.append(entry(f"{n}-{k}")) for k in range(250)]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.total().steps == 2_000


async def test_fifty_tasks_append_without_blocking_the_event_loop(tmp_path: Path) -> None:
    ledger = await asyncio.to_thread(Ledger.sqlite, tmp_path / "costs.db")

    async def work(number: int) -> None:
        for turn in range(20):
            ledger.append(entry(f"{number}-{turn}"))
            await asyncio.sleep(0)

    with blockbuster_ctx():
        await asyncio.gather(*[work(number) for number in range(50)])
    assert (await asyncio.to_thread(ledger.total)).steps == 1_000
    await asyncio.to_thread(ledger.close)


def test_appending_does_not_wait_for_a_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "costs.db"
    with Ledger(path, busy_s=0.2) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.perf_counter()
        for number in range(500):
            ledger.append(entry(f"s{number}"))
        taken = time.perf_counter() - start
        other.execute("COMMIT")
        assert taken < 0.2
        assert ledger.total().steps == 500


WRITER = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_ledger import entry
    from routed_agents.ledger import Ledger
    ledger = Ledger.sqlite({path!r})
    for number in range(300):
        ledger.append(entry(f"{{sys.argv[1]}}-{{number}}"))
"""


def test_two_processes_fill_one_file_and_the_end_of_a_program_flushes(tmp_path: Path) -> None:
    path = tmp_path / "costs.db"
    code = textwrap.dedent(WRITER.format(tests=str(Path(__file__).parent), path=str(path)))
    writers = [subprocess.Popen([sys.executable, "-c", code, name], stderr=subprocess.PIPE) for name in "ab"]
    for writer in writers:
        _, said = writer.communicate(timeout=20)
        assert (writer.returncode, said) == (0, b"")
    with Ledger.sqlite(path) as ledger:
        assert ledger.total().steps == 600


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_its_own_entries_and_not_its_parents(tmp_path: Path) -> None:
    with Ledger.sqlite(tmp_path / "costs.db") as ledger:
        ledger.append(entry("parent"))
        child = os.fork()
        if child == 0:
            ledger.append(entry("child"))
            os._exit(0 if ledger.flush(5) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert sorted(each.step_id for each in ledger.entries()) == ["child", "parent"]


def test_a_ledger_dropped_without_closing_still_writes(tmp_path: Path) -> None:
    ledger = Ledger.sqlite(tmp_path / "costs.db")
    ledger.append(entry())
    thread = ledger._store._thread  # type: ignore[union-attr]
    del ledger
    gc.collect()
    thread.join(5)
    with Ledger.sqlite(tmp_path / "costs.db") as again:
        assert again.steps == 1


@pytest.mark.parametrize("name", [42, UUID(int=7)])
def test_a_thread_and_a_run_that_are_no_text_are_written_as_text(ledger: Ledger, name: object) -> None:
    ledger.append(entry("a", thread=name, run=name))
    ledger.append(entry("b", thread="another"))

    found = [ledger.total(**{key: given}).steps for key in ("thread", "run") for given in (name, str(name), [name])]  # type: ignore[arg-type]
    assert (found, ledger.lost, set(ledger.totals("run"))) == ([1] * 6, 0, {str(name), NONE})


def test_a_label_with_a_nul_is_added_up_under_no_other(ledger: Ledger) -> None:
    ledger.append(entry("a", labels={"tenant": "acme"}))
    ledger.append(entry("b", labels={"tenant": "acme\0evil"}))

    own = [ledger.total(labels={"tenant": tenant}).steps for tenant in ("acme", "acme\0evil")]
    assert (own, {name: each.steps for name, each in ledger.totals("label:tenant").items()}) == ([1, 1], {"acme": 1, "acme\ufffdevil": 1})


def test_a_ledger_in_memory_says_once_that_it_grows(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(memory, "MANY", 3)
    with Ledger.memory() as ledger:
        for number in range(5):
            ledger.append(entry(f"s{number}"))
        assert ledger.steps == 5
    assert ["name a file" in message for message in caplog.messages] == [True]


# ---- trouble


def test_what_cannot_be_stored_is_counted_and_takes_nothing_with_it(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    ledger.append(entry("good"))
    ledger.append(entry("huge", cost=2**63))
    ledger.append(entry("wrong", attempt="first"))
    ledger.append(entry("half a character", node="\ud800"))
    ledger.append("not an entry")  # type: ignore[arg-type]
    ledger.append(entry("good too"))
    assert [each.step_id for each in ledger.entries()] == ["good", "half a character", "good too"]
    assert ledger.lost == 3
    assert all(record.levelno == logging.WARNING and "\n" not in record.getMessage() for record in caplog.records)


def test_appending_after_the_end_is_counted(ledger: Ledger) -> None:
    ledger.close()
    ledger.append(entry())
    assert ledger.lost == 1


def test_entries_wait_while_the_file_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "costs.db"
    with Ledger(path, busy_s=0.05) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE entries RENAME TO elsewhere")
        ledger.append(entry())
        assert not ledger.flush(0.3)
        other.execute("ALTER TABLE elsewhere RENAME TO entries")
        assert ledger.flush(5)
        assert (ledger.steps, ledger.lost) == (1, 0)
        assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
            f"{path} cannot be written, entries are kept and retried"
        ]


def test_nothing_is_added_up_while_entries_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routed_agents.ledger.ledger.WAIT_S", 0.2)
    path = tmp_path / "costs.db"
    with Ledger(path, busy_s=0.05) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger.append(entry(thread="t"))
        assert ledger.flush(5)
        other.execute("BEGIN IMMEDIATE")
        ledger.append(entry("s2", thread="t"))
        for read in (
            ledger.total,
            lambda: ledger.totals("tier"),
            lambda: list(ledger.entries()),
            lambda: cost_of(ledger=ledger, thread="t"),
        ):
            with pytest.raises(LedgerError, match="entries that could not be written"):
                read()
        other.execute("ROLLBACK")
        assert ledger.flush(5)
        assert (ledger.steps, cost_of(ledger=ledger, thread="t").steps) == (2, 2)


MOVES = {
    "moved": lambda path: path.rename(path.with_name("old.db")),
    "moved with all its parts": lambda path: [each.rename(str(each).replace("costs", "old")) for each in path.parent.glob("costs.*")],
    "removed": Path.unlink,
    "replaced by a new ledger": lambda path: (path.rename(path.with_name("old.db")), Ledger.sqlite(path).close()),
}


@pytest.mark.parametrize("how", MOVES)
def test_a_file_that_is_moved_keeps_its_entries_and_the_next_ones_begin_a_new_file(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "costs.db"
    ledger = Ledger.sqlite(path)
    ledger.append(entry("before"))
    assert ledger.flush()
    MOVES[how](path)
    ledger.append(entry("after"))
    assert (ledger.steps, ledger.lost, ledger.flush()) == (1, 0, True)
    ledger.close()

    written = {each.name: [found.step_id for found in Ledger.sqlite(each).entries()] for each in sorted(tmp_path.glob("*.db"))}
    assert written == {"costs.db": ["after"]} | ({} if how == "removed" else {"old.db": ["before"]})
    assert [record.getMessage() for record in caplog.records] == [
        f"ledger: {path} was moved or removed; what comes next is written to a new file there"
    ]


def test_a_file_that_is_moved_before_the_end_keeps_its_entries_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "costs.db"
    with Ledger.sqlite(path) as ledger:
        ledger.append(entry())
        assert ledger.flush()
        path.rename(tmp_path / "old.db")
        with pytest.raises(LedgerError, match="cannot be read"):
            ledger.total()
    assert (Ledger.sqlite(tmp_path / "old.db").steps, path.exists()) == (1, False)


def test_two_processes_begin_one_new_file_where_theirs_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "costs.db"
    code = """
        import sys
        sys.path.insert(0, {tests!r})
        from test_ledger import entry
        from routed_agents.ledger import Ledger
        ledger = Ledger.sqlite({path!r})
        for number in range(40):
            ledger.append(entry(f"{{sys.argv[1]}} {{number}}"))
            ledger.flush()
            print(number, flush=True)
            sys.stdin.readline()
        ledger.close()
    """
    code = textwrap.dedent(code.format(tests=str(Path(__file__).parent), path=str(path)))
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([sys.executable, "-c", code, name], **pipes) for name in "ab"]
    for number in range(40):
        assert [writer.stdout.readline() for writer in writers] == [f"{number}\n"] * 2
        if number % 10 == 5:
            path.rename(tmp_path / f"old {number}.db")
        for writer in writers:
            print(file=writer.stdin, flush=True)
    assert [(writer.communicate(timeout=20)[1].count("\n"), writer.returncode) for writer in writers] == [(4, 0)] * 2

    steps = {each.name: Ledger.sqlite(each).steps for each in tmp_path.glob("*.db")}
    assert steps == {"old 5.db": 12, "old 15.db": 20, "old 25.db": 20, "old 35.db": 20, "costs.db": 8}


def test_beyond_the_backlog_entries_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "costs.db"
    ledger = Ledger(path, backlog=10, busy_s=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DROP TABLE entries")
    for number in range(25):
        ledger.append(entry(f"s{number}"))
    ledger.flush(0.3)
    assert ledger.lost == 15
    ledger.close(0.1)
    assert ledger.lost == 25


def test_no_more_entries_are_held_than_the_backlog_and_one_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "costs.db"
    with Ledger(path, backlog=100, busy_s=0.05) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.append(entry())
        assert not ledger.flush(0.3)
        for number in range(5_000):
            ledger.append(entry(f"s{number}"))
        other.execute("ROLLBACK")
        assert ledger.flush(5)
        kept = [each.step_id for each in ledger.entries()]
        assert (len(kept) <= 200, kept[-100:]) == (True, [f"s{number}" for number in range(4_900, 5_000)])
        assert len(kept) + ledger.lost == 5_001
    assert f"({ledger.lost} in all)" in caplog.messages[-1]
    assert len(caplog.messages) < 5


def test_a_full_disk_is_survived_counted_and_said_on_stderr(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_ledger import entry
        from routed_agents.ledger import Ledger
        ledger = Ledger.sqlite({str(tmp_path / "costs.db")!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        for number in range(2000):
            ledger.append(entry(f"s{{number}}"))
        ledger.close(0.3)
        print(ledger.lost)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20, check=True)
    assert int(done.stdout) > 0
    assert len(done.stderr.splitlines()) == 2
    assert "could not be written before the end" in done.stderr


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("not a database, by far, " * 20), "is not a ledger"),
        (lambda path: path.mkdir(), "cannot be opened"),
        (lambda path: _database(path, "CREATE TABLE users (name TEXT)"), "other tables, not a ledger"),
        (lambda path: _database(path, "CREATE TABLE ledger_schema AS SELECT 99 AS version", "CREATE TABLE entries (x)"), "schema 99"),
    ],
)
def test_a_file_that_is_no_ledger_of_ours_fails_when_it_is_opened(tmp_path: Path, make: Any, said: str) -> None:
    path = tmp_path / "costs.db"
    make(path)
    with pytest.raises(LedgerError, match=said):
        Ledger.sqlite(path)


def _database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def older_file(path: Path, version: int, *entries: Entry) -> Path:
    """A ledger as the releases wrote it whose schema was an older one."""
    with Ledger.sqlite(path) as ledger:
        for each in entries:
            ledger.append(each)
    added = [f"ALTER TABLE entries DROP COLUMN {name}" for name in OLDER[version]]
    _database(path, *added, f"UPDATE ledger_schema SET version = {version}")
    return path


@pytest.mark.parametrize("version", OLDER)
def test_a_file_of_an_older_release_is_read_and_stays_as_it_is(version: int, tmp_path: Path) -> None:
    path = older_file(tmp_path / "costs.db", version, FULL)
    with Ledger.sqlite(path, read_only=True) as ledger:
        assert list(ledger.entries()) == [without(OLDER[version])]
        assert ledger.total().steps == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM ledger_schema").fetchall() == [(version,)]


@pytest.mark.parametrize("version", OLDER)
def test_a_file_of_an_older_release_gets_the_columns_it_lacks_when_it_is_written_to(version: int, tmp_path: Path) -> None:
    path = older_file(tmp_path / "costs.db", version, FULL)
    with Ledger.sqlite(path) as ledger, Ledger.sqlite(path) as other:
        ledger.append(FULL)
        ledger.flush()
        assert list(other.entries()) == [without(OLDER[version]), FULL]


def test_a_place_that_does_not_exist_fails_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.sqlite(tmp_path / "nowhere" / "costs.db")


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="paths are text there")
def test_a_path_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"l\xfe.db")
    with Ledger.sqlite(path) as ledger:
        ledger.append(FULL)
    with Ledger.sqlite(path, read_only=True) as ledger:
        assert (path.exists(), list(ledger.entries())) == (True, [FULL])


@pytest.mark.parametrize("read_only", [False, True])
def test_a_nul_in_a_path_is_one_line(tmp_path: Path, read_only: bool) -> None:
    with Ledger.sqlite(tmp_path / "a"), pytest.raises(LedgerError, match="cannot be opened: there is a NUL in its path"):
        Ledger.sqlite(f"{tmp_path}/a\0b", read_only=read_only)


@pytest.mark.parametrize("place", ["{}/costs.db", "sqlite:///{}/costs.db"])
def test_a_ledger_is_opened_by_path_or_url(tmp_path: Path, place: str) -> None:
    with Ledger.open(place.format(tmp_path)) as ledger:
        ledger.append(entry())
    assert (tmp_path / "costs.db").exists()


@pytest.mark.parametrize("place", ["memory:", "memory://", ":memory:", "sqlite:///:memory:"])
def test_a_ledger_in_memory_makes_no_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger.open(place) as ledger:
        assert ledger.steps == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["mongodb://here", "sqlite:costs.db", "sqlite:///"])
def test_a_place_nobody_knows_is_refused(place: str) -> None:
    with pytest.raises(LedgerError, match="known places"):
        Ledger.open(place)


# ---- the bill


def stamped(step: str, **changes: Any) -> AIMessage:
    stamp = {"v": 1, "step": step, "tier": "cheap", "rank": 0, "top": False, "node": "triage", "task_class": "classification"}
    stamp |= {"codes": [], "cost_pico": DOLLAR // 1000, "baseline_pico": DOLLAR // 200, "simulated": False}
    return AIMessage("", response_metadata={"routed_agents": stamp | changes})


STRONG: dict[str, Any] = {"tier": "strong", "rank": 1, "top": True, "cost_pico": 5 * 10**9, "baseline_pico": 5 * 10**9}


def test_a_result_prints_its_bill() -> None:
    messages = [
        HumanMessage("hello"),
        stamped("1"),
        stamped("1"),
        stamped("2", **STRONG, node="plan", codes=["agentic_chain", "pin"]),
        stamped("3", **STRONG, node=None, task_class="reply", codes=["long_context"]),
    ]
    expected = "$0.0110; all-strong $0.0150; 3 steps, 1 cheap; kept strong: plan (agentic chain), reply (long context)"
    assert str(cost_of({"messages": messages})) == expected
    assert cost_of(messages) == cost_of({"messages": messages})


def test_a_bill_says_what_it_does_not_know() -> None:
    bill = cost_of([stamped("1", simulated=True), stamped("2", cost_pico=None, baseline_pico=None)])
    assert str(bill) == "$0.0010 + 1 unpriced; all-strong $0.0050 (1 of 2 steps); 2 steps, 2 cheap (simulated)"


def test_a_bill_keeps_what_is_known_of_a_step_with_an_unpriced_call() -> None:
    bill = cost_of(stamped("1", cost_pico=None, priced_pico=DOLLAR // 1000, unpriced=2))
    assert (str(bill), bill.unpriced) == ("$0.0010 + 2 unpriced; all-strong $0.0050; 1 step, 1 cheap", 2)


def test_a_bill_says_how_many_calls_are_estimated() -> None:
    bill = cost_of([stamped("1"), stamped("2", estimated=1, output_unknown=0)])
    assert (str(bill), bill.estimated) == ("$0.0020 (1 estimated); all-strong $0.0100; 2 steps, 2 cheap", 1)


def test_a_bill_with_a_call_that_was_cut_off_is_a_lower_bound(ledger: Ledger) -> None:
    ledger.append(entry("s1", thread="t", baseline_pico=2 * DOLLAR))
    ledger.append(entry("s2", thread="t", usage=Usage(input=9, source="estimated"), outcome="abandoned"))
    bill = cost_of(ledger=ledger, thread="t")
    assert (str(bill), bill.output_unknown) == ("at least $2.00 (1 estimated); all-strong $2.00 (1 of 2 steps); 2 steps, 2 cheap", 1)


@pytest.mark.parametrize("count", [-5, True, "7", None])
def test_a_count_of_estimates_that_is_none_is_nothing(count: object) -> None:
    assert cost_of(stamped("1", estimated=count, output_unknown=count)).estimated == 0


def test_a_bill_praises_no_answer_from_below_the_floor(ledger: Ledger) -> None:
    ledger.append(entry(thread="t", outcome="watched", codes=("empathy", "check:served_model_below_floor")))
    bill = cost_of(ledger=ledger, thread="t")
    assert str(bill) == "$1.00; 1 step, 1 cheap; 1 answered below the floor: no saving"


@pytest.mark.parametrize(
    ("called", "kept"),
    [
        ({"tier": "max", "model": "opus", "top": True}, True),
        ({"tier": "max", "model": "opus-elsewhere", "top": True}, True),
        ({"tier": "strong", "model": "sonnet", "top": False}, False),
        ({"tier": "unrouted", "model": "opus", "top": False}, True),
        ({"tier": "strong", "model": "opus-elsewhere"}, True),
        ({"tier": "max", "model": "opus"}, True),
        ({"tier": "cheap", "model": "haiku"}, False),
    ],
)
def test_what_the_top_tier_answered_is_kept_strong_whatever_its_name(called: dict[str, Any], kept: bool, ledger: Ledger) -> None:
    ledger.append(entry(thread="t", baseline_model="opus", **called))
    bill = cost_of(ledger=ledger, thread="t")

    assert (bill.top, len(bill.kept_strong)) == (({called["tier"]}, 1) if kept else (set(), 0))


def test_a_single_reply_has_a_bill() -> None:
    bill = cost_of(stamped("1"))
    assert (str(bill), bill.cost, bill.baseline) == ("$0.0010; all-strong $0.0050; 1 step, 1 cheap", Decimal("0.001"), Decimal("0.005"))


@pytest.mark.parametrize("amount", [-5, True, 1.5, "7", None])
def test_an_amount_that_is_none_is_unpriced(amount: object) -> None:
    bill = cost_of([stamped("1", cost_pico=amount, baseline_pico=amount)])
    assert (bill.cost_pico, bill.baseline, bill.unpriced) == (0, None, 1)


def test_only_what_a_model_said_has_a_bill() -> None:
    told = stamped("1").response_metadata
    others = [
        HumanMessage("hi", response_metadata=told),
        ToolMessage("found", tool_call_id="1", response_metadata=told),
        {"role": "user", "content": "hi", "response_metadata": told},
        {"type": "system", "content": "hi", "response_metadata": told},
    ]
    models = [{"role": "assistant", "content": "hi", "response_metadata": stamped("2").response_metadata}, stamped("3")]
    assert [cost_of(given).steps for given in (others, others[0], models, models[0])] == [0, 0, 2, 1]


def test_a_state_object_has_a_bill() -> None:
    @dataclass
    class State:
        messages: list[AIMessage]

    assert cost_of(State([stamped("1")])).steps == 1


def test_the_same_reason_is_named_once_and_a_long_list_is_cut() -> None:
    same = [stamped(str(n), **STRONG, node="plan", codes=["pin"]) for n in range(3)]
    many = [stamped(str(n), **STRONG, node=f"n{n}") for n in range(7)]
    assert str(cost_of(same)).endswith("3 steps; kept strong: plan (pin)")
    assert str(cost_of(many)).endswith("kept strong: n0, n1, n2, n3, n4, and 2 more")


@pytest.mark.parametrize("result", [None, {}, [], "text", {"messages": []}, {"messages": [HumanMessage("hi")]}, AIMessage("hi")])
def test_a_result_without_routed_steps_says_what_to_pass(result: object) -> None:
    assert str(cost_of(result)) == "no routed step found in this result; pass ledger= and thread="


def watched(said: str, **more: Any) -> AIMessage:
    """The reply of a plain model."""
    return AIMessage(said, response_metadata={"model_name": "claude-haiku-5-5"}, **more)


USED: Any = {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}


@pytest.mark.parametrize(
    "reply",
    [
        watched("hi", usage_metadata=USED),
        watched("hi"),
        {"role": "assistant", "model": "m", "usage": USED},
        {"object": "response", "model": "m", "output": [{"type": "message"}], "usage": USED},
    ],
)
def test_a_reply_without_a_stamp_is_counted_and_its_cost_is_said_to_be_elsewhere(reply: object) -> None:
    bill = cost_of({"messages": [HumanMessage("hello"), reply]})
    told = "unknown: 1 reply carries no cost; where it is routed or watched, pass ledger=router.ledger and thread="
    assert (str(bill), bill.uncosted, bill.steps, bill.cost_pico) == (told, 1, 0, 0)


class Car(BaseModel):
    """A structured answer."""

    model: str

    @property
    def usage(self) -> object:
        raise RuntimeError("not driven yet")


@pytest.mark.parametrize("answer", [Car(model="Tesla"), {"model": "Tesla"}])
def test_what_has_a_model_and_is_no_reply_is_not_counted(answer: object) -> None:
    assert cost_of([answer]) == cost_of([])


def test_replies_beside_routed_ones_are_named_with_the_cost_they_are_missing_from() -> None:
    bill = cost_of([stamped("1"), watched("a", id="a"), watched("a", id="a"), watched("b", id="b"), AIMessage("by a node")])
    assert str(bill) == "$0.0010 + 2 replies without a cost; all-strong $0.0050; 1 step, 1 cheap"


def test_the_chunks_of_a_routed_stream_are_one_step() -> None:
    last = stamped("1").model_copy(update={"id": "x"})
    assert cost_of([watched("a", id="x", usage_metadata=USED), last]).uncosted == 0


def test_a_bill_from_the_ledger_has_the_steps_that_left_no_message(ledger: Ledger) -> None:
    ledger.append(entry("1", cost=10**9, outcome="rejected", thread="t", node="plan"))
    ledger.append(entry("1", cost=5 * 10**9, tier="strong", thread="t", node="plan", codes=("check_refusal",), baseline_pico=5 * 10**9))
    ledger.append(entry("2", cost=10**9, thread="t", baseline_pico=5 * 10**9))
    ledger.append(entry("3", thread="other"))
    bill = cost_of({}, ledger=ledger, thread="t")
    assert str(bill) == "$0.0070; all-strong $0.0100; 2 steps, 1 cheap; kept strong: plan (check refusal)"


def test_a_thread_that_left_no_step_is_named(ledger: Ledger) -> None:
    assert str(cost_of(ledger=ledger, thread="nobody's")) == 'no step of thread "nobody\'s" in this ledger'


def test_what_is_no_ledger_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"was given 'costs\.db'; wanted a ledger, like Ledger\.sqlite"):
        cost_of(ledger=cast("Ledger", "costs.db"), thread="t")


def test_a_ledger_needs_a_thread_or_run_and_the_other_way_round(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="without a thread or run"):
        cost_of({}, ledger=ledger)
    with pytest.raises(ConfigurationError, match="without a ledger"):
        cost_of({}, thread="t")


@pytest.mark.parametrize(
    ("pico", "printed"),
    [
        (0, "$0.0000"),
        (62_500, "$0.000000063"),
        (99_000_000, "$0.000099"),
        (11_249_000_000, "$0.0112"),
        (7_500_000_000_000, "$7.50"),
        (1_234_567_891_000_000_000, "$1234567.89"),
        (5, "$0.000000000005"),
        (-123_456_000_000_000, "-$123.46"),
    ],
)
@pytest.mark.parametrize("context", [Context(), Context(prec=4), Context(traps=[Inexact, Rounded])])
def test_dollars_are_printed_as_finely_as_they_matter_in_any_decimal_context(pico: int, printed: str, context: Context) -> None:
    with localcontext(context):
        assert str(Bill(cost_pico=pico, steps=1)).split(";")[0] == printed


def test_a_ledger_opened_to_be_read_makes_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger.sqlite(path, read_only=True)
    with Ledger(path) as ledger:
        ledger.append(entry())
    before = path.read_bytes()
    with Ledger.sqlite(path, read_only=True) as ledger:
        ledger.append(entry("s2"))
        assert (ledger.total().steps, ledger.lost) == (1, 1)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (before, ["l.db"])


def test_half_a_character_costs_no_entry(tmp_path: Path) -> None:
    cut = entry("cut", thread="t\ud83d", node="n\ud83d", labels={"te\ud83dnant": "a\ud83d"}, error="E\ud83d", codes=("c\ud83d",))
    for ledger in (Ledger.memory(), Ledger.sqlite(tmp_path / "costs.db")):
        ledger.append(cut)
        ledger.append(FULL)
        found = list(ledger.entries(thread="t\ud83d"))
        assert found == list(ledger.entries(thread=["t\ud83d"], labels={"te\ud83dnant": "a\ud83d"}))
        assert [(each.node, dict(each.labels), each.error, each.codes) for each in found] == [
            ("n\ufffd", {"te\ufffdnant": "a\ufffd"}, "E\ufffd", ("c\ufffd",))
        ]
        assert (ledger.lost, ledger.steps, list(ledger.totals("label:te\ud83dnant"))) == (0, 2, [NONE, "a\ufffd"])
        ledger.close()
