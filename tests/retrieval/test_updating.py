"""What an update encodes, keeps, copies and removes; and that nothing is lost if it is cut short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="LanceDB is not installed (pengi[search])")

from helpers import retrieval as helper
from helpers.retrieval import StubIndexer, contents, update, write_recordings
from pengi.errors import InputError
from pengi.retrieval import Collection
from pengi.retrieval.updating import only_writer, recordings_below

TEXTS = {"rain.wav": "rain\nthunder", "dog.wav": "a dog barks", "sub/bell.flac": "a bell\nsilence\na bell"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "sounds", TEXTS)


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_a_folder_is_encoded_once(folder: Path, location: Path) -> None:
    first, second = StubIndexer(), StubIndexer()
    changes = update(location, folder, first)
    assert (changes.added, changes.windows, changes.failed) == (3, 6, [])
    assert update(location, folder, second).unchanged == 3
    assert sorted(first.encoded) == ["bell.flac", "dog.wav", "rain.wav"]
    assert second.encoded == []
    assert contents(location) == {
        "rain.wav": ["rain", "thunder"], "dog.wav": ["a dog barks"], "bell.flac": ["a bell", "silence", "a bell"],
    }  # fmt: skip


def test_only_what_is_new_or_changed_is_encoded_again(folder: Path, location: Path) -> None:
    update(location, folder, StubIndexer())
    write_recordings(folder, {"rain.wav": "hail", "wind.wav": "wind"})
    (folder / "dog.wav").unlink()
    indexer = StubIndexer()
    changes = update(location, folder, indexer)
    assert (changes.added, changes.changed, changes.unchanged, changes.removed) == (1, 1, 1, 1)
    assert sorted(indexer.encoded) == ["rain.wav", "wind.wav"]
    found = contents(location)
    assert sorted(found) == ["bell.flac", "rain.wav", "wind.wav"]
    assert found["rain.wav"] == ["hail"]


def test_a_new_time_of_the_same_content_is_only_stored(folder: Path, location: Path) -> None:
    update(location, folder, StubIndexer())
    for file in folder.rglob("*.*"):
        os.utime(file, (1, 1))
    indexer = StubIndexer()
    assert update(location, folder, indexer).unchanged == 3
    assert indexer.encoded == []
    # The new times are known now: a change of content that keeps size and the old time would be seen.
    (folder / "dog.wav").write_text("a cat meows", encoding="utf-8")
    assert update(location, folder, indexer).changed == 1
    assert contents(location)["dog.wav"] == ["a cat meows"]


def test_a_moved_or_copied_recording_takes_over_the_rows(folder: Path, location: Path) -> None:
    update(location, folder, StubIndexer())
    (folder / "rain.wav").rename(folder / "sub" / "moved's.wav")
    (folder / "copy.wav").write_bytes((folder / "dog.wav").read_bytes())
    indexer = StubIndexer()
    changes = update(location, folder, indexer)
    assert (changes.copied, changes.removed, changes.added, indexer.encoded) == (2, 1, 0, [])
    found = contents(location)
    assert found["moved's.wav"] == ["rain", "thunder"]
    assert found["copy.wav"] == found["dog.wav"]
    assert "rain.wav" not in found


def test_recordings_that_swapped_names(folder: Path, location: Path) -> None:
    write_recordings(folder, {"dog.wav": "a cat meows in\nrain"[: len(TEXTS["rain.wav"])]})
    update(location, folder, StubIndexer())
    before = contents(location)
    (folder / "rain.wav").rename(folder / "aside")
    (folder / "dog.wav").rename(folder / "rain.wav")
    (folder / "aside").rename(folder / "dog.wav")
    for name in ("dog.wav", "rain.wav"):
        os.utime(folder / name, (1, 1))
    update(location, folder, StubIndexer())
    assert contents(location) == {**before, "dog.wav": before["rain.wav"], "rain.wav": before["dog.wav"]}


def test_a_copy_whose_source_became_unusable(folder: Path, location: Path) -> None:
    update(location, folder, StubIndexer())
    (folder / "z.wav").write_bytes((folder / "dog.wav").read_bytes())
    (folder / "dog.wav").unlink()
    (folder / "dog.wav").symlink_to(folder / "nowhere.wav")
    changes = update(location, folder, StubIndexer())
    assert (changes.copied, len(changes.failed)) == (1, 1)
    assert contents(location)["z.wav"] == ["a dog barks"]
    assert "dog.wav" not in contents(location)


def test_other_folders_stay(folder: Path, location: Path, tmp_path: Path) -> None:
    other = write_recordings(tmp_path / "sounds-2", {"sea.wav": "waves"})
    update(location, folder, StubIndexer())
    update(location, other, StubIndexer())
    (folder / "dog.wav").unlink()
    assert update(location, folder, StubIndexer()).removed == 1
    assert sorted(contents(location)) == ["bell.flac", "rain.wav", "sea.wav"]


def test_bad_files_are_counted_and_tried_again(folder: Path, location: Path) -> None:
    write_recordings(folder, {"broken.wav": "bad", ".hidden.wav": "x", "notes.txt": "x", ".trash/x.wav": "x"})
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    changes = update(location, folder, StubIndexer())
    failed = {Path(path).name: error for path, error in changes.failed}
    assert failed == {"broken.wav": "it is not audio", "dangling.wav": "it cannot be read (no such file or directory)"}
    assert changes.added == 3
    write_recordings(folder, {"broken.wav": "mended"})
    (folder / "dangling.wav").unlink()
    changes = update(location, folder, StubIndexer())
    assert (changes.added, changes.unchanged, changes.failed) == (1, 3, [])


def test_what_was_a_recording_and_is_none_any_more_is_removed(folder: Path, location: Path) -> None:
    update(location, folder, StubIndexer())
    write_recordings(folder, {"dog.wav": "bad"})
    assert len(update(location, folder, StubIndexer()).failed) == 1
    assert sorted(contents(location)) == ["bell.flac", "rain.wav"]


def test_a_name_that_is_no_text_is_counted_as_failed(folder: Path, location: Path) -> None:
    try:
        (folder / os.fsdecode(b"caf\xe9.wav")).write_text("music", encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    ((path, error),) = update(location, folder, StubIndexer()).failed
    assert path.endswith("caf\\udce9.wav")
    assert error == "its name is not valid UTF-8; rename it"


def test_what_cannot_be_read_now_is_not_gone(folder: Path, location: Path) -> None:
    update(location, folder, StubIndexer())
    found = recordings_below(folder)
    hidden = type(found)(found.folder, found.recordings[:2], ((str(folder.resolve() / "sub"), "locked"),))
    assert found.recordings[2].endswith("sub/bell.flac")
    assert not hidden.covers(found.recordings[2])
    assert found.covers(found.recordings[2])


def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path, location: Path) -> None:
    texts = {f"{number:02d}.wav": "\n".join(f"sound {number} {line}" for line in range(3)) for number in range(24)}
    folder = write_recordings(tmp_path / "sounds", texts)
    command = [sys.executable, helper.__file__, str(location), str(folder)]
    folders = [str(Path(helper.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    for lines in (1, 5, 8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            assert process.stdout is not None
            for _ in range(lines):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    indexer = StubIndexer()
    changes = update(location, folder, indexer)
    assert 0 < changes.added < 24
    assert changes.added + changes.unchanged == 24
    assert contents(location) == {name: text.split("\n") for name, text in texts.items()}
    assert len(Collection.open(location)) == 72


def test_an_index_whose_making_was_cut_short_is_made(folder: Path, location: Path) -> None:
    (location / "recordings.lance" / "data").mkdir(parents=True)
    with pytest.raises(InputError, match="no index"):
        Collection.open(location)
    assert update(location, folder, StubIndexer()).added == 3


def test_readers_see_recordings_whole_while_one_writes(
    tmp_path: Path, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pengi.retrieval.updating.ROWS_PER_WRITE", 4)
    folder = write_recordings(tmp_path / "sounds", {f"{number}.wav": "old rain\nold rain" for number in range(6)})
    update(location, folder, StubIndexer())
    write_recordings(folder, {f"{number}.wav": "new rain\nnew rain\nnew rain" for number in range(6)})
    done = threading.Event()
    counts: list[int] = []
    broken: list[set[tuple[str, str]]] = []

    def read() -> None:
        collection = Collection.open(location)
        while not done.is_set():
            hits = collection.search("rain", mode="text", limit=50)
            counts.append(len(hits))
            for path in {hit.path for hit in hits}:
                texts = [hit.text for hit in hits if hit.path == path]
                if texts not in (["old rain"] * 2, ["new rain"] * 3):
                    broken.append({(path, text) for text in texts})

    reader = threading.Thread(target=read)
    reader.start()
    try:
        update(location, folder, StubIndexer(), lambda number, total: _wait_for_reads(counts, number))
    finally:
        done.set()
        reader.join()
    assert not broken
    assert min(counts) >= 12
    assert len(Collection.open(location).search("new", mode="text", limit=50)) == 18


def _wait_for_reads(counts: list[int], number: int) -> None:
    """Let the reader in between two writes."""
    waited = threading.Event()
    for _ in range(500):
        if len(counts) >= number:
            return
        waited.wait(0.01)


def test_an_index_may_be_named_by_a_uri(folder: Path, tmp_path: Path) -> None:
    location = f"file://{tmp_path}/remote/index"
    with pytest.raises(InputError, match="there is no index at"):
        Collection.open(location)
    assert update(location, folder, StubIndexer()).added == 3
    assert update(location, folder, StubIndexer()).unchanged == 3
    assert [hit.text for hit in Collection.open(location).search("thunder", mode="text")] == ["thunder"]


def test_one_process_writes_at_a_time(location: Path) -> None:
    second = only_writer(str(location))
    with only_writer(str(location)), pytest.raises(InputError, match="another process is writing"):
        second.__enter__()
    with only_writer(str(location)):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        recordings_below(tmp_path / "nowhere")
