"""Captions and questions: AudioCaps, Clotho, ClothoAQA, MMAU."""

from __future__ import annotations

from pathlib import Path

from pengi.data.datasets.base import DatasetRow, Record, Table, TableDataset, number, segment

_CLOTHO_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


class AudioCaps(TableDataset):
    """AudioCaps: ``dataset/{test,val,train}.csv``, one caption a line; test and val clips have five.

    Layout of the tables: cdjkim/audiocaps (``audiocap_id, youtube_id, start_time, caption``). Version 2.0, in
    ``dataset2.0``, is read if ``dataset`` is missing. The recordings are not published; they are looked for in all
    folders under the names that the usual download scripts give: see :func:`~pengi.data.datasets.base.segment`, and
    ``{test,val,train}/<audiocap_id>``.
    """

    name, title = "audiocaps", "AudioCaps"
    license, home = "MIT (captions; videos: their owners)", "https://github.com/cdjkim/audiocaps"
    several_records = True
    tables = tuple(
        Table(
            f"dataset/{split}.csv",
            split,
            ("audiocap_id", "youtube_id", "start_time", "caption"),
            others=(f"{split}.csv", f"dataset2.0/{split}.csv"),
        )
        for split in ("test", "val", "train")
    )

    def row(self, record: Record, table: Table) -> DatasetRow:
        video, start = record["youtube_id"], number(record, "start_time")
        return DatasetRow(
            id=f"{video}_{start:g}",
            names=(*segment(video, start), f"{table.split}/{record['audiocap_id']}"),
            captions=(record["caption"],),
            group=video,
        )


class Clotho(TableDataset):
    """Clotho v2: ``clotho_captions_{evaluation,validation,development}.csv`` and the recordings, five captions each.

    Layout: Zenodo 4783391. The archives ``clotho_audio_<split>.7z`` unpack into ``<split>/``; a folder named like the
    archive is also read. The literature tests on "evaluation".
    """

    name, title = "clotho", "Clotho v2.1"
    license, home = "Tampere University non-commercial (captions); clips CC", "https://zenodo.org/records/4783391"
    tables = tuple(
        Table(f"clotho_captions_{part}.csv", split, ("file_name", *_CLOTHO_CAPTIONS), part)
        for part, split in (("evaluation", "test"), ("validation", "val"), ("development", "train"))
    )

    def row(self, record: Record, table: Table) -> DatasetRow:
        file = record["file_name"]
        return DatasetRow(
            id=f"{table.split}-{Path(file).stem}",
            audio=(f"{table.folder}/{file}", f"clotho_audio_{table.folder}/{file}"),
            names=(f"{table.folder}/{Path(file).stem}", f"clotho_audio_{table.folder}/{Path(file).stem}"),
            captions=tuple(record[column].strip() for column in _CLOTHO_CAPTIONS),
        )


class ClothoAqa(TableDataset):
    """ClothoAQA: ``clotho_aqa_{test,val,train}.csv`` and ``audio_files/*.wav``; three people answered every question.

    Layout: Zenodo 6473207 (``file_name, QuestionText, answer, confidence``), one answer a line. The answers to a
    question are in ``qa`` one after the other; the evaluation combines them (unanimous, majority or all).
    """

    name, title = "clotho-aqa", "ClothoAQA"
    license, home = "MIT (questions); clips CC", "https://zenodo.org/records/6473207"
    several_records = True
    tables = tuple(
        Table(f"clotho_aqa_{split}.csv", split, ("file_name", "QuestionText", "answer", "confidence"))
        for split in ("test", "val", "train")
    )

    def row(self, record: Record, table: Table) -> DatasetRow | None:
        file, question, answer = record["file_name"], record["QuestionText"].strip(), record["answer"].strip()
        if not (question and answer):
            return None
        return DatasetRow(
            id=f"{table.split}-{Path(file).stem}",
            audio=(f"audio_files/{file}",),
            names=(f"audio_files/{Path(file).stem}",),
            qa=((question, answer),),
        )


class Mmau(TableDataset):
    """MMAU test-mini: ``mmau-test-mini.json`` and ``test-mini-audios/*.wav``, 1000 multiple-choice questions.

    Layout: Sakshi113/MMAU; a record has ``id, audio_id, question, choices, answer, task, category, difficulty``. The
    answers of the large test part are not published. Other sets in the same form (``id, audio_id, question, choices,
    answer``) are also read by this adapter.
    """

    name, title = "mmau", "MMAU test-mini"
    license, home = "CC-BY-NC-SA-4.0 (questions; recordings: their datasets)", "https://github.com/Sakshi113/MMAU"
    tables = (Table("mmau-test-mini.json", columns=("id", "audio_id", "question", "choices", "answer")),)

    def row(self, record: Record, table: Table) -> DatasetRow:
        return DatasetRow(
            id=str(record["id"]),
            audio=(str(record["audio_id"]).removeprefix("./"),),
            names=(Path(str(record["audio_id"])).stem,),
            attributes={name: str(record[name]) for name in ("task", "difficulty") if name in record},
            qa=((record["question"].strip(), str(record["answer"]).strip()),),
            choices=tuple(str(choice).strip() for choice in record["choices"]),
        )
