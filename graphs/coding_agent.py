"""A coding agent with a lint/debug split: finding a bug is strong work, tidying up is cheap, and the one never drags the other along.

Both are tool loops over the same small repository, with tools that really work: tests are run, files are edited, a linter looks at them.
Debugging is declared `debug_refactor` and stays strong from the first call to the last. Tidying is declared `code_format` and keeps a
history of its own (`tidying`), so no pin of the debugging reaches it, even though it comes right after it.

    routed-agents run graphs/coding_agent.py --input graphs/coding_agent.jsonl
"""

from __future__ import annotations

import ast
import operator
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.graph import END, START, MessagesState, StateGraph, add_messages
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command
from pydantic import BaseModel, Field

from routed_agents import RoutedChatModel, Router, join
from routed_agents.integrations.langgraph import observed

router = Router.from_env()
model = RoutedChatModel(router=router, options={"max_tokens": 1024})
REPOSITORY: dict[str, str] = {
    file["path"]: file["text"] for file in tomllib.loads(Path(__file__).with_name("repository.toml").read_text(encoding="utf-8"))["file"]
}
MOST_CALLS = 14
"""Model calls after which a loop gives up."""
TESTS_TAKE_AT_MOST_S = 30


class Work(BaseModel):
    """What kind of work a request is."""

    kind: Literal["debug", "tidy"] = Field(
        description="debug: debug, bug, crash, failing test, wrong result, error, fix the behaviour; "
        "tidy: lint, linter, format, formatting, style, clean, tidy, unused, whitespace"
    )


class Coding(MessagesState):
    """One request: `messages` is the debugging, `tidying` the tidying, `edits` what was changed, in order."""

    routing: Annotated[dict[str, Any], join]
    tidying: Annotated[list[AnyMessage], add_messages]
    edits: Annotated[list[tuple[str, str, str]], operator.add]
    kind: Literal["debug", "tidy"]


def files(state: dict[str, Any]) -> dict[str, str]:
    """The repository as it stands after the edits."""
    now = dict(REPOSITORY)
    for path, old, new in state.get("edits", []):
        now[path] = now[path].replace(old, new, 1)
    return now


@tool
def run_tests(path: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Run the tests of one file, such as test_fees.py, and give what the test runner prints."""
    now = files(state)
    _known(path, now)
    with tempfile.TemporaryDirectory(prefix="coding-agent-") as folder:
        for name, text in now.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        command = [sys.executable, "-B", "-m", "unittest", path.removesuffix(".py")]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TESTS_TAKE_AT_MOST_S, check=False)
        return f"{ran.stdout}{ran.stderr}".replace(f"{folder}/", "").replace(str(Path(folder).resolve()), "").strip()


@tool
def read_file(path: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Read a file of the repository."""
    return files(state)[_known(path, files(state))]


@tool
def lint(path: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Look for unused imports, comparisons with None by == and !=, and whitespace at line ends; one finding a line."""
    text = files(state)[_known(path, files(state))]
    return "\n".join(f"{path}:{line}: {found}" for line, found in sorted(_findings(text))) or f"{path} is clean"


def editing(key: str) -> BaseTool:
    """The tool that edits, reporting to one of the two histories."""

    @tool
    def edit_file(
        path: str, old: str, new: str, state: Annotated[dict[str, Any], InjectedState], call: Annotated[str, InjectedToolCallId]
    ) -> Command[Any]:
        """Replace a piece of text, which must stand in the file exactly once."""
        seen = files(state)[_known(path, files(state))].count(old)
        if seen != 1 or not old:
            raise ValueError(f"the old text stands {seen} times in {path}; it must stand there exactly once")
        done = ToolMessage(f"{path} edited", tool_call_id=call)
        return Command(update={"edits": [(path, old, new)], key: [done]})

    return edit_file


def _known(path: str, now: dict[str, str]) -> str:
    if path not in now:
        raise ValueError(f"there is no {path}; there are {', '.join(now)}")
    return path


def _findings(text: str) -> list[tuple[int, str]]:
    found = [(number, "W291 trailing whitespace") for number, line in enumerate(text.splitlines(), 1) if line != line.rstrip()]
    tree = ast.parse(text)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, f"F401 '{each.name}' imported but unused") for each in node.names if each.name not in used]
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)) and _is_none(node.comparators[0]):
            found.append((node.lineno, "E711 comparison to None"))
    return found


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


DEBUGGING = [run_tests, read_file, editing("messages")]
TIDYING = [lint, read_file, editing("tidying")]


def sort(state: Coding) -> dict[str, Any]:
    """Tell a bug from a matter of style."""
    asked = [SystemMessage("Classify the request by the kind of work."), HumanMessage(f"<text>\n{request_of(state)}\n</text>")]
    return {"kind": model.with_structured_output(Work).invoke(asked).kind}


def debug(state: Coding) -> dict[str, Any]:
    """Take the next step towards the bug: run tests, read, edit, or say what it was."""
    system = SystemMessage("You debug Python code. Run the tests, read the code, edit it, and run the tests again until they pass.")
    return {"messages": [model.bind_tools(DEBUGGING).invoke([system, *state["messages"]])]}


def tidy(state: Coding) -> dict[str, Any]:
    """Take the next step towards a clean linter; what was debugged is tidied as well."""
    system = SystemMessage("You tidy Python code. Run the linter, read the file, edit what it finds, and run it again until it is clean.")
    before = state.get("tidying", [])
    begun = bool(before) and before[-1].type == "tool"
    opening = [] if begun else [HumanMessage(f"Lint {', '.join(paths_of(state))} and fix what the linter finds.")]
    reply = model.bind_tools(TIDYING).invoke([system, *before, *opening])
    return {"tidying": [*opening, reply]}


def finish(state: Coding) -> dict[str, Any]:
    """Say what was done; no model is called."""
    told = [state["messages"][-1].text if state["kind"] == "debug" else "", state["tidying"][-1].text if state.get("tidying") else ""]
    return {"messages": [AIMessage(" ".join(part for part in told if part))]}


def after_debug(state: Coding) -> Literal["debug_tools", "tidy"]:
    """Tools while the model asks for them, then the linter."""
    return "debug_tools" if _goes_on(state["messages"]) else "tidy"


def after_tidy(state: Coding) -> Literal["tidy_tools", "finish"]:
    """Tools while the model asks for them, then the end."""
    return "tidy_tools" if _goes_on(state["tidying"]) else "finish"


def _goes_on(history: list[AnyMessage]) -> bool:
    last = history[-1]
    kinds = [each.type for each in history]
    calls = kinds[::-1].index("human") if "human" in kinds else len(kinds)
    return isinstance(last, AIMessage) and bool(last.tool_calls) and calls < 2 * MOST_CALLS  # each call with its results


def request_of(state: Coding) -> str:
    """The latest request."""
    return next((str(message.text) for message in reversed(state["messages"]) if message.type == "human"), "")


def paths_of(state: Coding) -> list[str]:
    """The files to tidy: those the request names or whose tests it names, else those edited, else all."""
    named = [path.removeprefix("test_") for path in re.findall(r"\w+\.py", request_of(state))]
    known = [path for path in named if path in REPOSITORY] or [path for path, _, _ in state.get("edits", [])]
    return list(dict.fromkeys(known)) or [path for path in REPOSITORY if not path.startswith("test_")]


builder = StateGraph(Coding)
builder.add_node("sort", sort, metadata={"task_class": "classification"})
builder.add_node("debug", debug, metadata={"task_class": "debug_refactor"})
builder.add_node("debug_tools", ToolNode(DEBUGGING, handle_tool_errors=True))
builder.add_node("tidy", tidy, metadata={"task_class": "code_format"})
builder.add_node("tidy_tools", ToolNode(TIDYING, messages_key="tidying", handle_tool_errors=True))
builder.add_node("finish", finish)
builder.add_edge(START, "sort")
builder.add_conditional_edges("sort", lambda state: state["kind"], ["debug", "tidy"])
builder.add_conditional_edges("debug", after_debug)
builder.add_edge("debug_tools", "debug")
builder.add_conditional_edges("tidy", after_tidy)
builder.add_edge("tidy_tools", "tidy")
builder.add_edge("finish", END)

graph = observed(builder.compile(), router)
