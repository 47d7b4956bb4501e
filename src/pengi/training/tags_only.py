"""Adds tags to a trained model, without training steps."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from pengi import checkpoint
from pengi.errors import ConfigError
from pengi.training.card import model_card
from pengi.training.data import read_data
from pengi.training.label_report import write_label_report
from pengi.training.new_tags import MIN_CLIPS, add_new_tags
from pengi.training.recipe import Recipe
from pengi.training.report import REPORT_FILE
from pengi.training.setup import build_model, with_features
from pengi.writing import check_new_folder, new_folder

log = logging.getLogger(__name__)


def train_tags(recipe: Recipe, out: Path) -> Path:
    """Add the labels of a recipe's clips to a model's tags, and write the checkpoint and a report.

    Raises:
        ConfigError, ManifestError, CheckpointError, WeightsError: for a setting that does not fit, or a missing part.
        InputError: if ``out`` exists already.
    """
    check_new_folder(out)
    torch.manual_seed(recipe.training.seed)
    data = read_data(recipe.data)
    model = build_model(recipe)
    if model.tagger is None:
        raise ConfigError("training.max_steps: 0 adds tags only, and the model has no tagger; set it to 1 or more")
    added = add_new_tags(model, *with_features(data, model, recipe))
    if added is None:
        raise ConfigError(f"no label of the clips is new to the tagger and has {MIN_CLIPS} clips to train on")
    with new_folder(out) as folder:
        card = model_card(recipe, model.config, data.train, 0, [])
        checkpoint.save(model, folder, card=card, dtype=torch.float16)
        write_label_report(folder, recipe.name, added.report)
    for line in added.report.summary():
        log.info("%s", line)
    log.info("thresholds, confusions and the worst clips are in %s", out / REPORT_FILE)
    return out
