"""The errors a user can meet: one root, few leaves, each also the built-in a reader expects."""

from __future__ import annotations


class RoutedAgentsError(Exception):
    """Catches everything routed-agents raises of its own accord; a provider's exceptions pass through untouched."""


class PolicyError(RoutedAgentsError, ValueError):
    """A policy, tier or taxonomy file says something that cannot be meant."""


class StepError(RoutedAgentsError, ValueError):
    """A step record or message list cannot be read."""


class PriceNotFound(RoutedAgentsError, LookupError):
    """No price is known for a model; the call itself still goes through and is recorded as unpriced."""


class StateError(RoutedAgentsError, KeyError):
    """A graph's state has no place for routing state, or what is there cannot be read."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class LedgerError(RoutedAgentsError, OSError):
    """A ledger file cannot be opened or read."""


class ConfigurationError(RoutedAgentsError, ValueError):
    """An argument, environment variable or missing extra has to be put right before anything can run."""


class ExtraMissing(ConfigurationError, ImportError):
    """A part of the library needs a package that comes with an extra which is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)

    def __str__(self) -> str:
        what, extra = self.args
        return f"{what}; add the extra {extra}: pip install '.[{extra}]' in a checkout of routed-agents"


class StepStopped(RoutedAgentsError, RuntimeError):
    """A step must not be made: no tier that may answer it is left, or a rule says stop. No token was spent by stopping.

    Attributes:
        decision: what was decided, with the reason codes.
        attempts: what was tried before, as one line each.
    """

    def __init__(self, message: str, *, decision: object = None, attempts: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.decision = decision
        self.attempts = attempts
