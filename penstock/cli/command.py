"""One of ``penstock``'s commands: what all of them do with their options."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from penstock.errors import InputError

#: Options with a meaning for no text at all: no column is handed on, there are no instructions, and
#: the name is the program's own.
MAY_BE_EMPTY = {"keep", "system", "etrecord"}


class Command(TyperCommand):
    """An option whose value is empty, an unset variable of a script for instance, is an error: it
    would pass for one that was not given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, list(args))
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            for name, value in given.items():
                values = value if isinstance(value, list) else [value]
                if "" in values and name not in MAY_BE_EMPTY and name in self._options():
                    raise InputError(
                        f"{self._options()[name]} is empty; give it a value or leave it out"
                    )
        return rest

    def _options(self) -> dict[str, str]:
        """The first name of each option, by its parameter's."""
        return {
            str(parameter.name): parameter.opts[0]
            for parameter in self.params
            if parameter.param_type_name == "option"
        }
