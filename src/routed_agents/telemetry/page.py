"""Writes the documentation page of spans and metrics from the tables the code goes by: `python -m routed_agents.telemetry.page FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from routed_agents.telemetry import names
from routed_agents.telemetry.detection import SOURCES
from routed_agents.telemetry.dialects import DIALECTS, Evidence

KNOWN: Final[dict[Evidence, str]] = {
    "run": "run here",
    "source": "mapped from its source",
    "docs": "mapped from its documentation",
    "untested": "untested",
    "none": "not read",
}
CURES: Final = {
    "suppress": "kept still round our call; ours is counted",
    "nested": "told that an inference is under way, so it makes no span; ours is counted",
    "option": "switched off on the clients behind the tiers; ours is counted",
    "none": "cannot be kept still: its span is counted, and ours only tells the decision",
}
CORE: Final[tuple[tuple[str, Evidence, Evidence, str], ...]] = (
    ("Phoenix 20.26", "run", "none", "prices the tokens itself, by `llm.model_name`; right for cached calls too"),
    ("OpenLIT, Grafana GenAI, OpenRouter, Laminar, OpenHands", "source", "untested", "`gen_ai.usage.cost`"),
    ("OpenInference", "source", "none", "`llm.cost.*` as its specification names them"),
    ("Prometheus 2.42", "none", "run", "`routed_agents.cost` becomes `routed_agents_cost_USD_total`"),
    ("Weave, SigNoz, Harness, Coralogix", "docs", "untested", "price the tokens themselves"),
)


def page() -> str:
    """The page, as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Spans and metrics"
    yield ""
    yield "<!-- Written by `python -m routed_agents.telemetry.page docs/telemetry.md` from the tables in the code; change those. -->"
    yield ""
    yield "Each step is a `route {node}` span with the decision; each provider call below it is a `chat {model}` leaf with tokens and cost."
    yield "Attempts of a step are sisters, linked one to the next. Attributes marked **counted** stand on one span per model call only;"
    yield "**guarded** ones only where the allow-list (`labels=`) or the redaction hook (`capture=`) lets them. An unknown price leaves no"
    yield "cost attribute at all. A watched graph (`watch`) adds a span for each run, node and tool: `graph {name}`, `node {name}` and"
    yield "`execute_tool {name}`; where another instrumentation makes spans for tools, ours are left out. These are never current, for"
    yield "a stream's reader would inherit them: a span you open in a node belongs to the run's trace where one is current around the run,"
    yield "and the node's steps hang under it. Otherwise it begins a trace of its own; the steps stay with the run and are linked to it."
    yield ""
    yield 'The allow-list is `Router(telemetry=Telemetry(labels=["tenant", "thread"]))`, or `ROUTED_AGENTS_SPAN_LABELS=tenant,thread`.'
    yield "The ledger is yours and keeps every label of the policy; spans go to others, so they bear none that is not allowed. Headers for"
    yield "a backend, such as a key, come from `OTEL_EXPORTER_OTLP_HEADERS` (`name=value,name=value`)."
    yield ""
    yield "## Attributes"
    yield ""
    yield from _table(
        ("Attribute", "On", "Type", "Says"),
        [
            (
                f"`{each.name}`" if not each.name.endswith(".") else f"`{each.name}{{key}}`",
                ", ".join(each.on),
                each.kind,
                each.says + (" **counted**" if each.counted else "") + (" **guarded**" if each.guarded else ""),
            )
            for each in names.ATTRIBUTES.values()
        ],
    )
    yield "## Events"
    yield ""
    yield from _table(("Event", "Says"), [(f"`{name}`", says) for name, says in names.EVENTS.items()])
    yield "## Metrics"
    yield ""
    yield "What they count survives the sampling of traces. The SDK attaches exemplars that name a sampled trace."
    yield "Labels of the allow-list are attributes of the metrics of model calls, by their own names; one with a name of ours,"
    yield f"{', '.join(f'`{each}`' for each in sorted(names.DIMENSIONS))}, stands there as `{names.LABEL}{{key}}`, as on spans."
    yield ""
    yield from _table(
        ("Metric", "Kind", "Unit", "Counts"),
        [
            *[(f"`{each.name}`", "counter", f"`{each.unit}`", each.says) for each in names.COUNTERS.values()],
            *[(f"`{each.name}`", "histogram", f"`{each.unit}`", each.says) for each in names.HISTOGRAMS.values()],
        ],
    )
    yield "## Who reads the core set"
    yield ""
    yield from _table(
        ("Backend", "Spans", "Metrics", "How"), [(who, KNOWN[spans], KNOWN[metrics], how) for who, spans, metrics, how in CORE]
    )
    yield "## Dialects"
    yield ""
    yield 'Added on a copy of each counted leaf on its way out: `configure(otlp_endpoint=…, dialects=["langfuse"])`, or'
    yield '`DialectExporter(exporter, "langfuse")` round an exporter of your own.'
    yield ""
    yield from _table(
        ("Dialect", "Backend", "Adds", "Spans", "Metrics", "Remark"),
        [(f"`{each.name}`", each.backend, each.says, KNOWN[each.spans], KNOWN[each.metrics], each.remark) for each in DIALECTS.values()],
    )
    yield "## Beside other instrumentation"
    yield ""
    yield 'With `emit="auto"`, the default, each call is counted on one span, whoever else is active. A call we only watch (a plain model'
    yield "behind a `RouterNode`) cannot be kept still: there the other span is counted, whatever the cure. `routed-agents doctor` tells."
    yield "Whoever instruments an SDK's methods makes its span round a routed SDK client too, so there it is the one counted; the anthropic"
    yield "SDK's own span is left out on such a client, also for the calls it only watches, unless `sdk_span=True` keeps it to be counted."
    yield ""
    yield from _table(
        ("Who", "Package", "Calls made through our integrations"),
        [(each.title, f"`{each.package}`", CURES[each.cure]) for each in SOURCES],
    )
    yield "The anthropic SDK's own span goes to the global tracer provider; with `Telemetry(tracer_provider=…)` of another one ours is"
    yield "counted. What a client of yours is told cannot be seen inside `router.step` or `watch`: where it makes no span of its own"
    yield '(`Anthropic(open_telemetry=False)`), or sends it to a provider of its own, `Telemetry(emit="full")` has ours counted. So it is'
    yield "with instrumentations that send their spans elsewhere than your `Telemetry`."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
