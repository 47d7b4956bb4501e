"""``eval``: one task or a suite of benchmarks on labelled clips; ``eval compare``: two such runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, print_json, print_note, print_text, progress
from pengi.cli.evaluation_options import Manifest, RunOptions, SuiteOptions, TaskOptions
from pengi.cli.help import Command, Group
from pengi.cli.options import CommonOptions, Json, parsed_shard, read_label_lines
from pengi.cli.session import load_model
from pengi.errors import InputError, no_such
from pengi.writing import writing

if TYPE_CHECKING:
    from pengi.evaluation.benchmarks import Suite
    from pengi.evaluation.suites import SuiteRun
    from pengi.evaluation.systems import Systems

evaluation = typer.Typer(
    name="eval", cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)


@evaluation.callback()
@guarded
def evaluate(
    context: typer.Context,
    *,
    manifest: Manifest = None,
    task: TaskOptions,
    suite: SuiteOptions,
    run: RunOptions,
    common: CommonOptions,
) -> None:
    """Measure a model on labelled clips: one task, or with --suite a suite of benchmarks with a report.

    Examples:
        pengi eval --manifest clips.jsonl --task events --split test
        pengi eval --suite quick --manifest clips.jsonl --out runs/quick
    """
    if context.invoked_subcommand is not None:
        return
    of_task = suite.suite is None and not suite.benchmarks
    chosen = _one_task(manifest, task, suite.modes) if of_task else _named_suite(suite, task.task)
    plan = _plan(chosen, manifest, suite, run, baselines=suite.baselines and not of_task)
    load = _loader(task.method if of_task else None, common.model, common.device)
    with _run_folder(run.out, needed=not of_task) as folder:
        found = _run(plan, load, folder, run)
        if of_task:
            _show_task(folder, found, task.method, common.json)
        else:
            _show_suite(found, common.json)
    if run.out is not None:
        print_note(f"written: '{run.out}', with a report in results.md and report.html")


@evaluation.command(cls=Command)
@guarded
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN_A", help="Folder that `pengi eval --out` wrote.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of another run.", show_default=False)],
    json: Json = False,
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
        print_json(rows)
        return
    headings = ("benchmark", "system", "mode", "metric", "n", "B less A (95 %)", "p")
    table = Table(*headings, box=None, padding=(0, 2))
    for row in rows:
        low, high = row["ci95"]
        change = f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        p = row.get("p_mcnemar", row["p_bootstrap"])
        table.add_row(row["benchmark"], row["system"], row["mode"], row["metric"], str(row["n"]), change, f"{p:.3f}")
    print_text(table)


def _one_task(manifest: Path | None, options: TaskOptions, modes: str | None) -> Suite:
    """A suite with a single benchmark, a task on the user's clips."""
    if manifest is None or options.task is None:
        raise InputError("name the clips and the task with --manifest and --task, or a suite with --suite")
    if modes is not None:
        raise InputError("--modes needs --suite; with --task, name one mode with --method")
    with announced("Starting"):
        from pengi.evaluation.baselines import YAMNET_MATCH
        from pengi.evaluation.benchmarks import LABEL_MODES, TAGGER_MODE, Suite, task_benchmark
    methods = (*LABEL_MODES, YAMNET_MATCH)
    if options.method not in methods:
        raise InputError(no_such("method", options.method, methods))
    labels = None if options.labels_file is None else read_label_lines(options.labels_file)
    benchmark = task_benchmark(options.task, split=options.split, source=options.source, labels=labels)
    return Suite((benchmark,), modes=(TAGGER_MODE if options.method == YAMNET_MATCH else options.method,))


def _named_suite(options: SuiteOptions, task: str | None) -> Suite:
    if task is not None:
        raise InputError("--task and --suite cannot be combined; a suite has its own tasks")
    with announced("Starting"):
        from pengi.evaluation.benchmarks import SUITES, Suite, benchmark_named
    if options.suite is not None and options.suite not in SUITES:
        raise InputError(no_such("suite", options.suite, SUITES))
    chosen = SUITES[options.suite] if options.suite is not None else Suite(())
    return replace(chosen, benchmarks=tuple(map(benchmark_named, options.benchmarks))) if options.benchmarks else chosen


def _plan(chosen: Suite, manifest: Path | None, suite: SuiteOptions, run: RunOptions, *, baselines: bool) -> SuiteRun:
    from pengi.evaluation.suites import SuiteRun

    return SuiteRun(
        suite=chosen,
        manifest=manifest,
        data_root=suite.data_root,
        modes=tuple(mode.strip() for mode in suite.modes.split(",")) if suite.modes else (),
        limit=run.limit,
        shard=parsed_shard(run.shard),
        baselines=baselines,
    )


@contextmanager
def _run_folder(out: Path | None, *, needed: bool) -> Iterator[Path]:
    """The folder of the run; a temporary one if none is given."""
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
    """A function that loads the measured system: the model, or the baseline if ``method`` names it."""

    def load() -> Systems:
        from pengi.evaluation.baselines import YAMNET_MATCH
        from pengi.evaluation.systems import Systems

        if method != YAMNET_MATCH:
            return Systems.of_engine(load_model(model, device))
        with announced("Loading yamnet"):
            return Systems.of_tagger()

    return load


def _run(plan: SuiteRun, load: Callable[[], Systems], folder: Path, options: RunOptions) -> dict[str, Any]:
    """Predict, score and report; existing predictions are not made again."""
    from pengi.evaluation.reporting import REPORT_AUDIO, write_report
    from pengi.evaluation.suites import RunProgress, run_suite, score_run

    if options.report_audio not in REPORT_AUDIO:
        raise InputError(f"--report-audio must be one of {', '.join(REPORT_AUDIO)}, not '{options.report_audio}'")
    run_suite(plan, load, folder, RunProgress(_step, print_note))
    found = score_run(folder)
    if options.out is not None:
        write_report(folder, found, options.report_audio)
    return found


@contextmanager
def _step(what: str, count: int) -> Iterator[Callable[[int], None]]:
    with progress(what, count) as waiting:
        yield waiting.advance


def _show_suite(found: dict[str, Any], json: bool) -> None:
    from pengi.evaluation.reporting import report_tables

    if json:
        print_json(found)
        return
    for table in report_tables(found):
        shown = Table(*table.columns, title=table.title, box=None, padding=(0, 2), title_justify="left")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        print_text(shown)


def _show_task(folder: Path, found: dict[str, Any], method: str, json: bool) -> None:
    from pengi.evaluation.task_report import task_report

    report = task_report(folder, found, method)
    if json:
        print_json(report)
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    low, high = report["ci95"]
    source = f" of {report['source']}" if report["source"] else ""
    print_text(
        Text(f"{report['task']}, {report['split']}{source}: {report['method']} of {report['model']}", style="bold"),
        Text(
            f"accuracy {report['accuracy']:.3f} (95 % {low:.3f} to {high:.3f}), {report['correct']} of {report['n']} "
            f"clips, {len(report['labels'])} labels, mean recall {report['mean_recall']:.3f}"
        ),
    )
    table = Table(box=None, padding=(0, 2), show_header=False)
    for label, score in sorted(report["per_class"].items(), key=lambda item: -item[1]["accuracy"]):
        table.add_row(Text(label), f"{score['accuracy']:.2f}", f"{score['correct']} of {score['n']}")
    print_text(table)
    if report["errors"]:
        print_note(f"{_clips(len(report['errors']))} could not be used, which counts as wrong:")
        for row in report["errors"]:
            print_note(f"  {row['id']}: {row['error']}")
    if report["left_out"]:
        print_note(f"{_clips(report['left_out'])} left out for having none of the given labels")


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"
