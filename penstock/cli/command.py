"""One of ``penstock``'s commands: what all of them do with their options."""

from __future__ import annotations

import os
from typing import Any

from typer.core import TyperCommand

from penstock.errors import InputError, shorten

#: Options with a meaning for no text at all: no column is handed on, there are no instructions, and
#: the name is the program's own.
MAY_BE_EMPTY = {"keep", "system", "etrecord"}

#: Parameters whose value is a file that is written.
_WRITTEN = {"html", "trace_path", "etdump_path", "etrecord", "output", "output_file"}


class SafeCommand(TyperCommand):
    """Writes no file over one that it is given to read, nor one over the other."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, list(args))
        if not ctx.resilient_parsing:
            self._check(self._given(ctx, args))
        return rest

    def _check(self, given: dict[str, list[str]]) -> None:
        read: dict[str, str] = {}
        written: dict[str, str] = {}
        # Those that are read come first.
        for name in sorted(given, key=_WRITTEN.__contains__):
            said = self._names().get(name, f"the argument {name}")
            for value in (one for text in given[name] for one in text.split(",")):
                place = os.path.realpath(value)
                if name not in _WRITTEN:
                    read[place] = said
                    continue
                other = written.get(place) or (read.get(place) if os.path.isfile(place) else None)
                if other is not None and (os.path.isfile(place) or not os.path.exists(place)):
                    raise InputError(
                        f"{said} would write to {shorten(value)}, which {other} names too; give "
                        "another file"
                    )
                written[place] = said

    def _given(self, ctx: Any, args: list[str]) -> dict[str, list[str]]:
        """The texts that were given, by parameter."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        return {
            name: [text for text in values if isinstance(text, str)]
            for name, value in given.items()
            for values in [value if isinstance(value, list) else [value]]
        }

    def _names(self) -> dict[str, str]:
        """The first name of each option, by its parameter's."""
        return {
            str(parameter.name): parameter.opts[0]
            for parameter in self.params
            if parameter.param_type_name == "option"
        }


class Command(SafeCommand):
    """An option whose value is empty, an unset variable of a script for instance, is an error: it
    would pass for one that was not given."""

    def _check(self, given: dict[str, list[str]]) -> None:
        for name, values in given.items():
            if "" in values and name not in MAY_BE_EMPTY and name in self._names():
                raise InputError(f"{self._names()[name]} is empty; give it a value or leave it out")
        super()._check(given)
