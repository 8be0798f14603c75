"""Keeps standard output for what a command writes, while it runs somebody's code."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO


@contextmanager
def printing_aside() -> Generator[TextIO]:
    """What the code inside prints, and what processes print that it starts, goes to standard error. Yields standard output."""
    with _descriptor_aside(sys.stdout) as standard, redirect_stdout(sys.stderr):
        yield standard


@contextmanager
def _descriptor_aside(standard: TextIO) -> Generator[TextIO]:
    """The same for the descriptor, which processes that are started inherit; gives another one to write to."""
    try:
        standard.flush()
        out, err = standard.fileno(), sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # in memory, as a test has them, or closed
        yield standard
        return
    kept = os.dup(out)
    os.dup2(err, out)
    try:
        with open(os.dup(kept), "w", encoding=standard.encoding, errors=standard.errors) as own:
            yield own
    finally:
        os.dup2(kept, out)
        os.close(kept)
