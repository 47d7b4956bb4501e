"""Manifests: JSON lines, one labelled clip a row; every mistake is an error with its line number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pengi.data.recordings import is_there
from pengi.data.tolerance import Tolerance
from pengi.errors import ManifestError, reason

SPLITS = ("train", "val", "test", "heldout")


class QuestionAnswer(BaseModel):
    """A question about one clip and its answer."""

    model_config = ConfigDict(frozen=True)

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    kind: str = Field("", description="what is asked for; training draws among the kinds before it draws a question")
    accepted: tuple[str, ...] = Field(
        (), description="patterns of all right answers, for evaluation, see pengi.evaluation.patterns"
    )


class EventTime(BaseModel):
    """The time of an event in a clip."""

    model_config = ConfigDict(frozen=True)

    event: str = Field(min_length=1)
    start_s: float = Field(ge=0)
    end_s: float = Field(gt=0)
    level_db: float = Field(0.0, description="loudness beside the clip's other events")


class Clip(BaseModel):
    """One row. Unknown fields are free extras and are ignored."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(min_length=1)
    audio: str = Field(min_length=1, description="path of the recording, relative to the manifest's folder")
    split: Literal["train", "val", "test", "heldout"]
    group: str = ""
    source: str = ""
    license: str = ""
    origin: str = Field("", description="where the recording is from, for its credit")
    ship: bool = False
    redistribute: bool = Field(True, description="whether the audio file itself may be published")
    duration_s: float | None = Field(None, gt=0)
    domain: str = ""
    events: tuple[str, ...] = ()
    absent: tuple[str, ...] = Field((), description="events that are surely not there; of others nothing is known")
    attributes: dict[str, str | int | float | bool] = Field(default_factory=dict)
    qa: tuple[QuestionAnswer, ...] = ()
    choices: tuple[str, ...] = Field((), description="the answers to choose from, if ``qa`` has a single question")
    times: tuple[EventTime, ...] = Field((), description="every occurrence of every event, if all are known")
    captions: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="written descriptions; without any, the labels' sentences serve"
    )
    title: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""
    corpus: str = Field("", description="which manifest of a mixture the row is from")


class Label(BaseModel):
    """One row of a labels file: a label and its wordings."""

    model_config = ConfigDict(frozen=True)

    label: str = Field(min_length=1)
    phrase: str = Field(min_length=1, description='completes "the sound of ..."')
    sentence: str = Field(min_length=1, description="a plain caption")
    audioset: str | None = Field(None, description="nearest AudioSet display name")
    category: str = ""


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank, each with its number from 1, without reading the whole file into memory.

    Raises:
        ManifestError: if there is no such file or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise ManifestError(f"there is no file '{path}'") from error
    except OSError as error:
        raise ManifestError(f"'{path}' cannot be read: {reason(error)}") from error


def json_row(line: bytes, origin: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        ManifestError: if it is not a JSON object; the message begins with ``origin``.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{origin}: not valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{origin}: not valid JSON (the text is not UTF-8)") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{origin}: a row must be a JSON object")
    return row


def read_manifest(path: Path, *, check_audio: bool = True, max_bad_share: float = 0.0) -> list[Clip]:
    """Read all clips of a manifest.

    Args:
        path: JSON lines.
        check_audio: whether a missing audio file is an error.
        max_bad_share: share of the rows that may be bad; they are logged and left out.

    Raises:
        ManifestError: missing manifest, bad JSON, bad or missing field, unknown split, repeated id, no rows, or (with
            ``check_audio``) an audio file that is not there; the message carries the line number.
    """
    clips: list[Clip] = []
    line_of: dict[str, int] = {}
    bad = Tolerance(max_bad_share)
    total = 0
    for number, line in numbered_lines(path):
        total += 1
        origin = f"{path}, line {number}"
        try:
            clip = validated(Clip, json_row(line, origin), origin)
            if check_audio and not is_there(path.parent, clip.audio):
                raise ManifestError(f"{origin}: no audio file at '{clip.audio}'")
            if clip.id in line_of:
                raise ManifestError(f"{origin}: id '{clip.id}' is already in line {line_of[clip.id]}")
        except ManifestError as error:
            if not max_bad_share:
                raise
            bad.skip(origin, error)
            continue
        line_of[clip.id] = number
        clips.append(clip)
    bad.check(total, "rows")
    if not clips:
        raise ManifestError(f"{path} has no rows")
    return clips


M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], row: Mapping[str, Any], origin: str) -> M:
    """A row as an instance of a model.

    Raises:
        ManifestError: if the row is not valid; the message begins with ``origin``.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field, message = ".".join(map(str, first["loc"])), first["msg"]
        raise ManifestError(f"{origin}: field '{field}': {message[:1].lower()}{message[1:]}") from error


def read_labels(path: Path) -> dict[str, Label]:
    """Read a labels file: label -> its wording.

    Raises:
        ManifestError: missing file, bad JSON, bad or missing field, repeated label; with the line number.
    """
    labels: dict[str, Label] = {}
    for number, line in numbered_lines(path):
        origin = f"{path}, line {number}"
        label = validated(Label, json_row(line, origin), origin)
        if label.label in labels:
            raise ManifestError(f"{origin}: label '{label.label}' is already in an earlier line")
        labels[label.label] = label
    return labels


def written_row(clip: Clip, **extras: Any) -> str:
    """A clip as a line of a manifest; fields with default values are left out."""
    row = clip.model_dump(mode="json", exclude_defaults=True, exclude={"corpus"})
    return json.dumps(row | extras, ensure_ascii=False) + "\n"
