"""Measures the time of the parts of a training step.

    python benchmarks/training_speed.py recipes/tiny.yaml --steps 20 --out results/training-speed.json

Makes steps as the training loop does, and times their parts: drawing the batch, forward pass, backward pass, optimiser.
The share of the language model in the forward pass is measured, too. ``preloaded`` is the library that ``LD_PRELOAD``
names: an allocator of memory, if it is set.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from run_record import run_record, write_results
from torch import nn

from pengi.training.loop import Run
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare

WARMUP_STEPS = 3
PARTS = ("data", "forward", "backward", "optimiser")


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


class LanguageModelTime:
    """Adds up the time of the language model's decoder in the forward pass, in seconds."""

    def __init__(self, decoder: nn.Module) -> None:
        self.seconds = 0.0
        self._started = 0.0
        decoder.register_forward_pre_hook(self._start)
        decoder.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


def step(run: Run, clock: Clock) -> int:
    """One step; returns its number of examples."""
    drawn = run.setup.loader.batch(run.step)
    rows, source = run.process_rows(drawn), run.setup.live
    live = None if source is None else next(source.features([(run.step, drawn.clips, rows)]))
    batch = run.share(drawn, rows, live)
    clock.lap("data")
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    clock.lap("optimiser")
    with run.precision():
        loss = run.model(batch).mean
    clock.lap("forward")
    loss.backward()
    clock.lap("backward")
    nn.utils.clip_grad_norm_(list(run.trained.values()), run.settings.max_grad_norm)
    run.optimizer.step()
    clock.lap("optimiser")
    run.step += 1
    return len(drawn.batch.prompts)


def measure(recipe: Path, overrides: list[str], steps: int) -> dict[str, object]:
    """Seconds a step for each part, and examples per second."""
    setup = prepare(read_recipe(recipe, [*overrides, f"training.max_steps={steps + WARMUP_STEPS}"]))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(setup, Path(folder))
        for _ in range(WARMUP_STEPS):
            step(run, Clock(run.accelerator.device))
        clock = Clock(run.accelerator.device)
        language_model = LanguageModelTime(run.model.language_model.model.get_decoder())
        examples = sum(step(run, clock) for _ in range(steps))
    total = sum(clock.seconds.values())
    return {
        "recipe": recipe.stem,
        "device": str(run.accelerator.device),
        "preloaded": Path(os.environ.get("LD_PRELOAD", "")).name,
        "steps": steps,
        "examples_per_second": round(examples / total, 2),
        "seconds_per_step": {name: round(clock.seconds[name] / steps, 5) for name in PARTS},
        "share": {name: round(clock.seconds[name] / total, 3) for name in PARTS},
        "share_of_language_model_forward": round(language_model.seconds / total, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    write_results({**run_record(), **measure(options.recipe, options.overrides, options.steps)}, options.out)


if __name__ == "__main__":
    main()
