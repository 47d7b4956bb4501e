"""A baseline without a language model: stock YAMNet, whose classes are matched to labels by their names.

Shape suffixes: N recordings, T patches, C AudioSet classes, L labels, D features of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from pengi import weights
from pengi.audio.decode import load
from pengi.conditioning.pooling import log_mean_exp
from pengi.encoders.yamnet import YamnetTagger
from pengi.errors import InputError, PengiError
from pengi.text_encoder import SentenceEncoder

YAMNET_MATCH = "yamnet-match"
"""Name of the baseline."""
_MIN_DEVIATION = 1e-6


class YamnetMatch:
    """Scores each label by the standardised logit of the AudioSet class with the most similar name (MiniLM).

    The usual height of logits differs between classes, so each class is standardised by its mean and standard deviation
    over the recordings that are classified. That uses no labels, but it is transductive: the answer about a recording
    depends on the other recordings, and at least two are needed.
    """

    def __init__(self, tagger: YamnetTagger, sentences: SentenceEncoder) -> None:
        self._tagger = tagger
        self._sentences = sentences

    @classmethod
    def from_pretrained(cls) -> Self:
        """Stock weights.

        Raises:
            WeightsError: if the weights are not here and cannot be fetched.
        """
        tagger = YamnetTagger.from_folder(weights.resolve("yamnet"))
        return cls(tagger, SentenceEncoder.from_folder(weights.resolve("all-minilm-l6-v2")))

    def nearest_classes(self, labels: Sequence[str]) -> list[int]:
        """For each label the index of the AudioSet class with the most similar display name (cosine)."""
        labels_LD = self._sentences.embed(labels)
        classes_CD = self._sentences.embed(self._tagger.classes)
        nearest: list[int] = (labels_LD @ classes_CD.T).argmax(1).tolist()
        return nearest

    def __call__(self, recordings: Sequence[Path], labels: Sequence[str]) -> list[tuple[float, ...] | PengiError]:
        """Scores of the labels for each recording: logits of their classes in standard deviations above the mean.

        A class whose logit is the same for all recordings scores 0. For a recording that cannot be read, its error is
        returned.

        Raises:
            InputError: if fewer than two recordings can be read.
        """
        outcomes: list[Tensor | PengiError] = []
        for recording in recordings:
            try:
                outcomes.append(self._logits(recording))
            except PengiError as error:
                outcomes.append(error)
        usable = [outcome for outcome in outcomes if isinstance(outcome, Tensor)]
        if len(usable) < 2:
            raise InputError(
                f"{YAMNET_MATCH} compares recordings with each other and needs at least two that can be read"
            )
        logits_NC = torch.stack(usable)
        z_NC = (logits_NC - logits_NC.mean(0)) / logits_NC.std(0).clamp_min(_MIN_DEVIATION)
        scored = iter(z_NC[:, self.nearest_classes(labels)].tolist())
        return [outcome if isinstance(outcome, PengiError) else tuple(next(scored)) for outcome in outcomes]

    @torch.no_grad()
    def _logits(self, recording: Path) -> Tensor:
        """AudioSet logits of a recording, ``float32[C]``: logarithms of the mean odds of its patches."""
        waveform_1S = torch.from_numpy(load(recording, self._tagger.encoder.sample_rate))[None]
        logits_1TC, _ = self._tagger(waveform_1S, torch.tensor([waveform_1S.shape[1]]))
        return log_mean_exp(logits_1TC, torch.ones(logits_1TC.shape[:2], dtype=torch.bool))[0]
