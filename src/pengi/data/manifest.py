"""Manifests: JSON lines, one labelled clip a row; every mistake is an error with its line number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pengi.errors import ManifestError

SPLITS = ("train", "val", "test", "heldout")


class QuestionAnswer(BaseModel):
    """A question about one clip and its answer."""

    model_config = ConfigDict(frozen=True)

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class Clip(BaseModel):
    """One row. Unknown fields are free extras and are ignored."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(min_length=1)
    audio: str = Field(min_length=1, description="path of the recording, relative to the manifest's folder")
    split: Literal["train", "val", "test", "heldout"]
    group: str = ""
    source: str = ""
    license: str = ""
    ship: bool = False
    duration_s: float | None = Field(None, gt=0)
    domain: str = ""
    events: tuple[str, ...] = ()
    attributes: dict[str, str | int | float | bool] = Field(default_factory=dict)
    qa: tuple[QuestionAnswer, ...] = ()


class Label(BaseModel):
    """One row of a labels file: how a label is said in words."""

    model_config = ConfigDict(frozen=True)

    label: str = Field(min_length=1)
    phrase: str = Field(min_length=1, description='completes "the sound of ..."')
    sentence: str = Field(min_length=1, description="a plain caption")
    audioset: str | None = Field(None, description="nearest AudioSet display name")
    category: str = ""


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ManifestError(f"no manifest at '{path}'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"'{path}' cannot be read as a text file of JSON lines") from error
    # Not splitlines, which would also cut at the line separators that a JSON string may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{path}, line {number}: not valid JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{path}, line {number}: a row must be a JSON object")
        yield number, row


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"field '{field}': {first['msg'][:1].lower()}{first['msg'][1:]}"


def read_manifest(path: Path, *, check_audio: bool = True) -> list[Clip]:
    """Read all clips of a manifest.

    Raises:
        ManifestError: missing manifest, bad JSON, bad or missing field, unknown split, repeated id, no rows, or (with
            ``check_audio``) an audio file that is not there; the message carries the line number.
    """
    clips: list[Clip] = []
    line_of: dict[str, int] = {}
    for number, row in _rows(path):
        try:
            clip = Clip.model_validate(row)
        except ValidationError as error:
            raise ManifestError(f"{path}, line {number}: {_explain(error)}") from error
        if clip.id in line_of:
            raise ManifestError(f"{path}, line {number}: id '{clip.id}' stands already in line {line_of[clip.id]}")
        if check_audio and not (path.parent / clip.audio).is_file():
            raise ManifestError(f"{path}, line {number}: no audio file at '{clip.audio}'")
        line_of[clip.id] = number
        clips.append(clip)
    if not clips:
        raise ManifestError(f"{path} has no rows")
    return clips


def read_labels(path: Path) -> dict[str, Label]:
    """Read a labels file: label -> its wording.

    Raises:
        ManifestError: missing file, bad JSON, bad or missing field, repeated label; with the line number.
    """
    labels: dict[str, Label] = {}
    for number, row in _rows(path):
        try:
            label = Label.model_validate(row)
        except ValidationError as error:
            raise ManifestError(f"{path}, line {number}: {_explain(error)}") from error
        if label.label in labels:
            raise ManifestError(f"{path}, line {number}: label '{label.label}' stands already in an earlier line")
        labels[label.label] = label
    return labels
