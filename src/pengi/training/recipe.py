"""Recipes: one YAML file for model, data and training. The error about an unknown key names the nearest known one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from pengi.config import Frozen, ModelConfig
from pengi.data.tolerance import MAX_BAD_SHARE
from pengi.errors import ConfigError

RENAMED = {
    "data.most_bad": "data.max_bad_share",
    "training.clips": "training.batch_size",
    "training.pairs": "training.questions_per_clip",
    "training.steps": "training.max_steps",
    "training.mapper_lr": "training.mapper_learning_rate",
    "training.encoder_lr": "training.encoder_learning_rate",
    "training.language_model_lr": "training.language_model_learning_rate",
    "training.clip_norm": "training.max_grad_norm",
    "training.workers": "training.num_workers",
    "training.checkpoint_every": "training.save_every",
    "training.validate_every": "training.eval_every",
    "training.validation_clips": "training.eval_clips",
    "training.samples": "training.eval_samples",
}
"""Old option -> its present name, which the error about the old one gives."""


class CorpusConfig(Frozen):
    """One source of a mixture, and how often its clips are drawn relative to the others'."""

    manifest: str = Field(min_length=1)
    share: float = Field(1.0, ge=0)


class ScenesConfig(Frozen):
    """Scenes that are drawn without audio (pengi.data.drawing), for a model that reads evidence as text."""

    captions: Path | None = Field(None, description="JSON lines with a field 'text': descriptions by people")
    steps: int = Field(0, ge=0, description="number of first steps that are about scenes alone")
    share: float = Field(0.0, ge=0, lt=1, description="of the steps after them")


class DataConfig(Frozen):
    """Which clips, and how often they are drawn. Paths are relative to the current folder.

    A ``manifest`` is whatever :func:`pengi.data.sources.manifest_of` reads: JSON lines, a CSV file, a folder of
    ``label/*.wav``, tar shards. A ``mixture`` has several of them, by names of the user's choice.
    """

    manifest: str | None = Field(None, min_length=1)
    mixture: dict[str, CorpusConfig] | None = Field(None, min_length=1)
    max_bad_share: float = Field(
        MAX_BAD_SHARE, ge=0, le=1, description="share of the rows that may be unusable and are skipped"
    )
    labels: Path | None = None
    train_split: Literal["train", "val", "test", "heldout"] = "train"
    val_split: Literal["train", "val", "test", "heldout"] = "val"
    ship_only: bool = Field(False, description="train only on clips whose row says ship: true")
    scenes: ScenesConfig | None = None
    max_per_source: int | None = Field(
        None,
        ge=1,
        description="maximum number of clips of one source that questions are drawn about; the tagger is fitted on all",
    )
    attributes: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="source -> attributes that all of its clips have, where rows do not say so"
    )

    @property
    def shares(self) -> dict[str, float] | None:
        """The share of each corpus of a mixture."""
        return {name: corpus.share for name, corpus in self.mixture.items()} if self.mixture else None


class FinetuneConfig(Frozen):
    """A trained model to fine-tune, instead of a new one: its architecture, its weights and its adapters.

    Labels of the clips that are not tags yet become tags, if the model has a tagger.
    """

    checkpoint: str = Field(min_length=1, description="a name of `pengi models`, or the folder of a checkpoint")
    name: str = Field("finetuned", min_length=1)


class AugmentConfig(Frozen):
    """Variation of the training audio.

    With ``crop: random`` recordings are decoded and features computed at every step instead of only once.
    ``spec_augment`` needs an audio encoder that is trained from its spectrogram on.
    """

    crop: Literal["start", "random"] = Field(
        "start", description="which part of a clip longer than the window is encoded"
    )
    spec_augment: bool = Field(False, description="hide stripes of log-mel spectrograms (Park et al. 2019)")

    @property
    def changes_waveforms(self) -> bool:
        """Whether features of a clip differ from step to step."""
        return self.crop == "random"


class TrainingConfig(Frozen):
    """The optimisation: AdamW, linear warm-up, then a decay to zero.

    ``batch_size`` and ``questions_per_clip`` define the batch of a step, however many processes share it.
    """

    max_steps: int = Field(ge=0, description="0 for a model to finetune: only tags are added")
    batch_size: int = Field(16, ge=1, description="clips in a batch")
    questions_per_clip: int = Field(3, ge=1, description="prompts and targets about each clip of a batch")
    mapper_learning_rate: float = Field(gt=0)
    encoder_learning_rate: float | None = Field(None, ge=0, description="of audio encoders; the mappers' if not given")
    language_model_learning_rate: float | None = Field(
        None, gt=0, description="of LoRA's adapters; the mappers' if not given"
    )
    schedule: Literal["cosine", "linear"] = "cosine"
    decay_steps: int | None = Field(
        None, ge=1, description="number of last steps over which the rate falls; all after the warm-up if not given"
    )
    weight_decay: float = Field(0.05, ge=0)
    warmup_steps: int = Field(200, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    augment: AugmentConfig = AugmentConfig()
    language_model_dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    num_workers: int = Field(0, ge=0, description="processes that draw batches ahead, or threads that decode waveforms")
    save_every: int = Field(250, ge=1)
    eval_every: int = Field(500, ge=1)
    eval_clips: int = Field(256, ge=1)
    eval_samples: int = Field(4, ge=0, description="held-out clips whose answers are written down at every validation")
    log_every: int = Field(25, ge=1)


class TaggerTraining(Frozen):
    """How the tagger of a new model is fitted (pengi.training.tagger), before anything else is trained."""

    penalty: dict[str, float] = Field(
        default_factory=dict, description="group of tags -> weight of the penalty on its fitted scores"
    )
    stock: dict[str, float] = Field(
        default_factory=dict, description="group of tags -> weight of the stock tagger's scores; 1 if not named"
    )
    branch: dict[str, str] = Field(
        default_factory=dict, description="group of tags -> the one audio branch that its scores read; all if not named"
    )


class Recipe(Frozen):
    """Everything that determines a training run: a new ``model``, or one to ``finetune``."""

    model: ModelConfig | None = None
    finetune: FinetuneConfig | None = None
    data: DataConfig
    tagger: TaggerTraining = TaggerTraining()
    training: TrainingConfig

    @property
    def name(self) -> str:
        """Name of the trained model."""
        if self.finetune is not None:
            return self.finetune.name
        assert self.model is not None, "read_recipe refuses a recipe that has neither"
        return self.model.name


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key.path=value`` overrides, whose values are YAML.

    Raises:
        ConfigError: for a missing file, bad YAML, an unknown key, a wrong value or a malformed override; for both or
            neither of model and finetune, or of data.manifest and data.mixture; for settings of a tagger that is not
            fitted.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe at '{path}'") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"'{path}' is not a YAML recipe: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' must hold a mapping with model, data and training")
    values = _unshared(values)
    for override in overrides:
        _apply(values, override)
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        if isinstance(values.get(section), dict) and name in values[section]:
            raise ConfigError(f"{path}: '{old}' is now called '{new}'")
    recipe = Recipe.parse(values, str(path))
    if (recipe.model is None) == (recipe.finetune is None):
        raise ConfigError(f"'{path}' must have either a section 'model', for a new one, or a section 'finetune'")
    if recipe.finetune is not None and recipe.tagger != TaggerTraining():
        raise ConfigError(f"'{path}': the section 'tagger' is for a new model; one that is fine-tuned has its tagger")
    if recipe.model is not None and not recipe.training.max_steps:
        raise ConfigError(f"'{path}': training.max_steps must be 1 or more for a new model")
    if (recipe.data.manifest is None) == (recipe.data.mixture is None):
        raise ConfigError(f"'{path}' must have either data.manifest or data.mixture")
    return recipe


def _unshared(node: Any) -> Any:
    """A copy in which YAML aliases share nothing, so that an override changes a single key."""
    return {key: _unshared(value) for key, value in node.items()} if isinstance(node, dict) else node


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, not '{override}'")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: '{text}' is not a YAML value") from error
    *parents, last = key.strip().split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {key}: '{parent}' is a value, not a section")
    section[last] = value
