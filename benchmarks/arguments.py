"""What the commands of this folder take."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """Shows ``about``, a module's docstring, as it stands."""
    return argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def names_given(
    about: str | None, what: str, known: Collection[str], given: Sequence[str] | None = None,
    *, parts: bool = False,
) -> list[str]:  # fmt: skip
    """The command's arguments, some of the ``known`` names or (with ``parts``) parts of them; none
    stands for all. Any other ends the process, with one line that lists the known ones."""
    parser = parser_of(about)
    parser.add_argument("names", nargs="*", metavar=what, help=f"of {', '.join(sorted(known))}")
    names: list[str] = parser.parse_args(given).names
    check_names(parser, what.lower(), names, known, parts=parts)
    return names


def check_names(
    parser: argparse.ArgumentParser, what: str, names: Sequence[str], known: Collection[str],
    *, parts: bool = False,
) -> None:  # fmt: skip
    for name in names:
        if name not in known and not (parts and any(name in one for one in known)):
            valid = ", ".join(sorted(known))
            parser.exit(2, f"error: unknown {what} {name!r}; the valid names are: {valid}\n")


def positionals(about: str | None, *names: str, given: Sequence[str] | None = None) -> list[str]:
    """The values of as many arguments as there are ``names``."""
    parser = parser_of(about)
    for name in names:
        parser.add_argument(name)
    found = vars(parser.parse_args(given))
    return [found[name] for name in names]
