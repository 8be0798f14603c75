"""Runs graphs that are killed at a chosen point, and takes them up again in another process.

`killed_runs.py` runs the job on stdin, a line of JSON; `killed_runs.py serve` runs one job after the other, each in a fork of this process,
which has imported everything and opened nothing. The book of a job is what the providers saw of it, one line for each call, and what became
of it; it is written before the reply, so a kill loses none of it.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.store.sqlite import AsyncSqliteStore, SqliteStore
from langgraph.types import Send

from routed_agents import Ledger, RoutedChatModel, Router, RouterMiddleware, RouterNode, Step, decision_of, join
from routed_agents.telemetry import Telemetry
from routed_agents.testing import ScriptedChatModel

try:
    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.store.postgres import AsyncPostgresStore, PostgresStore
except ImportError:  # the tests that need it are skipped
    PostgresSaver = AsyncPostgresSaver = PostgresStore = AsyncPostgresStore = None  # type: ignore[assignment,misc]

HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"
PLAN = "Plan the migration in several steps and carry it out, using tools."
EASY = "Classify the sentiment as positive or negative: lovely"
LABEL = "Classify the ticket as bug or wish:\n```\nmy husband died, I am desperate\n```"
FAQ = "Reply to the customer: how long does delivery take, according to the help center article?"
TURNS: dict[str, list[str]] = {
    "desk": [PLAN, EASY],  # a hard turn, and an easy one of the same thread
    "rejected": [EASY],
}


class Book:
    """What happened, in a file of JSON lines; every point that is reached may be the one where the process is killed.

    A write that crosses a page can be read by half, and be cut in two by the kill: all three wait for one another.
    """

    def __init__(self, path: str, kill_at: int | None, kill_in: str | None) -> None:
        self.path = Path(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._kill_at, self._kill_in = kill_at, kill_in
        self._lock = threading.RLock()
        self._reached = 0

    def write(self, **line: Any) -> None:
        with self._lock:
            os.write(self._file, (json.dumps({"pid": os.getpid(), **line}) + "\n").encode())

    def lines(self) -> list[dict[str, Any]]:
        with self._lock:
            return [json.loads(line) for line in self.path.read_text().splitlines()]

    def point(self, where: str) -> None:
        with self._lock:
            self._reached += 1
            self.write(point=where, number=self._reached)
            if self._reached == self._kill_at or where == self._kill_in:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # until it arrives

    @property
    def reached(self) -> int:
        return self._reached


class Desk(MessagesState):
    routing: Annotated[dict[str, Any], join]
    asked: Annotated[list[int], operator.add]
    made: Annotated[list[str], operator.add]
    part: str
    text: str


class Works:
    """Nodes with routed models over two scripted providers that keep the book."""

    def __init__(self, book: Book, *, as_async: bool) -> None:
        self.book = book
        self.router = Router(ledger=Ledger.memory(), telemetry=Telemetry.off())
        self.as_async = as_async
        self.turn = 0

    def provider(self, node: str, name: str, says: Callable[[list[Any]], Any]) -> ScriptedChatModel:
        tier = "strong" if name == OPUS else "cheap"

        def reply(messages: list[Any]) -> Any:
            self.book.write(call=[self.turn, node, len(messages), messages[-1].text], tier=tier)
            self.book.point(f"{node} asks {tier}")
            answer = says(messages)
            return answer(tier) if callable(answer) else answer

        return ScriptedChatModel(model_name=name, replies=reply, provider="anthropic")

    def model(self, node: str, says: Callable[[list[Any]], Any] = lambda messages: "done", **more: Any) -> RoutedChatModel:
        tiers = {"cheap": self.provider(node, HAIKU, says), "strong": self.provider(node, OPUS, says)}
        return RoutedChatModel(**tiers, router=self.router, **more)

    def begin(self, turn: int, *, given: bool) -> None:
        """A turn that is given its input, or taken up where its input has been saved."""
        self.turn = turn
        self.book.write(turn=turn, given=given)

    def node(self, name: str, *prompts: Callable[[Any], Any], keep: bool = False, says: Any = None, **more: Any) -> Any:
        """A node that asks once for each prompt; with `keep` the last answer goes into the conversation."""
        model = self.model(name, **({"says": says} if says else {}), **more)

        def ended(state: Any, answers: list[AIMessage]) -> dict[str, Any]:
            tiers = [str((decision_of(answer) or {})["tier"]) for answer in answers]
            self.book.point(f"{name} ends")
            made = [f"{name}{state.get('part') or ''}: {' '.join(tiers)}"]
            return {"made": made, "messages": answers[-1:] if keep else []}

        def run(state: Any) -> dict[str, Any]:
            self.book.point(f"{name} begins")
            answers = []
            for prompt in prompts:
                answers.append(model.invoke(prompt(state)))
                self.book.point(f"{name} was answered")
            return ended(state, answers)

        async def arun(state: Any) -> dict[str, Any]:
            self.book.point(f"{name} begins")
            answers = []
            for prompt in prompts:
                answers.append(await model.ainvoke(prompt(state)))
                self.book.point(f"{name} was answered")
            return ended(state, answers)

        return arun if self.as_async else run


def history(state: Any) -> Any:
    return state["messages"]


def alone(text: str) -> Callable[[Any], Any]:
    """A prompt of the node's own, another one in each turn."""
    return lambda state: f"{text} ({len(state.get('asked') or ())})"


def desk(works: Works) -> StateGraph[Any]:
    """Distress noted at the door, a plan, an agent with tools, a critic, a summary, branches, an answer to a person, and a router node."""

    @tool
    def look(n: int) -> str:
        """Look it up."""
        works.book.point("the tool runs")
        return EASY

    def agent_says(messages: list[Any]) -> AIMessage:
        made = sum(bool(getattr(message, "tool_calls", None)) for message in messages)
        return AIMessage("done") if made >= 2 else AIMessage("", tool_calls=[{"name": "look", "args": {"n": made}, "id": f"call {made}"}])

    agent = create_agent(
        works.provider("agent", OPUS, agent_says),
        [look],
        middleware=[RouterMiddleware(works.router, cheap=works.provider("agent", HAIKU, agent_says))],
    )

    def critic(state: Any) -> dict[str, Any]:
        works.book.point("critic ran")
        return {"messages": [HumanMessage(EASY)]}

    route = RouterNode(works.router, to={"cheap": "quick", "strong": "deep"})
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("wake", lambda state: works.book.point("waking") or {})
    builder.add_node("listen", works.node("listen", lambda state: LABEL if state["asked"] == [0] else f"{EASY} (2)"))
    builder.add_node("plan", works.node("plan", history, keep=True))
    builder.add_node("agent", agent)
    builder.add_node("critic", critic)
    builder.add_node("act", works.node("act", history, alone(EASY), keep=True))
    builder.add_node(
        "summarize", lambda state: {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage(EASY)], "made": ["summarized"]}
    )
    builder.add_node(
        "branch",
        works.node("branch", lambda state: state["text"], lambda state: f"{EASY} (part {state['part']})"),
    )
    builder.add_node("reduce", works.node("reduce", alone(EASY)), defer=True)
    builder.add_node("answer", works.node("answer", alone(FAQ)))
    builder.add_node("router", route, destinations=route.destinations)
    builder.add_node("quick", lambda state: {"made": ["quick"]})
    builder.add_node("deep", lambda state: {"made": ["deep"]})
    for start, end in zip(
        [START, "wake", "listen", "plan", "agent", "critic"], ["wake", "listen", "plan", "agent", "critic", "act"], strict=True
    ):
        builder.add_edge(start, end)

    def after_act(state: Any) -> Any:
        turn = [each for each in state["made"] if each.startswith(("act", "summarized"))]
        turn_number = len(state["asked"])
        if len(turn) < 3 * turn_number:
            return "summarize"
        return [
            Send("branch", {"part": part, "text": PLAN if part == "b" and turn_number == 1 else f"{EASY} ({turn_number})"})
            for part in "abc"
        ]

    builder.add_conditional_edges("act", after_act, ["summarize", "branch"])
    builder.add_edge("summarize", "act")
    for start, end in zip(["branch", "reduce", "answer"], ["reduce", "answer", "router"], strict=True):
        builder.add_edge(start, end)
    return builder


def rejected(works: Works) -> StateGraph[Any]:
    """Cheap models whose first answer is empty and turned down, and whose next one would be good; the book knows which came first."""

    def says(node: str) -> Callable[[list[Any]], Any]:
        def reply(messages: list[Any]) -> Callable[[str], str]:
            asked = [node, messages[-1].text]

            def answer(tier: str) -> str:
                if tier == "strong" or any(line.get("empty") == asked for line in works.book.lines()):
                    return "done"
                works.book.write(empty=asked)
                return ""

            return answer

        return reply

    providers = [works.provider("agent", name, says("agent")) for name in (HAIKU, OPUS)]
    agent = create_agent(providers[1], [], middleware=[RouterMiddleware(works.router, cheap=providers[0])])
    builder: StateGraph[Any] = StateGraph(Desk)
    builder.add_node("ask", works.node("ask", alone(EASY), alone(EASY), says=says("ask")))
    builder.add_node("agent", agent)
    builder.add_node("branch", works.node("branch", *[lambda state: f"{EASY} (part {state['part']})"] * 2, says=says("branch")))
    builder.add_node("last", works.node("last", history))
    for start, end in zip([START, "ask", "branch", "last"], ["ask", "agent", "last", END], strict=True):
        builder.add_edge(start, end)
    builder.add_conditional_edges("agent", lambda state: [Send("branch", {"part": part}) for part in "ab"], ["branch"])
    return builder


GRAPHS: dict[str, Callable[[Works], StateGraph[Any]]] = {"desk": desk, "rejected": rejected}


def dying(kind: type[Any], book: Book, late_s: float = 0.0) -> type[Any]:
    """A saver or store of this kind that may be killed before and after everything it writes, and writes late."""

    def around(name: str) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            time.sleep(late_s)
            book.point(f"before {name}")
            done = getattr(kind, name)(self, *args, **kwargs)
            book.point(f"after {name}")
            return done

        async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(late_s)
            book.point(f"before {name}")
            done = await getattr(kind, name)(self, *args, **kwargs)
            book.point(f"after {name}")
            return done

        return acall if name.startswith("a") else call

    own = "a" if kind.__name__.startswith("Async") else ""
    names = [f"{own}{name}" for name in ("put", "put_writes") if hasattr(kind, name)]
    return type(kind.__name__, (kind,), {name: around(name) for name in names})


def kinds(job: dict[str, Any], book: Book) -> list[tuple[Any, str]]:
    """What a job keeps its checkpoints in, and its store's items if it has a store, with their addresses."""
    known = {
        ("sqlite", False): (SqliteSaver, SqliteStore),
        ("sqlite", True): (AsyncSqliteSaver, AsyncSqliteStore),
        ("postgres", False): (PostgresSaver, PostgresStore),
        ("postgres", True): (AsyncPostgresSaver, AsyncPostgresStore),
    }
    saver, store = known[job["saver"], job["async"]]
    beside = job["at"] + (".store" if job["saver"] == "sqlite" else "")
    return [(dying(saver, book, job["late_s"]), job["at"]), *([(dying(store, book), beside)] if job["store"] else [])]


@contextmanager
def opened(job: dict[str, Any], book: Book) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        found = [stack.enter_context(kind.from_conn_string(at)) for kind, at in kinds(job, book)]
        for each in found:
            each.setup()
        yield dict(zip(("checkpointer", "store"), found, strict=False))


@asynccontextmanager
async def aopened(job: dict[str, Any], book: Book) -> AsyncIterator[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(kind.from_conn_string(at)) for kind, at in kinds(job, book)]
        for each in found:
            await each.setup()
        yield dict(zip(("checkpointer", "store"), found, strict=False))


def missing(works: Works, job: dict[str, Any], snapshot: Any) -> Iterator[Any]:
    """What is left to run: the run that was cut off, if one was, and the inputs nobody has taken."""
    begun = [line["turn"] for line in works.book.lines() if "turn" in line]
    left = 0
    if begun:
        cut_off = begun[-1]
        left = cut_off + 1 if snapshot.tasks or cut_off in snapshot.values.get("asked", ()) else cut_off
        if snapshot.tasks:  # `next` leaves out tasks whose writes are known, and they are still to be applied
            works.begin(cut_off, given=False)
            yield None
    for number, text in list(enumerate(TURNS[job["graph"]]))[left:]:
        works.begin(number, given=True)
        yield {"messages": [HumanMessage(text)], "asked": [number]}


def outcome(values: dict[str, Any]) -> dict[str, Any]:
    """The decisions a finished thread shows: stamps, what nodes noted, and what its channel holds, apart from times and ids."""
    routing = values.get("routing") or {"pins": [], "facts": []}
    pins = {(pin["scope"], pin["tier"], pin.get("key", "").partition(":")[0], pin.get("code", "")) for pin in routing["pins"]}
    stamps = [(message.text[:20], stamp["tier"], stamp["codes"]) for message in values["messages"] if (stamp := decision_of(message))]
    return {"made": sorted(values["made"]), "stamps": stamps, "pins": sorted(pins), "facts": routing["facts"]}


def run(job: dict[str, Any]) -> None:
    book = Book(job["book"], job.get("kill_at"), job.get("kill_in"))
    config: Any = {"configurable": {"thread_id": job["thread"]}, "recursion_limit": 60}
    how = {"durability": job["durability"]}
    works = Works(book, as_async=job["async"])

    def finish(values: dict[str, Any]) -> None:
        book.write(outcome=outcome(values), points=book.reached)

    if not job["async"]:
        with opened(job, book) as kept:
            graph = GRAPHS[job["graph"]](works).compile(**kept)
            for given in missing(works, job, graph.get_state(config)):
                graph.invoke(given, config, **how)
            finish(graph.get_state(config).values)
        return

    async def main() -> None:
        async with aopened(job, book) as kept:
            graph = GRAPHS[job["graph"]](works).compile(**kept)
            for given in missing(works, job, await graph.aget_state(config)):
                await graph.ainvoke(given, config, **how)
            finish((await graph.aget_state(config)).values)

    asyncio.run(main())


def forked(job: dict[str, Any]) -> int:
    """Run a job in a process of its own; how it ended, a signal as a negative number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run(job)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        Router(telemetry=Telemetry.off()).decide(Step.from_messages(EASY))  # reads weights and prices
        for line in sys.stdin:
            print(forked(json.loads(line)), flush=True)  # noqa: T201
    else:
        run(json.loads(sys.stdin.readline()))
