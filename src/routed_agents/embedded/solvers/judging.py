"""Judging: what kind of work a call asks for, and whether a reply will do, in the form the judges of a policy are asked in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from routed_agents.embedded.conversation import Conversation, Reply, Text, Turn
from routed_agents.embedded.json_fields import JsonObject, as_object, items, member
from routed_agents.embedded.solvers.words import stems

_CALL = re.compile(r"<(call-[0-9a-f]{12})>\n(.*)\n</\1>", re.DOTALL)
_CASE = re.compile(r"<(case-[0-9a-f]{12})>\n(.*)\n</\1>", re.DOTALL)
_PART = re.compile(
    r"^\[(system prompt|instruction|tools|tools on offer|message from [a-z ]+|reply|tools the reply asks for)\]\n", re.MULTILINE
)
_FIGURE = re.compile(r"\d[\d,.]*(?<=\d)")
_LEAST_SHARED = 0.3
_LABEL_WORDS = 3
_KINDS: Final = (
    # the first that fits is the kind; how hard the kind is in percent, our own choice
    ("empathy_escalation", 95, r"\b(?:repl(?:y|ies)|respond|answer|write back|comfort|console)\b.{0,80}\b(?:grie|mourn|widow|upset|furious|distress|angry|bereav|desperate)"),  # noqa: E501
    ("agentic_chain", 95, r"\b(?:plan and (?:act|execute)|step by step with (?:the )?tools|orchestrat|use the tools|book (?:it|the)|then (?:call|search|book))"),  # noqa: E501
    ("debug_refactor", 90, r"\b(?:debug|refactor|fix (?:the|this)|why does .{0,40} (?:fail|crash)|stack ?trace|race condition)"),
    ("long_context", 90, r"\bacross (?:all |the )?(?:documents|reports|files|contracts)\b"),
    ("summarization", 5, r"\b(?:summar|tl;?dr|shorten|digest|minutes of|in a nutshell|gist)"),
    ("classification", 3, r"\b(?:classif|label|sentiment|categor|which of|yes or no|one word|decide whether|rate |score |spam|sparkl)"),
    ("extraction", 4, r"\b(?:extract|pull out|list all|fields|parse|pick out)\b"),
    ("code_format", 5, r"\b(?:format|lint|rename|docstrings?|indent)\b"),
    ("code_generation", 60, r"\b(?:write|implement|generate)\b.{0,60}\b(?:function|code|sql|query|script|class|test)"),
    ("math_reasoning", 65, r"\b(?:calculate|how many|prove|solve|probability|percent(?:age)? of|compute)\b"),
    ("marketing_copy", 10, r"\b(?:slogan|tagline|product description|headline|blog post|advert|caption)\b"),
    ("rag_lookup", 6, r"\b(?:from the (?:passage|context|document|article)|according to the|based on the (?:passage|context|text))"),
    ("knowledge_qa", 50, r"\b(?:what|who|when|where|why|how|explain|describe)\b"),
    ("multi_turn", 30, r"\b(?:hi|hello|thanks|chat)\b"),
)  # fmt: skip


def opinion(conversation: Conversation, solve: Callable[[Conversation], Reply], *, mistaken: bool = False) -> JsonObject | None:
    """The answer to a judge's question, or None where none is asked."""
    schema = conversation.schema
    if schema is None:
        schema = next((tool.schema for tool in conversation.tools if tool.name == conversation.forced_tool), None)
    asked = set(member(schema or {}, "properties"))
    said = conversation.turns[-1].text if conversation.turns else ""
    if asked == {"task_class", "p_strong", "confidence"} and (found := _CALL.search(said)):
        return _sorted(_parts(found[2]), mistaken=mistaken)
    options = items(as_object(member(schema or {}, "properties").get("verdict")), "enum")
    if asked == {"verdict"} and "off_task" in options and (found := _CASE.search(said)):
        verdict = _judged(conversation, _parts(found[2]), solve)
        return {"verdict": ("wrong" if verdict == "good" else "good") if mistaken else verdict}
    return None


def _parts(text: str) -> list[tuple[str, str]]:
    headings = list(_PART.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return [(heading[1], text[heading.end() : end].strip()) for heading, end in zip(headings, ends, strict=True)]


def _sorted(parts: list[tuple[str, str]], *, mistaken: bool) -> JsonObject:
    """The kind whose words the instruction uses, else the system prompt."""
    known = dict(parts)
    for place in ("instruction", "system prompt"):
        text = known.get(place, "")
        found = [number for number, (_, _, words) in enumerate(_KINDS) if re.search(words, text, re.IGNORECASE | re.DOTALL)]
        if found:
            kind, hard, _ = _KINDS[(found[0] + 1) % len(_KINDS) if mistaken else found[0]]
            return {"task_class": kind, "p_strong": hard, "confidence": 90 if len(found) == 1 else 75}
    return {"task_class": "unsure", "p_strong": 50, "confidence": 0}


def _judged(conversation: Conversation, parts: list[tuple[str, str]], solve: Callable[[Conversation], Reply]) -> str:
    """The reply held against what the judge would have said itself."""
    known = dict(parts)
    reply, request = known.get("reply", ""), next((text for name, text in reversed(parts) if name == "message from the user"), "")
    if "tools the reply asks for" in known or reply.startswith(("{", "[")) or not request:
        return "unsure"
    if not reply:
        return "incomplete"
    turn = Turn(role="user", parts=(Text(text=request),))
    own = solve(
        replace(
            conversation, system=known.get("system prompt", ""), turns=(turn,), tools=(), tool_choice="none", forced_tool="", schema=None
        )
    ).text
    if len(own.split()) <= len(["one", "two", "three"]):
        return "good" if stems(own) == stems(reply) else "wrong"
    if not set(_FIGURE.findall(own)) <= set(_FIGURE.findall(f"{reply} {request}")):
        return "wrong"
    return "good" if len(stems(own) & stems(reply)) >= _LEAST_SHARED * len(stems(own)) else "incomplete"
