"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routed_agents.policy import Policy

STANCES = ("frugal", "balanced", "conservative")


def add_output(parser: argparse.ArgumentParser, *, json: str = "print JSON") -> None:
    """`--json`, and the hidden `--traceback`."""
    parser.add_argument("--json", action="store_true", help=json)
    parser.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)


def add_policy(parser: argparse.ArgumentParser, *, tiers: str = "claude") -> None:
    """`--policy`, `--tiers` and `--stance`."""
    parser.add_argument("--policy", metavar="FILE", help="policy file; the default policy when not given")
    parser.add_argument("--tiers", metavar="PRESET", help=f"preset of tiers, in place of the policy's own (without a policy: {tiers})")
    parser.add_argument("--stance", choices=STANCES, help="in place of the policy's own")


def policy_of(args: argparse.Namespace, *, tiers: str = "claude") -> Policy:
    """The policy these arguments ask for.

    Raises:
        PolicyError: the file or the preset cannot be used.
    """
    from routed_agents.policy import Policy
    from routed_agents.tiers import Tiers

    policy = Policy.load(args.policy) if args.policy else Policy.default(tiers=args.tiers or tiers)
    changes: dict[str, Any] = {}
    if args.policy and args.tiers:
        changes["tiers"] = Tiers.preset_named(args.tiers)
    if args.stance:
        changes["stance"] = args.stance
    return policy.replace(**changes) if changes else policy


def number(least: int) -> Any:
    """An argument type: a whole number from `least` up."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} up")
        return value

    return read
