"""``embed``: writes the vectors of recordings to one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pengi.batching import batched
from pengi.cli.console import guarded, print_error, print_json, print_note, print_text, progress
from pengi.cli.exporting import check_target
from pengi.cli.inputs import InputFile, read_arguments
from pengi.cli.options import CommonOptions, Files, TrackOptions
from pengi.cli.session import (
    FILES_PER_CALL,
    finish,
    load_model,
    outcomes_of,
    with_name,
)
from pengi.errors import PengiError
from pengi.writing import replacing

if TYPE_CHECKING:
    import numpy as np

    from pengi.engine import Pengi

_SUFFIX = ".npz"


@guarded
def embed(
    files: Files,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE.npz", help="NumPy file to write the vectors to.", show_default=False),
    ],
    *,
    reading: TrackOptions,
    common: CommonOptions,
) -> None:
    """Write one vector for each recording: the arrays `embeddings` [N, D] and `files` [N].

    Files that cannot be read are left out of the arrays.

    Examples:
        pengi embed a.wav b.mp3 --out vectors.npz
        pengi embed recordings/ --out vectors.npz
    """
    check_target(out, _SUFFIX)
    recordings = read_arguments(files).items
    vectors, kept, errors = _embed_all(load_model(common.model, common.device), recordings, reading)
    for name, error in errors:
        print_error(with_name(name, error))
    if kept:
        _write(out, vectors, kept)
    if common.json:
        print_json(
            {
                "out": str(out) if kept else None,
                "files": kept,
                "dim": len(vectors[0]) if kept else None,
                "errors": [{"input": name, "error": str(error)} for name, error in errors],
            }
        )
    elif kept:
        print_text(Text(f"{out}: {len(kept)} x {len(vectors[0])}"))
    finish(len(errors), len(recordings))


def _embed_all(
    engine: Pengi, recordings: Sequence[InputFile], reading: TrackOptions
) -> tuple[list[np.ndarray[Any, Any]], list[str], list[tuple[str, PengiError]]]:
    """Vectors, the names of their recordings, and the errors of the other recordings."""
    vectors: list[np.ndarray[Any, Any]] = []
    kept: list[str] = []
    errors: list[tuple[str, PengiError]] = []
    with progress("Reading", len(recordings)) as waiting:
        for part in batched(recordings, FILES_PER_CALL):
            outcomes = outcomes_of(
                part,
                lambda sources: engine.encode(sources, for_text=False, on_error="return", **vars(reading)),
            )
            for recording, outcome in zip(part, outcomes, strict=True):
                if isinstance(outcome, PengiError):
                    errors.append((recording.name, outcome))
                else:
                    for note in outcome.notes:
                        print_note(note)
                    vectors.append(engine.embed(outcome))
                    kept.append(recording.name)
            waiting.advance(len(part))
    return vectors, kept, errors


def _write(out: Path, vectors: list[np.ndarray[Any, Any]], files: list[str]) -> None:
    import numpy as np

    with replacing(out) as partial:
        np.savez(partial, embeddings=np.stack(vectors), files=np.array(files))
