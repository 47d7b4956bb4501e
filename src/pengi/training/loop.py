"""The training loop: from a recipe to a checkpoint. It can be stopped at any moment and resumed.

Every random draw is seeded by the step, so a resumed run repeats the losses of an uninterrupted one. With
``accelerate launch`` or ``torchrun`` a recipe runs in several processes, which share each batch
(:mod:`pengi.training.distributed`).

    out/        config.json, model.safetensors, README.md: the last checkpoint
    out/best/   the same of the checkpoint with the lowest loss on held-out clips
    out/        state.pt: the state to resume from; log.jsonl, samples.jsonl, tensorboard/, report.md, curves.png
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import asdict, replace
from itertools import repeat, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pengi import checkpoint
from pengi.audio.augment import spec_augment
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.loader import TrainingBatch
from pengi.decoding import DecodeOptions, generate
from pengi.encoders.base import Augment
from pengi.errors import ConfigError, TrainingError, how_to_install
from pengi.model import Batch
from pengi.training.card import model_card
from pengi.training.distributed import batch_on, choose_rows, share_of
from pengi.training.interrupts import StopRequest
from pengi.training.journal import Journal, Sample
from pengi.training.optim import ParameterKind, build_optimizer, scheduled_rate, set_rate
from pengi.training.recipe import read_recipe
from pengi.training.report import write_report
from pengi.training.setup import Setup, prepare
from pengi.training.state import STATE_FILE, read_state
from pengi.training.tags_only import train_tags
from pengi.training.waveforms import Live
from pengi.writing import replacing

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

BEST_FOLDER = "best"
SAMPLE_OPTIONS = DecodeOptions(beams=1, max_tokens=30)
_SEED_STRIDE = 1_000_003  # distance between the first steps' seeds for two successive seeds of a recipe
_SHARE_STRIDE = 2**40  # distance between the seeds of two successive shares of a batch


def train(recipe_path: Path, overrides: Sequence[str] = (), *, resume: bool = False, out: Path | None = None) -> Path:
    """Train a recipe and return the folder of the finished checkpoint.

    Ctrl-C ends the run after the current step and writes a checkpoint, from which ``resume`` continues.

    Args:
        recipe_path: YAML file.
        overrides: ``key.path=value``.
        resume: continue from the last checkpoint in ``out``; if there is none, start from the beginning.
        out: folder for checkpoints and log; ``runs/<model name>`` if not given.

    Raises:
        ConfigError, ManifestError, CheckpointError, WeightsError: before the first step.
        TrainingError: if the loss is not finite; the last checkpoint stays as it is.
        KeyboardInterrupt: after Ctrl-C; a line on stderr says what is saved.
    """
    recipe = read_recipe(recipe_path, overrides)
    out = out or Path("runs") / recipe.name
    if not resume and (out / STATE_FILE).exists():
        raise ConfigError(
            f"'{out}' already contains a run; continue it with --resume, or choose another folder with --out"
        )
    if recipe.training.max_steps == 0:
        return train_tags(recipe, out, resume=resume)
    accelerator = build_accelerator()
    if not accelerator.is_main_process:
        logging.getLogger("pengi").setLevel(logging.WARNING)  # only one process logs what is done
    try:
        with accelerator.local_main_process_first():  # the others then find the features in the cache
            setup = prepare(recipe)
    except KeyboardInterrupt:
        log.info("stopped before the first step; there is no checkpoint")
        raise
    run = Run(setup, out, accelerator)
    if resume:
        run.restore()
    try:
        return run.finish()
    except KeyboardInterrupt:
        run.journal.print(f"stopped; {run.saved_where()}")
        raise
    finally:
        accelerator.end_training()


def build_accelerator() -> Accelerator:
    """The processes and the device of this run, as set up by ``accelerate launch`` or ``torchrun``, or one process.

    Raises:
        ConfigError: if a package that training needs is not installed, or processes cannot be joined.
    """
    missing = [name for name in ("accelerate", "tensorboard", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}; {how_to_install('train')}")
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # A batch may leave whole branches without a gradient. Buffers (frozen embeddings) are equal in all processes.
    joined = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    # Without a GPU accelerate joins processes only with cpu=True.
    on_cpu = not torch.accelerator.is_available()
    # Precision is the recipe's, see Run.precision.
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[joined])
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:  # each would train alone, and all would write the same files
        raise ConfigError(f"{started} processes were started, but accelerate joins {accelerator.num_processes} of them")
    return accelerator


class Run:
    """Optimiser, step counter, log and checkpoints of one training run.

    Args:
        setup: model and data.
        out: folder of the run.
        accelerator: the processes that share the run.
    """

    def __init__(self, setup: Setup, out: Path, accelerator: Accelerator | None = None) -> None:
        self.setup = setup
        self.out = out
        self.settings = setup.recipe.training
        self.accelerator = accelerator or build_accelerator()
        self.step = 0
        self.seconds = 0.0
        self.best: dict[str, float] | None = None
        self.recent: deque[float] = deque(maxlen=self.settings.log_every)
        self.stop = StopRequest()
        self.stopping = False
        """Whether this process or another one was asked to stop."""
        self.saved: str | None = None
        """The step of the last checkpoint, in words."""
        self.journal = Journal(out if self.is_main else None)
        device = self.accelerator.device
        if device.type == "cpu":
            setup.model.language_model.attend_unfused()
        self.model = setup.model.to(device)
        self.trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        settings, rate = self.settings, self.settings.mapper_learning_rate
        rates: dict[ParameterKind, float] = {
            "mapper": rate,
            "encoder": rate if settings.encoder_learning_rate is None else settings.encoder_learning_rate,
            "language_model": settings.language_model_learning_rate or rate,
        }
        self.optimizer = build_optimizer(self.trained, rates, settings.weight_decay)
        # This raises before the first step if a batch cannot be shared.
        share_of(settings.batch_size, self.process, self.processes)
        self.joined: Any = self.accelerator.prepare(self.model)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that logs and saves."""
        return bool(self.accelerator.is_main_process)

    @property
    def process(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def processes(self) -> int:
        return int(self.accelerator.num_processes)

    def finish(self) -> Path:
        """Train to the last step, then write the finished checkpoint and the report.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
        """
        with self.journal, self.stop, closing(self._batches()) as batches:
            for measured in self._steps(batches):
                if self.step % self.settings.log_every == 0 or self.step == self.settings.max_steps:
                    self.journal.log(measured)
                last = self.step == self.settings.max_steps
                if self.setup.validation and (last or self.step % self.settings.eval_every == 0):
                    self.validate()
                if last or self.step % self.settings.save_every == 0:
                    self.save()
            if self.is_main:
                self.journal.print("writing the report")
                self._report()
        self.accelerator.wait_for_everyone()
        return self.out

    def _report(self) -> None:
        rows = {
            "device": str(self.accelerator.device),
            "processes": str(self.processes),
            "hours": f"{self.seconds / 3600:.2f}",
        }
        labels = self.setup.label_report.lines() if self.setup.label_report is not None else []
        write_report(
            self.out, self.setup.recipe.name, rows, self.journal.history, self.journal.samples, self.best, labels
        )

    def _steps(self, batches: Iterable[tuple[TrainingBatch, Live | None]]) -> Iterator[dict[str, float]]:
        """Make the remaining steps; yields the measurements of each."""
        steps = self.settings.max_steps
        started, start_step, examples = time.monotonic(), self.step, 0
        before = self.seconds
        self.journal.start_bar(self.step, steps)
        for drawn, live in batches:
            loss = self.update(drawn, live)
            self.recent.append(loss)
            elapsed = time.monotonic() - started
            self.seconds = before + elapsed
            examples += len(drawn.batch.prompts)
            pace, rate = elapsed / (self.step - start_step), examples / elapsed
            self.journal.advance(self.step, loss, rate)
            yield {
                "step": self.step,
                "loss": sum(self.recent) / len(self.recent),
                "lr": max(group["lr"] for group in self.optimizer.param_groups),
                "seconds_per_step": round(pace, 4),
                "examples_per_second": round(rate, 2),
                "minutes_left": round(pace * (steps - self.step) / 60, 1),
            }
            if self.stopping and self.step < steps:
                self.save()
                raise KeyboardInterrupt
        self.journal.stop_bar()

    def _batches(self) -> Generator[tuple[TrainingBatch, Live | None]]:
        """The batches of the remaining steps, with the features of this process's clips if these are live."""
        drawn = self.setup.loader.batches(self.step, self.settings.max_steps, self._workers)
        if self.setup.live is None:
            yield from zip(drawn, repeat(None))
            return
        drawn, later = tee(drawn)
        shares = ((step, each.clips, self.process_rows(each)) for step, each in enumerate(later, self.step))
        with closing(self.setup.live.features(shares)) as features:
            yield from zip(drawn, features, strict=True)

    def update(self, drawn: TrainingBatch, live: Live | None = None) -> float:
        """One optimiser step on the batch of this step; returns the batch's mean loss before it.

        Raises:
            TrainingError: if the loss is not finite.
        """
        settings = self.settings
        rate = scheduled_rate(
            settings.schedule, self.step, settings.warmup_steps, settings.max_steps, settings.decay_steps
        )
        set_rate(self.optimizer, rate)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        rows = self.process_rows(drawn)
        batch = self.share(drawn, rows, live)
        count = len(batch.targets)
        total = float(self._summed(torch.tensor(float(count))))
        torch.manual_seed(self._share_seed(self.process))
        with self.precision():
            loss = count / total * self.joined(batch, self._augment(rows[0])).mean
        # Accelerate averages gradients over the processes, but their sum is needed.
        self.accelerator.backward(loss * self.processes)
        # All processes stop at the same step, even if the signal has reached only some of them by now.
        asked = loss.new_tensor(float(self.stop.asked))
        mean, stops = map(float, self._summed(torch.stack([loss.detach(), asked])))
        self.stopping = stops > 0
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} after step {self.step}; try a lower learning rate in another "
                f"folder ({self.saved_where()})"
            )
        nn.utils.clip_grad_norm_(list(self.trained.values()), settings.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        return mean

    def process_rows(self, drawn: TrainingBatch) -> range:
        """Indices, within the batch, of the clips of this process."""
        return share_of(len(drawn.clips), self.process, self.processes)

    def _share_seed(self, index: int) -> int:
        """Seed of the random draws of this step for one share of the batch; ``index`` is its process or first row."""
        return self.settings.seed * _SEED_STRIDE + self.step + index * _SHARE_STRIDE

    def share(self, drawn: TrainingBatch, rows: Sequence[int], live: Live | None = None) -> Batch:
        """Some clips of the batch, with their features, on the device; unreadable clips are left out."""
        chosen = choose_rows(drawn, rows)
        if live is not None:
            readable, features = live
            chosen = choose_rows(chosen, readable)
            chosen = replace(chosen, batch=replace(chosen.batch, features=features))
        return batch_on(chosen.batch, self.accelerator.device)

    def _augment(self, first_row: int) -> Augment | None:
        if not self.settings.augment.spec_augment:
            return None
        generator = torch.Generator().manual_seed(self._share_seed(first_row))
        return lambda logmel: spec_augment(logmel, generator)

    @property
    def _workers(self) -> int:
        """Number of processes that draw batches; 0 with live features, because decoding then takes most of the time."""
        return 0 if self.setup.live is not None else self.settings.num_workers

    def precision(self) -> AbstractContextManager[object]:
        """Autocast to bfloat16 if the language model is in bfloat16; trained weights and losses stay in float32."""
        if self.setup.dtype is not torch.bfloat16:
            return nullcontext()
        stack = ExitStack()
        stack.enter_context(torch.autocast(self.accelerator.device.type, torch.bfloat16))
        if self.setup.model.config.language_model.lora is not None:
            from peft.helpers import disable_input_dtype_casting

            # Otherwise peft casts the adapters' inputs to float32, and autocast casts them back.
            stack.enter_context(disable_input_dtype_casting(self.setup.model.language_model.model))
        return stack

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        summed: Tensor = self.accelerator.reduce(values.to(self.accelerator.device), "sum")
        return summed.cpu()

    def validate(self) -> None:
        """Measure on held-out clips, log samples, and save the weights if they are the best so far."""
        self.journal.print(f"validating: {sum(len(drawn.clips) for drawn in self.setup.validation)} clips")
        loss = self.validation_loss()
        if self.is_main:
            self.journal.log({"step": self.step, "val_loss": loss})
            for sample in self._answers():
                self.journal.keep_sample(sample)
        if self.best is None or loss < self.best["val_loss"]:
            self.best = {"step": self.step, "val_loss": loss}
            if self.is_main:
                self._write_checkpoint(self.out / BEST_FOLDER)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over the held-out pairs; there must be at least one."""
        model = self.model.eval()
        summed = torch.zeros(2, device=self.accelerator.device)
        for drawn in self.setup.validation[self.process :: self.processes]:
            pairs = len(drawn.batch.targets)
            loss = model(batch_on(drawn.batch, self.accelerator.device)).mean
            summed += torch.stack([pairs * loss, loss.new_tensor(pairs)])
        total, count = self._summed(summed).unbind()
        return float(total / count)

    @torch.inference_mode()
    def _answers(self) -> list[Sample]:
        """The answers to the first held-out questions."""
        model = self.setup.model.eval()
        found: list[Sample] = []
        for drawn in self.setup.validation:
            left = min(self.settings.eval_samples - len(found), len(drawn.clips))
            if left <= 0:
                break
            chosen = choose_rows(drawn, range(left))
            batch = batch_on(chosen.batch, self.accelerator.device)
            tokens = [(values[batch.clip_E], mask[batch.clip_E]) for values, mask in model.audio_tokens(batch.features)]
            evidence = None if batch.evidence is None else [batch.evidence[row] for row in batch.clip_E.tolist()]
            prefix = model.prefix(tokens, model.text_prefix(batch.prompts), evidence)
            beams = generate(model.language_model, *prefix, SAMPLE_OPTIONS)
            for example, (pair, (best, *_)) in enumerate(zip(chosen.pairs, beams, strict=True)):
                clip = chosen.clips[int(batch.clip_E[example])]
                answer = model.language_model.decode(best.tokens).strip()
                found.append(Sample(self.step, clip.id, pair.prompt, pair.target, answer))
        return found

    def _write_checkpoint(self, folder: Path) -> None:
        card = model_card(
            self.setup.recipe, self.setup.model.config, self.setup.train_clips, self.step, self.journal.history
        )
        checkpoint.save(self.setup.model, folder, card=card, dtype=torch.float16)

    def save(self) -> None:
        """Write the checkpoint, and one file with the state to resume from."""
        step = self._step_in_words
        if not self.is_main or step == self.saved:
            return
        self.journal.print(f"saving {step} in '{self.out}'")
        self._write_checkpoint(self.out)
        state: dict[str, Any] = {
            "recipe": self.setup.recipe.model_dump_json(),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "recent": list(self.recent),
            "history": self.journal.history,
            "samples": [asdict(sample) for sample in self.journal.samples],
            "trained": {name: value.detach() for name, value in self.trained.items()},
            "buffers": self._buffers(),
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(self.out / STATE_FILE) as partial, partial.open("wb") as file:
            torch.save(state, file)  # an open file, because torch does not say why it cannot write to a path
        self.saved = step

    @property
    def _step_in_words(self) -> str:
        return f"step {self.step} of {self.settings.max_steps}"

    def saved_where(self) -> str:
        """A sentence: which step is saved, and how to resume from it."""
        if self.saved is None:
            return "there is no checkpoint yet"
        return f"{self.saved} is saved in '{self.out}'; run the same command with --resume to continue"

    def _buffers(self) -> dict[str, Tensor]:
        """Other tensors of a checkpoint than the trained weights: the fitted tagger, running statistics of norms."""
        stored = checkpoint.stored_tensors(self.setup.model)
        return {name: value for name, value in stored.items() if name not in self.trained}

    def restore(self) -> None:
        """Resume from the last checkpoint, if there is one.

        Raises:
            ConfigError: if it belongs to another recipe, or to data with other tags.
        """
        state = read_state(self.out, self.setup.recipe, self.accelerator.device)
        if state is None:
            self.journal.print(f"there is no checkpoint in '{self.out}' yet; training starts from the beginning")
            return
        tagger = self.setup.model.tagger
        if tagger is not None and Vocabulary.read(self.out) != tagger.vocabulary:
            raise ConfigError(
                f"the run in '{self.out}' was started with clips or labels that give other tags; choose another "
                "folder with --out"
            )
        with torch.no_grad():
            for name, value in state["trained"].items():
                self.trained[name].copy_(value)
            for name, value in self._buffers().items():
                value.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.recent.extend(state["recent"])
        self.journal.history = state["history"]
        self.journal.samples = [Sample(**sample) for sample in state["samples"]]
        self.saved = self._step_in_words
        self.journal.print(f"continuing from {self.saved}")
