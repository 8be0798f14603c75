"""The notebooks run from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers import python_of

pytestmark = pytest.mark.e2e

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def outputs_of(name: str, *, within_s: int) -> list[Any]:
    """What a notebook's cells put out when it is run."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    nbclient.NotebookClient(notebook, timeout=within_s, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return outputs


@pytest.mark.filterwarnings("ignore")  # of the kernel and its client, not ours
def test_the_quickstart_notebook_runs_and_says_what_it_cost(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    assert "$" in str(outputs_of("quickstart.ipynb", within_s=180))


@pytest.mark.filterwarnings("ignore")  # of the kernel and its client, not ours
def test_the_notebook_on_backends_runs_against_a_real_phoenix_and_their_sums_agree(monkeypatch):
    monkeypatch.setenv("PHOENIX_PYTHON", str(python_of("phoenix")))
    monkeypatch.delenv("PHOENIX_URL", raising=False)
    said = str(outputs_of("costs_in_a_backend.ipynb", within_s=300))
    assert "the whole project differs from the ledger by $0.00000000" in said
    assert "all spans have reached Phoenix and the file" in said


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda notebook: notebook.name)
def test_a_notebook_is_kept_without_outputs(notebook):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.source[:40] for cell in cells if cell.outputs or cell.execution_count] == []
