"""Runs the command line: `python -m routed_agents`."""

from __future__ import annotations

import sys

from routed_agents.cli import main

if __name__ == "__main__":
    sys.exit(main())
