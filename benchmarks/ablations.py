"""Measures what each part of the default model adds: trains its recipe without the part, and evaluates it on val.

    python benchmarks/ablations.py --out results/ablations.json                    # all of them, in days on two cores
    python benchmarks/ablations.py --only without-m1 --out results/ablations.json  # one, beside those that are there

Every run is a folder in ``--runs``. An interrupted run continues. A finished run is only measured, and measurements are
not repeated. The output lists the commands of the runs. ``--seed`` adds runs with another seed; differences that are
smaller than those between seeds mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPE = "recipes/pengi-mini.yaml"
BENCHMARKS = ("val-open", "val-composed", "val-notes", "val-orders", "val-esc50", "val-emotion")
VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "without-m1": ("model.audio.yamnet.mapper=null", "model.audio.whisper.mapper=null"),
    # The evidence of scenes has a tagger's errors, so scenes are left out, too.
    "without-tags": ("model.tagger=null", "data.scenes=null"),
    "without-transcript": ("model.evidence.transcript=false",),
    "without-descriptors": ("model.evidence.descriptors=false",),
    "without-scenes": ("data.scenes=null",),
    "without-synthesized": ("data.mixture.synthesized.share=0",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/manifest.jsonl"))
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=tuple(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="recordings of each benchmark")
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    for name in args.only:
        key = name if args.seed == 0 else f"{name}-seed{args.seed}"
        rows[key] = measured(args.runs / key, VARIANTS[name], args.manifest, args.seed, args.limit)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def measured(folder: Path, changes: tuple[str, ...], manifest: Path, seed: int, limit: int | None) -> dict[str, Any]:
    """Train a variant, unless that is already done, and measure it."""
    train = ["train", RECIPE, "--out", str(folder)]
    for change in (*changes, f"training.seed={seed}"):
        train += ["--set", change]
    pengi([*train, "--resume"] if (folder / "state.pt").is_file() else train)
    scores = folder / "eval"
    evaluate = ["eval", "--modes", "match", "--no-baselines", "--manifest", str(manifest), "--model", str(folder)]
    for benchmark in BENCHMARKS:
        evaluate += ["--benchmark", benchmark]
    evaluate += ["--out", str(scores)] + ([] if limit is None else ["--limit", str(limit)])
    pengi(evaluate)
    found = json.loads((scores / "results.json").read_text(encoding="utf-8"))
    return {
        "commands": [" ".join(["pengi", *train]), " ".join(["pengi", *evaluate])],
        "results": {
            result["benchmark"]: {"n": result["n"], **result["metrics"]["accuracy"]}
            for result in found["results"]
            if result["system"] == "model"
        },
    }


def pengi(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "pengi", *arguments], check=True)


def table(rows: dict[str, Any]) -> str:
    """Accuracy of each variant and benchmark, as Markdown."""
    benchmarks = sorted({name for row in rows.values() for name in row["results"]})
    lines = [f"| | {' | '.join(benchmarks)} |", f"|---|{'---|' * len(benchmarks)}"]
    for name, row in rows.items():
        values = [row["results"].get(benchmark, {}).get("value") for benchmark in benchmarks]
        lines.append(f"| {name} | {' | '.join('–' if value is None else f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
