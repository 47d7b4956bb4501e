"""Command lines in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from pengi.cli import app


def invoke(*arguments: object, stdin: str | bytes | None = None) -> Any:
    """Run ``pengi`` with arguments; the result has ``stdout``, ``stderr`` and ``exit_code``."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def complaint(result: Any) -> str:
    """The message of a user's mistake: exit code 2, one sentence on stderr and nothing on stdout."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (sentence,) = result.stderr.splitlines()
    assert isinstance(sentence, str)
    return sentence
