"""The usage that a reply reports, in any format of SDK or framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, cast

from routed_agents.pricing.served import said_once
from routed_agents.pricing.usage import Usage, UsageSource
from routed_agents.steps import field_of

PLAIN_COUNTS: Final = frozenset({"input_tokens", "output_tokens", "total_tokens"})
BILLED_APART: Final = frozenset({"usage", "service_tier", "container"})
"""Keys of a reply's metadata that may say more about its price than the counts do."""


def usage_of(reply: object) -> Usage | None:
    """The tokens a reply reports, whichever SDK or framework it comes from; None when it reports nothing, or a count that is none.

    Reads Anthropic messages, OpenAI chat completions and responses, LangChain messages, chunks and results, as objects or
    as dicts, and their usage objects themselves.
    """
    try:
        return _usage_in(reply)
    except _NoCount:
        return None


def _usage_in(reply: object) -> Usage | None:
    if reply is None or isinstance(reply, (str, bytes, int, float)):
        return None
    own = getattr(reply, "__dict__", None)
    if own is not None and "usage_metadata" in own:  # a LangChain message, the common case: nothing else needs to be asked
        counted = own["usage_metadata"]
        if counted is not None:
            return _from_langchain(reply, counted, own.get("response_metadata"))
    generations = field_of(reply, "generations")
    if isinstance(generations, Sequence) and generations:
        return _usage_of_result(reply, cast("Sequence[object]", generations))
    if (message := field_of(reply, "message")) is not None and (_has(message, "usage_metadata") or _has(message, "usage")):
        reply = message
    metadata = field_of(reply, "response_metadata")
    counted = field_of(reply, "usage_metadata")
    if isinstance(counted, Mapping):
        return _from_langchain(reply, cast("Mapping[str, object]", counted), metadata)
    raw = field_of(metadata, "usage") or field_of(metadata, "token_usage") or field_of(reply, "usage")
    if raw is None and (_has(reply, "input_tokens") or _has(reply, "prompt_tokens")):
        raw = reply
    return None if raw is None else _known(_from_raw(reply, raw))


def _usage_of_result(result: object, generations: Sequence[object]) -> Usage | None:
    if isinstance(generations[0], Sequence):  # LLMResult: choices by prompt; every choice carries its call's whole usage
        prompts = [each[0] for each in cast("Sequence[Sequence[object]]", generations) if each]
    else:
        prompts = [generations[0]]
    found = [usage for prompt in prompts if (usage := _usage_in(field_of(prompt, "message"))) is not None]
    if found:
        total = found[0]
        for usage in found[1:]:
            total += usage
        return total
    output = field_of(result, "llm_output")
    raw = field_of(output, "usage") or field_of(output, "token_usage")
    return _known(_from_raw(output, raw)) if raw else None


def _from_langchain(message: object, counted: Mapping[str, object], metadata: object) -> Usage | None:
    if counted.get("total_cost") == 0 and "total_cost" in counted:  # langchain-core's mark of an answer from its own cache
        return Usage()
    told = cast("Mapping[str, object]", metadata) if isinstance(metadata, dict) else None
    if told is not None and not BILLED_APART.intersection(told) and counted.keys() <= PLAIN_COUNTS:
        prompt, output = counted.get("input_tokens"), counted.get("output_tokens")  # nothing but two counts: nothing else to look for
        if type(prompt) is int and type(output) is int and prompt >= 0 and output >= 0 and (prompt or output):
            content = field_of(message, "content")
            if type(content) is str and counted.get("total_tokens") in (None, prompt + output):
                return Usage(input=prompt, output=output)
    metadata = cast("object", metadata)
    raw = field_of(metadata, "usage")
    provider = field_of(metadata, "model_provider")
    anthropic = provider == "anthropic" or _has(raw, "cache_read_input_tokens")
    if anthropic and _has(raw, "input_tokens"):
        runs = _code_runs(field_of(message, "content"), field_of(metadata, "container"))
        return _known(_from_anthropic(raw, runs))  # knows retention, speed and region, which usage_metadata has lost
    given, taken = field_of(counted, "input_token_details"), field_of(counted, "output_token_details")
    tier = said_once(_text(field_of(metadata, "service_tier")) or "")
    prefix = next((each for each in ("priority", "flex") if field_of(given, each) is not None or _has(given, f"{each}_cache_read")), None)
    mark = f"{prefix}_" if prefix else ""
    short, long = _retentions(_count(given, f"{mark}cache_creation"), given)
    if not (short or long):
        short, long = _written(field_of(metadata, "token_usage"))  # ChatOpenAI does not know what gateways call it
    blocks = _blocks(message)
    hosted = _code_runs(blocks, field_of(metadata, "container")) if anthropic else _fees(blocks, pictures=provider == "openai")
    return _known(
        _disjoint(
            prompt=_told(counted, "input_tokens"),
            cache_read=_count(given, f"{mark}cache_read"),
            short=short,
            long=long,
            output=_told(counted, "output_tokens"),
            total=_total_of(counted),
            reasoning=_count(taken, f"{mark}reasoning"),
            other=_count(given, "audio") + _count(taken, "audio") + hosted,
            searches=_searches(blocks),
            tier=tier or prefix,
        )
    )


def _from_raw(reply: object, raw: object) -> Usage:
    tier = _text(field_of(reply, "service_tier")) or _text(field_of(raw, "service_tier"))
    if _has(raw, "prompt_tokens"):
        given, taken = field_of(raw, "prompt_tokens_details"), field_of(raw, "completion_tokens_details")
        short, long = _written(raw)
        return _disjoint(
            prompt=_told(raw, "prompt_tokens"),
            cache_read=_count(given, "cached_tokens") or _count(raw, "cache_read_input_tokens"),
            short=short,
            long=long,
            output=_told(raw, "completion_tokens"),
            total=_total_of(raw),
            reasoning=_count(taken, "reasoning_tokens"),
            other=_count(given, "audio_tokens") + _count(taken, "audio_tokens"),
            searches=_count(field_of(raw, "server_tool_use"), "web_search_requests"),
            tier=tier,
            speed=_text(field_of(raw, "speed")),
            geo=_text(field_of(raw, "inference_geo")),
        )
    detailed = _has(raw, "input_tokens_details") or _has(raw, "input_token_details")
    if detailed or (_has(raw, "total_tokens") and not _has_caches_apart(raw)):
        given, taken = field_of(raw, "input_tokens_details"), field_of(raw, "output_tokens_details")
        if given is None and taken is None and isinstance(raw, Mapping):
            return _from_langchain(None, cast("Mapping[str, object]", raw), None) or Usage()
        long = _count(field_of(given, "cache_write_tokens_details"), "ttl_12h_tokens")
        return _disjoint(
            prompt=_told(raw, "input_tokens"),
            cache_read=_count(given, "cached_tokens"),
            short=_count(given, "cache_write_tokens") - long,
            long=long,
            output=_told(raw, "output_tokens"),
            total=_total_of(raw),
            reasoning=_count(taken, "reasoning_tokens"),
            other=_fees(field_of(reply, "output")),
            searches=_billed_searches(reply),
            tier=tier,
        )
    blocks = field_of(reply, "content")
    usage = _from_anthropic(raw, _code_runs(blocks, field_of(reply, "container")))
    if not _has(raw, "server_tool_use") and (searches := _searches(blocks)):  # a stream tells their number at its end
        return replace(usage, web_searches=searches)
    return usage


def _from_anthropic(raw: object, other: int) -> Usage:
    tier = _text(field_of(raw, "service_tier"))
    if not _has(raw, "output_tokens"):
        raise _NoCount("output_tokens")
    usage = _anthropic_part(raw)
    total = _total_of(raw) or usage.total  # Anthropic tells none; a gateway's may leave out the caches
    unsaid = max(total - usage.total, 0)
    source: UsageSource = "reported" if _has(raw, "input_tokens") and total == usage.total else "estimated"
    iterations = field_of(raw, "iterations")
    for part in cast("Sequence[object]", iterations) if isinstance(iterations, Sequence) else ():
        kind = field_of(part, "type")
        if kind == "compaction":  # billed, but not in the totals
            usage += _anthropic_part(part)
        elif kind in ("advisor_message", "fallback_message"):  # another model's tokens at another model's price
            other += _anthropic_part(part).total
    if field_of(field_of(field_of(raw, "fallback_credit"), "status"), "type") == "redeemed":
        other += usage.cache_write_5m + usage.cache_write_1h  # some are billed as reads, and it is not told how many
    return Usage(
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=usage.output + unsaid,
        reasoning=_count(field_of(raw, "output_tokens_details"), "thinking_tokens"),
        other=other,
        web_searches=_count(field_of(raw, "server_tool_use"), "web_search_requests"),
        source=source,
        speed=_text(field_of(raw, "speed")),
        service_tier=None if tier == "batch" else tier,
        geo=_text(field_of(raw, "inference_geo")),
        batch=tier == "batch",
    )


def _anthropic_part(raw: object) -> Usage:
    short, long = _retentions(_count(raw, "cache_creation_input_tokens"), field_of(raw, "cache_creation"))
    return Usage(
        input=_count(raw, "input_tokens"),
        cache_read=_count(raw, "cache_read_input_tokens"),
        cache_write_5m=short,
        cache_write_1h=long,
        output=_count(raw, "output_tokens"),
    )


def _has_caches_apart(raw: object) -> bool:
    """Whether a report counts its caches beside its input, in Anthropic's terms; in OpenAI's they are a part of it."""
    return _has(raw, "input_tokens") and (_has(raw, "cache_read_input_tokens") or _has(raw, "cache_creation_input_tokens"))


def _written(raw: object) -> tuple[int, int]:
    """Tokens written to a cache with short and long retention, by a report in OpenAI's chat format or a gateway's form of it."""
    given = field_of(raw, "prompt_tokens_details")
    written = _count(given, "cache_write_tokens") or _count(given, "cache_creation_tokens") or _count(raw, "cache_creation_input_tokens")
    return _retentions(written, field_of(given, "cache_creation_token_details"))


def _retentions(written: int, split: object) -> tuple[int, int]:
    """Tokens written to a cache with short and long retention; what the split does not tell is short."""
    long = _count(split, "ephemeral_1h_input_tokens")
    return max(_count(split, "ephemeral_5m_input_tokens"), written - long), long


def _disjoint(
    *,
    prompt: int | None,
    cache_read: int,
    short: int,
    output: int | None,
    total: int | None,
    reasoning: int,
    long: int = 0,
    other: int = 0,
    searches: int = 0,
    tier: str | None = None,
    speed: str | None = None,
    geo: str | None = None,
) -> Usage:
    prompt, output = _completed(prompt, output, total)
    rest = prompt - cache_read - short - long
    unsaid = max((total or 0) - prompt - output, 0) if rest >= 0 else 0  # Gemini's thoughts, in OpenAI's format
    return Usage(
        input=rest if rest >= 0 else prompt,  # a prompt smaller than its caches leaves them out
        cache_read=cache_read,
        cache_write_5m=max(short, 0),
        cache_write_1h=long,
        output=output + unsaid,
        reasoning=reasoning,
        other=other,
        web_searches=searches,
        source="reported" if rest >= 0 and short >= 0 and not unsaid else "estimated",
        speed=speed,
        service_tier=None if tier == "batch" else tier,
        geo=geo,
        batch=tier == "batch",
    )


def _completed(prompt: int | None, output: int | None, total: int | None) -> tuple[int, int]:
    """Both sides of a report, of which the total tells the one that is missing."""
    if prompt is not None and output is not None:
        return prompt, output
    known = prompt if prompt is not None else output
    if known is None or total is None:
        raise _NoCount("a side of the call")
    rest = max(total - known, 0)
    return (known, rest) if output is None else (rest, known)


def _known(usage: Usage) -> Usage | None:
    """No reply has zero tokens on both sides: such a report is a gateway's way of saying nothing."""
    return usage if usage.total or usage.other else None


def _blocks(message: object) -> object:
    """What a LangChain message consists of; its v0 form of OpenAI's replies keeps the calls of hosted tools beside the content."""
    content, beside = field_of(message, "content"), field_of(field_of(message, "additional_kwargs"), "tool_outputs")
    if isinstance(content, list) and isinstance(beside, list):
        return [*cast("list[object]", content), *cast("list[object]", beside)]
    return cast("object", content)


def _billed_searches(response: object) -> int:
    """Web searches of an OpenAI response: as many as it says are billed, else as its items tell."""
    billed = _told(field_of(field_of(response, "tool_usage"), "web_search"), "num_requests")
    return _searches(field_of(response, "output")) if billed is None else billed


def _searches(blocks: object) -> int:
    """Web searches among a reply's blocks: OpenAI's calls, Anthropic's results that are no error, and LangChain's v1 form of both."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        return 0
    count = 0
    called: set[object] = set()
    for block in cast("Sequence[object]", blocks):
        kind = field_of(block, "type")
        if kind == "web_search_call":
            count += field_of(field_of(block, "action"), "type") in (None, "search") and field_of(block, "status") != "failed"
        elif kind == "web_search_tool_result":
            count += isinstance(field_of(block, "content"), list)
        elif kind == "server_tool_call" and field_of(block, "name") == "web_search":
            if field_of(field_of(block, "args"), "type") in (None, "search"):
                called.add(field_of(block, "id"))
        elif kind == "server_tool_result" and field_of(block, "status") == "error":
            called.discard(field_of(block, "tool_call_id"))
    return count + len(called)


SERVER_CALLS: Final = frozenset({"server_tool_use", "server_tool_call", "server_tool_call_chunk"})
CODE: Final = "code_execution"
FEES: Final = frozenset({"file_search_call", "code_interpreter_call", "image_generation_call"})
"""Items of a reply for which OpenAI takes more than their tokens."""


def _fees(blocks: object, *, pictures: bool = False) -> int:
    """Calls of OpenAI's hosted tools with a fee of their own among a reply's blocks.

    Args:
        blocks: items of the reply, or what LangChain made of them.
        pictures: whether a picture among them is what is left of such a call, as in LangChain's v1 form.
    """
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        return 0
    kinds = [_item_of(block) for block in cast("Sequence[object]", blocks)]
    return sum(kind in FEES or (pictures and kind == "image") for kind in kinds)


def _code_runs(blocks: object, container: object) -> int:
    """Runs of code in Anthropic's container, whose time is billed beyond an allowance that no reply tells; none where they are free.

    They are where the code itself searched or fetched, as the search and fetch tools have it do that include code execution.

    Args:
        blocks: content of the reply, or what LangChain made of it.
        container: what the reply tells of its container, which may have run without a block of its own.
    """
    listed = cast("Sequence[object]", blocks) if isinstance(blocks, Sequence) and not isinstance(blocks, str) else ()
    runs: set[object] = set()
    for block in listed:
        kind, name = str(field_of(block, "type")), str(field_of(block, "name"))
        if kind in SERVER_CALLS and name in ("web_search", "web_fetch"):
            caller = field_of(block, "caller") or field_of(field_of(block, "extras"), "caller")
            if str(field_of(caller, "type")).startswith(CODE):
                return 0
        elif kind in SERVER_CALLS and (name.endswith(CODE) or name == "code_interpreter"):  # as v1 calls it
            runs.add(field_of(block, "id"))
        elif kind.endswith(f"{CODE}_tool_result"):
            runs.add(field_of(block, "tool_use_id"))
    return len(runs) or int(container is not None)


def _item_of(block: object) -> object:
    """The type of the item that a block is or was made from; v1 leaves out "call", and wraps what it has no form for."""
    kind = field_of(block, "type")
    if kind == "server_tool_call":
        return f"{field_of(block, 'name')}_call"
    return field_of(field_of(block, "value"), "type") if kind == "non_standard" else kind


def _has(thing: object, name: str) -> bool:
    return field_of(thing, name) is not None


class _NoCount(ValueError):
    """What stands in place of a number of tokens is no such number, so nobody knows what the call used."""


def _count(thing: object, name: str) -> int:
    return _told(thing, name) or 0


def _total_of(thing: object) -> int | None:
    """The total of a report; one that cannot be read is as good as none, for both sides may be told."""
    with suppress(_NoCount):
        return _told(thing, "total_tokens")
    return None


def _told(thing: object, name: str) -> int | None:
    value = field_of(thing, name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # as some write whole numbers in JSON
        value = int(value)
    if isinstance(value, int) and value >= 0 and not isinstance(value, bool):
        return value
    raise _NoCount(name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
