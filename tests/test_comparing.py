"""Two recordings: copies are recognised, and what differs is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from helpers import RATE, noise, tone
from helpers.chat import RAIN, SPEECH, WHISTLE, chat_pengi, joined
from pengi.audio.decode import load
from pengi.audio.matching import NOTHING, band_energies, match
from pengi.comparing import Duplicate, compare, verified

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PENGI = chat_pengi()
SHARED = [RAIN, noise(15.0, 7, level=0.2)]


def energies(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return band_energies([samples], RATE)


def coded(samples: NDArray[np.float32], container: str) -> NDArray[np.float32]:
    """Through a lossy codec, at its lowest quality."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=container, compression_level=0.9)
    return load(file.getvalue(), RATE)


def example(name: str) -> NDArray[np.float32]:
    return load(EXAMPLES / f"{name}.opus", RATE)


@pytest.mark.parametrize("name", ["dog", "woman", "siren", "glass", "church-bells"])
def test_copies_of_real_recordings_are_recognised(name: str) -> None:
    samples = example(name)
    original = energies(samples)
    copies = {
        "louder": np.clip(2 * samples, -1, 1),
        "softer": 0.1 * samples,
        "mp3": coded(samples, "MP3"),
        "vorbis": coded(0.5 * samples, "OGG"),
        "cut": samples[RATE // 2 : -RATE // 2],
    }
    for kind, copy in copies.items():
        found = match(original, energies(copy.astype(np.float32)))
        assert found.is_copy, (kind, found)
        assert found.offset_s == pytest.approx(0.5 if kind == "cut" else 0.0, abs=0.06), kind


def test_different_recordings_are_no_copies() -> None:
    names = [path.stem for path in sorted(EXAMPLES.glob("*.opus"))]
    found = {name: energies(example(name)) for name in names}
    for index, first in enumerate(names):
        for second in names[:index]:
            assert not match(found[first], found[second]).is_copy, (first, second)
    assert match(energies(noise(5.0, 1)), energies(noise(5.0, 2))).correlation < 0.3


def test_silence_after_a_sound_is_no_copy_of_the_silence_after_a_similar_one() -> None:
    silence = np.zeros(5 * RATE, np.float32)
    barks = [np.concatenate([silence[: 2 * RATE * index], noise(0.5, index), silence]) for index in (1, 2)]
    assert not match(*map(energies, barks)).is_copy
    assert match(energies(barks[0]), energies(barks[0])).is_copy


def test_where_one_begins_in_the_other() -> None:
    sounds = np.concatenate([noise(1.0, 1, 0.01), noise(2.0, 2), noise(1.0, 3, 0.01), tone(1.0)])
    part = sounds[RATE : 3 * RATE]
    assert match(energies(sounds), energies(part)).offset_s == pytest.approx(1.0, abs=0.05)
    assert match(energies(part), energies(sounds)).offset_s == pytest.approx(-1.0, abs=0.05)


@pytest.mark.parametrize("name", ["dog", "woman", "siren", "glass", "church-bells"])
def test_padding_does_not_hide_a_short_excerpt(name: str) -> None:
    samples = example(name)
    loudest = int(np.abs(samples).argmax())
    start = min(max(loudest - RATE // 2, 0), len(samples) - RATE)
    before, after = np.zeros(2 * RATE, np.float32), np.zeros(4 * RATE, np.float32)
    excerpt = energies(np.concatenate([before, samples[start : start + RATE], after]))
    found = match(energies(samples), excerpt)
    assert found.is_copy, found
    assert found.offset_s == pytest.approx(start / RATE - 2.0, abs=0.06)
    others = [energies(example(other)) for other in ("dog", "woman", "siren", "glass", "church-bells") if other != name]
    assert not any(match(other, excerpt).is_copy for other in others)


def test_nothing_is_no_copy_of_nothing() -> None:
    empty, silent = energies(np.zeros(0, np.float32)), energies(np.zeros(RATE, np.float32))
    assert match(empty, silent) == NOTHING
    assert not match(silent, silent).is_copy


def test_where_blocks_part_does_not_matter() -> None:
    samples = noise(2.0)
    blocks = np.split(samples, [1, 100, 7_001, 20_000])
    assert np.allclose(band_energies(blocks, RATE), energies(samples), atol=1e-3)


def test_what_differs_is_named() -> None:
    found = compare(PENGI, joined(*SHARED, WHISTLE), joined(*SHARED, SPEECH))
    assert found.verdict == "different"
    assert {pair.label for pair in found.shared_tags} == {"rain"}
    assert {pair.label for pair in found.differing_tags} == {"whistle", "speech"}
    assert (found.first.transcript, found.second.transcript) == ("", "Come here.")
    assert found.first.duration_s == found.second.duration_s == 25.0
    part = compare(PENGI, joined(*SHARED), joined(np.concatenate(SHARED)[3 * RATE : 12 * RATE]))
    assert (part.verdict, part.offset_s) == ("part", pytest.approx(3.0, abs=0.05))
    assert part.overlap_s == pytest.approx(9.0, abs=0.1)
    same = compare(PENGI, joined(RAIN), joined((0.5 * RAIN).astype(np.float32)))
    assert (same.verdict, same.differing_tags) == ("same", ())
    assert same.first.level_db - same.second.level_db == pytest.approx(6.0, abs=0.2)
    assert compare(PENGI, joined(RAIN), joined(WHISTLE)).verdict == "different"
    silence = joined(np.zeros(5 * RATE, np.float32))
    assert compare(PENGI, joined(RAIN), silence).similarity == 0.0
    assert compare(PENGI, silence, silence).verdict == "same"
    assert set(found.to_dict()) >= {"verdict", "correlation", "similarity", "first", "second", "differing_tags"}


def test_pairs_are_verified_by_their_files(tmp_path: Path) -> None:
    paths: dict[str, Any] = {name: str(tmp_path / f"{name}.wav") for name in ("a", "b", "c", "gone")}
    for name, samples in (("a", noise(3.0, 1)), ("b", 0.2 * noise(3.0, 1)), ("c", noise(3.0, 2))):
        soundfile.write(paths[name], samples, RATE)
    pairs = [(paths["a"], paths["b"]), (paths["a"], paths["c"]), (paths["a"], paths["gone"])]
    duplicate, (path, error) = verified(pairs)
    assert isinstance(duplicate, Duplicate)
    assert (duplicate.first, duplicate.second, duplicate.offset_s) == (paths["a"], paths["b"], 0.0)
    assert path == paths["gone"]
    assert "gone.wav" in str(error)
