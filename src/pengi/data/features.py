"""Frozen features of clips, computed once and kept on disk.

What comes before the first trained layer of an encoder never changes in training, so it is computed once per clip and
read back from a memory-mapped file: float16, all clips one behind the other.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pengi import weights
from pengi.audio.decode import AudioSource, load
from pengi.config import AudioBranchConfig
from pengi.data.manifest import Clip
from pengi.data.recordings import fingerprint, recording
from pengi.data.tolerance import MOST_BAD, Tolerance
from pengi.encoders import AudioEncoder, encoder_spec
from pengi.errors import AudioError
from pengi.progress import track

FORMAT = 1
META_FILE, VALUES_FILE = "features.json", "values.f16"


@dataclass(frozen=True)
class FeatureCache:
    """Features of clips of one encoder, by clip id."""

    values_Nx: np.ndarray[Any, np.dtype[np.float16]]
    spans: dict[str, tuple[int, int]]

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self.spans

    def tokens(self, clip_id: str) -> int:
        """Number of feature vectors of a clip."""
        start, end = self.spans[clip_id]
        return end - start

    def get(self, clip_id: str) -> Tensor:
        """``float32[T, ...]``."""
        start, end = self.spans[clip_id]
        return torch.from_numpy(np.asarray(self.values_Nx[start:end], dtype=np.float32))

    def batch(self, clip_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features ``float32[B, T, ...]`` of clips, zero-padded, and their mask ``bool[B, T]``."""
        rows = [self.get(clip_id) for clip_id in clip_ids]
        lengths = torch.tensor([len(row) for row in rows])
        mask_BT = torch.arange(int(lengths.max())) < lengths[:, None]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask_BT


def cached_features(
    clips: Sequence[Clip],
    audio_root: Path,
    encoder: AudioEncoder,
    branch: AudioBranchConfig,
    *,
    most_bad: float = MOST_BAD,
) -> FeatureCache:
    """Features of all clips that can be read, from the cache if these clips were computed before.

    Args:
        clips: their ``audio`` is relative to ``audio_root``.
        audio_root: the manifest's folder.
        encoder: with the weights that training starts from.
        branch: its configuration.
        most_bad: share of the clips that may be unreadable; they are logged, and the cache is without them.

    Raises:
        ManifestError: if more of the clips than that cannot be read.
    """
    if not clips:
        return FeatureCache(np.zeros(0, dtype=np.float16), {})
    folder = weights.cache_folder().parent / "features" / _key(clips, audio_root, branch)
    if not (folder / META_FILE).is_file():
        _build(folder, clips, audio_root, encoder, branch, most_bad)
    meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
    values_Nx = np.memmap(folder / VALUES_FILE, dtype=np.float16, mode="r").reshape(-1, *meta["shape"])
    return FeatureCache(values_Nx, {clip_id: (start, end) for clip_id, start, end in meta["spans"]})


def _key(clips: Sequence[Clip], audio_root: Path, branch: AudioBranchConfig) -> str:
    """Names the cache by everything the features depend on."""
    spec = encoder_spec(branch.encoder)
    source = weights.provenance(spec.weights)["weights_sha256"] if spec.weights else branch.encoder
    parts: list[Any] = [FORMAT + spec.revision, branch.encoder, source]
    parts += [branch.frozen_layers, branch.pool, branch.window_s]
    parts += [[clip.id, *fingerprint(audio_root, clip.audio)] for clip in clips]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _build(
    folder: Path,
    clips: Sequence[Clip],
    audio_root: Path,
    encoder: AudioEncoder,
    branch: AudioBranchConfig,
    most_bad: float,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder.parent) as work:
        finished = Path(work, "finished")
        finished.mkdir()
        _compute(finished, clips, audio_root, encoder, branch, Tolerance(most_bad))
        try:
            finished.replace(folder)
        except OSError:
            if not (folder / META_FILE).is_file():  # else another run was first, and its features serve as well
                raise


def _compute(
    folder: Path,
    clips: Sequence[Clip],
    audio_root: Path,
    encoder: AudioEncoder,
    branch: AudioBranchConfig,
    bad: Tolerance,
) -> None:
    spans: list[tuple[str, int, int]] = []
    shape: list[int] = []
    total = 0
    with (folder / VALUES_FILE).open("wb") as file:
        for clip in track(clips, f"features ({branch.encoder})"):
            try:
                features_Tx = _features(recording(audio_root, clip.audio), encoder, branch)
            except AudioError as error:
                bad.skip(clip.id, error)
                continue
            features_Tx.tofile(file)
            spans.append((clip.id, total, total + len(features_Tx)))
            total += len(features_Tx)
            shape = list(features_Tx.shape[1:])
    bad.check(len(clips), "clips")
    meta = {"shape": shape, "spans": spans, "skipped": bad.skipped}
    (folder / META_FILE).write_text(json.dumps(meta), encoding="utf-8")


@torch.no_grad()
def _features(
    source: AudioSource, encoder: AudioEncoder, branch: AudioBranchConfig
) -> np.ndarray[Any, np.dtype[np.float16]]:
    waveform_S = torch.from_numpy(load(source, encoder.sample_rate, duration_s=branch.window_s))
    features_BTx, _ = encoder.features(waveform_S[None], torch.tensor([len(waveform_S)]))
    return features_BTx[0].numpy().astype(np.float16)
