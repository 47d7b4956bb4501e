"""Every task of a manifest's validation split, and the answer modes side by side, as one Markdown and one JSON file.

    python benchmarks/val_table.py --manifest ../shared/data/manifest.jsonl --out results/pengi-mini-val

Each row is what ``pengi eval`` prints for the same task, source and method.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TASKS = (
    ("events", "esc50-fold4", ("likelihood", "sum", "generate", "match", "yamnet-match")),
    ("digit", "fsdd", ("likelihood", "sum")),
    ("keyword", "speech-commands", ("likelihood", "sum")),
    ("keyword", "wake-words", ("likelihood", "sum")),
    ("gender", "librispeech", ("likelihood", "sum")),
    ("language", "ktuberling", ("likelihood", "sum")),
    ("instrument", "philharmonia", ("likelihood", "sum")),
    ("instrument", "keyboardia", ("likelihood", "sum")),
    ("genre", None, ("likelihood", "sum")),
    ("emotion", "ravdess", ("likelihood", "sum")),
)


def measure(manifest: Path, model: str, tasks: tuple[Any, ...]) -> list[dict[str, Any]]:
    """One report for each task, source and method."""
    from pengi import Pengi
    from pengi.evaluation import runner
    from pengi.evaluation.baselines import YamnetMatch

    engine = Pengi.from_pretrained(model)
    reports = []
    for task, source, methods in tasks:
        selection = runner.select(manifest, task=task, split="val", source=source)
        for method in methods:
            baseline = method.startswith("yamnet")
            prompt = None if baseline else selection.task.prompt
            classify = (
                YamnetMatch.from_pretrained(method)
                if baseline
                else runner.engine_classifier(engine, method, selection.task.prompt)
            )
            rows, seconds = runner.run(selection, classify)
            name = "yamnet" if baseline else model
            reports.append(runner.report(selection, rows, method=method, model=name, seconds=seconds, prompt=prompt))
            print(task, source, method, reports[-1]["accuracy"], f"{seconds:.0f} s", flush=True)
    return reports


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
    options.out.with_suffix(".md").write_text(head + table(reports), encoding="utf-8")
    options.out.with_suffix(".json").write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
