"""From a recipe to all that a run needs: clips, model, frozen features, batches."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pengi import checkpoint
from pengi.config import LoraConfig
from pengi.data.features import FeatureCache, cached_branches
from pengi.data.loader import (
    ClipEvidence,
    Loader,
    Mixture,
    TrainingBatch,
    clip_weights,
    collate,
    draw_pairs,
    usable_clips,
)
from pengi.data.manifest import Clip, read_labels
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.sources import Source, manifest_of, read_mixture
from pengi.data.tasks import labels_of
from pengi.data.tolerance import Tolerance
from pengi.errors import ConfigError, ManifestError, no_such
from pengi.model import PengiModel
from pengi.training.measuring import check_tasks
from pengi.training.optim import working_dtype
from pengi.training.recipe import DataConfig, FinetuneConfig, Recipe
from pengi.training.waveforms import LiveFeatures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """All that a run needs, built from its recipe."""

    recipe: Recipe
    model: PengiModel
    loader: Loader
    validation: list[TrainingBatch]
    train_clips: list[Clip]
    held_out: Source
    dtype: torch.dtype = torch.float32
    """Of the frozen language model."""
    live: LiveFeatures | None = None
    """Makes the features of a batch where waveforms change from step to step; the loader then brings none."""


def prepare(recipe: Recipe) -> Setup:
    """Read the data, build or load the model, compute frozen features.

    Raises:
        ConfigError, ManifestError, CheckpointError, WeightsError: for what does not fit or is not there.
    """
    torch.manual_seed(recipe.training.seed)
    log.info("reading the data")
    source = read_clips(recipe.data)
    train_clips = _to_train_on(source.clips, recipe)
    val_clips = [clip for clip in source.clips if clip.split == recipe.data.val_split]
    held_out = Source(tuple(val_clips), source.root)
    check_tasks(held_out, recipe.training.evaluate)
    log.info("%d clips to train on, %d held out", len(train_clips), len(val_clips))
    log.info("loading the model")
    dtype = working_dtype(recipe.training.language_model_dtype)
    model = _model(recipe, dtype)
    _check_augmentation(recipe, model)
    changing = recipe.training.augment.changes_waveforms
    if not changing:
        log.info("computing features of clips that are not in the cache")
    pairs = _question_maker(recipe.data, [*train_clips, *val_clips], model)
    caches = [] if changing else _features(train_clips, source.root, model, recipe)
    val_caches = _features(val_clips, source.root, model, recipe)
    evidence = _evidence([*train_clips, *val_clips], model)
    return Setup(
        recipe=recipe,
        model=model,
        loader=Loader(train_clips, caches, pairs, _mixture(recipe), recipe.training.seed, evidence),
        validation=_validation(val_clips, val_caches, pairs, evidence, recipe),
        train_clips=train_clips,
        held_out=held_out,
        dtype=dtype,
        live=_live(source.root, model, recipe, train_clips) if changing else None,
    )


def read_clips(data: DataConfig) -> Source:
    """All clips of a recipe, of every split.

    Raises:
        ManifestError: for a mistake in a manifest, or too many bad rows.
    """
    if data.mixture is None:
        assert data.manifest is not None, "read_recipe lets no recipe pass that has neither"
        return manifest_of(data.manifest, most_bad=data.most_bad)
    paths = {name: corpus.manifest for name, corpus in data.mixture.items()}
    return Source(tuple(read_mixture(paths, most_bad=data.most_bad)), Path())


def _to_train_on(clips: Sequence[Clip], recipe: Recipe) -> list[Clip]:
    """The clips of the training split that may be drawn, with what is known of all clips of their source."""
    data = recipe.data
    found = [clip for clip in clips if clip.split == data.train_split and (clip.ship or not data.ship_only)]
    if not found:
        where = data.manifest or ", ".join(data.mixture or ())
        raise ManifestError(f"{where} has no clip to train on in split '{data.train_split}'")
    return _ever_drawn(_with_attributes(found, data.attributes), recipe)


def _with_attributes(clips: Sequence[Clip], known: Mapping[str, Mapping[str, str]]) -> list[Clip]:
    """The clips with what is known of all clips of their source, unless their rows say something else.

    Raises:
        ConfigError: for a source that no clip is of.
    """
    sources = sorted({clip.source for clip in clips if clip.source})
    for source in known:
        if source not in sources:
            raise ConfigError(no_such("source of training clips", source, sources))
    return [clip.model_copy(update={"attributes": {**known.get(clip.source, {}), **clip.attributes}}) for clip in clips]


def _ever_drawn(clips: Sequence[Clip], recipe: Recipe) -> list[Clip]:
    """The clips that the shares of domains and corpora leave a chance: features of the others would be for nothing."""
    mixture = recipe.data.mixture
    corpora = {name: corpus.share for name, corpus in mixture.items()} if mixture else None
    weights = clip_weights(clips, recipe.data.domains, corpora)
    return [clip for clip, weight in zip(clips, weights, strict=True) if weight]


def _model(recipe: Recipe, dtype: torch.dtype) -> PengiModel:
    if recipe.finetune is not None:
        return load_to_finetune(recipe.finetune, dtype)
    assert recipe.model is not None, "read_recipe lets no recipe pass that has neither"
    return checkpoint.create(recipe.model, dtype)


def load_to_finetune(config: FinetuneConfig, dtype: torch.dtype = torch.float32) -> PengiModel:
    """The trained model that a recipe goes on from, with adapters if it asks for any.

    Raises:
        CheckpointError, WeightsError: if there is no such model.
        ConfigError: for adapters of another kind than those the model has already.
    """
    model = checkpoint.load(checkpoint.model_folder(config.checkpoint), dtype, to_train=True)
    lora = _joined_lora(model.config.language_model.lora, config)
    if lora is not None and model.config.language_model.lora is None:
        model.language_model.add_lora(lora)
    language_model = model.config.language_model.model_copy(update={"lora": lora})
    model.config = model.config.model_copy(update={"name": config.name, "language_model": language_model})
    return model


def _joined_lora(present: LoraConfig | None, config: FinetuneConfig) -> LoraConfig | None:
    if present is not None and config.lora not in (None, present):
        raise ConfigError(
            f"'{config.checkpoint}' has adapters of its own (rank {present.rank}, alpha {present.alpha}), which are "
            "trained on; leave finetune.lora out"
        )
    return present or config.lora


def _check_augmentation(recipe: Recipe, model: PengiModel) -> None:
    """Raise ConfigError if nothing would be augmented."""
    from_spectrogram = any(branch.config.trained and not branch.config.frozen_layers for branch in model.branches)
    if recipe.training.augment.spec_augment is not None and not from_spectrogram:
        raise ConfigError(
            "training.augment.spec_augment needs an audio encoder with trained: true and frozen_layers: 0"
        )


def _mixture(recipe: Recipe) -> Mixture:
    mixture = recipe.data.mixture
    return Mixture(
        domains=_above_zero(recipe.data.domains),
        corpora=_above_zero({name: corpus.share for name, corpus in mixture.items()} if mixture else None),
        batch_size=recipe.training.batch_size,
        questions_per_clip=recipe.training.questions_per_clip,
    )


def _above_zero(shares: Mapping[str, float] | None) -> dict[str, float] | None:
    """Shares of what there are clips of: :func:`_ever_drawn` leaves none of what has a share of zero."""
    return None if shares is None else {name: share for name, share in shares.items() if share}


def _features(clips: Sequence[Clip], root: Path, model: PengiModel, recipe: Recipe) -> list[FeatureCache]:
    branches = [(branch.encoder.eval(), branch.config) for branch in model.branches]
    return cached_branches(clips, root, branches, most_bad=recipe.data.most_bad)


def _live(root: Path, model: PengiModel, recipe: Recipe, clips: Sequence[Clip]) -> LiveFeatures:
    return LiveFeatures(root, model, recipe.training, Tolerance(recipe.data.most_bad), len(clips))


def _evidence(clips: Sequence[Clip], model: PengiModel) -> ClipEvidence | None:
    """Evidence about clips as text; None for a model without evidence."""
    if model.config.evidence is None:
        return None
    raise ConfigError("training a model with evidence is not possible yet")


def _question_maker(data: DataConfig, clips: Sequence[Clip], model: PengiModel) -> QuestionMaker:
    """What is asked about clips, as a recipe says."""
    labels = labels_of(clips, read_labels(data.labels) if data.labels else {})
    vocabulary = model.tagger.vocabulary if model.tagger is not None else None
    return QuestionMaker(Phrases(labels, vocabulary), model.config.evidence, data.tasks)


def _validation(
    clips: Sequence[Clip],
    caches: Sequence[FeatureCache],
    pairs: QuestionMaker,
    evidence: ClipEvidence | None,
    recipe: Recipe,
) -> list[TrainingBatch]:
    """Fixed batches of held-out clips, evenly over the split, one pair each."""
    rng = random.Random(recipe.training.seed)
    known = usable_clips(clips, caches, pairs, evidence)
    chosen = rng.sample(known, min(recipe.training.validation_clips, len(known)))
    size = recipe.training.batch_size
    groups = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    return [
        collate(group, [draw_pairs(clip, pairs, rng, 1, evidence) for clip in group], caches, evidence)
        for group in groups
    ]
