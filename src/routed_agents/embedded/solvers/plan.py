"""Plans break a request down into numbered steps made of its own parts."""

from __future__ import annotations

import re

from routed_agents.embedded.solvers.entities import wanted_items
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import STOP, sentences, shortened, stem, stems, words

ASKED = r"\b(?:make|write|create|draft|propose|give|build|produce|prepare|design|need|want|with|as)\b[^.\n]{0,30}\b(?:plan|roadmap|checklist|outline|steps)\b|^(?:please )?(?:plan|outline)\b|\bplanner\b|\bplan (?:the|a|an|how|my|our|out|steps|before)\b|\bbreak\b.{1,40}\binto\b.{1,20}\b(?:steps|tasks|subtasks)\b|\bstep[- ]by[- ]step plan\b|\bplanning\b"  # noqa: E501
_AND = re.compile(r"\s*(?:;|,\s*(?:and\s+)?then\s+|,\s*and\s+|\bthen\s+|\band then\s+|,\s+|\s+and\s+(?=[a-z]+\s))", re.IGNORECASE)
_LEAD_IN = re.compile(
    r"^.*?\b(?:plan|outline|steps?|roadmap|checklist)\b(?: out)?(?: for| to| how to| of|:)?\s*", re.IGNORECASE | re.DOTALL
)
_VERB = re.compile(
    r"^(?:buy|book|find|compare|check|calculate|compute|write|send|order|research|analy[sz]e|migrate|test|deploy|build|create|design|review|summari[sz]e|choose|collect|gather|invite|prepare|move|train|measure|cook|visit|rent|hire|call|ask|update|remove|add|fix|launch|organi[sz]e|schedule|draft|pay|list|identify|decide|set|get|make|read|translate|interview|pick|answer|look)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"\s*question:\s*(.+)", re.DOTALL | re.IGNORECASE)
_REMAINING = re.compile(r"<remaining>(.*?)</remaining>", re.DOTALL | re.IGNORECASE)
_COMPARING = stems("compare which cheaper easier better against between does would should somebody")
"""Words of a question that compare and are no subject."""
_NAME = re.compile(r"(?<![.?!:] )(?<!^)\b(?:the )?([A-Z][a-z]{3,}(?: [A-Z][a-z]+)*)\b")


def steps(brief: Brief) -> list[str]:
    """What has to be done, in order; what is left of a plan that is under way."""
    left = _REMAINING.search(brief.request)
    if left:
        return [re.sub(r"^\s*\d+[.)]\s*", "", line) for line in left[1].splitlines() if line.strip()]
    question = _QUESTION.match(brief.request)
    return _to_find_out(question[1].strip()) if question else _own_steps(brief)


def _to_find_out(question: str) -> list[str]:
    """What a question needs looked up: the things it tells to do, else its subject for each thing it names."""
    actions = [action for action in _actions(question) if not re.match(r"compare\b", action, re.IGNORECASE)]
    if actions:
        return [action[0].upper() + action[1:] for action in actions]
    names = list(dict.fromkeys(_NAME.findall(question)))
    known = stems(" ".join(names)) | _COMPARING
    topic = [word.lower() for word in words(question) if len(word) > 3 and word.lower() not in STOP and stem(word) not in known]
    about = " ".join(list(dict.fromkeys(topic))[:4]) or shortened(question, 80)
    return [f"Look up {about} at the {name}" for name in names] or [f"Look up {about}"]


def _actions(goal: str) -> list[str]:
    parts = [part.strip(" .,") for sentence in sentences(goal) for part in _AND.split(sentence.split(": ")[-1].rstrip(".?!"))]
    return [part for part in parts if _VERB.match(part)]


def _own_steps(brief: Brief) -> list[str]:
    """The request's own parts, or steps that fit any task."""
    goal = brief.material if brief.material != brief.request else _LEAD_IN.sub("", brief.request, count=1) or brief.request
    goal = goal.strip().rstrip(".?!")
    actions = _actions(goal)
    items = wanted_items(brief.request)
    subject = shortened(goal, 90)
    found = [f"Settle what “{subject}” has to achieve and by when"] if brief.strength > 1 else []
    if items and not actions:
        found += [f"Find offers for {item.quantity} {item.name}" for item in items] + [
            "Compare the offers and choose",
            "Work out the total",
        ]
    elif actions:
        found += [action[0].upper() + action[1:] for action in actions]
    else:
        found += [
            f"Collect what is known about {subject}",
            "List the options and what each would cost",
            "Choose one option and carry it out",
        ]
    found.append(
        "Check the result against the request"
        if brief.strength < 3
        else "Check the result against the request, note open risks and who owns them"
    )
    return found


def answer(brief: Brief) -> str | None:
    """A numbered plan, or None where none is asked for."""
    return text(brief) if brief.asks(ASKED) else None


def text(brief: Brief) -> str:
    """The plan, asked for or not."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps(brief), 1))
