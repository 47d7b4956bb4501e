"""The options that several commands share, defined once, alone or in groups (see :mod:`pengi.cli.groups`)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from pengi.errors import InputError

if TYPE_CHECKING:
    from pengi.decoding import DecodeOptions

_GENERATION = "Generation"
_COMMON = "Common"
_FORMATS = "wav, flac, mp3, ogg, m4a, mp4, mov, mkv, webm and everything else that FFmpeg reads"
DEFAULT_MODEL = "pengi-mini"
AUTO = "auto"

RENAMED = {
    "--batch": "--batch-size",
    "--queue": "--max-requests",
    "--listen": "--report-audio",
    "--labels": "--labels-file",
}
"""Options of earlier versions; an error names the new one, unless the command has an option of the old name."""

_FILES = typer.Argument(
    metavar="FILE",
    help=f"Recordings ({_FORMATS}), folders of them at any depth, or - for one recording on standard input.",
    show_default=False,
)
Files = Annotated[list[str], _FILES]
OptionalFiles = Annotated[list[str] | None, _FILES]
"""For commands that report missing files themselves, with a more helpful message than typer's."""

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Model to use: a name that `pengi models` lists, or the folder of a checkpoint.",
        rich_help_panel=_COMMON,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="Where the model runs: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.",
        rich_help_panel=_COMMON,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the results as one JSON document on stdout.", rich_help_panel=_COMMON),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the log, and the traceback of an error.", rich_help_panel=_COMMON),
]

Tokenizers = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="For a published model: folder with gpt2/tokenizer.json and clip-vit-base-patch16/tokenizer.json.",
        show_default="fetched from the Hugging Face hub",
    ),
]

Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Also print what the answer is based on: detected tags, transcript, descriptors and the prompt.",
    ),
]

_BY_TASK = "set by the task"
Beams = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of beams of the beam search; more are slower, 1 is greedy search.",
        show_default=_BY_TASK,
        rich_help_panel=_GENERATION,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Longest text, in tokens of the language model (about 3 tokens for 2 words).",
        show_default=_BY_TASK,
        rich_help_panel=_GENERATION,
    ),
]


Labels = Annotated[str | None, typer.Option(metavar='"A, B, ..."', help="Labels to choose from, separated by commas.")]
OnlyLabels = Annotated[
    str | None, typer.Option(metavar='"A, B, ..."', help="Detect only these tags, separated by commas.")
]
LabelsFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The labels in a text file, one per line.")]


@dataclass(frozen=True)
class CommonOptions:
    """Options of every command that loads a model and prints results."""

    model: Model = DEFAULT_MODEL
    json: Json = False
    device: Device = AUTO


@dataclass(frozen=True)
class TrackOptions:
    """How recordings are read: keywords of the engine's methods."""

    panel: ClassVar = "Reading"

    track: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Which sound track of a file to read, counted from 1.", show_default="the default track"
        ),
    ] = None
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Read a damaged file up to the damage, with a note, instead of refusing it."),
    ] = False


@dataclass(frozen=True)
class GenerationOptions:
    """Options for generating a text; None stands for the default of the task."""

    panel: ClassVar = _GENERATION

    beams: Beams = None
    max_tokens: MaxTokens = None
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Sample the text instead of searching for the most probable one; higher values vary more, 1 is usual.",
            show_default="0, no sampling",
        ),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0.0,
            max=1.0,
            help="With --temperature: sample only from the most probable tokens whose probabilities add up to P.",
            show_default="1, all tokens",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="With --temperature: the same seed gives the same text again.", show_default="random"),
    ] = None

    def decoding(self) -> DecodeOptions | None:
        """The given options; None if none was given.

        Raises:
            InputError: if a value is out of range.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if not given:
            return None
        from pengi.decoding import DecodeOptions

        return DecodeOptions(**given)


def chosen_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    """The labels of either ``--labels`` or ``--labels-file``.

    Raises:
        InputError: if neither or both are given, or there is no label.
    """
    if (labels is None) == (labels_file is None):
        raise InputError('give the choices with either --labels "dog, rain, siren" or --labels-file FILE')
    if labels_file is not None:
        return read_label_lines(labels_file)
    assert labels is not None
    choices = list(dict.fromkeys(label.strip() for label in labels.split(",") if label.strip()))
    if not choices:
        raise InputError('--labels contains no labels; give some, such as --labels "dog, rain, siren"')
    return choices


def optional_labels(labels: str | None, labels_file: Path | None) -> list[str] | None:
    """As :func:`chosen_labels`; None if neither is given."""
    return None if labels is None and labels_file is None else chosen_labels(labels, labels_file)


def parsed_threshold(text: str | None) -> float | dict[str, float] | None:
    """``0.5`` for all labels, or ``0.5, siren=0.7`` with other values for single labels; None if nothing is given.

    Raises:
        InputError: if a part of the text is neither.
    """
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        label, equals, number = part.rpartition("=")
        try:
            found[label.strip() if equals else "*"] = float(number)
        except ValueError as error:
            raise InputError(
                f"--threshold must be a number or LABEL=number, such as 'siren=0.7', not '{part}'"
            ) from error
    if not all(0 <= value <= 1 for value in found.values()):
        raise InputError(f"--threshold must be a probability from 0 to 1, not {text}")
    return found["*"] if set(found) == {"*"} else found


def parsed_shard(text: str) -> tuple[int, int]:
    """The part and the number of parts of ``--shard``.

    Raises:
        InputError: if it does not have the form I/N.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise InputError(f"--shard must be I/N, such as 1/4, not '{text}'")
    return int(found[1]), int(found[2])


def read_label_lines(path: Path) -> list[str]:
    """Labels of a text file, one a line; blank lines are skipped.

    Raises:
        InputError: if the file cannot be read as text or holds no label.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"no labels file at '{path}'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read as a text file with one label per line") from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise InputError(f"'{path}' contains no labels; write one label per line")
    return list(dict.fromkeys(labels))
