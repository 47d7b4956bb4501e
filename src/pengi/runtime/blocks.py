"""Matrices in blocks of small integers, as ``MatMulNBits`` of onnxruntime reads them.

A block is 32 neighbouring values of a row. Matrices that come out of a GGUF file in 4-bit (``Q4_1``: ``w = d q + m``)
or 8-bit (``Q8_0``: ``w = d q``) blocks are recognised by their values. The same integers and scales are used again, so
nothing is lost. All other matrices are rounded to 8 bits.

``MatMulNBits`` multiplies by ``scale * (code - zero)``. Its fast kernels need an integer zero point, which ``-m / d``
is not. So the zero point is the middle of the range, and the rest of the block, ``offset = m + zero * d``, is a
constant that is multiplied by the sum of the block's inputs: a product of low rank (:mod:`pengi.runtime.graph`).

Shape suffixes: N output and K input features, G = K / 32 blocks of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
_ZERO = {4: 8, 8: 128}
_ROWS_AT_ONCE = 4096  # rows of the matrix that are searched at once, which bounds the memory


@dataclass(frozen=True)
class Blocks:
    """``w = scale * (code - zero) + offset`` with a zero point of ``2 ** (bits - 1)``."""

    bits: int
    codes: NDArray[np.uint8]
    """uint8[N, G, 32 * bits / 8]; a byte with two 4-bit codes has the first one in its lower half."""
    scales_NG: NDArray[np.float32]
    offsets_NG: NDArray[np.float32] | None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.codes.shape[0], self.codes.shape[1] * BLOCK


def quantise(weight_NK: NDArray[np.float32]) -> Blocks:
    """A matrix in blocks: 4 bits where that is exact, else 8 bits.

    Args:
        weight_NK: float32[N, K]; K is a multiple of 32.
    """
    blocks_NG32 = weight_NK.reshape(len(weight_NK), -1, BLOCK)
    parts = [blocks_NG32[start : start + _ROWS_AT_ONCE] for start in range(0, len(blocks_NG32), _ROWS_AT_ONCE)]
    four = []
    for part in parts:
        found = _four_bits(part)
        if found is None:
            return _eight_bits(parts)
        four.append(found)
    codes, scales_NG, offsets_NG = (np.concatenate(values) for values in zip(*four, strict=True))
    return Blocks(4, codes, scales_NG, offsets_NG)


def _four_bits(
    blocks_NG32: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]] | None:
    """Codes, scales and offsets of ``Q4_1`` blocks, whose range is 15 steps; None if the values have other blocks."""
    low_NG = blocks_NG32.min(axis=-1)
    step_NG = _half((blocks_NG32.max(axis=-1) - low_NG) / 15)
    codes_NG32 = np.rint((blocks_NG32 - low_NG[..., None]) / np.where(step_NG > 0, step_NG, 1)[..., None])
    if not np.array_equal(codes_NG32 * step_NG[..., None] + low_NG[..., None], blocks_NG32):
        return None
    codes = codes_NG32.astype(np.uint8)
    if codes.max(initial=0) > 15:
        return None
    return codes[..., 0::2] | codes[..., 1::2] << 4, step_NG, low_NG + _ZERO[4] * step_NG


def _eight_bits(parts: list[NDArray[np.float32]]) -> Blocks:
    """The matrix in ``Q8_0`` blocks; rounded if its values have other blocks."""
    codes, scales = [], []
    for blocks_NG32 in parts:
        scale_NG = np.abs(blocks_NG32).max(axis=-1) / 127
        rounded_NG = _half(scale_NG)
        if _same(blocks_NG32, rounded_NG):
            scale_NG = rounded_NG
        codes.append((_nearest(blocks_NG32, scale_NG) + _ZERO[8]).astype(np.uint8))
        scales.append(scale_NG)
    return Blocks(8, np.concatenate(codes), np.concatenate(scales), None)


def _nearest(blocks_NG32: NDArray[np.float32], scale_NG: NDArray[np.float32]) -> NDArray[np.float32]:
    nearest: NDArray[np.float32] = np.rint(blocks_NG32 / np.where(scale_NG > 0, scale_NG, 1)[..., None])
    return nearest


def _same(blocks_NG32: NDArray[np.float32], scale_NG: NDArray[np.float32]) -> bool:
    nearest_NG32 = _nearest(blocks_NG32, scale_NG)
    return bool(np.abs(nearest_NG32).max(initial=0) <= 127) and np.array_equal(
        nearest_NG32 * scale_NG[..., None], blocks_NG32
    )


def _half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """GGUF keeps scales in half precision."""
    return values.astype(np.float16).astype(np.float32)
