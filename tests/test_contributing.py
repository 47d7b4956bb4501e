"""The steps of CONTRIBUTING.md with tiny examples: entries in registries are all that the rest of the code needs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from helpers import MAPPER, RATE, noise, ragged, tiny_model, tone, training_batch, write_clips
from helpers.chat import chat_pengi
from pengi import Pengi, checkpoint, templates
from pengi.cli import app
from pengi.conditioning import descriptors
from pengi.data import families
from pengi.data.datasets import DATASETS
from pengi.data.datasets.base import DatasetRow, Record, Table, TableDataset
from pengi.data.manifest import read_manifest
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.tasks import CLOSED_TASKS
from pengi.encoders import ENCODERS, EncoderSpec
from pengi.encoders.base import AudioEncoder, Augment
from pengi.evaluation import benchmarks
from pengi.evaluation.benchmarks import task_benchmark
from pengi.evaluation.items import items_of


class LoudnessEncoder(AudioEncoder):
    """Log energy of every half second, through one trained layer."""

    sample_rate, dim, token_s = RATE, 8, 0.5

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, self.dim)

    def features(self, waveform_BS: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        frame = round(self.token_s * self.sample_rate)
        padded_BS = nn.functional.pad(waveform_BS, (0, -waveform_BS.shape[1] % frame))
        energy_BT = padded_BS.unflatten(1, (-1, frame)).square().mean(-1)
        mask_BT = torch.arange(energy_BT.shape[1]) * frame < lengths_B[:, None]
        return energy_BT.add(1e-6).log()[..., None], mask_BT

    def tokens(self, features_BTx: Tensor, mask_BT: Tensor, augment: Augment | None = None) -> Tensor:
        tokens_BTD: Tensor = self.linear(features_BTx) * mask_BT[..., None]
        return tokens_BTD


def test_an_encoder_needs_its_class_and_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENCODERS, "loudness", EncoderSpec(weights=None, empty=lambda config: LoudnessEncoder()))
    model = tiny_model(audio={"loudness": {"encoder": "loudness", "mapper": MAPPER}})

    short, long = tone(0.7), noise(2.0)
    ((together_BTD, _),) = model.encode(*ragged([short, long]))
    ((alone_BTD, _),) = model.encode(*ragged([short]))
    torch.testing.assert_close(together_BTD[:1, :2], alone_BTD)

    model.train()(
        training_batch(model, [short, long], [(0, "what is it?", "a tone"), (1, "and this?", "noise")])
    ).mean.backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.branches["loudness"].encoder.parameters())

    checkpoint.save(model, tmp_path / "model", card="")
    loaded = Pengi.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.embed((long, RATE)).shape == (LoudnessEncoder.dim,)
    assert isinstance(loaded.ask((long, RATE), "what is it?").text, str)


def test_a_task_needs_prompts_and_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(templates.PROMPTS, "weather", ("the weather is", "outside it is"))
    monkeypatch.setattr(benchmarks, "CLOSED_TASKS", (*CLOSED_TASKS, "weather"))
    ask = families._attribute("weather")
    monkeypatch.setitem(families.FAMILIES, "weather", families.Family("weather", 3.0, ask))
    weather = {index: ("sunny", "rainy")[index % 2] for index in range(4)}
    clips = {
        f"clip-{index}": (noise(0.2, index), {"split": "val", "attributes": {"weather": weather[index]}})
        for index in weather
    }
    manifest = write_clips(tmp_path, clips)

    items = items_of(task_benchmark("weather", split="val"), manifest)
    assert [item.answers for item in items] == [("sunny",), ("rainy",)] * 2
    assert {item.prompt for item in items} == {"the weather is"}

    maker = QuestionMaker(Phrases({}), weights={"weather": 1.0})
    (pair,) = maker.about(read_manifest(manifest)[0], random.Random(0), 1)
    assert (pair.task, pair.target) == ("weather", "sunny")
    assert pair.prompt in templates.PROMPTS["weather"]


class Creaks(TableDataset):
    """Doors: ``creaks.csv`` and ``audio/*.wav``."""

    name, title, license, home = "creaks", "Creaks", "CC0-1.0", "https://example.org/creaks"
    tables: ClassVar[tuple[Table, ...]] = (Table("creaks.csv", columns=("file", "door")),)

    def row(self, record: Record, table: Table) -> DatasetRow:
        return DatasetRow(id=record["file"], audio=(f"audio/{record['file']}",), events=(f"{record['door']} creaking",))


def test_a_dataset_needs_its_class_and_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(DATASETS, "creaks", Creaks())
    write_clips(tmp_path / "creaks/audio", {"1": (noise(0.2), {})})
    (tmp_path / "creaks/creaks.csv").write_text("file,door\n1.wav,barn door\n2.wav,gate\n", encoding="utf-8")
    out = tmp_path / "creaks.jsonl"

    result = CliRunner().invoke(app, ["data", "import", "creaks", "--root", str(tmp_path), "--out", str(out), "--json"])

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["missing"] == 1
    (clip,) = read_manifest(out)
    assert (clip.id, clip.events, clip.license) == ("creaks:1.wav", ("barn door creaking",), "CC0-1.0")


def clipping(samples_S: NDArray[np.float32], rate: int) -> Sequence[str]:
    """The share of samples at full scale, where there are more than a few."""
    share = float(np.mean(np.abs(samples_S) >= 0.999))
    return [f"Clipped in {share:.0%} of its samples."] if share > 0.01 else []


def test_a_conditioner_needs_its_function_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "DESCRIBERS", [*descriptors.DESCRIBERS, clipping])
    pengi = chat_pengi()
    loud, quiet = np.clip(3 * tone(1.0, 200.0, 1.0), -1, 1), tone(1.0, 200.0)

    read = [pengi.ask((samples, RATE), "is it distorted?", explain=True).explanation for samples in (loud, quiet)]

    assert [found.prompt.count("Clipped in 78% of its samples.") for found in read] == [1, 0]
    assert read[0].descriptors[-1] == "Clipped in 78% of its samples."
