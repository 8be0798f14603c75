from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from routed_agents.checks import DEFAULT as DEFAULT_CHECKS
from routed_agents.checks import LowLogprob
from routed_agents.config import policy_doubts, policy_schema, policy_to_toml
from routed_agents.config.lines import lines_of
from routed_agents.errors import PolicyError
from routed_agents.guards import DEFAULT as DEFAULT_GUARDS
from routed_agents.guards import Compounding, LongContext, PolicyFloor, Verdict, identity, named
from routed_agents.judged_classes import JudgedClassifier
from routed_agents.judged_replies import Judge
from routed_agents.policy import Policy
from routed_agents.steps import Step
from routed_agents.tiers import Deployment, Tiers

FULL = """
stance = "frugal"
mode = "shadow"
on_stop = "handoff"
labels = ["tenant"]

[tiers]
cheap = "anthropic:claude-haiku-5-5"
strong = [
  "anthropic:claude-opus-5-5",  # first
  {model = "arn:aws:x", provider = "bedrock", priced_as = "claude-opus-5-5", name = "bedrock-eu"},
]

[[floor]]
tier = "strong"
metadata = {vulnerable = true}
label = {team = "le\\"gal"}
pin = "thread"
code = "legal"

[thresholds]
long_context = 20000
unsure = 0.2

[thresholds.p_strong]
math_reasoning = 0.9

[expiry]
distress = 20

[guards]
disable = ["deadline"]

[guards.stall]
errors = 3

[guards.compounding]
in_loop = 1

[checks]
disable = ["empty"]

[taxonomy.summarization]
disposition = "escalate"
"""


@pytest.fixture
def write(tmp_path: Path):
    def put(text: str | bytes) -> Path:
        path = tmp_path / "policy.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


def complaint(path: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "policy.toml")


def test_full_file_gives_the_policy_it_says(write):
    policy = Policy.load(write(FULL))
    assert (policy.stance, policy.mode, policy.on_stop, policy.labels) == ("frugal", "shadow", "handoff", ("tenant",))
    assert [each.name for each in policy.tiers.named("strong").deployments] == ["anthropic:claude-opus-5-5", "bedrock-eu"]
    assert policy.floors == (PolicyFloor(tier="strong", metadata=(("vulnerable", True), ("team", 'le"gal')), pin="thread", code="legal"),)
    assert policy.taxonomy.row("summarization").disposition == "escalate"
    assert policy.expiry == {"distress": 20}
    assert Compounding(in_loop=1) in policy.guards
    assert "deadline" not in repr(policy.guards).lower()


def test_floor_of_a_file_raises_a_step_that_carries_the_flag(write):
    policy = Policy.load(write('[tiers]\npreset = "claude"\n[[floor]]\ntier = "strong"\nmetadata = {vulnerable = true}\n'))
    text = "Classify the sentiment as positive or negative: lovely"
    decided = [policy.decide(Step.from_messages(text, metadata=metadata)).tier for metadata in ({}, {"vulnerable": True})]
    assert decided == ["cheap", "strong"]


def test_empty_file_is_the_default_policy(write):
    assert Policy.load(write("")).hash == Policy.default().hash


@pytest.mark.parametrize(
    "policy",
    [
        Policy.default(),
        Policy.default(tiers="embedded", stance="conservative"),
        Policy.default(tiers="claude-2026-11-three", mode="shadow"),
        Policy.default(tiers=Tiers.of({"small": "gpt-4o-mini", "my tier": ["openai:gpt-4o", "azure_openai:gpt-4o"]})),
        Policy.default().replace(floors=[PolicyFloor(tier="strong", metadata=(("b", '" and \\'), ("a", 1.5)), task_class="extraction")]),
        Policy.default().replace(thresholds={"math_reasoning": 1.0}, trusted=()),
        Policy.default().replace(expiry={"distress": 20, "a case of mine": 0}),
        Policy.default().replace(classifier=JudgedClassifier("anthropic:claude-haiku-5-5")),
        Policy.default().replace(classifier=JudgedClassifier("openai:gpt-6-luna", above=1, timeout_s=2)),
        Policy.default().replace(checks=[*DEFAULT_CHECKS, Judge(model="x", task_classes=("extraction",), rubric='Mind the "sum".')]),
        Policy.default().replace(checks=[*DEFAULT_CHECKS[1:], LowLogprob(limit=-0.5)]),
        Policy.default().replace(floors=[PolicyFloor(tier="strong", metadata=(("a", 1), ("b", 2), ("a", 3), ("c", 4)))]),
        Policy.default().replace(floors=[PolicyFloor(tier="strong", metadata=(("a", 1), ("b", 2), ("a", 3), ("b", 4)))]),
        Policy.default().replace(guards=[*DEFAULT_GUARDS, *DEFAULT_GUARDS]),
    ],
)
def test_written_policy_reads_back_with_the_same_hash(policy, write):
    assert Policy.load(write(policy_to_toml(policy))).hash == policy.hash


def test_full_file_survives_being_written_and_read(write):
    policy = Policy.load(write(FULL))
    assert Policy.load(write(policy_to_toml(policy))).hash == policy.hash


def test_judges_are_on_only_where_the_file_names_them(write):
    said = f"""[classifier.judge]
model = "openai:gpt-6-luna"
{JUDGE}task_classes = ["extraction", "6"]
share = 0.1
rubric = "Every field must stand in the mail."
"""
    policy = Policy.load(write(said))

    assert (Policy.load(write("")).judges, Policy.load(write("")).judge) == ((), None)
    assert (policy.judge.model, policy.judge_models) == ("openai:gpt-6-luna", ("openai:gpt-6-luna", "anthropic:claude-haiku-5-5"))
    assert policy.judges == (
        Judge(
            model="anthropic:claude-haiku-5-5",
            task_classes=("extraction", "summarization"),
            share=0.1,
            rubric="Every field must stand in the mail.",
        ),
    )
    assert len(policy.checks) == len(DEFAULT_CHECKS) + 1


def test_a_check_that_is_off_by_default_is_on_where_its_section_stands(write):
    assert LowLogprob() in Policy.load(write("[checks.low_logprob]\n")).checks
    assert LowLogprob(limit=-0.2) in Policy.load(write("[checks.low_logprob]\nlimit = -0.2\n")).checks


def test_part_a_file_cannot_hold_is_said_in_a_comment():
    @named("mine", version="3")
    def mine(seen: object) -> Verdict | None:
        return None

    policy = Policy.default()
    assert "guard mine@3" in policy_to_toml(policy.replace(guards=[*policy.guards, mine]))


UNNAMED = {role: Deployment(model=f"claude-{role}", provider="anthropic") for role in ("haiku", "opus")}
JUDGES = [Judge(model="x", task_classes=(name,)) for name in ("extraction", "summarization")]
LOWEST = PolicyFloor(tier="cheap", node="reply")
TWICE = PolicyFloor(tier="strong", metadata=(("a", 1), ("a", 2), ("a", 3)))


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"guards": [LongContext(limit=10_000), *DEFAULT_GUARDS]}, [f"guard {identity(LongContext())}"]),
        ({"checks": [*DEFAULT_CHECKS, *JUDGES]}, [f"check {identity(JUDGES[1])}"]),
        ({"floors": [TWICE]}, [f"floor {identity(TWICE)}"]),
        ({"floors": [LOWEST]}, [f"floor {identity(LOWEST)}"]),
        ({"tiers": Tiers.of(UNNAMED)}, [f"that deployment claude-{role} of tier {role} has no name" for role in UNNAMED]),
        (
            {"tiers": Tiers.of({"cheap": Deployment(model="claude-haiku-5-5", name="a"), "strong": "claude-opus-5-5"})},
            ["that deployment claude-haiku-5-5 of tier cheap has no provider"],
        ),
    ],
)
def test_what_a_file_holds_one_of_is_never_dropped_without_a_word(changes, notes, write):
    written = policy_to_toml(Policy.default().replace(**changes))

    said = [line.partition("add it in Python: ")[2] for line in written.splitlines() if line.startswith("# a file cannot hold")]
    assert said == notes
    Policy.load(write(written))


@pytest.mark.parametrize(
    ("roles", "mistake"),
    [
        ({"only": "claude-opus-5-5"}, 'tier "only" is the only one'),
        ({"preset": "claude-haiku-5-5", "strong": "claude-opus-5-5"}, 'tier "strong" stands beside a preset'),
        ({"strong": "claude-haiku-5-5", "cheap": "claude-opus-5-5"}, 'tier "cheap" stands below "strong"'),
    ],
)
def test_a_policy_that_no_file_may_hold_says_so_in_its_heading(roles, mistake, write):
    written = policy_to_toml(Policy.default(tiers=Tiers.of(roles)))
    told = written.splitlines()[1]

    assert mistake in told
    assert told.removeprefix("# this file does not load: ").replace("this file,", "policy.toml,") == complaint(write(written))


def test_wrong_tier_is_named_with_line_section_and_known_tiers(write):
    text = '[tiers]\ncheap = "claude-haiku-5-5"\nstrong = "claude-opus-5-5"\n\n[[floor]]\ntier = "opus"\nnode = "reply"\n'
    wanted = 'unknown tier "opus" in policy.toml, line 6, [[floor]]; known tiers: cheap, strong. Use one of these or add it under [tiers].'
    assert complaint(write(text)) == wanted


TIERS = '[tiers]\npreset = "claude"\n'
JUDGE = '[checks.judge]\nmodel = "anthropic:claude-haiku-5-5"\n'
MISTAKES = [
    ('stanse = "frugal"', 'unknown key "stanse"', "line 1", 'Did you mean "stance"?'),
    ('stance = "Balanced"', 'unknown stance "Balanced"', "line 1", 'Did you mean "balanced"?'),
    ("mode = true", "unknown mode true", "line 1", "enforce, shadow, off"),
    ('on_stop = "rasie"', 'on_stop is "rasie"', "line 1", 'Did you mean "raise"?'),
    ('labels = "tenant"', 'labels is "tenant"', "line 1", 'like ["tenant"]'),
    ('labels = ["tenant", 3]', "item 2 of labels is 3", "line 1", "text in quotes"),
    ('trusted = ["tenant"]', 'unknown trusted key "tenant"', "line 1", "task_class, routed_agents"),
    ('capture_evidence = "yes"', 'capture_evidence is "yes"', "line 1", "true or false, without quotes"),
    ("long_context = 50000", 'unknown key "long_context"', "line 1", "It belongs to [thresholds]."),
    ('[tier]\npreset = "claude"', "unknown section [tier]", "line 1", "Did you mean [tiers]?"),
    ("[tiers]", "no tier is given", "line 1", 'preset = "claude"'),
    ('[tiers]\npreset = "claud"', 'unknown tier preset "claud"', "line 2, [tiers]", "claude-2026-11"),
    (f'{TIERS}cheap = "x"', 'tier "cheap" stands beside a preset', "line 3", "not both"),
    ('[tiers]\nstrong = "a"\ncheap = "b"', 'tier "cheap" stands below "strong"', "line 3", "from cheap to strong"),
    ('[tiers]\ncheap = "anthropc:claude-haiku-5-5"', 'unknown provider "anthropc"', "line 2", 'Did you mean "anthropic"?'),
    ('[tiers]\ncheap = "claude-haiku-5-5 "', "begins or ends with a blank", "line 2", "Remove it"),
    ("[tiers]\ncheap = 5", "cheap is 5", "line 2", "wanted a model"),
    ('[tiers]\ncheap = "a"\nstrong = [\n  "b",\n  {modle = "c"},\n]', 'unknown key "modle"', "line 5", 'Did you mean "model"?'),
    ('[tiers]\ncheap = {provider = "bedrock"}', '"model" is missing', "line 2", "Add it"),
    ("[tiers]\ncheap = []", 'tier "cheap" has no model', "line 2", "Give at least one"),
    ('[tiers]\ncheap = ["a", "a"]', 'names deployment "a" twice', "line 2", "with name"),
    ('[floor]\ntier = "strong"', "floor is a single table", "line 1", "[[floor]], with two brackets"),
    ('[[floors]]\ntier = "strong"', "unknown section [floors]", "line 1", "Did you mean [floor]?"),
    ('[[floor]]\nnode = "reply"', '"tier" is missing', "line 1, [[floor]]", 'tier = "strong"'),
    ('[[floor]]\ntier = "strong"\n[[floor]]\ntier = "top"', 'unknown tier "top"', "line 4", "known tiers: cheap, strong"),
    ('[[floor]]\ntier = "cheap"', "holds nothing", "line 2", 'Use "strong"'),
    ('[[floor]]\ntier = "strong"\ntask_class = "empathy"', 'unknown task class "empathy"', "line 3", "empathy_escalation"),
    ('[[floor]]\ntier = "strong"\npin = "forever"', 'unknown pin "forever"', "line 3", "turn, lineage, thread"),
    ('[[floor]]\ntier = "strong"\nvulnerable = true', 'unknown key "vulnerable"', "line 3", "metadata = { vulnerable"),
    ('[[floor]]\ntier = "strong"\nmetadata = "vulnerable"', 'metadata is "vulnerable"', "line 3", "wanted a table"),
    ('[thresholds]\nlong_context = "50000"', 'long_context is "50000"', "line 2", "without quotes"),
    ("[thresholds]\nunsure = 35", "unsure is 35", "line 2", "at most 1"),
    ("[thresholds.p_strong]\nmath = 0.5", 'unknown task class "math"', "line 2", "math_reasoning"),
    ("[thresholds.p_strong]\ndebug_refactor = 0.5", "never read", "line 2", "[taxonomy.debug_refactor] disposition"),
    ("[guards.compounding]\nin_loop = -1", "in_loop is -1", "line 2", "0"),
    ("[expiry]\ndistress = -1", "distress is -1", "line 2", "0"),
    ('[expiry]\ndistress = "20"', 'distress is "20"', "line 2", "without quotes"),
    ("[expire]\ndistress = 20", "unknown section [expire]", "line 1", "Did you mean [expiry]?"),
    ("[thresholds]\nlong_context = 7\n[guards.long_context]\nlimit = 5", "long_context is given twice", "line 2", "Keep one"),
    ('[thresholds]\nunsure = 0.3\n[guards]\ndisable = ["low_confidence"]', "is disabled", "line 2", "Remove one"),
    ('[guards]\ndisable = ["dedline"]', 'unknown guard "dedline"', "line 2, [guards] disable", 'Did you mean "deadline"?'),
    ('[guards]\ndisable = "deadline"', 'disable is "deadline"', "line 2", '["deadline"]'),
    ("[guards.stall]\nerror = 3", 'unknown key "error"', "line 2, [guards.stall]", 'Did you mean "errors"?'),
    ("[guards.low_confidence]\nlimit = 35", "limit is 35", "line 2", "at most 1"),
    ("[guards.compounding]\ntolerance = 500", "tolerance is 500", "line 2", "at most 100"),
    ('[guards]\ndisable = ["stall"]\n[guards.stall]\nerrors = 3', "disabled and has settings", "line 3", "Remove one"),
    ('[checks]\ndisable = ["served"]', 'unknown check "served"', "line 2", "served_model"),
    ('[taxonomy.math]\ndisposition = "escalate"', 'unknown task class "math"', "line 1", "math_reasoning"),
    ('[taxonomy.math_reasoning]\ndisposition = "always"', 'unknown disposition "always"', "line 2", "escalate_often"),
    ("[taxonomy.math_reasoning]\np_cheap = 0.9", "p_cheap is 0.9", "line 2", "in percent: 90"),
    ('[classifer.judge]\nmodel = "x"', "unknown section [classifer]", "line 1", "Did you mean [classifier]?"),
    ("[classifier.judge]\nabove = 0.5", '"model" is missing', "line 1", "Add it"),
    ('[classifier.judge]\nmodel = "x"\nabove = 20', "above is 20", "line 3, [classifier.judge]", "at most 1"),
    ('[classifier.judge]\nmodel = "x"\ntimeout_s = 0', "timeout_s is 0", "line 3", "more than 0"),
    ('[classifier.judge]\nmodel = "x"\ntimeout_s = inf', "timeout_s is inf", "line 3", "at most 86400"),
    ('[classifier.judge]\nmodel = "x"\ntimeout_s = nan', "timeout_s is nan", "line 3", "at most 86400"),
    ('[checks.judge]\nmodel = "x"', '"task_classes" is missing', "line 1, [checks.judge]", '["extraction"]'),
    (f'{JUDGE}task_classes = "extraction"', 'task_classes is "extraction"', "line 3", 'like ["extraction"]'),
    (f"{JUDGE}task_classes = []", "task_classes is an empty list", "line 3", 'at least one, like ["extraction"]'),
    (f'{JUDGE}task_classes = ["extract"]', 'unknown task class "extract"', "line 3", 'Did you mean "extraction"?'),
    (
        f'{JUDGE}task_classes = ["extraction"]\ntiers = ["strong"]',
        'no reply of tier "strong" can be judged',
        "line 4",
        "tiers below the top: cheap",
    ),
    (f'{JUDGE}task_classes = ["extraction"]\nshare = 10', "share is 10", "line 4", "at most 1"),
    (f'{JUDGE}task_classes = ["extraction"]\ntimeout_s = 0', "timeout_s is 0", "line 4", "more than 0"),
    (f'{JUDGE}task_classes = ["extraction"]\ntimeout_s = 1e308', "timeout_s is 1e+308", "line 4", "at most 86400"),
    ("[checks.low_logprob]\nlimit = 0.5", "limit is 0.5", "line 2", "at most 0"),
    ("[taxonomy.7]\nperson_facing = true\n[taxonomy.multi_turn]\np_cheap = 1", '"multi_turn" has two rows', "line 3", "Keep one"),
    ('stance = "fru\\ngal"', 'unknown stance "fru\\ngal"', "line 1", 'Did you mean "frugal"?'),
    ('[[floor]]\ntier = "a\\tb\\u2028"', 'unknown tier "a\\tb\\u2028"', "line 2", "known tiers: cheap, strong"),
]


@pytest.mark.parametrize(("text", "seen", "where", "todo"), MISTAKES, ids=[each[0].splitlines()[-1][:40] for each in MISTAKES])
def test_mistake_is_one_line_with_what_was_seen_where_and_what_to_do(text, seen, where, todo, write):
    line = complaint(write(text))
    assert [part for part in (seen, f"policy.toml, {where}", todo) if part not in line] == [], line


FLOOR = '[[floor]]\ntier = "strong"\n'
DOUBTS = [
    ('on_stop = "rais"', 'on_stop "rais" is taken for a graph node in', 'line 1. Did you mean "raise"?'),
    ("[expiry]\ndistres = 20", 'no fact or pin of this policy is named "distres" in', 'line 2, [expiry]. Did you mean "distress"?'),
    (f'{FLOOR}label = {{ tennant = "bolt" }}', '"tennant" is none of the labels (tenant, agent, team) in', 'Did you mean "tenant"?'),
    (f'{FLOOR}label = {{ region = "eu" }}', '"region" is none of the labels (tenant, agent, team) in', "or make it metadata."),
    (FLOOR, 'a floor at "strong" for every step', "line 1, [[floor]]. Say for which steps it is"),
]


@pytest.mark.parametrize(("text", "seen", "todo"), DOUBTS)
def test_what_may_stand_and_can_hardly_be_meant_is_doubted_in_one_line(text, seen, todo, write):
    (line,) = policy_doubts(write(text))
    assert [part for part in (seen, todo) if part not in line] == [], line


@pytest.mark.parametrize(
    "text",
    [
        'on_stop = "handoff"',
        f'[expiry]\nfrail = 2\nsafeguard = 20\n{FLOOR}label = {{ team = "legal" }}\ncode = "safeguard"\npin = "thread"',
        f'{FLOOR}node = "reply"',
    ],
)
def test_what_can_be_meant_is_not_doubted(text, write):
    assert policy_doubts(write(text)) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("stance = balanced", "line 1, column 10"),
        ('\n\nstance = "a', "line 3, column 12"),
        ('stance = "frugal"\nstance = "frugal"', "line 2, column 18"),
        ("[[floor]\n", "line 1, column 8"),
        ("tiers = {", "line 1"),
    ],
)
def test_malformed_toml_is_named_with_line_and_column(text, where, write):
    line = complaint(write(text))
    assert f"policy.toml, {where}" in line
    assert "is not TOML" in line


def test_missing_file_directory_and_foreign_encoding_are_one_line_each(write, tmp_path):
    assert "does not exist" in complaint(tmp_path / "nothing.toml")
    assert "is a directory" in complaint(tmp_path)
    assert "line 2, is not UTF-8 (byte 0xe9)" in complaint(write('stance = "frugal"\n# caf\xe9\n'.encode("latin-1")))
    assert "is not UTF-8 (byte 0xff)" in complaint(write('stance = "frugal"\n'.encode("utf-16")))


def test_byte_order_mark_and_windows_line_ends_are_fine(write):
    assert Policy.load(write(b'\xef\xbb\xbfstance = "frugal"\r\n[guards]\r\ndisable = ["deadline"]\r\n')).stance == "frugal"


def test_schema_knows_every_section_and_every_guard_with_settings():
    schema = json.loads(json.dumps(policy_schema()))
    assert {"tiers", "floor", "thresholds", "guards", "checks", "taxonomy"} <= set(schema["properties"])
    assert {"disable", "long_context", "compounding", "stall", "low_confidence"} <= set(schema["$defs"]["guards"]["properties"])


BEYOND = [
    "[guards.low_confidence]\nlimit = 2.0",
    "[guards.compounding]\nremaining = 200",
    "[guards.compounding]\ntolerance = 101",
    f"{JUDGE}task_classes = []",
    f'{JUDGE}task_classes = ["extraction"]\nshare = 3.0',
    f'{JUDGE}task_classes = ["extraction"]\nshare = 0',
    f'{JUDGE}task_classes = ["extraction"]\ntimeout_s = 0',
    '[checks.judge]\nmodel = ""\ntask_classes = ["extraction"]',
    '[tiers]\ncheap = ""\nstrong = "x"',
    '[tiers]\ncheap = []\nstrong = "x"',
    "[tiers]",
    '[tiers]\nonly = "x"',
    '[tiers]\npreset = "claude"\nstrong = "x"',
]


@pytest.mark.parametrize("text", BEYOND)
def test_the_schema_refuses_what_the_loader_refuses(text, write):
    complaint(write(text))

    assert not jsonschema.Draft202012Validator(policy_schema()).is_valid(tomllib.loads(text))


@pytest.mark.parametrize("text", ["", FULL, TIERS, '[tiers]\n"a b" = "x"\nstrong = ["y", {model = "z"}]'])
def test_the_schema_takes_what_loads(text, write):
    Policy.load(write(text))

    jsonschema.validate(tomllib.loads(text), policy_schema())


def test_lines_are_right_behind_strings_lists_and_dotted_keys():
    text = 'a = """\n[no]\n"""\nb = [\n 1,\n {c = 2, d = "}"}, # x = 1\n]\n[e."f.g"]\nh.i = 1\n[[j]]\n[j.k]\n[[j]]\nl = "#"\nm = 1979-05-27'
    found = lines_of(text)
    expected = {("b",): 4, ("b", 1, "d"): 6, ("e", "f.g", "h", "i"): 9, ("j", 0, "k"): 11, ("j", 1, "l"): 13, ("j", 1, "m"): 14}
    assert {place: found[place] for place in expected} == expected
