"""Where the time of a training step goes.

    python benchmarks/training_speed.py recipes/tiny.yaml --steps 20 --out results/training-speed.json

Makes steps of the training proper (the warm start is left out) as the loop does, with a clock between their parts:
drawing the batch, encoders and mappers, the language model there and back, encoders and mappers back, the optimiser.
The gradient is stopped and handed on behind the mappers, so that the two halves of the way back can be told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn

from pengi.training.loop import Run
from pengi.training.optim import set_rate
from pengi.training.parts import Part, heard_prefixes
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare

WARMUP_STEPS = 3
PARTS = (
    "data",
    "encoder_and_mappers_forward",
    "language_model_forward",
    "language_model_backward",
    "encoder_and_mappers_backward",
    "optimiser",
)


class Clock:
    """Adds up the seconds since its last call under a name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now


def there_and_back(run: Run, part: Part, clock: Clock) -> None:
    """Loss and gradients of a part of a batch."""
    model = run.setup.model
    with run.precision():
        whole = model.audio_tokens(part.batch.features, part.augment)
        mapped = heard_prefixes(model, part, whole, model.map_audio(part.edits(whole)))
    clock.lap("encoder_and_mappers_forward")
    stopped = [(prefix.detach().requires_grad_(prefix.requires_grad), mask) for prefix, mask in mapped]
    with run.precision():
        loss = model.target_loss(stopped, part.batch).mean
    clock.lap("language_model_forward")
    loss.backward()
    clock.lap("language_model_backward")
    learning = [
        (prefix, leaf.grad)
        for (prefix, _), (leaf, _) in zip(mapped, stopped, strict=True)
        if prefix.requires_grad and leaf.grad is not None
    ]
    if learning:
        prefixes, gradients = zip(*learning, strict=True)
        torch.autograd.backward(list[Tensor](prefixes), list[Tensor](gradients))
    clock.lap("encoder_and_mappers_backward")


def step(run: Run, clock: Clock) -> int:
    """One step; returns its number of examples."""
    phase = run.phase
    drawn = phase.loader.batch(run.step)
    parts = [run.part(drawn, rows) for rows in run.own_rows(drawn)]
    clock.lap("data")
    run.setup.model.train()
    set_rate(phase.optimizer, phase.rate(run.step))
    phase.optimizer.zero_grad(set_to_none=True)
    clock.lap("optimiser")
    for part in parts:
        there_and_back(run, part, clock)
    nn.utils.clip_grad_norm_(phase.clipped, phase.clip_norm)
    phase.optimizer.step()
    clock.lap("optimiser")
    run.step += 1
    return len(drawn.batch.prompts)


def measure(recipe: Path, overrides: list[str], steps: int) -> dict[str, object]:
    """Seconds a step for each part, and examples per second."""
    setup = prepare(read_recipe(recipe, [*overrides, "alignment=null", f"training.steps={steps + WARMUP_STEPS}"]))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(setup, Path(folder))
        for _ in range(WARMUP_STEPS):
            step(run, Clock(run.accelerator.device))
        clock = Clock(run.accelerator.device)
        examples = sum(step(run, clock) for _ in range(steps))
    total = sum(clock.seconds.values())
    return {
        "recipe": recipe.stem,
        "device": str(run.accelerator.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "steps": steps,
        "examples_per_second": round(examples / total, 2),
        "seconds_per_step": {name: round(clock.seconds[name] / steps, 5) for name in PARTS},
        "share": {name: round(clock.seconds[name] / total, 3) for name in PARTS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.recipe, options.overrides, options.steps), indent=2) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
