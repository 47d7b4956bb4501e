"""From a recipe to all that a run needs: clips, model, frozen features, batches."""

from __future__ import annotations

import logging
import random
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pengi import checkpoint
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.drawing import SceneDrawer, read_captions, sources_of
from pengi.data.features import FeatureCache, cached_branches
from pengi.data.loader import (
    BatchSource,
    ClipEvidence,
    Loader,
    Mixture,
    TrainingBatch,
    clip_weights,
    collate,
    draw_pairs,
    usable_clips,
)
from pengi.data.manifest import Clip, Label, read_labels
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.scene_loader import SceneLoader, StagedBatches
from pengi.data.simulation import Simulator, TagNoise
from pengi.data.sources import Source, manifest_of, read_mixture
from pengi.data.tasks import labels_of
from pengi.data.tolerance import Tolerance
from pengi.errors import ConfigError, ManifestError, no_such
from pengi.model import PengiModel
from pengi.training.evidence import (
    TrainingClips,
    collect_evidence,
    fit_evidence,
    fit_options,
    measure_clips,
)
from pengi.training.optim import working_dtype
from pengi.training.recipe import DataConfig, FinetuneConfig, Recipe
from pengi.training.waveforms import LiveFeatures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """All that a run needs, built from its recipe."""

    recipe: Recipe
    model: PengiModel
    loader: BatchSource
    validation: list[TrainingBatch]
    train_clips: list[Clip]
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
    train_clips = clips_to_train_on(source.clips, recipe)
    val_clips = [clip for clip in source.clips if clip.split == recipe.data.val_split]
    captions = _captions(recipe)
    log.info("%d clips to train on, %d held out", len(train_clips), len(val_clips))
    log.info("loading the model")
    dtype = working_dtype(recipe.training.language_model_dtype)
    model = _model(recipe, dtype)
    _check_augmentation(recipe, model)
    _check_evidence(recipe, model)
    changing = recipe.training.augment.changes_waveforms
    if not changing:
        log.info("computing features of clips that are not in the cache")
    caches = [] if changing else features_of(train_clips, source.root, model, recipe)
    val_caches = features_of(val_clips, source.root, model, recipe)
    labels = labels_of([*train_clips, *val_clips], wordings_of(recipe.data))
    train, validation = TrainingClips(train_clips, caches), TrainingClips(val_clips, val_caches)
    asked = at_most_per_source(train_clips, recipe.data.max_per_source)
    evidence, noise = _evidence(train, validation, [*asked, *val_clips], source.root, model, labels, recipe)
    pairs = _question_maker(labels, model, recipe)
    loader = Loader(asked, caches, pairs, _mixture(recipe), recipe.training.seed, evidence)
    return Setup(
        recipe=recipe,
        model=model,
        loader=_with_scenes(loader, noise, captions, recipe),
        validation=_validation(val_clips, val_caches, pairs, evidence, recipe),
        train_clips=train_clips,
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


def wordings_of(data: DataConfig) -> dict[str, Label]:
    """Wordings of labels: those of the recipe's file, and of ``labels.jsonl`` beside the manifests of its mixture.

    Raises:
        ManifestError: for a mistake in a file.
    """
    found: dict[str, Label] = {}
    for corpus in (data.mixture or {}).values():
        manifest = Path(corpus.manifest)
        beside = (manifest if manifest.is_dir() else manifest.parent) / "labels.jsonl"
        if beside.is_file():
            found |= read_labels(beside)
    return found | (read_labels(data.labels) if data.labels else {})


def clips_to_train_on(clips: Sequence[Clip], recipe: Recipe) -> list[Clip]:
    """The clips of the training split that may be drawn, with what is known of all clips of their source.

    Raises:
        ManifestError: if there is none.
        ConfigError: for a corpus or source that no clip is of.
    """
    data = recipe.data
    found = [clip for clip in clips if clip.split == data.train_split and (clip.ship or not data.ship_only)]
    if not found:
        where = data.manifest or ", ".join(data.mixture or ())
        raise ManifestError(f"{where} has no clip to train on in split '{data.train_split}'")
    return _ever_drawn(_with_attributes(found, data.attributes), recipe)


def at_most_per_source(clips: Sequence[Clip], max_clips: int | None) -> list[Clip]:
    """At most ``max_clips`` clips of each source, chosen by their ids and the same every time; all clips for None."""
    if max_clips is None:
        return list(clips)
    kept: Counter[str] = Counter()
    chosen = set()
    for clip in sorted(clips, key=lambda clip: zlib.crc32(clip.id.encode())):
        kept[clip.source] += 1
        if kept[clip.source] <= max_clips:
            chosen.add(clip.id)
    return [clip for clip in clips if clip.id in chosen]


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
    """The clips whose corpus has a share: features of the others would be for nothing."""
    mixture = recipe.data.mixture
    corpora = {name: corpus.share for name, corpus in mixture.items()} if mixture else None
    weights = clip_weights(clips, corpora)
    return [clip for clip, weight in zip(clips, weights, strict=True) if weight]


def _model(recipe: Recipe, dtype: torch.dtype) -> PengiModel:
    if recipe.finetune is not None:
        return load_to_finetune(recipe.finetune, dtype)
    assert recipe.model is not None, "read_recipe lets no recipe pass that has neither"
    return checkpoint.create(recipe.model, dtype)


def load_to_finetune(config: FinetuneConfig, dtype: torch.dtype = torch.float32) -> PengiModel:
    """The trained model that a recipe goes on from.

    Raises:
        CheckpointError, WeightsError: if there is no such model.
    """
    model = checkpoint.load(checkpoint.model_folder(config.checkpoint), dtype, to_train=True)
    model.config = model.config.model_copy(update={"name": config.name})
    return model


def _check_augmentation(recipe: Recipe, model: PengiModel) -> None:
    """Raise ConfigError if nothing would be augmented."""
    from_spectrogram = any(branch.config.trained and not branch.config.frozen_layers for branch in model.branches)
    if recipe.training.augment.spec_augment and not from_spectrogram:
        raise ConfigError(
            "training.augment.spec_augment needs an audio encoder with trained: true and frozen_layers: 0"
        )


def _check_evidence(recipe: Recipe, model: PengiModel) -> None:
    """Raise ConfigError for what a model with evidence cannot be trained with, before anything is computed."""
    config = model.config
    fits = recipe.model is not None and config.evidence is not None and config.tagger is not None
    if recipe.data.scenes is not None and not fits:
        raise ConfigError("data.scenes needs a new model with evidence and a tagger, which the run then fits")
    if config.evidence is None:
        if recipe.model is not None and config.tagger is not None:
            raise ConfigError("a tagger is fitted for a model with evidence only; add model.evidence: {}")
        return
    if recipe.training.augment.changes_waveforms:
        raise ConfigError(
            "training.augment.crop must be start for a model with evidence, which is collected once about each clip"
        )
    if fits:
        fit_options(model, recipe.tagger)


def _captions(recipe: Recipe) -> tuple[str, ...]:
    scenes = recipe.data.scenes
    return () if scenes is None or scenes.captions is None else read_captions(scenes.captions)


def _mixture(recipe: Recipe) -> Mixture:
    mixture = recipe.data.mixture
    return Mixture(
        corpora=_above_zero({name: corpus.share for name, corpus in mixture.items()} if mixture else None),
        batch_size=recipe.training.batch_size,
        questions_per_clip=recipe.training.questions_per_clip,
    )


def _above_zero(shares: Mapping[str, float] | None) -> dict[str, float] | None:
    """Shares of what there are clips of: :func:`_ever_drawn` leaves none of what has a share of zero."""
    return None if shares is None else {name: share for name, share in shares.items() if share}


def features_of(clips: Sequence[Clip], root: Path, model: PengiModel, recipe: Recipe) -> list[FeatureCache]:
    """Frozen features of clips, for each audio branch, from the cache as far as they are there."""
    branches = [(branch.encoder.eval(), branch.config) for branch in model.branches]
    return cached_branches(clips, root, branches, most_bad=recipe.data.most_bad)


def _live(root: Path, model: PengiModel, recipe: Recipe, clips: Sequence[Clip]) -> LiveFeatures:
    return LiveFeatures(root, model, recipe.training, Tolerance(recipe.data.most_bad), len(clips))


def _evidence(
    train: TrainingClips,
    held_out: TrainingClips,
    asked: Sequence[Clip],
    root: Path,
    model: PengiModel,
    labels: Mapping[str, Label],
    recipe: Recipe,
) -> tuple[ClipEvidence | None, TagNoise | None]:
    """Evidence about clips that are asked about, and how the tagger errs if it is fitted here.

    None for a model without evidence.
    """
    config = model.config.evidence
    if config is None:
        return None, None
    log.info("transcribing and measuring clips that are not in the cache")
    measured = measure_clips(asked, root, model, recipe.data.most_bad)
    noise = None
    if model.config.tagger is not None and model.tagger is None:
        found, noise = fit_evidence(model, train, held_out, measured, labels, recipe.tagger)
    else:
        found = collect_evidence(model, [train, held_out], measured)
    return ClipEvidence(found, model.tagger.vocabulary if model.tagger else Vocabulary(()), config), noise


def _with_scenes(loader: Loader, noise: TagNoise | None, captions: Sequence[str], recipe: Recipe) -> BatchSource:
    """Batches of clips, and those of drawn scenes that the recipe asks for."""
    scenes = recipe.data.scenes
    if scenes is None:
        return loader
    assert noise is not None, "_check_evidence lets no recipe pass whose tagger is not fitted"
    assert loader.evidence is not None, "a model with a tagger that is fitted has evidence"
    vocabulary, training = loader.evidence.vocabulary, recipe.training
    sources = sources_of(loader.clips, captions, vocabulary)
    drawn = SceneLoader(
        SceneDrawer(loader.pairs.phrases, vocabulary, sources, training.seed),
        Simulator(vocabulary, noise),
        loader.pairs,
        batch_size=training.batch_size,
        questions_per_clip=training.questions_per_clip,
        seed=training.seed,
    )
    return StagedBatches(drawn, loader, scenes.steps, scenes.share, training.seed)


def _question_maker(labels: Mapping[str, Label], model: PengiModel, recipe: Recipe) -> QuestionMaker:
    """What is asked about clips, as a recipe says."""
    vocabulary = model.tagger.vocabulary if model.tagger is not None else None
    return QuestionMaker(Phrases(labels, vocabulary), model.config.evidence, recipe.data.tasks)


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
