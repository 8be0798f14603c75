"""Where spans and metrics are to go: what the standard variables ask for, and how an endpoint is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from routed_agents.errors import ConfigurationError

Signal = Literal["traces", "metrics"]
LOCAL: Final = "http://localhost:4318"
"""The standard's own default."""


def asked_by(environ: Mapping[str, str]) -> tuple[str | None, bool]:
    """The address for spans that the standard variables name, and whether they ask for the console.

    Raises:
        ConfigurationError: they ask for an exporter or a protocol that is not here.
    """
    endpoint, wanted = _asked("traces", environ, ("otlp", "console", "none"))
    return endpoint, "console" in wanted and "none" not in wanted


def metrics_asked_by(environ: Mapping[str, str]) -> str | None:
    """The address for metrics that the standard variables name.

    Raises:
        ConfigurationError: they ask for an exporter or a protocol that is not here.
    """
    return _asked("metrics", environ, ("otlp", "none"))[0]


def whole(endpoint: str, signal: Signal) -> str:
    """The endpoint with the path at which it takes such a signal.

    Raises:
        ConfigurationError: it is no HTTP address.
    """
    check(endpoint)
    parts = urlsplit(endpoint)
    bare, path = parts.path.rstrip("/"), f"/v1/{signal}"
    return parts._replace(path=bare if bare.endswith(path) else f"{bare}{path}").geturl()


def check(endpoint: object) -> None:
    """Hold an endpoint against what spans and metrics can be sent to.

    Raises:
        ConfigurationError: it is no HTTP address.
    """
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
        known = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is none
        known = False
    if not known:
        raise ConfigurationError(f"endpoint {public(str(endpoint)) or '(empty)'} is no HTTP address; wanted one like http://localhost:6006")


def public(endpoint: str) -> str:
    """An endpoint without the name and password, and without the query, that it may hold."""
    scheme, _, rest = endpoint.rpartition("://")
    bare = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{bare}" if scheme else bare


def _asked(signal: Signal, environ: Mapping[str, str], known: tuple[str, ...]) -> tuple[str | None, set[str]]:
    """The address for a signal, and which exporters are asked for by name; a signal's own variable is taken as it is."""
    name = signal.upper()
    wanted = {part for each in environ.get(f"OTEL_{name}_EXPORTER", "").split(",") if (part := each.strip().lower())}
    if unknown := wanted - set(known):
        raise ConfigurationError(f"OTEL_{name}_EXPORTER asks for {', '.join(sorted(unknown))}; known here: {', '.join(known)}")
    if (wanted and "otlp" not in wanted) or "none" in wanted:
        return None, wanted
    own, shared = environ.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT"), environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not own and (shared or wanted):
        own = whole(shared or LOCAL, signal)
    if own:
        check(own)
    for variable in (f"OTEL_EXPORTER_OTLP_{name}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if own and (protocol := environ.get(variable)):
            if protocol != "http/protobuf":
                raise ConfigurationError(f"{variable} is {protocol!r}; known here: http/protobuf, usually on port 4318")
            break
    return own or None, wanted
