"""Computes features of clips that are cropped at random in every step, and decodes them ahead.

The crop of a clip depends only on the seed, the step and its index in the batch, so a resumed run and any number of
processes get the same waveforms.

Shape suffixes: B clips, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from pengi.audio.decode import load, probe
from pengi.audio.level import without_offset
from pengi.data.manifest import Clip
from pengi.data.recordings import recording
from pengi.data.tolerance import Tolerance
from pengi.encoders.base import Masked
from pengi.errors import AudioError, ManifestError
from pengi.model import PengiModel
from pengi.training.recipe import TrainingConfig

Waveforms = dict[int, NDArray[np.float32]]
"""Sample rate in Hz -> the same crop of a clip, ``float32[S]``, for each rate that an encoder needs."""


class LiveFeatures:
    """Features of training clips, computed from their recordings at every step.

    Args:
        root: folder that the clips' ``audio`` is relative to.
        model: the sample rates and windows of its encoders are used.
        settings: of the training: seed, augmentation, threads.
        bad: counts clips that cannot be read; they are skipped.
        total: number of training clips; a share of them may be bad.
    """

    def __init__(self, root: Path, model: PengiModel, settings: TrainingConfig, bad: Tolerance, total: int) -> None:
        self.root = root
        self.model = model
        self.seed = settings.seed
        self.rates = sorted({branch.encoder.sample_rate for branch in model.branches.values()})
        self.window_s = max(branch.config.window_s for branch in model.branches.values())
        self.bad = bad
        self.total = total
        self._pool = ThreadPoolExecutor(max(1, settings.num_workers), thread_name_prefix="decode")
        self._ahead: dict[tuple[int, int, str], Future[Waveforms]] = {}

    def decode_ahead(self, step: int, clips: Sequence[Clip], rows: Sequence[int]) -> None:
        """Begin to decode the clips of a later step; ``rows`` are their indices in the batch."""
        for row, clip in zip(rows, clips, strict=True):
            key = (step, row, clip.id)
            if key not in self._ahead:
                self._ahead[key] = self._pool.submit(self.draw, clip, step, row)

    def features(self, step: int, clips: Sequence[Clip], rows: Sequence[int]) -> tuple[list[int], tuple[Masked, ...]]:
        """Features of some clips of a step's batch, on the model's device.

        Args:
            step: of the training.
            clips: whose recordings are encoded.
            rows: their indices in the whole batch.

        Returns:
            the indices, among the given clips, of those that could be read, and for each branch features and mask.

        Raises:
            ManifestError: if too many clips cannot be read, or none of the given ones can.
        """
        self.decode_ahead(step, clips, rows)
        readable, decoded = [], []
        for index, (row, clip) in enumerate(zip(rows, clips, strict=True)):
            try:
                decoded.append(self._ahead.pop((step, row, clip.id)).result())
                readable.append(index)
            except AudioError as error:
                self._skip(clip, error)
        if not decoded:
            raise ManifestError(f"none of the {len(clips)} clips of a batch can be read; the first is '{clips[0].id}'")
        return readable, self._encode(decoded)

    def draw(self, clip: Clip, step: int, row: int) -> Waveforms:
        """A window of a clip from a random position, at every rate.

        Raises:
            AudioError: if the recording cannot be read.
        """
        source = recording(self.root, clip.audio)
        spare_s = (clip.duration_s or probe(source).duration_s) - self.window_s
        offset_s = max(0.0, spare_s) * np.random.default_rng([self.seed, step, row]).random()
        return {
            rate: without_offset(load(source, rate, offset_s=offset_s, duration_s=self.window_s)) for rate in self.rates
        }

    def close(self) -> None:
        """Cancel decoding that has not begun, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def _skip(self, clip: Clip, error: AudioError) -> None:
        if clip.id not in self.bad.skipped:
            self.bad.skip(clip.id, error)
            self.bad.check(self.total, "clips")

    @torch.no_grad()
    def _encode(self, decoded: Sequence[Waveforms]) -> tuple[Masked, ...]:
        device = self.model.device
        found = []
        for branch in self.model.branches.values():
            rate = branch.encoder.sample_rate
            max_samples = round(branch.config.window_s * rate)
            rows = [torch.from_numpy(waveforms[rate][:max_samples]) for waveforms in decoded]
            lengths_B = torch.tensor([len(row) for row in rows], device=device)
            found.append(branch.encoder.features(pad_sequence(rows, batch_first=True).to(device), lengths_B))
        return tuple(found)
