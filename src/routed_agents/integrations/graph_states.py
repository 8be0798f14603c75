"""Pins and facts that a running graph's `routing` key holds for a step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from routed_agents.complaints import tell_once
from routed_agents.errors import StateError
from routed_agents.integrations.channels import CHANNEL, READ, channel_of
from routed_agents.integrations.reducers import trouble_with
from routed_agents.state import EMPTY, ThreadState

log: Final = logging.getLogger("routed_agents")


def channel_state(configurable: Mapping[str, Any]) -> ThreadState | None:
    """Pins and facts in the running graph's `routing` channel; None when it has no such channel, or one that does not keep them."""
    read = configurable.get(READ)
    if read is None:
        return None
    if (trouble := trouble_with(configurable)) is not None:
        tell_once(trouble)
        return None
    try:
        return ThreadState.from_json(read(CHANNEL))
    except KeyError as error:
        if isinstance(error, StateError):
            log.warning("%s; the step is decided without it", error)
        return None
    except Exception:
        log.warning('the graph\'s "routing" channel cannot be read; the step is decided without it', exc_info=True)
        return None


def left_state(configurable: Mapping[str, Any]) -> ThreadState | None:
    """Pins and facts that stand in a `routing` key which does not keep them, as of an earlier release; None without any.

    They may raise a step, so what the key says to be released or counted is not believed: it may be behind what is known elsewhere.
    """
    if channel_of(configurable) is None:
        return None
    try:
        given = configurable[READ](CHANNEL)
        if not isinstance(given, Mapping) or not given:
            return None
        found = ThreadState.from_json(cast("Mapping[str, Any]", given))
    except Exception:
        return None  # a key of somebody's own
    marks = frozenset([replace(mark, released=0) for mark in found.marks if mark.name in found.facts])
    return ThreadState(found.pins, found.facts, marks) if found.pins or found.facts else None


def thread_state(configurable: Mapping[str, Any]) -> ThreadState:
    """Thread pins and facts that the graph of this node holds for what runs inside the node; a key of somebody's own holds none."""
    found = channel_state(configurable) if trouble_with(configurable) is None else left_state(configurable)
    return found.of_thread() if found is not None else EMPTY
