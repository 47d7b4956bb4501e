"""Help of the commands: metavariables instead of Python types, and examples at the end.

A command's docstring is its help. Its last section, ``Examples:``, is printed after the options, one command a line.
"""

from __future__ import annotations

import itertools
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from pengi.cli.console import EXIT_USER, print_error
from pengi.cli.options import RENAMED

_EXAMPLES = "\n\nExamples:\n"


class _Help:
    """Mixin of :class:`Command` and :class:`Group`, which comes before typer's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_help(self)

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))  # type: ignore[misc]

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        _refuse_old_names(self.params, args)  # type: ignore[attr-defined]
        return super().parse_args(ctx, args)  # type: ignore[misc]


class Command(_Help, TyperCommand):
    """A command with this help, which refuses renamed options."""


class Group(_Help, TyperGroup):
    """A command with sub-commands and this help, which refuses renamed options."""


def _split_help(command: Any) -> None:
    """Join the lines of each paragraph, since typer keeps the line breaks of the source, and move the examples to the
    end."""
    prose, _, examples = (command.help or "").partition(_EXAMPLES)
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in prose.split("\n\n"))
    if examples:
        # The leading line break keeps typer from removing the indentation.
        command.epilog = f"\nExamples:\n{examples}"


def _refuse_old_names(params: list[Any], args: list[str]) -> None:
    """If an option of the command was renamed, end with an error that gives the new name."""
    names = {name for param in params for name in param.opts}
    for name in (arg.partition("=")[0] for arg in itertools.takewhile(lambda arg: arg != "--", args)):
        if name not in names and RENAMED.get(name) in names:
            print_error(f"{name} is now {RENAMED[name]}")
            raise typer.Exit(EXIT_USER)


def _without_types(params: list[Any]) -> list[Any]:
    """Show arguments by their names alone, flags without a value, and numbers as N."""
    for param in params:
        if isinstance(param, TyperArgument):
            vars(param)["display_type_rich"] = lambda ctx: None
        elif isinstance(param, TyperOption) and param.metavar is None:
            param.metavar = "" if param.is_flag else "N"
    return params
