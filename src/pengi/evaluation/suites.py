"""One command for many benchmarks: predict, score, and say what could not be run and why.

A run is a folder::

    run.json                                   what was run with what: model, data, code, seed, command
    manifests/<dataset>.jsonl                  imported datasets, and open questions
    recordings/                                what open questions need made: compositions, silence, noise
    items/<benchmark>@<version>.jsonl          the questions
    predictions/<benchmark>@<version>/<system>.<mode>.jsonl
    results.json  results.md  report.html      made from the files above, any time again
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
    benchmark,
    task_benchmark,
)
from pengi.evaluation.building import write_questions
from pengi.evaluation.items import Item, items_of, shard_of
from pengi.evaluation.predicting import Cache, PredictionFile, predict, read_predictions
from pengi.evaluation.scoring import Json, Scored, chance, read_answers, score
from pengi.evaluation.systems import System, Systems, code_hash, file_hash
from pengi.json_lines import JsonLines, Row
from pengi.progress import Advance
from pengi.writing import replacing, writing

RUN_FILE, RESULTS_FILE = "run.json", "results.json"
CHANCE = "chance"


@dataclass(frozen=True)
class SuiteRun:
    """What to run.

    Attributes:
        manifest: labelled clips for the benchmarks of one's own data.
        data_root: holds a folder for each dataset, named like its adapter.
        modes: instead of those of the benchmarks.
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

    def modes_of(self, asked: Benchmark) -> tuple[str, ...]:
        """The modes that a benchmark is run in: those that are wanted as far as they make sense for it."""
        wanted = self.modes or self.suite.modes or asked.modes
        if asked.kind == "caption" or not _has_labels(asked):
            return ("write",)
        sensible = [mode for mode in wanted if mode in LABEL_MODES and (asked.kind != "tag" or mode != "exact")]
        return tuple(sensible) or asked.modes

    @property
    def max_items(self) -> int | None:
        """How many items of a benchmark are asked."""
        return self.limit if self.limit is not None else self.suite.limit


@dataclass(frozen=True)
class RunProgress:
    """What is called while a run goes on.

    Attributes:
        step: with the next work and its number of items; the context it gives is called with how many more are done.
        skipped: with a sentence about what cannot be run.
    """

    step: Callable[[str, int], AbstractContextManager[Advance]] = lambda what, count: nullcontext(lambda done: None)
    skipped: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class Prepared:
    """A benchmark whose data are here."""

    benchmark: Benchmark
    items: tuple[Item, ...]
    folder: Path


@dataclass
class RunRecord:
    """``run.json``: what was run with what.

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


def run_suite(
    plan: SuiteRun, load: Callable[[], Systems], out: Path, cache: Cache | None, progress: RunProgress
) -> RunRecord:
    """Predict everything of a plan that is not predicted yet, and write ``run.json``.

    Args:
        load: called once it is known that there is something to ask.

    Raises:
        InputError: if none of the benchmarks can be run.
    """
    start = time.perf_counter()
    record = RunRecord(
        model={},
        suite=[asked.name for asked in plan.suite.benchmarks],
        options={
            "limit": plan.max_items,
            "shard": list(plan.shard),
            "modes": list(plan.modes),
            "baselines": plan.baselines,
        },
        software=_software(),
        tasks={asked.id: _as_task(asked) for asked in plan.suite.benchmarks if not asked.version},
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    part, parts = plan.shard
    path = out / (RUN_FILE if parts == 1 else f"run.shard-{part}-of-{parts}.json")
    ready = list(_prepared(plan, out, record, progress))
    if not ready:
        raise InputError(f"none of the benchmarks can be run; {record.not_run[0]['reason']}")
    systems = load()
    record.model = dict(systems.about)
    for prepared in ready:
        for system, mode in _asked(plan, prepared.benchmark, systems):
            _predict(plan, prepared, system, mode, out, cache, record, progress)
            record.seconds = round(time.perf_counter() - start, 1)
            _write_json(path, asdict(record))
    if not record.answers:
        raise InputError(record.not_run[-1]["reason"])
    return record


def score_run(out: Path) -> Json:
    """Score what a run has written so far and write ``results.json``.

    Raises:
        InputError: if the folder is no run.
    """
    records = _records(out)
    results = [result for name in _benchmarks(records) for result in _score_benchmark(out, name, records)]
    found = {"run": records[0], "shards": len(records), "results": results}
    _write_json(out / RESULTS_FILE, found)
    return found


def benchmark_of(run: Json, benchmark_id: str) -> Benchmark:
    """The definition of a benchmark that a run has asked.

    Raises:
        InputError: for an unknown benchmark; the nearest one is named.
    """
    made = run.get("tasks", {}).get(benchmark_id)
    return task_benchmark(**made) if made else benchmark(benchmark_id.rpartition("@")[0])


def scored_answers(out: Path) -> Iterator[tuple[Benchmark, str, str, Scored]]:
    """Benchmark, system, mode and answers of everything that a run has predicted.

    Raises:
        InputError: if the folder is no run.
    """
    records = _records(out)
    for name in _benchmarks(records):
        asked, items = _read_items(out, records[0], name)
        for system, mode, rows in _predicted(out, asked, records):
            yield asked, system, mode, read_answers(asked, items, rows, mode)


def _has_labels(asked: Benchmark) -> bool:
    return asked.kind in ("classify", "tag", "choice") or asked.labels is not None


def _asked(plan: SuiteRun, asked: Benchmark, systems: Systems) -> Iterator[tuple[System, str]]:
    """Which system answers in which mode: the model in every one, silence in the same, the tagger in its only one."""
    wanted = plan.modes_of(asked)
    for mode in dict.fromkeys(DERIVED.get(mode, mode) for mode in wanted):
        yield systems.model, mode
        if systems.blind is not None and plan.baselines:
            yield systems.blind, mode
    if systems.tagger is not None and plan.baselines and asked.tagger:
        yield systems.tagger(), TAGGER_MODE


def _prepared(plan: SuiteRun, out: Path, record: RunRecord, progress: RunProgress) -> Iterator[Prepared]:
    for asked in plan.suite.benchmarks:
        try:
            manifest, missing = _manifest(plan, asked, out)
            items = items_of(asked, manifest, plan.max_items)
        except PengiError as error:
            if len(plan.suite.benchmarks) == 1:
                raise
            record.not_run.append({"benchmark": asked.id, "reason": str(error)})
            progress.skipped(f"{asked.name} is not run: {error}")
            continue
        _write_items(out, asked, items)
        about = {"manifest": str(manifest), "sha256": file_hash(manifest), "n": len(items), "missing": missing}
        record.data.append({"benchmark": asked.id, **about})
        yield Prepared(asked, tuple(shard_of(items, plan.shard)), manifest.parent)


def _manifest(plan: SuiteRun, asked: Benchmark, out: Path) -> tuple[Path, int]:
    """The manifest of a benchmark's data, and how many of its recordings are missing: made from the published layout of
    a dataset, or of questions about the clips at hand."""
    if asked.dataset == "manifest":
        manifest = plan.manifest or (plan.data_root / "manifest.jsonl" if plan.data_root else None)
        if manifest is None:
            raise InputError("name the labelled clips with --manifest")
        return (write_questions(asked.name, manifest, asked.split, out) if asked.kind == "open" else manifest), 0
    if plan.data_root is None:
        raise InputError(f"name the folder that holds '{asked.dataset}' with --data-root")
    made = out / "manifests" / f"{asked.dataset}.jsonl"
    made.parent.mkdir(parents=True, exist_ok=True)
    return made, import_dataset(asked.dataset, plan.data_root / asked.dataset, made).missing


def _predict(
    plan: SuiteRun,
    prepared: Prepared,
    system: System,
    mode: str,
    out: Path,
    cache: Cache | None,
    record: RunRecord,
    progress: RunProgress,
) -> None:
    asked, items = prepared.benchmark, prepared.items
    shard = "" if plan.shard[1] == 1 else f".shard-{plan.shard[0]}-of-{plan.shard[1]}"
    path = out / "predictions" / asked.id / f"{system.name}.{mode}{shard}.jsonl"
    doing = f"{asked.name}, {system.name}, {mode}"
    try:
        with PredictionFile.opened(path) as file, progress.step(doing, len(items)) as done:
            counts = predict(system, items, prepared.folder, mode, file, cache, done)
    except InputError as error:
        if not system.together:
            raise
        # The tagger compares recordings with each other and cannot answer about one alone.
        record.not_run.append({"benchmark": asked.id, "system": system.name, "reason": str(error)})
        return
    record.answers.append({"benchmark": asked.id, "system": system.name, "mode": mode, **asdict(counts)})


def _write_items(out: Path, asked: Benchmark, items: Sequence[Item]) -> None:
    folder = out / "items"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    JsonLines(folder / f"{asked.id}.jsonl").rewrite(item.to_dict() for item in items)


def _as_task(asked: Benchmark) -> Json:
    labels = None if asked.labels is None else list(asked.labels)
    return {"task": asked.field, "split": asked.split, "source": asked.source, "labels": labels}


def _benchmarks(records: Sequence[Json]) -> list[str]:
    """Benchmarks (with their versions) that a run has asked, in the suite's order."""
    return list(dict.fromkeys(answer["benchmark"] for record in records for answer in record["answers"]))


def _read_items(out: Path, run: Json, benchmark_id: str) -> tuple[Benchmark, list[Item]]:
    asked = benchmark_of(run, benchmark_id)
    if asked.id != benchmark_id:
        raise InputError(f"'{out}' has {benchmark_id}, and this program has {asked.id}; run it again")
    lines = JsonLines(out / "items" / f"{benchmark_id}.jsonl")
    return asked, [Item.from_dict(row) for row in lines if row is not None]


def _predicted(out: Path, asked: Benchmark, records: Sequence[Json]) -> Iterator[tuple[str, str, dict[str, Row]]]:
    """System, mode and lines, derived modes included.

    Only what the run itself has asked: lines of an earlier run in the same folder may be of another model.
    """
    folder = out / "predictions" / asked.id
    answers = [answer for record in records for answer in record["answers"] if answer["benchmark"] == asked.id]
    pairs = dict.fromkeys((answer["system"], answer["mode"]) for answer in answers)
    lines = {pair: read_predictions(folder, ".".join(pair)) for pair in pairs}
    for (system, mode), rows in lines.items():
        if not rows:
            continue
        yield system, mode, rows
        for derived in (name for name, base in DERIVED.items() if base == mode and system == "model"):
            if asked.kind != "tag":
                yield system, derived, rows


def _score_benchmark(out: Path, benchmark_id: str, records: Sequence[Json]) -> list[Json]:
    asked, items = _read_items(out, records[0], benchmark_id)
    results = []
    for system, mode, rows in _predicted(out, asked, records):
        scored = read_answers(asked, items, rows, mode)
        results.append({**_head(asked), "system": system, "mode": mode, "of": len(items), **score(asked, scored, mode)})
    by_luck = chance(asked, items)
    if by_luck and results:
        results.append(
            {**_head(asked), "system": CHANCE, "mode": "", "of": len(items), "n": len(items), "metrics": by_luck}
        )
    return results


def _head(asked: Benchmark) -> Json:
    return {"benchmark": asked.name, "version": asked.version, "title": asked.title, "kind": asked.kind}


def _records(out: Path) -> list[Json]:
    """What is known of a run, from each of its shards."""
    paths = sorted(out.glob("run*.json"))
    if not paths:
        raise InputError(f"'{out}' is no evaluation run: it has no {RUN_FILE}")
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
    """The commit of a checkout, with "+" behind it if files were changed; none for an installed package."""
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
