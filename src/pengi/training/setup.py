"""From a recipe to all that a run needs: clips, model, frozen features, batches."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pengi import checkpoint, weights
from pengi.config import FactsConfig, LoraConfig, ModelConfig
from pengi.data.features import FeatureCache, cached_branches, cached_features
from pengi.data.loader import (
    SOUND_DOMAINS,
    DirectionClasses,
    Loader,
    Mixture,
    ToldWords,
    TrainingBatch,
    clip_weights,
    collate,
)
from pengi.data.manifest import Clip, Label, read_labels
from pengi.data.pseudo import ClassDirections, class_labels, class_vocabulary, tags_of
from pengi.data.sources import Source, manifest_of, read_mixture
from pengi.data.tasks import COMPOSED_DOMAIN, PairMaker, check_kinds, labels_of, plain_labels
from pengi.data.tolerance import Tolerance
from pengi.encoders.yamnet import YamnetTagger
from pengi.errors import ConfigError, ManifestError, no_such
from pengi.mapper import WordsMapper
from pengi.model import AudioBranch, PengiModel
from pengi.progress import track
from pengi.training.facts import fit_facts, values_of_attributes
from pengi.training.measuring import check_tasks
from pengi.training.optim import working_dtype
from pengi.training.recipe import DataConfig, FinetuneConfig, Recipe
from pengi.training.waveforms import LiveFeatures
from pengi.training.words import fit_words

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """All that a run needs, built from its recipe."""

    recipe: Recipe
    model: PengiModel
    loader: Loader
    validation: list[TrainingBatch]
    directions: ClassDirections | None
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
    clips, root = source.clips, source.root
    train_clips = _to_train_on(clips, recipe.data)
    check_kinds(recipe.data.questions or {}, train_clips)
    train_clips = _ever_drawn(_with_attributes(train_clips, recipe.data.attributes), recipe)
    val_clips = [clip for clip in clips if clip.split == recipe.data.val_split]
    held_out = Source(tuple(val_clips), root)
    check_tasks(held_out, recipe.training.evaluate)
    known = read_labels(recipe.data.labels) if recipe.data.labels else {}
    labels = labels_of([*train_clips, *val_clips], known)
    log.info("%d clips to train on, %d held out", len(train_clips), len(val_clips))
    log.info("loading the model")
    tagger = _tagger(recipe)
    dtype = working_dtype(recipe.training.language_model_dtype)
    model = _model(recipe, tagger, known, train_clips, dtype)
    if recipe.data.class_directions and model.branches[0].config.encoder != "yamnet":
        raise ConfigError("data.class_directions needs yamnet as the first audio encoder")
    if recipe.data.class_directions:
        _check_patches(model)
    new = recipe.finetune is None or _new_facts(recipe.finetune, model, train_clips) is not None
    fitted = model.facts is not None and new  # and not heard by probes that the model has already
    _check_augmentation(recipe, model, fitted=fitted)
    if recipe.data.tells_words and not _has_words(model):
        raise ConfigError("data.word_targets and word_dropout need an audio branch whose mapper is of kind 'words'")
    changing = recipe.training.augment.changes_waveforms
    if not changing:
        log.info("computing features of clips that are not in the cache")
    caches = [] if changing else _features(train_clips, root, model, recipe)
    facts = None
    if (recipe.finetune is None or recipe.finetune.refit) and _has_words(model):
        log.info("fitting the tagger")
        _fit_words(model, caches, train_clips, known, recipe)
    if fitted:
        log.info("fitting the attributes")
        facts = fit_facts(model, caches, train_clips, recipe.training.seed).batch
    tags = _tags(tagger, train_clips, root, recipe) if recipe.data.audioset_tags else None
    classes, worded = _direction_classes(tagger, labels) if recipe.data.class_directions else (None, labels)
    if recipe.data.word_targets:
        told = [
            word for branch in model.branches if isinstance(branch.mapper, WordsMapper) for word in branch.mapper.words
        ]
        worded = plain_labels(told) | worded
    pairs = _pair_maker(recipe.data, worded, tags, others=labels)
    return Setup(
        recipe=recipe,
        model=model,
        loader=Loader(train_clips, caches, pairs, _mixture(recipe), recipe.training.seed, classes, facts),
        validation=_validation(val_clips, _features(val_clips, root, model, recipe), labels, recipe),
        directions=ClassDirections(tagger) if recipe.data.class_directions and tagger else None,
        train_clips=train_clips,
        held_out=held_out,
        dtype=dtype,
        live=_live(root, model, recipe, train_clips) if changing else None,
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


def _to_train_on(clips: Sequence[Clip], data: DataConfig) -> list[Clip]:
    found = [clip for clip in clips if clip.split == data.train_split and (clip.ship or not data.ship_only)]
    if not found:
        where = data.manifest or ", ".join(data.mixture or ())
        raise ManifestError(f"{where} has no clip to train on in split '{data.train_split}'")
    return found


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
    """The clips that the shares of domains and corpora leave a chance: hearing the others would be for nothing."""
    mixture = recipe.data.mixture
    corpora = {name: corpus.share for name, corpus in mixture.items()} if mixture else None
    weights = clip_weights(clips, recipe.data.domains, corpora)
    return [clip for clip, weight in zip(clips, weights, strict=True) if weight]


def _model(
    recipe: Recipe,
    tagger: YamnetTagger | None,
    known: Mapping[str, Label],
    clips: Sequence[Clip],
    dtype: torch.dtype,
) -> PengiModel:
    if recipe.finetune is not None:
        model = load_to_finetune(recipe.finetune, dtype)
        if recipe.finetune.refit and known and _has_words(model):
            tagger = tagger or YamnetTagger.from_folder(weights.resolve("yamnet"))
            model.say(_with_words(_without_words(model.config), tagger, known, clips))
        facts = _new_facts(recipe.finetune, model, clips)
        if facts is not None:
            model.tell(facts)
        return model
    assert recipe.model is not None
    return checkpoint.create(_with_facts(_with_words(recipe.model, tagger, known, clips), clips), dtype)


def load_to_finetune(config: FinetuneConfig, dtype: torch.dtype = torch.float32) -> PengiModel:
    """The trained model that a recipe goes on from, with further audio branches and adapters if it asks for any.

    Raises:
        CheckpointError, WeightsError: if there is no such model.
        ConfigError: for adapters of another kind than those the model has already, or audio branches that do not fit.
    """
    model = checkpoint.load(checkpoint.model_folder(config.checkpoint), dtype, to_train=True)
    checkpoint.add_audio(model, config.audio)
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


def _without_words(config: ModelConfig) -> ModelConfig:
    """The configuration without the words of its branches, and the phrases for them."""
    branches = [
        branch.model_copy(update={"mapper": branch.mapper.model_copy(update={"words": {}})}) for branch in config.audio
    ]
    mentions = config.mentions and config.mentions.model_copy(update={"phrases": {}})
    return config.model_copy(update={"audio": tuple(branches), "mentions": mentions})


def _with_words(
    config: ModelConfig, tagger: YamnetTagger | None, known: Mapping[str, Label], clips: Sequence[Clip]
) -> ModelConfig:
    """The configuration with the words that its branches of words are to choose from, unless it names them itself."""
    counts = Counter(event for clip in clips if clip.domain != COMPOSED_DOMAIN for event in clip.events)
    branches = []
    for branch in config.audio:
        if branch.mapper.kind == "words" and not branch.mapper.words:
            assert tagger is not None
            mapper = branch.mapper.model_copy(update={"words": class_vocabulary(tagger.classes, known, counts)})
            branch = branch.model_copy(update={"mapper": mapper})
        branches.append(branch)
    return _with_phrases(config.model_copy(update={"audio": tuple(branches)}), known)


def _with_phrases(config: ModelConfig, known: Mapping[str, Label]) -> ModelConfig:
    """The configuration with phrases for the words that prompts may mention, unless it names some: those of labels.

    Of speech most labels are no words (:func:`pengi.data.pseudo.class_vocabulary`), and stand for the one that is.
    """
    mentions = config.mentions
    if mentions is None or mentions.phrases or mentions.branch >= len(config.audio):
        return config
    words = config.audio[mentions.branch].mapper.words
    phrases = {label.phrase: label.label for label in known.values() if label.label in words}
    speech = [label for label in known.values() if label.category == "speech"]
    spoken = [label.label for label in speech if label.label in words]
    phrases |= {label.phrase: spoken[0] for label in speech if spoken and label.label not in words}
    return config.model_copy(update={"mentions": mentions.model_copy(update={"phrases": phrases})})


def _with_facts(config: ModelConfig, clips: Sequence[Clip]) -> ModelConfig:
    """The configuration with the values of its attributes that training clips have, unless it names them itself."""
    return config.model_copy(update={"facts": _with_values(config.facts, clips)}) if config.facts else config


def _new_facts(config: FinetuneConfig, model: PengiModel, clips: Sequence[Clip]) -> FactsConfig | None:
    """What a model that is trained on is to be told instead: the attributes of ``facts`` that the clips have any of, or
    with ``refit`` all that it is told by now."""
    if config.refit:
        return _told_by_now(model, clips)
    if config.facts is None:
        return None
    facts = _with_values(config.facts, clips)
    heard = tuple(name for name in facts.attributes if facts.values.get(name))
    update = {
        "attributes": heard,
        "only": {name: places for name, places in facts.only.items() if name in heard},
        "within": {name: other for name, other in facts.within.items() if {name, other} <= {*heard}},
        "spotted": {name: place for name, place in facts.spotted.items() if name in heard},
        "open": tuple(name for name in facts.open if name in heard),
    }
    return facts.model_copy(update=update) if heard else None


def _has_words(model: PengiModel) -> bool:
    return any(isinstance(branch.mapper, WordsMapper) for branch in model.branches)


def _told_by_now(model: PengiModel, clips: Sequence[Clip]) -> FactsConfig | None:
    facts = model.config.facts
    if facts is None and not _has_words(model):
        raise ConfigError(f"finetune.refit needs a model with facts or words, and '{model.config.name}' has none")
    if facts is None:
        return None
    lacking = [name for name, values in values_of_attributes(facts.attributes, clips).items() if not values]
    if lacking:
        raise ConfigError(f"finetune.refit needs clips of all that probes hear; none has {', '.join(lacking)}")
    return facts


def _with_values(facts: FactsConfig, clips: Sequence[Clip]) -> FactsConfig:
    values = values_of_attributes(facts.attributes, clips)
    return facts if facts.values else facts.model_copy(update={"values": values})


def _check_patches(model: PengiModel) -> None:
    """Raise ConfigError if a branch of words hears other patches than the embeddings that are moved to a class."""
    window_s = model.branches[0].config.window_s
    for branch in model.branches:
        if isinstance(branch.mapper, WordsMapper) and branch.config.window_s != window_s:
            raise ConfigError(
                f"data.class_directions needs the branch of words to have the first branch's window_s, {window_s:g}"
            )


def _check_augmentation(recipe: Recipe, model: PengiModel, *, fitted: bool) -> None:
    """Raise ConfigError if nothing would be augmented, or a mapper's statistics had no fixed features to come from."""
    augment = recipe.training.augment
    from_spectrogram = any(branch.config.trained and not branch.config.frozen_layers for branch in model.branches)
    if augment.spec_augment is not None and not from_spectrogram:
        raise ConfigError(
            "training.augment.spec_augment needs an audio encoder with trained: true and frozen_layers: 0"
        )
    words = _has_words(model)
    new = recipe.finetune is None
    if augment.changes_waveforms and recipe.data.tells_words:
        raise ConfigError("data.word_targets and word_dropout need fixed features; leave crop and gain_db out")
    if augment.changes_waveforms and ((words and new) or fitted):
        raise ConfigError("words and facts take their statistics from fixed features; leave crop and gain_db out")


@torch.no_grad()
def _pooled(branch: AudioBranch, cache: FeatureCache, clips: Sequence[Clip]) -> Tensor:
    """What a branch of words hears in each clip as a whole, ``float32[A, I]``."""
    return torch.cat([branch.summary(branch.tokens(cache.batch([clip.id]))) for clip in clips])


def _fit_words(
    model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip], named: Collection[str], recipe: Recipe
) -> None:
    """Fit branches of words: the usual height of each class's logit, over clips of sound events if there are any, and
    how much each word counts, from all clips that are one recording."""
    mixture = _mixture(recipe)
    for branch, cache in zip(model.branches, caches, strict=False):
        if not isinstance(branch.mapper, WordsMapper):
            continue
        known = [clip for clip in clips if clip.id in cache]
        known = [clip for clip in known if clip.domain != COMPOSED_DOMAIN] or known
        pooled_AI = _pooled(branch, cache, known)
        sounds_A = torch.tensor([clip.domain in SOUND_DOMAINS for clip in known])
        branch.mapper.standardise(pooled_AI[sounds_A] if int(sounds_A.sum()) > 1 else pooled_AI)
        # Shares of what no clip that is left is of would be a mistake in the recipe of a mixture.
        present = {clip.domain for clip in known}
        domains = mixture.domains and {name: share for name, share in mixture.domains.items() if name in present}
        fit_words(branch.mapper, pooled_AI, known, clip_weights(known, domains), named, recipe.training.seed)


def _mixture(recipe: Recipe) -> Mixture:
    mixture = recipe.data.mixture
    return Mixture(
        domains=_above_zero(recipe.data.domains),
        corpora=_above_zero({name: corpus.share for name, corpus in mixture.items()} if mixture else None),
        clips=recipe.training.clips,
        pairs=recipe.training.pairs,
        class_directions=recipe.data.class_directions,
        word_targets=recipe.data.word_targets,
        word_dropout=recipe.data.word_dropout,
    )


def _above_zero(shares: Mapping[str, float] | None) -> dict[str, float] | None:
    """Shares of what there are clips of: :func:`_ever_drawn` leaves none of what has a share of zero."""
    return None if shares is None else {name: share for name, share in shares.items() if share}


@torch.no_grad()
def with_told_words(loader: Loader, model: PengiModel) -> Loader:
    """The loader with what the model's branch of words tells of each clip of sound events, as the branch is now."""
    device = model.device
    for branch, cache in zip(model.branches, loader.caches, strict=True):
        mapper = branch.mapper
        if isinstance(mapper, WordsMapper):
            logits: dict[str, Tensor] = {}
            for clip in loader.clips:
                if clip.domain in SOUND_DOMAINS:
                    features, mask = (part.to(device) for part in cache.batch([clip.id]))
                    logits[clip.id] = mapper.word_logits(branch.encoder.tokens(features, mask), mask)[0].cpu()
            classes = tuple(mapper.classes_V.tolist())
            return loader.telling(ToldWords(mapper.words, classes, logits, mapper.count, mapper.least))
    return loader


def _features(clips: Sequence[Clip], root: Path, model: PengiModel, recipe: Recipe) -> list[FeatureCache]:
    branches = [(branch.encoder.eval(), branch.config) for branch in model.branches]
    return cached_branches(clips, root, branches, most_bad=recipe.data.most_bad)


def _live(root: Path, model: PengiModel, recipe: Recipe, clips: Sequence[Clip]) -> LiveFeatures:
    return LiveFeatures(root, model, recipe.training, Tolerance(recipe.data.most_bad), len(clips))


def _tagger(recipe: Recipe) -> YamnetTagger | None:
    new = recipe.model.audio if recipe.model else ()
    words = any(branch.mapper.kind == "words" and not branch.mapper.words for branch in new)
    if not (recipe.data.audioset_tags or recipe.data.class_directions or words):
        return None
    return YamnetTagger.from_folder(weights.resolve("yamnet"))


@torch.no_grad()
def _tags(tagger: YamnetTagger | None, clips: Sequence[Clip], root: Path, recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """AudioSet tags of the clips, from the cached features of an untrained YAMNet where the model has that branch."""
    assert tagger is not None
    new = recipe.model.audio if recipe.model else ()
    branch = next((branch for branch in new if branch.encoder == "yamnet"), None)
    if branch is None:
        raise ConfigError("data.audioset_tags needs a yamnet audio encoder")
    tagger.encoder.frozen_convs = branch.frozen_layers
    cache = cached_features(clips, root, tagger.encoder, branch)
    tags = {}
    for clip in track([clip for clip in clips if clip.id in cache], "AudioSet tags"):
        features, mask = cache.batch([clip.id])
        tags[clip.id] = tags_of(tagger.head(tagger.encoder.tokens(features, mask))[0], tagger.classes)
    return {clip_id: found for clip_id, found in tags.items() if found}


def _direction_classes(
    tagger: YamnetTagger | None, labels: dict[str, Label]
) -> tuple[DirectionClasses, dict[str, Label]]:
    """Classes that a label of the data stands for are drawn three times as often as the others."""
    assert tagger is not None
    chosen = class_labels(tagger.classes, labels)
    weights_of = [3.0 if chosen[name].label in labels else 1.0 for name in tagger.classes]
    classes = DirectionClasses(tuple(chosen[name] for name in tagger.classes), tuple(weights_of))
    return classes, {**{label.label: label for label in chosen.values()}, **labels}


def _pair_maker(
    data: DataConfig,
    labels: Mapping[str, Label],
    tags: Mapping[str, tuple[str, ...]] | None = None,
    others: Iterable[str] | None = None,
) -> PairMaker:
    """What is asked about clips, as a recipe says."""
    return PairMaker(
        labels, tags, others, weights=data.tasks, questions=data.questions, own_questions=data.own_questions
    )


def _validation(
    clips: Sequence[Clip], caches: Sequence[FeatureCache], labels: Mapping[str, Label], recipe: Recipe
) -> list[TrainingBatch]:
    """Fixed batches of held-out clips, evenly over the split, one pair each."""
    pairs = _pair_maker(recipe.data, labels)
    rng = random.Random(recipe.training.seed)
    known = [clip for clip in clips if all(clip.id in cache for cache in caches) and pairs.fits(clip)]
    chosen = rng.sample(known, min(recipe.training.validation_clips, len(known)))
    size = recipe.training.clips
    groups = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    return [collate(group, [pairs.draw(clip, rng, 1) for clip in group], caches) for group in groups]
