"""Entities are the things a text names: order numbers, addresses, amounts, dates, people, goods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "dozen": 12}  # fmt: skip  # noqa: E501
_MONTHS = {
    name: index for index, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_PACKING = r"(?:boxes|box|packs?|packets?|reams?|bottles?|pieces?|units?|cases?|cartons?|bags?|sets?|pairs?|rolls?|cans?|kg|kilos?|litres?|liters?)"  # noqa: E501
_NOT_GOODS = re.compile(
    r"^(?:%|percent|days?|weeks?|months?|years?|hours?|hrs?|minutes?|mins?|seconds?|times?|people|persons?|guests?|users?|sentences?|words?|"
    r"bullets?|steps?|points?|items?|things|of the|am|pm|eur|usd|gbp|euros?|dollars?|pounds?|st|nd|rd|th|or|and|to|in|o'clock|"
    r"january|february|march|april|may|june|july|august|september|october|november|december|plus|minus|divided|multiplied|x)\b",
    re.IGNORECASE,
)
_ITEM = re.compile(
    rf"(?<![\w.,/#-])(\d+|{'|'.join(_COUNTS)})\s*(?:x\s+|×\s*)?(?:{_PACKING}\s+of\s+)?"
    r"([A-Za-z][\w-]*(?:\s+(?!\d+\b|i\b|we\b|you\b|need\b|want\b|and\b|or\b|from\b|at\b|for\b|with\b|in\b|to\b|by\b|on\b|plus\b|what\b|is\b|are\b|please\b|costs?\b|each\b|if\b|the\b|that\b|was\b|were\b|have\b)[A-Za-z0-9][\w-]*){0,3})",
    re.IGNORECASE,
)  # fmt: skip
_ORDER_ID = re.compile(r"#?\b[A-Z]{1,5}-?\d{3,}\b|#\d{3,}\b|(?<=\border )#?\d{4,}\b|(?<=\bnumber )#?\d{4,}\b")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_MONEY = re.compile(
    r"(?:[€$£]|\b(?:EUR|USD|GBP)\b)\s?(\d[\d,]*(?:\.\d+)?)|(\d[\d,]*(?:\.\d+)?)\s?(?:[€$£]|(?:euros?|eur|usd|dollars?|gbp|pounds?)\b)",
    re.IGNORECASE,
)
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_LONG_DATE = re.compile(
    r"\b(\d{1,2})(?:st|nd|rd|th)?(?: of)? (jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,? (\d{4})|\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})",  # noqa: E501
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?![\w-])")
_QUOTED = re.compile(r"[\"“]([^\"”\n]{2,80})[\"”]|(?<!\w)['‘]([^'’\n]{3,60})['’](?!\w)")
_SIGNED = re.compile(
    r"(?:regards|wishes|thanks|thank you|cheers|best|sincerely|yours|greetings)[,.!]?\s*\n+\s*([A-Z][\w'’-]+(?:[ \t]+[A-Z][\w'’.-]+){0,2})\s*$",  # noqa: E501
    re.IGNORECASE | re.MULTILINE,
)
_INTRODUCED = re.compile(
    r"(?:[Mm]y name is|[Tt]his is|I am called|[Cc]ustomer(?: name)?:|[Nn]ame:|[Ff]rom:)\s+([A-Z][\w'’-]+(?:[ \t]+[A-Z][\w'’-]+)?)|[—–-]{1,2}\s?([A-Z][a-z]+(?: [A-Z][a-z]+)?)\s*$|\bI(?:'m|’m| am) ([A-Z][a-z]+(?: [A-Z][a-z]+)?)\b",  # noqa: E501
    re.MULTILINE,
)
_LAST_LINE = re.compile(r"\n\s*([A-Z][a-z'’-]+(?:[ \t]+[A-Z][a-z'’.-]+){0,2})\s*$")
_PLACE = re.compile(r"\b(?:in|to|from|near|at|for)\s+([A-Z][a-zé]+(?:[ -][A-Z][a-zé]+)*)")
_PRODUCT = re.compile(
    r"\b(?:my|the|this|that|those|these|a|an|new|your|some)\s+(?:new\s+|pair of\s+)?([a-z][\w-]*(?:\s(?:phone|machine|cable|maker|set|bag|shoes|jacket|mouse|keyboard|lamp|watch|case|shirt|dress|chair|table|monitor|charger|speaker|kettle|mixer|headphones))?)",  # noqa: E501
)  # fmt: skip
_NOT_PRODUCTS = frozenset(
    [
        "order",
        "account",
        "money",
        "invoice",
        "card",
        "bank",
        "mother",
        "father",
        "day",
        "week",
        "time",
        "moment",
        "refund",
        "price",
        "email",
        "mail",
        "address",
        "name",
        "password",
        "parcel",
        "package",
        "delivery",
        "problem",
        "question",
        "issue",
        "team",
        "company",
        "customer",
        "service",
        "manager",
        "lawyer",
        "police",
        "colour",
        "color",
        "size",
        "way",
        "same",
        "wrong",
        "first",
        "second",
        "third",
        "last",
        "next",
        "only",
        "lot",
        "bit",
        "few",
        "website",
        "app",
        "link",
        "total",
        "amount",
        "payment",
        "charge",
        "subscription",
        "return",
        "label",
        "answer",
        "reply",
        "response",
        "number",
        "box",
        "courier",
        "driver",
        "shop",
        "store",
        "fact",
        "whole",
        "other",
        "date",
        "morning",
        "evening",
        "month",
        "year",
        "thing",
        "rest",
        "best",
        "worst",
        "house",
        "door",
        "neighbour",
        "husband",
        "wife",
        "son",
        "daughter",
        "child",
        "baby",
        "friend",
        "funeral",
        "hospital",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something wanted, and how many of it."""

    quantity: int
    name: str


@lru_cache(maxsize=512)
def wanted_items(text: str) -> tuple[Item, ...]:
    """`3 boxes of A4 paper and 2 staplers` as items."""
    found: list[Item] = []
    position = 0
    while match := _ITEM.search(text, position):
        name = match[2].strip(" .,")
        position = match.start(2) if _NOT_GOODS.match(name) else match.end()
        if not _NOT_GOODS.match(name):
            count = _COUNTS.get(match[1].lower()) or int(match[1])
            found.append(Item(quantity=count, name=name))
    return tuple(dict.fromkeys(found))


def order_ids(text: str) -> list[str]:
    """Order numbers, as written."""
    return _unique(_ORDER_ID.findall(text))


def without_order_ids(text: str) -> str:
    """The text with its order numbers taken out, so that they are not read as amounts."""
    return _ORDER_ID.sub(" ", text)


def emails(text: str) -> list[str]:
    """E-mail addresses."""
    return _unique(found.rstrip(".") for found in _EMAIL.findall(text))


def amounts(text: str) -> list[float]:
    """Amounts of money, without their currency."""
    return [float((found[1] or found[2]).replace(",", "")) for found in _MONEY.finditer(text)]


def numbers(text: str) -> list[float]:
    """Free-standing numbers."""
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def dates(text: str) -> list[str]:
    """Dates, in ISO form."""
    found = [match[0] for match in _ISO_DATE.finditer(text) if 1 <= int(match[2]) <= 12 and 1 <= int(match[3]) <= 31]
    for match in _LONG_DATE.finditer(text):
        day, month, year = (match[1], match[2], match[3]) if match[1] else (match[5], match[4], match[6])
        found.append(f"{year}-{_MONTHS[month[:3].lower()]:02}-{min(int(day), 28 if int(day) > 31 else int(day)):02}")
    return _unique(found)


def quoted(text: str) -> list[str]:
    """Whatever stands in quotation marks."""
    return _unique(found[1] or found[2] for found in _QUOTED.finditer(text))


def person(text: str) -> str:
    """Who wrote the text, if it says."""
    signed = _SIGNED.search(text)
    if signed:
        return signed[1].strip()
    introduced = _INTRODUCED.search(text)
    if introduced:
        return next(group for group in introduced.groups() if group)
    last = _LAST_LINE.search(text)
    return last[1] if last and last[1].lower() not in ("thanks", "thank you", "cheers", "regards") else ""


def places(text: str) -> list[str]:
    """Capitalised names after a word of place."""
    return _unique(
        found for found in _PLACE.findall(text) if found.lower() not in ("i", "monday", "tuesday", "wednesday", "thursday", "friday")
    )


def products(text: str) -> list[str]:
    """Goods the text talks about, likeliest first."""
    plain = [found for found in _PRODUCT.findall(text) if found.split()[0] not in _NOT_PRODUCTS and len(found) > 3]
    return _unique([*quoted(text), *(item.name for item in wanted_items(text)), *plain])


def _unique(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))
