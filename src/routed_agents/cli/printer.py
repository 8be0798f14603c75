"""The console that trees and tables are printed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from routed_agents.offline.report import Table


class Printer(Console):
    """Prints on standard output. A reader that goes away is no error, and a table loses none of its numbers to a narrow terminal."""

    def __init__(self, *, width: int | None = None) -> None:
        super().__init__(highlight=False, width=width)

    def on_broken_pipe(self) -> None:
        """Leave it to `main`, which ends quietly."""
        raise BrokenPipeError

    def table(self, table: Table) -> None:
        """Print a table; where it cannot be made to fit, its lines go on beyond the edge."""
        from routed_agents.offline.report import render

        self.print(render(table, self.width), crop=False)
