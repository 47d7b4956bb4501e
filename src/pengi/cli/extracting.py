"""``extract``: cuts the events of a timeline out of their recordings for a review."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pengi.cli.console import EXIT_USER, guarded, print_error, print_result
from pengi.cli.options import Json, chosen_labels

if TYPE_CHECKING:
    from pengi.clips import Choice


@dataclass(frozen=True)
class ChoiceOptions:
    """Which events are cut out, and how."""

    labels: Annotated[
        str | None,
        typer.Option(
            metavar='"A, B, ..."',
            help="Cut out only these labels, separated by commas.",
            show_default="all but silence",
        ),
    ] = None
    min_confidence: Annotated[
        float | None,
        typer.Option(metavar="P", help="Cut out only events with at least this confidence.", show_default="any"),
    ] = None
    max_confidence: Annotated[
        float | None,
        typer.Option(metavar="P", help="Cut out only events with at most this confidence.", show_default="any"),
    ] = None
    padding: Annotated[float, typer.Option(metavar="SECONDS", help="Seconds before and after each event.")] = 0.0
    limit: Annotated[
        int | None, typer.Option(help="At most N clips of each label, the most confident first.", show_default="all")
    ] = None


@guarded
def extract(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="EVENTS",
            help="Events: a .csv, .jsonl or .parquet file of `pengi timeline --out` or `pengi run`.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder for the clips and review.csv.", show_default=False)
    ],
    choice: ChoiceOptions,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the recordings, if their paths do not begin here or beside EVENTS.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Cut events out of their recordings, and list them in review.csv. Correct its labels (several are separated by
    semicolons; leave a label empty where nothing is to be detected) or delete rows, and train with
    `data.manifest=FOLDER/review.csv`.

    Examples:
        pengi extract events.csv --labels siren --padding 1 --out review
        pengi extract events.csv --max-confidence 0.8 --limit 50 --out unsure
    """
    from pengi.clips import REVIEW_FILE
    from pengi.clips import extract as cut_out
    from pengi.job_exports import read_rows

    folders = [table.parent] if root is None else [root, table.parent]
    found = cut_out(read_rows(table), out, _choice_of(choice), folders)
    for error in found.errors.values():
        print_error(str(error))
    review = out / REVIEW_FILE
    errors = [{"input": name, "error": str(error)} for name, error in found.errors.items()]
    value = {"out": str(out), "review": str(review), "clips": len(found.clips), "errors": errors}
    print_result(value, f"{review}: {len(found.clips)} clips", as_json=json)
    if found.errors:
        raise typer.Exit(EXIT_USER)


def _choice_of(options: ChoiceOptions) -> Choice:
    from pengi.clips import Choice

    return Choice(
        labels=None if options.labels is None else tuple(chosen_labels(options.labels, None)),
        min_confidence=-math.inf if options.min_confidence is None else options.min_confidence,
        max_confidence=math.inf if options.max_confidence is None else options.max_confidence,
        padding_s=options.padding,
        limit=options.limit,
    )
