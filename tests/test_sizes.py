"""Sizes: how long a message is, whatever it brings."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import DocumentBlock, PlainTextSource
from langchain_core.messages import HumanMessage

from routed_agents.sizes import FILE, PAGE, PICTURE, block_length, length_of


def block(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


def in_files(*blocks: Any) -> int:
    files: list[int] = []
    length_of(HumanMessage(list(blocks)), files)
    return sum(files)


@pytest.mark.parametrize(
    ("content", "least"),
    [
        ("x" * 100, 100),
        ([block("text", text="x" * 100)], 100),
        ([block("tool_result", content="x" * 100)], 100),
        ([block("tool_result", content=[block("text", text="x" * 100)])], 100),
        ([block("tool_use", name="f", input={"q": "x" * 100})], 100),
        ([block("thinking", thinking="x" * 100)], 100),
        ([block("document", source={"type": "text", "data": "x" * 100})], 100),
        ([block("document", source={"type": "content", "content": "x" * 100})], 100),
        ([block("document", source={"type": "content", "content": [block("text", text="x" * 100)]})], 100),
        ([block("document", source={"type": "text", "data": "x" * 90}, context="x" * 10)], 100),
        ([block("tool_result", content=[block("document", source={"type": "text", "data": "x" * 100})])], 100),
        ([block("search_result", source="https://example.com", title="t", content=[block("text", text="x" * 100)])], 100),
        ([block("text-plain", text="x" * 100)], 100),
    ],
)
def test_the_length_of_a_message_counts_all_that_is_sent(content: object, least: int) -> None:
    assert least <= length_of({"role": "user", "content": content}) <= least + 20


@pytest.mark.parametrize(
    "brought",
    [
        block("document", source={"type": "base64", "media_type": "application/pdf", "data": "A" * 40_000}),
        block("tool_result", content=[block("document", source={"type": "base64", "media_type": "application/pdf", "data": "A" * 40_000})]),
        block("file", file={"filename": "a.pdf", "file_data": "A" * 40_000}),
        block("input_file", filename="a.pdf", file_data="A" * 40_000),
        block("file", base64="A" * 40_000, mime_type="application/pdf"),
        block("file", source_type="base64", data="A" * 40_000, mime_type="application/pdf"),
        block("text-plain", base64="A" * 40_000),
        block("file", text="read this", base64="A" * 40_000),
    ],
)
def test_a_file_that_is_sent_along_comes_to_a_token_a_byte_at_most(brought: dict[str, Any]) -> None:
    assert in_files(brought) == 30_000


@pytest.mark.parametrize(
    "brought",
    [
        block("document", source={"type": "url", "url": "https://example.com/a.pdf"}),
        block("document", source={"type": "file", "file_id": "file_1"}),
        block("document", source={"type": "base64", "media_type": "application/pdf", "data": "A" * 4_000_000}),
        block("container_upload", file_id="file_1"),
        block("file", file={"file_id": "file_1"}),
        block("input_file", file_id="file_1"),
        block("input_file", file_url="https://example.com/a.pdf"),
        block("file", url="https://example.com/a.pdf"),
        block("file", file_id="file_1"),
        block("text-plain", text="a title", file_id="file_1"),
        block("media", file_uri="gs://a/b", mime_type="application/pdf"),
        block("audio", url="https://example.com/a.mp3"),
    ],
)
def test_a_file_of_unknown_length_may_be_the_longest_there_is(brought: dict[str, Any]) -> None:
    assert in_files(brought) == FILE


@pytest.mark.parametrize(
    "brought",
    [
        block("image", source={"type": "base64", "media_type": "image/png", "data": "A" * 4_000_000}),
        block("image", source={"type": "file", "file_id": "file_1"}),
        block("image_url", image_url={"url": "https://example.com/a.png"}),
        block("image_url", image_url="data:image/png;base64,AAAA"),
        block("input_image", file_id="file_1"),
        block("image", url="https://example.com/a.png"),
        block("file", base64="A" * 4_000_000, mime_type="image/png"),
    ],
)
def test_a_picture_is_as_long_as_the_largest(brought: dict[str, Any]) -> None:
    assert in_files(brought) == PICTURE


def test_a_small_file_has_a_page() -> None:
    assert in_files(block("file", base64="A" * 400, mime_type="application/pdf")) == PAGE


def test_a_recording_is_heard_in_few_tokens() -> None:
    assert in_files(block("input_audio", input_audio={"data": "A" * 400_000, "format": "mp3"})) == 10_000


def test_a_document_that_lies_open_is_no_file() -> None:
    opened = DocumentBlock(type="document", source=PlainTextSource(type="text", media_type="text/plain", data="x" * 100))
    files: list[int] = []

    assert (block_length([opened, block("text-plain", text="x" * 100)], files), files) == (200, [])
