"""Asks a judge's model: through the providers' own SDKs, or through chat models."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any, Final, cast

from routed_agents.errors import ConfigurationError
from routed_agents.forking import renew_in_children
from routed_agents.integrations.models import is_simulated
from routed_agents.questions import Question
from routed_agents.tiers import Deployment, card, is_simulated_url

THOUGHTS: Final = 2_000
"""Output tokens added for models that think before they answer."""
NAMES: Final = {"anthropic": "Anthropic", "openai": "OpenAI"}
"""The SDKs and their clients."""
LEAST_EFFORTS: Final = ("none", "minimal", "low")


class SdkAsker:
    """Asks through the `anthropic` and `openai` SDKs, each client built when it is first needed, and anew in a forked child.

    Args:
        anthropic: an `anthropic.Anthropic` client, which a forked child keeps; one that goes by the environment when not given.
        openai: an `openai.OpenAI` client, likewise.
        sdk_spans: leave the anthropic SDK's own spans on, for a router whose leaf spans carry no tokens.
    """

    def __init__(self, *, anthropic: Any = None, openai: Any = None, sdk_spans: bool = False) -> None:
        self._sdk_spans = sdk_spans
        self._given = {"anthropic": anthropic, "openai": openai}
        self._built: list[Any] = []
        self.renew()
        renew_in_children(self)
        # a client and its resources hold each other, so its connections would be left to the collector, which complains of them
        weakref.finalize(self, _close, self._built).atexit = False

    def renew(self) -> None:
        """Begin afresh, in a forked child: two processes that read from one connection get each other's answers."""
        _FORKED.extend(self._built)
        self._built.clear()
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def ask(self, question: Question, deployment: Deployment, /, *, timeout_s: float) -> object:
        """Post the question once, without the SDK's own retries."""
        self.prepare(deployment)
        client = self._client(str(deployment.provider)).with_options(timeout=timeout_s, max_retries=0)
        if deployment.provider == "anthropic":
            return client.messages.create(**anthropic_request(question, deployment.model))
        return client.chat.completions.create(**openai_request(question, deployment.model))

    def prepare(self, deployment: Deployment, /) -> None:
        """Import the SDK and build the client, so that no question waits for it.

        Raises:
            ConfigurationError: the provider is neither; give the judge a chat model with `ModelAsker`.
        """
        if deployment.provider not in NAMES:
            wanted = "ask it through a chat model: Router(policy, asker=ModelAsker({name: model}))"
            raise ConfigurationError(f'judge "{deployment.name}" is of provider {deployment.provider!r}, which has no SDK here; {wanted}')
        self._client(deployment.provider)

    def simulated(self, deployment: Deployment, /) -> bool:
        """Whether the client talks to an embedded provider."""
        client = self._clients.get(str(deployment.provider))
        return client is not None and is_simulated_url(str(client.base_url))

    def _client(self, family: str) -> Any:
        with self._lock:
            found = self._clients.get(family)
            if found is None:
                found = self._given[family]
                if found is None:
                    found = getattr(__import__(family), NAMES[family])()
                    self._built.append(found)
                if family == "anthropic" and not self._sdk_spans:
                    found = found.with_options(open_telemetry=False)  # its span would repeat our leaf's tokens
                self._clients[family] = found
        return found


_FORKED: Final[list[Any]] = []
"""Clients that a child has of its parent; to close one would end its connections for the parent as well."""


def _close(clients: list[Any]) -> None:
    for client in clients:
        client.close()


class ModelAsker:
    """Asks through chat models, for providers without an SDK here: Bedrock, Vertex, a gateway.

    Args:
        models: chat models by the judge's name in the policy, like `{"bedrock:claude-haiku-5-5": ChatBedrockConverse(…)}`.
    """

    made_by: Final = "langchain"

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._models = dict(models)

    def prepare(self, deployment: Deployment, /) -> None:
        """Look whether there is a model for a judge.

        Raises:
            ConfigurationError: there is none.
        """
        if deployment.name not in self._models:
            known = ", ".join(self._models) or "none"
            raise ConfigurationError(f'no chat model is given for judge "{deployment.name}"; known: {known}; name it in ModelAsker')

    def simulated(self, deployment: Deployment, /) -> bool:
        """Whether the model talks to an embedded provider."""
        return is_simulated(self._models.get(deployment.name))

    def ask(self, question: Question, deployment: Deployment, /, *, timeout_s: float) -> object:
        """Have the model answer in the question's schema; how long it waits is its own setting."""
        del timeout_s
        self.prepare(deployment)
        model = self._models[deployment.name]
        from routed_agents.integrations.observer import MARK

        schema = {"title": question.name, "description": "Give the answer.", **question.schema}
        # neither the caller's trace nor its stream may see this call: it is no part of the conversation
        quiet: dict[str, Any] = {"callbacks": [], "tags": ["nostream"], "metadata": {MARK: "judge"}}
        answered = model.with_structured_output(schema, include_raw=True).invoke(
            [("system", question.system), ("human", question.text)], quiet
        )
        return cast("Mapping[str, object]", answered)["raw"]


def anthropic_request(question: Question, model: str) -> dict[str, Any]:
    """The question in Anthropic's words: a tool that has to be called, or a schema where the model takes no forced tool."""
    limits = card(model)
    request: dict[str, Any] = {
        "model": model,
        "system": question.system,
        "messages": [{"role": "user", "content": question.text}],
        "max_tokens": question.max_tokens + (THOUGHTS if limits.thinking == "always" else 0),
    }
    if limits.forced_tool_choice:
        request["tools"] = [{"name": question.name, "description": "Give the answer.", "input_schema": question.schema}]
        request["tool_choice"] = {"type": "tool", "name": question.name}
    else:
        request["output_config"] = {"format": {"type": "json_schema", "schema": question.schema}}
    return request


def openai_request(question: Question, model: str) -> dict[str, Any]:
    """The question in OpenAI's words: an answer that has to fit the schema."""
    limits = card(model)
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": question.text}],
        "max_completion_tokens": question.max_tokens + (THOUGHTS if limits.reasoning else 0),
        "response_format": {"type": "json_schema", "json_schema": {"name": question.name, "schema": question.schema, "strict": True}},
    }
    effort = next((each for each in LEAST_EFFORTS if each in (limits.efforts or ())), None)
    if effort is not None:
        request["reasoning_effort"] = effort
    return request
