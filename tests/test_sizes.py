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
        ([block("code_execution_tool_result", content=block("code_execution_result", stdout="x" * 90, stderr="x" * 10, content=[]))], 100),
        ([block("bash_code_execution_tool_result", content=block("bash_code_execution_result", stdout="x" * 100, content=[]))], 100),
        ([block("tool_result", content=block("text_editor_code_execution_str_replace_result", lines=["x" * 50] * 2))], 100),
        ([block("mcp_call", name="f", arguments="x" * 50, output="x" * 50)], 100),
        ([block("file_search_call", queries=["q"], results=[{"file_id": "1", "text": "x" * 100}])], 100),
        ([block("code_interpreter_call", code="x" * 50, outputs=[block("logs", logs="x" * 50)])], 100),
        ([block("server_tool_result", output="x" * 100)], 100),
        ([{"stdout": "x" * 60, "stderr": "x" * 40, "outcome": {"type": "exit", "exit_code": 1}}], 100),
    ],
)
def test_the_length_of_a_message_counts_all_that_is_sent(content: object, least: int) -> None:
    assert least <= length_of({"role": "user", "content": content}) <= least + 20


def test_a_call_in_the_former_way_is_as_long_as_its_arguments() -> None:
    assert 100 <= length_of({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "x" * 100}}) <= 150


@pytest.mark.parametrize(
    "sealed",
    [
        block("web_search_tool_result", content=[block("web_search_result", url="u", title="t", encrypted_content="A" * 30_000)]),
        block("code_execution_tool_result", content=block("encrypted_code_execution_result", encrypted_stdout="A" * 30_000, stderr="")),
        block("redacted_thinking", data="A" * 30_000),
        block("reasoning", summary=[], encrypted_content="A" * 30_000),
    ],
)
def test_sealed_words_come_to_a_token_for_three_characters(sealed: dict[str, Any]) -> None:
    assert (in_files(sealed), block_length([sealed])) == (10_000, 0)


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
