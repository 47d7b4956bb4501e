"""Every task of a manifest's validation split, and the answer modes side by side, as one Markdown and one JSON file.

    python benchmarks/val_table.py --manifest ../shared/data/manifest.jsonl --out results/pengi-mini-val

Each row is what ``pengi eval`` prints for the same task, source and method.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TASKS = (
    ("events", "esc50-fold4", ("likelihood", "yamnet-match-mean", "yamnet-match", "sum", "generate", "match")),
    ("digit", "fsdd", ("likelihood",)),
    ("keyword", "speech-commands", ("likelihood",)),
    ("keyword", "wake-words", ("likelihood",)),
    ("gender", "librispeech", ("likelihood",)),
    ("language", "ktuberling", ("likelihood",)),
    ("instrument", "philharmonia", ("likelihood",)),
    ("instrument", "keyboardia", ("likelihood",)),
    ("genre", None, ("likelihood",)),
    ("emotion", "ravdess", ("likelihood",)),
)


def measure(manifest: Path, model: str, tasks: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """One report for each task, source and method; the first method of every task comes before the others."""
    from pengi import Pengi
    from pengi.evaluation import runner
    from pengi.evaluation.baselines import YamnetMatch

    engine = Pengi.from_pretrained(model)
    first = [(task, source, methods[0]) for task, source, methods in tasks]
    rest = [(task, source, method) for task, source, methods in tasks for method in methods[1:]]
    for task, source, method in first + rest:
        selection = runner.select(manifest, task=task, split="val", source=source)
        baseline = method.startswith("yamnet")
        prompt = selection.task.prompt
        classify = YamnetMatch.from_pretrained(method) if baseline else runner.engine_classifier(engine, method, prompt)
        rows, seconds = runner.run(selection, classify)
        report = runner.report(
            selection,
            rows,
            method=method,
            model="yamnet" if baseline else model,
            seconds=seconds,
            prompt=None if baseline else prompt,
        )
        print(task, source, method, report["accuracy"], f"{seconds:.0f} s", flush=True)
        yield report


def table(reports: list[dict[str, Any]]) -> str:
    """Markdown, one row a report."""
    lines = ["| task | source | labels | n | method | accuracy | 95 % interval |", "|---|---|---|---|---|---|---|"]
    for report in reports:
        low, high = report["ci95"]
        lines.append(
            f"| {report['task']} | {report['source'] or 'all'} | {len(report['labels'])} | {report['n']} "
            f"| {report['method']} | {report['accuracy']:.3f} | {low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--out", type=Path, required=True, help="path without suffix: .md and .json are written")
    parser.add_argument("--tasks", nargs="*", help="only these tasks")
    options = parser.parse_args()
    chosen = tuple(row for row in TASKS if not options.tasks or row[0] in options.tasks)
    reports = measure(options.manifest, options.model, chosen)
    head = f"Made by `python benchmarks/val_table.py --manifest {options.manifest} --out {options.out}`.\n\n"
    reports: list[dict[str, Any]] = []
    # Written after every report, since the whole table takes a while.
    for report in measure(options.manifest, options.model, chosen):
        reports.append(report)
        options.out.with_suffix(".md").write_text(head + table(reports), encoding="utf-8")
        options.out.with_suffix(".json").write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
