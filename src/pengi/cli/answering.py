"""``describe``, ``ask`` and ``classify``: answers about recordings."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pengi.audio.formats import is_regular
from pengi.cli.console import guarded, print_text
from pengi.cli.inputs import InputFile, read_arguments
from pengi.cli.options import (
    CommonOptions,
    Explain,
    Files,
    GenerationOptions,
    Labels,
    LabelsFile,
    OptionalFiles,
    TrackOptions,
    chosen_labels,
)
from pengi.cli.session import load_model, over_files
from pengi.cli.streams import bar, can_encode
from pengi.cli.tagging import tags_table
from pengi.errors import InputError
from pengi.readable import percent

if TYPE_CHECKING:
    from pengi.results import Answer, Classification, Description, Explanation, LabelScore

_BAR_COLUMNS = 20
_HALF = "▀"
MIN_COLUMNS = 80
"""Minimum width of a terminal that shows a spectrogram."""
MAX_DRAWN_S = 600.0
"""Decoding a longer recording only to draw it would take too long."""


@dataclass(frozen=True)
class NoneOptions:
    """Options for independent scores of labels."""

    none: Annotated[
        bool,
        typer.Option("--none", help="Add the label 'none of these', for recordings that match none of the others."),
    ] = False
    none_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Like --none; 'none of these' wins if no label has an independent probability of at least P.",
            show_default="0.5 with --none",
        ),
    ] = None
    multi_label: Annotated[
        bool,
        typer.Option("--multi-label", help="Also print the probability of each label by itself; several may be right."),
    ] = False
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Prompt for labels that are not tags; {} marks the place of the label.",
            show_default="this is a sound of {}",
        ),
    ] = None

    def engine_options(self) -> dict[str, Any]:
        """Keywords of :meth:`pengi.engine.Pengi.classify`."""
        none = self.none if self.none_threshold is None else self.none_threshold
        return {"none": none, "multi_label": self.multi_label, "prompt": self.prompt}


@guarded
def describe(
    files: Files,
    *,
    explain: Explain = False,
    reading: TrackOptions,
    generation: GenerationOptions,
    common: CommonOptions,
) -> None:
    """Write a caption for each recording and list its sound events, with their probabilities. A terminal of 80 columns
    or more also shows a small spectrogram.

    Examples:
        pengi describe street.wav
        pengi describe recordings/ --json
        ffmpeg -i film.mkv -vn -f wav - | pengi describe -
    """
    options = {**vars(reading), "options": generation.decoding(), "explain": explain}
    recordings = read_arguments(files)
    engine = load_model(common.model, common.device, generates=True)
    over_files(
        recordings,
        lambda part: engine.describe(part, on_error="return", **options),
        _show_description,
        as_json=common.json,
        # A damaged recording is not read a second time.
        introduce=None if reading.partial else _show_spectrogram,
    )


@guarded
def ask(
    *,
    files: OptionalFiles = None,
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="What to ask, in plain words and in quotes; the last argument.", show_default=False
        ),
    ] = "",
    explain: Explain = False,
    reading: TrackOptions,
    generation: GenerationOptions,
    common: CommonOptions,
) -> None:
    """Answer a question about each recording, with the probability of the answer.

    Examples:
        pengi ask street.wav "is there a siren?"
        pengi ask a.wav b.mp3 "what instrument is playing?" --max-tokens 10
    """
    _check_question(files, question)
    options = {**vars(reading), "options": generation.decoding(), "explain": explain}
    recordings = read_arguments(files or [])
    engine = load_model(common.model, common.device, generates=True)
    over_files(
        recordings,
        lambda part: engine.ask(part, question, on_error="return", **options),
        _show_answer,
        as_json=common.json,
    )


@guarded
def classify(
    files: Files,
    *,
    labels: Labels = None,
    labels_file: LabelsFile = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="How labels are scored. likelihood: mean log-probability of a label's tokens, and the probability of "
            "the tag that a label names; generate: search restricted to the labels; match: the model writes freely, "
            "and labels are compared with its text in meaning.",
        ),
    ] = "likelihood",
    top: Annotated[
        int | None, typer.Option(min=1, help="Print only the N most probable labels.", show_default="all")
    ] = None,
    none: NoneOptions,
    explain: Explain = False,
    reading: TrackOptions,
    common: CommonOptions,
) -> None:
    """Choose among labels of your own, with a probability for each.

    Examples:
        pengi classify street.wav --labels "rain, siren, dog barking"
        pengi classify street.wav --labels "rain, siren" --none --multi-label
        pengi classify recordings/ --labels-file labels.txt --top 3
    """
    choices = chosen_labels(labels, labels_file)
    recordings = read_arguments(files)
    engine = load_model(common.model, common.device)
    options: dict[str, Any] = {
        **vars(reading),
        "method": method,
        "top": top,
        "explain": explain,
        **none.engine_options(),
    }
    over_files(
        recordings,
        lambda part: engine.classify(part, choices, on_error="return", **options),
        _show_classification,
        as_json=common.json,
    )


def _check_question(files: list[str] | None, question: str) -> None:
    """Check the last argument, which has to be a question: not empty, and not the name of a file.

    Raises:
        InputError: with a message that says what to write.
    """
    if os.path.isfile(question):  # noqa: PTH113 - pathlib fails at names as long as questions may be
        raise InputError(f"'{question}' is a file, and the question is missing; put it after the files, in quotes")
    if not files:
        raise InputError('give the recordings and then a question, such as: pengi ask FILE "is someone speaking?"')
    if not question.strip():
        raise InputError('the question is empty; write one, such as "What instrument is playing?"')


def _show_spectrogram(recording: InputFile) -> None:
    """Print a small spectrogram if stdout is a terminal with colours that is wide enough."""
    console, source = Console(), recording.source
    if not console.is_terminal or console.width < MIN_COLUMNS or console.color_system not in ("256", "truecolor"):
        return
    if not isinstance(source, str) or not is_regular(source) or not can_encode(_HALF, sys.stdout):
        return
    from pengi.audio.decode import stated_duration
    from pengi.plots import terminal_spectrogram

    if (stated_duration(source) or MAX_DRAWN_S) < MAX_DRAWN_S:
        for row in terminal_spectrogram(source, console.width):
            print_text(Text.assemble(*((_HALF, f"{upper} on {lower}") for upper, lower in row)))


def _show_description(description: Description) -> None:
    print_text(Text(description.text))
    if description.events:
        print_text(_scores([(event.label, event.confidence) for event in description.events]))
    _show_explanation(description.explanation)


def _show_answer(answer: Answer) -> None:
    print_text(Text.assemble(answer.text, (f"  ({percent(answer.confidence)})", "dim")))
    _show_explanation(answer.explanation)


def _show_classification(classification: Classification) -> None:
    if not classification.detected:
        from pengi.results import NONE_DETECTED

        print_text(Text(NONE_DETECTED))
    if classification.text:
        print_text(Text.assemble(("generated: ", "dim"), classification.text))
    print_text(_label_scores(classification.scores))
    _show_explanation(classification.explanation)


def _show_explanation(explanation: Explanation | None) -> None:
    """Print what an answer is based on."""
    if explanation is None:
        return
    print_text(Text("\nDetected:", style="bold"))
    print_text(tags_table(explanation.tags) if explanation.tags else Text("  nothing"))
    if explanation.transcript is not None:
        print_text(Text.assemble(("Said: ", "bold"), explanation.transcript or "nothing"))
    if explanation.descriptors:
        print_text(Text.assemble(("Measured: ", "bold"), " ".join(explanation.descriptors)))
    if explanation.prompt is None:
        print_text(Text("The language model was not asked.", style="bold"))
    else:
        print_text(Text.assemble(("Read by the language model:\n", "bold"), explanation.prompt))


def _label_scores(scores: Sequence[LabelScore]) -> Table:
    """The shares of labels, and the independent probability of each label if there is one."""
    if all(score.independent is None for score in scores):
        return _scores([(score.label, score.probability) for score in scores])
    table = Table("", box=None, padding=(0, 2), header_style="dim")
    table.add_column("share", justify="right")
    table.add_column("by itself", justify="right")
    for score in scores:
        alone = "" if score.independent is None else percent(score.independent, digits=1)
        table.add_row(Text(score.label), percent(score.probability, digits=1), alone)
    return table


def _scores(scores: Sequence[tuple[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column("label")
    table.add_column("percent", justify="right")
    table.add_column("bar", style="cyan")
    for label, score in scores:
        table.add_row(Text(label), percent(score, digits=1), bar(score, _BAR_COLUMNS, sys.stdout))
    return table
