"""Where an SDK's call is made: in a node of a graph, as the context that the node runs in tells, or in none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from routed_agents.integrations.labels import labels_at
from routed_agents.integrations.position import Position, position_of
from routed_agents.integrations.sdk_requests import About
from routed_agents.state import EMPTY, UNREAD
from routed_agents.steps import Said, said_of

CONFIG: Final = "langchain_core.runnables.config"
"""Where LangChain keeps what a node is called with; a program that hasn't loaded it runs no graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a call is made, and what is said about it there.

    Attributes:
        about: what its caller says, and the node where the caller doesn't.
        position: its place in a graph; None outside of nodes.
        config: what the node is called with.
    """

    about: About
    position: Position | None = None
    config: Mapping[str, Any]

    def labels(self, allowed: Iterable[str]) -> Mapping[str, str] | None:
        """The labels of the call, the caller's over the run's; floors see what each of them says."""
        given = self.about.labels
        if self.position is None:
            return given or None
        run = labels_at(self.position, self.config, allowed)
        if not given or not run:
            return run or given or None
        of = {name: (*said_of(run, name), *said_of(given, name)) for name in {*run, *given}}
        return cast("Mapping[str, str]", Said({**run, **given}, of))


def place_of(about: About) -> Place:
    """The place of a call that is made here and now.

    Args:
        about: what its caller says; a thread other than the run's is another conversation, whose pins and facts the graph doesn't hold.
    """
    module = sys.modules.get(CONFIG)
    config = cast("Mapping[str, Any]", (module.var_child_runnable_config.get() if module is not None else None) or {})
    metadata = cast("Mapping[str, Any]", config.get("metadata") or {})
    if "langgraph_node" not in metadata:
        return Place(about=about, config=config)
    position = position_of(config)
    if about.thread is not None and about.thread != position.thread:
        of_another = position.thread is not None
        position = replace(position, thread=about.thread)
        if of_another:
            position = replace(position, state=None, around=UNREAD if position.hidden else EMPTY, left=None, checkpointer=None)
    return Place(
        about=replace(
            about,
            thread=position.thread,
            node=about.node or position.node,
            run=about.run or position.run,
            downstream=about.downstream if about.downstream is not None else position.downstream,
            metadata={**metadata, **about.metadata},
        ),
        position=position,
        config=config,
    )
