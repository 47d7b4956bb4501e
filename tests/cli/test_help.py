"""The help of every command: it says what to write in plain words, and its examples work. So do those of the docs."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.testing import CliRunner

from pengi.cli import app

ROOT = Path(__file__).resolve().parents[2]
SUBSTITUTION = r"<\([^)]*\)"
"""What a shell replaces by a file: ``<(ffmpeg ...)``."""
TOP = typer.main.get_command(app)
DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*.yaml"), ROOT / "examples/README.md"])


def walk(command: Any = TOP, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    yield path, command
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))


COMMANDS = dict(walk())
every_command = pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("pengi", *path)))


def parsed(line: str) -> None:
    """Parse a line of a shell as the command would, without running it.

    Raises:
        Exception: a usage error, with its sentence.
    """
    words = shlex.split(re.sub(SUBSTITUTION, "FILE", line), comments=True)
    words = words[words.index("pengi") + 1 :]
    end = next((position for position, word in enumerate(words) if word in ("|", "||", "&&", ">", ";")), len(words))
    words, command = words[:end], TOP
    while isinstance(command, TyperGroup) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if "--help" not in words:
        command.make_context("pengi", words)


@functools.cache
def shown(path: tuple[str, ...], columns: int) -> str:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)})
    assert result.exit_code == 0
    return result.stdout


@every_command
def test_every_command_has_an_example_that_it_understands(path: tuple[str, ...]) -> None:
    lines = [line.strip() for line in shown(path, 80).splitlines()]
    examples = lines[lines.index("Examples:") + 1 :]
    assert all("pengi " in line for line in examples if line), "an example does not fit into 80 columns"
    for example in filter(None, examples):
        parsed(example)
        if path:
            assert f"pengi {path[0]} " in example + " "


@every_command
def test_every_command_has_the_options_json_and_debug(path: tuple[str, ...]) -> None:
    options = {name for param in COMMANDS[path].params for name in param.opts}
    if path not in ((), ("data",)):  # groups, which do nothing themselves
        assert "--debug" in options
        assert "--json" in options or path in (("mcp",), ("watch",))


@every_command
@pytest.mark.parametrize("columns", [80, 120])
def test_help_says_what_to_write_and_not_a_type_of_python(path: tuple[str, ...], columns: int) -> None:
    assert not re.search(r"<[a-zA-Z]|\[\[|list\[|Optional", shown(path, columns))


@every_command
def test_every_option_explains_itself(path: tuple[str, ...]) -> None:
    context = COMMANDS[path].make_context("pengi", [], resilient_parsing=True)
    for param in COMMANDS[path].get_params(context):
        assert isinstance(param, (TyperOption, TyperArgument))
        assert param.help, f"{param.name} has no help"
        assert re.match(r"[A-Z`-]|\w+:", param.help), f"the help of {param.name} begins in the middle of a sentence"
        assert param.help.endswith("."), f"the help of {param.name} is no sentence"
        assert len(param.help.split()) > 2, f"the help of {param.name} is too short to understand alone"


def test_paragraphs_are_filled_and_not_broken_where_the_source_is() -> None:
    text = " ".join(shown(("run",), 80).split())
    assert "and those of the task: duration_s (describe, tags, timeline, transcribe), generated (classify)" in text
    assert all(len(line) <= 80 for line in shown(("run",), 80).splitlines())


def lines_with_commands(file: Path) -> list[str]:
    """Lines of shell that call pengi: those of fenced or indented blocks of Markdown, of comments in a recipe."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    if file.suffix == ".yaml":
        return [line.lstrip("# ") for line in text.splitlines() if re.match(r"# +pengi ", line)]
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^(?: {4}.*\n)+", text, re.MULTILINE)
    lines: list[str] = []
    for line in (line.strip() for block in (*fenced, *indented) for line in block.splitlines()):
        if lines and lines[-1].partition("#")[0].count("'") % 2:  # a quotation of several lines
            lines[-1] += " " + line
        else:
            lines.append(line)
    return [line for line in lines if re.match(r"([^#'`]*\s)?pengi\s", line)]


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_commands_in_the_docs_are_understood(file: Path) -> None:
    for line in lines_with_commands(file):
        parsed(line)


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_commands_and_options_in_the_text_of_the_docs_are_there(file: Path) -> None:
    """What stands in a sentence, such as `pengi eval --suite local`, may leave arguments out, but invent none."""
    for found in re.findall(r"`pengi ([^`\n]+)`", file.read_text(encoding="utf-8")):
        words = re.sub(SUBSTITUTION, "FILE", found)
        path: list[str] = []
        for word in words.split():
            if (*path, word) not in COMMANDS:
                break
            path.append(word)
        assert path or words.startswith(("-", "COMMAND ", "= ")), f"`pengi {words}`"
        known = {name for param in COMMANDS[tuple(path)].params for name in (*param.opts, *param.secondary_opts)}
        used = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", words)) - {"--help", "-h"}
        assert used <= known, f"`pengi {words}`"


def test_what_is_on_no_index_is_installed_from_its_folder() -> None:
    """The package is on no public index, where another one could have its name."""
    for file in [
        *DOCS,
        *ROOT.glob("src/pengi/**/*.py"),
        *ROOT.glob("examples/*.ipynb"),
        *ROOT.glob("src/pengi/**/*.md"),
    ]:
        assert not re.search(r"pip install [^\n`]*(?<!\S)'?pengi\b|pengi\[", file.read_text(encoding="utf-8")), file


def test_fine_tuning_has_one_folder() -> None:
    text = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bruns/[\w-]+", text)) == {"runs/mine"}


@pytest.mark.parametrize(
    ("words", "new"),
    [
        (["serve", "--batch", "2"], "--batch-size"),
        (["run", "sounds", "--batch=2"], "--batch-size"),
        (["serve", "--queue", "9"], "--max-requests"),
        (["eval", "--listen=all"], "--report-audio"),
        (["eval", "--labels", "labels.txt"], "--labels-file"),
    ],
)
def test_an_old_option_gives_an_error_that_names_the_new_one(words: list[str], new: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"is now {new}" in result.stderr
