"""One address for each method of the engine; the recording is a file in a form."""

from __future__ import annotations

import io
import json
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from pydantic import BaseModel, BeforeValidator, Field

from pengi.calls import ClassifyOptions, Style
from pengi.errors import InputError
from pengi.results import Answer, Classification, Description, Tags, Timeline
from pengi.serving import queries
from pengi.serving.chat import MAX_QUESTION
from pengi.serving.inference_worker import InferenceWorker
from pengi.serving.limits import media_type
from pengi.serving.queries import Query
from pengi.serving.replies import RefusalError
from pengi.serving.settings import ServingSettings

R = TypeVar("R")
MAX_LABELS = 256
MAX_LABEL = 200  # characters
SHORTEST_HOP_S = 0.25
_AS_A_FILE = "send the recording as a file of a multipart form, as curl -F file=@dog.wav does"

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A mistake in the request"},
    413: {"description": "The upload is too large"},
    415: {"description": "The body is of another content type than this address reads"},
    422: {"description": "Not audio, damaged, empty, too long, or samples that are not finite"},
    429: {"description": "Too many requests; the header Retry-After says when to retry"},
    504: {"description": "No answer in time"},
}


async def _worker_of(request: Request) -> InferenceWorker:
    worker: InferenceWorker = request.app.state.worker
    return worker


async def require_one_file(request: Request) -> None:
    """Check that an upload is a form with one recording as a file; FastAPI reports a missing file."""
    kind = media_type(request.headers)
    if kind not in ("", "multipart/form-data"):
        raise RefusalError(
            415, f"this address reads a form, not '{kind[:80]}': {_AS_A_FILE}", code="content_type", param="file"
        )
    files = (await request.form()).getlist("file")
    if len(files) > 1:
        raise RefusalError(400, f"send one recording in 'file', not {len(files)}", code="invalid_field", param="file")
    if files and isinstance(files[0], str):
        raise RefusalError(
            400, f"'file' is a text field without a file name: {_AS_A_FILE}", code="invalid_field", param="file"
        )


Worker = Annotated[InferenceWorker, Depends(_worker_of)]
AudioFile = Annotated[UploadFile, Field(description="The recording; its file name does not matter.")]

ExplainField = Annotated[
    bool, Form(description="Add the tags, the transcript, the descriptors and the prompt behind the answer.")
]
ThresholdField = Annotated[float | None, Form(ge=0, le=1, description="Lowest probability of a tag.")]
LabelsField = Annotated[list[str] | None, Form(description="Only these tags, given as the labels of /v1/classify.")]

router = APIRouter(prefix="/v1", tags=["recordings"], responses=ERRORS, dependencies=[Depends(require_one_file)])


def _flag_or_number(given: object) -> object:
    """The flag or the number that the text of a form field stands for.

    Raises:
        ValueError: if it is neither.
    """
    if not isinstance(given, str):
        return given
    flags = {"true": True, "false": False}
    try:
        return flags[given.strip().lower()] if given.strip().lower() in flags else float(given)
    except ValueError as error:
        raise ValueError("must be true, false or a number") from error


class Embedding(BaseModel):
    """A recording as a vector of length 1."""

    embedding: list[float]


@router.post("/describe")
async def describe(
    worker: Worker,
    file: AudioFile,
    style: Annotated[Style, Form()] = "caption",
    explain: ExplainField = False,
) -> Description:
    """A text about the recording, and its sound events."""
    return await answer(worker, file, queries.describe(style=style, explain=explain))


@router.post("/ask")
async def ask(
    worker: Worker,
    file: AudioFile,
    question: Annotated[str, Form(max_length=MAX_QUESTION, examples=["what instrument is playing?"])],
    explain: ExplainField = False,
) -> Answer:
    """An answer to a question in plain words."""
    if not question.strip():
        raise InputError("the question is empty")
    return await answer(worker, file, queries.ask(question, explain=explain))


@router.post("/classify")
async def classify(
    worker: Worker,
    file: AudioFile,
    labels: Annotated[
        list[str],
        Form(
            description="The field several times, once with commas, or once as a JSON list.",
            examples=[["dog barking", "rain"]],
        ),
    ],
    method: Annotated[Literal["likelihood", "generate"], Form()] = "likelihood",
    top: Annotated[int | None, Form(ge=1, description="Return at most this many labels.")] = None,
    none: Annotated[
        bool | float,
        BeforeValidator(_flag_or_number),
        Form(
            description="Add the label 'none of these'. With a number, it wins if no label has at least this "
            "independent probability."
        ),
    ] = False,
    multi_label: Annotated[bool, Form(description="Add the probability of each label by itself.")] = False,
    prompt: Annotated[
        str | None, Form(max_length=MAX_QUESTION, description="Prompt for labels that are not tags; may end in '{}'.")
    ] = None,
    explain: ExplainField = False,
) -> Classification:
    """The best of your own labels."""
    options = ClassifyOptions(
        method=method, prompt=prompt, top=top, none=none, multi_label=multi_label, explain=explain
    )
    return await answer(worker, file, queries.classify(_labels(labels), **options))


@router.post("/tags")
async def tags(
    worker: Worker,
    file: AudioFile,
    threshold: ThresholdField = None,
    top: Annotated[int | None, Form(ge=1, description="Return at most this many tags.")] = None,
    labels: LabelsField = None,
) -> Tags:
    """Which tags are in the recording, and when."""
    query = queries.tags(threshold=threshold, top=top, labels=None if labels is None else _labels(labels))
    return await answer(worker, file, query)


@router.post("/embed")
async def embed(worker: Worker, file: AudioFile) -> Embedding:
    """A vector of length 1. Recordings that sound alike have vectors with a high cosine."""
    vector_D = await answer(worker, file, queries.embed())
    return Embedding(embedding=vector_D.tolist())


@router.post("/timeline")
async def timeline(
    worker: Worker,
    file: AudioFile,
    threshold: ThresholdField = None,
    labels: Annotated[
        list[str] | None,
        Form(description="Only these: tags, or up to 16 other words, given as the labels of /v1/classify."),
    ] = None,
    min_duration_s: Annotated[float | None, Form(ge=0, description="Leave out shorter events.")] = None,
    merge_gap_s: Annotated[
        float | None, Form(ge=0, description="Join events of one label with a shorter pause between them.")
    ] = None,
    window_s: Annotated[float | None, Form(gt=0, description="Name windows of this many seconds.")] = None,
    hop_s: Annotated[float | None, Form(ge=SHORTEST_HOP_S, description="Seconds from one window to the next.")] = None,
) -> Timeline:
    """What happens when; the events of detected tags may overlap."""
    only = None if labels is None else _labels(labels)
    query = queries.timeline(
        threshold=threshold,
        labels=only,
        min_duration_s=min_duration_s,
        merge_gap_s=merge_gap_s,
        window_s=window_s,
        hop_s=hop_s,
    )
    return await answer(worker, file, query)


async def answer(worker: InferenceWorker, file: UploadFile, query: Query[R]) -> R:
    """The answer to a query about an uploaded file.

    Raises:
        RefusalError: if it is too large.
    """
    check_size(file.size or 0, worker.settings)
    return await worker.answer(worker.submit(Upload(await file.read()), query))


class Upload(io.BytesIO):
    """An uploaded recording; ``name`` is its name in messages."""

    name = "the recording"


def check_size(count: int, settings: ServingSettings) -> None:
    """Check the size of a recording.

    Raises:
        RefusalError: if it is larger than the settings allow.
    """
    if count > settings.upload_bytes:
        limit = f"{settings.max_upload_mb:g} MB"
        raise RefusalError(413, f"the recording is too large; up to {limit} are accepted", code="too_large")


def _labels(given: list[str]) -> list[str]:
    """Labels of a form: several fields, or one field with a JSON list or with commas.

    Raises:
        InputError: if a list is not JSON, or there are too many or too long labels; the engine checks the rest.
    """
    labels = [label.strip() for label in (_listed(given[0]) if len(given) == 1 else given)]
    if len(labels) > MAX_LABELS or any(len(label) > MAX_LABEL for label in labels):
        raise InputError(f"give at most {MAX_LABELS} labels of at most {MAX_LABEL} characters")
    return labels


def _listed(text: str) -> list[str]:
    """The labels in one field.

    Raises:
        InputError: if it is a JSON list with other values than texts, or a malformed list of texts.
    """
    if not text.lstrip().startswith("["):
        return text.split(",")
    try:
        labels = json.loads(text)
    except ValueError as error:
        if not text.lstrip().startswith(('["', "['")):
            return text.split(",")  # "[music], [noise]" is two labels
        raise InputError('\'labels\' is not a valid JSON list, such as ["dog", "rain"]') from error
    if not all(isinstance(label, str) for label in labels):
        raise InputError('\'labels\' must be a JSON list of texts, such as ["dog", "rain"]')
    return list(labels)
