"""Text from elsewhere, as a terminal may be given it."""

from __future__ import annotations

import re
from typing import Final

CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and line breaks."""
ALL_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def harmless(text: str) -> str:
    """Text with its control characters spelled out: what came with a file must not steer a terminal."""
    return CONTROLS.sub(_spelled, text)


def one_line(text: str) -> str:
    """The same with its line breaks spelled out too: what came with a file must not look like a line of ours."""
    return ALL_CONTROLS.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
