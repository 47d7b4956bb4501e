"""Help in plain words: what to write for an option instead of its Python type, and examples at the end.

A command's docstring is its help. Its last section, ``Examples:``, is printed behind the options, one command a line.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

_EXAMPLES = "\n\nExamples:\n"


class Command(TyperCommand):
    """A command with such help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_help(self)

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A command with sub-commands and such help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_help(self)

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def in_words(group: typer.Typer) -> None:
    """Give every command of a group such help."""
    for command in group.registered_commands:
        command.cls = Command


def _split_help(command: Any) -> None:
    """Join the lines of each paragraph, which typer breaks where the source does, and move the examples to the end."""
    prose, _, examples = (command.help or "").partition(_EXAMPLES)
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in prose.split("\n\n"))
    if examples:
        # The line break in front keeps typer from taking away the indentation.
        command.epilog = f"\nExamples:\n{examples}"


def _without_types(params: list[Any]) -> list[Any]:
    """Arguments are shown by their names alone, flags without a value, numbers as N."""
    for param in params:
        if isinstance(param, TyperArgument):
            vars(param)["display_type_rich"] = lambda ctx: None
        elif isinstance(param, TyperOption) and param.metavar is None:
            param.metavar = "" if param.is_flag else "N"
    return params
