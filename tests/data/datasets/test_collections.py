"""Collections with texts: what their rows train, odd cells, and what is wrong with a table in one sentence."""

# ruff: noqa: E501 (lines of annotation files are as long as they are)

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest
from test_layouts import AUDIO, LAYOUTS, Files, broken, import_into, laid_out

from pengi import templates
from pengi.data.datasets import import_dataset
from pengi.data.datasets.columns import Columns, items_of, plain, split_of, text_of, title_of
from pengi.data.families import FAMILIES
from pengi.data.manifest import read_manifest
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.tasks import labels_of
from pengi.errors import ManifestError

FMA = "fma_metadata/tracks.csv"


def trained(tmp_path: Path, name: str) -> dict[str, set[str]]:
    """All targets that training may draw for the clips of a dataset's fixture, by task."""
    import_into(tmp_path, name, LAYOUTS[name][0])
    clips = read_manifest(tmp_path / "m.jsonl")
    tasks = {name: 1.0 for name in FAMILIES if name in templates.PROMPTS}
    maker = QuestionMaker(Phrases(labels_of(clips, {})), weights=tasks)
    targets: dict[str, set[str]] = {}
    for seed in range(40):
        for clip in clips:
            for pair in maker.about(clip, random.Random(seed), 4):
                targets.setdefault(pair.task, set()).add(pair.target)
    return targets


@pytest.mark.parametrize(
    ("name", "task", "target"),
    [
        ("fma", "metadata", "title: Food; tags: hip hop"),
        ("fma", "genre", "pop"),
        ("fma", "music", "genre hip hop"),
        ("wavtext5k", "metadata", "title: Forest; description: Birds singing, drive away, fly."),
        ("macs", "caption", "Birds are singing while people walk past."),
        ("macs", "metadata", "tags: adults talking"),
        ("macs", "events", "adults talking"),
        ("sounddescs", "metadata", "tags: Machines; description: Timber & Wood - Rip saw, carpenters' workshop."),
        ("wavcaps", "caption", "Wind blows."),
        ("wavcaps", "metadata", "title: Airplane Landing Airport; description: Large airplane landing."),
        ("freesound", "metadata", "title: Regen"),
        ("findsounds", "metadata", "title: Eagle owl; tags: owl"),
        ("table", "caption", "It rains."),
        ("table", "events", "coffee shop"),
    ],
)
def test_an_imported_row_yields_the_training_pairs_of_its_texts(
    tmp_path: Path, name: str, task: str, target: str
) -> None:
    assert target in trained(tmp_path, name)[task]


def test_nothing_is_asked_of_a_collection_that_its_texts_do_not_answer(tmp_path: Path) -> None:
    assert trained(tmp_path, "freesound").keys() == {"metadata"}


def test_tags_of_macs_need_most_of_the_competence(tmp_path: Path) -> None:
    files = {path: text for path, text in LAYOUTS["macs"][0].items() if path != "MACS_competence.csv"}
    _, rows = import_into(tmp_path, "macs", files)  # without competences one of two is no majority
    assert rows[0]["tags"] == ["birds singing"]


def test_a_track_in_two_copies_of_fma_is_the_30_second_clip(tmp_path: Path) -> None:
    _, rows = import_into(tmp_path, "fma", {**LAYOUTS["fma"][0], "fma_full/000/000002.mp3": AUDIO})
    assert rows[0]["audio"].endswith("fma_small/000/000002.mp3")


def test_most_of_fma_may_be_missing(tmp_path: Path) -> None:
    files = dict(LAYOUTS["fma"][0])
    del files["fma_large/fma_large/000/000134.mp3"], files["fma_metadata/genres.csv"]
    found, rows = import_into(tmp_path, "fma", files)
    assert (found.splits, found.missing, rows[0]["tags"]) == ({"train": 1}, 1, ["hip hop"])


def test_wavcaps_never_takes_a_recording_of_another_source_that_has_the_same_number(tmp_path: Path) -> None:
    files = {path: text for path, text in LAYOUTS["wavcaps"][0].items() if not path.startswith("SoundBible_flac")}
    found, rows = import_into(tmp_path, "wavcaps", files)
    assert found.missing == 1
    assert all("SoundBible" not in row["id"] for row in rows)


def test_a_pickle_of_descriptions_is_not_loaded(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "root", {"train_list.txt": "07066104\n", "07066104.wav": AUDIO})
    (root / "descriptions.pkl").write_bytes(pickle.dumps({"07066104": "A saw."}))
    with pytest.raises(ManifestError, match=r"is a pickle, .* never loaded; put .*BBCSoundEffects\.csv"):
        import_dataset("sounddescs", root, tmp_path / "m.jsonl")


def test_descriptions_as_json_or_from_wavcaps_serve_too(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(
        {
            "descriptions.json": {"nhu05091190": "Owl calls."},
            "bbc_final.json": {"data": [{"id": "NHU05091190", "description": "Owl calls.", "category": "['Birds']"}]},
        }.items()
    ):
        files: Files = {name: json.dumps(content), "NHU05091190.wav": AUDIO}
        _, rows = import_into(tmp_path / str(number), "sounddescs", files)
        assert [(row["id"], row["description"]) for row in rows] == [("sounddescs:nhu05091190", "Owl calls.")]


def test_names_that_macos_took_apart_are_found(tmp_path: Path) -> None:
    files = {"t.csv": "id,title\ncafé,Café\n", "sub/cafe\N{COMBINING ACUTE ACCENT}.ogg": AUDIO}
    _, rows = import_into(tmp_path, "table", files)
    assert rows[0]["title"] == "Café"


def test_records_about_one_recording_are_one_clip(tmp_path: Path) -> None:
    files = {"t.csv": "path,caption,tags\na.wav,A dog barks.,dog\na.wav,It barks.,bark\n", "a.wav": AUDIO}
    _, rows = import_into(tmp_path, "table", files)
    assert [(row["captions"], row["tags"]) for row in rows] == [(["A dog barks.", "It barks."], ["dog", "bark"])]


def test_tags_are_parted_at_commas_and_categories_are_not(tmp_path: Path) -> None:
    for column, tags in (("tags", ["rain", "night"]), ("keywords", ["rain", "night"]), ("categories", ["rain, night"])):
        folder = tmp_path / column
        folder.mkdir()
        _, rows = import_into(folder, "table", {"t.csv": f'path,{column}\na.wav,"rain, night"\n', "a.wav": AUDIO})
        assert rows[0]["tags"] == tags


def test_about_a_fifth_of_a_table_without_splits_is_for_validation(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(100)]
    files = {"t.csv": "file;title\n" + "".join(f"{name};A sound\n" for name in names), **dict.fromkeys(names, AUDIO)}
    found, _ = import_into(tmp_path, "freesound", files)
    assert found.splits.keys() == {"train", "val"}
    assert 10 <= found.splits["val"] <= 30


@pytest.mark.parametrize(
    ("name", "files", "sentence"),
    [
        ("fma", broken("fma", FMA, "1,AWOL,training", "1,AWOL,dev"), "tracks.csv, line 4: split 'dev' is unknown; the dataset has training"),
        ("fma", broken("fma", FMA, ",[21],[21],", ",[21,"), "line 4: 13 fields, but there are 14 columns"),
        ("fma", broken("fma", FMA, '"[76, 103]"', "[76 103]"), "line 6: '[76 103]' is not a list such as ['rain', 'wind']"),
        ("fma", broken("fma", FMA, "\n2,AWOL", "\nx,AWOL"), "line 4: track_id 'x' is not a number"),
        ("fma", broken("fma", FMA, "genre_top", "genre"), "tracks.csv, no 'track.genre_top' in its two header lines"),
        ("wavtext5k", broken("wavtext5k", "WavText5K.csv", "'fowl']", "'fowl]"), "WavText5K.csv, line 3: '['fowl', 'eagle', 'fowl]' is not a list"),
        ("macs", {"MACS.yaml": "files: [{filename: a.wav"}, "MACS.yaml' cannot be read"),
        ("macs", {"MACS.yaml": "- a"}, "MACS.yaml' cannot be read: it has no list 'files'"),
        ("macs", {"MACS.yaml": "files:\n- filename: a.wav\n"}, "MACS.yaml, record 1: a field is not as published: 'annotations'"),
        ("macs", broken("macs", "MACS_competence.csv", "0.9", "high"), "MACS_competence.csv, line 1: competence 'high' is not a number"),
        ("wavcaps", broken("wavcaps", "json_files/blacklist/blacklist_exclude_test_ac.json", "{", ""), "is not a list of ids for each source"),
        ("wavcaps", {"json_files/as_final.json": '{"data": [{"id": "Y"}]}'}, "record 1 has no 'caption'"),
        ("table", {"t.csv": "file,title,split\na.wav,A,later\n"}, "t.csv, line 2: split 'later' is unknown; use train, val, test, heldout"),
        ("table", {"t.csv": "file,title\n"}, "table: there is no '*.csv'"),
        ("table", {"t.csv": "what,title\na.wav,A\n"}, "with a column that names recordings (such as 'filename' or 'id')"),
        ("table", {"t.csv": "file,title\na.wav,A\n"}, "none of the 1 recordings is in"),
        ("table", {"t.json": "{"}, "cannot be read"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_collection_gets_one_clear_sentence(
    tmp_path: Path, name: str, files: Files, sentence: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        import_into(tmp_path, name, files)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cells_as_people_write_them() -> None:
    assert items_of("['a', \"b's\"]") == ["a", "b's"]
    assert items_of("domestic animals, pets") == ["domestic animals, pets"]
    assert items_of("Guitar,Music") == ["Guitar", "Music"]
    assert items_of("rain; wind|sea") == ["rain", "wind", "sea"]
    assert items_of("dog bark", spaced=True) == ["dog", "bark"]
    assert items_of(float("nan")) == items_of("nan") == items_of(None) == items_of("[]") == []
    assert text_of(20.0) == "20"
    assert plain("I &lt;3 my <b>dog</b><br/>\n x < y > z") == "I <3 my dog x < y > z"
    assert title_of("UK Mello.wav") == "UK Mello"
    assert [split_of(name) for name in ("Validation", "dev", "training", "eval", "other")] == [
        "val",
        "val",
        "train",
        "test",
        "",
    ]


def test_columns_are_known_by_their_usual_names() -> None:
    by_field = Columns.of(("File Name", "Caption-2", "caption_1", "Genres", "Unknown")).by_field
    assert by_field["audio"] == ("File Name",)
    assert by_field["captions"] == ("caption_1", "Caption-2")
    assert by_field["tags"] == ("Genres",)


def test_damaged_annotation_is_a_result_or_one_sentence(tmp_path: Path) -> None:
    rng = random.Random(0)
    junk = [b'"', b"'", b"[", b"}", b",", b"\n", b"\x00", b"\xff", b"nan", b"\t", b"9" * 400, b"\\"]
    names = [name for name, (files, _) in LAYOUTS.items() if set(files.values()) != {AUDIO}]
    for number in range(80):
        name = rng.choice(names)
        files = LAYOUTS[name][0]
        root = laid_out(tmp_path / str(number), files)
        table = root / rng.choice([path for path, content in files.items() if content != AUDIO])
        content = bytearray(table.read_bytes())
        for _ in range(3):
            start = rng.randrange(len(content) + 1)
            content[start : start + rng.randrange(12)] = rng.choice(junk)
        table.write_bytes(content)
        out = tmp_path / f"{number}.jsonl"
        sentence = ""
        try:
            import_dataset(name, root, out)
        except ManifestError as error:
            sentence = str(error)
        assert "\n" not in sentence
        assert out.exists() == (not sentence)
        assert sentence or read_manifest(out)
