"""Recordings that are cropped anew in every step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers import MAPPER, RATE, tiny_model, write_clips
from helpers.training import log_of
from pengi.data.manifest import Clip, read_manifest
from pengi.data.tolerance import Tolerance
from pengi.errors import ConfigError, ManifestError
from pengi.training import train
from pengi.training.recipe import TrainingConfig, read_recipe
from pengi.training.setup import prepare
from pengi.training.waveforms import LiveFeatures


def curve(samples: int) -> NDArray[np.float64]:
    """A parabola: after t seconds it rises by 0.1 t of full scale a second."""
    found: NDArray[np.float64] = 0.05 * (np.arange(samples) / RATE) ** 2
    return found


@pytest.fixture
def ramps(tmp_path: Path) -> list[Clip]:
    """Clips of 2 s; their slope shows from which time a crop is, also after its mean is removed."""
    ramp = curve(2 * RATE).astype(np.float32)
    fields = {"split": "train", "domain": "environment", "events": ["ramp"]}
    return read_manifest(write_clips(tmp_path / "ramps", {f"ramp-{index}": (ramp, fields) for index in range(4)}))


def live(tmp_path: Path, max_bad_share: float = 0.0, total: int = 4) -> LiveFeatures:
    settings = TrainingConfig.parse({"max_steps": 1, "mapper_learning_rate": 1, "encoder_learning_rate": 0}, "test")
    model = tiny_model(audio={"yamnet": {"encoder": "yamnet-tiny-random", "window_s": 0.5, "mapper": MAPPER}})
    return LiveFeatures(tmp_path / "ramps", model, settings, Tolerance(max_bad_share), total)


def test_crops_are_random_and_the_same_for_a_step_and_index(tmp_path: Path, ramps: list[Clip]) -> None:
    source = live(tmp_path)
    starts_s = []
    for step in range(40):
        (samples,) = source.draw(ramps[0], step, 1).values()
        assert len(samples) == RATE // 2
        assert abs(samples.mean()) < 1e-6
        assert np.array_equal(samples, source.draw(ramps[0], step, 1)[RATE])
        assert not np.array_equal(samples, source.draw(ramps[0], step, 2)[RATE])
        starts_s.append((float(samples[800] - samples[0]) * 20 / 0.1) - 0.025)  # the slope of the first 50 ms
    assert min(starts_s) < 0.3
    assert max(starts_s) > 1.2
    assert max(starts_s) < 1.51


def test_features_of_some_clips_equal_those_in_the_whole_batch(tmp_path: Path, ramps: list[Clip]) -> None:
    source = live(tmp_path)
    steps = [(5, ramps, range(4)), (5, ramps, range(2, 4))]
    (readable, ((whole, mask),)), (_, ((part, _),)) = source.features(steps)
    assert readable == [0, 1, 2, 3]
    assert mask.all()
    assert torch.allclose(part, whole[2:], atol=1e-5)
    assert not torch.allclose(whole[0], whole[1], atol=1e-2)


def test_clips_that_cannot_be_read_are_skipped_up_to_a_share(tmp_path: Path, ramps: list[Clip]) -> None:
    for index in (1, 2, 3):
        (tmp_path / "ramps" / f"ramp-{index}.wav").write_bytes(b"RIFF, once upon a time")
    forgiving = live(tmp_path, max_bad_share=0.25)
    for readable, ((values, _),) in forgiving.features([(0, ramps, range(2))] * 2):  # the same clip counts once
        assert readable == [0]
        assert len(values) == 1
    with pytest.raises(ManifestError, match="2 of 4 clips cannot be read; the first is 'ramp-1'"):
        next(forgiving.features([(1, ramps, range(3))]))
    with pytest.raises(ManifestError, match="none of the 1 clips of a batch can be read"):
        next(live(tmp_path, max_bad_share=1.0).features([(0, ramps, [1])]))


CHANGES = ["training.augment.crop=random", "model.audio.yamnet.window_s=0.3"]


def test_a_run_with_changing_waveforms(recipe: Path, toy: Path, tmp_path: Path) -> None:
    """It trains, whatever number of threads decodes, and skips what cannot be read."""
    (toy / "hum-2.wav").write_bytes(b"RIFF, once upon a time")
    forgiving = [*CHANGES, "data.max_bad_share=0.1"]
    losses = [
        log_of(train(recipe, [*forgiving, f"training.num_workers={workers}"], out=tmp_path / str(workers)), "loss")
        for workers in (0, 3)
    ]
    assert losses[0] == losses[1]
    assert all(map(math.isfinite, losses[0].values()))
    with pytest.raises(ManifestError, match="1 of 16 clips cannot be read; the first is 'hum-2'"):
        train(recipe, [*CHANGES, "training.max_steps=30", "training.eval_every=100"], out=tmp_path / "strict")


def test_spectrograms_are_masked_where_an_encoder_reads_them(recipe: Path, tmp_path: Path) -> None:
    masks = "training.augment.spec_augment=true"
    with pytest.raises(
        ConfigError, match="spec_augment needs an audio encoder with trained: true and frozen_layers: 0"
    ):
        prepare(read_recipe(recipe, [masks]))
    whole = ["model.audio.yamnet.frozen_layers=0", "training.max_steps=1"]
    plain = log_of(train(recipe, whole, out=tmp_path / "plain"), "loss")
    masked = log_of(train(recipe, [*whole, masks], out=tmp_path / "masked"), "loss")
    assert masked != plain
