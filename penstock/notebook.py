"""How results show in a notebook: small HTML tables, escaped, that take the page's own colours."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A table shows no more rows than this; it says how many more there are.
MOST_ROWS = 20
#: And no longer texts in a cell.
MOST_CHARACTERS = 120

_NUMBER = re.compile(r"[-+<≤~]*\d[\d., ]*(e[-+]?\d+)?( ?[%\w/]{1,6})?|inf|nan|")


@dataclass(frozen=True)
class Table:
    """``rows`` of cells below ``headings``; cells are shown as ``str`` gives them, columns of
    numbers (units may follow) to the right. ``title`` stands above, ``note`` below."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


def render(*tables: Table) -> str:
    """The tables as HTML, one below the other."""
    return "".join(map(_table, tables))


def facts(title: str, pairs: Iterable[tuple[str, object]]) -> Table:
    """A table of what is known about one thing; facts that are empty are left out."""
    return Table(title, (), [pair for pair in pairs if pair[1] not in ("", None)])


def _table(table: Table) -> str:
    rows = [[_text(cell) for cell in row] for row in table.rows[:MOST_ROWS]]
    width = max((len(row) for row in rows), default=0)
    numbers = [
        bool(table.headings) and all(_NUMBER.fullmatch(row[i]) for row in rows if i < len(row))
        for i in range(width)
    ]
    caption = ""
    if table.title:
        caption = f"<caption style='text-align:left'><b>{_escaped(table.title)}</b></caption>"
    head = "".join(
        f"<th scope='col'{_aligned(i < width and numbers[i])}>{_escaped(_text(name))}</th>"
        for i, name in enumerate(table.headings)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, numbers[i]) for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    rest = len(table.rows) - len(rows)
    notes = [table.note] if table.note else []
    notes += [f"and {rest} more"] if rest else []
    return (
        f"<table>{caption}"
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody></table>"
        + "".join(f"<div>{_escaped(_text(note))}</div>" for note in notes)
    )


def _cell(text: str, is_number: bool) -> str:
    return f"<td{_aligned(is_number)}>{_escaped(text)}</td>"


def _aligned(is_number: bool) -> str:
    return f" style='text-align:{'right' if is_number else 'left'}'"


def _text(cell: object) -> str:
    text = "" if cell is None else " ".join(str(cell).split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _escaped(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(shown)
