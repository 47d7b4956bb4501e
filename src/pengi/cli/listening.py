"""``describe``, ``ask``, ``classify`` and ``timeline``: recordings in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import guarded, say
from pengi.cli.options import (
    AUTO,
    DEFAULT_MODEL,
    Beams,
    Debug,
    Device,
    File,
    Files,
    Json,
    MaxTokens,
    Model,
    Seed,
    Temperature,
    TopP,
    read_label_lines,
)
from pengi.cli.session import clock, decode_options, load_model, over_files
from pengi.errors import InputError

if TYPE_CHECKING:
    from pengi.results import Answer, Classification, Description, Timeline

_BAR_COLUMNS = 20


@guarded
def describe(
    files: Files,
    model: Model = DEFAULT_MODEL,
    beams: Beams = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Say in a sentence or two what is heard, and name the sound events."""
    options = decode_options(beams=beams, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    engine = load_model(model, device)
    over_files(
        files, lambda part: engine.describe(part, options=options, on_error="return"), _show_description, as_json=json
    )


@guarded
def ask(
    file: File,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In plain words.", show_default=False)],
    model: Model = DEFAULT_MODEL,
    beams: Beams = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Answer a question about a recording."""
    if not question.strip():
        raise InputError('the question is empty; write one, such as "What instrument is playing?"')
    options = decode_options(beams=beams, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    engine = load_model(model, device)
    over_files(
        [file], lambda part: engine.ask(part, question, options=options, on_error="return"), _show_answer, as_json=json
    )


@guarded
def classify(
    files: Files,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar='"A, B, ..."', help="The choices, separated by commas.")
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option("--labels-file", metavar="FILE", help="The choices, one a line.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="likelihood: how likely the model is to say the label, per token; sum: the same for the whole label; "
            "generate: it may write nothing else; match: it writes freely, and the label nearest in meaning wins.",
        ),
    ] = "likelihood",
    top: Annotated[int | None, typer.Option(min=1, help="Print only so many labels.", show_default=False)] = None,
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Choose among labels of your own."""
    choices = chosen_labels(labels, labels_file)
    engine = load_model(model, device)
    over_files(
        files,
        lambda part: engine.classify(part, choices, method=method, top=top, on_error="return"),
        _show_classification,
        as_json=json,
    )


@guarded
def timeline(
    file: File,
    window: Annotated[
        float | None, typer.Option(metavar="S", help="Length of a window, in seconds.", show_default=False)
    ] = None,
    hop: Annotated[
        float | None, typer.Option(metavar="S", help="From one window to the next, in seconds.", show_default=False)
    ] = None,
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Say what happens when, in a recording of any length."""
    given = {"window_s": window, "hop_s": hop}
    for name, seconds in (("--window", window), ("--hop", hop)):
        if seconds is not None and not seconds > 0:
            raise InputError(f"{name} must be more than 0 seconds, not {seconds:g}")
    chosen: dict[str, Any] = {name: seconds for name, seconds in given.items() if seconds is not None}
    engine = load_model(model, device)
    over_files([file], lambda part: engine.timeline(part, **chosen, on_error="return"), _show_timeline, as_json=json)


def chosen_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    """The choices of either ``--labels`` or ``--labels-file``.

    Raises:
        InputError: neither or both are given, or no label is in it.
    """
    if (labels is None) == (labels_file is None):
        raise InputError('give the choices with either --labels "dog, rain, siren" or --labels-file FILE')
    if labels_file is not None:
        return read_label_lines(labels_file)
    assert labels is not None
    choices = list(dict.fromkeys(label.strip() for label in labels.split(",") if label.strip()))
    if not choices:
        raise InputError('--labels holds no label; write some, such as --labels "dog, rain, siren"')
    return choices


def _show_description(description: Description) -> None:
    say(Text(description.text))
    if description.events:
        say(_scores([(event.label, event.confidence) for event in description.events]))


def _show_answer(answer: Answer) -> None:
    say(Text.assemble(answer.text, (f"  ({answer.confidence:.0%})", "dim")))


def _show_classification(classification: Classification) -> None:
    if classification.text:
        say(Text.assemble(("heard: ", "dim"), classification.text))
    say(_scores([(score.label, score.probability) for score in classification.scores]))


def _show_timeline(timeline: Timeline) -> None:
    whole = all(float(bound).is_integer() for part in timeline.segments for bound in (part.start_s, part.end_s))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("time", style="bold", no_wrap=True)
    table.add_column("what is heard")
    table.add_column("confidence", justify="right", style="dim")
    for part in timeline.segments:
        time = f"{clock(part.start_s, tenths=not whole)} - {clock(part.end_s, tenths=not whole)}"
        table.add_row(time, Text(part.text), f"{part.confidence:.0%}")
    say(table)


def _scores(scores: Sequence[tuple[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column("label")
    table.add_column("percent", justify="right")
    table.add_column("bar", style="cyan")
    for label, score in scores:
        table.add_row(Text(label), f"{score:.1%}", "█" * round(score * _BAR_COLUMNS))
    return table
