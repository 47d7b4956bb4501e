"""The file from which a run is resumed, and the check that it belongs to the same recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from pengi.errors import ConfigError
from pengi.training.recipe import Recipe

STATE_FILE = "state.pt"
# Settings that may differ when a run is resumed, because they change no step.
_FREE_SETTINGS = ("num_workers", "save_every", "eval_samples", "log_every")


def read_state(out: Path, recipe: Recipe, device: torch.device | None = None) -> dict[str, Any] | None:
    """The state of the run in ``out``; None if there is none.

    Its "recipe" is the recipe as JSON, and its "step" the number of steps made.

    Args:
        out: folder of the run.
        recipe: of the run that resumes.
        device: of the tensors; the CPU if not given.

    Raises:
        ConfigError: if the run belongs to another recipe.
    """
    path = out / STATE_FILE
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device or "cpu", weights_only=True)
    if not _same_run(state["recipe"], recipe, state["step"]):
        raise ConfigError(f"'{path}' belongs to a run with other settings; choose another folder with --out")
    return state


def _same_run(recipe_json: str, recipe: Recipe, step: int) -> bool:
    """Whether a stored recipe trains in the same way as this one.

    The number of steps may differ if the learning rate has not begun to fall at ``step`` in either recipe. A run that
    ended without a step has added tags only, so it has nothing to continue with another number of steps.
    """
    try:
        kept = Recipe.model_validate_json(recipe_json)
    except ValidationError:
        return False
    may_end_elsewhere = 0 < step <= min(_decay_begins(kept), _decay_begins(recipe))
    names = (*_FREE_SETTINGS, "max_steps") if may_end_elsewhere else _FREE_SETTINGS
    free = {name: getattr(recipe.training, name) for name in names}
    return kept.model_copy(update={"training": kept.training.model_copy(update=free)}) == recipe


def _decay_begins(recipe: Recipe) -> int:
    """The first step whose learning rate depends on the length of the run."""
    training = recipe.training
    return 0 if training.decay_steps is None else training.max_steps - training.decay_steps
