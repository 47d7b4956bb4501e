"""The wrong answers of an evaluation run with the highest confidence, as a Markdown table for the model card.

    pengi eval --suite local --manifest ../shared/data/manifest.jsonl --out runs/local
    python benchmarks/worst_answers.py runs/local --count 10

At most two are shown for each benchmark, since otherwise all would come from a single one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from pengi.evaluation.suites import scored_answers

MOST_OF_ONE = 2
MODE = "likelihood"


def wrong_answers(run: Path) -> list[tuple[float, str, str, str, str]]:
    """Confidence, benchmark, recording, right answer and answer; the highest confidence first."""
    found = []
    for benchmark, system, mode, scored in scored_answers(run):
        if system != "model" or mode != MODE or scored.scores_NL is None or scored.credit_N is None:
            continue
        share_NL = np.exp(scored.scores_NL - np.logaddexp.reduce(scored.scores_NL, axis=1, keepdims=True))
        for row, item in enumerate(scored.items):
            said = scored.predictions[row]
            if said is not None and scored.credit_N[row] == 0:
                found.append((float(share_NL[row].max()), benchmark.title, item.id, " / ".join(item.answers), said))
    return sorted(found, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    shown: Counter[str] = Counter()
    print("| benchmark | recording | right | said | share |\n|---|---|---|---|---|")
    for share, title, recording, right, said in wrong_answers(options.run):
        if shown[title] < MOST_OF_ONE and shown.total() < options.count:
            shown[title] += 1
            print(f"| {title} | {recording} | {right} | {said} | {share:.2f} |")


if __name__ == "__main__":
    main()
