"""Logs a run: one JSON line for each measurement, TensorBoard, and a progress bar.

    log.jsonl       {"step": 25, "loss": 2.91, "lr": 0.0005, ...}, {"step": 500, "val_loss": 2.4}, ...
    samples.jsonl   answers to fixed held-out questions, at every validation
    tensorboard/    the same numbers

Only the first of several processes keeps a journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from pengi.progress import bar_on_stderr
from pengi.writing import append, replacing, writing

LOG_FILE, SAMPLES_FILE, TENSORBOARD_FOLDER = "log.jsonl", "samples.jsonl", "tensorboard"


@dataclass(frozen=True)
class Sample:
    """The model's answer to a question about a held-out clip at some step."""

    step: int
    clip: str
    prompt: str
    target: str
    answer: str


class Journal:
    """The log of one run.

    Args:
        folder: of the run; None keeps no journal.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.history: list[dict[str, float]] = []
        """All logged measurements. A resumed run sets them before it enters the journal; they then replace the file,
        in which a killed process may have left entries of lost steps, or half a line."""
        self.samples: list[Sample] = []
        """All logged answers; a resumed run sets them, too."""
        self._bar = bar_on_stderr(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[rate]:.1f} examples/s"),
            TimeRemainingColumn(),
        )
        self._task: TaskID | None = None
        self._board: Any = None

    def __enter__(self) -> Self:
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            _write_lines(self.folder / LOG_FILE, self.history)
            _write_lines(self.folder / SAMPLES_FILE, [asdict(sample) for sample in self.samples])
            last = max((int(entry["step"]) for entry in self.history if "step" in entry), default=-1)
            board = self.folder / TENSORBOARD_FOLDER
            self._board = SummaryWriter(str(board), purge_step=last + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_bar()
        if self._board is not None:
            self._board.close()

    def start_bar(self, done: int, total: int) -> None:
        """Print that training begins, and show a progress bar on a terminal."""
        self.print(f"training: {total - done} steps")
        if self.folder is not None:
            nan = float("nan")
            self._task = self._bar.add_task("training", total=total, completed=done, loss=nan, rate=nan)
            self._bar.start()

    def advance(self, done: int, loss: float, rate: float) -> None:
        """Move the progress bar to ``done`` steps; ``rate`` is in examples per second."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, loss=loss, rate=rate)

    def stop_bar(self) -> None:
        """Remove the progress bar."""
        self._bar.stop()

    def log(self, values: Mapping[str, float]) -> None:
        """Log the measurements of one step."""
        self.history.append(dict(values))
        if self.folder is None:
            return
        _append_line(self.folder / LOG_FILE, values)
        for name, value in values.items():
            if name != "step":
                self._board.add_scalar(name, value, values["step"])
        self._board.flush()
        self.print("  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                           for name, value in values.items()))  # fmt: skip

    def keep_sample(self, sample: Sample) -> None:
        """Log an answer."""
        self.samples.append(sample)
        if self.folder is not None:
            _append_line(self.folder / SAMPLES_FILE, asdict(sample))
            text = f"**{sample.prompt}**\n\nright: {sample.target}\n\nanswer: {sample.answer}"
            self._board.add_text(f"samples/{sample.clip}", text, sample.step)

    def print(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self.folder is not None:
            self._bar.console.print(line, soft_wrap=True)


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as partial:
        partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _append_line(path: Path, row: Mapping[str, Any]) -> None:
    append(path, (json.dumps(row, ensure_ascii=False) + "\n").encode())
