"""Encodes recordings to audio tokens and evidence, window by window, in bounded memory.

    recording -> blocks -> windows -> encoders -> audio tokens -> tagger -> tags and their times
                                   -> transcriber, if there is speech -> transcript
                                   -> descriptors

If the model reads transcripts, windows are cut at pauses, so that they also serve as the transcriber's chunks.

Shape suffixes: B windows, S samples, T audio tokens, D features, K tags.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, TypeAlias, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from pengi.audio.decode import AudioSource, stream
from pengi.audio.level import SILENCE_DB, rms_db, sound_level_db, without_offset
from pengi.audio.sources import Many, ReadingOptions, Waveform
from pengi.audio.windows import at_pauses, sliding
from pengi.batching import shared_batches
from pengi.caching import RecentCache
from pengi.conditioning.collect import TagCollector
from pengi.conditioning.descriptors import describe_waveform, level_course, level_sentence
from pengi.conditioning.evidence import Evidence
from pengi.conditioning.tagger import Tagger
from pengi.conditioning.transcript import MAX_CHUNK_S, SPEECH_CLASSES, Transcriber
from pengi.encoders.base import Masked
from pengi.errors import PengiError
from pengi.model import PengiModel

WINDOWS = 16  # windows in one call of an audio encoder
MIN_SEGMENT_S = 0.1  # a shorter rest after the last window is added to that window
MAX_TOKENS = 2**14
"""Maximum number of audio tokens of a branch and recording; in longer recordings neighbours are averaged."""
MAX_DESCRIBED_S = 30.0
"""Longest recording with all descriptors, in seconds; of longer ones only the level is described."""
ENVELOPE_S = 0.5
MIN_SPEECH_PROBABILITY = 0.05
"""A window is transcribed if the tagger gives speech at least this probability in any frame. The transcriber then uses
another threshold."""
MAX_FIRST_WORDS, MAX_LAST_WORDS = 80, 40
"""Number of words from the start and from the end of a longer transcript that the language model reads."""

OnError = Literal["raise", "return"]


@dataclass(frozen=True)
class Encoded:
    """An encoded recording: the tokens ``float32[T, D]`` of every audio branch, and what was detected."""

    tokens: tuple[Tensor, ...]
    duration_s: float
    level_db: float
    """RMS level of the loudest window without its constant offset, in dBFS; below ``SILENCE_DB`` it is silent."""
    evidence: Evidence | None = None
    """What is measured in it; None for a model without a tagger and without evidence."""
    probability_K: Tensor | None = None
    """Highest probability of every tag in any window; None for a model without a tagger."""
    log_odds_K: Tensor | None = None
    """Log-odds of every tag in the recording as a whole."""
    index: int = 0
    """Its index among the recordings of the call."""
    notes: tuple[str, ...] = ()
    """Sentences about how it was read."""
    key: str | None = None
    """Identifies the content in the caches; None if it is not cached."""

    @property
    def is_silent(self) -> bool:
        """Whether the recording is below the silence threshold."""
        return self.level_db < SILENCE_DB

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        scores = [tensor_K for tensor_K in (self.probability_K, self.log_odds_K) if tensor_K is not None]
        return sum(tensor.nbytes for tensor in (*self.tokens, *scores))


Recording: TypeAlias = AudioSource | Encoded
"""A recording, before or after encoding."""
Recordings: TypeAlias = Many[Recording]


class RecordingEncoder:
    """Encodes recordings for a model.

    Args:
        model: its encoders and its tagger are run.
        device: where they are.
        transcriber: loads the transcriber; called once it is needed.
    """

    def __init__(self, model: PengiModel, device: torch.device, transcriber: Callable[[], Transcriber]) -> None:
        self._model, self._device, self._transcriber = model, device, transcriber
        self.recent: RecentCache[Encoded] | None = None
        """Cache of encoded waveforms, so that further questions about one do not encode it again; None for no cache."""

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that every recording is resampled to before it is encoded."""
        rates = {branch.encoder.sample_rate for branch in self._model.branches.values()}
        assert len(rates) == 1, "audio branches of different rates"
        return rates.pop()

    @property
    def window_s(self) -> float:
        """Longest audio that is encoded at once, in seconds."""
        return min(branch.window_s for branch in self._model.config.audio.values())

    @property
    def frame_s(self) -> float:
        """Time from one frame of the tagger to the next, in seconds."""
        assert self._model.config.tagger is not None, "the model has no tagger"
        return self._model.branches[self._model.config.tagger.branches[0]].encoder.token_s

    @property
    def _transcribes(self) -> bool:
        config = self._model.config.evidence
        return config is not None and config.transcript

    def windows(
        self, source: AudioSource, *, notes: list[str] | None = None, **reading: Unpack[ReadingOptions]
    ) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """A recording in windows: start in seconds, and ``float32[S]`` at :attr:`sample_rate`.

        Raises:
            AudioError, InputError: as :func:`pengi.audio.decode.stream`, while iterating.
        """
        rate = self.sample_rate
        blocks = self.blocks(source, notes=notes, **reading)
        if self._transcribes:
            longest_s = min(self.window_s, MAX_CHUNK_S)
            cut = at_pauses(blocks, rate, longest_s / 2, longest_s)
        else:
            window = round(self.window_s * rate)
            # A very short rest is added to the window before it, as in a timeline.
            cut = sliding(blocks, window, window, min_tail=round(MIN_SEGMENT_S * rate))
        for start, window_S in cut:
            yield start / rate, window_S

    def blocks(
        self, source: AudioSource, *, notes: list[str] | None = None, **reading: Unpack[ReadingOptions]
    ) -> Iterator[NDArray[np.float32]]:
        """A recording in blocks ``float32[S]`` at :attr:`sample_rate`, which are then cut into windows.

        Raises:
            AudioError, InputError: as :func:`pengi.audio.decode.stream`, while iterating.
        """
        return stream(source, self.sample_rate, notes=notes, **reading)

    def prepared(self, window_S: NDArray[np.float32]) -> NDArray[np.float32]:
        """A window as the audio encoders get it: without its constant offset."""
        return without_offset(window_S)

    @overload
    def encode(
        self,
        sources: Sequence[Recording],
        on_error: Literal["raise"] = ...,
        *,
        for_text: bool = ...,
        **reading: Unpack[ReadingOptions],
    ) -> list[Encoded]: ...
    @overload
    def encode(
        self,
        sources: Sequence[Recording],
        on_error: OnError,
        *,
        for_text: bool = ...,
        **reading: Unpack[ReadingOptions],
    ) -> list[Encoded | PengiError]: ...
    def encode(
        self,
        sources: Sequence[Recording],
        on_error: OnError = "raise",
        *,
        for_text: bool = True,
        **reading: Unpack[ReadingOptions],
    ) -> list[Encoded] | list[Encoded | PengiError]:
        """Encode recordings; windows of different recordings share a batch.

        Args:
            sources: recordings; encoded ones are returned unchanged.
            on_error: "raise", or "return" to give an error instead of a recording that cannot be read.
            for_text: whether the language model will be run; only then are recordings transcribed and described.
            reading: how they are read.
        """
        keys = [self._key(source, for_text) for source in sources]
        outcomes: dict[int, Encoded | PengiError] = {}
        to_read: list[tuple[int, AudioSource]] = []
        for index, (source, key) in enumerate(zip(sources, keys, strict=True)):
            known = source if isinstance(source, Encoded) else self._known(key)
            if known is not None:
                outcomes[index] = replace(known, index=index)
            elif not isinstance(source, Encoded):
                to_read.append((index, source))
        readings = (_Reading(self, index, source, for_text) for index, source in to_read)
        windows_of = partial(self._windows_of, on_error=on_error, options=reading)
        for batch, ended in shared_batches(readings, windows_of, WINDOWS):
            if batch:
                self._read(batch, for_text)
            outcomes |= {reading.index: reading.outcome() for reading in ended}
        return [self._kept(outcomes[index], key) for index, key in enumerate(keys)]

    def _key(self, source: Recording, for_text: bool) -> str | None:
        """The key by which a waveform's encoding is cached: its content, and whether it is encoded for text."""
        if self.recent is None or not isinstance(source, Waveform):
            return None
        samples = np.ascontiguousarray(source.samples)
        content = hashlib.sha256(samples.view(np.uint8).reshape(-1).data).hexdigest()
        return f"{content} {samples.dtype} {samples.shape} {source.sample_rate} {for_text}"

    def _known(self, key: str | None) -> Encoded | None:
        return None if self.recent is None or key is None else self.recent.get(key)

    def _kept(self, outcome: Encoded | PengiError, key: str | None) -> Encoded | PengiError:
        if self.recent is None or key is None or isinstance(outcome, PengiError) or outcome.key is not None:
            return outcome
        kept = replace(outcome, key=key)
        self.recent.put(key, kept, kept.size)
        return kept

    def _windows_of(
        self, reading: _Reading, on_error: OnError, options: ReadingOptions
    ) -> Iterator[NDArray[np.float32]]:
        """The windows of a recording; unless it is raised, an error is stored in its reading."""
        try:
            for _, window_S in self.windows(reading.source, notes=reading.notes, **options):
                yield window_S
        except PengiError as error:
            if on_error == "raise":
                raise
            reading.error = error

    @torch.inference_mode()
    def tokens(self, windows: Sequence[NDArray[np.float32]]) -> list[Masked]:
        """Audio tokens of every branch, ``[B, T, D]``, of windows."""
        waveform_BS = pad_sequence([torch.from_numpy(self.prepared(window)) for window in windows], batch_first=True)
        lengths_B = torch.tensor([len(window) for window in windows], device=self._device)
        return self._model.encode(waveform_BS.to(self._device), lengths_B)

    @torch.inference_mode()
    def tag_scores(self, tokens: Sequence[Masked]) -> list[Tensor]:
        """The tagger's scores ``[T, K]`` of each window."""
        return [scores_TK[mask_T] for scores_TK, mask_T in zip(*self._model.tag_scores(tokens), strict=True)]

    @torch.inference_mode()
    def _read(self, batch: Sequence[tuple[_Reading, NDArray[np.float32]]], for_text: bool) -> None:
        """Encode windows and add them to the readings of their recordings."""
        windows = [window_S for _, window_S in batch]
        # On a CPU one by one: a batch is hardly faster, and rounding would depend on the other windows.
        parts = [[window_S] for window_S in windows] if self._device.type == "cpu" else [windows]
        tokens: list[list[Tensor]] = []
        scores: list[Tensor | None] = []
        for part in parts:
            found = self.tokens(part)
            tokens += [[values_BTD[row][mask_BT[row]] for values_BTD, mask_BT in found] for row in range(len(part))]
            scores += self.tag_scores(found) if self._model.tagger is not None else [None] * len(part)
        texts = self._transcribed(windows, scores) if for_text and self._transcribes else [""] * len(batch)
        for row, (reading, window_S) in enumerate(batch):
            reading.add(window_S, tokens[row], scores[row])
            if texts[row]:
                reading.texts.append(texts[row])

    def _transcribed(self, windows: Sequence[NDArray[np.float32]], scores: Sequence[Tensor | None]) -> list[str]:
        """The transcript of each window; "" where there is no speech."""
        texts = [""] * len(windows)
        spoken = [row for row, scores_TK in enumerate(scores) if self._may_speak(windows[row], scores_TK)]
        if spoken:
            for row, text in zip(spoken, self._transcriber().texts([windows[row] for row in spoken]), strict=True):
                texts[row] = text
        return texts

    def _may_speak(self, window_S: NDArray[np.float32], scores_TK: Tensor | None) -> bool:
        if sound_level_db(window_S) < SILENCE_DB:
            return False
        if scores_TK is None or not self._speech_tags:
            return True
        assert self._model.tagger is not None
        highest_K = self._model.tagger.log_odds(scores_TK).amax(0).sigmoid()
        return float(highest_K[self._speech_tags].amax()) >= MIN_SPEECH_PROBABILITY

    @cached_property
    def _speech_tags(self) -> list[int]:
        tags = self._model.tagger.vocabulary.tags if self._model.tagger else ()
        return [index for index, tag in enumerate(tags) if tag.audioset in SPEECH_CLASSES]

    def collector(self) -> TagCollector | None:
        """A collector for the tags of one recording; None for a model without a tagger."""
        tagger: Tagger | None = self._model.tagger
        return None if tagger is None else TagCollector(tagger, self.frame_s)

    def evidence_of(self, reading: _Reading) -> Evidence | None:
        """The evidence about a recording that was read to its end."""
        config = self._model.config.evidence
        if config is None and reading.tags is None:
            return None
        descriptors: tuple[str, ...] = ()
        if config is not None and config.descriptors and reading.for_text:
            descriptors = reading.described(self.sample_rate)
        return Evidence(
            duration_s=reading.samples / self.sample_rate,
            tags=reading.tags.tags() if reading.tags is not None else (),
            transcript=shortened(" ".join(reading.texts)) if self._transcribes and reading.for_text else None,
            descriptors=descriptors,
            is_tagged=reading.tags is not None,
        )


class _Reading:
    """The state of one recording while its windows are encoded."""

    def __init__(self, encoder: RecordingEncoder, index: int, source: AudioSource, for_text: bool) -> None:
        self._encoder = encoder
        self.index, self.source, self.for_text = index, source, for_text
        self.error: PengiError | None = None
        self.notes: list[str] = []
        self.samples = 0
        self.tags = encoder.collector()
        self.texts: list[str] = []
        self._level_db = -math.inf
        self._tokens: list[TokenStore] = []
        self._whole: list[NDArray[np.float32]] | None = [] if for_text else None
        self._envelope: list[NDArray[np.float32]] = []

    def add(self, window_S: NDArray[np.float32], tokens: Sequence[Tensor], scores_TK: Tensor | None) -> None:
        """Add the next window: samples, the tokens ``[T, D]`` of every branch, the tagger's scores."""
        rate = self._encoder.sample_rate
        level_db = sound_level_db(window_S)
        if self.tags is not None and scores_TK is not None and level_db >= SILENCE_DB:
            self.tags.add(scores_TK, self.samples / rate, len(window_S) / rate)
        self._tokens = self._tokens or [TokenStore() for _ in tokens]
        for store, tokens_TD in zip(self._tokens, tokens, strict=True):
            store.add(tokens_TD)
        self.samples += len(window_S)
        self._level_db = max(self._level_db, level_db)
        if not self.for_text:
            return
        self._envelope.append(_envelope(without_offset(window_S), round(ENVELOPE_S * rate)))
        if self._whole is not None:
            self._whole.append(window_S)
            if self.samples > MAX_DESCRIBED_S * rate:
                self._whole = None

    def outcome(self) -> Encoded | PengiError:
        """The encoded recording, or the error for which it cannot be read."""
        if self.error is not None:
            return self.error
        return Encoded(
            tokens=tuple(store.tokens() for store in self._tokens),
            duration_s=self.samples / self._encoder.sample_rate,
            level_db=self._level_db,
            evidence=self._encoder.evidence_of(self),
            probability_K=None if self.tags is None else self.tags.probability_K,
            log_odds_K=None if self.tags is None else self.tags.log_odds_K(),
            index=self.index,
            notes=tuple(self.notes),
        )

    def described(self, rate: int) -> tuple[str, ...]:
        """Sentences about the waveform, or about the level of a long recording and how it changes."""
        if self._level_db < SILENCE_DB:
            return ()
        if self._whole is not None:
            return describe_waveform(np.concatenate(self._whole), rate)
        # The envelope has the same level as the waveform, with two values a second.
        envelope = np.concatenate(self._envelope)
        return (level_sentence(rms_db(envelope), level_course(envelope, round(1 / ENVELOPE_S))),)


class TokenStore:
    """The audio tokens of one branch and recording, at most ``MAX_TOKENS``; in longer ones neighbours are averaged."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._count = 0
        self._run = 1
        """Number of the encoder's tokens that are averaged to one."""
        self._rest: Tensor | None = None

    def add(self, tokens_TD: Tensor) -> None:
        """Add further tokens."""
        if self._rest is not None:
            tokens_TD, self._rest = torch.cat([self._rest, tokens_TD]), None
        whole = len(tokens_TD) - len(tokens_TD) % self._run
        if whole < len(tokens_TD):
            self._rest = tokens_TD[whole:]
        if whole:
            self._parts.append(_averaged(tokens_TD[:whole], self._run))
            self._count += len(self._parts[-1])
        if self._count > MAX_TOKENS:
            self._halve()

    def _halve(self) -> None:
        kept_TD = torch.cat(self._parts)
        even = len(kept_TD) - len(kept_TD) % 2
        if even < len(kept_TD):
            left_TD = kept_TD[even:].expand(self._run, -1)
            self._rest = left_TD if self._rest is None else torch.cat([left_TD, self._rest])
        self._parts = [_averaged(kept_TD[:even], 2)]
        self._count, self._run = even // 2, 2 * self._run

    def tokens(self) -> Tensor:
        """All tokens, ``float32[T, D]``."""
        rest = [] if self._rest is None else [self._rest.mean(0, keepdim=True)]
        return torch.cat([*self._parts, *rest])


def _averaged(tokens_TD: Tensor, run: int) -> Tensor:
    return tokens_TD if run == 1 else functional.avg_pool1d(tokens_TD.T[None], run)[0].T


def _envelope(window_S: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Root mean square of every block of samples; the last one may be shorter."""
    starts = np.arange(0, len(window_S), block)
    energy = np.add.reduceat(window_S.astype(np.float64) ** 2, starts)
    counts = np.diff([*starts, len(window_S)])
    level: NDArray[np.float32] = np.sqrt(energy / counts).astype(np.float32)
    return level


def shortened(transcript: str) -> str:
    """The start and the end of a transcript that is too long to be read completely."""
    words = transcript.split()
    if len(words) <= MAX_FIRST_WORDS + MAX_LAST_WORDS:
        return transcript
    return " ".join([*words[:MAX_FIRST_WORDS], "...", *words[-MAX_LAST_WORDS:]])
