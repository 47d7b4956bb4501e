"""``eval``: a manifest and a task in, one report out; or a suite of benchmarks. ``eval compare``: two such runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, progress, say, say_json, say_note
from pengi.cli.files import check_target
from pengi.cli.help import Group
from pengi.cli.options import AUTO, DEFAULT_MODEL, Debug, Device, Json, Model, read_label_lines
from pengi.cli.session import load_model
from pengi.errors import InputError, no_such
from pengi.writing import replacing, writing

if TYPE_CHECKING:
    from pengi.evaluation.runner import Classifier
    from pengi.evaluation.suites import Plan

# Its methods are `yamnet-match` and variants of it; the names alone are known without importing torch.
_BASELINE = "yamnet-match"


evaluation = typer.Typer(
    cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)

_TASK, _SUITE = "One task", "A suite"


@evaluation.callback()
@guarded
def evaluate(
    context: typer.Context,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Manifest of labelled clips, see docs/data.md; with --suite for the benchmarks on local data.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="What is asked about the clips: events, digit, keyword, gender, language, instrument, emotion, genre "
            "or scene.",
            show_default=False,
            rich_help_panel=_TASK,
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="SPLIT",
            help="Split of the manifest to measure on: train, val, test or heldout.",
            rich_help_panel=_TASK,
        ),
    ] = "val",
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Measure only on clips whose row has this source.",
            show_default="all",
            rich_help_panel=_TASK,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="How labels are scored: likelihood, sum, generate or match (see `pengi classify --help`), or a "
            "baseline without the model: yamnet-match or yamnet-match-mean.",
            rich_help_panel=_TASK,
        ),
    ] = "likelihood",
    labels: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Text file of labels to choose from, one a line; auto takes all labels that the clips have.",
            rich_help_panel=_TASK,
        ),
    ] = AUTO,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Measure on at most N clips (of each benchmark), always the same ones.",
            show_default="all",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="File to write every prediction to (.jsonl); with --suite, the folder of the run."
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Suite of benchmarks to run: paper (published datasets), local (a manifest) or quick (a few clips).",
            show_default=False,
            rich_help_panel=_SUITE,
        ),
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            metavar="NAME",
            help="Run this benchmark, of the suite or alone; may be repeated.",
            show_default="all of the suite",
            rich_help_panel=_SUITE,
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of published datasets, each in a folder of its own (names: docs/evaluation.md).",
            rich_help_panel=_SUITE,
        ),
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Ways to answer that are measured, such as likelihood,match.",
            show_default="those of each benchmark",
            rich_help_panel=_SUITE,
        ),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N, so that N machines share the work; all parts have the same --out.",
            rich_help_panel=_SUITE,
        ),
    ] = "1/1",
    baselines: Annotated[
        bool,
        typer.Option(help="Measure a stock tagger, and the model on silence, as well.", rich_help_panel=_SUITE),
    ] = True,
    cached: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache", help="Use answers of earlier runs of the same model.", rich_help_panel=_SUITE
        ),
    ] = True,
    listen: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Recordings that the HTML report holds: free (those that may be passed on), all or none.",
            rich_help_panel=_SUITE,
        ),
    ] = "free",
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Measure a model on labelled clips: one task, or with --suite a suite of benchmarks with a report.

    Examples:
        pengi eval --manifest clips.jsonl --task events --split test
        pengi eval --suite quick --manifest clips.jsonl --out runs/quick
    """
    if context.invoked_subcommand is not None:
        return
    if suite is not None or benchmarks:
        _no_task(task)
        plan = _plan(suite, benchmarks or [], manifest, data_root, modes, shard, limit, baselines)
        _suite(plan, _run_folder(out), cached, listen, model, device, json)
        return
    if manifest is None or task is None:
        raise InputError("name the clips and the task with --manifest and --task, or a suite with --suite")
    _one_task(manifest, task, split, source, method, labels, limit, out, model, json, device)


def _one_task(
    manifest: Path,
    task: str,
    split: str,
    source: str | None,
    method: str,
    labels: str,
    limit: int | None,
    out: Path | None,
    model: str,
    json: bool,
    device: str,
) -> None:
    """Accuracy with a 95 % confidence interval."""
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
    with progress("Reading", len(selection.clips)) as waiting:
        rows, seconds = runner.run(selection, classify, waiting.advance)
    if out is not None:
        with replacing(out) as partial:
            lines = [dumps(row, ensure_ascii=False) + "\n" for row in rows]
            partial.write_text("".join(lines), encoding="utf-8")
    report = runner.report(selection, rows, method=method, model=model, seconds=seconds, prompt=prompt)
    if json:
        say_json(report)
    else:
        _show(report)


@evaluation.command("compare")
@guarded
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN_A", help="Folder that `pengi eval --suite` wrote.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of another run.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two runs of a suite over the items that both have answered: the difference B - A of each metric, with a
    95 % confidence interval and a p-value.

    Examples:
        pengi eval compare runs/before runs/after
    """
    with announced("Starting"):
        from pengi.evaluation.comparing import compare as compare_runs
    rows = compare_runs(first, second)
    if json:
        say_json(rows)
        return
    table = Table(box=None, padding=(0, 2))
    for name in ("benchmark", "system", "mode", "metric", "n", "B less A (95 %)", "p"):
        table.add_column(name)
    for row in rows:
        low, high = row["ci95"]
        change = f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        p = row.get("p_mcnemar", row["p_bootstrap"])
        table.add_row(row["benchmark"], row["system"], row["mode"], row["metric"], str(row["n"]), change, f"{p:.3f}")
    say(table)


def _no_task(task: str | None) -> None:
    if task is not None:
        raise InputError("--task and --suite do not go together; a suite has its own tasks")


def _run_folder(out: Path | None) -> Path:
    if out is None:
        raise InputError("name a folder for the run with --out")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out '{out}' is a file; a suite needs a folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


def _plan(
    suite: str | None,
    benchmarks: list[str],
    manifest: Path | None,
    data_root: Path | None,
    modes: str | None,
    shard: str,
    limit: int | None,
    baselines: bool,
) -> Plan:
    with announced("Starting"):
        from pengi.evaluation.benchmarks import SUITES, Suite, benchmark
        from pengi.evaluation.suites import Plan
    if suite is not None and suite not in SUITES:
        raise InputError(no_such("suite", suite, SUITES))
    chosen = SUITES[suite] if suite is not None else Suite(())
    if benchmarks:
        chosen = replace(chosen, benchmarks=tuple(benchmark(name).name for name in benchmarks))
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None:
        raise InputError(f"--shard is I/N, such as 1/4, and not '{shard}'")
    return Plan(
        suite=chosen,
        manifest=manifest,
        data_root=data_root,
        modes=tuple(mode.strip() for mode in modes.split(",")) if modes else (),
        limit=limit,
        shard=(int(found[1]), int(found[2])),
        baselines=baselines,
    )


def _suite(plan: Plan, out: Path, cached: bool, listen: str, model: str, device: str, json: bool) -> None:
    """Run, score and report; what was predicted before is not predicted again."""
    from pengi import weights
    from pengi.evaluation.predicting import Cache
    from pengi.evaluation.reporting import LISTEN, report_tables, write_report
    from pengi.evaluation.suites import Progress, run_suite, score_run
    from pengi.evaluation.systems import Systems

    if listen not in LISTEN:
        raise InputError(f"--listen is one of {', '.join(LISTEN)}, and not '{listen}'")
    systems = Systems.of_engine(load_model(model, device))
    cache = Cache(weights.cache_folder().parent / "answers.sqlite3") if cached else None
    run_suite(plan, systems, out, cache, Progress(_step, say_note))
    found = score_run(out)
    markdown, page = write_report(out, found, listen)
    if json:
        say_json(found)
        return
    for table in report_tables(found):
        shown = Table(title=table.title, box=None, padding=(0, 2), title_justify="left")
        for column in table.columns:
            shown.add_column(column)
        for row in table.rows:
            shown.add_row(*map(Text, row))
        say(shown)
    say_note(f"written: {markdown}, {page}")


@contextmanager
def _step(what: str, count: int) -> Iterator[Callable[[int], None]]:
    with progress(what, count) as waiting:
        yield waiting.advance


def _baseline(method: str) -> Classifier:
    with announced("Loading yamnet"):
        from pengi.evaluation.baselines import POOLS, YamnetMatch

        if method not in POOLS:
            raise InputError(no_such("baseline", method, POOLS))
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
