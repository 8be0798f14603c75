"""Builds the chat models behind tiers, from strings, when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from routed_agents.errors import ExtraMissing, PolicyError
from routed_agents.policy import Policy
from routed_agents.repairs import repaired
from routed_agents.tiers import Deployment, Tiers, card, is_simulated_url, provider_meant, same_model

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

EXTRAS: Final = {"anthropic": ("claude", "langchain_anthropic", "ChatAnthropic"), "openai": ("gpt", "langchain_openai", "ChatOpenAI")}
INFERRED: Final = (
    "gpt-", "o1", "o3", "chatgpt", "text-davinci", "claude", "command", "accounts/fireworks", "gemini", "amazon.", "anthropic.", "meta.",
    "mistral", "mixtral", "deepseek", "grok", "sonar", "solar",
)  # fmt: skip
"""How models' names begin whose provider `init_chat_model` infers, be there a colon in them or not."""
QUIET: Final = "routed_agents_sdk_span_off"
"""Metadata of a model whose SDK makes no span, so that an observer knows whose span is counted."""


class Models:
    """The chat models of a policy's deployments, given or built once each.

    Args:
        policy: names the tiers and their deployments.
        given: chat models or strings by tier; each stands in for the first of that tier's deployments. A tier left out keeps its own, so
            the top tier is never lost by naming only a cheap one.
        options: constructor options for models built from strings, repaired for each.
        handed_on: settings of every chat model (`cache`, `rate_limiter`, …) for the models that have none of their own.
        sdk_spans: leave the anthropic SDK's own spans on, for a router whose leaf spans carry no tokens.
    """

    def __init__(
        self,
        policy: Policy,
        given: Mapping[str, Any],
        options: Mapping[str, Any],
        handed_on: Mapping[str, Any] | None = None,
        *,
        sdk_spans: bool = False,
    ) -> None:
        self._options = dict(options)
        self._handed_on = dict(handed_on or {})
        self._sdk_spans = sdk_spans
        self._given: dict[str, BaseChatModel] = {}
        self._built: dict[str, BaseChatModel] = {}
        self._lock = threading.Lock()
        roles: dict[str, tuple[Deployment, ...]] = {}
        for tier in policy.tiers:
            if tier.name not in given:
                roles[tier.name] = tier.deployments
                continue
            model, first = given[tier.name], tier.deployments[0]
            deployment = first if isinstance(model, str) and first.name == model else deployment_of(model, tier.name)
            others = tier.deployments[1:] if same_model(deployment.price_key, first.price_key) else ()
            roles[tier.name] = (deployment, *others)
            if not isinstance(model, str):
                self._given[deployment.name] = model
        self.policy = policy.replace(tiers=Tiers.of(roles, preset=policy.tiers.preset)) if given else policy

    def __deepcopy__(self, memo: object) -> Models:
        return self  # clients hold connections and locks, which copies share

    def get(self, deployment: Deployment) -> BaseChatModel:
        """The chat model of a deployment.

        Raises:
            ExtraMissing: the package that talks to its provider is missing.
        """
        found = self._built.get(deployment.name)
        if found is None:
            with self._lock:
                found = self._built.get(deployment.name)
                if found is None:
                    given = self._given.get(deployment.name)
                    found = self._with_settings(self._build(deployment) if given is None else given)
                    self._built[deployment.name] = found = found if self._sdk_spans else without_sdk_span(found)
        return found

    def ready(self, deployment: Deployment) -> BaseChatModel | None:
        """The deployment's chat model, if it exists already."""
        return self._built.get(deployment.name)

    def _with_settings(self, model: Any) -> Any:
        lacking = {
            name: value
            for name, value in self._handed_on.items()
            if getattr(model, name, None) is (False if name == "disable_streaming" else None)
        }
        if getattr(model, "stream_usage", False) is None:
            lacking["stream_usage"] = True  # else a ChatOpenAI at an address of one's own reports no usage of whatever it streams
        return model.model_copy(update=lacking) if lacking else model

    def profile(self) -> dict[str, Any] | None:
        """What every tier's model can do: of limits the smallest, of abilities those all have, of lists what is common to all.

        None when a model says nothing about itself. Builds the models.
        """
        found = [self.get(each).profile for tier in self.policy.tiers for each in tier.deployments]
        known = [dict(profile) for profile in found if profile]
        return common(known) if len(known) == len(found) else None

    def _build(self, deployment: Deployment) -> BaseChatModel:
        options, _ = repaired(self._options, card(deployment.price_key))
        if deployment.provider in EXTRAS:
            extra, package, name = EXTRAS[deployment.provider]
            try:
                module = __import__(package)
            except ImportError:
                raise ExtraMissing(f'tier model "{deployment.name}" needs {package}, which is not installed', extra) from None
            return getattr(module, name)(model=deployment.model, **options)
        try:
            from langchain.chat_models import init_chat_model
        except ImportError:
            wanted = f'tier model "{deployment.name}" needs langchain to be built from a string; pass a chat model'
            raise ExtraMissing(wanted, "agents") from None
        return cast("BaseChatModel", init_chat_model(deployment.name, **options))


def common(profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The intersection of model profiles; a key that one of them lacks, or that tells them apart, is left out."""
    first, *others = profiles
    shared = {key: _least([first[key], *[each[key] for each in others]]) for key in first if all(key in each for each in others)}
    return {key: value for key, value in shared.items() if value is not None}


def _least(values: Sequence[Any]) -> Any:
    first = values[0]
    if all(isinstance(value, bool) for value in values):
        return all(values)
    if all(isinstance(value, (int, float)) for value in values):
        return min(values)
    if all(isinstance(value, (list, tuple)) for value in values):
        return [each for each in first if all(each in value for value in values)]
    if all(isinstance(value, Mapping) for value in values):
        return common(values)
    return first if all(value == first for value in values) else None


def is_simulated(model: object) -> bool:
    """Whether a chat model talks to an embedded provider."""
    urls = [getattr(model, name, None) for name in ("anthropic_api_url", "openai_api_base")]
    return any(isinstance(url, str) and is_simulated_url(url) for url in urls)


def policy_for(given: Mapping[str, Any]) -> Policy:
    """The default policy over models given by role; with none given, over today's Claude pair.

    Raises:
        PolicyError: roles are given, but not both ends.
    """
    if not given:
        return Policy.default()
    if len(given) == 1:
        only = next(iter(given))
        wanted = 'cheap="anthropic:claude-haiku-5-5" and strong="anthropic:claude-opus-5-5"'
        raise PolicyError(f'only tier "{only}" is given; wanted at least two, like {wanted}')
    order = {role: place for place, role in enumerate(("cheap", "mid", "strong"))}
    roles = sorted(given, key=lambda role: order.get(role, 1)) if set(given) <= set(order) else list(given)
    return Policy.default(tiers=Tiers.of({role: deployment_of(given[role], role) for role in roles}))


def deployment_of(model: object, tier: str) -> Deployment:
    """The deployment a chat model or a string stands for.

    Raises:
        PolicyError: it names no model, or a provider that is mistyped.
    """
    if isinstance(model, str) and model.strip():
        if not model.lower().startswith(INFERRED) and (meant := provider_meant(model)):
            unknown = f'unknown provider "{model.partition(":")[0]}" of model "{model}", tier "{tier}"'
            raise PolicyError(f'{unknown}. Did you mean "{meant}"?')
        return Deployment.parse(model)
    name = next((value for key in ("model", "model_name", "model_id") if isinstance(value := getattr(model, key, None), str) and value), "")
    if not name:
        wanted = 'a chat model that names its model, or a string like "anthropic:claude-opus-5-5"'
        seen = "an empty string" if isinstance(model, str) else type(model).__name__
        raise PolicyError(f'tier "{tier}" was given {seen}; wanted {wanted}')
    provider = getattr(model, "_get_ls_params", dict[str, Any])().get("ls_provider")
    return Deployment(model=name, provider=provider or card(name).provider, name=f"{tier}:{name}")


def without_sdk_span(model: Any) -> Any:
    """The model, or a copy of it, with the anthropic SDK's own span off: it repeats our leaf's tokens, so cost would count twice."""
    if not any(kind.__name__ == "ChatAnthropic" for kind in type(model).__mro__):
        return model
    quiet = model.model_copy(
        update={"metadata": {**(model.metadata or {}), QUIET: True}}
    )  # the caller may use the model elsewhere, where nobody else makes a span for it
    for name in ("_client", "_async_client"):
        client = getattr(quiet, name, None)
        if client is not None and hasattr(client, "with_options"):
            try:
                setattr(quiet, name, client.with_options(open_telemetry=False))
            except TypeError:  # an SDK without that option has no such span
                return model
    return quiet
