"""Which clips a run prepares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pengi.errors import ConfigError
from pengi.training.recipe import CorpusConfig, DataConfig, read_recipe
from pengi.training.setup import prepare, wordings_of


@pytest.fixture
def two_domains(toy: Path, recipe: Path) -> Path:
    """The toy problem with every third clip of another domain."""
    manifest = toy / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows[::3]:
        row["domain"] = "sfx"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return recipe


@pytest.mark.parametrize("shares", ["{environment: 1}", "{environment: 2, sfx: 0}"])
def test_clips_that_are_never_drawn_are_not_heard(two_domains: Path, shares: str) -> None:
    setup = prepare(read_recipe(two_domains, [f"data.domains={shares}"]))
    assert {clip.domain for clip in setup.train_clips} == {"environment"}
    assert setup.loader.caches[0].spans.keys() == {clip.id for clip in setup.train_clips}
    assert {clip.domain for clip in setup.loader.batch(0).clips} == {"environment"}
    assert {clip.domain for clip in setup.held_out.clips} == {"environment", "sfx"}


def test_a_share_for_a_domain_that_no_clip_has_is_refused(two_domains: Path) -> None:
    with pytest.raises(ConfigError, match="animal"):
        prepare(read_recipe(two_domains, ["data.domains={environment: 1, animal: 0}"]))


def test_labels_of_other_manifests_are_worded_as_beside_them(tmp_path: Path) -> None:
    def written(name: str, **phrases: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"label": label, "phrase": phrase, "sentence": "It sounds."} for label, phrase in phrases.items()]
        (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return folder

    field, rendered = written("field", rain="rain"), written("rendered", rain="some rain", viola="a viola")
    (tmp_path / "bare").mkdir()
    manifests = (field / "manifest.jsonl", rendered, tmp_path / "bare" / "manifest.jsonl")
    mixture = {path.name: CorpusConfig(manifest=str(path), share=1.0) for path in manifests[1:]}
    data = DataConfig(
        mixture={"field": CorpusConfig(manifest=str(manifests[0]), share=1.0), **mixture}, labels=field / "labels.jsonl"
    )
    found = wordings_of(data)
    assert {name: label.phrase for name, label in found.items()} == {"rain": "rain", "viola": "a viola"}
    assert wordings_of(data.model_copy(update={"mixture": None, "manifest": str(manifests[0])})).keys() == {"rain"}
