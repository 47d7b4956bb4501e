"""Writes generated examples as a corpus: manifest, labels and recordings."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from pengi.data.manifest import Clip, Label, written_row
from pengi.data.tolerance import Tolerance
from pengi.errors import AudioError, ManifestError
from pengi.progress import track
from pengi.writing import new_folder


class Example(Protocol):
    """A row of a manifest, without a length until it is rendered."""

    @property
    def clip(self) -> Clip: ...


@dataclass(frozen=True)
class Rendered:
    """A waveform ``float32[S]``, and the fields of its row that follow from rendering."""

    samples: NDArray[np.float32]
    fields: Mapping[str, Any] = field(default_factory=dict)


E = TypeVar("E", bound=Example)


def write_examples(
    examples: Sequence[E],
    render: Callable[[E], Rendered],
    labels: Iterable[Label],
    out: Path,
    *,
    rate: int,
    workers: int,
    max_bad_share: float,
    extras: Callable[[E], dict[str, Any]],
) -> Path:
    """Write ``manifest.jsonl``, ``labels.jsonl`` and a FLAC file of each example in ``audio``.

    Args:
        examples: in the order of the manifest.
        render: makes the waveform of an example, or raises :class:`AudioError`; has to be picklable.
        labels: what is written to ``labels.jsonl``.
        out: a new folder; it appears complete or not at all.
        rate: of the waveforms, in Hz.
        workers: processes that render; their number changes nothing.
        max_bad_share: share of the examples that may fail; they are logged and left out.
        extras: further fields of an example's row.

    Returns:
        The manifest.

    Raises:
        InputError: if ``out`` exists or cannot be written.
        ManifestError: if more examples fail than may, or all of them.
    """
    bad = Tolerance(max_bad_share)
    with new_folder(out) as folder:
        (folder / "audio").mkdir()
        with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
            for example, outcome in _each_written(examples, partial(_write, render, folder, rate), workers):
                if isinstance(outcome, AudioError):
                    bad.skip(example.clip.id, outcome)
                    continue
                clip = example.clip.model_copy(update=outcome)
                manifest.write(written_row(clip, **extras(example)))
        bad.check(len(examples), "examples")
        if len(bad.skipped) == len(examples):
            raise ManifestError("none of the examples could be made")
        rows = [label.model_dump_json() + "\n" for label in labels]
        (folder / "labels.jsonl").write_text("".join(rows), encoding="utf-8")
    return out / "manifest.jsonl"


def _each_written(
    examples: Sequence[E], write: Callable[[E], dict[str, Any] | AudioError], workers: int
) -> Iterator[tuple[E, dict[str, Any] | AudioError]]:
    """Each example, in order, with the fields of its row that follow from rendering, or with the error."""
    if workers == 1:
        yield from ((example, write(example)) for example in track(examples, "rendering"))
        return
    # Not forked: libraries that decode may hold locks.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        outcomes = pool.map(write, examples, chunksize=8)
        yield from ((example, next(outcomes)) for example in track(examples, "rendering"))


def _write(render: Callable[[E], Rendered], folder: Path, rate: int, example: E) -> dict[str, Any] | AudioError:
    try:
        rendered = render(example)
    except AudioError as error:
        return error
    content = io.BytesIO()  # soundfile does not say why a file cannot be written
    soundfile.write(content, rendered.samples, rate, format="FLAC", subtype="PCM_16")
    (folder / example.clip.audio).write_bytes(content.getvalue())
    return {"duration_s": round(len(rendered.samples) / rate, 3), **rendered.fields}
