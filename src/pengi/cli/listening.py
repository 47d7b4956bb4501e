"""``describe``, ``ask``, ``classify`` and ``timeline``: recordings in, words out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer
from rich.table import Table
from rich.text import Text

from pengi.audio.formats import is_regular
from pengi.cli.console import guarded, percentage, say, say_note
from pengi.cli.inputs import Recording, read_arguments
from pengi.cli.options import (
    AUTO,
    DEFAULT_MODEL,
    Beams,
    Debug,
    Device,
    Explain,
    Files,
    Json,
    MaxTokens,
    Model,
    OptionalFiles,
    Partial,
    Seed,
    Temperature,
    TopP,
    Track,
    read_label_lines,
)
from pengi.cli.session import Report, clock, decode_options, load_model, over_files, percent
from pengi.errors import InputError, PengiError

if TYPE_CHECKING:
    from pengi.engine import Pengi
    from pengi.results import Answer, Classification, Description, Explanation, Segment, Timeline

_BAR_COLUMNS = 20
_MAX_SPANS = 6


@guarded
def describe(
    files: Files,
    explain: Explain = False,
    track: Track = None,
    partial: Partial = False,
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
    """Write a caption for each recording and list its sound events, with their probabilities.

    Examples:
        pengi describe street.wav
        pengi describe recordings/ --json
        ffmpeg -i film.mkv -vn -f wav - | pengi describe -
    """
    options = decode_options(beams=beams, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    recordings = read_arguments(files)
    engine = load_model(model, device)
    over_files(
        recordings,
        lambda part: engine.describe(
            part, options=options, explain=explain, on_error="return", track=track, partial=partial
        ),
        _show_description,
        as_json=json,
    )


@guarded
def ask(
    files: OptionalFiles = None,
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="What to ask, in plain words and in quotes; the last argument.", show_default=False
        ),
    ] = "",
    explain: Explain = False,
    track: Track = None,
    partial: Partial = False,
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
    """Answer a question about each recording, with the probability of the answer.

    Examples:
        pengi ask street.wav "is there a siren?"
        pengi ask a.wav b.mp3 "what instrument is playing?" --max-tokens 10
    """
    _check_question(files, question)
    options = decode_options(beams=beams, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    recordings = read_arguments(files or [])
    engine = load_model(model, device)
    over_files(
        recordings,
        lambda part: engine.ask(
            part, question, options=options, explain=explain, on_error="return", track=track, partial=partial
        ),
        _show_answer,
        as_json=json,
    )


@guarded
def classify(
    files: Files,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar='"A, B, ..."', help="Labels to choose from, separated by commas."),
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option("--labels-file", metavar="FILE", help="Text file of labels to choose from, one a line."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="How labels are scored. likelihood: mean log-probability of a label's tokens, and the probability of "
            "the tag that a label names; generate: search restricted to the "
            "labels; match: the model writes freely, and labels are compared with its text in meaning.",
        ),
    ] = "likelihood",
    top: Annotated[
        int | None, typer.Option(min=1, help="Print only the N most probable labels.", show_default="all")
    ] = None,
    explain: Explain = False,
    track: Track = None,
    partial: Partial = False,
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Choose among labels of your own, with a probability for each.

    Examples:
        pengi classify street.wav --labels "rain, siren, dog barking"
        pengi classify recordings/ --labels-file labels.txt --top 3
    """
    choices = chosen_labels(labels, labels_file)
    recordings = read_arguments(files)
    engine = load_model(model, device)
    over_files(
        recordings,
        lambda part: engine.classify(
            part, choices, method=method, top=top, explain=explain, on_error="return", track=track, partial=partial
        ),
        _show_classification,
        as_json=json,
    )


@guarded
def timeline(
    files: Files,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, metavar="P", help="Lowest probability of a tag in an event.", show_default="0.5"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar='"A, B, ..."', help="Detect only these tags, separated by commas."),
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option("--labels-file", metavar="FILE", help="Text file of the only tags to detect, one a line."),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Let the language model name windows of so many seconds one by one, instead of detecting tags.",
            show_default="5 without a tagger",
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time from the start of a window to the start of the next, in seconds; at most --window.",
            show_default="5 without a tagger",
        ),
    ] = None,
    track: Track = None,
    partial: Partial = False,
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """List what happens when, in recordings of any length: the events of detected tags, which may overlap. An event
    appears once it has ended.

    Examples:
        pengi timeline night.ogg
        pengi timeline night.ogg --labels "dog barking, siren" --threshold 0.5
        pengi timeline night.ogg --window 2 --hop 1 --json
    """
    given = {"window_s": window, "hop_s": hop}
    for name, seconds in (("--window", window), ("--hop", hop)):
        if seconds is not None and not seconds > 0:
            raise InputError(f"{name} must be more than 0 seconds, not {seconds:g}")
    chosen: dict[str, Any] = {name: seconds for name, seconds in given.items() if seconds is not None}
    tenths = not all(float(length).is_integer() for length in chosen.values())
    if threshold is not None:
        chosen["threshold"] = threshold
    if labels is not None or labels_file is not None:
        chosen["labels"] = chosen_labels(labels, labels_file)
    reading: Reading = {"track": track, "partial": partial}
    recordings = read_arguments(files)
    engine = load_model(model, device)
    report = Report(recordings, as_json=json)
    for recording in recordings.items:
        try:
            report.result(
                recording.name, _read_timeline(engine, recording, chosen, reading, report, show=not json, tenths=tenths)
            )
        except PengiError as error:
            report.error(recording.name, error)
    report.close()


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


def _check_question(files: list[str] | None, question: str) -> None:
    """Check the last argument, which is the question: it is not empty and not the name of a file.

    Raises:
        InputError: with a sentence that says what to write.
    """
    if os.path.isfile(question):  # noqa: PTH113 - pathlib fails at names as long as questions may be
        raise InputError(f"'{question}' is a file, and the question is missing; write it behind the files, in quotes")
    if not files:
        raise InputError('give the recordings and then a question, such as: pengi ask FILE "is someone speaking?"')
    if not question.strip():
        raise InputError('the question is empty; write one, such as "What instrument is playing?"')


def _show_description(description: Description) -> None:
    say(Text(description.text))
    if description.events:
        say(_scores([(event.label, event.confidence) for event in description.events]))
    _show_explanation(description.explanation)


def _show_answer(answer: Answer) -> None:
    say(Text.assemble(answer.text, (f"  ({percent(answer.confidence)})", "dim")))
    _show_explanation(answer.explanation)


def _show_classification(classification: Classification) -> None:
    if not classification.detected:
        from pengi.results import NONE_DETECTED

        say(Text(NONE_DETECTED))
    if classification.text:
        say(Text.assemble(("heard: ", "dim"), classification.text))
    say(_scores([(score.label, score.probability) for score in classification.scores]))
    _show_explanation(classification.explanation)


def _show_explanation(explanation: Explanation | None) -> None:
    """What an answer was given from, one kind of evidence after the other."""
    if explanation is None:
        return
    say(Text("\nDetected:", style="bold"))
    tags = Table(box=None, padding=(0, 2), show_header=False)
    for tag in explanation.tags:
        times = ", ".join(f"{start_s:.1f}-{end_s:.1f} s" for start_s, end_s in tag.spans[:_MAX_SPANS])
        more = f", {len(tag.spans) - _MAX_SPANS} more" if len(tag.spans) > _MAX_SPANS else ""
        probability = percent(tag.probability, digits=1)
        tags.add_row(Text(tag.label), tag.strength, probability, Text(tag.group, style="dim"), times + more)
    say(tags if explanation.tags else Text("  nothing"))
    if explanation.transcript is not None:
        say(Text.assemble(("Said: ", "bold"), explanation.transcript or "nothing"))
    if explanation.descriptors:
        say(Text.assemble(("Measured: ", "bold"), " ".join(explanation.descriptors)))
    if explanation.prompt is None:
        say(Text("The language model was not asked.", style="bold"))
    else:
        say(Text.assemble(("Read by the language model:\n", "bold"), explanation.prompt))


class Reading(TypedDict):
    """What is read of each recording."""

    track: int | None
    partial: bool


def _read_timeline(
    engine: Pengi,
    recording: Recording,
    chosen: dict[str, Any],
    reading: Reading,
    report: Report,
    *,
    show: bool,
    tenths: bool,
) -> Timeline:
    """A timeline, with a percentage on stderr on the way; its rows are printed as they come if ``show``.

    Raises:
        PengiError: if the recording cannot be read; the rows before the damage are printed.
    """
    from pengi.audio.decode import stated_duration
    from pengi.results import Timeline

    if recording.error is not None:
        raise recording.error
    # A pipe can be read once only, and standard input may be one.
    source = recording.source
    total_s = stated_duration(source, **reading) if isinstance(source, str) and is_regular(source) else None
    of_total = f" of {clock(total_s, tenths=False)}" if total_s else ""
    segments: list[Segment] = []
    notes: list[str] = []
    read_s = 0.0
    with percentage("Reading") as waiting:

        def reached(done_s: float) -> None:
            nonlocal read_s
            read_s = done_s
            waiting.reach(done_s, total_s, clock(done_s, tenths=False) + of_total)

        reached(0.0)
        for segment in engine.segments(source, progress=reached, notes=notes, **chosen, **reading):
            if show:
                with waiting.hidden():
                    if not segments:
                        report.heading(recording.name)
                    say(_row(segment, tenths=tenths))
            segments.append(segment)
    if show and not segments:
        report.heading(recording.name)
        say_note("no event was detected")
    ordered = sorted(segments, key=lambda segment: (segment.start_s, -segment.confidence))
    return Timeline(tuple(ordered), read_s, notes=tuple(notes))


def _row(segment: Segment, *, tenths: bool) -> Text:
    """A segment as a line; times have tenths of a second where they need them."""
    tenths = tenths or not (segment.start_s.is_integer() and segment.end_s.is_integer())
    time = f"{clock(segment.start_s, tenths=tenths)} - {clock(segment.end_s, tenths=tenths)}"
    return Text.assemble((f"{time:<13}", "bold"), (f"  {percent(segment.confidence):>4}", "dim"), f"  {segment.text}")


def _scores(scores: Sequence[tuple[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column("label")
    table.add_column("percent", justify="right")
    table.add_column("bar", style="cyan")
    for label, score in scores:
        table.add_row(Text(label), percent(score, digits=1), "█" * round(score * _BAR_COLUMNS))
    return table
