"""Tar shards in the WebDataset layout: what is packed comes back by random access, and foreign ones are understood."""

from __future__ import annotations

import io
import json
import logging
import sys
import tarfile
from pathlib import Path

import fsspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import MAPPER, tone, write_clips
from pengi.audio.decode import load
from pengi.config import AudioBranchConfig
from pengi.data import recordings
from pengi.data.features import cached_branches
from pengi.data.manifest import Clip, read_manifest
from pengi.data.recordings import is_there, member, recording
from pengi.data.shards import expanded, read_shards, write_shards
from pengi.data.sources import manifest_of
from pengi.encoders.yamnet import YamnetEncoder
from pengi.errors import AudioError, InputError, ManifestError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return read_manifest(EXAMPLES / "manifest.jsonl")


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_what_is_packed_comes_back(clips: list[Clip], tmp_path: Path) -> None:
    manifest = write_shards(clips, EXAMPLES, tmp_path / "packed", max_bytes=120_000)
    shards = sorted(manifest.parent.glob("*.tar"))
    assert len(shards) > 2
    assert all(shard.stat().st_size <= 130_000 for shard in shards)
    packed = read_manifest(manifest)
    indexed = read_shards([str(manifest.parent / f"shard-{{000000..{len(shards) - 1:06d}}}.tar")])
    for original, by_manifest, by_index in zip(clips, packed, indexed, strict=True):
        content = (EXAMPLES / original.audio).read_bytes()
        for clip in (by_manifest, by_index):
            assert recording(manifest.parent, clip.audio) == content
            assert clip.model_copy(update={"audio": original.audio}) == original
    assert load(recording(manifest.parent, packed[0].audio), 16_000).shape == load(EXAMPLES / "dog.opus", 16_000).shape


def test_shards_are_webdataset_shards(clips: list[Clip], tmp_path: Path) -> None:
    """Members of a sample lie together and share their name up to the first dot."""
    write_shards(clips, EXAMPLES, tmp_path / "packed")
    with tarfile.open(tmp_path / "packed" / "shard-000000.tar") as tar:
        names = tar.getnames()
        row = json.loads(tar.extractfile(names[1]).read())  # type: ignore[union-attr]
    assert names[:4] == ["000000000.opus", "000000000.json", "000000001.opus", "000000001.json"]
    assert row["id"] == clips[0].id
    assert row["audio"] == names[0]


def test_features_of_shards_are_cached_like_those_of_files(tmp_path: Path) -> None:
    manifest = write_clips(tmp_path, {name: (tone(0.5, hertz), {"split": "train"}) for name, hertz in
                                      (("low", 200.0), ("high", 2000.0))})  # fmt: skip
    branch = AudioBranchConfig.model_validate({"encoder": "yamnet-tiny-random", "frozen_layers": 2, "mapper": MAPPER})
    files = read_manifest(manifest)
    (expected,) = cached_branches(files, tmp_path, [(YamnetEncoder.tiny(2), branch)])
    source = manifest_of(write_shards(files, tmp_path, tmp_path / "packed"))
    (found,) = cached_branches(source.clips, source.root, [(YamnetEncoder.tiny(2), branch)])
    for name in ("low", "high"):
        assert torch.equal(found.get(name), expected.get(name))
    assert not torch.equal(found.get("low"), found.get("high"))


def test_shards_at_a_url(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write_shards(clips[:2], EXAMPLES, tmp_path / "packed").parent
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/shard-000000.tar", (packed / "shard-000000.tar").read_bytes())
    source = manifest_of("memory://bucket/shard-000000.tar")
    assert source.clips == manifest_of(Path("memory://bucket/shard-000000.tar")).clips
    for clip, original in zip(source.clips, clips, strict=False):
        assert clip.audio.startswith("memory://")
        assert is_there(source.root, clip.audio)
        assert recording(source.root, clip.audio) == (EXAMPLES / original.audio).read_bytes()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match="pip install fsspec"):
        recordings.opened("s3://bucket/x.tar")


def test_foreign_shards(tmp_path: Path) -> None:
    shard = tar_of(
        tmp_path / "foreign-7.tar",
        {
            "deep/a.flac": b"1",
            "deep/a.json": json.dumps({"text": ["A dog.", ""], "tag": ["dog", 3], "id": 9, "title": None}).encode(),
            "b.txt": b" Rain falls. \n",
            "b.wav": b"22",
            "c.left.mp3": b"333",
            "c.json": json.dumps({"caption": "Wind.", "description": "Field recording"}).encode(),
            "c.jpg": b"no matter",
        },
    )
    first, second, third = read_shards([str(shard)], split="val")
    assert (first.id, first.captions, first.tags, first.split) == ("foreign-7/deep/a", ("A dog.",), ("dog",), "val")
    assert (second.captions, second.title) == (("Rain falls.",), "")
    assert (third.captions, third.description) == (("Wind.",), "Field recording")
    assert [recording(tmp_path, clip.audio) for clip in (first, second, third)] == [b"1", b"22", b"333"]


def test_bad_samples_are_skipped_up_to_a_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = {f"{number}.wav": b"x" for number in range(8)}
    bad = {
        "x.json": b"{}",
        "y.wav": b"x",
        "y.json": b"{oops",
        "z.wav": b"x",
        "z.json": b"[]",
        "v.txt": b"\xff",
        "v.wav": b"",
    }
    shard = tar_of(tmp_path / "s.tar", good | bad)
    with pytest.raises(ManifestError, match=r"4 of 12 samples cannot be read; the first is '.*sample 'x''"):
        read_shards([str(shard)], split="train")
    with caplog.at_level(logging.WARNING):
        clips = read_shards([str(shard)], split="train", max_bad_share=0.5)
    assert [clip.id for clip in clips] == [f"s/{number}" for number in range(8)]
    for reason in (
        "no recording",
        "'y.json' cannot be read",
        "'z.json' is not a JSON object",
        "'v.txt' cannot be read",
    ):
        assert reason in caplog.text
    with pytest.raises(ManifestError, match="1 of 1 samples"):  # no split is named, in the row or for all
        read_shards([str(tar_of(tmp_path / "t.tar", {"a.wav": b"x"}))])
    assert "field 'split'" in caplog.text


def test_shards_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("this is no tar file" * 100, encoding="utf-8")
    for name in ("text.tar", "gone.tar"):
        with pytest.raises(ManifestError, match=f"{name}' cannot be read as a tar file"):
            read_shards([str(tmp_path / name)])
    with pytest.raises(ManifestError, match="no samples"):
        read_shards([str(tar_of(tmp_path / "empty.tar", {}))])


def test_unreadable_recordings_are_left_out_of_shards(clips: list[Clip], tmp_path: Path) -> None:
    gone = [*clips, clips[0].model_copy(update={"id": "gone", "audio": "gone.opus"})]
    with pytest.raises(ManifestError, match="1 of 9 clips cannot be read; the first is 'gone'"):
        write_shards(gone, EXAMPLES, tmp_path / "strict")
    assert not list(tmp_path.glob("*strict*"))
    manifest = write_shards(gone, EXAMPLES, tmp_path / "lenient", max_bad_share=0.2)
    assert [clip.id for clip in read_manifest(manifest)] == [clip.id for clip in clips]


def test_a_shard_that_was_cut_off(clips: list[Clip], tmp_path: Path) -> None:
    manifest = write_shards(clips, EXAMPLES, tmp_path / "packed")
    shard = manifest.parent / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:50_000])
    packed = read_manifest(manifest)
    assert recording(manifest.parent, packed[0].audio)
    with pytest.raises(AudioError, match="cut off"):
        recording(manifest.parent, packed[-1].audio)
    shard.unlink()
    with pytest.raises(AudioError, match="cannot be read"):
        recording(manifest.parent, packed[0].audio)
    with pytest.raises(ManifestError, match="line 1: no audio file"):
        read_manifest(manifest)


def test_ranges() -> None:
    assert expanded("a.tar") == ["a.tar"]
    assert expanded("s3://b/{08..11}.tar") == [f"s3://b/{number}.tar" for number in ("08", "09", "10", "11")]
    assert len(expanded("{0..3}/{00..10}.tar")) == 44


@given(st.text(min_size=1).filter(lambda text: "\n" not in text and "\r" not in text), st.integers(0), st.integers(0))
def test_a_member_is_never_taken_for_a_file(tar: str, offset: int, size: int) -> None:
    """Whatever the tar file is called, the last two numbers are the stretch."""
    found = recordings._MEMBER.fullmatch(member(tar, offset, size))
    assert found is not None
    assert (found["tar"], int(found["offset"]), int(found["size"])) == (tar, offset, size)
