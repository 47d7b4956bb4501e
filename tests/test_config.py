"""Configurations: strict, immutable, and helpful about mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from helpers import model_values
from pengi import checkpoint
from pengi.config import ModelConfig, read_json
from pengi.errors import ConfigError
from pengi.weights import ASSETS


def broken(path: str, value: Any) -> dict[str, Any]:
    """Model values with one entry, named as in ``audio.yamnet.pool``, set."""
    values = json.loads(json.dumps(model_values()))
    node: Any = values
    *parents, last = path.split(".")
    for part in parents:
        node = node[part]
    node[last] = value
    return values


def test_a_configuration_survives_the_way_through_json(tmp_path: Path) -> None:
    config = ModelConfig.parse(model_values(frozen_sha256={"part": "00ff"}), "test")
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    assert read_json(ModelConfig, path) == config


def test_a_configuration_is_written_without_its_defaults(tmp_path: Path) -> None:
    values = model_values(text={"mapper": {"kind": "identity", "constants": 0}})
    checkpoint.save(checkpoint.create(ModelConfig.parse(values, "test")), tmp_path, card="")
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert written == {**values, "text": {"mapper": {"kind": "identity"}}}


def test_the_configuration_of_the_packaged_model_is_short_and_names_its_branches() -> None:
    path = ASSETS / "pengi-mini" / "config.json"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300
    config = read_json(ModelConfig, path)
    assert list(config.audio) == ["yamnet", "whisper"]
    assert config.tagger is not None
    assert config.tagger.branches == ("yamnet", "whisper")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        ModelConfig.parse(model_values(), "test").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("langauge_model", "unknown key 'langauge_model'; did you mean 'language_model'?"),
        ("audio.yamnet.frozen_layer", "unknown key 'audio.yamnet.frozen_layer'; did you mean 'frozen_layers'?"),
        ("audio.yamnet.mapper.constant", "unknown key 'audio.yamnet.mapper.constant'; did you mean 'constants'?"),
        ("text.mapper.kynd", "unknown key 'text.mapper.kynd'; did you mean 'kind'?"),
    ],
)
def test_an_unknown_key_names_the_nearest(path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.parse(broken(path, 1), "my.yaml")
    assert str(caught.value) == f"my.yaml: {message}"


def test_a_misspelt_required_key_is_an_unknown_key_and_not_a_missing_one() -> None:
    values = broken("nmae", "tiny")
    del values["name"]
    with pytest.raises(ConfigError, match="unknown key 'nmae'; did you mean 'name'"):
        ModelConfig.parse(values, "test")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("audio.yamnet.pool", 0, r"'audio\.yamnet\.pool': input should be greater than or equal to 1"),
        ("audio.yamnet.window_s", -1.0, r"'audio\.yamnet\.window_s': input should be greater than 0"),
        (
            "audio.yamnet.mapper.kind",
            "perceiver",
            r"'audio\.yamnet\.mapper': input tag 'perceiver' .* expected tags: 'transformer', 'identity'",
        ),
        ("audio.yamnet.mapper.heads", 0, r"'audio\.yamnet\.mapper\.heads': input should be greater than or equal to 1"),
        ("audio", {}, "'audio': dictionary should have at least 1 item"),
        ("language_model.target_tokens", "many", r"'language_model\.target_tokens': input should be a valid integer"),
    ],
)
def test_a_wrong_value_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.parse(broken(path, value), "my.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1, 2]", "must hold one JSON object"),
        ("\xff", "is not valid JSON"),
        (None, "no configuration at"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=message) as caught:
        read_json(ModelConfig, path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_json(ModelConfig, tmp_path)


CHAT = {"name": "tiny-random", "chat": True}
FROZEN = {"encoder": "yamnet-tiny-random", "trained": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"audio": {"one": {"encoder": "yamnet-tiny-random"}}},
            "without a mapper an audio branch needs trained: false",
        ),
        ({"audio": {"one": FROZEN}}, "without language_model.chat an audio branch needs a mapper"),
        ({"tagger": {"branches": ["yamnet"]}}, "tagger.branches names 'yamnet', which is not a frozen audio branch"),
        (
            {"audio": {"one": FROZEN}, "language_model": CHAT, "tagger": {"branches": ["one", "two"]}},
            "names 'two', which is",
        ),
        ({"evidence": {}}, "it needs language_model.chat: true"),
        ({"language_model": CHAT, "text": {"encoder": "tiny-random", "mapper": {"kind": "identity"}}}, "must be null"),
    ],
)
def test_parts_that_do_not_fit_each_other(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.parse(model_values(**changes), "my.yaml")
    assert message in str(caught.value)
