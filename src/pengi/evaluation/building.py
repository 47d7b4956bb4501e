"""Writes the manifests of benchmarks of open questions into the folder of a run.

The same clips and the same code give the same questions. The wordings and the right answers are in
``assets/open_questions.yaml``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from pengi.data.compose import write_composed
from pengi.data.manifest import Clip
from pengi.errors import InputError
from pengi.evaluation.composed_questions import composed_questions
from pengi.evaluation.open_questions import open_questions
from pengi.evaluation.questions import SEED, LabelledClips, Question, is_steady, made_clip, note_question, spec
from pengi.json_lines import JsonLines
from pengi.writing import locked, replacing

RATE, MADE_S = 16_000, 5.0


def write_questions(name: str, manifest: Path, split: str, out: Path) -> Path:
    """Write the manifest of a benchmark of open questions, and its generated recordings; return the manifest's path.

    Args:
        name: a key of :data:`BUILDERS`.
        manifest: labelled clips.
        split: whose clips are asked about.
        out: folder of the run; ``manifests/<name>.jsonl`` and ``recordings`` are written there.

    Raises:
        InputError: if the manifest has no clip to ask about.
    """
    source = LabelledClips.read(manifest, split)
    questions = BUILDERS[name](source)
    if not questions:
        raise InputError(f"'{manifest}' has nothing for {name} in its split '{split}'")
    recordings = out / "recordings"
    recordings.mkdir(parents=True, exist_ok=True)
    with locked(recordings, wait=True):  # shards of a run may start at the same time
        paths = _recordings(source, {asked.clip.id for asked in questions}, recordings)
    path = out / "manifests" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(questions, lambda clip: paths.get(clip.id, source.root / clip.audio), path.parent)
    JsonLines(path).rewrite(rows)
    return path


def _rows(questions: Iterable[Question], path_of: Callable[[Clip], Path], folder: Path) -> Iterable[dict[str, Any]]:
    by_clip: defaultdict[str, list[Question]] = defaultdict(list)
    for asked in questions:
        by_clip[asked.clip.id].append(asked)
    for group in by_clip.values():
        clip = group[0].clip
        pairs = [
            {"question": asked.text, "answer": asked.answer, "kind": asked.family, "accepted": asked.accepted}
            for asked in group
        ]
        audio = Path(os.path.relpath(path_of(clip).resolve(), folder.resolve())).as_posix()
        yield clip.model_dump(exclude_defaults=True, exclude={"qa", "captions"}) | {"audio": audio, "qa": pairs}


def _recordings(source: LabelledClips, needed: set[str], folder: Path) -> dict[str, Path]:
    """Clip id -> file of the generated recordings that the questions need; missing ones are written."""
    paths: dict[str, Path] = {}
    composed = source.composed()
    if any(example.id in needed for example in composed):
        corpus = folder / composed[0].id.rpartition("-")[0]
        if not corpus.is_dir():
            write_composed(source.clips, source.labels, source.root, corpus, count=len(composed), seed=SEED, rate=RATE)
        paths = {example.id: corpus / example.clip.audio for example in composed}
    for name, make in MADE.items():
        clip = made_clip(name)
        if clip.id in needed:
            paths[clip.id] = folder / clip.audio
            with replacing(paths[clip.id]) as partial:
                soundfile.write(partial, make(), RATE, format="FLAC", subtype="PCM_24")
    return paths


def _white() -> NDArray[np.float64]:
    return np.random.default_rng(SEED).standard_normal(round(MADE_S * RATE))


def _pink() -> NDArray[np.float64]:
    spectrum = np.fft.rfft(_white())
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0)))
    scaled: NDArray[np.float64] = pink / pink.std()
    return scaled


MADE: dict[str, Callable[[], NDArray[np.float64]]] = {
    "silence": lambda: np.zeros(round(MADE_S * RATE)),
    "faint": lambda: _white() * 10 ** (-85 / 20),
    "white noise": lambda: _white() * 10 ** (-25 / 20),
    "pink noise": lambda: _pink() * 10 ** (-25 / 20),
}
"""Generated recordings without any label, by their names in ``assets/open_questions.yaml``."""


def note_questions(source: LabelledClips) -> list[Question]:
    """The name and octave of each steady note of the Philharmonia samples."""
    wording = spec()["wordings"]["note"][0]
    return [note_question(clip, wording) for clip in source.clips if is_steady(clip, ("philharmonia",))]


BUILDERS: dict[str, Callable[[LabelledClips], list[Question]]] = {
    "val-open": open_questions,
    "val-composed": composed_questions,
    "val-notes": note_questions,
}
"""The function that makes the questions of each benchmark."""
