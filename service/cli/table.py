"""Rows for people and for scripts: a table on a terminal, tab-separated lines elsewhere.

Knows nothing of what the rows say.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def print_table(columns: Sequence[str], rows: Sequence[tuple[str, ...]], empty: str = "") -> None:
    """On a terminal, `empty` stands for a table without rows; lines are for cut and awk."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    console.print(table if rows or not empty else empty)
