"""Starts Phoenix so that all its ports listen on this machine only; run it with the Python that has arize-phoenix.

`PHOENIX_HOST` binds Phoenix's HTTP port only; its gRPC port would listen on every interface (arize-phoenix 20.26.1).

    make phoenix
    .servers/phoenix/bin/python dashboards/phoenix_on_loopback.py
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


def main() -> None:
    """Set Phoenix's environment, keep its gRPC port here, and serve until told to stop."""
    parser = argparse.ArgumentParser(description="Starts Phoenix on 127.0.0.1, without telemetry of its own.")
    parser.add_argument("--port", default="6006", help="for the page, the API and OTLP over HTTP (6006)")
    parser.add_argument("--grpc-port", default="4317", help="for OTLP over gRPC (4317)")
    parser.add_argument("--folder", default="out/phoenix", help="where its database goes (out/phoenix)")
    given = parser.parse_args()
    folder = Path(given.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        PHOENIX_HOST=HOST,
        PHOENIX_PORT=given.port,
        PHOENIX_GRPC_PORT=given.grpc_port,
        PHOENIX_WORKING_DIR=str(folder),
        PHOENIX_TELEMETRY_ENABLED="false",
        PHOENIX_ALLOW_EXTERNAL_RESOURCES="false",
        PHOENIX_DISABLE_AGENT_ASSISTANT="true",
    )
    _keep_grpc_here()
    from phoenix.server.main import main as serve

    sys.argv = ["phoenix", "serve"]
    serve()


def _keep_grpc_here() -> None:
    from grpc.aio import _server  # the exported grpc.aio.Server is another object

    as_it_was = _server.Server.add_insecure_port

    def here(self: Any, address: str) -> int:
        return as_it_was(self, f"{HOST}:{address.rpartition(':')[2]}")

    _server.Server.add_insecure_port = here


if __name__ == "__main__":
    main()
