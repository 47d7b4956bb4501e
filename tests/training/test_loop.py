"""Training from end to end on a toy problem: learning, stopping and resuming, and the model card."""

from __future__ import annotations

import json
import logging
import math
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import RATE, noise, tone
from helpers.training import log_of, lose_the_process, same_weights, train_until
from pengi import Pengi
from pengi.config import EvidenceConfig, LoraConfig
from pengi.data.loader import Loader
from pengi.data.questions import QuestionMaker
from pengi.errors import ConfigError, ManifestError
from pengi.training import train
from pengi.training.card import model_card
from pengi.training.journal import LOG_FILE
from pengi.training.loop import BEST_FOLDER, Run, TrainingError
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare
from pengi.training.state import STATE_FILE

ROOT = Path(__file__).resolve().parents[2]


READS_EVIDENCE = [
    "model.language_model={name: tiny-random, chat: true, lora: {rank: 2, top_layers: 1}}",
    "model.text.mapper={kind: identity}",
    "model.evidence={}",
    "training.weight_decay=0",
]


def one_step(run: Run) -> float:
    """Make the next step."""
    return run.update(run.setup.loader.batch(run.step))


def test_the_tiny_recipe_trains_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = train(Path("recipes/tiny.yaml"), out=tmp_path / "run")
    pengi = Pengi.from_pretrained(folder, device="cpu")
    assert pengi.model.config.name == "pengi-tiny"
    assert pengi.describe((tone(1.0), RATE)).duration_s == 1.0
    assert all(math.isfinite(loss) for loss in log_of(folder, "val_loss").values())


def test_training_learns_to_use_the_audio(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss falls, and new hums and hisses are more likely to get the right name than the wrong one."""
    steps = [
        "training.max_steps=160",
        "training.eval_every=80",
        "training.batch_size=8",
        "training.mapper_learning_rate=0.03",
    ]
    overrides = [*steps, "training.seed=1"]  # with some seeds so tiny a model needs longer
    monkeypatch.setattr("pengi.training.setup.QuestionMaker", partial(QuestionMaker, weights={"events": 1.0}))
    setup = prepare(read_recipe(recipe, overrides))
    run = Run(setup, tmp_path / "run")
    before = run.validation_loss()
    run.finish()
    losses = log_of(tmp_path / "run", "loss")
    assert 0 < run.best["step"] <= 160  # type: ignore[index]
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


EVERYTHING = [
    "model.audio.yamnet={encoder: htsat-tiny-random, window_s: 0.4, mapper: {kind: transformer, layers: 1, heads: 4}}",
    "training.augment={crop: random, spec_augment: true}",
    "training.schedule=linear",
    "training.log_every=2",
]


@pytest.mark.parametrize(
    ("after", "overrides"),
    [(2, []), (3, []), (5, []), (4, EVERYTHING)],
    ids=["before a checkpoint", "at one", "between two", "with everything"],
)
def test_a_resumed_run_repeats_an_uninterrupted_one(
    recipe: Path, tmp_path: Path, after: int, overrides: list[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, overrides, out=whole)
    train_until(recipe, parts, after, lose_the_process, overrides)
    assert train(recipe, overrides, resume=True, out=parts) == parts
    for key in ("loss", "val_loss", "lr"):
        assert log_of(parts, key) == log_of(whole, key) != {}
    assert (parts / "samples.jsonl").read_text("utf-8") == (whole / "samples.jsonl").read_text("utf-8") != ""
    for folder in (".", BEST_FOLDER):
        assert same_weights(whole / folder, parts / folder)


def test_a_resumed_run_may_be_shorter_if_its_rate_has_not_begun_to_fall(recipe: Path, tmp_path: Path) -> None:
    planned, cut = tmp_path / "planned", tmp_path / "cut"
    settings = ["training.decay_steps=2", "training.warmup_steps=1"]
    train(recipe, [*settings, "training.max_steps=4"], out=planned)
    long = [*settings, "training.max_steps=9"]
    train_until(recipe, cut, 2, lose_the_process, long)
    train(recipe, [*settings, "training.max_steps=4"], resume=True, out=cut)
    for key in ("loss", "lr"):
        assert log_of(cut, key) == log_of(planned, key) != {}
    with pytest.raises(ConfigError, match="belongs to a run with other settings"):
        train(recipe, long, resume=True, out=cut)


def test_resuming_without_a_checkpoint_starts(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    train(recipe, ["training.max_steps=1"], resume=True, out=out)
    assert (out / "model.safetensors").is_file()
    assert f"there is no checkpoint in '{out}' yet; training starts from the beginning" in capsys.readouterr().err


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def press_ctrl_c_twice() -> None:
    press_ctrl_c()
    press_ctrl_c()


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_saves_the_current_step_and_the_run_resumes_from_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    whole, parts, saved = tmp_path / "whole", tmp_path / "parts", "step 4 of 6"
    overrides = [f"training.num_workers={workers}", "training.save_every=100", "training.eval_every=100"]
    train(recipe, overrides, out=whole)
    before = signal.getsignal(signal.SIGINT)
    train_until(recipe, parts, 3, press_ctrl_c, overrides)
    assert signal.getsignal(signal.SIGINT) is before
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert last_line == f"stopped; {saved} is saved in '{parts}'; run the same command with --resume to continue"
    Pengi.from_pretrained(parts, device="cpu")
    train(recipe, overrides, resume=True, out=parts)
    assert f"continuing from {saved}" in capsys.readouterr().err
    assert log_of(parts, "loss") == log_of(whole, "loss") != {}
    assert same_weights(whole, parts)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_a_second_ctrl_c_stops_at_once_without_a_checkpoint(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train_until(recipe, out, 2, press_ctrl_c_twice, ["training.save_every=100"])
    assert capsys.readouterr().err.strip().splitlines()[-1] == "stopped; there is no checkpoint yet"
    assert not (out / STATE_FILE).exists()
    assert not (out / "model.safetensors").exists()


def test_training_logs_each_phase_when_it_begins(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    # A command that ran before in this process has the log printed on stderr.
    monkeypatch.setattr(logging.getLogger("pengi"), "handlers", [])
    with caplog.at_level(logging.INFO, logger="pengi"):
        train(recipe, ["training.log_every=100", "training.max_steps=2"], out=out)
    assert [record.message for record in caplog.records if record.name.startswith("pengi.training.")] == [
        "reading the data",
        "16 clips to train on, 8 held out",
        "loading the model",
        "computing features of clips that are not in the cache",
    ]
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step")]
    assert lines == [
        "training: 2 steps",
        "validating: 8 clips",
        f"saving step 2 of 2 in '{out}'",
        "writing the report",
    ]


def test_a_run_is_resumed_with_the_same_settings_only(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe, ["training.max_steps=2"], out=out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="belongs to a run with other settings; choose another folder with --out"):
        train(recipe, ["training.max_steps=3"], resume=True, out=out)
    with pytest.raises(
        ConfigError, match="already contains a run; continue it with --resume, or choose another folder"
    ):
        train(recipe, ["training.max_steps=2"], out=out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert train(recipe, ["training.max_steps=2", "training.save_every=1"], resume=True, out=out) == out


def test_a_run_of_an_older_version_is_resumed(recipe: Path, tmp_path: Path) -> None:
    """Settings that the older version did not have get defaults with the same meaning."""
    out = tmp_path / "run"
    train(recipe, ["training.max_steps=1"], out=out)
    state = torch.load(out / STATE_FILE, weights_only=True)
    kept = json.loads(state["recipe"])
    del kept["training"]["augment"]
    torch.save({**state, "recipe": json.dumps(kept)}, out / STATE_FILE)
    assert train(recipe, ["training.max_steps=1"], resume=True, out=out) == out
    torch.save({**state, "recipe": json.dumps({**kept, "voice": 1})}, out / STATE_FILE)
    with pytest.raises(ConfigError, match="belongs to a run with other settings"):
        train(recipe, ["training.max_steps=1"], resume=True, out=out)


def test_a_loss_that_is_not_finite_stops_the_run(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    message = r"the loss is (nan|inf) after step \d+; try a lower learning rate in another folder "
    message += r"\(there is no checkpoint yet\)"
    with pytest.raises(TrainingError, match=message):
        train(recipe, ["training.mapper_learning_rate=1e30", "training.save_every=100"], out=out)
    assert not (out / "model.safetensors").exists()


def test_a_recipe_that_cannot_start_leaves_no_folder(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for override, error in (
        ("data.manifest=none.jsonl", ManifestError),
        ("model.audio.yamnet.encoder=yam", ConfigError),
    ):
        with pytest.raises(error):
            train(recipe, [override], out=out)
    with pytest.raises(ManifestError, match="has no clip to train on in split 'heldout'"):
        train(recipe, ["data.train_split=heldout"], out=out)
    assert not out.exists()


def test_only_mappers_and_trained_layers_change(recipe: Path, tmp_path: Path) -> None:
    setup = prepare(read_recipe(recipe, ["data.ship_only=true"]))
    before = {name: value.clone() for name, value in setup.model.state_dict().items()}
    one_step(Run(setup, tmp_path))
    moved = {name for name, value in setup.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 2)[0] for name in moved if ".conv." in name} == {"audio.0.encoder.conv"}
    assert not any(f".conv.{layer}." in name for layer in (0, 1) for name in moved)
    assert all(f"audio.0.encoder.conv.{layer}.weight" in moved for layer in range(2, 7))
    assert not any(name.startswith("language_model") for name in moved)
    assert any(name.startswith("text_mapper") for name in moved)
    assert any(name.startswith("audio.0.mapper") for name in moved)


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
    out = train(recipe, ["data.val_split=heldout", "training.max_steps=2"], out=tmp_path / "run")
    assert log_of(out, "val_loss") == {}
    for line in (out / LOG_FILE).read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert "- not validated yet" in (out / "README.md").read_text(encoding="utf-8")


def test_the_model_card_lists_the_training_data(recipe: Path, tmp_path: Path) -> None:
    out = train(recipe, ["data.ship_only=true", "training.max_steps=2"], out=tmp_path / "run")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# toy\n")
    assert "14 clips of split `train`" in card
    assert "| field-0 | 5 | CC-BY-4.0, CC0-1.0 |" in card
    assert "| field-1 | 4 |" in card
    assert "| field-2 | 5 |" in card
    assert "yamnet-tiny-random (trained from layer 2 on)" in card
    assert "2 of 2 steps, 4 clips with up to 2 questions each" in card
    assert f"loss on held-out clips: {log_of(out, 'val_loss')[2]:.3f}" in card
    setup = prepare(read_recipe(recipe))
    config = setup.model.config
    branch = config.audio["yamnet"].model_copy(update={"trained": False})
    frozen = config.model_copy(update={"audio": {"yamnet": branch}})
    assert "yamnet-tiny-random (frozen)" in model_card(setup.recipe, frozen, setup.train_clips, 0, [])
    adapters = LoraConfig(rank=2, top_layers=3)
    chat = config.model_copy(
        update={
            "evidence": EvidenceConfig(descriptors=False),
            "language_model": config.language_model.model_copy(update={"chat": True, "lora": adapters}),
        }
    )
    of_chat = model_card(setup.recipe, chat, setup.train_clips, 0, [])
    assert "- audio in the prompt: m1 behind yamnet-tiny-random; as text: length, transcript\n" in of_chat
    assert "- prompt: in the chat template of the language model\n" in of_chat
    assert "frozen, with adapters of rank 2 (LoRA) in its last 3 layers\n" in of_chat
    assert "scenes without audio" not in of_chat
    composed = [
        setup.train_clips[0].model_copy(update={"source": "composed", "license": licence})
        for licence in ("CC0-1.0 AND MIT", "MIT", "CC-BY-4.0 AND MIT")
    ]
    assert "| composed | 3 | MIT, CC0-1.0, CC-BY-4.0 |" in model_card(setup.recipe, config, composed, 0, [])


def test_reduced_precision_trains_too(recipe: Path, tmp_path: Path) -> None:
    out = train(recipe, ["training.language_model_dtype=bfloat16", "training.max_steps=3"], out=tmp_path / "run")
    assert all(math.isfinite(value) for value in log_of(out, "val_loss").values())
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {torch.float16}


def test_attributes_of_an_unknown_source_are_an_error(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="no source of training clips 'field-3'"):
        prepare(read_recipe(recipe, ["data.attributes={field-3: {language: English}}"]))


def test_attributes_of_a_source_are_given_to_its_training_clips(recipe: Path) -> None:
    setup = prepare(read_recipe(recipe, ["data.attributes={field-1: {language: English}}"]))
    languages = {(clip.source, clip.attributes.get("language")) for clip in setup.train_clips}
    assert languages == {("field-0", None), ("field-1", "English"), ("field-2", None)}
    assert not any(clip.attributes for batch in setup.validation for clip in batch.clips)


def test_a_second_branch_trains_beside_the_first(recipe: Path, tmp_path: Path) -> None:
    values: Any = [
        "model.audio.second={encoder: yamnet-tiny-random, trained: false,"
        " mapper: {kind: transformer, constants: 2, layers: 1, heads: 4}}",
        "training.max_steps=2",
    ]
    setup = prepare(read_recipe(recipe, values))
    assert len(setup.loader.caches) == 2
    assert math.isfinite(one_step(Run(setup, tmp_path)))


def test_the_best_weights_are_kept(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss on held-out clips is lowest in the middle; that checkpoint stays beside the last one."""
    losses = iter([3.0, 2.0, 2.5])
    monkeypatch.setattr(Run, "validation_loss", lambda run: next(losses))
    out = train(recipe, ["training.eval_every=2", "training.save_every=2"], out=tmp_path / "run")
    assert log_of(out, "val_loss") == {2: 3.0, 4: 2.0, 6: 2.5}
    best, last = (load_file(folder / "model.safetensors") for folder in (out / BEST_FOLDER, out))
    assert any(not torch.equal(best[name], last[name]) for name in last)
    assert "4 of 6 steps" in (out / BEST_FOLDER / "README.md").read_text("utf-8")
    assert "best on held-out clips | 2.000 at step 4" in (out / "report.md").read_text("utf-8")
    assert Pengi.from_pretrained(out / BEST_FOLDER, device="cpu").describe((tone(1.0), RATE)).duration_s == 1.0


def test_a_run_on_evidence_alone_needs_no_audio(recipe: Path, tmp_path: Path, tiny_stock: None) -> None:
    """Only the adapters change; m1 of the same model stays as it is. The model has no tags."""
    pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")
    setup = prepare(read_recipe(recipe, READS_EVIDENCE))
    loader = setup.loader
    assert loader.evidence is not None
    text = Loader(
        loader.clips, [], loader.questions, loader.evidence, batch_size=4, questions_per_clip=2, seed=loader.seed
    )
    validation = [replace(drawn, batch=replace(drawn.batch, features=())) for drawn in setup.validation]
    run = Run(replace(setup, loader=text, validation=validation), tmp_path / "run")
    before = {name: value.clone() for name, value in run.trained.items()}
    run.finish()
    moved = {name for name, value in run.trained.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(".lora_" in name for name in moved)
    assert any(name.startswith("audio.0.mapper") for name in before)
    assert all(math.isfinite(loss) for loss in log_of(tmp_path / "run", "val_loss").values())
    assert "Heard" not in (tmp_path / "run" / "samples.jsonl").read_text("utf-8")  # it is not part of the prompt
