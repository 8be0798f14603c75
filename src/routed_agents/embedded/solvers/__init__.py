"""Solvers do the simulated model's work; each kind of work is one module that says None to what is not its kind."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace

from routed_agents.embedded.conversation import Conversation, Reply, ToolCall
from routed_agents.embedded.json_fields import compact
from routed_agents.embedded.solvers import (
    arithmetic,
    articles,
    coding,
    copywriting,
    customer_reply,
    delegation,
    judging,
    labels,
    plan,
    reviewing,
    rewriting,
    schema,
    summary,
    tool_use,
)
from routed_agents.embedded.solvers.reading import Brief, brief
from routed_agents.embedded.solvers.words import joined, shortened

# Asked in this order; the first that knows the kind of work answers.
KINDS: tuple[Callable[[Brief], str | None], ...] = (
    rewriting.answer,
    copywriting.answer,
    customer_reply.answer,
    labels.answer,
    summary.answer,
    plan.answer,
    articles.answer,
    arithmetic.answer,
)


def is_mistaken(conversation: Conversation, seed: int) -> bool:
    """Whether this model gets this request wrong: the same request, model and seed always give the same answer."""
    rate = conversation.model.error_rate
    if rate <= 0:
        return False
    turns = [[turn.role, turn.text, [part.arguments for part in turn.parts if isinstance(part, ToolCall)]] for turn in conversation.turns]
    asked = compact(
        [seed, conversation.model.id, conversation.system, turns, [tool.name for tool in conversation.tools], conversation.schema]
    )
    drawn = int.from_bytes(hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64
    return drawn < rate


def solve(conversation: Conversation, *, mistaken: bool = False) -> Reply:
    """What the model says or does next."""
    opinion = judging.opinion(conversation, solve, mistaken=mistaken)
    if opinion is not None:
        if conversation.forced_tool:
            return Reply(calls=(ToolCall(id="", name=conversation.forced_tool, arguments=opinion),), stop="tool")
        return Reply(text=json.dumps(opinion))
    read = brief(conversation)
    if conversation.tools and conversation.tool_choice != "none":
        called = _call(conversation, read, mistaken=mistaken)
        if called:
            return Reply(calls=called, stop="tool")
    concluded = coding.conclusion(conversation) or tool_use.conclusion(conversation, read, mistaken=mistaken)
    if conversation.schema is not None and (order := delegation.order(conversation, mistaken=mistaken)) is not None:
        return Reply(text=json.dumps(order, ensure_ascii=False))
    if conversation.schema is not None:
        known = _with_results(read, concluded)
        return Reply(text=json.dumps(schema.fill(conversation.schema, known, say, mistaken=mistaken), ensure_ascii=False))
    if concluded:
        letter = read.asks(customer_reply.ASKED) and not mistaken
        return Reply(text=customer_reply.text(read, facts=concluded) if letter else concluded)
    if (review := reviewing.answer(conversation, read)) is not None:
        return Reply(text=review)
    return Reply(text=_spoilt(_answer(read, mistaken=mistaken)) if mistaken else _answer(read))


def say(read: Brief, kind: str) -> str:
    """Prose of a kind, for a field of a structured answer."""
    match kind:
        case "summary":
            return summary.short(read)
        case "plan":
            return plan.text(read)
        case _:
            return _answer(read)


def _call(conversation: Conversation, read: Brief, *, mistaken: bool) -> tuple[ToolCall, ...]:
    if conversation.tool_choice == "tool" or (conversation.tool_choice == "any" and len(conversation.tools) == 1):
        known = _with_results(read, tool_use.conclusion(conversation, read))
        return (tool_use.forced_call(conversation, known, say, mistaken=mistaken),)
    coded = coding.next_calls(conversation, read)
    calls = tool_use.next_calls(conversation, read, say, mistaken=mistaken) if coded is None else coded
    if calls or conversation.tool_choice != "any":
        return calls
    known = _with_results(read, tool_use.conclusion(conversation, read))
    return (tool_use.forced_call(conversation, known, say, mistaken=mistaken),)


def _with_results(read: Brief, concluded: str | None) -> Brief:
    return read if concluded is None else replace(read, material=f"{concluded}\n{read.material}")


def _answer(read: Brief, *, mistaken: bool = False) -> str:
    if mistaken and (label := labels.answer(read, mistaken=True)):
        return label
    for kind in KINDS:
        found = kind(read)
        if found is not None:
            return found
    return _fallback(read)


def _fallback(read: Brief) -> str:
    """Says plainly that this is a stand-in, and what it understood."""
    if customer_reply.suits(read):
        return customer_reply.text(read)
    asked = shortened(read.instruction or read.request, 200)
    if not asked:
        return "I did not get a question. (simulated reply)"
    points = summary.lead(read.material, read.strength) if read.material != read.instruction else []
    about = f" What I was given says: {joined(points)}" if points and read.strength > 1 else ""
    return f"You asked: “{asked}”.{about} I am a simulated model and know nothing beyond this conversation."


def _spoilt(text: str) -> str:
    """A wrong number where there is one, else a vaguer text; a single label is left to its own solver."""
    if len(text.split()) <= 2 and not re.search(r"\d", text):
        return text
    numbers = list(re.finditer(r"(?<![\w.#-])\d+(?:\.\d+)?(?![\w-])", text))
    if numbers:
        last = numbers[-1]
        return f"{text[: last.start()]}{arithmetic.figure(float(last[0]) * 1.1 + 1)}{text[last.end() :]}"
    return "It depends on the circumstances; generally this should be fine."
