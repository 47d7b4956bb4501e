"""Linear probes: how well a small head predicts labels from an encoder's embeddings.

There are two heads, as in the paper: one layer (L1) and three layers (L3). The encoder is frozen and encodes each
recording once. Its embeddings are cached on disk, so another head or another split takes seconds. If a dataset has
folds, they are used. Otherwise a head is trained on the training split and tested on the chosen split. If there is no
training split, folds are made that keep the recordings of one group together.

Shape suffixes: N recordings, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pengi import weights
from pengi.audio.decode import load
from pengi.calls import Vector
from pengi.checkpoint import model_hash
from pengi.data.manifest import Clip, read_manifest
from pengi.data.tasks import answers_of
from pengi.encoders import yamnet
from pengi.errors import InputError, PengiError
from pengi.evaluation.statistics import Interval, bootstrap, mean_of
from pengi.evaluation.systems import code_hash, file_hash
from pengi.hashes import text_sha256
from pengi.progress import Advance
from pengi.streaming import attempt
from pengi.writing import replacing, writing

FOLDS = 5
SEED = 0
HIDDEN = 512
BATCH = 16
YAMNET = "yamnet"


class Encoder(Protocol):
    """Encodes each recording as one vector.

    Attributes:
        fingerprint: SHA-256 of all that the vectors depend on.
    """

    name: str
    fingerprint: str

    def embed(self, recordings: Sequence[Path]) -> Sequence[Vector | PengiError]:
        """A vector ``float32[D]`` for each recording, or the error of a recording that cannot be used."""


class EngineEncoder:
    """The audio encoders of a model; the vectors are those of ``pengi embed``."""

    def __init__(self, name: str, device: str = "auto") -> None:
        from pengi.engine import Pengi

        self.name = name
        self._engine = Pengi.from_pretrained(name, device=device)
        self.fingerprint = text_sha256(f"{model_hash(name)} {code_hash()}")

    def embed(self, recordings: Sequence[Path]) -> Sequence[Vector | PengiError]:
        found: Sequence[Vector | PengiError] = self._engine.embed(list(recordings), on_error="return")
        return found


class StockYamnet:
    """YAMNet as it was published; a vector is the mean of its embeddings over a recording."""

    name = YAMNET

    def __init__(self) -> None:
        self._encoder = yamnet.YamnetEncoder.from_folder(weights.resolve(YAMNET)).eval()
        self.fingerprint = text_sha256(f"{YAMNET} {code_hash()}")

    def embed(self, recordings: Sequence[Path]) -> Sequence[Vector | PengiError]:
        return [attempt(self._embed, recording) for recording in recordings]

    @torch.inference_mode()
    def _embed(self, recording: Path) -> Vector:
        waveform_1S = torch.from_numpy(load(recording, yamnet.SAMPLE_RATE))[None]
        tokens_1TD, _ = self._encoder(waveform_1S, torch.tensor([waveform_1S.shape[1]]))
        mean_D: Vector = tokens_1TD[0].mean(0).numpy()
        return mean_D


@dataclass(frozen=True)
class Head:
    """A classifier on the embeddings."""

    name: str
    layers: tuple[int, ...]


HEADS = (Head("L1", ()), Head("L3", (HIDDEN, HIDDEN)))


@dataclass(frozen=True)
class Probe:
    """The result of one encoder and head: accuracy with its interval over groups, and the accuracy of each fold."""

    encoder: str
    head: str
    n: int
    accuracy: float
    ci95: tuple[float, float]
    folds: tuple[float, ...]


@dataclass(frozen=True)
class ProbeData:
    """Labelled recordings and how they are split.

    Attributes:
        parts: for each fold the indices of the training and of the test recordings.
        scheme: how they were split, in words.
    """

    recordings: tuple[Path, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]
    scheme: str


def probe_data(manifest: Path, field: str, *, split: str, source: str | None = None, folds: int = FOLDS) -> ProbeData:
    """The recordings of a manifest that have exactly one label in ``field`` ("events" or an attribute).

    Raises:
        InputError: if nothing matches, there is only one label, or there are fewer groups than folds.
        ManifestError: as :func:`pengi.data.manifest.read_manifest`.
    """
    clips = [
        clip
        for clip in read_manifest(manifest, check_audio=False)
        if source in (None, clip.source) and clip.split in ("train", split) and len(answers_of(clip, field)) == 1
    ]
    tested = [clip for clip in clips if clip.split == split]
    labels = {answers_of(clip, field)[0] for clip in tested}
    if len(labels) < 2:
        raise InputError(f"'{manifest}' has {len(labels)} labels of {field} in split '{split}'; 2 are needed")
    train = [clip for clip in clips if clip.split == "train" and answers_of(clip, field)[0] in labels]
    has_folds = all("fold" in clip.attributes for clip in tested)
    used = tested if has_folds or split == "train" or not train else train + tested
    parts, scheme = _parts(used, field, len(used) - len(tested), has_folds, folds)
    return ProbeData(
        recordings=tuple(manifest.parent / clip.audio for clip in used),
        labels=tuple(answers_of(clip, field)[0] for clip in used),
        groups=tuple(clip.group or clip.id for clip in used),
        parts=parts,
        scheme=scheme,
    )


def probe(encoder: Encoder, data: ProbeData, cache: Path, done: Advance = lambda count: None) -> list[Probe]:
    """Train and test every head on an encoder's embeddings; recordings that cannot be used are left out.

    Raises:
        InputError: if nothing is left to train on or to test on.
    """
    vectors, usable = embeddings(encoder, data.recordings, cache, done)
    row_of = {index: row for row, index in enumerate(usable)}
    labels, groups = np.array(data.labels)[usable], np.array(data.groups)[usable]
    probes = []
    for head in HEADS:
        right_N = np.full(len(usable), np.nan)
        folds = []
        for learn, test in data.parts:
            here = [np.array([row_of[i] for i in part if i in row_of], dtype=np.intp) for part in (learn, test)]
            if not all(map(len, here)):
                raise InputError("a fold has no recording that can be used")
            right_N[here[1]] = (
                _fit(head, vectors[here[0]], labels[here[0]]).predict(vectors[here[1]]) == labels[here[1]]
            )
            folds.append(float(right_N[here[1]].mean()))
        tested = np.flatnonzero(~np.isnan(right_N))
        found: Interval = bootstrap(mean_of(right_N[tested]), groups[tested].tolist())
        probes.append(Probe(encoder.name, head.name, len(tested), found.value, (found.low, found.high), tuple(folds)))
    return probes


def embeddings(
    encoder: Encoder, recordings: Sequence[Path], cache: Path, done: Advance = lambda count: None
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Embeddings ``float32[N, D]`` of the recordings that can be used, and their indices.

    Embeddings are cached in one file for each recording and encoder below ``cache``.
    """
    folder = cache / encoder.fingerprint[:16]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{file_hash(recording)}.npy" for recording in recordings]
    absent = [index for index, file in enumerate(files) if not file.is_file()]
    done(len(files) - len(absent))
    for start in range(0, len(absent), BATCH):
        part = absent[start : start + BATCH]
        for index, vector_D in zip(part, encoder.embed([recordings[index] for index in part]), strict=True):
            if not isinstance(vector_D, PengiError):
                _save(files[index], vector_D)
        done(len(part))
    usable = np.array([index for index, file in enumerate(files) if file.is_file()], dtype=np.intp)
    if not len(usable):
        raise InputError("none of the recordings can be used")
    return np.stack([np.load(files[index]) for index in usable]), usable


def encoder_by_name(name: str, device: str = "auto") -> Encoder:
    """Stock YAMNet, or the audio encoders of a model.

    Raises:
        PengiError: if its weights are not here, or there is no such model.
    """
    return StockYamnet() if name == YAMNET else EngineEncoder(name, device)


def _fit(head: Head, vectors_ND: NDArray[np.float32], labels: NDArray[Any]) -> Any:
    """Fit a head on standardised embeddings: logistic regression, or a perceptron with two hidden layers."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = (
        MLPClassifier(head.layers, alpha=1e-3, max_iter=200, random_state=SEED, early_stopping=False)
        if head.layers
        else LogisticRegression(C=0.1, max_iter=2000)
    )
    with warnings.catch_warnings():
        # All encoders get the same number of iterations, so stopping before convergence is intended.
        warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")
        return make_pipeline(StandardScaler(), classifier).fit(vectors_ND, labels)


def _parts(
    clips: Sequence[Clip], field: str, train: int, has_folds: bool, folds: int
) -> tuple[tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...], str]:
    """The parts and their scheme; the first ``train`` clips are those of the training split, if there are any."""
    from sklearn.model_selection import StratifiedGroupKFold

    indices = np.arange(len(clips))
    if has_folds:
        fold_N = np.array([str(clip.attributes["fold"]) for clip in clips])
        names = sorted(set(fold_N))
        return tuple((indices[fold_N != name], indices[fold_N == name]) for name in names), f"{len(names)} own folds"
    if train:
        return ((indices[:train], indices[train:]),), "training split against test split"
    groups = [clip.group or clip.id for clip in clips]
    if len(set(groups)) < folds:
        raise InputError(f"{len(set(groups))} groups of recordings cannot be split into {folds} folds")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=SEED)
    labels = [answers_of(clip, field)[0] for clip in clips]
    with warnings.catch_warnings():
        # A label with fewer clips than folds is necessarily missing in some test parts.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = tuple(splitter.split(indices, labels, groups))
    return parts, f"{folds} folds, groups kept together"


def _save(file: Path, vector_D: Vector) -> None:
    with replacing(file) as partial:
        np.save(partial, vector_D)
