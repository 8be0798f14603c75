"""Structured output: a JSON schema is filled from what the text says, and the result always fits the schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from routed_agents.embedded.json_fields import JsonObject, as_list, as_object, compact, flag, integer, items, member, number, strings, text
from routed_agents.embedded.solvers import arithmetic, entities, grading, lexicon
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import sentences, shortened, stems, words

Say = Callable[[Brief, str], str]
SPOILS = ("enum", "boolean", "number", "prose")
_DEEPEST = 8
_GOOD_UNLESS_SHOWN = re.compile(
    r"\b(valid|ok|correct|approved?|pass(?:ed|es)?|complete|relevant|grounded|sufficient|supported|faithful|success(?:ful)?|safe|resolved|answered|helpful)\b"
)
_SAMPLES = (
    "A-10000",
    "#10000",
    "10000",
    "AB-1000",
    "0",
    "a",
    "A",
    "unknown",
    "abc",
    "ABC",
    "1970-01-01",
    "00:00",
    "en",
    "EUR",
    "00000",
    "+10000000000",
    "a@example.com",
    "1.0.0",
    "a-b",
    "AAA-000",
    "AA00",
    "A0",
)
_FORMATS = {
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "unknown@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "hostname": "example.com",
    "duration": "P1D",
}


class _Missing:
    """Stands for a field the text says nothing about."""


MISSING = _Missing()


def fill(schema: JsonObject, brief: Brief, say: Say, *, mistaken: bool = False) -> object:
    """A value that fits the schema; a mistaken one is wrong in the first place that can be wrong."""
    for spoil in SPOILS if mistaken else ():
        filler = _Filler(root=schema, brief=brief, say=say, spoil=spoil)
        value = filler.value(schema, "", brief.material, needed=True)
        if not filler.spoil:
            return value
    return _Filler(root=schema, brief=brief, say=say).value(schema, "", brief.material, needed=True)


def arguments(schema: JsonObject, brief: Brief, say: Say, *, mistaken: bool = False) -> JsonObject:
    """The same for a tool's parameters, which are always an object."""
    return as_object(fill({"type": "object", **schema}, brief, say, mistaken=mistaken))


@dataclass(slots=True, kw_only=True)
class _Filler:
    root: JsonObject
    brief: Brief
    say: Say
    spoil: str = ""
    depth: int = field(default=0)

    def value(self, schema: JsonObject, name: str, focus: str, *, needed: bool) -> object:
        """The value for one schema, or MISSING where the text has none and none is needed."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._enum(schema, name, focus, needed=needed)
        branches = items(schema, "anyOf") or items(schema, "oneOf")
        if branches:
            return self._branch(schema, [as_object(branch) for branch in branches], name, focus, needed=needed)
        kinds = [kind for kind in as_list(schema.get("type")) if isinstance(kind, str)] or [text(schema, "type")]
        nullable = "null" in kinds
        kind = next((kind for kind in kinds if kind != "null"), "null")
        if not kind:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        match kind:
            case "object":
                found: object = self._object(schema, focus, needed=needed)
            case "array":
                found = self._array(schema, name, focus, needed=needed and not nullable)
            case "string":
                found = self._string(schema, name, focus, needed=needed and not nullable)
            case "integer" | "number":
                found = self._number(schema, name, focus, whole=kind == "integer", needed=needed and not nullable)
            case "boolean":
                found = self._boolean(schema, name, focus)
            case _:
                found = None
        return None if nullable and isinstance(found, _Missing) and needed else found

    def _resolved(self, schema: JsonObject) -> JsonObject:
        for _ in range(_DEEPEST):
            reference = text(schema, "$ref")
            if reference.startswith("#"):
                target: object = self.root
                for step in reference.removeprefix("#").strip("/").split("/"):
                    target = as_object(target).get(step.replace("~1", "/").replace("~0", "~")) if step else target
                schema = {**as_object(target), **{key: value for key, value in schema.items() if key != "$ref"}}
                continue
            if "allOf" in schema:
                merged: JsonObject = {key: value for key, value in schema.items() if key != "allOf"}
                for part in items(schema, "allOf"):
                    whole = self._resolved(as_object(part))
                    properties = {**member(merged, "properties"), **member(whole, "properties")}
                    required = [*strings(merged, "required"), *strings(whole, "required")]
                    merged = {**whole, **merged}
                    if properties:
                        merged |= {"properties": properties, "required": required}
                schema = merged
                continue
            break
        return schema

    def _spoils(self, kind: str) -> bool:
        if self.spoil != kind:
            return False
        self.spoil = ""
        return True

    def _enum(self, schema: JsonObject, name: str, focus: str, *, needed: bool) -> object:
        options = items(schema, "enum")
        labels = {option: "" for option in options if isinstance(option, str)}
        if not labels:
            return options[-1] if self._spoils("enum") and len(options) > 1 else options[0]
        described = told(list(labels), f"{text(schema, 'description')}\n{self.brief.orders}")
        said = without_labels(focus, list(labels))
        if not needed and max(lexicon.weight(label, described.get(label, ""), said) for label in labels) < 1:
            return MISSING
        chosen = lexicon.choose({label: described.get(label, "") for label in labels}, said)
        if len(labels) > 1 and self._spoils("enum"):
            return next(label for label in reversed(labels) if label != chosen)
        return chosen

    def _branch(self, schema: JsonObject, branches: list[JsonObject], name: str, focus: str, *, needed: bool) -> object:
        whole = [self._resolved(branch) for branch in branches]
        real = [branch for branch in whole if text(branch, "type") != "null"]
        nullable = len(real) < len(whole)
        if not real:
            return None
        chosen = real[0]
        if len(real) > 1 and all(member(branch, "properties") for branch in real):
            titles = {self._title(branch, index): text(branch, "description") for index, branch in enumerate(real)}
            picked = lexicon.choose(titles, focus)
            chosen = real[list(titles).index(picked)]
        outer = {key: value for key, value in schema.items() if key in ("description", "title")}
        found = self.value({**outer, **chosen}, name, focus, needed=needed and not nullable)
        return None if nullable and needed and isinstance(found, _Missing) else found

    def _title(self, branch: JsonObject, index: int) -> str:
        consts = [text(self._resolved(as_object(value)), "const") for value in member(branch, "properties").values()]
        return next((const for const in consts if const), text(branch, "title")) or f"option {index}"

    def _object(self, schema: JsonObject, focus: str, *, needed: bool) -> object:
        if self.depth >= _DEEPEST and not needed:
            return MISSING
        required = set(strings(schema, "required"))
        self.depth += 1
        result: JsonObject = {}
        for key, part in member(schema, "properties").items():
            if self.depth >= _DEEPEST and key not in required:
                continue
            found = self.value(as_object(part), key, focus, needed=key in required)
            if not isinstance(found, _Missing):
                result[key] = found
        for key in required - result.keys():
            result[key] = self.value(member(schema, "additionalProperties"), key, focus, needed=True)
        self.depth -= 1
        return result if result or needed else MISSING

    def _array(self, schema: JsonObject, name: str, focus: str, *, needed: bool) -> object:
        inner = self._resolved(member(schema, "items"))
        least, most = integer(schema, "minItems"), integer(schema, "maxItems", 10)
        found: list[object] = self._elements(inner, name, text(schema, "description"), focus) if most else []
        if flag(schema, "uniqueItems"):
            found = list({compact(value): value for value in found}.values())
        while len(found) < least:
            extra = self.value(inner, name, focus, needed=True)
            options = [option for option in items(inner, "enum") if option not in found]
            if flag(schema, "uniqueItems") and extra in found:
                extra = options[0] if options else f"{extra} {len(found) + 1}" if isinstance(extra, str) else len(found)
            found.append(extra)
        found = found[: max(most, least)]
        return found if found or needed else MISSING

    def _elements(self, inner: JsonObject, name: str, description: str, focus: str) -> list[object]:
        labels = [option for option in items(inner, "enum") if isinstance(option, str)]
        if labels:
            said = without_labels(focus, labels)
            strong = [label for label in labels if lexicon.weight(label, "", said) >= 2]
            return list(strong)
        kind, about = text(inner, "type"), f"{' '.join(words(name))} {description}".lower()
        wanted = entities.wanted_items(focus)
        if member(inner, "properties"):
            if re.search(r"step|task|plan|action|todo|milestone", about):
                pieces = self.say(self.brief, "plan").splitlines()
            elif wanted and re.search(r"item|product|line|order|goods|article|position", about):
                pieces = [f"{item.quantity} {item.name}" for item in wanted]
            else:
                pieces = sentences(focus)[: 3 if self.brief.strength > 1 else 2]
            return [self.value(inner, name, re.sub(r"^\d+\.\s*", "", piece), needed=True) for piece in pieces if piece.strip()]
        if kind in ("integer", "number"):
            low, high = _bounds(inner, whole=kind == "integer")
            return [int(value) if kind == "integer" else value for value in entities.numbers(focus) if low <= value <= high]
        if kind != "string":
            return []
        return [value for value in self._strings(about, focus) if self._fits(inner, value)]

    def _strings(self, about: str, focus: str) -> list[str]:
        if re.search(r"step|plan|task|action|todo|milestone", about):
            return [re.sub(r"^\d+\.\s*", "", line) for line in self.say(self.brief, "plan").splitlines() if line.strip()]
        if re.search(r"order|reference|\bids?\b|number", about):
            return entities.order_ids(focus)
        if "mail" in about:
            return entities.emails(focus)
        if "date" in about:
            return entities.dates(focus)
        if re.search(r"product|item|article|goods", about):
            return [item.name for item in entities.wanted_items(focus)] or entities.products(focus)[:3]
        if re.search(r"keyword|tag|topic|entit|term", about):
            return sorted({word.lower() for word in words(focus) if len(word) > 4 and stems(word)}, key=focus.lower().find)[:5]
        if re.search(r"quer|search|question", about):
            return [sentence for sentence in sentences(focus) if sentence.endswith("?")][:3] or [shortened(focus, 80)]
        return [shortened(sentence, 160) for sentence in sentences(focus)[:3]]

    def _string(self, schema: JsonObject, name: str, focus: str, *, needed: bool) -> object:
        found = self._named(schema, name, focus)
        for candidate in found:
            if candidate and self._fits(schema, candidate):
                return candidate
        if isinstance(schema.get("default"), str):
            return schema["default"]
        if not needed:
            return MISSING
        return self._padded(schema, found[0] if found else _FORMATS.get(text(schema, "format"), "unknown"))

    def _named(self, schema: JsonObject, name: str, focus: str) -> list[str]:
        form, own = text(schema, "format"), " ".join(words(name)).lower()
        about = f"{own} {text(schema, 'description').lower()}"
        whole = self.brief.request if focus == self.brief.material else focus
        if form in ("date", "date-time"):
            return [f"{date}T00:00:00Z" if form == "date-time" else date for date in entities.dates(whole)]
        if form == "email" or "mail" in own:
            return entities.emails(whole)
        if form in _FORMATS:
            return re.findall(r"https?://[^\s\"'>)]+", whole) if form == "uri" else [_FORMATS[form]]
        for pattern, find in (
            (
                r"\border\b.*\b(id|number|no|ref)|^(order|reference|order id|id|sku|ticket|number|case)$|\b(id|number|reference)$",
                entities.order_ids,
            ),
            (r"\bdate\b|\bdeadline\b|\bdue\b|\bwhen\b", entities.dates),
            (r"\b(city|location|place|destination|origin|country|town)\b", entities.places),
            (r"\bexpression\b|\bformula\b|\bequation\b", _expressions),
            (r"\b(product|item|article|goods)\b", entities.products),
        ):
            if re.search(pattern, own):
                return find(whole)
        if re.search(
            r"\b(customer|user|sender|author|person|full|first|contact)?\s?name\b|\bcustomer\b|\bsender\b|\bauthor\b|\bsigned\b", own
        ):
            return [entities.person(whole)]
        if re.search(r"\bphone\b|\btelephone\b", own):
            return re.findall(r"\+?\d[\d /-]{6,}\d", whole)
        if "language" in own:
            return [lexicon.choose(dict.fromkeys(("English", "German", "French", "Spanish"), ""), f" {whole} ")]
        if re.search(r"\bcurrency\b", own):
            return [
                code
                for mark, code in (("€", "EUR"), ("eur", "EUR"), ("$", "USD"), ("dollar", "USD"), ("£", "GBP"), ("pound", "GBP"))
                if mark in whole.lower()
            ][:1]
        if re.search(r"\b(amount|price|total|cost)\b", own):
            return [arithmetic.figure(value) for value in entities.amounts(whole)]
        if self._spoils("prose"):
            return ["It depends."]
        if re.search(r"\b(quote|evidence|excerpt|snippet)\b", own):
            return [shortened(max(sentences(focus), key=len, default=focus), 160)]
        if re.search(r"\b(reason|reasoning|rationale|why|explanation|justification|thought|thinking|because|comment)\b", own):
            return [f"The text says: “{shortened(max(sentences(focus), key=len, default=focus), 120)}”"]
        if re.search(r"\b(title|subject|headline|label|heading)\b", own):
            return [shortened(next(iter(sentences(re.sub(r"</?\w[^<>]*>", " ", focus))), focus), 60)]
        if re.search(r"\b(summary|gist|tldr|recap|abstract|overview|issue|problem|concern)\b", own):
            return [self.say(self.brief, "summary") if focus == self.brief.material else shortened(focus, 160)]
        if re.search(r"\b(reply|response|answer|message|body|draft|output|result|content|email|letter|conclusion|final)\b", own):
            return [self.say(self.brief, "text") if focus == self.brief.material else focus]
        if re.search(r"\b(plan|approach|strategy)\b", own):
            return [self.say(self.brief, "plan")]
        if re.search(r"\b(query|search|question|task|request|step|description|goal|text|input|item|objective)\b", own):
            return [shortened(focus, 300)]
        return [value for value in entities.quoted(whole) if len(about) > 3] or [shortened(focus, 200)]

    def _fits(self, schema: JsonObject, value: str) -> bool:
        pattern = text(schema, "pattern")
        return (
            integer(schema, "minLength") <= len(value) <= integer(schema, "maxLength", 1_000_000)
            and (not pattern or _matches(pattern, value))
        )  # fmt: skip

    def _padded(self, schema: JsonObject, value: str) -> str:
        value = value or ("unknown" if integer(schema, "maxLength", 99) >= 7 else "")
        cut = value[: integer(schema, "maxLength", 1_000_000)].ljust(integer(schema, "minLength"), ".")
        if self._fits(schema, cut):
            return cut
        candidates = [piece for piece in re.findall(r"\S+", self.brief.request) if self._fits(schema, piece.strip(".,;:!?()"))]
        return next(
            (piece.strip(".,;:!?()") for piece in candidates), next((sample for sample in _SAMPLES if self._fits(schema, sample)), cut)
        )

    def _number(self, schema: JsonObject, name: str, focus: str, *, whole: bool, needed: bool) -> object:
        own = " ".join(words(name)).lower()
        low, high = _bounds(schema, whole=whole)
        found = self._figure(own, focus, low, high)
        if found is None:
            if isinstance(schema.get("default"), int | float) and self.spoil != "number":
                return schema["default"]
            if not needed:
                return MISSING
            found = low if math.isfinite(low) and low > 0 else 0.0
        if self._spoils("number"):
            found = found + 1 if found + 1 <= high else found - max(1.0 if whole else 0.1, 0.0)
        value = min(max(found, low), high)
        multiple = number(schema, "multipleOf")
        if multiple:
            value = math.ceil(value / multiple) * multiple
            value = value - multiple if value > high else value
        return round(value) if whole else value

    def _figure(self, own: str, focus: str, low: float, high: float) -> float | None:
        plain = entities.without_order_ids(focus)
        if re.search(r"\b(confidence|probability|certainty|likelihood)\b", own):
            top = high if math.isfinite(high) else 1.0
            return top * (0.95, 0.9, 0.8)[3 - self.brief.strength]
        if re.search(r"\b(score|rating|grade|quality|relevance)\b", own):
            top = high if math.isfinite(high) else 1.0
            good = lexicon.weight("positive", "", focus) >= lexicon.weight("negative", "", focus)
            return top * 0.8 if good else max(low, top * 0.3)
        if re.search(r"\b(severity|urgency|priority|anger|frustration)\b", own) and math.isfinite(high):
            weight = max(lexicon.weight(idea, "", focus) for idea in ("urgent", "annoyed", "distressed", "threatening"))
            return low + (high - low) * min(1.0, weight / 8)
        if re.search(r"\b(amount|price|total|cost|value|refund|sum|budget|fee)\b", own):
            return next(iter(entities.amounts(focus)), None) or next(iter(entities.numbers(plain)), None)
        if re.search(r"\b(quantity|qty|count|number|pieces|units)\b", own) and entities.wanted_items(focus):
            return float(entities.wanted_items(focus)[0].quantity)
        if re.search(r"\b(result|answer)\b", own) and (expression := arithmetic.expression_in(focus)):
            return arithmetic.evaluate(expression)
        unit = own.rsplit(maxsplit=1)[-1].rstrip("s") if own else ""
        if unit and (
            near := re.search(rf"(\d+(?:\.\d+)?)\s*{re.escape(unit)}|{re.escape(unit)}\w*\W{{1,3}}(\d+(?:\.\d+)?)", focus, re.IGNORECASE)
        ):
            return float(near[1] or near[2])
        return next(iter(entities.numbers(plain)), None)

    def _boolean(self, schema: JsonObject, name: str, focus: str) -> bool:
        own = " ".join(words(name)).lower()
        named = " ".join(
            word
            for word in own.split()
            if word not in ("is", "has", "needs", "need", "requires", "should", "wants", "contains", "mentions", "requested", "required")
        )
        judged = grading.verdict(self.brief, own)
        if judged is not None:
            found = judged
        elif "default" in schema and isinstance(schema["default"], bool) and lexicon.weight(named, "", focus) < 1:
            found = schema["default"]
        elif _GOOD_UNLESS_SHOWN.search(own):
            found = lexicon.weight("no", "", focus) < 3
        else:
            threshold = 2.0 if named in lexicon.load().ideas else 1.5
            hints = " ".join(
                word
                for word in words(text(schema, "description"))
                if word.lower() not in ("whether", "true", "if", "customer", "message", "text", "user", "mail")
            )
            found = lexicon.weight(named, hints, focus) >= threshold
        return not found if self._spoils("boolean") else found


def told(labels: list[str], orders: str) -> dict[str, str]:
    """What instructions say each label means: `billing: invoices and charges; shipping: …`, or `billing (invoices)`."""
    meanings: dict[str, str] = {}
    for label in labels:
        found = re.search(rf"[\"'`*]*\b{re.escape(label)}\b[\"'`*]*\s*(?:[:=–]|\s-\s|\()\s*([^;\n)|]{{3,160}})", orders, re.IGNORECASE)
        if found and sum(1 for other in labels if re.search(rf"\b{re.escape(other)}\b", found[1], re.IGNORECASE)) < 2:
            meanings[label] = found[1]
    return meanings


def without_labels(said: str, labels: list[str]) -> str:
    """A text without the sentences that merely list the labels to choose from."""
    if len(labels) < 3:
        return said
    listed = [
        sentence
        for sentence in sentences(said)
        if sum(1 for label in labels if label.lower() in sentence.lower()) >= max(3, len(labels) // 2)
    ]
    for sentence in listed:
        said = said.replace(sentence, " ")
    return said


def _expressions(said: str) -> list[str]:
    return [arithmetic.expression_in(said)]


def _bounds(schema: JsonObject, *, whole: bool) -> tuple[float, float]:
    low, high = number(schema, "minimum", -math.inf), number(schema, "maximum", math.inf)
    step = 1.0 if whole else 1e-6
    if "exclusiveMinimum" in schema:
        low = max(low, number(schema, "exclusiveMinimum") + step)
    if "exclusiveMaximum" in schema:
        high = min(high, number(schema, "exclusiveMaximum") - step)
    return (math.ceil(low) if math.isfinite(low) else low, math.floor(high) if math.isfinite(high) else high) if whole else (low, high)


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True
