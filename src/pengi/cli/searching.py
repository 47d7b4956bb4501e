"""``index`` and ``search``: make an index of a folder of recordings, and find recordings in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from pengi.audio.formats import skipped_files_note
from pengi.cli.console import (
    EXIT_USER,
    announced,
    guarded,
    print_error,
    print_json,
    print_note,
    print_result,
    print_text,
    progress,
)
from pengi.cli.exporting import OutputOptions, check_target, opened_output
from pengi.cli.inputs import source_of
from pengi.cli.options import AUTO, CommonOptions, Device, Json
from pengi.cli.session import load_model, with_name
from pengi.readable import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pengi.exports import Target
    from pengi.retrieval.collection import Hit, SearchMode
    from pengi.retrieval.updating import Changes

_URL = "a folder, or an object store such as s3://bucket/index"
IndexPath = Annotated[
    str, typer.Argument(metavar="INDEX", help=f"Index that `pengi index` made: {_URL}.", show_default=False)
]


@guarded
def index(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of recordings at any depth.", show_default=False)
    ],
    db: Annotated[
        str,
        typer.Option("--db", metavar="INDEX", help=f"The index to make or update: {_URL}.", show_default=False),
    ],
    *,
    common: CommonOptions,
) -> None:
    """Make an index of a folder of recordings, for `pengi search`. For an existing index the command adds new and
    changed recordings and removes those that are gone.

    Examples:
        pengi index recordings/ --db sounds.index
    """
    from pengi.retrieval import Collection
    from pengi.retrieval.updating import recordings_below

    recordings_below(folder)  # a wrong folder or index is an error before a model is loaded
    collection = Collection.open(db, create=True)
    engine = load_model(common.model, common.device)
    with progress("Reading", 0) as waiting:
        changes = collection.update(folder, engine, waiting.reach)
    for path, error in changes.failed:
        print_error(with_name(path, error))
    windows = len(collection)
    value = {"db": db, "windows_in_all": windows, **changes.to_dict()}
    print_result(value, _summary(changes, windows), as_json=common.json)
    if changes.skipped:
        print_note(skipped_files_note(changes.skipped, folder))
    if changes.failed:
        raise typer.Exit(EXIT_USER)


@dataclass(frozen=True)
class SearchOptions:
    """Filters of the hits, and their number."""

    like: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Find recordings that sound like this one; - is one on standard input. May be combined with QUERY.",
        ),
    ] = None
    where: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="SQL",
            help='SQL condition that hits must meet, such as "duration_s > 5" (columns: docs/search.md).',
        ),
    ] = None
    mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="What is compared. text: the words themselves; vector: embeddings of their meaning and of the sound; "
            "hybrid: both.",
        ),
    ] = "hybrid"
    limit: Annotated[int, typer.Option("--limit", "-n", help="Print at most N hits.")] = 10


@guarded
def search(
    path: IndexPath,
    query: Annotated[
        str | None,
        typer.Argument(metavar="QUERY", help="What to find, in plain words and in quotes.", show_default=False),
    ] = None,
    *,
    options: SearchOptions,
    output: OutputOptions,
    json: Json = False,
    device: Device = AUTO,
) -> None:
    """Find recordings in an index by words, by a similar recording, or by both.

    Examples:
        pengi search sounds.index "rain on a tin roof"
        pengi search sounds.index --like thunder.wav --filter "duration_s > 5"
        pengi search sounds.index "church bells" --out bells.csv
    """
    target = output.target(as_json=json)
    from pengi.retrieval import Collection

    with announced("Searching"):
        collection = Collection.open(path, device=device)
        recording = None if options.like is None else source_of(options.like)
        hits = collection.search(query, recording, options.where, options.limit, cast("SearchMode", options.mode))
    if target is not None:
        _write(target, hits, {"command": "search", "index": path, "query": query, **asdict(options)})
    elif json:
        print_json([hit.to_dict() for hit in hits])
    elif hits:
        print_text(_table(hits))
    else:
        print_note("nothing was found")


def _write(target: Target, hits: Sequence[Hit], settings: dict[str, Any]) -> None:
    """Write hits as rows, the best first if the format allows it; in a folder each recording has a file."""
    from pengi.exports import rows_of_hits

    names = list(dict.fromkeys(hit.path for hit in hits))
    lengths_s = {hit.path: hit.duration_s for hit in hits}
    with opened_output(target, names, settings) as output:
        assert output is not None
        if target.is_folder or target.format.is_ordered:
            for name in names:
                its_rows = rows_of_hits(hit for hit in hits if hit.path == name)
                output.add(name, its_rows, partial(lengths_s.__getitem__, name))
        elif hits:
            output.export.add(names[0], rows_of_hits(hits))
    if not hits:
        print_note("nothing was found")


def _summary(changes: Changes, windows: int) -> str:
    counts = {
        "new": changes.added,
        "changed": changes.changed,
        "moved or copied": changes.copied,
        "unchanged": changes.unchanged,
        "removed": changes.removed,
        "unusable": len(changes.failed),
    }
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return f"{', '.join(parts)}; {windows} windows in the index"


def _table(hits: Sequence[Hit]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("score", justify="right", style="dim", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("file", style="bold", overflow="fold")
    table.add_column("text")
    for hit in hits:
        in_seconds = float(hit.start_s).is_integer() and float(hit.end_s).is_integer()
        time = f"{clock(hit.start_s, tenths=not in_seconds)} - {clock(hit.end_s, tenths=not in_seconds)}"
        table.add_row(f"{hit.score:.2f}", time, Text(hit.path), Text(hit.text))
    return table


@guarded
def export_index(
    path: IndexPath,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="File to write, ending in .parquet or .npz.", show_default=False),
    ],
    json: Json = False,
) -> None:
    """Write the windows of an index to a file: paths, times, texts, tags and vectors, for NumPy, pandas and others.

    Examples:
        pengi export-index sounds.index --out sounds.parquet
        pengi export-index sounds.index --out sounds.npz
    """
    from pengi.retrieval import Collection

    check_target(out)
    collection = Collection.open(path)
    with announced("Exporting"):
        count = collection.export(out)
    print_result({"out": str(out), "windows": count}, f"{out}: {count} windows", as_json=json)
