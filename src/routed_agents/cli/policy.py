"""`policy`: check a policy file, show a policy, print the schema, test a policy against cases."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routed_agents.cli import FOUND, MISUSED, OK, say
from routed_agents.cli.arguments import add_output, add_policy, policy_of
from routed_agents.cli.records import EXAMPLE, RECORDS
from routed_agents.errors import ConfigurationError
from routed_agents.printable import one_line

if TYPE_CHECKING:
    from routed_agents.guards import PolicyFloor
    from routed_agents.policy import Policy
    from routed_agents.tiers import Deployment

CASE: Final = f'{EXAMPLE[:-1]}, "expect": "cheap", "kind": "routine"}}'


def add(parser: argparse.ArgumentParser) -> None:
    from routed_agents.cli import Parser

    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    checked = verbs.add_parser("check", help="is the file in order?", description="Says what is wrong with a policy file, if anything is.")
    checked.add_argument("file", metavar="FILE")
    shown = verbs.add_parser("show", help="what a policy says", description="Shows a policy with all its defaults.")
    shown.add_argument("file", metavar="FILE", nargs="?", help="policy file; ROUTED_AGENTS_POLICY or the default policy when not given")
    shown.add_argument("--toml", action="store_true", help="as a policy file")
    schema = verbs.add_parser("schema", help="JSON Schema of policy files", description="Prints the JSON Schema of policy files.")
    tested = verbs.add_parser("test", help="does it decide these cases as it must?", description="Decides cases whose right tier is known.")
    tested.epilog = f'A case is a step record with "expect" and, if you like, "kind": {CASE}. {RECORDS}'
    tested.add_argument("cases", metavar="CASES", help='step records with "expect" ("cheap" or "strong") and, if you like, "kind"')
    tested.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="CLAIM",
        help='like "distress recall >= 0.99 @95%%": the exact lower bound counts; without @ the observed share does; may be repeated',
    )
    for verb, act in ((checked, check), (shown, show), (schema, print_schema), (tested, test)):
        if verb in (shown, tested):
            add_policy(verb)
        add_output(verb)
        verb.set_defaults(act=act)


def check(args: argparse.Namespace) -> int:
    from routed_agents.cli.tier_order import alike, swapped
    from routed_agents.config import read_with_doubts
    from routed_agents.errors import PolicyError
    from routed_agents.policy import Policy

    try:
        arguments, doubts = read_with_doubts(args.file)
        policy = Policy(**arguments)
    except PolicyError as error:
        if args.json:
            print(json.dumps({"ok": False, "file": args.file, "error": str(error)}))
        else:
            say(str(error))
        place = Path(args.file)
        return FOUND if place.exists() and not place.is_dir() else MISUSED
    unpriced, order = _unpriced(policy), [*swapped(policy), *alike(policy)]
    if args.json:
        found = {"unpriced": unpriced, "order": order, "doubts": doubts}
        print(json.dumps({"ok": True, "file": args.file, "policy_hash": policy.hash, **found}))
        return OK
    tiers = one_line(", ".join(policy.tiers.names))
    print(f"{args.file} is in order: {policy.stance}, {policy.mode}, tiers {tiers}; policy {policy.hash}")
    for line in [*doubts, *order]:
        say(line)
    for model in unpriced:
        say(f'no price is known for "{model}": its calls will be recorded as unpriced; give one in a price file, or name priced_as')
    return OK


def _unpriced(policy: Policy) -> list[str]:
    from routed_agents.pricing import Prices

    return sorted(Prices().prepare([each for tier in policy.tiers for each in tier.deployments]))


def show(args: argparse.Namespace) -> int:
    from routed_agents.config import policy_to_toml

    if args.file and args.policy:
        raise ConfigurationError(f"policy show has {args.file} and --policy {args.policy}; name one of them")
    args.policy = args.policy or args.file
    policy = policy_of(args)
    if args.toml:
        print(policy_to_toml(policy), end="")
    elif args.json:
        print(json.dumps(_document(policy)))
    else:
        print("\n".join(map(one_line, _lines(policy))))
    return OK


def _document(policy: Policy) -> dict[str, Any]:
    from routed_agents.guards import identity

    return {
        "policy_hash": policy.hash,
        "stance": policy.stance,
        "mode": policy.mode,
        "on_stop": policy.on_stop,
        "preset": policy.tiers.preset,
        "tiers": {tier.name: [each.model for each in tier.deployments] for tier in policy.tiers},
        "classes": {row.key: {"disposition": row.disposition, "threshold": _threshold(policy, row.key)} for row in policy.taxonomy},
        "floors": [identity(floor) for floor in policy.floors],
        "expiry": dict(policy.expiry),
        "guards": sorted(identity(guard) for guard in policy.guards),
        "checks": sorted(identity(rule) for rule in policy.checks),
        "labels": list(policy.labels),
        "trusted": list(policy.trusted),
        "capture_evidence": policy.capture_evidence,
    }


def _threshold(policy: Policy, key: str) -> float | None:
    row = policy.taxonomy.row(key)
    return policy.threshold(row) if row.disposition != "escalate" else None


def _lines(policy: Policy) -> list[str]:
    from routed_agents.guards import identity

    lines = [f"policy {policy.hash}, {policy.stance}, {policy.mode}; a stopped step: {policy.on_stop}", "", "tiers, cheap to strong"]
    lines += [f"  {tier.name:10} {'; then '.join(_shown(each) for each in tier.deployments)}" for tier in policy.tiers]
    lines += ["", "task classes"]
    top = policy.tiers[policy.tiers.top].name
    for row in policy.taxonomy:
        threshold = _threshold(policy, row.key)
        rule = f"always {top}" if threshold is None else f"{top} from p_strong {threshold:g}"
        if threshold and policy.tiers.top > 1 and row.disposition != "route":
            rule += f", {policy.tiers[1].name} from {threshold / 2:.4g}"
        own = " (own threshold)" if row.key in policy.thresholds else ""
        lines.append(f"  {row.number:2} {row.key:20} {row.disposition:15} {rule}{own}")
    lines += ["", "floors", *[f"  {_floor(floor)}" for floor in policy.floors]] if policy.floors else []
    for title, rules in (("guards", policy.guards), ("checks", policy.checks)):
        lines += ["", title, *[f"  {identity(rule)}" for rule in rules]] if rules else []
    lapsing = [f"  {name:20} lapses after {turns} more turn{'' if turns == 1 else 's'}" for name, turns in policy.expiry.items()]
    lines += ["", "facts and pins that lapse", *lapsing] if lapsing else []
    lines += ["", f"labels {', '.join(policy.labels) or 'none'}; trusted to lower a tier: {', '.join(policy.trusted) or 'nothing'}"]
    return lines


def _floor(floor: PolicyFloor) -> str:
    asked = {"node": floor.node, "task_class": floor.task_class, **dict(floor.metadata)}
    where = " and ".join([f"{name} = {json.dumps(value)}" for name, value in asked.items() if value is not None])
    pinned = f", pinned for the {floor.pin}" if floor.pin is not None else ""
    return f"{floor.tier:10} {f'where {where}' if where else 'for every step'}; code {floor.code}{pinned}"


def _shown(deployment: Deployment) -> str:
    served = f"{deployment.model} ({deployment.provider})" if deployment.provider else deployment.model
    return served + (", simulated" if deployment.simulated else "")


def print_schema(args: argparse.Namespace) -> int:
    from routed_agents.config import policy_schema

    print(json.dumps(policy_schema(), indent=None if args.json else 2))
    return OK


def test(args: argparse.Namespace) -> int:
    from routed_agents.cli.cases import test_policy

    return test_policy(args)
