"""Cached prompts are written, read and forgotten as documented."""

from __future__ import annotations

import anthropic
import pytest
from conftest import Clock

OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-4-5"
RULES = "Every answer is friendly, short and true. " * 200
MARK = {"type": "ephemeral"}


def ask(client, question="Hello", *, model=OPUS, system=RULES, ttl=None, history=(), mark_last=False):
    control = MARK if ttl is None else {**MARK, "ttl": ttl}
    last = [{"type": "text", "text": question, **({"cache_control": MARK} if mark_last else {})}]
    blocks = [{"type": "text", "text": system, "cache_control": control}]
    return client.messages.create(model=model, max_tokens=50, system=blocks, messages=[*history, {"role": "user", "content": last}]).usage


def test_the_first_call_writes_and_the_second_reads(claude):
    first, second = ask(claude), ask(claude, "Another question")
    assert first.cache_creation_input_tokens > 512
    assert first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0
    assert second.input_tokens < 20


def test_five_minutes_unread_are_forgotten_and_a_read_refreshes(claude, clock: Clock):
    ask(claude)
    clock.now += 290
    assert ask(claude).cache_read_input_tokens > 0
    clock.now += 290
    assert ask(claude).cache_read_input_tokens > 0
    clock.now += 301
    assert ask(claude).cache_read_input_tokens == 0


def test_an_hour_entry_lasts_and_is_reported_as_such(claude, clock: Clock):
    first = ask(claude, ttl="1h")
    assert first.cache_creation.ephemeral_1h_input_tokens == first.cache_creation_input_tokens > 0
    assert first.cache_creation.ephemeral_5m_input_tokens == 0
    clock.now += 3_500
    assert ask(claude, ttl="1h").cache_read_input_tokens == first.cache_creation_input_tokens


@pytest.mark.parametrize(("model", "cached"), [(OPUS, True), (HAIKU, False)])
def test_a_prefix_shorter_than_the_models_minimum_is_not_cached(claude, model, cached):
    usage = ask(claude, model=model)
    assert (usage.cache_creation_input_tokens > 0) is cached
    assert usage.input_tokens + usage.cache_creation_input_tokens > 1_000


def test_models_keys_and_texts_do_not_share(provider, claude):
    ask(claude)
    assert ask(claude, model="claude-opus-5").cache_read_input_tokens == 0
    assert ask(claude, system=RULES + "!").cache_read_input_tokens == 0
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="another") as stranger:
        assert ask(stranger).cache_read_input_tokens == 0


def test_a_growing_thread_reads_its_past_and_writes_only_what_is_new(claude):
    first = ask(claude, "Question one " * 50, mark_last=True)
    history = [{"role": "user", "content": "Question one " * 50}, {"role": "assistant", "content": "Fine."}]
    second = ask(claude, "Question two " * 50, history=history, mark_last=True)
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert 0 < second.cache_creation_input_tokens < 400
    assert second.input_tokens == 0


def test_a_stream_reports_the_same_cache_fields(claude):
    ask(claude)
    blocks = [{"type": "text", "text": RULES, "cache_control": MARK}]
    with claude.messages.stream(model=OPUS, max_tokens=50, system=blocks, messages=[{"role": "user", "content": "Hi"}]) as stream:
        usage = stream.get_final_message().usage
    assert usage.cache_read_input_tokens > 512


def test_a_top_level_cache_control_marks_the_end_of_the_prompt(claude):
    call = {"model": OPUS, "max_tokens": 50, "system": RULES, "messages": [{"role": "user", "content": "Hi"}], "cache_control": MARK}
    first, second = claude.messages.create(**call).usage, claude.messages.create(**call).usage
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 512


def test_five_breakpoints_are_one_too_many(claude):
    blocks = [{"type": "text", "text": f"part {n}", "cache_control": MARK} for n in range(5)]
    with pytest.raises(anthropic.BadRequestError, match="maximum of 4 blocks"):
        claude.messages.create(model=OPUS, max_tokens=9, system=blocks, messages=[{"role": "user", "content": "Hi"}])


def test_an_entry_more_than_twenty_blocks_back_is_not_found(claude):
    def usage(extra: int):
        filler = [{"type": "text", "text": f"note {n}"} for n in range(extra)]
        marked = [{"type": "text", "text": RULES, "cache_control": MARK}] if extra == 0 else [{"type": "text", "text": RULES}, *filler]
        marked[-1] = {**marked[-1], "cache_control": MARK}
        return claude.messages.create(model=OPUS, max_tokens=9, system=marked, messages=[{"role": "user", "content": "Hi"}]).usage

    usage(0)
    assert usage(10).cache_read_input_tokens > 0
    assert usage(40).cache_read_input_tokens == 0


def test_reset_forgets_everything(provider, claude):
    ask(claude)
    provider.reset()
    assert ask(claude).cache_read_input_tokens == 0
