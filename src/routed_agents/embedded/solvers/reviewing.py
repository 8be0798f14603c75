"""Reviewing: each claim of a text is held against the facts in the prompt."""

from __future__ import annotations

import re
from dataclasses import replace

from routed_agents.embedded.conversation import Conversation
from routed_agents.embedded.solvers import grading
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import sentences, shortened, stems

ASKED = r"\b(?:you are (?:the|a) (?:reviewer|proofreader|fact[- ]checker)|(?:check|verify|review|proofread)\b[^.\n]{0,60}\bagainst the (?:facts|sources))"  # noqa: E501

_ASSERTED = re.compile(r"\b(?:wrote|writes|claims?|claimed|heard|told us|believes?) that (.+?)[.?!](?:\s|$)")


def answer(conversation: Conversation, brief: Brief) -> str | None:
    """Which claims hold and which do not, or None where no review is asked for."""
    if not brief.documents or not re.search(ASKED, conversation.system, re.IGNORECASE):
        return None
    claims = _claims(conversation)
    if not claims:
        return "There is no text to check yet."
    wrong = [claim for claim in claims if not grading.is_grounded(replace(brief, material=claim))]
    checked = f"Checked {len(claims)} {'claim' if len(claims) == 1 else 'claims'} against the facts"
    if not wrong:
        return f"{checked}: all of them hold."
    quoted = " ".join(f"“{shortened(claim, 160)}”" for claim in wrong)
    return f"{checked}; these do not stand in the facts: {quoted}"


def _claims(conversation: Conversation) -> list[str]:
    """What a person says somebody claims, else the sentences of the latest text in the conversation."""
    asserted = _ASSERTED.findall(next((turn.text for turn in conversation.turns if turn.role == "user"), ""))
    if asserted:
        return asserted
    for turn in reversed(conversation.turns):
        if turn.role == "assistant" and (text := re.sub(r"\{[^{}]*\}", " ", turn.text)).strip():
            said = [quote.strip("“”") for quote in re.findall(r"“[^“”]{20,}”", text)] or sentences(text)
            return [claim for claim in said if len(stems(claim)) > 1 and not claim.startswith("Meet the")]
    return []
