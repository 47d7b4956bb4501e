"""Transcribes the speech of a recording with Whisper, and guards against invented text.

A recording is cut at its pauses into chunks of at most ``MAX_CHUNK_S``. A chunk in which the audio tagger detects
speech is encoded and decoded greedily. Other chunks are skipped, because Whisper writes text about any sound. Text is
dropped if it is too long for its chunk or its mean log-probability is low. A loop is cut to its first round.

    waveform -> chunks at pauses -> speech? -> encoder -> decoder -> guards -> words with times -> segments

Whisper was trained on windows of 30 s. Here a chunk is padded with silence to ``WINDOW_S`` only;
``benchmarks/transcription.py`` measures what that costs and saves.

Shape suffixes: B chunks, S samples, T tokens, P encoder positions of 20 ms, D width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi import weights
from pengi.audio.decode import AudioSource, stream
from pengi.audio.windows import at_pauses
from pengi.batching import batched
from pengi.conditioning.whisper_decoder import WhisperDecoder
from pengi.conditioning.word_times import MAX_WORD_S, first_positions, lines_of
from pengi.decoding import DecodeOptions, Hypothesis, generate
from pengi.encoders.base import AudioEncoder
from pengi.encoders.whisper import POSITION_HOP, SAMPLE_RATE, WhisperEncoder
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.results import Transcript, TranscriptSegment, TranscriptWord

WHISPER, YAMNET = "whisper-tiny.en", "yamnet"  # names of the stock weights
MIN_CHUNK_S, MAX_CHUNK_S = 5.0, 14.0
WINDOW_S = 16.0
"""Length that chunks are padded to, in seconds."""
BATCH_CHUNKS = 8
SPEECH_CLASSES = ("Speech", "Child speech, kid speaking", "Conversation", "Narration, monologue", "Whispering", "Shout")


# Text outside these bounds is dropped. They are rough and were not tuned; benchmarks/transcription.py measures them.
SPEECH_THRESHOLD = 0.2
"""A chunk is transcribed if the stock tagger's probability of speech reaches this in any frame."""
MIN_LOG_PROBABILITY = -1.0
"""Lowest mean natural log-probability of a token; Whisper's own default."""
MAX_TOKENS_PER_S = 10.0
"""Highest rate of speech; text with more tokens is dropped. One second is added to the length of a chunk."""
MIN_WORD_S = 0.25
"""Shortest time of a word. A repetition is dropped if the sound of its chunk is too short for both rounds."""
AUDIBLE_DB = 30.0
"""A frame counts as sound if it is at most this far below the loudest frame of its chunk, in dB."""
_FRAME = SAMPLE_RATE // 50


@dataclass(frozen=True)
class _Chunk:
    """A stretch of a recording: its first sample, and ``float32[S]``."""

    start: int
    samples_S: NDArray[np.float32]

    @property
    def duration_s(self) -> float:
        return len(self.samples_S) / SAMPLE_RATE


@dataclass(frozen=True)
class _Decoded:
    """The decoder's output for a chunk.

    Attributes:
        text: the text after the guards; empty where nobody speaks.
        tokens: all tokens, before the guards.
        audio_PD: the encoder's states.
    """

    text: str
    tokens: tuple[int, ...]
    audio_PD: Tensor


class Transcriber:
    """Turns English speech into text; the model, Whisper tiny.en, knows no other language.

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
            device: where the weights are loaded to.
            encoders: stock encoders by name that are already on this device, so that they are not loaded again.

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
        """The transcript of a recording of any length, in bounded memory; ``track`` and ``partial`` are as for
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
        for batch in batched(chunks, BATCH_CHUNKS):
            yield from self._segments(batch)

    def _segments(self, chunks: Sequence[_Chunk]) -> Iterator[TranscriptSegment]:
        """The segments of the chunks in which there is speech, in order."""
        for chunk, decoded in zip(chunks, self._decoded([chunk.samples_S for chunk in chunks]), strict=True):
            if decoded is None or not decoded.text:
                continue
            start_s = chunk.start / SAMPLE_RATE
            for line in lines_of(self._words(decoded, chunk.duration_s)):
                words = tuple(TranscriptWord(word.text, start_s + word.start_s, start_s + word.end_s) for word in line)
                text = " ".join(word.text for word in words)
                yield TranscriptSegment(words[0].start_s, words[-1].end_s, text, words)

    def texts(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        """The text of each waveform ``float32[S]`` at 16 kHz, of at most ``MAX_CHUNK_S`` each; empty where nobody
        speaks."""
        return ["" if decoded is None else decoded.text for decoded in self._decoded(waveforms)]

    @torch.inference_mode()
    def _decoded(self, waveforms: Sequence[NDArray[np.float32]]) -> list[_Decoded | None]:
        """See :meth:`texts`; None where no speech is detected."""
        spoken = [
            index
            for index, waveform_S in enumerate(waveforms)
            if self._speech_probability(waveform_S) >= SPEECH_THRESHOLD
        ]
        found: list[_Decoded | None] = [None] * len(waveforms)
        for batch in batched(spoken, BATCH_CHUNKS):
            for index, decoded in zip(batch, self._decode([waveforms[index] for index in batch]), strict=True):
                found[index] = decoded
        return found

    def _speech_probability(self, waveform_S: NDArray[np.float32]) -> float:
        waveform_1S = torch.from_numpy(waveform_S)[None].to(self.decoder.device)
        logits_1TC, _ = self.tagger(waveform_1S, torch.tensor([waveform_1S.shape[1]]))
        return float(logits_1TC[0, :, self._speech].amax().sigmoid())

    def _decode(self, waveforms: Sequence[NDArray[np.float32]]) -> list[_Decoded]:
        samples = round(WINDOW_S * SAMPLE_RATE)
        waveform_BS = torch.zeros(len(waveforms), samples, device=self.decoder.device)
        for row, waveform_S in enumerate(waveforms):
            waveform_BS[row, : len(waveform_S)] = torch.from_numpy(waveform_S)
        audio_BPD = self.encoder.positions(waveform_BS)
        durations_s = [len(waveform_S) / SAMPLE_RATE for waveform_S in waveforms]
        options = DecodeOptions(beams=1, max_tokens=self._max_tokens(max(durations_s)))
        mask_BP = audio_BPD.new_ones(audio_BPD.shape[:2], dtype=torch.bool)
        found = generate(self.decoder, audio_BPD, mask_BP, options)
        return [
            _Decoded(self._text(best, duration_s, audible_s(waveform_S)), best.tokens, audio_PD)
            for (best, *_), duration_s, waveform_S, audio_PD in zip(
                found, durations_s, waveforms, audio_BPD, strict=True
            )
        ]

    @torch.inference_mode()
    def _words(self, decoded: _Decoded, duration_s: float) -> list[TranscriptWord]:
        """The words of a text and when they are said, in seconds from the start of its chunk."""
        texts, tokens = decoded.text.split(), decoded.tokens
        positions = math.ceil(duration_s * SAMPLE_RATE / POSITION_HOP)
        if positions <= len(tokens):  # too short to be divided
            return [TranscriptWord(decoded.text, 0.0, duration_s)]
        logits_HTP = self.decoder.attention(decoded.audio_PD[None], tokens)[..., :positions]
        first_T = first_positions(logits_HTP) * (POSITION_HOP / SAMPLE_RATE)
        # Index of the word that each token belongs to. If a loop was cut, there are more words here than in the text.
        decode = self.decoder.tokenizer.decode
        words_T = [len(decode(list(tokens[: end + 1])).split()) - 1 for end in range(len(tokens))]
        starts = np.searchsorted(words_T, range(words_T[-1] + 2))
        is_said_T = np.array([bool(re.search(r"\w", decode([token]))) for token in tokens])
        words = []
        for index, text in enumerate(texts):
            start, end = starts[index : index + 2]
            said = np.flatnonzero(is_said_T[start:end])
            if len(said):  # punctuation is written in the pause after a word
                end = start + said[-1] + 1
            words.append(_word(text, first_T[start], first_T[end], is_first=index == 0))
        return words

    def _max_tokens(self, duration_s: float) -> int:
        return round(MAX_TOKENS_PER_S * (duration_s + 1.0))

    def _text(self, hypothesis: Hypothesis, duration_s: float, audible_s: float) -> str:
        """The text of a chunk of ``duration_s`` with ``audible_s`` of sound; empty if it is beyond the bounds."""
        if hypothesis.score < MIN_LOG_PROBABILITY:
            return ""
        whole = self.decoder.tokenizer.decode(list(hypothesis.tokens)).strip()
        text = without_loops(whole, audible_s)
        # A text that does not end within its time is a loop; if no loop can be found to cut, the text is dropped.
        ended = hypothesis.finished and len(hypothesis.tokens) <= self._max_tokens(duration_s)
        return text if re.search(r"\w", text) and (ended or text != whole) else ""


def _word(text: str, start_s: float, end_s: float, *, is_first: bool) -> TranscriptWord:
    """A word without the pause after it and, if it is the first of a chunk, without the pause before it."""
    if is_first:
        start_s = max(start_s, end_s - MAX_WORD_S)
    return TranscriptWord(text, float(start_s), float(min(end_s, start_s + MAX_WORD_S)))


def audible_s(waveform_S: NDArray[np.float32]) -> float:
    """Seconds of sound in a waveform ``float32[S]`` at 16 kHz, pauses excluded."""
    frames_FS = waveform_S[: len(waveform_S) // _FRAME * _FRAME].reshape(-1, _FRAME)
    power_F = np.square(frames_FS, dtype=np.float64).mean(1)
    return float((power_F > power_F.max(initial=0.0) * 10.0 ** (-AUDIBLE_DB / 10.0)).sum() * _FRAME / SAMPLE_RATE)


def without_loops(text: str, audible_s: float = math.inf) -> str:
    """A text that ends in a loop, cut after the loop's first round: "Third. Third. Third." becomes "Third."

    A repetition is a loop if a third round begins, or if the sound is too short for two rounds.

    Args:
        text: the decoder's text.
        audible_s: seconds of sound in the recording.
    """
    words = text.split()
    is_rushed = audible_s < MIN_WORD_S * len(words)
    for start in range(len(words)):
        rest = [re.sub(r"\W", "", word).casefold() or word for word in words[start:]]
        for period in range(1, len(rest) // 2 + 1):
            # The last round of a loop may be cut off.
            is_loop = all(word == rest[index % period] for index, word in enumerate(rest))
            if is_loop and (is_rushed or len(rest) > 2 * period):
                return " ".join(words[: start + period])
    return text
