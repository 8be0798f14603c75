"""Replies to customers name the person and the order, take the mood seriously and say what happens next."""

from __future__ import annotations

import re

from routed_agents.embedded.solvers import articles, entities, lexicon
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import joined

ASKED = r"\b(?:write|draft|compose|send|prepare|give|create)\b[^.\n]{0,40}\b(?:reply|response|answer|e-?mail|message)\b|\b(?:reply|respond|answer|write back)\b[^.\n]{0,30}\b(?:customers?|mails?|messages?|tickets?|complaints?|letters?)\b|\bcustomer (?:support|service|care)\b|\bsupport agent\b"  # noqa: E501
_MOODS = ("calm", "annoyed", "distressed", "threatening")
_NEXT = {
    "billing": "I am checking the charge with our billing team and will correct any amount that should not be there",
    "shipping": "I am checking with the carrier where your parcel is and will send you what I learn",
    "returns": "I will send you a return label, and your refund is started when the goods reach us",
    "account": "I will help you get back into your account; please never send us your password",
    "product": "I am passing the fault to our product specialists, and we will repair or replace it if that is what it takes",
    "other": "I am looking into this for you",
}


def answer(brief: Brief) -> str | None:
    """A reply to the customer, or None where none is asked for."""
    return text(brief) if brief.asks(ASKED) else None


def text(brief: Brief, *, facts: str = "") -> str:
    """The reply, asked for or not."""
    mail = brief.material
    mood = lexicon.choose(dict.fromkeys(_MOODS, ""), mail)
    topic = lexicon.choose(dict.fromkeys(_NEXT, ""), mail)
    person, orders = entities.person(mail), entities.order_ids(mail)
    about = f" about order {joined(orders)}" if orders else ""
    opening = f"Dear {person}," if person else "Hello,"
    lines = [_opening_words(mood, about, brief.strength), f"{_NEXT[topic]}."]
    quoted = articles.quotes(brief, mail)[:1] if brief.documents else []
    lines += [f"Here is what I found. {facts}"] if facts else []
    lines += [f"For your information: “{sentence}”" for _, sentence in quoted]
    if mood == "threatening":
        lines.append("A senior colleague will read your message today and contact you personally.")
    elif mood == "distressed" and brief.strength >= 2:
        lines.append("You do not have to do anything more today; I will stay with this until it is settled and write to you first.")
    elif not orders and topic in ("shipping", "returns", "billing"):
        lines.append("Could you send me your order number so that I can find it at once?")
    return f"{opening}\n\n{' '.join(lines)}\n\nKind regards,\nCustomer Support"


def _opening_words(mood: str, about: str, strength: int) -> str:
    match mood:
        case "distressed" if strength >= 3:
            return f"Thank you for writing to us{about}; I am truly sorry that this has reached you at such a hard time, and I understand how much it weighs on you."  # noqa: E501
        case "distressed" if strength == 2:
            return f"Thank you for writing to us{about}. I am very sorry, and I can see how worrying this is."
        case "distressed" | "calm":
            return f"Thank you for your message{about}."
        case "annoyed":
            return (
                f"I am sorry for the trouble you have had{about}; you have every reason to be annoyed."
                if strength > 1
                else f"We apologise for the inconvenience{about}."
            )
        case _:
            return (
                f"I have read your message{about} carefully and take it seriously."
                if strength > 1
                else f"Your message{about} has been received."
            )


def suits(brief: Brief) -> bool:
    """Whether the material reads like a customer's mail."""
    return bool(re.search(r"\b(?:dear|hello|hi)\b", brief.material[:40], re.IGNORECASE) and entities.order_ids(brief.material))
