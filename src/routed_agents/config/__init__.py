"""Policy files: reading one, writing one, and the schema of both."""

from __future__ import annotations

from routed_agents.config.reading import policy_doubts, read_policy, read_with_doubts
from routed_agents.config.sections import policy_schema
from routed_agents.config.writing import policy_to_toml

__all__ = ["policy_doubts", "policy_schema", "policy_to_toml", "read_policy", "read_with_doubts"]
