"""Ends what a command runs when SIGTERM comes, so that its books are closed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")
CODE: Final = 128 + signal.SIGTERM


class Terminated(Exception):
    """SIGTERM came, and what was under way has been cancelled."""


class Termination:
    """What SIGTERM ends. It comes once: the next one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        self._cancel: Callable[[], object] | None = None

    def ask(self) -> None:
        """Cancel what is under way, or what comes next."""
        self.asked = True
        if self._cancel is not None:
            self._cancel()

    async def ends(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work.

        Raises:
            Terminated: SIGTERM came before it was done.
        """
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        if self.asked:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if self.asked:
                raise Terminated from None
            raise
        finally:
            self._cancel = None


@contextmanager
def termination() -> Generator[Termination]:
    """Until the block ends, SIGTERM cancels its work and leaves the rest of it to be done. Processes forked meanwhile end as ever, and so
    does this one where somebody has seen to the signal already, or another thread runs the block.
    """
    found, own = Termination(), os.getpid()

    def heard(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() == own:
            found.ask()
        else:
            signal.raise_signal(signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield found
        return
    signal.signal(signal.SIGTERM, heard)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
