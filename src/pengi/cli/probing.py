"""``probe``: the accuracy of small heads on the embeddings of encoders, on labelled clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, print_json, print_text, progress
from pengi.cli.options import AUTO, DEFAULT_MODEL, Device, Json


@dataclass(frozen=True)
class DataOptions:
    """The clips, and what is predicted."""

    manifest: Annotated[
        Path,
        typer.Option(metavar="FILE.jsonl", help="Manifest of labelled clips, see docs/data.md.", show_default=False),
    ]
    field: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="FIELD",
            help="What is predicted: events, or an attribute of the clips such as keyword.",
            show_default=False,
        ),
    ]
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Split of the manifest to test on: train, val, test or heldout.")
    ] = "val"
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Use only clips whose row has this source.", show_default="all"),
    ] = None
    folds: Annotated[
        int,
        typer.Option(
            min=2, help="Number of folds of the cross-validation, for data without folds and without a training split."
        ),
    ] = 5


@guarded
def probe(
    *,
    data: DataOptions,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Encoder to measure: a model or yamnet; may be repeated.",
            show_default=f"{DEFAULT_MODEL} and yamnet",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder where embeddings are cached.", show_default="the user's cache"),
    ] = None,
    json: Json = False,
    device: Device = AUTO,
) -> None:
    """Measure a frozen encoder by linear probes: the accuracy of one layer (L1) and of three layers (L3) trained on its
    embeddings.

    Examples:
        pengi probe --manifest clips.jsonl --task events
        pengi probe --manifest clips.jsonl --task keyword --encoder yamnet
    """
    with announced("Starting"):
        from pengi import probing, weights
    clips = probing.probe_data(data.manifest, data.field, split=data.split, source=data.source, folds=data.folds)
    kept = cache or weights.cache_folder().parent / "embeddings"
    rows: list[dict[str, Any]] = []
    for name in encoder or [DEFAULT_MODEL, probing.YAMNET]:
        with announced(f"Loading {name}"):
            loaded = probing.encoder_by_name(name, device)
        with progress(f"Reading with {name}", len(clips.recordings)) as waiting:
            rows += [asdict(found) for found in probing.probe(loaded, clips, kept, waiting.advance)]
    report = {
        "task": data.field,
        "source": data.source,
        "split": data.split,
        "labels": sorted(set(clips.labels)),
        "scheme": clips.scheme,
        "probes": rows,
    }
    if json:
        print_json(report)
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    print_text(
        Text(f"{report['task']}, {report['split']}: {len(report['labels'])} labels, {report['scheme']}", style="bold")
    )
    table = Table(box=None, padding=(0, 2), show_header=False)
    for row in report["probes"]:
        low, high = row["ci95"]
        table.add_row(
            row["encoder"], row["head"], f"{row['accuracy']:.3f} (95 % {low:.3f} to {high:.3f})", f"n {row['n']}"
        )
    print_text(table)
