"""Mixes channels to one: their mean, or the loudest channel where they cancel each other out.

The mean of two channels of opposite phase, as from a balanced line that is wired wrongly, is silence. The decision is
made for fixed stretches of the recording, so it does not depend on how the recording is read.

Shape suffixes: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pengi.errors import AudioError

CELL_S = 10.0
"""Length in seconds of the stretches for which the decision is made."""
CANCEL_DB = 20.0
"""The mean of the channels is not used where it is quieter than the loudest channel (RMS) by more than this."""
_POWER_RATIO = 10.0 ** (-CANCEL_DB / 10.0)
_SILENT_POWER = 1e-8  # -80 dBFS: below this level a stretch is silent, whichever channel is used


@dataclass
class MixDown:
    """The mix of one recording, and where its channels cancel.

    Args:
        cell: length of a stretch in samples; stretch ``k`` starts at sample ``k * cell`` of the recording.
    """

    cell: int
    cancelled: list[tuple[int, int]] = field(default_factory=list)
    """Start and end, in samples, of the stretches in which one channel is used."""

    def blocks(self, blocks_CS: Iterator[NDArray[np.float32]], first: int) -> Iterator[NDArray[np.float32]]:
        """Blocks ``float32[C, S]`` that begin at sample ``first`` of the recording, as blocks ``float32[S]``.

        C may change between blocks. Blocks of one channel are passed on at once; blocks of several are held until a
        stretch is complete. If reading fails, the samples read so far are yielded before the error is raised.
        """
        held: list[NDArray[np.float32]] = []
        position = first  # of the first sample that is not mixed yet

        def mixed() -> Iterator[NDArray[np.float32]]:
            nonlocal position
            if held:
                stretch_S = self._mixed(np.concatenate(held, axis=1), position)
                held.clear()
                position += len(stretch_S)
                yield stretch_S

        try:
            for block_CS in blocks_CS:
                if held and len(held[0]) != len(block_CS):
                    yield from mixed()
                if len(block_CS) == 1:
                    position += block_CS.shape[1]
                    yield block_CS[0]
                    continue
                rest_CS = block_CS
                while rest_CS.shape[1]:
                    filled = position + sum(part.shape[1] for part in held)
                    room = self.cell - filled % self.cell
                    held.append(rest_CS[:, :room])
                    if rest_CS.shape[1] >= room:
                        yield from mixed()
                    rest_CS = rest_CS[:, room:]
        except AudioError:
            yield from mixed()
            raise
        yield from mixed()

    def _mixed(self, samples_CS: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        mean_S = np.asarray(np.mean(samples_CS, axis=0, dtype=np.float64), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # samples that are not finite are found later
            power_C = np.array([_power(channel_S) for channel_S in samples_CS])
            loudest = int(power_C.argmax())
            cancels = _power(mean_S) < _POWER_RATIO * power_C[loudest] and power_C[loudest] > _SILENT_POWER
        if not cancels:
            return mean_S
        self.cancelled.append((start, start + len(mean_S)))
        loudest_S: NDArray[np.float32] = samples_CS[loudest]
        return loudest_S


def _power(samples_S: NDArray[np.float32]) -> float:
    return float(np.dot(samples_S, samples_S)) / max(1, len(samples_S))
