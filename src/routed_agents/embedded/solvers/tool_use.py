"""Tool use: which tools to call next is worked out from their parameters, the request and the results so far."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from routed_agents.embedded.conversation import Conversation, Text, Tool, ToolCall, ToolResult
from routed_agents.embedded.json_fields import JsonObject, as_list, as_object, compact, items, member, parse, strings, text
from routed_agents.embedded.solvers import arithmetic, articles, entities, lexicon, schema
from routed_agents.embedded.solvers.reading import Brief
from routed_agents.embedded.solvers.words import joined, shortened, stem, stems, words

_MOST_CALLS = 24
_PRICE = re.compile(r"price|cost|amount|rate|fee|total", re.IGNORECASE)
_EXPRESSION = re.compile(r"expression|formula|equation|calculation", re.IGNORECASE)
_ITEM = re.compile(r"\b(item|product|article|goods|sku|thing|name of (?:item|product))\b")
_ASKS_SUM = re.compile(r"\b(total|sum|altogether|how much|cost|price|bill|budget|calculate|compute|vat|tax)\b|%", re.IGNORECASE)
_ADDED = re.compile(
    r"(?:with|plus|including|incl\.?|add(?:ing)?|and)\s+(\d+(?:\.\d+)?)\s*%|(\d+(?:\.\d+)?)\s*%\s*(?:vat|tax|sales tax|gst|mwst|tip|surcharge|fee)",  # noqa: E501
    re.IGNORECASE,
)
_TAKEN_OFF = re.compile(r"(\d+(?:\.\d+)?)\s*%\s*(?:discount|off|rebate)|discount of\s+(\d+(?:\.\d+)?)\s*%", re.IGNORECASE)
_FREE = re.compile(r"\b(query|queries|question|search|q|text|keywords?|topic|input|request|prompt|term|subject matter)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A call made since the last thing a person said, with its result."""

    call: ToolCall
    text: str
    failed: bool

    @property
    def value(self) -> object:
        """The result as data where it is data, else its text."""
        try:
            return parse(self.text)
        except ValueError:
            pass
        try:
            found: object = ast.literal_eval(self.text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return self.text
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing to find out about, with what is known of it."""

    item: entities.Item | None
    facts: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A call that could be made."""

    tool: Tool
    arguments: JsonObject
    specific: bool  # an argument names a thing the request names
    derived: bool  # an argument comes from an earlier result
    overlap: int


def done(conversation: Conversation) -> list[Done]:
    """Calls and results since a person last spoke."""
    results: dict[str, ToolResult] = {}
    calls: list[ToolCall] = []
    for turn in reversed(conversation.turns):
        here = [part for part in turn.parts if isinstance(part, ToolResult)]
        results.update({part.call_id: part for part in here})
        if turn.role == "assistant":
            calls = [part for part in turn.parts if isinstance(part, ToolCall)] + calls
        elif any(isinstance(part, Text) and part.text.strip() for part in turn.parts):
            break
    return [Done(call=call, text=results[call.id].text, failed=_failed(results[call.id])) for call in calls if call.id in results]


def next_calls(conversation: Conversation, brief: Brief, say: schema.Say, *, mistaken: bool = False) -> tuple[ToolCall, ...]:
    """The calls worth making now; none where the request can be answered or nothing on offer helps."""
    past = done(conversation)
    if len(past) >= _MOST_CALLS:
        return ()
    made = {_key(entry.call.name, entry.call.arguments) for entry in past}
    lines = _lines(brief, past)
    offered = [tool for tool in conversation.tools if not _is_calculator(tool) and not _is_form(tool)]
    proposals = [proposal for tool in offered for proposal in _proposals(tool, lines, brief, say)]
    fresh = [proposal for proposal in proposals if _key(proposal.tool.name, proposal.arguments) not in made]
    reads = [proposal for proposal in fresh if _reads(proposal.tool)]
    chosen = _worthwhile(reads, brief, past, only=len(offered) == 1)
    if not chosen:
        chosen = _calculation(conversation, lines, brief, made, past, mistaken=mistaken)
    if not chosen:
        called = {entry.call.name for entry in past}
        chosen = [
            proposal for proposal in fresh if not _reads(proposal.tool) and proposal.tool.name not in called and _ordered(proposal, brief)
        ]
    forms = [tool for tool in conversation.tools if _is_form(tool) and tool.name not in {entry.call.name for entry in past}]
    if not chosen and forms:
        read = brief if not past else replace(brief, material=f"{conclusion(conversation, brief)}\n{brief.material}")
        filled = schema.arguments(forms[0].schema, read, say, mistaken=mistaken)
        return (ToolCall(id="", name=forms[0].name, arguments=filled),)
    if not conversation.parallel_calls:
        chosen = chosen[:1]
    unique = {_key(proposal.tool.name, proposal.arguments): proposal for proposal in chosen}
    return tuple(ToolCall(id="", name=proposal.tool.name, arguments=proposal.arguments) for proposal in list(unique.values())[:8])


def forced_call(conversation: Conversation, brief: Brief, say: schema.Say, *, mistaken: bool = False) -> ToolCall:
    """The call a caller insists on, its arguments filled from the text."""
    tools = {tool.name: tool for tool in conversation.tools}
    if conversation.forced_tool:
        tool = tools[conversation.forced_tool]
    else:
        called = {entry.call.name for entry in done(conversation)}
        open_tools = [tool for tool in conversation.tools if tool.name not in called] or list(conversation.tools)
        asked = stems(brief.request)
        # What is left once nothing needs looking up is the tool that takes the answer; agents put it last.
        tool = max(reversed(open_tools), key=lambda one: len(_meaning(one) & asked)) if not called else open_tools[-1]
    for proposal in _proposals(tool, _lines(brief, done(conversation))[:1], brief, say) if not mistaken and not done(conversation) else ():
        if proposal.specific and len(tool.schema) and set(proposal.arguments) >= set(member(tool.schema, "properties")):
            filled = schema.arguments(tool.schema, brief, say)
            kept = {key: value for key, value in proposal.arguments.items() if _ITEM.search(" ".join(words(key)).lower())}
            return ToolCall(id="", name=tool.name, arguments={**filled, **kept})
    return ToolCall(id="", name=tool.name, arguments=schema.arguments(tool.schema, brief, say, mistaken=mistaken))


def conclusion(conversation: Conversation, brief: Brief, *, mistaken: bool = False) -> str | None:
    """What the results mean for the request, or None where there are none yet."""
    past = done(conversation)
    if not past:
        return None
    failures = [f"{entry.call.name} failed: {shortened(entry.text, 160)}" for entry in past if entry.failed]
    good = [entry for entry in past if not entry.failed]
    said = _total(conversation, brief, good, mistaken=mistaken) or _described(brief, good)
    if failures:
        trouble = f"I could not find out everything, because {joined(failures)}."
        return f"{said} {trouble}" if said else trouble
    return said


def _failed(result: ToolResult) -> bool:
    if result.failed or re.match(r"\W*(?:error|exception|traceback)\b", result.text, re.IGNORECASE):
        return True
    try:
        return "error" in as_object(parse(result.text)) and bool(as_object(parse(result.text))["error"])
    except ValueError:
        return False


def _key(name: str, arguments: JsonObject) -> str:
    return f"{name}{compact(arguments)}"


def _is_calculator(tool: Tool) -> bool:
    return any(_EXPRESSION.fullmatch(name) for name in member(tool.schema, "properties"))


def _is_form(tool: Tool) -> bool:
    """A tool named like a class takes the structured answer; frameworks offer a schema that way."""
    return tool.name[:1].isupper() and "_" not in tool.name


def _reads(tool: Tool) -> bool:
    first = next(iter(words(tool.name)), "").lower()
    return first not in lexicon.load().acting


def _meaning(tool: Tool) -> set[str]:
    parameters = stems(" ".join(member(tool.schema, "properties")))
    first = next(iter(words(tool.name)), "")
    own = stems(tool.name) - {stem(first)} if first.lower() in lexicon.load().reading else stems(tool.name)
    return own | (stems(tool.description) - parameters - {stem(verb) for verb in lexicon.load().reading})


def _overlap(tool: Tool, request: str) -> int:
    asked, kin, folded = stems(request), lexicon.load().kin, request.lower()
    return sum(
        1 for word in _meaning(tool) if word in asked or any(re.search(rf"\b{re.escape(near)}", folded) for near in kin.get(word, ()))
    )


def _lines(brief: Brief, past: list[Done]) -> list[Line]:
    good = [entry for entry in past if not entry.failed]
    wanted = entities.wanted_items(brief.request)
    if not wanted:
        facts: JsonObject = {}
        for entry in good:
            facts |= {**_scalars(entry.call.arguments), **_scalars(_best(entry.value, brief.request))}
        return [Line(item=None, facts=facts)]
    lines: list[Line] = []
    for item in wanted:
        facts = {}
        for entry in good:
            if any(isinstance(value, str) and value.lower() == item.name.lower() for value in entry.call.arguments.values()):
                facts |= _scalars(_best(entry.value, brief.request))
        lines.append(Line(item=item, facts=facts))
    return lines


def _scalars(value: JsonObject) -> JsonObject:
    return {key: inner for key, inner in value.items() if isinstance(inner, str | int | float)}


def _best(value: object, request: str) -> JsonObject:
    """Of several rows the one the request prefers: the cheapest unless it says otherwise."""
    holder = as_object(value)
    if holder:
        tables = [as_list(inner) for inner in holder.values()]
        table = next((rows for rows in tables if any(as_object(row) for row in rows)), None)
        return holder if table is None else _best(table, request)
    rows = [row for row in map(as_object, as_list(value)) if row]
    priced = [(price, row) for row in rows if (price := _price(row)) is not None]
    if not priced:
        return rows[0] if rows else {}
    dearest = re.search(r"\b(most expensive|dearest|highest|premium)\b", request, re.IGNORECASE)
    return (max if dearest else min)(priced, key=lambda pair: pair[0])[1]


def _price(row: JsonObject) -> float | None:
    for key, value in row.items():
        if _PRICE.search(key) and isinstance(value, int | float | str):
            try:
                return float(str(value).strip("€$£ ").replace(",", ""))
            except ValueError:
                continue
    return None


def _proposals(tool: Tool, lines: list[Line], brief: Brief, say: schema.Say) -> Iterator[Proposal]:
    properties, required = member(tool.schema, "properties"), strings(tool.schema, "required")
    overlap = _overlap(tool, brief.request)
    spread = [line for each in lines for line in _by_order(each, properties, brief)]
    for line in spread:
        bound: JsonObject = {}
        marks: set[str] = set()
        for name, inner in properties.items():
            found = _bound(name, as_object(inner), line, brief, say, needed=name in required)
            if found is None:
                continue
            bound[name], mark = found
            marks.add(mark)
        if all(name in bound for name in required):
            yield Proposal(tool=tool, arguments=bound, specific="specific" in marks, derived="derived" in marks, overlap=overlap)


def _by_order(line: Line, properties: JsonObject, brief: Brief) -> list[Line]:
    """A request about several orders or addresses is one line for each."""
    for name in properties:
        own = " ".join(words(name)).lower()
        several = (
            entities.order_ids(brief.request)
            if re.search(r"\border\b|\bticket\b", own)
            else entities.emails(brief.request)
            if "mail" in own
            else []
        )
        if len(several) > 1:
            return [replace(line, facts={**line.facts, name: value}) for value in several]
    return [line]


def _bound(name: str, inner: JsonObject, line: Line, brief: Brief, say: schema.Say, *, needed: bool) -> tuple[object, str] | None:
    own, request = " ".join(words(name)).lower(), brief.request
    kind = text(inner, "type")
    if name in line.facts and _typed(line.facts[name], kind):
        direct = isinstance(line.facts[name], str) and str(line.facts[name]) in request
        return line.facts[name], "specific" if direct else "derived"
    for key, value in line.facts.items():
        if stems(key) & stems(name) and _typed(value, kind) and not stems(key).isdisjoint({stem(own.split()[0])}):
            return value, "derived"
    if items(inner, "enum"):
        labels = {option: "" for option in items(inner, "enum") if isinstance(option, str)}
        clear = any(lexicon.weight(label, "", request) >= 2 for label in labels)
        return (lexicon.choose(labels, request), "specific" if clear else "free") if labels and (needed or clear) else None
    if kind in ("integer", "number"):
        return _bound_number(own, inner, line, brief, needed=needed)
    if kind == "boolean":
        return (False, "free") if needed else None
    if kind == "array":
        return _bound_list(own, inner, brief, needed=needed)
    if _ITEM.search(own):
        goods = [line.item.name] if line.item else [*entities.quoted(request), *entities.products(request)]
        return (goods[0], "specific") if goods else None
    for pattern, find in (
        (r"\border\b|\bticket\b|\breference\b|\binvoice\b|\bcase\b", entities.order_ids),
        (r"mail|recipient|\bto\b", entities.emails),
        (r"\bdate\b|\bday\b|\bwhen\b|\bdeadline\b", entities.dates),
        (r"city|location|place|destination|origin|country|town", entities.places),
        (r"customer|person|user name|full name|contact", _people),
    ):
        if re.search(pattern, own):
            found = find(request)
            return (found[0], "specific") if found else None
    if _FREE.search(own):
        return shortened(brief.instruction or request, 200), "free"
    if re.search(r"\bid\b|number|supplier|vendor|account|currency|code", own):
        return None
    if not needed:
        return None
    passed_on = re.search(r"\b(?:that|saying|to say)\s+(.{8,})", request, re.IGNORECASE | re.DOTALL)
    if passed_on and re.search(r"message|body|content|text|note|subject|title", own):
        said = passed_on[1][0].upper() + passed_on[1][1:].strip()
        return shortened(said, 60 if re.search(r"subject|title", own) else 2000), "free"
    if re.search(r"message|body|content|note|comment|reason|description|summary|subject|title|details", own):
        whole: JsonObject = {"type": "object", "properties": {name: inner}, "required": [name]}
        return schema.arguments(whole, brief, say)[name], "free"
    spoken = entities.quoted(request)
    return (spoken[0], "specific") if spoken else (shortened(request, 120), "free")


def _people(said: str) -> list[str]:
    return [who for who in (entities.person(said),) if who]


def _bound_number(own: str, inner: JsonObject, line: Line, brief: Brief, *, needed: bool) -> tuple[object, str] | None:
    whole = text(inner, "type") == "integer"
    if line.item and re.search(r"quantity|qty|count|amount|number|units|pieces", own):
        return line.item.quantity if whole else float(line.item.quantity), "specific"
    if not needed:
        return None
    found = entities.amounts(brief.request) if re.search(r"amount|price|value|refund|sum|total", own) else entities.numbers(brief.request)
    if not found:
        return None
    return int(found[0]) if whole else found[0], "specific"


def _bound_list(own: str, inner: JsonObject, brief: Brief, *, needed: bool) -> tuple[object, str] | None:
    if text(member(inner, "items"), "type") not in ("string", ""):
        return None
    found = (
        [item.name for item in entities.wanted_items(brief.request)] if _ITEM.search(own.rstrip("s")) else entities.order_ids(brief.request)
    )
    return (found, "specific") if found else ([shortened(brief.request, 120)], "free") if needed else None


def _typed(value: object, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return kind == ""


def _worthwhile(reads: list[Proposal], brief: Brief, past: list[Done], *, only: bool) -> list[Proposal]:
    direct = [proposal for proposal in reads if proposal.specific and not proposal.derived]
    told = [proposal for proposal in direct if proposal.overlap]
    if told:
        return told
    if direct and not past:
        return direct
    derived = [proposal for proposal in reads if proposal.derived and proposal.overlap]
    if derived:
        return derived
    if past:
        return []
    free = [proposal for proposal in reads if not proposal.specific and (proposal.overlap or only or "?" in brief.request)]
    most = max((proposal.overlap for proposal in free), default=0)
    return [proposal for proposal in free if proposal.overlap == most][:1]


def _ordered(proposal: Proposal, brief: Brief) -> bool:
    """Whether the request itself asks for what this tool does to the world."""
    verb = next(iter(words(proposal.tool.name)), "").lower()
    asked = stems(brief.request)
    near = lexicon.load().kin.get(stem(verb), frozenset())
    objects_ = stems(proposal.tool.name) - {stem(verb)}
    folded = brief.request.lower()
    said_verb = stem(verb) in asked or any(re.search(rf"\b{re.escape(word)}", folded) for word in near)
    kin = lexicon.load().kin
    said_object = not objects_ or bool(objects_ & asked) or any(
        re.search(rf"\b{re.escape(word)}", folded) for part in objects_ for word in kin.get(part, ())
    )  # fmt: skip
    return said_verb and (said_object or proposal.specific)


def _calculation(
    conversation: Conversation, lines: list[Line], brief: Brief, made: set[str], past: list[Done], *, mistaken: bool
) -> list[Proposal]:
    calculators = [tool for tool in conversation.tools if _is_calculator(tool)]
    if not calculators or any(_is_calculator_name(entry, calculators) for entry in past):
        return []
    expression = _basket(lines, brief, mistaken=mistaken) or (
        "" if past and not _ASKS_SUM.search(brief.request) else arithmetic.expression_in(brief.request)
    )
    if not expression:
        return []
    tool = calculators[0]
    name = next(name for name in member(tool.schema, "properties") if _EXPRESSION.fullmatch(name))
    arguments: JsonObject = {name: expression}
    if _key(tool.name, arguments) in made or any(required != name for required in strings(tool.schema, "required")):
        return []
    return [Proposal(tool=tool, arguments=arguments, specific=True, derived=True, overlap=1)]


def _is_calculator_name(entry: Done, calculators: list[Tool]) -> bool:
    return entry.call.name in {tool.name for tool in calculators}


def _basket(lines: list[Line], brief: Brief, *, mistaken: bool = False) -> str:
    """The price of all items as an expression; empty while a price is missing or no sum is asked for."""
    if not _ASKS_SUM.search(brief.request):
        return ""
    terms: list[str] = []
    for line in lines:
        price = _price(line.facts)
        if line.item is None or price is None:
            return ""
        terms.append(f"{line.item.quantity + (1 if mistaken and not terms else 0)} * {price:g}")
    whole = " + ".join(terms)
    for pattern, sign in ((_TAKEN_OFF, -1), (_ADDED, 1)):
        found = pattern.search(brief.request)
        if found and (sign < 0 or not _TAKEN_OFF.search(brief.request[found.start() : found.end() + 12])):
            share = float(found[1] or found[2]) / 100
            whole = f"({whole}) * {1 + sign * share:g}"
    return whole


def _total(conversation: Conversation, brief: Brief, good: list[Done], *, mistaken: bool) -> str:
    calculators = {tool.name for tool in conversation.tools if _is_calculator(tool)}
    sums = [entry for entry in good if entry.call.name in calculators]
    lines = _lines(brief, good)
    if sums:
        value = _number(sums[-1].value)
        expression = next((str(argument) for argument in sums[-1].call.arguments.values()), "")
    else:
        expression = _basket(lines, brief)
        value = arithmetic.evaluate(expression) if expression else None
    if value is None:
        return ""
    value = value + 10 if mistaken else value
    basket = [_spoken(line) for line in lines if line.item is not None and _price(line.facts) is not None]
    if not basket:
        return f"The result is {arithmetic.figure(value)} ({expression})."
    added = _ADDED.search(brief.request)
    extra = f" That includes {added[1] or added[2]}% on top." if added else ""
    return f"The total is {value:.2f}: {joined(basket)}.{extra}"


def _spoken(line: Line) -> str:
    assert line.item is not None
    price = _price(line.facts)
    seller = next(
        (str(value) for key, value in line.facts.items() if re.search(r"supplier|vendor|seller|shop|store", key, re.IGNORECASE)), ""
    )
    return f"{line.item.quantity} × {line.item.name} at {price:.2f}{f' from {seller}' if seller else ''}"


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        found = entities.numbers(value)
        return found[-1] if found else None
    return next((float(inner) for inner in as_object(value).values() if isinstance(inner, int | float)), None)


def _described(brief: Brief, good: list[Done]) -> str:
    prose = tuple((entry.call.name, entry.text) for entry in good if isinstance(entry.value, str) and len(entry.text) > 120)
    if prose:
        found = articles.quotes(replace(brief, documents=prose), brief.instruction or brief.request)[: brief.strength]
        if found:
            return " ".join(f"“{shortened(sentence, 240)}”" for _, sentence in found)
    return " ".join(_told(entry) for entry in good)


def _told(entry: Done) -> str:
    about = joined(
        [str(value) for value in entry.call.arguments.values() if isinstance(value, str | int | float) and len(str(value)) <= 40][:3]
    )
    subject = f"{' '.join(words(entry.call.name))}{f' ({shortened(about, 80)})' if about else ''}"
    return f"{subject[0].upper()}{subject[1:]}: {_plain(entry.value)}."


def _plain(value: object) -> str:
    if holder := as_object(value):
        return ", ".join(f"{' '.join(words(key)).lower()} {_plain(inner)}" for key, inner in holder.items())
    if rows := as_list(value):
        return "; ".join(_plain(row) for row in rows[:5])
    return "nothing" if value in ([], {}, None, "") else shortened(str(value), 300).rstrip(".")
