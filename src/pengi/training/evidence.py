"""Evidence about training clips: the tagger is fitted, and its out-of-fold detections, transcripts and descriptors are
what the language model is trained behind.

Shape suffixes: N clips, F frames, K tags, D features.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from pengi import weights
from pengi.conditioning.collect import detected_tags
from pengi.conditioning.descriptors import describe_waveform
from pengi.conditioning.evidence import Evidence
from pengi.conditioning.pooling import log_mean_exp
from pengi.conditioning.tagger import Tagger, frames
from pengi.conditioning.transcript import SAMPLE_RATE, Transcriber
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.features import FeatureCache
from pengi.data.manifest import Clip, Label
from pengi.data.measured import Measured, cached_measurements
from pengi.data.simulation import TagNoise, measure_noise
from pengi.data.tagging import build_vocabulary, tag_targets
from pengi.encoders.yamnet import YamnetTagger
from pengi.model import PengiModel
from pengi.training.recipe import TaggerTraining
from pengi.training.tagger import (
    FitOptions,
    FittedTagger,
    Frames,
    Scores,
    fit_tagger,
    folds_of,
    stock_scores,
)
from pengi.writing import replacing

log = logging.getLogger(__name__)

MEASURED_VERSION = 1
"""Another one measures transcripts and descriptors anew."""
_FIT_VERSION = 1


@dataclass(frozen=True)
class TrainingClips:
    """Clips of one split, and the caches of their features, one for each audio branch."""

    clips: Sequence[Clip]
    caches: Sequence[FeatureCache]


def fit_evidence(
    model: PengiModel,
    train: TrainingClips,
    held_out: TrainingClips,
    measured: Mapping[str, Measured],
    labels: Mapping[str, Label],
    settings: TaggerTraining,
) -> tuple[dict[str, Evidence], TagNoise]:
    """Fit the model's tagger, and collect the evidence about training clips (out of fold) and held-out ones.

    Args:
        model: with frozen audio branches; gets a vocabulary and a tagger.
        train: what to fit on.
        held_out: what else evidence is collected about.
        measured: transcripts and descriptors by clip id; clips without any have no evidence.
        labels: wordings of the clips' events.
        settings: how to fit.

    Returns:
        Evidence by clip id, and how the tagger errs out of fold.
    """
    stock_tagger = YamnetTagger.from_folder(weights.resolve("yamnet"))
    vocabulary = build_vocabulary(labels, train.clips, stock_tagger.classes)
    model.set_vocabulary(vocabulary)
    tagger = model.tagger
    assert tagger is not None, "set_vocabulary makes one"
    branches = model.config.tagger.branches if model.config.tagger else ()
    train = _with_features(train, branches)
    values = frames_of(train, branches)
    stock = stock_scores(
        vocabulary,
        stock_tagger.classes,
        stock_tagger.head.weight.detach(),
        stock_tagger.head.bias.detach(),
        values.values_FD.shape[1],
    )
    everything = np.arange(len(train.clips))
    stock_NK = stock.of_clips(values, everything)
    targets = tag_targets(train.clips, vocabulary, labels, stock_NK.sigmoid().numpy())
    options = FitOptions(settings.penalty, _columns(model, branches, settings), settings.iterations, settings.folds)
    fold_N = folds_of([clip.group or clip.id for clip in train.clips], options.folds)
    key = _key(train.clips, vocabulary, settings, values)
    fitted = _cached_fit(key, lambda: fit_tagger(values, stock, targets, vocabulary, fold_N, options))
    evidence: dict[str, Evidence] = {}
    probabilities_NK = np.zeros((len(train.clips), len(vocabulary)), dtype=np.float32)
    frame_s = model.branches[branches[0]].encoder.token_s
    for fold, scores in enumerate(fitted.folds):
        _load(tagger, scores, fitted)
        for row in np.flatnonzero(fold_N == fold):
            clip = train.clips[row]
            scores_TK = scores.of(values.values_FD[values.starts_N[row] : values.starts_N[row + 1]])
            probabilities_NK[row] = tagger.log_odds(_pooled(scores_TK)).sigmoid().numpy()
            _add(evidence, clip, scores_TK, tagger, frame_s, measured)
    noise = measure_noise(probabilities_NK, targets.present_NK, targets.known_NK, vocabulary)
    _load(tagger, fitted.scores, fitted)
    evidence |= collect_evidence(model, [held_out], measured)
    return evidence, noise


def collect_evidence(
    model: PengiModel, parts: Sequence[TrainingClips], measured: Mapping[str, Measured]
) -> dict[str, Evidence]:
    """Evidence about clips by the tagger that the model has, by clip id."""
    tagger, branches = model.tagger, model.config.tagger.branches if model.config.tagger else ()
    assert tagger is not None, "only a model with evidence and a tagger has its clips collected"
    frame_s = model.branches[branches[0]].encoder.token_s
    evidence: dict[str, Evidence] = {}
    for part in parts:
        for clip in _with_features(part, branches).clips:
            scores_1TK, _ = tagger([part.caches[index].batch([clip.id]) for index in branches])
            _add(evidence, clip, scores_1TK[0], tagger, frame_s, measured)
    return evidence


def _add(
    evidence: dict[str, Evidence],
    clip: Clip,
    scores_TK: Tensor,
    tagger: Tagger,
    frame_s: float,
    measured: Mapping[str, Measured],
) -> None:
    if clip.id not in measured:
        return
    duration_s = clip.duration_s or len(scores_TK) * frame_s
    found = measured[clip.id]
    tags = detected_tags(scores_TK, tagger, frame_s, duration_s)
    evidence[clip.id] = Evidence(duration_s, tags, found.transcript, found.descriptors)


def _pooled(scores_TK: Tensor) -> Tensor:
    return log_mean_exp(scores_TK[None], torch.ones(1, len(scores_TK), dtype=torch.bool))[0]


def _with_features(found: TrainingClips, branches: Sequence[int]) -> TrainingClips:
    clips = [clip for clip in found.clips if all(clip.id in found.caches[index] for index in branches)]
    return TrainingClips(clips, found.caches)


def frames_of(train: TrainingClips, branches: Sequence[int]) -> Frames:
    """The frames of clips, float16."""
    rows = [frames([train.caches[index].batch([clip.id]) for index in branches])[0][0].half() for clip in train.clips]
    counts = torch.tensor([0, *map(len, rows)])
    return Frames(torch.cat(rows), counts.cumsum(0))


def _columns(model: PengiModel, branches: Sequence[int], settings: TaggerTraining) -> dict[str, tuple[int, int]]:
    """Which features of a frame each group reads, by the branches that the settings name."""
    ends = np.cumsum([0, *(model.branches[index].encoder.dim for index in branches)])
    return {
        group: (int(ends[branches.index(branch)]), int(ends[branches.index(branch) + 1]))
        for group, branch in settings.branch.items()
    }


def _load(tagger: Tagger, scores: Scores, fitted: FittedTagger) -> None:
    tagger.linear.weight.copy_(scores.weight_KD)
    tagger.linear.bias.copy_(scores.bias_K)
    tagger.scale_K.copy_(fitted.scale_K)
    tagger.shift_K.copy_(fitted.shift_K)


def _key(clips: Sequence[Clip], vocabulary: Vocabulary, settings: TaggerTraining, values: Frames) -> str:
    parts = [_FIT_VERSION, vocabulary.to_json(), settings.model_dump(), values.values_FD.double().sum().item()]
    parts += [[clip.id, clip.group, clip.events, clip.attributes] for clip in clips]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _cached_fit(key: str, fit: Callable[[], FittedTagger]) -> FittedTagger:
    """A fitted tagger from the cache, or fitted now: a run that goes on needs the one that it began with."""
    path = weights.cache_folder().parent / "features" / f"tagger-{key}.safetensors"
    if path.is_file():
        kept = load_file(path)
        folds = [Scores(kept[f"fold{n}.weight"], kept[f"fold{n}.bias"]) for n in range(len(kept) // 2 - 2)]
        return FittedTagger(Scores(kept["weight"], kept["bias"]), tuple(folds), kept["scale"], kept["shift"])
    log.info("fitting the tagger")
    fitted = fit()
    tensors = {"weight": fitted.scores.weight_KD, "bias": fitted.scores.bias_K}
    tensors |= {"scale": fitted.scale_K, "shift": fitted.shift_K}
    for number, scores in enumerate(fitted.folds):
        tensors |= {f"fold{number}.weight": scores.weight_KD, f"fold{number}.bias": scores.bias_K}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    return fitted


def measure_clips(clips: Sequence[Clip], root: Path, model: PengiModel, most_bad: float) -> dict[str, Measured]:
    """Transcripts and descriptors of clips, as far as the model's evidence has them."""
    config = model.config.evidence
    assert config is not None, "only a model with evidence has clips measured"
    transcriber = Transcriber.from_pretrained(model.device) if config.transcript else None

    def measure(recordings: Sequence[NDArray[np.float32]]) -> list[Measured]:
        return [
            Measured(
                " ".join(segment.text for segment in transcriber.segments([samples_S])) if transcriber else "",
                describe_waveform(samples_S, SAMPLE_RATE) if config.descriptors else (),
            )
            for samples_S in recordings
        ]

    version = f"{MEASURED_VERSION} {config.transcript} {config.descriptors}"
    window_s = min(branch.window_s for branch in model.config.audio)
    return cached_measurements(clips, root, measure, version, SAMPLE_RATE, window_s, most_bad)
