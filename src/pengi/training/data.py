"""Reads the data of a recipe: clips to train on, held-out clips, and the wordings of their labels."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pengi.data.drawing import read_captions
from pengi.data.loader import clip_weights
from pengi.data.manifest import Clip, Label, read_labels
from pengi.data.sources import Manifest, manifest_of, read_mixture
from pengi.data.tasks import labels_of
from pengi.errors import ConfigError, ManifestError, no_such
from pengi.training.recipe import DataConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The clips of a recipe.

    Attributes:
        root: folder that the clips' ``audio`` is relative to.
        train: clips to train on, of every corpus with a share; the tagger is fitted on all of them.
        asked: the part of ``train`` that questions are drawn about.
        held_out: clips of the validation split.
        labels: wording of every event label.
        captions: descriptions that scenes without audio are drawn from.
    """

    root: Path
    train: list[Clip]
    asked: list[Clip]
    held_out: list[Clip]
    labels: dict[str, Label]
    captions: tuple[str, ...]


def read_data(config: DataConfig) -> TrainingData:
    """Read all manifests, labels and captions of a recipe.

    Raises:
        ManifestError: for a mistake in a file, too many bad rows, or if there is no clip to train on.
        ConfigError: for a corpus or source that has no clip.
    """
    log.info("reading the data")
    source = _read_clips(config)
    train = [clip for clip in source.clips if clip.split == config.train_split and (clip.ship or not config.ship_only)]
    if not train:
        where = config.manifest or ", ".join(config.mixture or ())
        raise ManifestError(f"{where} has no clip to train on in split '{config.train_split}'")
    train = _with_attributes(train, config)
    weights = clip_weights(train, config.shares)
    train = [clip for clip, weight in zip(train, weights, strict=True) if weight]  # the others need no features
    held_out = [clip for clip in source.clips if clip.split == config.val_split]
    log.info("%d clips to train on, %d held out", len(train), len(held_out))
    return TrainingData(
        root=source.root,
        train=train,
        asked=_at_most_per_source(train, config.max_per_source),
        held_out=held_out,
        labels=labels_of([*train, *held_out], read_wordings(config)),
        captions=read_captions(config.scenes.captions) if config.scenes and config.scenes.captions else (),
    )


def _read_clips(config: DataConfig) -> Manifest:
    if config.mixture is None:
        assert config.manifest is not None, "read_recipe refuses a recipe that has neither"
        return manifest_of(config.manifest, max_bad_share=config.max_bad_share)
    paths = {name: corpus.manifest for name, corpus in config.mixture.items()}
    return Manifest(tuple(read_mixture(paths, max_bad_share=config.max_bad_share)), Path())


def read_wordings(config: DataConfig) -> dict[str, Label]:
    """Wordings of labels: those of the recipe's file, and of ``labels.jsonl`` beside the manifests of its mixture.

    Raises:
        ManifestError: for a mistake in a file.
    """
    found: dict[str, Label] = {}
    for corpus in (config.mixture or {}).values():
        manifest = Path(corpus.manifest)
        beside = (manifest if manifest.is_dir() else manifest.parent) / "labels.jsonl"
        if beside.is_file():
            found |= read_labels(beside)
    return found | (read_labels(config.labels) if config.labels else {})


def _with_attributes(clips: Sequence[Clip], config: DataConfig) -> list[Clip]:
    """The clips with the attributes that the recipe gives to their sources; those of their rows take precedence."""
    known = config.attributes
    sources = sorted({clip.source for clip in clips if clip.source})
    for source in known:
        if source not in sources:
            raise ConfigError(no_such("source of training clips", source, sources))
    return [clip.model_copy(update={"attributes": {**known.get(clip.source, {}), **clip.attributes}}) for clip in clips]


def _at_most_per_source(clips: Sequence[Clip], max_clips: int | None) -> list[Clip]:
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
