"""``data``: training data made from recordings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pengi.cli.console import announced, guarded, say, say_json
from pengi.cli.help import Group
from pengi.cli.options import Debug, Json
from pengi.errors import InputError, no_such

if TYPE_CHECKING:
    from pengi.data.datasets import ImportedPart

data = typer.Typer(cls=Group, no_args_is_help=True)


@data.callback()
def _data() -> None:
    """Make training data: compose clips, render instruments, pack clips, import published datasets.

    Examples:
        pengi data import esc50 --root ESC-50-master --out esc50.jsonl
        pengi data compose --manifest esc50.jsonl --count 1000 --out composed
    """


@data.command()
@guarded
def compose(
    manifest: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Labelled clips to mix: a manifest, a CSV file, a folder of label/*.wav, or tar shards.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder for the examples and their manifest.", show_default=False)
    ],
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Number of examples to make.", show_default=False)],
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Split whose clips are mixed: train, val, test or heldout.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choices; another one gives other examples.")] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the wording of each label in captions, see docs/data.md.",
            show_default="labels.jsonl beside the manifest, if there is one",
        ),
    ] = None,
    rate: Annotated[
        int, typer.Option(metavar="HZ", min=8_000, max=48_000, help="Sample rate of the examples, in Hz.")
    ] = 16_000,
    ship_only: Annotated[bool, typer.Option("--ship-only", help="Use only clips whose row says ship: true.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that mix at the same time.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Mix and join labelled clips into new examples whose captions and answers are true by construction.

    Examples:
        pengi data compose --manifest clips.jsonl --count 1000 --out composed
    """
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
def synthesize(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder for the examples and their manifest.", show_default=False)
    ],
    count: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of examples; the instruments take turns.", show_default=False),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choices; another one gives other examples.")] = 0,
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
    rate: Annotated[
        int, typer.Option(metavar="HZ", min=8_000, max=48_000, help="Sample rate of the examples, in Hz.")
    ] = 16_000,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that render at the same time.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Render notes, melodies, chords and drum strokes of General MIDI instruments (needs FluidSynth).

    Examples:
        pengi data synthesize --count 4640 --out synthesized
    """
    with announced("Starting"):
        from pengi.data.manifest import read_manifest
        from pengi.data.synthesize import write_synthesized

    written = write_synthesized(
        out, count=count, seed=seed, soundfont=soundfont, license_name=license_name, rate=rate, workers=workers
    )
    if json:
        examples = len(read_manifest(written, check_audio=False))
        say_json({"manifest": str(written), "examples": examples, "seed": seed})
    else:
        say(Text(str(written)))


@data.command()
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
    debug: Debug = False,
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
    if json:
        say_json({"manifest": str(written), "shards": len(list(written.parent.glob("*.tar")))})
    else:
        say(Text(str(written)))


@data.command("import")
@guarded
def import_(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Dataset, such as esc50 or fma, or table; all names above.", show_default=False
        ),
    ],
    root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the dataset, or one that holds it.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Manifest to write.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a manifest of a published dataset, or of your own table of recordings.

    Sounds and scenes: esc50, urbansound8k, fsd50k, audioset, dcase2017-task4, tut2017, cochlscene, sesa.

    Music and instruments: gtzan, gtzan-music-speech, fma, nsynth, beijing-opera, medley-solos-db.

    Voices: vocalsound, crema-d, ravdess, meld, cmu-mosi, cmu-mosei, msp-podcast, speech-commands, librispeech-gender.

    Captions and questions: audiocaps, clotho, clotho-aqa, mmau, macs, wavcaps.

    Titles, tags and descriptions: wavtext5k, sounddescs, freesound, findsounds.

    Your own: table, a folder of recordings with a CSV, TSV, JSON or Parquet file that describes them.

    Each is also read from Parquet files as on the Hugging Face hub, whose recordings are copied into tar files.

    Other recordings stay where they are.

    Examples:
        pengi data import esc50 --root ESC-50-master --out esc50.jsonl
        pengi data import table --root my-sounds --out my-sounds.jsonl
    """
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
