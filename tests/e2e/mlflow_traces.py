"""Prints the traces of an MLflow experiment as JSON: SERVER EXPERIMENT; runs under the Python that has mlflow."""

from __future__ import annotations

import json
import sys

import mlflow


def main(server: str, experiment: str) -> None:
    """Read them with MLflow's own client."""
    mlflow.set_tracking_uri(server)
    traces = mlflow.search_traces(locations=[experiment], max_results=1000, return_type="list")
    shown = [
        {
            "metadata": dict(trace.info.trace_metadata),
            "spans": [{"name": span.name, "type": span.span_type, "attributes": dict(span.attributes)} for span in trace.data.spans],
        }
        for trace in traces
    ]
    json.dump(shown, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
