"""Transcripts and descriptors of training clips, measured once per recording and kept on disk.

A run that was killed continues where it stopped. If there are two runs at once, one measures and the other waits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pengi.audio.decode import load
from pengi.data.features import features_folder
from pengi.data.manifest import Clip
from pengi.data.recordings import fingerprint, recording
from pengi.data.tolerance import MAX_BAD_SHARE, Tolerance
from pengi.errors import AudioError
from pengi.hashes import text_sha256
from pengi.json_lines import JsonLines
from pengi.progress import track
from pengi.writing import locked

log = logging.getLogger(__name__)

FORMAT = 1
BATCH_CLIPS = 8


@dataclass(frozen=True)
class Measured:
    """Measurements of a recording other than its tags.

    Attributes:
        transcript: what is said; empty if nothing is.
        descriptors: sentences about level, pitch and the like.
    """

    transcript: str
    descriptors: tuple[str, ...]


Measure = Callable[[Sequence[NDArray[np.float32]]], Sequence[Measured]]
"""Measures recordings ``float32[S]``."""


def cached_measurements(
    clips: Sequence[Clip],
    audio_root: Path,
    measure: Measure,
    version: str,
    rate: int,
    window_s: float,
    max_bad_share: float = MAX_BAD_SHARE,
) -> dict[str, Measured]:
    """Measurements of all clips that can be read, by clip id.

    Args:
        clips: their ``audio`` is relative to ``audio_root``.
        audio_root: the manifest's folder.
        measure: called with a few recordings at a time.
        version: identifies everything that the measurements depend on besides the recording.
        rate: of the recordings, in Hz.
        window_s: measured length from the beginning of a recording, in seconds.
        max_bad_share: share of the clips that may be unreadable; they are logged and left out.

    Raises:
        ManifestError: if more of the clips than that cannot be read.
    """
    name = text_sha256(f"{FORMAT} {version} {rate} {window_s}")[:16]
    path = features_folder() / f"measured-{name}.jsonl"
    keys = {clip.id: _key(audio_root, clip) for clip in clips}
    bad = Tolerance(max_bad_share)
    with locked(path, wait=True):
        lines = JsonLines(path)
        lines.mend()
        known = _known(lines)
        missing = list({keys[clip.id]: clip for clip in clips if keys[clip.id] not in known}.items())
        for start in track(range(0, len(missing), BATCH_CLIPS), "transcripts and descriptors"):
            waveforms: dict[str, NDArray[np.float32]] = {}
            for key, clip in missing[start : start + BATCH_CLIPS]:
                try:
                    waveforms[key] = load(recording(audio_root, clip.audio), rate, duration_s=window_s)
                except AudioError as error:
                    bad.skip(clip.id, error)
            found = dict(zip(waveforms, measure(list(waveforms.values())) if waveforms else (), strict=True))
            lines.append({"recording": key, **asdict(measured)} for key, measured in found.items())
            known |= found
    bad.check(len(clips), "clips")
    return {clip.id: known[keys[clip.id]] for clip in clips if keys[clip.id] in known}


def _key(audio_root: Path, clip: Clip) -> str:
    return text_sha256(json.dumps(fingerprint(audio_root, clip.audio)))[:24]


def _known(lines: JsonLines) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for row in lines:
        try:
            found[row["recording"]] = Measured(row["transcript"], tuple(row["descriptors"]))  # type: ignore[index]
        except (KeyError, TypeError):
            log.warning("a line of '%s' is damaged; that recording is measured again", lines.path)
    return found
