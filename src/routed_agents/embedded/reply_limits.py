"""Reply limits cut an answer short: at a stop sequence, or where the tokens run out."""

from __future__ import annotations

from dataclasses import replace

from routed_agents.embedded.conversation import Conversation, Reply
from routed_agents.embedded.json_fields import compact
from routed_agents.embedded.tokens import count_tokens, scaled, truncate

_PER_CALL = 8  # tokens for the marks around a tool call


def output_tokens(reply: Reply, factor: float) -> int:
    """Tokens of a reply as its model bills them; an empty reply still costs one."""
    base = count_tokens(reply.text + (reply.thinking or "")) + sum(
        count_tokens(compact(call.arguments)) + count_tokens(call.name) + _PER_CALL for call in reply.calls
    )
    return max(1, scaled(base, factor))


def limited(reply: Reply, conversation: Conversation) -> tuple[Reply, int]:
    """The reply as far as its limits allow, with its output tokens."""
    factor = conversation.model.tokenizer_factor
    cuts = [(reply.text.find(mark), mark) for mark in conversation.stop if mark and mark in reply.text]
    if cuts and not reply.calls:
        position, mark = min(cuts)
        reply = replace(reply, text=reply.text[:position], stop="stop_sequence", stop_sequence=mark)
    tokens = output_tokens(reply, factor)
    if tokens > conversation.max_tokens:
        text = truncate(reply.text, conversation.max_tokens, factor)
        return replace(reply, text=text, calls=(), stop="length", stop_sequence=None), conversation.max_tokens
    return reply, tokens
