"""Cuts waveforms to one length, or into sliding windows over audio of any length.

Pure functions over mono waveforms ``float32[S]``; lengths, hops and starts are counted in samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pengi.errors import InputError


def crop(samples: NDArray[np.float32], length: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
    """At most ``length`` samples from a random position.

    A waveform that is short enough is returned unchanged, and then the generator is not used.
    """
    spare = len(samples) - length
    if spare <= 0:
        return samples
    start = int(generator.integers(spare + 1))
    return samples[start : start + length]


def sliding(
    blocks: Iterable[NDArray[np.float32]], window: int, hop: int, *, min_tail: int = 1
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Windows over a waveform that arrives in blocks, as from ``decode.stream``; the sizes of the blocks do not matter.

    Window ``k`` starts at ``k * hop`` and is ``window`` samples long. Every sample is in some window, also at the end;
    only the last window may have another length:

    * It is shorter if the waveform ends in it. It is not padded, and it has at least ``min_tail`` samples that are in
      no window before it (a waveform that is shorter than that is a single window).
    * It is longer if fewer than ``min_tail`` samples follow it: they are added to it, instead of making a window that
      is too short to be useful. With the default of 1 this never happens.

    Memory holds one window, one block and ``min_tail`` samples.

    Yields:
        ``(start, float32[S])``; nothing for an empty waveform.

    Raises:
        InputError: if ``window``, ``hop`` or ``min_tail`` is not positive, or if ``hop`` is longer than ``window``,
            which would leave gaps.
    """
    if window < 1 or not 1 <= hop <= window or min_tail < 1:
        raise InputError(
            "windows need a positive length and a positive hop no longer than the window,"
            f" not window {window}, hop {hop}, shortest tail {min_tail} (in samples)"
        )
    return _sliding(blocks, window, hop, min_tail)


def _sliding(
    blocks: Iterable[NDArray[np.float32]], window: int, hop: int, min_tail: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    start = 0
    parts: list[NDArray[np.float32]] = []  # the waveform from ``start`` on, as far as it has arrived
    held = 0
    for block in blocks:
        parts.append(block)
        held += len(block)
        if held < window + min_tail:
            continue
        buffer = np.concatenate(parts)
        # A window is known not to be the last once min_tail samples after it have arrived.
        while len(buffer) >= window + min_tail:
            yield start, buffer[:window].copy()
            buffer = buffer[hop:]
            start += hop
        parts, held = [buffer], len(buffer)
    if held:
        yield start, np.concatenate(parts)


PAUSE_S = 0.2
"""Length in seconds of the stretches whose levels are compared to find a pause."""


def at_pauses(
    blocks: Iterable[NDArray[np.float32]], sample_rate: int, min_s: float, max_s: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Chunks of ``min_s`` to ``max_s`` seconds, cut where it is quietest; the last one may be shorter.

    The chunks follow one another without gaps or overlap; the sizes of the blocks do not matter. Memory holds a chunk
    and a block.

    Yields:
        ``(start, float32[S])``, the start in samples; nothing for an empty waveform.
    """
    shortest, longest, pause = round(min_s * sample_rate), round(max_s * sample_rate), round(PAUSE_S * sample_rate)
    assert 0 < shortest <= longest - pause, "there is no room for a pause"
    start = 0
    held_S = np.zeros(0, np.float32)
    for block in blocks:
        held_S = np.concatenate([held_S, block])
        while len(held_S) > longest:
            end = _quietest(held_S[:longest], shortest, pause)
            yield start, held_S[:end].copy()
            held_S, start = held_S[end:], start + end
    if len(held_S):
        yield start, held_S


def _quietest(samples_S: NDArray[np.float32], first: int, pause: int) -> int:
    """The middle of the stretch of ``pause`` samples with the least energy that begins at ``first`` or later."""
    energy_S = np.concatenate([[0.0], np.cumsum(samples_S.astype(np.float64) ** 2)])
    starts = np.arange(first, len(samples_S) - pause + 1, max(1, pause // 4))
    return int(starts[np.argmin(energy_S[starts + pause] - energy_S[starts])]) + pause // 2
