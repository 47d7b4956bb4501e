"""``eval``: a manifest and a task in, one report out."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, progress, say, say_json, say_note
from pengi.cli.files import check_target, written_whole
from pengi.cli.options import AUTO, DEFAULT_MODEL, Debug, Device, Json, Model, read_label_lines
from pengi.cli.session import load_model
from pengi.errors import InputError

if TYPE_CHECKING:
    from pengi.evaluation.runner import Classifier

# Its methods are `yamnet-match` and variants of it; the names alone are known without importing torch.
_BASELINE = "yamnet-match"


@guarded
def evaluate(
    manifest: Annotated[Path, typer.Option(metavar="M.jsonl", help="Labelled clips.", show_default=False)],
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="events, digit, keyword, gender, language, instrument, emotion, genre, scene.",
            show_default=False,
        ),
    ],
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val, test, heldout.")] = "val",
    source: Annotated[str | None, typer.Option(metavar="SLUG", help="Only clips of this source.")] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="likelihood, sum, generate or match; yamnet-match and yamnet-match-mean are baselines.",
        ),
    ] = "likelihood",
    labels: Annotated[
        str, typer.Option(metavar="auto|FILE", help="The choices: the labels present, or a file with one a line.")
    ] = AUTO,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many clips, always the same ones.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="P.jsonl", help="Write every prediction here.")] = None,
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Measure accuracy on labelled clips, with a 95 % confidence interval."""
    if out is not None:
        check_target(out)
    with announced("Reading the manifest"):
        from pengi.evaluation import runner
    choices = None if labels == AUTO else read_label_lines(Path(labels))
    selection = runner.select(manifest, task=task, split=split, source=source, labels=choices, limit=limit)
    if method.startswith(_BASELINE):
        model, prompt = "yamnet", None
        classify = _baseline(method)
    else:
        prompt = selection.task.prompt
        classify = runner.engine_classifier(load_model(model, device), method, prompt)
    with progress("Listening", len(selection.clips)) as waiting:
        rows, seconds = runner.run(selection, classify, waiting.advance)
    if out is not None:
        with written_whole(out) as partial:
            lines = [dumps(row, ensure_ascii=False) + "\n" for row in rows]
            partial.write_text("".join(lines), encoding="utf-8")
    report = runner.report(selection, rows, method=method, model=model, seconds=seconds, prompt=prompt)
    if json:
        say_json(report)
    else:
        _show(report)


def _baseline(method: str) -> Classifier:
    with announced("Loading yamnet"):
        from pengi.evaluation.baselines import POOLS, YamnetMatch

        if method not in POOLS:
            raise InputError(f"there is no method '{method}'; the baselines are {', '.join(POOLS)}")
        return YamnetMatch.from_pretrained(method)


def _show(report: dict[str, Any]) -> None:
    low, high = report["ci95"]
    source = f" of {report['source']}" if report["source"] else ""
    say(
        Text(f"{report['task']}, {report['split']}{source}: {report['method']} of {report['model']}", style="bold"),
        Text(
            f"accuracy {report['accuracy']:.3f} (95 % {low:.3f} to {high:.3f}), {report['correct']} of {report['n']} "
            f"clips, {len(report['labels'])} labels, mean recall {report['mean_recall']:.3f}"
        ),
    )
    table = Table(box=None, padding=(0, 2), show_header=False)
    for label, score in sorted(report["per_class"].items(), key=lambda item: -item[1]["accuracy"]):
        table.add_row(Text(label), f"{score['accuracy']:.2f}", f"{score['correct']} of {score['n']}")
    say(table)
    if report["errors"]:
        say_note(f"{_clips(len(report['errors']))} could not be used, which counts as wrong:")
        for row in report["errors"]:
            say_note(f"  {row['id']}: {row['error']}")
    if report["left_out"]:
        say_note(f"{_clips(report['left_out'])} left out for having none of the given labels")


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"
