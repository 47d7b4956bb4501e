"""Folders, CSV files, manifests and mixtures of them: the same clips in the end, and mistakes with their line."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from helpers import write_jsonl
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.sources import manifest_of, read_mixture
from pengi.data.tasks import labels_of
from pengi.errors import ManifestError


def touch(root: Path, *names: str) -> None:
    """Recordings of which only the name matters."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"RIFF")


def write_csv(root: Path, text: str) -> Path:
    path = root / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_of_labels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"dog_barking/{number}.wav" for number in range(10)), *(f"rain/{n}.FLAC" for n in range(10)))
    touch(tmp_path, "rain/deep/below.ogg", "rain/notes.txt", ".hidden/x.wav")
    source = manifest_of(tmp_path)
    assert source.root == tmp_path
    assert Counter(clip.events for clip in source.clips) == {("dog barking",): 10, ("rain",): 11}
    assert (
        Counter((clip.events[0], clip.split) for clip in source.clips if clip.events[0] == "rain")["rain", "val"] == 2
    )
    assert Counter(clip.split for clip in source.clips) == {"train": 17, "val": 4}
    assert manifest_of(tmp_path).clips == source.clips
    assert "rain/deep/below.ogg" in {clip.audio for clip in source.clips}


def test_names_of_folders_say_several_labels_none_or_which_is_not_there(tmp_path: Path) -> None:
    for name in ("dog, cow_bell", "background", "Noise", "-dog", "-dog,-rain"):
        touch(tmp_path, f"{name}/a.wav")
    clips = {clip.audio.split("/")[0]: (clip.events, clip.absent) for clip in manifest_of(tmp_path).clips}
    assert clips == {
        "dog, cow_bell": (("dog", "cow bell"), ()),
        "background": ((), ()),
        "Noise": ((), ()),
        "-dog": ((), ("dog",)),
        "-dog,-rain": ((), ("dog", "rain")),
    }


def test_labels_of_a_table_may_be_absent_or_empty(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    clips = manifest_of(write_csv(tmp_path, "path,label\na.wav,dog; -rain\nb.wav,\nc.wav,well-known sound\n")).clips
    assert [(clip.events, clip.absent) for clip in clips] == [
        (("dog",), ("rain",)), ((), ()), (("well-known sound",), ())
    ]  # fmt: skip


def test_a_folder_that_names_its_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/a.wav", "train/cat/a.wav", "val/dog/b.wav")
    found = {(clip.split, clip.events[0], clip.audio) for clip in manifest_of(tmp_path).clips}
    assert found == {
        ("train", "dog", "train/dog/a.wav"),
        ("train", "cat", "train/cat/a.wav"),
        ("val", "dog", "val/dog/b.wav"),
    }


def test_folders_without_labels_or_recordings(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no recordings"):
        manifest_of(tmp_path)
    touch(tmp_path, "alone.wav")
    with pytest.raises(ManifestError, match=r"alone\.wav' has no label"):
        manifest_of(tmp_path)
    with pytest.raises(ManifestError, match="there is no file"):
        manifest_of(tmp_path / "nowhere")


def test_captions_of_a_csv_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b c.wav")
    path = write_csv(
        tmp_path, '\ufeffPath,Text,Length\na.wav,"A dog barks, twice.",3\n\nb c.wav,Rain.,\na.wav,A hound is heard.,3\n'
    )
    first, second = manifest_of(path).clips
    assert first.captions == ("A dog barks, twice.", "A hound is heard.")
    assert (second.audio, second.captions, second.events) == ("b c.wav", ("Rain.",), ())
    maker = QuestionMaker(Phrases(labels_of([first], {})), weights={"caption": 1.0})
    pairs = {pair for seed in range(50) for pair in maker.about(first, random.Random(seed), 3)}
    assert {pair.target for pair in pairs} == set(first.captions)


def test_labels_attributes_and_questions_of_a_csv_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    path = write_csv(
        tmp_path,
        "file,label,emotion,question,answer,split,group\n"
        "a.wav,speech; rain,happy,Who speaks?,a woman,val,g\n"
        "a.wav,,,How many people?,one,val,g\n"
        "b.wav,rain,,,,train,\n",
    )
    first, second = manifest_of(path).clips
    assert first.events == ("speech", "rain")
    assert first.attributes == {"emotion": "happy"}
    assert [(asked.question, asked.answer) for asked in first.qa] == [
        ("Who speaks?", "a woman"),
        ("How many people?", "one"),
    ]
    assert (first.split, first.group, second.split, second.qa) == ("val", "g", "train", ())


CSV_MISTAKES = {
    "": "line 1: the header needs a column 'path'",
    "path\na.wav\n": "line 1: the header needs a column 'text' or 'label'",
    "path,lable\na.wav,x\n": "line 1: there is no column 'lable'; did you mean 'label'?",
    "path,text,caption\na.wav,x,y\n": "line 1: two columns for the same thing, the second is 'caption'",
    "path,question\na.wav,what?\n": "line 1: the columns 'question' and 'answer' must be used together",
    "path,text\n": "has no rows",
    "path,text\na.wav,x\n\nb.wav,y\n": "line 4: no audio file at 'b.wav'",
    "path,text\na.wav,x\n,y\n": "line 3: the path is empty",
    "path,text\na.wav,x,more\n": "line 2: 2 columns are expected here",
    "path,text\na.wav\n": "line 2: 2 columns are expected here",
    'path,text\na.wav,"x\n': "line 2: unexpected end of data",
    "path,text,split\na.wav,x,training\n": "line 2: field 'split': input should be 'train'",
    "path,text,split\na.wav,x,train\na.wav,y,val\n": "line 3: split of 'a.wav' is 'val' here but 'train' before",
    "path,question,answer\na.wav,what?,\n": "line 2: a question needs an answer",
    "path,text,id\na.wav,x,1\nc.wav,y,1\n": "line 3: id '1' already belongs to 'a.wav'",
}


@pytest.mark.parametrize("text", CSV_MISTAKES)
def test_mistakes_in_a_csv_file_carry_their_line(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "a.wav", "c.wav")
    path = write_csv(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        manifest_of(path)
    assert CSV_MISTAKES[text] in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_group_is_in_two_splits(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(40)]
    touch(tmp_path, *names)
    rows = [f"{name},{'dog' if n % 3 else 'cat'},{n // 4}\n" for n, name in enumerate(names)]
    clips = manifest_of(write_csv(tmp_path, "path,label,group\n" + "".join(rows))).clips
    split_of: dict[str, set[str]] = {}
    for clip in clips:
        split_of.setdefault(clip.group, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {split for splits in split_of.values() for split in splits} == {"train", "val"}


def test_manifests_and_folders_with_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    path = write_jsonl(tmp_path / "manifest.jsonl", [{"id": "a", "audio": "a.wav", "split": "test"}])
    assert manifest_of(path) == manifest_of(tmp_path)
    assert manifest_of(path).clips[0].split == "test"
    write_jsonl(path, [{"id": "a", "audio": "a.wav", "split": "test"}, {"id": "b", "audio": "b.wav", "split": "test"}])
    with pytest.raises(ManifestError, match="line 2: no audio file"):
        manifest_of(path)
    assert len(manifest_of(path, max_bad_share=0.5).clips) == 1


def test_a_mixture_keeps_ids_groups_and_recordings_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        touch(tmp_path / name, "a.wav")
        write_jsonl(tmp_path / name / "manifest.jsonl", [{"id": "a", "audio": "a.wav", "split": "train", "group": "g"}])
    first, second = read_mixture({"field": tmp_path / "one", "lab": tmp_path / "two" / "manifest.jsonl"})
    assert (first.id, first.group, first.corpus) == ("field/a", "field/g", "field")
    assert (second.id, second.group, second.corpus) == ("lab/a", "lab/g", "lab")
    assert Path(first.audio) == (tmp_path / "one" / "a.wav").resolve()
    assert Path("anywhere") / second.audio == (tmp_path / "two" / "a.wav").resolve()
