"""Breaks each law on purpose and expects its tests to notice: `python tests/laws/mutations.py [LAW ...]`.

A mutation replaces one exact text of the source in a copy and runs that law's tests, with fewer examples, against the copy. The run
fails when a mutation survives, when an old text is no longer there, or when the tests fail without any mutation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LAWS = Path(__file__).parent
ROOT = LAWS.parent.parent
PACKAGE = ROOT / "src" / "routed_agents"


@dataclass(frozen=True)
class Mutation:
    """One exact text to replace, and the law that has to notice."""

    law: int
    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        1, "a cap beats a floor", "decisions.py", "want = max(obligation, min(cap, proposed))", "want = min(cap, max(obligation, proposed))"
    ),
    Mutation(1, "the last floor wins", "decisions.py", "floor = max(floor, min(verdict.floor, top))", "floor = min(verdict.floor, top)"),
    Mutation(1, "a hard cap is exceeded", "decisions.py", "[each for each in eligible if each <= hard]", "list(eligible)"),
    Mutation(
        1,
        "verdicts keep the guards' order",
        "policy.py",
        "tuple(sorted(dict.fromkeys(verdicts), key=_strictness))",
        "tuple(dict.fromkeys(verdicts))",
    ),
    Mutation(
        1,
        "a repeated guard speaks twice",
        "policy.py",
        "sorted(dict.fromkeys(verdicts), key=_strictness)",
        "sorted(verdicts, key=_strictness)",
    ),
    Mutation(2, "a pin is no floor", "decisions.py", "obligation = max(floor, min(pinned, top))", "obligation = floor"),
    Mutation(2, "an outage goes below the floor", "decisions.py", "elif usable and max(usable) >= obligation:", "elif usable:"),
    Mutation(
        2, "an unmet proposal takes the lowest", "decisions.py", "rank, degraded = max(usable), True", "rank, degraded = min(usable), True"
    ),
    Mutation(2, "a rejected tier is asked again", "policy.py", "        if at_least:\n", "        if False:\n"),
    Mutation(2, "another form lets verdicts go", "policy.py", "trouble=[*decision.verdicts, *trouble]", "trouble=trouble"),
    Mutation(3, "stamps are not read", "features.py", "stamped.append((stamp, made, errors - counted))", "pass"),
    Mutation(
        3,
        "a node's message starts a turn",
        "features.py",
        "growing = stamp is not None and _goes_on(stamp, step, messages[opened])",
        "growing = False",
    ),
    Mutation(
        3,
        "decisions pin nothing",
        "policy.py",
        "left = ThreadState(pins, facts) if pins or facts else EMPTY",
        "left = ThreadState(facts=facts)",
    ),
    Mutation(3, "pins hold in every lineage", "state.py", "    if pin.key != key:\n        return False\n", ""),
    Mutation(3, "a branch is its node", "state.py", 'f"{own}{BRANCH}{task}" if branch and task else own', "own"),
    Mutation(
        3,
        "join keeps the left's facts",
        "state.py",
        "left.facts | right.facts, frozenset(), turns, unread)",
        "left.facts, frozenset(), turns, unread)",
    ),
    Mutation(3, "a release takes turn pins", "state.py", 'pin.scope == "turn" or pin.seq * MICRO', "pin.seq * MICRO"),
    Mutation(
        3,
        "a longer pin stands for the turn's",
        "policy.py",
        "return frozenset({of_turn, *longer})",
        "return frozenset(longer or {of_turn})",
    ),
    Mutation(
        3, "the later release is lost", "state.py", "released=max(one.released, other.released)", "released=one.released or other.released"
    ),
    Mutation(3, "what is noted later is released too", "state.py", "if mark.noted > mark.released)", "if not mark.released)"),
    Mutation(
        3, "a fact counts from its first turn", "state.py", "number=max(one.number, other.number)", "number=one.number or other.number"
    ),
    Mutation(3, "a run taken up begins a turn", "features.py", "since is not None and isinstance(at, str) and at >= since", "False"),
    Mutation(3, "a shortened history lets pins go", "state.py", "if going_on and turn and run is None:", "if False:"),
    Mutation(3, "the same words later are one turn", "state.py", "int(known_place) >= int(place)", "True"),
    Mutation(3, "pins of the run taken up are lost", "state.py", "return since is not None and pin.at >= since", "return False"),
    Mutation(
        3,
        "joining counts a run too many",
        "state.py",
        "if len(last) < runs:",
        "if len(last) <= runs:",
    ),
    Mutation(3, "join forgets the latest", "state.py", "[-most:]", "[:most]"),
    Mutation(3, "runs side by side forget each other's pins", "state.py", "if side_by_side and len(kept) < len(latest):", "if False:"),
    Mutation(3, "a pin is as old as its clock says", "policy.py", "max([now, *later])", "now"),
    Mutation(
        3,
        "distress stays in its step",
        "guards.py",
        "if in_danger or (facing and (found or known)):",
        "if in_danger or (facing and found):",
    ),
    Mutation(
        3,
        "a tool result is a person's",
        "steps.py",
        'return any(field_of(block, "type") == RESULT for block in blocks)',
        "return False",
    ),
    Mutation(4, "a stop is not heeded", "router/calls.py", 'if self.mode == "enforce" and self.decision.stopped:', "if False:"),
    Mutation(
        4, "watching stops as well", "router/calls.py", 'if self.mode == "enforce" and self.decision.stopped:', "if self.decision.stopped:"
    ),
    Mutation(4, "attempts start at the bottom", "router/calls.py", 'return cast("int", self.decision.rank)', "return 0"),
    Mutation(4, "a stalled loop goes on", "guards.py", 'at the top tier", floor=TOP, stop=True)', 'at the top tier", floor=TOP)'),
    Mutation(4, "replies on the top tier don't count", "guards.py", "seen.tiers.rank_of_pin(stamp.tier) >= seen.tiers.top", "False"),
    Mutation(
        5,
        "rejected attempts are free",
        "router/attempts.py",
        "            cost=cost,\n",
        '            cost=cost if self.outcome != "rejected" else None,\n',
    ),
    Mutation(
        5,
        "abandoned attempts are lost",
        "router/attempts.py",
        "call.router.ledger.append(entry)",
        'self.outcome == "abandoned" or call.router.ledger.append(entry)',
    ),
    Mutation(
        5,
        "a stamp counts the last attempt",
        "router/calls.py",
        "sum(known) if len(known) == len(costs) else None",
        "known[-1] if known else None",
    ),
    Mutation(
        5,
        "every attempt has a baseline",
        "router/attempts.py",
        "self._cost_on(top, usage, cost, model) if final and not self.alarmed and not usage.output_unknown else None",
        "self._cost_on(top, usage, cost, model)",
    ),
    Mutation(
        5,
        "the thread is not written down",
        "router/attempts.py",
        "            thread=call.thread,\n            lineage",
        "            thread=None,\n            lineage",
    ),
    Mutation(
        5,
        "a judge is free in the stamp",
        "router/calls.py",
        "[entry.cost for entry in made]",
        "[entry.cost for entry in self.entries]",
    ),
    Mutation(
        5,
        "a judge that fails is not booked",
        "judging.py",
        "        router.ledger.append(entry)\n",
        "        error or router.ledger.append(entry)\n",
    ),
    Mutation(
        6,
        "the order of a set is hashed",
        "guards.py",
        "return sorted(map(_written, ",
        "return list(map(_written, ",
    ),
    Mutation(6, "a loss is a float", "guards.py", "factor = factor * factor // BILLION", "factor = factor * factor / BILLION"),
    Mutation(
        6,
        "a classifier's settings are not hashed",
        "policy.py",
        '"classifier": identity(self.classifier)',
        '"classifier": type(self.classifier).__name__',
    ),
    Mutation(
        6,
        "words weigh as the hash seed says",
        "linear.py",
        "        part = sum(map(whole.__getitem__, seen))",
        "        part = sum(map(whole.__getitem__, sorted(seen, key=hash)[: len(seen) // 2]))",
    ),
    Mutation(
        6,
        "pins are dated by the clock",
        "policy.py",
        "features, now = seen.features, seen.conditions.now_s",
        'features, now = seen.features, __import__("time").time_ns()',
    ),
    Mutation(
        7,
        "a failing guard is silent",
        "policy.py",
        'verdicts.append(_unsure(name, "guard_failed", f"{name}: {_told(error)}"))',
        "pass",
    ),
    Mutation(
        7,
        "a failing classifier is silent",
        "policy.py",
        "return _UNKNOWN, [*raised, _unsure(",
        "return _UNKNOWN, raised or [] and [_unsure(",
    ),
    Mutation(7, "unsure is no floor", "policy.py", "evidence=evidence, floor=TOP)", "evidence=evidence)"),
    Mutation(7, "an unread state is nothing", "policy.py", "[STATE_UNREAD] if state.unread else []", "[]"),
    Mutation(7, "NaN is a share", "policy.py", "math.isfinite(value) and 0 <= value <= 1", "not value > 1 and not value < 0"),
    Mutation(7, "low confidence is fine", "guards.py", "if seen.classification.declared or confidence >= self.limit:", "if True:"),
    Mutation(7, "a silent judge is believed", "policy.py", "carried.append(_unsure(", "carried.count(_unsure("),
    Mutation(
        8,
        "a judge takes back what guards said",
        "policy.py",
        "            trouble=carried,\n",
        "            trouble=[],\n",
    ),
    Mutation(
        8,
        "a judge names a declared class",
        "judged_classes.py",
        "return not classification.declared and classification.p_strong",
        "return classification.p_strong",
    ),
    Mutation(
        8,
        "a foreign reply hides our pins",
        "features.py",
        "                if run is None:\n",
        "                if run is None or (stamp is not None and not growing):\n",
    ),
    Mutation(8, "stamps take the place of pins", "policy.py", "held = {*held, *stamped}", "held = stamped"),
    Mutation(
        8,
        "a forced tier from outside caps",
        "policy.py",
        'seen.features.forced is not None and "routed_agents" not in self.trusted',
        "False",
    ),
    Mutation(
        8,
        "a class from outside is believed",
        "policy.py",
        'features.declared_in == "metadata" and "task_class" not in self.trusted',
        "False",
    ),
    Mutation(8, "every reported count is believed", "features.py", "if _believable(counted, messages[: position + 1]):", "if True:"),
    Mutation(8, "every declared size is believed", "features.py", "_believable(step.tokens, messages)", "True"),
    Mutation(8, "a file has no size", "sizes.py", "files.append(_file_tokens(content, kind))", "pass"),
    Mutation(8, "a document has no size", "sizes.py", "return block_length(document_text(block), files) + ", "return 1 + "),
    Mutation(8, "a document instructs", "steps.py", 'material = field_of(block, "type") in MATERIAL', "material = False"),
    Mutation(
        8,
        "the payload decides the class",
        "material.py",
        'return (own, "\\n".join(quoted)) if quoted and own.strip() else (text, "")',
        'return text, ""',
    ),
)


def run_tests(law: int, package_root: Path) -> tuple[bool, str]:
    """Whether the tests pass against a copy of the package, and the first that fails."""
    files = [str(path) for path in sorted(LAWS.glob(f"test_law_{law}_*.py"))]
    environment = {**os.environ, "PYTHONPATH": str(package_root), "ROUTED_AGENTS_LAWS": "mutations", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", *files]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    failed = re.search(r"^(?:FAILED|ERROR) \S*?(?:::(\S+))?(?: |$)", done.stdout, re.MULTILINE)
    return done.returncode == 0, (failed.group(1) or "collection") if failed else done.stdout[-300:] + done.stderr[-300:]


def attempt(mutation: Mutation) -> tuple[bool, str]:
    """Whether the law's tests noticed, and which one."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "routed_agents"
        shutil.copytree(PACKAGE, copy)
        file = copy / mutation.file
        text = file.read_text("utf-8")
        if text.count(mutation.old) != 1:
            return False, f"{mutation.file} has its old text {text.count(mutation.old)} times; wanted once"
        file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
        passed, test = run_tests(mutation.law, Path(place))
        return not passed, "SURVIVED" if passed else test


def main(laws: list[int]) -> int:
    """Print `law | mutation | killed by` and return how many mutations were not killed."""
    chosen = [mutation for mutation in MUTATIONS if not laws or mutation.law in laws]
    wanted = sorted({mutation.law for mutation in chosen})
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for law, (passed, test) in zip(wanted, pool.map(run_tests, wanted, [PACKAGE.parent] * len(wanted)), strict=True):
            if not passed:
                sys.stdout.write(f"law {law} fails without any mutation: {test}\n")
                return 1
        for mutation, (killed, by) in zip(chosen, pool.map(attempt, chosen), strict=True):
            survivors += not killed
            sys.stdout.write(f"{mutation.law} | {mutation.name:<40} | {by}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - survivors} of {len(chosen)} mutations killed\n")
    return survivors


if __name__ == "__main__":
    sys.exit(min(main([int(law) for law in sys.argv[1:]]), 1))
