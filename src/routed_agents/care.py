"""Care asks the health of a policy's deployments, and lets no trouble of the health's own reach a call."""

from __future__ import annotations

import logging
from typing import Final

from routed_agents.complaints import kind_and_place
from routed_agents.failures import Failure
from routed_agents.health import NOBODY, Health
from routed_agents.tiers import Tiers

log: Final = logging.getLogger("routed_agents")


class Care:
    """The health as the calls of a router see it: deployments go by the keys of its tiers, and each trouble is told once.

    Args:
        health: what is asked and told.
        tiers: whose deployments matter; what rests of other policies that share the health does not.
    """

    def __init__(self, health: Health, tiers: Tiers) -> None:
        self._health = health
        self._tiers = tiers
        self._told: set[str] = set()

    def resting(self) -> frozenset[str]:
        """The deployments to leave alone now."""
        try:
            if not (found := self._health.resting()):
                return NOBODY
        except Exception as trouble:
            self._complain(trouble)
            return NOBODY
        return frozenset([key for key in found if self._tiers.has_key(key)])

    def begin(self, key: str) -> int | None:
        """A deployment is called; gives what the others are told of this call."""
        try:
            return self._health.begin(key)
        except Exception as trouble:
            self._complain(trouble)
            return None

    def answered(self, key: str, begun: int | None) -> None:
        """A deployment answered."""
        try:
            self._health.answered(key, begun=begun)
        except Exception as trouble:
            self._complain(trouble)

    def failed(self, key: str, failure: Failure, begun: int | None) -> bool:
        """A deployment failed; true when it rests from now on."""
        try:
            return self._health.failed(key, failure, begun=begun)
        except Exception as trouble:
            self._complain(trouble)
            return False

    def _complain(self, trouble: Exception) -> None:
        what = kind_and_place(trouble)
        if what not in self._told:
            self._told.add(what)
            log.error("health cannot tell who rests (%s); deployments in trouble are called all the same", what)
