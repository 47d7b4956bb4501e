"""The options of ``pengi eval``, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE.jsonl",
        help="Manifest of labelled clips, see docs/data.md; with --suite for the benchmarks on local data.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class TaskOptions:
    """One task on the clips of a manifest."""

    panel: ClassVar = "One task"

    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="Task of the clips: events, scene, digit, keyword, gender, language, instrument, velocity, emotion, "
            "genre or sentiment.",
            show_default=False,
        ),
    ] = None
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Split of the manifest to measure on: train, val, test or heldout.")
    ] = "val"
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Measure only on clips whose row has this source.", show_default="all"),
    ] = None
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="How labels are scored: an answer mode such as likelihood, generate or match (docs/evaluation.md), or "
            "yamnet-match, a baseline without the model.",
        ),
    ] = "likelihood"
    labels_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The labels to choose from, in a text file, one per line.",
            show_default="all labels that the clips have",
        ),
    ] = None


@dataclass(frozen=True)
class SuiteOptions:
    """A suite of benchmarks."""

    panel: ClassVar = "A suite"

    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Suite of benchmarks to run: paper (published datasets), local (a manifest) or quick (a few clips).",
            show_default=False,
        ),
    ] = None
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            metavar="NAME",
            help="Run this benchmark, of the suite or alone; may be repeated.",
            show_default="all of the suite",
        ),
    ] = None
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of published datasets, each in a folder of its own (names: docs/evaluation.md).",
        ),
    ] = None
    modes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Answer modes to measure, such as likelihood,match.",
            show_default="those of each benchmark",
        ),
    ] = None
    baselines: Annotated[bool, typer.Option(help="Also measure a stock tagger, and the model on silence.")] = True


@dataclass(frozen=True)
class RunOptions:
    """Which clips are measured, and where the run is stored."""

    panel: ClassVar = "The run"

    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure on at most N clips (of each benchmark), always the same ones.", show_default="all"
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the run, with every prediction and a report; a suite needs one.",
            show_default=False,
        ),
    ] = None
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Do only part I of N, so that N machines share the work; all parts have the same --out."
        ),
    ] = "1/1"
    report_audio: Annotated[
        str,
        typer.Option(
            metavar="WHICH", help="Recordings in the HTML report: free (those with redistribute: true), all or none."
        ),
    ] = "free"
