"""An observer prices the model calls that nobody routed."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast
from uuid import UUID
from weakref import WeakValueDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from routed_agents.complaints import complain
from routed_agents.features import extract
from routed_agents.integrations.capture import Capture, message_of
from routed_agents.integrations.models import QUIET
from routed_agents.integrations.position import position_of
from routed_agents.integrations.telling import usage_as_asked, usage_of_part, words_of
from routed_agents.policy import Policy
from routed_agents.pricing import Usage, usage_of
from routed_agents.router import Router, labels_from_tags
from routed_agents.router.reading import failure_in
from routed_agents.steps import Step, field_of
from routed_agents.telemetry.spans import parent_context

MARK: Final = "routed_agents_tier"
"""Metadata on the run of a routed attempt, so that an observer doesn't count it again."""

AGAIN: Final = "routed_agents_again"
"""Metadata on the run of a further attempt of a step, so that it isn't counted as another step."""
RUNS_OPEN: Final = 20_000
"""Runs under way that are held; one whose start a callback refuses never says that it is over, and such runs must not pile up."""


Unclaimed = list[tuple["CostObserver", "_Watched", BaseMessage]]
_CLAIMS: Final[ContextVar[Unclaimed | None]] = ContextVar("routed_agents_claims", default=None)


@contextmanager
def claiming(reply: Callable[[], BaseMessage | None]) -> Generator[None]:
    """Within, observers wait with what they have seen answered: the call that led to `reply` is booked by whoever asked for it."""
    seen: Unclaimed = []
    token = _CLAIMS.set(seen)
    try:
        yield
    finally:
        _CLAIMS.reset(token)
        own = reply()
        for observer, watched, message in seen:
            if own is None or (message is not own and message.id != own.id):
                observer.book(watched, message, None)


@dataclass(slots=True)
class _Watched:
    """A call an observer has seen begin."""

    model: str
    messages: Sequence[BaseMessage]
    asked: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    started_ns: int
    parent: object
    decided: tuple[_Expected, ...]
    within: UUID | None
    id: str
    beside: int
    came: Capture = field(default_factory=Capture)
    first_chunk_ns: int | None = None


@dataclass(slots=True)
class _Expected:
    """What a router decided for a node; the first answer given there is that step's, and further calls are steps of their own.

    `task` is the node's task that it was decided for, once that has begun.
    """

    node: str
    decision: Any
    router: Router
    context: object
    task: str = ""
    answered: bool = False
    calls: int = 0

    def step_id(self) -> str:
        self.calls += 1
        return str(self.decision.id) if self.calls == 1 else f"{self.decision.id}.{self.calls}"


class CostObserver(BaseCallbackHandler):
    """Prices the model calls that nobody routed, among them those of plain models behind a `RouterNode`.

    Pass it once, and it sees every model call below: `graph.invoke(inputs, {"callbacks": [CostObserver(router)]})`. It never chooses
    a model; calls made through `RoutedChatModel` are left alone, for they keep their own books. Of several that hear a call and write to
    one ledger, one books it: a `watch`, else the outer one.

    The chunks of a ChatAnthropic stream leave out how it was served (retention of cache writes, speed, service tier, region): it is
    priced as it was asked for, as an estimate.
    """

    run_inline = True
    _bookers: ClassVar[WeakValueDictionary[tuple[UUID, object], CostObserver]] = WeakValueDictionary()
    """Who puts each call under way into each ledger; an observer that is gone has nothing more to book."""

    def __init__(self, router: Router | Policy | str | None = None) -> None:
        self.router = Router.of(router)
        self._books: object = getattr(self.router.ledger, "place", None) or id(self.router.ledger)
        self._open: dict[UUID, _Watched] = {}
        self._parents: OrderedDict[UUID, UUID | None] = OrderedDict()
        self._expected: dict[UUID, dict[str, list[_Expected]]] = {}
        self._decided: dict[UUID, _Expected] = {}
        self._counted_already: Counter[tuple[UUID | None, str]] = Counter()

    def expect(self, run: UUID | None, node: str, decision: Any, router: Router, context: object, *, up: int = 1) -> None:
        """Remember what a router node, and its router, decided for a node; the step made there, or further in, is recorded under it.

        Args:
            run: the router node's.
            node: its name.
            decision: what was decided.
            router: the one that did.
            context: the span context of the decision.
            up: how many runs further out that of the node's graph is.
        """
        above = self._above(run)
        if len(above) > up and above[up] in self._parents:
            waiting = self._expected.setdefault(above[up], {}).setdefault(node, [])
            waiting.append(_Expected(node=node, decision=decision, router=router, context=context))

    @override
    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._begun(run_id, parent_run_id)
        if parent_run_id is not None and parent_run_id in self._expected:
            self._take_up(run_id, self._expected[parent_run_id], metadata or {})

    @override
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._forget(run_id)

    @override
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._broken_off(run_id)

    @override
    def on_tool_start(self, serialized: Any, input_str: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self._begun(run_id, parent_run_id)  # an agent or a model may be called in there

    @override
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._forget(run_id)

    @override
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._broken_off(run_id)

    @override
    def on_retriever_start(self, serialized: Any, query: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self._begun(run_id, parent_run_id)  # a model may write its queries

    @override
    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._forget(run_id)

    @override
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._broken_off(run_id)

    @override
    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        self._asked(serialized, messages[0] if messages else (), run_id, parent_run_id, **kwargs)

    @override
    def on_llm_start(
        self, serialized: Any, prompts: list[str], *, run_id: UUID, parent_run_id: UUID | None = None, batch_size: int = 1, **kwargs: Any
    ) -> None:
        messages = [HumanMessage(prompt) for prompt in prompts]
        self._asked(serialized, messages, run_id, parent_run_id, beside=batch_size - 1, **kwargs)

    def _asked(
        self,
        serialized: Any,
        messages: Sequence[BaseMessage],
        run_id: UUID,
        parent_run_id: UUID | None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        beside: int = 0,
        **kwargs: Any,
    ) -> None:
        """Note a call that begins, of a text completion model's request with as many other prompts beside it."""
        known = metadata or {}
        if MARK in known:
            return
        parameters = cast("Mapping[str, Any]", kwargs.get("invocation_params") or {})
        model = known.get("ls_model_name") or parameters.get("model") or parameters.get("model_name") or "unknown"
        self.router.expect(str(model), known.get("ls_provider"))
        self._open[run_id] = _Watched(
            model=str(model),
            messages=messages,
            asked=_mappings(parameters, parameters.get("model_kwargs"), field_of(serialized, "kwargs")),
            metadata=known,
            tags=tags or (),
            started_ns=time.time_ns(),
            parent=parent_context(parent_run_id),
            decided=self._decided_for(parent_run_id),
            within=parent_run_id,
            id=str(run_id),
            beside=beside,
        )
        self._claim(run_id)

    def _claim(self, run_id: UUID) -> None:
        """Book a call unless another observer does."""
        self._bookers.setdefault((run_id, self._books), self)

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        seen = self._open.get(run_id)
        if seen is not None:
            seen.first_chunk_ns = seen.first_chunk_ns or time.time_ns()
            seen.came.on_llm_new_token(token, **kwargs)

    @override
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if (seen := self._open.get(run_id)) is not None:
            seen.came.on_stream_event(event)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self._close(run_id, message_of(response), None)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        response = kwargs.get("response")
        self._close(run_id, message_of(response) if isinstance(response, LLMResult) else None, error)

    def _close(self, run_id: UUID, message: BaseMessage | None, error: BaseException | None) -> None:
        seen = self._open.pop(run_id, None)
        if seen is None or self._bookers.get((run_id, self._books)) is not self:
            return
        del self._bookers[run_id, self._books]
        if seen.beside and self._counted_with_another(seen, message):
            return
        claims = _CLAIMS.get()
        if claims is not None and message is not None and error is None:
            claims.append((self, seen, message))
        else:
            self.book(seen, message, error)

    def _counted_with_another(self, seen: _Watched, message: BaseMessage | None) -> bool:
        """Whether a prompt's tokens are in the report of another of its request, for LangChain tells them with the first."""
        counted = message.response_metadata.get("token_usage") if message is not None else None
        request = (seen.within, seen.model)
        if counted:
            self._counted_already[request] += seen.beside
            return False
        if counted is None or not self._counted_already[request]:
            return False
        self._counted_already[request] -= 1
        self._counted_already += Counter()  # forgets those that are used up
        return True

    def book(self, seen: _Watched, message: BaseMessage | None, error: BaseException | None) -> None:
        """Price a call that is over."""
        expected = seen.decided[0] if seen.decided and not seen.decided[0].answered else None
        if error is None and failure_in(message) is None:
            for each in seen.decided:
                each.answered = True
        decision = expected.decision if expected is not None else None
        position = position_of({"metadata": seen.metadata})
        step = Step.from_messages(
            seen.messages or ("",),
            node=position.node,
            metadata=seen.metadata,
            run=position.run,
            id=expected.step_id() if expected is not None else seen.id,
        )
        reply = message if error is None else seen.came.so_far() or message
        usage = usage_as_asked(reply, seen.messages, seen.asked) if reply is not None else None
        self.router.watch(
            model=seen.model,
            provider=seen.metadata.get("ls_provider"),
            reply=reply,
            usage=usage if error is None or reply is None else _used_so_far(usage, reply, step),
            step=step,
            decision=decision,
            decided_by=expected.router if expected is not None else None,
            decided_for=expected.node if expected is not None else None,
            thread=position.thread,
            labels=labels_from_tags(self.router.policy.labels, seen.tags) if seen.tags else None,
            key=decision.key if decision is not None else position.node or "",
            started_ns=seen.started_ns,
            first_chunk_ns=seen.first_chunk_ns,
            error=error,
            parent=expected.context if expected is not None else seen.parent,
            made_by="langchain_quiet" if QUIET in seen.metadata else "langchain",
        )

    def _begun(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        self._parents[run_id] = parent_run_id
        if len(self._parents) > RUNS_OPEN:
            self._give_up(self._parents.popitem(last=False)[0])

    def _give_up(self, run_id: UUID) -> None:
        """Forget a run that may never say it is over."""
        self._forget(run_id)

    def _broken_off(self, run_id: UUID) -> None:
        for call in [call for call, seen in list(self._open.items()) if seen.within == run_id]:
            self._close(call, None, asyncio.CancelledError())  # a cancelled call never says itself that it is over
        self._forget(run_id)

    def _forget(self, run_id: UUID) -> None:
        self._parents.pop(run_id, None)
        self._expected.pop(run_id, None)
        self._decided.pop(run_id, None)

    def _above(self, run_id: UUID | None) -> tuple[UUID, ...]:
        """The runs a call is made in, innermost first."""
        found: list[UUID] = []
        while run_id is not None and run_id not in found:
            found.append(run_id)
            run_id = self._parents.get(run_id)
        return tuple(found)

    def _take_up(self, run_id: UUID, expected: Mapping[str, Sequence[_Expected]], metadata: Mapping[str, Any]) -> None:
        """Note the decision a node's run was begun for: of several, the first that no task has yet; a task tried again keeps its own."""
        waiting = expected.get(str(metadata.get("langgraph_node")), ())
        task = str(metadata.get("langgraph_checkpoint_ns") or run_id)
        found = next((each for each in waiting if each.task == task), None) or next((each for each in waiting if not each.task), None)
        if found is not None:
            found.task, found.answered = task, False
            self._decided[run_id] = found

    def _decided_for(self, run_id: UUID | None) -> tuple[_Expected, ...]:
        """What was decided for the nodes that a run is in, innermost first."""
        if not self._decided:
            return ()
        return tuple([self._decided[each] for each in self._above(run_id) if each in self._decided])


def _used_so_far(reported: Usage | None, message: BaseMessage, step: Step) -> Usage | None:
    """The usage of a call that broke off."""
    try:
        return usage_of_part(reported or usage_of(message), message, words_of(message), extract(step).tokens)
    except Exception as trouble:
        complain(f"what came of step {step.id} cannot be read; its usage is not known", trouble)
        return None


def heard_by(handler: CostObserver, graph: Any) -> Any:
    """A copy of a compiled graph whose runs the handler hears, and which is the same in all else."""
    configured = graph.with_config(callbacks=[handler])
    if not hasattr(graph, "get_subgraphs"):
        return configured
    copied = copy.copy(graph)  # `with_config` of langgraph 1.2.22 leaves out what `compile` had added, such as the class of the state
    copied.config = configured.config
    return copied


def _mappings(*given: object) -> list[Mapping[str, Any]]:
    return [cast("Mapping[str, Any]", each) for each in given if isinstance(each, Mapping)]
