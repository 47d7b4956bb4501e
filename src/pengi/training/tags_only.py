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
from pengi.training.state import STATE_FILE, read_state
from pengi.writing import check_new_folder, new_folder

log = logging.getLogger(__name__)


def train_tags(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Add the labels of a recipe's clips to a model's tags, and write the checkpoint and a report.

    Args:
        recipe: one without steps.
        out: folder of the checkpoint.
        resume: leave a finished run in ``out`` as it is.

    Raises:
        ConfigError, ManifestError, CheckpointError, WeightsError: for a setting that does not fit, or a missing part.
        InputError: if ``out`` exists already.
    """
    # The folder appears when the run is finished, so a run with a state has no work left.
    if resume and read_state(out, recipe) is not None:
        log.info("the run in '%s' is finished", out)
        return out
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
        torch.save({"recipe": recipe.model_dump_json(), "step": 0}, folder / STATE_FILE)
    for line in added.report.summary():
        log.info("%s", line)
    log.info("thresholds, confusions and the worst clips are in %s", out / REPORT_FILE)
    return out
