"""The optimiser: AdamW with a learning rate for each kind of parameter, schedules, precision."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ADAM_BETAS = (0.9, 0.98)
BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")
"""CPU capabilities, as torch names them, of which bfloat16 needs one. Matrix products in it were 4 to 9 times faster
than in float32 with them, and up to 50 times slower without."""

ParameterKind = Literal["encoder", "mapper", "language_model"]


def kind_of_parameter(name: str) -> ParameterKind:
    """The kind of a parameter by its name, which determines its learning rate; projections count as mappers."""
    if name.startswith("language_model."):
        return "language_model"
    return "encoder" if ".encoder." in name else "mapper"


def build_optimizer(
    trained: Mapping[str, Tensor], rates: Mapping[ParameterKind, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW with a learning rate for each kind of parameter; no weight decay for vectors (biases, norms).

    Each group stores its own rate as ``highest_lr``, which :func:`set_rate` multiplies.
    """
    groups: dict[tuple[ParameterKind, bool], list[Tensor]] = {}
    for name, value in trained.items():
        groups.setdefault((kind_of_parameter(name), value.ndim > 1), []).append(value)
    return torch.optim.AdamW(
        [
            {
                "params": values,
                "lr": rates[kind],
                "highest_lr": rates[kind],
                "weight_decay": weight_decay if matrix else 0.0,
            }
            for (kind, matrix), values in groups.items()
        ],
        betas=ADAM_BETAS,
    )


def working_dtype(name: Literal["float32", "bfloat16"]) -> torch.dtype:
    """The dtype of a recipe's ``language_model_dtype``; float32 on a CPU on which bfloat16 would be far slower."""
    if name == "bfloat16" and not torch.accelerator.is_available():
        has = torch.cpu.get_capabilities()
        if not any(has.get(unit) for unit in BFLOAT16_UNITS):
            log.warning("this CPU does not multiply in bfloat16; the language model is in float32")
            return torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group this share of its highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * share


def scheduled_rate(
    schedule: Literal["cosine", "linear"], step: int, warmup: int, steps: int, decay: int | None = None
) -> float:
    """Share of the highest rate, 0 to 1: a linear warm-up, then a cosine or linear decay to zero after the last step.

    Args:
        schedule: shape of the decay.
        step: index of the next step, from 0.
        warmup: number of warm-up steps.
        steps: number of steps of the run.
        decay: number of steps of the decay, after a constant phase; all steps after the warm-up if not given.
    """
    if step < warmup:
        return (step + 1) / warmup
    start = warmup if decay is None else max(warmup, steps - decay)
    share = min(1.0, max(0, step - start) / max(1, steps - start))
    return 0.5 * (1.0 + math.cos(math.pi * share)) if schedule == "cosine" else 1.0 - share
