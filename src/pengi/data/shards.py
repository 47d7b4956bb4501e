"""Tar shards in the WebDataset layout: the files of a sample are adjacent and share their name up to the first dot.

Here a sample is a recording and ``.json``, the row of its manifest. Shards from elsewhere may instead have ``.txt`` (a
caption), or a JSON object with ``text`` or ``caption``. A tar file is not compressed, so every recording is a range of
bytes in it. A manifest that points to these ranges gives random access, exact resumption and cached features; a corpus
in object storage needs no copy on disk.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pengi.audio.formats import AUDIO_SUFFIXES
from pengi.data.manifest import Clip, validated, written_row
from pengi.data.recordings import is_url, member, opened, recording
from pengi.data.tolerance import MAX_BAD_SHARE, Tolerance
from pengi.errors import AudioError, ManifestError
from pengi.progress import track
from pengi.writing import new_folder, replacing

MAX_BYTES = 1_000_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MANIFEST = "manifest.jsonl"


@dataclass
class _Sample:
    """Members of one sample: where its recording is, and the content of its other files."""

    key: str
    audio: str | None = None
    row: dict[str, Any] = field(default_factory=dict)
    mistake: str | None = None


def write_shards(
    clips: Sequence[Clip],
    audio_root: Path,
    out: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_bad_share: float = MAX_BAD_SHARE,
) -> Path:
    """Pack recordings, as they are, and their rows into tar shards in a new folder.

    The folder also gets ``manifest.jsonl``, whose rows point into the shards.

    Args:
        clips: any number; they keep their order.
        audio_root: their manifest's folder.
        out: the new folder; it appears complete or not at all.
        max_bytes: maximum size of a shard; only a single larger recording exceeds it.
        max_bad_share: share of the recordings that may be unreadable; they are logged and left out.

    Returns:
        The manifest.

    Raises:
        ManifestError: if a larger share of the recordings is unreadable.
        InputError: if ``out`` exists or cannot be written.
    """
    bad = Tolerance(max_bad_share)
    with new_folder(out) as folder, (folder / _MANIFEST).open("w", encoding="utf-8") as manifest:
        writer = _ShardWriter(folder, max_bytes)
        with closing(writer):
            for clip in track(clips, "shards"):
                try:
                    content = _content(audio_root, clip)
                except (AudioError, OSError) as error:
                    bad.skip(clip.id, error)
                    continue
                manifest.write(written_row(clip.model_copy(update={"audio": writer.add(clip, content)})))
        bad.check(len(clips), "clips")
    return out / _MANIFEST


def _content(audio_root: Path, clip: Clip) -> bytes:
    source = recording(audio_root, clip.audio)
    return source if isinstance(source, bytes) else source.read_bytes()


class _ShardWriter:
    """Adds samples to ``shard-000000.tar`` and so on."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._shards = 0
        self._samples = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, clip: Clip, content: bytes) -> str:
        """Write a sample; returns the ``audio`` of its row in the manifest beside the shards."""
        suffix = Path(clip.audio.split("#")[0]).suffix.lstrip(".").lower()
        name = f"{self._samples:09d}.{suffix if suffix in AUDIO_SUFFIXES else 'bin'}"
        self._samples += 1
        row = written_row(clip.model_copy(update={"audio": name})).encode()
        tar = self._open(len(content) + len(row) + 4 * tarfile.BLOCKSIZE)
        offset = _add_member(tar, name, content)
        _add_member(tar, f"{Path(name).stem}.json", row)
        return member(Path(str(tar.name)).name, offset, len(content))

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()

    def _open(self, size: int) -> tarfile.TarFile:
        if self._tar is not None and self._tar.offset + size > self._max_bytes:
            self._tar.close()
            self._tar = None
        if self._tar is None:
            path = self._folder / f"shard-{self._shards:06d}.tar"
            self._tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)
            self._shards += 1
        return self._tar


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Write a member with a short name; returns the offset of its content in the file."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    offset = tar.offset + tarfile.BLOCKSIZE  # a USTAR header of a short name is one block
    tar.addfile(info, io.BytesIO(content))
    return offset


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """A tar file of members with short names, for :func:`stretches`; it appears complete or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    with replacing(path) as partial, tarfile.TarFile(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            _add_member(tar, name, content)


def stretches(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of the content of each member of a tar file, in bytes.

    Raises:
        ManifestError: if it cannot be read.
    """
    try:
        with tarfile.TarFile(path) as tar:
            return {info.name: (info.offset_data, info.size) for info in tar if info.isfile()}
    except (OSError, tarfile.TarError) as error:
        raise ManifestError(f"'{path}' cannot be read as a tar file: {error}") from error


def expanded(location: str) -> list[str]:
    """``a-{000..002}.tar`` as ``a-000.tar``, ``a-001.tar``, ``a-002.tar``; anything else as it is."""
    found = _RANGE.search(location)
    if not found:
        return [location]
    first, last = int(found[1]), int(found[2])
    names = [f"{number:0{len(found[1])}d}" for number in range(first, last + 1)]
    return [whole for name in names for whole in expanded(location[: found.start()] + name + location[found.end() :])]


def read_shards(
    locations: Iterable[str], *, split: str | None = None, max_bad_share: float = MAX_BAD_SHARE
) -> list[Clip]:
    """The rows of shards; ``audio`` is the range of bytes of each recording. The recordings themselves are not read.

    Args:
        locations: paths and URLs of tar files; ``{000..009}`` stands for a range.
        split: for rows that name none, as in shards from elsewhere; without it, such rows are bad.
        max_bad_share: share of the samples that may be bad; they are logged and left out.

    Raises:
        ManifestError: a shard that cannot be read, no sample at all, or too many bad ones.
    """
    clips: dict[str, Clip] = {}
    bad = Tolerance(max_bad_share)
    total = 0
    shards = [shard for location in locations for shard in expanded(location)]
    for shard in track(shards, "shards"):
        for sample in _samples(shard):
            total += 1
            origin = f"{shard}, sample '{sample.key}'"
            try:
                clip = _clip(sample, shard, split, origin)
                if clip.id in clips:
                    raise ManifestError(f"{origin}: id '{clip.id}' is already in an earlier sample")
            except ManifestError as error:
                bad.skip(origin, error)
                continue
            clips[clip.id] = clip
    bad.check(total, "samples")
    if not clips:
        raise ManifestError(f"{', '.join(shards)}: no samples")
    return list(clips.values())


def _clip(sample: _Sample, shard: str, split: str | None, origin: str) -> Clip:
    if sample.mistake:
        raise ManifestError(f"{origin}: {sample.mistake}")
    if sample.audio is None:
        raise ManifestError(f"{origin}: no recording")
    stem = Path(shard).stem
    row = {"id": f"{stem}/{sample.key}", **({"split": split} if split else {}), **_manifest_fields(sample.row)}
    return validated(Clip, row | {"audio": sample.audio}, origin)


def _manifest_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest: all if the row has an id and a split, else captions, tags, title and description."""
    if "id" in row and "split" in row:
        return dict(row)
    texts = [text for name in ("text", "caption", "captions") for text in _texts(row.get(name))]
    tags = [text for name in ("tag", "tags") for text in _texts(row.get(name))]
    plain = {name: row[name] for name in ("title", "description") if isinstance(row.get(name), str)}
    return {"captions": list(dict.fromkeys(texts)), "tags": tags, **plain}


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]


def _samples(shard: str) -> Iterator[_Sample]:
    """Samples of a shard, in order; members that are recordings are not read."""
    path = shard if is_url(shard) else str(Path(shard).resolve())
    sample: _Sample | None = None
    try:
        with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if not info.isfile():
                    continue
                folder, _, name = info.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                _take(sample, tar, info, suffix.rpartition(".")[2].lower(), path)
    except (OSError, tarfile.TarError) as error:
        raise ManifestError(f"'{shard}' cannot be read as a tar file: {error}") from error
    if sample is not None:
        yield sample


def _take(sample: _Sample, tar: tarfile.TarFile, info: tarfile.TarInfo, suffix: str, path: str) -> None:
    """Add a member to a sample."""
    if suffix in AUDIO_SUFFIXES or suffix == "bin":
        sample.audio = member(path, info.offset_data, info.size)
        return
    if suffix not in ("json", "txt"):
        return
    content = tar.extractfile(info)
    assert content is not None, "a file in a tar has content"
    try:
        text = content.read().decode()
        row = json.loads(text) if suffix == "json" else {"text": text.strip()}
    except ValueError as error:  # of JSON and of UTF-8
        sample.mistake = f"'{info.name}' cannot be read ({error})"
        return
    if isinstance(row, dict):
        sample.row = {**row, **sample.row} if suffix == "txt" else {**sample.row, **row}
    else:
        sample.mistake = f"'{info.name}' is not a JSON object"
