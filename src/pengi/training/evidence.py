"""Collects evidence about training clips: fits the tagger, and collects its out-of-fold detections, transcripts and
descriptors.

Shape suffixes: N clips, F frames, K tags, D features.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pengi import weights
from pengi.conditioning import descriptors
from pengi.conditioning.collect import detected_tags
from pengi.conditioning.evidence import GROUPS, DetectedTag, Evidence
from pengi.conditioning.tagger import Tagger, frames
from pengi.conditioning.transcript import Transcriber
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.features import FeatureCache, features_folder
from pengi.data.loader import ClipEvidence
from pengi.data.manifest import Clip, Label
from pengi.data.measured import Measured, cached_measurements
from pengi.data.simulation import TagNoise, measure_noise
from pengi.data.tagging import TagTargets, build_vocabulary, folds_of, group_of, tag_targets
from pengi.data.tasks import COMPOSED_DOMAIN
from pengi.encoders.base import Masked
from pengi.encoders.whisper import SAMPLE_RATE
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.errors import ConfigError, no_such
from pengi.model import PengiModel
from pengi.training.data import TrainingData
from pengi.training.recipe import Recipe, TaggerTraining
from pengi.training.tagger import FitOptions, FittedTagger, Frames, Scores, fit_tagger, stock_scores
from pengi.writing import replacing

log = logging.getLogger(__name__)

_FIT_VERSION = 4
BATCH_CLIPS = 64  # clips that are scored at once


@dataclass(frozen=True)
class TrainingClips:
    """Clips of one split, and the cache of their features for each audio branch."""

    clips: Sequence[Clip]
    caches: Mapping[str, FeatureCache]

    def with_features(self) -> list[Clip]:
        """The clips that every cache has."""
        return [clip for clip in self.clips if all(clip.id in cache for cache in self.caches.values())]


def clip_evidence(
    model: PengiModel,
    data: TrainingData,
    train: TrainingClips,
    held_out: TrainingClips,
    recipe: Recipe,
    new_tags: FittedTagger | None,
) -> tuple[ClipEvidence | None, TagNoise | None]:
    """Evidence about the clips that questions are drawn about, and the noise of the tagger.

    Both are None for a model without evidence; the noise is also None if the tagger is not fitted here. ``new_tags``
    are the scores of tags that were added to the model.
    """
    config = model.config.evidence
    if config is None:
        return None, None
    log.info("transcribing and measuring clips that are not in the cache")
    measured = measure_clips([*data.asked, *held_out.clips], data.root, model, recipe.data.max_bad_share)
    noise = None
    if model.config.tagger is not None and model.tagger is None:
        found, noise = fit_evidence(model, train, measured, data.labels, recipe.tagger)
    elif new_tags is not None:
        found = out_of_fold_evidence(model, train, measured, new_tags)
    else:
        found = collect_evidence(model, train, measured)
    found |= collect_evidence(model, held_out, measured)
    return ClipEvidence(found, model.tagger.vocabulary if model.tagger else Vocabulary(()), config), noise


def fit_evidence(
    model: PengiModel,
    train: TrainingClips,
    measured: Mapping[str, Measured],
    labels: Mapping[str, Label],
    settings: TaggerTraining,
) -> tuple[dict[str, Evidence], TagNoise]:
    """Fit the model's tagger, and collect out-of-fold evidence about the training clips.

    The tagger is fitted on recordings only. A composed clip has recordings of one fold, and is scored as part of it.

    Args:
        model: with frozen audio branches; gets a vocabulary and a tagger.
        train: what to fit on.
        measured: transcripts and descriptors by clip id; clips without any have no evidence.
        labels: wordings of the clips' events.
        settings: how to fit.

    Returns:
        Evidence by clip id, and the noise of the tagger, measured out of fold. The tagger then has the scores that
        were fitted on all training clips.

    Raises:
        ConfigError: if the settings name an unknown group or branch, or no clip has features.
    """
    data = tagger_data(model, train, labels, settings)
    fitted = cached_fit(data)
    evidence = out_of_fold_evidence(model, train, measured, fitted)
    rows = [row for row, clip in enumerate(data.clips) if clip.id in evidence]
    found = [evidence[data.clips[row].id] for row in rows]
    noise = measure_noise(found, data.targets.of(rows), data.tagger.vocabulary)
    return evidence, noise


def stock_tagger() -> YamnetTagger:
    """Stock YAMNet with its AudioSet head."""
    return YamnetTagger.from_folder(weights.resolve("yamnet"))


@dataclass(frozen=True)
class TaggerData:
    """A tagger that is to be fitted, and the data to fit it on.

    Attributes:
        tagger: gets the vocabulary's scores.
        clips: N recordings.
        frames: of the clips.
        stock: the stock tagger's scores of the vocabulary.
        targets: of the clips.
        fold_N: fold of each clip.
        options: how to fit.
    """

    tagger: Tagger
    clips: Sequence[Clip]
    frames: Frames
    stock: Scores
    targets: TagTargets
    fold_N: NDArray[np.int64]
    options: FitOptions


def tagger_data(
    model: PengiModel, train: TrainingClips, labels: Mapping[str, Label], settings: TaggerTraining
) -> TaggerData:
    """Frames, targets and folds of those training clips that are recordings; gives the model the clips' vocabulary.

    Raises:
        ConfigError: if the settings name an unknown group or branch, or no recording has features.
    """
    stock_yamnet = stock_tagger()
    vocabulary = build_vocabulary(labels, train.clips, stock_yamnet.classes)
    model.set_vocabulary(vocabulary)
    assert model.tagger is not None, "set_vocabulary makes one"
    options = fit_options(model, settings)
    clips = [clip for clip in train.with_features() if clip.domain != COMPOSED_DOMAIN]
    if not clips:
        raise ConfigError("there is no recording with features to fit the tagger on")
    frames, head = frames_of(model, TrainingClips(clips, train.caches)), stock_yamnet.head
    stock = stock_scores(
        vocabulary, stock_yamnet.classes, head.weight.detach(), head.bias.detach(), frames.values_FD.shape[1]
    )
    stock_NK = stock.of_clips(frames, np.arange(len(clips)))
    targets = tag_targets(clips, vocabulary, labels, stock_NK.sigmoid().numpy())
    fold_N = folds_of([group_of(clip) for clip in clips])
    return TaggerData(model.tagger, clips, frames, stock, targets, fold_N, options)


def out_of_fold_evidence(
    model: PengiModel, train: TrainingClips, measured: Mapping[str, Measured], fitted: FittedTagger
) -> dict[str, Evidence]:
    """Evidence by clip id about training clips, each scored by a tagger that was fitted without it.

    Afterwards the model's tagger has the scores that were fitted on all training clips.
    """
    assert model.tagger is not None, "the scores of a tagger were fitted"
    fold_N = folds_of([group_of(clip) for clip in train.clips])
    evidence: dict[str, Evidence] = {}
    for fold, scores in enumerate(fitted.folds):
        load_scores(model.tagger, scores, fitted)
        clips = [train.clips[row] for row in np.flatnonzero(fold_N == fold).tolist()]
        evidence |= collect_evidence(model, TrainingClips(clips, train.caches), measured)
    load_scores(model.tagger, fitted.scores, fitted)
    return evidence


def collect_evidence(model: PengiModel, part: TrainingClips, measured: Mapping[str, Measured]) -> dict[str, Evidence]:
    """Evidence by clip id about the clips with features and measurements; with tags if the model has a tagger."""
    window_s = min(branch.window_s for branch in model.config.audio.values())
    evidence: dict[str, Evidence] = {}
    clips = [clip for clip in part.with_features() if clip.id in measured]
    for start in range(0, len(clips), BATCH_CLIPS):
        batch = clips[start : start + BATCH_CLIPS]
        lengths = [min(clip.duration_s or _features_s(model, part, clip), window_s) for clip in batch]
        for clip, duration_s, tags in zip(batch, lengths, _tags_of(model, batch, part.caches, lengths), strict=True):
            found = measured[clip.id]
            evidence[clip.id] = Evidence(
                duration_s, tags, found.transcript, found.descriptors, is_tagged=model.tagger is not None
            )
    return evidence


def _features_s(model: PengiModel, part: TrainingClips, clip: Clip) -> float:
    name, branch = next(iter(model.branches.items()))
    return part.caches[name].tokens(clip.id) * branch.encoder.token_s


def _tags_of(
    model: PengiModel, clips: Sequence[Clip], caches: Mapping[str, FeatureCache], lengths: Sequence[float]
) -> list[tuple[DetectedTag, ...]]:
    """The tags of a few clips of known lengths in seconds."""
    if model.tagger is None:
        return [()] * len(clips)
    frame_s = model.branches[_branches(model)[0]].encoder.token_s
    scores = zip(*model.tagger(_tokens(model, clips, caches)), lengths, strict=True)
    return [detected_tags(scores_TK[mask_T], model.tagger, frame_s, length_s) for scores_TK, mask_T, length_s in scores]


def _branches(model: PengiModel) -> tuple[str, ...]:
    assert model.config.tagger is not None, "the model has no tagger"
    return model.config.tagger.branches


def _tokens(model: PengiModel, clips: Sequence[Clip], caches: Mapping[str, FeatureCache]) -> list[Masked]:
    """The tagger's input for a few clips: audio tokens of each of its branches."""
    ids = [clip.id for clip in clips]
    return [model.branches[name].tokens(caches[name].batch(ids)) for name in _branches(model)]


def frames_of(model: PengiModel, part: TrainingClips) -> Frames:
    """The frames of clips, float16."""
    rows: list[Tensor] = []
    for start in range(0, len(part.clips), BATCH_CLIPS):
        values_BTD, mask_BT = frames(_tokens(model, part.clips[start : start + BATCH_CLIPS], part.caches))
        rows += [values_TD[mask_T].half() for values_TD, mask_T in zip(values_BTD, mask_BT, strict=True)]
    counts = torch.tensor([0, *map(len, rows)])
    return Frames(torch.cat(rows), counts.cumsum(0))


def fit_options(model: PengiModel, settings: TaggerTraining) -> FitOptions:
    """The settings of a recipe as options of the fit. A group with a branch in the settings reads only its features.

    Raises:
        ConfigError: for an unknown group, a branch that the tagger does not read, or a first branch other than yamnet,
            which the stock tagger needs.
    """
    branches = _branches(model)
    if not isinstance(model.branches[branches[0]].encoder, YamnetEncoder):
        raise ConfigError(f"model.tagger.branches must begin with a yamnet branch, and '{branches[0]}' is not one")
    ends = np.cumsum([0, *(model.branches[name].encoder.dim for name in branches)])
    columns = {}
    for group in (*settings.branch, *settings.penalty, *settings.stock):
        if group not in GROUPS:
            raise ConfigError(no_such("group of tags", group, GROUPS))
    for group, branch in settings.branch.items():
        if branch not in branches:
            raise ConfigError(f"tagger.branch names '{branch}' for '{group}', which is not in model.tagger.branches")
        columns[group] = (int(ends[branches.index(branch)]), int(ends[branches.index(branch) + 1]))
    return FitOptions(settings.penalty, settings.stock, columns)


@torch.no_grad()
def load_scores(tagger: Tagger, scores: Scores, fitted: FittedTagger) -> None:
    """Set the scores of a tagger and their calibration. If there are fewer scores than tags, the last tags get them."""
    first = len(tagger.vocabulary) - len(scores.bias_K)
    tagger.head.weight[first:] = scores.head_KD
    tagger.head.bias[first:] = scores.bias_K
    tagger.stock.weight[first:] = scores.stock_KI
    tagger.scale_K[first:] = fitted.scale_K
    tagger.shift_K[first:] = fitted.shift_K


def _key(data: TaggerData) -> str:
    """A hash of everything that a fit depends on."""
    settings = [_FIT_VERSION, data.tagger.vocabulary.to_json(), asdict(data.options)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for values in (data.frames.values_FD, data.frames.starts_N, data.stock.stock_KI, data.stock.bias_K):
        digest.update(values.contiguous().numpy().data)
    for array in (data.targets.present_NK, data.targets.known_NK, data.targets.weights(), data.fold_N):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:24]


def cached_fit(data: TaggerData) -> FittedTagger:
    """The fitted tagger, from the cache if possible, so that a resumed run has the same tagger as before."""
    path = features_folder() / f"tagger-{_key(data)}.safetensors"
    if path.is_file():
        try:
            return _fit_of(load_file(path))
        except (SafetensorError, OSError, KeyError) as error:
            log.warning("'%s' is damaged (%s); the tagger is fitted again", path, error)
    log.info("fitting the tagger")
    vocabulary = data.tagger.vocabulary
    fitted = fit_tagger(data.frames, data.stock, data.targets, vocabulary, data.fold_N, data.options)
    tensors = {"scale": fitted.scale_K, "shift": fitted.shift_K}
    for name, scores in (("all", fitted.scores), *enumerate(fitted.folds)):
        tensors |= {f"{name}.{part}": tensor for part, tensor in vars(scores).items()}
    with replacing(path) as partial:
        # Scores of folds without clips are the tensors of "all"; save_file refuses shared tensors.
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, partial)
    return fitted


def _fit_of(kept: Mapping[str, Tensor]) -> FittedTagger:
    def scores(name: str | int) -> Scores:
        return Scores(kept[f"{name}.head_KD"], kept[f"{name}.bias_K"], kept[f"{name}.stock_KI"])

    folds = (len(kept) - 2) // 3 - 1
    return FittedTagger(scores("all"), tuple(map(scores, range(folds))), kept["scale"], kept["shift"])


def measure_clips(clips: Sequence[Clip], root: Path, model: PengiModel, max_bad_share: float) -> dict[str, Measured]:
    """Measurements by clip id: transcripts and descriptors, each only if the model's evidence includes it."""
    config = model.config.evidence
    assert config is not None, "only a model with evidence has clips measured"
    transcriber = Transcriber.from_pretrained(model.device) if config.transcript else None

    def measure(recordings: Sequence[NDArray[np.float32]]) -> list[Measured]:
        return [
            Measured(
                " ".join(segment.text for segment in transcriber.segments([samples_S])) if transcriber else "",
                descriptors.describe_waveform(samples_S, SAMPLE_RATE) if config.descriptors else (),
            )
            for samples_S in recordings
        ]

    version = f"{descriptors.VERSION} {config.transcript} {config.descriptors}"
    window_s = min(branch.window_s for branch in model.config.audio.values())
    with _single_threaded():
        return cached_measurements(clips, root, measure, version, SAMPLE_RATE, window_s, max_bad_share)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Limits torch to one thread: the matrices of one clip are so small that several threads take longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
