"""`doctor`: makes routed calls, looks at the spans that come out, and says what is counted twice, not at all, or not by the policy."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from routed_agents.cli import FOUND, OK, say
from routed_agents.cli.arguments import add_output, add_policy, policy_file, policy_of
from routed_agents.cli.run import add_provider
from routed_agents.cli.streams import printing_aside
from routed_agents.errors import ConfigurationError, ExtraMissing, StepStopped
from routed_agents.printable import harmless

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from routed_agents.cli.graphs import LoadedGraph
    from routed_agents.policy import Policy
    from routed_agents.router import Router
    from routed_agents.telemetry.counting import Tally
    from routed_agents.telemetry.runs import SpanRecord
    from routed_agents.tiers import Tier

Level = Literal["ok", "note", "bad"]
SDK_SPANS: Final = "ANTHROPIC_OPEN_TELEMETRY"
QUESTION: Final = "Classify the sentiment as positive or negative: lovely"
MOST_TOKENS: Final = 64
SOON_DAYS: Final = 30
"""A model that retires within this is something wrong, not something to know."""
BUILT: Final = ("anthropic", "openai")
"""Providers whose models the doctor can build and the embedded provider can play."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing the doctor saw.

    Attributes:
        code: for machines.
        says: what was seen.
        do: what to set or change; empty when nothing is wrong.
    """

    level: Level
    code: str
    says: str
    do: str = ""


def add(parser: argparse.ArgumentParser) -> None:
    from routed_agents.telemetry.detection import INSTRUMENTORS

    parser.description = (
        "Makes one routed call on each tier (or runs GRAPH once), collects the spans that come out, and says whether cost is counted "
        "once and by whom, which model calls bypass the policy, and what to set. Exit code 1 when something is wrong."
    )
    parser.add_argument("graph", metavar="GRAPH", nargs="?", help="your graph: file.py, file.py:name or module:name")
    parser.add_argument("--input", metavar="TEXT", default=QUESTION, help="what to ask")
    parser.add_argument(
        "--with",
        dest="instrumentors",
        action="append",
        default=[],
        metavar="NAME",
        choices=("installed", *[source.key for source in INSTRUMENTORS]),
        help="switch an instrumentation on first, as your program does; `installed`: all that are installed; "
        f"known: {', '.join(source.key for source in INSTRUMENTORS)}",
    )
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="a parameter to try on every tier's model")
    add_policy(parser)
    add_provider(parser)
    add_output(parser)
    parser.set_defaults(act=doctor)


def doctor(args: argparse.Namespace) -> int:
    from routed_agents.cli.workspace import workspace

    policy = policy_of(args)
    options = dict(_option(each) for each in args.option)
    sdk_spans = os.environ.get(SDK_SPANS)
    findings: list[Finding] = []
    with workspace(provider=args.provider, policy=policy), _warnings_in_one_line(), printing_aside():
        if sdk_spans is None:  # the workspace turns them off; here they are to be as in your program
            os.environ.pop(SDK_SPANS, None)
        else:
            os.environ[SDK_SPANS] = sdk_spans
        seen = Collected()
        findings += _switched_on(args.instrumentors, seen.provider)
        findings += asyncio.run(_graph(args, policy, seen)) if args.graph else _probes(args, policy, options, seen)
        findings += _others()
    findings += _doubts(policy_file(args))
    findings += _order(policy)
    findings += _prices(policy)
    findings += _endings(policy, datetime.now(UTC).date())
    findings += _exporter(seen.spans)
    _show(args, findings)
    return FOUND if any(finding.level == "bad" for finding in findings) else OK


@contextmanager
def _warnings_in_one_line() -> Generator[None]:
    """What libraries warn of, without the line of their source."""

    def told(message: Warning | str, *_: Any, **__: Any) -> None:
        say(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = told
        yield


class Collected:
    """The spans of this process, taken where every exporter takes them."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

        from routed_agents.telemetry.providers import tracers

        spans: list[ReadableSpan] = []

        class Collector(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                spans.append(span)

        current = tracers()
        if not isinstance(current, TracerProvider):
            current = TracerProvider(shutdown_on_exit=False)
            trace.set_tracer_provider(current)
        current.add_span_processor(Collector())
        self.spans = spans
        self.provider: TracerProvider = current

    def records(self, since: int = 0) -> list[SpanRecord]:
        from routed_agents.telemetry.setup import record_of

        return [record_of(span) for span in self.spans[since:]]


# ---- calls ------------------------------------------------------------------------------------------------------------


def _probes(args: argparse.Namespace, policy: Policy, options: Mapping[str, Any], seen: Collected) -> Iterator[Finding]:
    """A routed call on each tier, and one to a plain model that is only watched."""
    from routed_agents.integrations.langchain import RoutedChatModel
    from routed_agents.router import Router

    tried = [tier for tier in policy.tiers if tier.deployments[0].provider in BUILT]
    for tier in policy.tiers:
        if tier not in tried:
            yield Finding(
                level="note", code="not_tried", says=f"tier {tier.name} ({tier.model}) was not tried: its provider has no stand-in here"
            )
    yield from _parameters(tried, options)
    router = Router(policy)
    model = RoutedChatModel(router=router, options={"max_tokens": MOST_TOKENS, "max_retries": 0, **options})
    for tier in tried:
        yield from _probe(
            f"routed call, tier {tier.name}", lambda tier=tier: _routed(model, tier, args.input), seen, raising=args.traceback
        )
    if tried:
        yield from _probe("watched call of a plain model", lambda: _watched(router, tried[0], args.input), seen, raising=args.traceback)


def _probe(name: str, call: Any, seen: Collected, *, raising: bool) -> Iterator[Finding]:
    from routed_agents.telemetry.counting import tally

    before = len(seen.spans)
    try:
        call()
    except ConfigurationError as error:
        yield Finding(level="note", code="not_tried", says=f"{name}: {error}")
        return
    except StepStopped as error:
        yield Finding(level="bad", code="stopped", says=f"{name}: {error}", do="make a deployment of that tier available")
        return
    except Exception as error:  # its text may quote what was sent
        if raising:
            raise
        yield Finding(
            level="bad",
            code="call_failed",
            says=f"{name} failed: {type(error).__name__}",
            do="mend the tier's key, model or parameters; run with --traceback to see the error",
        )
        return
    spans = seen.records(before)
    yield _verdict(name, tally(spans, _attempts(spans)))
    yield from _repairs(name, spans)


def _routed(model: Any, tier: Tier, text: str) -> None:
    model.invoke(text, {"metadata": {"routed_agents": {"tier": tier.name}}})


def _watched(router: Router, tier: Tier, text: str) -> None:
    from routed_agents.integrations.models import EXTRAS
    from routed_agents.integrations.observer import CostObserver

    deployment = tier.deployments[0]
    extra, package, name = EXTRAS[deployment.provider or ""]
    try:
        module = __import__(package)
    except ImportError:
        raise ExtraMissing(f"needs {package}", extra) from None
    plain = getattr(module, name)(model=deployment.model, max_tokens=MOST_TOKENS, max_retries=0)
    plain.invoke(text, {"callbacks": [CostObserver(router)]})


def _attempts(spans: Sequence[SpanRecord]) -> int:
    from routed_agents.telemetry import names

    return sum(span.ours and names.ATTEMPT in span.attributes for span in spans)


def _verdict(name: str, found: Tally) -> Finding:
    from routed_agents.telemetry import names

    calls = f"{found.calls} call{'s' if found.calls != 1 else ''}"
    if not found.calls:
        return Finding(level="bad", code="no_span", says=f"{name}: no span came out", do="remove emit='off', or a sampler that drops all")
    if found.once:
        if set(found.counted) == {names.SCOPE}:
            return Finding(level="ok", code="counted_once", says=f"{name}: counted once, by routed-agents ({calls})")
        return Finding(
            level="note",
            code="counted_by_others",
            says=f"{name}: counted once, by {found.who} ({calls}); their spans carry tokens and no cost",
            do=_switch_off(found),
        )
    if found.counted.total() < found.calls:
        return Finding(
            level="bad",
            code="not_counted",
            says=f"{name}: {calls}, {found.counted.total()} counted, by {found.who}",
            do="give Telemetry emit='full': nobody else makes the spans it left the count to",
        )
    return Finding(
        level="bad",
        code="counted_twice",
        says=f"{name}: {calls}, counted {found.counted.total()} times, by {found.who}",
        do=_cure(found),
    )


def _switch_off(found: Tally) -> str:
    if set(found.counted) == {"anthropic-sdk"}:
        return f"set {SDK_SPANS}=false before clients are made, and ours is counted, with its cost"
    return "for cost in backends that don't price tokens themselves, switch those spans off"


def _cure(found: Tally) -> str:
    from routed_agents.telemetry import names

    if "anthropic-sdk" in found.counted:
        return f"set {SDK_SPANS}=false before clients are made"
    if names.SCOPE in found.counted:
        return "give Telemetry emit='decision_only', or switch the other instrumentation off"
    return f"keep one of them: {found.who}"


def _parameters(tiers: Sequence[Tier], options: Mapping[str, Any]) -> Iterator[Finding]:
    """Which of the parameters to try a tier's model does not take, by the dated tables."""
    from routed_agents.repairs import repaired
    from routed_agents.tiers import card

    for tier in tiers:
        _, changed = repaired(dict(options), card(tier.deployments[0].price_key))
        if changed:
            yield Finding(
                level="note",
                code="parameter_changed",
                says=f"tier {tier.name} ({tier.model}) does not take {', '.join(changed)} as given: left out or changed there",
                do="leave it out, or expect the tiers to differ",
            )


def _repairs(name: str, spans: Sequence[SpanRecord]) -> Iterator[Finding]:
    from routed_agents.telemetry import names

    changed = sorted({str(each) for span in spans if span.ours for each in span.attributes.get(names.REPAIRS, ())})
    if changed:
        yield Finding(
            level="note",
            code="parameter_changed",
            says=f"{name}: its model does not take {', '.join(changed)} as given, so the call was made without or with another value",
            do="leave it out, or expect the tiers to differ",
        )


# ---- a graph of yours -------------------------------------------------------------------------------------------------


async def _graph(args: argparse.Namespace, policy: Policy, seen: Collected) -> list[Finding]:
    from routed_agents.cli.graphs import load_graph

    loaded = await load_graph(args.graph)
    floors = list(_floors(loaded, policy))
    calls = await _run(loaded, args.input, raising=args.traceback)
    found = [calls] if isinstance(calls, Finding) else _of_graph(loaded.name, calls, seen.records())
    return [*found, *floors, *_forgotten(loaded)]


def _forgotten(loaded: LoadedGraph) -> Iterator[Finding]:
    """Threads whose pins and facts its router had no room for."""
    threads = getattr(loaded.router.store, "forgotten", 0) if loaded.router is not None else 0
    if threads:
        yield Finding(
            level="bad",
            code="state_forgotten",
            says=f"{loaded.name}: its router has given up pins and facts of {threads} threads, whose steps count as unsure",
            do='keep them in the graph, routing: Annotated[dict, join], or give MemoryStateStore a larger "lasting"',
        )


def _floors(loaded: LoadedGraph, policy: Policy) -> Iterator[Finding]:
    """Floors for nodes that decide nothing in this graph."""
    chosen = loaded.router.policy if loaded.router is not None else policy
    floored = dict.fromkeys(floor.node for floor in chosen.floors if floor.node is not None)
    if not floored:
        return
    nodes, routed = _nodes(loaded.graph)
    for node in floored:
        if node not in nodes:
            known = f"; its nodes: {', '.join(nodes)}" if nodes else ""
            meant = difflib.get_close_matches(node, nodes, n=1)
            yield Finding(
                level="note",
                code="floor_without_node",
                says=f'a floor is for node "{node}", which {loaded.name} does not have{known}',
                do=f'did you mean "{meant[0]}"?' if meant else "name a node of the graph, unless the floor is for another graph",
            )
        elif node in routed and routed[node] not in floored:
            yield Finding(
                level="note",
                code="floor_behind_router",
                says=f'a floor is for node "{node}", but the RouterNode "{routed[node]}" decides whether its step goes there',
                do=f'name node = "{routed[node]}" in the floor',
            )


def _nodes(graph: Any) -> tuple[list[str], dict[str, str]]:
    """The names of a graph's nodes and of its subgraphs', and by name the RouterNode that goes there."""
    nodes: list[str] = []
    routed: dict[str, str] = {}
    below = [inner for _, inner in graph.get_subgraphs(recurse=True)] if hasattr(graph, "get_subgraphs") else []
    for each in [graph, *below]:
        for name, node in getattr(each, "nodes", {}).items():
            if not name.startswith("__"):
                nodes.append(name)
            for way in getattr(getattr(node, "bound", None), "destinations", ()):
                routed[way] = name
    return list(dict.fromkeys(nodes)), routed


async def _run(loaded: LoadedGraph, text: str, *, raising: bool) -> list[tuple[str, str, bool]] | Finding:
    """The model calls of one run: node, model, and whether they were routed."""
    from langchain_core.callbacks import BaseCallbackHandler

    from routed_agents.cli.conversation import messages_of
    from routed_agents.integrations.observer import MARK

    calls: list[tuple[str, str, bool]] = []

    class Listener(BaseCallbackHandler):
        run_inline = True

        def on_chat_model_start(self, serialized: Any, messages: Any, *, metadata: Any = None, **kwargs: Any) -> None:
            known: dict[str, Any] = metadata or {}
            calls.append((str(known.get("langgraph_node") or "?"), str(known.get("ls_model_name") or "unknown"), MARK in known))

    asked = {"messages": messages_of({"messages": [{"role": "user", "content": text}]})}
    try:
        await loaded.graph.ainvoke(asked, {"callbacks": [Listener()], "configurable": {"thread_id": "doctor"}})
    except StepStopped as error:
        return Finding(level="bad", code="stopped", says=f"{loaded.name}: {error}", do="ask something else with --input")
    except Exception as error:  # its text may quote what was sent
        if raising:
            raise
        return Finding(
            level="bad",
            code="graph_failed",
            says=f"{loaded.name} failed: {type(error).__name__}",
            do="ask something else with --input; run with --traceback to see the error",
        )
    return calls


def _of_graph(name: str, calls: Sequence[tuple[str, str, bool]], spans: Sequence[SpanRecord]) -> Iterator[Finding]:
    from routed_agents.telemetry import names
    from routed_agents.telemetry.counting import tally

    if not calls:
        yield Finding(
            level="note", code="no_calls", says=f"{name} made no model call through LangChain", do="ask something else with --input"
        )
        return
    yield _verdict(name, tally(spans, len(calls)))
    yield from _repairs(name, spans)
    routes = {span.span_id for span in spans if span.ours and span.name.startswith("route ")}
    nodes = {span.span_id for span in spans if span.span_id in routes and span.attributes.get(names.ATTEMPTS) == 0}
    watched = [span for span in spans if span.ours and (span.attributes.get(names.MODE) == "watch" or span.parent_id in nodes)]
    decided = sum(span.parent_id in nodes for span in watched)
    plain = [(node, model) for node, model, routed in calls if not routed]
    unseen = len(plain) - len(watched)
    bypassing = len(plain) - decided
    if not bypassing:
        yield Finding(level="ok", code="all_routed", says=f"{name}: all {len(calls)} model calls go by the policy")
        return
    where = ", ".join(dict.fromkeys(f"{model} in node {node}" for node, model in plain))
    books = f"{unseen} of them in no ledger and on no span of ours" if unseen > 0 else "priced by an observer"
    yield Finding(
        level="bad",
        code="bypassing",
        says=f"{name}: {bypassing} of {len(calls)} model calls bypass the policy ({where}), {books}",
        do="use RoutedChatModel there, or put a RouterNode before the node and wrap the graph with watch(graph, router)",
    )


# ---- surroundings -----------------------------------------------------------------------------------------------------


def _switched_on(wanted: Sequence[str], provider: TracerProvider) -> Iterator[Finding]:
    import importlib

    from routed_agents.telemetry.detection import INSTRUMENTORS, installed

    chosen = installed() if "installed" in wanted else [source for source in INSTRUMENTORS if source.key in wanted]
    for source in chosen:
        try:
            instrumentor: Any = getattr(importlib.import_module(source.module), source.instrumentor)
        except ImportError:
            raise ConfigurationError(f"--with {source.key} needs {source.package}; pip install {source.package}") from None
        instrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
        yield Finding(level="note", code="switched_on", says=f"{source.title} was switched on for this check")


def _others() -> Iterator[Finding]:
    from routed_agents.telemetry.detection import active, installed
    from routed_agents.telemetry.page import CURES

    present = active()
    for source in present:
        yield Finding(level="note", code="active", says=f"{source.title} is active: {CURES[source.cure]}")
    for source in installed():
        if source not in present:
            yield Finding(
                level="note",
                code="installed",
                says=f"{source.title} is installed and not active here",
                do=f"check with it: --with {source.key}",
            )


def _doubts(file: str | None) -> Iterator[Finding]:
    from routed_agents.config import policy_doubts

    for line in policy_doubts(file) if file is not None else ():
        yield Finding(level="note", code="policy_doubtful", says=line)


def _order(policy: Policy) -> Iterator[Finding]:
    from routed_agents.cli.tier_order import alike, swapped

    for line in swapped(policy):
        yield Finding(level="bad", code="tiers_swapped", says=line, do="order the policy's tiers from cheap to strong")
    for line in alike(policy):
        yield Finding(level="note", code="tiers_alike", says=line, do="name a cheaper model for the lower tier")


def _prices(policy: Policy) -> Iterator[Finding]:
    from routed_agents.pricing import Prices

    missing = Prices().prepare(each for tier in policy.tiers for each in tier.deployments)
    for model in dict.fromkeys(missing):
        yield Finding(
            level="bad",
            code="price_missing",
            says=f'no price is known for "{model}": its calls are recorded as unpriced',
            do="give one in a price file, or say priced_as in the policy",
        )
    if not missing:
        yield Finding(level="ok", code="priced", says="every model of the policy has a price")


def _endings(policy: Policy, today: date) -> Iterator[Finding]:
    """Models of the policy that no longer answer, or soon will not."""
    from routed_agents.cli.lifecycle import ending_of

    for name, each in [(tier.name, each) for tier in policy.tiers for each in tier.deployments]:
        ending = ending_of(each)
        if ending is None:
            continue
        known = f"tier {name}: {each.model}"
        if ending.on is None:
            says, close = f"{known} is called deprecated, without a date ({ending.source})", False
        elif ending.on <= today:
            says, close = f"{known} was retired on {ending.on} ({ending.source})", True
        else:
            says, close = f"{known} retires on {ending.on} ({ending.source})", (ending.on - today).days <= SOON_DAYS
        yield Finding(level="bad" if close else "note", code="retiring", says=says, do="name a newer model in the policy's tiers")


def _exporter(spans: Sequence[ReadableSpan]) -> Iterator[Finding]:
    """Whether the backend the environment names takes the spans of this check."""
    from routed_agents.telemetry.endpoints import asked_by
    from routed_agents.telemetry.setup import sent

    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield Finding(level="bad", code="exporter_silent", says="OTEL_SDK_DISABLED is true: no span leaves", do="unset it")
        return
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "")
    if "ratio" in sampler:
        yield Finding(
            level="note", code="sampled", says=f"OTEL_TRACES_SAMPLER is {sampler}: spans are samples; counters and ledger are whole"
        )
    endpoint, _ = asked_by(os.environ)
    if endpoint is None:
        yield Finding(
            level="note",
            code="no_endpoint",
            says="no OTLP endpoint is named by the environment; where your program's own set-up sends spans was not checked",
            do="set OTEL_EXPORTER_OTLP_ENDPOINT, or call routed_agents.telemetry.configure(otlp_endpoint=...)",
        )
        return
    lost = sent(endpoint, spans)
    if lost:
        yield Finding(
            level="bad",
            code="exporter_silent",
            says=f"{lost} of {len(spans)} spans did not reach the endpoint of OTEL_EXPORTER_OTLP_ENDPOINT within 2 s",
            do="start the backend, or mend the endpoint and its headers",
        )
    else:
        yield Finding(level="ok", code="exporter_answers", says=f"the backend took all {len(spans)} spans of this check")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigurationError(f"--option {text!r} is no NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show(args: argparse.Namespace, findings: Sequence[Finding]) -> None:
    bad = sum(finding.level == "bad" for finding in findings)
    if args.json:
        simulated = args.provider == "embedded"
        print(json.dumps({"ok": not bad, "simulated": simulated, "findings": [asdict(finding) for finding in findings]}))
        return
    from rich.text import Text

    from routed_agents.cli.printer import Printer

    console = Printer()
    marks = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "bold red")}
    for finding in findings:
        mark, style = marks[finding.level]
        console.print(Text.assemble((mark, style), " ", harmless(finding.says)), soft_wrap=True)
        if finding.do:
            console.print(Text(f"     → {harmless(finding.do)}"), soft_wrap=True)
    what = "answers are simulated by the embedded provider" if args.provider == "embedded" else "the calls were real, and cost a little"
    console.print(f"{'Nothing is wrong' if not bad else f'{bad} wrong'}; {what}.", soft_wrap=True)
