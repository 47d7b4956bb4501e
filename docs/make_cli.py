"""Writes docs/cli.md, the reference of the command line, from the commands themselves: python docs/make_cli.py"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# Command line reference

All commands with all their options, as `pengi COMMAND --help` shows them. `docs/make_cli.py` writes this page from the
code. [Command line](commands.md) shows what to do with them.
"""


def reference() -> str:
    """The page."""
    from pengi.cli import app

    group: Any = typer.main.get_command(app)
    parts = [HEAD, *_command("pengi", group)]
    for name, command in group.commands.items():
        parts += _command(f"pengi {name}", command)
        for inner, sub in getattr(command, "commands", {}).items():
            parts += _command(f"pengi {name} {inner}", sub)
    return "\n".join(parts)


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    params = [
        param for param in command.get_params(context) if param.name != "help" and not getattr(param, "hidden", False)
    ]
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    words = [_metavar(param, context).replace("\\|", "|") for param in arguments]
    inner = ["COMMAND"] if getattr(command, "commands", None) else []
    yield f"## {name}\n"
    yield f"```text\n{' '.join([name, *(['[OPTIONS]'] if options else []), *words, *inner])}\n```\n"
    yield f"{_plain(command.help or '')}\n"
    if arguments:
        rows = [(f"`{_metavar(param, context)}`", param) for param in arguments]
        yield _table("argument", rows)
    panels: dict[str, list[tuple[str, Any]]] = {}
    for param in options:
        names = ", ".join(f"`{option}`" for option in [*param.opts, *param.secondary_opts])
        value = "" if param.is_flag else f" `{_metavar(param, context)}`"
        panels.setdefault(getattr(param, "rich_help_panel", None) or "option", []).append((names + value, param))
    for panel, found in panels.items():
        yield _table(panel.lower(), found)
    if epilog := (command.epilog or "").strip():
        lines = [line.strip() for line in epilog.removeprefix("Examples:").strip().splitlines()]
        yield "```sh\n" + "\n".join(lines) + "\n```\n"


def _metavar(param: Any, context: Any) -> str:
    name = param.metavar or param.make_metavar(context) or (param.name or "").upper()
    return _plain(f"{name}..." if param.nargs == -1 or getattr(param, "multiple", False) else name)


def _table(heading: str, rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {heading} | |", "|---|---|"]
    lines += [f"| {left} | {_plain(param.help or '')}{_default(param)} |".replace("\n", " ") for left, param in rows]
    return "\n".join(lines) + "\n"


def _default(param: Any) -> str:
    shown = getattr(param, "show_default", False)
    if isinstance(shown, str):
        return f" Default: {shown}."
    given = param.default
    if not shown or given is None or isinstance(given, bool) or callable(given) or given in ((), "", ...):
        return ""
    return f" Default: {given}." if isinstance(given, (str, int, float)) else ""


def _plain(text: str) -> str:
    """Help as Markdown, where vertical bars would part columns."""
    return re.sub(r"\s*\n\n\s*", "\n\n", text).replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
