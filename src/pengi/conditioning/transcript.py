"""What is said in a recording: Whisper's decoder behind its frozen encoder, with guards against invented text.

A recording is cut at its pauses into chunks of at most ``MAX_CHUNK_S``. A chunk in which the audio tagger detects
speech is encoded and decoded greedily. Other chunks are skipped, because Whisper writes text about any sound. Text that
nobody could say in that time, and text of which the decoder is unsure, is dropped; a loop is cut to its first round.

    waveform -> chunks at pauses -> speech? -> encoder -> decoder -> guards -> segments

Whisper was trained on windows of 30 s. Here a chunk is followed by silence up to ``WINDOW_S`` only;
``benchmarks/transcription.py`` measures what that costs and saves.

Shape suffixes: B chunks, S samples, T tokens, P encoder positions of 20 ms, D width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from pengi import weights
from pengi.audio.decode import AudioSource, stream
from pengi.audio.windows import at_pauses
from pengi.conditioning.whisper_decoder import WhisperDecoder
from pengi.decoding import DecodeOptions, Hypothesis, generate
from pengi.encoders.base import AudioEncoder
from pengi.encoders.whisper import SAMPLE_RATE, WhisperEncoder
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.results import Transcript, TranscriptSegment

WHISPER, YAMNET = "whisper-tiny.en", "yamnet"  # names of the stock weights
MIN_CHUNK_S, MAX_CHUNK_S = 5.0, 14.0
WINDOW_S = 16.0
"""Length that chunks are padded to, in seconds."""
BATCH_CHUNKS = 8
SPEECH_CLASSES = ("Speech", "Child speech, kid speaking", "Conversation", "Narration, monologue", "Whispering", "Shout")


# Text beyond these bounds is dropped. They are rough, not tuned, and measured by benchmarks/transcription.py.
SPEECH_THRESHOLD = 0.2
"""Lowest probability of speech, by the stock tagger, in the best frame of a chunk."""
MIN_LOG_PROBABILITY = -1.0
"""Lowest mean natural log-probability of a token; Whisper's own default."""
MAX_TOKENS_PER_S = 10.0
"""Nobody speaks faster; a second is granted on top."""


@dataclass(frozen=True)
class _Chunk:
    """A stretch of a recording: its first sample, and ``float32[S]``."""

    start: int
    samples_S: NDArray[np.float32]

    @property
    def duration_s(self) -> float:
        return len(self.samples_S) / SAMPLE_RATE


class Transcriber:
    """Turns speech into text; English only, as the recogniser is.

    Args:
        encoder: Whisper's.
        decoder: Whisper's.
        tagger: detects whether there is speech at all.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, encoder: WhisperEncoder, decoder: WhisperDecoder, tagger: YamnetTagger) -> None:
        self.encoder, self.decoder, self.tagger = encoder.eval(), decoder.eval(), tagger
        self._speech = [tagger.classes.index(name) for name in SPEECH_CLASSES]

    @classmethod
    def from_pretrained(
        cls, device: torch.device | str = "cpu", encoders: Mapping[str, AudioEncoder] | None = None
    ) -> Self:
        """Stock weights by name, fetched if they are not on this machine.

        Args:
            device: where to.
            encoders: stock encoders by name that are on this device already, so that they are not loaded again.

        Raises:
            WeightsError: if they cannot be fetched or verified.
        """
        whisper, yamnet = weights.resolve(WHISPER), weights.resolve(YAMNET)
        loaded = encoders or {}
        encoder, tagger = loaded.get(WHISPER), loaded.get(YAMNET)
        return cls(
            encoder if isinstance(encoder, WhisperEncoder) else WhisperEncoder.from_folder(whisper).to(device),
            WhisperDecoder.from_folder(whisper).to(device),
            YamnetTagger.from_folder(yamnet, tagger if isinstance(tagger, YamnetEncoder) else None).to(device),
        )

    def transcribe(self, source: AudioSource, *, track: int | None = None, partial: bool = False) -> Transcript:
        """What is said in a recording of any length, in bounded memory; ``track`` and ``partial`` are those of
        :func:`pengi.audio.decode.load`.

        Raises:
            AudioError, InputError: as :func:`pengi.audio.decode.stream`.
        """
        samples = 0
        notes: list[str] = []

        def counted() -> Iterator[NDArray[np.float32]]:
            nonlocal samples
            for block in stream(source, SAMPLE_RATE, track=track, partial=partial, notes=notes):
                samples += len(block)
                yield block

        segments = tuple(self.segments(counted()))
        text = " ".join(segment.text for segment in segments)
        return Transcript(text, segments, samples / SAMPLE_RATE, notes=tuple(notes))

    def segments(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[TranscriptSegment]:
        """The segments of :meth:`transcribe`, as they are found.

        Args:
            blocks: a recording in blocks ``float32[S]`` at 16 kHz, as of :func:`pengi.audio.decode.stream`.
        """
        chunks = (_Chunk(*chunk) for chunk in at_pauses(blocks, SAMPLE_RATE, MIN_CHUNK_S, MAX_CHUNK_S))
        while batch := list(islice(chunks, BATCH_CHUNKS)):
            yield from self._segments(batch)

    def _segments(self, chunks: Sequence[_Chunk]) -> list[TranscriptSegment]:
        """What is said in each of the chunks in which there is speech, in their order."""
        texts = self.texts([chunk.samples_S for chunk in chunks])
        return [
            TranscriptSegment(chunk.start / SAMPLE_RATE, chunk.start / SAMPLE_RATE + chunk.duration_s, text)
            for chunk, text in zip(chunks, texts, strict=True)
            if text
        ]

    @torch.inference_mode()
    def texts(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        """What is said in each of some waveforms ``float32[S]`` at 16 kHz, of at most ``MAX_CHUNK_S`` each; empty where
        nobody speaks."""
        spoken = [
            index
            for index, waveform_S in enumerate(waveforms)
            if self._speech_probability(waveform_S) >= SPEECH_THRESHOLD
        ]
        texts = [""] * len(waveforms)
        for start in range(0, len(spoken), BATCH_CHUNKS):
            batch = spoken[start : start + BATCH_CHUNKS]
            for index, text in zip(batch, self._decoded([waveforms[index] for index in batch]), strict=True):
                texts[index] = text
        return texts

    def _speech_probability(self, waveform_S: NDArray[np.float32]) -> float:
        waveform_1S = torch.from_numpy(waveform_S)[None].to(self.decoder.device)
        logits_1TC, _ = self.tagger(waveform_1S, torch.tensor([waveform_1S.shape[1]]))
        return float(logits_1TC[0, :, self._speech].amax().sigmoid())

    def _decoded(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        samples = round(WINDOW_S * SAMPLE_RATE)
        waveform_BS = torch.zeros(len(waveforms), samples, device=self.decoder.device)
        for row, waveform_S in enumerate(waveforms):
            waveform_BS[row, : len(waveform_S)] = torch.from_numpy(waveform_S)
        audio_BPD = self.encoder.positions(waveform_BS)
        durations_s = [len(waveform_S) / SAMPLE_RATE for waveform_S in waveforms]
        options = DecodeOptions(beams=1, max_tokens=self._max_tokens(max(durations_s)))
        mask_BP = audio_BPD.new_ones(audio_BPD.shape[:2], dtype=torch.bool)
        found = generate(self.decoder, audio_BPD, mask_BP, options)
        return [self._text(best, duration_s) for (best, *_), duration_s in zip(found, durations_s, strict=True)]

    def _max_tokens(self, duration_s: float) -> int:
        return round(MAX_TOKENS_PER_S * (duration_s + 1.0))

    def _text(self, hypothesis: Hypothesis, duration_s: float) -> str:
        """The text of a chunk of ``duration_s``; empty if it is beyond the bounds."""
        if hypothesis.score < MIN_LOG_PROBABILITY:
            return ""
        whole = self.decoder.tokenizer.decode(list(hypothesis.tokens)).strip()
        text = without_loops(whole)
        # A text that does not end within its time is a loop; if no loop can be found to cut, the text is dropped.
        ended = hypothesis.finished and len(hypothesis.tokens) <= self._max_tokens(duration_s)
        return text if re.search(r"\w", text) and (ended or text != whole) else ""


def without_loops(text: str) -> str:
    """A text that ends in a loop, cut after the loop's first round: "Third. Third. Third." becomes "Third."

    Two rounds may be meant; with the beginning of a third one they are a loop.
    """
    words = text.split()
    for start in range(len(words)):
        for period in range(1, (len(words) - start - 1) // 2 + 1):
            rest = words[start:]
            # The last round of a loop may be cut off.
            if all(word.casefold() == rest[index % period].casefold() for index, word in enumerate(rest)):
                return " ".join(words[: start + period])
    return text
