"""Compares pengi-mini with baselines without a language model, on the validation clips of the local suite.

    pengi eval --suite local --manifest ../shared/data/manifest.jsonl --out runs/local
    python benchmarks/baselines.py runs/local --manifest ../shared/data/manifest.jsonl --out results/baselines

For every benchmark the table has the share of right answers, with 95 % bootstrap intervals over groups (Wilson's if all
answers are right or all are wrong), of

- the model, and the model on silence, from the run, in its headline mode,
- stock YAMNet, matched to the labels by MiniLM (``yamnet-match``), even if its classes do not cover them,
- a logistic regression on mean, maximum and deviation over time of stock YAMNet's embeddings, fitted on the training
  clips that have one of these labels. Like the model, it uses the sources that may be shipped, or the other sources if
  there are none of those (emotion).

Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pengi import weights
from pengi.audio.decode import load
from pengi.calls import Vector
from pengi.data.manifest import Clip, read_manifest
from pengi.data.tasks import answers_of
from pengi.encoders.yamnet import SAMPLE_RATE, YamnetEncoder
from pengi.errors import PengiError
from pengi.evaluation.baselines import YamnetMatch
from pengi.evaluation.benchmarks import Benchmark
from pengi.evaluation.items import Item
from pengi.evaluation.scoring import Scored
from pengi.evaluation.statistics import share_right
from pengi.evaluation.suites import scored_answers
from pengi.probing import embeddings
from pengi.progress import track

C = 0.1  # inverse strength of regularisation, that of `pengi probe`
HEADER = """# Beside what needs no language model

Share of right answers on validation clips, with 95 % intervals. *YAMNet + MiniLM* is `yamnet-match`; the probe is a
logistic regression on mean, maximum and deviation over time of stock YAMNet's embeddings, fitted on so many training
clips that have one of so many of the labels. Made by

    pengi eval --suite local --manifest ../shared/data/manifest.jsonl --out runs/local
    python benchmarks/baselines.py runs/local --manifest ../shared/data/manifest.jsonl --out results/baselines

"""


class YamnetStatistics:
    """Mean, maximum and deviation over time of stock YAMNet's embeddings, see :class:`pengi.probing.Encoder`."""

    name = "yamnet-statistics"
    fingerprint = "yamnet-statistics-1"

    def __init__(self) -> None:
        self._encoder = YamnetEncoder.from_folder(weights.resolve("yamnet")).eval()

    def embed(self, recordings: Sequence[Path]) -> list[Vector | PengiError]:
        found: list[Vector | PengiError] = []
        for recording in recordings:
            try:
                found.append(self._embed(recording))
            except PengiError as error:
                found.append(error)
        return found

    @torch.inference_mode()
    def _embed(self, recording: Path) -> Vector:
        waveform_1S = torch.from_numpy(load(recording, SAMPLE_RATE))[None]
        tokens_1TD, mask_1T = self._encoder(waveform_1S, torch.tensor([waveform_1S.shape[1]]))
        tokens_TD = tokens_1TD[0][mask_1T[0]]
        deviation_D = tokens_TD.std(0, correction=0)
        vector_N: Vector = torch.cat([tokens_TD.mean(0), tokens_TD.amax(0), deviation_D]).numpy()
        return vector_N


def headlines(run: Path) -> dict[str, tuple[Benchmark, dict[str, Scored]]]:
    """Each benchmark and the systems' answers in its headline mode, by the benchmark's title."""
    found: dict[str, tuple[Benchmark, dict[str, Scored]]] = {}
    for asked, system, mode, scored in scored_answers(run):
        if mode == asked.modes[0] and scored.credit_N is not None:
            found.setdefault(asked.title, (asked, {}))[1].setdefault(system, scored)
    return found


def learned_from(clips: Sequence[Clip], asked: Benchmark, labels: Sequence[str]) -> list[tuple[Clip, str]]:
    """Training clips, and which of the labels each has."""
    pairs = []
    for clip in clips:
        known = [answer for answer in answers_of(clip, asked.field) if answer in labels]
        if clip.split == "train" and len(known) == 1:
            pairs.append((clip, known[0]))
    return [pair for pair in pairs if pair[0].ship] or pairs


def right(said: Sequence[str | None], items: Sequence[Item]) -> dict[str, Any]:
    found = share_right(
        [answer in item.answers for answer, item in zip(said, items, strict=True)], [item.group for item in items]
    )
    return {"accuracy": [round(value, 3) for value in (found.value, found.low, found.high)]}


def probed(
    items: Sequence[Item], asked: Benchmark, clips: Sequence[Clip], root: Path, labels: Sequence[str]
) -> dict[str, Any]:
    """The logistic regression's answers to the items."""
    pairs = learned_from(clips, asked, labels)
    recordings = [*(root / clip.audio for clip, _ in pairs), *(root / item.audio for item in items)]
    vectors_AN, usable = embeddings(YamnetStatistics(), recordings, weights.cache_folder().parent / "embeddings")
    if len(usable) < len(recordings):
        raise SystemExit(f"{len(recordings) - len(usable)} recordings of '{asked.title}' cannot be read")
    head = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    head.fit(vectors_AN[: len(pairs)], [label for _, label in pairs])
    known = {label for _, label in pairs}
    said = head.predict(vectors_AN[len(pairs) :]).tolist()
    return {"clips": len(pairs), "labels": len(known), **right(said, items)}


def matched(items: Sequence[Item], root: Path, labels: Sequence[str], tagger: YamnetMatch) -> dict[str, Any]:
    """The tagger's answers to the items."""
    outcomes = tagger([root / item.audio for item in items], labels)
    said = [None if isinstance(scores, PengiError) else labels[scores.index(max(scores))] for scores in outcomes]
    return right(said, items)


def measured(scored: Scored) -> dict[str, Any]:
    assert scored.credit_N is not None
    found = share_right((scored.credit_N > 0).tolist(), scored.groups)
    return {"accuracy": [round(value, 3) for value in (found.value, found.low, found.high)]}


def table(report: dict[str, dict[str, Any]]) -> str:
    """The report in Markdown."""

    def cell(found: dict[str, Any] | None) -> str:
        return "" if found is None else "{:.3f} ({:.3f} to {:.3f})".format(*found["accuracy"])

    lines = [
        "| benchmark | labels | n | pengi-mini | silence | YAMNet + MiniLM | probe on YAMNet | its clips (labels) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, row in report.items():
        learned = "" if row.get("probe") is None else f"{row['probe']['clips']} ({row['probe']['labels']})"
        cells = [cell(row.get(name)) for name in ("model", "blind", "match", "probe")]
        lines.append(f"| {title} | {row['labels'] or 'free'} | {row['n']} | {' | '.join(cells)} | {learned} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of `pengi eval --suite local`")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="without ending")
    options = parser.parse_args()
    clips = read_manifest(options.manifest, check_audio=False)
    root = options.manifest.parent
    tagger = YamnetMatch.from_pretrained()
    report: dict[str, dict[str, Any]] = {}
    for title, (asked, systems) in track(list(headlines(options.run).items()), "benchmarks"):
        items = systems["model"].items
        labels = items[0].labels
        row: dict[str, Any] = {"labels": len(labels), "n": len(items), "model": measured(systems["model"])}
        if "blind" in systems:
            row["blind"] = measured(systems["blind"])
        if labels:
            row["match"] = matched(items, root, labels, tagger)
            row["probe"] = probed(items, asked, clips, root, labels)
        report[title] = row
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(HEADER + table(report), encoding="utf-8")
    print(table(report), end="")


if __name__ == "__main__":
    main()
