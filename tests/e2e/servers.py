"""Starts real backends on the loopback interface, and ends them again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SERVERS: Final = ROOT / ".servers"
DASHBOARDS: Final = ROOT / "dashboards"


def python_of(name: str) -> Path:
    """The Python with a backend's package: `<NAME>_PYTHON`, or the one `make <name>` has put below .servers; else the test is skipped."""
    variable = f"{name.upper()}_PYTHON"
    python = Path(os.environ.get(variable) or SERVERS / name / "bin" / "python")
    if not python.exists():
        pytest.skip(f"no {name} at {python}: run `make {name}-server`, or name a Python that has it in {variable}")
    return python


def prometheus_program(name: str) -> Path:
    """`prometheus` or `promtool`, from `make prometheus-server` or the system; else the test is skipped."""
    own = SERVERS / "prometheus" / "usr" / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: run `make prometheus-server` on Debian or Ubuntu, or put it on the PATH")
    return Path(found)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(
    argv: Sequence[object], *, ready: str, folder: Path, environ: Mapping[str, str] | None = None, within_s: float
) -> Generator[subprocess.Popen[bytes]]:
    """Run a server in a folder until the block ends; the block begins when `ready` answers, and the test fails when it does not in time."""
    log = folder / "server.log"
    with log.open("wb") as out:
        given = {**os.environ, **(environ or {})}
        process = subprocess.Popen(list(map(str, argv)), cwd=folder, stdout=out, stderr=out, env=given, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or answers(ready), within_s, lambda: log.read_text(errors="replace")[-3000:])
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and the workers it started: they are a process group of their own."""
    for sign, wait_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)


def wait_for(done: Callable[[], object], within_s: float, tell: Callable[[], str] = lambda: "") -> None:
    """Ask until it is so; the test fails when it is not in time."""
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, f"not within {within_s} s: {tell()}"
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a GET of the address succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def ask(url: str, body: object = None) -> Any:
    """What the address answers, read as JSON; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": "application/json"}), timeout=60) as reply:
        return json.load(reply)


def listening(process: subprocess.Popen[bytes]) -> set[str]:
    """The addresses on which a server and its workers accept connections, from the kernel's own tables."""
    found: set[str] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(folder.name)) != process.pid:
                continue
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
            inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
            rows = [line.split() for table in ("tcp", "tcp6") for line in (folder / "net" / table).read_text().splitlines()[1:]]
            found |= {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
    return found


LOOPBACK: Final = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and ::ffff:127.0.0.1 as `listening` has them."""


def postgres_program(name: str) -> Path:
    """One of PostgreSQL's server programs, from the PATH or where Debian and Ubuntu put them; else the test is skipped."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        pytest.skip(f"no {name}: install PostgreSQL's server (Debian and Ubuntu: the package postgresql), or put it on the PATH")
    return Path(found)


@contextmanager
def postgres() -> Generator[str]:
    """A PostgreSQL server with a data folder of its own; gives the address of its database."""
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder, port = Path(name), free_port()
        user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        if user is not None:
            shutil.chown(folder, user)
        as_user: dict[str, Any] = {"user": user, "group": None, "extra_groups": []} if user is not None else {}
        made = [initdb, "--pgdata", folder / "data", "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-sync"]
        done = subprocess.run(list(map(str, made)), cwd=folder, capture_output=True, text=True, check=False, **as_user)
        assert done.returncode == 0, done.stderr[-2000:]
        argv = [server, "-D", folder / "data", "-h", "127.0.0.1", "-p", port, "-k", folder, "-F"]
        log = folder / "server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(list(map(str, argv)), cwd=folder, stdout=out, stderr=out, start_new_session=True, **as_user)
        try:
            ping = list(map(str, [postgres_program("pg_isready"), "-h", "127.0.0.1", "-p", port]))
            wait_for(
                lambda: process.poll() is not None or subprocess.run(ping, capture_output=True, check=False).returncode == 0,
                30,
                lambda: log.read_text(errors="replace")[-2000:],
            )
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: connections are closed, nothing is waited for
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            _end(process)
