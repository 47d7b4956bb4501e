"""Blocks of small integers: exact where a matrix came out of such blocks, near to it elsewhere."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from pengi.runtime.blocks import BLOCK, Blocks, quantise


def through(kind: Kind, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind), np.float32)


def random(rows: int = 40, columns: int = 96) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def values(blocks: Blocks) -> NDArray[np.float32]:
    """The matrix ``float32[N, K]`` that blocks stand for."""
    codes = blocks.codes
    if blocks.bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], BLOCK)
    found = blocks.scales_NG[..., None] * (codes.astype(np.float32) - 2 ** (blocks.bits - 1))
    if blocks.offsets_NG is not None:
        found += blocks.offsets_NG[..., None]
    return np.asarray(found, np.float32).reshape(blocks.shape)


@pytest.mark.parametrize(("kind", "bits"), [(Kind.Q4_1, 4), (Kind.Q8_0, 8)])
def test_a_matrix_out_of_gguf_keeps_its_integers(kind: Kind, bits: int) -> None:
    weight = through(kind, random())
    blocks = quantise(weight)
    assert (blocks.bits, blocks.shape) == (bits, (40, 96))
    np.testing.assert_allclose(values(blocks), weight, rtol=0, atol=1e-6)


def test_any_other_matrix_is_rounded_to_eight_bits() -> None:
    weight = random()
    blocks = quantise(weight)
    assert blocks.bits == 8
    largest = np.abs(weight.reshape(40, -1, 32)).max(-1).repeat(32, 1)
    assert (np.abs(values(blocks) - weight) <= largest / 127 / 2 * 1.001).all()


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_constant_blocks_are_kept(value: float) -> None:
    weight = through(Kind.Q4_1, random())
    weight[3] = value
    np.testing.assert_allclose(values(quantise(weight)), weight, rtol=0, atol=1e-6)


def test_one_value_off_the_grid_is_no_four_bit_matrix() -> None:
    weight = through(Kind.Q4_1, random())
    weight[5, 7] += 1e-3
    assert quantise(weight).bits == 8


def test_a_matrix_of_many_rows_is_one_matrix() -> None:
    weight = through(Kind.Q4_1, random(rows=5000, columns=32))
    np.testing.assert_allclose(values(quantise(weight)), weight, rtol=0, atol=1e-6)
