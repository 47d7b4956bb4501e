"""Reads labelled clips from manifests, CSV files, folders of ``label/*.wav``, shards and mixtures of these."""

from __future__ import annotations

import csv
import difflib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pengi.audio.formats import FolderWalk
from pengi.data.manifest import SPLITS, Clip, read_manifest, validated
from pengi.data.recordings import is_there, is_url
from pengi.data.shards import read_shards
from pengi.data.tasks import ATTRIBUTE_TASKS
from pengi.errors import ManifestError
from pengi.hashes import text_sha256

VAL_SHARE = 0.2
_MANIFEST = "manifest.jsonl"
# Name of a column of a CSV file -> the field that it fills.
_COLUMNS = {
    "path": "audio", "audio": "audio", "file": "audio", "filename": "audio", "file_name": "audio",
    "text": "captions", "caption": "captions", "label": "events", "labels": "events", "events": "events",
    "question": "question", "answer": "answer", "split": "split", "id": "id", "group": "group", "domain": "domain",
    "title": "title", "tags": "tags", "description": "description", "license": "license",
}  # fmt: skip
ATTRIBUTES = (*ATTRIBUTE_TASKS, "pitch")
_SEPARATOR, _FOLDER_SEPARATOR = ";", ","
NO_EVENT = ("background", "noise", "silence")
"""Names of folders of recordings that have none of the labels."""
_NEGATIVE = "-"
"""Prefix of a label that a recording does not have. It makes no statement about other labels."""
_LIKE_A_COLUMN = 0.75


@dataclass(frozen=True)
class Manifest:
    """Clips and the folder that their recordings' paths are relative to."""

    clips: tuple[Clip, ...]
    root: Path


def manifest_of(path: Path | str, *, max_bad_share: float = 0.0) -> Manifest:
    """Read the clips of one of these:

    * a manifest (``.jsonl``), or a folder that holds a ``manifest.jsonl``;
    * a CSV file with a header: ``path``, and any of ``text`` (a caption), ``label`` (several separated by ``;``, with
      ``-`` in front of what is not there), ``question`` and ``answer``, attributes such as ``emotion``; ``split``,
      ``id``, ``group``. Rows of the same path are one clip;
    * a folder of ``label/*.wav`` (or any audio, at any depth), or of ``train/label/*.wav`` and ``val/label/*.wav``.
      Labels of one folder are separated by commas; ``background``, ``noise`` and ``silence`` are no labels, and
      ``-label`` means recordings without that label;
    * tar shards, local or a URL, see :mod:`pengi.data.shards`.

    If no split is given, a share :data:`VAL_SHARE` of the clips of each label becomes ``val``. They are chosen by a
    hash of their group, or else of their id, so the choice is the same every time.

    Args:
        path: the file or folder.
        max_bad_share: share of the rows of a manifest or of shards that may be bad; they are logged and left out.

    Raises:
        ManifestError: if nothing is there, or it has a mistake; the message has the line number, if there are lines.
    """
    # pathlib removes one of the two slashes of a URL.
    location = re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", str(path))
    if location.endswith(".tar"):
        root = Path() if is_url(location) else Path(location).parent
        return Manifest(tuple(read_shards([location], split="train", max_bad_share=max_bad_share)), root)
    path = Path(path)
    if path.is_dir() and not (path / _MANIFEST).is_file():
        return Manifest(tuple(_with_splits(_folder_rows(path))), path)
    if path.suffix.lower() == ".csv":
        return Manifest(tuple(_with_splits(_csv_rows(path))), path.parent)
    manifest = path / _MANIFEST if path.is_dir() else path
    return Manifest(tuple(read_manifest(manifest, max_bad_share=max_bad_share)), manifest.parent)


def read_mixture(paths: Mapping[str, Path | str], *, max_bad_share: float = 0.0) -> list[Clip]:
    """Clips of the sources of a mixture, in one list.

    Args:
        paths: name -> whatever :func:`manifest_of` reads.
        max_bad_share: as for :func:`manifest_of`.

    Returns:
        Clips whose ``audio`` is absolute, whose ``corpus`` is the name of their source, and whose ``id`` and ``group``
        begin with it.

    Raises:
        ManifestError: as :func:`manifest_of`.
    """
    clips: list[Clip] = []
    for name, path in paths.items():
        source = manifest_of(path, max_bad_share=max_bad_share)
        clips += [_in_corpus(clip, name, source.root.resolve()) for clip in source.clips]
    return clips


def _in_corpus(clip: Clip, name: str, root: Path) -> Clip:
    audio = clip.audio if is_url(clip.audio) else str(root / clip.audio)
    group = f"{name}/{clip.group}" if clip.group else ""
    return clip.model_copy(update={"id": f"{name}/{clip.id}", "group": group, "audio": audio, "corpus": name})


def _folder_rows(root: Path) -> list[dict[str, Any]]:
    """A row for each recording of a folder. The first folder of its path, or the one below the split, is the label."""
    if not root.is_dir():
        raise ManifestError(f"no folder at '{root}'")
    found = list(FolderWalk(root))
    for item in found:
        if item.error is not None:
            raise ManifestError(item.error)
    files = sorted(Path(item.path).relative_to(root) for item in found)
    if not files:
        raise ManifestError(f"'{root}' holds no recordings; put them into one folder for each label")
    by_split = {path.parts[0] for path in files} <= set(SPLITS)
    rows = []
    for path in files:
        folders = path.parts[1:-1] if by_split else path.parts[:-1]
        if not folders:
            raise ManifestError(f"'{root / path}' has no label: put it into a folder named after its label")
        row = {"id": path.as_posix(), "audio": path.as_posix(), **_labels_of_folder(folders[0])}
        rows.append(row | {"split": path.parts[0]} if by_split else row)
    return rows


def _labels_of_folder(name: str) -> dict[str, list[str]]:
    """Events that are present and absent in the recordings of a folder."""
    if name.lower() in NO_EVENT:
        return {"events": []}
    return _labels(name.replace("_", " ").split(_FOLDER_SEPARATOR))


def _labels(parts: Sequence[str]) -> dict[str, list[str]]:
    """Events, and absent ones, which begin with :data:`_NEGATIVE`."""
    names = [part.strip() for part in parts if part.strip(f"{_NEGATIVE} ")]
    absent = [name.removeprefix(_NEGATIVE).strip() for name in names if name.startswith(_NEGATIVE)]
    found = {"events": [name for name in names if not name.startswith(_NEGATIVE)]}
    return found | {"absent": absent} if absent else found


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """A row for each recording that a CSV file names."""
    rows: dict[str, dict[str, Any]] = {}
    audio_of: dict[str, str] = {}
    for number, values in _csv_lines(path):
        origin = f"{path}, line {number}"
        audio = values.get("audio")
        if not audio:
            raise ManifestError(f"{origin}: the path is empty")
        if not is_there(path.parent, audio):
            raise ManifestError(f"{origin}: no audio file at '{audio}'")
        row = _csv_row(values, origin)
        if audio in rows:
            _join(rows[audio], row, origin)
        else:
            rows[audio] = {"id": audio, **row}
        validated(Clip, {"split": "train", **rows[audio]}, origin)
        first = audio_of.setdefault(rows[audio]["id"], audio)
        if first != audio:
            raise ManifestError(f"{origin}: id '{rows[audio]['id']}' already belongs to '{first}'")
    if not rows:
        raise ManifestError(f"{path} has no rows")
    return list(rows.values())


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of the last line of each record, and the record's values by field; empty ones are left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            fields = _csv_fields(reader.fieldnames or (), path)
            for record in reader:
                if None in record or None in record.values():
                    raise ManifestError(f"{path}, line {reader.line_num}: {len(fields)} columns are expected here")
                cells = {fields[column]: (text or "").strip() for column, text in record.items() if column in fields}
                if any(cells.values()):
                    yield reader.line_num, {name: text for name, text in cells.items() if text}
    except FileNotFoundError as error:
        raise ManifestError(f"no manifest at '{path}'") from error
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num + 1}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"'{path}' cannot be read as a CSV file") from error


def _csv_fields(header: Sequence[str], path: Path) -> dict[str, str]:
    """Column -> field. Unknown columns are left out; one that resembles a known name is an error."""
    known = {**_COLUMNS, **{name: name for name in ATTRIBUTES}}
    fields: dict[str, str] = {}
    for column in header:
        name = (column or "").strip().lower()
        if name in known:
            if known[name] in fields.values():
                raise ManifestError(f"{path}, line 1: two columns for the same thing, the second is '{column}'")
            fields[column] = known[name]
        elif nearest := difflib.get_close_matches(name, known, 1, _LIKE_A_COLUMN):
            raise ManifestError(f"{path}, line 1: there is no column '{column}'; did you mean '{nearest[0]}'?")
    if "audio" not in fields.values():
        raise ManifestError(f"{path}, line 1: the header needs a column 'path', as in: path,text")
    if not set(fields.values()) & {"captions", "events", "question", "title", "tags", "description", *ATTRIBUTES}:
        raise ManifestError(f"{path}, line 1: the header needs a column 'text' or 'label' beside the path")
    if ("question" in fields.values()) != ("answer" in fields.values()):
        raise ManifestError(f"{path}, line 1: the columns 'question' and 'answer' must be used together")
    return fields


def _csv_row(values: Mapping[str, str], origin: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: values[name] for name in ("id", "audio", "group", "domain", "title", "description", "license", "split")
        if name in values
    }  # fmt: skip
    if "events" in values:
        row |= _labels(values["events"].split(_SEPARATOR))
    if "tags" in values:
        row["tags"] = [part.strip() for part in values["tags"].split(_SEPARATOR) if part.strip()]
    if "captions" in values:
        row["captions"] = [values["captions"]]
    if attributes := {name: values[name] for name in ATTRIBUTES if name in values}:
        row["attributes"] = attributes
    if ("question" in values) != ("answer" in values):
        raise ManifestError(f"{origin}: a question needs an answer, and an answer a question")
    if "question" in values:
        row["qa"] = [{"question": values["question"], "answer": values["answer"]}]
    return row


def _join(row: dict[str, Any], more: Mapping[str, Any], origin: str) -> None:
    """Add a further line about the same recording: more captions, labels and questions, but no contradiction."""
    for name, value in more.items():
        if isinstance(value, list):
            row[name] = [*row.get(name, []), *(item for item in value if item not in row.get(name, []))]
        elif row.setdefault(name, value) != value and name != "id":
            raise ManifestError(f"{origin}: {name} of '{row['audio']}' is '{value}' here but '{row[name]}' before")


def _with_splits(rows: Sequence[dict[str, Any]]) -> list[Clip]:
    """Clips of rows; those without a split are divided between train and val, label by label."""
    by_label: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        if "split" not in row:
            by_label[(*row.get("events", ()), *(_NEGATIVE + name for name in row.get("absent", ())))].add(_unit(row))
    val = {
        unit
        for units in by_label.values()
        for unit in sorted(units, key=text_sha256)[: round(VAL_SHARE * len(units))]
    }  # fmt: skip
    clips = []
    for row in rows:
        split = row.get("split") or ("val" if _unit(row) in val else "train")
        clips.append(Clip.model_validate({**row, "split": split}))
    return clips


def _unit(row: Mapping[str, Any]) -> str:
    """The unit that stays in one split: the group of a row, or else its id."""
    return str(row.get("group") or row["id"])
