"""A tiny random model with a chat template, and a tagger that knows the sounds of these tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from helpers import CHAT, RATE, noise, tiny_model, tone
from pengi import Pengi
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.encoders.base import Masked

VOCABULARY = Vocabulary(
    (
        Tag("whistle", "sound", ("a whistle blowing",)),
        Tag("hum", "sound"),
        Tag("rain", "sound", ("rain falling",), "Rain"),
        Tag("speech", "sound", (), "Speech"),
        Tag("flute", "instrument"),
        Tag('"rain"', "keyword", ("rain",)),
        Tag("stop", "keyword"),
    )
)
RAIN = noise(5.0, level=0.2)
WHISTLE = tone(5.0, 3000.0)
HUM = tone(5.0, 200.0)
SPEECH = tone(5.0, 700.0)
"""No speech, but what the tagger of these tests takes for it."""
_HERTZ = {"whistle": 3000.0, "hum": 200.0, "speech": 700.0}


class Recogniser:
    """Says a text for every waveform, and counts them."""

    def __init__(self, text: str = "Come here.") -> None:
        self.text = text
        self.lengths: list[int] = []

    def texts(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        self.lengths += [len(waveform) for waveform in waveforms]
        return [self.text] * len(waveforms)


def chat_pengi(recogniser: Recogniser | None = None, **changes: Any) -> Pengi:
    """A chat model whose tagger detects tones of some frequencies, and noise as rain."""
    model = tiny_model(**{**CHAT, **changes})
    model.set_vocabulary(VOCABULARY)
    pengi = Pengi(model, "tiny", torch.device("cpu"))
    vars(pengi)["_transcriber"] = recogniser or Recogniser()
    encoder = pengi._encoder
    encode, windows = encoder.tokens, list[NDArray[np.float32]]()

    def tokens(given: Sequence[NDArray[np.float32]]) -> list[Masked]:
        windows[:] = given
        return encode(given)

    def tag_scores(encoded: Sequence[Masked]) -> list[torch.Tensor]:
        counts = encoded[0][1].sum(1).tolist()
        return [_scores(window_S, frames) for window_S, frames in zip(windows, counts, strict=True)]

    vars(encoder).update(tokens=tokens, tag_scores=tag_scores)
    return pengi


def _scores(window_S: NDArray[np.float32], frames: int) -> torch.Tensor:
    """Scores ``[T, K]``: 6 for the sound of a frame, -6 for others."""
    scores_TK = torch.full((frames, len(VOCABULARY)), -6.0)
    for frame in range(frames):
        start = round(0.48 * frame * RATE)
        part = window_S[start : start + round(0.96 * RATE)]
        if not len(part) or np.sqrt(np.mean(part**2)) < 0.01:
            continue
        power_F = np.abs(np.fft.rfft(part)) ** 2
        peak = int(power_F.argmax())
        hertz = peak * RATE / len(part)
        nearest = min(_HERTZ, key=lambda name: abs(_HERTZ[name] - hertz))
        near = power_F[max(0, peak - 3) : peak + 4].sum() / power_F.sum()
        name = nearest if near > 0.5 else "rain"
        scores_TK[frame, [tag.text for tag in VOCABULARY.tags].index(name)] = 6.0
    return scores_TK


def joined(*parts: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Sounds one behind the other, as the engine takes them."""
    return np.concatenate(parts), RATE
