"""Which models come to their end, as the installed packages know it; no network is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, cast

from routed_agents.pricing import provider_of
from routed_agents.steps import field_of

if TYPE_CHECKING:
    from routed_agents.tiers import Deployment

MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
WRITTEN: Final = re.compile(rf"({'|'.join(MONTHS)}) (\d{{1,2}})(?:st|nd|rd|th)?, (\d{{4}})")
"""How the anthropic SDK writes a date: "November 30th, 2026"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known of a model's end.

    Attributes:
        on: the day from which it no longer answers; None where it is only called deprecated.
        source: who says so.
    """

    on: date | None
    source: str


def ending_of(deployment: Deployment) -> Ending | None:
    """The end of a deployment's model; None for a model nobody here calls deprecated.

    Dates are from the anthropic SDK's own table. LangChain's profiles and genai-prices say deprecated without a date.
    """
    provider, model = provider_of(deployment.model, deployment.provider)
    if provider in ("anthropic", None) and model in (table := _table("anthropic.resources.messages.messages", "DEPRECATED_MODELS")):
        return Ending(on=_day(str(table[model])), source=f"anthropic {version('anthropic')}")
    profile = _table("langchain_openai.data._profiles", "_PROFILES").get(model) if provider in ("openai", None) else None
    if field_of(profile, "status") == "deprecated":
        return Ending(on=None, source=f"langchain-openai {version('langchain-openai')}")
    return Ending(on=None, source=f"genai-prices {version('genai-prices')}") if _flagged(model, provider) else None


def _table(module: str, name: str) -> Mapping[str, object]:
    """A table inside an installed package; empty where the package or the table is missing."""
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return {}
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {}


def _flagged(model: str, provider: str | None) -> bool:
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model.lower(), None, provider, None)
    except LookupError:
        return False
    return found.deprecated is True and found.id.lower() == model.lower()  # a looser match may be a relative


def _day(text: str) -> date | None:
    found = WRITTEN.fullmatch(text.strip())
    return date(int(found[3]), MONTHS.index(found[1]) + 1, int(found[2])) if found else None
