"""A cost tree says what the spans say, and is pleasant to read at any width."""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Context, Inexact, Rounded, localcontext
from pathlib import Path

import pytest
from langchain_core.exceptions import ModelTimeoutError
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.cells import cell_len
from rich.console import Console

from routed_agents import Ledger, Policy, Router, Step, Telemetry
from routed_agents.telemetry import names
from routed_agents.telemetry.runs import Run, SpanRecord, run_of
from routed_agents.telemetry.setup import record_of
from routed_agents.telemetry.spans import Emit
from routed_agents.telemetry.trees import CostTree, Row, cost_tree, dollars, plain


class Desk:
    """Runs steps through a real router with a real SDK, on replies made up here."""

    def __init__(self, *, mode: str = "enforce", emit: Emit = "auto") -> None:
        self.spans = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.ledger = Ledger.memory()
        self.router = Router(
            Policy.default().replace(mode=mode), ledger=self.ledger, telemetry=Telemetry(tracer_provider=provider, emit=emit)
        )
        self.ours, self.other = provider.get_tracer(names.SCOPE), provider.get_tracer("elsewhere")

    def step(
        self, node: str, text: str = "Classify as open or closed: late", *, says: tuple[str | Exception, ...] = ("ok",), **more: object
    ) -> None:
        with self.router.step(Step.from_messages(text, node=node, task_class=more.pop("task_class", "classification"))) as call:  # type: ignore[arg-type]
            script = iter(says)
            for attempt in call.attempts():
                with attempt:
                    attempt.record(self.reply(attempt.model, next(script), **more))

    def reply(
        self, model: str, says: str | Exception, *, sent: int = 400, read: int = 0, simulated: bool = False, served: str = ""
    ) -> dict[str, object]:
        if isinstance(says, Exception):
            raise says
        usage = {"input_tokens": sent, "output_tokens": 12, "cache_read_input_tokens": read, "cache_creation_input_tokens": 0}
        kind = "sim_" if simulated else ""
        return {"id": f"msg_{kind}1", "model": served or model, "content": says, "stop_reason": "end_turn", "usage": usage}

    def tree(self) -> CostTree:
        run = run_of([record_of(span) for span in self.spans.get_finished_spans()])
        found = cost_tree(run)
        assert found is not None
        return found


def row(tree: CostTree, name: str) -> Row:
    waiting = list(tree.rows)
    while waiting:
        found = waiting.pop()
        if found.name == name:
            return found
        waiting.extend(found.below)
    raise AssertionError(f"no row {name} in {tree}")


def a_run(desk: Desk, *, simulated: bool = False) -> CostTree:
    attributes = {names.GRAPH: "support_desk", names.INPUT_ID: "desk-004"}
    with desk.ours.start_as_current_span("run", attributes=attributes):
        with desk.other.start_as_current_span("triage"):
            desk.step("triage", simulated=simulated)
        with desk.other.start_as_current_span("refund"), desk.other.start_as_current_span("agent"):
            desk.step("agent", task_class="agentic_chain", sent=18_204, read=15_000, simulated=simulated)
            desk.step("check_policy", task_class="summarization", says=("", "ok"), simulated=simulated)
        with desk.other.start_as_current_span("http get"):
            pass
        desk.step("odd", served="mystery-model", simulated=simulated)
        desk.router.watch(model="gpt-4o-mini", reply=desk.reply("gpt-4o-mini", "ok"), started_ns=time.time_ns())
    return desk.tree()


def test_costs_and_savings_are_those_of_the_ledger() -> None:
    desk = Desk()
    tree, total = a_run(desk), desk.ledger.total()
    seen, kept = [(each.steps, each.cost_pico, each.unpriced, each.saving_pico) for each in (tree, total)]
    assert seen == kept


def test_an_answer_from_below_the_floor_is_marked_and_saves_nothing() -> None:
    desk = Desk()
    step = Step.from_messages("Plan it", node="reply", task_class="agentic_chain")
    cheap = desk.router.policy.tiers[0].model
    with desk.router.step(step) as call:
        context = call.span.context if call.span is not None else None
    desk.router.watch(
        model=cheap, reply=desk.reply(cheap, "ok"), step=step, decision=call.decision, started_ns=time.time_ns(), parent=context
    )
    tree = desk.tree()
    told = row(tree, "reply")
    assert (told.tier, told.mark, told.saving_pico, tree.compared) == ("cheap", "served model below floor", None, 0)


def test_the_root_names_graph_and_input() -> None:
    tree = a_run(Desk())
    assert (tree.title, tree.input_id) == ("support_desk", "desk-004")


def test_foreign_spans_stay_only_as_the_structure_above_steps() -> None:
    tree = a_run(Desk())
    assert [each.name for each in tree.rows] == ["triage", "refund", "odd", "chat gpt-4o-mini"]
    assert [each.name for each in row(tree, "agent").below] == ["agent", "check_policy"]


def test_attempts_show_only_where_there_was_more_than_one() -> None:
    tree = a_run(Desk())
    tried = row(tree, "check_policy")
    assert [(each.tier, each.mark, each.why) for each in tried.below] == [("cheap", "rejected", "empty"), ("strong", "", "")]
    assert (tried.tier, tried.why, row(tree, "triage").below) == ("strong", "after empty", ())


def test_an_attempt_without_a_span_is_unpriced() -> None:
    desk = Desk()
    desk.step("triage")
    spans = [record_of(span) for span in desk.spans.get_finished_spans()]
    tree = cost_tree(run_of([span for span in spans if not span.is_leaf]))
    assert tree is not None
    assert (tree.steps, tree.unpriced, row(tree, "triage").cost_pico) == (1, 1, None)


def test_a_step_costs_the_sum_of_its_attempts() -> None:
    tried = row(a_run(Desk()), "check_policy")
    assert tried.cost_pico == sum(each.cost_pico or 0 for each in tried.below)
    assert tried.input == 800


def test_a_call_counted_on_another_span_has_its_model_and_tokens_here_too() -> None:
    desk = Desk(emit="decision_only")
    desk.step("triage")
    found = row(desk.tree(), "triage")
    assert (found.model, found.input, found.output) == ("claude-haiku-5-5", 400, 12)


def test_an_unpriced_call_has_no_cost_and_no_saving() -> None:
    odd = row(a_run(Desk()), "odd")
    assert (odd.cost_pico, odd.unpriced, odd.saving_pico) == (None, 1, None)


def test_a_step_held_by_its_class_says_so() -> None:
    tree = a_run(Desk())
    agent = row(tree, "agent").below[0]
    assert (agent.tier, agent.why, agent.cached) == ("strong", "by class", 15_000)


def test_a_watched_call_says_that_nobody_routed_it() -> None:
    watched = row(a_run(Desk()), "chat gpt-4o-mini")
    assert (watched.kind, watched.tier, watched.why) == ("watched", "unrouted", "not routed")


def test_shadow_says_where_the_step_would_have_gone() -> None:
    desk = Desk(mode="shadow")
    desk.step("triage")
    assert (row(desk.tree(), "triage").tier, row(desk.tree(), "triage").why) == ("strong", "shadow, would be cheap")


def test_a_failed_attempt_is_marked_with_its_trouble() -> None:
    desk = Desk()
    desk.step("triage", says=(ModelTimeoutError("slow"), "ok"))
    first = row(desk.tree(), "triage").below[0]
    assert (first.mark, first.why) == ("failed", "timeout")


def test_a_stopped_step_costs_nothing_and_says_why() -> None:
    span = SpanRecord(
        trace_id="t",
        span_id="a",
        is_root=True,
        name="route reply",
        scope="routed_agents",
        start_ns=0,
        end_ns=1,
        attributes={
            names.STEP: "s",
            names.NODE: "reply",
            names.DECIDED_TIER: "stop",
            names.STOPPED: "no_eligible_tier",
            names.REASONS: ("empathy",),
        },
    )
    tree = cost_tree(run_of([span]))
    assert tree is not None
    assert (tree.rows[0].tier, tree.rows[0].why, tree.rows[0].unpriced) == ("stop", "no eligible tier, empathy", 0)


def test_a_run_without_a_step_of_ours_has_no_tree() -> None:
    assert cost_tree(run_of([SpanRecord(trace_id="t", span_id="a", is_root=True, name="GET /", start_ns=0, end_ns=1)])) is None


def test_a_run_without_spans_has_no_tree() -> None:
    assert cost_tree(Run(trace_id="t", roots=())) is None


# ---- the drawing ------------------------------------------------------------------------------------------------------

M = 1_000_000


def step(name: str, tier: str, sent: int, received: int, cost: int | None, baseline: int | None = None, *below: Row, **more: object) -> Row:
    """A row, with money in millions of pico-dollars."""
    model = {"cheap": "claude-haiku-5-5", "strong": "claude-opus-5-5"}[tier]
    values: dict[str, object] = {"kind": "step", "model": model, "unpriced": int(cost is None), **more}
    pico = None if cost is None else cost * M
    strong = None if baseline is None else baseline * M
    return Row(name=name, tier=tier, input=sent, output=received, cost_pico=pico, baseline_pico=strong, below=below, **values)  # type: ignore[arg-type]


LONG = CostTree(
    title="support_desk",
    input_id="desk-004",
    rows=(
        step("triage", "cheap", 400, 12, 520, 1_840, task_class="classification"),
        Row(
            kind="group",
            name="refund",
            below=(
                step("agent", "strong", 33_204, 1_310, 102_016, 102_016, task_class="agentic chain", cached=15_000, why="by class"),
                step(
                    "check_policy",
                    "strong",
                    800,
                    24,
                    2_100,
                    1_840,
                    step("try 1", "cheap", 400, 12, 260, kind="attempt", mark="rejected", why="empty"),
                    step("try 2", "strong", 400, 12, 1_840, 1_840, kind="attempt"),
                    task_class="summarization",
                    why="after empty",
                ),
            ),
        ),
        step(
            "reply_to_the_customer_in_person",
            "strong",
            1_640,
            320,
            12_960,
            12_960,
            task_class="empathy escalation",
            why="empathy, long context",
        ),
        step("odd", "cheap", 300, 4, None, task_class="classification", model="mystery-model"),
    ),
    steps=5,
    tiers=(("cheap", 2), ("strong", 3)),
    cost_pico=117_596 * M,
    unpriced=1,
    baseline_pico=118_656 * M,
    saving_pico=1_060 * M,
    compared=4,
    seconds=4.2,
    simulated=True,
)

AT_80 = """\
support_desk · desk-004 (simulated) · 5 steps (2 cheap, 3 strong) · 4.2 s
$0.1176 + 1 unpriced · all-strong $0.1187 (4 of 5 steps) · saved $0.0011
step              tier       in  out cache      cost    saving  class/reason
├─ triage         cheap     400   12     –   $0.0005   $0.0013  classification
├─ refund
│  ├─ agent       strong  33.2k 1.3k 15.0k   $0.1020         –  agentic chain
│  └─ check_pol…  strong    800   24     –   $0.0021  -$0.0003  after empty
│     ├─ ✗ try 1  cheap     400   12     –   $0.0003            empty
│     └─ try 2    strong    400   12     –   $0.0018
├─ reply_to_the…  strong   1.6k  320     –   $0.0130         –  empathy, long c…
└─ odd            cheap     300    4     –  unpriced         –  classification
cheap: claude-haiku-5-5, mystery-model · strong: claude-opus-5-5
"""

AT_140 = """\
support_desk · desk-004 (simulated) · 5 steps (2 cheap, 3 strong) · 4.2 s
$0.1176 + 1 unpriced · all-strong $0.1187 (4 of 5 steps) · saved $0.0011
step                          class               tier    model                 in    out  cached      cost    saving  why
├─ triage                     classification      cheap   claude-haiku-5-5     400     12       –   $0.0005   $0.0013
├─ refund
│  ├─ agent                   agentic chain       strong  claude-opus-5-5   33,204  1,310  15,000   $0.1020         –  by class
│  └─ check_policy            summarization       strong  claude-opus-5-5      800     24       –   $0.0021  -$0.0003  after empty
│     ├─ ✗ try 1                                  cheap   claude-haiku-5-5     400     12       –   $0.0003            rejected: empty
│     └─ try 2                                    strong  claude-opus-5-5      400     12       –   $0.0018
├─ reply_to_the_customer_in…  empathy escalation  strong  claude-opus-5-5    1,640    320       –   $0.0130         –  empathy, long context
└─ odd                        classification      cheap   mystery-model        300      4       –  unpriced         –
"""


@pytest.mark.parametrize(("width", "wanted"), [(80, AT_80), (140, AT_140)])
def test_it_looks_like_this(width: int, wanted: str) -> None:
    assert plain(LONG, width=width) == wanted


@pytest.mark.parametrize("width", range(30, 200, 3))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(cell_len(line) for line in plain(LONG, width=width).splitlines()) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140])
def test_every_step_has_one_line(width: int) -> None:
    guides = ("├─", "└─", "│")
    assert sum(line.startswith(guides) or line.lstrip().startswith(guides) for line in plain(LONG, width=width).splitlines()) == 8


def test_simulated_is_said_once() -> None:
    assert plain(LONG, width=80).count("simulated") == 1


def test_a_file_gets_no_colour_and_a_terminal_does(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as out:
        Console(file=out, width=80).print(LONG)
        out.seek(0)
        assert "\x1b" not in out.read()
    shown = Console(width=80, force_terminal=True, color_system="standard", no_color=False, _environ={})
    with shown.capture() as captured:
        shown.print(LONG)
    assert "\x1b[32mcheap" in captured.get()
    assert "\x1b[35mstrong" in captured.get()


def test_a_terminal_without_unicode_gets_plain_signs(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+", encoding="ascii") as out:
        Console(file=out, width=80).print(LONG)
        out.seek(0)
        assert "|- triage" in out.read()


@pytest.mark.parametrize(
    ("pico", "wanted"),
    [
        (0, "$0.0000"),
        (1, "<$0.0001"),
        (50_000_000, "$0.0001"),
        (1_200_000_000, "$0.0012"),
        (-1_200_000_000, "-$0.0012"),
        (12_345 * 10**12, "$12,345.0000"),
        (1_234_567_890_123_450_000, "$1,234,567.8901"),
    ],
)
@pytest.mark.parametrize("context", [Context(), Context(prec=4), Context(traps=[Inexact, Rounded])])
def test_amounts_read_well_in_any_decimal_context(pico: int, wanted: str, context: Context) -> None:
    with localcontext(context):
        assert dollars(pico) == wanted


def test_cheap_steps_get_a_digit_more_rather_than_all_looking_alike() -> None:
    tree = CostTree(title="g", rows=(Row(kind="step", name="a", tier="cheap", cost_pico=46_000_000),), steps=1, cost_pico=46_000_000)
    assert "$0.00005" in plain(tree, width=140)


def test_a_step_bears_the_name_of_the_node_that_made_it() -> None:
    desk = Desk()
    with desk.ours.start_as_current_span("graph"), desk.ours.start_as_current_span("node", attributes={names.NODE: "router"}):
        step = Step.from_messages("Classify as open or closed: late", node="router", task_class="classification")
        with desk.router.step(step) as call:
            assert call.span is not None
            made, model, parent = replace(step, node="quick"), call.decision.model, call.span.context
            assert model is not None
            told = {"step": made, "decision": call.decision, "started_ns": time.time_ns(), "parent": parent}
            desk.router.watch(model=model, reply=desk.reply(model, "ok"), **told)
    (drawn,) = desk.tree().rows
    assert (drawn.name, drawn.kind, drawn.tier, desk.tree().steps) == ("quick", "step", "cheap", 1)
