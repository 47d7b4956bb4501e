"""``tags``: the tags of recordings, without the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, print_json, print_note, print_text
from pengi.cli.exporting import OutputOptions, opened_output
from pengi.cli.inputs import read_arguments
from pengi.cli.options import (
    CommonOptions,
    LabelsFile,
    OnlyLabels,
    OptionalFiles,
    TrackOptions,
    optional_labels,
    parsed_threshold,
)
from pengi.cli.session import load_model, over_files
from pengi.errors import InputError
from pengi.readable import percent

if TYPE_CHECKING:
    from pengi.results import Tags, TagScore

_MAX_SPANS = 6


@dataclass(frozen=True)
class TagOptions:
    """Which tags are listed; None stands for the engine's default."""

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help='Lowest probability of a tag, such as 0.3, or of single labels, such as "0.3, siren=0.7".',
            show_default="0.1, or 0 with --labels",
        ),
    ] = None
    labels: OnlyLabels = None
    labels_file: LabelsFile = None
    top: Annotated[int | None, typer.Option(min=1, help="Print only the N most probable tags.", show_default="all")] = (
        None
    )

    def engine_options(self) -> dict[str, Any]:
        """Keywords of :meth:`pengi.engine.Pengi.tags`.

        Raises:
            InputError: for an invalid threshold, or if no label is given.
        """
        return {
            "threshold": parsed_threshold(self.threshold),
            "labels": optional_labels(self.labels, self.labels_file),
            "top": self.top,
        }


@guarded
def tags(
    *,
    files: OptionalFiles = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List all tags that the model can detect, without reading recordings.")
    ] = False,
    chosen: TagOptions,
    output: OutputOptions,
    reading: TrackOptions,
    common: CommonOptions,
) -> None:
    """List the tags of each recording, with probabilities and times. The language model is not run.

    Examples:
        pengi tags street.wav
        pengi tags --list
        pengi tags recordings/ --labels "siren, dog barking" --threshold 0.3
        pengi tags recordings/ --out tags.csv
    """
    if list_all:
        _show_vocabulary(common.model, as_json=common.json)
        return
    if not files:
        raise InputError("give the recordings, or --list for all tags that the model can detect")
    options = chosen.engine_options()
    target = output.target(as_json=common.json)
    recordings = read_arguments(files)
    engine = load_model(common.model, common.device)
    settings = {"command": "tags", **options, **asdict(reading)}
    with opened_output(target, recordings.names, settings, common.model) as rows:
        over_files(
            recordings,
            lambda part: engine.tags(part, on_error="return", **options, **vars(reading)),
            _show,
            as_json=common.json,
            output=rows,
        )


def _show_vocabulary(model: str, *, as_json: bool) -> None:
    """All tags of a model by group: as JSON in the order of its vocabulary, otherwise in alphabetical order."""
    with announced(f"Loading the tags of {model}"):
        from pengi import checkpoint
        from pengi.conditioning.vocabulary import Vocabulary

        vocabulary = Vocabulary.read(checkpoint.model_folder(model))
    if as_json:
        print_json([{"label": tag.text, "group": tag.group, "phrases": list(tag.phrases)} for tag in vocabulary.tags])
        return
    for group in vocabulary.groups:
        labels = sorted((tag.text for tag in vocabulary.tags if tag.group == group), key=str.casefold)
        print_text(Text(f"{group} ({len(labels)})", style="bold"), Text(", ".join(labels)))


def _show(found: Tags) -> None:
    if found.tags:
        print_text(tags_table(found.tags))
    else:
        print_note("no tag reaches the threshold")


def tags_table(tags: Sequence[TagScore]) -> Table:
    """A line for each tag: its name, strength, probability, group and times."""
    table = Table(box=None, padding=(0, 2), show_header=False)
    for tag in tags:
        times = ", ".join(f"{start_s:.1f}-{end_s:.1f} s" for start_s, end_s in tag.spans[:_MAX_SPANS])
        more = f", {len(tag.spans) - _MAX_SPANS} more" if len(tag.spans) > _MAX_SPANS else ""
        probability = percent(tag.probability, digits=1)
        table.add_row(Text(tag.label), tag.strength, probability, Text(tag.group, style="dim"), times + more)
    return table
