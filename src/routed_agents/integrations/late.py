"""What is bound to a routed model before its tier is known: tools, or the schema of the answer, in no provider's format yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from routed_agents.guards import Conditions
from routed_agents.integrations.fitting import shows_pictures
from routed_agents.repairs import unusable
from routed_agents.router import NOTHING_SPECIAL
from routed_agents.steps import tool_name
from routed_agents.tiers import Tiers

LATE: Final = "_routed_late"
"""The bound argument that carries `bind_tools` and `with_structured_output` until the tier is known."""
AS_A_TOOL: Final = frozenset({"input_schema", "parameters", "function", "toolSpec"})
"""What tells a tool from a plain JSON Schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A call on the chat model put off until the tier is chosen, because each provider wants its own format."""

    method: str
    subject: Any
    options: Mapping[str, Any]
    tools: tuple[str, ...] = ()
    schema: Mapping[str, object] | None = None
    carried: bool = True
    """A provider's own structured output can carry the schema."""

    @property
    def served(self) -> bool:
        """Some of the tools are run by the provider, so another provider's tier cannot take the call."""
        return self.method == "bind_tools" and any(isinstance(tool, dict) and "type" in tool for tool in self.subject)

    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """The JSON Schemas of the tools' arguments, by name."""
        return schemas_of(self.subject)


class ToolNames(list[dict[str, Any]]):
    """Bound tools by name, for LangGraph, which looks whether a model has any; the tools themselves are bound late."""


def schemas_of(tools: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """The JSON Schemas of tools' arguments, by name; of tools that a provider runs there are none."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        try:
            function = convert_to_openai_tool(tool)["function"]
        except (KeyError, TypeError, ValueError):
            continue
        found[str(function["name"])] = function.get("parameters", {})
    return found


def known_schema(schema: Any, method: object) -> dict[str, Any] | None:
    """A schema in plain words; None where JSON mode is asked for without one, or with one that has no name."""
    try:
        function = convert_to_openai_tool(schema)["function"]
    except ValueError:
        if method == "json_mode":
            return None
        raise
    return {**function.get("parameters", {}), "title": function["name"]}


def subject_of(late: Late, options: Mapping[str, Any]) -> Any:
    """What is bound; a schema given as a tool becomes a plain one where a provider's own structured output takes it."""
    if options.get("method") != "json_schema" or not isinstance(cast("object", late.subject), dict):
        return late.subject
    given = cast("dict[str, Any]", late.subject)
    return convert_to_json_schema(given) if AS_A_TOOL & given.keys() else given


def reachable(tiers: Tiers, tools: Sequence[Any], *, schema: bool = False, messages: Sequence[BaseMessage] = ()) -> Conditions:
    """Which tiers can run these tools, answer in a schema and see the messages' pictures: a step whose tier cannot goes up."""
    images = any(shows_pictures(message) for message in messages if type(message.content) is list)
    if not schema and not images and not any(isinstance(tool, dict) for tool in tools):
        return NOTHING_SPECIAL
    return Conditions(unusable=unusable(tiers, tools=tools, images=images, schema=schema))


def name_of_tool(tool: Any) -> str:
    if isinstance(tool, (str, dict)):
        return tool_name(cast("object", tool))
    name = getattr(tool, "name", None)
    if isinstance(name, str):
        return name
    return str(convert_to_openai_tool(tool)["function"]["name"])


def demands_tool(choice: object) -> bool:
    kind = cast("Mapping[str, Any]", choice).get("type") if isinstance(choice, Mapping) else choice
    return kind not in ("auto", "none", None, False)
