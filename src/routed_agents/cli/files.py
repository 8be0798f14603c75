"""The files a command names: which are there, which must not be the same, and how a new one takes the place of an old one."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from routed_agents.errors import ConfigurationError

Named = tuple[str, str | None]
"""What the command line calls a file, and its path; None when not given."""

NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
"""What a write raises where the disk is full or the file may not grow; unlike an opening, it tells no name."""
TRACE: Final = "name one that run --trace or configure(trace_file=...) wrote"


def there(path: str, what: str, wanted: str, *, regular: bool = False) -> Path:
    """A file to read; also a pipe, or what a shell puts in place of `<(...)`.

    Args:
        what: it is, for the message.
        wanted: what to name instead.
        regular: it is read more than once, so a pipe will not do.

    Raises:
        ConfigurationError: it does not exist, is a directory, or is a pipe and has to be a file.
    """
    place = Path(path)
    if not place.exists():
        raise ConfigurationError(f"{what} {path} does not exist; {wanted}".lstrip())
    if place.is_dir():
        raise ConfigurationError(f"{what} {path} is a directory; {wanted}".lstrip())
    if regular and not place.is_file():
        raise ConfigurationError(f"{what} {path} is no regular file, and is read more than once; {wanted}".lstrip())
    return place


def apart(outputs: Iterable[Named], inputs: Iterable[Named] = ()) -> None:
    """Make sure that no output is written over an input or into another output.

    Raises:
        ConfigurationError: two of them are one file, however they are spelled.
    """
    taken = [(name, _place(path)) for name, path in inputs if path]
    for name, path in outputs:
        if not path:
            continue
        place = _place(path)
        for other, known in taken:
            if _same(place, known):
                raise ConfigurationError(f"{name} {path} is the same file as {other} {known}; name another {name}")
        taken.append((name, place))


def _place(path: str) -> Path:
    return Path(path.removeprefix("sqlite:///"))


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.is_file() and os.path.samefile(one, other)  # a terminal or /dev/null may be named twice
    return os.path.realpath(one) == os.path.realpath(other)


@contextmanager
def naming(path: Path | str) -> Generator[None]:
    """A write inside that finds no room tells the file."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file to write in place of `path`: until the block ends well, the old one stands as it is.

    A link is followed; what is no regular file, such as a pipe, is written to as it is.
    """
    if path.exists() and not path.is_file():
        with naming(path), path.open("wb") as file:
            yield file
        return
    place = path.resolve()
    beside = place.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with naming(path), beside.open("xb") as new:
            yield new
        if place.exists():
            beside.chmod(place.stat().st_mode & 0o7777)
        os.replace(beside, place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
