"""How long a message is: the characters of its text, and the tokens its files come to at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, cast

from routed_agents.steps import FILES, Kind, content_of, document_text, field_of

PICTURE: Final = 10_000
"""Tokens of the largest picture: 4,784 with Claude from Opus 4.7 on and about 1,600 before it, some 10,000 with GPT in its original detail
(Anthropic's and OpenAI's documentation of vision, as of 2026-11)."""
PAGE: Final = 4_600
"""Tokens of a page of a PDF: 3,000 of text and a picture of 1,600 (Anthropic's documentation of PDFs, as of 2026-11). A file has one."""
FILE: Final = 100 * PAGE
"""Tokens of the longest file: 100 pages, the most that Anthropic takes below a window of a million tokens (its documentation of PDFs, as of
2026-11). What is known by its id or address alone may be as long."""
BYTES_PER_TOKEN: Final = 1
"""Of a file sent along. A page dense with text takes some 6,800 bytes of compressed PDF (measured 2026-11); plain text comes to
fewer tokens than bytes in any script."""
BYTES_PER_HEARD_TOKEN: Final = 30
"""Of a recording: models hear 10 to 32 tokens a second, and speech takes a kilobyte a second at least (OpenAI's and Google's documentation
of audio, as of 2026-11)."""

DATA: Final = ("data", "base64", "file_data")
"""Where a block keeps a file that is sent along."""
HOLDS: Final = (*DATA, "source", "file", "file_id", "file_url", "file_uri", "url", "image_url", "input_audio")
"""What a block has that brings more than its text."""
HOLDING: Final[Mapping[object, tuple[str, ...]]] = MappingProxyType(
    {
        "code_execution_result": ("stdout", "stderr"),
        "bash_code_execution_result": ("stdout", "stderr"),
        "encrypted_code_execution_result": ("stderr",),
        "text_editor_code_execution_str_replace_result": ("lines",),
        "server_tool_result": ("output",),
        "mcp_call": ("arguments", "output"),
        "file_search_call": ("results",),
        "code_interpreter_call": ("code", "outputs"),
        "logs": ("logs",),
        None: ("stdout", "stderr"),
    }
)
"""Where blocks keep more words than others do: results of tools that the provider runs, and OpenAI's of a shell, which have no type."""
SEALED: Final[Mapping[object, str]] = MappingProxyType(
    {
        "web_search_result": "encrypted_content",
        "encrypted_code_execution_result": "encrypted_stdout",
        "redacted_thinking": "data",
        "reasoning": "encrypted_content",
    }
)
"""Where blocks keep words that only the provider can read, and counts as input."""
SEALED_PER_TOKEN: Final = 3
"""Characters of them: four hold three bytes, and text has 2.25 bytes a token at least, but for code and numbers."""
MEDIA: Final[Mapping[str, Kind]] = MappingProxyType({"image": "picture", "audio": "recording", "video": "recording"})
"""What the first half of a media type says about a block that may bring anything."""


def length_of(message: object, files: list[int] | None = None) -> int:
    """Characters of a message as it is sent, tool calls included, without joining anything.

    Args:
        message: in any form.
        files: is given the tokens that each file and sealed part of the message comes to at most; the characters say nothing about it.
    """
    content = content_of(message)
    size = len(content) if isinstance(content, str) else block_length(content, files)
    calls = field_of(message, "tool_calls") or field_of(message, "function_call")
    if calls:
        size += len(str(calls))
    return size


def block_length(content: object, files: list[int] | None = None) -> int:
    """Characters in content blocks: nested ones, inputs and results of tools, and the text of documents included."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, (list, tuple)):
        return sum([block_length(block, files) for block in cast("Sequence[object]", content)])
    if content is None:
        return 0
    if content.__class__ is dict and (plain := cast("dict[str, object]", content)).get("type") == "text":
        return block_length(plain.get("text"), files)
    kind = field_of(content, "type")
    kind = kind if isinstance(kind, str) else None
    size = 0
    for key in ("text", "content", "thinking", *HOLDING.get(kind, ())):
        if (part := field_of(content, key)) is not None:
            size += block_length(part, files)
    if (given := field_of(content, "input")) is not None:
        size += len(str(given))
    if files is not None and kind in SEALED and isinstance(sealed := field_of(content, SEALED[kind]), str):
        files.append(-(-len(sealed) // SEALED_PER_TOKEN))
    if kind is not None and kind in FILES:
        size += _opened(content, files)
        if files is not None and not (size and _tells_all(content)):
            files.append(_file_tokens(content, kind))
    return size


def _opened(block: object, files: list[int] | None) -> int:
    """Characters of a document that lies open, and of what is said about it."""
    context = field_of(block, "context")
    return block_length(document_text(block), files) + (len(context) if isinstance(context, str) else 0)


def _tells_all(block: object) -> bool:
    """Whether a block's text is all that it brings."""
    return document_text(block) is not None or all(field_of(block, key) is None for key in HOLDS)


def _file_tokens(block: object, kind: str) -> int:
    """Tokens that a file comes to at most, by its own size where it is sent along."""
    inner = [found for key in ("source", kind) if (found := field_of(block, key)) is not None and not isinstance(found, str)]
    held = inner[0] if inner else block
    said = field_of(held, "media_type") or field_of(held, "mime_type") or field_of(block, "mime_type")
    media = said if isinstance(said, str) else ""
    brings = MEDIA.get(media.partition("/")[0], FILES[kind])
    if brings == "picture":
        return PICTURE
    data = next((found for key in DATA if (found := field_of(held, key))), None)
    if not isinstance(data, (str, bytes)):
        return FILE
    size = len(data) * 3 // 4 if isinstance(data, str) else len(data)  # three bytes are four characters of base64
    return -(-size // BYTES_PER_HEARD_TOKEN) if brings == "recording" else min(FILE, max(PAGE, size // BYTES_PER_TOKEN))
