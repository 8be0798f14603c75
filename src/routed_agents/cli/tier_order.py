"""Whether a policy's tiers stand in their order, cheap to strong."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from routed_agents.pricing import Prices

if TYPE_CHECKING:
    from routed_agents.policy import Policy


def swapped(policy: Policy) -> list[str]:
    """One line for each tier that is dearer than the one above it."""
    return [
        f'tier "{below.name}" ({below.model}) is dearer than tier "{above.name}" ({above.model}): are they swapped?'
        for below, above in Prices().swapped(policy.tiers)
    ]


def alike(policy: Policy) -> list[str]:
    """One line for each tier whose model is the one of the tier above it, so that going there changes nothing."""
    return [
        f'tiers "{below.name}" and "{above.name}" are the same model ({below.model}): nothing can be saved or gained between them'
        for below, above in pairwise(policy.tiers)
        if below.deployments == above.deployments
    ]
