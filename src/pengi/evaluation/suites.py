"""Runs many benchmarks: predicts and scores, and records which could not be run and why.

A run is a folder::

    run.json                                   model, data, code version, seed and command of the run
    manifests/<dataset>.jsonl                  imported datasets, and open questions
    recordings/                                made for open questions: compositions, silence, noise
    items/<benchmark>@<version>.jsonl          the questions
    predictions/<benchmark>@<version>/<system>.<mode>.jsonl
    results.json  results.md  report.html      made from the files above, at any time
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pengi.data.datasets import import_dataset
from pengi.errors import InputError, PengiError, no_such
from pengi.evaluation import statistics
from pengi.evaluation.benchmarks import (
    ANSWER_MODES,
    DERIVED,
    LABEL_MODES,
    TAGGER_MODE,
    Benchmark,
    Suite,
    benchmark_named,
    task_benchmark,
)
from pengi.evaluation.building import write_questions
from pengi.evaluation.items import Item, items_of, shard_of
from pengi.evaluation.predicting import PredictionFile, predict, read_predictions
from pengi.evaluation.scoring import Json, Scored, chance, read_answers, score
from pengi.evaluation.systems import System, Systems, code_hash, file_hash
from pengi.json_lines import JsonLines, Row
from pengi.progress import Advance
from pengi.writing import replacing, writing

RESULTS_FILE = "results.json"
CHANCE = "chance"


@dataclass(frozen=True)
class SuiteRun:
    """The plan of a run.

    Attributes:
        manifest: labelled clips for the benchmarks of the user's own data.
        data_root: folder that holds a folder for each dataset, named like its adapter.
        modes: override those of the benchmarks.
        shard: part i of n, counted from 1.
        baselines: whether the tagger and the model on silence run too.
    """

    suite: Suite
    manifest: Path | None = None
    data_root: Path | None = None
    modes: tuple[str, ...] = ()
    limit: int | None = None
    shard: tuple[int, int] = (1, 1)
    baselines: bool = True

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.modes if mode not in ANSWER_MODES]
        if unknown:
            raise InputError(no_such("mode", unknown[0], ANSWER_MODES))
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise InputError(f"there is no shard {part} of {parts}; shards are counted from 1, as in 1/{parts}")

    def modes_of(self, benchmark: Benchmark) -> tuple[str, ...]:
        """The modes in which a benchmark is run: the requested ones that are possible for it."""
        wanted = self.modes or self.suite.modes or benchmark.modes
        if benchmark.kind not in ("classify", "tag", "choice") and benchmark.labels is None:
            return ("write",)
        sensible = [mode for mode in wanted if mode in LABEL_MODES and (benchmark.kind != "tag" or mode != "exact")]
        return tuple(sensible) or benchmark.modes

    @property
    def file_suffix(self) -> str:
        """Part of the names of a shard's files; empty if the run is not divided."""
        part, parts = self.shard
        return "" if parts == 1 else f".shard-{part}-of-{parts}"

    @property
    def max_items(self) -> int | None:
        """Maximum number of items of a benchmark; None for all."""
        return self.limit if self.limit is not None else self.suite.limit


@dataclass(frozen=True)
class RunProgress:
    """Callbacks for the progress of a run.

    Attributes:
        step: called with the name of the next step and its number of items. It returns a context manager for the step,
            whose value is called with the number of items done since its last call.
        skipped: called with a sentence about a benchmark that cannot be run.
    """

    step: Callable[[str, int], AbstractContextManager[Advance]] = lambda what, count: nullcontext(lambda done: None)
    skipped: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class Prepared:
    """A benchmark whose data are available."""

    benchmark: Benchmark
    items: tuple[Item, ...]
    folder: Path


@dataclass
class RunRecord:
    """The content of ``run.json``: model, data, code and settings of a run.

    Attributes:
        tasks: arguments of :func:`~.benchmarks.task_benchmark` for each benchmark that it made, by the benchmark's id.
    """

    model: Json
    suite: list[str]
    options: Json
    tasks: dict[str, Json] = field(default_factory=dict)
    data: list[Json] = field(default_factory=list)
    not_run: list[Json] = field(default_factory=list)
    answers: list[Json] = field(default_factory=list)
    software: Json = field(default_factory=dict)
    command: str = ""
    seed: int = statistics.SEED
    started: str = ""
    seconds: float = 0.0


def run_suite(plan: SuiteRun, load: Callable[[], Systems], out: Path, progress: RunProgress) -> RunRecord:
    """Make all predictions of a plan that are still missing, and write ``run.json``.

    Args:
        load: loads the systems; called only if there is something to predict.

    Raises:
        InputError: if none of the benchmarks can be run.
    """
    start = time.perf_counter()
    record = RunRecord(
        model={},
        suite=[benchmark.name for benchmark in plan.suite.benchmarks],
        options={
            "limit": plan.max_items,
            "shard": list(plan.shard),
            "modes": list(plan.modes),
            "baselines": plan.baselines,
        },
        software=_software(),
        tasks={benchmark.id: _as_task(benchmark) for benchmark in plan.suite.benchmarks if not benchmark.version},
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    path = out / f"run{plan.file_suffix}.json"
    ready = list(_prepared(plan, out, record, progress))
    if not ready:
        raise InputError(f"none of the benchmarks can be run; {record.not_run[0]['reason']}")
    systems = load()
    record.model = dict(systems.about)
    for prepared in ready:
        for system, mode in _systems_and_modes(plan, prepared.benchmark, systems):
            _predict(plan, prepared, system, mode, out, record, progress)
            record.seconds = round(time.perf_counter() - start, 1)
            _write_json(path, asdict(record))
    if not record.answers:
        raise InputError(record.not_run[-1]["reason"])
    return record


def score_run(out: Path) -> Json:
    """Score the predictions that a run has written so far, and write ``results.json``.

    Raises:
        InputError: if the folder is not a run.
    """
    records = _records(out)
    results = [result for name in _benchmarks(records) for result in _score_benchmark(out, name, records)]
    found = {"run": records[0], "shards": len(records), "results": results}
    _write_json(out / RESULTS_FILE, found)
    return found


def benchmark_of(run: Json, benchmark_id: str) -> Benchmark:
    """The definition of a benchmark that a run has measured.

    Raises:
        InputError: for an unknown benchmark; the nearest one is named.
    """
    made = run.get("tasks", {}).get(benchmark_id)
    return task_benchmark(**made) if made else benchmark_named(benchmark_id.rpartition("@")[0])


def scored_answers(out: Path) -> Iterator[tuple[Benchmark, str, str, Scored]]:
    """Benchmark, system, mode and answers of all predictions of a run.

    Raises:
        InputError: if the folder is not a run.
    """
    records = _records(out)
    for name in _benchmarks(records):
        benchmark, items = _read_items(out, records[0], name)
        for system, mode, rows in _predicted(out, benchmark, records):
            yield benchmark, system, mode, read_answers(benchmark, items, rows, mode)


def _systems_and_modes(plan: SuiteRun, benchmark: Benchmark, systems: Systems) -> Iterator[tuple[System, str]]:
    """Pairs of system and mode: the model and the model on silence in every mode, the tagger in its only one."""
    wanted = plan.modes_of(benchmark)
    for mode in dict.fromkeys(DERIVED.get(mode, mode) for mode in wanted):
        yield systems.model, mode
        if systems.blind is not None and plan.baselines:
            yield systems.blind, mode
    if systems.tagger is not None and plan.baselines and benchmark.tagger:
        yield systems.tagger(), TAGGER_MODE


def _prepared(plan: SuiteRun, out: Path, record: RunRecord, progress: RunProgress) -> Iterator[Prepared]:
    for benchmark in plan.suite.benchmarks:
        try:
            manifest, missing = _manifest(plan, benchmark, out)
            items = items_of(benchmark, manifest, plan.max_items)
        except PengiError as error:
            if len(plan.suite.benchmarks) == 1:
                raise
            record.not_run.append({"benchmark": benchmark.id, "reason": str(error)})
            progress.skipped(f"{benchmark.name} is not run: {error}")
            continue
        folder = out / "items"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        JsonLines(folder / f"{benchmark.id}.jsonl").rewrite(map(asdict, items))
        about = {"manifest": str(manifest), "sha256": file_hash(manifest), "n": len(items), "missing": missing}
        record.data.append({"benchmark": benchmark.id, **about})
        yield Prepared(benchmark, tuple(shard_of(items, plan.shard)), manifest.parent)


def _manifest(plan: SuiteRun, benchmark: Benchmark, out: Path) -> tuple[Path, int]:
    """The manifest of a benchmark's data, and the number of its missing recordings. For a dataset or open questions it
    is written first."""
    if benchmark.dataset == "manifest":
        manifest = plan.manifest or (plan.data_root / "manifest.jsonl" if plan.data_root else None)
        if manifest is None:
            raise InputError("name the labelled clips with --manifest")
        if benchmark.kind == "open":
            manifest = write_questions(benchmark.name, manifest, benchmark.split, out)
        return manifest, 0
    if plan.data_root is None:
        raise InputError(f"name the folder that holds '{benchmark.dataset}' with --data-root")
    made = out / "manifests" / f"{benchmark.dataset}.jsonl"
    made.parent.mkdir(parents=True, exist_ok=True)
    return made, import_dataset(benchmark.dataset, plan.data_root / benchmark.dataset, made).missing


def _predict(
    plan: SuiteRun,
    prepared: Prepared,
    system: System,
    mode: str,
    out: Path,
    record: RunRecord,
    progress: RunProgress,
) -> None:
    benchmark, items = prepared.benchmark, prepared.items
    path = out / "predictions" / benchmark.id / f"{system.name}.{mode}{plan.file_suffix}.jsonl"
    doing = f"{benchmark.name}, {system.name}, {mode}"
    try:
        with PredictionFile.opened(path) as file, progress.step(doing, len(items)) as done:
            counts = predict(system, items, prepared.folder, mode, file, done)
    except InputError as error:
        if not system.together:
            raise
        # The tagger compares recordings with each other, so it cannot answer about a single one.
        record.not_run.append({"benchmark": benchmark.id, "system": system.name, "reason": str(error)})
        return
    record.answers.append({"benchmark": benchmark.id, "system": system.name, "mode": mode, **asdict(counts)})


def _as_task(benchmark: Benchmark) -> Json:
    labels = None if benchmark.labels is None else list(benchmark.labels)
    return {"task": benchmark.field, "split": benchmark.split, "source": benchmark.source, "labels": labels}


def _benchmarks(records: Sequence[Json]) -> list[str]:
    """The benchmarks (with their versions) that a run has measured, in the suite's order."""
    return list(dict.fromkeys(answer["benchmark"] for record in records for answer in record["answers"]))


def _read_items(out: Path, run: Json, benchmark_id: str) -> tuple[Benchmark, list[Item]]:
    benchmark = benchmark_of(run, benchmark_id)
    if benchmark.id != benchmark_id:
        raise InputError(f"'{out}' has {benchmark_id}, and this program has {benchmark.id}; run it again")
    lines = JsonLines(out / "items" / f"{benchmark_id}.jsonl")
    return benchmark, [Item.from_dict(row) for row in lines if row is not None]


def _predicted(out: Path, benchmark: Benchmark, records: Sequence[Json]) -> Iterator[tuple[str, str, dict[str, Row]]]:
    """System, mode and lines, derived modes included.

    Only predictions of the run itself are read: lines of an earlier run in the same folder may be of another model.
    """
    folder = out / "predictions" / benchmark.id
    answers = [answer for record in records for answer in record["answers"] if answer["benchmark"] == benchmark.id]
    pairs = dict.fromkeys((answer["system"], answer["mode"]) for answer in answers)
    lines = {pair: read_predictions(folder, ".".join(pair)) for pair in pairs}
    for (system, mode), rows in lines.items():
        if not rows:
            continue
        yield system, mode, rows
        for derived in (name for name, base in DERIVED.items() if base == mode and system == "model"):
            if benchmark.kind != "tag":
                yield system, derived, rows


def _score_benchmark(out: Path, benchmark_id: str, records: Sequence[Json]) -> list[Json]:
    benchmark, items = _read_items(out, records[0], benchmark_id)
    results = []
    for system, mode, rows in _predicted(out, benchmark, records):
        scored = read_answers(benchmark, items, rows, mode)
        results.append(
            {**_head(benchmark), "system": system, "mode": mode, "of": len(items), **score(benchmark, scored, mode)}
        )
    by_chance = chance(benchmark, items)
    if by_chance and results:
        results.append(
            {**_head(benchmark), "system": CHANCE, "mode": "", "of": len(items), "n": len(items), "metrics": by_chance}
        )
    return results


def _head(benchmark: Benchmark) -> Json:
    return {"benchmark": benchmark.name, "version": benchmark.version, "title": benchmark.title, "kind": benchmark.kind}


def _records(out: Path) -> list[Json]:
    """The records of a run, one for each of its shards."""
    paths = sorted(out.glob("run*.json"))
    if not paths:
        raise InputError(f"'{out}' is not an evaluation run: it has no run.json")
    records: list[Json] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if len({(record["model"]["sha256"], record["software"]["code_sha256"]) for record in records}) > 1:
        raise InputError(f"the shards in '{out}' are of different models or programs; run them again")
    return records


def _software() -> Json:
    return {
        "pengi": version("pengi"),
        "code_sha256": code_hash(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def _commit() -> str | None:
    """The commit of a checkout, followed by "+" if files were changed; None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
