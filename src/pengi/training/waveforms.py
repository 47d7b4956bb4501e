"""Computes features of clips that are cropped at random in every step; threads decode the next step's.

The crop of a clip depends only on the seed, the step and its index in the batch, so a resumed run and any number of
processes get the same waveforms.

Shape suffixes: B clips, S samples.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice, tee
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from pengi.audio.decode import load, probe
from pengi.audio.level import without_offset
from pengi.batching import decode_ahead
from pengi.data.manifest import Clip
from pengi.data.recordings import recording
from pengi.data.tolerance import Tolerance
from pengi.encoders.base import Masked
from pengi.errors import AudioError, ManifestError
from pengi.model import PengiModel
from pengi.training.recipe import TrainingConfig

Waveforms = dict[int, NDArray[np.float32]]
"""Sample rate in Hz -> the same crop of a clip, ``float32[S]``, for each rate that an encoder needs."""
StepClips = tuple[int, Sequence[Clip], Sequence[int]]
"""A step, the clips of its batch, and the indices of those that are encoded."""
Live = tuple[list[int], tuple[Masked, ...]]
"""The indices, among the clips that are encoded, of those that could be read; for each branch features and mask."""


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
        self.workers, self.ahead = max(1, settings.num_workers), settings.batch_size

    def features(self, steps: Iterable[StepClips]) -> Generator[Live]:
        """Features of clips of each step, on the model's device; as many clips as a batch has are decoded ahead.

        Raises:
            ManifestError: if too many clips cannot be read, or none of a step's.
        """
        steps, later = tee(steps)
        crops = ((clips[row], step, row) for step, clips, rows in later for row in rows)
        with closing(decode_ahead(crops, self._decoded, workers=self.workers, ahead=self.ahead)) as decoded:
            for _, clips, rows in steps:
                found = list(islice(decoded, len(rows)))
                for row, crop in zip(rows, found, strict=True):
                    if isinstance(crop, AudioError):
                        self._skip(clips[row], crop)
                readable = {index: crop for index, crop in enumerate(found) if not isinstance(crop, AudioError)}
                if not readable:
                    first = clips[rows[0]].id
                    raise ManifestError(f"none of the {len(rows)} clips of a batch can be read; the first is '{first}'")
                yield list(readable), self._encode(list(readable.values()))

    def _decoded(self, crop: tuple[Clip, int, int]) -> Waveforms | AudioError:
        try:
            return self.draw(*crop)
        except AudioError as error:
            return error

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
