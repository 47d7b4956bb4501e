"""A whole run with a stand-in model: predicted, scored, reported, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from helpers.evaluating import ABOUT, Parrot, write_manifest
from pengi.errors import InputError
from pengi.evaluation import benchmarks, reporting
from pengi.evaluation.benchmarks import BENCHMARKS, Suite
from pengi.evaluation.comparing import compare
from pengi.evaluation.reporting import write_report
from pengi.evaluation.suites import RunProgress, SuiteRun, run_suite, score_run
from pengi.evaluation.systems import Systems

SUITE = Suite(
    (
        replace(BENCHMARKS["val-esc50"], source="field"),
        replace(BENCHMARKS["val-orders"], source="field"),
        BENCHMARKS["val-digits"],
        BENCHMARKS["esc50"],
    )
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows: list[dict[str, object]] = [
        {"id": "dog-1", "events": ["dog"], "redistribute": True, "license": "CC0-1.0", "origin": "a yard"},
        {"id": "rain-1", "events": ["rain"], "redistribute": True},
        {"id": "dog-2", "events": ["rain"], "redistribute": True, "license": "CC-BY-4.0", "origin": "by <someone>"},
        {"id": "wind-1", "events": ["dog"], "redistribute": False},
        {"id": "broken-1", "events": ["wind"], "redistribute": True},
        {"id": "tea-1", "qa": [{"question": "What drink?", "answer": "tea"}]},
    ]
    for row in rows:
        soundfile.write(tmp_path / f"{row['id']}.wav", 0.1 * np.ones(8000), 16_000)
    return write_manifest(tmp_path / "m.jsonl", rows)


def run(manifest: Path, out: Path, model: Parrot | None = None, **plan: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    blind = Parrot(name="blind", deaf=True)
    tagger = Parrot(name="yamnet-match", together=True)
    everyone = Systems(model or Parrot(), blind, lambda: tagger, ABOUT)
    run_suite(SuiteRun(SUITE, manifest=manifest, **plan), lambda: everyone, out, RunProgress())
    return score_run(out)


def value(found: dict[str, Any], benchmark: str, system: str, mode: str, metric: str = "accuracy") -> float:
    [result] = [
        result
        for result in found["results"]
        if (result["benchmark"], result["system"], result["mode"]) == (benchmark, system, mode)
    ]
    number: float = result["metrics"][metric]["value"]
    return number


def test_a_run_is_predicted_scored_and_recorded(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = run(manifest, out)
    modes = {result["mode"] for result in found["results"] if result["system"] == "model"}
    assert modes == {*benchmarks.ANSWER_MODES}
    for mode in ("likelihood", "generate", "match"):
        assert value(found, "val-esc50", "model", mode) == pytest.approx(2 / 5)
    assert value(found, "val-esc50", "model", "exact") == 0.0  # "A dog!" is no label
    assert value(found, "val-esc50", "yamnet-match", "match") == pytest.approx(2 / 5)
    assert value(found, "val-esc50", "chance", "") == pytest.approx(1 / 3)
    assert value(found, "val-orders", "model", "write") == 1.0
    reasons = {skipped["benchmark"]: skipped["reason"] for skipped in found["run"]["not_run"]}
    assert set(reasons) == {"val-digits@1", "esc50@1"}
    assert reasons["esc50@1"] == "name the folder that holds 'esc50' with --data-root"
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["model"] == ABOUT
    assert record["data"][0]["n"] == 5
    assert {"command", "seed", "started", "software"} <= record.keys()


def test_shards_together_are_the_whole(manifest: Path, tmp_path: Path) -> None:
    whole = run(manifest, tmp_path / "whole", baselines=False)
    for number in (1, 2):
        parts = run(manifest, tmp_path / "parts", baselines=False, shard=(number, 2))
    assert parts["shards"] == 2
    for found in (whole, parts):
        for result in found["results"]:
            result.pop("seconds", None)
    assert parts["results"] == whole["results"]


def test_predictions_of_an_earlier_run_in_the_folder_are_not_read(manifest: Path, tmp_path: Path) -> None:
    run(manifest, tmp_path / "run")
    other = run(
        manifest, tmp_path / "run", Parrot(fingerprint="other", deaf=True), modes=("generate",), baselines=False
    )
    model = [result for result in other["results"] if result["system"] == "model" and result["kind"] == "classify"]
    assert [result["mode"] for result in model] == ["generate"]
    assert model[0]["errors"] == 0  # with silence as input the broken file is not read


def test_a_dataset_in_its_published_layout_is_imported(manifest: Path, tmp_path: Path) -> None:
    root = tmp_path / "data" / "esc50"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for number, name in enumerate(("dog", "rain"), start=1):
        (root / "audio" / f"{name}-{number}.wav").write_bytes((tmp_path / "dog-1.wav").read_bytes())
        lines.append(f"{name}-{number}.wav,{number},0,{name},False,1,A")
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = run(manifest, tmp_path / "run", data_root=tmp_path / "data", baselines=False)
    recordings = [
        row["audio"] for row in map(json.loads, (tmp_path / "run/items/esc50@1.jsonl").read_text().splitlines())
    ]
    assert recordings == ["../../data/esc50/audio/dog-1.wav", "../../data/esc50/audio/rain-2.wav"]
    assert {result["n"] for result in found["results"] if result["benchmark"] == "esc50"} == {2}


def test_the_page_is_self_contained_with_only_the_audio_that_may_be_redistributed(
    manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    markdown, page = write_report(out, run(manifest, out))
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert not any(f'{what}="http' in html for what in ("src", "href"))
    assert html.count("data:audio/ogg;base64,") == 1  # dog-2 may be redistributed, wind-1 may not
    assert "by &lt;someone&gt;" in html
    assert html.count("<svg") == 2  # confusion and reliability
    assert "0.400 (" in html
    _, silent = write_report(out, run(manifest, out), "none")
    assert "data:audio" not in silent.read_text(encoding="utf-8")
    text = markdown.read_text(encoding="utf-8")
    assert "| ESC-50 fold 4, free clips (val-esc50@1) | accuracy | 5 | likelihood | 0.400 (" in text
    assert "## Not run" in text
    assert "name the folder that holds 'esc50' with --data-root" in text


def test_only_verified_numbers_are_shown() -> None:
    assert reporting._reported(BENCHMARKS["esc50"], "accuracy", "paper") == "0.9195"
    assert reporting._reported(BENCHMARKS["ravdess"], "accuracy", "paper") == "not verified"
    assert reporting._reported(BENCHMARKS["cochlscene"], "accuracy", "paper") == "–"


def test_two_runs_are_compared_item_by_item(manifest: Path, tmp_path: Path) -> None:
    class Better(Parrot):
        def _reply(self, item: Any, mode: str) -> Any:
            known = replace(item, audio=f"{item.answers[0]}-0.wav")
            return super()._reply(known if item.id == "dog-2" else item, mode)

    run(manifest, tmp_path / "a")
    run(manifest, tmp_path / "b", Better(fingerprint="better"))
    rows = {(row["benchmark"], row["system"], row["mode"]): row for row in compare(tmp_path / "a", tmp_path / "b")}
    row = rows["val-esc50", "model", "likelihood"]
    assert row["difference"] == pytest.approx(1 / 5)
    assert (row["gained"], row["lost"], row["p_mcnemar"]) == (["dog-2"], [], 1.0)
    assert rows["val-esc50", "blind", "likelihood"]["difference"] == 0.0
    with pytest.raises(InputError, match="is not an evaluation run"):
        compare(tmp_path / "a", tmp_path)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"modes": ("guess",)}, "there is no mode 'guess'"),
        ({"shard": (3, 2)}, "there is no shard 3 of 2"),
    ],
)
def test_a_wrong_plan_is_an_error(plan: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SuiteRun(SUITE, **plan)


def never() -> Systems:
    raise AssertionError("a model is loaded only if there is something to ask")


def test_a_run_without_data_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="none of the benchmarks can be run; name the labelled clips with --manifest"):
        run_suite(SuiteRun(SUITE), never, tmp_path / "run", RunProgress())
