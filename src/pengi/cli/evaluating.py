"""``eval``: one task or a suite of benchmarks on labelled clips; ``eval compare``: two such runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli import evaluation_options as options
from pengi.cli.console import announced, guarded, progress, say, say_json, say_note
from pengi.cli.help import Group
from pengi.cli.options import AUTO, DEFAULT_MODEL, Debug, Device, Json, Model, read_label_lines
from pengi.cli.session import load_model
from pengi.errors import InputError, no_such
from pengi.writing import writing

if TYPE_CHECKING:
    from pengi.evaluation.benchmarks import Suite
    from pengi.evaluation.suites import SuiteRun
    from pengi.evaluation.systems import Systems

evaluation = typer.Typer(
    cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)


@evaluation.callback()
@guarded
def evaluate(
    context: typer.Context,
    manifest: options.Manifest = None,
    task: options.Task = None,
    split: options.Split = "val",
    source: options.Source = None,
    method: options.Method = "likelihood",
    labels: options.Labels = AUTO,
    suite: options.SuiteName = None,
    benchmarks: options.Benchmarks = None,
    data_root: options.DataRoot = None,
    modes: options.Modes = None,
    baselines: options.Baselines = True,
    limit: options.Limit = None,
    out: options.Out = None,
    shard: options.Shard = "1/1",
    cached: options.Cached = True,
    listen: options.Listen = "free",
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
    of_task = suite is None and not benchmarks
    if of_task:
        chosen = _one_task(manifest, task, split, source, labels, method, modes)
    else:
        chosen = _named(suite, benchmarks or [], task)
    plan = _plan(chosen, manifest, data_root, modes, limit, shard, baselines=baselines and not of_task)
    with _run_folder(out, needed=not of_task) as folder:
        found = _run(
            plan, _loader(method if of_task else None, model, device), folder, cached, listen, report=bool(out)
        )
        if of_task:
            _say_task(folder, found, method, json)
        else:
            _say_suite(found, json)
    if out is not None:
        say_note(f"written: '{out}', with a report in results.md and report.html")


@evaluation.command("compare")
@guarded
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN_A", help="Folder that `pengi eval --out` wrote.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of another run.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two runs over the items that both have answered: the difference B - A of each metric, with a
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


def _one_task(
    manifest: Path | None,
    task: str | None,
    split: str,
    source: str | None,
    labels: str,
    method: str,
    modes: str | None,
) -> Suite:
    """The suite whose only benchmark is one task on one's own clips."""
    if manifest is None or task is None:
        raise InputError("name the clips and the task with --manifest and --task, or a suite with --suite")
    if modes is not None:
        raise InputError("--modes goes with a suite; with --task name one with --method")
    with announced("Starting"):
        from pengi.evaluation.baselines import POOLS
        from pengi.evaluation.benchmarks import LABEL_MODES, TAGGER_MODE, Suite, task_benchmark
    if method not in (*LABEL_MODES, *POOLS):
        raise InputError(no_such("method", method, (*LABEL_MODES, *POOLS)))
    choices = None if labels == AUTO else read_label_lines(Path(labels))
    asked = task_benchmark(task, split=split, source=source, labels=choices)
    return Suite((asked,), modes=(TAGGER_MODE if method in POOLS else method,))


def _named(suite: str | None, benchmarks: list[str], task: str | None) -> Suite:
    if task is not None:
        raise InputError("--task and --suite do not go together; a suite has its own tasks")
    with announced("Starting"):
        from pengi.evaluation.benchmarks import SUITES, Suite, benchmark
    if suite is not None and suite not in SUITES:
        raise InputError(no_such("suite", suite, SUITES))
    chosen = SUITES[suite] if suite is not None else Suite(())
    return replace(chosen, benchmarks=tuple(map(benchmark, benchmarks))) if benchmarks else chosen


def _plan(
    suite: Suite,
    manifest: Path | None,
    data_root: Path | None,
    modes: str | None,
    limit: int | None,
    shard: str,
    *,
    baselines: bool,
) -> SuiteRun:
    from pengi.evaluation.suites import SuiteRun

    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None:
        raise InputError(f"--shard is I/N, such as 1/4, and not '{shard}'")
    return SuiteRun(
        suite=suite,
        manifest=manifest,
        data_root=data_root,
        modes=tuple(mode.strip() for mode in modes.split(",")) if modes else (),
        limit=limit,
        shard=(int(found[1]), int(found[2])),
        baselines=baselines,
    )


@contextmanager
def _run_folder(out: Path | None, *, needed: bool) -> Iterator[Path]:
    """The folder of the run, which is gone afterwards if none was named."""
    if out is None:
        if needed:
            raise InputError("name a folder for the run with --out")
        with TemporaryDirectory(prefix="pengi-eval-") as folder:
            yield Path(folder)
        return
    if out.suffix == ".jsonl" or (out.exists() and not out.is_dir()):
        raise InputError(f"--out '{out}' is a file; name a folder, which gets the predictions and a report")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    yield out


def _loader(method: str | None, model: str, device: str) -> Callable[[], Systems]:
    """Loads what is measured: the model, or the baseline that ``method`` names."""

    def load() -> Systems:
        from pengi.evaluation.baselines import POOLS
        from pengi.evaluation.systems import Systems

        if method not in POOLS:
            return Systems.of_engine(load_model(model, device))
        with announced("Loading yamnet"):
            return Systems.of_tagger(method)

    return load


def _run(
    plan: SuiteRun, load: Callable[[], Systems], folder: Path, cached: bool, listen: str, *, report: bool
) -> dict[str, Any]:
    """Predict, score and report; what was predicted before is not predicted again."""
    from pengi import weights
    from pengi.evaluation.predicting import Cache
    from pengi.evaluation.reporting import LISTEN, write_report
    from pengi.evaluation.suites import RunProgress, run_suite, score_run

    if listen not in LISTEN:
        raise InputError(f"--listen is one of {', '.join(LISTEN)}, and not '{listen}'")
    cache = Cache(weights.cache_folder().parent / "answers.sqlite3") if cached else None
    run_suite(plan, load, folder, cache, RunProgress(_step, say_note))
    found = score_run(folder)
    if report:
        write_report(folder, found, listen)
    return found


@contextmanager
def _step(what: str, count: int) -> Iterator[Callable[[int], None]]:
    with progress(what, count) as waiting:
        yield waiting.advance


def _say_suite(found: dict[str, Any], json: bool) -> None:
    from pengi.evaluation.reporting import report_tables

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


def _say_task(folder: Path, found: dict[str, Any], method: str, json: bool) -> None:
    from pengi.evaluation.task_report import task_report

    report = task_report(folder, found, method)
    if json:
        say_json(report)
    else:
        _show(report)


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
