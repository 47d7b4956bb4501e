"""Which clips a run prepares."""

from __future__ import annotations

import json
from pathlib import Path

from pengi.training.data import read_wordings
from pengi.training.recipe import CorpusConfig, DataConfig, read_recipe
from pengi.training.setup import prepare


def test_no_features_are_computed_of_clips_that_are_never_drawn(toy: Path, recipe: Path) -> None:
    manifest = toy / "manifest.jsonl"
    rows = manifest.read_text(encoding="utf-8").splitlines()
    for name, some in (("drawn", rows[:8] + rows[16:]), ("left-out", rows[8:16])):
        (toy / f"{name}.jsonl").write_text("\n".join(some) + "\n", encoding="utf-8")
    mixture = f"{{drawn: {{manifest: {toy}/drawn.jsonl}}, left-out: {{manifest: {toy}/left-out.jsonl, share: 0}}}}"
    setup = prepare(read_recipe(recipe, ["data.manifest=null", f"data.mixture={mixture}"]))
    assert {clip.corpus for clip in setup.train_clips} == {"drawn"}
    assert setup.loader.caches[0].spans.keys() == {clip.id for clip in setup.train_clips}
    assert {clip.corpus for clip in setup.loader.batch(0).clips} == {"drawn"}


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
    found = read_wordings(data)
    assert {name: label.phrase for name, label in found.items()} == {"rain": "rain", "viola": "a viola"}
    assert read_wordings(data.model_copy(update={"mixture": None, "manifest": str(manifests[0])})).keys() == {"rain"}
