from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pengi.audio.windows import at_pauses, crop, sliding
from pengi.errors import InputError


def ramp(length: int) -> NDArray[np.float32]:
    return np.arange(1, length + 1, dtype=np.float32)


class TestToOneLength:
    def test_random_crop_is_seeded_and_reaches_every_place(self) -> None:
        first = [crop(ramp(10), 4, generator=np.random.default_rng(5))[0] for _ in range(3)]
        assert len(set(first)) == 1
        generator = np.random.default_rng(0)
        crops = [crop(ramp(10), 4, generator=generator) for _ in range(300)]
        assert {int(piece[0]) for piece in crops} == {1, 2, 3, 4, 5, 6, 7}
        assert all((np.diff(piece) == 1).all() and len(piece) == 4 for piece in crops)

    def test_short_waveform_is_not_cropped_and_draws_nothing(self) -> None:
        generator = np.random.default_rng(0)
        assert crop(ramp(3), 4, generator=generator).tolist() == [1, 2, 3]
        assert generator.integers(1000) == np.random.default_rng(0).integers(1000)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[int], int, int, int]:
    """Length of a waveform, where its blocks part, window, hop and shortest tail."""
    length = draw(st.integers(1, 200))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=12)))
    window = draw(st.integers(1, 60))
    return length, cuts, window, draw(st.integers(1, window)), draw(st.integers(1, 30))


class TestSliding:
    @settings(deadline=None)
    @given(cases())
    def test_every_window_is_where_it_says_and_all_is_heard(self, case: tuple[int, list[int], int, int, int]) -> None:
        length, cuts, window, hop, min_tail = case
        samples = ramp(length)
        windows = list(sliding(np.split(samples, cuts), window, hop, min_tail=min_tail))

        assert [start for start, _ in windows] == [k * hop for k in range(len(windows))]
        for start, content in windows:
            np.testing.assert_array_equal(content, samples[start : start + len(content)])
        assert all(len(content) == window for _, content in windows[:-1])
        last_start, last = windows[-1]
        assert last_start + len(last) == length
        assert len(last) < window + min_tail
        if len(windows) > 1:
            assert length - (windows[-2][0] + window) >= min_tail

    @settings(deadline=None)
    @given(cases())
    def test_blocks_are_irrelevant(self, case: tuple[int, list[int], int, int, int]) -> None:
        length, cuts, window, hop, min_tail = case
        split = list(sliding(np.split(ramp(length), cuts), window, hop, min_tail=min_tail))
        whole = list(sliding([ramp(length)], window, hop, min_tail=min_tail))
        assert [(start, content.tolist()) for start, content in split] == [
            (start, content.tolist()) for start, content in whole
        ]

    def test_drawn_example(self) -> None:
        # samples   1 2 3 4 5 6 7 8 9 10      window 4, hop 3
        # windows   1 2 3 4
        #                 4 5 6 7
        #                       7 8 9 10
        assert [(s, c.tolist()) for s, c in sliding([ramp(10)], 4, 3)] == [
            (0, [1, 2, 3, 4]),
            (3, [4, 5, 6, 7]),
            (6, [7, 8, 9, 10]),
        ]

    def test_short_tail_is_its_own_window_or_joins(self) -> None:
        assert [len(content) for _, content in sliding([ramp(11)], 5, 5)] == [5, 5, 1]
        assert [len(content) for _, content in sliding([ramp(11)], 5, 5, min_tail=2)] == [5, 6]
        assert [len(content) for _, content in sliding([ramp(12)], 5, 5, min_tail=2)] == [5, 5, 2]
        assert [len(content) for _, content in sliding([ramp(1)], 5, 5, min_tail=3)] == [1]

    def test_nothing_in_nothing_out(self) -> None:
        assert list(sliding([], 5, 5)) == []
        assert list(sliding([ramp(0)], 5, 5)) == []

    def test_windows_do_not_share_memory(self) -> None:
        (_, first), (_, second) = sliding([ramp(6)], 4, 2)
        first[:] = 0
        assert second.tolist() == [3, 4, 5, 6]

    @pytest.mark.parametrize(("window", "hop", "min_tail"), [(0, 1, 1), (4, 0, 1), (4, 5, 1), (4, 4, 0), (-1, -1, 1)])
    def test_senseless_numbers_are_refused_at_the_call(self, window: int, hop: int, min_tail: int) -> None:
        with pytest.raises(InputError, match="hop"):
            sliding([], window, hop, min_tail=min_tail)

    def test_memory_is_bounded(self) -> None:
        def blocks() -> Iterator[NDArray[np.float32]]:
            for _ in range(2000):
                yield np.ones(8_000, np.float32)

        tracemalloc.start()
        count = sum(1 for _ in sliding(blocks(), 160_000, 80_000))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 199
        assert peak_bytes < 4e6  # 16 million samples are 64 MB


def test_chunks_are_cut_at_the_quietest_place_and_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    waveform = rng.standard_normal(40 * 1000).astype(np.float32)
    for pause_s in (7, 15, 22, 30):
        waveform[pause_s * 1000 : pause_s * 1000 + 300] *= 0.01
    chunks = list(at_pauses(np.array_split(waveform, 7), 1000, min_s=5.0, max_s=10.0))
    np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in chunks]), waveform)
    assert [start / 1000 for start, _ in chunks] == pytest.approx([0, 7.15, 15.15, 22.15, 30.15], abs=0.06)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=8), st.integers(0, 3))
def test_chunks_do_not_depend_on_how_blocks_fall(sizes: list[int], seed: int) -> None:
    waveform = np.random.default_rng(seed).standard_normal(sum(sizes)).astype(np.float32)
    blocks = np.split(waveform, np.cumsum(sizes)[:-1])
    parted, whole = (list(at_pauses(given, 100, min_s=0.5, max_s=2.0)) for given in (blocks, [waveform]))
    assert [start for start, _ in parted] == [start for start, _ in whole]
    assert all(50 <= len(chunk) <= 200 for _, chunk in whole[:-1])
    np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in parted]), waveform)
