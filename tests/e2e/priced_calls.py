"""Calls of every kind that a bill knows, each in a trace and a thread of its own, with real SDKs on the embedded provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from routed_agents import Policy, RoutedChatModel, Router, Step
from routed_agents.embedded import Fault, Provider, serve
from routed_agents.ledger import Entry
from routed_agents.pricing import Prices
from routed_agents.telemetry import Telemetry, names

LONG: Final = "Delivery takes three working days within the country and seven abroad. " * 900
"""Long enough for every model's prompt cache, short of any cliff."""
LABEL: Final = "Classify the customer's message as billing, shipping, returns or other. Answer with one word."


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything a case needs."""

    router: Router
    model: RoutedChatModel
    provider: Provider
    thread: str

    @property
    def cheap(self) -> str:
        return self.router.policy.tiers.named("cheap").model

    @property
    def config(self) -> Any:
        return {"configurable": {"thread_id": self.thread}}

    def labelled(self, text: str = "Where is my parcel?") -> list[Any]:
        return [SystemMessage(LABEL), HumanMessage(f"<message>\n{text}\n</message>")]

    def long(self, **cache: Any) -> list[Any]:
        """A prompt with a cached beginning, other for each thread."""
        block = {"type": "text", "text": f"{self.thread}. {LABEL} {LONG}", "cache_control": {"type": "ephemeral", **cache}}
        return [SystemMessage([block]), HumanMessage("Where is my parcel?")]

    def reply(self, usage: Mapping[str, Any], *, model: str | None = None, task_class: str = "classification") -> None:
        """A step of one call whose reply has this usage, as the anthropic SDK gives it."""
        step = Step.from_messages("Where is my parcel?", task_class=task_class)
        with self.router.step(step, thread=self.thread) as call:
            for attempt in call.attempts():
                with attempt:
                    content = [{"type": "text", "text": "shipping"}]
                    answer = {"model": model or attempt.model, "role": "assistant", "content": content, "stop_reason": "end_turn"}
                    attempt.record({**answer, "id": "msg_1", "usage": {"service_tier": "standard", **usage}})


def plain(bench: Bench) -> None:
    bench.model.invoke(bench.labelled(), bench.config)


def strong(bench: Bench) -> None:
    bench.model.invoke(bench.labelled(), {**bench.config, "metadata": {"routed_agents": {"tier": "strong"}}})


def cached(bench: Bench) -> None:
    for _ in range(3):  # written, and read twice
        bench.model.invoke(bench.long(), bench.config)


def cached_on_the_strong_tier(bench: Bench) -> None:
    for _ in range(2):
        bench.model.invoke(bench.long(), {**bench.config, "metadata": {"routed_agents": {"tier": "strong"}}})


def streamed(bench: Bench) -> None:
    list(bench.model.stream(bench.labelled(), bench.config))


def streamed_and_cached(bench: Bench) -> None:
    for _ in range(2):
        list(bench.model.stream(bench.long(), bench.config))


def left_in_the_middle(bench: Bench) -> None:
    stream = bench.model.stream([HumanMessage("Write a reply: your parcel was sent on Monday.")], bench.config)
    next(stream)
    stream.close()


def retried(bench: Bench) -> None:
    bench.provider.faults.add(Fault("overloaded", model=bench.cheap, times=20))
    bench.model.invoke(bench.labelled(), bench.config)


def escalated(bench: Bench) -> None:
    bench.provider.faults.add(Fault("max_tokens", model=bench.cheap))
    bench.model.invoke(bench.labelled("I cannot log in, and nobody answers the telephone either."), bench.config)


def rejected(bench: Bench) -> None:
    bench.provider.faults.add(Fault("refusal", model=bench.cheap))
    bench.model.invoke(bench.labelled(), bench.config)


def cut_off(bench: Bench) -> None:
    bench.provider.faults.add(Fault("cut_stream", model=bench.cheap))
    list(bench.model.stream(bench.labelled(), bench.config))


def answered_by_another_model(bench: Bench) -> None:
    bench.provider.faults.add(Fault("wrong_model", model=bench.cheap, served="claude-sonnet-4-6"))
    bench.model.invoke(bench.labelled(), bench.config)


def over_the_cliff(bench: Bench) -> None:
    bench.reply({"input_tokens": 99_000, "cache_read_input_tokens": 2_000, "output_tokens": 500})


def reasoning(bench: Bench) -> None:
    bench.reply({"input_tokens": 900, "output_tokens": 700, "output_tokens_details": {"thinking_tokens": 600}}, task_class="agentic_chain")


def watched_gpt(bench: Bench) -> None:
    used = {"prompt_tokens": 9_000, "completion_tokens": 700}
    used |= {"prompt_tokens_details": {"cached_tokens": 4_096}, "completion_tokens_details": {"reasoning_tokens": 512}}
    for model in ("gpt-4o-mini", "gpt-6-luna", "gpt-6.1-sol"):
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": [], "usage": used}
        bench.router.watch(model=model, reply=answer, started_ns=time.time_ns(), thread=bench.thread)


STANDARD: Final[tuple[Callable[[Bench], None], ...]] = (
    plain, strong, cached, cached_on_the_strong_tier, streamed, streamed_and_cached, left_in_the_middle, retried, escalated, rejected,
    cut_off, answered_by_another_model, over_the_cliff, reasoning, watched_gpt,
)  # fmt: skip
"""Priced alike by everybody who knows the list prices: standard speed, any region, five-minute cache writes."""


def long_cache(bench: Bench) -> None:
    bench.model.invoke(bench.long(ttl="1h"), bench.config)


def batch(bench: Bench) -> None:
    bench.reply({"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"})


def in_a_region(bench: Bench) -> None:
    bench.reply({"input_tokens": 1000, "output_tokens": 100, "inference_geo": "us"})


def searching(bench: Bench) -> None:
    bench.reply({"input_tokens": 1000, "output_tokens": 100, "server_tool_use": {"web_search_requests": 3}})


def unknown_tier(bench: Bench) -> None:
    bench.reply({"input_tokens": 1000, "output_tokens": 100, "service_tier": "priority"})


def unknown_model(bench: Bench) -> None:
    bench.reply({"input_tokens": 1000, "output_tokens": 100}, model="nobody-knows-1")


def name_within_a_name(bench: Bench) -> None:
    bench.reply({"input_tokens": 1000, "output_tokens": 100}, model=f"our-own-{bench.cheap}-tuned")


def price_of_our_own(bench: Bench) -> None:
    own = Prices({bench.cheap: {"input": 0.07, "output": 0.35}})
    replace(bench, router=bench.router.replace(prices=own)).reply({"input_tokens": 1000, "output_tokens": 100})


OTHER: Final[tuple[Callable[[Bench], None], ...]] = (
    long_cache, batch, in_a_region, searching, unknown_tier, unknown_model, name_within_a_name,
    price_of_our_own,
)  # fmt: skip
"""Where a backend that prices tokens by itself cannot know what we know."""


@contextmanager
def bench_for(
    endpoint: str, *, resource: Mapping[str, str], headers: Mapping[str, str] | None = None, tiers: str = "embedded"
) -> Iterator[Callable[..., list[Entry]]]:
    """Gives a function that runs a case with spans going to the endpoint, and returns the ledger's entries of it."""
    provider = TracerProvider(resource=Resource.create(dict(resource)), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=endpoint, headers=dict(headers or {}))))
    router = Router(
        Policy.default(tiers=tiers), telemetry=Telemetry(tracer_provider=provider, labels=("thread",))
    )  # a session needs its thread's id
    tracer = provider.get_tracer("case")
    with serve() as served, pytest.MonkeyPatch.context() as patch:
        for name, value in {**served.environ, "NO_PROXY": "127.0.0.1"}.items():
            patch.setenv(name, value)
        model = RoutedChatModel(router=router, options={"max_tokens": 1024})

        def run(case: Callable[[Bench], None]) -> list[Entry]:
            served.faults.clear()
            thread = case.__name__
            with tracer.start_as_current_span(f"case {thread}", attributes={names.SPAN_KIND: "CHAIN"}):
                case(Bench(router=router, model=model, provider=served, thread=thread))
            return list(router.ledger.entries(thread=thread))

        yield run
    provider.shutdown()
