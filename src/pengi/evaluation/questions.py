"""Building blocks of open questions: labelled clips, wordings, and the names of labels in answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pengi.data.compose import Composed, compose
from pengi.data.manifest import Clip, Label, read_labels, read_manifest
from pengi.data.tasks import labels_of
from pengi.evaluation import patterns
from pengi.evaluation.patterns import naming

SPEC = Path(__file__).resolve().parents[1] / "assets" / "open_questions.yaml"
SEED = 0
COMPOSED = 300
"""Number of composed recordings for questions about order, number and loudness."""
_ROLLING = frozenset({"minor trill", "major trill", "glissando", "tongued slur", "nonlegato"})


@dataclass(frozen=True)
class Question:
    """A question about a recording, one right answer, and the patterns of all right answers."""

    clip: Clip
    family: str
    text: str
    answer: str
    accepted: tuple[str, ...]


@dataclass(frozen=True)
class LabelledClips:
    """The labelled clips that questions are made from."""

    clips: tuple[Clip, ...]
    labels: dict[str, Label]
    root: Path

    @classmethod
    def read(cls, manifest: Path, split: str) -> LabelledClips:
        """The clips of one split of a manifest, and the labels beside it.

        Raises:
            ManifestError: as :func:`pengi.data.manifest.read_manifest`.
        """
        clips = tuple(clip for clip in read_manifest(manifest, check_audio=False) if clip.split == split)
        beside = manifest.parent / "labels.jsonl"
        return cls(clips, labels_of(clips, read_labels(beside) if beside.is_file() else {}), manifest.parent)

    def composed(self) -> list[Composed]:
        """:data:`COMPOSED` compositions of the clips, the same every time; none if there is only one label."""
        return list(compose(self.clips, self.labels, SEED, COMPOSED)) if len(self.labels) > 1 else []


@cache
def spec() -> dict[str, Any]:
    """The content of ``assets/open_questions.yaml``: wordings and right answers."""
    found: dict[str, Any] = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    return found


class LabelNames:
    """The names that labels may have in an answer."""

    def __init__(self, labels: Mapping[str, Label]) -> None:
        self.labels = labels
        self._known: dict[str, str] = spec()["names"]

    def phrase(self, label: str) -> str:
        """The label as a phrase that completes "the sound of ..."."""
        return self.labels[label].phrase

    def of(self, label: str) -> str:
        """A regular expression that matches the names of a label."""
        return self._known.get(label) or re.escape(self.phrase(label).lower())

    def one(self, right: str, others: Iterable[str]) -> str:
        """The pattern of answers that name the label ``right`` and none of ``others``."""
        phrase = self.phrase(right).lower()
        rivals = {other: self.of(other) for other in others if other != right}
        return naming(
            self.of(right),
            *(
                re.escape(self.phrase(other).lower()) if re.search(rf"\b(?:{rival})\b", phrase) else rival
                for other, rival in rivals.items()
            ),
        )


def made_clip(name: str) -> Clip:
    """The row of a generated recording, see :data:`pengi.evaluation.building.MADE`."""
    slug = f"made-{name.replace(' ', '-')}"
    return Clip(id=slug, audio=f"{slug}.flac", split="val", group=slug, license="CC0-1.0", ship=True)


def is_steady(clip: Clip, sources: Sequence[str]) -> bool:
    """Whether a clip of one of the sources is one note of a known pitch, without trills and slides."""
    attributes = clip.attributes
    rolls = attributes.get("note_length") == "phrase" or attributes.get("articulation") in _ROLLING
    return clip.source in sources and "midi" in attributes and not rolls


def note_question(clip: Clip, wording: str) -> Question:
    """A question about the name and octave of the note in a clip."""
    midi = int(clip.attributes["midi"])
    return Question(clip, "note", wording, str(clip.attributes["pitch"]), (patterns.note(midi),))
