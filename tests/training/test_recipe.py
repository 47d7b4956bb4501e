"""Recipes: those in the repository are right, and mistakes are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.training import write_recipe
from pengi import checkpoint
from pengi.conditioning.mapper import build_mapper
from pengi.encoders import encoder_spec
from pengi.errors import ConfigError
from pengi.official.architectures import ARCHITECTURES
from pengi.training import train
from pengi.training.recipe import RENAMED, DataConfig, Recipe, TrainingConfig, read_recipe

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def at(recipe: Recipe, path: str) -> Any:
    node: Any = recipe
    for part in path.split("."):
        node = node[int(part)] if part.isdigit() else node[part] if isinstance(node, dict) else getattr(node, part)
    return node


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_right(path: Path) -> None:
    recipe = read_recipe(path)
    for branch in recipe.model.audio.values() if recipe.model else ():
        assert encoder_spec(branch.encoder)
        if branch.mapper is not None:
            with torch.device("meta"):
                build_mapper(branch.mapper, 16, 576)
    # Without steps only tags are fitted.
    assert recipe.training.max_steps == 0 or recipe.training.warmup_steps < recipe.training.max_steps


def test_what_ships_is_trained_on_what_may_be_shipped() -> None:
    for name in ("pengi-mini", "pengi-mini-paper"):
        recipe = read_recipe(FOLDER / f"{name}.yaml")
        assert recipe.data.ship_only
        assert recipe.data.train_split == "train"


def test_there_are_recipes() -> None:
    expected = {"tiny", "pengi-mini", "pengi-mini-paper", "pengi-base", "finetune", "own-sounds"}
    assert {path.stem for path in RECIPES} == expected


def test_pengi_base_is_the_papers_model() -> None:
    """The same architecture as the authors' checkpoint, but for where its frozen parts lie."""
    model = read_recipe(FOLDER / "pengi-base.yaml").model
    expected = ARCHITECTURES["base"].model
    assert model is not None
    text = model.text.model_copy(update={"encoder": expected.text.encoder})
    language_model = model.language_model.model_copy(update={"name": expected.language_model.name})
    assert model.model_copy(update={"text": text, "language_model": language_model}) == expected


TINY_ENCODERS = {"htsat-tiny": "htsat-tiny-random"}


def made_tiny(values: dict[str, Any], manifest: Path, checkpoint: Path) -> dict[str, Any]:
    """A recipe as it is but for the size of the model, the data and the number of steps."""
    model = values.get("model", {})
    for branch in model.get("audio", {}).values():
        branch["encoder"] = TINY_ENCODERS.get(branch["encoder"], "yamnet-tiny-random")
        branch["frozen_layers"] = min(branch.get("frozen_layers", 0), 2)
    if model:
        for part in (*model["audio"].values(), model["text"]):
            if "width" in (mapper := part.get("mapper", {})):
                part["mapper"] = mapper | {"width": 4 * mapper["heads"]}
            if "projection" in part:
                part["projection"] |= {"width": 16, "inner": None}
        model["text"]["encoder"] = "tiny-random" if model["text"].get("encoder") else None
        model["language_model"]["name"] = "tiny-random"
        if "lora" in model["language_model"]:
            model["language_model"]["lora"]["top_layers"] = 1
    else:
        values["finetune"]["checkpoint"] = str(checkpoint)
    small = {"mixture": None, "manifest": str(manifest), "labels": None, "train_split": "train"}
    values["data"] |= small | {"attributes": {}}
    if "scenes" in values["data"]:
        values["data"]["scenes"] |= {"captions": None, "steps": 0}
    values["training"] |= {"max_steps": 1, "batch_size": 4, "warmup_steps": 0, "eval_clips": 4, "num_workers": 0}
    return values


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_makes_a_step(path: Path, toy: Path, tmp_path: Path, recipe: Path, tiny_stock: None) -> None:
    """Parsed, built with a tiny model in place of each part, its tagger fitted, stepped, saved and loaded."""
    checkpoint_folder = tmp_path / "start"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "finetune" in values:
        train(recipe, ["training.max_steps=1"], out=checkpoint_folder)
    values = made_tiny(values, toy / "manifest.jsonl", checkpoint_folder)
    out = train(write_recipe(tmp_path / path.name, values), out=tmp_path / "run")
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(math.isfinite(entry[key]) for entry in entries for key in ("loss", "val_loss") if key in entry)
    assert checkpoint.load(out).config.name == read_recipe(path).name
    assert (out / "curves.png").is_file()


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("training.max_steps=7", "training.max_steps", 7),
        (" training.seed =3", "training.seed", 3),
        ("training.mapper_learning_rate=1e-3", "training.mapper_learning_rate", 0.001),
        ("data.ship_only=true", "data.ship_only", True),
        ("data.labels=null", "data.labels", None),
        ("data.attributes.fsdd.language=English", "data.attributes", {"fsdd": {"language": "English"}}),
        ("model.name=other", "model.name", "other"),
        ("model.audio.yamnet.mapper.tokens=64", "model.audio.yamnet.mapper.tokens", 64),
        ("data.attributes={fsdd: {a: b}}", "data.attributes", {"fsdd": {"a": "b"}}),
        ("training.augment.crop=random", "training.augment.crop", "random"),
    ],
)
def test_overrides(recipe: Path, override: str, path: str, value: Any) -> None:
    changed = read_recipe(recipe, [override])
    assert at(changed, path) == value
    untouched = {"training.warmup_steps": 2, "data.train_split": "train", "model.text.mapper.kind": "identity"}
    assert {name: at(changed, name) for name in untouched} == untouched


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_old_name_of_an_option_is_an_error_that_names_the_new_one(recipe: Path, old: str, new: str) -> None:
    section, _, name = new.partition(".")
    assert name in {"data": DataConfig, "training": TrainingConfig}[section].model_fields
    with pytest.raises(ConfigError, match=f"'{old}' is now called '{new}'"):
        read_recipe(recipe, [f"{old}=1"])


def test_later_overrides_win(recipe: Path) -> None:
    assert read_recipe(recipe, ["training.max_steps=7", "training.max_steps=8"]).training.max_steps == 8


def test_an_override_leaves_other_places_of_a_yaml_alias_alone(tmp_path: Path) -> None:
    path = tmp_path / "alias.yaml"
    text = """
    model:
      name: two
      audio:
        yamnet: {encoder: yamnet-tiny-random, mapper: &same {kind: transformer, tokens: 8}}
        other: {encoder: yamnet-tiny-random, mapper: *same}
      text: {mapper: {kind: identity}}
      language_model: {name: tiny-random}
    data: {manifest: m.jsonl}
    training: {max_steps: 1, mapper_learning_rate: 0.1, encoder_learning_rate: 0}
    """
    path.write_text(text, encoding="utf-8")
    audio = read_recipe(path, ["model.audio.yamnet.mapper.tokens=16"]).model.audio
    assert [branch.mapper.tokens for branch in audio.values()] == [16, 8]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_stepps=3", "unknown key 'training.max_stepps'; did you mean 'max_steps'?"),
        ("training.augment.crops=random", "unknown key 'training.augment.crops'; did you mean 'crop'?"),
        ("finetune.checkpoint=x", "must have either a section 'model', for a new one, or a section 'finetune'"),
        ("model=null", "must have either a section 'model', for a new one, or a section 'finetune'"),
        ("data.manifest=null", "must have either data.manifest or data.mixture"),
        ("data.mixture.a.manifest=x", "must have either data.manifest or data.mixture"),
        ("training.max_steps=many", "'training.max_steps': input should be a valid integer"),
        ("training.max_steps=", "'training.max_steps': input should be a valid integer"),
        ("training.max_steps=0", "training.max_steps must be 1 or more for a new model"),
        ("training.max_steps", "--set takes key=value, not 'training.max_steps'"),
        ("=3", "--set takes key=value, not '=3'"),
        ("training.max_steps=[1", "--set training.max_steps: '[1' is not a YAML value"),
        ("model.audio.yamnet.mapper.depth=2", "unknown key 'model.audio.yamnet.mapper.depth'; did you mean"),
        ("model.tagger.branches=[yamnet]", "tagger.branches names 'yamnet', which is not a frozen audio branch"),
        ("model.name.first=2", "--set model.name.first: 'name' is a value, not a section"),
        ("data.train_split=training", "'data.train_split': input should be 'train', 'val', 'test' or 'heldout'"),
    ],
)
def test_wrong_overrides(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(recipe, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no recipe at"),
        ("model: [", "is not a YAML recipe"),
        ("- 1\n- 2", "must hold a mapping with model, data and training"),
        ("", "must hold a mapping with model, data and training"),
        ("modle: {}", "unknown key 'modle'; did you mean 'model'?"),
        ("model: !!python/object/apply:os.getcwd []", "is not a YAML recipe"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "some.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a YAML recipe"):
        read_recipe(tmp_path)


def test_settings_that_a_fine_tuned_model_cannot_follow_are_refused() -> None:
    with pytest.raises(ConfigError, match="one that is fine-tuned has its tagger"):
        read_recipe(FOLDER / "finetune.yaml", ["tagger.penalty.sound=0.1"])
