"""What is wrong is told: our own trouble without the words of its error, which may quote a prompt, a reply or a key."""

from __future__ import annotations

import logging
import os
from typing import Final

log: Final = logging.getLogger("routed_agents")
_TOLD: Final[set[str]] = set()
"""What was said of graphs that are not set up as their routed calls need it."""


def complain(what: str, trouble: BaseException, *, quoting: bool = False) -> None:
    """Tell what went wrong in here, and where.

    Args:
        what: what could not be done, in words of ours.
        trouble: the error; its type and its place are told.
        quoting: tell its words and its trace too, as where content may be recorded.
    """
    log.error("%s: %s", what, kind_and_place(trouble), exc_info=trouble if quoting else None)


def kind_and_place(trouble: BaseException) -> str:
    """The type of an error and the line that raised it."""
    at = trouble.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}" if at is not None else "unknown place"
    return f"{type(trouble).__name__} at {place}"


def tell_once(message: str) -> None:
    """Say once in this process what is wrong with how a graph is set up: it will be at each of its steps."""
    if message not in _TOLD:
        _TOLD.add(message)
        log.warning("%s", message)
