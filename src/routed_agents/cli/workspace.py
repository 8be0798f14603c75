"""The environment a graph finds when it is imported: which provider answers, which policy rules, where the ledger is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from routed_agents.errors import ConfigurationError

if TYPE_CHECKING:
    from routed_agents.policy import Policy

Provider = Literal["embedded", "anthropic"]
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@contextmanager
def workspace(*, provider: Provider, policy: Policy, ledger: str | Path | None = None, mode: str | None = None) -> Generator[None]:
    """Set the environment that graphs and provider SDKs read, and put it back afterwards.

    Graphs call `Router.from_env()` when they are imported, so import them inside.

    Raises:
        ConfigurationError: the provider cannot be used: its key is missing, or nothing answers where it should be.
    """
    with ExitStack() as stack:
        wanted: dict[str, str | None] = {"ANTHROPIC_OPEN_TELEMETRY": "false", "ROUTED_AGENTS_MODE": mode}
        if provider == "embedded":
            from routed_agents.embedded import serve

            served = stack.enter_context(serve())
            wanted |= {**served.environ, "ANTHROPIC_AUTH_TOKEN": None, **_unproxied()}
        else:
            check_anthropic(os.environ)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="routed-agents-"))
        wanted["ROUTED_AGENTS_POLICY"] = _policy_file(policy, Path(folder))
        wanted["ROUTED_AGENTS_LEDGER"] = str(ledger) if ledger is not None else None
        stack.enter_context(_environment(wanted))
        yield


def check_anthropic(environ: Mapping[str, str]) -> None:
    """Whether calls to Anthropic can be made at all, found out before anything runs.

    Raises:
        ConfigurationError: the key is missing, or nothing listens at a base URL on this machine.
    """
    if not environ.get("ANTHROPIC_API_KEY"):
        raise ConfigurationError("ANTHROPIC_API_KEY is not set; --provider anthropic needs it: set it, or use --provider embedded")
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL"):
        url = environ.get(name)
        parts = urlsplit(url or "")
        if url and parts.hostname in LOOPBACK:
            _listening(name, url, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


def _listening(name: str, url: str, host: str, port: int) -> None:
    import socket

    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        raise ConfigurationError(f"nothing answers at {url} ({name}): {error.strerror or error}; start it, or unset {name}") from None


def _unproxied() -> dict[str, str | None]:
    """A proxy must not be asked for what runs on this machine."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    hosts = ",".join([*([known] if known else []), "127.0.0.1", "localhost"])
    return {"NO_PROXY": hosts, "no_proxy": hosts}


def _policy_file(policy: Policy, folder: Path) -> str:
    from routed_agents.config import policy_to_toml

    path = folder / "policy.toml"
    path.write_text(policy_to_toml(policy), encoding="utf-8")
    return str(path)


@contextmanager
def _environment(wanted: Mapping[str, str | None]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
