"""The embedded provider answers Anthropic and OpenAI calls on this machine, without a key, a network or a bill."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import cast

from routed_agents.embedded import models
from routed_agents.embedded.faults import Fault, FaultPlan
from routed_agents.embedded.server import Desk, Served, Server
from routed_agents.errors import ConfigurationError
from routed_agents.tiers import SIMULATED, SIMULATED_URLS

__all__ = ["Fault", "FaultPlan", "Provider", "Served", "serve"]


class Provider:
    """A running embedded provider: where to reach it, what it was asked, what goes wrong next."""

    def __init__(self, desk: Desk, port: int) -> None:
        self._desk = desk
        self.anthropic_url = f"http://127.0.0.1:{port}"
        self.openai_url = f"http://127.0.0.1:{port}/v1"

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that send the SDKs and LangChain here: `os.environ.update(provider.environ)`."""
        return {
            "ANTHROPIC_BASE_URL": self.anthropic_url,
            "ANTHROPIC_API_URL": self.anthropic_url,
            "ANTHROPIC_API_KEY": "simulated",
            "ANTHROPIC_OPEN_TELEMETRY": "false",  # the SDK's own span repeats ours
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_BASE": self.openai_url,
            "OPENAI_API_KEY": "simulated",
            SIMULATED: f"{self.anthropic_url} {self.openai_url}",  # for other processes than this one
        }

    @property
    def requests(self) -> list[Served]:
        """The last 10,000 requests, oldest first."""
        return list(self._desk.served)

    @property
    def faults(self) -> FaultPlan:
        """The faults still to come; add more at any time."""
        return self._desk.faults

    def reset(self) -> None:
        """Forgets requests, planned faults and cached prompts."""
        self._desk.served.clear()
        self._desk.faults.clear()
        self._desk.cache.clear()


def _check(*, seed: object, time_scale: object, faults: object, clock: object, port: object) -> None:
    if not _is_whole(seed):
        raise ConfigurationError(f"seed is {seed!r}; wanted a whole number")
    if not isinstance(time_scale, (int, float)) or isinstance(time_scale, bool) or not 0 <= time_scale < math.inf:
        raise ConfigurationError(f"time_scale is {time_scale!r}; wanted a number from 0 (answers at once) on; 1 is life-like")
    if faults is not None and not isinstance(faults, FaultPlan):
        raise ConfigurationError(f"faults is {faults!r}; wanted a FaultPlan([Fault(...), ...])")
    if not callable(clock):
        raise ConfigurationError(f"clock is {clock!r}; wanted a function that gives seconds, like time.time")
    if not _is_whole(port) or not 0 <= cast("int", port) <= 65535:
        raise ConfigurationError(f"port is {port!r}; wanted a number from 1 to 65535, or 0 to have a free one found")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@contextmanager
def serve(
    *,
    seed: int = 0,
    time_scale: float = 0.0,
    faults: FaultPlan | None = None,
    clock: Callable[[], float] = time.time,
    error_rates: Mapping[str, float] | None = None,
    port: int = 0,
    strict: bool = False,
) -> Generator[Provider]:
    """Runs an embedded provider on the loopback interface for as long as the block lasts.

    `time_scale` multiplies the published latencies (0 answers at once, 1 is life-like), `clock` is what the prompt cache
    goes by, and `error_rates` replaces the share of wrong answers per model. `strict` also refuses what the real APIs are documented to
    refuse for a model, and answers with thinking blocks that only their own model accepts again.

    Raises:
        ConfigurationError: an argument is of no use, or the port is taken.
    """
    _check(seed=seed, time_scale=time_scale, faults=faults, clock=clock, port=port)
    catalogue = models.load().with_error_rates(error_rates or {})
    desk = Desk(
        seed=seed, time_scale=time_scale, faults=FaultPlan() if faults is None else faults, clock=clock, catalogue=catalogue, strict=strict
    )
    try:
        server = Server(desk, port)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} cannot be listened on: {error.strerror}; wanted a free one, or 0 to have one found"
        ) from error
    server.start()
    provider = Provider(desk, server.port)
    urls = {provider.anthropic_url, provider.openai_url}
    SIMULATED_URLS.update(urls)
    try:
        yield provider
    finally:
        SIMULATED_URLS.difference_update(urls)
        if not sys.is_finalizing():  # by then its threads are frozen, and waiting for them would never end
            server.close()
