"""Reading a prompt means telling what is asked from the material it is asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from routed_agents.embedded.conversation import Conversation, Text, ToolResult

_TAGGED = re.compile(r"<([A-Za-z][\w-]*)(?:\s[^<>]*)?>(.*?)</\1>", re.DOTALL)
_HEADING = re.compile(r"^[#*\s]*([A-Za-z][\w '’-]{2,30}?)\**:[ \t]*\**(?=\n|\S)", re.MULTILINE)
_FENCED = re.compile(r"(?:\"\"\"|```)\w*\n?(.*?)(?:\"\"\"|```)", re.DOTALL)
_DOCUMENTS = re.compile(
    r"^(?:help_?|knowledge_?)?(?:articles?|contexts?|documents?|docs?|sources?|passages?|knowledge(?:[_ -]?base)?|faqs?|polic(?:y|ies)|excerpts?|search[_ ]results?|facts|notes|reference)$",  # noqa: E501
    re.IGNORECASE,
)
_MATERIAL = re.compile(
    r"^(?:customer |user |support |incoming )?(?:e-?mails?|mails?|messages?|tickets?|text|letter|review|transcript|thread|conversation|input|content|comment|complaint|report|draft|answer|paragraph)$",  # noqa: E501
    re.IGNORECASE,
)
_QUESTION = re.compile(r"^(?:user |customer )?(?:question|task|query|request|instruction|goal)s?$", re.IGNORECASE)
_POLITE = r"^(?:please |now |then |first |next |can you |could you |your task:? |task:? )*"
_WORK = (
    r"summar|tl;?dr|condense|shorten|recap|plan\b|outline|break\b|classif|label|categor|route|triage|decide|choose|answer|reply|respond|"
    r"write|draft|rewrite|translate|extract|list|explain|calculate|compute|solve|rate|score|judge|grade|create|make|generate|describe|"
    r"identify|propose|suggest|compare|using|based on|from the|read"
)
_TASK = re.compile(_POLITE + f"(?:{_WORK})", re.IGNORECASE)
_ORDER = re.compile(_POLITE + f"(?:{_WORK}|check|give|what|which|who|when|where|why|how|is|are|does|do|find|buy|use)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """One prompt, understood as far as its layout tells."""

    system: str
    request: str  # the last thing a person said, whole
    instruction: str  # what is asked; empty where the person's text is nothing but material
    material: str  # what it is asked about
    documents: tuple[tuple[str, str], ...]  # (title, text) of articles to answer from
    strength: int

    def asks(self, pattern: str) -> bool:
        """Whether the instruction asks for this; the system prompt decides where the person gives none."""
        where = self.instruction[:600] if self.instruction else self.system
        return re.search(pattern, where, re.IGNORECASE) is not None

    @property
    def orders(self) -> str:
        """Instruction and system prompt together."""
        return f"{self.instruction}\n{self.system}".strip()


def brief(conversation: Conversation) -> Brief:
    """Reads the system prompt and the last thing a person said."""
    request = last_words(conversation)
    pieces, outside = _sections(request)
    system_pieces, system = _sections(conversation.system)
    documents = _documents([*system_pieces, *pieces])
    material = "\n\n".join(text for name, text in pieces if not _DOCUMENTS.match(name) and not _QUESTION.match(name))
    questions = "\n".join(text for name, text in pieces if _QUESTION.match(name))
    instruction = "\n".join(part for part in (outside.strip(), questions) if part)
    if not material:
        head, _, tail = instruction.partition("\n\n")
        if tail and _ORDER.match(head.strip()) and len(tail) > len(head):
            instruction, material = head, tail
        elif (found := re.match(r"([^:\n]{6,120}):\s+(\S.{8,})", instruction, re.DOTALL)) and _ORDER.match(found[1].strip()):
            instruction, material = found[1], found[2]
    if not material and not documents and not _TASK.match(instruction.strip()) and conversation.system:
        instruction, material = "", request
    return Brief(
        system=system,
        request=request,
        instruction=instruction,
        material=material or outside.strip() or request,
        documents=documents,
        strength=conversation.model.strength,
    )


def last_words(conversation: Conversation) -> str:
    """The text of the last turn in which a person spoke."""
    for turn in reversed(conversation.turns):
        if turn.role == "user" and not any(isinstance(part, ToolResult) for part in turn.parts) and turn.text.strip():
            return turn.text
        if (
            turn.role == "user"
            and any(isinstance(part, ToolResult) for part in turn.parts)
            and any(isinstance(p, Text) for p in turn.parts)
        ):
            return turn.text
    return ""


def _sections(text: str) -> tuple[list[tuple[str, str]], str]:
    pieces: list[tuple[str, str]] = []

    def keep(found: re.Match[str]) -> str:
        pieces.append((found[1], found[2].strip()))
        return "\n"

    outside = _TAGGED.sub(keep, text)
    fenced = [found[1].strip() for found in _FENCED.finditer(outside)]
    if fenced and not pieces:
        pieces += [("text", inner) for inner in fenced]
        outside = _FENCED.sub("\n", outside)
    headings = [
        found for found in _HEADING.finditer(outside) if any(kind.match(found[1].strip()) for kind in (_DOCUMENTS, _MATERIAL, _QUESTION))
    ]
    if not headings:
        return pieces, outside
    for found, following in zip(headings, [*headings[1:], None], strict=True):
        end = following.start() if following else len(outside)
        pieces.append((found[1].strip(), outside[found.end() : end].strip()))
    return pieces, outside[: headings[0].start()]


def _documents(pieces: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for name, text in pieces:
        if not _DOCUMENTS.match(name):
            continue
        inner = re.findall(r"<(\w+)((?:\s[^<>]*)?)>(.*?)</\1>", text, re.DOTALL)
        if inner and all(len(body) > 0 for _, _, body in inner) and any(len(body) > 40 for _, _, body in inner):
            found += [(_title(attributes, body), re.sub(r"<[^>]+>", " ", body).strip()) for _, attributes, body in inner]
            continue
        for chunk in re.split(r"\n(?=#+ |\[\d+\]|\d+[.)] [A-Z]|Title:|---)", text):
            lines = chunk.strip().splitlines()
            if not lines:
                continue
            first = lines[0].lstrip("#-[] 0123456789.)").removeprefix("Title:").strip()
            titled = len(lines) > 1 and len(first) < 80 and not first.endswith(".")
            found.append((first.rstrip(":") if titled else "", "\n".join(lines[1:]) if titled else chunk.strip()))
    return tuple(found)


def _title(attributes: str, body: str) -> str:
    given = re.search(r"(?:title|name|id|source)\s*=\s*[\"']([^\"']+)", attributes) or re.search(r"<(?:title|name)>(.*?)</", body)
    return given[1] if given else ""
