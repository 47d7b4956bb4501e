"""Frozen features of clips, computed once and kept on disk.

The output of an encoder's frozen layers does not change in training. It is computed once per clip and read back from
memory-mapped float16 files, one for each block of clips. A run that is killed loses only its unfinished block.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pengi import weights
from pengi.audio.decode import AudioSource, load
from pengi.audio.level import without_offset
from pengi.config import AudioBranchConfig
from pengi.data.manifest import Clip
from pengi.data.recordings import fingerprint, recording
from pengi.data.tolerance import MAX_BAD_SHARE, Tolerance
from pengi.encoders import AudioEncoder, encoder_spec
from pengi.encoders.base import Masked
from pengi.errors import AudioError
from pengi.generation import padded
from pengi.hashes import text_sha256
from pengi.progress import track
from pengi.writing import writing

log = logging.getLogger(__name__)

FORMAT = 2
META_FILE, VALUES_FILE = "features.json", "values.f16"
BLOCK_CLIPS = 512

Values = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class FeatureCache:
    """Features of clips of one encoder, by clip id.

    Attributes:
        blocks: ``float16[N, ...]`` each, the features of several clips.
        spans: clip id -> index of its block, and start and end in it.
    """

    blocks: tuple[Values, ...]
    spans: Mapping[str, tuple[int, int, int]]

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self.spans

    def tokens(self, clip_id: str) -> int:
        """Number of feature vectors of a clip."""
        _, start, end = self.spans[clip_id]
        return end - start

    def get(self, clip_id: str) -> Tensor:
        """Features of a clip, ``float32[T, ...]``."""
        block, start, end = self.spans[clip_id]
        return torch.from_numpy(np.asarray(self.blocks[block][start:end], dtype=np.float32))

    def batch(self, clip_ids: Sequence[str]) -> Masked:
        """Features ``float32[B, T, ...]`` of clips, zero-padded, and their mask ``bool[B, T]``."""
        return padded([self.get(clip_id) for clip_id in clip_ids])


Branch = tuple[AudioEncoder, AudioBranchConfig]
"""An encoder with the weights that training starts from, and its configuration."""


def cached_branches(
    clips: Sequence[Clip], audio_root: Path, branches: Sequence[Branch], *, max_bad_share: float = MAX_BAD_SHARE
) -> list[FeatureCache]:
    """Features of all readable clips: one cache for each branch.

    Features that are not on disk yet are computed in one pass; each recording is decoded once for several branches.

    Args:
        clips: their ``audio`` is relative to ``audio_root``.
        audio_root: the manifest's folder.
        branches: encoders and their configurations.
        max_bad_share: share of the clips that may be unreadable; they are logged and left out.

    Raises:
        ManifestError: if more of the clips than that cannot be read.
    """
    root = features_folder()
    bad = Tolerance(max_bad_share)
    found: list[list[Path]] = [[] for _ in branches]
    for start in range(0, len(clips), BLOCK_CLIPS):
        block = clips[start : start + BLOCK_CLIPS]
        recordings = [[clip.id, *fingerprint(audio_root, clip.audio)] for clip in block]
        folders = [root / _key(recordings, branch) for _, branch in branches]
        missing = {folder: branch for folder, branch in zip(folders, branches, strict=True) if not _is_whole(folder)}
        if missing:
            _build(root, missing, block, audio_root, bad, len(clips))
        for block_folders, folder in zip(found, folders, strict=True):
            block_folders.append(folder)
    return [_read_blocks(folders) for folders in found]


def features_folder() -> Path:
    """The folder of all cached results about training clips.

    Raises:
        InputError: if it cannot be made.
    """
    folder = weights.cache_folder().parent / "features"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether the features of a block are in the cache; damaged ones are deleted."""
    if not folder.is_dir():
        return False
    try:
        _read_block(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the features in '%s' are damaged (%s) and are computed again", folder, error)
        shutil.rmtree(folder)
        return False
    return True


def _read_blocks(folders: Sequence[Path]) -> FeatureCache:
    blocks = [_read_block(folder) for folder in folders]
    span_of = {clip_id: (index, *span) for index, (_, spans) in enumerate(blocks) for clip_id, span in spans.items()}
    return FeatureCache(tuple(values for values, _ in blocks), span_of)


def _read_block(folder: Path) -> tuple[Values, dict[str, tuple[int, int]]]:
    """The features of one block, and start and end of each clip."""
    meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
    spans = {clip_id: (start, end) for clip_id, start, end in meta["spans"]}
    if not spans:
        return np.zeros(0, dtype=np.float16), {}
    values_Nx = np.memmap(folder / VALUES_FILE, dtype=np.float16, mode="r").reshape(-1, *meta["shape"])
    if len(values_Nx) != max(end for _, end in spans.values()):
        raise ValueError(f"{VALUES_FILE} is cut off")
    return values_Nx, spans


def _key(fingerprints: Sequence[Sequence[Any]], branch: AudioBranchConfig) -> str:
    """A hash of everything the features depend on; ``fingerprints`` are ids and fingerprints of the clips."""
    spec = encoder_spec(branch.encoder)
    source = weights.provenance(spec.weights)["weights_sha256"] if spec.weights else branch.encoder
    parts: list[Any] = [FORMAT, branch.encoder, source]
    parts += [branch.frozen_layers, branch.pool, branch.window_s, *fingerprints]
    return text_sha256(json.dumps(parts, sort_keys=True))[:24]


def _build(
    root: Path, missing: Mapping[Path, Branch], clips: Sequence[Clip], audio_root: Path, bad: Tolerance, total: int
) -> None:
    with writing(root), tempfile.TemporaryDirectory(prefix=".work-", dir=root) as work:
        finished = {folder: Path(work, folder.name) for folder in missing}
        for partial in finished.values():
            partial.mkdir()
        _compute(list(finished.values()), list(missing.values()), clips, audio_root, bad, total)
        for folder, partial in finished.items():
            try:
                partial.replace(folder)
            except OSError:
                if not (folder / META_FILE).is_file():  # otherwise another run was first, and its features are the same
                    raise


def _compute(
    folders: Sequence[Path],
    branches: Sequence[Branch],
    clips: Sequence[Clip],
    audio_root: Path,
    bad: Tolerance,
    total: int,
) -> None:
    spans: list[list[tuple[str, int, int]]] = [[] for _ in branches]
    totals, shapes = [0] * len(branches), [[0]] * len(branches)
    with ExitStack() as stack:
        files = [stack.enter_context((folder / VALUES_FILE).open("wb")) for folder in folders]
        named = ", ".join(branch.encoder for _, branch in branches)
        for clip in track(clips, f"features ({named})"):
            try:
                found = _features(recording(audio_root, clip.audio), branches)
            except AudioError as error:
                bad.skip(clip.id, error)
                continue
            for index, features_Tx in enumerate(found):
                features_Tx.tofile(files[index])
                start = totals[index]
                totals[index] += len(features_Tx)
                spans[index].append((clip.id, start, totals[index]))
                shapes[index] = list(features_Tx.shape[1:])
    bad.check(total, "clips")
    for folder, shape, branch_spans in zip(folders, shapes, spans, strict=True):
        meta = {"shape": shape, "spans": branch_spans, "skipped": bad.skipped}
        (folder / META_FILE).write_text(json.dumps(meta), encoding="utf-8")


@torch.no_grad()
def _features(source: AudioSource, branches: Sequence[Branch]) -> list[Values]:
    """Features of one recording without its constant offset, ``float16[T, ...]`` for each branch."""
    waveforms: dict[tuple[int, float], Tensor] = {}
    found = []
    for encoder, branch in branches:
        read = (encoder.sample_rate, branch.window_s)
        if read not in waveforms:
            samples_S = without_offset(load(source, encoder.sample_rate, duration_s=branch.window_s))
            waveforms[read] = torch.from_numpy(samples_S)[None]
        waveform_1S = waveforms[read]
        features_1Tx, _ = encoder.features(waveform_1S, torch.tensor([waveform_1S.shape[1]]))
        found.append(features_1Tx[0].numpy().astype(np.float16))
    return found
