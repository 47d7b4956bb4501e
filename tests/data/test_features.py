"""Frozen features: computed once per clip, shared by runs, and forgiving about a few bad files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import MAPPER, noise, ragged, tone, write_clips
from pengi.audio.decode import load
from pengi.config import AudioBranchConfig
from pengi.data import features as module
from pengi.data.features import FeatureCache, cached_branches
from pengi.data.manifest import Clip, read_manifest
from pengi.encoders.yamnet import YamnetEncoder
from pengi.errors import ManifestError

BRANCH = AudioBranchConfig.model_validate({"encoder": "yamnet-tiny-random", "frozen_layers": 2, "mapper": MAPPER})
ENCODER = YamnetEncoder.tiny(2)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    waveforms = {"long": noise(12.0), "short": tone(0.3), "middle": noise(2.0, 1)}
    return read_manifest(write_clips(tmp_path, {name: (x, {"split": "train"}) for name, x in waveforms.items()}))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names: list[str] = []

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        names.append(path.stem)
        return load(path, *arguments, **options)

    monkeypatch.setattr(module, "load", counted)
    return names


def features(clips: list[Clip], root: Path, branch: AudioBranchConfig = BRANCH) -> FeatureCache:
    return cached_branches(clips, root, [(YamnetEncoder.tiny(branch.frozen_layers), branch)])[0]


def test_features_are_those_of_the_encoder(clips: list[Clip], tmp_path: Path) -> None:
    cache = features(clips, tmp_path)
    for clip in clips:
        waveform = load(tmp_path / clip.audio, 16_000, duration_s=10.0)
        expected, _ = ENCODER.features(*ragged([waveform]))
        torch.testing.assert_close(cache.get(clip.id), expected[0], rtol=1e-3, atol=1e-3)  # kept in float16
        assert cache.tokens(clip.id) == expected.shape[1]
    assert cache.tokens("long") == 20  # of 12 s the first 10 s
    assert "gone" not in cache


def test_a_batch_is_padded_and_masked(clips: list[Clip], tmp_path: Path) -> None:
    cache = features(clips, tmp_path)
    values, mask = cache.batch(["short", "middle", "short"])
    assert values.dtype == torch.float32
    assert mask.sum(1).tolist() == [1, cache.tokens("middle"), 1]
    assert torch.equal(values[1][mask[1]], cache.get("middle"))
    assert torch.equal(values[2][mask[2]], cache.get("short"))
    assert not values[~mask].any()


def test_the_second_run_decodes_nothing(clips: list[Clip], tmp_path: Path, decoded: list[str]) -> None:
    first = features(clips, tmp_path)
    assert sorted(decoded) == ["long", "middle", "short"]
    decoded.clear()
    second = features(clips, tmp_path)
    assert decoded == []
    assert all(torch.equal(first.get(clip.id), second.get(clip.id)) for clip in clips)


@pytest.mark.parametrize("name", ["features.json", "values.f16"])
def test_damaged_features_are_computed_again(
    clips: list[Clip], tmp_path: Path, decoded: list[str], pengi_home: Path, name: str
) -> None:
    before = features(clips, tmp_path).get("long")
    (file,) = (pengi_home / "features").glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    decoded.clear()
    assert torch.equal(features(clips, tmp_path).get("long"), before)
    assert sorted(decoded) == ["long", "middle", "short"]


def test_several_branches_decode_a_recording_once(clips: list[Clip], tmp_path: Path, decoded: list[str]) -> None:
    frozen = BRANCH.model_copy(update={"trained": False, "frozen_layers": len(ENCODER.conv)})
    shorter = frozen.model_copy(update={"window_s": 5.0})
    encoder = YamnetEncoder.tiny(frozen.frozen_layers)
    branches = [(encoder, frozen), (encoder, shorter)]
    whole, cut = cached_branches(clips, tmp_path, branches)
    assert sorted(decoded) == sorted(2 * ["long", "middle", "short"])  # once for each window
    assert (whole.tokens("long"), cut.tokens("long")) == (20, 10)
    decoded.clear()
    third = frozen.model_copy(update={"window_s": 2.5})
    again, new = cached_branches(clips, tmp_path, [branches[0], (encoder, third)])
    assert sorted(decoded) == ["long", "middle", "short"]  # what is there already is not computed again
    assert torch.equal(again.get("short"), whole.get("short"))
    assert new.tokens("long") == 5


def test_the_constant_offset_of_a_recording_is_not_in_its_features(tmp_path: Path) -> None:
    """As in the engine, which takes it out of every window."""
    waveforms = {"plain": noise(2.0), "offset": noise(2.0) + np.float32(0.2)}
    rows = read_manifest(write_clips(tmp_path, {name: (x, {"split": "train"}) for name, x in waveforms.items()}))
    cache = features(rows, tmp_path)
    torch.testing.assert_close(cache.get("offset"), cache.get("plain"), rtol=0, atol=1e-2)


def same_length(root: Path) -> None:
    """Another recording of the same name, size and time of change."""
    before = (root / "short.wav").stat()
    write_clips(root, {"short": (tone(0.3, 880.0), {"split": "train"})}, name="ignored.jsonl")
    os.utime(root / "short.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (root / "short.wav").stat().st_size == before.st_size


def test_the_same_recordings_elsewhere_and_later_are_known(
    clips: list[Clip], tmp_path: Path, decoded: list[str]
) -> None:
    features(clips, tmp_path)
    decoded.clear()
    root = tmp_path / "other"
    shutil.copytree(tmp_path, root, ignore=shutil.ignore_patterns("home", "other"), copy_function=shutil.copyfile)
    os.utime(root / "short.wav", ns=(1, 1))
    features(clips, root)
    assert decoded == []


@pytest.mark.parametrize("change", ["recording", "clips", "frozen layers", "window"])
def test_whatever_features_depend_on_makes_them_new(
    clips: list[Clip], tmp_path: Path, decoded: list[str], change: str
) -> None:
    features(clips, tmp_path)
    decoded.clear()
    branch = BRANCH
    if change == "recording":
        same_length(tmp_path)
    elif change == "clips":
        clips = clips[:2]
    elif change == "frozen layers":
        branch = BRANCH.model_copy(update={"frozen_layers": 1})
    else:
        branch = BRANCH.model_copy(update={"window_s": 5.0})
    cache = features(clips, tmp_path, branch)
    assert sorted(decoded) == sorted(clip.id for clip in clips)
    expected, _ = YamnetEncoder.tiny(branch.frozen_layers).features(*ragged([load(tmp_path / "short.wav", 16_000)]))
    torch.testing.assert_close(cache.get("short"), expected[0], rtol=1e-3, atol=1e-3)


def many(tmp_path: Path, good: int, bad: int) -> list[Clip]:
    """Rows of one good recording under many ids, and some of files that are no audio."""
    write_clips(tmp_path, {"good": (noise(0.1), {"split": "train"})})
    (tmp_path / "bad.wav").write_text("no audio", encoding="utf-8")
    names = ["good"] * good + ["bad"] * bad
    return [Clip(id=f"{name}-{index}", audio=f"{name}.wav", split="train") for index, name in enumerate(names)]


def test_up_to_one_percent_may_be_bad(tmp_path: Path, caplog: pytest.LogCaptureFixture, decoded: list[str]) -> None:
    clips = many(tmp_path, good=99, bad=1)
    for _ in range(2):
        cache = features(clips, tmp_path)
        assert "bad-99" not in cache
        assert all(clip.id in cache for clip in clips[:99])
    assert len(decoded) == 100
    assert "skipped bad-99" in caplog.text
    assert "is not audio" in caplog.text


def test_more_is_an_error_and_leaves_nothing_behind(tmp_path: Path, pengi_home: Path) -> None:
    with pytest.raises(ManifestError, match=r"2 of 100 clips .* 'bad-98'; data.max_bad_share of a recipe allows 1.0%"):
        features(many(tmp_path, good=98, bad=2), tmp_path)
    assert list((pengi_home / "features").iterdir()) == []


def test_an_interruption_leaves_nothing_behind(
    clips: list[Clip], tmp_path: Path, pengi_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(items: list[Clip], what: str) -> Iterator[Clip]:
        yield items[0]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "track", interrupted)
        with pytest.raises(KeyboardInterrupt):
            features(clips, tmp_path)
    assert list((pengi_home / "features").iterdir()) == []
    assert features(clips, tmp_path).tokens("long") == 20


def test_another_run_may_be_first(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = module.track

    def overtaken(items: list[Clip], what: str) -> Iterator[Clip]:
        yield from track(items, what)
        monkeypatch.setattr(module, "track", track)
        features(clips, tmp_path)

    monkeypatch.setattr(module, "track", overtaken)
    assert features(clips, tmp_path).tokens("long") == 20


def test_a_killed_run_keeps_its_finished_blocks(
    clips: list[Clip], tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_CLIPS", 1)
    features(clips[:2], tmp_path)
    decoded.clear()
    cache = features(clips, tmp_path)
    assert decoded == [clips[2].id]
    assert all(torch.equal(cache.get(clip.id), features([clip], tmp_path).get(clip.id)) for clip in clips)


def test_no_clips_are_no_features(tmp_path: Path) -> None:
    assert "any" not in features([], tmp_path)
