"""``data``: training data made from recordings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pengi.cli.console import announced, guarded, say, say_json
from pengi.cli.options import Debug, Json
from pengi.errors import InputError, no_such

if TYPE_CHECKING:
    from pengi.data.datasets import ImportedPart

data = typer.Typer(no_args_is_help=True, help="Make training data from recordings.")


@data.command()
@guarded
def compose(
    manifest: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Labelled clips: a manifest, a CSV file, a folder of label/*.wav, or shards.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the examples.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many examples.", show_default=False)],
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Which clips are used; splits are never mixed.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other examples.")] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="How labels are said; labels.jsonl beside the manifest if it is there.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[int, typer.Option(metavar="HZ", min=8_000, max=48_000, help="Sample rate of the files.")] = 16_000,
    ship_only: Annotated[bool, typer.Option("--ship-only", help="Only clips whose row says ship: true.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that mix.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Mix and join labelled clips into new examples whose captions and answers are true by construction."""
    with announced("Starting"):
        from pengi.data.compose import write_composed
        from pengi.data.manifest import SPLITS, read_labels, read_manifest
        from pengi.data.sources import manifest_of
        from pengi.data.tasks import labels_of

    if split not in SPLITS:
        raise InputError(no_such("split", split, SPLITS))
    source = manifest_of(manifest)
    clips = [clip for clip in source.clips if clip.split == split and (clip.ship or not ship_only)]
    if not clips:
        which = " that may ship" if ship_only else ""
        raise InputError(f"there are no clips of split '{split}'{which} in '{manifest}'")
    beside = source.root / "labels.jsonl"
    wording = labels or (beside if beside.is_file() else None)
    known = read_labels(wording) if wording else {}
    written = write_composed(
        clips, labels_of(clips, known), source.root, out, count=count, seed=seed, rate=rate, workers=workers
    )  # fmt: skip
    if json:
        examples = len(read_manifest(written, check_audio=False))
        say_json({"manifest": str(written), "examples": examples, "seed": seed, "split": split})
    else:
        say(Text(str(written)))


@data.command()
@guarded
def pack(
    source: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A manifest, a CSV file or a folder of label/*.wav.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the shards.", show_default=False)],
    shard_mb: Annotated[int, typer.Option(min=1, metavar="MB", help="Largest shard, in millions of bytes.")] = 1000,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Pack recordings and their labels into tar shards (WebDataset layout), which train like files."""
    with announced("Starting"):
        from pengi.data.shards import write_shards
        from pengi.data.sources import manifest_of

    found = manifest_of(source)
    written = write_shards(found.clips, found.root, out, most_bytes=shard_mb * 1_000_000)
    if json:
        say_json({"manifest": str(written), "shards": len(list(written.parent.glob("*.tar")))})
    else:
        say(Text(str(written)))


@data.command("import")
@guarded
def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as esc50 or clotho.", show_default=False)],
    root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the dataset, or one that holds it.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="M.jsonl", help="The manifest to write.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a manifest of a published dataset as it lies on disk; the recordings stay where they are."""
    from pengi.cli.files import check_target
    from pengi.data.datasets import dataset, import_dataset

    check_target(out, ".jsonl")
    adapter = dataset(name)
    done = import_dataset(name, root, out)
    if json:
        say_json({**asdict(done), "manifest": str(done.manifest)})
        return
    splits = ", ".join(f"{count:,} {split}" for split, count in done.splits.items())
    say(Text(f"{done.manifest}: {splits}; {adapter.title}, {adapter.license}"))
    found = ", ".join(f"{part.name} ({_counts(part)})" for part in done.parts if part.found)
    absent = ", ".join(f"{part.name} ({part.split})" for part in done.parts if not part.found)
    if found:
        say(Text(f"found: {found}"))
    if absent:
        say(Text(f"not found: {absent}"))
    if done.missing:
        say(Text(f"missing in {root}: {_of(done.missing, 'recording')}, such as {', '.join(done.examples)}"))


def _counts(part: ImportedPart) -> str:
    """How many recordings of a part were imported, and how many not."""
    counts = {"missing": part.missing, "without a label": part.unused}
    return ", ".join([_of(part.clips, "clip"), *(f"{count:,} {what}" for what, count in counts.items() if count)])


def _of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
