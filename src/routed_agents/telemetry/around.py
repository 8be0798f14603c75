"""What is current while a provider is called: our leaf span, and others kept still, for as long as the call has the thread."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from routed_agents.telemetry.detection import Emission

T = TypeVar("T")
SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # pyright: ignore[reportPrivateUsage]
INFERENCE: Final = "opentelemetry.genai.client.inference.context"
"""The key under which util-genai (1.3b0) keeps an outer inference; an inner one then makes no span."""


def context_for(span: trace.Span, emission: Emission) -> Context:
    """The context to call a provider in."""
    context = trace.set_span_in_context(span)
    if emission.suppress:
        context = otel_context.set_value(SUPPRESS, True, context)
    if emission.nested and (known := sys.modules.get("opentelemetry.util.genai._inference_invocation")) is not None:
        context = otel_context.set_value(INFERENCE, known.InferenceData(), context)
    return context


@contextmanager
def within(context: Context | None) -> Generator[None]:
    """Make the context current; never held across a `yield` to somebody else."""
    if context is None:
        yield
        return
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


def reading(chunks: Iterable[T], context: Context | None) -> Iterator[T]:
    """The chunks of a stream, each fetched within the context, which the reader between two of them never sees."""
    if context is None:
        yield from chunks
        return
    source = iter(chunks)
    try:
        while True:
            token = otel_context.attach(context)
            try:
                chunk = next(source)
            except StopIteration:
                return
            finally:
                otel_context.detach(token)
            yield chunk
    finally:
        close: Any = getattr(source, "close", None)
        if close is not None:
            with within(context):
                close()


async def areading(chunks: AsyncIterator[T], context: Context | None) -> AsyncIterator[T]:
    """`reading` for asynchronous streams."""
    source = aiter(chunks)
    try:
        while True:
            with within(context):
                try:
                    chunk = await anext(source)
                except StopAsyncIteration:
                    return
            yield chunk
    finally:
        close: Any = getattr(source, "aclose", None)
        if close is not None:
            with within(context):
                await close()
