"""Rests shared through a real Redis: the conformance kit, several processes, and a server that goes away and comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, wait_for

from routed_agents import embedded
from routed_agents.embedded import Fault, models
from routed_agents.failures import Failure
from routed_agents.health import Health
from routed_agents.health_store import RedisHealthStore
from routed_agents.testing import check_health_store

redis = pytest.importorskip("redis", reason="needs the redis extra")
pytestmark = pytest.mark.e2e
LIMITED = Failure(trouble="rate_limit", status=429, retry_after_s=30.0)
FIRST, SECOND = "anthropic:claude-opus-5-5", "anthropic:claude-opus-5"


@contextmanager
def serving(port: int, folder: Path) -> Generator[None]:
    program = os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("no redis-server: put one (6.2 or later) on the PATH, or name it in REDIS_SERVER")
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port), 20, lambda: "redis-server did not start")
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    with serving(port, tmp_path):
        yield port


def client(port: int) -> Any:
    return redis.Redis(host="127.0.0.1", port=port, socket_timeout=1, socket_connect_timeout=1)


def soon(claim: Any, within_s: float = 8.0) -> bool:
    until = time.monotonic() + within_s
    while not claim() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(claim())


def test_redis_passes_the_conformance_kit(server: int) -> None:
    with client(server) as shared:
        check_health_store(lambda: RedisHealthStore(shared))


def test_a_server_that_goes_away_leaves_each_process_to_itself_and_is_used_again_when_back(tmp_path: Path) -> None:
    port = free_port()
    with client(port) as shared:
        with serving(port, tmp_path):
            one, two = Health(store=RedisHealthStore(shared)), Health(store=RedisHealthStore(shared))
            one.failed("before", LIMITED)
            assert soon(lambda: two.rests("before"))
        began = time.perf_counter()
        one.failed("meanwhile", LIMITED)
        assert (one.rests("meanwhile"), two.rests("meanwhile"), two.rests("before")) == (True, False, True)
        assert time.perf_counter() - began < 0.2
        with serving(port, tmp_path):
            assert soon(lambda: two.rests("meanwhile"))


def test_one_workers_429_makes_the_others_rest_that_deployment(server: int) -> None:
    worker = Path(__file__).parents[1] / "sharing_worker.py"
    with embedded.serve(error_rates=dict.fromkeys(models.load().models, 0.0)) as provider:
        environ = {**os.environ, **provider.environ}
        argv = [sys.executable, str(worker), f"redis://127.0.0.1:{server}/0"]
        made = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) for _ in range(2)]
        assert [process.stdout.readline() for process in made] == ['"ready"\n'] * 2
        provider.faults.add(Fault("rate_limit", model="claude-opus-5-5", retry_after_s=30.0))
        tried = []
        for process in made:
            process.stdin.write("call\n")
            process.stdin.flush()
            tried.append(process.stdout.readline().strip())
            time.sleep(0.8)
        for process in made:
            process.stdin.close()
            process.wait(20)
            process.stdout.close()

    assert tried == [f'["{FIRST}", "{SECOND}"]', f'["{SECOND}"]']
