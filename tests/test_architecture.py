"""Imports point one way, as pyproject.toml says."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")).get("tool", {}).get("importlinter")


@pytest.mark.skipif(CONTRACTS is None, reason="pyproject.toml has no [tool.importlinter] yet")
def test_imports_point_one_way() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]

    run = subprocess.run(lint, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
