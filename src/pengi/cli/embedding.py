"""``embed``: recordings in, one file of vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pengi.cli.console import guarded, progress, say, say_error, say_json
from pengi.cli.files import check_target, written_whole
from pengi.cli.options import AUTO, DEFAULT_MODEL, Debug, Device, Files, Json, Model
from pengi.cli.session import FILES_PER_CALL, chunks, finish, load_model, sentence_about
from pengi.errors import PengiError

if TYPE_CHECKING:
    import numpy as np

    from pengi.engine import Pengi

_SUFFIX = ".npz"


@guarded
def embed(
    files: Files,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.npz", help="Where to write.", show_default=False)],
    model: Model = DEFAULT_MODEL,
    json: Json = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Write one vector per recording: arrays `embeddings` [N, D] and `files` [N].

    Files that cannot be read are left out of the arrays.
    """
    check_target(out, _SUFFIX)
    vectors, kept, errors = _embed_all(load_model(model, device), files)
    for file, error in errors:
        say_error(sentence_about(file, error))
    if kept:
        _write(out, vectors, kept)
    if json:
        say_json(
            {
                "out": str(out) if kept else None,
                "files": [str(file) for file in kept],
                "dim": len(vectors[0]) if kept else None,
                "errors": [{"input": str(file), "error": str(error)} for file, error in errors],
            }
        )
    elif kept:
        say(Text(f"{out}: {len(kept)} x {len(vectors[0])}"))
    finish(len(errors), len(files))


def _embed_all(
    engine: Pengi, files: list[Path]
) -> tuple[list[np.ndarray[Any, Any]], list[Path], list[tuple[Path, PengiError]]]:
    """Vectors, the files they are of, and the errors of the other files."""
    vectors: list[np.ndarray[Any, Any]] = []
    kept: list[Path] = []
    errors: list[tuple[Path, PengiError]] = []
    with progress("Listening", len(files)) as waiting:
        for part in chunks(files, FILES_PER_CALL):
            for file, outcome in zip(part, engine.embed(list(part), on_error="return"), strict=True):
                if isinstance(outcome, PengiError):
                    errors.append((file, outcome))
                else:
                    vectors.append(outcome)
                    kept.append(file)
            waiting.advance(len(part))
    return vectors, kept, errors


def _write(out: Path, vectors: list[np.ndarray[Any, Any]], files: list[Path]) -> None:
    import numpy as np

    with written_whole(out) as partial:
        np.savez(partial, embeddings=np.stack(vectors), files=np.array([str(file) for file in files]))
