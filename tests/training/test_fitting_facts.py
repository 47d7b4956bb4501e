"""Probes: what they are fitted on, and what a training clip is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pengi import checkpoint, weights
from pengi.data.features import FeatureCache
from pengi.data.loader import Loader
from pengi.errors import ConfigError
from pengi.facts import Facts
from pengi.training import facts as facts_module
from pengi.training.facts import FOLDS, NONE, UNMET, _folds, _unknown, _value_folds, fit_facts, values_of_attributes
from pengi.training.loop import Run, train
from pengi.training.recipe import read_recipe
from pengi.training.setup import Setup, prepare


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hums and hisses are told apart after a part of the usual steps."""
    monkeypatch.setattr("pengi.training.facts.STEPS", 200)
    monkeypatch.setattr("pengi.training.facts.SPOTTER_STEPS", 100)


@pytest.fixture
def with_facts(recipe: Path, toy: Path) -> Path:
    """The toy problem, with an attribute that the probes are to hear: the branch is frozen."""
    manifest = toy / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for place, row in enumerate(rows):
        row["group"] = f"machine {place // 2}"
        row["attributes"] = {"instrument": row["events"][0]} if place % 4 else {}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["model"]["audio"][0].update(trained=False, frozen_layers=99)
    values["model"]["facts"] = {"branches": [0], "attributes": ["instrument"], "told": 1}
    values["training"]["facts_dropout"] = 0.5
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    return recipe


def changed(recipe: Path, **facts: Any) -> Path:
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["model"]["facts"].update(facts)
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    return recipe


def set_up(recipe: Path) -> Setup:
    return prepare(read_recipe(recipe))


def test_values_come_from_the_training_clips(with_facts: Path) -> None:
    setup = set_up(with_facts)
    assert setup.model.config.facts is not None
    assert setup.model.config.facts.values == {"instrument": ("hiss", "hum")}
    assert values_of_attributes(["instrument"], setup.train_clips[:1]) == {"instrument": ()}


def test_probes_hear_what_they_were_fitted_on(read_each_way: Path) -> None:
    setup = set_up(read_each_way)
    model = setup.model.eval()
    assert model.facts is not None
    clips = [clip for clip in setup.train_clips if clip.attributes]
    tokens = model.audio_tokens([cache.batch([clip.id for clip in clips]) for cache in setup.loader.caches])
    heard = model.fact_logits(tokens)[:, 1:].argmax(1).tolist()
    values = model.facts.attributes["instrument"]
    assert [values[place] for place in heard] == [clip.attributes["instrument"] for clip in clips]


WAYS: dict[str, dict[str, Any]] = {
    "statistics": {},
    "tokens": {"spotted": {"event": 0, "instrument": 0}},
    "both": {"spotted": {"event": 0, "instrument": 0}, "only": {"event": [0], "instrument": [0]}},
}


@pytest.fixture(params=WAYS)
def read_each_way(with_facts: Path, request: pytest.FixtureRequest) -> Path:
    """The recipe with a probe on statistics, the one with a spotter, and the one with both."""
    own = {what: {"instrument": named["instrument"]} for what, named in WAYS[request.param].items()}
    return changed(with_facts, **own)


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_what_every_clip_has_is_always_told(with_facts: Path, how: dict[str, Any]) -> None:
    setup = set_up(changed(with_facts, attributes=["event", "instrument"], **how))
    model = setup.model.eval()
    assert model.facts is not None
    event, instrument = (model.facts.spans[name][0] for name in ("event", "instrument"))
    ids = [clip.id for clip in setup.train_clips]
    heard = model.fact_logits(model.audio_tokens([cache.batch(ids) for cache in setup.loader.caches]))
    assert setup.loader.facts is not None
    for logits in (heard, setup.loader.facts(ids)):
        assert (logits[:, event] <= UNMET).all()
        assert (logits[:, instrument] > UNMET).all()


def test_a_clip_is_told_by_probes_that_do_not_know_its_group(read_each_way: Path) -> None:
    """Another value of every clip of one fold changes nothing about what clips of that fold are told."""
    setup = set_up(read_each_way)
    caches, clips = setup.loader.caches, setup.train_clips
    folds = _folds("instrument", clips).tolist()
    held_out = folds[0]
    assert 0 < folds.count(held_out) < len(clips)
    exchanged = {"hum": "hiss", "hiss": "hum"}
    other = [
        clip.model_copy(update={"attributes": {name: exchanged[str(value)] for name, value in clip.attributes.items()}})
        if fold == held_out
        else clip
        for clip, fold in zip(clips, folds, strict=True)
    ]
    assert _folds("instrument", other).tolist() == folds
    before, after = (fit_facts(setup.model, caches, given, seed=0) for given in (clips, other))
    own = [clip.id for clip, fold in zip(clips, folds, strict=True) if fold == held_out]
    rest = [clip.id for clip, fold in zip(clips, folds, strict=True) if fold != held_out]
    assert torch.equal(before.batch(own), after.batch(own))
    assert not torch.equal(before.batch(rest), after.batch(rest))


def test_folds_are_of_groups(with_facts: Path) -> None:
    clips = set_up(with_facts).train_clips
    by_group: dict[str, set[int]] = {}
    for clip, fold in zip(clips, _folds("instrument", clips).tolist(), strict=True):
        if clip.attributes:
            by_group.setdefault(clip.group or "", set()).add(fold)
    assert all(len(folds) == 1 for folds in by_group.values())
    assert {fold for folds in by_group.values() for fold in folds} <= set(range(FOLDS))


def test_clips_of_a_value_that_very_few_groups_have_are_spread(with_facts: Path) -> None:
    """Probes fitted without the only group that has a value could only tell another."""
    clips = [
        clip.model_copy(update={"group": "one machine" if clip.attributes.get("instrument") == "hum" else clip.id})
        for clip in set_up(with_facts).train_clips
    ]
    hums = [clip.attributes.get("instrument") == "hum" for clip in clips]
    folds = {fold for fold, hum in zip(_folds("instrument", clips).tolist(), hums, strict=True) if hum}
    assert len(folds) > 1


def test_clips_without_a_value_are_spread(with_facts: Path) -> None:
    """A whole kind of recordings would else be new to the probes, and told to have what they cannot have."""
    clips = [clip.model_copy(update={"attributes": {}, "group": "field"}) for clip in set_up(with_facts).train_clips]
    assert set(_folds("instrument", clips).tolist()) == set(range(FOLDS))


def test_some_clips_of_an_open_attribute_are_told_by_probes_that_never_met_their_value(with_facts: Path) -> None:
    """So they are told another one."""
    setup = set_up(changed(with_facts, open=["instrument"]))
    clips = setup.train_clips
    unknown = _unknown("instrument", clips).tolist()
    folds = _value_folds("instrument", clips).tolist()
    values = [str(clip.attributes.get("instrument", NONE)) for clip in clips]
    assert any(unknown)
    assert not all(one for one, value in zip(unknown, values, strict=True) if value != NONE)
    assert not any(one for one, value in zip(unknown, values, strict=True) if value == NONE)
    assert len(set(zip(values, folds, strict=True))) == len(set(values))
    assert {fold for fold, value in zip(folds, values, strict=True) if value == NONE} == {FOLDS}
    assert setup.loader.facts is not None
    told = setup.loader.facts([clip.id for clip in clips])[:, 1:].argmax(1).tolist()
    for one, place, value in zip(unknown, told, values, strict=True):
        if one:
            assert ("hiss", "hum")[place] != value


def test_what_was_fitted_is_not_fitted_again(read_each_way: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But anew, where a clip has another value."""
    first = set_up(read_each_way)
    for name in ("_fit", "_fit_spotter"):
        monkeypatch.setattr(f"pengi.training.facts.{name}", lambda *_: pytest.fail("fitted again"))
    second = set_up(read_each_way)
    for setup in (first, second):
        assert setup.model.facts is not None
        assert setup.loader.facts is not None
    ids = [clip.id for clip in first.train_clips]
    assert torch.equal(first.loader.facts(ids), second.loader.facts(ids))  # type: ignore[misc]
    assert torch.equal(first.model.facts.weight_GN, second.model.facts.weight_GN)  # type: ignore[union-attr]
    other = [*first.train_clips[:-1], first.train_clips[-1].model_copy(update={"attributes": {"instrument": "hum"}})]
    assert other != first.train_clips
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        fit_facts(first.model, first.loader.caches, other, seed=0)


def test_only_what_is_heard_in_another_way_is_fitted_again(with_facts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spotted = {"attributes": ["event", "instrument"], "spotted": {"instrument": 0}}
    first = set_up(changed(with_facts, **spotted))
    fitted: list[str] = []
    fit = facts_module._fit_attribute

    def counted(facts: Facts, name: str, *rest: Any) -> Any:
        fitted.append(name)
        return fit(facts, name, *rest)

    monkeypatch.setattr(facts_module, "_fit_attribute", counted)
    told = set_up(changed(with_facts, **spotted, told=2))
    assert fitted == []
    ids = [clip.id for clip in told.train_clips]
    assert first.loader.facts is not None
    assert told.loader.facts is not None
    assert torch.equal(told.loader.facts(ids), first.loader.facts(ids))
    set_up(changed(with_facts, **spotted, only={"instrument": [0]}))
    assert fitted == ["instrument"]

    # No statistics of the branch are read, so what it gives must count by itself.
    cache = told.loader.caches[0]
    louder = FeatureCache(cache.values_Nx * np.float16(2.0), cache.spans)
    alone = set_up(changed(with_facts, attributes=["instrument"], spotted={"instrument": 0}))
    assert fitted == ["instrument"]
    fit_facts(alone.model, [louder], alone.train_clips, seed=0)
    assert fitted == ["instrument", "instrument"]


def test_batches_bring_what_clips_are_told(with_facts: Path) -> None:
    loader: Loader = set_up(with_facts).loader
    batch = loader.resized(clips=8, pairs=1).batch(0)
    assert batch.batch.facts_AF is not None
    assert loader.facts is not None
    assert torch.equal(batch.batch.facts_AF, loader.facts([clip.id for clip in batch.clips]))


def test_a_trained_model_keeps_its_probes(with_facts: Path, tmp_path: Path) -> None:
    out = train(with_facts, out=tmp_path / "run")
    model = checkpoint.load(out)
    assert model.facts is not None
    assert model.facts.weight_GN.abs().sum() > 0
    assert model.facts.attributes == {"instrument": ("hiss", "hum")}


def test_a_resumed_run_goes_on_with_the_same_losses(read_each_way: Path, tmp_path: Path, log_of: Any) -> None:
    whole = train(read_each_way, out=tmp_path / "whole")
    setup = set_up(read_each_way)
    run = Run(setup, tmp_path / "parts")
    with run.journal:
        run.align()
        for _ in run._steps():
            if run.step == 3:
                run.save()
                break
    resumed = train(read_each_way, out=tmp_path / "parts", resume=True)
    expected = log_of(whole, "loss")
    assert {step: value for step, value in log_of(resumed, "loss").items() if step > 3} == {
        step: value for step, value in expected.items() if step > 3
    }


def test_a_trained_branch_has_no_statistics_to_rely_on(with_facts: Path) -> None:
    values = yaml.safe_load(with_facts.read_text(encoding="utf-8"))
    values["model"]["audio"][0].update(trained=True, frozen_layers=2)
    with_facts.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="no frozen audio branch"):
        set_up(with_facts)


def test_an_attribute_that_no_clip_has_is_refused(with_facts: Path) -> None:
    with pytest.raises(ConfigError, match="'genre'"):
        set_up(changed(with_facts, attributes=["genre"]))


def test_a_trained_model_learns_to_tell_other_facts(with_facts: Path, toy: Path, tmp_path: Path) -> None:
    trained = train(with_facts, out=tmp_path / "run")
    values = yaml.safe_load(with_facts.read_text(encoding="utf-8"))
    facts = {"branches": [0], "attributes": ["event"], "told": 2}
    again = tmp_path / "again.yaml"
    del values["model"], values["alignment"]
    values["finetune"] = {"checkpoint": str(trained), "name": "again", "facts": facts}
    again.write_text(yaml.safe_dump(values), encoding="utf-8")
    setup = set_up(again)
    assert setup.loader.facts is not None
    before = checkpoint.load(trained)
    assert before.facts is not None
    assert setup.model.facts is not None
    assert torch.equal(setup.model.facts.share_2D, before.facts.share_2D)
    model = checkpoint.load(train(again, out=tmp_path / "other"))
    assert model.facts is not None
    assert model.facts.attributes == {"event": ("hiss", "hum")}


def going_on(with_facts: Path, trained: Path, **finetune: Any) -> Path:
    """The recipe, from a checkpoint on."""
    values = yaml.safe_load(with_facts.read_text(encoding="utf-8"))
    del values["model"], values["alignment"]
    values["finetune"] = {"checkpoint": str(trained), "name": "again", **finetune}
    path = with_facts.with_name("again.yaml")
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_model_that_goes_on_hears_with_probes_fitted_anew(with_facts: Path, tmp_path: Path) -> None:
    """Its training clips are told what probes hear that do not know them, as in the training before."""
    before = set_up(with_facts)
    again = set_up(going_on(with_facts, train(with_facts, out=tmp_path / "run"), refit=True))
    assert again.model.config.facts == before.model.config.facts
    assert before.loader.facts is not None
    assert again.loader.facts is not None
    ids = [clip.id for clip in before.train_clips]
    torch.testing.assert_close(again.loader.facts(ids), before.loader.facts(ids))


def test_probes_are_fitted_anew_without_the_weights_that_only_words_need(
    with_facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Path:
        raise AssertionError(f"'{name}' is fetched")

    checkpoint.save(set_up(with_facts).model, tmp_path / "run", card="")
    monkeypatch.setattr(weights, "pull", refuse)
    assert set_up(going_on(with_facts, tmp_path / "run", refit=True)).loader.facts is not None


def test_what_cannot_be_fitted_anew(with_facts: Path, recipe: Path, toy: Path, tmp_path: Path) -> None:
    trained = train(with_facts, out=tmp_path / "run")
    facts = {"branches": [0], "attributes": ["event"]}
    with pytest.raises(ConfigError, match=r"either finetune\.facts"):
        set_up(going_on(with_facts, trained, refit=True, facts=facts))
    manifest = toy / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(json.dumps(row | {"attributes": {}}) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(ConfigError, match="none has instrument"):
        set_up(going_on(with_facts, trained, refit=True))
    plain = yaml.safe_load(with_facts.read_text(encoding="utf-8"))
    del plain["model"]["facts"]
    recipe.write_text(yaml.safe_dump(plain), encoding="utf-8")
    with pytest.raises(ConfigError, match="has none"):
        set_up(going_on(recipe, train(recipe, out=tmp_path / "plain"), refit=True))


def test_fine_tuning_keeps_to_what_the_clips_have(with_facts: Path, tmp_path: Path) -> None:
    """What a recipe says of attributes that no clip has is left out with them."""
    trained = train(with_facts, out=tmp_path / "run")
    values = yaml.safe_load(with_facts.read_text(encoding="utf-8"))
    del values["model"], values["alignment"]
    wanted = {"attributes": ["genre", "event", "instrument"], "only": {"genre": [0], "event": [0]}}
    relations = {
        "within": {"genre": "event", "instrument": "event"},
        "open": ["genre", "event"],
        "spotted": {"genre": 0},
    }
    values["finetune"] = {"checkpoint": str(trained), "facts": {"branches": [0], **wanted, **relations}}
    with_facts.write_text(yaml.safe_dump(values), encoding="utf-8")
    facts = set_up(with_facts).model.config.facts
    assert facts is not None
    assert (facts.attributes, facts.only) == (("event", "instrument"), {"event": (0,)})
    assert (facts.within, facts.open, facts.spotted) == ({"instrument": "event"}, ("event",), {})


@pytest.mark.parametrize("wanted", [None, {"branches": [0], "attributes": ["genre"]}], ids=["none", "none it has"])
def test_fine_tuning_keeps_the_facts_that_are_told(
    with_facts: Path, tmp_path: Path, wanted: dict[str, Any] | None
) -> None:
    trained = train(with_facts, out=tmp_path / "run")
    values = yaml.safe_load(with_facts.read_text(encoding="utf-8"))
    del values["model"], values["alignment"]
    values["finetune"] = {"checkpoint": str(trained), "facts": wanted}
    with_facts.write_text(yaml.safe_dump(values), encoding="utf-8")
    setup = set_up(with_facts)
    assert setup.loader.facts is None, "the model hears for itself"
    before = checkpoint.load(trained)
    assert before.facts is not None
    assert setup.model.facts is not None
    assert torch.equal(setup.model.facts.weight_GN, before.facts.weight_GN)
