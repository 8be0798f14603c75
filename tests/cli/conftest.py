from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from routed_agents.cli import main

ECHO = """
import os
from pathlib import Path
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

import asyncio

async def answer(state):
    text = state["messages"][-1].content
    if log := os.environ.get("ECHO_LOG"):
        with open(log, "a") as file:
            file.write(text + "\\n")
    if "explode" in text:
        raise ValueError("boom\\nsecond line")
    await asyncio.sleep(float(os.environ.get("ECHO_SLEEP", "0")))
    return {"messages": [AIMessage(f"echo {text}")]}

builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
"""
ROUTED = """
from langgraph.graph import END, START, MessagesState, StateGraph
from routed_agents import RoutedChatModel, Router

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 64})

async def answer(state):
    return {"messages": [await model.ainvoke(state["messages"])]}

builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
graph = builder.compile()
"""


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., str]:
    """Writes records (or raw lines) to a JSONL file, and gives its path."""

    def put(*records: object, name: str = "in.jsonl") -> str:
        raw = b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in records)
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return str(path)

    return put


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process; gives exit code, output and errors."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(each) for each in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def echo(tmp_path: Path) -> str:
    """A graph that calls no model."""
    path = tmp_path / "echo_graph.py"
    path.write_text(f"{ECHO}\ngraph = builder.compile()\n")
    return str(path)


@pytest.fixture
def routed(tmp_path: Path) -> str:
    """A graph of one routed model call."""
    path = tmp_path / "routed_graph.py"
    path.write_text(ROUTED)
    return str(path)


def said(text: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], **more}


def parsed(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def ids(rows: Iterable[dict[str, object]]) -> list[object]:
    return [row["id"] for row in rows]
