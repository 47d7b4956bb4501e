"""Fine-tuning a trained model on data in the formats that users have."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers import RATE, noise, ragged, tone
from helpers.training import log_of, write_recipe
from pengi import Pengi, checkpoint
from pengi.errors import CheckpointError, WeightsError
from pengi.model import PengiModel
from pengi.training import train
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare

LORA = "model.language_model={name: tiny-random, lora: {rank: 2, alpha: 4}}"


@pytest.fixture
def base(recipe: Path, tmp_path: Path) -> Path:
    """A checkpoint to fine-tune."""
    return train(recipe, ["training.max_steps=2"], out=tmp_path / "base")


@pytest.fixture
def tuning(recipe: Path, base: Path, tmp_path: Path) -> Path:
    """A recipe that fine-tunes it."""
    values: Any = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    del values["model"]
    values["finetune"] = {"checkpoint": str(base), "name": "mine"}
    return write_recipe(tmp_path / "finetune.yaml", values)


def prefix(model: PengiModel) -> torch.Tensor:
    tokens = model.audio_tokens([branch.encoder.features(*ragged([noise(1.0)])) for branch in model.branches.values()])
    return model.prefix(tokens, model.text_prefix(["this is a sound of"]))[0]


def test_finetuning_starts_from_the_weights_of_the_checkpoint(tuning: Path, base: Path, tmp_path: Path) -> None:
    model = prepare(read_recipe(tuning)).model
    assert torch.equal(prefix(model.eval()), prefix(checkpoint.load(base)))
    assert model.config.name == "mine"
    out = train(tuning, out=tmp_path / "mine")
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".mapper." in name for name in moved)
    assert not any(f".conv.{layer}." in name for name in moved for layer in (0, 1))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# mine\n")
    assert f"- fine-tuned from: {base}" in card
    assert Pengi.from_pretrained(out, device="cpu").describe((tone(1.0), RATE)).duration_s == 1.0


def test_a_folder_of_labels(tuning: Path, toy: Path, tmp_path: Path) -> None:
    """Recordings in one folder for each label are enough: some are held out."""
    folder = tmp_path / "sounds"
    for clip in sorted(toy.glob("*.wav")):
        label = folder / clip.name.split("-")[0]
        label.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, label / clip.name)
    overrides = [f"data.manifest={folder}", "data.labels=null"]
    setup = prepare(read_recipe(tuning, overrides))
    assert {clip.events for clip in setup.train_clips} == {("hum",), ("hiss",)}
    assert len(setup.train_clips) == 20
    assert sum(len(batch.clips) for batch in setup.validation) == 4
    assert log_of(train(tuning, overrides, out=tmp_path / "run"), "val_loss").keys() == {3, 6}


def test_a_csv_of_captions(tuning: Path, toy: Path, tmp_path: Path) -> None:
    rows = [f"{clip.name},a recording of a {clip.name.split('-')[0]}" for clip in sorted(toy.glob("*.wav"))]
    table = toy / "mine.csv"
    table.write_text("\n".join(["path,text", *rows]) + "\n", encoding="utf-8")
    overrides = [f"data.manifest={table}", "data.labels=null"]
    setup = prepare(read_recipe(tuning, overrides))
    targets = {pair.target for step in range(4) for pair in setup.loader.batch(step).pairs}
    assert targets == {"a recording of a hum", "a recording of a hiss"}
    assert (train(tuning, overrides, out=tmp_path / "run") / "model.safetensors").is_file()


def test_adapters_are_trained_saved_and_loaded(
    recipe: Path, tuning: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")
    model = prepare(read_recipe(recipe, [LORA])).model
    frozen = {name: value.clone() for name, value in model.language_model.state_dict().items() if ".lora_" not in name}
    ids = torch.tensor([[5, 6, 7]])
    plain = checkpoint.load(base).language_model
    hidden = plain.hidden(plain.embed(ids))
    assert torch.equal(model.language_model.hidden(model.language_model.embed(ids)), hidden)  # untrained, they add 0

    out = train(recipe, [LORA, "training.language_model_learning_rate=0.05"], out=tmp_path / "run")
    stored = load_file(out / "model.safetensors")
    adapters = {name for name in stored if ".lora_" in name}
    assert len(adapters) == 2 * 2 * 7  # A and B of 7 linear layers in each of 2 blocks
    assert all(stored[name].abs().max() > 0 for name in adapters)
    again = checkpoint.load(out, to_train=True).language_model
    for name, value in again.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value, frozen[name])
    changed = again.hidden(again.embed(ids))
    assert not torch.allclose(changed, hidden, atol=1e-3)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "peft", None)  # in use the adapters are part of the weights
        merged = checkpoint.load(out).language_model
    assert not any(".lora_" in name for name in merged.state_dict())
    torch.testing.assert_close(merged.hidden(merged.embed(ids)), changed, atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match="adapters are merged"):  # or they would be lost in silence
        checkpoint.save(checkpoint.load(out), tmp_path / "copy", card="")
    text = Pengi.from_pretrained(out, device="cpu").ask((tone(1.0), RATE), "what is it?").text
    assert text == Pengi.from_pretrained(out, device="cpu").ask((tone(1.0), RATE), "what is it?").text

    further = train(tuning, [f"finetune.checkpoint={out}"], out=tmp_path / "further")
    assert {name for name in load_file(further / "model.safetensors") if ".lora_" in name} == adapters
    assert "with adapters of rank 2 (LoRA)" in (further / "README.md").read_text(encoding="utf-8")


def test_adapters_of_a_new_model_in_reduced_precision(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")
    overrides = [LORA, "training.language_model_dtype=bfloat16"]
    model = prepare(read_recipe(recipe, overrides)).model
    trained = {name: value for name, value in model.language_model.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * 2 * 7
    assert {value.dtype for value in trained.values()} == {torch.float32}
    stored = load_file(train(recipe, overrides, out=tmp_path / "run") / "model.safetensors")
    assert sum(".lora_" in name for name in stored) == len(trained)


@pytest.mark.parametrize(
    ("checkpoint_name", "error", "message"),
    [
        ("no/such/folder", CheckpointError, "no model folder at 'no/such/folder'"),
        ("pengi-minni", WeightsError, "pengi-mini"),
    ],
)
def test_a_missing_checkpoint_is_an_error(
    tuning: Path, checkpoint_name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(read_recipe(tuning, [f"finetune.checkpoint={checkpoint_name}"]))
