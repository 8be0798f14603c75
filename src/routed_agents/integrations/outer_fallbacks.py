"""Steps that failed, which a middleware around the routed one may ask for again with another model."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables.config import ensure_config
from langgraph.errors import GraphBubbleUp

from routed_agents.complaints import complain
from routed_agents.integrations.models import deployment_of
from routed_agents.router import RoutedCall, Router
from routed_agents.tiers import Deployment, same_model

FAILURES_KEPT: Final = 256
"""Failed steps that are remembered; one is forgotten when its node's task is over, which nobody tells."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """A step that failed, below which rank it must not go, and the router and the top model it was made with."""

    error: Exception
    step: str
    obligation: int
    router: Router
    model: Deployment


class OuterFallbacks:
    """Has a step that failed asked again of another model only where that may answer it; else its error surfaces.

    Args:
        fixed: the router was given, so that its top tier is not whatever model comes along.
    """

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self._failed: OrderedDict[str, _Failed] = OrderedDict()

    def note(self, error: Exception, model: Any, call: RoutedCall, router: Router) -> None:
        """Remember that a step failed with this error."""
        if (task := _task()) and not isinstance(error, GraphBubbleUp):
            obligation = call.decision.settlement.obligation if call.mode == "enforce" else 0
            self._failed[task] = _Failed(error, call.step.id, obligation, router, deployment_of(model, "strong"))
            if len(self._failed) > FAILURES_KEPT:
                self._failed.popitem(last=False)

    def check(self, model: Any) -> None:
        """Look whether a model stands in for another after the step had failed.

        Raises:
            Exception: the step's own error, where the model is lower than the step may go, or none of the given router's top tier.
        """
        if not self._failed or (failed := self._failed.get(_task())) is None:
            return
        other = deployment_of(model, "strong")
        if same_model(other.model, failed.model.model) or not (self._is_foreign(other, failed) or _is_lower(other, failed)):
            return
        failed.error.add_note(
            f'routed-agents: "{other.model}" may not stand in for "{failed.model.model}" in step {failed.step}; '
            "list a middleware that falls back behind RouterMiddleware"
        )
        raise failed.error

    def _is_foreign(self, model: Deployment, failed: _Failed) -> bool:
        tiers = failed.router.policy.tiers
        return self._fixed and not any(same_model(each.model, model.model) for each in tiers[tiers.top].deployments)


def _is_lower(model: Deployment, failed: _Failed) -> bool:
    """Whether a model is lower than a step may go; of a model of no tier its price tells."""
    router = failed.router
    if not failed.obligation:
        return False
    if (rank := router.policy.tiers.rank_of_model(model.model)) is not None:
        return rank < failed.obligation
    try:
        theirs, own = (router.prices.sold(each) or router.prices.card(each.price_key) for each in (model, failed.model))
    except Exception as trouble:
        complain(f'the price of "{model.model}" cannot be read; nobody knows whether it is a lower model', trouble)
        return False
    return theirs is not None and own is not None and theirs.prompt_rate < own.prompt_rate


def _task() -> str:
    """The node's task that runs here; empty outside of a graph."""
    return str((ensure_config().get("metadata") or {}).get("langgraph_checkpoint_ns") or "")
