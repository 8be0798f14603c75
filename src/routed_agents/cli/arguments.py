"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routed_agents.policy import Policy

STANCES = ("frugal", "balanced", "conservative")


def add_output(parser: argparse.ArgumentParser, *, json: str = "print JSON") -> None:
    """`--json` and `--traceback`."""
    parser.add_argument("--json", action="store_true", help=json)
    add_traceback(parser)


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """`--traceback`."""
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")


def add_policy(parser: argparse.ArgumentParser, *, tiers: str = "claude") -> None:
    """`--policy`, `--tiers` and `--stance`."""
    parser.add_argument("--policy", metavar="FILE", help="policy file; ROUTED_AGENTS_POLICY or the default policy when not given")
    parser.add_argument("--tiers", metavar="PRESET", help=f"preset of tiers, in place of the policy's own (without a policy: {tiers})")
    parser.add_argument("--stance", choices=STANCES, help="in place of the policy's own")


def policy_of(args: argparse.Namespace, *, tiers: str = "claude") -> Policy:
    """The policy these arguments ask for; without any, the one that the environment names.

    Raises:
        ConfigurationError: the environment names a mode that doesn't exist.
        PolicyError: the file or the preset cannot be used.
    """
    from routed_agents.environment import policy_in
    from routed_agents.policy import Policy
    from routed_agents.tiers import Tiers

    if args.policy:
        policy = Policy.load(args.policy)
    elif args.tiers:
        policy = Policy.default(tiers=args.tiers)
    else:
        policy = policy_in(default=lambda: Policy.default(tiers=tiers))
    changes: dict[str, Any] = {}
    if args.policy and args.tiers:
        changes["tiers"] = Tiers.preset_named(args.tiers)
    if args.stance:
        changes["stance"] = args.stance
    return policy.replace(**changes) if changes else policy


def policy_file(args: argparse.Namespace) -> str | None:
    """The file that `policy_of` reads; None where it is a preset."""
    from routed_agents.environment import POLICY

    named: str | None = args.policy or (None if args.tiers else os.environ.get(POLICY))
    return named if named and os.path.isfile(named) else None


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
