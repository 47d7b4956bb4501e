"""Reports the accuracy of new tags: a table of the labels, a confusion table, and the worst clips.

Shape suffixes: N clips, K labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pengi.data.manifest import Clip
from pengi.data.tagging import TagTargets
from pengi.training.report import REPORT_FILE
from pengi.writing import replacing

NOTHING = "(none)"
"""Name of the row of clips that have none of the labels, and of the column of clips in which none is detected."""
MAX_WORST = 10


@dataclass(frozen=True)
class LabelReport:
    """Labels detected in clips.

    Attributes:
        labels: K of them.
        clips: N of them.
        probability_NK: of each label in each clip.
        targets: what is in the clips.
        thresholds: label -> lowest probability at which it counts as detected.
        where: which clips they are, in words.
    """

    labels: tuple[str, ...]
    clips: Sequence[Clip]
    probability_NK: NDArray[np.float32]
    targets: TagTargets
    thresholds: Mapping[str, float]
    where: str

    def lines(self) -> list[str]:
        """The report as Markdown."""
        return [
            "## Labels",
            "",
            f"On {len(self.clips)} {self.where}. A label counts as detected from its threshold on, which has the best",
            "F1 on these clips; `pengi timeline` uses the same.",
            "",
            *_table(("label", "clips", "threshold", "precision", "recall", "F1"), self._scores()),
            "",
            "### Confusions",
            "",
            "True labels down, the most probable detected label across. A clip of several labels counts for each,",
            "without its others.",
            "",
            *_table(("", *self.labels, NOTHING), self._confusions()),
            "",
            f"### The {min(MAX_WORST, len(self.clips))} worst clips",
            "",
            *_table(("clip", "true", "probabilities"), self._worst()),
        ]

    def _scores(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for column, label in enumerate(self.labels):
            known_N = self.targets.known_NK[:, column]
            present_N = self.targets.present_NK[known_N, column]
            found_N = self.probability_NK[known_N, column] >= self.thresholds[label]
            hits = int((found_N & present_N).sum())
            shares = (
                hits / max(int(found_N.sum()), 1),
                hits / max(int(present_N.sum()), 1),
                2 * hits / max(int(found_N.sum() + present_N.sum()), 1),
            )
            rows.append((label, int(present_N.sum()), f"{self.thresholds[label]:.2f}", *(f"{s:.2f}" for s in shares)))
        return rows

    def confusions(self) -> Counter[tuple[str, str]]:
        """(true label, most probable detected label) -> number of clips. A clip of several labels counts once for each;
        its other labels are then ignored."""
        threshold_K = np.array([self.thresholds[label] for label in self.labels])
        counts: Counter[tuple[str, str]] = Counter()
        for row in range(len(self.clips)):
            present_K, known_K = self.targets.present_NK[row], self.targets.known_NK[row]
            if not known_K.any():
                continue
            is_above_K = known_K & (self.probability_NK[row] >= threshold_K)
            above_K = np.where(is_above_K, self.probability_NK[row], 0.0)
            for true in np.flatnonzero(present_K).tolist() or [-1]:
                others_K = present_K & (np.arange(len(self.labels)) != true)
                candidates_K = np.where(others_K, 0.0, above_K)
                best = self.labels[int(candidates_K.argmax())] if candidates_K.any() else NOTHING
                counts[self.labels[true] if true >= 0 else NOTHING, best] += 1
        return counts

    def summary(self) -> list[str]:
        """A sentence for each label."""
        return [
            f"{label}: detected from {threshold} on; precision {precision}, recall {recall} ({count} {self.where})"
            for label, count, threshold, precision, recall, _ in self._scores()
        ]

    def _confusions(self) -> list[tuple[object, ...]]:
        counts, names = self.confusions(), (*self.labels, NOTHING)
        return [(true, *(counts[true, found] or "" for found in names)) for true in names]

    def worst(self) -> list[int]:
        """Indices of the clips with the largest error of any known label, the largest first."""
        error_NK = np.abs(self.probability_NK - self.targets.present_NK) * self.targets.known_NK
        worst: list[int] = np.argsort(-error_NK.max(1), kind="stable")[:MAX_WORST].tolist()
        return worst

    def _worst(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for row in self.worst():
            order = np.argsort(-self.probability_NK[row], kind="stable")[:3]
            likely = ", ".join(f"{self.labels[column]} {self.probability_NK[row, column]:.2f}" for column in order)
            rows.append((self.clips[row].audio, ", ".join(self.clips[row].events) or NOTHING, likely))
        return rows


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def write_label_report(folder: Path, name: str, report: LabelReport) -> None:
    """Write the report of a run that adds tags only.

    Raises:
        InputError: if it cannot be written.
    """
    with replacing(folder / REPORT_FILE) as partial:
        partial.write_text("\n".join([f"# New tags of {name}", "", *report.lines()]) + "\n", encoding="utf-8")
