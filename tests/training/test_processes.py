"""Training as users run it: in processes that are killed, and in several that share a batch."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import log_of, same_weights
from pengi.errors import ConfigError
from pengi.training import train

TIMEOUT_S = 600


def arguments(recipe: Path, out: Path, overrides: list[str]) -> list[str]:
    return ["train", str(recipe), "--out", str(out), *(part for value in overrides for part in ("--set", value))]


def test_a_killed_run_is_resumed_without_any_difference(recipe: Path, tmp_path: Path) -> None:
    """``kill -9`` at a random step of a process, then ``--resume``: the losses of an uninterrupted run."""
    overrides = ["training.max_steps=12", "training.save_every=2"]
    lines_before_the_end = random.SystemRandom().randint(2, 12)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "pengi", *arguments(recipe, killed, overrides)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    with_losses = (line for line in process.stderr if "loss" in line)
    assert len(list(islice(with_losses, lines_before_the_end))) == lines_before_the_end
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -9
    assert not (killed / "report.md").exists()
    train(recipe, overrides, resume=True, out=killed)
    whole = train(recipe, overrides, out=tmp_path / "whole")
    for key in ("loss", "val_loss"):
        assert log_of(killed, key) == log_of(whole, key), f"killed after {lines_before_the_end} lines"
    assert same_weights(whole, killed)


def test_two_processes_make_the_steps_of_one(recipe: Path, tmp_path: Path) -> None:
    """Two processes on gloo share each batch; without dropout of units nothing differs but rounding."""
    overrides = ["model.audio.yamnet.mapper.dropout=0", "training.batch_size=5"]
    shared = tmp_path / "shared"
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pengi"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *arguments(recipe, shared, overrides)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| processes | 2 |" in (shared / "report.md").read_text(encoding="utf-8")
    alone = train(recipe, overrides, out=tmp_path / "alone")
    for key in ("loss", "val_loss"):
        assert log_of(shared, key) == pytest.approx(log_of(alone, key), rel=1e-4)
    tensors = load_file(alone / "model.safetensors")
    for name, value in load_file(shared / "model.safetensors").items():
        torch.testing.assert_close(value.float(), tensors[name].float(), rtol=1e-2, atol=2e-3)


def test_processes_that_are_not_joined_do_not_start(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes were started, but accelerate joins 1 of them"):
        train(recipe)
