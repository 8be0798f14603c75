"""A policy: one immutable value with a hash, and what it decides for each class under each stance."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from routed_agents.checks import Empty
from routed_agents.classify import Classification, shipped
from routed_agents.errors import PolicyError
from routed_agents.guards import TOP, Assessment, Conditions, LongContext, PolicyFloor, Verdict, named
from routed_agents.judged_replies import Judge
from routed_agents.policy import Policy
from routed_agents.state import Pin, ThreadState
from routed_agents.steps import Step
from routed_agents.tiers import Tiers

TWO, THREE = Policy.default(), Policy.default(tiers="claude-2026-11-three")
STANCES = ("frugal", "balanced", "conservative")
DISPOSITIONS = {row.key: row.disposition for row in TWO.taxonomy}


@dataclass(frozen=True)
class Fixed:
    """Says the same of every step."""

    task_class: str
    p_strong: float
    confidence: float = 0.9
    name = "fixed"
    version = 1

    def classify(self, features: object) -> Classification:
        return Classification(task_class=self.task_class, confidence=self.confidence, p_strong=self.p_strong)


def tier_of(policy: Policy, task_class: str, p_strong: float) -> str | None:
    return policy.replace(classifier=Fixed(task_class, p_strong)).decide(Step.from_messages("x")).tier


@pytest.mark.parametrize("stance", STANCES)
@pytest.mark.parametrize("key", DISPOSITIONS)
def test_declared_classes_follow_their_disposition(key: str, stance: str) -> None:
    tier = TWO.replace(stance=stance).decide(Step.from_messages("do it", task_class=key)).tier
    allowed = {
        "route": {"cheap"},
        "escalate": {"strong"},
        "escalate_often": {"strong"} if stance == "conservative" else {"cheap", "strong"},
    }

    assert tier in allowed.get(DISPOSITIONS[key], {"cheap", "strong"})


@pytest.mark.parametrize("key", [key for key, disposition in DISPOSITIONS.items() if disposition != "escalate"])
def test_a_wary_stance_never_sends_less_to_the_top(key: str) -> None:
    for share in range(0, 101, 4):
        ranks = [TWO.tiers.named(tier_of(TWO.replace(stance=stance), key, share / 100) or "").rank for stance in STANCES]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize(("stance", "limit"), [("frugal", 0.65), ("balanced", 0.5), ("conservative", 0.5)])
def test_a_cheap_class_that_may_be_another_is_unsure(stance: str, limit: float) -> None:
    policy = TWO.replace(stance=stance)

    assert [tier_of(policy, "extraction", share) for share in (limit - 0.01, limit)] == ["cheap", "strong"]


def test_the_taxonomys_share_of_a_class_is_met_by_the_classifiers_own_spread() -> None:
    """Conversation 14 %, knowledge 54 %, math 65 %: as many of the percentiles of p_strong lie at or above the threshold."""
    spread = shipped().facts["spread"]
    for key in ("multi_turn", "knowledge_qa", "math_reasoning"):
        row = TWO.taxonomy.row(key)
        above = sum(value >= TWO.threshold(row) for value in spread[key])
        assert above == pytest.approx(row.strong_share, abs=3)


def test_three_tiers_propose_the_middle_for_what_is_half_way() -> None:
    policy = THREE.replace(thresholds={"knowledge_qa": 0.6})

    assert [tier_of(policy, "knowledge_qa", share) for share in (0.2, 0.3, 0.6)] == ["cheap", "mid", "strong"]


def test_a_threshold_of_ones_own_wins_over_the_stances() -> None:
    assert TWO.replace(thresholds={"multi_turn": 0.1}).decide(Step.from_messages("x", task_class="multi_turn")).tier == "strong"


def test_an_escalating_class_is_a_floor_and_no_mere_proposal() -> None:
    assert TWO.decide(Step.from_messages("x", task_class="debug_refactor")).floored is True


def test_a_routed_step_stays_free() -> None:
    decision = TWO.decide(Step.from_messages("x", task_class="classification"))

    assert (decision.pin, decision.state.pins, decision.floored) == (None, frozenset(), False)


def test_a_step_above_the_bottom_pins_its_turn_by_tier_name() -> None:
    decision = THREE.decide(Step.from_messages([{"role": "user", "content": "x", "id": "h"}], task_class="agentic_chain", node="plan"))

    assert [(pin.scope, pin.tier, pin.key, pin.turn, pin.code) for pin in decision.state.pins] == [
        ("turn", "strong", "plan", "h", "agentic_chain")
    ]


@pytest.mark.parametrize(("tier", "rank"), [("mid", 1), ("strong", 2), ("a name of another policy", 2), ("cheap", 0)])
def test_a_pin_is_a_floor(tier: str, rank: int) -> None:
    state = ThreadState(frozenset({Pin(scope="thread", tier=tier)}))

    assert THREE.decide(Step.from_messages("x", task_class="classification"), state).rank == rank


# ---- eligibility


@pytest.mark.parametrize(
    ("now", "tier"),
    [
        (Conditions(), "cheap"),
        (Conditions(unavailable=frozenset({"cheap"})), "mid"),
        (Conditions(unavailable=frozenset({"claude-haiku-5-5"})), "mid"),
        (Conditions(unavailable=frozenset({"anthropic:claude-haiku-5-5", "mid"})), "strong"),
        (Conditions(unusable={"cheap": "no tools"}), "mid"),
        (Conditions(unavailable=frozenset({"cheap", "mid", "strong"})), None),
        (Conditions(unavailable=frozenset({"unheard of"})), "cheap"),
    ],
)
def test_what_is_down_is_passed_over_upwards(now: Conditions, tier: str | None) -> None:
    assert THREE.decide(Step.from_messages("x", task_class="classification"), None, now).tier == tier


def test_a_prompt_too_large_for_a_window_goes_where_it_fits() -> None:
    policy = Policy.default(tiers="claude-2026-05").replace(guards=[])

    assert [policy.decide(Step.from_messages("x", task_class="classification", tokens=size)).tier for size in (200_000, 200_001)] == [
        "cheap",
        "strong",
    ]


def test_of_a_tiers_deployments_one_that_fits_is_taken() -> None:
    tiers = Tiers.of({"cheap": ["anthropic:claude-haiku-4-5", "anthropic:claude-haiku-5-5"], "strong": "anthropic:claude-opus-5-5"})
    policy = Policy(tiers=tiers, guards=())

    assert policy.decide(Step.from_messages("x", task_class="classification", tokens=500_000)).model == "claude-haiku-5-5"


def test_a_declared_size_beyond_every_window_stops() -> None:
    assert TWO.decide(Step.from_messages("x", tokens=3_000_000)).stopped == "no_eligible_tier"


def test_an_estimate_beyond_every_window_is_left_to_the_provider() -> None:
    assert TWO.decide(Step.from_messages("word " * 2_000_000)).tier == "strong"


# ---- the value and its hash


@named("mine", version="1")
def mine(seen: object) -> Verdict | None:
    return None


CHANGES: list[dict[str, Any]] = [
    {"tiers": Tiers.preset_named("claude-2026-05")},
    {"stance": "frugal"},
    {"guards": []},
    {"guards": [*TWO.guards, mine]},
    {"guards": [*TWO.guards, named("mine", version="2")(mine.rule)]},
    {"guards": [LongContext(limit=40_000)]},
    {"floors": [PolicyFloor(tier="strong", node="reply")]},
    {"checks": [Empty()]},
    {"thresholds": {"multi_turn": 0.2}},
    {"expiry": {"distress": 3}},
    {"expiry": {"distress": 4}},
    {"trusted": ()},
]


@named("outsider", version="1")
def outsider(seen: Assessment) -> Verdict | None:
    return Verdict(guard="outsider", code="outsider", floor=TOP) if "ward" in seen.features.flags else None


WARD = {"floors": [PolicyFloor(tier="strong", metadata=(("ward", "icu"),))]}


@pytest.mark.parametrize("parts", [WARD, {"guards": WARD["floors"]}, {"guards": [outsider]}])
def test_labels_that_a_rule_may_ask_for_change_the_hash(parts: dict[str, Any]) -> None:
    policy = TWO.replace(**parts)

    assert policy.replace(labels=("tenant", "ward")).hash != policy.replace(labels=("tenant",)).hash


def test_labels_that_no_floor_asks_for_keep_the_hash() -> None:
    assert TWO.replace(**WARD, labels=("user",)).hash == TWO.replace(**WARD).hash


@pytest.mark.parametrize("name", ["multi_turn", "7", 7])
def test_a_class_is_named_by_its_key_or_number(name: Any) -> None:
    talk = Step.from_messages("x", task_class="multi_turn")
    by_floor, by_threshold = ({"floors": [PolicyFloor(tier="strong", task_class=name)]}, {"thresholds": {name: 0.0}})

    assert [TWO.replace(**change).decide(talk).tier for change in (by_floor, by_threshold)] == ["strong", "strong"]
    assert TWO.replace(**by_threshold).hash == TWO.replace(thresholds={"multi_turn": 0.0}).hash


def test_whatever_changes_decisions_changes_the_hash() -> None:
    assert len({TWO.hash, *(TWO.replace(**change).hash for change in CHANGES)}) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "shadow"},
        {"on_stop": "end"},
        {"labels": ("x",)},
        {"capture_evidence": True},
        {"guards": TWO.guards[::-1]},
        {"guards": TWO.guards * 2},
    ],
)
def test_whatever_changes_no_decision_keeps_the_hash(change: dict[str, Any]) -> None:
    assert TWO.replace(**change).hash == TWO.hash


def test_a_policy_goes_to_another_process_as_it_is() -> None:
    policy = Policy.default(stance="conservative")
    again = pickle.loads(pickle.dumps(policy))
    step = Step.from_messages("Prove it")
    assert (again.hash, again.decide(step)) == (policy.hash, policy.decide(step))


def test_equal_policies_have_equal_hashes() -> None:
    assert Policy.default().hash == Policy.default(tiers="claude-2026-11").hash


def test_a_policy_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        TWO.stance = "frugal"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown part of a policy: colour; known parts: tiers"),
        ({"stance": "bold"}, "unknown stance 'bold'; known stances: frugal"),
        ({"mode": "on"}, "unknown mode 'on'; known modes: enforce"),
        ({"thresholds": {"poetry": 0.5}}, "unknown task class 'poetry'"),
        ({"thresholds": {None: 0.5}}, "unknown task class None"),
        ({"thresholds": {"multi_turn": 2}}, 'threshold of "multi_turn" is 2; wanted a p_strong'),
        ({"thresholds": {"multi_turn": 0.5, 7: 0.5}}, '"multi_turn" has two thresholds; keep one'),
        ({"thresholds": {"agentic_chain": 0.9}}, 'threshold of "agentic_chain" is never read: the class always escalates'),
        ({"floors": [PolicyFloor(tier="opus")]}, 'unknown tier "opus"; known tiers: cheap, strong'),
        ({"floors": [PolicyFloor(tier="strong", task_class="clasification")]}, "unknown task class 'clasification'"),
        ({"guards": [PolicyFloor(tier="strong", task_class="clasification")]}, "unknown task class 'clasification'"),
        ({"guards": [lambda seen: None]}, "no name and version"),
    ],
)
def test_what_cannot_be_meant_fails_when_it_is_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        TWO.replace(**change)


def test_narrowing_keeps_the_rules_and_counts_ranks_anew() -> None:
    narrow = THREE.narrowed(["cheap", "strong"])

    assert (narrow.tiers.names, narrow.decide(Step.from_messages("x", task_class="agentic_chain")).rank) == (("cheap", "strong"), 1)


def test_narrowing_raises_floors_among_the_guards_too() -> None:
    narrow = THREE.replace(guards=[PolicyFloor(tier="mid", node="reply")]).narrowed(["cheap", "strong"])

    assert narrow.decide(Step.from_messages("x", task_class="classification", node="reply")).codes == ("policy_floor",)


def test_one_tier_alone_serves_everything() -> None:
    only = Policy(tiers=Tiers.of({"only": "claude-opus-5-5"}))

    assert {only.decide(Step.from_messages("x", task_class=key)).tier for key in DISPOSITIONS} == {"only"}


# ---- settling again


def test_after_an_outage_the_verdicts_stay() -> None:
    first = THREE.decide(Step.from_messages("x", task_class="classification"))

    again = THREE.resettle(first, Conditions(unavailable=frozenset({"cheap"})))

    assert (first.tier, again.tier, again.verdicts) == ("cheap", "mid", first.verdicts)


def test_after_a_rejected_reply_the_next_tier_is_pinned() -> None:
    again = THREE.resettle(THREE.decide(Step.from_messages("x", task_class="classification")), Conditions(), at_least=1)

    assert (again.tier, again.codes, [pin.tier for pin in again.state.pins]) == ("mid", ("escalated",), ["mid"])


def test_messages_nobody_can_measure_go_to_the_top() -> None:
    class Odd:
        type = "human"

        @property
        def content(self) -> str:
            raise RuntimeError("no content today")

    decision = Policy.default().decide(Step(id="odd", messages=(Odd(),)))

    assert (decision.tier, decision.unsure, decision.codes[0]) == ("strong", True, "features_failed")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"capture_evidence": "no"}, "capture_evidence is 'no'; wanted True or False"),
        ({"trusted": "routed_agents"}, "trusted is 'routed_agents'; wanted a list of these at most: task_class, routed_agents"),
        ({"trusted": ["x"]}, "trusted is ('x',); wanted a list of these at most: task_class, routed_agents"),
        ({"labels": "tenant"}, "labels is 'tenant'; wanted a list of metadata keys, like [\"tenant\"]"),
        ({"labels": [5]}, 'labels is (5,); wanted a list of metadata keys, like ["tenant"]'),
        ({"thresholds": {"extraction": 5}}, 'threshold of "extraction" is 5; wanted a p_strong, from 0 to 1'),
        ({"thresholds": {"extraction": "x"}}, "threshold of \"extraction\" is 'x'; wanted a p_strong, from 0 to 1"),
        ({"thresholds": 5}, "thresholds is 5; wanted p_strong by task class"),
        ({"expiry": 5}, "expiry is 5; wanted turns by the name of a fact or the code of a pin"),
        ({"on_stop": 5}, "on_stop is 5; wanted raise, end, interrupt, or the name of a graph node"),
        ({"on_stop": ""}, "on_stop is ''; wanted raise, end, interrupt, or the name of a graph node"),
        ({"guards": 5}, "guards is 5; wanted a list of guards"),
        ({"checks": "x"}, "checks is 'x'; wanted a list of checks"),
        ({"floors": [5]}, "floors is (5,); wanted a list of PolicyFloor"),
        ({"taxonomy": 5}, "taxonomy is 5; wanted a Taxonomy, like Taxonomy.default()"),
        (
            {"tiers": "claude"},
            'tiers is \'claude\'; wanted Tiers, like Tiers.preset_named("claude") or Tiers.of({"cheap": …, "strong": …})',
        ),
    ],
    ids=str,
)
def test_a_part_that_cannot_be_meant_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.default().replace(**changes)
    assert str(caught.value) == told


def test_tiers_and_files_that_are_none_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"^tiers is \{'cheap': 'x:y'\}; wanted Tiers, like"):
        Policy.default(tiers={"cheap": "x:y"})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"^policy file is 5; wanted the path of a TOML file$"):
        Policy.load(5)  # type: ignore[arg-type]


def test_parts_may_be_any_iterable() -> None:
    assert Policy.default().replace(labels=iter(["tenant"])).labels == ("tenant",)


def test_a_floor_at_a_tier_left_out_rises_to_the_next() -> None:
    three = Policy.default(tiers="claude-2026-11-three").replace(floors=[PolicyFloor(tier="mid", node="reply")])
    assert [floor.tier for floor in three.narrowed(["cheap", "strong"]).floors] == ["strong"]


@pytest.mark.parametrize(("tiers", "kept"), [(("cheap", "mid"), [("cheap",)]), (("mid",), []), ((), [()])])
def test_a_judge_judges_the_tiers_that_are_left(tiers: tuple[str, ...], kept: list[tuple[str, ...]]) -> None:
    judge = Judge(model="claude-haiku-5-5", task_classes=("classification",), tiers=tiers)
    narrowed = Policy.default(tiers="claude-2026-11-three").replace(checks=[judge]).narrowed(["cheap", "strong"])
    assert [each.tiers for each in narrowed.judges] == kept
