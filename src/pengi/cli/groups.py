"""The options of a command: those of its parameters, those of option groups, and ``--debug``.

If a parameter of a command is a dataclass, each of its fields becomes an option.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_type_hints

from typer.models import ParameterInfo

from pengi.cli.options import Debug

_DEBUG = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose options are all separate parameters, as typer needs them, with ``debug`` as the last one. The
    command itself gets ``debug`` only if it has such a parameter."""
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    for parameter in own.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            groups[parameter.name] = hint
            parameters += _fields(hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    if "debug" not in own:
        parameters.append(_DEBUG)
    for parameter in parameters:
        _leave_permissions_to_commands(parameter)

    @functools.wraps(command)
    def run(**options: Any) -> None:
        if "debug" not in own:
            del options["debug"]
        built = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**options, **built)

    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _fields(group: Any) -> list[inspect.Parameter]:
    """The options of a group, in the group's help panel unless they name another."""
    found = []
    hints = get_type_hints(group, include_extras=True)
    for item in inspect.signature(group).parameters.values():
        hint = hints[item.name]
        option = copy(hint.__metadata__[0])
        option.rich_help_panel = option.rich_help_panel or getattr(group, "panel", None)
        hint = Annotated[hint.__origin__, option]
        found.append(item.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    return found


def _leave_permissions_to_commands(parameter: inspect.Parameter) -> None:
    """Let commands handle unreadable files: typer would end the command with a usage error."""
    for option in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(option, ParameterInfo):
            option.readable = False
