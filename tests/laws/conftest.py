"""How hard the laws are tried: at least a thousand examples each, the same ones every time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "laws",
    max_examples=1_000,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining failures traces every line, which takes most of the time
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("mutations", parent=settings.get_profile("laws"), max_examples=200)
settings.load_profile(os.environ.get("ROUTED_AGENTS_LAWS", "laws"))
