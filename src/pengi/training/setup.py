"""Prepares a run from its recipe in three stages: data, model, fitting.

data     read_data: clips, labels, captions
model    build_model: a new model, or a trained one
fitting  frozen features -> tagger and evidence -> questions -> batches
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pengi import checkpoint
from pengi.data.drawing import SceneDrawer, sources_of
from pengi.data.features import cached_branches
from pengi.data.loader import (
    BatchSource,
    ClipEvidence,
    Loader,
    TrainingBatch,
    collate,
    draw_pairs,
    usable_clips,
)
from pengi.data.manifest import Clip
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.scene_loader import SceneLoader, StagedBatches
from pengi.data.simulation import Simulator, TagNoise
from pengi.data.tolerance import Tolerance
from pengi.errors import ConfigError
from pengi.model import PengiModel
from pengi.training.data import TrainingData, read_data
from pengi.training.evidence import TrainingClips, clip_evidence, fit_options
from pengi.training.label_report import LabelReport
from pengi.training.new_tags import add_new_tags
from pengi.training.optim import working_dtype
from pengi.training.recipe import Recipe, TrainingConfig
from pengi.training.waveforms import LiveFeatures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """Model, batches and further parts of a run, built from its recipe."""

    recipe: Recipe
    model: PengiModel
    loader: BatchSource
    validation: list[TrainingBatch]
    train_clips: list[Clip]
    dtype: torch.dtype = torch.float32
    """Dtype of the frozen language model."""
    live: LiveFeatures | None = None
    """Computes the features of a batch if waveforms change from step to step; the loader then has none."""
    label_report: LabelReport | None = None
    """Accuracy of the tags that were added to the model."""


def prepare(recipe: Recipe) -> Setup:
    """Read the data, build or load the model, compute frozen features, fit the tagger, and draw the validation set.

    Raises:
        ConfigError, ManifestError, CheckpointError, WeightsError: for a setting that does not fit, or a missing part.
    """
    torch.manual_seed(recipe.training.seed)
    data = read_data(recipe.data)
    dtype = working_dtype(recipe.training.language_model_dtype)
    model = build_model(recipe, dtype)
    train, held_out = with_features(data, model, recipe)
    added = add_new_tags(model, train, held_out) if recipe.finetune is not None and model.tagger is not None else None
    asked = _some(held_out, recipe.training)
    evidence, noise = clip_evidence(model, data, train, asked, recipe, added.fitted if added else None)
    vocabulary = model.tagger.vocabulary if model.tagger else None
    questions = QuestionMaker(Phrases(data.labels, vocabulary), model.config.evidence)
    shares = recipe.data.shares
    loader = Loader(
        data.asked,
        list(train.caches.values()),
        questions,
        evidence,
        batch_size=recipe.training.batch_size,
        questions_per_clip=recipe.training.questions_per_clip,
        seed=recipe.training.seed,
        # read_data leaves no clip of a corpus without a share.
        corpora=None if shares is None else {name: share for name, share in shares.items() if share},
    )
    return Setup(
        recipe=recipe,
        model=model,
        loader=_with_scenes(loader, noise, data, recipe),
        validation=_validation(asked, questions, evidence, recipe),
        train_clips=data.train,
        dtype=dtype,
        live=_live_features(data, model, recipe),
        label_report=added.report if added else None,
    )


def build_model(recipe: Recipe, dtype: torch.dtype = torch.float32) -> PengiModel:
    """The new model of a recipe, or the trained one that it fine-tunes.

    Raises:
        CheckpointError, WeightsError: if a part or the trained model is not there.
        ConfigError: if the model cannot be trained as the recipe says.
    """
    log.info("loading the model")
    if recipe.finetune is not None:
        folder = checkpoint.model_folder(recipe.finetune.checkpoint)
        model = checkpoint.load(folder, dtype, to_train=True)
        model.config = model.config.model_copy(update={"name": recipe.finetune.name})
    else:
        assert recipe.model is not None, "read_recipe refuses a recipe that has neither"
        model = checkpoint.create(recipe.model, dtype)
    _check(recipe, model)
    return model


def _check(recipe: Recipe, model: PengiModel) -> None:
    """Raise ConfigError for settings that the model cannot be trained with, before anything is computed."""
    config, augment = model.config, recipe.training.augment
    has_spectrogram = any(branch.trained and not branch.frozen_layers for branch in config.audio.values())
    if augment.spec_augment and not has_spectrogram:
        raise ConfigError(
            "training.augment.spec_augment needs an audio encoder with trained: true and frozen_layers: 0"
        )
    if config.evidence is not None and augment.changes_waveforms:
        raise ConfigError(
            "training.augment.crop must be start for a model with evidence, which is collected once about each clip"
        )
    is_fitted = recipe.model is not None and config.tagger is not None
    if is_fitted and config.evidence is None:
        raise ConfigError("a tagger is fitted for a model with evidence only; add model.evidence: {}")
    if recipe.data.scenes is not None and not is_fitted:
        raise ConfigError("data.scenes needs a new model with evidence and a tagger, which the run then fits")
    if is_fitted:
        fit_options(model, recipe.tagger)


def with_features(data: TrainingData, model: PengiModel, recipe: Recipe) -> tuple[TrainingClips, TrainingClips]:
    """Clips to train on and held-out ones with their frozen features, from the cache or computed now.

    If waveforms change from step to step, the clips to train on have no features.
    """
    log.info("computing features of clips that are not in the cache")
    encoders = [(branch.encoder.eval(), branch.config) for branch in model.branches.values()]

    def computed(clips: Sequence[Clip]) -> TrainingClips:
        caches = cached_branches(clips, data.root, encoders, max_bad_share=recipe.data.max_bad_share)
        return TrainingClips(clips, dict(zip(model.branches, caches, strict=True)))

    is_live = recipe.training.augment.changes_waveforms
    return TrainingClips(data.train, {}) if is_live else computed(data.train), computed(data.held_out)


def _with_scenes(loader: Loader, noise: TagNoise | None, data: TrainingData, recipe: Recipe) -> BatchSource:
    """Batches of clips, with the batches of drawn scenes that the recipe asks for."""
    scenes, training = recipe.data.scenes, recipe.training
    if scenes is None:
        return loader
    assert noise is not None, "_check refuses scenes if the tagger is not fitted"
    assert loader.evidence is not None, "a model with a tagger that is fitted has evidence"
    vocabulary = loader.evidence.vocabulary
    sources = sources_of(loader.clips, data.captions, vocabulary)
    drawn = SceneLoader(
        SceneDrawer(loader.questions.phrases, vocabulary, sources, training.seed),
        Simulator(vocabulary, noise),
        loader.questions,
        batch_size=training.batch_size,
        questions_per_clip=training.questions_per_clip,
        seed=training.seed,
    )
    return StagedBatches(drawn, loader, scenes.steps, scenes.share, training.seed)


def _some(held_out: TrainingClips, training: TrainingConfig) -> TrainingClips:
    """Randomly chosen held-out clips, so that only they have to be transcribed."""
    known = held_out.with_features()
    chosen = random.Random(training.seed).sample(known, min(training.eval_clips, len(known)))
    return TrainingClips(chosen, held_out.caches)


def _validation(
    held_out: TrainingClips, questions: QuestionMaker, evidence: ClipEvidence | None, recipe: Recipe
) -> list[TrainingBatch]:
    """Fixed batches of held-out clips, with one pair for each clip."""
    rng, size = random.Random(recipe.training.seed), recipe.training.batch_size
    caches = list(held_out.caches.values())
    known = usable_clips(held_out.clips, caches, questions, evidence)
    groups = [known[start : start + size] for start in range(0, len(known), size)]
    return [
        collate(group, [draw_pairs(clip, questions, rng, 1, evidence) for clip in group], caches, evidence)
        for group in groups
    ]


def _live_features(data: TrainingData, model: PengiModel, recipe: Recipe) -> LiveFeatures | None:
    if not recipe.training.augment.changes_waveforms:
        return None
    return LiveFeatures(data.root, model, recipe.training, Tolerance(recipe.data.max_bad_share), len(data.train))
