"""The quickstart notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the kernel and its client, not ours
def test_the_quickstart_notebook_runs_and_says_what_it_cost(monkeypatch):
    if not NOTEBOOK.is_file():
        pytest.skip(f"{NOTEBOOK.name} is not written yet")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert "$" in str(outputs)
