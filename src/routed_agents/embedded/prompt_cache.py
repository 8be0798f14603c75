"""The prompt cache remembers which prefixes each key and model has sent, and for how long."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from routed_agents.embedded.conversation import Usage
from routed_agents.embedded.models import Model
from routed_agents.embedded.tokens import count_tokens, scaled

FIVE_MINUTES, ONE_HOUR = 300.0, 3600.0
LOOKBACK = 20  # blocks before a breakpoint that are searched for an earlier entry, as documented for Anthropic
_STEP = 128  # OpenAI counts cached tokens in steps of this size
_PIECE = 256  # characters per hashed piece of an automatically cached prompt
_MOST_ENTRIES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of a prompt after which a cache breakpoint may stand."""

    content: str  # canonical text without the breakpoint itself: what has to match
    tokens: int  # base tokens
    ttl_s: float | None = None  # set where a breakpoint stands


@dataclass(slots=True)
class _Entry:
    expires_at: float
    ttl_s: float


class PromptCache:
    """Decides what part of a prompt is read from cache, what part is written and what part is neither."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[bytes, _Entry] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forgets every prefix."""
        with self._lock:
            self._entries.clear()

    def explicit(self, model: Model, key: str, blocks: Sequence[Block]) -> Usage:
        """Anthropic's rule: prefixes up to a breakpoint are written, and found again by the longest match."""
        ends = [0]
        for block in blocks:
            ends.append(ends[-1] + block.tokens)
        positions = [scaled(end, model.tokenizer_factor) for end in ends[1:]]
        total = positions[-1] if positions else 0
        marks = [index for index, block in enumerate(blocks) if block.ttl_s is not None and positions[index] >= model.min_cacheable]
        if not marks:
            return Usage(uncached=total)
        hashes = _chain([block.content for block in blocks[: marks[-1] + 1]], model, key)
        with self._lock:
            now = self._clock()
            self._drop_expired(now)
            hit = self._longest(hashes, marks, now)
            for index in range(hit + 1):
                entry = self._entries.get(hashes[index])
                if entry is not None and entry.expires_at > now:
                    entry.expires_at = now + entry.ttl_s
            read = positions[hit] if hit >= 0 else 0
            done, written = read, {FIVE_MINUTES: 0, ONE_HOUR: 0}
            for mark in marks:
                if mark <= hit:
                    continue
                ttl = blocks[mark].ttl_s or FIVE_MINUTES
                self._entries[hashes[mark]] = _Entry(now + ttl, ttl)
                written[ttl] += positions[mark] - done
                done = positions[mark]
        return Usage(uncached=total - done, cache_read=read, cache_write_5m=written[FIVE_MINUTES], cache_write_1h=written[ONE_HOUR])

    def automatic(self, model: Model, key: str, prompt: str, extra_tokens: int) -> Usage:
        """OpenAI's rule: any prompt long enough is cached, and its longest known beginning is read in steps of 128 tokens."""
        total = scaled(count_tokens(prompt) + extra_tokens, model.tokenizer_factor)
        if total < model.min_cacheable:
            return Usage(uncached=total)
        pieces = [prompt[start : start + _PIECE] for start in range(0, len(prompt) - _PIECE + 1, _PIECE)]
        hashes = _chain(pieces, model, key)
        with self._lock:
            now = self._clock()
            self._drop_expired(now)
            known = 0
            for digest in hashes:
                entry = self._entries.get(digest)
                if entry is None or entry.expires_at <= now:
                    break
                known += 1
            for digest in hashes:
                self._entries[digest] = _Entry(now + FIVE_MINUTES, FIVE_MINUTES)
        read = scaled(count_tokens(prompt[: known * _PIECE]), model.tokenizer_factor) // _STEP * _STEP
        read = read if read >= model.min_cacheable else 0
        written = (total - read) // _STEP * _STEP if model.reports_cache_writes else 0
        return Usage(uncached=total - read - written, cache_read=read, cache_write_5m=written)

    def _longest(self, hashes: Sequence[bytes], marks: Sequence[int], now: float) -> int:
        for mark in reversed(marks):
            for index in range(mark, max(-1, mark - LOOKBACK), -1):
                entry = self._entries.get(hashes[index])
                if entry is not None and entry.expires_at > now:
                    return index
        return -1

    def _drop_expired(self, now: float) -> None:
        if len(self._entries) > _MOST_ENTRIES:
            self._entries = {digest: entry for digest, entry in self._entries.items() if entry.expires_at > now}
            while len(self._entries) > _MOST_ENTRIES:
                del self._entries[next(iter(self._entries))]


def _chain(contents: Sequence[str], model: Model, key: str) -> list[bytes]:
    running = hashlib.blake2b(f"{model.id}\0{key}".encode(), digest_size=16)
    digests: list[bytes] = []
    for content in contents:
        running.update(content.encode("utf-8", "surrogatepass") + b"\0")
        digests.append(running.digest())
    return digests
