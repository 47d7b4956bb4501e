"""Training from end to end on a toy problem: it learns, it stops and goes on, and it leaves an honest card."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import RATE, noise, tone
from pengi import Pengi, weights
from pengi.errors import ConfigError, ManifestError
from pengi.training import loop, train
from pengi.training.card import model_card
from pengi.training.loop import LOG_FILE, Run, prepare
from pengi.training.recipe import read_recipe

YAMNET = weights.cached("yamnet")
ROOT = Path(__file__).resolve().parents[2]


def log_of(folder: Path, key: str) -> dict[int, float]:
    """What was logged under a key, by step; of a step that was made twice the later."""
    entries = [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    return {entry["step"]: entry[key] for entry in entries if key in entry}


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of every single step is logged."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


def test_the_tiny_recipe_trains_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = train(Path("recipes/tiny.yaml"), out=tmp_path / "run")
    pengi = Pengi.from_pretrained(folder, device="cpu")
    assert pengi.model.config.name == "pengi-tiny"
    assert pengi.describe((tone(1.0), RATE)).events
    assert all(math.isfinite(loss) for loss in log_of(folder, "val_loss").values())


def test_it_learns_what_it_hears(recipe: Path, tmp_path: Path, every_step: None) -> None:
    """The loss falls, and of hums and hisses it was not trained on each is named so more likely than the other is."""
    overrides = ["training.steps=160", "training.validate_every=80", "training.clips=8", "training.mapper_lr=0.03"]
    setup = prepare(read_recipe(recipe, overrides))
    run = Run(setup, tmp_path / "run")
    (tmp_path / "run").mkdir()
    before = run.validation_loss()
    run.finish()
    losses = log_of(tmp_path / "run", "loss")
    assert sorted(losses) == list(range(1, 161))
    first, last = (sum(losses[step] for step in steps) / 10 for steps in (range(1, 11), range(151, 161)))
    assert last < 0.85 * first
    assert run.validation_loss() < 0.85 * before
    pengi = Pengi.from_pretrained(tmp_path / "run", device="cpu")
    hums = [(tone(0.5, hertz, 0.5), RATE) for hertz in (205.0, 255.0, 305.0)]
    hisses = [(noise(0.5, seed, 0.3), RATE) for seed in (101, 102, 103)]
    shares = [
        {score.label: score.probability for score in answer.scores}["hiss"]
        for answer in pengi.classify(hums + hisses, ["hum", "hiss"])
    ]
    assert min(shares[3:]) > max(shares[:3]) + 0.1


def interrupted(recipe: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until ``after`` steps are made, then lose the process."""
    update = Run.update

    def until(run: Run) -> float:
        if run.step == after:
            raise KeyboardInterrupt
        return update(run)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "update", until)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out)


@pytest.mark.parametrize("after", [0, 2, 3, 5])
def test_a_resumed_run_repeats_an_uninterrupted_one(
    recipe: Path, tmp_path: Path, every_step: None, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Before the first checkpoint of the training (the warm start is saved by then), at one, and between two."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, out=whole)
    interrupted(recipe, parts, after, monkeypatch)
    assert train(recipe, resume=True, out=parts) == parts
    assert log_of(parts, "loss") == log_of(whole, "loss")
    assert log_of(parts, "val_loss") == log_of(whole, "val_loss")
    tensors = load_file(whole / "model.safetensors")
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(parts / "model.safetensors").items())
    alignment = [line for line in (parts / LOG_FILE).read_text(encoding="utf-8").splitlines() if "alignment" in line]
    assert len(alignment) == 4


def test_resuming_without_a_checkpoint_starts(recipe: Path, tmp_path: Path) -> None:
    train(recipe, ["training.steps=1"], resume=True, out=tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_run_goes_on_with_its_own_settings_only(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe, ["training.steps=2"], out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match="belongs to a run with other settings; choose another folder with --out"):
        train(recipe, ["training.steps=3"], resume=True, out=out)
    with pytest.raises(ConfigError, match="holds a run already; go on with --resume or choose another folder"):
        train(recipe, ["training.steps=2"], out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert train(recipe, ["training.steps=2"], resume=True, out=out) == out


def test_a_recipe_that_cannot_start_leaves_no_folder(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for override, error in (("data.manifest=none.jsonl", ManifestError), ("model.audio.0.encoder=yam", ConfigError)):
        with pytest.raises(error):
            train(recipe, [override], out=out)
    with pytest.raises(ManifestError, match="has no clip to train on in split 'heldout'"):
        train(recipe, ["data.train_split=heldout"], out=out)
    with pytest.raises(ConfigError, match=r"data\.class_directions needs yamnet as the first audio encoder"):
        train(recipe, ["data.class_directions=0.5"], out=out)
    assert not out.exists()


def test_only_mappers_and_trained_layers_move(recipe: Path, tmp_path: Path) -> None:
    setup = prepare(read_recipe(recipe, ["data.ship_only=true"]))
    before = {name: value.clone() for name, value in setup.model.state_dict().items()}
    Run(setup, tmp_path).update()
    moved = {name for name, value in setup.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 2)[0] for name in moved if ".conv." in name} == {"audio.0.encoder.conv"}
    assert not any(f".conv.{layer}." in name for layer in (0, 1) for name in moved)
    assert all(f"audio.0.encoder.conv.{layer}.weight" in moved for layer in range(2, 7))
    assert not any(name.startswith("language_model") for name in moved)
    assert any(name.startswith("text_mapper") for name in moved)
    assert any(name.startswith("audio.0.mapper") for name in moved)


def test_rates_warm_up_and_fall_to_zero(recipe: Path, tmp_path: Path) -> None:
    run = Run(prepare(read_recipe(recipe, ["training.steps=10", "training.warmup_steps=4"])), tmp_path)
    rates = [run._rate(step) for step in range(11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[7] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    groups = {(group["lr"], group["weight_decay"]) for group in run.optimizer.param_groups}
    scale = rates[0]
    assert groups == {(rate * scale, decay) for rate in (0.01, 0.001) for decay in (0.0, 0.05)}


def test_clips_that_must_not_be_shipped_are_not_trained_on(recipe: Path) -> None:
    for ship_only, count in ((True, 14), (False, 16)):
        setup = prepare(read_recipe(recipe, [f"data.ship_only={str(ship_only).lower()}"]))
        assert len(setup.train_clips) == len(setup.loader.clips) == count
        drawn = {clip.id for step in range(60) for clip in setup.loader.batch(step).clips}
        assert ({"hum-0", "hiss-1"} <= drawn) is not ship_only
        assert len(drawn) == count
        validated = [clip for batch in setup.validation for clip in batch.clips]
        assert {clip.split for clip in validated} == {"val"}
        assert len(validated) == 8


def test_a_run_without_held_out_clips(recipe: Path, tmp_path: Path) -> None:
    out = train(recipe, ["data.val_split=heldout", "training.steps=2"], out=tmp_path / "run")
    assert log_of(out, "val_loss") == {}
    for line in (out / LOG_FILE).read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert "- not validated yet" in (out / "README.md").read_text(encoding="utf-8")


def test_the_card_tells_what_was_trained_on(recipe: Path, tmp_path: Path) -> None:
    out = train(recipe, ["data.ship_only=true", "training.steps=2"], out=tmp_path / "run")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# toy\n")
    assert "14 clips of split `train`" in card
    assert "| field-0 | 5 | CC-BY-4.0, CC0-1.0 |" in card
    assert "| field-1 | 4 |" in card
    assert "| field-2 | 5 |" in card
    assert "yamnet-tiny-random (trained from layer 2 on)" in card
    assert "2 of 2 steps, 4 clips with up to 2 questions each" in card
    assert f"loss per token on held-out clips: {log_of(out, 'val_loss')[2]:.3f}" in card
    setup = prepare(read_recipe(recipe))
    frozen = setup.recipe.model.model_copy(
        update={"audio": (setup.recipe.model.audio[0].model_copy(update={"trained": False}),)}
    )
    recipe_of_frozen = setup.recipe.model_copy(update={"model": frozen})
    assert "yamnet-tiny-random (frozen)" in model_card(recipe_of_frozen, setup.train_clips, 0, [])


def test_reduced_precision_trains_too(recipe: Path, tmp_path: Path) -> None:
    out = train(recipe, ["training.language_model_dtype=bfloat16", "training.steps=3"], out=tmp_path / "run")
    assert all(math.isfinite(value) for value in log_of(out, "val_loss").values())
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {torch.float16}


@pytest.mark.skipif(YAMNET is None, reason="YAMNet's weights are not on this machine (pengi pull yamnet)")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tags_and_class_directions_of_yamnet(
    recipe: Path, tmp_path: Path, pengi_home: Path, every_step: None, precision: str
) -> None:
    assert YAMNET is not None
    (pengi_home / "weights").mkdir(parents=True)
    (pengi_home / "weights" / YAMNET.name).symlink_to(YAMNET)
    overrides: Sequence[str] = [
        "model.audio=[{encoder: yamnet, frozen_layers: 23, mapper: {kind: transformer, constants: 4, layers: 1}}]",
        "data.audioset_tags=true",
        "data.class_directions=0.5",
        "training.steps=2",
        f"training.language_model_dtype={precision}",
    ]
    parsed = read_recipe(recipe, overrides)
    setup = prepare(parsed)
    assert setup.directions is not None
    tasks: dict[str, set[str]] = {}
    moved = 0
    for step in range(40):
        drawn = setup.loader.batch(step)
        moved += sum(index is not None for index in drawn.moved_to)
        for pair in drawn.pairs:
            tasks.setdefault(pair.task, set()).add(pair.target)
    assert moved == pytest.approx(80, abs=30)
    assert any(target.startswith("tags: ") for target in tasks["metadata"])
    assert len(tasks["events"]) > 20
    denied = {pair.prompt for step in range(40) for pair in setup.loader.batch(step).pairs if pair.target == "no"}
    absent = [prompt for prompt in denied if "speech" not in prompt and "speaking" not in prompt]
    assert absent
    assert all("hum" in prompt or "hiss" in prompt for prompt in absent)
    out = train(recipe, overrides, out=tmp_path / "run")
    assert all(math.isfinite(value) for value in log_of(out, "loss").values())


def test_a_second_branch_trains_beside_the_first(recipe: Path, tmp_path: Path) -> None:
    values: Any = [
        "model.audio=[{encoder: yamnet-tiny-random, mapper: &m {kind: mlp, hidden: 8, constants: 2}},"
        " {encoder: yamnet-tiny-random, trained: false, mapper: *m}]",
        "alignment.aspects=[[event], [kind]]",
        "training.branch_dropout=0.5",
        "training.steps=2",
    ]
    setup = prepare(read_recipe(recipe, values))
    assert len(setup.loader.caches) == 2
    run = Run(replace(setup, validation=[]), tmp_path)
    run.align()
    assert math.isfinite(run.update())
