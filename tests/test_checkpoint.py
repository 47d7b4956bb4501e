"""Checkpoints: what is stored, what comes back, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import CHAT, MAPPER, SENTENCE_TEXT, model_values, noise, ragged, tiny_model
from pengi import checkpoint, weights
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.config import ModelConfig
from pengi.errors import CheckpointError, ConfigError, PengiError, WeightsError
from pengi.model import PengiModel

BRANCH = {"encoder": "yamnet-tiny-random", "frozen_layers": 2, "mapper": MAPPER}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint of the tiny model, whose trained parts are not what a fresh one has."""
    model = tiny_model()
    with torch.no_grad():
        for value in checkpoint.stored_tensors(model).values():
            value.add_(0.01)
    checkpoint.save(model, tmp_path / "tiny", card="# tiny\n")
    return tmp_path / "tiny"


def prefix(model: PengiModel) -> Tensor:
    tokens = model.audio_tokens([branch.encoder.features(*ragged([noise(1.0)])) for branch in model.branches.values()])
    return model.prefix(tokens, model.text_prefix(["this is a sound of"]))[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text": SENTENCE_TEXT},
        {"audio": {"one": BRANCH, "other": {**BRANCH, "trained": False}}},
        {"audio": {"one": {**BRANCH, "mapper": {"kind": "transformer", "heads": 4, "tokens": 3, "input": "pooled"}}}},
        {"audio": {"one": BRANCH, "other": {"encoder": "yamnet-tiny-random", "trained": False}}},
    ],
    ids=["plain", "text encoder", "frozen branch", "paper's mapper", "branch without a mapper"],
)
def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = tiny_model(**changes)
    with torch.no_grad():
        for value in checkpoint.stored_tensors(model).values():
            value.add_(torch.randn_like(value) * 0.01)
    checkpoint.save(model, tmp_path / "new" / "folder", card="# A card\n")
    again = checkpoint.load(tmp_path / "new" / "folder")
    assert again.config == model.config
    assert not again.training
    assert torch.equal(prefix(again), prefix(model))
    assert (tmp_path / "new/folder/README.md").read_text(encoding="utf-8") == "# A card\n"


def test_a_tagger_comes_back_with_its_vocabulary(tmp_path: Path) -> None:
    model = tiny_model(**CHAT)
    tags = (Tag("dog barking", "sound", ("a barking dog",), "Bark"), Tag("harp", "instrument"))
    model.set_vocabulary(Vocabulary(tags))
    assert model.tagger is not None
    with torch.no_grad():
        model.tagger.head.bias.fill_(0.5)
    checkpoint.save(model, tmp_path, card="")
    before = checkpoint.model_hash(tmp_path)
    again = checkpoint.load(tmp_path)
    assert again.tagger is not None
    assert again.tagger.vocabulary.tags == tags
    tokens = model.audio_tokens([branch.encoder.features(*ragged([noise(1.0)])) for branch in model.branches.values()])
    for found, expected in zip(again.tag_scores(tokens), model.tag_scores(tokens), strict=True):
        assert torch.equal(found, expected)
    file = tmp_path / "vocabulary.json"
    file.write_text(file.read_text(encoding="utf-8").replace("harp", "lute"), encoding="utf-8")
    assert checkpoint.model_hash(tmp_path) != before
    file.unlink()
    with pytest.raises(ConfigError, match=r"vocabulary\.json"):
        checkpoint.load(tmp_path)
    with pytest.raises(ConfigError, match="the configuration of 'tiny' has no tagger"):
        tiny_model().set_vocabulary(Vocabulary(tags))


def test_only_what_is_trained_is_stored(tmp_path: Path) -> None:
    model = tiny_model(audio={"one": BRANCH, "other": {**BRANCH, "trained": False}}, text=SENTENCE_TEXT)
    checkpoint.save(model, tmp_path, card="")
    names = set(load_file(tmp_path / "model.safetensors"))
    parts = {".".join(name.split(".")[:3]) if name.startswith("audio") else name.split(".")[0] for name in names}
    assert parts == {"audio.0.encoder", "audio.0.mapper", "audio.1.mapper", "text_mapper"}
    # An encoder is stored whole, its frozen first layers too: it needs no other file.
    assert {f"audio.0.encoder.conv.{layer}.weight" for layer in range(7)} <= names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_half_precision_is_read_back_as_float32(tmp_path: Path) -> None:
    model = tiny_model()
    checkpoint.save(model, tmp_path, card="", dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    again = checkpoint.stored_tensors(checkpoint.load(tmp_path))
    for name, value in checkpoint.stored_tensors(model).items():
        assert torch.equal(again[name], value.half().float())


def test_saving_again_replaces_the_files(folder: Path) -> None:
    model = checkpoint.load(folder)
    with torch.no_grad():
        next(model.text_mapper.parameters()).fill_(7.0)
    checkpoint.save(model, folder, card="# second\n")
    assert bool((next(checkpoint.load(folder).text_mapper.parameters()) == 7.0).all())


def edit_tensors(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def edit_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        change(values)
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")

    return damage


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


CONSTANTS = "text_mapper.constants.value_CD"
DAMAGES: dict[str, tuple[Callable[[Path], Any], type[PengiError], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), CheckpointError, "has no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), ConfigError, "no configuration at"),
    "cut off": (truncate, CheckpointError, "is not a readable safetensors file"),
    "a pickle": (
        lambda f: torch.save({"a": torch.ones(1)}, f / "model.safetensors"), CheckpointError, "is not a readable",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), CheckpointError, "is not a readable"),
    "missing tensor": (
        edit_tensors(lambda tensors: tensors.pop(CONSTANTS)), CheckpointError,
        rf"lacks '{CONSTANTS}' \(1 missing, 0 unknown tensors\)",
    ),
    "extra tensor": (
        edit_tensors(lambda tensors: tensors.update(surprise=torch.ones(2))), CheckpointError,
        r"has 'surprise', which its configuration does not explain \(0 missing, 1 unknown tensors\)",
    ),
    "wrong shape": (
        edit_tensors(lambda tensors: tensors.update({CONSTANTS: torch.ones(1, 5)})), CheckpointError,
        rf"tensor '{CONSTANTS}' has shape \[1, 5\] instead of \[1, 32\]",
    ),
    "not a number": (
        edit_tensors(lambda tensors: tensors[CONSTANTS].fill_(torch.nan)), CheckpointError,
        rf"tensor '{CONSTANTS}' holds values that are not finite",
    ),
    "bad json": (lambda f: (f / "config.json").write_text("{'a': 1}"), ConfigError, "is not valid JSON"),
    "unknown key": (
        edit_config(lambda values: values.update(langage_model={})), ConfigError,
        "unknown key 'langage_model'; did you mean 'language_model'",
    ),
    "unknown encoder": (
        edit_config(lambda values: values["audio"]["yamnet"].update(encoder="yamnett")), ConfigError,
        "there is no audio encoder 'yamnett'; did you mean 'yamnet'",
    ),
    "unknown language model": (
        edit_config(lambda values: values["language_model"].update(name="smollm3")), WeightsError,
        "there is no model named 'smollm3'",
    ),
    "impossible mapper": (
        edit_config(lambda values: values["audio"]["yamnet"]["mapper"].update(heads=7)), ConfigError,
        "7 attention heads do not divide",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(folder: Path, damage: str) -> None:
    harm, error, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(error, match=message) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder at"):
        checkpoint.load(tmp_path / "nowhere")


def test_frozen_parts_are_recorded_and_another_version_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a stand-in for the real sentence encoder: only its name and its hash matter here."""
    digest = {"all-minilm-l6-v2": "aa"}
    monkeypatch.setattr(weights, "resolve", lambda name: tmp_path)
    monkeypatch.setattr(weights, "provenance", lambda name: {"weights_sha256": digest[name]})
    monkeypatch.setattr(checkpoint.SentenceEncoder, "from_folder", lambda folder: checkpoint.SentenceEncoder.tiny())
    text = {**SENTENCE_TEXT, "encoder": "all-minilm-l6-v2"}
    model = checkpoint.create(ModelConfig.parse(model_values(text=text), "test"))
    assert model.config.frozen_sha256 == digest
    checkpoint.save(model, tmp_path / "saved", card="")
    with caplog.at_level(logging.WARNING):
        checkpoint.load(tmp_path / "saved")
        assert caplog.text == ""
        digest["all-minilm-l6-v2"] = "bb"
        checkpoint.load(tmp_path / "saved")
    assert "'all-minilm-l6-v2' is not the version that" in caplog.text


def test_a_damaged_file_of_a_part_is_named(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    save_file({"weight": torch.zeros(1)}, part / "model.safetensors")
    (part / "tokenizer.json").write_text("{}")
    (part / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(CheckpointError, match=f"^'{part}/config.json' is damaged: it cannot be read"):
        tiny_model(language_model={"name": str(part)})


def test_weights_that_are_no_weights_are_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(99)}, file)
    assert weights.unreadable(file) is None
    for content in (file.read_bytes()[:-1], b"", b"garbage" * 99):
        file.write_bytes(content)
        assert str(weights.unreadable(file)).startswith("it cannot be read (")
