"""What the environment says of the policy and its mode, for whoever is handed no router."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from routed_agents.errors import ConfigurationError
from routed_agents.policy import MODES, Policy
from routed_agents.tiers import SIMULATED

log: Final = logging.getLogger("routed_agents")
PREFIX: Final = "ROUTED_AGENTS_"
POLICY: Final = "ROUTED_AGENTS_POLICY"
MODE: Final = "ROUTED_AGENTS_MODE"
LEDGER: Final = "ROUTED_AGENTS_LEDGER"
KNOWN: Final = (POLICY, MODE, LEDGER, "ROUTED_AGENTS_SPAN_LABELS", SIMULATED)
_NAMED: Final[set[str]] = set()
"""Unknown variables that were warned of."""


def policy_in(environ: Mapping[str, str] | None = None, *, default: Callable[[], Policy] = Policy.default) -> Policy:
    """The policy that the environment names, in the mode that it names.

    Args:
        environ: where the variables are; the process's environment when not given.
        default: makes the policy where the environment names none.

    Raises:
        ConfigurationError: a variable names a mode that doesn't exist.
        PolicyError: the policy file or preset cannot be used.
    """
    env = os.environ if environ is None else environ
    _warn_of_unknown(env)
    named, mode = env.get(POLICY, ""), env.get(MODE, "")
    found = Policy.named(named) if named else default()
    if not mode:
        return found
    if mode not in MODES:
        meant = difflib.get_close_matches(mode.lower(), MODES, n=1)
        raise ConfigurationError(
            f"{MODE} is {mode!r}; known modes: {', '.join(MODES)}" + (f'. Did you mean "{meant[0]}"?' if meant else "")
        )
    return found.replace(mode=mode)


def _warn_of_unknown(env: Mapping[str, str]) -> None:
    """Name variables that only look like ours, once: a mistyped mode would go unseen, and traffic be routed that was to be watched."""
    unknown = sorted(name for name in env if name.startswith(PREFIX) and name not in KNOWN and name not in _NAMED)
    if not unknown:
        return
    _NAMED.update(unknown)
    told = [f'{name} (did you mean "{meant}"?)' if (meant := _meant(name)) else name for name in unknown]
    log.warning("the environment sets %s, which nothing reads; known: %s", ", ".join(told), ", ".join(KNOWN))


def _meant(name: str) -> str | None:
    """The variable of ours that a mistyped one most likely means."""
    known = {each.removeprefix(PREFIX): each for each in KNOWN}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
    return known[close[0]] if close else None
