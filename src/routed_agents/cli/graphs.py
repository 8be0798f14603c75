"""Loads the graph a person names on the command line."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from routed_agents.errors import ConfigurationError, RoutedAgentsError

if TYPE_CHECKING:
    from routed_agents.router import Router


WANTED: Final = "name a Python file, file.py:name, or module:name"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedGraph:
    """A graph ready to run.

    Attributes:
        name: for people and spans.
        graph: has `ainvoke`.
        router: the one its module exposes, if any; its ledger says what inputs cost.
    """

    name: str
    graph: Any
    router: Router | None


async def load_graph(target: str) -> LoadedGraph:
    """The graph at `file.py`, `file.py:name`, `module` or `module:name`; the name is `graph` when not given.

    It may be a compiled graph, a builder, or a function (also async) that returns one.

    Raises:
        ConfigurationError: there is no such file, module or name, it cannot be imported, or it is no graph.
    """
    place, name = parted(target)
    # A module that imports for seconds, or runs a model, must not hold up the loop's other work.
    module = await asyncio.to_thread(_imported, place)
    if not hasattr(module, name):
        hint = f"expose a compiled LangGraph graph as `{name}`"
        if graphs := _graphs(module):
            hint = f"it has {', '.join(graphs)}: name one, like {place}:{graphs[0]}"
        raise ConfigurationError(f"{place} has no `{name}`; {hint}")
    graph = await _ready(getattr(module, name), f"{place}:{name}")
    router: Any = getattr(module, "router", None)
    shown = Path(place).stem if place.endswith(".py") else place
    return LoadedGraph(
        name=shown if name == "graph" else f"{shown}:{name}",
        graph=graph,
        router=router if hasattr(router, "ledger") and hasattr(router, "policy") else None,
    )


def _graphs(module: ModuleType) -> list[str]:
    """The names of a module's compiled graphs, else of its builders; a class or a chat model has no nodes."""
    held = {name: value for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, type)}
    graphs = {name: value for name, value in held.items() if isinstance(getattr(value, "nodes", None), Mapping)}
    return [name for name in graphs if hasattr(graphs[name], "ainvoke")] or [name for name in graphs if hasattr(graphs[name], "compile")]


def parted(target: str) -> tuple[str, str]:
    """The file or module a graph is in, and the graph's name there."""
    place, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier() or not place:
        return target, "graph"
    return place, name


def _imported(place: str) -> ModuleType:
    path = Path(place)
    if place.endswith(".py") or path.exists():
        if not path.is_file():
            found = "is a directory" if path.is_dir() else "does not exist"
            raise ConfigurationError(f"graph {place} {found}; {WANTED}")
        return _from_file(path.resolve(), place)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does; an installed command looks beside itself
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise ConfigurationError(f"graph {place} is neither a file nor a module; {WANTED}") from None
        raise _trouble(place, error) from error
    except (Exception, SystemExit) as error:
        raise _trouble(place, error) from error


def _from_file(path: Path, place: str) -> ModuleType:
    name = f"routed_agents_graph_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"graph {place} is no Python file; name one, or module:name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up there
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python file.py` does, for its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _trouble(place, error) from error
    return module


def _trouble(place: str, error: BaseException) -> Exception:
    if isinstance(error, RoutedAgentsError):
        return error
    first = str(error).split("\n")[0]
    return ConfigurationError(f"graph {place} cannot be imported: {type(error).__name__}: {first}; mend it, or see --traceback")


async def _ready(named: Any, shown: str) -> Any:
    found = named
    if callable(named) and not hasattr(named, "ainvoke") and not hasattr(named, "compile"):
        try:
            found = await _made(named)
        except (Exception, SystemExit) as error:
            raise _trouble(shown, error) from error
    if not hasattr(found, "ainvoke") and hasattr(found, "compile"):
        found = found.compile()
    if not hasattr(found, "ainvoke"):
        kinds = "a compiled LangGraph graph, a StateGraph, or a function that returns one"
        raise ConfigurationError(f"{shown} is {type(found).__name__}; wanted {kinds}")
    return found


async def _made(factory: Callable[..., Any]) -> Any:
    """What a factory makes; LangGraph's own may take a config."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in inspect.signature(factory).parameters.values() if each.default is each.empty and each.kind in kinds]
    made = factory({}) if len(needed) == 1 else factory()
    return await made if inspect.isawaitable(made) else made
