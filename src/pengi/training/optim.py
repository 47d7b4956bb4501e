"""What moves the weights: AdamW with a rate for each kind of part, schedules, an average of the weights, precision."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ADAM_BETAS = (0.9, 0.98)
NO_BFLOAT16 = ("DEFAULT", "AVX2")
"""CPUs without instructions for bfloat16: matrix products in it were seen to take 50 times as long as in float32."""

Kind = Literal["encoder", "mapper", "language_model"]


def kind_of_parameter(name: str) -> Kind:
    """Which rate a parameter of the model learns at; projections learn at the mappers'."""
    if name.startswith("language_model."):
        return "language_model"
    return "encoder" if ".encoder." in name else "mapper"


def build_optimizer(
    trained: Mapping[str, Tensor], rates: Mapping[Kind, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW with a rate for each kind of part; no decay for vectors (biases, norms).

    Each group keeps its own rate as ``highest_lr``, of which :func:`set_rate` takes a share.
    """
    groups: dict[tuple[Kind, bool], list[Tensor]] = {}
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
    """What a recipe's ``language_model_dtype`` comes to on this machine: float32 where bfloat16 would be far slower."""
    if name == "bfloat16" and not torch.accelerator.is_available():
        capability = torch.backends.cpu.get_cpu_capability()
        if capability in NO_BFLOAT16:
            log.warning("this CPU (%s) does not multiply in bfloat16; the language model is in float32", capability)
            return torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group this share of its highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * share


def scheduled_rate(schedule: Literal["cosine", "linear"], step: int, warmup: int, steps: int) -> float:
    """Share of the highest rate: a linear warm-up to 1, then a cosine or a line to zero after the last step."""
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.5 * (1.0 + math.cos(math.pi * share)) if schedule == "cosine" else 1.0 - share


class WeightAverage:
    """Exponential moving average of trained weights (Polyak and Juditsky 1992).

    The average begins as the weights themselves and follows them faster at first, by ``(1 + n) / (10 + n)`` after n
    updates until that reaches the decay, so that short runs are not held to where they began.
    """

    def __init__(self, trained: Mapping[str, Tensor], decay: float) -> None:
        self.trained = trained
        self.decay = decay
        self.updates = 0
        self.average = {name: value.detach().clone() for name, value in trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self.trained.items():
            self.average[name].lerp_(value, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights for as long as the context lasts."""
        kept = {name: value.detach().clone() for name, value in self.trained.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.trained.items():
            value.copy_(values[name])

    def state(self) -> dict[str, object]:
        """What :meth:`restore` takes."""
        return {"updates": self.updates, "average": self.average}

    @torch.no_grad()
    def restore(self, updates: int, average: Mapping[str, Tensor]) -> None:
        """Go on from a kept state."""
        self.updates = updates
        for name, value in self.average.items():
            value.copy_(average[name])
