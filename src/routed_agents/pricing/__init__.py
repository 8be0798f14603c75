"""What the tokens of a call cost, to the last digit, or that nobody knows."""

from __future__ import annotations

from routed_agents.pricing.cards import RateCard
from routed_agents.pricing.cost import Cost, rounded, usd_of
from routed_agents.pricing.names import bare_name, provider_of, seller_of
from routed_agents.pricing.prices import Prices
from routed_agents.pricing.quotes import PriceSource
from routed_agents.pricing.replies import usage_of
from routed_agents.pricing.served import response_id_of, served_model_of
from routed_agents.pricing.usage import Usage

__all__ = [
    "Cost",
    "PriceSource",
    "Prices",
    "RateCard",
    "Usage",
    "bare_name",
    "provider_of",
    "response_id_of",
    "rounded",
    "seller_of",
    "served_model_of",
    "usage_of",
    "usd_of",
]
