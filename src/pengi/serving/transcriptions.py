"""OpenAI's address for transcripts, ``/v1/audio/transcriptions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from pengi.exports import FORMATS, rows_of
from pengi.results import Transcript
from pengi.serving import queries
from pengi.serving.replies import RefusalError
from pengi.serving.uploads import ERRORS, AudioFile, Worker, answer, require_one_file

TranscriptFormat = Literal["json", "verbose_json", "text", "srt", "vtt"]
ENGLISH = ("en", "english")

router = APIRouter(
    prefix="/v1/audio", tags=["OpenAI protocol"], responses=ERRORS, dependencies=[Depends(require_one_file)]
)


@router.post("/transcriptions", response_model=None)
async def transcriptions(
    worker: Worker,
    file: AudioFile,
    model: Annotated[str, Form(description="Any name: a server has one model.")] = "",
    response_format: Annotated[TranscriptFormat, Form()] = "json",
    language: Annotated[str | None, Form(description="Only English is supported.")] = None,
    stream: Annotated[bool, Form()] = False,
    granularities: Annotated[
        list[Literal["segment", "word"]] | None,
        Form(alias="timestamp_granularities[]", description="What `verbose_json` has times for."),
    ] = None,
) -> Response:
    """What is said in the recording, with times; empty where nobody speaks. `prompt` and `temperature` are ignored."""
    if language is not None and language.lower() not in ENGLISH:
        raise _unsupported("only English is transcribed; leave 'language' out", "language")
    if stream:
        raise _unsupported("a transcript is not streamed; leave 'stream' out", "stream")
    transcript = await answer(worker, file, queries.transcribe())
    if response_format == "json":
        return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})
    if response_format == "verbose_json":
        return JSONResponse(_verbose(transcript, granularities or ["segment"]))
    if response_format == "text":
        return PlainTextResponse(f"{transcript.text}\n")
    return PlainTextResponse(_subtitles(response_format, transcript))


def _verbose(transcript: Transcript, granularities: Sequence[str]) -> dict[str, Any]:
    times: dict[str, Any] = {}
    if "segment" in granularities:
        times["segments"] = [
            {"id": number, "start": part.start_s, "end": part.end_s, "text": part.text}
            for number, part in enumerate(transcript.segments)
        ]
    if "word" in granularities:
        times["words"] = [
            {"word": word.text, "start": word.start_s, "end": word.end_s}
            for part in transcript.segments
            for word in part.words
        ]
    return {
        "task": "transcribe",
        "language": "english",
        "duration": transcript.duration_s,
        "text": transcript.text,
        **times,
        "usage": _usage(transcript),
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(transcript.duration_s)}


def _subtitles(name: str, transcript: Transcript) -> str:
    format = FORMATS[name]
    rows = enumerate(rows_of("", transcript), start=1)
    return format.header + "".join(format.line(row, number, 0.0) for number, row in rows)


def _unsupported(message: str, param: str) -> RefusalError:
    return RefusalError(400, message, code="unsupported", param=param)
