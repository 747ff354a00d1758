"""Tables in a terminal of any width."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

#: A column that is shortened keeps as much.
LEAST = 12


def print_table(console: Console, table: Table, shortened: Collection[str] = ()) -> None:
    """Prints a ``table`` of which the terminal may be too narrow: the columns with the headings
    ``shortened`` give way, down to :data:`LEAST`. All others stay whole, where rich would cut
    figures; rows that are too long all the same go on in the terminal's next line."""
    unlimited = console.options.update(width=1 << 16)
    widths = [
        max(console.measure(cell, options=unlimited).maximum for cell in (c.header, *c.cells))
        for c in table.columns
    ]
    gaps = Measurement.get(console, unlimited, table).maximum - sum(widths)
    giving = [i for i, column in enumerate(table.columns) if column.header in shortened]
    left = console.width - gaps - sum(w for i, w in enumerate(widths) if i not in giving)
    for count, index in enumerate(sorted(giving, key=lambda i: widths[i])):
        widths[index] = min(widths[index], max(LEAST, left // (len(giving) - count)))
        left -= widths[index]
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    if gaps + sum(widths) > console.width:
        table.width = gaps + sum(widths)
    console.print(table, crop=False)
