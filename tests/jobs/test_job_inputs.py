"""What is in the list of a job: of a folder, a pattern, a manifest, stdin; shards; mistakes."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
from pathlib import Path

import pytest

from pengi.errors import InputError, ManifestError, PengiError
from pengi.jobs.inputs import Listing

AUDIO = ["1.wav", "3.wav", "5.wav", "7.wav", "deep/broken.flac"] + [f"deep/deeper/{n}.wav" for n in (0, 2, 4, 6)]


def locations(listing: Listing, root: Path) -> list[str]:
    return sorted(os.path.relpath(item.location, root) for item in listing)


def test_a_folder_is_searched_at_any_depth(sounds: Path) -> None:
    listing = Listing(str(sounds))
    assert locations(listing, sounds) == sorted(AUDIO)
    assert listing.count() == len(AUDIO)


def test_a_linked_folder_is_not_entered(sounds: Path) -> None:
    (sounds / "deep" / "again").symlink_to(sounds)
    assert locations(Listing(str(sounds)), sounds) == sorted(AUDIO)


def test_a_folder_that_cannot_be_listed_is_an_input_with_an_error(
    sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuses(path: str) -> object:
        if path.endswith("deeper"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    errors = [item for item in Listing(str(sounds)) if item.error is not None]
    assert [item.name for item in errors] == ["deep/deeper"]
    assert errors[0].error == f"the folder '{sounds}/deep/deeper' cannot be listed: permission denied"


def test_patterns_and_single_files(sounds: Path) -> None:
    assert locations(Listing(f"{sounds}/*.wav"), sounds) == ["1.wav", "3.wav", "5.wav", "7.wav"]
    assert locations(Listing(f"{sounds}/**/[0-4].wav"), sounds) == [
        "1.wav", "3.wav", "deep/deeper/0.wav", "deep/deeper/2.wav", "deep/deeper/4.wav"
    ]  # fmt: skip
    # A name with brackets is a file before it is a pattern.
    (sounds / "[x].wav").write_bytes(b"")
    assert locations(Listing(f"{sounds}/[x].wav"), sounds) == ["[x].wav"]
    with pytest.raises(InputError, match="as a pattern it matches nothing"):
        list(Listing(f"{sounds}/*.mp3"))


def test_stdin_is_read_line_by_line(sounds: Path) -> None:
    lines = b"a.wav\r\n\n  \nwith space.wav\ncaf\xe9.wav\nlast.wav"
    listing = Listing("-", stdin=io.BytesIO(lines))
    assert listing.count() is None
    found = [os.fsencode(item.location) for item in listing]
    assert found == [b"a.wav", b"with space.wav", b"caf\xe9.wav", b"last.wav"]


def test_lists_are_not_read_ahead() -> None:
    """The list is endless: only what is asked for is read."""
    endless = (b"clip-%d.wav\n" % index for index in itertools.count())
    first = itertools.islice(Listing("-", stdin=endless), 3)  # type: ignore[arg-type]
    assert [item.location for item in first] == ["clip-0.wav", "clip-1.wav", "clip-2.wav"]
    assert next(endless) == b"clip-3.wav\n"


def row(audio: str, **more: object) -> str:
    return json.dumps({"id": audio, "audio": audio, "split": "val"} | more) + "\n"


def test_a_manifest_names_files_beside_it(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    lines = [
        row("a.wav"),
        "\n",
        row("b/c\u2028.wav"),
        row("s.tar#512+99"),
        row("s3://bucket/s.tar#1+2"),
        row("/abs.wav"),
    ]
    manifest.write_text("".join(lines), encoding="utf-8")
    found = [item.location for item in Listing(str(manifest))]
    beside = [f"{tmp_path}/{name}" for name in ("a.wav", "b/c\u2028.wav", "s.tar#512+99")]
    assert found == [*beside, "s3://bucket/s.tar#1+2", "/abs.wav"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (row("a.wav") + "{", "line 2: not valid JSON"),
        (row("a.wav") + "\n[1]\n", "line 3: a row must be a JSON object"),
        (row("a.wav", split="vall"), "line 1: field 'split'"),
        ('{"id": "x", "split": "val"}', "line 1: field 'audio'"),
        ("\n\n", "has no rows"),
    ],
)
def test_mistakes_in_a_manifest_are_met_before_the_work(tmp_path: Path, text: str, message: str) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        Listing(str(manifest))


def test_shards_part_the_list_wherever_it_lies(sounds: Path, tmp_path: Path) -> None:
    parts = [locations(Listing(str(sounds), shard=(part, 3)), sounds) for part in (1, 2, 3)]
    assert sorted(itertools.chain(*parts)) == sorted(AUDIO)
    assert sum(map(bool, parts)) > 1
    moved = tmp_path / "elsewhere"
    sounds.rename(moved)
    assert [locations(Listing(str(moved), shard=(part, 3)), moved) for part in (1, 2, 3)] == parts


def test_a_limit_takes_the_first_of_the_shard(sounds: Path) -> None:
    whole = [item.location for item in Listing(str(sounds), shard=(1, 2))]
    assert [item.location for item in Listing(str(sounds), shard=(1, 2), limit=2)] == whole[:2]


@pytest.mark.parametrize("options", [{"shard": (0, 2)}, {"shard": (3, 2)}, {"limit": 0}])
def test_shards_and_limits_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(PengiError):
        Listing("-", **options)  # type: ignore[arg-type]


def test_a_file_in_a_folder_that_may_not_be_entered_is_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert [item.location for item in Listing("closed/a.wav")] == ["closed/a.wav"]


def test_a_named_pipe_is_an_input_where_it_is_named_but_not_where_a_pattern_finds_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "a.wav").touch()
    assert [item.name for item in Listing(str(tmp_path / "pipe.wav"))] == ["pipe.wav"]
    assert [Path(item.location).name for item in Listing(str(tmp_path / "*.wav"))] == ["a.wav"]
