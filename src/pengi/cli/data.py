"""``data``: makes training data from recordings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pengi.cli.console import announced, guarded, print_json, print_result, print_text
from pengi.cli.exporting import check_target
from pengi.cli.help import Command, Group
from pengi.cli.options import Json
from pengi.errors import InputError, no_such

if TYPE_CHECKING:
    from pengi.data.datasets import Imported, ImportedPart
    from pengi.data.manifest import Clip

ExamplesFolder = Annotated[
    Path, typer.Option(metavar="FOLDER", help="New folder for the examples and their manifest.", show_default=False)
]
ExamplesSeed = Annotated[
    int, typer.Option(min=0, help="Seed of the random choices; another seed gives other examples.")
]
Rate = Annotated[int, typer.Option(metavar="HZ", min=8_000, max=48_000, help="Sample rate of the examples, in Hz.")]
Workers = Annotated[int, typer.Option(min=1, help="Number of processes.")]


@dataclass(frozen=True)
class ClipOptions:
    """The clips that are mixed."""

    manifest: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Labelled clips to mix: a manifest, a CSV file, a folder of label/*.wav, or tar shards.",
            show_default=False,
        ),
    ]
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Split whose clips are mixed: train, val, test or heldout.")
    ] = "train"
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the wording of each label in captions, see docs/data.md.",
            show_default="labels.jsonl beside the manifest, if there is one",
        ),
    ] = None
    ship_only: Annotated[bool, typer.Option("--ship-only", help="Use only clips whose row says ship: true.")] = False


data = typer.Typer(name="data", cls=Group, no_args_is_help=True)


@data.callback()
def _data() -> None:
    """Make training data: compose clips, render instruments, pack clips, import published datasets.

    Examples:
        pengi data import esc50 --root ESC-50-master --out esc50.jsonl
        pengi data compose --manifest esc50.jsonl --count 1000 --out composed
    """


@data.command(cls=Command)
@guarded
def compose(
    *,
    clips: ClipOptions,
    out: ExamplesFolder,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Number of examples to make.", show_default=False)],
    seed: ExamplesSeed = 0,
    rate: Rate = 16_000,
    workers: Workers = 1,
    json: Json = False,
) -> None:
    """Mix and join labelled clips into new examples whose captions and answers are true by construction.

    Examples:
        pengi data compose --manifest clips.jsonl --count 1000 --out composed
    """
    with announced("Starting"):
        from pengi.data.compose import write_composed

    chosen, labels, root = _labelled_clips(clips)
    written = write_composed(chosen, labels, root, out, count=count, seed=seed, rate=rate, workers=workers)
    _show_written(written, json, seed=seed, split=clips.split)


@data.command(cls=Command)
@guarded
def synthesize(
    out: ExamplesFolder,
    count: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of examples; each instrument has its share.", show_default=False),
    ],
    seed: ExamplesSeed = 0,
    soundfont: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="General MIDI soundfont (SF2 or SF3).",
            show_default="FluidR3_GM.sf2, where it is installed",
        ),
    ] = None,
    license_name: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="SPDX",
            help="Licence of the soundfont, for rows of the manifest; MIT or CC0-1.0 makes them ship: true.",
            show_default="that of a known soundfont",
        ),
    ] = None,
    rate: Rate = 16_000,
    workers: Workers = 1,
    json: Json = False,
) -> None:
    """Render notes, melodies, chords and drum strokes of General MIDI instruments (needs FluidSynth).

    Examples:
        pengi data synthesize --count 4640 --out synthesized
    """
    with announced("Starting"):
        from pengi.data.synthesize import write_synthesized

    written = write_synthesized(
        out, count=count, seed=seed, soundfont=soundfont, license_name=license_name, rate=rate, workers=workers
    )
    _show_written(written, json, seed=seed)


@data.command(cls=Command)
@guarded
def pack(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Clips to pack: a manifest, a CSV file or a folder of label/*.wav.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder for the shards and their manifest.", show_default=False)
    ],
    shard_mb: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Largest size of a shard, in millions of bytes.")
    ] = 1000,
    json: Json = False,
) -> None:
    """Pack recordings and their labels into tar shards (WebDataset layout), which can be trained on like files.

    Examples:
        pengi data pack clips.jsonl --out shards --shard-mb 500
    """
    with announced("Starting"):
        from pengi.data.shards import write_shards
        from pengi.data.sources import manifest_of

    found = manifest_of(source)
    written = write_shards(found.clips, found.root, out, max_bytes=shard_mb * 1_000_000)
    shards = len(list(written.parent.glob("*.tar")))
    print_result({"manifest": str(written), "shards": shards}, str(written), as_json=json)


@data.command("import", cls=Command)
@guarded
def import_(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the dataset, such as esc50 or fma, or table. All names are listed above.",
            show_default=False,
        ),
    ],
    root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the dataset, or one that holds it.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Manifest to write.", show_default=False)],
    json: Json = False,
) -> None:
    """Write a manifest of a published dataset, or of your own table of recordings.

    Sounds and scenes: esc50, urbansound8k, fsd50k, audioset, dcase2017-task4, tut2017, cochlscene, sesa.

    Music and instruments: gtzan, gtzan-music-speech, fma, nsynth, beijing-opera, medley-solos-db.

    Voices: vocalsound, crema-d, ravdess, meld, cmu-mosi, cmu-mosei, msp-podcast, speech-commands, librispeech-gender.

    Captions and questions: audiocaps, clotho, clotho-aqa, mmau, macs, wavcaps.

    Titles, tags and descriptions: wavtext5k, sounddescs, freesound, findsounds.

    Your own: table, a folder of recordings with a CSV, TSV, JSON or Parquet file that describes them.

    Each is also read from Parquet files as on the Hugging Face hub, whose recordings are copied into tar files.

    The recordings of other formats are not copied.

    Examples:
        pengi data import esc50 --root ESC-50-master --out esc50.jsonl
        pengi data import table --root my-sounds --out my-sounds.jsonl
    """
    from pengi.data.datasets import dataset, import_dataset

    check_target(out, ".jsonl")
    adapter = dataset(name)
    done = import_dataset(name, root, out)
    if json:
        print_json({**asdict(done), "manifest": str(done.manifest)})
    else:
        _show_imported(done, f"{adapter.title}, {adapter.license}", root)


def _labelled_clips(options: ClipOptions) -> tuple[list[Clip], Any, Path]:
    """The clips to mix, the wording of their labels, and the folder of their paths."""
    from pengi.data.manifest import SPLITS, read_labels
    from pengi.data.sources import manifest_of
    from pengi.data.tasks import labels_of

    if options.split not in SPLITS:
        raise InputError(no_such("split", options.split, SPLITS))
    source = manifest_of(options.manifest)
    clips = [clip for clip in source.clips if clip.split == options.split and (clip.ship or not options.ship_only)]
    if not clips:
        which = " that may ship" if options.ship_only else ""
        raise InputError(f"there are no clips of split '{options.split}'{which} in '{options.manifest}'")
    beside = source.root / "labels.jsonl"
    wording = options.labels or (beside if beside.is_file() else None)
    return clips, labels_of(clips, read_labels(wording) if wording else {}), source.root


def _show_written(manifest: Path, json: bool, **settings: Any) -> None:
    """Print the manifest of new examples, and the settings that they were made with."""
    from pengi.data.manifest import read_manifest

    if json:
        examples = len(read_manifest(manifest, check_audio=False))
        print_json({"manifest": str(manifest), "examples": examples, **settings})
    else:
        print_text(Text(str(manifest)))


def _show_imported(done: Imported, title: str, root: Path) -> None:
    splits = ", ".join(f"{count:,} {split}" for split, count in done.splits.items())
    print_text(Text(f"{done.manifest}: {splits}; {title}"))
    found = ", ".join(f"{part.name} ({_counts(part)})" for part in done.parts if part.found)
    absent = ", ".join(f"{part.name} ({part.split})" for part in done.parts if not part.found)
    if found:
        print_text(Text(f"found: {found}"))
    if absent:
        print_text(Text(f"not found: {absent}"))
    if done.missing:
        print_text(Text(f"missing in {root}: {_of(done.missing, 'recording')}, such as {', '.join(done.examples)}"))


def _counts(part: ImportedPart) -> str:
    """How many recordings of a part were imported, and how many not."""
    counts = {"missing": part.missing, "without a label": part.unused}
    return ", ".join([_of(part.clips, "clip"), *(f"{count:,} {what}" for what, count in counts.items() if count)])


def _of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
